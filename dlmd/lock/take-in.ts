/**
 * What holders say to a master that may not answer: between two views (recovery/late-messages.ts), or while the resource is on its way to
 * another master (move.ts). The queues follow, nothing is granted, nobody is told: who settles them later does that.
 */
import type { AdoptedMessage, ConvertMessage, DownMessage, HolderMessage, RequestMessage, UnlockMessage } from "../wire/peer-message.ts";
import { dequeue, enqueue, type Lkb, newLkb, queueOf, type Resource } from "./lkb.ts";
import type { LockTables } from "./lock-tables.ts";
import { type MasterPort, unqueue, writeLvb } from "./master.ts";
import { Mode } from "./mode.ts";

/** A new lock of another node, on no queue yet. Its id is not in use there. */
export function addRequest(tables: LockTables, resource: Resource, from: number, m: RequestMessage): Lkb {
  const lkb = newLkb(resource, from, m.lkbId, null, m.clientId, 0);
  lkb.requested = m.mode;
  lkb.flags = m.flags;
  lkb.transaction = m.transaction;
  lkb.sinceMs = tables.nowMs;
  tables.mastered(from).set(m.lkbId, lkb);
  return lkb;
}

export function takeInRequest(lkb: Lkb): void {
  enqueue(lkb.resource, "waitQueue", lkb);
}

/** About a lock that is on a queue here. A request that is taken back is refused at once: its holder may hear that at any time. */
export function takeIn(tables: LockTables, port: MasterPort, lkb: Lkb, m: Exclude<HolderMessage, RequestMessage>): void {
  switch (m.kind) {
    case "convert":
      return takeInConversion(tables, lkb, m);
    case "down":
      return takeInDown(lkb, m);
    case "unlock":
      return takeInUnlock(tables, lkb, m);
    case "cancel":
      return takeInCancel(port, lkb);
    case "adopted":
      return adopted(lkb, m);
  }
}

function takeInConversion(tables: LockTables, lkb: Lkb, m: ConvertMessage): void {
  if (lkb.granted === null || lkb.requested !== null) return;
  dequeue(lkb.resource, "grantQueue", lkb);
  lkb.requested = m.mode;
  lkb.flags = m.flags;
  lkb.sbFlags = 0;
  lkb.transaction = m.transaction;
  lkb.sinceMs = tables.nowMs;
  // Nobody has looked whether it could be granted in place, or what it would wait for.
  lkb.unordered = true;
  enqueue(lkb.resource, "convertQueue", lkb);
}

function takeInDown(lkb: Lkb, m: DownMessage): void {
  writeLvb(lkb.resource, m.lvbWrite, m.lvbSeq, m.lvb);
  lkb.granted = m.mode;
  lkb.grantNo = m.grantNo;
  lkb.bastMode = Mode.NL;
}

function takeInUnlock(tables: LockTables, lkb: Lkb, m: UnlockMessage): void {
  writeLvb(lkb.resource, m.lvbWrite, m.lvbSeq, m.lvb);
  dequeue(lkb.resource, queueOf(lkb), lkb);
  tables.mastered(lkb.nodeid).delete(lkb.id);
}

function takeInCancel(port: MasterPort, lkb: Lkb): void {
  if (lkb.requested === null) return;
  unqueue(lkb.resource, lkb);
  port.refused(lkb, "canceled");
}

/** Its transaction was that of a program which is gone. */
export function adopted(lkb: Lkb, { clientId }: AdoptedMessage): void {
  lkb.clientId = clientId;
  lkb.transaction = 0;
}
