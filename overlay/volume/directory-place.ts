/**
 * Hazard R20: a directory is copied with its extended attributes, the clustered bit among them. So the bit of a directory has a companion that
 * names the place: the machine, and the file handle of the directory's inode. A copy has another inode, or is on another machine.
 * Source: name_to_handle_at(2), machine-id(5).
 */
import { closeSync, constants, openSync, realpathSync, statSync } from "node:fs";
import path from "node:path";
import { E, errnoName } from "../../dlmd/base/errno.ts";
import { machineId } from "../../dlmd/base/machine.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import { checked } from "../../dlmd/base/maybe-promise.ts";
import { type MountEntry, mountTable } from "../../dlmd/base/mount-table.ts";
import { HANDLE_BUFFER_BYTES, nativeAddon } from "../../native/index.ts";
import { BIT_XATTR } from "./bit.ts";
import { getAttribute, setAttribute } from "./detached.ts";

/** Beside the bit on the root directory; goes with it. */
export const PLACE_XATTR = "trusted.clustered.place";

/** What the attribute of that directory has to be on this machine. */
function placeOf(fd: number, where: string, machine: string = machineId()): string {
  const handle = Buffer.alloc(HANDLE_BUFFER_BYTES);
  const result = nativeAddon().sync.handleOf(fd, handle);
  if (result < 0) {
    throw refused(
      "unsupported-lower",
      `${where}: its file system gives no file handles (${errnoName(-result)})`,
      "Use a directory of ext4 or XFS.",
    );
  }
  const bytes = 8 + handle.readUInt32LE(0);
  return `machine=${machine};handle=${handle.subarray(0, bytes).toString("hex")}`;
}

export function setPlace(fd: number, where: string): void {
  setAttribute(fd, PLACE_XATTR, Buffer.from(placeOf(fd, where), "latin1"), where);
}

/** Throws OperatingError "copied-directory": it is a copy; "no-place": it was enabled before directories named their place. */
export function requirePlace(fd: number, where: string, machine: string = machineId()): void {
  const stored = getAttribute(fd, PLACE_XATTR, where)?.toString("latin1") ?? null;
  if (stored === placeOf(fd, where, machine)) return;
  if (stored === null) {
    throw refused(
      "no-place",
      `${where} does not say where it was enabled: an earlier version of coverlay did that, or it is a copy of such a directory`,
      `On the node that has the original: coverlay volume disable ${where}, then coverlay volume enable, with the same names and uuid. On no copy of it.`,
    );
  }
  throw refused(
    "copied-directory",
    `${where} is a copy: it was enabled as another directory, or on another machine`,
    `If the original is gone for good: coverlay volume disable ${where}, then coverlay volume enable, with the same names and uuid.`,
  );
}

/**
 * Throws OperatingError "nested-volume": a directory above it is a volume, or a mounted one lies below it. A mount table shows the source as it was typed
 * then, by whatever link or mount: so no texts are compared. One that is not there any more lies nowhere.
 */
export function requireNotNested(directory: string, sources: readonly string[] = mountedSources()): void {
  const table = mountTable();
  const above = placesAbove(realpathSync(directory), table).find(isVolume);
  if (above !== undefined) throw nested(directory, `${above}, above it, is a volume`);
  const isIt = sameAs(directory);
  const below = sources.find((source) => placesAbove(realPath(source), table).some(isIt));
  if (below !== undefined) throw nested(directory, `${below}, below it, is a volume that is mounted`);
}

/** The directories above a real path, by each name that they have here; none above what is not there. */
function placesAbove(place: string | null, table: readonly MountEntry[]): string[] {
  return place === null ? [] : [...parents(place), ...parentsElsewhere(place, table)];
}

/** Up to the root; none above that. */
function parents(place: string): string[] {
  const above = path.dirname(place);
  return above === place ? [] : [above, ...parents(above)];
}

/** Of a part of a file system that is mounted by itself (mount --bind): they are seen where more of that file system is mounted. */
function parentsElsewhere(place: string, table: readonly MountEntry[]): string[] {
  const depth = ({ mountPoint }: MountEntry): number => (isWithin(place, mountPoint) ? mountPoint.length : -1);
  const mount = table.reduce((best, entry) => (depth(entry) >= depth(best) ? entry : best));
  const { dev } = statSync(place);
  const above = parents(path.join(mount.root, path.relative(mount.mountPoint, place)));
  return table
    .filter(({ device }) => device === mount.device)
    .flatMap(({ root, mountPoint }) =>
      above.filter((one) => isWithin(one, root)).map((one) => path.join(mountPoint, path.relative(root, one))),
    )
    .filter((one) => statSync(one, { throwIfNoEntry: false })?.dev === dev);
}

function isWithin(place: string, directory: string): boolean {
  return directory === "/" || place === directory || place.startsWith(`${directory}/`);
}

/** null: it is not there any more. */
function realPath(source: string): string | null {
  return statSync(source, { throwIfNoEntry: false }) === undefined ? null : realpathSync(source);
}

/** Throws OperatingError "mounted": an overlay of this machine has it, and goes by its bit. */
export function requireNotMounted(directory: string, sources: readonly string[] = mountedSources()): void {
  if (!sources.some(sameAs(directory))) return;
  throw refused(
    "mounted",
    `${directory} is mounted as a volume on this machine`,
    "Unmount it first: findmnt -t fuse.clustered shows where.",
  );
}

/** Whether it is that directory, by whatever name, and in whichever mount of its file system. */
function sameAs(directory: string): (other: string) => boolean {
  const { dev, ino } = statSync(directory);
  return (other) => {
    const found = statSync(other, { throwIfNoEntry: false });
    return found?.dev === dev && found.ino === ino;
  };
}

function mountedSources(): string[] {
  return mountTable()
    .filter(({ type, source }) => type === "fuse.clustered" && source.startsWith("/"))
    .map(({ source }) => source)
    .filter((source) => statSync(source, { throwIfNoEntry: false })?.isDirectory() === true);
}

function isVolume(directory: string): boolean {
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    const result = nativeAddon().sync.getxattr(fd, Buffer.from(BIT_XATTR), Buffer.alloc(0));
    // A file system without extended attributes has no volume.
    if (result === -E.ENODATA || result === -E.EOPNOTSUPP) return false;
    return checked(result) >= 0;
  } finally {
    closeSync(fd);
  }
}

function nested(directory: string, why: string): OperatingError {
  return refused(
    "nested-volume",
    `${directory} cannot be a volume: ${why}`,
    "Two volumes would have the same files. Name another directory.",
  );
}

function refused(code: string, message: string, hint: string): OperatingError {
  return new OperatingError(message, { code, hint, exitStatus: 32 });
}
