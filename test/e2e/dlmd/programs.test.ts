/** What programs of two real nodes can do with the rarer requests: orphans, purges, time-outs, deadlocks, FORCEUNLOCK. */
import { spawn } from "node:child_process";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type DlmClient, LockFlag } from "../../../dlmd/client/api.ts";
import { connectDlm } from "../../../dlmd/client/client.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { until } from "../actor.ts";
import { type TestClient, type TestCluster, TestLock, createCluster, dlmdProgram } from "./cluster.ts";

let cluster: TestCluster;
let a: TestClient;
let b: TestClient;
beforeAll(async () => {
  cluster = createCluster({ nodes: 2 });
  [a, b] = (await cluster.startAll()) as [TestClient, TestClient];
});
afterAll(() => cluster.close());

function owned(owner: string): Promise<DlmClient> {
  const handlers = { view() {}, gone: () => Promise.resolve(), disconnected() {} };
  return connectDlm(path.join(cluster.runDir(1), "dlmd.sock"), handlers, { owner });
}

async function lockOf(client: DlmClient, resource: string): Promise<TestLock> {
  return new TestLock(await client.lockspace("test"), resource);
}

test("hazard C6: a persistent lock outlives its connection, is adopted by its owner, by nobody else, and is purged", async () => {
  const first = await owned("mine");
  const lock = await lockOf(first, "orphan");
  await lock.request(Mode.EX, LockFlag.PERSISTENT | LockFlag.VALBLK);
  await lock.request(Mode.EX, LockFlag.VALBLK, Uint8Array.of(7));
  await first.close();
  const waiter = await b.lock("orphan");
  waiter.lock.request(Mode.PR, LockFlag.VALBLK);

  const thief = await owned("other");
  const stolen = await lockOf(thief, "orphan");
  expect(await stolen.request(Mode.EX, LockFlag.ORPHAN)).toBe("error");
  expect(stolen.lock.error).toMatchObject({ code: "ENOENT" });

  const second = await owned("mine");
  const adopted = await lockOf(second, "orphan");
  expect(await adopted.request(Mode.PR, LockFlag.ORPHAN)).toBe("error");
  expect(adopted.lock.error).toMatchObject({ code: "EAGAIN" });
  expect(await adopted.request(Mode.EX, LockFlag.ORPHAN | LockFlag.VALBLK | LockFlag.PERSISTENT)).toBe("granted");
  expect(adopted.lock.lvb).toEqual(Uint8Array.of(7));
  expect(await adopted.bast()).toBe(Mode.PR);

  await second.close();
  await a.lock("open the lockspace");
  // Its locks are orphans when dlmd knows that its connection is closed.
  let purged = 0;
  await until("an orphan is purged", async () => (purged = await a.client.purge("test", 1, 0)) > 0);
  expect(purged).toBe(1);
  expect(await waiter.result()).toBe("granted");
  // Nobody knows what its last owner would have written.
  expect(waiter.lock.lvbValid).toBe(false);
  await waiter.unlock();
  await thief.close();
});

test("a purge on another node, and on one that is not there", async () => {
  await b.lock("open the lockspace");
  expect(await b.client.purge("test", 1, 0)).toBe(0);
  await expect(b.client.purge("test", 9, 0)).rejects.toThrow("node 9 is not in the view");
});

test("a request with a time-out", async () => {
  const holder = await a.lock("timeout");
  await holder.request(Mode.EX);
  const waiter = await b.lock("timeout");
  waiter.lock.request(Mode.PR, 0, undefined, { timeoutMs: 50 });
  expect(await waiter.result()).toBe("timeout");
  expect(waiter.lock.exists).toBe(false);
  await holder.unlock();
});

test("two transactions that wait for each other: one is told", async () => {
  const [ax, by] = [await a.lock("x"), await b.lock("y")];
  const [ay, bx] = [await a.lock("y"), await b.lock("x")];
  ax.lock.request(Mode.EX, 0, undefined, { transaction: 1 });
  by.lock.request(Mode.EX, 0, undefined, { transaction: 1 });
  expect([await ax.result(), await by.result()]).toEqual(["granted", "granted"]);
  ay.lock.request(Mode.EX, 0, undefined, { transaction: 1 });
  bx.lock.request(Mode.EX, 0, undefined, { transaction: 1 });
  // The lock of the higher node is the victim.
  expect(await bx.result()).toBe("deadlock");
  await by.unlock();
  expect(await ay.result()).toBe("granted");
  await Promise.all([ay.unlock(), ax.unlock()]);
});

test("FORCEUNLOCK: both requests have their result", async () => {
  const holder = await a.lock("force");
  await holder.request(Mode.PR);
  const other = await b.lock("force");
  await other.request(Mode.PR);
  other.lock.request(Mode.EX, LockFlag.QUECVT);
  other.lock.unlock(LockFlag.FORCEUNLOCK);
  expect([await other.result(), await other.result()]).toEqual(["canceled", "unlocked"]);
  expect([other.lock.exists, other.lock.busy]).toEqual([false, false]);
  const waiting = await b.lock("force");
  waiting.lock.request(Mode.EX, 0);
  waiting.lock.unlock(LockFlag.FORCEUNLOCK);
  expect([await waiting.result(), await waiting.result()]).toEqual(["canceled", "unlocked"]);
  expect(await holder.request(Mode.EX)).toBe("granted");
  await holder.unlock();
});

/** Takes that lock, says so, and then does nothing any more: not even its event loop runs. */
const hangs = `
  import { writeSync } from "node:fs";
  import { connectDlm, LockFlag, Mode } from "${path.resolve(dlmdProgram, "../client/index.js")}";
  const handlers = { view() {}, gone: async () => {}, disconnected() {} };
  const client = await connectDlm(process.argv[1], handlers, { owner: "mine", bastLimitMs: 300 });
  const space = await client.lockspace("test");
  const lock = space.createLock("hung", {
    ast() {
      writeSync(1, "granted");
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    },
    bast() {},
  });
  lock.request(Mode.EX, LockFlag.PERSISTENT);`;

test("hazard H13: a program that promised to answer blocking ASTs and hangs is killed by its own dlmd, and others get what it had", async () => {
  const child = spawn(process.execPath, ["--input-type=module", "-e", hangs, path.join(cluster.runDir(1), "dlmd.sock")], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    const ended = new Promise<NodeJS.Signals | null>((resolve) => child.once("exit", (_, signal) => resolve(signal)));
    await new Promise<void>((resolve) => child.stdout.once("data", () => resolve()));
    const waiter = await b.lock("hung");
    expect(await waiter.request(Mode.PR)).toBe("granted");
    expect(await ended).toBe("SIGKILL");
    await waiter.unlock();
    const told = cluster.log(1).filter(({ msg }) => msg === "program is killed");
    expect(told).toMatchObject([{ reason: "it has not answered a blocking AST for test hung (PR is wanted) for 300 ms" }]);
  } finally {
    child.kill("SIGKILL");
  }
});
