/**
 * The simulation from the command line: SEEDS (how many, or "from-to"), STEPS of each. Prints seed, step and the last
 * events of the first that fails, and exits 1.
 */
import { Cluster } from "./cluster.ts";

const [from, to] = seedRange(process.env["SEEDS"] ?? "100");
const steps = Number(process.env["STEPS"] ?? 20_000);
let grants = 0;
let fileLocks = 0;
let reads = 0;
let evictions = 0;
let deadlocks = 0;
for (let seed = from; seed <= to; seed++) {
  const cluster = new Cluster(seed);
  try {
    cluster.run(steps);
  } catch (error) {
    console.log(cluster.lastEvents());
    console.log(
      `seed ${seed}, step ${cluster.steps}, ${cluster.agenda.nowMs.toFixed(2)} ms: ${error instanceof Error ? error.stack : String(error)}`,
    );
    process.exit(1);
  }
  grants += cluster.checker.grants;
  fileLocks += cluster.plockChecker.grants;
  reads += cluster.checker.reads;
  evictions += cluster.evictions;
  deadlocks += cluster.checker.deadlocks;
}
console.log(
  `${to - from + 1} seeds of ${steps} steps: ${grants} grants, ${fileLocks} file locks, ${reads} value blocks read, ${evictions} evictions, ${deadlocks} deadlocks, nothing wrong`,
);

function seedRange(text: string): [number, number] {
  const range = /^(\d+)-(\d+)$/.exec(text);
  return range === null ? [1, Number(text)] : [Number(range[1]), Number(range[2])];
}
