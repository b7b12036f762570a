/** Hazard F5: the size that a LOOKUP tells of an inode whose lock is being given up. */
import { describe, expect, it } from "vitest";
import { SENTINEL_SIZE } from "../../../overlay/coherence/size/sentinel.ts";
import { rightSizes } from "./right-sizes.ts";
import { Workbench } from "./workbench.ts";

/** struct fuse_entry_out: 40 bytes, then struct fuse_attr, whose second field is the size. */
const SIZE_AT = 48;

async function sizeTold(given: {
  readonly held: boolean;
  readonly known: boolean;
  readonly seen: number | null;
  readonly nlookup?: number;
  /** The lock came after the LOOKUP had asked. */
  readonly since?: boolean;
}): Promise<number> {
  const bench = new Workbench();
  bench.coherence.child = { pinned: false, trip: false };
  bench.coherence.stillHeld = (_inode, since) => given.held && (given.since !== true || since === null);
  bench.coherence.sizes = { ...rightSizes, known: () => given.known, seen: () => Promise.resolve(given.seen) };
  bench.file.nlookup = given.nlookup ?? 1;
  const reply = await bench.serve({ op: "lookup", fuseNodeid: 1, name: Buffer.from("file") });
  expect(reply?.errno).toBe(0);
  return Number(reply?.body.readBigUInt64LE(SIZE_AT));
}

describe("a LOOKUP in a revoke tells", () => {
  it("the file's size while the kernel may have pages, and has that size", async () => {
    expect(await sizeTold({ held: true, known: true, seen: 7 })).toBe(100);
  });

  it("the size that the kernel has where that may be another: never the sentinel while it may have pages", async () => {
    expect(await sizeTold({ held: true, known: false, seen: 7 })).toBe(7);
  });

  it("the size that the kernel has where the lock was taken meanwhile, and pages came under it", async () => {
    expect(await sizeTold({ held: true, known: true, since: true, seen: 7 })).toBe(7);
  });

  it("the sentinel once the lock is gone, or where the kernel does not know the inode", async () => {
    expect(await sizeTold({ held: false, known: false, seen: 7 })).toBe(SENTINEL_SIZE);
    expect(await sizeTold({ held: true, known: false, seen: 7, nlookup: 0 })).toBe(SENTINEL_SIZE);
  });
});
