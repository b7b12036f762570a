/**
 * The lock manager as a program on the node sees it (what libdlm is to the Linux DLM). The
 * implementation is client.ts, over dlmd's local socket.
 *
 * Callbacks run synchronously, one by one, in the order in which dlmd sent them: a `bast` that follows
 * a grant is never seen before it. A callback must not throw.
 */
import type { Mode } from "../lock/mode.ts";

/** Bits of a request (dlm.h DLM_LKF_*); the thin version serves those marked *. */
export const LockFlag = {
  /** * Not granted at once: status EAGAIN, nothing queued. */
  NOQUEUE: 0x01,
  /** * With NOQUEUE: blocking ASTs go to the holders even so. */
  NOQUEUEBAST: 0x02,
  /** * The value block takes part in this request. */
  VALBLK: 0x04,
  /** * At a write point: the value block is marked not valid instead. */
  IVVALBLK: 0x08,
} as const;

/** How a request ended. */
export type LockStatus = "granted" | "again" | "canceled" | "deadlock" | "unlocked" | "error";

export interface LockHandlers {
  /**
   * The request ended. "granted": `lock.mode` is the new mode (after a conversion down too); "again": NOQUEUE
   * and not granted, the mode is what it was; "canceled"; "deadlock": a conversion that would wait for itself
   * (the mode is what it was); "unlocked": the lock is gone; "error": dlmd refused it, `lock.error` says why.
   */
  readonly ast: (lock: Lock, status: LockStatus) => void;
  /** Somebody waits for a mode that this lock blocks. May repeat; `wanted` is the strongest asked. */
  readonly bast: (lock: Lock, wanted: Mode) => void;
}

export interface Lock {
  readonly resource: string;
  /** Granted mode; NL before the first grant and after unlock. */
  readonly mode: Mode;
  /** dlmd granted it once and has it still, if only at NL: only then can it be unlocked. */
  readonly exists: boolean;
  /** A request is outstanding: another may not be made (dlmd would answer EBUSY). */
  readonly busy: boolean;
  /** Value block as of the last grant that read it; null before. */
  readonly lvb: Uint8Array | null;
  /** False if the block is marked not valid. */
  readonly lvbValid: boolean;
  readonly error: Error | null;
  /**
   * Asks for that mode: the first time a new lock, later a conversion of it. Ends in exactly one `ast`.
   * A conversion down takes effect here when sent (hazard H2): `mode` changes at once.
   */
  request(mode: Mode, flags: number, lvb?: Uint8Array): void;
  /** Gives the lock up; ends in `ast` "unlocked". */
  unlock(flags: number, lvb?: Uint8Array): void;
  /** Takes an outstanding request back: its `ast` is "canceled" (or "granted", if that was faster). */
  cancel(): void;
}

export interface Lockspace {
  readonly name: string;
  /** A lock that holds nothing yet; no message. `resource`: at most 64 bytes of UTF-8. */
  createLock(resource: string, handlers: LockHandlers): Lock;
  /** Several requests made inside `make` leave as one message per master. */
  batch(make: () => void): void;
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

export interface ClusterInfo {
  readonly clusterName: string;
  readonly nodeid: number;
  /** Changes whenever this dlmd starts anew. */
  readonly incarnation: string;
  /** This connection: with nodeid and incarnation it names a client of the cluster (hazard C7). */
  readonly clientId: number;
  readonly nodes: readonly NodeInfo[];
  readonly volumes: readonly VolumeConfig[];
  /** Secret shared by the overlays of the cluster, derived from the cluster key: 32 bytes. */
  readonly overlaySecret: Uint8Array;
}

export interface ViewInfo {
  /** "epoch.proposer.incarnation" */
  readonly viewId: string;
  readonly quorate: boolean;
  readonly members: readonly number[];
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

export interface DlmClientHandlers {
  readonly view: (view: ViewInfo) => void;
  /**
   * Called before the locks of those clients are given to others: stop serving them, wait for what of them is
   * running, then resolve (hazard C7). The locks of the dead stay held until every client has answered.
   */
  readonly gone: (clients: readonly GoneClient[]) => Promise<void>;
  /** The connection to dlmd ended; locks are no longer kept by anybody. */
  readonly disconnected: (reason: Error) => void;
}

export interface DlmClient {
  readonly info: ClusterInfo;
  readonly view: ViewInfo;
  /** Joins the lockspace (created at first use). Names: at most 64 bytes. */
  lockspace(name: string): Promise<Lockspace>;
  /** dlmd's own state as plain data, for `coverlay status`, `nodes`, `locks`. */
  query(what: "status" | "nodes" | "locks"): Promise<unknown>;
  /** Messages and bytes since the connection was made: for the bench and the tests that count. */
  readonly counters: { sent: number; received: number };
  close(): Promise<void>;
}

export type ConnectDlm = (socketPath: string, handlers: DlmClientHandlers) => Promise<DlmClient>;
