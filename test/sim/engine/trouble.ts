/** Random programs that join, send and leave, and random faults, on an EngineSim; then rest, and what must hold at rest. */
import type { EngineCommand } from "../../../dlmd/engine/engine.ts";
import { plainQuorum } from "../../../dlmd/membership/quorum.ts";
import type { QuorumOptions } from "../../../dlmd/engine/boot.ts";
import { type FaultKind, type FaultOptions, type FaultRates, noFaultOptions } from "../faults.ts";
import { Random } from "../random.ts";
import { EngineSim, type EngineSimOptions } from "./engine-sim.ts";
import type { EngineSimNode } from "./sim-node.ts";

const groups = ["alpha", "beta", "gamma"];

/** There are no programs to die, and no TCP to break. */
const usualRates: FaultRates = {
  crash: 0.75,
  "client-death": 0,
  hang: 0,
  cut: 1.25,
  heal: 1.5,
  break: 0,
  pause: 0.5,
  busy: 0.65,
  leave: 0.35,
  "slow-disk": 0.4,
  forget: 0,
};
const troubleEveryMs = 60;
/** A program sends as many messages of up to that as fill what a node keeps. */
const FLOOD_BYTES = 400_000;

export interface TroubleOptions {
  readonly seed: number;
  /** 0: as the seed says, 1 to 6. */
  readonly nodes?: number;
  readonly faults?: FaultOptions;
  /** How votes are counted; plain if not given. */
  readonly quorum?: QuorumOptions;
}

export class EngineTrouble {
  readonly sim: EngineSim;
  #quiet = false;
  /** What each program of each life sent, by "life group/client". */
  readonly #sent: Map<string, number> = new Map();
  readonly #clients: Map<string, number> = new Map();
  #nextClientId = 1;
  /** Commands that came when the engine was full. */
  full = 0;
  slowDisks = 0;
  readonly #floods: boolean;
  readonly #rates: readonly (readonly [FaultKind, number])[];
  readonly #total: number;

  constructor({ seed, nodes = 0, faults = noFaultOptions, quorum = plainQuorum }: TroubleOptions) {
    const count = nodes > 0 ? nodes : (([1, 2, 3, 3, 3, 4, 5, 6] as const)[seed % 8] as number);
    const options: EngineSimOptions = { seed, nodes: count, quorum };
    this.sim = new EngineSim(options);
    const { sim } = this;
    this.#floods = new Random(seed ^ 0xf100_d000).chance(0.1);
    const harsh = sim.random.chance(0.3) ? 0 : sim.random.next();
    sim.weather = { loss: harsh * 0.15, duplicate: harsh * 0.1, late: harsh * 0.2, maxDelayMs: 40, ...faults.weather };
    this.#rates = Object.entries({ ...usualRates, ...faults.rates }) as [FaultKind, number][];
    this.#total = this.#rates.reduce((sum, [, rate]) => sum + rate, 0);
    for (const node of sim.nodes) sim.agenda.at(sim.random.between(0, 200), () => node.start());
    this.#every(sim.random.between(0.5, 8), () => this.#act());
    this.#every(20, () => this.#link());
    this.#every(troubleEveryMs, () => this.#trouble());
  }

  #every(ms: number, run: () => void): void {
    const { agenda, random } = this.sim;
    const again = (): void => {
      run();
      agenda.at(agenda.nowMs + random.between(0.5, 1.5) * ms, again);
    };
    agenda.at(ms, again);
  }

  #link(): void {
    const { nodes, cut } = this.sim;
    for (const a of nodes) {
      for (const b of nodes) {
        const reached = !cut.has(`${a.nodeid}>${b.nodeid}`) && !cut.has(`${b.nodeid}>${a.nodeid}`);
        if (a !== b && a.alive && b.alive && reached) a.linked(b);
      }
    }
  }

  #act(): void {
    const { random } = this.sim;
    const node = random.pick(this.sim.nodes);
    if (this.#quiet || !node.alive) return;
    const group = random.pick(groups);
    // Who left does not come back under its number, so that every join is told from every other.
    const slot = `${node.key} ${group} ${random.int(3)}`;
    const clientId = this.#clients.get(slot) ?? this.#nextClientId++;
    this.#clients.set(slot, clientId);
    const what = random.next();
    if (what < 0.12)
      node.command(
        () => ({ kind: "join", group, clientId }),
        () => {},
      );
    else if (what < 0.16) {
      this.#clients.delete(slot);
      const reason = random.chance(0.5) ? "left" : "client-died";
      node.command(
        () => ({ kind: "leave", group, clientId, reason }),
        () => {},
      );
    } else if (this.#floods && random.chance(0.01))
      for (let burst = 60; burst > 0; burst--) this.#multicast(node, group, clientId, FLOOD_BYTES);
    else for (let burst = random.chance(0.1) ? random.int(60) : 1; burst > 0; burst--) this.#multicast(node, group, clientId);
  }

  #multicast(node: EngineSimNode, group: string, clientId: number, most = 0): void {
    const { random, checker } = this.sim;
    const key = `${node.key} ${group}/${clientId}`;
    const bytes = most > 0 ? random.int(most) : random.chance(0.03) ? random.int(40_000) : random.int(200);
    const life = node.key;
    // Made when the node gets to it: the number counts only if it is accepted.
    const make = (): EngineCommand => {
      const data = new Uint8Array(4 + bytes);
      const n = (this.#sent.get(key) ?? 0) + 1;
      new DataView(data.buffer).setUint32(0, n, true);
      for (let i = 4; i < data.byteLength; i += 97) data[i] = n + i;
      return { kind: "multicast", group, clientId, data };
    };
    node.command(make, (result) => {
      if (result === "full") this.full++;
      if (result !== "accepted" || life !== node.key) return;
      this.#sent.set(key, (this.#sent.get(key) ?? 0) + 1);
      checker.accepted(node, `${group}/${clientId}`);
    });
  }

  #trouble(): void {
    const { random } = this.sim;
    if (this.#quiet || !random.chance((this.#total * troubleEveryMs) / 1000)) return;
    const node = random.pick(this.sim.nodes);
    let left = random.next() * this.#total;
    for (const [kind, rate] of this.#rates) {
      if (left < rate) return this.#fault(kind, node);
      left -= rate;
    }
  }

  #fault(kind: FaultKind, node: EngineSimNode): void {
    const { sim } = this;
    const { random, agenda } = sim;
    switch (kind) {
      case "crash":
        node.crash();
        return agenda.at(agenda.nowMs + random.between(5, 800), () => node.start());
      case "cut":
        return this.#cut(node);
      case "heal":
        sim.trace("healed");
        return sim.heal();
      case "pause":
        node.pausedUntilMs = agenda.nowMs + random.between(10, 900);
        return sim.trace(`${node.nodeid} stands still until ${node.pausedUntilMs.toFixed(1)}`);
      case "busy":
        node.busyUntilMs = agenda.nowMs + random.between(10, 900);
        return sim.trace(`${node.nodeid} is busy until ${node.busyUntilMs.toFixed(1)}`);
      case "leave":
        if (node.alive) node.leave();
        return sim.trace(`${node.nodeid} leaves`);
      case "slow-disk":
        this.slowDisks++;
        node.diskUntilMs = agenda.nowMs + random.between(10, 900);
        return sim.trace(`${node.nodeid} keeps nothing until ${node.diskUntilMs.toFixed(1)}`);
      case "client-death":
      case "hang":
      case "forget":
      case "break":
        return;
    }
  }

  #cut(node: EngineSimNode): void {
    const { sim } = this;
    const oneWay = sim.random.chance(0.3);
    const alone = sim.random.chance(0.5);
    const other = sim.random.pick(sim.nodes);
    for (const peer of alone ? sim.nodes : [other]) {
      if (peer === node) continue;
      sim.cut.add(`${peer.nodeid}>${node.nodeid}`);
      if (!oneWay) sim.cut.add(`${node.nodeid}>${peer.nodeid}`);
    }
    sim.trace(`cut: ${[...sim.cut].join(" ")}`);
  }

  /** That many steps of trouble, then rest. Throws EngineSimFailure. */
  run(steps: number): void {
    const { sim } = this;
    while (sim.steps < steps && sim.agenda.step());
    this.#quiet = true;
    sim.trace("quiet");
    sim.heal();
    sim.weather = { loss: 0, duplicate: 0, late: 0, maxDelayMs: 1 };
    for (const node of sim.nodes) node.start();
    sim.run(30 * sim.timeoutMs);
    sim.checker.atRest();
  }
}
