/** Heartbeats have a thread of their own: a main thread that does nothing else for longer than the time-out is not taken for dead. */
import { watch, writeFileSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, expect, test } from "vitest";
import { createCluster, type TestCluster } from "./cluster.ts";

let cluster: TestCluster;
afterEach(async ({ task }) => {
  if (task.result?.state === "fail") console.error(cluster.story());
  await cluster.close();
});

/** On SIGUSR2 the main thread spins for that long, and then says so in a file. */
function blocker(done: string, ms: number): string {
  return `
import { writeFileSync } from "node:fs";
import { isMainThread } from "node:worker_threads";
if (isMainThread) process.on("SIGUSR2", () => {
  const end = performance.now() + ${ms};
  while (performance.now() < end);
  writeFileSync(${JSON.stringify(done)}, "done");
});
`;
}

test("a main thread that is blocked for longer than the time-out: nobody suspects it", async () => {
  cluster = createCluster({ nodes: 3 });
  const done = path.join(cluster.dir, "done");
  const preload = path.join(cluster.dir, "block.mjs");
  writeFileSync(preload, blocker(done, 5000));
  const options = process.env["NODE_OPTIONS"];
  process.env["NODE_OPTIONS"] = `--import ${pathToFileURL(preload).href}`;
  let clients: Awaited<ReturnType<TestCluster["startAll"]>>;
  try {
    clients = await cluster.startAll();
  } finally {
    if (options === undefined) delete process.env["NODE_OPTIONS"];
    else process.env["NODE_OPTIONS"] = options;
  }
  const proposals = (): number[] => [1, 2, 3].map((nodeid) => cluster.log(nodeid).filter(({ msg }) => msg === "proposing a view").length);
  const before = proposals();
  const views = clients.map(({ client }) => client.view.viewId);
  const ended = new Promise<void>((resolve) => {
    const watcher = watch(cluster.dir, (_, name) => {
      if (name !== "done") return;
      watcher.close();
      resolve();
    });
  });
  // The lowest nodeid: it would be the one to propose, and it orders messages.
  cluster.signal(1, "SIGUSR2");
  await ended;
  const [first, second] = clients;
  // It serves again, and so do the others.
  const lock = await first?.lock("after");
  expect(await lock?.request(5)).toBe("granted");
  const other = await second?.lock("elsewhere");
  expect(await other?.request(5)).toBe("granted");
  expect(clients.map(({ client }) => client.view.viewId)).toEqual(views);
  expect(proposals()).toEqual(before);
});
