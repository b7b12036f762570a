/** The hidden directory of open files without a name (overlay/lower/local/orphans.ts) goes with the clustered bit. */
import { lstatSync, readdirSync, rmdirSync, rmSync } from "node:fs";
import { ORPHAN_DIRECTORY } from "../lower/reserved-names.ts";

/** `inUse`: programs may have files of it open; then it goes only if it is empty. What is no directory is not coverlay's, and stays. */
export function removeOrphanDirectory(rootFd: number, inUse: boolean): void {
  const directory = `/proc/self/fd/${rootFd}/${ORPHAN_DIRECTORY}`;
  if (lstatSync(directory, { throwIfNoEntry: false })?.isDirectory() !== true) return;
  if (!inUse) rmSync(directory, { recursive: true });
  else if (readdirSync(directory).length === 0) rmdirSync(directory);
}
