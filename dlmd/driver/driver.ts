/**
 * The shell around the node's core (node-api.ts): turns what happens on sockets, files and timers into events, and
 * performs the effects. One driver is one dlmd; when the cluster went on without it ("evicted"), it drops everything and
 * begins again under a new incarnation, as a restart would.
 *
 * What comes of one read of a socket is gathered for each client and peer and written at once after it, so that a lone
 * message never waits for the rest of the event loop's turn. Against writing at the end of the turn, two runs of each on a
 * busy machine showed no difference beyond their scatter; the number of writes was not counted.
 */
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { assertNever } from "../base/assert.ts";
import type { OperatingError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metric.ts";
import type { ClusterInfo, OverlayKey, ViewInfo, QueryWhat, ClientIdentity } from "../wire/program.ts";
import { preferredOwners } from "../config/cluster-config.ts";
import type { KeptConfig } from "../config/record.ts";
import type { NodeConfig } from "../config/votes.ts";
import { LEASE_FILE } from "../wire/lease-page.ts";
import { isAnswer, isQuestion } from "../wire/peer-message.ts";
import type { Effect, Node, NodeBoot, NodeEvent } from "../node-api.ts";
import type { NodeConfiguration } from "../engine/boot.ts";
import type { NodeAnswer, StatusAnswer } from "../query/answer.ts";
import type { PeerProcesses } from "../server/peer-process.ts";
import { type LocalServer, startServer } from "../server/server.ts";
import { countAll } from "./count-all.ts";
import { acknowledgeFence, type FencedNode, notOrdered } from "./fence-acknowledgement.ts";
import { createFenceAgents, type FenceAgents } from "../fence-agent/fence-agents.ts";
import { AnswerLook, type AnswerLookHost } from "./answer-look.ts";
import { ConfigKeeper } from "./config-keeper.ts";
import { type Keyring, overlayKeyOf } from "../tls/keyring.ts";
import { createHeartbeatThread, type HeartbeatThread } from "./heartbeats.ts";
import { beginLife, type Life, type LifeHost } from "./life.ts";
import { createLifeLook } from "./life-look.ts";
import { type RunCheck, SelfCheck } from "./self-check.ts";
import type { StoredState } from "./state-file.ts";
import { StateKeeper } from "./state-keeper.ts";

/** A node whose disk keeps nothing has so long to leave; then dlmd ends all the same. */
const leaveShare = 2;

export interface DriverOptions {
  /** What this node keeps of the configuration, where it keeps it, and cluster.yaml. */
  readonly kept: KeptConfig;
  readonly keptFile: string;
  readonly configFile: string;
  readonly minTimeoutMs: number;
  readonly self: NodeConfig;
  readonly keyring: Keyring;
  readonly runDir: string;
  /** Where what must outlive a restart of the machine is. */
  readonly stateDir: string;
  readonly createNode: (boot: NodeBoot) => Node;
  /** CLOCK_BOOTTIME, milliseconds. */
  readonly nowMs: () => number;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly processes: PeerProcesses;
  /** Of this machine, for other nodes (check-process.ts). */
  readonly runCheck: RunCheck;
  readonly onView: (view: ViewInfo) => void;
  /** A step of the start is done; also of a new life. */
  readonly onStep: () => void;
  /** The node does not know what it holds any more: exit. */
  readonly fatal: (error: Error) => void;
}

export interface Driver {
  /** Leaves the cluster: resolves when the others know, and everything is closed. `reason`: for the programs of this node. */
  leave(reason?: string): Promise<void>;
  /** The key file changed. */
  setKeyring(keyring: Keyring): void;
  /** That node is dead for sure, a person says. Gives which life of it; throws OperatingError if nothing waits for it, or it is a member. */
  acknowledgeFence(nodeid: number, by: string): FencedNode;
  /** Fences that node now, member or not. Throws OperatingError if that cannot be asked for. */
  orderFence(nodeid: number, by: string): { readonly nodeid: number };
  /** Nodes that count and are away are gone for good. Throws OperatingError if nobody is waited for. */
  countAll(by: string): { readonly was: readonly number[] };
  /** Programs of this node that have a lockspace open, by name and pid. */
  programsAtWork(): readonly string[];
  /** The other nodes are a quorum without this one, or there are none. */
  readonly othersAreQuorate: boolean;
  /** As NodeCore answers; null between two incarnations. */
  query(what: QueryWhat): unknown;
  readonly config: ConfigKeeper;
}

export function socketPathOf(runDir: string): string {
  return path.join(runDir, "dlmd.sock");
}

class NodeDriver implements Driver {
  readonly #options: DriverOptions;
  readonly #state: StateKeeper;
  readonly #clients = new Map<number, ClientIdentity>();
  #keyring: Keyring;
  readonly config: ConfigKeeper;
  #server: LocalServer | null = null;
  #life: Life | null = null;
  #timer: NodeJS.Timeout | null = null;
  #timerAt = Number.POSITIVE_INFINITY;
  #flushScheduled = false;
  /** What is read now is not at its end, where everything leaves. */
  #reading = false;
  /** Likewise of a datagram with several messages: what they cause leaves together. */
  #unpacking = false;
  readonly #answerLook: AnswerLook;
  /** For what a peer says next. */
  readonly #nextLook: AnswerLook;
  /** For what this node submitted to come back ordered. */
  readonly #orderLook: AnswerLook;
  #toldClient = false;
  readonly #lifeLook = createLifeLook();
  readonly #fenceAgents: FenceAgents;
  readonly #selfCheck: SelfCheck;
  readonly #heartbeatThread: HeartbeatThread;
  #fenceAnswer: string | null = null;
  #isReset: boolean | null = null;
  #mayLeave: (() => void) | null = null;
  #left: (() => void) | null = null;
  #leaving: Promise<void> | null = null;
  /** Its disk keeps nothing. */
  #isUnable = false;
  /** The next life, where one begins. */
  #rebirth: Promise<void> = Promise.resolve();
  /** The end of the last life. */
  #closing: Promise<void> = Promise.resolve();
  readonly #flush = (): void => this.flush();
  #prepareScheduled = false;
  readonly #prepare = (): void => {
    this.#prepareScheduled = false;
    this.#life?.datagrams.prepare();
  };

  readonly #host: LifeHost = {
    datagram: (message, more) => {
      this.#unpacking = more;
      this.#prepareLater();
      // Heartbeats have a thread and a port of their own.
      if (message.kind === "heartbeat") return;
      if (message.kind === "ordered" && message.origin === this.#options.self.nodeid) this.#orderLook.answered();
      this.step({ kind: "datagram", message });
    },
    step: (event) => this.step(event),
    frame: (nodeid, view, messages) => {
      this.#reading = true;
      for (const message of messages) if (isAnswer(message)) this.#answerLook.answered();
      this.#nextLook.answered();
      this.#toldClient = false;
      this.step({ kind: "peer-frame", nodeid, view, messages });
      // A program that was told something may need this very processor to react.
      if (!this.#toldClient) this.#nextLook.asked();
    },
    read: () => {
      if (this.#reading) this.flush();
    },
    look: () => {
      const status = this.query("status") as StatusAnswer | null;
      const nodes = this.query("nodes") as readonly NodeAnswer[] | null;
      return status === null || nodes === null ? null : { nodes, quorate: status.quorate };
    },
    check: (limitMs, asker) => this.#selfCheck.ask(limitMs, asker),
  };

  constructor(options: DriverOptions) {
    const loop: AnswerLookHost = { nowMs: () => performance.now(), turn: (callback) => void setImmediate(callback) };
    this.#answerLook = new AnswerLook(loop);
    this.#nextLook = new AnswerLook(loop);
    this.#orderLook = new AnswerLook(loop);
    this.#options = options;
    this.#keyring = options.keyring;
    this.config = new ConfigKeeper({
      nodeid: options.self.nodeid,
      kept: options.kept,
      file: options.keptFile,
      configFile: options.configFile,
      minTimeoutMs: options.minTimeoutMs,
      log: options.log,
      send: (nodeid, body) => this.#life?.peers.sendConfig(nodeid, body),
      count: (configuration) => this.#count(configuration),
      changed: (members) => this.#life?.peers.renew(members),
      fatal: options.fatal,
    });
    this.#fenceAgents = createFenceAgents(() => this.config.config, options.log);
    this.#selfCheck = new SelfCheck(options.runCheck);
    this.#heartbeatThread = createHeartbeatThread(options.fatal);
    this.#state = new StateKeeper({
      file: path.join(options.stateDir, "state.json"),
      timeoutMs: () => this.config.config.timeoutMs,
      nowMs: options.nowMs,
      log: options.log,
      failed: (error) => void this.#leaveFor(error),
    });
  }

  async start(): Promise<void> {
    const { runDir, log, metrics, onStep } = this.#options;
    // A node that can keep nothing joins nobody: it would hold up their views, and leave.
    await this.#state.tryKeeping();
    onStep();
    await this.config.tryKeeping();
    onStep();
    // The socket first: whoever has it is the dlmd of this run directory.
    this.#server = await startServer({
      socketPath: socketPathOf(runDir),
      log,
      metrics,
      processes: this.#options.processes,
      info: () => this.#info(),
      multicast: () => this.#life?.multicast() ?? null,
      connected: (clientId, identity) => {
        this.#clients.set(clientId, identity);
        this.step({ kind: "client-connected", clientId, identity });
      },
      requests: (clientId, requests) => {
        this.#reading = true;
        this.step({ kind: "client-requests", clientId, requests });
        this.flush();
      },
      slow: (clientId, unreadBytes) => this.step({ kind: "client-slow", clientId, unreadBytes }),
      gone: (clientId, endedHere) => {
        this.#clients.delete(clientId);
        this.step({ kind: "client-gone", clientId, endedHere });
      },
      spared: (clientId) => this.step({ kind: "client-spared", clientId }),
    });
    onStep();
    // In the log, if anything is wrong: a node that cannot fence serves all the same.
    void this.#fenceAgents.look();
    try {
      await this.#begin();
    } catch (error) {
      await this.#server.close("dlmd could not start");
      throw error;
    }
  }

  #info(): Omit<ClusterInfo, "clientId"> {
    const { self } = this.#options;
    const { config } = this.config;
    return {
      clusterName: config.cluster,
      nodeid: self.nodeid,
      incarnation: this.#life?.incarnation ?? "",
      nodes: config.nodes,
      volumes: config.volumes,
      preferredOwners: preferredOwners(config),
      overlayKeys: this.#overlayKeys(),
    };
  }

  #overlayKeys(): OverlayKey[] {
    return this.#keyring.all.map((key) => overlayKeyOf(key, this.config.config.cluster));
  }

  /** A new incarnation: its sockets, its core. */
  async #begin(): Promise<void> {
    const { self, runDir, createNode, nowMs, log, metrics, onStep, fatal } = this.#options;
    const { cluster } = this.config.config;
    const stored = await this.#state.read();
    onStep();
    const leaseFile = path.join(runDir, LEASE_FILE);
    const heartbeatThread = this.#heartbeatThread;
    const keyring = this.#keyring;
    const shared = { self, keyring, config: this.config, heartbeatThread, nowMs, log, metrics, fatal };
    const life = await beginLife({ ...shared, leaseFile, stored, createNode }, this.#host);
    this.#life = life;
    // They may have changed while it began: nobody else would tell it.
    if (this.#keyring !== keyring) this.setKeyring(this.#keyring);
    onStep();
    const { incarnation } = life;
    log.info({ nodeid: self.nodeid, name: self.name, cluster, incarnation, promisedEpoch: stored.promisedEpoch }, "dlmd started");
    // Those that came between two incarnations wait for their welcome. Who comes from here on, also while corosync is waited for, is told of by itself.
    for (const [clientId, identity] of this.#clients) this.step({ kind: "client-connected", clientId, identity });
    try {
      await life.corosync?.open();
    } catch (error) {
      await this.#end();
      throw error;
    }
    this.step({ kind: "tick" });
  }

  /** Another configuration counts: who may be heard, then how votes are counted. */
  #count(configuration: NodeConfiguration): void {
    this.#life?.setNodes(this.config.nodes);
    void this.#fenceAgents.look();
    this.step({ kind: "configuration", configuration });
  }

  /** One event; ignored between two incarnations, when there is nobody to tell. */
  step(event: NodeEvent): void {
    const life = this.#life;
    if (life === null) return;
    life.heartbeats.progressed();
    try {
      for (const effect of life.node.step(event, this.#options.nowMs())) this.#perform(effect, life);
      if (!this.#unpacking) life.datagrams.flush();
    } catch (error) {
      this.#options.fatal(error as Error);
      return;
    }
    if (this.#life === life) this.#armTimer(life);
  }

  #armTimer(life: Life): void {
    const deadline = life.node.nextDeadline() ?? Number.POSITIVE_INFINITY;
    // A later deadline needs nothing: the early tick does no harm, and asks again.
    if (deadline >= this.#timerAt) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timerAt = deadline;
    const delayMs = Math.max(0, Math.ceil(deadline - this.#options.nowMs()));
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#timerAt = Number.POSITIVE_INFINITY;
      this.step({ kind: "tick" });
    }, delayMs);
  }

  #scheduleFlush(): void {
    if (this.#flushScheduled || this.#reading) return;
    this.#flushScheduled = true;
    queueMicrotask(this.#flush);
  }

  /** When the messages of this turn are on their way. */
  #prepareLater(): void {
    if (this.#prepareScheduled) return;
    this.#prepareScheduled = true;
    setImmediate(this.#prepare);
  }

  flush(): void {
    this.#flushScheduled = false;
    this.#reading = false;
    this.#life?.peers.flush();
    this.#server?.flush();
  }

  #perform(effect: Effect, life: Life): void {
    switch (effect.kind) {
      case "client-events":
        this.#toldClient = true;
        this.#server?.send(effect.clientId, effect.events);
        this.#scheduleFlush();
        return;
      case "peer-frame":
        life.peers.send(effect.nodeid, effect.view, effect.messages);
        for (const message of effect.messages) if (isQuestion(message)) this.#answerLook.asked();
        this.#scheduleFlush();
        return;
      case "datagram":
        life.datagrams.gather(effect.to, effect.message);
        this.#prepareLater();
        if (effect.message.kind === "submit") this.#orderLook.asked();
        return;
      case "multicast":
        life.corosync?.send(effect.data);
        return;
      case "beat":
        life.heartbeats.tell(effect.content, effect.now);
        return;
      case "persist":
        void this.#persist({ promisedEpoch: effect.promisedEpoch, lineage: effect.lineage }, life, {
          kind: "persisted",
          promisedEpoch: effect.promisedEpoch,
        });
        return;
      case "keep-fences":
        void this.#persist({ fences: effect.fences }, life, { kind: "fences-kept" });
        return;
      case "keep-fencing":
        void this.#state.keep({ fencing: effect.fencing }, () => this.#life === life);
        return;
      case "run-fence":
        this.#fenceAgents.run(effect.runId, effect.nodeid, effect.device, (result) => {
          if (this.#life === life) this.step({ kind: "fence-ran", runId: effect.runId, result });
        });
        return;
      case "unfence":
        this.#fenceAgents.unfence(effect.runId, this.#options.self.nodeid, effect.device, effect.isAllowed, (result) => {
          if (this.#life === life) this.step({ kind: "fence-ran", runId: effect.runId, result });
        });
        return;
      case "stop-fence":
        this.#fenceAgents.stop(effect.runId);
        return;
      case "fence-answer":
        this.#fenceAnswer = effect.refused;
        return;
      case "count-all-answer":
        this.#isReset = effect.isReset;
        if (effect.isReset) this.config.countAll();
        return;
      case "pause-client":
      case "resume-client":
        this.#server?.setPaused(effect.clientId, effect.kind === "pause-client");
        return;
      case "end-client":
        this.#server?.kill(effect.clientId, effect.reason);
        return;
      case "look-at-life":
        void this.#lookAtLife(effect, life);
        return;
      case "pause-peer":
      case "resume-peer":
        life.peers.setPaused(effect.nodeid, effect.kind === "pause-peer");
        return;
      case "view":
        this.#options.onView(effect.view);
        this.config.view(effect.view, effect.counting);
        return;
      case "view-settled":
        this.config.settled(effect.viewId, effect.version);
        return;
      case "evicted":
        this.#evicted(effect.reason);
        return;
      case "may-leave":
        this.#mayLeave?.();
        return;
      case "left":
        this.#left?.();
        return;
      case "log":
        this.#options.log[effect.level](effect.fields, effect.message);
        return;
      default:
        assertNever(effect, "effect");
    }
  }

  async #lookAtLife({ lookId, wanted }: Extract<Effect, { kind: "look-at-life" }>, life: Life): Promise<void> {
    const seen = await this.#lifeLook.look(wanted);
    if (this.#life === life) this.step({ kind: "life-seen", lookId, seen });
  }

  async #persist(change: Partial<StoredState>, life: Life, done: NodeEvent): Promise<void> {
    const isKept = await this.#state.keep(change, () => this.#life === life);
    if (isKept && this.#life === life) this.step(done);
  }

  /** What this node must keep it cannot: the others go on at once, as after any leaving, and dlmd ends with that error. */
  async #leaveFor(unable: OperatingError): Promise<void> {
    this.#isUnable = true;
    // It waits for that disk, if it was leaving already.
    this.#mayLeave?.();
    const { log, fatal } = this.#options;
    log.error({ error: unable.message }, "leaving the cluster");
    // What is written at the end may wait for that very disk. Silence makes the others go on, too.
    const limitMs = leaveShare * this.config.config.timeoutMs;
    await Promise.race([this.leave(unable.message), sleep(limitMs, undefined, { ref: false })]);
    fatal(unable);
  }

  /** Everything this incarnation held is void; the clients hear it by losing their connections. */
  #evicted(reason: string): void {
    const { log, fatal } = this.#options;
    log.error({ reason }, "evicted");
    const ended = this.#end();
    this.#server?.dropClients(`the cluster went on without this node: ${reason}`);
    // One that leaves has left: there is nobody to tell.
    const next = ended.then(() => (this.#leaving === null ? this.#begin() : this.#left?.()));
    this.#rebirth = next.catch((error: unknown) => fatal(error as Error));
  }

  /** Ends the life: from here on no event reaches its core. */
  async #end(): Promise<void> {
    const life = this.#life;
    this.#life = null;
    this.#unpacking = false;
    life?.datagrams.flush();
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#timerAt = Number.POSITIVE_INFINITY;
    if (life === null) return;
    this.#closing = life.close();
    // Their results are of a life that has ended, and another node begins.
    await this.#fenceAgents.stopAll();
    await this.#closing;
    await this.#state.settle();
  }

  setKeyring(keyring: Keyring): void {
    this.#keyring = keyring;
    this.#life?.datagrams.setKeyring(keyring);
    this.#life?.peers.setKeyring(keyring);
    this.#server?.tellOverlayKeys(this.#overlayKeys());
  }

  get othersAreQuorate(): boolean {
    return this.#life?.node.othersAreQuorate ?? true;
  }

  programsAtWork(): readonly string[] {
    return this.#life?.node.programsAtWork() ?? [];
  }

  acknowledgeFence(nodeid: number, by: string): FencedNode {
    return acknowledgeFence(nodeid, by, this.query("status") as StatusAnswer | null, (result) => {
      this.#fenceAnswer = null;
      this.step(result);
      return this.#fenceAnswer;
    });
  }

  orderFence(nodeid: number, by: string): { readonly nodeid: number } {
    this.#fenceAnswer = null;
    this.step({ kind: "fence-order", nodeid, by });
    if (this.#fenceAnswer === "") return { nodeid };
    throw notOrdered(nodeid, this.#fenceAnswer);
  }

  countAll(by: string): { readonly was: readonly number[] } {
    return countAll(by, this.query("status") as StatusAnswer | null, (event) => {
      this.#isReset = null;
      this.step(event);
      return this.#isReset;
    });
  }

  query(what: QueryWhat): unknown {
    return this.#life?.node.query(what, this.#options.nowMs()) ?? null;
  }

  leave(reason = "dlmd stops"): Promise<void> {
    this.#leaving ??= this.#leave(reason);
    return this.#leaving;
  }

  async #leave(reason: string): Promise<void> {
    const left = new Promise<void>((resolve) => (this.#left = resolve));
    await this.#server?.close(reason);
    await this.#rebirth;
    if (this.#life !== null) {
      // While it is a member the others hear of it; a node whose disk keeps nothing cannot take part in that.
      const mayLeave = new Promise<void>((resolve) => (this.#mayLeave = resolve));
      if (!this.#isUnable) this.step({ kind: "announce-leave" });
      if (!this.#isUnable) await Promise.race([mayLeave, left]);
    }
    // Evicted in that time, it has left.
    if (this.#life !== null) {
      // Another node begins with what they did (hazard M2).
      await Promise.race([this.#fenceAgents.stopAll(), left]);
      // Nobody waits for the lease of a node that leaves; if it is evicted meanwhile, nobody says that it has ended.
      await Promise.race([this.#life.heartbeats.endLease(), left]);
      this.step({ kind: "leave" });
      await left;
    }
    await this.#end();
    await this.#closing;
    await this.config.close();
  }
}

/** Starts a dlmd; resolves when its socket listens. Rejects with OperatingError. */
export async function startDriver(options: DriverOptions): Promise<Driver> {
  const driver = new NodeDriver(options);
  await driver.start();
  return driver;
}
