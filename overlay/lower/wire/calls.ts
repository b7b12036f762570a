/**
 * The calls of one overlay to the lower of another: one row each, with the codecs of the call and of its answer.
 *
 * Handles are numbers that the caller chooses and never uses twice: so an open may be sent again without harm, and a
 * handle keeps its number when it is opened again at the next owner.
 */
import type { ByteReader, ByteWriter } from "../../../dlmd/base/bytes.ts";
import {
  asked,
  attr,
  attribute,
  block,
  type Codec,
  entry,
  entryMade,
  identified,
  LISTINGS,
  manyHandles,
  manyIds,
  manyLocks,
  manyNames,
  manyOrNull,
  name,
  nothing,
  optional,
  outcomes,
  parentTold,
  readChange,
  readKind,
  readListing,
  readMade,
  readName,
  readNamesTold,
  readOptionalAttr,
  readOpened,
  removed,
  size,
  smallFile,
  synced,
  tail,
  writeChange,
  writeMade,
  writeName,
  writeNamesTold,
  writeOpened,
  writeParent,
} from "./call-codecs.ts";
import { MAX_DEPOSIT, MAX_GETATTR_MANY, MAX_LOOKUP_MANY, MAX_READ_MANY, TICKET_CHARS } from "../limits.ts";
import type { AnswerOf, CallName, RequestOf } from "./call-types.ts";
import * as v from "./values.ts";

export interface CallRow<K extends CallName> {
  readonly type: number;
  /** It changes something, and twice is not the same as once: its outcome is unknown if its owner died before answering. */
  readonly mutates: boolean;
  /** Its answer is remembered until the caller has it: the call is executed once. Of changes and syncs. */
  readonly remembered: boolean;
  readonly request: Codec<RequestOf<K>>;
  readonly answer: Codec<AnswerOf<K>>;
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

const depositIds = manyIds(MAX_DEPOSIT);
const depositLocks = manyLocks(MAX_DEPOSIT);

const refusedWords = {
  write: (w: ByteWriter, { refused }: { readonly refused: string }): void => void w.string(refused.slice(0, v.MAX_NAME_BYTES / 4)),
  read: (r: ByteReader): { readonly refused: string } => ({ refused: r.string(v.MAX_NAME_BYTES) }),
};

export const CALLS: { readonly [K in CallName]: CallRow<K> } = {
  lookup: row<"lookup">(1, false, name, entry),
  getattr: row<"getattr">(2, false, identified, attr),
  getattrMany: row<"getattrMany">(3, false, manyIds(MAX_GETATTR_MANY), manyOrNull(attr)),
  setattr: row<"setattr">(
    4,
    true,
    {
      write: (w, q) => {
        v.writeFileId(w, q.id);
        v.writeChange(w, q.change);
        w.bool(q.handle !== null);
        if (q.handle !== null) w.u32(q.handle);
        w.bool(q.promised);
      },
      read: (r) => ({ id: v.readFileId(r), change: v.readChange(r), handle: r.bool() ? r.u32() : null, promised: r.bool() }),
    },
    {
      write: (w, changed) => {
        v.writeAttr(w, changed.attr);
        w.bool(changed.room);
      },
      read: (r) => ({ attr: v.readAttr(r), room: r.bool() }),
    },
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
      read: (r) => {
        const { parent, name: made, tellParent, mode, caller } = readMade(r);
        return { parent, name: made, tellParent, mode, caller, flags: r.u32(), handle: r.u32() };
      },
    },
    {
      write: (w, made) => {
        entryMade.write(w, made);
        w.bool(made.room);
      },
      read: (r) => {
        const { entry: made, parent } = entryMade.read(r);
        return { entry: made, parent, room: r.bool() };
      },
    },
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
      read: (r) => {
        const { parent, name: made, tellParent, mode, caller } = readMade(r);
        return { parent, name: made, tellParent, mode, caller, rdevMajor: r.u32(), rdevMinor: r.u32() };
      },
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
      read: (r) => {
        const { parent, name: made, tellParent } = readChange(r);
        return { parent, name: made, tellParent, target: v.readName(r), caller: v.readCaller(r) };
      },
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
        w.bool(q.tell);
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
          tell: r.bool(),
        };
      },
    },
    {
      write: (w, { oldParent, newParent, moved }) => {
        for (const told of [oldParent, newParent, moved]) optional(w, told, v.writeAttr);
      },
      read: (r) => ({ oldParent: readOptionalAttr(r), newParent: readOptionalAttr(r), moved: readOptionalAttr(r) }),
    },
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
      read: (r) => ({ attr: v.readAttr(r), parent: readOptionalAttr(r) }),
    },
  ),
  open: row<"open">(
    14,
    false,
    {
      write: (w, q) => {
        writeOpened(w, q);
        w.u32(q.handle).bool(q.promised);
      },
      read: (r) => {
        const { id, flags } = readOpened(r);
        return { id, flags, handle: r.u32(), promised: r.bool() };
      },
    },
    nothing,
  ),
  opendir: row<"opendir">(
    15,
    false,
    {
      write: (w, q) => {
        v.writeFileId(w, q.id);
        w.u32(q.handle).bool(q.promised);
      },
      read: (r) => ({ id: v.readFileId(r), handle: r.u32(), promised: r.bool() }),
    },
    nothing,
  ),
  close: row<"close">(16, false, manyHandles, nothing),
  read: row<"read">(
    17,
    false,
    {
      write: (w, q) => {
        w.u32(q.handle).u64(q.offset).u32(q.bytes);
        optional(w, q.open, writeOpened);
      },
      read: (r) => ({ handle: r.u32(), offset: r.u64(), bytes: r.u32(), open: r.bool() ? readOpened(r) : null }),
    },
    { write: () => undefined, read: tail, data: (bytes) => bytes },
  ),
  write: row<"write">(
    18,
    true,
    {
      write: (w, q) => {
        w.u32(q.handle).u64(q.offset).bool(q.append).bool(q.promised).bool(q.room);
        optional(w, q.tell, v.writeFileId);
      },
      read: (r) => ({
        handle: r.u32(),
        offset: r.u64(),
        append: r.bool(),
        promised: r.bool(),
        room: r.bool(),
        tell: r.bool() ? v.readFileId(r) : null,
        data: tail(r),
      }),
      data: (q) => q.data,
    },
    {
      write: (w, value) => {
        w.u64(value.offset).u32(value.bytes).bool(value.room);
        optional(w, value.attr, v.writeAttr);
      },
      read: (r) => ({ offset: r.u64(), bytes: r.u32(), room: r.bool(), attr: readOptionalAttr(r) }),
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
      read: (r) => ({ parent: v.readFileId(r), names: manyNames(r, MAX_LOOKUP_MANY) }),
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
  deposit: row<"deposit">(
    42,
    false,
    {
      write: (w, q) => {
        w.u64(q.epoch).string(q.ticket).bool(q.isLast).bool(q.dlmdDied);
        depositIds.write(w, { ids: q.tokens });
        depositIds.write(w, { ids: q.locked });
        depositLocks.write(w, q.sharedLocks);
        depositIds.write(w, { ids: q.shared });
      },
      read: (r) => ({
        epoch: r.u64(),
        ticket: r.string(TICKET_CHARS),
        isLast: r.bool(),
        dlmdDied: r.bool(),
        tokens: depositIds.read(r).ids,
        locked: depositIds.read(r).ids,
        sharedLocks: depositLocks.read(r),
        shared: depositIds.read(r).ids,
      }),
    },
    refusedWords,
  ),
  kept: row<"kept">(
    45,
    false,
    {
      write: (w, { id, ...q }) => {
        w.u32(id);
        refusedWords.write(w, q);
      },
      read: (r) => ({ id: r.u32(), ...refusedWords.read(r) }),
    },
    nothing,
  ),
  collect: {
    ...row<"collect">(
      43,
      false,
      { write: (w, q) => void w.string(q.ticket), read: (r) => ({ ticket: r.string(TICKET_CHARS) }) },
      { write: (w, { found }) => void w.bool(found), read: (r) => ({ found: r.bool() }) },
    ),
    // Asked again over another connection it would not be there.
    remembered: true,
  },
  outcomes: row<"outcomes">(44, false, asked, outcomes),
  fileAttributes: row<"fileAttributes">(
    36,
    false,
    { write: (w, q) => void w.u32(q.handle).bool(q.kind === "flags"), read: (r) => ({ handle: r.u32(), kind: readKind(r) }) },
    block,
  ),
  setFileAttributes: row<"setFileAttributes">(
    37,
    true,
    {
      write: (w, q) =>
        void w
          .u32(q.handle)
          .bool(q.kind === "flags")
          .block(q.value),
      read: (r) => ({ handle: r.u32(), kind: readKind(r), value: block.read(r) }),
    },
    nothing,
  ),
  tmpfile: row<"tmpfile">(
    38,
    true,
    {
      write: (w, q) => {
        v.writeFileId(w, q.parent);
        w.u32(q.mode);
        v.writeCaller(w, q.caller);
        w.u32(q.flags).bool(q.linkable).u32(q.handle);
      },
      read: (r) => ({
        parent: v.readFileId(r),
        mode: r.u32(),
        caller: v.readCaller(r),
        flags: r.u32(),
        linkable: r.bool(),
        handle: r.u32(),
      }),
    },
    entry,
  ),
  byNumber: row<"byNumber">(39, false, { write: (w, q) => void w.u64(q.ino), read: (r) => ({ ino: r.u64() }) }, entry),
  parentOf: row<"parentOf">(40, false, identified, entry),
  pathOf: row<"pathOf">(46, false, identified, block),
  getattrSince: row<"getattrSince">(
    47,
    false,
    {
      write: (w, q) => {
        v.writeFileId(w, q.id);
        w.u64(q.since);
      },
      read: (r) => ({ id: v.readFileId(r), since: r.u64() }),
    },
    {
      write: (w, found) => {
        attr.write(w, found.attr);
        optional(w, found.names, writeNamesTold);
      },
      read: (r) => ({ attr: attr.read(r), names: r.bool() ? readNamesTold(r) : null }),
    },
  ),
  lookupSince: row<"lookupSince">(
    41,
    false,
    {
      write: (w, q) => {
        writeName(w, q);
        w.u64(q.since);
      },
      read: (r) => ({ parent: v.readFileId(r), name: v.readName(r), since: r.u64() }),
    },
    {
      write: (w, found) => {
        optional(w, found.entry, v.writeEntry);
        optional(w, found.names, writeNamesTold);
      },
      read: (r) => ({ entry: r.bool() ? v.readEntry(r) : null, names: r.bool() ? readNamesTold(r) : null }),
    },
  ),
  readMany: row<"readMany">(35, false, manyIds(MAX_READ_MANY), manyOrNull(smallFile)),
};

const nameByType: ReadonlyMap<number, CallName> = new Map(
  (Object.entries(CALLS) as [CallName, CallRow<CallName>][]).map(([call, { type }]) => [type, call]),
);

/** undefined for a type that is no call. */
export function callOfType(type: number): CallName | undefined {
  return nameByType.get(type);
}

/** Its program has been told that it is made (hazard F23). */
export function isBehind<K extends CallName>(call: K, request: RequestOf<K>): boolean {
  if (call === "write") return (request as RequestOf<"write">).promised;
  return call === "setattr" && (request as RequestOf<"setattr">).promised;
}

/** Nobody waits for its answer: it leaves with the next call that somebody waits for. */
export function isUnawaited<K extends CallName>(call: K, request: RequestOf<K>): boolean {
  if (call === "open" || call === "opendir") return (request as RequestOf<"open" | "opendir">).promised;
  return call === "close" || isBehind(call, request);
}
