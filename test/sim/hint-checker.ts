/**
 * What must hold of hints between holders (dlmd/lock/hints.ts): one changes no lock, and says nothing but one blocking AST; no program hears
 * the same twice for one grant; a node sends no more of them than it was told of others. They come in order on the channel of a pair, but nothing
 * needs that: here some are lost, and others come again, up to a second later in their view.
 */
import { joinModes, Mode, modeCovers, modeNames } from "../../dlmd/lock/mode.ts";
import type { Lkb } from "../../dlmd/lock/lkb.ts";
import type { NodeEvent } from "../../dlmd/node-api.ts";
import type { HintMessage } from "../../dlmd/wire/peer-message.ts";
import { type ViewId, sameView } from "../../dlmd/wire/view-id.ts";
import type { SimClient } from "./client.ts";
import type { Cluster } from "./cluster.ts";
import type { SimNode } from "./cluster-node.ts";

interface Told {
  readonly mode: Mode;
  /** Lock service stopped since: masters tell anew. */
  readonly stops: number;
}

const laterMs = 1000;

/** Everything that a lock is, as text. */
function words({ nodeid, id, clientId, granted, requested, grantNo, bastMode, canceling, lvbSeq, waitNo }: Lkb): string {
  return [nodeid, id, clientId, granted, requested, grantNo, bastMode, canceling, lvbSeq, waitNo].join(" ");
}

export class HintChecker {
  /** Hints that programs heard of, by node and life. */
  readonly #told: Map<string, number> = new Map();
  readonly #cluster: Cluster;
  /** By program and lock. */
  readonly #heard: WeakMap<SimClient, Map<number, Told>> = new WeakMap();
  /** By node and life: blocking ASTs and hints that arrived. */
  readonly #arrived: Map<string, number> = new Map();
  readonly #stops: Map<number, number> = new Map();

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  get told(): number {
    return [...this.#told.values()].reduce((sum, told) => sum + told, 0);
  }

  locksOf({ core }: SimNode): string {
    const own = [...core.clients.all.values()].flatMap((client) => [...client.locks.values()]);
    const others = [...core.locks.tables.masteredFor.values()].flatMap((locks) => [...locks.values()]);
    return [...own, ...others].map(words).join("\n");
  }

  /** What arrives in its place: the channel counts its messages, so one that is lost comes as one that nobody understands. */
  arriving(node: SimNode, event: NodeEvent): NodeEvent {
    if (event.kind !== "peer-frame") return event;
    const { nodeid: from, view } = event;
    const messages = event.messages.map((message) => {
      if (message.kind !== "hint" && message.kind !== "bast") return message;
      this.#count(node);
      return message.kind === "bast" ? message : this.#disturbed(node, from, view, message);
    });
    return { ...event, messages };
  }

  #count({ key }: SimNode): void {
    this.#arrived.set(key, (this.#arrived.get(key) ?? 0) + 1);
  }

  #disturbed(node: SimNode, from: number, view: ViewId, hint: HintMessage): HintMessage {
    const { agenda, streams } = this.#cluster;
    const random = streams.of(`hint ${from}>${node.nodeid}`);
    const { incarnation } = node;
    if (random.chance(0.5)) {
      agenda.at(agenda.nowMs + random.between(0, laterMs), () => {
        if (node.alive && node.incarnation === incarnation) this.#comesAgain(node, from, view, hint);
      });
    }
    return random.chance(0.3) ? { ...hint, lkbId: 0 } : hint;
  }

  #comesAgain(node: SimNode, from: number, view: ViewId, hint: HintMessage): void {
    const { recovery, locks } = node.core;
    if (!recovery.serving || recovery.view === null || !sameView(recovery.view.id, view)) return;
    this.#count(node);
    const before = this.locksOf(node);
    const { told } = locks.holder.hints.counts;
    locks.receive(from, hint);
    const more = locks.holder.hints.counts.told - told;
    if (more > 1) this.#cluster.fail(`node ${node.nodeid}: a hint told ${more} programs`);
    if (this.locksOf(node) !== before)
      this.#cluster.fail(`node ${node.nodeid}: a hint changed a lock: ${before} before, ${this.locksOf(node)} after`);
    // What it said goes out with the next step.
    node.input({ kind: "tick" });
  }

  afterStep({ nodeid, key, core }: SimNode): void {
    if (!core.recovery.serving) this.#stops.set(nodeid, (this.#stops.get(nodeid) ?? 0) + 1);
    const { sent, told } = core.locks.holder.hints.counts;
    this.#told.set(key, told);
    if (sent > (this.#arrived.get(key) ?? 0)) this.#cluster.fail(`node ${nodeid} sent ${sent} hints, and was told of fewer others`);
  }

  /** What a program was told of a lock before belongs to a former grant. */
  granted(client: SimClient, lockId: number): void {
    this.#heard.get(client)?.delete(lockId);
  }

  blocked(client: SimClient, lockId: number, wanted: Mode): void {
    let heard = this.#heard.get(client);
    if (heard === undefined) {
      heard = new Map();
      this.#heard.set(client, heard);
    }
    const stops = this.#stops.get(client.node.nodeid) ?? 0;
    const before = heard.get(lockId);
    const mode = before !== undefined && before.stops === stops ? before.mode : Mode.NL;
    if (modeCovers(mode, wanted)) this.#cluster.fail(`${client.name}: lock ${lockId} was told of ${modeNames[wanted]} twice for one grant`);
    heard.set(lockId, { mode: joinModes(mode, wanted), stops });
  }
}
