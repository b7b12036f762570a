/**
 * The role of an owner whose process has crashed, in the hands of the process that goes on with its mount (hazard F41): dlmd keeps all its locks for that one. Those of
 * the role are given up at once, as the death of the process would have done, so that there is a next owner before the mount goes on. The others stay.
 */
import { OperatingError } from "../../dlmd/base/error.ts";
import { type InheritedLock, LockFlag, type Lockspace } from "../../dlmd/client/api.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import { mounterResource } from "./owner.ts";

const NOT_GIVEN_UP = { code: "crash-lost", hint: "umount -l, and mount again." };

/** `kept`: what dlmd has kept of the processes before. Resolves when nobody waits for any of them. */
export async function giveUpRole(lockspace: Lockspace, kept: readonly InheritedLock[], nodeid: number): Promise<void> {
  // The record first: whoever is next has to find it marked as not valid.
  for (const resource of ["owner", mounterResource(nodeid), "next"])
    for (const { mode } of kept.filter((lock) => lock.resource === resource && lock.mode > Mode.NL))
      await giveUp(lockspace, resource, mode);
}

function giveUp(lockspace: Lockspace, resource: string, mode: Mode): Promise<void> {
  return new Promise((resolve, reject) => {
    const lock = lockspace.createLock(resource, {
      ast: (adopted, status) => {
        if (status === "granted") adopted.unlock(mode >= Mode.PW ? LockFlag.IVVALBLK : 0);
        else if (status === "unlocked") resolve();
        else reject(adopted.error ?? new OperatingError(`dlmd ended the request for "${resource}" with "${status}"`, NOT_GIVEN_UP));
      },
      bast: () => {}, // It is being given up already.
    });
    lock.request(mode, LockFlag.ORPHAN);
  });
}
