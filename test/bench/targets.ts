/** What the bench must show, as ratios in one run. Pure. */
import type { Handover, LongHandovers, RoundTrip } from "./handover.ts";
import { type LockHandover, tripsOfLock } from "./long-locks.ts";
import { type MessageCount, brokeSilence } from "./messages.ts";
import { fasterBindfs, type FigureResult } from "./rounds.ts";
import type { DirectoryResult, MemoryResult } from "./size.ts";
import { type SqliteTrips, shareOfTrips } from "./sqlite-trips.ts";
import { speedRatio } from "./stats.ts";
import type { SystemName } from "./system.ts";
import type { StageCost } from "./stages.ts";
import type { TlsCost } from "./tls.ts";

export interface Target {
  readonly name: string;
  readonly wanted: string;
  readonly found: string;
  /** null: not measured. */
  readonly reached: boolean | null;
}

export interface Measured {
  readonly figures: readonly FigureResult[];
  readonly handovers: readonly Handover[];
  readonly roundTrip: RoundTrip;
  /** null: not measured. */
  readonly longHandovers: LongHandovers | null;
  /** File locks over long cables; empty: not measured. */
  readonly longLocks: readonly LockHandover[];
  readonly messages: readonly MessageCount[];
  /** SQLite over long cables; empty: not measured. */
  readonly sqliteTrips: readonly SqliteTrips[];
  readonly memory: readonly MemoryResult[];
  readonly directories: readonly DirectoryResult[];
  /** Plain TCP and TLS; empty: not measured. */
  readonly tls: readonly TlsCost[];
  readonly stages: readonly StageCost[];
}

const BINDFS_RATIO = 1.5;
const NATIVE_RATIO = 0.9;
/** How many times as long as with the faster mount of bindfs it may take. */
const TIMES_BINDFS: readonly (readonly [figure: string, system: "owner" | "other", most: number])[] = [
  ["create-write", "owner", 1.2],
  ["create-unlink", "owner", 0.8],
  ["untar", "owner", 1],
  ["clone", "owner", 1],
  ["sqlite-own", "owner", 1.2],
  ["create-write", "other", 3],
  ["untar", "other", 2],
  ["clone", "other", 2],
  ["cold-list", "other", 1],
  ["unlink", "other", 2.5],
  ["sqlite-own", "other", 2.5],
];
/** Trips to the owner that somebody waits for, and messages of all kinds, for each operation. */
const MOST_MESSAGES: readonly (readonly [operation: string, trips: number, messages: number])[] = [
  ["create + 4 KiB, other", 1.1, 5],
  ["rename of its own, other", 1.1, 3],
  ["chmod of its own, other", 1.1, 3],
  ["unlink of third's, other", 1.1, 5],
  ["unlink of third's, listed, other", 1.1, 5],
  ["first stat of third's, other", 0.05, 0.5],
  ["first open+read of third's, listed, other", 0.05, 0.5],
  ["second open+read of third's, listed, other", 0.01, 0.1],
  ["first stat on other, made on owner", 0.05, 2],
  ["create + 4 KiB in one directory, other and third", 1.5, 6.5],
];
const ROUND_TRIPS = 4;
const LOCK_ROUND_TRIPS = 3;
const TRIPS_SHARE = 0.7;

const CACHED_SYSTEMS = ["owner", "other"] as const;

export function judge(measured: Measured): Target[] {
  return [
    ...["lookup", "create-unlink"].flatMap((figure) => againstBindfs(measured, figure)),
    ...TIMES_BINDFS.map(([figure, system, most]) => timesBindfs(measured, figure, system, most)),
    ...["warm-stat", "read-cached"].flatMap((figure) => CACHED_SYSTEMS.map((system) => againstNative(measured, figure, system))),
    ...CACHED_SYSTEMS.flatMap((system) =>
      ["warm stat", "cached 4 KiB read", "lock and unlock"].map((what) => silence(measured, `${what}, ${system}`)),
    ),
    ...MOST_MESSAGES.map(([operation, trips, messages]) => mostMessages(measured, operation, trips, messages)),
    ...CACHED_SYSTEMS.map((system) => lockHandover(measured, system)),
    ...roundTrips("read of what another node wrote", measured),
    ...(measured.longHandovers === null ? [] : roundTrips(longTitle(measured.longHandovers), measured.longHandovers)),
    ...measured.longLocks.map(longLock),
    ...measured.sqliteTrips.filter(({ tripMs }) => tripMs > 0).map(sqliteByTrips),
    ...CACHED_SYSTEMS.map((system, at) => memory(measured.memory[at], system)),
    ...CACHED_SYSTEMS.map((system) => directory(measured.directories, system)),
  ];
}

function ratioTarget(name: string, wanted: number, base: string, ratio: number | null): Target {
  const found = ratio === null ? "not measured" : `${ratio.toFixed(2)}x`;
  return { name, wanted: `>= ${wanted}x ${base}`, found, reached: ratio === null ? null : ratio >= wanted };
}

function figureNamed(measured: Measured, name: string): FigureResult | undefined {
  return measured.figures.find((figure) => figure.name === name);
}

/**
 * Servers are compared: so the target is against bindfs where each request reaches it, as each reaches coverlay. As it comes bindfs lets the
 * kernel believe for a second what it once said, whatever happens underneath: that row shows what a user of it would gain or lose.
 */
function againstBindfs(measured: Measured, name: string): Target[] {
  const figure = figureNamed(measured, name);
  const ratioTo = (base: number | undefined): number | null =>
    figure === undefined || figure.median.owner === undefined || base === undefined
      ? null
      : speedRatio(figure.unit, figure.median.owner, base);
  const title = `${figure?.title ?? name}, owner`;
  return [
    ratioTarget(title, BINDFS_RATIO, "bindfs, asked each time", ratioTo(figure?.median["bindfs-uncached"])),
    {
      ...ratioTarget(`${title}, as it comes`, BINDFS_RATIO, "", ratioTo(figure?.median.bindfs)),
      wanted: "(bindfs as it comes)",
      reached: null,
    },
  ];
}

function timesBindfs(measured: Measured, name: string, system: SystemName, most: number): Target {
  const figure = figureNamed(measured, name);
  const value = figure?.median[system];
  const base = figure === undefined ? null : fasterBindfs(figure);
  const times = value === undefined || base === null ? null : value / base;
  return {
    name: `${figure?.title ?? name}, ${system}, beside bindfs`,
    wanted: `<= ${most} times as long as bindfs`,
    found: times === null ? "not measured" : times.toFixed(2),
    reached: times === null ? null : times <= most,
  };
}

function againstNative(measured: Measured, name: string, system: SystemName): Target {
  const figure = figureNamed(measured, name);
  const [value, base] = [figure?.median[system], figure?.median.native];
  const ratio = figure === undefined || value === undefined || base === undefined ? null : speedRatio(figure.unit, value, base);
  return ratioTarget(`${figure?.title ?? name}, ${system}`, NATIVE_RATIO, "native", ratio);
}

function silence(measured: Measured, operation: string): Target {
  const count = measured.messages.find((one) => one.operation === operation);
  const broke = count === undefined ? null : brokeSilence(count);
  const found =
    count === undefined || broke === null
      ? "not counted"
      : `${(count.lock ?? 0) * count.ops + (count.lower ?? 0) * count.ops} in ${count.ops}`;
  return { name: `messages: ${operation}`, wanted: "0", found, reached: broke === null ? null : !broke };
}

function mostMessages(measured: Measured, operation: string, trips: number, messages: number): Target {
  const count = measured.messages.find((one) => one.operation === operation);
  const parts = count === undefined ? [null] : [count.trips, count.lock, count.lower, count.peer];
  const counted = parts.every((part) => part !== null) ? (parts as readonly number[]) : null;
  const [foundTrips = 0, ...kinds] = counted ?? [];
  const foundMessages = kinds.reduce((sum, each) => sum + each, 0);
  return {
    name: `trips and messages: ${operation}`,
    wanted: `<= ${trips} and <= ${messages}`,
    found: counted === null ? "not counted" : `${foundTrips.toFixed(3)} and ${foundMessages.toFixed(2)}`,
    reached: counted === null ? null : foundTrips <= trips && foundMessages <= messages,
  };
}

/** Between namespaces of one machine a message costs the processors' time and nothing else; between machines, the way of it too. */
function longTitle({ delayMs }: LongHandovers): string {
  return `the same, ${delayMs} ms from node to node`;
}

/** The slowest pair of nodes counts, of those that do not share processors: the round trip is one between two that do not. */
function roundTrips(title: string, { handovers, roundTrip }: Pick<Measured, "handovers" | "roundTrip">): Target[] {
  const between = handovers.filter(({ apart }) => apart);
  const slowest = between.reduce<Handover | null>((worst, one) => (worst === null || one.readUs > worst.readUs ? one : worst), null);
  const target = (program: string, tripUs: number | null): Target => {
    const trips = slowest === null || tripUs === null ? null : slowest.readUs / tripUs;
    return {
      name: `${title} (${program} round trip)`,
      wanted: `<= ${ROUND_TRIPS} TCP round trips`,
      found: trips === null ? "not measured" : `${trips.toFixed(1)} (${slowest?.pair})`,
      reached: trips === null ? null : trips <= ROUND_TRIPS,
    };
  };
  return [target("Node", roundTrip.nodeUs), target("C", roundTrip.cUs)];
}

function lockHandover(measured: Measured, system: SystemName): Target {
  const us = figureNamed(measured, "lock-handover")?.median[system];
  const tripUs = measured.roundTrip.nodeUs;
  const trips = us === undefined || tripUs === null ? null : us / tripUs;
  return {
    name: `file lock that another node used last, ${system} (Node round trip)`,
    wanted: `<= ${LOCK_ROUND_TRIPS} TCP round trips`,
    found: trips === null ? "not measured" : trips.toFixed(1),
    reached: trips === null ? null : trips <= LOCK_ROUND_TRIPS,
  };
}

function longLock(one: LockHandover): Target {
  const trips = tripsOfLock(one);
  return {
    name: `${one.kind} lock, round trips of ${one.tripMs} ms, master: ${one.master}`,
    wanted: `<= ${LOCK_ROUND_TRIPS} TCP round trips`,
    found: trips === null ? "not measured" : trips.toFixed(1),
    reached: trips === null ? null : trips <= LOCK_ROUND_TRIPS,
  };
}

/** What is no trip is the processors' time of this machine, which has all nodes: over the longest cables it is to be little. */
function sqliteByTrips(one: SqliteTrips): Target {
  const share = shareOfTrips(one);
  return {
    name: `SQLite, round trips of ${one.tripMs} ms, ${one.who}`,
    wanted: `round trips take >= ${TRIPS_SHARE * 100} %`,
    found: share === null ? "not counted" : `${(share * 100).toFixed(0)} %`,
    reached: share === null ? null : share >= TRIPS_SHARE,
  };
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(0)} MB`;

function memory(result: MemoryResult | undefined, system: SystemName): Target {
  const name = `overlay's memory with ${result?.files ?? "100000"} inodes, ${system}`;
  if (result === undefined) return { name, wanted: "<= 150 MB + 1 KiB each", found: "not measured", reached: null };
  const { rssBytes, limitBytes } = result;
  return { name, wanted: `<= ${megabytes(limitBytes)}`, found: megabytes(rssBytes), reached: rssBytes <= limitBytes };
}

function directory(results: readonly DirectoryResult[], system: SystemName): Target {
  const result = results.find((one) => one.system === system);
  return {
    name: `one directory of ${result?.files ?? 10_000} files, ${system}`,
    wanted: "all listed",
    found: result === undefined ? "not measured" : "all listed",
    reached: result === undefined ? null : true,
  };
}
