/** A call of this node to the volume's owner, from when it is made until it is answered (session.ts). */
import { ByteReader, type ByteWriter } from "../../../dlmd/base/bytes.ts";
import { E, type Errno, errnoError } from "../../../dlmd/base/errno.ts";
import { WireError } from "../../../dlmd/base/error.ts";
import { decodeWith } from "../wire/call-codecs.ts";
import type { AnswerOf, CallName, RequestOf } from "../wire/call-types.ts";
import { CALLS, type CallRow, isUnawaited } from "../wire/calls.ts";
import { type Repeat, repeatOf } from "../wire/repeat.ts";

/** The answer of a call, which does not leave while it is there. */
export interface Hindrance {
  readonly error: Errno | null;
}

export interface PendingCall {
  readonly id: number;
  readonly madeMs: number;
  readonly call: CallName;
  readonly type: number;
  /** Of a call that changes something; null: it does not. */
  readonly repeat: Repeat | null;
  /** A program waits for its answer. */
  readonly awaited: boolean;
  /** The owner keeps its answer until that is acknowledged. */
  readonly remembered: boolean;
  /** It is made again, and ends with EIO if the answer is one of these: its first making may be the reason. */
  doubtful: readonly number[];
  readonly body: Uint8Array;
  readonly data: Uint8Array | null;
  readonly hindrances: readonly Hindrance[];
  readonly answered: (body: Uint8Array) => void;
  readonly failed: (error: Error) => void;
  sent: boolean;
  /** Sent on an earlier connection, too: it may have been made then. */
  repeated: boolean;
  /** When it was sent last, by the session's count of transmissions. */
  transmission: number;
  /** Of the reopening: made anew with each connection. */
  readonly reopening: boolean;
}

/** `writer`: is overwritten. `resolve`, `reject`: of what its caller was given. */
export function createPendingCall<K extends CallName>(
  writer: ByteWriter,
  call: K,
  request: RequestOf<K>,
  { id, hindrances, reopening }: Pick<PendingCall, "id" | "hindrances" | "reopening">,
  resolve: (answer: AnswerOf<K>) => void,
  reject: (error: Error) => void,
): PendingCall {
  const row: CallRow<K> = CALLS[call];
  writer.reset();
  row.request.write(writer, request);
  return {
    id,
    madeMs: performance.now(),
    call,
    type: row.type,
    repeat: row.mutates ? repeatOf(call, request) : null,
    awaited: !isUnawaited(call, request),
    remembered: row.remembered,
    doubtful: [],
    body: writer.copy(),
    data: row.request.data?.(request) ?? null,
    hindrances,
    answered(bytes) {
      try {
        resolve(decodeWith(row.answer, bytes));
      } catch (error) {
        reject(errnoError(E.EIO));
        throw error;
      }
    },
    failed: reject,
    sent: reopening,
    repeated: false,
    transmission: 0,
    reopening,
  };
}

export function decodeErrno(body: Uint8Array): number {
  const reader = new ByteReader(body);
  const errno = reader.u32();
  reader.end();
  if (errno === 0 || errno > 4095) throw new WireError(`no errno: ${errno}`);
  return errno;
}
