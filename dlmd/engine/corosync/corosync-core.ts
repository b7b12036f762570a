/**
 * The engine over corosync as a pure core: callbacks of libcpg and libquorum come in with the time, everything goes out through the host, in
 * order. corosync says which processes are there and orders what they say. README.md has what it does not say, and what is made of it here.
 */
import { assertNever } from "../../base/assert.ts";
import { WireError } from "../../base/error.ts";
import type { NodeConfiguration, EngineBoot } from "../boot.ts";
import type { EngineCommand, EngineFigures, EnginePeer, SteppedEngine, View } from "../engine.ts";
import { sendWindow } from "../builtin/sender.ts";
import { Detector, type OwnState } from "../../membership/detector.ts";
import type { HeardBeat } from "../../membership/heartbeater.ts";
import { admitIncarnation } from "../../membership/peer-table.ts";
import { plainQuorum, type QuorumBasis, quorumOf, quorumReason } from "../../membership/quorum.ts";
import type { CommandResult } from "../../wire/group.ts";
import { type Member, noView, viewName } from "../../wire/view-id.ts";
import type { CorosyncEvent, CorosyncPort, CorosyncSelf } from "./corosync-api.ts";
import { GroupSeats } from "./group-seats.ts";
import { decodeGroupMessage, encodeGroupMessage, type GroupMessage, type PacketMessage, type Seat } from "./message.ts";
import { type Decision, sameSeat } from "./round.ts";
import { type OwnPast, RoundExchange } from "./round-exchange.ts";
import { ViewStream } from "./view-stream.ts";

/** A share of the time-out. */
const tickShare = 0.05;

export class CorosyncEngine implements SteppedEngine {
  readonly #boot: EngineBoot;
  readonly #self: Member;
  readonly #seat: Seat;
  readonly #host: CorosyncPort;
  readonly #detector: Detector;
  readonly #basis: QuorumBasis;
  readonly #seats: GroupSeats;
  readonly #round: RoundExchange;
  readonly #stream: ViewStream;
  #nowMs: number;
  #nextTickMs: number;
  #progress = 0;
  #leaveSinceMs: number | null = null;
  #ended = false;
  #running = false;
  #broken = false;
  #wasFull = false;
  #persisting = 0;
  #stopsHeard = 0;

  constructor(boot: EngineBoot, { pid }: CorosyncSelf, host: CorosyncPort) {
    this.#boot = boot;
    this.#self = { nodeid: boot.nodeid, incarnation: boot.incarnation };
    this.#seat = { nodeid: boot.nodeid, pid };
    this.#host = host;
    this.#nowMs = boot.nowMs;
    this.#nextTickMs = boot.nowMs;
    this.#detector = new Detector(boot);
    this.#basis = { version: boot.configVersion, nodes: boot.nodes, options: plainQuorum };
    this.#seats = new GroupSeats(this.#seat);
    this.#stream = new ViewStream(boot, this.#basis, host);
    this.#round = new RoundExchange(boot, this.#basis, this.#seat, this.#seats, this.#detector, {
      log: (level, message, fields) => host.log(level, message, fields),
      say: (message) => this.#say(message),
      persist: () => this.#persist(),
      // Nothing of the view before is acknowledged any more before what this node says next (hazard C4).
      begun: () => {
        if (this.#stream.stop()) this.#tell(true);
      },
      install: (decision) => this.#install(decision),
      evicted: (reason) => this.#evicted(reason),
      past: () => this.#past(),
    });
  }

  // ------------------------------------------------------------------------------------------------- the node's side

  get peers(): ReadonlyMap<number, EnginePeer> {
    return this.#detector.peers;
  }
  get leaseEndMs(): number {
    return this.#stream.leaseEndMs;
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
  /** corosync of this node stays, but not its dlmd (round.ts): all votes count. */
  get othersAreQuorate(): boolean {
    const others = (this.#stream.current?.view.members ?? []).filter(({ nodeid }) => nodeid !== this.#self.nodeid);
    return others.length === 0 || quorumOf(this.#basis, others, true).quorate;
  }
  /** A node that leaves counts on, as in votequorum without allow_downscale. */
  get counting(): null {
    return null;
  }
  get promisedEpoch(): number {
    return this.#round.highestEpoch;
  }
  /** Steps of the main loop, for heartbeats (hazard H13). */
  get progress(): number {
    return this.#progress;
  }

  get quorum(): { readonly quorate: boolean; readonly reason: string } {
    if (!this.#seats.connected) return { quorate: false, reason: "no connection to corosync yet" };
    const current = this.#stream.current;
    const counted = current?.view.quorum ?? quorumOf(this.#basis, [], true);
    const objection = this.#round.leftOut ?? current?.objection ?? null;
    return { quorate: counted.quorate, reason: objection ?? quorumReason(counted) };
  }

  get figures(): EngineFigures {
    const { sender, groups: table, packets, stopped, blocked } = this.#stream;
    const { underWay, waiting, full } = sender;
    const groups = table.table().map(({ group }) => group);
    const at = { stopped: stopped || blocked, sequencerNodeid: 0, underWay, window: sendWindow, waiting, full };
    return { ...at, received: packets, delivered: packets, kept: 0, groups };
  }

  rebuildView(why: string): void {
    if (this.#broken) return;
    this.#broken = true;
    this.#host.log("warn", "the view is rebuilt", { view: viewName(this.#stream.current?.view.id ?? noView), why });
    this.#round.askAgain([], why);
  }

  distrust(nodeid: number): boolean {
    const peer = this.#detector.peers.get(nodeid);
    if (peer === undefined || peer.distrusted === peer.incarnation) return false;
    this.#detector.distrust(nodeid, this.#nowMs);
    this.#tell(true);
    // Who of the two stays is up to whom the others reach.
    this.#round.askAgain([], `node ${nodeid} is believed no more`);
    return true;
  }

  bar(nodeids: readonly number[]): void {
    this.#detector.bar(nodeids, this.#nowMs);
    this.#tell(true);
    // In a round they have to be stated as cut off, which this node may have done without them.
    const { stopped, current } = this.#stream;
    const concerned = stopped ? this.#seats.expected : (current?.view.members ?? []);
    const barred = concerned.map(({ nodeid }) => nodeid).filter((nodeid) => nodeids.includes(nodeid));
    if (barred.length > 0 && (this.#round.stated || !stopped)) this.#round.askAgain([], `node ${barred.join(" ")} is being fenced`);
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

  /** Without two_node a minority is no quorum, and makes no view that anybody must forget. */
  proved(): void {}

  announceLeave(): void {
    this.#host.mayLeave();
  }

  leave(): void {
    if (this.#leaveSinceMs !== null) return;
    this.#leaveSinceMs = this.#nowMs;
    this.#nextTickMs = this.#nowMs;
    this.#host.beat(null, false);
    if (this.#seats.seated) this.#say({ kind: "leave", incarnation: this.#self.incarnation });
    else this.#left();
  }

  command(command: EngineCommand): CommandResult {
    const result = this.#stream.groups.command(command);
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
    this.#round.persisted(promisedEpoch);
  }

  acksStopped(stops: number): void {
    this.#stopsHeard = stops;
  }

  tick(): void {
    if (this.#nowMs < this.#nextTickMs || this.#ended) return;
    this.#nextTickMs = this.#nowMs + tickShare * this.#boot.timeoutMs;
    if (this.#leaveSinceMs !== null) {
      if (this.#nowMs - this.#leaveSinceMs >= this.#boot.timeoutMs) this.#left();
      return;
    }
    if (this.#stream.stopped) this.#round.leaveSilentOut(this.#nowMs);
    else if (this.#stream.current !== null) this.#round.review(this.#stream.current.view, this.#nowMs);
  }

  receive(event: CorosyncEvent): void {
    if (this.#ended) return;
    switch (event.kind) {
      case "seats":
        return this.#receiveSeats(event.seats);
      case "ring":
        this.#seats.receiveRing(event.ring);
        return this.#round.begin(this.#nowMs);
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
    this.#stream.reckonLease(this.#detector.peers);
    if (this.#stream.stopped && this.#leaveSinceMs === null && this.#knowsAcks && this.#round.mayState(this.#nowMs))
      this.#round.state(this.#nowMs);
    this.#tell(false);
    if (this.mayOrder()) this.#stream.send((packet) => this.#say(packet));
    if (this.#wasFull && this.#stream.sender.roomy) {
      this.#wasFull = false;
      this.#host.event({ kind: "room" });
    }
  }

  nextDeadline(): number {
    return Math.min(this.#nextTickMs, this.#stream.opensMs(this.#nowMs));
  }

  // -------------------------------------------------------------------------------------------------- what corosync says

  #receiveSeats(seats: readonly Seat[]): void {
    const known = seats.filter(({ nodeid }) => nodeid === this.#self.nodeid || this.#detector.peers.has(nodeid));
    for (const { nodeid } of seats)
      if (!known.some((seat) => seat.nodeid === nodeid))
        this.#host.log("warn", "a dlmd of a node that is not in cluster.yaml is in the group of this cluster", { nodeid });
    this.#seats.receive(known);
    const nodeid = this.#seats.twice;
    if (nodeid !== null) this.#host.log("warn", "two dlmds of one node are in the group: no view before one of them ends", { nodeid });
    this.#round.begin(this.#nowMs);
  }

  #receiveQuorum({ ring, quorate }: Extract<CorosyncEvent, { kind: "quorum" }>): void {
    if (!quorate) this.#round.quorumLost();
    // Each states it anew.
    if (this.#seats.receiveQuorum(ring, quorate) && this.#round.stated)
      this.#round.askAgain([], `votequorum says ${quorate ? "quorate" : "not quorate"} now`);
  }

  #receiveMessage(from: Seat, data: Uint8Array): void {
    if (!this.#seats.has(from)) return;
    let message: GroupMessage;
    try {
      message = decodeGroupMessage(data);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      // The same bytes fail at every member: what is dropped here is dropped everywhere.
      return this.#host.protest(from.nodeid, `message of the group dropped: ${error.message}`);
    }
    if (message.kind !== "leave" && this.#seats.isExcluded(from)) return;
    switch (message.kind) {
      case "state":
        return this.#round.receiveState(from, message);
      case "ready":
        return this.#round.receiveReady(from, message.view);
      case "again":
        return this.#round.receiveAgain(from, message, this.#nowMs);
      case "packet":
        return this.#receivePacket(from, message);
      case "leave":
        return this.#receiveLeave(from, message.incarnation);
      default:
        assertNever(message, "message of the group");
    }
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
    this.#round.receiveLeave(from, this.#nowMs);
  }

  #receivePacket(from: Seat, packet: PacketMessage): void {
    if (this.#stream.receivePacket(from.nodeid, packet) === "missing") this.rebuildView(`packets of node ${from.nodeid} are missing`);
  }

  #persist(): void {
    this.#persisting++;
    this.#host.persist(this.#round.highestEpoch, this.#stream.seen);
  }

  #past(): OwnPast {
    const { lived, seen, packets, digest, groups } = this.#stream;
    return { lived, seen, packets, digest, synced: groups.synced };
  }

  #install(decision: Decision): void {
    this.#broken = false;
    for (const peer of this.#detector.peers.values()) peer.ackedMs = Number.NEGATIVE_INFINITY;
    const view = this.#stream.install(decision, this.#nowMs, () => this.#persist());
    this.#stream.reckonLease(this.#detector.peers);
    this.#host.install(view);
    this.#tell(true);
  }

  mayOrder(): boolean {
    return this.#leaveSinceMs === null && this.stable && this.#stream.mayOrder(this.#nowMs);
  }

  settledView(nowMs: number): View | null {
    return this.#stream.settled(nowMs);
  }

  /** What heartbeats have acknowledged by themselves, while this thread was busy, is known only behind their last word on that view (hazard C4). */
  get #knowsAcks(): boolean {
    return this.#stopsHeard === this.#detector.stops;
  }

  #own(): OwnState {
    const { current, lived, stopped } = this.#stream;
    return {
      view: current?.view ?? null,
      lineage: lived,
      promisedEpoch: this.#round.highestEpoch,
      configVersion: this.#basis.version,
      running: this.#running,
      stopped,
      broken: this.#broken,
      stored: this.stable,
      // Its word of that goes over the group.
      leaving: false,
      lease: current === null ? null : this.#stream.leaseBasis(current),
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
