/** What the operations of one mount work with. */
import type { Coherence } from "../coherence/api.ts";
import type { Inode } from "../coherence/cover.ts";
import type { FileLocking } from "../file-lock/api.ts";
import type { HandleTable, OpenFile } from "../inode/handles.ts";
import type { InodeRecord, InodeTable } from "../inode/table.ts";
import type { Entry, Lower } from "../lower/lower.ts";
import { andThen, finallyDo, type MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Log } from "../../dlmd/base/log.ts";
import { E, errnoError } from "../../dlmd/base/errno.ts";
import type { UnderWay } from "../../dlmd/base/under-way.ts";
import type { Prefetch } from "./prefetch.ts";
import type { ChangesAhead } from "./changes-ahead.ts";
import type { FilesAhead } from "./files-ahead.ts";
import type { WalkAhead } from "./walk-ahead.ts";
import type { Credentials } from "../caller/status.ts";
import type { MovedDirectories } from "./moved-directories.ts";
import type { PlaceholderInodes } from "./placeholder-inodes.ts";
import type { EstaleRetry } from "./estale-retry.ts";

export interface Mount {
  readonly lower: Lower;
  readonly coherence: Coherence;
  readonly inodes: InodeTable;
  readonly handles: HandleTable;
  readonly staleOnce: EstaleRetry;
  readonly standIns: PlaceholderInodes;
  readonly moved: MovedDirectories;
  readonly ahead: Prefetch;
  readonly walkAhead: WalkAhead;
  readonly changesAhead: ChangesAhead;
  readonly filesAhead: FilesAhead;
  /** Writes that the lower makes after they were answered (hazard F23), with a pin and a use of their inode. */
  readonly writesBehind: UnderWay;
  readonly log: Log;
  /** FUSE_DONT_MASK was taken: the umask comes with the request. Else the kernel has applied it. */
  dontMask: boolean;
  /** The kernel leaves it to this process to clear set-user-id. */
  handleKillpriv: boolean;
  /** The kernel checks who may change the attributes of chattr(1). */
  fileAttributes: boolean;
  /** Who a calling thread is, by /proc; null: not to be seen from here. */
  readonly credentials: (pid: number) => Credentials | null;
  /** Is that thread, which waits for an answer, in rename(2)? null: it can not be told. */
  readonly isRenaming: (pid: number) => boolean | null;
  /** File locks of the cluster; null: each kernel keeps them to itself (-o localflocks). */
  readonly fileLocks: FileLocking | null;
  /** From now on, until the kernel forgets the inode, its FLUSHes come here: somebody may have a POSIX lock on it. */
  readonly askFlush: (inode: Inode) => void;
}

/** Waits for nothing where there is nothing to wait for. */
export function waiting<T>(value: T | Promise<T>): value is Promise<T> {
  return value instanceof Promise;
}

/** ESTALE: the kernel names an inode that it has forgotten, or one that there never was (placeholder-inodes.ts). */
export function inodeOf(mount: Mount, fuseNodeid: number): InodeRecord {
  const inode = mount.inodes.get(fuseNodeid);
  if (inode === undefined) {
    mount.standIns.asked(fuseNodeid);
    throw errnoError(E.ESTALE);
  }
  return inode;
}

/** `work` with an inode that the lower has told of: in use until that is over. */
export function remembered<T>({ inodes }: Mount, { id, attr }: Entry, work: (inode: InodeRecord) => MaybePromise<T>): MaybePromise<T> {
  const inode = inodes.remember(id, attr.mode);
  return finallyDo(
    () => work(inode),
    () => inodes.leave(inode),
  );
}

/** EBADF: not open. */
export function fileOf(mount: Mount, fh: number): OpenFile {
  const file = mount.handles.get(fh);
  if (file === undefined) throw errnoError(E.EBADF);
  return file;
}

/** Times that a name may turn into another file within one call before the call ends with EBUSY. */
const RESTARTS_MAX = 64;

/** `attempt`, until it gives true. False: a name has become another file meanwhile, and is looked at again. */
export function withRestarts(
  mount: Mount,
  op: string,
  attempt: (restart: number) => MaybePromise<boolean>,
  restart = 0,
): MaybePromise<void> {
  if (restart === RESTARTS_MAX) {
    mount.log.warn({ op, restarts: RESTARTS_MAX }, "the name turned into another file each time: EBUSY");
    throw errnoError(E.EBUSY);
  }
  return andThen(attempt(restart), (done) => (done ? undefined : withRestarts(mount, op, attempt, restart + 1)));
}
