/** What a process that has crashed had read and not answered, read at once by the one that goes on, before that one serves (hazards F39, F41). */
import { readSync } from "node:fs";
import { E, errnoError } from "../../dlmd/base/errno.ts";
import { WireError } from "../../dlmd/base/error.ts";
import type { Native } from "../../native/index.ts";
import { OUT_HEADER_BYTES, requestBufferBytes } from "../fuse/abi.ts";
import { decodeRequest } from "../fuse/decode-request.ts";
import { notifyResend } from "../fuse/notify.ts";
import { encodeError } from "../fuse/reply.ts";
import type { Request } from "../fuse/request.ts";
import { isResent } from "../fuse/unique.ts";
import { MAX_WRITE_BYTES } from "./buffers.ts";

/** These have queues of their own in the kernel, and come between the others (fs/fuse/dev.c, fuse_dev_do_read). */
const BESIDE: ReadonlySet<string> = new Set(["forget", "interrupt", "notifyReply"]);

/**
 * In the kernel's order, and what came beside them. They stand first in its queue, so the first new one is the last one here. `isDead`: a request of that thread is answered with
 * EINTR, and is not among them: it waits for that, and will not go on. `read`: a seam for tests.
 */
export function readAgain(
  native: Pick<Native, "deviceWrite">,
  fd: number,
  isDead: (tid: number) => boolean,
  read: (fd: number, into: Buffer) => number = readNow,
): Buffer[] {
  const message = notifyResend();
  const sent = native.deviceWrite(fd, message, message.length);
  if (sent < 0 && sent !== -E.ENOTCONN && sent !== -E.ENODEV) throw errnoError(-sent);
  const into = Buffer.allocUnsafe(requestBufferBytes(MAX_WRITE_BYTES));
  const reply = Buffer.alloc(OUT_HEADER_BYTES);
  const requests: Buffer[] = [];
  for (;;) {
    const bytes = read(fd, into);
    if (bytes === 0) return requests;
    const request = decoded(into, bytes);
    if (request !== null && "pid" in request && isDead(request.pid)) {
      native.deviceWrite(fd, reply, encodeError(reply, request.unique, E.EINTR));
      continue;
    }
    requests.push(Buffer.from(into.subarray(0, bytes)));
    if (request !== null && !isResent(request.unique) && !BESIDE.has(request.op)) return requests;
  }
}

/** null: a damaged one, which is answered as all such are when it is served. */
function decoded(buffer: Buffer, bytes: number): Request | null {
  try {
    return decodeRequest(buffer, bytes);
  } catch (error) {
    if (error instanceof WireError) return null;
    throw error;
  }
}

/** 0: there is none now, or the mount has ended. */
function readNow(fd: number, into: Buffer): number {
  for (;;) {
    try {
      return readSync(fd, into, 0, into.length, null);
    } catch (error) {
      const { code = "" } = error as NodeJS.ErrnoException;
      if (code === "EAGAIN" || code === "ENODEV" || code === "ENOTCONN") return 0;
      // Its caller was killed meanwhile.
      if (code !== "EINTR" && code !== "ENOENT") throw error;
    }
  }
}
