/**
 * Each timer and limit of the product stands in overlay/LIMITS.md or dlmd/LIMITS.md, with its value and the test that goes past it. A limit that nobody
 * has gone past is how a healthy mount was ended after 60 s.
 */
import { existsSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { evaluate, keeperLimits, limitsOf, root, rowsOf } from "./limits.ts";

const nameOf = (row: { readonly file: string; readonly name: string }): string => `${row.file} ${row.name}`;

it("of the keeper are found: timers, numbers, and one that stands for another", () => {
  const found = keeperLimits().map(({ name, value }) => `${name}: ${value}`);
  expect(found).toEqual(expect.arrayContaining(["kStallMs: 5 ms", "kFinishMs: 10 s", "kChildrenMax: 256", "kNumberMax: 2,147,483,647"]));
});

describe("constants", () => {
  it("are reckoned", () => {
    const meaning = (name: string): string => ({ A: "8 * B", B: "2 ** 10" })[name] ?? "";
    expect(evaluate("A + 192 * 1_024", meaning)).toBe(8 * 1024 + 192 * 1024);
    expect(evaluate("(1 + 2) * 3 - 4", meaning)).toBe(5);
    expect(() => evaluate("C", meaning)).toThrow('"C"');
  });
});

describe.each([
  { folder: "overlay", limits: [...limitsOf("overlay"), ...keeperLimits()] },
  { folder: "dlmd", limits: limitsOf("dlmd") },
])("timers and limits of $folder", ({ folder, limits }) => {
  const rows = rowsOf(`${folder}/LIMITS.md`);

  it("are found", () => {
    expect(limits.length).toBeGreaterThan(80);
  });

  it("stand in its LIMITS.md, each once, in the order of files, with the value of today", () => {
    const wanted = limits.map((limit) => `${nameOf(limit)}: ${limit.value}`);
    expect(rows.map((row) => `${nameOf(row)}: ${row.value}`)).toEqual(wanted);
  });

  it("name a test that is there, and say what happens", () => {
    const missing = rows.filter((row) => row.test === "" || !existsSync(path.join(root, "test", row.test)));
    expect(missing.map(nameOf)).toEqual([]);
    expect(rows.filter((row) => row.what === "").map(nameOf)).toEqual([]);
  });
});
