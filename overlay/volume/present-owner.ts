/** Who the owner of a volume is, for a program that takes no part in its election: what its record says (owner-record.ts). */
import { OperatingError } from "../../dlmd/base/error.ts";
import { LockFlag, type Lockspace } from "../../dlmd/client/api.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import { decodeOwnerRecord, type OwnerRecord } from "./owner-record.ts";

/** `after`: the epoch of an owner before. OperatingError "no-owner": there is none since, or it is changing. */
export function presentOwner(lockspace: Lockspace, after: number): Promise<OwnerRecord> {
  return new Promise((resolve, reject) => {
    const lock = lockspace.createLock("owner", {
      ast: (held, status) => {
        if (status === "error") return reject(held.error ?? noOwner());
        // Whoever changes the record has it alone.
        if (status !== "granted") return reject(noOwner());
        const record = held.lvbValid ? decodeOwnerRecord(held.lvb) : null;
        held.unlock(0);
        if (record?.state === "ready" && record.epoch > after) resolve(record);
        else reject(noOwner());
      },
      bast: () => {},
    });
    lock.request(Mode.CR, LockFlag.VALBLK | LockFlag.NOQUEUE);
  });
}

function noOwner(): OperatingError {
  return new OperatingError("the volume has no owner now", { code: "no-owner", hint: "Try again." });
}
