/**
 * The place of a mount, while it is mounted there: of two mount commands for one place at one moment one mounts, and the other is refused. The kernel
 * would put one mount over the other, and what the mount table says of the place would be that of the upper one.
 */
import { closeSync, mkdirSync, openSync } from "node:fs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { type MountEntry, mountAt, mountTable } from "../../dlmd/base/mount-table.ts";
import { errnoName } from "../../dlmd/base/errno.ts";
import type { Native } from "../../native/index.ts";
import { canonicalPlace } from "./canonical-path.ts";
import { RECORD_DIR, placeFile } from "./mount-record.ts";

const EXTENSION = ".place";

export interface MountPlace {
  /** It is mounted, or is not going to be. */
  release(): void;
}

/** Throws OperatingError "already-mounted", "already-mounting", "no-claim". */
export function claimPlace(
  native: Pick<Native, "tryLock">,
  mountPoint: string,
  { dir = RECORD_DIR, table = mountTable }: { readonly dir?: string; readonly table?: () => readonly MountEntry[] } = {},
): MountPlace {
  const fd = openClaim(mountPoint, dir);
  const release = (): void => closeSync(fd);
  try {
    const locked = native.tryLock(fd);
    if (locked < 0) throw refusal("already-mounting", `another process mounts at ${mountPoint} just now (${errnoName(-locked)})`);
    const covered = mountAt(mountPoint, table());
    if (covered?.type === "fuse.clustered")
      throw refusal("already-mounted", `${covered.source} has been mounted clustered at ${mountPoint} meanwhile`);
    return { release };
  } catch (error) {
    release();
    throw error;
  }
}

/** The file stays: who removed it would let two have it. Root's alone: a lock needs no more than a descriptor for reading. */
function openClaim(mountPoint: string, dir: string): number {
  const file = placeFile(canonicalPlace(mountPoint), EXTENSION, dir);
  try {
    mkdirSync(dir, { recursive: true, mode: 0o755 });
    return openSync(file, "a", 0o600);
  } catch (cause) {
    throw new OperatingError(`${file}, by which only one process mounts at ${mountPoint}, can not be made: ${(cause as Error).message}`, {
      code: "no-claim",
      hint: `There must be room in ${dir}, and it must be writable.`,
      cause,
    });
  }
}

function refusal(code: string, message: string): OperatingError {
  return new OperatingError(message, { code, hint: "findmnt -t fuse.clustered shows what is mounted: use that, or umount it first." });
}
