/** What a call of another node does at the owner: one of the lower, or of the owner itself, and what its answer says beside that. */
import { assertNever } from "../../../dlmd/base/assert.ts";
import { E, Errno, errnoError } from "../../../dlmd/base/errno.ts";
import { andThen, type MaybePromise, withErrors } from "../../../dlmd/base/maybe-promise.ts";
import { BEHIND_BYTES_MAX, MAX_IO_BYTES, READ_MANY_FILE_BYTES_MAX } from "../limits.ts";
import { O } from "../linux.ts";
import type { LocalLower } from "../local/local.ts";
import { type Attr, type Entry, type FileId, fileKey, type LowerHandle, ownBytes } from "../lower.ts";
import type { AnswerOf, CallName, RequestOf } from "../wire/call-types.ts";
import type { SessionHandles } from "./session-handles.ts";
import { XattrWords } from "./xattr-words.ts";

/**
 * Hazard F23: so often what a caller's programs may have been told to be written (remote/write-behind.ts) must find room. Others use the disk, too: it is
 * more than is written in the time for which the owner's word counts.
 */
const ROOM_FACTOR = 256;

/** Hazard F23: one that took so long was held up, as by more dirty memory than the kernel allows. All that its caller asks for has waited. */
export const BEHIND_HELD_UP_MS = 50;
/** So long no other one of that caller is to come, but to a new file. */
export const AFTER_BEHIND_HELD_UP_MS = 10_000;

/** Of one call: programs' reads and writes are in the same queue. */
const READ_MANY_AT_A_TIME = 4;

/** What is asked of the owner itself. */
export interface AskedOfOwner {
  /** This caller has opened all that it had open at an earlier owner. */
  readonly claimed: () => void;
  readonly handOver: (request: RequestOf<"handOver">) => Promise<AnswerOf<"handOver">>;
  readonly deposit: (request: RequestOf<"deposit">) => MaybePromise<AnswerOf<"deposit">>;
  readonly kept: (request: RequestOf<"kept">) => void;
  readonly collect: (request: RequestOf<"collect">) => AnswerOf<"collect">;
  readonly outcomes: (request: RequestOf<"outcomes">) => Promise<AnswerOf<"outcomes">>;
}

type AnyCall = { [K in CallName]: { readonly call: K; readonly request: RequestOf<K> } }[CallName];

/** What the answer of a call may have, where that is much: it takes memory from when it is begun. */
export function answerBytesOf<K extends CallName>(call: K, request: RequestOf<K>): number {
  switch (call) {
    case "read":
    case "fetch":
    case "readdir":
      return Math.min((request as RequestOf<"read" | "fetch" | "readdir">).bytes, MAX_IO_BYTES);
    case "readMany":
      return (request as RequestOf<"readMany">).ids.length * READ_MANY_FILE_BYTES_MAX;
    default:
      return 0;
  }
}

export class SessionCalls {
  readonly #lower: LocalLower;
  readonly #handles: SessionHandles;
  readonly #asked: AskedOfOwner;
  readonly #xattrs: XattrWords;
  #waitUntilMs: number = Number.NEGATIVE_INFINITY;
  /** Of the lower, of which this caller knows. */
  #failedSyncs: number;

  constructor(lower: LocalLower, handles: SessionHandles, asked: AskedOfOwner) {
    this.#lower = lower;
    this.#handles = handles;
    this.#asked = asked;
    this.#failedSyncs = lower.failedSyncs();
    this.#xattrs = new XattrWords(lower, () => performance.now());
  }

  execute<K extends CallName>(call: K, request: RequestOf<K>): MaybePromise<AnswerOf<K>> {
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
      case "pathOf":
        return lower.pathOf(one.request.id);
      case "getattr":
        return this.#xattrs.attr(one.request.id, lower.getattr(one.request.id));
      case "getattrSince": {
        const { id, since } = one.request;
        const names = lower.namesSince(id, since);
        return andThen(this.#xattrs.attr(id, lower.getattr(id)), (attr) => ({ attr, names }));
      }
      case "getattrMany":
        return this.#xattrs.attrs(one.request.ids, lower.getattrMany(one.request.ids));
      case "readMany":
        return this.#readMany(one.request.ids);
      case "setattr":
        return this.#setattr(one.request);
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
        return this.#handles.open(one.request.handle, one.request, one.request.promised);
      case "opendir":
        return this.#handles.opendir(one.request.handle, one.request.id, one.request.promised);
      case "close":
        return this.#handles.close(one.request.handles);
      case "read":
        return this.#read(one.request);
      case "fetch":
        return this.#fetch(one.request);
      case "write":
        return this.#write(one.request);
      case "fsync":
        return lower.fsync(this.#handles.get(one.request.handle), one.request.dataOnly);
      case "fsyncdir":
        return this.#handles.whenOpen(one.request.handle, (opened) => lower.fsyncdir(opened, one.request.dataOnly));
      case "fallocate": {
        const { handle, mode, offset, bytes } = one.request;
        return lower.fallocate(this.#handles.get(handle), mode, offset, bytes);
      }
      case "lseek":
        return lower.lseek(this.#handles.get(one.request.handle), one.request.offset, one.request.whence);
      case "copyFileRange": {
        const { inHandle, inOffset, outHandle, outOffset, bytes } = one.request;
        return this.#handles.whenOpen(inHandle, (source) =>
          this.#handles.whenOpen(outHandle, (target) => lower.copyFileRange(source, inOffset, target, outOffset, bytes)),
        );
      }
      case "readdir": {
        const { handle, cookie, bytes, listing } = one.request;
        return this.#handles.whenOpen(handle, (opened) => lower.readdir(opened, cookie, Math.min(bytes, MAX_IO_BYTES), listing));
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
        return lower.fileAttributes(this.#handles.get(one.request.handle), one.request.kind);
      case "setFileAttributes": {
        const { handle, kind, value } = one.request;
        return lower.setFileAttributes(this.#handles.get(handle), kind, value);
      }
      case "syncfs":
        return this.#syncfs();
      case "claimed":
        this.#handles.claim();
        return this.#asked.claimed();
      case "handOver":
        return this.#asked.handOver(one.request);
      case "deposit":
        return this.#asked.deposit(one.request);
      case "kept":
        return this.#asked.kept(one.request);
      case "collect":
        return this.#asked.collect(one.request);
      case "outcomes":
        return this.#asked.outcomes(one.request);
      default:
        return assertNever(one, "call");
    }
  }

  #create(request: RequestOf<"create">): MaybePromise<AnswerOf<"create">> {
    const { parent, name, flags, mode, caller, handle } = request;
    const made = this.#handles.make(handle, () => {
      const room = this.#hasRoom();
      return andThen(this.#lower.create(parent, name, flags, mode, caller), (file) => ({ entry: file.entry, handle: file.handle, room }));
    });
    return andThen(made, ({ entry: of, room }) =>
      andThen(this.#xattrs.entry(of), (entry) => this.#withParent(request, (told) => ({ entry, parent: told, room }))),
    );
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
    const made = this.#handles.make(handle, () => this.#lower.tmpfile(parent, flags, mode, caller, linkable));
    return andThen(made, ({ entry }) => entry);
  }

  #setattr({ id, change, handle }: RequestOf<"setattr">): MaybePromise<AnswerOf<"setattr">> {
    const set = (opened: LowerHandle | null): MaybePromise<Attr> => this.#lower.setattr(id, change, opened);
    const changed = handle === null ? set(null) : this.#handles.whenOpen(handle, set);
    return andThen(changed, (attr) => ({ attr, room: change.size !== undefined && this.#hasRoomNow() }));
  }

  #write({ handle, data, offset, append, promised, tell, room: asked }: RequestOf<"write">): MaybePromise<AnswerOf<"write">> {
    const begunMs = performance.now();
    const writing = this.#handles.whenOpen(handle, (opened) => this.#lower.write(opened, data, offset, append));
    return andThen(writing, (written) => {
      const nowMs = performance.now();
      if (promised && nowMs - begunMs >= BEHIND_HELD_UP_MS) this.#waitUntilMs = nowMs + AFTER_BEHIND_HELD_UP_MS;
      const room = asked && this.#hasRoomNow(nowMs);
      return this.#withAttr(tell, (attr) => ({ offset: written.offset, bytes: written.bytes, room, attr }));
    });
  }

  /** Also for a file that is not new: none of its writes was held up a moment ago. */
  #hasRoomNow(nowMs: number = performance.now()): boolean {
    return nowMs >= this.#waitUntilMs && this.#hasRoom();
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

  #read({ handle, offset, bytes, open }: RequestOf<"read">): MaybePromise<Uint8Array> {
    const read = (): MaybePromise<Uint8Array> => this.#lower.read(this.#handles.get(handle), offset, Math.min(bytes, MAX_IO_BYTES));
    const opened = open === null ? undefined : this.#handles.open(handle, open, true);
    // Not sent in this turn, and another READ that waited beside it may be next.
    return opened instanceof Promise ? opened.then(() => ownBytes(read())) : read();
  }

  #fetch({ id, handle, offset, bytes }: RequestOf<"fetch">): MaybePromise<AnswerOf<"fetch">> {
    const lower = this.#lower;
    const open = this.#handles.get(handle);
    const attributes = lower.getattr(id);
    const later = attributes instanceof Promise;
    return andThen(attributes, (attr) =>
      andThen(lower.read(open, offset, Math.min(bytes, MAX_IO_BYTES)), (data) => {
        // The lower's own buffer, and this is not the turn in which it is sent. (A Buffer's slice() would be no copy.)
        return { attr, data: later ? Uint8Array.from(data) : data };
      }),
    );
  }

  /** Hazard H8. The sync of another caller may have been told what is lost of this one. */
  async #syncfs(): Promise<void> {
    const known = this.#failedSyncs;
    try {
      await this.#lower.syncfs();
    } finally {
      this.#failedSyncs = this.#lower.failedSyncs();
    }
    if (this.#failedSyncs > known) throw errnoError(E.EIO);
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
        const data = await ownBytes(lower.read(handle, 0, READ_MANY_FILE_BYTES_MAX + 1));
        return data.byteLength > READ_MANY_FILE_BYTES_MAX ? null : data;
      } finally {
        lower.close(handle);
      }
    } catch (error) {
      if (error instanceof Errno) return null;
      throw error;
    }
  }
}
