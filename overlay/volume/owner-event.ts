/** The events and effects of the owner's state machine (owner-core.ts), and who it is. */
import type { GoneClient } from "../../dlmd/client/api.ts";
import type { Mode } from "../../dlmd/wire/mode.ts";
import type { Life, Proof } from "./life.ts";
import type { OwnerBlock } from "./owner-block.ts";
import type { ClaimingProcess, OwnerRecord } from "./owner-record.ts";

/** `anchor` is a second lock, at NL, on the resource `owner`. */
export type OwnerLock = "owner" | "anchor" | "next" | "mounter";

export type OwnerEvent =
  | { readonly kind: "start" }
  | { readonly kind: "granted"; readonly lock: OwnerLock; readonly lvb: Uint8Array | null; readonly lvbValid: boolean }
  | { readonly kind: "unlocked"; readonly lock: OwnerLock }
  | { readonly kind: "bast"; readonly lock: OwnerLock }
  /** Answer to probe-mounters: those of them that mount the volume and reach the device. */
  | { readonly kind: "mounters"; readonly nodeids: readonly number[] }
  /** Answers to read-owner-block; null: the lower has none, a directory. */
  | { readonly kind: "owner-block"; readonly block: OwnerBlock | null }
  | { readonly kind: "owner-block-failed"; readonly error: Error }
  /** Before the answer to prove-gone: what is under way, in words. */
  | { readonly kind: "proof-waits"; readonly why: string }
  /** Answer to prove-gone: of that one life. */
  | { readonly kind: "proved"; readonly proof: Proof }
  /** Answer to reach-later; error: why the device is still not reached. */
  | { readonly kind: "reached"; readonly error: Error | null }
  /** Something changed that a proof may come from: another view, or the time of ask-later. */
  | { readonly kind: "ask-again" }
  | { readonly kind: "mounted"; readonly epoch: number; readonly address: string; readonly port: number }
  | { readonly kind: "mount-failed"; readonly error: Error }
  | { readonly kind: "released" }
  /** `letGo`: nothing of this mount can reach the device any more, but not all that was executed is on it. */
  | { readonly kind: "release-failed"; readonly error: Error; readonly letGo: boolean }
  | { readonly kind: "gone"; readonly clients: readonly GoneClient[] }
  /** The disk has failed (lower/server/disk-guard.ts): give the volume up. */
  | { readonly kind: "withdraw"; readonly why: string }
  /** This node has been without a lease for so long that it lets go of the disk, without a lock: others may wait for it (self-fence.ts). */
  | { readonly kind: "self-fence"; readonly why: string }
  /** To an owner: the volume is for that node. */
  | { readonly kind: "hand-over"; readonly heir: number }
  | { readonly kind: "leave" }
  /** The lock manager is lost, or refused a request: nothing is certain any more. */
  | { readonly kind: "broken"; readonly error: Error };

export type OwnerEffect =
  /** With the value block: read it, or write `lvb` when converting down. */
  | { readonly kind: "request"; readonly lock: OwnerLock; readonly mode: Mode; readonly lvb?: Uint8Array }
  | { readonly kind: "unlock"; readonly lock: OwnerLock; readonly lvb?: Uint8Array; readonly invalidate?: true }
  | { readonly kind: "probe-mounters"; readonly nodeids: readonly number[] }
  /** Answer: owner-block or owner-block-failed. */
  | { readonly kind: "read-owner-block" }
  /** Answer: proved. */
  | ({ readonly kind: "prove-gone" } & ProofQuestion)
  /** There is no proof yet; answer: ask-again, after a while. */
  | { readonly kind: "ask-later" }
  /** The device could not be read or mounted, so often since it was mounted last, or was given up. After a while: look at it; answer: reached. */
  | { readonly kind: "reach-later"; readonly after: "failure" | "withdrawal"; readonly failures: number }
  /** Mount the lower and start serving it; answer: mounted or mount-failed. */
  | { readonly kind: "mount-lower"; readonly epochAbove: number; readonly claim: Claim }
  /** Finish what runs, stop serving, unmount, prove it; answer: released or release-failed. */
  | { readonly kind: "release-lower" }
  /** An owner of the volume has withdrawn, now. */
  | { readonly kind: "withdrawal-seen" }
  | { readonly kind: "owner-found"; readonly owner: OwnerRecord }
  | { readonly kind: "owner-lost"; readonly reason: string }
  | { readonly kind: "become-owner"; readonly owner: OwnerRecord }
  /** The end: nothing is held any more that matters. `error`: why, unless it was asked to leave. */
  | { readonly kind: "left"; readonly error: Error | null };

export interface ProofQuestion {
  readonly life: Life;
  /** By a mount that was never served, of a volume whose record names no owner that died. */
  readonly first: boolean;
  /** The owner's block as it was read: if it reads otherwise, another life may have to be proved over. */
  readonly block: OwnerBlock | null;
}

/** What a mount of the lower rests on. */
export interface Claim {
  /** As it was read: if it reads otherwise when it is to be written, somebody else was faster. */
  readonly block: OwnerBlock | null;
  /** That the life in the block is over; null: it named nobody. The record's life is proved over too, or is the same. */
  readonly proof: Exclude<Proof, { readonly kind: "none" }> | null;
}

export interface OwnerIdentity {
  readonly nodeid: number;
  readonly incarnation: string;
  readonly clientId: number;
  /** All nodes of the cluster. */
  readonly nodes: readonly { readonly nodeid: number; readonly name: string }[];
  /** This process, for those that have to prove its end. */
  readonly process: ClaimingProcess;
  /** This node can reach the device or directory, as far as is known before mounting it. */
  readonly reachesLower: boolean;
}

export type OwnerRole = "owner" | "remote" | "waiting";
