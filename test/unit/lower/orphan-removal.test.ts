/** H10: what nobody has open is removed only while this owner is one. */
import { expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { Native } from "../../../native/index.ts";
import type { FileHandleFormat } from "../../../overlay/lower/local/file-handle.ts";
import { Orphans } from "../../../overlay/lower/local/orphans.ts";

it("an owner that ends in the middle of a removal leaves the rest to the next one", async () => {
  const removed: string[] = [];
  const unlinked: (() => void)[] = [];
  const unlink = (_fd: number, name: Buffer): Promise<number> => {
    removed.push(name.toString());
    return new Promise((resolve) => unlinked.push(() => resolve(0)));
  };
  const orphans = new Orphans({
    native: { pool: { metadata: { unlink } } } as unknown as Native,
    log: silentLog,
    rootFd: 3,
    rootIno: 2,
    format: {} as FileHandleFormat,
    metadata: {} as never,
    isOpen: () => false,
    makeRoom: () => undefined,
  });
  orphans.table.begin(
    ["a", "b", "c"].map((name, at) => ({
      id: { ino: 11 + at, generation: 1 },
      name: Buffer.from(name),
      directory: false,
      linkable: false,
    })),
  );
  const settled = orphans.settle();
  expect(removed).toEqual(["a"]);
  orphans.end();
  // The next owner may have opened "b" for its callers.
  for (let done = unlinked.shift(); done !== undefined; done = unlinked.shift()) {
    done();
    await new Promise(setImmediate);
  }
  expect([await settled, removed, orphans.table.count]).toEqual([1, ["a"], 2]);
});
