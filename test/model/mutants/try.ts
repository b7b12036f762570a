/** Runs of the specification against mutants of the overlay, and against the whole overlay with the same seeds. */
import { run } from "../../../overlay/lab/command.ts";
import { coverlayOver, KINDS } from "../state.ts";
import { runAtOnce } from "../spec/at-once.ts";
import { runSpec } from "../spec/spec.ts";
import type { MutantLab } from "./mutant-lab.ts";
import type { Mutant } from "./table.ts";

/** Calls of a sequence. */
const OPS = 150;
/** Sequences, at most. */
export const RUNS = 300;
/** Those through each mount alone, of a mutant that needs both. */
const RUNS_ALONE = 4;
const SHRINK_TRIES = 80;
/** The first seed. */
const SEED = 1;
const BURST_OPS = 6;
const BURSTS = 300;
const PROGRAMS = 4;
/** A sequence that was printed, made again. */
const REPLAY_MS = 60_000;

export interface Found {
  readonly seed: number;
  readonly why: string;
  /** Of a burst: its calls with their times and answers. */
  readonly history: string | null;
  /** The shortest sequence, or burst, as a command. */
  readonly commands: string;
}

export interface Tried {
  readonly mutant: Mutant;
  /** Null: no difference, so the mutant survived. */
  readonly found: Found | null;
  /** Of one that needs both mounts: what was found through one alone; null: nothing, as it should be. */
  readonly alone: Found | null;
  /** Differences that the same command shows with every rule in place: not the mutant's, but the overlay's or the model's own. */
  readonly ofTheWhole: readonly Found[];
  readonly calls: number;
}

export interface TryOptions {
  /** Sequences at most; RUNS if not given. */
  readonly runs?: number;
  readonly stopped?: () => boolean;
  /** Each mutant with `through: "both"` is also tried through each mount alone. */
  readonly alsoAlone: boolean;
}

const kind = coverlayOver(KINDS.ext4);

function mountsOf(lab: MutantLab, { through }: Pick<Mutant, "through">): string[] {
  const nodeids = through === "both" ? [1, 2] : [through === "node 1" ? 1 : 2];
  return nodeids.map((nodeid) => lab.mount(nodeid));
}

interface Seeds {
  readonly first: number;
  readonly runs: number;
}

async function inTurn(
  mounts: readonly string[],
  { first, runs }: Seeds,
  stopped?: () => boolean,
): Promise<{ found: Found | null; calls: number }> {
  const report = await runSpec({
    mounts,
    ops: OPS,
    runs,
    seed: first,
    seconds: null,
    kind,
    shrinkTries: SHRINK_TRIES,
    ...(stopped && { stopped }),
  });
  const { difference, calls } = report;
  return { found: difference === null ? null : { ...difference, history: null }, calls };
}

/** The first difference that goes when the rule is in place again. The mutant is in use before. */
async function inTurnOf(
  lab: MutantLab,
  mutant: Mutant,
  mounts: readonly string[],
  runs: number,
  stopped?: () => boolean,
): Promise<Pick<Tried, "found" | "ofTheWhole" | "calls">> {
  const ofTheWhole: Found[] = [];
  let calls = 0;
  for (let first = SEED; first < SEED + runs; ) {
    const tried = await inTurn(mounts, { first, runs: SEED + runs - first }, stopped);
    calls += tried.calls;
    if (tried.found === null) break;
    await lab.use(null);
    const again = await run("sh", ["-c", tried.found.commands], { timeoutMs: REPLAY_MS });
    if (again.status === 0) return { found: tried.found, ofTheWhole, calls };
    ofTheWhole.push(tried.found);
    first = tried.found.seed + 1;
    await lab.use(mutant);
  }
  return { found: null, ofTheWhole, calls };
}

async function inBursts(
  mounts: readonly string[],
  bursts: number,
  stopped?: () => boolean,
): Promise<{ found: Found | null; calls: number }> {
  const report = await runAtOnce({
    mounts,
    programs: PROGRAMS,
    ops: BURST_OPS,
    runs: bursts,
    seed: SEED,
    seconds: null,
    kind,
    shrinkTries: SHRINK_TRIES,
    ...(stopped && { stopped }),
  });
  const { violation, calls } = report;
  if (violation === null) return { calls, found: null };
  const { seed, why, again, found, commands } = violation;
  return { calls, found: { seed, why, history: again ?? found, commands } };
}

/** Which rules are in place afterwards is left open. */
export async function tryMutant(lab: MutantLab, mutant: Mutant, { runs = RUNS, stopped, alsoAlone }: TryOptions): Promise<Tried> {
  await lab.use(mutant);
  const mounts = mountsOf(lab, mutant);
  if (mutant.atOnce === true) return { mutant, alone: null, ofTheWhole: [], ...(await inBursts(mounts, BURSTS, stopped)) };
  let alone: Found | null = null;
  for (const mount of alsoAlone && mutant.through === "both" ? mounts : []) {
    alone ??= (await inTurn([mount], { first: SEED, runs: RUNS_ALONE }, stopped)).found;
  }
  return { mutant, alone, ...(await inTurnOf(lab, mutant, mounts, runs, stopped)) };
}

/** With every rule in place: the first difference, null as it should be. The seeds are those of the mutants, `runs` of them. */
export async function tryWhole(
  lab: MutantLab,
  runs: number = RUNS,
  bursts: number = BURSTS,
  stopped?: () => boolean,
): Promise<Found | null> {
  await lab.use(null);
  for (const through of ["node 1", "node 2", "both"] as const) {
    const { found } = await inTurn(mountsOf(lab, { through }), { first: SEED, runs }, stopped);
    if (found !== null) return found;
  }
  return bursts === 0 ? null : (await inBursts(mountsOf(lab, { through: "both" }), bursts, stopped)).found;
}
