/**
 * What fence_sbd can prove (sbd(8)): it writes "off" into the node's slot of a small shared disk, and waits for msgwait. A node that reads its slot
 * ends itself; one that cannot read is reset by its watchdog. So the wait is the proof: it must be longer than the watchdog's time, whole, and
 * not be cut. `off` is left out by fence_sbd where the slot says "off" already, as after a try that was killed: then settleMs is the wait.
 */
import type { FenceDeviceConfig, FenceOption } from "../config/fence-config.ts";
import { runAgent } from "./run-agent.ts";

/** Reading a header; sbd waits itself for a device that is slow. */
export const SBD_DUMP_TIMEOUT_MS = 10_000;
const SBD = "/usr/sbin/sbd";

export interface SbdTimes {
  readonly watchdogMs: number;
  readonly msgwaitMs: number;
}

export interface SbdMistake {
  readonly expected: string;
  readonly found: string;
}

export function isSbd(agent: string): boolean {
  return agent.slice(agent.lastIndexOf("/") + 1) === "fence_sbd";
}

/** Of `sbd -d DEVICE dump`; null: it names none. */
export function sbdTimes(dump: string): SbdTimes | null {
  const seconds = (name: string): number =>
    Number(new RegExp(`^Timeout \\(${name}\\)\\s*:\\s*(\\d+)\\s*$`, "m").exec(dump)?.[1] ?? Number.NaN);
  const [watchdogMs, msgwaitMs] = [seconds("watchdog") * 1000, seconds("msgwait") * 1000];
  return Number.isNaN(watchdogMs) || Number.isNaN(msgwaitMs) ? null : { watchdogMs, msgwaitMs };
}

function timesMistakes(path: string, { watchdogMs, msgwaitMs }: SbdTimes): SbdMistake[] {
  if (watchdogMs > 0 && msgwaitMs > watchdogMs) return [];
  const expected = `msgwait longer than the time of the watchdog on ${path}; twice that is usual: \`sbd -d ${path} -1 SECONDS -4 SECONDS create\``;
  return [{ expected, found: `msgwait ${msgwaitMs / 1000} s, watchdog ${watchdogMs / 1000} s` }];
}

/** Why its success would not be a proof; none: it is one. `known`: what each of its disks says. */
export function sbdMistakes(
  { action, timeoutMs, settleMs }: FenceDeviceConfig,
  method: FenceOption | undefined,
  known: readonly { readonly path: string; readonly times: SbdTimes | null }[],
): SbdMistake[] {
  const mistakes: SbdMistake[] = known.flatMap(({ path, times }) =>
    times === null
      ? [{ expected: `a disk that \`sbd -d ${path} create\` has made`, found: `${path}, which names no msgwait` }]
      : timesMistakes(path, times),
  );
  const wrong = (expected: string, found: string): void => void mistakes.push({ expected, found });
  const msgwaitMs = Math.max(0, ...known.map(({ times }) => times?.msgwaitMs ?? 0));
  if (timeoutMs <= msgwaitMs) wrong(`timeoutMs of more than ${msgwaitMs}, for which fence_sbd waits (msgwait)`, `${timeoutMs}`);
  if (action === "off" && settleMs < msgwaitMs) {
    wrong(
      `settleMs of ${msgwaitMs} (msgwait) at least, or action: reboot: fence_sbd waits for no node whose slot says off already`,
      `${settleMs}`,
    );
  }
  if (method !== undefined && method !== "cycle") wrong("method: cycle, or none: each try has to write to the slot", `${method}`);
  return mistakes;
}

async function dump(sbd: string, path: string, signal: AbortSignal): Promise<SbdTimes | null> {
  const { status, stdout } = await runAgent({ path: sbd, words: ["-d", path, "dump"], input: "", timeoutMs: SBD_DUMP_TIMEOUT_MS, signal });
  return status === 0 ? sbdTimes(stdout) : null;
}

/** Reads the disks. Rejects with OperatingError if sbd cannot be started. */
export async function lookAtSbd(
  device: FenceDeviceConfig,
  options: Readonly<Record<string, FenceOption>>,
  signal: AbortSignal,
): Promise<SbdMistake[]> {
  const paths = String(options.devices ?? "")
    .split(",")
    .map((path) => path.trim())
    .filter((path) => path !== "");
  const sbd = String(options.sbd_path ?? SBD);
  const known = await Promise.all(paths.map(async (path) => ({ path, times: await dump(sbd, path, signal) })));
  return sbdMistakes(device, options.method, known);
}
