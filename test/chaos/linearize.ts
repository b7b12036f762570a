/**
 * Is there an order of the calls in which each has the result that it had, and which keeps the order of calls that did not overlap (Herlihy and
 * Wing 1990)? Found by following the history and keeping every state that is possible so far: the search of Wing and Gong (1993), in the
 * form that Lowe calls "just in time" (Testing for linearizability, 2017). Pure.
 */

export interface Timed<Operation> {
  readonly operation: Operation;
  readonly begin: number;
  /** Infinity: nobody knows whether it has an effect; it may have one at any later time, or never. */
  readonly end: number;
}

/** What one object does. States and operations are not changed. */
export interface Model<State, Operation> {
  /** The same text for the same state. */
  key(state: State): string;
  /** The states that it may leave; none: it cannot have that result in this state. */
  step(state: State, operation: Operation): readonly State[];
}

export type Verdict<Operation> =
  | { readonly kind: "linearizable" }
  /** No order gives that operation its result; the states are those that were possible before it ended. */
  | { readonly kind: "violation"; readonly operation: Timed<Operation>; readonly states: readonly string[] }
  | { readonly kind: "undecided"; readonly why: string };

/** At the end of one operation; with more the history stays undecided. */
export const MAX_CONFIGURATIONS = 100_000;
/** Operations that have begun and not ended: a bit for each. */
export const MAX_OPEN_OPERATIONS = 30;
/** Of a violation. */
const MAX_STATES_SHOWN = 5;

interface Configuration<State> {
  readonly state: State;
  /** Bits of the open operations that have had their effect. */
  readonly done: number;
}

interface Event {
  readonly at: number;
  readonly isEnd: boolean;
  readonly index: number;
}

/** Begins before ends, so that what may overlap does. */
function eventsOf(history: readonly Timed<unknown>[]): Event[] {
  const events = history.flatMap(({ begin, end }, index): Event[] => {
    const begins = { at: begin, isEnd: false, index };
    return end === Number.POSITIVE_INFINITY ? [begins] : [begins, { at: end, isEnd: true, index }];
  });
  return events.toSorted((a, b) => a.at - b.at || Number(a.isEnd) - Number(b.isEnd) || a.index - b.index);
}

export function linearize<State, Operation>(
  model: Model<State, Operation>,
  initial: State,
  history: readonly Timed<Operation>[],
  maxConfigurations: number = MAX_CONFIGURATIONS,
): Verdict<Operation> {
  const open = new Map<number, { readonly bit: number; readonly operation: Operation }>();
  let configurations: Configuration<State>[] = [{ state: initial, done: 0 }];
  let freeBits = Array.from({ length: MAX_OPEN_OPERATIONS }, (_, at) => 1 << at);
  for (const { isEnd, index } of eventsOf(history)) {
    const timed = history[index] as Timed<Operation>;
    if (!isEnd) {
      const [bit, ...others] = freeBits;
      if (bit === undefined) return { kind: "undecided", why: `more than ${MAX_OPEN_OPERATIONS} operations are open at ${timed.begin}` };
      freeBits = others;
      open.set(index, { bit, operation: timed.operation });
      continue;
    }
    const bit = open.get(index)?.bit ?? 0;
    const next = afterEnd(model, configurations, [...open.values()], bit, maxConfigurations);
    if (next === null) return { kind: "undecided", why: `more than ${maxConfigurations} configurations at ${timed.end}` };
    if (next.length === 0) {
      const states = new Set(configurations.map(({ state }) => model.key(state)));
      return { kind: "violation", operation: timed, states: [...states].slice(0, MAX_STATES_SHOWN) };
    }
    configurations = next;
    open.delete(index);
    freeBits = [...freeBits, bit];
  }
  return { kind: "linearizable" };
}

/** All that is possible once the operation of that bit has had its effect; null: too much. */
function afterEnd<State, Operation>(
  model: Model<State, Operation>,
  before: readonly Configuration<State>[],
  open: readonly { readonly bit: number; readonly operation: Operation }[],
  ended: number,
  maxConfigurations: number,
): Configuration<State>[] | null {
  const seen = new Set<string>();
  const found: Configuration<State>[] = [];
  const stack: Configuration<State>[] = [];
  const visit = (state: State, done: number): void => {
    const isOver = (done & ended) !== 0;
    const configuration = { state, done: isOver ? done & ~ended : done };
    const key = `${isOver ? "" : "+"}${configuration.done} ${model.key(state)}`;
    if (seen.has(key)) return;
    seen.add(key);
    (isOver ? found : stack).push(configuration);
  };
  for (const { state, done } of before) visit(state, done);
  for (let at = stack.pop(); at !== undefined; at = stack.pop()) {
    for (const { bit, operation } of open) {
      if ((at.done & bit) !== 0) continue;
      for (const state of model.step(at.state, operation)) visit(state, at.done | bit);
    }
    if (seen.size > maxConfigurations) return null;
  }
  return found;
}
