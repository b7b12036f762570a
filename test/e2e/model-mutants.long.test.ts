/** The specification sees a few mutants of the overlay, each by a seed that is known; `npm run spec:mutants` tries all of them. */
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { MutantLab } from "../model/mutants/mutant-lab.ts";
import { mutants } from "../model/mutants/table.ts";
import { tryMutant, tryWhole } from "../model/mutants/try.ts";
import { run } from "../../overlay/lab/command.ts";

let lab: MutantLab;
beforeAll(() => {
  lab = new MutantLab(path.resolve(import.meta.dirname, "../.."));
});
afterAll(() => lab.end());

const REPLAY_MS = 60_000;
/** Several hundred, at most. */
const BURSTS_MS = 300_000;

it("with every rule in place there is no difference", async () => {
  expect(await tryWhole(lab, 1, 0)).toBeNull();
});

it.each(["umask-forgotten", "stale-attributes", "stale-exchanged-names"])("%s is seen, and the printed command shows it", async (id) => {
  const mutant = mutants.find((one) => one.id === id);
  if (mutant === undefined) throw new Error(`no mutant ${id}`);
  const { found } = await tryMutant(lab, mutant, { alsoAlone: false });
  expect(found).not.toBeNull();
  const { commands } = found ?? { commands: "" };
  await lab.use(mutant);
  const pasted = await run("sh", ["-c", commands], { timeoutMs: REPLAY_MS });
  expect([pasted.status, pasted.stdout.includes("DIFFERS")]).toEqual([1, true]);
});

it("removes-what-came-later is seen in a burst, and the printed command shows it again", async () => {
  const mutant = mutants.find(({ id }) => id === "removes-what-came-later");
  if (mutant === undefined) throw new Error("no such mutant");
  const { found } = await tryMutant(lab, mutant, { alsoAlone: false });
  expect(found).not.toBeNull();
  const { commands } = found ?? { commands: "" };
  await lab.use(mutant);
  const pasted = await run("sh", ["-c", commands], { timeoutMs: BURSTS_MS });
  expect([pasted.status, pasted.stdout.includes("a burst without an order")]).toEqual([1, true]);
});
