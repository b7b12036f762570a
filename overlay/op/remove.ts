/** UNLINK, RMDIR. */
import { E, errnoError, isErrno } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { RmdirRequest, UnlinkRequest } from "../fuse/request.ts";
import type { InodeRecord } from "../inode/table.ts";
import type { Maybe } from "../lower/lower.ts";
import { chain, lastly, withErrors } from "../lower/maybe.ts";
import type { Call } from "./call.ts";
import { attributesChanged, changed } from "./change.ts";
import { inodeOf, type Mount, RESTARTS_MAX, tooManyRestarts } from "./mount.ts";
import { checkVictim, findVictim, leaveVictim, noteNameGone, type Victim } from "./victim.ts";

type Outcome = "done" | "again";

/** Answered within the turn wherever nothing has to wait. */
export function remove(mount: Mount, call: Call, request: UnlinkRequest | RmdirRequest): Maybe<void> {
  const dir = inodeOf(mount, request.fuseNodeid);
  return chain(attempt(mount, call, request, dir, false), (outcome) =>
    outcome === "done" ? undefined : removeWithRestarts(mount, call, request, dir),
  );
}

async function removeWithRestarts(mount: Mount, call: Call, request: UnlinkRequest | RmdirRequest, dir: InodeRecord): Promise<void> {
  for (let restart = 1; restart < RESTARTS_MAX; restart += 1) {
    if ((await attempt(mount, call, request, dir, true)) === "done") return;
  }
  tooManyRestarts(mount, request.op);
}

/** `fresh`: what the kernel was told is known to be wrong. */
function attempt(mount: Mount, call: Call, request: UnlinkRequest | RmdirRequest, dir: InodeRecord, fresh: boolean): Maybe<Outcome> {
  return chain(findVictim(mount, call, dir, request.name, fresh), (victim) =>
    lastly(
      // Told negative, and yet asked to remove it: look.
      () => (victim.inode === null ? absent(victim) : removeOnce(mount, call, request, dir, victim, victim.inode)),
      () => leaveVictim(mount, victim),
    ),
  );
}

function absent(victim: Victim): Outcome {
  if (!victim.told) throw errnoError(E.ENOENT);
  return "again";
}

function removeOnce(
  mount: Mount,
  call: Call,
  request: UnlinkRequest | RmdirRequest,
  dir: InodeRecord,
  victim: Victim,
  inode: InodeRecord,
): Maybe<Outcome> {
  const { coherence } = mount;
  const wants = [
    { inode: dir, mode: Mode.EX },
    { inode, mode: Mode.EX },
  ];
  const pinned = (): Maybe<Outcome> =>
    lastly(
      () =>
        withErrors<Outcome>(
          () => removePinned(mount, call, request, dir, victim, inode),
          (error) => {
            if (!isErrno(error, E.ESTALE)) throw error;
            // The name is another file. The kernel may walk again once, and then checks that one.
            if (!victim.told || !mount.staleOnce.give(request.op, request.name, call.pid)) return "again";
            call.error(E.ESTALE);
            return "done";
          },
        ),
      () => coherence.unpinAll(wants),
    );
  return chain(coherence.pinAll(wants, call), pinned);
}

function removePinned(
  mount: Mount,
  call: Call,
  request: UnlinkRequest | RmdirRequest,
  dir: InodeRecord,
  victim: Victim,
  inode: InodeRecord,
): Maybe<Outcome> {
  const { coherence, lower } = mount;
  return chain(victim.told ? undefined : checkVictim(mount, call, dir, inode, false), () => {
    const removed = request.op === "unlink" ? lower.unlink(dir.id, request.name, inode.id) : lower.rmdir(dir.id, request.name, inode.id);
    // Those of what the kernel takes for the victim it sets itself.
    const outdated = (): Maybe<void> => attributesChanged(mount, call, [dir], victim.told ? [] : [victim]);
    return chain(chain(changed(mount, call, [dir, inode], removed), outdated), () => {
      noteNameGone(inode);
      // The kernel does it for a caller that is still there; what it was told since then is none of this call's business.
      if (!call.interrupted) coherence.names.dropEntry(dir, request.name);
      mount.staleOnce.settled(request.op, request.name, call.pid);
      call.empty();
      return "done";
    });
  });
}
