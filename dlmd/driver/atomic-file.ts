/** Files that are whole or not there: written beside, synced, renamed over, and the folder synced. */
import { open, rename } from "node:fs/promises";
import path from "node:path";

/** Resolves when it is on stable storage. `beside`: where it is written first; one name will do where there is only one writer. */
export async function writeAtomic(file: string, text: string, mode: number, beside: string = `${file}.${process.pid}.new`): Promise<void> {
  const written = await open(beside, "w", mode);
  try {
    await written.writeFile(text);
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
