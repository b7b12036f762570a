/** A cluster of builtin engines in one process under one seed: agenda, network, and what goes wrong. The checks: checker.ts. */
import type { EngineEvent } from "../../../dlmd/engine/engine.ts";
import type { InstalledView } from "../../../dlmd/membership/agreement.ts";
import { plainQuorum } from "../../../dlmd/membership/quorum.ts";
import type { QuorumOptions } from "../../../dlmd/engine/boot.ts";
import type { NodeConfig } from "../../../dlmd/config/votes.ts";
import { type Datagram, decodeDatagram, encodeDatagram, largestHeartbeatBytes } from "../../../dlmd/wire/datagram.ts";
import type { Weather } from "../network.ts";
import { Agenda, Random } from "../random.ts";
import { EngineChecker } from "./checker.ts";
import { EngineSimNode } from "./sim-node.ts";

const kept = Number(process.env["KEPT"] ?? 300);

export class EngineSimFailure extends Error {
  override readonly name = "EngineSimFailure";
}

export interface EngineSimOptions {
  readonly seed: number;
  readonly nodes: number;
  readonly timeoutMs?: number;
  readonly quorum?: QuorumOptions;
  readonly votes?: readonly number[];
  /** False: messages are not those that checker.ts knows. */
  readonly checked?: boolean;
  /** Two sides of a partition are meant to serve at one time. */
  readonly twoQuorums?: boolean;
  /** Heartbeats are not lost, so that all hear each other from the same moment on. */
  readonly steady?: boolean;
  /** Hears what each node is told, for programs of another simulation. */
  readonly hears?: (node: EngineSimNode, event: EngineEvent) => void;
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
  /** These never arrive. */
  lost: (message: Datagram, from: number, to: number) => boolean = () => false;
  steps = 0;
  datagrams = 0;
  #nowMs = 0;
  #stepsNow = 0;
  readonly #checked: boolean;
  readonly #steady: boolean;
  readonly #twoQuorums: boolean;
  readonly #hears: ((node: EngineSimNode, event: EngineEvent) => void) | undefined;
  // Put into words only when they are wanted.
  readonly #trace: (() => string)[] = [];

  constructor(options: EngineSimOptions) {
    const { seed, nodes, timeoutMs = 300, quorum = plainQuorum, votes, checked = true, steady = false } = options;
    this.random = new Random(seed);
    this.timeoutMs = timeoutMs;
    this.quorum = quorum;
    this.configs = Array.from({ length: nodes }, (_, i) => ({
      nodeid: i + 1,
      name: `node${i + 1}`,
      address: "",
      votes: votes?.[i] ?? 1,
    }));
    this.#checked = checked;
    this.#steady = steady;
    this.#twoQuorums = options.twoQuorums ?? false;
    this.#hears = options.hears;
    this.checker = new EngineChecker(this, 4);
    this.nodes = this.configs.map(({ nodeid }) => new EngineSimNode(this, nodeid));
  }

  node(nodeid: number): EngineSimNode {
    return this.nodes[nodeid - 1] as EngineSimNode;
  }

  send(from: EngineSimNode, to: number | "all" | readonly number[], message: Datagram): void {
    const bytes = encodeDatagram(message);
    if (bytes.byteLength > largestHeartbeatBytes) this.fail(`${message.kind} of ${bytes.byteLength} bytes`);
    const { random, agenda, weather } = this;
    if (message.kind !== "heartbeat") this.traceMessage(from.nodeid, to, message);
    for (const node of this.nodes) {
      if (node === from || (typeof to === "number" && node.nodeid !== to)) continue;
      if (typeof to === "object" && !to.includes(node.nodeid)) continue;
      this.datagrams++;
      if (this.lost(message, from.nodeid, node.nodeid)) continue;
      for (let copies = random.chance(weather.duplicate) ? 2 : 1; copies > 0; copies--) {
        if (!(this.#steady && message.kind === "heartbeat") && random.chance(weather.loss)) continue;
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
  installed(node: EngineSimNode, view: InstalledView): void {
    this.checker.installed(node, view);
  }
  told(node: EngineSimNode, event: EngineEvent): void {
    if (this.#checked) this.checker.told(node, event);
    this.#hears?.(node, event);
  }
  stepped(): void {
    this.steps++;
    this.#stepsNow = this.agenda.nowMs === this.#nowMs ? this.#stepsNow + 1 : 0;
    this.#nowMs = this.agenda.nowMs;
    if (this.#stepsNow > 20_000) this.fail("a node asks to be woken at once again and again");
    if (!this.#twoQuorums) this.checker.stepped();
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
    while (this.agenda.nowMs < endMs) {
      if (condition()) return true;
      // Looked at once for each moment, not for each step.
      const atMs = this.agenda.nowMs;
      while (this.agenda.nowMs < atMs + 0.1 && this.agenda.step());
    }
    return condition();
  }

  run(ms: number): void {
    const endMs = this.agenda.nowMs + ms;
    while (this.agenda.nowMs < endMs && this.agenda.step());
  }

  // ---------------------------------------------------------------------------------------------------------- trace

  trace(text: string): void {
    this.#note(() => text);
  }

  #note(text: () => string): void {
    const atMs = this.agenda.nowMs;
    this.#trace.push(() => `${atMs.toFixed(2)} ${text()}`);
    if (this.#trace.length > 2 * kept) this.#trace.splice(0, kept + 1);
  }

  traceMessage(from: number, to: unknown, message: Datagram): void {
    const show = (key: string, value: unknown): unknown => {
      if (key === "incarnation" || key === "from") return undefined;
      return key === "body" ? (value as Uint8Array).byteLength : value;
    };
    this.#note(() => `${from} -> ${String(to)} ${JSON.stringify(message, show).slice(0, 400)}`);
  }

  lastEvents(): string {
    return this.#trace
      .slice(-kept)
      .map((text) => text())
      .join("\n");
  }
}
