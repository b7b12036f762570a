/** File locks as people are shown them: who has what, who waits for what and for whom, and how long an answer may be. */
import { expect, it } from "vitest";
import type { InspectRequest } from "../../../dlmd/client/api.ts";
import { describeFiles, describeProcesses, type FilesSeen } from "../../../dlmd/plock/describe.ts";
import { maxOffset } from "../../../dlmd/wire/plock-range.ts";
import { LoneService } from "./lone-service.ts";

const all: InspectRequest = { lockspace: "", resource: "", nodeid: 0, waitingMs: null };
const range = (start: number, end: number) => ({ start: BigInt(start), end: BigInt(end) });
const posix = (owner: number, pid: number) => ({ op: "lock" as const, ownerKind: "posix" as const, owner: BigInt(owner), pid });

function service(): LoneService {
  const lone = new LoneService();
  lone.ask({ file: "a", wait: false, type: "write", ...range(0, 9), ...posix(1, 41) });
  lone.time.nowMs = 50;
  lone.ask({ file: "a", wait: false, type: "read", start: 20n, end: maxOffset, ...posix(1, 41) });
  lone.ask({ file: "a", wait: true, type: "write", ...range(5, 30), ...posix(2, 42) });
  lone.ask({ file: "a", wait: true, type: "write", ...range(10, 15), ...posix(3, 43) });
  lone.ask({ file: "b", wait: false, type: "write", start: 0n, end: 0n, ...posix(1, 41), ownerKind: "flock" });
  return lone;
}

function see(lone: LoneService, wanted: Partial<InspectRequest> = {}, rows = 100, nowMs = 700): FilesSeen {
  return describeFiles(lone.service.master, 1, { ...all, ...wanted }, { rows, lookedAt: 100 }, nowMs);
}

it("who has what and since when, who waits since when, for a holder or behind somebody", () => {
  const { files, truncated } = see(service(), { resource: "a" });
  const by = { nodeid: 1, clientId: 1, kind: "posix" };
  const second = { ...by, owner: "2", pid: 42, type: "write", start: "5", end: "30" };
  const third = { ...by, owner: "3", pid: 43, type: "write", start: "10", end: "15" };
  expect(truncated).toBe(false);
  expect(files).toEqual([
    {
      lockspace: "test",
      file: "a",
      masterNodeid: 1,
      held: [
        { ...by, owner: "1", pid: 41, type: "write", start: "0", end: "9", heldMs: 700 },
        { ...by, owner: "1", pid: 41, type: "read", start: "20", end: null, heldMs: 650 },
      ],
      waiting: [
        { ...second, waitingMs: 650, blocker: { ...by, owner: "1", behind: false } },
        { ...third, waitingMs: 650, blocker: { ...by, owner: "2", behind: true } },
      ],
    },
  ]);
});

it("only what was asked for: a lockspace, a node, those that wait", () => {
  const lone = service();
  const names = (wanted: Parameters<typeof see>[1]): string[] => see(lone, wanted).files.map(({ file }) => file);
  expect(names({})).toEqual(["a", "b"]);
  expect(names({ lockspace: "other" })).toEqual([]);
  expect(names({ nodeid: 2 })).toEqual([]);
  expect(names({ waitingMs: 600 })).toEqual(["a"]);
  expect(names({ waitingMs: 800 })).toEqual([]);
});

it("an answer that would be too long says so", () => {
  const lone = service();
  expect(see(lone, {}, 1)).toMatchObject({ truncated: true, files: [{ held: [], waiting: [{ pid: 42 }] }] });
  expect(see(lone, {}, 4).truncated).toBe(true);
  expect(describeFiles(lone.service.master, 1, all, { rows: 100, lookedAt: 1 }, 0)).toMatchObject({
    truncated: true,
    files: [{ file: "a" }],
  });
});

it("each process with locks or requests is named once, with its program; so many of them", () => {
  const { home } = service().service;
  const programs = new Map([
    [41, "sqlite3"],
    [42, "python3"],
  ]);
  const programOf = (pid: number): string => programs.get(pid) ?? "";
  expect(describeProcesses(home.pids("", ""), programOf)).toEqual([
    { pid: 41, program: "sqlite3" },
    { pid: 42, program: "python3" },
    { pid: 43, program: "" },
  ]);
  expect(describeProcesses(home.pids("test", "b"), programOf)).toEqual([{ pid: 41, program: "sqlite3" }]);
  expect(describeProcesses(home.pids("other", ""), programOf)).toEqual([]);
  const many = Array.from({ length: 501 }, (_, pid) => pid);
  expect(describeProcesses(many, programOf)).toHaveLength(500);
});
