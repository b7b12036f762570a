/** How large things may get: the overlay's memory with very many cached inodes, and one very large directory. */
import { readFileSync } from "node:fs";
import path from "node:path";
import type { Bench, Cluster, ClusterNode } from "./system.ts";

export interface MemoryResult {
  readonly node: string;
  readonly files: number;
  /** Inodes that the overlay says it has; null: it does not say. */
  readonly inodes: number | null;
  readonly rssBeforeBytes: number;
  readonly rssBytes: number;
  /** 150 MB plus 1 KiB for each of `files`. */
  readonly limitBytes: number;
  /** Of one file, in us: made on the owner, looked at first here. */
  readonly statUs: number;
}

const BASE_BYTES = 150e6;
const INODE_BYTES = 1024;

/** VmRSS of /proc/PID/status (proc(5)), in bytes. */
export function decodeRss(status: string): number {
  const found = /^VmRSS:\s+(\d+) kB$/m.exec(status);
  if (found === null) throw new Error(`expected a line VmRSS in the status of the process, found ${JSON.stringify(status.slice(0, 80))}`);
  return Number(found[1]) * 1024;
}

function rssOf(node: ClusterNode): number {
  return decodeRss(readFileSync(`/proc/${node.pid}/status`, "utf8"));
}

export async function measureMemory(bench: Bench, cluster: Cluster): Promise<MemoryResult[]> {
  const { treeDirectories, treeFiles } = bench.scale;
  const files = treeDirectories * treeFiles;
  const name = bench.fresh("tree");
  const nodes = [cluster.owner, cluster.other];
  const before = nodes.map(rssOf);
  bench.note(`memory: making ${files} files`);
  await bench.load("mkdir", path.join(cluster.owner.mount, name));
  await bench.load("tree-make", path.join(cluster.owner.mount, name), treeDirectories, treeFiles);
  const results: MemoryResult[] = [];
  for (const [at, node] of nodes.entries()) {
    bench.note(`memory: looking at ${files} files on ${node.name}`);
    const statUs = await bench.loadUs("tree-stat", path.join(node.mount, name), treeDirectories, treeFiles);
    const { inodes } = await node.counters();
    results.push({
      node: node.name,
      files,
      inodes: inodes ?? null,
      rssBeforeBytes: before[at] ?? 0,
      rssBytes: rssOf(node),
      limitBytes: BASE_BYTES + INODE_BYTES * files,
      statUs,
    });
  }
  return results;
}

export interface DirectoryResult {
  readonly system: string;
  readonly files: number;
  /** Of one file, in us. */
  readonly makeUs: number;
  readonly listUs: number;
  readonly removeUs: number;
}

/** One directory with very many files: made, listed with all names there, removed. Throws where a name is missing. */
export async function measureDirectories(bench: Bench): Promise<DirectoryResult[]> {
  const results: DirectoryResult[] = [];
  const files = bench.scale.directoryFiles;
  for (const system of bench.systems) {
    if (system.name === "bindfs-uncached") continue;
    bench.note(`a directory of ${files} files: ${system.name}`);
    const dir = path.join(system.dir, bench.fresh("large"));
    await bench.load("mkdir", dir);
    const makeUs = await bench.loadUs("make", dir, files, 0);
    const listUs = await bench.loadUs("list", dir, files, 0);
    const removeUs = await bench.loadUs("remove", dir, files);
    await bench.load("rmdir", dir);
    results.push({ system: system.name, files, makeUs, listUs, removeUs });
  }
  return results;
}
