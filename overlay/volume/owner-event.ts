/** The events and effects of the owner's state machine (owner-core.ts), and who it is. */
import type { GoneClient } from "../../dlmd/client/api.ts";
import type { Mode } from "../../dlmd/lock/mode.ts";
import type { OwnerRecord } from "./owner-record.ts";

/** `anchor` is a second lock, at NL, on the resource `owner`. */
export type OwnerLock = "owner" | "anchor" | "next" | "mounter";

export type OwnerEvent =
  | { readonly kind: "start" }
  | { readonly kind: "granted"; readonly lock: OwnerLock; readonly lvb: Uint8Array | null; readonly lvbValid: boolean }
  | { readonly kind: "unlocked"; readonly lock: OwnerLock }
  | { readonly kind: "bast"; readonly lock: OwnerLock }
  /** Answer to probe-mounters: those of them that mount the volume and reach the device. */
  | { readonly kind: "mounters"; readonly nodeids: readonly number[] }
  | { readonly kind: "mounted"; readonly epoch: number; readonly address: string; readonly port: number }
  | { readonly kind: "mount-failed"; readonly error: Error }
  | { readonly kind: "released" }
  | { readonly kind: "release-failed"; readonly error: Error }
  | { readonly kind: "gone"; readonly clients: readonly GoneClient[] }
  | { readonly kind: "leave" }
  /** The lock manager is lost, or refused a request: nothing is certain any more. */
  | { readonly kind: "broken"; readonly error: Error };

export type OwnerEffect =
  /** With the value block: read it, or write `lvb` when converting down. */
  | { readonly kind: "request"; readonly lock: OwnerLock; readonly mode: Mode; readonly lvb?: Uint8Array }
  | { readonly kind: "unlock"; readonly lock: OwnerLock; readonly lvb?: Uint8Array; readonly invalidate?: true }
  | { readonly kind: "probe-mounters"; readonly nodeids: readonly number[] }
  /** Mount the lower and start serving it; answer: mounted or mount-failed. */
  | { readonly kind: "mount-lower"; readonly epochAbove: number }
  /** Finish what runs, stop serving, unmount, prove it; answer: released or release-failed. */
  | { readonly kind: "release-lower" }
  | { readonly kind: "owner-found"; readonly owner: OwnerRecord }
  | { readonly kind: "owner-lost"; readonly reason: string }
  | { readonly kind: "become-owner"; readonly owner: OwnerRecord }
  /** The end: nothing is held any more that matters. `error`: why, unless it was asked to leave. */
  | { readonly kind: "left"; readonly error: Error | null };

export interface OwnerIdentity {
  readonly nodeid: number;
  readonly incarnation: string;
  readonly clientId: number;
  /** All nodes of the cluster. */
  readonly nodes: readonly { readonly nodeid: number; readonly name: string }[];
  /** This node can reach the device or directory, as far as is known before mounting it. */
  readonly reachesLower: boolean;
}

export type OwnerRole = "owner" | "remote" | "waiting";
