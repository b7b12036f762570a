/** How the models of operations give a request to them, as the session does, and hear the answer. */
import { Errno } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import type { LeaseGate } from "../../../overlay/lease/lease.ts";
import { Call, type CallHead, REPLY_BUFFER_BYTES } from "../../../overlay/op/call.ts";
import type { Mount } from "../../../overlay/op/mount.ts";
import type { Operation } from "../../../overlay/op/perform.ts";

const OUT_HEADER_BYTES = 16;
const ERROR_AT = 4;

export interface Reply {
  readonly errno: number;
  readonly body: Buffer;
}

/** `answered`: in the turn of the answer. */
export function modelCall(head: Omit<CallHead, "uid" | "gid">, lease: LeaseGate, answered: (reply: Reply) => void): Call {
  const buffer = Buffer.alloc(REPLY_BUFFER_BYTES);
  const write = (body: Uint8Array, headBytes: number): number => {
    const head = buffer.subarray(0, headBytes);
    answered({ errno: Math.abs(head.readInt32LE(ERROR_AT)), body: Buffer.concat([head.subarray(OUT_HEADER_BYTES), body]) });
    return 0;
  };
  return new Call(
    { ...head, uid: 0, gid: 0 },
    {
      buffer,
      write: (bytes) => write(new Uint8Array(0), bytes),
      writeWithBody: (headBytes, body, at, bytes) => write(body.subarray(at, at + bytes), headBytes),
      log: silentLog,
      lease,
    },
  );
}

/** `work` performs it. `wrong`: it ended as no operation may. */
export async function serve(
  { inodes, coherence }: Mount,
  call: Call,
  request: Operation,
  work: () => MaybePromise<void>,
  wrong: (text: string) => void,
): Promise<void> {
  const { op, pid } = call;
  const inode = inodes.get(request.fuseNodeid);
  coherence.sizes.heard(pid);
  coherence.names.heard(request, inode);
  if (inode !== undefined) inodes.use(inode);
  try {
    await work();
    if (!call.answered) wrong(`${op} ended without an answer`);
  } catch (error) {
    if (error instanceof Errno) call.error(error.errno);
    else wrong(`${op}: ${(error as Error).stack}`);
  } finally {
    if (inode !== undefined) inodes.leave(inode);
  }
}
