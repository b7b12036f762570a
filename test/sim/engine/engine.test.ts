/** A short run of the engine's simulation; a long one: `npm run sim -- --of engine`. */
import { expect, it } from "vitest";
import { plainQuorum } from "../../../dlmd/membership/quorum.ts";
import type { QuorumOptions } from "../../../dlmd/engine/boot.ts";
import { EngineTrouble } from "./trouble.ts";

function run(seed: number, steps: number, quorum: QuorumOptions): EngineTrouble {
  const trouble = new EngineTrouble({ seed, quorum });
  const { sim } = trouble;
  try {
    trouble.run(steps);
  } catch (error) {
    throw new Error(`seed ${seed}, step ${sim.steps}, ${sim.agenda.nowMs.toFixed(2)} ms; last events:\n${sim.lastEvents()}`, {
      cause: error,
    });
  }
  return trouble;
}

/** Of all seeds together. */
let [full, slowDisks] = [0, 0];

it.each([1, 11, 21, 31, 41, 51, 61, 71])("seeds from %i: order and virtual synchrony hold in 3000 steps of trouble", (from) => {
  let delivered = 0;
  for (let seed = from; seed < from + 10; seed++) {
    const trouble = run(seed, 3000, plainQuorum);
    delivered += trouble.sim.checker.delivered;
    full += trouble.full;
    slowDisks += trouble.slowDisks;
  }
  expect(delivered).toBeGreaterThan(1000);
});

it("and in one of them at least a node had as much to send as it may, and a disk kept nothing for a while", () => {
  expect(full).toBeGreaterThan(0);
  expect(slowDisks).toBeGreaterThan(0);
});

it("last_man_standing and auto_tie_breaker: at most one quorum in 2000 steps of trouble", () => {
  const quorum: QuorumOptions = { ...plainQuorum, autoTieBreaker: "lowest", lastManStandingMs: 300 };
  let reduced = 0;
  for (let seed = 1; seed <= 15; seed++) {
    const trouble = run(seed, 2000, quorum);
    reduced += trouble.sim.checker.reduced;
  }
  expect(reduced).toBeGreaterThan(10);
});
