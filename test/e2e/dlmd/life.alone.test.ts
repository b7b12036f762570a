/** A process and a disk of another node, as the dlmd of that node sees them: real processes, real devices. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { bootId, machineId } from "../../../dlmd/base/machine.ts";
import { statFields } from "../../../dlmd/base/proc-stat.ts";
import { run, withDisk } from "../volume/disk.ts";
import { type TestClient, type TestCluster, createCluster } from "./cluster.ts";

let cluster: TestCluster;
let a: TestClient;
let b: TestClient;
beforeAll(async () => {
  cluster = createCluster({ nodes: 2 });
  [a, b] = (await cluster.startAll()) as [TestClient, TestClient];
});
afterAll(() => cluster.close());

const machine = { bootId: bootId(), machineId: machineId() };

test("a process that ends, and its device: alive and busy, gone and busy, gone and free", async () => {
  await withDisk("ext4", async ({ device, mountPoint }) => {
    run("mount", device, mountPoint);
    const child = spawn("sleep", ["600"]);
    const pid = child.pid ?? 0;
    const startTime = Number(statFields(readFileSync(`/proc/${pid}/stat`, "latin1"))[19]);
    const of2 = { nodeid: 2, pid, startTime, device };
    expect(await a.client.askLife(of2)).toEqual({ seen: { ...machine, process: "alive", device: "busy" } });
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(await a.client.askLife(of2)).toEqual({ seen: { ...machine, process: "gone", device: "busy" } });
    run("umount", mountPoint);
    expect(await a.client.askLife(of2)).toEqual({ seen: { ...machine, process: "gone", device: "free" } });
    // A node is asked about itself in the same way.
    expect(await b.client.askLife(of2)).toEqual({ seen: { ...machine, process: "gone", device: "free" } });
  });
});

test("of a node that is not there, and of no device", async () => {
  const nobody = { pid: 1, startTime: 1, device: "/etc/passwd" };
  expect(await a.client.askLife({ ...nobody, nodeid: 2 })).toEqual({ seen: { ...machine, process: "gone", device: "not-a-device" } });
  expect(await a.client.askLife({ ...nobody, nodeid: 9 })).toEqual({ missing: "node 9 is not in the view" });
  expect(await a.client.askLife({ ...nobody, nodeid: 2, device: `/${"x".repeat(1024)}` })).toEqual({
    missing: "the device has a name of 1025 bytes, at most 1024 can be asked for",
  });
});
