/**
 * A file lock that another node used last, over long cables: how many round trips it takes by the clock. On cables that take longer than all
 * processors together that is the number of messages that wait for each other.
 */
import path from "node:path";
import { nodeTripUs } from "./handover.ts";
import { loadValue } from "./load.ts";
import type { Bench, Cluster, ClusterNode } from "./system.ts";

/** What a packet from one node to another and its answer take longer, together. */
export const LOCK_TRIPS_MS: readonly number[] = [0.5, 2, 10];
const KINDS = ["posix", "flock"] as const;
/** Files that are made, to find one of each master. */
const FILES = 32;

/** Which node is the master of the file's lock: with "third node" a request goes by a node that does not use the file. */
export type LockMaster = "last user" | "asker" | "third node";

export interface LockHandover {
  readonly kind: (typeof KINDS)[number];
  readonly master: LockMaster;
  readonly tripMs: number;
  /** The median of a lock that the other node used last. */
  readonly us: number;
  /** A round trip of 64 bytes between two Node programs, measured just before; null: not measured. */
  readonly nodeTripUs: number | null;
}

/** In round trips; null: these were not measured. */
export function tripsOfLock({ us, nodeTripUs }: LockHandover): number | null {
  return nodeTripUs === null ? null : us / nodeTripUs;
}

/** Round trips that longer cables made longer: what processors take is in both and goes; null: nothing to compare with. */
export function tripsByCables(one: LockHandover, all: readonly LockHandover[]): number | null {
  const shortest = all.find(({ kind, master }) => kind === one.kind && master === one.master);
  if (shortest === undefined || shortest === one || shortest.nodeTripUs === null || one.nodeTripUs === null) return null;
  return (one.us - shortest.us) / (one.nodeTripUs - shortest.nodeTripUs);
}

/** A file for each place of the master, by its name in `dir`: the masters are drawn from the files' numbers. */
async function filesByMaster(bench: Bench, cluster: Cluster, dir: string): Promise<Map<LockMaster, string>> {
  const { owner, other, third } = cluster;
  const places = new Map<ClusterNode, LockMaster>([
    [owner, "last user"],
    [other, "asker"],
    [third, "third node"],
  ]);
  const found = new Map<LockMaster, string>();
  for (let at = 0; at < FILES && found.size < places.size; at++) {
    const file = path.join(dir, `f${at}`);
    // The master is known where the lock is.
    await bench.load("lock-handover", "ofd", path.join(owner.mount, file), path.join(other.mount, file), 1);
    const master = await cluster.lockMaster(path.join(other.mount, file));
    const place = master === null ? undefined : places.get(master);
    if (place !== undefined && !found.has(place)) found.set(place, file);
  }
  if (found.size < places.size)
    throw new Error(`of ${FILES} files none has its lock's master at each node: ${[...found.keys()].join(", ")}`);
  return found;
}

/** From the owner to the other node, by turns, with cables of each length; and then as they were. */
export async function measureLongLocks(bench: Bench, cluster: Cluster, nodePeer: string | null): Promise<LockHandover[]> {
  const { owner, other } = cluster;
  const dir = bench.fresh("long-locks");
  await bench.load("mkdir", path.join(owner.mount, dir));
  await bench.load("make", path.join(owner.mount, dir), FILES, 1);
  const files = await filesByMaster(bench, cluster, dir);
  const found: LockHandover[] = [];
  const turns = async (kind: string, file: string, count: number): Promise<number> =>
    loadValue(await bench.load("lock-handover", kind, path.join(owner.mount, file), path.join(other.mount, file), count), "medianNs") /
    1000;
  for (const [, file] of files) await turns("posix", file, bench.scale.warmHandovers);
  try {
    for (const tripMs of LOCK_TRIPS_MS) {
      // A packet goes over two cables, and so does its answer.
      await cluster.setCables(tripMs / 4);
      const tripUs = await nodeTripUs(bench, cluster, nodePeer, bench.scale.longHandovers);
      for (const kind of KINDS) {
        for (const [master, file] of files) {
          bench.note(`${kind} locks by turns with round trips of ${tripMs} ms, master: ${master}`);
          found.push({ kind, master, tripMs, us: await turns(kind, file, bench.scale.longHandovers), nodeTripUs: tripUs });
        }
      }
    }
  } finally {
    await cluster.setCables(0);
  }
  await bench.load("remove", path.join(owner.mount, dir), FILES);
  await bench.load("rmdir", path.join(owner.mount, dir));
  return found;
}
