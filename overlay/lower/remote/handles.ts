/**
 * Open files of this node at the owner. They are durable: known here by FileId, and opened again at a new owner before
 * anything uses them (DESIGN 3).
 */
import { E, type Errno, errnoError } from "../../../dlmd/base/errno.ts";
import { O } from "../linux.ts";
import type { FileId, LowerHandle, OpenFile } from "../lower.ts";
import type { LossesTold } from "../unsynced.ts";

/** The owner allows a session that many (server/session.ts). */
export const MAX_REMOTE_HANDLES = 65_536;

export interface RemoteHandle extends LossesTold {
  readonly handle: LowerHandle;
  readonly id: FileId;
  readonly flags: number;
  readonly directory: boolean;
  lossesTold: number;
  /** Calls on it end with this: it could not be opened again at the present owner (ESTALE: the file is gone). */
  error: Errno | null;
}

export class RemoteHandles {
  readonly #handles: Map<number, RemoteHandle> = new Map();
  #next = 1;

  get count(): number {
    return this.#handles.size;
  }

  /** A number never used before. ENFILE. */
  allocate(): LowerHandle {
    if (this.#handles.size >= MAX_REMOTE_HANDLES || this.#next > 0xffff_ffff) throw errnoError(E.ENFILE);
    const handle = this.#next as LowerHandle;
    this.#next += 1;
    return handle;
  }

  /** The owner has it open. */
  add(handle: LowerHandle, id: FileId, flags: number, directory: boolean, lossesTold: number): LowerHandle {
    this.#handles.set(handle, { handle, id, flags: flags & ~O.TRUNC, directory, lossesTold, error: null });
    return handle;
  }

  /** One that was open elsewhere, with its number; before any other. */
  adopt({ handle, id, flags, directory }: OpenFile): void {
    this.add(handle, id, flags, directory, 0);
    this.#next = Math.max(this.#next, handle + 1);
  }

  /** EBADF: not open. */
  get(handle: LowerHandle): RemoteHandle {
    const found = this.#handles.get(handle);
    if (found === undefined) throw errnoError(E.EBADF);
    return found;
  }

  /** False if it was not open. */
  remove(handle: LowerHandle): boolean {
    return this.#handles.delete(handle);
  }

  all(): RemoteHandle[] {
    return [...this.#handles.values()];
  }
}
