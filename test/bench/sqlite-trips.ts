/**
 * SQLite over long cables: whether a transaction takes more than its round trips. They are counted in the same run in which it is timed: calls to the owner that
 * somebody waits for, and half of the frames between lock managers.
 */
import { sqliteByTurns } from "./file-locks.ts";
import type { Bench, Cluster, ClusterNode } from "./system.ts";

/** What a packet from one node to another and its answer take longer, together. */
export const LONG_TRIPS_MS: readonly number[] = [0, 2, 10];

export interface SqliteTrips {
  readonly who: string;
  readonly tripMs: number;
  /** The median of a transaction. */
  readonly us: number;
  /** For each transaction; null: not counted. */
  readonly ownerTrips: number | null;
  readonly lockTrips: number | null;
}

/** What the trips alone take of the time; null: none were counted, or they take no time. */
export function shareOfTrips({ tripMs, us, ownerTrips, lockTrips }: SqliteTrips): number | null {
  if (ownerTrips === null || lockTrips === null || tripMs === 0) return null;
  return ((ownerTrips + lockTrips) * tripMs * 1000) / us;
}

/** Trips one after the other, as the clock has them: how much longer a transaction takes where each takes that much longer. */
export function tripsByClock(one: SqliteTrips, all: readonly SqliteTrips[]): number | null {
  const short = all.find(({ who, tripMs }) => who === one.who && tripMs === 0);
  return short === undefined || one.tripMs === 0 ? null : (one.us - short.us) / (one.tripMs * 1000);
}

interface Counted {
  readonly owner: number | null;
  readonly frames: number | null;
}

async function count(nodes: readonly ClusterNode[], all: readonly ClusterNode[]): Promise<Counted> {
  const sum = (values: readonly (number | null | undefined)[]): number | null =>
    values.reduce<number | null>((total, one) => (total === null || one === null || one === undefined ? null : total + one), 0);
  const counters = await Promise.all(nodes.map((node) => node.counters()));
  return {
    owner: sum(counters.map((one) => one["lowerTripsAwaited"])),
    frames: sum(await Promise.all(all.map((node) => node.peerFrames()))),
  };
}

async function measure(bench: Bench, cluster: Cluster, who: string, nodes: readonly ClusterNode[], tripMs: number): Promise<SqliteTrips> {
  const all = [cluster.owner, cluster.other, cluster.third];
  const seen: Counted[] = [];
  const look = async (): Promise<void> => void seen.push(await count(nodes, all));
  const { ops, us } = await sqliteByTurns(bench, nodes, bench.scale.longTransactions, { ready: look, done: look });
  const [before, after] = seen;
  const each = (of: (counted: Counted) => number | null): number | null => {
    const [from, to] = [before, after].map((one) => (one === undefined ? null : of(one)));
    return from === null || from === undefined || to === null || to === undefined ? null : (to - from) / ops;
  };
  const frames = each((counted) => counted.frames);
  return { who, tripMs, us, ownerTrips: each((counted) => counted.owner), lockTrips: frames === null ? null : frames / 2 };
}

/** With cables that make each round trip between two nodes that much longer, and then as they were. */
export async function measureSqliteTrips(bench: Bench, cluster: Cluster): Promise<SqliteTrips[]> {
  const { owner, other, third } = cluster;
  const cases: readonly (readonly [string, readonly ClusterNode[]])[] = [
    ["other, alone", [other]],
    ["owner and other, by turns", [owner, other]],
    ["other and third, by turns", [other, third]],
  ];
  const found: SqliteTrips[] = [];
  try {
    for (const tripMs of LONG_TRIPS_MS) {
      // A packet goes over two cables, and so does its answer.
      await cluster.setCables(tripMs / 4);
      for (const [who, nodes] of cases) {
        bench.note(`SQLite with round trips of ${tripMs} ms: ${who}`);
        found.push(await measure(bench, cluster, who, nodes, tripMs));
      }
    }
  } finally {
    await cluster.setCables(0);
  }
  return found;
}
