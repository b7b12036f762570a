/** Listings, as they are answered: what fits the reply to a READDIR or READDIRPLUS. */
import type { DirEntry, Listing } from "./lower.ts";

/** What an entry takes in a FUSE reply (fuse.h: struct fuse_dirent, fuse_direntplus), before its name. */
const DIRENT_HEAD_BYTES = 24;
const DIRENT_PLUS_HEAD_BYTES = 152;

function replyBytes(name: Buffer, plus: boolean): number {
  return ((plus ? DIRENT_PLUS_HEAD_BYTES : DIRENT_HEAD_BYTES) + name.length + 7) & ~7;
}

/** Those that fit, in order. */
export function fitting(entries: readonly DirEntry[], bytes: number, listing: Listing): DirEntry[] {
  let left = bytes;
  const fit: DirEntry[] = [];
  for (const entry of entries) {
    left -= replyBytes(entry.name, listing !== "plain");
    if (left < 0) break;
    fit.push(entry);
  }
  return fit;
}

const DOT = 0x2e;

/** "." and "..", which each listing has. */
export function isDots(name: Buffer): boolean {
  return name[0] === DOT && (name.length === 1 || (name.length === 2 && name[1] === DOT));
}
