/**
 * Names in a volume's root directory that belong to coverlay: not shown, not found, and not to be made, by those who use the mount.
 * A directory as lower has none of them, but the same rule, so that nobody meets it only later.
 */
const RESERVED: Buffer = Buffer.from(".coverlay");
const DOT = 0x2e;

/** Keeps the place of the owner's block (overlay/volume/owner-file.ts). */
export const OWNER_FILE = ".coverlay.owner";
/** Has what is open somewhere and has no name any more (local/orphans.ts). */
export const ORPHAN_DIRECTORY = ".coverlay.orphans";

/** `.coverlay`, and what begins with `.coverlay.`. */
export function isReservedName(name: Uint8Array): boolean {
  if (name.length < RESERVED.length || RESERVED.compare(name, 0, RESERVED.length) !== 0) return false;
  return name.length === RESERVED.length || name[RESERVED.length] === DOT;
}
