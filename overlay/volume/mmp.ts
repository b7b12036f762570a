/**
 * ext4's multiple-mount protection, the second line behind the owner's block: a plain mount on a machine that is not of the cluster is
 * refused by the kernel while the owner has the volume mounted. Source: fs/ext4/mmp.c (struct mmp_struct in ext4.h).
 *
 * After a death the kernel would wait for 11 to 22 s. With the proof that the life in the owner's block is over, and only if MMP's
 * block names just that machine and device, it is cleared instead (hazard C11); otherwise the kernel waits.
 */
import { hostname } from "node:os";
import path from "node:path";
import { OperatingError } from "../../dlmd/base/error.ts";
import { holdExclusively } from "./detached.ts";
import { readDeviceBlock } from "./direct-block.ts";
import type { Life } from "./life.ts";
import type { Ext4Superblock } from "./superblock.ts";
import { runWriterInBackground } from "./tool.ts";

/** The kernel looks at least every 5 s and waits for 2 x 5 + 1 before it believes that a holder is dead; 1 is the least that can be set. */
export const MMP_UPDATE_INTERVAL_S = 1;

export const MMP_BYTES = 4096;
const MAGIC = 0x004d4d50;
const SEQ_CLEAN = 0xff4d4d50;
const SEQ_FSCK = 0xe24d4d50;
const NODE_NAME_BYTES = 64;

export interface Mmp {
  readonly state: "clean" | "in-use" | "fsck";
  /** Of the machine, not of a UTS namespace; cut to 63 or 64 bytes. */
  readonly hostName: string;
  /** As the kernel calls it: sdb1, dm-0. */
  readonly deviceName: string;
  readonly atS: number;
}

/** Null: not a block of MMP. */
export function decodeMmp(block: Uint8Array): Mmp | null {
  const bytes = Buffer.from(block.buffer, block.byteOffset, block.byteLength);
  if (bytes.length < 116 || bytes.readUInt32LE(0) !== MAGIC) return null;
  const sequence = bytes.readUInt32LE(4);
  return {
    state: sequence === SEQ_CLEAN ? "clean" : sequence === SEQ_FSCK ? "fsck" : "in-use",
    atS: Number(bytes.readBigUInt64LE(8)),
    hostName: text(bytes.subarray(16, 16 + NODE_NAME_BYTES)),
    deviceName: text(bytes.subarray(80, 112)),
  };
}

function text(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString("utf8", 0, end < 0 ? bytes.length : end);
}

/** Null: it is off, or its block is damaged. */
export async function readMmp(device: string, superblock: Ext4Superblock): Promise<Mmp | null> {
  if (!superblock.hasMmp) return null;
  return decodeMmp(await readDeviceBlock(device, superblock.mmpOffset, MMP_BYTES));
}

/** The machine's name as the kernel writes it, as far as this UTS namespace shows it (hazard R12): if it does not, the kernel's wait applies. */
export function machineName(): string {
  return Buffer.from(hostname()).subarray(0, NODE_NAME_BYTES).toString("utf8");
}

/** MMP names that life, and nobody else's mount. */
export function isHeldBy(mmp: Mmp, life: Life): boolean {
  return mmp.state === "in-use" && mmp.hostName === life.hostName && mmp.deviceName === path.basename(life.device);
}

/**
 * For a device that is in use libext2fs reads the list of mounts and calls stat(2) on each mount point. The overlay's own mount is one of them, and
 * does not answer until this tool has ended. With this it takes the device for mounted read-only, and does not look (lib/ext2fs/ismounted.c).
 */
const LOOKS_AT_NO_MOUNT = { EXT2FS_PRETEND_RO_MOUNT: "1" } as const;

/**
 * Only with the proof that its holder is over. `mayWrite`: throws if this node may not any more; asked before each step, because the step before may
 * have taken long. The tools hold the device (README.md): while one lives, there is no proof that this life is over. `report`: why it takes so long.
 */
export async function clearMmp(device: string, mayWrite: () => void, report: (why: string) => void = () => {}): Promise<void> {
  mayWrite();
  await holdExclusively(device, async (heldFd) => {
    const writer = { heldFd, report };
    mayWrite();
    // What the page cache has of the device may be older than what the dead node wrote (hazard M4).
    await runWriterInBackground("blockdev", ["--flushbufs", device], "util-linux", writer);
    mayWrite();
    const args = ["-f", "-E", "clear_mmp"];
    const run = await runWriterInBackground("tune2fs", [...args, device], "e2fsprogs", { ...writer, env: LOOKS_AT_NO_MOUNT });
    if (run.status !== 0) throw tuneFailed(device, args, run.stderr);
  });
}

/**
 * On a device that is not mounted. Off takes 11 s: tune2fs waits for another holder's sign of life, and refuses where it sees one. `report`: why it takes
 * so long.
 */
export async function setMmp(device: string, on: boolean, report: (why: string) => void): Promise<void> {
  const args = on ? ["-O", "mmp", "-E", `mmp_update_interval=${MMP_UPDATE_INTERVAL_S}`] : ["-O", "^mmp"];
  const writer = { heldFd: null, report };
  await runWriterInBackground("blockdev", ["--flushbufs", device], "util-linux", writer);
  const run = await runWriterInBackground("tune2fs", [...args, device], "e2fsprogs", writer);
  if (run.status !== 0) throw tuneFailed(device, args, run.stderr);
}

function tuneFailed(device: string, args: readonly string[], words: string): OperatingError {
  return new OperatingError(`tune2fs ${args.join(" ")} ${device} failed: ${words.trim().split("\n").at(-1) ?? ""}`, {
    code: "mmp",
    hint: "Check the file system (e2fsck -f) while it is mounted nowhere, then run the command again.",
    exitStatus: 32,
  });
}
