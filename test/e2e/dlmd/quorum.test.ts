/** last_man_standing as it is seen from outside: who counts, in the words of `coverlay status`, and that service goes on. */
import { readFileSync, watch } from "node:fs";
import { afterEach, expect, test } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { coverlay } from "../lab.ts";
import { Happenings, type TestClient, type TestCluster, createCluster } from "./cluster.ts";

let cluster: TestCluster;
afterEach(() => cluster.close());

/** Waits until the node has on record that all members have the change on disk: until then those count, too, who counted before. */
async function settled(nodeid: number): Promise<void> {
  const file = `${cluster.runDir(nodeid)}/state.json`;
  const isSettled = (): boolean => {
    const { lineage } = JSON.parse(readFileSync(file, "utf8")) as { lineage: { electorate: { former: unknown } | null } };
    return lineage.electorate?.former === null;
  };
  const changes = new Happenings();
  const watcher = watch(cluster.runDir(nodeid), () => changes.happened());
  try {
    await changes.until(isSettled);
  } finally {
    watcher.close();
  }
}

test("last_man_standing: three nodes become two, and with auto_tie_breaker one, which serves", async () => {
  cluster = createCluster({
    nodes: 3,
    more: ["quorum: { last_man_standing: true, last_man_standing_window_ms: 500, auto_tie_breaker: lowest }"],
  });
  const [first] = (await cluster.startAll()) as [TestClient, TestClient, TestClient];
  const reasons: string[] = [];
  await cluster.connect(1, { view: ({ quorumReason }) => void reasons.push(quorumReason) });
  const told = async (reason: string): Promise<string> => {
    await first.views.until(() => first.client.view.running && first.client.view.quorumReason === reason);
    const { status, stdout } = await coverlay(["status", "--run-dir", cluster.runDir(1)]);
    expect(status).toBe(0);
    return stdout;
  };
  const lock = await first.lock("thing");
  await cluster.kill(3, "SIGKILL");
  const two = "2 of 2 votes, quorate because 2 >= 2; only nodes 1 2 count";
  expect(await told(two)).toContain(`quorum   ${two}\n`);
  await settled(1);
  await cluster.kill(2, "SIGKILL");
  await told("1 of 1 votes, quorate because 1 >= 1; only nodes 1 count");
  // One of two before, which decides.
  expect(reasons).toContain("1 of 2 votes, quorate because auto_tie_breaker: this half has the node that decides; only nodes 1 2 count");
  expect(await lock.request(Mode.EX)).toBe("granted");
});
