/**
 * What a node that is not the owner knows of inodes without asking: attributes, names, names that are not there, extended attributes that are not there, access ACLs, and data of small files. Hazard F21 has the one rule for all of
 * it: it counts while the lock has not left since before it was read, and nothing was changed here since. overlay/lower/README.md, "What is known under locks".
 */
import { Recency, type Recent } from "../../../dlmd/base/recency.ts";
import type { NamesTold } from "../directory-names.ts";
import { ACCESS_ACL, S } from "../linux.ts";
import { FileIdMap } from "../file-id-map.ts";
import { type Attr, type DirPage, type Entry, type FileId, type Listing } from "../lower.ts";
import { isLasting, isNamed, saysOf } from "../xattr-names.ts";
import { KnownListings, type Listed, pageOf } from "./known-listings.ts";
import { ChangedNames, type Directory, KnownNames, nameKey, oldestUnchanged } from "./known-names.ts";

/** The locks of this node, as coherence has them. */
export interface Holds {
  /** Locks granted so far. */
  grants(): number;
  /** Which grant it is under which this node has the inode's lock, whatever its mode; 0: it has not, or is about to give it up. */
  of(id: FileId): number;
}

/** Nothing is held: nothing is known. */
export const NO_HOLDS: Holds = { grants: () => 0, of: () => 0 };

/** Inodes of which something is known; beyond, the one that was read or changed longest ago is forgotten. */
export const KNOWN_INODES_MAX = 8192;
/** Data of small files, in all: beyond, what came first is forgotten. */
export const KNOWN_DATA_BYTES_MAX: number = 2 * 1024 * 1024;

/** So many LOOKUPs in a directory found nothing, under one grant: the next one asks for all its names. A compiler looks for each header in each of its directories. */
export const ABSENT_NAMES_MIN = 3;
/** For each that found nothing so many names may be told again under that grant: where there is no room for the names of all directories, they push each other out. */
export const NAMES_AN_ABSENT = 8;

/** An access ACL that is longer is asked for each time: as many as inodes are known may be kept. */
export const KNOWN_ACL_BYTES_MAX = 1024;

/** Of changes of some kind. */
interface Changing {
  /** Under way. */
  changing: number;
  /** When the last one began or ended. */
  changedAt: number;
}

/** As Changing, of all of them. */
interface Known extends Directory, Listed, Changing, Recent<Known> {
  readonly id: FileId;
  /** Of the changes that are under way: those after which the owner makes what is asked later. */
  promised: number;
  /** The last one to begin, if it is one of those and its answer brings the attributes. */
  telling: Change | null;
  /** The grant under which all of it is true. */
  hold: number;
  attr: Attr | null;
  expected: Expected | null;
  /** Attributes from before the writes behind that were begun since, and nothing else: whose it is, and its names, these do not change. */
  owned: Attr | null;
  /** All of a small file that nobody here has read yet. */
  data: Uint8Array | null;
  /** A file that was made, or opened for writing, under this grant, and no flags of it were changed since (hazard F27): it may be opened so again. */
  writable: Writable;
  /** The first grant under which this node changed names of it; 0: none. Under another one, others may change some, too. */
  changedHold: number;
  /** Names that were asked for under this grant, and are not there: since the owner told its names last, and less for those. */
  absents: number;
  /** Of others than its owner the kernel asks for it; null: it has none; undefined: not known. */
  acl: Buffer | null | undefined;
  /** When the last change began. */
  begunAt: number;
  /** Of those that are not of names only, and may change the ACL. */
  readonly aclChanges: Changing;
  /** The names of its extended attributes; null: not known. A change of the data may have taken "security." ones away since. */
  xattrNames: Buffer | null;
  /** Of those that may make some. */
  readonly xattrChanges: Changing;
}

/** "at its end": it was opened with O_APPEND. After chattr +a a file takes nothing else. */
type Writable = "no" | "at its end" | "anywhere";

/** Of a file that was made here a moment ago, and has had changes since that need not be waited for, and no others (hazard F23). */
interface Expected {
  /** When those have been made; its times are those of this machine. */
  readonly attr: Attr;
  /** Until then such changes may begin. */
  readonly untilMs: number;
}

/** A call that reads, from before it is sent. */
export interface Reading {
  readonly grants: number;
  readonly at: number;
}

/** A change of an inode, from before it is sent to its answer. */
export interface Change extends Reading {
  readonly known: Known;
  readonly names: readonly string[];
  /** All others that were under way when it began are made before it. */
  readonly alone: boolean;
  /** The owner begins what is asked later when it has ended (hazard F23). */
  readonly promised?: boolean;
  /** Who waits until it has ended. */
  readonly waiters?: (() => void)[];
  /** It may make an extended attribute, or take one away. */
  readonly xattrs?: boolean;
}

export class KnownInodes {
  readonly #holds: Holds;
  readonly #keepsXattrs: () => boolean;
  readonly #inodes = new FileIdMap<Known>();
  readonly #recency = new Recency<Known>();
  readonly #names = new KnownNames();
  readonly #listings = new KnownListings();
  readonly #changedNames = new ChangedNames();
  /** Those with data. */
  readonly #files = new Set<Known>();
  #dataBytes = 0;
  /** Under which hold they were said to lack the names of their extended attributes. */
  readonly #lacking = new WeakMap<Known, number>();
  /** Counts beginnings and ends of changes. */
  #now = 0;
  /** Of inodes that are not known any more: what was changed until then may have been forgotten. */
  #forgotAt = 0;

  /** `keepsXattrs`: nobody changes extended attributes without the locks, and what is known of them counts. */
  constructor(holds: Holds, keepsXattrs: () => boolean) {
    this.#holds = holds;
    this.#keepsXattrs = keepsXattrs;
  }

  // --- what is known

  attr(id: FileId): Attr | null {
    const known = this.#inForce(id);
    if (known === undefined) return null;
    this.#recency.use(known);
    return known.attr;
  }

  /** Once: whoever reads to the end has it from then on. */
  takeData(id: FileId, offset: number, bytes: number): Uint8Array | null {
    const known = this.#inForce(id);
    const data = known?.data;
    if (known === undefined || data === null || data === undefined) return null;
    if (offset + bytes >= data.byteLength) this.#setData(known, null);
    return data.subarray(offset, offset + bytes);
  }

  /** What the attributes will be when the changes under way have been made, but for the times; null: not known, or too long ago. */
  expected(id: FileId, nowMs: number): Attr | null {
    const expected = this.#inForce(id)?.expected ?? null;
    return expected === null || nowMs >= expected.untilMs ? null : expected.attr;
  }

  /**
   * Owner, mode and links, also while changes are under way that have told them, or that do not change them (hazard F23). However long ago: only a change that
   * begins needs the room. The other attributes may be older.
   */
  ownership(id: FileId): Attr | null {
    const known = this.#inForce(id);
    return known === undefined ? null : (known.attr ?? known.expected?.attr ?? known.owned);
  }

  /** The owner would open that file for writing; `appends`: with O_APPEND. */
  isWritable(id: FileId, appends: boolean): boolean {
    const writable = this.#inForce(id)?.writable ?? "no";
    return writable === "anywhere" || (appends && writable === "at its end");
  }

  /** null: it has none of that name; undefined: not known. */
  xattr(id: FileId, name: Buffer): Buffer | null | undefined {
    const known = this.#inForce(id);
    if (known === undefined) return undefined;
    this.#recency.use(known);
    if (known.acl !== undefined && name.equals(ACCESS_ACL)) return known.acl;
    return known.xattrNames === null || isNamed(known.xattrNames, name) || !saysOf(name) ? undefined : null;
  }

  /** As listxattr(2) gives it; null: not known. */
  xattrList(id: FileId): Buffer | null {
    const list = this.#inForce(id)?.xattrNames ?? null;
    return list !== null && isLasting(list) ? list : null;
  }

  /** Its attributes are known, and came without the names of the extended ones. Once for each hold. */
  lacksXattrNames(id: FileId): boolean {
    const known = this.#inForce(id);
    if (known === undefined || known.attr === null || known.xattrNames !== null || !this.#keepsXattrs()) return false;
    if (this.#lacking.get(known) === known.hold) return false;
    this.#lacking.set(known, known.hold);
    return true;
  }

  hasData(id: FileId): boolean {
    const data = this.#inForce(id)?.data;
    return data !== null && data !== undefined;
  }

  /** Nobody changes the lower past its owner. */
  get isExclusive(): boolean {
    return this.#keepsXattrs();
  }

  /** null: there is no such name; undefined: not known. */
  entry(directory: FileId, name: Buffer): Entry | null | undefined {
    const id = this.#named(directory, name);
    if (id === null || id === undefined) return id;
    const attr = this.attr(id);
    return attr === null ? undefined : { id, attr };
  }

  /** What a listing says from there on; null: not known. */
  page(directory: FileId, from: bigint, bytes: number, listing: Listing): DirPage | null {
    const known = this.#inForce(directory);
    if (known === undefined || known.listing === null) return null;
    this.#recency.use(known);
    return pageOf(known.listing, from, bytes, listing);
  }

  isAbsent(directory: FileId, name: Buffer): boolean {
    return this.#named(directory, name) === null;
  }

  #named(directory: FileId, name: Buffer): FileId | null | undefined {
    const known = this.#inForce(directory);
    if (known === undefined || known.namesHold !== known.hold) return undefined;
    const named = known.names?.get(nameKey(name));
    if (named === "unsure") return undefined;
    return named === undefined && known.complete ? null : named;
  }

  #inForce(id: FileId): Known | undefined {
    const known = this.#inodes.get(id);
    return known !== undefined && known.hold !== 0 && known.hold === this.#holds.of(id) ? known : undefined;
  }

  // --- what is read

  reading(): Reading {
    return { grants: this.#holds.grants(), at: this.#now };
  }

  read(reading: Reading, id: FileId, attr: Attr): void {
    if (attr.xattrNames !== undefined) this.#readXattrNames(reading, id, attr.xattrNames);
    const known = this.#stillTrue(reading, id);
    if (known !== null) known.attr = attr;
  }

  /** The owner has opened that file for writing; `appends`: with O_APPEND. */
  readWritable(reading: Reading, id: FileId, appends: boolean): void {
    const known = this.#stillTrue(reading, id);
    if (known !== null && known.writable !== "anywhere") known.writable = appends ? "at its end" : "anywhere";
  }

  /** Its flags may be changed. */
  endWritable(id: FileId): void {
    const known = this.#inodes.get(id);
    if (known !== undefined) known.writable = "no";
  }

  /** `acl`: null: it has none. */
  readAcl(reading: Reading, id: FileId, acl: Buffer | null): void {
    if (!this.#keepsXattrs() || (acl?.length ?? 0) > KNOWN_ACL_BYTES_MAX) return;
    const known = this.#stillTrue(reading, id, ({ aclChanges }) => aclChanges);
    // Memory of its own, and not a part of what it came in.
    if (known !== null) known.acl = acl === null ? null : Buffer.from(Uint8Array.from(acl).buffer);
  }

  #readXattrNames(reading: Reading, id: FileId, names: Buffer): void {
    const known = this.#keepsXattrs() ? this.#stillTrue(reading, id, ({ xattrChanges }) => xattrChanges) : null;
    if (known !== null) known.xattrNames = names;
  }

  /** All of it. Copied. */
  readData(reading: Reading, id: FileId, data: Uint8Array): void {
    const known = this.#stillTrue(reading, id);
    if (known !== null && known.attr?.size === data.byteLength) this.#setData(known, Uint8Array.from(data));
  }

  /** `id`: null where there is no such name. */
  readName(reading: Reading, directory: FileId, name: Buffer, id: FileId | null): void {
    const key = nameKey(name);
    const known = this.#stillNamed(reading, directory, key);
    if (known === null) return;
    this.#names.set(known, key, id);
    if (id === null) known.absents += 1;
  }

  readEntry(reading: Reading, directory: FileId, name: Buffer, { id, attr }: Entry): void {
    this.readName(reading, directory, name, id);
    this.read(reading, id, attr);
  }

  /** A page of its listing, from there on. Where others change the lower past its owner none is kept. */
  readPage(reading: Reading, directory: FileId, from: bigint, page: DirPage): void {
    const known = this.#keepsXattrs() ? this.#stillTrue(reading, directory) : null;
    if (known !== null) this.#listings.read(known, from, page);
  }

  /** The version since which the next LOOKUP in it is to ask for its changed names, 0: for all; null: that is of no use. */
  namesSince(directory: FileId): number | null {
    const known = this.#inodes.get(directory);
    const hold = this.#holds.of(directory);
    // Beside a change of it the answer does not count, which may be of all names.
    if (known === undefined || hold === 0 || known.changing > 0) return null;
    this.#under(known, hold);
    const all = known.complete && known.namesHold === hold;
    const fought = known.changedHold !== 0 && known.changedHold !== hold;
    const ofUse = fought || known.absents >= ABSENT_NAMES_MIN || known.version !== 0;
    return ofUse && !all && known.absents >= 0 ? known.version : null;
  }

  /** Hazard F32. The owner's answer to `namesSince`: these names are to be asked for, or are gone, and of all others is known what was known then. */
  readNames(reading: Reading, directory: FileId, since: number, told: NamesTold | null): void {
    const asked = this.#inodes.get(directory);
    if (asked !== undefined && told !== null) asked.absents = Math.min(asked.absents, 0);
    const known = this.#stillTrue(reading, directory);
    if (known === null || (known.complete && known.namesHold === known.hold)) return;
    const before = known.complete && known.version === since;
    // Those of an earlier lock are of no use else; those of this one are true.
    const isTold = told !== null && (told.all || before);
    if ((!isTold || told.all) && known.namesHold !== known.hold) this.#names.drop(known);
    if (!isTold) return;
    const found = known.namesHold === known.hold ? known.names : null;
    known.absents = told.all ? -Math.ceil(told.names.length / NAMES_AN_ABSENT) : 0;
    known.complete = true;
    known.version = told.version;
    known.namesHold = known.hold;
    for (const name of told.gone.map(nameKey)) if (found?.has(name) !== true) this.#names.delete(known, name);
    for (const name of told.names.map(nameKey)) if (found?.has(name) !== true) this.#names.set(known, name, "unsure");
  }

  /** As #stillTrue, of one name: those of others may change meanwhile. */
  #stillNamed(reading: Reading, directory: FileId, name: string): Known | null {
    if (this.#changedNames.isSince(directory, name, reading.at)) return null;
    const hold = this.#grantId(reading, directory);
    return hold === 0 ? null : this.#under(this.#enter(directory), hold);
  }

  /** null: the lock was elsewhere since, or there was a change: of any kind, or of that which `by` gives. */
  #stillTrue(reading: Reading, id: FileId, by: (known: Known) => Changing = (known) => known): Known | null {
    const found = this.#inodes.get(id);
    const changes = found === undefined ? { changing: 0, changedAt: this.#forgotAt } : by(found);
    if (changes.changing > 0 || changes.changedAt > reading.at) return null;
    const hold = this.#grantId(reading, id);
    return hold === 0 ? null : this.#under(this.#enter(id), hold);
  }

  #grantId(reading: Reading, id: FileId): number {
    const hold = this.#holds.of(id);
    return hold > reading.grants ? 0 : hold;
  }

  // --- what is changed

  /** As `begin`, of a change that may make an extended attribute, or take one away. */
  beginXattrs(id: FileId): Change {
    const change = this.begin(id);
    this.#changeXattrs(change.known, 1);
    return { ...change, xattrs: true };
  }

  /** The inode is about to be changed, and those names of it. */
  begin(id: FileId, ...changed: readonly Buffer[]): Change {
    const known = this.#enter(id);
    const names = changed.map(nameKey);
    const alone = known.changing === known.promised;
    this.#listings.drop(known);
    known.attr = null;
    known.expected = null;
    known.owned = null;
    this.#setData(known, null);
    known.changing += 1;
    this.#now += 1;
    known.telling = null;
    known.begunAt = this.#now;
    known.changedAt = this.#now;
    if (names.length === 0) this.#changeAcl(known, 1);
    if (names.length > 0 && known.changedHold === 0) known.changedHold = this.#holds.of(id);
    for (const name of names) {
      this.#changedNames.note(id, name, 1, this.#now);
      if (known.complete) this.#names.set(known, name, "unsure");
      else this.#names.delete(known, name);
    }
    return { known, names, alone, grants: this.#holds.grants(), at: this.#now };
  }

  /** As `begin`, of a write behind. */
  beginWrite(id: FileId): Change {
    const before = this.ownership(id);
    const change = this.begin(id);
    change.known.owned = before;
    return change;
  }

  /** As `begin`; afterwards the inode has `attr`, but for its times: of one of which it was `expected`. */
  beginExpected(id: FileId, attr: Attr): Change {
    const before = this.#inForce(id)?.expected ?? null;
    const change = this.begin(id);
    if (before !== null) change.known.expected = { attr, untilMs: before.untilMs };
    return change;
  }

  /** That change, which has just begun, is one of which a program was told that it is made. */
  promised(change: Change): Change {
    const { known } = change;
    const promised = { ...change, promised: true, waiters: [] };
    known.promised += 1;
    if (this.wantsAttr(change)) known.telling = promised;
    return promised;
  }

  /** Resolves when a change of which a program was told has ended, whose answer brings the attributes; null: none is under way. */
  whenTold(id: FileId): Promise<void> | null {
    const waiters = this.#inodes.get(id)?.telling?.waiters;
    return waiters === undefined ? null : new Promise((resolve) => waiters.push(resolve));
  }

  /** One of the changes after which it was expected was not made. */
  notAsExpected(id: FileId): void {
    const known = this.#inodes.get(id);
    if (known !== undefined) [known.expected, known.owned] = [null, null];
  }

  /** True: attributes that the answer brings will count, unless something comes in between. */
  wantsAttr({ known, alone }: Change): boolean {
    return alone && this.#holds.of(known.id) !== 0;
  }

  /** The lock has not left since it began, and is not about to. */
  isHeldSince(change: Change): boolean {
    return this.#grantId(change, change.known.id) !== 0;
  }

  /** `attr`: read after it was made; null: not known. `named`: whose the names are now, null: nobody's; none: not known. */
  end(change: Change, attr: Attr | null, ...named: readonly (FileId | null)[]): void {
    const { known, alone, names } = change;
    known.changing -= 1;
    this.#now += 1;
    known.changedAt = this.#now;
    if (names.length === 0) this.#changeAcl(known, -1);
    if (change.xattrs === true) this.#changeXattrs(known, -1);
    if (change.promised === true) known.promised -= 1;
    if (known.telling === change) known.telling = null;
    for (const wake of change.waiters ?? []) wake();
    for (const name of names) this.#changedNames.note(known.id, name, -1, this.#now);
    // One that was under way beside it may have been made before or after it.
    if (!alone || known.begunAt !== change.at) return;
    const hold = this.#grantId(change, known.id);
    if (hold === 0) return;
    this.#under(known, hold).attr = attr;
    if (attr !== null && known.expected !== null) known.expected = { attr, untilMs: known.expected.untilMs };
    names.forEach((name, at) => {
      const id = named[at];
      if (id !== undefined) this.#names.changed(known, name, id);
    });
  }

  /** `by`: 1: a change begins that may be one of it; -1: it ends. */
  #changeAcl(known: Known, by: 1 | -1): void {
    known.acl = undefined;
    known.aclChanges.changing += by;
    known.aclChanges.changedAt = this.#now;
  }

  /** The same, of its extended attributes. */
  #changeXattrs(known: Known, by: 1 | -1): void {
    known.xattrNames = null;
    known.xattrChanges.changing += by;
    known.xattrChanges.changedAt = this.#now;
  }

  /** It was made here, and its lock is here. A directory is empty. No file gets the flags from its directory that forbid writing (ext4: EXT4_FL_INHERITED; XFS). */
  made(id: FileId, { mode, xattrNames }: Attr): void {
    const isDirectory = (mode & S.IFMT) === S.IFDIR;
    const isFile = (mode & S.IFMT) === S.IFREG;
    if (!isDirectory && !isFile && xattrNames === undefined) return;
    const known = this.#under(this.#enter(id), this.#holds.of(id));
    known.writable = isFile && known.hold !== 0 && known.changing === 0 ? "anywhere" : "no";
    if (known.hold !== 0 && known.xattrChanges.changing === 0 && this.#keepsXattrs()) known.xattrNames = xattrNames ?? null;
    if (!isDirectory) return;
    this.#names.drop(known);
    known.complete = known.hold !== 0 && known.changing === 0;
    known.namesHold = known.hold;
  }

  /** A file with these attributes was made here, and its lock is here. Until `untilMs` its next changes need not be waited for. */
  madeFile(id: FileId, attr: Attr, untilMs: number): void {
    const known = this.#under(this.#enter(id), this.#holds.of(id));
    if (known.hold !== 0 && known.changing === 0) known.expected = { attr, untilMs };
  }

  // --- what is forgotten

  /** It was removed. */
  forget(id: FileId): void {
    const known = this.#inodes.get(id);
    if (known !== undefined) this.#under(known, 0);
  }

  /** There is another owner: what the last one had done need not be so any more. What is under way stays under way. */
  clear(): void {
    this.#now += 1;
    this.#forgotAt = this.#now;
    this.#changedNames.forget(this.#now);
    for (const known of this.#inodes.values()) {
      this.#under(known, 0);
      known.changedAt = this.#now;
      known.aclChanges.changedAt = this.#now;
      known.xattrChanges.changedAt = this.#now;
      if (known.changing === 0) this.#drop(known);
    }
  }

  /** As of that hold. */
  #under(known: Known, hold: number): Known {
    if (known.hold === hold && hold !== 0) return known;
    known.hold = hold;
    known.absents = 0;
    this.#listings.drop(known);
    known.attr = null;
    known.expected = null;
    known.owned = null;
    known.writable = "no";
    known.acl = undefined;
    known.xattrNames = null;
    this.#setData(known, null);
    // All that there were may be of use again.
    if (hold === 0 || !known.complete || known.version === 0) this.#names.drop(known);
    return known;
  }

  #enter(id: FileId): Known {
    let known = this.#inodes.get(id);
    if (known === undefined) {
      const changedAt = this.#forgotAt;
      known = {
        id,
        promised: 0,
        telling: null,
        older: null,
        newer: null,
        hold: 0,
        attr: null,
        expected: null,
        owned: null,
        data: null,
        writable: "no",
        listing: null,
        names: null,
        complete: false,
        namesHold: 0,
        version: 0,
        changedHold: 0,
        absents: 0,
        acl: undefined,
        changing: 0,
        begunAt: 0,
        changedAt,
        aclChanges: { changing: 0, changedAt },
        xattrNames: null,
        xattrChanges: { changing: 0, changedAt },
      };
      this.#inodes.add(known);
      this.#recency.add(known);
    } else this.#recency.use(known);
    const forgotten = this.#inodes.size > KNOWN_INODES_MAX ? oldestUnchanged(this.#recency) : null;
    if (forgotten !== null) {
      this.#drop(forgotten);
      this.#under(forgotten, 0);
      this.#forgotAt = Math.max(this.#forgotAt, forgotten.changedAt);
    }
    return known;
  }

  #drop(known: Known): void {
    this.#inodes.delete(known);
    this.#recency.remove(known);
  }

  // --- data

  #setData(known: Known, data: Uint8Array | null): void {
    this.#dataBytes += (data?.byteLength ?? 0) - (known.data?.byteLength ?? 0);
    known.data = data;
    this.#files.delete(known);
    if (data === null) return;
    this.#files.add(known);
    for (const oldest of this.#files) {
      if (this.#dataBytes <= KNOWN_DATA_BYTES_MAX) return;
      this.#setData(oldest, null);
    }
  }
}
