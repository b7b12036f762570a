/**
 * Leader election: of all programs that run this, on any node of the cluster, one leads at a time; when it or its
 * node ends, another takes over. Nothing is polled: the lock manager says when the lock has come.
 *
 *     node dist/examples/leader-election.js /run/coverlay/dlmd.sock alice
 *
 * The leader holds PW on one resource and writes its name into the value block. PW excludes another PW but not CR, so
 * anybody may take CR and read who leads.
 */
import { LockFlag, type Lock, type Lockspace } from "../dlmd/client/api.ts";
import { connectDlm } from "../dlmd/client/client.ts";
import { Mode } from "../dlmd/lock/mode.ts";

const [socketPath = "/run/coverlay/dlmd.sock", name = `pid ${process.pid}`] = process.argv.slice(2);

/** Takes that mode on the one resource; resolves when it is granted. */
function take(space: Lockspace, mode: Mode): Promise<Lock> {
  return new Promise((resolve, reject) => {
    const lock = space.createLock("leader", {
      ast(_, status) {
        if (status === "granted") resolve(lock);
        else if (status !== "unlocked") reject(lock.error ?? new Error(status));
      },
      // Somebody waits to lead. A leader of this kind stays until it ends.
      bast() {},
    });
    lock.request(mode, LockFlag.VALBLK);
  });
}

async function whoLeads(space: Lockspace): Promise<string> {
  const lock = await take(space, Mode.CR);
  const leader = lock.lvb === null || !lock.lvbValid ? "not known" : Buffer.from(lock.lvb).toString();
  lock.unlock(0);
  return leader;
}

const client = await connectDlm(socketPath, {
  view() {},
  gone: async () => {},
  disconnected(reason) {
    // Without dlmd nobody keeps the lock: who led must stop leading before anything else.
    console.error(`${name}: ${reason.message}`);
    process.exit(1);
  },
});
const space = await client.lockspace("election");
console.log(`${name}: candidate, leader: ${await whoLeads(space)}`);
const leadership = await take(space, Mode.PW);
// From PW to PW: the value block is written. Later requests come after it, so nothing needs to be waited for.
leadership.request(Mode.PW, LockFlag.VALBLK, Buffer.from(name));
console.log(`${name}: leads, leader: ${await whoLeads(space)}`);
process.once("SIGTERM", () => {
  console.log(`${name}: resigns`);
  void client.close().then(() => process.exit(0));
});
