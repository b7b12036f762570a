/**
 * What is on a device: its file system, whether that was unmounted cleanly, and the clustered bit; without mounting it and
 * without believing the page cache (hazard M4). Superblocks and XFS's root inode are read with O_DIRECT here; ext4's attribute
 * by `debugfs -c -D`; XFS's log state by xfs_logprint, which is buffered, after the device's buffers were dropped.
 */
import { OperatingError } from "../../dlmd/base/error.ts";
import { BIT_XATTR, type StoredBit, decodeBit } from "./bit.ts";
import { describeHolders, deviceBytes, READ_SIZE_AGAIN, readDirect, requireBlockDevice, tryExclusive } from "./device.ts";
import { readAttributeByMount } from "./detached.ts";
import { readDeviceBlock } from "./direct-block.ts";
import { SIGNATURE_BYTES, type Signature, memberSignatures } from "./member.ts";
import { mountTable } from "../../dlmd/base/mount-table.ts";
import { type Ext4Superblock, SUPERBLOCK_BYTES, type XfsSuperblock, decodeSuperblock } from "./superblock.ts";
import { type ToolResult, runTool, runToolInBackground } from "./tool.ts";
import { findXfsTrusted } from "./xfs-inode.ts";

export type VolumeSuperblock = Ext4Superblock | XfsSuperblock;

export type BitState =
  | { readonly kind: "set"; readonly bit: StoredBit }
  | { readonly kind: "none" }
  /** There is a value, but not one that can be read. */
  | { readonly kind: "bad"; readonly error: OperatingError };

export interface Probe {
  readonly device: string;
  readonly superblock: VolumeSuperblock;
  readonly bit: BitState;
}

/** The file system on a block device. Throws "device-missing", "image-file", "not-a-device", "device-io", "device-short", "ufs", "damaged", "unknown-fs", "member". */
export function probeSuperblock(device: string): VolumeSuperblock {
  requireBlockDevice(device);
  const superblock = volumeSuperblock(device, readDirect(device, 0, SUPERBLOCK_BYTES));
  for (const signature of memberSignatures(deviceBytes(device), superblock.bytes))
    refuseMember(device, signature, readDirect(device, signature.at, SIGNATURE_BYTES));
  return superblock;
}

/** The same, read by a thread of a pool. */
export async function probeSuperblockInPool(device: string): Promise<VolumeSuperblock> {
  requireBlockDevice(device);
  const superblock = volumeSuperblock(device, await readDeviceBlock(device, 0, SUPERBLOCK_BYTES));
  for (const signature of memberSignatures(deviceBytes(device), superblock.bytes))
    refuseMember(device, signature, await readDeviceBlock(device, signature.at, SIGNATURE_BYTES));
  return superblock;
}

function refuseMember(device: string, { what, instead, at, is }: Signature, block: Buffer): void {
  if (!is(block)) return;
  throw new OperatingError(`${device} is ${what}: by itself it must not be written to`, {
    code: "member",
    hint: `${instead} If it is none any more, wipefs ${device} shows what says so, at byte ${at}, and can take that away.`,
    exitStatus: 32,
  });
}

const COPY_OF_SUPERBLOCK = "ext4 and XFS keep copies: unmount it everywhere, and see e2fsck(8), -b, or xfs_repair(8).";

function volumeSuperblock(device: string, head: Uint8Array): VolumeSuperblock {
  const superblock = decodeSuperblock(head);
  if (superblock.type === "none" && head.length < SUPERBLOCK_BYTES) throw deviceShort(device, head.length, "a file system is expected");
  switch (superblock.type) {
    case "ext4":
    case "xfs":
      requireWhole(device, superblock);
      return superblock;
    case "ufs":
      throw new OperatingError(`${device} holds ${superblock.what}, which Linux cannot write`, {
        code: "ufs",
        hint: "A UFS volume can be shared only by machines whose kernel writes UFS (FreeBSD). On Linux use ext4 or XFS.",
        exitStatus: 32,
      });
    case "damaged":
      throw new OperatingError(`${device} is damaged: it holds ${superblock.what}`, {
        code: "damaged",
        hint: `Make no new file system there. ${COPY_OF_SUPERBLOCK}`,
        exitStatus: 32,
      });
    case "other":
    case "none":
      throw new OperatingError(`${device} holds ${superblock.what}; ext4 or XFS is expected`, {
        code: "unknown-fs",
        hint: `Is it the right device (lsblk -f)? ${superblock.type === "none" ? `If a volume was here, its superblock is damaged. ${COPY_OF_SUPERBLOCK} ` : ""}A new volume is made with mkfs.ext4 or mkfs.xfs.`,
        exitStatus: 32,
      });
  }
}

/** The kernel would refuse it with EINVAL; what could be read offline might stand in the part that is there. */
function requireWhole(device: string, { type, bytes }: VolumeSuperblock): void {
  const has = deviceBytes(device);
  if (has < bytes) throw deviceShort(device, has, `its ${type} file system has ${bytes}`);
}

export function deviceShort(device: string, has: number, wanted: string): OperatingError {
  return new OperatingError(`${device} has ${has} bytes; ${wanted}`, {
    code: "device-short",
    hint: `Its end is missing: is it the right device or partition, was it or its image cut off, is its path to the disk cut? If the volume was grown, let this node read the size of its device anew. ${READ_SIZE_AGAIN}`,
    exitStatus: 32,
  });
}

export interface ProbeOptions {
  /** False: throws "bit-needs-mount" where the bit could only be read by a mount (XFS, with many attributes on its root directory). */
  readonly mayMount: boolean;
}

/** File system and bit. Works on a device that is mounted here or elsewhere: nothing is written. */
export function probeDevice(device: string, { mayMount }: ProbeOptions = { mayMount: true }): Probe {
  const superblock = probeSuperblock(device);
  const value = superblock.type === "ext4" ? readExt4Attribute(device) : readXfsAttribute(device, superblock, mayMount);
  return { device, superblock, bit: bitState(value, device) };
}

export function bitState(value: Buffer | null, where: string): BitState {
  if (value === null) return { kind: "none" };
  try {
    return { kind: "set", bit: decodeBit(value, where) };
  } catch (error) {
    if (error instanceof OperatingError) return { kind: "bad", error };
    throw error;
  }
}

/**
 * A volume goes on when its owner dies, so its file system must be whole after a crash. Throws "no-journal" for ext2, and for ext4
 * without a journal; "fast-commit" for ext4 with that feature (hazard R8). `volume show` and `disable` do not ask: such a volume can still be
 * looked at, and made plain again.
 */
export function requireJournal(device: string, superblock: VolumeSuperblock): void {
  if (superblock.type === "xfs") return;
  if (superblock.hasFastCommit) {
    throw new OperatingError(`${device} holds ext4 with the feature fast_commit: after a crash of its owner it might not be mountable`, {
      code: "fast-commit",
      hint: `Take the feature away while it is mounted nowhere: tune2fs -O ^fast_commit ${device}`,
      exitStatus: 32,
    });
  }
  if (superblock.hasJournal) return;
  throw new OperatingError(
    `${device} holds ext2, or ext4 without a journal of its own: after a crash of its owner it could not be recovered`,
    {
      code: "no-journal",
      hint: `A journal on another device goes first (tune2fs -O ^has_journal ${device}). Add one while it is mounted nowhere: tune2fs -j ${device}, then e2fsck -f ${device}`,
      exitStatus: 32,
    },
  );
}

function readExt4Attribute(device: string): Buffer | null {
  // In hexadecimal: "trusted.clustered (5) = 61 ff 00 0a 62". The plain form cannot be told from what stands in the value.
  // Without the bitmaps (-c): on a volume that its owner writes to they change while they are read, and do not fit their checksums.
  const run = runTool("debugfs", ["-c", "-D", "-R", `ea_get -x / ${BIT_XATTR}`, device], "e2fsprogs");
  const complaints = run.stderr
    .split("\n")
    .filter((line) => line !== "" && !/^debugfs \d|: catastrophic mode /.test(line))
    .join("; ");
  const value = /^[^=]*=((?: [0-9a-f]{2})*) *$/m.exec(run.stdout.toString("latin1"))?.[1];
  if (run.status === 0 && complaints === "" && value !== undefined) return Buffer.from(value.replaceAll(" ", ""), "hex");
  if (complaints.includes("Extended attribute key not found")) return null;
  throw unreadable(device, `debugfs says: ${complaints || run.stdout.toString("latin1").trim() || `exit status ${run.status}`}`);
}

function readXfsAttribute(device: string, superblock: XfsSuperblock, mayMount: boolean): Buffer | null {
  const offset = superblock.rootInodeOffset;
  const aligned = offset - (offset % 4096);
  const block = readDirect(device, aligned, offset - aligned + superblock.inodeBytes);
  const found = findXfsTrusted(block.subarray(offset - aligned), BIT_XATTR.slice("trusted.".length));
  switch (found.kind) {
    case "value":
      return found.value;
    case "absent":
      return null;
    case "damaged":
      throw unreadable(device, found.why);
    case "elsewhere":
      if (!mayMount) throw bitNeedsMount(device);
      // The root directory has many attributes: the kernel reads them, from a mount that writes nothing.
      if (tryExclusive(device) !== "free") {
        throw unreadable(device, `its root directory has many attributes, and it is ${describeHolders(device)}`);
      }
      return readAttributeByMount(device, "xfs", ["ro", "norecovery", "nouuid"], BIT_XATTR);
  }
}

function bitNeedsMount(device: string): OperatingError {
  return new OperatingError(`${device}: its root directory has many attributes, and only a mount could read the bit among them`, {
    code: "bit-needs-mount",
    hint: "`coverlay volume show` mounts it for a moment, read-only and without replaying its log.",
    exitStatus: 32,
  });
}

function unreadable(device: string, why: string): OperatingError {
  return new OperatingError(`${device}: the root directory cannot be read: ${why}`, {
    code: "fs-unreadable",
    hint: "Check the file system (fsck) while it is not mounted anywhere.",
    exitStatus: 32,
  });
}

/**
 * Why the file system is not clean, or null. Only for a device that nobody on this machine has: one that is mounted is always
 * dirty. A mount on another machine shows here too (an XFS that has not written since it was mounted there excepted).
 */
export function dirtyReason(device: string, superblock: VolumeSuperblock): string | null {
  if (superblock.type === "ext4") return dirtyExt4(superblock);
  runTool("blockdev", ["--flushbufs", device], "util-linux");
  const [tool, words, from] = xfsLogprint(device);
  return dirtyXfs(runTool(tool, words, from));
}

/** The same, by processes that this one does not wait for. */
export async function dirtyReasonInBackground(device: string, superblock: VolumeSuperblock): Promise<string | null> {
  if (superblock.type === "ext4") return dirtyExt4(superblock);
  await runToolInBackground("blockdev", ["--flushbufs", device], "util-linux");
  const [tool, words, from] = xfsLogprint(device);
  return dirtyXfs(await runToolInBackground(tool, words, from));
}

function dirtyExt4({ hasErrors, needsRecovery, valid }: Ext4Superblock): string | null {
  if (hasErrors) return "its superblock says that the kernel found errors";
  if (needsRecovery) return "its journal has to be replayed";
  return valid ? null : "it was not unmounted";
}

function dirtyXfs(run: ToolResult): string | null {
  const state = /state: <(\w+)>/.exec(run.stdout.toString("latin1"))?.[1];
  if (run.status === 0 && state === "CLEAN") return null;
  return state === "DIRTY"
    ? "its log has to be replayed"
    : `xfs_logprint cannot read its log: ${run.stderr.trim() || `exit status ${run.status}`}`;
}

/** Out of a mount namespace, the mount points that are named, and then the tool; nothing of it is seen outside. */
const WITHOUT_MOUNTS = 'device=$1; shift; for point; do umount -i -l -c "$point"; done; exec xfs_logprint -t "$device"';

/**
 * xfs_logprint asks each mount of its namespace for attributes, and waits where one waits for its owner: for ever, if that waits for
 * us. So it does not see clustered mounts. Gives what runTool takes.
 */
function xfsLogprint(device: string): Parameters<typeof runTool> {
  const points = mountTable()
    .filter(({ type }) => type === "fuse.clustered")
    .map(({ mountPoint }) => mountPoint);
  if (points.length === 0) return ["xfs_logprint", ["-t", device], "xfsprogs"];
  const words = ["--mount", "--propagation", "private", "sh", "-c", WITHOUT_MOUNTS, "sh", device, ...points];
  return ["unshare", words, "util-linux"];
}
