/** From a write on one node to a read of it on another, and the TCP round trip between the same two nodes to measure it by. */
import { spawn } from "node:child_process";
import path from "node:path";
import { createInterface } from "node:readline";
import { must } from "../../overlay/lab/command.ts";
import { decodeLoadValues, type LoadValues, loadValue } from "./load.ts";
import { median } from "./stats.ts";
import type { Bench, Cluster, ClusterNode } from "./system.ts";

/** Of each cable, in each direction: a round trip between two nodes takes 0.5 ms more, as from rack to rack. */
const CABLE_MS = 0.125;

export interface Handover {
  readonly pair: string;
  /** Two nodes, each with processors that the other does not use. */
  readonly apart: boolean;
  /** Medians, in us: the write, which takes the file from the reader; the read that follows; both. */
  readonly writeUs: number;
  readonly readUs: number;
  /** What nine of ten reads stay below: the median of the rounds. */
  readonly read90Us: number;
  readonly totalUs: number;
  /** Reads that did not see the write before them: must be 0. */
  readonly stale: number;
  readonly reads: number;
}

export interface RoundTrip {
  /** Medians, in us, of 64 bytes; null: not measured. */
  readonly cUs: number | null;
  readonly nodeUs: number | null;
}

/** The same over long cables. */
export interface LongHandovers {
  /** How much longer a packet takes from one node to another, in ms. */
  readonly delayMs: number;
  readonly handovers: readonly Handover[];
  readonly roundTrip: RoundTrip;
}

interface Pair {
  readonly name: string;
  readonly apart: boolean;
  readonly from: string;
  readonly to: string;
}

function plainPairs(bench: Bench): Pair[] {
  return bench.systems
    .filter(({ name }) => name === "native" || name === "bindfs")
    .map(({ name, dir }) => ({ name: `${name}, one node`, apart: false, from: dir, to: dir }));
}

function clusterPairs(bench: Bench): Pair[] {
  if (bench.cluster === null) return [];
  const { owner, other, third } = bench.cluster;
  const pair = (name: string, from: ClusterNode, to: ClusterNode): Pair => ({
    name,
    apart: from.processors === null || from.processors !== to.processors,
    from: from.mount,
    to: to.mount,
  });
  return [pair("owner to other", owner, other), pair("other to owner", other, owner), pair("other to third", other, third)];
}

type Samples = Record<"writeUs" | "readUs" | "read90Us" | "totalUs", number[]> & { apart: boolean; stale: number; reads: number };

export interface HandoverMeter {
  /** One round of all pairs and round trips. */
  round(): Promise<void>;
  handovers(): Handover[];
  roundTrip(): RoundTrip;
}

export interface MeterOptions {
  /** The load. */
  readonly program: string;
  /** The compiled tcp-peer program; null: no round trip from Node. */
  readonly nodePeer: string | null;
}

/** Among the nodes of the cluster, and for comparison within each plain system. */
export function createHandoverMeter(bench: Bench, options: MeterOptions): HandoverMeter {
  return createMeter(bench, options, [...plainPairs(bench), ...clusterPairs(bench)]);
}

/** One round with cables that make a packet from node to node take longer, and then as they were. */
export async function measureLongHandovers(bench: Bench, cluster: Cluster, options: MeterOptions): Promise<LongHandovers> {
  const meter = createMeter(bench, options, clusterPairs(bench));
  await cluster.setCables(CABLE_MS);
  try {
    await meter.round();
  } finally {
    await cluster.setCables(0);
  }
  return { delayMs: 2 * CABLE_MS, handovers: meter.handovers(), roundTrip: meter.roundTrip() };
}

function createMeter(bench: Bench, { program, nodePeer }: MeterOptions, pairs: readonly Pair[]): HandoverMeter {
  const samples = new Map<string, Samples>();
  const trips: { c: number[]; node: number[] } = { c: [], node: [] };
  const nodes = bench.cluster;
  return {
    async round() {
      for (const pair of pairs) await handOver(bench, pair, samples);
      if (nodes === null) return;
      const { pings } = bench.scale;
      trips.c.push(await pingUs(bench, nodes, { serve: [program, "tcp-serve"], ping: [program, "tcp-ping"] }, pings));
      const nodeUs = await nodeTripUs(bench, nodes, nodePeer, pings);
      if (nodeUs !== null) trips.node.push(nodeUs);
    },
    handovers: () =>
      [...samples].map(([pair, { apart, writeUs, readUs, read90Us, totalUs, stale, reads }]) => ({
        pair,
        apart,
        writeUs: median(writeUs),
        readUs: median(readUs),
        read90Us: median(read90Us),
        totalUs: median(totalUs),
        stale,
        reads,
      })),
    roundTrip: () => ({
      cUs: trips.c.length === 0 ? null : median(trips.c),
      nodeUs: trips.node.length === 0 ? null : median(trips.node),
    }),
  };
}

async function handOver(bench: Bench, { name, apart, from, to }: Pair, samples: Map<string, Samples>): Promise<void> {
  const dir = bench.fresh("handover");
  await bench.load("mkdir", path.join(from, dir));
  await bench.load("make", path.join(from, dir), 1, 4096);
  const handover = (count: number): Promise<LoadValues> =>
    bench.load("handover", path.join(from, dir, "f0"), path.join(to, dir, "f0"), count);
  const warm = samples.has(name) ? null : await handover(bench.scale.warmHandovers);
  const values = await handover(bench.scale.handovers);
  await bench.load("remove", path.join(from, dir), 1);
  await bench.load("rmdir", path.join(from, dir));
  const found = samples.get(name) ?? { writeUs: [], readUs: [], read90Us: [], totalUs: [], apart, stale: 0, reads: 0 };
  found.writeUs.push(loadValue(values, "writeNs") / 1000);
  found.readUs.push(loadValue(values, "readNs") / 1000);
  found.read90Us.push(loadValue(values, "read90Ns") / 1000);
  found.totalUs.push(loadValue(values, "totalNs") / 1000);
  for (const one of warm === null ? [values] : [warm, values]) {
    found.stale += loadValue(one, "stale");
    found.reads += loadValue(one, "ops");
  }
  samples.set(name, found);
}

interface PingCommands {
  readonly serve: readonly string[];
  readonly ping: readonly string[];
}

/** The median round trip of two Node programs, on the owner and on the other node; null: it is not to be measured. */
export async function nodeTripUs(bench: Bench, cluster: Cluster, nodePeer: string | null, pings: number): Promise<number | null> {
  if (nodePeer === null) return null;
  return pingUs(bench, cluster, { serve: [process.execPath, nodePeer, "serve"], ping: [process.execPath, nodePeer, "ping"] }, pings);
}

/** A server on the owner, a client on the other node: the median round trip. */
async function pingUs(
  bench: Bench,
  { owner: server, other: client }: Cluster,
  { serve, ping }: PingCommands,
  pings: number,
): Promise<number> {
  const [command = "", ...args] = server.enter([...serve, server.address]);
  const child = spawn(command, args, { detached: true, stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise<void>((resolve, reject) => child.on("error", reject).on("close", () => resolve()));
  try {
    const [first] = await Promise.race([firstLine(child.stdout), ended.then(() => [""])]);
    const port = loadValue(decodeLoadValues(first ?? ""), "port");
    const [program = "", ...words] = client.enter([...ping, server.address, String(port), String(pings)]);
    return loadValue(decodeLoadValues(await must(program, words, { signal: bench.signal })), "medianNs") / 1000;
  } finally {
    child.kill("SIGKILL");
    await ended;
  }
}

function firstLine(stream: NodeJS.ReadableStream): Promise<string[]> {
  return new Promise((resolve) => createInterface({ input: stream }).once("line", (line) => resolve([line])));
}
