/** A cluster of builtin engines in one process under one seed: agenda, network, and what goes wrong. The checks: checker.ts. */
import type { EngineEvent } from "../../../dlmd/engine/engine.ts";
import type { View } from "../../../dlmd/membership/membership.ts";
import { plainQuorum, type QuorumOptions } from "../../../dlmd/membership/quorum.ts";
import type { NodeConfig } from "../../../dlmd/node-api.ts";
import { type Datagram, decodeDatagram, encodeDatagram } from "../../../dlmd/wire/datagram.ts";
import type { Weather } from "../network.ts";
import { Agenda, Random } from "../random.ts";
import { EngineChecker, EngineSimFailure } from "./checker.ts";
import { EngineSimNode } from "./sim-node.ts";

/** With every header around it, what an Ethernet frame carries. */
const largestBytes = 1420;
const kept = Number(process.env["KEPT"] ?? 300);

export interface EngineSimOptions {
  readonly seed: number;
  readonly nodes: number;
  readonly timeoutMs?: number;
  readonly quorum?: QuorumOptions;
  readonly votes?: readonly number[];
}

export class EngineSim {
  readonly agenda: Agenda = new Agenda();
  readonly random: Random;
  readonly timeoutMs: number;
  readonly quorum: QuorumOptions;
  readonly configs: readonly NodeConfig[];
  readonly nodes: readonly EngineSimNode[];
  readonly checker: EngineChecker;
  weather: Weather = { loss: 0, duplicate: 0, late: 0, maxDelayMs: 30 };
  /** Directed: "a>b". */
  readonly cut: Set<string> = new Set();
  steps = 0;
  datagrams = 0;
  readonly #trace: string[] = [];

  constructor({ seed, nodes, timeoutMs = 300, quorum = plainQuorum, votes }: EngineSimOptions) {
    this.random = new Random(seed);
    this.timeoutMs = timeoutMs;
    this.quorum = quorum;
    this.configs = Array.from({ length: nodes }, (_, i) => ({
      nodeid: i + 1,
      name: `node${i + 1}`,
      address: "",
      votes: votes?.[i] ?? 1,
    }));
    this.checker = new EngineChecker(this);
    this.nodes = this.configs.map(({ nodeid }) => new EngineSimNode(this, nodeid));
  }

  node(nodeid: number): EngineSimNode {
    return this.nodes[nodeid - 1] as EngineSimNode;
  }

  send(from: EngineSimNode, to: number | "all" | readonly number[], message: Datagram): void {
    const bytes = encodeDatagram(message);
    const small = message.kind === "submit" || message.kind === "ordered" || message.kind === "heartbeat";
    if (small && bytes.byteLength > largestBytes) this.fail(`${message.kind} of ${bytes.byteLength} bytes`);
    const { random, agenda, weather } = this;
    if (message.kind !== "heartbeat") this.traceMessage(from.nodeid, to, message);
    for (const node of this.nodes) {
      if (node === from || (typeof to === "number" && node.nodeid !== to)) continue;
      if (typeof to === "object" && !to.includes(node.nodeid)) continue;
      this.datagrams++;
      for (let copies = random.chance(weather.duplicate) ? 2 : 1; copies > 0; copies--) {
        if (random.chance(weather.loss)) continue;
        const delayMs = random.chance(weather.late) ? random.between(0, weather.maxDelayMs) : random.between(0.02, 0.2);
        agenda.at(agenda.nowMs + delayMs, () => {
          if (!this.cut.has(`${from.nodeid}>${node.nodeid}`)) node.arrive(decodeDatagram(bytes));
        });
      }
    }
  }

  // ----------------------------------------------------------------------------------------------- what nodes tell

  started(node: EngineSimNode): void {
    this.checker.started(node);
  }
  installed(node: EngineSimNode, view: View): void {
    this.checker.installed(node, view);
  }
  told(node: EngineSimNode, event: EngineEvent): void {
    this.checker.told(node, event);
  }
  stepped(): void {
    this.steps++;
    this.checker.stepped();
  }

  fail(message: string): never {
    throw new EngineSimFailure(message);
  }

  // --------------------------------------------------------------------------------------------------------- faults

  /** Who is in different groups does not hear each other; who is in none hears nobody. */
  partition(groups: readonly (readonly number[])[]): void {
    this.cut.clear();
    const groupOf = (nodeid: number): number => groups.findIndex((group) => group.includes(nodeid));
    for (const a of this.nodes) {
      for (const b of this.nodes) {
        if (a !== b && (groupOf(a.nodeid) !== groupOf(b.nodeid) || groupOf(a.nodeid) < 0)) this.cut.add(`${a.nodeid}>${b.nodeid}`);
      }
    }
  }

  heal(): void {
    this.cut.clear();
  }

  /** Runs until the condition holds; false: it did not within that time. */
  runUntil(condition: () => boolean, limitMs: number): boolean {
    const endMs = this.agenda.nowMs + limitMs;
    while (!condition()) {
      if (this.agenda.nowMs >= endMs || !this.agenda.step()) return condition();
    }
    return true;
  }

  run(ms: number): void {
    const endMs = this.agenda.nowMs + ms;
    while (this.agenda.nowMs < endMs && this.agenda.step());
  }

  // ---------------------------------------------------------------------------------------------------------- trace

  trace(text: string): void {
    this.#trace.push(`${this.agenda.nowMs.toFixed(2)} ${text}`);
    if (this.#trace.length > 2 * kept) this.#trace.splice(0, kept);
  }

  traceMessage(from: number, to: unknown, message: Datagram): void {
    if (kept === 0) return;
    const text = JSON.stringify(message, (key, value) => {
      if (key === "incarnation" || key === "from") return;
      return key === "body" ? (value as Uint8Array).byteLength : value;
    });
    this.trace(`${from} -> ${String(to)} ${text.slice(0, 400)}`);
  }

  lastEvents(): string {
    return this.#trace.slice(-kept).join("\n");
  }
}
