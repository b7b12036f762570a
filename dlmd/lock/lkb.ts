/**
 * Lock blocks and resources (Linux fs/dlm dlm_internal.h: dlm_lkb, dlm_rsb). A lock lives at its holder, which can rebuild
 * the master from it; where the master is another node, that one has a second Lkb for the same lock. A lock whose
 * holder is the master is one object, on the queue.
 */
import { AssertionError } from "../base/assert.ts";
import type { Member } from "../wire/view-id.ts";
import { EXPEDITE, HEADQUE, NOORDER } from "../wire/flag.ts";
import { Mode } from "../wire/mode.ts";

export interface Lkb {
  /** Holder's nodeid; with `id` it names the lock. */
  readonly nodeid: number;
  /** Given by the holder, never used again in its incarnation. */
  readonly id: number;
  readonly resource: Resource;
  /** The holder's side only; another one when an orphan is adopted. */
  client: LockClient | null;
  clientId: number;
  /** The client's name for it; 0 at the master. */
  lockId: number;
  /** Of its client, for deadlock detection between resources; 0: takes no part in it. */
  transaction: number;
  /** null before the first grant. */
  granted: Mode | null;
  /** null: nothing outstanding. */
  requested: Mode | null;
  /** Of the last new request or conversion up. */
  flags: number;
  /** Counts the granted modes that this lock has had (hazard H5); modulo 2^32. */
  grantNo: number;
  /** DEMOTED, ALTMODE: of the outstanding request or of the last one. */
  sbFlags: number;
  /** Master: names the time that it spends on a queue; 0 when on none. */
  waitNo: number;
  /** Holder: the outstanding request ends with "timeout" then; 0: never. */
  deadlineMs: number;
  /** Strongest mode that the holder (at the holder: its client) was told of since it got its mode. */
  bastMode: Mode;
  /** Master: its conversion was queued before a recovery, which lost the order: any order will do. */
  unordered: boolean;
  /** A cancel is under way, or waits at the master (hazard H16), and what the request ends with if it succeeds. */
  canceling: "canceled" | "timeout" | null;
  /** When the outstanding request was made. Master, nothing outstanding: when the last blocking AST was sent. */
  sinceMs: number;
  /** The block as of the last grant or write of this lock; meaningful with lvbRead. */
  lvb: Uint8Array | null;
  /** As of the last grant or write, whether or not the block was read. */
  lvbSeq: number;
  lvbValid: boolean;
  lvbRead: boolean;
}

export interface Resource {
  readonly lockspace: Lockspace;
  readonly name: string;
  /** In the view whose tables these are. */
  masterNodeid: number;
  /** Master only. A converting lock is on `convertQueue` alone, holding its granted mode. */
  grantQueue: Lkb[];
  convertQueue: Lkb[];
  waitQueue: Lkb[];
  /** Waiters that need not wait for those before them. */
  unordered: number;
  /** Locks of this node's clients. */
  held: number;
  lvb: Uint8Array | null;
  lvbSeq: number;
  lvbValid: boolean;
  /** The block above is the truth: this node masters the resource, or was handed it by the one that did. */
  lvbKnown: boolean;
  /**
   * During a recovery: who may have written the block since, by the last tables that were whole. It is not on a queue before it has
   * named its lock, and if it dies before that, what it wrote is lost.
   */
  writer: Member | null;
  /** Of the last rebuild that has looked at it, and of the last one that gave it another master. */
  round: number;
  moved: number;
}

/** A program of this node, as far as its locks are concerned. */
export interface LockClient {
  readonly id: number;
  /** It keeps its orphans by (uid, owner). */
  readonly uid: number;
  readonly owner: string;
  /** For people. */
  readonly pid: number;
  readonly program: string;
  /** ConnectOptions.bastLimitMs, or what it is now. */
  bastLimitMs: number;
  /** ConnectOptions.bastLimitMs: of its locks that are PROMPT. */
  readonly promptLimitMs: number;
  readonly lockspaces: Map<number, Lockspace>;
  readonly locks: Map<number, Lkb>;
  /** Its socket is not read: too much waits. */
  paused: boolean;
  /** Its socket closed: no events go to it. */
  gone: boolean;
  /** Its connection broke, and all that it had is kept for an heir (hazard C12). */
  kept: boolean;
  /** It hangs and is being killed: nothing of it stays behind. */
  ending: boolean;
  /** Lockspaces in which its orphans go too. */
  purged: Set<Lockspace> | null;
}

export interface Lockspace {
  readonly name: string;
  readonly resources: Map<string, Resource>;
  /** Clients here that have it open. */
  opens: number;
  /** Nothing is granted in it: a node that died is not yet known to be dead. */
  blocked: boolean;
}

// One shared empty queue: most resources never have a second one.
const none: Lkb[] = [];

export function newResource(lockspace: Lockspace, name: string, masterNodeid: number): Resource {
  return {
    lockspace,
    name,
    masterNodeid,
    grantQueue: none,
    convertQueue: none,
    waitQueue: none,
    unordered: 0,
    held: 0,
    lvb: null,
    lvbSeq: 0,
    lvbValid: true,
    lvbKnown: false,
    writer: null,
    round: 0,
    moved: 0,
  };
}

export function newLkb(resource: Resource, nodeid: number, id: number, client: LockClient | null, clientId: number, lockId: number): Lkb {
  return {
    nodeid,
    id,
    resource,
    client,
    clientId,
    lockId,
    transaction: 0,
    granted: null,
    requested: null,
    flags: 0,
    grantNo: 0,
    sbFlags: 0,
    waitNo: 0,
    deadlineMs: 0,
    bastMode: Mode.NL,
    unordered: false,
    canceling: null,
    sinceMs: 0,
    lvb: null,
    lvbSeq: 0,
    lvbValid: true,
    lvbRead: false,
  };
}

export type QueueName = "grantQueue" | "convertQueue" | "waitQueue";

/** Need not wait for its turn on the wait queue. */
export function isUnordered(lkb: Lkb): boolean {
  return (lkb.flags & (NOORDER | EXPEDITE)) !== 0;
}

/** A conversion between PR and CW: it takes away what the lock has, and gives what it does not cover. */
export function isTrade({ granted, requested }: Pick<Lkb, "granted" | "requested">): boolean {
  return (granted === Mode.PR && requested === Mode.CW) || (granted === Mode.CW && requested === Mode.PR);
}

/** At the end of that queue. */
export function append(resource: Resource, queue: QueueName, lkb: Lkb): void {
  if (resource[queue] === none) resource[queue] = [lkb];
  else resource[queue].push(lkb);
  if (queue === "waitQueue" && isUnordered(lkb)) resource.unordered++;
}

/** At the end of that queue, or at its head if HEADQUE says so. */
export function enqueue(resource: Resource, queue: QueueName, lkb: Lkb): void {
  if (queue === "grantQueue" || (lkb.flags & HEADQUE) === 0 || resource[queue].length === 0) return append(resource, queue, lkb);
  resource[queue].unshift(lkb);
  if (queue === "waitQueue" && isUnordered(lkb)) resource.unordered++;
}

export function dequeue(resource: Resource, queue: QueueName, lkb: Lkb): void {
  const list = resource[queue];
  const at = list.indexOf(lkb);
  if (at < 0) throw new AssertionError(`lock ${lkb.nodeid}/${lkb.id} is not on the ${queue} of ${resource.name}`);
  if (list.length === 1) resource[queue] = none;
  else list.splice(at, 1);
  if (queue === "waitQueue" && isUnordered(lkb)) resource.unordered--;
}

export function clearQueues(resource: Resource): void {
  resource.grantQueue = none;
  resource.convertQueue = none;
  resource.waitQueue = none;
  resource.unordered = 0;
}

/** The queue that a lock's state puts it on. */
export function queueOf(lkb: Pick<Lkb, "granted" | "requested">): QueueName {
  if (lkb.granted === null) return "waitQueue";
  return lkb.requested === null ? "grantQueue" : "convertQueue";
}

export function isIdle(resource: Resource): boolean {
  return resource.grantQueue.length === 0 && resource.convertQueue.length === 0 && resource.waitQueue.length === 0;
}
