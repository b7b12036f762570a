/** The lists of mutations fit the sources: a rule that was rewritten is looked at again, and the tables of the README name what there is. */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, it } from "vitest";
import { allMutations } from "../sim/all-mutations.ts";
import { timesFound } from "../sim/mutation-tree.ts";
import { simulations } from "../sim/simulations.ts";

const root = path.resolve(import.meta.dirname, "../..");

it("every mutation changes exactly one place of its file", () => {
  const wrong = allMutations.flatMap((mutation) => {
    const times = timesFound(root, mutation);
    return times === 1 && mutation.find !== mutation.replace ? [] : [`${mutation.id}: found ${times} times in ${mutation.file}`];
  });
  expect(wrong).toEqual([]);
});

it("ids are unique, and what must catch a mutation exists", () => {
  const ids = allMutations.map(({ id }) => id);
  expect(ids.filter((id, at) => ids.indexOf(id) !== at)).toEqual([]);
  const missing = allMutations.filter(({ caughtBy }) => !(caughtBy in simulations) && !existsSync(path.join(root, caughtBy)));
  expect(missing.map(({ id, caughtBy }) => `${id}: ${caughtBy}`)).toEqual([]);
});

const hazards = ["C4", "C6", "C7", "C8", "H2", "H3", "H4", "H5", "H6", "H7", "H13", "H14", "M1", "M2", "M3", "M5"];

it.each(hazards)("the README says where %s is shown, and by which mutations", (hazard) => {
  const row = readFileSync(path.join(root, "dlmd/README.md"), "utf8")
    .split("\n")
    .find((line) => line.startsWith(`| ${hazard} `));
  const [shown = "", named = ""] = row?.split("|").slice(2, 4) ?? [];
  const words = (text: string): string[] => [...text.matchAll(/`([^`]+)`/g)].map((match) => match[1] ?? "");
  const files = words(shown).map((file) => path.join("test", file));
  expect(files.length).toBeGreaterThan(0);
  expect(files.filter((file) => !existsSync(path.join(root, file)))).toEqual([]);
  const naming = files.filter((file) => new RegExp(`\\b${hazard}\\b`).test(readFileSync(path.join(root, file), "utf8")));
  expect(naming).not.toEqual([]);
  const ofHazard = allMutations.filter((mutation) => mutation.hazard === hazard);
  expect(words(named).filter((id) => !ofHazard.some((mutation) => mutation.id === id))).toEqual([]);
  // Of the rules at least one is caught where the README says that it is shown; the others may need a simulation.
  const scenarios = new Set(files.map((file) => (file.endsWith(".scenario") ? "test/scenario/scenario.test.ts" : file)));
  expect(ofHazard.filter(({ caughtBy }) => scenarios.has(caughtBy)).length).toBeGreaterThan(0);
});
