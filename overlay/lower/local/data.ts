/**
 * The local lower: data of open files. Reads are tried without waiting (preadv2(2), RWF_NOWAIT) and go on in the data
 * pool; writes go there at once, because ext4 and XFS refuse buffered RWF_NOWAIT writes or take locks (hazard F3). But for
 * small ones (small-writes.ts).
 */
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { type Calls, STAT } from "../../../native/index.ts";
import { largeBuffers } from "../large-buffers.ts";
import { checkWritable, isBeyondAnyFile, MAX_COPY_BYTES, MAX_IO_BYTES } from "../limits.ts";
import { O, RWF, S, SEEK } from "../linux.ts";
import { type LocalContext, ownHandle, sharedHandle } from "./context.ts";
import { getattr } from "./attributes.ts";
import type { FileId, LowerHandle } from "../lower.ts";
import { andThen, checked, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import type { OpenFile } from "./open-handles.ts";
import { SMALL_FILE_BYTES_MAX } from "./small-writes.ts";

const EMPTY = new Uint8Array(0);

/**
 * The caller's flags as the lower is opened. O_DIRECT is dropped: it wants buffers, offsets and lengths aligned to the
 * disk's sectors, and the kernel hands over a request's data at any address; what O_DIRECT promises across
 * nodes (nothing cached here) the FUSE open mode keeps. O_NOATIME: hazard F19.
 */
function lowerFlags(flags: number): number {
  return (flags & (O.ACCMODE | O.TRUNC | O.SYNC | O.DSYNC)) | O.NOATIME;
}

export function open(context: LocalContext, id: FileId, flags: number): MaybePromise<LowerHandle> {
  context.handles.checkRoom();
  return andThen(context.containment.prove(id), () => openProven(context, id, flags));
}

function openProven(context: LocalContext, id: FileId, flags: number): MaybePromise<LowerHandle> {
  const type = context.recent.typeOf(id);
  if (type !== undefined && (flags & O.TRUNC) === 0) return openOfType(context, id, flags, type);
  return context.handles.opening(id, () =>
    type === undefined
      ? andThen(getattr(context, id), (attr) => openOfType(context, id, flags, attr.mode & S.IFMT))
      : openOfType(context, id, flags, type),
  );
}

function openOfType(context: LocalContext, id: FileId, flags: number, type: number): MaybePromise<LowerHandle> {
  // Hazard F18: a real open of a device or FIFO has effects, or waits for ever.
  if (type !== S.IFREG) throw errnoError(type === S.IFDIR ? E.EISDIR : E.EINVAL);
  const wanted = lowerFlags(flags);
  const opened =
    (wanted & O.TRUNC) !== 0
      ? context.native.pool.data.openByHandle(context.rootFd, ownHandle(context, id), wanted)
      : openAtOnce(context, id, wanted, (flags & O.APPEND) !== 0);
  return andThen(opened, (fd) => context.handles.add(checked(fd), id, flags, false));
}

function openAtOnce(context: LocalContext, id: FileId, wanted: number, appends: boolean): number {
  const opened = context.sync.openByHandle(context.rootFd, sharedHandle(context, id), wanted);
  // Such a descriptor writes to the end whatever offset is given. So it is used where there is no other: of chattr +a.
  if (opened !== -E.EPERM || !appends) return opened;
  return context.sync.openByHandle(context.rootFd, sharedHandle(context, id), wanted | O.APPEND);
}

export async function opendir(context: LocalContext, id: FileId): Promise<LowerHandle> {
  context.handles.checkRoom();
  await context.containment.prove(id);
  // In the pool: XFS reads ahead at the open of a directory, and a cold one has its parents looked up.
  const flags = O.RDONLY | O.DIRECTORY | O.NOATIME;
  return await context.handles.opening(id, async () => {
    const fd = checked(await context.native.pool.metadata.openByHandle(context.rootFd, ownHandle(context, id), flags));
    if (!context.containment.isInside(fd)) {
      context.sync.close(fd);
      throw errnoError(E.ESTALE);
    }
    return context.handles.add(fd, id, O.RDONLY, true);
  });
}

async function readRest(context: LocalContext, file: OpenFile, start: Uint8Array, offset: number, bytes: number): Promise<Uint8Array> {
  const buffer = largeBuffers.take(bytes);
  buffer.set(start);
  const calls = context.native.pool.data;
  return await context.handles.use(file, async (fd) => {
    let have = start.byteLength;
    while (have < bytes) {
      const count = checked(await calls.read(fd, buffer, have, bytes - have, offset + have, 0));
      if (count === 0) break;
      have += count;
    }
    return buffer.subarray(0, have);
  });
}

export function read(context: LocalContext, handle: LowerHandle, offset: number, bytes: number): MaybePromise<Uint8Array> {
  const file = context.handles.getFile(handle);
  if (!file.readable) throw errnoError(E.EBADF);
  if (offset < 0 || bytes < 0 || bytes > MAX_IO_BYTES) throw errnoError(E.EINVAL);
  if (isBeyondAnyFile(offset, bytes)) return EMPTY;
  const count = context.sync.read(file.fd, context.scratch, 0, bytes, offset, RWF.NOWAIT);
  if (count === bytes) return context.scratch.subarray(0, count);
  if (count < 0 && count !== -E.EAGAIN && count !== -E.EOPNOTSUPP) throw errnoError(-count);
  const have = Math.max(count, 0);
  // A short answer is the end of the file, or the end of what is cached.
  if (count >= 0) {
    checked(context.sync.stat(file.fd, context.stat));
    if (offset + have >= (context.stat[STAT.SIZE] as number)) return context.scratch.subarray(0, have);
  }
  return readRest(context, file, context.scratch.subarray(0, have), offset, bytes);
}

function writable(context: LocalContext, handle: LowerHandle): OpenFile {
  const file = context.handles.getFile(handle);
  if (!file.writable) throw errnoError(E.EBADF);
  return file;
}

function changing(context: LocalContext, handle: LowerHandle): OpenFile {
  const file = writable(context, handle);
  file.changed = true;
  return file;
}

interface WriteAt {
  readonly offset: number;
  readonly append: boolean;
}

/** Gives how many bytes. What was written stays written: the count tells, and the next call meets the error again. */
function writeAll(calls: Calls<MaybePromise<number>>, fd: number, data: Buffer, at: WriteAt, done = 0): MaybePromise<number> {
  if (done === data.length) return done;
  const { offset, append } = at;
  return andThen(calls.write(fd, data, done, data.length - done, append ? 0 : offset + done, append ? RWF.APPEND : 0), (count) => {
    if (count < 0 && done === 0) throw errnoError(-count);
    return count <= 0 ? done : writeAll(calls, fd, data, at, done + count);
  });
}

/** No other node writes: the caller's has the inode's EX. But a truncate there may have come in between, if this write's caller was killed. */
function startOf(context: LocalContext, fd: number, { offset, append }: WriteAt, bytes: number): number {
  if (!append) return offset;
  checked(context.sync.stat(fd, context.stat));
  return Math.max(0, (context.stat[STAT.SIZE] as number) - bytes);
}

export function sizeOf(context: LocalContext, handle: LowerHandle): number {
  checked(context.sync.stat(context.handles.get(handle).fd, context.stat));
  return context.stat[STAT.SIZE] as number;
}

export function write(
  context: LocalContext,
  handle: LowerHandle,
  data: Uint8Array,
  offset: number,
  append: boolean,
): MaybePromise<{ offset: number; bytes: number }> {
  const file = writable(context, handle);
  if (data.byteLength > MAX_IO_BYTES) throw errnoError(E.EINVAL);
  if (!append) checkWritable(offset, data.byteLength);
  const buffer = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const at = { offset, append };
  const end = append ? buffer.length : offset + buffer.length;
  if (context.smallWrites.mayBeHere(file, end)) return writeHere(context, file, buffer, at);
  file.changed = true;
  return context.handles.use(file, (fd) =>
    andThen(writeAll(context.native.pool.data, fd, buffer, at), (bytes) => ({ offset: startOf(context, fd, at, bytes), bytes })),
  );
}

function writeHere(context: LocalContext, file: OpenFile, buffer: Buffer, at: WriteAt): { offset: number; bytes: number } {
  const bytes = context.smallWrites.timed(() => writeAll(context.sync, file.fd, buffer, at)) as number;
  const offset = startOf(context, file.fd, at, bytes);
  // An append: the file is not small any more.
  if (offset + bytes > SMALL_FILE_BYTES_MAX) file.changed = true;
  return { offset, bytes };
}

export async function fsync(context: LocalContext, handle: LowerHandle, dataOnly: boolean): Promise<void> {
  const file = context.handles.get(handle);
  await context.handles.use(file, async (fd) => checked(await context.native.pool.sync.fsync(fd, dataOnly)));
}

export async function fallocate(context: LocalContext, handle: LowerHandle, mode: number, offset: number, bytes: number): Promise<void> {
  const file = changing(context, handle);
  checkWritable(offset, bytes);
  await context.handles.use(file, async (fd) => checked(await context.native.pool.data.fallocate(fd, mode, offset, bytes)));
}

export async function lseek(context: LocalContext, handle: LowerHandle, offset: number, whence: number): Promise<number> {
  const file = context.handles.getFile(handle);
  if (whence !== SEEK.SET && whence !== SEEK.DATA && whence !== SEEK.HOLE) throw errnoError(E.EINVAL);
  if (offset < 0 || isBeyondAnyFile(offset, 0)) throw errnoError(E.ENXIO);
  // The extents may have to be read.
  return await context.handles.use(file, async (fd) => checked(await context.native.pool.data.lseek(fd, offset, whence)));
}

export async function copyFileRange(
  context: LocalContext,
  inHandle: LowerHandle,
  inOffset: number,
  outHandle: LowerHandle,
  outOffset: number,
  bytes: number,
): Promise<number> {
  const source = context.handles.getFile(inHandle);
  const target = changing(context, outHandle);
  if (!source.readable) throw errnoError(E.EBADF);
  const length = Math.min(bytes, MAX_COPY_BYTES);
  if (isBeyondAnyFile(inOffset, length)) return 0;
  checkWritable(inOffset, length);
  checkWritable(outOffset, length);
  return await context.handles.use(source, (inFd) =>
    context.handles.use(target, async (outFd) =>
      checked(await context.native.pool.data.copyFileRange(inFd, inOffset, outFd, outOffset, length)),
    ),
  );
}
