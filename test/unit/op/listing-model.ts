/**
 * A model of directories that programs on several nodes list, and whose names they make, link, rename and remove meanwhile: the real operations and shells over a lock
 * manager (../coherence/shell-model-locks.ts), on nodes of which the first has the disk and the others the real remote lower (listing-model-lower.ts), each under
 * a kernel (listing-model-kernel.ts, listing-model-calls.ts). A listing has all names that were there all the time, once each, and none that never was. What it
 * leaves in the kernel's caches is never older than the last change of which a program on any node was told (hazards F4, F6, F48).
 */
import { seeded } from "../coherence/seeded.ts";
import { ModelLockManager } from "../coherence/shell-model-locks.ts";
import type { ModelClock } from "../coherence/shell-model.ts";
import { lowersOf } from "./listing-model-lower.ts";
import { ListingNode } from "./listing-model-node.ts";
import { ListingProgram } from "./listing-model-programs.ts";
import { ListingWorld } from "./listing-model-world.ts";
import { ModelRun } from "./model-run.ts";

export interface ListingModelOptions {
  readonly nodes: number;
  readonly programsPerNode: number;
  readonly steps: number;
  /** Share of requests whose callers are killed while these wait. */
  readonly killed?: number;
  /** Leases lapse, and owners die. */
  readonly lapses?: boolean;
}

export interface ListingModelResult {
  readonly violation: string | null;
  /** The last of what happened: of a seed that fails. */
  readonly history: string;
  readonly counts: Readonly<Record<string, number>>;
}

/** Share of changes among what the programs of a node do. */
const CHANGES = [0.02, 0.15, 0.4];
/** Directories are not fought over for ever (overlay/coherence/names/fought.ts). */
const LONG_MS = [1100, 2500, 12_000];
const LAPSE_STEPS = 60;

function fill(world: ListingWorld): void {
  const { root } = world;
  const directories = [root, world.make(null, root, "x", true).id];
  for (const directory of directories) {
    for (const name of ["a", "b", "c", "d", "e"]) if (world.random() < 0.6) world.make(null, directory, name, false);
  }
}

export async function runListingModel(seed: number, options: ListingModelOptions, clock: ModelClock): Promise<ListingModelResult> {
  const random = seeded(seed);
  const world = new ListingWorld(random);
  fill(world);
  const locks = new ModelLockManager(world.steps);
  const lowerOf = lowersOf(world, clock.now);
  const nodes = Array.from(
    { length: options.nodes },
    (_, id) => new ListingNode(id, world, locks, lowerOf, clock.now, options.killed ?? 0),
  );
  const longOften = world.pick([0.02, 0.1, 0.5]);
  const run = new ModelRun(world, clock, options.steps);
  for (const node of nodes) {
    const changes = world.pick(CHANGES);
    for (let at = 0; at < options.programsPerNode; at += 1) {
      void run.program(node.id, new ListingProgram(node, 100 * (node.id + 1) + at, changes));
    }
  }
  const lapse = async (node: ListingNode): Promise<void> => {
    if (random() < 0.4) return await node.ownerDied();
    if (node.isSuspended) return;
    node.suspend();
    for (let more = Math.floor(random() * LAPSE_STEPS); more > 0; more -= 1) await world.turn();
    node.resume();
  };
  await run.take(async () => {
    if (options.lapses === true && run.goesOn && random() < 0.002) void lapse(world.pick(nodes));
    if (random() < 0.03) await clock.advance(1);
    if (world.unsettled === 0 && random() < longOften) await clock.advance(world.pick(LONG_MS));
  });
  const sums: Record<string, number> = { ...world.counts, operations: run.operations };
  for (const { shell } of nodes) for (const [key, count] of Object.entries(shell.counters)) sums[key] = (sums[key] ?? 0) + count;
  return { violation: world.violation, history: world.log.join("\n"), counts: sums };
}
