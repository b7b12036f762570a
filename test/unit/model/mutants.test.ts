/** The table of mutants fits the sources; and the sequences that must notice them are drawn alike by one seed, with looks from another mount. */
import { existsSync } from "node:fs";
import path from "node:path";
import { isDeepStrictEqual } from "node:util";
import { expect, it } from "vitest";
import { equivalents, mutants } from "../../model/mutants/table.ts";
import { drawSequence } from "../../model/spec/draw.ts";
import { drawBurst } from "../../model/spec/draw-burst.ts";
import { burstOf, pastedBurst } from "../../model/spec/paste.ts";
import { coverlayOver, KINDS } from "../../model/state.ts";
import { timesFound } from "../../sim/mutation-tree.ts";

const root = path.resolve(import.meta.dirname, "../../..");

it("every mutant changes exactly one place of its file", () => {
  const wrong = [...mutants, ...equivalents].flatMap((mutant) => {
    const times = existsSync(path.join(root, mutant.file)) ? timesFound(root, mutant) : 0;
    return times === 1 && mutant.find !== mutant.replace ? [] : [`${mutant.id}: found ${times} times in ${mutant.file}`];
  });
  expect(wrong).toEqual([]);
});

it("there are 30 at least, each with a name of its own, and 10 that take two mounts", () => {
  const ids = new Set(mutants.map(({ id }) => id));
  expect([ids.size, ids.size >= 30]).toEqual([mutants.length, true]);
  expect(mutants.filter(({ through }) => through === "both").length).toBeGreaterThanOrEqual(10);
});

it("what no program can see has its reason, and is not among those that must be caught", () => {
  const ids = new Set(mutants.map(({ id }) => id));
  expect(equivalents.filter(({ id, because }) => because === "" || ids.has(id))).toEqual([]);
});

it("a seed gives its sequence again, and with two mounts both are used", () => {
  expect(drawSequence(7, 60, 2)).toEqual(drawSequence(7, 60, 2));
  expect(new Set(drawSequence(7, 60, 2).map(({ mount }) => mount))).toEqual(new Set([0, 1]));
  expect(new Set(drawSequence(7, 60, 1).map(({ mount }) => mount))).toEqual(new Set([0]));
});

it("another mount looks in the same way before and after a call", () => {
  let calls = 0;
  let looked = 0;
  for (let seed = 1; seed <= 20; seed++) {
    const sequence = drawSequence(seed, 100, 2);
    for (const [at, { mount, call }] of sequence.entries()) {
      const before = sequence[at - 1];
      const after = sequence[at + 1];
      calls++;
      if (call.op === "stat" || call.op === "readdir" || call.op === "close") continue;
      if (before !== undefined && before.mount !== mount && isDeepStrictEqual(before, after)) looked++;
    }
  }
  expect(looked).toBeGreaterThan(calls / 100);
});

it("a burst is printed as a command that has the whole of it", () => {
  const burst = drawBurst(7, 3, 5);
  const [command, ...lines] = pastedBurst(burst, ["/n1", "/n 2"], 3, coverlayOver(KINDS.xfs)).split("\n");
  expect(command).toMatch(/^node \S+run\.js --mount \/n1 --mount '\/n 2' --kind coverlay-xfs --programs 3 --runs \d+ --burst <<'END'$/);
  expect(lines.at(-1)).toBe("END");
  expect(burstOf(lines.slice(0, -1).join("\n"))).toEqual(burst);
});
