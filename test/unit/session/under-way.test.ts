/** Requests that wait, as they are shown. */
import { expect, it } from "vitest";
import type { Operation } from "../../../overlay/op/perform.ts";
import { MAX_UNDER_WAY_SHOWN, RequestsUnderWay } from "../../../overlay/session/under-way.ts";

const request = (op: string, pid: number, more: object = {}): Operation => ({ op, pid, ...more }) as unknown as Operation;

it("shows the oldest first, with what a lock request asks for, until they are answered or over", () => {
  let now = 100;
  const underWay = new RequestsUnderWay(() => now);
  const call = { answered: false, lockKey: "13.7" };
  const over = underWay.begin(call, request("lookup", 41), { key: "12.7" });
  now = 150;
  const locks = { answered: false, lockKey: null };
  underWay.begin(locks, request("setlk", 42, { type: "write", start: 0n, end: 9n }), null);
  expect(underWay.list()).toEqual({
    count: 2,
    requests: [
      { op: "lookup", pid: 41, key: "12.7", lockKey: "13.7", sinceMs: 50, fileLock: null },
      { op: "setlk", pid: 42, key: null, lockKey: null, sinceMs: 0, fileLock: { type: "write", start: "0", end: "9" } },
    ],
    longest: { op: "lookup", pid: 41, key: "12.7", lockKey: "13.7", sinceMs: 50, fileLock: null },
  });
  underWay.begin(locks, request("setlk", 43), null);
  expect(underWay.byOperation()).toEqual({ lookup: 1, setlk: 2 });
  over();
  expect(underWay.list().count).toBe(2);
  expect(underWay.byOperation()).toEqual({ setlk: 2 });
  locks.answered = true;
  expect(underWay.byOperation()).toEqual({});
  expect(underWay.list()).toEqual({ count: 0, requests: [], longest: null });
});

it("shows so many, and counts all", () => {
  const underWay = new RequestsUnderWay(() => 0);
  for (let at = 0; at <= MAX_UNDER_WAY_SHOWN; at++) underWay.begin({ answered: false, lockKey: null }, request("read", at), null);
  const { requests, count } = underWay.list();
  expect([requests.length, count]).toEqual([MAX_UNDER_WAY_SHOWN, MAX_UNDER_WAY_SHOWN + 1]);
});

it("shows the oldest that waits for no file lock, however many do", () => {
  let now = 0;
  const underWay = new RequestsUnderWay(() => now);
  const lock = { type: "write", start: 0n, end: 9n };
  for (let at = 0; at <= MAX_UNDER_WAY_SHOWN; at++) underWay.begin({ answered: false, lockKey: null }, request("setlk", at, lock), null);
  expect(underWay.list().longest).toBeNull();
  underWay.begin({ answered: true, lockKey: null }, request("read", 40), null);
  underWay.begin({ answered: false, lockKey: null }, request("write", 41), { key: "12.7" });
  now = 60;
  underWay.begin({ answered: false, lockKey: null }, request("read", 42), null);
  const { requests, longest } = underWay.list();
  expect(requests.some(({ op }) => op === "write")).toBe(false);
  expect(longest).toEqual({ op: "write", pid: 41, key: "12.7", lockKey: null, sinceMs: 60, fileLock: null });
});

it("ends those that ask for a file lock, and wait, as if their callers were killed (hazard F42)", () => {
  const underWay = new RequestsUnderWay(() => 0);
  const ended: string[] = [];
  const call = (name: string, answered = false) => ({ answered, lockKey: null, onInterrupt: (): void => void ended.push(name) });
  const setlk = request("setlk", 1, { type: "write", start: 0n, end: 9n });
  underWay.begin(call("lock"), setlk, null);
  underWay.begin(call("answered", true), setlk, null);
  underWay.begin({ answered: false, lockKey: null, onInterrupt: null }, setlk, null);
  underWay.begin(call("read"), request("read", 1), null);
  underWay.endFileLocks();
  underWay.endFileLocks();
  expect(ended).toEqual(["lock"]);
});
