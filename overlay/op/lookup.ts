/** LOOKUP, FORGET: from a name to an inode, and back to nothing. */
import { E, errnoError, isErrno } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { ChildPin } from "../coherence/api.ts";
import type { Since } from "../coherence/cover.ts";
import { SENTINEL_SIZE } from "../coherence/size/sentinel.ts";
import type { ForgetRequest, LookupRequest } from "../fuse/request.ts";
import type { InodeRecord } from "../inode/table.ts";
import { type Attr, type Entry, fileKey } from "../lower/lower.ts";
import { andThen, finallyDo, type MaybePromise, withErrors } from "../../dlmd/base/maybe-promise.ts";
import type { Call } from "./call.ts";
import { type Mount, inodeOf, waiting } from "./mount.ts";
import { pinned } from "./pinned.ts";
import { type RenameTarget, renameTarget } from "./placeholder-inodes.ts";

/** What the kernel is told as size of an inode whose lock is elsewhere (hazard F5). */
export function uncoveredSize(mount: Mount, inode: InodeRecord, attr: Attr): number {
  if (inode.kind !== "file") return attr.size;
  mount.coherence.sizes.toldSentinel(inode);
  return SENTINEL_SIZE;
}

/** Answered within the turn wherever nothing has to wait: so are nearly all. */
export function lookup(mount: Mount, call: Call, request: LookupRequest): MaybePromise<void> {
  const dir = inodeOf(mount, request.fuseNodeid);
  return pinned(mount, call, dir, Mode.PR, () => lookupIn(mount, call, dir, request.name));
}

/** ENOENT where the name went away again: true at that moment, though an O_CREAT had better create. */
export async function lookupPinned(mount: Mount, call: Call, dir: InodeRecord, name: Buffer): Promise<Entry> {
  try {
    return await pinned(mount, call, dir, Mode.PR, () => mount.lower.lookup(dir.id, name));
  } catch (error) {
    throw isErrno(error, E.ESTALE) ? errnoError(E.ENOENT) : error;
  }
}

/** With the directory pinned: is that name of that inode? */
export function standsFor({ lower }: Mount, { dir, name }: Pick<Found, "dir" | "name">, { id }: InodeRecord): MaybePromise<boolean> {
  return withErrors<boolean>(
    () => andThen(lower.lookup(dir.id, name), (entry) => fileKey(entry.id) === fileKey(id)),
    (error) => {
      if (isErrno(error, E.ENOENT) || isErrno(error, E.ESTALE)) return false;
      throw error;
    },
  );
}

/** With the directory pinned. */
function lookupIn(mount: Mount, call: Call, dir: InodeRecord, name: Buffer): MaybePromise<void> {
  // Asked for before each creation; an error thrown costs more than all the rest of it, but less than a trip.
  if (mount.lower.isAbsent(dir.id, name)) {
    if (!mount.coherence.names.tellEntry(dir, name, null)) throw errnoError(E.ENOENT);
    call.negativeEntry();
    return;
  }
  return andThen(mount.walkAhead.noteLookup(dir, name), () => lookUp(mount, call, dir, name));
}

function lookUp(mount: Mount, call: Call, dir: InodeRecord, name: Buffer): MaybePromise<void> {
  const since = mount.coherence.since();
  let entry: MaybePromise<Entry>;
  try {
    entry = mount.lower.lookup(dir.id, name);
  } catch (error) {
    return replyAbsent(mount, call, dir, name, error);
  }
  if (!waiting(entry)) return replyFound(mount, call, dir, name, entry, since);
  return entry.then(
    (found) => replyFound(mount, call, dir, name, found, since),
    (error: unknown) => replyAbsent(mount, call, dir, name, error),
  );
}

function replyAbsent(mount: Mount, call: Call, dir: InodeRecord, name: Buffer, error: unknown): void {
  // A removed directory has no names (hazard F18), and they can not come back.
  if (isErrno(error, E.ESTALE)) throw errnoError(E.ENOENT);
  if (!isErrno(error, E.ENOENT) || !mount.coherence.names.tellEntry(dir, name, null)) throw error;
  call.negativeEntry();
}

/** What a LOOKUP found. */
interface Found {
  readonly dir: InodeRecord;
  readonly name: Buffer;
  readonly child: InodeRecord;
  readonly since: Since;
}

function replyFound(mount: Mount, call: Call, dir: InodeRecord, name: Buffer, { id, attr }: Entry, since: Since): MaybePromise<void> {
  const child = mount.inodes.remember(id, attr.mode);
  const told = (): MaybePromise<void> =>
    andThen(mount.coherence.names.dropElsewhere(dir, child), () => replyEntry(mount, call, { dir, name, child, since }, attr));
  return finallyDo(
    () =>
      mount.coherence.names.hasDoubtfulName(dir, name, child)
        ? andThen(renameTarget(mount, call, name), (target) => replyTarget(mount, call, attr, target, told))
        : told(),
    () => mount.inodes.leave(child),
  );
}

function replyTarget(mount: Mount, call: Call, attr: Attr, target: RenameTarget, told: () => MaybePromise<void>): MaybePromise<void> {
  if (target === "itself") return told();
  if (target === "walk again") throw errnoError(E.ESTALE);
  const standIn = mount.inodes.standIn();
  if (call.entry(standIn, attr, false, true, attr.size)) mount.standIns.show(standIn.fuseNodeid, call.pid);
}

/** With the directory pinned: pins the child if that needs no other node, and answers. */
function replyEntry(mount: Mount, call: Call, found: Found, attr: Attr): MaybePromise<void> {
  const { child, since } = found;
  const pin = mount.coherence.pinChild(child, since);
  const later = waiting(pin) || (pin.pinned ? pin.trip || !mount.coherence.sizes.known(child) : mustLook(mount, found));
  if (later) return replyEntryLater(mount, call, found, attr, pin);
  try {
    tellChild(mount, call, found, attr, pin.pinned, null);
  } finally {
    if (pin.pinned) mount.coherence.unpin(child, Mode.PR);
  }
}

async function replyEntryLater(mount: Mount, call: Call, found: Found, early: Attr, pin: MaybePromise<ChildPin>): Promise<void> {
  const { child } = found;
  const { pinned, trip } = await pin;
  try {
    if (waiting(pin) && pinned) mount.walkAhead.noteCostly(found.dir, child);
    const { sizes } = mount.coherence;
    const read = (): MaybePromise<Attr> => mount.lower.getattr(child.id);
    const answer = (attr: Attr): void => tellChild(mount, call, found, attr, pinned, null);
    if (!pinned) {
      const seen = mustLook(mount, found) ? await sizes.seen(child) : null;
      tellChild(mount, call, found, early, pinned, seen);
      return;
    }
    const attr = trip ? await read() : early;
    if (sizes.known(child)) answer(attr);
    else await sizes.tell(child, call, read, answer);
  } finally {
    if (pinned) mount.coherence.unpin(child, Mode.PR);
  }
}

/** The kernel may still have pages of it, and would show what is behind the end of the last one if it was given the sentinel. */
function mayHavePages(mount: Mount, child: InodeRecord): boolean {
  return child.kind === "file" && child.nlookup > 0 && mount.coherence.stillHeld(child, null);
}

/** Not pinned: is the size that was found the file's, and the kernel's? */
function isTheKernels(mount: Mount, { child, since }: Found): boolean {
  return mount.coherence.stillHeld(child, since) && mount.coherence.sizes.known(child);
}

function mustLook(mount: Mount, found: Found): boolean {
  return mayHavePages(mount, found.child) && !isTheKernels(mount, found);
}

/** `seen`: the kernel's own size, a moment ago. If it has changed since, the kernel drops a reply that is older. */
function tellChild(mount: Mount, call: Call, found: Found, attr: Attr, pinned: boolean, seen: number | null): void {
  const { coherence } = mount;
  const { dir, name, child } = found;
  child.nlinkHint = attr.nlink;
  const entryValid = coherence.names.tellEntry(dir, name, child, true);
  const attrValid = pinned && coherence.attrValid(child, call.pid, found.since);
  let size = seen ?? attr.size;
  if (seen === null) {
    if (!pinned && !(mayHavePages(mount, child) && isTheKernels(mount, found))) size = uncoveredSize(mount, child, attr);
    coherence.sizes.told(child, size);
  }
  mount.inodes.tell(child, () => call.entry(child, attr, entryValid, attrValid, size));
}

/** No reply. */
export function forget(mount: Mount, request: ForgetRequest): void {
  request.fuseNodeids.forEach((fuseNodeid, at) => {
    mount.standIns.forget(fuseNodeid);
    mount.inodes.forget(fuseNodeid, request.nlookups[at] ?? 0);
  });
}
