/** One name for every path to a file: mount points, run directories and lower directories are compared by it. */
import { realpathSync, statSync } from "node:fs";
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

/**
 * The source of a mount as any process finds it: that of the mount has another working directory, and a link to a directory may lead elsewhere later. A
 * device keeps its name: udev makes the links to it. A word without a slash names a volume. Hazard R20: so it is found in the mount table.
 */
export function canonicalSource(name: string): string {
  if (!name.includes("/")) return name;
  const absolute = path.resolve(name);
  return statSync(absolute, { throwIfNoEntry: false })?.isDirectory() === true ? canonicalPath(absolute) : absolute;
}
