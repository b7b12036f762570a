/** Requests as the kernel would make them, through the session's dispatch: the replies come back here instead of going to a device. */
import { E, type Errno, errnoError } from "../../../dlmd/base/errno.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import { OUT_HEADER_BYTES } from "../../fuse/abi.ts";
import type { LeaseGate } from "../../lease/lease.ts";
import { REPLY_BUFFER_BYTES, type ReplyPort } from "../../op/call.ts";
import type { Operation } from "../../op/perform.ts";

/** What a request says besides its head. */
type Without<T> = T extends Operation ? Omit<T, "unique" | "uid" | "gid" | "pid"> : never;
export type PathRequest = Without<Operation>;

/** Only root's programs may use such a mount, and libfuse's package does not say which one asks. */
const CALLER = { uid: 0, gid: 0, pid: 0 } as const;

export class Requests {
  readonly port: ReplyPort;
  readonly #pending = new Map<number, { readonly resolve: (reply: Buffer) => void; readonly reject: (error: Errno) => void }>();
  #nextUnique = 2;

  constructor(log: Log, lease: LeaseGate) {
    const buffer = Buffer.allocUnsafeSlow(REPLY_BUFFER_BYTES);
    this.port = {
      buffer,
      log,
      lease,
      write: (bytes) => this.#receive(Buffer.from(buffer.subarray(0, bytes))),
      writeWithBody: (headBytes, body, at, bytes) =>
        this.#receive(Buffer.concat([buffer.subarray(0, headBytes), body.subarray(at, at + bytes)])),
    };
  }

  /** The reply, head included. Rejects with the Errno that it carries. */
  ask(serve: (request: Operation) => void, request: PathRequest): Promise<Buffer> {
    const unique = this.#nextUnique;
    this.#nextUnique += 2;
    return new Promise((resolve, reject) => {
      this.#pending.set(unique, { resolve, reject });
      serve({ ...request, ...CALLER, unique });
    });
  }

  /** As write(2) of the device: a reply that nobody waits for is one to an aborted request. */
  #receive(reply: Buffer): number {
    const unique = Number(reply.readBigUInt64LE(8));
    const pending = this.#pending.get(unique);
    if (pending === undefined) return -E.ENOENT;
    this.#pending.delete(unique);
    const errno = -reply.readInt32LE(4);
    if (errno === 0) pending.resolve(reply);
    else pending.reject(errnoError(errno));
    return reply.length;
  }
}

/** Where the body of a reply begins. */
export const BODY_AT: number = OUT_HEADER_BYTES;
