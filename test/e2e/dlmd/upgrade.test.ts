/**
 * A dlmd has read all of its files when it is ready: those of another version may lie there afterwards (packaging/README.md, "What runs during an
 * upgrade"). Here they go away, so that one that is read later ends it.
 */
import { once } from "node:events";
import { cpSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { get, type IncomingMessage } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { text } from "node:stream/consumers";
import { afterEach, expect, test } from "vitest";
import { carriedPackages } from "../../../packaging/dependencies.ts";
import { createCluster, type TestClient, type TestCluster } from "./cluster.ts";

const root = path.resolve(import.meta.dirname, "../../..");
const installed = mkdtempSync(path.join(tmpdir(), "coverlay-installed-"));
let cluster: TestCluster;
afterEach(async ({ task }) => {
  if (task.result?.state === "fail") console.error(cluster.story());
  await cluster.close();
  rmSync(installed, { recursive: true, force: true });
});

/** As the package lays it out. Gives dlmd's program. */
function install(): string {
  const folders = ["dist/dlmd", "dist/native", "native/build/Release/coverlay.node", "package.json"];
  for (const folder of [...folders, ...carriedPackages(root).map((each) => each.folder)]) {
    cpSync(path.join(root, folder), path.join(installed, folder), { recursive: true, dereference: true });
  }
  return path.join(installed, "dist/dlmd/main.js");
}

test("a node whose files have gone is put out, begins its next life, answers, and leaves", async () => {
  const program = install();
  cluster = createCluster({ nodes: 3, program });
  const [first, , third] = (await cluster.startAll()) as [TestClient, TestClient, TestClient];
  rmSync(installed, { recursive: true });
  expect(existsSync(program)).toBe(false);

  cluster.signal(3, "SIGSTOP");
  await first.seen([1, 2]);
  cluster.signal(3, "SIGCONT");
  await third.disconnected();
  const back = await cluster.connect(3);
  await Promise.all([first.seen([1, 2, 3]), back.seen([1, 2, 3])]);
  expect(back.client.info.incarnation).not.toBe(third.client.info.incarnation);
  // Its heartbeats keep it there, and its lease lets it grant.
  const lock = await back.lock("kept");
  expect(await lock.request(5)).toBe("granted");
  const [page] = (await once(get({ socketPath: path.join(cluster.runDir(3), "metrics.sock"), path: "/metrics" }), "response")) as [
    IncomingMessage,
  ];
  expect(await text(page)).toContain("dlmd_quorate 1");
  expect(await back.client.query("status")).toMatchObject({ quorate: true });
  expect(await cluster.kill(3, "SIGTERM")).toBe(0);
  await first.seen([1, 2]);
});
