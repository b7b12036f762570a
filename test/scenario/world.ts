/**
 * A few node cores with a network that does what the scenario says: frames go at once, are kept back, or are lost with their
 * connection. Time passes when it is told to. For scenario files (scenario.ts).
 */
import { masterOf } from "../../dlmd/lock/mastering.ts";
import { Heartbeater } from "../../dlmd/membership/heartbeater.ts";
import { BuiltinEngine } from "../../dlmd/engine/builtin/engine-core.ts";
import { CorosyncEngine } from "../../dlmd/engine/corosync/corosync-core.ts";
import type { View } from "../../dlmd/engine/engine.ts";
import { NodeCore } from "../../dlmd/node.ts";
import type { Effect, NodeBoot, NodeEvent, NodeLimits } from "../../dlmd/node-api.ts";
import type { NodeConfig } from "../../dlmd/config/votes.ts";
import type { ClientEvent, ClientRequest } from "../../dlmd/wire/program.ts";
import type { StatusAnswer } from "../../dlmd/query/answer.ts";
import { decodeFrame, encodeFrames } from "../../dlmd/wire/peer.ts";
import { type KeptFences, noFences } from "../../dlmd/recovery/fence-gate.ts";
import type { ViewId } from "../../dlmd/wire/view-id.ts";
import { OneRing } from "./one-ring.ts";

export const timeoutMs = 300;
/** From a node's death to the ring of the others. */
const tokenMs = 250;

export type WorldEngine = "builtin" | "corosync";

interface WorldNode {
  readonly core: NodeCore<BuiltinEngine | CorosyncEngine>;
  readonly beater: Heartbeater;
  alive: boolean;
  /** What comes while it stands still; null: it runs. */
  unheard: NodeEvent[] | null;
  /** On its disk. */
  fences: KeptFences;
}

export interface Program {
  readonly nodeid: number;
  readonly clientId: number;
  /** Answers "gone" only when told. */
  readonly slow: boolean;
  readonly locks: Map<string, number>;
  /** Requests for file locks. */
  readonly asks: Map<string, number>;
  /** Per lock: what it was told and nobody has looked at yet. */
  readonly heard: Map<string, string[]>;
  readonly asked: number[];
  paused: boolean;
  alive: boolean;
  /** Its node says that it hangs. */
  ending: boolean;
}

const expectedErrors: ReadonlySet<string> = new Set([
  "a program hangs and has to end",
  "a peer sent what it cannot have meant",
  "a fence agent failed",
  "a fence failed",
  "a node cannot run a fence agent",
]);

const ofChannel: ReadonlySet<string> = new Set(["resume", "continue", "ack"]);

const modes = ["NL", "CR", "CW", "PR", "PW", "EX"];

export class World {
  nowMs = 0;
  readonly configs: readonly NodeConfig[];
  readonly nodes: Map<number, WorldNode> = new Map();
  readonly programs: Map<string, Program> = new Map();
  /** "1>2": frames from 1 to 2 wait. */
  readonly held: Map<string, Uint8Array[]> = new Map();
  readonly #down: Set<string> = new Set();
  readonly #silent: Set<string> = new Set();
  /** "1>2": messages from 1 to 2 cannot be read; but for those of the channel itself, unless true. */
  readonly #spoiled: Map<string, boolean> = new Map();
  /** Ways on which such a message came: the connection is about to end for it, and comes back at once. */
  readonly #unread: Map<string, readonly [number, number]> = new Map();
  readonly #queue: (() => void)[] = [];
  #nextClientId = 1;
  #names = 0;

  readonly #limits: Partial<NodeLimits>;
  readonly #fencedLockspaces: readonly string[];
  readonly #more: { readonly boot?: (nodeid: number) => Partial<NodeBoot>; readonly effect?: (nodeid: number, effect: Effect) => void };
  readonly #lives: Map<number, number> = new Map();
  readonly #ring: OneRing | null;

  /** `late`: a node that does not start with the others; 0: all do. */
  constructor(
    count: number,
    limits: Partial<NodeLimits>,
    fencedLockspaces: readonly string[],
    late = 0,
    more: { readonly boot?: (nodeid: number) => Partial<NodeBoot>; readonly effect?: (nodeid: number, effect: Effect) => void } = {},
    engine: WorldEngine = "builtin",
  ) {
    this.#limits = limits;
    this.#more = more;
    this.#fencedLockspaces = fencedLockspaces;
    this.configs = Array.from({ length: count }, (_, i) => ({ nodeid: i + 1, name: `node${i + 1}`, address: "", votes: 1 }));
    this.#ring =
      engine === "builtin" ? null : new OneRing(count, tokenMs, (nodeid, event) => this.input(nodeid, { kind: "corosync", event }));
    for (const { nodeid } of this.configs) if (nodeid !== late) this.start(nodeid);
  }

  start(nodeid: number): void {
    const incarnation = this.incarnation(nodeid);
    const former = this.nodes.get(nodeid);
    const boot = {
      nodeid,
      incarnation,
      configVersion: 1,
      nodes: this.configs,
      timeoutMs,
      promisedEpoch: 0,
      seed: nodeid,
      nowMs: this.nowMs,
      ...(former === undefined ? {} : { fences: former.fences }),
    };
    const limits = { deadlockAfterMs: 50, ...this.#limits };
    const given = { ...boot, limits, fencedLockspaces: this.#fencedLockspaces, ...this.#more.boot?.(nodeid) };
    const ring = this.#ring;
    const core =
      ring === null
        ? new NodeCore<BuiltinEngine | CorosyncEngine>(given)
        : new NodeCore<BuiltinEngine | CorosyncEngine>(given, (port) => new CorosyncEngine(given, ring.seatOf(nodeid), port));
    const others = [...this.nodes.keys()].filter((other) => other !== nodeid);
    this.nodes.set(nodeid, {
      core,
      beater: new Heartbeater({ nodeid, incarnation }, timeoutMs, this.nowMs),
      alive: true,
      unheard: null,
      fences: former?.fences ?? noFences,
    });
    this.input(nodeid, { kind: "tick" });
    ring?.join(nodeid);
    for (const other of others) this.connect(other, nodeid);
  }

  /** Of its present life. */
  incarnation(nodeid: number): string {
    return incarnationOf(nodeid, this.#lives.get(nodeid) ?? 0);
  }

  /** After a crash, in another life. */
  restart(nodeid: number): void {
    this.#lives.set(nodeid, (this.#lives.get(nodeid) ?? 0) + 1);
    this.start(nodeid);
  }

  input(nodeid: number, event: NodeEvent): void {
    this.#queue.push(() => {
      const node = this.nodes.get(nodeid);
      if (node?.alive === true && node.unheard !== null) node.unheard.push(event);
      else if (node?.alive === true) for (const effect of node.core.step(event, this.nowMs)) this.#perform(nodeid, node, effect);
    });
  }

  #perform(from: number, node: WorldNode, effect: Effect): void {
    this.#more.effect?.(from, effect);
    switch (effect.kind) {
      case "datagram":
        for (const { nodeid } of this.configs) {
          const meant = effect.to === "all" || effect.to === nodeid || (typeof effect.to === "object" && effect.to.includes(nodeid));
          if (meant && nodeid !== from && !this.#silent.has(key(from, nodeid)))
            this.input(nodeid, { kind: "datagram", message: effect.message });
        }
        return;
      case "multicast":
        this.#ring?.multicast(from, effect.data);
        return;
      case "beat":
        node.beater.tell(effect.content, effect.now);
        if (effect.content?.stopped === true) this.input(from, { kind: "acks-stopped", stops: effect.content.stops });
        return;
      case "peer-frame":
        for (const bytes of encodeFrames(effect.view, effect.messages)) this.#frame(from, effect.nodeid, bytes.slice());
        return;
      case "persist":
        return this.input(from, { kind: "persisted", promisedEpoch: effect.promisedEpoch });
      case "keep-fences":
        node.fences = effect.fences;
        return this.input(from, { kind: "fences-kept" });
      case "client-events": {
        const program = [...this.programs.values()].find(({ clientId }) => clientId === effect.clientId);
        if (program !== undefined) for (const event of effect.events) this.#hear(program, event);
        return;
      }
      case "pause-client":
      case "resume-client":
        for (const program of this.programs.values())
          if (program.clientId === effect.clientId) program.paused = effect.kind === "pause-client";
        return;
      case "end-client":
        for (const program of this.programs.values()) if (program.clientId === effect.clientId) program.ending = true;
        return;
      case "log":
        if (effect.level === "error" && !expectedErrors.has(effect.message))
          throw new Error(`node ${from}: ${effect.message} ${JSON.stringify(effect.fields)}`);
        return;
      default:
        return;
    }
  }

  #frame(from: number, to: number, bytes: Uint8Array): void {
    const held = this.held.get(`${from}>${to}`);
    if (held !== undefined) held.push(bytes);
    else this.#deliver(from, to, bytes);
  }

  #deliver(from: number, to: number, bytes: Uint8Array): void {
    const way = `${from}>${to}`;
    if (this.#down.has(key(from, to)) || this.#unread.has(way)) return;
    const frame = decodeFrame(bytes);
    const all = this.#spoiled.get(way);
    if (all !== undefined && (all || frame.messages.some(({ kind }) => !ofChannel.has(kind)))) this.#unread.set(way, [from, to]);
    else this.input(to, { kind: "peer-frame", nodeid: from, ...frame });
  }

  #endUnread(): void {
    const unread = [...this.#unread.values()];
    this.#unread.clear();
    for (const [from, to] of unread) {
      this.input(to, { kind: "peer-down", nodeid: from, incarnation: this.incarnation(from), unreadable: "spoiled" });
      this.input(from, { kind: "peer-down", nodeid: to, incarnation: this.incarnation(to), unreadable: null });
      this.connect(from, to);
    }
  }

  #hear(program: Program, event: ClientEvent): void {
    if (event.kind === "gone") {
      program.asked.push(event.goneId);
      if (!program.slow) this.answerGone(program);
      return;
    }
    if (event.kind === "plock-result") {
      const ask = [...program.asks].find(([, requestId]) => requestId === event.requestId)?.[0] ?? "?";
      const { conflict } = event;
      const by = conflict === null ? "" : ` ${conflict.type} ${conflict.start} ${conflict.end} of ${conflict.owner.nodeid}`;
      this.heardOf(program, ask).push(`errno ${event.errno}${by}`);
      return;
    }
    if (event.kind === "heir-result" && event.result !== "done") this.heardOf(program, "heir").push(event.result);
    if (event.kind === "inherited") {
      const nameOf = (id: number): string => [...this.programs].find(([, { clientId }]) => clientId === id)?.[0] ?? "?";
      const words = event.clients.map(({ clientId, locks }) => [nameOf(clientId), ...locks.map(({ mode }) => modes[mode])].join(" "));
      this.heardOf(program, "heir").push(words.join(", ") || "none");
    }
    if (event.kind !== "ast" && event.kind !== "bast") return;
    const lock = [...program.locks].find(([, lockId]) => lockId === event.lockId)?.[0] ?? "?";
    const words = this.heardOf(program, lock);
    if (event.kind === "bast") words.push(`bast ${modes[event.wanted]}`);
    else if (event.status === "error") words.push(`error ${event.error?.errno}`);
    else
      words.push(
        `${event.status} ${modes[event.mode]}${event.lvbRead ? ` block ${event.lvb?.[0] ?? "none"}${event.lvbValid ? "" : " not-valid"}` : ""}`,
      );
  }

  heardOf(program: Program, lock: string): string[] {
    let words = program.heard.get(lock);
    if (words === undefined) {
      words = [];
      program.heard.set(lock, words);
    }
    return words;
  }

  // --------------------------------------------------------------------------------------------------------- faults

  connect(a: number, b: number): void {
    this.#down.delete(key(a, b));
    this.input(a, { kind: "peer-up", nodeid: b, incarnation: this.incarnation(b) });
    this.input(b, { kind: "peer-up", nodeid: a, incarnation: this.incarnation(a) });
  }

  /** What is on the way is lost. */
  disconnect(a: number, b: number): void {
    this.#down.add(key(a, b));
    this.held.delete(`${a}>${b}`);
    this.held.delete(`${b}>${a}`);
    this.input(a, { kind: "peer-down", nodeid: b, incarnation: this.incarnation(b), unreadable: null });
    this.input(b, { kind: "peer-down", nodeid: a, incarnation: this.incarnation(a), unreadable: null });
  }

  /** As `disconnect`, and they do not hear each other. */
  cut(a: number, b: number): void {
    this.#silent.add(key(a, b));
    this.disconnect(a, b);
  }

  heal(a: number, b: number): void {
    this.#silent.delete(key(a, b));
    if (this.nodes.get(a)?.alive === true && this.nodes.get(b)?.alive === true) this.connect(a, b);
  }

  /** From now on, on every connection. */
  spoil(from: number, to: number, all: boolean): void {
    this.#spoiled.set(`${from}>${to}`, all);
  }

  flow(from: number, to: number): void {
    const held = this.held.get(`${from}>${to}`) ?? [];
    this.held.delete(`${from}>${to}`);
    for (const bytes of held) this.#deliver(from, to, bytes);
  }

  /** What is held on that way is about locks that are nowhere. */
  garble(from: number, to: number): void {
    const frames = (this.held.get(`${from}>${to}`) ?? []).map((bytes) => {
      const { view, messages } = decodeFrame(bytes);
      const garbled = messages.map((m) => ("lkbId" in m ? { ...m, lkbId: m.lkbId + 1_000_000 } : m));
      return (encodeFrames(view, garbled)[0] as Uint8Array).slice();
    });
    this.held.set(`${from}>${to}`, frames);
  }

  /** SIGSTOP: no heartbeats either. */
  stand(nodeid: number): void {
    (this.nodes.get(nodeid) as WorldNode).unheard = [];
  }

  run(nodeid: number): void {
    const node = this.nodes.get(nodeid) as WorldNode;
    const events = node.unheard ?? [];
    node.unheard = null;
    for (const event of events) this.input(nodeid, event);
  }

  crash(nodeid: number): void {
    (this.nodes.get(nodeid) as WorldNode).alive = false;
    this.#ring?.lose(nodeid, this.nowMs);
    for (const { nodeid: other } of this.configs) if (other !== nodeid) this.disconnect(nodeid, other);
  }

  // ------------------------------------------------------------------------------------------------------- programs

  program(name: string, nodeid: number, owner: string, slow: boolean, bastLimitMs = 0, space = "space"): void {
    const clientId = this.#nextClientId++;
    const empty = { locks: new Map(), asks: new Map(), heard: new Map(), asked: [] };
    this.programs.set(name, { nodeid, clientId, slow, ...empty, paused: false, alive: true, ending: false });
    this.input(nodeid, { kind: "client-connected", clientId, identity: { uid: 0, pid: clientId, owner, bastLimitMs } });
    this.ask(name, { kind: "open", lockspaceId: 1, name: space });
  }

  ask(name: string, request: ClientRequest): void {
    const { nodeid, clientId } = this.programs.get(name) as Program;
    this.input(nodeid, { kind: "client-requests", clientId, requests: [request] });
  }

  answerGone(program: Program): void {
    // If it is ended again, that is said again.
    program.ending = false;
    const requests = program.asked.splice(0).map((goneId) => ({ kind: "gone-ack", goneId }) as const);
    if (program.alive) this.input(program.nodeid, { kind: "client-requests", clientId: program.clientId, requests });
  }

  spare(name: string): void {
    const program = this.programs.get(name) as Program;
    program.ending = false;
    this.input(program.nodeid, { kind: "client-spared", clientId: program.clientId });
  }

  die(name: string): void {
    const program = this.programs.get(name) as Program;
    program.alive = false;
    this.input(program.nodeid, { kind: "client-gone", clientId: program.clientId });
  }

  /** A name of a resource that this node masters while all nodes are there, and that one when it is gone. */
  nameFor(nodeid: number, next: number | null): string {
    const members = this.configs.map((config) => ({ nodeid: config.nodeid, incarnation: incarnationOf(config.nodeid) }));
    for (;;) {
      const name = `name${this.#names++}`;
      const without = members.filter((member) => member.nodeid !== nodeid);
      if (masterOf(members, "space", name) === nodeid && (next === null || masterOf(without, "space", name) === next)) return name;
    }
  }

  // ----------------------------------------------------------------------------------------------------------- time

  settle(): void {
    for (let run = this.#queue.shift(); run !== undefined; run = this.#queue.shift()) run();
  }

  /** Until the condition holds; false: it did not within that time. */
  pass(forMs: number, until: () => boolean = () => false): boolean {
    const endMs = this.nowMs + forMs;
    this.settle();
    while (!until() && this.nowMs < endMs) {
      const alive = [...this.nodes].filter(([, node]) => node.alive && node.unheard === null);
      let nextMs = endMs;
      nextMs = Math.min(nextMs, this.#ring?.formsAtMs ?? endMs);
      for (const [, { core, beater }] of alive) nextMs = Math.min(nextMs, core.nextDeadline() ?? endMs, beater.nextMs);
      this.nowMs = Math.max(this.nowMs, nextMs);
      this.#ring?.pass(this.nowMs);
      for (const [nodeid, node] of alive) this.#beat(nodeid, node);
      this.#endUnread();
      for (const [nodeid, { core }] of alive) if ((core.nextDeadline() ?? endMs) <= this.nowMs) this.input(nodeid, { kind: "tick" });
      this.settle();
    }
    return until();
  }

  #beat(from: number, { core, beater }: WorldNode): void {
    const { engine } = core;
    const message = beater.beat(this.nowMs, engine instanceof BuiltinEngine ? engine.membership.progress : engine.progress);
    if (message === null) return;
    for (const [nodeid, node] of this.nodes) {
      const isHeard = nodeid !== from && !this.#silent.has(key(from, nodeid));
      const beat = !isHeard || !node.alive || node.unheard !== null ? null : node.beater.receive(message, this.nowMs);
      if (beat !== null) this.input(nodeid, { kind: "heartbeat", beat });
    }
  }

  /** Everybody who lives serves, in one view of all who live. */
  serving(): boolean {
    const alive = [...this.nodes.values()].filter((node) => node.alive);
    return alive.every(({ core }) => core.servesAt(this.nowMs) && this.view(core.boot.nodeid)?.members.length === alive.length);
  }

  /** "node/client" of what is granted there, as the master knows it. */
  grantedOn(resource: string): string[] {
    return [...this.nodes.values()].flatMap(({ core, alive }) => {
      const found = alive ? core.locks.tables.lockspaces.get("space")?.resources.get(resource) : undefined;
      const { nodeid } = core.boot;
      return found?.masterNodeid === nodeid ? found.grantQueue.map((lkb) => `${lkb.nodeid}/${lkb.clientId}`) : [];
    });
  }

  /** Nodes that may grant it. */
  mastersOf(name: string): number[] {
    return [...this.nodes].flatMap(([nodeid, { core, alive }]) => {
      const { tables } = core.locks;
      const resource = alive ? tables.lockspaces.get("space")?.resources.get(name) : undefined;
      return resource !== undefined && tables.masters(resource) ? [nodeid] : [];
    });
  }

  /** Clients, as "node/client", that lockspaces wait for, as that node says. */
  waitedFor(nodeid: number): string[] {
    const status = this.nodes.get(nodeid)?.core.query("status", this.nowMs) as StatusAnswer | undefined;
    return (status?.goneWaits ?? []).map((wait) => `${wait.nodeid}/${wait.clientId} ${wait.of} ${wait.lockspaces.join(" ")}`);
  }

  view(nodeid: number): Pick<View, "id" | "members"> | null {
    const core = this.nodes.get(nodeid)?.core;
    if (core === undefined) return null;
    return core.engine instanceof BuiltinEngine ? core.engine.membership.view : core.recovery.view;
  }

  viewOf(nodeid: number): ViewId | null {
    return this.view(nodeid)?.id ?? null;
  }
}

export function incarnationOf(nodeid: number, life = 0): string {
  return `0000000000000${life.toString(16)}${(0xa0 + nodeid).toString(16)}`;
}

function key(a: number, b: number): string {
  return a < b ? `${a}-${b}` : `${b}-${a}`;
}
