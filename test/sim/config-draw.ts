/** What a simulated cluster's configuration says, and one change of it at random: of votes, nodes, how votes are counted, addresses, volumes. */
import { OperatingError } from "../../dlmd/base/error.ts";
import { configRecordOf } from "../../dlmd/config/change-codec.ts";
import type { ConfigRecord } from "../../dlmd/config/record.ts";
import type { QuorumOptions } from "../../dlmd/engine/boot.ts";
import { Random } from "./random.ts";

const MOST_VOTES = 3;
const STANDING_MS = 500;
/** Seeds of a deed below it change votes and nodes, as those in kept scripts do; those above it the rest. */
export const VOTE_SEEDS = 1_000_000;
const source = "simulation";

export type ChangeKind = "votes" | "nodes" | "quorum" | "addresses" | "volumes";

interface TextNode {
  readonly nodeid: number;
  readonly name: string;
  readonly address: string;
  readonly votes: number;
}

/** As cluster.yaml has it: JSON is YAML. */
export interface ConfigText {
  readonly cluster: string;
  readonly version: number;
  readonly timeoutMs: number;
  readonly quorum: Readonly<Record<string, unknown>>;
  readonly nodes: readonly TextNode[];
  readonly volumes: readonly { readonly name: string; readonly uuid: string; readonly lower: string }[];
}

const texts = new WeakMap<ConfigRecord, ConfigText>();

export function textOf(record: ConfigRecord): ConfigText {
  let text = texts.get(record);
  if (text === undefined) {
    text = JSON.parse(record.text) as ConfigText;
    texts.set(record, text);
  }
  return text;
}

export function recordOf(text: ConfigText): ConfigRecord {
  return configRecordOf(JSON.stringify(text), source, 1);
}

export function addressIn(record: ConfigRecord, nodeid: number): string | undefined {
  return textOf(record).nodes.find((node) => node.nodeid === nodeid)?.address;
}

function nodeOf(nodeid: number, votes: number): TextNode {
  return { nodeid, name: `node${nodeid}`, address: `10.0.0.${nodeid}`, votes };
}

export function firstConfig(nodes: number, timeoutMs: number, options: Partial<QuorumOptions>): ConfigRecord {
  const { waitForAll = false, autoTieBreaker = "none", lastManStandingMs = null } = options;
  const standing = lastManStandingMs === null ? {} : { last_man_standing: true, last_man_standing_window_ms: lastManStandingMs };
  const quorum = { wait_for_all: waitForAll, auto_tie_breaker: autoTieBreaker, ...standing };
  return recordOf({
    cluster: "sim",
    version: 1,
    timeoutMs,
    quorum,
    nodes: Array.from({ length: nodes }, (_, i) => nodeOf(i + 1, 1)),
    volumes: [],
  });
}

export function kindOf(from: ConfigRecord, to: ConfigRecord): ChangeKind {
  const [before, after] = [textOf(from), textOf(to)];
  const same = (part: (text: ConfigText) => unknown): boolean => JSON.stringify(part(before)) === JSON.stringify(part(after));
  if (!same(({ nodes }) => nodes.map(({ nodeid }) => nodeid))) return "nodes";
  if (!same(({ nodes }) => nodes.map(({ votes }) => votes))) return "votes";
  if (!same(({ nodes }) => nodes)) return "addresses";
  return same(({ quorum }) => quorum) ? "volumes" : "quorum";
}

/** Nodes of a cluster, as a change is drawn for them. */
export interface Machine {
  readonly nodeid: number;
  readonly alive: boolean;
}

/** The next version: one change that `seed` says, or null: none. */
export function drawnChange(before: ConfigRecord, machines: readonly Machine[], seed: number): ConfigRecord | null {
  const text = textOf(before);
  const random = new Random(seed);
  const change = seed < VOTE_SEEDS ? votesChanged(text, machines, random) : otherChanged(text, machines, random);
  if (change === null) return null;
  try {
    return recordOf({ ...text, version: text.version + 1, ...change });
  } catch (error) {
    // A tie-breaker that would be no node any more, as `config check` says to a person.
    if (error instanceof OperatingError) return null;
    throw error;
  }
}

export function withVotes(before: ConfigRecord, nodeid: number, votes: number): ConfigRecord {
  const text = textOf(before);
  return recordOf({ ...text, version: text.version + 1, ...votesSet(text, nodeid, votes) });
}

/** `votes` null: without that node. */
function votesSet({ nodes }: ConfigText, nodeid: number, votes: number | null): Partial<ConfigText> {
  const former = nodes.find((node) => node.nodeid === nodeid) ?? nodeOf(nodeid, 0);
  const others = nodes.filter((node) => node.nodeid !== nodeid);
  return { nodes: (votes === null ? others : [...others, { ...former, votes }]).toSorted((a, b) => a.nodeid - b.nodeid) };
}

/** One node or one vote. */
function votesChanged(text: ConfigText, machines: readonly Machine[], random: Random): Partial<ConfigText> | null {
  const votes = new Map(text.nodes.map((node) => [node.nodeid, node.votes]));
  const missing = machines.filter(({ nodeid }) => !votes.has(nodeid));
  const off = machines.filter(({ nodeid, alive }) => votes.has(nodeid) && !alive);
  let change: Partial<ConfigText>;
  if (missing.length > 0 && random.chance(0.5)) return votesSet(text, random.pick(missing).nodeid, 1);
  if (off.length > 0 && random.chance(0.7)) {
    const { nodeid } = random.pick(off);
    const has = votes.get(nodeid) ?? 0;
    change = votesSet(text, nodeid, has > 1 ? has - 1 : null);
  } else {
    const nodeid = random.pick([...votes.keys()]);
    const has = votes.get(nodeid) ?? 0;
    change = votesSet(text, nodeid, has === 0 || (has < MOST_VOTES && random.chance(0.5)) ? has + 1 : has - 1);
  }
  return change.nodes?.some((node) => node.votes > 0) === true ? change : null;
}

function otherChanged(text: ConfigText, machines: readonly Machine[], random: Random): Partial<ConfigText> | null {
  const roll = random.next();
  if (roll < 0.4) return { quorum: quorumDrawn(text, random) };
  if (roll < 0.7) {
    const { nodes } = text;
    const off = nodes.filter(({ nodeid }) => machines.some((machine) => machine.nodeid === nodeid && !machine.alive));
    // Of a node that runs it is refused.
    if (off.length === 0 && random.chance(0.7)) return null;
    const moved = random.pick(off.length > 0 ? off : nodes);
    return { nodes: nodes.map((node) => (node === moved ? { ...node, address: `10.0.${1 + random.int(200)}.${node.nodeid}` } : node)) };
  }
  const { volumes } = text;
  if (volumes.length > 2) return { volumes: volumes.slice(1) };
  const serial = (text.version + 1).toString(16).padStart(12, "0");
  const volume = { name: `volume${text.version + 1}`, uuid: `6b1c0b5e-3f0e-4f0a-9d5c-${serial}`, lower: "device" };
  return { volumes: [...volumes, volume] };
}

function quorumDrawn({ quorum, nodes }: ConfigText, random: Random): Readonly<Record<string, unknown>> {
  const roll = random.next();
  if (roll < 0.2) return { ...quorum, wait_for_all: quorum["wait_for_all"] !== true };
  if (roll < 0.5) {
    return { ...quorum, last_man_standing: quorum["last_man_standing"] !== true, last_man_standing_window_ms: STANDING_MS };
  }
  const breakers = ["none", "lowest", "highest", [random.pick(nodes).nodeid]].filter(
    (breaker) => JSON.stringify(breaker) !== JSON.stringify(quorum["auto_tie_breaker"]),
  );
  return { ...quorum, auto_tie_breaker: random.pick(breakers) };
}

/**
 * A file of the next version that a person wrote for that node alone, and that the cluster never agreed on; null: the node would be a quorum
 * by itself by it, and nothing could keep that from being a second one.
 */
export function strayConfig(before: ConfigRecord, nodeid: number, serial: number): ConfigRecord | null {
  const text = textOf(before);
  const votes = text.nodes.find((node) => node.nodeid === nodeid)?.votes ?? 0;
  const others = text.nodes.reduce((sum, node) => sum + node.votes, 0) - votes;
  if (votes >= others) return null;
  const { nodes = [] } = votesSet(text, nodeid, votes + 1 < others ? votes + 1 : votes);
  const volume = { name: `stray${serial}`, uuid: `6b1c0b5e-3f0e-4f0a-9d5d-${String(serial).padStart(12, "0")}`, lower: "device" };
  return recordOf({ ...text, version: text.version + 1, nodes, volumes: [...text.volumes, volume] });
}
