/** Hazard R19: by its number nothing outside of a lower directory is reached, nor what another program has moved or bound there. */
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { HANDLE_BUFFER_BYTES, type Native, nativeAddon, STAT } from "../../../native/index.ts";
import { DirectoryTree } from "../../../overlay/lower/local/containment.ts";
import { fileHandleFormat } from "../../../overlay/lower/local/file-handle.ts";
import { createLocalLower, type LocalLower } from "../../../overlay/lower/local/local.ts";
import type { FileId } from "../../../overlay/lower/lower.ts";
import { idOf as idOfFile } from "./id-of.ts";
import { directoryPlace, type Place } from "../../compliance/lower-fixture.ts";

const native = nativeAddon();
const WALK_AGAIN_MS = 5000;
const caller = { uid: 0, gid: 0, umask: 0, pid: 1 } as never;
let place: Place;
let inside: string;
let rootFd: number;
let lower: LocalLower;
let walks: number;

/** Counts how often a directory is opened to be read as a whole: the walk. */
function counting(): Native {
  const getdents = (fd: number, buffer: Buffer): Promise<number> => {
    walks += 1;
    return native.pool.metadata.getdents(fd, buffer);
  };
  return { ...native, pool: { ...native.pool, metadata: { ...native.pool.metadata, getdents } } };
}

const idOf = (file: string): FileId => idOfFile(file, "tmpfs");

const ended = async (work: () => unknown): Promise<string> => {
  try {
    await work();
    return "none";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error);
  }
};

beforeEach(() => {
  place = directoryPlace();
  inside = path.join(place.path, "inside");
  fs.mkdirSync(path.join(inside, "d/e"), { recursive: true });
  fs.mkdirSync(path.join(place.path, "outside/deep"), { recursive: true });
  fs.writeFileSync(path.join(place.path, "outside/secret"), "secret");
  fs.writeFileSync(path.join(inside, "d/f"), "f");
  rootFd = native.open(inside, 0o200000, 0);
  walks = 0;
  lower = createLocalLower({ native: counting(), rootFd, contained: true, metadataCalls: "inline", log: silentLog });
});

afterEach(async () => {
  await lower.shutdown();
  fs.closeSync(rootFd);
  await place.release();
});

it("refuses a file and a directory of the same file system that lie outside, in every call, and walks over the tree once", async () => {
  const [secret, outside] = [idOf(path.join(place.path, "outside/secret")), idOf(path.join(place.path, "outside"))];
  const name = Buffer.from("secret");
  const calls: readonly (() => unknown)[] = [
    () => lower.getattr(secret),
    () => lower.open(secret, 0),
    () => lower.setattr(secret, { size: 0 }, null),
    () => lower.setattr(secret, { mode: 0o777 }, null),
    () => lower.getxattr(secret, Buffer.from("user.x")),
    () => lower.setxattr(secret, Buffer.from("user.x"), Buffer.from("1"), 0),
    () => lower.link(secret, lower.root, Buffer.from("stolen")),
    () => lower.getattr(outside),
    () => lower.lookup(outside, name),
    () => lower.opendir(outside),
    () => lower.unlink(outside, name, secret),
    () => lower.mkdir(outside, Buffer.from("made"), 0o755, caller),
    () => lower.rename(outside, name, lower.root, Buffer.from("stolen"), 0, secret, null),
  ];
  expect(await ended(calls[0] as () => unknown)).toBe("ESTALE");
  const first = walks;
  expect(first).toBeGreaterThan(0);
  for (const call of calls) expect([String(call), await ended(call)]).toEqual([String(call), "ESTALE"]);
  expect(await lower.getattrMany([secret])).toEqual([null]);
  expect(walks).toBe(first);
  expect(fs.readFileSync(path.join(place.path, "outside/secret"), "utf8")).toBe("secret");
});

it("opens by number what lies in it, though nobody has looked it up since this owner began", async () => {
  const [file, directory] = [idOf(path.join(inside, "d/f")), idOf(path.join(inside, "d/e"))];
  expect((await lower.getattr(file)).size).toBe(1);
  expect((await lower.getattr(directory)).ino).toBe(directory.ino);
  lower.close(await lower.open(file, 0));
  expect(await ended(() => lower.lookup(directory, Buffer.from("none")))).toBe("ENOENT");
});

it("lets go of a directory that another program moves out of the tree, its descriptor included", async () => {
  const { id } = await lower.lookup(lower.root, Buffer.from("d"));
  const below = (await lower.lookup(id, Buffer.from("e"))).id;
  expect(await ended(() => lower.lookup(below, Buffer.from("none")))).toBe("ENOENT");
  const open = await lower.opendir(id);
  const list = (): Promise<unknown> => Promise.resolve(lower.readdir(open, 0n, 4096, "names"));
  expect(await ended(list)).toBe("none");
  fs.renameSync(path.join(inside, "d"), path.join(place.path, "outside/d"));
  for (const one of [id, below]) {
    expect(await ended(() => lower.lookup(one, Buffer.from("f")))).toBe("ESTALE");
    expect(await ended(() => lower.opendir(one))).toBe("ESTALE");
    expect(await ended(() => lower.mkdir(one, Buffer.from("made"), 0o755, caller))).toBe("ESTALE");
    expect(await ended(() => lower.getattr(one))).toBe("ESTALE");
  }
  expect(await ended(list)).toBe("ESTALE");
  lower.close(open);
});

it("keeps nothing for questions about what is not there, once the walk is over", async () => {
  const handle = Buffer.alloc(HANDLE_BUFFER_BYTES);
  native.sync.handleOf(rootFd, handle);
  const tree = new DirectoryTree({ native, root: lower.root, rootFd, format: fileHandleFormat(handle, "tmpfs"), log: silentLog });
  const gone = { ino: 123_456_789, generation: 5 };
  expect(await ended(() => tree.prove(gone))).toBe("ESTALE");
  const rests = Array.from({ length: 100 }, () => ended(() => tree.prove(gone)));
  expect(new Set(await Promise.all(rests))).toEqual(new Set(["ESTALE"]));
  expect(tree.waitingCount).toBe(0);
  tree.note(gone);
  expect(await ended(() => tree.prove(gone))).toBe("none");
});

it("goes by no symbolic link, and into nothing that is bound there: a file and a directory of the same file system", async () => {
  fs.symlinkSync("../outside/secret", path.join(inside, "link"));
  const { attr } = await lower.lookup(lower.root, Buffer.from("link"));
  expect(attr.mode & 0o170000).toBe(0o120000);
  const bound = [
    ["outside/secret", path.join(inside, "d/f")],
    ["outside", path.join(inside, "d/e")],
  ] as const;
  const d = (await lower.lookup(lower.root, Buffer.from("d"))).id;
  for (const [from, to] of bound) execFileSync("mount", ["--bind", path.join(place.path, from), to]);
  try {
    for (const name of ["f", "e"]) expect(await ended(() => lower.lookup(d, Buffer.from(name)))).toBe("EXDEV");
  } finally {
    for (const [, to] of bound) execFileSync("umount", [to]);
  }
});

it("forgets the oldest of too many, and then says ESTALE until a name was looked up again", async () => {
  for (let n = 0; n < 8; n += 1) fs.writeFileSync(path.join(inside, `f${n}`), "");
  const handle = Buffer.alloc(HANDLE_BUFFER_BYTES);
  native.sync.handleOf(rootFd, handle);
  const format = fileHandleFormat(handle, "tmpfs");
  expect(native.sync.stat(rootFd, new Float64Array(STAT.FIELDS))).toBe(0);
  const tree = new DirectoryTree({ native, root: format.decode(handle), rootFd, format, log: silentLog, limit: 3 });
  const ids = Array.from({ length: 8 }, (_, n) => idOf(path.join(inside, `f${n}`)));
  const known = async (): Promise<number> =>
    (await Promise.all(ids.map((id) => ended(() => tree.prove(id))))).filter((how) => how === "none").length;
  // The walk is over then.
  expect(await ended(() => tree.prove({ ino: 1, generation: 99 }))).toBe("ESTALE");
  expect(await known()).toBeLessThan(8);
  const lost = ids[(await Promise.all(ids.map((id) => ended(() => tree.prove(id))))).indexOf("ESTALE")] as FileId;
  tree.note(lost);
  expect(await ended(() => tree.prove(lost))).toBe("none");
});

/** A tree whose calls go by `change` of the pool's. */
function treeWith(
  change: (calls: Native["pool"]["metadata"]) => Partial<Native["pool"]["metadata"]>,
  options: { readonly limit?: number; readonly nowMs?: () => number } = {},
): DirectoryTree {
  const handle = Buffer.alloc(HANDLE_BUFFER_BYTES);
  native.sync.handleOf(rootFd, handle);
  const format = fileHandleFormat(handle, "tmpfs");
  const calls = native.pool.metadata;
  const metadata = Object.assign(Object.create(calls) as typeof calls, change(calls));
  const pool = Object.assign(Object.create(native.pool) as typeof native.pool, { metadata });
  const slow = Object.assign(Object.create(native) as Native, { pool });
  return new DirectoryTree({
    native: slow,
    root: format.decode(handle),
    rootFd,
    format,
    log: silentLog,
    ...options,
  });
}

it("finds what is below a directory that moves, while the walk goes on, to where the walk has been", async () => {
  for (const dir of ["a", "b"]) fs.mkdirSync(path.join(inside, dir, "x/deep"), { recursive: true });
  let moved: string | null = null;
  const tree = treeWith((calls) => ({
    getdents: async (fd: number, buffer: Buffer): Promise<number> => {
      const bytes = await calls.getdents(fd, buffer);
      const [dir = ""] = /(?<=\/inside\/)[ab]$/.exec(fs.readlinkSync(`/proc/self/fd/${fd}`)) ?? [];
      if (bytes > 0 || dir === "" || moved !== null) return bytes;
      moved = path.join(inside, dir, "moved");
      fs.renameSync(path.join(inside, dir === "a" ? "b" : "a", "x"), moved);
      // As the lower does after its rename.
      tree.note(idOf(moved));
      return bytes;
    },
  }));
  await ended(() => tree.prove({ ino: 1, generation: 99 }));
  expect(moved).not.toBeNull();
  expect(await ended(() => tree.prove(idOf(path.join(String(moved), "deep"))))).toBe("none");
});

it("walks again WALK_AGAIN_MS after an error has kept it from a part of the tree, and not where a part is only gone", async () => {
  let [opens, fails, nowMs] = [0, true, 1_000];
  const tree = treeWith(
    (calls) => ({
      openByHandle: (from: number, handle: Buffer, flags: number) => {
        opens += 1;
        return fails ? Promise.resolve(-24) : calls.openByHandle(from, handle, flags);
      },
    }),
    { nowMs: () => nowMs },
  );
  const file = idOf(path.join(inside, "d/f"));
  expect([await ended(() => tree.prove(file)), opens]).toEqual(["ESTALE", 1]);
  fails = false;
  nowMs += WALK_AGAIN_MS - 1;
  expect([await ended(() => tree.prove(file)), opens]).toEqual(["ESTALE", 1]);
  nowMs += 1;
  expect(await ended(() => tree.prove(file))).toBe("none");
  const secret = idOf(path.join(place.path, "outside/secret"));
  expect(await ended(() => tree.prove(secret))).toBe("ESTALE");
  const whole = opens;
  nowMs += WALK_AGAIN_MS;
  expect([await ended(() => tree.prove(secret)), opens]).toEqual(["ESTALE", whole]);
});

it("goes on with what is looked up by its name while the walk goes on", async () => {
  let readDirectory = (): void => undefined;
  const held = new Promise<void>((resolve) => (readDirectory = resolve));
  const tree = treeWith((calls) => ({
    getdents: async (fd: number, buffer: Buffer): Promise<number> => {
      await held;
      return calls.getdents(fd, buffer);
    },
  }));
  const [file, other] = [idOf(path.join(inside, "d/f")), idOf(path.join(inside, "d/e"))];
  let isOtherProved = false;
  const waiting = [ended(() => tree.prove(file)), ended(() => tree.prove(file))];
  const last = ended(() => tree.prove(other)).then((how) => {
    isOtherProved = true;
    return how;
  });
  tree.note(file);
  expect(await Promise.all(waiting)).toEqual(["none", "none"]);
  expect(isOtherProved).toBe(false);
  readDirectory();
  expect(await last).toBe("none");
});

it("reads no more of a large directory than its limit", async () => {
  for (let n = 0; n < 3000; n += 1) fs.writeFileSync(path.join(inside, `a rather long name of a file, number ${n}`), "");
  let looks = 0;
  const tree = treeWith(
    (calls) => ({
      lookup: (...args: Parameters<typeof calls.lookup>) => {
        looks += 1;
        return calls.lookup(...args);
      },
    }),
    { limit: 10 },
  );
  expect(await ended(() => tree.prove({ ino: 1, generation: 99 }))).toBe("ESTALE");
  expect(looks).toBeGreaterThan(10);
  // What one call of getdents(2) brings is looked at.
  expect(looks).toBeLessThan(1500);
});

it("does not forget what is in use, though only new names are looked up", () => {
  for (let n = 0; n < 8; n += 1) fs.writeFileSync(path.join(inside, `f${n}`), "");
  const [used, ...others] = Array.from({ length: 8 }, (_, n) => idOf(path.join(inside, `f${n}`))) as [FileId, ...FileId[]];
  const tree = treeWith(() => ({}), { limit: 2 });
  tree.note(used);
  for (const other of others) {
    tree.note(other);
    expect(tree.prove(used)).toBeUndefined();
  }
});
