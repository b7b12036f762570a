/**
 * From an installed view to running lock service, in phases with barriers (Linux dlm_recoverd, reduced):
 *
 *   blocked   not quorate: nothing happens, the tables of the last view are kept
 *   mark      MARK to and from every member: all that survivors had sent before has arrived (hazard H3);
 *             our clients have let go of clients that are gone (hazard C7), the view is on disk; then DONE 1
 *   rebuild   all DONE 1 are in, and a quorum of the view was heard of late: what moves is named to its new master (rebuild.ts); then DONE 2
 *   wait      all DONE 2 are in: until no node outside the view can be serving under a lease, and this one may (hazard C4)
 *   settle    value blocks are settled, what can be granted is granted; in lockspaces that need it not before the dead are fenced
 *   run       what was held back is replayed
 *
 * A newer view starts again from any of them. Frames are sorted here: of the view, of a newer one (they wait), of the last one.
 */
import type { Client } from "../lock/client.ts";
import type { LockManager } from "../lock/lock-manager.ts";
import type { View } from "../membership/membership.ts";
import type { DoneMessage, PeerMessage, Victim } from "../wire/peer-message.ts";
import type { PlockAnswerMessage } from "../wire/peer-plock.ts";
import { hasMember, type Member, noView, sameView, type ViewId } from "../wire/view-id.ts";
import { Displacements } from "./displacements.ts";
import { FenceGate, type FenceGateHost, type KeptFences } from "./fence-gate.ts";
import { LateMessages } from "./late-messages.ts";
import { type Pair, Pairs, type PairsHost } from "./pairs.ts";
import { Rebuild, receiveOffer } from "./rebuild.ts";

export type Phase = "none" | "blocked" | "mark" | "rebuild" | "wait" | "settle" | "run";

export interface RecoveryHost extends PairsHost, FenceGateHost {
  /** The latest known of that node. */
  incarnation(nodeid: number): string | null;
  /** Our clients have not yet answered about clients that are gone. */
  clientsBusy(): boolean;
  /** That this node was in the view, and who is not known to be dead, is on disk. */
  stored(): boolean;
  clients(): Iterable<Client>;
  /** That incarnation said that it leaves. */
  leftCleanly(nodeid: number, incarnation: string): boolean;
  /** File locks are to be named to their masters of that view. */
  rebuildFiles(members: readonly Member[]): void;
  /** So many of them. True: all are. */
  nameFiles(budget: number): boolean;
  /** Everything was named by everybody: of the file locks that can be granted so many are. True: all are. */
  settleFiles(budget: number): boolean;
  /** A message of a running view that is not about locks, or of the rebuild of file locks; in any phase "inspect", "inspected". */
  receive(from: number, message: PeerMessage): void;
  /** An answer of the last view to a file-lock request of this node. */
  receiveLate(message: PlockAnswerMessage): void;
  /** A quorum of the view was heard of late (hazard C4). */
  leased(): boolean;
  protest(nodeid: number, message: string): void;
}

interface Tables {
  readonly id: ViewId;
  readonly members: readonly Member[];
  readonly whole: boolean;
}

export interface RecoveryOptions {
  /** Messages of one peer that wait. */
  readonly heldLimit: number;
  /** Resources and locks that one turn rebuilds. */
  readonly stepsPerTurn: number;
  readonly fencedLockspaces: readonly string[];
  readonly fences: KeptFences;
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
  readonly pairs: Pairs;
  readonly gate: FenceGate;
  /** The view whose locks the manager's tables describe; `whole`: every lock of its members is named. */
  #tables: Tables = { id: noView, members: [], whole: false };
  readonly #late: LateMessages;
  #rebuild: Rebuild | null = null;
  /** Named all that was to be named. */
  #named = false;
  readonly #steps: number;
  /** Members of the latest quorate view: a view without quorum buries nobody. */
  #survivors: readonly Member[] = [];
  readonly #displaced: Displacements = new Displacements();
  /** What this node has said of its resources since a view ran. */
  readonly #said: Displacements = new Displacements();
  readonly #lossy: Set<number> = new Set();
  readonly #marks: Set<number> = new Set();
  /** Their connection broke in this view: what came later must not be taken for all that came. */
  readonly #cut: Set<number> = new Set();
  readonly #done: readonly [Map<number, DoneMessage>, Map<number, DoneMessage>] = [new Map(), new Map()];

  constructor(nodeid: number, locks: LockManager, host: RecoveryHost, options: RecoveryOptions) {
    this.#nodeid = nodeid;
    this.#locks = locks;
    this.#host = host;
    this.pairs = new Pairs(host, options.heldLimit);
    this.#steps = options.stepsPerTurn;
    this.#late = new LateMessages((message) => host.receiveLate(message));
    this.gate = new FenceGate(options.fencedLockspaces, options.fences, host);
    locks.tables.blocks = (lockspace) => this.gate.blocks(lockspace);
  }

  // ---------------------------------------------------------------------------------------------------------- views

  /** A later view was promised: from here on only what holders and masters have already done counts. */
  stop(): void {
    this.stopped = true;
    const id = this.view?.id ?? noView;
    this.pairs.review((nodeid, pair, entry) => {
      if (sameView(entry.view, id)) this.#receiveLate(nodeid, entry.view, entry.message);
      else pair.held.push(entry);
    });
  }

  enterView(view: View): void {
    this.view = view;
    this.stopped = false;
    this.#marks.clear();
    this.#cut.clear();
    this.#displaced.clear();
    this.#done[0].clear();
    this.#done[1].clear();
    this.phase = view.quorum.quorate ? "mark" : "blocked";
    if (view.quorum.quorate) {
      this.#failed(view);
      this.#survivors = view.members;
    }
    if (this.phase === "mark") this.#enterMark(view);
    this.drain();
    this.advance(view.installedMs);
  }

  #enterMark(view: View): void {
    this.pairs.enterView(view.members);
    for (const { nodeid } of view.members) if (nodeid !== this.#nodeid) this.send(nodeid, { kind: "mark" });
  }

  #failed(view: View): void {
    const gone = this.#survivors.filter(
      ({ nodeid, incarnation }) => !hasMember(view.members, nodeid, incarnation) && !this.#host.leftCleanly(nodeid, incarnation),
    );
    this.gate.failed(gone.map((member) => ({ ...member, failingView: view.id })));
    this.#locks.block();
  }

  /** A node is dead for sure. "": taken, else why not. */
  fenced(victim: Victim): string {
    const members = this.view?.members ?? [];
    const refused = this.gate.result(victim, members);
    if (refused !== "") return refused;
    for (const { nodeid } of members) if (nodeid !== this.#nodeid) this.send(nodeid, { kind: "fenced", victim });
    this.#reviewFences();
    return "";
  }

  #reviewFences(): void {
    if (this.serving) this.#locks.unblock();
  }

  /** Goes on as far as possible; a rebuild, by so much as one turn may take. */
  advance(nowMs: number): void {
    this.pairs.nowMs = nowMs;
    const view = this.view;
    if (view === null || this.stopped) return;
    if (this.phase === "mark" && this.#all(this.#marks) && !this.#host.clientsBusy() && this.#host.stored()) this.#tellReady();
    if (this.phase === "mark" && this.#done[0].size === view.members.length && this.#host.leased()) this.#enterRebuild(view);
    if (this.phase === "rebuild" && this.#busyNaming()) this.#nameSome();
    if (this.phase === "rebuild" && this.#named && this.#done[1].size === view.members.length) this.#enterWait();
    if (this.phase === "wait" && nowMs >= view.serveFromMs && this.#host.leased()) this.#enterSettle();
    if (this.phase === "settle" && this.#host.leased() && this.#settleSome()) this.#enterRun();
  }

  /** There is work for another turn, now. */
  get busy(): boolean {
    if (this.stopped) return false;
    return (this.phase === "rebuild" && this.#busyNaming()) || (this.phase === "settle" && this.#host.leased());
  }

  #all(others: ReadonlySet<number>): boolean {
    return others.size === (this.view as View).members.length - 1;
  }

  #tellReady(): void {
    if (!this.#done[0].has(this.#nodeid)) this.#tellDisplaced();
    const { id, whole } = this.#tables;
    const fresh = sameView(id, noView);
    const base = whole && this.#lossy.size === 0 ? id : noView;
    this.#tellDone({ kind: "done", phase: 1, base, fresh, unfenced: this.gate.open, fenced: this.gate.fenced });
  }

  #tellDisplaced(): void {
    // Also what was said in a view that never ran: who has an older block may not have heard it.
    this.#said.addOwn(this.#locks.tables);
    for (const message of this.#said.messages()) {
      this.#displaced.add(message);
      for (const { nodeid } of (this.view as View).members) if (nodeid !== this.#nodeid) this.send(nodeid, message);
    }
  }

  #tellDone(message: DoneMessage): void {
    const done = this.#done[message.phase - 1] as Map<number, DoneMessage>;
    if (done.has(this.#nodeid)) return;
    done.set(this.#nodeid, message);
    for (const { nodeid } of (this.view as View).members) if (nodeid !== this.#nodeid) this.send(nodeid, message);
  }

  /** Every member that has any locks has all locks of one and the same view. */
  #sameBase(): boolean {
    let base: ViewId | null = null;
    for (const message of this.#done[0].values()) {
      if (message.fresh) continue;
      if (sameView(message.base, noView) || (base !== null && !sameView(message.base, base))) return false;
      base = message.base;
    }
    return true;
  }

  #enterRebuild(view: View): void {
    this.phase = "rebuild";
    for (const { unfenced, fenced } of this.#done[0].values()) {
      this.gate.failed(unfenced);
      this.gate.learn(fenced);
    }
    this.#locks.block();
    const lossy = (nodeid: number): boolean => this.#lossy.has(nodeid);
    const displaced = (lockspace: string, name: string): boolean => this.#displaced.has(lockspace, name);
    const unsentSeq = (lockspace: string, name: string): number => this.#displaced.unsentSeq(lockspace, name);
    const change = { before: this.#tables.members, members: view.members, lossy, incremental: this.#sameBase(), displaced, unsentSeq };
    this.#tables = { id: view.id, members: view.members, whole: false };
    this.#named = false;
    this.#rebuild = new Rebuild(this.#locks, this.#host.clients(), change, this.#late, this.#rebuild, (to, message) =>
      this.send(to, message),
    );
    this.#host.rebuildFiles(view.members);
    this.#lossy.clear();
    this.drain();
  }

  #busyNaming(): boolean {
    return !this.#named && !this.pairs.crowded;
  }

  #nameSome(): void {
    if (!(this.#rebuild as Rebuild).step(this.#steps) || !this.#host.nameFiles(this.#steps)) return;
    this.#named = true;
    this.#tellDone({ kind: "done", phase: 2, base: noView, fresh: false, unfenced: [], fenced: [] });
  }

  #enterWait(): void {
    this.phase = "wait";
    this.#tables = { ...this.#tables, whole: true };
  }

  #enterSettle(): void {
    this.phase = "settle";
  }

  #settleSome(): boolean {
    return (this.#rebuild as Rebuild).settle(this.#steps) && this.#host.settleFiles(this.#steps);
  }

  #enterRun(): void {
    this.#rebuild = null;
    this.#said.clear();
    this.phase = "run";
  }

  // ------------------------------------------------------------------------------------------------------- channels

  /** To a member of the view, in the view. */
  send(nodeid: number, message: PeerMessage): void {
    const view = this.view as View;
    const member = view.members.find((member) => member.nodeid === nodeid) as Member;
    // If it died meanwhile, the next view will say so.
    if (this.#host.incarnation(nodeid) === member.incarnation) this.pairs.send(member, view.id, message);
  }

  /** `incarnation`: at the other end of the connection on which it came. */
  receiveFrame(from: number, incarnation: string, view: ViewId, messages: readonly PeerMessage[]): void {
    this.pairs.receive(from, incarnation, messages, (pair, arrival, message) => {
      if (arrival === "message") this.#route(from, pair, view, message);
      else if (arrival === "lost") this.#lose(from);
    });
  }

  /** What that node wrote may not have arrived, and what comes from it in this view must not be taken for all that came. */
  #lose(from: number): void {
    this.#lossy.add(from);
    this.#cut.add(from);
    this.#host.broken(`messages of node ${from} were lost`);
  }

  #route(from: number, pair: Pair, view: ViewId, message: PeerMessage): void {
    // A question of a person, and its answer: they belong to no view, and are wanted most while a recovery hangs.
    if (message.kind === "inspect" || message.kind === "inspected") return this.#host.receive(from, message);
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
        (this.#done[message.phase - 1] as Map<number, DoneMessage>).set(from, message);
        return true;
      case "displaced":
        this.#displaced.add(message);
        return true;
      case "fenced":
        this.gate.learn([message.victim]);
        this.#reviewFences();
        return true;
      case "rebuild":
        if (this.#rebuild === null || this.phase !== "rebuild") return false;
        if (!this.#rebuild.receiveLock(from, message))
          this.#host.protest(from, `lock ${message.lkbId} named to the wrong master, or twice`);
        return true;
      case "offer":
        if (this.#rebuild === null || this.phase !== "rebuild") return false;
        this.#rebuild.receiveOffer(message);
        return true;
      case "refuse":
        // A master that stays told of a cancel that came late: before its DONE 2, which must not wait behind it.
        if (this.phase === "mark" || (this.phase === "run" && !this.serving)) return false;
        this.#locks.receive(from, message);
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

  /** A message of the last view, from a survivor of it, before its MARK (late-messages.ts). */
  #receiveLate(from: number, view: ViewId, message: PeerMessage): void {
    // Not the present connection: the message may have come on one that is gone.
    const { incarnation } = this.pairs.get(from).channel;
    if (incarnation === null || !hasMember(this.#survivors, from, incarnation)) return;
    if (message.kind === "offer" && (sameView(view, this.#tables.id) || view.epoch > this.#tables.id.epoch)) {
      receiveOffer(this.#locks, message);
    } else if (sameView(view, this.#tables.id)) this.#late.add({ nodeid: from, incarnation }, message);
  }

  /** Looks again at what waits, in order. */
  drain(): void {
    this.pairs.review((nodeid, pair, { view, message }) => this.#route(nodeid, pair, view, message));
  }

  /** What recovery waits for, in words. */
  explain(): string {
    const view = this.view;
    const missing = (have: { has(nodeid: number): boolean }): string =>
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
      case "settle":
        return "recovering: granting what can be granted";
      case "run":
        if (this.serving && this.gate.open.length > 0) {
          const [nodes, spaces] = [this.gate.open.map(({ nodeid }) => nodeid).join(" "), [...this.gate.lockspaces].join(" ")];
          return `running; lockspaces ${spaces} wait until nodes ${nodes} are known to be dead (no fence device: coverlay fence ack)`;
        }
        return this.serving ? "running" : "waiting: too long since a quorum of the view was heard";
    }
  }
}
