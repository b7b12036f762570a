/** UNLINK, RMDIR. */
import { E, errnoError } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/lock/mode.ts";
import type { RmdirRequest, UnlinkRequest } from "../fuse/request.ts";
import type { InodeRecord } from "../inode/table.ts";
import type { Call } from "./call.ts";
import { changed } from "./change.ts";
import { isErrno } from "./lookup.ts";
import { inodeOf, type Mount, RESTARTS_MAX, tooManyRestarts, waiting } from "./mount.ts";
import { checkVictim, findVictim, leaveVictim, noteNameGone, type Victim } from "./victim.ts";

type Outcome = "done" | "again";

export async function remove(mount: Mount, call: Call, request: UnlinkRequest | RmdirRequest): Promise<void> {
  const dir = inodeOf(mount, request.fuseNodeid);
  let fresh = false;
  for (let restart = 0; restart < RESTARTS_MAX; restart += 1) {
    let victim = findVictim(mount, call, dir, request.name, fresh);
    if (waiting(victim)) victim = await victim;
    try {
      // Told negative, and yet asked to remove it: look.
      const outcome = victim.inode === null ? absent(victim) : removeOnce(mount, call, request, dir, victim, victim.inode);
      if ((waiting(outcome) ? await outcome : outcome) === "done") return;
    } finally {
      leaveVictim(mount, victim);
    }
    fresh = true;
  }
  tooManyRestarts(mount, request.op);
}

function absent(victim: Victim): Outcome {
  if (!victim.told) throw errnoError(E.ENOENT);
  return "again";
}

async function removeOnce(
  mount: Mount,
  call: Call,
  request: UnlinkRequest | RmdirRequest,
  dir: InodeRecord,
  victim: Victim,
  inode: InodeRecord,
): Promise<Outcome> {
  const { coherence, lower } = mount;
  const wants = [
    { inode: dir, mode: Mode.EX },
    { inode, mode: Mode.EX },
  ];
  const pin = coherence.pinAll(wants, call);
  if (waiting(pin)) await pin;
  try {
    if (!victim.told) await checkVictim(mount, call, dir, inode, false);
    const removed = request.op === "unlink" ? lower.unlink(dir.id, request.name, inode.id) : lower.rmdir(dir.id, request.name, inode.id);
    const done = changed(mount, call, [dir, inode], removed);
    if (waiting(done)) await done;
    noteNameGone(inode);
    // The kernel does it for a caller that is still there; what it was told since then is none of this call's business.
    if (!call.interrupted) coherence.dropEntry(dir, request.name);
    mount.staleOnce.settled(request.op, dir, request.name, call.pid);
    call.empty();
    return "done";
  } catch (error) {
    if (!isErrno(error, E.ESTALE)) throw error;
    // The name is another file. The kernel may walk again once, and then checks that one.
    if (!victim.told || !mount.staleOnce.give(request.op, dir, request.name, call.pid)) return "again";
    call.error(E.ESTALE);
    return "done";
  } finally {
    coherence.unpinAll(wants);
  }
}
