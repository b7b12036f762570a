/** The local lower: attributes of lsattr(1) and chattr(1), project ids. ioctl_fs(2): FS_IOC_GETFLAGS, FS_IOC_FSGETXATTR. */
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { FSXATTR_BYTES } from "../../../native/index.ts";
import { type LocalContext, sameId } from "./context.ts";
import type { AttributesKind, LowerHandle } from "../lower.ts";
import { andThen, checked, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";

/** For each kind, include/uapi/linux/fs.h: these alone may not be set where they are not set yet. */
const REFUSED = {
  // FS_SYNC_FL, FS_DIRSYNC_FL: what is written behind, and a change of names at once, would not obey them. FS_CASEFOLD_FL: what is known of names goes by their bytes.
  flags: 0x8 | 0x1_0000 | 0x4000_0000,
  // FS_XFLAG_SYNC
  fsxattr: 0x20,
} as const;
/** FS_IMMUTABLE_FL and FS_APPEND_FL; FS_XFLAG_IMMUTABLE and FS_XFLAG_APPEND. */
const UNCHANGEABLE = { flags: 0x30, fsxattr: 0x18 } as const;
export const FLAGS_BYTES = 4;

export function fileAttributes(context: LocalContext, handle: LowerHandle, kind: AttributesKind): MaybePromise<Buffer> {
  // In the pool: as lsattr(1) asks, once for each file.
  const { metadata } = context.native.pool;
  return context.handles.use(context.handles.get(handle), (fd) => {
    if (kind === "flags")
      return andThen(metadata.fileFlags(fd), (result) => {
        const value = Buffer.alloc(FLAGS_BYTES);
        value.writeInt32LE(checked(result) | 0);
        return value;
      });
    const value = Buffer.alloc(FSXATTR_BYTES);
    return andThen(metadata.fsxattr(fd, value), (result) => {
      checked(result);
      return value;
    });
  });
}

export function setFileAttributes(context: LocalContext, handle: LowerHandle, kind: AttributesKind, value: Buffer): MaybePromise<void> {
  if (value.length !== (kind === "flags" ? FLAGS_BYTES : FSXATTR_BYTES)) throw errnoError(E.EINVAL);
  const wanted = value.readUInt32LE(0);
  const { id } = context.handles.get(handle);
  // The next owner writes to the root before it serves, and a file without a name has to go some day.
  if ((wanted & UNCHANGEABLE[kind]) !== 0 && (sameId(id, context.root) || context.orphans.has(id))) throw errnoError(E.EPERM);
  return andThen(fileAttributes(context, handle, kind), (before) => {
    if ((wanted & ~before.readUInt32LE(0) & REFUSED[kind]) !== 0) throw errnoError(E.EOPNOTSUPP);
    return set(context, handle, kind, value);
  });
}

function set(context: LocalContext, handle: LowerHandle, kind: AttributesKind, value: Buffer): MaybePromise<void> {
  // It may wait for data on its way to the disk (fs/ext4/ioctl.c, ext4_ioctl_setflags).
  const { metadata } = context.native.pool;
  const setOf = (fd: number): MaybePromise<number> =>
    kind === "flags" ? metadata.setFileFlags(fd, value.readInt32LE(0)) : metadata.setFsxattr(fd, value);
  return context.handles.use(context.handles.get(handle), (fd) => andThen(setOf(fd), (result) => void checked(result)));
}
