/**
 * Runs that failed once, as files: of whole clusters what was done to them (deed.ts), of the other simulations their options, which begin with
 * a line "run". Those in the folder `kept` are run again by kept.test.ts.
 */
import { Cluster } from "./cluster.ts";
import { decodeScript, encodeScript } from "./deed.ts";
import { type Failure, type Outcome, runCluster, type RunOptions, simulations } from "./simulations.ts";

/** A run that a seed and its options make. */
export interface SeededRun extends RunOptions {
  readonly of: string;
}

const head = /^run (?<options>\{.*\})$/m;

export function encodeKept(failure: Failure, run: SeededRun, comment: string): string {
  if (failure.script !== null) return encodeScript(failure.script, comment);
  const lines = comment.split("\n").map((line) => `# ${line}`.trimEnd());
  return [...lines, `run ${JSON.stringify(run)}`, ""].join("\n");
}

/** Throws Error for a file that cannot be read. */
export function runKept(text: string): Outcome {
  const options = head.exec(text)?.groups?.["options"];
  if (options === undefined) return runCluster(new Cluster(decodeScript(text)), Number.POSITIVE_INFINITY);
  const run = JSON.parse(options) as SeededRun;
  const simulation = simulations[run.of];
  if (simulation === undefined) throw new Error(`one of ${Object.keys(simulations).join(", ")} expected, found ${run.of}`);
  return simulation.run(run);
}

/** With as few steps as still end in a failure of the same words. */
export function shortestRun(failure: Failure, run: SeededRun): SeededRun {
  for (const steps of [failure.step, failure.step + 1]) {
    if (steps >= run.steps) break;
    const shorter = { ...run, steps };
    if (simulations[run.of]?.run(shorter).failure?.words === failure.words) return shorter;
  }
  return run;
}
