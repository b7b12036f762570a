/** Datagrams that get lost, late, doubled and out of order, and TCP connections that break, between simulated nodes. */
import type { ConfigEvent } from "../../dlmd/config/change-event.ts";
import type { Datagram } from "../../dlmd/wire/datagram.ts";
import { decodeDatagram, encodeDatagram } from "../../dlmd/wire/datagram.ts";
import { decodeFrame, encodeFrames, type PeerMessage } from "../../dlmd/wire/peer.ts";
import type { NodeEvent } from "../../dlmd/node-api.ts";
import type { ViewId } from "../../dlmd/wire/view-id.ts";
import type { Cluster } from "./cluster.ts";
import type { SimNode } from "./cluster-node.ts";
import { ConfigPart } from "./config-part.ts";

export interface Weather {
  loss: number;
  duplicate: number;
  /** Share of datagrams that take up to maxDelayMs. */
  late: number;
  maxDelayMs: number;
  /** Clocks run by up to that share faster or slower. */
  drift?: number;
}

/** One TCP connection; sides by index: lower nodeid first. */
interface Connection {
  readonly ends: readonly [SimNode, SimNode];
  readonly incarnations: readonly [string, string];
  open: boolean;
  readonly up: [boolean, boolean];
  /** That side has come to know of it: a busy one does so late, and what it sends until then goes to the one before. */
  readonly begun: [boolean, boolean];
  /** Nothing arrives before this at that side: FIFO. */
  readonly lastArrivalMs: [number, number];
  readonly paused: [boolean, boolean];
  readonly waiting: [(() => void)[], (() => void)[]];
}

export class Network {
  weather: Weather = { loss: 0, duplicate: 0, late: 0, maxDelayMs: 50 };
  /** Directed: nothing gets from a to b. */
  readonly cut: Set<string> = new Set();
  readonly #cluster: Cluster;
  readonly #connections: Map<string, Connection> = new Map();
  readonly #beginnings: WeakMap<NodeEvent, Connection> = new WeakMap();

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  sendDatagram(from: SimNode, to: number | "all" | readonly number[], message: Datagram): void {
    const bytes = encodeDatagram(message);
    const { key } = from;
    const { streams, agenda } = this.#cluster;
    for (const node of this.#cluster.nodes) {
      if (node === from || (typeof to === "number" && node.nodeid !== to)) continue;
      if (typeof to === "object" && !to.includes(node.nodeid)) continue;
      if (!from.config.knows(node.nodeid) || !node.config.knows(from.nodeid)) continue;
      const random = streams.of(`datagram ${from.nodeid}>${node.nodeid}`);
      for (let copies = random.chance(this.weather.duplicate) ? 2 : 1; copies > 0; copies--) {
        if (random.chance(this.weather.loss)) continue;
        const delayMs = random.chance(this.weather.late) ? random.between(0, this.weather.maxDelayMs) : random.between(0.05, 1);
        agenda.at(agenda.nowMs + delayMs, () => {
          if (!this.cut.has(`${from.nodeid}>${node.nodeid}`) && node.unsealed.has(key)) node.arrive(decodeDatagram(bytes));
        });
      }
    }
  }

  #key(a: SimNode, b: SimNode): string {
    return a.nodeid < b.nodeid ? `${a.nodeid}-${b.nodeid}` : `${b.nodeid}-${a.nodeid}`;
  }

  #isCut(a: SimNode, b: SimNode): boolean {
    return this.cut.has(`${a.nodeid}>${b.nodeid}`) || this.cut.has(`${b.nodeid}>${a.nodeid}`);
  }

  /** Tries every pair that has no connection. */
  connectAll(): void {
    const { nodes, streams, agenda } = this.#cluster;
    for (const a of nodes) {
      for (const b of nodes) {
        if (a.nodeid >= b.nodeid || !a.alive || !b.alive || this.#isCut(a, b)) continue;
        const key = this.#key(a, b);
        if (this.#connections.get(key)?.open === true || this.#isRefused(a, b)) continue;
        const connection: Connection = {
          ends: [a, b],
          incarnations: [a.incarnation, b.incarnation],
          open: true,
          up: [false, false],
          begun: [false, false],
          lastArrivalMs: [0, 0],
          paused: [false, false],
          waiting: [[], []],
        };
        this.#connections.set(key, connection);
        for (const side of [0, 1] as const) {
          const atMs = agenda.nowMs + streams.of(`connect ${key} ${side}`).between(0.1, 5);
          connection.lastArrivalMs[side] = atMs;
          agenda.at(atMs, () => this.#comeUp(connection, side));
        }
      }
    }
  }

  #isRefused(a: SimNode, b: SimNode): boolean {
    const objection = ConfigPart.objection(a, b);
    if (objection === null) return false;
    if (objection !== "refused") objection.to.inputConfig(objection.event);
    return true;
  }

  #comeUp(connection: Connection, side: 0 | 1): void {
    const node = connection.ends[side];
    if (!connection.open || !node.alive || node.incarnation !== connection.incarnations[side]) return;
    connection.up[side] = true;
    const peer = side === 0 ? 1 : 0;
    node.unsealed.add(`${connection.ends[peer].nodeid}.${connection.incarnations[peer]}`);
    const event: NodeEvent = { kind: "peer-up", nodeid: connection.ends[peer].nodeid, incarnation: connection.incarnations[peer] };
    this.#beginnings.set(event, connection);
    node.input(event);
    node.inputConfig({ kind: "connected", nodeid: event.nodeid });
  }

  /** Breaks a connection: what is in flight is lost, each side learns of it at its own time. */
  break(a: SimNode, b: SimNode): void {
    const connection = this.#connections.get(this.#key(a, b));
    if (connection?.open !== true) return;
    connection.open = false;
    for (const side of [0, 1] as const) {
      const node = connection.ends[side];
      const peer = side === 0 ? 1 : 0;
      connection.waiting[side] = [];
      if (!connection.up[side] || !node.alive || node.incarnation !== connection.incarnations[side]) continue;
      node.input({ kind: "peer-down", nodeid: connection.ends[peer].nodeid, incarnation: connection.incarnations[peer], unreadable: null });
    }
  }

  breakAllOf(node: SimNode): void {
    for (const other of this.#cluster.nodes) if (other !== node) this.break(node, other);
  }

  sendFrame(from: SimNode, to: number, view: ViewId, messages: readonly PeerMessage[]): void {
    for (const bytes of encodeFrames(view, messages)) {
      const copy = bytes.slice();
      this.#send(from, to, "frame", (node) => node.input({ kind: "peer-frame", nodeid: from.nodeid, ...decodeFrame(copy) }));
    }
  }

  /** On the same connection. */
  sendConfig(from: SimNode, to: number, event: () => ConfigEvent): void {
    this.#send(from, to, "config frame", (node) => node.inputConfig(event()));
  }

  #send(from: SimNode, to: number, what: string, receive: (node: SimNode) => void): void {
    const { nodes, streams, agenda } = this.#cluster;
    const node = nodes.find((node) => node.nodeid === to) as SimNode;
    const connection = this.#connections.get(this.#key(from, node));
    if (connection?.open !== true) return;
    const side = connection.ends[0] === node ? 0 : 1;
    if (!connection.begun[side === 0 ? 1 : 0]) return;
    const random = streams.of(`${what} ${from.nodeid}>${to}`);
    const delayMs = random.chance(0.05) ? random.between(0, 20) : random.between(0.05, 0.5);
    const atMs = Math.max(connection.lastArrivalMs[side], agenda.nowMs + delayMs);
    connection.lastArrivalMs[side] = atMs;
    agenda.at(atMs, () => this.#arrive(connection, side, () => receive(node)));
  }

  #arrive(connection: Connection, side: 0 | 1, deliver: () => void): void {
    if (!connection.open) return;
    if (this.#isCut(...connection.ends)) return this.break(...connection.ends);
    if (connection.paused[side]) connection.waiting[side].push(deliver);
    else deliver();
  }

  /** That node begins with its connection: what it said of a former one, when it came to it late, is not about this one. */
  begins(node: SimNode, event: Extract<NodeEvent, { kind: "peer-up" }>): void {
    const connection = this.#beginnings.get(event);
    if (connection?.open !== true) return;
    connection.begun[connection.ends[0] === node ? 0 : 1] = true;
    this.pause(node, event.nodeid, false);
  }

  pause(node: SimNode, peer: number, paused: boolean): void {
    const other = this.#cluster.nodes.find((other) => other.nodeid === peer) as SimNode;
    const connection = this.#connections.get(this.#key(node, other));
    if (connection?.open !== true) return;
    const side = connection.ends[0] === node ? 0 : 1;
    connection.paused[side] = paused;
    while (!connection.paused[side] && connection.waiting[side].length > 0) (connection.waiting[side].shift() as () => void)();
  }
}
