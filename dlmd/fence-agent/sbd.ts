/**
 * What fence_sbd can prove (sbd(8)): it writes "off" into the node's slot of a small shared disk, and waits for msgwait. A node that reads its slot
 * ends itself; one that cannot read is reset by its watchdog, which sbd feeds until its last good read is too old. So the wait is the proof: it
 * must be longer than both times together, whole, and not be cut. `off` is left out by fence_sbd where the slot says "off" already, as after a try that was killed: then settleMs is the wait.
 */
import type { FenceDeviceConfig, FenceOption } from "../config/fence-config.ts";
import { runAgent } from "./run-agent.ts";

/** Reading a header; sbd waits itself for a device that is slow. */
export const SBD_DUMP_TIMEOUT_MS = 10_000;
const SBD = "/usr/sbin/sbd";

/** sbd gives one read so long (timeout_io), and feeds the watchdog until its last good one is that and a turn of its loop old. */
const SBD_IO_MS = 3000;
/** Of fence_sbd: it kills its sbd then, in seconds; 0: never. */
const POWER_TIMEOUT_S = 30;
/** They say which disks are looked at, so they are in the configuration itself. */
const inTheOpen = ["devices", "method", "sbd_path", "power_timeout"];

export interface SbdTimes {
  readonly watchdogMs: number;
  /** Between two reads of the slot. */
  readonly loopMs: number;
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
  const [watchdogMs, loopMs, msgwaitMs] = [seconds("watchdog") * 1000, seconds("loop") * 1000, seconds("msgwait") * 1000];
  return [watchdogMs, loopMs, msgwaitMs].some(Number.isNaN) ? null : { watchdogMs, loopMs, msgwaitMs };
}

function timesMistakes(path: string, { watchdogMs, loopMs, msgwaitMs }: SbdTimes): SbdMistake[] {
  const leastMs = watchdogMs + loopMs + SBD_IO_MS;
  if (watchdogMs > 0 && msgwaitMs > leastMs) return [];
  const expected = `msgwait longer than ${leastMs / 1000} s on ${path}, when the watchdog of a node that cannot read has reset it: \`sbd -d ${path} -1 SECONDS -4 SECONDS create\``;
  return [{ expected, found: `msgwait ${msgwaitMs / 1000} s, watchdog ${watchdogMs / 1000} s` }];
}

/** sbd of the node may go by any of them. */
function areEqual(all: readonly SbdTimes[]): boolean {
  return new Set(all.map(({ watchdogMs, loopMs, msgwaitMs }) => `${watchdogMs} ${loopMs} ${msgwaitMs}`)).size <= 1;
}

/** Why its success would not be a proof; none: it is one. `known`: what each of its disks says. */
export function sbdMistakes(
  { action, timeoutMs, settleMs, optionFiles }: FenceDeviceConfig,
  { method, power_timeout }: Readonly<Record<string, FenceOption>>,
  known: readonly { readonly path: string; readonly times: SbdTimes | null }[],
): SbdMistake[] {
  const mistakes: SbdMistake[] = known.flatMap(({ path, times }) =>
    times === null
      ? [{ expected: `a disk that \`sbd -d ${path} create\` has made`, found: `${path}, which names no msgwait` }]
      : timesMistakes(path, times),
  );
  const wrong = (expected: string, found: string): void => void mistakes.push({ expected, found });
  for (const name of inTheOpen.filter((one) => one in optionFiles)) wrong(`${name} among the options`, `it in optionFiles`);
  if (known.length === 0) wrong("the option devices, which names its disks", "none");
  if (!areEqual(known.flatMap(({ times }) => times ?? []))) wrong("the same times on all of its disks", "other ones");
  const msgwaitMs = Math.max(0, ...known.map(({ times }) => times?.msgwaitMs ?? 0));
  if (timeoutMs <= msgwaitMs) wrong(`timeoutMs of more than ${msgwaitMs}, for which fence_sbd waits (msgwait)`, `${timeoutMs}`);
  const powerTimeoutS = Number(power_timeout ?? POWER_TIMEOUT_S);
  if (!(powerTimeoutS === 0 || powerTimeoutS * 1000 > msgwaitMs)) {
    wrong(`power_timeout of more than ${msgwaitMs / 1000} (msgwait), or 0: fence_sbd kills its sbd then`, `${powerTimeoutS} s`);
  }
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
  return sbdMistakes(device, options, known);
}
