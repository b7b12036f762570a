/**
 * Applies each of mutations.ts to a copy of the sources and runs the simulation and the scenarios on it: prints which are caught, and exits 1
 * if one is not. Arguments: parts of the rules' names to run only those. From the root of a checkout with its dependencies.
 */
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { engineMutations, type Mutation } from "./mutations.ts";

const root = process.cwd();
const copy = mkdtempSync(path.join(tmpdir(), "mutations-"));
const seeds = process.env["SEEDS"] ?? "40";
/** Ten times what the sources as they are take: who is not done then is caught. */
let patienceMs = 600_000;
const steps = process.env["STEPS"] ?? "3000";

function run(command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): { failed: boolean; last: string } {
  const { status, stdout, stderr } = spawnSync(command, args, {
    cwd: copy,
    encoding: "utf8",
    timeout: patienceMs,
    env: { ...process.env, ...env },
  });
  const lines = `${stdout}\n${stderr}`.trim().split("\n");
  if (status === null) return { failed: true, last: `it went on for ${patienceMs} ms` };
  return { failed: status !== 0, last: lines.find((line) => /Failure|Error|×/.test(line)) ?? lines.at(-1) ?? "" };
}

/** What catches it; null: nothing. */
function caught(mutation: Mutation): string | null {
  const file = path.join(copy, mutation.file);
  const text = readFileSync(file, "utf8");
  if (text.split(mutation.from).length !== 2) throw new Error(`"${mutation.rule}": its text is not exactly once in ${mutation.file}`);
  writeFileSync(
    file,
    text.replace(mutation.from, () => mutation.to),
  );
  try {
    // What does not compile for an unused name is compiled all the same.
    run("node", [path.join(root, "node_modules/typescript/bin/tsc"), "-p", "tsconfig.json", "--noEmitOnError", "false"]);
    const simulation = (): string | null => {
      const { failed, last } = run("node", ["dist/test/sim/engine/run.js"], { SEEDS: seeds, STEPS: steps, KEPT: "0" });
      return failed ? `simulation: ${last}` : null;
    };
    const scenario = (): string | null => {
      const { failed, last } = run("npx", ["vitest", "run", "test/sim/engine/scenario.test.ts"], { KEPT: "0" });
      return failed ? `scenario: ${last}` : null;
    };
    return mutation.caughtBy === "simulation" ? (simulation() ?? scenario()) : (scenario() ?? simulation());
  } finally {
    writeFileSync(file, text);
  }
}

for (const part of ["dlmd", "test", "package.json", "tsconfig.json", "vitest.config.ts"])
  cpSync(path.join(root, part), path.join(copy, part), { recursive: true });
symlinkSync(path.join(root, "node_modules"), path.join(copy, "node_modules"));
writeFileSync(
  path.join(copy, "tsconfig.json"),
  readFileSync(path.join(root, "tsconfig.json"), "utf8").replace(
    /"include": \[[^\]]*\]/,
    '"include": ["dlmd/**/*.ts", "test/sim/**/*.ts"]',
  ),
);
const began = performance.now();
const sound = caught({
  rule: "nothing taken out",
  file: "dlmd/node.ts",
  from: "/**\n * One node",
  to: "/**\n * One node",
  caughtBy: "simulation",
});
if (sound !== null) throw new Error(`the sources as they are fail: ${sound}`);
patienceMs = Math.max(60_000, 10 * (performance.now() - began));
const wanted = process.argv.slice(2);
let missed = 0;
for (const mutation of engineMutations) {
  if (wanted.length > 0 && !wanted.some((part) => mutation.rule.includes(part))) continue;
  const by = caught(mutation);
  if (by === null) missed++;
  console.log(`${by === null ? "MISSED" : "caught"}  ${mutation.rule}${by === null ? "" : `\n        ${by.trim().slice(0, 160)}`}`);
}
rmSync(copy, { recursive: true, force: true });
process.exit(missed === 0 ? 0 : 1);
