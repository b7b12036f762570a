/** What each call of one overlay to the lower of another carries, and what its answer brings. */
import type { NamesTold } from "../directory-names.ts";
import type { Attr, AttrChange, AttributesKind, Caller, DirPage, Entry, Fetched, FileId, Listing, StatFs } from "../lower.ts";

export interface Name {
  readonly parent: FileId;
  readonly name: Buffer;
}
/** A change of a directory's names. */
export interface NameChange extends Name {
  /** Whether the answer is to bring the directory's attributes. */
  readonly tellParent: boolean;
}
export interface Made extends NameChange {
  readonly mode: number;
  readonly caller: Caller;
}
export interface Removed extends NameChange {
  readonly expected: FileId;
}
/** The directory's attributes after the change; null: not asked for, or not to be had. */
export interface ParentTold {
  readonly parent: Attr | null;
}
export interface EntryMade extends ParentTold {
  readonly entry: Entry;
}
export interface Identified {
  readonly id: FileId;
}
export interface Handled {
  readonly handle: number;
}
export interface Opened extends Identified {
  readonly flags: number;
}
export interface Synced extends Handled {
  readonly dataOnly: boolean;
}
export interface Attribute extends Identified {
  readonly name: Buffer;
}
export interface RenameRequest {
  readonly oldParent: FileId;
  readonly oldName: Buffer;
  readonly newParent: FileId;
  readonly newName: Buffer;
  readonly flags: number;
  readonly expectedOld: FileId;
  readonly expectedNew: FileId | null;
  /** The answer is to bring attributes. */
  readonly tell: boolean;
}
/** As they are after it; null: not asked for, not to be had, or the same directory. */
export interface Renamed {
  readonly oldParent: Attr | null;
  readonly newParent: Attr | null;
  readonly moved: Attr | null;
}
export interface CopyRequest {
  readonly inHandle: number;
  readonly inOffset: number;
  readonly outHandle: number;
  readonly outOffset: number;
  readonly bytes: number;
}

/** A change or a sync that a process of this mount asked the owner for, and that died since. */
/** A range that a program of the caller has locked. `heldMs`: for so long; whole. */
export interface DepositedLock {
  readonly id: FileId;
  readonly owner: { readonly kind: "posix" | "flock"; readonly owner: bigint };
  readonly range: { readonly type: "read" | "write"; readonly start: bigint; readonly end: bigint };
  readonly heldMs: number;
}

export interface AskedCall {
  readonly id: number;
  readonly type: number;
  /** Of one that its program was told to be made (hazard F23): its body as on the wire, data and all. Else null. */
  readonly body: Uint8Array | null;
}
/** "answered": `type` and `body` as the answer has them on the wire. "not-made": and it will not be. "unknown-session": nobody can tell. */
export type Outcome =
  | { readonly state: "answered"; readonly type: number; readonly body: Uint8Array }
  | { readonly state: "not-made" }
  | { readonly state: "unknown-session" };

/** Each call's request and answer. */
export interface WireCalls {
  lookup: { request: Name; answer: Entry };
  /** As "lookup", and what the caller has to ask anew of the names that it knew at `since`, 0: of none (hazard F32). Null: no such name; not to be told. */
  lookupSince: { request: Name & { readonly since: number }; answer: { readonly entry: Entry | null; readonly names: NamesTold | null } };
  /** The same with the attributes of the directory. */
  getattrSince: { request: Identified & { readonly since: number }; answer: { readonly attr: Attr; readonly names: NamesTold | null } };
  lookupMany: { request: { readonly parent: FileId; readonly names: readonly Buffer[] }; answer: readonly (Entry | null)[] };
  byNumber: { request: { readonly ino: number }; answer: Entry };
  parentOf: { request: Identified; answer: Entry };
  pathOf: { request: Identified; answer: Buffer };
  getattr: { request: Identified; answer: Attr };
  getattrMany: { request: { readonly ids: readonly FileId[] }; answer: readonly (Attr | null)[] };
  /** `promised`, `room`: as of "write"; the latter only of a change of the size. */
  setattr: {
    request: Identified & { readonly change: AttrChange; readonly handle: number | null; readonly promised: boolean };
    answer: { readonly attr: Attr; readonly room: boolean };
  };
  readlink: { request: Identified; answer: Buffer };
  /** `room`: what is written to it in the next moment will find room on the disk, and need not be waited for (hazard F23). */
  create: { request: Made & { readonly flags: number; readonly handle: number }; answer: EntryMade & { readonly room: boolean } };
  /** The answer's attributes: of a file that has no link. */
  tmpfile: {
    request: {
      readonly parent: FileId;
      readonly mode: number;
      readonly caller: Caller;
      readonly flags: number;
      readonly linkable: boolean;
      readonly handle: number;
    };
    answer: Entry;
  };
  mkdir: { request: Made; answer: EntryMade };
  mknod: { request: Made & { readonly rdevMajor: number; readonly rdevMinor: number }; answer: EntryMade };
  symlink: { request: NameChange & { readonly target: Buffer; readonly caller: Caller }; answer: EntryMade };
  unlink: { request: Removed; answer: ParentTold };
  rmdir: { request: Removed; answer: ParentTold };
  rename: { request: RenameRequest; answer: Renamed };
  link: {
    request: Identified & { readonly newParent: FileId; readonly newName: Buffer; readonly tellParent: boolean };
    answer: ParentTold & { readonly attr: Attr };
  };
  /** `promised`: the caller's program has it open already. If it cannot be opened now, the owner keeps it, but for ESTALE (hazard F22). */
  open: { request: Opened & Handled & { readonly promised: boolean }; answer: void };
  /** `promised`: a program has it open already; what is asked through it right behind this waits for it. */
  opendir: { request: Identified & Handled & { readonly promised: boolean }; answer: void };
  /** Several files; one that is not open is none. */
  close: { request: { readonly handles: readonly number[] }; answer: void };
  /** `open`: as in "open", promised, before it is read, if that handle is not open yet. */
  read: { request: Handled & { readonly offset: number; readonly bytes: number; readonly open: Opened | null }; answer: Uint8Array };
  /** Whole files of at most 8 KiB that have a name; null: longer, gone, or not to be read now. */
  readMany: { request: { readonly ids: readonly FileId[] }; answer: readonly (Uint8Array | null)[] };
  /** All that this caller has open is open at this owner. Sent after that, once for each owner. */
  claimed: { request: void; answer: void };
  /** To the owner of that epoch: give the volume to that node, 0: to the lowest other. `refused`: why not, as words; "": it is begun. */
  handOver: { request: { readonly epoch: number; readonly heir: number }; answer: { readonly heir: number; readonly refused: string } };
  /**
   * To the owner of that epoch: this caller goes away for a moment and comes back as another client (hazard F35). What it has open stays open, and the owner queues
   * first for its write tokens and for its files with locks, until `collect`. May come in parts. `refused`: why not, as words; "": all that was named is queued for.
   */
  deposit: {
    /**
     * `isLast`: no other part comes. `dlmdDied`: that of the caller (hazard F42). `locked`: files whose locks no other node uses; `sharedLocks`: of other files, each in
     * dlmd's service. `shared`: what nobody may change, since the caller's kernel has pages of it.
     */
    request: {
      readonly epoch: number;
      readonly ticket: string;
      readonly isLast: boolean;
      readonly dlmdDied: boolean;
      readonly tokens: readonly FileId[];
      readonly locked: readonly FileId[];
      readonly sharedLocks: readonly DepositedLock[];
      readonly shared: readonly FileId[];
    };
    answer: { readonly refused: string };
  };
  /** What was deposited under that ticket is given up here: who asks has opened and queued for all of it. `found`: it was still here. */
  collect: { request: { readonly ticket: string }; answer: { readonly found: boolean } };
  /** To a KEEP with that id. `refused`: why it is not kept, in words; "": it is. */
  kept: { request: { readonly id: number; readonly refused: string }; answer: void };
  /**
   * What became of calls of another client of this caller's node, whose process has died (hazard F38). Nothing that still comes from there is executed. What had
   * come is, and then each call that has a body and was not, in the order given. Asked again: the same.
   */
  outcomes: { request: { readonly client: number; readonly calls: readonly AskedCall[] }; answer: readonly Outcome[] };
  fetch: { request: Identified & Handled & { readonly offset: number; readonly bytes: number }; answer: Fetched };
  write: {
    /**
     * `tell`: the file, if the answer is to bring its attributes. `promised`: the program has been told that it is written, so the owner begins no later call
     * of this caller before it has ended (hazard F23). `room`: the answer is to say what that of "create" says.
     */
    request: Handled & {
      readonly offset: number;
      readonly append: boolean;
      readonly promised: boolean;
      readonly room: boolean;
      readonly tell: FileId | null;
      readonly data: Uint8Array;
    };
    answer: { readonly offset: number; readonly bytes: number; readonly room: boolean; readonly attr: Attr | null };
  };
  fsync: { request: Synced; answer: void };
  fsyncdir: { request: Synced; answer: void };
  fallocate: { request: Handled & { readonly mode: number; readonly offset: number; readonly bytes: number }; answer: void };
  lseek: { request: Handled & { readonly offset: number; readonly whence: number }; answer: number };
  copyFileRange: { request: CopyRequest; answer: number };
  readdir: { request: Handled & { readonly cookie: bigint; readonly bytes: number; readonly listing: Listing }; answer: DirPage };
  statfs: { request: void; answer: StatFs };
  getxattr: { request: Attribute; answer: Buffer };
  setxattr: { request: Attribute & { readonly value: Buffer; readonly flags: number }; answer: void };
  listxattr: { request: Identified; answer: Buffer };
  removexattr: { request: Attribute; answer: void };
  fileAttributes: { request: Handled & { readonly kind: AttributesKind }; answer: Buffer };
  setFileAttributes: { request: Handled & { readonly kind: AttributesKind; readonly value: Buffer }; answer: void };
  syncfs: { request: void; answer: void };
}

export type CallName = keyof WireCalls;
export type RequestOf<K extends CallName> = WireCalls[K]["request"];
export type AnswerOf<K extends CallName> = WireCalls[K]["answer"];
