/** `coverlay mount`: what /sbin/mount.clustered runs, with the arguments of mount(8)'s helpers. */
import type { CommandModule } from "yargs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { canonicalPath, canonicalPlace, canonicalSource } from "../volume/canonical-path.ts";
import { checkMount } from "../volume/mount-checks.ts";
import { knownOptions, parseMountOptions } from "../volume/mount-options.ts";
import { mountInBackground, startedBySystemd } from "../volume/mount-background.ts";
import { claimWaiting } from "../volume/mount-waiter.ts";
import { MIN_TRY_MS, type MountTry, mountInterruptibly } from "../volume/mount-interrupt.ts";
import { passes } from "../volume/mount-wait.ts";
import { remount } from "../volume/remount.ts";
import { coverlayProgram, overlayLogFile, startOverlay } from "../volume/start-overlay.ts";
import { askDlmd, defaultRunDir } from "../query/dlmd-query.ts";
import { unlessAborted } from "./interrupt.ts";
import { print, printJson, printProgress, runCommand, usageError } from "./output.ts";

export interface MountRequest {
  readonly device: string;
  readonly directory: string;
  readonly options: string;
  /** -s */
  readonly sloppy: boolean;
  /** -f: everything but the mount itself. */
  readonly fake: boolean;
  /** It is the process of bg that waits. */
  readonly waiter?: boolean;
  readonly tell: (line: string) => void;
  /** What is said without -v, too. */
  readonly note?: (line: string) => void;
}

/** For programs. `waiting`: that process waits in the background. */
type MountOutcome =
  | { readonly mountpoint: string; readonly state: "mounted" | "remounted" | "checked" }
  | { readonly mountpoint: string; readonly state: "waiting"; readonly pid: number; readonly logFile: string };

/** `may`: what only root may do, "mount". Exit status 1, that of mount(8) for "incorrect invocation or permissions". */
export function requireRoot(may: string): void {
  if (process.geteuid?.() === 0) return;
  throw new OperatingError(`only root may ${may}`, { code: "permission", hint: "Use sudo.", exitStatus: 1 });
}

/**
 * Checks, starts the overlay, and returns when the mount answers. With -o wait, timeout= or retry= it waits for what other nodes must do first; with bg
 * a process in the background does. Throws OperatingError with exit status 1, 8 or 32.
 */
export async function mountClustered(asked: MountRequest): Promise<MountOutcome> {
  const options = parseMountOptions(asked.options, asked.sloppy);
  requireRoot("mount");
  const mountPoint = canonicalPlace(asked.directory);
  if (options.remount) {
    if (!asked.fake) remount(mountPoint, asked.options, asked.sloppy);
    asked.tell(`${mountPoint}: remounted`);
    return { mountpoint: mountPoint, state: asked.fake ? "checked" : "remounted" };
  }
  const request = { ...asked, device: canonicalSource(asked.device) };
  const runDir = canonicalPath(options.runDir ?? defaultRunDir());
  const { waitMs, localFlocks } = options;
  const place = { mountPoint, runDir, localFlocks };
  const mount: MountTry = (signal, waiting) => mountOnce(request, { ...place, signal, waiting });
  const done: MountOutcome = { mountpoint: mountPoint, state: request.fake ? "checked" : "mounted" };
  if (waitMs === null) {
    await mountInterruptibly(mount, Infinity, "one");
    return done;
  }
  if (request.waiter) {
    await waitInBackground(request, place, waitMs);
    return done;
  }
  const isServices = options.background && startedBySystemd(process.env, process.ppid);
  if (isServices) printProgress("coverlay: bg: systemd waits for its mounts itself: this one goes on in the foreground");
  if (!options.background || isServices) {
    await mountInterruptibly(mount, waitMs);
    return done;
  }
  try {
    await mountInterruptibly(mount, MIN_TRY_MS, "one");
    return done;
  } catch (error) {
    if (request.fake || !(passes(error) || isOutOfTime(error))) throw error;
    const { device, options: words, sloppy } = request;
    const { pid, logFile } = await mountInBackground({ device, mountPoint, options: words, runDir, sloppy }, waitMs);
    printProgress(`coverlay: ${error.message}\n  ${error.hint}`);
    (request.note ?? print)(`${mountPoint}: process ${pid} goes on in the background; it says in ${logFile} for what it waits`);
    return { mountpoint: mountPoint, state: "waiting", pid, logFile };
  }
}

async function waitInBackground(
  request: MountRequest,
  place: Omit<MountPlace, "signal" | "started" | "waiting">,
  waitMs: number,
): Promise<void> {
  const { mountPoint, runDir } = place;
  const claim = claimWaiting({ source: request.device, mountPoint, runDir, logFile: overlayLogFile({ mountPoint, runDir }) });
  const mount: MountTry = async (signal, waiting) => {
    await claim.endLeftOverlay();
    await mountOnce(request, { ...place, signal, waiting, started: (pid) => claim.overlayStarted(pid) });
  };
  await mountInterruptibly(mount, waitMs).finally(() => claim.end());
}

/** Of the first try of bg. */
function isOutOfTime(error: unknown): error is OperatingError {
  return error instanceof OperatingError && error.code === "mount-timeout";
}

interface MountPlace {
  readonly mountPoint: string;
  readonly runDir: string;
  readonly localFlocks: boolean;
  readonly signal: AbortSignal;
  /** Hears the pid of the overlay. */
  readonly started?: (pid: number) => void;
  /** Hears for what the overlay waits. */
  readonly waiting: (why: string) => void;
}

async function mountOnce(request: MountRequest, place: MountPlace): Promise<void> {
  const { mountPoint, runDir, localFlocks, signal, started, waiting } = place;
  const checked = checkMount(request.device, mountPoint, runDir, (dir) => askDlmd(dir, null));
  const plan = await unlessAborted(checked, signal);
  request.tell(`${request.device}: volume ${plan.volume.name} of cluster ${plan.info.clusterName}, uuid ${plan.volume.uuid}`);
  if (plan.source === null && plan.volume.lower === "device") throw notReached(plan.volume.name);
  if (request.fake) return;
  const overlay = { device: request.device, mountPoint, options: request.options, runDir };
  const pid = await startOverlay(overlay, coverlayProgram(), signal, { waiting, ...(started === undefined ? {} : { started }) });
  if (localFlocks) (request.note ?? print)(localFlocksWords(mountPoint));
  request.tell(`${mountPoint}: mounted, served by process ${pid}`);
}

function notReached(volume: string): OperatingError {
  return new OperatingError(`volume ${volume} is known, but its device is not named`, {
    code: "device-missing",
    hint: "Name the device with its path: a volume with a device is mounted only on nodes that reach it.",
    exitStatus: 32,
  });
}

/** Said without -v, too: programs on two nodes may hold the same lock. */
function localFlocksWords(mountPoint: string): string {
  return `${mountPoint}: file locks are local to this node (localflocks): other nodes neither see nor obey them`;
}

interface MountArguments {
  readonly device: string;
  readonly directory: string | undefined;
  readonly options: readonly string[];
  readonly sloppy: boolean;
  readonly fake: boolean;
  readonly waiter: boolean;
  readonly verbose: boolean;
  readonly json: boolean;
}

const details = `Options of -o: ${knownOptions.join(", ")}, x-*.
  localflocks   file locks (fcntl, flock) stay in this node: other nodes neither see nor obey them
  deepidle      idle processors may sleep deeply while programs work in the mount: slower, for less power (docs/tuning.md)
  transport=fuse-native  libfuse 2 serves the mount, for root alone; with localflocks (overlay/session/fuse-native/README.md)
  wait          waits, and says for what, where dlmd or other nodes must be started first; else the mount is refused
  timeout=N     waits for N seconds at most, until the mount is there; then it is refused
  retry=N       the same in minutes, as for NFS; of wait, timeout and retry the last one counts
  bg            tries once; then a process in the background waits [for 10000 minutes], and this command has succeeded
  fg            takes bg back
  runDir=PATH   where the dlmd of this node has its socket [/run/coverlay]
Other ways to the same: mount -t clustered DEVICE DIRECTORY (after \`coverlay install-mount-helper\`); in fstab:
  /dev/sdb1  /shared  clustered  rw,_netdev,wait,nofail,x-systemd.mount-timeout=0  0  0
Exit status: 0 mounted, or in the background; 1 wrong command line, or not root; 8 interrupted; 32 refused, or out of time.`;

export const mountCommand: CommandModule<object, MountArguments> = {
  command: "mount <device> [directory]",
  describe: "mount a volume of the cluster",
  builder: (yargs) =>
    yargs
      .positional("device", { type: "string", demandOption: true, describe: "the device, or the directory of a `directory` volume" })
      .positional("directory", { type: "string", describe: "the mount point" })
      .option("options", {
        alias: "o",
        type: "string",
        array: true,
        nargs: 1,
        default: [] as string[],
        describe: "mount options, separated by commas",
      })
      .option("sloppy", { alias: "s", type: "boolean", default: false, describe: "ignore unknown mount options" })
      .option("fake", { alias: "f", type: "boolean", default: false, describe: "do everything but the mount itself" })
      .option("waiter", { type: "boolean", default: false, hidden: true, describe: "for mount-waiter.ts: the process of bg that waits" })
      .option("no-mtab", { alias: "n", type: "boolean", default: false, describe: "for mount(8): nothing to us" })
      .option("mtab", { type: "boolean", hidden: true, describe: "what yargs makes of --no-mtab" })
      .option("type", { alias: "t", type: "string", describe: "for mount(8): nothing to us" })
      .option("verbose", { alias: "v", type: "boolean", default: false, describe: "say what is done" })
      .option("json", { type: "boolean", default: false, describe: "print JSON" })
      .example("$0 mount /dev/sdb1 /shared", "on every node")
      .example("$0 mount /shared -o remount,ro", "read-only from now on, on this node")
      .epilogue(details),
  handler: ({ device, directory, options, sloppy, fake, waiter, verbose, json }) =>
    runCommand(json, async () => {
      const text = options.join(",");
      const isRemount = text.split(",").includes("remount");
      if (directory === undefined && !isRemount) throw usageError("a mount point is needed", "coverlay mount DEVICE DIRECTORY");
      const silent = (): void => {};
      const says = { tell: verbose && !json ? print : silent, note: json ? silent : print };
      const outcome = await mountClustered({ device, directory: directory ?? device, options: text, sloppy, fake, waiter, ...says });
      if (json) printJson({ device, ...outcome });
    }),
};
