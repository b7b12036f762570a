/**
 * One view is agreed upon: PROPOSE, STATE, FLUSH, FLUSHED, INSTALL. The promise is that of Paxos (the highest epoch wins and is stored
 * first), the flush that of corosync's totemsrp.c, recovery state, reduced to one former view: before a quorate view begins, all
 * who come from the last one have the same ordered messages. Hazards H4, C4, C8, M3. Whether to propose, and whom: membership.ts.
 */
import type { EngineBoot } from "../engine/boot.ts";
import type { View } from "../engine/engine.ts";
import type { Datagram, Install, Propose, StateAnswer } from "../wire/datagram.ts";
import type { Flush, Flushed, OrderStart, OrderState } from "../wire/order-datagram.ts";
import type { CountedBy } from "../wire/quorum-count.ts";
import {
  compareViews,
  type Counting,
  hasMember,
  laterCounting,
  type Lineage,
  type Member,
  noLineage,
  noView,
  sameView,
  type ViewId,
  viewName,
} from "../wire/view-id.ts";
import { planFlush } from "./flush-plan.ts";
import { leaseWaitShare } from "./lease.ts";
import type { Peer } from "./peer-table.ts";
import {
  agreesTo,
  electorateBy,
  nextElectorate,
  type Parting,
  type QuorumBasis,
  type Quorum,
  quorumOf,
  settledElectorate,
} from "./quorum.ts";

export interface InstalledView extends View {
  /** Of the ordered channel; null: not quorate. */
  readonly start: OrderStart | null;
}

export interface AgreementHost {
  readonly peers: ReadonlyMap<number, Peer>;
  datagram(to: number | "all", message: Datagram): void;
  persist(promisedEpoch: number, lineage: Lineage): void;
  /** A later view was promised: all service stops now. */
  stop(): void;
  install(view: InstalledView): void;
  evicted(reason: string): void;
  /** That incarnation holds state of before a quorate view that went on without it. */
  evict(peer: Peer, targetIncarnation: string, lineage: ViewId): void;
  basis(): QuorumBasis;
  /** Who counts no more from the next view on. */
  parting(nowMs: number): Parting;
  orderState(): OrderState;
  flush(flush: Flush, nowMs: number): void;
  givenUp(nowMs: number): void;
  log(level: "debug" | "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>): void;
}

export interface Promised {
  readonly view: ViewId;
  readonly members: readonly Member[];
  readonly sinceMs: number;
  stored: boolean;
  /** As FLUSH says. */
  counted: CountedBy | null;
  /** What this node said FLUSHED by first. */
  answeredBy: QuorumBasis | null;
}

export interface Proposal {
  readonly view: ViewId;
  readonly members: readonly Member[];
  readonly sinceMs: number;
  readonly answers: Map<number, StateAnswer>;
  /** Set when all answers are in. */
  flush: Flush | null;
  readonly flushed: Map<number, Flushed>;
  quorum: Quorum | null;
  /** With who counts from this view on; null: nobody else than now. */
  next: Quorum | null;
  /** Somebody else made one with the same epoch (hazard H14): who has promised that one answers this one never. */
  collided: boolean;
}

export class Agreement {
  view: InstalledView | null = null;
  /** The latest quorate view that this node installed in this life: what it holds, it holds since then. */
  lineage: ViewId = noView;
  /** What this node agreed to the present view by, or did not; null: nobody was asked. */
  answeredBy: QuorumBasis | null = null;
  promised: Promised | null = null;
  proposal: Proposal | null = null;
  promisedEpoch: number;
  highestEpoch: number;
  /** As `lineage`, in any of its lives. */
  seen: Lineage;
  /** As it was told with the votes that count here; null: with none of them (hazard C8). */
  told: Counting | null;
  /** What later lives know of it. With two_node a half that is alone keeps the last view of both until it may serve (hazard M2). */
  #kept: Lineage;
  readonly #boot: EngineBoot;
  readonly #host: AgreementHost;
  readonly #self: Member;
  #persisting = 0;
  /** By which the last quorate view of this life was counted. */
  #agreedVersion: number | null = null;
  #lastInstall: { message: Install; untilMs: number } | null = null;

  constructor(boot: EngineBoot, host: AgreementHost) {
    this.#boot = boot;
    this.#host = host;
    this.#self = { nodeid: boot.nodeid, incarnation: boot.incarnation };
    this.seen = boot.lineage ?? noLineage;
    this.#kept = this.seen;
    this.told = boot.counting ?? null;
    this.promisedEpoch = boot.promisedEpoch;
    this.highestEpoch = boot.promisedEpoch;
  }

  /** Who counts, as far as this node knows. */
  get counting(): Counting {
    return this.told === null ? this.seen : laterCounting<Counting>(this.seen, this.told);
  }

  /** Its configuration is not only of a file: who counted when it was decided is known here. */
  get agreed(): boolean {
    const { agreed, version } = this.#host.basis();
    return agreed === true || version === this.#agreedVersion;
  }

  /** All that a restart must know is on disk. */
  get stored(): boolean {
    return this.#persisting === 0;
  }

  #head(): { from: number; incarnation: string } {
    return { from: this.#self.nodeid, incarnation: this.#self.incarnation };
  }

  // -------------------------------------------------------------------------------------------------------- promises

  propose(members: readonly Member[], why: string, nowMs: number): void {
    const epoch = Math.max(this.highestEpoch, this.promisedEpoch) + 1;
    const view: ViewId = { epoch, proposer: this.#self.nodeid, incarnation: this.#self.incarnation };
    this.proposal = {
      view,
      members,
      sinceMs: nowMs,
      answers: new Map(),
      flush: null,
      flushed: new Map(),
      quorum: null,
      next: null,
      collided: false,
    };
    this.#host.log("info", "proposing a view", { view: viewName(view), members: members.map((member) => member.nodeid), why });
    this.#sendProposal(this.proposal);
    this.#promise(view, members, nowMs);
  }

  #sendProposal({ view, members, answers }: Proposal): void {
    for (const { nodeid } of members) {
      if (nodeid === this.#self.nodeid || answers.has(nodeid)) continue;
      this.#host.datagram(nodeid, { kind: "propose", ...this.#head(), view, members });
    }
  }

  receivePropose(message: Propose, nowMs: number): void {
    const { view, members } = message;
    this.highestEpoch = Math.max(this.highestEpoch, view.epoch);
    if (!hasMember(members, this.#self.nodeid, this.#self.incarnation)) return;
    if (view.proposer !== message.from || view.incarnation !== message.incarnation) return;
    // An agent runs against it (hazard M2).
    if (members.some(({ nodeid }) => this.#host.peers.get(nodeid)?.barred === true)) return;
    if (this.promised !== null && sameView(this.promised.view, view)) {
      if (this.promised.stored) this.#answer(view, nowMs);
      return;
    }
    // By the epoch: of several proposals with one epoch a node promises the first, so the views that it installs ascend by epoch.
    if (view.epoch <= this.promisedEpoch) {
      if (this.proposal?.view.epoch === view.epoch) this.proposal.collided = true;
      return;
    }
    this.proposal = null;
    this.#promise(view, members, nowMs);
  }

  #promise(view: ViewId, members: readonly Member[], nowMs: number): void {
    this.promised = { view, members, sinceMs: nowMs, stored: false, counted: null, answeredBy: null };
    this.promisedEpoch = view.epoch;
    this.#lastInstall = null;
    this.#host.stop();
    this.#persist();
  }

  #persist(): void {
    this.#persisting++;
    this.#host.persist(this.promisedEpoch, this.#kept);
  }

  persisted(promisedEpoch: number, nowMs: number): void {
    this.#persisting--;
    const promised = this.promised;
    if (promised === null || promised.stored || promised.view.epoch > promisedEpoch) return;
    promised.stored = true;
    this.#answer(promised.view, nowMs);
  }

  #answer(view: ViewId, nowMs: number): void {
    const ackedAgo = [];
    for (const peer of this.#host.peers.values()) {
      if (peer.left !== null && peer.left === peer.incarnation) continue;
      // Not heard in this life: a former one may have acked it until this one began.
      const ms = Math.min(nowMs - this.#boot.nowMs, Math.max(0, nowMs - peer.lastHeardMs));
      ackedAgo.push({ nodeid: peer.config.nodeid, ms });
    }
    const configVersion = this.#host.basis().version;
    const { lineage, counting, agreed } = this;
    const { id, members } = this.seen;
    const state: StateAnswer = {
      kind: "state",
      ...this.#head(),
      view,
      configVersion,
      agreed,
      lineage,
      seen: { id, members },
      counting: { id: counting.id, electorate: counting.electorate },
      ackedAgo,
      order: this.#host.orderState(),
    };
    if (view.proposer === this.#self.nodeid) this.receiveState(state, nowMs);
    else this.#host.datagram(view.proposer, state);
  }

  // --------------------------------------------------------------------------------------------------- the proposer

  receiveState(state: StateAnswer, nowMs: number): void {
    const proposal = this.proposal;
    if (proposal === null || !sameView(state.view, proposal.view) || !hasMember(proposal.members, state.from, state.incarnation)) return;
    const peer = this.#host.peers.get(state.from);
    if (peer !== undefined) peer.unanswered = 0;
    if (proposal.flush !== null) return;
    proposal.answers.set(state.from, state);
    if (proposal.answers.size === proposal.members.length) this.#allAnswered(proposal, nowMs);
  }

  #allAnswered(proposal: Proposal, nowMs: number): void {
    const answers = [...proposal.answers.values()];
    const latest = answers.map(({ seen }) => seen).reduce((a, b) => (compareViews(b.id, a.id) > 0 ? b : a));
    const outdated = answers.filter(({ lineage }) => lineage.epoch > 0 && compareViews(lineage, latest.id) < 0);
    const excluded = outdated.filter((state) => !hasMember(latest.members, state.from, state.incarnation));
    if (excluded.length > 0) return this.#refuseOutdated(excluded, latest.id);
    const own = this.#host.basis();
    const ofFile = !answers.some(({ configVersion, agreed }) => configVersion === own.version && agreed);
    const basis: QuorumBasis = ofFile ? { ...own, ofFile } : own;
    if (answers.some((state) => state.configVersion > basis.version)) {
      this.#host.log("info", "a member has a later configuration, by which this node cannot count", { version: basis.version });
      this.proposal = null;
      return this.#host.givenUp(nowMs);
    }
    const continued = answers.some(({ lineage }) => lineage.epoch > 0);
    const known = answers.map(({ counting }) => counting).reduce(laterCounting);
    const electorate = electorateBy(basis, known.electorate);
    proposal.quorum = quorumOf(basis, proposal.members, continued, electorate);
    if (!proposal.quorum.quorate) return this.#conclude(proposal, nowMs);
    const parting = this.#host.parting(nowMs);
    // A member may know of a change of the votes that is open: leaving waits for it (hazard C8).
    const same = answers.every(({ configVersion }) => configVersion === basis.version);
    const next = nextElectorate(basis, electorate, proposal.members, same ? parting : { ...parting, leaving: [] });
    if (next !== null) proposal.next = quorumOf(basis, proposal.members, continued, next);
    const counted = { configVersion: basis.version, electorate: next ?? electorate, open: basis.former !== undefined };
    this.#enterFlush(proposal, answers, counted, nowMs);
  }

  #refuseOutdated(excluded: readonly StateAnswer[], latest: ViewId): void {
    this.proposal = null;
    for (const state of excluded) {
      const peer = this.#host.peers.get(state.from);
      if (peer === undefined) return this.#host.evicted(`view ${viewName(latest)} went on without this node`);
      this.#host.evict(peer, state.incarnation, latest);
    }
  }

  #enterFlush(proposal: Proposal, answers: readonly StateAnswer[], counted: CountedBy, nowMs: number): void {
    const startedIn = (state: StateAnswer): ViewId => state.order.started?.id ?? noView;
    const last = answers.reduce((a, b) => (compareViews(startedIn(b), startedIn(a)) > 0 ? b : a)).order.started;
    const from = last === null ? [] : answers.filter(({ order }) => order.started !== null && sameView(order.started.id, last.id));
    const { cut, sources } = planFlush(from.map((state) => ({ nodeid: state.from, order: state.order })));
    proposal.flush = { kind: "flush", ...this.#head(), view: proposal.view, last, cut, sources, counted };
    this.#sendFlush(proposal);
    this.#doFlush(proposal.flush, nowMs);
  }

  #sendFlush({ members, flush, flushed }: Proposal): void {
    if (flush === null) return;
    for (const { nodeid } of members) if (nodeid !== this.#self.nodeid && !flushed.has(nodeid)) this.#host.datagram(nodeid, flush);
  }

  receiveFlushed(message: Flushed, nowMs: number): void {
    const proposal = this.proposal;
    if (proposal === null || proposal.flush === null || !sameView(message.view, proposal.view)) return;
    if (!hasMember(proposal.members, message.from, message.incarnation)) return;
    proposal.flushed.set(message.from, message);
    if (proposal.flushed.size === proposal.members.length) this.#conclude(proposal, nowMs);
  }

  #conclude(proposal: Proposal, nowMs: number): void {
    const { view, members, flush } = proposal;
    const flushed = [...proposal.flushed.values()];
    const against = flushed.filter(({ agrees }) => !agrees).map(({ from }) => from);
    const counted = proposal.quorum as Quorum;
    const quorum: Quorum = against.length > 0 ? { ...counted, quorate: false, rule: "other-proposal" } : (proposal.next ?? counted);
    if (against.length > 0)
      this.#host.log("warn", "no quorum: members have stored other votes of a change of configuration", { view: viewName(view), against });
    const waitMs = this.#waitMs(proposal);
    const start = flush === null || against.length > 0 ? null : startOf(flush, flushed);
    const message: Install = { kind: "install", ...this.#head(), view, members, waitMs, quorum, start };
    this.proposal = null;
    this.#install(message, nowMs);
    this.#lastInstall = { message, untilMs: nowMs + this.#boot.timeoutMs };
    this.#sendInstall(message);
  }

  /** A node outside may serve until its lease is over: counted from the last ack that any member may have given it (hazard C4). */
  #waitMs(proposal: Proposal): number {
    let waitMs = 0;
    for (const state of proposal.answers.values()) {
      for (const { nodeid, ms } of state.ackedAgo) {
        if (proposal.members.some((member) => member.nodeid === nodeid)) continue;
        waitMs = Math.max(waitMs, leaseWaitShare * this.#boot.timeoutMs - ms);
      }
    }
    return waitMs;
  }

  #sendInstall(message: Install): void {
    for (const { nodeid } of message.members) {
      const peer = this.#host.peers.get(nodeid);
      if (peer !== undefined && !(peer.heartbeat !== null && sameView(peer.heartbeat.view, message.view)))
        this.#host.datagram(nodeid, message);
    }
  }

  // ------------------------------------------------------------------------------------------------------ the others

  receiveFlush(flush: Flush, nowMs: number): void {
    const promised = this.promised;
    if (promised === null || !promised.stored || !sameView(promised.view, flush.view)) return;
    if (flush.view.proposer !== flush.from || flush.view.incarnation !== flush.incarnation) return;
    this.#doFlush(flush, nowMs);
  }

  #doFlush(flush: Flush, nowMs: number): void {
    if (this.promised !== null) this.promised.counted ??= flush.counted;
    this.#host.flush(flush, nowMs);
  }

  /** Our part of the flush is done. */
  flushed(view: ViewId, answer: Pick<Flushed, "together" | "synced" | "lasts">, nowMs: number): void {
    const promised = this.promised;
    if (promised === null || promised.counted === null || !sameView(promised.view, view)) return;
    const basis = this.#host.basis();
    // Of two answers the first may be the one that decides: another basis than its own is a reason for another view.
    promised.answeredBy ??= basis;
    const message: Flushed = {
      kind: "flushed",
      ...this.#head(),
      view,
      ...answer,
      agrees: agreesTo(basis, promised.members, promised.counted),
    };
    if (view.proposer === this.#self.nodeid) this.receiveFlushed(message, nowMs);
    else this.#host.datagram(view.proposer, message);
  }

  receiveInstall(message: Install, nowMs: number): void {
    const promised = this.promised;
    if (promised === null || !promised.stored || !sameView(promised.view, message.view)) return;
    if (!hasMember(message.members, this.#self.nodeid, this.#self.incarnation)) return;
    this.#install(message, nowMs);
  }

  #install(message: Install, nowMs: number): void {
    const { view: id, quorum, start, waitMs } = message;
    const members = [...message.members].sort((a, b) => a.nodeid - b.nodeid);
    const view: InstalledView = { id, members, quorum, installedMs: nowMs, serveFromMs: nowMs + waitMs, start };
    this.view = view;
    this.answeredBy = this.promised?.answeredBy ?? null;
    this.promised = null;
    if (quorum.quorate) {
      this.#agreedVersion = quorum.configVersion;
      this.lineage = id;
      this.seen = { id, members, electorate: quorum.electorate };
      if (!this.#isHalf(members)) this.#kept = this.seen;
      this.#persist();
    }
    for (const peer of this.#host.peers.values()) peer.ackedMs = Number.NEGATIVE_INFINITY;
    this.#host.install(view);
  }

  /**
   * With two_node the other node may be alone in a view, too. If it is fenced, its next life must not know of that view: it would say that the cluster
   * went on without the half that has won.
   */
  #isHalf(members: readonly Member[]): boolean {
    if (!this.#host.basis().options.twoNode) return false;
    return this.#kept.members.some(
      ({ nodeid, incarnation }) =>
        nodeid !== this.#self.nodeid &&
        !members.some((member) => member.nodeid === nodeid) &&
        this.#host.peers.get(nodeid)?.left !== incarnation,
    );
  }

  /** All that are not in the present view are known to be dead: gives those of the last joint one. */
  proved(): readonly Member[] {
    if (sameView(this.#kept.id, this.seen.id)) return [];
    const dead = this.#kept.members.filter(({ nodeid, incarnation }) => !hasMember(this.seen.members, nodeid, incarnation));
    this.#kept = this.seen;
    this.#persist();
    return dead;
  }

  /** Every member of the present view has it on disk who counts now. */
  settleElectorate(): void {
    const { electorate } = this.seen;
    if (electorate === null || electorate.former === null) return;
    const isKept = sameView(this.#kept.id, this.seen.id);
    this.seen = { ...this.seen, electorate: settledElectorate(this.#host.basis(), electorate) };
    if (isKept) this.#kept = this.seen;
    this.#persist();
  }

  /** A person's word: nodes that this one waits for are gone for good. */
  countAll(): void {
    this.seen = { ...this.seen, electorate: null };
    this.#kept = this.seen;
    this.told = null;
    this.#persist();
  }

  /** Datagrams may be lost: what is not answered yet goes out again. */
  repeat(nowMs: number): void {
    if (this.proposal !== null) {
      this.#sendProposal(this.proposal);
      this.#sendFlush(this.proposal);
    }
    const install = this.#lastInstall;
    if (install === null) return;
    if (nowMs >= install.untilMs) this.#lastInstall = null;
    else this.#sendInstall(install.message);
  }
}

/** All members that go on together have delivered the same packets, so the `lasts` of any of them will do. */
function startOf(flush: Flush, flushed: readonly Flushed[]): OrderStart {
  const together = flushed.filter((answer) => answer.together);
  return {
    previous: together.length === 0 || flush.last === null ? noView : flush.last.id,
    cut: flush.cut,
    together: together.map(({ from: nodeid, synced }) => ({ nodeid, synced })).sort((a, b) => a.nodeid - b.nodeid),
    lasts: together[0]?.lasts ?? [],
  };
}
