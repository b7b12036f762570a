/** Hazard F23, over the real wire: which writes to a file that is not new need not be waited for, and what becomes of those. */
import fs from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { promised } from "../../../dlmd/base/maybe-promise.ts";
import { BEHIND_BYTES_MAX } from "../../../overlay/lower/limits.ts";
import { O } from "../../../overlay/lower/linux.ts";
import type { LocalLower } from "../../../overlay/lower/local/local.ts";
import type { FileId, LowerHandle } from "../../../overlay/lower/lower.ts";
import type { Holds } from "../../../overlay/lower/remote/known.ts";
import type { RemoteLower } from "../../../overlay/lower/remote/remote.ts";
import { ROOM_FILES_MAX, Room, WRITTEN_BYTES_MAX } from "../../../overlay/lower/remote/room.ts";
import { BEHIND_END_MAX, BEHIND_FILE_MAX, BEHIND_POOL_MAX, ROOM_MS } from "../../../overlay/lower/remote/write-behind.ts";
import { AFTER_BEHIND_HELD_UP_MS, BEHIND_HELD_UP_MS } from "../../../overlay/lower/server/session-calls.ts";
import { handClock } from "./hand-clock.ts";
import { errnoOf, name, type Owner, RDWR, remoteLab, until } from "./remote-lab.ts";

const lab = remoteLab();

const clock = handClock();

const PAGE = 4096;
const id = (ino: number): FileId => ({ ino, generation: 1 });

class Hold implements Holds {
  held = 1;
  left = false;
  grants(): number {
    return this.held;
  }
  of(): number {
    return this.left ? 0 : this.held;
  }
}

/** Writes that wait at the owner, and which came. */
class Pool {
  readonly writes: { readonly offset: number; readonly text: string }[] = [];
  room = 256 * BEHIND_BYTES_MAX;
  error: Error | null = null;
  most = Number.MAX_SAFE_INTEGER;
  #open: (() => void) | null = null;
  #flags: (() => Promise<void>) | null = null;
  #opened: Promise<void> | null = null;

  close(): void {
    this.#opened = new Promise((resolve) => (this.#open = resolve));
  }

  open(): void {
    this.#open?.();
  }

  /** The next change of flags waits at the owner. */
  holdFlags(): { begun: boolean; readonly end: () => void } {
    let end = (): void => undefined;
    const ended = new Promise<void>((resolve) => (end = resolve));
    const held = { begun: false, end };
    this.#flags = async () => {
      held.begun = true;
      await ended;
    };
    return held;
  }

  wrap(lower: LocalLower): LocalLower {
    return {
      ...lower,
      setFileAttributes: async (...given) => {
        await this.#flags?.();
        return lower.setFileAttributes(...given);
      },
      room: () => this.room,
      write: async (handle, data, offset, append) => {
        this.writes.push({ offset, text: Buffer.from(data).toString() });
        await this.#opened;
        if (this.error !== null) throw this.error;
        return lower.write(handle, data.subarray(0, this.most), offset, append);
      },
    };
  }
}

interface Here {
  readonly pool: Pool;
  readonly hold: Hold;
  readonly one: Owner;
  readonly lower: RemoteLower;
  readonly file: { readonly id: FileId; readonly handle: LowerHandle };
}

/** A file of three pages that was there before, and is open here. */
async function opened(flags: number = RDWR): Promise<Here> {
  fs.writeFileSync(path.join(lab.place.path, "f"), "x".repeat(3 * PAGE));
  const pool = new Pool();
  const one = await lab.owner(1, (lower) => pool.wrap(lower));
  const hold = new Hold();
  const lower = lab.remote({}, undefined, { holds: hold });
  await lower.connect(one.address, 1);
  const { id: file } = await lower.lookup(lower.root, name("f"));
  return { pool, hold, one, lower, file: { id: file, handle: await lower.open(file, flags) } };
}

/** The same, with the owner's word that there is room. */
async function withRoom(flags: number = RDWR): Promise<Here> {
  const here = await opened(flags);
  await here.lower.write(here.file.handle, Buffer.from("0123456789"), 100, false);
  here.pool.writes.length = 0;
  return here;
}

const may = ({ lower, file }: Here, offset: number, bytes = 1): boolean => lower.mayWriteBehind(file.handle, offset, bytes);
const onDisk = (): string => fs.readFileSync(path.join(lab.place.path, "f"), "latin1");

function behind(here: Here, text: string, offset: number): Promise<void> {
  if (!may(here, offset, text.length)) throw new Error("it has to be waited for");
  return here.lower.writeBehind(here.file.handle, Buffer.from(text), offset);
}

describe("a write to a file that is not new", () => {
  it("is waited for the first time; then not where the owner has nothing to read for it", async () => {
    const here = await opened();
    expect([may(here, 0, PAGE), may(here, 100)]).toEqual([false, false]);
    await here.lower.write(here.file.handle, Buffer.from("0123456789"), 100, false);
    expect([may(here, 110), may(here, 0, PAGE), may(here, 2 * PAGE, PAGE)]).toEqual([true, true, true]);
    expect([may(here, 110, PAGE), may(here, PAGE, 10), may(here, PAGE + 1, PAGE)]).toEqual([false, false, false]);
  });

  it("goes on where the last one ends, behind or waited for; elsewhere it begins anew", async () => {
    const here = await withRoom();
    await behind(here, "abc", 110);
    await behind(here, "y".repeat(PAGE), 2 * PAGE);
    expect([may(here, 113), may(here, 3 * PAGE)]).toEqual([false, true]);
    await here.lower.write(here.file.handle, Buffer.from("z"), 50, false);
    expect([may(here, 2 * PAGE + 5), may(here, 51), may(here, 50)]).toEqual([false, true, true]);
    expect(onDisk().slice(100, 113)).toBe("0123456789abc");
  });

  it("through any other handle, but for O_SYNC and O_DIRECT; and no append asks for room", async () => {
    const here = await withRoom();
    const flags = [RDWR, RDWR | O.SYNC, RDWR | O.DSYNC, RDWR | O.DIRECT];
    const mayThrough: boolean[] = [];
    for (const one of flags) {
      const handle = await here.lower.open(here.file.id, one);
      // The owner has it open then (hazard F22).
      await here.lower.fsync(handle, false);
      mayThrough.push(here.lower.mayWriteBehind(handle, 110, 1));
    }
    expect(mayThrough).toEqual([true, false, false, false]);
    for (const one of [RDWR | O.APPEND, RDWR | O.DSYNC]) {
      clock.nowMs += ROOM_MS;
      const handle = await here.lower.open(here.file.id, one);
      await here.lower.write(handle, Buffer.from("z"), 110, false);
      expect([one, may(here, 111)]).toEqual([one, false]);
    }
  });

  it("ROOM_MS after the owner was asked it is waited for, and its answer counts anew", async () => {
    const here = await withRoom();
    clock.nowMs += ROOM_MS - 1;
    expect(may(here, 110)).toBe(true);
    clock.nowMs += 1;
    expect(may(here, 110)).toBe(false);
    await here.lower.write(here.file.handle, Buffer.from("a"), 110, false);
    expect(may(here, 111)).toBe(true);
  });

  it("the answer to one behind counts as well", async () => {
    const here = await withRoom();
    clock.nowMs += ROOM_MS / 2;
    await behind(here, "a", 110);
    clock.nowMs += ROOM_MS / 2;
    expect(may(here, 111)).toBe(true);
  });

  it("counts from when it was asked", async () => {
    const here = await opened();
    here.pool.close();
    const written = here.lower.write(here.file.handle, Buffer.from("a"), 0, false);
    await until(() => here.pool.writes.length === 1);
    clock.nowMs += ROOM_MS;
    here.pool.open();
    await written;
    expect(may(here, 1)).toBe(false);
  });

  it.each<[string, (here: Here) => unknown]>([
    ["the lock is about to leave", ({ lower, file }) => lower.tellOpens(file.id)],
    [
      "its flags were changed (hazard F27)",
      async ({ lower, file }) => lower.setFileAttributes(file.handle, "flags", await lower.fileAttributes(file.handle, "flags")),
    ],
    ["the owner cannot be reached", ({ lower }) => lower.ownerLost()],
  ])("is waited for once %s", async (_what, then) => {
    const here = await withRoom();
    expect(may(here, 110)).toBe(true);
    await then(here);
    expect([may(here, 110), may(here, 0, PAGE)]).toEqual([false, false]);
  });

  it.each<[string, (hold: Hold) => unknown]>([
    ["has left and come back", (hold) => (hold.held = 2)],
    ["is about to leave", (hold) => (hold.left = true)],
  ])("is waited for where the lock %s before the answer", async (_what, leave) => {
    const here = await opened();
    here.pool.close();
    const written = here.lower.write(here.file.handle, Buffer.from("a"), 0, false);
    await until(() => here.pool.writes.length === 1);
    leave(here.hold);
    here.pool.open();
    await written;
    here.hold.left = false;
    expect(may(here, 1)).toBe(false);
  });

  it("is waited for where the disk has no room", async () => {
    const here = await opened();
    here.pool.room -= 1;
    await here.lower.write(here.file.handle, Buffer.from("a"), 0, false);
    expect(may(here, 1)).toBe(false);
    here.pool.room += 1;
    await here.lower.write(here.file.handle, Buffer.from("a"), 0, false);
    expect(may(here, 1)).toBe(true);
  });

  it("longer than BEHIND_END_MAX, or behind BEHIND_FILE_MAX, is waited for", async () => {
    const here = await withRoom();
    expect([may(here, 0, BEHIND_END_MAX), may(here, 0, BEHIND_END_MAX + PAGE)]).toEqual([true, false]);
    expect([may(here, BEHIND_FILE_MAX - PAGE, PAGE), may(here, BEHIND_FILE_MAX, PAGE)]).toEqual([true, false]);
  });

  it("while BEHIND_POOL_MAX are under way the next one is waited for", async () => {
    const here = await withRoom();
    here.pool.close();
    const written = Array.from({ length: BEHIND_POOL_MAX }, (_, at) => behind(here, "a", 110 + at));
    expect(may(here, 110 + BEHIND_POOL_MAX)).toBe(false);
    here.pool.open();
    await Promise.all(written);
    expect(may(here, 110 + BEHIND_POOL_MAX)).toBe(true);
  });

  it("of one that took BEHIND_HELD_UP_MS at the owner the next ones are waited for, AFTER_BEHIND_HELD_UP_MS long", async () => {
    const here = await withRoom();
    const after = async (tookMs: number): Promise<boolean> => {
      await here.lower.write(here.file.handle, Buffer.from("a"), 110, false);
      clock.nowMs += ROOM_MS / 2;
      here.pool.writes.length = 0;
      here.pool.close();
      const written = behind(here, "a", 110);
      await until(() => here.pool.writes.length > 0);
      clock.nowMs += tookMs;
      here.pool.open();
      await written;
      clock.nowMs += ROOM_MS / 2;
      return may(here, 110);
    };
    expect(await after(BEHIND_HELD_UP_MS - 1)).toBe(true);
    expect(await after(BEHIND_HELD_UP_MS)).toBe(false);
    const again = async (): Promise<boolean> => {
      await here.lower.write(here.file.handle, Buffer.from("a"), 110, false);
      return may(here, 110);
    };
    clock.nowMs += AFTER_BEHIND_HELD_UP_MS - ROOM_MS / 2 - 1;
    expect(await again()).toBe(false);
    clock.nowMs += 1;
    expect(await again()).toBe(true);
  });

  it("one that is waited for says nothing of the pool, however long it takes", async () => {
    const here = await opened();
    here.pool.close();
    const written = here.lower.write(here.file.handle, Buffer.from("a"), 0, false);
    await until(() => here.pool.writes.length === 1);
    clock.nowMs += BEHIND_HELD_UP_MS;
    here.pool.open();
    await written;
    expect(may(here, 1)).toBe(true);
  });

  it("that is lost: fsync says EIO, and each write to what is open now is waited for, ever after", async () => {
    const here = await withRoom();
    here.pool.error = errnoError(E.ENOSPC);
    expect(await errnoOf(() => behind(here, "a", 110))).toBe(E.ENOSPC);
    expect(await errnoOf(async () => here.lower.fsync(here.file.handle, false))).toBe(E.EIO);
    here.pool.error = null;
    await here.lower.write(here.file.handle, Buffer.from("a"), 110, false);
    expect(may(here, 111)).toBe(false);
    const later = await here.lower.open(here.file.id, RDWR);
    expect(here.lower.mayWriteBehind(later, 111, 1)).toBe(false);
    await here.lower.write(later, Buffer.from("a"), 110, false);
    expect([here.lower.mayWriteBehind(later, 111, 1), may(here, 111)]).toEqual([true, false]);
  });
});

describe("after a file was cut, as by O_TRUNC, the owner's answer has told whether there is room", () => {
  const cut = ({ lower, file }: Here, size = 0, handle: LowerHandle | null = file.handle): Promise<unknown> =>
    promised(() => lower.setattr(file.id, { size }, handle));

  it("so already the first write is not waited for", async () => {
    const here = await opened();
    expect(may(here, 0)).toBe(false);
    await cut(here);
    expect([may(here, 0), may(here, 0, PAGE + 1), may(here, 1)]).toEqual([true, true, false]);
    await behind(here, "new", 0);
    expect([may(here, 3), onDisk()]).toEqual([true, "new"]);
  });

  it("to a length: what ends there or behind it", async () => {
    const here = await opened();
    await cut(here, PAGE + 10);
    expect([may(here, PAGE, 9), may(here, PAGE, 10), may(here, 0, PAGE)]).toEqual([false, true, true]);
  });

  it("and what was known of it before counts no more", async () => {
    const here = await withRoom();
    const cutting = cut(here);
    expect(may(here, 110)).toBe(false);
    await cutting;
    expect([may(here, 110), may(here, 0)]).toEqual([false, true]);
  });

  it.each<[string, (here: Here) => unknown]>([
    ["has left and come back", ({ hold }) => (hold.held = 2)],
    ["is about to leave", ({ hold }) => (hold.left = true)],
    ["is about to leave, and stays", ({ lower, file }) => lower.tellOpens(file.id)],
  ])("not where the lock %s meanwhile", async (_what, leave) => {
    const here = await opened();
    const cutting = cut(here);
    leave(here);
    await cutting;
    here.hold.left = false;
    expect(may(here, 0)).toBe(false);
  });

  it("counted from when it was asked", async () => {
    const here = await opened();
    const cutting = cut(here);
    clock.nowMs += ROOM_MS;
    await cutting;
    expect(may(here, 0)).toBe(false);
  });

  it("by name, too: so the kernel asks for O_TRUNC", async () => {
    const here = await opened();
    await cut(here, 0, null);
    expect(may(here, 0)).toBe(true);
  });

  it("not where it has none, for what was open when data was lost, and through O_DSYNC", async () => {
    const full = await opened();
    full.pool.room -= 1;
    await cut(full);
    const lost = await withRoom();
    const written = errnoOf(() => behind(lost, "a", 110));
    lost.pool.error = errnoError(E.EIO);
    await written;
    await cut(lost);
    const dsync = await opened(RDWR | O.DSYNC);
    await cut(dsync);
    expect([full, lost, dsync].map((here) => may(here, 0))).toEqual([false, false, false]);
  });

  it("nor while those of the file before were held up", async () => {
    const here = await withRoom();
    here.pool.close();
    const written = behind(here, "a", 110);
    await until(() => here.pool.writes.length === 1);
    clock.nowMs += BEHIND_HELD_UP_MS;
    here.pool.open();
    await written;
    await cut(here);
    expect(may(here, 0)).toBe(false);
    clock.nowMs += AFTER_BEHIND_HELD_UP_MS;
    await cut(here);
    expect(may(here, 0)).toBe(true);
  });
});

it("at the next owner the first write is waited for: its memory is another", async () => {
  const here = await withRoom();
  expect(may(here, 110)).toBe(true);
  here.lower.ownerLost();
  const two = await lab.owner(2);
  here.lower.ownerFound(two.address, 2);
  await here.lower.statfs();
  expect([may(here, 110), may(here, 0, PAGE)]).toEqual([false, false]);
  await here.lower.write(here.file.handle, Buffer.from("a"), 110, false);
});

it("ROOM_FILES_MAX files have room, the one that was given it first has none then", () => {
  const room = new Room();
  const give = (ino: number): void => room.give(id(ino), room.asked(id(ino), 0), 1, null);
  for (let ino = 0; ino <= ROOM_FILES_MAX; ino += 1) give(ino);
  expect([room.isAt(id(0), 0, PAGE, 0), room.isAt(id(1), 0, PAGE, 0), room.isAt(id(ROOM_FILES_MAX), 0, PAGE, 0)]).toEqual([
    false,
    true,
    true,
  ]);
  // One that is given it again is a new one.
  give(1);
  give(ROOM_FILES_MAX + 1);
  expect([room.isAt(id(1), 0, PAGE, 0), room.isAt(id(2), 0, PAGE, 0)]).toEqual([true, false]);
});

describe("where the owner has nothing to read", () => {
  /** A file of three pages, of which that is known. */
  function roomAfter(...writes: readonly (readonly [number, number])[]): (offset: number, bytes: number) => boolean {
    const room = new Room();
    room.give(id(1), room.asked(id(1), 0), 1, 3 * PAGE);
    for (const [offset, bytes] of writes) room.written(id(1), offset, bytes);
    return (offset, bytes) => room.isAt(id(1), offset, bytes, 0);
  }

  it("whole pages, and all in pages that were written to", () => {
    const is = roomAfter([100, 10]);
    expect([is(0, PAGE), is(PAGE, PAGE), is(0, 2 * PAGE), is(100, 10), is(5, 1), is(110, PAGE - 110), is(4000, 96)]).toEqual(
      Array(7).fill(true),
    );
    // What begins there and ends in another page, and the other way round; other parts of pages; from a whole page into one.
    expect([is(110, PAGE), is(4000, 97), is(PAGE, 10), is(0, PAGE + 1), is(PAGE + 1, PAGE - 1), is(2 * PAGE + 5, 1)]).toEqual(
      Array(6).fill(false),
    );
    expect(roomAfter()(0, 1)).toBe(false);
    expect(roomAfter()(0, PAGE)).toBe(true);
  });

  it("from a page that is there into another one, and over whole ones between", () => {
    const is = roomAfter([PAGE - 5, 10]);
    expect([is(PAGE - 1, 2), is(0, PAGE + 1), is(1, 2 * PAGE - 1), is(1, 2 * PAGE)]).toEqual([true, true, true, false]);
  });

  it("what ends at the file's end or behind it", () => {
    const is = roomAfter([3 * PAGE - 10, 10]);
    expect([is(3 * PAGE - 1, 2), is(3 * PAGE, 10), is(3 * PAGE, 5 * PAGE + 1)]).toEqual([true, true, true]);
    // Where no page has been looked at, its beginning is read.
    expect(is(3 * PAGE + 1, 1)).toBe(false);
    // The file is longer then.
    const longer = roomAfter([3 * PAGE, 10], [3 * PAGE + 10, PAGE], [0, PAGE]);
    expect([longer(3 * PAGE, 10), longer(3 * PAGE, PAGE + 10)]).toEqual([false, true]);
  });

  it("of a file whose length was not told, the end is not known", () => {
    const room = new Room();
    room.give(id(1), room.asked(id(1), 0), 1, null);
    room.written(id(1), 0, 10);
    expect([room.isAt(id(1), 10, 10, 0), room.isAt(id(1), 10, PAGE, 0)]).toEqual([true, false]);
    // An older word of it counts for less than what was written since.
    room.written(id(1), 10, PAGE);
    const asked = room.asked(id(1), 0);
    room.give(id(1), asked, 1, PAGE + 10);
    room.give(id(1), asked, 1, 10);
    expect([room.isAt(id(1), 10, 2 * PAGE, 0), room.isAt(id(1), PAGE, 5, 0), room.isAt(id(1), 2 * PAGE, 5, 0)]).toEqual([true, true, true]);
    room.written(id(1), 2 * PAGE, PAGE);
    expect(room.isAt(id(1), 2 * PAGE, PAGE + 1, 0)).toBe(true);
    expect(room.isAt(id(1), 10, PAGE, 0)).toBe(false);
  });

  it("of what was written the last WRITTEN_BYTES_MAX count", () => {
    const is = roomAfter([0, WRITTEN_BYTES_MAX], [WRITTEN_BYTES_MAX, PAGE]);
    expect([is(PAGE + 1, 1), is(PAGE - 1, 1)]).toEqual([true, false]);
  });

  it("and nothing of what was written before the last word was too old", () => {
    const room = new Room();
    const give = (askedMs: number): void => room.give(id(1), room.asked(id(1), askedMs), askedMs + 10, 3 * PAGE);
    give(0);
    room.written(id(1), 5, 5);
    give(9);
    expect(room.isAt(id(1), 5, 1, 10)).toBe(true);
    give(19);
    expect([room.isAt(id(1), 5, 1, 20), room.isAt(id(1), 0, PAGE, 20)]).toEqual([false, true]);
  });
});

it("who owns the file is known while writes to it are under way, and nobody asks for it", async () => {
  const here = await withRoom();
  await here.lower.getattr(here.file.id);
  here.pool.close();
  const before = here.one.server.counters.received;
  const written = [0, 1, 2].map((at) => {
    expect(here.lower.ownership(here.file.id)).toMatchObject({ uid: 0, nlink: 1 });
    return behind(here, "a", 110 + at);
  });
  expect(here.lower.ownership(here.file.id)).toMatchObject({ uid: 0, nlink: 1 });
  here.pool.open();
  await Promise.all(written);
  expect(here.one.server.counters.received - before).toBe(3);
});

it.each<[string, (here: Here) => unknown]>([
  ["the lock has left", ({ hold }) => (hold.held = 2)],
  ["the lock is about to leave", ({ hold }) => (hold.left = true)],
  ["there is another owner", ({ lower }) => lower.ownerLost()],
  ["something else is changed", ({ lower, file }) => void errnoOf(async () => lower.setattr(file.id, { mode: 0o600 }, null))],
  [
    "a write that is waited for is under way",
    ({ lower, file }) => void errnoOf(async () => lower.write(file.handle, Buffer.from("a"), 0, false)),
  ],
])("who owns it is asked for once %s", async (_what, then) => {
  const here = await withRoom();
  here.pool.close();
  void errnoOf(() => behind(here, "a", 110));
  expect(here.lower.ownership(here.file.id)).toMatchObject({ uid: 0 });
  then(here);
  const asked = here.lower.ownership(here.file.id);
  expect(asked).toBeInstanceOf(Promise);
  const answered = errnoOf(async () => asked);
  here.pool.open();
  here.lower.shutdown();
  await answered;
});

it("after a loss who owns it is asked for", async () => {
  const here = await withRoom();
  here.pool.close();
  const [first, second] = [errnoOf(() => behind(here, "a", 110)), errnoOf(() => behind(here, "b", 300))];
  here.pool.error = errnoError(E.EIO);
  const asked = first.then(async () => {
    const of = here.lower.ownership(here.file.id);
    return [of instanceof Promise, (await of).uid];
  });
  here.pool.open();
  expect([await first, await second, await asked]).toEqual([E.EIO, E.EIO, [true, 0]]);
});

it("a file that was written to behind and is closed is told with others", async () => {
  const here = await withRoom();
  await here.lower.getattr(here.file.id);
  here.pool.close();
  const written = behind(here, "a", 110);
  here.lower.hurry();
  const before = here.lower.counters.messagesSent;
  here.lower.close(here.file.handle);
  here.lower.hurry();
  expect(here.lower.counters.messagesSent).toBe(before);
  here.pool.open();
  await written;
});

describe("an answer gives no room where the flags were changed (hazard F27)", () => {
  const setFlags = async ({ lower, file }: Here): Promise<void> =>
    lower.setFileAttributes(file.handle, "flags", await lower.fileAttributes(file.handle, "flags"));

  it("while it was under way", async () => {
    const here = await opened();
    here.pool.close();
    const written = errnoOf(async () => here.lower.write(here.file.handle, Buffer.from("a"), 0, false));
    await setFlags(here);
    here.pool.open();
    expect([await written, may(here, 0, PAGE)]).toEqual([0, false]);
  });

  it("or were being changed then", async () => {
    const here = await opened();
    const set = here.pool.holdFlags();
    const changed = setFlags(here);
    await until(() => set.begun);
    await here.lower.write(here.file.handle, Buffer.from("a"), 0, false);
    set.end();
    await changed;
    expect(may(here, 0, PAGE)).toBe(false);
  });
});

it("the answer to the last of several brings what the file is like then: nobody asks for it", async () => {
  const here = await withRoom();
  here.pool.close();
  const [first, second] = [behind(here, "a", 110), behind(here, "y".repeat(PAGE), 3 * PAGE)];
  here.pool.open();
  await Promise.all([first, second]);
  const before = here.one.server.counters.received;
  expect((await here.lower.getattr(here.file.id)).size).toBe(4 * PAGE);
  expect(here.one.server.counters.received).toBe(before);
});

it("where a write that was waited for is under way the last answer counts for nothing", async () => {
  const here = await withRoom();
  here.pool.close();
  const first = here.lower.write(here.file.handle, Buffer.from("z"), 3 * PAGE, false);
  const second = behind(here, "a", 110);
  here.pool.open();
  await Promise.all([first, second]);
  const before = here.one.server.counters.received;
  await here.lower.getattr(here.file.id);
  expect(here.one.server.counters.received).toBe(before + 1);
});

describe("at the owner, those that wait and go on in each other", () => {
  /** The first one is under way, and the others wait for it. */
  async function waiting(here: Here, others: readonly (readonly [string, number])[]): Promise<Promise<number>[]> {
    here.pool.close();
    const before = here.one.server.counters.received;
    const written = [["first", 110] as const, ...others].map(([text, offset]) => errnoOf(() => behind(here, text, offset)));
    here.lower.hurry();
    await until(() => here.one.server.counters.received >= before + written.length);
    expect(here.pool.writes.map(({ text }) => text)).toEqual(["first"]);
    here.pool.writes.length = 0;
    return written;
  }

  it("are written in one call, and each has its answer", async () => {
    const here = await withRoom();
    const written = await waiting(here, [
      ["ab", 115],
      ["cde", 117],
    ]);
    const after = here.lower.getattr(here.file.id);
    here.pool.open();
    expect(await Promise.all(written)).toEqual([0, 0, 0]);
    expect((await after).size).toBe(3 * PAGE);
    expect(here.pool.writes).toEqual([{ offset: 115, text: "abcde" }]);
    expect(onDisk().slice(110, 120)).toBe("firstabcde");
  });

  it("and those that do not are not", async () => {
    const here = await withRoom();
    const written = await waiting(here, [
      ["ab", 115],
      ["xy", 116],
      ["z", 118],
    ]);
    here.pool.open();
    await Promise.all(written);
    expect(here.pool.writes).toEqual([
      { offset: 115, text: "ab" },
      { offset: 116, text: "xyz" },
    ]);
    expect(onDisk().slice(110, 119)).toBe("firstaxyz");
  });

  it("of another handle are not", async () => {
    const here = await withRoom();
    const other = await here.lower.open(here.file.id, RDWR);
    here.pool.close();
    const before = here.one.server.counters.received;
    const written = [behind(here, "first", 110), behind(here, "ab", 115), here.lower.writeBehind(other, Buffer.from("cd"), 117)];
    here.lower.hurry();
    await until(() => here.one.server.counters.received >= before + written.length);
    here.pool.open();
    await Promise.all(written);
    expect(here.pool.writes.map(({ text }) => text)).toEqual(["first", "ab", "cd"]);
  });

  it("a part of which was written: those that were are, the others are lost", async () => {
    const here = await withRoom();
    const written = await waiting(here, [
      ["ab", 115],
      ["cd", 117],
      ["ef", 119],
    ]);
    here.pool.most = 3;
    here.pool.open();
    // The first one had come to the lower before.
    expect(await Promise.all(written)).toEqual([E.ENOSPC, 0, E.ENOSPC, E.ENOSPC]);
    expect(onDisk().slice(115, 120)).toBe("abcxx");
  });

  it("all fail with the error of that call", async () => {
    const here = await withRoom();
    const written = await waiting(here, [
      ["ab", 115],
      ["cd", 117],
    ]);
    here.pool.error = errnoError(E.EIO);
    here.pool.open();
    expect(await Promise.all(written)).toEqual([E.EIO, E.EIO, E.EIO]);
  });
});
