/**
 * One node of the cluster as a pure state machine: membership, recovery and locks put together. What comes in and goes
 * out: node-api.ts. Nothing here reads a clock or does I/O.
 */
import { assert, assertNever } from "./base/assert.ts";
import type { ViewInfo } from "./client/api.ts";
import { inspectHere, Inspections } from "./inspect.ts";
import type { Client } from "./lock/client.ts";
import { GoneAsks } from "./lock/gone.ts";
import { LockManager } from "./lock/lock-manager.ts";
import { BuiltinEngine } from "./engine/builtin/engine-core.ts";
import type { Membership, View } from "./membership/membership.ts";
import { quorumOf, quorumReason } from "./membership/quorum.ts";
import type {
  ClientEvent,
  ClientRequest,
  Effect,
  Node,
  NodeBoot,
  NodeEvent,
  NodeLimits,
  QueryWhat,
  NodeConfiguration,
} from "./node-api.ts";
import { Clients } from "./node-clients.ts";
import { NodeGroups } from "./node-groups.ts";
import { describeLocks, describeNodes, describeStatus } from "./node-query.ts";
import { Outbox } from "./outbox.ts";
import { defaultPlockLimits, PlockService } from "./plock/service.ts";
import { noFences } from "./recovery/fence-gate.ts";
import { Recovery } from "./recovery/recovery.ts";
import { maxNodes } from "./wire/order-datagram.ts";
import type { PeerMessage } from "./wire/peer.ts";
import { isPlockMessage } from "./wire/peer-plock.ts";
import { hasMember, isIncarnation, type Member, noView, type ViewId, viewName } from "./wire/view-id.ts";

export const defaultLimits: NodeLimits = {
  locksPerClient: 1_000_000,
  ...defaultPlockLimits,
  savedRequestsPerClient: 4096,
  savedMessagesPerPeer: 65_536,
  deadlockAfterMs: 1000,
  moveAfter: 16,
  rebuildStepsPerTurn: 4096,
};

export function createNode(boot: NodeBoot): Node {
  return new NodeCore(boot);
}

export class NodeCore implements Node {
  readonly boot: NodeBoot;
  configuration: NodeConfiguration;
  readonly limits: NodeLimits;
  readonly clients: Clients;
  readonly locks: LockManager;
  readonly plocks: PlockService;
  readonly engine: BuiltinEngine;
  readonly recovery: Recovery;
  readonly groups: NodeGroups;
  readonly #inspections: Inspections;
  readonly #outbox = new Outbox();
  readonly #asks: GoneAsks;
  /** Members of the last quorate view: who of them is missing in the next one is gone. */
  #known: readonly Member[] = [];
  #leaseEndMs = Number.NEGATIVE_INFINITY;
  #nowMs: number;
  #ended = false;
  /** Writes of who is not known to be dead that are under way. */
  #fencesUnkept = 0;
  #announced = "";

  constructor(boot: NodeBoot) {
    assert(isIncarnation(boot.incarnation), `incarnation of 16 hex digits expected, found ${boot.incarnation}`);
    assert(boot.nodes.length <= maxNodes, `${boot.nodes.length} nodes configured, at most ${maxNodes} allowed`);
    assert(
      boot.nodes.some((node) => node.nodeid === boot.nodeid),
      `node ${boot.nodeid} is not among the configured ones`,
    );
    this.boot = boot;
    this.configuration = {
      version: boot.configVersion,
      nodes: boot.nodes,
      ...(boot.quorum === undefined ? {} : { quorum: boot.quorum }),
      ...(boot.former === undefined ? {} : { former: boot.former }),
    };
    this.limits = { ...defaultLimits, ...boot.limits };
    this.#nowMs = boot.nowMs;
    const host = this.#host();
    this.#asks = new GoneAsks((client, event) => {
      this.#toClient(client, event);
      this.clients.adjustPause(client);
    });
    this.#inspections = new Inspections(boot.nodeid, {
      ...host,
      members: () => this.recovery.view?.members ?? [],
      configured: () => this.configuration.nodes.map(({ nodeid }) => nodeid),
      here: (wanted, limit) => inspectHere(this, wanted, limit, this.#nowMs),
    });
    const { locksPerClient, deadlockAfterMs, moveAfter } = this.limits;
    this.locks = new LockManager(boot.nodeid, host, locksPerClient, deadlockAfterMs, moveAfter);
    this.locks.tables.unsentLimit = this.limits.savedMessagesPerPeer;
    this.locks.tables.crowding = () => host.crowding();
    this.plocks = new PlockService(boot.nodeid, host, this.limits);
    this.groups = new NodeGroups({
      ...host,
      nodeid: () => boot.nodeid,
      command: (command) => this.engine.command(command),
      client: (clientId) => this.clients.all.get(clientId),
      adjustPause: (client) => this.clients.adjustPause(client),
    });
    this.engine = new BuiltinEngine(boot, host);
    this.clients = new Clients(boot, this.locks, this.plocks, this.#asks, this.limits.savedRequestsPerClient, host);
    this.recovery = new Recovery(boot.nodeid, this.locks, host, {
      heldLimit: this.limits.savedMessagesPerPeer,
      stepsPerTurn: this.limits.rebuildStepsPerTurn,
      fencedLockspaces: boot.fencedLockspaces ?? [],
      fences: boot.fences ?? noFences,
    });
  }

  get membership(): Membership {
    return this.engine.membership;
  }

  // ------------------------------------------------------------------------------------------------------ the seams

  #host(): import("./engine/builtin/engine-core.ts").EngineHost &
    import("./recovery/recovery.ts").RecoveryHost &
    import("./lock/holder.ts").LockPort &
    import("./node-clients.ts").ClientsHost {
    const log = (level: "debug" | "info" | "warn" | "error", message: string, fields: Readonly<Record<string, unknown>>): void =>
      this.#outbox.push({ kind: "log", level, message, fields });
    const protest = (nodeid: number, message: string): void =>
      log("error", "a peer sent what it cannot have meant", { nodeid, found: message });
    const send = (nodeid: number, message: PeerMessage): void => this.recovery.send(nodeid, message);
    const { boot } = this;
    return {
      datagram: (to, message) => {
        if (message.kind !== "heartbeat") this.#outbox.push({ kind: "datagram", to, message });
      },
      beat: (content, now) => this.#outbox.push({ kind: "beat", content, now }),
      event: (event) => {
        this.#outbox.engine(event);
        this.groups.event(event);
      },
      persist: (promisedEpoch, lineage) => this.#outbox.push({ kind: "persist", promisedEpoch, lineage }),
      stop: () => this.#stop(),
      install: (view) => this.#install(view),
      evicted: (reason) => this.#end({ kind: "evicted", reason }),
      left: () => this.#end({ kind: "left" }),
      log,
      send,
      toPeer: send,
      toClient: (client, event) => this.#toClient(client, event),
      protest,
      pausePeer: (nodeid, pause) => this.#outbox.push({ kind: pause ? "pause-peer" : "resume-peer", nodeid }),
      transmit: (nodeid, view, message) => this.#outbox.peer(nodeid, view, message),
      incarnation: (nodeid) => this.membership.peers.get(nodeid)?.incarnation ?? null,
      crowding: () => {
        for (const client of this.clients.all.values()) this.clients.adjustPause(client);
      },
      crowded: () => this.recovery.pairs.crowded || this.locks.tables.crowded,
      stored: () => this.membership.stored && this.#fencesUnkept === 0,
      waits: ({ nodeid, incarnation, failingView }) => {
        const fields = { nodeid, incarnation, failingView: viewName(failingView), lockspaces: boot.fencedLockspaces ?? [] };
        log(
          "warn",
          "node went without a word: its lockspaces wait until it is known to be dead (no fence device: coverlay fence ack)",
          fields,
        );
      },
      known: ({ nodeid, incarnation, failingView }) =>
        log("info", "node is known to be dead", { nodeid, incarnation, failingView: viewName(failingView) }),
      keep: (fences) => {
        this.#fencesUnkept++;
        this.#outbox.push({ kind: "keep-fences", fences });
      },
      clientsBusy: () => this.#asks.recoveryBusy,
      clients: () => this.clients.all.values(),
      leftCleanly: (nodeid, incarnation) => this.membership.peers.get(nodeid)?.left === incarnation,
      rebuildFiles: (members) => this.plocks.startRebuild(members),
      nameFiles: (budget) => this.plocks.name(budget),
      settleFiles: (budget) => this.plocks.settle(budget),
      receive: (from, message) => {
        if (message.kind === "inspect" || message.kind === "inspected") this.#inspections.receive(from, message);
        else if (isPlockMessage(message)) this.plocks.receive(from, message);
        else assert(this.clients.receive(from, message), `message ${message.kind} was not handled`);
      },
      receiveLate: (message) => this.plocks.receiveLate(message),
      leased: () => this.#nowMs < this.#leaseEndMs && !this.membership.leaving,
      broken: (why) => this.#broken(why),
      pauseClient: (clientId, pause) => this.#outbox.push({ kind: pause ? "pause-client" : "resume-client", clientId }),
      serving: () => this.recovery.serving,
      stopped: () => this.recovery.stopped,
      view: () => this.recovery.view,
      viewInfo: () => this.viewInfo(),
      query: (what) => this.query(what, this.#nowMs),
      group: (client, request) => this.groups.request(client, request),
      groupsWait: (client) => this.groups.waits(client),
      endClient: (client, reason) => {
        const { id: clientId, pid, program } = client;
        log("error", "a program hangs and has to end", { clientId, pid, program, reason });
        this.#outbox.push({ kind: "end-client", clientId, reason });
      },
      inspect: (client, request) => this.#inspections.ask(client, request, this.#nowMs),
    };
  }

  #toClient(client: Client, event: ClientEvent): void {
    if (!client.gone) this.#outbox.client(client.id, event);
  }

  #end(effect: Effect): void {
    this.#ended = true;
    this.recovery.serving = false;
    this.#outbox.push(effect);
  }

  #broken(why: string): void {
    if (this.membership.broken) return;
    this.membership.broken = true;
    const view = viewName(this.recovery.view?.id ?? noView);
    this.#outbox.push({ kind: "log", level: "warn", message: "the view is rebuilt", fields: { view, why } });
  }

  // --------------------------------------------------------------------------------------------------------- steps

  step(event: NodeEvent, nowMs: number): Effect[] {
    if (this.#ended) return [];
    this.#nowMs = nowMs;
    this.locks.tables.nowMs = nowMs;
    this.clients.begin(nowMs);
    this.plocks.nowMs = nowMs;
    this.engine.begin(nowMs);
    this.#updateService();
    this.#dispatch(event);
    this.clients.expire();
    this.#inspections.expire(nowMs);
    if (!this.#ended && (event.kind !== "client-requests" || this.groups.touched)) {
      this.#endEngine();
      this.#leaseEndMs = this.engine.leaseEndMs;
      this.recovery.advance(nowMs);
      this.#updateService();
    }
    return this.#outbox.take();
  }

  #endEngine(): void {
    this.groups.touched = false;
    this.engine.end();
    while (this.groups.roomy && !this.#ended) {
      this.groups.drain();
      this.engine.end();
    }
  }

  nextDeadline(): number | null {
    if (this.#ended) return null;
    let deadline = Math.min(this.engine.nextDeadline(), this.clients.deadlineMs, this.#inspections.deadlineMs);
    if (this.recovery.busy) return this.#nowMs;
    if (this.recovery.serving) deadline = Math.min(deadline, this.#leaseEndMs);
    const serveFromMs = this.recovery.view?.serveFromMs ?? 0;
    if (this.recovery.phase === "wait" && serveFromMs > this.#nowMs) deadline = Math.min(deadline, serveFromMs);
    return deadline;
  }

  /** Whether a request would be served at that time. */
  servesAt(nowMs: number): boolean {
    return this.recovery.serving && nowMs < this.#leaseEndMs;
  }

  #dispatch(event: NodeEvent): void {
    switch (event.kind) {
      case "client-requests":
        return this.#clientRequests(event.clientId, event.requests);
      case "peer-frame":
        return this.#peerFrame(event.nodeid, event.view, event.messages);
      case "datagram":
        return this.engine.datagram(event.message);
      case "heartbeat":
        return this.engine.heartbeat(event.beat);
      case "engine-commands":
        return this.#outbox.push({ kind: "engine-results", results: event.commands.map((command) => this.engine.command(command)) });
      case "tick":
        this.recovery.pairs.acknowledge();
        return this.membership.tick(this.#nowMs);
      case "peer-up":
        if (this.membership.linkUp(event.nodeid, event.incarnation)) this.recovery.pairs.linkUp(event.nodeid, event.incarnation);
        return;
      case "peer-down":
        if (this.membership.peers.get(event.nodeid)?.link !== event.incarnation) return;
        this.membership.linkDown(event.nodeid);
        return this.recovery.pairs.linkDown(event.nodeid, event.incarnation);
      case "configuration":
        this.configuration = event.configuration;
        return this.membership.configure(event.configuration);
      case "fences-kept":
        this.#fencesUnkept--;
        return;
      case "persisted":
        return this.membership.persisted(event.promisedEpoch, this.#nowMs);
      case "client-connected":
        return this.clients.connected(event.clientId, event.identity);
      case "client-slow":
        return this.#clientSlow(event.clientId, event.unreadBytes);
      case "client-gone":
        return this.#clientGone(event.clientId);
      case "fence-result":
        return this.#fenceResult(event);
      case "leave":
        this.membership.leave(this.#nowMs);
        this.#updateService();
        return this.membership.tick(this.#nowMs);
      default:
        assertNever(event, "event");
    }
  }

  #clientSlow(clientId: number, unreadBytes: number): void {
    const client = this.clients.all.get(clientId);
    if (client === undefined || client.gone) return;
    this.groups.slow(client, `this program has not read ${unreadBytes} bytes that were sent to it: it is in no group any more`);
  }

  #clientGone(clientId: number): void {
    const client = this.clients.all.get(clientId);
    if (client !== undefined) this.groups.gone(client);
    this.clients.gone(clientId);
  }

  #fenceResult({ nodeid, incarnation, failingView, by }: Extract<NodeEvent, { kind: "fence-result" }>): void {
    const refused = this.recovery.fenced({ nodeid, incarnation, failingView });
    const fields = { nodeid, incarnation, view: viewName(failingView), by };
    this.#outbox.push({ kind: "fence-answer", refused });
    if (refused === "") this.#outbox.push({ kind: "log", level: "info", message: "fence result taken", fields });
    else this.#outbox.push({ kind: "log", level: "warn", message: `fence result refused: ${refused}`, fields });
  }

  #peerFrame(nodeid: number, view: ViewId, messages: readonly PeerMessage[]): void {
    const link = this.membership.peers.get(nodeid)?.link;
    if (link != null) this.recovery.receiveFrame(nodeid, link, view, messages);
  }

  query(what: QueryWhat, nowMs: number): unknown {
    if (what === "status") return describeStatus(this, this.viewInfo(), nowMs);
    return what === "nodes" ? describeNodes(this, nowMs) : describeLocks(this, nowMs);
  }

  // -------------------------------------------------------------------------------------------------- lock service

  #stop(): void {
    this.recovery.stop();
    this.clients.stop();
    this.#updateService();
  }

  #install(view: View): void {
    this.#leaseEndMs = this.membership.leaseEndMs();
    if (view.quorum.quorate) {
      const gone = this.#known.filter((member) => !hasMember(view.members, member.nodeid, member.incarnation));
      this.#known = view.members;
      const clients = gone.map(({ nodeid, incarnation }) => ({ nodeid, incarnation, clientId: null }));
      if (clients.length > 0) this.#asks.ask(this.clients.all.values(), clients, true, () => {});
    }
    this.recovery.enterView(view);
    this.#inspections.viewChanged();
    this.#updateService();
  }

  /** Starts and ends the service as phase, promise and lease say, and tells everybody. */
  #updateService(): void {
    const recovery = this.recovery;
    const may = recovery.phase === "run" && !recovery.stopped && !this.membership.leaving && this.#nowMs < this.#leaseEndMs;
    if (may === recovery.serving) {
      if (!may) this.#announce();
      return;
    }
    recovery.serving = may;
    this.membership.running = may;
    this.#announce();
    if (may) this.#enterService();
  }

  #enterService(): void {
    this.locks.unblock();
    this.recovery.drain();
    this.clients.enterService();
  }

  #clientRequests(clientId: number, requests: readonly ClientRequest[]): void {
    this.clients.requests(clientId, requests);
    if (!this.#asks.changed()) return;
    this.recovery.advance(this.#nowMs);
    this.#updateService();
  }

  viewInfo(): ViewInfo {
    const view = this.recovery.view;
    const { basis, electorate } = this.membership;
    const counted = view?.quorum ?? quorumOf(basis, [], false, electorate);
    const quorum = counted.quorate ? { ...counted, electorate } : counted;
    return {
      viewId: viewName(view?.id ?? noView),
      quorate: quorum.quorate && view !== null,
      members: (view?.members ?? []).map((member) => member.nodeid),
      quorumReason: quorumReason(quorum),
      running: this.recovery.serving,
    };
  }

  #announce(): void {
    const view = this.recovery.view;
    const mark = `${view === null ? "" : viewName(view.id)} ${this.recovery.serving}`;
    if (mark === this.#announced) return;
    this.#announced = mark;
    const info = this.viewInfo();
    this.#outbox.push({ kind: "view", view: info });
    for (const client of this.clients.all.values()) this.#toClient(client, { kind: "view", view: info });
  }
}
