/** A node of the simulated cluster: the very core that ships, what it keeps on disk, its programs, and when it stands still or is only busy. */
import type { BuiltinEngine } from "../../dlmd/engine/builtin/engine-core.ts";
import type { View } from "../../dlmd/membership/membership.ts";
import { Beater } from "../../dlmd/membership/beater.ts";
import { NodeCore } from "../../dlmd/node.ts";
import type { ClientRequest, Effect, Lineage, NodeEvent } from "../../dlmd/node-api.ts";
import type { Datagram } from "../../dlmd/wire/datagram.ts";
import { noLineage } from "../../dlmd/wire/view-id.ts";
import { SimFailure } from "./checker.ts";
import { SimClient, type SimLock } from "./client.ts";
import { type Cluster, timeoutMs } from "./cluster.ts";
import type { Random } from "./random.ts";

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
  #view: View | null = null;
  #life = 0;
  readonly #clientPaused: Map<number, ClientRequest[][]> = new Map();
  readonly #random: Random;

  constructor(cluster: Cluster, nodeid: number) {
    this.cluster = cluster;
    this.nodeid = nodeid;
    this.#random = cluster.streams.of(`node ${nodeid}`);
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
  get leaseEndMs(): number {
    return this.beater.leaseEndMs;
  }
  get engine(): BuiltinEngine {
    return this.core.engine;
  }

  #boot(): NodeCore {
    const { agenda, configs } = this.cluster;
    const random = this.#random;
    this.#life++;
    this.incarnation =
      (((this.nodeid << 24) | (this.#life << 8)) >>> 0).toString(16).padStart(8, "0") +
      random
        .int(2 ** 32)
        .toString(16)
        .padStart(8, "0");
    const core = new NodeCore({
      nodeid: this.nodeid,
      incarnation: this.incarnation,
      configVersion: 1,
      nodes: configs,
      timeoutMs,
      promisedEpoch: this.storedEpoch,
      lineage: this.storedLineage,
      seed: random.int(2 ** 32),
      nowMs: agenda.nowMs,
      limits: {
        savedRequestsPerClient: 8,
        savedMessagesPerPeer: 40,
        deadlockAfterMs: 30,
        moveAfter: 2,
        rebuildStepsPerTurn: 1 + random.int(8),
      },
    });
    // Looked at where the engine says it: in a step's effects the place in the order is lost.
    const { groups } = core;
    const hear = groups.event.bind(groups);
    groups.event = (event) => {
      this.cluster.groupChecker.told(this, event);
      hear(event);
    };
    return core;
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
    this.cluster.groupChecker.started(this);
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

  leave(): void {
    if (!this.alive) return;
    for (const client of this.clients.values()) this.killClient(client);
    this.input({ kind: "leave" });
  }

  standStill(how: "pause" | "busy", ms: number): void {
    const untilMs = this.cluster.agenda.nowMs + ms;
    if (how === "pause") this.pausedUntilMs = untilMs;
    else this.busyUntilMs = untilMs;
  }

  clientAt(count: number): SimClient | undefined {
    return this.alive ? [...this.clients.values()][count % this.clients.size] : undefined;
  }

  addClient(): void {
    const { streams, checker, agenda } = this.cluster;
    const clientId = this.#nextClientId++;
    const random = streams.of(`client ${this.nodeid}/${clientId}`);
    let lastMs = 0;
    const client: SimClient = new SimClient(this, clientId, random, checker, (requests) => {
      lastMs = Math.max(lastMs, agenda.nowMs + random.between(0, 0.3));
      agenda.at(lastMs, () => this.#fromClient(client, requests));
    });
    this.clients.set(clientId, client);
    this.input({
      kind: "client-connected",
      clientId,
      identity: { uid: 0, pid: clientId, owner: client.owner, bastLimitMs: client.bastLimitMs },
    });
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
    client.purged = this.purges > 0 || client.ending;
    for (const lock of client.locks.values()) {
      if (lock.persistent && (lock.asked === "down" || lock.asked === "unlock")) this.cluster.checker.unanswered(lock);
      if (lock.persistent && lock.mode !== null && lock.asked !== "unlock") this.orphans.push(lock);
    }
    for (const { orphan, resource, persistent } of client.locks.values()) {
      if (orphan === null || persistent) continue;
      for (const left of this.orphans) left.doubtful ||= left.client.owner === client.owner && left.resource === resource;
    }
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
        if (event.kind === "peer-up") this.cluster.network.begins(this, event);
        const { arrived } = this.core.locks.moves;
        for (const effect of this.core.step(event, agenda.nowMs)) this.#perform(effect);
        this.cluster.moves += this.core.locks.moves.arrived - arrived;
        this.#lookAtView();
        checker.afterStep(this);
      }
    } finally {
      this.#stepping = false;
    }
    const deadline = this.alive ? this.core.nextDeadline() : null;
    if (deadline !== null) this.#wake(deadline);
  }

  #lookAtView(): void {
    const { view } = this.core.membership;
    if (view !== null && view !== this.#view) this.cluster.groupChecker.installed(this, view);
    this.#view = view;
    this.cluster.groupChecker.stepped();
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
    const { network, agenda } = this.cluster;
    const random = this.#random;
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
      case "keep-fences": {
        const life = this.#life;
        return agenda.at(agenda.nowMs + random.between(0, 3), () => {
          if (life !== this.#life || !this.alive) return;
          this.input({ kind: "fences-kept" });
        });
      }
      case "client-events": {
        const client = this.clients.get(effect.clientId);
        if (client === undefined) return;
        for (const event of effect.events) {
          client.emitted(event, (run) => {
            agenda.at(agenda.nowMs + client.random.between(0, client.random.chance(0.1) ? 60 : 3), () => {
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
      case "end-client": {
        const client = this.clients.get(effect.clientId);
        if (client === undefined || client.ending) return;
        client.ending = true;
        // A signal takes its time.
        return agenda.at(agenda.nowMs + client.random.between(0, 50), () => {
          if (client.alive && this.alive) this.killClient(client);
        });
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
