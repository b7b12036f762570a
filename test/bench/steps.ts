/**
 * What is measured, as a table of steps. A step works on one system and gives one value for each of its figures; each
 * cleans up what it made, untimed.
 */
import path from "node:path";
import { must } from "../../overlay/lab/command.ts";
import { fileLocks, sqlite } from "./file-locks.ts";
import { clonedRepository, packedFiles, quietGit } from "./sources.ts";
import type { Unit } from "./stats.ts";
import { type Bench, type Cluster, SYSTEM_NAMES, type System, type SystemName } from "./system.ts";

export interface Figure {
  readonly name: string;
  readonly title: string;
  readonly unit: Unit;
}

export interface Step {
  readonly name: string;
  readonly figures: readonly Figure[];
  readonly systems: readonly SystemName[];
  /** Takes seconds: fewer rounds. */
  readonly long?: boolean;
  run(bench: Bench, system: System): Promise<readonly number[]>;
}

/** The uncached mount of bindfs only where not caching is what is measured. */
const CACHED: readonly SystemName[] = ["native", "bindfs", "owner", "other"];
const COVERLAY: readonly SystemName[] = ["owner", "other"];
/** With a server, and a file system underneath. */
const SERVED: readonly SystemName[] = ["bindfs", "bindfs-uncached", "owner", "other"];
/** bindfs clears O_DIRECT unless told to forward it, which its uncached mount is. */
const DIRECT: readonly SystemName[] = ["native", "bindfs-uncached", "owner", "other"];

/** bindfs keeps no file locks of its own: they would be those of native. */
const LOCKING: readonly SystemName[] = ["native", "owner", "other"];

const us = (name: string, title: string): Figure => ({ name, title, unit: "us" });

/** `files` empty files of the system's own, made once. */
export function statFiles(bench: Bench, system: System): Promise<string> {
  return bench.once(`stat-files ${system.name}`, async () => {
    const dir = path.join(system.dir, bench.fresh("stat"));
    await bench.load("mkdir", dir);
    await bench.load("make", dir, bench.scale.files, 0);
    return dir;
  });
}

/** A file of `dataMib`, made once. */
export function dataFile(bench: Bench, system: System): Promise<string> {
  return bench.once(`data ${system.name}`, async () => {
    const file = path.join(system.dir, bench.fresh("data"));
    await bench.load("write-big", file, bench.scale.dataMib);
    return file;
  });
}

const BLOCKS_PER_MIB = 256;

async function warmStat(bench: Bench, system: System): Promise<number[]> {
  const dir = await statFiles(bench, system);
  return [await bench.loadUs("stat", dir, bench.scale.files, 2, bench.scale.warmMs)];
}

/**
 * Each name looked up once by a kernel that has nothing of the file system, with all of it in the caches of the file system underneath: the
 * cost of asking the server, and nothing of the disk.
 */
async function uncachedLookup(bench: Bench, system: System): Promise<number[]> {
  if (system.lowerDir === null) throw new Error(`${system.name} has nothing underneath`);
  const dir = await statFiles(bench, system);
  await bench.dropCaches(2);
  await bench.load("stat", path.join(system.lowerDir, path.relative(system.dir, dir)), bench.scale.files, 1, 0);
  return [await bench.loadUs("stat", dir, bench.scale.files, 0, 0)];
}

async function coldStat(bench: Bench, system: System): Promise<number[]> {
  const dir = await statFiles(bench, system);
  await bench.dropCaches(2);
  return [await bench.loadUs("stat", dir, bench.scale.files, 0, 0)];
}

/** The two paths of one new directory on the volume: as `maker` and as `looker` see it. */
export async function sharedDirectory(bench: Bench, cluster: Cluster, lookerIs: SystemName): Promise<{ made: string; seen: string }> {
  const [maker, looker] = lookerIs === "other" ? [cluster.owner, cluster.other] : [cluster.other, cluster.owner];
  const name = bench.fresh("shared");
  await bench.load("mkdir", path.join(maker.mount, name));
  return { made: path.join(maker.mount, name), seen: path.join(looker.mount, name) };
}

async function firstStat(bench: Bench, system: System): Promise<number[]> {
  if (bench.cluster === null) throw new Error("the first stat of another node's files needs a cluster");
  const { made, seen } = await sharedDirectory(bench, bench.cluster, system.name);
  await bench.load("make", made, bench.scale.files, 0);
  const value = await bench.loadUs("stat", seen, bench.scale.files, 0, 0);
  await bench.load("remove", made, bench.scale.files);
  await bench.load("rmdir", made);
  return [value];
}

async function createUnlink(bench: Bench, system: System): Promise<number[]> {
  const dir = path.join(system.dir, bench.fresh("create"));
  await bench.load("mkdir", dir);
  await bench.once(`warm creates ${system.name}`, () => bench.loadUs("create-unlink", dir, bench.scale.warmCreates));
  const value = await bench.loadUs("create-unlink", dir, bench.scale.creates);
  await bench.load("rmdir", dir);
  return [value];
}

async function createWrite(bench: Bench, system: System): Promise<number[]> {
  const dir = path.join(system.dir, bench.fresh("write"));
  await bench.load("mkdir", dir);
  const made = await bench.loadUs("make", dir, bench.scale.creates, 4096);
  const removed = await bench.loadUs("remove", dir, bench.scale.creates);
  await bench.load("rmdir", dir);
  return [made, removed];
}

async function coldList(bench: Bench, system: System): Promise<number[]> {
  const dir = await statFiles(bench, system);
  await bench.dropCaches(2);
  return [await bench.loadUs("list", dir, bench.scale.files, 0)];
}

async function warmList(bench: Bench, system: System): Promise<number[]> {
  const dir = await statFiles(bench, system);
  return [await bench.loadUs("list", dir, bench.scale.files, 2)];
}

const randomRead = (how: "cached" | "direct") => async (bench: Bench, system: System) => {
  const file = await dataFile(bench, system);
  const { cachedReads, directReads, warmMs, dataMib } = bench.scale;
  const [count, leastMs] = how === "cached" ? [cachedReads, warmMs] : [directReads, 0];
  return [await bench.loadUs("read", file, dataMib * BLOCKS_PER_MIB, count, leastMs, how)];
};

async function sequential(bench: Bench, system: System): Promise<number[]> {
  const file = path.join(system.dir, bench.fresh("big"));
  const written = 1e6 / (await bench.loadUs("write-big", file, bench.scale.sequentialMib));
  await bench.dropCaches(1);
  const read = 1e6 / (await bench.loadUs("read-big", file, bench.scale.sequentialMib));
  await must("rm", [file], { signal: bench.signal });
  return [written, read];
}

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

/** The longest tool run: thousands of small files on the slowest system. */
const TOOL_TIMEOUT_MS = 600_000;

async function untar(bench: Bench, system: System): Promise<number[]> {
  const archive = await packedFiles(bench);
  const dir = path.join(system.dir, bench.fresh("untar"));
  await bench.load("mkdir", dir);
  const options = { signal: bench.signal, timeoutMs: TOOL_TIMEOUT_MS };
  const value = await seconds(() => must("tar", ["-xf", archive, "-C", dir], options));
  await must("rm", ["-r", dir], options);
  return [value];
}

async function clone(bench: Bench, system: System): Promise<number[]> {
  const repository = await clonedRepository(bench);
  const dir = path.join(system.dir, bench.fresh("clone"));
  const options = { signal: bench.signal, timeoutMs: TOOL_TIMEOUT_MS };
  const git = { ...options, env: quietGit() };
  const value = await seconds(() => must("git", ["clone", "-q", "--no-hardlinks", repository, dir], git));
  await must("rm", ["-r", dir], options);
  return [value];
}

export const STEPS: readonly Step[] = [
  { name: "warm-stat", figures: [us("warm-stat", "warm stat")], systems: CACHED, run: warmStat },
  { name: "lookup", figures: [us("lookup", "uncached lookup, lower warm")], systems: SERVED, run: uncachedLookup },
  { name: "cold-stat", figures: [us("cold-stat", "uncached lookup, lower cold")], systems: SYSTEM_NAMES, run: coldStat },
  { name: "first-stat", figures: [us("first-stat", "first stat, made elsewhere")], systems: COVERLAY, run: firstStat },
  { name: "create-unlink", figures: [us("create-unlink", "create+close+unlink")], systems: SYSTEM_NAMES, run: createUnlink },
  {
    name: "create-write",
    figures: [us("create-write", "create + 4 KiB"), us("unlink", "unlink of these")],
    systems: CACHED,
    run: createWrite,
  },
  { name: "cold-list", figures: [us("cold-list", "readdir+stat, cold, each")], systems: SYSTEM_NAMES, run: coldList },
  { name: "warm-list", figures: [us("warm-list", "readdir+stat, warm, each")], systems: CACHED, run: warmList },
  { name: "read-cached", figures: [us("read-cached", "4 KiB read, cached")], systems: CACHED, run: randomRead("cached") },
  { name: "read-direct", figures: [us("read-direct", "4 KiB read, O_DIRECT")], systems: DIRECT, run: randomRead("direct") },
  {
    name: "sequential",
    figures: [
      { name: "sequential-write", title: "sequential write + fsync", unit: "MiB/s" },
      { name: "sequential-read", title: "sequential read", unit: "MiB/s" },
    ],
    systems: CACHED,
    long: true,
    run: sequential,
  },
  {
    name: "file-locks",
    figures: [us("lock-unlock", "lock + unlock, last used here"), us("lock-handover", "lock, last used elsewhere")],
    systems: LOCKING,
    run: fileLocks,
  },
  {
    name: "sqlite",
    figures: [us("sqlite-own", "SQLite transaction, alone"), us("sqlite-turns", "SQLite transaction, by turns")],
    systems: CACHED,
    run: sqlite,
  },
  { name: "untar", figures: [{ name: "untar", title: "untar", unit: "s" }], systems: CACHED, long: true, run: untar },
  { name: "clone", figures: [{ name: "clone", title: "git clone", unit: "s" }], systems: CACHED, long: true, run: clone },
];
