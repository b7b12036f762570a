/** The results as text for people and as one JSON object for programs. Pure. */
import type { LongHandovers } from "./handover.ts";
import { tripsByCables, tripsOfLock } from "./long-locks.ts";
import { type MessageCount, speedByTrips } from "./messages.ts";
import { type Failure, fasterBindfs, type FigureResult } from "./rounds.ts";
import { shareOfTrips, tripsByClock } from "./sqlite-trips.ts";
import { STAGES } from "./stages.ts";
import { formatValue, speedRatio } from "./stats.ts";
import { SYSTEM_NAMES, type SystemName } from "./system.ts";
import type { Measured, Target } from "./targets.ts";
import type { TlsCost } from "./tls.ts";

export interface Report extends Measured {
  readonly version: 1;
  /** What was compared, on what. */
  readonly setting: Readonly<Record<string, string | number | boolean>>;
  readonly targets: readonly Target[];
  readonly failures: readonly Failure[];
}

/** The first column to the left, all others to the right. */
export function columns(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, at) => (widths[at] = Math.max(widths[at] ?? 0, cell.length)));
  return rows
    .map((row) => row.map((cell, at) => (at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0))).join("  "))
    .map((line) => line.trimEnd())
    .join("\n");
}

/** [against native, against the faster mount of bindfs]; null where one of the two is missing. */
export function ratiosOf(figure: FigureResult, system: SystemName): { toNative: number | null; toBindfs: number | null } {
  const { unit, median } = figure;
  const value = median[system];
  const against = (base: number | null | undefined): number | null =>
    value === undefined || base === null || base === undefined ? null : speedRatio(unit, value, base);
  return { toNative: against(median.native), toBindfs: against(fasterBindfs(figure)) };
}

const ratioText = (ratio: number | null): string => (ratio === null ? "-" : `${ratio.toFixed(2)}x`);
const countText = (count: number | null): string => (count === null ? "n/a" : count === 0 ? "0" : count.toFixed(3));
const usText = (us: number | null): string => (us === null ? "n/a" : formatValue(us));

function figureTable(figures: readonly FigureResult[]): string {
  const head = ["", "unit", ...SYSTEM_NAMES, "owner/native", "owner/bindfs", "other/native", "other/bindfs"];
  const rows = figures.map((figure) => {
    const [owner, other] = [ratiosOf(figure, "owner"), ratiosOf(figure, "other")];
    const values = SYSTEM_NAMES.map((name) => {
      const value = figure.median[name];
      return value === undefined ? "-" : formatValue(value);
    });
    const ratios = [owner.toNative, owner.toBindfs, other.toNative, other.toBindfs].map(ratioText);
    return [figure.title, figure.unit, ...values, ...ratios];
  });
  return columns([head, ...rows]);
}

function handoverTable({ handovers, roundTrip }: Pick<Measured, "handovers" | "roundTrip">, title: string): string {
  const times = (us: number, trip: number | null): string => (trip === null ? "n/a" : (us / trip).toFixed(1));
  const head = [title, "write", "read", "90 %", "both", "read/C trip", "read/Node trip", "both/C trip", "both/Node trip", "stale"];
  const rows = handovers.map(({ pair, writeUs, readUs, read90Us, totalUs, stale, reads }) => [
    pair,
    ...[writeUs, readUs, read90Us, totalUs].map(formatValue),
    ...[readUs, totalUs].flatMap((us) => [times(us, roundTrip.cUs), times(us, roundTrip.nodeUs)]),
    `${stale} of ${reads}`,
  ]);
  const trip = `TCP round trip owner-other, 64 bytes: ${usText(roundTrip.cUs)} us in C, ${usText(roundTrip.nodeUs)} us in Node`;
  return `${columns([head, ...rows])}\n${trip}`;
}

function longHandoversTitle({ delayMs }: LongHandovers): string {
  return `the same, ${delayMs} ms from node to node, us`;
}

function messageTable(messages: readonly MessageCount[]): string {
  const head = ["messages for each operation", "FUSE", "trips", "lock", "lower", "revokes", "dlmd to dlmd", "CPU us", "operations"];
  const rows = messages.map((one) => [
    one.operation,
    ...[one.fuse, one.trips, one.lock, one.lower, one.revokes, one.peer].map(countText),
    usText(one.cpuUs),
    String(one.ops),
  ]);
  return columns([head, ...rows]);
}

/** Whether what takes round trips goes as fast as they allow. */
function tripsTable({ messages, roundTrip }: Pick<Measured, "messages" | "roundTrip">): string {
  const head = ["speed by round trips", "us each", "each second", "round trips", "one, us", "they allow each second", "of that"];
  const perSecond = (us: number): string => (1e6 / us).toFixed(0);
  const rows = messages.flatMap((one) => {
    if (one.us === null) return [];
    const speed = speedByTrips(one, roundTrip.nodeUs);
    const trips =
      speed === null
        ? ["0", "-", "-", "-"]
        : [speed.trips.toFixed(1), usText(roundTrip.nodeUs), perSecond(speed.allowedUs), ratioText(speed.ratio)];
    return [[one.operation, formatValue(one.us), perSecond(one.us), ...trips]];
  });
  return rows.length === 0 ? "" : columns([head, ...rows]);
}

function longLocksTable({ longLocks }: Measured): string {
  const head = [
    "file lock that another node used last",
    "the lock's master",
    "trip ms",
    "us",
    "Node trip us",
    "Node trips",
    "by longer cables",
  ];
  const rows = longLocks.map((one) => {
    const trips = [tripsOfLock(one), tripsByCables(one, longLocks)].map((count) => (count === null ? "-" : count.toFixed(2)));
    const times = [formatValue(one.us), usText(one.nodeTripUs), ...trips];
    return [one.kind, one.master, String(one.tripMs), ...times];
  });
  return rows.length === 0 ? "" : columns([head, ...rows]);
}

function sqliteTable({ sqliteTrips }: Measured): string {
  const head = ["SQLite over long cables", "trip ms", "us each", "trips to owner", "trips of locks", "of the time", "by the clock"];
  const rows = sqliteTrips.map((one) => {
    const [share, byClock] = [shareOfTrips(one), tripsByClock(one, sqliteTrips)];
    const counts = [one.ownerTrips, one.lockTrips].map((trips) => (trips === null ? "n/a" : trips.toFixed(1)));
    const words = [share === null ? "-" : `${(share * 100).toFixed(0)} %`, byClock === null ? "-" : byClock.toFixed(1)];
    return [one.who, String(one.tripMs), formatValue(one.us), ...counts, ...words];
  });
  return rows.length === 0 ? "" : columns([head, ...rows]);
}

function sizeTable({ memory, directories }: Measured): string {
  const parts: string[] = [];
  if (memory.length > 0) {
    const head = ["overlay's memory, MB", "before", "after", "limit", "files", "inodes", "stat us"];
    const mb = (bytes: number): string => (bytes / 1e6).toFixed(0);
    const rows = memory.map((one) => [
      one.node,
      ...[one.rssBeforeBytes, one.rssBytes, one.limitBytes].map(mb),
      String(one.files),
      one.inodes === null ? "n/a" : String(one.inodes),
      formatValue(one.statUs),
    ]);
    parts.push(columns([head, ...rows]));
  }
  if (directories.length > 0) {
    const head = ["one large directory, us each", "files", "make", "list+stat", "remove"];
    const rows = directories.map((one) => [one.system, String(one.files), ...[one.makeUs, one.listUs, one.removeUs].map(formatValue)]);
    parts.push(columns([head, ...rows]));
  }
  return parts.join("\n\n");
}

function tlsTable(tls: readonly TlsCost[]): string {
  const head = ["between two processes", "64 bytes, us", "CPU us", "1 MiB, MiB/s", "CPU us each MiB"];
  const rows = tls.map((one) => [one.kind, ...[one.roundTripUs, one.roundTripCpuUs, one.mibPerSecond, one.mibCpuUs].map(formatValue)]);
  return columns([head, ...rows]);
}

function stagesTable({ stages }: Measured): string {
  const head = ["CPU us of each stage, sampled", "overlay of", ...STAGES, "all", "of it kernel"];
  const rows = stages.map(({ operation, node, us, kernelUs }) => {
    const all = STAGES.reduce((sum, stage) => sum + us[stage], 0);
    return [operation, node, ...[...STAGES.map((stage) => us[stage]), all, kernelUs].map(formatValue)];
  });
  return rows.length === 0 ? "" : columns([head, ...rows]);
}

const FIGURES_NOTE = `medians; ratios: how many times as fast; bindfs in ratios: the faster of its mounts
create+close+unlink, and handovers: on each system some thousand were done before, untimed
uncached lookup: each name is looked up once by a kernel that has nothing of the file system in its caches, so that each lookup reaches the server;
lower warm: all of it is in the caches of the ext4 underneath; lower cold: its inodes have to be read again too, which native shows by itself
bindfs: as it comes, the kernel believes what it was told for a second without asking, right or wrong; one request for each lookup
bindfs-uncached: each request reaches it: three for each lookup, because attributes of directory and file are asked for by themselves
coverlay: one request for each lookup; what the kernel is told holds until it is taken back`;

function targetTable(targets: readonly Target[]): string {
  const word = { true: "yes", false: "NO", null: "-" };
  const rows = targets.map(({ name, wanted, found, reached }) => [name, wanted, found, word[`${reached}`]]);
  return columns([["target", "wanted", "found", "reached"], ...rows]);
}

/** The whole report, as a terminal shows it. */
export function renderReport(report: Report): string {
  const setting = Object.entries(report.setting).map(([name, value]) => `${name}: ${value}`);
  const failures = report.failures.map(({ where, message }) => `FAILED ${where}: ${message}`);
  return [
    setting.join("\n"),
    ...(report.figures.length > 0 ? [`${figureTable(report.figures)}\n${FIGURES_NOTE}`] : []),
    ...(report.handovers.length > 0 ? [handoverTable(report, "write there, read here, us")] : []),
    ...(report.longHandovers === null ? [] : [handoverTable(report.longHandovers, longHandoversTitle(report.longHandovers))]),
    ...(report.messages.length > 0 ? [messageTable(report.messages)] : []),
    ...[longLocksTable(report), tripsTable(report), sqliteTable(report), sizeTable(report), stagesTable(report)].filter(
      (text) => text !== "",
    ),
    ...(report.tls.length > 0 ? [tlsTable(report.tls)] : []),
    targetTable(report.targets),
    ...(failures.length > 0 ? [failures.join("\n")] : []),
  ].join("\n\n");
}

/** One JSON object: the report, and each figure's ratios. */
export function reportJson(report: Report): string {
  const figures = report.figures.map((figure) => ({
    ...figure,
    ratios: { owner: ratiosOf(figure, "owner"), other: ratiosOf(figure, "other") },
  }));
  return JSON.stringify({ ...report, figures }, null, 1);
}
