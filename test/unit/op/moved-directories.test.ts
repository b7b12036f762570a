/** Hazard F46: a directory that another node moved, before this kernel goes up from it. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import {
  PLACE_AGAIN_MS,
  PLACE_LOOKS_MAX,
  PLACE_QUIET_MS,
  PLACE_WAIT_MS,
  PUT_OFF_MAX,
  WALK_ANSWER_MS,
  WALKS_MAX,
} from "../../../overlay/op/moved-directories.ts";
import type { InodeRecord } from "../../../overlay/inode/table.ts";
import type { Attr } from "../../../overlay/lower/lower.ts";
import { rightSizes } from "./right-sizes.ts";
import { attrOf, FILE } from "./scripted-lower.ts";
import { type Reply, Workbench } from "./workbench.ts";

const OWN_THREAD = 77;

let bench: Workbench;
let dir: InodeRecord;
/** What is looked for, as it is; each look ends when it is told what was found. */
let looks: { readonly path: string; readonly found: (ino: number) => void }[];

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  bench = new Workbench();
  dir = directory(500);
  looks = [];
  bench.walk = (path) => new Promise((found) => looks.push({ path: path.toString(), found }));
  bench.coherence.sizes = { ...rightSizes, own: { ...rightSizes.own, isOwnThread: (tid) => tid === OWN_THREAD } };
});
afterEach(() => {
  bench.moved.end();
  vi.useRealTimers();
  if (bench.coherence.held > 0 || bench.coherence.violations.length > 0)
    throw new Error(`${bench.coherence.violations.join()}; or pins are left`);
});

function directory(ino: number): InodeRecord {
  const inode = bench.inodes.remember({ ino, generation: 1 }, 0o040755);
  inode.nlookup = 1;
  bench.inodes.leave(inode);
  return inode;
}

const getattr = (inode = dir, pid = 42): Promise<Reply | undefined> =>
  bench.serve({ op: "getattr", fuseNodeid: inode.fuseNodeid, fh: null }, bench.call("getattr", pid));
const turn = (): Promise<unknown> => vi.advanceTimersByTimeAsync(0);
/** fuse_attr_out: the seconds of its validity come first. */
const hasValidity = (reply: Reply | undefined): boolean => (reply?.body.readBigUInt64LE(0) ?? 0n) > 0n;

describe("a GETATTR", () => {
  it("is answered when this kernel has looked at the place that the owner tells, with validity", async () => {
    bench.moved.moved(dir.id);
    const asked = getattr();
    await turn();
    // Without a pin, and before the attributes are read.
    expect([looks.map(({ path }) => path), bench.replies, bench.coherence.held]).toEqual([["new/place"], [], 0]);
    looks[0]?.found(500);
    expect(hasValidity(await asked)).toBe(true);
    expect(bench.lower.calls).toEqual(["pathOf", "getattr"]);
    expect(hasValidity(await getattr())).toBe(true);
    expect(looks).toHaveLength(1);
  });

  it("waits for nothing if the directory has not moved", async () => {
    bench.moved.moved(directory(501).id);
    expect(hasValidity(await getattr())).toBe(true);
    expect(looks).toEqual([]);
  });

  it("waits for another look, without its pin, if the directory moves before the owner's answer", async () => {
    let asks = 0;
    bench.lower.getattr = (id): Promise<Attr> => {
      asks += 1;
      if (asks === 1) bench.moved.moved(id);
      return Promise.resolve(attrOf(id, { mode: 0o040755 }));
    };
    const asked = getattr();
    await turn();
    expect([looks.length, bench.replies, bench.coherence.held]).toEqual([1, [], 0]);
    looks[0]?.found(500);
    expect(hasValidity(await asked)).toBe(true);
  });

  it("is answered without validity if looks find something else for PLACE_WAIT_MS, 10 ms apart; the next one looks again", async () => {
    bench.moved.moved(dir.id);
    bench.walk = (path) => {
      looks.push({ path: path.toString(), found: () => undefined });
      return Promise.resolve(looks.length % 2 === 0 ? 999 : -E.ESTALE);
    };
    const asked = getattr();
    await vi.advanceTimersByTimeAsync(PLACE_WAIT_MS - 1);
    expect([looks.length, bench.replies]).toEqual([100, []]);
    await vi.advanceTimersByTimeAsync(1);
    const reply = await asked;
    expect([reply?.errno, hasValidity(reply)]).toEqual([0, false]);
    bench.walk = () => Promise.resolve(500);
    await vi.advanceTimersByTimeAsync(100);
    expect(hasValidity(await getattr())).toBe(true);
  });

  it("is answered as ever where this node can not look at any time: the mount's path leads elsewhere, or the path is too long", async () => {
    bench.moved.moved(dir.id);
    bench.walk = () => Promise.resolve(-E.EXDEV);
    expect(hasValidity(await getattr())).toBe(true);
    bench.moved.moved(dir.id);
    bench.lower.errors.set("pathOf", [E.ENAMETOOLONG]);
    expect(hasValidity(await getattr())).toBe(true);
  });

  it("does not wait a second time for a look that is late", async () => {
    bench.moved.moved(dir.id);
    const asked = getattr();
    await vi.advanceTimersByTimeAsync(PLACE_WAIT_MS);
    expect(hasValidity(await asked)).toBe(false);
    expect(hasValidity(await getattr())).toBe(false);
    expect(looks).toHaveLength(1);
  });

  it("waits until fewer than WALKS_MAX threads look", async () => {
    const all = Array.from({ length: WALKS_MAX + 1 }, (_, at) => directory(2000 + at));
    for (const { id } of all) bench.moved.moved(id);
    const asked = all.map((inode) => getattr(inode));
    await turn();
    expect(looks).toHaveLength(WALKS_MAX);
    looks[0]?.found(2000);
    await turn();
    expect(looks).toHaveLength(WALKS_MAX + 1);
    looks.forEach(({ found }, at) => found(2000 + at));
    expect((await Promise.all(asked)).map(hasValidity)).toEqual(all.map(() => true));
  });

  it("looks again if the directory moved during the look", async () => {
    bench.moved.moved(dir.id);
    const asked = getattr();
    await turn();
    bench.moved.moved(dir.id);
    looks[0]?.found(500);
    await vi.advanceTimersByTimeAsync(10);
    expect([looks.length, bench.replies]).toEqual([2, []]);
    looks[1]?.found(500);
    expect(hasValidity(await asked)).toBe(true);
  });

  it("waits PLACE_WAIT_MS for a look: who asks may have what the look waits for", async () => {
    bench.moved.moved(dir.id);
    const asked = getattr();
    await vi.advanceTimersByTimeAsync(PLACE_WAIT_MS - 1);
    expect([looks.length, bench.replies]).toEqual([1, []]);
    await vi.advanceTimersByTimeAsync(1);
    const reply = await asked;
    expect([reply?.errno, hasValidity(reply)]).toEqual([0, false]);
  });

  it("waits for three looks at most, if the directory moves each time before the owner's answer", async () => {
    bench.lower.getattr = (id): Promise<Attr> => {
      bench.moved.moved(id);
      return Promise.resolve(attrOf(id, { mode: 0o040755 }));
    };
    const asked = getattr();
    for (let look = 0; look < 3; look += 1) {
      await turn();
      expect([looks.length, bench.replies]).toEqual([look + 1, []]);
      looks[look]?.found(500);
    }
    expect([hasValidity(await asked), looks.length]).toEqual([false, 3]);
  });

  it("of a thread of our own, which looks, waits for no look", async () => {
    bench.moved.moved(dir.id);
    const asked = getattr();
    await turn();
    expect(hasValidity(await getattr(dir, OWN_THREAD))).toBe(false);
    looks[0]?.found(500);
    await asked;
  });

  it("of a directory that was removed needs no look", async () => {
    bench.lower.errors.set("pathOf", [E.ESTALE]);
    bench.moved.moved(dir.id);
    expect(hasValidity(await getattr())).toBe(true);
    expect(looks).toEqual([]);
  });
});

describe("a look of our own", () => {
  it("is answered EINTR on its way after WALK_ANSWER_MS, but not what waits for the lease", async () => {
    const call = { kept: true, ended: 0, interrupt: (): void => void (call.ended += 1) };
    bench.moved.endInTime(call);
    await vi.advanceTimersByTimeAsync(WALK_ANSWER_MS);
    call.kept = false;
    await vi.advanceTimersByTimeAsync(WALK_ANSWER_MS - 1);
    expect(call.ended).toBe(0);
    await vi.advanceTimersByTimeAsync(1);
    expect(call.ended).toBe(1);
  });

  it("comes back at once, and no other begins, while another process is about to go on", async () => {
    bench.moved.moved(dir.id);
    const asked = getattr();
    await turn();
    bench.moved.hold(true);
    const lookup = await bench.serve({ op: "lookup", fuseNodeid: 1, name: Buffer.from("new") }, bench.call("lookup", OWN_THREAD));
    expect([lookup?.errno, (await getattr(directory(600), OWN_THREAD))?.errno]).toEqual([E.EAGAIN, E.EAGAIN]);
    looks[0]?.found(-E.EAGAIN);
    expect([hasValidity(await asked), looks.length]).toEqual([false, 1]);
    expect(hasValidity(await getattr())).toBe(false);
    expect(looks).toHaveLength(1);
    bench.moved.hold(false);
    const next = getattr();
    await turn();
    looks[1]?.found(500);
    expect(hasValidity(await next)).toBe(true);
  });
});

describe("without anybody who asks", () => {
  it("looks PLACE_QUIET_MS after the last move, one after the other, at PLACE_LOOKS_MAX at most", async () => {
    const all = Array.from({ length: PLACE_LOOKS_MAX + 1 }, (_, at) => directory(1000 + at));
    for (const { id } of all) bench.moved.moved(id);
    // They came at once, and another one later: a quiet time is awaited.
    await vi.advanceTimersByTimeAsync(PLACE_QUIET_MS - 1);
    bench.moved.moved(dir.id);
    await vi.advanceTimersByTimeAsync(PLACE_QUIET_MS);
    expect(looks).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    for (let look = 0; look < PLACE_LOOKS_MAX; look += 1) {
      expect(looks).toHaveLength(look + 1);
      looks[look]?.found(1000 + look);
      await turn();
    }
    expect(looks).toHaveLength(PLACE_LOOKS_MAX);
    expect([...all.slice(0, PLACE_LOOKS_MAX), dir].filter((inode) => bench.moved.mayBeElsewhere(inode))).toEqual([dir]);
  });

  it("is put off PUT_OFF_MAX times at most", async () => {
    for (let move = 0; move <= PUT_OFF_MAX; move += 1) {
      bench.moved.moved(dir.id);
      await vi.advanceTimersByTimeAsync(PLACE_QUIET_MS - 1);
      bench.moved.moved(dir.id);
      expect(looks).toEqual([]);
      await vi.advanceTimersByTimeAsync(1);
    }
    expect(looks).toHaveLength(1);
  });

  it("looks again PLACE_AGAIN_MS after a look that failed, and after a pause that came to nothing", async () => {
    bench.moved.moved(dir.id);
    await vi.advanceTimersByTimeAsync(PLACE_QUIET_MS);
    looks[0]?.found(-E.EINTR);
    await vi.advanceTimersByTimeAsync(PLACE_AGAIN_MS - 1);
    expect(looks).toHaveLength(1);
    bench.moved.hold(true);
    await vi.advanceTimersByTimeAsync(10 * PLACE_AGAIN_MS);
    expect(looks).toHaveLength(1);
    bench.moved.hold(false);
    await vi.advanceTimersByTimeAsync(PLACE_AGAIN_MS);
    looks[1]?.found(500);
    await turn();
    expect([looks.length, bench.moved.mayBeElsewhere(dir)]).toEqual([2, false]);
  });

  it("does not look at what was looked at meanwhile, at the root, or at what this kernel does not know", async () => {
    bench.moved.moved(dir.id);
    bench.moved.moved(bench.inodes.root.id);
    bench.moved.moved({ ino: 12_345, generation: 1 });
    bench.moved.isPlaced(dir);
    await vi.advanceTimersByTimeAsync(PLACE_QUIET_MS);
    expect(looks).toEqual([]);
  });

  it("takes each directory for moved, and no file, where moves may have been missed", async () => {
    bench.moved.missed();
    await vi.advanceTimersByTimeAsync(PLACE_QUIET_MS);
    expect(looks).toEqual([]);
    const { file, inodes } = bench;
    expect([dir, file, inodes.root].map((inode) => bench.moved.mayBeElsewhere(inode))).toEqual([true, false, false]);
    const asked = getattr();
    await turn();
    looks[0]?.found(500);
    expect(hasValidity(await asked)).toBe(true);
  });
});

describe("other answers", () => {
  const rename = { op: "rename" as const, name: Buffer.from("name"), newFuseNodeid: 1, newName: Buffer.from("new"), flags: 0 };

  it("a LOOKUP tells of it without validity of its attributes: the kernel may fail to move it", async () => {
    bench.lower.found = dir.id;
    const attrValid = async (): Promise<bigint | undefined> =>
      (await bench.serve({ op: "lookup", fuseNodeid: 1, name: Buffer.from("name") }))?.body.readBigUInt64LE(24);
    bench.lower.lookup = () => ({ id: dir.id, attr: attrOf(dir.id, { mode: 0o040755 }) });
    expect(await attrValid()).toBeGreaterThan(0n);
    bench.moved.moved(dir.id);
    expect(await attrValid()).toBe(0n);
  });

  it("a RENAME of a name that this kernel has for something else moves that in its cache", async () => {
    bench.coherence.told.set("2.0 name", null);
    bench.lower.lookup = () => ({ id: dir.id, attr: attrOf(dir.id, { mode: 0o040755 }) });
    bench.moved.moved(dir.id);
    await bench.serve(rename);
    expect(bench.moved.mayBeElsewhere(dir)).toBe(true);
  });

  it.each([
    [false, false],
    [true, true],
  ])("a RENAME of this kernel, whose caller was killed: %s; it may be elsewhere: %s", async (killed, elsewhere) => {
    bench.coherence.told.set("2.0 name", dir);
    bench.coherence.told.set("2.0 new", null);
    const call = bench.call("rename");
    const renames = bench.lower.rename.bind(bench.lower);
    bench.lower.rename = () => {
      bench.moved.moved(dir.id);
      if (killed) Object.assign(call, { interrupted: true });
      return renames();
    };
    await bench.serve(rename, call);
    expect(bench.moved.mayBeElsewhere(dir)).toBe(elsewhere);
  });
});

it("knows an inode by its identity", () => {
  expect([bench.inodes.find(FILE), bench.inodes.find({ ...FILE, generation: 99 })]).toEqual([bench.file, undefined]);
});
