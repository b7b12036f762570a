/**
 * `coverlay serve`: the process behind one mount, as `coverlay mount` starts it. Not for people; it can be run by hand to see it work.
 */
import { writeFileSync } from "node:fs";
import { fstatSync, statSync } from "node:fs";
import { getHeapStatistics, setFlagsFromString } from "node:v8";
import type { CommandModule } from "yargs";
import { errnoName } from "../../dlmd/base/errno.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import { EXIT } from "../../dlmd/base/exit-status.ts";
import { createPinoLog, logLevels, type LogLevel } from "../../dlmd/base/pino-log.ts";
import type { Log } from "../../dlmd/base/log.ts";
import { mountTable } from "../../dlmd/base/mount-table.ts";
import { raisePriority } from "../../dlmd/base/priority.ts";
import { assertLittleEndian } from "../fuse/abi.ts";
import { nativeAddon } from "../../native/index.ts";
import { largeBuffers } from "../lower/large-buffers.ts";
import { raiseDescriptors } from "../lower/local/open-handles.ts";
import type { Holder } from "../restart/holder.ts";
import { REHEARSED, type Rehearsal, TakeOver } from "../restart/take.ts";
import { BAST_LIMIT_MS } from "../serve/answer-limit.ts";
import { CpuLatency } from "../serve/cpu-latency.ts";
import { type CrashGuard, tellKeeper } from "../serve/crash-guard.ts";
import { MountProcess } from "../serve/mount-process.ts";
import { createHolder, endOrPause, holdingAnswers, holdToEnd } from "../serve/holding.ts";
import { serveStatus, Shown, type StatusServer } from "../serve/status-server.ts";
import { runningSystem } from "../session/system.ts";
import { requireOwnerBlock, type StoredBit } from "../volume/bit.ts";
import { probeDirectory } from "../volume/bit-writer.ts";
import { type LowerSource, noBit } from "../volume/lower-mount.ts";
import { requireNotMounted } from "../volume/mount-checks.ts";
import { claimMount } from "../volume/mount-claim.ts";
import { parseMountOptions } from "../volume/mount-options.ts";
import { removeMountRecord, writeMountRecord } from "../volume/mount-record.ts";
import { isReadOnlyDevice } from "../volume/device.ts";
import { readOwnerBlock } from "../volume/direct-block.ts";
import { DiskSteps } from "../volume/disk-steps.ts";
import type { OwnerBlock } from "../volume/owner-block.ts";
import { probeDevice } from "../volume/probe.ts";
import { heapGrowthPercent } from "../volume/start-overlay.ts";
import { READY_FD, ReadyPipe } from "../volume/ready-pipe.ts";
import { askDlmd, dlmdSocketPath } from "../query/dlmd-query.ts";

interface ServeArguments {
  readonly device: string;
  readonly mountpoint: string;
  readonly options: string;
  readonly runDir: string;
  readonly logLevel: LogLevel;
  readonly metadataCalls: "inline" | "pool";
  readonly bastLimitMs: number;
  readonly takeOver: boolean;
  readonly dlmdAway: boolean;
  readonly rehearseOwner: boolean;
  readonly rehearse: boolean;
  readonly afterCrash: boolean;
}

/** Others wait for this process as they would for a kernel thread. */
const PRIORITY = -10;
/** What malloc(3) has free and may keep; how often it is looked at (0.2 ms; giving 40 MB back takes 4). */
const FREE_BYTES_MAX: number = 8 * 1024 * 1024;
const TRIM_INTERVAL_MS = 5000;

/** Only tests set the variable: it passes through mount(8), where an option of `serve` does not. */
function bastLimitMs(): number {
  return Number(process.env["COVERLAY_BAST_LIMIT_MS"] ?? BAST_LIMIT_MS);
}

export const serveCommand: CommandModule<object, ServeArguments> = {
  command: "serve",
  describe: false,
  builder: {
    device: { type: "string", demandOption: true, describe: "the volume's device, or directory" },
    mountpoint: { type: "string", demandOption: true },
    options: { type: "string", default: "", describe: "as after mount -o" },
    "run-dir": { type: "string", demandOption: true },
    "log-level": { choices: logLevels, default: "info" as const },
    "metadata-calls": { choices: ["inline", "pool"] as const, default: "inline" as const, describe: "where the owner changes names" },
    "bast-limit-ms": {
      type: "number",
      default: bastLimitMs(),
      describe: "a lock not given up after so long: this mount hangs (for tests)",
    },
    rehearse: { type: "boolean", default: false, describe: "with --take-over: it ends when it has reached all that it needs" },
    "rehearse-owner": { type: "boolean", default: false, describe: "the same, for the owner of the volume: it does not wait for one" },
    "after-crash": {
      type: "boolean",
      default: false,
      describe: "goes on with the mount of a process that has crashed (its keeper says so)",
    },
    "dlmd-away": { type: "boolean", default: false, describe: "with --take-over: that process says when dlmd serves" },
    "take-over": { type: "boolean", default: false, describe: "goes on with the mount of the process that starts this one" },
  },
  handler: async (args) => serve(args),
};

interface Lower {
  readonly bit: StoredBit;
  readonly directory: boolean;
  readonly reachesLower: boolean;
}

/** A volume that is a directory of another node has the name of the volume: a word without a slash, whatever lies in the working directory. */
async function findLower(source: string, runDir: string): Promise<Lower> {
  if (source.includes("/")) return { ...readBit(source), reachesLower: true };
  const { info } = await askDlmd(runDir, null);
  const volume = info.volumes.find(({ name, uuid }) => name === source || uuid === source);
  if (volume?.lower !== "directory") {
    throw new OperatingError(`${source} is not a directory volume of cluster ${info.clusterName}`, {
      code: "unknown-volume",
      hint: "Name the device with its path (/dev/...).",
      exitStatus: EXIT.MOUNT,
    });
  }
  const bit = { cluster: info.clusterName, volume: volume.name, uuid: volume.uuid, ownerBlock: null, mmp: false };
  return { bit, directory: true, reachesLower: false };
}

function readBit(source: string): { bit: StoredBit; directory: boolean } {
  const directory = statSync(source).isDirectory();
  const state = directory ? probeDirectory(source) : probeDevice(source).bit;
  if (state.kind === "bad") throw state.error;
  if (state.kind === "none") throw noBit(source);
  return { bit: state.bit, directory };
}

/** The descriptor exists only if `coverlay mount` started us. */
function readyPipe(): ReadyPipe {
  try {
    return new ReadyPipe(fstatSync(READY_FD).isFIFO() || fstatSync(READY_FD).isSocket() ? READY_FD : null);
  } catch {
    return new ReadyPipe(null);
  }
}

/** Large buffers come and go, small objects that were made meanwhile stay, and malloc(3) keeps what is free below them: after mixed use some 25 MB. */
function trimRegularly(): void {
  const native = nativeAddon();
  let growth = heapGrowthPercent(0);
  const trim = (): void => {
    largeBuffers.trim();
    native.trimMemory(FREE_BYTES_MAX);
    const wanted = heapGrowthPercent(getHeapStatistics().used_heap_size);
    if (wanted === growth) return;
    growth = wanted;
    setFlagsFromString(`--heap-growing-percent=${wanted}`);
  };
  setInterval(trim, TRIM_INTERVAL_MS).unref();
}

/** What a process that others wait for owes them (hazard F20); refused where the privilege is missing. */
function prepareProcess(log: Log): void {
  assertLittleEndian();
  const native = nativeAddon();
  const results = {
    descriptors: raiseDescriptors(native, log),
    fs: native.unshareFs(),
    ioFlusher: native.setIoFlusher(),
  };
  try {
    writeFileSync("/proc/self/oom_score_adj", "-1000");
  } catch (error) {
    log.info({ error: String(error) }, "oom_score_adj could not be lowered: under memory pressure this mount may be killed");
  }
  raisePriority(PRIORITY, log);
  if (results.fs < 0)
    throw new OperatingError(`unshare(CLONE_FS) failed: ${errnoName(-results.fs)}`, { code: "no-permission", hint: "Run as root." });
  log.debug(results, "process prepared");
}

function isUnreleased(failure: Error | null): failure is OperatingError {
  return failure instanceof OperatingError && (failure.code === "not-released" || failure.code === "let-go");
}

/** For whoever unmounts this mount. `what`: he will not see it, if it cannot be written. */
function tellUnmounter(device: string, record: Parameters<typeof writeMountRecord>[1], what: string, log: Log): void {
  try {
    writeMountRecord(device, record);
  } catch (error) {
    log.warn({ error: String(error) }, `whoever unmounts this mount will not see ${what}`);
  }
}

function isMountThere(device: string): boolean {
  return mountTable().some((entry) => entry.device === device && entry.type === "fuse.clustered");
}

function rehearsalOf({ rehearse, rehearseOwner }: ServeArguments): Rehearsal {
  if (rehearseOwner) return "joined";
  return rehearse ? "whole" : "no";
}

async function serve(args: ServeArguments): Promise<void> {
  const pipe = args.afterCrash ? new ReadyPipe(null) : readyPipe();
  const log = createPinoLog(args.logLevel, null);
  let statusServer: StatusServer | null = null;
  let takeOver: TakeOver | null = null;
  let crash: CrashGuard | null = null;
  let holder: Holder | null = null;
  /** To end. */
  let told = false;
  /** Another process writes what is shown of this mount. */
  let hasLeft = false;
  /** It answers, and nobody has been told so. */
  let isThere: MountProcess | null = null;
  try {
    prepareProcess(log);
    trimRegularly();
    let failMount: (error: Error) => void = () => undefined;
    takeOver = args.takeOver ? new TakeOver((error) => failMount(error), rehearsalOf(args)) : null;
    if (args.dlmdAway) await takeOver?.dlmd();
    const { bit, directory, reachesLower } = await findLower(args.device, args.runDir);
    const lower: LowerSource = { kind: directory ? "directory" : "device", path: args.device };
    const mountOptions = parseMountOptions(args.options, true);
    /** For whoever unmounts it (kept-for-others.ts). */
    let noteKept = (): void => undefined;
    let leaveRecord = (): void => undefined;
    const mount: MountProcess = new MountProcess({
      native: nativeAddon(),
      log,
      dlmdSocket: dlmdSocketPath(args.runDir),
      runDir: args.runDir,
      bit,
      lower,
      reachesLower,
      mountpoint: args.mountpoint,
      mountFlags: mountOptions.flags,
      // -o ro is this node's own affair; the lower is read-only for all nodes, and so only where the device is.
      readOnly: mountOptions.readOnly && !directory && isReadOnlyDevice(args.device),
      metadataCalls: args.metadataCalls,
      bastLimitMs: args.bastLimitMs,
      localFlocks: mountOptions.localFlocks,
      transport: mountOptions.transport,
      cpuLatency: new CpuLatency({
        limits: !mountOptions.deepIdle,
        log,
        nowMs: () => performance.now(),
        every: runningSystem.every,
      }),
      ...(takeOver === null ? {} : { takeOver }),
      afterCrash: args.afterCrash,
      leaveStatus: () => {
        statusServer?.close(true);
        leaveRecord();
        hasLeft = true;
      },
      changed: () => {
        if (hasLeft) return;
        noteKept();
        if (statusServer !== null) statusServer.update();
        else if (mount.answers.role === "waiting") pipe.waiting(mount.answers.why);
      },
    });
    crash = mount.crash;
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.on(signal, () => {
        told = true;
        (holder ?? mount).terminate();
      });
    }
    process.on("SIGHUP", () => undefined);
    process.on("uncaughtException", (error) => mount.fail(error));
    process.on("unhandledRejection", (reason) => mount.fail(reason instanceof Error ? reason : new Error(String(reason))));
    failMount = (error) => mount.fail(error);
    const isNew = !args.takeOver && !args.afterCrash;
    const check = (): void => requireNotMounted(args.device, reachesLower ? lower : null, args.mountpoint, args.runDir);
    const claim = isNew ? claimMount(nativeAddon(), { mountPoint: args.mountpoint, runDir: args.runDir, volume: bit.uuid }, check) : null;
    await mount.start();
    isThere = mount;
    const connection = mount.connection ?? 0;
    const device = `0:${connection}`;
    statusServer = await serveStatus(args.runDir, connection, mount.answers, log, !isNew);
    // After its file: a mount whose record has no file beside it is told of as one that cannot be asked.
    const record = {
      source: args.device,
      mountPoint: args.mountpoint,
      runDir: args.runDir,
      localFlocks: mountOptions.localFlocks,
      deepIdle: mountOptions.deepIdle,
    };
    let recorded: Parameters<typeof writeMountRecord>[1] = record;
    const write = (): void => writeMountRecord(device, recorded);
    if (isNew) write();
    const unseen = (error: unknown): void =>
      log.warn({ error: String(error) }, "whoever unmounts this mount does not see yet what it is, nor for whom it keeps something");
    const shown = new Shown(write, unseen);
    leaveRecord = () => shown.end();
    if (!isNew) await shown.show();
    claim?.release();
    let noted = 0;
    noteKept = () => {
      const { keeps } = mount.answers;
      if (keeps === noted) return;
      noted = keeps;
      recorded = { ...record, keeps };
      void shown.show();
    };
    noteKept();
    isThere = null;
    pipe.ready();
    takeOver?.serving();
    crash.serving();
    const failure = await endOrPause(mount.ended, mount.pauses, log);
    // The holder of a pause, or another process, has the mount from now on.
    crash.end();
    if (mount.paused !== null) {
      const { runDir, mountpoint } = args;
      const readBlock = (): Promise<OwnerBlock> =>
        new DiskSteps(args.device).ask("reading the owner's block", () =>
          readOwnerBlock(args.device, requireOwnerBlock(bit, args.device), bit.uuid),
        );
      holder = createHolder(mount.paused, { native: nativeAddon(), runDir, mountpoint, log, readOwnerBlock: readBlock });
      if (told) holder.terminate();
      const held = await serveStatus(runDir, connection, holdingAnswers(mount.answers.summary(), holder), log, true);
      const shownPaused = new Shown(() => writeMountRecord(device, { ...record, paused: true }), unseen);
      await shownPaused.show();
      mount.holds();
      const end = await holdToEnd(holder, mount.paused, { runDir, log });
      shownPaused.end();
      log.info(end, "this process keeps the mount no more");
      if (end.kind === "given") process.exit(EXIT.OK);
      const isLost = end.kind === "lost" && isMountThere(device);
      held.close(isLost);
      if (!isLost) removeMountRecord(device);
      // The last descriptor of /dev/fuse goes with this process: calls that wait end with ENOTCONN.
      process.exit(isLost ? EXIT.FATAL : EXIT.OK);
    }
    shown.end();
    // What is shown of the mount is of the process that goes on with it.
    if (mount.isGiven) process.exit(EXIT.OK);
    // A mount that was taken out stays in the tree until someone unmounts it.
    const isLeft = failure !== null && isMountThere(device);
    statusServer.close(isLeft);
    if (isUnreleased(failure)) {
      const unreleased = { ...record, unreleased: failure.message };
      tellUnmounter(device, unreleased, "that its disk was not released as it should be", log);
    } else if (isLeft) tellUnmounter(device, { ...record, ended: true }, "that its disk was released", log);
    else removeMountRecord(device);
    if (failure !== null) log.error({ error: failure.message }, "ended");
    else log.info({}, "ended");
    // Whatever is still open belongs to a mount that is gone.
    process.exit(failure === null ? EXIT.OK : EXIT.FATAL);
  } catch (error) {
    if (error instanceof OperatingError && error.code === REHEARSED) process.exit(EXIT.OK);
    log.error(
      { error: error instanceof Error ? error.message : String(error), stack: (error as Error).stack },
      "the mount did not come to be",
    );
    // Who is told that it did not come to be finds nothing of it, and its keeper starts no other process.
    const started = args.afterCrash || takeOver !== null ? null : isThere;
    if (started !== null) {
      started.crash.end();
      started.terminate();
      await started.ended;
    }
    statusServer?.close(started === null);
    pipe.fail(error);
    if (args.afterCrash && crash === null) tellKeeper(error);
    else crash?.failed(error);
    await takeOver?.failed(error instanceof Error ? error : new Error(String(error)));
    process.exit(EXIT.MOUNT);
  }
}
