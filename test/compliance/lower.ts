/** What every lower does, local or remote, on any file system; compared with what node:fs sees directly. */
import fs from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { E, Errno } from "../../dlmd/base/errno.ts";
import type { Attr, Caller, DirEntry, Entry, FileId, Listing, Lower, LowerHandle, Maybe } from "../../overlay/lower/lower.ts";
import type { Fixture } from "./lower-fixture.ts";

const root: Caller = { uid: 0, gid: 0, umask: 0o022 };
const nobody: Caller = { uid: 65_534, gid: 65_533, umask: 0o027 };
const RDWR = 2;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const XFS = 0x58465342;
const bytes = (text: string): Buffer => Buffer.from(text);

/** The errno that `call` ends with, thrown at once or later; 0 if it succeeds. */
async function errnoOf(call: () => Maybe<unknown>): Promise<number> {
  try {
    await call();
    return 0;
  } catch (error) {
    if (error instanceof Errno) return error.errno;
    throw error;
  }
}

export function lowerCompliance(title: string, make: () => Promise<Fixture>): void {
  // oxlint-disable-next-line vitest/valid-title -- the title comes with the lower
  describe(title, () => {
    let fixture: Fixture;
    let lower: Lower;
    let count = 0;
    beforeAll(async () => {
      fixture = await make();
      lower = fixture.lower;
    });
    afterAll(async () => await fixture?.release());

    /** A directory of its own for a test, and the path that node:fs has for it. */
    async function place(): Promise<{ dir: FileId; path: string }> {
      count += 1;
      const entry = await lower.mkdir(lower.root, bytes(`t${count}`), 0o755, root);
      return { dir: entry.id, path: `${fixture.path}/t${count}` };
    }
    async function file(dir: FileId, name: string, content = "", mode = 0o644): Promise<{ entry: Entry; handle: LowerHandle }> {
      const made = await lower.create(dir, bytes(name), RDWR, mode, root);
      if (content !== "") await lower.write(made.handle, bytes(content), 0, false);
      return made;
    }
    async function text(handle: LowerHandle, offset = 0, length = 65_536): Promise<string> {
      return Buffer.from(await lower.read(handle, offset, length)).toString("latin1");
    }
    async function list(handle: LowerHandle, cookie: bigint, size: number, listing: Listing): Promise<DirEntry[]> {
      const all: DirEntry[] = [];
      for (let at = cookie; ; ) {
        const page = await lower.readdir(handle, at, size, listing);
        all.push(...page.entries);
        if (page.end) return all;
        at = page.entries.at(-1)?.cookie ?? at;
      }
    }
    /** It is kept for a moment after its removal, but no longer than the next syncfs; and nobody waits for a close, so the last one may still be under way. */
    async function expectGone(id: FileId): Promise<void> {
      let errno = 0;
      for (let round = 0; round < 1000 && errno === 0; round += 1) {
        await lower.syncfs();
        errno = await errnoOf(() => lower.readlink(id));
        if (errno === E.EINVAL || errno === E.ENOENT) errno = 0;
      }
      expect(errno).toBe(E.ESTALE);
    }
    function expectSame(attr: Attr, path: string): void {
      const stat = fs.lstatSync(path, { bigint: true });
      expect(attr).toMatchObject({
        ino: Number(stat.ino),
        mode: Number(stat.mode),
        nlink: Number(stat.nlink),
        uid: Number(stat.uid),
        gid: Number(stat.gid),
        size: Number(stat.size),
        blocks: Number(stat.blocks),
      });
      expect(BigInt(attr.mtimeSec) * 1_000_000_000n + BigInt(attr.mtimeNsec)).toBe(stat.mtimeNs);
      expect(BigInt(attr.ctimeSec) * 1_000_000_000n + BigInt(attr.ctimeNsec)).toBe(stat.ctimeNs);
      expect(BigInt(attr.atimeSec) * 1_000_000_000n + BigInt(attr.atimeNsec)).toBe(stat.atimeNs);
    }

    it("creates, writes, reads and looks up", async () => {
      const { dir, path } = await place();
      const { entry, handle } = await file(dir, "f", "hello");
      expect(fs.readFileSync(`${path}/f`, "utf8")).toBe("hello");
      expect(await text(handle)).toBe("hello");
      expect(await text(handle, 4)).toBe("o");
      expect(await text(handle, 5)).toBe("");
      const found = await lower.lookup(dir, bytes("f"));
      expect(found.id).toEqual(entry.id);
      expectSame(found.attr, `${path}/f`);
      expectSame(await lower.getattr(entry.id), `${path}/f`);
      expect(await errnoOf(() => lower.lookup(dir, bytes("nothing")))).toBe(E.ENOENT);
      expect(await errnoOf(() => lower.create(dir, bytes("f"), RDWR, 0o644, root))).toBe(E.EEXIST);
      lower.close(handle);
      expect(await errnoOf(() => lower.read(handle, 0, 1))).toBe(E.EBADF);
    });

    it("gives what is created to its caller, less the umask, whatever the directory allows", async () => {
      const { dir, path } = await place();
      const made = await lower.create(dir, bytes("f"), RDWR, 0o666, nobody);
      lower.close(made.handle);
      expect(fs.statSync(`${path}/f`)).toMatchObject({ uid: 65_534, gid: 65_533, mode: 0o100640 });
      await lower.mkdir(dir, bytes("d"), 0o777, nobody);
      expect(fs.statSync(`${path}/d`)).toMatchObject({ uid: 65_534, gid: 65_533, mode: 0o040750 });
      await lower.symlink(dir, bytes("l"), bytes("x"), nobody);
      expect(fs.lstatSync(`${path}/l`)).toMatchObject({ uid: 65_534, gid: 65_533 });
    });

    it("appends at the true end and tells where", async () => {
      const { dir, path } = await place();
      const { handle } = await file(dir, "f", "abc");
      expect(await lower.write(handle, bytes("de"), 0, true)).toEqual({ offset: 3, bytes: 2 });
      fs.appendFileSync(`${path}/f`, "fgh");
      expect(await lower.write(handle, bytes("i"), 0, true)).toEqual({ offset: 8, bytes: 1 });
      expect(await text(handle)).toBe("abcdefghi");
      lower.close(handle);
    });

    it("moves a megabyte in one call, and reads what is cached only in part", async () => {
      const { dir, path } = await place();
      const { entry, handle } = await file(dir, "f");
      const data = Buffer.alloc(1024 * 1024);
      for (let at = 0; at < data.length; at += 4) data.writeUInt32LE(at, at);
      expect(await lower.write(handle, data, 4096, false)).toEqual({ offset: 4096, bytes: data.length });
      await lower.fsync(handle, false);
      fs.closeSync(fs.openSync(`${path}/f`, "r"));
      const reader = await lower.open(entry.id, 0);
      expect(Buffer.from(await lower.read(reader, 4096, data.length)).equals(data)).toBe(true);
      expect(Buffer.from(await lower.read(reader, 0, 4096)).equals(Buffer.alloc(4096))).toBe(true);
      expect((await lower.read(reader, data.length, 8192)).byteLength).toBe(4096);
      expect(await errnoOf(() => lower.write(reader, bytes("x"), 0, false))).toBe(E.EBADF);
      lower.close(handle);
      lower.close(reader);
    });

    it("keeps names as bytes: 255 of them, none that is UTF-8", async () => {
      const { dir, path } = await place();
      const long = Buffer.alloc(255, 0x78);
      await lower.mkdir(dir, long, 0o755, root);
      expect((await lower.lookup(dir, long)).attr.mode & 0o170000).toBe(0o040000);
      expect(await errnoOf(() => lower.lookup(dir, Buffer.alloc(256, 0x78)))).toBe(E.ENAMETOOLONG);
      expect(await errnoOf(() => lower.mkdir(dir, Buffer.alloc(256, 0x78), 0o755, root))).toBe(E.ENAMETOOLONG);
      const wild = Buffer.from([0xff, 0xfe, 0x80, 0x0a, 0x20]);
      await lower.mkdir(dir, wild, 0o755, root);
      expect(fs.readdirSync(path, { encoding: "buffer" }).some((name) => name.equals(wild))).toBe(true);
      const handle = await lower.opendir(dir);
      expect((await list(handle, 0n, 4096, "plain")).some((entry) => entry.name.equals(wild))).toBe(true);
      lower.close(handle);
      for (const bad of ["", ".", "..", "a/b", "a\0b"]) expect(await errnoOf(() => lower.lookup(dir, bytes(bad)))).toBe(E.EINVAL);
    });

    it("removes a name only if it is what is expected", async () => {
      const { dir } = await place();
      const one = await file(dir, "one");
      const two = await file(dir, "two");
      expect(await errnoOf(() => lower.unlink(dir, bytes("one"), two.entry.id))).toBe(E.ESTALE);
      expect(await errnoOf(() => lower.unlink(dir, bytes("none"), two.entry.id))).toBe(E.ENOENT);
      const sub = await lower.mkdir(dir, bytes("sub"), 0o755, root);
      expect(await errnoOf(() => lower.rmdir(dir, bytes("sub"), one.entry.id))).toBe(E.ESTALE);
      expect(await errnoOf(() => lower.unlink(dir, bytes("sub"), sub.id))).toBe(E.EISDIR);
      await lower.mkdir(sub.id, bytes("inner"), 0o755, root);
      expect(await errnoOf(() => lower.rmdir(dir, bytes("sub"), sub.id))).toBe(E.ENOTEMPTY);
      await lower.unlink(dir, bytes("one"), one.entry.id);
      expect(await errnoOf(() => lower.lookup(dir, bytes("one")))).toBe(E.ENOENT);
      lower.close(one.handle);
      lower.close(two.handle);
    });

    it("renames, replaces, refuses to replace, exchanges; each only if both names are what is expected", async () => {
      const { dir, path } = await place();
      const sub = (await lower.mkdir(dir, bytes("sub"), 0o755, root)).id;
      const a = await file(dir, "a", "A");
      const b = await file(sub, "b", "B");
      const [idA, idB] = [a.entry.id, b.entry.id];
      const rename = (flags: number, expectedOld: FileId, expectedNew: FileId | null): Promise<number> =>
        errnoOf(() => lower.rename(dir, bytes("a"), sub, bytes("b"), flags, expectedOld, expectedNew));
      expect(await rename(0, idB, idB)).toBe(E.ESTALE);
      expect(await rename(0, idA, null)).toBe(E.ESTALE);
      expect(await rename(0, idA, idA)).toBe(E.ESTALE);
      expect(await rename(1, idA, idB)).toBe(E.EEXIST);
      expect(await rename(2, idA, idB)).toBe(0);
      expect(fs.readFileSync(`${path}/a`, "utf8")).toBe("B");
      expect(await rename(0, idB, idA)).toBe(0);
      expect(fs.readFileSync(`${path}/sub/b`, "utf8")).toBe("B");
      expect(await text(a.handle)).toBe("A");
      expect(await errnoOf(() => lower.rename(sub, bytes("b"), dir, bytes("c"), 1, idB, null))).toBe(0);
      expect(await errnoOf(() => lower.rename(dir, bytes("sub"), sub, bytes("x"), 0, sub, null))).toBe(E.EINVAL);
      lower.close(a.handle);
      lower.close(b.handle);
    });

    it("knows a removed inode from the one that has its number now", async () => {
      const { dir } = await place();
      const seen = new Map<number, FileId>();
      const answers = new Set<number>();
      const remembered = new Set<number>();
      let reused = 0;
      // XFS frees inodes in the background, so their numbers come again when they do.
      for (let round = 0; round < 64 || (fixture.alone && reused === 0 && round < 10_000); round += 1) {
        const { entry, handle } = await file(dir, "f");
        lower.close(handle);
        const old = seen.get(entry.id.ino);
        if (old !== undefined) {
          reused += 1;
          answers.add(await errnoOf(() => lower.open(old, 0)));
          // It is remembered until another of that number is removed.
          remembered.add((await lower.getattr(old)).nlink);
        }
        seen.set(entry.id.ino, entry.id);
        expect((await lower.getattrMany([entry.id, lower.root])).map((attr) => attr?.ino)).toEqual([entry.id.ino, lower.root.ino]);
        await lower.unlink(dir, bytes("f"), entry.id);
        await expectGone(entry.id);
        expect((await lower.getattrMany([entry.id])).map((attr) => attr?.nlink)).toEqual([0]);
        expect(await lower.getattrMany([{ ino: entry.id.ino, generation: (entry.id.generation ^ 1) >>> 0 }])).toEqual([null]);
      }
      expect(reused > 0 || !fixture.alone).toBe(true);
      expect([...answers]).toEqual(reused > 0 ? [E.ESTALE] : []);
      expect([...remembered]).toEqual(reused > 0 ? [0] : []);
    });

    it("keeps a file without a name until its last close", async () => {
      const { dir } = await place();
      const { entry, handle } = await file(dir, "f", "still here");
      await lower.unlink(dir, bytes("f"), entry.id);
      expect((await lower.getattr(entry.id)).nlink).toBe(0);
      await lower.write(handle, bytes("!"), 10, false);
      const second = await lower.open(entry.id, 0);
      lower.close(handle);
      expect(await text(second)).toBe("still here!");
      lower.close(second);
      await expectGone(entry.id);
      expect(await errnoOf(() => lower.open(entry.id, 0))).toBe(E.ESTALE);
    });

    it("lets those go on for a moment who have looked up what was removed or replaced since", async () => {
      const { dir } = await place();
      const removed = await file(dir, "removed", "content");
      const replaced = await file(dir, "replaced", "before");
      const other = await file(dir, "other", "after");
      for (const { handle } of [removed, replaced, other]) lower.close(handle);
      const link = await lower.symlink(dir, bytes("link"), bytes("target"), root);
      const sub = await lower.mkdir(dir, bytes("sub"), 0o750, root);
      await lower.unlink(dir, bytes("removed"), removed.entry.id);
      await lower.rename(dir, bytes("other"), dir, bytes("replaced"), 0, other.entry.id, replaced.entry.id);
      await lower.unlink(dir, bytes("link"), link.id);
      await lower.rmdir(dir, bytes("sub"), sub.id);

      for (const [{ entry }, content] of [
        [removed, "content"],
        [replaced, "before"],
      ] as const) {
        const handle = await lower.open(entry.id, RDWR);
        expect(await text(handle)).toBe(content);
        expect(await lower.setattr(entry.id, { mode: 0o600 }, null)).toMatchObject({ nlink: 0, size: content.length });
        expect(await errnoOf(() => lower.link(entry.id, dir, bytes("again")))).toBe(E.ENOENT);
        lower.close(handle);
      }
      expect((await lower.readlink(link.id)).toString()).toBe("target");
      const listing = await lower.opendir(sub.id);
      expect(await errnoOf(() => lower.readdir(listing, 0n, 4096, "plain"))).toBe(E.ENOENT);
      lower.close(listing);

      for (const { id } of [removed.entry, replaced.entry, link, sub]) {
        await expectGone(id);
        expect((await lower.getattr(id)).nlink).toBe(0);
      }
      // What was only renamed is none of these.
      expect((await lower.getattr(other.entry.id)).nlink).toBe(1);
    });

    it("does not keep a removed directory alive", async () => {
      const { dir } = await place();
      const sub = (await lower.mkdir(dir, bytes("sub"), 0o755, root)).id;
      await lower.mkdir(sub, bytes("x"), 0o755, root);
      const x = await lower.lookup(sub, bytes("x"));
      await lower.rmdir(sub, bytes("x"), x.id);
      await lower.rmdir(dir, bytes("sub"), sub);
      expect(await errnoOf(() => lower.lookup(sub, bytes("x")))).toBe(E.ESTALE);
      expect(await errnoOf(() => lower.mkdir(sub, bytes("x"), 0o755, root))).toBe(E.ESTALE);
      await expectGone(sub);
      expect(await errnoOf(() => lower.opendir(sub))).toBe(E.ESTALE);
    });

    it("lists 10,000 names, each once, resumed anywhere", async () => {
      const { dir, path } = await place();
      for (let n = 0; n < 10_000; n += 1) fs.writeFileSync(`${path}/name-${n}`, "");
      const handle = await lower.opendir(dir);
      const all = await list(handle, 0n, 65_536, "plain");
      const names = all.map((entry) => entry.name.toString());
      expect(new Set(names).size).toBe(10_002);
      expect(names.length).toBe(10_002);
      expect([...names].sort()).toEqual([".", "..", ...fs.readdirSync(path)].sort());
      for (const at of [5000, 1, 9999]) {
        const rest = await list(handle, all[at]?.cookie ?? 0n, 4096, "plain");
        expect(rest.map((entry) => entry.name.toString())).toEqual(names.slice(at + 1));
      }
      const again = await lower.opendir(dir);
      const half = await lower.readdir(again, all[4999]?.cookie ?? 0n, 8192, "entries");
      expect(half.entries.map((entry) => entry.name.toString())).toEqual(names.slice(5000, 5000 + half.entries.length));
      for (const entry of half.entries) expect(entry.entry?.attr.ino).toBe(entry.ino);
      lower.close(handle);
      lower.close(again);
    });

    it("looks many names of a directory up at once, none for those that are not there", async () => {
      const { dir, path } = await place();
      const { handle, entry } = await file(dir, "f", "12345");
      lower.close(handle);
      const [missing, found] = await lower.lookupMany(dir, [bytes("none"), bytes("f")]);
      expect([missing, found?.id]).toEqual([null, entry.id]);
      if (found !== undefined && found !== null) expectSame(found.attr, `${path}/f`);
      expect(await errnoOf(() => lower.lookupMany(dir, [bytes("f"), bytes("..")]))).toBe(E.EINVAL);
      expect(
        await errnoOf(() =>
          lower.lookupMany(
            dir,
            Array.from({ length: 1025 }, () => bytes("f")),
          ),
        ),
      ).toBe(E.E2BIG);
      await lower.unlink(dir, bytes("f"), entry.id);
      await lower.rmdir(lower.root, bytes(path.slice(path.lastIndexOf("/") + 1)), dir);
      expect(await errnoOf(() => lower.lookupMany(dir, [bytes("f")]))).toBe(E.ESTALE);
    });

    it("lists with attributes, dots without, as many as fit", async () => {
      const { dir, path } = await place();
      const { handle: open, entry: made } = await file(dir, "f", "12345");
      lower.close(open);
      const handle = await lower.opendir(dir);
      const entries = await list(handle, 0n, 4096, "entries");
      expect(entries.map((entry) => entry.name.toString()).sort()).toEqual([".", "..", "f"]);
      const f = entries.find((entry) => entry.name.equals(bytes("f")));
      expect(f?.entry?.id).toEqual(made.id);
      if (f?.entry !== undefined) expectSame(f.entry.attr, `${path}/f`);
      expect(f?.type).toBe(8);
      expect(entries.find((entry) => entry.name.equals(bytes(".")))?.entry).toBeUndefined();
      const names = await list(handle, 0n, 4096, "names");
      expect(names.map(({ name }) => name.toString()).sort()).toEqual([".", "..", "f"]);
      expect(names.every((one) => one.entry === undefined)).toBe(true);
      expect((await lower.readdir(handle, 0n, 160, "names")).entries.length).toBe(1);
      const page = await lower.readdir(handle, 0n, 160, "entries");
      expect(page.entries.length).toBe(1);
      expect(await errnoOf(() => lower.readdir(handle, 0n, 8, "entries"))).toBe(E.EINVAL);
      lower.close(handle);
    });

    it("changes attributes, times to the nanosecond", async () => {
      const { dir, path } = await place();
      const { entry, handle } = await file(dir, "f", "1234567890");
      const times = { atime: { sec: 1_000_000_000, nsec: 123_456_789 }, mtime: { sec: -5, nsec: 999_999_999 } };
      const attr = await lower.setattr(entry.id, { mode: 0o4750, uid: 7, gid: 8, size: 4, ...times }, null);
      expect(attr).toMatchObject({ mode: 0o104750, uid: 7, gid: 8, size: 4, atimeSec: 1_000_000_000, atimeNsec: 123_456_789 });
      expect(attr).toMatchObject({ mtimeSec: -5, mtimeNsec: 999_999_999 });
      expectSame(attr, `${path}/f`);
      const grown = await lower.setattr(entry.id, { size: 20, mtime: "now" }, handle);
      expect(grown.size).toBe(20);
      expect(grown.mtimeSec).toBeGreaterThan(1_600_000_000);
      expect(grown).toMatchObject({ atimeSec: 1_000_000_000, atimeNsec: 123_456_789 });
      expect(await errnoOf(() => lower.setattr(dir, { size: 0 }, null))).toBe(E.EISDIR);
      lower.close(handle);
    });

    it("clears set-user-id and set-group-id when asked to", async () => {
      const { dir, path } = await place();
      const { entry, handle } = await file(dir, "f", "x");
      fs.chmodSync(`${path}/f`, 0o6775);
      await lower.setattr(entry.id, { killSuidgid: true }, null);
      expect(fs.statSync(`${path}/f`).mode).toBe(0o100775);
      fs.chmodSync(`${path}/f`, 0o6765);
      const attr = await lower.setattr(entry.id, { size: 0, killSuidgid: true }, handle);
      // Set-group-id without group execute is mandatory locking, not a privilege.
      expect(attr.mode).toBe(0o102765);
      lower.close(handle);
    });

    it("makes links, symbolic links of 4095 bytes, devices, FIFOs and sockets, and opens none of them", async () => {
      const { dir, path } = await place();
      const { entry, handle } = await file(dir, "f");
      expect((await lower.link(entry.id, dir, bytes("g"))).nlink).toBe(2);
      expect((await lower.lookup(dir, bytes("g"))).id).toEqual(entry.id);
      expect(await errnoOf(() => lower.link(entry.id, dir, bytes("g")))).toBe(E.EEXIST);
      const target = Buffer.alloc(4095, 0x61);
      const longest = fs.statfsSync(fixture.path).type === XFS ? 1023 : 4095;
      const link = await lower.symlink(dir, bytes("l"), target.subarray(0, longest), root);
      expect(Buffer.from(await lower.readlink(link.id)).equals(target.subarray(0, longest))).toBe(true);
      expect(fs.readlinkSync(`${path}/l`).length).toBe(longest);
      expect(await errnoOf(() => lower.symlink(dir, bytes("m"), Buffer.alloc(4096, 0x61), root))).toBe(E.ENAMETOOLONG);
      const device = await lower.mknod(dir, bytes("null"), 0o020666, 1, 3, root);
      expect(device.attr).toMatchObject({ mode: 0o020644, rdevMajor: 1, rdevMinor: 3 });
      const fifo = await lower.mknod(dir, bytes("fifo"), 0o010600, 0, 0, root);
      const socket = await lower.mknod(dir, bytes("socket"), 0o140600, 0, 0, root);
      for (const other of [device, fifo, socket, link]) expect(await errnoOf(() => lower.open(other.id, 0))).toBe(E.EINVAL);
      expect(await errnoOf(() => lower.open(dir, 0))).toBe(E.EISDIR);
      expect(await errnoOf(() => lower.opendir(entry.id))).toBe(E.ENOTDIR);
      expect((await lower.setattr(fifo.id, { mode: 0o640, mtime: { sec: 1, nsec: 2 } }, null)).mode).toBe(0o010640);
      expect(await errnoOf(() => lower.lookup(entry.id, bytes("x")))).toBe(E.ENOTDIR);
      lower.close(handle);
    });

    it("finds holes and data, punches, preallocates, copies", async () => {
      const { dir } = await place();
      const { entry, handle } = await file(dir, "f");
      const block = Buffer.alloc(65_536, 1);
      await lower.write(handle, block, 1024 * 1024, false);
      expect(await lower.lseek(handle, 0, SEEK_DATA)).toBe(1024 * 1024);
      expect(await lower.lseek(handle, 1024 * 1024, SEEK_HOLE)).toBe(1024 * 1024 + 65_536);
      expect(await errnoOf(() => lower.lseek(handle, 2 * 1024 * 1024, SEEK_DATA))).toBe(E.ENXIO);
      expect(await errnoOf(() => lower.lseek(handle, 0, 0))).toBe(E.EINVAL);
      await lower.fallocate(handle, 3, 1024 * 1024, 4096);
      expect(Buffer.from(await lower.read(handle, 1024 * 1024, 4097)).equals(Buffer.concat([Buffer.alloc(4096), Buffer.alloc(1, 1)]))).toBe(
        true,
      );
      await lower.fallocate(handle, 1, 4 * 1024 * 1024, 65_536);
      expect((await lower.getattr(entry.id)).size).toBe(1024 * 1024 + 65_536);
      await lower.fallocate(handle, 0, 2 * 1024 * 1024, 65_536);
      expect((await lower.getattr(entry.id)).size).toBe(2 * 1024 * 1024 + 65_536);
      const copy = await file(dir, "copy");
      expect(await lower.copyFileRange(handle, 1024 * 1024, copy.handle, 10, 65_536)).toBe(65_536);
      expect((await lower.getattr(copy.entry.id)).size).toBe(65_546);
      expect(Buffer.from(await lower.read(copy.handle, 10 + 4096, 1)).equals(Buffer.alloc(1, 1))).toBe(true);
      lower.close(handle);
      lower.close(copy.handle);
    });

    it("answers offsets that no file has", async () => {
      const { dir } = await place();
      const { entry, handle } = await file(dir, "f", "x");
      const exbibyte = 2 ** 60;
      expect((await lower.read(handle, exbibyte, 4096)).byteLength).toBe(0);
      expect(await errnoOf(() => lower.write(handle, bytes("x"), exbibyte, false))).toBe(E.EFBIG);
      expect(await errnoOf(() => lower.setattr(entry.id, { size: exbibyte }, null))).toBe(E.EFBIG);
      expect(await errnoOf(() => lower.fallocate(handle, 0, exbibyte, 1))).toBe(E.EFBIG);
      expect(await errnoOf(() => lower.lseek(handle, exbibyte, SEEK_DATA))).toBe(E.ENXIO);
      expect(await errnoOf(() => lower.write(handle, bytes("x"), -1, false))).toBe(E.EINVAL);
      expect(await errnoOf(() => lower.read(handle, -1, 1))).toBe(E.EINVAL);
      expect(await lower.copyFileRange(handle, exbibyte, handle, 0, 10)).toBe(0);
      expect((await lower.getattr(entry.id)).size).toBe(1);
      lower.close(handle);
    });

    it("keeps extended attributes, and the clustered bit to itself", async () => {
      const { dir } = await place();
      const { entry, handle } = await file(dir, "f");
      const name = bytes("user.colour");
      expect(await errnoOf(() => lower.getxattr(entry.id, name))).toBe(E.ENODATA);
      await lower.setxattr(entry.id, name, bytes("red\0blue"), 1);
      expect(await errnoOf(() => lower.setxattr(entry.id, name, bytes("x"), 1))).toBe(E.EEXIST);
      await lower.setxattr(entry.id, bytes("trusted.t"), bytes("T"), 0);
      await lower.setxattr(entry.id, bytes("user.empty"), Buffer.alloc(0), 0);
      expect(Buffer.from(await lower.getxattr(entry.id, name)).toString("latin1")).toBe("red\0blue");
      expect((await lower.getxattr(entry.id, bytes("user.empty"))).length).toBe(0);
      const names = Buffer.from(await lower.listxattr(entry.id))
        .toString()
        .split("\0");
      expect(names).toEqual(expect.arrayContaining(["user.colour", "trusted.t", "user.empty"]));
      await lower.removexattr(entry.id, name);
      expect(await errnoOf(() => lower.removexattr(entry.id, name))).toBe(E.ENODATA);
      const bit = bytes("trusted.clustered");
      expect(await errnoOf(() => lower.setxattr(lower.root, bit, bytes("x"), 0))).toBe(E.EPERM);
      expect(await errnoOf(() => lower.removexattr(lower.root, bit))).toBe(E.EPERM);
      expect(await errnoOf(() => lower.getxattr(lower.root, bit))).toBe(E.ENODATA);
      expect(Buffer.from(await lower.listxattr(lower.root)).includes(bit)).toBe(false);
      lower.close(handle);
    });

    it("keeps POSIX ACLs, the inherited ones too", async () => {
      expect(lower.hasAcls).toBe(true);
      const { dir } = await place();
      const acl = Buffer.alloc(4 + 5 * 8);
      acl.writeUInt32LE(2, 0);
      const entries: [tag: number, perm: number, id: number][] = [
        [1, 7, 0xffff_ffff],
        [2, 6, 1234],
        [4, 5, 0xffff_ffff],
        [0x10, 7, 0xffff_ffff],
        [0x20, 0, 0xffff_ffff],
      ];
      entries.forEach(([tag, perm, id], at) => {
        acl.writeUInt16LE(tag, 4 + at * 8);
        acl.writeUInt16LE(perm, 6 + at * 8);
        acl.writeUInt32LE(id, 8 + at * 8);
      });
      await lower.setxattr(dir, bytes("system.posix_acl_default"), acl, 0);
      const made = await lower.create(dir, bytes("f"), RDWR, 0o666, root);
      lower.close(made.handle);
      // With a default ACL the umask takes no part (acl(5)): the mask is what mode and ACL share.
      expect(made.entry.attr.mode).toBe(0o100660);
      expect((await lower.getxattr(made.entry.id, bytes("system.posix_acl_access"))).length).toBe(acl.length);
    });

    it("tells how full it is", async () => {
      const stat = await lower.statfs();
      const seen = fs.statfsSync(fixture.path);
      expect(stat).toMatchObject({ blocks: seen.blocks, bsize: seen.bsize, namelen: 255 });
      expect(stat.bfree).toBeGreaterThan(0);
      expect(stat.bavail).toBeLessThanOrEqual(stat.bfree);
    });

    it("truncates at open when told so", async () => {
      const { dir } = await place();
      const { entry, handle } = await file(dir, "f", "long content");
      const again = await lower.open(entry.id, RDWR | 0o1000);
      expect((await lower.getattr(entry.id)).size).toBe(0);
      lower.close(again);
      lower.close(handle);
    });
  });
}

/** Until there is room for nothing more. */
function fill(file: string, data: Buffer): void {
  const fd = fs.openSync(file, "w");
  try {
    for (let bytesWanted = data.length; bytesWanted >= 512; ) {
      try {
        fs.writeSync(fd, data, 0, bytesWanted);
        fs.fsyncSync(fd);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
        bytesWanted /= 2;
      }
    }
  } finally {
    fs.closeSync(fd);
  }
}

/** A full disk is an answer, not an end. */
export function fullDiskCompliance(title: string, make: () => Promise<Fixture>): void {
  it(`${title}: ENOSPC, and everything else goes on`, async () => {
    const fixture = await make();
    try {
      const { lower } = fixture;
      const { entry, handle } = await lower.create(lower.root, bytes("big"), RDWR, 0o644, root);
      const data = Buffer.alloc(1024 * 1024, 1);
      let offset = 0;
      let errno = 0;
      while (errno === 0) {
        errno = await errnoOf(async () => {
          offset += (await lower.write(handle, data, offset, false)).bytes;
        });
      }
      expect(errno).toBe(E.ENOSPC);
      expect(await errnoOf(() => lower.fallocate(handle, 0, 0, 1024 ** 3))).toBe(E.ENOSPC);
      expect((await lower.read(handle, 0, 4096)).byteLength).toBe(4096);
      expect((await lower.getattr(entry.id)).size).toBeGreaterThan(0);
      await lower.unlink(lower.root, bytes("big"), entry.id);
      lower.close(handle);
      // The blocks are free once the close, which nobody waits for, is done.
      for (let round = 0; (await lower.statfs()).bfree * 4096 < 2 * data.length && round < 1000; round += 1) await lower.syncfs();
      const full = await lower.create(lower.root, bytes("full"), RDWR, 0o644, root);
      const small = await lower.create(lower.root, bytes("small"), RDWR, 0o644, root);
      expect(await lower.write(small.handle, data, 0, false)).toEqual({ offset: 0, bytes: data.length });
      await lower.fsync(small.handle, false);
      lower.close(small.handle);

      // The blocks of what was removed just now are free for whoever asks for them.
      fill(path.join(fixture.path, "again"), data);
      expect(await errnoOf(() => lower.write(full.handle, data, 0, false))).toBe(E.ENOSPC);
      const again = await lower.lookup(lower.root, bytes("again"));
      await lower.unlink(lower.root, bytes("again"), again.id);
      expect(await lower.write(full.handle, data, 0, false)).toEqual({ offset: 0, bytes: data.length });
      lower.close(full.handle);
    } finally {
      await fixture.release();
    }
  });
}

export function readOnlyCompliance(title: string, make: () => Promise<Fixture>): void {
  it(`${title}: read-only is EROFS`, async () => {
    const fixture = await make();
    try {
      const { lower } = fixture;
      const { id } = await lower.lookup(lower.root, bytes("f"));
      const handle = await lower.open(id, 0);
      expect(Buffer.from(await lower.read(handle, 0, 10)).toString()).toBe("content");
      lower.close(handle);
      expect(await errnoOf(() => lower.open(id, RDWR))).toBe(E.EROFS);
      expect(await errnoOf(() => lower.create(lower.root, bytes("g"), RDWR, 0o644, root))).toBe(E.EROFS);
      expect(await errnoOf(() => lower.mkdir(lower.root, bytes("d"), 0o755, root))).toBe(E.EROFS);
      expect(await errnoOf(() => lower.unlink(lower.root, bytes("f"), id))).toBe(E.EROFS);
      expect(await errnoOf(() => lower.setattr(id, { mode: 0o600 }, null))).toBe(E.EROFS);
      expect(await errnoOf(() => lower.setattr(id, { size: 0 }, null))).toBe(E.EROFS);
      expect(await errnoOf(() => lower.setxattr(id, bytes("user.x"), bytes("x"), 0))).toBe(E.EROFS);
    } finally {
      await fixture.release();
    }
  });
}
