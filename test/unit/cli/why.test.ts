/** `coverlay why` of locks that a volume's mounts keep on purpose: what they are, never that a program hangs. */
import { describe, expect, it } from "vitest";
import { decodeClusterLocks } from "../../../overlay/query/cluster-locks.ts";
import { callsBefore } from "../../../overlay/cli/why-process.ts";
import { describeWhy } from "../../../overlay/cli/why-words.ts";

const volume = "vol-6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11";
const HOUR_MS = 3_600_000;

const lock = (nodeid: number, granted: string | null, requested: string | null, change = {}): object => ({
  nodeid,
  clientId: 5,
  lockId: null,
  granted,
  requested,
  waitingMs: requested === null ? null : HOUR_MS,
  orphan: false,
  asked: null,
  askedMs: null,
  mayKeep: false,
  ...change,
});

function why(name: string, queues: object): string[] {
  const resource = {
    lockspace: volume,
    resource: name,
    masterNodeid: 2,
    lvb: null,
    grantQueue: [],
    convertQueue: [],
    waitQueue: [],
    ...queues,
  };
  const clients = [{ clientId: 5, pid: 99, program: "/usr/bin/node" }];
  const answer = {
    serving: true,
    state: "running",
    resources: [resource],
    files: [],
    clients,
    processes: [],
    lockspaces: [],
    truncated: false,
  };
  return describeWhy(decodeClusterLocks({ nodes: [{ nodeid: 2, answer }] }), (nodeid) => `node${nodeid}`).split("\n");
}

const asked = { asked: "EX", askedMs: HOUR_MS };

describe("why, of the locks by which a volume finds its owner", () => {
  it("says that `next` is the line of heirs, and the place of each in it", () => {
    expect(why("next", { grantQueue: [lock(1, "EX", null, asked)], waitQueue: [lock(2, null, "EX"), lock(3, null, "EX")] })).toEqual([
      `${volume} next  the line of heirs to the volume's owner, master node2`,
      "  node1/client 5 is the owner, or is becoming it: it keeps the head of the line for as long as it is mounted",
      "  node2/client 5 (pid 99, node) is the next heir: it waits in line until the owner goes, for as long as it is mounted, since 3600.0 s",
      "  node3/client 5 is heir number 2: it waits in line until the owner goes, for as long as it is mounted, since 3600.0 s",
    ]);
  });

  it("says of `owner` and `mounter.N` which node does what", () => {
    expect(why("owner", { grantQueue: [lock(1, "PW", null, asked), lock(2, "CR", null), lock(3, "NL", null)] }).slice(1)).toEqual([
      "  node1/client 5 is the owner, or is becoming it: it writes the owner's record",
      "  node2/client 5 (pid 99, node) reads the owner's record: it goes through the owner",
    ]);
    expect(why("mounter.3", { grantQueue: [lock(3, "EX", null, asked)], waitQueue: [lock(1, null, "EX")] }).slice(1)).toEqual([
      "  node3/client 5 has the volume mounted and reaches its device",
      "  node1/client 5 asks whether node 3 has it mounted, since 3600.0 s",
    ]);
  });
});

it.each([
  [59_999, false],
  [60_000, true],
])("why says that a program hangs after HANGS_MS without an answer: %i ms, %s", (askedMs, hangs) => {
  const lines = why("w:12:7", { grantQueue: [lock(1, "PW", null, { asked: "EX", askedMs })], waitQueue: [lock(2, null, "PW")] });
  expect(lines[1]?.includes("so the program hangs")).toBe(hangs);
});

describe("why, of a lock that may be kept", () => {
  it("does not say that its program hangs", () => {
    const queues = (mayKeep: object): object => ({
      grantQueue: [lock(1, "PW", null, { ...asked, ...mayKeep })],
      waitQueue: [lock(2, null, "PW")],
    });
    const kept = why("w:12:7", queues({ mayKeep: true }));
    expect(kept[1]).toBe(
      "  node1/client 5 has PW; EX was asked for 3600.0 s ago, and it may keep what it has: it gives it up when it is done",
    );
    expect(kept.join("\n")).not.toContain("hangs");
    expect(why("w:12:7", queues({ mayKeep: false }))[1]).toMatch(/so the program hangs/);
    expect(why("w:12:7", queues({}))[1]).toMatch(/so the program hangs/);
  });
});

describe("why, of a lookup that does not come back", () => {
  const call = (pid: number, mountpoint: string, sinceMs: number): Parameters<typeof callsBefore>[0]["calls"][number] => ({
    op: "mkdir",
    pid,
    key: "12.3",
    sinceMs,
    fileLock: null,
    lockspace: volume,
    mountpoint,
  });
  const calls = [
    ...[3, 9, 7, 1, 5, 6].map((ms) => call(ms, "/shared/inner", ms)),
    call(77, "/shared", 100),
    call(78, "/shared/inn", 100),
    call(79, "/other", 100),
  ];
  const before = (path: string, waiting: typeof calls = []): unknown =>
    callsBefore({ pid: 50, waiting, calls }, path, () => true)?.map(({ pid }) => pid) ?? null;

  it("names the calls of that mount that have waited longest, five at most, if it sleeps in the kernel and asks for nothing", () => {
    expect(before("/shared/inner/dir/file")).toEqual([9, 7, 6, 5, 3]);
    expect(before("/shared/inner")).toEqual([9, 7, 6, 5, 3]);
    expect(before("/shared/file")).toEqual([77]);
  });

  it("names none if it asks its mount for something, or does not sleep", () => {
    expect(before("/shared/file", calls)).toBeNull();
    expect(callsBefore({ pid: 50, waiting: [], calls }, "/shared/file", () => false)).toBeNull();
  });
});
