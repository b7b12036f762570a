/**
 * A device of the configuration, used on a node: its options with what is in files, one action of its agent, and what that action's end means.
 * After an `off` its `status` must say off: an agent that says "done" while the node is on is a failure by name. Secrets stay out of all words.
 */
import { readFile, stat } from "node:fs/promises";
import { OperatingError } from "../base/error.ts";
import type { FenceDeviceConfig, FenceOption, FenceTargetConfig } from "../config/fence-config.ts";
import type { AgentResult } from "../fencing/fence-run.ts";
import { type AgentMetadata, plugOption } from "./metadata.ts";
import type { MetadataShelf } from "./metadata-shelf.ts";
import { type AgentEnd, isOthers, runAgent } from "./run-agent.ts";
import { isSbd, lookAtSbd } from "./sbd.ts";

/** Of the file of an option. */
export const MAX_OPTION_FILE_BYTES = 1024;
/** Statuses of the action "status" (FenceAgentAPI). */
const STATUS_ON = 0;
const STATUS_OFF = 2;

/** Options whose value is not to be seen, beside those from files. */
const secretName = /passw|secret|token|key|credential/i;
/** A shorter secret would be found in words that have nothing to do with it: then none are kept. */
const LEAST_SECRET_CHARS = 3;

export interface FenceTarget {
  readonly device: FenceDeviceConfig;
  readonly target: FenceTargetConfig;
  /** Of the node, by which the device knows it where no plug is configured. */
  readonly nodeName: string;
}

export type AgentAction = "off" | "reboot" | "on" | "status";

function optionsOf({ device, target }: FenceTarget): Record<string, FenceOption> {
  return { ...device.options, ...target.options };
}

/** Throws OperatingError. */
export async function readOptionFile(name: string, file: string): Promise<string> {
  const refuse = (found: string, hint: string, cause?: unknown): OperatingError =>
    new OperatingError(`option ${name}: ${found}`, { code: "fence-option", hint, cause });
  try {
    const found = await stat(file);
    if (!found.isFile()) throw refuse(`a file expected at ${file}`, "Correct optionFiles of the device.");
    if (isOthers(found, 0o077)) throw refuse(`${file} may be read by others than root`, `chown root ${file}; chmod 600 ${file}`);
    if (found.size > MAX_OPTION_FILE_BYTES) {
      throw refuse(
        `at most ${MAX_OPTION_FILE_BYTES} bytes expected in ${file}, found ${found.size}`,
        "It has the value, and nothing else.",
      );
    }
    const value = (await readFile(file, "utf8")).replace(/\r?\n$/, "");
    if (value === "" || /[\n\r\0]/.test(value)) throw refuse(`one line expected in ${file}`, "It has the value, and nothing else.");
    return value;
  } catch (cause) {
    if (cause instanceof OperatingError) throw cause;
    throw refuse(`${file} cannot be read: ${(cause as Error).message}`, "It must be on every node that may fence.", cause);
  }
}

/** What the agent is given, and what of it must not be seen. Throws OperatingError for a file that cannot be used. */
async function inputOf(at: FenceTarget, metadata: AgentMetadata, action: AgentAction): Promise<{ input: string; secrets: string[] }> {
  const options = new Map(Object.entries(optionsOf(at)).map(([name, value]) => [name, String(value)]));
  const secrets = [...options].filter(([name]) => secretName.test(name)).map(([, value]) => value);
  for (const [name, file] of Object.entries(at.device.optionFiles)) {
    const value = await readOptionFile(name, file);
    options.set(name, value);
    secrets.push(value);
  }
  const plug = plugOption(metadata);
  if (plug !== null) options.set(plug, at.target.plug ?? at.nodeName);
  options.set("action", action);
  return { input: [...options].map(([name, value]) => `${name}=${value}\n`).join(""), secrets };
}

/** The last line that an agent has said, without secrets; "": it said nothing. */
export function lastWords(stderr: string, secrets: readonly string[]): string {
  const given = secrets.filter((secret) => secret !== "");
  if (given.some((secret) => secret.length < LEAST_SECRET_CHARS)) return "its words are not kept, because of a secret that is too short";
  const line = stderr
    .split("\n")
    .map((one) => one.trim())
    .findLast((one) => one !== "");
  // The longest first: one may be a part of another.
  const longest = given.toSorted((a, b) => b.length - a.length);
  return longest.reduce((words, secret) => words.replaceAll(secret, "***"), line ?? "");
}

function failureOf(
  agent: string,
  action: AgentAction,
  { status, signal, isTooLate, isStuck, stderr }: AgentEnd,
  secrets: readonly string[],
  timeoutMs: number,
): string {
  if (isStuck) return `${agent} could not be killed in its action ${action}: it waits in the kernel, as for a disk that hangs`;
  if (isTooLate) return `${agent} did not end its action ${action} within ${timeoutMs} ms, and was killed`;
  const said = lastWords(stderr, secrets);
  const how = status === null ? `was ended by ${signal}` : `ended its action ${action} with status ${status}`;
  return `${agent} ${how}${said === "" ? "" : `: ${said}`}`;
}

/** Runs its action, and makes sure of an `off`. Never rejects. */
export async function fence(
  at: FenceTarget,
  action: Exclude<AgentAction, "status">,
  shelf: MetadataShelf,
  signal: AbortSignal,
): Promise<AgentResult> {
  const { device } = at;
  const failed = (words: string, unable = false): AgentResult => ({ ok: false, unable, words });
  try {
    const { path, metadata } = await shelf.read(device.agent, signal);
    // A success without a proof would be worse than a failure: another node may see its disks better.
    const [unproved] = isSbd(device.agent) && action !== "on" ? await lookAtSbd(device, optionsOf(at), signal) : [];
    if (unproved !== undefined)
      return failed(`${device.agent} could prove nothing: ${unproved.expected} expected, found ${unproved.found}`, true);
    const run = async (each: AgentAction): Promise<{ end: AgentEnd; words: string }> => {
      const { input, secrets } = await inputOf(at, metadata, each);
      const end = await runAgent({ path, input, timeoutMs: device.timeoutMs, signal });
      return { end, words: failureOf(device.agent, each, end, secrets, device.timeoutMs) };
    };
    const acted = await run(action);
    if (acted.end.isTooLate || acted.end.status !== 0) return failed(acted.words);
    if (action !== "off" || !metadata.actions.has("status")) return { ok: true };
    const { end, words } = await run("status");
    if (end.isTooLate) return failed(words);
    if (end.status === STATUS_OFF) return { ok: true };
    const plug = at.target.plug ?? at.nodeName;
    if (end.status === STATUS_ON)
      return failed(`${device.agent} said that ${plug} is off, but its status says on: it lied, or it is another device`);
    return failed(`${device.agent} said that ${plug} is off, but cannot say its status: ${words}`);
  } catch (error) {
    if (!(error instanceof OperatingError)) throw error;
    return failed(`${error.message} (${error.hint})`, true);
  }
}
