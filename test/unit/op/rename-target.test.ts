/** A rename whose two names were one inode for a moment must not be taken for one of two names of a file (op/placeholder-inodes.ts). */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { forget } from "../../../overlay/op/lookup.ts";
import { PlaceholderInodes } from "../../../overlay/op/placeholder-inodes.ts";
import { Workbench } from "./workbench.ts";

const NODEID_AT = 0;
const ENTRY_VALID_AT = 16;
const ATTR_VALID_AT = 24;
const request = { op: "lookup" as const, fuseNodeid: 1, name: Buffer.from("new") };
const renaming = { op: "rename" as const, fuseNodeid: 1, name: Buffer.from("old"), newFuseNodeid: 1, newName: request.name, flags: 0 };

function nodeidOf(body: Buffer | undefined): number {
  return Number(body?.readBigUInt64LE(NODEID_AT));
}

function known(renaming: boolean | null): Workbench {
  const bench = new Workbench();
  bench.coherence.doubtfulName = true;
  bench.renaming = renaming;
  return bench;
}

describe("a LOOKUP that finds an inode which the kernel may go by under another name", () => {
  it("shows it to a rename as another one, by a name that is not valid, and nothing can be asked of it", async () => {
    const bench = known(true);
    const reply = await bench.serve(request);
    const nodeid = nodeidOf(reply?.body);
    expect([reply?.errno, nodeid === bench.file.fuseNodeid, nodeid === 0]).toEqual([0, false, false]);
    expect(reply?.body.readBigUInt64LE(ENTRY_VALID_AT)).toBe(0n);
    // A directory that gets another parent is checked before the RENAME comes.
    expect(reply?.body.readBigUInt64LE(ATTR_VALID_AT)).toBeGreaterThan(0n);
    expect(bench.coherence.told.has("2.0 new")).toBe(false);
    expect(bench.file.nlookup).toBe(1);
    expect((await bench.serve({ op: "getattr", fuseNodeid: nodeid, fh: null }))?.errno).toBe(E.ESTALE);
    forget(bench.mount, { unique: 0, fuseNodeid: nodeid, uid: 0, gid: 0, pid: 0, op: "forget", fuseNodeids: [nodeid], nlookups: [1] });
    // Never the same number twice.
    expect(nodeidOf((await bench.serve(request, bench.call("lookup", 7)))?.body)).not.toBe(nodeid);
    expect([bench.coherence.held, bench.coherence.violations]).toEqual([0, []]);
  });

  it("shows it as what it is, until the RENAME comes, when the rename walks again because something was asked of that other one", async () => {
    const bench = known(true);
    const shown = nodeidOf((await bench.serve(request))?.body);
    expect((await bench.serve({ op: "getxattr", fuseNodeid: shown, name: request.name, size: 0 }))?.errno).toBe(E.ESTALE);
    expect(nodeidOf((await bench.serve(request))?.body)).toBe(bench.file.fuseNodeid);
    expect(nodeidOf((await bench.serve(request, bench.call("lookup", 7)))?.body)).not.toBe(bench.file.fuseNodeid);
    await bench.serve(renaming);
    expect(nodeidOf((await bench.serve(request))?.body)).not.toBe(bench.file.fuseNodeid);
  });

  it("has the RENAME outdate what the kernel has of the real one, whatever it was told of the name before, and whoever was told its attributes", async () => {
    const bench = known(true);
    for (const name of ["old", "new"]) bench.coherence.told.set(`2.0 ${name}`, bench.file);
    await bench.serve(request);
    bench.coherence.events.length = 0;
    for (const of of [0, 42]) {
      expect((await bench.serve(renaming))?.errno).toBe(0);
      const outdated = bench.coherence.events.splice(0).filter((event) => event.startsWith("outdated 20.1"));
      expect(outdated).toEqual(Array.from({ length: 2 }, () => `outdated 20.1 but of ${of === 0 ? "0, not held" : of}`));
    }
  });

  it("is not followed by ESTALE to the RENAME, whose thread may have had one", async () => {
    const bench = known(true);
    for (const name of ["old", "new"]) bench.coherence.told.set(`2.0 ${name}`, bench.file);
    await bench.serve(request);
    for (const errno of [0, E.ESTALE]) {
      bench.lower.errors.set("rename", [E.ESTALE]);
      expect((await bench.serve(renaming))?.errno).toBe(errno);
    }
  });

  it("remembers the last threads that sent no RENAME", () => {
    const standIns = new PlaceholderInodes();
    for (let tid = 1; tid <= 1025; tid += 1) standIns.show(tid + 5000, tid);
    expect([1, 2, 1025, 1025].map((tid) => standIns.came(tid))).toEqual([false, true, true, false]);
  });

  it("shows it to everybody else as what it is", async () => {
    const bench = known(false);
    expect(nodeidOf((await bench.serve(request))?.body)).toBe(bench.file.fuseNodeid);
  });

  it("waits for a thread that does not sleep yet", async () => {
    const bench = known(null);
    const served = bench.serve(request);
    bench.renaming = true;
    expect(nodeidOf((await served)?.body)).not.toBe(bench.file.fuseNodeid);
  });

  it("lets a thread walk again, once, of which it can not be told", async () => {
    const bench = known(null);
    expect((await bench.serve(request, bench.call("lookup", 0)))?.errno).toBe(E.ESTALE);
    expect(nodeidOf((await bench.serve(request, bench.call("lookup", 0)))?.body)).toBe(bench.file.fuseNodeid);
    expect([bench.coherence.held, bench.coherence.violations]).toEqual([0, []]);
  });

  it("asks about nobody where there is no other name", async () => {
    const bench = known(true);
    bench.coherence.doubtfulName = false;
    expect(nodeidOf((await bench.serve(request))?.body)).toBe(bench.file.fuseNodeid);
  });
});
