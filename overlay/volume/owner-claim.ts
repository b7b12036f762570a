/** What a mounter that is about to claim a volume makes of its owner's block: pure rules, and the words of a refusal. */
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Life } from "./life.ts";
import type { OwnerBlock } from "./owner-block.ts";
import { isOver, lifeOf, type OwnerRecord } from "./owner-record.ts";

export interface ClaimVerdict {
  /** Each of them must be proved over first; none: nobody has the device mounted, or is about to. */
  readonly lives: readonly Life[];
  /** The block names a life that is over by the word of its own record. */
  readonly letGo: boolean;
}

/**
 * `block`: null where there is none (a directory). `last`: the latest record of the lock manager. Hazard R5: the record is asked, too: a late write of the
 * block may cover the life that claimed after it.
 */
export function judgeBlock(block: OwnerBlock | null, last: OwnerRecord | null): ClaimVerdict {
  if (block === null) return { lives: [], letGo: false };
  const { life } = block;
  // Hazard R6: the block could not be written any more. An epoch before that of the life is a record of the same mount, from an earlier time.
  const letGo = block.state === "owned" && last?.state === "let-go" && isOf(block.life, last) && block.epoch <= last.epoch;
  const lives = block.state === "owned" && !letGo ? [block.life] : [];
  // The block speaks for the life of the record, `released` too, if it is of that very claim or a later one of the same mount.
  const isNamed = last !== null && life !== null && isOf(life, last) && life.epoch >= last.claimEpoch;
  if (last === null || isOver(last) || isNamed || last.process.cannotWrite === true) return { lives, letGo };
  return { lives: [...lives, lifeOf(last)], letGo };
}

function isOf(life: Life, record: OwnerRecord): boolean {
  return life.nodeid === record.nodeid && life.incarnation === record.incarnation && life.clientId === record.clientId;
}

/** The refusal of a first mount. `atMs`: when the block was written; null: only the record names that life. */
export function stillOwned(life: Life, atMs: number | null, nodeName: string, why: string): OperatingError {
  const since = atMs === null ? ", or is about to" : ` since ${new Date(atMs).toISOString()}`;
  const where = atMs === null ? nodeName : life.hostName;
  return new OperatingError(
    `${nodeName} has the volume mounted as ${life.device}${since} (process ${life.pid} on ${where}), and nothing proves that it has ended: ${why}`,
    {
      code: "still-owned",
      hint: `Mount again when ${nodeName} is back in the cluster, or has unmounted. ${atMs === null ? recordHint(nodeName) : `Only if that machine is powered off for good: coverlay volume release DEVICE --owner ${nodeName} --yes`}`,
      exitStatus: 32,
    },
  );
}

/** The block names nobody, or another: `coverlay volume release` would answer so. */
function recordHint(nodeName: string): string {
  return `If it does not come back: coverlay fence ${nodeName}. Or, only if that machine is powered off for good: unmount the volume on all other nodes, which forgets what they know of it, and mount it again.`;
}
