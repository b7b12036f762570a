/**
 * What survivors of a view had sent in it when this node had stopped: nothing of it is lost (hazard H3), but none of it is granted before
 * the next view runs. Where a master stays the master, it is as if the message had come in time; where not, what a holder
 * gave up, a writer wrote or a master granted stands (hazard H2), and requests are named anew by their holders.
 */
import { dequeue, enqueue, isTrade, type Lkb, queueOf, type Resource } from "../lock/lkb.ts";
import type { LockManager } from "../lock/lock-manager.ts";
import type { LockTables } from "../lock/lock-tables.ts";
import { Mode } from "../wire/mode.ts";
import { queueConversion, unqueue, writeLvb } from "../lock/master.ts";
import type {
  ConvertMessage,
  DownMessage,
  HolderMessage,
  PeerMessage,
  RebuildMessage,
  RequestMessage,
  UnlockMessage,
} from "../wire/peer-message.ts";
import type { PlockAnswerMessage } from "../wire/peer-plock.ts";
import { hasMember, type Member } from "../wire/view-id.ts";
import { receiveOffer } from "./newest-block.ts";

interface Late {
  readonly member: Member;
  readonly message: PeerMessage;
}

/** Whether this node masters that resource before and after. */
export type Stays = (lockspace: string, name: string) => boolean;

export class LateMessages {
  readonly #plockAnswer: (message: PlockAnswerMessage) => void;
  readonly #limit: number;
  #list: Late[] = [];

  constructor(limit: number, plockAnswer: (message: PlockAnswerMessage) => void) {
    this.#limit = limit;
    this.#plockAnswer = plockAnswer;
  }

  /** False: there are too many. It is lost, and so is all that comes after it. */
  add(member: Member, message: PeerMessage): boolean {
    if (this.#list.length >= this.#limit) return false;
    this.#list.push({ member, message });
    return true;
  }

  /** Only now is it sure that no view without this node has given away what it was granted. Frames of the dead are dropped. */
  apply(manager: LockManager, members: readonly Member[], stays: Stays, touch: (resource: Resource) => void): void {
    const list = this.#list;
    this.#list = [];
    const named = new Map<string, RebuildMessage>();
    for (const { member, message } of list) {
      if (!hasMember(members, member.nodeid, member.incarnation)) continue;
      if (message.kind === "rebuild") named.set(`${member.nodeid}/${message.lkbId}`, message);
      else if (message.kind === "down" || message.kind === "unlock") takeWrite(manager, member, message, named);
      if (message.kind === "plock-answer") this.#plockAnswer(message);
      else applyOne(manager, member.nodeid, message, stays, touch);
    }
  }
}

/**
 * A lock that was named to this node in a view which it did not finish is named anew, and what its holder, who served already, wrote with it
 * since is nowhere else.
 */
function takeWrite(manager: LockManager, member: Member, m: DownMessage | UnlockMessage, named: Map<string, RebuildMessage>): void {
  const lock = named.get(`${member.nodeid}/${m.lkbId}`);
  if (lock === undefined || m.lvbWrite === "none") return;
  const { lockspace, resource } = lock;
  const { lvbSeq, lvb } = m;
  receiveOffer(manager, { kind: "offer", lockspace, resource, lvbSeq, lvbValid: m.lvbWrite === "write", lvb, writer: member });
}

function applyOne(manager: LockManager, from: number, m: PeerMessage, stays: Stays, touch: (resource: Resource) => void): void {
  switch (m.kind) {
    case "grant":
    case "refuse":
    case "bast":
      return manager.holder.receive(m);
    case "request":
      if (stays(m.lockspace, m.resource)) touch(queueRequest(manager, from, m));
      return;
    case "convert":
    case "down":
    case "unlock":
    case "cancel":
    case "adopted": {
      const lkb = manager.tables.masteredFor.get(from)?.get(m.lkbId);
      if (lkb === undefined) return;
      const { resource } = lkb;
      const staying = stays(resource.lockspace.name, resource.name);
      if (staying && m.kind !== "adopted") touch(resource);
      // A lock that is rebuilt at a new master repeats its own request.
      if (staying || (m.kind !== "convert" && m.kind !== "cancel")) takeIn(manager, lkb, m);
      return;
    }
    default:
      // About clients and deadlocks: asked again in the next view.
      return;
  }
}

function queueRequest(manager: LockManager, from: number, m: RequestMessage): Resource {
  const { tables } = manager;
  const lockspace = tables.lockspace(m.lockspace);
  const known = lockspace.resources.has(m.resource);
  const resource = tables.resource(lockspace, m.resource);
  // Nobody held a lock on it, so there is no block to be known.
  if (!known) resource.lvbKnown = true;
  enqueue(resource, "waitQueue", manager.addRequest(resource, from, m));
  return resource;
}

/**
 * About a lock that is on a queue here: the queues follow, nothing is granted. A request that is taken back is refused at once: its holder may
 * hear that at any time.
 */
function takeIn(manager: LockManager, lkb: Lkb, m: Exclude<HolderMessage, RequestMessage>): void {
  switch (m.kind) {
    case "convert":
      return takeInConversion(manager.tables, lkb, m);
    case "down":
      return takeInDown(lkb, m);
    case "unlock":
      return takeInUnlock(manager.tables, lkb, m);
    case "cancel":
      return takeInCancel(manager, lkb);
    case "adopted":
      return manager.adopted(lkb, m);
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
  queueConversion(lkb.resource, lkb);
}

function takeInDown(lkb: Lkb, m: DownMessage): void {
  writeLvb(lkb.resource, m.lvbWrite, m.lvbSeq, m.lvb);
  // If the block of a rebuilt resource is yet to be settled, it is that of this lock.
  if (m.lvbWrite !== "none") {
    lkb.lvbSeq = m.lvbSeq;
    lkb.lvbRead = true;
    lkb.lvbValid = m.lvbWrite === "write";
    if (m.lvbWrite === "write") lkb.lvb = m.lvb;
  }
  lkb.granted = m.mode;
  lkb.grantNo = m.grantNo;
  lkb.bastMode = Mode.NL;
}

function takeInUnlock(tables: LockTables, lkb: Lkb, m: UnlockMessage): void {
  writeLvb(lkb.resource, m.lvbWrite, m.lvbSeq, m.lvb);
  dequeue(lkb.resource, queueOf(lkb), lkb);
  tables.mastered(lkb.nodeid).delete(lkb.id);
}

function takeInCancel(port: LockManager, lkb: Lkb): void {
  if (lkb.requested === null) return;
  // Hazard H16: what others have shows whether a dead master has granted it. That is looked at when the queues are settled (settleRebuilt).
  if (lkb.unordered && isTrade(lkb)) {
    lkb.canceling = "canceled";
    return;
  }
  unqueue(lkb.resource, lkb);
  port.refused(lkb, "canceled");
}
