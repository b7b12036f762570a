/**
 * The claim of a mount that begins: of two mount commands for one place, or for one volume on one node, one mounts, and the other is refused. The kernel would
 * put one mount over the other. And a node has one mount of a volume: the second one would wait for the first one's "mounter" lock without end (owner.ts).
 */
import { closeSync, fstatSync, mkdirSync, openSync, rmSync, statSync } from "node:fs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { errnoName } from "../../dlmd/base/errno.ts";
import type { Native } from "../../native/index.ts";
import { canonicalPath, canonicalPlace } from "./canonical-path.ts";
import { RECORD_DIR, placeFile } from "./mount-record.ts";

const EXTENSION = ".claim";

export interface MountClaim {
  /** It is mounted, and its record says so; or it is not going to be. */
  release(): void;
}

export interface ClaimedMount {
  readonly mountPoint: string;
  readonly runDir: string;
  /** Its uuid. */
  readonly volume: string;
}

/**
 * `check` looks once more at what is mounted: what was there before the claim stays. Throws what that throws, and OperatingError "already-mounting", "no-claim".
 */
export function claimMount(
  native: Pick<Native, "tryLock">,
  { mountPoint, runDir, volume }: ClaimedMount,
  check: () => void,
  dir: string = RECORD_DIR,
): MountClaim {
  const open: number[] = [];
  const files: string[] = [];
  const release = (): void => {
    // While they are locked, so each is the file of this claim.
    for (const file of files.splice(0)) rmSync(file, { force: true });
    for (const fd of open.splice(0)) closeSync(fd);
  };
  const claim = (what: string, key: string): void => {
    const file = placeFile(key, EXTENSION, dir);
    const fd = openClaim(file, dir);
    open.push(fd);
    const locked = native.tryLock(fd);
    if (locked < 0) throw alreadyMounting(what, errnoName(-locked));
    if (!isStill(fd, file)) throw alreadyMounting(what, "it ends");
    files.push(file);
  };
  try {
    claim(`at ${mountPoint}`, canonicalPlace(mountPoint));
    claim("this volume on this node", `${canonicalPath(runDir)}\0${volume}`);
    check();
    return { release };
  } catch (error) {
    release();
    throw error;
  }
}

/** False: its holder has removed the file after it was opened here, and the next one makes another. Two would have the claim. */
function isStill(fd: number, file: string): boolean {
  return statSync(file, { throwIfNoEntry: false })?.ino === fstatSync(fd).ino;
}

/** Root's alone: a lock needs no more than a descriptor for reading. */
function openClaim(file: string, dir: string): number {
  try {
    mkdirSync(dir, { recursive: true, mode: 0o755 });
    return openSync(file, "a", 0o600);
  } catch (cause) {
    throw new OperatingError(`${file}, by which only one process mounts there, can not be made: ${(cause as Error).message}`, {
      code: "no-claim",
      hint: `There must be room in ${dir}, and it must be writable.`,
      cause,
    });
  }
}

function alreadyMounting(what: string, found: string): OperatingError {
  return new OperatingError(`another process mounts ${what} just now (${found})`, {
    code: "already-mounting",
    hint: "findmnt -t fuse.clustered shows what is mounted: use that. If the other one fails, mount again.",
  });
}
