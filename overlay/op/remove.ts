/** UNLINK, RMDIR. */
import { E, errnoError, isErrno } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { RmdirRequest, UnlinkRequest } from "../fuse/request.ts";
import type { InodeRecord } from "../inode/table.ts";
import { changeFor } from "../lower/lower.ts";
import { andThen, withErrors, type MaybePromise } from "../../dlmd/base/maybe-promise.ts";
import type { Call } from "./call.ts";
import { changedNames } from "./change.ts";
import { inodeOf, type Mount, withRestarts } from "./mount.ts";
import { pinned, pinnedAll } from "./pinned.ts";
import { checkVictim, noteChangeOf, noteNameGone, type Victim, withVictim } from "./victim.ts";

/** Answered within the turn wherever nothing has to wait. */
export function remove(mount: Mount, call: Call, request: UnlinkRequest | RmdirRequest): MaybePromise<void> {
  const dir = inodeOf(mount, request.fuseNodeid);
  return withRestarts(mount, request.op, (restart) =>
    withVictim(mount, call, dir, request.name, restart > 0, (victim) => {
      if (victim.inode !== null) return removeOnce(mount, call, request, dir, victim, victim.inode);
      // Told negative, and yet asked to remove it: look.
      if (victim.told) return false;
      throw errnoError(E.ENOENT);
    }),
  );
}

/** Hazard F38: the process before has removed it. */
export function removeMade(mount: Mount, call: Call, request: UnlinkRequest | RmdirRequest): MaybePromise<void> {
  const dir = inodeOf(mount, request.fuseNodeid);
  return pinned(mount, call, dir, Mode.EX, () => answerRemoved(mount, call, request, dir));
}

/** False: the name has become another file; look again. */
function removeOnce(
  mount: Mount,
  call: Call,
  request: UnlinkRequest | RmdirRequest,
  dir: InodeRecord,
  victim: Victim,
  inode: InodeRecord,
): MaybePromise<boolean> {
  noteChangeOf(mount, dir, inode, request.name);
  const wants = [
    { inode: dir, mode: Mode.EX },
    { inode, mode: Mode.EX },
  ];
  return pinnedAll(mount, call, { wants }, () =>
    withErrors(
      () => removePinned(mount, call, request, dir, victim, inode),
      (error) => {
        if (!isErrno(error, E.ESTALE)) throw error;
        return mount.staleOnce.answer(call, request.name, victim.told);
      },
    ),
  );
}

function removePinned(
  mount: Mount,
  call: Call,
  request: UnlinkRequest | RmdirRequest,
  dir: InodeRecord,
  victim: Victim,
  inode: InodeRecord,
): MaybePromise<true> {
  const { lower } = mount;
  return andThen(checkVictim(mount, call, dir, inode, victim.told, false), () => {
    const removed = (): MaybePromise<void> => changeFor(lower, call.unique, () => lower[request.op](dir.id, request.name, inode.id));
    // The attributes of what the kernel takes for the victim it sets itself.
    const outdated = { inodes: [dir, inode], named: [dir], victims: victim.told ? [] : [victim] };
    return andThen(changedNames(mount, call, outdated, removed), () => {
      noteNameGone(inode);
      answerRemoved(mount, call, request, dir);
      return true;
    });
  });
}

function answerRemoved({ coherence, staleOnce }: Mount, call: Call, { name }: UnlinkRequest | RmdirRequest, dir: InodeRecord): void {
  // The kernel does it for a caller that is still there; what it was told since then is none of this call's business.
  if (!call.interrupted) coherence.names.dropEntry(dir, name);
  staleOnce.settled(call, name);
  call.empty();
}
