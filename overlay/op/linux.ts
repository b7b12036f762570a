/** Constants of Linux that requests carry (include/uapi/asm-generic/fcntl.h, linux/fs.h, linux/stat.h); the same on x86-64 and arm64. */
export const O_ACCMODE = 0o3;
export const O_RDONLY = 0;
export const O_RDWR = 0o2;
export const O_EXCL = 0o200;
export const O_TRUNC = 0o1000;
/** Hazard F30: the other of the two bits is O_DIRECTORY there, which a file has that was opened with O_TMPFILE (asm/fcntl.h). */
export const O_DIRECT: number = process.arch === "arm64" ? 0o200000 : 0o040000;
/** O_DIRECTORY and __O_TMPFILE. */
export const O_TMPFILE: number = 0o20000000 | (process.arch === "arm64" ? 0o040000 : 0o200000);
export const O_APPEND = 0o2000;
export const FALLOC_FL_KEEP_SIZE = 1;
export const FALLOC_FL_PUNCH_HOLE = 2;
export const FALLOC_FL_ZERO_RANGE = 0x10;

export const S_IFMT = 0o170000;
export const S_IFREG = 0o100000;
export const S_IFDIR = 0o040000;
/** readdir(3) */
export const DT_DIR = 4;
export const S_ISUID = 0o4000;
export const S_ISGID = 0o2000;
export const S_IXGRP = 0o010;

export const SEEK_SET = 0;

export const RENAME_EXCHANGE = 2;
