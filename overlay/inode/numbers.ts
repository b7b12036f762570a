/**
 * The number by which the kernel knows an inode (`fuseNodeid`) is made of its identity. So a file handle, which holds that number and the generation
 * (fs/fuse/inode.c, fuse_encode_fh), says which inode it means after kernel and table have forgotten it, on each node, and after a remount (hazard F29).
 *
 *     below 2^12          the root is 1
 *     2^12 to 2^52 - 1    40 bits of inode number, the last 12 bits of its generation
 *     2^52 to 2^53 - 1    counted: never used twice by one mount, and nothing can be told from it
 *
 * ext4 has inode numbers of 32 bits. XFS goes beyond 40 where a volume has more than 512 TiB, with inodes of 512 bytes.
 */
import type { FileId } from "../lower/lower.ts";

const GENERATIONS = 2 ** 12;
const INO_END = 2 ** 40;

/** The first of those that are counted. */
export const COUNTED_FROM: number = INO_END * GENERATIONS;

/** null: there is none that says which inode it is. */
export function fuseNodeidOf({ ino, generation }: FileId): number | null {
  return ino > 0 && ino < INO_END ? ino * GENERATIONS + (generation % GENERATIONS) : null;
}

/** The inode number in it; null: there is none. */
export function inoOf(fuseNodeid: number): number | null {
  return fuseNodeid >= GENERATIONS && fuseNodeid < COUNTED_FROM ? Math.floor(fuseNodeid / GENERATIONS) : null;
}
