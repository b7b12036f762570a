/**
 * The calls of one overlay to the lower of another: one row each, with the codecs of the call and of its answer.
 *
 * Handles are numbers that the caller chooses and never uses twice: so an open may be sent again without harm, and a
 * handle keeps its number when it is opened again at the next owner.
 */
import { ByteReader, type ByteWriter } from "../../../dlmd/base/bytes.ts";
import { WireError } from "../../../dlmd/base/error.ts";
import { MAX_GETATTR_MANY, MAX_IO_BYTES, MAX_LOOKUP_MANY } from "../limits.ts";
import type { Attr, AttrChange, Caller, DirPage, Entry, Fetched, FileId, Listing, StatFs } from "../lower.ts";
import * as v from "./values.ts";

interface Name {
  readonly parent: FileId;
  readonly name: Buffer;
}
/** A change of a directory's names. */
interface NameChange extends Name {
  /** Whether the answer is to bring the directory's attributes. */
  readonly tellParent: boolean;
}
interface Made extends NameChange {
  readonly mode: number;
  readonly caller: Caller;
}
interface Removed extends NameChange {
  readonly expected: FileId;
}
/** The directory's attributes after the change; null: not asked for, or not to be had. */
interface ParentTold {
  readonly parent: Attr | null;
}
interface EntryMade extends ParentTold {
  readonly entry: Entry;
}
interface Identified {
  readonly id: FileId;
}
interface Handled {
  readonly handle: number;
}
interface Synced extends Handled {
  readonly dataOnly: boolean;
}
interface Attribute extends Identified {
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
}
export interface CopyRequest {
  readonly inHandle: number;
  readonly inOffset: number;
  readonly outHandle: number;
  readonly outOffset: number;
  readonly bytes: number;
}

/** Each call's request and answer. */
export interface WireCalls {
  lookup: { request: Name; answer: Entry };
  lookupMany: { request: { readonly parent: FileId; readonly names: readonly Buffer[] }; answer: readonly (Entry | null)[] };
  getattr: { request: Identified; answer: Attr };
  getattrMany: { request: { readonly ids: readonly FileId[] }; answer: readonly (Attr | null)[] };
  setattr: { request: Identified & { readonly change: AttrChange; readonly handle: number | null }; answer: Attr };
  readlink: { request: Identified; answer: Buffer };
  create: { request: Made & { readonly flags: number; readonly handle: number }; answer: EntryMade };
  mkdir: { request: Made; answer: EntryMade };
  mknod: { request: Made & { readonly rdevMajor: number; readonly rdevMinor: number }; answer: EntryMade };
  symlink: { request: NameChange & { readonly target: Buffer; readonly caller: Caller }; answer: EntryMade };
  unlink: { request: Removed; answer: ParentTold };
  rmdir: { request: Removed; answer: ParentTold };
  rename: { request: RenameRequest; answer: void };
  link: {
    request: Identified & { readonly newParent: FileId; readonly newName: Buffer; readonly tellParent: boolean };
    answer: ParentTold & { readonly attr: Attr };
  };
  open: { request: Identified & Handled & { readonly flags: number }; answer: void };
  opendir: { request: Identified & Handled; answer: void };
  close: { request: Handled; answer: void };
  read: { request: Handled & { readonly offset: number; readonly bytes: number }; answer: Uint8Array };
  /** All that this caller has open is open at this owner. Sent after that, once for each owner. */
  claimed: { request: void; answer: void };
  /** To the owner of that epoch: give the volume to that node, 0: to the lowest other. `refused`: why not, as words; "": it is begun. */
  handOver: { request: { readonly epoch: number; readonly heir: number }; answer: { readonly heir: number; readonly refused: string } };
  fetch: { request: Identified & Handled & { readonly offset: number; readonly bytes: number }; answer: Fetched };
  write: {
    /** `tell`: the file, if the answer is to bring its attributes. */
    request: Handled & { readonly offset: number; readonly append: boolean; readonly tell: FileId | null; readonly data: Uint8Array };
    answer: { readonly offset: number; readonly bytes: number; readonly attr: Attr | null };
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
  syncfs: { request: void; answer: void };
}

export type CallName = keyof WireCalls;
export type RequestOf<K extends CallName> = WireCalls[K]["request"];
export type AnswerOf<K extends CallName> = WireCalls[K]["answer"];

export interface Codec<T> {
  readonly write: (writer: ByteWriter, value: T) => void;
  readonly read: (reader: ByteReader) => T;
  /** The tail of the frame, sent from where it lies; `read` takes it from the reader. */
  readonly data?: (value: T) => Uint8Array;
}

export interface CallRow<K extends CallName> {
  readonly type: number;
  /** It changes something, and twice is not the same as once: its outcome is unknown if its owner died before answering. */
  readonly mutates: boolean;
  /** Its answer is remembered until the caller has it: the call is executed once. Of changes and syncs. */
  readonly remembered: boolean;
  readonly request: Codec<RequestOf<K>>;
  readonly answer: Codec<AnswerOf<K>>;
}

const nothing: Codec<void> = { write: () => undefined, read: () => undefined };
const attr: Codec<Attr> = { write: v.writeAttr, read: v.readAttr };
const entry: Codec<Entry> = { write: v.writeEntry, read: v.readEntry };
const block: Codec<Buffer> = {
  write: (w, value) => void w.block(value),
  read: (r) => v.asBuffer(r.block(v.MAX_XATTR_BYTES)),
};
const size: Codec<number> = { write: (w, value) => void w.u64(value), read: (r) => r.u64() };
const identified: Codec<Identified> = { write: (w, q) => v.writeFileId(w, q.id), read: (r) => ({ id: v.readFileId(r) }) };

function writeName(w: ByteWriter, q: Name): void {
  v.writeFileId(w, q.parent);
  v.writeName(w, q.name);
}
function readName(r: ByteReader): Name {
  return { parent: v.readFileId(r), name: v.readName(r) };
}
const name: Codec<Name> = { write: writeName, read: readName };

function writeChange(w: ByteWriter, q: NameChange): void {
  writeName(w, q);
  w.bool(q.tellParent);
}
function readChange(r: ByteReader): NameChange {
  return { ...readName(r), tellParent: r.bool() };
}

function optional<T>(w: ByteWriter, value: T | null, write: (w: ByteWriter, value: T) => void): void {
  w.bool(value !== null);
  if (value !== null) write(w, value);
}

function writeParent(w: ByteWriter, { parent }: ParentTold): void {
  optional(w, parent, v.writeAttr);
}
function readParent(r: ByteReader): ParentTold {
  return { parent: r.bool() ? v.readAttr(r) : null };
}
const parentTold: Codec<ParentTold> = { write: writeParent, read: readParent };
const entryMade: Codec<EntryMade> = {
  write: (w, made) => {
    v.writeEntry(w, made.entry);
    writeParent(w, made);
  },
  read: (r) => ({ entry: v.readEntry(r), ...readParent(r) }),
};

function writeMade(w: ByteWriter, q: Made): void {
  writeChange(w, q);
  w.u32(q.mode);
  v.writeCaller(w, q.caller);
}
function readMade(r: ByteReader): Made {
  return { ...readChange(r), mode: r.u32(), caller: v.readCaller(r) };
}

const removed: Codec<Removed> = {
  write: (w, q) => {
    writeChange(w, q);
    v.writeFileId(w, q.expected);
  },
  read: (r) => ({ ...readChange(r), expected: v.readFileId(r) }),
};
const handled: Codec<Handled> = { write: (w, q) => void w.u32(q.handle), read: (r) => ({ handle: r.u32() }) };
const synced: Codec<Synced> = {
  write: (w, q) => void w.u32(q.handle).bool(q.dataOnly),
  read: (r) => ({ handle: r.u32(), dataOnly: r.bool() }),
};
const attribute: Codec<Attribute> = {
  write: (w, q) => {
    v.writeFileId(w, q.id);
    v.writeName(w, q.name);
  },
  read: (r) => ({ id: v.readFileId(r), name: v.readName(r) }),
};

/** What is left of a frame, at most 1 MiB. */
function tail(r: ByteReader): Uint8Array {
  if (r.remaining > MAX_IO_BYTES) throw new WireError(`${r.remaining} bytes of data, at most ${MAX_IO_BYTES} allowed`);
  return r.bytes(r.remaining);
}

function manyIds(r: ByteReader): FileId[] {
  const count = r.u16();
  if (count > MAX_GETATTR_MANY) throw new WireError(`${count} inodes, at most ${MAX_GETATTR_MANY} allowed`);
  return Array.from({ length: count }, () => v.readFileId(r));
}

function manyNames(r: ByteReader): Buffer[] {
  const count = r.u16();
  if (count > MAX_LOOKUP_MANY) throw new WireError(`${count} names, at most ${MAX_LOOKUP_MANY} allowed`);
  return Array.from({ length: count }, () => v.readName(r));
}

function manyOrNull<T>(one: Codec<T>): Codec<readonly (T | null)[]> {
  return {
    write: (w, values) => {
      w.u16(values.length);
      for (const value of values) {
        w.bool(value !== null);
        if (value !== null) one.write(w, value);
      }
    },
    read: (r) => Array.from({ length: r.u16() }, () => (r.bool() ? one.read(r) : null)),
  };
}

const LISTINGS: readonly Listing[] = ["plain", "entries", "names"];

function readListing(r: ByteReader): Listing {
  const at = r.u8();
  const listing = LISTINGS[at];
  if (listing === undefined) throw new WireError(`no listing: ${at}`);
  return listing;
}

const row = <K extends CallName>(type: number, mutates: boolean, request: Codec<RequestOf<K>>, answer: Codec<AnswerOf<K>>): CallRow<K> => ({
  type,
  mutates,
  remembered: mutates,
  request,
  answer,
});

/** The kernel reports a failed write-back to one sync of a descriptor: the next one says 0 of lost data (errseq_t). */
const syncRow = <K extends "fsync" | "fsyncdir" | "syncfs">(type: number, request: Codec<RequestOf<K>>): CallRow<K> => ({
  ...row<K>(type, false, request, nothing),
  remembered: true,
});

export const CALLS: { readonly [K in CallName]: CallRow<K> } = {
  lookup: row<"lookup">(1, false, name, entry),
  getattr: row<"getattr">(2, false, identified, attr),
  getattrMany: row<"getattrMany">(
    3,
    false,
    {
      write: (w, q) => {
        w.u16(q.ids.length);
        for (const id of q.ids) v.writeFileId(w, id);
      },
      read: (r) => ({ ids: manyIds(r) }),
    },
    manyOrNull(attr),
  ),
  setattr: row<"setattr">(
    4,
    true,
    {
      write: (w, q) => {
        v.writeFileId(w, q.id);
        v.writeChange(w, q.change);
        w.bool(q.handle !== null);
        if (q.handle !== null) w.u32(q.handle);
      },
      read: (r) => ({ id: v.readFileId(r), change: v.readChange(r), handle: r.bool() ? r.u32() : null }),
    },
    attr,
  ),
  readlink: row<"readlink">(5, false, identified, block),
  create: row<"create">(
    6,
    true,
    {
      write: (w, q) => {
        writeMade(w, q);
        w.u32(q.flags).u32(q.handle);
      },
      read: (r) => ({ ...readMade(r), flags: r.u32(), handle: r.u32() }),
    },
    entryMade,
  ),
  mkdir: row<"mkdir">(7, true, { write: writeMade, read: readMade }, entryMade),
  mknod: row<"mknod">(
    8,
    true,
    {
      write: (w, q) => {
        writeMade(w, q);
        w.u32(q.rdevMajor).u32(q.rdevMinor);
      },
      read: (r) => ({ ...readMade(r), rdevMajor: r.u32(), rdevMinor: r.u32() }),
    },
    entryMade,
  ),
  symlink: row<"symlink">(
    9,
    true,
    {
      write: (w, q) => {
        writeChange(w, q);
        v.writeName(w, q.target);
        v.writeCaller(w, q.caller);
      },
      read: (r) => ({ ...readChange(r), target: v.readName(r), caller: v.readCaller(r) }),
    },
    entryMade,
  ),
  unlink: row<"unlink">(10, true, removed, parentTold),
  rmdir: row<"rmdir">(11, true, removed, parentTold),
  rename: row<"rename">(
    12,
    true,
    {
      write: (w, q) => {
        writeName(w, { parent: q.oldParent, name: q.oldName });
        writeName(w, { parent: q.newParent, name: q.newName });
        w.u32(q.flags);
        v.writeFileId(w, q.expectedOld);
        v.writeOptionalFileId(w, q.expectedNew);
      },
      read: (r) => {
        const from = readName(r);
        const to = readName(r);
        return {
          oldParent: from.parent,
          oldName: from.name,
          newParent: to.parent,
          newName: to.name,
          flags: r.u32(),
          expectedOld: v.readFileId(r),
          expectedNew: v.readOptionalFileId(r),
        };
      },
    },
    nothing,
  ),
  link: row<"link">(
    13,
    true,
    {
      write: (w, q) => {
        v.writeFileId(w, q.id);
        writeChange(w, { parent: q.newParent, name: q.newName, tellParent: q.tellParent });
      },
      read: (r) => {
        const id = v.readFileId(r);
        const to = readChange(r);
        return { id, newParent: to.parent, newName: to.name, tellParent: to.tellParent };
      },
    },
    {
      write: (w, linked) => {
        v.writeAttr(w, linked.attr);
        writeParent(w, linked);
      },
      read: (r) => ({ attr: v.readAttr(r), ...readParent(r) }),
    },
  ),
  open: row<"open">(
    14,
    false,
    {
      write: (w, q) => {
        v.writeFileId(w, q.id);
        w.u32(q.flags).u32(q.handle);
      },
      read: (r) => ({ id: v.readFileId(r), flags: r.u32(), handle: r.u32() }),
    },
    nothing,
  ),
  opendir: row<"opendir">(
    15,
    false,
    {
      write: (w, q) => {
        v.writeFileId(w, q.id);
        w.u32(q.handle);
      },
      read: (r) => ({ id: v.readFileId(r), handle: r.u32() }),
    },
    nothing,
  ),
  close: row<"close">(16, false, handled, nothing),
  read: row<"read">(
    17,
    false,
    {
      write: (w, q) => void w.u32(q.handle).u64(q.offset).u32(q.bytes),
      read: (r) => ({ handle: r.u32(), offset: r.u64(), bytes: r.u32() }),
    },
    { write: () => undefined, read: tail, data: (bytes) => bytes },
  ),
  write: row<"write">(
    18,
    true,
    {
      write: (w, q) => {
        w.u32(q.handle).u64(q.offset).bool(q.append);
        optional(w, q.tell, v.writeFileId);
      },
      read: (r) => ({ handle: r.u32(), offset: r.u64(), append: r.bool(), tell: r.bool() ? v.readFileId(r) : null, data: tail(r) }),
      data: (q) => q.data,
    },
    {
      write: (w, value) => {
        w.u64(value.offset).u32(value.bytes);
        optional(w, value.attr, v.writeAttr);
      },
      read: (r) => ({ offset: r.u64(), bytes: r.u32(), attr: r.bool() ? v.readAttr(r) : null }),
    },
  ),
  fsync: syncRow<"fsync">(19, synced),
  fsyncdir: syncRow<"fsyncdir">(20, synced),
  fallocate: row<"fallocate">(
    21,
    true,
    {
      write: (w, q) => void w.u32(q.handle).u32(q.mode).u64(q.offset).u64(q.bytes),
      read: (r) => ({ handle: r.u32(), mode: r.u32(), offset: r.u64(), bytes: r.u64() }),
    },
    nothing,
  ),
  lseek: row<"lseek">(
    22,
    false,
    {
      write: (w, q) => void w.u32(q.handle).u64(q.offset).u32(q.whence),
      read: (r) => ({ handle: r.u32(), offset: r.u64(), whence: r.u32() }),
    },
    size,
  ),
  copyFileRange: row<"copyFileRange">(
    23,
    true,
    {
      write: (w, q) => void w.u32(q.inHandle).u64(q.inOffset).u32(q.outHandle).u64(q.outOffset).u64(q.bytes),
      read: (r) => ({ inHandle: r.u32(), inOffset: r.u64(), outHandle: r.u32(), outOffset: r.u64(), bytes: r.u64() }),
    },
    size,
  ),
  readdir: row<"readdir">(
    24,
    false,
    {
      write: (w, q) => void w.u32(q.handle).bigU64(q.cookie).u32(q.bytes).u8(LISTINGS.indexOf(q.listing)),
      read: (r) => ({ handle: r.u32(), cookie: r.bigU64(), bytes: r.u32(), listing: readListing(r) }),
    },
    { write: v.writeDirPage, read: v.readDirPage },
  ),
  statfs: row<"statfs">(25, false, nothing, { write: v.writeStatFs, read: v.readStatFs }),
  getxattr: row<"getxattr">(26, false, attribute, block),
  setxattr: row<"setxattr">(
    27,
    true,
    {
      write: (w, q) => {
        attribute.write(w, q);
        w.block(q.value).u32(q.flags);
      },
      read: (r) => ({ ...attribute.read(r), value: block.read(r), flags: r.u32() }),
    },
    nothing,
  ),
  listxattr: row<"listxattr">(28, false, identified, block),
  removexattr: row<"removexattr">(29, true, attribute, nothing),
  syncfs: syncRow<"syncfs">(30, nothing),
  lookupMany: row<"lookupMany">(
    31,
    false,
    {
      write: (w, q) => {
        v.writeFileId(w, q.parent);
        w.u16(q.names.length);
        for (const one of q.names) v.writeName(w, one);
      },
      read: (r) => ({ parent: v.readFileId(r), names: manyNames(r) }),
    },
    manyOrNull(entry),
  ),
  fetch: row<"fetch">(
    32,
    false,
    {
      write: (w, q) => {
        v.writeFileId(w, q.id);
        w.u32(q.handle).u64(q.offset).u32(q.bytes);
      },
      read: (r) => ({ id: v.readFileId(r), handle: r.u32(), offset: r.u64(), bytes: r.u32() }),
    },
    {
      write: (w, answer) => v.writeAttr(w, answer.attr),
      read: (r) => ({ attr: v.readAttr(r), data: tail(r) }),
      data: (answer) => answer.data,
    },
  ),
  claimed: row<"claimed">(33, false, nothing, nothing),
  handOver: row<"handOver">(
    34,
    false,
    { write: (w, q) => void w.u64(q.epoch).u16(q.heir), read: (r) => ({ epoch: r.u64(), heir: r.u16() }) },
    {
      write: (w, told) => void w.u16(told.heir).string(told.refused.slice(0, v.MAX_NAME_BYTES / 4)),
      read: (r) => ({ heir: r.u16(), refused: r.string(v.MAX_NAME_BYTES) }),
    },
  ),
};

const nameByType: ReadonlyMap<number, CallName> = new Map(
  (Object.entries(CALLS) as [CallName, CallRow<CallName>][]).map(([call, { type }]) => [type, call]),
);

/** undefined for a type that is no call. */
export function callOfType(type: number): CallName | undefined {
  return nameByType.get(type);
}

/** Reads all of `body`. WireError. */
export function decodeWith<T>(codec: Codec<T>, body: Uint8Array): T {
  const reader = new ByteReader(body);
  const value = codec.read(reader);
  reader.end();
  return value;
}
