/**
 * Leader election: of all programs that run this, on any node of the cluster, one leads at a time; when it or its
 * node ends, another takes over. Nothing is polled: the lock manager says when the lock has come.
 *
 *     node dist/examples/leader-election.js /run/coverlay/dlmd.sock alice
 *
 * The leader holds EX on the resource "leader"; the others wait for it. Who leads stands in the value block of another
 * resource, "leader-name", so that reading it does not wait in the queue of those who want to lead.
 */
import { LockFlag, type Lock, type Lockspace } from "../dlmd/client/api.ts";
import { connectDlm } from "../dlmd/client/client.ts";
import { Mode } from "../dlmd/wire/mode.ts";

const [socketPath = "/run/coverlay/dlmd.sock", name = `pid ${process.pid}`] = process.argv.slice(2);

/** Takes that mode, and reads the value block; resolves when it is granted. */
function take(space: Lockspace, resource: string, mode: Mode): Promise<Lock> {
  return new Promise((resolve, reject) => {
    const lock = space.createLock(resource, {
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
  const lock = await take(space, "leader-name", Mode.CR);
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
await take(space, "leader", Mode.EX);
const nameplate = await take(space, "leader-name", Mode.EX);
// From EX down: the value block is written. CR is kept, because a value block lives as long as somebody holds its resource.
nameplate.request(Mode.CR, LockFlag.VALBLK, Buffer.from(name));
console.log(`${name}: leads, leader: ${await whoLeads(space)}`);
process.once("SIGTERM", () => {
  console.log(`${name}: resigns`);
  void client.close().then(() => process.exit(0));
});
