/**
 * IOCTL: the attributes of lsattr(1), chattr(1) and project quotas, as fs/fuse/ioctl.c (fuse_fileattr_get, fuse_fileattr_set) sends them. The kernel has
 * checked who may change them (fs/file_attr.c, vfs_fileattr_set), and holds the inode's lock meanwhile. It keeps none of them: each open and each change is refused
 * by the lower itself. What it compared with may be outdated by another node, and so may the owner (hazard F36): both are looked at again under the lock.
 */
import { E, errnoError } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { IoctlRequest } from "../fuse/request.ts";
import type { OpenFile } from "../inode/handles.ts";
import type { InodeRecord } from "../inode/table.ts";
import { changeFor } from "../lower/lower.ts";
import { andThen, type MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Call } from "./call.ts";
import { changed } from "./change.ts";
import { type Mount, fileOf } from "./mount.ts";
import { checkOwner } from "./ownership.ts";
import { seenCaller } from "./permission.ts";
import { pinned } from "./pinned.ts";

const CAP_LINUX_IMMUTABLE = 1n << 9n;
/** FS_IMMUTABLE_FL and FS_APPEND_FL; FS_XFLAG_IMMUTABLE and FS_XFLAG_APPEND (include/uapi/linux/fs.h). */
const UNCHANGEABLE = { flags: 0x30, fsxattr: 0x18 } as const;

function maySetUnchangeable(mount: Mount, { pid, uid }: IoctlRequest): boolean {
  const who = seenCaller(mount, { pid, uid });
  return who === null ? uid === 0 : (who.capabilities & CAP_LINUX_IMMUTABLE) !== 0n;
}

export function ioctl(mount: Mount, call: Call, request: IoctlRequest): MaybePromise<void> {
  const file = fileOf(mount, request.fh);
  // Before Linux 5.13 the kernel passes such a call on unchecked.
  if (!mount.fileAttributes) throw errnoError(E.ENOTTY);
  const { kind, value } = request;
  // Cached nowhere, so without a lock; and a change asks with the inode's lock held.
  if (value === null) return andThen(mount.lower.fileAttributes(file.lowerHandle, kind), (found) => void call.ioctl(found));
  mount.coherence.sizes.locked(file.inode, call);
  return pinned(mount, call, file.inode, Mode.EX, () =>
    andThen(checkOwner(mount, call, file.inode), () =>
      andThen(mount.lower.fileAttributes(file.lowerHandle, kind), (now) => {
        const toggles = ((now.readUInt32LE(0) ^ value.readUInt32LE(0)) & UNCHANGEABLE[kind]) !== 0;
        if (toggles && !maySetUnchangeable(mount, request)) throw errnoError(E.EPERM);
        const set = (): MaybePromise<void> => mount.lower.setFileAttributes(file.lowerHandle, kind, value);
        return change(mount, call, file, () => changeFor(mount.lower, call.unique, set));
      }),
    ),
  );
}

/**
 * Hazard F27: an immutable file takes no more writes. So what programs of this node were told to be written, and what they stored in mappings, is on the lower
 * before. On other nodes the revoke has seen to that.
 */
async function change(mount: Mount, call: Call, { inode }: OpenFile, make: () => MaybePromise<void>): Promise<void> {
  const { coherence, lower } = mount;
  await lower.writtenBehind();
  if (inode.mappableCount > 0) await coherence.dropKernelCaches([inode], true);
  await changed(mount, call, [inode], make);
  await answerSet(mount, call, inode);
}

/** Hazard F38: the process before has set them. */
export function ioctlMade(mount: Mount, call: Call, request: IoctlRequest): MaybePromise<void> {
  const { inode } = fileOf(mount, request.fh);
  mount.coherence.sizes.locked(inode, call);
  return pinned(mount, call, inode, Mode.EX, () => answerSet(mount, call, inode));
}

async function answerSet({ coherence }: Mount, call: Call, inode: InodeRecord): Promise<void> {
  // The kernel marks nothing: not the caller's own, either.
  await coherence.attributesChanged(inode, 0, !call.interrupted);
  call.ioctl(null);
}
