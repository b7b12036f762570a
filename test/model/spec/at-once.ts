/** Runs of bursts: several programs at once, on one mount or on several, until enough were tried or one has no order that the model allows. */
import { checkHistory, type History, type HistoryVerdict, type RecordedCall } from "../at-once/check.ts";
import { emptyState, USERS } from "../state.ts";
import type { Machine } from "../world.ts";
import { Comparison } from "./compare.ts";
import { type Burst, drawBurst } from "./draw-burst.ts";
import type { Made, TimedAnswer } from "./executor.ts";
import { pastedBurst } from "./paste.ts";
import { compareCalls, foresee, inNewDirectory, newTally, type Place, UMASK } from "./sequence.ts";
import { kindOf, MAX_SHRINK_TRIES, sorted, type SpecOptions, thisKernel } from "./spec.ts";
import { leftBehind, withPlaces } from "./workplace.ts";

/** Until all programs have their calls, and wait for the moment. */
const LEAD_NS = 3_000_000;
/** A race may not come back at once. */
const TRIES_OF_A_PART = 12;

/** `ops`: calls of each program in a burst; a burst is what a sequence is there. */
export interface AtOnceOptions extends SpecOptions {
  /** They take the mounts in turn. */
  readonly programs: number;
  /** This one each time, and none that a seed draws. */
  readonly burst?: Burst | null;
}

export interface AtOnceReport {
  readonly kind: string;
  readonly leftBehind: readonly string[];
  readonly notRemoved: string | null;
  readonly programs: number;
  readonly bursts: number;
  readonly calls: number;
  /** Calls beside which another one was under way. */
  readonly callsBesideOthers: number;
  readonly operations: Readonly<Record<string, number>>;
  /** Of not-atomic.ts: bursts that have an order only with it. */
  readonly needed: Readonly<Record<string, number>>;
  readonly undecided: number;
  readonly violation: {
    readonly seed: number;
    readonly why: string;
    /** As it was found, and the shortest part that was seen to fail again; null: none was. */
    readonly found: string;
    readonly again: string | null;
    /** Makes the shortest one again and again, until it fails. */
    readonly commands: string;
  } | null;
}

/** The part of a burst that is made. */
interface Failure {
  readonly burst: Burst;
  readonly why: string;
  readonly words: string;
}

interface Tried {
  readonly verdict: HistoryVerdict;
  readonly history: History;
}

export async function runAtOnce(options: AtOnceOptions): Promise<AtOnceReport> {
  const { mounts, programs } = options;
  const [first] = mounts;
  if (first === undefined) throw new Error("no mount");
  const machine = { kernel: thisKernel(), kind: options.kind ?? kindOf(first) };
  const left = mounts.flatMap((mount) => leftBehind(mount));
  const stopped = options.stopped ?? ((): boolean => false);
  const end = options.seconds === null ? Number.POSITIVE_INFINITY : Date.now() + options.seconds * 1000;
  const counts = { bursts: 0, calls: 0, callsBesideOthers: 0, undecided: 0 };
  const operations = new Map<string, number>();
  const needed = new Map<string, number>();
  let violation: AtOnceReport["violation"] = null;
  const ofPrograms = Array.from({ length: programs }, (_, at) => mounts[at % mounts.length] ?? first);
  const notRemoved = await withPlaces(ofPrograms, async (places) => {
    while (counts.bursts < options.runs && Date.now() < end && !stopped() && violation === null) {
      options.progress?.(counts.bursts, counts.calls);
      const seed = options.seed + counts.bursts++;
      const burst = options.burst ?? drawBurst(seed, programs, options.ops);
      const { verdict, history } = await makeBurst(burst, places, mounts.length, machine);
      counts.calls += history.calls.length;
      counts.callsBesideOthers += history.calls.filter((one) => isBesideAnother(one, history)).length;
      for (const { drawn } of history.calls) count(operations, drawn.call.op);
      if (verdict.kind === "undecided") counts.undecided++;
      if (verdict.kind === "linearizable") for (const id of verdict.needed) count(needed, id);
      if (verdict.kind !== "violation") continue;
      const found = { burst, why: reason(verdict, history), words: historyInWords(history) };
      const again = await shrink(found, places, mounts.length, machine, options.shrinkTries ?? MAX_SHRINK_TRIES, stopped);
      const commands = pastedBurst((again ?? found).burst, mounts, programs, machine.kind);
      violation = { seed, why: found.why, found: found.words, again: again === null ? null : `${again.why}\n${again.words}`, commands };
    }
  });
  return {
    kind: machine.kind.name,
    leftBehind: left,
    notRemoved,
    programs,
    ...counts,
    operations: sorted(operations),
    needed: sorted(needed),
    violation,
  };
}

const count = (counts: Map<string, number>, key: string): void => void counts.set(key, (counts.get(key) ?? 0) + 1);

function isBesideAnother({ answer }: RecordedCall, { calls }: History): boolean {
  return calls.some(({ answer: other }) => other !== answer && other.begin <= answer.end && other.end >= answer.begin);
}

async function makeBurst(burst: Burst, places: readonly Place[], mounts: number, machine: Machine): Promise<Tried> {
  const { result } = await inNewDirectory(places, async () => {
    const comparison = new Comparison(machine.kind);
    const first = foresee(burst.first, machine, newTally());
    const difference = await compareCalls(first, places, comparison, mounts);
    if (difference !== null) throw new Error(`before the burst, where nothing is at once: ${difference.why}`);
    const calls = await makeAtOnce(burst.calls, places);
    for (const [no, { answer }] of calls.entries()) comparison.timed(first.length + no, answer);
    const trees = [];
    for (const [mount, { executor }] of places.slice(0, mounts).entries()) trees.push({ mount, entries: await executor.tree() });
    const before = first.at(-1)?.after ?? emptyState();
    const history: History = { machine, umask: UMASK, before, calls, trees, comparison, firstCall: first.length };
    return { history, verdict: checkHistory(history) };
  });
  return result;
}

async function makeAtOnce(drawn: readonly Made[], places: readonly Place[]): Promise<RecordedCall[]> {
  const at = Number(process.hrtime.bigint()) + LEAD_NS;
  const answered = await Promise.all(
    places.map(async ({ executor }, program): Promise<RecordedCall[]> => {
      const own = drawn.filter(({ mount }) => mount === program);
      const answers = await executor.callsAtOnce(own, at);
      return own.map((one, no) => ({ drawn: one, answer: answers[no] as TimedAnswer }));
    }),
  );
  return answered.flat();
}

/** Fewer programs and calls of which one try fails again. Null: not even all of them did. */
async function shrink(
  found: Failure,
  places: readonly Place[],
  mounts: number,
  machine: Machine,
  maxTries: number,
  stopped: () => boolean,
): Promise<Failure | null> {
  let tries = 0;
  const again = async (burst: Burst): Promise<Failure | null> => {
    for (let time = 0; time < TRIES_OF_A_PART && tries < maxTries && !stopped(); time++) {
      tries++;
      const { verdict, history } = await makeBurst(burst, places, mounts, machine);
      if (verdict.kind === "violation") return { burst, why: reason(verdict, history), words: historyInWords(history) };
    }
    return null;
  };
  const whole = await again(found.burst);
  if (whole === null) return null;
  let best: Failure = whole;
  for (let program = places.length - 1; program >= 0; program--) {
    const { first, calls }: Burst = best.burst;
    best = (await again({ first, calls: calls.filter(({ mount }) => mount !== program) })) ?? best;
  }
  for (let at = best.burst.calls.length - 1; at >= 0; at--) {
    best = (await again({ first: best.burst.first, calls: best.burst.calls.toSpliced(at, 1) })) ?? best;
  }
  return best;
}

function reason(verdict: HistoryVerdict & { kind: "violation" }, { calls }: History): string {
  const call = verdict.at === "tree" ? undefined : calls[verdict.at];
  const what = call === undefined ? "what is there in the end" : `call ${(verdict.at as number) + 1} of the list, ${callInWords(call)},`;
  return `no order of the calls explains ${what}: ${verdict.why.join(" | ")}`;
}

const callInWords = ({ drawn: { mount, user, call } }: RecordedCall): string =>
  `program ${mount + 1} as ${USERS[user]?.name}: ${call.op} ${JSON.stringify(call.args)}`;

/** A line for each call, in the order of their beginnings, in microseconds from the first one. */
export function historyInWords({ calls }: History): string {
  const start = Math.min(...calls.map(({ answer }) => answer.begin));
  const us = (ns: number): string => ((ns - start) / 1000).toFixed(1).padStart(9);
  return calls
    .map((call, no) => ({ call, no }))
    .toSorted((a, b) => a.call.answer.begin - b.call.answer.begin)
    .map(({ call, no }) => {
      const { begin, end, errno, value } = call.answer;
      const shown = errno ?? (value === null || value === undefined ? "done" : JSON.stringify(value));
      return `${us(begin)} ..${us(end)} us  ${String(no + 1).padStart(2)}  ${callInWords(call)} -> ${shown}`;
    })
    .join("\n");
}
