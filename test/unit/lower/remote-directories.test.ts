/** What a caller knows of the directories that he has made at the owner, over the real wire. */
import { expect, it } from "vitest";
import type { Attr, FileId } from "../../../overlay/lower/lower.ts";
import type { RemoteLower } from "../../../overlay/lower/remote.ts";
import { caller, name, RDWR, remoteLab } from "./remote-lab.ts";

const { owner, remote } = remoteLab();
const HOLD = 5;

async function directoryOf(lower: RemoteLower, parent: FileId = lower.root, called = "d"): Promise<FileId> {
  const { id } = await lower.mkdir(parent, name(called), 0o755, caller);
  lower.made(id, HOLD);
  return id;
}

it("the attributes of a directory made here come with the answer to each change of its names", async () => {
  const lower = remote();
  await lower.connect((await owner()).address, 1);
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
    const known = lower.heldAttr(dir, HOLD);
    expect([what, known]).toEqual([what, await lower.getattr(dir)]);
  }
  expect(lower.isAbsent(dir, name("hard"), HOLD)).toBe(false);
  expect(lower.isAbsent(dir, name("never"), HOLD)).toBe(true);
});

it("they are asked for again after whatever else changes them, and so are names that another name came from", async () => {
  const lower = remote();
  await lower.connect((await owner()).address, 1);
  const dir = await directoryOf(lower);
  const other = await directoryOf(lower, lower.root, "other");
  const file = await lower.create(dir, name("f"), RDWR, 0o644, caller);
  const handle = await lower.opendir(dir);
  const changes: Record<string, () => unknown> = {
    rename: () => lower.rename(dir, name("f"), other, name("f"), 0, file.entry.id, null),
    "rename back": () => lower.rename(other, name("f"), dir, name("f2"), 0, file.entry.id, null),
    "rename of itself": () => lower.rename(lower.root, name("d"), lower.root, name("e"), 0, dir, null),
    setattr: () => lower.setattr(dir, { mode: 0o700 }, null),
    setxattr: () => lower.setxattr(dir, name("user.a"), Buffer.from("b"), 0),
    removexattr: () => lower.removexattr(dir, name("user.a")),
    readdir: () => lower.readdir(handle, 0n, 4096, "plain"),
  };
  for (const [what, change] of Object.entries(changes)) {
    lower.close((await lower.create(dir, name(`before ${what}`), RDWR, 0o644, caller)).handle);
    expect([what, lower.heldAttr(dir, HOLD) === null]).toEqual([what, false]);
    await change();
    expect([what, lower.heldAttr(dir, HOLD)]).toEqual([what, null]);
  }
  expect([lower.isAbsent(other, name("f"), HOLD), lower.isAbsent(dir, name("f2"), HOLD)]).toEqual([false, false]);
});

it("of a directory that nobody said was made here nothing is known, and nothing is asked for with its changes", async () => {
  const lower = remote();
  await lower.connect((await owner()).address, 1);
  const { id } = await lower.mkdir(lower.root, name("d"), 0o755, caller);
  await lower.create(id, name("f"), RDWR, 0o644, caller);
  expect(lower.heldAttr(id, HOLD)).toBeNull();
  expect(lower.isAbsent(id, name("g"), HOLD)).toBe(false);
});

it("a name that could not be made, or whose fate nobody knows, counts as there; another owner begins with nothing known", async () => {
  const lower = remote();
  const one = await owner();
  await lower.connect(one.address, 1);
  const dir = await directoryOf(lower);
  const made = await lower.create(dir, name("f"), RDWR, 0o644, caller);
  await expect(lower.create(dir, name("f"), RDWR, 0o644, caller)).rejects.toThrow("EEXIST");
  expect(lower.heldAttr(dir, HOLD)).toBeNull();
  lower.close(made.handle);
  expect(lower.isAbsent(dir, name("f"), HOLD)).toBe(false);
  const known: Attr | null = (await lower.mkdir(dir, name("sub"), 0o755, caller)) && lower.heldAttr(dir, HOLD);
  expect(known).not.toBeNull();
  const two = await owner(2);
  lower.ownerLost();
  lower.ownerFound(two.address, 2);
  await lower.getattr(lower.root);
  expect([lower.heldAttr(dir, HOLD), lower.isAbsent(dir, name("never"), HOLD)]).toEqual([null, false]);
});
