/**
 * Open files of this node at the owner. They are durable: known here by FileId, and opened again at a new owner before
 * anything uses them (DESIGN 3).
 */
import { E, type Errno, errnoError } from "../../../dlmd/base/errno.ts";
import { NumberMap } from "../../../dlmd/base/number-map.ts";
import { O } from "../linux.ts";
import { type FileId, fileKey, type LowerHandle, type OpenFile } from "../lower.ts";
import type { FileJournal } from "../own-journal.ts";
import type { LossesTold } from "../unsynced.ts";

/** The owner allows a session that many (server/session-handles.ts). */
export const MAX_REMOTE_HANDLES = 65_536;

/** What was open before this process, or before it had a session. */
export interface OpenBefore extends OpenFile {
  readonly lossesTold: number;
}

export interface RemoteHandle extends OpenFile, LossesTold {
  /** The owner does not know of it (opens.ts; hazard F22). */
  unsent: boolean;
  /** The owner was asked to open it, by a READ or in advance. */
  asked: boolean;
  /** It was open when the owner was last told of old ones. */
  old: boolean;
  /** It is being told now. */
  sending: Promise<Errno | null> | null;
  /** It was made here a moment ago: until then a write of its first bytes need not be waited for (write-behind.ts). */
  roomUntilMs: number;
  /** A change that was made behind was lost while it was open: its program is told what becomes of each of its writes. */
  waits: boolean;
  /** Calls on it end with this: it could not be opened again at the present owner (ESTALE: the file is gone). */
  error: Errno | null;
}

const MAX_HANDLE = 0xffff_ffff;

export class RemoteHandles {
  readonly #handles: NumberMap<RemoteHandle> = new NumberMap();
  readonly #unsent = new Map<string, Set<RemoteHandle>>();
  /** Made here with room on the disk, and open since; one for each inode, because another open has none. */
  readonly #withRoom = new Map<string, RemoteHandle>();
  readonly #journal: FileJournal | null;
  #next: number;

  /** `first`: the number of the first one. */
  constructor(first: number = 1, journal: FileJournal | null = null) {
    this.#next = first;
    this.#journal = journal;
  }

  get count(): number {
    return this.#handles.size;
  }

  /** The one that was not in use for the longest time. ENFILE. */
  allocate(): LowerHandle {
    if (this.#handles.size >= MAX_REMOTE_HANDLES) throw errnoError(E.ENFILE);
    while (this.#handles.has(this.#next)) this.#next = after(this.#next);
    const handle = this.#next as LowerHandle;
    this.#next = after(handle);
    return handle;
  }

  /** The owner has it open. */
  add(
    handle: LowerHandle,
    id: FileId,
    flags: number,
    directory: boolean,
    lossesTold: number,
    roomUntilMs: number = Number.NEGATIVE_INFINITY,
  ): LowerHandle {
    const file: RemoteHandle = {
      handle,
      id,
      flags: flags & ~O.TRUNC,
      directory,
      lossesTold,
      unsent: false,
      asked: false,
      old: false,
      sending: null,
      roomUntilMs,
      waits: false,
      error: null,
    };
    this.#handles.set(handle, file);
    this.#journal?.openedAtOwner(file);
    if (roomUntilMs > Number.NEGATIVE_INFINITY) this.#withRoom.set(fileKey(id), file);
    return handle;
  }

  /** Open here, and the owner does not know. */
  addUnsent(handle: LowerHandle, id: FileId, flags: number, directory: boolean, lossesTold: number): LowerHandle {
    this.add(handle, id, flags, directory, lossesTold);
    const file = this.get(handle);
    file.unsent = true;
    const key = fileKey(id);
    const files = this.#unsent.get(key) ?? new Set();
    files.add(file);
    this.#unsent.set(key, files);
    return handle;
  }

  /** Those of that inode of which the owner does not know. */
  unsentOf(id: FileId): RemoteHandle[] {
    return [...(this.#unsent.get(fileKey(id)) ?? [])];
  }

  /** It is no new file any more. */
  endRoom(id: FileId): void {
    const key = fileKey(id);
    const file = this.#withRoom.get(key);
    if (file === undefined) return;
    file.roomUntilMs = Number.NEGATIVE_INFINITY;
    this.#withRoom.delete(key);
  }

  /** Nor is any other, and each write to what is open now is waited for. */
  endAllRoom(): void {
    for (const file of this.#withRoom.values()) file.roomUntilMs = Number.NEGATIVE_INFINITY;
    this.#withRoom.clear();
    for (const file of this.#handles.values()) file.waits = true;
  }

  get hasUnsent(): boolean {
    return this.#unsent.size > 0;
  }

  unsent(): RemoteHandle[] {
    return [...this.#unsent.values()].flatMap((files) => [...files]);
  }

  /** The owner knows of it, or it is closed. */
  noteSent(file: RemoteHandle): void {
    if (!file.unsent) return;
    file.unsent = false;
    this.noteKept(file);
  }

  /** The owner could not open it, and keeps the file until the next call on it. */
  noteKept(file: RemoteHandle): void {
    const key = fileKey(file.id);
    const files = this.#unsent.get(key);
    files?.delete(file);
    if (files?.size === 0) this.#unsent.delete(key);
  }

  /** One that was open elsewhere, with its number; before any other. */
  adopt({ handle, id, flags, directory, lossesTold }: OpenBefore): void {
    this.add(handle, id, flags, directory, lossesTold);
    this.beginAfter(handle);
  }

  /** None gets that number, or a smaller one, before the numbers begin again. */
  beginAfter(handle: number): void {
    this.#next = Math.max(this.#next, after(handle));
  }

  /** EBADF: not open. */
  get(handle: LowerHandle): RemoteHandle {
    const found = this.#handles.get(handle);
    if (found === undefined) throw errnoError(E.EBADF);
    return found;
  }

  find(handle: LowerHandle): RemoteHandle | null {
    return this.#handles.get(handle) ?? null;
  }

  /** null: it was not open. */
  remove(handle: LowerHandle): RemoteHandle | null {
    const file = this.#handles.get(handle);
    this.#handles.delete(handle);
    if (file === undefined) return null;
    this.#journal?.closedAtOwner(handle);
    const key = fileKey(file.id);
    if (this.#withRoom.get(key) === file) this.#withRoom.delete(key);
    return file;
  }

  all(): RemoteHandle[] {
    return this.#handles.values();
  }
}

function after(handle: number): number {
  return handle === MAX_HANDLE ? 1 : handle + 1;
}
