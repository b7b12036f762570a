/**
 * The local lower: names. Changes check what the name stands for right before they act (hazard F12); the caller's EX
 * lock on the directory keeps other nodes away between the two, and `turns` the other calls of this process.
 */
import { E, Errno, errnoError } from "../../../dlmd/base/errno.ts";
import { HANDLE_BUFFER_BYTES, STAT } from "../../../native/index.ts";
import { namesAfterRename } from "../directory-names.ts";
import { AT_REMOVEDIR, O, RENAME, S } from "../linux.ts";
import { checkName, MAX_LOOKUP_MANY } from "../limits.ts";
import { attrOf, attrOfFd, entryOf, type LocalContext, sameId, withInode } from "./context.ts";
import type { Attr, Caller, Entry, FileId, LowerHandle } from "../lower.ts";
import { andThen, checked, type MaybePromise, withErrors } from "../../../dlmd/base/maybe-promise.ts";
import { isReservedName } from "../reserved-names.ts";
import { removing, renameOver, unlinkOrKeep } from "./removal.ts";
import { warmNames } from "./warm-up.ts";

function isReserved(context: LocalContext, parent: FileId, name: Buffer): boolean {
  return isReservedName(name) && sameId(parent, context.root);
}

/** ESTALE: the directory was removed, and is kept because it is open somewhere. */
function checkParent(context: LocalContext, parent: FileId): void {
  if (context.orphans.has(parent)) throw errnoError(E.ESTALE);
}

/** A name that is given to something. EPERM: it belongs to coverlay. */
function checkNewName(context: LocalContext, parent: FileId, name: Buffer): void {
  checkName(name);
  checkParent(context, parent);
  if (isReserved(context, parent, name)) throw errnoError(E.EPERM);
}

/** A name that something has. ENOENT: what belongs to coverlay is not there for others. */
function checkOldName(context: LocalContext, parent: FileId, name: Buffer): void {
  checkName(name);
  checkParent(context, parent);
  if (isReserved(context, parent, name)) throw errnoError(E.ENOENT);
}

async function lookupCold(context: LocalContext, dirfd: number, name: Buffer): Promise<Entry> {
  const stat = new Float64Array(STAT.FIELDS);
  const handle = Buffer.alloc(HANDLE_BUFFER_BYTES);
  checked(await context.native.pool.metadata.lookup(dirfd, name, false, stat, handle));
  return entryOf(context, stat, handle);
}

/**
 * A name whose inode is known: one system call for its attributes. On this thread where the inode was in use a moment ago, as for an inode
 * that is asked for by itself (recent-inodes.ts). undefined: it has to be looked up.
 */
function lookupKnown(context: LocalContext, dirfd: number, name: Buffer, id: FileId | null | undefined): Entry | undefined {
  if (id === null || id === undefined || !context.recent.has(id)) return undefined;
  const { stat } = context;
  if (context.sync.statName(dirfd, name, stat) < 0 || stat[STAT.INO] !== id.ino) return undefined;
  if (stat[STAT.DEV_MAJOR] !== context.devMajor || stat[STAT.DEV_MINOR] !== context.devMinor) return undefined;
  const attr = attrOf(context, stat);
  context.recent.note(id, attr.mode);
  context.containment.note(id);
  return { id, attr };
}

/** Without waiting; undefined: it would have to. */
function lookupCached(context: LocalContext, dirfd: number, name: Buffer): Entry | undefined {
  if (!context.cachedLookups) return undefined;
  const result = context.sync.lookup(dirfd, name, true, context.stat, context.handle);
  if (result >= 0) return entryOf(context, context.stat, context.handle);
  if (result !== -E.EAGAIN) throw errnoError(-result);
  return undefined;
}

function lookupIn(context: LocalContext, dirfd: number, name: Buffer): MaybePromise<Entry> {
  return lookupCached(context, dirfd, name) ?? lookupCold(context, dirfd, name);
}

async function lookupAhead(context: LocalContext, parent: FileId, dirfd: number, name: Buffer): Promise<Entry> {
  const entry = await lookupCold(context, dirfd, name);
  context.warmUp.noteCold(parent);
  return entry;
}

/** Without waiting. ENOENT; undefined: it would have to. */
function lookupAtOnce(
  context: LocalContext,
  parent: FileId,
  dirfd: number,
  name: Buffer,
  id: FileId | null | undefined,
): Entry | undefined {
  const known = lookupKnown(context, dirfd, name, id);
  if (known !== undefined) return known;
  const found = lookupCached(context, dirfd, name);
  // Only what is found within one turn is noted: a change that is made meanwhile would not be seen.
  if (found !== undefined) context.names.is(parent, name, found.id);
  return found;
}

export function lookup(context: LocalContext, parent: FileId, name: Buffer): MaybePromise<Entry> {
  checkOldName(context, parent, name);
  const known = context.names.get(parent, name);
  if (known === null) throw errnoError(E.ENOENT);
  const open = context.directories.peek(parent);
  const cached = open === undefined ? undefined : lookupAtOnce(context, parent, open, name, known);
  if (cached !== undefined) return cached;
  return context.directories.use(parent, (dirfd) => {
    // Known or not: the directory had to be opened, and meanwhile the name may have become another.
    const found = open === undefined ? lookupAtOnce(context, parent, dirfd, name, context.names.get(parent, name)) : undefined;
    return found ?? lookupAhead(context, parent, dirfd, name);
  });
}

/**
 * Removed meanwhile, another file system is mounted there, or its inode is damaged (EUCLEAN, EBADMSG, EIO): that name's affair alone. A
 * listing shows it without attributes, as that of a local file system, and a lookup of it ends with its own error.
 */
function absentFromListing(error: unknown): null {
  if (error instanceof Errno) return null;
  throw error;
}

export function lookupMany(context: LocalContext, parent: FileId, wanted: readonly Buffer[]): MaybePromise<readonly (Entry | null)[]> {
  if (wanted.length > MAX_LOOKUP_MANY) throw errnoError(E.E2BIG);
  for (const name of wanted) checkName(name);
  checkParent(context, parent);
  return context.directories.use(parent, (dirfd) => {
    const found = wanted.map((name) => (isReserved(context, parent, name) ? null : tryCached(context, dirfd, name)));
    return found.includes(undefined) ? lookupRest(context, dirfd, wanted, found) : (found as (Entry | null)[]);
  });
}

/** null: there is none; undefined: to know it, it would have to wait. */
function tryCached(context: LocalContext, dirfd: number, name: Buffer): Entry | null | undefined {
  try {
    return lookupCached(context, dirfd, name);
  } catch (error) {
    return absentFromListing(error);
  }
}

/** Has what is cold looked at by the pool, many names to a call, and then looks again. */
async function lookupRest(
  context: LocalContext,
  dirfd: number,
  wanted: readonly Buffer[],
  found: readonly (Entry | null | undefined)[],
): Promise<(Entry | null)[]> {
  if (context.cachedLookups) {
    await warmNames(
      context.native,
      dirfd,
      wanted.filter((_, at) => found[at] === undefined),
    );
  }
  return await Promise.all(
    wanted.map(async (name, at) => {
      const known = found[at] === undefined ? tryCached(context, dirfd, name) : found[at];
      return known === undefined ? await lookupCold(context, dirfd, name).catch(absentFromListing) : known;
    }),
  );
}

/** null where there is no such name. */
function lookupOrNull(context: LocalContext, dirfd: number, name: Buffer): MaybePromise<Entry | null> {
  const absent = (error: unknown): null => {
    if (error instanceof Errno && error.errno === E.ENOENT) return null;
    throw error;
  };
  try {
    const entry = lookupIn(context, dirfd, name);
    return entry instanceof Promise ? entry.catch(absent) : entry;
  } catch (error) {
    return absent(error);
  }
}

/** What a rename would replace. A name that was never there is in no cache of the kernel's: the pool would look for it. */
function lookupReplaced(context: LocalContext, parent: FileId, dirfd: number, name: Buffer): MaybePromise<Entry | null> {
  return context.exclusive && context.names.get(parent, name) === null ? null : lookupOrNull(context, dirfd, name);
}

/** One change of one directory, alone. */
function inDirectory<T>(context: LocalContext, parent: FileId, work: (dirfd: number) => MaybePromise<T>): MaybePromise<T> {
  return inDirectories(context, [parent.ino], parent, (dirfd) => {
    // The call whose turn it was may have removed it, and it is kept because it is open.
    checkParent(context, parent);
    return work(dirfd);
  });
}

/** `alone`: of these directories no other is changed meanwhile. */
function inDirectories<T>(
  context: LocalContext,
  alone: readonly number[],
  parent: FileId,
  work: (dirfd: number) => MaybePromise<T>,
): MaybePromise<T> {
  return context.turns.run(alone, () => context.directories.use(parent, work));
}

/** The caller's flags as a new file of the lower is opened: without O_TRUNC, which takes nothing away from one. */
function madeFlags(flags: number): number {
  return (flags & (O.ACCMODE | O.SYNC | O.DSYNC)) | O.NOATIME;
}

/** A call in the pool needs a place of its own for what it finds. */
function placeOfMade(context: LocalContext): { readonly stat: Float64Array; readonly handle: Buffer } {
  if (context.metadata === context.sync) return context;
  return { stat: new Float64Array(STAT.FIELDS), handle: Buffer.alloc(HANDLE_BUFFER_BYTES) };
}

export function create(
  context: LocalContext,
  parent: FileId,
  name: Buffer,
  flags: number,
  mode: number,
  caller: Caller,
): MaybePromise<{ entry: Entry; handle: LowerHandle }> {
  checkNewName(context, parent, name);
  context.handles.checkRoom();
  const openFlags = madeFlags(flags);
  const { stat, handle } = placeOfMade(context);
  const { umask, uid, gid } = caller;
  return inDirectory(context, parent, (dirfd) => {
    context.names.changing(parent, name);
    return andThen(context.metadata.create(dirfd, name, openFlags, mode & 0o7777, umask, uid, gid, stat, handle), (result) => {
      const fd = checked(result);
      const entry = described(context, fd, stat, handle);
      const opened = context.handles.add(fd, entry.id, openFlags, false, context.smallWrites.madeMs(openFlags));
      context.names.is(parent, name, entry.id);
      return { entry, handle: opened };
    });
  });
}

/** Hazard F30. It counts as open before it gets its hidden name: what nobody has open may be dropped at any time. */
export function tmpfile(
  context: LocalContext,
  parent: FileId,
  flags: number,
  mode: number,
  caller: Caller,
  linkable: boolean,
): MaybePromise<{ entry: Entry; handle: LowerHandle }> {
  checkParent(context, parent);
  context.handles.checkRoom();
  context.orphans.checkThere();
  const openFlags = madeFlags(flags);
  const { stat, handle } = placeOfMade(context);
  const { umask, uid, gid } = caller;
  return context.directories.use(parent, (dirfd) =>
    andThen(context.metadata.tmpfile(dirfd, openFlags, mode & 0o7777, umask, uid, gid, stat, handle), (result) => {
      const fd = checked(result);
      const { id } = described(context, fd, stat, handle);
      const opened = context.handles.add(fd, id, openFlags, false, context.smallWrites.madeMs(openFlags));
      return withErrors(
        () =>
          andThen(context.orphans.keepNameless(fd, id, linkable), () => ({ entry: { id, attr: attrOfFd(context, fd) }, handle: opened })),
        (error) => {
          context.handles.close(opened);
          throw error;
        },
      );
    }),
  );
}

/** Takes over `fd`. */
function described(context: LocalContext, fd: number, stat: Float64Array, handle: Buffer): Entry {
  try {
    return entryOf(context, stat, handle);
  } catch (error) {
    context.sync.close(fd);
    throw error;
  }
}

/** `make` gives the name to a new inode, which is then looked up. */
function make(context: LocalContext, parent: FileId, name: Buffer, call: (dirfd: number) => MaybePromise<number>): MaybePromise<Entry> {
  return inDirectory(context, parent, (dirfd) => {
    context.names.changing(parent, name);
    return andThen(call(dirfd), (value) => {
      checked(value);
      return andThen(lookupIn(context, dirfd, name), (entry) => {
        context.names.is(parent, name, entry.id);
        return entry;
      });
    });
  });
}

export function mkdir(context: LocalContext, parent: FileId, name: Buffer, mode: number, caller: Caller): MaybePromise<Entry> {
  checkNewName(context, parent, name);
  const entry = make(context, parent, name, (dirfd) =>
    context.metadata.mkdir(dirfd, name, mode & 0o7777, caller.umask, caller.uid, caller.gid),
  );
  // It is empty for certain only if nobody could have found it in between.
  if (!(entry instanceof Promise)) context.names.made(entry.id);
  return entry;
}

export function mknod(
  context: LocalContext,
  parent: FileId,
  name: Buffer,
  mode: number,
  rdevMajor: number,
  rdevMinor: number,
  caller: Caller,
): MaybePromise<Entry> {
  checkNewName(context, parent, name);
  return make(context, parent, name, (dirfd) =>
    context.metadata.mknod(dirfd, name, mode, caller.umask, rdevMajor, rdevMinor, caller.uid, caller.gid),
  );
}

export function symlink(context: LocalContext, parent: FileId, name: Buffer, target: Buffer, caller: Caller): MaybePromise<Entry> {
  checkNewName(context, parent, name);
  if (target.length === 0) throw errnoError(E.ENOENT);
  if (target.includes(0)) throw errnoError(E.EINVAL);
  return make(context, parent, name, (dirfd) => context.metadata.symlink(target, dirfd, name, caller.uid, caller.gid));
}

function remove(context: LocalContext, parent: FileId, name: Buffer, expected: FileId, flags: number): MaybePromise<void> {
  checkOldName(context, parent, name);
  // A directory must stay empty until it is gone.
  const alone = flags === AT_REMOVEDIR ? [parent.ino, expected.ino] : [parent.ino];
  return inDirectories(context, alone, parent, (dirfd) => {
    const known = lookupKnown(context, dirfd, name, context.names.get(parent, name));
    return andThen(known ?? lookupIn(context, dirfd, name), (entry) => {
      if (!sameId(entry.id, expected)) throw errnoError(E.ESTALE);
      context.names.changing(parent, name);
      const removed = removing(context, entry, () => unlinkOrKeep(context, dirfd, name, entry, flags));
      return andThen(removed, () => context.names.gone(parent, name));
    });
  });
}

export function unlink(context: LocalContext, parent: FileId, name: Buffer, expected: FileId): MaybePromise<void> {
  return remove(context, parent, name, expected, 0);
}

export function rmdir(context: LocalContext, parent: FileId, name: Buffer, expected: FileId): MaybePromise<void> {
  return remove(context, parent, name, expected, AT_REMOVEDIR);
}

interface RenamedNames {
  readonly oldParent: FileId;
  readonly oldName: Buffer;
  readonly newParent: FileId;
  readonly newName: Buffer;
}

/** After a rename(2) that went well. */
function noteRenamed(context: LocalContext, at: RenamedNames, flags: number, moved: FileId, replaced: FileId | null): void {
  const { names } = context;
  const after = namesAfterRename(flags, moved, replaced);
  if (after === null) return;
  const [old, now] = after;
  names.is(at.newParent, at.newName, now);
  if (old === null) names.gone(at.oldParent, at.oldName);
  else names.is(at.oldParent, at.oldName, old);
}

/** Hazard F46. */
function tellMoved({ moved }: LocalContext, { id, attr }: Entry): void {
  if ((attr.mode & S.IFMT) === S.IFDIR) moved(id);
}

export function rename(
  context: LocalContext,
  oldParent: FileId,
  oldName: Buffer,
  newParent: FileId,
  newName: Buffer,
  flags: number,
  expectedOld: FileId,
  expectedNew: FileId | null,
): MaybePromise<void> {
  checkOldName(context, oldParent, oldName);
  checkNewName(context, newParent, newName);
  const act = (oldFd: number, newFd: number): MaybePromise<void> => {
    checkParent(context, oldParent);
    checkParent(context, newParent);
    const known = lookupKnown(context, oldFd, oldName, context.names.get(oldParent, oldName));
    return andThen(known ?? lookupIn(context, oldFd, oldName), (moved) =>
      andThen(lookupReplaced(context, newParent, newFd, newName), (replaced) => {
        if (!sameId(moved.id, expectedOld)) throw errnoError(E.ESTALE);
        if (replaced === null ? expectedNew !== null : expectedNew === null || !sameId(replaced.id, expectedNew)) {
          throw errnoError(E.ESTALE);
        }
        // Two names of one inode: rename(2) does nothing.
        const going = (flags & RENAME.EXCHANGE) !== 0 || (replaced !== null && sameId(replaced.id, moved.id)) ? null : replaced;
        context.names.changing(oldParent, oldName);
        context.names.changing(newParent, newName);
        const renamed = removing(context, going, (held) => renameOver(context, going, held, oldFd, oldName, newFd, newName, flags));
        return andThen(renamed, () => {
          noteRenamed(context, { oldParent, oldName, newParent, newName }, flags, moved.id, replaced?.id ?? null);
          tellMoved(context, moved);
          if (replaced !== null && (flags & RENAME.EXCHANGE) !== 0) tellMoved(context, replaced);
        });
      }),
    );
  };
  return context.turns.run([oldParent.ino, newParent.ino], () =>
    context.directories.use(oldParent, (oldFd) => context.directories.use(newParent, (newFd) => act(oldFd, newFd))),
  );
}

export function link(context: LocalContext, id: FileId, newParent: FileId, newName: Buffer): MaybePromise<Attr> {
  checkNewName(context, newParent, newName);
  return inDirectory(context, newParent, (dirfd) =>
    withInode(context, id, (fd) => {
      context.names.changing(newParent, newName);
      const nameless = context.orphans.has(id);
      const linked = nameless ? context.orphans.moveOut(id, dirfd, newName) : context.metadata.link(fd, dirfd, newName);
      return andThen(linked, (result) => {
        checked(result);
        if (nameless) void context.hidden.named(id);
        context.names.is(newParent, newName, id);
        return attrOfFd(context, fd);
      });
    }),
  );
}
