/** MKDIR, MKNOD, SYMLINK, CREATE, LINK: new names. TMPFILE: what has none. */
import { E, errnoError, isErrno } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { Since } from "../coherence/cover.ts";
import type { Named, ReplyTerms } from "../coherence/terms.ts";
import type { CreateRequest, LinkRequest, MkdirRequest, MknodRequest, SymlinkRequest, TmpfileRequest } from "../fuse/request.ts";
import type { InodeRecord } from "../inode/table.ts";
import { type Attr, type Caller, changeFor, type Entry, type LowerHandle } from "../lower/lower.ts";
import { andThen, finallyDo, withErrors, type MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import { accessAcl } from "./access-acl.ts";
import type { Call } from "./call.ts";
import { attributesChanged, changed, changedNames, resized, sizeReplied } from "./change.ts";
import { openExisting } from "./create-existing.ts";
import { O_ACCMODE, O_EXCL, O_RDONLY, O_TMPFILE, S_ISGID } from "./linux.ts";
import { giveEntry, standsFor } from "./lookup.ts";
import { inodeOf, type Mount, remembered } from "./mount.ts";
import { enterFile, giveCreated, writeAccess } from "./open.ts";
import { checkHardlink, hardlinksAreProtected, seenCaller, unknownCredentials } from "./permission.ts";
import { pinned, pinnedAll } from "./pinned.ts";
import { noteChange } from "./victim.ts";

function callerOf(mount: Mount, call: Call, umask: number): Caller {
  return { uid: call.uid, gid: call.gid, umask: mount.dontMask ? umask : 0 };
}

export function mkdir(mount: Mount, call: Call, request: MkdirRequest): MaybePromise<void> {
  const caller = callerOf(mount, call, request.umask);
  return make(mount, call, request.fuseNodeid, request.name, (dir) => mount.lower.mkdir(dir.id, request.name, request.mode, caller));
}

export function mknod(mount: Mount, call: Call, request: MknodRequest): MaybePromise<void> {
  const { name, mode, rdevMajor, rdevMinor } = request;
  const caller = callerOf(mount, call, request.umask);
  return make(mount, call, request.fuseNodeid, name, (dir) => mount.lower.mknod(dir.id, name, mode, rdevMajor, rdevMinor, caller));
}

export function symlink(mount: Mount, call: Call, request: SymlinkRequest): MaybePromise<void> {
  const caller = callerOf(mount, call, 0);
  return make(mount, call, request.fuseNodeid, request.name, (dir) => mount.lower.symlink(dir.id, request.name, request.target, caller));
}

function make(
  mount: Mount,
  call: Call,
  fuseNodeid: number,
  name: Buffer,
  create: (dir: InodeRecord) => MaybePromise<Entry>,
): MaybePromise<void> {
  const dir = inodeOf(mount, fuseNodeid);
  return inChangedDirectory(mount, call, dir, () => {
    const since = mount.coherence.since();
    const made = (): MaybePromise<Entry> => changeFor(mount.lower, call.unique, () => create(dir));
    return andThen(changedNames(mount, call, { inodes: [dir], named: [dir] }, made), (entry) =>
      answerMade(mount, call, { dir, name }, entry, since),
    );
  });
}

function inChangedDirectory<T>(mount: Mount, call: Call, dir: InodeRecord, work: () => MaybePromise<T>): MaybePromise<T> {
  return pinned(mount, call, dir, Mode.EX, () => withErrors(work, inGoneDirectory));
}

function answerMade(mount: Mount, call: Call, named: Named, entry: Entry, since: Since): MaybePromise<void> {
  return withBorn(mount, { entry, handle: null, since }, (child) =>
    tellBorn(mount, call, named, child, entry.attr, (terms) => giveEntry(mount, call, child, entry.attr, terms)),
  );
}

/** Hazard F18: a directory that was removed elsewhere, while somebody works in it, has no names and takes none: ENOENT, as on any file system. */
export function inGoneDirectory(error: unknown): never {
  throw isErrno(error, E.ESTALE) ? errnoError(E.ENOENT) : error;
}

/** A new inode. */
interface Born {
  readonly entry: Entry;
  /** By which it is open. */
  readonly handle: LowerHandle | null;
  /** Before the lower was asked to make it. */
  readonly since: Since;
}

/** Under EX of its directory: no other node can know it, so its lock is here without a message (but hazard F51). */
function withBorn(
  mount: Mount,
  { entry: { id, attr }, handle, since }: Born,
  work: (child: InodeRecord) => MaybePromise<void>,
): MaybePromise<void> {
  const child = mount.inodes.remember(id, attr.mode);
  child.nlinkHint = attr.nlink;
  if (mount.coherence.enterNew(child, since)) {
    mount.lower.made(child.id, attr);
    if (child.kind !== "directory") child.uncappedHold = mount.coherence.grantId(child);
    if (handle !== null) mount.lower.madeFile(handle, attr);
  }
  return finallyDo(
    () => work(child),
    () => mount.inodes.leave(child),
  );
}

/** It is not pinned where a LOOKUP beside this call has found it first, and its lock is on the way. `named`: null: it has no name. */
function tellBorn(
  mount: Mount,
  call: Call,
  named: Named | null,
  child: InodeRecord,
  attr: Attr,
  answer: (terms: ReplyTerms) => void,
): void {
  const { coherence } = mount;
  const pinned = coherence.tryPin(child, Mode.PR);
  try {
    answer(coherence.terms.ofNew(child, attr.size, call.pid, pinned, named));
  } finally {
    if (pinned) coherence.unpin(child, Mode.PR);
  }
}

/**
 * Hazard F12: the lower creates O_EXCL only. The kernel sends CREATE for a name that it believes not to exist; if it does, the
 * permission to open it was never checked. So ESTALE, once: the kernel walks again, finds the file and checks. The same call coming back
 * is answered here, under a check of our own.
 */
export function create(mount: Mount, call: Call, request: CreateRequest): MaybePromise<void> {
  const dir = inodeOf(mount, request.fuseNodeid);
  const outcome = inChangedDirectory(mount, call, dir, () =>
    withErrors<"done" | "exists">(
      () => andThen(createOnce(mount, call, request, dir), () => "done"),
      (error) => {
        if (!isErrno(error, E.EEXIST) || (request.flags & O_EXCL) !== 0) throw error;
        return mount.staleOnce.answer(call, request.name, true) ? "done" : "exists";
      },
    ),
  );
  return andThen(outcome, (found) => (found === "done" ? undefined : openExisting(mount, call, request, dir)));
}

/** A new file that is open. */
interface BornOpen extends Born {
  readonly handle: LowerHandle;
}

/** EEXIST. */
function createOnce(mount: Mount, call: Call, request: CreateRequest, dir: InodeRecord): MaybePromise<void> {
  const caller = callerOf(mount, call, request.umask);
  /** Open, and nobody's yet. */
  let opened: LowerHandle | null = null;
  const since = mount.coherence.since();
  const create = (): MaybePromise<Omit<BornOpen, "since">> => mount.lower.create(dir.id, request.name, request.flags, request.mode, caller);
  const created = (): MaybePromise<Omit<BornOpen, "since">> =>
    andThen(changeFor(mount.lower, call.unique, create), (made) => {
      opened = made.handle;
      return made;
    });
  const work = (): MaybePromise<void> =>
    andThen(changedNames(mount, call, { inodes: [dir], named: [dir] }, created), ({ entry, handle }) => {
      mount.staleOnce.settled(call, request.name);
      return andThen(restoreSetgid(mount, call, entry, request), (attr) => {
        opened = null;
        return answerCreated(mount, call, request.flags, { dir, name: request.name }, { entry: { id: entry.id, attr }, handle, since });
      });
    });
  return withErrors(work, (error) => {
    if (opened !== null) mount.lower.close(opened);
    throw error;
  });
}

/**
 * Hazard F15: the lower makes the file under the caller's first group alone, and takes the set-group-id bit from one who is not of the
 * directory's. The kernel says when the caller is (CREATE_SUPP_GROUP): then the bit that was asked for is set again. A change of its own: if the caller is killed,
 * others find the file (hazard F50).
 */
export function restoreSetgid(mount: Mount, call: Call, entry: Entry, request: CreateRequest | TmpfileRequest): MaybePromise<Attr> {
  const { id, attr } = entry;
  const lost = (request.mode & S_ISGID) !== 0 && (attr.mode & S_ISGID) === 0 && request.supplementaryGids.includes(attr.gid);
  if (!lost) return attr;
  const set = (): MaybePromise<Attr> => mount.lower.setattr(id, { mode: (attr.mode & 0o7777) | S_ISGID }, null);
  return remembered(mount, entry, (child) => changed(mount, call, [child], set));
}

function answerCreated(mount: Mount, call: Call, flags: number, named: Named | null, born: BornOpen): MaybePromise<void> {
  const { entry, handle } = born;
  return withBorn(mount, born, (child) => {
    const token = (flags & O_ACCMODE) === O_RDONLY ? null : tokenOf(mount, call, child, handle, flags);
    return andThen(token, (access) => {
      const file = enterFile(mount, child, handle, access, flags);
      tellBorn(mount, call, named, child, entry.attr, (terms) => giveCreated(mount, call, file, entry.attr, terms));
    });
  });
}

/**
 * Hazard F30. Nothing of its directory changes: PR of it is enough for its mode, its ACL and its group to be those of now. No other node can know the file
 * before `link`, so its lock is here without a message. A removed directory: ENOENT, as for every file.
 */
export function tmpfile(mount: Mount, call: Call, request: TmpfileRequest): MaybePromise<void> {
  const dir = inodeOf(mount, request.fuseNodeid);
  const flags = request.flags & ~(O_TMPFILE | O_EXCL);
  const linkable = (request.flags & O_EXCL) === 0;
  const caller = callerOf(mount, call, request.umask);
  const create = (): MaybePromise<Omit<BornOpen, "since">> => mount.lower.tmpfile(dir.id, flags, request.mode, caller, linkable);
  const make = (): MaybePromise<void> => {
    const since = mount.coherence.since();
    return andThen(changeFor(mount.lower, call.unique, create), ({ entry, handle }) => {
      const described = withErrors(
        () => restoreSetgid(mount, call, entry, request),
        (error) => closeAndThrow(mount, handle, error),
      );
      return andThen(described, (attr) => answerCreated(mount, call, flags, null, { entry: { id: entry.id, attr }, handle, since }));
    });
  };
  return pinned(mount, call, dir, Mode.PR, () => withErrors(make, inGoneDirectory));
}

/** At once, but where the inode was found before it was born. */
function tokenOf(mount: Mount, call: Call, child: InodeRecord, handle: LowerHandle, flags: number): MaybePromise<"cached" | "direct"> {
  return withErrors(
    () => writeAccess(mount, call, child, flags, true),
    (error) => closeAndThrow(mount, handle, error),
  );
}

function closeAndThrow(mount: Mount, handle: LowerHandle, error: unknown): never {
  mount.lower.close(handle);
  throw error;
}

/** The new name's inode is an old one: its attributes go without validity (hazard F4). `isMade`: by the process before (hazard F38). */
export async function link(mount: Mount, call: Call, request: LinkRequest, isMade = false): Promise<void> {
  const { coherence, inodes } = mount;
  const dir = inodeOf(mount, request.fuseNodeid);
  const inode = inodeOf(mount, request.targetFuseNodeid);
  coherence.sizes.locked(inode, call);
  noteChange(mount, inode);
  inodes.use(inode);
  const wants = [dir, inode].map((one) => ({ inode: one, mode: Mode.EX }));
  const make = (): MaybePromise<Attr> => (isMade ? mount.lower.getattr(inode.id) : makeLink(mount, call, request, dir, inode));
  const pinnedLink = async (made: () => void): Promise<void> => {
    const attr = await make();
    const stands = !isMade || (await standsFor(mount, { dir, name: request.name }, inode));
    made();
    await answerLink(mount, call, { dir, name: request.name }, inode, attr, stands);
  };
  try {
    await pinnedAll(mount, call, { wants }, () => resized(mount, call, inode, "plain", pinnedLink));
  } catch (error) {
    inGoneDirectory(error);
  } finally {
    inodes.leave(inode);
  }
}

/** Under its lock: what the kernel checked may be what was there before another node changed it. */
async function checkSource(mount: Mount, call: Call, inode: InodeRecord): Promise<void> {
  if (call.uid === 0 || !hardlinksAreProtected()) return;
  const attr = await mount.lower.ownership(inode.id);
  if (attr.uid === call.uid) return;
  const who = seenCaller(mount, call);
  await checkHardlink(
    who ?? unknownCredentials(call.uid, call.gid),
    attr,
    async () => who === null || (await accessAcl(mount, inode)) !== null,
  );
}

async function makeLink(mount: Mount, call: Call, { name }: LinkRequest, dir: InodeRecord, inode: InodeRecord): Promise<Attr> {
  await checkSource(mount, call, inode);
  return changed(mount, call, [dir, inode], () => changeFor(mount.lower, call.unique, () => mount.lower.link(inode.id, dir.id, name)));
}

/** `stands`: the name is of that inode still. */
async function answerLink(mount: Mount, call: Call, { dir, name }: Named, inode: InodeRecord, attr: Attr, stands: boolean): Promise<void> {
  const { terms } = mount.coherence;
  // The reply sets those of the inode itself.
  await attributesChanged(mount, call, [dir]);
  sizeReplied(mount, call, inode, "sets", attr.size);
  giveEntry(mount, call, inode, attr, terms.of(inode, attr.size, call.pid, null, { dir, name, stands }));
}
