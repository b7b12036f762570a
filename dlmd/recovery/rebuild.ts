/**
 * Locks of a new view: every node names all its locks to their new masters, and every old master hands over the value
 * blocks that it knows (Linux fs/dlm/recover.c; departures: everything is rebuilt in every view, whether or not its
 * master changed, so nothing has to be known about what the old masters knew or what was in flight between nodes).
 *
 * Granted modes are the holders': a conversion down took effect when it was sent, so the union of what holders have is never
 * more than what the old masters granted. New requests and conversions up are queued anew (hazard H2).
 */
import { CONVDEADLK, DEMOTED, VALBLK } from "../lock/flag.ts";
import { clearQueues, type Lkb, newLkb, type Resource } from "../lock/lkb.ts";
import type { LockManager } from "../lock/lock-manager.ts";
import type { Client } from "../lock/client.ts";
import { settleRebuilt } from "../lock/master.ts";
import { masterOf } from "../lock/mastering.ts";
import { Mode } from "../lock/mode.ts";
import type { OfferMessage, PeerMessage, RebuildMessage } from "../wire/peer.ts";
import { hasMember, type Member, noIncarnation } from "../wire/view-id.ts";

type Send = (nodeid: number, message: PeerMessage) => void;

export interface Change {
  /** Members of the view whose tables the manager has. */
  readonly before: readonly Member[];
  readonly members: readonly Member[];
  /** Messages of that member were lost with a connection. */
  readonly lossy: (nodeid: number) => boolean;
}

/** Turns the tables of the last view into those of the new one and sends what others need. A still newer view may do the same again. */
export function startRebuild(manager: LockManager, clients: Iterable<Client>, change: Change, send: Send): void {
  const { members } = change;
  manager.tables.rebuilding = true;
  manager.tables.members = members;
  manager.tables.masteredFor.clear();
  const elsewhere = new Map(manager.tables.heldElsewhere);
  manager.tables.heldElsewhere.clear();
  for (const lockspace of manager.tables.lockspaces.values()) {
    for (const resource of lockspace.resources.values()) moveResource(manager.nodeid, change, resource, send);
  }
  for (const client of clients) {
    for (const lkb of client.locks.values()) {
      // What was being taken back is not asked for again. (Deleting the entry just visited is safe in a Map.)
      if (lkb.canceling !== null) manager.holder.completeCancel(lkb);
      // Its master may have demoted it already, and somebody else may have what it gave up.
      if (lkb.granted !== null && lkb.requested !== null && (lkb.flags & CONVDEADLK) !== 0 && elsewhere.has(lkb.id)) demoteRebuilt(lkb);
      if (lkb.granted !== null || lkb.requested !== null) nameLock(manager, lkb, send);
    }
  }
}

function moveResource(self: number, change: Change, resource: Resource, send: Send): void {
  const writer = resource.lvbKnown ? (writerOf(self, change, resource) ?? resource.writer) : null;
  const lost = writer !== null && (change.lossy(writer.nodeid) || !hasMember(change.members, writer.nodeid, writer.incarnation));
  if (lost) {
    resource.lvbValid = false;
    resource.lvbSeq++;
  }
  resource.writer = lost ? null : writer;
  clearQueues(resource);
  resource.masterNodeid = masterOf(change.members, resource.lockspace.name, resource.name);
  if (resource.masterNodeid === self || !resource.lvbKnown) return;
  send(resource.masterNodeid, {
    kind: "offer",
    lockspace: resource.lockspace.name,
    resource: resource.name,
    lvbSeq: resource.lvbSeq,
    lvbValid: resource.lvbValid,
    lvb: resource.lvb,
    writer: resource.writer,
  });
  resource.lvbKnown = false;
  resource.lvb = null;
  resource.writer = null;
}

/** The other node that may be writing the block: there is one at most, since PW and EX exclude each other. */
function writerOf(self: number, { before }: Change, resource: Resource): Member | null {
  for (const queue of [resource.grantQueue, resource.convertQueue]) {
    for (const lkb of queue) {
      if (lkb.nodeid === self || lkb.granted === null || lkb.granted < Mode.PW || (lkb.flags & VALBLK) === 0) continue;
      return before.find((member) => member.nodeid === lkb.nodeid) ?? { nodeid: lkb.nodeid, incarnation: noIncarnation };
    }
  }
  return null;
}

function demoteRebuilt(lkb: Lkb): void {
  if (lkb.granted === Mode.NL) return;
  lkb.granted = Mode.NL;
  lkb.sbFlags |= DEMOTED;
  lkb.grantNo = (lkb.grantNo + 1) >>> 0;
}

function nameLock(manager: LockManager, lkb: Lkb, send: Send): void {
  const resource = lkb.resource;
  if (resource.masterNodeid === manager.nodeid) return manager.tables.place(lkb);
  manager.tables.heldElsewhere.set(lkb.id, lkb);
  send(resource.masterNodeid, {
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
    waitedMs: lkb.requested === null ? 0 : Math.min(0xffffffff, Math.max(0, Math.round(manager.tables.nowMs - lkb.sinceMs))),
    lvbSeq: lkb.lvbSeq,
    lvbRead: lkb.lvbRead,
    lvbValid: lkb.lvbValid,
    lvb: lkb.lvb,
  });
}

/** False: not one of ours to master. */
export function receiveRebuild(manager: LockManager, from: number, m: RebuildMessage): boolean {
  const resource = manager.tables.resource(manager.tables.lockspace(m.lockspace), m.resource);
  const locks = manager.tables.mastered(from);
  if (resource.masterNodeid !== manager.nodeid || locks.has(m.lkbId) || (m.granted === null && m.requested === null)) return false;
  const lkb = newLkb(resource, from, m.lkbId, null, m.clientId, 0);
  lkb.granted = m.granted;
  lkb.requested = m.requested;
  lkb.flags = m.flags;
  lkb.grantNo = m.grantNo;
  lkb.transaction = m.transaction;
  lkb.sinceMs = manager.tables.nowMs - m.waitedMs;
  lkb.lvbSeq = m.lvbSeq;
  lkb.lvbRead = m.lvbRead;
  lkb.lvbValid = m.lvbValid;
  lkb.lvb = m.lvb;
  locks.set(m.lkbId, lkb);
  manager.tables.place(lkb);
  return true;
}

/** Also for an offer of a view that was given up before it ran: its sender keeps the block no more. */
export function receiveOffer(manager: LockManager, m: OfferMessage): void {
  const resource = manager.tables.resource(manager.tables.lockspace(m.lockspace), m.resource);
  if (resource.lvbKnown && resource.lvbSeq >= m.lvbSeq) return;
  resource.lvbKnown = true;
  resource.lvb = m.lvb;
  resource.lvbSeq = m.lvbSeq;
  resource.lvbValid = m.lvbValid;
  resource.writer = m.writer;
}

/** All members have named their locks: value blocks are settled, what can be granted is granted, the rest is told on. */
export function finishRebuild(manager: LockManager): void {
  manager.tables.rebuilding = false;
  for (const lockspace of manager.tables.lockspaces.values()) {
    for (const resource of lockspace.resources.values()) {
      if (resource.masterNodeid === manager.nodeid) {
        settleLvb(resource);
        resource.writer = null;
        settleRebuilt(manager, resource);
      }
      manager.tables.release(resource);
    }
  }
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
