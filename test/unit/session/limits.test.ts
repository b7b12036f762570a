/** Limits of a session: at them all is well, one byte beyond it what their comments say happens. */
import { expect, it } from "vitest";
import { silentLog } from "../../../dlmd/base/log.ts";
import { Cover, type InodeKind } from "../../../overlay/coherence/cover.ts";
import { OPCODE } from "../../../overlay/fuse/abi.ts";
import { endlessLease } from "../../../overlay/lease/lease.ts";
import { type FileId } from "../../../overlay/lower/lower.ts";
import type { Native } from "../../../native/index.ts";
import { REPLY_BUFFER_BYTES } from "../../../overlay/op/call.ts";
import { RequestBuffers } from "../../../overlay/session/buffers.ts";
import { mountSession, type SessionOptions } from "../../../overlay/session/mount-session.ts";
import { Dispatch } from "../../../overlay/session/dispatch.ts";
import { Interrupts } from "../../../overlay/session/interrupt.ts";
import { Workbench } from "../op/workbench.ts";

const HEAD_BYTES = 40;

function packet(opcode: number, body: Buffer, fuseNodeid: number): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt32LE(HEAD_BYTES + body.length, 0);
  head.writeUInt32LE(opcode, 4);
  head.writeBigUInt64LE(6n, 8);
  head.writeBigUInt64LE(BigInt(fuseNodeid), 16);
  return Buffer.concat([head, body]);
}

it.each([
  [16 * 1024, 0],
  [16 * 1024 + 1, 1],
])("data of more than COPY_BYTES_MAX stay in their buffer while a handler needs them: of %i bytes, %i buffers", (bytes, lent) => {
  const bench = new Workbench();
  const { fh } = bench.openFile(false);
  const buffers = new RequestBuffers(64 * 1024, () => undefined);
  const written = Buffer.alloc(REPLY_BUFFER_BYTES);
  const dispatch = new Dispatch({
    mount: bench.mount,
    port: { buffer: written, write: () => 0, writeWithBody: () => 0, log: silentLog, lease: endlessLease },
    buffers,
    interrupts: new Interrupts({ readStatus: () => null } as never),
    log: silentLog,
    init: () => undefined,
    retrieved: () => undefined,
    fail: (error) => expect.fail(error.message),
  });
  bench.lower.write = () => new Promise(() => undefined);
  // fuse_write_in: fh, offset, size, write_flags, lock_owner, flags, padding.
  const body = Buffer.alloc(40 + bytes);
  body.writeBigUInt64LE(BigInt(fh), 0);
  body.writeUInt32LE(bytes, 16);
  const request = packet(OPCODE.FUSE_WRITE, body, bench.file.fuseNodeid);
  request.copy(buffers.current);
  dispatch.receive(request.length);
  expect(buffers.lent).toBe(lent);
});

it("the kernel is told to send no WRITE of more than MAX_WRITE_BYTES, for which there is room", async () => {
  let room = 0;
  let maxWrite = 0;
  let receive = (_bytes: number): void => {};
  let requestBuffer: Buffer = Buffer.alloc(0);
  const native = {
    fuseOpen: () => 5,
    mount: () => 0,
    umount: () => 0,
    deviceAnswerFlush: () => undefined,
    deviceStart: (_fd: number, buffer: Buffer, _batch: number, received: (bytes: number) => void) => {
      room = buffer.length;
      requestBuffer = buffer;
      receive = received;
      return {};
    },
    deviceWrite: (_fd: number, reply: Buffer, bytes: number) => {
      // fuse_out_header, then max_write of fuse_init_out.
      maxWrite = reply.readUInt32LE(16 + 20);
      return bytes;
    },
  } as unknown as Native;
  const { mount } = new Workbench();
  const options = {
    native,
    system: {},
    lower: mount.lower,
    source: "/dev/x",
    mountpoint: "/no such mount point",
    mountFlags: 0,
    log: silentLog,
    createCoherence: () => ({
      operations: mount.coherence,
      createCover: (id: FileId, kind: InodeKind) => new Cover(id, kind),
    }),
    fail: (error: Error) => expect.fail(error.message),
  } as unknown as SessionOptions;
  const mounted = mountSession(options);
  const init = Buffer.alloc(64);
  init.writeUInt32LE(7, 0);
  init.writeUInt32LE(45, 4);
  init.writeUInt32LE(0xffff_ffff, 12);
  init.writeUInt32LE(0xffff_ffff, 16);
  const request = packet(OPCODE.FUSE_INIT, init, 0);
  request.copy(requestBuffer);
  receive(request.length);
  await expect(mounted).rejects.toMatchObject({ code: "mount-failed" });
  expect(maxWrite).toBe(1024 * 1024);
  expect(room).toBeGreaterThanOrEqual(maxWrite + HEAD_BYTES + 40);
});
