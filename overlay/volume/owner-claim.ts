/** What a mounter that is about to claim a volume makes of its owner's block: pure rules, and the words of a refusal. */
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Life, Proof } from "./life.ts";
import type { OwnerBlock } from "./owner-block.ts";
import type { OwnerRecord } from "./owner-record.ts";

export type ClaimVerdict =
  /** Nobody has the device mounted. */
  | { readonly kind: "free" }
  /** That life is over, by the word of its own record. */
  | { readonly kind: "proved"; readonly proof: Exclude<Proof, { readonly kind: "none" }> }
  /** That life must be proved over first. */
  | { readonly kind: "prove"; readonly life: Life }
  | { readonly kind: "refuse"; readonly life: Life; readonly why: string };

/** `block`: null where there is none (a directory). `last`: the latest record of the lock manager. */
export function judgeBlock(block: OwnerBlock | null, last: OwnerRecord | null): ClaimVerdict {
  if (block === null || block.state === "released") return { kind: "free" };
  const { life } = block;
  // Hazard R6: the block could not be written any more. An epoch before that of the life is a record of the same mount, from an earlier time.
  if (last?.state === "let-go" && isOf(life, last) && life.epoch <= last.epoch) return { kind: "proved", proof: { kind: "let-go" } };
  // A record is `ready` or later only after the block named its owner: a block that is older names the wrong one.
  if (last !== null && ["ready", "withdrawn", "let-go"].includes(last.state) && last.epoch > life.epoch && !isOf(life, last)) {
    const why = `its owner's block names an owner before node ${last.nodeid} (epoch ${life.epoch}, ${last.epoch} expected)`;
    return { kind: "refuse", life, why };
  }
  return { kind: "prove", life };
}

function isOf(life: Life, record: OwnerRecord): boolean {
  return life.nodeid === record.nodeid && life.incarnation === record.incarnation && life.clientId === record.clientId;
}

/** The refusal of a first mount. */
export function stillOwned(life: Life, atMs: number, nodeName: string, why: string): OperatingError {
  const since = new Date(atMs).toISOString();
  return new OperatingError(
    `${nodeName} has the volume mounted as ${life.device} since ${since} (process ${life.pid} on ${life.hostName}), and nothing proves that it has ended: ${why}`,
    {
      code: "still-owned",
      hint: `Mount again when ${nodeName} is back in the cluster, or has unmounted. Only if that machine is powered off for good: coverlay volume release DEVICE --owner ${nodeName} --yes`,
      exitStatus: 32,
    },
  );
}
