/**
 * For which files the owner has said that there is room, and where in them a write needs nothing read (hazard F23): under the lock, which is here. README, "Written behind".
 */
import { keepNewest } from "../../../dlmd/base/keep-newest.ts";
import { type FileId, fileKey } from "../lower.ts";

/** Files of which that is known; the longest known goes. */
export const ROOM_FILES_MAX = 256;

/** As PAGE_SIZE. */
const PAGE_BYTES = 4096;

interface FileRoom {
  untilMs: number;
  /** All of it was written a moment ago, so its pages are in the owner's memory. */
  from: number;
  to: number;
}

export class Room {
  readonly #files = new Map<string, FileRoom>();

  give(id: FileId, untilMs: number): void {
    const key = fileKey(id);
    const { from, to } = this.#files.get(key) ?? { from: 0, to: 0 };
    this.#files.delete(key);
    this.#files.set(key, { untilMs, from, to });
    keepNewest(this.#files, ROOM_FILES_MAX);
  }

  untilMs(id: FileId): number {
    return this.#files.get(fileKey(id))?.untilMs ?? Number.NEGATIVE_INFINITY;
  }

  written(id: FileId, offset: number, bytes: number): void {
    const file = this.#files.get(fileKey(id));
    if (file === undefined) return;
    const end = offset + bytes;
    if (offset >= file.from && offset <= file.to) file.to = Math.max(file.to, end);
    else [file.from, file.to] = [offset, end];
  }

  /** There is room, and the owner has nothing to read for a write there: it has whole pages, or goes on in what was written. */
  isAt(id: FileId, offset: number, bytes: number, nowMs: number): boolean {
    const file = this.#files.get(fileKey(id));
    if (file === undefined || nowMs >= file.untilMs) return false;
    return (offset >= file.from && offset <= file.to) || (offset % PAGE_BYTES === 0 && bytes % PAGE_BYTES === 0);
  }

  /** The lock is about to leave. */
  end(id: FileId): void {
    this.#files.delete(fileKey(id));
  }

  endAll(): void {
    this.#files.clear();
  }
}
