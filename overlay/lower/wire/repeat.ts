/**
 * A change that was sent to an owner which ended before it answered. Whether it was made is not known. If all that this owner had executed
 * is on the disk, and the caller held the locks all the time, the change is made again at the next owner: a pure rule of
 * what the second answer proves. What is made again, and what cannot be: overlay/lower/README.md, "An owner that ends, and its disk is
 * clean".
 */
import { E } from "../../../dlmd/base/errno.ts";
import type { CallName, RequestOf } from "./call-types.ts";

/** `again`: made anew, and the answer counts. An errno in `doubtful` may come from the change itself, made by the owner before. */
export type Repeat = { readonly again: false } | { readonly again: true; readonly doubtful: readonly number[] };

const NEVER: Repeat = { again: false };
/** Twice is the same as once. */
const SAME: Repeat = { again: true, doubtful: [] };
const MAKES: Repeat = { again: true, doubtful: [E.EEXIST] };
const REMOVES: Repeat = { again: true, doubtful: [E.ENOENT, E.ESTALE] };
const RENAMES: Repeat = { again: true, doubtful: [E.ENOENT, E.ESTALE, E.EEXIST] };
const DROPS: Repeat = { again: true, doubtful: [E.ENODATA] };

/** asm-generic/fcntl.h */
const O_EXCL = 0o200;
const MAY_READ_AND_WRITE = 0o600;
/** linux/falloc.h: these move what lies behind. */
const FALLOC_COLLAPSE_RANGE = 0x08;
const FALLOC_INSERT_RANGE = 0x20;
/** linux/xattr.h */
const XATTR_CREATE = 1;

/** Said before it was looked what is there, as by an owner without descriptors: whether the first one was made is as unknown as before. */
const UNSEEN: ReadonlySet<number> = new Set([E.EMFILE, E.ENFILE, E.ENOMEM]);

/** Of a change that was made again, and failed with that. `doubtful`: its Repeat's, empty where twice is the same as once. */
export function isDoubtful(doubtful: readonly number[], errno: number): boolean {
  return doubtful.includes(errno) || (doubtful.length > 0 && UNSEEN.has(errno));
}

/** Without O_EXCL the file that is there is opened, by whoever it was made; its own permissions must not stand in the way then. */
function repeatOfCreate({ flags, mode, caller }: RequestOf<"create">): Repeat {
  const opens = (flags & O_EXCL) === 0 && (mode & ~caller.umask & MAY_READ_AND_WRITE) === MAY_READ_AND_WRITE;
  return opens ? SAME : MAKES;
}

/** Of a call that changes something. */
export function repeatOf<K extends CallName>(call: K, request: RequestOf<K>): Repeat {
  switch (call) {
    case "create":
      return repeatOfCreate(request as RequestOf<"create">);
    case "mkdir":
    case "mknod":
    case "symlink":
    case "link":
      return MAKES;
    case "unlink":
    case "rmdir":
      return REMOVES;
    case "rename":
      return RENAMES;
    case "write":
      return (request as RequestOf<"write">).append ? NEVER : SAME;
    case "fallocate":
      return ((request as RequestOf<"fallocate">).mode & (FALLOC_COLLAPSE_RANGE | FALLOC_INSERT_RANGE)) === 0 ? SAME : NEVER;
    case "setxattr":
      return ((request as RequestOf<"setxattr">).flags & XATTR_CREATE) === 0 ? SAME : MAKES;
    case "removexattr":
      return DROPS;
    default:
      return SAME;
  }
}
