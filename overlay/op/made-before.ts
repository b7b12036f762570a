/**
 * Hazard F38. Requests that the process before has taken from the kernel and not answered, and whose change it has made: they are answered, and the change is not
 * made again. All that it had told the kernel has been dropped, and what this process tells was read after the change. So each answer tells what is so now. The
 * checks of a caller were made before the change, and may not hold after it (chown(2)): they are not made again.
 */
import { E } from "../../dlmd/base/errno.ts";
import { andThen, type MaybePromise, promised, withErrors } from "../../dlmd/base/maybe-promise.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { Named, ReplyTerms } from "../coherence/terms.ts";
import type { PinMode } from "../coherence/cover.ts";
import type { CreateRequest, TmpfileRequest } from "../fuse/request.ts";
import type { OpenFile } from "../inode/handles.ts";
import type { InodeRecord } from "../inode/table.ts";
import type { Attr, Entry } from "../lower/lower.ts";
import { decodeWith } from "../lower/wire/call-codecs.ts";
import { callOfType, CALLS } from "../lower/wire/calls.ts";
import { FrameType } from "../lower/wire/frame.ts";
import { setattrMade } from "./attr.ts";
import type { Call } from "./call.ts";
import { inGoneDirectory, link, restoreSetgid } from "./create.ts";
import { copyFileRange, fallocate } from "./data.ts";
import { ioctlMade } from "./ioctl.ts";
import { O_ACCMODE, O_EXCL, O_RDONLY, O_TMPFILE, O_TRUNC } from "./linux.ts";
import { giveEntry, standsFor } from "./lookup.ts";
import { inodeOf, type Mount, remembered } from "./mount.ts";
import { enterFile, forgetFile, giveCreated, writeAccess } from "./open.ts";
import { type Operation, perform } from "./perform.ts";
import { pinnedAll } from "./pinned.ts";
import { removeMade } from "./remove.ts";
import { renameMade } from "./rename.ts";
import { write } from "./write.ts";
import { xattrMade } from "./xattr.ts";

/** What the owner answered to the change (Lower.madeFor). `type`: of the call or of its answer; `body`: of the answer, as on the wire. */
export type MadeOutcome = { readonly errno: number } | { readonly type: number; readonly body: Uint8Array };

/** A request that the process before has taken, and whose change it has not made. As `perform`. */
export function performAgain(mount: Mount, call: Call, request: Operation): MaybePromise<void> {
  mount.staleOnce.noteGiven(call);
  if ("name" in request && typeof request.name !== "string") mount.staleOnce.noteGiven(call, request.name);
  return perform(mount, call, request);
}

/** As `perform`: answers `call`, exactly once, or fails. */
export function answerMade(mount: Mount, call: Call, request: Operation, outcome: MadeOutcome): MaybePromise<void> {
  if ("errno" in outcome) {
    if (isLookedAtAgain(request, outcome.errno)) return performAgain(mount, call, request);
    call.error(outcome.errno);
    return;
  }
  const changedBy = request.op === "ioctl" ? "setFileAttributes" : request.op;
  const made = callOfType(outcome.type & ~FrameType.ANSWER);
  if (made !== changedBy) throw new Error(`the owner answered ${made ?? `0x${outcome.type.toString(16)}`} for ${request.op}`);
  return withErrors(() => answerChange(mount, call, request, outcome.body), inGoneDirectory);
}

/** Nothing was made, and the process before would have gone on: the name, or the inode, was another by then. */
function isLookedAtAgain(request: Operation, errno: number): boolean {
  return errno === E.ESTALE || (errno === E.EEXIST && request.op === "create" && (request.flags & O_EXCL) === 0);
}

function answerChange(mount: Mount, call: Call, request: Operation, body: Uint8Array): MaybePromise<void> {
  switch (request.op) {
    case "setattr":
      return setattrMade(mount, call, request);
    case "mkdir":
    case "mknod":
    case "symlink":
      return answerEntry(mount, call, namedBy(mount, request), decodeWith(CALLS[request.op].answer, body).entry);
    case "create":
      return answerFile(mount, call, request, namedBy(mount, request), decodeWith(CALLS.create.answer, body).entry);
    case "tmpfile":
      return answerFile(mount, call, request, null, decodeWith(CALLS.tmpfile.answer, body));
    case "link":
      return link(mount, call, request, true);
    case "unlink":
    case "rmdir":
      return removeMade(mount, call, request);
    case "rename":
      return renameMade(mount, call, request);
    case "write":
      return write(mount, call, request, decodeWith(CALLS.write.answer, body));
    case "fallocate":
      return fallocate(mount, call, request, true);
    case "copyFileRange":
      return copyFileRange(mount, call, request, decodeWith(CALLS.copyFileRange.answer, body));
    case "setxattr":
    case "removexattr":
      return xattrMade(mount, call, request);
    case "ioctl":
      return ioctlMade(mount, call, request);
    default:
      // What changes nothing, and a sync that went well.
      return perform(mount, call, request);
  }
}

function namedBy(mount: Mount, { fuseNodeid, name }: { readonly fuseNodeid: number; readonly name: Buffer }): Named {
  return { dir: inodeOf(mount, fuseNodeid), name };
}

/** In the turn of the reply. The kernel takes what it says whatever it has learned since (fuse_iget without a version): no validity of attributes. */
type Tell = (attr: Attr, terms: ReplyTerms) => void;

function answerEntry(mount: Mount, call: Call, named: Named, made: Entry): MaybePromise<void> {
  return remembered(mount, made, (child) => {
    const read = (): MaybePromise<Attr> => mount.lower.getattr(child.id);
    return tell(mount, call, named, { inode: child, mode: Mode.PR }, read, (attr, terms) => giveEntry(mount, call, child, attr, terms));
  });
}

/** Another node may have taken the name since: the kernel is told of the inode that was made, as if that came a moment later. ESTALE: it is gone. */
async function tell(
  mount: Mount,
  call: Call,
  named: Named | null,
  child: { readonly inode: InodeRecord; readonly mode: PinMode },
  read: () => MaybePromise<Attr>,
  answer: Tell,
): Promise<void> {
  const { names, sizes, terms } = mount.coherence;
  const { inode } = child;
  const wants = named === null ? [child] : [{ inode: named.dir, mode: Mode.PR } as const, child];
  await pinnedAll(mount, call, { wants }, async () => {
    const name = named === null ? null : { ...named, stands: await standsFor(mount, named, inode) };
    if (named !== null) await names.dropElsewhere(named.dir, inode);
    const told = (attr: Attr): void => {
      inode.nlinkHint = attr.nlink;
      answer(attr, terms.of(inode, attr.size, call.pid, null, name));
    };
    const attr = await read();
    if (sizes.known(inode)) told(attr);
    else await sizes.tell(inode, call, read, told);
  });
}

/** What the process before had open by that call is no handle of this one. The bit of `restoreSetgid` may not have been set. */
function answerFile(
  mount: Mount,
  call: Call,
  request: CreateRequest | TmpfileRequest,
  named: Named | null,
  made: Entry,
): MaybePromise<void> {
  return remembered(mount, made, async (child) => {
    const file = await openMade(mount, call, request, child);
    const read = (): MaybePromise<Attr> =>
      andThen(mount.lower.getattr(child.id), (attr) => restoreSetgid(mount, call, { id: child.id, attr }, request));
    try {
      await tell(mount, call, named, { inode: child, mode: Mode.EX }, read, (attr, terms) => giveCreated(mount, call, file, attr, terms));
    } catch (error) {
      forgetFile(mount, file);
      throw error;
    }
  });
}

async function openMade(mount: Mount, call: Call, { flags }: CreateRequest | TmpfileRequest, child: InodeRecord): Promise<OpenFile> {
  const access = (flags & O_ACCMODE) === O_RDONLY ? null : await writeAccess(mount, call, child, flags);
  try {
    const handle = await promised(() => mount.lower.open(child.id, flags & ~(O_TMPFILE | O_EXCL | O_TRUNC)));
    return enterFile(mount, child, handle, access, flags);
  } catch (error) {
    if (access === "cached") mount.coherence.closeForWrite(child);
    throw error;
  }
}
