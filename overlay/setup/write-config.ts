/** Puts a new cluster.yaml and its key in their places: whole or not at all, and never over others unless that is wanted. */
import { closeSync, existsSync, fsyncSync, linkSync, mkdirSync, openSync, renameSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { OperatingError } from "../../dlmd/base/error.ts";
import { readKeyring, writeClusterKey } from "../../dlmd/driver/cluster-files.ts";

export interface NewCluster {
  readonly configFile: string;
  readonly text: string;
  readonly keyFile: string;
}

/**
 * The key first: a cluster.yaml that is there has its key. A key is never overwritten, because nodes may have it: one that is there must be whole.
 * Gives the files that were written. Throws OperatingError "config-exists", "config-write", and those of the key.
 */
export function writeNewCluster({ configFile, text, keyFile }: NewCluster, isForced: boolean): string[] {
  if (!isForced && existsSync(configFile)) throw configExists(configFile, null);
  makeFolder(configFile);
  const hasKey = existsSync(keyFile);
  if (hasKey) readKeyring(keyFile);
  else writeClusterKey(keyFile);
  writeNewConfig(configFile, text, isForced);
  return hasKey ? [configFile] : [configFile, keyFile];
}

function makeFolder(file: string): void {
  try {
    mkdirSync(path.dirname(file), { recursive: true, mode: 0o755 });
  } catch (error) {
    throw unwritable(file, error as Error);
  }
}

/** Throws OperatingError "config-exists", "config-write". */
export function writeNewConfig(file: string, text: string, isForced: boolean): void {
  const folder = path.dirname(file);
  const beside = `${file}.${process.pid}.new`;
  makeFolder(file);
  try {
    // What a run left that was killed: in a container the pid may be the same each time.
    rmSync(beside, { force: true });
    writeFileSync(beside, text, { flag: "wx", mode: 0o644, flush: true });
    // link(2) fails where a file has come meanwhile, and rename(2) does not.
    if (isForced) renameSync(beside, file);
    else linkSync(beside, file);
    const fd = openSync(folder, "r");
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === "EEXIST" ? configExists(file, error) : unwritable(file, error as Error);
  } finally {
    rmSync(beside, { force: true });
  }
}

function configExists(file: string, cause: unknown): OperatingError {
  return new OperatingError(`${file} is there already`, {
    code: "config-exists",
    hint: "On another node of that cluster: coverlay setup join. To change it: coverlay config apply. To begin anew: --force.",
    cause,
  });
}

function unwritable(file: string, cause: Error): OperatingError {
  return new OperatingError(`${file} cannot be written: ${cause.message}`, {
    code: "config-write",
    hint: "Name another file with --config, or see that the folder can be written.",
    cause,
  });
}
