/**
 * One table, a row per opcode: its name, whether it is served, the least size of its body, and what decodes it. What is not
 * served is answered with the row's errno on purpose; the comment says what the kernel (fs/fuse of Linux 6.18) makes of it.
 */
import { E } from "../../dlmd/base/errno.ts";
import { COMPAT_INIT_IN_BYTES, IOCTL_IN_BYTES, LK_IN_BYTES, OPCODE as O, STATX_IN_BYTES, WRITE_IN_BYTES } from "./abi.ts";
import * as decode from "./decode.ts";
import * as file from "./decode-file.ts";
import type { Decode } from "./fields.ts";

export interface OpcodeRow {
  readonly opcode: number;
  /** The kernel's name. */
  readonly name: string;
  readonly served: boolean;
  /** What an unserved one is answered with; 0 if it is served. */
  readonly errno: number;
  /** Why it is not served. */
  readonly why: string;
  /** The least number of bytes after the in header, variable parts not counted. */
  readonly bodyBytes: number;
  readonly decode: Decode;
}

function served(opcode: number, name: string, bodyBytes: number, decoder: Decode): OpcodeRow {
  return { opcode, name, served: true, errno: 0, why: "", bodyBytes, decode: decoder };
}

// Only the header is read of what is not served.
function refused(opcode: number, name: string, errno: number, why: string): OpcodeRow {
  return { opcode, name, served: false, errno, why, bodyBytes: 0, decode: decode.refuse(name, errno) };
}

export const opcodeTable: readonly OpcodeRow[] = [
  served(O.FUSE_LOOKUP, "FUSE_LOOKUP", 0, decode.lookup),
  served(O.FUSE_FORGET, "FUSE_FORGET", 8, decode.forget),
  served(O.FUSE_GETATTR, "FUSE_GETATTR", 16, decode.getattr),
  served(O.FUSE_SETATTR, "FUSE_SETATTR", 88, decode.setattr),
  served(O.FUSE_READLINK, "FUSE_READLINK", 0, decode.readlink),
  served(O.FUSE_SYMLINK, "FUSE_SYMLINK", 0, decode.symlink),
  served(O.FUSE_MKNOD, "FUSE_MKNOD", 16, decode.mknod),
  served(O.FUSE_MKDIR, "FUSE_MKDIR", 8, decode.mkdir),
  served(O.FUSE_UNLINK, "FUSE_UNLINK", 0, decode.unlink),
  served(O.FUSE_RMDIR, "FUSE_RMDIR", 0, decode.rmdir),
  served(O.FUSE_RENAME, "FUSE_RENAME", 8, decode.rename),
  served(O.FUSE_LINK, "FUSE_LINK", 8, decode.link),
  served(O.FUSE_OPEN, "FUSE_OPEN", 8, file.open),
  served(O.FUSE_READ, "FUSE_READ", 40, file.read),
  served(O.FUSE_WRITE, "FUSE_WRITE", WRITE_IN_BYTES, file.write),
  served(O.FUSE_STATFS, "FUSE_STATFS", 0, file.statfs),
  served(O.FUSE_RELEASE, "FUSE_RELEASE", 24, file.release),
  served(O.FUSE_FSYNC, "FUSE_FSYNC", 16, file.fsync),
  served(O.FUSE_SETXATTR, "FUSE_SETXATTR", 8, decode.setxattr),
  served(O.FUSE_GETXATTR, "FUSE_GETXATTR", 8, decode.getxattr),
  served(O.FUSE_LISTXATTR, "FUSE_LISTXATTR", 8, decode.listxattr),
  served(O.FUSE_REMOVEXATTR, "FUSE_REMOVEXATTR", 0, decode.removexattr),
  served(O.FUSE_FLUSH, "FUSE_FLUSH", 24, file.flush),
  served(O.FUSE_INIT, "FUSE_INIT", COMPAT_INIT_IN_BYTES, decode.init),
  served(O.FUSE_OPENDIR, "FUSE_OPENDIR", 8, file.opendir),
  served(O.FUSE_READDIR, "FUSE_READDIR", 40, file.readdir),
  served(O.FUSE_RELEASEDIR, "FUSE_RELEASEDIR", 24, file.releasedir),
  served(O.FUSE_FSYNCDIR, "FUSE_FSYNCDIR", 16, file.fsyncdir),
  // Without POSIX_LOCKS and FLOCK_LOCKS in INIT (-o localflocks) the kernel keeps file locks to itself and never asks.
  served(O.FUSE_GETLK, "FUSE_GETLK", LK_IN_BYTES, file.getlk),
  served(O.FUSE_SETLK, "FUSE_SETLK", LK_IN_BYTES, file.setlk),
  served(O.FUSE_SETLKW, "FUSE_SETLKW", LK_IN_BYTES, file.setlkw),
  // ENOSYS: remembered as "always allowed". Never sent with default_permissions.
  refused(O.FUSE_ACCESS, "FUSE_ACCESS", E.ENOSYS, "the kernel checks (default_permissions)"),
  served(O.FUSE_CREATE, "FUSE_CREATE", 16, file.create),
  served(O.FUSE_INTERRUPT, "FUSE_INTERRUPT", 8, file.interrupt),
  // ENOSYS: remembered; FIBMAP says EINVAL. Sent for block devices (fuseblk) only.
  refused(O.FUSE_BMAP, "FUSE_BMAP", E.ENOSYS, "no block device"),
  served(O.FUSE_DESTROY, "FUSE_DESTROY", 0, file.destroy),
  // All but those for file attributes: ENOTTY. Older kernels hand that to the caller as it is, and isatty(3) expects it.
  served(O.FUSE_IOCTL, "FUSE_IOCTL", IOCTL_IN_BYTES, file.ioctl),
  // ENOSYS: remembered as "always ready", which is what regular files are.
  refused(O.FUSE_POLL, "FUSE_POLL", E.ENOSYS, "always ready"),
  served(O.FUSE_NOTIFY_REPLY, "FUSE_NOTIFY_REPLY", 40, file.notifyReply),
  served(O.FUSE_BATCH_FORGET, "FUSE_BATCH_FORGET", 8, decode.batchForget),
  served(O.FUSE_FALLOCATE, "FUSE_FALLOCATE", 32, file.fallocate),
  served(O.FUSE_READDIRPLUS, "FUSE_READDIRPLUS", 40, file.readdirplus),
  served(O.FUSE_RENAME2, "FUSE_RENAME2", 16, decode.rename2),
  served(O.FUSE_LSEEK, "FUSE_LSEEK", 24, file.lseek),
  served(O.FUSE_COPY_FILE_RANGE, "FUSE_COPY_FILE_RANGE", 56, file.copyFileRange),
  refused(O.FUSE_SETUPMAPPING, "FUSE_SETUPMAPPING", E.ENOSYS, "no DAX"),
  refused(O.FUSE_REMOVEMAPPING, "FUSE_REMOVEMAPPING", E.ENOSYS, "no DAX"),
  served(O.FUSE_SYNCFS, "FUSE_SYNCFS", 8, file.syncfs),
  // From Linux 6.1 on: before, open(O_TMPFILE) is EOPNOTSUPP. As CREATE; the name is "/", and stands for none (vfs_tmpfile).
  served(O.FUSE_TMPFILE, "FUSE_TMPFILE", 16, file.tmpfile),
  // Instead of GETATTR, where the birth time is asked for and not known yet. From Linux 6.6 on; without a flag in INIT.
  served(O.FUSE_STATX, "FUSE_STATX", STATX_IN_BYTES, decode.statx),
  // ENOSYS: remembered, and COPY_FILE_RANGE is used instead, whose count of 32 bits no call exceeds anyway.
  refused(O.FUSE_COPY_FILE_RANGE_64, "FUSE_COPY_FILE_RANGE_64", E.ENOSYS, "COPY_FILE_RANGE does the same"),
];

const byOpcode: (OpcodeRow | undefined)[] = [];
for (const row of opcodeTable) byOpcode[row.opcode] = row;

/** The row of any opcode; ENOSYS for one that is newer than this table. */
export function opcodeRow(opcode: number): OpcodeRow {
  return byOpcode[opcode] ?? refused(opcode, `opcode ${opcode}`, E.ENOSYS, "unknown here");
}
