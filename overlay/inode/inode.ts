/**
 * What this mount knows of one inode. `fuseNodeid` is a number of our own that is never used twice, so a reused
 * inode number can not be taken for the old file; the table (table.ts) keeps one record per (ino, generation).
 */
import type { Cover } from "../coherence/cover.ts";
import type { FileId } from "../lower/lower.ts";

export type InodeKind = "file" | "directory" | "other";

export interface Inode {
  readonly fuseNodeid: number;
  readonly id: FileId;
  /** fileKey(id). */
  readonly key: string;
  readonly kind: InodeKind;
  /** The kernel's lookup count (0: it has forgotten the inode). The root counts 1 for ever. */
  nlookup: number;
  /** Open handles of this mount. */
  openCount: number;
  /** Those of them through which a shared mapping may be written: O_RDWR, with a page cache. */
  mappableCount: number;
  /** The lock state and what the kernel was told: the coherence layer's own. */
  readonly cover: Cover;
}
