/**
 * `coverlay doctor` of this installation as a child of dlmd: its words are an argument list of what dlmd itself was started with, and a number from
 * the network that has bounds (wire/self-check.ts). It runs after dlmd and the mounts, and ends with them as a fence agent does.
 */
import { access } from "node:fs/promises";
import { getPriority } from "node:os";
import { fileURLToPath } from "node:url";
import { OperatingError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import { type AgentEnd, runAgent } from "../fence-agent/run-agent.ts";
import { type CheckAnswer, MAX_CHECKED_BYTES, checkFailed } from "../wire/self-check.ts";
import type { RunCheck } from "./self-check.ts";

/** Of the whole: its process has to start, and so have those that look at disks. */
export const SELF_CHECK_LIMIT_MS = 60_000;
/** dlmd runs before all ordinary programs (base/priority.ts): this one after them. */
const PRIORITY = 5;
const NICE = "/usr/bin/nice";
/** Beside dlmd/main.js. No import: dlmd knows nothing of the overlay. */
const COVERLAY: string = fileURLToPath(new URL("../../overlay/main.js", import.meta.url));

export interface CheckOptions {
  readonly config: string;
  /** The name of this node. */
  readonly node: string;
  readonly runDir: string;
  readonly log: Log;
  /** Instead of COVERLAY. */
  readonly program?: string;
  /** Instead of SELF_CHECK_LIMIT_MS. */
  readonly limitMs?: number;
  /** Of dlmd (nice); instead of this process's own. */
  readonly priority?: () => number;
}

export function checkProcess({
  config,
  node,
  runDir,
  log,
  program = COVERLAY,
  limitMs = SELF_CHECK_LIMIT_MS,
  priority = getPriority,
}: CheckOptions): RunCheck {
  const words = [program, "doctor", "--asked", "--config", config, "--node", node, "--run-dir", runDir];
  const run = async (eachMs: number, signal: AbortSignal): Promise<CheckAnswer> => {
    try {
      await access(program);
    } catch {
      return checkFailed(`${program} is not there: coverlay is not installed beside this dlmd`);
    }
    const nicer = String(Math.max(0, PRIORITY - priority()));
    const end = await runAgent({
      what: "the check of this machine",
      path: NICE,
      words: ["-n", nicer, process.execPath, ...words, "--limit", String(eachMs / 1000)],
      input: "",
      timeoutMs: limitMs,
      signal,
    });
    return answerOf(end, limitMs);
  };
  return async (eachMs, signal) => {
    let answer: CheckAnswer;
    try {
      answer = await run(eachMs, signal);
    } catch (error) {
      if (!(error instanceof OperatingError)) throw error;
      answer = checkFailed(`${error.message}. ${error.hint}`);
    }
    if (answer.kind === "failed" && !signal.aborted)
      log.warn({ reason: answer.words }, "the check of this machine that another node asked for failed");
    return answer;
  };
}

function answerOf({ status, signal, isTooLate, isStuck, isTooLong, stdout, stderr }: AgentEnd, limitMs: number): CheckAnswer {
  if (isStuck) return checkFailed("its checks could not be ended: they wait in the kernel, as for a disk that hangs");
  if (isTooLate) return checkFailed(`its checks did not end within ${limitMs / 1000} s, and were ended`);
  if (isTooLong || Buffer.byteLength(stdout) > MAX_CHECKED_BYTES) return checkFailed(`its checks say more than ${MAX_CHECKED_BYTES} bytes`);
  if (status === null) return checkFailed(`its checks were ended by ${signal ?? "a signal"}`);
  if (stdout === "") return checkFailed(`its checks ended with status ${status}: ${stderr.trim()}`);
  return { kind: "printed", text: stdout };
}
