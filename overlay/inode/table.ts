/**
 * The inodes that this mount's kernel knows, by the number given to the kernel (`fuseNodeid`) and by identity. numbers.ts makes the number of the
 * identity. ext4 gives a deleted file's inode number to the next one at once, and a kernel that met the old number again would take the new
 * file for the old: so no two records have one number, and one that would is counted instead. A record goes when the kernel has given back
 * every lookup, so nothing of the old one is on its way when its number comes back (hazard F29). What the kernel counts, and when it
 * forgets: Documentation/filesystems/fuse.rst, fs/fuse/inode.c (fuse_iget, fuse_evict_inode).
 *
 * A record lives while the kernel counts lookups of it, while it is open, and while an operation uses it. Memory: a record
 * and one table row; how many there are is the kernel's choice (it forgets when memory is short).
 */
import { AssertionError } from "../../dlmd/base/assert.ts";
import { type Cover, type Inode, type InodeKind, type NumberedInode, ROOT_FUSE_NODEID } from "../coherence/cover.ts";
import type { FileId } from "../lower/lower.ts";
import type { PagedInode } from "../coherence/pages/paged-inode.ts";
import { COUNTED_FROM, fuseNodeidOf, inoOf } from "./numbers.ts";

const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
const S_IFDIR = 0o040000;
const NO_INODE: FileId = { ino: 0, generation: 0 };

export function inodeKind(mode: number): InodeKind {
  const type = mode & S_IFMT;
  return type === S_IFREG ? "file" : type === S_IFDIR ? "directory" : "other";
}

/** The table's own record; the coherence layer sees the Inode in it. */
export interface InodeRecord extends PagedInode {
  /** Operations that hold this record now. */
  useCount: number;
  /** Coherence.grantId when it was made here: a file that was just made has no capabilities. 0: it may have. */
  uncappedHold: number;
  /** The link count in the last attributes seen here: a hint, for what is worth keeping. */
  nlinkHint: number;
  /** Of the journal; -1: none. */
  row: number;
  unsure: number;
  /** Another record with the same inode number: an older generation that the kernel has not forgotten yet. */
  sibling: InodeRecord | null;
}

/** What is written down for a process that goes on after a crash (overlay/crash/, hazard F39). */
export interface InodeJournal {
  /** The kernel is about to be told of it once more. */
  telling(record: InodeRecord): void;
  counted(record: InodeRecord, nlookup: number): void;
  dropped(record: InodeRecord): void;
  countedUp(nextCounted: number): void;
  /** From a process before this one, which has ended in good order. */
  restoredInode(record: InodeRecord): void;
}

export interface InodeTableOptions {
  readonly journal?: InodeJournal | null;
  readonly root: FileId;
  readonly createCover: (id: FileId, kind: InodeKind) => Cover;
  /** The record goes. `removed`: the inode itself is (as far as known here) deleted. */
  readonly dropped: (inode: Inode, removed: boolean) => void;
}

/** A record as another process of this mount goes on with it. */
export interface InodeRow {
  readonly fuseNodeid: number;
  readonly id: FileId;
  readonly kind: InodeKind;
  readonly nlookup: number;
  readonly nlinkHint: number;
  /** After a crash: where the journal has it. Its lookups are `unsure` then. */
  readonly row?: number;
}

export class InodeTable {
  readonly root: InodeRecord;
  readonly #options: InodeTableOptions;
  readonly #journal: InodeJournal | null;
  /** By inode number, which the kernel's number has in it, and from there along `sibling`. */
  readonly #byIno = new Map<number, InodeRecord>();
  /** By the kernel's number: those that the number does not lead to, being the root's, counted, or that of an inode whose identity another one has. */
  readonly #byNodeid = new Map<number, InodeRecord>();
  #size = 0;
  /** Numbers of which `unknown` has taken lookups off. */
  readonly #takenOff = new Set<number>();
  #nextCounted = COUNTED_FROM;

  constructor(options: InodeTableOptions) {
    this.#options = options;
    this.#journal = options.journal ?? null;
    this.root = this.#create(options.root, "directory", ROOT_FUSE_NODEID);
    this.root.nlookup = 1;
  }

  get size(): number {
    return this.#size;
  }

  /** All but the root, and the next number that is counted. null: one is of a lost inode, and another one has its identity. */
  rows(): { readonly rows: readonly InodeRow[]; readonly nextCounted: number } | null {
    const rows: InodeRow[] = [];
    for (const record of this.all()) {
      if (record === this.root) continue;
      if (this.find(record.id) !== record) return null;
      const { fuseNodeid, id, kind, nlookup, nlinkHint } = record;
      rows.push({ fuseNodeid, id, kind, nlookup, nlinkHint });
    }
    return { rows, nextCounted: this.#nextCounted };
  }

  /** What the process before has had. Before any request; handles are added by `opened`. */
  restore(rows: readonly InodeRow[], nextCounted: number): void {
    this.#nextCounted = nextCounted;
    this.#journal?.countedUp(nextCounted);
    for (const { fuseNodeid, id, kind, nlookup, nlinkHint, row } of rows) {
      if (this.get(fuseNodeid) !== undefined) throw new AssertionError(`inode ${fuseNodeid} was handed over twice`);
      const same = this.find(id);
      const record = this.#create(id, kind, fuseNodeid);
      // After a crash: one of the two was lost. The other was made when that number was taken, and so counted, which makes larger numbers.
      if (same !== undefined) this.#lose(same.fuseNodeid < fuseNodeid ? same : record);
      record.nlookup = nlookup;
      record.nlinkHint = nlinkHint;
      if (row === undefined) {
        this.#journal?.restoredInode(record);
        continue;
      }
      record.row = row;
      record.unsure = nlookup;
    }
  }

  all(): InodeRecord[] {
    const records: InodeRecord[] = [];
    for (const first of this.#byIno.values()) {
      for (let record: InodeRecord | null = first; record !== null; record = record.sibling) records.push(record);
    }
    for (const record of this.#byNodeid.values()) if (this.find(record.id) !== record) records.push(record);
    return records;
  }

  /** The record behind the number that a request names; undefined: the kernel was never told it, or forgot it. */
  get(fuseNodeid: number): InodeRecord | undefined {
    const ino = inoOf(fuseNodeid);
    let record = ino === null ? null : (this.#byIno.get(ino) ?? null);
    while (record !== null && record.fuseNodeid !== fuseNodeid) record = record.sibling;
    return record ?? this.#byNodeid.get(fuseNodeid);
  }

  /** All records of that inode number: of several generations, if the kernel has not forgotten the older ones. */
  withIno(ino: number): InodeRecord[] {
    const found: InodeRecord[] = [];
    for (let record = this.#byIno.get(ino) ?? null; record !== null; record = record.sibling) found.push(record);
    return found;
  }

  /**
   * The record of that identity, created if need be, and in use until `leave`. `mode`: its st_mode. One of another kind is of an inode that was lost
   * with an owner: XFS counts generations up from what is on the disk, so that what is made instead may have the same.
   */
  remember(id: FileId, mode: number): InodeRecord {
    const kind = inodeKind(mode);
    const found = this.find(id);
    if (found !== undefined && found.kind !== kind) this.#lose(found);
    const record = found?.kind === kind ? found : this.#create(id, kind, this.#numberOf(id));
    record.useCount += 1;
    return record;
  }

  /**
   * A number that stands for no inode: whatever the kernel asks of it is ESTALE. It is counted nowhere, so a FORGET of it is one of an
   * unknown number.
   */
  standIn(): NumberedInode {
    return { fuseNodeid: this.#count(), id: NO_INODE };
  }

  /** Before a reply that tells the kernel of it; then `told`. */
  telling(record: InodeRecord): void {
    if (record !== this.root) this.#journal?.telling(record);
  }

  /** `given`: the kernel has taken the reply. */
  told(record: InodeRecord, given: boolean): boolean {
    if (given) record.nlookup += 1;
    else this.#journal?.counted(record, record.nlookup);
    return given;
  }

  /** `answer`: tells the kernel of it. Gives what it gives: whether the kernel has taken that. */
  tell(record: InodeRecord, answer: () => boolean): boolean {
    this.telling(record);
    return this.told(record, answer());
  }

  /** The kernel does not know it, though a process before this one has told it so, or was about to. */
  unknown(record: InodeRecord): void {
    if (record.unsure === 0) return;
    this.#takenOff.add(record.fuseNodeid);
    record.nlookup -= record.unsure;
    record.unsure = 0;
    this.#journal?.counted(record, record.nlookup);
    if (record.nlookup === 0) this.#settle(record);
  }

  /** In use by an operation: it stays in the table until `leave`, whatever the kernel forgets meanwhile. */
  use(record: InodeRecord): void {
    record.useCount += 1;
  }

  leave(record: InodeRecord): void {
    if (record.useCount <= 0) throw new AssertionError(`inode ${record.cover.key} left more often than used`);
    record.useCount -= 1;
    if (record.useCount === 0 && record.nlookup === 0) this.#settle(record);
  }

  /** FORGET: the kernel gives back that many lookups. A number that is not known here is the kernel's error and ignored. */
  forget(fuseNodeid: number, nlookups: number): void {
    const record = this.get(fuseNodeid);
    if (record === undefined || record === this.root) return;
    // Of lookups that were taken off before it came (`unknown`), and more than this process has given: it is not of these.
    if (nlookups > record.nlookup && this.#takenOff.delete(fuseNodeid)) return;
    if (nlookups > record.nlookup)
      throw new AssertionError(`FORGET of ${nlookups} lookups of inode ${record.cover.key}, which has ${record.nlookup}`);
    record.nlookup -= nlookups;
    // Those of this process go first: what is left of the others the kernel may not have.
    record.unsure = Math.min(record.unsure, record.nlookup);
    this.#journal?.counted(record, record.nlookup);
    if (record.nlookup === 0) this.#settle(record);
  }

  opened(record: InodeRecord, mappable: boolean): void {
    record.openCount += 1;
    if (mappable) record.mappableCount += 1;
  }

  closed(record: InodeRecord, mappable: boolean): void {
    if (record.openCount <= 0) throw new AssertionError(`inode ${record.cover.key} closed more often than opened`);
    record.openCount -= 1;
    if (mappable) record.mappableCount -= 1;
    if (record.openCount === 0 && record.nlookup === 0) this.#settle(record);
  }

  /** The mount is gone, and with it all that its kernel knew. */
  clear(): void {
    for (const record of this.all()) {
      record.nlookup = 0;
      record.openCount = 0;
      record.mappableCount = 0;
      this.#options.dropped(record, false);
    }
    this.#byNodeid.clear();
    this.#byIno.clear();
    this.#size = 0;
  }

  #settle(record: InodeRecord): void {
    if (record.nlookup > 0 || record.openCount > 0 || record.useCount > 0) return;
    if (this.get(record.fuseNodeid) !== record) return;
    this.#byNodeid.delete(record.fuseNodeid);
    this.#size -= 1;
    this.#journal?.dropped(record);
    // Another one may have taken its identity.
    if (this.find(record.id) === record) this.#unlinkSibling(record);
    this.#options.dropped(record, record.nlinkHint === 0);
  }

  /** undefined: this kernel was never told of it, or forgot it. */
  find(id: FileId): InodeRecord | undefined {
    let record = this.#byIno.get(id.ino) ?? null;
    while (record !== null && record.id.generation !== id.generation) record = record.sibling;
    return record ?? undefined;
  }

  /** Another one has its identity. */
  #lose(record: InodeRecord): void {
    this.#unlinkSibling(record);
    this.#byNodeid.set(record.fuseNodeid, record);
  }

  #unlinkSibling(record: InodeRecord): void {
    const first = this.#byIno.get(record.id.ino);
    if (first === record) {
      if (record.sibling === null) this.#byIno.delete(record.id.ino);
      else this.#byIno.set(record.id.ino, record.sibling);
      return;
    }
    let before: InodeRecord | null = first ?? null;
    while (before !== null && before.sibling !== record) before = before.sibling;
    if (before === null) throw new AssertionError(`inode ${record.cover.key} is not in the table`);
    before.sibling = record.sibling;
  }

  #count(): number {
    const fuseNodeid = this.#nextCounted;
    this.#nextCounted += 1;
    this.#journal?.countedUp(this.#nextCounted);
    return fuseNodeid;
  }

  /** An older generation, or one of another kind, may have its number, as long as the kernel has not forgotten it. */
  #numberOf(id: FileId): number {
    const fuseNodeid = fuseNodeidOf(id);
    return fuseNodeid === null || this.get(fuseNodeid) !== undefined ? this.#count() : fuseNodeid;
  }

  #create(id: FileId, kind: InodeKind, fuseNodeid: number): InodeRecord {
    const cover = this.#options.createCover(id, kind);
    const record: InodeRecord = {
      fuseNodeid,
      // Those of the cover: there are many.
      id: cover.id,
      kind,
      nlookup: 0,
      openCount: 0,
      mappableCount: 0,
      useCount: 0,
      readSweep: -1,
      readsUnderWay: 0,
      requests: null,
      uncappedHold: 0,
      nlinkHint: 1,
      row: -1,
      unsure: 0,
      sibling: this.#byIno.get(id.ino) ?? null,
      cover,
    };
    if (inoOf(fuseNodeid) !== id.ino) this.#byNodeid.set(fuseNodeid, record);
    this.#byIno.set(id.ino, record);
    this.#size += 1;
    return record;
  }
}
