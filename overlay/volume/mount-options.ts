/**
 * The -o options of a clustered mount (mount(8), "FILESYSTEM-INDEPENDENT MOUNT OPTIONS", and our own). What mount(8) and
 * systemd keep for themselves is ignored; what nobody knows is refused, so that a mistyped option is not taken for a setting.
 */
import path from "node:path";
import { OperatingError } from "../../dlmd/base/error.ts";
import { nearestWord } from "../../dlmd/base/nearest.ts";

/** linux/mount.h, include/uapi/linux/mount.h: MS_* of mount(2) */
export const MountFlag = {
  RDONLY: 1,
  NOSUID: 2,
  NODEV: 4,
  NOEXEC: 8,
  SYNCHRONOUS: 16,
  REMOUNT: 32,
  DIRSYNC: 128,
  NOATIME: 1024,
  NODIRATIME: 2048,
  RELATIME: 0x20_0000,
  STRICTATIME: 0x100_0000,
} as const;

export type Transport = "kernel" | "fuse-native";

export interface MountOptions {
  readonly readOnly: boolean;
  readonly remount: boolean;
  /** MS_* bits of the FUSE mount, RDONLY included, REMOUNT not. */
  readonly flags: number;
  /** Where dlmd's socket is, and the logs of overlays go; null: the default. */
  readonly runDir: string | null;
  /** File locks (fcntl(2), flock(2)) stay in this node's kernel: other nodes see nothing of them. */
  readonly localFlocks: boolean;
  /** Idle processors may sleep as deeply as they like, also while programs work in the mount (serve/cpu-latency.ts). */
  readonly deepIdle: boolean;
  /** How the kernel's requests come here: by ourselves, or by libfuse 2 (session/fuse-native/). */
  readonly transport: Transport;
  /** A mount that others must make possible is waited for so long (mount-wait.ts); infinity: without end; null: it is refused at once. */
  readonly waitMs: number | null;
  /** It is tried once, and waited for by a process in the background. */
  readonly background: boolean;
}

/** What an option does to the flags: sets or clears bits. */
interface Effect {
  readonly set?: number;
  readonly clear?: number;
}

const { RDONLY, NOSUID, NODEV, NOEXEC, SYNCHRONOUS, DIRSYNC, NOATIME, NODIRATIME, RELATIME, STRICTATIME } = MountFlag;

const effects: Readonly<Record<string, Effect>> = {
  ro: { set: RDONLY },
  rw: { clear: RDONLY },
  nosuid: { set: NOSUID },
  suid: { clear: NOSUID },
  nodev: { set: NODEV },
  dev: { clear: NODEV },
  noexec: { set: NOEXEC },
  exec: { clear: NOEXEC },
  sync: { set: SYNCHRONOUS },
  async: { clear: SYNCHRONOUS },
  dirsync: { set: DIRSYNC },
  noatime: { set: NOATIME, clear: RELATIME | STRICTATIME },
  atime: { clear: NOATIME },
  nodiratime: { set: NODIRATIME },
  diratime: { clear: NODIRATIME },
  relatime: { set: RELATIME, clear: NOATIME | STRICTATIME },
  norelatime: { clear: RELATIME },
  strictatime: { set: STRICTATIME, clear: NOATIME | RELATIME },
  nostrictatime: { clear: STRICTATIME },
  defaults: { clear: RDONLY | NOSUID | NODEV | NOEXEC | SYNCHRONOUS },
  // user and its like mean these where mount(8) did not say otherwise.
  user: { set: NOSUID | NODEV | NOEXEC },
  users: { set: NOSUID | NODEV | NOEXEC },
  owner: { set: NOSUID | NODEV },
  group: { set: NOSUID | NODEV },
};

/** For mount(8), fstab and systemd: nothing to us. `clustered` is what selects us where the wrapper is installed. */
const ignored: readonly string[] = ["clustered", "_netdev", "nofail", "auto", "noauto", "nouser", "nousers", "noowner", "nogroup"];
const ignoredWithValue: readonly string[] = ["comment", "uhelper", "helper"];
/** What a FUSE mount shows among its options, and mount(8) therefore gives for a remount: none of it can be changed. */
const shown: readonly string[] = ["default_permissions", "allow_other"];
const shownWithValue: readonly string[] = ["user_id", "group_id", "max_read", "blksize"];
const ownWithValue: readonly string[] = ["runDir", "retry", "timeout", "transport"];
const own: readonly string[] = ["localflocks", "deepidle", "wait", "bg", "fg"];

/** Of `bg` alone, that of nfs(5): a week. */
const BACKGROUND_WAIT_MS = 10_000 * 60_000;
/** Node.js has no longer timer than some 24 days. */
const MAX_WAIT_MS = 20 * 24 * 3_600_000;
const UNIT_MS: Readonly<Record<string, number>> = { timeout: 1000, retry: 60_000 };

/** What may stand after -o, for messages and --help. */
export const knownOptions: readonly string[] = [
  ...Object.keys(effects),
  ...ignored,
  ...ignoredWithValue,
  ...own,
  ...ownWithValue,
  "remount",
];

/**
 * `text`: comma-separated, later ones win. `sloppy` (mount -s): unknown options are ignored. `present`: flags to start from, those of the
 * mount for a remount. Throws OperatingError "bad-option".
 */
export function parseMountOptions(text: string, sloppy = false, present = 0): MountOptions {
  let flags = present;
  let runDir: string | null = null;
  let localFlocks = false;
  let deepIdle = false;
  let waitMs: number | null = null;
  let background = false;
  let transport: Transport = "kernel";
  const options = splitOptions(text);
  const remount = options.includes("remount");
  for (const option of options) {
    const [name, value] = splitValue(option);
    const effect = value === null && Object.hasOwn(effects, name) ? effects[name] : undefined;
    if (effect !== undefined) flags = (flags & ~(effect.clear ?? 0)) | (effect.set ?? 0);
    else if (option === "remount" || (remount && isShown(name, value))) continue;
    else if (name === "localflocks" && value === null) localFlocks = true;
    else if (name === "deepidle" && value === null) deepIdle = true;
    else if (name === "wait" && value === null) waitMs = Number.POSITIVE_INFINITY;
    else if ((name === "bg" || name === "fg") && value === null) background = name === "bg";
    else if (Object.hasOwn(UNIT_MS, name) && value !== null) waitMs = durationMs(name, value);
    else if (name === "transport" && value !== null) transport = transportOf(value);
    else if (name === "runDir" && value !== null) runDir = absolute(value);
    else if (!isIgnored(name, value) && !sloppy) throw unknownOption(option, name, value);
  }
  if (transport === "fuse-native" && !localFlocks && !remount) throw locksNotLocal();
  if (background) waitMs ??= BACKGROUND_WAIT_MS;
  return { readOnly: (flags & RDONLY) !== 0, remount, flags, runDir, localFlocks, deepIdle, transport, waitMs, background };
}

/** Commas inside double quotes belong to the value, as mount(8) reads them. */
function splitOptions(text: string): string[] {
  const parts = text.match(/(?:"[^"]*"|[^,])+/g) ?? [];
  return parts.filter((part) => part !== "");
}

function splitValue(option: string): [string, string | null] {
  const at = option.indexOf("=");
  if (at < 0) return [option, null];
  return [option.slice(0, at), option.slice(at + 1).replace(/^"(.*)"$/, "$1")];
}

function isShown(name: string, value: string | null): boolean {
  return (value === null ? shown : shownWithValue).includes(name);
}

function isIgnored(name: string, value: string | null): boolean {
  if (/^[xX]-/.test(name)) return true;
  return value === null ? ignored.includes(name) : ignoredWithValue.includes(name);
}

/** `timeout=SECONDS`, `retry=MINUTES`. */
function durationMs(name: string, value: string): number {
  const unitMs = UNIT_MS[name] ?? 1;
  const waitMs = Number(value) * unitMs;
  if (/^\d+$/.test(value) && waitMs <= MAX_WAIT_MS) return waitMs;
  throw new OperatingError(
    `option ${name}=${value}: a whole number of ${name === "retry" ? "minutes" : "seconds"} is expected, up to ${MAX_WAIT_MS / unitMs}`,
    {
      code: "bad-option",
      hint: "With the option wait a mount waits without end.",
    },
  );
}

function transportOf(value: string): Transport {
  if (value === "kernel" || value === "fuse-native") return value;
  throw new OperatingError(`option transport=${value}: kernel or fuse-native is expected`, {
    code: "bad-option",
    hint: "Without it, the kernel's protocol is spoken by coverlay itself.",
  });
}

/** It has no lock operations: programs on two nodes would have the same lock, and not know. */
function locksNotLocal(): OperatingError {
  return new OperatingError("transport=fuse-native has no file locks of the cluster: each kernel keeps them to itself", {
    code: "bad-option",
    hint: "If that is wanted, say so: add the option localflocks.",
  });
}

function absolute(value: string): string {
  if (value.startsWith("/")) return path.resolve(value);
  throw new OperatingError(`option runDir=${value}: an absolute path is expected`, {
    code: "bad-option",
    hint: "Without it, /run/coverlay is used.",
  });
}

function unknownOption(option: string, name: string, value: string | null): OperatingError {
  const hasOtherForm = knownOptions.includes(name);
  const near = hasOtherForm ? null : nearestWord(name, knownOptions);
  const problem = !hasOtherForm ? "is unknown" : value === null ? "needs a value" : "takes no value";
  return new OperatingError(`mount option "${option}" ${problem}`, {
    code: "bad-option",
    hint: near === null ? `coverlay mount --help lists the options; those of ext4 and XFS do not apply.` : `Did you mean "${near}"?`,
  });
}

/** The MS_* bits of a mount from its mountinfo options: what a remount starts from. */
export function flagsOfMount(options: readonly string[]): number {
  let flags = 0;
  for (const option of options) if (Object.hasOwn(effects, option)) flags |= effects[option]?.set ?? 0;
  return flags;
}
