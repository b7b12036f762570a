/** File locks among three dlmds over their real sockets, through the client library. */
import { afterEach, expect, it } from "vitest";
import type { FileLockOwner, FileLocks } from "../../../dlmd/client/file-lock-api.ts";
import { maxOffset } from "../../../dlmd/wire/plock-range.ts";
import { createCluster, type TestClient, type TestCluster } from "./cluster.ts";

let cluster: TestCluster | null = null;
afterEach(async () => {
  await cluster?.close();
  cluster = null;
});

const posix = (owner: number): FileLockOwner => ({ kind: "posix", owner: BigInt(owner), pid: 1000 + owner });
const all = { start: 0n, end: maxOffset };
/** Enough names that every node masters some. */
const files: readonly string[] = Array.from({ length: 12 }, (_, i) => `file ${i}`);

async function start(): Promise<{ clients: TestClient[]; locks: FileLocks[] }> {
  cluster = createCluster({ nodes: 3 });
  const clients = await cluster.startAll();
  return { clients, locks: await Promise.all(clients.map(({ client }) => client.fileLocks("test"))) };
}

it("excludes, waits in turn, says who has it, and finds deadlocks across nodes", async () => {
  const { locks } = await start();
  const [a, b, c] = locks as [FileLocks, FileLocks, FileLocks];
  for (const file of files) {
    expect(await a.lock(file, posix(1), { type: "write", start: 0n, end: 9n }).done).toBe("granted");
    expect(await b.lock(file, posix(1), { type: "read", start: 9n }, { wait: false }).done).toBe("again");
    expect(await c.test(file, posix(1), { type: "read" })).toMatchObject({
      type: "write",
      start: 0n,
      end: 9n,
      pid: 1001,
      owner: { nodeid: 1 },
    });
    const second = b.lock(file, posix(1), { type: "write" });
    // Answered behind it, by the same master.
    await b.test(file, posix(1), { type: "write" });
    const third = c.lock(file, posix(1), { type: "write" });
    await a.unlock(file, posix(1));
    expect(await second.done).toBe("granted");
    third.cancel();
    expect(await third.done).toBe("canceled");
    b.release(file, posix(1));
    // A release is seen as soon as it has arrived: waiting for it needs no time.
    expect(await c.lock(file, posix(2), { type: "write" }).done).toBe("granted");
    await c.unlock(file, posix(2));
    expect(await a.test(file, posix(1), { type: "write" })).toBe(null);
  }
  // A circle over three nodes and three files.
  const circle = [a, b, c].map((of, at) => ({ of, mine: files[at] as string, next: files[(at + 1) % 3] as string }));
  for (const { of, mine } of circle) expect(await of.lock(mine, posix(3), { type: "write" }).done).toBe("granted");
  const requests = circle.map(({ of, next }) => of.lock(next, posix(3), { type: "write" }));
  const victim = await Promise.race(requests.map(async ({ done }, at) => ({ at, status: await done })));
  expect(victim.status).toBe("deadlock");
  // The victim lets go; then the others get theirs one after the other.
  circle[victim.at]?.of.release(null, posix(3));
  for (const at of [(victim.at + 2) % 3, (victim.at + 1) % 3]) {
    expect(await requests[at]?.done).toBe("granted");
    circle[at]?.of.release(null, posix(3));
  }
});

it("a dead client's and a dead node's locks go to who waits; what survivors hold they keep", async () => {
  const { clients, locks } = await start();
  const [a, b, c] = locks as [FileLocks, FileLocks, FileLocks];
  const keeper = await (cluster as TestCluster).connect(1);
  const kept = await keeper.client.fileLocks("test");
  for (const [at, file] of files.entries()) {
    expect(await kept.lock(file, posix(7), { type: "write", start: 100n, end: 100n }).done).toBe("granted");
    expect(await (at % 2 === 0 ? a : c).lock(file, posix(1), { type: "write", start: 0n, end: 99n }).done).toBe("granted");
  }
  const waiting = files.map((file) => b.lock(file, posix(1), { type: "write", start: 0n, end: 99n }));
  await clients[0]?.client.close();
  for (const request of waiting.filter((_, at) => at % 2 === 0)) expect(await request.done).toBe("granted");
  await (cluster as TestCluster).kill(3, "SIGKILL");
  for (const request of waiting) expect(await request.done).toBe("granted");
  // Closed while the view changed or not, mastered by the dead node or not: the keeper has what it had, and can be rid of it.
  for (const file of files) {
    expect(await b.lock(file, posix(1), { type: "read", ...all }, { wait: false }).done).toBe("again");
    kept.release(file, posix(7));
    expect(await b.lock(file, posix(1), { type: "read", ...all }).done).toBe("granted");
  }
});

it("a close whose master dies at that moment is not forgotten (hazard M5)", async () => {
  const { locks } = await start();
  const [a, b] = locks as [FileLocks, FileLocks, FileLocks];
  const running = cluster as TestCluster;
  for (const file of files) expect(await a.lock(file, posix(1), { type: "write" }).done).toBe("granted");
  // It is stopped: whatever it is told now, it will never do.
  running.signal(3, "SIGSTOP");
  for (const file of files) a.release(file, posix(1));
  const killed = running.kill(3, "SIGKILL");
  for (const file of files) expect(await b.lock(file, posix(1), { type: "write" }).done).toBe("granted");
  await killed;
});
