/** A node of the simulated cluster: the very core that ships, what it keeps on disk, its programs, and when it stands still or is only busy. */
import type { BuiltinEngine } from "../../dlmd/engine/builtin/engine-core.ts";
import type { View } from "../../dlmd/engine/engine.ts";
import type { ConfigEvent } from "../../dlmd/config/change-event.ts";
import { Heartbeater } from "../../dlmd/membership/heartbeater.ts";
import { NodeCore } from "../../dlmd/node.ts";
import type { Effect, NodeEvent } from "../../dlmd/node-api.ts";
import type { NodeConfiguration } from "../../dlmd/engine/boot.ts";
import type { ClientRequest } from "../../dlmd/wire/program.ts";
import { type KeptFences, noFences } from "../../dlmd/recovery/fence-gate.ts";
import { MAX_MISTRUST_VIEWS } from "../../dlmd/recovery/mistrust.ts";
import type { Datagram } from "../../dlmd/wire/datagram.ts";
import { noLineage, type Lineage } from "../../dlmd/wire/view-id.ts";
import { type Input, mixed } from "./backlog.ts";
import { SimFailure } from "./checker.ts";
import { SimClient, type SimLock } from "./client.ts";
import { type Cluster, timeoutMs } from "./cluster.ts";
import { ConfigPart } from "./config-part.ts";
import type { Random } from "./random.ts";

/** Of a program that does not answer "gone"; it answers within 60 ms, if it does not stand still. */
const goneLimitMs = 250;
/** No lock has such a number. */
const FORGED_LKB = 2 ** 40;

/** Found with locks served, and in the midst of a recovery. */
function isForged(found: string): boolean {
  return found.includes(`unknown lock ${FORGED_LKB}`) || found.startsWith("convert in the midst of a recovery");
}

export class SimNode {
  readonly cluster: Cluster;
  readonly nodeid: number;
  core: NodeCore;
  readonly config: ConfigPart;
  /** Nodes of the configurations that it counted by in this life. */
  readonly configured: Set<string> = new Set();
  /** Nodes that an open change of them removes: they may be in a view with it still, whether or not that is quorate. */
  readonly removing: Set<number> = new Set();
  /** In a thread of its own: a main thread that is busy does not stop it. */
  beater: Heartbeater;
  /** The oldest configuration whose votes have acknowledged the lease of its programs. */
  leaseVersion = 0;
  #toldVersion = 0;
  #leaseSeenMs = Number.NEGATIVE_INFINITY;
  incarnation = "";
  alive = false;
  /** What fsync kept. */
  storedEpoch = 0;
  storedLineage: Lineage = noLineage;
  storedFences: KeptFences = noFences;
  /** Members, as "nodeid.incarnation", of quorate views that it was in in this life. */
  readonly met: Set<string> = new Set();
  /** Lives, as "nodeid.incarnation", of whose datagrams it has the key: it came over a connection (driver/seal.ts). */
  readonly unsealed: Set<string> = new Set();
  /** Its disk keeps nothing before. */
  diskUntilMs = 0;
  readonly #clockRate: number;
  readonly clients: Map<number, SimClient> = new Map();
  /** Persistent locks of its dead clients. */
  orphans: SimLock[] = [];
  /** Purges on it that were asked for and are not answered. */
  purges = 0;
  /** A stopped process: events wait until then. */
  pausedUntilMs = 0;
  /** A busy main thread: events wait, heartbeats go on. */
  busyUntilMs = 0;
  /** Each of its steps takes a while until then. */
  starvedUntilMs = 0;
  /** Of the next step that says more than one thing a part is said before it stands still for so long, the rest afterwards; 0: all at once. */
  #freezeMs = 0;
  readonly #forgeries: Map<string, number> = new Map();
  #unsaid: Effect[] = [];
  #stood = false;
  /** How often it has left a view, as its threads know at once. */
  #stops = 0;
  #toldAtMs = 0;
  #endsLease = false;
  #heard: Datagram[] = [];
  #beatAtMs = Number.POSITIVE_INFINITY;
  #nextClientId = 1;
  #storedAtMs = 0;
  #inputs: Input[] = [];
  #stepping = false;
  #wakeAtMs = Number.POSITIVE_INFINITY;
  #view: View | null = null;
  #life = 0;
  readonly #clientPaused: Map<number, ClientRequest[][]> = new Map();
  readonly #random: Random;
  readonly #rough: Random;

  constructor(cluster: Cluster, nodeid: number) {
    this.cluster = cluster;
    this.nodeid = nodeid;
    this.#random = cluster.streams.of(`node ${nodeid}`);
    this.#rough = cluster.streams.of(`rough ${nodeid}`);
    const drift = cluster.script.weather.drift ?? 0;
    this.#clockRate = 1 + cluster.streams.of(`clock ${nodeid}`).between(-drift, drift);
    this.config = new ConfigPart(this, cluster.history);
    this.core = this.#boot();
    this.beater = this.#newBeater();
    this.alive = false;
  }

  #newBeater(): Heartbeater {
    return new Heartbeater({ nodeid: this.nodeid, incarnation: this.incarnation }, timeoutMs, this.#nowMs);
  }

  get key(): string {
    return `${this.nodeid}.${this.incarnation}`;
  }
  get leaseEndMs(): number {
    return this.#globalMs(this.beater.leaseEndMs);
  }

  #lookAtLease(): void {
    const { leaseEndMs } = this.beater;
    // Without end: it is given anew by whatever configuration counts.
    if (leaseEndMs === this.#leaseSeenMs && leaseEndMs !== Number.POSITIVE_INFINITY) return;
    this.#leaseSeenMs = leaseEndMs;
    this.leaseVersion = this.#toldVersion;
  }

  /**
   * The oldest configuration by which the votes of a lease are counted. That of the view where this node does not know yet that it is in force: then all
   * members of the view have to acknowledge, which are a quorum by it (`leaseGrounds` in dlmd/membership/quorum.ts).
   */
  get #countedVersion(): number {
    const { version, former } = this.core.configuration;
    const { view } = this.core.engine.membership;
    const counted = view?.quorum.quorate === true ? view.quorum.configVersion : 0;
    if (version < counted || (version === counted && former !== undefined)) return counted;
    return former === undefined ? version : version - 1;
  }

  /** What its clock shows then. */
  localMs(nowMs: number): number {
    return nowMs * this.#clockRate;
  }

  /** When its clock has shown that; not a rounding error sooner. */
  #globalMs(localMs: number): number {
    return this.#clockRate === 1 ? localMs : localMs / this.#clockRate + 0.001;
  }

  get #nowMs(): number {
    return this.localMs(this.cluster.agenda.nowMs);
  }

  get engine(): BuiltinEngine {
    return this.core.engine;
  }

  #boot(): NodeCore {
    const { script } = this.cluster;
    const { version: configVersion, ...counted } = this.config.counted;
    this.configured.clear();
    this.removing.clear();
    this.#countsBy(counted);
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
      configVersion,
      ...counted,
      timeoutMs,
      promisedEpoch: this.storedEpoch,
      lineage: this.storedLineage,
      seed: random.int(2 ** 32),
      nowMs: this.#nowMs,
      fencedLockspaces: script.fenced ? ["second"] : [],
      fences: this.storedFences,
      limits: {
        goneLimitMs,
        savedRequestsPerClient: 8,
        savedMessagesPerPeer: 40,
        lateMessages: 25,
        deadlockAfterMs: 30,
        rebuildStepsPerTurn: 1 + random.int(8),
        searchStepsPerTurn: 1 + random.int(8),
      },
    });
    // Looked at where the engine says it: in a step's effects the place in the order is lost.
    const { groups, lockspaces } = core;
    const enter = lockspaces.event.bind(lockspaces);
    lockspaces.event = (event) => {
      enter(event);
      if (event.kind === "view" && event.view.quorum.quorate) this.cluster.lockspaceChecker.entered(this, event.view);
    };
    const hear = groups.event.bind(groups);
    groups.event = (event) => {
      this.cluster.groupChecker.told(this, event);
      hear(event);
    };
    return core;
  }

  start(): void {
    if (this.alive || !this.config.begin()) return;
    this.core = this.#boot();
    this.beater = this.#newBeater();
    this.alive = true;
    this.met.clear();
    this.unsealed.clear();
    this.pausedUntilMs = 0;
    this.busyUntilMs = 0;
    this.starvedUntilMs = 0;
    this.#freezeMs = 0;
    this.#unsaid = [];
    this.#stood = false;
    this.#stops = 0;
    this.#toldAtMs = 0;
    this.#endsLease = false;
    this.#heard = [];
    this.#beatAtMs = Number.POSITIVE_INFINITY;
    this.#inputs = this.#inputs.filter(({ kind }) => kind === "config");
    this.#wakeAtMs = Number.POSITIVE_INFINITY;
    this.cluster.trace(`node ${this.nodeid} starts as ${this.incarnation}`);
    this.cluster.groupChecker.started(this);
    for (let i = 0; i < 2; i++) this.addClient();
    this.input({ kind: "tick" });
  }

  /** A power-off: everything of it ends, nobody is told. */
  crash(): void {
    this.#endLife();
    this.config.end();
    this.#inputs = [];
  }

  #endLife(): void {
    if (!this.alive) return;
    this.cluster.trace(`node ${this.nodeid} dies`);
    this.alive = false;
    this.cluster.history.changed = true;
    for (const client of this.clients.values()) this.#end(client);
    this.clients.clear();
    this.orphans = [];
    this.purges = 0;
    this.#clientPaused.clear();
    this.cluster.network.breakAllOf(this);
  }

  /** A power-off, and another disk. */
  forget(): void {
    if (!this.alive || !this.cluster.mayForget) return;
    this.crash();
    this.storedEpoch = 0;
    this.storedLineage = noLineage;
    this.config.forget();
  }

  leave(): void {
    if (!this.alive) return;
    this.cluster.left.add(this.key);
    // (The shell closes their connections, whether they stand still or not.)
    for (const client of this.clients.values()) this.killClient(client, true);
    this.input({ kind: "announce-leave" });
  }

  standStill(how: "pause" | "busy", ms: number): void {
    const untilMs = this.cluster.agenda.nowMs + ms;
    if (how === "pause") this.pausedUntilMs = untilMs;
    else this.busyUntilMs = untilMs;
  }

  /** Between what it decides and what it does. */
  freeze(ms: number): void {
    this.#freezeMs = ms;
  }

  /** An agent runs against those. */
  bar(nodeids: readonly number[]): void {
    if (!this.alive) return;
    this.core.engine.bar(nodeids);
    this.input({ kind: "tick" });
  }

  /** About a lock that there is not. Fewer times than end in a parting of the two (dlmd/recovery/mistrust.ts). */
  forge(nodeid: number): void {
    const { view } = this.core.recovery;
    const peer = view?.members.find((member) => member.nodeid === nodeid && nodeid !== this.nodeid);
    if (!this.alive || peer === undefined) return;
    const key = `${peer.incarnation} ${this.incarnation}`;
    const times = this.#forgeries.get(key) ?? 0;
    if (times === MAX_MISTRUST_VIEWS) return;
    this.#forgeries.set(key, times + 1);
    this.cluster.forged++;
    this.core.recovery.send(nodeid, { kind: "convert", lkbId: FORGED_LKB, mode: 0, flags: 0, transaction: 0 });
    this.input({ kind: "tick" });
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

  #countsBy({ nodes, former = [] }: Pick<NodeConfiguration, "nodes" | "former">): void {
    this.configured.add(nodes.map(({ nodeid }) => nodeid).join());
    for (const { nodeid } of former) this.removing.add(nodeid);
  }

  counts(configuration: NodeConfiguration): void {
    this.#countsBy(configuration);
    this.#take({ kind: "configuration", configuration });
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

  #spare(client: SimClient, clientId: number): void {
    this.cluster.notEnded++;
    this.cluster.agenda.at(this.cluster.agenda.nowMs + client.random.between(0, 1500), () => {
      if (!client.alive || !this.alive) return;
      client.ending = false;
      this.input({ kind: "client-spared", clientId });
    });
  }

  /** `endedHere`: its node closes the connection. */
  killClient(client: SimClient, endedHere = false): void {
    this.cluster.trace(`client ${client.name} dies`);
    client.outlived = true;
    this.#end(client);
    this.clients.delete(client.id);
    client.purged = this.purges > 0 || client.ending;
    for (const lock of client.locks.values()) {
      const stays = lock.persistent || (lock.heirloom && !endedHere);
      if (stays && (lock.asked === "down" || lock.asked === "unlock")) this.cluster.checker.unanswered(lock);
      if (stays && lock.mode !== null && lock.asked !== "unlock") this.orphans.push(lock);
    }
    for (const { orphan, resource, persistent } of client.locks.values()) {
      if (orphan === null || persistent) continue;
      for (const left of this.orphans) left.doubtful ||= left.client.owner === client.owner && left.resource === resource;
    }
    this.#clientPaused.delete(client.id);
    this.input({ kind: "client-gone", clientId: client.id, endedHere });
    if (client.isKept) this.cluster.keptClients++;
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

  /** Between two lives of one process there is no core, but the configuration's goes on. */
  inputConfig(event: ConfigEvent): void {
    if (!this.alive) return this.config.step(event);
    this.#inputs.push({ kind: "config", event });
    if (!this.#stepping) this.#run();
  }

  #take(event: NodeEvent): void {
    if (!this.alive) return;
    if (event.kind === "peer-up") this.cluster.network.begins(this, event);
    const effects = this.core.step(event, this.#nowMs);
    if (this.#freezeMs === 0) return this.#performAll(effects);
    // Programs look at the lease before they act on what they are told.
    const late = effects.filter(({ kind }) => kind === "datagram" || kind === "peer-frame" || kind === "beat" || kind === "persist");
    if (late.length < 2) return this.#performAll(effects);
    const said = this.#rough.int(late.length);
    this.#unsaid = late.slice(said);
    this.cluster.frozen++;
    this.standStill(this.#rough.chance(0.5) ? "pause" : "busy", this.#freezeMs);
    this.#freezeMs = 0;
    this.#performAll(effects.filter((effect) => !this.#unsaid.includes(effect)));
  }

  #performAll(effects: readonly Effect[]): void {
    for (const effect of effects) this.#perform(effect);
  }

  get #idleUntilMs(): number {
    return Math.max(this.pausedUntilMs, this.busyUntilMs);
  }

  #goOn(): void {
    this.#stood = false;
    this.#performAll(this.#unsaid.splice(0));
    if (this.cluster.agenda.nowMs < this.starvedUntilMs && this.#rough.chance(0.9)) return;
    if (!this.cluster.script.rough || this.#inputs.length < 2) return;
    this.cluster.mixed++;
    this.#inputs = mixed(this.#inputs, this.#rough);
  }

  #run(): void {
    const { agenda, checker } = this.cluster;
    if (agenda.nowMs < this.#idleUntilMs) {
      this.#stood = true;
      return this.#wake(this.#idleUntilMs);
    }
    this.#stepping = true;
    try {
      if (this.#stood) this.#goOn();
      while (this.alive) {
        if (agenda.nowMs < this.#idleUntilMs) {
          this.#stood = true;
          break;
        }
        const event = this.#inputs.shift();
        if (event === undefined) break;
        this.cluster.steps++;
        if (event.kind === "config") this.config.step(event.event);
        else {
          this.cluster.traceEvent(this, event);
          this.#take(event);
        }
        this.#lookAtView();
        for (const victim of this.core.recovery.gate.open) {
          this.cluster.lockspaceChecker.waits(this, victim);
          this.cluster.fence(this, victim);
        }
        checker.afterStep(this);
        this.cluster.history.look();
        if (agenda.nowMs < this.starvedUntilMs) this.busyUntilMs = Math.max(this.busyUntilMs, agenda.nowMs + this.#rough.between(0.2, 12));
      }
    } finally {
      this.#stepping = false;
    }
    const deadline = this.alive ? this.core.nextDeadline() : null;
    if (this.alive && this.#stood) this.#wake(this.#idleUntilMs);
    else if (deadline !== null) this.#wake(this.#globalMs(deadline));
  }

  #lookAtView(): void {
    const { view } = this.core.engine.membership;
    if (view !== null && view !== this.#view) this.cluster.groupChecker.installed(this, view);
    if (view !== this.#view) this.cluster.history.changed = true;
    this.#view = view;
    if (!this.cluster.twoNode) this.cluster.groupChecker.stepped();
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
      const beat = message.kind === "heartbeat" ? this.beater.receive(message, this.#nowMs) : null;
      if (beat !== null) this.input({ kind: "heartbeat", beat });
    }
    this.#lookAtLease();
    const message = this.beater.beat(this.#nowMs, this.core.engine.membership.progress, this.#stops);
    if (message !== null) network.sendDatagram(this, "all", message);
    this.#beatLater(this.#globalMs(this.beater.nextMs));
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

  /** A message to a thread takes its time; a number in shared memory does not (driver/heartbeats.ts). */
  #tell({ content, now }: Extract<Effect, { kind: "beat" }>, version: number): void {
    if (content !== null) this.#stops = content.stops;
    this.#atThread(() => {
      if (this.#endsLease) return;
      this.#toldVersion = version;
      this.beater.tell(content, now);
      this.#lookAtLease();
      this.#beat();
    });
  }

  #atThread(tell: () => void): void {
    const { agenda, script } = this.cluster;
    if (!script.rough) return tell();
    const life = this.#life;
    const lagMs = this.#rough.chance(0.1) ? this.#rough.between(0, 40) : this.#rough.between(0, 1);
    this.#toldAtMs = Math.max(this.#toldAtMs, this.pausedUntilMs, agenda.nowMs + lagMs);
    agenda.at(this.#toldAtMs, () => {
      if (life === this.#life && this.alive) tell();
    });
  }

  #isSmall(members: readonly number[]): boolean {
    const { nodes } = this.core.configuration;
    const votes = nodes.reduce((sum, node) => sum + (members.includes(node.nodeid) ? 2 : 0) * node.votes - node.votes, 0);
    return votes <= 0;
  }

  /** What a program does then, or as soon as it does not stand still any more. */
  #atClient(client: SimClient, atMs: number, run: () => void): void {
    this.cluster.agenda.at(atMs, () => {
      if (!client.alive || !this.alive) return;
      if (client.stands) this.#atClient(client, client.hangsUntilMs, run);
      else run();
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
        return this.#tell(effect, this.#countedVersion);
      case "peer-frame":
        return network.sendFrame(this, effect.nodeid, effect.view, effect.messages);
      case "persist": {
        const life = this.#life;
        this.#storedAtMs = Math.max(this.#storedAtMs, this.diskUntilMs, agenda.nowMs + random.between(0, 3));
        return agenda.at(this.#storedAtMs, () => {
          if (life !== this.#life || !this.alive) return;
          this.storedEpoch = effect.promisedEpoch;
          this.storedLineage = effect.lineage;
          this.cluster.history.changed = true;
          this.input({ kind: "persisted", promisedEpoch: effect.promisedEpoch });
        });
      }
      case "keep-fences": {
        const life = this.#life;
        this.#storedAtMs = Math.max(this.#storedAtMs, this.diskUntilMs, agenda.nowMs + random.between(0, 3));
        return agenda.at(this.#storedAtMs, () => {
          if (life !== this.#life || !this.alive) return;
          this.storedFences = effect.fences;
          this.input({ kind: "fences-kept" });
        });
      }
      case "client-events": {
        const client = this.clients.get(effect.clientId);
        if (client === undefined) return;
        for (const event of effect.events) {
          client.emitted(event, (run) => {
            const atMs = agenda.nowMs + client.random.between(0, client.random.chance(0.1) ? 60 : 3);
            this.#atClient(client, atMs, run);
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
        // What it had answered may lie unread for as long as its node is starved.
        if (client.hangs === 0 && agenda.nowMs > this.starvedUntilMs + 2 * goneLimitMs)
          throw new SimFailure(`node ${this.nodeid}: client ${client.name} never stood still: ${effect.reason}`);
        client.ending = true;
        // It waits in the kernel, which takes a while to see.
        if (client.random.chance(0.2)) return this.#spare(client, effect.clientId);
        this.cluster.ended++;
        // A signal takes its time; who waits for a disk does not hear it.
        return agenda.at(agenda.nowMs + client.random.between(0, client.random.chance(0.1) ? 2000 : 50), () => {
          if (client.alive && this.alive) this.killClient(client);
        });
      }
      case "look-at-life":
        return this.input({
          kind: "life-seen",
          lookId: effect.lookId,
          seen: { bootId: "", machineId: "", process: "unknown", device: "failed" },
        });
      case "pause-peer":
      case "resume-peer":
        return network.pause(this, effect.nodeid, effect.kind === "pause-peer");
      case "view": {
        const { viewId, members, quorate } = effect.view;
        const epoch = Number.parseInt(viewId, 10);
        this.config.step(
          epoch > 0 ? { kind: "view", view: { epoch, id: viewId, members, quorate, counting: effect.counting } } : { kind: "no-view" },
        );
        if (!quorate) return;
        if (effect.view.running && this.#isSmall(members)) this.cluster.smallViews++;
        for (const member of this.core.engine.membership.view?.members ?? []) {
          const key = `${member.nodeid}.${member.incarnation}`;
          this.met.add(key);
          for (const client of this.clients.values()) if (!client.metMembers.has(key)) client.metMembers.set(key, agenda.nowMs);
        }
        return;
      }
      case "view-settled":
        return this.config.step({ kind: "settled", view: effect.viewId, version: effect.version });
      case "evicted":
        this.cluster.evictions++;
        this.#endLife();
        return agenda.at(agenda.nowMs + random.between(1, 50), () => this.start());
      case "may-leave":
        // The thread says when it has ended the lease.
        return this.#atThread(() => {
          this.#endsLease = true;
          this.beater.tell(null, false);
          this.input({ kind: "leave" });
        });
      case "left":
        this.crash();
        return agenda.at(agenda.nowMs + random.between(50, 600), () => this.start());
      case "log":
        if (this.cluster.forged > 0 && isForged(String(effect.fields["found"]))) return;
        if (effect.level === "error" && effect.message !== "a program hangs and has to end")
          throw new SimFailure(`node ${this.nodeid}: ${effect.message} ${JSON.stringify(effect.fields)}`);
        return;
    }
  }
}
