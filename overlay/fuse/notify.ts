/**
 * Notifications to the kernel, each a Buffer for one write to /dev/fuse: a fuse_out_header with unique 0 and the code in `error`.
 * Source: fuse_notify in fs/fuse/dev.c; what each waits for and misses: hazards F1, F4, F5, F6. Never written by the serving thread.
 *
 * Results that are not failures: ENOENT, the kernel does not know the inode or the name (hazard F4 says when that is success).
 */
import { AssertionError } from "../../dlmd/base/assert.ts";
import { FUSE_EXPIRE_ONLY, NOTIFY, OUT_HEADER_BYTES } from "./abi.ts";
import { write64 } from "./bytes.ts";

/** The most bytes that a name in a notification may have: FUSE_NAME_MAX of older kernels. */
export const MAX_NOTIFY_NAME_BYTES = 1024;

function message(code: number, bodyBytes: number): Buffer {
  const buffer = Buffer.alloc(OUT_HEADER_BYTES + bodyBytes);
  buffer.writeUInt32LE(buffer.length, 0);
  buffer.writeInt32LE(code, 4);
  return buffer;
}

/**
 * Drops the attributes and cached ACLs of an inode and, with `offset` >= 0, its pages in [offset, offset + length), to the end with
 * `length` <= 0. So (0n, 0n) drops everything, (-1n, 0n) the attributes only. Waits for pages that a request holds (hazard F1).
 */
export function notifyInvalInode(fuseNodeid: number, offset: bigint, length: bigint): Buffer {
  const buffer = message(NOTIFY.FUSE_NOTIFY_INVAL_INODE, 24);
  write64(buffer, OUT_HEADER_BYTES, fuseNodeid);
  buffer.writeBigInt64LE(offset, OUT_HEADER_BYTES + 8);
  buffer.writeBigInt64LE(length, OUT_HEADER_BYTES + 16);
  return buffer;
}

export const INVAL_INODE_BYTES: number = OUT_HEADER_BYTES + 24;

/** `notifyInvalInode(..., 0n, 0n)` of each of these, one after the other, INVAL_INODE_BYTES each. */
export function notifyInvalInodes(fuseNodeids: readonly number[]): Buffer {
  const one = notifyInvalInode(0, 0n, 0n);
  const all = Buffer.allocUnsafe(fuseNodeids.length * INVAL_INODE_BYTES);
  let at = 0;
  for (const fuseNodeid of fuseNodeids) {
    all.set(one, at);
    write64(all, at + OUT_HEADER_BYTES, fuseNodeid);
    at += INVAL_INODE_BYTES;
  }
  return all;
}

function writeName(buffer: Buffer, at: number, name: Buffer): void {
  if (name.length <= 0 || name.length > MAX_NOTIFY_NAME_BYTES)
    throw new AssertionError(`name of ${name.length} bytes, 1..${MAX_NOTIFY_NAME_BYTES} allowed`);
  buffer.set(name, at);
}

/**
 * Drops a name, positive or negative, and what lies under it. With `expireOnly` (negotiated.entryExpire) the entry is only looked up
 * again before its next use, and inode and pages stay if it is still the same. Waits for an operation on the directory.
 */
export function notifyInvalEntry(parentFuseNodeid: number, name: Buffer, expireOnly: boolean): Buffer {
  const buffer = message(NOTIFY.FUSE_NOTIFY_INVAL_ENTRY, 16 + name.length + 1);
  write64(buffer, OUT_HEADER_BYTES, parentFuseNodeid);
  buffer.writeUInt32LE(name.length, OUT_HEADER_BYTES + 8);
  buffer.writeUInt32LE(expireOnly ? FUSE_EXPIRE_ONLY : 0, OUT_HEADER_BYTES + 12);
  writeName(buffer, OUT_HEADER_BYTES + 16, name);
  return buffer;
}

/**
 * Asks for what the page cache has from `offset` on, whoever has it locked: it comes as NOTIFY_REPLY with this number, in order with the
 * requests. Newer kernels end it before a page that is not up to date (fs/fuse/dev.c, fuse_retrieve). Waits for nothing but, where the kernel lets
 * go of the inode with it, for that: so only of an inode that somebody has in use.
 */
export function notifyRetrieve(unique: number, fuseNodeid: number, offset: bigint, bytes: number): Buffer {
  const buffer = message(NOTIFY.FUSE_NOTIFY_RETRIEVE, 32);
  write64(buffer, OUT_HEADER_BYTES, unique);
  write64(buffer, OUT_HEADER_BYTES + 8, fuseNodeid);
  buffer.writeBigUInt64LE(offset, OUT_HEADER_BYTES + 16);
  buffer.writeUInt32LE(bytes, OUT_HEADER_BYTES + 24);
  return buffer;
}

/** Puts `data` into the page cache at `offset`, and makes the file at least that long in the kernel's eyes (hazard F5). */
export function notifyStore(fuseNodeid: number, offset: bigint, data: Uint8Array): Buffer {
  const buffer = message(NOTIFY.FUSE_NOTIFY_STORE, 24 + data.byteLength);
  write64(buffer, OUT_HEADER_BYTES, fuseNodeid);
  buffer.writeBigUInt64LE(offset, OUT_HEADER_BYTES + 8);
  buffer.writeUInt32LE(data.byteLength, OUT_HEADER_BYTES + 16);
  buffer.set(data, OUT_HEADER_BYTES + 24);
  return buffer;
}

/**
 * The name `name` of `childFuseNodeid` was removed elsewhere: unlike INVAL_ENTRY it tells inotify and unhashes the name even while it is in
 * use. ENOTEMPTY, EBUSY: a directory with children known here, or a mount point.
 */
export function notifyDelete(parentFuseNodeid: number, childFuseNodeid: number, name: Buffer): Buffer {
  const buffer = message(NOTIFY.FUSE_NOTIFY_DELETE, 24 + name.length + 1);
  write64(buffer, OUT_HEADER_BYTES, parentFuseNodeid);
  write64(buffer, OUT_HEADER_BYTES + 8, childFuseNodeid);
  buffer.writeUInt32LE(name.length, OUT_HEADER_BYTES + 16);
  writeName(buffer, OUT_HEADER_BYTES + 24, name);
  return buffer;
}

/** Every entry of the mount is looked up again before its next use (negotiated.incEpoch). Waits for nothing; hazard F6. */
export function notifyIncEpoch(): Buffer {
  return message(NOTIFY.FUSE_NOTIFY_INC_EPOCH, 0);
}

/**
 * Every request that was read and not answered comes once more, with the highest bit of its `unique` set, by which it must be answered then (Linux 6.9;
 * fs/fuse/dev.c, fuse_resend). FORGETs and replies to RETRIEVE do not. Waits for nothing.
 */
export function notifyResend(): Buffer {
  return message(NOTIFY.FUSE_NOTIFY_RESEND, 0);
}
