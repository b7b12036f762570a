/** A node whose network interface goes down and comes back: cut off meanwhile, back afterwards with nothing of what it had. Needs root. */
import { execFileSync } from "node:child_process";
import { afterEach, expect, test } from "vitest";
import { LockFlag } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { type TestClient, type TestCluster, createCluster } from "./cluster.ts";

let cluster: TestCluster;
afterEach(() => cluster.close());

test("an interface that goes down and comes back: the others go on without that node, its service stops, and it joins anew", async () => {
  cluster = createCluster({ nodes: 3, namespaces: true });
  const [first, second, third] = (await cluster.startAll()) as [TestClient, TestClient, TestClient];
  const link = (state: "down" | "up"): void =>
    void execFileSync("ip", ["-n", cluster.namespace(3), "link", "set", "net0", state], { stdio: "pipe" });
  const held = await third.lock("held");
  expect(await held.request(Mode.EX)).toBe("granted");
  link("down");
  const waiting = await first.lock("held");
  const granted = waiting.request(Mode.EX);
  await first.seen([1, 2]);
  expect(await granted).toBe("granted");
  // It hears nobody, and says so: nothing is granted there.
  await third.seen([3], false);
  expect(third.client.view.quorate).toBe(false);
  link("up");
  expect((await third.disconnected()).message).toContain("the cluster went on without this node");
  const back = await cluster.connect(3);
  await Promise.all([first, second, back].map((client) => client.seen([1, 2, 3])));
  const again = await back.lock("held");
  expect(await again.request(Mode.PR, LockFlag.NOQUEUE)).toBe("again");
  await waiting.unlock();
  expect(await again.request(Mode.EX)).toBe("granted");
});
