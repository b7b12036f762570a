/** Engines over real corosync daemons (corosync-cluster.ts), all in this process. Heartbeats go from one to the other by a call. */
import { closeSync, openSync } from "node:fs";
import type { NodeConfig } from "../../dlmd/config/votes.ts";
import { connectCorosync, type CorosyncConnection } from "../../dlmd/driver/corosync/connection.ts";
import { loadCorosyncLibraries } from "../../dlmd/driver/corosync/libraries.ts";
import { CorosyncEngine } from "../../dlmd/engine/corosync/corosync-core.ts";
import type { EngineEvent } from "../../dlmd/engine/engine.ts";
import { Heartbeater } from "../../dlmd/membership/heartbeater.ts";
import type { Heartbeat } from "../../dlmd/wire/datagram.ts";
import { type Lineage, noLineage } from "../../dlmd/wire/view-id.ts";
import { CorosyncCluster } from "./corosync-cluster.ts";
import type { EngineLab } from "./engine.ts";

const timeoutMs = 1000;
const patienceMs = 50_000;
const CLONE_NEWNET = 0x4000_0000;

const now = (): number => performance.now();

/** The libraries connect from the network namespace in which this thread is: one node after the other. */
let connecting: Promise<unknown> = Promise.resolve();

async function within<T>(netnsFile: string, run: () => Promise<T>): Promise<T> {
  const { koffi } = await loadCorosyncLibraries();
  const setns = koffi.load("libc.so.6").func("int setns(int fd, int type)");
  const enter = (fd: number): void => {
    if (setns(fd, CLONE_NEWNET) !== 0) throw new Error(`setns(2) for ${netnsFile} failed`);
  };
  const result = connecting.then(async () => {
    const home = openSync("/proc/thread-self/ns/net", "r");
    const there = openSync(netnsFile, "r");
    try {
      enter(there);
      return await run();
    } finally {
      enter(home);
      closeSync(home);
      closeSync(there);
    }
  });
  connecting = result.catch(() => undefined);
  return result;
}

class CorosyncNode {
  events: EngineEvent[] = [];
  engine: CorosyncEngine | null = null;
  readonly #nodeid: number;
  readonly #lab: CorosyncLab;
  #beater: Heartbeater | null = null;
  #connection: CorosyncConnection | null = null;
  #timers: NodeJS.Timeout[] = [];
  #kept: { epoch: number; lineage: Lineage } = { epoch: 0, lineage: noLineage };
  #lives = 0;

  constructor(lab: CorosyncLab, nodeid: number) {
    this.#lab = lab;
    this.#nodeid = nodeid;
  }

  start(): void {
    if (this.engine !== null) return;
    const life = ++this.#lives;
    const self = { nodeid: this.#nodeid, incarnation: ((this.#nodeid << 16) | life).toString(16).padStart(16, "0") };
    this.events = [];
    const { epoch, lineage } = this.#kept;
    const nodes = this.#lab.configs;
    const boot = {
      ...self,
      configVersion: 1,
      nodes,
      timeoutMs,
      connections: false,
      promisedEpoch: epoch,
      lineage,
      seed: life,
      nowMs: now(),
    };
    const beater = new Heartbeater(self, timeoutMs, now());
    this.#beater = beater;
    const engine = new CorosyncEngine(
      boot,
      { pid: process.pid },
      {
        beat: (content, soon) => {
          beater.tell(content, soon);
          if (soon) setImmediate(() => this.#beat());
          if (content?.stopped === true)
            setImmediate(() => (life === this.#lives ? this.step(() => engine.acksStopped(content.stops)) : undefined));
        },
        persist: (promisedEpoch, seen) => {
          setImmediate(() => {
            if (life !== this.#lives) return;
            this.#kept = { epoch: promisedEpoch, lineage: seen };
            this.step(() => engine.persisted(promisedEpoch));
          });
        },
        multicast: (data) => this.#connection?.send(data),
        stop: () => undefined,
        install: () => undefined,
        event: (event) => void this.events.push(event),
        evicted: () => setImmediate(() => this.#again(life)),
        mayLeave: () => undefined,
        left: () => undefined,
        log: (level, message, fields) => this.#lab.log(this.#nodeid, level, message, fields),
        protest: (nodeid, message) => this.#lab.failed(new Error(`node ${this.#nodeid} protests against ${nodeid}: ${message}`)),
      },
    );
    this.engine = engine;
    this.#timers.push(setInterval(() => this.#beat(), timeoutMs / 10));
    this.#timers.push(setInterval(() => this.step(() => engine.tick()), 10));
    void this.#connect(life);
  }

  /** Until it is there: corosync may have been started just now. */
  async #connect(life: number): Promise<void> {
    const { cluster, configs } = this.#lab;
    while (life === this.#lives) {
      try {
        const connection = await within(cluster.netnsFile(this.#nodeid), () =>
          connectCorosync({
            group: "coverlay:compliance",
            nodeid: this.#nodeid,
            nodes: configs,
            blocking: true,
            event: (event) => {
              if (life === this.#lives) this.step((engine) => engine.receive(event));
            },
            dispatched: () => undefined,
          }),
        );
        if (life === this.#lives) this.#connection = connection;
        else connection.close();
        return;
      } catch (error) {
        if ((error as { code?: string }).code !== "corosync-failed") return this.#lab.failed(error as Error);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }

  #again(life: number): void {
    if (life !== this.#lives) return;
    this.stop();
    this.start();
  }

  stop(): void {
    this.#lives++;
    for (const timer of this.#timers.splice(0)) clearInterval(timer);
    this.#connection?.close();
    this.#connection = null;
    this.engine = null;
  }

  hear(message: Heartbeat): void {
    const beat = this.#beater?.receive(message, now()) ?? null;
    if (beat !== null) this.step((engine) => engine.heartbeat(beat));
  }

  #beat(): void {
    const message = this.#beater?.beat(now(), this.engine?.progress ?? 0) ?? null;
    if (message !== null) this.#lab.heartbeat(this.#nodeid, message);
  }

  step<T>(run: (engine: CorosyncEngine) => T): T | undefined {
    const engine = this.engine;
    if (engine === null) return undefined;
    engine.begin(now());
    const result = run(engine);
    if (this.engine === engine) engine.end();
    this.#lab.happened();
    return result;
  }
}

export class CorosyncLab {
  readonly cluster: CorosyncCluster;
  readonly configs: readonly NodeConfig[] = [1, 2, 3].map((nodeid) => ({
    nodeid,
    name: `node${nodeid}`,
    address: `10.91.0.${nodeid}`,
    votes: 1,
  }));
  readonly #nodes = new Map<number, CorosyncNode>([1, 2, 3].map((nodeid) => [nodeid, new CorosyncNode(this, nodeid)]));
  #groups: readonly (readonly number[])[] = [[1, 2, 3]];
  #failure: Error | null = null;
  #waiting: (() => void)[] = [];
  readonly #log: string[] = [];

  constructor() {
    this.cluster = new CorosyncCluster([1, 2, 3]);
    for (const node of this.#nodes.values()) node.start();
  }

  heartbeat(from: number, message: Heartbeat): void {
    for (const [nodeid, node] of this.#nodes) {
      const hears = nodeid !== from && this.#groups.some((group) => group.includes(nodeid) && group.includes(from));
      if (hears) setImmediate(() => node.hear(message));
    }
  }

  log(nodeid: number, level: string, message: string, fields: Readonly<Record<string, unknown>>): void {
    this.#log.push(`${now().toFixed(0)} node ${nodeid} ${level}: ${message} ${JSON.stringify(fields)}`);
    if (this.#log.length > 40) this.#log.shift();
  }

  failed(error: Error): void {
    this.#failure ??= error;
    this.happened();
  }
  happened(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  lab(): EngineLab {
    const node = (nodeid: number): CorosyncNode => this.#nodes.get(nodeid) as CorosyncNode;
    return {
      command: (nodeid, command) => node(nodeid).step((engine) => engine.command(command)) ?? "not-joined",
      events: (nodeid) => node(nodeid).events,
      start: (nodeid) => {
        this.cluster.start(nodeid);
        node(nodeid).start();
      },
      crash: (nodeid) => {
        this.cluster.kill(nodeid);
        node(nodeid).stop();
      },
      partition: (groups) => {
        this.#groups = groups;
        this.cluster.partition(groups);
      },
      heal: () => {
        this.#groups = [[1, 2, 3]];
        this.cluster.partition(this.#groups);
      },
      until: async (what, condition) => {
        const end = now() + patienceMs;
        while (!condition()) {
          if (this.#failure !== null) throw this.#failure;
          if (now() > end) throw new Error(`not within ${patienceMs} ms: ${what}\n${this.#log.join("\n")}`);
          await new Promise<void>((resolve) => this.#waiting.push(resolve));
        }
      },
      close: async () => {
        for (const each of this.#nodes.values()) each.stop();
        await connecting;
        await this.cluster.close();
      },
    };
  }
}
