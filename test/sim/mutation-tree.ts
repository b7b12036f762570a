/** A copy of the compiled tree in which one rule at a time is broken, so that nothing else sees it; and what the tests there say. */
import { spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { transformWithEsbuild } from "vite";
import type { Mutation } from "./mutation.ts";
import { simulations } from "./simulations.ts";

/** With every rule in place everything ends before that. */
const longestMs = 300_000;
/** With a rule broken it hangs when it takes that many times as long, and at least so long: that is noticed too. */
const hangsAfter = 10;
const hangsAfterMs = 30_000;

export interface SimulationSize {
  readonly seed: string;
  readonly steps: number;
}

export interface Verdict {
  readonly failed: boolean;
  /** The test or the seed that failed, and how; of one that passed nothing. */
  readonly by: string;
}

interface VitestReport {
  readonly testResults: readonly {
    readonly message: string;
    readonly assertionResults: readonly {
      readonly status: string;
      readonly fullName: string;
      readonly failureMessages: readonly string[];
    }[];
  }[];
}

/** Of a mutation: what it does to which source. */
export type Replacement = Pick<Mutation, "file" | "find" | "replace">;

/** How often the text that a mutation replaces is in its source. */
export function timesFound(root: string, { file, find }: Replacement): number {
  return readFileSync(path.join(root, file), "utf8").split(find).length - 1;
}

/** The source with that rule broken, as the compiler would have written it. */
export async function compileBroken(root: string, { file, find, replace }: Replacement): Promise<string> {
  const source = readFileSync(path.join(root, file), "utf8");
  const { code } = await transformWithEsbuild(
    source.replace(find, () => replace),
    file,
    { loader: "ts", target: "es2023", sourcemap: false },
  );
  return code.replaceAll(/(from\s*"\.[^"]*)\.ts"/g, '$1.js"');
}

/** What a copy of the compiled tree needs beside it to run. */
export function linkBeside(root: string, dir: string): void {
  writeFileSync(path.join(dir, "package.json"), '{ "type": "module" }\n');
  symlinkSync(path.join(root, "node_modules"), path.join(dir, "node_modules"));
  mkdirSync(path.join(dir, "native"), { recursive: true });
  symlinkSync(path.join(root, "native/build"), path.join(dir, "native/build"));
}

export class MutationTree {
  readonly #root: string;
  readonly #dir: string;
  readonly #size: SimulationSize;
  /** The process group of the last program that was started in it. */
  #running: number | null = null;
  /** How long each takes with every rule in place. */
  readonly #usualMs: Map<string, number> = new Map();

  constructor(root: string, size: SimulationSize) {
    this.#root = root;
    this.#size = size;
    this.#dir = mkdtempSync(path.join(tmpdir(), "mutations-"));
    cpSync(path.join(root, "dist"), path.join(this.#dir, "dist"), { recursive: true });
    // Scenarios and sources in C, which lie beside the tests that read them.
    const data = (from: string): boolean => !from.endsWith(".ts");
    cpSync(path.join(root, "test"), path.join(this.#dir, "dist/test"), { recursive: true, filter: data });
    linkBeside(root, this.#dir);
  }

  /** Whatever still runs in it ends. */
  close(): void {
    this.#endRunning();
    rmSync(this.#dir, { recursive: true, force: true });
  }

  /** With every rule in place. */
  async whole(caughtBy: string): Promise<Verdict> {
    const startedMs = performance.now();
    const verdict = await this.#look(caughtBy, longestMs);
    this.#usualMs.set(caughtBy, performance.now() - startedMs);
    return verdict;
  }

  #look(caughtBy: string, limitMs: number): Promise<Verdict> {
    return caughtBy in simulations ? this.#simulate(caughtBy, limitMs) : this.#test(caughtBy, limitMs);
  }

  async broken(mutation: Mutation): Promise<Verdict> {
    const times = timesFound(this.#root, mutation);
    if (times !== 1)
      return { failed: false, by: `it does not fit: found ${times} times in ${mutation.file}, once expected: ${mutation.find}` };
    const compiled = path.join(this.#dir, "dist", mutation.file.replace(/\.ts$/, ".js"));
    const whole = readFileSync(compiled, "utf8");
    writeFileSync(compiled, await compileBroken(this.#root, mutation));
    try {
      const usualMs = this.#usualMs.get(mutation.caughtBy) ?? longestMs / hangsAfter;
      return await this.#look(mutation.caughtBy, Math.max(hangsAfterMs, hangsAfter * usualMs));
    } finally {
      writeFileSync(compiled, whole);
    }
  }

  /** In a process group of its own: vitest's workers, of which a broken rule may make one run in circles for ever, end with it. */
  #run(args: readonly string[], timeoutMs: number): Promise<{ status: number | null; stdout: string }> {
    const child = spawn(process.execPath, args, { cwd: this.#dir, detached: true, stdio: ["ignore", "pipe", "ignore"] });
    this.#running = child.pid ?? null;
    const timer = setTimeout(() => this.#endRunning(), timeoutMs);
    let stdout = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    return new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("exit", () => {
        this.#endRunning();
        this.#running = null;
      });
      child.on("close", (status) => {
        clearTimeout(timer);
        resolve({ status, stdout });
      });
    });
  }

  #endRunning(): void {
    const group = this.#running;
    if (group === null) return;
    try {
      process.kill(-group, "SIGKILL");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
  }

  async #simulate(name: string, limitMs: number): Promise<Verdict> {
    const size = ["--seed", this.#size.seed, "--steps", String(this.#size.steps)];
    const program = path.join(this.#dir, "dist/test/sim/run.js");
    const { status, stdout } = await this.#run([program, "--of", name, ...size, "--no-shrink", "--json"], limitMs);
    if (status === 0) return { failed: false, by: "" };
    if (status === null) return { failed: true, by: `${name} does not end` };
    const last = stdout.trim().split("\n").at(-1) ?? "";
    if (!last.startsWith("{")) throw new Error(`the simulation ${name} ended with ${status} and said ${last}`);
    const { where, failure } = JSON.parse(last) as { where: string; failure: string };
    return { failed: true, by: `${name}, ${where}: ${failure}` };
  }

  /** The compiler renames what is imported, and not what is mocked: the real thing would be there unseen. */
  #nameMocks(compiled: string): void {
    const code = readFileSync(compiled, "utf8");
    writeFileSync(compiled, code.replaceAll(/(vi\.mock\("\.[^"]*)\.ts"/g, '$1.js"'));
  }

  async #test(file: string, limitMs: number): Promise<Verdict> {
    const report = path.join(this.#dir, "report.json");
    rmSync(report, { force: true });
    const vitest = path.join(this.#root, "node_modules/vitest/vitest.mjs");
    const compiled = `dist/${file.replace(/\.ts$/, ".js")}`;
    this.#nameMocks(path.join(this.#dir, compiled));
    const how = ["--reporter=json", `--outputFile=${report}`, "--testTimeout=60000", "--bail=1"];
    const { status } = await this.#run([vitest, "run", "--root", this.#dir, ...how, compiled], limitMs);
    if (status === 0) return { failed: false, by: "" };
    if (status === null) return { failed: true, by: `${path.basename(file)} does not end` };
    if (!existsSync(report)) throw new Error(`vitest ended with ${status} and no report about ${file}`);
    return { failed: true, by: `${path.basename(file)}: ${firstFailure(JSON.parse(readFileSync(report, "utf8")) as VitestReport)}` };
  }
}

function firstFailure({ testResults }: VitestReport): string {
  for (const { assertionResults } of testResults) {
    const failed = assertionResults.find(({ status }) => status === "failed");
    if (failed !== undefined) return `"${failed.fullName}": ${failed.failureMessages[0]?.split("\n", 1)[0] ?? ""}`;
  }
  return testResults[0]?.message.split("\n", 1)[0] ?? "it did not run";
}
