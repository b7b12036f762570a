/** What the op layer tells and asks about the names that the kernel has (hazards F6, F12); told-names.ts does it, names.ts has the rules. */
import type { Inode, Listing } from "../cover.ts";
import type { Heard } from "./listings.ts";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";

/** api.ts, Coherence.names. */
export interface KernelNames {
  /**
   * To be called for every reply that gives the kernel a name: LOOKUP (negative: child null), CREATE, MKDIR, MKNOD,
   * SYMLINK, LINK and each READDIRPLUS entry, with the directory pinned: by terms.ts, but for a negative one. True: the reply may carry entry validity.
   * `revalidated`: a LOOKUP, which the kernel may install without the directory's lock (names.ts). `listing`: what `listing` gave.
   */
  tellEntry(dir: Inode, name: Buffer, child: Inode | null, revalidated?: boolean, listing?: Listing | null): boolean;
  /** The answer to a READDIRPLUS of that handle and thread, for the names in it. null: none of them gets validity (hazard F48). */
  listing(dir: Inode, fh: number, tid: number): Listing | null;
  /** To be called for every request: it may show that a listing is over. `inode`: what its header names. */
  heard(request: Heard, inode: Inode | undefined): void;
  /**
   * To be awaited before a LOOKUP in `dir` tells of `child`. The kernel has a directory at one place only: where it must move it there itself it
   * takes the old parent's lock without waiting, or gives ESTALE (fs/dcache.c, __d_unalias). So a directory that another node has moved is first
   * dropped where it was; bounded, because who has the old parent may wait for this very LOOKUP.
   */
  dropElsewhere(dir: Inode, child: Inode): MaybePromise<void>;
  /** The kernel may still go by another name of `child` than this one, which may be no more: another node may have renamed it to this one. */
  hasDoubtfulName(dir: Inode, name: Buffer, child: Inode): boolean;
  /**
   * The kernel has that name, and its child's attributes, and both are valid still (as far as known here: it may have dropped them
   * itself, and then asks): a listing need not tell them again.
   */
  isTold(dir: Inode, name: Buffer): boolean;
  /** Of that directory the kernel has a few names at most that are valid still: nearly all of a listing are new to it. */
  hasFew(dir: Inode): boolean;
  /** The child that this kernel was last told under that name (hazard F12); null: told negative; undefined: nothing. */
  toldChild(dir: Inode, name: Buffer): Inode | null | undefined;
  /** A name by which this kernel knows it, the one that was told last; null: none. */
  placeOf(child: Inode): { readonly dir: Inode; readonly name: Buffer } | null;
  /** The kernel dropped the name itself: after a successful UNLINK, RMDIR, and for the old name of a RENAME. */
  dropEntry(dir: Inode, name: Buffer): void;
  /** After a successful RENAME: the kernel moved the dentry, with the validity that it had. */
  moveEntry(oldDir: Inode, oldName: Buffer, newDir: Inode, newName: Buffer): void;
  /** After a successful RENAME_EXCHANGE. */
  exchangeEntries(oldDir: Inode, oldName: Buffer, newDir: Inode, newName: Buffer): void;
}
