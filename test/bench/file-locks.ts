/** File locks, and a program that lives by them: SQLite. Alone on a file, and by turns with another node. */
import path from "node:path";
import { must } from "../../overlay/lab/command.ts";
import { type HeldAt, loadValue, runHeld } from "./load.ts";
import type { Bench, ClusterNode, System } from "./system.ts";

/** Transactions of one row, by each connection in turn, between "ready" and "done" of load.ts; prints the median of one in ns. */
const TRANSACTIONS = `
import sqlite3, sys, time
mode, count = sys.argv[1], int(sys.argv[2])
turns = [sqlite3.connect(file, isolation_level=None, timeout=60) for file in sys.argv[3:]]
for db in turns:
    db.execute("pragma journal_mode=" + mode)
    db.execute("create table if not exists t (v integer)")
    db.execute("insert into t values (0)")
print("ready 1", flush=True)
sys.stdin.readline()
taken = []
for at in range(count):
    db = turns[at % len(turns)]
    start = time.perf_counter_ns()
    db.execute("begin immediate")
    db.execute("insert into t values (?)", (at,))
    db.execute("commit")
    taken.append(time.perf_counter_ns() - start)
print("done 1", flush=True)
sys.stdin.readline()
print("medianNs", sorted(taken)[count // 2])
`;

export const JOURNAL_MODES = ["delete", "truncate", "persist"] as const;
export type JournalMode = (typeof JOURNAL_MODES)[number];

const unheld: HeldAt = { ready: async () => undefined, done: async () => undefined };

/** The directory of a system as another node has it; its own where there is none. */
function elsewhere(bench: Bench, { name, dir }: System): string {
  const { cluster } = bench;
  if (cluster === null || (name !== "owner" && name !== "other")) return dir;
  const [here, there] = name === "owner" ? [cluster.owner, cluster.other] : [cluster.other, cluster.owner];
  return path.join(there.mount, path.relative(here.mount, dir));
}

export async function fileLocks(bench: Bench, system: System): Promise<number[]> {
  const name = bench.fresh("locks");
  const dir = path.join(system.dir, name);
  await bench.load("mkdir", dir);
  await bench.load("make", dir, 1, 1);
  const own = await bench.loadUs("lock", path.join(dir, "f0"), bench.scale.creates);
  const other = path.join(elsewhere(bench, system), name, "f0");
  const handedOver = await bench.load("lock-handover", "ofd", other, path.join(dir, "f0"), bench.scale.handovers);
  await bench.load("remove", dir, 1);
  await bench.load("rmdir", dir);
  return [own, loadValue(handedOver, "medianNs") / 1000];
}

async function transactions(
  bench: Bench,
  files: readonly string[],
  count = bench.scale.transactions,
  at = unheld,
  mode: JournalMode = "delete",
): Promise<number> {
  const values = await runHeld("python3", ["-c", TRANSACTIONS, mode, String(count), ...files], at, bench.signal);
  return loadValue(values, "medianNs") / 1000;
}

export async function sqlite(bench: Bench, system: System): Promise<number[]> {
  const name = bench.fresh("sqlite");
  const own = await transactions(bench, [path.join(system.dir, name)]);
  const byTurns = await transactions(bench, [path.join(elsewhere(bench, system), name), path.join(system.dir, name)]);
  await must("rm", [path.join(system.dir, name)], { signal: bench.signal });
  return [own, byTurns];
}

/** So many transactions by turns of these nodes, for those who count in between; `us`: the median of one. */
export async function sqliteByTurns(
  bench: Bench,
  nodes: readonly ClusterNode[],
  ops: number,
  at: HeldAt,
  mode: JournalMode = "delete",
): Promise<{ ops: number; us: number }> {
  const name = bench.fresh("sqlite-turns");
  const files = nodes.map(({ mount }) => path.join(mount, name));
  return { ops, us: await transactions(bench, files, ops, at, mode) };
}
