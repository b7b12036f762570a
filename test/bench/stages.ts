/**
 * Where the processor time of an operation goes, on the owner and on another node: a lab of its own, whose overlays sample themselves (profiled.ts). A system call
 * counts for the code that makes it, and besides for the kernel. Sampling makes all of it slower: read shares, not microseconds.
 */
import { mkdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import * as z from "zod";
import { type LabCluster, startLabCluster } from "./lab-cluster.ts";
import { loadValue } from "./load.ts";
import { PROFILE_DIRECTORY } from "./profiled.ts";
import type { Bench } from "./system.ts";

/** What is on no row of `PLACES` is Node's own. */
export type Stage = "native" | "session" | "decode" | "op" | "coherence" | "lower" | "locks" | "encode" | "node" | "garbage";
/** In the order of the way of a request. */
export const STAGES: readonly Stage[] = ["native", "session", "decode", "op", "coherence", "lower", "locks", "encode", "node", "garbage"];

/** The first that fits a source's path. */
const PLACES: readonly (readonly [string, Stage])[] = [
  ["/overlay/session/", "session"],
  ["/overlay/serve/", "session"],
  ["/overlay/lease/", "session"],
  ["/overlay/fuse/decode", "decode"],
  ["/overlay/fuse/fields", "decode"],
  ["/overlay/fuse/", "encode"],
  ["/overlay/op/", "op"],
  ["/overlay/inode/", "op"],
  ["/overlay/coherence/", "coherence"],
  ["/overlay/lower/", "lower"],
  ["/overlay/file-lock/", "locks"],
  ["/dlmd/client/", "locks"],
  ["/dlmd/wire/", "locks"],
];

/** Times in microseconds of CLOCK_MONOTONIC; each delta is the time since the sample before. */
export interface Profile {
  readonly nodes: readonly { readonly id: number; readonly callFrame: { readonly functionName: string; readonly url: string } }[];
  readonly startTime: number;
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

const profileShape: z.ZodType<Profile> = z.object({
  nodes: z.array(z.object({ id: z.number(), callFrame: z.object({ functionName: z.string(), url: z.string() }) })),
  startTime: z.number(),
  samples: z.array(z.number()),
  timeDeltas: z.array(z.number()),
});

export interface StageCost {
  readonly operation: string;
  readonly node: string;
  readonly ops: number;
  /** Microseconds of one operation. */
  readonly us: Readonly<Record<Stage, number>>;
  /** Of all threads of the process, in the kernel. */
  readonly kernelUs: number;
}

/** null: nothing was to be done. */
export function stageOf({ functionName, url }: Profile["nodes"][number]["callFrame"]): Stage | null {
  if (functionName === "(idle)") return null;
  if (functionName === "(garbage collector)") return "garbage";
  // Also all that the addon does before it calls back: reading requests, and looking for more.
  if (functionName === "(program)") return "native";
  return PLACES.find(([place]) => url.includes(place))?.[1] ?? "node";
}

/** Microseconds of each stage between two moments of CLOCK_MONOTONIC, in microseconds as well. */
export function stagesBetween({ nodes, startTime, samples, timeDeltas }: Profile, fromUs: number, toUs: number): Record<Stage, number> {
  const stages = new Map(nodes.map(({ id, callFrame }) => [id, stageOf(callFrame)]));
  const sums = Object.fromEntries(STAGES.map((stage) => [stage, 0])) as Record<Stage, number>;
  let atUs = startTime;
  for (const [at, deltaUs] of timeDeltas.entries()) {
    atUs += deltaUs;
    // A sample stands for the time until the next one.
    const lastsUs = timeDeltas[at + 1] ?? 0;
    const stage = stages.get(samples[at] ?? Number.NaN) ?? null;
    if (stage !== null && atUs >= fromUs && atUs < toUs) sums[stage] += lastsUs;
  }
  return sums;
}

const SMALL_BYTES = 4096;
/** V8 has compiled what is hot. */
const WARM_UPS = 2;
const LAB_BYTES: number = 512 * 2 ** 20;
/** USER_HZ: of /proc/PID/stat. */
const TICK_US = 10_000;

const nowUs = (): number => Number(process.hrtime.bigint() / 1000n);

/** proc_pid_stat(5): utime and stime, behind the name, which may have spaces. */
function kernelUsOf(pid: number): number {
  const words = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ").at(-1)?.split(" ") ?? [];
  return Number(words[12]) * TICK_US;
}

interface Window {
  readonly pid: number;
  readonly fromUs: number;
  readonly toUs: number;
  readonly kernelUs: number;
  readonly operation: string;
  readonly node: string;
  readonly ops: number;
}

async function measure(bench: Bench, { owner, other }: LabCluster): Promise<Window[]> {
  const windows: Window[] = [];
  for (const [maker, where] of [
    [owner, "owner"],
    [other, "other"],
  ] as const) {
    const make = async (): Promise<number> => {
      const dir = path.join(maker.mount, bench.fresh("staged"));
      await bench.load("mkdir", dir);
      return loadValue(await bench.load("make", dir, bench.scale.files, SMALL_BYTES), "ops");
    };
    for (let turn = 0; turn < WARM_UPS; turn++) await make();
    const seen =
      where === "owner"
        ? ([["owner", owner]] as const)
        : ([
            ["other", other],
            ["owner", owner],
          ] as const);
    const kernelBefore = seen.map(([, node]) => kernelUsOf(node.pid));
    const fromUs = nowUs();
    const ops = await make();
    const toUs = nowUs();
    for (const [at, [node, { pid }]] of seen.entries()) {
      const kernelUs = kernelUsOf(pid) - (kernelBefore[at] ?? 0);
      windows.push({ pid, fromUs, toUs, kernelUs, ops, node, operation: `create + 4 KiB, ${where}` });
    }
  }
  return windows;
}

/** In a lab of its own below `dir`, which it takes down. */
export async function measureStages(bench: Bench, dir: string): Promise<StageCost[]> {
  const profiles = path.join(dir, "profiles");
  mkdirSync(profiles);
  const preload = pathToFileURL(path.join(import.meta.dirname, "profiled.js")).href;
  const env = { ...process.env, NODE_OPTIONS: `--import=${preload}`, [PROFILE_DIRECTORY]: profiles };
  const cluster = await startLabCluster(path.join(dir, "staged-lab"), LAB_BYTES, bench.placement, bench.signal, env);
  let windows: Window[];
  try {
    windows = await measure(bench, cluster);
    await cluster.stop();
  } finally {
    await cluster.end();
  }
  return windows.map(({ pid, fromUs, toUs, kernelUs, ops, operation, node }) => {
    const profile = profileShape.parse(JSON.parse(readFileSync(path.join(profiles, `${pid}.json`), "utf8")));
    const sums = stagesBetween(profile, fromUs, toUs);
    const us = Object.fromEntries(STAGES.map((stage) => [stage, sums[stage] / ops])) as Record<Stage, number>;
    return { operation, node, ops, us, kernelUs: kernelUs / ops };
  });
}
