/** When a request has its place in its queue (hazards F33, F35, F42). */
import { OperatingError } from "../../dlmd/base/error.ts";
import { LockFlag, type Lockspace } from "../../dlmd/client/api.ts";
import { Mode } from "../../dlmd/wire/mode.ts";

/**
 * Resolves when the master of that resource, on whatever node it is, has taken all that this process asked for it before. It is asked for NL, which it grants or
 * refuses at once; and what one node says to another arrives in its order.
 */
export function hasQueued(lockspace: Lockspace, resource: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const lock = lockspace.createLock(resource, {
      ast: (asked, status) => {
        if (status === "granted") asked.unlock(0);
        else if (status === "error") reject(asked.error ?? new OperatingError(`dlmd refused a request for ${resource}`, refused));
        else resolve();
      },
      bast: () => {},
    });
    lock.request(Mode.NL, LockFlag.NOQUEUE);
  });
}

/** Names of which no lock is ever held. The masters of so many are not all one node that has died, if there is another one. */
const PROBES = 64;

/**
 * Resolves when this node's dlmd has taken all that this process asked for before, and the view of that moment goes on: some master answers what was asked behind it. So the next view is
 * not before that, and what is asked for stands in its queue before the locks of the dead go (dlmd/recovery/README.md).
 */
export async function isServed(lockspace: Lockspace, name: string): Promise<void> {
  let probes: Promise<void>[] = [];
  lockspace.batch(() => {
    probes = Array.from({ length: PROBES }, (_, at) => hasQueued(lockspace, `served.${name}.${at}`));
  });
  await Promise.any(probes);
}

const refused = { code: "lock-refused", hint: "Try again." };
