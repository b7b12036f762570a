/** `npm run spec:mutants`: breaks one rule of the overlay at a time, and shows the sequence of calls by which the specification notices. */
import path from "node:path";
import yargs from "yargs";
import { hideBin } from "yargs/helpers";
import { MutantLab } from "./mutant-lab.ts";
import { equivalents, type Mutant, mutants } from "./table.ts";
import { RUNS, type Tried, tryMutant, tryWhole } from "./try.ts";

const BAD_USAGE = 2;
const root = path.resolve(import.meta.dirname, "../../../..");

function fail(message: string): never {
  process.stderr.write(`${message}\n`);
  process.exit(BAD_USAGE);
}

const given = await yargs(hideBin(process.argv))
  .scriptName("npm run spec:mutants --")
  .usage("$0 [options]\n\nBreaks one rule of the overlay at a time in a lab of two nodes. The specification must find a difference.")
  .option("list", { type: "boolean", default: false, describe: "what there is; nothing is run" })
  .option("only", { type: "string", array: true, default: [], describe: "those with this in their id, file or words" })
  .option("equivalent", { type: "boolean", default: false, describe: "those that something else stands in for: none may be found" })
  .option("whole", { type: "boolean", default: true, describe: "first of all: with every rule in place there is no difference" })
  .option("alone", { type: "boolean", default: true, describe: "what needs both mounts must not be seen through one" })
  .option("runs", { type: "number", default: RUNS, describe: "sequences for each, at most" })
  .option("json", { type: "boolean", default: false, describe: "an object a line" })
  .example("$0", "all of them")
  .example("$0 --only stale-names --no-whole", "one of them, and the command that shows it")
  .epilogue("Exit status: 0 all were found (with --equivalent: none), 1 not so, or the whole overlay differs, 2 bad usage. Needs root.")
  .strict()
  .exitProcess(false)
  .fail((message, error) => fail(message ?? String(error)))
  .parse();

if (given["help"] === true || given["version"] === true) process.exit(0);
const table: readonly Mutant[] = given.equivalent ? equivalents : mutants;
const chosen = table.filter(
  ({ id, file, breaks }) => given.only.length === 0 || given.only.some((part) => [id, file, breaks].some((words) => words.includes(part))),
);
if (chosen.length === 0) fail(`no mutant has "${given.only.join('" or "')}" in it: see --list`);

const how = ({ through, atOnce }: Mutant): string => (atOnce === true ? `${through}, at once` : through);
const note = (line: string): void => void process.stderr.write(`${line}\n`);

/** One that was interrupted has neither survived nor been found. */
function verdictOf(found: Tried["found"]): string {
  if (found !== null) return "found   ";
  return stoppedBy === null ? "SURVIVED" : "undecided";
}

function show({ mutant, found, alone, ofTheWhole, calls }: Tried, seconds: number): void {
  const { id, breaks, file } = mutant;
  if (given.json) return console.log(JSON.stringify({ id, breaks, file, how: how(mutant), found, alone, ofTheWhole, calls, seconds }));
  console.log(`${verdictOf(found)} ${id} (${how(mutant)}): ${breaks}`);
  if (alone !== null) console.log(`         through one mount alone, too: seed ${alone.seed}: ${alone.why}`);
  for (const own of ofTheWhole) console.log(`         with every rule in place, too: seed ${own.seed}: ${own.why}\n${own.commands}`);
  if (found === null) return;
  console.log(`         seed ${found.seed}: ${found.why}`);
  if (found.history !== null) console.log(found.history);
  console.log(found.commands);
}

async function runAll(lab: MutantLab): Promise<boolean> {
  let good = true;
  if (given.whole) {
    note("every rule in place");
    const found = await tryWhole(lab, given.runs, undefined, () => stoppedBy !== null);
    if (found !== null) {
      note(`with every rule in place there is a difference, seed ${found.seed}: ${found.why}\n${found.commands}`);
      return false;
    }
  }
  for (const [at, mutant] of chosen.entries()) {
    if (stoppedBy !== null) return false;
    const startedMs = performance.now();
    let tried: Tried;
    try {
      tried = await tryMutant(lab, mutant, { runs: given.runs, stopped: () => stoppedBy !== null, alsoAlone: given.alone });
    } catch (error) {
      // It has broken more than a rule: a sequence did not come to its end. Neither a difference nor none.
      good = false;
      note(`${at + 1} of ${chosen.length}: ${mutant.id}: ${error instanceof Error ? error.message : String(error)}`);
      continue;
    }
    const seconds = Math.round((performance.now() - startedMs) / 100) / 10;
    show(tried, seconds);
    good &&= (tried.found === null) === given.equivalent && tried.alone === null && tried.ofTheWhole.length === 0;
    note(`${at + 1} of ${chosen.length}: ${mutant.id}, ${seconds} s`);
  }
  return good;
}

let stoppedBy: NodeJS.Signals | null = null;
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    stoppedBy = signal;
  });
}

if (given.list) {
  for (const mutant of chosen) console.log(`${mutant.id} (${how(mutant)}): ${mutant.breaks}\n    ${mutant.file}`);
  console.log(`${chosen.length} mutants`);
  if (!given.equivalent) for (const { id, because } of equivalents) console.log(`not among them: ${id}\n    ${because}`);
} else {
  if (process.getuid?.() !== 0) fail("it needs root: it brings a lab up");
  const lab = new MutantLab(root);
  try {
    process.exitCode = (await runAll(lab)) ? 0 : 1;
  } finally {
    await lab.end();
  }
}
