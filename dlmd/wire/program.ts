/**
 * What a program asks of the dlmd of its node and what it is told, as data: the types that the client library, the local socket and the core
 * of a node share.
 */
import type { FenceQuestion } from "./fence-life.ts";
import type { HeirClientRequest, HeirEvent } from "./local-heir.ts";
import type { GroupClientRequest, GroupEvent } from "./local-group.ts";
import type { LockStatus } from "./local-batch.ts";
import type { PlockClientRequest, PlockResult } from "./local-plock.ts";
import type { Mode } from "./mode.ts";
import type { ProcessLife } from "./peer-life.ts";

/** Who a program is; it keeps its orphans by (uid, owner). */
export interface ClientIdentity {
  readonly uid: number;
  readonly pid: number;
  /** A key that the program chose; "": none. */
  readonly owner: string;
  /** What it is called, for people. */
  readonly program?: string;
  /** It answers blocking ASTs within that time, or hangs; 0 or not given: it need not answer (hazard H13). */
  readonly bastLimitMs?: number;
}

export interface NodeInfo {
  readonly nodeid: number;
  readonly name: string;
  readonly address: string;
}

export interface VolumeConfig {
  readonly name: string;
  readonly uuid: string;
  readonly lower: "device" | "directory";
}

/** A secret that overlays share, derived from a key of the cluster. */
export interface OverlayKey {
  /** Of the cluster's key: 8 hex digits. */
  readonly id: string;
  /** 32. */
  readonly bytes: Uint8Array;
}

export interface ClusterInfo {
  readonly clusterName: string;
  readonly nodeid: number;
  /** Changes whenever this dlmd starts anew. */
  readonly incarnation: string;
  /** This connection: with nodeid and incarnation it names a client of the cluster (hazard C7). */
  readonly clientId: number;
  readonly nodes: readonly NodeInfo[];
  readonly volumes: readonly VolumeConfig[];
  /** Nodes that prefer to be the owner of a volume, as they were when this connection was made. In ascending nodeid. */
  readonly preferredOwners: readonly number[];
  /** Keys of the cluster's overlays: the first is to speak with, all are to be accepted. At least one. */
  readonly overlayKeys: readonly OverlayKey[];
}

export interface ViewInfo {
  /** "epoch.proposer.incarnation" */
  readonly viewId: string;
  readonly quorate: boolean;
  readonly members: readonly number[];
  /** Of the members, in their order: the same node has another one after each start of its dlmd. */
  readonly incarnations: readonly string[];
  /** "2 of 3 votes, quorate because 2 >= 2" */
  readonly quorumReason: string;
  /** False while recovery runs or there is no quorum: requests wait. */
  readonly running: boolean;
}

/** Clients that will never be heard of again: of a node that left the view, or one that disconnected. */
export interface GoneClient {
  readonly nodeid: number;
  readonly incarnation: string;
  /** null: all clients of that incarnation of the node. */
  readonly clientId: number | null;
}

/** Which locks of the cluster `inspect` asks about. */
export interface InspectRequest {
  /** "": of every lockspace. */
  readonly lockspace: string;
  /** "": every resource. */
  readonly resource: string;
  /** Only resources on which a program of that node has or wants a lock; 0: of any. */
  readonly nodeid: number;
  /** Only resources on which somebody has waited so long; null: whether or not somebody waits. */
  readonly waitingMs: number | null;
}

export const queries = ["status", "nodes"] as const;
export type QueryWhat = (typeof queries)[number];

/** What a client asks. Lock ids and lockspace ids are the client's, u32, unique while in use. */
export type ClientRequest =
  /** Answered by "opened". Locks may be asked for at once after it, without waiting. Name: 1..64 bytes of UTF-8. */
  | { readonly kind: "open"; readonly lockspaceId: number; readonly name: string }
  /** A new lock. Answered by exactly one "ast". resource: 1..64 bytes of UTF-8. */
  | {
      readonly kind: "lock";
      readonly lockspaceId: number;
      readonly lockId: number;
      readonly resource: string;
      readonly mode: Mode;
      /** Bits of LockFlag. */
      readonly flags: number;
      /** Ends with "timeout" after that time, as soon as lock service runs; 0 or not given: never. */
      readonly timeoutMs?: number;
      /** The client's number for what it does with several locks, u32; 0 or not given: takes no part in deadlock detection. */
      readonly transaction?: number;
      /** The core's own: set while the request waits for lock service. */
      readonly deadlineMs?: number;
    }
  /**
   * A conversion of a granted lock. Answered by exactly one "ast"; `silent`, only where it goes down and reads no block: by none. `lvb`: at most 256
   * bytes, null: none given.
   */
  | {
      readonly kind: "convert";
      readonly lockId: number;
      readonly mode: Mode;
      readonly flags: number;
      readonly lvb: Uint8Array | null;
      /** As in "lock"; a transaction that is not given stays as it was. */
      readonly timeoutMs?: number;
      readonly transaction?: number;
      readonly deadlineMs?: number;
      readonly silent?: true;
    }
  /**
   * Answered by exactly one "ast", "unlocked"; the lock id is free again after it. `silent`, only where no request is outstanding: not answered, and
   * the lock id is free at once.
   */
  | {
      readonly kind: "unlock";
      readonly lockId: number;
      readonly flags: number;
      readonly lvb: Uint8Array | null;
      readonly silent?: true;
    }
  /** No answer of its own: the outstanding request ends with "canceled", or with what it got if that was faster. */
  | { readonly kind: "cancel"; readonly lockId: number }
  /**
   * Orphans of a dead process (0: of any) on that node go, of the client's own user; of any if it is root's. Answered by "purged". Lockspace:
   * one that the client has open.
   */
  | {
      readonly kind: "purge";
      readonly purgeId: number;
      readonly lockspaceId: number;
      readonly nodeid: number;
      readonly pid: number;
    }
  /** Answers "gone" with that goneId. */
  | { readonly kind: "gone-ack"; readonly goneId: number }
  /** From now on it answers blocking ASTs within that time, or hangs (hazard H13); 0: it need not answer. */
  | { readonly kind: "bast-limit"; readonly limitMs: number }
  /** Answered by "answer". */
  | { readonly kind: "query"; readonly queryId: number; readonly what: QueryWhat }
  /** Answered by "answer", within `inspectLimitMs`. */
  | ({ readonly kind: "inspect"; readonly queryId: number } & InspectRequest)
  /** Answered by "answer", within `LIFE_ASK_LIMIT_MS`. */
  | ({ readonly kind: "ask-life"; readonly queryId: number } & ProcessLife)
  /** Answered by "answer", at once: asked again as long as it says "running" or "failed". */
  | ({ readonly kind: "fence-life"; readonly queryId: number } & FenceQuestion)
  /** Of clients that are kept for an heir. */
  | HeirClientRequest
  /** File locks. */
  | PlockClientRequest
  /** Groups. */
  | GroupClientRequest;

/** What a client is told, in order. */
export type ClientEvent =
  /** error "": it is open. */
  | { readonly kind: "opened"; readonly lockspaceId: number; readonly error: string }
  | {
      readonly kind: "ast";
      readonly lockId: number;
      readonly status: LockStatus;
      /** The granted mode now; NL if nothing is held. After "unlocked", or if a first request was not granted, the lock id is free. */
      readonly mode: Mode;
      /** Bits: DEMOTED, ALTMODE (wire/flag.ts). */
      readonly sbFlags: number;
      /** The value block was read: `lvb` (null: never written) and `lvbValid` are new. Else leave both as they were. */
      readonly lvbRead: boolean;
      readonly lvb: Uint8Array | null;
      readonly lvbValid: boolean;
      /** With status "error". */
      readonly error: LockError | null;
    }
  /** May come for a mode that the client has just given up: skip it if the lock's mode is compatible with `wanted`. */
  | { readonly kind: "bast"; readonly lockId: number; readonly wanted: Mode }
  /** The first event after "client-connected", then at every change. */
  | { readonly kind: "view"; readonly view: ViewInfo }
  /** To be answered by "gone-ack" when those clients are no longer served (hazard C7). A client may be named again. */
  | { readonly kind: "gone"; readonly goneId: number; readonly clients: readonly GoneClient[] }
  | { readonly kind: "answer"; readonly queryId: number; readonly data: unknown }
  /** `locks` are being released. error "": nothing went wrong. */
  | { readonly kind: "purged"; readonly purgeId: number; readonly locks: number; readonly error: string }
  | HeirEvent
  | PlockResult
  | GroupEvent;

export interface LockError {
  /** Positive. EBUSY: an operation is outstanding; EINVAL; ENOLCK: a limit; ENOENT: no such lock or lockspace; EEXIST: lock id in use. */
  readonly errno: number;
  readonly message: string;
}
