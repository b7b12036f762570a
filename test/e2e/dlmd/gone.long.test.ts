/** A program that does not let go of a dead node, with real processes: what waits for it, who says so, and how it ends. */
import { type ChildProcess, spawn } from "node:child_process";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { coverlay } from "../lab.ts";
import { type TestClient, type TestCluster, TestLock, createCluster, dlmdProgram } from "./cluster.ts";

let cluster: TestCluster;
let clients: TestClient[];
beforeAll(async () => {
  cluster = createCluster({ nodes: 3 });
  clients = await cluster.startAll();
});
afterAll(() => cluster.close());

/** Has a lockspace open, and says so. */
const bystander = `
  import { connectDlm } from "${path.resolve(dlmdProgram, "../client/index.js")}";
  const client = await connectDlm(process.argv[1], { view() {}, gone: async () => {}, disconnected: () => process.exit(1) });
  await client.lockspace("stuck");
  process.stdout.write("open");
  setInterval(() => {}, 1000);`;

async function startBystander(nodeid: number): Promise<{ child: ChildProcess; ended: Promise<NodeJS.Signals | null> }> {
  const words = ["--input-type=module", "-e", bystander, path.join(cluster.runDir(nodeid), "dlmd.sock")];
  const child = spawn(process.execPath, words, { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise<NodeJS.Signals | null>((resolve) => child.once("exit", (_, signal) => resolve(signal)));
  await new Promise<void>((resolve) => child.stdout.once("data", () => resolve()));
  return { child, ended };
}

const lockIn = async (client: TestClient, space: string): Promise<TestLock> => new TestLock(await client.client.lockspace(space), "thing");
const ask = (...words: string[]) => coverlay([...words, "--run-dir", cluster.runDir(1)]);

test("R7, C7: a stopped program holds up its lockspace, no other, is named by status and why, and is killed after the limit", async () => {
  const [one, , three] = clients as [TestClient, TestClient, TestClient];
  const { child, ended } = await startBystander(2);
  try {
    for (const space of ["stuck", "free"]) expect(await (await lockIn(three, space)).request(Mode.EX)).toBe("granted");
    const [stuck, free] = [await lockIn(one, "stuck"), await lockIn(one, "free")];
    stuck.lock.request(Mode.EX, 0);
    free.lock.request(Mode.EX, 0);
    child.kill("SIGSTOP");
    await cluster.kill(3, "SIGKILL");

    expect(await free.result()).toBe("granted");
    expect([stuck.statuses, child.exitCode, child.signalCode]).toEqual([[], null, null]);
    const who = `client \\d+ of node 2 \\(pid ${child.pid}[^)]*\\) has let go of nodes that are gone`;
    expect((await ask("status")).stdout).toMatch(new RegExp(`lockspaces stuck wait since [0-9.]+ s until ${who}`));
    expect((await ask("why", "stuck", "thing")).stdout).toMatch(new RegExp(`lock service on node1: .*${who}`));

    expect(await ended).toBe("SIGKILL");
    expect(await stuck.result()).toBe("granted");
    const told = cluster.log(2).filter(({ msg }) => msg === "program is killed");
    expect(told).toMatchObject([
      { reason: "it has not answered for 30000 ms that it has let go of clients that are gone (lockspaces stuck)" },
    ]);
    expect((await ask("status")).stdout).not.toContain("let go");
  } finally {
    child.kill("SIGKILL");
  }
});
