/**
 * For which files the owner has said that there is room, and which pages of them it has in memory: a write that needs nothing else is not waited for (hazard F23).
 * Under the lock of the file, which is here. README, "Written behind".
 */
import { keepNewest } from "../../../dlmd/base/keep-newest.ts";
import { type FileId, fileKey } from "../lower.ts";

/** Files of which that is known; the longest known goes. */
export const ROOM_FILES_MAX = 256;
/** So much of what was written last counts as being in the owner's memory. */
export const WRITTEN_BYTES_MAX: number = 1024 * 1024;

/** As PAGE_SIZE. */
const PAGE_BYTES = 4096;

export interface FileRoom {
  untilMs: number;
  /** All of it was written a moment ago. */
  from: number;
  to: number;
  /** No file ends behind it but by what is not on the disk yet; null: not known. */
  size: number | null;
}

export class Room {
  readonly #files = new Map<string, FileRoom>();

  /** A write begins whose answer will say whether there is room: for `give`. What was written before the last word was too old may have left the owner's memory. */
  asked(id: FileId, nowMs: number): FileRoom {
    const key = fileKey(id);
    let file = this.#files.get(key);
    if (file === undefined || nowMs >= file.untilMs) file = { untilMs: Number.NEGATIVE_INFINITY, from: 0, to: 0, size: null };
    this.#files.delete(key);
    this.#files.set(key, file);
    keepNewest(this.#files, ROOM_FILES_MAX);
    return file;
  }

  /** `size`: of the file, as the owner has told it; null: it has not. Nothing, if room has ended since it was asked for. */
  give(id: FileId, asked: FileRoom, untilMs: number, size: number | null): void {
    if (this.#files.get(fileKey(id)) !== asked) return;
    asked.untilMs = untilMs;
    // Others may be under way.
    if (size !== null) asked.size = Math.max(size, asked.size ?? 0);
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
    file.from = Math.max(file.from, file.to - WRITTEN_BYTES_MAX);
    if (file.size !== null) file.size = Math.max(file.size, end);
  }

  /** There is room, and the owner has nothing to read from the disk for a write there: its first and its last page are whole, new or in memory. */
  isAt(id: FileId, offset: number, bytes: number, nowMs: number): boolean {
    const file = this.#files.get(fileKey(id));
    if (file === undefined || nowMs >= file.untilMs) return false;
    const end = offset + bytes;
    return isThere(file, offset) && (isThere(file, end) || (file.size !== null && end >= file.size));
  }

  /** The lock is about to leave. */
  end(id: FileId): void {
    this.#files.delete(fileKey(id));
  }

  endAll(): void {
    this.#files.clear();
  }
}

/** Nothing of the page around that place has to be read: it lies between two pages, or in one that was written to. */
function isThere({ from, to }: FileRoom, at: number): boolean {
  return at % PAGE_BYTES === 0 || (from < to && at > from - (from % PAGE_BYTES) && at < Math.ceil(to / PAGE_BYTES) * PAGE_BYTES);
}
