/**
 * A process that serves a mount at argv[2], with a file "f", and has a keeper, argv[3], whose program is resending-server.mjs. It does not answer READ, but has a
 * thread drop the pages of the file then, which waits for the page of that READ: it does not end with SIGKILL.
 */
import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { constants } from "node:os";
import path from "node:path";

const OPCODE = { LOOKUP: 1, FORGET: 2, GETATTR: 3, OPEN: 14, READ: 15, INIT: 26 };
const FILE_NODEID = 2n;
const native = createRequire(import.meta.url)("../../../native/build/Release/coverlay.node");
const [, , mountPoint, keeper] = process.argv;
mkdirSync(mountPoint);
const fd = native.fuseOpen();
if (native.mount("stuck", mountPoint, "fuse", 0, `fd=${fd},rootmode=40000,user_id=0,group_id=0`) !== 0) process.exit(2);
const buffer = Buffer.alloc(1 << 20);

function answer(error, unique, ...body) {
  const bytes = Buffer.concat([Buffer.alloc(16), ...body]);
  bytes.writeUInt32LE(bytes.length, 0);
  bytes.writeInt32LE(-error, 4);
  bytes.writeBigUInt64LE(unique, 8);
  native.deviceWrite(fd, bytes, bytes.length);
}

function attr(nodeid) {
  const bytes = Buffer.alloc(88);
  bytes.writeBigUInt64LE(nodeid, 0);
  bytes.writeBigUInt64LE(5n, 8);
  bytes.writeUInt32LE(nodeid === FILE_NODEID ? 0o100644 : 0o040755, 60);
  bytes.writeUInt32LE(1, 64);
  return bytes;
}

function init() {
  const body = Buffer.alloc(64);
  body.writeUInt32LE(7, 0);
  body.writeUInt32LE(31, 4);
  body.writeUInt32LE(131072, 20);
  body.writeUInt32LE(1, 24);
  return body;
}

function dropPages() {
  const message = Buffer.alloc(40);
  message.writeUInt32LE(40, 0);
  message.writeInt32LE(2, 4);
  message.writeBigUInt64LE(FILE_NODEID, 16);
  void native.notify(fd, [message]);
}

native.deviceStart(
  fd,
  buffer,
  1,
  () => {
    const unique = buffer.readBigUInt64LE(8);
    const nodeid = buffer.readBigUInt64LE(16);
    const number = Buffer.alloc(40);
    number.writeBigUInt64LE(FILE_NODEID, 0);
    // Valid for so many seconds.
    const valid = Buffer.alloc(16);
    valid.writeBigUInt64LE(86400n, 0);
    switch (buffer.readUInt32LE(4)) {
      case OPCODE.INIT:
        return answer(0, unique, init());
      case OPCODE.LOOKUP:
        return answer(0, unique, number, attr(FILE_NODEID));
      case OPCODE.GETATTR:
        return answer(0, unique, valid, attr(nodeid));
      case OPCODE.OPEN:
        return answer(0, unique, Buffer.alloc(16));
      case OPCODE.READ:
        return dropPages();
      case OPCODE.FORGET:
        return undefined;
      default:
        return answer(constants.errno.ENOSYS, unique);
    }
  },
  () => undefined,
);

const journal = native.memfdCreate("journal", 4096);
const resumable = Buffer.from([1, 0, 0, 0]);
native.sync.write(journal, resumable, 0, 4, 64, 0);
const program = [process.execPath, path.join(import.meta.dirname, "resending-server.mjs")];
spawn(keeper, ["60000", "3", "--", ...program], { stdio: ["ignore", "ignore", "inherit", "pipe", fd, journal, "ignore"] });
console.error("serving");
