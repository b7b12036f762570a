/** The configuration of a running cluster is changed with `coverlay config apply`, each node with files of its own. */
import { execFile, execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { afterEach, expect, test } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { dist } from "../../built.ts";
import { type RunningNode, type TestCluster, createCluster, dlmdProgram } from "./cluster.ts";
import { SmallDisk } from "./small-disk.ts";

const coverlay = path.join(dist, "overlay/main.js");
let cluster: TestCluster;
let disk: SmallDisk | undefined;
afterEach(async ({ task }) => {
  if (task.result?.state === "fail") console.error(cluster.story());
  if (disk !== undefined) {
    // Its files are there: it would write new ones into the folder below the disk.
    await cluster.kill(2, "SIGKILL");
    await disk.remove();
  }
  disk = undefined;
  await cluster.close();
});

const fileOf = (nodeid: number): string => path.join(cluster.dir, `files${nodeid}`, "cluster.yaml");
const versionOf = (nodeid: number): number => Number(/^version: (\d+)$/m.exec(readFileSync(fileOf(nodeid), "utf8"))?.[1]);
function giveFiles(nodeid: number, text: string): void {
  mkdirSync(path.dirname(fileOf(nodeid)), { recursive: true });
  writeFileSync(fileOf(nodeid), text);
  cpSync(path.join(cluster.dir, "cluster.key"), path.join(path.dirname(fileOf(nodeid)), "cluster.key"));
}
const start = (nodeid: number): Promise<RunningNode> => cluster.start(nodeid, { configFile: fileOf(nodeid) });
const row = (nodeid: number): string => `  - { nodeid: ${nodeid}, name: node${nodeid}, address: 127.0.0.${nodeid} }`;

function changed(text: string, change: (lines: string[]) => string[]): string {
  const version = Number(/^version: (\d+)$/m.exec(text)?.[1]);
  return `${change(text.trimEnd().split("\n")).join("\n")}\n`.replace(/^version: \d+$/m, `version: ${version + 1}`);
}
/** What `coverlay config apply` said: its exit status and all it printed. */
async function apply(nodeid: number, text: string): Promise<{ status: number; said: string }> {
  const file = path.join(cluster.dir, `new${nodeid}.yaml`);
  writeFileSync(file, text);
  const words = [coverlay, "config", "apply", file, "--run-dir", cluster.runDir(nodeid)];
  try {
    const { stdout } = await promisify(execFile)(process.execPath, words);
    return { status: 0, said: stdout };
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
    return { status: code, said: `${stdout}${stderr}` };
  }
}
const inForce = (nodeid: number, version: number): boolean =>
  cluster.log(nodeid).some((line) => line["msg"] === "configuration in force" && line["version"] === version);

test("nodes are added and removed while it runs; who was away is given what he missed, who was removed is told", async () => {
  cluster = createCluster({ nodes: 3 });
  const first = readFileSync(cluster.configFile, "utf8");
  for (const nodeid of [1, 2, 3]) giveFiles(nodeid, first);
  await Promise.all([1, 2, 3].map(start));
  const clients = await Promise.all([1, 2, 3].map((nodeid) => cluster.connect(nodeid)));
  await Promise.all(clients.map((client) => client.seen([1, 2, 3])));

  // Refused: two at a time, a node that runs, another time-out, a version that is not the next.
  const two = changed(first, (lines) => [...lines, row(4), row(5)]);
  expect(await apply(1, two)).toMatchObject({ status: 1, said: expect.stringContaining("one node at a time: nodes 4, 5") as string });
  const without = changed(first, (lines) => lines.filter((line) => !line.includes("nodeid: 3")));
  expect(await apply(3, without)).toMatchObject({ status: 1, said: expect.stringContaining("node 3 runs: stop its dlmd") as string });
  const slower = changed(first, (lines) => lines.map((line) => line.replace("timeoutMs: 3000", "timeoutMs: 4000")));
  expect(await apply(2, slower)).toMatchObject({ status: 1, said: expect.stringContaining("timeoutMs cannot be changed") as string });
  expect(await apply(2, first.replace("version: 1", "version: 7"))).toMatchObject({
    status: 1,
    said: expect.stringContaining("version 2 expected") as string,
  });

  // Node 4 is added, through a node that is not the coordinator.
  const second = changed(first, (lines) => [...lines, row(4)]);
  expect(await apply(2, second)).toEqual({ status: 0, said: "version 2 is in force\n" });
  while (![1, 2, 3].every((nodeid) => inForce(nodeid, 2))) await clients[0]?.client.query("status");
  giveFiles(4, second);
  await start(4);
  const fourth = await cluster.connect(4);
  await fourth.seen([1, 2, 3, 4]);
  expect(fourth.client.view.quorumReason).toBe("4 of 4 votes, quorate because 4 >= 3");

  // Node 3 stops and is removed; node 4 is away meanwhile for the version after that.
  await cluster.kill(3, "SIGTERM");
  await fourth.seen([1, 2, 4]);
  const third = changed(second, (lines) => lines.filter((line) => !line.includes("nodeid: 3")));
  expect(await apply(4, third)).toMatchObject({ status: 0 });
  await cluster.kill(4, "SIGTERM");
  await clients[0]?.seen([1, 2]);
  const last = changed(third, (lines) => [
    ...lines,
    "volumes:",
    "  - { name: v, uuid: 6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11, lower: device }",
  ]);
  expect(await apply(1, last)).toMatchObject({ status: 0 });
  expect(versionOf(4)).toBe(3);
  await start(4);
  const back = await cluster.connect(4);
  await back.seen([1, 2, 4]);
  expect(inForce(4, 4)).toBe(true);
  // It is told by whoever it reaches first, before it is ready or after.
  const isTold = (): boolean =>
    cluster.log(3).some((line) => line["msg"] === "dlmd ends" && String(line["error"]).includes("node 3 is not in version 4"));
  await start(3).catch((error: unknown) => {
    if (!isTold()) throw error;
  });
  while (!isTold()) await back.client.query("status");
  expect(clients[1]?.client.view.members).toEqual([1, 2, 4]);
  // All three, as the words of a view in which one of them came back say.
  expect(clients[1]?.client.view.quorumReason).toMatch(/^3 of 3 votes, quorate because 3 >= 2(; only nodes 1 2 4 count)?$/);

  // Two nodes apply at once: one of the two is version 5 everywhere, the other node is told.
  const rivals = ["one", "two"].map((name) => changed(last, (lines) => lines.map((line) => line.replace("name: v,", `name: ${name},`))));
  const answers = await Promise.all([apply(2, rivals[0] as string), apply(4, rivals[1] as string)]);
  const won = answers.findIndex(({ status }) => status === 0);
  expect(answers[won]).toEqual({ status: 0, said: "version 5 is in force\n" });
  expect(answers[1 - won]).toMatchObject({
    status: 1,
    said: expect.stringMatching(/under way|became version 5|version 6 expected/) as string,
  });
  while (![1, 2, 4].every((nodeid) => inForce(nodeid, 5))) await back.client.query("status");
  for (const nodeid of [1, 2, 4]) {
    const shown = execFileSync(process.execPath, [coverlay, "config", "show", "--run-dir", cluster.runDir(nodeid)]).toString();
    expect(shown).toBe(rivals[won]);
  }
});

test("cluster.yaml is watched: the next version is proposed; a file that only one node has does not count", async () => {
  cluster = createCluster({ nodes: 2 });
  const first = readFileSync(cluster.configFile, "utf8");
  for (const nodeid of [1, 2]) giveFiles(nodeid, first);
  await Promise.all([1, 2].map(start));
  const client = await cluster.connect(1);
  await client.seen([1, 2]);
  const second = changed(first, (lines) => [...lines, row(3)]);
  writeFileSync(fileOf(2), second.replace("127.0.0.3", "nowhere"));
  const told = (nodeid: number, text: string): boolean => cluster.log(nodeid).some((line) => String(line["msg"]).includes(text));
  while (!told(2, "cannot be used")) await client.client.query("status");
  // Two nodes of which one is enough would both write to the disk when they do not hear each other.
  const lone = changed(first, (lines) => [...lines, "quorum: { two_node: true }"]);
  expect(await apply(1, lone)).toMatchObject({ status: 1, said: expect.stringContaining("no fence device is configured") as string });
  writeFileSync(fileOf(1), lone);
  while (!told(1, "cannot be used")) await client.client.query("status");
  writeFileSync(fileOf(1), first);
  writeFileSync(fileOf(2), second);
  while (![1, 2].every((nodeid) => inForce(nodeid, 2))) await client.client.query("status");
  const shown = execFileSync(process.execPath, [coverlay, "config", "show", "--run-dir", cluster.runDir(1)]).toString();
  expect(shown).toBe(second);
  // A quorum of its own for node 1, written while it is off.
  await cluster.kill(1, "SIGKILL");
  writeFileSync(
    fileOf(1),
    changed(second, (lines) => lines.filter((line) => !/nodeid: [23]/.test(line))),
  );
  const words = [dlmdProgram, `--config=${fileOf(1)}`, "--node=node1", `--run-dir=${cluster.runDir(1)}`];
  await expect(promisify(execFile)(process.execPath, words)).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringContaining("has version 3, but the cluster agreed on version 2") as string,
  });
});

test("a node that lost its state and was given a file of its own does not impose that on the others", async () => {
  cluster = createCluster({ nodes: 3 });
  const first = readFileSync(cluster.configFile, "utf8");
  for (const nodeid of [1, 2, 3]) giveFiles(nodeid, first);
  await Promise.all([1, 2, 3].map(start));
  const client = await cluster.connect(1);
  await client.seen([1, 2, 3]);
  const restartWith = async (text: string): Promise<void> => {
    await cluster.kill(3, "SIGKILL");
    await client.seen([1, 2]);
    rmSync(cluster.runDir(3), { recursive: true });
    giveFiles(3, text);
    await start(3);
  };
  const said = (nodeid: number, message: string, reason: RegExp): boolean =>
    cluster.log(nodeid).some((line) => line["msg"] === message && reason.test(String(line["reason"])));

  await restartWith(first.replace("version: 1", "version: 7"));
  for (const nodeid of [1, 3]) {
    while (!said(nodeid, "peer refused", /version 7 of node 3 comes from its file, and the cluster never agreed on it/)) {
      await client.client.query("status");
    }
  }
  // As the reason says.
  await cluster.kill(3, "SIGTERM");
  giveFiles(3, first);
  await cluster.start(3, { configFile: fileOf(3), newConfig: true });
  await client.seen([1, 2, 3]);
  // By this file node 3 is quorate alone, and has it in force.
  const lone = first.replace("version: 1", "version: 9").split("\n");
  await restartWith(lone.filter((line) => !/nodeid: [12],/.test(line)).join("\n"));
  await (await cluster.connect(3)).seen([3]);
  while (!said(1, "a peer's configuration is not taken", /in a quorate view/)) await client.client.query("status");
  // Not in a quorate view when it starts.
  await cluster.kill(2, "SIGTERM");
  await start(2);
  const second = await cluster.connect(2);
  await second.seen([1, 2]);
  expect([1, 2].map((nodeid) => [versionOf(nodeid), inForce(nodeid, 7), inForce(nodeid, 9)])).toEqual([
    [1, false, false],
    [1, false, false],
  ]);
});

test("config apply on a node with a full disk is refused, that node goes on, and applies it when there is room", async () => {
  cluster = createCluster({ nodes: 2 });
  const first = readFileSync(cluster.configFile, "utf8");
  for (const nodeid of [1, 2]) giveFiles(nodeid, first);
  mkdirSync(cluster.runDir(2), { mode: 0o700 });
  disk = new SmallDisk(cluster.runDir(2));
  await Promise.all([1, 2].map(start));
  const client = await cluster.connect(2);
  await client.seen([1, 2]);
  // The log of that node is on the full disk, too.
  await disk.fillAfterView(1, 2);
  const second = changed(first, (lines) => [...lines, row(3)]);
  const refused = await apply(2, second);
  expect(refused).toMatchObject({ status: 1, said: expect.stringMatching(/could not keep version 2 in .*: ENOSPC/) as string });
  expect(client.client.view.members).toEqual([1, 2]);
  expect(await (await client.lock("after")).request(Mode.EX)).toBe("granted");
  disk.makeRoom();
  expect(await apply(2, second)).toEqual({ status: 0, said: "version 2 is in force\n" });
});
