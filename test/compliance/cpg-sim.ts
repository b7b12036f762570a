/**
 * corosync as its clients see it, simulated: rings, one group of CPG, votequorum. As the real one it delivers in every partition, calls back CPG and
 * the quorum service in either order, and delivers what was sent before a ring in the next one. Time is the test's.
 */
import type { CorosyncEvent } from "../../dlmd/engine/corosync/corosync-api.ts";
import type { RingId, Seat } from "../../dlmd/engine/corosync/message.ts";
import type { EngineEvent } from "../../dlmd/engine/engine.ts";
import { CorosyncEngine } from "../../dlmd/engine/corosync/corosync-core.ts";
import { Heartbeater } from "../../dlmd/membership/heartbeater.ts";
import type { NodeConfig } from "../../dlmd/config/votes.ts";
import type { View } from "../../dlmd/engine/engine.ts";
import { type Lineage, noLineage } from "../../dlmd/wire/view-id.ts";

export const timeoutMs = 1000;
const stepMs = 5;
/** Messages that a ring orders in a step. */
const orderedAtOnce = 40;

export class SimNode {
  readonly nodeid: number;
  readonly sim: CpgSim;
  engine: CorosyncEngine | null = null;
  events: EngineEvent[] = [];
  views: View[] = [];
  /** Why its lives ended. */
  readonly ends: string[] = [];
  readonly log: string[] = [];
  readonly protests: string[] = [];
  /** It takes no steps: the process hangs. */
  hangs = false;
  /** Heartbeats alone do not go through, in either direction. */
  deaf = false;
  persists = true;
  /** Of its cluster.yaml; its next life has it. */
  configVersion = 1;
  readonly #unpersisted: { epoch: number; lineage: Lineage; life: number }[] = [];
  #beater: Heartbeater | null = null;
  /** What its beater has been told and not yet answered. */
  #unanswered: number[] = [];
  #kept: { epoch: number; lineage: Lineage } = { epoch: 0, lineage: noLineage };
  #life = 0;
  /** What its corosync has for it and it has not yet dispatched. */
  readonly inbox: CorosyncEvent[] = [];
  joined = false;

  constructor(sim: CpgSim, nodeid: number) {
    this.sim = sim;
    this.nodeid = nodeid;
  }

  get seat(): Seat {
    return { nodeid: this.nodeid, pid: 100 + this.nodeid };
  }

  start(): void {
    if (this.engine !== null) return;
    const life = ++this.#life;
    const self = { nodeid: this.nodeid, incarnation: ((this.nodeid << 16) | life).toString(16).padStart(16, "0") };
    const { epoch, lineage } = this.#kept;
    const { nodes, nowMs } = this.sim;
    this.events = [];
    this.views = [];
    const beater = new Heartbeater(self, timeoutMs, nowMs);
    this.#unanswered = [];
    this.#beater = beater;
    const { configVersion } = this;
    const boot = { ...self, configVersion, nodes, timeoutMs, connections: false, promisedEpoch: epoch, lineage, seed: 1, nowMs };
    this.engine = new CorosyncEngine(boot, this.seat, {
      beat: (content, soon) => {
        beater.tell(content, soon);
        if (content?.stopped === true) this.#unanswered.push(content.stops);
      },
      persist: (promisedEpoch, seen) => void this.#unpersisted.push({ epoch: promisedEpoch, lineage: seen, life }),
      multicast: (data) => this.sim.multicast(this.seat, data),
      stop: () => undefined,
      install: (view) => void this.views.push(view),
      event: (event) => void this.events.push(event),
      evicted: (reason) => this.#end(`evicted: ${reason}`, true),
      mayLeave: () => undefined,
      left: () => this.#end("left", false),
      log: (level, message, fields) => void this.log.push(`${level} ${message} ${JSON.stringify(fields)}`),
      protest: (nodeid, message) => void this.protests.push(`${nodeid}: ${message}`),
    });
    this.sim.join(this);
  }

  #end(why: string, again: boolean): void {
    this.ends.push(why);
    this.sim.atOnce(() => {
      this.stop();
      if (again) this.start();
    });
  }

  stop(): void {
    if (this.engine === null) return;
    this.engine = null;
    this.inbox.length = 0;
    this.sim.part(this);
  }

  step<T>(run: (engine: CorosyncEngine) => T): T | undefined {
    const engine = this.engine;
    if (engine === null) return undefined;
    engine.begin(this.sim.nowMs);
    const result = run(engine);
    if (this.engine === engine) engine.end();
    return result;
  }

  turn(): void {
    if (this.hangs) return;
    for (const event of this.inbox.splice(0)) this.step((engine) => engine.receive(event));
    for (const { epoch, lineage, life } of this.persists ? this.#unpersisted.splice(0) : []) {
      if (life !== this.#life) continue;
      this.#kept = { epoch, lineage };
      this.step((engine) => engine.persisted(epoch));
    }
    for (const stops of this.#unanswered.splice(0)) this.step((engine) => engine.acksStopped(stops));
    this.step((engine) => engine.tick());
    // Its thread goes on when the main loop hangs; that is tried elsewhere.
    const beat = this.engine === null || this.deaf ? null : (this.#beater?.beat(this.sim.nowMs, this.engine.progress) ?? null);
    if (beat === null) return;
    for (const other of this.sim.reached(this.nodeid)) {
      if (other.deaf || other.hangs) continue;
      const heard = other.#beater?.receive(beat, this.sim.nowMs) ?? null;
      if (heard !== null) other.step((engine) => engine.heartbeat(heard));
    }
  }
}

interface Ring {
  readonly id: RingId;
  readonly members: readonly SimNode[];
  readonly ordered: { readonly from: Seat; readonly data: Uint8Array }[];
}

export class CpgSim {
  nowMs = 1000;
  /** From the loss of a node to the next ring. */
  tokenMs = 700;
  readonly nodes: readonly NodeConfig[];
  readonly all: readonly SimNode[];
  /** corosync of these nodes does not run. */
  readonly down: Set<number> = new Set();
  quorate: (ring: readonly number[]) => boolean;
  #links: readonly (readonly number[])[];
  #rings: Ring[] = [];
  #formAtMs: number | null = null;
  #ringSeq = 4;
  #later: (() => void)[] = [];
  #turns = 0;

  constructor(size: number) {
    this.nodes = Array.from({ length: size }, (_, at) => ({
      nodeid: at + 1,
      name: `node${at + 1}`,
      address: `10.0.0.${at + 1}`,
      votes: 1,
    }));
    this.all = this.nodes.map(({ nodeid }) => new SimNode(this, nodeid));
    this.#links = [this.nodes.map(({ nodeid }) => nodeid)];
    this.quorate = (ring) => ring.length * 2 > size;
    this.#form();
  }

  node(nodeid: number): SimNode {
    return this.all[nodeid - 1] as SimNode;
  }

  atOnce(what: () => void): void {
    this.#later.push(what);
  }

  reached(nodeid: number): SimNode[] {
    const group = this.#links.find((each) => each.includes(nodeid)) ?? [];
    return this.all.filter((node) => node.nodeid !== nodeid && group.includes(node.nodeid) && !this.down.has(node.nodeid));
  }

  partition(groups: readonly (readonly number[])[]): void {
    this.#links = groups;
    this.#formAtMs = this.nowMs + this.tokenMs;
  }

  heal(): void {
    this.partition([this.nodes.map(({ nodeid }) => nodeid)]);
  }

  /** The machine dies. */
  crash(nodeid: number): void {
    this.down.add(nodeid);
    this.node(nodeid).joined = false;
    this.node(nodeid).stop();
    this.#formAtMs = this.nowMs + this.tokenMs;
  }

  start(nodeid: number): void {
    if (this.down.delete(nodeid)) this.#form();
    this.node(nodeid).start();
  }

  join(node: SimNode): void {
    if (this.down.has(node.nodeid)) return;
    node.joined = true;
    const ring = this.#ringOf(node.nodeid);
    this.#tellSeats(ring);
    node.inbox.push({ kind: "ring", ring: ring.id });
    node.inbox.push({ kind: "quorum", ring: ring.id, quorate: this.quorate(ring.members.map(({ nodeid }) => nodeid)) });
  }

  part(node: SimNode): void {
    if (!node.joined) return;
    node.joined = false;
    this.#tellSeats(this.#ringOf(node.nodeid));
  }

  multicast(from: Seat, data: Uint8Array): void {
    this.#ringOf(from.nodeid).ordered.push({ from, data });
  }

  /** The votes changed within the rings. */
  tellQuorum(): void {
    for (const { id, members } of this.#rings) {
      const quorate = this.quorate(members.map(({ nodeid }) => nodeid));
      for (const node of members) if (node.joined) node.inbox.push({ kind: "quorum", ring: id, quorate });
    }
  }

  #ringOf(nodeid: number): Ring {
    return this.#rings.find(({ members }) => members.some((node) => node.nodeid === nodeid)) as Ring;
  }

  #tellSeats({ members }: Ring): void {
    const seats = members.filter(({ joined }) => joined).map(({ seat }) => seat);
    for (const node of members) if (node.joined) node.inbox.push({ kind: "seats", seats });
  }

  #form(): void {
    this.#formAtMs = null;
    const before = this.#rings;
    this.#rings = this.#links
      .map((group) => this.all.filter(({ nodeid }) => group.includes(nodeid) && !this.down.has(nodeid)))
      .filter((members) => members.length > 0)
      .map((members) => {
        // What was sent and not ordered comes in the new ring.
        const ordered = before.flatMap((ring) => ring.ordered.filter(({ from }) => members.some(({ nodeid }) => nodeid === from.nodeid)));
        return { id: { nodeid: members[0]?.nodeid ?? 0, seq: (this.#ringSeq += 4) }, members, ordered };
      });
    for (const ring of this.#rings) {
      // Before the callbacks of the new ring: the old one is over, and CPG does not say so yet.
      this.#deliver(ring, 3);
      const quorate = this.quorate(ring.members.map(({ nodeid }) => nodeid));
      for (const [at, node] of ring.members.entries()) {
        const quorum = { kind: "quorum", ring: ring.id, quorate } as const;
        if (node.joined && at % 2 === 0) node.inbox.push(quorum);
      }
      this.#tellSeats(ring);
      for (const [at, node] of ring.members.entries()) {
        if (!node.joined) continue;
        node.inbox.push({ kind: "ring", ring: ring.id });
        if (at % 2 === 1) node.inbox.push({ kind: "quorum", ring: ring.id, quorate });
      }
    }
  }

  #deliver(ring: Ring, most: number): void {
    for (const { from, data } of ring.ordered.splice(0, most))
      for (const node of ring.members) if (node.joined) node.inbox.push({ kind: "message", from, data });
  }

  step(): void {
    this.nowMs += stepMs;
    this.#turns++;
    if (this.#formAtMs !== null && this.nowMs >= this.#formAtMs) this.#form();
    // While the token is lost nothing is ordered.
    else if (this.#formAtMs === null) for (const ring of this.#rings) this.#deliver(ring, orderedAtOnce);
    const first = this.#turns % this.all.length;
    for (const node of [...this.all.slice(first), ...this.all.slice(0, first)]) if (!this.down.has(node.nodeid)) node.turn();
    for (const what of this.#later.splice(0)) what();
  }

  /** False: not within that time. */
  runUntil(condition: () => boolean, ms = 60_000): boolean {
    const end = this.nowMs + ms;
    while (!condition()) {
      if (this.nowMs > end) return false;
      this.step();
    }
    return true;
  }

  run(ms: number): void {
    this.runUntil(() => false, ms);
  }
}
