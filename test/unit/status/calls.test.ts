/** For what the calls of programs wait: of each one reason. */
import { expect, it } from "vitest";
import type { MountFacts, Wait, WaitingCall } from "../../../overlay/status/facts.ts";
import { callWords } from "../../../overlay/status/judge-calls.ts";
import { reportOf } from "../../../overlay/status/report.ts";
import { describeReport } from "../../../overlay/status/words.ts";
import { aWait, nodeWith, wellMount } from "./node.ts";

const call: WaitingCall = {
  op: "write",
  pid: 12,
  program: "cp",
  waitingMs: 3200,
  mountpoint: wellMount.mountpoint,
  mountPid: wellMount.pid,
  lockspace: aWait.lockspace,
  key: aWait.resource.slice(1),
  lockKey: aWait.resource.slice(1),
  fileLock: false,
  path: "/shared/file",
};

const lock: Wait = { ...aWait, kind: "inode" };

function reasonOf(of: Partial<WaitingCall>, mount: Partial<MountFacts>, waits: readonly Wait[] = []): string | null | undefined {
  return reportOf({ ...nodeWith({}, mount), calls: [{ ...call, ...of }], waits }).calls[0]?.waitsFor;
}

it("for the lock of its inode, which another node has", () => {
  const has = "inode lock of inode 12, which main.js (process 99) on node2 has";
  expect(reasonOf({}, {}, [lock])).toBe(has);
  // The owner comes after the lock, the lease before it.
  expect(reasonOf({}, { ownerWait: "the owner has not answered" }, [lock])).toBe(has);
  expect(reasonOf({}, { lease: "lapsed" }, [lock])).toBe("the lease of this node, which has ended");
  expect(reasonOf({}, {}, [{ ...lock, holders: [], ahead: lock.holders[0] ?? null }])).toBe(
    "inode lock of inode 12, behind the request of main.js (process 99) on node2",
  );
  expect(reasonOf({}, {}, [{ ...lock, holders: [], ahead: null }])).toBe("inode lock of inode 12, until lock service grants it");
});

it.each([
  ["another inode", { lockKey: "999.1" }],
  ["another volume", { lockspace: "another" }],
  ["any inode", { lockKey: null }],
] as const)("for no lock of %s", (_, of) => {
  expect(reasonOf(of, {}, [lock])).toBeNull();
});

it("for the lock of another inode than it is asked of: a rename", () => {
  expect(reasonOf({ op: "rename", key: "999.1" }, {}, [lock])).toContain("inode lock of inode 12");
});

it("not for a lock that another node waits for", () => {
  expect(reasonOf({}, {}, [{ ...lock, waiter: { ...lock.waiter, node: "node3" } }])).toBeNull();
});

it("a file lock is that of its process, and no lock of the inode", () => {
  const file: Wait = { ...aWait, kind: "file", what: "write lock on bytes 0 to 9", waiter: { ...aWait.waiter, pid: 12 } };
  const reason = "write lock on bytes 0 to 9, which main.js (process 99) on node2 has";
  expect(reasonOf({ fileLock: true, op: "setlk" }, {}, [lock, file])).toBe(reason);
  expect(reasonOf({ fileLock: true, op: "setlk", pid: 13 }, {}, [lock, file])).toBeNull();
});

it.each<[string, Partial<MountFacts>, string]>([
  ["no owner yet", { role: "waiting", why: "node1 is not fenced" }, "an owner: node1 is not fenced"],
  ["no owner any more", { why: "w", ownerChanges: { count: 1, last: null, withoutMs: 5 } }, "an owner: w"],
  ["a block", { groupWait: "an operator blocks it", ownerWait: "x" }, "an operator blocks it"],
  ["an owner", { ownerWait: "the owner has not answered" }, "the owner has not answered"],
  ["a disk", { disk: "has not answered for 5 s" }, "has not answered for 5 s"],
])("for %s", (_, mount, reason) => {
  expect(reasonOf({}, mount)).toBe(reason);
});

it("in words: who, since when, in what, of what, for what", () => {
  const row = { ...call, volume: "data", inode: "12", waitsFor: null };
  expect(callWords({ ...row, waitsFor: "x" })).toBe("cp (process 12) has waited 3.2 s in write of /shared/file, for x");
  expect(callWords({ ...row, path: null })).toBe("cp (process 12) has waited 3.2 s in write of inode 12 at /shared");
  expect(callWords({ ...row, path: null, inode: null })).toBe("cp (process 12) has waited 3.2 s in write of /shared");
  expect(callWords({ ...row, pid: 0 })).toMatch(/^the kernel has waited/);
  expect(callWords({ ...row, program: "" })).toMatch(/^process 12, which has ended, has waited/);
});

it("20 in the report and five in words, the longest first", () => {
  const calls = Array.from({ length: 21 }, (_, at) => ({ ...call, waitingMs: 2000 + at * 1000 }));
  const report = reportOf({ ...nodeWith({}, {}), calls });
  expect(report.calls.map(({ waitingMs }) => waitingMs / 1000)).toEqual(Array.from({ length: 20 }, (_, at) => 22 - at));
  const lines = describeReport(report).slice(3);
  expect(lines.map((line) => line.slice(0, 9))).toEqual(["calls    ", ...Array.from({ length: 5 }, () => "         ")]);
  expect(lines[0]).toContain("has waited 22");
  expect(lines.at(-1)).toBe("         and 15 more: --json; coverlay why PID");
});
