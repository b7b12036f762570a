/** A cluster that is stopped one node after the other, and started again: who has the quorum meanwhile, and for whom the others wait. */
import { afterEach, expect, test } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { until } from "../actor.ts";
import { coverlay } from "../lab.ts";
import { type TestClient, type TestCluster, createCluster } from "./cluster.ts";

let cluster: TestCluster;
afterEach(() => cluster.close());

test("three nodes leave one after the other: the last one serves until then, and the others wait for it when they are back", async () => {
  cluster = createCluster({ nodes: 3 });
  const [, , third] = (await cluster.startAll()) as [TestClient, TestClient, TestClient];
  const lock = await third.lock("thing");
  expect(await cluster.kill(1, "SIGTERM")).toBe(0);
  await third.seen([2, 3]);
  expect(await cluster.kill(2, "SIGTERM")).toBe(0);
  const alone = await third.seen([3]);
  expect(alone).toMatchObject({ quorate: true, quorumReason: "1 of 1 votes, quorate because 1 >= 1; only nodes 3 count" });
  expect(await lock.request(Mode.EX)).toBe("granted");
  expect(await cluster.kill(3, "SIGTERM")).toBe(0);

  await Promise.all([cluster.start(1), cluster.start(2)]);
  const back = await cluster.connect(2);
  await back.seen([1, 2], false);
  const reason = "0 of 1 votes, not quorate because 0 < 1; only nodes 3 count, and node 3 is waited for: others had left or were missing";
  await back.views.until(() => back.client.view.quorumReason === reason);
  const { status, stdout } = await coverlay(["status", "--run-dir", cluster.runDir(2)]);
  expect(status).toBe(1);
  expect(stdout).toContain(`quorum   ${reason}\n         start node3; gone for good: coverlay quorum reset --help`);
  const waiting = (await back.lock("thing")).request(Mode.PR);
  await cluster.start(3);
  await back.seen([1, 2, 3]);
  expect(await waiting).toBe("granted");
  await until("all count again", async () => {
    const { dlmd } = JSON.parse((await coverlay(["status", "--json", "--run-dir", cluster.runDir(2)])).stdout) as {
      dlmd: { counting: unknown };
    };
    return dlmd.counting === null;
  });
});

test("the node that left last is gone for good: the others go on once each of them was told so, and not before", async () => {
  cluster = createCluster({ nodes: 3 });
  const [first] = (await cluster.startAll()) as [TestClient, TestClient, TestClient];
  const reset = (nodeid: number, ...words: string[]) => coverlay(["quorum", "reset", ...words, "--run-dir", cluster.runDir(nodeid)]);
  expect(await reset(1, "--yes")).toMatchObject({ status: 1, stderr: expect.stringContaining("this node has the quorum") });
  await cluster.kill(3, "SIGTERM");
  await first.seen([1, 2]);
  await cluster.kill(2, "SIGTERM");
  await first.seen([1]);
  await cluster.kill(1, "SIGTERM");
  await Promise.all([cluster.start(2), cluster.start(3)]);
  const back = await cluster.connect(3);
  await back.seen([2, 3], false);
  expect(await reset(2)).toMatchObject({ status: 1, stderr: expect.stringContaining("--yes is needed") });
  // Node 2 left later, and knows that node 1 alone counts.
  await until("node 3 has heard that", async () => (await reset(3, "--yes")).status === 0);
  expect(back.client.view.quorate).toBe(false);
  const lock = (await back.lock("thing")).request(Mode.EX);
  expect(await reset(2, "--yes")).toMatchObject({ status: 0, stdout: expect.stringContaining("not only those of node1") });
  await back.seen([2, 3]);
  expect(await lock).toBe("granted");
});
