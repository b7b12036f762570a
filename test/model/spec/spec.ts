/** Runs of the specification against mounts: sequences by seeds, until enough were tried or one differs. */
import { readFileSync, statfsSync } from "node:fs";
import { allRules } from "../file-system.ts";
import { coverlayOver, type Kernel, type Kind, KINDS } from "../state.ts";
import { drawSequence } from "./draw.ts";
import { pasted } from "./paste.ts";
import { foresee, newTally, shrink, type Tally, tryCalls } from "./sequence.ts";
import { leftBehind, withPlaces } from "./workplace.ts";

export const MAX_SHRINK_TRIES = 400;
const XFS_MAGIC = 0x5846_5342;
const FUSE_MAGIC = 0x6573_5546;

export interface SpecOptions {
  readonly mounts: readonly string[];
  /** Calls of a sequence, and how many sequences. */
  readonly ops: number;
  readonly runs: number;
  readonly seed: number;
  /** No sequence begins after that; null: no limit. */
  readonly seconds: number | null;
  /** Null: as statfs(2) says. */
  readonly kind: Kind | null;
  /** So many shorter sequences are tried when one differs (MAX_SHRINK_TRIES). */
  readonly shrinkTries?: number;
  /** Asked before each sequence. */
  readonly stopped?: () => boolean;
  /** Told before each sequence: how many were made. */
  readonly progress?: (sequences: number, calls: number) => void;
}

export interface SpecReport {
  readonly kind: string;
  /** Directories of runs that were killed. */
  readonly leftBehind: readonly string[];
  /** The directory of this run, if the mount refuses to remove it; else null. */
  readonly notRemoved: string | null;
  readonly sequences: number;
  readonly calls: number;
  readonly operations: Readonly<Record<string, number>>;
  readonly rules: Readonly<Record<string, number>>;
  readonly rulesNeverReached: readonly string[];
  readonly notTried: Readonly<Record<string, number>>;
  readonly difference: { readonly seed: number; readonly calls: number; readonly why: string; readonly commands: string } | null;
}

/** Of a FUSE mount the lower cannot be seen: ext4 is taken. */
export function kindOf(mount: string): Kind {
  const { type } = statfsSync(mount);
  if (type === XFS_MAGIC) return KINDS.xfs;
  return type === FUSE_MAGIC ? coverlayOver(KINDS.ext4) : KINDS.ext4;
}

export function thisKernel(): Kernel {
  const of = (name: string): number => Number(readFileSync(`/proc/sys/fs/protected_${name}`, "utf8"));
  return {
    protectedHardlinks: of("hardlinks"),
    protectedSymlinks: of("symlinks"),
    protectedRegular: of("regular"),
    protectedFifos: of("fifos"),
  };
}

/** By name. */
export function sorted(counts: ReadonlyMap<string, number>): Record<string, number> {
  return Object.fromEntries([...counts].toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

export async function runSpec(options: SpecOptions): Promise<SpecReport> {
  const [first] = options.mounts;
  if (first === undefined) throw new Error("no mount");
  const machine = { kernel: thisKernel(), kind: options.kind ?? kindOf(first) };
  const left = options.mounts.flatMap((mount) => leftBehind(mount));
  const stopped = options.stopped ?? ((): boolean => false);
  const tally = newTally();
  const end = options.seconds === null ? Number.POSITIVE_INFINITY : Date.now() + options.seconds * 1000;
  let sequences = 0;
  let difference: SpecReport["difference"] = null;
  const notRemoved = await withPlaces(options.mounts, async (places) => {
    while (sequences < options.runs && Date.now() < end && !stopped() && difference === null) {
      options.progress?.(sequences, tally.calls);
      const seed = options.seed + sequences++;
      const calls = foresee(drawSequence(seed, options.ops, places.length), machine, tally);
      const found = await tryCalls(calls, places, machine);
      if (found === null) continue;
      const shortest = await shrink(found, places, machine, options.shrinkTries ?? MAX_SHRINK_TRIES, stopped);
      const commands = pasted(shortest.calls, options.mounts, machine.kind, shortest.inEnd);
      difference = { seed, calls: shortest.calls.length, why: shortest.why, commands };
    }
  });
  return { kind: machine.kind.name, leftBehind: left, notRemoved, sequences, difference, ...counted(tally) };
}

type Counted = "calls" | "operations" | "rules" | "rulesNeverReached" | "notTried";

function counted(tally: Tally): Pick<SpecReport, Counted> {
  return {
    calls: tally.calls,
    operations: sorted(tally.operations),
    rules: sorted(tally.rules),
    rulesNeverReached: [...new Set(allRules.map(({ id }) => id))].filter((id) => !tally.rules.has(id)),
    notTried: sorted(tally.exceptions),
  };
}
