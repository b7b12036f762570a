/** The remote lower: changes that a program need not wait for (hazard F23). Which these are, how many, and what they leave: write-behind.ts. */
import { E, Errno, errnoError, isErrno } from "../../../dlmd/base/errno.ts";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import type { Attr, AttrChange, FileId, LowerBehind } from "../lower.ts";
import type { AnswerOf } from "../wire/call-types.ts";
import type { RemoteCore } from "./core.ts";
import { write } from "./data.ts";
import type { RemoteHandle } from "./handles.ts";
import { attrAfter, attrWritten } from "./write-behind.ts";

export function behindOf(core: RemoteCore): LowerBehind {
  const { known, opens, behind } = core;
  return {
    mayWriteBehind(handle, offset, bytes) {
      const file = opens.handles.get(handle);
      return file.error === null && !file.unsent && behind.mayBegin(file, offset, bytes) && opens.ownerAnswers;
    },
    writeBehind(handle, data, offset) {
      const file = opens.handles.get(handle);
      const copy = Uint8Array.from(data);
      return behind.write(file, offset, copy.byteLength, () => writeBehind(core, file, copy, offset));
    },
    writtenBehind: () => writtenBehind(core),
    setattrBehind(id, change) {
      const expected = known.expected(id, behind.nowMs);
      const attr = expected === null ? null : attrAfter(expected, change, Date.now());
      if (attr === null || behind.full || !opens.ownerAnswers) return null;
      return { attr, make: () => behind.make(() => setattrBehind(core, id, change, attr)) };
    },
  };
}

export function writtenBehind({ session, behind }: RemoteCore): MaybePromise<void> {
  session.hurry();
  return behind.over();
}

async function writeBehind(core: RemoteCore, file: RemoteHandle, data: Uint8Array, offset: number): Promise<void> {
  const { known, changes, behind } = core;
  const { id } = file;
  const begun = changes.unsynced.begin();
  const expected = known.expected(id, behind.nowMs);
  const change =
    expected === null ? known.beginWrite(id) : known.beginExpected(id, attrWritten(expected, offset, data.byteLength, Date.now()));
  try {
    const { bytes } = await write(core, file, { data, offset, append: false, promised: true }, known.promised(change));
    changes.note(id, "data", begun);
    if (bytes < data.byteLength) throw errnoError(E.ENOSPC);
  } catch (error) {
    notMade(core, id, error, { data: true, offset, bytes: data.byteLength }, "data that a program has written is lost");
  }
}

async function setattrBehind(core: RemoteCore, id: FileId, change: AttrChange, expected: Attr): Promise<void> {
  const { session, known, changes } = core;
  const begun = changes.unsynced.begin();
  const set = (): Promise<AnswerOf<"setattr">> => session.call("setattr", { id, change, handle: null, promised: true });
  try {
    await changes.ofOne(known.promised(known.beginExpected(id, expected)), set, ({ attr }) => attr);
    changes.note(id, "all", begun);
  } catch (error) {
    notMade(core, id, error, { data: false }, "a change of a file's owner, mode or times, of which a program was told, is lost");
  }
}

interface Lost {
  /** Of a file. */
  readonly data: boolean;
  readonly offset?: number;
  readonly bytes?: number;
}

/** Throws the error, unless the file was removed. */
function notMade({ known, opens, changes, log }: RemoteCore, id: FileId, error: unknown, lost: Lost, words: string): void {
  if (!(error instanceof Errno)) throw error;
  known.notAsExpected(id);
  // Under its lock nobody else can have removed it: it was removed here since, and an owner that ended has made both.
  if (isErrno(error, E.ESTALE)) return;
  // The next writes are told what became of them.
  opens.endAllRoom();
  changes.unsynced.lost(id, lost.data, opens.handles.all());
  log.error({ ino: id.ino, ...lost, errno: error.code }, words);
  throw error;
}
