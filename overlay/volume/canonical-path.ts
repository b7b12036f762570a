/** One name for every path to a file: mount points and run directories are compared by it. */
import { realpathSync } from "node:fs";
import path from "node:path";
import { mountAt } from "../../dlmd/base/mount-table.ts";

/** Symbolic links are followed as far as the path is there. */
export function canonicalPath(file: string): string {
  const absolute = path.resolve(file);
  try {
    return realpathSync.native(absolute);
  } catch {
    const above = path.dirname(absolute);
    return above === absolute ? absolute : path.join(canonicalPath(above), path.basename(absolute));
  }
}

/** The same for a mount point. One that the mount table names is not looked up: what it lies in may hang. */
export function canonicalPlace(directory: string): string {
  const absolute = path.resolve(directory);
  return mountAt(absolute) === null ? canonicalPath(absolute) : absolute;
}
