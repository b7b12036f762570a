/** What every lower does with names: directories, links, what was removed or replaced. */
import fs from "node:fs";
import { expect, it } from "vitest";
import { E } from "../../dlmd/base/errno.ts";
import type { FileId } from "../../overlay/lower/lower.ts";
import { bytes, errnoOf, expectSame, RDWR, root, XFS, type LowerBench } from "./lower-bench.ts";

export function namesCompliance(bench: LowerBench): void {
  it("keeps names as bytes: 255 of them, none that is UTF-8", async () => {
    const { dir, path } = await bench.place();
    const long = Buffer.alloc(255, 0x78);
    await bench.lower.mkdir(dir, long, 0o755, root);
    expect((await bench.lower.lookup(dir, long)).attr.mode & 0o170000).toBe(0o040000);
    expect(await errnoOf(() => bench.lower.lookup(dir, Buffer.alloc(256, 0x78)))).toBe(E.ENAMETOOLONG);
    expect(await errnoOf(() => bench.lower.mkdir(dir, Buffer.alloc(256, 0x78), 0o755, root))).toBe(E.ENAMETOOLONG);
    const wild = Buffer.from([0xff, 0xfe, 0x80, 0x0a, 0x20]);
    await bench.lower.mkdir(dir, wild, 0o755, root);
    expect(fs.readdirSync(path, { encoding: "buffer" }).some((name) => name.equals(wild))).toBe(true);
    const handle = await bench.lower.opendir(dir);
    expect((await bench.list(handle, 0n, 4096, "plain")).some((entry) => entry.name.equals(wild))).toBe(true);
    bench.lower.close(handle);
    for (const bad of ["", ".", "..", "a/b", "a\0b"]) expect(await errnoOf(() => bench.lower.lookup(dir, bytes(bad)))).toBe(E.EINVAL);
  });

  it("says of no name in a directory made through it that it is absent if it is there, or too long", async () => {
    const { dir } = await bench.place();
    const made = await bench.lower.mkdir(dir, bytes("made"), 0o755, root);
    bench.lower.made(made.id, made.attr);
    expect(bench.lower.isAbsent(made.id, Buffer.alloc(256, 0x78))).toBe(false);
    await bench.file(made.id, "some");
    expect(bench.lower.isAbsent(made.id, bytes("some"))).toBe(false);
  });

  it("removes a name only if it is what is expected", async () => {
    const { dir } = await bench.place();
    const one = await bench.file(dir, "one");
    const two = await bench.file(dir, "two");
    expect(await errnoOf(() => bench.lower.unlink(dir, bytes("one"), two.entry.id))).toBe(E.ESTALE);
    expect(await errnoOf(() => bench.lower.unlink(dir, bytes("none"), two.entry.id))).toBe(E.ENOENT);
    const sub = await bench.lower.mkdir(dir, bytes("sub"), 0o755, root);
    expect(await errnoOf(() => bench.lower.rmdir(dir, bytes("sub"), one.entry.id))).toBe(E.ESTALE);
    expect(await errnoOf(() => bench.lower.unlink(dir, bytes("sub"), sub.id))).toBe(E.EISDIR);
    await bench.lower.mkdir(sub.id, bytes("inner"), 0o755, root);
    expect(await errnoOf(() => bench.lower.rmdir(dir, bytes("sub"), sub.id))).toBe(E.ENOTEMPTY);
    await bench.lower.unlink(dir, bytes("one"), one.entry.id);
    expect(await errnoOf(() => bench.lower.lookup(dir, bytes("one")))).toBe(E.ENOENT);
    bench.lower.close(one.handle);
    bench.lower.close(two.handle);
  });

  it("renames, replaces, refuses to replace, exchanges; each only if both names are what is expected", async () => {
    const { dir, path } = await bench.place();
    const sub = (await bench.lower.mkdir(dir, bytes("sub"), 0o755, root)).id;
    const a = await bench.file(dir, "a", "A");
    const b = await bench.file(sub, "b", "B");
    const [idA, idB] = [a.entry.id, b.entry.id];
    const rename = (flags: number, expectedOld: FileId, expectedNew: FileId | null): Promise<number> =>
      errnoOf(() => bench.lower.rename(dir, bytes("a"), sub, bytes("b"), flags, expectedOld, expectedNew));
    expect(await rename(0, idB, idB)).toBe(E.ESTALE);
    expect(await rename(0, idA, null)).toBe(E.ESTALE);
    expect(await rename(0, idA, idA)).toBe(E.ESTALE);
    expect(await rename(1, idA, idB)).toBe(E.EEXIST);
    expect(await rename(2, idA, idB)).toBe(0);
    expect(fs.readFileSync(`${path}/a`, "utf8")).toBe("B");
    expect(await rename(0, idB, idA)).toBe(0);
    expect(fs.readFileSync(`${path}/sub/b`, "utf8")).toBe("B");
    expect(await bench.text(a.handle)).toBe("A");
    expect(await errnoOf(() => bench.lower.rename(sub, bytes("b"), dir, bytes("c"), 1, idB, null))).toBe(0);
    expect(await errnoOf(() => bench.lower.rename(dir, bytes("sub"), sub, bytes("x"), 0, sub, null))).toBe(E.EINVAL);
    bench.lower.close(a.handle);
    bench.lower.close(b.handle);
  });

  it("knows a removed inode from the one that has its number now", async () => {
    const { dir } = await bench.place();
    const seen = new Map<number, FileId>();
    const answers = new Set<number>();
    const remembered = new Set<number>();
    let reused = 0;
    // XFS frees inodes in the background, so their numbers come again when they do.
    for (let round = 0; round < 64 || (bench.fixture.alone && reused === 0 && round < 10_000); round += 1) {
      const { entry, handle } = await bench.file(dir, "f");
      bench.lower.close(handle);
      const old = seen.get(entry.id.ino);
      if (old !== undefined) {
        reused += 1;
        answers.add(await errnoOf(() => bench.lower.open(old, 0)));
        // It is remembered until another of that number is removed.
        remembered.add((await bench.lower.getattr(old)).nlink);
      }
      seen.set(entry.id.ino, entry.id);
      expect((await bench.lower.getattrMany([entry.id, bench.lower.root])).map((attr) => attr?.ino)).toEqual([
        entry.id.ino,
        bench.lower.root.ino,
      ]);
      await bench.lower.unlink(dir, bytes("f"), entry.id);
      await bench.expectGone(entry.id);
      expect((await bench.lower.getattrMany([entry.id])).map((attr) => attr?.nlink)).toEqual([0]);
      expect(await bench.lower.getattrMany([{ ino: entry.id.ino, generation: (entry.id.generation ^ 1) >>> 0 }])).toEqual([null]);
    }
    expect(reused > 0 || !bench.fixture.alone).toBe(true);
    expect([...answers]).toEqual(reused > 0 ? [E.ESTALE] : []);
    expect([...remembered]).toEqual(reused > 0 ? [0] : []);
  });

  it("keeps a file without a name until its last close", async () => {
    const { dir } = await bench.place();
    const { entry, handle } = await bench.file(dir, "f", "still here");
    await bench.lower.unlink(dir, bytes("f"), entry.id);
    expect((await bench.lower.getattr(entry.id)).nlink).toBe(0);
    await bench.lower.write(handle, bytes("!"), 10, false);
    const second = await bench.lower.open(entry.id, 0);
    bench.lower.close(handle);
    expect(await bench.text(second)).toBe("still here!");
    bench.lower.close(second);
    await bench.expectGone(entry.id);
    expect(await errnoOf(() => bench.lower.open(entry.id, 0))).toBe(E.ESTALE);
  });

  it("lets those go on for a moment who have looked up what was removed or replaced since", async () => {
    const { dir } = await bench.place();
    const removed = await bench.file(dir, "removed", "content");
    const replaced = await bench.file(dir, "replaced", "before");
    const other = await bench.file(dir, "other", "after");
    for (const { handle } of [removed, replaced, other]) bench.lower.close(handle);
    const link = await bench.lower.symlink(dir, bytes("link"), bytes("target"), root);
    const sub = await bench.lower.mkdir(dir, bytes("sub"), 0o750, root);
    await bench.lower.unlink(dir, bytes("removed"), removed.entry.id);
    await bench.lower.rename(dir, bytes("other"), dir, bytes("replaced"), 0, other.entry.id, replaced.entry.id);
    await bench.lower.unlink(dir, bytes("link"), link.id);
    await bench.lower.rmdir(dir, bytes("sub"), sub.id);

    for (const [{ entry }, content] of [
      [removed, "content"],
      [replaced, "before"],
    ] as const) {
      const handle = await bench.lower.open(entry.id, RDWR);
      expect(await bench.text(handle)).toBe(content);
      expect(await bench.lower.setattr(entry.id, { mode: 0o600 }, null)).toMatchObject({ nlink: 0, size: content.length });
      expect(await errnoOf(() => bench.lower.link(entry.id, dir, bytes("again")))).toBe(E.ENOENT);
      bench.lower.close(handle);
    }
    expect((await bench.lower.readlink(link.id)).toString()).toBe("target");
    const listing = await bench.lower.opendir(sub.id);
    expect(await errnoOf(() => bench.lower.readdir(listing, 0n, 4096, "plain"))).toBe(E.ENOENT);
    bench.lower.close(listing);

    for (const { id } of [removed.entry, replaced.entry, link, sub]) {
      await bench.expectGone(id);
      expect((await bench.lower.getattr(id)).nlink).toBe(0);
    }
    // What was only renamed is none of these.
    expect((await bench.lower.getattr(other.entry.id)).nlink).toBe(1);
  });

  it("does not keep a removed directory alive", async () => {
    const { dir } = await bench.place();
    const sub = (await bench.lower.mkdir(dir, bytes("sub"), 0o755, root)).id;
    await bench.lower.mkdir(sub, bytes("x"), 0o755, root);
    const x = await bench.lower.lookup(sub, bytes("x"));
    await bench.lower.rmdir(sub, bytes("x"), x.id);
    await bench.lower.rmdir(dir, bytes("sub"), sub);
    expect(await errnoOf(() => bench.lower.lookup(sub, bytes("x")))).toBe(E.ESTALE);
    expect(await errnoOf(() => bench.lower.mkdir(sub, bytes("x"), 0o755, root))).toBe(E.ESTALE);
    await bench.expectGone(sub);
    expect(await errnoOf(() => bench.lower.opendir(sub))).toBe(E.ESTALE);
  });

  it("lists 10,000 names, each once, resumed anywhere", async () => {
    const { dir, path } = await bench.place();
    // Names of a hundred files: ext4 gives no number of an inode again for minutes, and looks at each such number at each creation.
    for (let n = 0; n < 10_000; n += 1) {
      if (n < 100) fs.writeFileSync(`${path}/name-${n}`, "");
      else fs.linkSync(`${path}/name-${n % 100}`, `${path}/name-${n}`);
    }
    const handle = await bench.lower.opendir(dir);
    const all = await bench.list(handle, 0n, 65_536, "plain");
    const names = all.map((entry) => entry.name.toString());
    expect(new Set(names).size).toBe(10_002);
    expect(names.length).toBe(10_002);
    expect([...names].sort()).toEqual([".", "..", ...fs.readdirSync(path)].sort());
    for (const at of [5000, 1, 9999]) {
      const rest = await bench.list(handle, all[at]?.cookie ?? 0n, 4096, "plain");
      expect(rest.map((entry) => entry.name.toString())).toEqual(names.slice(at + 1));
    }
    const again = await bench.lower.opendir(dir);
    const half = await bench.lower.readdir(again, all[4999]?.cookie ?? 0n, 8192, "entries");
    expect(half.entries.map((entry) => entry.name.toString())).toEqual(names.slice(5000, 5000 + half.entries.length));
    for (const entry of half.entries) expect(entry.entry?.attr.ino).toBe(entry.ino);
    bench.lower.close(handle);
    bench.lower.close(again);
  });

  it("looks many names of a directory up at once, none for those that are not there", async () => {
    const { dir, path } = await bench.place();
    const { handle, entry } = await bench.file(dir, "f", "12345");
    bench.lower.close(handle);
    const [missing, found] = await bench.lower.lookupMany(dir, [bytes("none"), bytes("f")]);
    expect([missing, found?.id]).toEqual([null, entry.id]);
    if (found !== undefined && found !== null) expectSame(found.attr, `${path}/f`);
    expect(await errnoOf(() => bench.lower.lookupMany(dir, [bytes("f"), bytes("..")]))).toBe(E.EINVAL);
    expect(
      await errnoOf(() =>
        bench.lower.lookupMany(
          dir,
          Array.from({ length: 1025 }, () => bytes("f")),
        ),
      ),
    ).toBe(E.E2BIG);
    await bench.lower.unlink(dir, bytes("f"), entry.id);
    await bench.lower.rmdir(bench.lower.root, bytes(path.slice(path.lastIndexOf("/") + 1)), dir);
    expect(await errnoOf(() => bench.lower.lookupMany(dir, [bytes("f")]))).toBe(E.ESTALE);
  });

  it("lists with attributes, dots without, as many as fit", async () => {
    const { dir, path } = await bench.place();
    const { handle: open, entry: made } = await bench.file(dir, "f", "12345");
    bench.lower.close(open);
    const handle = await bench.lower.opendir(dir);
    const entries = await bench.list(handle, 0n, 4096, "entries");
    expect(entries.map((entry) => entry.name.toString()).sort()).toEqual([".", "..", "f"]);
    const f = entries.find((entry) => entry.name.equals(bytes("f")));
    expect(f?.entry?.id).toEqual(made.id);
    if (f?.entry !== undefined) expectSame(f.entry.attr, `${path}/f`);
    expect(f?.type).toBe(8);
    expect(entries.find((entry) => entry.name.equals(bytes(".")))?.entry).toBeUndefined();
    const names = await bench.list(handle, 0n, 4096, "names");
    expect(names.map(({ name }) => name.toString()).sort()).toEqual([".", "..", "f"]);
    expect(names.every((one) => one.entry === undefined)).toBe(true);
    expect((await bench.lower.readdir(handle, 0n, 4096, "entries")).end).toBe(true);
    const first = await bench.lower.readdir(handle, 0n, 160, "names");
    expect([first.entries.length, first.end]).toEqual([1, false]);
    // Behind the last name comes what was made since, or nothing.
    const last = entries.at(-1)?.cookie ?? 0n;
    expect(await bench.list(handle, last, 4096, "names")).toEqual([]);
    const page = await bench.lower.readdir(handle, 0n, 160, "entries");
    expect(page.entries.length).toBe(1);
    expect(await errnoOf(() => bench.lower.readdir(handle, 0n, 8, "entries"))).toBe(E.EINVAL);
    bench.lower.close(handle);
  });

  it("makes links, symbolic links of 4095 bytes, devices, FIFOs and sockets, and opens none of them", async () => {
    const { dir, path } = await bench.place();
    const { entry, handle } = await bench.file(dir, "f");
    expect((await bench.lower.link(entry.id, dir, bytes("g"))).nlink).toBe(2);
    expect((await bench.lower.lookup(dir, bytes("g"))).id).toEqual(entry.id);
    expect(await errnoOf(() => bench.lower.link(entry.id, dir, bytes("g")))).toBe(E.EEXIST);
    const target = Buffer.alloc(4095, 0x61);
    const longest = fs.statfsSync(bench.fixture.path).type === XFS ? 1023 : 4095;
    const link = await bench.lower.symlink(dir, bytes("l"), target.subarray(0, longest), root);
    expect(Buffer.from(await bench.lower.readlink(link.id)).equals(target.subarray(0, longest))).toBe(true);
    expect(fs.readlinkSync(`${path}/l`).length).toBe(longest);
    expect(await errnoOf(() => bench.lower.symlink(dir, bytes("m"), Buffer.alloc(4096, 0x61), root))).toBe(E.ENAMETOOLONG);
    const device = await bench.lower.mknod(dir, bytes("null"), 0o020666, 1, 3, root);
    expect(device.attr).toMatchObject({ mode: 0o020644, rdevMajor: 1, rdevMinor: 3 });
    const fifo = await bench.lower.mknod(dir, bytes("fifo"), 0o010600, 0, 0, root);
    const socket = await bench.lower.mknod(dir, bytes("socket"), 0o140600, 0, 0, root);
    for (const other of [device, fifo, socket, link]) expect(await errnoOf(() => bench.lower.open(other.id, 0))).toBe(E.EINVAL);
    expect(await errnoOf(() => bench.lower.open(dir, 0))).toBe(E.EISDIR);
    expect(await errnoOf(() => bench.lower.opendir(entry.id))).toBe(E.ENOTDIR);
    expect((await bench.lower.setattr(fifo.id, { mode: 0o640, mtime: { sec: 1, nsec: 2 } }, null)).mode).toBe(0o010640);
    expect(await errnoOf(() => bench.lower.lookup(entry.id, bytes("x")))).toBe(E.ENOTDIR);
    bench.lower.close(handle);
  });
}
