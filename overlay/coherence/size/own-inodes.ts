/**
 * The inodes of our own mount as any program sees them: by system calls on a descriptor that is opened for each call, through the mount's path
 * and a file handle. Nothing is kept open, so nothing keeps the mount from being unmounted.
 *
 * Where the mount can not be reached by its path (lazily unmounted, moved, something mounted over it) every call gives an error.
 */
import type { Native } from "../../../native/index.ts";
import { fuseGeneration, type NumberedInode } from "../cover.ts";

export interface OwnInodes {
  /** The kernel's size of it, once it is from `atLeast` to `atMost`, or after so many milliseconds; negative errno. The kernel asks nothing. */
  look(inode: NumberedInode, atLeast: number, atMost: number, timeoutMs: number): Promise<number>;
  /** Has the kernel send a GETATTR, and resolves when that was answered and its reply taken: the kernel's size then, or a negative errno. */
  refresh(inode: NumberedInode): Promise<number>;
  /** Has the kernel take the inode's lock and send a REMOVEXATTR under it. */
  lock(inode: NumberedInode): Promise<number>;
  /** Has the kernel look for a path below the root, by a thread of ours: the inode number that it shows there, or a negative errno. */
  walk(path: Buffer): Promise<number>;
  /** Does that request come from one of our own threads? */
  isOwnThread(tid: number): boolean;
}

/** `minor`: that of the mount's device (connectionNumber). */
export function createOwnInodes(native: Native, mountpoint: string, minor: number): OwnInodes {
  const path = Buffer.from(mountpoint);
  const { own } = native.pool;
  return {
    look: (inode, atLeast, atMost, timeoutMs) =>
      own.lookOwnSize(path, minor, inode.fuseNodeid, fuseGeneration(inode), atLeast, atMost, timeoutMs),
    refresh: (inode) => own.refreshOwnSize(path, minor, inode.fuseNodeid, fuseGeneration(inode)),
    lock: (inode) => own.lockOwn(path, minor, inode.fuseNodeid, fuseGeneration(inode)),
    walk: (wanted) => own.walkOwn(path, minor, wanted),
    isOwnThread: (tid) => native.ownsThread(tid),
  };
}
