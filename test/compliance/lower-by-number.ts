/** What every lower finds without a name (hazard F29): an inode by its number, and the directory in which a directory is. */
import fs from "node:fs";
import { expect, it } from "vitest";
import { E } from "../../dlmd/base/errno.ts";
import type { MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Entry } from "../../overlay/lower/lower.ts";
import { bytes, errnoOf, RDWR, root, TMPFS, type LowerBench } from "./lower-bench.ts";

export function byNumberCompliance(bench: LowerBench): void {
  const onTmpfs = (): boolean => fs.statfsSync(bench.fixture.path).type === TMPFS;
  const errnoOfNumber = (ino: number): Promise<number> => errnoOf(() => bench.lower.byNumber(ino));

  it("finds an inode of any kind by its number, whatever its names are; tmpfs does not tell generations, and none is guessed", async () => {
    const { dir, path } = await bench.place();
    const { entry, handle } = await bench.file(dir, "f", "text");
    bench.lower.close(handle);
    const sub = await bench.lower.mkdir(dir, bytes("d"), 0o755, root);
    const link = await bench.lower.symlink(dir, bytes("l"), bytes("f"), root);
    const fifo = await bench.lower.mknod(dir, bytes("p"), 0o010644, 0, 0, root);
    const all = [entry, sub, link, fifo];
    const errnos = await Promise.all(all.map((one) => errnoOfNumber(one.id.ino)));
    expect(errnos).toEqual(all.map(() => (onTmpfs() ? E.ESTALE : 0)));
    expect((await bench.lower.byNumber(bench.lower.root.ino)).id).toEqual(bench.lower.root);
    if (onTmpfs()) return;
    const found = await Promise.all(all.map(async (one) => await bench.lower.byNumber(one.id.ino)));
    expect(found.map(({ id }) => id)).toEqual(all.map(({ id }) => id));
    expect(found.map(({ attr }) => attr.mode & 0o170000)).toEqual([0o100000, 0o040000, 0o120000, 0o010000]);
    fs.renameSync(`${path}/f`, `${path}/g`);
    expect(await bench.lower.byNumber(entry.id.ino)).toMatchObject({ id: entry.id, attr: { size: 4 } });
  });

  it("finds nothing by the number of what has no name, nor by one that no inode has", async () => {
    const { dir } = await bench.place();
    const { entry, handle } = await bench.file(dir, "f", "still open");
    await bench.lower.unlink(dir, bytes("f"), entry.id);
    expect(await errnoOfNumber(entry.id.ino)).toBe(E.ESTALE);
    bench.lower.close(handle);
    const gone = await bench.lower.mkdir(dir, bytes("gone"), 0o755, root);
    await bench.lower.rmdir(dir, bytes("gone"), gone.id);
    expect(await errnoOfNumber(gone.id.ino)).toBe(E.ESTALE);
    // ext4 keeps its journal, and others of its own, in inodes up to 10.
    for (const ino of [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 2 ** 31, 2 ** 32 + 1, 2 ** 40, Number.MAX_SAFE_INTEGER])
      expect(await errnoOfNumber(ino)).toBe(E.ESTALE);
  });

  it("answers each call with ESTALE for an inode of a number that no inode can have", async () => {
    const { dir } = await bench.place();
    const { lower } = bench;
    const [name, no] = [bytes("f"), { ino: 2 ** 32, generation: 0 }];
    const { entry, handle } = await bench.file(dir, "f", "text");
    const calls = {
      getattr: () => lower.getattr(no),
      setattr: () => lower.setattr(no, { mode: 0o600 }, null),
      truncate: () => lower.setattr(no, { size: 0 }, null),
      readlink: () => lower.readlink(no),
      open: () => lower.open(no, RDWR),
      opendir: () => lower.opendir(no),
      lookup: () => lower.lookup(no, name),
      lookupMany: () => lower.lookupMany(no, [name]),
      parentOf: () => lower.parentOf(no),
      pathOf: () => lower.pathOf(no),
      create: () => lower.create(no, name, RDWR, 0o600, root),
      tmpfile: () => lower.tmpfile(no, RDWR, 0o600, root, true),
      mkdir: () => lower.mkdir(no, name, 0o700, root),
      mknod: () => lower.mknod(no, name, 0o010600, 0, 0, root),
      symlink: () => lower.symlink(no, name, bytes("to"), root),
      unlink: () => lower.unlink(no, name, entry.id),
      rmdir: () => lower.rmdir(no, name, entry.id),
      renameFrom: () => lower.rename(no, name, dir, bytes("g"), 0, entry.id, null),
      renameTo: () => lower.rename(dir, name, no, name, 0, entry.id, null),
      link: () => lower.link(no, dir, bytes("g")),
      linkIn: () => lower.link(entry.id, no, name),
      getxattr: () => lower.getxattr(no, bytes("user.a")),
      setxattr: () => lower.setxattr(no, bytes("user.a"), name, 0),
      listxattr: () => lower.listxattr(no),
      removexattr: () => lower.removexattr(no, bytes("user.a")),
    };
    for (const [call, made] of Object.entries<() => MaybePromise<unknown>>(calls))
      expect([call, await errnoOf(made)]).toEqual([call, E.ESTALE]);
    expect(await lower.getattrMany([no, entry.id])).toMatchObject([null, { ino: entry.id.ino }]);
    expect((await lower.getattr(entry.id)).nlink).toBe(1);
    lower.close(handle);
  });

  it("finds the directory in which a directory is, and none above the root", async () => {
    const { dir } = await bench.place();
    const sub = await bench.lower.mkdir(dir, bytes("d"), 0o755, root);
    const inner = await bench.lower.mkdir(sub.id, bytes("e"), 0o755, root);
    expect((await bench.lower.parentOf(inner.id)).id).toEqual(sub.id);
    expect((await bench.lower.parentOf(dir)).id).toEqual(bench.lower.root);
    expect(await errnoOf(() => bench.lower.parentOf(bench.lower.root))).toBe(E.ESTALE);
    const placeOf = async ({ id }: Pick<Entry, "id">): Promise<string> => (await bench.lower.pathOf(id)).toString();
    const above = (await bench.lower.pathOf(dir)).toString();
    expect([await placeOf(sub), await placeOf(inner)]).toEqual([`${above}/d`, `${above}/d/e`]);
    expect(await errnoOf(() => bench.lower.pathOf(bench.lower.root))).toBe(E.ESTALE);
    await bench.lower.rename(sub.id, bytes("e"), dir, bytes("e"), 0, inner.id, null);
    expect((await bench.lower.parentOf(inner.id)).id).toEqual(dir);
    expect(await placeOf(inner)).toBe(`${above}/e`);
    await bench.lower.rmdir(dir, bytes("e"), inner.id);
    expect(await errnoOf(() => bench.lower.parentOf(inner.id))).toBe(E.ESTALE);
    expect(await errnoOf(() => bench.lower.pathOf(inner.id))).toBe(E.ESTALE);
  });
}
