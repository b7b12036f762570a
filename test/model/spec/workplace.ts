/** The directory in which a run works, and the programs that make its calls. The directory goes with the run, unless that is killed. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import path from "node:path";
import { startExecutor } from "./executor.ts";
import type { Place } from "./sequence.ts";

const NAME = /^spec-(\d+)-\w{6}$/;

/**
 * An executor for each of these mounts, which may be there twice: all in one directory. Gives that directory if it cannot be removed, because
 * what it lists is not what it has; else null.
 */
export async function withPlaces(mounts: readonly string[], work: (places: readonly Place[]) => Promise<void>): Promise<string | null> {
  const [first] = mounts;
  if (first === undefined) throw new Error("no mount");
  const dir = mkdtempSync(path.join(first, `spec-${process.pid}-`));
  const places = mounts.map((mount): Place => ({ executor: startExecutor(), dir: path.join(mount, path.basename(dir)) }));
  let left: string | null = null;
  try {
    await work(places);
  } finally {
    for (const { executor } of places) await executor.end();
    left = isRemoved(dir) ? null : dir;
  }
  return left;
}

function isRemoved(dir: string): boolean {
  try {
    rmSync(dir, { recursive: true });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOTEMPTY") return false;
    throw error;
  }
}

/** Directories there of runs that are gone, as far as this machine knows. */
export function leftBehind(mount: string): string[] {
  const left = readdirSync(mount).filter((name) => {
    const pid = NAME.exec(name)?.[1];
    return pid !== undefined && !isRunning(Number(pid));
  });
  return left.map((name) => path.join(mount, name));
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
    throw error;
  }
}
