import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { afterEach, expect, test } from "vitest";
import { type GoneClient, LockFlag } from "../../../dlmd/client/api.ts";
import { writeClusterKey } from "../../../dlmd/driver/cluster-files.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { Happenings, type TestClient, type TestCluster, createCluster } from "./cluster.ts";

let cluster: TestCluster;
afterEach(async ({ task }) => {
  if (task.result?.state === "fail") console.error(cluster.story());
  await cluster.close();
});

type Three = [TestClient, TestClient, TestClient];
const all = [1, 2, 3];

/** Many resources, so that each node is master of some. */
const resources = Array.from({ length: 30 }, (_, at) => `resource${at}`);

/** Each client in turn takes each resource EX from the one before it, and sees the value that this one left. */
async function handAround(clients: readonly TestClient[]): Promise<void> {
  await Promise.all(
    resources.map(async (resource) => {
      const locks = await Promise.all(clients.map((client) => client.lock(resource)));
      await Promise.all(locks.map((lock) => lock.request(Mode.NL)));
      let value = "";
      for (const lock of [...locks, ...locks]) {
        expect(await lock.request(Mode.EX, LockFlag.VALBLK)).toBe("granted");
        expect(Buffer.from(lock.lock.lvb ?? []).toString()).toBe(value);
        value = `${value}${resource.length}`;
        const next = locks[(locks.indexOf(lock) + 1) % locks.length];
        // The next one asks while this one holds: the lock moves because of a blocking AST.
        const moved = next?.request(Mode.PR, LockFlag.VALBLK);
        await lock.bast();
        lock.basts.length = 0;
        expect(await lock.request(Mode.NL, LockFlag.VALBLK, Buffer.from(value))).toBe("granted");
        expect(await moved).toBe("granted");
        expect(Buffer.from(next?.lock.lvb ?? []).toString()).toBe(value);
        expect(await next?.request(Mode.NL)).toBe("granted");
      }
      await Promise.all(locks.map((lock) => lock.unlock()));
    }),
  );
}

test("unicast: locks and values move between three nodes", async () => {
  cluster = createCluster({ nodes: 3 });
  const clients = await cluster.startAll();
  expect(new Set(clients.map(({ client }) => client.view.viewId)).size).toBe(1);
  await handAround(clients);
});

test("multicast in network namespaces: views form, locks move, a node leaves", async () => {
  cluster = createCluster({ nodes: 3, namespaces: true });
  const clients = (await cluster.startAll()) as Three;
  await handAround(clients);
  expect(await cluster.kill(3, "SIGTERM")).toBe(0);
  await Promise.all([clients[0].seen([1, 2]), clients[1].seen([1, 2])]);
  await handAround(clients.slice(0, 2));
});

test("a killed node's locks go after the time-out, once every client of its lockspaces has stopped serving it", async () => {
  cluster = createCluster({ nodes: 3 });
  const [first, , third] = (await cluster.startAll()) as Three;
  const named: GoneClient[] = [];
  const happenings = new Happenings();
  let stopServing = (): void => {};
  const serving = await cluster.connect(2, {
    gone(clients) {
      named.push(...clients);
      happenings.happened();
      return new Promise((resolve) => (stopServing = resolve));
    },
  });
  await serving.client.lockspace("test");
  const held = await Promise.all(resources.map((resource) => third.lock(resource)));
  await Promise.all(held.map((lock) => lock.request(Mode.EX)));
  const waiting = await Promise.all(resources.map((resource) => first.lock(resource)));
  const granted = waiting.map((lock) => lock.request(Mode.EX));
  await Promise.all(held.map((lock) => lock.bast()));
  const { incarnation } = third.client.info;
  await cluster.kill(3, "SIGKILL");
  await third.disconnected();
  await happenings.until(() => named.length > 0);
  expect(named).toContainEqual({ nodeid: 3, incarnation, clientId: null });
  expect(waiting.every((lock) => lock.lock.busy)).toBe(true);
  stopServing();
  expect(new Set(await Promise.all(granted))).toEqual(new Set(["granted"]));
  expect(first.client.view.members).toEqual([1, 2]);
  // One word finds a view change in the log: what came before it, that service stopped, the new view with its reason, that service runs.
  const views = cluster.log(1).filter(({ msg }) => msg === "view");
  const before = views.findLast(({ members }) => String(members) === "1,2,3");
  expect(before).toMatchObject({ quorumReason: "3 of 3 votes, quorate because 3 >= 2", running: false });
  expect(views).toContainEqual(expect.objectContaining({ viewId: before?.["viewId"], running: true }));
  const without = { members: [1, 2], quorate: true, quorumReason: "2 of 3 votes, quorate because 2 >= 2" };
  expect(views.find(({ members }) => String(members) === "1,2")).toMatchObject({ ...without, running: false });
  expect(views.at(-1)).toMatchObject({ ...without, running: true });
});

test("a killed node comes back as a new incarnation, and locks survive both", async () => {
  cluster = createCluster({ nodes: 3 });
  const [first, second, third] = (await cluster.startAll()) as Three;
  const kept = await first.lock("kept");
  await kept.request(Mode.EX);
  await cluster.kill(3, "SIGKILL");
  await first.seen([1, 2]);
  await cluster.start(3);
  const back = await cluster.connect(3);
  await Promise.all([first.seen(all), second.seen(all), back.seen(all)]);
  expect(back.client.info.incarnation).not.toBe(third.client.info.incarnation);
  expect(kept.lock.mode).toBe(Mode.EX);
  const other = await back.lock("kept");
  expect(await other.request(Mode.PR, LockFlag.NOQUEUE)).toBe("again");
  await kept.unlock();
  expect(await other.request(Mode.PR)).toBe("granted");
});

test("a node that stood still too long is evicted: its clients lose their connection, and it comes back as a new incarnation", async () => {
  cluster = createCluster({ nodes: 3 });
  const [first, second, third] = (await cluster.startAll()) as Three;
  const held = await third.lock("held");
  await held.request(Mode.EX);
  const waiting = await first.lock("held");
  const granted = waiting.request(Mode.EX);
  cluster.signal(3, "SIGSTOP");
  await first.seen([1, 2]);
  expect(await granted).toBe("granted");
  cluster.signal(3, "SIGCONT");
  expect((await third.disconnected()).message).toContain("the cluster went on without this node");
  const back = await cluster.connect(3);
  await Promise.all([first.seen(all), second.seen(all), back.seen(all)]);
  expect(back.client.info.incarnation).not.toBe(third.client.info.incarnation);
  const again = await back.lock("held");
  expect(await again.request(Mode.PR, LockFlag.NOQUEUE)).toBe("again");
});

test("without quorum requests wait; they are granted when it is back", async () => {
  cluster = createCluster({ nodes: 3 });
  const [first] = (await cluster.startAll()) as Three;
  const before = await first.lock("before");
  await before.request(Mode.EX);
  await Promise.all([cluster.kill(2, "SIGKILL"), cluster.kill(3, "SIGKILL")]);
  await first.views.until(() => !first.client.view.running && !first.client.view.quorate);
  const waiting = await Promise.all(resources.map((resource) => first.lock(resource)));
  const granted = waiting.map((lock) => lock.request(Mode.EX));
  await first.client.query("status");
  expect(waiting.every((lock) => lock.lock.busy)).toBe(true);
  await cluster.start(2);
  expect(new Set(await Promise.all(granted))).toEqual(new Set(["granted"]));
  expect(before.lock.mode).toBe(Mode.EX);
  const other = await (await cluster.connect(2)).lock("before");
  expect(await other.request(Mode.EX, LockFlag.NOQUEUE)).toBe("again");
});

test("who may not join is told why, in both logs", async () => {
  cluster = createCluster({ nodes: 3 });
  const text = readFileSync(cluster.configFile, "utf8");
  const variant = (name: string, from: RegExp | string, to: string): string => {
    const dir = path.join(cluster.dir, name);
    mkdirSync(dir);
    writeFileSync(path.join(dir, "cluster.yaml"), text.replace(from, to));
    writeClusterKey(
      path.join(dir, "cluster.key"),
      name === "key" ? undefined : Buffer.from(readFileSync(path.join(cluster.dir, "cluster.key"), "utf8"), "base64"),
    );
    return path.join(dir, "cluster.yaml");
  };
  const cases: [configFile: string, nodeid: number, reason: string][] = [
    [variant("key", "", ""), 2, "wrong key"],
    [variant("cluster", "cluster: test", "cluster: other"), 2, "other cluster"],
    [variant("version", "version: 1", "version: 2"), 2, "configuration version"],
  ];
  await cluster.start(1);
  const client = await cluster.connect(1);
  const refusals = (nodeid: number, reason: string): boolean =>
    cluster.log(nodeid).some((line) => line["msg"] === "peer refused" && String(line["reason"]).includes(reason));
  for (const [configFile, nodeid, reason] of cases) {
    // Not what it kept of the stranger before it.
    rmSync(path.join(cluster.runDir(nodeid), "config.json"), { force: true });
    const stranger = await cluster.start(nodeid, { configFile });
    // Both retry and heartbeat for ever: a trip to dlmd is the clock here.
    while (!refusals(1, reason) || !refusals(nodeid, reason)) await client.client.query("status");
    stranger.child.kill("SIGKILL");
    await stranger.exited;
  }
  expect(client.client.view.members).not.toContain(2);
});

test("the leader election of the examples: one leads, another takes over when it ends", async () => {
  cluster = createCluster({ nodes: 3 });
  await cluster.startAll();
  const program = path.resolve(import.meta.dirname, "../../../dist/examples/leader-election.js");
  const said: string[] = [];
  const happenings = new Happenings();
  const candidates = ["alice", "bob", "carol"].map((name, at) => {
    const child = spawn(process.execPath, [program, path.join(cluster.runDir(at + 1), "dlmd.sock"), name], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    createInterface({ input: child.stdout }).on("line", (line) => {
      said.push(line);
      happenings.happened();
    });
    return { name, child };
  });
  try {
    const leaders = (): string[] => said.filter((line) => line.includes(": leads")).map((line) => line.slice(0, line.indexOf(":")));
    await happenings.until(() => leaders().length === 1 && said.filter((line) => line.includes(": candidate")).length === 3);
    expect(said).toContain(`${leaders()[0]}: leads, leader: ${leaders()[0]}`);
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      const before = leaders().length;
      candidates.find(({ name }) => name === leaders().at(-1))?.child.kill(signal);
      await happenings.until(() => leaders().length > before);
    }
    expect(new Set(leaders())).toEqual(new Set(["alice", "bob", "carol"]));
  } finally {
    for (const { child } of candidates) child.kill("SIGKILL");
  }
});
