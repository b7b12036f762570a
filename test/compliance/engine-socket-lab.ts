/** Builtin engines in this process, with datagrams over real sockets on the loopback device: no keys, no files, no threads. */
import { createSocket, type Socket } from "node:dgram";
import { BuiltinEngine } from "../../dlmd/engine/builtin/engine-core.ts";
import type { EngineEvent } from "../../dlmd/engine/engine.ts";
import { Heartbeater } from "../../dlmd/membership/heartbeater.ts";
import type { NodeConfig } from "../../dlmd/config/votes.ts";
import { type Datagram, decodeDatagram, encodeDatagram, type Heartbeat } from "../../dlmd/wire/datagram.ts";
import { noLineage, type Lineage } from "../../dlmd/wire/view-id.ts";
import type { EngineLab } from "./engine.ts";

/** Short, for the tests' sake, and long enough for a busy machine. */
const timeoutMs = 1000;
const patienceMs = 50_000;

const now = (): number => performance.now();

class SocketNode {
  events: EngineEvent[] = [];
  engine: BuiltinEngine | null = null;
  readonly #nodeid: number;
  readonly #lab: SocketLab;
  #beater: Heartbeater | null = null;
  #socket: Socket | null = null;
  #timers: NodeJS.Timeout[] = [];
  #kept: { epoch: number; lineage: Lineage } = { epoch: 0, lineage: noLineage };
  #lives = 0;

  constructor(lab: SocketLab, nodeid: number) {
    this.#lab = lab;
    this.#nodeid = nodeid;
  }

  start(): void {
    if (this.engine !== null) return;
    const life = ++this.#lives;
    const self = { nodeid: this.#nodeid, incarnation: ((this.#nodeid << 16) | life).toString(16).padStart(16, "0") };
    const socket = createSocket("udp4");
    this.#socket = socket;
    this.events = [];
    const { epoch, lineage } = this.#kept;
    const boot = {
      ...self,
      configVersion: 1,
      nodes: this.#lab.configs,
      timeoutMs,
      connections: false,
      promisedEpoch: epoch,
      lineage,
      seed: life,
      nowMs: now(),
    };
    const send = (to: number | "all" | readonly number[], message: Datagram): void => this.#lab.send(socket, this.#nodeid, to, message);
    const beater = new Heartbeater(self, timeoutMs, now());
    this.#beater = beater;
    const engine = new BuiltinEngine(boot, {
      datagram: send,
      beat: (content, soon) => {
        beater.tell(content, soon);
        if (soon) setImmediate(() => this.#beat());
      },
      persist: (promisedEpoch, seen) => {
        setImmediate(() => {
          if (life !== this.#lives) return;
          this.#kept = { epoch: promisedEpoch, lineage: seen };
          this.step(() => engine.membership.persisted(promisedEpoch, now()));
        });
      },
      stop: () => undefined,
      install: () => undefined,
      event: (event) => void this.events.push(event),
      evicted: () => setImmediate(() => this.#again()),
      mayLeave: () => undefined,
      left: () => undefined,
      log: () => undefined,
      protest: (nodeid, message) => this.#lab.failed(new Error(`node ${this.#nodeid} protests against ${nodeid}: ${message}`)),
    });
    this.engine = engine;
    socket.on("message", (bytes) => this.receive(decodeDatagram(bytes)));
    socket.bind(this.#lab.port, `127.0.0.${this.#nodeid}`, () => {
      if (life !== this.#lives) return;
      this.#timers.push(setInterval(() => this.#beat(), timeoutMs / 10));
      this.#timers.push(setInterval(() => this.step(() => engine.tick()), 2));
    });
  }

  #again(): void {
    this.stop();
    this.start();
  }

  stop(): void {
    this.#lives++;
    for (const timer of this.#timers.splice(0)) clearInterval(timer);
    this.#socket?.close();
    this.#socket = null;
    this.engine = null;
  }

  /** One that is due now, whenever the next one was. */
  beatNow(): Heartbeat | null {
    if (this.#beater === null || this.engine === null) return null;
    this.#beater.nextMs = Number.NEGATIVE_INFINITY;
    return this.#beater.beat(now(), this.engine.membership.progress);
  }

  receive(message: Datagram): void {
    if (!this.#lab.hears(this.#nodeid, message.from)) return;
    if (message.kind !== "heartbeat") return this.step((engine) => engine.datagram(message));
    const beat = this.#beater?.receive(message, now()) ?? null;
    if (beat !== null) this.step((engine) => engine.heartbeat(beat));
  }

  #beat(): void {
    const message = this.#beater?.beat(now(), this.engine?.membership.progress ?? 0) ?? null;
    if (message !== null && this.#socket !== null) this.#lab.send(this.#socket, this.#nodeid, "all", message);
  }

  step<T>(run: (engine: BuiltinEngine) => T): T | undefined {
    const engine = this.engine;
    if (engine === null) return undefined;
    engine.begin(now());
    const result = run(engine);
    if (this.engine === engine) engine.end();
    this.#lab.happened();
    return result;
  }
}

export class SocketLab {
  readonly port: number;
  readonly configs: readonly NodeConfig[] = [1, 2, 3].map((nodeid) => ({
    nodeid,
    name: `node${nodeid}`,
    address: `127.0.0.${nodeid}`,
    votes: 1,
  }));
  readonly #nodes = new Map<number, SocketNode>([1, 2, 3].map((nodeid) => [nodeid, new SocketNode(this, nodeid)]));
  #groups: readonly (readonly number[])[] = [[1, 2, 3]];
  #failure: Error | null = null;
  #waiting: (() => void)[] = [];

  constructor(port: number) {
    this.port = port;
    for (const node of this.#nodes.values()) node.start();
  }

  hears(nodeid: number, from: number): boolean {
    return this.#groups.some((group) => group.includes(nodeid) && group.includes(from));
  }

  send(socket: Socket, from: number, to: number | "all" | readonly number[], message: Datagram): void {
    const bytes = encodeDatagram(message);
    for (const { nodeid, address } of this.configs) {
      if (nodeid === from || (typeof to === "number" && to !== nodeid) || (typeof to === "object" && !to.includes(nodeid))) continue;
      // What cannot be sent is lost, as on a network; a socket that was closed says so too.
      socket.send(bytes, this.port, address, () => undefined);
    }
  }

  failed(error: Error): void {
    this.#failure ??= error;
    this.happened();
  }
  happened(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  /**
   * Each hears of all others, and that they hear it, at one moment: on a busy machine one of them might be heard so late that the other two make a
   * quorate view without it, as they may.
   */
  #meet(): void {
    for (let round = 0; round < 2; round++) {
      const beats = [...this.#nodes.values()].flatMap((node) => node.beatNow() ?? []);
      for (const [nodeid, node] of this.#nodes) for (const beat of beats) if (beat.from !== nodeid) node.receive(beat);
    }
  }

  lab(): EngineLab {
    const node = (nodeid: number): SocketNode => this.#nodes.get(nodeid) as SocketNode;
    return {
      command: (nodeid, command) => node(nodeid).step((engine) => engine.command(command)) ?? "not-joined",
      events: (nodeid) => node(nodeid).events,
      start: (nodeid) => node(nodeid).start(),
      crash: (nodeid) => node(nodeid).stop(),
      partition: (groups) => {
        this.#groups = groups;
      },
      heal: () => {
        this.#groups = [[1, 2, 3]];
        this.#meet();
      },
      until: async (what, condition) => {
        const end = now() + patienceMs;
        while (!condition()) {
          if (this.#failure !== null) throw this.#failure;
          if (now() > end) throw new Error(`not within ${patienceMs} ms: ${what}`);
          await new Promise<void>((resolve) => this.#waiting.push(resolve));
        }
      },
      close: async () => {
        for (const each of this.#nodes.values()) each.stop();
      },
    };
  }
}
