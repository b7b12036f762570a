/**
 * The master of a resource moves to a node that uses it. Its *home*, found by the hash (mastering.ts), is master at first; when the locks
 * that are converted are all of other nodes (`moveAfter` conversions in a row, no request of a node without a lock between them, no lock of the
 * home's own), it gives the resource to the node of the last one. That one gives it back when it has no lock on it itself and others use it, or nobody
 * has. Only homes give away, the others only give back, so there is one move of a resource at a time. (Linux keeps a directory for
 * the same end; there the first who asks is the master for good.)
 *
 * On the channels between nodes, which are FIFO:
 *
 *   move-begin  the master to all who have locks on it, and to the next master. The queues stand still: what comes is taken in (take-in.ts)
 *   move-ready  from each: what its clients ask for waits there from now on, all that it had said is before this
 *   move-state  to the next master, when all are ready. The old one has no queues any more
 *   moved       the next master to all who wait, before anything else about it: what waits goes there
 *
 * Who has no lock on a resource knows nothing of this and asks its home, which takes the request in, has that node wait in the same way (move-begin,
 * move-ready), and hands over what it had said (move-join); the master tells it "moved". So a node that has asked for a lock always knows which
 * node is to hear what it says next, and one that does not have a master is told of one. "moved" names the move-begin that it ends: a
 * node obeys a move-begin only of the node that it takes for the master, and answers any other ("nothing about it comes from here").
 *
 * If somebody is not ready within `moveLimitMs` the old master stays it, and says "moved" itself. A view change ends all moves: what is
 * not at its home, as far as any node knows, is named anew to the home by all who hold locks (recovery/rebuild.ts).
 */
import { assert } from "../base/assert.ts";
import { waitedSince } from "../wire/peer-field.ts";
import type { HolderMessage, PeerMessage } from "../wire/peer-message.ts";
import {
  movableLocks,
  type MovedLock,
  type MovedMessage,
  type MoveBeginMessage,
  type MoveJoinMessage,
  type MoveReadyMessage,
  type MoveStateMessage,
  type Told,
} from "../wire/peer-move.ts";
import { type Displaced, isMoving, newDisplaced } from "./displaced.ts";
import type { LockPort } from "./holder.ts";
import { append, clearQueues, dequeue, enqueue, isIdle, type Lkb, newLkb, queueOf, type Resource } from "./lkb.ts";
import type { LockTables } from "./lock-tables.ts";
import { type MasterPort, masterRequest, settleQueued, unqueue, writeLvb } from "./master.ts";

/** Resources of which a node knows that they are elsewhere; its own go nowhere beyond that. A recovery names them all anew. */
const displacedLimit = 8192;
/** A master that waits so long for somebody to be ready stays the master. */
const moveLimitMs = 50;
/** After that, so many times the usual conversions must come before it tries again: whoever stands still does so for a while. */
const patience = 64;
/** A resource with more locks is not searched for those of a node at each request. */
const searchedLocks = 64;

export class Moves {
  readonly #tables: LockTables;
  readonly #port: LockPort;
  readonly #master: MasterPort;
  readonly #after: number;
  /** What leaves this node, and until when it waits for others; the earliest first. */
  readonly #leaving: Map<Resource, number> = new Map();
  #lastNo = 0;
  /** Resources that this node got. */
  arrived = 0;

  /** `after`: conversions; 0: nothing is moved from here. */
  constructor(tables: LockTables, port: LockPort, master: MasterPort, after: number) {
    this.#tables = tables;
    this.#port = port;
    this.#master = master;
    this.#after = after;
    tables.idle = (resource) => this.#leave(resource, tables.homeOf(resource));
  }

  // ---------------------------------------------------------------------------------------------------------- when

  /** That node has asked for a new lock. */
  requested(resource: Resource, from: number): void {
    // At home: somebody who does not know where it is would have a longer way; who has a lock on it knows.
    if (this.#tables.displaced.has(resource) || hasOther(resource, from)) this.converted(resource, from);
    else resource.foreign = Math.min(resource.foreign, 0);
  }

  /** A lock of that node was converted, or waits to be; or it has asked for one more. */
  converted(resource: Resource, from: number): void {
    resource.foreign = resource.held > 0 ? Math.min(resource.foreign, 0) : resource.foreign + 1;
    if (this.#after === 0 || resource.foreign < this.#after) return;
    resource.foreign = 0;
    const { grantQueue, convertQueue, waitQueue } = resource;
    if (resource.lockspace.blocked || grantQueue.length + convertQueue.length + waitQueue.length > movableLocks) return;
    const { displaced } = this.#tables;
    if (displaced.has(resource)) this.#leave(resource, this.#tables.homeOf(resource));
    else if (displaced.size < displacedLimit) this.#leave(resource, from);
  }

  /** When `expire` has something to do; Infinity: never. */
  get deadlineMs(): number {
    for (const [resource, untilMs] of this.#leaving) {
      if (this.#isLeaving(resource)) return untilMs;
      this.#leaving.delete(resource);
    }
    return Number.POSITIVE_INFINITY;
  }

  expire(nowMs: number): void {
    for (let untilMs = this.deadlineMs; untilMs <= nowMs; untilMs = this.deadlineMs) {
      const resource = this.#leaving.keys().next().value as Resource;
      const entry = this.#tables.displaced.get(resource) as Displaced;
      this.#leaving.delete(resource);
      // Nobody waits for what has no locks.
      if (isIdle(resource) && entry.waiting.length === 0) this.#leaving.set(resource, nowMs + moveLimitMs);
      else this.#giveUp(resource, entry);
    }
  }

  #giveUp(resource: Resource, entry: Displaced): void {
    this.#enter(resource, entry, new Map());
    resource.foreign = -patience * this.#after;
  }

  #isLeaving(resource: Resource): boolean {
    return (this.#tables.displaced.get(resource)?.to ?? 0) !== 0;
  }

  // -------------------------------------------------------------------------------------------- at the old master

  #leave(resource: Resource, to: number): void {
    const { displaced, nowMs } = this.#tables;
    const entry = displaced.get(resource) ?? newDisplaced();
    displaced.set(resource, entry);
    entry.to = to;
    this.#leaving.delete(resource);
    this.#leaving.set(resource, nowMs + moveLimitMs);
    // Whoever was refused may have asked again already.
    const users = new Set([to, ...locksOf(resource).map((lkb) => lkb.nodeid), ...entry.users]);
    for (const nodeid of users) this.invite(resource, entry, nodeid);
  }

  /** That node must wait, and be ready: what it says is taken in until then. */
  invite(resource: Resource, entry: Displaced, nodeid: number): void {
    if (entry.invited.get(nodeid)?.ready === false) return;
    const no = (this.#lastNo = (this.#lastNo + 1) >>> 0);
    entry.invited.set(nodeid, { no, ready: false });
    this.#port.toPeer(nodeid, { kind: "move-begin", ...nameOf(resource), no });
  }

  #receiveReady(from: number, { no }: MoveReadyMessage, resource: Resource | undefined): void {
    const entry = resource === undefined ? undefined : this.#tables.displaced.get(resource);
    const invited = entry?.invited.get(from);
    // Of a move that was given up.
    if (resource === undefined || entry === undefined || invited?.no !== no) return;
    invited.ready = true;
    if (entry.to === 0) return this.#handOver(resource, entry);
    for (const { ready } of entry.invited.values()) if (!ready) return;
    this.#send(resource, entry);
  }

  #send(resource: Resource, entry: Displaced): void {
    const { to } = entry;
    const tables = this.#tables;
    const locks = locksOf(resource);
    const atHome = to === tables.homeOf(resource);
    // Who has let go of his locks may have forgotten the resource, too.
    const wanted = atHome || locks.some((lkb) => lkb.nodeid === to);
    if (!wanted || locks.length > movableLocks) return this.#enter(resource, entry, new Map());
    assert(
      locks.every((lkb) => lkb.nodeid !== tables.nodeid),
      `${resource.name} leaves with a lock of this node`,
    );
    const { lvbSeq, lvbValid, lvb } = resource;
    const told = this.#toldBy(entry);
    this.#port.toPeer(to, { kind: "move-state", ...nameOf(resource), lvbSeq, lvbValid, lvb, told, locks: this.#describe(locks) });
    for (const lkb of locks) tables.mastered(lkb.nodeid).delete(lkb.id);
    clearQueues(resource);
    resource.lvb = null;
    resource.lvbKnown = false;
    this.#settleDown(resource, entry, to);
  }

  #toldBy({ invited, ready }: Displaced): Told[] {
    return [...ready, ...[...invited].map(([nodeid, { no }]) => ({ nodeid, by: this.#tables.nodeid, no }))];
  }

  #describe(locks: readonly Lkb[]): MovedLock[] {
    return locks.map((lkb) => ({
      nodeid: lkb.nodeid,
      lkbId: lkb.id,
      clientId: lkb.clientId,
      granted: lkb.granted,
      requested: lkb.requested,
      flags: lkb.flags,
      sbFlags: lkb.sbFlags,
      grantNo: lkb.grantNo,
      transaction: lkb.transaction,
      bastMode: lkb.bastMode,
      unordered: lkb.unordered,
      waitedMs: waitedSince(lkb.sinceMs, this.#tables.nowMs),
    }));
  }

  // -------------------------------------------------------------------------------------------- at the new master

  #receiveState(from: number, m: MoveStateMessage): void {
    const resource = this.#find(m);
    const entry = resource === undefined ? undefined : this.#tables.displaced.get(resource);
    if (resource === undefined || entry?.told?.by !== from) return this.#port.protest(from, `${m.resource} was not to move here`);
    if (this.#namesStranger(from, m)) return;
    // Requests that its home took in go behind what its master had.
    const asked = resource.waitQueue;
    clearQueues(resource);
    resource.masterNodeid = this.#tables.nodeid;
    resource.lvb = m.lvb;
    resource.lvbSeq = m.lvbSeq;
    resource.lvbValid = m.lvbValid;
    resource.lvbKnown = true;
    const own = new Map<number, Lkb>();
    for (const lock of m.locks) this.#place(resource, lock, own);
    for (const lkb of asked) enqueue(resource, "waitQueue", lkb);
    entry.ready.push(...m.told);
    this.arrived++;
    this.#enter(resource, entry, own);
  }

  /** As the old master had it; a lock of a client of this node as the client has it now. */
  #place(resource: Resource, m: MovedLock, own: Map<number, Lkb>): void {
    const { heldElsewhere, nodeid } = this.#tables;
    const lkb = m.nodeid === nodeid ? heldElsewhere.get(m.lkbId) : this.#add(resource, m);
    // Given up meanwhile.
    if (lkb === undefined) return;
    if (m.nodeid === nodeid) {
      heldElsewhere.delete(lkb.id);
      own.set(lkb.id, lkb);
      if (m.requested !== null) follow(lkb, m);
    }
    lkb.unordered = m.unordered;
    append(resource, queueOf(m), lkb);
  }

  /** A lock of another node. */
  #add(resource: Resource, m: MovedLock): Lkb {
    const lkb = newLkb(resource, m.nodeid, m.lkbId, null, m.clientId, 0);
    lkb.requested = m.requested;
    lkb.flags = m.flags;
    lkb.transaction = m.transaction;
    lkb.bastMode = m.bastMode;
    lkb.sinceMs = this.#tables.nowMs - m.waitedMs;
    follow(lkb, m);
    this.#tables.mastered(m.nodeid).set(lkb.id, lkb);
    return lkb;
  }

  /** This node is the master, or stays it: who waits is told first of all, then what can be granted is. `own`: its clients' locks, placed. */
  #enter(resource: Resource, entry: Displaced, own: Map<number, Lkb>): void {
    const { nodeid: self } = this.#tables;
    this.#tellMoved(resource, entry, this.#toldBy(entry));
    // Still on the way: what a cancel leaves empty is not given back in the middle of it.
    for (const message of this.#tables.takeUnsent(entry)) this.#takeOwn(resource, message, own);
    this.#settleDown(resource, entry, self);
    resource.foreign = 0;
    settleQueued(this.#master, resource);
    this.#tables.release(resource);
  }

  #tellMoved(resource: Resource, { users }: Displaced, told: readonly Told[]): void {
    for (const { nodeid, by, no } of told) {
      if (nodeid === this.#tables.nodeid) continue;
      users.add(nodeid);
      this.#port.toPeer(nodeid, { kind: "moved", ...nameOf(resource), by, no });
    }
  }

  /** What a client of this node asked for while there was no master. */
  #takeOwn(resource: Resource, m: HolderMessage, own: Map<number, Lkb>): void {
    if (m.kind === "down" || m.kind === "unlock") return writeLvb(resource, m.lvbWrite, m.lvbSeq, m.lvb);
    if (m.kind === "request") {
      const asked = this.#tables.heldElsewhere.get(m.lkbId);
      if (asked === undefined) return;
      this.#tables.heldElsewhere.delete(asked.id);
      own.set(asked.id, asked);
      return enqueue(resource, "waitQueue", asked);
    }
    const lkb = own.get(m.lkbId);
    // Given up meanwhile, or granted already.
    if (lkb === undefined || lkb.requested === null) return;
    if (m.kind === "convert") {
      dequeue(resource, "grantQueue", lkb);
      lkb.unordered = true;
      enqueue(resource, "convertQueue", lkb);
    } else if (m.kind === "cancel") {
      unqueue(resource, lkb);
      this.#master.refused(lkb, "canceled");
    }
  }

  // ---------------------------------------------------------------------------------------------------- at holders

  #receiveBegin(from: number, { no, lockspace, resource: name }: MoveBeginMessage, resource: Resource | undefined): void {
    if (resource !== undefined && resource.masterNodeid === from) {
      const { displaced, nodeid } = this.#tables;
      const entry = displaced.get(resource) ?? newDisplaced();
      displaced.set(resource, entry);
      entry.told = { nodeid, by: from, no };
    }
    this.#port.toPeer(from, { kind: "move-ready", lockspace, resource: name, no });
  }

  #receiveMoved(from: number, { by, no }: MovedMessage, resource: Resource | undefined): void {
    const entry = resource === undefined ? undefined : this.#tables.displaced.get(resource);
    if (resource === undefined || entry === undefined || entry.told?.by !== by || entry.told.no !== no) return;
    this.#settleDown(resource, entry, from);
  }

  /** That node is the master; what waits goes there. */
  #settleDown(resource: Resource, entry: Displaced, master: number): void {
    const tables = this.#tables;
    const { invited, ready } = entry;
    const home = tables.homeOf(resource);
    // (A home that was to become the master, and does not, goes on with whom it has invited.)
    if (entry.told === null || master === tables.nodeid) {
      invited.clear();
      ready.length = 0;
    }
    if (master !== tables.nodeid) entry.users.clear();
    entry.to = 0;
    entry.told = null;
    resource.masterNodeid = master;
    if (master === home) tables.displaced.delete(resource);
    for (const message of tables.takeUnsent(entry)) this.#port.toPeer(master, message);
    if (master === tables.nodeid) return;
    if (home === tables.nodeid) this.#handOver(resource, entry);
    tables.release(resource);
  }

  // -------------------------------------------------------------------------------------------------- at the home

  /** What nodes that are ready had asked for goes to the master. */
  #handOver(resource: Resource, entry: Displaced): void {
    if (isMoving(entry)) return;
    const { nodeid: self } = this.#tables;
    for (const [nodeid, { no, ready }] of entry.invited) {
      if (!ready) continue;
      entry.invited.delete(nodeid);
      const locks = resource.waitQueue.filter((lkb) => lkb.nodeid === nodeid);
      for (const lkb of locks) {
        dequeue(resource, "waitQueue", lkb);
        this.#tables.mastered(nodeid).delete(lkb.id);
      }
      const described = this.#describe(locks);
      for (let at = 0; at === 0 || at < described.length; at += movableLocks) {
        const told = at + movableLocks < described.length ? [] : [{ nodeid, by: self, no }];
        const some = described.slice(at, at + movableLocks);
        this.#port.toPeer(resource.masterNodeid, { kind: "move-join", ...nameOf(resource), told, locks: some });
      }
    }
  }

  #receiveJoin(from: number, m: MoveJoinMessage, resource: Resource | undefined): void {
    const { nodeid: self, displaced } = this.#tables;
    const entry = resource === undefined ? undefined : displaced.get(resource);
    if (resource === undefined || entry === undefined || resource.masterNodeid !== self) {
      return this.#port.protest(from, `${m.resource} is not mastered here`);
    }
    if (this.#namesStranger(from, m)) return;
    if (isMoving(entry)) entry.ready.push(...m.told);
    else this.#tellMoved(resource, entry, m.told);
    for (const lock of m.locks) {
      const lkb = this.#add(resource, lock);
      // A refusal may leave it empty, and then it is given back.
      if (isMoving(entry)) enqueue(resource, "waitQueue", lkb);
      else masterRequest(this.#master, resource, lkb);
    }
    if (!isMoving(entry)) this.requested(resource, from);
    this.#tables.release(resource);
  }

  // ------------------------------------------------------------------------------------------------------ messages

  /** A node that nothing can be sent to, since it is not in the view. */
  #namesStranger(from: number, { resource, told, locks }: MoveStateMessage | MoveJoinMessage): boolean {
    const { members } = this.#tables;
    const stranger = [...told, ...locks].find(({ nodeid }) => !members.some((member) => member.nodeid === nodeid));
    if (stranger === undefined) return false;
    this.#port.protest(from, `${resource} is used by node ${stranger.nodeid}, which is not in the view`);
    return true;
  }

  #find({ lockspace, resource }: { readonly lockspace: string; readonly resource: string }): Resource | undefined {
    return this.#tables.lockspaces.get(lockspace)?.resources.get(resource);
  }

  /** Of a member of the view that runs. False: it is none of them. */
  receive(from: number, m: PeerMessage): boolean {
    switch (m.kind) {
      case "move-begin":
        this.#receiveBegin(from, m, this.#find(m));
        return true;
      case "move-ready":
        this.#receiveReady(from, m, this.#find(m));
        return true;
      case "move-state":
        this.#receiveState(from, m);
        return true;
      case "move-join":
        this.#receiveJoin(from, m, this.#find(m));
        return true;
      case "moved":
        this.#receiveMoved(from, m, this.#find(m));
        return true;
      default:
        return false;
    }
  }
}

/** What its master has given it. */
function follow(lkb: Lkb, { granted, grantNo, sbFlags }: MovedLock): void {
  lkb.granted = granted;
  lkb.grantNo = grantNo;
  lkb.sbFlags = sbFlags;
}

function nameOf(resource: Resource): { lockspace: string; resource: string } {
  return { lockspace: resource.lockspace.name, resource: resource.name };
}

/** That node has a lock on it beside the one it has just asked for. */
function hasOther({ grantQueue, convertQueue, waitQueue }: Resource, nodeid: number): boolean {
  if (grantQueue.length + convertQueue.length + waitQueue.length > searchedLocks) return false;
  let own = 0;
  for (const queue of [grantQueue, convertQueue, waitQueue]) for (const lkb of queue) if (lkb.nodeid === nodeid) own += 1;
  return own > 1;
}

function locksOf({ grantQueue, convertQueue, waitQueue }: Resource): Lkb[] {
  return [...grantQueue, ...convertQueue, ...waitQueue];
}
