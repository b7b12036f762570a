/**
 * The pages of hazards and the code lead to each other: each number that sources or tests cite has one section, and a section names files
 * that cite the number, tests of which one cites it, and exactly the mutations of the number.
 */
import { describe, expect, it } from "vitest";
import { allMutations } from "../sim/all-mutations.ts";
import { filesBelow, missingOf, read } from "./paths.ts";

const PAGES = ["overlay/HAZARDS.md", "dlmd/HAZARDS.md"];
const NUMBER = /\b[FCHMR]\d{1,2}\b/g;
const SOURCE = /\.(ts|mjs|cc|h|c|py|scenario|yaml)$/;

interface Hazard {
  readonly number: string;
  readonly page: string;
  /** Empty where there is nothing to do here. */
  readonly where: readonly string[];
  readonly nothingToDo: boolean;
  readonly tests: readonly string[];
  readonly mutations: readonly string[];
}

function hazardsOf(page: string): Hazard[] {
  return read(page)
    .split(/^## /m)
    .slice(1)
    .map((section) => {
      const point = (name: string): string =>
        section
          .split("\n* ")
          .find((part) => part.startsWith(`${name}: `))
          ?.slice(name.length + 2) ?? "";
      const words = (name: string): string[] => [...point(name).matchAll(/`([^`]+)`/g)].map(([, word]) => word ?? "");
      return {
        number: section.slice(0, section.indexOf(":")),
        page,
        where: words("Where"),
        nothingToDo: point("Where").startsWith("nothing to do here: "),
        tests: words("Tests"),
        mutations: words("Mutations"),
      };
    });
}

const hazards = PAGES.flatMap(hazardsOf);
const cites = (file: string, number: string): boolean => new RegExp(`\\b${number}\\b`).test(read(file));

it("every number that sources or tests cite has one section, and no other has one", () => {
  const cited = new Set(
    ["overlay", "dlmd", "native", "examples", "test"]
      .flatMap(filesBelow)
      .filter((file) => SOURCE.test(file) && file !== "test/tidy/hazards.test.ts")
      .flatMap((file) => read(file).match(NUMBER) ?? []),
  );
  expect(hazards.map(({ number }) => number).toSorted()).toEqual([...cited].toSorted());
});

/** Of replay, which is not built: nothing cites them yet. */
const replayRules = new Set([1, 2, 3, 4, 9, 10, 14, 15, 16]);

it("each rule of failover, R1 to R18, has a mutation, but for those of replay", () => {
  const rules = Array.from({ length: 18 }, (_, at) => at + 1).filter((rule) => !replayRules.has(rule));
  const without = rules.filter((rule) => !allMutations.some(({ hazard }) => hazard === `R${rule}`));
  expect(without.map((rule) => `R${rule}`)).toEqual([]);
});

describe.each(hazards)("$number, in $page", ({ number, where, nothingToDo, tests, mutations }) => {
  it("names files that are there and cite it", () => {
    expect(where.length > 0).toBe(!nothingToDo);
    expect(missingOf(where)).toEqual([]);
    expect(where.filter((file) => !cites(file, number))).toEqual([]);
  });

  it("names tests that are there, one of which cites it", () => {
    expect(missingOf(tests)).toEqual([]);
    expect(tests.filter((file) => cites(file, number))).not.toEqual([]);
  });

  it("names its mutations, and the tests that catch them", () => {
    const own = allMutations.filter((mutation) => mutation.hazard === number);
    expect(mutations.toSorted()).toEqual(own.map(({ id }) => id).toSorted());
    const caught = new Set(tests.map((file) => (file.endsWith(".scenario") ? "test/scenario/scenario.test.ts" : file)));
    // A simulation is no file: it looks for many things at once.
    const elsewhere = own.filter(({ caughtBy }) => caughtBy.startsWith("test/") && !caught.has(caughtBy));
    expect(elsewhere.map(({ id, caughtBy }) => `${id}: ${caughtBy}`)).toEqual([]);
  });
});
