/** OPEN, RELEASE, FLUSH, OPENDIR, RELEASEDIR: handles. */
import type { ReplyTerms } from "../coherence/terms.ts";
import { lockFile, releaseLocks } from "../file-lock/api.ts";
import { FOPEN } from "../fuse/abi.ts";
import type { FlushRequest, OpendirRequest, OpenRequest, ReleasedirRequest, ReleaseRequest } from "../fuse/request.ts";
import type { OpenFile } from "../inode/handles.ts";
import type { InodeRecord } from "../inode/table.ts";
import type { Attr, LowerHandle } from "../lower/lower.ts";
import { andThen, withErrors, type MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Call } from "./call.ts";
import { O_ACCMODE, O_APPEND, O_RDONLY, O_RDWR, O_TRUNC } from "./linux.ts";
import { type Mount, inodeOf } from "./mount.ts";

/**
 * KEEP_CACHE: pages that are there at an open are covered by the lock, because a revoke leaves none. NOFLUSH (5.16), where file locks stay in the
 * kernel: nothing else is held back here, so close(2) has nothing to tell. Of file locks it has: a process loses all that it has on a file when it closes it.
 */
export function openFlags(mount: Mount, file: OpenFile): number {
  const how = file.cached ? FOPEN.FOPEN_KEEP_CACHE : FOPEN.FOPEN_DIRECT_IO;
  return mount.fileLocks === null ? how | FOPEN.FOPEN_NOFLUSH : how;
}

/**
 * Whether a handle that may write has a page cache. One that appends never has: while a file grows elsewhere the kernel does not know
 * where its end is (hazard F5), and would keep what is appended under the wrong offset.
 */
export function writeAccess(
  mount: Mount,
  call: Call,
  inode: InodeRecord,
  flags: number,
  isMadeHere = false,
): MaybePromise<"cached" | "direct"> {
  if ((flags & O_APPEND) !== 0) return "direct";
  return andThen(mount.coherence.openForWrite(inode, call, isMadeHere), (access) =>
    access === "cached" ? andThen(mount.coherence.sizes.settled(inode), () => access) : access,
  );
}

/** Enters an open file; `access`: what openForWrite said, null for a handle that can not write. `flags`: the caller's. */
export function enterFile(
  mount: Mount,
  inode: InodeRecord,
  handle: LowerHandle,
  access: "cached" | "direct" | null,
  flags: number,
): OpenFile {
  const mappable = access === "cached" && (flags & O_ACCMODE) === O_RDWR;
  const file = mount.handles.add(inode, handle, access !== null, access !== "direct", access === "cached", mappable);
  mount.inodes.opened(inode, file.mappable);
  return file;
}

/** Never waits (hazard F11). */
export function closeFile(mount: Mount, file: OpenFile): void {
  mount.lower.close(file.lowerHandle);
  if (file.writeToken) mount.coherence.closeForWrite(file.inode);
  mount.inodes.closed(file.inode, file.mappable);
}

/** Without O_TRUNC, which comes as a SETATTR (fuse/init.ts). */
export function open(mount: Mount, call: Call, request: OpenRequest): MaybePromise<void> {
  const inode = inodeOf(mount, request.fuseNodeid);
  const writes = (request.flags & O_ACCMODE) !== O_RDONLY;
  return andThen(writes ? writeAccess(mount, call, inode, request.flags) : null, (access) => {
    const opening = withErrors(
      () => mount.lower.open(inode.id, request.flags & ~O_TRUNC),
      (error) => {
        if (access === "cached") mount.coherence.closeForWrite(inode);
        throw error;
      },
    );
    return andThen(opening, (handle) => {
      const file = enterFile(mount, inode, handle, access, request.flags);
      giveFile(mount, call, file, openFlags(mount, file));
    });
  });
}

function giveFile(mount: Mount, call: Call, file: OpenFile, flags: number): void {
  if (!mount.handles.give(call, file, () => call.open(file.fh, flags))) forgetFile(mount, file);
}

/** The answer tells the kernel of the inode and of the handle. */
export function giveCreated(mount: Mount, call: Call, file: OpenFile, attr: Attr, terms: ReplyTerms): void {
  const { handles, inodes } = mount;
  const answer = (): boolean => call.create(file.inode, attr, terms, file.fh, openFlags(mount, file));
  if (!inodes.tell(file.inode, () => handles.give(call, file, answer))) forgetFile(mount, file);
}

/** The kernel was not told of it. */
export function forgetFile(mount: Mount, file: OpenFile): void {
  if (mount.handles.take(file.fh) !== undefined) closeFile(mount, file);
}

export function release(mount: Mount, call: Call, request: ReleaseRequest | ReleasedirRequest): void {
  const file = mount.handles.get(request.fh);
  if (file !== undefined) {
    // First: after a crash between the two the handle is open still, and closed once more.
    if (!file.directory) releaseLocks(mount.fileLocks, file.inode, file.fh);
    mount.handles.take(request.fh);
    closeFile(mount, file);
  }
  call.empty();
}

/**
 * Of a file on which a POSIX lock was asked for; the addon answers it for all others (Mount.askFlush). Waits for the end of the process's file
 * locks, a moment (CLOSE_WAIT_MS), and for nothing else (hazard F11).
 */
export function flush(mount: Mount, call: Call, request: FlushRequest): MaybePromise<void> {
  const file = mount.handles.get(request.fh);
  const given = file === undefined ? undefined : mount.fileLocks?.closed(lockFile(file.inode), request.lockOwner);
  return andThen(given, () => void call.empty());
}

/** No FOPEN_CACHE_DIR: a listing that the kernel kept could be installed after a revoke (hazard F4). */
export function opendir(mount: Mount, call: Call, request: OpendirRequest): MaybePromise<void> {
  const inode = inodeOf(mount, request.fuseNodeid);
  return andThen(mount.lower.opendir(inode.id), (handle) => {
    const file = enterFile(mount, inode, handle, null, O_RDONLY);
    giveFile(mount, call, file, 0);
  });
}
