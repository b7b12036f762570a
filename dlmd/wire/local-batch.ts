/**
 * Lock requests and their results on the local socket come in batches, any number in one message (local.ts). They are
 * the hot path: their codec calls a sink for each of them and makes no object. What is asked or granted in a row for many
 * locks alike is one entry, a list. A `lockId` is the client's own number for a lock, a `lockspaceId` its number for a
 * lockspace; both are of one connection.
 */
import { AssertionError } from "../base/assert.ts";
import { type ByteReader, type ByteWriter, decodeText } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import { ALTMODE, DEMOTED } from "./flag.ts";
import type { FrameGatherer, ListKind } from "./frame.ts";
import { type Mode, isMode } from "./mode.ts";

export const REQUESTS_KIND = 3;
export const RESULTS_KIND = 131;
/** The largest body of a frame on the local socket. */
export const LOCAL_FRAME_BYTES: number = 4 * 1024 * 1024;
/** A batch that has grown past this is closed and another begun. */
export const LOCAL_BATCH_BYTES: number = 256 * 1024;
export const NAME_BYTES = 64;
export const LVB_BYTES = 256;
export const REASON_BYTES = 4096;
/** Longer time-outs are cut to that: 49 days. */
const MAX_TIMEOUT_MS = 0xffffffff;

/** How a request ended, in the order of the numbers on the wire. */
const statuses = ["granted", "again", "canceled", "deadlock", "unlocked", "error", "timeout"] as const;
export type LockStatus = (typeof statuses)[number];

export function readName(reader: ByteReader): string {
  const bytes = reader.u16();
  if (bytes === 0 || bytes > NAME_BYTES) throw new WireError(`name of ${bytes} bytes, 1 to ${NAME_BYTES} allowed`);
  return decodeText(reader.bytes(bytes));
}

function readMode(reader: ByteReader): Mode {
  const mode = reader.u8();
  if (!isMode(mode)) throw new WireError(`lock mode ${mode}, 0 to 5 expected`);
  return mode;
}

/* Lock requests ------------------------------------------------------------------------------------------------- */

const Request = { LOCKS: 1, CONVERT: 2, UNLOCK: 3, CANCEL: 4, LOCK_X: 5, CONVERT_X: 6, DOWN: 7, GIVE_UPS: 8 } as const;

/** Receives the requests of a batch, in order. `lvb` is a view: who keeps it copies it. */
export interface RequestSink {
  lock(lockId: number, lockspaceId: number, resource: string, mode: Mode, flags: number, timeoutMs: number, transaction: number): void;
  convert(lockId: number, mode: Mode, flags: number, lvb: Uint8Array | null, timeoutMs: number, transaction: number | undefined): void;
  unlock(lockId: number, flags: number, lvb: Uint8Array | null): void;
  /** A conversion down and an unlock of which the client knows the end: they are not answered (hazard H2). */
  down(lockId: number, mode: Mode, flags: number, lvb: Uint8Array | null): void;
  giveUp(lockId: number, flags: number, lvb: Uint8Array | null): void;
  cancel(lockId: number): void;
}

const NO_LVB = 0xffff;

function writeLvb(writer: ByteWriter, lvb: Uint8Array | null): void {
  if (lvb === null) {
    writer.u16(NO_LVB);
    return;
  }
  if (lvb.byteLength > LVB_BYTES) throw new AssertionError(`value block of ${lvb.byteLength} bytes, at most ${LVB_BYTES} allowed`);
  writer.u16(lvb.byteLength).bytes(lvb);
}

function readLvb(reader: ByteReader): Uint8Array | null {
  const bytes = reader.u16();
  if (bytes === NO_LVB) return null;
  if (bytes > LVB_BYTES) throw new WireError(`value block of ${bytes} bytes, at most ${LVB_BYTES} allowed`);
  return reader.bytes(bytes);
}

/** A conversion that leaves its lock's transaction as it was. */
const KEEP_TRANSACTION = 0xffffffff;

function writeMore(writer: ByteWriter, timeoutMs: number, transaction: number): void {
  if (!(Number.isInteger(transaction) && transaction >= 0 && transaction <= KEEP_TRANSACTION))
    throw new AssertionError(`transaction ${transaction}: a u32 expected`);
  writer.u32(Math.min(MAX_TIMEOUT_MS, Math.ceil(timeoutMs))).u32(transaction);
}

export function beginRequests(writer: ByteWriter): void {
  writer.u8(REQUESTS_KIND);
}

const locks: ListKind = {
  begin: (writer, lockspaceId, mode, flags) => writer.u8(Request.LOCKS).u32(lockspaceId).u8(mode).u32(flags),
};
const giveUps: ListKind = { begin: (writer, flags) => writer.u8(Request.GIVE_UPS).u32(flags) };

/** One more of a list of requests. */
export const gatherRequest = {
  lock(gatherer: FrameGatherer, lockId: number, lockspaceId: number, resource: string, mode: Mode, flags: number): void {
    gatherer.element(locks, lockspaceId, mode, flags).u32(lockId).string(resource);
  },
  giveUp(gatherer: FrameGatherer, lockId: number, flags: number, lvb: Uint8Array | null): void {
    writeLvb(gatherer.element(giveUps, flags, 0, 0).u32(lockId), lvb);
  },
} as const;

/** Entries that follow beginRequests. */
export const encodeRequest = {
  /** With a time-out or a transaction (libdlm's dlm_lockx). */
  lock(
    writer: ByteWriter,
    lockId: number,
    lockspaceId: number,
    resource: string,
    mode: Mode,
    flags: number,
    timeoutMs: number,
    transaction: number,
  ): void {
    writer.u8(Request.LOCK_X).u32(lockId).u32(lockspaceId).u8(mode).u32(flags);
    writeMore(writer, timeoutMs, transaction);
    writer.string(resource);
  },
  convert(
    writer: ByteWriter,
    lockId: number,
    mode: Mode,
    flags: number,
    lvb: Uint8Array | null,
    timeoutMs = 0,
    transaction?: number,
  ): void {
    const more = timeoutMs > 0 || transaction !== undefined;
    writer
      .u8(more ? Request.CONVERT_X : Request.CONVERT)
      .u32(lockId)
      .u8(mode)
      .u32(flags);
    if (more) writeMore(writer, timeoutMs, transaction ?? KEEP_TRANSACTION);
    writeLvb(writer, lvb);
  },
  unlock(writer: ByteWriter, lockId: number, flags: number, lvb: Uint8Array | null): void {
    writer.u8(Request.UNLOCK).u32(lockId).u32(flags);
    writeLvb(writer, lvb);
  },
  down(writer: ByteWriter, lockId: number, mode: Mode, flags: number, lvb: Uint8Array | null): void {
    writer.u8(Request.DOWN).u32(lockId).u8(mode).u32(flags);
    writeLvb(writer, lvb);
  },
  cancel(writer: ByteWriter, lockId: number): void {
    writer.u8(Request.CANCEL).u32(lockId);
  },
} as const;

function readCount(reader: ByteReader): number {
  const count = reader.u32();
  if (count === 0) throw new WireError("a list of no locks, at least 1 expected");
  return count;
}

function decodeLocks(reader: ByteReader, sink: RequestSink): void {
  const lockspaceId = reader.u32();
  const mode = readMode(reader);
  const flags = reader.u32();
  for (let left = readCount(reader); left > 0; left--) {
    const lockId = reader.u32();
    sink.lock(lockId, lockspaceId, readName(reader), mode, flags, 0, 0);
  }
}

function decodeGiveUps(reader: ByteReader, sink: RequestSink): void {
  const flags = reader.u32();
  for (let left = readCount(reader); left > 0; left--) {
    const lockId = reader.u32();
    sink.giveUp(lockId, flags, readLvb(reader));
  }
}

/** Hands each request to the sink. Throws WireError at the first damaged one; those before it have been handed on. */
export function decodeRequests(reader: ByteReader, sink: RequestSink): void {
  while (reader.remaining > 0) {
    const request = reader.u8();
    switch (request) {
      case Request.LOCKS:
        decodeLocks(reader, sink);
        break;
      case Request.GIVE_UPS:
        decodeGiveUps(reader, sink);
        break;
      case Request.LOCK_X: {
        const lockId = reader.u32();
        const lockspaceId = reader.u32();
        const mode = readMode(reader);
        const flags = reader.u32();
        const timeoutMs = reader.u32();
        const transaction = reader.u32();
        sink.lock(lockId, lockspaceId, readName(reader), mode, flags, timeoutMs, transaction);
        break;
      }
      case Request.CONVERT:
      case Request.CONVERT_X: {
        const lockId = reader.u32();
        const mode = readMode(reader);
        const flags = reader.u32();
        const timeoutMs = request === Request.CONVERT_X ? reader.u32() : 0;
        const transaction = request === Request.CONVERT_X ? reader.u32() : KEEP_TRANSACTION;
        sink.convert(lockId, mode, flags, readLvb(reader), timeoutMs, transaction === KEEP_TRANSACTION ? undefined : transaction);
        break;
      }
      case Request.UNLOCK: {
        const lockId = reader.u32();
        const flags = reader.u32();
        sink.unlock(lockId, flags, readLvb(reader));
        break;
      }
      case Request.DOWN: {
        const lockId = reader.u32();
        const mode = readMode(reader);
        const flags = reader.u32();
        sink.down(lockId, mode, flags, readLvb(reader));
        break;
      }
      case Request.CANCEL:
        sink.cancel(reader.u32());
        break;
      default:
        throw new WireError(`lock request of kind ${request}, 1 to 8 expected`);
    }
  }
}

/* Results ------------------------------------------------------------------------------------------------------- */

const LVB_READ = 1;
const LVB_VALID = 2;
const DEMOTED_BIT = 4;
const ALTMODE_BIT = 8;
const Result = { AST: 1, BAST: 2, REFUSED: 3, GRANTED: 4 } as const;

export interface ResultSink {
  /** `lvbRead`: `lvb` (null: never written) and `lvbValid` are new. `lvb` is a view: who keeps it copies it. */
  ast(lockId: number, status: LockStatus, mode: Mode, sbFlags: number, lvbRead: boolean, lvb: Uint8Array | null, lvbValid: boolean): void;
  bast(lockId: number, wanted: Mode): void;
  /** The request ended with status "error". `errno` is positive. */
  refused(lockId: number, mode: Mode, errno: number, reason: string): void;
}

export function beginResults(writer: ByteWriter): void {
  writer.u8(RESULTS_KIND);
}

const granted: ListKind = { begin: (writer, mode) => writer.u8(Result.GRANTED).u8(mode) };

/** Of what was granted there is most often nothing else to say: then it is one more of a list. */
export function gatherAst(
  gatherer: FrameGatherer,
  lockId: number,
  status: LockStatus,
  mode: Mode,
  sbFlags: number,
  lvbRead: boolean,
  lvb: Uint8Array | null,
  lvbValid: boolean,
): void {
  const sb = ((sbFlags & DEMOTED) !== 0 ? DEMOTED_BIT : 0) | ((sbFlags & ALTMODE) !== 0 ? ALTMODE_BIT : 0);
  if (status === "granted" && !lvbRead && sb === 0) {
    gatherer.element(granted, mode, 0, 0).u32(lockId);
    return;
  }
  const writer = gatherer.entry();
  writer.u8(Result.AST).u32(lockId).u8(statuses.indexOf(status)).u8(mode);
  writer.u8((lvbRead ? LVB_READ : 0) | (lvbValid ? LVB_VALID : 0) | sb);
  if (lvbRead) writeLvb(writer, lvb);
}

/** Entries that follow beginResults. */
export const encodeResult = {
  bast(writer: ByteWriter, lockId: number, wanted: Mode): void {
    writer.u8(Result.BAST).u32(lockId).u8(wanted);
  },
  refused(writer: ByteWriter, lockId: number, mode: Mode, errno: number, reason: string): void {
    writer.u8(Result.REFUSED).u32(lockId).u8(mode).u16(errno).string(reason);
  },
} as const;

function decodeGranted(reader: ByteReader, sink: ResultSink): void {
  const mode = readMode(reader);
  for (let left = readCount(reader); left > 0; left--) sink.ast(reader.u32(), "granted", mode, 0, false, null, false);
}

/** Hands each result to the sink, and returns how many entries there were. Throws WireError at the first damaged one. */
export function decodeResults(reader: ByteReader, sink: ResultSink): number {
  let entries = 0;
  for (; reader.remaining > 0; entries++) {
    const result = reader.u8();
    switch (result) {
      case Result.GRANTED:
        decodeGranted(reader, sink);
        break;
      case Result.AST: {
        const lockId = reader.u32();
        const status = statuses[reader.u8()];
        if (status === undefined) throw new WireError("unknown status of a lock request");
        const mode = readMode(reader);
        const lvbBits = reader.u8();
        const lvbRead = (lvbBits & LVB_READ) !== 0;
        const sbFlags = ((lvbBits & DEMOTED_BIT) !== 0 ? DEMOTED : 0) | ((lvbBits & ALTMODE_BIT) !== 0 ? ALTMODE : 0);
        sink.ast(lockId, status, mode, sbFlags, lvbRead, lvbRead ? readLvb(reader) : null, (lvbBits & LVB_VALID) !== 0);
        break;
      }
      case Result.BAST:
        sink.bast(reader.u32(), readMode(reader));
        break;
      case Result.REFUSED:
        sink.refused(reader.u32(), readMode(reader), reader.u16(), reader.string(REASON_BYTES));
        break;
      default:
        throw new WireError(`lock result of kind ${result}, 1 to 4 expected`);
    }
  }
  return entries;
}
