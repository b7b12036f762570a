/**
 * Who is in the cluster: heartbeats, suspicion by silence, views agreed by PROPOSE, STATE, INSTALL. Shape: corosync totemsrp.c
 * (gather, commit, recover), reduced; the promise is Paxos' (highest epoch wins and is stored first). Hazards H4, H14, C4.
 *
 * A view here says who moves on together. Whether locks are served in it is up to quorum, recovery and the lease.
 */
import { assertNever } from "../base/assert.ts";
import type { NodeBoot } from "../node-api.ts";
import type { Datagram, Evict, Heartbeat, Install, Propose, StateAnswer } from "../wire/datagram.ts";
import { hasMember, type Lineage, type Member, noLineage, noView, sameView, type ViewId, viewName } from "../wire/view-id.ts";
import { nextMembers } from "./clique.ts";
import { leaseEnd, leaseWaitShare, newSendTimes, noteSent, sentAt } from "./lease.ts";
import { admitIncarnation, hears, newPeer, type Peer } from "./peer-table.ts";
import { type Quorum, quorumOf } from "./quorum.ts";

export interface View {
  readonly id: ViewId;
  /** Ascending by nodeid. */
  readonly members: readonly Member[];
  readonly quorum: Quorum;
  readonly installedMs: number;
  /** No service before. */
  readonly serveFromMs: number;
}

export interface MembershipHost {
  datagram(to: number | "all", message: Datagram): void;
  persist(promisedEpoch: number, lineage: Lineage): void;
  /** A later view was promised: lock service stops now. */
  stop(): void;
  install(view: View): void;
  evicted(reason: string): void;
  left(): void;
  log(level: "debug" | "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>): void;
}

interface Promised {
  readonly view: ViewId;
  readonly sinceMs: number;
  stored: boolean;
}

interface Proposal {
  readonly view: ViewId;
  readonly members: readonly Member[];
  readonly sinceMs: number;
  readonly answers: Map<number, StateAnswer>;
}

/** Shares of the time-out. */
const tickShare = 0.05;
const firstViewShare = 0.3;
const joinShare = 0.1;
const proposalShare = 0.5;
const promiseShare = 0.6;
const strayShare = 0.5;
const brokenShare = 0.25;
/** After standing still: three heartbeats each way. */
const stoodStillShare = 0.3;
/** Unanswered proposals in a row after which a node is left out for two time-outs (hazard H13). */
const unansweredLimit = 2;

export class Membership {
  readonly peers: Map<number, Peer> = new Map();
  view: View | null = null;
  /** The latest quorate view that this node installed in this life: what it holds, it holds since then. */
  lineage: ViewId = noView;
  /** The same in any of its lives. */
  #seen: Lineage;
  #persisting = 0;
  /** Frames between members of this view were lost; said in heartbeats, ends with the next view. */
  broken = false;
  running = false;
  progress = 0;
  leaving = false;
  readonly #boot: NodeBoot;
  readonly #host: MembershipHost;
  readonly #self: Member;
  readonly #sent = newSendTimes();
  #seq = 0;
  #promisedEpoch: number;
  #highestEpoch: number;
  #promised: Promised | null = null;
  #proposal: Proposal | null = null;
  #lastInstall: { message: Install; untilMs: number } | null = null;
  #leaveSinceMs = 0;
  #wantSinceMs: number | null = null;
  #backoffUntilMs = Number.NEGATIVE_INFINITY;
  #nextTickMs: number;
  #beatNext = true;
  #random: number;

  constructor(boot: NodeBoot, host: MembershipHost) {
    this.#boot = boot;
    this.#host = host;
    this.#self = { nodeid: boot.nodeid, incarnation: boot.incarnation };
    this.#seen = boot.lineage ?? noLineage;
    this.#promisedEpoch = boot.promisedEpoch;
    this.#highestEpoch = boot.promisedEpoch;
    this.#nextTickMs = boot.nowMs;
    this.#random = boot.seed >>> 0;
    for (const config of boot.nodes) if (config.nodeid !== boot.nodeid) this.peers.set(config.nodeid, newPeer(config));
  }

  get nextTickMs(): number {
    return this.#nextTickMs;
  }
  get promisedEpoch(): number {
    return this.#promisedEpoch;
  }
  /** A later view than the installed one was promised. */
  get stopped(): boolean {
    return this.#promised !== null;
  }
  /** All that a restart must know is on disk. */
  get stored(): boolean {
    return this.#persisting === 0;
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
    return leaseEnd(this.#boot.nodes, this.#self.nodeid, view.quorum.needed, acked, this.#boot.timeoutMs);
  }

  // --------------------------------------------------------------------------------------------------------- events

  tick(nowMs: number): void {
    if (nowMs < this.#nextTickMs) return;
    this.#nextTickMs = nowMs + tickShare * this.#boot.timeoutMs;
    if (this.leaving) return this.#tellLeaving(nowMs);
    if (this.#beatNext) this.#sendHeartbeat(nowMs);
    this.#beatNext = !this.#beatNext;
    this.#repeat(nowMs);
    this.#evaluate(nowMs);
  }

  /** This process stood still that long: what peers said meanwhile is still in the sockets, so their silence is not theirs. */
  stoodStill(gapMs: number, nowMs: number): void {
    for (const peer of this.peers.values()) peer.lastHeardMs = Math.min(nowMs, peer.lastHeardMs + gapMs);
    // Those who went on do not hear this node yet: a view proposed now would be without them (hazard M1).
    this.#backoffUntilMs = Math.max(this.#backoffUntilMs, nowMs + stoodStillShare * this.#boot.timeoutMs);
  }

  /**
   * A connection was just answered by that incarnation, so it is the living one, even if a late datagram of a former one made it
   * look dead. False: not a configured node.
   */
  linkUp(nodeid: number, incarnation: string): boolean {
    const peer = this.peers.get(nodeid);
    if (peer === undefined) return false;
    peer.link = null;
    peer.dead.delete(incarnation);
    admitIncarnation(peer, incarnation);
    peer.link = incarnation;
    return true;
  }

  linkDown(nodeid: number): void {
    const peer = this.peers.get(nodeid);
    if (peer !== undefined) peer.link = null;
  }

  receive(message: Datagram, nowMs: number): void {
    const peer = this.peers.get(message.from);
    if (peer === undefined) {
      // Our own multicast comes back; a node that is not configured is not heard.
      if (message.from !== this.#self.nodeid) this.#host.log("debug", "datagram of an unknown node", { nodeid: message.from });
      return;
    }
    if (!admitIncarnation(peer, message.incarnation)) return;
    switch (message.kind) {
      case "heartbeat":
        return this.#receiveHeartbeat(peer, message, nowMs);
      case "propose":
        return this.#receivePropose(peer, message, nowMs);
      case "state":
        return this.#receiveState(message, nowMs);
      case "install":
        return this.#receiveInstall(message, nowMs);
      case "leave":
        if (peer.left === message.incarnation) return;
        peer.left = message.incarnation;
        this.#host.log("info", "node leaves", { nodeid: message.from });
        return this.#evaluate(nowMs);
      case "evict":
        return this.#receiveEvict(message);
      default:
        assertNever(message, "datagram");
    }
  }

  persisted(promisedEpoch: number, nowMs: number): void {
    this.#persisting--;
    const promised = this.#promised;
    if (promised === null || promised.stored || promised.view.epoch > promisedEpoch) return;
    promised.stored = true;
    this.#answer(promised.view, nowMs);
  }

  /** Service is over for good; the caller has seen to that. */
  leave(nowMs: number): void {
    this.leaving = true;
    this.#proposal = null;
    this.#leaveSinceMs = nowMs;
    this.#nextTickMs = nowMs;
  }

  // ----------------------------------------------------------------------------------------------------- heartbeats

  #sendHeartbeat(nowMs: number): void {
    this.#seq++;
    noteSent(this.#sent, this.#seq, nowMs);
    const heard = [];
    for (const peer of this.peers.values()) {
      if (peer.incarnation === null || peer.heartbeat === null || !this.#alive(peer, nowMs)) continue;
      const seq = this.stopped ? 0 : peer.heartbeat.seq;
      heard.push({ nodeid: peer.config.nodeid, incarnation: peer.incarnation, seq, tcpUp: peer.link === peer.incarnation });
    }
    this.#host.datagram("all", {
      kind: "heartbeat",
      from: this.#self.nodeid,
      incarnation: this.#self.incarnation,
      seq: this.#seq,
      view: this.view?.id ?? noView,
      promisedEpoch: this.#promisedEpoch,
      lineage: this.lineage,
      configVersion: this.#boot.configVersion,
      running: this.running,
      stopped: this.stopped,
      broken: this.broken,
      progress: this.progress >>> 0,
      heard,
    });
  }

  #alive(peer: Peer, nowMs: number): boolean {
    return nowMs - peer.lastHeardMs < this.#boot.timeoutMs;
  }

  #receiveHeartbeat(peer: Peer, message: Heartbeat, nowMs: number): void {
    if (peer.heartbeat !== null && message.seq <= peer.heartbeat.seq) return;
    peer.heartbeat = message;
    peer.lastHeardMs = nowMs;
    this.#highestEpoch = Math.max(this.#highestEpoch, message.promisedEpoch, message.view.epoch);
    if (this.view !== null && !message.stopped && sameView(message.view, this.view.id)) {
      const own = message.heard.find((heard) => heard.nodeid === this.#self.nodeid && heard.incarnation === this.#self.incarnation);
      const sentMs = own === undefined ? null : sentAt(this.#sent, own.seq);
      if (sentMs !== null) peer.ackedMs = Math.max(peer.ackedMs, sentMs);
    }
    if (this.#outdated(message)) this.#evict(peer, message.incarnation, this.#seen.id);
  }

  /** It holds state of before a quorate view that went on without it. */
  #outdated(heartbeat: Heartbeat): boolean {
    const { id, members } = this.#seen;
    const older = heartbeat.lineage.epoch > 0 && heartbeat.lineage.epoch < id.epoch;
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
    if (this.lineage.epoch === 0 || message.lineage.epoch <= this.lineage.epoch) return;
    this.#host.evicted(
      `node ${message.from} was in view ${viewName(message.lineage)}, which went on without this node (last view ${viewName(this.lineage)})`,
    );
  }

  #tellLeaving(nowMs: number): void {
    const view = this.view;
    const others = [...this.peers.values()].filter((peer) => this.#alive(peer, nowMs));
    const seen = others.some((peer) => (peer.heartbeat?.view.epoch ?? 0) > (view?.id.epoch ?? 0));
    if (view === null || others.length === 0 || seen || nowMs - this.#leaveSinceMs >= this.#boot.timeoutMs) return this.#host.left();
    this.#host.datagram("all", { kind: "leave", from: this.#self.nodeid, incarnation: this.#self.incarnation, view: view.id });
  }

  // --------------------------------------------------------------------------------------------- whether to propose

  /** Who of the live nodes, this one among the candidates, should make the next view. */
  #desired(nowMs: number): Member[] {
    const incarnations = new Map<number, string>([[this.#self.nodeid, this.#self.incarnation]]);
    for (const [nodeid, peer] of this.peers) if (this.#eligible(peer, nowMs)) incarnations.set(nodeid, peer.incarnation as string);
    const nodeids = [...incarnations.keys()].sort((a, b) => a - b);
    const hearsOf = (a: number, b: number): boolean => {
      if (a === this.#self.nodeid) return true;
      return hears(this.peers.get(a) as Peer, b, incarnations.get(b) as string);
    };
    const linked = (a: number, b: number): boolean => hearsOf(a, b) && hearsOf(b, a);
    const members = this.view?.members ?? [];
    const staying = nodeids.filter((nodeid) => hasMember(members, nodeid, incarnations.get(nodeid) as string));
    return nextMembers(nodeids, staying, linked).map((nodeid) => ({ nodeid, incarnation: incarnations.get(nodeid) as string }));
  }

  #eligible(peer: Peer, nowMs: number): boolean {
    const { heartbeat, incarnation } = peer;
    if (heartbeat === null || incarnation === null || !this.#alive(peer, nowMs) || nowMs < peer.shunnedUntilMs) return false;
    if (peer.left === incarnation || peer.evicted === incarnation) return false;
    return heartbeat.configVersion === this.#boot.configVersion;
  }

  /** Why the present view will not do, and for how long to hear more before proposing another; null: it will. */
  #need(desired: readonly Member[], nowMs: number): { why: string; delayMs: number } | null {
    const view = this.view;
    const timeoutMs = this.#boot.timeoutMs;
    if (view === null) return { why: "first view", delayMs: desired.length === this.#boot.nodes.length ? 0 : firstViewShare * timeoutMs };
    const lost = view.members.filter((member) => !hasMember(desired, member.nodeid, member.incarnation));
    if (lost.length > 0) return { why: `lost ${lost.map((member) => member.nodeid).join(" ")}`, delayMs: 0 };
    if (desired.length > view.members.length) {
      return { why: "nodes join", delayMs: desired.length === this.#boot.nodes.length ? 0 : joinShare * timeoutMs };
    }
    if (this.#promised !== null) return { why: "a promised view did not come", delayMs: 0 };
    const age = nowMs - view.installedMs;
    for (const member of view.members) {
      const heartbeat = this.peers.get(member.nodeid)?.heartbeat ?? null;
      if (heartbeat === null) continue;
      const here = sameView(heartbeat.view, view.id);
      if (here && heartbeat.broken && age > brokenShare * timeoutMs) return { why: `node ${member.nodeid} lost frames`, delayMs: 0 };
      if ((!here || heartbeat.stopped) && age > strayShare * timeoutMs) return { why: `node ${member.nodeid} is astray`, delayMs: 0 };
    }
    if (this.broken && age > brokenShare * timeoutMs) return { why: "frames were lost", delayMs: 0 };
    return null;
  }

  #evaluate(nowMs: number): void {
    if (this.leaving) return;
    const desired = this.#desired(nowMs);
    const rank = desired.findIndex((member) => member.nodeid === this.#self.nodeid);
    if (this.#proposal !== null && !this.#stillGood(this.#proposal, desired, nowMs)) this.#giveUp(this.#proposal, desired, nowMs);
    if (this.#proposal !== null || nowMs < this.#backoffUntilMs) return;
    const need = rank < 0 ? null : this.#need(desired, nowMs);
    if (need === null) {
      this.#wantSinceMs = null;
      return;
    }
    this.#wantSinceMs ??= nowMs;
    // The lowest proposes; the others only if it does not.
    if (nowMs - this.#wantSinceMs < need.delayMs + rank * proposalShare * this.#boot.timeoutMs) return;
    const promised = this.#promised;
    if (promised !== null && nowMs - promised.sinceMs < promiseShare * this.#boot.timeoutMs) {
      if (hasMember(desired, promised.view.proposer, promised.view.incarnation)) return;
    }
    this.#propose(desired, need.why, nowMs);
  }

  #stillGood(proposal: Proposal, desired: readonly Member[], nowMs: number): boolean {
    if (nowMs - proposal.sinceMs >= proposalShare * this.#boot.timeoutMs) return false;
    return proposal.members.every((member) => hasMember(desired, member.nodeid, member.incarnation));
  }

  #giveUp(proposal: Proposal, desired: readonly Member[], nowMs: number): void {
    for (const member of proposal.members) {
      const peer = this.peers.get(member.nodeid);
      if (peer === undefined || proposal.answers.has(member.nodeid)) continue;
      if (!hasMember(desired, member.nodeid, member.incarnation) || ++peer.unanswered < unansweredLimit) continue;
      peer.unanswered = 0;
      peer.shunnedUntilMs = nowMs + 2 * this.#boot.timeoutMs;
      this.#host.log("warn", "node is heard but does not answer proposals: left out for a while", { nodeid: member.nodeid });
    }
    this.#proposal = null;
    // Proposers that collided must not collide again (hazard H14).
    this.#backoffUntilMs = nowMs + this.#draw() * 0.2 * this.#boot.timeoutMs;
  }

  /** 0 <= draw < 1, from the seed (mulberry32). */
  #draw(): number {
    this.#random = (this.#random + 0x6d2b79f5) >>> 0;
    let t = Math.imul(this.#random ^ (this.#random >>> 15), this.#random | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000;
  }

  // ------------------------------------------------------------------------------------------------- the agreement

  #propose(members: readonly Member[], why: string, nowMs: number): void {
    const epoch = Math.max(this.#highestEpoch, this.#promisedEpoch) + 1;
    const view: ViewId = { epoch, proposer: this.#self.nodeid, incarnation: this.#self.incarnation };
    this.#proposal = { view, members, sinceMs: nowMs, answers: new Map() };
    this.#host.log("info", "proposing a view", { view: viewName(view), members: members.map((member) => member.nodeid), why });
    this.#sendProposal(this.#proposal);
    this.#promise(view, nowMs);
  }

  #sendProposal({ view, members, answers }: Proposal): void {
    const { nodeid: from, incarnation } = this.#self;
    for (const { nodeid } of members) {
      if (nodeid !== from && !answers.has(nodeid)) this.#host.datagram(nodeid, { kind: "propose", from, incarnation, view, members });
    }
  }

  #receivePropose(peer: Peer, message: Propose, nowMs: number): void {
    const { view, members } = message;
    this.#highestEpoch = Math.max(this.#highestEpoch, view.epoch);
    if (this.leaving || !hasMember(members, this.#self.nodeid, this.#self.incarnation)) return;
    if (view.proposer !== message.from || view.incarnation !== message.incarnation) return;
    if (peer.heartbeat !== null && this.#outdated(peer.heartbeat)) return this.#evict(peer, message.incarnation, this.#seen.id);
    if (this.#promised !== null && sameView(this.#promised.view, view)) {
      if (this.#promised.stored) this.#answer(view, nowMs);
      return;
    }
    if (view.epoch <= this.#promisedEpoch) return;
    this.#proposal = null;
    this.#promise(view, nowMs);
  }

  #promise(view: ViewId, nowMs: number): void {
    this.#promised = { view, sinceMs: nowMs, stored: false };
    this.#promisedEpoch = view.epoch;
    this.#lastInstall = null;
    this.#host.stop();
    this.#persist();
  }

  #persist(): void {
    this.#persisting++;
    this.#host.persist(this.#promisedEpoch, this.#seen);
  }

  #answer(view: ViewId, nowMs: number): void {
    const ackedAgo = [];
    for (const peer of this.peers.values()) {
      if (peer.left !== null && peer.left === peer.incarnation) continue;
      // Not heard in this life: a former one may have acked it until this one began.
      const ms = Math.min(nowMs - this.#boot.nowMs, Math.max(0, nowMs - peer.lastHeardMs));
      ackedAgo.push({ nodeid: peer.config.nodeid, ms });
    }
    const state: StateAnswer = {
      kind: "state",
      from: this.#self.nodeid,
      incarnation: this.#self.incarnation,
      view,
      configVersion: this.#boot.configVersion,
      lineage: this.lineage,
      seen: this.#seen,
      ackedAgo,
    };
    if (view.proposer === this.#self.nodeid) this.#receiveState(state, nowMs);
    else this.#host.datagram(view.proposer, state);
  }

  #receiveState(state: StateAnswer, nowMs: number): void {
    const proposal = this.#proposal;
    if (proposal === null || !sameView(state.view, proposal.view) || !hasMember(proposal.members, state.from, state.incarnation)) return;
    proposal.answers.set(state.from, state);
    const peer = this.peers.get(state.from);
    if (peer !== undefined) peer.unanswered = 0;
    if (proposal.answers.size === proposal.members.length) this.#conclude(proposal, nowMs);
  }

  #conclude(proposal: Proposal, nowMs: number): void {
    const answers = [...proposal.answers.values()];
    const latest = answers.reduce((a, b) => (b.seen.id.epoch > a.seen.id.epoch ? b : a)).seen;
    const outdated = answers.filter(({ lineage }) => lineage.epoch > 0 && lineage.epoch < latest.id.epoch);
    const excluded = outdated.filter((state) => !hasMember(latest.members, state.from, state.incarnation));
    if (excluded.length > 0) return this.#refuseOutdated(excluded, latest.id);
    const waitMs = this.#waitMs(proposal, answers);
    const { nodeid: from, incarnation } = this.#self;
    const message: Install = { kind: "install", from, incarnation, view: proposal.view, members: proposal.members, waitMs };
    this.#proposal = null;
    this.#install(message, nowMs);
    this.#lastInstall = { message, untilMs: nowMs + this.#boot.timeoutMs };
    this.#sendInstall(message);
  }

  #refuseOutdated(excluded: readonly StateAnswer[], latest: ViewId): void {
    this.#proposal = null;
    for (const state of excluded) {
      const peer = this.peers.get(state.from);
      if (peer === undefined) return this.#host.evicted(`view ${viewName(latest)} went on without this node`);
      this.#evict(peer, state.incarnation, latest);
    }
  }

  /** A node outside may serve until its lease is over: counted from the last ack that any member may have given it (hazard C4). */
  #waitMs(proposal: Proposal, answers: readonly StateAnswer[]): number {
    let waitMs = 0;
    for (const state of answers) {
      for (const { nodeid, ms } of state.ackedAgo) {
        if (proposal.members.some((member) => member.nodeid === nodeid)) continue;
        waitMs = Math.max(waitMs, leaseWaitShare * this.#boot.timeoutMs - ms);
      }
    }
    return waitMs;
  }

  #sendInstall(message: Install): void {
    for (const { nodeid } of message.members) {
      const peer = this.peers.get(nodeid);
      if (peer !== undefined && !(peer.heartbeat !== null && sameView(peer.heartbeat.view, message.view)))
        this.#host.datagram(nodeid, message);
    }
  }

  #receiveInstall(message: Install, nowMs: number): void {
    const promised = this.#promised;
    if (promised === null || !promised.stored || !sameView(promised.view, message.view) || this.leaving) return;
    if (!hasMember(message.members, this.#self.nodeid, this.#self.incarnation)) return;
    this.#install(message, nowMs);
  }

  #install(message: Install, nowMs: number): void {
    const members = [...message.members].sort((a, b) => a.nodeid - b.nodeid);
    const quorum = quorumOf(this.#boot.nodes, members);
    const view: View = { id: message.view, members, quorum, installedMs: nowMs, serveFromMs: nowMs + message.waitMs };
    this.view = view;
    this.#promised = null;
    this.#wantSinceMs = null;
    this.broken = false;
    if (quorum.quorate) {
      this.lineage = view.id;
      this.#seen = { id: view.id, members };
      this.#persist();
    }
    for (const peer of this.peers.values()) peer.ackedMs = Number.NEGATIVE_INFINITY;
    this.#host.install(view);
    this.#sendHeartbeat(nowMs);
  }

  /** Datagrams may be lost: what is not answered yet goes out again. */
  #repeat(nowMs: number): void {
    if (this.#proposal !== null) this.#sendProposal(this.#proposal);
    const install = this.#lastInstall;
    if (install === null) return;
    if (nowMs >= install.untilMs) this.#lastInstall = null;
    else this.#sendInstall(install.message);
  }
}
