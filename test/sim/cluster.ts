/** A whole cluster of node cores in one process under one script: what is done to it is drawn from a seed (trouble.ts) or was kept (deed.ts). */
import type { Effect, NodeEvent } from "../../dlmd/node-api.ts";
import { readSequence, sequenceBytes } from "../../dlmd/wire/local-group.ts";
import type { Victim } from "../../dlmd/wire/peer-message.ts";
import { hasMember, type Member } from "../../dlmd/wire/view-id.ts";
import { Checker, SimFailure } from "./checker.ts";
import type { SimClient } from "./client.ts";
import { SimNode } from "./cluster-node.ts";
import { ConfigHistory } from "./config-history.ts";
import { type Deed, quorumKinds, type Script, type TimedDeed, wordsOf } from "./deed.ts";
import { EngineChecker } from "./engine/checker.ts";
import { type FaultOptions, noFaultOptions } from "./faults.ts";
import { SightChecker } from "./inspect-checker.ts";
import { LockspaceChecker } from "./lockspace-checker.ts";
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
  /** Programs ask without wanting an answer (client.ts). */
  readonly silent: boolean;
  /** Some programs ask to be kept for an heir, and others are heirs (hazard C12). */
  readonly heirs: boolean;
  /** Programs that were kept when they died. */
  keptClients = 0;
  readonly history: ConfigHistory;
  readonly network: Network;
  readonly checker: Checker;
  readonly plockChecker: PlockChecker;
  readonly groupChecker: EngineChecker;
  readonly sightChecker: SightChecker;
  readonly lockspaceChecker: LockspaceChecker;
  readonly nodes: readonly SimNode[];
  readonly resources: readonly string[];
  /** Some clients keep what they have until they have all that they want. */
  readonly transactions: boolean;
  /** What was done so far. */
  readonly done: TimedDeed[] = [];
  steps = 0;
  evictions = 0;
  /** Nodes, as "nodeid.incarnation", that said that they leave. */
  readonly left: Set<string> = new Set();
  /** Of each node the last life that is known to be dead. */
  readonly #fenced: Map<number, number> = new Map();
  readonly #fencing: Set<string> = new Set();
  fences = 0;
  /** Both halves are quorate, and only the fence tells them apart (hazard M2). */
  readonly twoNode: boolean;
  slowDisks = 0;
  /** Nodes that stood still in the midst of what they did; backlogs that were read in another order than they came. */
  frozen = 0;
  mixed = 0;
  forged = 0;
  forgotten = 0;
  /** Quorate views with half of the votes or less: a tie-breaker or last_man_standing. */
  smallViews = 0;
  /** Programs that stood still, and those that their nodes ended for that. */
  hangs = 0;
  notEnded = 0;
  ended = 0;
  /** Resources that went to another master. */
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
    this.silent = script.seed % 4 === 3;
    this.heirs = script.seed % 6 === 1 && !this.silent;
    this.#timer = this.streams.of("timer");
    this.twoNode = quorumKinds[script.quorum]?.options.twoNode === true;
    this.history = new ConfigHistory(this, quorumKinds[script.quorum]?.options ?? {});
    this.transactions = script.transactions;
    this.resources = Array.from({ length: script.resources }, (_, i) => `r${i}`);
    this.network = new Network(this);
    this.network.weather = { ...script.weather };
    this.checker = new Checker(this);
    this.plockChecker = new PlockChecker((granting, other) => this.#inOneView(granting, other));
    this.groupChecker = new EngineChecker(this, sequenceBytes, (data) => readSequence(data).count);
    this.sightChecker = new SightChecker(this);
    this.lockspaceChecker = new LockspaceChecker(this);
    this.nodes = Array.from({ length: script.nodes }, (_, i) => new SimNode(this, i + 1));
    this.#every(20, () => this.network.connectAll());
    if (script.deeds.length > 0) for (const timed of script.deeds) this.#at(timed);
    else this.#drawFrom(new Trouble(script, faults));
  }

  static drawn({ seed, nodes = 0, faults = noFaultOptions }: ClusterOptions): Cluster {
    return new Cluster(scriptOf(seed, nodes, faults), faults);
  }

  /** A fence that is forgotten, or which nodes count (last_man_standing), is lost for good. */
  get mayForget(): boolean {
    const reduced = this.nodes.some(({ storedLineage, core }) => (storedLineage.electorate ?? core.engine.membership.electorate) !== null);
    return !this.script.fenced && !this.twoNode && !reduced;
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
      case "freeze":
        return this.#node(deed.node)?.freeze(deed.ms);
      case "starve": {
        const node = this.#node(deed.node);
        if (node !== undefined) node.starvedUntilMs = this.agenda.nowMs + deed.ms;
        return;
      }
      case "forge":
        return this.#node(deed.node)?.forge(deed.peer);
      case "act":
        return this.#node(deed.node)?.clientAt(deed.client)?.act(this.resources, deed.seed);
      case "slow-disk": {
        const node = this.#node(deed.node);
        if (node?.alive !== true) return;
        this.slowDisks++;
        node.diskUntilMs = this.agenda.nowMs + deed.ms;
        return;
      }
      case "forget":
        if (this.#node(deed.node)?.alive === true && this.mayForget) this.forgotten++;
        return this.#node(deed.node)?.forget();
      case "configure":
        return this.#node(deed.node)?.config.proposeDrawn(deed.seed);
      case "hang": {
        const node = this.#node(deed.node);
        const client = node?.clientAt(deed.client);
        if (node === undefined || client === undefined) return;
        // There are too few deaths for what heirs could meet.
        if (client.keepMs > 0) return this.#replace(node, client);
        this.hangs++;
        return client.hang(deed.ms);
      }
      case "client-death": {
        const node = this.#node(deed.node);
        const client = node?.clientAt(deed.client);
        if (node !== undefined) this.#replace(node, client);
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

  /** A program dies, and another one comes. */
  #replace(node: SimNode, client: SimClient | undefined): void {
    if (client !== undefined) node.killClient(client);
    if (node.alive) node.addClient();
  }

  /** A fence device: the victim loses its power, and then that is said to the node that waits. */
  fence(reporter: SimNode, victim: Victim): void {
    if (this.twoNode) return this.#fenceHalf(reporter, victim);
    const key = `${reporter.key} ${victim.nodeid}.${victim.incarnation}`;
    if (this.#fencing.has(key)) return;
    this.#fencing.add(key);
    this.agenda.at(this.agenda.nowMs + this.streams.of("fences").between(100, 1500), () => {
      this.#fencing.delete(key);
      const node = this.#node(victim.nodeid);
      if (node?.alive === true && node.incarnation === victim.incarnation) {
        node.crash();
        this.agenda.at(this.agenda.nowMs + 100, () => node.start());
      }
      this.#fenced.set(victim.nodeid, Math.max(lifeOf(victim.incarnation), this.#fenced.get(victim.nodeid) ?? 0));
      this.fences++;
      reporter.input({ kind: "fence-result", ...victim, by: "device" });
    });
  }

  /** An agent of one half: it ends with its node, may fail, and keeps the other node out while it runs. */
  #fenceHalf(reporter: SimNode, victim: Victim): void {
    const key = `${reporter.key} ${victim.nodeid}.${victim.incarnation}`;
    if (this.#fencing.has(key) || victim.nodeid === reporter.nodeid) return;
    this.#fencing.add(key);
    const random = this.streams.of("fences");
    const { incarnation } = reporter;
    const later = (ms: number, run: () => void): void =>
      this.agenda.at(this.agenda.nowMs + ms, () => {
        if (reporter.alive && reporter.incarnation === incarnation) run();
      });
    const [waitMs, offMs, runMs] = [random.between(1, 800), random.between(1, 300), random.between(1, 300)];
    const works = random.chance(0.8);
    later(waitMs, () => {
      const waits = reporter.core.recovery.gate.open.some((open) => open.incarnation === victim.incarnation);
      if (!waits) return void this.#fencing.delete(key);
      const node = this.#node(victim.nodeid);
      if (node?.incarnation !== victim.incarnation) {
        this.#fencing.delete(key);
        this.#fenced.set(victim.nodeid, Math.max(lifeOf(victim.incarnation), this.#fenced.get(victim.nodeid) ?? 0));
        return reporter.input({ kind: "fence-result", ...victim, by: "another boot" });
      }
      reporter.bar([victim.nodeid]);
      if (works) later(offMs, () => this.#powerOff(victim));
      later(offMs + runMs, () => {
        this.#fencing.delete(key);
        if (works) reporter.input({ kind: "fence-result", ...victim, by: "device" });
        reporter.bar([]);
      });
    });
  }

  /** In whatever life it is. */
  #powerOff({ nodeid }: Victim): void {
    const node = this.#node(nodeid);
    if (node === undefined) return;
    if (node.alive) {
      node.crash();
      this.agenda.at(this.agenda.nowMs + this.streams.of("fences").between(1, 300), () => node.start());
    }
    this.#fenced.set(nodeid, lifeOf(node.incarnation));
    this.fences++;
  }

  /** Some member was in a quorate view with that node, which did not leave and is not known to be dead. */
  isUnfenced(key: string, members: readonly Member[]): boolean {
    const [nodeid = "", incarnation = ""] = key.split(".");
    if (!(this.script.fenced || this.twoNode) || this.left.has(key) || (this.#fenced.get(Number(nodeid)) ?? 0) >= lifeOf(incarnation))
      return false;
    return members.some((member) => {
      const node = this.#node(member.nodeid);
      return node?.incarnation === member.incarnation && node.met.has(key);
    });
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
    for (const node of this.nodes) for (const client of node.clients.values()) client.hangsUntilMs = 0;
    for (const node of this.nodes) node.starvedUntilMs = 0;
    for (const node of this.nodes) node.start();
    this.#every(100, () => {
      this.#purgeAll();
      this.history.restore();
      for (const node of this.nodes) for (const client of node.clients.values()) client.finish();
    });
    this.#until(this.agenda.nowMs + timeoutMs * 30);
    if (this.history.startAnew()) this.#until(this.agenda.nowMs + timeoutMs * 30);
    this.history.atRest();
    this.checker.atRest();
    this.lockspaceChecker.atRest();
    this.#plocksAtRest();
    this.groupChecker.atRest();
    for (const node of this.nodes) for (const client of node.clients.values()) client.atRest();
    this.sightChecker.ask();
    this.#until(this.agenda.nowMs + timeoutMs);
    this.sightChecker.atRest();
  }

  /** What dead programs left behind, in each lockspace, on all nodes. */
  #purgeAll(): void {
    const clients = this.nodes.flatMap((node) => [...node.clients.values()]);
    for (const space of ["sim", "second"]) {
      const client = clients.find((one) => one.space === space);
      for (const { nodeid } of this.nodes) client?.purge(nodeid);
    }
  }

  #until(untilMs: number): void {
    while (this.agenda.nowMs < untilMs && this.agenda.step());
  }

  #inOneView(granting: number, other: number): boolean {
    const incarnation = this.nodes.find(({ nodeid }) => nodeid === other)?.incarnation ?? "";
    const members = this.nodes.find(({ nodeid }) => nodeid === granting)?.core.engine.membership.view?.members ?? [];
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

/** SimNode counts them in its incarnations. */
function lifeOf(incarnation: string): number {
  return (Number.parseInt(incarnation.slice(0, 8), 16) >>> 8) & 0xffff;
}

function show(value: unknown): string {
  const text = JSON.stringify(value, (key, value: unknown) => {
    if (key === "incarnation") return undefined;
    if (typeof value === "bigint") return Number(value);
    return value instanceof Uint8Array ? `${value.byteLength} bytes` : value;
  });
  return text.length > 600 ? `${text.slice(0, 600)}...` : text;
}
