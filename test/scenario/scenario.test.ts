/** Every file of locks/: a hazard or a rule each, named after it. */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { runScenario } from "./scenario.ts";

const folder = path.join(import.meta.dirname, "locks");
const files = readdirSync(folder).filter((file) => file.endsWith(".scenario"));

describe.each(["builtin", "corosync"] as const)("over %s", (engine) => {
  it.each(files)("%s", (file) => {
    expect(() => runScenario(readFileSync(path.join(folder, file), "utf8"), engine)).not.toThrow();
  });
});

it("a scenario that expects what does not come fails", () => {
  expect(() => runScenario("nodes 1\nclient a 1\na lock l r EX\nexpect a l granted PR")).toThrow(
    '"granted PR" expected, found "granted EX"',
  );
  expect(() => runScenario("nodes 1\nclient a 1\na lock l r EX")).toThrow("at the end: a l heard granted EX");
});
