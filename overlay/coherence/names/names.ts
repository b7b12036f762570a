/**
 * Which names of a directory the kernel was told, and with what validity: what a revoke of the directory has to expire
 * (hazard F6), and which file the kernel believes a name to be (hazard F12). Pure.
 *
 * A name told for the first time is installed by the kernel under the directory's lock, so that INVAL_ENTRY, which takes
 * that lock, comes after it. A name told again is installed by d_revalidate without that lock (fs/fuse/dir.c,
 * fuse_dentry_revalidate): the waiter of such a LOOKUP can set its validity after the expiry has passed. Those names
 * ("re-armed") are therefore expired more strongly while their waiter may still be on its way.
 */
import { type Cover, NOBODY, type ToldName, ToldNames } from "../cover.ts";

/** A directory remembers at most so many negative names; beyond, they are told without validity. */
export const NEGATIVE_NAMES_MAX = 1000;
/** More names than this are expired all at once, by epoch (hazard F6): one takes about 2 us, and who wants the directory waits for all of them. */
export const EXPIRE_NAMES_MAX = 10_000;
/** So many names that it has already are not worth a trip more to the owner, when all others of a listing are new to it. */
export const FEW_NAMES_MAX = 16;
/** A re-armed name counts as installed after this time: the woken waiter has run by then. */
const REARM_SETTLED_MS = 2000;

export function nameKey(name: Buffer): string {
  return name.toString("latin1");
}

function namesOf(dir: Cover): ToldNames {
  dir.names ??= new ToldNames();
  return dir.names;
}

/** Takes it out of the list of its child's names. */
function dropBackReference(told: ToldName, child: Cover): void {
  if (child.toldIn === told) child.toldIn = told.next;
  else {
    let before = child.toldIn;
    while (before !== null && before.next !== told) before = before.next;
    if (before !== null) before.next = told.next;
  }
  told.next = null;
}

function setChild(told: ToldName, child: Cover | null): void {
  if (told.child === child) return;
  const names = namesOf(told.dir);
  if (told.child !== null) dropBackReference(told, told.child);
  else names.negatives -= 1;
  told.child = child;
  if (child === null) names.negatives += 1;
  else {
    told.next = child.toldIn;
    child.toldIn = told;
  }
}

function addName(dir: Cover, key: string, child: Cover | null, validEpoch: number, rearmedAt: number | null): ToldName {
  const told: ToldName = { dir, key, child: null, validEpoch, listed: false, rearmedAt, next: null };
  const names = namesOf(dir);
  names.negatives += 1;
  names.byKey.set(key, told);
  setChild(told, child);
  return told;
}

/**
 * The reply about to be written tells the kernel this name; `valid`: with entry validity, unless there is no room for that, which is what is given back.
 * `epoch` is the mount's present epoch, from 1.
 */
export function tellName(
  dir: Cover,
  name: Buffer,
  child: Cover | null,
  valid: boolean,
  epoch: number,
  now: number,
  revalidated = true,
  isListed = false,
): boolean {
  const key = nameKey(name);
  let told = dir.names?.byKey.get(key);
  // A name that leads somewhere is looked up anew without being dropped: if the caller is killed, the kernel keeps it as it was.
  const stands = told !== undefined && told.child !== null && told.validEpoch === epoch;
  if (told === undefined) {
    if (child === null && (!valid || (dir.names?.negatives ?? 0) >= NEGATIVE_NAMES_MAX)) return false;
    told = addName(dir, key, child, 0, null);
  } else {
    // Negative dentries are never revalidated: only a name that the kernel has as a file can be re-armed.
    if (revalidated && told.child !== null && child !== null) told.rearmedAt = now;
    setChild(told, child);
    if (child === null && !valid && !stands) {
      dropName(dir, name);
      return false;
    }
  }
  if (valid) told.validEpoch = epoch;
  // One of a listing may be installed late, or not at all: what the kernel was told before stands until then.
  else if (!isListed && !stands) told.validEpoch = 0;
  told.listed ||= isListed && valid;
  return valid;
}

/** The last epoch in which the kernel may have it with validity (hazard F48); 0: none. */
function installedIn({ dir: { names }, validEpoch, listed }: ToldName, epoch: number): number {
  if (!listed || names === null) return validEpoch;
  return names.listings.length > 0 ? epoch : Math.max(validEpoch, names.listedEpoch);
}

/** What the kernel was last told: a cover, null (negative) or undefined (nothing). */
export function toldName(dir: Cover, name: Buffer): Cover | null | undefined {
  return dir.names?.byKey.get(nameKey(name))?.child;
}

/** The child of a name that the kernel has with validity that stands; null: there is none. */
export function validName(dir: Cover, name: Buffer, epoch: number): Cover | null {
  const told = dir.names?.byKey.get(nameKey(name));
  return told !== undefined && told.validEpoch === epoch ? told.child : null;
}

/** Names of files, and no more than FEW_NAMES_MAX of them. */
export function hasFewValid(dir: Cover, epoch: number): boolean {
  let valid = 0;
  for (const { child, validEpoch } of dir.names?.byKey.values() ?? []) {
    if (child !== null && validEpoch === epoch) valid += 1;
    if (valid > FEW_NAMES_MAX) return false;
  }
  return true;
}

/** The kernel itself dropped the name. */
export function dropName(dir: Cover, name: Buffer): void {
  dropKey(dir, nameKey(name));
}

/** All of a directory whose lock goes. */
export function dropNames(dir: Cover): void {
  for (const key of dir.names?.byKey.keys() ?? []) dropKey(dir, key);
  dir.names = null;
}

function dropKey(dir: Cover, key: string): void {
  const { names } = dir;
  const told = names?.byKey.get(key);
  if (names === null || told === undefined) return;
  if (told.child === null) names.negatives -= 1;
  else dropBackReference(told, told.child);
  names.byKey.delete(key);
}

/** The kernel moved the dentry of a renamed file, with the validity that it had. */
export function moveName(oldDir: Cover, oldName: Buffer, newDir: Cover, newName: Buffer, epoch: number, now: number): void {
  const told = oldDir.names?.byKey.get(nameKey(oldName));
  if (told === undefined) {
    dropName(newDir, newName);
    return;
  }
  const { child } = told;
  const validEpoch = installedIn(told, epoch);
  dropName(oldDir, oldName);
  dropName(newDir, newName);
  putName(newDir, newName, child, validEpoch, now);
}

/** RENAME_EXCHANGE: the two dentries changed places. */
export function exchangeNames(oldDir: Cover, oldName: Buffer, newDir: Cover, newName: Buffer, epoch: number, now: number): void {
  const a = oldDir.names?.byKey.get(nameKey(oldName));
  const b = newDir.names?.byKey.get(nameKey(newName));
  dropName(oldDir, oldName);
  dropName(newDir, newName);
  if (b !== undefined) putName(oldDir, oldName, b.child, installedIn(b, epoch), now);
  if (a !== undefined) putName(newDir, newName, a.child, installedIn(a, epoch), now);
}

function putName(dir: Cover, name: Buffer, child: Cover | null, validEpoch: number, now: number): void {
  addName(dir, nameKey(name), child, validEpoch, now);
}

/** The kernel forgot the inode: its dentries are gone. */
export function forgetNames(child: Cover): void {
  let told = child.toldIn;
  child.toldIn = null;
  while (told !== null) {
    const { next } = told;
    told.next = null;
    told.dir.names?.byKey.delete(told.key);
    told = next;
  }
}

/** Where else than in `dir` the kernel may still have that directory: another node has moved it. */
export function namesElsewhere(child: Cover, dir: Cover): readonly ToldName[] {
  let elsewhere: ToldName[] | null = null;
  for (let told = child.toldIn; told !== null; told = told.next) {
    if (told.dir !== dir) (elsewhere ??= []).push(told);
  }
  return elsewhere ?? NOBODY;
}

/**
 * Was the kernel told another name of that inode too, whose validity is no longer in force? Another node may have renamed it to this one since, while a
 * rename here goes by what it was (op/placeholder-inodes.ts).
 */
export function hasDoubtfulName(child: Cover, dir: Cover, name: Buffer, epoch: number): boolean {
  for (let told = child.toldIn; told !== null; told = told.next) {
    if (told.validEpoch !== epoch && (told.dir !== dir || told.key !== nameKey(name))) return true;
  }
  return false;
}

/** The kernel was asked to drop a name when it stood as in `asked`, and has done so. What was told of that name since stays. */
export function dropUnchanged(told: ToldName, asked: ToldName): void {
  const { dir, key } = told;
  const unchanged = told.child === asked.child && told.validEpoch === asked.validEpoch && told.rearmedAt === asked.rearmedAt;
  if (unchanged && told.listed === asked.listed && dir.names?.byKey.get(key) === told) dropKey(dir, key);
}

/** The kernel has expired those that were planned, and no listing was under way any more. */
export function noteExpired({ names }: Cover): void {
  if (names === null || names.listings.length > 0) return;
  for (const told of names.byKey.values()) told.listed = false;
}

/** How the names of a directory are to be expired; the told names lose their validity at once. */
export interface ExpiryPlan {
  /** Everything by INC_EPOCH. */
  readonly epoch: boolean;
  /** All that may be valid. */
  readonly names: readonly { readonly name: Buffer /** Drop the dentry; else only its validity. */; readonly drop: boolean }[];
}

/** `isLocked`: the kernel holds the directory locked, so that no name can be expired alone. */
export function planExpiry(dir: Cover, epoch: number, now: number, isLocked = false): ExpiryPlan {
  const names: { name: Buffer; drop: boolean }[] = [];
  let all = false;
  if (dir.names !== null) {
    const underWay = dir.names.listings.length > 0;
    for (const [key, told] of dir.names.byKey) {
      const valid = installedIn(told, epoch) === epoch;
      told.validEpoch = 0;
      // What may still come is for the next revoke, too.
      if (!underWay) told.listed = false;
      if (!valid) continue;
      const settling = told.rearmedAt !== null && now - told.rearmedAt < REARM_SETTLED_MS;
      if (settling && told.child?.kind === "directory") all = true;
      names.push({ name: Buffer.from(key, "latin1"), drop: settling });
      // A negative entry serves no other purpose than its validity.
      if (told.child === null && !told.listed) {
        dir.names.byKey.delete(key);
        dir.names.negatives -= 1;
      }
    }
  }
  return { epoch: all || (isLocked && names.length > 0) || names.length > EXPIRE_NAMES_MAX, names };
}
