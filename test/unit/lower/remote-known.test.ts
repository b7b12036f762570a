/** What a caller knows of inodes whose locks it has, over the real wire: what it need not ask the owner for (hazard F21). */
import { describe, expect, it } from "vitest";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { E, errnoError, isErrno } from "../../../dlmd/base/errno.ts";
import { MAX_READ_MANY } from "../../../overlay/lower/limits.ts";
import { ACCESS_ACL, DEFAULT_ACL } from "../../../overlay/lower/linux.ts";
import type { LocalLower } from "../../../overlay/lower/local/local.ts";
import type { Attr, Entry, FileId } from "../../../overlay/lower/lower.ts";
import type { Holds } from "../../../overlay/lower/remote/known.ts";
import type { RemoteLower } from "../../../overlay/lower/remote/remote.ts";
import { caller, name, RDWR, remoteLab, until } from "./remote-lab.ts";

const { owner, remote } = remoteLab();

/** All locks are here from the beginning. */
const every: Holds = { grants: () => 1, of: () => 1 };

const holding = (): RemoteLower => remote({}, undefined, { holds: every });

async function directoryOf(lower: RemoteLower, parent: FileId = lower.root, called = "d"): Promise<FileId> {
  const { id, attr } = await lower.mkdir(parent, name(called), 0o755, caller);
  lower.made(id, attr);
  return id;
}

/** The attributes, if nobody had to be asked. */
function knownAttr(lower: RemoteLower, id: FileId): Attr | null {
  const attr = lower.getattr(id);
  if (!(attr instanceof Promise)) return attr;
  attr.catch(() => undefined);
  return null;
}

it("the attributes of a directory come with the answer to each change of its names", async () => {
  const lower = holding();
  const other = remote({ clientId: 6 });
  const { address } = await owner();
  await lower.connect(address, 1);
  await other.connect(address, 1);
  const dir = await directoryOf(lower);
  const file = await lower.create(dir, name("f"), RDWR, 0o644, caller);
  const changes: Record<string, () => unknown> = {
    create: async () => lower.close((await lower.create(dir, name("g"), RDWR, 0o644, caller)).handle),
    mkdir: () => lower.mkdir(dir, name("sub"), 0o755, caller),
    mknod: () => lower.mknod(dir, name("fifo"), 0o010644, 0, 0, caller),
    symlink: () => lower.symlink(dir, name("link"), Buffer.from("f"), caller),
    link: () => lower.link(file.entry.id, dir, name("hard")),
    unlink: () => lower.unlink(dir, name("hard"), file.entry.id),
    rmdir: async () => lower.rmdir(dir, name("sub"), (await lower.lookup(dir, name("sub"))).id),
  };
  for (const [what, change] of Object.entries(changes)) {
    await change();
    expect([what, knownAttr(lower, dir)]).toEqual([what, await other.getattr(dir)]);
  }
  for (const gone of ["hard", "sub", "never"]) expect([gone, lower.isAbsent(dir, name(gone))]).toEqual([gone, true]);
  expect(() => lower.lookup(dir, name("hard"))).toThrow("ENOENT");
});

/** u::rwx u:1000:rwx g::- m::rwx o::- (acl(5), linux/posix_acl_xattr.h). */
const ACL = Buffer.from("0200000001000700ffffffff02000700e803000004000000ffffffff10000700ffffffff20000000ffffffff", "hex");

/** What getxattr says of a name, and in how many trips. */
async function foundXattr(lower: RemoteLower, id: FileId, called: Buffer = ACCESS_ACL): Promise<[string, number]> {
  const before = lower.counters.roundTrips;
  let found: string;
  try {
    found = (await lower.getxattr(id, called)).toString("hex");
  } catch (error) {
    found = String((error as { code?: string }).code);
  }
  return [found, lower.counters.roundTrips - before];
}

it("an access ACL is asked for once, and the owner says with others' attributes which extended attributes they have", async () => {
  const lower = holding();
  const other = remote({ clientId: 6 });
  const { address } = await owner();
  await lower.connect(address, 1);
  await other.connect(address, 1);
  const make = async (called: string, mode = 0o100644): Promise<FileId> =>
    (await other.mknod(other.root, name(called), mode, 0, 0, caller)).id;
  const [before, open, many] = [await make("before"), await make("open"), await make("many")];
  await other.setxattr(open, ACCESS_ACL, ACL, 0);
  await lower.getattr(before);
  expect(await foundXattr(lower, before)).toEqual(["ENODATA", 1]);
  expect(await foundXattr(lower, before)).toEqual(["ENODATA", 0]);
  expect(await foundXattr(lower, open)).toEqual([ACL.toString("hex"), 1]);
  expect(await foundXattr(lower, open)).toEqual([ACL.toString("hex"), 0]);
  // From now on the owner has been asked for one.
  const brought: Record<string, (id: FileId, called: string) => unknown> = {
    lookup: (_, called) => lower.lookup(lower.root, name(called)),
    lookupMany: (_, called) => lower.lookupMany(lower.root, [name(called)]),
    getattr: (id) => lower.getattr(id),
    getattrMany: (id) => lower.getattrMany([id]),
  };
  for (const [how, bring] of Object.entries(brought)) {
    const id = await make(how);
    await bring(id, how);
    expect([how, await foundXattr(lower, id), await lower.listxattr(id)]).toEqual([how, ["ENODATA", 0], Buffer.alloc(0)]);
  }
  // Of one that has some: which others it has not.
  const [some, link] = [await make("some"), (await other.symlink(other.root, name("link"), Buffer.from("x"), caller)).id];
  await other.setxattr(some, name("user.a"), Buffer.from("1"), 0);
  await lower.getattrMany([some, link]);
  expect(await lower.listxattr(some)).toEqual(Buffer.from("user.a\0"));
  expect(await foundXattr(lower, some, name("user.a"))).toEqual(["31", 1]);
  for (const called of ["user.b", "trusted.a", "security.capability"])
    expect([called, await foundXattr(lower, some, name(called))]).toEqual([called, ["ENODATA", 0]]);
  expect(await foundXattr(lower, link, name("trusted.a"))).toEqual(["ENODATA", 0]);
  // Too many to be told.
  await other.setxattr(many, name(`user.${"x".repeat(250)}`), Buffer.from("1"), 0);
  for (let k = 0; k < 10; k += 1) await other.setxattr(many, name(`trusted.${k}`), Buffer.from("1"), 0);
  await lower.getattr(many);
  // And asked for once more in vain.
  await foundXattr(lower, many, name("user.b"));
  expect(await foundXattr(lower, many, name("user.b"))).toEqual(["ENODATA", 1]);
});

it("what was known before anybody asked for an extended attribute is asked for once more with the first question, and no later one is a trip", async () => {
  const lower = holding();
  const other = remote({ clientId: 6 });
  const { address } = await owner();
  await lower.connect(address, 1);
  await other.connect(address, 1);
  const make = async (called: string): Promise<FileId> => (await other.mknod(other.root, name(called), 0o100644, 0, 0, caller)).id;
  const [listed, got, many] = [await make("listed"), await make("got"), await make("many")];
  await other.setxattr(listed, name("user.a"), Buffer.from("1"), 0);
  await other.setxattr(many, name(`user.${"x".repeat(250)}`), Buffer.from("1"), 0);
  for (let k = 0; k < 10; k += 1) await other.setxattr(many, name(`trusted.${k}`), Buffer.from("1"), 0);
  await lower.getattrMany([listed, got, many]);
  const trips = async (work: () => unknown): Promise<number> => {
    const before = lower.counters.roundTrips;
    await work();
    // In order: behind all that was asked before.
    await lower.statfs();
    return lower.counters.roundTrips - before - 1;
  };
  const list = async (): Promise<void> => expect(await lower.listxattr(listed)).toEqual(Buffer.from("user.a\0"));
  const get = async (): Promise<void> => expect((await foundXattr(lower, got, name("user.a")))[0]).toBe("ENODATA");
  expect([await trips(list), await trips(list), await trips(get), await trips(get)]).toEqual([2, 0, 2, 0]);
  // Too many to be told: not asked for each time.
  const others = (): unknown => lower.listxattr(many);
  expect([await trips(others), await trips(others)]).toEqual([2, 1]);
});

it("an error of what is asked for once more is met by whoever asks for the attributes, and by nobody before", async () => {
  const lower = holding();
  const { address } = await owner(1, (one) => ({ ...one, getattr: () => Promise.reject(errnoError(E.EIO)) }));
  await lower.connect(address, 1);
  const { id } = await lower.mknod(lower.root, name("f"), 0o100644, 0, 0, caller);
  await lower.getattrMany([id]);
  const unhandled: unknown[] = [];
  const note = (reason: unknown): void => void unhandled.push(reason);
  process.on("unhandledRejection", note);
  try {
    const before = lower.counters.roundTrips;
    expect((await foundXattr(lower, id, name("user.a")))[0]).toBe("ENODATA");
    // In order: behind all that was asked before. A rejection that nobody handles is told at the end of its turn.
    await lower.statfs();
    await new Promise(setImmediate);
    expect([lower.counters.roundTrips - before, unhandled]).toEqual([3, []]);
  } finally {
    process.off("unhandledRejection", note);
  }
});

it.each([
  ["an ACL", true],
  ["that there is none", false],
])("%s that was asked for before the lock came again does not count", async (_what, has) => {
  const locks = { count: 3, grants: () => locks.count, of: () => locks.count };
  const lower = remote({}, undefined, { holds: locks });
  const other = remote({ clientId: 6 });
  const { address } = await owner();
  await lower.connect(address, 1);
  await other.connect(address, 1);
  const { id } = await other.mknod(other.root, name("f"), 0o100644, 0, 0, caller);
  if (has) await other.setxattr(id, ACCESS_ACL, ACL, 0);
  const asked = foundXattr(lower, id);
  locks.count += 1;
  await asked;
  const said = has ? ACL.toString("hex") : "ENODATA";
  expect(await foundXattr(lower, id)).toEqual([said, 1]);
  expect(await foundXattr(lower, id)).toEqual([said, 0]);
});

it("an error is not the absence of an ACL", async () => {
  const lower = holding();
  const { address } = await owner();
  await lower.connect(address, 1);
  const { id } = await lower.mknod(lower.root, name("f"), 0o100644, 0, 0, caller);
  const gone: FileId = { ino: id.ino, generation: id.generation + 1 };
  for (const _ of [1, 2]) expect(await foundXattr(lower, gone)).toEqual(["ESTALE", 1]);
});

it("a change of an extended attribute here ends what is known of them; other changes leave it, but for an ACL's value", async () => {
  const lower = holding();
  const { address } = await owner();
  await lower.connect(address, 1);
  const dir = await directoryOf(lower);
  await foundXattr(lower, dir);
  const { entry, handle } = await lower.create(dir, name("f"), RDWR, 0o644, caller);
  const { id, attr } = entry;
  lower.made(id, attr);
  expect([attr.xattrNames, await foundXattr(lower, id)]).toEqual([Buffer.alloc(0), ["ENODATA", 0]]);
  await lower.write(handle, Buffer.from("data"), 0, false);
  await lower.setattr(id, { mode: 0o100600, uid: 5 }, null);
  await lower.link(id, dir, name("g"));
  expect([await foundXattr(lower, id), await lower.listxattr(id)]).toEqual([["ENODATA", 0], Buffer.alloc(0)]);
  await lower.setxattr(id, name("user.a"), Buffer.from("1"), 0);
  expect(await foundXattr(lower, id, name("user.a"))).toEqual(["31", 1]);
  await lower.setxattr(id, ACCESS_ACL, ACL, 0);
  expect(await lower.listxattr(id)).toEqual(Buffer.from("user.a\0system.posix_acl_access\0"));
  expect(await foundXattr(lower, id)).toEqual([ACL.toString("hex"), 1]);
  // chmod(2) sets its mask.
  await lower.setattr(id, { mode: 0o100640 }, null);
  const [masked, asked] = await foundXattr(lower, id);
  expect([masked.slice(-28, -26), asked]).toEqual(["04", 1]);
  await lower.removexattr(id, ACCESS_ACL);
  expect(await foundXattr(lower, id)).toEqual(["ENODATA", 1]);
  // What is made in a directory with a default ACL has one.
  await lower.setxattr(dir, DEFAULT_ACL, ACL, 0);
  const heir = await lower.mknod(dir, name("heir"), 0o100644, 0, 0, caller);
  lower.made(heir.id, heir.attr);
  expect([heir.attr.xattrNames?.toString(), (await foundXattr(lower, heir.id))[1]]).toEqual(["system.posix_acl_access\0", 1]);
});

it("a listing with attributes brings names and attributes; so do the lookups of many names, and the attributes of many inodes", async () => {
  const lower = holding();
  const other = remote({ clientId: 6 });
  const { address } = await owner();
  await lower.connect(address, 1);
  await other.connect(address, 1);
  const { id: dir } = await other.mkdir(other.root, name("d"), 0o755, caller);
  const names = ["f", "g", "h", "gone"];
  const ids: FileId[] = [];
  for (const called of names) ids.push((await other.mknod(dir, name(called), 0o100644, 0, 0, caller)).id);
  const [f, g, h, gone] = ids as [FileId, FileId, FileId, FileId];
  await other.unlink(dir, name("gone"), gone);
  await lower.lookupMany(dir, [name("f"), name("gone")]);
  expect(lower.lookup(dir, name("f"))).toEqual({ id: f, attr: await other.getattr(f) });
  // A name of which nothing was told may be one of something that is damaged.
  expect(lower.isAbsent(dir, name("gone"))).toBe(false);
  await lower.getattrMany([g, gone]);
  expect([knownAttr(lower, g), knownAttr(lower, h)]).toEqual([await other.getattr(g), null]);
  const handle = await lower.opendir(dir);
  await lower.readdir(handle, 0n, 65_536, "names");
  expect(lower.lookup(dir, name("h"))).toBeInstanceOf(Promise);
  const four = await other.mknod(dir, name("i"), 0o100644, 0, 0, caller);
  const again = await lower.opendir(dir);
  await lower.readdir(again, 0n, 65_536, "entries");
  expect(lower.lookup(dir, name("i"))).toEqual({ id: four.id, attr: await other.getattr(four.id) });
  for (const one of [handle, again]) lower.close(one);
});

/** A directory whose lock goes to and fro: `comeAgain`. */
async function foughtOver(wrap?: (local: LocalLower) => LocalLower): Promise<{
  readonly lower: RemoteLower;
  readonly other: RemoteLower;
  readonly dir: FileId;
  readonly comeAgain: () => void;
}> {
  let grant = 1;
  const lower = remote({}, undefined, { holds: { grants: () => grant, of: () => grant } });
  const other = remote({ clientId: 6 });
  const { address } = await owner(1, wrap);
  await lower.connect(address, 1);
  await other.connect(address, 1);
  const { id: dir } = await other.mkdir(other.root, name("d"), 0o755, caller);
  return { lower, other, dir, comeAgain: () => (grant += 1) };
}

it("in a directory that several nodes change, a lookup brings the names that were changed since the lock was here", async () => {
  const { lower, other, dir, comeAgain } = await foughtOver();
  const make = (by: RemoteLower, called: string): unknown => by.mknod(dir, name(called), 0o100644, 0, 0, caller);
  const isAbsent = (...names: readonly string[]): boolean[] => names.map((called) => lower.isAbsent(dir, name(called)));
  await make(lower, "mine");
  await make(other, "theirs");
  comeAgain();
  await expect(lower.lookup(dir, name("new"))).rejects.toThrow("ENOENT");
  expect(isAbsent("new", "x", "mine", "theirs")).toEqual([true, true, false, false]);
  const { id } = await lower.lookup(dir, name("theirs"));
  await other.unlink(dir, name("theirs"), id);
  await make(other, "late");
  comeAgain();
  expect(isAbsent("x")).toEqual([false]);
  expect(await lower.lookup(dir, name("late"))).toEqual(await other.lookup(dir, name("late")));
  expect(isAbsent("new", "x", "mine", "theirs", "late")).toEqual([true, true, false, true, false]);
  expect(() => lower.lookup(dir, name("theirs"))).toThrow("ENOENT");
  expect(lower.lookup(dir, name("late"))).not.toBeInstanceOf(Promise);
});

it("so do the attributes of that directory, which its kernel asks for first: then no name that is not there is asked for", async () => {
  const { lower, other, dir, comeAgain } = await foughtOver();
  const make = (by: RemoteLower, called: string): unknown => by.mknod(dir, name(called), 0o100644, 0, 0, caller);
  await make(lower, "mine");
  for (const turn of [1, 2]) {
    await make(other, "journal");
    const { id } = await other.lookup(dir, name("journal"));
    await other.unlink(dir, name("journal"), id);
    comeAgain();
    const trips = lower.counters.awaited;
    expect(await lower.getattr(dir)).toEqual(await other.getattr(dir));
    for (const called of ["journal", "wal"]) {
      expect(() => lower.lookup(dir, name(called))).toThrow("ENOENT");
      expect([turn, lower.isAbsent(dir, name(called))]).toEqual([turn, true]);
    }
    expect([turn, lower.counters.awaited - trips]).toEqual([turn, 1]);
  }
});

it("what came with the attributes of a directory does not count where that was changed here meanwhile", async () => {
  let answer: () => void = () => undefined;
  const gates: Promise<void>[] = [];
  const { lower, dir, comeAgain } = await foughtOver((local) => ({
    ...local,
    getattr: (id) => {
      const attr = local.getattr(id);
      return gates.pop()?.then(() => attr) ?? attr;
    },
  }));
  const make = (called: string): MaybePromise<Entry> => lower.mknod(dir, name(called), 0o100644, 0, 0, caller);
  await make("mine");
  comeAgain();
  gates.push(new Promise((resolve) => (answer = resolve)));
  const asked = lower.getattr(dir);
  // Two at a time: what is there then is not known by themselves.
  const [made] = await Promise.all([make("new"), make("newer")]);
  expect(gates).toEqual([]);
  answer();
  await asked;
  expect(lower.isAbsent(dir, name("new"))).toBe(false);
  expect((await lower.lookup(dir, name("new"))).id).toEqual(made.id);
});

it("those of a file come with the answer to a write, a change of attributes and a link; a name is looked up once", async () => {
  const lower = holding();
  const other = remote({ clientId: 6 });
  const { address } = await owner();
  await lower.connect(address, 1);
  await other.connect(address, 1);
  const made = await lower.create(lower.root, name("f"), RDWR, 0o644, caller);
  const { id } = made.entry;
  const changes: Record<string, () => unknown> = {
    write: () => lower.write(made.handle, Buffer.from("hello"), 3, false),
    append: () => lower.write(made.handle, Buffer.from("hello"), 0, true),
    truncate: () => lower.setattr(id, { size: 4 }, made.handle),
    chmod: () => lower.setattr(id, { mode: 0o600 }, null),
    link: () => lower.link(id, lower.root, name("hard")),
  };
  for (const [what, change] of Object.entries(changes)) {
    await change();
    expect([what, knownAttr(lower, id)]).toEqual([what, await other.getattr(id)]);
  }
  // The lower is opened with O_NOATIME: hazard F19.
  await lower.read(made.handle, 0, 4);
  expect(knownAttr(lower, id)).toEqual(await other.getattr(id));
  const trips = lower.counters.roundTrips;
  const entry = { id, attr: await other.getattr(id) };
  for (const called of ["f", "hard"]) expect(lower.lookup(lower.root, name(called))).toEqual(entry);
  await expect(lower.lookup(lower.root, name("none"))).rejects.toThrow("ENOENT");
  expect(() => lower.lookup(lower.root, name("none"))).toThrow("ENOENT");
  expect(lower.counters.roundTrips - trips).toBe(1);
});

it("they are asked for again after whatever else changes them", async () => {
  const lower = holding();
  await lower.connect((await owner()).address, 1);
  const dir = await directoryOf(lower);
  const file = await lower.create(dir, name("f"), RDWR, 0o644, caller);
  const source = await lower.create(dir, name("source"), RDWR, 0o644, caller);
  await lower.write(source.handle, Buffer.from("source"), 0, false);
  const { id } = file.entry;
  const changes: Record<string, readonly [FileId, () => unknown]> = {
    setxattr: [dir, () => lower.setxattr(dir, name("user.a"), Buffer.from("b"), 0)],
    removexattr: [dir, () => lower.removexattr(dir, name("user.a"))],
    fallocate: [id, () => lower.fallocate(file.handle, 0, 0, 8192)],
    "copy to it": [id, () => lower.copyFileRange(source.handle, 0, file.handle, 0, 6)],
    "open that truncates": [id, async () => lower.close(await lower.open(id, RDWR | 0o1000))],
    unlink: [id, () => lower.unlink(dir, name("f"), id)],
  };
  for (const [what, [changed, change]] of Object.entries(changes)) {
    await lower.getattr(changed);
    expect([what, knownAttr(lower, changed) === null]).toEqual([what, false]);
    await change();
    expect([what, knownAttr(lower, changed)]).toEqual([what, null]);
  }
});

async function lookedUp(lower: RemoteLower, parent: FileId, called: string): Promise<FileId | null> {
  try {
    return (await lower.lookup(parent, name(called))).id;
  } catch (error) {
    if (isErrno(error, E.ENOENT)) return null;
    throw error;
  }
}

describe("a rename", () => {
  /** Two directories, and two files in the first one, one of them with two names. */
  async function scene(): Promise<{ lower: RemoteLower; other: RemoteLower; d: FileId; e: FileId; f: FileId; g: FileId }> {
    const lower = holding();
    const other = remote({ clientId: 6 });
    const { address } = await owner();
    await lower.connect(address, 1);
    await other.connect(address, 1);
    const [d, e] = [await directoryOf(lower, lower.root, "d"), await directoryOf(lower, lower.root, "e")];
    const [f, g] = [
      (await lower.mknod(d, name("f"), 0o100644, 0, 0, caller)).id,
      (await lower.mknod(d, name("g"), 0o100644, 0, 0, caller)).id,
    ];
    await lower.link(f, d, name("f2"));
    return { lower, other, d, e, f, g };
  }

  it.each<[string, 1 | 0, string, string, 2 | 0, "g" | "f" | null, string, string]>([
    ["in one directory", 0, "f", "new", 0, null, "none", "f"],
    ["to another directory", 1, "f", "new", 0, null, "none", "f"],
    ["over another file", 0, "f", "g", 0, "g", "none", "f"],
    ["of two names of one file", 0, "f", "f2", 0, "f", "f", "f"],
    ["by exchange", 0, "f", "g", 2, "g", "g", "f"],
  ])("%s: names and attributes come with its answer", async (_, over, from, to, flags, replaced, oldIs, newIs) => {
    const { lower, other, d, e, f, g } = await scene();
    const target = over === 1 ? e : d;
    const ids: Record<string, FileId | null> = { f, g, none: null };
    await lower.rename(d, name(from), target, name(to), flags, f, replaced === null ? null : (ids[replaced] as FileId));
    // Two names of one inode: two changes of it.
    const known = replaced === "f" ? [d, target] : [d, target, f];
    for (const one of known) expect(knownAttr(lower, one)).toEqual(await other.getattr(one));
    const trips = lower.counters.roundTrips;
    for (const [parent, called, is] of [
      [d, from, oldIs],
      [target, to, newIs],
    ] as const) {
      const found = await Promise.all([lookedUp(lower, parent, called), lookedUp(other, parent, called)]);
      expect([called, ...found]).toEqual([called, ids[is], ids[is]]);
    }
    // Of what was replaced, and is there still, the attributes are asked for.
    expect(lower.counters.roundTrips - trips).toBe(oldIs === "none" ? 0 : 1);
  });

  it("that fails leaves nothing known of its names, and of what it was to change", async () => {
    const { lower, d, e, f, g } = await scene();
    await expect(lower.rename(d, name("f"), e, name("new"), 0, g, null)).rejects.toThrow("ESTALE");
    for (const id of [d, e, g]) expect(knownAttr(lower, id)).toBeNull();
    expect([lower.isAbsent(e, name("new")), lower.isAbsent(d, name("f"))]).toEqual([false, false]);
    await lower.getattr(f);
    expect((await lower.lookup(d, name("f"))).id).toEqual(f);
  });
});

it("of an inode whose lock is not here nothing is known, and nothing is asked for with its changes", async () => {
  const lower = remote();
  await lower.connect((await owner()).address, 1);
  const dir = await directoryOf(lower);
  const made = await lower.create(dir, name("f"), RDWR, 0o644, caller);
  await lower.write(made.handle, Buffer.from("hello"), 0, false);
  await lower.lookup(dir, name("f"));
  expect([knownAttr(lower, dir), knownAttr(lower, made.entry.id), lower.isAbsent(dir, name("g"))]).toEqual([null, null, false]);
});

it("a name that could not be made is looked up again; another owner begins with nothing known", async () => {
  const lower = holding();
  const one = await owner();
  await lower.connect(one.address, 1);
  const dir = await directoryOf(lower);
  const made = await lower.create(dir, name("f"), RDWR, 0o644, caller);
  await expect(lower.create(dir, name("f"), RDWR, 0o644, caller)).rejects.toThrow("EEXIST");
  expect([knownAttr(lower, dir), lower.isAbsent(dir, name("f"))]).toEqual([null, false]);
  lower.close(made.handle);
  await lower.mkdir(dir, name("sub"), 0o755, caller);
  expect([knownAttr(lower, dir) === null, lower.isAbsent(dir, name("never"))]).toEqual([false, true]);
  const two = await owner(2);
  lower.ownerLost();
  expect(lower.isAbsent(dir, name("never"))).toBe(false);
  lower.ownerFound(two.address, 2);
  await lower.getattr(lower.root);
  expect([knownAttr(lower, dir), lower.isAbsent(dir, name("never"))]).toEqual([null, false]);
});

/** As a test sets it: of all inodes alike. */
class Hold implements Holds {
  held = 1;
  grants(): number {
    return this.held;
  }
  of(): number {
    return this.held;
  }
}

it("what was asked for before the lock left does not count, whatever the call", async () => {
  const holds = new Hold();
  const lower = remote({}, undefined, { holds });
  const other = remote({ clientId: 6 });
  const { address } = await owner();
  await lower.connect(address, 1);
  await other.connect(address, 1);
  const dir = (await other.mkdir(other.root, name("d"), 0o755, caller)).id;
  const made = await other.create(dir, name("f"), RDWR, 0o644, caller);
  await other.write(made.handle, Buffer.from("hello"), 0, false);
  const { id } = made.entry;
  const handle = await lower.opendir(dir);
  const calls: Record<string, () => unknown> = {
    lookup: () => lower.lookup(dir, name("f")),
    getattr: () => lower.getattr(id),
    lookupMany: () => lower.lookupMany(dir, [name("f")]),
    getattrMany: () => lower.getattrMany([id]),
    readdir: () => lower.readdir(handle, 0n, 65_536, "entries"),
    attributes: () => lower.prefetch([id], "attributes"),
  };
  for (const [what, call] of Object.entries(calls)) {
    await call();
    expect([what, knownAttr(lower, id) === null]).toEqual([what, false]);
    holds.held += 1;
    const asked = call();
    holds.held += 1;
    await asked;
    expect([what, knownAttr(lower, id)]).toEqual([what, null]);
    await lower.getattr(id);
    expect([what, lower.knows(dir, name("f"))]).toEqual([what, false]);
    holds.held += 1;
  }
  await lower.getattr(id);
  const asked = lower.prefetch([id], "data");
  holds.held += 1;
  // Its answer comes before the data.
  await Promise.all([lower.getattr(id), asked]);
  const file = await lower.open(id, 0);
  const read = lower.read(file, 0, 100);
  expect(read).toBeInstanceOf(Promise);
  expect(Buffer.from(await read).toString()).toBe("hello");
});

describe("the data of small files", () => {
  async function two(): Promise<{ lower: RemoteLower; other: RemoteLower; openHandles: () => number }> {
    const lower = holding();
    const other = remote({ clientId: 6 });
    const { address, lower: local } = await owner();
    await lower.connect(address, 1);
    await other.connect(address, 1);
    return { lower, other, openHandles: () => local.openHandles };
  }

  const made = async (by: RemoteLower, called: string, bytes: number): Promise<FileId> => {
    const { entry, handle } = await by.create(by.root, name(called), RDWR, 0o644, caller);
    await by.write(handle, Buffer.alloc(bytes, called), 0, false);
    by.close(handle);
    return entry.id;
  };

  it("comes in one trip, and is read once without another; the owner keeps nothing open", async () => {
    const { lower, other, openHandles } = await two();
    const sizes = { a: 1, b: 8192, c: 8193 };
    const ids = await Promise.all(Object.entries(sizes).map(async ([called, bytes]) => made(other, called, bytes)));
    await lower.getattrMany(ids);
    other.hurry();
    await until(() => openHandles() === 0);
    const trips = lower.counters.roundTrips;
    await lower.prefetch(ids, "data");
    expect([lower.counters.roundTrips - trips, openHandles()]).toEqual([1, 0]);
    for (const [at, [called, bytes]] of Object.entries(sizes).entries()) {
      const handle = await lower.open(ids[at] as FileId, 0);
      const data = lower.read(handle, 0, 10_000);
      expect([called, data instanceof Promise]).toEqual([called, bytes > 8192]);
      for (const read of [data, lower.read(handle, 0, 10_000)]) expect(Buffer.from(await read)).toEqual(Buffer.alloc(bytes, called));
      lower.close(handle);
    }
  });

  it("is not asked for where it is known, nor where the attributes are not", async () => {
    const { lower, other } = await two();
    const ids = [await made(other, "a", 5), await made(other, "b", 5)];
    const trips = lower.counters.roundTrips;
    await lower.prefetch(ids, "data");
    expect(lower.counters.roundTrips - trips).toBe(0);
    await lower.getattrMany(ids);
    await Promise.all([lower.prefetch(ids, "data"), lower.prefetch(ids, "data")]);
    await lower.prefetch(ids, "data");
    expect(lower.counters.roundTrips - trips).toBe(2);
  });

  it("that is on its way is waited for; what a program writes here meanwhile counts", async () => {
    const { lower, other } = await two();
    const [a, b] = [await made(other, "a", 5), await made(other, "b", 5)];
    await lower.getattrMany([a, b]);
    const [readsA, writesB] = [await lower.open(a, 0), await lower.open(b, RDWR)];
    const trips = lower.counters.roundTrips;
    const brought = lower.prefetch([a, b], "data");
    const read = lower.read(readsA, 0, 100);
    const written = lower.write(writesB, Buffer.from("new"), 0, false);
    await Promise.all([brought, written]);
    expect(Buffer.from(await read).toString()).toBe("aaaaa");
    expect(lower.counters.roundTrips - trips).toBe(2);
    expect(Buffer.from(await lower.read(writesB, 0, 100)).toString()).toBe("newbb");
  });

  it("is not known of a file that is gone, and the owner keeps nothing open", async () => {
    const { lower, other, openHandles } = await two();
    const ids = [await made(other, "a", 5), await made(other, "b", 5)] as const;
    await lower.getattrMany(ids);
    // Behind the back of the locks.
    await other.unlink(other.root, name("a"), ids[0]);
    await other.syncfs();
    await lower.prefetch(ids, "data");
    const handles = [await lower.open(ids[0], 0), await lower.open(ids[1], 0)] as const;
    await expect(lower.read(handles[0], 0, 100)).rejects.toThrow("ESTALE");
    expect(lower.read(handles[1], 0, 100)).not.toBeInstanceOf(Promise);
    expect(openHandles()).toBe(0);
  });

  it("is not waited for by a READ whose lock is about to leave, nor known from an owner that is gone", async () => {
    const holds = new Hold();
    const lower = remote({}, undefined, { holds });
    const one = await owner();
    await lower.connect(one.address, 1);
    const [a, b] = [await made(lower, "a", 5), await made(lower, "b", 5)];
    await lower.getattrMany([a, b]);
    const [reads, later] = [await lower.open(a, 0), await lower.open(b, 0)];
    const trips = lower.counters.roundTrips;
    const brought = lower.prefetch([a, b], "data");
    holds.held = 0;
    const read = lower.read(reads, 0, 100);
    holds.held = 1;
    expect(Buffer.from(await read).toString()).toBe("aaaaa");
    await brought;
    expect(lower.counters.roundTrips - trips).toBe(2);
    await lower.getattrMany([a, b]);
    const again = lower.prefetch([b], "data");
    lower.ownerLost();
    const two = await owner(2);
    lower.ownerFound(two.address, 2);
    await again;
    await lower.getattr(b);
    const asked = lower.read(later, 0, 100);
    expect(asked).toBeInstanceOf(Promise);
    await asked;
  });

  it("is asked for of MAX_READ_MANY files at a time, E2BIG", async () => {
    const { lower } = await two();
    const ids = (count: number): FileId[] => Array.from({ length: count }, () => lower.root);
    await lower.prefetch(ids(MAX_READ_MANY), "data");
    await expect(lower.prefetch(ids(MAX_READ_MANY + 1), "data")).rejects.toThrow("E2BIG");
  });
});

describe("a listing that was read under a lock that is still here", () => {
  const BYTES = 4096;
  const listed = async (lower: RemoteLower, dir: FileId, listing: "plain" | "names" | "entries"): Promise<[string[], number]> => {
    const before = lower.counters.roundTrips;
    const handle = await lower.opendir(dir);
    const { entries, end } = await lower.readdir(handle, 0n, BYTES, listing);
    lower.close(handle);
    if (!end) throw new Error("not all of it was listed");
    return [entries.map(({ name: one }) => one.toString()).toSorted(), lower.counters.roundTrips - before];
  };
  const prepared = async (): Promise<{ lower: RemoteLower; other: RemoteLower; dir: FileId; file: FileId }> => {
    const [lower, other] = [holding(), remote({ clientId: 6 })];
    const { address } = await owner();
    await lower.connect(address, 1);
    await other.connect(address, 1);
    const { id: dir } = await other.mkdir(other.root, name("d"), 0o755, caller);
    const { entry, handle } = await other.create(dir, name("f"), RDWR, 0o644, caller);
    other.close(handle);
    await lower.getattr(dir);
    return { lower, other, dir, file: entry.id };
  };

  it("is told again without a call, also with the attributes as far as these are known", async () => {
    const { lower, dir, file } = await prepared();
    const [first, trips] = await listed(lower, dir, "names");
    expect([first, trips > 0]).toEqual([[".", "..", "f"], true]);
    for (const listing of ["plain", "names"] as const) expect(await listed(lower, dir, listing)).toEqual([first, 0]);
    // One call for all that are not known.
    expect((await listed(lower, dir, "entries"))[1]).toBeGreaterThan(0);
    expect(await listed(lower, dir, "entries")).toEqual([first, 0]);
    const handle = await lower.opendir(dir);
    const { entries } = await lower.readdir(handle, 0n, BYTES, "entries");
    expect(entries.map(({ entry }) => entry?.id)).toEqual(entries.map((one) => (one.name.toString() === "f" ? file : undefined)));
    expect(entries.find(({ entry }) => entry !== undefined)?.entry?.attr).toEqual(await lower.getattr(file));
    await expect(async () => lower.readdir(handle, 0n, 8, "names")).rejects.toMatchObject({ errno: E.EINVAL });
  });

  it("is read again after each change of the directory that is made here", async () => {
    const { lower, dir, file } = await prepared();
    const changes: readonly [string, () => Promise<unknown>, string[]][] = [
      ["create", async () => lower.close((await lower.create(dir, name("g"), RDWR, 0o644, caller)).handle), ["f", "g"]],
      ["mkdir", async () => lower.mkdir(dir, name("sub"), 0o755, caller), ["f", "g", "sub"]],
      ["link", async () => lower.link(file, dir, name("hard")), ["f", "g", "hard", "sub"]],
      ["rename", async () => lower.rename(dir, name("hard"), dir, name("moved"), 0, file, null), ["f", "g", "moved", "sub"]],
      ["unlink", async () => lower.unlink(dir, name("moved"), file), ["f", "g", "sub"]],
      ["rmdir", async () => lower.rmdir(dir, name("sub"), (await lower.lookup(dir, name("sub"))).id), ["f", "g"]],
      ["rename away", async () => lower.rename(dir, name("f"), lower.root, name("away"), 0, file, null), ["g"]],
    ];
    for (const [what, change, left] of changes) {
      await listed(lower, dir, "names");
      await change();
      const [found, trips] = await listed(lower, dir, "names");
      expect([what, found, trips > 0]).toEqual([what, [".", "..", ...left], true]);
    }
  });

  it("is read again after its directory was moved here: .. is another one", async () => {
    const { lower, other, dir } = await prepared();
    const { id: above } = await other.mkdir(other.root, name("above"), 0o755, caller);
    const dots = async (): Promise<number | undefined> => {
      const handle = await lower.opendir(dir);
      const { entries } = await lower.readdir(handle, 0n, BYTES, "names");
      lower.close(handle);
      return entries.find((one) => one.name.toString() === "..")?.ino;
    };
    expect(await dots()).toBe(lower.root.ino);
    await lower.rename(lower.root, name("d"), above, name("d"), 0, dir, null);
    expect(await dots()).toBe(above.ino);
  });
});
