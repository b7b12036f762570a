/**
 * What a node must still know after a restart: the highest epoch that it promised (hazard H4), and the latest quorate view it was in, so that
 * members which all restarted are not joined by a node that they had left behind. Written beside and
 * renamed over, with both synced, so that a crash leaves the old or the new one.
 */
import { open, readFile, rename } from "node:fs/promises";
import path from "node:path";
import * as z from "zod";
import { OperatingError } from "../base/error.ts";
import type { Lineage } from "../wire/view-id.ts";

/** As the core gives it to `persist` and takes it at its boot. */
export interface StoredState {
  readonly promisedEpoch: number;
  /** Absent where the file is of a version that did not keep it, or there is none. */
  readonly lineage?: Lineage;
}

const number = z.int().min(0);
const lineageShape = z.strictObject({
  id: z.strictObject({ epoch: number, proposer: number, incarnation: z.string() }),
  members: z.array(z.strictObject({ nodeid: number, incarnation: z.string() })),
});
const shape = z.strictObject({ promisedEpoch: number, lineage: lineageShape.optional() });

/** Epoch 0 where there is no file yet. Throws OperatingError for one that cannot be read. */
export async function readState(file: string): Promise<StoredState> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return { promisedEpoch: 0 };
    throw error;
  }
  try {
    const { promisedEpoch, lineage } = shape.parse(JSON.parse(text));
    return lineage === undefined ? { promisedEpoch } : { promisedEpoch, lineage };
  } catch (error) {
    throw new OperatingError(
      `the state file ${file} is damaged: {"promisedEpoch":N,"lineage":{...}} expected, found ${JSON.stringify(text.slice(0, 80))}`,
      {
        code: "bad-state",
        hint: "It is written as a whole: look for a failing disk. With dlmd stopped on every node it may be removed.",
        cause: error,
      },
    );
  }
}

/** Resolves when it is on stable storage. */
export async function writeState(file: string, state: StoredState): Promise<void> {
  const beside = `${file}.new`;
  const written = await open(beside, "w", 0o600);
  try {
    await written.writeFile(`${JSON.stringify(state)}\n`);
    await written.sync();
  } finally {
    await written.close();
  }
  await rename(beside, file);
  const folder = await open(path.dirname(file), "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
