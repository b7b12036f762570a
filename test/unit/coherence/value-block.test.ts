/** The value block of a file's lock (hazard F8): what was fetched before the lock came is true only if the block of this very grant proves it. */
import { expect, it } from "vitest";
import type { Lock, LockHandlers } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import type { CoherenceShell } from "../../../overlay/coherence/shell.ts";
import type { Inode } from "../../../overlay/coherence/cover.ts";
import type { Stamp } from "../../../overlay/lower/stamp.ts";
import { inodeOf, lockspaceThatGrants, shellOver, SilentStamps } from "./shell-lab.ts";

const waiter = { interrupted: false, onInterrupt: null };

/** PR is pinned again after a change that left its stamp; `after`: a fetch from after that. */
async function scene(): Promise<{ shell: CoherenceShell; file: Inode; after: Stamp; bast: () => void }> {
  const { lockspace, handlers } = lockspaceThatGrants([]);
  const stamps = new SilentStamps();
  const shell = shellOver(lockspace, stamps);
  const file = inodeOf(shell, 12, "file");
  const last = (): [Lock, LockHandlers] => [...handlers].at(-1) as [Lock, LockHandlers];
  const bast = (): void => {
    const [lock, told] = last();
    told.bast(lock, Mode.EX);
  };
  await shell.operations.pin(file, Mode.EX, waiter);
  shell.operations.unpin(file, Mode.EX);
  const [lock] = last();
  bast();
  while (lock.exists || lock.busy) await new Promise((resolve) => setImmediate(resolve));
  file.cover.returns = 1;
  await shell.operations.pin(file, Mode.PR, waiter);
  return { shell, file, after: stamps.raise(), bast };
}

it("proves nothing of what was read before the owner died, though the lock is here", async () => {
  const { shell, file, after } = await scene();
  expect(shell.operations.proves(file, after)).toBe(true);
  await shell.distrustAll();
  expect(shell.operations.proves(file, after)).toBe(false);
  shell.operations.unpin(file, Mode.PR);
  await shell.close();
});

it("proves nothing while the lock is being given up", async () => {
  const { shell, file, after, bast } = await scene();
  bast();
  expect(shell.operations.proves(file, after)).toBe(false);
  shell.operations.unpin(file, Mode.PR);
  await shell.close();
});
