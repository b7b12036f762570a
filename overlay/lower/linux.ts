/**
 * Constants of Linux system calls used on the lower (x86-64 and arm64 alike except where said); from
 * include/uapi/linux/{fcntl,fs,stat,falloc,openat2}.h and asm/fcntl.h.
 */
const arm64: boolean = process.arch === "arm64";
// asm/fcntl.h of arm64 has these two the other way.
const DIRECTORY: number = arm64 ? 0o40000 : 0o200000;
const NOFOLLOW: number = arm64 ? 0o100000 : 0o400000;

export const O: Readonly<
  Record<
    | "RDONLY"
    | "WRONLY"
    | "RDWR"
    | "ACCMODE"
    | "TRUNC"
    | "APPEND"
    | "NONBLOCK"
    | "DSYNC"
    | "SYNC"
    | "NOATIME"
    | "PATH"
    | "CLOEXEC"
    | "DIRECT"
    | "DIRECTORY"
    | "NOFOLLOW",
    number
  >
> = {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  ACCMODE: 3,
  TRUNC: 0o1000,
  APPEND: 0o2000,
  NONBLOCK: 0o4000,
  DSYNC: 0o10000,
  SYNC: 0o4010000,
  NOATIME: 0o1000000,
  PATH: 0o10000000,
  CLOEXEC: 0o2000000,
  DIRECT: arm64 ? 0o200000 : 0o40000,
  DIRECTORY,
  NOFOLLOW,
};

export const S = { IFMT: 0o170000, IFREG: 0o100000, IFDIR: 0o040000, ISUID: 0o4000, ISGID: 0o2000, IXGRP: 0o010 } as const;

export const AT_REMOVEDIR = 0x200;
export const RWF = { NOWAIT: 0x08, APPEND: 0x10 } as const;
export const SEEK = { SET: 0, CUR: 1, DATA: 3, HOLE: 4 } as const;
export const UTIME_NOW: number = (1 << 30) - 1;
export const UTIME_OMIT: number = (1 << 30) - 2;
export const NAME_MAX = 255;
/** acl(5) */
export const ACCESS_ACL: Buffer = Buffer.from("system.posix_acl_access");
export const DEFAULT_ACL: Buffer = Buffer.from("system.posix_acl_default");
export const XATTR_SIZE_MAX = 65_536;
export const XATTR_LIST_MAX = 65_536;
export const PATH_MAX = 4096;

/** Of renameat2(2) (include/uapi/linux/fs.h). */
export const RENAME = { NOREPLACE: 1, EXCHANGE: 2 } as const;
