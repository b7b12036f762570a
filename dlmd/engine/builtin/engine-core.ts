/**
 * The builtin engine of a node as a pure core: membership, ordered channel and groups put together behind engine.ts. Calls come in with
 * the time, everything goes out through the host, in order.
 */
import type { InstalledView } from "../../membership/agreement.ts";
import type { HeardBeat } from "../../membership/heartbeater.ts";
import { Membership, type MembershipHost } from "../../membership/membership.ts";
import { decidingNodes, quorumOf, quorumReason } from "../../membership/quorum.ts";
import type { Datagram, Heartbeat } from "../../wire/datagram.ts";
import type { StartedView } from "../../wire/order-datagram.ts";
import { type Member, noView, viewName } from "../../wire/view-id.ts";
import type { CommandResult } from "../../wire/group.ts";
import type { EngineBoot, NodeConfiguration } from "../boot.ts";
import type { EngineCommand, EngineFigures, EnginePeer, EnginePort, SteppedEngine, View } from "../engine.ts";
import { Groups } from "./groups.ts";
import { Ordering } from "./ordering.ts";
import { sendWindow } from "./sender.ts";

/** With what goes out of this engine alone. */
export interface BuiltinPort extends EnginePort, Pick<MembershipHost, "beat" | "persist"> {
  datagram(to: number | "all" | readonly number[], message: Datagram): void;
  install(view: InstalledView): void;
}

/** Time-outs after which a member that receives no ordered messages, although it is heard, is taken out. */
const stuckShare = 1;

export class BuiltinEngine implements SteppedEngine {
  readonly membership: Membership;
  readonly ordering: Ordering;
  readonly groups: Groups;
  readonly #self: Member;
  readonly #host: BuiltinPort;
  readonly #timeoutMs: number;
  #nowMs: number;
  #leaseEndMs = Number.NEGATIVE_INFINITY;
  #lost: string | null = null;
  #wasFull = false;
  #blocked = true;
  #leaseChanged = true;

  constructor(boot: EngineBoot, host: BuiltinPort) {
    this.#self = { nodeid: boot.nodeid, incarnation: boot.incarnation };
    this.#host = host;
    this.#nowMs = boot.nowMs;
    this.#timeoutMs = boot.timeoutMs;
    this.groups = new Groups(this.#self, {
      push: (message) => this.ordering.sender.push(message),
      full: () => this.ordering.sender.full,
      event: (event) => host.event(event),
      protest: (nodeid, message) => host.protest(nodeid, message),
    });
    this.ordering = new Ordering(this.#self, stuckShare * boot.timeoutMs, {
      datagram: (to, message) => host.datagram(to, message),
      deliver: (origin, body) => this.groups.deliver(origin, body),
      entered: (view) => this.#entered(view),
      mayOrder: () => this.mayOrder(this.#nowMs),
      synced: () => this.groups.synced,
      flushed: (view, answer) => this.membership.flushed(view, answer, this.#nowMs),
      stuck: (nodeid) => this.membership.shun(nodeid, "does not receive ordered messages", this.#nowMs),
      lost: (reason) => {
        this.#lost ??= reason;
      },
      protest: (nodeid, message) => host.protest(nodeid, message),
    });
    this.membership = new Membership(boot, {
      ...host,
      stop: () => this.#stop(),
      install: (view) => this.#install(view),
      orderState: () => this.ordering.state(),
      flush: (flush, nowMs) => this.ordering.flush(flush, nowMs),
    });
  }

  // ------------------------------------------------------------------------------------------------- the node's side

  get peers(): ReadonlyMap<number, EnginePeer> {
    return this.membership.peers;
  }

  get leaseEndMs(): number {
    return this.#leaseEndMs;
  }

  get leaving(): boolean {
    return this.membership.leaving;
  }

  get stable(): boolean {
    return this.membership.stored;
  }

  get broken(): boolean {
    return this.membership.broken;
  }

  get quorum(): { readonly quorate: boolean; readonly reason: string } {
    const { basis, electorate, view } = this.membership;
    const counted = view?.quorum ?? quorumOf(basis, [], false, electorate);
    const members = (view?.members ?? []).map(({ nodeid }) => nodeid);
    return { quorate: counted.quorate, reason: quorumReason(counted.quorate ? { ...counted, electorate } : counted, members) };
  }

  get othersAreQuorate(): boolean {
    return this.membership.othersAreQuorate;
  }

  get counting(): readonly number[] | null {
    const { view, electorate } = this.membership;
    // Without quorum a member may know better than this node.
    const known = view === null || view.quorum.quorate ? electorate : view.quorum.electorate;
    return known === null ? null : decidingNodes(known);
  }

  get promisedEpoch(): number {
    return this.membership.promisedEpoch;
  }

  get figures(): EngineFigures {
    const { stopped, sequencerNodeid, sender, received, delivered, kept } = this.ordering;
    const { underWay, waiting, full } = sender;
    const groups = this.groups.table().map(({ group }) => group);
    return { stopped, sequencerNodeid, underWay, window: sendWindow, waiting, full, received, delivered, kept, groups };
  }

  settledView(nowMs: number): View | null {
    return this.membership.settledView(nowMs);
  }

  rebuildView(why: string): void {
    if (this.membership.broken) return;
    this.membership.setBroken();
    this.#host.log("warn", "the view is rebuilt", { view: viewName(this.membership.view?.id ?? noView), why });
  }

  distrust(nodeid: number): boolean {
    return this.membership.distrust(nodeid, this.#nowMs);
  }

  bar(nodeids: readonly number[]): void {
    this.membership.bar(nodeids, this.#nowMs);
  }

  setServing(serving: boolean): void {
    this.membership.setRunning(serving);
  }

  linkUp(nodeid: number, incarnation: string): boolean {
    return this.membership.linkUp(nodeid, incarnation);
  }

  linkDown(nodeid: number, incarnation: string): boolean {
    if (this.membership.peers.get(nodeid)?.link !== incarnation) return false;
    this.membership.linkDown(nodeid);
    return true;
  }

  linkRefused(nodeid: number, reason: string): void {
    const peer = this.membership.peers.get(nodeid);
    if (peer !== undefined) peer.refused = { reason, atMs: this.#nowMs };
  }

  configure(configuration: NodeConfiguration): void {
    this.membership.configure(configuration, this.#nowMs);
  }

  countAll(): boolean {
    return this.membership.countAll();
  }

  proved(): void {
    this.membership.proved();
  }

  announceLeave(): void {
    this.membership.announceLeave(this.#nowMs);
  }

  leave(): void {
    this.membership.leave(this.#nowMs);
  }

  // ---------------------------------------------------------------------------------------------------------- events

  /** Before anything else in a step. */
  begin(nowMs: number): void {
    const gapMs = nowMs - this.#nowMs;
    if (gapMs > this.#timeoutMs / 2) this.membership.stoodStill(gapMs, nowMs);
    this.#nowMs = nowMs;
    this.membership.progress++;
  }

  datagram(message: Exclude<Datagram, Heartbeat>): void {
    switch (message.kind) {
      case "submit":
      case "ordered":
      case "nack":
      case "ask":
      case "order-status":
        return this.ordering.receive(message, this.#nowMs);
      default:
        this.#leaseChanged = true;
        return this.membership.receive(message, this.#nowMs);
    }
  }

  heartbeat(beat: HeardBeat): void {
    this.#leaseChanged = true;
    this.membership.heartbeat(beat, this.#nowMs);
  }

  persisted(promisedEpoch: number): void {
    this.membership.persisted(promisedEpoch, this.#nowMs);
  }

  /** Its state waits for the disk, and that is behind it. */
  acksStopped(): void {}

  tick(): void {
    this.#leaseChanged = true;
    this.membership.tick(this.#nowMs);
  }

  command(command: EngineCommand): CommandResult {
    const result = this.groups.command(command);
    if (result === "full") this.#wasFull = true;
    return result;
  }

  /** After everything else in a step. */
  end(): void {
    if (this.#leaseChanged) this.#leaseEndMs = this.membership.leaseEndMs();
    this.#leaseChanged = false;
    this.ordering.advance(this.#nowMs);
    if (this.#wasFull && this.ordering.sender.roomy) {
      this.#wasFull = false;
      this.#host.event({ kind: "room" });
    }
    this.membership.tell();
    if (this.#lost !== null) this.#host.evicted(this.#lost);
  }

  nextDeadline(): number {
    const { view, nextTickMs } = this.membership;
    const opening = this.#blocked || view === null || this.#nowMs >= view.serveFromMs ? Number.POSITIVE_INFINITY : view.serveFromMs;
    return Math.min(nextTickMs, this.ordering.deadline(), opening);
  }

  // ----------------------------------------------------------------------------------------------------------- views

  /** As the lock service: not before nodes outside can have stopped, and only while a quorum acknowledges this one (hazard C4). */
  mayOrder(nowMs: number): boolean {
    const view = this.membership.view;
    return view !== null && nowMs >= view.serveFromMs && nowMs < this.#leaseEndMs && !this.membership.leaving;
  }

  #stop(): void {
    this.ordering.stop();
    if (!this.#blocked) this.#host.event({ kind: "blocked" });
    this.#blocked = true;
    this.#host.stop();
  }

  #install(view: InstalledView): void {
    const { id, members, quorum, start } = view;
    this.#leaseEndMs = this.membership.leaseEndMs();
    if (start === null) {
      this.#host.event({ kind: "view", view: { id, members, quorum, together: [] } });
    } else {
      this.#blocked = false;
      this.ordering.install({ id, members, quorum, start }, this.#nowMs);
    }
    this.#host.install(view);
  }

  #entered(view: StartedView): ReturnType<Groups["enterView"]> {
    const { id, members, quorum, start } = view;
    this.#host.event({ kind: "view", view: { id, members, quorum, together: start.together.map((member) => member.nodeid) } });
    return this.groups.enterView(view);
  }
}
