/**
 * The view that this node is in, and its packets: what is ordered, delivered and sent in it, whether it may be, and the lease. Nothing of it goes
 * on while a round runs.
 */
import type { EngineBoot } from "../boot.ts";
import { Groups } from "../builtin/groups.ts";
import { Sender } from "../builtin/sender.ts";
import type { EnginePeer, View } from "../engine.ts";
import { type LeaseBasis, leaseEndByAll, leaseWaitShare } from "../../membership/lease.ts";
import { leaseGrounds, type QuorumBasis } from "../../membership/quorum.ts";
import { type Lineage, type Member, noLineage, noView, sameView, type ViewId } from "../../wire/view-id.ts";
import type { CorosyncPort } from "./corosync-api.ts";
import type { PacketMessage } from "./message.ts";
import type { Decision } from "./round.ts";

export interface Current {
  readonly view: View;
  /** Over what corosync and cluster.yaml do not agree; null: nothing. */
  readonly objection: string | null;
}

/** What a packet does to the view. */
export type PacketEnd = "delivered" | "dropped" | "missing";

export class ViewStream {
  readonly sender: Sender = new Sender();
  readonly groups: Groups;
  readonly #boot: EngineBoot;
  readonly #self: Member;
  readonly #host: CorosyncPort;
  readonly #basis: QuorumBasis;
  #current: Current | null = null;
  /** A round runs. */
  #stopped = true;
  #blocked = true;
  #lived: ViewId = noView;
  #seen: Lineage;
  #packets = 0;
  #digest = 0;
  readonly #lastN: Map<number, number> = new Map();
  #lease: { current: Current; basis: LeaseBasis } | null = null;
  #leaseEndMs = Number.NEGATIVE_INFINITY;

  constructor(boot: EngineBoot, basis: QuorumBasis, host: CorosyncPort) {
    this.#boot = boot;
    this.#self = { nodeid: boot.nodeid, incarnation: boot.incarnation };
    this.#host = host;
    this.#basis = basis;
    this.#seen = boot.lineage ?? noLineage;
    this.groups = new Groups(this.#self, {
      push: (message) => this.sender.push(message),
      full: () => this.sender.full,
      event: (event) => host.event(event),
      protest: (nodeid, message) => host.protest(nodeid, message),
    });
  }

  get current(): Current | null {
    return this.#current;
  }
  get stopped(): boolean {
    return this.#stopped;
  }
  get blocked(): boolean {
    return this.#blocked;
  }
  /** The last quorate view of this life; noView: it holds no state. */
  get lived(): ViewId {
    return this.#lived;
  }
  /** The last quorate view of any of its lives. */
  get seen(): Lineage {
    return this.#seen;
  }
  /** How many packets came in this view. */
  get packets(): number {
    return this.#packets;
  }
  /** Which they were. */
  get digest(): number {
    return this.#digest;
  }
  get leaseEndMs(): number {
    return this.#leaseEndMs;
  }

  /** False: it had stopped already. */
  stop(): boolean {
    if (this.#stopped) return false;
    this.#stopped = true;
    if (!this.#blocked) this.#host.event({ kind: "blocked" });
    this.#blocked = true;
    this.#host.stop();
    return true;
  }

  /** `persist` stores what a restart must know of a quorate view. */
  install({ id, members, quorum, together, waitMs, objection }: Decision, nowMs: number, persist: () => void): View {
    const view: View = { id, members, quorum, installedMs: nowMs, serveFromMs: nowMs + waitMs };
    this.#current = { view, objection };
    this.#stopped = false;
    if (quorum.quorate) this.#enter(view, together, persist);
    else this.#host.event({ kind: "view", view: { id, members, quorum, together: [] } });
    return view;
  }

  #enter({ id, members, quorum }: View, together: Decision["together"], persist: () => void): void {
    const previous = this.#lived;
    this.#lived = id;
    this.#seen = { id, members, electorate: null };
    persist();
    this.#packets = 0;
    this.#digest = 0;
    this.#lastN.clear();
    this.#blocked = false;
    this.sender.restart(0, (message) => message.kind !== "groups");
    this.#host.event({ kind: "view", view: { id, members, quorum, together: together.map(({ nodeid }) => nodeid) } });
    const table = this.groups.enterView({ id, members, quorum, start: { previous, cut: 0, together, lasts: [] } });
    if (table !== null) this.sender.pushFirst(table);
  }

  receivePacket(nodeid: number, { view, n, body }: PacketMessage): PacketEnd {
    // One of another view comes again in the next: its sender sees this copy, and that it did not count.
    if (this.#blocked || this.#stopped || !sameView(view, this.#lived)) return "dropped";
    const origin = this.#current?.view.members.find((member) => member.nodeid === nodeid);
    if (origin === undefined) return "dropped";
    const last = this.#lastN.get(nodeid) ?? 0;
    if (n !== last + 1) {
      this.#host.protest(nodeid, `packet ${n} after ${last}`);
      return "missing";
    }
    this.#lastN.set(nodeid, n);
    this.#packets++;
    this.#digest = (Math.imul(this.#digest ^ nodeid, 0x01000193) + n) >>> 0;
    if (nodeid === this.#self.nodeid) this.sender.came(n);
    this.groups.deliver(origin, body);
    return "delivered";
  }

  /** As the lock service: not before nodes outside can have stopped, and only while a quorum acknowledges this one (hazard C4). */
  mayOrder(nowMs: number): boolean {
    const view = this.#current?.view;
    if (view === undefined || this.#blocked || this.#stopped) return false;
    return nowMs >= view.serveFromMs && nowMs < this.#leaseEndMs;
  }

  /** What may be sent now, each with `say`. */
  send(say: (packet: PacketMessage) => void): void {
    if (!this.groups.synced) return;
    for (let packet = this.sender.pack(); packet !== null; packet = this.sender.pack())
      say({ kind: "packet", view: this.#lived, n: packet.n, body: packet.body });
  }

  /** When an order may begin that may not yet; infinity: it waits for no time. */
  opensMs(nowMs: number): number {
    const view = this.#current?.view;
    return this.#blocked || view === undefined || nowMs >= view.serveFromMs ? Number.POSITIVE_INFINITY : view.serveFromMs;
  }

  settled(nowMs: number): View | null {
    const view = this.#current?.view;
    if (view === undefined || this.#stopped || !view.quorum.quorate) return null;
    return nowMs - view.installedMs < leaseWaitShare * this.#boot.timeoutMs ? null : view;
  }

  reckonLease(peers: ReadonlyMap<number, EnginePeer & { readonly ackedMs: number }>): void {
    const current = this.#current;
    this.#leaseEndMs = current === null || this.#stopped ? Number.NEGATIVE_INFINITY : this.#leaseEnd(current, peers);
  }

  #leaseEnd(current: Current, peers: ReadonlyMap<number, { readonly ackedMs: number }>): number {
    const acked = new Map<number, number>();
    for (const { nodeid } of current.view.members) {
      const peer = peers.get(nodeid);
      if (peer !== undefined) acked.set(nodeid, peer.ackedMs);
    }
    return leaseEndByAll(this.leaseBasis(current).grounds, this.#self.nodeid, acked, this.#boot.timeoutMs);
  }

  /** The same object as long as the view is the same. */
  leaseBasis(current: Current): LeaseBasis {
    if (this.#lease?.current === current) return this.#lease.basis;
    const { members, quorum } = current.view;
    const basis = { members, grounds: leaseGrounds(this.#basis, members, quorum, null) };
    this.#lease = { current, basis };
    return basis;
  }
}
