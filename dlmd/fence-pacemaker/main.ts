#!/usr/bin/env node
/**
 * fence_pacemaker, a fence agent that asks the Pacemaker of this node (README.md). It is a program as those of Debian's fence-agents, and
 * cluster.yaml names it as any other.
 *
 * Exit status: 0 done; 1 it failed, with words on stderr.
 */
import { spawn } from "node:child_process";
import { assertNever } from "../base/assert.ts";
import { whyUnproven } from "./proof.ts";
import { PACEMAKER_METADATA, type PacemakerRequest, parsePacemakerRequest } from "./request.ts";

interface Run {
  readonly pid: number;
  /** In words, for an end that is none of its own. */
  readonly end: string;
  readonly ok: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

/** A program without input may leave it open. */
async function input(): Promise<string> {
  let text = "";
  for await (const chunk of process.stdin.setEncoding("utf8")) text += String(chunk);
  return text;
}

function run(program: string, words: readonly string[]): Promise<Run> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, words, { stdio: ["ignore", "pipe", "pipe"] });
    let [stdout, stderr] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => (stdout += chunk));
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => (stderr += chunk));
    child.on("error", (cause) => reject(new Error(`${program} could not be started: ${cause.message} (Debian: pacemaker-cli-utils)`)));
    child.on("close", (status, signal) => {
      const end = status === null ? `was ended by ${signal}` : `ended with status ${status}`;
      resolve({ pid: child.pid ?? 0, end, ok: status === 0, stdout, stderr });
    });
  });
}

/** Throws with its last words. */
async function mustRun(program: string, words: readonly string[]): Promise<Run> {
  const done = await run(program, words);
  if (done.ok) return done;
  const said = done.stderr.trim().split("\n").at(-1) ?? "";
  throw new Error(`stonith_admin ${words[0]} ${done.end}${said === "" ? "" : `: ${said.replace(/^stonith_admin: /, "")}`}`);
}

const WORDS = {
  off: ["--fence", "Success: Powered OFF"],
  on: ["--unfence", "Success: Powered ON"],
  reboot: ["--reboot", "Success: Rebooted"],
} as const;

async function fence(action: keyof typeof WORDS, { plug, timeoutS, program }: PacemakerRequest): Promise<void> {
  const [word, success] = WORDS[action];
  const history = async (): Promise<string> => (await mustRun(program, ["--history", plug, "--verbose", "--output-as", "xml"])).stdout;
  const before = await history();
  const { pid } = await mustRun(program, [word, plug, "--timeout", `${timeoutS}`]);
  const why = whyUnproven(before, await history(), { pid, target: plug, action });
  if (why !== null) throw new Error(`stonith_admin ${word} says that ${plug} is done, but ${why}`);
  process.stdout.write(`${success}\n`);
}

async function perform(request: PacemakerRequest): Promise<void> {
  const { action, program } = request;
  switch (action) {
    case "metadata":
      process.stdout.write(PACEMAKER_METADATA);
      return;
    case "validate-all":
      await mustRun(program, ["--version"]);
      return;
    case "monitor":
      await mustRun(program, ["--list-registered"]);
      return;
    case "off":
    case "on":
    case "reboot":
      return fence(action, request);
    default:
      return assertNever(action, "action");
  }
}

async function main(): Promise<void> {
  const words = process.argv.slice(2);
  const parsed = parsePacemakerRequest(words, words.length > 0 ? "" : await input());
  if (parsed.kind === "wrong") throw new Error(parsed.why);
  for (const key of parsed.ignored) process.stderr.write(`fence_pacemaker: the option ${key} is not known, and ignored\n`);
  await perform(parsed.request);
}

try {
  await main();
} catch (error) {
  process.stderr.write(`fence_pacemaker: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
