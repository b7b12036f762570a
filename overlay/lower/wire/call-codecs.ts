/** The parts of calls and answers that several rows of calls.ts share. */
import { ByteReader, ByteWriter } from "../../../dlmd/base/bytes.ts";
import { WireError } from "../../../dlmd/base/error.ts";
import { maxOffset } from "../../../dlmd/wire/plock-range.ts";
import type { NamesTold } from "../directory-names.ts";
import { MAX_CLOSE_MANY, MAX_IO_BYTES, MAX_NAMES_TOLD, MAX_OUTCOMES, OUTCOMES_BYTES_MAX, READ_MANY_FILE_BYTES_MAX } from "../limits.ts";
import type { Attr, AttributesKind, Entry, FileId, Listing } from "../lower.ts";
import type {
  AskedCall,
  Attribute,
  DepositedLock,
  EntryMade,
  Identified,
  Made,
  Name,
  NameChange,
  Opened,
  Outcome,
  ParentTold,
  Removed,
  Synced,
} from "./call-types.ts";
import * as v from "./values.ts";

export interface Codec<T> {
  readonly write: (writer: ByteWriter, value: T) => void;
  readonly read: (reader: ByteReader) => T;
  /** The tail of the frame, sent from where it lies; `read` takes it from the reader. */
  readonly data?: (value: T) => Uint8Array;
}

export const nothing: Codec<void> = { write: () => undefined, read: () => undefined };
export const attr: Codec<Attr> = { write: v.writeAttr, read: v.readAttr };
export const entry: Codec<Entry> = { write: v.writeEntry, read: v.readEntry };
export const block: Codec<Buffer> = {
  write: (w, value) => void w.block(value),
  read: (r) => v.asBuffer(r.block(v.MAX_XATTR_BYTES)),
};
export const size: Codec<number> = { write: (w, value) => void w.u64(value), read: (r) => r.u64() };
export const identified: Codec<Identified> = { write: (w, q) => v.writeFileId(w, q.id), read: (r) => ({ id: v.readFileId(r) }) };

export function writeName(w: ByteWriter, q: Name): void {
  v.writeFileId(w, q.parent);
  v.writeName(w, q.name);
}
export function readName(r: ByteReader): Name {
  return { parent: v.readFileId(r), name: v.readName(r) };
}
export const name: Codec<Name> = { write: writeName, read: readName };

export function writeChange(w: ByteWriter, q: NameChange): void {
  writeName(w, q);
  w.bool(q.tellParent);
}
export function readChange(r: ByteReader): NameChange {
  return { parent: v.readFileId(r), name: v.readName(r), tellParent: r.bool() };
}

export function optional<T>(w: ByteWriter, value: T | null, write: (w: ByteWriter, value: T) => void): void {
  w.bool(value !== null);
  if (value !== null) write(w, value);
}

export function writeParent(w: ByteWriter, { parent }: ParentTold): void {
  optional(w, parent, v.writeAttr);
}
export function readOptionalAttr(r: ByteReader): Attr | null {
  return r.bool() ? v.readAttr(r) : null;
}
export function readParent(r: ByteReader): ParentTold {
  return { parent: readOptionalAttr(r) };
}
export const parentTold: Codec<ParentTold> = { write: writeParent, read: readParent };
export const entryMade: Codec<EntryMade> = {
  write: (w, made) => {
    v.writeEntry(w, made.entry);
    writeParent(w, made);
  },
  read: (r) => ({ entry: v.readEntry(r), parent: readOptionalAttr(r) }),
};

export function writeMade(w: ByteWriter, q: Made): void {
  writeChange(w, q);
  w.u32(q.mode);
  v.writeCaller(w, q.caller);
}
export function readMade(r: ByteReader): Made {
  const { parent, name: made, tellParent } = readChange(r);
  return { parent, name: made, tellParent, mode: r.u32(), caller: v.readCaller(r) };
}

export const removed: Codec<Removed> = {
  write: (w, q) => {
    writeChange(w, q);
    v.writeFileId(w, q.expected);
  },
  read: (r) => {
    const { parent, name: gone, tellParent } = readChange(r);
    return { parent, name: gone, tellParent, expected: v.readFileId(r) };
  },
};
export const manyHandles: Codec<{ readonly handles: readonly number[] }> = {
  write: (w, { handles }) => {
    w.u16(handles.length);
    for (const handle of handles) w.u32(handle);
  },
  read: (r) => {
    const count = r.u16();
    if (count > MAX_CLOSE_MANY) throw new WireError(`${count} open files, at most ${MAX_CLOSE_MANY} allowed`);
    return { handles: Array.from({ length: count }, () => r.u32()) };
  },
};
export function writeOpened(w: ByteWriter, q: Opened): void {
  v.writeFileId(w, q.id);
  w.u32(q.flags);
}
export function readOpened(r: ByteReader): Opened {
  return { id: v.readFileId(r), flags: r.u32() };
}
export const synced: Codec<Synced> = {
  write: (w, q) => void w.u32(q.handle).bool(q.dataOnly),
  read: (r) => ({ handle: r.u32(), dataOnly: r.bool() }),
};
export const attribute: Codec<Attribute> = {
  write: (w, q) => {
    v.writeFileId(w, q.id);
    v.writeName(w, q.name);
  },
  read: (r) => ({ id: v.readFileId(r), name: v.readName(r) }),
};

export function readKind(r: ByteReader): AttributesKind {
  return r.bool() ? "flags" : "fsxattr";
}

export const smallFile: Codec<Uint8Array> = {
  write: (w, data) => void w.block(data),
  read: (r) => r.block(READ_MANY_FILE_BYTES_MAX),
};

/** What is left of a frame, at most 1 MiB. */
export function tail(r: ByteReader): Uint8Array {
  if (r.remaining > MAX_IO_BYTES) throw new WireError(`${r.remaining} bytes of data, at most ${MAX_IO_BYTES} allowed`);
  return r.bytes(r.remaining);
}

export function manyIds(most: number): Codec<{ readonly ids: readonly FileId[] }> {
  return {
    write: (w, { ids }) => {
      w.u16(ids.length);
      for (const id of ids) v.writeFileId(w, id);
    },
    read: (r) => {
      const count = r.u16();
      if (count > most) throw new WireError(`${count} inodes, at most ${most} allowed`);
      return { ids: Array.from({ length: count }, () => v.readFileId(r)) };
    },
  };
}

const LOCK_FLOCK = 1;
const LOCK_WRITE = 2;

export function manyLocks(most: number): Codec<readonly DepositedLock[]> {
  return {
    write: (w, locks) => {
      w.u16(locks.length);
      for (const { id, owner, range, heldMs } of locks) {
        v.writeFileId(w, id);
        w.u8((owner.kind === "flock" ? LOCK_FLOCK : 0) | (range.type === "write" ? LOCK_WRITE : 0));
        w.bigU64(owner.owner).bigU64(range.start).bigU64(range.end).u64(heldMs);
      }
    },
    read: (r) => {
      const count = r.u16();
      if (count > most) throw new WireError(`${count} file locks, at most ${most} allowed`);
      return Array.from({ length: count }, () => readLock(r));
    },
  };
}

function readLock(r: ByteReader): DepositedLock {
  const id = v.readFileId(r);
  const flags = r.u8();
  if (flags > (LOCK_FLOCK | LOCK_WRITE)) throw new WireError(`flags ${flags} of a file lock`);
  const [owner, start, end] = [r.bigU64(), r.bigU64(), r.bigU64()];
  if (start > end || end > maxOffset) throw new WireError(`bytes ${start} to ${end}: ascending offsets up to ${maxOffset} expected`);
  return {
    id,
    owner: { kind: (flags & LOCK_FLOCK) === 0 ? "posix" : "flock", owner },
    range: { type: (flags & LOCK_WRITE) === 0 ? "read" : "write", start, end },
    heldMs: r.u64(),
  };
}

export function manyNames(r: ByteReader, most: number): Buffer[] {
  const count = r.u16();
  if (count > most) throw new WireError(`${count} names, at most ${most} allowed`);
  return Array.from({ length: count }, () => v.readName(r));
}

export function writeNamesTold(w: ByteWriter, { version, all, names, gone }: NamesTold): void {
  w.u64(version).bool(all);
  for (const some of [names, gone]) {
    w.u16(some.length);
    for (const one of some) v.writeName(w, one);
  }
}
export function readNamesTold(r: ByteReader): NamesTold {
  return { version: r.u64(), all: r.bool(), names: manyNames(r, MAX_NAMES_TOLD), gone: manyNames(r, MAX_NAMES_TOLD) };
}

export function manyOrNull<T>(one: Codec<T>): Codec<readonly (T | null)[]> {
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

/** Of one call, and of one answer that is remembered: none of these is longer. */
const outcomeBody = (r: ByteReader): Uint8Array => r.block(OUTCOMES_BYTES_MAX);

function manyOutcomes(r: ByteReader): number {
  const count = r.u16();
  if (count > MAX_OUTCOMES) throw new WireError(`${count} calls, at most ${MAX_OUTCOMES} allowed`);
  return count;
}

export const asked: Codec<{ readonly client: number; readonly calls: readonly AskedCall[] }> = {
  write: (w, { client, calls }) => {
    w.u64(client).u16(calls.length);
    for (const { id, type, body } of calls) {
      w.u32(id).u8(type);
      optional(w, body, (to, bytes) => void to.block(bytes));
    }
  },
  read: (r) => ({
    client: r.u64(),
    calls: Array.from({ length: manyOutcomes(r) }, () => ({ id: r.u32(), type: r.u8(), body: r.bool() ? outcomeBody(r) : null })),
  }),
};

const OUTCOMES: readonly Outcome["state"][] = ["unknown-session", "not-made", "answered"];

function readOutcome(r: ByteReader): Outcome {
  const at = r.u8();
  const state = OUTCOMES[at];
  if (state === undefined) throw new WireError(`no outcome: ${at}`);
  // Copied: it is kept for longer than the frame that it lies in.
  return state === "answered" ? { state, type: r.u8(), body: Uint8Array.from(outcomeBody(r)) } : { state };
}

export const outcomes: Codec<readonly Outcome[]> = {
  write: (w, all) => {
    w.u16(all.length);
    for (const one of all) {
      w.u8(OUTCOMES.indexOf(one.state));
      if (one.state === "answered") w.u8(one.type).block(one.body);
    }
  },
  read: (r) => Array.from({ length: manyOutcomes(r) }, () => readOutcome(r)),
};

export const LISTINGS: readonly Listing[] = ["plain", "entries", "names"];

export function readListing(r: ByteReader): Listing {
  const at = r.u8();
  const listing = LISTINGS[at];
  if (listing === undefined) throw new WireError(`no listing: ${at}`);
  return listing;
}

export function encodeWith<T>(codec: Codec<T>, value: T): Uint8Array {
  const writer = new ByteWriter();
  codec.write(writer, value);
  return writer.copy();
}

/** Reads all of `body`. WireError. */
export function decodeWith<T>(codec: Codec<T>, body: Uint8Array): T {
  const reader = new ByteReader(body);
  const value = codec.read(reader);
  reader.end();
  return value;
}
