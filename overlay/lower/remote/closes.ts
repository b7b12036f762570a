/**
 * Files that were closed here: nobody waits for the owner's close, so it is told of several in one call (hazard F31). Of one that has no name, or whose name or lock
 * is about to go, it is told at once: only its last close frees its space. The call goes in the order of all calls, behind those that need the files.
 */
import { MAX_CLOSE_MANY } from "../limits.ts";
import { type FileId, fileKey, type LowerHandle } from "../lower.ts";

/** The first of fewer than MAX_CLOSE_MANY waits so long for others. */
export const CLOSE_WAIT_MS = 100;

export interface ClosedFile {
  readonly handle: LowerHandle;
  readonly id: FileId;
}

export class Closes {
  readonly #tell: (handles: readonly LowerHandle[]) => void;
  #due: ClosedFile[] = [];
  #timer: NodeJS.Timeout | null = null;

  constructor(tell: (handles: readonly LowerHandle[]) => void) {
    this.#tell = tell;
  }

  /** Open at the owner, and not here. */
  get count(): number {
    return this.#due.length;
  }

  /** `waits`: for others. */
  add(file: ClosedFile, waits: boolean): void {
    this.#due.push(file);
    if (!waits || this.#due.length >= MAX_CLOSE_MANY) this.send();
    else this.#timer ??= setTimeout(() => this.send(), CLOSE_WAIT_MS);
  }

  /** Before what is asked of that inode from now on. */
  sendOf(id: FileId): void {
    if (this.#due.length === 0) return;
    const key = fileKey(id);
    if (this.#due.some((file) => fileKey(file.id) === key)) this.send();
  }

  send(): void {
    this.stop();
    if (this.#due.length === 0) return;
    const handles = this.#due.map(({ handle }) => handle);
    this.#due = [];
    this.#tell(handles);
  }

  /** The session ends, and all that it has open with it. */
  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}
