/**
 * The simulation of the engine from the command line: SEEDS (how many, or "from-to"), STEPS of each, NODES (0: as the seed says), WINDOW
 * (last_man_standing with that window, ms) and BREAKER (auto_tie_breaker lowest or highest). Prints
 * seed, step and the last events of the first that fails, and exits 1.
 */
import { plainQuorum, type QuorumOptions } from "../../../dlmd/membership/quorum.ts";
import { EngineTrouble } from "./trouble.ts";

const [from, to] = seedRange(process.env["SEEDS"] ?? "100");
const steps = Number(process.env["STEPS"] ?? 20_000);
const nodes = Number(process.env["NODES"] ?? 0);
const windowMs = process.env["WINDOW"];
const breaker = process.env["BREAKER"];
const quorum: QuorumOptions = {
  ...plainQuorum,
  lastManStandingMs: windowMs === undefined ? null : Number(windowMs),
  autoTieBreaker: breaker === "lowest" || breaker === "highest" ? breaker : "none",
};
let delivered = 0;
let views = 0;
let datagrams = 0;
for (let seed = from; seed <= to; seed++) {
  const trouble = new EngineTrouble({ seed, steps, nodes, quorum });
  const { sim } = trouble;
  try {
    trouble.run(steps);
  } catch (error) {
    console.log(sim.lastEvents());
    console.log(
      `seed ${seed}, step ${sim.steps}, ${sim.agenda.nowMs.toFixed(2)} ms: ${error instanceof Error ? error.stack : String(error)}`,
    );
    process.exit(1);
  }
  delivered += sim.checker.delivered;
  views += sim.checker.views;
  datagrams += sim.datagrams;
}
console.log(
  `${to - from + 1} seeds of ${steps} steps: ${delivered} messages delivered, ${views} installations of quorate views, ${datagrams} datagrams, nothing wrong`,
);

function seedRange(text: string): [number, number] {
  const range = /^(\d+)-(\d+)$/.exec(text);
  return range === null ? [1, Number(text)] : [Number(range[1]), Number(range[2])];
}
