/**
 * From an installed view to running lock service, in phases with barriers (Linux dlm_recoverd, reduced):
 *
 *   blocked   not quorate: nothing happens, the tables of the last view are kept
 *   mark      MARK to and from every member: all that survivors had sent before has arrived (hazard H3);
 *             the view is on disk; then which lockspaces wait for our clients (gone-gate.ts, hazard C7), and DONE 1
 *   rebuild   all DONE 1 are in, and a quorum of the view was heard of late: what moves is named to its new master (rebuild.ts); then DONE 2
 *   wait      all DONE 2 are in: until no node outside the view can be serving under a lease, and this one may (hazard C4)
 *   settle    value blocks are settled, what can be granted is granted; not in lockspaces that wait for a fence, or for clients
 *   run       what was held back is replayed
 *
 * A newer view starts again from any of them. Frames are sorted here: of the view, of a newer one (they wait), of the last one.
 */
import type { StepTime } from "../base/step-time.ts";
import type { Engine, View } from "../engine/engine.ts";
import type { LockManager } from "../lock/lock-manager.ts";
import { type DoneMessage, isOfNoView, type OpenVictim, type PeerMessage, type Victim } from "../wire/peer-message.ts";
import { hasMember, type Member, noView, sameView, type ViewId, viewName } from "../wire/view-id.ts";
import { FenceGate, withVictim } from "./fence-gate.ts";
import { GoneGate } from "./gone-gate.ts";
import { LateMessages } from "./late-messages.ts";
import { type Pair, PeerChannels } from "../transport/peer-channels.ts";
import { explainRecovery } from "./explain.ts";
import { receiveOffer } from "./newest-block.ts";
import { Rebuild } from "./rebuild.ts";
import type { Phase, RebuiltFiles, RecoveryOptions, RecoveryParts, RecoveryPort } from "./recovery-port.ts";

interface Tables {
  readonly id: ViewId;
  readonly members: readonly Member[];
  readonly whole: boolean;
}

export class Recovery {
  phase: Phase = "none";
  view: View | null = null;
  #serving = false;
  stopped = false;
  readonly #nodeid: number;
  readonly #time: StepTime;
  readonly #engine: Engine;
  readonly #locks: LockManager;
  readonly #files: RebuiltFiles;
  readonly #port: RecoveryPort;
  readonly channels: PeerChannels;
  readonly gate: FenceGate;
  readonly goneGate: GoneGate;
  /** The view whose locks the manager's tables describe; `whole`: every lock of its members is named. */
  #tables: Tables = { id: noView, members: [], whole: false };
  readonly #late: LateMessages;
  #rebuild: Rebuild | null = null;
  /** Named all that was to be named. */
  #named = false;
  readonly #steps: number;
  /** Members of the latest quorate view: a view without quorum buries nobody. */
  #survivors: readonly Member[] = [];
  /** Those that failed since members agreed last on what the dead had open. */
  #failures: readonly OpenVictim[] = [];
  readonly #lossy: Set<number> = new Set();
  readonly #marks: Set<number> = new Set();
  /** Their connection broke in this view: what came later must not be taken for all that came. */
  readonly #cut: Set<number> = new Set();
  readonly #done: readonly [Map<number, DoneMessage>, Map<number, DoneMessage>] = [new Map(), new Map()];

  /** Writes of who is not known to be dead that are under way. */
  #fencesUnkept = 0;

  constructor(nodeid: number, time: StepTime, parts: RecoveryParts, port: RecoveryPort, options: RecoveryOptions) {
    this.#nodeid = nodeid;
    this.#time = time;
    this.#engine = parts.engine;
    this.#locks = parts.locks;
    this.#files = parts.files;
    this.#port = port;
    const broken = (why: string): void => this.#engine.rebuildView(why);
    this.channels = new PeerChannels(time, { ...port, broken }, options.heldLimit);
    this.#steps = options.stepsPerTurn;
    this.#late = new LateMessages(options.lateLimit, (message) => this.#files.receiveLate(message));
    this.gate = new FenceGate(options.fencedLockspaces, options.fences, {
      waits: (victim) =>
        port.log("warn", "node went without a word: its lockspaces wait until it is known to be dead", {
          ...describeVictim(victim),
          lockspaces: this.gate.lockspacesOf(victim),
        }),
      known: (victim) => {
        port.log("info", "node is known to be dead", describeVictim(victim));
        if (this.gate.open.length === 0) this.#engine.proved();
      },
      keep: (fences) => {
        this.#fencesUnkept++;
        port.keep(fences);
      },
    });
    this.goneGate = new GoneGate(nodeid, () => parts.deaths.ofNodes());
  }

  /** Lock service is allowed at this moment, as of the last look. */
  get serving(): boolean {
    return this.#serving;
  }

  /** So much is on its way to other nodes, or waits for a master, that clients must wait. */
  get crowded(): boolean {
    return this.channels.crowded;
  }

  /** Looks whether lock service is allowed now: phase run, no later view promised, lease not over. True: that has changed. */
  updateService(): boolean {
    const may = this.phase === "run" && !this.stopped && this.#leased();
    if (may === this.#serving) return false;
    this.#serving = may;
    this.#engine.setServing(may);
    return true;
  }

  /** This life of the node is over. */
  end(): void {
    this.#serving = false;
  }

  /** A quorum of the view was heard of late (hazard C4). */
  #leased(): boolean {
    return this.#time.nowMs < this.#engine.leaseEndMs && !this.#engine.leaving;
  }

  /** That this node was in the view, and who is not known to be dead, is on disk. */
  #stable(): boolean {
    return this.#engine.stable && this.#fencesUnkept === 0;
  }

  fencesKept(): void {
    this.#fencesUnkept--;
  }

  /** Nothing is granted in that lockspace: a node that is gone is not known to be dead, or not everybody has let go of it. */
  blocks(lockspace: string): boolean {
    return this.gate.blocks(lockspace) || this.goneGate.blocks(lockspace);
  }

  // ---------------------------------------------------------------------------------------------------------- views

  /** A later view was promised: from here on only what holders and masters have already done counts. */
  stop(): void {
    this.stopped = true;
    const id = this.view?.id ?? noView;
    this.channels.review((nodeid, pair, entry) => {
      if (sameView(entry.view, id)) this.#receiveLate(nodeid, entry.view, entry.message);
      else pair.held.push(entry);
    });
  }

  enterView(view: View): void {
    this.view = view;
    this.stopped = false;
    this.#marks.clear();
    this.#cut.clear();
    this.#done[0].clear();
    this.#done[1].clear();
    this.goneGate.enterView();
    this.phase = view.quorum.quorate ? "mark" : "blocked";
    if (view.quorum.quorate) {
      this.gate.enterView(view.members);
      this.#failed(view);
      this.#survivors = view.members;
    }
    if (this.phase === "mark") this.#enterMark(view);
    this.drain();
    this.advance();
  }

  #enterMark(view: View): void {
    this.channels.enterView(view.members);
    this.#tellOthers({ kind: "mark" });
  }

  #failed(view: View): void {
    const gone = this.#survivors.filter(
      ({ nodeid, incarnation }) => !hasMember(view.members, nodeid, incarnation) && this.#engine.peers.get(nodeid)?.left !== incarnation,
    );
    const failed = gone.map((member) => ({ ...member, failingView: view.id, lockspaces: this.gate.guarded(this.#port.openedBy(member)) }));
    if (this.gate.isUsed) for (const victim of failed) this.#failures = withVictim(this.#failures, victim);
    // Of the others another member may know more.
    this.gate.failed(failed.filter(({ lockspaces }) => lockspaces !== null));
    this.#locks.block();
  }

  /** A node is dead for sure. "": taken, else why not. */
  fenced(victim: Victim): string {
    const refused = this.gate.result(victim, this.view?.members ?? []);
    if (refused !== "") return refused;
    this.#tellOthers({ kind: "fenced", victim });
    this.reviewGates();
    return "";
  }

  /** Every member delivers it at the same place: nobody need be told. */
  proved({ nodeid, incarnation }: Member): void {
    const open = this.gate.open.find((victim) => victim.nodeid === nodeid && victim.incarnation === incarnation);
    if (open === undefined) return;
    this.gate.learn([open]);
    this.reviewGates();
  }

  /** While service runs: lockspaces that need not wait any more go on. */
  reviewGates(): void {
    if (!this.#serving) return;
    this.#locks.unblock();
    this.#files.unblock();
  }

  /** Clients of this node have let go of nodes that are gone, or are to. */
  goneChanged(): void {
    this.goneGate.review();
    if (this.#done[0].has(this.#nodeid) && !this.stopped) this.#tellGoneWaits();
    this.reviewGates();
  }

  #tellGoneWaits(): void {
    const news = this.goneGate.news(this.#time.nowMs);
    if (news !== null) this.#tellOthers(news);
  }

  /** Goes on as far as possible; a rebuild, by so much as one turn may take. */
  advance(): void {
    const view = this.view;
    if (view === null || this.stopped) return;
    if (this.phase === "mark" && this.#all(this.#marks) && this.#stable()) this.#tellReady();
    if (this.phase === "mark" && this.#done[0].size === view.members.length && this.#leased()) this.#enterRebuild(view);
    if (this.phase === "rebuild" && this.#busyNaming()) this.#nameSome();
    if (this.phase === "rebuild" && this.#named && this.#done[1].size === view.members.length) this.#enterWait();
    if (this.phase === "wait" && this.#time.nowMs >= view.serveFromMs && this.#leased() && this.#stable()) this.#enterSettle();
    if (this.phase === "settle" && this.#leased() && this.#settleSome()) this.#enterRun();
  }

  /** There is work for another turn, now. */
  get busy(): boolean {
    if (this.stopped) return false;
    return (this.phase === "rebuild" && this.#busyNaming()) || (this.phase === "settle" && this.#leased());
  }

  #all(others: ReadonlySet<number>): boolean {
    return others.size === (this.view as View).members.length - 1;
  }

  #tellReady(): void {
    if (this.#done[0].has(this.#nodeid)) return;
    this.#tellGoneWaits();
    const { id, whole } = this.#tables;
    const fresh = sameView(id, noView);
    const base = whole && this.#lossy.size === 0 ? id : noView;
    const { open, fenced } = this.gate;
    const others = this.#failures.filter(({ nodeid, incarnation }) => !hasMember(open, nodeid, incarnation));
    this.#tellDone({ kind: "done", phase: 1, base, fresh, unfenced: [...open, ...others], fenced });
  }

  #tellDone(message: DoneMessage): void {
    const done = this.#done[message.phase - 1] as Map<number, DoneMessage>;
    if (done.has(this.#nodeid)) return;
    done.set(this.#nodeid, message);
    this.#tellOthers(message);
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
    this.gate.agreeOf(this.#done[0]);
    this.#failures = [];
    for (const { fenced } of this.#done[0].values()) this.gate.learn(fenced);
    this.#locks.block();
    const { members } = view;
    const change = { before: this.#tables.members, members, lossy: this.#lossy, incremental: this.#sameBase() };
    this.#tables = { id: view.id, members: view.members, whole: false };
    this.#named = false;
    this.#rebuild = new Rebuild(this.#locks, this.#port.clients(), change, this.#late, this.#rebuild, (to, message) =>
      this.send(to, message),
    );
    this.#files.startRebuild(view.members);
    this.#lossy.clear();
    this.drain();
  }

  #busyNaming(): boolean {
    return !this.#named && !this.channels.crowded;
  }

  #nameSome(): void {
    if (!(this.#rebuild as Rebuild).step(this.#steps) || !this.#files.name(this.#steps)) return;
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
    return (this.#rebuild as Rebuild).settle(this.#steps) && this.#files.settle(this.#steps);
  }

  #enterRun(): void {
    this.#rebuild = null;
    this.phase = "run";
  }

  // ------------------------------------------------------------------------------------------------------- channels

  /** To a member of the view, in the view. A node that is none, which a peer has named, is told nothing. */
  send(nodeid: number, message: PeerMessage): void {
    const view = this.view as View;
    const member = view.members.find((one) => one.nodeid === nodeid);
    // If it died meanwhile, the next view will say so.
    if (member !== undefined && this.#engine.peers.get(nodeid)?.incarnation === member.incarnation)
      this.channels.send(member, view.id, message);
  }

  #tellOthers(message: PeerMessage): void {
    for (const { nodeid } of this.view?.members ?? []) if (nodeid !== this.#nodeid) this.send(nodeid, message);
  }

  /** `incarnation`: at the other end of the connection on which it came. */
  receiveFrame(from: number, incarnation: string, view: ViewId, messages: readonly PeerMessage[]): void {
    this.channels.receive(from, incarnation, messages, (pair, arrival, message) => {
      if (arrival === "message") this.#route(from, pair, view, message);
      else if (arrival === "lost") this.#lose(from);
    });
  }

  /** What that node wrote may not have arrived, and what comes from it in this view must not be taken for all that came. */
  #lose(from: number): void {
    this.#lossy.add(from);
    this.#cut.add(from);
    this.#engine.rebuildView(`messages of node ${from} were lost`);
  }

  /** It sent what it cannot have meant: our tables do not agree with its own, and everything is to be named anew (mistrust.ts). */
  mistrust(from: number): void {
    this.#lossy.add(from);
  }

  #route(from: number, pair: Pair, view: ViewId, message: PeerMessage): void {
    // Questions that change nothing, and their answers: they belong to no view, and are wanted most while a recovery hangs.
    if (isOfNoView(message)) return this.#port.receive(from, message);
    const id = this.view?.id ?? noView;
    const current = sameView(view, id);
    if (current && this.#cut.has(from)) return;
    // The views of a node ascend by epoch, so another one with this epoch will not come: it is no later one.
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
      case "fenced":
        this.gate.learn([message.victim]);
        this.reviewGates();
        return true;
      case "gone-waits":
        this.goneGate.receive(from, message, this.#time.nowMs);
        this.reviewGates();
        return true;
      case "rebuild":
        if (this.#rebuild === null || this.phase !== "rebuild") return this.#beforeOrAfterNaming(from, message);
        if (!this.#rebuild.receiveLock(from, message))
          this.#port.protest(from, `lock ${message.lkbId} named to the wrong master, or twice`);
        return true;
      case "offer":
        if (this.#rebuild === null || this.phase !== "rebuild") return this.#beforeOrAfterNaming(from, message);
        this.#rebuild.receiveOffer(message);
        return true;
      case "refuse":
        // A master that stays told of a cancel that came late: before its DONE 2, which must not wait behind it.
        if (this.phase === "mark" || (this.phase === "run" && !this.#serving)) return false;
        this.#locks.receive(from, message);
        return true;
      case "plock-held":
      case "plock-again":
        if (this.phase !== "rebuild") return this.#beforeOrAfterNaming(from, message);
        this.#port.receive(from, message);
        return true;
      default:
        if (!this.#serving) return !this.#done[1].has(from) && this.#outOfPlace(from, message);
        if (!this.#locks.receive(from, message)) this.#port.receive(from, message);
        return true;
    }
  }

  /** What is named waits for the rebuild; after it nobody takes it. */
  #beforeOrAfterNaming(from: number, message: PeerMessage): boolean {
    return this.phase !== "mark" && this.#outOfPlace(from, message);
  }

  /**
   * Nobody serves before it has said DONE 2, or names locks after it. What comes behind such a message, its DONE too, must not wait for it: no
   * recovery would end (hazard H13).
   */
  #outOfPlace(from: number, { kind }: PeerMessage): true {
    this.#cut.add(from);
    this.#port.protest(from, `${kind} in the midst of a recovery, where it has none to say`);
    return true;
  }

  /** A message of the last view, from a survivor of it, before its MARK (late-messages.ts). */
  #receiveLate(from: number, view: ViewId, message: PeerMessage): void {
    // Not the present connection: the message may have come on one that is gone.
    const { incarnation } = this.channels.get(from).channel;
    if (incarnation === null || !hasMember(this.#survivors, from, incarnation)) return;
    if (message.kind === "offer" && (sameView(view, this.#tables.id) || view.epoch > this.#tables.id.epoch)) {
      receiveOffer(this.#locks, message);
    } else if (sameView(view, this.#tables.id) && !this.#late.add({ nodeid: from, incarnation }, message)) this.#lose(from);
  }

  /** Looks again at what waits, in order. */
  drain(): void {
    this.channels.review((nodeid, pair, { view, message }) => this.#route(nodeid, pair, view, message));
  }

  /** What recovery waits for, in words. */
  explain(nowMs: number): string {
    const { phase, stopped, view, gate, goneGate } = this;
    const done = [new Set(this.#done[0].keys()), new Set(this.#done[1].keys())] as const;
    const others = (view?.members ?? []).map(({ nodeid }) => nodeid).filter((nodeid) => nodeid !== this.#nodeid);
    const state = { phase, stopped, others, marks: this.#marks, done, stable: this.#stable(), serving: this.#serving };
    return explainRecovery(state, () => [gate.explain(), goneGate.explain(nowMs)]);
  }
}

function describeVictim({ nodeid, incarnation, failingView }: Victim): Record<string, unknown> {
  return { nodeid, incarnation, failingView: viewName(failingView) };
}
