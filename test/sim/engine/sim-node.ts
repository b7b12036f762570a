/** One simulated node with nothing but the builtin engine: what it keeps, when it stands still, when it is only busy. */
import { BuiltinEngine } from "../../../dlmd/engine/builtin/engine-core.ts";
import type { EngineCommand, EngineEvent } from "../../../dlmd/engine/engine.ts";
import type { CommandResult } from "../../../dlmd/wire/group.ts";
import { Heartbeater } from "../../../dlmd/membership/heartbeater.ts";
import type { Datagram, Heartbeat } from "../../../dlmd/wire/datagram.ts";
import { noLineage, type Lineage } from "../../../dlmd/wire/view-id.ts";
import type { EngineSim } from "./engine-sim.ts";

type Input = () => void;

export class EngineSimNode {
  readonly nodeid: number;
  incarnation = "";
  alive = false;
  engine: BuiltinEngine;
  events: EngineEvent[] = [];
  evictions = 0;
  /** When it has left it does not come back by itself. */
  stays = false;
  /** False: its disk never says that it has it. */
  keeps: (lineage: Lineage) => boolean = () => true;
  pausedUntilMs = 0;
  busyUntilMs = 0;
  /** Its disk keeps nothing before. */
  diskUntilMs = 0;
  readonly #sim: EngineSim;
  #beater: Heartbeater;
  #storedEpoch = 0;
  #storedLineage: Lineage = noLineage;
  #storedAtMs = 0;
  #life = 0;
  #inputs: Input[] = [];
  #heard: Heartbeat[] = [];
  #stepping = false;
  #wakeAtMs = Number.POSITIVE_INFINITY;
  #beatAtMs = Number.POSITIVE_INFINITY;

  constructor(sim: EngineSim, nodeid: number) {
    this.#sim = sim;
    this.nodeid = nodeid;
    this.engine = this.#boot();
    this.#beater = this.#newBeater();
  }

  get key(): string {
    return `${this.nodeid}.${this.incarnation}`;
  }

  get leaseEndMs(): number {
    return this.#beater.leaseEndMs;
  }

  #newBeater(): Heartbeater {
    return new Heartbeater({ nodeid: this.nodeid, incarnation: this.incarnation }, this.#sim.timeoutMs, this.#sim.agenda.nowMs);
  }

  #boot(): BuiltinEngine {
    const sim = this.#sim;
    this.#life++;
    const random = sim.random.int(2 ** 32).toString(16);
    this.incarnation = (((this.nodeid << 24) | this.#life) >>> 0).toString(16).padStart(8, "0") + random.padStart(8, "0");
    const boot = {
      nodeid: this.nodeid,
      incarnation: this.incarnation,
      configVersion: 1,
      nodes: sim.configs,
      timeoutMs: sim.timeoutMs,
      connections: false,
      promisedEpoch: this.#storedEpoch,
      lineage: this.#storedLineage,
      seed: sim.random.int(2 ** 32),
      nowMs: sim.agenda.nowMs,
      quorum: sim.quorum,
    };
    const life = this.#life;
    return new BuiltinEngine(boot, {
      datagram: (to, message) => sim.send(this, to, message),
      beat: (content, now) => {
        this.#beater.tell(content, now);
        this.#beat();
      },
      persist: (epoch, lineage) => this.#persist(epoch, lineage, life),
      stop: () => {},
      install: (view) => sim.installed(this, view),
      event: (event) => {
        this.events.push(event);
        sim.told(this, event);
      },
      evicted: (reason) => {
        sim.trace(`${this.nodeid} evicted: ${reason}`);
        this.evictions++;
        this.crash();
        sim.agenda.at(sim.agenda.nowMs + sim.random.between(1, 50), () => this.start());
      },
      mayLeave: () => this.#input(() => this.engine.membership.leave(sim.agenda.nowMs)),
      left: () => {
        sim.trace(`${this.nodeid} left`);
        this.crash();
        if (!this.stays) sim.agenda.at(sim.agenda.nowMs + sim.random.between(50, 600), () => this.start());
      },
      log: (_level, message, fields) => sim.trace(`${this.nodeid} log: ${message} ${JSON.stringify(fields)}`),
      protest: (nodeid, message) => sim.fail(`node ${this.nodeid} protests against ${nodeid}: ${message}`),
    });
  }

  #persist(epoch: number, lineage: Lineage, life: number): void {
    const { agenda, random } = this.#sim;
    if (!this.keeps(lineage)) return;
    this.#storedAtMs = Math.max(this.#storedAtMs, this.diskUntilMs, agenda.nowMs + random.between(0, 3));
    agenda.at(this.#storedAtMs, () => {
      if (life !== this.#life || !this.alive) return;
      this.#storedEpoch = epoch;
      this.#storedLineage = lineage;
      this.#input(() => this.engine.membership.persisted(epoch, agenda.nowMs));
    });
  }

  start(): void {
    if (this.alive) return;
    this.engine = this.#boot();
    this.#beater = this.#newBeater();
    this.alive = true;
    this.pausedUntilMs = 0;
    this.busyUntilMs = 0;
    this.#inputs = [];
    this.#heard = [];
    this.#wakeAtMs = Number.POSITIVE_INFINITY;
    this.#beatAtMs = Number.POSITIVE_INFINITY;
    this.events = [];
    this.#sim.trace(`${this.nodeid} starts as ${this.incarnation}`);
    this.#sim.started(this);
    this.#input(() => this.engine.tick());
    this.#beat();
  }

  crash(): void {
    if (!this.alive) return;
    this.#sim.trace(`${this.nodeid} ends`);
    this.alive = false;
    this.#life++;
  }

  leave(): void {
    this.#input(() => this.engine.membership.announceLeave(this.#sim.agenda.nowMs));
  }

  /** The result is known when the node gets to it: at once, unless it stands still. */
  command(make: () => EngineCommand, result: (result: CommandResult) => void): void {
    this.#input(() => result(this.engine.command(make())));
  }

  /** TCP says which life of that node is the living one; datagrams of a former one may come late. */
  linked({ nodeid, incarnation }: EngineSimNode): void {
    if (this.engine.membership.peers.get(nodeid)?.link !== incarnation)
      this.#input(() => this.engine.membership.linkUp(nodeid, incarnation));
  }

  arrive(message: Datagram): void {
    if (!this.alive) return;
    if (message.kind === "heartbeat") {
      this.#heard.push(message);
      return this.#beat();
    }
    this.#input(() => this.engine.datagram(message));
  }

  #input(input: Input): void {
    if (!this.alive) return;
    this.#inputs.push(input);
    if (!this.#stepping) this.#run();
  }

  #run(): void {
    const { agenda } = this.#sim;
    const idleUntilMs = Math.max(this.pausedUntilMs, this.busyUntilMs);
    if (agenda.nowMs < idleUntilMs) return this.#wake(idleUntilMs);
    this.#stepping = true;
    const life = this.#life;
    try {
      while (this.alive && life === this.#life) {
        const input = this.#inputs.shift();
        if (input === undefined) break;
        this.engine.begin(agenda.nowMs);
        input();
        if (this.alive && life === this.#life) this.engine.end();
        this.#sim.stepped();
      }
    } finally {
      this.#stepping = false;
    }
    if (this.alive && life === this.#life) this.#wake(this.engine.nextDeadline());
  }

  #wake(atMs: number): void {
    if (atMs >= this.#wakeAtMs) return;
    const life = this.#life;
    this.#wakeAtMs = atMs;
    this.#sim.agenda.at(atMs, () => {
      if (life !== this.#life) return;
      if (this.#wakeAtMs === atMs) this.#wakeAtMs = Number.POSITIVE_INFINITY;
      this.#input(() => this.engine.tick());
    });
  }

  #beat(): void {
    const { agenda } = this.#sim;
    if (!this.alive) return;
    if (agenda.nowMs < this.pausedUntilMs) return this.#beatLater(this.pausedUntilMs);
    for (const message of this.#heard.splice(0)) {
      const beat = this.#beater.receive(message, agenda.nowMs);
      if (beat !== null) this.#input(() => this.engine.heartbeat(beat));
    }
    const message = this.#beater.beat(agenda.nowMs, this.engine.membership.progress);
    if (message !== null) this.#sim.send(this, "all", message);
    this.#beatLater(this.#beater.nextMs);
  }

  #beatLater(atMs: number): void {
    if (atMs >= this.#beatAtMs) return;
    const life = this.#life;
    this.#beatAtMs = atMs;
    this.#sim.agenda.at(atMs, () => {
      if (life !== this.#life || !this.alive) return;
      if (this.#beatAtMs === atMs) this.#beatAtMs = Number.POSITIVE_INFINITY;
      this.#beat();
    });
  }
}
