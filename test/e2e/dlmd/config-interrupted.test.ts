/** Ctrl-C at `config apply`: the command ends, and the change goes on. A node whose disk is full holds it up until then. */
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { coverlay } from "../lab.ts";
import { follow } from "../followed.ts";
import { createCluster, type TestCluster } from "./cluster.ts";
import { SmallDisk } from "./small-disk.ts";

let cluster: TestCluster;
let disk: SmallDisk;
beforeEach(() => {
  cluster = createCluster({ nodes: 3 });
  disk = new SmallDisk();
});
afterEach(async ({ task }) => {
  if (task.result?.state === "fail") console.error(cluster.story());
  try {
    await cluster.close();
  } finally {
    await disk.remove();
  }
});

test("it says for what it waits, and at Ctrl-C that the change may still come into force; it does", async () => {
  await Promise.all([cluster.start(1), cluster.start(2, { stateDir: disk.dir }), cluster.start(3)]);
  const client = await cluster.connect(1);
  await client.seen([1, 2, 3]);
  await disk.fillAfterView(1, 2, 3);

  const volume = "  - { name: v, uuid: 6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11, lower: device }";
  const next = readFileSync(cluster.configFile, "utf8").replace("version: 1\n", "version: 2\n");
  const file = path.join(cluster.dir, "new.yaml");
  writeFileSync(file, `${next.trimEnd()}\nvolumes:\n${volume}\n`);
  const runDir = ["--run-dir", cluster.runDir(1)];
  const command = follow(["config", "apply", file, ...runDir]);
  await command.until(
    "version 2 is proposed, and waits until all members and the majorities have it on disk; members: node1, node2, node3;",
  );
  command.interrupt();
  const { status, stdout, stderr } = await command.ended;
  expect([status, stdout]).toEqual([8, ""]);
  expect(stderr).toMatch(/coverlay: interrupted: version 2 is proposed, and not decided: it may still come into force/);
  expect(JSON.parse((await coverlay(["config", "show", "--json", ...runDir])).stdout)).toMatchObject({
    version: 1,
    pending: { version: 2 },
  });

  disk.makeRoom();
  const inForce = (): boolean => cluster.log(1).some(({ msg, version }) => msg === "configuration in force" && version === 2);
  await expect.poll(inForce, { timeout: 30_000, interval: 50 }).toBe(true);
}, 60_000);
