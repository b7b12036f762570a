/**
 * What survivors of a view had sent in it when this node had stopped: nothing of it is lost (hazard H3), but none of it is granted before
 * the next view runs. Where a master stays the master, it is as if the message had come in time; where not, what a holder
 * gave up, a writer wrote or a master granted stands (hazard H2), and requests are named anew by their holders.
 */
import { VALBLK } from "../lock/flag.ts";
import type { Resource } from "../lock/lkb.ts";
import type { LockManager } from "../lock/lock-manager.ts";
import type { LockTables } from "../lock/lock-tables.ts";
import { Mode } from "../lock/mode.ts";
import { addRequest, takeIn, takeInRequest } from "../lock/take-in.ts";
import type { DownMessage, PeerMessage, RebuildMessage, RequestMessage, UnlockMessage } from "../wire/peer-message.ts";
import type { MoveStateMessage } from "../wire/peer-move.ts";
import type { PlockAnswerMessage } from "../wire/peer-plock.ts";
import { hasMember, type Member } from "../wire/view-id.ts";
import { type Change, receiveOffer } from "./rebuild.ts";

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
  apply(manager: LockManager, change: Pick<Change, "before" | "members">, stays: Stays, touch: (resource: Resource) => void): void {
    const list = this.#list;
    this.#list = [];
    const named = new Map<string, RebuildMessage>();
    for (const { member, message } of list) {
      if (!hasMember(change.members, member.nodeid, member.incarnation)) continue;
      if (message.kind === "rebuild") named.set(`${member.nodeid}/${message.lkbId}`, message);
      else if (message.kind === "down" || message.kind === "unlock") takeWrite(manager, member, message, named);
      if (message.kind === "plock-answer") this.#plockAnswer(message);
      else if (message.kind === "move-state") takeBlock(manager, message, change.before);
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

/** What was to move here is named anew, but the old master does not have the value block any more. */
function takeBlock(manager: LockManager, m: MoveStateMessage, before: readonly Member[]): void {
  const { lockspace, resource, lvbSeq, lvbValid, lvb, locks } = m;
  const writes = locks.find(({ granted, flags }) => (granted ?? Mode.NL) >= Mode.PW && (flags & VALBLK) !== 0);
  const writer = before.find(({ nodeid }) => nodeid === writes?.nodeid) ?? null;
  receiveOffer(manager, { kind: "offer", lockspace, resource, lvbSeq, lvbValid, lvb, writer });
}

function applyOne(manager: LockManager, from: number, m: PeerMessage, stays: Stays, touch: (resource: Resource) => void): void {
  switch (m.kind) {
    case "grant":
    case "refuse":
    case "bast":
      return manager.holder.receive(m);
    case "request":
      if (stays(m.lockspace, m.resource)) touch(queueRequest(manager.tables, from, m));
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
      // What is named anew asks anew.
      if (staying || (m.kind !== "convert" && m.kind !== "cancel")) takeIn(manager.tables, manager, lkb, m);
      return;
    }
    default:
      // About clients and deadlocks: asked again in the next view.
      return;
  }
}

function queueRequest(tables: LockTables, from: number, m: RequestMessage): Resource {
  const lockspace = tables.lockspace(m.lockspace);
  const known = lockspace.resources.has(m.resource);
  const resource = tables.resource(lockspace, m.resource);
  // Nobody held a lock on it, so there is no block to be known.
  if (!known) resource.lvbKnown = true;
  takeInRequest(addRequest(tables, resource, from, m));
  return resource;
}
