/** The local lower: attributes, symbolic links' targets, extended attributes. */
import { E, Errno, errnoError } from "../../../dlmd/base/errno.ts";
import { STAT } from "../../../native/index.ts";
import { checkWritable, MAX_GETATTR_MANY } from "../limits.ts";
import { O, PATH_MAX, S, UTIME_NOW, UTIME_OMIT, XATTR_LIST_MAX, XATTR_SIZE_MAX } from "../linux.ts";
import { isNamed, SELINUX, XATTR_NAMES_TOLD_MAX } from "../xattr-names.ts";
import { wholeFileSystem } from "./containment.ts";
import { attrOf, attrOfFd, type LocalContext, ownHandle, sameId, sharedHandle, withInode } from "./context.ts";
import type { Attr, AttrChange, FileId, LowerHandle, Time } from "../lower.ts";
import { andThen, checked, checkedMaybe, inOrder, finallyDo, withErrors, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";

function noted(context: LocalContext, id: FileId, stat: Float64Array): Attr {
  const attr = attrOf(context, stat);
  context.recent.note(id, attr.mode);
  return attr;
}

async function getattrCold(context: LocalContext, id: FileId): Promise<Attr> {
  const stat = new Float64Array(STAT.FIELDS);
  const result = await context.native.pool.metadata.statHandle(context.rootFd, ownHandle(context, id), stat);
  return result < 0 ? ofRemoved(context, id, result) : noted(context, id, stat);
}

/** Whoever still names an inode that is gone (a working directory) is told what it was like, as on a local file system. */
function ofRemoved(context: LocalContext, id: FileId, result: number): Attr {
  const attr = result === -E.ESTALE ? context.removed.attrOf(id) : undefined;
  if (attr === undefined) throw errnoError(-result);
  return attr;
}

/** Hazard R19. What was removed has no name to be found by, and is told of as elsewhere. */
function getattrInside(context: LocalContext, id: FileId): MaybePromise<Attr> {
  const look = (): MaybePromise<Attr> =>
    withInode(context, id, (fd) => {
      checked(context.sync.stat(fd, context.stat));
      return noted(context, id, context.stat);
    });
  return withErrors(look, (error) => {
    if (!(error instanceof Errno)) throw error;
    return ofRemoved(context, id, -error.errno);
  });
}

export function getattr(context: LocalContext, id: FileId): MaybePromise<Attr> {
  const dirfd = context.directories.peek(id);
  if (dirfd !== undefined) return attrOfFd(context, dirfd);
  if (context.containment !== wholeFileSystem) return getattrInside(context, id);
  if (!context.recent.has(id)) return getattrCold(context, id);
  const result = context.sync.statHandle(context.rootFd, sharedHandle(context, id), context.stat);
  if (result < 0) {
    context.recent.forget(id);
    return ofRemoved(context, id, result);
  }
  return noted(context, id, context.stat);
}

/** Gone, or damaged: it has no part in what is known of the others. */
function absentIfUnreadable(error: unknown): null {
  if (error instanceof Errno) return null;
  throw error;
}

export function getattrMany(context: LocalContext, ids: readonly FileId[]): MaybePromise<readonly (Attr | null)[]> {
  if (ids.length > MAX_GETATTR_MANY) throw errnoError(E.E2BIG);
  let waiting = false;
  const attrs = ids.map((id): MaybePromise<Attr | null> => {
    try {
      const attr = getattr(context, id);
      if (!(attr instanceof Promise)) return attr;
      waiting = true;
      return attr.catch(absentIfUnreadable);
    } catch (error) {
      return absentIfUnreadable(error);
    }
  });
  return waiting ? Promise.all(attrs.map(async (attr) => await attr)) : (attrs as (Attr | null)[]);
}

function timeFields(time: Time | "now" | undefined): [sec: number, nsec: number] {
  if (time === undefined) return [0, UTIME_OMIT];
  if (time === "now") return [0, UTIME_NOW];
  return [time.sec, time.nsec];
}

function killedMode(mode: number): number {
  const group = (mode & S.IXGRP) !== 0 ? S.ISGID : 0;
  return mode & 0o7777 & ~(S.ISUID | group);
}

/**
 * The order matters: the size first (it may fail, and clears nothing else), the owner before the mode (chown clears
 * set-user-id), times last (each of the others sets some).
 */
function changeSteps(context: LocalContext, fd: number, sizeFd: number | null, change: AttrChange): (() => MaybePromise<number>)[] {
  const steps: (() => MaybePromise<number>)[] = [];
  const { size, uid, gid, mode, atime, mtime } = change;
  if (size !== undefined && sizeFd !== null) steps.push(() => context.native.pool.data.ftruncate(sizeFd, size));
  if (uid !== undefined || gid !== undefined) steps.push(() => context.metadata.chown(fd, uid ?? -1, gid ?? -1));
  if (mode !== undefined) {
    steps.push(() => context.metadata.chmod(fd, mode & 0o7777));
  } else if (change.killSuidgid === true) {
    steps.push(() => {
      const status = context.sync.stat(fd, context.stat);
      const now = context.stat[STAT.MODE] as number;
      if (status < 0 || (now & S.IFMT) !== S.IFREG || killedMode(now) === (now & 0o7777)) return status;
      return context.metadata.chmod(fd, killedMode(now));
    });
  }
  if (atime !== undefined || mtime !== undefined) {
    const [atimeSec, atimeNsec] = timeFields(atime);
    const [mtimeSec, mtimeNsec] = timeFields(mtime);
    steps.push(() => context.metadata.utimens(fd, atimeSec, atimeNsec, mtimeSec, mtimeNsec));
  }
  // So comes a chown that names nobody, which clears set-user-id all the same.
  if (steps.length === 0) steps.push(() => context.metadata.chown(fd, -1, -1));
  return steps;
}

/** A descriptor that may truncate `id`, closed after `work`. Only for regular files: the open of another kind has effects. */
function withTruncatable<T>(context: LocalContext, id: FileId, work: (fd: number) => MaybePromise<T>): MaybePromise<T> {
  return andThen(getattr(context, id), (attr): MaybePromise<T> => {
    const type = attr.mode & S.IFMT;
    if (type !== S.IFREG) throw errnoError(type === S.IFDIR ? E.EISDIR : E.EINVAL);
    // In the pool: a write open may have to wait for a journal, its close for a write-out.
    // That it may be opened by its handle was proved by getattr.
    const opened = context.native.pool.data.openByHandle(context.rootFd, ownHandle(context, id), O.WRONLY | O.NOATIME);
    return andThen(opened, (result) => {
      const fd = checked(result);
      return finallyDo(
        () => work(fd),
        () => {
          void context.native.pool.data.close(fd);
        },
      );
    });
  });
}

export function setattr(context: LocalContext, id: FileId, change: AttrChange, handle: LowerHandle | null): MaybePromise<Attr> {
  const { size } = change;
  if (size !== undefined) checkWritable(size, 0);
  const apply = (fd: number, sizeFd: number | null): MaybePromise<Attr> =>
    andThen(inOrder(changeSteps(context, fd, sizeFd, change)), () => attrOfFd(context, fd));
  if (handle !== null) {
    const file = context.handles.get(handle);
    const usable = sameId(file.id, id) && (size === undefined || file.writable);
    if (usable && size !== undefined) file.changed = true;
    if (usable) return context.handles.use(file, (fd) => apply(fd, fd));
  }
  if (size !== undefined) return withTruncatable(context, id, (fd) => apply(fd, fd));
  return withInode(context, id, (fd) => apply(fd, null));
}

export function readlink(context: LocalContext, id: FileId): MaybePromise<Buffer> {
  return withInode(context, id, (fd) => {
    const target = Buffer.allocUnsafe(PATH_MAX);
    // A target longer than the inode has room for is in a block of its own, which may be cold.
    const length = context.native.pool.metadata.readlink(fd, target);
    return length.then((value) => target.subarray(0, checked(value)));
  });
}

const CLUSTERED = Buffer.from("trusted.clustered");
const DOT = 0x2e;

/** The clustered bit, and what is kept beside it (trusted.clustered.epoch), belong to `coverlay volume`, not to those who use the mount (DESIGN 7). */
function isHidden(context: LocalContext, id: FileId, name: Buffer): boolean {
  if (!sameId(id, context.root) || name.compare(CLUSTERED, 0, CLUSTERED.length, 0, Math.min(name.length, CLUSTERED.length)) !== 0)
    return false;
  return name.length === CLUSTERED.length || name[CLUSTERED.length] === DOT;
}

export function getxattr(context: LocalContext, id: FileId, name: Buffer): MaybePromise<Buffer> {
  if (isHidden(context, id, name)) throw errnoError(E.ENODATA);
  return withInode(context, id, (fd) => {
    const value = context.metadata === context.sync ? context.scratch : Buffer.allocUnsafe(XATTR_SIZE_MAX);
    return andThen(context.metadata.getxattr(fd, name, value), (length) => Buffer.from(value.subarray(0, checked(length))));
  });
}

export function setxattr(context: LocalContext, id: FileId, name: Buffer, value: Buffer, flags: number): MaybePromise<void> {
  if (isHidden(context, id, name)) throw errnoError(E.EPERM);
  if (value.length > XATTR_SIZE_MAX) throw errnoError(E.E2BIG);
  return withInode(context, id, (fd) => andThen(checkedMaybe(context.metadata.setxattr(fd, name, value, flags)), () => undefined));
}

function withoutHidden(context: LocalContext, id: FileId, list: Buffer): Buffer {
  const copy = Buffer.from(list);
  if (!sameId(id, context.root)) return copy;
  const names: Buffer[] = [];
  let at = 0;
  while (at < copy.length) {
    const end = copy.indexOf(0, at);
    const name = copy.subarray(at, end < 0 ? copy.length : end);
    if (!isHidden(context, id, name)) names.push(name, Buffer.alloc(1));
    at += name.length + 1;
  }
  return Buffer.concat(names);
}

export function listxattr(context: LocalContext, id: FileId, cold = false): MaybePromise<Buffer> {
  return withInode(context, id, (fd) => {
    const calls = cold ? context.native.pool.metadata : context.metadata;
    const list = calls === context.sync ? context.scratch : Buffer.allocUnsafe(XATTR_LIST_MAX);
    return andThen(calls.listxattr(fd, list), (length) => withoutHidden(context, id, list.subarray(0, checked(length))));
  });
}

/** "labelled": a list leaves out an inode's label, and each has one. */
export type Listed = "all" | "labelled";

const LABEL: Buffer = Buffer.concat([SELINUX, Buffer.alloc(1)]);

/** null: too many to be told; or an error, which whoever asks for more meets, too. */
export function xattrNames(context: LocalContext, id: FileId, listed: Listed, cold: boolean): MaybePromise<Buffer | null> {
  const told = (list: Buffer): Buffer | null => {
    const whole = listed === "labelled" && !isNamed(list, SELINUX) ? Buffer.concat([list, LABEL]) : list;
    return whole.length > XATTR_NAMES_TOLD_MAX ? null : whole;
  };
  return withErrors<Buffer | null>(() => andThen(listxattr(context, id, cold), told), absentIfUnreadable);
}

export function removexattr(context: LocalContext, id: FileId, name: Buffer): MaybePromise<void> {
  if (isHidden(context, id, name)) throw errnoError(E.EPERM);
  return withInode(context, id, (fd) => andThen(checkedMaybe(context.metadata.removexattr(fd, name)), () => undefined));
}
