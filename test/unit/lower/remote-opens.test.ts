/** Files that are opened for reading under a lock that is here, of which the owner is told at the first READ (hazard F22), over the real wire. */
import { describe, expect, it } from "vitest";
import { TELL_OPENS_MAX } from "../../../overlay/lower/remote/opens.ts";
import type { FileId, LowerHandle } from "../../../overlay/lower/lower.ts";
import type { Holds } from "../../../overlay/lower/remote/known.ts";
import type { RemoteLower } from "../../../overlay/lower/remote/remote.ts";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { caller, name, type Owner, RDWR, remoteLab, until } from "./remote-lab.ts";

const { owner, remote, proxyTo } = remoteLab();

const RDONLY = 0;
const O_TRUNC = 0o1000;
const SEEK_DATA = 3;

/** All locks are here, but for those of `away`. */
function holdsBut(away: ReadonlySet<number>): Holds {
  return { grants: () => 1, of: ({ ino }) => (away.has(ino) ? 0 : 1) };
}

interface Bench {
  readonly lower: RemoteLower;
  readonly other: RemoteLower;
  readonly one: Owner;
  /** Inodes whose lock is not here. */
  readonly away: Set<number>;
  /** A file with that content, that nobody has open. */
  readonly file: (called: string, content?: string) => Promise<FileId>;
  readonly text: (handle: LowerHandle) => Promise<string>;
}

async function bench(): Promise<Bench> {
  const away = new Set<number>();
  const lower = remote({}, undefined, { holds: holdsBut(away) });
  const other = remote({ clientId: 6 });
  const one = await owner();
  await lower.connect(one.address, 1);
  await other.connect(one.address, 1);
  const file = async (called: string, content = called): Promise<FileId> => {
    const made = await lower.create(lower.root, name(called), RDWR, 0o644, caller);
    await lower.write(made.handle, Buffer.from(content), 0, false);
    lower.close(made.handle);
    await lower.getattr(made.entry.id);
    await until(() => one.lower.openHandles === 0);
    return made.entry.id;
  };
  const text = async (handle: LowerHandle): Promise<string> => Buffer.from(await lower.read(handle, 0, 100)).toString();
  return { lower, other, one, away, file, text };
}

/** At once, without a trip. */
function opened(lower: RemoteLower, id: FileId): LowerHandle {
  const handle = lower.open(id, RDONLY);
  if (handle instanceof Promise) throw new Error("the owner is asked");
  return handle;
}

it("an open for reading and its close cost nothing; the first READ opens the file, and its close is told", async () => {
  const { lower, one, file, text } = await bench();
  const id = await file("f");
  const trips = lower.counters.awaited;
  lower.close(opened(lower, id));
  const handle = opened(lower, id);
  expect([lower.counters.awaited - trips, one.lower.openHandles]).toEqual([0, 0]);
  expect([await text(handle), await text(handle)]).toEqual(["f", "f"]);
  expect([lower.counters.awaited - trips, one.lower.openHandles]).toEqual([2, 1]);
  lower.close(handle);
  await until(() => one.lower.openHandles === 0);
});

/** A directory whose attributes are known, with one file in it. */
async function directory({ lower, other, one }: Pick<Bench, "lower" | "other" | "one">): Promise<FileId> {
  const { id } = await other.mkdir(other.root, name("dir"), 0o755, caller);
  const made = await other.create(id, name("entry"), RDWR, 0o644, caller);
  other.close(made.handle);
  await lower.getattr(id);
  await until(() => one.lower.openHandles === 0);
  return id;
}

function openedDirectory(lower: RemoteLower, id: FileId): LowerHandle {
  const handle = lower.opendir(id);
  if (handle instanceof Promise) throw new Error("the owner is asked");
  return handle;
}

const names = async (lower: RemoteLower, handle: LowerHandle): Promise<string[]> => {
  const { entries } = await lower.readdir(handle, 0n, 4096, "names");
  return entries.map((entry) => entry.name.toString()).filter((entry) => !entry.startsWith("."));
};

describe("a directory that is opened under a lock that is here (hazard F22)", () => {
  it("costs nothing; its listing, or its sync, is one trip, and opens it; its close is told", async () => {
    const { lower, other, one } = await bench();
    const id = await directory({ lower, other, one });
    const trips = lower.counters.awaited;
    lower.close(openedDirectory(lower, id));
    const [listed, synced] = [openedDirectory(lower, id), openedDirectory(lower, id)];
    expect([lower.counters.awaited - trips, one.lower.openHandles]).toEqual([0, 0]);
    expect(await names(lower, listed)).toEqual(["entry"]);
    expect([lower.counters.awaited - trips, one.lower.openHandles]).toEqual([1, 1]);
    await lower.fsyncdir(synced, false);
    expect([lower.counters.awaited - trips, one.lower.openHandles]).toEqual([2, 2]);
    expect(await names(lower, listed)).toEqual(["entry"]);
    for (const handle of [listed, synced]) lower.close(handle);
    await until(() => one.lower.openHandles === 0);
  });

  it("two listings at a time open it once", async () => {
    const { lower, other, one } = await bench();
    const handle = openedDirectory(lower, await directory({ lower, other, one }));
    expect(await Promise.all([names(lower, handle), names(lower, handle)])).toEqual([["entry"], ["entry"]]);
    await until(() => one.lower.openHandles === 1);
  });

  it("without the lock the owner is asked", async () => {
    const { lower, other, one, away } = await bench();
    const id = await directory({ lower, other, one });
    away.add(id.ino);
    const uncovered = lower.opendir(id);
    expect(uncovered).toBeInstanceOf(Promise);
    lower.close(await uncovered);
  });

  it("before the lock leaves the owner is told: who removes it leaves an empty one to who has it open", async () => {
    const { lower, other, one } = await bench();
    const id = await directory({ lower, other, one });
    const handle = openedDirectory(lower, id);
    expect(one.lower.openHandles).toBe(0);
    await lower.tellOpens(id);
    expect(one.lower.openHandles).toBe(1);
    const { id: entry } = await other.lookup(id, name("entry"));
    await other.unlink(id, name("entry"), entry);
    await other.rmdir(other.root, name("dir"), id);
    await expect(names(lower, handle)).rejects.toMatchObject({ errno: E.ENOENT });
  });

  it.each<[string, () => never | Promise<never>]>([
    [
      "at once",
      () => {
        throw errnoError(E.ESTALE);
      },
    ],
    ["later", () => Promise.reject(errnoError(E.ESTALE))],
  ])("one that the owner finds removed, %s, is a removed one, and not an unknown handle", async (_when, opendir) => {
    const two = await owner(2, (lower) => ({ ...lower, opendir }));
    const lower = remote({ clientId: 7 }, undefined, { holds: holdsBut(new Set()) });
    await lower.connect(two.address, 2);
    await lower.getattr(lower.root);
    const handle = openedDirectory(lower, lower.root);
    for (const _ of [1, 2]) await expect(names(lower, handle)).rejects.toMatchObject({ errno: E.ENOENT });
  });

  it("the listing waits at the owner until it is open there", async () => {
    let open = (): void => undefined;
    const mayOpen = new Promise<void>((resolve) => (open = resolve));
    const two = await owner(2, (lower) => ({ ...lower, opendir: (id) => mayOpen.then(() => lower.opendir(id)) }));
    const lower = remote({ clientId: 7 }, undefined, { holds: holdsBut(new Set()) });
    await lower.connect(two.address, 2);
    await lower.getattr(lower.root);
    const listed = names(lower, openedDirectory(lower, lower.root));
    const [before] = [lower.counters.roundTrips];
    // All that is asked and answered in between: the listing has come there long before.
    for (let calls = 0; calls < 5; calls += 1) await lower.statfs();
    expect(lower.counters.roundTrips - before).toBe(5);
    open();
    expect(await listed).toBeInstanceOf(Array);
  });

  it("that the owner has no room for it is told to who lists it, and the next listing opens it", async () => {
    const full = { now: true };
    const two = await owner(2, (lower) => ({
      ...lower,
      opendir: async (id) => {
        if (full.now) throw errnoError(E.ENFILE);
        return lower.opendir(id);
      },
    }));
    const lower = remote({ clientId: 7 }, undefined, { holds: holdsBut(new Set()) });
    await lower.connect(two.address, 2);
    await lower.getattr(lower.root);
    const handle = openedDirectory(lower, lower.root);
    await expect(names(lower, handle)).rejects.toMatchObject({ errno: E.ENFILE });
    full.now = false;
    expect(await names(lower, handle)).toBeInstanceOf(Array);
  });
});

it("a copy from one waits at the owner until it is open there, and says why it cannot be", async () => {
  const { file } = await bench();
  const id = await file("f", "first");
  let open = (): void => undefined;
  const mayOpen = new Promise<void>((resolve) => (open = resolve));
  let full = false;
  const two = await owner(2, (lower) => ({
    ...lower,
    async open(of, flags) {
      await mayOpen;
      if (full) throw errnoError(E.ENFILE);
      return lower.open(of, flags);
    },
  }));
  const lower = remote({ clientId: 7 }, undefined, { holds: holdsBut(new Set()) });
  await lower.connect(two.address, 2);
  await lower.getattr(id);
  const { handle: target } = await lower.create(lower.root, name("copy"), RDWR, 0o644, caller);
  const source = opened(lower, id);
  const sent = lower.counters.messagesSent;
  const copied = Promise.resolve(lower.copyFileRange(source, 0, target, 0, 100));
  const before = lower.counters.roundTrips;
  for (let calls = 0; calls < 5; calls += 1) await lower.statfs();
  // The opening and the copy have gone there before, and neither is answered.
  expect([lower.counters.roundTrips - before, lower.counters.messagesSent - sent]).toEqual([5, 7]);
  open();
  expect([await copied, Buffer.from(await lower.read(target, 0, 100)).toString()]).toEqual([5, "first"]);
  full = true;
  await lower.getattr(id);
  const other = opened(lower, id);
  await expect(lower.copyFileRange(other, 0, target, 5, 100)).rejects.toMatchObject({ errno: E.ENFILE });
  full = false;
  expect(await lower.copyFileRange(other, 0, target, 5, 100)).toBe(5);
});

it("of a copy from one nobody knows whether it was made where the owner died, whatever the next one says of the opening", async () => {
  const { file } = await bench();
  const id = await file("f", "first");
  const two = await owner(2);
  const proxy = await proxyTo(two);
  const lower = remote({ clientId: 7 }, undefined, { holds: holdsBut(new Set()) });
  await lower.connect(proxy.address, 2);
  await lower.getattr(id);
  const { handle: target } = await lower.create(lower.root, name("copy"), RDWR, 0o644, caller);
  proxy.holdAnswers = true;
  const copied = Promise.resolve(lower.copyFileRange(opened(lower, id), 0, target, 0, 100));
  // The creation and the copy.
  await until(() => two.server.sessions.some(({ rememberedAnswers }) => rememberedAnswers === 2));
  lower.ownerLost();
  const three = await owner(3, (local) => ({
    ...local,
    open(of, flags) {
      if (of.ino === id.ino) throw errnoError(E.ENFILE);
      return local.open(of, flags);
    },
  }));
  lower.ownerFound(three.address, 3);
  await expect(copied).rejects.toMatchObject({ errno: E.EIO });
});

it("two READs at a time open it once", async () => {
  const { lower, one, file, text } = await bench();
  const handle = opened(lower, await file("f"));
  expect(await Promise.all([text(handle), text(handle)])).toEqual(["f", "f"]);
  expect(one.lower.openHandles).toBe(1);
});

it("READs that wait for their files to be opened get the data of their own file, and of their own place", async () => {
  const { file } = await bench();
  const ids = [await file("f", "first file"), await file("g", "second file")];
  let open = (): void => undefined;
  const mayOpen = new Promise<void>((resolve) => (open = resolve));
  let asked = 0;
  const two = await owner(2, (lower) => ({
    ...lower,
    open(id, flags) {
      asked += 1;
      // As of inodes that the kernel has to read: the pool may give many answers at a time.
      return mayOpen.then(() => lower.open(id, flags));
    },
  }));
  const lower = remote({ clientId: 7 }, undefined, { holds: holdsBut(new Set()) });
  await lower.connect(two.address, 2);
  for (const id of ids) await lower.getattr(id);
  const [f, g] = ids.map((id) => opened(lower, id)) as [LowerHandle, LowerHandle];
  const text = async (handle: LowerHandle, offset: number): Promise<string> =>
    Buffer.from(await lower.read(handle, offset, 100)).toString();
  const read = Promise.all([text(f, 0), text(f, 6), text(g, 0), text(g, 7)]);
  await until(() => asked === 2);
  open();
  expect(await read).toEqual(["first file", "file", "second file", "file"]);
});

it("the owner is asked for an open that writes or truncates, without the lock, and of a file whose last name is gone", async () => {
  const { lower, one, away, file } = await bench();
  const id = await file("f");
  for (const flags of [RDWR, RDONLY | O_TRUNC]) {
    await lower.getattr(id);
    const handle = lower.open(id, flags);
    expect([flags, handle instanceof Promise]).toEqual([flags, true]);
    lower.close(await handle);
  }
  await lower.getattr(id);
  away.add(id.ino);
  const uncovered = lower.open(id, RDONLY);
  expect(uncovered).toBeInstanceOf(Promise);
  away.delete(id.ino);
  await lower.unlink(lower.root, name("f"), id);
  expect((await lower.getattr(id)).nlink).toBe(0);
  const nameless = lower.open(id, RDONLY);
  expect(nameless).toBeInstanceOf(Promise);
  for (const handle of [await uncovered, await nameless]) lower.close(handle);
  await until(() => one.lower.openHandles === 0);
});

it("before the lock leaves the owner is told, so who takes the name away leaves the file to its reader", async () => {
  const { lower, other, one, file, text } = await bench();
  const id = await file("f");
  const handles = [opened(lower, id), opened(lower, id)];
  expect(one.lower.openHandles).toBe(0);
  await lower.tellOpens(id);
  expect(one.lower.openHandles).toBe(2);
  expect(lower.tellOpens(id)).toBeUndefined();
  await other.unlink(other.root, name("f"), id);
  for (const handle of handles) expect(await text(handle)).toBe("f");
});

it("before a name is taken away here, by unlink or by rename, the owner is told", async () => {
  const { file } = await bench();
  const [gone, over, source] = [await file("gone"), await file("over"), await file("source")];
  const openAt: Record<string, number> = {};
  const two = await owner(2, (lower) => ({
    ...lower,
    unlink: (...given) => {
      openAt["unlink"] = lower.openHandles;
      return lower.unlink(...given);
    },
    rename: (...given) => {
      openAt["rename"] = lower.openHandles;
      return lower.rename(...given);
    },
  }));
  const lower = remote({ clientId: 7 }, undefined, { holds: holdsBut(new Set()) });
  await lower.connect(two.address, 2);
  for (const id of [gone, over]) await lower.getattr(id);
  const handles = [opened(lower, gone), opened(lower, over)];
  const removing = lower.unlink(lower.root, name("gone"), gone);
  // Nothing is known of it while it goes.
  const late = lower.open(gone, RDONLY);
  expect(late).toBeInstanceOf(Promise);
  await removing;
  await Promise.resolve(late).then(
    (handle) => lower.close(handle),
    () => undefined,
  );
  await until(() => two.lower.openHandles === 1);
  await lower.rename(lower.root, name("source"), lower.root, name("over"), 0, source, over);
  expect(openAt).toEqual({ unlink: 2, rename: 2 });
  expect(await Promise.all(handles.map(async (handle) => Buffer.from(await lower.read(handle, 0, 100)).toString()))).toEqual([
    "gone",
    "over",
  ]);
});

it.each([
  ["", 0],
  [", and the owner was told of it beside", 1],
])("a READ that opens it is not sent to the next owner when the file was closed meanwhile%s", async (_title, told) => {
  const { one, file } = await bench();
  const id = await file("f");
  const held: ((data: Uint8Array) => void)[] = [];
  const hung = await owner(2, (lower) => ({ ...lower, read: () => new Promise<Uint8Array>((resolve) => void held.push(resolve)) }));
  const lower = remote({ clientId: 7 }, undefined, { holds: holdsBut(new Set()) });
  await lower.connect(hung.address, 2);
  await lower.getattr(id);
  const handle = opened(lower, id);
  const read = Promise.resolve(lower.read(handle, 0, 100)).catch((error: unknown) => error);
  await until(() => held.length === 1);
  expect(hung.lower.openHandles).toBe(1);
  for (let at = 0; at < told; at += 1) await lower.tellOpens(id);
  expect(lower.tellOpens(id) === undefined).toBe(told === 1);
  lower.close(handle);
  await until(() => hung.lower.openHandles === 0);
  const next = await owner(3);
  lower.ownerLost();
  lower.ownerFound(next.address, 3);
  expect(await read).toMatchObject({ errno: E.EBADF });
  await lower.getattr(lower.root);
  expect([next.lower.openHandles, one.lower.openHandles]).toEqual([0, 0]);
  for (const answer of held) answer(new Uint8Array(0));
});

it("a close that comes while a READ is opening the file closes it", async () => {
  const { file } = await bench();
  const id = await file("f");
  let go = (): void => undefined;
  const gate = new Promise<void>((resolve) => (go = resolve));
  let begun = 0;
  const two = await owner(2, (lower) => ({
    ...lower,
    open: async (...given) => {
      begun += 1;
      await gate;
      return lower.open(...given);
    },
  }));
  const lower = remote({ clientId: 7 }, undefined, { holds: holdsBut(new Set()) });
  await lower.connect(two.address, 2);
  await lower.getattr(id);
  const handle = opened(lower, id);
  const read = Promise.resolve(lower.read(handle, 0, 100));
  await until(() => begun === 1);
  lower.close(handle);
  // Its lock is about to leave: the owner is told of the close now.
  await lower.tellOpens(id);
  await lower.statfs();
  go();
  expect(Buffer.from(await read).toString()).toBe("f");
  await until(() => two.lower.openHandles === 0);
});

it("while the owner cannot be reached nothing is opened without it", async () => {
  const { lower, one, file } = await bench();
  const id = await file("f");
  lower.close(opened(lower, id));
  await lower.getattr(id);
  await one.server.close();
  await until(() => lower.disconnected);
  // As far as is known the lock is still here, and so are the attributes.
  expect(lower.getattr(id)).not.toBeInstanceOf(Promise);
  const opening = lower.open(id, RDONLY);
  expect(opening).toBeInstanceOf(Promise);
  lower.shutdown();
  await expect(opening).rejects.toMatchObject({ errno: E.EIO });
});

it("at most TELL_OPENS_MAX of those are told at a time, and nothing is opened without an owner that does not answer", async () => {
  const { file } = await bench();
  const id = await file("f");
  let go = (): void => undefined;
  const gate = new Promise<void>((resolve) => (go = resolve));
  let begun = 0;
  const two = await owner(2, (lower) => ({
    ...lower,
    open: async (...given) => {
      begun += 1;
      await gate;
      return lower.open(...given);
    },
  }));
  const lower = remote({ clientId: 7 }, undefined, { holds: holdsBut(new Set()) });
  await lower.connect(two.address, 2);
  await lower.getattr(id);
  for (let at = 0; at < TELL_OPENS_MAX + 1; at += 1) opened(lower, id);
  await until(() => begun === TELL_OPENS_MAX);
  let late: Promise<LowerHandle> | null = null;
  await until(() => {
    const handle = lower.open(id, RDONLY);
    if (handle instanceof Promise) late = handle;
    else lower.close(handle);
    return late !== null;
  });
  expect(begun).toBe(TELL_OPENS_MAX);
  go();
  await until(() => lower.tellOpens(id) === undefined);
  await until(() => two.lower.openHandles === TELL_OPENS_MAX + 2);
});

it("what stays open is told to the owner without a READ", async () => {
  const { lower, one, file } = await bench();
  const id = await file("f");
  const handle = opened(lower, id);
  expect(one.lower.openHandles).toBe(0);
  await until(() => one.lower.openHandles === 1);
  await until(() => lower.tellOpens(id) === undefined);
  lower.close(handle);
  await until(() => one.lower.openHandles === 0);
});

it("whatever else is asked of it opens it first", async () => {
  const { lower, one, file } = await bench();
  const source = await file("source");
  const target = await lower.create(lower.root, name("target"), RDWR, 0o644, caller);
  const calls: Record<string, (handle: LowerHandle) => unknown> = {
    lseek: (handle) => lower.lseek(handle, 0, SEEK_DATA),
    fsync: (handle) => lower.fsync(handle, false),
    "copy from it": (handle) => lower.copyFileRange(handle, 0, target.handle, 0, 6),
    chmod: (handle) => lower.setattr(source, { mode: 0o600 }, handle),
    fetch: (handle) => lower.fetch(source, handle, 0, 100),
  };
  for (const [what, call] of Object.entries(calls)) {
    await lower.getattr(source);
    const handle = opened(lower, source);
    await call(handle);
    expect([what, one.lower.openHandles]).toEqual([what, 2]);
    lower.close(handle);
    await until(() => one.lower.openHandles === 1);
  }
});

it("another owner is told of all that is open, before anything else", async () => {
  const { lower, file, text } = await bench();
  const id = await file("f");
  const handle = opened(lower, id);
  const two = await owner(2);
  lower.ownerLost();
  lower.ownerFound(two.address, 2);
  await lower.getattr(lower.root);
  expect(two.lower.openHandles).toBe(1);
  expect(lower.tellOpens(id)).toBeUndefined();
  await lower.unlink(lower.root, name("f"), id);
  expect(await text(handle)).toBe("f");
});
