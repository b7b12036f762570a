/** When a request has its place in its queue (hazards F33, F35). */
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

const refused = { code: "lock-refused", hint: "Try again." };
