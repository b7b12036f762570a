/** Files that are whole or not there: written beside, synced, renamed over, and the folder synced. */
import { chmod, chown, open, realpath, rename, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { OperatingError } from "../base/error.ts";
import { EXIT } from "../base/exit-status.ts";

/** `what` cannot be kept in `file`, in the words for an administrator. */
export function unkept(what: string, file: string, error: unknown): OperatingError {
  const { code = "", message } = error as NodeJS.ErrnoException;
  const isFull = code === "ENOSPC" || code === "EDQUOT";
  return new OperatingError(`${what} cannot be kept in ${file}: ${message}`, {
    code: "unkept",
    hint: isFull
      ? `Make room on that disk (df ${path.dirname(file)}), and start dlmd again.`
      : `See that ${path.dirname(file)} is there and may be written, and what the kernel log says of its disk. Then start dlmd again.`,
    cause: error,
    exitStatus: EXIT.UNKEPT,
  });
}

/** Resolves when it is on stable storage; when it rejects, the file is as it was, or as it should be but perhaps not on stable storage; nothing lies beside it. `beside`: where it is written first; one name will do where there is only one writer. */
export async function writeAtomic(file: string, text: string, mode: number, beside: string = `${file}.${process.pid}.new`): Promise<void> {
  try {
    await writeSynced(beside, text, mode);
  } catch (error) {
    await rm(beside, { force: true });
    throw error;
  }
  await moveInto(file, beside);
}

function unlessMissing<T>(instead: T): (error: NodeJS.ErrnoException) => T {
  return (error) => {
    if (error.code === "ENOENT") return instead;
    throw error;
  };
}

async function moveInto(file: string, beside: string): Promise<void> {
  try {
    await rename(beside, file);
  } catch (error) {
    await rm(beside, { force: true });
    throw error;
  }
  const folder = await open(path.dirname(file), "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** The same for a file that is a person's: through a symbolic link, with the mode and the owner that it has; 0600 if it is not there. */
export async function writeInPlace(file: string, text: string): Promise<void> {
  const place = await realpath(file).catch(unlessMissing(file));
  const found = await stat(place).catch(unlessMissing(null));
  const beside = `${place}.${process.pid}.new`;
  try {
    await writeSynced(beside, text, 0o600);
    if (found !== null) {
      await chown(beside, found.uid, found.gid);
      await chmod(beside, found.mode & 0o7777);
    }
  } catch (error) {
    await rm(beside, { force: true });
    throw error;
  }
  await moveInto(place, beside);
}

function writeSynced(file: string, text: string, mode: number): Promise<void> {
  return writeFile(file, text, { mode, flush: true });
}

/** Whether that could be written as `file` now. Rejects as writeAtomic would; leaves nothing behind. */
export async function tryWriting(file: string, text: string, mode: number): Promise<void> {
  const beside = `${file}.${process.pid}.try`;
  try {
    await writeSynced(beside, text, mode);
  } finally {
    await rm(beside, { force: true });
  }
}
