/**
 * What must hold after every step, as the members of groups see it (engine/engine.ts): in a view and a group one row of messages, joins
 * and leaves, of which each member sees all while it is in; those who go together into the next view have seen the same; each
 * sender's messages in its order, each once; one view at a time in which anything is ordered.
 */
import type { BuiltinEngine } from "../../../dlmd/engine/builtin/engine-core.ts";
import type { EngineEvent } from "../../../dlmd/engine/engine.ts";
import type { GroupMember } from "../../../dlmd/wire/group.ts";
import type { InstalledView } from "../../../dlmd/membership/agreement.ts";
import { type Member, noView, type ViewId, viewName } from "../../../dlmd/wire/view-id.ts";
import { Row } from "./row.ts";

/** A node of the simulated cluster: engines alone (engine-sim.ts), or whole nodes (../cluster.ts). */
export interface CheckedNode {
  readonly nodeid: number;
  /** nodeid.incarnation */
  readonly key: string;
  readonly alive: boolean;
  readonly engine: BuiltinEngine;
  /** Until when its programs act on the locks that they hold (dlmd/membership/lease.ts). */
  readonly leaseEndMs: number;
  /** What its clock shows then, if that is another one. */
  localMs?(nowMs: number): number;
}

export interface CheckedCluster {
  readonly nodes: readonly CheckedNode[];
  readonly agenda: { readonly nowMs: number };
  fail(message: string): never;
}

/** A client in a group. */
interface Seat {
  readonly group: string;
  /** The packet of the present view with which it came; -1: it was there when the view began. */
  from: number;
  /** Whole packets seen in this view after `from`. */
  seen: number;
  packet: { seq: number; items: string[] } | null;
  /** Last message number of each sender, as "nodeid.incarnation/client". */
  readonly lastOf: Map<string, number>;
}

interface Life {
  readonly key: string;
  view: string;
  /** "group/client" */
  readonly seats: Map<string, Seat>;
  /** Messages accepted and delivered back, by "group/client". */
  readonly accepted: Map<string, number>;
  readonly returned: Map<string, number>;
}

function memberKey(member: GroupMember): string {
  return `${member.nodeid}.${member.incarnation}/${member.clientId}`;
}

export class EngineChecker {
  delivered = 0;
  views = 0;
  /** Installations in which not all nodes count (last_man_standing). */
  reduced = 0;
  readonly #sim: CheckedCluster;
  readonly #head: number;
  readonly #countOf: (data: Uint8Array) => number;
  readonly #lives: Map<CheckedNode, Life> = new Map();
  readonly #rows: Map<string, Row> = new Map();
  readonly #members: Map<string, string> = new Map();

  /**
   * `head`: bytes of a message before those that its number foretells; the first four of them are its number. `countOf`: how many numbers it has,
   * where a program says several things in one.
   */
  constructor(sim: CheckedCluster, head: number, countOf: (data: Uint8Array) => number = () => 1) {
    this.#sim = sim;
    this.#head = head;
    this.#countOf = countOf;
  }

  #life(node: CheckedNode): Life {
    return this.#lives.get(node) as Life;
  }

  #wrong(what: string | null): void {
    if (what !== null) this.#sim.fail(what);
  }

  started(node: CheckedNode): void {
    this.#lives.set(node, { key: node.key, view: "", seats: new Map(), accepted: new Map(), returned: new Map() });
  }

  accepted(node: CheckedNode, seat: string): void {
    const { accepted } = this.#life(node);
    accepted.set(seat, (accepted.get(seat) ?? 0) + 1);
  }

  installed(_node: CheckedNode, view: InstalledView): void {
    if (!view.quorum.quorate) return;
    this.views++;
    if (view.quorum.electorate !== null) this.reduced++;
    const name = viewName(view.id);
    const members = JSON.stringify([view.members, view.start]);
    if ((this.#members.get(name) ?? members) !== members) this.#sim.fail(`view ${name} is not the same everywhere`);
    this.#members.set(name, members);
  }

  told(node: CheckedNode, event: EngineEvent): void {
    switch (event.kind) {
      case "view":
        return event.view.quorum.quorate ? this.#entered(node, viewName(event.view.id), event.view.together) : undefined;
      case "members":
        return this.#changed(node, event);
      case "message":
        return this.#message(node, event);
      case "join-refused":
      case "blocked":
      case "room":
        return;
    }
  }

  #row(view: string, group: string): Row {
    const key = `${view} ${group}`;
    let row = this.#rows.get(key);
    if (row === undefined) {
      row = new Row();
      this.#rows.set(key, row);
    }
    return row;
  }

  #entered(node: CheckedNode, view: string, together: readonly number[]): void {
    const life = this.#life(node);
    const { key, seats } = life;
    if (life.view === view) this.#sim.fail(`node ${node.nodeid} enters view ${view} twice`);
    if (seats.size > 0 && !together.includes(node.nodeid)) this.#sim.fail(`node ${node.nodeid} has groups and is new in view ${view}`);
    for (const seat of seats.values()) {
      this.#settle(life, seat);
      const cut = node.engine.ordering.view?.start.cut ?? 0;
      this.#wrong(this.#row(life.view, seat.group).end(`${key} in view ${life.view}, group ${seat.group}`, seat.from, cut, seat.seen));
      seat.from = -1;
      seat.seen = 0;
    }
    life.view = view;
  }

  /** The packet is over: what was seen of it fits what others saw. */
  #settle(life: Life, seat: Seat, leaving = false): void {
    const { packet } = seat;
    if (packet === null) return;
    const whole = packet.seq > seat.from && !leaving;
    if (whole) seat.seen++;
    seat.packet = null;
    const who = `${life.key} in view ${life.view}, group ${seat.group},`;
    this.#wrong(this.#row(life.view, seat.group).see(who, { ...packet, whole }));
  }

  #seen(node: CheckedNode, seat: Seat, item: string): void {
    const seq = node.engine.ordering.delivered;
    if (seat.packet !== null && seat.packet.seq !== seq) this.#settle(this.#life(node), seat);
    seat.packet ??= { seq, items: [] };
    seat.packet.items.push(item);
  }

  #changed(node: CheckedNode, event: Extract<EngineEvent, { kind: "members" }>): void {
    const life = this.#life(node);
    const joined = event.joined.map(memberKey);
    const left = event.left.map(({ member, reason }) => `${memberKey(member)} ${reason}`);
    const item = `members ${event.members.map(memberKey).join(" ")} joined ${joined.join(" ")} left ${left.join(" ")}`;
    for (const clientId of event.to) {
      const key = `${event.group}/${clientId}`;
      const own = `${node.key}/${clientId}`;
      if (joined.includes(own)) {
        if (life.seats.has(key)) this.#sim.fail(`${own} joins ${event.group} twice`);
        const from = node.engine.ordering.delivered;
        life.seats.set(key, { group: event.group, from, seen: 0, packet: null, lastOf: new Map() });
      }
      const seat = life.seats.get(key);
      if (seat === undefined) return this.#sim.fail(`${own} is told of ${event.group} without being in it`);
      for (const { member } of event.left) seat.lastOf.delete(memberKey(member));
      this.#seen(node, seat, item);
      if (!event.left.some(({ member }) => memberKey(member) === own)) continue;
      this.#settle(life, seat, true);
      life.seats.delete(key);
    }
  }

  #message(node: CheckedNode, event: Extract<EngineEvent, { kind: "message" }>): void {
    this.delivered++;
    const life = this.#life(node);
    const n = new DataView(event.data.buffer, event.data.byteOffset).getUint32(0, true);
    for (let i = this.#head; i < event.data.byteLength; i += 97) {
      if (event.data[i] !== ((n + i) & 0xff)) this.#sim.fail(`message ${n} of ${memberKey(event.from)} is damaged at ${i}`);
    }
    const sender = memberKey(event.from);
    for (const clientId of event.to) {
      const seat = life.seats.get(`${event.group}/${clientId}`);
      if (seat === undefined) return this.#sim.fail(`${node.key}/${clientId} hears ${event.group} without being in it`);
      const last = seat.lastOf.get(sender);
      if (last !== undefined && n !== last + 1)
        this.#sim.fail(`${node.key}/${clientId} hears message ${n} of ${sender} in ${event.group} after ${last}`);
      seat.lastOf.set(sender, n + this.#countOf(event.data) - 1);
      this.#seen(node, seat, `message ${sender} ${n} ${event.data.byteLength}`);
    }
    if (event.from.nodeid !== node.nodeid) return;
    const key = `${event.group}/${event.from.clientId}`;
    life.returned.set(key, (life.returned.get(key) ?? 0) + 1);
  }

  /** Two views in which messages are ordered at one moment. */
  stepped(): void {
    let ordering: string | null = null;
    for (const node of this.#sim.nodes) {
      const { alive, engine } = node;
      const { ordering: order } = engine;
      if (!alive || order.view === null || order.stopped || !this.#mayOrder(node)) continue;
      const name = viewName(order.view.id);
      if (ordering !== null && ordering !== name) this.#sim.fail(`messages are ordered in views ${ordering} and ${name}`);
      ordering = name;
      this.#leasesAreOver(order.view.id, order.view.members);
    }
  }

  #mayOrder(node: CheckedNode): boolean {
    const { nowMs } = this.#sim.agenda;
    return node.engine.mayOrder(node.localMs?.(nowMs) ?? nowMs);
  }

  /** Nobody serves without a node whose programs still act on their locks (hazard C4). */
  #leasesAreOver(view: ViewId, members: readonly Member[]): void {
    for (const { alive, key, leaseEndMs, engine } of this.#sim.nodes) {
      if (!alive || leaseEndMs <= this.#sim.agenda.nowMs || members.some(({ nodeid, incarnation }) => key === `${nodeid}.${incarnation}`))
        continue;
      // It joined a later view, which does not serve yet: who has locks from before that is told EVICT instead.
      if ((engine.ordering.view?.id.epoch ?? 0) > view.epoch) continue;
      this.#sim.fail(
        `view ${viewName(view)} serves without ${key}, whose programs act on their locks for ${leaseEndMs - this.#sim.agenda.nowMs} ms more`,
      );
    }
  }

  /** Long after everything was healed: one view, nothing under way, everything accepted has come back. */
  atRest(): void {
    const tables = new Set<string>();
    const views = new Set<string>();
    for (const node of this.#sim.nodes) {
      const { engine } = node;
      const { sender } = engine.ordering;
      if (!node.alive || !this.#mayOrder(node)) this.#sim.fail(`node ${node.nodeid} may not order at rest`);
      if (node.leaseEndMs <= this.#sim.agenda.nowMs)
        this.#sim.fail(`the programs of node ${node.nodeid} may not act on their locks at rest`);
      if (sender.waiting > 0) this.#sim.fail(`node ${node.nodeid} has ${sender.waiting} messages that wait at rest`);
      views.add(viewName(engine.ordering.view?.id ?? noView));
      tables.add(JSON.stringify(engine.groups.table().sort((a, b) => (a.group < b.group ? -1 : 1))));
      const { accepted, returned } = this.#life(node);
      for (const [key, count] of accepted) {
        const back = returned.get(key) ?? 0;
        if (back !== count) this.#sim.fail(`${node.key}: ${count} messages of ${key} were accepted, ${back} came back`);
      }
    }
    if (views.size > 1) this.#sim.fail(`${views.size} views at rest`);
    if (tables.size > 1) this.#sim.fail(`the groups differ at rest: ${[...tables].join(" | ")}`);
  }
}
