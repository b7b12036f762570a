/**
 * The remote lower: calls that the former owner of the volume, in a process of this mount that has crashed, may have made on its disk and may not (hazard F41). That disk is
 * clean, and all locks of that process are here, so nobody else has changed anything since. What is there tells what became of most of them.
 */
import { ByteWriter } from "../../../dlmd/base/bytes.ts";
import { E, Errno } from "../../../dlmd/base/errno.ts";
import { WireError } from "../../../dlmd/base/error.ts";
import type { LowerHandle } from "../lower.ts";
import { type Codec, decodeWith } from "../wire/call-codecs.ts";
import type { AnswerOf, CallName, RequestOf } from "../wire/call-types.ts";
import { callOfType, CALLS } from "../wire/calls.ts";
import { NO_END } from "../wire/own-requests.ts";
import { isDoubtful, repeatOf } from "../wire/repeat.ts";
import type { RemoteCore } from "./core.ts";

/** `body`: of the answer, or an errno if it `failed`: EIO where nobody can tell. */
export interface MadeAgain {
  readonly failed: boolean;
  readonly body: Uint8Array;
}

/** As a former owner, or a process that had another owner, has written it down. */
export interface CallAgain {
  readonly type: number;
  /** As on the wire, the data of a write at the end. */
  readonly body: Uint8Array;
  /** OwnJournal.making */
  readonly sure: boolean;
}

export async function makeAgain(core: RemoteCore, { type, body, sure }: CallAgain): Promise<MadeAgain> {
  const name = callOfType(type);
  if (name === undefined) throw new WireError(`no call has type 0x${type.toString(16)}`);
  try {
    return await make(core, name, decodeWith(CALLS[name].request as Codec<RequestOf<CallName>>, body), sure);
  } catch (error) {
    if (!(error instanceof Errno)) throw error;
    return failed(error.errno);
  }
}

async function make<K extends CallName>(core: RemoteCore, name: K, request: RequestOf<K>, sure: boolean): Promise<MadeAgain> {
  requireOpen(core, name, request);
  if (name === "write" && (request as RequestOf<"write">).append) return append(core, request as RequestOf<"write">);
  const repeat = repeatOf(name, request);
  if (!repeat.again) return failed(E.EIO);
  try {
    return answered(name, await callAgain(core, name, request));
  } catch (error) {
    if (!(error instanceof Errno) || !isDoubtful(repeat.doubtful, error.errno)) throw error;
    // The name was there, and of that inode, under the lock that was kept since: so it is gone because of this call.
    const isGone = error.errno !== E.EEXIST && repeat.doubtful.includes(error.errno);
    return sure && isGone ? answered(name, BRIEF as AnswerOf<K>) : failed(E.EIO);
  }
}

/** All of an answer that brings no attributes. */
const BRIEF = { parent: null, oldParent: null, newParent: null, moved: null };

/** A file that this owner could not open, as after any change of the owner: ESTALE, if it is gone. */
function requireOpen({ opens }: RemoteCore, name: CallName, request: unknown): void {
  if (name !== "write") return;
  const error = opens.handles.find((request as RequestOf<"write">).handle as LowerHandle)?.error ?? null;
  if (error !== null) throw error;
}

async function callAgain<K extends CallName>({ session, opens }: RemoteCore, name: K, request: RequestOf<K>): Promise<AnswerOf<K>> {
  if (name !== "create" && name !== "tmpfile") return await session.call(name, request);
  // The program's file is opened anew when it is answered.
  const handle = opens.allocate();
  const answer = await session.call(name, { ...request, handle });
  await session.call("close", { handles: [handle] });
  return answer;
}

/** The file has become longer by what was written of it. */
async function append({ session, opens }: RemoteCore, request: RequestOf<"write">): Promise<MadeAgain> {
  const { handle, offset, data } = request;
  const { size } = await session.call("getattr", { id: opens.handles.get(handle as LowerHandle).id });
  if (size === offset) return answered("write", await session.call("write", request));
  const bytes = size - offset;
  if (offset === NO_END || bytes < 0 || bytes > data.byteLength) return failed(E.EIO);
  return answered("write", { offset, bytes, room: false, attr: null });
}

const writer: ByteWriter = new ByteWriter();

function failed(errno: number): MadeAgain {
  return { failed: true, body: writer.reset().u32(errno).copy() };
}

function answered<K extends CallName>(name: K, answer: AnswerOf<K>): MadeAgain {
  writer.reset();
  CALLS[name].answer.write(writer, answer);
  return { failed: false, body: writer.copy() };
}
