/**
 * What a mounted file system keeps writing, read past the page cache: two looks that differ show that something writes to the disk. ext4 writes
 * MMP's block each second; on XFS the head of the log moves with each change.
 */
import { createHash } from "node:crypto";
import { OperatingError } from "../../dlmd/base/error.ts";
import { readDeviceBlock } from "./direct-block.ts";
import { cycleOf, ext4JournalOffset, findLogHead, LOG_BLOCK_BYTES, xfsLog } from "./log-head.ts";
import { MMP_BYTES, MMP_UPDATE_INTERVAL_S } from "./mmp.ts";
import { decodeSuperblock, type Superblock } from "./superblock.ts";

const LOOK_BYTES = 4096;

export interface Activity {
  /** Another one: something was written meanwhile. */
  readonly mark: string;
  /** How often it changes at least, as long as the file system is mounted and healthy. */
  readonly everyMs: number;
}

/** Throws OperatingError "device-io", "no-activity": there is nothing to look at. */
export async function diskActivity(device: string): Promise<Activity> {
  const head = await readDeviceBlock(device, 0, LOOK_BYTES);
  const superblock = decodeSuperblock(head);
  const parts =
    superblock.type === "ext4" ? await ext4Parts(device, head, superblock) : superblock.type === "xfs" ? await xfsParts(device, head) : [];
  if (parts.length === 0) {
    throw new OperatingError(`${device}: nothing shows whether its file system is mounted elsewhere`, {
      code: "no-activity",
      hint: "ext4: run coverlay volume enable again with the same names, which sets MMP. XFS: its log must be on the same device.",
      exitStatus: 32,
    });
  }
  const hash = createHash("sha256");
  for (const part of [head, ...parts]) hash.update(part);
  const everyS = superblock.type === "ext4" && superblock.hasMmp ? Math.max(superblock.mmpIntervalS, MMP_UPDATE_INTERVAL_S) : 1;
  return { mark: hash.digest("hex"), everyMs: everyS * 1000 };
}

async function ext4Parts(device: string, head: Buffer, superblock: Extract<Superblock, { type: "ext4" }>): Promise<Buffer[]> {
  const parts: Buffer[] = [];
  if (superblock.hasMmp) parts.push(await readDeviceBlock(device, superblock.mmpOffset, MMP_BYTES));
  const journal = ext4JournalOffset(head);
  if (journal !== null) parts.push(await readDeviceBlock(device, journal, LOOK_BYTES));
  return parts;
}

async function xfsParts(device: string, head: Buffer): Promise<Buffer[]> {
  const log = xfsLog(head);
  if (log === null) return [];
  const read = async (block: number): Promise<Buffer> => {
    const at = log.offset + block * LOG_BLOCK_BYTES;
    const aligned = Math.floor(at / LOOK_BYTES) * LOOK_BYTES;
    return (await readDeviceBlock(device, aligned, LOOK_BYTES)).subarray(at - aligned);
  };
  const place = await findLogHead(log.blocks, async (block) => cycleOf(await read(block)));
  return [Buffer.from(String(place)), await read(Math.max(0, place - 1)), await read(place)];
}
