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
import type { PlockAnswerMessage } from "../wire/peer-plock.ts";
import { hasMember, type Member, noView, sameView, type ViewId } from "../wire/view-id.ts";
import { Channel } from "./channel.ts";
import { type Change, finishRebuild, receiveOffer, receiveRebuild } from "./rebuild.ts";

/** Unacknowledged messages to a peer at which they are given up, in limits of what is saved for one. */
const unackedShare = 4;

export type Phase = "none" | "blocked" | "mark" | "rebuild" | "wait" | "run";

export interface RecoveryHost {
  /** On the present connection to that node. */
  transmit(nodeid: number, view: ViewId, message: PeerMessage): void;
  pausePeer(nodeid: number, pause: boolean): void;
  /** The latest known of that node. */
  incarnation(nodeid: number): string | null;
  /** `crowded` changed. */
  crowding(): void;
  /** Our clients have not yet answered about clients that are gone. */
  clientsBusy(): boolean;
  /** That this node was in the view is on disk. */
  stored(): boolean;
  /** Every lock of this node, to its new master. */
  rebuild(change: Change): void;
  /** A message of a running view that is not about locks, or of the rebuild of file locks. */
  receive(from: number, message: PeerMessage): void;
  /** An answer of the last view to a file-lock request of this node. */
  receiveLate(message: PlockAnswerMessage): void;
  /** Everything was named by everybody: file locks that can be granted are granted. */
  rebuilt(): void;
  /** A quorum of the view was heard of late (hazard C4). */
  leased(): boolean;
  /** A new view is needed. */
  broken(why: string): void;
  protest(nodeid: number, message: string): void;
}

interface Held {
  readonly view: ViewId;
  readonly message: PeerMessage;
}

interface Pair {
  readonly channel: Channel;
  /** Arrived and not yet to be used; of the channel's incarnation. */
  held: Held[];
  paused: boolean;
  /** That its connection stays broken was said. */
  reported: boolean;
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
  readonly #pairs: Map<number, Pair> = new Map();
  readonly #timeoutMs: number;
  #crowded = false;
  #nowMs = 0;
  /** The view whose locks the manager's tables describe, complete or not. */
  #tables: { id: ViewId; members: readonly Member[] } = { id: noView, members: [] };
  /** Answers to this node's requests that came when its service had stopped: one for each lock at most. */
  #late: { member: Member; message: GrantMessage | RefuseMessage | PlockAnswerMessage }[] = [];
  /** Members of the latest quorate view: a view without quorum buries nobody. */
  #survivors: readonly Member[] = [];
  readonly #lossy: Set<number> = new Set();
  readonly #marks: Set<number> = new Set();
  /** Their connection broke in this view: what came later must not be taken for all that came. */
  readonly #cut: Set<number> = new Set();
  readonly #done: readonly [Set<number>, Set<number>] = [new Set(), new Set()];

  constructor(nodeid: number, locks: LockManager, host: RecoveryHost, heldLimit: number, timeoutMs: number) {
    this.#nodeid = nodeid;
    this.#locks = locks;
    this.#host = host;
    this.#heldLimit = heldLimit;
    this.#timeoutMs = timeoutMs;
  }

  // ---------------------------------------------------------------------------------------------------------- views

  /** A later view was promised: from here on only what holders and masters have already done counts. */
  stop(): void {
    this.stopped = true;
    const id = this.view?.id ?? noView;
    for (const [nodeid, pair] of this.#pairs) {
      const held = pair.held;
      pair.held = [];
      for (const entry of held) {
        if (sameView(entry.view, id)) this.#receiveLate(nodeid, entry.view, entry.message);
        else pair.held.push(entry);
      }
      this.#adjustPause(nodeid, pair);
    }
  }

  enterView(view: View): void {
    this.view = view;
    this.stopped = false;
    this.#marks.clear();
    this.#cut.clear();
    this.#done[0].clear();
    this.#done[1].clear();
    this.phase = view.quorum.quorate ? "mark" : "blocked";
    if (view.quorum.quorate) this.#survivors = view.members;
    if (this.phase === "mark") this.#enterMark(view);
    this.drain();
    this.advance(view.installedMs);
  }

  #enterMark(view: View): void {
    for (const [nodeid, { channel }] of this.#pairs) {
      channel.reopen();
      if (channel.incarnation !== null && !hasMember(view.members, nodeid, channel.incarnation)) channel.forsake();
    }
    for (const { nodeid } of view.members) if (nodeid !== this.#nodeid) this.send(nodeid, { kind: "mark" });
  }

  /** Goes on as far as possible. */
  advance(nowMs: number): void {
    this.#nowMs = nowMs;
    this.#noticeBroken(nowMs);
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
    for (const { nodeid } of (this.view as View).members) if (nodeid !== this.#nodeid) this.send(nodeid, { kind: "done", phase });
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
      if (!hasMember(view.members, member.nodeid, member.incarnation)) continue;
      if (message.kind === "plock-answer") this.#host.receiveLate(message);
      else this.#locks.holder.receive(message);
    }
  }

  #enterRun(): void {
    finishRebuild(this.#locks);
    this.#host.rebuilt();
    this.phase = "run";
  }

  // ------------------------------------------------------------------------------------------------------- channels

  #pair(nodeid: number): Pair {
    let pair = this.#pairs.get(nodeid);
    if (pair === undefined) {
      const transmit = (to: number, view: ViewId, message: PeerMessage): void => this.#host.transmit(to, view, message);
      const channel = new Channel(nodeid, { transmit }, this.#heldLimit * unackedShare);
      pair = { channel, held: [], paused: false, reported: false };
      this.#pairs.set(nodeid, pair);
    }
    return pair;
  }

  /** To a member of the view, in the view. Kept until it is acknowledged, whether or not there is a connection now. */
  send(nodeid: number, message: PeerMessage): void {
    const view = this.view as View;
    const { incarnation } = view.members.find((member) => member.nodeid === nodeid) as Member;
    // It died: the next view will say so.
    if (this.#host.incarnation(nodeid) !== incarnation) return;
    const pair = this.#pair(nodeid);
    if (pair.channel.incarnation !== incarnation) pair.held = [];
    pair.channel.send(incarnation, view.id, message);
    if (pair.channel.overflowed) this.#host.broken(`more than ${this.#heldLimit * unackedShare} messages to node ${nodeid} unacknowledged`);
    else if (!this.#crowded && pair.channel.unacked > this.#heldLimit) this.#setCrowded(true);
  }

  /** So much is on its way to some peer that clients must wait. */
  get crowded(): boolean {
    return this.#crowded;
  }

  #setCrowded(crowded: boolean): void {
    this.#crowded = crowded;
    this.#host.crowding();
  }

  #thinOut(): void {
    for (const { channel } of this.#pairs.values()) if (channel.unacked > this.#heldLimit / 2) return;
    this.#setCrowded(false);
  }

  linkUp(nodeid: number, incarnation: string): void {
    const pair = this.#pair(nodeid);
    if (pair.channel.incarnation !== incarnation) pair.held = [];
    pair.channel.linkUp(incarnation);
    pair.paused = false;
    pair.reported = false;
    this.#adjustPause(nodeid, pair);
  }

  linkDown(nodeid: number, incarnation: string): void {
    const pair = this.#pair(nodeid);
    pair.paused = false;
    if (pair.channel.incarnation === incarnation) pair.channel.linkDown(this.#nowMs);
  }

  /** A connection between members that stays broken past the time-out needs another view. */
  #noticeBroken(nowMs: number): void {
    if (this.phase === "blocked" || this.phase === "none") return;
    for (const [nodeid, pair] of this.#pairs) {
      const { downSinceMs, incarnation } = pair.channel;
      if (downSinceMs === null || pair.reported || nowMs - downSinceMs < this.#timeoutMs) continue;
      if (incarnation === null || !hasMember((this.view as View).members, nodeid, incarnation)) continue;
      pair.reported = true;
      this.#host.broken(`no connection to node ${nodeid} for ${this.#timeoutMs} ms`);
    }
  }

  /** Tells peers what has arrived; from time to time. */
  acknowledge(): void {
    for (const { channel } of this.#pairs.values()) channel.acknowledge();
  }

  /** `incarnation`: at the other end of the connection on which it came. */
  receiveFrame(from: number, incarnation: string, view: ViewId, messages: readonly PeerMessage[]): void {
    const pair = this.#pair(from);
    // Of a former life of that node.
    if (pair.channel.incarnation !== incarnation) return;
    for (const message of messages) {
      const arrival = pair.channel.receive(message);
      if (arrival === "message") this.#route(from, pair, view, message);
      else if (arrival === "lost") this.#lose(from);
    }
    if (this.#crowded) this.#thinOut();
    this.#adjustPause(from, pair);
  }

  /** What that node wrote may not have arrived, and what comes from it in this view must not be taken for all that came. */
  #lose(from: number): void {
    this.#lossy.add(from);
    this.#cut.add(from);
    this.#host.broken(`messages of node ${from} were lost`);
  }

  #route(from: number, pair: Pair, view: ViewId, message: PeerMessage): void {
    const id = this.view?.id ?? noView;
    const current = sameView(view, id);
    if (current && this.#cut.has(from)) return;
    if (!current && view.epoch <= id.epoch) return this.#receiveLate(from, view, message);
    if (current && this.stopped && pair.held.length === 0) return this.#receiveLate(from, view, message);
    if (!current || pair.held.length > 0 || !this.#receiveNow(from, message)) pair.held.push({ view, message });
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
      case "plock-held":
      case "plock-again":
        if (this.phase !== "rebuild") return false;
        this.#host.receive(from, message);
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
    const { incarnation } = this.#pair(from).channel;
    if (incarnation === null || !hasMember(this.#survivors, from, incarnation)) return;
    if (message.kind === "offer" && (sameView(view, this.#tables.id) || view.epoch > this.#tables.id.epoch)) {
      return receiveOffer(this.#locks, message);
    }
    if (!sameView(view, this.#tables.id)) return;
    if (message.kind === "down" || message.kind === "unlock") this.#locks.receiveStopped(from, message);
    else if (message.kind === "grant" || message.kind === "refuse" || message.kind === "plock-answer")
      this.#late.push({ member: { nodeid: from, incarnation }, message });
  }

  /** Looks again at what waits, in order. */
  drain(): void {
    for (const [nodeid, pair] of this.#pairs) {
      if (pair.held.length === 0) continue;
      const held = pair.held;
      pair.held = [];
      for (const { view, message } of held) this.#route(nodeid, pair, view, message);
      this.#adjustPause(nodeid, pair);
    }
  }

  /** Beyond the limit the peer's connection is not read: it waits, nothing is dropped. */
  #adjustPause(nodeid: number, pair: Pair): void {
    const pause = pair.held.length > this.#heldLimit;
    if (pause === pair.paused) return;
    pair.paused = pause;
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
