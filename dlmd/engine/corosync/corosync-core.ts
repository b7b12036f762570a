/**
 * The engine over corosync as a pure core: callbacks of libcpg and libquorum come in with the time, everything goes out through the host, in
 * order. corosync says which processes are there and orders what they say. README.md has what it does not say, and what is made of it here.
 */
import { assertNever } from "../../base/assert.ts";
import { WireError } from "../../base/error.ts";
import { isMajority } from "../../config/votes.ts";
import type { NodeConfiguration, EngineBoot } from "../boot.ts";
import type { EngineCommand, EngineFigures, EnginePeer, EnginePort, SteppedEngine, View } from "../engine.ts";
import { Groups } from "../builtin/groups.ts";
import { Sender, sendWindow } from "../builtin/sender.ts";
import { Detector, type OwnState } from "../../membership/detector.ts";
import type { BeatContent, HeardBeat } from "../../membership/heartbeater.ts";
import { type LeaseBasis, leaseEndByAll, leaseWaitShare } from "../../membership/lease.ts";
import { admitIncarnation, isLinked, type Peer } from "../../membership/peer-table.ts";
import { leaseGrounds, plainQuorum, type QuorumBasis, quorumOf, quorumReason } from "../../membership/quorum.ts";
import type { CommandResult } from "../../wire/group.ts";
import { hasMember, type Lineage, type Member, noLineage, noView, sameView, type ViewId, viewName } from "../../wire/view-id.ts";
import {
  type AgainMessage,
  decodeGroupMessage,
  encodeGroupMessage,
  type GroupMessage,
  type PacketMessage,
  type RingId,
  type RoundTag,
  type Seat,
  type StateMessage,
} from "./message.ts";
import { type Answer, decide, type Decision, isMemberOf, sameSeat, sameTag } from "./round.ts";

/** What a connection to corosync says. Of CPG in its order; of the quorum service in that one's. */
export type CorosyncEvent =
  /** cpg_confchg_fn: the processes of the group. */
  | { readonly kind: "seats"; readonly seats: readonly Seat[] }
  /** cpg_totem_confchg_fn. */
  | { readonly kind: "ring"; readonly ring: RingId }
  /** cpg_deliver_fn. */
  | { readonly kind: "message"; readonly from: Seat; readonly data: Uint8Array }
  /** quorum_v1_quorum_notification_fn. */
  | { readonly kind: "quorum"; readonly ring: RingId; readonly quorate: boolean }
  /** There is no connection any more: what was in flight may be lost. */
  | { readonly kind: "lost"; readonly reason: string };

export interface CorosyncPort extends EnginePort {
  /** What heartbeats say from now on, null: there are none any more; `now`: one is due at once. */
  beat(content: BeatContent | null, now: boolean): void;
  /** Store both, then `persisted`, one for each and in order. */
  persist(promisedEpoch: number, lineage: Lineage): void;
  /** To all processes of the group, this one included, in this order. */
  multicast(data: Uint8Array): void;
}

/** What corosync knows this process by. */
export interface CorosyncSelf {
  readonly pid: number;
}

/** Shares of the time-out. */
const tickShare = 0.05;
/** To hear all processes before saying which of them are cut off. */
const hearingShare = 0.5;
/** A process that says nothing in a round is left out: CPG never reports one that hangs. */
const silentShare = 1;
/** One that was left out comes in no sooner. */
const shunShare = 2;
/** Between two rounds that links ask for. */
const settleShare = 0.25;

interface Current {
  readonly view: View;
  /** Over what corosync and cluster.yaml do not agree; null: nothing. */
  readonly objection: string | null;
}

export class CorosyncEngine implements SteppedEngine {
  readonly sender: Sender = new Sender();
  readonly groups: Groups;
  readonly #boot: EngineBoot;
  readonly #self: Member;
  readonly #seat: Seat;
  readonly #host: CorosyncPort;
  readonly #detector: Detector;
  readonly #basis: QuorumBasis;
  #nowMs: number;
  #nextTickMs: number;
  #progress = 0;
  #leaveSinceMs: number | null = null;
  #ended = false;
  #running = false;
  #broken = false;
  #wasFull = false;
  #persisting = 0;
  // -- what corosync says
  #seats: readonly Seat[] = [];
  #ring: RingId | null = null;
  #quorum: { readonly ring: RingId; readonly quorate: boolean } | null = null;
  // -- the round
  /** It runs: nothing of the view before goes on. */
  #stopped = true;
  #count = 0;
  #sinceMs: number;
  #stated = false;
  readonly #excluded: Seat[] = [];
  /** Nodes that were left out, in whatever life. */
  readonly #shunnedUntilMs: Map<number, number> = new Map();
  readonly #answers: Map<number, Answer> = new Map();
  readonly #ready: Set<number> = new Set();
  #decision: Decision | null = null;
  #readyAtEpoch: number | null = null;
  /** Why the last round has left this node without a view; null: it has not. */
  #leftOut: string | null = null;
  /** Who this node wants left out of another round. */
  #asked: string | null = null;
  // -- the view
  #current: Current | null = null;
  #blocked = true;
  #highestEpoch: number;
  #lived: ViewId = noView;
  #seen: Lineage;
  #packets = 0;
  #digest = 0;
  readonly #lastN: Map<number, number> = new Map();
  #leaseEndMs = Number.NEGATIVE_INFINITY;
  #lease: { current: Current; basis: LeaseBasis } | null = null;

  constructor(boot: EngineBoot, { pid }: CorosyncSelf, host: CorosyncPort) {
    this.#boot = boot;
    this.#self = { nodeid: boot.nodeid, incarnation: boot.incarnation };
    this.#seat = { nodeid: boot.nodeid, pid };
    this.#host = host;
    this.#nowMs = boot.nowMs;
    this.#nextTickMs = boot.nowMs;
    this.#sinceMs = boot.nowMs;
    this.#detector = new Detector(boot);
    this.#basis = { version: boot.configVersion, nodes: boot.nodes, options: plainQuorum };
    this.#highestEpoch = boot.promisedEpoch;
    this.#seen = boot.lineage ?? noLineage;
    this.groups = new Groups(this.#self, {
      push: (message) => this.sender.push(message),
      full: () => this.sender.full,
      event: (event) => host.event(event),
      protest: (nodeid, message) => host.protest(nodeid, message),
    });
  }

  // ------------------------------------------------------------------------------------------------- the node's side

  get peers(): ReadonlyMap<number, EnginePeer> {
    return this.#detector.peers;
  }
  get leaseEndMs(): number {
    return this.#leaseEndMs;
  }
  get leaving(): boolean {
    return this.#leaveSinceMs !== null;
  }
  get stable(): boolean {
    return this.#persisting === 0;
  }
  get broken(): boolean {
    return this.#broken;
  }
  /** A node that leaves counts on, as in votequorum without allow_downscale. */
  get counting(): null {
    return null;
  }
  get promisedEpoch(): number {
    return this.#highestEpoch;
  }
  /** Steps of the main loop, for heartbeats (hazard H13). */
  get progress(): number {
    return this.#progress;
  }

  get quorum(): { readonly quorate: boolean; readonly reason: string } {
    if (this.#ring === null) return { quorate: false, reason: "no connection to corosync yet" };
    const counted = this.#current?.view.quorum ?? quorumOf(this.#basis, [], true);
    const objection = this.#leftOut ?? this.#current?.objection ?? null;
    return { quorate: counted.quorate, reason: objection ?? quorumReason(counted) };
  }

  get figures(): EngineFigures {
    const { underWay, waiting, full } = this.sender;
    const groups = this.groups.table().map(({ group }) => group);
    const [delivered, stopped] = [this.#packets, this.#stopped || this.#blocked];
    return { stopped, sequencerNodeid: 0, underWay, window: sendWindow, waiting, full, received: delivered, delivered, kept: 0, groups };
  }

  rebuildView(why: string): void {
    if (this.#broken) return;
    this.#broken = true;
    this.#host.log("warn", "the view is rebuilt", { view: viewName(this.#current?.view.id ?? noView), why });
    this.#askAgain([], why);
  }

  distrust(nodeid: number): boolean {
    const peer = this.#detector.peers.get(nodeid);
    if (peer === undefined || peer.distrusted === peer.incarnation) return false;
    this.#detector.distrust(nodeid, this.#nowMs);
    this.#tell(true);
    // Who of the two stays is up to whom the others reach.
    this.#askAgain([], `node ${nodeid} is believed no more`);
    return true;
  }

  bar(nodeids: readonly number[]): void {
    this.#detector.bar(nodeids, this.#nowMs);
    this.#tell(true);
    // In a round they have to be stated as cut off, which this node may have done without them.
    const concerned = this.#stopped ? this.#expected() : (this.#current?.view.members ?? []);
    const barred = concerned.map(({ nodeid }) => nodeid).filter((nodeid) => nodeids.includes(nodeid));
    if (barred.length > 0 && (this.#stated || !this.#stopped)) this.#askAgain([], `node ${barred.join(" ")} is being fenced`);
  }

  setServing(serving: boolean): void {
    this.#running = serving;
  }

  linkUp(nodeid: number, incarnation: string): boolean {
    return this.#detector.linkUp(nodeid, incarnation);
  }

  linkDown(nodeid: number, incarnation: string): boolean {
    if (this.#detector.peers.get(nodeid)?.link !== incarnation) return false;
    this.#detector.linkDown(nodeid);
    return true;
  }

  linkRefused(nodeid: number, reason: string): void {
    const peer = this.#detector.peers.get(nodeid);
    if (peer !== undefined) peer.refused = { reason, atMs: this.#nowMs };
  }

  /**
   * No cluster.yaml changes while a quorum runs (README.md). A node that was left with an older one is given that of the others: its next
   * life begins with it, and compares it with corosync.conf.
   */
  configure({ version }: NodeConfiguration): void {
    const before = this.#basis.version;
    if (version !== before && !this.#ended)
      this.#evicted(`version ${version} of cluster.yaml is in force, and this life began with version ${before}`);
  }

  /** Whose votes count is corosync's to say. */
  countAll(): boolean {
    return false;
  }

  announceLeave(): void {
    this.#host.mayLeave();
  }

  leave(): void {
    if (this.#leaveSinceMs !== null) return;
    this.#leaveSinceMs = this.#nowMs;
    this.#nextTickMs = this.#nowMs;
    this.#host.beat(null, false);
    if (this.#isSeated()) this.#say({ kind: "leave", incarnation: this.#self.incarnation });
    else this.#left();
  }

  command(command: EngineCommand): CommandResult {
    const result = this.groups.command(command);
    if (result === "full") this.#wasFull = true;
    return result;
  }

  // ---------------------------------------------------------------------------------------------------------- events

  /** Before anything else in a step. */
  begin(nowMs: number): void {
    const gapMs = nowMs - this.#nowMs;
    if (gapMs > this.#boot.timeoutMs / 2) this.#detector.stoodStill(gapMs, nowMs);
    this.#nowMs = nowMs;
    this.#progress++;
  }

  heartbeat(beat: HeardBeat): void {
    const { message } = beat;
    const peer = this.#detector.peers.get(message.from);
    if (peer === undefined || !admitIncarnation(peer, message.incarnation)) return;
    this.#detector.receive(peer, beat, this.#nowMs, this.#own());
  }

  persisted(promisedEpoch: number): void {
    this.#persisting--;
    if (this.#readyAtEpoch === null || this.#readyAtEpoch > promisedEpoch || this.#decision === null) return;
    this.#readyAtEpoch = null;
    this.#say({ kind: "ready", view: this.#decision.id });
  }

  tick(): void {
    if (this.#nowMs < this.#nextTickMs || this.#ended) return;
    this.#nextTickMs = this.#nowMs + tickShare * this.#boot.timeoutMs;
    if (this.#leaveSinceMs !== null) {
      if (this.#nowMs - this.#leaveSinceMs >= this.#boot.timeoutMs) this.#left();
      return;
    }
    if (this.#stopped) this.#leaveSilentOut();
    else this.#reviewMembers();
  }

  receive(event: CorosyncEvent): void {
    if (this.#ended) return;
    switch (event.kind) {
      case "seats":
        return this.#receiveSeats(event.seats);
      case "ring":
        this.#ring = event.ring;
        return this.#beginRound(0);
      case "quorum":
        return this.#receiveQuorum(event);
      case "message":
        return this.#receiveMessage(event.from, event.data);
      case "lost":
        return this.#evicted(`${event.reason}: what this node had in the cluster is void`);
      default:
        assertNever(event, "event of corosync");
    }
  }

  /** After everything else in a step. */
  end(): void {
    if (this.#ended) return;
    this.#leaseEndMs = this.#leaseEnd();
    if (this.#mayState()) this.#state();
    this.#tell(false);
    if (this.mayOrder()) this.#sendPackets();
    if (this.#wasFull && this.sender.roomy) {
      this.#wasFull = false;
      this.#host.event({ kind: "room" });
    }
  }

  nextDeadline(): number {
    const view = this.#current?.view;
    const opening = this.#blocked || view === undefined || this.#nowMs >= view.serveFromMs ? Number.POSITIVE_INFINITY : view.serveFromMs;
    return Math.min(this.#nextTickMs, opening);
  }

  // -------------------------------------------------------------------------------------------------- what corosync says

  #receiveSeats(seats: readonly Seat[]): void {
    const known = seats.filter(({ nodeid }) => nodeid === this.#self.nodeid || this.#detector.peers.has(nodeid));
    for (const { nodeid } of seats)
      if (!known.some((seat) => seat.nodeid === nodeid))
        this.#host.log("warn", "a dlmd of a node that is not in cluster.yaml is in the group of this cluster", { nodeid });
    const stays = known.filter((seat) => this.#excluded.some((excluded) => sameSeat(excluded, seat)));
    this.#excluded.splice(0, this.#excluded.length, ...stays);
    this.#seats = known.toSorted((a, b) => a.nodeid - b.nodeid || a.pid - b.pid);
    const twice = this.#seats.find((seat, at) => seat.nodeid === this.#seats[at - 1]?.nodeid);
    if (twice !== undefined)
      this.#host.log("warn", "two dlmds of one node are in the group: no view before one of them ends", { nodeid: twice.nodeid });
    this.#beginRound(0);
  }

  #receiveQuorum({ ring, quorate }: Extract<CorosyncEvent, { kind: "quorum" }>): void {
    const changed = this.#ofThisRing() && this.#stated && this.#quorum?.quorate !== quorate;
    this.#quorum = { ring, quorate };
    // Within a ring, as when an operator changes the votes: each states it anew.
    if (changed && this.#ofThisRing()) this.#askAgain([], `votequorum says ${quorate ? "quorate" : "not quorate"} now`);
  }

  #ofThisRing(): boolean {
    const quorum = this.#quorum;
    return quorum !== null && this.#ring !== null && quorum.ring.seq === this.#ring.seq && quorum.ring.nodeid === this.#ring.nodeid;
  }

  #receiveMessage(from: Seat, data: Uint8Array): void {
    if (!this.#seats.some((seat) => sameSeat(seat, from))) return;
    let message: GroupMessage;
    try {
      message = decodeGroupMessage(data);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      // The same bytes fail at every member: what is dropped here is dropped everywhere.
      return this.#host.protest(from.nodeid, `message of the group dropped: ${error.message}`);
    }
    if (message.kind !== "leave" && this.#excluded.some((seat) => sameSeat(seat, from))) return;
    switch (message.kind) {
      case "state":
        return this.#receiveState(from, message);
      case "ready":
        return this.#receiveReady(from, message.view);
      case "again":
        return this.#receiveAgain(from, message);
      case "packet":
        return this.#receivePacket(from, message);
      case "leave":
        return this.#receiveLeave(from, message.incarnation);
      default:
        assertNever(message, "message of the group");
    }
  }

  // ------------------------------------------------------------------------------------------------------- the round

  #tag(): RoundTag | null {
    return this.#ring === null ? null : { ring: this.#ring, seats: this.#seats, count: this.#count };
  }
  #isSeated(): boolean {
    return this.#seats.some((seat) => sameSeat(seat, this.#seat));
  }

  #beginRound(count: number): void {
    this.#count = count;
    this.#sinceMs = this.#nowMs;
    this.#stated = false;
    this.#asked = null;
    this.#answers.clear();
    this.#ready.clear();
    this.#decision = null;
    this.#readyAtEpoch = null;
    if (this.#stopped) return;
    this.#stopped = true;
    if (!this.#blocked) this.#host.event({ kind: "blocked" });
    this.#blocked = true;
    this.#host.stop();
    // Nothing of that view is acknowledged any more before what this node says next (hazard C4).
    this.#tell(true);
  }

  #expected(): readonly Seat[] {
    return this.#seats.filter((seat) => !this.#excluded.some((excluded) => sameSeat(excluded, seat)));
  }

  /** Not before the quorum of this very ring is known, nor before all were heard or had the time for it. */
  #mayState(): boolean {
    if (this.#stated || !this.#stopped || this.#leaveSinceMs !== null || !this.#isSeated() || !this.#ofThisRing()) return false;
    const awaited = this.#cutOff().some((nodeid) => !this.#isShunned(nodeid) && this.#detector.peers.get(nodeid)?.barred !== true);
    return !awaited || this.#nowMs - this.#sinceMs >= hearingShare * this.#boot.timeoutMs;
  }

  #isShunned(nodeid: number): boolean {
    return this.#nowMs < (this.#shunnedUntilMs.get(nodeid) ?? Number.NEGATIVE_INFINITY);
  }

  #cutOff(): number[] {
    const others = this.#expected().filter(({ nodeid }) => nodeid !== this.#self.nodeid);
    return others.map(({ nodeid }) => nodeid).filter((nodeid) => this.#isCutOff(this.#detector.peers.get(nodeid)));
  }

  #isCutOff(peer: Peer | undefined): boolean {
    if (peer === undefined || peer.heartbeat === null || !this.#detector.alive(peer, this.#nowMs)) return true;
    if (peer.left === peer.incarnation || peer.evicted === peer.incarnation) return true;
    if (peer.barred || peer.distrusted === peer.incarnation || this.#isShunned(peer.config.nodeid)) return true;
    if (this.#boot.connections === false || isLinked(peer)) return false;
    // Who was in the view with us may make a new connection meanwhile; who was not, must have one.
    const { nodeid } = peer.config;
    const member = hasMember(this.#seen.members, nodeid, peer.incarnation ?? "") && !sameView(this.#lived, noView);
    return !member || this.#detector.unlinkedForMs(this.#self.nodeid, nodeid, this.#nowMs) >= this.#boot.timeoutMs;
  }

  #state(): void {
    const tag = this.#tag();
    if (tag === null) return;
    this.#stated = true;
    this.#highestEpoch++;
    const ackedAgo = [];
    for (const peer of this.#detector.peers.values()) {
      if (peer.left !== null && peer.left === peer.incarnation) continue;
      // Not heard in this life: a former one may have acked it until this one began.
      const ms = Math.min(this.#nowMs - this.#boot.nowMs, Math.max(0, this.#nowMs - peer.lastHeardMs));
      ackedAgo.push({ nodeid: peer.config.nodeid, ms });
    }
    this.#say({
      kind: "state",
      tag,
      incarnation: this.#self.incarnation,
      epoch: this.#highestEpoch,
      lived: this.#lived,
      seen: this.#seen,
      packets: this.#packets,
      digest: this.#digest,
      synced: this.groups.synced,
      quorate: this.#quorum?.quorate ?? false,
      configVersion: this.#basis.version,
      votes: this.#basis.nodes.find(({ nodeid }) => nodeid === this.#self.nodeid)?.votes ?? 0,
      expected: this.#basis.nodes.reduce((sum, { votes }) => sum + votes, 0),
      cutOff: this.#cutOff(),
      ackedAgo,
    });
  }

  #receiveState(from: Seat, message: StateMessage): void {
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
    const expected = this.#expected();
    if (this.#decision !== null || expected.length === 0 || this.#hasTwoOfOneNode()) return;
    if (expected.some(({ nodeid }) => !this.#answers.has(nodeid))) return;
    const decision = decide([...this.#answers.values()], this.#basis, this.#boot.timeoutMs);
    this.#decision = decision;
    for (const { nodeid, incarnation, reason } of decision.behind) {
      if (nodeid === this.#self.nodeid) return this.#evicted(reason);
      const peer = this.#detector.peers.get(nodeid);
      if (peer !== undefined) peer.evicted = incarnation;
      this.#host.log("warn", "a node has to begin anew", { nodeid, reason });
    }
    this.#highestEpoch = Math.max(this.#highestEpoch, decision.id.epoch);
    const waits = decision.waiting.find(({ nodeid }) => nodeid === this.#self.nodeid);
    this.#leftOut = waits?.reason.replace(/^it has/, "this node has") ?? null;
    if (!isMemberOf(decision, this.#self))
      return this.#host.log("warn", "no view with this node yet", {
        members: decision.members.map(({ nodeid }) => nodeid),
        reason: this.#leftOut,
      });
    // The others may install it then: no later view of this node may have a lower epoch, after a restart neither (hazard H4).
    this.#readyAtEpoch = decision.id.epoch;
    this.#persist(decision.id.epoch);
  }

  #hasTwoOfOneNode(): boolean {
    return this.#seats.some((seat, at) => seat.nodeid === this.#seats[at - 1]?.nodeid);
  }

  #persist(epoch: number): void {
    this.#persisting++;
    this.#host.persist(epoch, this.#seen);
  }

  #receiveReady({ nodeid }: Seat, view: ViewId): void {
    const decision = this.#decision;
    if (decision === null || !this.#stopped || !sameView(decision.id, view)) return;
    this.#ready.add(nodeid);
    if (decision.members.every((member) => this.#ready.has(member.nodeid)) && isMemberOf(decision, this.#self)) this.#install(decision);
  }

  #receiveAgain(from: Seat, { tag, without, why }: AgainMessage): void {
    const mine = this.#tag();
    if (mine === null || !sameTag(tag, mine)) return;
    this.#host.log("info", "the members state anew who they are", { asks: from.nodeid, without: without.map(({ nodeid }) => nodeid), why });
    for (const seat of without) {
      if (sameSeat(seat, this.#seat)) return this.#evicted(`node ${from.nodeid} leaves this node out: ${why}`);
      if (!this.#excluded.some((excluded) => sameSeat(excluded, seat))) this.#excluded.push(seat);
      // Its next life may hang in the same place: the others must get a view meanwhile.
      this.#shunnedUntilMs.set(seat.nodeid, this.#nowMs + shunShare * this.#boot.timeoutMs);
    }
    this.#beginRound(this.#count + 1);
  }

  #receiveLeave(from: Seat, incarnation: string): void {
    if (sameSeat(from, this.#seat)) {
      if (incarnation === this.#self.incarnation) this.#left();
      return;
    }
    const peer = this.#detector.peers.get(from.nodeid);
    if (peer === undefined) return;
    peer.left = incarnation;
    this.#host.log("info", "node leaves", { nodeid: from.nodeid });
    if (this.#excluded.some((excluded) => sameSeat(excluded, from))) return;
    this.#excluded.push(from);
    this.#beginRound(this.#count + 1);
  }

  /** Once for each round and reason. */
  #askAgain(without: readonly Seat[], why: string): void {
    const tag = this.#tag();
    if (tag === null || !this.#isSeated()) return;
    const asked = without.map(({ nodeid }) => nodeid).join();
    if (asked === this.#asked) return;
    this.#asked = asked;
    this.#say({ kind: "again", tag, without, why: why.slice(0, 100) });
  }

  #leaveSilentOut(): void {
    if (!this.#stated || this.#nowMs - this.#sinceMs < silentShare * this.#boot.timeoutMs || this.#hasTwoOfOneNode()) return;
    const decision = this.#decision;
    const missing = this.#expected().filter(({ nodeid }) =>
      decision === null ? !this.#answers.has(nodeid) : decision.members.some((m) => m.nodeid === nodeid) && !this.#ready.has(nodeid),
    );
    const silent = missing.filter((seat) => !sameSeat(seat, this.#seat));
    const rest = this.#expected().filter((seat) => !silent.includes(seat));
    if (silent.length > 0 && this.#isMajority(rest))
      this.#askAgain(silent, `node ${silent.map(({ nodeid }) => nodeid).join(" ")} says nothing`);
  }

  /** Fewer must not make the others begin anew: it may be that these few hear nobody. */
  #isMajority(nodes: readonly { readonly nodeid: number }[]): boolean {
    return isMajority(
      [this.#basis.nodes],
      nodes.map(({ nodeid }) => nodeid),
    );
  }

  /** Members that are not heard any more, or have no connection, go; others that all members reach come in. */
  #reviewMembers(): void {
    const current = this.#current;
    if (current === null || this.#nowMs - current.view.installedMs < settleShare * this.#boot.timeoutMs) return;
    const { members } = current.view;
    const there = this.#expected();
    const desired = this.#detector.desired(
      members,
      (peer) => this.#mayBeMember(peer) && there.some(({ nodeid }) => nodeid === peer.config.nodeid),
      this.#nowMs,
    );
    if (desired[0]?.nodeid !== this.#self.nodeid) return;
    const lost = members.filter((member) => !hasMember(desired, member.nodeid, member.incarnation)).map(({ nodeid }) => nodeid);
    if (lost.length > 0) {
      if (!this.#isMajority(desired)) return;
      const seats = there.filter(({ nodeid }) => lost.includes(nodeid));
      return this.#askAgain(seats, `node ${lost.join(" ")} is not heard, or has no connection to a member`);
    }
    const coming = desired.filter((member) => !hasMember(members, member.nodeid, member.incarnation)).map(({ nodeid }) => nodeid);
    if (coming.length > 0) this.#askAgain([], `node ${coming.join(" ")} can be reached by all`);
  }

  /** One with another version of cluster.yaml would be left out of the next round again. */
  #mayBeMember(peer: Peer): boolean {
    if (peer.heartbeat?.configVersion !== this.#basis.version) return false;
    return this.#detector.alive(peer, this.#nowMs) && !isGone(peer) && !peer.barred && !this.#isShunned(peer.config.nodeid);
  }

  // --------------------------------------------------------------------------------------------------------- the view

  #install({ id, members, quorum, together, waitMs, objection }: Decision): void {
    const view: View = { id, members, quorum, installedMs: this.#nowMs, serveFromMs: this.#nowMs + waitMs };
    this.#current = { view, objection };
    this.#stopped = false;
    this.#broken = false;
    for (const peer of this.#detector.peers.values()) peer.ackedMs = Number.NEGATIVE_INFINITY;
    if (quorum.quorate) this.#enter(view, together);
    else this.#host.event({ kind: "view", view: { id, members, quorum, together: [] } });
    this.#leaseEndMs = this.#leaseEnd();
    this.#host.install(view);
    this.#tell(true);
  }

  #enter({ id, members, quorum }: View, together: Decision["together"]): void {
    const previous = this.#lived;
    this.#lived = id;
    this.#seen = { id, members, electorate: null };
    this.#persist(this.#highestEpoch);
    this.#packets = 0;
    this.#digest = 0;
    this.#lastN.clear();
    this.#blocked = false;
    this.sender.restart(0, (message) => message.kind !== "groups");
    this.#host.event({ kind: "view", view: { id, members, quorum, together: together.map(({ nodeid }) => nodeid) } });
    const table = this.groups.enterView({ id, members, quorum, start: { previous, cut: 0, together, lasts: [] } });
    if (table !== null) this.sender.pushFirst(table);
  }

  #receivePacket(from: Seat, { view, n, body }: PacketMessage): void {
    // One of another view comes again in the next: its sender sees this copy, and that it did not count.
    if (this.#blocked || this.#stopped || !sameView(view, this.#lived)) return;
    const origin = this.#current?.view.members.find(({ nodeid }) => nodeid === from.nodeid);
    if (origin === undefined) return;
    const last = this.#lastN.get(from.nodeid) ?? 0;
    if (n !== last + 1) {
      this.#host.protest(from.nodeid, `packet ${n} after ${last}`);
      return this.rebuildView(`packets of node ${from.nodeid} are missing`);
    }
    this.#lastN.set(from.nodeid, n);
    this.#packets++;
    this.#digest = (Math.imul(this.#digest ^ from.nodeid, 0x01000193) + n) >>> 0;
    if (from.nodeid === this.#self.nodeid) this.sender.came(n);
    this.groups.deliver(origin, body);
  }

  /** As the lock service: not before nodes outside can have stopped, and only while a quorum acknowledges this one (hazard C4). */
  mayOrder(): boolean {
    const view = this.#current?.view;
    if (view === undefined || this.#blocked || this.#stopped || this.#leaveSinceMs !== null) return false;
    return this.#nowMs >= view.serveFromMs && this.#nowMs < this.#leaseEndMs && this.stable;
  }

  #sendPackets(): void {
    if (!this.groups.synced) return;
    for (let packet = this.sender.pack(); packet !== null; packet = this.sender.pack())
      this.#say({ kind: "packet", view: this.#lived, n: packet.n, body: packet.body });
  }

  settledView(nowMs: number): View | null {
    const view = this.#current?.view;
    if (view === undefined || this.#stopped || !view.quorum.quorate) return null;
    return nowMs - view.installedMs < leaseWaitShare * this.#boot.timeoutMs ? null : view;
  }

  #leaseEnd(): number {
    const current = this.#current;
    if (current === null || this.#stopped) return Number.NEGATIVE_INFINITY;
    const acked = new Map<number, number>();
    for (const { nodeid } of current.view.members) {
      const peer = this.#detector.peers.get(nodeid);
      if (peer !== undefined) acked.set(nodeid, peer.ackedMs);
    }
    return leaseEndByAll(this.#leaseBasis(current).grounds, this.#self.nodeid, acked, this.#boot.timeoutMs);
  }

  /** The same object as long as the view is the same. */
  #leaseBasis(current: Current): LeaseBasis {
    if (this.#lease?.current === current) return this.#lease.basis;
    const { members, quorum } = current.view;
    const basis = { members, grounds: leaseGrounds(this.#basis, members, quorum, null) };
    this.#lease = { current, basis };
    return basis;
  }

  #own(): OwnState {
    const current = this.#current;
    return {
      view: current?.view ?? null,
      lineage: this.#lived,
      promisedEpoch: this.#highestEpoch,
      configVersion: this.#basis.version,
      running: this.#running,
      stopped: this.#stopped,
      broken: this.#broken,
      stored: this.stable,
      // Its word of that goes over the group.
      leaving: false,
      lease: current === null ? null : this.#leaseBasis(current),
    };
  }

  #tell(now: boolean): void {
    const content = this.#leaveSinceMs !== null ? null : this.#detector.content(this.#own());
    if (content !== null) this.#host.beat(content, now);
  }

  #say(message: GroupMessage): void {
    this.#host.multicast(encodeGroupMessage(message));
  }

  #evicted(reason: string): void {
    this.#ended = true;
    this.#host.evicted(reason);
  }

  #left(): void {
    this.#ended = true;
    this.#host.left();
  }
}

function isGone({ left, evicted, incarnation }: Peer): boolean {
  return incarnation !== null && (left === incarnation || evicted === incarnation);
}
