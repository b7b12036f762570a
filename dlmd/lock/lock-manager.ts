/**
 * The lock manager of one node while its lock service runs: requests of its clients (holder.ts), messages of its peers, queues of
 * what it masters (master.ts). Linux fs/dlm/lock.c. Its tables are rebuilt between views by recovery/rebuild.ts.
 */
import type { StepTime } from "../base/step-time.ts";
import type { AdoptedMessage, HolderMessage, PeerMessage, Refusal, RequestMessage } from "../wire/peer-message.ts";
import { type DeadlockPort, Deadlocks } from "./deadlock.ts";
import { Holder, type LockPort } from "./holder.ts";
import { type Lkb, newLkb, type Resource } from "./lkb.ts";
import { LockTables } from "./lock-tables.ts";
import {
  masterCancel,
  masterConvert,
  masterDown,
  type MasterPort,
  masterRemove,
  masterRequest,
  settleUnblocked,
  writeLvb,
} from "./master.ts";
import { type Mode, modeCovers } from "../wire/mode.ts";

/** Each with what happens at it. */
export interface LockLimits {
  /** A client's lock beyond this ends with error ENOLCK. */
  readonly locksPerClient: number;
  /** Messages of one peer that wait for a newer view or the end of recovery; beyond: `pause-peer` until they are used. */
  readonly savedMessagesPerPeer: number;
  /** A lock of a transaction that has waited so long is looked at for a deadlock; a second by default. */
  readonly deadlockAfterMs: number;
}

export class LockManager implements MasterPort {
  readonly nodeid: number;
  readonly tables: LockTables;
  readonly holder: Holder;
  readonly deadlocks: Deadlocks;
  readonly #port: LockPort;
  #lastWaitNo = 0;

  constructor(nodeid: number, time: StepTime, port: LockPort, limits: LockLimits) {
    this.nodeid = nodeid;
    this.tables = new LockTables(nodeid, time, port);
    this.#port = port;
    this.holder = new Holder(this.tables, port, this, limits.locksPerClient);
    const breaker: DeadlockPort = {
      send: (to, message) => port.toPeer(to, message),
      refuse: (lkb) => masterCancel(this, lkb.resource, lkb, "deadlock"),
    };
    this.deadlocks = new Deadlocks(this.tables, breaker, limits.deadlockAfterMs);
  }

  // ------------------------------------------------------------------------------------------- MasterPort: to holders

  nextWaitNo(): number {
    return ++this.#lastWaitNo;
  }

  granted(lkb: Lkb): void {
    if (lkb.nodeid === this.nodeid) return this.holder.granted(lkb);
    this.#port.toPeer(lkb.nodeid, {
      kind: "grant",
      lkbId: lkb.id,
      grantNo: lkb.grantNo,
      mode: lkb.granted as Mode,
      sbFlags: lkb.sbFlags,
      lvbSeq: lkb.lvbSeq,
      lvbRead: lkb.lvbRead,
      lvbValid: lkb.lvbValid,
      lvb: lkb.lvb,
    });
  }

  refused(lkb: Lkb, status: Refusal): void {
    if (lkb.nodeid === this.nodeid) return this.holder.refused(lkb, status);
    this.#port.toPeer(lkb.nodeid, { kind: "refuse", lkbId: lkb.id, grantNo: lkb.grantNo, status, sbFlags: lkb.sbFlags });
    if (lkb.granted !== null) return;
    this.tables.mastered(lkb.nodeid).delete(lkb.id);
    this.tables.release(lkb.resource);
  }

  bast(lkb: Lkb, wanted: Mode): void {
    if (lkb.requested === null) lkb.sinceMs = this.tables.nowMs;
    if (lkb.nodeid === this.nodeid) this.holder.bast(lkb, wanted);
    else this.#port.toPeer(lkb.nodeid, { kind: "bast", lkbId: lkb.id, grantNo: lkb.grantNo, wanted });
  }

  /** A node is dead, perhaps: lockspaces that need to know wait from now on. */
  block(): void {
    for (const lockspace of this.tables.lockspaces.values()) lockspace.blocked ||= this.tables.blocks(lockspace.name);
  }

  /** Service runs: lockspaces that need not wait any more grant what they can. */
  unblock(): void {
    for (const lockspace of this.tables.lockspaces.values()) {
      const was = lockspace.blocked;
      lockspace.blocked = this.tables.blocks(lockspace.name);
      if (!was || lockspace.blocked) continue;
      for (const resource of lockspace.resources.values()) if (this.tables.masters(resource)) settleUnblocked(this, resource);
    }
  }

  // -------------------------------------------------------------------------------------------------- peer messages

  /** A lock message of a member of this view. False: not a lock message. */
  receive(from: number, message: PeerMessage): boolean {
    switch (message.kind) {
      case "request":
        this.#receiveRequest(from, message);
        return true;
      case "convert":
      case "down":
      case "unlock":
      case "cancel":
      case "adopted":
        this.#receiveAsMaster(from, message);
        return true;
      case "grant":
      case "refuse":
      case "bast":
        this.holder.receive(message);
        return true;
      case "probe":
        this.deadlocks.receive(message);
        return true;
      default:
        return false;
    }
  }

  #receiveRequest(from: number, m: RequestMessage): void {
    const tables = this.tables;
    const resource = tables.resource(tables.lockspace(m.lockspace), m.resource);
    const locks = tables.mastered(from);
    if (!tables.masters(resource) || locks.has(m.lkbId)) {
      this.#port.protest(from, `request ${m.lkbId} for ${m.resource}: not mastered here, or its id is in use`);
      return tables.release(resource);
    }
    masterRequest(this, resource, this.addRequest(resource, from, m));
  }

  /** A new lock of another node, on no queue yet. Its id is not in use there. */
  addRequest(resource: Resource, from: number, m: RequestMessage): Lkb {
    const lkb = newLkb(resource, from, m.lkbId, null, m.clientId, 0);
    lkb.requested = m.mode;
    lkb.flags = m.flags;
    lkb.transaction = m.transaction;
    lkb.sinceMs = this.tables.nowMs;
    this.tables.mastered(from).set(m.lkbId, lkb);
    return lkb;
  }

  /** Its transaction was that of a program which is gone. */
  adopted(lkb: Lkb, { clientId }: AdoptedMessage): void {
    lkb.clientId = clientId;
    lkb.transaction = 0;
  }

  #receiveAsMaster(from: number, m: Exclude<HolderMessage, RequestMessage>): void {
    const lkb = this.tables.masteredFor.get(from)?.get(m.lkbId);
    if (lkb === undefined) {
      // A cancel may cross the refusal that ended the lock; so may an unlock that does not wait for its answer.
      if (m.kind !== "cancel" && m.kind !== "unlock") this.#port.protest(from, `${m.kind} of unknown lock ${m.lkbId}`);
      return;
    }
    const resource = lkb.resource;
    if (m.kind === "adopted") return this.adopted(lkb, m);
    if (m.kind === "cancel") return masterCancel(this, resource, lkb, "canceled");
    if (m.kind === "unlock") {
      writeLvb(resource, m.lvbWrite, m.lvbSeq, m.lvb);
      masterRemove(this, resource, lkb);
      (this.tables.masteredFor.get(from) as Map<number, Lkb>).delete(m.lkbId);
      return this.tables.release(resource);
    }
    if (lkb.granted === null || lkb.requested !== null)
      return this.#port.protest(from, `${m.kind} of lock ${m.lkbId}, which is not granted`);
    if (m.kind === "convert") {
      lkb.sinceMs = this.tables.nowMs;
      lkb.transaction = m.transaction;
      return masterConvert(this, resource, lkb, m.mode, m.flags);
    }
    if (!modeCovers(lkb.granted, m.mode)) return this.#port.protest(from, `conversion down of lock ${m.lkbId} to a higher mode`);
    writeLvb(resource, m.lvbWrite, m.lvbSeq, m.lvb);
    masterDown(this, resource, lkb, m.mode, m.grantNo);
  }
}
