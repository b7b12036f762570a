/** The simulation of file locks from the command line: SEEDS (how many, or "from-to"), STEPS of each. Exits 1 at the first that fails. */
import { PlockCluster } from "./plock-cluster.ts";

const range = /^(\d+)-(\d+)$/.exec(process.env["SEEDS"] ?? "100");
const [from, to] = range === null ? [1, Number(process.env["SEEDS"] ?? 100)] : [Number(range[1]), Number(range[2])];
const steps = Number(process.env["STEPS"] ?? 20_000);
const sums = { grants: 0, deadlocks: 0, overtakes: 0, late: 0, views: 0 };
for (let seed = from; seed <= to; seed++) {
  const cluster = new PlockCluster(seed);
  try {
    cluster.run(steps);
  } catch (error) {
    console.log(cluster.lastEvents());
    console.log(`seed ${seed}, step ${cluster.steps}: ${error instanceof Error ? error.stack : String(error)}`);
    process.exit(1);
  }
  sums.grants += cluster.checker.grants;
  sums.deadlocks += cluster.checker.deadlocks;
  sums.overtakes += cluster.checker.overtakes;
  sums.late += cluster.checker.lateSentences;
  sums.views += cluster.views;
}
console.log(
  `${to - from + 1} seeds of ${steps} steps: ${sums.grants} grants, ${sums.deadlocks} deadlocks (${sums.late} late), ` +
    `${sums.overtakes} overtakings, ${sums.views} views, nothing wrong`,
);
