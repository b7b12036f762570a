/** A whole cluster of node cores in one process under one seed. */
import { Beater } from "../../dlmd/membership/beater.ts";
import { NodeCore } from "../../dlmd/node.ts";
import type { ClientRequest, Effect, Lineage, NodeConfig, NodeEvent } from "../../dlmd/node-api.ts";
import type { Datagram } from "../../dlmd/wire/datagram.ts";
import { hasMember, noLineage } from "../../dlmd/wire/view-id.ts";
import { Checker, SimFailure } from "./checker.ts";
import { SimClient, type SimLock } from "./client.ts";
import { Network } from "./network.ts";
import { PlockChecker } from "./plock-checker.ts";
import { Agenda, Random } from "./random.ts";

const timeoutMs = 300;
const kept = Number(process.env["KEPT"] ?? 200);

export class SimNode {
  readonly cluster: Cluster;
  readonly nodeid: number;
  core: NodeCore;
  /** In a thread of its own: a main thread that is busy does not stop it. */
  beater: Beater;
  incarnation = "";
  alive = false;
  /** What fsync kept. */
  storedEpoch = 0;
  storedLineage: Lineage = noLineage;
  readonly clients: Map<number, SimClient> = new Map();
  /** Persistent locks of its dead clients. */
  orphans: SimLock[] = [];
  /** Purges on it that were asked for and are not answered. */
  purges = 0;
  /** A stopped process: events wait until then. */
  pausedUntilMs = 0;
  /** A busy main thread: events wait, heartbeats go on. */
  busyUntilMs = 0;
  #heard: Datagram[] = [];
  #beatAtMs = Number.POSITIVE_INFINITY;
  #nextClientId = 1;
  #storedAtMs = 0;
  #inputs: NodeEvent[] = [];
  #stepping = false;
  #wakeAtMs = Number.POSITIVE_INFINITY;
  #life = 0;
  readonly #clientPaused: Map<number, ClientRequest[][]> = new Map();

  constructor(cluster: Cluster, nodeid: number) {
    this.cluster = cluster;
    this.nodeid = nodeid;
    this.core = this.#boot();
    this.beater = this.#newBeater();
    this.alive = false;
  }

  #newBeater(): Beater {
    return new Beater({ nodeid: this.nodeid, incarnation: this.incarnation }, timeoutMs, this.cluster.agenda.nowMs);
  }

  get key(): string {
    return `${this.nodeid}.${this.incarnation}`;
  }

  #boot(): NodeCore {
    const { random, agenda, configs } = this.cluster;
    this.#life++;
    this.incarnation =
      (((this.nodeid << 24) | (this.#life << 8)) >>> 0).toString(16).padStart(8, "0") +
      random
        .int(2 ** 32)
        .toString(16)
        .padStart(8, "0");
    return new NodeCore({
      nodeid: this.nodeid,
      incarnation: this.incarnation,
      configVersion: 1,
      nodes: configs,
      timeoutMs,
      promisedEpoch: this.storedEpoch,
      lineage: this.storedLineage,
      seed: random.int(2 ** 32),
      nowMs: agenda.nowMs,
      limits: { savedRequestsPerClient: 8, savedMessagesPerPeer: 40, deadlockAfterMs: 30, rebuildStepsPerTurn: 1 + random.int(8) },
    });
  }

  start(): void {
    if (this.alive) return;
    this.core = this.#boot();
    this.beater = this.#newBeater();
    this.alive = true;
    this.pausedUntilMs = 0;
    this.busyUntilMs = 0;
    this.#heard = [];
    this.#beatAtMs = Number.POSITIVE_INFINITY;
    this.#inputs = [];
    this.#wakeAtMs = Number.POSITIVE_INFINITY;
    this.cluster.trace(`node ${this.nodeid} starts as ${this.incarnation}`);
    for (let i = 0; i < 2; i++) this.addClient();
    this.input({ kind: "tick" });
  }

  /** A power-off: everything of it ends, nobody is told. */
  crash(): void {
    if (!this.alive) return;
    this.cluster.trace(`node ${this.nodeid} dies`);
    this.alive = false;
    for (const client of this.clients.values()) this.#end(client);
    this.clients.clear();
    this.orphans = [];
    this.purges = 0;
    this.#clientPaused.clear();
    this.cluster.network.breakAllOf(this);
  }

  addClient(): void {
    const { random, checker, agenda } = this.cluster;
    const clientId = this.#nextClientId++;
    let lastMs = 0;
    const client: SimClient = new SimClient(this, clientId, random, checker, (requests) => {
      lastMs = Math.max(lastMs, agenda.nowMs + random.between(0, 0.3));
      agenda.at(lastMs, () => this.#fromClient(client, requests));
    });
    this.clients.set(clientId, client);
    this.input({ kind: "client-connected", clientId, identity: { uid: 0, pid: clientId, owner: client.owner } });
  }

  forgetOrphan(lock: SimLock): void {
    this.orphans = this.orphans.filter((orphan) => orphan !== lock);
  }

  #fromClient(client: SimClient, requests: ClientRequest[]): void {
    if (!client.alive || !this.alive || this.clients.get(client.id) !== client) return;
    const paused = this.#clientPaused.get(client.id);
    if (paused !== undefined) paused.push(requests);
    else this.input({ kind: "client-requests", clientId: client.id, requests });
  }

  killClient(client: SimClient): void {
    this.cluster.trace(`client ${client.name} dies`);
    this.#end(client);
    this.clients.delete(client.id);
    client.purged = this.purges > 0;
    for (const lock of client.locks.values()) if (lock.persistent && lock.mode !== null && lock.asked !== "unlock") this.orphans.push(lock);
    this.#clientPaused.delete(client.id);
    this.input({ kind: "client-gone", clientId: client.id });
  }

  #end(client: SimClient): void {
    client.alive = false;
    client.plocks.ended();
    client.diedMs = this.cluster.agenda.nowMs;
  }

  /** Events in order; a step may cause others. */
  input(event: NodeEvent): void {
    if (!this.alive) return;
    this.#inputs.push(event);
    if (!this.#stepping) this.#run();
  }

  #run(): void {
    const { agenda, checker } = this.cluster;
    const idleUntilMs = Math.max(this.pausedUntilMs, this.busyUntilMs);
    if (agenda.nowMs < idleUntilMs) return this.#wake(idleUntilMs);
    this.#stepping = true;
    try {
      while (this.alive) {
        const event = this.#inputs.shift();
        if (event === undefined) break;
        this.cluster.steps++;
        this.cluster.traceEvent(this, event);
        for (const effect of this.core.step(event, agenda.nowMs)) this.#perform(effect);
        checker.afterStep();
      }
    } finally {
      this.#stepping = false;
    }
    const deadline = this.alive ? this.core.nextDeadline() : null;
    if (deadline !== null) this.#wake(deadline);
  }

  #wake(atMs: number): void {
    if (atMs >= this.#wakeAtMs) return;
    const life = this.#life;
    this.#wakeAtMs = atMs;
    this.cluster.agenda.at(atMs, () => {
      if (life !== this.#life) return;
      if (this.#wakeAtMs === atMs) this.#wakeAtMs = Number.POSITIVE_INFINITY;
      if (this.alive) this.input({ kind: "tick" });
    });
  }

  /** A datagram from the network: heartbeats go to their own thread. */
  arrive(message: Datagram): void {
    if (!this.alive) return;
    if (message.kind !== "heartbeat") return this.input({ kind: "datagram", message });
    this.#heard.push(message);
    this.#beat();
  }

  #beat(): void {
    const { agenda, network } = this.cluster;
    if (agenda.nowMs < this.pausedUntilMs) return this.#beatLater(this.pausedUntilMs);
    for (const message of this.#heard.splice(0)) {
      const beat = message.kind === "heartbeat" ? this.beater.receive(message, agenda.nowMs) : null;
      if (beat !== null) this.input({ kind: "heartbeat", beat });
    }
    const message = this.beater.beat(agenda.nowMs, this.core.membership.progress);
    if (message !== null) network.sendDatagram(this, "all", message);
    this.#beatLater(this.beater.nextMs);
  }

  #beatLater(atMs: number): void {
    if (atMs >= this.#beatAtMs) return;
    const life = this.#life;
    this.#beatAtMs = atMs;
    this.cluster.agenda.at(atMs, () => {
      if (life !== this.#life || !this.alive) return;
      if (this.#beatAtMs === atMs) this.#beatAtMs = Number.POSITIVE_INFINITY;
      this.#beat();
    });
  }

  #perform(effect: Effect): void {
    const { network, agenda, random } = this.cluster;
    this.cluster.traceEffect(this, effect);
    switch (effect.kind) {
      case "datagram":
        return network.sendDatagram(this, effect.to, effect.message);
      case "beat":
        this.beater.tell(effect.content, effect.now);
        return this.#beat();
      case "engine-events":
      case "engine-results":
        return;
      case "peer-frame":
        return network.sendFrame(this, effect.nodeid, effect.view, effect.messages);
      case "persist": {
        const life = this.#life;
        this.#storedAtMs = Math.max(this.#storedAtMs, agenda.nowMs + random.between(0, 3));
        return agenda.at(this.#storedAtMs, () => {
          if (life !== this.#life || !this.alive) return;
          this.storedEpoch = effect.promisedEpoch;
          this.storedLineage = effect.lineage;
          this.input({ kind: "persisted", promisedEpoch: effect.promisedEpoch });
        });
      }
      case "client-events": {
        const client = this.clients.get(effect.clientId);
        if (client === undefined) return;
        for (const event of effect.events) {
          client.emitted(event, (run) => {
            agenda.at(agenda.nowMs + random.between(0, random.chance(0.1) ? 60 : 3), () => {
              if (client.alive && this.alive) run();
            });
          });
        }
        return;
      }
      case "pause-client":
        this.#clientPaused.set(effect.clientId, []);
        return;
      case "resume-client": {
        const waiting = this.#clientPaused.get(effect.clientId) ?? [];
        this.#clientPaused.delete(effect.clientId);
        for (const requests of waiting) this.input({ kind: "client-requests", clientId: effect.clientId, requests });
        return;
      }
      case "pause-peer":
      case "resume-peer":
        return network.pause(this, effect.nodeid, effect.kind === "pause-peer");
      case "view":
        if (!effect.view.quorate) return;
        for (const member of this.core.membership.view?.members ?? []) {
          const key = `${member.nodeid}.${member.incarnation}`;
          for (const client of this.clients.values()) if (!client.metMembers.has(key)) client.metMembers.set(key, agenda.nowMs);
        }
        return;
      case "evicted":
        this.cluster.evictions++;
        this.crash();
        return agenda.at(agenda.nowMs + random.between(1, 50), () => this.start());
      case "left":
        this.crash();
        return agenda.at(agenda.nowMs + random.between(50, 600), () => this.start());
      case "log":
        if (effect.level === "error") throw new SimFailure(`node ${this.nodeid}: ${effect.message} ${JSON.stringify(effect.fields)}`);
        return;
    }
  }
}

export class Cluster {
  readonly agenda: Agenda = new Agenda();
  readonly random: Random;
  readonly configs: readonly NodeConfig[];
  readonly network: Network;
  readonly checker: Checker;
  readonly plockChecker: PlockChecker;
  readonly nodes: readonly SimNode[];
  readonly resources: readonly string[];
  /** Some clients keep what they have until they have all that they want. */
  readonly transactions: boolean;
  steps = 0;
  evictions = 0;
  /** No new trouble and no new requests. */
  quiet = false;
  // Put into words only when they are wanted.
  readonly #trace: [number, string, unknown][] = [];

  constructor(seed: number) {
    this.random = new Random(seed);
    const count = this.random.pick([1, 2, 3, 3, 3, 4, 5]);
    this.configs = Array.from({ length: count }, (_, i) => ({ nodeid: i + 1, name: `node${i + 1}`, address: "", votes: 1 }));
    this.transactions = this.random.chance(0.4);
    this.resources = Array.from({ length: 1 + this.random.int(6) }, (_, i) => `r${i}`);
    this.network = new Network(this);
    this.checker = new Checker(this);
    this.plockChecker = new PlockChecker((granting, other) => this.#inOneView(granting, other));
    this.nodes = this.configs.map(({ nodeid }) => new SimNode(this, nodeid));
    const harsh = this.random.next();
    this.network.weather = { loss: harsh * 0.2, duplicate: harsh * 0.1, late: harsh * 0.2, maxDelayMs: 80 };
    for (const node of this.nodes) this.agenda.at(this.random.between(0, 200), () => node.start());
    this.#every(20, () => this.network.connectAll());
    this.#every(1, () => this.#act());
    this.#every(40, () => this.#trouble());
  }

  #every(ms: number, run: () => void): void {
    const again = (): void => {
      run();
      this.agenda.at(this.agenda.nowMs + this.random.between(0.5, 1.5) * ms, again);
    };
    this.agenda.at(ms, again);
  }

  #act(): void {
    if (this.quiet) return;
    const node = this.random.pick(this.nodes);
    const clients = [...node.clients.values()];
    if (clients.length > 0 && node.alive) this.random.pick(clients).act(this.resources);
  }

  /** Something goes wrong, or gets well again. */
  #trouble(): void {
    if (this.quiet || !this.random.chance(0.25)) return;
    const { random, network, agenda } = this;
    const node = random.pick(this.nodes);
    const other = random.pick(this.nodes);
    const what = random.next();
    if (what < 0.15) {
      node.crash();
      agenda.at(agenda.nowMs + random.between(5, 800), () => node.start());
    } else if (what < 0.25) {
      const clients = [...node.clients.values()];
      if (clients.length > 0) node.killClient(random.pick(clients));
      if (node.alive) node.addClient();
    } else if (what < 0.4) this.#partition(node, other);
    else if (what < 0.7) this.heal();
    else if (what < 0.85) network.break(node, other);
    else if (what < 0.95) {
      node.pausedUntilMs = agenda.nowMs + random.between(10, 900);
      this.trace(`node ${node.nodeid} stands still until ${node.pausedUntilMs.toFixed(1)}`);
    } else if (node.alive) {
      this.trace(`node ${node.nodeid} leaves`);
      for (const client of node.clients.values()) node.killClient(client);
      node.input({ kind: "leave" });
    }
  }

  #partition(node: SimNode, other: SimNode): void {
    const oneWay = this.random.chance(0.3);
    const alone = this.random.chance(0.6);
    for (const peer of alone ? this.nodes : [other]) {
      if (peer === node) continue;
      this.network.cut.add(`${peer.nodeid}>${node.nodeid}`);
      if (!oneWay) this.network.cut.add(`${node.nodeid}>${peer.nodeid}`);
      if (this.random.chance(0.5)) this.network.break(node, peer);
    }
    this.trace(`cut: ${[...this.network.cut].join(" ")}`);
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

  heal(): void {
    if (this.network.cut.size > 0) this.trace("healed");
    this.network.cut.clear();
  }

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

  /** Runs that many steps of trouble, then heals everything and runs until nothing moves. Throws SimFailure. */
  run(steps: number): void {
    while (this.steps < steps && this.agenda.step());
    this.quiet = true;
    this.heal();
    this.network.weather = { loss: 0, duplicate: 0, late: 0, maxDelayMs: 1 };
    for (const node of this.nodes) node.start();
    this.#every(100, () => {
      for (const node of this.nodes) [...node.clients.values()][0]?.purge(node.nodeid);
      for (const node of this.nodes) for (const client of node.clients.values()) client.finish();
    });
    const untilMs = this.agenda.nowMs + timeoutMs * 30;
    while (this.agenda.nowMs < untilMs && this.agenda.step());
    this.checker.atRest();
    this.#plocksAtRest();
  }

  lastEvents(): string {
    const last = this.#trace.slice(-kept);
    return last.map(([ms, text, value]) => `${ms.toFixed(2)} ${text}${value === undefined ? "" : ` ${show(value)}`}`).join("\n");
  }
}

function show(value: unknown): string {
  const text = JSON.stringify(value, (key, value) => (key === "incarnation" ? undefined : value));
  return text.length > 600 ? `${text.slice(0, 600)}...` : text;
}
