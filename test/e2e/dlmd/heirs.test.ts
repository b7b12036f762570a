/** C12: a program with EX is killed, over the real socket of two real nodes: its heir goes on, or nobody comes. */
import { type ChildProcess, spawn } from "node:child_process";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type DlmClient, type Lock, LockFlag, type LockStatus } from "../../../dlmd/client/api.ts";
import { connectDlm } from "../../../dlmd/client/client.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { coverlay } from "../lab.ts";
import { Happenings, type TestClient, type TestCluster, TestLock, createCluster, dlmdProgram } from "./cluster.ts";

const OWNER = "0123456789abcdef".repeat(4);

let cluster: TestCluster;
let other: TestClient;
/** Whom node 2 was asked to let go of. */
const asked: (number | null)[] = [];
const happenings = new Happenings();
beforeAll(async () => {
  cluster = createCluster({ nodes: 2 });
  await cluster.startAll();
  other = await cluster.connect(2, {
    gone: (clients) => {
      asked.push(...clients.map(({ clientId }) => clientId));
      happenings.happened();
      return Promise.resolve();
    },
  });
});
afterAll(() => cluster.close());

/** It has so many locks at EX, "name 0" and so on, is in the group "heirs", says its clientId, and waits. */
const holder = `
  import { connectDlm, Mode, takeLock } from "${path.resolve(dlmdProgram, "../client/index.js")}";
  const [socket, owner, limitMs, name, count] = process.argv.slice(1);
  const handlers = { view() {}, gone: async () => {}, disconnected() {} };
  const client = await connectDlm(socket, handlers, { owner });
  await client.keepLocks(Number(limitMs));
  const group = await client.join("heirs", { members() {}, message() {}, ended() {} });
  await group.multicast(Buffer.from("first"));
  const space = await client.lockspace("test");
  await Promise.all(Array.from({ length: Number(count) }, (_, at) => takeLock(space, name + " " + at, Mode.EX, { lvb: true })));
  console.log(client.info.clientId);
  setInterval(() => {}, 60_000);`;

async function holderOf(name: string, limitMs: number, count = 1): Promise<{ readonly child: ChildProcess; readonly clientId: number }> {
  const socket = path.join(cluster.runDir(1), "dlmd.sock");
  const words = ["--input-type=module", "-e", holder, socket, OWNER, String(limitMs), name, String(count)];
  const child = spawn(process.execPath, words, { stdio: ["ignore", "pipe", "inherit"] });
  const said = await new Promise<string>((resolve, reject) => {
    child.stdout.once("data", (chunk: Buffer) => resolve(chunk.toString()));
    child.once("exit", (status) => reject(new Error(`the holder ended with ${status}`)));
  });
  return { child, clientId: Number(said) };
}

function heir(): Promise<DlmClient> {
  const handlers = { view() {}, gone: () => Promise.resolve(), disconnected() {} };
  return connectDlm(path.join(cluster.runDir(1), "dlmd.sock"), handlers, { owner: OWNER });
}

test("the heir adopts what the killed program had, and unlocks it: the other node has it", async () => {
  const heard: string[] = [];
  const group = await other.client.join("heirs", {
    members: ({ left }) => {
      heard.push(...left.map(({ member: { clientId }, reason }) => `${clientId} ${reason}`));
      happenings.happened();
    },
    message: ({ from: { clientId }, seq, data }) => {
      heard.push(`${clientId} ${seq} ${Buffer.from(data).toString()}`);
      happenings.happened();
    },
    ended() {},
  });
  const { child, clientId } = await holderOf("taken over", 120_000);
  child.kill("SIGKILL");
  const waiter = await other.lock("taken over 0");
  waiter.lock.request(Mode.PR, 0);

  const client = await heir();
  expect(await client.inherited("test")).toEqual([{ clientId, locks: [{ resource: "taken over 0", mode: Mode.EX }] }]);
  const why = await coverlay(["why", "test", "taken over 0", "--run-dir", cluster.runDir(2)]);
  expect(why.stdout).toMatch(/kept for an heir for [0-9.]+ s at most\) \(an orphan: its program is gone\) has EX/);
  expect([asked, waiter.statuses]).toEqual([[], []]);
  const lock = new TestLock(await client.lockspace("test"), "taken over 0");
  expect(await lock.request(Mode.EX, LockFlag.ORPHAN | LockFlag.VALBLK)).toBe("granted");
  expect(await lock.bast()).toBe(Mode.PR);
  await client.farewell(clientId, "heirs", Buffer.from("last"));
  await happenings.until(() => heard.length === 3);
  expect(heard).toEqual([`${clientId} 1 first`, `${clientId} 2 last`, `${clientId} left`]);
  await client.endKept(clientId);
  await happenings.until(() => asked.length > 0);
  expect([asked, waiter.statuses]).toEqual([[clientId], []]);
  await lock.unlock();
  expect(await waiter.result()).toBe("granted");
  expect(await client.inherited("test")).toEqual([]);
  await waiter.unlock();
  await group.leave();
  await client.close();
});

test("nobody comes: the other node has it when the time is over, and its block is not valid", async () => {
  const { child, clientId } = await holderOf("left", 3000);
  child.kill("SIGKILL");
  const waiter = await other.lock("left 0");
  expect(await waiter.request(Mode.PR, LockFlag.VALBLK)).toBe("granted");
  expect(asked).toContain(clientId);
  expect(waiter.lock.lvbValid).toBe(false);
  const told = cluster.log(1).filter(({ msg, clientId: who }) => who === clientId && msg === "a client is kept no more");
  expect(told).toMatchObject([{ why: "no heir has finished within 3000 ms" }]);
  await waiter.unlock();
});

test("100,000 locks are inherited and adopted", async () => {
  const COUNT = 100_000;
  const { child, clientId } = await holderOf("many", 120_000, COUNT);
  child.kill("SIGKILL");
  const client = await heir();
  const [found] = await client.inherited("test");
  const names = new Set(found?.locks.map(({ resource }) => resource));
  expect([found?.clientId, names.size]).toEqual([clientId, COUNT]);
  const space = await client.lockspace("test");
  const statuses = new Map<LockStatus, number>();
  const adopted = new Happenings();
  for (const resource of names) {
    const ast = (_: Lock, status: LockStatus): void => {
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
      adopted.happened();
    };
    space.createLock(resource, { ast, bast() {} }).request(Mode.EX, LockFlag.ORPHAN);
  }
  await adopted.until(() => [...statuses.values()].reduce((sum, count) => sum + count, 0) === COUNT);
  expect([...statuses]).toEqual([["granted", COUNT]]);
  expect(await client.inherited("test")).toEqual([{ clientId, locks: [] }]);
  await client.endKept(clientId);
  await client.close();
});
