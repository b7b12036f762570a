/** LOOKUP, FORGET: from a name to an inode, and back to nothing. */
import { E, Errno, errnoError } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/lock/mode.ts";
import { SENTINEL_SIZE } from "../coherence/sentinel.ts";
import type { ForgetRequest, LookupRequest } from "../fuse/request.ts";
import type { InodeRecord } from "../inode/table.ts";
import type { Attr, Entry } from "../lower/lower.ts";
import type { Call } from "./call.ts";
import { type Mount, inodeOf, waiting } from "./mount.ts";

export function isErrno(error: unknown, errno: number): boolean {
  return error instanceof Errno && error.errno === errno;
}

/** What the kernel is told as size of an inode whose lock is elsewhere (hazard F5). */
export function uncoveredSize(inode: InodeRecord, attr: Attr): number {
  return inode.kind === "file" ? SENTINEL_SIZE : attr.size;
}

export async function lookup(mount: Mount, call: Call, request: LookupRequest): Promise<void> {
  const { coherence, lower } = mount;
  const dir = inodeOf(mount, request.fuseNodeid);
  if (!coherence.tryPin(dir, Mode.PR)) await coherence.pin(dir, Mode.PR, call);
  try {
    const since = coherence.grants;
    let entry: Entry | Promise<Entry>;
    try {
      entry = lower.lookup(dir.id, request.name);
      if (waiting(entry)) entry = await entry;
    } catch (error) {
      // A removed directory has no names (hazard F18), and they can not come back.
      if (isErrno(error, E.ESTALE)) throw errnoError(E.ENOENT);
      if (!isErrno(error, E.ENOENT) || !coherence.tellEntry(dir, request.name, null)) throw error;
      call.negativeEntry();
      return;
    }
    const child = mount.inodes.remember(entry.id, entry.attr.mode);
    try {
      const done = replyEntry(mount, call, dir, request.name, child, entry.attr, since);
      if (waiting(done)) await done;
    } finally {
      mount.inodes.leave(child);
    }
  } finally {
    coherence.unpin(dir, Mode.PR);
  }
}

/** With the directory pinned: pins the child if that needs no other node, and answers. */
function replyEntry(
  mount: Mount,
  call: Call,
  dir: InodeRecord,
  name: Buffer,
  child: InodeRecord,
  attr: Attr,
  since: number,
): void | Promise<void> {
  const pin = mount.coherence.pinChild(child, since);
  if (waiting(pin)) return replyEntryLater(mount, call, dir, name, child, attr, pin);
  if (pin.pinned && pin.trip) return replyEntryLater(mount, call, dir, name, child, attr, Promise.resolve(pin));
  try {
    tellChild(mount, call, dir, name, child, attr, pin.pinned);
  } finally {
    if (pin.pinned) mount.coherence.unpin(child, Mode.PR);
  }
}

async function replyEntryLater(
  mount: Mount,
  call: Call,
  dir: InodeRecord,
  name: Buffer,
  child: InodeRecord,
  early: Attr,
  pending: Promise<{ readonly pinned: boolean; readonly trip: boolean }>,
): Promise<void> {
  const { pinned, trip } = await pending;
  try {
    let attr = early;
    if (pinned && trip) {
      const fresh = mount.lower.getattr(child.id);
      attr = waiting(fresh) ? await fresh : fresh;
    }
    tellChild(mount, call, dir, name, child, attr, pinned);
  } finally {
    if (pinned) mount.coherence.unpin(child, Mode.PR);
  }
}

function tellChild(mount: Mount, call: Call, dir: InodeRecord, name: Buffer, child: InodeRecord, attr: Attr, pinned: boolean): void {
  child.nlinkHint = attr.nlink;
  const entryValid = mount.coherence.tellEntry(dir, name, child, true);
  const attrValid = pinned && mount.coherence.attrValid(child);
  const size = pinned ? attr.size : uncoveredSize(child, attr);
  if (call.entry(child.fuseNodeid, attr, entryValid, attrValid, size)) child.nlookup += 1;
}

/** No reply. */
export function forget(mount: Mount, request: ForgetRequest): void {
  request.fuseNodeids.forEach((fuseNodeid, at) => {
    mount.inodes.forget(fuseNodeid, request.nlookups[at] ?? 0);
  });
}
