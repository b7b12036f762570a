/** GETATTR, SETATTR, READLINK, STATFS, SYNCFS. */
import { setTimeout as sleep } from "node:timers/promises";
import { E, errnoError } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { Since } from "../coherence/cover.ts";
import type { GetattrRequest, ReadlinkRequest, SetattrRequest } from "../fuse/request.ts";
import type { OpenFile } from "../inode/handles.ts";
import type { InodeRecord } from "../inode/table.ts";
import { type Attr, type AttrChange, changeFor } from "../lower/lower.ts";
import { andThen, finallyDo, type MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import { behind } from "./behind.ts";
import type { Call } from "./call.ts";
import { changed, resized, sizeReplied } from "./change.ts";
import { type Mount, inodeOf, waiting } from "./mount.ts";
import { allowedChange } from "./ownership.ts";
import { isOnTheWay, unlessMoved } from "./lookup.ts";
import { pinned, pinnedData } from "./pinned.ts";
import { announced, isAnnouncement } from "./set-id.ts";
import { noteChange } from "./victim.ts";

/** The kernel keeps the mount busy while one of our own threads waits: not for as long as an owner is away. */
const OWN_GETATTR_MS = 100;
/** A GETATTR of a directory that moves each time is answered without validity then. */
const WAITS_FOR_PLACE_MAX = 3;

export function getattr(mount: Mount, call: Call, request: GetattrRequest): MaybePromise<void> {
  const { coherence } = mount;
  const inode = inodeOf(mount, request.fuseNodeid);
  const own = coherence.sizes.own.getattr(inode, call.pid);
  if (own === "now") return getattrForOwn(mount, call, inode);
  if (inode.kind === "directory") return getattrOfDirectory(mount, call, inode, own !== "no");
  if (own === "late") throw errnoError(E.EAGAIN);
  // A caller who believes the kernel's size may have the inode's lock (size/asked.ts), for which a revoke waits: he passes during it.
  const believes = request.fh !== null && inode.kind === "file" && coherence.sizes.mayBeSeek(inode);
  const pinned = (reader: () => boolean): MaybePromise<void> => {
    const since = coherence.since();
    return andThen(mount.ahead.getattr(inode), (attr) => replyAttr(mount, call, inode, attr, since, believes, reader));
  };
  const isReader = (): boolean => believes && mount.ahead.readsNext(inode, call.pid) && coherence.sizes.isReading(call.pid);
  const unpin = believes ? (): void => coherence.unpinData(inode, Mode.PR) : (): void => coherence.unpin(inode, Mode.PR);
  if (coherence.tryPin(inode, Mode.PR)) return finallyDo(() => pinned(isReader), unpin);
  const pin = believes ? coherence.pinData(inode, Mode.PR, true, call) : coherence.pin(inode, Mode.PR, call);
  // While the lock is on its way there is time to look.
  const reader = isReader();
  return andThen(pin, () => finallyDo(() => pinned(() => reader), unpin));
}

/** Hazard F46. `own`: for a thread of our own, which may be on its way to a directory that was moved. */
function getattrOfDirectory(mount: Mount, call: Call, inode: InodeRecord, own: boolean): MaybePromise<void> {
  const { moved } = mount;
  if (own && !moved.walking) throw errnoError(E.EAGAIN);
  if (isOnTheWay(mount, call)) {
    moved.askedOnTheWay();
    return getattrPlaced(mount, call, inode, WAITS_FOR_PLACE_MAX);
  }
  return moved.lastMove(inode) === 0 ? getattrPlaced(mount, call, inode, 0) : getattrWhenPlaced(mount, call, inode, 0);
}

/** Without the pin. */
async function getattrWhenPlaced(mount: Mount, call: Call, inode: InodeRecord, waits: number): Promise<void> {
  const waitedFor = mount.moved.lastMove(inode);
  await mount.moved.placed(inode);
  await getattrPlaced(mount, call, inode, waits + 1, waitedFor);
}

/** A move is told of before the attributes that come after it: the answer waits for another look then. */
function getattrPlaced(mount: Mount, call: Call, inode: InodeRecord, waits: number, waitedFor = 0): MaybePromise<void> {
  const { moved, coherence } = mount;
  const answered = pinned(mount, call, inode, Mode.PR, () => {
    const since = coherence.since();
    return andThen(mount.ahead.getattr(inode), (attr): MaybePromise<boolean> => {
      const move = moved.lastMove(inode);
      if (move !== 0 && move !== waitedFor && waits < WAITS_FOR_PLACE_MAX) return false;
      return andThen(
        replyAttr(mount, call, inode, attr, since, false, () => false),
        () => true,
      );
    });
  });
  return andThen(answered, (done) => (done ? undefined : getattrWhenPlaced(mount, call, inode, waits)));
}

/** `believes`: the caller is given the kernel's size, and not that of this reply. `isReader`: he is about to read. */
function replyAttr(
  mount: Mount,
  call: Call,
  inode: InodeRecord,
  attr: Attr,
  since: Since,
  believes: boolean,
  isReader: () => boolean,
): MaybePromise<void> {
  const answer = (told: Attr): void => {
    inode.nlinkHint = told.nlink;
    call.attr(told, unlessMoved(mount, inode, mount.coherence.terms.of(inode, told.size, call.pid, since, null)));
    if (believes) mount.coherence.sizes.toldAsker(inode, call.pid);
  };
  if (mount.coherence.sizes.known(inode)) answer(attr);
  else {
    const hold = mount.coherence.hold(inode);
    if (hold !== 0) attrsHeld.set(inode, { hold, attr });
    return finallyDo(
      () =>
        mount.coherence.sizes.tell(
          inode,
          call,
          () => heldAttr(mount, inode),
          answer,
          believes ? { tid: call.pid, reads: isReader() } : null,
        ),
      () => attrsHeld.delete(inode),
    );
  }
}

/** Attributes that were read under that hold of PR (Coherence.hold), while a call waits for the size: as long as it is in force they are true. */
const attrsHeld = new WeakMap<InodeRecord, { readonly hold: number; readonly attr: Attr }>();

/** With a pin held: without a trip to the owner if they were read, or fetched, under this hold of PR. */
function heldAttr(mount: Mount, inode: InodeRecord): MaybePromise<Attr> {
  const hold = mount.coherence.hold(inode);
  if (hold === 0) return mount.lower.getattr(inode.id);
  const held = attrsHeld.get(inode);
  if (held?.hold === hold) return held.attr;
  return mount.ahead.attr(inode) ?? mount.lower.getattr(inode.id);
}

/**
 * Under the pin of whoever waits for it (size/threads.ts). If that is gone before the answer comes, and the lock too, then the kernel was
 * notified since it asked, and drops the answer.
 */
function getattrForOwn(mount: Mount, call: Call, inode: InodeRecord): Promise<void> {
  const { coherence } = mount;
  return coherence.sizes.own.tell(inode, async () => {
    const since = coherence.since();
    const attr = heldAttr(mount, inode);
    const came = waiting(attr) ? await Promise.race([attr, sleep(OWN_GETATTR_MS, null, { ref: false })]) : attr;
    if (came === null) {
      call.error(E.EAGAIN);
      return;
    }
    call.attr(came, coherence.terms.of(inode, came.size, call.pid, since, null));
  });
}

/** The reply never carries validity: it may be installed after a revoke (hazard F4), or tell what is not yet so (hazard F23). */
export function setattr(mount: Mount, call: Call, request: SetattrRequest): MaybePromise<void> {
  const { lower } = mount;
  noteNoWrite(mount, request);
  return pinnedSetattr(mount, call, request, (inode, file) => {
    /** Null: nothing (hazard F37). */
    const set = (allowed: AttrChange | null): MaybePromise<Attr> => {
      if (allowed === null) return andThen(lower.getattr(inode.id), announced);
      const next = lower.setattrBehind(inode.id, allowed);
      if (next !== null && behind(mount, call, inode, next.make)) return next.attr;
      const change = (): MaybePromise<Attr> => lower.setattr(inode.id, allowed, file?.lowerHandle ?? null);
      return changed(mount, call, [inode], () => changeFor(lower, call.unique, change));
    };
    return andThen(isAnnouncement(mount, call, inode, request.change), (nothing) =>
      andThen(nothing ? null : allowedChange(mount, call, inode, request.change), (allowed) =>
        answerSetattr(mount, call, request, inode, () => set(allowed)),
      ),
    );
  });
}

/** O_TRUNC is a write's, too. */
function noteNoWrite(mount: Mount, { fuseNodeid, change }: SetattrRequest): void {
  const { mode, uid, gid, size, atime, mtime } = change;
  if (size === undefined && (mode ?? uid ?? gid ?? atime ?? mtime) !== undefined) noteChange(mount, inodeOf(mount, fuseNodeid));
}

/** Hazard F38: the process before has set them. */
export function setattrMade(mount: Mount, call: Call, request: SetattrRequest): MaybePromise<void> {
  return pinnedSetattr(mount, call, request, (inode) => answerSetattr(mount, call, request, inode, () => mount.lower.getattr(inode.id)));
}

function pinnedSetattr(
  mount: Mount,
  call: Call,
  { fuseNodeid, fh, change }: SetattrRequest,
  work: (inode: InodeRecord, file: OpenFile | undefined) => MaybePromise<void>,
): MaybePromise<void> {
  const inode = inodeOf(mount, fuseNodeid);
  mount.coherence.sizes.locked(inode, call);
  if (change.size !== undefined && change.size > Number.MAX_SAFE_INTEGER) throw errnoError(E.EFBIG);
  const truncates = change.size !== undefined;
  const file = fh === null ? undefined : mount.handles.get(fh);
  // A truncate stops the kernel's own write-back of the inode until it is answered, whatever handle it came through (hazard F1).
  const cached = truncates || file?.cached === true;
  return pinnedData(mount, call, { inode, mode: Mode.EX, cached, unstable: truncates }, () => work(inode, file));
}

function answerSetattr(
  mount: Mount,
  call: Call,
  { change }: SetattrRequest,
  inode: InodeRecord,
  set: () => MaybePromise<Attr>,
): MaybePromise<void> {
  const { terms } = mount.coherence;
  return resized(mount, call, inode, change.size === undefined ? "plain" : "truncates", async (made) => {
    const attr = await set();
    made();
    inode.nlinkHint = attr.nlink;
    sizeReplied(mount, call, inode, "sets", attr.size);
    call.attr(attr, terms.of(inode, attr.size, call.pid, null, null));
  });
}

/**
 * Without a lock: what a symbolic link says never changes. And it must not wait for one: the kernel keeps the answer in a page, which is
 * locked meanwhile, and for which a revoke would wait (hazard F1; fs/fuse/dir.c, fuse_symlink_read_folio).
 */
export function readlink(mount: Mount, call: Call, request: ReadlinkRequest): MaybePromise<void> {
  return andThen(mount.lower.readlink(inodeOf(mount, request.fuseNodeid).id), (target) => void call.data(target));
}

/** No lock: nothing of it is cached anywhere. */
export function statfs(mount: Mount, call: Call): MaybePromise<void> {
  return andThen(mount.lower.statfs(), (fields) => void call.statfs(fields));
}

export function syncfs(mount: Mount, call: Call): MaybePromise<void> {
  return andThen(mount.lower.syncfs(), () => void call.empty());
}
