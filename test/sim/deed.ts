/**
 * What is done to a simulated cluster at a moment, as data: drawn from a seed (trouble.ts), made fewer when they end in a failure (shrink.ts),
 * kept in a file. A line of a file is "12.5 crash 2".
 */
import type { QuorumOptions } from "../../dlmd/engine/boot.ts";
import type { Weather } from "./network.ts";

export type Deed =
  | { readonly kind: "start" | "crash" | "leave"; readonly node: number }
  | { readonly kind: "forget"; readonly node: number }
  | { readonly kind: "pause" | "busy" | "slow-disk"; readonly node: number; readonly ms: number }
  /** It stands still between what it decides and what it does; each of its steps takes a while. */
  | { readonly kind: "freeze" | "starve"; readonly node: number; readonly ms: number }
  /** It says to that peer what it cannot mean. */
  | { readonly kind: "forge"; readonly node: number; readonly peer: number }
  /** One random thing that a program does: `client` counts the node's programs, modulo their number. */
  | { readonly kind: "act"; readonly node: number; readonly client: number; readonly seed: number }
  /** That node proposes another configuration. */
  | { readonly kind: "configure"; readonly node: number; readonly seed: number }
  | { readonly kind: "client-death"; readonly node: number; readonly client: number }
  /** A program stands still for so long. */
  | { readonly kind: "hang"; readonly node: number; readonly client: number; readonly ms: number }
  | { readonly kind: "cut"; readonly links: readonly string[] }
  | { readonly kind: "break"; readonly links: readonly string[] }
  | { readonly kind: "heal" };

export interface TimedDeed {
  readonly atMs: number;
  readonly deed: Deed;
}

/** Everything that a run depends on. */
export interface Script {
  readonly seed: number;
  readonly nodes: number;
  readonly resources: number;
  /** 1 or 2. */
  readonly lockspaces: number;
  readonly transactions: boolean;
  /** One of `quorumKinds`. */
  readonly quorum: number;
  /** The second lockspace needs fencing; nobody forgets what it stored then. */
  readonly fenced: boolean;
  /** Some nodes have programs in one of two lockspaces only. */
  readonly apart: boolean;
  /** The configuration changes while locks are held. */
  readonly changes: boolean;
  /** What waits for a process that stood still is read in any order, and what it tells its thread of the heartbeats comes late. */
  readonly rough: boolean;
  readonly weather: Weather;
  /** What is drawn: programs do something so many times as seldom, and nodes stay off so many times as long. */
  readonly slow: number;
  /** From then on nothing goes wrong, and in the end nothing may wait. */
  readonly quietMs: number;
  readonly deeds: readonly TimedDeed[];
}

/** How votes are counted, beyond a majority of all. */
export const quorumKinds: readonly { readonly words: string; readonly options: Partial<QuorumOptions> }[] = [
  { words: "majority", options: {} },
  { words: "auto_tie_breaker", options: { autoTieBreaker: "lowest" } },
  { words: "last_man_standing", options: { lastManStandingMs: 500, autoTieBreaker: "lowest" } },
  { words: "wait_for_all", options: { waitForAll: true } },
  // Of two nodes alone: see `scriptOf`.
  { words: "two_node", options: { twoNode: true, waitForAll: true } },
];
/** Of those any number of nodes may have. */
export const PLAIN_KINDS = 4;
export const TWO_NODE_KIND = 4;

export function wordsOf(deed: Deed): string {
  switch (deed.kind) {
    case "start":
    case "crash":
    case "forget":
    case "leave":
      return `${deed.kind} ${deed.node}`;
    case "pause":
    case "busy":
    case "slow-disk":
    case "freeze":
    case "starve":
      return `${deed.kind} ${deed.node} ${deed.ms}`;
    case "forge":
      return `forge ${deed.node} ${deed.peer}`;
    case "act":
      return `act ${deed.node} ${deed.client} ${deed.seed}`;
    case "configure":
      return `configure ${deed.node} ${deed.seed}`;
    case "client-death":
      return `client-death ${deed.node} ${deed.client}`;
    case "hang":
      return `hang ${deed.node} ${deed.client} ${deed.ms}`;
    case "cut":
    case "break":
      return `${deed.kind} ${deed.links.join(" ")}`;
    case "heal":
      return "heal";
  }
}

export function encodeScript(script: Script, comment: string): string {
  const { seed, nodes, resources, lockspaces, transactions, quorum, fenced, apart, changes, rough, weather, quietMs, deeds } = script;
  const { loss, duplicate, late, maxDelayMs, drift = 0 } = weather;
  const head = comment.split("\n").map((line) => `# ${line}`.trimEnd());
  return [
    ...head,
    `cluster seed=${seed} nodes=${nodes} resources=${resources} lockspaces=${lockspaces} transactions=${transactions ? 1 : 0} quorum=${quorum} fenced=${fenced ? 1 : 0} apart=${apart ? 1 : 0} changes=${changes ? 1 : 0} rough=${rough ? 1 : 0} quiet=${quietMs}`,
    `weather loss=${loss} duplicate=${duplicate} late=${late} max-delay=${maxDelayMs} drift=${drift}`,
    ...deeds.map(({ atMs, deed }) => `${atMs} ${wordsOf(deed)}`),
    "",
  ].join("\n");
}

/** Throws Error, naming the line. */
export function decodeScript(text: string): Script {
  let cluster = new Map<string, number>();
  let weather = new Map<string, number>();
  const deeds: TimedDeed[] = [];
  text.split("\n").forEach((line, at) => {
    const words = line.replace(/#.*/, "").trim().split(/\s+/);
    const [first = "", ...rest] = words;
    if (first === "") return;
    if (first === "cluster") cluster = namedNumbers(rest);
    else if (first === "weather") weather = namedNumbers(rest);
    else {
      const deed = Number.isFinite(Number(first)) ? deedOf(rest) : null;
      if (deed === null) throw new Error(`line ${at + 1}: a time and what is done then expected, found ${line}`);
      deeds.push({ atMs: Number(first), deed });
    }
  });
  const need = (numbers: ReadonlyMap<string, number>, name: string): number => {
    const value = numbers.get(name);
    if (value === undefined || !Number.isFinite(value)) throw new Error(`${name}=NUMBER expected in the lines "cluster" and "weather"`);
    return value;
  };
  return {
    seed: need(cluster, "seed"),
    nodes: need(cluster, "nodes"),
    resources: need(cluster, "resources"),
    lockspaces: cluster.get("lockspaces") ?? 1,
    transactions: need(cluster, "transactions") === 1,
    quorum: cluster.get("quorum") ?? 0,
    fenced: cluster.get("fenced") === 1,
    apart: cluster.get("apart") === 1,
    changes: cluster.get("changes") === 1,
    rough: cluster.get("rough") === 1,
    slow: 1,
    quietMs: need(cluster, "quiet"),
    weather: {
      loss: need(weather, "loss"),
      duplicate: need(weather, "duplicate"),
      late: need(weather, "late"),
      maxDelayMs: need(weather, "max-delay"),
      drift: weather.get("drift") ?? 0,
    },
    deeds,
  };
}

function namedNumbers(words: readonly string[]): Map<string, number> {
  return new Map(words.map((word) => [word.split("=")[0] ?? "", Number(word.split("=")[1] ?? Number.NaN)]));
}

function deedOf([kind = "", ...words]: readonly string[]): Deed | null {
  const [node = Number.NaN, second = Number.NaN, third = Number.NaN] = words.map(Number);
  switch (kind) {
    case "start":
    case "crash":
    case "forget":
    case "leave":
      return { kind, node };
    case "pause":
    case "busy":
    case "slow-disk":
    case "freeze":
    case "starve":
      return { kind, node, ms: second };
    case "forge":
      return { kind, node, peer: second };
    case "act":
      return { kind, node, client: second, seed: third };
    case "client-death":
      return { kind, node, client: second };
    case "configure":
      return { kind, node, seed: second };
    case "hang":
      return { kind, node, client: second, ms: third };
    case "cut":
    case "break":
      return { kind, links: words };
    case "heal":
      return { kind };
    default:
      return null;
  }
}
