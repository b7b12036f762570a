/** A whole cluster of node cores in one process under one script: what is done to it is drawn from a seed (trouble.ts) or was kept (deed.ts). */
import type { Effect, NodeConfig, NodeEvent } from "../../dlmd/node-api.ts";
import { readSequence, sequenceBytes } from "../../dlmd/wire/local-group.ts";
import { hasMember } from "../../dlmd/wire/view-id.ts";
import { Checker, SimFailure } from "./checker.ts";
import { SimNode } from "./cluster-node.ts";
import { type Deed, type Script, type TimedDeed, wordsOf } from "./deed.ts";
import { EngineChecker } from "./engine/checker.ts";
import { type FaultOptions, noFaultOptions } from "./faults.ts";
import { SightChecker } from "./inspect-checker.ts";
import { Network } from "./network.ts";
import { PlockChecker } from "./plock-checker.ts";
import { Agenda, type Random, Streams } from "./random.ts";
import { scriptOf, Trouble } from "./trouble.ts";

export const timeoutMs = 300;
const kept = Number(process.env["KEPT"] ?? 200);

export interface ClusterOptions {
  readonly seed: number;
  /** 0: as the seed says. */
  readonly nodes?: number;
  readonly faults?: FaultOptions;
}

export class Cluster {
  readonly agenda: Agenda = new Agenda();
  readonly script: Script;
  readonly streams: Streams;
  readonly configs: readonly NodeConfig[];
  readonly network: Network;
  readonly checker: Checker;
  readonly plockChecker: PlockChecker;
  readonly groupChecker: EngineChecker;
  readonly sightChecker: SightChecker;
  readonly nodes: readonly SimNode[];
  readonly resources: readonly string[];
  /** Some clients keep what they have until they have all that they want. */
  readonly transactions: boolean;
  /** What was done so far. */
  readonly done: TimedDeed[] = [];
  steps = 0;
  evictions = 0;
  /** Resources that went to another master. */
  moves = 0;
  /** No new trouble and no new requests. */
  quiet = false;
  quietMs: number = Number.POSITIVE_INFINITY;
  readonly #timer: Random;
  // Put into words only when they are wanted.
  readonly #trace: [number, string, unknown][] = [];

  /** A script without deeds is one whose deeds are drawn. */
  constructor(script: Script, faults: FaultOptions = noFaultOptions) {
    this.script = script;
    this.streams = new Streams(script.seed);
    this.#timer = this.streams.of("timer");
    this.configs = Array.from({ length: script.nodes }, (_, i) => ({ nodeid: i + 1, name: `node${i + 1}`, address: "", votes: 1 }));
    this.transactions = script.transactions;
    this.resources = Array.from({ length: script.resources }, (_, i) => `r${i}`);
    this.network = new Network(this);
    this.network.weather = { ...script.weather };
    this.checker = new Checker(this);
    this.plockChecker = new PlockChecker((granting, other) => this.#inOneView(granting, other));
    this.groupChecker = new EngineChecker(this, sequenceBytes, (data) => readSequence(data).count);
    this.sightChecker = new SightChecker(this);
    this.nodes = this.configs.map(({ nodeid }) => new SimNode(this, nodeid));
    this.#every(20, () => this.network.connectAll());
    if (script.deeds.length > 0) for (const timed of script.deeds) this.#at(timed);
    else this.#drawFrom(new Trouble(script, faults));
  }

  static drawn({ seed, nodes = 0, faults = noFaultOptions }: ClusterOptions): Cluster {
    return new Cluster(scriptOf(seed, nodes, faults), faults);
  }

  fail(message: string): never {
    throw new SimFailure(message);
  }

  // ------------------------------------------------------------------------------------------------------------ deeds

  #at(timed: TimedDeed): void {
    this.agenda.at(timed.atMs, () => this.#do(timed));
  }

  #drawFrom(trouble: Trouble): void {
    const timed = trouble.next();
    this.agenda.at(timed.atMs, () => {
      this.#do(timed);
      if (!this.quiet) this.#drawFrom(trouble);
    });
  }

  #do(timed: TimedDeed): void {
    if (this.quiet) return;
    this.done.push(timed);
    if (timed.deed.kind !== "act") this.trace(`-- ${wordsOf(timed.deed)}`);
    this.#perform(timed.deed);
  }

  #perform(deed: Deed): void {
    switch (deed.kind) {
      case "start":
        return this.#node(deed.node)?.start();
      case "crash":
        return this.#node(deed.node)?.crash();
      case "leave":
        return this.#node(deed.node)?.leave();
      case "pause":
      case "busy":
        return this.#node(deed.node)?.standStill(deed.kind, deed.ms);
      case "act":
        return this.#node(deed.node)?.clientAt(deed.client)?.act(this.resources, deed.seed);
      case "client-death": {
        const node = this.#node(deed.node);
        const client = node?.clientAt(deed.client);
        if (client !== undefined) node?.killClient(client);
        if (node?.alive === true) node.addClient();
        return;
      }
      case "cut":
        for (const link of deed.links) this.network.cut.add(link);
        return;
      case "break":
        for (const link of deed.links) {
          const [a, b] = link.split(">").map((nodeid) => this.#node(Number(nodeid)));
          if (a !== undefined && b !== undefined) this.network.break(a, b);
        }
        return;
      case "heal":
        this.network.cut.clear();
    }
  }

  #node(nodeid: number): SimNode | undefined {
    return this.nodes[nodeid - 1];
  }

  // ------------------------------------------------------------------------------------------------------------- runs

  #every(ms: number, run: () => void): void {
    const again = (): void => {
      run();
      this.agenda.at(this.agenda.nowMs + this.#timer.between(0.5, 1.5) * ms, again);
    };
    this.agenda.at(ms, again);
  }

  /** That many steps of trouble, or until the script is quiet; then heals everything and runs until nothing moves. Throws SimFailure. */
  run(steps: number): void {
    while (this.steps < steps && this.agenda.nowMs < this.script.quietMs && this.agenda.step());
    this.quiet = true;
    this.quietMs = this.agenda.nowMs;
    this.network.cut.clear();
    this.trace("quiet");
    this.network.weather = { loss: 0, duplicate: 0, late: 0, maxDelayMs: 1 };
    for (const node of this.nodes) node.start();
    this.#every(100, () => {
      for (const node of this.nodes) [...node.clients.values()][0]?.purge(node.nodeid);
      for (const node of this.nodes) for (const client of node.clients.values()) client.finish();
    });
    this.#until(this.agenda.nowMs + timeoutMs * 30);
    this.checker.atRest();
    this.#plocksAtRest();
    this.groupChecker.atRest();
    for (const node of this.nodes) for (const client of node.clients.values()) client.atRest();
    this.sightChecker.ask();
    this.#until(this.agenda.nowMs + timeoutMs);
    this.sightChecker.atRest();
  }

  #until(untilMs: number): void {
    while (this.agenda.nowMs < untilMs && this.agenda.step());
  }

  #inOneView(granting: number, other: number): boolean {
    const incarnation = this.nodes.find(({ nodeid }) => nodeid === other)?.incarnation ?? "";
    const members = this.nodes.find(({ nodeid }) => nodeid === granting)?.core.membership.view?.members ?? [];
    return hasMember(members, other, incarnation);
  }

  #plocksAtRest(): void {
    this.plockChecker.atRest(this.nodes.map(({ nodeid, core }) => ({ nodeid, service: core.plocks })));
    for (const { nodeid, core, clients } of this.nodes) {
      for (const { id, plocks } of clients.values()) {
        for (const { request, owner } of plocks.asked.values()) {
          const waits = core.plocks.home.waits(owner).length > 0 && request.wait;
          if (!waits) this.plockChecker.fail(`node ${nodeid}, client ${id}: never answered: ${plocks.describe().join("; ")}`);
        }
      }
    }
  }

  // ------------------------------------------------------------------------------------------------------------ traces

  trace(text: string, value?: unknown): void {
    this.#trace.push([this.agenda.nowMs, text, value]);
    if (this.#trace.length > kept * 2) this.#trace.splice(0, kept);
  }

  traceEvent(node: SimNode, event: NodeEvent): void {
    if (event.kind === "tick" || event.kind === "heartbeat") return;
    this.trace(`${node.nodeid} <-`, event);
  }

  traceEffect(node: SimNode, effect: Effect): void {
    if (effect.kind === "beat") return;
    this.trace(`${node.nodeid} ->`, effect);
  }

  lastEvents(): string {
    const last = this.#trace.slice(-kept);
    return last.map(([ms, text, value]) => `${ms.toFixed(2)} ${text}${value === undefined ? "" : ` ${show(value)}`}`).join("\n");
  }
}

function show(value: unknown): string {
  const text = JSON.stringify(value, (key, value: unknown) => {
    if (key === "incarnation") return undefined;
    if (typeof value === "bigint") return Number(value);
    return value instanceof Uint8Array ? `${value.byteLength} bytes` : value;
  });
  return text.length > 600 ? `${text.slice(0, 600)}...` : text;
}
