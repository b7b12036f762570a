/**
 * One caller's session at the owner: its open handles, its running calls, and the answers it may not have seen. It
 * outlives connections: a caller that connects again finds its handles open and its changes made once.
 */
import { ByteWriter } from "../../../dlmd/base/bytes.ts";
import { assertNever } from "../../../dlmd/base/assert.ts";
import { E, Errno, errnoError } from "../../../dlmd/base/errno.ts";
import { WireError } from "../../../dlmd/base/error.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import type { LowerSessionId } from "../wire/handshake.ts";
import { largeBuffers } from "../large-buffers.ts";
import { BEHIND_BYTES_MAX, MAX_IO_BYTES, READ_MANY_FILE_BYTES_MAX } from "../limits.ts";
import { O } from "../linux.ts";
import type { LocalLower } from "../local/local.ts";
import { type Attr, type Entry, type FileId, fileKey, type LowerHandle } from "../lower.ts";
import { andThen, withErrors, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { FrameType } from "../wire/frame.ts";
import { decodeWith } from "../wire/call-codecs.ts";
import type { AnswerOf, CallName, Opened, RequestOf } from "../wire/call-types.ts";
import { CALLS, type CallRow, isBehind } from "../wire/calls.ts";
import { XattrWords } from "./xattr-words.ts";

/** Open handles of one session, and those that could not be opened again; ENFILE beyond. Of what was promised to a program before, there may be more: pinned. */
export const MAX_SESSION_HANDLES = 65_536;
/** Calls of one session that run at a time: beyond, its connection is not read. */
export const MAX_RUNNING_CALLS = 1024;
/** Their data. */
export const MAX_RUNNING_BYTES: number = 32 * 1024 * 1024;
/** Answers of changes and syncs that the caller has not acknowledged; a caller with more is not one of ours. */
export const MAX_REMEMBERED_ANSWERS: number = 8 * MAX_RUNNING_CALLS;

/**
 * Hazard F23: so often what a caller's programs may have been told to be written (remote/write-behind.ts) must find room. Others use the disk, too: it is
 * more than is written in the time for which the owner's word counts.
 */
const ROOM_FACTOR = 256;

/** Of one call: programs' reads and writes are in the same queue. */
const READ_MANY_AT_A_TIME = 4;

/** Gives the volume to another node, after the answer. */
export type HandOver = (request: RequestOf<"handOver">) => Promise<AnswerOf<"handOver">>;

/** Where answers go: the session's present connection. */
export interface AnswerSink {
  /** `data` must stay as it is until sent, unless `passing`: then it is copied now. */
  answer(type: number, id: number, body: Uint8Array, data: Uint8Array | null, passing: boolean): void;
  /** There is room for more calls again. */
  resume(): void;
}

/** Of a change or a sync: none of them has data. */
interface Answer {
  readonly type: number;
  readonly body: Uint8Array;
}

interface OpenHandle {
  readonly id: FileId;
  readonly handle: LowerHandle;
}

/** What a caller leaves here while it is away (hazard F35). */
export interface SessionCustody {
  readonly deposit: (session: ServerSession, request: RequestOf<"deposit">) => MaybePromise<AnswerOf<"deposit">>;
  readonly collect: (request: RequestOf<"collect">) => AnswerOf<"collect">;
}

const noCustody: SessionCustody = {
  deposit: () => ({ refused: "this owner keeps nothing for others" }),
  collect: () => ({ found: false }),
};

export class ServerSession {
  readonly id: LowerSessionId;
  sink: AnswerSink | null = null;
  readonly #lower: LocalLower;
  readonly #log: Log;
  readonly #claimed: () => void;
  readonly #handOver: HandOver;
  readonly #mayServe: () => boolean;
  readonly #custody: SessionCustody;
  readonly #xattrs: XattrWords;
  readonly #handles: Map<number, OpenHandle> = new Map();
  /** A caller whose connection broke while it opened its files asks for the same again, under another number of call. */
  readonly #opening: Map<number, Promise<void>> = new Map();
  /** Bytes of each running call's frame, by its id. */
  readonly #running: Map<number, number> = new Map();
  readonly #answers: Map<number, Answer> = new Map();
  readonly #writer = new ByteWriter();
  #runningBytes = 0;
  /** Running changes of which programs were told that they are made: what came after them waits here, in its order. */
  #promised = 0;
  readonly #queued: Map<number, () => void> = new Map();
  #closed = false;
  #retired = false;
  #hasClaimed = false;
  /** Files that the caller has open, and that could not be opened here: by handle. */
  readonly #pinned: Map<number, FileId> = new Map();
  #idle: (() => void)[] = [];

  /** `claimed`: this caller has opened all that it had open at an earlier owner. */
  constructor(
    id: LowerSessionId,
    lower: LocalLower,
    log: Log,
    claimed: () => void,
    handOver: HandOver,
    mayServe: () => boolean = () => true,
    custody: SessionCustody = noCustody,
  ) {
    this.id = id;
    this.#lower = lower;
    this.#log = log;
    this.#claimed = claimed;
    this.#handOver = handOver;
    this.#mayServe = mayServe;
    this.#custody = custody;
    this.#xattrs = new XattrWords(lower, () => performance.now());
  }

  get hasClaimed(): boolean {
    return this.#hasClaimed;
  }

  get full(): boolean {
    return (
      this.#promised > 0 || this.#queued.size > 0 || this.#running.size >= MAX_RUNNING_CALLS || this.#runningBytes >= MAX_RUNNING_BYTES
    );
  }

  get runningCalls(): number {
    return this.#running.size;
  }

  get openHandles(): number {
    return this.#handles.size;
  }

  get rememberedAnswers(): number {
    return this.#answers.size;
  }

  acknowledge(ids: readonly number[]): void {
    for (const id of ids) this.#answers.delete(id);
  }

  /** Takes no new calls any more; resolves when those that run have been answered. */
  async retire(): Promise<void> {
    this.#retired = true;
    if (this.#running.size > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Takes no calls any more; resolves when those that run have ended and the handles are closed. */
  async close(): Promise<void> {
    this.#closed = true;
    this.sink = null;
    await this.retire();
    for (const { handle } of this.#handles.values()) this.#lower.close(handle);
    for (const handle of this.#pinned.keys()) this.#unpin(handle);
    this.#handles.clear();
    this.#answers.clear();
    this.#queued.clear();
  }

  /** Runs a call, unless it is one that came before. Throws WireError for one that does not decode. */
  receive(call: CallName, id: number, body: Uint8Array): void {
    if (this.#closed || this.#running.has(id) || this.#queued.has(id)) return;
    const remembered = this.#answers.get(id);
    if (remembered !== undefined) {
      this.sink?.answer(remembered.type, id, remembered.body, null, false);
      return;
    }
    if (this.#retired) return;
    const start = this.#decode(call, id, body);
    if (this.#promised === 0 && this.#queued.size === 0) return start();
    if (this.#queued.size >= MAX_RUNNING_CALLS) throw new WireError("more calls than a caller has outstanding");
    this.#queued.set(id, start);
  }

  /** Also when the owner may serve again. */
  startQueued(): void {
    // Asked first: it may find that the node may serve again, and come here by itself.
    while (this.#queued.size > 0 && this.#mayServe() && this.#promised === 0) {
      const [first] = this.#queued;
      if (first === undefined) return;
      const [id, start] = first;
      this.#queued.delete(id);
      if (!this.#retired) start();
    }
  }

  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- it ties the row, its request and its answer together
  #decode<K extends CallName>(call: K, id: number, body: Uint8Array): () => void {
    const row: CallRow<K> = CALLS[call];
    const request = decodeWith(row.request, body);
    return () => this.#start(row, call, id, request, body);
  }

  #start<K extends CallName>(row: CallRow<K>, call: K, id: number, request: RequestOf<K>, body: Uint8Array): void {
    let answer: MaybePromise<AnswerOf<K>>;
    try {
      answer = this.#execute(call, request);
    } catch (error) {
      this.#fail(row, call, id, error);
      return;
    }
    if (!(answer instanceof Promise)) {
      if (call === "write") largeBuffers.giveBack(body);
      this.#succeed(row, id, answer, true);
      return;
    }
    const promised = isBehind(call, request);
    this.#running.set(id, body.byteLength);
    this.#runningBytes += body.byteLength;
    if (promised) this.#promised += 1;
    const ended = (tell: () => void): void => this.#ended(id, call, body, promised, tell);
    answer.then(
      (value) => ended(() => this.#succeed(row, id, value, false)),
      (error: unknown) => ended(() => this.#fail(row, call, id, error)),
    );
  }

  #ended(id: number, call: CallName, body: Uint8Array, promised: boolean, answer: () => void): void {
    // Of other calls the lower may remember a name.
    if (call === "write") largeBuffers.giveBack(body);
    const wasFull = this.full;
    if (promised) this.#promised -= 1;
    this.#runningBytes -= this.#running.get(id) ?? 0;
    this.#running.delete(id);
    answer();
    this.startQueued();
    if (wasFull && !this.full) this.sink?.resume();
    if (this.#running.size === 0) for (const tell of this.#idle.splice(0)) tell();
  }

  #succeed<K extends CallName>(row: CallRow<K>, id: number, value: AnswerOf<K>, shared: boolean): void {
    this.#writer.reset();
    row.answer.write(this.#writer, value);
    this.#answer(row, id, row.type | FrameType.ANSWER, row.answer.data?.(value) ?? null, shared);
  }

  #fail<K extends CallName>(row: CallRow<K>, call: CallName, id: number, error: unknown): void {
    // Anything but the answer of a system call is a fault of this program: an assertion goes up and takes the node out.
    if (!(error instanceof Errno)) {
      this.#log.error({ call, error: String(error) }, "a call of another node ended with an error that is no errno");
      throw error;
    }
    this.#writer.reset().u32(error.errno);
    this.#answer(row, id, FrameType.FAILED, null, false);
  }

  /** With the body that was just written. `shared`: a view of the lower's own buffer, which the next call overwrites. */
  #answer<K extends CallName>(row: CallRow<K>, id: number, type: number, data: Uint8Array | null, shared: boolean): void {
    if (this.#closed) return;
    if (row.remembered) this.#answers.set(id, { type, body: this.#writer.copy() });
    this.sink?.answer(type, id, this.#writer.view(), data, shared);
  }

  #handle(handle: number): LowerHandle {
    const found = this.#handles.get(handle);
    if (found === undefined) throw errnoError(E.EBADF);
    return found.handle;
  }

  /** For `handle`: one that is pinned was counted before. */
  #checkRoom(handle: number): void {
    const others = this.#handles.size + (this.#pinned.has(handle) ? 0 : this.#pinned.size);
    if (others >= MAX_SESSION_HANDLES) throw errnoError(E.ENFILE);
  }

  #withinRoom(handle: number, open: () => MaybePromise<LowerHandle>): MaybePromise<LowerHandle> {
    this.#checkRoom(handle);
    return open();
  }

  /** EBADF: another file has that number. */
  #opened(handle: number, id: FileId, open: () => MaybePromise<LowerHandle>): MaybePromise<void> {
    const before = this.#handles.get(handle);
    if (before !== undefined && fileKey(before.id) !== fileKey(id)) throw errnoError(E.EBADF);
    // The answer to the first one was lost with its connection.
    if (before !== undefined) return;
    const pending = this.#opening.get(handle);
    if (pending !== undefined) return pending;
    const done = andThen(open(), (opened) => {
      this.#handles.set(handle, { id, handle: opened });
      this.#unpin(handle);
    });
    if (!(done instanceof Promise)) return;
    const opening = done.finally(() => this.#opening.delete(handle));
    this.#opening.set(handle, opening);
    return opening;
  }

  /** What a program there has open already. If that fails for now (ENFILE), the next READ, or the next owner, may do better. */
  #openPromised(handle: number, id: FileId, open: () => MaybePromise<LowerHandle>): MaybePromise<LowerHandle> {
    return withErrors(open, (error) => {
      if (error instanceof Errno && error.errno !== E.ESTALE) this.#pin(handle, id);
      throw error;
    });
  }

  #pin(handle: number, id: FileId): void {
    if (this.#closed || this.#pinned.has(handle)) return;
    this.#pinned.set(handle, id);
    this.#lower.pin(id);
  }

  #unpin(handle: number): void {
    const id = this.#pinned.get(handle);
    if (id === undefined) return;
    this.#pinned.delete(handle);
    this.#lower.unpin(id);
  }

  #create(request: RequestOf<"create">): MaybePromise<AnswerOf<"create">> {
    if (this.#handles.has(request.handle)) throw errnoError(E.EBADF);
    this.#checkRoom(request.handle);
    const { parent, name, flags, mode, caller } = request;
    const room = this.#hasRoom();
    return andThen(this.#lower.create(parent, name, flags, mode, caller), (made) => {
      this.#handles.set(request.handle, { id: made.entry.id, handle: made.handle });
      return andThen(this.#xattrs.entry(made.entry), (entry) => this.#withParent(request, (told) => ({ entry, parent: told, room })));
    });
  }

  /** Hazard F32. The names as they are when it begins: what is changed later is told the next time. */
  #lookupSince({ parent, name, since }: RequestOf<"lookupSince">): MaybePromise<AnswerOf<"lookupSince">> {
    const names = this.#lower.namesSince(parent, since);
    const found = withErrors<Entry | null>(
      () => this.#xattrs.entry(this.#lower.lookup(parent, name)),
      (error) => {
        if (error instanceof Errno && error.errno === E.ENOENT) return null;
        throw error;
      },
    );
    return andThen(found, (entry) => ({ entry, names }));
  }

  #tmpfile({ parent, flags, mode, caller, linkable, handle }: RequestOf<"tmpfile">): MaybePromise<Entry> {
    if (this.#handles.has(handle)) throw errnoError(E.EBADF);
    this.#checkRoom(handle);
    return andThen(this.#lower.tmpfile(parent, flags, mode, caller, linkable), (made) => {
      this.#handles.set(handle, { id: made.entry.id, handle: made.handle });
      return made.entry;
    });
  }

  #hasRoom(): boolean {
    try {
      return this.#lower.room() >= ROOM_FACTOR * BEHIND_BYTES_MAX;
    } catch (error) {
      // The disk's errors are told by what needs it.
      if (error instanceof Errno) return false;
      throw error;
    }
  }

  #made(request: { readonly parent: FileId; readonly tellParent: boolean }, made: MaybePromise<Entry>): MaybePromise<AnswerOf<"mkdir">> {
    return andThen(this.#xattrs.entry(made), (entry) => this.#withParent(request, (parent) => ({ entry, parent })));
  }

  #withParent<T>(
    { parent, tellParent }: { readonly parent: FileId; readonly tellParent: boolean },
    answer: (parent: Attr | null) => T,
  ): MaybePromise<T> {
    return this.#withAttr(tellParent ? parent : null, answer);
  }

  /** The change was made: what became of the inode is told if it can be. */
  #withAttr<T>(id: FileId | null, answer: (attr: Attr | null) => MaybePromise<T>): MaybePromise<T> {
    if (id === null) return answer(null);
    const attr = withErrors<Attr | null>(
      () => this.#lower.getattr(id),
      (error) => {
        if (error instanceof Errno) return null;
        throw error;
      },
    );
    return andThen(attr, answer);
  }

  #renamed({ oldParent, newParent, expectedOld, tell }: RequestOf<"rename">): MaybePromise<AnswerOf<"rename">> {
    const other = fileKey(oldParent) === fileKey(newParent) ? null : newParent;
    return this.#withAttr(tell ? oldParent : null, (from) =>
      this.#withAttr(tell ? other : null, (to) =>
        this.#withAttr(tell ? expectedOld : null, (moved) => ({ oldParent: from, newParent: to, moved })),
      ),
    );
  }

  /** Before its claim a caller opens what it had open at an earlier owner. */
  #open(handle: number, { id, flags }: Opened, promised: boolean): MaybePromise<void> {
    const open = (): MaybePromise<LowerHandle> => this.#withinRoom(handle, () => this.#lower.open(id, flags));
    return this.#opened(handle, id, () => (promised || !this.#hasClaimed ? this.#openPromised(handle, id, open) : open()));
  }

  #read({ handle, offset, bytes, open }: RequestOf<"read">): MaybePromise<Uint8Array> {
    const read = (): MaybePromise<Uint8Array> => this.#lower.read(this.#handle(handle), offset, Math.min(bytes, MAX_IO_BYTES));
    const opened = open === null ? undefined : this.#open(handle, open, true);
    // The lower's own buffer, and this is not the turn in which it is sent.
    return opened instanceof Promise ? opened.then(async () => Uint8Array.from(await read())) : read();
  }

  #fetch({ id, handle, offset, bytes }: RequestOf<"fetch">): MaybePromise<AnswerOf<"fetch">> {
    const lower = this.#lower;
    const open = this.#handle(handle);
    const attributes = lower.getattr(id);
    const later = attributes instanceof Promise;
    return andThen(attributes, (attr) =>
      andThen(lower.read(open, offset, Math.min(bytes, MAX_IO_BYTES)), (data) => {
        // The lower's own buffer, and this is not the turn in which it is sent. (A Buffer's slice() would be no copy.)
        return { attr, data: later ? Uint8Array.from(data) : data };
      }),
    );
  }

  async #readMany(ids: readonly FileId[]): Promise<AnswerOf<"readMany">> {
    const files: (Uint8Array | null)[] = [];
    const left = ids.entries();
    const some = async (): Promise<void> => {
      for (const [at, id] of left) files[at] = await this.#readSmall(id);
    };
    await Promise.all(Array.from({ length: READ_MANY_AT_A_TIME }, some));
    return files;
  }

  /** Nobody waits for just this one: whoever opens it meets the error. */
  async #readSmall(id: FileId): Promise<Uint8Array | null> {
    const lower = this.#lower;
    try {
      const handle = await lower.open(id, O.RDONLY);
      try {
        // One byte more: is that all?
        const read = lower.read(handle, 0, READ_MANY_FILE_BYTES_MAX + 1);
        // The lower's own buffer, which the next call overwrites.
        const data = read instanceof Promise ? await read : Uint8Array.from(read);
        return data.byteLength > READ_MANY_FILE_BYTES_MAX ? null : data;
      } finally {
        lower.close(handle);
      }
    } catch (error) {
      if (error instanceof Errno) return null;
      throw error;
    }
  }

  #closeMany(handles: readonly number[]): MaybePromise<void> {
    const closing = handles.map((handle) => this.#close(handle)).filter((one) => one instanceof Promise);
    if (closing.length > 0) return Promise.all(closing).then(() => undefined);
  }

  #close(handle: number): MaybePromise<void> {
    const opening = this.#opening.get(handle);
    if (opening === undefined) this.#closeNow(handle);
    // It came with a READ whose caller does not wait for it (hazard F22).
    else return opening.catch(() => undefined).then(() => this.#closeNow(handle));
  }

  #closeNow(handle: number): void {
    this.#unpin(handle);
    const found = this.#handles.get(handle);
    if (found === undefined) return;
    this.#handles.delete(handle);
    this.#lower.close(found.handle);
  }

  #execute<K extends CallName>(call: K, request: RequestOf<K>): MaybePromise<AnswerOf<K>> {
    // One row, so one call and its own answer: which TypeScript does not follow through a union.
    const answer: MaybePromise<unknown> = this.#run({ call, request } as AnyCall);
    return answer as MaybePromise<AnswerOf<K>>;
  }

  #run(one: AnyCall): MaybePromise<AnswerOf<CallName>> {
    const lower = this.#lower;
    switch (one.call) {
      case "lookup":
        return this.#xattrs.entry(lower.lookup(one.request.parent, one.request.name));
      case "lookupSince":
        return this.#lookupSince(one.request);
      case "lookupMany":
        return this.#xattrs.entries(lower.lookupMany(one.request.parent, one.request.names));
      case "byNumber":
        return lower.byNumber(one.request.ino);
      case "parentOf":
        return lower.parentOf(one.request.id);
      case "getattr":
        return this.#xattrs.attr(one.request.id, lower.getattr(one.request.id));
      case "getattrMany":
        return this.#xattrs.attrs(one.request.ids, lower.getattrMany(one.request.ids));
      case "readMany":
        return this.#readMany(one.request.ids);
      case "setattr": {
        const { id, change, handle } = one.request;
        return lower.setattr(id, change, handle === null ? null : this.#handle(handle));
      }
      case "readlink":
        return lower.readlink(one.request.id);
      case "create":
        return this.#create(one.request);
      case "tmpfile":
        return this.#tmpfile(one.request);
      case "mkdir": {
        const { parent, name, mode, caller } = one.request;
        return this.#made(one.request, lower.mkdir(parent, name, mode, caller));
      }
      case "mknod": {
        const { parent, name, mode, rdevMajor, rdevMinor, caller } = one.request;
        return this.#made(one.request, lower.mknod(parent, name, mode, rdevMajor, rdevMinor, caller));
      }
      case "symlink": {
        const { parent, name, target, caller } = one.request;
        return this.#made(one.request, lower.symlink(parent, name, target, caller));
      }
      case "unlink":
      case "rmdir": {
        const { parent, name, expected } = one.request;
        return andThen(lower[one.call](parent, name, expected), () => this.#withParent(one.request, (told) => ({ parent: told })));
      }
      case "rename": {
        const { oldParent, oldName, newParent, newName, flags, expectedOld, expectedNew } = one.request;
        const renamed = lower.rename(oldParent, oldName, newParent, newName, flags, expectedOld, expectedNew);
        return andThen(renamed, () => this.#renamed(one.request));
      }
      case "link": {
        const { id, newParent, newName, tellParent } = one.request;
        return andThen(lower.link(id, newParent, newName), (attr) =>
          this.#withParent({ parent: newParent, tellParent }, (parent) => ({ attr, parent })),
        );
      }
      case "open":
        return this.#open(one.request.handle, one.request, one.request.promised);
      case "opendir": {
        const { id, handle } = one.request;
        return this.#opened(handle, id, () => this.#withinRoom(handle, () => lower.opendir(id)));
      }
      case "close":
        return this.#closeMany(one.request.handles);
      case "read":
        return this.#read(one.request);
      case "fetch":
        return this.#fetch(one.request);
      case "write": {
        const { handle, data, offset, append, tell } = one.request;
        return andThen(lower.write(this.#handle(handle), data, offset, append), (written) =>
          this.#withAttr(tell, (attr) => ({ ...written, attr })),
        );
      }
      case "fsync":
        return lower.fsync(this.#handle(one.request.handle), one.request.dataOnly);
      case "fsyncdir":
        return lower.fsyncdir(this.#handle(one.request.handle), one.request.dataOnly);
      case "fallocate": {
        const { handle, mode, offset, bytes } = one.request;
        return lower.fallocate(this.#handle(handle), mode, offset, bytes);
      }
      case "lseek":
        return lower.lseek(this.#handle(one.request.handle), one.request.offset, one.request.whence);
      case "copyFileRange": {
        const { inHandle, inOffset, outHandle, outOffset, bytes } = one.request;
        return lower.copyFileRange(this.#handle(inHandle), inOffset, this.#handle(outHandle), outOffset, bytes);
      }
      case "readdir": {
        const { handle, cookie, bytes, listing } = one.request;
        return lower.readdir(this.#handle(handle), cookie, Math.min(bytes, MAX_IO_BYTES), listing);
      }
      case "statfs":
        return lower.statfs();
      case "getxattr":
        this.#xattrs.noteAsked();
        return lower.getxattr(one.request.id, one.request.name);
      case "setxattr": {
        const { id, name, value, flags } = one.request;
        return lower.setxattr(id, name, value, flags);
      }
      case "listxattr":
        this.#xattrs.noteAsked();
        return lower.listxattr(one.request.id);
      case "removexattr":
        return lower.removexattr(one.request.id, one.request.name);
      case "fileAttributes":
        return lower.fileAttributes(this.#handle(one.request.handle), one.request.kind);
      case "setFileAttributes": {
        const { handle, kind, value } = one.request;
        return lower.setFileAttributes(this.#handle(handle), kind, value);
      }
      case "syncfs":
        return lower.syncfs();
      case "claimed":
        this.#hasClaimed = true;
        return this.#claimed();
      case "handOver":
        return this.#handOver(one.request);
      case "deposit":
        return this.#custody.deposit(this, one.request);
      case "collect":
        return this.#custody.collect(one.request);
      default:
        return assertNever(one, "call");
    }
  }
}

type AnyCall = { [K in CallName]: { readonly call: K; readonly request: RequestOf<K> } }[CallName];
