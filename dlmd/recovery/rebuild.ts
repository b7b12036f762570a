/**
 * Locks of a new view (Linux fs/dlm/recover.c). Where a master survived and is still the master, its queues stay as they are, without
 * the locks of the dead. What has another master now is named by its holders to that one, and the old master hands over the value block.
 * If the tables of the members are not of one and the same view, or messages were lost, everything is named anew.
 *
 * Granted modes are the holders': a conversion down took effect when it was sent, so the union of what holders have is never
 * more than what the old masters granted. New requests and conversions up are queued anew (hazard H2).
 *
 * The work is done in steps, so that heartbeats and clients go on meanwhile.
 */
import { takeSteps } from "../base/steps.ts";
import { CONVDEADLK, DEMOTED } from "../wire/flag.ts";
import { clearQueues, dequeue, isIdle, isTrade, type Lkb, newLkb, queueOf, type Resource, type LockClient } from "../lock/lkb.ts";
import type { LockManager } from "../lock/lock-manager.ts";
import { settleRebuilt } from "../lock/master.ts";
import { masterOf } from "../lock/mastering.ts";
import { Mode } from "../wire/mode.ts";
import { waitedSince } from "../wire/peer-field.ts";
import type { OfferMessage, PeerMessage, RebuildMessage } from "../wire/peer-message.ts";
import { hasMember, type Member, noIncarnation } from "../wire/view-id.ts";
import type { LateMessages } from "./late-messages.ts";
import { receiveOffer } from "./newest-block.ts";

type Send = (nodeid: number, message: PeerMessage) => void;

export interface Change {
  /** Members of the view whose tables the manager has. */
  readonly before: readonly Member[];
  readonly members: readonly Member[];
  /** Messages of these members were lost, as of now: copied, since blocks are looked at in later turns. */
  readonly lossy: ReadonlySet<number>;
  /** Every member has whole tables of one and the same view: what keeps its master stays where it is. */
  readonly incremental: boolean;
}

export class Rebuild {
  readonly #manager: LockManager;
  readonly #change: Change;
  readonly #send: Send;
  /**
   * One time for all that is named by this node and to it, however many turns that takes, and however long a message waits for its reader:
   * waiters are put in the order of their ages.
   */
  readonly #startedMs: number;
  readonly #steps: Iterator<void>;
  readonly #survivors: ReadonlySet<number>;
  readonly #joins: boolean;
  /** What these wrote may be unknown here, as of now and as of a rebuild that was given up before it had looked at every block. */
  readonly #unread: Set<number>;
  /** Resources of which something changed and that are not settled; true: their value block too. */
  readonly #touched: Map<Resource, boolean>;
  #settling: Iterator<void> | null = null;

  /** `unsettled`: the last rebuild, if it was given up; whole or not, what it has changed is yet to be settled. */
  constructor(
    manager: LockManager,
    clients: Iterable<LockClient>,
    change: Change,
    late: LateMessages,
    unsettled: Rebuild | null,
    send: Send,
  ) {
    this.#manager = manager;
    this.#change = change;
    this.#send = send;
    this.#touched = new Map(unsettled === null ? [] : unsettled.#touched);
    const { before, members } = change;
    const tables = manager.tables;
    this.#startedMs = tables.nowMs;
    this.#survivors = new Set(before.filter((member) => hasMember(members, member.nodeid, member.incarnation)).map(({ nodeid }) => nodeid));
    this.#unread = new Set([...(unsettled === null ? [] : unsettled.#unread), ...change.lossy]);
    for (const { nodeid } of before) if (!this.#survivors.has(nodeid)) this.#unread.add(nodeid);
    this.#joins = members.some(({ nodeid }) => !this.#survivors.has(nodeid));
    tables.rebuilding = true;
    // First of all, and still in the old tables: what this node and survivors had done before they stopped.
    late.apply(
      manager,
      members,
      (lockspace, name) => this.#stays(lockspace, name),
      (resource) => this.#touch(resource),
    );
    tables.round++;
    tables.members = members;
    for (const nodeid of tables.masteredFor.keys()) if (!this.#survivors.has(nodeid)) tables.masteredFor.delete(nodeid);
    this.#steps = this.#work(clients);
  }

  #touch(resource: Resource, block = false): void {
    this.#touched.set(resource, block || this.#touched.get(resource) === true);
  }

  /** Whether the queues of a resource that this node masters stay here. */
  #stays(lockspace: string, name: string): boolean {
    const { incremental, before, members } = this.#change;
    const self = this.#manager.nodeid;
    if (!incremental || masterOf(before, lockspace, name) !== self) return false;
    return !this.#joins || masterOf(members, lockspace, name) === self;
  }

  /** Does so many resources and locks. True: all of them are done. */
  step(budget: number): boolean {
    return takeSteps(this.#steps, budget);
  }

  *#work(clients: Iterable<LockClient>): Generator<void> {
    for (const lockspace of this.#manager.tables.lockspaces.values()) {
      for (const resource of lockspace.resources.values()) {
        this.#move(resource);
        yield;
      }
    }
    this.#unread.clear();
    for (const client of clients) {
      // (Deleting the entry just visited is safe in a Map.)
      for (const lkb of client.locks.values()) {
        this.#name(lkb);
        yield;
      }
    }
  }

  // ------------------------------------------------------------------------------------------------------ resources

  /** Blocking ASTs are sent again after a recovery: the time to answer them begins anew (hazard H13). */
  #tellAnew(resource: Resource): void {
    if (resource.convertQueue.length === 0 && resource.waitQueue.length === 0) return;
    for (const queue of [resource.grantQueue, resource.convertQueue]) {
      for (const lkb of queue) {
        if (lkb.bastMode === Mode.NL) continue;
        lkb.bastMode = Mode.NL;
        this.#touch(resource);
      }
    }
  }

  #move(resource: Resource): void {
    const { tables, nodeid: self } = this.#manager;
    if (resource.round === tables.round) return;
    resource.round = tables.round;
    const { members, incremental } = this.#change;
    const old = resource.masterNodeid;
    const survived = this.#survivors.has(old);
    // A rebuild that was given up has looked at some resources only: then nodes agree on the new master alone.
    const stays = incremental && survived && !this.#joins;
    const master = stays ? old : masterOf(members, resource.lockspace.name, resource.name);
    if (incremental && survived && master === old) {
      if (old === self) {
        this.#purge(resource);
        this.#tellAnew(resource);
      }
      if (resource.held === 0 && isIdle(resource)) this.#touch(resource);
      return;
    }
    this.#checkWriter(resource);
    this.#touch(resource, true);
    resource.moved = tables.round;
    this.#forgetOthers(resource);
    clearQueues(resource);
    resource.masterNodeid = master;
    if (master !== self && resource.lvbKnown) this.#offer(resource);
  }

  /** The locks of the dead go; it stays what it was otherwise. */
  #purge(resource: Resource): void {
    const dead: Lkb[] = [];
    for (const queue of [resource.grantQueue, resource.convertQueue, resource.waitQueue]) {
      for (const lkb of queue) if (!this.#survivors.has(lkb.nodeid)) dead.push(lkb);
    }
    if (dead.length === 0) return;
    this.#checkWriter(resource);
    for (const lkb of dead) dequeue(resource, queueOf(lkb), lkb);
    this.#touch(resource);
  }

  /** Its queues are cleared: what it had of other nodes is theirs to name. */
  #forgetOthers(resource: Resource): void {
    const { tables, nodeid: self } = this.#manager;
    for (const queue of [resource.grantQueue, resource.convertQueue, resource.waitQueue]) {
      for (const lkb of queue) if (lkb.nodeid !== self) tables.masteredFor.get(lkb.nodeid)?.delete(lkb.id);
    }
  }

  /** Whoever may have written the block since it was known here is dead, or messages of its were lost: then it is not valid. */
  #checkWriter(resource: Resource): void {
    const { members } = this.#change;
    const writer = resource.lvbKnown ? (this.#writerOf(resource) ?? resource.writer) : null;
    const lost = writer !== null && (this.#unread.has(writer.nodeid) || !hasMember(members, writer.nodeid, writer.incarnation));
    if (lost) {
      resource.lvbValid = false;
      resource.lvbSeq++;
    }
    resource.writer = lost ? null : writer;
  }

  /**
   * The node that may be writing the block: there is one at most, since PW and EX exclude each other. The flags are those of its
   * last request, and say nothing of the next. This node, too: who is offered the block
   * does not know its locks yet, and may never.
   */
  #writerOf(resource: Resource): Member | null {
    for (const queue of [resource.grantQueue, resource.convertQueue]) {
      for (const lkb of queue) {
        if (lkb.granted === null || lkb.granted < Mode.PW) continue;
        const { nodeid } = lkb;
        return this.#change.before.find((member) => member.nodeid === nodeid) ?? { nodeid, incarnation: noIncarnation };
      }
    }
    return null;
  }

  #offer(resource: Resource): void {
    const { name, lockspace, lvbSeq, lvbValid, lvb, writer } = resource;
    this.#send(resource.masterNodeid, { kind: "offer", lockspace: lockspace.name, resource: name, lvbSeq, lvbValid, lvb, writer });
    resource.lvbKnown = false;
    resource.lvb = null;
    resource.writer = null;
  }

  // ---------------------------------------------------------------------------------------------------------- locks

  /** One of our clients' locks, to its new master if it has one. */
  #name(lkb: Lkb): void {
    const { tables, holder, nodeid: self } = this.#manager;
    const resource = lkb.resource;
    if (resource.moved !== tables.round) return;
    const elsewhere = tables.heldElsewhere.delete(lkb.id);
    // Its master may have demoted it already, and somebody else may have what it gave up: also if the conversion is being taken back.
    if (elsewhere && lkb.granted !== null && lkb.requested !== null && (lkb.flags & CONVDEADLK) !== 0) demoteRebuilt(lkb);
    // What was being taken back is not asked for again. But its master may have granted a trade before, and that shows only when all locks are named (hazard H16).
    if (lkb.canceling !== null && isTrade(lkb)) holder.cancelAgain(lkb);
    else if (lkb.canceling !== null) holder.completeCancel(lkb);
    if (lkb.granted === null && lkb.requested === null) return;
    lkb.waitNo = 0;
    if (resource.masterNodeid === self) return tables.place(lkb);
    tables.heldElsewhere.set(lkb.id, lkb);
    this.#send(resource.masterNodeid, {
      kind: "rebuild",
      lkbId: lkb.id,
      clientId: lkb.clientId,
      lockspace: resource.lockspace.name,
      resource: resource.name,
      granted: lkb.granted,
      requested: lkb.requested,
      flags: lkb.flags,
      grantNo: lkb.grantNo,
      transaction: lkb.transaction,
      waitedMs: lkb.requested === null ? 0 : waitedSince(lkb.sinceMs, this.#startedMs),
      lvbSeq: lkb.lvbSeq,
      lvbRead: lkb.lvbRead,
      lvbValid: lkb.lvbValid,
      lvb: lkb.lvb,
    });
  }

  /** False: not one of ours to master. */
  receiveLock(from: number, m: RebuildMessage): boolean {
    const { tables, nodeid: self } = this.#manager;
    const resource = tables.resource(tables.lockspace(m.lockspace), m.resource);
    // It may be here from before.
    this.#move(resource);
    const locks = tables.mastered(from);
    if (resource.masterNodeid !== self || locks.has(m.lkbId) || (m.granted === null && m.requested === null)) return false;
    this.#touch(resource, true);
    const lkb = newLkb(resource, from, m.lkbId, null, m.clientId, 0);
    lkb.granted = m.granted;
    lkb.requested = m.requested;
    lkb.flags = m.flags;
    lkb.grantNo = m.grantNo;
    lkb.transaction = m.transaction;
    lkb.sinceMs = this.#startedMs - m.waitedMs;
    lkb.lvbSeq = m.lvbSeq;
    lkb.lvbRead = m.lvbRead;
    lkb.lvbValid = m.lvbValid;
    lkb.lvb = m.lvb;
    locks.set(m.lkbId, lkb);
    tables.place(lkb);
    return true;
  }

  receiveOffer(m: OfferMessage): void {
    const resource = this.#manager.tables.lockspaces.get(m.lockspace)?.resources.get(m.resource);
    if (resource !== undefined) this.#move(resource);
    this.#touch(receiveOffer(this.#manager, m), true);
  }

  // ------------------------------------------------------------------------------------------------------ at the end

  /** All members have named their locks: value blocks are settled, what can be granted is granted. True: done. */
  settle(budget: number): boolean {
    this.#settling ??= this.#finish();
    return takeSteps(this.#settling, budget);
  }

  *#finish(): Generator<void> {
    const { tables, nodeid: self } = this.#manager;
    tables.rebuilding = false;
    for (const [resource, block] of this.#touched) {
      this.#touched.delete(resource);
      if (resource.masterNodeid === self) {
        if (block) settleLvb(resource);
        resource.writer = null;
        settleRebuilt(this.#manager, resource);
      }
      tables.release(resource);
      yield;
    }
  }
}

function demoteRebuilt(lkb: Lkb): void {
  if (lkb.granted === Mode.NL) return;
  lkb.granted = Mode.NL;
  lkb.sbFlags |= DEMOTED;
  lkb.grantNo = (lkb.grantNo + 1) >>> 0;
}

/**
 * The block of a rebuilt resource: that of any lock above CR (no other can have written since that one read or wrote it); else what the
 * old master knew; else the highest sequence that a lock has seen, marked not valid (Linux recover_lvb).
 */
export function settleLvb(resource: Resource): void {
  let newest: Lkb | null = null;
  let above: Lkb | null = null;
  let seq = resource.lvbKnown ? resource.lvbSeq : 0;
  for (const queue of [resource.grantQueue, resource.convertQueue]) {
    for (const lkb of queue) {
      seq = Math.max(seq, lkb.lvbSeq);
      if (!lkb.lvbRead) continue;
      if (newest === null || lkb.lvbSeq > newest.lvbSeq) newest = lkb;
      if ((lkb.granted as Mode) > Mode.CR && (above === null || lkb.lvbSeq > above.lvbSeq)) above = lkb;
    }
  }
  if (above !== null) {
    resource.lvb = above.lvb;
    resource.lvbValid = above.lvbValid;
  } else if (!resource.lvbKnown || seq > resource.lvbSeq) {
    if (newest !== null) resource.lvb = newest.lvb;
    resource.lvbValid = false;
  }
  resource.lvbSeq = seq;
  resource.lvbKnown = true;
}
