/**
 * What a mount's process writes down of what cannot be rebuilt if it dies (README.md, hazards F38, F39), in memory that outlives it. No system calls. Written before
 * what it stands for: a number is there before the kernel is told of it, and a call before it is sent.
 */
import { createHash } from "node:crypto";
import { E } from "../../dlmd/base/errno.ts";
import type { Log } from "../../dlmd/base/log.ts";
import { NumberMap } from "../../dlmd/base/number-map.ts";
import { firstUnique } from "../fuse/unique.ts";
import type { OpenFile } from "../inode/handles.ts";
import type { InodeRecord } from "../inode/table.ts";
import type { CallJournal } from "../lower/remote/call-journal.ts";
import type { OwnJournal } from "../lower/own-journal.ts";
import type { OpenFile as LowerFile } from "../lower/lower.ts";
import type { Constants, RowsBefore } from "./before.ts";
import type { SessionJournal } from "../session/session-journal.ts";
import {
  AT,
  BODY,
  CALL,
  CALL_BODY_AT,
  CONSTANTS_AT,
  CONSTANTS_MAX,
  FILE,
  HANDLE,
  JOURNAL_BODY_MAX,
  JOURNAL_HEIRS_MAX,
  JOURNAL_LOST_MAX,
  JOURNAL_VERSION,
  KINDS,
  MAGIC,
  NLOOKUP,
  TABLES,
} from "./layout.ts";
import { Rows } from "./rows.ts";

export class Journal implements SessionJournal, OwnJournal, CallJournal {
  readonly #log: Log;
  readonly #memory: ArrayBuffer;
  readonly #head: DataView;
  readonly #inodes: Rows;
  readonly #handles: Rows;
  readonly #files: Rows;
  readonly #calls: Rows;
  /** By the kernel's number, by that of the lower, by that of the call, by that of the request. */
  readonly #handleRows = new NumberMap<number>();
  readonly #fileRows = new NumberMap<number>();
  readonly #callRows = new NumberMap<number>();
  readonly #requestRows = new NumberMap<number>();
  /** Requests that have made another change before the one in their row. */
  readonly #madeBefore = new Set<number>();
  /** Its client of dlmd: whose session at the owner the calls are of. */
  client = 0;
  /** For changes of an owner's own mount. */
  wanted = true;
  #full = false;
  /** For whose changes there was no row, until they are over: requests, and numbers of calls made behind, as negative ones. */
  readonly #beyond = new Set<number>();
  #wasBeyond = false;
  #lost = 0;
  /** Changes of an owner's own mount. */
  #made = 0;

  /** `memory`: JOURNAL_BYTES, all 0 or an earlier process's journal. */
  constructor(memory: ArrayBuffer, log: Log) {
    this.#memory = memory;
    this.#log = log;
    this.#head = new DataView(memory, 0, CONSTANTS_AT);
    new Uint8Array(memory).set(MAGIC);
    this.#head.setUint32(AT.version, JOURNAL_VERSION, true);
    this.#inodes = new Rows(memory, TABLES.inodes);
    this.#handles = new Rows(memory, TABLES.handles);
    this.#files = new Rows(memory, TABLES.files);
    this.#calls = new Rows(memory, TABLES.calls);
  }

  /** What this process goes on with is in the rows of the one before. */
  goOn({ handles, files, calls, freeInodes }: RowsBefore): void {
    for (const row of freeInodes) {
      // One that nobody has a use for is empty from now on.
      this.#inodes.u32[this.#inodes.u32At(row) + 7] = 0;
      this.#inodes.free(row);
    }
    fillRows(this.#handles, this.#handleRows, handles);
    fillRows(this.#files, this.#fileRows, files);
    const inUse = new Map(calls.map(({ row }) => [row, row]));
    fillRows(this.#calls, inUse, inUse);
    for (const { request, row } of calls) if (request !== 0) this.#requestRows.set(request, row);
  }

  /** What the kernel has is covered by the locks of that client of dlmd from now on, which dlmd keeps if this process crashes. */
  set servingClient(clientId: number) {
    this.#head.setUint32(AT.servingClient, clientId, true);
    this.#head.setUint32(AT.heirs, 0, true);
  }

  /** Before it takes over any lock: from then on what covers what the kernel has may be its client's. */
  addHeir(clientId: number): void {
    const count = this.#head.getUint32(AT.heirs, true);
    if (count >= JOURNAL_HEIRS_MAX) throw new Error(`${count} processes have not come to go on with this mount`);
    this.#head.setUint32(AT.heir + 4 * count, clientId, true);
    this.#head.setUint32(AT.heirs, count + 1, true);
  }

  /** N of /sys/fs/fuse/connections/N: before there is a keeper. */
  set connection(connection: number) {
    this.#head.setUint32(AT.connection, connection, true);
  }

  /** More rows were wanted than there are: what is written down is not all. */
  get isFull(): boolean {
    return this.#full || this.#beyond.size > 0;
  }

  /** Whether another process could go on with the mount if this one died now. */
  set resumable(yes: boolean) {
    this.#head.setUint32(AT.resumable, yes && !this.isFull ? 1 : 0, true);
  }

  get resumable(): boolean {
    return this.#head.getUint32(AT.resumable, true) === 1;
  }

  /** Not while it is resumable. */
  setConstants(constants: Constants): void {
    const body = Buffer.from(JSON.stringify(constants));
    if (body.length + 36 > CONSTANTS_MAX) throw new Error(`constants of ${body.length} bytes`);
    const to = Buffer.from(this.#memory, CONSTANTS_AT, CONSTANTS_MAX);
    to.writeUInt32LE(body.length, 0);
    createHash("sha256").update(body).digest().copy(to, 4);
    body.copy(to, 36);
  }

  #take(rows: Rows, what: string): number {
    const row = rows.take();
    if (row < 0) this.#beFull(what);
    return row;
  }

  #beFull(what: string): void {
    if (this.#full) return;
    this.#full = true;
    this.resumable = false;
    this.#log.warn({ what }, "the journal is full: if this process crashes its mount ends");
  }

  // --- inodes

  telling(record: InodeRecord): void {
    if (record.row < 0) return this.#enter(record, record.nlookup + 1);
    // One reply may tell of it under several names.
    const { u32 } = this.#inodes;
    const at = this.#inodes.u32At(record.row);
    const low = ((u32[at + NLOOKUP.low] as number) + 1) >>> 0;
    // Cut off between the two it is too many: with too few the next process would not know what the kernel does.
    if (low === 0) u32[at + NLOOKUP.high] = (u32[at + NLOOKUP.high] as number) + 1;
    u32[at + NLOOKUP.low] = low;
  }

  restoredInode(record: InodeRecord): void {
    this.#enter(record, record.nlookup);
  }

  #enter(record: InodeRecord, nlookup: number): void {
    const row = this.#take(this.#inodes, "inodes");
    if (row < 0) return;
    const { f64, u32 } = this.#inodes;
    const at = this.#inodes.f64At(row);
    f64[at] = record.fuseNodeid;
    f64[at + 1] = record.id.ino;
    u32[2 * at + 4] = record.id.generation;
    this.#setLookups(2 * at, nlookup);
    u32[2 * at + 6] = record.nlinkHint;
    u32[2 * at + 7] = KINDS.indexOf(record.kind) + 1;
    record.row = row;
  }

  counted(record: InodeRecord, nlookup: number): void {
    if (record.row >= 0) this.#setLookups(this.#inodes.u32At(record.row), nlookup);
  }

  /** Of a row that is not there yet, or fewer than it has. */
  #setLookups(at: number, nlookup: number): void {
    this.#inodes.u32[at + NLOOKUP.low] = nlookup >>> 0;
    this.#inodes.u32[at + NLOOKUP.high] = Math.floor(nlookup / 2 ** 32);
  }

  dropped(record: InodeRecord): void {
    const { row } = record;
    if (row < 0) return;
    record.row = -1;
    this.#inodes.u32[this.#inodes.u32At(row) + 7] = 0;
    this.#inodes.free(row);
  }

  countedUp(nextCounted: number): void {
    this.#head.setFloat64(AT.nextCounted, nextCounted, true);
  }

  // --- handles

  giving(request: number, file: OpenFile): void {
    this.#head.setFloat64(AT.givingFh, file.fh, true);
    this.#head.setFloat64(AT.givingTo, firstUnique(request), true);
    this.#opened(file);
  }

  restoredHandle(file: OpenFile): void {
    this.#opened(file);
  }

  given(): void {
    this.#head.setFloat64(AT.givingTo, 0, true);
  }

  #opened({ fh, inode, lowerHandle, writable, cached, writeToken, mappable }: OpenFile): void {
    this.#head.setFloat64(AT.nextFh, Math.max(fh + 1, this.#head.getFloat64(AT.nextFh, true)), true);
    const row = this.#handleRows.get(fh) ?? this.#take(this.#handles, "handles");
    if (row < 0) return;
    const { f64, u32 } = this.#handles;
    const at = this.#handles.f64At(row);
    f64[at] = fh;
    f64[at + 1] = inode.fuseNodeid;
    f64[at + 2] = lowerHandle;
    u32[2 * at + 6] =
      HANDLE.used |
      (writable ? HANDLE.writable : 0) |
      (cached ? HANDLE.cached : 0) |
      (writeToken ? HANDLE.writeToken : 0) |
      (mappable ? HANDLE.mappable : 0);
    this.#handleRows.set(fh, row);
  }

  closed(fh: number): void {
    freeRow(this.#handles, this.#handleRows, fh, 6);
  }

  // --- files at the owner

  openedAtOwner({ handle, id, flags, directory }: LowerFile): void {
    const row = this.#fileRows.get(handle) ?? this.#take(this.#files, "files");
    if (row < 0) return;
    const { f64, u32 } = this.#files;
    const at = this.#files.f64At(row);
    f64[at] = handle;
    f64[at + 1] = id.ino;
    u32[2 * at + 4] = id.generation;
    u32[2 * at + 5] = flags;
    u32[2 * at + 6] = directory ? FILE.directory : FILE.file;
    this.#fileRows.set(handle, row);
  }

  closedAtOwner(handle: number): void {
    freeRow(this.#files, this.#fileRows, handle, 6);
  }

  // --- calls

  begun(id: number, type: number, request: number, body: Uint8Array | null, data: Uint8Array | null): void {
    // Nobody asks what became of a call for which no request waits, and of which no program was told.
    if (request === 0 && body === null) return;
    const row = this.#enterCall(id, type, firstUnique(request), body, data);
    if (row >= 0) this.#callRows.set(id, row);
    else this.#noteBeyond(request === 0 ? -id : firstUnique(request));
  }

  /** A change is about to be made for that request on the disk that is mounted here. Nobody remembers what becomes of it. `body`: what it asks for. */
  making(type: number, request: number, body: Uint8Array, sure: boolean): void {
    this.#made += 1;
    const row = this.#enterCall(this.#made, type, firstUnique(request), body, null);
    if (row >= 0) this.#calls.u32[this.#calls.u32At(row) + 6] = sure ? BODY.sure : BODY.own;
    else if (request === 0) this.#beFull("changes for no request");
    else this.#noteBeyond(firstUnique(request));
  }

  notMade(request: number): void {
    this.#forget(firstUnique(request));
  }

  #enterCall(id: number, type: number, request: number, body: Uint8Array | null, data: Uint8Array | null): number {
    const before = this.#requestRows.get(request);
    const row = request !== 0 && before !== undefined ? before : this.#calls.take();
    if (row < 0) return row;
    const { u32, f64 } = this.#calls;
    const at = this.#calls.u32At(row);
    if (row === before && u32[at] !== CALL.failed) this.#madeBefore.add(request);
    u32[at] = 0;
    this.#unmap(row);
    u32[at + 1] = id;
    u32[at + 2] = type;
    u32[at + 3] = this.client;
    f64[at / 2 + 4] = request;
    this.#setBody(row, body, data);
    u32[at] = CALL.begun;
    if (request !== 0) this.#requestRows.set(request, row);
    return row;
  }

  #noteBeyond(whose: number): void {
    if (!this.#wasBeyond) this.#log.warn({}, "more changes are under way than the journal has room for: a crash meanwhile ends the mount");
    this.#wasBeyond = true;
    this.#beyond.add(whose);
    this.resumable = false;
  }

  answered(id: number, failed: boolean, body: Uint8Array): void {
    const row = this.#callRows.get(id);
    if (row === undefined) {
      if (this.#beyond.size > 0 && this.#beyond.delete(-id) && failed && !isGone(body)) this.#beFull("changes that are lost");
      return;
    }
    this.#callRows.delete(id);
    const at = this.#calls.u32At(row);
    if (this.#calls.f64[at / 2 + 4] !== 0) return this.setOutcome(row, failed, body);
    // What a program was told is lost, and an fsync(2) is to say so: what it was stays here. Unless the file was removed: nobody can miss it.
    if (failed && !isGone(body)) this.noteLost(row);
    else this.freeCall(row);
  }

  /** What became of a call of the process before. */
  setOutcome(row: number, failed: boolean, body: Uint8Array): void {
    this.#setBody(row, body, null);
    this.#calls.u32[this.#calls.u32At(row)] = failed ? CALL.failed : CALL.answered;
  }

  over(id: number): void {
    if (this.#beyond.size > 0) this.#beyond.delete(-id);
    const row = this.#callRows.get(id);
    if (row === undefined) return;
    this.#callRows.delete(id);
    const request = this.#calls.f64[this.#calls.f64At(row) + 4] as number;
    if (request === 0) this.freeCall(row);
    else this.#forget(request);
  }

  /** That request was answered: what became of its call is no matter any more. */
  replied(request: number): void {
    if (this.#beyond.size > 0) this.#beyond.delete(request);
    this.#forget(request);
  }

  #forget(request: number): void {
    const row = this.#requestRows.get(request);
    if (row === undefined) return;
    this.#requestRows.delete(request);
    if (this.#madeBefore.size > 0) this.#madeBefore.delete(request);
    this.#unmap(row);
    this.freeCall(row);
  }

  hasChanged(request: number): boolean {
    const row = this.#requestRows.get(request);
    if (row === undefined) return this.isFull;
    const isMade = this.#calls.u32[this.#calls.u32At(row)] !== CALL.failed;
    return isMade || this.#madeBefore.has(request) || this.#beyond.has(request);
  }

  /** The call of that row is followed no more. A row of the process before has a number of that one: it may be another call's here. */
  #unmap(row: number): void {
    const id = this.#calls.u32[this.#calls.u32At(row) + 1] as number;
    if (this.#callRows.get(id) === row) this.#callRows.delete(id);
  }

  /** Made behind, and not made: each process that goes on tells of it. */
  noteLost(row: number): void {
    this.#calls.u32[this.#calls.u32At(row)] = CALL.failed;
    this.#lost += 1;
    if (this.#lost > JOURNAL_LOST_MAX) this.#beFull("changes that are lost");
  }

  /** It is known what became of it, and nobody is to be told. */
  freeCall(row: number): void {
    this.#calls.u32[this.#calls.u32At(row)] = 0;
    this.#calls.free(row);
  }

  #setBody(row: number, body: Uint8Array | null, data: Uint8Array | null): void {
    const bytes = body?.byteLength ?? 0;
    const dataBytes = data?.byteLength ?? 0;
    if (bytes + dataBytes > JOURNAL_BODY_MAX) throw new Error(`a call with ${bytes + dataBytes} bytes`);
    const { u32 } = this.#calls;
    const at = this.#calls.u32At(row);
    const to = this.#calls.byteAt(row) + CALL_BODY_AT;
    if (body !== null) new Uint8Array(this.#memory, to, bytes).set(body);
    if (data !== null) new Uint8Array(this.#memory, to + bytes, dataBytes).set(data);
    u32[at + 4] = bytes;
    u32[at + 5] = dataBytes;
    u32[at + 6] = body === null ? BODY.none : BODY.asked;
  }
}

function isGone(errno: Uint8Array): boolean {
  return new DataView(errno.buffer, errno.byteOffset, errno.byteLength).getUint32(0, true) === E.ESTALE;
}

function fillRows(rows: Rows, to: { set(key: number, row: number): unknown }, from: ReadonlyMap<number, number>): void {
  const inUse = new Set(from.values());
  for (const [key, row] of from) to.set(key, row);
  for (let row = 0; row < rows.used; row += 1) if (!inUse.has(row)) rows.free(row);
}

function freeRow(rows: Rows, of: NumberMap<number>, key: number, stateAt: number): void {
  const row = of.get(key);
  if (row === undefined) return;
  of.delete(key);
  rows.u32[rows.u32At(row) + stateAt] = 0;
  rows.free(row);
}
