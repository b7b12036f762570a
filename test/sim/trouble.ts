/** Draws from a seed what programs do and what goes wrong (deed.ts), without end. It knows nothing of the cluster, so what it draws is the same whatever happens there. */
import { type Deed, PLAIN_KINDS, type Script, type TimedDeed, TWO_NODE_KIND } from "./deed.ts";
import { VOTE_SEEDS } from "./config-draw.ts";
import { type FaultKind, type FaultOptions, type FaultRates } from "./faults.ts";
import { Random } from "./random.ts";

const usualRates: FaultRates = {
  crash: 0.95,
  "client-death": 0.6,
  hang: 1.5,
  cut: 0.95,
  heal: 1.9,
  break: 0.95,
  pause: 0.6,
  busy: 0.3,
  leave: 0.3,
  "slow-disk": 0.5,
  forget: 0.15,
};

/** Proposals of another configuration, a second of simulated time; half of the seeds have them. */
const CONFIGURE_RATE = 4;
/** Standstills in the midst of something, starved nodes and what cannot be meant, a second as well; five of twelve seeds have them. */
const ROUGH_RATE = 2.5;

/** What the seed says about the cluster; `nodes` 0: that too. */
export function scriptOf(seed: number, nodes: number, { weather }: FaultOptions): Script {
  const random = new Random(seed);
  const count = random.pick([1, 2, 3, 3, 3, 4, 5]);
  const harsh = random.next();
  const [resources, transactions] = [1 + random.int(6), random.chance(0.4)];
  return {
    seed,
    nodes: nodes > 0 ? nodes : count,
    // Of many resources most are used by few nodes, and move.
    resources: resources * (seed % 3 === 0 ? 4 : 1),
    lockspaces: random.chance(0.6) ? 2 : 1,
    transactions,
    quorum: quorumOf(random, seed, nodes > 0 ? nodes : count),
    fenced: random.chance(0.3),
    // Drawn apart: the rest of a seed is as it was before there were changes.
    apart: new Random(seed ^ 0xa9a7_0000).chance(0.6),
    changes: new Random(seed ^ 0xc0f1_6000).chance(0.5) && !isTwoNode(seed, nodes > 0 ? nodes : count),
    rough: seed % 6 !== 0 && new Random(seed ^ 0x0a0b_6000).chance(0.5),
    weather: {
      loss: harsh * 0.2,
      duplicate: harsh * 0.1,
      late: harsh * 0.2,
      maxDelayMs: 80,
      drift: random.chance(0.5) ? 0 : random.between(0, 0.02),
      ...weather,
    },
    slow: 1,
    quietMs: Number.POSITIVE_INFINITY,
    deeds: [],
  };
}

/** Half of the clusters of two. */
function isTwoNode(seed: number, nodes: number): boolean {
  return nodes === 2 && new Random(seed ^ 0x2a0d_e000).chance(0.5);
}

function quorumOf(random: Random, seed: number, nodes: number): number {
  const plain = random.chance(0.5) ? 0 : random.int(PLAIN_KINDS);
  return isTwoNode(seed, nodes) ? TWO_NODE_KIND : plain;
}

const round = (ms: number): number => Math.round(ms * 100) / 100;

export class Trouble {
  readonly #random: Random;
  readonly #nodes: number;
  readonly #slow: number;
  readonly #rates: readonly (readonly [FaultKind, number])[];
  readonly #total: number;
  readonly #configuring: Random;
  #configureAtMs: number;
  readonly #roughly: Random;
  #roughAtMs: number;
  #actAtMs = 1;
  #faultAtMs = 0;
  /** Drawn ahead: starts. */
  #later: TimedDeed[] = [];

  constructor({ seed, nodes, changes, rough, slow }: Script, { rates }: FaultOptions) {
    this.#random = new Random(seed ^ 0x5eed_1e55);
    this.#nodes = nodes;
    this.#slow = slow;
    this.#rates = Object.entries({ ...usualRates, ...rates }) as [FaultKind, number][];
    this.#total = this.#rates.reduce((sum, [, rate]) => sum + rate, 0);
    this.#faultAtMs = this.#nextFaultMs(0);
    this.#configuring = new Random(seed ^ 0xc0f1_6001);
    this.#configureAtMs = changes ? this.#nextConfigureMs(200) : Number.POSITIVE_INFINITY;
    this.#roughly = new Random(seed ^ 0x0a0b_6001);
    this.#roughAtMs = rough ? this.#nextRoughMs(100) : Number.POSITIVE_INFINITY;
    for (let node = 1; node <= nodes; node++) this.#afterwards(round(this.#random.between(0, 200)), { kind: "start", node });
  }

  /** The times at which something happens that nobody can foresee come apart like this. */
  #nextFaultMs(nowMs: number): number {
    return this.#total > 0 ? nowMs - (Math.log(1 - this.#random.next()) * 1000) / this.#total : Number.POSITIVE_INFINITY;
  }

  #nextConfigureMs(nowMs: number): number {
    return nowMs - (Math.log(1 - this.#configuring.next()) * 1000) / CONFIGURE_RATE;
  }

  #nextRoughMs(nowMs: number): number {
    return nowMs - (Math.log(1 - this.#roughly.next()) * 1000) / ROUGH_RATE;
  }

  #roughDeed(): TimedDeed {
    const atMs = round(this.#roughAtMs);
    this.#roughAtMs = this.#nextRoughMs(this.#roughAtMs);
    const random = this.#roughly;
    const node = 1 + random.int(this.#nodes);
    const what = random.next();
    if (what < 0.15) return { atMs, deed: { kind: "forge", node, peer: 1 + random.int(this.#nodes) } };
    return { atMs, deed: { kind: what < 0.6 ? "freeze" : "starve", node, ms: round(random.between(10, 900)) } };
  }

  #afterwards(atMs: number, deed: Deed): void {
    this.#later = [...this.#later, { atMs, deed }].sort((a, b) => a.atMs - b.atMs);
  }

  /** Times ascend. */
  next(): TimedDeed {
    const [first] = this.#later;
    if (this.#roughAtMs <= Math.min(this.#configureAtMs, this.#actAtMs, this.#faultAtMs, first?.atMs ?? Number.POSITIVE_INFINITY))
      return this.#roughDeed();
    if (this.#configureAtMs <= Math.min(this.#actAtMs, this.#faultAtMs, first?.atMs ?? Number.POSITIVE_INFINITY)) {
      const atMs = round(this.#configureAtMs);
      this.#configureAtMs = this.#nextConfigureMs(this.#configureAtMs);
      const random = this.#configuring;
      return { atMs, deed: { kind: "configure", node: 1 + random.int(this.#nodes), seed: random.int(2 * VOTE_SEEDS) } };
    }
    if (first !== undefined && first.atMs <= Math.min(this.#actAtMs, this.#faultAtMs)) {
      this.#later.shift();
      return first;
    }
    if (this.#actAtMs <= this.#faultAtMs) {
      const atMs = round(this.#actAtMs);
      this.#actAtMs += this.#slow * this.#random.between(0.5, 1.5);
      return { atMs, deed: { kind: "act", node: this.#node(), client: this.#random.int(8), seed: this.#random.int(1_000_000) } };
    }
    const atMs = round(this.#faultAtMs);
    this.#faultAtMs = this.#nextFaultMs(this.#faultAtMs);
    return { atMs, deed: this.#fault(this.#kind(), atMs) };
  }

  #node(): number {
    return 1 + this.#random.int(this.#nodes);
  }

  #kind(): FaultKind {
    let left = this.#random.next() * this.#total;
    for (const [kind, rate] of this.#rates) {
      if (left < rate) return kind;
      left -= rate;
    }
    return "heal";
  }

  #fault(kind: FaultKind, atMs: number): Deed {
    const random = this.#random;
    const node = this.#node();
    switch (kind) {
      case "crash":
      case "forget":
        this.#afterwards(round(atMs + this.#slow * random.between(5, 800)), { kind: "start", node });
        return { kind, node };
      case "client-death":
        return { kind, node, client: random.int(8) };
      case "hang":
        return { kind, node, client: random.int(8), ms: round(random.between(20, 1500)) };
      case "cut": {
        const links = this.#links(node);
        // Otherwise a connection breaks when something is to go over it.
        if (random.chance(0.5)) this.#afterwards(atMs, { kind: "break", links });
        return { kind, links };
      }
      case "heal":
        return { kind };
      case "break":
        return { kind, links: [`${node}>${this.#node()}`] };
      case "pause":
      case "busy":
      case "slow-disk":
        return { kind, node, ms: round(random.between(10, 900)) };
      case "leave":
        return { kind, node };
    }
  }

  #links(node: number): string[] {
    const oneWay = this.#random.chance(0.3);
    const alone = this.#random.chance(0.6);
    const other = this.#node();
    const peers = alone ? Array.from({ length: this.#nodes }, (_, i) => i + 1) : [other];
    const linksOf = (peer: number): string[] => [`${peer}>${node}`, ...(oneWay ? [] : [`${node}>${peer}`])];
    return peers.flatMap((peer) => (peer === node ? [] : linksOf(peer)));
  }
}
