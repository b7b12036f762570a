/** A death concerns the lockspaces that the dead node had open, with real processes: who is asked, what goes on, what is shown. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { coverlay } from "../lab.ts";
import { type TestClient, type TestCluster, TestLock, createCluster } from "./cluster.ts";

let cluster: TestCluster;
let clients: TestClient[];
beforeAll(async () => {
  cluster = createCluster({ nodes: 3, more: ["fencedLockspaces: [a]"] });
  clients = await cluster.startAll();
});
afterAll(() => cluster.close());

const lockIn = async (client: TestClient, space: string): Promise<TestLock> => new TestLock(await client.client.lockspace(space), "thing");

/** On node 2, in that lockspace; it never lets go of anybody. */
async function hangingIn(space: string): Promise<{ readonly asked: number[] }> {
  const asked: number[] = [];
  const { client } = await cluster.connect(2, {
    gone: (gone) => {
      asked.push(...gone.map(({ nodeid }) => nodeid));
      return new Promise(() => {});
    },
  });
  await client.lockspace(space);
  return { asked };
}

test("M6: node 3 had b open and dies. In a nobody is asked, and nothing waits for a program or a fence; in b it does", async () => {
  const [one, two, three] = clients as [TestClient, TestClient, TestClient];
  const [inA, inB] = [await hangingIn("a"), await hangingIn("b")];
  const held = await lockIn(two, "a");
  expect(await held.request(Mode.PR)).toBe("granted");
  expect(await (await lockIn(three, "b")).request(Mode.EX)).toBe("granted");
  const [freeA, stuckB] = [await lockIn(one, "a"), await lockIn(one, "b")];
  stuckB.lock.request(Mode.EX, 0);
  const shown = await coverlay(["status", "--run-dir", cluster.runDir(1)]);
  expect(shown.stdout).toMatch(/^open {5}a is open on node1, node2$/m);
  expect(shown.stdout).toMatch(/^ +b is open on node1, node2, node3$/m);

  await cluster.kill(3, "SIGKILL");
  await one.seen([1, 2]);
  expect(await freeA.request(Mode.PR)).toBe("granted");
  const status = await coverlay(["status", "--run-dir", cluster.runDir(1)]);
  expect(status.stdout).toMatch(/lockspaces b wait since [0-9.]+ s until client \d+ of node 2/);
  expect(status.stdout).not.toContain("fencing");
  const why = await coverlay(["why", "b", "thing", "--run-dir", cluster.runDir(1)]);
  expect(why.stdout).toMatch(/^b is open on node1, node2$/m);
  expect([inA.asked, inB.asked, stuckB.statuses]).toEqual([[], [3], []]);
});
