/**
 * What a node must still know after a restart: the highest epoch that it promised (hazard H4), and the latest quorate view it was in, so that
 * members which all restarted are not joined by a node that they had left behind, and who is not yet known to be dead. Written beside and
 * renamed over, with both synced, so that a crash leaves the old or the new one.
 */
import { readFile } from "node:fs/promises";
import * as z from "zod";
import { OperatingError } from "../base/error.ts";
import type { KeptFencing } from "../fencing/fence-table.ts";
import { fenceOutcomes } from "../wire/fencing-group.ts";
import type { KeptFences } from "../recovery/fence-gate.ts";
import { type Lineage, maxEpoch } from "../wire/view-id.ts";
import { writeAtomic } from "./atomic-file.ts";

/** As the core gives it to `persist` and takes it at its boot. */
export interface StoredState {
  readonly promisedEpoch: number;
  /** Absent where the file is of a version that did not keep it, or there is none. */
  readonly lineage?: Lineage;
  /** Who is not known to be dead, and who is. */
  readonly fences?: KeptFences;
  /** Lives that can write no more, and what was done. */
  readonly fencing?: KeptFencing;
}

const number = z.int().min(0);
const nodeids = z.array(z.int().min(1)).min(1);
const viewShape = z.strictObject({ epoch: number, proposer: number, incarnation: z.string() });
const lineageShape = z.strictObject({
  id: viewShape,
  members: z.array(z.strictObject({ nodeid: number, incarnation: z.string() })),
  // Files of versions without last_man_standing have none.
  electorate: z.strictObject({ nodeids, former: nodeids.nullable() }).nullable().default(null),
});
const victim = z.strictObject({ nodeid: number, incarnation: z.string(), failingView: viewShape });
// Files of versions that did not know what a node had open have no lockspaces: it counts as having been in all.
const openVictim = victim.extend({ lockspaces: z.array(z.string()).nullable().default(null) });
const fencesShape = z.strictObject({ open: z.array(openVictim), fenced: z.array(victim) });
const life = { nodeid: number, incarnation: z.string(), bootId: z.string(), by: z.string(), atMs: number };
const fencingShape = z.strictObject({
  proofs: z.array(z.strictObject(life)),
  history: z.array(z.strictObject({ ...life, outcome: z.enum(fenceOutcomes), words: z.string() })),
  // Files of versions that forgot the boots of others have none.
  boots: z.array(z.strictObject({ nodeid: number, incarnation: z.string(), bootId: z.string() })).default([]),
});
const shape = z.strictObject({
  promisedEpoch: number,
  lineage: lineageShape.optional(),
  fences: fencesShape.optional(),
  fencing: fencingShape.optional(),
});

/** Epoch 0 where there is no file yet. Throws OperatingError for one that cannot be read, or from whose epoch no view can follow. */
export async function readState(file: string): Promise<StoredState> {
  const state = await readAnyState(file);
  const epoch = Math.max(state.promisedEpoch, state.lineage?.id.epoch ?? 0);
  if (epoch < maxEpoch) return state;
  throw new OperatingError(`the state file ${file} has the epoch ${epoch}, and less than ${maxEpoch} is expected: no view can follow`, {
    code: "bad-state",
    hint: "No cluster comes to it by its views: a node has said it. Stop dlmd on every node, and remove each state file with such an epoch.",
  });
}

async function readAnyState(file: string): Promise<StoredState> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return { promisedEpoch: 0 };
    throw error;
  }
  try {
    const { promisedEpoch, lineage, fences, fencing } = shape.parse(JSON.parse(text));
    return {
      promisedEpoch,
      ...(lineage === undefined ? {} : { lineage }),
      ...(fences === undefined ? {} : { fences }),
      ...(fencing === undefined ? {} : { fencing }),
    };
  } catch (error) {
    throw new OperatingError(
      `the state file ${file} is damaged: {"promisedEpoch":N,"lineage":{...},"fences":{...}} expected, found ${JSON.stringify(text.slice(0, 80))}`,
      {
        code: "bad-state",
        hint: "It is written as a whole: look for a failing disk. With dlmd stopped on every node it may be removed.",
        cause: error,
      },
    );
  }
}

/** Resolves when it is on stable storage. */
export function writeState(file: string, state: StoredState): Promise<void> {
  return writeAtomic(file, stateText(state), 0o600, `${file}.new`);
}

export function stateText(state: StoredState): string {
  return `${JSON.stringify(state)}\n`;
}
