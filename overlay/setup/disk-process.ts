/**
 * A look at one device, as a process of its own: a disk that hangs keeps this process, and not the one that shows the findings. Prints the
 * facts (judge-volume.ts) as lines of JSON, each as soon as it is known: a look that is cut off leaves those before. An empty line says that the disk
 * has answered (look-disk.ts). It opens the device read-only, mounts nothing, and writes nothing. Arguments: the device, the limit of a step in
 * ms, the process that has started it (left-look.ts), paths that may lead to the device.
 */
import { existsSync, readFileSync, realpathSync, statSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { OperatingError } from "../../dlmd/base/error.ts";
import { mountsOfDevice } from "../../dlmd/base/mount-table.ts";
import { requireOwnerBlock } from "../volume/bit.ts";
import { deviceBytes, deviceNumber, isReadOnlyDevice, readDirect, requireBlockDevice, tryExclusive } from "../volume/device.ts";
import { parseOwnerBlock } from "../volume/direct-block.ts";
import { MMP_BYTES, decodeMmp } from "../volume/mmp.ts";
import { OWNER_BLOCK_BYTES } from "../volume/owner-block.ts";
import { type Probe, probeDevice, probeSuperblock, type VolumeSuperblock } from "../volume/probe.ts";
import type { Ext4Superblock } from "../volume/superblock.ts";
import { udevText } from "./fstab.ts";
import { judgeMmpWatch } from "./mmp-watch.ts";
import { shellWord } from "./shell-word.ts";
import type { BitFact, DiskFacts, DiskIdentity, FileSystemFact, MmpFact, OwnerFact, Problem } from "./judge-volume.ts";

const MMP_LOOK_MS = 100;
/** The superblocks of ext4 and XFS are in it. */
const DIRECT_BYTES = 4096;

function problemOf(error: unknown): Problem {
  if (error instanceof OperatingError) {
    return { message: error.message, hint: error.hint, ...(error.code === "bit-needs-mount" ? { isUnknown: true } : {}) };
  }
  return { message: (error as Error).message, hint: "See dmesg." };
}

function attempt<T>(look: () => T): T | Problem {
  try {
    return look();
  } catch (error) {
    return problemOf(error);
  }
}

/** The first of these files that says something. */
function firstText(files: readonly string[]): string | null {
  for (const file of files) {
    try {
      const text = readFileSync(file, "latin1").trim();
      if (text !== "") return text;
    } catch {
      // Not every kind of disk has each of them.
    }
  }
  return null;
}

/** Of sysfs (SCSI, NVMe, virtio), else what udev asked the disk. A partition's are those of its disk. */
function identityOf(device: string): DiskIdentity {
  requireBlockDevice(device);
  const number = deviceNumber(device);
  const own = realpathSync(`/sys/dev/block/${number}`);
  const disk = firstText([path.join(own, "partition")]) === null ? own : path.dirname(own);
  const udev = firstText([`/run/udev/data/b${number}`]) ?? "";
  const fromUdev = (key: string): string | null => new RegExp(`^E:${key}=(.+)$`, "m").exec(udev)?.[1] ?? null;
  return {
    path: realpathSync(device),
    bytes: deviceBytes(device),
    isReadOnly: isReadOnlyDevice(device),
    serial: firstText([path.join(disk, "device/serial"), path.join(disk, "serial")]) ?? fromUdev("ID_SERIAL") ?? fromUdev("DM_UUID"),
    wwn: firstText([path.join(disk, "device/wwid"), path.join(disk, "wwid")]) ?? fromUdev("ID_WWN"),
    backingFile: firstText([path.join(disk, "loop/backing_file")]),
  };
}

/** Where the label stands: s_volume_name of ext4, sb_fname of XFS. */
const LABELS = { ext4: { at: 1024 + 0x78, bytes: 16 }, xfs: { at: 108, bytes: 12 } } as const;

/** Not by blkid(8): it reads through the page cache, which would keep what another machine changes (hazard M4). */
function fileSystemTags(device: string, { type, uuid }: VolumeSuperblock): Record<string, string> {
  const { at, bytes } = LABELS[type];
  const label = readDirect(device, 0, DIRECT_BYTES)
    .subarray(at, at + bytes)
    .toString("utf8")
    .replace(/\0.*$/s, "");
  return { UUID: uuid, LABEL: label };
}

/** Of a partition only udev knows them; without an entry of udev they are not known. A device that is none has none. */
function partitionTags(device: string): Record<string, string> {
  const number = deviceNumber(device);
  const sysfs = `/sys/dev/block/${number}`;
  const isPartition = existsSync(`${sysfs}/partition`) || /^part\d+-/.test(firstText([`${sysfs}/dm/uuid`]) ?? "");
  if (!isPartition) return { PARTUUID: "", PARTLABEL: "" };
  const udev = firstText([`/run/udev/data/b${number}`]) ?? "";
  const value = (key: string): string => udevText(new RegExp(`^E:ID_PART_ENTRY_${key}=(.+)$`, "m").exec(udev)?.[1] ?? "");
  return value("UUID") === "" ? {} : { PARTUUID: value("UUID"), PARTLABEL: value("NAME") };
}

/** Those that lead to this very device. */
function pathsTo(device: string, paths: readonly string[]): string[] {
  const number = deviceNumber(device);
  return paths.filter((each) => {
    const stat = statSync(each, { throwIfNoEntry: false });
    return stat?.isBlockDevice() === true && deviceNumber(each) === number;
  });
}

function fileSystemOf(superblock: VolumeSuperblock): FileSystemFact {
  const { type, uuid } = superblock;
  if (type === "xfs") {
    return { type, uuid, needsRecovery: null, hasErrors: null, hasJournal: true, hasFastCommit: false, hasMmp: false };
  }
  const { needsRecovery, hasErrors, hasJournal, hasFastCommit, hasMmp } = superblock;
  return { type, uuid, needsRecovery, hasErrors, hasJournal, hasFastCommit, hasMmp };
}

const mmpDamaged = (device: string): Problem => ({
  message: "its superblock says that it is on, and its block is none of MMP",
  hint: `Check the file system while it is mounted nowhere: e2fsck -f ${shellWord(device)}`,
});

/** As it stands now. */
function mmpOf({ device, superblock }: Probe): MmpFact | Problem | null {
  if (superblock.type !== "ext4" || !superblock.hasMmp) return null;
  const mmp = decodeMmp(readDirect(device, superblock.mmpOffset, MMP_BYTES));
  if (mmp === null) return mmpDamaged(device);
  const { state, hostName, deviceName } = mmp;
  return { state, hostName, device: deviceName, isMoving: null };
}

/** The kernel writes the block each interval while it has the volume mounted: seen here, it is the same disk now. Null: there was no time. */
async function mmpMoves(device: string, { mmpOffset, mmpIntervalS }: Ext4Superblock, limitMs: number): Promise<boolean | null> {
  const read = (): Buffer => readDirect(device, mmpOffset, MMP_BYTES);
  const first = read();
  const beginMs = performance.now();
  for (;;) {
    await sleep(MMP_LOOK_MS);
    const watchedMs = performance.now() - beginMs;
    const verdict = judgeMmpWatch({ intervalS: mmpIntervalS, limitMs }, watchedMs, !read().equals(first));
    if (verdict !== "go-on") return verdict;
    tell({});
  }
}

function ownerOf({ device, bit }: Probe): OwnerFact | Problem | undefined {
  if (bit.kind !== "set") return undefined;
  return attempt((): OwnerFact => {
    const offset = requireOwnerBlock(bit.bit, device);
    const { state, sequence, life } = parseOwnerBlock(readDirect(device, offset, OWNER_BLOCK_BYTES), device, offset, bit.bit.uuid);
    const { nodeid = 0, incarnation = "", hostName = "", device: itsDevice = "" } = life ?? {};
    return { isOwned: state === "owned", sequence, nodeid, incarnation, hostName, device: itsDevice };
  });
}

function bitOf({ bit }: Probe): BitFact | Problem | null {
  if (bit.kind === "none") return null;
  if (bit.kind === "bad") return problemOf(bit.error);
  const { cluster, volume, uuid } = bit.bit;
  return { cluster, volume, uuid };
}

/** What is known is printed at once. A pipe takes these few bytes without waiting. */
function tell(facts: Partial<DiskFacts>): void {
  process.stdout.write(`${JSON.stringify(facts)}\n`);
}

function plainMountsOf(device: string): string[] {
  return mountsOfDevice(deviceNumber(device)).map(
    ({ mountPoint, pid, command }) => `${mountPoint}${pid === null ? "" : ` (of process ${pid}, ${command})`}`,
  );
}

async function lookAtDisk(device: string, limitMs: number, paths: readonly string[]): Promise<void> {
  tell({});
  const identity = attempt(() => identityOf(device));
  tell({ identity });
  if ("message" in identity) return;
  const tags = attempt(() => partitionTags(device));
  const known = "message" in tags ? {} : tags;
  tell({ plainMounts: attempt(() => plainMountsOf(device)), tags: known });
  const isInUse = attempt(() => tryExclusive(device) === "busy");
  tell({ isInUse });
  tell({ paths: attempt(() => pathsTo(device, paths)) });
  const superblock = attempt(() => probeSuperblock(device));
  if ("message" in superblock) return tell({ fileSystem: superblock });
  const labels = attempt(() => fileSystemTags(device, superblock));
  tell({ fileSystem: fileSystemOf(superblock), tags: { ...known, ...("message" in labels ? {} : labels) } });
  const probe = attempt(() => probeDevice(device, { mayMount: false }));
  if ("message" in probe) return tell({ bit: probe });
  const owner = ownerOf(probe);
  tell({ bit: bitOf(probe), ...(owner === undefined ? {} : { owner }) });
  // An owner may have let go before its block was read; and another look at the device has it so for a moment.
  if (isInUse === true) tell({ isInUse: attempt(() => tryExclusive(device) === "busy") });
  const mmp = attempt(() => mmpOf(probe));
  tell({ mmp });
  // Without an owner nobody asks whether it is written.
  const isOwned = owner !== undefined && !("message" in owner) && owner.isOwned;
  if (!isOwned || mmp === null || "message" in mmp || mmp.state !== "in-use" || probe.superblock.type !== "ext4") return;
  const { superblock: ext4 } = probe;
  tell({ mmp: { ...mmp, isMoving: await mmpMoves(device, ext4, limitMs) } });
}

const [, , device = "", limitMs = "4000", , ...paths] = process.argv;
try {
  await lookAtDisk(device, Number(limitMs), paths);
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n`);
  process.exitCode = 1;
}
