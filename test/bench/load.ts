/** The load program: compiled from load.c when the bench starts, because a script's own cost would be most of what it measures. */
import { spawn } from "node:child_process";
import path from "node:path";
import { createInterface } from "node:readline";
import { OperatingError } from "../../dlmd/base/error.ts";
import { must, run } from "../../overlay/lab/command.ts";

/** The longest single load: a hundred thousand files on a slow machine. */
const LOAD_TIMEOUT_MS = 900_000;

/** The project's root, seen from the source and from the compiled file. */
export const projectRoot: string = path.resolve(import.meta.dirname, import.meta.filename.endsWith(".ts") ? "../.." : "../../..");

/** What a load printed, by name: "nsPerOp", "ops" ... */
export type LoadValues = Readonly<Record<string, number>>;

/** Lines "name value". Throws where a line is none. */
export function decodeLoadValues(text: string): LoadValues {
  const values: Record<string, number> = {};
  for (const line of text.split("\n").filter((one) => one !== "")) {
    const [name = "", value = ""] = line.split(" ");
    if (value === "" || !Number.isFinite(Number(value))) throw new Error(`a load should print "name value", found ${JSON.stringify(line)}`);
    values[name] = Number(value);
  }
  return values;
}

/** The one value of that name. */
export function loadValue(values: LoadValues, name: string): number {
  const value = values[name];
  if (value === undefined) throw new Error(`a load should have printed ${name}, found ${Object.keys(values).join(", ")}`);
  return value;
}

/** Compiles load.c to `dir/load`; gives its path. */
export async function compileLoad(dir: string, signal?: AbortSignal): Promise<string> {
  const program = path.join(dir, "load");
  const source = path.join(projectRoot, "test/bench/load.c");
  try {
    await must("cc", ["-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source], { signal });
  } catch (error) {
    if (signal?.aborted === true) throw interrupted();
    if (!(error instanceof OperatingError) || error.code !== "no-tool") throw error;
    throw new OperatingError("the bench needs a C compiler for its load program, and cc is not there", {
      code: "no-compiler",
      hint: "Debian: apt-get install gcc libc6-dev. The addon needs it too.",
      cause: error,
    });
  }
  return program;
}

/** Runs a load to its end. Throws with its words unless it ends with 0. */
export async function runLoad(program: string, words: readonly (string | number)[], signal?: AbortSignal): Promise<LoadValues> {
  const result = await run(program, words.map(String), { timeoutMs: LOAD_TIMEOUT_MS, signal });
  if (signal?.aborted === true) throw interrupted();
  if (result.status !== 0) {
    const how = result.timedOut ? `not done within ${LOAD_TIMEOUT_MS / 1000} s` : result.stderr.trim() || `ended by ${result.endedBy}`;
    throw new Error(`load ${words.join(" ")}: ${how}`);
  }
  return decodeLoadValues(result.stdout);
}

export function interrupted(): OperatingError {
  return new OperatingError("interrupted", { code: "interrupted", hint: "What was measured so far is lost." });
}

/** What is awaited before and after what is timed. */
export interface HeldAt {
  readonly ready: () => Promise<void>;
  readonly done: () => Promise<void>;
}

/** Runs a load that stops before and after what is timed; `at` is awaited in both places. */
export function runHeldLoad(program: string, words: readonly (string | number)[], at: HeldAt, signal?: AbortSignal): Promise<LoadValues> {
  return runHeld(program, ["hold", ...words.map(String)], at, signal);
}

/** Any program that says "ready 1" and "done 1", and goes on with a line of its input. */
export async function runHeld(program: string, words: readonly string[], at: HeldAt, signal?: AbortSignal): Promise<LoadValues> {
  const child = spawn(program, words, { detached: true, stdio: ["pipe", "pipe", "pipe"] });
  const ended = new Promise<number | null>((resolve, reject) => child.on("error", reject).on("close", resolve));
  let complaint = "";
  child.stderr.on("data", (chunk: Buffer) => (complaint += chunk.toString("utf8")));
  child.stdin.on("error", () => undefined); // It ended early; its status says so below.
  const kill = (): void => void child.kill("SIGKILL");
  signal?.addEventListener("abort", kill, { once: true });
  const lines: string[] = [];
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      if (line !== "ready 1" && line !== "done 1") {
        lines.push(line);
        continue;
      }
      await (line === "ready 1" ? at.ready() : at.done());
      child.stdin.write("\n");
    }
    const status = await ended;
    if (signal?.aborted === true) throw interrupted();
    if (status !== 0) throw new Error(`load ${words.join(" ")}: ${complaint.trim() || `exit status ${status}`}`);
  } finally {
    signal?.removeEventListener("abort", kill);
    kill();
  }
  return decodeLoadValues(lines.join("\n"));
}
