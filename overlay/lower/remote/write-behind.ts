/**
 * Which changes a program need not wait for (hazard F23), as far as the owner has said that there is room: writes of the first bytes of a file that was made here a
 * moment ago, and changes of its owner, mode and times; and writes to any file for which the owner has nothing to read. README, "Written behind".
 */
import { BEHIND_BYTES_MAX } from "../limits.ts";
import { O } from "../linux.ts";
import type { Attr, AttrChange, FileId, Time } from "../lower.ts";
import type { MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import type { RemoteHandle } from "./handles.ts";
import { Room } from "./room.ts";

/** What ends behind this in a new file is written by the owner's pool (local/small-writes.ts). And a longer write is waited for. */
export const BEHIND_END_MAX: number = 64 * 1024;
/** What ends behind this is waited for: each file system has files of that size. */
export const BEHIND_FILE_MAX: number = 1024 * 1024 * 1024;
/** While so many are under way that the pool writes, others of them are waited for: all that this node asks waits behind them. */
export const BEHIND_POOL_MAX = 8;
/** While so many are under way a write is waited for. */
export const BEHIND_CALLS_MAX = 256;
/** So long the owner's word counts that there is room. */
export const ROOM_MS = 200;

/** Each write to such a file waits for the disk, or goes past every cache. */
const WAITS = O.SYNC | O.DIRECT;

export class WritesBehind {
  readonly room: Room = new Room();
  readonly #nowMs: () => number;
  /** They never reject. */
  readonly #all = new Map<Promise<void>, RemoteHandle | null>();
  #bytes = 0;
  #pooled = 0;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** RemoteHandle.roomUntilMs of a file that was just made. The owner's word is not older than the question. */
  roomUntilMs(room: boolean, flags: number, askedMs: number): number {
    return room && (flags & WAITS) === 0 ? askedMs + ROOM_MS : Number.NEGATIVE_INFINITY;
  }

  get nowMs(): number {
    return this.#nowMs();
  }

  mayBegin(file: RemoteHandle, offset: number, bytes: number): boolean {
    if (this.full || this.#bytes + bytes > BEHIND_BYTES_MAX) return false;
    return this.#isNew(file, offset + bytes) || this.#mayPool(file, offset, bytes);
  }

  #isNew({ roomUntilMs }: RemoteHandle, end: number): boolean {
    return end <= BEHIND_END_MAX && this.#nowMs() < roomUntilMs;
  }

  #mayPool({ id, flags, waits }: RemoteHandle, offset: number, bytes: number): boolean {
    if (waits || (flags & WAITS) !== 0 || this.#pooled >= BEHIND_POOL_MAX) return false;
    return bytes <= BEHIND_END_MAX && offset + bytes <= BEHIND_FILE_MAX && this.room.isAt(id, offset, bytes, this.#nowMs());
  }

  /** The owner is to say with a write to it whether there is room: its last word is not a new one. To be called if there is, with the size that it has told; null: it is not asked. */
  askRoom(file: RemoteHandle): ((size: number | null) => void) | null {
    const { id, flags, waits, roomUntilMs } = file;
    if (waits || (flags & (WAITS | O.APPEND)) !== 0) return null;
    if (this.#nowMs() < Math.max(roomUntilMs, this.room.untilMs(id)) - ROOM_MS / 2) return null;
    const give = this.#roomAsked(id);
    return (size) => {
      if (!file.waits) give(size);
    };
  }

  /** The same, of a change of its size. What was in the owner's memory may be cut off. */
  askRoomResized(id: FileId): (size: number) => void {
    this.room.end(id);
    return this.#roomAsked(id);
  }

  #roomAsked(id: FileId): (size: number | null) => void {
    const askedMs = this.#nowMs();
    const asked = this.room.asked(id, askedMs);
    return (size) => this.room.give(id, asked, askedMs + ROOM_MS, size);
  }

  get full(): boolean {
    return this.#all.size >= BEHIND_CALLS_MAX;
  }

  /** A write to that file is under way. */
  has(file: RemoteHandle): boolean {
    for (const one of this.#all.values()) if (one === file) return true;
    return false;
  }

  async write(file: RemoteHandle, offset: number, bytes: number, write: () => Promise<void>): Promise<void> {
    const pooled = this.#isNew(file, offset + bytes) ? 0 : 1;
    this.#bytes += bytes;
    this.#pooled += pooled;
    this.room.written(file.id, offset, bytes);
    try {
      await this.make(write, file);
    } finally {
      this.#bytes -= bytes;
      this.#pooled -= pooled;
    }
  }

  /** `file`: a write to it. */
  async make(change: () => Promise<void>, file: RemoteHandle | null = null): Promise<void> {
    const made = change();
    const one = made.catch(() => undefined);
    this.#all.set(one, file);
    try {
      await made;
    } finally {
      this.#all.delete(one);
    }
  }

  /** When those have ended that are under way now: what is known of them then is all. */
  over(): MaybePromise<void> {
    return this.#all.size === 0 ? undefined : Promise.all(this.#all.keys()).then(() => undefined);
  }
}

/** S_ISUID and S_ISGID: what takes them away depends on who asks. */
const SET_ID = 0o6000;
const PERMISSIONS = 0o7777;
/** Times that each file system has room for. */
const TIME_MAX_SEC = 0x7fff_ffff;

/** What a regular file has after that change, its change time that of this machine; null: not to be foreseen here. */
export function attrAfter(attr: Attr, { mode, uid, gid, size, atime, mtime }: AttrChange, nowMs: number): Attr | null {
  if (size !== undefined || ((attr.mode | (mode ?? 0)) & SET_ID) !== 0) return null;
  const now = timeOf(nowMs);
  const [accessed, modified] = [atime, mtime].map((time) => (time === "now" ? now : time));
  if ([accessed, modified].some((time) => time !== undefined && (time.sec < 0 || time.sec > TIME_MAX_SEC))) return null;
  const after: { -readonly [K in keyof Attr]: Attr[K] } = { ...attr };
  if (mode !== undefined) after.mode = (attr.mode & ~PERMISSIONS) | (mode & PERMISSIONS);
  if (uid !== undefined) after.uid = uid;
  if (gid !== undefined) after.gid = gid;
  if (accessed !== undefined) [after.atimeSec, after.atimeNsec] = [accessed.sec, accessed.nsec];
  if (modified !== undefined) [after.mtimeSec, after.mtimeNsec] = [modified.sec, modified.nsec];
  [after.ctimeSec, after.ctimeNsec] = [now.sec, now.nsec];
  return after;
}

/** As attrAfter, of a write. */
export function attrWritten(attr: Attr, offset: number, bytes: number, nowMs: number): Attr {
  const { sec, nsec } = timeOf(nowMs);
  return { ...attr, size: Math.max(attr.size, offset + bytes), mtimeSec: sec, mtimeNsec: nsec, ctimeSec: sec, ctimeNsec: nsec };
}

function timeOf(nowMs: number): Time {
  const sec = Math.floor(nowMs / 1000);
  return { sec, nsec: Math.floor((nowMs - sec * 1000) * 1e6) };
}
