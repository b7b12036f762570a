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

const flushed = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export async function runEndsModel(seed: number, options: EndsModelOptions, clock: ModelClock): Promise<EndsModelResult> {
  const random = seeded(seed);
  const world = new EndsWorld(random);
  const locks = new ModelLockManager(world.steps);
  const nodes = Array.from({ length: options.nodes }, (_, id) => new EndsNode(id, world, locks, clock.now, options.killed ?? 0));
  const budget = { left: options.steps };
  const program = async (node: EndsNode, pid: number): Promise<void> => {
    const of = new EndsProgram(node, pid, options);
    world.counts.unfinished += 1;
    while (budget.left > 0) {
      await world.turn();
      try {
        await of.run();
        world.counts.operations += 1;
      } catch (error) {
        world.note(`node ${node.id}: ${(error as Error).stack}`);
      }
    }
    world.counts.unfinished -= 1;
  };
  for (const node of nodes) for (let at = 0; at < options.programsPerNode; at += 1) void program(node, 100 * (node.id + 1) + at);
  const lapse = async (node: EndsNode): Promise<void> => {
    if (random() < 0.4) return await node.shell.distrustAll();
    node.shell.suspend();
    for (let more = Math.floor(random() * 60); more > 0; more -= 1) await world.turn();
    node.shell.resume(random() < 0.5);
  };
  let idle = 0;
  for (let taken = 0; taken < options.steps * 8 && world.violation === null; taken += 1) {
    budget.left -= 1;
    if (options.lapses === true && budget.left > 0 && random() < 0.002) void lapse(nodes[Math.floor(random() * nodes.length)] as EndsNode);
    if (random() < 0.03) await clock.advance(1);
    if (random() < 0.001) await clock.advance(30);
    if (world.steps.take()) idle = 0;
    else {
      if (world.counts.unfinished === 0) break;
      idle += 1;
      // Longer than any wait.
      if (idle > 2000) break;
      await clock.advance(5);
    }
    await flushed();
  }
  if (world.counts.unfinished > 0) world.note(`${world.counts.unfinished} programs have not ended`);
  const sums: Record<string, number> = { ...world.counts };
  for (const { shell, kernel } of nodes) {
    for (const [key, count] of Object.entries({ ...kernel.counts, ...shell.counters })) sums[key] = (sums[key] ?? 0) + count;
  }
  return { violation: world.violation, history: world.log.join("\n"), counts: sums };
}
