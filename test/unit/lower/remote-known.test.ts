/** What a caller knows of inodes whose locks it has, over the real wire: what it need not ask the owner for (hazard F21). */
import { expect, it } from "vitest";
import type { Attr, FileId } from "../../../overlay/lower/lower.ts";
import type { Holds } from "../../../overlay/lower/remote/known.ts";
import type { RemoteLower } from "../../../overlay/lower/remote/remote.ts";
import { caller, name, RDWR, remoteLab } from "./remote-lab.ts";

const { owner, remote } = remoteLab();

/** All locks are here from the beginning. */
const every: Holds = { grants: () => 1, of: () => 1 };

const holding = (): RemoteLower => remote({}, undefined, { holds: every });

async function directoryOf(lower: RemoteLower, parent: FileId = lower.root, called = "d"): Promise<FileId> {
  const { id } = await lower.mkdir(parent, name(called), 0o755, caller);
  lower.made(id);
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

it("they are asked for again after whatever else changes them, and so are names that another name came from", async () => {
  const lower = holding();
  await lower.connect((await owner()).address, 1);
  const dir = await directoryOf(lower);
  const other = await directoryOf(lower, lower.root, "other");
  const file = await lower.create(dir, name("f"), RDWR, 0o644, caller);
  const source = await lower.create(dir, name("source"), RDWR, 0o644, caller);
  await lower.write(source.handle, Buffer.from("source"), 0, false);
  const { id } = file.entry;
  const changes: Record<string, readonly [FileId, () => unknown]> = {
    rename: [dir, () => lower.rename(dir, name("f"), other, name("f"), 0, id, null)],
    "rename back": [dir, () => lower.rename(other, name("f"), dir, name("f2"), 0, id, null)],
    "rename of itself": [dir, () => lower.rename(lower.root, name("d"), lower.root, name("e"), 0, dir, null)],
    "rename of the file": [id, () => lower.rename(dir, name("f2"), dir, name("f3"), 0, id, null)],
    setxattr: [dir, () => lower.setxattr(dir, name("user.a"), Buffer.from("b"), 0)],
    removexattr: [dir, () => lower.removexattr(dir, name("user.a"))],
    fallocate: [id, () => lower.fallocate(file.handle, 0, 0, 8192)],
    "copy to it": [id, () => lower.copyFileRange(source.handle, 0, file.handle, 0, 6)],
    "open that truncates": [id, async () => lower.close(await lower.open(id, RDWR | 0o1000))],
    unlink: [id, () => lower.unlink(dir, name("f3"), id)],
  };
  for (const [what, [changed, change]] of Object.entries(changes)) {
    await lower.getattr(changed);
    expect([what, knownAttr(lower, changed) === null]).toEqual([what, false]);
    await change();
    expect([what, knownAttr(lower, changed)]).toEqual([what, null]);
  }
  for (const [parent, called] of [
    [other, "f"],
    [dir, "f2"],
    [dir, "f"],
  ] as const)
    expect([called, lower.isAbsent(parent, name(called))]).toEqual([called, false]);
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
