/**
 * Hazard C8: the configuration changes in each of its parts beside locks, cut links and nodes that are down, and nodes forget what they kept of it. A
 * longer run: COVERLAY_SIM_SEEDS, COVERLAY_SIM_STEPS.
 */
import { expect, it } from "vitest";
import { Cluster } from "./cluster.ts";
import { noFaultOptions } from "./faults.ts";
import { runCluster } from "./simulations.ts";
import { scriptOf } from "./trouble.ts";

const seeds = Number(process.env["COVERLAY_SIM_SEEDS"] ?? 24);
const steps = Number(process.env["COVERLAY_SIM_STEPS"] ?? 6000);
/** Programs that do little and nodes that stay off for seconds: a change takes a view that lasts. */
const slow = 8;
const rates = { crash: 0.8, leave: 0.1, forget: 0.4, cut: 0.6, heal: 0.5, hang: 0.3, pause: 0.3, "slow-disk": 0.2, break: 0.3 };
const faults = { ...noFaultOptions, rates };

const beside = ["locks were held", "links were cut", "a node was down"];
const wanted = [
  ...["votes", "nodes", "addresses", "volumes"].flatMap((kind) => beside.map((words) => `changes of ${kind} while ${words}`)),
  // Every node must be there when it is proposed.
  ...beside.slice(0, 2).map((words) => `changes of quorum while ${words}`),
  "configurations that were forgotten",
  "nodes with a file of their own",
];
/** Of all seeds together. */
const happened = new Map<string, number>();

it.each(Array.from({ length: seeds }, (_, at) => at + 1))(
  "seed %i: never two quorums, no lock granted to two, and service in the end, whatever changes of the configuration",
  (seed) => {
    const script = { ...scriptOf(seed, 3 + (seed % 2), faults), changes: true, fenced: false, rough: true, slow };
    const { failure, counts } = runCluster(new Cluster(script, faults), steps);
    if (failure !== null) throw new Error(`step ${failure.step}: ${failure.words}; last events:\n${failure.lastEvents}`);
    expect(counts["grants"]).toBeGreaterThan(0);
    for (const [name, count] of Object.entries(counts)) happened.set(name, (happened.get(name) ?? 0) + count);
  },
);

it("and each of it did change, beside each of these, in one of them at least", () => {
  expect(wanted.filter((name) => (happened.get(name) ?? 0) === 0)).toEqual([]);
});
