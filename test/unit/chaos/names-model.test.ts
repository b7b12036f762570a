import { describe, expect, it } from "vitest";
import type { NameAction } from "../../chaos/history.ts";
import { linearize } from "../../chaos/linearize.ts";
import { type NameOperation, namesModel, type NamesState, newDirectory } from "../../chaos/names-model.ts";

const empty: NamesState = newDirectory(0);

type Row = readonly [action: NameAction, result: string | Readonly<Record<string, string>> | null];

/** Errors in capitals; what is seen else. */
function operation([action, result]: Row): NameOperation {
  const isError = typeof result === "string" && /^(E[A-Z]+|unknown)$/.test(result);
  return { kind: "call", action, error: isError ? result : null, value: isError ? null : result };
}

function oneAfterAnother(rows: readonly Row[]): string {
  return linearize(
    namesModel,
    empty,
    rows.map((row, at) => ({ operation: operation(row), begin: 2 * at, end: 2 * at + 1 })),
  ).kind;
}

const create = (name: string, tag: number): NameAction => ({ kind: "create", name, tag });
const mkdir = (name: string, tag: number): NameAction => ({ kind: "mkdir", name, tag });
const rename = (name: string, to: string): NameAction => ({ kind: "rename", name, to });
const link = (name: string, to: string): NameAction => ({ kind: "link", name, to });
const unlink = (name: string): NameAction => ({ kind: "unlink", name });
const rmdir = (name: string): NameAction => ({ kind: "rmdir", name });
const look = (name: string): NameAction => ({ kind: "look", name });
const list: NameAction = { kind: "list" };

describe("names", () => {
  const made: readonly Row[] = [
    [create("a", 1), null],
    [mkdir("d", 2), null],
    [link("a", "b"), null],
  ];

  it.each<[string, readonly Row[]]>([
    [
      "a file is seen with its tag and its number of names",
      [
        [look("a"), "f1*2"],
        [look("d"), "d2"],
        [list, { a: "f1*2", b: "f1*2", d: "d2" }],
      ],
    ],
    [
      "what is there cannot be made",
      [
        [create("a", 3), "EEXIST"],
        [mkdir("b", 3), "EEXIST"],
        [link("a", "d"), "EEXIST"],
      ],
    ],
    [
      "what is not there",
      [
        [look("x"), "ENOENT"],
        [unlink("x"), "ENOENT"],
        [rmdir("x"), "ENOENT"],
        [rename("x", "a"), "ENOENT"],
        [link("x", "a"), "ENOENT"],
      ],
    ],
    ["a directory has one name", [[link("d", "e"), "EPERM"]]],
    [
      "unlink and rmdir",
      [
        [unlink("d"), "EISDIR"],
        [rmdir("a"), "ENOTDIR"],
        [rmdir("d"), null],
        [unlink("b"), null],
        [list, { a: "f1*1" }],
      ],
    ],
    [
      "rename between two names of one file does nothing",
      [
        [rename("a", "b"), null],
        [list, { a: "f1*2", b: "f1*2", d: "d2" }],
      ],
    ],
    [
      "rename over another kind",
      [
        [rename("a", "d"), "EISDIR"],
        [rename("d", "a"), "ENOTDIR"],
      ],
    ],
    [
      "rename over another file",
      [
        [create("c", 4), null],
        [rename("c", "a"), null],
        [list, { a: "f4*1", b: "f1*1", d: "d2" }],
      ],
    ],
  ])("%s", (_what, rows) => {
    expect(oneAfterAnother([...made, ...rows])).toBe("linearizable");
  });

  it.each<[string, readonly Row[]]>([
    ["two winners of O_EXCL", [[create("a", 3), null]]],
    [
      "a name that was removed",
      [
        [unlink("a"), null],
        [look("a"), "f1*1"],
      ],
    ],
    ["a name that is missing", [[look("a"), "ENOENT"]]],
    ["another file than that", [[look("a"), "f7*2"]]],
    ["a wrong number of names", [[list, { a: "f1*1", b: "f1*1", d: "d2" }]]],
    ["a list without a name", [[list, { a: "f1*2", d: "d2" }]]],
    [
      "an unlink that succeeds twice",
      [
        [unlink("b"), null],
        [unlink("b"), null],
      ],
    ],
    ["an error for nothing", [[unlink("b"), "ENOENT"]]],
    [
      "a rename that succeeds twice",
      [
        [rename("a", "x"), null],
        [rename("a", "y"), null],
      ],
    ],
  ])("refused: %s", (_what, rows) => {
    expect(oneAfterAnother([...made, ...rows])).toBe("violation");
  });

  it("a file may lose names between its lookup and the look at its inode", () => {
    expect(oneAfterAnother([...made, [look("a"), "f1*0"]])).toBe("linearizable");
  });

  it("one of two programs that make a name at the same time wins", () => {
    const at = (row: Row) => ({ operation: operation(row), begin: 0, end: 1 });
    expect(linearize(namesModel, empty, [at([create("a", 1), null]), at([create("a", 2), "EEXIST"])]).kind).toBe("linearizable");
    expect(linearize(namesModel, empty, [at([create("a", 1), null]), at([create("a", 2), null])]).kind).toBe("violation");
  });
});

describe("names on a disk that loses", () => {
  const one: NamesState = { ...empty, lossesLeft: 1 };
  const lost = (rows: readonly Row[], then: readonly Row[]): string => {
    const timed = [...rows.map(operation), { kind: "lose" } as const, ...then.map(operation)];
    return linearize(
      namesModel,
      one,
      timed.map((each, at) => ({ operation: each, begin: 2 * at, end: 2 * at + 1 })),
    ).kind;
  };
  const rows: readonly Row[] = [
    [create("a", 1), null],
    [{ kind: "sync" }, null],
    [create("b", 2), null],
    [rename("a", "c"), null],
  ];

  it.each([
    [{ a: "f1*1" }, "linearizable"],
    [{ a: "f1*1", b: "f2*1" }, "linearizable"],
    [{ b: "f2*1", c: "f1*1" }, "linearizable"],
    // Half a rename, a later change without the one before, and one that was synced.
    [{ a: "f1*2", b: "f2*1", c: "f1*2" }, "violation"],
    [{ b: "f2*1" }, "violation"],
    [{ c: "f1*1" }, "violation"],
    [{}, "violation"],
  ])("afterwards %j: %s", (names, verdict) => {
    expect(lost(rows, [[list, names as Readonly<Record<string, string>>]])).toBe(verdict);
  });
});
