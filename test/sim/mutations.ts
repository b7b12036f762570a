/**
 * Shows that the tests find bugs: breaks one rule at a time and looks whether what should notice does. `npm run build`, then
 * `node dist/test/sim/mutations.js [part of a name or of a file]`. Exits 1 if a mutation is not caught, or no longer fits the source.
 *
 * The compiled tree is copied, so that nothing else sees the broken rule.
 */
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { transformWithEsbuild } from "vite";
import { engineMutations } from "./engine/mutations.ts";
import { lockMutations } from "./lock-mutations.ts";
import { plockMutations } from "./plock-mutations.ts";

export interface Mutation {
  /** The rule that is taken out. */
  readonly name: string;
  readonly file: string;
  /** Occurs exactly once. */
  readonly find: string;
  readonly replace: string;
  /** A test file, or "sim" or "engine-sim": a random simulation. */
  readonly caughtBy: string;
}

const all: readonly Mutation[] = [...lockMutations, ...plockMutations, ...engineMutations];
/** Seeds and steps of the simulation that a mutation is given to be noticed in. */
const simSeeds = process.env["SEEDS"] ?? "1-100";
const simSteps = process.env["STEPS"] ?? "3000";
const timeoutMs = 300_000;

const root = path.resolve(import.meta.dirname, "../../..");

/** The source with that rule broken, as the compiler would have written it. */
async function broken({ file, find, replace, name }: Mutation): Promise<string> {
  const source = readFileSync(path.join(root, file), "utf8");
  const times = source.split(find).length - 1;
  if (times !== 1) throw new Error(`${name}: found ${times} times in ${file}, once expected: ${find}`);
  const { code } = await transformWithEsbuild(
    source.replace(find, () => replace),
    file,
    { loader: "ts", target: "es2023", sourcemap: false },
  );
  return code.replaceAll(/(from\s*"\.[^"]*)\.ts"/g, '$1.js"');
}

function run(tree: string, caughtBy: string): boolean {
  const simulations: Readonly<Record<string, string>> = { sim: "run.js", "engine-sim": "engine/run.js" };
  const simulation = simulations[caughtBy];
  const args =
    simulation !== undefined
      ? [path.join(tree, "dist/test/sim", simulation)]
      : [path.join(root, "node_modules/vitest/vitest.mjs"), "run", "--root", tree, `dist/${caughtBy.replace(/\.ts$/, ".js")}`];
  const env = { ...process.env, SEEDS: simSeeds, STEPS: simSteps };
  const { status } = spawnSync(process.execPath, args, { cwd: tree, env, stdio: "ignore", timeout: timeoutMs });
  // Out of time shows nothing.
  return status !== null && status !== 0;
}

async function main(): Promise<void> {
  const wanted = process.argv[2] ?? "";
  const tree = mkdtempSync(path.join(tmpdir(), "mutations-"));
  let missed = 0;
  try {
    cpSync(path.join(root, "dist"), path.join(tree, "dist"), { recursive: true });
    cpSync(path.join(root, "test/scenario/locks"), path.join(tree, "dist/test/scenario/locks"), { recursive: true });
    writeFileSync(path.join(tree, "package.json"), '{ "type": "module" }\n');
    symlinkSync(path.join(root, "node_modules"), path.join(tree, "node_modules"));
    const chosen = all.filter(({ name, file }) => name.includes(wanted) || file.includes(wanted));
    for (const caughtBy of new Set(chosen.map((mutation) => mutation.caughtBy))) {
      if (run(tree, caughtBy)) throw new Error(`${caughtBy} fails with every rule in place: it would seem to catch anything`);
    }
    for (const mutation of chosen) {
      const compiled = path.join(tree, "dist", mutation.file.replace(/\.ts$/, ".js"));
      const whole = readFileSync(compiled, "utf8");
      writeFileSync(compiled, await broken(mutation));
      const caught = run(tree, mutation.caughtBy);
      writeFileSync(compiled, whole);
      if (!caught) missed++;
      console.log(`${caught ? "caught" : "MISSED"}  ${mutation.name}  (${mutation.caughtBy})`);
    }
  } finally {
    rmSync(tree, { recursive: true });
  }
  console.log(missed === 0 ? "every mutation was caught" : `${missed} not caught`);
  process.exitCode = missed === 0 ? 0 : 1;
}

await main();
