/**
 * Where a file system's kernel writes as long as it is mounted and changed: the journal's superblock of ext4, and the head of XFS's log. Pure.
 * Sources: fs/ext4/ext4.h (s_jnl_blocks), fs/jbd2; fs/xfs/xfs_log_recover.c (xlog_find_head), libxfs/xfs_log_format.h.
 */

/** Basic blocks of XFS: in the log each begins with the number of the turn in which it was written. */
export const LOG_BLOCK_BYTES = 512;

const JOURNAL_INODE_SAVED = 1;
const EXTENT_MAGIC = 0xf30a;
const EXTENTS_FLAG = 0x40;

/** The byte offset of ext4's journal superblock; null: the superblock does not tell. `head`: the first bytes of the device. */
export function ext4JournalOffset(head: Uint8Array): number | null {
  if (head.byteLength < 2048) return null;
  const sb = Buffer.from(head.buffer, head.byteOffset + 1024, 1024);
  // A copy of the journal inode's i_block: what e2fsck finds the journal by if that inode is lost.
  if (sb.readUInt8(0xfd) !== JOURNAL_INODE_SAVED) return null;
  const blocks = sb.subarray(0x10c, 0x10c + 60);
  const blockBytes = 1024 * 2 ** sb.readUInt32LE(0x18);
  const hasExtents = (sb.readUInt32LE(0x60) & EXTENTS_FLAG) !== 0 && blocks.readUInt16LE(0) === EXTENT_MAGIC;
  const first = hasExtents ? firstExtent(blocks) : blocks.readUInt32LE(0);
  return first === null || first === 0 ? null : first * blockBytes;
}

/** Of a tree without inner nodes; null: it has some, or none at all. */
function firstExtent(blocks: Buffer): number | null {
  const [entries, depth] = [blocks.readUInt16LE(2), blocks.readUInt16LE(6)];
  if (entries === 0 || depth !== 0 || blocks.readUInt32LE(12) !== 0) return null;
  return blocks.readUInt16LE(12 + 6) * 2 ** 32 + blocks.readUInt32LE(12 + 8);
}

export interface XfsLog {
  readonly offset: number;
  /** Of LOG_BLOCK_BYTES. */
  readonly blocks: number;
}

/** Null: it is on another device, or the geometry is impossible. */
export function xfsLog(head: Uint8Array): XfsLog | null {
  if (head.byteLength < 512) return null;
  const sb = Buffer.from(head.buffer, head.byteOffset, 512);
  const [blockBytes, start, logBlocks, agBlocks, agBlockLog] = [
    sb.readUInt32BE(4),
    sb.readBigUInt64BE(48),
    sb.readUInt32BE(96),
    sb.readUInt32BE(84),
    sb.readUInt8(124),
  ];
  if (start === 0n || logBlocks === 0 || agBlockLog > 31 || blockBytes % LOG_BLOCK_BYTES !== 0) return null;
  const block = (start >> BigInt(agBlockLog)) * BigInt(agBlocks) + (start & ((1n << BigInt(agBlockLog)) - 1n));
  const offset = Number(block) * blockBytes;
  return Number.isSafeInteger(offset) ? { offset, blocks: (logBlocks * blockBytes) / LOG_BLOCK_BYTES } : null;
}

const RECORD_MAGIC = 0xfeedbabe;

/** The turn in which a block of the log was written. `block`: its first 8 bytes. */
export function cycleOf(block: Buffer): number {
  return block.readUInt32BE(0) === RECORD_MAGIC ? block.readUInt32BE(4) : block.readUInt32BE(0);
}

/** The first block of the log that is of an earlier turn than its first: there the next record goes. `cycleAt`: cycleOf that block. */
export async function findLogHead(blocks: number, cycleAt: (block: number) => Promise<number>): Promise<number> {
  const first = await cycleAt(0);
  let [low, high] = [0, blocks - 1];
  if ((await cycleAt(high)) === first) return 0;
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if ((await cycleAt(middle)) === first) low = middle;
    else high = middle;
  }
  return high;
}
