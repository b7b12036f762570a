/**
 * From an installed view to running lock service, in phases with barriers (Linux dlm_recoverd, reduced):
 *
 *   blocked   not quorate: nothing happens, the tables of the last view are kept
 *   mark      MARK to and from every member: all that survivors had sent before has arrived (hazard H3);
 *             our clients have let go of clients that are gone (hazard C7), the view is on disk; then DONE 1
 *   rebuild   all DONE 1 are in, and a quorum of the view was heard of late: every lock is named to its new master, value blocks are handed over; then DONE 2
 *   wait      all DONE 2 are in: until no node outside the view can be serving under a lease, and this one may (hazard C4)
 *   run       rebuilt resources are settled, what was held back is replayed
 *
 * A newer view starts again from any of them. Frames are sorted here: of the view, of a newer one (they wait), of the last one.
 */
import type { LockManager } from "../lock/lock-manager.ts";
import type { View } from "../membership/membership.ts";
import type { GrantMessage, PeerMessage, RefuseMessage } from "../wire/peer.ts";
import { hasMember, type Member, noView, sameView, type ViewId } from "../wire/view-id.ts";
import { type Change, finishRebuild, receiveOffer, receiveRebuild } from "./rebuild.ts";

export type Phase = "none" | "blocked" | "mark" | "rebuild" | "wait" | "run";

export interface RecoveryHost {
  send(nodeid: number, message: PeerMessage): void;
  pausePeer(nodeid: number, pause: boolean): void;
  /** Incarnation at the other end of the connection to that node; null: none. */
  link(nodeid: number): string | null;
  /** Our clients have not yet answered about clients that are gone. */
  clientsBusy(): boolean;
  /** That this node was in the view is on disk. */
  stored(): boolean;
  /** Every lock of this node, to its new master. */
  rebuild(change: Change): void;
  /** A message of a running view that is not about locks. */
  receive(from: number, message: PeerMessage): void;
  /** A quorum of the view was heard of late (hazard C4). */
  leased(): boolean;
  /** Frames of this view were lost: a new one is needed. */
  broken(): void;
  protest(nodeid: number, message: string): void;
}

interface Held {
  readonly view: ViewId;
  readonly message: PeerMessage;
}

interface Channel {
  /** The peer's incarnation that the counts below belong to. */
  incarnation: string | null;
  /** Messages but MARKs. */
  sent: number;
  received: number;
  held: Held[];
  paused: boolean;
}

export class Recovery {
  phase: Phase = "none";
  view: View | null = null;
  /** Lock service is allowed at this moment: phase run, no later view promised, lease not over. Set by the node. */
  serving = false;
  stopped = false;
  readonly #nodeid: number;
  readonly #host: RecoveryHost;
  readonly #locks: LockManager;
  readonly #heldLimit: number;
  readonly #channels: Map<number, Channel> = new Map();
  /** The view whose locks the manager's tables describe, complete or not. */
  #tables: { id: ViewId; members: readonly Member[] } = { id: noView, members: [] };
  /** Answers to this node's requests that came when its service had stopped: one for each lock at most. */
  #late: { member: Member; message: GrantMessage | RefuseMessage }[] = [];
  /** Members of the latest quorate view: a view without quorum buries nobody. */
  #survivors: readonly Member[] = [];
  readonly #lossy: Set<number> = new Set();
  readonly #markSent: Set<number> = new Set();
  readonly #marks: Set<number> = new Set();
  /** Their connection broke in this view: what came later must not be taken for all that came. */
  readonly #cut: Set<number> = new Set();
  readonly #done: readonly [Set<number>, Set<number>] = [new Set(), new Set()];

  constructor(nodeid: number, locks: LockManager, host: RecoveryHost, heldLimit: number) {
    this.#nodeid = nodeid;
    this.#locks = locks;
    this.#host = host;
    this.#heldLimit = heldLimit;
  }

  // ---------------------------------------------------------------------------------------------------------- views

  /** A later view was promised: from here on only what holders and masters have already done counts. */
  stop(): void {
    this.stopped = true;
    const id = this.view?.id ?? noView;
    for (const [nodeid, channel] of this.#channels) {
      const held = channel.held;
      channel.held = [];
      for (const entry of held) {
        if (sameView(entry.view, id)) this.#receiveLate(nodeid, entry.view, entry.message);
        else channel.held.push(entry);
      }
      this.#adjustPause(nodeid, channel);
    }
  }

  enterView(view: View): void {
    this.view = view;
    this.stopped = false;
    this.#marks.clear();
    this.#markSent.clear();
    this.#cut.clear();
    this.#done[0].clear();
    this.#done[1].clear();
    this.phase = view.quorum.quorate ? "mark" : "blocked";
    if (view.quorum.quorate) this.#survivors = view.members;
    if (this.phase === "mark") for (const member of view.members) this.#sendMark(member);
    this.drain();
    this.advance(view.installedMs);
  }

  /** Goes on as far as possible. */
  advance(nowMs: number): void {
    const view = this.view;
    if (view === null || this.stopped) return;
    if (this.phase === "mark" && this.#all(this.#marks) && !this.#host.clientsBusy() && this.#host.stored()) this.#tellDone(1);
    if (this.phase === "mark" && this.#done[0].size === view.members.length && this.#host.leased()) this.#enterRebuild(view);
    if (this.phase === "rebuild" && this.#done[1].size === view.members.length) this.phase = "wait";
    if (this.phase === "wait" && nowMs >= view.serveFromMs && this.#host.leased()) this.#enterRun();
  }

  #all(others: ReadonlySet<number>): boolean {
    return others.size === (this.view as View).members.length - 1;
  }

  #tellDone(phase: 1 | 2): void {
    const done = this.#done[phase - 1] as Set<number>;
    if (done.has(this.#nodeid)) return;
    done.add(this.#nodeid);
    for (const { nodeid } of (this.view as View).members) if (nodeid !== this.#nodeid) this.#host.send(nodeid, { kind: "done", phase });
  }

  #enterRebuild(view: View): void {
    this.phase = "rebuild";
    this.#deliverLate(view);
    this.#host.rebuild({ before: this.#tables.members, members: view.members, lossy: (nodeid) => this.#lossy.has(nodeid) });
    this.#tables = view;
    this.#lossy.clear();
    this.#tellDone(2);
    this.drain();
  }

  /** Only now is it sure that no view without this node has given away what it was granted. */
  #deliverLate(view: View): void {
    const late = this.#late;
    this.#late = [];
    for (const { member, message } of late) {
      if (hasMember(view.members, member.nodeid, member.incarnation)) this.#locks.holder.receive(message);
    }
  }

  #enterRun(): void {
    finishRebuild(this.#locks);
    this.phase = "run";
  }

  // ------------------------------------------------------------------------------------------------------- channels

  #channel(nodeid: number): Channel {
    let channel = this.#channels.get(nodeid);
    if (channel === undefined) {
      channel = { incarnation: null, sent: 0, received: 0, held: [], paused: false };
      this.#channels.set(nodeid, channel);
    }
    return channel;
  }

  linkUp(nodeid: number, incarnation: string): void {
    const channel = this.#channel(nodeid);
    if (channel.incarnation !== incarnation) {
      channel.incarnation = incarnation;
      channel.sent = 0;
      channel.received = 0;
      channel.held = [];
    }
    channel.paused = false;
    const member = this.view?.members.find((member) => member.nodeid === nodeid);
    if (member !== undefined && this.phase !== "blocked" && !this.stopped) this.#sendMark(member);
  }

  linkDown(nodeid: number): void {
    this.#channel(nodeid).paused = false;
    if (this.phase === "blocked" || !(this.#markSent.has(nodeid) || this.#marks.has(nodeid))) return;
    this.#cut.add(nodeid);
    this.#host.broken();
  }

  /** Nothing more is said to that node in this view: something before it was lost. */
  isCut(nodeid: number): boolean {
    return this.#cut.has(nodeid);
  }

  /** Counts a message that the node sends on the channel. */
  noteSent(nodeid: number): void {
    this.#channel(nodeid).sent++;
  }

  #sendMark(member: Member): void {
    if (member.nodeid === this.#nodeid || this.#markSent.has(member.nodeid)) return;
    if (this.#host.link(member.nodeid) !== member.incarnation) return;
    this.#markSent.add(member.nodeid);
    this.#host.send(member.nodeid, { kind: "mark", sent: this.#channel(member.nodeid).sent });
  }

  receiveFrame(from: number, view: ViewId, messages: readonly PeerMessage[]): void {
    const channel = this.#channel(from);
    for (const message of messages) {
      if (message.kind !== "mark") channel.received++;
      else if (message.sent !== channel.received) {
        // A connection broke with messages in flight: what that node wrote may not have arrived.
        this.#lossy.add(from);
        channel.received = message.sent;
      }
      this.#route(from, channel, view, message);
    }
    this.#adjustPause(from, channel);
  }

  #route(from: number, channel: Channel, view: ViewId, message: PeerMessage): void {
    const id = this.view?.id ?? noView;
    const current = sameView(view, id);
    if (current && this.#cut.has(from)) return;
    if (!current && view.epoch <= id.epoch) return this.#receiveLate(from, view, message);
    if (current && this.stopped && channel.held.length === 0) return this.#receiveLate(from, view, message);
    if (!current || channel.held.length > 0 || !this.#receiveNow(from, message)) channel.held.push({ view, message });
  }

  /** A message of this view; false: it must wait. */
  #receiveNow(from: number, message: PeerMessage): boolean {
    switch (message.kind) {
      case "mark":
        this.#marks.add(from);
        return true;
      case "done":
        if (message.phase === 2 && this.phase === "mark") return false;
        (this.#done[message.phase - 1] as Set<number>).add(from);
        return true;
      case "rebuild":
        if (this.phase !== "rebuild") return false;
        if (!receiveRebuild(this.#locks, from, message))
          this.#host.protest(from, `lock ${message.lkbId} named to the wrong master, or twice`);
        return true;
      case "offer":
        if (this.phase !== "rebuild") return false;
        receiveOffer(this.#locks, message);
        return true;
      default:
        if (!this.serving) return false;
        if (!this.#locks.receive(from, message)) this.#host.receive(from, message);
        return true;
    }
  }

  /**
   * A message of the last view, from a survivor of it, before its MARK: what a holder gave up, a writer wrote or a master granted
   * stands (hazards H2, H3); clients hear of grants later, in `#deliverLate`. Requests are asked again by their holders, blocking ASTs are
   * sent again by the new masters. Frames of the dead are dropped.
   */
  #receiveLate(from: number, view: ViewId, message: PeerMessage): void {
    // Not the present connection: the message may have come on one that is gone.
    const incarnation = this.#channel(from).incarnation;
    if (incarnation === null || !hasMember(this.#survivors, from, incarnation)) return;
    if (message.kind === "offer" && (sameView(view, this.#tables.id) || view.epoch > this.#tables.id.epoch)) {
      return receiveOffer(this.#locks, message);
    }
    if (!sameView(view, this.#tables.id)) return;
    if (message.kind === "down" || message.kind === "unlock") this.#locks.receiveStopped(from, message);
    else if (message.kind === "grant" || message.kind === "refuse") this.#late.push({ member: { nodeid: from, incarnation }, message });
  }

  /** Looks again at what waits, in order. */
  drain(): void {
    for (const [nodeid, channel] of this.#channels) {
      if (channel.held.length === 0) continue;
      const held = channel.held;
      channel.held = [];
      for (const { view, message } of held) this.#route(nodeid, channel, view, message);
      this.#adjustPause(nodeid, channel);
    }
  }

  /** Beyond the limit the peer's connection is not read: it waits, nothing is dropped. */
  #adjustPause(nodeid: number, channel: Channel): void {
    const pause = channel.held.length > this.#heldLimit;
    if (pause === channel.paused) return;
    channel.paused = pause;
    this.#host.pausePeer(nodeid, pause);
  }

  /** What recovery waits for, in words. */
  explain(): string {
    const view = this.view;
    const missing = (have: ReadonlySet<number>): string =>
      (view?.members ?? [])
        .map((member) => member.nodeid)
        .filter((nodeid) => nodeid !== this.#nodeid && !have.has(nodeid))
        .join(" ");
    if (this.stopped) return "a view change is under way";
    switch (this.phase) {
      case "none":
        return "waiting for a first view";
      case "blocked":
        return "waiting for quorum";
      case "mark":
        if (!this.#all(this.#marks)) return `recovering: waiting for MARK of nodes ${missing(this.#marks)}`;
        if (this.#host.clientsBusy()) return "recovering: waiting for local clients to let go of clients that are gone";
        if (!this.#host.stored()) return "recovering: waiting for the disk that keeps this node's state";
        return `recovering: waiting for nodes ${missing(this.#done[0])} to be ready`;
      case "rebuild":
        return `recovering: waiting for the locks of nodes ${missing(this.#done[1])}`;
      case "wait":
        return "recovering: waiting until no node outside the view can be serving";
      case "run":
        return this.serving ? "running" : "waiting: too long since a quorum of the view was heard";
    }
  }
}
