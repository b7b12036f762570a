/** One sequence: the model foresees it, the mounts make it, both are compared. And the shortest part of one that still differs. */
import { exceptionsOf } from "../exceptions.ts";
import { type Outcome, step } from "../file-system.ts";
import { emptyState, type State, USERS } from "../state.ts";
import type { Machine } from "../world.ts";
import { Comparison } from "./compare.ts";
import type { Executor, Made } from "./executor.ts";

export const UMASK = 0o022;

export interface Foreseen {
  readonly made: Made;
  readonly outcome: Outcome;
  readonly after: State;
}

export interface Difference {
  /** Up to the call that differs, which is the last one; of the end: all. */
  readonly calls: readonly Foreseen[];
  readonly why: string;
  /** It is the tree in the end that differs, or that the directory cannot be removed. */
  readonly inEnd: boolean;
}

/** How often what was reached. */
export interface Tally {
  calls: number;
  readonly operations: Map<string, number>;
  readonly rules: Map<string, number>;
  readonly exceptions: Map<string, number>;
}

export const newTally = (): Tally => ({ calls: 0, operations: new Map(), rules: new Map(), exceptions: new Map() });
const count = (in_: Map<string, number>, key: string): void => void in_.set(key, (in_.get(key) ?? 0) + 1);

/** What the model says; without the calls of which it says nothing, and those of a stated exception. */
export function foresee(sequence: readonly Made[], machine: Machine, tally: Tally): Foreseen[] {
  const exceptions = exceptionsOf(machine.kind);
  const foreseen: Foreseen[] = [];
  let state = emptyState();
  for (const made of sequence) {
    const user = USERS[made.user];
    if (user === undefined) throw new Error(`no user ${made.user}`);
    const next = step(state, made.call, { user, mount: made.mount, umask: UMASK, call: foreseen.length }, machine);
    if (next === null) continue;
    const before = state;
    const exception = exceptions.find(({ applies }) => applies(made.call, made.user, made.mount, before, next.reached));
    if (exception !== undefined) {
      count(tally.exceptions, exception.id);
      continue;
    }
    foreseen.push({ made, outcome: next.outcome, after: next.state });
    state = next.state;
    tally.calls++;
    count(tally.operations, made.call.op);
    for (const { id } of next.reached) count(tally.rules, id);
  }
  return foreseen;
}

export interface Place {
  readonly executor: Executor;
  /** Where its mount has the directory of all sequences. */
  readonly dir: string;
}

let sequences = 0;

/** Makes it, in a new directory. Null: no difference. */
export async function tryCalls(calls: readonly Foreseen[], places: readonly Place[], machine: Machine): Promise<Difference | null> {
  const { result, left } = await inNewDirectory(places, () => compareCalls(calls, places, new Comparison(machine.kind)));
  if (result !== null || left === null) return result;
  return { calls, why: `in the end: its directory cannot be removed (${left}), as rm -r of what the command leaves may show`, inEnd: true };
}

interface InDirectory<T> {
  readonly result: T;
  /** Why the directory is still there; null: it is not. */
  readonly left: string | null;
}

/** All executors are in it meanwhile. */
export async function inNewDirectory<T>(places: readonly Place[], work: () => Promise<T>): Promise<InDirectory<T>> {
  const name = `s${++sequences}`;
  for (const [at, { executor, dir }] of places.entries()) await executor.begin(`${dir}/${name}`, at === 0, UMASK);
  let left: string | null = null;
  let result: T;
  try {
    result = await work();
  } finally {
    for (const { executor } of places) await executor.leave();
    left = await removeOne(places, name);
  }
  return { result, left };
}

/** Where a listing leaves names out, each executor knows those that it has used. */
async function removeOne(places: readonly Place[], name: string): Promise<string | null> {
  let left: string | null = null;
  for (const { executor, dir } of places) {
    const why = await executor.remove(`${dir}/${name}`);
    if (why === null || (left !== null && why === "ENOENT")) return null;
    left = why;
  }
  return left;
}

/** Makes them one after the other, in a directory that is there. `mounts`: so many of the places have one of their own, and are looked at. */
export async function compareCalls(
  calls: readonly Foreseen[],
  places: readonly Place[],
  comparison: Comparison,
  mounts: number = places.length,
): Promise<Difference | null> {
  for (let from = 0; from < calls.length; ) {
    const mount = calls[from]?.made.mount ?? 0;
    let to = from;
    while (to < calls.length && calls[to]?.made.mount === mount) to++;
    const part = calls.slice(from, to);
    const answers = await executorOf(places, mount).calls(part.map(({ made }) => made));
    for (const [at, { made, outcome, after }] of part.entries()) {
      const answer = answers[at];
      if (answer === undefined) throw new Error("the executor answered too few calls");
      comparison.timed(from + at, answer);
      const why = comparison.answer(made.call.op, outcome, answer, after);
      if (why !== null) return { calls: calls.slice(0, from + at + 1), why, inEnd: false };
    }
    from = to;
  }
  const last = calls.at(-1)?.after ?? emptyState();
  for (const [mount, { executor }] of places.slice(0, mounts).entries()) {
    const why = comparison.tree(last, await executor.tree(), mount > 0);
    if (why !== null) return { calls, why: `in the end, through mount ${mount + 1}: ${why}`, inEnd: true };
  }
  return null;
}

function executorOf(places: readonly Place[], mount: number): Executor {
  const executor = places[mount]?.executor;
  if (executor === undefined) throw new Error(`no mount ${mount}`);
  return executor;
}

/** Fewer calls that still differ, in whatever way (delta debugging: Zeller and Hildebrandt, 2002). */
export async function shrink(
  difference: Difference,
  places: readonly Place[],
  machine: Machine,
  maxTries: number,
  stopped: () => boolean,
): Promise<Difference> {
  let best = difference;
  let tries = 0;
  for (let size = Math.ceil(best.calls.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let from = best.calls.length - size; from >= 0 && tries < maxTries && !stopped(); from -= size) {
      const left = best.calls.toSpliced(from, size).map(({ made }) => made);
      if (left.length === 0) continue;
      tries++;
      const found = await tryCalls(foresee(left, machine, newTally()), places, machine);
      if (found === null) continue;
      best = found;
      from = Math.min(from, best.calls.length);
    }
  }
  return best;
}
