/** Whose locks are converted gets the resource (dlmd/lock/move.ts), and it has a master again when that one is killed. */
import { afterEach, expect, test } from "vitest";
import { LockFlag } from "../../../dlmd/client/api.ts";
import { masterOf } from "../../../dlmd/lock/mastering.ts";
import { Mode } from "../../../dlmd/lock/mode.ts";
import { createCluster, type TestClient, type TestCluster, type TestLock } from "./cluster.ts";

let cluster: TestCluster;
afterEach(async ({ task }) => {
  if (task.result?.state === "fail") console.error(cluster.story());
  await cluster.close();
});

/** As that node takes it. */
async function masterAt({ client }: TestClient, name: string): Promise<number | undefined> {
  const { resources } = (await client.query("locks")) as { resources: { resource: string; masterNodeid: number }[] };
  return resources.find(({ resource }) => resource === name)?.masterNodeid;
}

test("a resource goes to one of the two that hand its lock to and fro, with its value, and home when that one is killed", async () => {
  cluster = createCluster({ nodes: 3 });
  const [first, second, third] = (await cluster.startAll()) as [TestClient, TestClient, TestClient];
  const members = [1, 2, 3].map((nodeid) => ({ nodeid, incarnation: "" }));
  const name = Array.from({ length: 100 }, (_, at) => `moves${at}`).find((name) => masterOf(members, "test", name) === 3) as string;
  const locks = [await first.lock(name), await second.lock(name)] as [TestLock, TestLock];
  for (const lock of locks) expect(await lock.request(Mode.NL)).toBe("granted");
  const masters = new Set<number | undefined>();
  for (let turn = 0; turn < 40; turn++) {
    const lock = locks[turn % 2] as TestLock;
    expect(await lock.request(Mode.EX, LockFlag.VALBLK)).toBe("granted");
    expect([lock.lock.lvb?.[0] ?? 0, lock.lock.lvbValid]).toEqual([turn, true]);
    expect(await lock.request(Mode.NL, LockFlag.VALBLK, Uint8Array.of(turn + 1))).toBe("granted");
    masters.add(await masterAt(first, name));
  }
  const master = (await masterAt(third, name)) ?? (await masterAt(first, name));
  expect([1, 2]).toContain(master);
  expect(masters).toEqual(new Set([3, master]));
  const [lock, client] = master === 1 ? [locks[1], second] : [locks[0], first];
  expect(await cluster.kill(master as number, "SIGKILL")).toBe(null);
  await client.seen(master === 1 ? [2, 3] : [1, 3]);
  expect(await lock.request(Mode.EX, LockFlag.VALBLK)).toBe("granted");
  expect(await masterAt(client, name)).toBe(3);
});
