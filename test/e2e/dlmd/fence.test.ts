/** "No device: wait for the acknowledgement", with real nodes: what waits, what is shown, what a restart remembers, what a person says. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { coverlay } from "../lab.ts";
import { type TestClient, type TestCluster, TestLock, createCluster } from "./cluster.ts";

let cluster: TestCluster;
let clients: TestClient[];
beforeAll(async () => {
  cluster = createCluster({ nodes: 3, more: ["fencedLockspaces: [guarded]"] });
  clients = await cluster.startAll();
});
afterAll(() => cluster.close());

const guarded = async (client: TestClient): Promise<TestLock> => new TestLock(await client.client.lockspace("guarded"), "thing");
const ask = (nodeid: number, ...words: string[]) => coverlay([...words, "--run-dir", cluster.runDir(nodeid)]);

test("M2, C11: after a death a guarded lockspace waits until a person says that the node is dead; a restart does not forget that", async () => {
  const [a, b, c] = clients as [TestClient, TestClient, TestClient];
  // Else its death is no matter of that lockspace.
  await guarded(c);
  const first = await guarded(a);
  expect(await first.request(Mode.PR)).toBe("granted");
  const refused = await ask(1, "fence", "ack", "node3", "--yes");
  expect([refused.status, refused.stderr]).toMatchObject([1, expect.stringContaining("nothing waits until node 3 is known to be dead")]);
  await cluster.kill(3, "SIGKILL");
  await b.seen([1, 2]);
  const waiting = await guarded(b);
  waiting.lock.request(Mode.PR, 0);
  // What needs no fence goes on; by then the other would have been granted.
  expect(await (await b.lock("free")).request(Mode.EX)).toBe("granted");
  expect(waiting.statuses).toEqual([]);
  expect((await ask(2, "status")).stdout).toMatch(
    /^fencing {2}node3 \(incarnation [0-9a-f]{16}\) went without a word before view .* nothing is granted in guarded/m,
  );
  expect((await ask(2, "fence", "ack", "node3")).stderr).toContain("--yes is needed");

  // It is on the disk of node 1, which leaves and comes back.
  await cluster.kill(1, "SIGTERM");
  await cluster.start(1);
  await b.seen([1, 2]);
  const again = await cluster.connect(1);
  await again.seen([1, 2]);
  const shown = await ask(1, "fence", "show", "--json");
  expect(JSON.parse(shown.stdout)).toMatchObject({ unfenced: [{ nodeid: 3 }], fenced: [], fencedLockspaces: ["guarded"] });
  expect(waiting.statuses).toEqual([]);

  const taken = await ask(1, "fence", "ack", "node3", "--yes");
  expect([taken.status, taken.stdout]).toEqual([0, "node3 is taken to be dead: what waited for that goes on\n"]);
  expect(await waiting.result()).toBe("granted");
  expect(cluster.log(2).map(({ msg }) => msg)).toContain("node is known to be dead");
  expect((await ask(1, "fence", "show")).stdout).toMatch(/^nothing waits for a node to be dead\nnode3 .*: known to be dead$/m);
});
