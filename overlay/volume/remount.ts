/** mount -o remount, and umount, of a clustered mount (mount(2), umount2(2)). */
import path from "node:path";
import { errnoName } from "../../dlmd/base/errno.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import { MNT_DETACH, nativeAddon } from "../../native/index.ts";
import { canonicalPath } from "./canonical-path.ts";
import { MountFlag, flagsOfMount, parseMountOptions } from "./mount-options.ts";
import { holderWords, namespaceHolders } from "./mount-holders.ts";
import { isServing, type MountRecord, readMountRecord, takeUnreleased, waitForExit } from "./mount-record.ts";
import { type MountEntry, mountAt, mountTable } from "../../dlmd/base/mount-table.ts";

const MNT_FORCE = 1;

/** An owner writes back everything that is dirty, and hands over to the others. What takes longer is an error that says what it waits for. */
export const RELEASE_LIMIT_MS = 300_000;
/** An overlay that has not ended by then is perhaps not its own master: other mount namespaces are looked at. */
export const HOLDERS_AFTER_MS = 1000;

/** The mount at that path, found without touching it: its server may hang. Throws "not-mounted" or "not-clustered". */
export function clusteredMountAt(directory: string): MountEntry {
  const absolute = path.resolve(directory);
  const entry = mountAt(absolute) ?? mountAt(canonicalPath(absolute));
  if (entry === null) {
    throw new OperatingError(`nothing is mounted at ${absolute}`, {
      code: "not-mounted",
      hint: "findmnt -t fuse.clustered lists the mounts.",
      exitStatus: 32,
    });
  }
  if (entry.type === "fuse.clustered") return entry;
  throw new OperatingError(`${absolute} is a mount of type ${entry.type}; fuse.clustered is expected`, {
    code: "not-clustered",
    hint: "Use mount(8) and umount(8) for it.",
    exitStatus: 32,
  });
}

/** Changes the flags of a mount: those that it has, and what `options` says. */
export function remount(directory: string, options: string, sloppy: boolean): void {
  const entry = clusteredMountAt(directory);
  const { flags, localFlocks, deepIdle } = parseMountOptions(options, sloppy, flagsOfMount(entry.options));
  const record = readMountRecord(entry.device);
  if (localFlocks && record?.localFlocks !== true) throw mountedWithout("localflocks", entry.mountPoint);
  if (deepIdle && record?.deepIdle !== true) throw mountedWithout("deepidle", entry.mountPoint);
  const result = nativeAddon().mount(entry.source, entry.mountPoint, "fuse", flags | MountFlag.REMOUNT, "");
  if (result >= 0) return;
  const code = errnoName(-result);
  throw new OperatingError(`remounting ${entry.mountPoint} failed: ${code}`, {
    code: "remount-failed",
    hint: code === "EBUSY" ? "Files are open for writing: fuser -vm shows by whom." : "See dmesg.",
    exitStatus: 32,
  });
}

/** The kernel asks once, when it is mounted, where file locks are kept; and the process of a mount is told its options once. */
function mountedWithout(option: string, mountPoint: string): OperatingError {
  return new OperatingError(`${mountPoint} is mounted without ${option}, and a remount can not change that`, {
    code: "remount-failed",
    hint: `Unmount it, and mount it with ${option}.`,
    exitStatus: 32,
  });
}

export interface UnmountOptions {
  readonly lazy: boolean;
  readonly force: boolean;
  /** Hears what the release waits for, in words. */
  readonly tell: (line: string) => void;
  readonly releaseLimitMs?: number;
  readonly holdersAfterMs?: number;
  readonly recordDir?: string;
  /** Has the wait for the release, and may end it: the release goes on. */
  readonly following?: (wait: Promise<void>) => Promise<void>;
}

/**
 * Takes the mount away and, unless lazy, waits until its overlay has ended: then the lower is released. If it has not after
 * HOLDERS_AFTER_MS, the processes are named that keep it mounted in other namespaces. Gives a note for the user, or null.
 * Throws OperatingError "umount-failed", "still-releasing" or "not-released".
 */
export async function unmount(directory: string, options: UnmountOptions): Promise<string | null> {
  const entry = clusteredMountAt(directory);
  const record = readMountRecord(entry.device);
  const wasServing = record !== null && isServing(record);
  const result = nativeAddon().umount(entry.mountPoint, (options.force ? MNT_FORCE : 0) | (options.lazy ? MNT_DETACH : 0));
  if (result < 0) throw unmountFailed(entry.mountPoint, errnoName(-result));
  if (options.lazy) return null;
  const left = mountTable().filter((other) => other.device === entry.device);
  if (left.length > 0) return `it is still mounted at ${left.map((other) => other.mountPoint).join(", ")}`;
  if (record === null) return "which process served it is not known: it may still be releasing the volume";
  const released = waitForRelease(entry, record, { ...options, wasServing });
  await (options.following === undefined ? released : options.following(released));
  return null;
}

interface ReleaseOptions extends Omit<UnmountOptions, "lazy" | "force" | "following"> {
  /** Its process ran when the mount was taken away; without it: it runs now. */
  readonly wasServing?: boolean;
}

/** Of a mount that is in our mount table no more. Throws OperatingError "still-releasing", or "not-released": its overlay has ended, and something is wrong with its disk. */
export async function waitForRelease(
  mount: Pick<MountEntry, "mountPoint" | "device">,
  record: MountRecord,
  { tell, releaseLimitMs = RELEASE_LIMIT_MS, holdersAfterMs = HOLDERS_AFTER_MS, recordDir, wasServing = isServing(record) }: ReleaseOptions,
): Promise<void> {
  const endMs = performance.now() + releaseLimitMs;
  for (let its: MountRecord | null = record; its !== null; its = nextOf(mount.device, its, recordDir)) {
    await waitForEnd(mount, its, tell, holdersAfterMs, endMs);
    requireReleased(mount, takeUnreleased(mount.device, its, its === record ? wasServing : true, recordDir));
  }
}

async function waitForEnd(
  mount: Pick<MountEntry, "mountPoint" | "device">,
  record: MountRecord,
  tell: (line: string) => void,
  holdersAfterMs: number,
  endMs: number,
): Promise<void> {
  if (await waitForExit(record, holdersAfterMs)) return;
  const holders = namespaceHolders(mount.device);
  if (holders.length > 0) tell(`${mount.mountPoint} is unmounted here, but not everywhere: ${holderWords(holders)}`);
  else tell(`${mount.mountPoint} is unmounted; waiting until its overlay (process ${record.pid}) has released ${record.source}`);
  if (!(await waitForExit(record, endMs - performance.now()))) throw stillReleasing(mount, record);
}

/** To which process that one has given the mount (`coverlay restart`); null: to none that runs. Another mount may have its device by now. */
function nextOf(device: string, { source, mountPoint, runDir }: MountRecord, recordDir?: string): MountRecord | null {
  const next = readMountRecord(device, recordDir);
  if (next === null || !isServing(next)) return null;
  const isOfMount = next.source === source && next.mountPoint === mountPoint && next.runDir === runDir;
  return isOfMount && !mountTable().some((entry) => entry.device === device) ? next : null;
}

function requireReleased({ mountPoint }: Pick<MountEntry, "mountPoint">, why: string | null): void {
  if (why === null) return;
  throw new OperatingError(`${mountPoint} is unmounted, and its disk is not as it should be: ${why}`, {
    code: "not-released",
    hint: "See dmesg, and the log of the mount. What was not synced may be lost.",
    exitStatus: 32,
  });
}

function stillReleasing(
  { mountPoint, device }: Pick<MountEntry, "mountPoint" | "device">,
  { pid, source, runDir }: MountRecord,
): OperatingError {
  const holders = namespaceHolders(device);
  const message = `${mountPoint} is unmounted, but its overlay (process ${pid}) has not released ${source} yet`;
  const held = `${message}: it is mounted elsewhere, by ${holderWords(holders)}`;
  return new OperatingError(holders.length > 0 ? held : message, {
    code: "still-releasing",
    hint:
      holders.length > 0
        ? `End these processes, or run in their namespace: nsenter -t ${holders[0]?.pid} -m umount ${holders[0]?.mountPoint}`
        : `It writes back, or waits for the other nodes: coverlay status --run-dir ${runDir}`,
    exitStatus: 32,
  });
}

function unmountFailed(mountPoint: string, code: string): OperatingError {
  return new OperatingError(`unmounting ${mountPoint} failed: ${code}`, {
    code: "umount-failed",
    hint: code === "EBUSY" ? `It is in use: fuser -vm ${mountPoint} shows by whom; -l unmounts it lazily.` : "See dmesg.",
    exitStatus: code === "EPERM" ? 1 : 32,
  });
}
