/**
 * Messages for each operation, by the overlays' own counters before and after. What is cached must cost none at all: that is
 * counted, never timed.
 */
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { JOURNAL_MODES, sqliteByTurns } from "./file-locks.ts";
import { loadValue } from "./load.ts";
import { dataFile, sharedDirectory, statFiles } from "./steps.ts";
import type { Bench, Cluster, ClusterNode, Counters, System } from "./system.ts";

export interface MessageCount {
  readonly operation: string;
  readonly ops: number;
  /** For each operation, on the nodes that take part; null: the overlay does not count it. */
  readonly fuse: number | null;
  /** Round trips to the owner that somebody waited for. */
  readonly trips: number | null;
  /** Between overlay and dlmd, both ways. What is asked in a row for many locks alike is one message, and so is what is granted. */
  readonly lock: number | null;
  /** Between a node and the owner, both ways, counted on the node. */
  readonly lower: number | null;
  readonly revokes: number | null;
  /** Frames between dlmds, in the whole cluster, heartbeats not counted. */
  readonly peer: number | null;
  /** Processor time of all overlays and dlmds, without what they take when nothing is done. */
  readonly cpuUs: number | null;
  /** The median time of one; null: not measured. */
  readonly us: number | null;
  /** Lock and lower messages must be 0. */
  readonly mustBeNone: boolean;
}

interface Snapshot {
  readonly atMs: number;
  readonly cpuUs: number;
  readonly counters: Readonly<Record<string, number>>[];
  readonly peerFrames: number | null;
}

async function snapshot(actors: readonly ClusterNode[], all: readonly ClusterNode[]): Promise<Snapshot> {
  const frames = await Promise.all(all.map((node) => node.peerFrames()));
  const counters = await Promise.all(actors.map((node) => node.counters()));
  return {
    atMs: performance.now(),
    cpuUs: all.reduce((sum, node) => sum + node.cpuUs(), 0),
    counters,
    peerFrames: frames.some((count) => count === null) ? null : frames.reduce<number>((sum, count) => sum + (count ?? 0), 0),
  };
}

const SETTLE_TRIES = 25;
const IDLE_MS = 1000;

/**
 * Waits until nothing is sent any more of what earlier steps left: files that are closed, FORGETs, locks of what was removed. Where it does not end, what is
 * counted says so.
 */
async function settle(actors: readonly ClusterNode[], settledMs: number): Promise<void> {
  const look = async (): Promise<Counters[]> => Promise.all(actors.map((node) => node.counters()));
  let before = await look();
  for (let tries = 0; tries < SETTLE_TRIES; tries++) {
    await sleep(settledMs);
    const now = await look();
    // What was made is told to dlmd a second or two later.
    const toTell = now.some(({ unregistered = 0 }) => unregistered > 0);
    if (!toTell && JSON.stringify(now) === JSON.stringify(before)) return;
    before = now;
  }
}

/** The growth of the named counters, over all actors; null where one is not offered. */
function growth(before: Snapshot, after: Snapshot, names: readonly string[]): number | null {
  let sum = 0;
  for (const [at, old] of before.counters.entries()) {
    for (const name of names) {
      const [from, to] = [old[name], after.counters[at]?.[name]];
      if (from === undefined || to === undefined) return null;
      sum += to - from;
    }
  }
  return sum;
}

/** Microseconds of processor time each millisecond in which nothing is asked of them. */
async function idleRate(all: readonly ClusterNode[]): Promise<number> {
  const before = await snapshot([], all);
  await sleep(IDLE_MS);
  return cpuBetween(before, await snapshot([], all), 0) / IDLE_MS;
}

function cpuBetween(before: Snapshot, after: Snapshot, idleUsPerMs: number): number {
  return Math.max(0, after.cpuUs - before.cpuUs - idleUsPerMs * (after.atMs - before.atMs));
}

interface Counting {
  readonly before: Snapshot;
  readonly after: Snapshot;
  readonly idleUsPerMs: number;
  readonly mustBeNone: boolean;
}

function counted(operation: string, { ops, us }: Done, { before, after, idleUsPerMs, mustBeNone }: Counting): MessageCount {
  const each = (names: readonly string[]): number | null => {
    const found = growth(before, after, names);
    return found === null ? null : found / ops;
  };
  const peer = before.peerFrames === null || after.peerFrames === null ? null : (after.peerFrames - before.peerFrames) / ops;
  return {
    operation,
    ops,
    fuse: each(["fuseRequests"]),
    trips: each(["lowerTripsAwaited"]),
    lock: each(["lockMessagesSent", "lockMessagesReceived"]),
    lower: each(["lowerMessagesSent", "lowerMessagesReceived"]),
    revokes: each(["revokes"]),
    peer,
    cpuUs: cpuBetween(before, after, idleUsPerMs) / ops,
    us,
    mustBeNone,
  };
}

/**
 * How fast an operation would be if it took nothing but its round trips, one after the other; null: it takes none, or one is not known. A
 * message between dlmds, or to the owner, is half a round trip; those of a node's overlay to its own dlmd stay on the node.
 */
export function speedByTrips(
  { lower, peer, us }: MessageCount,
  tripUs: number | null,
): { trips: number; allowedUs: number; ratio: number } | null {
  if (lower === null || peer === null || us === null || tripUs === null) return null;
  const trips = (lower + peer) / 2;
  const allowedUs = trips * tripUs;
  return trips === 0 ? null : { trips, allowedUs, ratio: allowedUs / us };
}

/** True where something was sent that must not be; null where it was not counted. */
export function brokeSilence({ lock, lower, mustBeNone }: MessageCount): boolean | null {
  if (!mustBeNone) return false;
  return lock === null || lower === null ? null : lock + lower !== 0;
}

interface Done {
  readonly ops: number;
  readonly us: number | null;
}

interface Case {
  readonly operation: string;
  readonly actors: readonly ClusterNode[];
  readonly mustBeNone?: boolean;
  /** Nothing of earlier steps is to be counted. */
  readonly settled?: boolean;
  /** Counts between `ready` and `done`; gives the number of operations, or that and the time of one. */
  run(at: { ready: () => Promise<void>; done: () => Promise<void> }): Promise<number | Done>;
}

function cachedCases(bench: Bench, system: System, node: ClusterNode): Case[] {
  const { files, dataMib, cachedReads } = bench.scale;
  const held = async (words: (string | number)[], at: Parameters<Case["run"]>[0]): Promise<number> =>
    loadValue(await bench.heldLoad(words, at), "ops");
  return [
    {
      operation: `warm stat, ${system.name}`,
      actors: [node],
      mustBeNone: true,
      run: async (at) => held(["stat", await statFiles(bench, system), files, 2, 0], at),
    },
    {
      operation: `cached 4 KiB read, ${system.name}`,
      actors: [node],
      mustBeNone: true,
      run: async (at) => held(["read", await dataFile(bench, system), dataMib * 256, cachedReads, 0, "cached"], at),
    },
    {
      operation: `lock and unlock, ${system.name}`,
      actors: [node],
      mustBeNone: true,
      run: async (at) => {
        const dir = path.join(system.dir, bench.fresh("counted"));
        await bench.load("mkdir", dir);
        await bench.load("make", dir, 1, 1);
        return held(["lock", path.join(dir, "f0"), bench.scale.creates], at);
      },
    },
    {
      operation: `uncached lookup, ${system.name}`,
      actors: [node],
      run: async (at) => {
        const dir = await statFiles(bench, system);
        await bench.dropCaches(2);
        return held(["stat", dir, files, 0, 0], at);
      },
    },
    {
      operation: `create+close+unlink, ${system.name}`,
      actors: [node],
      run: async (at) => {
        const dir = path.join(system.dir, bench.fresh("counted"));
        await bench.load("mkdir", dir);
        await at.ready();
        const values = await bench.load("create-unlink", dir, bench.scale.creates);
        await at.done();
        return loadValue(values, "ops");
      },
    },
  ];
}

const SMALL_BYTES = 4096;

/** On a node that is not the owner: small files of its own, and of another node, one after the other. */
function walkCases(bench: Bench, cluster: Cluster): Case[] {
  const { other, third } = cluster;
  const { files } = bench.scale;
  const row = (
    operation: string,
    maker: ClusterNode,
    words: readonly (string | number)[],
    before: readonly (string | number)[] = [],
  ): Case => ({
    operation: `${operation}, other`,
    actors: [other],
    settled: true,
    run: async (at) => {
      const dir = bench.fresh("walked");
      await bench.load("mkdir", path.join(maker.mount, dir));
      const here = path.join(other.mount, dir);
      const load = async ([what = "", ...rest]: readonly (string | number)[]): Promise<number> =>
        loadValue(await bench.load(what, here, ...rest), "ops");
      if (words[0] !== "make") await bench.load("make", path.join(maker.mount, dir), files, SMALL_BYTES);
      if (before.length > 0) await load(before);
      await at.ready();
      const ops = await load(words);
      await at.done();
      return ops;
    },
  });
  return [
    row("create + 4 KiB", other, ["make", files, SMALL_BYTES]),
    row("rename of its own", other, ["move", files]),
    row("chmod of its own", other, ["chmod", files]),
    row("unlink of third's", third, ["remove", files]),
    row("unlink of third's, listed", third, ["remove-listed", files]),
    row("first stat of third's", third, ["stat", files, 0, 0]),
    row("first open+read of third's, listed", third, ["read-files", files]),
    row("second open+read of third's, listed", third, ["read-files", files], ["read-files", files]),
    row("ls -l of third's", third, ["list", files, 0]),
  ];
}

function betweenCases(bench: Bench, cluster: Cluster): Case[] {
  const { owner, other, third } = cluster;
  return [
    {
      operation: "first stat on other, made on owner",
      actors: [owner, other],
      run: async (at) => {
        const { made, seen } = await sharedDirectory(bench, cluster, "other");
        await bench.load("make", made, bench.scale.files, 0);
        await at.ready();
        const values = await bench.load("stat", seen, bench.scale.files, 0, 0);
        await at.done();
        return loadValue(values, "ops");
      },
    },
    {
      operation: "create + 4 KiB in one directory, other and third",
      actors: [other, third],
      settled: true,
      run: async (at) => {
        const dir = bench.fresh("beside");
        await bench.load("mkdir", path.join(other.mount, dir));
        await at.ready();
        const values = await bench.load(
          "make-beside",
          path.join(other.mount, dir),
          path.join(third.mount, dir),
          bench.scale.files,
          SMALL_BYTES,
        );
        await at.done();
        return { ops: loadValue(values, "ops"), us: loadValue(values, "nsPerOp") / 1000 };
      },
    },
    {
      operation: "lock by turns, owner and other",
      actors: [owner, other],
      run: async (at) => {
        const dir = bench.fresh("counted");
        await bench.load("mkdir", path.join(owner.mount, dir));
        await bench.load("make", path.join(owner.mount, dir), 1, 1);
        const words = ["lock-handover", "ofd", path.join(owner.mount, dir, "f0"), path.join(other.mount, dir, "f0")];
        await bench.load(...words, 5);
        await at.ready();
        const values = await bench.load(...words, bench.scale.handovers);
        await at.done();
        return loadValue(values, "ops");
      },
    },
    ...[[owner], [other], [owner, other], [owner, other, third]].flatMap((nodes): Case[] => {
      const names = nodes.map((node) => (node === owner ? "owner" : node === other ? "other" : "third"));
      // Alone the modes differ by what they do to the journal; by turns the locks make the difference.
      const modes = nodes.length === 1 ? JOURNAL_MODES : (["delete"] as const);
      return modes.map((mode) => ({
        operation: `SQLite transaction, ${mode}, ${names.join(" ")}`,
        actors: nodes,
        run: (at) => sqliteByTurns(bench, nodes, bench.scale.transactions, at, mode),
      }));
    }),
    {
      operation: "write on owner, read on other",
      actors: [owner, other],
      run: async (at) => {
        const dir = bench.fresh("counted");
        await bench.load("mkdir", path.join(owner.mount, dir));
        await bench.load("make", path.join(owner.mount, dir), 1, 4096);
        const words = ["handover", path.join(owner.mount, dir, "f0"), path.join(other.mount, dir, "f0")];
        await bench.load(...words, 5);
        await at.ready();
        const values = await bench.load(...words, bench.scale.handovers);
        await at.done();
        return loadValue(values, "ops");
      },
    },
  ];
}

export async function countMessages(bench: Bench, cluster: Cluster): Promise<MessageCount[]> {
  const all = [cluster.owner, cluster.other, cluster.third];
  const cases = bench.systems.flatMap((system) => {
    if (system.name === "owner") return cachedCases(bench, system, cluster.owner);
    return system.name === "other" ? cachedCases(bench, system, cluster.other) : [];
  });
  const idleUsPerMs = await idleRate(all);
  const counts: MessageCount[] = [];
  for (const one of [...cases, ...walkCases(bench, cluster), ...betweenCases(bench, cluster)]) {
    const { operation, actors, mustBeNone = false } = one;
    bench.note(`counting messages: ${operation}`);
    const seen: { before: Snapshot | null; after: Snapshot | null } = { before: null, after: null };
    const found = await one.run({
      ready: async () => {
        if (mustBeNone || one.settled === true) await settle(all, bench.scale.settledMs);
        seen.before = await snapshot(actors, all);
      },
      done: async () => void (seen.after = await snapshot(actors, all)),
    });
    if (seen.before === null || seen.after === null) throw new Error(`${operation}: the load ended without having been counted`);
    const done = typeof found === "number" ? { ops: found, us: null } : found;
    counts.push(counted(operation, done, { before: seen.before, after: seen.after, idleUsPerMs, mustBeNone }));
  }
  return counts;
}
