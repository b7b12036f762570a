/** The checker refuses histories that are wrong: mutants of one that is right. */
import { describe, expect, it } from "vitest";
import { checkCycle, type CycleHistory } from "../../chaos/check.ts";
import type { Action, Call } from "../../chaos/history.ts";

const never = Number.POSITIVE_INFINITY;

interface Made extends Partial<Call> {
  readonly object: string;
  readonly action: Action;
}

/** One call after the other, by two clients in turn. */
function calls(...made: readonly Made[]): Call[] {
  return made.map((call, at) => ({
    client: `client${at % 2}`,
    nodeid: 1 + (at % 2),
    index: at,
    begin: 10 * at,
    end: 10 * at + 5,
    error: null,
    value: null,
    ...call,
  }));
}

function violations(history: readonly Call[], change: Partial<CycleHistory> = {}): readonly string[] {
  return checkCycle({ calls: history, loss: null, losses: 0, outOf: new Map(), mayFail: () => false, ...change }).violations;
}

const write = (value: number): Made => ({ object: "r0", action: { kind: "write", value } });
const read = (value: unknown): Made => ({ object: "r0", action: { kind: "read" }, value });
const append = (record: string): Made => ({ object: "a0", action: { kind: "append", record } });
const readAll = (...records: string[]): Made => ({ object: "a0", action: { kind: "readAll" }, value: records });
const sync = (object: string): Made => ({ object, action: { kind: "sync" } });
const lock = (shared = false): Made => ({ object: "l0", action: { kind: "lock", shared } });
const unlock: Made = { object: "l0", action: { kind: "unlock" } };

describe("registers", () => {
  it("a history that is right", () => expect(violations(calls(write(1), read(1), write(2), read(2)))).toEqual([]));

  it("a stale read", () =>
    expect(violations(calls(write(1), write(2), read(1)))).toEqual([expect.stringMatching(/^r0: no order explains .*"value":1/)]));

  it("a torn record", () => expect(violations(calls(write(1), read("torn")))).toEqual([expect.stringMatching(/^r0: a record is torn/)]));

  it("a synced write that is lost when the owner dies; one that was not may be", () => {
    const loss = { begin: 25, end: 28 };
    expect(violations(calls(write(1), sync("r0"), write(2), read(0)), { loss, losses: 1 })).toHaveLength(1);
    expect(violations(calls(write(1), sync("r0"), write(2), read(1)), { loss, losses: 1 })).toEqual([]);
    expect(violations(calls(write(1), sync("r0"), write(2), read(1)))).toHaveLength(1);
  });
});

describe("names", () => {
  describe("a link whose first name moves meanwhile, as on any file system", () => {
    const make = (name: string, tag: number): Made => ({ object: "n0", action: { kind: "create", name, tag } });
    const rename = (name: string, to: string, begin = 20, end = 30): Made => ({
      object: "n0",
      action: { kind: "rename", name, to },
      begin,
      end,
    });
    const link = (error: string | null, begin: number, end: number): Made => ({
      object: "n0",
      action: { kind: "link", name: "b", to: "c" },
      error,
      begin,
      end,
    });
    it("misses the file whose only name is taken", () => {
      expect(violations(calls(make("a", 1), make("b", 2), rename("a", "b"), link("ENOENT", 25, 35)))).toEqual([]);
      expect(violations(calls(make("a", 1), make("b", 2), rename("a", "b"), link("ENOENT", 31, 35)))).toHaveLength(1);
      expect(violations(calls(make("a", 1), make("b", 2), rename("a", "b", 40, 45), link("ENOENT", 25, 35)))).toHaveLength(1);
    });
    it("finds the other name taken by the very file", () => {
      expect(violations(calls(make("a", 1), make("b", 2), rename("b", "c"), link("EEXIST", 25, 35)))).toEqual([]);
      expect(violations(calls(make("a", 1), make("b", 2), rename("b", "c"), link("EEXIST", 31, 35)))).toHaveLength(1);
      expect(violations(calls(make("a", 1), make("b", 2), rename("a", "d"), link("EEXIST", 25, 35)))).toHaveLength(1);
    });
    it("gives the other name, when that is free at last, to the file that had the first one", () => {
      const remove = (name: string): Made => ({ object: "n0", action: { kind: "unlink", name }, begin: 31, end: 32 });
      const seen = (value: unknown): Made => ({ object: "n0", action: { kind: "list" }, value, begin: 40, end: 41 });
      const history = (made: Made, value: unknown): Call[] =>
        calls(make("b", 1), make("c", 2), rename("b", "d", 21, 30), remove("c"), made, seen(value));
      expect(violations(history(link(null, 20, 35), { c: "f1*2", d: "f1*2" }))).toEqual([]);
      expect(violations(history(link("EIO", 20, 35), { c: "f1*2", d: "f1*2" }), { mayFail: () => true })).toEqual([]);
      expect(violations(history(link(null, 20, 35), { c: "f2*1", d: "f1*1" }))).toHaveLength(1);
      // It began when the name had moved.
      expect(violations(history(link(null, 31, 35), { c: "f1*2", d: "f1*2" }))).toHaveLength(1);
      // It ended before the other name was free.
      expect(violations(history(link(null, 20, 30), { c: "f1*2", d: "f1*2" }))).toHaveLength(1);
    });
    it("gives no name to a file that has lost its last one", () => {
      const remove: Made = { object: "n0", action: { kind: "unlink", name: "b" }, begin: 21, end: 30 };
      const history = (end: number): Call[] => calls(make("b", 1), make("a", 2), remove, link(null, 20, end));
      expect(violations(history(35))).toEqual([]);
      const seen: Made = { object: "n0", action: { kind: "list" }, value: { a: "f2*1", c: "f1*1" }, begin: 32, end: 33 };
      const other: Made = { object: "n0", action: { kind: "look", name: "c" }, error: "ENOENT", begin: 31, end: 31.5 };
      expect(violations(calls(make("b", 1), make("a", 2), remove, other, seen, link(null, 20, 35)))).toHaveLength(1);
    });
  });

  it("two winners of O_EXCL", () => {
    const made = (tag: number): Made => ({ object: "n0", action: { kind: "create", name: "a", tag } });
    expect(violations(calls(made(1), { ...made(2), error: "EEXIST" }))).toEqual([]);
    expect(violations(calls(made(1), made(2)))).toEqual([expect.stringMatching(/^n0: no order explains/)]);
  });
});

describe("appends", () => {
  it.each<[string, Made[], RegExp]>([
    ["a lost append", [append("1"), append("2"), readAll("1")], /2 is missing/],
    ["an append that is there twice", [append("1"), readAll("1", "1")], /1 is there twice/],
    ["a record that was never appended", [append("1"), readAll("1", "3")], /3, was never appended/],
    [
      "a record of an append that failed",
      [{ ...append("1"), error: "ENOSPC" }, readAll("1")],
      /1, was never appended, or its append failed/,
    ],
    ["a torn record", [append("1"), readAll("torn")], /record 0 is torn/],
    ["a record from the future", [readAll("1"), append("1")], /before its append had begun/],
    ["appends in another order than their calls", [append("1"), append("2"), readAll("2", "1")], /1 comes after 2/],
    ["a shorter list than before", [{ ...append("1"), end: 100 }, readAll("1"), readAll()], /0 records, but .* had 1 before/],
    [
      "two lists that differ",
      [{ ...append("1"), end: 100 }, { ...append("2"), end: 100 }, readAll("1", "2"), readAll("2", "1")],
      /record 0 is 1, but 2 in/,
    ],
    ["zeros in a census", [append("1"), { ...readAll(""), client: "census1" }], /1 is missing/],
  ])("%s", (_what, made, words) => {
    expect(violations(calls(...made)).filter((what) => words.test(what))).not.toEqual([]);
  });

  it("a history that is right; zeros behind the old end, once, are an exception", () => {
    expect(violations(calls(append("1"), readAll("1"), append("2"), readAll("1", ""), readAll("1", "2")))).toEqual([]);
  });

  it("an append without an answer may be there or not", () => {
    const unanswered: Made = { ...append("2"), end: never };
    const mayFail = (): boolean => true;
    expect(violations(calls(append("1"), unanswered, readAll("1")), { mayFail })).toEqual([]);
    expect(violations(calls(append("1"), unanswered, readAll("1", "2")), { mayFail })).toEqual([]);
  });

  it("what was synced is there after the owner's death; the rest may be gone, or zeros, and nothing moves", () => {
    const loss = { begin: 46, end: 48 };
    const history = (...records: string[]): readonly string[] =>
      violations(calls(append("1"), append("2"), sync("a0"), append("3"), readAll("1", "2", "3"), readAll(...records)), {
        loss,
        losses: 1,
      });
    for (const kept of [
      ["1", "2"],
      ["1", "2", "3"],
      ["1", "2", ""],
    ])
      expect(history(...kept)).toEqual([]);
    expect(history("1")).toEqual([expect.stringMatching(/2 is missing, which was synced/)]);
    expect(history("1", "", "3")).toContainEqual(expect.stringMatching(/2 is missing, which was synced/));
    expect(history("1", "2", "", "3")).toEqual([expect.stringMatching(/3 is no longer at place 2/)]);
  });
});

describe("locks", () => {
  const holds = (first: Partial<Call>, second: Partial<Call>, third: Partial<Call> = {}, shared = false): Call[] =>
    calls({ ...lock(shared), ...first }, { ...lock(shared), ...second }, { ...unlock, ...third }, unlock);

  it("two holders", () => {
    expect(violations(holds({}, {}))).toEqual([expect.stringMatching(/^l0: client0 and client1 both held the lock/)]);
    expect(violations(holds({}, { begin: 21, end: 30 }))).toEqual([]);
    expect(violations(holds({}, {}, {}, true))).toEqual([]);
  });

  it("a program that has ended holds nothing", () => expect(violations(calls(lock(), lock()))).toEqual([]));

  it("a node that is dead holds nothing", () => {
    expect(violations(holds({}, {}), { outOf: new Map([[1, 7]]) })).toEqual([]);
    expect(violations(holds({}, {}), { outOf: new Map([[1, 17]]) })).toHaveLength(1);
  });
});

describe("errors", () => {
  it("one that no fault explains, and one that is no error of a failure", () => {
    expect(violations(calls({ ...write(1), error: "EIO" }))).toEqual([expect.stringMatching(/an error that nothing explains: .*EIO/)]);
    expect(violations(calls({ ...write(1), error: "EIO" }), { mayFail: () => true })).toEqual([]);
    expect(violations(calls({ ...write(1), error: "ENOSPC" }), { mayFail: () => true })).toHaveLength(1);
    expect(violations(calls({ ...write(1), end: never }))).toHaveLength(1);
  });
});
