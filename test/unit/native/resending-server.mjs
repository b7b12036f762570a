/**
 * The program that a keeper starts, for keeper.test.ts: has the kernel send again what was not answered (FUSE_NOTIFY_RESEND, include/uapi/linux/fuse.h), answers
 * LOOKUPs with ENODATA, READs with five bytes and nothing else, says that it serves, and ends with the mount.
 */
import { createRequire } from "node:module";
import { constants } from "node:os";
import { Socket } from "node:net";

const FUSE_FD = 4;
const LOOKUP = 1;
const FORGET = 2;
const READ = 15;
const native = createRequire(import.meta.url)("../../../native/build/Release/coverlay.node");
const line = new Socket({ fd: 3 });
const buffer = Buffer.alloc(1 << 20);

function outHeader(error, unique, bodyBytes = 0) {
  const header = Buffer.alloc(16);
  header.writeUInt32LE(16 + bodyBytes, 0);
  header.writeInt32LE(error, 4);
  header.writeBigUInt64LE(unique, 8);
  return header;
}

native.deviceStart(
  FUSE_FD,
  buffer,
  1,
  (bytes) => {
    const opcode = buffer.readUInt32LE(4);
    const unique = buffer.readBigUInt64LE(8);
    if (opcode === FORGET) return;
    if (opcode === LOOKUP) console.error(`LOOKUP of ${buffer.toString("utf8", 40, bytes - 1)}, resent: ${unique >= 1n << 63n}`);
    if (opcode === READ) native.deviceWrite(FUSE_FD, Buffer.concat([outHeader(0, unique, 5), Buffer.from("again")]), 21);
    else native.deviceWrite(FUSE_FD, outHeader(opcode === LOOKUP ? -constants.errno.ENODATA : -constants.errno.ENOSYS, unique), 16);
    line.write("s");
  },
  () => process.exit(0),
);
native.deviceWrite(FUSE_FD, outHeader(7, 0n), 16);
