/**
 * The rules of a resource's queues, at its master: Linux fs/dlm/lock.c (can_be_granted, conversion_deadlock_detect,
 * grant_pending_locks, send_blocking_asts). Departures: conversions that a recovery queued are granted in any order for as long as they
 * wait (Linux only at the recovery itself); blocking ASTs go out for the heads of the queues, not for every waiter.
 *
 * Every function leaves the resource settled: all that may be granted is granted, and whoever blocks a head has been told.
 */
import { dequeue, enqueue, isTrade, isUnordered, type Lkb, queueOf, type Resource } from "./lkb.ts";
import type { LvbWrite, Refusal } from "../wire/peer-message.ts";
import { ALTMODE, alternativeOf, CONVDEADLK, DEMOTED, HEADQUE, NODLCKWT, NOORDER, NOQUEUE, NOQUEUEBAST, QUECVT } from "../wire/flag.ts";
import { readsLvb } from "../wire/lvb.ts";
import { joinModes, Mode, modeCovers, modeNames, modesBeside, modesCompatible } from "../wire/mode.ts";

/** How holders are told; for a lock of this node or by message. */
export interface MasterPort {
  /** The lock's fields say what it has now. */
  granted(lkb: Lkb): void;
  /** Not granted; if `lkb.granted` is null the lock is gone. */
  refused(lkb: Lkb, status: Refusal): void;
  bast(lkb: Lkb, wanted: Mode): void;
  /** Names a time on a queue: never the same again. */
  nextWaitNo(): number;
}

const MODES = modeNames.length;

/** As bits: the modes that locks of a resource have, and above them those that two have at least. */
function heldModes({ grantQueue, convertQueue }: Resource): number {
  let held = 0;
  for (const queue of [grantQueue, convertQueue]) {
    for (const { granted } of queue) {
      const bit = 1 << (granted as Mode);
      held |= (held & bit) === 0 ? bit : bit << MODES;
    }
  }
  return held;
}

/** No lock but that one has a mode beside which `mode` may not be. */
function fits(held: number, { granted }: Lkb, mode: Mode): boolean {
  const own = granted === null ? 0 : 1 << granted;
  const others = (held >> MODES) | (held & ~own & ((1 << MODES) - 1));
  return (others & ~modesBeside(mode)) === 0;
}

/** In which mode the locks beside it let this one be granted: as requested, in its alternative, not at all. `held`: of its resource. */
function fittingMode(resource: Resource, lkb: Lkb, held: number = heldModes(resource)): Mode | null {
  const requested = lkb.requested as Mode;
  if (resource.lockspace.blocked) return null;
  if (fits(held, lkb, requested)) return requested;
  const other = alternativeOf(lkb.granted, requested, lkb.flags);
  return other !== null && fits(held, lkb, other) ? other : null;
}

/** An earlier converter waits for the mode that this lock holds, and this one would wait behind it. */
function wouldDeadlock(resource: Resource, lkb: Lkb): boolean {
  for (const earlier of resource.convertQueue) {
    if (earlier !== lkb && !modesCompatible(lkb.granted as Mode, earlier.requested as Mode)) return true;
  }
  return false;
}

/** At the head of the queue (HEADQUE) it would wait for a mode that a converter behind it holds, which would wait for its turn. */
function headWouldDeadlock(resource: Resource, lkb: Lkb): boolean {
  if ((lkb.flags & HEADQUE) === 0) return false;
  return resource.convertQueue.some((behind) => !outOfOrder(behind) && !modesCompatible(behind.granted as Mode, lkb.requested as Mode));
}

/** It is on no queue. */
export function queueConversion(resource: Resource, lkb: Lkb): void {
  if (headWouldDeadlock(resource, lkb)) lkb.flags &= ~HEADQUE;
  enqueue(resource, "convertQueue", lkb);
}

function grant(port: MasterPort, resource: Resource, lkb: Lkb, mode: Mode): void {
  if (mode !== lkb.requested) lkb.sbFlags |= ALTMODE;
  lkb.lvbRead = readsLvb(lkb.granted, mode, lkb.flags);
  lkb.lvb = lkb.lvbRead ? resource.lvb : null;
  lkb.lvbValid = resource.lvbValid;
  lkb.lvbSeq = resource.lvbSeq;
  lkb.granted = mode;
  lkb.requested = null;
  lkb.unordered = false;
  lkb.canceling = null;
  lkb.waitNo = 0;
  lkb.grantNo = (lkb.grantNo + 1) >>> 0;
  lkb.bastMode = Mode.NL;
  enqueue(resource, "grantQueue", lkb);
  port.granted(lkb);
}

function tell(port: MasterPort, holder: Lkb, wanted: Mode): void {
  if (modeCovers(holder.bastMode, wanted)) return;
  holder.bastMode = joinModes(holder.bastMode, wanted);
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

/** A conversion that may be granted before those ahead of it. */
function outOfOrder(lkb: Lkb): boolean {
  return lkb.unordered || (lkb.flags & NOORDER) !== 0;
}

function tellHeads(port: MasterPort, resource: Resource): void {
  const converts = resource.convertQueue;
  // Of those that want one mode the first tells all but itself, and the second tells the first: a recovery may have left thousands.
  const first: (Lkb | null | undefined)[] = [];
  for (let i = 0; i < converts.length; i++) {
    const lkb = converts[i] as Lkb;
    const wanted = lkb.requested as Mode;
    const before = first[wanted];
    if (before === null || (i > 0 && !outOfOrder(lkb))) continue;
    if (before === undefined) tellBlockers(port, resource, lkb, wanted);
    else if (!modesCompatible(before.granted as Mode, wanted)) tell(port, before, wanted);
    first[wanted] = before === undefined ? lkb : null;
  }
  const waiters = resource.waitQueue;
  for (let i = 0; i < waiters.length; i++) {
    const lkb = waiters[i] as Lkb;
    if (i === 0 || isUnordered(lkb)) tellBlockers(port, resource, lkb, lkb.requested as Mode);
    if (resource.unordered === 0) break;
  }
}

function grantConversions(port: MasterPort, resource: Resource): void {
  if (resource.convertQueue.length === 0) return;
  let held = heldModes(resource);
  for (let i = 0; i < resource.convertQueue.length; i++) {
    const lkb = resource.convertQueue[i] as Lkb;
    const before = lkb.granted as Mode;
    const mode = i === 0 || outOfOrder(lkb) ? fittingMode(resource, lkb, held) : null;
    if (mode === null) continue;
    dequeue(resource, "convertQueue", lkb);
    grant(port, resource, lkb, mode);
    held = heldModes(resource);
    // What takes from a lock may let go those that were looked at before.
    i = modeCovers(mode, before) ? i - 1 : -1;
  }
}

function grantWaiters(port: MasterPort, resource: Resource): void {
  while (resource.convertQueue.length === 0) {
    const first = resource.waitQueue[0];
    const mode = first === undefined ? null : fittingMode(resource, first);
    if (first === undefined || mode === null) break;
    dequeue(resource, "waitQueue", first);
    grant(port, resource, first, mode);
  }
  if (resource.unordered === 0) return;
  for (const lkb of resource.waitQueue.slice()) {
    const mode = isUnordered(lkb) ? fittingMode(resource, lkb) : null;
    if (mode === null) continue;
    dequeue(resource, "waitQueue", lkb);
    grant(port, resource, lkb, mode);
  }
}

/** Grants what the queues allow, then tells the blockers of what still waits. */
export function settle(port: MasterPort, resource: Resource): void {
  if (resource.convertQueue.length === 0 && resource.waitQueue.length === 0) return;
  grantConversions(port, resource);
  grantWaiters(port, resource);
  tellHeads(port, resource);
}

function refuseAtOnce(port: MasterPort, resource: Resource, lkb: Lkb, status: Refusal): void {
  const wanted = lkb.requested as Mode;
  lkb.requested = null;
  lkb.waitNo = 0;
  port.refused(lkb, status);
  lkb.canceling = null;
  if (status === "again" && (lkb.flags & NOQUEUEBAST) !== 0) tellBlockers(port, resource, lkb, wanted);
}

/** A new lock, on no queue yet, with `requested` and `flags` set. */
export function masterRequest(port: MasterPort, resource: Resource, lkb: Lkb): void {
  const inTurn = (resource.convertQueue.length === 0 && resource.waitQueue.length === 0) || isUnordered(lkb);
  const mode = inTurn ? fittingMode(resource, lkb) : null;
  if (mode !== null) {
    grant(port, resource, lkb, mode);
    // Out of turn, it may be in the way of those who wait.
    settle(port, resource);
  } else if ((lkb.flags & NOQUEUE) !== 0) {
    refuseAtOnce(port, resource, lkb, "again");
  } else {
    lkb.waitNo = port.nextWaitNo();
    enqueue(resource, "waitQueue", lkb);
    // At the head of the queue it may be granted at once.
    settle(port, resource);
  }
}

/** The lock gives way to those whom it would wait for (CONVDEADLK). It is on the grant queue. */
function demote(port: MasterPort, resource: Resource, lkb: Lkb): void {
  lkb.granted = Mode.NL;
  lkb.sbFlags |= DEMOTED;
  lkb.grantNo = (lkb.grantNo + 1) >>> 0;
  settle(port, resource);
}

/** A granted lock asks for a mode that its own does not cover (or to read the block again). */
export function masterConvert(port: MasterPort, resource: Resource, lkb: Lkb, mode: Mode, flags: number): void {
  lkb.requested = mode;
  lkb.flags = flags;
  lkb.sbFlags = 0;
  const { blocked } = resource.lockspace;
  const inTurn = (flags & QUECVT) === 0 || resource.convertQueue.length === 0;
  let fitting = inTurn ? fittingMode(resource, lkb) : null;
  if (fitting === null && (flags & NOQUEUE) !== 0) return refuseAtOnce(port, resource, lkb, "again");
  // Where nothing is granted, nobody knows yet what would be in its way.
  lkb.unordered = blocked && inTurn;
  if (fitting === null && !lkb.unordered && wouldDeadlock(resource, lkb)) {
    if ((flags & CONVDEADLK) !== 0) {
      demote(port, resource, lkb);
      fitting = resource.convertQueue.length === 0 ? fittingMode(resource, lkb) : null;
    } else if ((flags & NODLCKWT) === 0) return refuseAtOnce(port, resource, lkb, "deadlock");
  }
  dequeue(resource, "grantQueue", lkb);
  if (fitting !== null) grant(port, resource, lkb, fitting);
  else {
    queueConversion(resource, lkb);
    lkb.waitNo = port.nextWaitNo();
  }
  settle(port, resource);
}

export function writeLvb(resource: Resource, write: LvbWrite, seq: number, lvb: Uint8Array | null): void {
  if (write === "none") return;
  resource.lvbSeq = seq;
  resource.lvbValid = write === "write";
  if (write !== "write") return;
  resource.lvb = lvb;
  // Also if it is written before a recovery has settled it.
  resource.lvbKnown = true;
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

/** Takes a request off its queue. */
export function unqueue(resource: Resource, lkb: Lkb): void {
  dequeue(resource, queueOf(lkb), lkb);
  lkb.requested = null;
  lkb.unordered = false;
  lkb.waitNo = 0;
  if (lkb.granted !== null) enqueue(resource, "grantQueue", lkb);
}

/** Nothing happens if the request is not outstanding any more: its answer is under way. */
export function masterCancel(port: MasterPort, resource: Resource, lkb: Lkb, status: "canceled" | "timeout" | "deadlock"): void {
  if (lkb.requested === null) return;
  if (mayBeDecided(resource, lkb)) {
    if (status !== "deadlock") lkb.canceling = status;
    return;
  }
  unqueue(resource, lkb);
  port.refused(lkb, status);
  lkb.canceling = null;
  settle(port, resource);
}

/**
 * After a recovery: every lock is on the queue that its state says, in no particular order. Waiters are put in the order in which they asked.
 * Then come the checks that `masterRequest` and `masterConvert` make of a request when it comes: one of two conversions that wait for each
 * other is refused, and so is a request that may not wait.
 */
export function settleRebuilt(port: MasterPort, resource: Resource): void {
  if (resource.waitQueue.length > 1) resource.waitQueue.sort(byTurn);
  if (resource.convertQueue.length > 1) resource.convertQueue.sort(byTurn);
  for (const lkb of resource.convertQueue) lkb.waitNo = port.nextWaitNo();
  for (const lkb of resource.waitQueue) lkb.waitNo = port.nextWaitNo();
  grantDecided(port, resource);
  // Taken back by another node, which heard nothing of it; one of this node was taken back anew (rebuild.ts).
  for (const lkb of resource.convertQueue.slice()) {
    if (lkb.canceling !== null && lkb.client === null) masterCancel(port, resource, lkb, "canceled");
  }
  grantHeads(port, resource);
  settle(port, resource);
  refuse(port, resource, [...resource.convertQueue, ...resource.waitQueue]);
}

/** Of these, which still wait, those that may not, and one of two that wait for each other. */
function refuse(port: MasterPort, resource: Resource, waiting: readonly Lkb[]): void {
  for (const lkb of waiting) {
    if (lkb.requested === null || mayBeDecided(resource, lkb)) continue;
    if ((lkb.flags & NOQUEUE) !== 0) giveUp(port, resource, lkb, "again");
    else endMutualWait(port, resource, lkb);
  }
}

/** Hazard H16: its master may have granted it, beside a lock of the dead, which still counts in a blocked lockspace. What it ends with shows later. */
function mayBeDecided({ lockspace }: Resource, lkb: Lkb): boolean {
  return lockspace.blocked && lkb.unordered && isTrade(lkb);
}

function endMutualWait(port: MasterPort, resource: Resource, lkb: Lkb): void {
  if (lkb.granted === null || !inMutualWait(resource, lkb)) return;
  if ((lkb.flags & CONVDEADLK) !== 0) demote(port, resource, lkb);
  else if ((lkb.flags & NODLCKWT) === 0) giveUp(port, resource, lkb, "deadlock");
}

/** A lockspace that had to know of a death waits no more. As after a recovery. */
export function settleUnblocked(port: MasterPort, resource: Resource): void {
  grantDecided(port, resource);
  for (const lkb of resource.convertQueue.slice()) if (lkb.canceling !== null) masterCancel(port, resource, lkb, "canceled");
  if (resource.waitQueue.length > 0) grantHeads(port, resource);
  settle(port, resource);
  refuse(port, resource, resource.convertQueue.slice());
}

/**
 * Hazard H16. Conversions between PR and CW that the last master has granted, and its holder has not heard of it: what another lock has shows it. Nobody may be told that such a
 * one still has its old mode, and nobody else has what excludes the new one, in a blocked lockspace either.
 */
function grantDecided(port: MasterPort, resource: Resource): void {
  const trades = resource.convertQueue.filter(isTrade);
  if (trades.length === 0) return;
  const sure = (lkb: Lkb): boolean => (lkb.granted === Mode.PR || lkb.granted === Mode.CW) && !isTrade(lkb);
  const known = resource.grantQueue.find(sure) ?? resource.convertQueue.find(sure);
  // Of two that show each other either is right, unless a lock of the dead counts: both wait, and are worth CR.
  if (known === undefined && resource.lockspace.blocked) return;
  const had = (known ?? trades[0])?.granted;
  for (const lkb of trades) {
    if (lkb.granted === had) continue;
    dequeue(resource, "convertQueue", lkb);
    grant(port, resource, lkb, lkb.requested as Mode);
  }
}

/**
 * Only here conversions come after those at the head of the queue: who has died may have had what they ask for, and they asked before that, so that nobody else has it in between
 * (hazard F42 of the overlay).
 */
function grantHeads(port: MasterPort, resource: Resource): void {
  for (const lkb of resource.waitQueue.filter(({ flags }) => (flags & HEADQUE) !== 0)) {
    const mode = fittingMode(resource, lkb);
    if (mode === null) return;
    dequeue(resource, "waitQueue", lkb);
    grant(port, resource, lkb, mode);
  }
}

/** As `enqueue` put them: what came with HEADQUE is first, and the last of these before the others. */
function byTurn(a: Lkb, b: Lkb): number {
  const [first, second] = [a, b].map(({ flags }) => (flags & HEADQUE) !== 0) as [boolean, boolean];
  if (first !== second) return first ? -1 : 1;
  return first ? b.sinceMs - a.sinceMs : a.sinceMs - b.sinceMs;
}

function giveUp(port: MasterPort, resource: Resource, lkb: Lkb, status: Refusal): void {
  dequeue(resource, queueOf(lkb), lkb);
  if (lkb.granted !== null) enqueue(resource, "grantQueue", lkb);
  refuseAtOnce(port, resource, lkb, status);
  settle(port, resource);
}

function inMutualWait(resource: Resource, lkb: Lkb): boolean {
  for (const other of resource.convertQueue) {
    if (other === lkb) return false;
    const holdsBack = !modesCompatible(lkb.granted as Mode, other.requested as Mode);
    if (holdsBack && !modesCompatible(other.granted as Mode, lkb.requested as Mode)) return true;
  }
  return false;
}
