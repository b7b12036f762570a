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
import type { NodeFacts } from "../../../overlay/status/facts.ts";
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
    ahead: null,
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
    ahead: null,
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
  const files = [{ lockspace, file: "f12.0", masterNodeid: 1, held: [{ ...range, heldMs: 5000 }], waiting: [waiting] }];
  const processes = [{ nodeid: 1, pid: 40, program: "dd" }];
  expect(lockWaits(locks({ files, processes }), info, 1000)).toMatchObject([
    {
      kind: "file",
      volume: "data",
      what: "write on bytes 0 to 9 (file locks of inode 12)",
      waiter: { node: "node2", pid: 50, program: "" },
      holders: [{ node: "node1", pid: 40, program: "dd" }],
      ahead: null,
    },
  ]);
});

it("one that is ahead in line is no holder: of a lock, and of a file lock", () => {
  const queue = [row(1, { requested: "EX", waitingMs: 3000 }), row(2, { requested: "PR", waitingMs: 1000 })];
  const job = resource("job", [row(9, { granted: "PR" })], queue, "app");
  const [main, app] = [
    { node: "node1", pid: 11, program: "main.js" },
    { node: "node2", pid: 22, program: "app" },
  ];
  const unknown = { node: "9", pid: 0, program: "" };
  expect(lockWaits(locks({ resources: [job] }), info, 0)).toMatchObject([
    { waiter: main, holders: [unknown], ahead: null },
    { waiter: app, holders: [], ahead: main },
  ]);
  const range = { nodeid: 1, clientId: 3, kind: "posix" as const, type: "read" as const, start: "0", end: "9" };
  const by = (owner: number, behind: boolean) => ({ nodeid: 1, clientId: 3, kind: "posix" as const, owner: String(owner), behind });
  const held = [
    { ...range, owner: "7", pid: 40, heldMs: 5000 },
    { ...range, owner: "8", pid: 41, kind: "flock" as const, heldMs: 5000 },
    { ...range, owner: "9", pid: 44, start: "10", end: null, heldMs: null },
  ];
  const waiting = [
    { ...range, owner: "8", pid: 41, type: "write" as const, waitingMs: 2000, blocker: by(7, false) },
    { ...range, owner: "9", pid: 42, waitingMs: 1000, blocker: by(8, true) },
    { ...range, owner: "10", pid: 43, type: "write" as const, waitingMs: 500, blocker: by(9, true) },
  ];
  const process = (pid: number) => ({ node: "node1", pid, program: "" });
  // The reader has nobody's lock in its way; the writer behind it has one, too.
  expect(lockWaits(locks({ files: [{ lockspace, file: "f12.0", masterNodeid: 1, held, waiting }] }), info, 0)).toMatchObject([
    { waiter: process(41), holders: [process(40)], ahead: null },
    { waiter: process(42), holders: [], ahead: process(41) },
    { waiter: process(43), holders: [process(40)], ahead: process(42) },
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

it("calls that have waited for a second are among the facts, 20 of one mount, the oldest first", async () => {
  const call = (op: string, sinceMs: number) => ({ op, pid: 0, key: "12.7", sinceMs, fileLock: null });
  const copy = { ...call("copyFileRange", 1000), lockKey: "13.7" };
  const many = Array.from({ length: 21 }, (_, at) => call("write", 5000 - at));
  const requests = { nodeid: 1, clientId: 3, lockspace, mountpoint: "/shared", count: 23, longest: null };
  const callsOf = async (...calls: object[]): Promise<NodeFacts["calls"]> => {
    const dir = await mountThatAnswers({ status: mountFile, requests: { ...requests, requests: calls } });
    return (await lookAtNode(dir, 10_000)).facts.calls;
  };
  expect(await callsOf(call("read", 1000), call("getattr", 999))).toEqual([
    {
      op: "read",
      pid: 0,
      program: "",
      waitingMs: 1000,
      mountpoint: "/shared",
      mountPid: process.pid,
      lockspace,
      key: "12.7",
      lockKey: "12.7",
      fileLock: false,
      path: null,
    },
  ]);
  expect(await callsOf(copy)).toMatchObject([{ key: "12.7", lockKey: "13.7" }]);
  expect(await callsOf({ ...copy, lockKey: null })).toMatchObject([{ lockKey: null }]);
  expect((await callsOf(...many)).map(({ waitingMs }) => waitingMs)).toEqual(many.slice(0, 20).map(({ sinceMs }) => sinceMs));
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
