/**
 * The lowers of the model of listings (listing-model.ts): that of the owner, where each call takes place at some moment, and over it the real remote lower of
 * another node, with what that knows under its locks (hazard F21), over a connection that takes its time.
 */
import { E, errnoError, isErrno } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { type Attr, changeFor, type DirEntry, type DirPage, type Entry, type FileId, fileKey } from "../../../overlay/lower/lower.ts";
import type { Listing, Lower, LowerHandle } from "../../../overlay/lower/lower.ts";
import { attributesOf } from "../../../overlay/lower/remote/attributes.ts";
import { behindOf } from "../../../overlay/lower/remote/behind-calls.ts";
import { Changes } from "../../../overlay/lower/remote/changes.ts";
import type { RemoteCore } from "../../../overlay/lower/remote/core.ts";
import { DataAhead } from "../../../overlay/lower/remote/data-ahead.ts";
import { dataOf } from "../../../overlay/lower/remote/data.ts";
import { type Holds, KnownInodes } from "../../../overlay/lower/remote/known.ts";
import { namesOf } from "../../../overlay/lower/remote/names.ts";
import { Opens } from "../../../overlay/lower/remote/opens.ts";
import type { RemoteSession } from "../../../overlay/lower/remote/session.ts";
import { WritesBehind } from "../../../overlay/lower/remote/write-behind.ts";
import type { RequestOf } from "../../../overlay/lower/wire/call-types.ts";
import { KillModelRest } from "./kill-model-rest.ts";
import type { ListingWorld, Tag } from "./listing-model-world.ts";

/** Of an entry of READDIRPLUS with a name of one letter; of READDIR. */
const PLUS_ENTRY_BYTES = 160;
const ENTRY_BYTES = 32;
const NAMES_MAX = [2, 6, 100];

/** What the owner does when it is asked: all of one call but a listing with attributes is one moment. */
class Owner {
  readonly world: ListingWorld;
  readonly #directories = new Map<number, FileId>();
  /** Being opened. */
  readonly #opening = new Map<number, Promise<void>>();

  constructor(world: ListingWorld) {
    this.world = world;
  }

  opendir(handle: number, id: FileId): void {
    this.world.living(id);
    this.#directories.set(handle, id);
  }

  noteOpening(handle: number, opening: Promise<void>): void {
    this.#opening.set(handle, opening);
  }

  async readdir(handle: number, cookie: bigint, bytes: number, listing: Listing): Promise<DirPage> {
    await this.#opening.get(handle);
    const directory = this.#directories.get(handle);
    if (directory === undefined) throw errnoError(E.EBADF);
    const fit = Math.floor(bytes / (listing === "plain" ? ENTRY_BYTES : PLUS_ENTRY_BYTES));
    if (fit === 0) throw errnoError(E.EINVAL);
    const entries = this.world.list(directory, cookie, Math.min(fit, 1 + this.world.below(this.world.pick(NAMES_MAX))));
    if (entries.length === 0) return { entries: [], end: true };
    const end = this.world.list(directory, entries.at(-1)?.cookie ?? cookie, 1).length === 0;
    if (listing !== "entries") return { entries, end };
    await this.world.turns(1);
    return { entries: this.#withAttributes(directory, entries), end };
  }

  #withAttributes(directory: FileId, entries: readonly DirEntry[]): DirEntry[] {
    return entries.map((entry) => {
      if (/^\.+$/.test(entry.name.toString())) return entry;
      try {
        return { ...entry, entry: this.world.lookup(directory, entry.name.toString()) };
      } catch (error) {
        if (isErrno(error, E.ENOENT) || isErrno(error, E.ESTALE)) return entry;
        throw error;
      }
    });
  }

  getattrMany(ids: readonly FileId[]): (Attr | null)[] {
    return ids.map((id) => (this.world.inode(id).links === 0 ? null : this.world.attr(id)));
  }
}

/** The lower of the owner's own mount. */
class OwnerLower extends KillModelRest {
  readonly root: FileId;
  override readonly keeps = false as unknown as true;
  readonly #owner: Owner;
  readonly #world: ListingWorld;
  readonly #node: number;
  #request = 0;
  #nextHandle = 1;

  constructor(owner: Owner, node: number) {
    super();
    this.#owner = owner;
    this.#world = owner.world;
    this.#node = node;
    this.root = owner.world.root;
  }

  madeFor(request: number): void {
    this.#request = request;
  }

  #tag(): Tag {
    return this.#request === 0 ? null : `${this.#node}:${this.#request}`;
  }

  /** At once, or at some moment. */
  #at<T>(act: () => T): T | Promise<T> {
    if (this.#world.random() < 0.5) return act();
    const later = async (): Promise<T> => {
      await this.#world.turns(2);
      const done = act();
      await this.#world.turns(2);
      return done;
    };
    return later();
  }

  override isAbsent(...[parent, name]: unknown[]): boolean {
    const { links } = this.#world.inode(parent as FileId);
    return links > 0 && this.#world.random() < 0.5 && this.#world.named(parent as FileId, String(name)) === null;
  }
  lookup(parent: FileId, name: Buffer): unknown {
    return this.#at(() => this.#world.lookup(parent, name.toString()));
  }
  override lookupMany(...[parent, names]: unknown[]): never {
    const some = (names as Buffer[]).map(String);
    return this.#at(() => this.#world.lookupMany(parent as FileId, some)) as never;
  }
  getattr(id: FileId): unknown {
    return this.#at(() => this.#world.attr(id));
  }
  ownership(id: FileId): unknown {
    return this.getattr(id);
  }
  override getattrMany(...[ids]: unknown[]): never {
    return this.#at(() => this.#owner.getattrMany(ids as FileId[])) as never;
  }
  setattr(id: FileId): unknown {
    const tag = this.#tag();
    return this.#at(() => this.#world.touch(tag, id));
  }
  setattrBehind(): null {
    return null;
  }
  create(parent: FileId, name: Buffer): unknown {
    const tag = this.#tag();
    return this.#at(() => ({ entry: this.#world.make(tag, parent, name.toString(), false), handle: this.#handle() }));
  }
  mkdir(parent: FileId, name: Buffer): unknown {
    const tag = this.#tag();
    return this.#at(() => this.#world.make(tag, parent, name.toString(), true));
  }
  unlink(parent: FileId, name: Buffer, expected: FileId): unknown {
    const tag = this.#tag();
    return this.#at(() => this.#world.remove(tag, parent, name.toString(), expected, false));
  }
  rmdir(parent: FileId, name: Buffer, expected: FileId): unknown {
    const tag = this.#tag();
    return this.#at(() => this.#world.remove(tag, parent, name.toString(), expected, true));
  }
  link(id: FileId, parent: FileId, name: Buffer): unknown {
    const tag = this.#tag();
    return this.#at(() => this.#world.link(tag, id, parent, name.toString()));
  }
  rename(from: FileId, name: Buffer, to: FileId, newName: Buffer, flags: number, moved: FileId, replaced: FileId | null): unknown {
    const tag = this.#tag();
    return this.#at(() => this.#world.rename(tag, [from, to], [name.toString(), newName.toString()], moved, replaced, flags));
  }
  #handle(): LowerHandle {
    this.#nextHandle += 1;
    return (this.#nextHandle * 16) as LowerHandle;
  }
  open(id: FileId): unknown {
    return this.#at(() => {
      this.#world.living(id);
      return this.#handle();
    });
  }
  override opendir(...[id]: unknown[]): never {
    return this.#at(() => {
      const handle = this.#handle();
      this.#owner.opendir(handle, id as FileId);
      return handle;
    }) as never;
  }
  override readdir(...[handle, cookie, bytes, listing]: unknown[]): never {
    const read = async (): Promise<DirPage> => {
      await this.#world.turns(2);
      const page = await this.#owner.readdir(handle as number, cookie as bigint, bytes as number, listing as Listing);
      await this.#world.turns(2);
      return page;
    };
    return read() as never;
  }
  override prefetch(): never {
    return null as never;
  }
}

/** A connection to the owner, as far as the parts of the remote lower need it (overlay/lower/remote/session.ts). */
class ModelSession {
  readonly running = true;
  readonly ownerWait = null;
  readonly #owner: Owner;
  readonly #world: ListingWorld;
  readonly #node: number;
  #request = 0;

  constructor(owner: Owner, node: number) {
    this.#owner = owner;
    this.#world = owner.world;
    this.#node = node;
  }

  hurry(): void {
    // Nobody waits for others.
  }
  warn(): void {
    // A directory that is gone.
  }
  madeFor(request: number): void {
    this.#request = request;
  }
  carried<T>(call: () => T): () => T {
    const request = this.#request;
    this.#request = 0;
    return () => changeFor(this, request, call);
  }
  call(call: string, request: unknown): Promise<unknown> {
    const tag = this.#request === 0 ? null : `${this.#node}:${this.#request}`;
    this.#request = 0;
    const trip = async (): Promise<unknown> => {
      await this.#world.turn();
      await this.#world.turns(3);
      const answer = await this.#run(call, request, tag);
      await this.#world.turn();
      await this.#world.turns(3);
      return answer;
    };
    const answered = trip();
    if (call === "opendir") {
      const { handle } = request as RequestOf<"opendir">;
      // What is asked through it waits for that (server/session-handles.ts, whenOpen).
      const over = answered.then(
        () => undefined,
        () => undefined,
      );
      this.#owner.noteOpening(this.#own(handle), over);
    }
    return answered;
  }

  /** Numbers of handles are those of the node. */
  #own(handle: number): number {
    return handle * 16 + this.#node;
  }

  #parent(directory: FileId, isTold: boolean): Attr | null {
    return isTold && this.#world.inode(directory).links > 0 ? this.#world.attr(directory) : null;
  }

  #absentIsNull<T>(look: () => T): T | null {
    try {
      return look();
    } catch (error) {
      if (isErrno(error, E.ENOENT)) return null;
      throw error;
    }
  }

  async #run(call: string, asked: unknown, tag: Tag): Promise<unknown> {
    const world = this.#world;
    const made = async (
      { parent, tellParent }: { readonly parent: FileId; readonly tellParent: boolean },
      entry: Entry,
    ): Promise<{ readonly entry: Entry; readonly parent: Attr | null; readonly room: boolean }> => {
      await world.turns(1);
      return { entry, parent: this.#parent(parent, tellParent), room: false };
    };
    switch (call) {
      case "lookup": {
        const { parent, name } = asked as RequestOf<"lookup">;
        return world.lookup(parent, name.toString());
      }
      case "lookupSince": {
        const { parent, name, since } = asked as RequestOf<"lookupSince">;
        const names = world.namesSince(parent, since);
        await world.turns(1);
        return { names, entry: this.#absentIsNull(() => world.lookup(parent, name.toString())) };
      }
      case "lookupMany": {
        const { parent, names } = asked as RequestOf<"lookupMany">;
        return world.lookupMany(parent, names.map(String));
      }
      case "getattr":
        return world.attr((asked as RequestOf<"getattr">).id);
      case "getattrSince": {
        const { id, since } = asked as RequestOf<"getattrSince">;
        const names = world.namesSince(id, since);
        await world.turns(1);
        return { attr: world.attr(id), names };
      }
      case "getattrMany":
        return this.#owner.getattrMany((asked as RequestOf<"getattrMany">).ids);
      case "setattr":
        return { attr: world.touch(tag, (asked as RequestOf<"setattr">).id), room: false };
      case "create":
      case "mkdir": {
        const request = asked as RequestOf<"mkdir">;
        return await made(request, world.make(tag, request.parent, request.name.toString(), call === "mkdir"));
      }
      case "unlink":
      case "rmdir": {
        const { parent, name, tellParent, expected } = asked as RequestOf<"unlink">;
        world.remove(tag, parent, name.toString(), expected, call === "rmdir");
        await world.turns(1);
        return { parent: this.#parent(parent, tellParent) };
      }
      case "link": {
        const { id, newParent, newName, tellParent } = asked as RequestOf<"link">;
        const attr = world.link(tag, id, newParent, newName.toString());
        await world.turns(1);
        return { attr, parent: this.#parent(newParent, tellParent) };
      }
      case "rename": {
        const { oldParent, oldName, newParent, newName, flags, expectedOld, expectedNew, tell } = asked as RequestOf<"rename">;
        world.rename(tag, [oldParent, newParent], [oldName.toString(), newName.toString()], expectedOld, expectedNew, flags);
        await world.turns(1);
        const inOne = fileKey(oldParent) === fileKey(newParent);
        const [from, moved] = [this.#parent(oldParent, tell), this.#parent(expectedOld, tell)];
        return { oldParent: from, newParent: inOne ? null : this.#parent(newParent, tell), moved };
      }
      case "open":
        world.living((asked as RequestOf<"open">).id);
        return undefined;
      case "opendir": {
        const { handle, id } = asked as RequestOf<"opendir">;
        this.#owner.opendir(this.#own(handle), id);
        return undefined;
      }
      case "readdir": {
        const { handle, cookie, bytes, listing } = asked as RequestOf<"readdir">;
        return await this.#owner.readdir(this.#own(handle), cookie, bytes, listing);
      }
      case "close":
      case "syncfs":
        return undefined;
      default:
        throw new Error(`the owner of the model is asked for ${call}`);
    }
  }
}

export interface ModelLower {
  readonly lower: Lower;
  /** Before the last lock of that inode goes. */
  readonly leaving: (id: FileId) => Promise<void> | void;
  /** There is another owner. */
  readonly forget: () => void;
}

/** Of each node; the first one has the disk. */
export function lowersOf(world: ListingWorld, now: () => number): (node: number, holds: Holds) => ModelLower {
  const owner = new Owner(world);
  return (node, holds) => {
    if (node === 0) {
      return { lower: new OwnerLower(owner, node) as unknown as Lower, leaving: () => undefined, forget: () => undefined };
    }
    const session = new ModelSession(owner, node) as unknown as RemoteSession;
    const known = new KnownInodes(holds, () => true);
    const behind = new WritesBehind(now);
    const changes = new Changes(session, known, behind, silentLog, () => []);
    const opens = new Opens(session, known, behind, changes, silentLog);
    const core = { session, known, behind, changes, opens, ahead: new DataAhead(session, known), log: silentLog };
    const parts = core as unknown as RemoteCore;
    const lower = {
      root: world.root,
      hasAcls: false,
      madeFor: (request: number): void => session.madeFor(request),
      ...namesOf(parts),
      ...attributesOf(parts),
      ...dataOf(parts),
      ...behindOf(parts),
    };
    return { lower, leaving: (id) => opens.tell(id), forget: () => known.clear() };
  };
}
