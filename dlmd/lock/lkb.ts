/**
 * Lock blocks and resources (Linux fs/dlm dlm_internal.h: dlm_lkb, dlm_rsb). A lock lives at its holder, which can rebuild
 * the master from it; where the master is another node, that one has a second Lkb for the same lock. A lock whose
 * holder is the master is one object, on the queue.
 */
import { assert } from "../base/assert.ts";
import type { Member } from "../wire/view-id.ts";
import type { Client } from "./client.ts";
import { Mode } from "./mode.ts";

export interface Lkb {
  /** Holder's nodeid; with `id` it names the lock. */
  readonly nodeid: number;
  /** Given by the holder, never used again in its incarnation. */
  readonly id: number;
  readonly resource: Resource;
  /** The holder's side only. */
  readonly client: Client | null;
  readonly clientId: number;
  /** The client's name for it; 0 at the master. */
  readonly lockId: number;
  /** null before the first grant. */
  granted: Mode | null;
  /** null: nothing outstanding. */
  requested: Mode | null;
  /** Of the last new request or conversion up. */
  flags: number;
  /** Counts the granted modes that this lock has had (hazard H5); modulo 2^32. */
  grantNo: number;
  /** Master: strongest mode that the holder was told of since it got its mode. */
  bastMode: Mode;
  /** Master: its conversion was queued before a recovery, which lost the order: any order will do. */
  unordered: boolean;
  /** Holder: a cancel is under way. */
  canceling: boolean;
  /** When the outstanding request was made. */
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
}

export interface Lockspace {
  readonly name: string;
  readonly resources: Map<string, Resource>;
  /** Clients here that have it open. */
  opens: number;
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
    held: 0,
    lvb: null,
    lvbSeq: 0,
    lvbValid: true,
    lvbKnown: false,
    writer: null,
  };
}

export function newLkb(resource: Resource, nodeid: number, id: number, client: Client | null, clientId: number, lockId: number): Lkb {
  return {
    nodeid,
    id,
    resource,
    client,
    clientId,
    lockId,
    granted: null,
    requested: null,
    flags: 0,
    grantNo: 0,
    bastMode: Mode.NL,
    unordered: false,
    canceling: false,
    sinceMs: 0,
    lvb: null,
    lvbSeq: 0,
    lvbValid: true,
    lvbRead: false,
  };
}

export type QueueName = "grantQueue" | "convertQueue" | "waitQueue";

export function enqueue(resource: Resource, queue: QueueName, lkb: Lkb): void {
  if (resource[queue] === none) resource[queue] = [lkb];
  else resource[queue].push(lkb);
}

export function dequeue(resource: Resource, queue: QueueName, lkb: Lkb): void {
  const list = resource[queue];
  const at = list.indexOf(lkb);
  assert(at >= 0, `lock ${lkb.nodeid}/${lkb.id} is not on the ${queue} of ${resource.name}`);
  if (list.length === 1) resource[queue] = none;
  else list.splice(at, 1);
}

export function clearQueues(resource: Resource): void {
  resource.grantQueue = none;
  resource.convertQueue = none;
  resource.waitQueue = none;
}

/** The queue that a lock's state puts it on. */
export function queueOf(lkb: Lkb): QueueName {
  if (lkb.granted === null) return "waitQueue";
  return lkb.requested === null ? "grantQueue" : "convertQueue";
}

export function isIdle(resource: Resource): boolean {
  return resource.grantQueue.length === 0 && resource.convertQueue.length === 0 && resource.waitQueue.length === 0;
}
