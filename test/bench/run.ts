/** One run of the bench over systems that stand already. */
import path from "node:path";
import { PROGRAM_PLACE } from "./dlmd/placement.ts";
import { createHandoverMeter, type LongHandovers, measureLongHandovers } from "./handover.ts";
import { interrupted } from "./load.ts";
import { type LockHandover, measureLongLocks } from "./long-locks.ts";
import { type MessageCount, brokeSilence, countMessages } from "./messages.ts";
import { type Failure, runRounds } from "./rounds.ts";
import { type DirectoryResult, type MemoryResult, measureDirectories, measureMemory } from "./size.ts";
import { measureSqliteTrips, type SqliteTrips } from "./sqlite-trips.ts";
import { STEPS } from "./steps.ts";
import { type BenchParts, createBench } from "./system.ts";
import { type Measured, judge } from "./targets.ts";
import type { Report } from "./report.ts";
import { measureStages, type StageCost } from "./stages.ts";
import { measureTls, type TlsCost } from "./tls.ts";

export interface RunOptions extends BenchParts {
  readonly only: ReadonlySet<string> | null;
  /** The compiled tcp-peer; null: no round trip from Node. */
  readonly nodePeer: string | null;
  readonly setting: Report["setting"];
  /** For the lab whose overlays sample themselves; null: there is none. */
  readonly stagesDir: string | null;
}

/** Everything that was asked for. What fails is in the report's failures, and the rest goes on. Throws only when interrupted. */
export async function runBench(options: RunOptions): Promise<Report> {
  const { only, nodePeer, setting, stagesDir, ...parts } = options;
  const bench = createBench(parts);
  const wanted = (name: string): boolean => only === null || only.has(name);
  const failures: Failure[] = [];
  const attempt = async <T>(where: string, nothing: T, work: () => Promise<T>): Promise<T> => {
    if (!wanted(where) || failures.some((failure) => failure.where === where)) return nothing;
    try {
      return await work();
    } catch (error) {
      if (bench.signal.aborted) throw interrupted();
      failures.push({ where, message: (error as Error).message });
      bench.note(`${where} failed: ${(error as Error).message}`);
      return nothing;
    }
  };
  const meterOptions = { program: parts.program, nodePeer };
  const meter = createHandoverMeter(bench, meterOptions);
  const steps = STEPS.filter(({ name }) => wanted(name));
  const { placement } = bench;
  placement.place(process.pid, PROGRAM_PLACE);
  const rounds = await runRounds(bench, steps, () =>
    attempt("handover", undefined, async () => {
      // Its program is one of two nodes in turn.
      placement.release();
      await meter.round();
      placement.place(process.pid, PROGRAM_PLACE);
    }),
  );
  placement.release();
  const { cluster } = bench;
  const longHandovers =
    cluster === null
      ? null
      : await attempt<LongHandovers | null>("long-handover", null, () => measureLongHandovers(bench, cluster, meterOptions));
  const longLocks =
    cluster === null ? [] : await attempt<LockHandover[]>("long-handover", [], () => measureLongLocks(bench, cluster, nodePeer));
  const messages = cluster === null ? [] : await attempt<MessageCount[]>("messages", [], () => countMessages(bench, cluster));
  const sqliteTrips = cluster === null ? [] : await attempt<SqliteTrips[]>("long-sqlite", [], () => measureSqliteTrips(bench, cluster));
  const directories = await attempt<DirectoryResult[]>("directory", [], () => measureDirectories(bench));
  const memory = cluster === null ? [] : await attempt<MemoryResult[]>("memory", [], () => measureMemory(bench, cluster));
  const tls =
    nodePeer === null ? [] : await attempt<TlsCost[]>("tls", [], () => measureTls(path.join(path.dirname(nodePeer), "tls-peer.js")));
  const stages = stagesDir === null ? [] : await attempt<StageCost[]>("stages", [], () => measureStages(bench, stagesDir));
  const measured: Measured = {
    figures: rounds.figures,
    handovers: meter.handovers(),
    roundTrip: meter.roundTrip(),
    longHandovers,
    longLocks,
    messages,
    sqliteTrips,
    memory,
    directories,
    tls,
    stages,
  };
  const wrong = [...rounds.failures, ...failures, ...lies(measured)];
  return { version: 1, setting, ...measured, targets: judge(measured), failures: wrong };
}

/** What no figure can make up for. */
export function lies({ handovers, longHandovers, messages }: Pick<Measured, "handovers" | "longHandovers" | "messages">): Failure[] {
  const stale = [...handovers, ...(longHandovers?.handovers ?? [])]
    .filter((one) => one.stale > 0)
    .map(({ pair, stale: count, reads }) => ({ where: pair, message: `${count} of ${reads} reads did not see the write before them` }));
  const loud = messages
    .filter((one) => brokeSilence(one) === true)
    .map(({ operation, lock, lower }) => ({
      where: operation,
      message: `what is cached must cost no message, but each operation cost ${lock} lock and ${lower} lower messages`,
    }));
  return [...stale, ...loud];
}
