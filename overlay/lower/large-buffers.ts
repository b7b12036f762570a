/**
 * Memory for large data, used again and again. V8 counts what buffers hold as if it lay in its heap, and looks through the whole heap for garbage each time
 * that some megabytes have come; with many inodes cached, reading a file from another node was for the most part that.
 *
 * Who has taken a buffer may give it back, once, when nobody looks into it any more. One that is not given back is garbage as any other: in doubt it is left.
 */
import { MAX_IO_BYTES } from "./limits.ts";

/** Below, memory costs less than the care for it. */
export const LARGE_BYTES: number = 64 * 1024;
/** Data of the largest read or write, and what stands before it in a frame. */
export const LARGE_BUFFER_BYTES: number = MAX_IO_BYTES + 192 * 1024;
/** Kept while nobody has them: what a file that is read ahead needs at a time (session/connection.ts, READ_AHEAD_KIB), here and on its way. */
export const FREE_BUFFERS_MAX = 8;

export class LargeBuffers {
  readonly #free: ArrayBufferLike[] = [];
  readonly #lent: WeakSet<ArrayBufferLike> = new WeakSet();
  /** The fewest that were free at a time since the last `trim`. */
  #unused = 0;

  get free(): number {
    return this.#free.length;
  }

  /** With whatever was in it before. Smaller ones than LARGE_BYTES, and larger ones than there are, are no different from others. */
  take(bytes: number): Buffer {
    if (bytes < LARGE_BYTES || bytes > LARGE_BUFFER_BYTES) return Buffer.allocUnsafeSlow(bytes);
    const memory = this.#free.pop() ?? new ArrayBuffer(LARGE_BUFFER_BYTES);
    this.#unused = Math.min(this.#unused, this.#free.length);
    this.#lent.add(memory);
    return Buffer.from(memory, 0, bytes);
  }

  /** `data`: a buffer that was taken, or any part of it, which nobody looks into from now on. Of other memory nothing is kept. */
  giveBack(data: Uint8Array): void {
    if (this.#lent.delete(data.buffer) && this.#free.length < FREE_BUFFERS_MAX) this.#free.push(data.buffer);
  }

  /** Lets go of what nobody has wanted since it was called last. */
  trim(): void {
    this.#free.splice(0, this.#unused);
    this.#unused = this.#free.length;
  }
}

/** Of this process. */
export const largeBuffers: LargeBuffers = new LargeBuffers();
