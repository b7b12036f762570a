/** Runs the steps over the systems in rounds, so that what disturbs the machine for a while disturbs all of them. */
import { interrupted } from "./load.ts";
import { fastest, median, rotated } from "./stats.ts";
import type { Figure, Step } from "./steps.ts";
import type { Bench, SystemName } from "./system.ts";

export interface FigureResult extends Figure {
  /** One for each round, in their order. */
  readonly samples: Partial<Record<SystemName, number[]>>;
  readonly median: Partial<Record<SystemName, number>>;
}

/** Of the faster mount of bindfs; null: there is none. */
export function fasterBindfs({ unit, median: { bindfs, "bindfs-uncached": uncached } }: FigureResult): number | null {
  return fastest(unit, [bindfs, uncached]);
}

export interface Failure {
  readonly where: string;
  readonly message: string;
}

/** All of `steps`; `alongside` runs once in each round. A step that failed on a system is not tried again there. */
export async function runRounds(
  bench: Bench,
  steps: readonly Step[],
  alongside: (round: number) => Promise<void>,
): Promise<{ figures: FigureResult[]; failures: Failure[] }> {
  const failures: Failure[] = [];
  const failed = new Set<string>();
  const figures = steps.flatMap((step) => step.figures.map((figure) => ({ ...figure, samples: {} as FigureResult["samples"] })));
  for (let round = 0; round < bench.scale.rounds; round++) {
    bench.note(`round ${round + 1} of ${bench.scale.rounds}`);
    for (const step of steps) {
      if (step.long === true && round >= bench.scale.longRounds) continue;
      for (const system of rotated(bench.systems, round)) {
        const where = `${step.name} on ${system.name}`;
        if (!step.systems.includes(system.name) || failed.has(where)) continue;
        try {
          await bench.settle();
          const values = await step.run(bench, system);
          step.figures.forEach((figure, at) => {
            const result = figures.find(({ name }) => name === figure.name);
            if (result !== undefined) (result.samples[system.name] ??= []).push(values[at] ?? Number.NaN);
          });
        } catch (error) {
          if (bench.signal.aborted) throw interrupted();
          failed.add(where);
          failures.push({ where, message: (error as Error).message });
          bench.note(`${where} failed: ${(error as Error).message}`);
        }
      }
    }
    await alongside(round);
  }
  return { figures: figures.map((figure) => ({ ...figure, median: medians(figure.samples) })), failures };
}

function medians(samples: FigureResult["samples"]): FigureResult["median"] {
  const found: FigureResult["median"] = {};
  for (const [name, values] of Object.entries(samples)) found[name as SystemName] = median(values);
  return found;
}
