/** Test double: a lower that answers every call with a fixed value, at once or later, or with an errno; and writes down what it was asked. */
import { errnoError } from "../../../dlmd/base/errno.ts";
import type { Attr, Caller, ChangeBehind, Entry, Fetched, FileId, Listing, Lower, LowerHandle } from "../../../overlay/lower/lower.ts";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";

export const ROOT: FileId = { ino: 2, generation: 0 };
export const FILE: FileId = { ino: 20, generation: 1 };
export const OTHER: FileId = { ino: 21, generation: 1 };

export function attrOf(id: FileId, change: Partial<Attr> = {}): Attr {
  const times = { atimeSec: 1, atimeNsec: 2, mtimeSec: 3, mtimeNsec: 4, ctimeSec: 5, ctimeNsec: 6, btimeSec: 7, btimeNsec: 8 };
  const mode = id.ino === ROOT.ino ? 0o040755 : 0o100644;
  return {
    ino: id.ino,
    mode,
    nlink: 1,
    uid: 0,
    gid: 0,
    size: 100,
    blocks: 8,
    blksize: 4096,
    rdevMajor: 0,
    rdevMinor: 0,
    ...times,
    ...change,
  };
}

export function entryOf(id: FileId, change: Partial<Attr> = {}): Entry {
  return { id, attr: attrOf(id, change) };
}

type Call = keyof Lower;

export class ScriptedLower implements Lower {
  readonly root: FileId = ROOT;
  hasAcls = false;
  readonly calls: string[] = [];
  /** Errors to answer with, the next call's first; the last one stays. */
  readonly errors: Map<Call, number[]> = new Map<Call, number[]>();
  readonly closed: number[] = [];
  /** The next such call is answered when that has resolved. */
  readonly held: Map<Call, Promise<void>> = new Map<Call, Promise<void>>();
  later = false;
  /** Of a listing. */
  ends = true;
  size = 100;
  /** What READ answers from; null: zeros of its own each time. */
  data: Buffer | null = null;
  /** What LOOKUP finds. */
  found: FileId = FILE;
  dirMode = 0o040755;
  fileMode = 0o100644;
  /** Those of a workbench's caller. */
  fileUid = 1000;
  fileGid = 1000;
  dirUid = 0;
  #nextHandle = 1;

  #answer<T>(call: Call, value: T): MaybePromise<T> {
    this.calls.push(call);
    if (this.#request !== 0) this.madeForRequests.push(`${call} ${this.#request}`);
    const held = this.held.get(call);
    this.held.delete(call);
    if (held !== undefined) return held.then(() => value);
    const errors = this.errors.get(call);
    const errno = errors?.shift();
    if (errno !== undefined && errno !== 0) {
      if (this.later) return Promise.reject(errnoError(errno));
      throw errnoError(errno);
    }
    return this.later ? new Promise((resolve) => setImmediate(() => resolve(value))) : value;
  }

  #attr(id: FileId): Attr {
    if (id.ino === ROOT.ino) return attrOf(id, { mode: this.dirMode, uid: this.dirUid });
    return attrOf(id, { size: this.size, mode: this.fileMode, uid: this.fileUid, gid: this.fileGid });
  }

  #handle(): LowerHandle {
    return this.#nextHandle++ as LowerHandle;
  }

  /** What `fetch` answers: set by a test, null as on the owner. */
  fetched: Fetched | null = null;
  fetch(): Promise<Fetched> | null {
    const { fetched } = this;
    return fetched === null ? null : Promise.resolve(this.#answer("fetch", fetched));
  }

  /** What was prefetched: "data 7 8". */
  readonly prefetched: string[] = [];
  prefetch(ids: readonly FileId[], what: "attributes" | "data"): Promise<void> {
    this.prefetched.push(`${what} ${ids.map(({ ino }) => ino).join(" ")}`);
    return Promise.resolve();
  }

  /** What is written behind, while a test allows it; each ends when the test says so. */
  behind: { readonly data: string; readonly made: () => void; readonly failed: (error: Error) => void }[] | null = null;
  mayWriteBehind(): boolean {
    return this.behind !== null;
  }
  writeBehind(_handle: LowerHandle, data: Uint8Array): Promise<void> {
    return new Promise((made, failed) => void this.behind?.push({ data: Buffer.from(data).toString("latin1"), made, failed }));
  }
  /** What the inode has after a change of attributes that is made behind; null: none is. */
  attrBehind: Attr | null = null;
  setattrBehind(): ChangeBehind | null {
    const { attrBehind: attr } = this;
    return attr === null ? null : { attr, make: () => this.writeBehind(0 as LowerHandle, Buffer.from("attributes")) };
  }
  madeFile(): void {
    // Nothing is kept here.
  }
  writtenBehind(): void {
    // Nothing waits for it here.
  }

  #request = 0;
  /** Which changes were made for which requests: "mkdir 2". */
  readonly madeForRequests: string[] = [];
  madeFor(request: number): void {
    this.#request = request;
  }

  isAbsent(): boolean {
    return false;
  }
  readonly keeps = true;
  known = false;
  knows(): boolean {
    return this.known;
  }
  readonly madeHere: number[] = [];
  made(id: FileId): void {
    this.madeHere.push(id.ino);
  }
  lookup(): MaybePromise<Entry> {
    return this.#answer("lookup", { id: this.found, attr: this.#attr(this.found) });
  }
  lookupMany(_parent: FileId, names: readonly Buffer[]): MaybePromise<readonly (Entry | null)[]> {
    return this.#answer(
      "lookupMany",
      names.map(() => ({ id: this.found, attr: this.#attr(this.found) })),
    );
  }
  byNumber(): MaybePromise<Entry> {
    return this.#answer("byNumber", { id: this.found, attr: this.#attr(this.found) });
  }
  parentOf(): MaybePromise<Entry> {
    return this.#answer("parentOf", { id: ROOT, attr: this.#attr(ROOT) });
  }
  pathOf(): MaybePromise<Buffer> {
    return this.#answer("pathOf", Buffer.from("new/place"));
  }
  getattr(id: FileId): MaybePromise<Attr> {
    return this.#answer("getattr", this.#attr(id));
  }
  /** Whose owner was asked for: mostly that is known, so it is no call. */
  readonly ownersAsked: number[] = [];
  ownership(id: FileId): MaybePromise<Attr> {
    this.ownersAsked.push(id.ino);
    const held = this.held.get("ownership");
    this.held.delete("ownership");
    if (held !== undefined) return held.then(() => this.#attr(id));
    return this.later ? Promise.resolve(this.#attr(id)) : this.#attr(id);
  }
  getattrMany(ids: readonly FileId[]): MaybePromise<readonly (Attr | null)[]> {
    return this.#answer(
      "getattrMany",
      ids.map((id) => this.#attr(id)),
    );
  }
  setattr(id: FileId): MaybePromise<Attr> {
    return this.#answer("setattr", this.#attr(id));
  }
  readlink(): MaybePromise<Buffer> {
    return this.#answer("readlink", Buffer.from("target"));
  }
  create(): MaybePromise<{ entry: Entry; handle: LowerHandle }> {
    return this.#answer("create", { entry: entryOf(OTHER), handle: this.#handle() });
  }
  /** What a file without a name was last made with. */
  nameless: object | null = null;
  tmpfile(
    _parent: FileId,
    flags: number,
    mode: number,
    caller: Caller,
    linkable: boolean,
  ): MaybePromise<{ entry: Entry; handle: LowerHandle }> {
    this.nameless = { flags, mode, caller, linkable };
    return this.#answer("tmpfile", { entry: entryOf(OTHER, { nlink: 0 }), handle: this.#handle() });
  }
  mkdir(): MaybePromise<Entry> {
    return this.#answer("mkdir", entryOf(OTHER, { mode: 0o040755 }));
  }
  mknod(): MaybePromise<Entry> {
    return this.#answer("mknod", entryOf(OTHER));
  }
  symlink(): MaybePromise<Entry> {
    return this.#answer("symlink", entryOf(OTHER, { mode: 0o120777 }));
  }
  unlink(_parent: FileId, _name: Buffer, expected: FileId): MaybePromise<void> {
    this.calls.push(`expect ${expected.ino}`);
    return this.#answer("unlink", undefined);
  }
  rmdir(): MaybePromise<void> {
    return this.#answer("rmdir", undefined);
  }
  rename(): MaybePromise<void> {
    return this.#answer("rename", undefined);
  }
  link(id: FileId): MaybePromise<Attr> {
    return this.#answer("link", this.#attr(id));
  }
  open(): MaybePromise<LowerHandle> {
    return this.#answer("open", this.#handle());
  }
  opendir(): MaybePromise<LowerHandle> {
    return this.#answer("opendir", this.#handle());
  }
  close(handle: LowerHandle): void {
    this.closed.push(handle);
  }
  read(_handle: LowerHandle, _offset: number, bytes: number): MaybePromise<Uint8Array> {
    if (this.data === null) return this.#answer("read", new Uint8Array(bytes));
    // As lower/local/data.ts: a view of one buffer, which the next call overwrites.
    this.data.fill(this.calls.length);
    return this.#answer("read", this.data.subarray(0, Math.min(bytes, this.size)));
  }
  write(_handle: LowerHandle, data: Uint8Array, offset: number, append: boolean): MaybePromise<{ offset: number; bytes: number }> {
    this.calls.push(`write ${data.byteLength} at ${append ? "end" : offset}`);
    return this.#answer("write", { offset: append ? this.size : offset, bytes: data.byteLength });
  }
  fsync(): MaybePromise<void> {
    return this.#answer("fsync", undefined);
  }
  fsyncdir(): MaybePromise<void> {
    return this.#answer("fsyncdir", undefined);
  }
  fallocate(): MaybePromise<void> {
    return this.#answer("fallocate", undefined);
  }
  lseek(_handle: LowerHandle, offset: number, whence: number): MaybePromise<number> {
    if (whence === 0) this.calls.push(`reach ${offset}`);
    return this.#answer("lseek", 7);
  }
  copyFileRange(_in: LowerHandle, _inOffset: number, _out: LowerHandle, _outOffset: number, bytes: number): MaybePromise<number> {
    return this.#answer("copyFileRange", bytes);
  }
  readdir(_handle: LowerHandle, _cookie: bigint, _bytes: number, listing: Listing): ReturnType<Lower["readdir"]> {
    const name = Buffer.from("name");
    const entry = { name, type: 8, ino: FILE.ino, cookie: 1n };
    return this.#answer("readdir", {
      entries: [listing === "entries" ? { ...entry, entry: { id: FILE, attr: this.#attr(FILE) } } : entry],
      end: this.ends,
    });
  }
  statfs(): ReturnType<Lower["statfs"]> {
    return this.#answer("statfs", { blocks: 1, bfree: 1, bavail: 1, files: 1, ffree: 1, bsize: 4096, frsize: 4096, namelen: 255 });
  }
  getxattr(): MaybePromise<Buffer> {
    return this.#answer("getxattr", Buffer.from("value"));
  }
  setxattr(): MaybePromise<void> {
    return this.#answer("setxattr", undefined);
  }
  listxattr(): MaybePromise<Buffer> {
    return this.#answer("listxattr", Buffer.from("user.a\0"));
  }
  removexattr(): MaybePromise<void> {
    return this.#answer("removexattr", undefined);
  }
  fileAttributes(): MaybePromise<Buffer> {
    return this.#answer("fileAttributes", Buffer.alloc(4, 1));
  }
  setFileAttributes(): MaybePromise<void> {
    return this.#answer("setFileAttributes", undefined);
  }
  syncfs(): MaybePromise<void> {
    return this.#answer("syncfs", undefined);
  }
}
