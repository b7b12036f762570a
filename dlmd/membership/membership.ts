/**
 * Who is in the cluster: whether the present view will do, and who should be in another. What is heard: detector.ts; how a view is agreed
 * upon: agreement.ts. Shape: corosync totemsrp.c (gather, commit, recover), reduced. Hazards H4, H13, H14, C4, M1.
 *
 * A view here says who moves on together. Whether locks are served in it is up to quorum, recovery and the lease.
 */
import { assertNever } from "../base/assert.ts";
import type { EngineBoot, NodeConfiguration } from "../engine/boot.ts";
import type { Datagram, Evict, Heartbeat } from "../wire/datagram.ts";
import type { Flush, Flushed, OrderDatagram } from "../wire/order-datagram.ts";
import {
  compareViews,
  type Counting,
  type Electorate,
  hasMember,
  type Lineage,
  type Member,
  noView,
  sameView,
  type ViewId,
  viewName,
} from "../wire/view-id.ts";
import { Agreement, type AgreementHost, type Proposal, type InstalledView } from "./agreement.ts";
import type { BeatContent, HeardBeat } from "./heartbeater.ts";
import { Detector, type OwnState } from "./detector.ts";
import { type LeaseBasis, leaseEndByAll, leaseWaitShare } from "./lease.ts";
import { admitIncarnation, type Peer } from "./peer-table.ts";
import { isExcluded, isJoining, membersWanted, needOf, rankOf, type Situation } from "./next-view.ts";
import { electorateBy, leaseGrounds, nextElectorate, type Parting, plainQuorum, quorateWithout, type QuorumBasis } from "./quorum.ts";

export interface MembershipHost
  extends Pick<AgreementHost, "datagram" | "persist" | "stop" | "install" | "orderState" | "flush" | "evicted" | "log"> {
  /** What heartbeats say from now on, null: there are none any more; `now`: one is due at once. */
  beat(content: BeatContent | null, now: boolean): void;
  /** To `announceLeave`: `leave` may be called now. */
  mayLeave(): void;
  /** `leave` is done. */
  left(): void;
}

/** Shares of the time-out. */
const tickShare = 0.05;
const proposalShare = 0.5;
const promiseShare = 0.6;
/** After standing still: three heartbeats each way. */
const stoodStillShare = 0.3;
/** So long a node that leaves waits until its vote is not needed. */
const leaveLimitShare = 2;
/** Unanswered proposals in a row after which a node is left out for two time-outs (hazard H13). */
const unansweredLimit = 2;

export class Membership {
  /** Frames between members of this view were lost; said in heartbeats, ends with the next view. */
  #broken = false;
  #running = false;
  progress = 0;
  leaving = false;
  /** It leaves as soon as its vote is not needed, or then. */
  #leaveAtMs: number | null = null;
  #toldMayLeave = false;
  readonly #boot: EngineBoot;
  readonly #host: MembershipHost;
  readonly #self: Member;
  readonly #detector: Detector;
  readonly #agreement: Agreement;
  #basis: QuorumBasis;
  #configuredMs = Number.NEGATIVE_INFINITY;
  /** Since when every member is known to be in the present view; null: not yet. */
  #allHereMs: number | null = null;
  #leaveSinceMs = 0;
  /** Lives that were proved to be dead. With two_node such a half has lost, though its view may be the later one: its word ends nobody. */
  readonly #proved: Set<string> = new Set();
  #wantSinceMs: number | null = null;
  /** When the first view of a node that joins was promised, after the present one. */
  #joiningMs: number | null = null;
  #backoffUntilMs = Number.NEGATIVE_INFINITY;
  #nextTickMs: number;
  #random: number;
  #lease: { view: InstalledView; electorate: Electorate | null; counted: QuorumBasis; basis: LeaseBasis } | null = null;

  constructor(boot: EngineBoot, host: MembershipHost) {
    this.#boot = boot;
    this.#host = host;
    this.#self = { nodeid: boot.nodeid, incarnation: boot.incarnation };
    this.#detector = new Detector(boot);
    const { configVersion: version, nodes, quorum, former, agreed = true } = boot;
    this.#basis = { version, nodes, options: quorum ?? plainQuorum, former, agreed };
    this.#agreement = new Agreement(boot, {
      ...host,
      peers: this.#detector.peers,
      // Before what is promised goes to the disk: when that is there, the thread of the heartbeats has had the time to say whom it acknowledged last (hazard C4).
      stop: () => {
        host.stop();
        this.tell();
      },
      install: (view) => this.#installed(view),
      evict: (peer, incarnation, lineage) => this.#evict(peer, incarnation, lineage),
      basis: () => this.#basis,
      parting: (nowMs) => this.#parting(nowMs),
      givenUp: (nowMs) => {
        // The member with the later configuration comes first, and its promise to this node keeps it back until then.
        this.#wantSinceMs = nowMs + promiseShare * boot.timeoutMs;
        this.#backOff(nowMs);
      },
    });
    this.#nextTickMs = boot.nowMs;
    this.#random = boot.seed >>> 0;
  }

  get peers(): Map<number, Peer> {
    return this.#detector.peers;
  }
  get view(): InstalledView | null {
    return this.#agreement.view;
  }
  get lineage(): ViewId {
    return this.#agreement.lineage;
  }
  get nextTickMs(): number {
    return this.#nextTickMs;
  }
  get promisedEpoch(): number {
    return this.#agreement.promisedEpoch;
  }
  get basis(): QuorumBasis {
    return this.#basis;
  }
  /** The latest quorate view that this node has been in, in any of its lives. */
  get seen(): Lineage {
    return this.#agreement.seen;
  }
  get counting(): Counting {
    return this.#agreement.counting;
  }
  get agreed(): boolean {
    return this.#agreement.agreed;
  }
  /** Whose votes count; null: those of all nodes. */
  get electorate(): Electorate | null {
    return electorateBy(this.#basis, this.counting.electorate);
  }
  /** Not every member is known to have stored who counts, whatever this node counts by (`electorate`). */
  get #isOpen(): boolean {
    return (this.seen.electorate?.former ?? null) !== null;
  }
  /** A later view than the installed one was promised. */
  get stopped(): boolean {
    return this.#agreement.promised !== null;
  }
  get broken(): boolean {
    return this.#broken;
  }
  /** All that a restart must know is on disk. */
  get stored(): boolean {
    return this.#agreement.stored;
  }

  /**
   * The present view, if it was counted by the votes that count now, all of them decided, and both have lasted so long that every lease of
   * a view before it, or by another proposal, is over; null: not so (hazard C8). A member may be in it later than this node, and until then has
   * the lease of its last view renewed by the others that were there.
   */
  settledView(nowMs: number): InstalledView | null {
    const { view } = this;
    if (view === null || !view.quorum.quorate || this.stopped || this.#basis.former !== undefined) return null;
    // Members that leave would decide, and then not count.
    const { electorate } = this;
    const counts = (nodeid: number): boolean => electorate?.nodeids.includes(nodeid) ?? true;
    if (this.#basis.nodes.some(({ nodeid, votes }) => votes > 0 && !counts(nodeid) && isMember(view, nodeid))) return null;
    if (view.quorum.configVersion !== this.#basis.version) return null;
    if (this.#allHereMs === null) return null;
    return nowMs - Math.max(this.#allHereMs, this.#configuredMs) < leaseWaitShare * this.#boot.timeoutMs ? null : view;
  }

  /** Until when this node may serve in its view. */
  leaseEndMs(): number {
    const view = this.view;
    if (view === null) return Number.NEGATIVE_INFINITY;
    const acked = new Map<number, number>();
    for (const member of view.members) {
      const peer = this.peers.get(member.nodeid);
      if (peer !== undefined) acked.set(member.nodeid, peer.ackedMs);
    }
    return leaseEndByAll(this.#leaseBasis(view).grounds, this.#self.nodeid, acked, this.#boot.timeoutMs);
  }

  /** The same object as long as nothing of it changes. */
  #leaseBasis(view: InstalledView): LeaseBasis {
    const { electorate } = this.seen;
    const counted = this.#basis;
    const known = this.#lease;
    if (known !== null && known.view === view && known.electorate === electorate && known.counted === counted) return known.basis;
    const basis = { members: view.members, grounds: leaseGrounds(counted, view.members, view.quorum, electorate) };
    this.#lease = { view, electorate, counted, basis };
    return basis;
  }

  // --------------------------------------------------------------------------------------------------------- events

  tick(nowMs: number): void {
    if (nowMs < this.#nextTickMs) return;
    this.#nextTickMs = nowMs + tickShare * this.#boot.timeoutMs;
    if (this.leaving) return this.#tellLeaving(nowMs);
    this.#agreement.repeat(nowMs);
    this.#lookForAll(nowMs);
    if (this.#keptByAll()) this.#agreement.settleElectorate();
    if (this.#leaveAtMs !== null && !this.#toldMayLeave && (nowMs >= this.#leaveAtMs || this.#mayLeave(nowMs))) {
      this.#toldMayLeave = true;
      this.#host.mayLeave();
    }
    this.#evaluate(nowMs);
  }

  /**
   * Every member of the present quorate view says that it has it on disk, and counts by the votes by which the view was counted. By votes that were
   * decided meanwhile, those who count may have none: then they must not have come to count alone anywhere (hazard C8).
   */
  #keptByAll(): boolean {
    const { view } = this;
    if (view === null || !view.quorum.quorate || this.stopped || !this.stored) return false;
    const { configVersion: version } = view.quorum;
    return this.#basis.version === version && this.#saidByAll(view, ({ stored, configVersion }) => stored && configVersion === version);
  }

  /** In its last heartbeat, in that view, by every other member. */
  #saidByAll({ id, members }: InstalledView, says: (heartbeat: Heartbeat) => boolean): boolean {
    return members.every(({ nodeid, incarnation }) => {
      if (nodeid === this.#self.nodeid) return true;
      const peer = this.peers.get(nodeid);
      const heartbeat = peer?.incarnation === incarnation ? peer.heartbeat : null;
      return heartbeat !== null && sameView(heartbeat.view, id) && says(heartbeat);
    });
  }

  #lookForAll(nowMs: number): void {
    if (this.#allHereMs === null && this.view !== null && this.#saidByAll(this.view, () => true)) this.#allHereMs = nowMs;
  }

  #parting(nowMs: number): Parting {
    const leaving = this.#leaveAtMs === null ? [] : [this.#self.nodeid];
    for (const { heartbeat, incarnation, config } of this.peers.values()) {
      if (heartbeat?.leaving === true && heartbeat.incarnation === incarnation) leaving.push(config.nodeid);
    }
    return { lasting: this.#lasting(nowMs), leaving };
  }

  #lasting(nowMs: number): readonly number[] | null {
    const { view } = this;
    const windowMs = this.#basis.options.lastManStandingMs ?? null;
    if (windowMs === null || view === null || !view.quorum.quorate || nowMs - view.installedMs < windowMs) return null;
    return view.members.map(({ nodeid }) => nodeid);
  }

  /** Heartbeats say what is so now; called after what may have changed it. */
  tell(now = false): void {
    const content = this.leaving ? null : this.#detector.content(this.#own());
    if (content !== null) this.#host.beat(content, now);
  }

  #own(): OwnState {
    const { view, lineage, promisedEpoch, stopped, stored } = this;
    const lease = view === null ? null : this.#leaseBasis(view);
    const leaving = this.#leaveAtMs !== null;
    return {
      view,
      lineage,
      promisedEpoch,
      configVersion: this.#basis.version,
      running: this.#running,
      stopped,
      broken: this.#broken,
      stored,
      leaving,
      lease,
    };
  }

  /** This process stood still that long (hazard M1): what it serves must be acknowledged anew, and it proposes nothing for a while. */
  stoodStill(gapMs: number, nowMs: number): void {
    this.#detector.stoodStill(gapMs, nowMs);
    // Those who went on do not hear this node yet: a view proposed now would be without them.
    this.#backoffUntilMs = Math.max(this.#backoffUntilMs, nowMs + stoodStillShare * this.#boot.timeoutMs);
  }

  /** Another configuration counts here. The view is counted anew by the next one, which `#need` asks for. */
  configure({ version, nodes, quorum, former, counting, agreed = true }: NodeConfiguration, nowMs: number): void {
    this.#configuredMs = nowMs;
    this.#agreement.told = counting ?? null;
    this.#basis = { version, nodes, options: quorum ?? plainQuorum, former, agreed };
    this.#detector.setNodes([...(former ?? []), ...nodes], this.view?.members ?? []);
    this.tell(true);
  }

  setRunning(running: boolean): void {
    this.#running = running;
  }

  setBroken(): void {
    this.#broken = true;
  }

  /**
   * A person says that the nodes that count and are not here are gone for good: here the votes of all nodes count again. False: this node is in a
   * quorate view, or knows of nobody who does not count.
   */
  countAll(): boolean {
    if (this.view?.quorum.quorate === true || this.electorate === null) return false;
    this.#agreement.countAll();
    // Another view, which is counted anew.
    this.setBroken();
    return true;
  }

  proved(): void {
    for (const { nodeid, incarnation } of this.#agreement.proved()) {
      this.#proved.add(incarnation);
      const peer = this.peers.get(nodeid);
      if (peer !== undefined) peer.evicted = incarnation;
    }
  }

  linkUp(nodeid: number, incarnation: string): boolean {
    return this.#detector.linkUp(nodeid, incarnation);
  }

  linkDown(nodeid: number): void {
    this.#detector.linkDown(nodeid);
  }

  /** Its messages are believed no more: this life of it and this node do not stay together. False: that is so already. */
  distrust(nodeid: number, nowMs: number): boolean {
    const peer = this.peers.get(nodeid);
    if (peer === undefined || peer.distrusted === peer.incarnation) return false;
    this.#detector.distrust(nodeid, nowMs);
    this.tell(true);
    return true;
  }

  /** Those nodes, and no others, must not be members (hazard M2): no proposal with one of them is promised. */
  bar(nodeids: readonly number[], nowMs: number): void {
    this.#detector.bar(nodeids, nowMs);
    this.tell(true);
  }

  /** It takes part in nothing, though it is heard: left out for two time-outs (hazard H13). */
  shun(nodeid: number, why: string, nowMs: number): void {
    const peer = this.peers.get(nodeid);
    if (peer === undefined || nowMs < peer.shunnedUntilMs) return;
    peer.unanswered = 0;
    peer.shunnedUntilMs = nowMs + 2 * this.#boot.timeoutMs;
    this.#host.log("warn", `node is heard but ${why}: left out for a while`, { nodeid });
  }

  heartbeat(beat: HeardBeat, nowMs: number): void {
    const { message } = beat;
    const peer = this.#admit(message);
    if (peer === null) return;
    if (!this.#detector.receive(peer, beat, nowMs, this.#own())) return;
    const agreement = this.#agreement;
    agreement.highestEpoch = Math.max(agreement.highestEpoch, message.promisedEpoch, message.view.epoch);
    // It lives after all, as the fence of a path to storage lets it: this node makes a later view, by which it is evicted.
    if (this.#proved.has(message.incarnation) && compareViews(message.lineage, agreement.seen.id) > 0) this.setBroken();
    if (this.#outdated(message)) this.#evict(peer, message.incarnation, agreement.seen.id);
  }

  #admit(message: { readonly from: number; readonly incarnation: string }): Peer | null {
    const peer = this.peers.get(message.from);
    if (peer === undefined) {
      // Our own multicast comes back; a node that is not configured is not heard.
      if (message.from !== this.#self.nodeid) this.#host.log("debug", "datagram of an unknown node", { nodeid: message.from });
      return null;
    }
    return admitIncarnation(peer, message.incarnation) ? peer : null;
  }

  /** All but heartbeats and the ordered channel's own. */
  receive(message: Exclude<Datagram, Heartbeat | OrderDatagram> | Flush | Flushed, nowMs: number): void {
    const peer = this.#admit(message);
    if (peer === null || this.#proved.has(message.incarnation)) return;
    switch (message.kind) {
      case "propose":
        if (this.leaving) return;
        if (peer.heartbeat !== null && this.#outdated(peer.heartbeat))
          return this.#evict(peer, message.incarnation, this.#agreement.seen.id);
        return this.#agreement.receivePropose(message, nowMs);
      case "state":
        return this.#agreement.receiveState(message, nowMs);
      case "flush":
        return this.leaving ? undefined : this.#agreement.receiveFlush(message, nowMs);
      case "flushed":
        return this.#agreement.receiveFlushed(message, nowMs);
      case "install":
        return this.leaving ? undefined : this.#agreement.receiveInstall(message, nowMs);
      case "leave":
        if (peer.left === message.incarnation) return;
        peer.left = message.incarnation;
        this.#host.log("info", "node leaves", { nodeid: message.from });
        // That it had stored it too may never be heard: it says nothing more.
        if (message.kept && sameView(message.view, this.seen.id)) this.#agreement.settleElectorate();
        return this.#evaluate(nowMs);
      case "evict":
        // An agent runs against it: with two_node that decides which half goes on (hazard M2).
        return peer.barred ? undefined : this.#receiveEvict(message);
      default:
        assertNever(message, "datagram");
    }
  }

  persisted(promisedEpoch: number, nowMs: number): void {
    this.#agreement.persisted(promisedEpoch, nowMs);
  }

  flushed(view: ViewId, answer: Pick<Flushed, "together" | "synced" | "lasts">, nowMs: number): void {
    this.#agreement.flushed(view, answer, nowMs);
  }

  /** No program of this node is served any more. It stays a member until the others need its vote no more: `mayLeave`. */
  announceLeave(nowMs: number): void {
    if (this.leaving || this.#leaveAtMs !== null) return;
    this.#leaveAtMs = nowMs + leaveLimitShare * this.#boot.timeoutMs;
    this.#nextTickMs = nowMs;
    this.tell(true);
  }

  /** The others are a quorum when this node has left. */
  get othersAreQuorate(): boolean {
    const { view, electorate } = this;
    return view !== null && quorateWithout(this.#basis, electorate, view.members, this.#self.nodeid);
  }

  /** Its vote counts no more, as every member has on disk; or nobody could do better without it. */
  #mayLeave(nowMs: number): boolean {
    const { view, electorate } = this;
    if (view === null || !view.quorum.quorate || view.members.length === 1) return true;
    if (this.stopped || !this.stored || this.#isOpen) return false;
    const counts = (nodeids: readonly number[] | undefined): boolean => {
      const own = this.#basis.nodes.find(({ nodeid }) => nodeid === this.#self.nodeid);
      return (own?.votes ?? 0) > 0 && (nodeids?.includes(this.#self.nodeid) ?? true);
    };
    if (!counts(electorate?.nodeids)) return true;
    const next = nextElectorate(this.#basis, electorate, view.members, this.#parting(nowMs));
    return this.#basis.former === undefined && counts(next?.nodeids ?? electorate?.nodeids);
  }

  /** Service is over for good; the caller has seen to that. */
  leave(nowMs: number): void {
    this.leaving = true;
    this.#host.beat(null, false);
    this.#agreement.proposal = null;
    this.#leaveSinceMs = nowMs;
    this.#nextTickMs = nowMs;
  }

  #installed(view: InstalledView): void {
    this.#wantSinceMs = null;
    this.#joiningMs = null;
    this.#allHereMs = null;
    this.#broken = false;
    this.#host.install(view);
    this.tell(true);
  }

  // ------------------------------------------------------------------------------------------------ leaving, eviction

  /** It holds state of before a quorate view that went on without it. */
  #outdated(heartbeat: Heartbeat): boolean {
    const { id, members } = this.#agreement.seen;
    const older = heartbeat.lineage.epoch > 0 && compareViews(heartbeat.lineage, id) < 0;
    return older && !hasMember(members, heartbeat.from, heartbeat.incarnation);
  }

  #evict(peer: Peer, targetIncarnation: string, lineage: ViewId): void {
    peer.evicted = targetIncarnation;
    const { nodeid: from, incarnation } = this.#self;
    const nodeid = peer.config.nodeid;
    this.#host.datagram(nodeid, { kind: "evict", from, incarnation, nodeid, targetIncarnation, lineage });
  }

  #receiveEvict(message: Evict): void {
    if (message.nodeid !== this.#self.nodeid || message.targetIncarnation !== this.#self.incarnation) return;
    // A late one, or for state that this node does not hold.
    if (this.lineage.epoch === 0 || compareViews(message.lineage, this.lineage) <= 0) return;
    this.#host.evicted(
      `node ${message.from} was in view ${viewName(message.lineage)}, which went on without this node (last view ${viewName(this.lineage)})`,
    );
  }

  #tellLeaving(nowMs: number): void {
    const view = this.view;
    const others = [...this.peers.values()].filter((peer) => this.#detector.alive(peer, nowMs));
    // A member of this view: that others, who never were in it, have a later one says nothing.
    const wentOn = ({ config, heartbeat }: Peer): boolean =>
      heartbeat !== null && compareViews(heartbeat.view, view?.id ?? noView) > 0 && isMember(view, config.nodeid);
    if (view === null || others.length === 0 || others.some(wentOn) || nowMs - this.#leaveSinceMs >= this.#boot.timeoutMs)
      return this.#host.left();
    const { nodeid: from, incarnation } = this.#self;
    const kept = this.stored && view.quorum.quorate && !this.#isOpen;
    this.#host.datagram("all", { kind: "leave", from, incarnation, view: view.id, kept });
  }

  // --------------------------------------------------------------------------------------------- whether to propose

  /** Who counts from the next view on, if that is another set than now, and every member of this one has what counts now on disk. */
  #nextElectorate(nowMs: number): Electorate | null {
    const { view } = this;
    if (view === null || !this.#keptByAll()) return null;
    return nextElectorate(this.#basis, this.electorate, view.members, this.#parting(nowMs));
  }

  #evaluate(nowMs: number): void {
    if (this.leaving) return;
    const agreement = this.#agreement;
    const situation: Situation = {
      self: this.#self,
      timeoutMs: this.#boot.timeoutMs,
      detector: this.#detector,
      basis: this.#basis,
      answeredBy: agreement.answeredBy,
      view: this.view,
      lastMembers: agreement.lineage.epoch > 0 ? agreement.seen.members : [],
      stopped: this.stopped,
      broken: this.#broken,
      nextElectorate: () => this.#nextElectorate(nowMs),
    };
    const desired = membersWanted(situation, nowMs);
    const rank = rankOf(situation, desired);
    const proposal = agreement.proposal;
    if (proposal !== null && nowMs - proposal.sinceMs >= proposalShare * this.#boot.timeoutMs) this.#giveUp(proposal, desired, nowMs);
    if (agreement.proposal !== null || nowMs < this.#backoffUntilMs) return;
    const need = rank < 0 || isExcluded(situation, desired) ? null : needOf(situation, desired, nowMs);
    if (need === null) {
      this.#wantSinceMs = null;
      return;
    }
    this.#wantSinceMs ??= nowMs;
    // The first proposes; the others only if it does not.
    const sinceMs = Math.max(this.#wantSinceMs, this.#joiningUntilMs(situation, desired, nowMs));
    if (nowMs - sinceMs < need.delayMs + rank * proposalShare * this.#boot.timeoutMs) return;
    const promised = agreement.promised;
    if (promised !== null && nowMs - promised.sinceMs < promiseShare * this.#boot.timeoutMs) {
      if (hasMember(desired, promised.view.proposer, promised.view.incarnation)) return;
    }
    agreement.propose(desired, need.why, nowMs);
  }

  /** Until when the view of a node that joins may come, and is not overtaken: all of them together have that long before the next view. */
  #joiningUntilMs(situation: Situation, desired: readonly Member[], nowMs: number): number {
    const { promised } = this.#agreement;
    if (promised === null) return Number.NEGATIVE_INFINITY;
    if (this.#joiningMs === null && isJoining(situation, promised.view, nowMs)) this.#joiningMs = promised.sinceMs;
    // Who is wanted is waited for by the promise itself.
    if (this.#joiningMs === null || hasMember(desired, promised.view.proposer, promised.view.incarnation)) return Number.NEGATIVE_INFINITY;
    return this.#joiningMs + promiseShare * this.#boot.timeoutMs;
  }

  #giveUp(proposal: Proposal, desired: readonly Member[], nowMs: number): void {
    const answered = proposal.flush === null ? proposal.answers : proposal.flushed;
    // Who is silent may have promised the other one.
    for (const member of proposal.collided ? [] : proposal.members) {
      const peer = this.peers.get(member.nodeid);
      if (peer === undefined || answered.has(member.nodeid)) continue;
      if (!hasMember(desired, member.nodeid, member.incarnation) || ++peer.unanswered < unansweredLimit) continue;
      this.shun(member.nodeid, "does not answer proposals", nowMs);
    }
    this.#agreement.proposal = null;
    this.#backOff(nowMs);
  }

  /** Proposers that collided must not collide again (hazard H14). */
  #backOff(nowMs: number): void {
    this.#backoffUntilMs = nowMs + this.#draw() * 0.2 * this.#boot.timeoutMs;
  }

  /** 0 <= draw < 1, from the seed (mulberry32). */
  #draw(): number {
    this.#random = (this.#random + 0x6d2b79f5) >>> 0;
    let t = Math.imul(this.#random ^ (this.#random >>> 15), this.#random | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000;
  }
}

function isMember(view: InstalledView | null, nodeid: number): boolean {
  return view !== null && view.members.some((member) => member.nodeid === nodeid);
}
