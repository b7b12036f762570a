/**
 * A model of one file that programs on several nodes append to, write, cut, read, splice, stat and seek in (hazard F5): the real operations and shells, over a lock
 * manager (../coherence/shell-model-locks.ts), each under a kernel (ends-model-kernel.ts, ends-model-reads.ts, ends-model-writes.ts). What a program is shown must
 * have been in the file at some moment while it looked, or be on its way there.
 */
import { seeded } from "../coherence/seeded.ts";
import { ModelLockManager } from "../coherence/shell-model-locks.ts";
import type { ModelClock } from "../coherence/shell-model.ts";
import { EndsNode } from "./ends-model-node.ts";
import { EndsProgram, type ProgramOptions } from "./ends-model-programs.ts";
import { EndsWorld } from "./ends-model-world.ts";
import { ModelRun } from "./model-run.ts";

export interface EndsModelOptions extends ProgramOptions {
  readonly nodes: number;
  readonly programsPerNode: number;
  readonly steps: number;
  /** Share of requests whose callers are killed while these wait. */
  readonly killed?: number;
  /** Leases lapse, and what was read counts no more. */
  readonly lapses?: boolean;
}

export interface EndsModelResult {
  readonly violation: string | null;
  /** The last of what happened: of a seed that fails. */
  readonly history: string;
  readonly counts: Readonly<Record<string, number>>;
}

export async function runEndsModel(seed: number, options: EndsModelOptions, clock: ModelClock): Promise<EndsModelResult> {
  const random = seeded(seed);
  const world = new EndsWorld(random);
  const locks = new ModelLockManager(world.steps);
  const nodes = Array.from({ length: options.nodes }, (_, id) => new EndsNode(id, world, locks, clock.now, options.killed ?? 0));
  const run = new ModelRun(world, clock, options.steps);
  for (const node of nodes) {
    for (let at = 0; at < options.programsPerNode; at += 1)
      void run.program(node.id, new EndsProgram(node, 100 * (node.id + 1) + at, options));
  }
  const lapse = async (node: EndsNode): Promise<void> => {
    if (random() < 0.4) return await node.shell.distrustAll();
    node.shell.suspend();
    for (let more = Math.floor(random() * 60); more > 0; more -= 1) await world.turn();
    node.shell.resume(random() < 0.5);
  };
  await run.take(async () => {
    if (options.lapses === true && run.goesOn && random() < 0.002) void lapse(nodes[Math.floor(random() * nodes.length)] as EndsNode);
    if (random() < 0.03) await clock.advance(1);
    if (random() < 0.001) await clock.advance(30);
  });
  const sums: Record<string, number> = { ...world.counts, operations: run.operations };
  for (const { shell, kernel } of nodes) {
    for (const [key, count] of Object.entries({ ...kernel.counts, ...shell.counters })) sums[key] = (sums[key] ?? 0) + count;
  }
  return { violation: world.violation, history: world.log.join("\n"), counts: sums };
}
