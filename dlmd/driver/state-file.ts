/**
 * What a node must still know after a restart: the highest epoch that it promised (hazard H4). Written beside and
 * renamed over, with both synced, so that a crash leaves the old or the new one.
 */
import { open, readFile, rename } from "node:fs/promises";
import path from "node:path";
import * as z from "zod";
import { OperatingError } from "../base/error.ts";

const shape = z.strictObject({ promisedEpoch: z.int().min(0) });

/** The highest promised epoch; 0 where there is no file yet. Throws OperatingError for one that cannot be read. */
export async function readPromisedEpoch(file: string): Promise<number> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return 0;
    throw error;
  }
  try {
    return shape.parse(JSON.parse(text)).promisedEpoch;
  } catch (error) {
    throw new OperatingError(
      `the state file ${file} is damaged: {"promisedEpoch":N} expected, found ${JSON.stringify(text.slice(0, 80))}`,
      {
        code: "bad-state",
        hint: "It is written as a whole: look for a failing disk. With dlmd stopped on every node it may be removed.",
        cause: error,
      },
    );
  }
}

/** Resolves when the epoch is on stable storage. */
export async function writePromisedEpoch(file: string, promisedEpoch: number): Promise<void> {
  const beside = `${file}.new`;
  const written = await open(beside, "w", 0o600);
  try {
    await written.writeFile(`${JSON.stringify({ promisedEpoch })}\n`);
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
