/**
 * One node of the cluster as a pure state machine: membership, recovery and locks put together. What comes in and goes
 * out: node-api.ts. Nothing here reads a clock or does I/O.
 */
import { assert, assertNever } from "./base/assert.ts";
import type { GoneClient, ViewInfo, ClientEvent, QueryWhat } from "./wire/program.ts";
import type { QueriedNode } from "./query/queried-node.ts";
import { inspectHere, Inspections } from "./query/inspect.ts";
import { LifeAsks } from "./query/life-asks.ts";
import { type EngineEvent, livingIncarnation, type View } from "./engine/engine.ts";
import type { LockPort } from "./lock/holder.ts";
import type { LockClient } from "./lock/lkb.ts";
import { GONE_LIMIT_MS, ClientDeathBarrier } from "./clients/death-barrier.ts";
import { LockManager } from "./lock/lock-manager.ts";
import { BuiltinEngine, type BuiltinPort } from "./engine/builtin/engine-core.ts";
import type { CorosyncPort } from "./engine/corosync/corosync-api.ts";
import { CorosyncEngine } from "./engine/corosync/corosync-core.ts";
import type { Effect, Node, NodeBoot, NodeEvent, NodeLimits } from "./node-api.ts";
import type { NodeConfiguration } from "./engine/boot.ts";
import { Clients, type ClientsPort } from "./clients/clients.ts";
import { ClientGroups } from "./clients/client-groups.ts";
import { describeNodes, describeStatus } from "./query/describe.ts";
import { ViewHistory } from "./query/view-history.ts";
import { noPlans } from "./config/fence-plan.ts";
import { noFencing } from "./fencing/fence-table.ts";
import { Fencing } from "./fencing/fencing.ts";
import { LockspaceGroup } from "./lockspaces/lockspace-group.ts";
import { leaseShare } from "./membership/lease.ts";
import { Outbox } from "./outbox.ts";
import { defaultPlockLimits, type PlockPort, PlockService } from "./plock/service.ts";
import { noFences } from "./recovery/fence-gate.ts";
import { Mistrust } from "./recovery/mistrust.ts";
import { Recovery } from "./recovery/recovery.ts";
import type { RecoveryPort } from "./recovery/recovery-port.ts";
import { FENCING_GROUP } from "./wire/fencing-group.ts";
import { LOCKSPACE_GROUP } from "./wire/lockspace-group.ts";
import { isMajority } from "./config/votes.ts";
import { maxNodes } from "./wire/order-datagram.ts";
import type { PeerMessage } from "./wire/peer.ts";
import { isPlockMessage } from "./wire/peer-plock.ts";
import { hasMember, isIncarnation, type Member, noView, type ViewId, viewName } from "./wire/view-id.ts";

export const defaultLimits: NodeLimits = {
  locksPerClient: 1_000_000,
  ...defaultPlockLimits,
  savedRequestsPerClient: 4096,
  savedMessagesPerPeer: 65_536,
  lateMessages: 262_144,
  deadlockAfterMs: 1000,
  rebuildStepsPerTurn: 4096,
  searchStepsPerTurn: 4096,
  goneLimitMs: GONE_LIMIT_MS,
};

type NodeEngine = BuiltinEngine | CorosyncEngine;
type NodeEnginePort = BuiltinPort & CorosyncPort;

export function createNode(boot: NodeBoot): Node {
  const { corosync } = boot;
  if (corosync === undefined) return new NodeCore(boot);
  return new NodeCore<CorosyncEngine>(boot, (port) => new CorosyncEngine(boot, corosync, port));
}

export class NodeCore<E extends NodeEngine = BuiltinEngine> implements Node, QueriedNode {
  readonly boot: NodeBoot;
  configuration: NodeConfiguration;
  readonly limits: NodeLimits;
  readonly clients: Clients;
  readonly locks: LockManager;
  readonly plocks: PlockService;
  readonly engine: E;
  readonly recovery: Recovery;
  readonly groups: ClientGroups;
  readonly lockspaces: LockspaceGroup;
  readonly fencing: Fencing;
  readonly deaths: ClientDeathBarrier;
  readonly views: ViewHistory = new ViewHistory();
  readonly #inspections: Inspections;
  readonly #lifeAsks: LifeAsks;
  readonly #outbox = new Outbox();
  readonly #mistrusted: Mistrust = new Mistrust();
  /** Members of the last quorate view: who of them is missing in the next one is gone. */
  #known: readonly Member[] = [];
  /** Of the step, or of the last one. All cores read it. */
  readonly #time: { nowMs: number };
  #ended = false;
  #announced = "";
  #settled = "";

  /** `newEngine`: another one than the builtin. */
  constructor(boot: NodeBoot, newEngine?: (port: NodeEnginePort) => E) {
    assert(isIncarnation(boot.incarnation), `incarnation of 16 hex digits expected, found ${boot.incarnation}`);
    assert(boot.nodes.length <= maxNodes, `${boot.nodes.length} nodes configured, at most ${maxNodes} allowed`);
    assert(
      // Of a change that removes it the outcome is open.
      [...boot.nodes, ...(boot.former ?? [])].some((node) => node.nodeid === boot.nodeid),
      `node ${boot.nodeid} is not among the configured ones`,
    );
    const { nodeid, nodes, quorum, former, fencePlans } = boot;
    this.boot = boot;
    this.configuration = {
      version: boot.configVersion,
      nodes,
      ...(quorum === undefined ? {} : { quorum }),
      ...(fencePlans === undefined ? {} : { fencePlans }),
      ...(former === undefined ? {} : { former }),
    };
    this.limits = { ...defaultLimits, ...boot.limits };
    const time = (this.#time = { nowMs: boot.nowMs });
    const port = this.#enginePort();
    this.engine = newEngine?.(port) ?? (new BuiltinEngine(boot, port) as E);
    this.lockspaces = new LockspaceGroup(boot, {
      command: (command) => this.engine.command(command),
      usable: (lockspace) => this.clients.usable(lockspace),
      protest: this.#protest,
    });
    this.fencing = this.#newFencing(boot);
    this.deaths = new ClientDeathBarrier(this.limits.goneLimitMs, {
      tell: (client, event) => {
        this.#toClient(client, event);
        this.clients.adjustPause(client);
      },
      end: this.#endClient,
      // Its blocking ASTs were not waited for meanwhile.
      believed: (client) => this.locks.holder.unanswered.review(client, time.nowMs),
    });
    const lockPort = this.#lockPort();
    this.locks = new LockManager(nodeid, time, lockPort, this.limits);
    this.plocks = new PlockService(nodeid, time, lockPort, this.limits);
    this.recovery = new Recovery(
      nodeid,
      time,
      { engine: this.engine, locks: this.locks, files: this.plocks, deaths: this.deaths },
      this.#recoveryPort(),
      {
        heldLimit: this.limits.savedMessagesPerPeer,
        lateLimit: this.limits.lateMessages,
        stepsPerTurn: this.limits.rebuildStepsPerTurn,
        fencedLockspaces: boot.fencedLockspaces ?? [],
        fences: boot.fences ?? noFences,
      },
    );
    this.recovery.gate.all = quorum?.twoNode === true;
    const parts = { locks: this.locks, plocks: this.plocks, deaths: this.deaths, service: this.recovery };
    this.clients = new Clients(boot, time, parts, this.#clientsPort(), this.limits.savedRequestsPerClient);
    const asking = {
      members: () => this.recovery.view?.members ?? [],
      send: (to: number, message: PeerMessage) => this.recovery.send(to, message),
      toClient: this.#toClient,
    };
    this.#inspections = new Inspections(nodeid, {
      ...asking,
      protest: this.#protest,
      viewInfo: () => this.viewInfo(),
      configured: () => this.configuration.nodes.map((node) => node.nodeid),
      here: (wanted, limit) => inspectHere(this, wanted, limit, time.nowMs),
    });
    this.#lifeAsks = new LifeAsks(nodeid, {
      ...asking,
      look: (lookId, wanted) => this.#outbox.push({ kind: "look-at-life", lookId, wanted }),
    });
    this.groups = new ClientGroups({
      nodeid,
      protest: this.#protest,
      toClient: this.#toClient,
      command: (command) => this.engine.command(command),
      client: (clientId) => this.clients.all.get(clientId),
      isHeir: (heir, clientId) => this.clients.kept.find(heir, clientId) !== null,
      adjustPause: (client) => this.clients.adjustPause(client),
    });
  }

  /** CLOCK_REALTIME, as far as it ran like our clock since the start. */
  #wallMs(): number {
    const { wallMs = 0, nowMs } = this.boot;
    return Math.round(wallMs + this.#time.nowMs - nowMs);
  }

  #newFencing({ nodeid, incarnation, bootId = "", fencing, fencePlans }: NodeBoot): Fencing {
    const self = { nodeid, incarnation, bootId };
    const time = this.#time;
    return new Fencing(self, time, () => this.#wallMs(), fencing ?? noFencing, fencePlans ?? noPlans, {
      command: (command) => this.engine.command(command),
      serving: () => this.recovery.serving,
      quorum: () => this.engine.quorum,
      // That of a quorum by itself has no end, and is over without a word when others are a quorum without it.
      leaseEndMs: () => Math.min(this.engine.leaseEndMs, time.nowMs + leaseShare * this.boot.timeoutMs),
      heard: (other) => {
        const peer = this.engine.peers.get(other);
        return peer === undefined ? null : livingIncarnation(peer, time.nowMs, this.boot.timeoutMs);
      },
      timeoutMs: this.boot.timeoutMs,
      bar: (nodeids) => this.engine.bar(nodeids),
      run: (runId, victim, device) => this.#outbox.push({ kind: "run-fence", runId, nodeid: victim, device }),
      stop: (runId) => this.#outbox.push({ kind: "stop-fence", runId }),
      keep: (kept) => this.#outbox.push({ kind: "keep-fencing", fencing: kept }),
      unfence: (runId, device, isAllowed) => this.#outbox.push({ kind: "unfence", runId, device, isAllowed }),
      proved: (life) => this.recovery.proved(life),
      name: (other) => this.configuration.nodes.find((node) => node.nodeid === other)?.name ?? `node ${other}`,
      log: this.#log,
      protest: this.#protest,
    });
  }

  // ------------------------------------------------------------------------------------------------------ the ports

  #enginePort(): NodeEnginePort {
    return {
      multicast: (data) => this.#outbox.push({ kind: "multicast", data }),
      datagram: (to, message) => {
        if (message.kind !== "heartbeat") this.#outbox.push({ kind: "datagram", to, message });
      },
      beat: (content, now) => this.#outbox.push({ kind: "beat", content, now }),
      persist: (promisedEpoch, lineage) => this.#outbox.push({ kind: "persist", promisedEpoch, lineage }),
      event: (event) => this.#engineEvent(event),
      stop: () => this.#stop(),
      install: (view) => this.#install(view),
      evicted: (reason) => this.#end({ kind: "evicted", reason }),
      mayLeave: () => this.#outbox.push({ kind: "may-leave" }),
      left: () => this.#end({ kind: "left" }),
      log: this.#log,
      protest: this.#protest,
    };
  }

  #engineEvent(event: EngineEvent): void {
    if ("group" in event && event.group === LOCKSPACE_GROUP) return this.lockspaces.event(event);
    if ("group" in event && event.group === FENCING_GROUP) return this.fencing.event(event);
    // First: what the dead had open is looked at when the view is installed.
    if (!("group" in event)) {
      this.lockspaces.event(event);
      this.fencing.event(event);
    }
    this.groups.event(event);
  }

  #lockPort(): LockPort & PlockPort {
    return {
      toPeer: (nodeid, message) => this.recovery.send(nodeid, message),
      toClient: this.#toClient,
      protest: (nodeid, message) => this.#mistrust(nodeid, message),
      blocks: (lockspace) => this.recovery.blocks(lockspace),
      opensLockspace: (lockspace) => this.lockspaces.open(lockspace),
      closesLockspace: (lockspace) => this.lockspaces.close(lockspace),
    };
  }

  #recoveryPort(): RecoveryPort {
    return {
      transmit: (nodeid, view, message) => this.#outbox.peer(nodeid, view, message),
      pausePeer: (nodeid, pause) => this.#outbox.push({ kind: pause ? "pause-peer" : "resume-peer", nodeid }),
      crowding: () => this.#crowding(),
      keep: (fences) => this.#outbox.push({ kind: "keep-fences", fences }),
      clients: () => this.clients.all.values(),
      openedBy: (member) => this.lockspaces.openedBy(member),
      receive: (from, message) => {
        if (message.kind === "inspect" || message.kind === "inspected") this.#inspections.receive(from, message);
        else if (message.kind === "ask-life" || message.kind === "life-seen") this.#lifeAsks.receive(from, message);
        else if (message.kind === "lockspaces-known") this.#lockspacesKnown(from, message.no);
        else if (isPlockMessage(message)) this.plocks.receive(from, message);
        else assert(this.clients.receive(from, message), `message ${message.kind} was not handled`);
      },
      protest: (nodeid, message) => this.#mistrust(nodeid, message),
      log: this.#log,
    };
  }

  #clientsPort(): ClientsPort {
    return {
      toClient: this.#toClient,
      pauseClient: (clientId, pause) => this.#outbox.push({ kind: pause ? "pause-client" : "resume-client", clientId }),
      viewInfo: () => this.viewInfo(),
      query: (what) => this.query(what, this.#time.nowMs),
      inspect: (client, request) => this.#inspections.ask(client, request, this.#time.nowMs),
      askLife: (client, request) => this.#lifeAsks.ask(client, request, this.#time.nowMs),
      fenceLife: (question) => this.fencing.requests.ask(question),
      group: (client, request) => this.groups.request(client, request),
      groupsGone: (client) => {
        if (client.kept) return this.groups.keep(client);
        this.groups.gone(client);
      },
      groupsWait: (client) => this.groups.waits(client),
      groupBytesWaiting: (client) => this.groups.bytesWaiting(client),
      endClient: this.#endClient,
      isUsable: (lockspace) => this.lockspaces.isUsable(lockspace),
      log: this.#log,
    };
  }

  #lockspacesKnown(from: number, no: number): void {
    const { incarnation } = this.recovery.channels.get(from).channel;
    if (incarnation !== null) this.lockspaces.receiveKnown({ nodeid: from, incarnation }, no);
  }

  readonly #log = (level: "debug" | "info" | "warn" | "error", message: string, fields: Readonly<Record<string, unknown>>): void =>
    this.#outbox.push({ kind: "log", level, message, fields });

  readonly #toClient = (client: LockClient, event: ClientEvent): void => {
    if (!client.gone) this.#outbox.client(client.id, event);
  };

  readonly #endClient = ({ id: clientId, pid, program }: LockClient, reason: string): void => {
    this.#log("error", "a program hangs and has to end", { clientId, pid, program, reason });
    this.#outbox.push({ kind: "end-client", clientId, reason });
  };

  #crowding(): void {
    for (const client of this.clients.all.values()) this.clients.adjustPause(client);
  }

  #end(effect: Effect): void {
    this.#ended = true;
    this.recovery.end();
    this.fencing.end();
    this.#outbox.push(effect);
  }

  /** Of what nobody waits for: it is dropped. */
  readonly #protest = (nodeid: number, found: string): void =>
    this.#log("error", "a peer sent what it cannot have meant", { nodeid, found });

  /** Its sender may wait for an answer: everything is named anew, or without that peer. */
  #mistrust(nodeid: number, found: string, unreadable = false): void {
    this.recovery.mistrust(nodeid);
    if (this.engine.broken) return;
    const incarnation = this.engine.peers.get(nodeid)?.incarnation ?? null;
    if (this.#mistrusted.seen(nodeid, incarnation, unreadable, this.#time.nowMs) === "rebuild") {
      this.#protest(nodeid, found);
      // Of another node nothing is in the tables.
      if (incarnation === null || !hasMember(this.recovery.view?.members ?? [], nodeid, incarnation)) return;
      return this.engine.rebuildView(`node ${nodeid} sent what it cannot have meant`);
    }
    if (!this.engine.distrust(nodeid)) return;
    this.#protest(nodeid, `${found}: once too often, so it is left out, or this node is`);
  }

  /** It sends on the next connection what it sent on this one: no time heals what cannot be read (hazard H13). */
  #peerDown(nodeid: number, incarnation: string, unreadable: string | null): void {
    if (!this.engine.linkDown(nodeid, incarnation)) return;
    this.recovery.channels.linkDown(nodeid, incarnation);
    if (unreadable !== null) this.#mistrust(nodeid, `bytes that cannot be read: ${unreadable}`, true);
  }

  // --------------------------------------------------------------------------------------------------------- steps

  step(event: NodeEvent, nowMs: number): Effect[] {
    if (this.#ended) return [];
    this.#time.nowMs = nowMs;
    this.clients.begin();
    this.engine.begin(nowMs);
    this.#updateService();
    this.#dispatch(event);
    this.clients.expire();
    if (this.recovery.serving) this.plocks.search(this.limits.searchStepsPerTurn);
    if (this.deaths.changed()) this.recovery.goneChanged();
    this.#inspections.expire(nowMs);
    this.#lifeAsks.expire(nowMs);
    const asked = this.groups.touched || this.lockspaces.touched || this.fencing.touched;
    if (!this.#ended && (event.kind !== "client-requests" || asked)) {
      this.#advanceFencing();
      this.#endEngine();
      for (const { nodeid, no } of this.lockspaces.takeAcknowledgements(this.recovery.view?.members ?? []))
        this.recovery.send(nodeid, { kind: "lockspaces-known", no });
      this.recovery.advance();
      this.#updateService();
      this.#tellSettled();
    }
    return this.#outbox.take();
  }

  #advanceFencing(): void {
    this.fencing.victims(this.recovery.gate.open);
    this.fencing.advance();
  }

  #tellSettled(): void {
    const view = this.engine.settledView(this.#time.nowMs);
    const { version } = this.configuration;
    const settled = view === null ? "" : `${viewName(view.id)} ${version}`;
    if (settled === this.#settled) return;
    this.#settled = settled;
    if (view !== null) this.#outbox.push({ kind: "view-settled", viewId: viewName(view.id), version });
  }

  #endEngine(): void {
    this.groups.touched = false;
    do {
      this.lockspaces.touched = false;
      this.fencing.touched = false;
      this.engine.end();
      // What it delivered may have asked for more.
      if (!this.#ended) this.fencing.advance();
    } while ((this.lockspaces.touched || this.fencing.touched) && !this.#ended);
    while (this.groups.roomy && !this.#ended) {
      this.groups.drain();
      this.engine.end();
    }
  }

  nextDeadline(): number | null {
    if (this.#ended) return null;
    const asked = Math.min(this.#inspections.deadlineMs, this.#lifeAsks.deadlineMs);
    let deadline = Math.min(this.engine.nextDeadline(), this.clients.deadlineMs, asked, this.fencing.deadlineMs);
    if (this.recovery.busy || (this.recovery.serving && this.plocks.searching)) return this.#time.nowMs;
    if (this.recovery.serving) deadline = Math.min(deadline, this.engine.leaseEndMs);
    const serveFromMs = this.recovery.view?.serveFromMs ?? 0;
    if (this.recovery.phase === "wait" && serveFromMs > this.#time.nowMs) deadline = Math.min(deadline, serveFromMs);
    return deadline;
  }

  /** Whether a request would be served at that time. */
  servesAt(nowMs: number): boolean {
    return this.recovery.serving && nowMs < this.engine.leaseEndMs;
  }

  #dispatch(event: NodeEvent): void {
    switch (event.kind) {
      case "client-requests":
        return this.clients.requests(event.clientId, event.requests);
      case "peer-frame":
        return this.#peerFrame(event.nodeid, event.view, event.messages);
      case "datagram":
      case "corosync":
        return this.#fromOutside(event);
      case "heartbeat":
        return this.engine.heartbeat(event.beat);
      case "acks-stopped":
        return this.engine.acksStopped(event.stops);
      case "tick":
        this.recovery.channels.acknowledge();
        return this.engine.tick();
      case "peer-up":
        if (this.engine.linkUp(event.nodeid, event.incarnation)) this.recovery.channels.linkUp(event.nodeid, event.incarnation);
        return;
      case "peer-refused":
        return this.engine.linkRefused(event.nodeid, event.reason);
      case "peer-down":
        return this.#peerDown(event.nodeid, event.incarnation, event.unreadable);
      case "configuration":
        this.configuration = event.configuration;
        this.recovery.gate.all = event.configuration.quorum?.twoNode === true;
        this.fencing.configure(event.configuration.fencePlans ?? noPlans);
        return this.engine.configure(event.configuration);
      case "fences-kept":
        return this.recovery.fencesKept();
      case "persisted":
        return this.engine.persisted(event.promisedEpoch);
      case "client-connected":
        return this.clients.connected(event.clientId, event.identity);
      case "client-slow":
        return this.#clientSlow(event.clientId, event.unreadBytes);
      case "client-spared":
        return this.clients.spared(event.clientId);
      case "client-gone":
        return this.clients.gone(event.clientId, event.endedHere);
      case "life-seen":
        return this.#lifeAsks.seen(event.lookId, event.seen);
      case "fence-result":
        return this.#fenceResult(event);
      case "fence-ack":
        this.#outbox.push({ kind: "fence-answer", refused: this.#fenceAck(event.nodeid, event.by) });
        return;
      case "fence-order":
        this.#outbox.push({ kind: "fence-answer", refused: this.#fenceOrder(event.nodeid, event.by) });
        return;
      case "fence-ran":
        return this.fencing.ran(event.runId, event.result);
      case "count-all":
        return this.#countAll(event.by);
      case "announce-leave":
        this.clients.kept.endAll("this node leaves the cluster");
        this.fencing.leave();
        this.engine.announceLeave();
        return this.engine.tick();
      case "leave":
        this.clients.kept.endAll("this node leaves the cluster");
        this.fencing.leave();
        this.engine.leave();
        this.#updateService();
        return this.engine.tick();
      default:
        assertNever(event, "event");
    }
  }

  /** An engine hears nothing of what belongs to another. */
  #fromOutside(event: Extract<NodeEvent, { kind: "datagram" | "corosync" }>): void {
    const engine: NodeEngine = this.engine;
    if (event.kind === "datagram" && engine instanceof BuiltinEngine) engine.datagram(event.message);
    if (event.kind === "corosync" && engine instanceof CorosyncEngine) engine.receive(event.event);
  }

  #clientSlow(clientId: number, unreadBytes: number): void {
    const client = this.clients.all.get(clientId);
    if (client === undefined || client.gone) return;
    this.groups.slow(client, `this program has not read ${unreadBytes} bytes that were sent to it: it is in no group any more`);
  }

  #fenceResult({ nodeid, incarnation, failingView, by }: Extract<NodeEvent, { kind: "fence-result" }>): void {
    const refused = this.recovery.fenced({ nodeid, incarnation, failingView });
    const fields = { nodeid, incarnation, view: viewName(failingView), by };
    this.#outbox.push({ kind: "fence-answer", refused });
    if (refused === "") this.#log("info", "fence result taken", fields);
    else this.#log("warn", `fence result refused: ${refused}`, fields);
  }

  #fenceAck(nodeid: number, by: string): string {
    if (this.fencing.requests.acknowledge(nodeid, by)) return "";
    if (this.fencing.table.isMember(nodeid)) return `node ${nodeid} is a member of the view: fence it before saying so`;
    if (this.fencing.table.want(nodeid) === undefined) return `nothing waits until node ${nodeid} is known to be dead`;
    return "this node has no quorum, or a view is being agreed upon: say it where there is a quorum, or when there is one again";
  }

  #countAll(by: string): void {
    const isReset = this.engine.countAll();
    this.#outbox.push({ kind: "count-all-answer", isReset });
    if (isReset) this.#log("warn", "the votes of all nodes count again, by an operator's word", { by });
  }

  #fenceOrder(nodeid: number, by: string): string {
    if (!this.configuration.nodes.some((node) => node.nodeid === nodeid)) return `node ${nodeid} is not in the configuration`;
    const members = this.recovery.view?.members ?? [];
    const rest = members.map((member) => member.nodeid).filter((member) => member !== nodeid);
    const isOne = this.configuration.quorum?.twoNode === true;
    const { counting } = this.engine;
    const voters = this.configuration.nodes.filter((node) => counting?.includes(node.nodeid) ?? true);
    if (rest.length < members.length && !isOne && !isMajority([voters], rest)) {
      return `without node ${nodeid} this view has no quorum, and nobody could fence it: ask for it when more nodes are there`;
    }
    const incarnation = members.find((member) => member.nodeid === nodeid)?.incarnation ?? this.engine.peers.get(nodeid)?.incarnation;
    return this.fencing.requests.order(nodeid, by, incarnation ?? null);
  }

  #peerFrame(nodeid: number, view: ViewId, messages: readonly PeerMessage[]): void {
    const link = this.engine.peers.get(nodeid)?.link;
    if (link != null) this.recovery.receiveFrame(nodeid, link, view, messages);
  }

  query(what: QueryWhat, nowMs: number): unknown {
    return what === "status" ? describeStatus(this, this.viewInfo(), nowMs) : describeNodes(this, nowMs);
  }

  get othersAreQuorate(): boolean {
    return this.engine.othersAreQuorate;
  }

  programsAtWork(): string[] {
    const using = [...this.clients.all.values()].filter(({ lockspaces, gone, kept }) => lockspaces.size > 0 && (!gone || kept));
    return using.map(
      ({ pid, program, kept }) => `${program === "" ? "a program" : program} (process ${pid}${kept ? ", kept for an heir" : ""})`,
    );
  }

  // -------------------------------------------------------------------------------------------------- lock service

  #stop(): void {
    this.recovery.stop();
    this.clients.stop();
    this.#updateService();
  }

  #install(view: View): void {
    if (view.quorum.quorate) {
      const gone = this.#known.filter((member) => !hasMember(view.members, member.nodeid, member.incarnation));
      this.#known = view.members;
      const clients = gone.map(({ nodeid, incarnation }) => ({ nodeid, incarnation, clientId: null }));
      if (clients.length > 0) this.#askAbout(clients);
    }
    this.recovery.enterView(view);
    this.views.enterView(this.viewInfo(), this.#wallMs());
    this.#inspections.viewChanged();
    this.#lifeAsks.viewChanged();
    this.#updateService();
  }

  #askAbout(gone: readonly GoneClient[]): void {
    const clients = this.clients.all.values();
    const opened = gone.map((member) => this.lockspaces.openedBy(member));
    const concerns = (lockspace: string): boolean => opened.some((names) => names === null || names.has(lockspace));
    this.deaths.ask(clients, { gone, concerns, ofNode: true, done: () => {} }, this.#time.nowMs);
  }

  /** Starts and ends the service as phase, promise and lease say, and tells everybody. */
  #updateService(): void {
    const changed = this.recovery.updateService();
    const { serving } = this.recovery;
    if (changed || !serving) this.#announce();
    if (changed && serving) this.#enterService();
  }

  #enterService(): void {
    this.recovery.reviewGates();
    this.recovery.drain();
    this.clients.enterService();
  }

  viewInfo(): ViewInfo {
    const view = this.recovery.view;
    const { quorum } = this.engine;
    return {
      viewId: viewName(view?.id ?? noView),
      quorate: quorum.quorate && view !== null,
      members: (view?.members ?? []).map((member) => member.nodeid),
      incarnations: (view?.members ?? []).map((member) => member.incarnation),
      quorumReason: quorum.reason,
      running: this.recovery.serving,
    };
  }

  #announce(): void {
    const view = this.recovery.view;
    const mark = `${view === null ? "" : viewName(view.id)} ${this.recovery.serving}`;
    if (mark === this.#announced) return;
    this.#announced = mark;
    const info = this.viewInfo();
    const counting = view === null || !view.quorum.quorate ? null : { id: view.id, electorate: view.quorum.electorate };
    this.#outbox.push({ kind: "view", view: info, counting });
    for (const client of this.clients.all.values()) this.#toClient(client, { kind: "view", view: info });
  }
}
