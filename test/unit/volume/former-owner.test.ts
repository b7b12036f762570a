/** The locks of a crashed owner's role, which dlmd keeps for the process that goes on: adopted and given up, so that there is a next owner (hazard F41). */
import { expect, it } from "vitest";
import { type LockHandlers, LockFlag, type Lock, type Lockspace } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { giveUpRole } from "../../../overlay/volume/former-owner.ts";

/** `refuses`: no lock of that resource is kept. */
function lockspaceOf(steps: string[], refuses: string | null = null): Lockspace {
  const createLock = (resource: string, { ast }: LockHandlers): Lock => {
    const lock = {
      error: null,
      request: (mode: Mode, flags: number): void => {
        expect(flags).toBe(LockFlag.ORPHAN);
        steps.push(`adopt ${resource} ${mode}`);
        queueMicrotask(() => ast(lock as unknown as Lock, resource === refuses ? "error" : "granted"));
      },
      unlock: (flags: number): void => {
        steps.push(`unlock ${resource}${flags === LockFlag.IVVALBLK ? ", not valid" : ""}`);
        queueMicrotask(() => ast(lock as unknown as Lock, "unlocked"));
      },
    };
    return lock as unknown as Lock;
  };
  return { createLock } as unknown as Lockspace;
}

it("an owner's: the record is marked as not valid before anybody can be next, and what covers inodes stays", async () => {
  const steps: string[] = [];
  const kept = [
    { resource: "next", mode: Mode.EX },
    { resource: "i12-3", mode: Mode.EX },
    { resource: "owner", mode: Mode.NL },
    { resource: "owner", mode: Mode.PW },
    { resource: "mounter.2", mode: Mode.EX },
    { resource: "mounter.3", mode: Mode.EX },
  ];
  await giveUpRole(lockspaceOf(steps), kept, 2);
  expect(steps).toEqual([
    `adopt owner ${Mode.PW}`,
    "unlock owner, not valid",
    `adopt mounter.2 ${Mode.EX}`,
    "unlock mounter.2, not valid",
    `adopt next ${Mode.EX}`,
    "unlock next, not valid",
  ]);
});

it("another mount's: nobody waits for it when the owner changes, and the record stays as it is", async () => {
  const steps: string[] = [];
  await giveUpRole(lockspaceOf(steps), [{ resource: "owner", mode: Mode.CR }], 2);
  expect(steps).toEqual([`adopt owner ${Mode.CR}`, "unlock owner"]);
});

it("one that dlmd does not keep ends this process", async () => {
  await expect(giveUpRole(lockspaceOf([], "owner"), [{ resource: "owner", mode: Mode.PW }], 2)).rejects.toMatchObject({
    code: "crash-lost",
  });
});
