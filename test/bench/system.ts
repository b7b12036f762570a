/** What is measured: the systems side by side, the cluster behind two of them, and the work that a round does. */
import { writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { OperatingError } from "../../dlmd/base/error.ts";
import { ROW_LOOK_MS } from "../../overlay/serve/cpu-latency.ts";
import { cpuLatencyLimitUs, noCpuLatency } from "../cpu-latency.ts";
import type { Placement } from "./dlmd/placement.ts";
import { type HeldAt, type LoadValues, loadValue, runHeldLoad, runLoad } from "./load.ts";

export const SYSTEM_NAMES = ["native", "bindfs", "bindfs-uncached", "owner", "other"] as const;
export type SystemName = (typeof SYSTEM_NAMES)[number];

export interface System {
  readonly name: SystemName;
  /** A directory of its own in that file system. */
  readonly dir: string;
  /** The same directory as the file system underneath has it; null: there is none underneath. */
  readonly lowerDir: string | null;
}

export type Counters = Readonly<Record<string, number>>;

/** A node that has the volume mounted. */
export interface ClusterNode {
  readonly name: string;
  readonly mount: string;
  /** Where its programs listen. */
  readonly address: string;
  /** The overlay's. */
  readonly pid: number;
  /** Those that it has; null: all. */
  readonly processors: string | null;
  /** A command line that runs `command` in the node's network. */
  enter(command: readonly string[]): readonly string[];
  /** The overlay's counters, and `inodes`; what it does not offer is not there. */
  counters(): Promise<Counters>;
  /** Processor time that its overlay and its dlmd have had, in microseconds. */
  cpuUs(): number;
  /** Frames that its dlmd received from other nodes; null where dlmd does not tell. */
  peerFrames(): Promise<number | null>;
}

export interface Cluster {
  readonly owner: ClusterNode;
  readonly other: ClusterNode;
  readonly third: ClusterNode;
  /** Makes each node's cable so long that a packet takes that many milliseconds more through it, in each direction. */
  setCables(delayMs: number): Promise<void>;
  /** The master of the lock under which a node keeps the file locks of that file, a path of the other node; null: there is no such lock. */
  lockMaster(file: string): Promise<ClusterNode | null>;
  end(): Promise<void>;
}

/** How much of everything; the same for all systems. */
export interface Scale {
  readonly rounds: number;
  /** Rounds of what takes seconds each. */
  readonly longRounds: number;
  readonly files: number;
  readonly creates: number;
  /** So many before the first that are timed: a server in JavaScript is compiled while it runs, and another starts its threads then. */
  readonly warmCreates: number;
  readonly warmMs: number;
  readonly dataMib: number;
  readonly cachedReads: number;
  readonly directReads: number;
  readonly sequentialMib: number;
  readonly untarFiles: number;
  readonly cloneFiles: number;
  readonly handovers: number;
  /** As warmCreates: here it is two servers and their lock managers. */
  readonly warmHandovers: number;
  /** Over long cables. */
  readonly longHandovers: number;
  /** Of SQLite, each with its fsyncs. */
  readonly transactions: number;
  /** The same, over long cables. */
  readonly longTransactions: number;
  readonly pings: number;
  /** A node that has sent nothing for so long is done with what was done before. */
  readonly settledMs: number;
  readonly treeDirectories: number;
  readonly treeFiles: number;
  readonly directoryFiles: number;
  /** Of each disk. */
  readonly diskBytes: number;
}

const MIB = 2 ** 20;

export const FULL: Scale = {
  rounds: 9,
  longRounds: 3,
  files: 1000,
  creates: 2000,
  warmCreates: 4000,
  warmMs: 200,
  dataMib: 16,
  cachedReads: 100_000,
  directReads: 5000,
  sequentialMib: 1024,
  untarFiles: 3000,
  cloneFiles: 2000,
  handovers: 300,
  warmHandovers: 1500,
  longHandovers: 100,
  transactions: 100,
  longTransactions: 60,
  pings: 5000,
  settledMs: 200,
  treeDirectories: 100,
  treeFiles: 1000,
  directoryFiles: 10_000,
  diskBytes: 3072 * MIB,
};

export const QUICK: Scale = {
  ...FULL,
  rounds: 5,
  longRounds: 2,
  creates: 500,
  warmMs: 50,
  cachedReads: 50_000,
  directReads: 1000,
  sequentialMib: 128,
  untarFiles: 600,
  cloneFiles: 400,
  handovers: 100,
  longHandovers: 50,
  longTransactions: 30,
  pings: 1000,
  treeDirectories: 20,
  diskBytes: 1024 * MIB,
};

/** After caches were dropped, the servers are still busy with the kernel's FORGETs. */
const SETTLE_MS = 150;
/** No process has set a limit: less than what the kernel begins with. */
const NO_LIMIT_US = 2_000_000_000;
const AWAKE_MS_MAX = 500;

/** Mounts of coverlay limit how deeply idle processors sleep, and take that back a moment later (overlay/serve/cpu-latency.ts). */
export async function untilProcessorsSleep(): Promise<void> {
  if (noCpuLatency !== null) return;
  // Another program may limit it all the time.
  const endMs = performance.now() + AWAKE_MS_MAX;
  while (cpuLatencyLimitUs() < NO_LIMIT_US && performance.now() < endMs) await sleep(ROW_LOOK_MS);
}

/** 1: pages; 2: dentries and inodes, of every file system of this machine (Documentation/admin-guide/sysctl/vm.rst). */
export async function dropKernelCaches(what: 1 | 2): Promise<void> {
  try {
    writeFileSync("/proc/sys/vm/drop_caches", `${what}\n`);
  } catch (error) {
    throw new OperatingError(`the kernel's caches cannot be dropped: ${(error as Error).message}`, {
      code: "no-drop-caches",
      hint: "Run as root with a writable /proc/sys/vm/drop_caches; a container needs to be privileged.",
      cause: error,
    });
  }
  await sleep(SETTLE_MS);
}

export interface Bench {
  readonly scale: Scale;
  /** Outside of all measured systems: the load program, archives, a repository. */
  readonly scratch: string;
  readonly systems: readonly System[];
  readonly cluster: Cluster | null;
  readonly placement: Placement;
  readonly signal: AbortSignal;
  load(...words: (string | number)[]): Promise<LoadValues>;
  heldLoad(words: readonly (string | number)[], at: HeldAt): Promise<LoadValues>;
  /** Microseconds of one operation. */
  loadUs(...words: (string | number)[]): Promise<number>;
  dropCaches(what: 1 | 2): Promise<void>;
  /** What one system has set in the kernel is gone before another one is measured. */
  settle(): Promise<void>;
  /** A name that was not used before in this run. */
  fresh(prefix: string): string;
  /** Does something the first time it is asked for under that key. */
  once<T>(key: string, make: () => Promise<T>): Promise<T>;
  note(line: string): void;
}

export interface BenchParts {
  readonly scale: Scale;
  readonly scratch: string;
  readonly program: string;
  readonly systems: readonly System[];
  readonly cluster: Cluster | null;
  readonly placement: Placement;
  readonly signal: AbortSignal;
  readonly dropCaches: (what: 1 | 2) => Promise<void>;
  readonly settle: () => Promise<void>;
  readonly note: (line: string) => void;
}

export function createBench(parts: BenchParts): Bench {
  const { program, signal, ...rest } = parts;
  const made = new Map<string, Promise<unknown>>();
  let used = 0;
  const load = (...words: (string | number)[]): Promise<LoadValues> => runLoad(program, words, signal);
  return {
    ...rest,
    signal,
    load,
    heldLoad: (words, at) => runHeldLoad(program, words, at, signal),
    loadUs: async (...words) => loadValue(await load(...words), "nsPerOp") / 1000,
    fresh: (prefix) => `${prefix}-${used++}`,
    once<T>(key: string, make: () => Promise<T>): Promise<T> {
      const found = made.get(key) as Promise<T> | undefined;
      if (found !== undefined) return found;
      const promise = make();
      made.set(key, promise);
      return promise;
    },
  };
}
