/** Who waits for whom, and who owns which volume, from what the nodes say of their locks. */
import { createServer, type Server } from "node:net";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, expect, it } from "vitest";
import type { LockAnswer } from "../../../dlmd/wire/inspect-answer.ts";
import { type ClusterLocks, decodeClusterLocks } from "../../../overlay/query/cluster-locks.ts";
import { lockWaits, volumeOwners } from "../../../overlay/query/lock-waits.ts";
import { lookAtNode } from "../../../overlay/query/node-facts.ts";
import { claimWaiting } from "../../../overlay/volume/mount-waiter.ts";

const uuid = "a57207ea-b2b9-41a4-b78b-ecce06826ea8";
const lockspace = `vol-${uuid}`;
const info = {
  nodes: [
    { nodeid: 1, name: "node1", address: "" },
    { nodeid: 2, name: "node2", address: "" },
  ],
  volumes: [{ name: "data", uuid, lower: "device" as const }],
};
const row = (nodeid: number, more: Partial<LockAnswer>): LockAnswer => ({
  nodeid,
  clientId: 3,
  lockId: 1,
  granted: null,
  requested: null,
  waitingMs: null,
  orphan: false,
  asked: null,
  askedMs: null,
  mayKeep: false,
  ...more,
});
const resource = (name: string, grantQueue: readonly LockAnswer[], waitQueue: readonly LockAnswer[], space = lockspace) => ({
  lockspace: space,
  resource: name,
  masterNodeid: 1,
  lvb: null,
  grantQueue,
  convertQueue: [],
  waitQueue,
  fromMaster: true,
});
const none = decodeClusterLocks({ nodes: [] });
const locks = (more: Partial<ClusterLocks>): ClusterLocks => ({
  ...none,
  programs: [
    { nodeid: 1, clientId: 3, pid: 11, program: "/usr/lib/coverlay/main.js" },
    { nodeid: 2, clientId: 3, pid: 22, program: "app" },
  ],
  ...more,
});

it("names the waiter and those that have what excludes it, up to three", () => {
  const wanted = [row(2, { requested: "EX", waitingMs: 1000 }), row(2, { requested: "PR", waitingMs: 999 })];
  const held = [
    row(1, { granted: "PR" }),
    row(1, { granted: "PR" }),
    row(2, { granted: "PR" }),
    row(9, { granted: "PR" }),
    row(1, { granted: "NL" }),
  ];
  const [wait, ...others] = lockWaits(locks({ resources: [resource("i12.0", held, wanted)] }), info, 1000);
  expect(others).toEqual([]);
  const main = { node: "node1", pid: 11, program: "main.js" };
  const app = { node: "node2", pid: 22, program: "app" };
  expect(wait).toEqual({
    kind: "inode",
    volume: "data",
    lockspace,
    resource: "i12.0",
    what: "inode lock of inode 12",
    waiter: app,
    holders: [main, main, app],
    waitingMs: 1000,
  });
});

it("knows a program's own lock, and one whose program nobody named", () => {
  const [wait] = lockWaits(
    locks({ programs: [], resources: [resource("job", [], [row(2, { requested: "EX", waitingMs: 5000 })], "app")] }),
    info,
    0,
  );
  expect(wait).toMatchObject({
    kind: "other",
    volume: null,
    what: "lock job",
    waiter: { node: "node2", pid: 0, program: "" },
    holders: [],
  });
});

it("leaves the election of a volume out, and reads the owner from it", () => {
  const next = resource("next", [row(2, { granted: "EX" })], [row(1, { requested: "EX", waitingMs: 100_000 })]);
  expect(lockWaits(locks({ resources: [next] }), info, 0)).toEqual([]);
  expect(volumeOwners(locks({ resources: [next] }), info)).toEqual(new Map([[uuid, 2]]));
  expect(volumeOwners(locks({ resources: [{ ...next, grantQueue: [] }] }), info)).toEqual(new Map());
});

it("says for which file lock a process waits, and whose", () => {
  const range = { nodeid: 1, clientId: 3, kind: "posix" as const, owner: "7", pid: 40, type: "write" as const, start: "0", end: "9" };
  const waiting = {
    ...range,
    nodeid: 2,
    owner: "8",
    pid: 50,
    waitingMs: 2000,
    blocker: { nodeid: 1, clientId: 3, kind: "posix" as const, owner: "7", behind: false },
  };
  const files = [{ lockspace, file: "f12.0", masterNodeid: 1, held: [range], waiting: [waiting] }];
  const processes = [{ nodeid: 1, pid: 40, program: "dd" }];
  expect(lockWaits(locks({ files, processes }), info, 1000)).toMatchObject([
    {
      kind: "file",
      volume: "data",
      what: "write on bytes 0 to 9 (file locks of inode 12)",
      waiter: { node: "node2", pid: 50, program: "" },
      holders: [{ node: "node1", pid: 40, program: "dd" }],
    },
  ]);
});

const servers: Server[] = [];
const dirs: string[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.close();
  for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true });
});

it("a dlmd and a mount that do not answer are said to be silent, at the limit", async () => {
  const dir = mkdtempSync(path.join(tmpdir(), "coverlay-look-"));
  dirs.push(dir);
  for (const name of ["dlmd.sock", "overlay-7.sock"]) {
    const server = createServer((socket) => void socket.on("error", () => undefined).resume());
    servers.push(server);
    await new Promise<void>((listening) => server.listen(path.join(dir, name), listening));
  }
  const file = { pid: process.pid, role: "remote", mountpoint: "/shared", volume: "data", device: "/dev/sdb1" };
  writeFileSync(path.join(dir, "overlay-7.json"), JSON.stringify(file));
  const { facts, seen, error } = await lookAtNode(dir, 200);
  expect([seen, error?.code, facts.cluster]).toEqual([null, "dlmd-not-answering", null]);
  expect(facts.error).toMatchObject({ code: "dlmd-not-answering", error: expect.stringContaining("within 200 ms") });
  expect(facts.mounts).toMatchObject([{ mountpoint: "/shared", problem: expect.stringContaining("no answer within 200 ms"), calls: null }]);
  expect(facts.tookMs).toBeLessThan(4000);
});

const mountFile = { pid: process.pid, role: "remote", mountpoint: "/shared", volume: "data", device: "/dev/sdb1" };

/** A mount that answers some questions. */
async function mountThatAnswers(answers: Readonly<Record<string, object>>): Promise<string> {
  const dir = mkdtempSync(path.join(tmpdir(), "coverlay-look-"));
  dirs.push(dir);
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.on("data", (data: Buffer) => {
      const { query } = JSON.parse(data.toString()) as { query: string };
      if (answers[query] !== undefined) socket.end(`${JSON.stringify(answers[query])}\n`);
    });
  });
  servers.push(server);
  await new Promise<void>((listening) => server.listen(path.join(dir, "overlay-7.sock"), listening));
  writeFileSync(path.join(dir, "overlay-7.json"), JSON.stringify(mountFile));
  return dir;
}

it("a mount that answers, and does not say which calls are under way, is said to do so", async () => {
  const dir = await mountThatAnswers({ status: mountFile });
  const { facts } = await lookAtNode(dir, 200);
  expect(facts.mounts).toMatchObject([{ problem: null, calls: null, callsProblem: expect.stringContaining("no answer within 200 ms") }]);
});

it("the longest call is that which the mount names; one of an older version has it among those that it shows", async () => {
  const call = (op: string, sinceMs: number, fileLock: object | null) => ({ op, pid: 0, key: null, sinceMs, fileLock });
  const lock = { type: "write", start: "0", end: "9" };
  const requests = {
    nodeid: 1,
    clientId: 3,
    lockspace,
    mountpoint: "/shared",
    count: 3,
    requests: [call("setlk", 90, lock), call("read", 5, null)],
  };
  const longestOf = async (said: object): Promise<unknown> => {
    const { facts } = await lookAtNode(await mountThatAnswers({ status: mountFile, requests: said }), 1000);
    return facts.mounts[0]?.calls;
  };
  expect(await longestOf({ ...requests, longest: call("write", 60, null) })).toMatchObject({
    count: 3,
    longest: { op: "write", waitingMs: 60 },
  });
  expect(await longestOf({ ...requests, longest: null })).toEqual({ count: 3, longest: null });
  expect(await longestOf(requests)).toMatchObject({ count: 3, longest: { op: "read", waitingMs: 5 } });
});

it("a process that waits in the background to mount is among the facts, if it is of that run directory", async () => {
  const dir = mkdtempSync(path.join(tmpdir(), "coverlay-look-"));
  dirs.push(dir);
  const records = path.join(dir, "records");
  mkdirSync(path.join(dir, "home"));
  const waiter = { source: "/dev/sdc1", mountPoint: path.join(dir, "home"), runDir: dir, logFile: "/var/log/x" };
  mkdirSync(records);
  claimWaiting(waiter, records, () => undefined);
  claimWaiting({ ...waiter, mountPoint: path.join(dir, "other"), runDir: "/run/other" }, records, () => undefined);
  const { facts, waiters } = await lookAtNode(dir, 200, records);
  expect(facts.waiters).toMatchObject([{ ...waiter, pid: process.pid }]);
  expect(waiters).toEqual(facts.waiters);
});
