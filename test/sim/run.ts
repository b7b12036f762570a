/**
 * `npm run sim`: clusters under seeds. Exits 1 at the first seed that fails, with the shortest script found that still does, and the last
 * events of it.
 */
import { readFileSync, writeFileSync } from "node:fs";
import yargs from "yargs";
import { hideBin } from "yargs/helpers";
import { plainQuorum } from "../../dlmd/membership/quorum.ts";
import { wordsOf } from "./deed.ts";
import { type FaultOptions, faultKinds, weatherKinds } from "./faults.ts";
import { encodeKept, runKept, type SeededRun, shortestRun } from "./kept.ts";
import { type Failure, type Simulation, simulations } from "./simulations.ts";
import { shrink } from "./shrink.ts";

const shrinkRuns = 600;

const args = yargs(hideBin(process.argv))
  .scriptName("npm run sim --")
  .usage("$0 [options]\n\nRuns clusters of the code that ships under seeds, and checks after every step what must hold.")
  .option("of", { choices: Object.keys(simulations), default: "cluster", describe: "which simulation" })
  .option("seed", { type: "string", default: "1-100", describe: "a seed, or FROM-TO" })
  .option("steps", { type: "number", default: 20_000, describe: "steps of trouble of each seed, before all is healed" })
  .option("nodes", { type: "number", default: 0, describe: "nodes, up to 16; 0: as the seed says" })
  .options(
    Object.fromEntries(
      Object.entries(weatherKinds).map(([name, describe]) => [name, { type: "number", describe, group: "Network:" }] as const),
    ),
  )
  .options(
    Object.fromEntries(
      Object.entries(faultKinds).map(([name, describe]) => [name, { type: "number", describe, group: "Faults a second:" }] as const),
    ),
  )
  .option("last-man-standing", { type: "number", describe: "engine: its window, ms", group: "Quorum:" })
  .option("tie-breaker", { choices: ["none", "lowest", "highest"], default: "none", describe: "engine: who wins a tie", group: "Quorum:" })
  .option("keep", { type: "string", describe: "write the script that fails to this file; npm test runs those of test/sim/kept" })
  .option("script", { type: "string", describe: "run this file instead of seeds" })
  .option("shrink", { type: "boolean", default: true, describe: "make a script that fails shorter (--no-shrink: do not)" })
  .option("json", { type: "boolean", default: false, describe: "the result as one object" })
  .example("$0 --seed 17 --steps 5000 --nodes 3", "one seed")
  .example("$0 --seed 1-200 --steps 5000", "a million steps")
  .example("$0 --of engine --loss 0.05 --crash 0 --cut 3", "lossy links that are cut often, no crashes")
  .example("$0 --seed 17 --keep bug.script; $0 --script bug.script", "keep what fails, run it again")
  .epilogue(
    Object.entries(simulations)
      .map(([name, { about }]) => `${name}: ${about}`)
      .join("\n"),
  )
  .strict()
  .check((given) => {
    const { of, nodes, steps } = given as unknown as Args;
    const most = of === "file-locks" ? 4 : 16;
    if (!Number.isInteger(nodes) || nodes < 0 || nodes > most) throw new Error(`--nodes: a number up to ${most} expected, found ${nodes}`);
    if (!Number.isInteger(steps) || steps < 1) throw new Error(`--steps: a number expected, found ${steps}`);
    return true;
  })
  .parseSync() as unknown as Args;

interface Args {
  readonly of: string;
  readonly seed: string;
  readonly steps: number;
  readonly nodes: number;
  readonly "last-man-standing"?: number;
  readonly "tie-breaker": "none" | "lowest" | "highest";
  readonly keep?: string;
  readonly script?: string;
  readonly shrink: boolean;
  readonly json: boolean;
}

function faultsOf(given: Args): FaultOptions {
  const numbers = given as unknown as Readonly<Record<string, number | undefined>>;
  const named = (names: readonly string[]): Record<string, number> =>
    Object.fromEntries(names.flatMap((name) => (numbers[name] === undefined ? [] : [[name, numbers[name]]])));
  const { "max-delay": maxDelayMs, ...shares } = named(Object.keys(weatherKinds));
  return { rates: named(Object.keys(faultKinds)), weather: maxDelayMs === undefined ? shares : { ...shares, maxDelayMs } };
}

function seedRange(text: string): [number, number] {
  const range = /^(\d+)(?:-(\d+))?$/.exec(text);
  if (range === null) throw new Error(`--seed: a number or FROM-TO expected, found ${text}`);
  return [Number(range[1]), Number(range[2] ?? range[1])];
}

/** `run`: with which it failed; null: by a file. */
function report(failure: Failure, where: string, run: SeededRun | null): void {
  const { script } = failure;
  const shrunk = script !== null && args.shrink ? shrink(failure, shrinkRuns) : null;
  const found = shrunk?.failure ?? failure;
  const told = `${where}, step ${failure.step}${failure.nowMs === null ? "" : `, ${failure.nowMs.toFixed(2)} ms`}: ${failure.words}`;
  const least = shrunk?.script ?? script;
  if (args.json) console.log(JSON.stringify({ ok: false, where, step: failure.step, failure: failure.words, script: least }));
  else {
    console.log(`${found.lastEvents}\n\n${told}`);
    console.log(failure.stack.split("\n").slice(1, 6).join("\n"));
    if (shrunk !== null) {
      console.log(`the shortest script found in ${shrunk.runs} runs, ${least?.deeds.length} of ${script?.deeds.length} deeds left:`);
      for (const { atMs, deed } of shrunk.script.deeds) console.log(`  ${atMs} ${wordsOf(deed)}`);
      console.log(`ends with ${shrunk.failure.words}`);
    }
  }
  if (args.keep === undefined || run === null) return;
  const shortest = least === null && args.shrink ? shortestRun(failure, run) : run;
  writeFileSync(
    args.keep,
    encodeKept({ ...failure, script: least }, shortest, `${told}\nRun it with: npm run sim -- --script ${args.keep}`),
  );
  if (!args.json) console.log(`kept in ${args.keep}`);
}

function runSeeds(from: number, to: number): void {
  const faults = faultsOf(args);
  const quorum = { ...plainQuorum, autoTieBreaker: args["tie-breaker"], lastManStandingMs: args["last-man-standing"] ?? null };
  const sums: Record<string, number> = {};
  for (let seed = from; seed <= to; seed++) {
    const run: SeededRun = { of: args.of, seed, steps: args.steps, nodes: args.nodes, faults, quorum };
    const { failure, counts } = (simulations[run.of] as Simulation).run(run);
    if (failure !== null) {
      report(failure, `seed ${seed}`, run);
      process.exitCode = 1;
      return;
    }
    for (const [name, count] of Object.entries(counts)) sums[name] = (sums[name] ?? 0) + count;
  }
  const seeds = to - from + 1;
  if (args.json) console.log(JSON.stringify({ ok: true, seeds, steps: seeds * args.steps, counts: sums }));
  else {
    const counts = Object.entries(sums).map(([name, count]) => `${count} ${name}`);
    console.log(`${seeds} seeds of ${args.steps} steps: ${counts.join(", ")}, nothing wrong`);
  }
}

function runScript(file: string): void {
  const { failure } = runKept(readFileSync(file, "utf8"));
  if (failure === null) return console.log(args.json ? JSON.stringify({ ok: true }) : `${file}: nothing wrong`);
  report(failure, file, null);
  process.exitCode = 1;
}

if (args.script !== undefined) runScript(args.script);
else runSeeds(...seedRange(args.seed));
