/**
 * The decoders of the opcode table for names, attributes and extended attributes (decode-file.ts has the rest). Each is called
 * with a body of at least the row's size, so fixed fields are read without further checks; names, payloads and extensions are
 * checked here. Source of the layouts: include/uapi/linux/fuse.h.
 */
import { WireError } from "../../dlmd/base/error.ts";
import type { AttrChange } from "../lower/lower.ts";
import { FATTR, INIT_FLAG, INIT_IN_BYTES, REQUEST_FLAG } from "./abi.ts";
import { readI64, readSize, readU64 } from "./bytes.ts";
import { BODY, type Decode, GID, NO_GIDS, PID, UID, checkName, copy, lastName, stringEnd, supplementaryGids } from "./fields.ts";
import type * as R from "./request.ts";

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

function newDecodeMajor(rdev: number): number {
  return (rdev & 0xfff00) >>> 8;
}

function newDecodeMinor(rdev: number): number {
  return (rdev & 0xff) | ((rdev >>> 12) & 0xfff00);
}

export function refuse(name: string, errno: number): Decode {
  return (b, _end, _bytes, unique, fuseNodeid, opcode): R.UnservedRequest => ({
    op: "unserved",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    opcode,
    name,
    errno,
  });
}

export function init(b: Buffer, end: number, _bytes: number, unique: number, fuseNodeid: number): R.InitRequest {
  let flags = BigInt(b.readUInt32LE(BODY + 12));
  if ((flags & INIT_FLAG.FUSE_INIT_EXT) !== 0n) {
    if (end - BODY < INIT_IN_BYTES)
      throw new WireError(`FUSE_INIT with FUSE_INIT_EXT: ${INIT_IN_BYTES} bytes expected, ${end - BODY} found`);
    flags |= BigInt(b.readUInt32LE(BODY + 16)) << 32n;
  }
  return {
    op: "init",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    major: b.readUInt32LE(BODY),
    minor: b.readUInt32LE(BODY + 4),
    maxReadahead: b.readUInt32LE(BODY + 8),
    flags,
  };
}

export function lookup(b: Buffer, end: number, _bytes: number, unique: number, fuseNodeid: number): R.LookupRequest {
  return {
    op: "lookup",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    name: lastName(b, BODY, end, "FUSE_LOOKUP"),
  };
}

export function forget(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.ForgetRequest {
  return {
    op: "forget",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    fuseNodeids: [fuseNodeid],
    nlookups: [readU64(b, BODY)],
  };
}

export function batchForget(b: Buffer, end: number, _bytes: number, unique: number, fuseNodeid: number): R.ForgetRequest {
  const count = b.readUInt32LE(BODY);
  const room = Math.floor((end - BODY - 8) / 16);
  if (count > room) throw new WireError(`FUSE_BATCH_FORGET: ${count} entries expected, room for ${room} found`);
  const fuseNodeids: number[] = [];
  const nlookups: number[] = [];
  for (let i = 0; i < count; i++) {
    fuseNodeids.push(readU64(b, BODY + 8 + i * 16));
    nlookups.push(readU64(b, BODY + 16 + i * 16));
  }
  return {
    op: "forget",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    fuseNodeids,
    nlookups,
  };
}

export function getattr(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.GetattrRequest {
  return {
    op: "getattr",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    fh: (b.readUInt32LE(BODY) & REQUEST_FLAG.FUSE_GETATTR_FH) === 0 ? null : readU64(b, BODY + 8),
  };
}

/** sx_mask and sx_flags say nothing: the kernel sends the same each time, and all is answered. */
export function statx(b: Buffer, end: number, bytes: number, unique: number, fuseNodeid: number): R.GetattrRequest {
  return { ...getattr(b, end, bytes, unique, fuseNodeid), op: "statx" };
}

// struct fuse_setattr_in: valid 0, fh 8, size 16, lock_owner 24, atime 32, mtime 40, ctime 48, atimensec 56, mtimensec 60,
// ctimensec 64, mode 68, uid 76, gid 80.
export function setattr(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.SetattrRequest {
  const valid = b.readUInt32LE(BODY);
  const change: Mutable<AttrChange> = {};
  if ((valid & FATTR.FATTR_MODE) !== 0) change.mode = b.readUInt32LE(BODY + 68);
  if ((valid & FATTR.FATTR_UID) !== 0) change.uid = b.readUInt32LE(BODY + 76);
  if ((valid & FATTR.FATTR_GID) !== 0) change.gid = b.readUInt32LE(BODY + 80);
  if ((valid & FATTR.FATTR_SIZE) !== 0) change.size = readSize(b, BODY + 16);
  if ((valid & FATTR.FATTR_ATIME) !== 0) {
    change.atime = (valid & FATTR.FATTR_ATIME_NOW) === 0 ? { sec: readI64(b, BODY + 32), nsec: b.readUInt32LE(BODY + 56) } : "now";
  }
  if ((valid & FATTR.FATTR_MTIME) !== 0) {
    change.mtime = (valid & FATTR.FATTR_MTIME_NOW) === 0 ? { sec: readI64(b, BODY + 40), nsec: b.readUInt32LE(BODY + 60) } : "now";
  }
  if ((valid & FATTR.FATTR_KILL_SUIDGID) !== 0) change.killSuidgid = true;
  return {
    op: "setattr",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    fh: (valid & FATTR.FATTR_FH) === 0 ? null : readU64(b, BODY + 8),
    change,
  };
}

export function readlink(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.ReadlinkRequest {
  return {
    op: "readlink",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
  };
}

export function symlink(b: Buffer, end: number, bytes: number, unique: number, fuseNodeid: number): R.SymlinkRequest {
  const nul = stringEnd(b, BODY, end, "FUSE_SYMLINK");
  checkName(BODY, nul, "FUSE_SYMLINK");
  return {
    op: "symlink",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    name: copy(b, BODY, nul),
    target: lastName(b, nul + 1, end, "FUSE_SYMLINK target"),
    supplementaryGids: bytes === end ? NO_GIDS : supplementaryGids(b, end, bytes, "FUSE_SYMLINK"),
  };
}

export function mknod(b: Buffer, end: number, bytes: number, unique: number, fuseNodeid: number): R.MknodRequest {
  const rdev = b.readUInt32LE(BODY + 4);
  return {
    op: "mknod",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    name: lastName(b, BODY + 16, end, "FUSE_MKNOD"),
    mode: b.readUInt32LE(BODY),
    umask: b.readUInt32LE(BODY + 8),
    rdevMajor: newDecodeMajor(rdev),
    rdevMinor: newDecodeMinor(rdev),
    supplementaryGids: bytes === end ? NO_GIDS : supplementaryGids(b, end, bytes, "FUSE_MKNOD"),
  };
}

export function mkdir(b: Buffer, end: number, bytes: number, unique: number, fuseNodeid: number): R.MkdirRequest {
  return {
    op: "mkdir",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    name: lastName(b, BODY + 8, end, "FUSE_MKDIR"),
    mode: b.readUInt32LE(BODY),
    umask: b.readUInt32LE(BODY + 4),
    supplementaryGids: bytes === end ? NO_GIDS : supplementaryGids(b, end, bytes, "FUSE_MKDIR"),
  };
}

export function unlink(b: Buffer, end: number, _bytes: number, unique: number, fuseNodeid: number): R.UnlinkRequest {
  return {
    op: "unlink",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    name: lastName(b, BODY, end, "FUSE_UNLINK"),
  };
}

export function rmdir(b: Buffer, end: number, _bytes: number, unique: number, fuseNodeid: number): R.RmdirRequest {
  return {
    op: "rmdir",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    name: lastName(b, BODY, end, "FUSE_RMDIR"),
  };
}

function anyRename(b: Buffer, at: number, end: number, unique: number, fuseNodeid: number, flags: number): R.RenameRequest {
  const nul = stringEnd(b, at, end, "FUSE_RENAME");
  checkName(at, nul, "FUSE_RENAME");
  return {
    op: "rename",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    name: copy(b, at, nul),
    newFuseNodeid: readU64(b, BODY),
    newName: lastName(b, nul + 1, end, "FUSE_RENAME new name"),
    flags,
  };
}

export function rename(b: Buffer, end: number, _bytes: number, unique: number, fuseNodeid: number): R.RenameRequest {
  return anyRename(b, BODY + 8, end, unique, fuseNodeid, 0);
}

export function rename2(b: Buffer, end: number, _bytes: number, unique: number, fuseNodeid: number): R.RenameRequest {
  return anyRename(b, BODY + 16, end, unique, fuseNodeid, b.readUInt32LE(BODY + 8));
}

export function link(b: Buffer, end: number, _bytes: number, unique: number, fuseNodeid: number): R.LinkRequest {
  return {
    op: "link",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    targetFuseNodeid: readU64(b, BODY),
    name: lastName(b, BODY + 8, end, "FUSE_LINK"),
  };
}

export function removexattr(b: Buffer, end: number, _bytes: number, unique: number, fuseNodeid: number): R.RemovexattrRequest {
  return {
    op: "removexattr",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    name: lastName(b, BODY, end, "FUSE_REMOVEXATTR"),
  };
}

export function getxattr(b: Buffer, end: number, _bytes: number, unique: number, fuseNodeid: number): R.GetxattrRequest {
  return {
    op: "getxattr",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    name: lastName(b, BODY + 8, end, "FUSE_GETXATTR"),
    size: b.readUInt32LE(BODY),
  };
}

export function listxattr(b: Buffer, _end: number, _bytes: number, unique: number, fuseNodeid: number): R.ListxattrRequest {
  return {
    op: "listxattr",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    size: b.readUInt32LE(BODY),
  };
}

/**
 * fuse_setxattr_in has 8 bytes, or 16 with FUSE_SETXATTR_EXT. Which one it is can be told from the request itself: the length of
 * the name is what the header and the value leave over, and a name has no NUL inside, while the longer header, read as a name,
 * has some (its padding).
 */
export function setxattr(b: Buffer, end: number, _bytes: number, unique: number, fuseNodeid: number): R.SetxattrRequest {
  const size = b.readUInt32LE(BODY);
  const valueAt = end - size;
  if (valueAt < BODY + 10) throw new WireError(`FUSE_SETXATTR: value of ${size} bytes in a body of ${end - BODY}`);
  const extended = stringEnd(b, BODY + 8, valueAt, "FUSE_SETXATTR") !== valueAt - 1;
  if (extended && valueAt < BODY + 18) throw new WireError(`FUSE_SETXATTR: ${valueAt - BODY} bytes before the value`);
  return {
    op: "setxattr",
    unique,
    fuseNodeid,
    uid: b.readUInt32LE(UID),
    gid: b.readUInt32LE(GID),
    pid: b.readUInt32LE(PID),
    name: lastName(b, BODY + (extended ? 16 : 8), valueAt, "FUSE_SETXATTR"),
    value: b.subarray(valueAt, end),
    flags: b.readUInt32LE(BODY + 4),
    aclKillSgid: extended && (b.readUInt32LE(BODY + 8) & REQUEST_FLAG.FUSE_SETXATTR_ACL_KILL_SGID) !== 0,
  };
}
