/** The values inside calls and answers between overlays. Numbers that a file system may make huge travel as f64. */
import type { ByteReader, ByteWriter } from "../../../dlmd/base/bytes.ts";
import { WireError } from "../../../dlmd/base/error.ts";
import {
  type Attr,
  type AttrChange,
  type Caller,
  type DirEntry,
  type DirPage,
  type Entry,
  type FileId,
  type StatFs,
  type Time,
  withEntry,
  withXattrNames,
} from "../lower.ts";
import { XATTR_NAMES_TOLD_MAX } from "../xattr-names.ts";

/** Names, and targets of symbolic links (PATH_MAX). */
export const MAX_NAME_BYTES = 4096;
export const MAX_XATTR_BYTES = 65_536;
/** One byte of name each, in a reply of 1 MiB. */
const MAX_DIR_ENTRIES = 65_536;

export function writeName(writer: ByteWriter, name: Uint8Array): void {
  writer.u16(name.byteLength).bytes(name);
}

/** A view as Buffer, not a copy. */
export function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function readName(reader: ByteReader): Buffer {
  const bytes = reader.u16();
  if (bytes > MAX_NAME_BYTES) throw new WireError(`name of ${bytes} bytes, at most ${MAX_NAME_BYTES} allowed`);
  return asBuffer(reader.bytes(bytes));
}

export function writeFileId(writer: ByteWriter, id: FileId): void {
  writer.u64(id.ino).u32(id.generation);
}

export function readFileId(reader: ByteReader): FileId {
  return { ino: reader.u64(), generation: reader.u32() };
}

export function writeOptionalFileId(writer: ByteWriter, id: FileId | null): void {
  writer.bool(id !== null);
  if (id !== null) writeFileId(writer, id);
}

export function readOptionalFileId(reader: ByteReader): FileId | null {
  return reader.bool() ? readFileId(reader) : null;
}

export function writeAttr(writer: ByteWriter, attr: Attr): void {
  writer.u64(attr.ino).u32(attr.mode).u32(attr.nlink).u32(attr.uid).u32(attr.gid).f64(attr.size).f64(attr.blocks);
  writer.u32(attr.blksize).u32(attr.rdevMajor).u32(attr.rdevMinor);
  writer.f64(attr.atimeSec).u32(attr.atimeNsec).f64(attr.mtimeSec).u32(attr.mtimeNsec).f64(attr.ctimeSec).u32(attr.ctimeNsec);
  writer
    .f64(attr.btimeSec)
    .u32(attr.btimeNsec)
    .bool(attr.xattrNames !== undefined);
  if (attr.xattrNames !== undefined) writer.block(attr.xattrNames);
}

export function readAttr(reader: ByteReader): Attr {
  const attr = {
    ino: reader.u64(),
    mode: reader.u32(),
    nlink: reader.u32(),
    uid: reader.u32(),
    gid: reader.u32(),
    size: reader.f64(),
    blocks: reader.f64(),
    blksize: reader.u32(),
    rdevMajor: reader.u32(),
    rdevMinor: reader.u32(),
    atimeSec: reader.f64(),
    atimeNsec: reader.u32(),
    mtimeSec: reader.f64(),
    mtimeNsec: reader.u32(),
    ctimeSec: reader.f64(),
    ctimeNsec: reader.u32(),
    btimeSec: reader.f64(),
    btimeNsec: reader.u32(),
  };
  // Copied: it is kept for longer than the frame that it lies in.
  return reader.bool() ? withXattrNames(attr, Buffer.from(reader.block(XATTR_NAMES_TOLD_MAX))) : attr;
}

export function writeEntry(writer: ByteWriter, entry: Entry): void {
  writeFileId(writer, entry.id);
  writeAttr(writer, entry.attr);
}

export function readEntry(reader: ByteReader): Entry {
  return { id: readFileId(reader), attr: readAttr(reader) };
}

export function writeCaller(writer: ByteWriter, caller: Caller): void {
  writer.u32(caller.uid).u32(caller.gid).u32(caller.umask);
}

export function readCaller(reader: ByteReader): Caller {
  return { uid: reader.u32(), gid: reader.u32(), umask: reader.u32() };
}

const CHANGES = { mode: 1, uid: 2, gid: 4, size: 8, atime: 16, mtime: 32, killSuidgid: 64, atimeNow: 128, mtimeNow: 256 } as const;
const ALL_CHANGES = 511;

function changeBits(change: AttrChange): number {
  let bits = 0;
  if (change.mode !== undefined) bits |= CHANGES.mode;
  if (change.uid !== undefined) bits |= CHANGES.uid;
  if (change.gid !== undefined) bits |= CHANGES.gid;
  if (change.size !== undefined) bits |= CHANGES.size;
  if (change.killSuidgid === true) bits |= CHANGES.killSuidgid;
  if (change.atime !== undefined) bits |= change.atime === "now" ? CHANGES.atimeNow : CHANGES.atime;
  if (change.mtime !== undefined) bits |= change.mtime === "now" ? CHANGES.mtimeNow : CHANGES.mtime;
  return bits;
}

function writeTime(writer: ByteWriter, time: Time | "now" | undefined): void {
  if (time !== undefined && time !== "now") writer.f64(time.sec).u32(time.nsec);
}

export function writeChange(writer: ByteWriter, change: AttrChange): void {
  writer.u16(changeBits(change));
  if (change.mode !== undefined) writer.u32(change.mode);
  if (change.uid !== undefined) writer.u32(change.uid);
  if (change.gid !== undefined) writer.u32(change.gid);
  if (change.size !== undefined) writer.u64(change.size);
  writeTime(writer, change.atime);
  writeTime(writer, change.mtime);
}

function readTime(reader: ByteReader): Time {
  const sec = reader.f64();
  const nsec = reader.u32();
  if (!Number.isSafeInteger(sec) || nsec >= 1_000_000_000) throw new WireError(`no time: ${sec} s, ${nsec} ns`);
  return { sec, nsec };
}

export function readChange(reader: ByteReader): AttrChange {
  const bits = reader.u16();
  if (bits > ALL_CHANGES) throw new WireError(`unknown attribute bits 0x${bits.toString(16)}`);
  const has = (bit: number): boolean => (bits & bit) !== 0;
  const change: { -readonly [K in keyof AttrChange]: AttrChange[K] } = {};
  if (has(CHANGES.mode)) change.mode = reader.u32();
  if (has(CHANGES.uid)) change.uid = reader.u32();
  if (has(CHANGES.gid)) change.gid = reader.u32();
  if (has(CHANGES.size)) change.size = reader.u64();
  if (has(CHANGES.killSuidgid)) change.killSuidgid = true;
  if (has(CHANGES.atime)) change.atime = readTime(reader);
  else if (has(CHANGES.atimeNow)) change.atime = "now";
  if (has(CHANGES.mtime)) change.mtime = readTime(reader);
  else if (has(CHANGES.mtimeNow)) change.mtime = "now";
  return change;
}

export function writeDirPage(writer: ByteWriter, page: DirPage): void {
  writer.bool(page.end).u32(page.entries.length);
  for (const entry of page.entries) {
    writeName(writer, entry.name);
    writer
      .u8(entry.type)
      .u64(entry.ino)
      .bigU64(entry.cookie)
      .bool(entry.entry !== undefined);
    if (entry.entry !== undefined) writeEntry(writer, entry.entry);
  }
}

export function readDirPage(reader: ByteReader): DirPage {
  const end = reader.bool();
  const count = reader.u32();
  if (count > MAX_DIR_ENTRIES) throw new WireError(`page of ${count} entries, at most ${MAX_DIR_ENTRIES} allowed`);
  const entries: DirEntry[] = [];
  for (let n = 0; n < count; n += 1) {
    const name = readName(reader);
    const entry: DirEntry = { name, type: reader.u8(), ino: reader.u64(), cookie: reader.bigU64() };
    entries.push(reader.bool() ? withEntry(entry, readEntry(reader)) : entry);
  }
  return { entries, end };
}

export function writeStatFs(writer: ByteWriter, value: StatFs): void {
  writer.f64(value.blocks).f64(value.bfree).f64(value.bavail).f64(value.files).f64(value.ffree);
  writer.u32(value.bsize).u32(value.frsize).u32(value.namelen);
}

export function readStatFs(reader: ByteReader): StatFs {
  return {
    blocks: reader.f64(),
    bfree: reader.f64(),
    bavail: reader.f64(),
    files: reader.f64(),
    ffree: reader.f64(),
    bsize: reader.u32(),
    frsize: reader.u32(),
    namelen: reader.u32(),
  };
}
