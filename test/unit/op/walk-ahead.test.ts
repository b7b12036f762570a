/** A directory is read ahead for a program that looks at one of its files after the other (overlay/op/walk-ahead.ts). */
import { beforeEach, describe, expect, it } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { type ChildPin, Cover, type Inode, type Since } from "../../../overlay/coherence/cover.ts";
import { type InodeRecord, InodeTable } from "../../../overlay/inode/table.ts";
import { type Attr, type DirPage, type FileId, type LowerHandle } from "../../../overlay/lower/lower.ts";
import type { NamedEntry } from "../../../overlay/op/files-ahead.ts";
import { WalkAhead, type WalkAheadOptions } from "../../../overlay/op/walk-ahead.ts";
import { Workbench } from "./workbench.ts";

const PAGE = 100;
const HERE = { pinned: true, trip: false };
const CAME = { pinned: true, trip: true };
const REFUSED = { pinned: false, trip: true };

const name = Buffer.from("name");
const id = (ino: number): FileId => ({ ino, generation: 1 });

class World {
  nowMs = 0;
  files = 3;
  wanted = false;
  failing = false;
  /** What asking for a child's lock gives, by its place. */
  pin: (at: number) => ChildPin = () => CAME;
  readonly calls: string[] = [];
  readonly read: number[] = [];
  readonly open = new Set<LowerHandle>();
  readonly pinned: string[] = [];
  readonly inodes = new InodeTable({ root: id(2), createCover: (of, kind) => new Cover(of, kind), dropped: () => undefined });
  readonly listed: number[] = [];
  readonly bytes: number[] = [];
  page = PAGE;
  readonly known = new Set<string>();
  hold = 1;
  /** How often locks were. */
  asked = 0;
  onRead: (() => unknown) | null = null;
  onAsked: (() => unknown) | null = null;
  gate: Promise<void> | null = null;
  attributes: Promise<void> | null = null;
  /** Locks of directories: until when they are waited for, and which come. */
  fetching: Promise<void> | null = null;
  readonly brought = new Set<number>();
  mode: (at: number) => number = () => 0o100644;
  #children = 1000;

  readonly lower: { keeps: boolean } & Omit<WalkAheadOptions["lower"], "keeps"> = {
    keeps: true,
    opendir: async () => {
      this.calls.push("opendir");
      if (this.failing) throw errnoError(E.EIO);
      const handle = this.calls.length as LowerHandle;
      this.open.add(handle);
      return handle;
    },
    close: (handle) => void this.open.delete(handle),
    readdir: async (_handle, cookie, bytes): Promise<DirPage> => {
      this.calls.push("readdir");
      this.bytes.push(bytes);
      // The names are asked for with nothing pinned.
      if (this.pinned.length > 0) throw new Error(`pinned while the owner is asked: ${this.pinned.join(" ")}`);
      await this.gate;
      const from = Number(cookie);
      const count = Math.min(this.page, this.files - from);
      const entries = Array.from({ length: count }, (_, at) => ({
        name: Buffer.from(`f${from + at}`),
        type: 8,
        ino: 100 + from + at,
        cookie: BigInt(from + at + 1),
        entry: { id: id(100 + from + at), attr: { mode: this.mode(from + at) } as Attr },
      }));
      return { entries, end: from + count === this.files };
    },
    knows: (_dir, called) => this.known.has(called.toString()),
    prefetch: async (ids) => {
      this.calls.push("prefetch");
      await this.attributes;
      this.onRead?.();
      this.read.push(...ids.map(({ ino }) => ino));
    },
  };

  readonly walkAhead = new WalkAhead({
    now: () => this.nowMs,
    inodes: this.inodes,
    lower: this.lower,
    listed: (_dir, entries) => this.listed.push(...entries.map(({ id: { ino } }) => ino)),
    coherence: {
      since: () => 7 as Since,
      tryPin: ({ cover }: Inode, mode) => {
        if (this.wanted) return false;
        this.pinned.push(`${cover.key} ${mode}`);
        return true;
      },
      unpin: ({ cover }: Inode, mode) => void this.pinned.splice(this.pinned.indexOf(`${cover.key} ${mode}`), 1),
      grantId: () => this.hold,
      fetchLocks: async (inodes, mode, waitMs) => {
        this.calls.push(`fetch ${inodes.map(({ cover }) => cover.id.ino).join(" ")} ${mode} ${waitMs} ms`);
        await this.fetching;
      },
      has: ({ cover }) => this.brought.has(cover.id.ino),
      pinChildren: async (inodes, _since, asks) => {
        this.asked += 1;
        this.onAsked?.();
        if (asks !== false) throw new Error("locks are asked for that others would have to give up");
        return inodes.map(({ cover }) => {
          const pin = this.pin(cover.id.ino - 100);
          if (pin.pinned) this.pinned.push(`${cover.key} ${Mode.PR}`);
          return pin;
        });
      },
    },
  });

  /** A LOOKUP of another file each time. */
  costly(dir: InodeRecord = this.inodes.root, ino = this.#children++): void {
    const child = this.inodes.remember(id(ino), 0o100644);
    void this.walkAhead.noteLookup(dir, name);
    this.walkAhead.noteCostly(dir, child);
  }

  /** LOOKUPs that cost nothing. */
  looked(count: number): void {
    for (let at = 0; at < count; at++) void this.walkAhead.noteLookup(this.inodes.root, name);
  }

  async walked(): Promise<string[]> {
    this.costly();
    await this.over();
    return this.calls.splice(0);
  }

  async over(): Promise<void> {
    while (this.walkAhead.walks > 0) await new Promise((resolve) => setImmediate(resolve));
    const left = [...this.pinned, ...this.open];
    if (left.length > 0) throw new Error(`left behind: ${left.join(" ")}`);
  }

  directory(ino: number): InodeRecord {
    return this.inodes.remember(id(ino), 0o040755);
  }
}

describe("a directory", () => {
  let world: World;
  beforeEach(() => {
    world = new World();
  });

  it("is read ahead from the second LOOKUP on that costs a lock within WALK_MS", async () => {
    expect(await world.walked()).toEqual([]);
    world.nowMs = 1001;
    expect(await world.walked()).toEqual([]);
    world.nowMs = 2001;
    expect(await world.walked()).toEqual(["opendir", "readdir", "prefetch"]);
    expect(world.read).toEqual([100, 101, 102]);
  });

  it("is read ahead again after WALK_AGAIN_MS", async () => {
    world.costly();
    expect(await world.walked()).toHaveLength(3);
    world.nowMs = 9999;
    expect(await world.walked()).toEqual([]);
    expect(await world.walked()).toEqual([]);
    world.nowMs = 10_000;
    expect(await world.walked()).toHaveLength(3);
  });

  it("is read only as far as the locks came: what was here is known, what another node changes is its own", async () => {
    world.pin = (at) => [HERE, REFUSED, CAME][at] ?? CAME;
    world.costly();
    await world.walked();
    expect([world.read, world.listed]).toEqual([[102], [102]]);
  });

  it("asks for no attributes where no lock came", async () => {
    world.pin = () => REFUSED;
    world.costly();
    expect(await world.walked()).toEqual(["opendir", "readdir"]);
  });

  it("is read ahead for so many names as were looked at, times WALK_NAMES_A_LOOK or WALK_NAMES_A_HIT: 64, then twice as many, up to WALK_NAMES_MAX", async () => {
    world.files = 10_000;
    const read = async (costly: number, looks = 0): Promise<number> => {
      const before = world.read.length;
      world.looked(looks);
      for (let at = 1; at < costly; at++) world.costly();
      await world.walked();
      return world.read.length - before;
    };
    expect([await read(1), await read(1)]).toEqual([0, 64]);
    // Earned: 16 for each that costs a lock, 256 for one that does not.
    expect([await read(6), await read(1)]).toEqual([0, 128]);
    expect([await read(15), await read(1)]).toEqual([0, 256]);
    expect([await read(15, 1), await read(1)]).toEqual([0, 512]);
    expect([await read(15, 1), await read(1)]).toEqual([0, 512]);
    expect(world.read).toEqual(Array.from({ length: 64 + 128 + 256 + 2 * 512 }, (_, at) => 100 + at));
    expect([world.bytes[0], Math.max(...world.bytes)]).toEqual([64 * 320, 128 * 1024]);
  });

  it("is read ahead for WALK_NAMES_A_HIT names for each look of some that go by an order, though they cost locks", async () => {
    world.files = 10_000;
    const look = async (called: string): Promise<number> => {
      const before = world.read.length;
      const child = world.inodes.remember(id(2000 + Number(called)), 0o100644);
      void world.walkAhead.noteLookup(world.inodes.root, Buffer.from(called));
      world.walkAhead.noteCostly(world.inodes.root, child);
      await world.over();
      return world.read.length - before;
    };
    const read: number[] = [];
    // The first of all is not counted.
    for (const called of ["1", "2", "3", "4", "5", "7", "6"]) read.push(await look(called));
    expect(read).toEqual([0, 64, 0, 0, 128, 256, 0]);
  });

  it("is read ahead by no more than WALK_UNUSED_MAX beyond what was looked at, until it is begun anew", async () => {
    [world.files, world.page] = [100_000, 512];
    let looks = 1;
    world.costly();
    const lead = async (): Promise<number> => {
      world.looked(99);
      await world.walked();
      looks += 100;
      return world.read.length - looks;
    };
    const leads: number[] = [];
    for (let at = 0; at < 200; at++) leads.push(await lead());
    // From there on as much as is looked at, a piece at a time.
    const highest = Math.max(...leads);
    const lowest = Math.min(...leads.slice(leads.indexOf(highest) - 40));
    expect([highest > 7900, highest <= 8192, lowest > 7500, lowest < highest]).toEqual([true, true, true, true]);
    // To the end of it, and from its beginning.
    world.files = world.read.length + 1;
    while (world.read.length < world.files) await lead();
    expect(await world.walked()).toEqual([]);
    for (let ms = 1000; ms <= 10_000; ms += 1000) {
      world.nowMs = ms;
      await world.walked();
    }
    expect(world.read.slice(world.files, world.files + 64)).toEqual(Array.from({ length: 64 }, (_, at) => 100 + at));
  });

  it("is read ahead past what is known of it, in larger pieces, and no more than WALK_PAGES_MAX at a time", async () => {
    world.files = 10_000;
    for (let at = 0; at < 10_000; at++) if (at < 150 || at > 160) world.known.add(`f${at}`);
    world.costly();
    await world.walked();
    expect(world.read).toEqual(Array.from({ length: 11 }, (_, at) => 250 + at));
    expect(world.bytes).toEqual([64 * 320, 128 * 1024, 53 * 320, ...Array.from({ length: 5 }, () => 128 * 1024)]);
  });

  it("is listed in pieces of LISTING_BYTES_MIN at least", async () => {
    world.files = 1000;
    world.costly();
    await world.walked();
    expect(world.bytes).toEqual([64 * 320]);
    world.page = 60;
    for (let at = 0; at < 9; at++) world.costly();
    await world.walked();
    expect(world.bytes.slice(1)).toEqual([128 * 320, 68 * 320, 4096]);
  });

  it("begins anew, and goes on where it was, after a pause of more than WALK_MS", async () => {
    world.files = 1000;
    world.costly();
    await world.walked();
    for (const [at, pause] of [1000, 1001].entries()) {
      world.nowMs += 1000;
      world.costly(world.inodes.root, 100);
      world.nowMs += pause;
      const walked = await world.walked();
      expect([at, walked.length > 0]).toEqual([at, false]);
    }
    await world.walked();
    expect([world.read.length, world.read.at(-1)]).toEqual([128, 227]);
  });

  it("is not gone on with, and nothing is asked for, where its lock has left since its names were asked for", async () => {
    let go = (): void => undefined;
    world.gate = new Promise((resolve) => (go = resolve));
    world.costly();
    world.costly();
    while (!world.calls.includes("readdir")) await Promise.resolve();
    world.hold += 1;
    go();
    await world.over();
    expect([world.asked, world.read]).toEqual([0, []]);
  });

  it("is not read ahead for who looks at one file again and again", async () => {
    for (let at = 0; at < 9; at++) world.costly(world.inodes.root, 100);
    expect(world.walkAhead.walks).toBe(0);
    expect(await world.walked()).toEqual(["opendir", "readdir", "prefetch"]);
  });

  it("is not read ahead for who removes what was looked at, but for who looks at two that stay", async () => {
    for (let ino = 1000; ino < 1003; ino += 1) {
      world.costly(world.inodes.root, ino);
      world.walkAhead.noteChange(world.inodes.root, world.inodes.remember(id(ino), 0o100644));
    }
    expect(world.walkAhead.walks).toBe(0);
    world.costly(world.inodes.root, 1003);
    // Another one.
    world.walkAhead.noteChange(world.inodes.root, world.inodes.remember(id(1000), 0o100644));
    expect(await world.walked()).toEqual(["opendir", "readdir", "prefetch"]);
  });

  it("is read ahead by one at a time, however long it takes", async () => {
    let go = (): void => undefined;
    world.files = 1000;
    world.gate = new Promise((resolve) => (go = resolve));
    world.costly();
    world.costly();
    world.nowMs = 20_000;
    world.looked(100);
    world.costly();
    world.costly();
    expect(world.walkAhead.walks).toBe(1);
    go();
    await world.over();
  });

  it("makes LOOKUPs wait that would ask the owner, for a piece of its listing, and no others", async () => {
    let go = (): void => undefined;
    world.files = 1000;
    world.page = 40;
    world.gate = new Promise((resolve) => (go = resolve));
    world.costly();
    expect(world.walkAhead.noteLookup(world.inodes.root, name)).toBeNull();
    world.costly();
    world.known.add("known");
    const waits = world.walkAhead.noteLookup(world.inodes.root, name);
    const others = [
      world.walkAhead.noteLookup(world.inodes.root, Buffer.from("known")),
      world.walkAhead.noteLookup(world.directory(10), name),
    ];
    expect([waits, ...others]).toEqual([expect.any(Promise), null, null]);
    let more = (): void => undefined;
    world.onRead = () => (world.attributes = new Promise((resolve) => (more = resolve)));
    go();
    await waits;
    expect([world.read.length, world.walkAhead.walks]).toEqual([40, 1]);
    const last = world.walkAhead.noteLookup(world.inodes.root, name);
    while (world.calls.filter((call) => call === "prefetch").length < 2) await Promise.resolve();
    more();
    await last;
    expect(world.read.length).toBe(64);
    await world.over();
    expect(world.walkAhead.noteLookup(world.inodes.root, name)).toBeNull();
  });

  /** A directory that was read ahead to some use. */
  const useful = async (ino: number): Promise<void> => {
    const dir = world.directory(ino);
    world.costly(dir);
    world.costly(dir);
    await world.over();
    world.known.add(`used ${ino}`);
    for (let at = 0; at < 2; at += 1) expect(world.walkAhead.noteLookup(dir, Buffer.from(`used ${ino}`))).toBeNull();
  };
  const begun = async (ino: number): Promise<boolean> => {
    const before = world.calls.length;
    const waits = world.walkAhead.noteLookup(world.directory(ino), name);
    await waits;
    await world.over();
    expect(waits !== null).toBe(world.calls.length > before);
    return waits !== null;
  };

  it("of a tree that is walked is read ahead from its first LOOKUP on, which waits for that: where it was of use in two, and goes on to be", async () => {
    await useful(10);
    expect(await begun(11)).toBe(false);
    await useful(12);
    expect(await begun(13)).toBe(true);
    expect(world.calls.slice(-3)).toEqual(["opendir", "readdir", "prefetch"]);
    // That LOOKUP itself is no use of it, and no more directories are paid for.
    expect(await begun(14)).toBe(true);
    expect(await begun(15)).toBe(false);
    expect(world.walkAhead.noteLookup(world.directory(14), Buffer.from("used 10"))).toBeNull();
    expect([await begun(16), await begun(17)]).toEqual([true, true]);
    // What is known of it already needs none.
    expect(world.walkAhead.noteLookup(world.directory(18), Buffer.from("used 10"))).toBeNull();
  });

  it("of a tree earns names by its first LOOKUP as by each other one", async () => {
    world.files = 1000;
    const pieces = async (ino: number): Promise<number[]> => {
      const read: number[] = [];
      for (let looks = 0; looks < 10; looks += 1) {
        const before = world.read.length;
        world.costly(world.directory(ino));
        await world.over();
        read.push(world.read.length - before);
      }
      return read;
    };
    expect(await pieces(9)).toEqual([0, 64, 0, 0, 0, 0, 0, 0, 128, 0]);
    for (const ino of [10, 12]) await useful(ino);
    expect(await pieces(13)).toEqual([64, 0, 0, 0, 0, 0, 0, 128, 0, 0]);
  });

  it("of a tree is read ahead again only after WALK_AGAIN_MS, and not after a pause of all the tree, nor on the owner", async () => {
    for (const ino of [10, 11, 12, 13]) await useful(ino);
    expect(await begun(14)).toBe(true);
    for (let ms = 900; ms < 10_000; ms += 900) {
      world.nowMs = ms;
      await useful(100 + ms);
    }
    expect(await begun(14)).toBe(false);
    world.nowMs = 10_000;
    expect([await begun(14), await begun(15)]).toEqual([false, true]);
    world.nowMs = 11_001;
    expect([await begun(14), await begun(16)]).toEqual([false, false]);
    for (const ino of [20, 21]) await useful(ino);
    expect(await begun(14)).toBe(false);
    world.nowMs = 12_002;
    for (const ino of [22, 23]) await useful(ino);
    expect(await begun(14)).toBe(true);
    for (const ino of [24, 25]) await useful(ino);
    world.lower.keeps = false;
    expect(await begun(30)).toBe(false);
  });

  it("of a tree counts as one of WALKS_MAX, and is none of those paid for where it is not begun", async () => {
    for (const ino of [10, 11, 12, 13, 14, 15]) await useful(ino);
    let go = (): void => undefined;
    world.gate = new Promise((resolve) => (go = resolve));
    for (const ino of [20, 21, 22, 23]) {
      world.costly(world.directory(ino));
      world.costly(world.directory(ino));
    }
    expect([world.walkAhead.walks, world.walkAhead.noteLookup(world.directory(30), name), world.walkAhead.walks]).toEqual([4, null, 4]);
    go();
    await world.over();
    expect([await begun(31), await begun(32), await begun(33)]).toEqual([true, true, false]);
  });

  it("names directories that other nodes keep: their locks are waited for BRING_WAIT_MS, without any LOOKUP, and those that come are read", async () => {
    world.files = 5;
    world.mode = (at) => (at < 3 ? 0o040755 : 0o100644);
    world.pin = (at) => [REFUSED, REFUSED, HERE, REFUSED, CAME][at] ?? CAME;
    world.brought.add(101);
    let come = (): void => undefined;
    world.fetching = new Promise((resolve) => (come = resolve));
    world.costly();
    world.costly();
    const waits = world.walkAhead.noteLookup(world.inodes.root, name);
    await waits;
    while (!world.calls.includes("fetch 100 101 3 20 ms")) await Promise.resolve();
    expect([waits, world.read, world.walkAhead.walks]).toEqual([expect.any(Promise), [104], 1]);
    expect(world.walkAhead.noteLookup(world.inodes.root, name)).toBeNull();
    come();
    await world.over();
    expect([world.read, world.listed]).toEqual([[104, 101], [104]]);
  });

  it.each(["held", "stopped", "wanted"] as const)("asks no other node for a directory where it is %s", async (how) => {
    world.mode = () => 0o040755;
    world.pin = () => REFUSED;
    world.brought.add(100);
    if (how === "held") world.walkAhead.hold(true);
    else world.onAsked = () => (how === "stopped" ? void world.walkAhead.stop() : (world.wanted = true));
    world.costly();
    expect(await world.walked()).toEqual(["opendir", "readdir"]);
    if (how !== "held") return;
    world.walkAhead.hold(false);
    world.nowMs = 10_000;
    world.costly();
    expect(await world.walked()).toEqual(["opendir", "readdir", "fetch 100 101 102 3 20 ms", "prefetch"]);
  });

  it.each(["stopped", "wanted"] as const)("reads no directory whose lock came from another node when it is %s", async (how) => {
    world.mode = () => 0o040755;
    world.pin = () => REFUSED;
    world.brought.add(100);
    let come = (): void => undefined;
    world.fetching = new Promise((resolve) => (come = resolve));
    world.costly();
    world.costly();
    while (world.calls.length < 3) await Promise.resolve();
    if (how === "stopped") void world.walkAhead.stop();
    else world.wanted = true;
    come();
    await world.over();
    expect(world.calls).toEqual(["opendir", "readdir", "fetch 100 101 102 3 20 ms"]);
  });

  it("makes no LOOKUP wait on the owner itself", async () => {
    world.lower.keeps = false;
    world.costly();
    world.costly();
    expect([world.walkAhead.walks, world.walkAhead.noteLookup(world.inodes.root, name)]).toEqual([1, null]);
    await world.over();
  });

  it("asks for no attributes where it is wanted elsewhere meanwhile", async () => {
    world.onAsked = () => (world.wanted = true);
    world.costly();
    expect([await world.walked(), world.asked]).toEqual([["opendir", "readdir"], 1]);
  });

  it("is left when the mount ends: what is under way is waited for, and asks for nothing more", async () => {
    let go = (): void => undefined;
    world.gate = new Promise((resolve) => (go = resolve));
    world.costly();
    world.costly();
    const turns = async (): Promise<void> => {
      for (let at = 0; at < 9; at++) await Promise.resolve();
    };
    await turns();
    let stopped = false;
    const stop = world.walkAhead.stop().then(() => (stopped = true));
    await turns();
    expect(stopped).toBe(false);
    go();
    await stop;
    await world.over();
    expect(world.calls).toEqual(["opendir", "readdir"]);
    const other = world.directory(10);
    world.costly(other);
    world.costly(other);
    expect(world.walkAhead.walks).toBe(0);
  });

  it("is closed, and nothing stays pinned, where its names or attributes cannot be read", async () => {
    world.gate = Promise.reject(errnoError(E.EIO));
    world.costly();
    expect(await world.walked()).toEqual(["opendir", "readdir"]);
    world.gate = null;
    world.nowMs = 10_000;
    world.attributes = Promise.reject(errnoError(E.EIO));
    world.costly();
    expect([await world.walked(), world.listed]).toEqual([["opendir", "readdir", "prefetch"], []]);
  });

  it("that is wanted elsewhere is not read, nor one that the owner does not open", async () => {
    world.wanted = true;
    world.costly();
    expect(await world.walked()).toEqual(["opendir"]);
    world.wanted = false;
    world.failing = true;
    world.nowMs = 10_000;
    world.costly();
    expect(await world.walked()).toEqual(["opendir"]);
  });

  it("is one of WALKS_MAX that are read at a time", async () => {
    let go = (): void => undefined;
    world.gate = new Promise((resolve) => (go = resolve));
    for (let ino = 10; ino < 15; ino++) {
      const dir = world.directory(ino);
      world.costly(dir);
      world.costly(dir);
    }
    expect([world.walkAhead.walks, world.calls.length]).toEqual([4, 4]);
    go();
    await world.over();
    const fifth = world.directory(14);
    world.costly(fifth);
    expect(world.walkAhead.walks).toBe(1);
    await world.over();
  });
});

/** Of the mount itself: which requests make it read ahead. */
describe("a mount", () => {
  const look = async (bench: Workbench, ino: number): Promise<void> => {
    bench.lower.found = { ino, generation: 1 };
    await bench.serve({ op: "lookup", fuseNodeid: 1, name: Buffer.from(`f${ino}`) });
  };
  const opened = ({ lower }: Workbench): number => lower.calls.filter((call) => call === "opendir").length;

  it("reads a directory ahead after two LOOKUPs of different files that cost a lock, and not if it did not come, or was here", async () => {
    for (const [child, later, walks] of [
      [CAME, true, 1],
      [REFUSED, true, 0],
      [HERE, false, 0],
    ] as const) {
      const bench = new Workbench();
      bench.coherence.child = child;
      bench.coherence.childLater = later;
      await look(bench, 50);
      await look(bench, 50);
      expect([child, opened(bench)]).toEqual([child, 0]);
      await look(bench, 51);
      await bench.mount.walkAhead.stop();
      expect([child, opened(bench)]).toEqual([child, walks]);
    }
  });

  it("makes a LOOKUP wait that would ask the owner while the directory is read ahead, and none whose answer is here", async () => {
    for (const known of [false, true]) {
      const bench = new Workbench();
      bench.coherence.child = CAME;
      bench.coherence.childLater = true;
      let go = (): void => undefined;
      const gate = new Promise<void>((resolve) => (go = resolve));
      bench.lower.prefetch = () => gate;
      for (const ino of [50, 51]) await look(bench, ino);
      expect(bench.mount.walkAhead.walks).toBe(1);
      bench.lower.known = known;
      const before = bench.replies.length;
      const looked = look(bench, 52);
      for (let at = 0; at < 9; at++) await new Promise((resolve) => setImmediate(resolve));
      expect([known, bench.replies.length - before]).toEqual([known, known ? 1 : 0]);
      go();
      await looked;
      expect(bench.replies.length - before).toBe(1);
      await bench.mount.walkAhead.stop();
    }
  });

  it("brings the data of the files of a listing after two READs from the beginning that cost a trip", async () => {
    const bench = new Workbench();
    bench.lower.later = true;
    const entries = [60, 61, 62, 63].map((ino): NamedEntry => ({ id: id(ino), attr: { mode: 0o100644, size: 5 } as Attr, name }));
    bench.mount.filesAhead.listed("d", entries, true);
    const files = entries.map(({ id: of }) => {
      const inode = bench.inodes.remember(of, 0o100644);
      return bench.mount.handles.add(inode, of.ino as LowerHandle, false, true, false, false);
    });
    const read = async (at: number, offset: number): Promise<void> => {
      const { fh } = files[at] as (typeof files)[0];
      await bench.serve({ op: "read", fh, offset, size: 4096, lockOwner: 0n, flags: 0 });
    };
    await read(0, 0);
    await read(1, 4096);
    expect(bench.lower.prefetched).toEqual([]);
    await read(1, 0);
    await bench.mount.filesAhead.stop();
    expect(bench.lower.prefetched).toEqual(["data 62 63"]);
  });

  it("brings the data of the files of a directory of a tree with the first READ from the beginning, and not with one from elsewhere", async () => {
    const bench = new Workbench();
    bench.lower.later = true;
    const read = async (ino: number, offset: number): Promise<void> => {
      const inode = bench.inodes.remember(id(ino), 0o100644);
      const { fh } = bench.mount.handles.add(inode, ino as LowerHandle, false, true, false, false);
      await bench.serve({ op: "read", fh, offset, size: 4096, lockOwner: 0n, flags: 0 });
    };
    const list = (directory: number): void =>
      bench.mount.filesAhead.listed(
        `d${directory}`,
        [1, 2, 3].map((at) => ({ id: id(directory + at), attr: { mode: 0o100644, size: 5 } as Attr, name })),
        true,
      );
    for (const directory of [60, 70]) {
      list(directory);
      for (const at of [1, 2, 3]) await read(directory + at, 0);
    }
    list(80);
    await read(81, 4096);
    expect(bench.lower.prefetched).toEqual(["data 63", "data 73"]);
    const bring = bench.lower.prefetch.bind(bench.lower);
    const reads = (): number => bench.lower.calls.filter((call) => call === "read").length;
    const before = reads();
    let asked = 0;
    bench.lower.prefetch = (ids, what) => {
      asked = reads();
      return bring(ids, what);
    };
    await read(82, 0);
    await bench.mount.filesAhead.stop();
    // Before that file itself is asked for, which is among them.
    expect([bench.lower.prefetched.slice(2), asked - before, reads() - before]).toEqual([["data 82 81 83"], 0, 1]);
  });
});
