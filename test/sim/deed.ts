/**
 * What is done to a simulated cluster at a moment, as data: drawn from a seed (trouble.ts), made fewer when they end in a failure (shrink.ts),
 * kept in a file. A line of a file is "12.5 crash 2".
 */
import type { Weather } from "./network.ts";

export type Deed =
  | { readonly kind: "start" | "crash" | "leave"; readonly node: number }
  | { readonly kind: "pause" | "busy"; readonly node: number; readonly ms: number }
  /** One random thing that a program does: `client` counts the node's programs, modulo their number. */
  | { readonly kind: "act"; readonly node: number; readonly client: number; readonly seed: number }
  | { readonly kind: "client-death"; readonly node: number; readonly client: number }
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
  readonly transactions: boolean;
  readonly weather: Weather;
  /** From then on nothing goes wrong, and in the end nothing may wait. */
  readonly quietMs: number;
  readonly deeds: readonly TimedDeed[];
}

export function wordsOf(deed: Deed): string {
  switch (deed.kind) {
    case "start":
    case "crash":
    case "leave":
      return `${deed.kind} ${deed.node}`;
    case "pause":
    case "busy":
      return `${deed.kind} ${deed.node} ${deed.ms}`;
    case "act":
      return `act ${deed.node} ${deed.client} ${deed.seed}`;
    case "client-death":
      return `client-death ${deed.node} ${deed.client}`;
    case "cut":
    case "break":
      return `${deed.kind} ${deed.links.join(" ")}`;
    case "heal":
      return "heal";
  }
}

export function encodeScript(script: Script, comment: string): string {
  const { seed, nodes, resources, transactions, weather, quietMs, deeds } = script;
  const { loss, duplicate, late, maxDelayMs } = weather;
  const head = comment.split("\n").map((line) => `# ${line}`.trimEnd());
  return [
    ...head,
    `cluster seed=${seed} nodes=${nodes} resources=${resources} transactions=${transactions ? 1 : 0} quiet=${quietMs}`,
    `weather loss=${loss} duplicate=${duplicate} late=${late} max-delay=${maxDelayMs}`,
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
    transactions: need(cluster, "transactions") === 1,
    quietMs: need(cluster, "quiet"),
    weather: {
      loss: need(weather, "loss"),
      duplicate: need(weather, "duplicate"),
      late: need(weather, "late"),
      maxDelayMs: need(weather, "max-delay"),
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
    case "leave":
      return { kind, node };
    case "pause":
    case "busy":
      return { kind, node, ms: second };
    case "act":
      return { kind, node, client: second, seed: third };
    case "client-death":
      return { kind, node, client: second };
    case "cut":
    case "break":
      return { kind, links: words };
    case "heal":
      return { kind };
    default:
      return null;
  }
}
