/**
 * cluster.yaml: what it may say, and the errors when it says something else. Pure: text in, configuration or
 * OperatingError out. Reading the file and the key is the shell's (driver/cluster-files.ts).
 */
import { type Document, isScalar, Lexer, LineCounter, Parser, parseDocument, visit } from "yaml";
import * as z from "zod";
import { OperatingError } from "../base/error.ts";
import { nearestWord } from "../base/nearest.ts";
import {
  canonicalFencing,
  fenceDevice,
  fenceDeviceKeys,
  type FenceDeviceConfig,
  fencePriorityDelayShape,
  fencingProblems,
  MAX_FENCE_DEVICES,
  fenceTargetKeys,
  nodeFenceShape,
  type NodeFenceConfig,
} from "./fence-config.ts";
import { type ConfigProblem, flag, list, memberName, objectExpected, text, whole } from "./shape.ts";
import type { NodeConfig } from "./votes.ts";

/** Survivors must tell a dead node from a busy one; below this a garbage collection looks like a death. */
export const MIN_TIMEOUT_MS = 1500;
export const MAX_TIMEOUT_MS = 600_000;
/** Members of one view; node ids may be larger. */
export const MAX_NODES = 31;
export const MAX_VOLUMES = 256;
export const MAX_VOTES = 255;
/** The text of a cluster.yaml: more is refused, by its own node too, since no message and no file would carry it. */
export const MAX_CONFIG_BYTES: number = 256 * 1024;

/** Of one machine, and written in one way: a leading zero would make a second text of an address that another node has. */
const ipv4 =
  /^(?!0\.0\.0\.0$)(?!2(2[4-9]|3\d|55\.255\.255\.255$))(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}$/;
const multicastGroup = /^(22[4-9]|23\d)(\.(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}$/;
const clusterName = /^[a-z0-9-]{1,32}$/;
const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

const port = (): z.ZodType<number> => whole(1, 65535);

const nodeShape = {
  nodeid: whole(1, 65535),
  name: text(memberName, "a name of 1 to 63 letters, digits, '.', '_' or '-'"),
  address: text(ipv4, "an IPv4 address such as 10.0.0.1"),
  votes: whole(0, MAX_VOTES, " votes").default(1),
  /** It gets volumes back that it has mounted; the others own them while it is away. */
  owner: z.enum(["preferred"], { error: "preferred, or no such key" }).optional(),
  ...nodeFenceShape,
};
/** The words of votequorum(5). */
const quorumShape = {
  two_node: flag(),
  /** Not given: as two_node. */
  wait_for_all: z.boolean({ error: "true or false" }).optional(),
  last_man_standing: flag(),
  last_man_standing_window_ms: whole(100, 3_600_000, " milliseconds").default(10_000),
  auto_tie_breaker: z
    .union([z.enum(["none", "lowest", "highest"]), z.array(z.int().min(1).max(65535)).min(1).max(MAX_NODES)], {
      error: "none, lowest, highest, or a list of nodeids such as [2, 1]",
    })
    .default("none"),
};
/** Each node would change it by itself, and what the file system below caches and when would be its own affair. */
const NO_SHARED_LOWER =
  "device or directory (a path that each node reaches by itself has no place that orders the changes: use a directory that one node has, or the disk itself)";
const volumeShape = {
  name: text(memberName, "a name of 1 to 63 letters, digits, '.', '_' or '-'"),
  uuid: text(uuid, "a uuid in lower case such as 6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11"),
  lower: z.enum(["device", "directory"], { error: ({ input }) => (input === "shared" ? NO_SHARED_LOWER : "device or directory") }),
  path: text(/^\/./, "an absolute path").optional(),
};
const multicastShape = {
  group: text(
    new RegExp(`${multicastGroup.source}|^none$`),
    "a multicast address (224.0.0.0 to 239.255.255.255), or none for unicast only",
  ).default("none"),
  port: port().default(7700),
};

function clusterShape(minTimeoutMs: number) {
  return {
    cluster: text(clusterName, "a name of 1 to 32 characters a-z, 0-9 or '-'"),
    version: whole(1, 0xffff_ffff),
    keyFile: text(/^./, "the path of the key file").default("cluster.key"),
    multicast: z.strictObject(multicastShape, { error: objectExpected }).prefault({}),
    peerPort: port().default(7701),
    engine: z.enum(["builtin", "corosync"], { error: "builtin or corosync" }).default("builtin"),
    timeoutMs: whole(minTimeoutMs, MAX_TIMEOUT_MS, " milliseconds").default(3000),
    quorum: z.strictObject(quorumShape, { error: objectExpected }).prefault({}),
    nodes: list(z.strictObject(nodeShape, { error: objectExpected }), 1, MAX_NODES, "nodes"),
    fenceDevices: list(fenceDevice, 0, MAX_FENCE_DEVICES, "fence devices").default([]),
    fencePriorityDelayMs: fencePriorityDelayShape,
    fencedLockspaces: list(text(/^.{1,64}$/u, "the name of a lockspace"), 0, MAX_VOLUMES, "names of lockspaces").default([]),
    volumes: list(z.strictObject(volumeShape, { error: objectExpected }), 0, MAX_VOLUMES, "volumes").default([]),
  };
}

function clusterSchema(minTimeoutMs: number) {
  return z.strictObject(clusterShape(minTimeoutMs), { error: objectExpected });
}

/** What parses cluster.yaml; the man page is made of it, too. */
export function clusterFileSchema(): z.ZodType {
  return clusterSchema(MIN_TIMEOUT_MS);
}

/** To make one, and to compile it at its first use, takes longer than all else of a decoding. */
let latest: { readonly minTimeoutMs: number; readonly schema: ReturnType<typeof clusterSchema> } | null = null;

function schemaFor(minTimeoutMs: number): ReturnType<typeof clusterSchema> {
  if (latest?.minTimeoutMs !== minTimeoutMs) latest = { minTimeoutMs, schema: clusterSchema(minTimeoutMs) };
  return latest.schema;
}

const knownKeys: Readonly<Record<string, readonly string[]>> = {
  "": Object.keys(clusterShape(MIN_TIMEOUT_MS)),
  fenceDevices: fenceDeviceKeys,
  multicast: Object.keys(multicastShape),
  quorum: Object.keys(quorumShape),
  nodes: Object.keys(nodeShape),
  volumes: Object.keys(volumeShape),
};

/** How votes are counted beyond "more than half": the options of votequorum(5). */
export interface QuorumConfig {
  /** Of two nodes one is enough: the fence alone decides. Refused unless every node has a fence device. */
  readonly two_node: boolean;
  /** After a start nothing is quorate before all nodes were seen once. True with two_node. */
  readonly wait_for_all: boolean;
  /** Who is missing from a quorate view for the window does not count any more, until it is back. */
  readonly last_man_standing: boolean;
  readonly last_man_standing_window_ms: number;
  /** Who wins exactly half of the votes: the half with the lowest or highest nodeid, or with the first of the list that is there. */
  readonly auto_tie_breaker: "none" | "lowest" | "highest" | readonly number[];
}

export interface VolumeEntry {
  readonly name: string;
  readonly uuid: string;
  readonly lower: "device" | "directory";
  readonly path?: string | undefined;
}

export interface ClusterConfig {
  readonly cluster: string;
  readonly version: number;
  /** As written: relative to the folder of cluster.yaml. */
  readonly keyFile: string;
  /** `group` "none": unicast only. */
  readonly multicast: { readonly group: string; readonly port: number };
  /** TCP between dlmds. */
  readonly peerPort: number;
  /** Who says which nodes are there, and orders what they say (dlmd/engine/). */
  readonly engine: "builtin" | "corosync";
  readonly timeoutMs: number;
  readonly quorum: QuorumConfig;
  /** In ascending nodeid. */
  readonly nodes: readonly (NodeConfig & NodeFenceConfig & { readonly owner?: "preferred" | undefined })[];
  readonly fenceDevices: readonly FenceDeviceConfig[];
  /** With two_node: so much later is the node of the higher priority fenced. */
  readonly fencePriorityDelayMs: number;
  /** Nothing is granted in these after a node died without a word before that node is known to be dead (recovery/fence-gate.ts). */
  readonly fencedLockspaces: readonly string[];
  readonly volumes: readonly VolumeEntry[];
}

/** A configuration that cannot be used: every problem at once. */
/** Tokens of YAML in each other; cluster.yaml needs 5. */
const MAX_YAML_DEPTH = 32;

function refuse(source: string, problems: readonly ConfigProblem[]): OperatingError {
  const lines = problems.map(({ path, expected, found }) => `  ${path === "" ? "(file)" : path}: expected ${expected}, found ${found}`);
  return new OperatingError(`${source} cannot be used:\n${lines.join("\n")}`, {
    code: "bad-config",
    hint: `Correct ${source}; examples/cluster.yaml shows every key.`,
  });
}

function pathText(path: readonly PropertyKey[]): string {
  return path.map((step, at) => (typeof step === "number" ? `[${step}]` : `${at === 0 ? "" : "."}${String(step)}`)).join("");
}

function foundAt(value: unknown, path: readonly PropertyKey[]): string {
  let at: unknown = value;
  for (const step of path) at = typeof at === "object" && at !== null ? (at as Record<PropertyKey, unknown>)[step] : undefined;
  if (at === undefined) return "nothing";
  // The tag !!merge makes a symbol, of which JSON has no words.
  const words = typeof at === "symbol" ? String(at) : JSON.stringify(at);
  return words.length > 80 ? `${words.slice(0, 77)}...` : words;
}

function unknownKey(path: readonly PropertyKey[], key: string): ConfigProblem {
  const known = path.includes("fence") ? fenceTargetKeys : (knownKeys[String(path[0] ?? "")] ?? []);
  const nearest = nearestWord(key, known);
  const expected = nearest === null ? `one of ${known.join(", ")}` : `a known key (did you mean ${nearest}?)`;
  return { path: pathText([...path, key]), expected, found: `the unknown key ${JSON.stringify(key)}` };
}

function problemsOf(error: z.ZodError, value: unknown): ConfigProblem[] {
  return error.issues.flatMap((issue) =>
    issue.code === "unrecognized_keys"
      ? issue.keys.map((key) => unknownKey(issue.path, key))
      : [{ path: pathText(issue.path), expected: issue.message, found: foundAt(value, issue.path) }],
  );
}

function duplicates<T>(rows: readonly T[], where: string, key: keyof T & string): ConfigProblem[] {
  const first = new Map<T[keyof T], number>();
  return rows.flatMap((row, at) => {
    const before = first.get(row[key]);
    if (before === undefined) {
      first.set(row[key], at);
      return [];
    }
    return [
      {
        path: `${where}[${at}].${key}`,
        expected: "one that no other entry has",
        found: `${String(row[key])}, which ${where}[${before}] has`,
      },
    ];
  });
}

/** Commands take a name or a nodeid, and one of them says that a node is dead: neither may be taken for another node's. */
function nameProblems(nodes: readonly NodeConfig[]): ConfigProblem[] {
  return nodes.flatMap(({ name, nodeid }, at) =>
    /^\d+$/.test(name) && name !== String(nodeid)
      ? [{ path: `nodes[${at}].name`, expected: `a name that is not all digits, or ${nodeid} as the nodeid`, found: name }]
      : [],
  );
}

/**
 * Why two_node cannot be used: with it both halves of a partition are quorate, and only a fence keeps the second one from the disk.
 * null: every node has a fence device.
 */
export function twoNodeObjection(nodes: readonly (NodeConfig & NodeFenceConfig)[]): string | null {
  const unfenced = nodes.filter(({ fence }) => fence === undefined);
  if (unfenced.length === 0) return null;
  const names = unfenced.map(({ name }) => name).join(" and ");
  return `false, because no fence device is configured for ${names}: cut off from each other, both would write to the disk (name a fence device for each node, add a third node, which needs no disk, or set auto_tie_breaker: lowest)`;
}

/** What no single key shows to be wrong. */
function quorumProblems(quorum: z.infer<z.ZodObject<typeof quorumShape>>, nodes: ClusterConfig["nodes"]): ConfigProblem[] {
  const problems: ConfigProblem[] = [];
  const wrong = (key: keyof QuorumConfig, expected: string, found: string): void =>
    void problems.push({ path: `quorum.${key}`, expected, found });
  const breaker = quorum.auto_tie_breaker;
  const objection = quorum.two_node ? twoNodeObjection(nodes) : null;
  if (objection !== null) wrong("two_node", objection, "true");
  if (quorum.two_node && nodes.length !== 2) wrong("two_node", "it only with exactly two nodes", `${nodes.length} nodes`);
  if (quorum.two_node && nodes.some(({ votes }) => votes !== 1)) wrong("two_node", "one vote for each of the two", "other votes");
  if (quorum.two_node && breaker !== "none") wrong("auto_tie_breaker", "none with two_node", JSON.stringify(breaker));
  if (quorum.two_node && quorum.last_man_standing) wrong("last_man_standing", "false with two_node, where one vote is enough", "true");
  if (quorum.two_node && quorum.wait_for_all === false) wrong("wait_for_all", "true with two_node", "false");
  for (const nodeid of typeof breaker === "string" ? [] : breaker) {
    if (!nodes.some((node) => node.nodeid === nodeid)) wrong("auto_tie_breaker", "nodeids of this file", String(nodeid));
  }
  if (nodes.every(({ votes }) => votes === 0)) problems.push({ path: "nodes", expected: "at least one vote in all", found: "none" });
  return problems;
}

/** votequorum has options of its own: of two places that say how votes count, one would not be believed. */
function engineProblems({ engine }: Pick<ClusterConfig, "engine">, value: unknown): ConfigProblem[] {
  if (engine !== "corosync" || !Object.hasOwn(value as object, "quorum")) return [];
  const expected = "no such key with engine: corosync, whose quorum section is in corosync.conf";
  return [{ path: "quorum", expected, found: foundAt(value, ["quorum"]) }];
}

/** Heartbeats are sent and heard on UDP at the number of peerPort, by a thread and a socket of their own. */
function portProblems({ multicast, peerPort }: Pick<ClusterConfig, "multicast" | "peerPort">): ConfigProblem[] {
  if (multicast.port !== peerPort) return [];
  const expected = "another port than peerPort, whose number heartbeats have on UDP";
  return [{ path: "multicast.port", expected, found: `${multicast.port}, which is peerPort` }];
}

/** Whether lists and maps stand in each other deeper than that: what reads them calls itself for each, and the stack has an end. */
function isDeeper(yaml: string, levels: number): boolean {
  const parser = new Parser();
  for (const lexeme of new Lexer().lex(yaml)) {
    for (const _ of parser.next(lexeme));
    if (parser.stack.length > levels) return true;
  }
  return false;
}

/** An agent is given what was written: a PIN of 0123 is not the number 123. What is the same as text stays what it is. */
function keepOptionsAsWritten(document: Document.Parsed): void {
  visit(document, {
    Pair(_key, { key, value }) {
      if (!isScalar(key) || key.value !== "options") return;
      visit(value as Document.Parsed["contents"], {
        Scalar(at, scalar) {
          const isOther = typeof scalar.value === "number" || typeof scalar.value === "boolean";
          if (at !== "key" && isOther && scalar.source !== undefined) {
            if (scalar.source !== String(scalar.value)) scalar.value = scalar.source;
          }
        },
      });
    },
  });
}

function parseYaml(source: string, yaml: string): unknown {
  const refuseYaml = (path: string, expected: string, found: string): OperatingError => refuse(source, [{ path, expected, found }]);
  if (isDeeper(yaml, MAX_YAML_DEPTH)) throw refuseYaml("", `lists and maps at most ${MAX_YAML_DEPTH} deep`, "more");
  const lines = new LineCounter();
  // Pretty errors take the time of the whole text for each.
  const document = parseDocument(yaml, { logLevel: "error", prettyErrors: false, lineCounter: lines });
  const error = document.errors[0];
  if (error !== undefined) {
    const { line, col } = lines.linePos(error.pos[0]);
    throw refuseYaml(`line ${line}, column ${col}`, "YAML", error.message);
  }
  keepOptionsAsWritten(document);
  try {
    return document.toJS({ maxAliasCount: 0 });
  } catch (cause) {
    // Of aliases; a few of them make a text of any size, or one without an end.
    if (cause instanceof ReferenceError) throw refuseYaml("", "every value written out", "an alias (*name)");
    // A merge key whose value is no map: an error of the text that is found only here.
    throw refuseYaml("", "YAML", (cause as Error).message);
  }
}

/**
 * Decodes the text of a cluster.yaml. `source` names it in errors. Throws OperatingError "bad-config" that lists
 * every problem. `minTimeoutMs`: lower than MIN_TIMEOUT_MS in tests only.
 */
export function decodeClusterConfig(yaml: string, source: string, minTimeoutMs: number = MIN_TIMEOUT_MS): ClusterConfig {
  const { byteLength } = new TextEncoder().encode(yaml);
  if (byteLength > MAX_CONFIG_BYTES) {
    throw refuse(source, [{ path: "", expected: `at most ${MAX_CONFIG_BYTES} bytes`, found: `${byteLength}` }]);
  }
  const value = parseYaml(source, yaml);
  const result = schemaFor(minTimeoutMs).safeParse(value);
  if (!result.success) throw refuse(source, problemsOf(result.error, value));
  const config = result.data;
  const problems = [
    ...duplicates(config.nodes, "nodes", "nodeid"),
    ...duplicates(config.nodes, "nodes", "name"),
    ...nameProblems(config.nodes),
    ...duplicates(config.nodes, "nodes", "address"),
    ...duplicates(config.volumes, "volumes", "name"),
    ...duplicates(config.volumes, "volumes", "uuid"),
    ...quorumProblems(config.quorum, config.nodes),
    ...portProblems(config),
    ...duplicates(config.fenceDevices, "fenceDevices", "name"),
    ...fencingProblems(config),
    ...engineProblems(config, value),
  ];
  if (problems.length > 0) throw refuse(source, problems);
  const quorum = { ...config.quorum, wait_for_all: config.quorum.wait_for_all ?? config.quorum.two_node };
  return { ...config, quorum, nodes: config.nodes.toSorted((a, b) => a.nodeid - b.nodeid) };
}

/** The nodes that prefer to be the owner, in ascending nodeid. */
export function preferredOwners({ nodes }: Pick<ClusterConfig, "nodes">): number[] {
  return nodes.filter(({ owner }) => owner === "preferred").map(({ nodeid }) => nodeid);
}

/**
 * What a configuration means, as text: equal for files that differ in comments, order or layout only.
 */
export function canonicalConfig(config: ClusterConfig): string {
  const { cluster, version, keyFile, multicast, peerPort, engine, timeoutMs, quorum, nodes, fencedLockspaces, volumes } = config;
  const { group, port } = multicast;
  const { two_node, wait_for_all, last_man_standing, last_man_standing_window_ms, auto_tie_breaker } = quorum;
  const fencing = canonicalFencing(config);
  const preferred = preferredOwners(config);
  return JSON.stringify([
    [cluster, version, keyFile, group, port, peerPort, timeoutMs, ...fencedLockspaces.toSorted()],
    [two_node, wait_for_all, last_man_standing, last_man_standing_window_ms, auto_tie_breaker],
    nodes.map(({ nodeid, name, address, votes }) => [nodeid, name, address, votes]),
    volumes.map(({ name, uuid, lower, path }) => [name, uuid, lower, path ?? null]),
    // A text that does not speak of fences means what it meant to versions that knew none.
    ...(fencing === null ? [] : [fencing]),
    ...(engine === "builtin" ? [] : [engine]),
    ...(preferred.length === 0 ? [] : [{ preferred }]),
  ]);
}
