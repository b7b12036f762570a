/**
 * The rules of a resource's queues, at its master: Linux fs/dlm/lock.c (can_be_granted, conversion_deadlock_detect,
 * grant_pending_locks, send_blocking_asts). Departures: conversions that a recovery queued are granted in any order for as long as they
 * wait (Linux only at the recovery itself); blocking ASTs go out for the heads of the queues, not for every waiter.
 *
 * Every function leaves the resource settled: all that may be granted is granted, and whoever blocks a head has been told.
 */
import { type Lkb, type Resource, dequeue, enqueue, queueOf } from "./lkb.ts";
import type { LvbWrite, Refusal } from "../wire/peer.ts";
import { NOQUEUE, NOQUEUEBAST } from "./flag.ts";
import { readsLvb } from "./lvb.ts";
import { Mode, modeCovers, modesCompatible } from "./mode.ts";

/** How holders are told; for a lock of this node or by message. */
export interface MasterPort {
  /** The lock's fields say what it has now. */
  granted(lkb: Lkb): void;
  /** Not granted; if `lkb.granted` is null the lock is gone. */
  refused(lkb: Lkb, status: Refusal): void;
  bast(lkb: Lkb, wanted: Mode): void;
}

/** Whether a lock of these queues, other than `lkb`, holds a mode beside which `lkb.requested` may not be. */
function conflicts(queue: readonly Lkb[], lkb: Lkb): boolean {
  const requested = lkb.requested as Mode;
  for (const other of queue) {
    if (other !== lkb && !modesCompatible(other.granted as Mode, requested)) return true;
  }
  return false;
}

function fits(resource: Resource, lkb: Lkb): boolean {
  return !conflicts(resource.grantQueue, lkb) && !conflicts(resource.convertQueue, lkb);
}

/** An earlier converter waits for the mode that this lock holds, and this one would wait behind it. */
function wouldDeadlock(resource: Resource, lkb: Lkb): boolean {
  for (const earlier of resource.convertQueue) {
    if (earlier !== lkb && !modesCompatible(lkb.granted as Mode, earlier.requested as Mode)) return true;
  }
  return false;
}

function grant(port: MasterPort, resource: Resource, lkb: Lkb): void {
  const mode = lkb.requested as Mode;
  lkb.lvbRead = readsLvb(lkb.granted, mode, lkb.flags);
  lkb.lvb = lkb.lvbRead ? resource.lvb : null;
  lkb.lvbValid = resource.lvbValid;
  lkb.lvbSeq = resource.lvbSeq;
  lkb.granted = mode;
  lkb.requested = null;
  lkb.unordered = false;
  lkb.grantNo = (lkb.grantNo + 1) >>> 0;
  lkb.bastMode = Mode.NL;
  enqueue(resource, "grantQueue", lkb);
  port.granted(lkb);
}

function tell(port: MasterPort, holder: Lkb, wanted: Mode): void {
  if (modeCovers(holder.bastMode, wanted)) return;
  holder.bastMode = wanted;
  port.bast(holder, wanted);
}

/** Tells every holder that blocks `wanter` (NOQUEUEBAST: it will not be on a queue). */
function tellBlockers(port: MasterPort, resource: Resource, wanter: Lkb, wanted: Mode): void {
  for (const queue of [resource.grantQueue, resource.convertQueue]) {
    for (const holder of queue) {
      if (holder !== wanter && !modesCompatible(holder.granted as Mode, wanted)) tell(port, holder, wanted);
    }
  }
}

function tellHeads(port: MasterPort, resource: Resource): void {
  const converts = resource.convertQueue;
  for (let i = 0; i < converts.length; i++) {
    const lkb = converts[i] as Lkb;
    if (i === 0 || lkb.unordered) tellBlockers(port, resource, lkb, lkb.requested as Mode);
  }
  const first = resource.waitQueue[0];
  if (first !== undefined) tellBlockers(port, resource, first, first.requested as Mode);
}

function grantableConversion(resource: Resource): Lkb | null {
  const converts = resource.convertQueue;
  for (let i = 0; i < converts.length; i++) {
    const lkb = converts[i] as Lkb;
    if ((i === 0 || lkb.unordered) && fits(resource, lkb)) return lkb;
  }
  return null;
}

/** Grants what the queues allow, then tells the blockers of what still waits. */
export function settle(port: MasterPort, resource: Resource): void {
  if (resource.convertQueue.length === 0 && resource.waitQueue.length === 0) return;
  for (let lkb = grantableConversion(resource); lkb !== null; lkb = grantableConversion(resource)) {
    dequeue(resource, "convertQueue", lkb);
    grant(port, resource, lkb);
  }
  while (resource.convertQueue.length === 0) {
    const first = resource.waitQueue[0];
    if (first === undefined || !fits(resource, first)) break;
    dequeue(resource, "waitQueue", first);
    grant(port, resource, first);
  }
  tellHeads(port, resource);
}

function refuseAtOnce(port: MasterPort, resource: Resource, lkb: Lkb, status: Refusal): void {
  const wanted = lkb.requested as Mode;
  lkb.requested = null;
  port.refused(lkb, status);
  if (status === "again" && (lkb.flags & NOQUEUEBAST) !== 0) tellBlockers(port, resource, lkb, wanted);
}

/** A new lock, on no queue yet, with `requested` and `flags` set. */
export function masterRequest(port: MasterPort, resource: Resource, lkb: Lkb): void {
  if (resource.convertQueue.length === 0 && resource.waitQueue.length === 0 && fits(resource, lkb)) {
    grant(port, resource, lkb);
  } else if ((lkb.flags & NOQUEUE) !== 0) {
    refuseAtOnce(port, resource, lkb, "again");
  } else {
    enqueue(resource, "waitQueue", lkb);
    tellHeads(port, resource);
  }
}

/** A granted lock asks for a mode that its own does not cover (or to read the block again). */
export function masterConvert(port: MasterPort, resource: Resource, lkb: Lkb, mode: Mode, flags: number): void {
  lkb.requested = mode;
  lkb.flags = flags;
  if (fits(resource, lkb)) {
    dequeue(resource, "grantQueue", lkb);
    grant(port, resource, lkb);
    settle(port, resource);
  } else if ((flags & NOQUEUE) !== 0) {
    refuseAtOnce(port, resource, lkb, "again");
  } else if (wouldDeadlock(resource, lkb)) {
    refuseAtOnce(port, resource, lkb, "deadlock");
  } else {
    dequeue(resource, "grantQueue", lkb);
    enqueue(resource, "convertQueue", lkb);
    tellHeads(port, resource);
  }
}

export function writeLvb(resource: Resource, write: LvbWrite, seq: number, lvb: Uint8Array | null): void {
  if (write === "none") return;
  resource.lvbSeq = seq;
  resource.lvbValid = write === "write";
  if (write === "write") resource.lvb = lvb;
}

/** The holder stepped down already (hazard H2); the block was written by then. */
export function masterDown(port: MasterPort, resource: Resource, lkb: Lkb, mode: Mode, grantNo: number): void {
  lkb.granted = mode;
  lkb.grantNo = grantNo;
  lkb.bastMode = Mode.NL;
  settle(port, resource);
}

/** Takes a lock off its queue, whatever it was waiting for. */
export function masterRemove(port: MasterPort, resource: Resource, lkb: Lkb): void {
  dequeue(resource, queueOf(lkb), lkb);
  settle(port, resource);
}

/** Nothing happens if the request is not outstanding any more: its answer is under way. */
export function masterCancel(port: MasterPort, resource: Resource, lkb: Lkb): void {
  if (lkb.requested === null) return;
  dequeue(resource, queueOf(lkb), lkb);
  lkb.requested = null;
  lkb.unordered = false;
  if (lkb.granted !== null) enqueue(resource, "grantQueue", lkb);
  port.refused(lkb, "canceled");
  settle(port, resource);
}

/**
 * After a recovery: every lock is on the queue that its state says, in no particular order. Waiters are put in the order in which they
 * asked; two conversions that wait for each other (the answer was lost) lose one of them; what may not wait is refused.
 */
export function settleRebuilt(port: MasterPort, resource: Resource): void {
  if (resource.waitQueue.length > 1) resource.waitQueue.sort((a, b) => a.sinceMs - b.sinceMs);
  if (resource.convertQueue.length > 1) resource.convertQueue.sort((a, b) => a.sinceMs - b.sinceMs);
  settle(port, resource);
  for (const lkb of [...resource.convertQueue, ...resource.waitQueue]) {
    if (lkb.requested === null) continue;
    const status = (lkb.flags & NOQUEUE) !== 0 ? "again" : lkb.granted !== null && inMutualWait(resource, lkb) ? "deadlock" : null;
    if (status === null) continue;
    dequeue(resource, queueOf(lkb), lkb);
    if (lkb.granted !== null) enqueue(resource, "grantQueue", lkb);
    refuseAtOnce(port, resource, lkb, status);
    settle(port, resource);
  }
}

function inMutualWait(resource: Resource, lkb: Lkb): boolean {
  for (const other of resource.convertQueue) {
    if (other === lkb) return false;
    const holdsBack = !modesCompatible(lkb.granted as Mode, other.requested as Mode);
    if (holdsBack && !modesCompatible(other.granted as Mode, lkb.requested as Mode)) return true;
  }
  return false;
}
