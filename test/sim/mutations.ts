/** `npm run mutations`: breaks one rule at a time and shows what notices. Exits 1 if a mutation survives, or no longer fits the source. */
import path from "node:path";
import yargs from "yargs";
import { hideBin } from "yargs/helpers";
import { allMutations } from "./all-mutations.ts";
import type { Mutation } from "./mutation.ts";
import { MutationTree, type Verdict } from "./mutation-tree.ts";

interface Result {
  readonly mutation: Mutation;
  readonly verdict: Verdict;
}

const args = yargs(hideBin(process.argv))
  .scriptName("npm run mutations --")
  .usage(
    "$0 [options]\n\nTakes one rule of the cores out at a time, and shows which test or simulation notices. Exits 1 when one survives.",
  )
  .option("list", { type: "boolean", default: false, describe: "what there is, and what must notice it; nothing is run" })
  .option("only", { type: "string", array: true, default: [], describe: "those with this in their id, hazard, file or words" })
  .option("seed", { type: "string", default: "1-100", describe: "seeds that a simulation is given to notice" })
  .option("steps", { type: "number", default: 3000, describe: "steps of each seed" })
  .option("json", { type: "boolean", default: false, describe: "an object a line" })
  .example("$0", "all of them: some minutes")
  .example("$0 --list --only C4", "the rules of hazard C4")
  .example("$0 --only dlmd/lock --only m3-", "of one folder, and one more")
  .strict()
  .parseSync();

const title = ({ hazard, breaks }: Mutation): string => (hazard === undefined ? breaks : `${hazard}: ${breaks}`);

function isWanted({ id, hazard, file, breaks }: Mutation): boolean {
  const { only } = args;
  return only.length === 0 || only.some((part) => id.includes(part) || hazard === part || file.includes(part) || breaks.includes(part));
}

/** To those who wait; results go to stdout. */
const note = (line: string): void => void process.stderr.write(`${line}\n`);

function show({ mutation, verdict }: Result): void {
  const { id, hazard, breaks, file, caughtBy } = mutation;
  if (args.json) console.log(JSON.stringify({ id, hazard, breaks, file, caughtBy, caught: verdict.failed, by: verdict.by }));
  else
    console.log(
      `${verdict.failed ? "caught  " : "SURVIVED"} ${id}  ${title(mutation)}\n           ${verdict.by === "" ? `${caughtBy} passes` : verdict.by}`,
    );
}

function list(chosen: readonly Mutation[]): void {
  for (const mutation of chosen) {
    const { id, hazard, breaks, file, caughtBy } = mutation;
    if (args.json) console.log(JSON.stringify({ id, hazard, breaks, file, caughtBy }));
    else console.log(`${id}  ${title(mutation)}\n           ${file}, caught by ${caughtBy}`);
  }
  if (!args.json) console.log(`${chosen.length} mutations`);
}

async function runAll(chosen: readonly Mutation[]): Promise<Result[]> {
  const tree = new MutationTree(path.resolve(import.meta.dirname, "../../.."), args);
  for (const [signal, status] of [["SIGINT", 130] as const, ["SIGTERM", 143] as const]) {
    process.once(signal, () => {
      tree.close();
      process.exit(status);
    });
  }
  const results: Result[] = [];
  try {
    for (const caughtBy of new Set(chosen.map((mutation) => mutation.caughtBy))) {
      note(`every rule in place: ${caughtBy}`);
      const { failed, by } = await tree.whole(caughtBy);
      if (failed) throw new Error(`${caughtBy} fails with every rule in place, so it would seem to catch anything: ${by}`);
    }
    for (const [at, mutation] of chosen.entries()) {
      const startedMs = performance.now();
      const result = { mutation, verdict: await tree.broken(mutation) };
      results.push(result);
      show(result);
      note(`${at + 1} of ${chosen.length}, ${((performance.now() - startedMs) / 1000).toFixed(1)} s`);
    }
  } finally {
    tree.close();
  }
  return results;
}

async function main(): Promise<void> {
  const chosen = allMutations.filter(isWanted);
  if (chosen.length === 0) throw new Error(`no mutation has "${args.only.join('" or "')}" in it: see --list`);
  if (args.list) return list(chosen);
  const results = await runAll(chosen);
  const survived = results.filter(({ verdict }) => !verdict.failed).map(({ mutation }) => mutation.id);
  note(
    survived.length === 0
      ? `all ${results.length} mutations were caught`
      : `${survived.length} of ${results.length} survived: ${survived.join(" ")}`,
  );
  process.exitCode = survived.length === 0 ? 0 : 1;
}

await main();
