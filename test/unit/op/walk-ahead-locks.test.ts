/** Hazard F21, with the locks of two nodes: what a listing names that was read after its directory's lock had left is nobody's business here. */
import { expect, it } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import type { Waiter } from "../../../overlay/coherence/api.ts";
import { InodeTable } from "../../../overlay/inode/table.ts";
import type { Attr, DirPage, FileId, LowerHandle } from "../../../overlay/lower/lower.ts";
import { WalkAhead } from "../../../overlay/op/walk-ahead.ts";
import { inodeOf, lockspaceThatGrants, shellOver } from "../coherence/shell-lab.ts";

const DIRECTORY: FileId = { ino: 12, generation: 7 };
const MADE: FileId = { ino: 77, generation: 7 };
const waiter: Waiter = { interrupted: false, onInterrupt: null };

it.each([
  ["stays", ["lock i77.7 3"]],
  ["leaves", []],
  ["leaves and comes back", []],
] as const)("where the directory's lock %s while its names are read", async (what, wanted) => {
  const asked: string[] = [];
  const { lockspace, handlers } = lockspaceThatGrants(asked);
  const [here, elsewhere] = [shellOver(lockspace), shellOver(lockspace)];
  const inodes = new InodeTable({ root: DIRECTORY, createCover: (id, kind) => here.createCover(id, kind), dropped: () => undefined });
  const dir = inodes.root;
  await here.operations.pin(dir, Mode.PR, waiter);
  here.operations.unpin(dir, Mode.PR);
  let began = (): void => undefined;
  let go = (): void => undefined;
  const reading = new Promise<void>((resolve) => (began = resolve));
  const gate = new Promise<void>((resolve) => (go = resolve));
  const walkAhead = new WalkAhead({
    lower: {
      keeps: true,
      knows: () => false,
      opendir: () => 1 as LowerHandle,
      readdir: async (): Promise<DirPage> => {
        began();
        await gate;
        const entry = { id: MADE, attr: { mode: 0o100644 } as Attr };
        return { entries: [{ name: Buffer.from("made"), type: 8, ino: MADE.ino, cookie: 1n, entry }], end: true };
      },
      prefetch: () => Promise.resolve(),
      close: () => undefined,
    },
    coherence: here.operations,
    inodes,
    listed: () => undefined,
    now: () => 0,
  });
  for (const ino of [50, 51]) {
    const child = inodes.remember({ ino, generation: 7 }, 0o100644);
    void walkAhead.noteLookup(dir, Buffer.from("f"));
    walkAhead.noteCostly(dir, child);
  }
  await reading;
  const theirs = inodeOf(elsewhere, DIRECTORY.ino, "directory");
  /** Whoever has the directory's lock is asked for it. */
  const comes = async (to: typeof here, inode: typeof theirs): Promise<void> => {
    const pinned = to.operations.pin(inode, Mode.EX, waiter);
    for (const [lock, of] of handlers) if (lock.resource === "i12.7" && lock.mode !== Mode.NL) of.bast(lock, Mode.EX);
    await pinned;
    to.operations.unpin(inode, Mode.EX);
  };
  if (what !== "stays") await comes(elsewhere, theirs);
  if (what === "leaves and comes back") await comes(here, dir);
  go();
  await walkAhead.stop();
  expect(asked.filter((request) => request.includes("i77.7"))).toEqual(wanted);
});
