/**
 * A round as one process goes through it: it states who it is, hears what all others state, says that it is ready, and installs the view when all
 * members are. What the states make: round.ts. Why these steps: dlmd/engine/corosync/README.md, "A round".
 */
import type { EngineBoot } from "../boot.ts";
import type { View } from "../engine.ts";
import type { Detector } from "../../membership/detector.ts";
import { admitIncarnation, isLinked, type Peer } from "../../membership/peer-table.ts";
import type { QuorumBasis } from "../../membership/quorum.ts";
import { isMajority } from "../../config/votes.ts";
import { hasMember, type Lineage, type Member, noView, sameView, type ViewId, compareViews } from "../../wire/view-id.ts";
import type { CorosyncPort } from "./corosync-api.ts";
import type { GroupSeats } from "./group-seats.ts";
import type { AgainMessage, GroupMessage, RoundTag, Seat, StateMessage } from "./message.ts";
import { type Answer, decide, type Decision, isMemberOf, sameSeat, sameTag } from "./round.ts";

/** Shares of the time-out. To hear all processes before saying which of them are cut off. */
const hearingShare = 0.5;
/** A process that says nothing in a round is left out: CPG never reports one that hangs. */
const silentShare = 1;
/** One that was left out comes in no sooner. */
const shunShare = 2;
/** A ring that has a quorum again waits so long for those of the last view. */
const returnShare = 0.5;
/** Between two rounds that links ask for. */
const settleShare = 0.25;

/** What this process has to say of itself in a round. */
export interface OwnPast {
  readonly lived: ViewId;
  readonly seen: Lineage;
  readonly packets: number;
  readonly digest: number;
  readonly synced: boolean;
}

export interface ExchangePort extends Pick<CorosyncPort, "log"> {
  say(message: GroupMessage): void;
  /** The epoch is to be on disk; then `persisted`. */
  persist(): void;
  /** A round begins: nothing of the view before goes on. */
  begun(): void;
  install(decision: Decision): void;
  evicted(reason: string): void;
  past(): OwnPast;
}

export class RoundExchange {
  readonly #boot: EngineBoot;
  readonly #self: Member;
  readonly #seat: Seat;
  readonly #seats: GroupSeats;
  readonly #detector: Detector;
  readonly #basis: QuorumBasis;
  readonly #port: ExchangePort;
  #highestEpoch: number;
  #count = 0;
  #sinceMs: number;
  #stated = false;
  readonly #answers: Map<number, Answer> = new Map();
  readonly #ready: Set<number> = new Set();
  #decision: Decision | null = null;
  #installed = false;
  #readyAtEpoch: number | null = null;
  /** Who this node wants left out of another round. */
  #asked: string | null = null;
  #leftOut: string | null = null;
  /** Since the last quorate view. */
  #quorumWasLost = false;

  constructor(boot: EngineBoot, basis: QuorumBasis, seat: Seat, seats: GroupSeats, detector: Detector, port: ExchangePort) {
    this.#boot = boot;
    this.#self = { nodeid: boot.nodeid, incarnation: boot.incarnation };
    this.#seat = seat;
    this.#seats = seats;
    this.#detector = detector;
    this.#basis = basis;
    this.#port = port;
    this.#highestEpoch = boot.promisedEpoch;
    this.#sinceMs = boot.nowMs;
  }

  get highestEpoch(): number {
    return this.#highestEpoch;
  }
  get stated(): boolean {
    return this.#stated;
  }
  /** Why the last round has left this node without a view; null: it has not. */
  get leftOut(): string | null {
    return this.#leftOut;
  }

  /** votequorum says so of a ring, for however short a time: what breaks the rings of all may come back for some first. */
  quorumLost(): void {
    this.#quorumWasLost = true;
  }

  /** Corosync's callbacks begin one. */
  begin(nowMs: number, count = 0): void {
    this.#count = count;
    this.#sinceMs = nowMs;
    this.#stated = false;
    this.#asked = null;
    this.#answers.clear();
    this.#ready.clear();
    this.#decision = null;
    this.#installed = false;
    this.#readyAtEpoch = null;
    this.#port.begun();
  }

  #tag(): RoundTag | null {
    return this.#seats.tag(this.#count);
  }

  // ---------------------------------------------------------------------------------------------------- what it states

  /** Not before the quorum of this very ring is known, nor before all were heard or had the time for it. */
  mayState(nowMs: number): boolean {
    if (this.#stated || !this.#seats.seated || this.#seats.quorate === null) return false;
    const awaited = this.#cutOff(nowMs).some(
      (nodeid) => !this.#seats.isShunned(nodeid, nowMs) && this.#detector.peers.get(nodeid)?.barred !== true,
    );
    if (awaited && nowMs - this.#sinceMs < hearingShare * this.#boot.timeoutMs) return false;
    return !this.#othersMayCome(nowMs) || nowMs - this.#sinceMs >= returnShare * this.#boot.timeoutMs;
  }

  /** When a network comes back as a whole, rings of some come first. A view of theirs would end what the others have open. */
  #othersMayCome(nowMs: number): boolean {
    const { lived, seen } = this.#port.past();
    if (!this.#quorumWasLost || this.#seats.quorate !== true || sameView(lived, noView)) return false;
    // Others have gone on without this node: it begins anew whoever comes, and they wait for what it states.
    if ([...this.#answers.values()].some((answer) => compareViews(answer.seen.id, lived) > 0)) return false;
    return seen.members.some((member) => !this.#seats.holds(member.nodeid) && !this.#isKnownGone(member, nowMs));
  }

  #isKnownGone({ nodeid, incarnation }: Member, nowMs: number): boolean {
    const peer = this.#detector.peers.get(nodeid);
    return (
      peer === undefined || peer.barred || peer.left === incarnation || peer.evicted === incarnation || this.#seats.isShunned(nodeid, nowMs)
    );
  }

  #cutOff(nowMs: number): number[] {
    const others = this.#seats.expected.filter(({ nodeid }) => nodeid !== this.#self.nodeid);
    return others.map(({ nodeid }) => nodeid).filter((nodeid) => this.#isCutOff(this.#detector.peers.get(nodeid), nowMs));
  }

  #isCutOff(peer: Peer | undefined, nowMs: number): boolean {
    if (peer === undefined || peer.heartbeat === null || !this.#detector.alive(peer, nowMs)) return true;
    if (peer.left === peer.incarnation || peer.evicted === peer.incarnation) return true;
    if (peer.barred || peer.distrusted === peer.incarnation || this.#seats.isShunned(peer.config.nodeid, nowMs)) return true;
    if (this.#boot.connections === false || isLinked(peer)) return false;
    // Who was in the view with us may make a new connection meanwhile; who was not, must have one.
    const { nodeid } = peer.config;
    const { lived, seen } = this.#port.past();
    const member = hasMember(seen.members, nodeid, peer.incarnation ?? "") && !sameView(lived, noView);
    return !member || this.#detector.unlinkedForMs(this.#self.nodeid, nodeid, nowMs) >= this.#boot.timeoutMs;
  }

  state(nowMs: number): void {
    const tag = this.#tag();
    if (tag === null) return;
    this.#stated = true;
    this.#highestEpoch++;
    const { nodes, version } = this.#basis;
    this.#port.say({
      kind: "state",
      tag,
      incarnation: this.#self.incarnation,
      epoch: this.#highestEpoch,
      ...this.#port.past(),
      quorate: this.#seats.quorate ?? false,
      configVersion: version,
      votes: nodes.find(({ nodeid }) => nodeid === this.#self.nodeid)?.votes ?? 0,
      expected: nodes.reduce((sum, { votes }) => sum + votes, 0),
      cutOff: this.#cutOff(nowMs),
      ackedAgo: this.#ackedAgo(nowMs),
    });
  }

  #ackedAgo(nowMs: number): StateMessage["ackedAgo"] {
    const ackedAgo = [];
    for (const peer of this.#detector.peers.values()) {
      if (peer.left !== null && peer.left === peer.incarnation) continue;
      // Not heard in this life: a former one may have acked it until this one began.
      const ms = Math.min(nowMs - this.#boot.nowMs, Math.max(0, nowMs - peer.lastHeardMs));
      ackedAgo.push({ nodeid: peer.config.nodeid, ms });
    }
    return ackedAgo;
  }

  // ------------------------------------------------------------------------------------------------------ what it hears

  receiveState(from: Seat, message: StateMessage): void {
    const tag = this.#tag();
    if (tag === null || !sameTag(message.tag, tag) || this.#decision !== null) return;
    const { kind: _, tag: __, ...answer } = message;
    const peer = this.#detector.peers.get(from.nodeid);
    if (peer !== undefined) admitIncarnation(peer, message.incarnation);
    this.#highestEpoch = Math.max(this.#highestEpoch, message.epoch);
    this.#answers.set(from.nodeid, { ...answer, nodeid: from.nodeid });
    this.#decideIfAllSaid();
  }

  #decideIfAllSaid(): void {
    const { expected } = this.#seats;
    if (this.#decision !== null || expected.length === 0 || this.#seats.twice !== null) return;
    if (expected.some(({ nodeid }) => !this.#answers.has(nodeid))) return;
    const decision = decide([...this.#answers.values()], this.#basis, this.#boot.timeoutMs);
    this.#decision = decision;
    for (const { nodeid, incarnation, reason } of decision.behind) {
      if (nodeid === this.#self.nodeid) return this.#port.evicted(reason);
      const peer = this.#detector.peers.get(nodeid);
      if (peer !== undefined) peer.evicted = incarnation;
      this.#port.log("warn", "a node has to begin anew", { nodeid, reason });
    }
    this.#highestEpoch = Math.max(this.#highestEpoch, decision.id.epoch);
    const waits = decision.waiting.find(({ nodeid }) => nodeid === this.#self.nodeid);
    this.#leftOut = waits?.reason.replace(/^it has/, "this node has") ?? null;
    if (!isMemberOf(decision, this.#self))
      return this.#port.log("warn", "no view with this node yet", {
        members: decision.members.map(({ nodeid }) => nodeid),
        reason: this.#leftOut,
      });
    // The others may install it then: no later view of this node may have a lower epoch, after a restart neither (hazard H4).
    this.#readyAtEpoch = decision.id.epoch;
    this.#port.persist();
  }

  persisted(promisedEpoch: number): void {
    if (this.#readyAtEpoch === null || this.#readyAtEpoch > promisedEpoch || this.#decision === null) return;
    this.#readyAtEpoch = null;
    this.#port.say({ kind: "ready", view: this.#decision.id });
  }

  receiveReady({ nodeid }: Seat, view: ViewId): void {
    const decision = this.#decision;
    if (decision === null || this.#installed || !sameView(decision.id, view)) return;
    this.#ready.add(nodeid);
    if (decision.members.every((member) => this.#ready.has(member.nodeid)) && isMemberOf(decision, this.#self)) {
      this.#installed = true;
      // votequorum may have said no of a later ring already.
      if (this.#seats.quorate === true || !decision.quorum.quorate) this.#quorumWasLost = !decision.quorum.quorate;
      this.#port.install(decision);
    }
  }

  receiveAgain(from: Seat, { tag, without, why }: AgainMessage, nowMs: number): void {
    const mine = this.#tag();
    if (mine === null || !sameTag(tag, mine)) return;
    this.#port.log("info", "the members state anew who they are", {
      asks: from.nodeid,
      without: without.map(({ nodeid }) => nodeid),
      why,
    });
    for (const seat of without) {
      if (sameSeat(seat, this.#seat)) return this.#port.evicted(`node ${from.nodeid} leaves this node out: ${why}`);
      this.#seats.exclude(seat);
      this.#seats.shun(seat.nodeid, nowMs + shunShare * this.#boot.timeoutMs);
    }
    this.begin(nowMs, this.#count + 1);
  }

  /** One that leaves is waited for by nobody. */
  receiveLeave(from: Seat, nowMs: number): void {
    if (this.#seats.isExcluded(from)) return;
    this.#seats.exclude(from);
    this.begin(nowMs, this.#count + 1);
  }

  // ----------------------------------------------------------------------------------------------------- another round

  /** Once for each round and reason. */
  askAgain(without: readonly Seat[], why: string): void {
    const tag = this.#tag();
    if (tag === null || !this.#seats.seated) return;
    const asked = without.map(({ nodeid }) => nodeid).join();
    if (asked === this.#asked) return;
    this.#asked = asked;
    this.#port.say({ kind: "again", tag, without, why: why.slice(0, 100) });
  }

  leaveSilentOut(nowMs: number): void {
    if (!this.#stated || nowMs - this.#sinceMs < silentShare * this.#boot.timeoutMs || this.#seats.twice !== null) return;
    const decision = this.#decision;
    const { expected } = this.#seats;
    const missing = expected.filter(({ nodeid }) =>
      decision === null ? !this.#answers.has(nodeid) : decision.members.some((m) => m.nodeid === nodeid) && !this.#ready.has(nodeid),
    );
    const silent = missing.filter((seat) => !sameSeat(seat, this.#seat));
    const rest = expected.filter((seat) => !silent.includes(seat));
    if (silent.length > 0 && this.#isMajority(rest))
      this.askAgain(silent, `node ${silent.map(({ nodeid }) => nodeid).join(" ")} says nothing`);
  }

  /** Members that are not heard any more, or have no connection, go; others that all members reach come in. */
  review({ members, installedMs }: View, nowMs: number): void {
    if (nowMs - installedMs < settleShare * this.#boot.timeoutMs) return;
    const there = this.#seats.expected;
    const desired = this.#detector.desired(
      { members, isNew: false },
      (peer) => this.#mayBeMember(peer, nowMs) && there.some(({ nodeid }) => nodeid === peer.config.nodeid),
      nowMs,
    );
    // Not the lowest of all: that may be one that comes, which is in no view and asks for nothing.
    const asker = desired.find(({ nodeid, incarnation }) => hasMember(members, nodeid, incarnation));
    if (asker?.nodeid !== this.#self.nodeid) return;
    const lost = members.filter((member) => !hasMember(desired, member.nodeid, member.incarnation)).map(({ nodeid }) => nodeid);
    if (lost.length > 0) {
      if (!this.#isMajority(desired)) return;
      const seats = there.filter(({ nodeid }) => lost.includes(nodeid));
      return this.askAgain(seats, `node ${lost.join(" ")} is not heard, or has no connection to a member`);
    }
    const coming = desired.filter((member) => !hasMember(members, member.nodeid, member.incarnation)).map(({ nodeid }) => nodeid);
    if (coming.length > 0) this.askAgain([], `node ${coming.join(" ")} can be reached by all`);
  }

  /** One with another version of cluster.yaml would be left out of the next round again. */
  #mayBeMember(peer: Peer, nowMs: number): boolean {
    if (peer.heartbeat?.configVersion !== this.#basis.version) return false;
    return this.#detector.alive(peer, nowMs) && !isGone(peer) && !peer.barred && !this.#seats.isShunned(peer.config.nodeid, nowMs);
  }

  /** Fewer must not make the others begin anew: it may be that these few hear nobody. */
  #isMajority(nodes: readonly { readonly nodeid: number }[]): boolean {
    return isMajority(
      [this.#basis.nodes],
      nodes.map(({ nodeid }) => nodeid),
    );
  }
}

function isGone({ left, evicted, incarnation }: Peer): boolean {
  return incarnation !== null && (left === incarnation || evicted === incarnation);
}
