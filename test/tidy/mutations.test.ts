/** The lists of mutations fit the sources: a rule that was rewritten is looked at again. */
import { existsSync } from "node:fs";
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

const overlayMutations = allMutations.filter(({ file }) => file.startsWith("overlay/"));

it("each room of the overlay with rules has its mutations", () => {
  const rooms = ["coherence", "op", "lower", "lease", "volume"];
  const empty = rooms.filter((room) => !overlayMutations.some(({ file }) => file.startsWith(`overlay/${room}/`)));
  expect([empty, overlayMutations.length >= 60]).toEqual([[], true]);
});
