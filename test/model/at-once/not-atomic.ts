/** What Linux itself does not do in one moment. Each is allowed only while another call changes something, and a history says which it needed. */

export type NotAtomic = "parts" | "finds" | "looks";

interface Reason {
  readonly id: NotAtomic;
  /** What two calls at once may see. */
  readonly words: string;
  readonly reason: string;
  /** The page or the function that has it. */
  readonly source: string;
}

export const NOT_ATOMIC: readonly Reason[] = [
  {
    id: "parts",
    words: "the parts of a path are looked up one after the other",
    reason:
      "A directory may be moved between two of them, so a path that was never there as a whole may be found, and one that always was may not.",
    source: "path_resolution(7); fs/namei.c link_path_walk",
  },
  {
    id: "finds",
    words: "a call finds its file by the path, and works on it then",
    reason:
      "Between the two the file may lose that name, get another one, or another mode. " +
      "So chmod(2) changes what has been removed; link(2) says ENOENT of what it has found; and what is to be made in a directory that is gone is ENOENT.",
    source: "fs/open.c chmod_common, vfs_truncate; fs/namei.c do_open, do_linkat, vfs_link, lookup_one_qstr_excl (IS_DEADDIR)",
  },
  {
    id: "looks",
    words: "stat(2) and read(2) look without a lock",
    reason:
      "Each field, and each byte, is read at a moment of its own. A change shows in one of them before it is done: " +
      "unlink(2) takes the link before the name. So each may be seen as before or after, as long as such a change is not over.",
    source: "fs/stat.c generic_fillattr; mm/filemap.c filemap_read; fs/ext4/namei.c ext4_unlink before fs/namei.c d_delete",
  },
];

export const ALL_NOT_ATOMIC: ReadonlySet<NotAtomic> = new Set(NOT_ATOMIC.map(({ id }) => id));
