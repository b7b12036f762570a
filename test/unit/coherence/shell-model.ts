/**
 * A model of whole shells on several nodes, over one lock manager (shell-model-locks.ts), each under a kernel of its own (shell-model-kernel.ts): files and
 * directories are made, found, changed, moved and removed, while kernels forget, leases lapse, too much is cached, and at last a lock manager dies.
 * Everything that may happen next is a step; the seed picks which. In the end all must have ended, and no lock be left.
 */
import { Errno } from "../../../dlmd/base/errno.ts";
import { ModelLockManager } from "./shell-model-locks.ts";
import { ModelNode } from "./shell-model-node.ts";
import { ModelProgram } from "./shell-model-programs.ts";
import { ModelWorld } from "./shell-model-world.ts";
import type { KernelInode } from "./shell-model-kernel.ts";
import { fileKey } from "../../../overlay/lower/lower.ts";
import { seeded } from "./seeded.ts";

export interface ShellModelOptions {
  readonly nodes: number;
  readonly programsPerNode: number;
  readonly steps: number;
  readonly killed: number;
  /** Files are open for a while when they are made. */
  readonly opensMade?: boolean;
  /** Leases lapse. */
  readonly lapses?: boolean;
  /** CoherenceShellOptions.cachedMax */
  readonly cachedMax?: number;
  /** The lock manager of the first node dies (hazard F42). */
  readonly alone?: boolean;
}

/** Of the timers that run in the model: fake ones. */
export interface ModelClock {
  readonly now: () => number;
  readonly advance: (ms: number) => Promise<unknown>;
  readonly waiting: () => number;
}

export interface ShellModelResult {
  readonly violation: string | null;
  readonly counts: Readonly<Record<string, number>>;
}

const LONG_MS = [8, 30, 120, 700];
const LAPSE_STEPS = 60;
const REST_TRIES = 400;

const flushed = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export async function runShellModel(seed: number, options: ShellModelOptions, clock: ModelClock): Promise<ShellModelResult> {
  const random = seeded(seed);
  const world = new ModelWorld(random, clock.now, options.killed, options.opensMade === true);
  const { steps, counts } = world;
  const locks = new ModelLockManager(steps);
  for (let id = 0; id < options.nodes; id += 1) {
    world.nodes.push(new ModelNode(id, world, locks.lockspace(id), options.cachedMax ?? Number.POSITIVE_INFINITY));
  }
  const budget = { left: options.steps };
  const program = async (node: ModelNode, pid: number): Promise<void> => {
    const of = new ModelProgram(world, node, pid);
    counts.unfinished += 1;
    while (budget.left > 0 && !node.isAlone) {
      await world.turn();
      try {
        await of.run();
        counts.operations += 1;
      } catch (error) {
        if (!(error instanceof Errno)) world.note(`node ${node.id}: ${(error as Error).stack}`);
      }
    }
    counts.unfinished -= 1;
  };
  for (const node of world.nodes) {
    for (let at = 0; at < options.programsPerNode; at += 1) void program(node, 100 * (node.id + 1) + at);
  }

  const lapse = async (node: ModelNode): Promise<void> => {
    node.suspend();
    for (let more = Math.floor(random() * LAPSE_STEPS); more > 0; more -= 1) await world.turn();
    if (random() < 0.2) node.suspend();
    node.resume();
  };
  /** Another process was to go on with the mount, and did not. */
  const rest = async (node: ModelNode): Promise<void> => {
    for (let more = Math.floor(random() * 6); more > 0 && !node.isAlone; more -= 1) {
      if (!node.isSuspended && node.shell.rest.rest()) counts.rested += 1;
      for (let turns = Math.floor(random() * 10); turns > 0; turns -= 1) await world.turn();
    }
    node.shell.rest.end();
  };
  const isIdle = (): boolean => !steps.hasAny;
  const step = async (): Promise<boolean> => {
    if (world.violation !== null) return false;
    if (random() < 0.05) await clock.advance(1);
    if (random() < 0.004) await clock.advance(LONG_MS[Math.floor(random() * LONG_MS.length)] as number);
    if (!steps.take()) {
      if (clock.waiting() === 0) return false;
      await clock.advance(5);
    }
    await flushed();
    return true;
  };
  const run = async (max: number): Promise<void> => {
    for (let taken = 0; taken < max; taken += 1) if (!(await step())) return;
  };

  for (; budget.left > 0 && world.violation === null; budget.left -= 1) {
    const node = world.nodes[Math.floor(random() * options.nodes)] as ModelNode;
    if (options.lapses === true && random() < 0.002 && !node.isSuspended) void lapse(node);
    if (random() < 0.0005) void node.shell.distrustAll();
    if (random() < 0.001) void rest(node);
    await step();
  }
  const [first] = world.nodes;
  if (options.alone === true && first !== undefined && world.violation === null) {
    while (first.isSuspended) await step();
    first.isAlone = true;
    locks.cutOff(first.id);
    first.shell.beAlone();
    await rests(first);
    const shared = new Set(
      first.shell.rest.shared().map((fuseNodeid) => `i${fileKey((first.kernel.inodes.get(fuseNodeid) as KernelInode).id)}`),
    );
    counts.shared += shared.size;
    locks.releaseAll(first.id, shared);
    await run(300);
    // What it shares goes to the process that goes on, with the kernel, and that one drops it.
    first.covers.clear();
    locks.releaseAll(first.id);
  }
  await run(options.steps * 4);
  if (counts.unfinished > 0) world.note(`${counts.unfinished} programs have not ended`);

  async function rests(node: ModelNode): Promise<void> {
    let tries = 0;
    while (!node.shell.rest.rest()) {
      tries += 1;
      for (let more = 0; more < 20; more += 1) await step();
      if (world.violation !== null) return;
      if (tries > REST_TRIES) return world.note(`node ${node.id} does not rest: ${node.shell.rest.restless().join("; ")}`);
    }
    const shared = new Set(node.shell.rest.shared());
    for (const inode of node.kernel.inodes.values()) {
      if (shared.has(inode.fuseNodeid) || (inode.attr === null && inode.page === null)) continue;
      world.note(`node ${node.id} rests, and its kernel has ${inode.fuseNodeid}: ${inode.attr} ${inode.page}`);
    }
    for (const [key, { valid, epoch }] of node.kernel.dentries) {
      if (valid && epoch === node.kernel.epoch) world.note(`node ${node.id} rests, and its kernel has the name ${key}`);
    }
  }
  if (world.violation === null) {
    for (const node of world.nodes) if (!node.isAlone) await rests(node);
    for (const node of world.nodes) if (!node.isAlone) void node.shell.close();
    await run(2000);
    const held = locks.held();
    if (held.length > 0 && isIdle()) world.note(`locks are left: ${held.join(", ")}`);
  }
  const shells = world.nodes.map(({ shell }) => shell.counters);
  const sum = (of: (typeof shells)[number][keyof (typeof shells)[number]][]): number => of.reduce((a, b) => a + b, 0);
  return {
    violation: world.violation,
    counts: {
      ...counts,
      revokes: sum(shells.map(({ revokes }) => revokes)),
      rounds: sum(shells.map(({ revokeRounds }) => revokeRounds)),
      epochs: sum(shells.map(({ epochs }) => epochs)),
      evicted: sum(shells.map(({ inodesEvicted }) => inodesEvicted)),
      missing: sum(world.nodes.map(({ kernel }) => kernel.counts.missing)),
      waitedForPage: sum(world.nodes.map(({ kernel }) => kernel.counts.waitedForPage)),
    },
  };
}
