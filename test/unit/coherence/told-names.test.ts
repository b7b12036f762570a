/** The names that this kernel was told, under the locks that are here (hazards F6, F12). */
import { describe, expect, it, vi } from "vitest";
import type { Lock, LockHandlers } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import type { KernelCaches } from "../../../overlay/coherence/kernel/revoke-round.ts";
import type { CoherenceShell } from "../../../overlay/coherence/shell.ts";
import type { Inode } from "../../../overlay/coherence/cover.ts";
import { FEW_NAMES_MAX } from "../../../overlay/coherence/names/names.ts";
import { attrValid, inodeOf, lockspaceThatGrants, shellOver } from "./shell-lab.ts";

describe("a directory that the kernel was told under another parent", () => {
  const name = Buffer.from("name");

  function moved(expireNames: KernelCaches["expireNames"]): { shell: CoherenceShell; from: Inode; to: Inode; child: Inode } {
    const shell = shellOver(lockspaceThatGrants([]).lockspace, { expireNames });
    const [from, to, child] = [inodeOf(shell, 2, "directory"), inodeOf(shell, 3, "directory"), inodeOf(shell, 4, "directory")];
    shell.operations.names.tellEntry(from, name, child);
    return { shell, from, to, child };
  }

  it("is dropped there, once, before it is told anew", async () => {
    const dropped: unknown[] = [];
    const { shell, from, to, child } = moved((parent, names) => {
      dropped.push([parent, names]);
      child.nlookup = 0;
      return Promise.resolve([0]);
    });
    expect(shell.operations.names.dropElsewhere(from, child)).toBeUndefined();
    await shell.operations.names.dropElsewhere(to, child);
    expect(dropped).toEqual([[2, [{ name, drop: true }]]]);
    child.nlookup = 1;
    expect(shell.operations.names.toldChild(from, name)).toBeUndefined();
    expect(shell.operations.names.dropElsewhere(to, child)).toBeUndefined();
    await shell.close();
  });

  it("has the place that was told last, and none when that is gone", async () => {
    const { shell, from, to, child } = moved(() => Promise.resolve([0]));
    const { names } = shell.operations;
    expect(names.placeOf(child)).toEqual({ dir: from, name });
    names.tellEntry(to, Buffer.from("é"), child);
    expect(names.placeOf(child)).toEqual({ dir: to, name: Buffer.from("é") });
    names.dropEntry(to, Buffer.from("é"));
    expect(names.placeOf(child)).toEqual({ dir: from, name });
    names.dropEntry(from, name);
    expect(names.placeOf(child)).toBeNull();
    await shell.close();
  });

  it("is waited for a moment only, and by the next one again", async () => {
    let drops = 0;
    let done: (results: number[]) => void = () => {};
    const { shell, to, child } = moved(() => {
      drops += 1;
      return new Promise((resolve) => {
        done = resolve;
      });
    });
    await shell.operations.names.dropElsewhere(to, child);
    const again = shell.operations.names.dropElsewhere(to, child);
    expect(drops).toBe(1);
    child.nlookup = 0;
    done([0]);
    await again;
    expect(shell.operations.names.dropElsewhere(to, child)).toBeUndefined();
    await shell.close();
  });

  it("stays known there if it was told there again meanwhile", async () => {
    const { shell, from, to, child } = moved(() => {
      shell.operations.names.tellEntry(from, name, null);
      shell.operations.names.tellEntry(from, name, child);
      child.nlookup = 0;
      return Promise.resolve([0]);
    });
    await shell.operations.names.dropElsewhere(to, child);
    expect(shell.operations.names.toldChild(from, name)).toBe(child);
    await shell.close();
  });
});

it.each([
  { before: "a file", answer: "a file", isListed: false },
  { before: "a file", answer: "nothing", isListed: false },
  // Of a listing that tells nothing as valid: it may be installed late, or not at all.
  { before: "nothing", answer: "a file", isListed: true },
])(
  "a valid name ($before) that is answered anew ($answer, of a listing: $isListed) while its directory is revoked is expired: that may never be installed",
  async ({ before, answer, isListed }) => {
    const { lockspace, handlers } = lockspaceThatGrants([]);
    const expired: string[] = [];
    const shell = shellOver(lockspace, {
      expireNames: (_parent, names) => {
        expired.push(...names.map(({ name }) => String(name)));
        return Promise.resolve(names.map(() => 0));
      },
    });
    const { operations } = shell;
    const [dir, child] = [inodeOf(shell, 12, "directory"), inodeOf(shell, 13, "file")];
    const name = Buffer.from("name");
    await operations.pin(dir, Mode.PR, { interrupted: false, onInterrupt: null });
    expect(operations.names.tellEntry(dir, name, before === "nothing" ? null : child)).toBe(true);
    const [lock, told] = [...handlers].find(([{ resource }]) => resource === `i${dir.cover.key}`) as [Lock, LockHandlers];
    told.bast(lock, Mode.EX);
    // What the kernel has of it stays as it was, if its caller is killed (fs/fuse/dir.c, fuse_dentry_revalidate).
    expect(operations.names.tellEntry(dir, name, answer === "nothing" ? null : child, false, isListed ? null : undefined)).toBe(false);
    operations.unpin(dir, Mode.PR);
    await vi.waitFor(() => expect(lock.mode).toBe(Mode.NL));
    expect(expired).toEqual(["name"]);
    await shell.close();
  },
);

it("the kernel has few names of a directory: FEW_NAMES_MAX at most, that lead somewhere and are valid still", async () => {
  const { lockspace, handlers } = lockspaceThatGrants([]);
  const shell = shellOver(lockspace);
  const { names } = shell.operations;
  const [dir, child] = [inodeOf(shell, 12, "directory"), inodeOf(shell, 13, "file")];
  await shell.operations.pin(dir, Mode.PR, { interrupted: false, onInterrupt: null });
  shell.operations.unpin(dir, Mode.PR);
  const tell = (count: number, to: typeof child | null): void => {
    for (let n = 0; n < count; n += 1) names.tellEntry(dir, Buffer.from(`${to === null ? "absent" : "name"} ${n}`), to);
  };
  tell(FEW_NAMES_MAX + 1, null);
  tell(FEW_NAMES_MAX, child);
  expect(names.hasFew(dir)).toBe(true);
  tell(FEW_NAMES_MAX + 1, child);
  expect(names.hasFew(dir)).toBe(false);
  const [lock, told] = [...handlers].find(([{ resource }]) => resource === `i${dir.cover.key}`) as [Lock, LockHandlers];
  told.bast(lock, Mode.EX);
  await vi.waitFor(() => expect(lock.mode).toBe(Mode.NL));
  await shell.operations.pin(dir, Mode.PR, { interrupted: false, onInterrupt: null });
  shell.operations.unpin(dir, Mode.PR);
  expect(names.hasFew(dir)).toBe(true);
  await shell.close();
});

it("a listing knows what the kernel has with its attributes: until these change, are revoked, or the name goes", async () => {
  const { lockspace, handlers } = lockspaceThatGrants([]);
  const shell = shellOver(lockspace);
  const [dir, child] = [inodeOf(shell, 12, "directory"), inodeOf(shell, 13, "file")];
  const name = Buffer.from("name");
  const waiter = { interrupted: false, onInterrupt: null };
  const tell = async (): Promise<void> => {
    for (const inode of [dir, child]) await shell.operations.pin(inode, Mode.EX, waiter);
    for (const inode of [dir, child]) shell.operations.unpin(inode, Mode.EX);
    expect(shell.operations.names.tellEntry(dir, name, child)).toBe(true);
    expect(shell.operations.names.isTold(dir, name)).toBe(false);
    expect(attrValid(shell, child, 0)).toBe(true);
    expect(shell.operations.names.isTold(dir, name)).toBe(true);
  };

  await tell();
  expect(shell.operations.tryPin(child, Mode.EX)).toBe(true);
  shell.operations.unpin(child, Mode.EX);
  expect(shell.operations.names.isTold(dir, name)).toBe(false);
  await tell();
  await shell.operations.pinData(child, Mode.PR, true, waiter);
  shell.operations.unpinData(child, Mode.PR);
  expect(shell.operations.names.isTold(dir, name)).toBe(false);
  for (const revoked of [dir, child]) {
    await tell();
    const [lock, end] = [...handlers].findLast(([{ resource }]) => resource === `i${revoked.cover.key}`) as [Lock, LockHandlers];
    end.bast(lock, Mode.EX);
    for (const inode of [dir, child]) await shell.operations.pin(inode, Mode.EX, waiter);
    for (const inode of [dir, child]) shell.operations.unpin(inode, Mode.EX);
    expect(shell.operations.names.isTold(dir, name)).toBe(false);
  }
  await tell();
  shell.operations.names.dropEntry(dir, name);
  expect(shell.operations.names.isTold(dir, name)).toBe(false);
  await shell.close();
});
