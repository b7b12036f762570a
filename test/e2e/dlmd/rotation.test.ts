/** The cluster key is replaced while three dlmds run and locks move (hazard H6), step by step as `coverlay keygen --help` says. */
import { execFileSync } from "node:child_process";
import { appendFileSync, cpSync, mkdirSync, readFileSync, renameSync, symlinkSync } from "node:fs";
import path from "node:path";
import { afterEach, expect, test } from "vitest";
import { readKeyring, writeClusterKey } from "../../../dlmd/driver/cluster-files.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { dist } from "../../built.ts";
import { type TestCluster, createCluster } from "./cluster.ts";

const coverlay = path.join(dist, "overlay/main.js");
let cluster: TestCluster;
afterEach(async ({ task }) => {
  if (task.result?.state === "fail") console.error(cluster.story());
  await cluster.close();
});

const keyFileOf = (): string => path.join(cluster.dir, "cluster.key");
const keygen = (...words: string[]): void => void execFileSync(process.execPath, [coverlay, "keygen", ...words, keyFileOf()]);

test("add, promote, prune: the view stays the same and locks move on; the old key is worth nothing after it", async () => {
  cluster = createCluster({ nodes: 3 });
  const clients = await cluster.startAll();
  const before = clients.map(({ client }) => client.view.viewId);
  const oldKey = readFileSync(keyFileOf());
  const locks = await Promise.all(clients.map((client) => client.lock("rotating")));
  let turns = 0;
  const turn = async (): Promise<void> => {
    const lock = locks[turns++ % locks.length];
    expect(await lock?.request(Mode.EX)).toBe("granted");
    expect(await lock?.request(Mode.NL)).toBe("granted");
  };
  const everybodyHas = (ids: string): boolean =>
    [1, 2, 3].every((nodeid) => cluster.log(nodeid).some((line) => line["msg"] === "cluster keys changed" && line["keys"] === ids));
  for (const step of ["--add", "--promote", "--prune"]) {
    keygen(step);
    const ids = readKeyring(keyFileOf())
      .all.map(({ id }) => id)
      .join(" ");
    while (!everybodyHas(ids)) await turn();
  }
  for (let more = 0; more < 9; more++) await turn();
  expect(clients.map(({ client }) => client.view.viewId)).toEqual(before);
  const disconnected = [1, 2, 3].flatMap((nodeid) => cluster.log(nodeid).filter((line) => line["msg"] === "peer disconnected"));
  expect(disconnected).toEqual([]);
  // A restarted node with the new key is a member again; one with the old key is not heard.
  await cluster.kill(3, "SIGTERM");
  await cluster.start(3);
  await (await cluster.connect(3)).seen([1, 2, 3]);
  await cluster.kill(3, "SIGTERM");
  const behind = path.join(cluster.dir, "behind");
  mkdirSync(behind);
  cpSync(cluster.configFile, path.join(behind, "cluster.yaml"));
  writeClusterKey(path.join(behind, "cluster.key"), Buffer.from(oldKey.toString(), "base64"));
  await cluster.start(3, { configFile: path.join(behind, "cluster.yaml") });
  const refused = (nodeid: number): boolean =>
    cluster.log(nodeid).some((line) => line["msg"] === "peer refused" && String(line["reason"]).includes("wrong key"));
  while (!refused(1) || !refused(3)) await clients[0]?.client.query("status");
});

test("a key file that cannot be used changes nothing and is told", async () => {
  cluster = createCluster({ nodes: 1 });
  const node = await cluster.start(1);
  const client = await cluster.connect(1);
  execFileSync("chmod", ["644", keyFileOf()]);
  node.child.kill("SIGHUP");
  const told = (text: string): boolean => cluster.log(1).some((line) => line["msg"] === text);
  while (!told("the key file cannot be used: the keys stay as they were")) await client.client.query("status");
  execFileSync("chmod", ["600", keyFileOf()]);
  keygen("--add");
  while (!told("cluster keys changed")) await client.client.query("status");
  expect(cluster.log(1).filter((line) => line["level"] === "error")).toHaveLength(1);
});

test("SIGHUP has cluster.yaml looked at as well, and a link that leads to other keys is noticed without it", async () => {
  cluster = createCluster({ nodes: 1 });
  const link = keyFileOf();
  const places = ["first.key", "second.key"].map((name) => path.join(cluster.dir, name)) as [string, string];
  renameSync(link, places[0]);
  symlinkSync(places[0], link);
  const node = await cluster.start(1);
  const { client } = await cluster.connect(1);
  const times = (text: string): number => cluster.log(1).filter((line) => String(line["msg"]).includes(text)).length;
  writeClusterKey(places[1]);
  symlinkSync(places[1], `${link}.new`);
  renameSync(`${link}.new`, link);
  while (times("cluster keys changed") < 1) await client.query("status");
  appendFileSync(cluster.configFile, "fencedLockspaces: [other]\n");
  while (times("its version was not raised") < 1) await client.query("status");
  node.child.kill("SIGHUP");
  while (times("its version was not raised") < 2) await client.query("status");
  expect(times("cannot be used")).toBe(0);
});
