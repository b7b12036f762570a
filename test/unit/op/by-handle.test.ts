/** Hazard F29: LOOKUP of "." and "..", by a number out of a file handle. */
import { expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { COUNTED_FROM, fuseNodeidOf } from "../../../overlay/inode/numbers.ts";
import type { FileId } from "../../../overlay/lower/lower.ts";
import type { Operation } from "../../../overlay/op/perform.ts";
import { attrOf, FILE, OTHER, ROOT } from "./scripted-lower.ts";
import { type Reply, Workbench } from "./workbench.ts";

const number = (id: FileId): number => fuseNodeidOf(id) as number;
const self = (bench: Workbench, fuseNodeid: number): Promise<Reply | undefined> =>
  bench.serve({ op: "lookup", name: Buffer.from("."), fuseNodeid });
const parent = (bench: Workbench, fuseNodeid: number): Promise<Reply | undefined> =>
  bench.serve({ op: "lookup", name: Buffer.from(".."), fuseNodeid });
const told = (reply: Reply | undefined): readonly number[] => [0, 8].map((at) => Number(reply?.body.readBigUInt64LE(at)));
const entryValid = (reply: Reply | undefined): boolean => (reply?.body.readBigUInt64LE(16) ?? 0n) > 0n;

it("tells what was found by its number, with number and generation, under its own lock, and no name", async () => {
  const bench = new Workbench();
  bench.lower.found = { ino: 30, generation: 0xffff_fff1 };
  const fuseNodeid = number(bench.lower.found);
  const reply = await self(bench, fuseNodeid);
  expect([reply?.errno, told(reply), entryValid(reply), reply?.held]).toEqual([0, [fuseNodeid, 0xffff_fff1], false, 1]);
  expect(bench.lower.calls).toEqual(["byNumber", "getattr"]);
  expect([bench.coherence.told.size, bench.coherence.held, bench.inodes.get(fuseNodeid)?.nlookup]).toEqual([0, 0, 1]);
});

it("tells of an inode that is known here without a look for its number", async () => {
  const bench = new Workbench();
  const reply = await self(bench, bench.file.fuseNodeid);
  expect([told(reply), bench.lower.calls, bench.file.nlookup]).toEqual([[bench.file.fuseNodeid, FILE.generation], ["getattr"], 2]);
});

it("F51: what was found by its number, or as the parent, is pinned when it is known to dlmd; but not what is known here, or not there", async () => {
  const bench = new Workbench();
  bench.lower.found = OTHER;
  const { events } = bench.coherence;
  for (const look of ["byNumber", "parentOf"] as const) {
    const found = bench.lower[look].bind(bench.lower);
    bench.lower[look] = () => {
      events.push(look);
      return found();
    };
  }
  const seen = (): string[] => events.splice(0).filter((event) => !event.startsWith("unpin"));
  expect((await self(bench, number(OTHER)))?.errno).toBe(0);
  expect(seen().slice(0, 3)).toEqual(["byNumber", "births known", "pin 21.1 PR"]);
  expect((await parent(bench, 1))?.errno).toBe(0);
  expect(seen().slice(0, 3)).toEqual(["parentOf", "births known", "pin 2.0 PR"]);
  await self(bench, bench.file.fuseNodeid);
  bench.lower.errors.set("byNumber", [E.ESTALE]);
  expect((await self(bench, number({ ...OTHER, ino: 77 })))?.errno).toBe(E.ESTALE);
  expect(seen().filter((event) => event.startsWith("births"))).toEqual([]);
  expect(bench.coherence.violations).toEqual([]);
});

it.each<readonly [Operation["op"], Record<string, unknown>]>([
  ["mkdir", { name: Buffer.from("new"), mode: 0o755, umask: 0, supplementaryGids: [] }],
  ["create", { name: Buffer.from("new"), mode: 0o644, umask: 0, flags: 0o102, supplementaryGids: [] }],
  ["tmpfile", { mode: 0o644, umask: 0, flags: 0o20200002, supplementaryGids: [] }],
])("F51: what %s makes may have been found by its number from before the lower was asked on", async (op, request) => {
  const bench = new Workbench();
  bench.lower.later = true;
  const before = bench.coherence.since();
  const served = bench.serve({ op, ...request });
  while (!bench.lower.calls.some((call) => call === op)) await new Promise((resolve) => setImmediate(resolve));
  bench.coherence.happens("granted");
  expect((await served)?.errno).toBe(0);
  expect([bench.coherence.bornSince, bench.coherence.since()]).toEqual([before, before + 1]);
});

it("refuses another generation, though the number is in use again", async () => {
  const bench = new Workbench();
  bench.lower.found = { ...OTHER, generation: OTHER.generation + 1 };
  expect((await self(bench, number(OTHER)))?.errno).toBe(E.ESTALE);
  expect([bench.inodes.size, bench.coherence.held]).toEqual([2, 0]);
});

it("refuses a number that stands for no inode, without asking", async () => {
  const bench = new Workbench();
  for (const fuseNodeid of [0, 4095, COUNTED_FROM, bench.inodes.standIn().fuseNodeid, 2 ** 53, 2 ** 63])
    expect((await self(bench, fuseNodeid))?.errno).toBe(E.ESTALE);
  expect(bench.lower.calls).toEqual([]);
});

it("refuses what the kernel has by another number: the root, and an inode that was counted", async () => {
  const bench = new Workbench();
  bench.lower.found = ROOT;
  expect((await self(bench, number(ROOT)))?.errno).toBe(E.ESTALE);
  const old = bench.inodes.remember(OTHER, 0o100644);
  const counted = bench.inodes.remember({ ...OTHER, generation: OTHER.generation + 4096 }, 0o100644);
  bench.inodes.leave(old);
  bench.lower.found = counted.id;
  expect((await self(bench, number(counted.id)))?.errno).toBe(E.ESTALE);
  expect((await self(bench, counted.fuseNodeid))?.errno).toBe(0);
});

it("refuses what has lost its last name meanwhile, though it is open somewhere, and what is of another kind", async () => {
  const bench = new Workbench();
  bench.lower.found = OTHER;
  bench.lower.errors.set("getattr", [E.ESTALE]);
  expect((await self(bench, number(OTHER)))?.errno).toBe(E.ESTALE);
  for (const change of [{ nlink: 0 }, { mode: 0o040755 }]) {
    bench.lower.getattr = () => attrOf(OTHER, change);
    expect((await self(bench, bench.file.fuseNodeid))?.errno).toBe(E.ESTALE);
    expect((await self(bench, number(OTHER)))?.errno).toBe(E.ESTALE);
  }
  expect([bench.inodes.size, bench.coherence.held, bench.file.nlookup]).toEqual([2, 0, 1]);
});

it("waits for the lock with nothing pinned, and can be killed there", async () => {
  const bench = new Workbench();
  bench.lower.found = OTHER;
  bench.coherence.locks = "away";
  expect((await self(bench, number(OTHER)))?.errno).toBe(0);
  expect(bench.coherence.violations).toEqual([]);
  bench.coherence.locks = "never";
  const call = bench.call("lookup");
  const served = bench.serve({ op: "lookup", name: Buffer.from("."), fuseNodeid: bench.file.fuseNodeid }, call);
  call.interrupt();
  expect((await served)?.errno).toBe(E.EINTR);
  expect([bench.file.nlookup, bench.coherence.held]).toEqual([1, 0]);
});

it("tells the directory in which a directory is; the root has its own number, and generation 0", async () => {
  const bench = new Workbench();
  const dir = bench.inodes.remember({ ino: 40, generation: 3 }, 0o040755);
  const reply = await parent(bench, dir.fuseNodeid);
  expect([reply?.errno, told(reply), entryValid(reply), reply?.held]).toEqual([0, [1, 0], false, 1]);
  expect((await parent(bench, bench.file.fuseNodeid))?.errno).toBe(E.ESTALE);
  expect((await parent(bench, number(OTHER)))?.errno).toBe(E.ESTALE);
  bench.lower.errors.set("parentOf", [E.ESTALE]);
  expect((await parent(bench, dir.fuseNodeid))?.errno).toBe(E.ESTALE);
});

it("a thread of our own is refused at once, whatever is known: a revoke may wait for it", async () => {
  const bench = new Workbench();
  const own = { ...bench.coherence.sizes.own, isOwnThread: (tid: number) => tid === 42 };
  Object.assign(bench.coherence, { sizes: { ...bench.coherence.sizes, own } });
  bench.coherence.locks = "never";
  for (const fuseNodeid of [bench.file.fuseNodeid, number(OTHER)])
    for (const ask of [self, parent]) expect((await ask(bench, fuseNodeid))?.errno).toBe(E.ESTALE);
  expect(bench.lower.calls).toEqual([]);
});
