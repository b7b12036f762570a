/**
 * What survivors of a view had sent in it when this node had stopped: nothing of it is lost (hazard H3), but none of it is granted before
 * the next view runs. Where a master stays the master, it is as if the message had come in time; where not, what a holder
 * gave up, a writer wrote or a master granted stands (hazard H2), and requests are named anew by their holders.
 */
import { dequeue, enqueue, type Lkb, newLkb, queueOf, type Resource } from "../lock/lkb.ts";
import { adopted, type LockManager } from "../lock/lock-manager.ts";
import { unqueue, writeLvb } from "../lock/master.ts";
import { Mode } from "../lock/mode.ts";
import type { ConvertMessage, DownMessage, PeerMessage, RequestMessage, UnlockMessage } from "../wire/peer-message.ts";
import type { PlockAnswerMessage } from "../wire/peer-plock.ts";
import { hasMember, type Member } from "../wire/view-id.ts";

interface Late {
  readonly member: Member;
  readonly message: PeerMessage;
}

/** Whether this node masters that resource before and after. */
export type Stays = (lockspace: string, name: string) => boolean;

export class LateMessages {
  readonly #plockAnswer: (message: PlockAnswerMessage) => void;
  #list: Late[] = [];

  constructor(plockAnswer: (message: PlockAnswerMessage) => void) {
    this.#plockAnswer = plockAnswer;
  }

  add(member: Member, message: PeerMessage): void {
    this.#list.push({ member, message });
  }

  /** Only now is it sure that no view without this node has given away what it was granted. Frames of the dead are dropped. */
  apply(manager: LockManager, change: { readonly members: readonly Member[] }, stays: Stays, touch: (resource: Resource) => void): void {
    const list = this.#list;
    this.#list = [];
    for (const { member, message } of list) {
      if (!hasMember(change.members, member.nodeid, member.incarnation)) continue;
      if (message.kind === "plock-answer") this.#plockAnswer(message);
      else applyOne(manager, member.nodeid, message, stays, touch);
    }
  }
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
      if (m.kind === "adopted") return adopted(lkb, m);
      const { resource } = lkb;
      const staying = stays(resource.lockspace.name, resource.name);
      if (staying) touch(resource);
      if (m.kind === "down") return stepDown(lkb, m);
      if (m.kind === "unlock") return unlock(manager, lkb, m);
      if (!staying) return;
      if (m.kind === "convert") return queueConversion(manager, lkb, m);
      if (lkb.requested === null) return;
      unqueue(resource, lkb);
      return manager.refused(lkb, "canceled");
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
  const lkb = newLkb(resource, from, m.lkbId, null, m.clientId, 0);
  lkb.requested = m.mode;
  lkb.flags = m.flags;
  lkb.transaction = m.transaction;
  lkb.sinceMs = tables.nowMs;
  tables.mastered(from).set(m.lkbId, lkb);
  enqueue(resource, "waitQueue", lkb);
  return resource;
}

function queueConversion(manager: LockManager, lkb: Lkb, m: ConvertMessage): void {
  if (lkb.granted === null || lkb.requested !== null) return;
  dequeue(lkb.resource, "grantQueue", lkb);
  lkb.requested = m.mode;
  lkb.flags = m.flags;
  lkb.sbFlags = 0;
  lkb.transaction = m.transaction;
  lkb.sinceMs = manager.tables.nowMs;
  enqueue(lkb.resource, "convertQueue", lkb);
}

function stepDown(lkb: Lkb, m: DownMessage): void {
  writeLvb(lkb.resource, m.lvbWrite, m.lvbSeq, m.lvb);
  lkb.granted = m.mode;
  lkb.grantNo = m.grantNo;
  lkb.bastMode = Mode.NL;
}

function unlock(manager: LockManager, lkb: Lkb, m: UnlockMessage): void {
  writeLvb(lkb.resource, m.lvbWrite, m.lvbSeq, m.lvb);
  dequeue(lkb.resource, queueOf(lkb), lkb);
  manager.tables.mastered(lkb.nodeid).delete(lkb.id);
}
