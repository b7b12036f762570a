/**
 * The lock manager as a program on the node sees it (what libdlm is to the Linux DLM). The
 * implementation is client.ts, over dlmd's local socket.
 *
 * Callbacks run synchronously, one by one, in the order in which dlmd sent them: a `bast` that follows
 * a grant is never seen before it. A callback must not throw.
 */
import type { Mode } from "../wire/mode.ts";
import type { FileLocks } from "./file-lock-api.ts";
import type { Group, GroupHandlers } from "./group-api.ts";
import type { LockStatus } from "../wire/local-batch.ts";
import type { InheritedLock } from "../wire/local-heir.ts";
import type { FenceAnswer, FenceQuestion } from "../wire/fence-life.ts";
import type { LifeAnswer, ProcessLife } from "../wire/peer-life.ts";
import type { ClusterInfo, GoneClient, InspectRequest, QueryWhat, ViewInfo } from "../wire/program.ts";

export type { LockStatus } from "../wire/local-batch.ts";
export type { InheritedLock } from "../wire/local-heir.ts";
export type { FenceAnswer, FenceQuestion } from "../wire/fence-life.ts";
export type { LifeAnswer, LifeSeen, ProcessLife } from "../wire/peer-life.ts";
export type { ClusterInfo, GoneClient, InspectRequest, ViewInfo, VolumeConfig } from "../wire/program.ts";

/** Bits of a request, with the numbers of dlmconstants.h (DLM_LKF_*). What does not go together ends with error EINVAL. */
export const LockFlag = {
  /** Not granted at once: status "again", nothing queued. */
  NOQUEUE: 0x1,
  /** With `unlock`: takes the outstanding request back, as `cancel` does. */
  CANCEL: 0x2,
  /** Said of a conversion; a new lock with it is an error. */
  CONVERT: 0x4,
  /**
   * The value block takes part in this request. Whoever has PW or EX counts as a writer, with this flag or without: if its program or node
   * dies, the block is not valid.
   */
  VALBLK: 0x8,
  /** A conversion waits its turn behind those that wait, even if it could be granted in place. */
  QUECVT: 0x10,
  /** At a write point: the value block is marked not valid instead. */
  IVVALBLK: 0x20,
  /**
   * A conversion that would be a deadlock gives up its mode (NL, and `lock.demoted`) and goes on waiting. From request to result the lock
   * is worth NL.
   */
  CONVDEADLK: 0x40,
  /** The lock outlives this connection: an orphan, held until a connection of the same owner adopts it, or it is purged. */
  PERSISTENT: 0x80,
  /** Never refused because of a deadlock. */
  NODLCKWT: 0x100,
  /** A new lock at NL is granted whatever waits. */
  EXPEDITE: 0x400,
  /** With NOQUEUE: blocking ASTs go to the holders even so. */
  NOQUEUEBAST: 0x800,
  /** Goes to the head of its queue. */
  HEADQUE: 0x1000,
  /** Granted as soon as it is compatible with what is granted, whatever waits before it. */
  NOORDER: 0x2000,
  /** The first request adopts the orphan of this owner in exactly that mode: EAGAIN if it has another one, ENOENT if there is none. */
  ORPHAN: 0x4000,
  /** If the mode cannot be granted, PR will do (`lock.altMode`); for a conversion only if PR covers what the lock has. */
  ALTPR: 0x8000,
  /** As ALTPR, with CW. */
  ALTCW: 0x10000,
  /**
   * With `unlock`: also while a request is outstanding, which then ends with "canceled", or with what it got if that was faster.
   * VALBLK and IVVALBLK count by the mode that the lock had before that request. With CONVDEADLK that is NL: no block is written.
   */
  FORCEUNLOCK: 0x20000,
  /** This lock may be kept for as long as the program likes, though it promised to answer blocking ASTs (`bastLimitMs`). */
  MAYKEEP: 0x10000000,
  /**
   * Blocking ASTs of this lock are answered within the `bastLimitMs` of the connection, also while `setBastLimitMs` has set another limit, or
   * none. A conversion up says it again, or takes it away.
   */
  PROMPT: 0x20000000,
} as const;

export interface RequestOptions {
  /**
   * The request ends with "timeout" after that time, or when lock service runs again after it. 0: never. Without a quorum, too, so the mode
   * that the lock has then says nothing of what others have: the node's lease does (README.md).
   */
  readonly timeoutMs?: number;
  /**
   * What belongs together: a number of the program's own, 1 to 2^32-1. Locks that wait for each other in a circle are looked for between
   * transactions, over all resources and nodes; one waiter of the circle, after a second or so, ends with "deadlock". 0: this lock
   * takes no part. Who gives locks up when a blocking AST asks for them needs none.
   */
  readonly transaction?: number;
}

/** `astarg`: as in dlm_lock() of fs/dlm, whatever the program gave with the lock: with it one object may have the handlers of very many locks. */
export interface LockHandlers<A = void> {
  /**
   * The request ended. "granted": `lock.mode` is the new mode (after a conversion down too); "again": NOQUEUE
   * and not granted, the mode is what it was; "canceled"; "deadlock": a conversion that would wait for itself
   * or waits in a circle (the mode is what it was); "timeout"; "unlocked": the lock is gone; "error": dlmd refused it, `lock.error` says why.
   */
  readonly ast: (lock: Lock, status: LockStatus, astarg: A) => void;
  /** Somebody waits for a mode that this lock blocks. May repeat; `wanted` is the strongest asked. */
  readonly bast: (lock: Lock, wanted: Mode, astarg: A) => void;
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
  /** During the last request the lock was at NL (CONVDEADLK): others may have had what it was granted before. */
  readonly demoted?: boolean;
  /** The last request was granted in its alternative mode (ALTPR, ALTCW). */
  readonly altMode?: boolean;
  readonly error: Error | null;
  /**
   * Asks for that mode: the first time a new lock, later a conversion of it. Ends in exactly one `ast`.
   * A conversion down takes effect here when sent (hazard H2): `mode` changes at once, and its `ast` does not wait for dlmd, so that what is
   * asked for in it leaves in the same message.
   */
  request(mode: Mode, flags: number, lvb?: Uint8Array, options?: RequestOptions): void;
  /**
   * Gives the lock up; ends in `ast` "unlocked". Without a request outstanding it takes effect when sent, and does not wait for dlmd either.
   * `canWait`: nobody is known to want it. It leaves with what is asked for next, or a moment later, and many in one message.
   */
  unlock(flags: number, lvb?: Uint8Array, canWait?: boolean): void;
  /** Takes an outstanding request back: its `ast` is "canceled" (or "granted", if that was faster). */
  cancel(): void;
}

export interface Lockspace {
  readonly name: string;
  /** A lock that holds nothing yet; no message. `resource`: at most 64 bytes of UTF-8. */
  createLock(resource: string, handlers: LockHandlers): Lock;
  createLock<A>(resource: string, handlers: LockHandlers<A>, astarg: A): Lock;
  /** Several requests made inside `make` leave as one message per master. */
  batch(make: () => void): void;
  /** Called once when the connection has ended, in a turn of its own if it has ended already. What is returned takes that back. */
  whenOver(told: (why: Error) => void): () => void;
}

export interface DlmClientHandlers {
  readonly view: (view: ViewInfo) => void;
  /**
   * Called before the locks of those clients are given to others: stop serving them, wait for what of them is
   * running, then resolve (hazard C7). The locks of the dead stay held until every client has answered that has a lockspace open in
   * which the dead one was. A program that has not resolved this 30 s after it was asked is killed (SIGKILL) by its dlmd, whatever
   * its `bastLimitMs`; a program that is stopped, too. A program that has none of those lockspaces open is not asked.
   */
  readonly gone: (clients: readonly GoneClient[]) => Promise<void>;
  /** The cluster's keys were replaced: `info.overlayKeys` are others now. */
  readonly overlayKeysChanged?: () => void;
  /** The connection to dlmd ended; locks are no longer kept by anybody. `told`: dlmd has said why, and so it lives, or left in good order. */
  readonly disconnected: (reason: Error, told: boolean) => void;
}

export interface KeepOptions {
  /**
   * Only as long as another connection with the same owner key is there, of whatever process: so what is kept is given away at once when the last one ends that
   * could come back for it. Not given: no matter.
   */
  readonly held?: boolean;
}

/** A client whose connection broke, and that is kept for this program. */
export interface InheritedClient {
  readonly clientId: number;
  /** What it was granted in the lockspace that was asked for. One resource may come twice, as its locks do. */
  readonly locks: readonly InheritedLock[];
}

export interface DlmClient {
  readonly info: ClusterInfo;
  readonly view: ViewInfo;
  /** Joins the lockspace (created at first use). Names: at most 64 bytes. */
  lockspace(name: string): Promise<Lockspace>;
  /** File locks of that lockspace (file-lock-api.ts): opens it if it is not open yet. */
  fileLocks(lockspace: string): Promise<FileLocks>;
  /**
   * Joins a group of programs: ordered multicast in the whole cluster (group-api.ts). Resolves where the join is ordered. Rejects with code
   * "joined-already", "bad-name" or "limit".
   */
  join(group: string, handlers: GroupHandlers): Promise<Group>;
  /** dlmd's own state as plain data, for `coverlay status` and `nodes`. */
  query(what: QueryWhat): Promise<unknown>;
  /**
   * Who has and who waits for locks, in the whole cluster: every member of the view is asked, in whatever state lock service is. Resolves
   * within some seconds; of who did not answer it says why. As plain data, for `coverlay why` and `locks`.
   */
  inspect(request: InspectRequest): Promise<unknown>;
  /**
   * Whether a process of a node runs still, and whether anything there has its device. The dlmd of that node looks; in whatever state lock
   * service is. Resolves within some seconds, with what was seen or why nothing was.
   */
  askLife(life: ProcessLife): Promise<LifeAnswer>;
  /**
   * What the cluster does so that this life of a node can write no more. Asking begins a fence. Resolves at once with how far it is: ask again
   * while it says "running" or "failed" (every 100 ms is fine). A life that is fenced stays so, for every asker.
   */
  fenceLife(question: FenceQuestion): Promise<FenceAnswer>;
  /**
   * Releases the orphans that a dead process (0: any) left behind on that node in a lockspace that is open here: those of this program's
   * own user, of every user if that is root. Resolves to how many are being released: as with a client that died, everybody is asked to let
   * go of it first.
   */
  purge(lockspace: string, nodeid: number, pid: number): Promise<number>;
  /** Another `bastLimitMs` from now on, but for locks that are PROMPT; 0: none, for a time in which blocking ASTs cannot be answered. */
  setBastLimitMs(limitMs: number): void;
  /**
   * From now on: if this connection breaks, its granted locks stay held and its memberships of groups stay for `limitMs`, or until its heir is
   * done (`endKept`). 0: not. `close` is no break. Its file locks stay as long, for nobody to adopt. Resolves when that counts. Rejects with code "no-owner"
   * (ConnectOptions.owner is needed) or "too-long" (more than 120,000 ms). dlmd/lock/README.md, "Heirs".
   */
  keepLocks(limitMs: number, options?: KeepOptions): Promise<void>;
  /**
   * The clients that are kept for this program, in the order in which they connected, each with its locks in that lockspace; [] if none is. Each
   * lock can be adopted at once: LockFlag.ORPHAN, in that mode. So it waits until what those clients had asked for is taken back, for which lock
   * service must run. It also waits until earlier connections of this owner, user and `keepLocks` have ended: one that lives has no heir.
   * Rejects with code "busy".
   */
  inherited(lockspace: string): Promise<InheritedClient[]>;
  /**
   * Says `data` in that group in the name of a kept client, with its next number, and then leaves in its name with reason "left". Resolves when
   * dlmd has both in its queue. Rejects with code "not-kept", "not-joined" (that client is not in that group) or "too-large".
   */
  farewell(clientId: number, group: string, data: Uint8Array): Promise<void>;
  /**
   * This program has all that it wants of a kept client. That one is gone now, as if its connection had just broken: `gone` is told of it, also
   * if no lock of it is left; what was not adopted is released then, and groups that it is still in hear "client-died". Resolves when its locks are given up.
   * Rejects with code "not-kept".
   */
  endKept(clientId: number): Promise<void>;
  /** Of its socket, which another process may hold open (KeepOptions.held). -1: it is closed. */
  readonly descriptor: number;
  /** Messages and bytes since the connection was made: for the bench and the tests that count. */
  readonly counters: { sent: number; received: number };
  /** Ends the connection in good order: nothing is kept. */
  close(): Promise<void>;
}

export interface ConnectOptions {
  /**
   * A secret of the program's own, at most 64 bytes: whoever connects with the same one, as the same user, may adopt the orphans of a
   * connection that is gone, and is its heir. Without it nobody can. 32 random bytes in hex fit, and nobody guesses them.
   */
  readonly owner?: string;
  /**
   * This program answers every blocking AST, by a conversion down or an unlock, within that time while lock service runs. If once it does not,
   * it hangs: dlmd kills its process (SIGKILL), and gives its locks, PERSISTENT ones too, to others when it has ended (hazard H13). A program
   * whose first thread waits in the kernel, as for a disk that hangs, is not killed: its time begins anew. Not given, or 0: it may keep what it has for as long as it likes.
   */
  readonly bastLimitMs?: number;
  /** dlmd has to answer within that time, or `connectDlm` fails. Not given: 10 s. */
  readonly answerLimitMs?: number;
}

export type ConnectDlm = (socketPath: string, handlers: DlmClientHandlers, options?: ConnectOptions) => Promise<DlmClient>;
