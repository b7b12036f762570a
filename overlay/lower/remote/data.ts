/** The remote lower: open files and directories, and what is in them. What comes with it is known under locks (hazard F21). */
import { E, errnoError, isErrno } from "../../../dlmd/base/errno.ts";
import { andThen } from "../../../dlmd/base/maybe-promise.ts";
import { checkWritable, isBeyondAnyFile, MAX_COPY_BYTES, MAX_GETATTR_MANY, MAX_IO_BYTES, MAX_READ_MANY } from "../limits.ts";
import { isDots } from "../listing-reply.ts";
import { type DirEntry, type DirPage, type Fetched, type FileId, type LowerData, type LowerHandle, withEntry } from "../lower.ts";
import type { AnswerOf, RequestOf } from "../wire/call-types.ts";
import { NO_END } from "../wire/own-requests.ts";
import { askAttrs } from "./attributes.ts";
import type { RemoteCore } from "./core.ts";
import type { RemoteHandle } from "./handles.ts";
import type { Change } from "./known.ts";

const EMPTY = new Uint8Array(0);

export function dataOf(core: RemoteCore): LowerData {
  const { known, opens, changes, ahead, behind } = core;
  const { handles } = opens;
  return {
    open: (id, flags) => opens.open(id, flags),
    opendir: (id) => opens.opendir(id),
    close: (handle) => opens.close(handle),
    fetch(id, handle, offset, bytes) {
      const file = handles.get(handle);
      if (offset < 0 || bytes < 0 || bytes > MAX_IO_BYTES || isBeyondAnyFile(offset, bytes)) return null;
      return fetch(core, file, { id, handle, offset, bytes });
    },
    read(handle, offset, bytes) {
      const file = handles.get(handle);
      if (offset < 0 || bytes < 0 || bytes > MAX_IO_BYTES) throw errnoError(E.EINVAL);
      if (isBeyondAnyFile(offset, bytes)) return EMPTY;
      const brought = file.error === null ? ahead.take(file.id, offset, bytes) : null;
      return andThen(brought, (data) => data ?? opens.read(file, offset, bytes));
    },
    async write(handle, data, offset, append) {
      const file = handles.get(handle);
      if (data.byteLength > MAX_IO_BYTES) throw errnoError(E.EINVAL);
      if (!append) checkWritable(offset, data.byteLength);
      // The owner does not look at the place of an append. After a crash it tells whether that was made (again.ts).
      const at = append ? (known.attr(file.id)?.size ?? NO_END) : offset;
      const written = await write(core, file, { data, offset: at, append, promised: false });
      changes.note(file.id, "data");
      behind.room.written(file.id, written.offset, written.bytes);
      return { offset: written.offset, bytes: written.bytes };
    },
    fsync: (handle, dataOnly) => fsync(core, "fsync", handle, dataOnly),
    fsyncdir: (handle, dataOnly) => fsync(core, "fsyncdir", handle, dataOnly),
    async fallocate(handle, mode, offset, bytes) {
      const file = handles.get(handle);
      checkWritable(offset, bytes);
      try {
        await changes.of(file.id, () => opens.call("fallocate", { handle, mode, offset, bytes }, [file]));
      } finally {
        // What it made before there was no more room stays.
        changes.note(file.id, "data");
      }
    },
    lseek(handle, offset, whence) {
      const file = handles.get(handle);
      if (offset < 0 || isBeyondAnyFile(offset, 0)) throw errnoError(E.ENXIO);
      return opens.call("lseek", { handle, offset, whence }, [file]);
    },
    async copyFileRange(inHandle, inOffset, outHandle, outOffset, bytes) {
      const source = handles.get(inHandle);
      const target = handles.get(outHandle);
      const length = Math.min(bytes, MAX_COPY_BYTES);
      if (isBeyondAnyFile(inOffset, length)) return 0;
      checkWritable(inOffset, length);
      checkWritable(outOffset, length);
      const request = { inHandle, inOffset, outHandle, outOffset, bytes: length };
      const copied = await changes.of(target.id, () => opens.call("copyFileRange", request, [source, target]));
      changes.note(target.id, "data");
      return copied;
    },
    async prefetch(ids, what) {
      if (ids.length > (what === "data" ? MAX_READ_MANY : MAX_GETATTR_MANY)) throw errnoError(E.E2BIG);
      if (what === "data") await ahead.bring(ids);
      else await askAttrs(core, ids);
    },
    readdir(handle, cookie, bytes, listing) {
      if (cookie < 0n || cookie >= 1n << 63n) throw errnoError(E.EINVAL);
      const directory = handles.get(handle);
      const page = directory.error === null ? known.page(directory.id, cookie, bytes, listing) : null;
      const whole = page === null || listing !== "entries" ? page : withKnownEntries(core, directory.id, page);
      return whole ?? readPage(core, directory, { handle, cookie, bytes, listing });
    },
    syncfs: () => changes.syncfs(),
  };
}

async function readPage({ known, opens }: RemoteCore, directory: RemoteHandle, request: RequestOf<"readdir">): Promise<DirPage> {
  const reading = known.reading();
  const page = await opens.call("readdir", request, [directory]);
  for (const { name, entry } of page.entries) if (entry !== undefined) known.readEntry(reading, directory.id, name, entry);
  known.readPage(reading, directory.id, request.cookie, page);
  return page;
}

/** null: not all of it is known, and one trip brings it. */
function withKnownEntries({ known }: RemoteCore, directory: FileId, { entries, end }: DirPage): DirPage | null {
  const whole: DirEntry[] = [];
  for (const one of entries) {
    const entry = isDots(one.name) ? undefined : known.entry(directory, one.name);
    if (entry !== undefined && entry !== null) whole.push(withEntry(one, entry));
    else if (isDots(one.name)) whole.push(one);
    else return null;
  }
  return { entries: whole, end };
}

/** `change`: this one, which has begun. */
export function write(
  { known, opens, changes, behind }: RemoteCore,
  file: RemoteHandle,
  { data, offset, append, promised }: Omit<RequestOf<"write">, "handle" | "room" | "tell">,
  change: Change = known.begin(file.id),
): Promise<AnswerOf<"write">> {
  const { id, handle } = file;
  const tell = known.wantsAttr(change) ? id : null;
  const giveRoom = behind.askRoom(file);
  return changes.ofOne(
    change,
    () => opens.call("write", { handle, offset, append, promised, room: giveRoom !== null, tell, data }, [file]),
    (answer) => {
      if (answer.room && known.isHeldSince(change)) giveRoom?.(answer.attr?.size ?? null);
      return answer.attr;
    },
  );
}

async function fetch({ known, opens }: RemoteCore, file: RemoteHandle, request: RequestOf<"fetch">): Promise<Fetched> {
  const reading = known.reading();
  const fetched = await opens.call("fetch", request, [file]);
  known.read(reading, request.id, fetched.attr);
  return fetched;
}

async function fsync(core: RemoteCore, call: "fsync" | "fsyncdir", handle: LowerHandle, dataOnly: boolean): Promise<void> {
  const { opens, changes, behind, log } = core;
  const file = opens.handles.get(handle);
  const since = changes.unsynced.now();
  const written = behind.over();
  try {
    await opens.call(call, { handle, dataOnly }, [file]);
  } catch (error) {
    // Its caller is told by that, too, what was lost before.
    if (isErrno(error, E.EIO) || isErrno(error, E.ENOSPC) || isErrno(error, E.EDQUOT)) changes.unsynced.takeLost(file);
    throw error;
  }
  // They were answered before.
  await written;
  changes.unsynced.synced(file.id, since, dataOnly);
  if (!changes.unsynced.takeLost(file)) return;
  log.error(
    { ino: file.id.ino },
    "changes of this file or directory were lost before they were on disk, as with an owner that died: fsync reports EIO",
  );
  throw errnoError(E.EIO);
}
