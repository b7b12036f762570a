/** Locks are asked for ahead for a program that removes one file of a directory after the other (overlay/op/changes-ahead.ts). */
import { beforeEach, describe, expect, it, vi } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { Cover } from "../../../overlay/coherence/cover.ts";
import { type InodeRecord, InodeTable } from "../../../overlay/inode/table.ts";
import type { Attr, AttrChange, DirPage, Entry, FileId, LowerHandle } from "../../../overlay/lower/lower.ts";
import { LISTING_BYTES_MAX } from "../../../overlay/op/call.ts";
import { RENAME_EXCHANGE } from "../../../overlay/op/linux.ts";
import { ChangesAhead, SORTED_DIRECTORY_MAX, SORTED_NAMES_MAX, type ChangesAheadOptions } from "../../../overlay/op/changes-ahead.ts";
import { Workbench } from "./workbench.ts";

const id = (ino: number): FileId => ({ ino, generation: 1 });
const range = (from: number, count: number): number[] => Array.from({ length: count }, (_, at) => from + at);

class World {
  nowMs = 0;
  /** Numbers of the directory's inodes that are left, as they are listed. */
  files: number[] = range(100, 400);
  readonly directories = new Set<number>();
  readonly known = new Set<number>();
  readonly here = new Set<number>();
  /** These do not come. */
  readonly refused = new Set<number>();
  hold = 5;
  failing = false;
  /** Of what is removed. */
  generation = 1;
  onRead: (() => void) | null = null;
  onAsked: (() => void) | null = null;
  gate: Promise<void> | null = null;
  /** What was asked for, each time. */
  readonly asked: number[][] = [];
  readonly waits: number[] = [];
  readonly read: number[][] = [];
  readonly from: bigint[] = [];
  /** Names that were looked up, each time. */
  readonly looked: number[] = [];
  readonly open = new Set<LowerHandle>();
  readonly inodes = new InodeTable({ root: id(2), createCover: (of, kind) => new Cover(of, kind), dropped: () => undefined });
  opened = 0;
  /** Locks that were here at a time. */
  most = 0;
  running = 0;

  readonly lower: ChangesAheadOptions["lower"] = {
    opendir: async () => {
      if (this.failing) throw errnoError(E.EIO);
      this.opened += 1;
      const handle = this.opened as LowerHandle;
      this.open.add(handle);
      return handle;
    },
    close: (handle) => void this.open.delete(handle),
    readdir: async (_handle, cookie, bytes, what): Promise<DirPage> => {
      // Whole directories are listed without what stands behind the names.
      if (what !== (bytes === LISTING_BYTES_MAX ? "plain" : "entries") || (bytes % 320 !== 0 && what === "entries"))
        throw new Error(`read: ${what}, ${bytes} bytes`);
      this.running += 1;
      await this.gate;
      this.from.push(cookie);
      // One more than was asked for: names are shorter than that.
      const left = this.files.filter((ino) => BigInt(this.placeOf(ino)) > cookie).sort((a, b) => this.placeOf(a) - this.placeOf(b));
      const some = left.slice(0, Math.floor(bytes / 320) + 1);
      const entries = some.map((ino) => ({
        name: this.nameOf(ino),
        type: this.directories.has(ino) ? 4 : 8,
        ino,
        cookie: BigInt(this.placeOf(ino)),
        ...(what === "entries" ? { entry: this.entryOf(ino) } : {}),
      }));
      this.onRead?.();
      this.running -= 1;
      return { entries, end: some.length === left.length };
    },
    lookupMany: async (_dir, names) => {
      this.looked.push(names.length);
      return names.map((name) => {
        const ino = this.files.find((one) => this.nameOf(one).equals(name));
        return ino === undefined ? null : this.entryOf(ino);
      });
    },
    knows: (_dir, name) => this.known.has(Number(name.toString().slice(1))),
    prefetch: async (ids, what) => {
      if (what !== "attributes") throw new Error(`brought: ${what}`);
      this.read.push(ids.map(({ ino }) => ino));
    },
  };

  readonly removals = new ChangesAhead({
    now: () => this.nowMs,
    inodes: this.inodes,
    lower: this.lower,
    coherence: {
      has: ({ cover }, mode) => mode === Mode.EX && this.here.has(cover.id.ino),
      grantId: () => this.hold,
      fetchLocks: async (inodes, mode, waitMs) => {
        if (mode !== Mode.EX) throw new Error(`asked for in mode ${mode}`);
        this.waits.push(waitMs);
        const inos = inodes.map(({ cover }) => cover.id.ino);
        this.asked.push(inos);
        this.onAsked?.();
        for (const ino of inos) if (!this.refused.has(ino)) this.here.add(ino);
      },
    },
  });

  entryOf(ino: number): Entry {
    return { id: id(ino), attr: { mode: this.directories.has(ino) ? 0o040755 : 0o100644 } as Attr };
  }

  /** As in `knows`: behind the first letter is the number. */
  nameOf: (ino: number) => Buffer = (ino) => Buffer.from(`f${ino}`);
  /** Where it is in the listing. */
  placeOf: (ino: number) => number = (ino) => ino;

  /** True: its lock was here. */
  note(ino: number, dir: InodeRecord = this.inodes.root): boolean {
    const wasHere = this.here.has(ino);
    const victim = this.inodes.remember({ ino, generation: this.generation }, 0o100644);
    this.removals.note(dir, victim, this.nameOf(ino));
    this.inodes.leave(victim);
    this.here.delete(ino);
    this.most = Math.max(this.most, this.here.size);
    return wasHere;
  }

  async remove(...inos: readonly number[]): Promise<boolean[]> {
    const wereHere = [];
    for (const ino of inos) {
      wereHere.push(this.note(ino));
      // It is removed after what it has begun.
      await this.over();
      this.files = this.files.filter((other) => other !== ino);
    }
    return wereHere;
  }

  async over(): Promise<void> {
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  }
}

describe("removals in the order of the listing", () => {
  let world: World;
  beforeEach(() => {
    world = new World();
  });

  it("find their locks here after the second that cost one, within CHANGES_MS", async () => {
    expect(await world.remove(100)).toEqual([false]);
    world.nowMs = 1000;
    expect(await world.remove(101)).toEqual([false]);
    expect(world.asked).toEqual([range(102, 15)]);
    expect(world.waits).toEqual([250]);
    expect(world.read).toEqual([range(102, 15)]);
    const found = await world.remove(...range(102, 398));
    expect(found).toEqual(found.map(() => true));
    expect(world.files).toEqual([]);
    // Nothing twice, and nothing after the end.
    expect(world.asked.flat()).toEqual(range(102, 398));
    expect([world.open.size, world.inodes.root.useCount, world.inodes.size]).toEqual([0, 0, 1]);
  });

  it("in a tree have locks asked for from the first of a directory on, where that was of use in two directories before, and goes on to be", async () => {
    let next = 10;
    /** What is asked for with each removal of another directory of five files. */
    const removeSome = async (count: number): Promise<number[][]> => {
      const dir = world.inodes.remember(id(next), 0o040755);
      world.files = range(next + 1, 5);
      next += 10;
      world.here.clear();
      const asked: number[][] = [];
      for (const ino of world.files.slice(0, count)) {
        world.note(ino, dir);
        await world.over();
        world.files = world.files.filter((other) => other !== ino);
        asked.push(world.asked.splice(0).flat());
      }
      world.inodes.leave(dir);
      return asked;
    };
    expect(await removeSome(5)).toEqual([[], [13, 14, 15], [], [], []]);
    expect(await removeSome(5)).toEqual([[], [23, 24, 25], [], [], []]);
    for (const first of [31, 41, 51]) expect(await removeSome(5)).toEqual([range(first + 1, 4), [], [], [], []]);
    // Of no use: nothing else of it is removed.
    const begun: boolean[] = [];
    for (let at = 0; at < 8; at += 1) begun.push((await removeSome(1)).flat().length > 0);
    expect(begun).toEqual([true, true, true, true, true, false, false, false]);
  });

  it("in a tree have none asked for ahead in a restart (hazard F33), which uses nothing up", async () => {
    const dirs = [10, 20, 30, 40, 50].map((ino) => world.inodes.remember(id(ino), 0o040755));
    for (const dir of dirs.slice(0, 2)) {
      for (const ino of [100, 101, 102]) {
        world.note(ino, dir);
        await world.over();
      }
      world.here.clear();
    }
    world.asked.length = 0;
    // More than are paid for.
    for (const [at, held] of [true, true, false].entries()) {
      world.removals.hold(held);
      world.note(100, dirs[2 + at]);
      await world.over();
      expect(world.asked.length).toBe(held ? 0 : 1);
    }
  });

  it("ask for nothing after a longer pause than that", async () => {
    await world.remove(100);
    world.nowMs = 1001;
    await world.remove(101);
    expect(world.asked).toEqual([]);
    world.nowMs = 2001;
    await world.remove(102);
    expect(world.asked).toEqual([range(103, 15)]);
    // What was asked for stays so.
    world.nowMs = 5000;
    await world.remove(...range(103, 4));
    expect(world.asked.slice(1)).toEqual([range(118, 32)]);
  });

  it("have twice as many locks asked for each time, up to CHANGES_NAMES_MAX, NAMES_A_HIT for each that was used, and never more than two such pieces", async () => {
    await world.remove(...range(100, 2 + 3));
    expect(world.asked.map(({ length }) => length)).toEqual([15]);
    await world.remove(105);
    expect(world.asked.map(({ length }) => length)).toEqual([15, 32]);
    await world.remove(...range(106, 7));
    expect(world.asked.map(({ length }) => length)).toEqual([15, 32]);
    await world.remove(113);
    expect(world.asked.map(({ length }) => length)).toEqual([15, 32, 64]);
    await world.remove(...range(114, 290));
    expect(world.asked.slice(0, 5).map(({ length }) => length)).toEqual([15, 32, 64, 64, 64]);
    expect(world.most).toBeGreaterThan(64);
    expect(world.most).toBeLessThanOrEqual(128);
  });

  it("earn NAMES_EARNED_MAX at most", async () => {
    world.files = range(100, 400);
    await world.remove(...world.files);
    const before = world.asked.length;
    // By another order from here on, in a listing that ends each time, and whose locks are taken back each time.
    world.files = range(1000, 40);
    for (const ino of range(2000, 30).toReversed()) {
      world.here.clear();
      await world.remove(ino);
    }
    expect(world.asked.slice(before)).toEqual(Array.from({ length: 256 / 64 }, () => range(1000, 40)));
  });

  it("cost nothing of the kind where the locks are here anyway", async () => {
    for (const ino of world.files) world.here.add(ino);
    await world.remove(...range(100, 50));
    expect([world.asked, world.opened]).toEqual([[], 0]);
  });

  it("do not wait for locks that do not come", async () => {
    for (const ino of [104, 110]) world.refused.add(ino);
    await world.remove(100, 101);
    const came = (inos: readonly number[]): number[] => inos.filter((ino) => ino !== 104 && ino !== 110);
    expect(world.read).toEqual([came(range(102, 15))]);
    expect(await world.remove(...range(102, 12))).toEqual(range(102, 12).map((ino) => ino !== 104 && ino !== 110));
    expect(world.asked.length).toBeGreaterThan(1);
  });

  it("leave directories alone, and ask for nothing that is here or known", async () => {
    world.directories.add(103);
    world.here.add(104);
    for (const ino of [104, 105]) world.known.add(ino);
    await world.remove(100, 101);
    const asked = range(102, 15).filter((ino) => ino !== 103 && ino !== 104);
    expect(world.asked).toEqual([asked]);
    expect(world.read).toEqual([asked.filter((ino) => ino !== 105)]);
  });

  it("have read again what was known under a lock that had to be given up", async () => {
    for (const ino of [104, 105]) world.known.add(ino);
    world.onAsked = () => world.known.delete(105);
    await world.remove(100, 101);
    expect(world.read).toEqual([range(102, 15).filter((ino) => ino !== 104)]);
  });

  it("begin anew at the listing's end, where others have made names since", async () => {
    const costly = [];
    for (const from of [100, 200, 300]) {
      world.files = range(from, 100);
      const found = await world.remove(...world.files);
      costly.push(found.filter((isHere) => !isHere).length);
    }
    // The second one within CHANGES_MS is the first of the next round.
    expect(costly).toEqual([2, 1, 1]);
  });

  it("go on past names that others have removed", async () => {
    world.files = range(100, 400);
    let costly = 0;
    for (let ino = 100; ino < 500; ino += 2) {
      world.files = world.files.filter((other) => other !== ino + 1);
      costly += (await world.remove(ino)).filter((isHere) => !isHere).length;
    }
    expect(costly).toBe(2);
  });
});

describe("removals by another order", () => {
  const stranger = 499;

  it("have the first names asked for once in CHANGES_AGAIN_MS", async () => {
    const world = new World();
    await world.remove(...range(450, 50).toReversed());
    expect(world.asked).toEqual([range(100, 16)]);
    for (let nowMs = 0; nowMs < 10_000; nowMs += 500) {
      world.nowMs = nowMs;
      await world.remove(449 - nowMs / 500);
    }
    world.nowMs = 9999;
    await world.remove(420);
    expect(world.asked).toHaveLength(1);
    world.nowMs = 10_000;
    await world.remove(419);
    // Here already.
    expect(world.asked.slice(1)).toEqual([[]]);
    world.here.clear();
    world.nowMs = 20_000;
    await world.remove(418, 417);
    expect(world.asked.slice(2)).toEqual([range(100, 16)]);
  });

  it("a few each time, with pauses: no more than that", async () => {
    const world = new World();
    for (let burst = 0; burst < 20; burst++) {
      world.nowMs += 1100;
      world.here.clear();
      await world.remove(400 - 2 * burst, 399 - 2 * burst);
    }
    expect(world.asked.flat().length).toBe(2 * 16);
  });

  it("and such whose locks were taken back before earn nothing", async () => {
    const world = new World();
    await world.remove(100, 101);
    for (const ino of range(102, 200).toReversed()) {
      world.here.clear();
      await world.remove(ino);
    }
    expect(world.asked).toEqual([range(102, 15)]);
    // Nor does another file that has the number of one.
    await world.remove(stranger);
    expect(world.asked).toHaveLength(1);
  });

  it("of a number that another file has now earn nothing", async () => {
    const world = new World();
    await world.remove(100, 101);
    world.generation = 2;
    await world.remove(...range(102, 10).toReversed());
    expect(world.asked).toEqual([range(102, 15)]);
  });
});

describe("removals by the names or the numbers", () => {
  let world: World;
  beforeEach(() => {
    world = new World();
    // Each of the three orders is another one.
    world.placeOf = (ino) => ((ino * 7) % 401) + 1;
    world.nameOf = (ino) => Buffer.from(`f${String((ino * 13) % 401).padStart(4, "0")}`);
  });
  const byName = (): number[] => world.files.toSorted((a, b) => Buffer.compare(world.nameOf(a), world.nameOf(b)));
  const costs = async (inos: readonly number[]): Promise<number> => (await world.remove(...inos)).filter((isHere) => !isHere).length;

  it("find their locks here once those of the first names were in vain, and there is an order", async () => {
    const files = byName();
    // The fourth in a row has an order.
    expect(await costs(files)).toBeLessThanOrEqual(5);
    expect(world.asked[1]).toEqual(files.slice(4, 20).filter((ino) => world.asked[0]?.includes(ino) !== true));
    expect([world.files, world.open.size]).toEqual([[], 0]);
  });

  it("may take two changes of each file, as chown and chmod", async () => {
    const files = byName();
    const wereHere = await world.remove(...files.flatMap((ino) => [ino, ino]));
    expect(wereHere.filter((isHere, at) => at % 2 === 0 && !isHere).length).toBeLessThanOrEqual(5);
    expect(world.asked[1]).toEqual(files.slice(4, 20).filter((ino) => world.asked[0]?.includes(ino) !== true));
  });

  it("go by the numbers if that has lasted longer", async () => {
    // Up to the 31st they go by the names as well.
    expect(await costs(range(100, 400))).toBeLessThanOrEqual(40);
  });

  const wholes = (): number => world.from.filter((cookie) => cookie === 0n).length;

  it("are listed whole once: what stands behind each name is looked up under the lock that is here then (hazard F21)", async () => {
    const files = byName();
    await costs(files.slice(0, 100));
    // The first names, and all of them.
    expect(wholes()).toBe(2);
    world.hold += 1;
    // Others have removed some meanwhile.
    world.files = world.files.filter((ino) => ino % 3 !== 0 || files.indexOf(ino) < 200);
    world.asked.length = 0;
    await costs(byName());
    expect(world.asked.flat().filter((ino) => ino % 3 === 0 && files.indexOf(ino) >= 200)).toEqual([]);
    expect(world.looked.every((names) => names <= 64)).toBe(true);
    expect(wholes()).toBe(2);
  });

  it("are listed again at the end of the names only where the directory's lock has left since", async () => {
    world = new World();
    world.placeOf = (ino) => 2000 - ino;
    world.files = range(100, 60);
    await costs(range(100, 60));
    const before = wholes();
    expect(world.looked.length).toBeGreaterThan(1);
    // Others have made these.
    for (const [hold, listings] of [
      [5, 0],
      [6, 1],
      [6, 1],
    ] as const) {
      world.hold = hold;
      world.nowMs += 10_000;
      world.files = range(200 + world.opened * 10, 4);
      await costs([...world.files]);
      expect(wholes() - before).toBe(listings);
    }
  });

  it("go on with what is left of their own directory, not of the one that was sorted before", async () => {
    world = new World();
    world.placeOf = (ino) => 1000 - ino;
    world.files = range(300, 200);
    await world.remove(...range(300, 4));
    expect(world.asked.splice(0)).toEqual([range(484, 16).toReversed(), range(304, 16)]);
    // By their names, these come before the others.
    world.files = range(100, 200);
    const dir = world.inodes.remember(id(10), 0o040755);
    for (const ino of range(100, 4)) {
      world.note(ino, dir);
      await world.over();
    }
    expect(world.asked).toEqual([range(284, 16).toReversed(), range(104, 16)]);
  });

  const counted = (files: number): World => {
    const large = new World();
    large.files = range(0, files);
    large.placeOf = (ino) => files + 1 - ino;
    return large;
  };

  it("of more than SORTED_NAMES_MAX files list them again when so many are through", async () => {
    world = counted(2 * SORTED_NAMES_MAX + 300);
    // Up to f9 they go by the names as well.
    expect(await costs(range(0, 2 * SORTED_NAMES_MAX + 300))).toBeLessThanOrEqual(12);
    expect(wholes()).toBeLessThanOrEqual(6);
    expect(world.files).toEqual([]);
  });

  it("cost nothing of the kind in a directory of more than SORTED_DIRECTORY_MAX names", async () => {
    // As many are removed, and those that are being removed are listed.
    world = counted(SORTED_DIRECTORY_MAX + 300);
    expect(await costs(range(0, 100))).toBe(100);
    expect(world.asked.map(({ length }) => length)).toEqual([16, 0, 0]);
    const smaller = counted(SORTED_DIRECTORY_MAX + 3);
    expect((await smaller.remove(...range(0, 100))).filter((isHere) => !isHere).length).toBeLessThanOrEqual(16);
  });

  it("are tried once in CHANGES_AGAIN_MS", async () => {
    // In order, and each time far from the last.
    const far = range(0, 60).map((at) => byName()[at * 6] as number);
    world.placeOf = (ino) => 1000 - ino;
    for (const ino of far.slice(0, 30)) {
      world.here.clear();
      await world.remove(ino);
    }
    expect(world.asked).toHaveLength(2);
    world.nowMs = 9_900;
    await world.remove(far[30] as number);
    world.nowMs = 10_000;
    await world.remove(far[31] as number);
    expect(world.asked).toHaveLength(3);
  });
});

describe("nothing is asked for", () => {
  let world: World;
  beforeEach(() => {
    world = new World();
  });

  it("by one removal that is begun again, or by files that replace each other under one name, as of another node", async () => {
    world.nameOf = () => Buffer.from("state");
    await world.remove(100, 101, 102, 103);
    expect(world.asked).toEqual([]);
    world.nameOf = (ino) => Buffer.from(`f${ino}`);
    await world.remove(104);
    expect(world.asked).toEqual([range(105, 15)]);
  });

  it("F21: of a listing that was read after the directory's lock had left", async () => {
    world.onRead = () => (world.hold += 1);
    await world.remove(100, 101);
    expect([world.opened, world.asked, world.open.size]).toEqual([1, [], 0]);
  });

  it("where the directory's lock is not here", async () => {
    world.hold = 0;
    await world.remove(100, 101);
    expect([world.opened, world.asked]).toEqual([0, []]);
    world.hold = 6;
    await world.remove(102);
    expect(world.asked).toEqual([range(103, 15)]);
  });

  it("of a listing that fails; it is tried again after CHANGES_AGAIN_MS", async () => {
    world.failing = true;
    await world.remove(100, 101);
    world.failing = false;
    await world.remove(102);
    world.nowMs = 10_000;
    await world.remove(103);
    expect(world.asked).toEqual([]);
    await world.remove(104);
    // By their names, by now.
    expect(world.asked).toEqual([range(105, 16)]);
  });

  it("F33: while locks are given up for the next process, nor of a listing that comes then", async () => {
    world.onRead = () => world.removals.hold(true);
    await world.remove(100, 101);
    expect([world.opened, world.asked, world.open.size]).toEqual([1, [], 0]);
    world.nowMs = 10_000;
    await world.remove(102, 103);
    expect(world.opened).toBe(1);
    world.onRead = null;
    world.removals.hold(false);
    await world.remove(104);
    expect(world.asked).toEqual([range(105, 16)]);
  });

  it("for more than CHANGES_MAX directories at a time", async () => {
    let go = (): void => undefined;
    world.gate = new Promise((resolve) => (go = resolve));
    for (let ino = 10; ino < 15; ino++) {
      const dir = world.inodes.remember(id(ino), 0o040755);
      world.note(100 + 2 * ino, dir);
      world.note(101 + 2 * ino, dir);
    }
    await world.over();
    expect(world.running).toBe(4);
    go();
    await world.over();
    expect(world.asked).toHaveLength(4);
  });

  it("of what is removed while the listing that names it is on its way", async () => {
    let go = (): void => undefined;
    await world.remove(100);
    world.gate = new Promise((resolve) => (go = resolve));
    for (const ino of [101, 102, 103]) world.note(ino);
    go();
    await world.over();
    expect(world.asked).toEqual([range(104, 13)]);
  });

  it("after the end, which waits for what is under way", async () => {
    let go = (): void => undefined;
    world.gate = new Promise((resolve) => (go = resolve));
    await world.remove(100, 101);
    let ended = false;
    const stop = world.removals.stop().then(() => (ended = true));
    await world.over();
    expect(ended).toBe(false);
    go();
    await stop;
    expect([world.asked, world.open.size]).toEqual([[], 0]);
    await world.remove(102, 103, 104);
    expect(world.opened).toBe(1);
  });

  it("after the end, nor are attributes under locks that come then", async () => {
    const stops: Promise<void>[] = [];
    world.onAsked = () => void stops.push(world.removals.stop());
    await world.remove(100, 101);
    await Promise.all(stops);
    expect([world.asked, world.read, world.open.size]).toEqual([[range(102, 15)], [], 0]);
  });
});

describe("a removal", () => {
  it("is noted before its locks are asked for: of a file, not of a directory", async () => {
    const bench = new Workbench();
    const noted = vi.spyOn(bench.mount.changesAhead, "note").mockImplementation(() => expect(bench.coherence.held).toBe(0));
    const noLook = vi.spyOn(bench.mount.walkAhead, "noteChange");
    bench.coherence.told.set("2.0 name", bench.file);
    expect((await bench.serve({ op: "unlink", name: Buffer.from("name") }))?.errno).toBe(0);
    expect(noted.mock.calls).toEqual([[bench.inodes.root, bench.file, Buffer.from("name")]]);
    const below = bench.inodes.remember({ ino: 30, generation: 1 }, 0o040755);
    bench.coherence.told.set("2.0 below", below);
    expect((await bench.serve({ op: "rmdir", name: Buffer.from("below") }))?.errno).toBe(0);
    expect(noted).toHaveBeenCalledOnce();
    expect(noLook.mock.calls).toEqual([
      [bench.inodes.root, bench.file],
      [bench.inodes.root, below],
    ]);
  });

  it("is a change of the owner, mode or times, too: of a file of which a name is known; not of its size", async () => {
    const bench = new Workbench();
    const noted = vi.spyOn(bench.mount.changesAhead, "note").mockImplementation(() => expect(bench.coherence.held).toBe(0));
    const changed = async (change: AttrChange): Promise<unknown> => {
      expect(await bench.serve({ op: "setattr", fuseNodeid: bench.file.fuseNodeid, fh: null, change })).toBeDefined();
      return noted.mock.calls.splice(0);
    };
    const name = Buffer.from("name");
    expect(await changed({ mode: 0o600 })).toEqual([]);
    bench.coherence.places.set(bench.file, { dir: bench.inodes.root, name });
    const isNoted = [[bench.inodes.root, bench.file, name]];
    for (const change of [{ mode: 0o600 }, { uid: 1 }, { gid: 0 }, { mtime: "now" }, { atime: "now" }] as const)
      expect(await changed(change)).toEqual(isNoted);
    expect(await changed({ size: 0, mode: 0o600 })).toEqual([]);
    expect(await changed({})).toEqual([]);
  });

  it("is a change of an extended attribute, and a link, too", async () => {
    const bench = new Workbench();
    const noted = vi.spyOn(bench.mount.changesAhead, "note").mockImplementation(() => expect(bench.coherence.held).toBe(0));
    const name = Buffer.from("name");
    bench.coherence.places.set(bench.file, { dir: bench.inodes.root, name });
    const { fuseNodeid } = bench.file;
    const requests = [
      { op: "setxattr", fuseNodeid, name: Buffer.from("user.a"), value: Buffer.from("v"), flags: 0, aclKillSgid: false },
      { op: "removexattr", fuseNodeid, name: Buffer.from("user.a") },
      { op: "link", fuseNodeid: 1, targetFuseNodeid: fuseNodeid, name: Buffer.from("too") },
    ] as const;
    for (const request of requests) {
      expect(await bench.serve(request)).toBeDefined();
      expect([request.op, noted.mock.calls.splice(0)]).toEqual([request.op, [[bench.inodes.root, bench.file, name]]]);
    }
  });

  it("is a rename, too: of what moves away, or of what another file takes the place of; not an exchange", async () => {
    const bench = new Workbench();
    const noted = vi.spyOn(bench.mount.changesAhead, "note").mockImplementation(() => expect(bench.coherence.held).toBe(0));
    const target = bench.inodes.remember({ ino: 31, generation: 1 }, 0o100644);
    const renamed = async (replaced: InodeRecord | null, flags = 0): Promise<unknown> => {
      bench.coherence.told.set("2.0 name", bench.file);
      bench.coherence.told.set("2.0 new", replaced);
      const names = { name: Buffer.from("name"), newName: Buffer.from("new") };
      expect((await bench.serve({ op: "rename", newFuseNodeid: 1, flags, ...names }))?.errno).toBe(0);
      return noted.mock.calls.splice(0);
    };
    const { root } = bench.inodes;
    expect(await renamed(null)).toEqual([[root, bench.file, Buffer.from("name")]]);
    expect(await renamed(target)).toEqual([[root, target, Buffer.from("new")]]);
    expect(await renamed(target, RENAME_EXCHANGE)).toEqual([]);
  });
});
