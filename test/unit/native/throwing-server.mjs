/**
 * A process of its own for device.test.ts: serves a FUSE mount under argv[2], throws in the first
 * request (INIT), and ends at the second.
 */
import { mkdirSync } from "node:fs";
import { stat } from "node:fs/promises";
import { createRequire } from "node:module";

const native = createRequire(import.meta.url)("../../../native/build/Release/coverlay.node");
const mountPoint = `${process.argv[2]}/throwing`;
mkdirSync(mountPoint);
const fd = native.fuseOpen();
if (native.mount("throwing", mountPoint, "fuse", 0, `fd=${fd},rootmode=40000,user_id=0,group_id=0`) !== 0) process.exit(2);
const buffer = Buffer.alloc(1 << 20);
process.on("uncaughtException", (error) => console.log(`uncaught: ${error.message}`));

function answerInit() {
  const reply = Buffer.alloc(80);
  reply.writeUInt32LE(80, 0);
  reply.writeBigUInt64LE(buffer.readBigUInt64LE(8), 8);
  reply.writeUInt32LE(7, 16);
  reply.writeUInt32LE(31, 20);
  reply.writeUInt32LE(131072, 36);
  native.deviceWrite(fd, reply, reply.length);
}

let requests = 0;
const device = native.deviceStart(
  fd,
  buffer,
  16,
  () => {
    if (requests++ === 0) {
      answerInit();
      throw new Error("thrown by a request");
    }
    console.log("second request");
    native.deviceStop(device);
    native.umount(mountPoint, 2);
    native.sync.close(fd);
  },
  () => undefined,
);
stat(mountPoint).catch(() => undefined);
