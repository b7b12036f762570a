/** LOOKUP, FORGET: from a name to an inode, and back to nothing. */
import { E, errnoError, isErrno } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { ChildPin, Since } from "../coherence/cover.ts";
import type { Named, ReplyTerms } from "../coherence/terms.ts";
import type { ForgetRequest, LookupRequest } from "../fuse/request.ts";
import type { InodeRecord } from "../inode/table.ts";
import { type Attr, type Entry, fileKey } from "../lower/lower.ts";
import { andThen, finallyDo, type MaybePromise, withErrors } from "../../dlmd/base/maybe-promise.ts";
import type { Call } from "./call.ts";
import { type Mount, inodeOf, remembered, waiting } from "./mount.ts";
import { pinned } from "./pinned.ts";
import { renameTarget } from "./placeholder-inodes.ts";

/** So long a LOOKUP waits for its directory's lock. Then it looks without. */
export const LOOK_WAIT_MS = 250;

/** Answered within the turn wherever nothing has to wait: so are nearly all. */
export function lookup(mount: Mount, call: Call, request: LookupRequest): MaybePromise<void> {
  const dir = inodeOf(mount, request.fuseNodeid);
  if (isOnTheWay(mount, call)) mount.moved.askedOnTheWay();
  if (!mount.coherence.tryPin(dir, Mode.PR)) return lookupLater(mount, call, dir, request.name);
  return lookupUntilUnpinned(mount, call, dir, request.name);
}

function lookupUntilUnpinned(mount: Mount, call: Call, dir: InodeRecord, name: Buffer): MaybePromise<void> {
  return finallyDo(
    () => lookupIn(mount, call, dir, name),
    () => mount.coherence.unpin(dir, Mode.PR),
  );
}

/**
 * Hazard F4. A thread that takes a listing waits for each LOOKUP of a name in it (fs/fuse/readdir.c, fuse_direntplus_link: d_alloc_parallel), and a revoke of what the
 * listing tells waits for the thread. So this wait has an end: whoever has the directory may be waiting for that revoke.
 */
async function lookupLater(mount: Mount, call: Call, dir: InodeRecord, name: Buffer): Promise<void> {
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    call.onInterrupt?.();
  }, LOOK_WAIT_MS);
  try {
    await mount.coherence.pin(dir, Mode.PR, call);
  } catch (error) {
    if (!isLate || call.interrupted || !isErrno(error, E.EINTR)) throw error;
    return await lookupUnpinned(mount, call, dir, name);
  } finally {
    clearTimeout(timer);
  }
  await lookupUntilUnpinned(mount, call, dir, name);
}

/** Without the directory's lock: what the name was at some moment since it was asked. It has no validity. */
async function lookupUnpinned(mount: Mount, call: Call, dir: InodeRecord, name: Buffer): Promise<void> {
  const since = mount.coherence.since();
  const entry = await lookedUp(mount, dir, name);
  // Who waits for a directory's lock meets what was made there when dlmd knows it (hazard F51).
  await mount.coherence.untilBirthsKnown(call);
  await replyFound(mount, call, dir, name, entry, since, false);
}

/** With the directory pinned, as all that follows. */
function lookupIn(mount: Mount, call: Call, dir: InodeRecord, name: Buffer): MaybePromise<void> {
  // Asked for before each creation; an error thrown costs more than all the rest of it, but less than a trip.
  if (mount.lower.isAbsent(dir.id, name)) {
    if (!mount.coherence.names.tellEntry(dir, name, null)) throw errnoError(E.ENOENT);
    call.negativeEntry();
    return;
  }
  return andThen(mount.walkAhead.noteLookup(dir, name), () => askLower(mount, call, dir, name));
}

function askLower(mount: Mount, call: Call, dir: InodeRecord, name: Buffer): MaybePromise<void> {
  const since = mount.coherence.since();
  let entry: MaybePromise<Entry>;
  try {
    entry = mount.lower.lookup(dir.id, name);
  } catch (error) {
    return replyAbsent(mount, call, dir, name, error);
  }
  if (!waiting(entry)) return replyFound(mount, call, dir, name, entry, since, true);
  return entry.then(
    (found) => replyFound(mount, call, dir, name, found, since, true),
    (error: unknown) => replyAbsent(mount, call, dir, name, error),
  );
}

function replyAbsent(mount: Mount, call: Call, dir: InodeRecord, name: Buffer, error: unknown): void {
  // A removed directory has no names (hazard F18), and they can not come back.
  if (isErrno(error, E.ESTALE)) throw errnoError(E.ENOENT);
  if (!isErrno(error, E.ENOENT) || !mount.coherence.names.tellEntry(dir, name, null)) throw error;
  call.negativeEntry();
}

/** What a LOOKUP found, and which moment that is of. */
interface Found extends Named {
  readonly dir: InodeRecord;
  readonly child: InodeRecord;
  readonly since: Since;
}

/** `stands`: with the directory pinned. */
function replyFound(
  mount: Mount,
  call: Call,
  dir: InodeRecord,
  name: Buffer,
  entry: Entry,
  since: Since,
  stands: boolean,
): MaybePromise<void> {
  return remembered(mount, entry, (child) => {
    const found: Found = { dir, name, revalidated: true, stands, child, since };
    const reply = mount.coherence.names.hasDoubtfulName(dir, name, child) ? replyRenamed : replyChild;
    return reply(mount, call, found, entry.attr);
  });
}

/** overlay/op/README.md, "Names that changed meanwhile". */
function replyRenamed(mount: Mount, call: Call, found: Found, attr: Attr): MaybePromise<void> {
  return andThen(renameTarget(mount, call, found.name), (target) => {
    if (target === "itself") return replyChild(mount, call, found, attr);
    if (target === "walk again") throw errnoError(E.ESTALE);
    const standIn = mount.inodes.standIn();
    const terms = { entryValid: false, attrValid: true, size: attr.size };
    if (call.entry(standIn, attr, terms)) mount.standIns.show(standIn.fuseNodeid, call.pid);
  });
}

/** overlay/op/README.md, "A directory that another node moved". */
function replyChild(mount: Mount, call: Call, found: Found, attr: Attr): MaybePromise<void> {
  const moved = mount.coherence.names.dropElsewhere(found.dir, found.child);
  return waiting(moved) ? moved.then(() => replyEntry(mount, call, found, attr)) : replyEntry(mount, call, found, attr);
}

/** Pins the child if that needs no other node, and answers. */
function replyEntry(mount: Mount, call: Call, found: Found, attr: Attr): MaybePromise<void> {
  const { coherence } = mount;
  const { child, since } = found;
  const pin = coherence.pinChild(child, since);
  if (waiting(pin) || !coherence.terms.mayTell(child, pin, since)) return replyEntryLater(mount, call, found, attr, pin);
  try {
    tellChild(mount, call, found, attr, pin.pinned, null);
  } finally {
    if (pin.pinned) coherence.unpin(child, Mode.PR);
  }
}

async function replyEntryLater(mount: Mount, call: Call, found: Found, early: Attr, pin: MaybePromise<ChildPin>): Promise<void> {
  const { coherence } = mount;
  const { child, since } = found;
  const { pinned, trip } = await pin;
  try {
    if (!pinned) {
      const seen = coherence.terms.mustLook(child, since) ? await coherence.sizes.seen(child) : null;
      tellChild(mount, call, found, early, false, seen);
      return;
    }
    if (waiting(pin)) mount.walkAhead.noteCostly(found.dir, child);
    const read = (): MaybePromise<Attr> => mount.lower.getattr(child.id);
    const answer = (attr: Attr): void => tellChild(mount, call, found, attr, true, null);
    const attr = trip ? await read() : early;
    if (coherence.sizes.known(child)) answer(attr);
    else await coherence.sizes.tell(child, call, read, answer);
  } finally {
    if (pinned) coherence.unpin(child, Mode.PR);
  }
}

/** `seen`: the kernel's own size, a moment ago, where it is to be told that (hazard F5). */
function tellChild(mount: Mount, call: Call, found: Found, attr: Attr, pinned: boolean, seen: number | null): void {
  const { terms } = mount.coherence;
  const { child, since } = found;
  const told = pinned ? terms.of(child, attr.size, call.pid, since, found) : terms.ofUnpinned(child, attr.size, since, found, seen);
  giveEntry(mount, call, child, attr, told);
}

/** The answer tells the kernel of the inode: one lookup more, if it takes that. */
export function giveEntry(mount: Mount, call: Call, inode: InodeRecord, attr: Attr, terms: ReplyTerms): void {
  inode.nlinkHint = attr.nlink;
  mount.inodes.tell(inode, () => call.entry(inode, attr, unlessMoved(mount, inode, terms)));
}

/** A thread of our own, which looks for a directory that was moved (hazard F46). */
export function isOnTheWay({ moved, coherence }: Mount, call: Call): boolean {
  return moved.walking && coherence.sizes.own.isOwnThread(call.pid);
}

/** The kernel is to ask before it goes up from a directory that it may have at another place (hazard F46). */
export function unlessMoved({ moved }: Mount, inode: InodeRecord, terms: ReplyTerms): ReplyTerms {
  return moved.mayBeElsewhere(inode) ? { ...terms, attrValid: false } : terms;
}

/** ENOENT where the name went away again: true at that moment, though an O_CREAT had better create. */
export async function lookupPinned(mount: Mount, call: Call, dir: InodeRecord, name: Buffer): Promise<Entry> {
  return await pinned(mount, call, dir, Mode.PR, () => lookedUp(mount, dir, name));
}

/** A removed directory has no names (hazard F18): ENOENT. */
async function lookedUp(mount: Mount, dir: InodeRecord, name: Buffer): Promise<Entry> {
  try {
    return await mount.lower.lookup(dir.id, name);
  } catch (error) {
    throw isErrno(error, E.ESTALE) ? errnoError(E.ENOENT) : error;
  }
}

/** With the directory pinned: is that name of that inode? */
export function standsFor({ lower }: Mount, { dir, name }: Named, { id }: InodeRecord): MaybePromise<boolean> {
  return withErrors<boolean>(
    () => andThen(lower.lookup(dir.id, name), (entry) => fileKey(entry.id) === fileKey(id)),
    (error) => {
      if (isErrno(error, E.ENOENT) || isErrno(error, E.ESTALE)) return false;
      throw error;
    },
  );
}

/** No reply. */
export function forget(mount: Mount, request: ForgetRequest): void {
  request.fuseNodeids.forEach((fuseNodeid, at) => {
    mount.standIns.forget(fuseNodeid);
    mount.inodes.forget(fuseNodeid, request.nlookups[at] ?? 0);
  });
}
