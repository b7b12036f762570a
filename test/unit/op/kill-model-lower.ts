/**
 * The lower of the kill model. On another node than the owner calls reach it in their order (lower/server/session.ts), and each begins when it comes, but for those
 * behind a write of which a program was told. On the owner they begin at once. What the pool does (lower/local/) takes a step of the model, at any later time, and
 * others overtake it; changes of one directory take turns. Answers come back in their order.
 */
import { errnoError, E } from "../../../dlmd/base/errno.ts";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { Exclusive } from "../../../overlay/lower/local/exclusive.ts";
import type { Attr, AttrChange, Caller, ChangeBehind, Entry, FileId, Lower, LowerHandle } from "../../../overlay/lower/lower.ts";
import { KillModelRest } from "./kill-model-rest.ts";
import type { KillModelSteps } from "./kill-model-steps.ts";
import { applied, hasSetId, isGone, type ModelInode, modelInode, ROOT_INO, type State, type Step } from "./kill-model-state.ts";
import { attrOf } from "./scripted-lower.ts";

export const SETGID_GROUP = 50;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_ISGID = 0o2000;
const RENAME_EXCHANGE = 2;

export const idOf = (ino: number): FileId => ({ ino, generation: ino === ROOT_INO ? 0 : 1 });
/** A file made for that request of the kernel. */
export const inoMadeFor = (request: number): number => 100 + request;

function modelAttr(ino: number, { directory, mode, uid, gid, nlink, bytes }: ModelInode): Attr {
  return attrOf(idOf(ino), { mode: (directory ? S_IFDIR : S_IFREG) | mode, uid, gid, nlink, size: bytes.length });
}

export class KillModelLower extends KillModelRest implements Lower {
  readonly root: FileId = idOf(ROOT_INO);
  state: State;
  readonly #steps: KillModelSteps;
  /** Null: this node is the owner. */
  readonly #wire: { readonly to: (act: () => void) => void; readonly from: (act: () => void) => void } | null;
  /** `--metadata-calls pool`. */
  readonly #metadataPool: boolean;
  readonly #turns = new Exclusive();
  /** Calls of which a program was told that they are made, and what waits for them. */
  #promised = 0;
  readonly #queued: (() => void)[] = [];
  #behind = 0;
  readonly #nothingBehind: (() => void)[] = [];
  #request = 0;
  /** A call finds no space, or a disk that does not read, now and then. */
  readonly #fails: boolean;
  #nextHandle = 1000;
  readonly #handles = new Map<number, number>();

  constructor(steps: KillModelSteps, state: State) {
    super();
    this.#steps = steps;
    this.state = state;
    this.#wire = steps.chance(0.8) ? { to: steps.channel(), from: steps.channel() } : null;
    this.#metadataPool = steps.chance(0.4);
    this.#fails = steps.chance(0.3);
  }

  handleOf(ino: number): LowerHandle {
    this.#nextHandle += 1;
    this.#handles.set(this.#nextHandle, ino);
    return this.#nextHandle as LowerHandle;
  }

  #ino(handle: LowerHandle): number {
    return this.#handles.get(handle) as number;
  }

  #inode(ino: number): ModelInode {
    const inode = this.state[ino];
    if (inode === undefined) throw errnoError(E.ESTALE);
    return inode;
  }

  /** Nothing of which a program was told that it is made. */
  #mayFail(errno: number): void {
    if (this.#fails && this.#steps.chance(0.15)) throw errnoError(errno);
  }

  #do(step: Step, promised = false): void {
    if (!promised) this.#mayFail(E.ENOSPC);
    const after = applied(this.state, step);
    if (typeof after === "number") throw errnoError(after);
    this.state = after;
  }

  /** Some calls take long. */
  async #turn(): Promise<void> {
    await this.#steps.turn();
    if (this.#steps.chance(0.4)) for (let more = this.#steps.below(20); more > 0; more -= 1) await this.#steps.turn();
  }

  /** In the pool always, mostly, or where it is configured so. */
  #pool(share: number): MaybePromise<void> {
    return this.#steps.chance(share) ? this.#turn() : undefined;
  }

  #metadata(): MaybePromise<void> {
    return this.#pool(this.#metadataPool ? 1 : 0);
  }

  #call<T>(act: () => MaybePromise<T>, behind = false): MaybePromise<T> {
    const wire = this.#wire;
    if (wire === null) return act();
    return new Promise<T>((resolve, reject) => {
      const start = (): void => {
        if (behind) this.#promised += 1;
        void this.#answer(act, behind, resolve, reject);
      };
      wire.to(() => {
        if (this.#promised > 0 || this.#queued.length > 0) this.#queued.push(start);
        else start();
      });
    });
  }

  async #answer<T>(
    act: () => MaybePromise<T>,
    behind: boolean,
    resolve: (value: T) => void,
    reject: (error: unknown) => void,
  ): Promise<void> {
    let answer: () => void;
    try {
      const value = await act();
      answer = (): void => resolve(value);
    } catch (error) {
      answer = (): void => reject(error);
    }
    if (behind) this.#promised -= 1;
    this.#wire?.from(answer);
    while (this.#promised === 0 && this.#queued.length > 0) this.#queued.shift()?.();
  }

  /** Known under the lock without a trip, mostly. */
  #look<T>(look: () => T): MaybePromise<T> {
    const act = (): T => {
      this.#mayFail(E.EIO);
      return look();
    };
    if (this.#wire !== null && this.#behind === 0 && this.#steps.chance(0.3)) return act();
    const waits = this.#pool(0.2);
    return this.#call(() => (waits === undefined ? act() : waits.then(act)));
  }

  getattr(id: FileId): MaybePromise<Attr> {
    return this.#look(() => modelAttr(id.ino, this.#inode(id.ino)));
  }
  ownership(id: FileId): MaybePromise<Attr> {
    return this.getattr(id);
  }
  lookup(parent: FileId, name: Buffer): MaybePromise<Entry> {
    return this.#look(() => this.#entry(parent, name));
  }
  #entry(parent: FileId, name: Buffer): Entry {
    if (isGone(this.state, parent.ino)) throw errnoError(E.ESTALE);
    const ino = this.#inode(parent.ino).names[name.toString()];
    if (ino === undefined) throw errnoError(E.ENOENT);
    return { id: idOf(ino), attr: modelAttr(ino, this.#inode(ino)) };
  }

  /** In the order of changeSteps (lower/local/attributes.ts): the size by the pool, and what follows it at once. */
  setattr({ ino }: FileId, change: AttrChange, handle: LowerHandle | null): MaybePromise<Attr> {
    return this.#call(async () => {
      if (change.size !== undefined) {
        if (handle === null) await this.#turn();
        await this.#turn();
        this.#do({ do: "truncate", ino, size: change.size });
      }
      const { uid, gid, mode, killSuidgid } = change;
      if (uid !== undefined || gid !== undefined) {
        await this.#metadata();
        const now = this.#inode(ino);
        this.#do({ do: "chown", ino, uid: uid ?? now.uid, gid: gid ?? now.gid });
      }
      if (mode !== undefined || killSuidgid === true) {
        await this.#metadata();
        this.#do(mode === undefined ? { do: "kill", ino } : { do: "chmod", ino, mode: mode & 0o7777 });
      }
      return modelAttr(ino, this.#inode(ino));
    });
  }

  read(handle: LowerHandle, offset: number, bytes: number): MaybePromise<Uint8Array> {
    const ino = this.#ino(handle);
    return this.#look(() => Buffer.from(this.#inode(ino).bytes.slice(offset, offset + bytes), "latin1"));
  }

  write(handle: LowerHandle, given: Uint8Array, offset: number, append: boolean): MaybePromise<{ offset: number; bytes: number }> {
    const data = Buffer.from(given).toString("latin1");
    const waits = this.#pool(0.8);
    return this.#call(() => {
      const made = (): { offset: number; bytes: number } => this.#write(this.#ino(handle), data, offset, append);
      return waits === undefined ? made() : this.#turn().then(made);
    });
  }
  #write(ino: number, data: string, offset: number, append: boolean, promised = false): { offset: number; bytes: number } {
    const at = append ? this.#inode(ino).bytes.length : offset;
    this.#do({ do: "write", ino, offset: at, data }, promised);
    return { offset: at, bytes: data.length };
  }

  #inPool<T>(act: () => T): MaybePromise<T> {
    return this.#call(() => this.#turn().then(act));
  }
  fallocate(handle: LowerHandle, mode: number, offset: number, bytes: number): MaybePromise<void> {
    return this.#inPool(() => this.#do({ do: mode === 0 ? "allocate" : "punch", ino: this.#ino(handle), offset, bytes }));
  }
  copyFileRange(from: LowerHandle, offset: number, handle: LowerHandle, to: number, bytes: number): MaybePromise<number> {
    return this.#inPool(() => {
      const source = this.#ino(from);
      const copied = this.#inode(source).bytes.slice(offset, offset + bytes).length;
      this.#do({ do: "copy", from: source, offset, ino: this.#ino(handle), to, bytes });
      return copied;
    });
  }
  lseek(_handle: LowerHandle, offset: number): MaybePromise<number> {
    return this.#look(() => offset);
  }

  #inMetadata<T>(act: () => T): MaybePromise<T> {
    return this.#call(() => {
      const waits = this.#metadata();
      return waits === undefined ? act() : waits.then(act);
    });
  }
  getxattr({ ino }: FileId, name: Buffer): MaybePromise<Buffer> {
    return this.#look(() => {
      const value = this.#inode(ino).xattrs[name.toString()];
      if (value === undefined) throw errnoError(E.ENODATA);
      return Buffer.from(value);
    });
  }
  setxattr({ ino }: FileId, name: Buffer, value: Buffer): MaybePromise<void> {
    const [called, given] = [name.toString(), value.toString()];
    return this.#inMetadata(() => this.#do({ do: "setxattr", ino, name: called, value: given }));
  }
  removexattr({ ino }: FileId, name: Buffer): MaybePromise<void> {
    const called = name.toString();
    return this.#inMetadata(() => this.#do({ do: "removexattr", ino, name: called }));
  }
  fileAttributes(handle: LowerHandle): MaybePromise<Buffer> {
    return this.#look(() => flagsOf(this.#inode(this.#ino(handle)).flags));
  }
  setFileAttributes(handle: LowerHandle, _kind: string, value: Buffer): MaybePromise<void> {
    const flags = value.readUInt32LE(0);
    return this.#inMetadata(() => this.#do({ do: "flags", ino: this.#ino(handle), flags }));
  }

  /** One change of these directories at a time; the name is looked at first, maybe by the pool. */
  #inDirectories<T>(inos: readonly number[], check: () => void, act: () => T): MaybePromise<T> {
    const sends = this.#wire !== null && this.#steps.chance(0.3) ? this.#turn() : undefined;
    const send = (): MaybePromise<T> => this.#call(() => this.#turns.run(inos, async () => await this.#change(check, act)));
    return sends === undefined ? send() : sends.then(send);
  }
  async #change<T>(check: () => void, act: () => T): Promise<T> {
    await this.#pool(0.2);
    check();
    await this.#metadata();
    return act();
  }
  #expect(parent: FileId, name: string, expected: FileId): void {
    const found = this.#inode(parent.ino).names[name];
    if (found === undefined) throw errnoError(E.ENOENT);
    if (found !== expected.ino) throw errnoError(E.ESTALE);
  }
  #make(parent: FileId, name: Buffer, directory: boolean, mode: number, { uid }: Caller): MaybePromise<Entry> {
    const ino = inoMadeFor(this.#request);
    const at = { dir: parent.ino, name: name.toString() };
    // Hazard F15.
    const inode = modelInode(directory, mode & 0o7777 & ~S_ISGID, uid, SETGID_GROUP);
    return this.#inDirectories(
      [parent.ino],
      () => undefined,
      () => {
        this.#do({ do: "make", at, ino, inode });
        return { id: idOf(ino), attr: modelAttr(ino, inode) };
      },
    );
  }
  create(parent: FileId, name: Buffer, _flags: number, mode: number, caller: Caller): MaybePromise<{ entry: Entry; handle: LowerHandle }> {
    const opened = (entry: Entry): { entry: Entry; handle: LowerHandle } => ({ entry, handle: this.handleOf(entry.id.ino) });
    const made = this.#make(parent, name, false, mode, caller);
    return made instanceof Promise ? made.then(opened) : opened(made);
  }
  mkdir(parent: FileId, name: Buffer, mode: number, caller: Caller): MaybePromise<Entry> {
    return this.#make(parent, name, true, mode, caller);
  }
  #remove(parent: FileId, called: Buffer, expected: FileId, directory: boolean): MaybePromise<void> {
    const at = { dir: parent.ino, name: called.toString() };
    return this.#inDirectories(
      directory ? [parent.ino, expected.ino] : [parent.ino],
      () => this.#expect(parent, at.name, expected),
      () => this.#do({ do: "remove", at, directory }),
    );
  }
  unlink(parent: FileId, name: Buffer, expected: FileId): MaybePromise<void> {
    return this.#remove(parent, name, expected, false);
  }
  rmdir(parent: FileId, name: Buffer, expected: FileId): MaybePromise<void> {
    return this.#remove(parent, name, expected, true);
  }
  rename(
    oldParent: FileId,
    oldName: Buffer,
    newParent: FileId,
    newName: Buffer,
    flags: number,
    expectedOld: FileId,
    expectedNew: FileId | null,
  ): MaybePromise<void> {
    const from = { dir: oldParent.ino, name: oldName.toString() };
    const to = { dir: newParent.ino, name: newName.toString() };
    return this.#inDirectories(
      [oldParent.ino, newParent.ino],
      () => {
        if (isGone(this.state, from.dir) || isGone(this.state, to.dir)) throw errnoError(E.ESTALE);
        this.#expect(oldParent, from.name, expectedOld);
        if (this.#inode(to.dir).names[to.name] !== expectedNew?.ino) throw errnoError(E.ESTALE);
      },
      () => this.#do({ do: "rename", from, to, exchange: flags === RENAME_EXCHANGE }),
    );
  }
  link({ ino }: FileId, parent: FileId, name: Buffer): MaybePromise<Attr> {
    const at = { dir: parent.ino, name: name.toString() };
    return this.#inDirectories(
      [parent.ino],
      () => undefined,
      () => {
        this.#do({ do: "link", at, ino });
        return modelAttr(ino, this.#inode(ino));
      },
    );
  }

  /** All that is asked later is made after it, as in its place in the queue. */
  #makeBehind<T>(make: () => MaybePromise<T>): Promise<T> {
    this.#behind += 1;
    const ended = (): void => {
      this.#behind -= 1;
      if (this.#behind === 0) for (const tell of this.#nothingBehind.splice(0)) tell();
    };
    return Promise.resolve(this.#call(make, true)).finally(ended);
  }
  mayWriteBehind(): boolean {
    return this.#wire !== null && this.#steps.chance(0.5);
  }
  writeBehind(handle: LowerHandle, given: Uint8Array, offset: number): Promise<void> {
    const data = Buffer.from(given).toString("latin1");
    return this.#makeBehind(() => this.#turn().then(() => void this.#write(this.#ino(handle), data, offset, false, true)));
  }
  writtenBehind(): MaybePromise<void> {
    return this.#behind === 0 ? undefined : new Promise((resolve) => this.#nothingBehind.push(resolve));
  }
  setattrBehind({ ino }: FileId, change: AttrChange): ChangeBehind | null {
    const { mode } = change;
    const now = this.#inode(ino);
    // What is under way may change what it has.
    if (this.#wire === null || this.#behind > 0 || mode === undefined || Object.keys(change).length > 1) return null;
    if (((mode | now.mode) & 0o6000) !== 0 || hasSetId(now) || this.#steps.chance(0.3)) return null;
    const make = (): Promise<void> => this.#makeBehind(() => this.#do({ do: "chmod", ino, mode: mode & 0o7777 }, true));
    return { attr: modelAttr(ino, { ...now, mode: mode & 0o7777 }), make };
  }
  madeFor(request: number): void {
    this.#request = request;
  }

  open({ ino }: FileId): MaybePromise<LowerHandle> {
    return this.handleOf(ino);
  }
}

export function flagsOf(flags: number): Buffer {
  const value = Buffer.alloc(4);
  value.writeUInt32LE(flags, 0);
  return value;
}
