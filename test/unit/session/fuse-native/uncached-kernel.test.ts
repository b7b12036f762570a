/** Hazard F26: a kernel that can not be notified is told nothing as valid, and nothing that it would have to give back. */
import { expect, it } from "vitest";
import { Mode } from "../../../../dlmd/wire/mode.ts";
import { attrValid, inodeOf, lockspaceThatGrants, shellOver } from "../../coherence/shell-lab.ts";
import { uncachedCaches, uncachedInodes } from "../../../../overlay/session/fuse-native/uncached-kernel.ts";

const waiter = { interrupted: false, onInterrupt: null };

it("neither attributes nor names are valid, under whatever lock", async () => {
  const shell = shellOver(lockspaceThatGrants([]).lockspace, uncachedCaches);
  const [dir, file] = [inodeOf(shell, 10, "directory"), inodeOf(shell, 11, "file")];
  for (const inode of [dir, file]) await shell.operations.pin(inode, Mode.EX, waiter);
  expect(attrValid(shell, file, 1)).toBe(false);
  expect(shell.operations.names.tellEntry(dir, Buffer.from("x"), file)).toBe(false);
  expect(shell.operations.names.tellEntry(dir, Buffer.from("y"), null)).toBe(false);
});

it("no open has a page cache, and none asks for the right to have one", async () => {
  const asked: string[] = [];
  const shell = shellOver(lockspaceThatGrants(asked).lockspace, uncachedCaches);
  expect(await shell.operations.openForWrite(inodeOf(shell, 11, "file"), waiter)).toBe("direct");
  expect(asked).toEqual([]);
});

it("whatever size is asked for is the kernel's", async () => {
  const own = uncachedInodes(() => null);
  const inode = { fuseNodeid: 5, id: { ino: 5, generation: 0 } };
  expect(await own.look(inode, 0, 700, 0)).toBe(700);
  expect(await own.look(inode, 700, Number.POSITIVE_INFINITY, 0)).toBe(700);
  expect(await own.lock(inode)).toBeLessThan(0);
});

it("its notifications are done at once", async () => {
  expect(await uncachedCaches.invalidatePages(5)).toEqual([0]);
  expect(await uncachedCaches.expireNames(5, [{ name: Buffer.from("x"), drop: true }])).toEqual([0]);
  const batch = uncachedCaches.invalidateMany([5, 6]);
  expect([await batch.write(), batch.begun(), batch.refused()]).toEqual([0, 2, []]);
});
