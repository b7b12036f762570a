/**
 * The program that a keeper starts, for keeper.test.ts: has the kernel send again what was not answered (FUSE_NOTIFY_RESEND, include/uapi/linux/fuse.h), answers
 * that with ENODATA, says that it serves, and ends with the mount.
 */
import { createRequire } from "node:module";
import { constants } from "node:os";
import { Socket } from "node:net";

const FUSE_FD = 4;
const LOOKUP = 1;
const native = createRequire(import.meta.url)("../../../native/build/Release/coverlay.node");
const line = new Socket({ fd: 3 });
const buffer = Buffer.alloc(1 << 20);

function outHeader(error, unique) {
  const header = Buffer.alloc(16);
  header.writeUInt32LE(16, 0);
  header.writeInt32LE(error, 4);
  header.writeBigUInt64LE(unique, 8);
  return header;
}

native.deviceStart(
  FUSE_FD,
  buffer,
  1,
  (bytes) => {
    if (buffer.readUInt32LE(4) !== LOOKUP) return;
    const unique = buffer.readBigUInt64LE(8);
    console.error(`LOOKUP of ${buffer.toString("utf8", 40, bytes - 1)}, resent: ${unique >= 1n << 63n}`);
    native.deviceWrite(FUSE_FD, outHeader(-constants.errno.ENODATA, unique), 16);
    line.write("s");
  },
  () => process.exit(0),
);
native.deviceWrite(FUSE_FD, outHeader(7, 0n), 16);
