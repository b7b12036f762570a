/**
 * The buffer that requests are read into, and the data in it that outlives the next read: WRITE payloads and setxattr values that a
 * handler still uses when it has to wait. Small ones are copied; for a large one the handler keeps the whole buffer, and the device gets
 * another.
 */
import { AssertionError } from "../../dlmd/base/assert.ts";

/** Of one WRITE: what the kernel takes at most by default (fs.fuse.max_pages_limit). */
export const MAX_WRITE_BYTES: number = 1024 * 1024;
/** Payloads up to this are copied: cheaper than a buffer of a megabyte each. */
export const COPY_BYTES_MAX: number = 16 * 1024;
/**
 * Buffers lent to handlers at a time. Beyond, large payloads are copied too, each into memory of its own size: the device is
 * never left without a buffer, because a request that frees the others may be the next one (hazard F2). The kernel bounds how much it has
 * under way by its dirty limits and by its callers.
 */
export const LENT_BUFFERS_MAX = 16;

export class RequestBuffers {
  readonly #bytes: number;
  readonly #use: (buffer: Buffer) => void;
  readonly #free: Buffer[] = [];
  #current: Buffer;
  #lent = 0;

  /** `use`: the device reads into that one from now on. */
  constructor(bytes: number, use: (buffer: Buffer) => void) {
    this.#bytes = bytes;
    this.#use = use;
    this.#current = Buffer.allocUnsafeSlow(bytes);
  }

  /** What the next request is read into. */
  get current(): Buffer {
    return this.#current;
  }

  get lent(): number {
    return this.#lent;
  }

  mayLend(): boolean {
    return this.#lent < LENT_BUFFERS_MAX;
  }

  /** Takes the current buffer out of use by the device, until `giveBack`. */
  lend(): Buffer {
    if (!this.mayLend()) throw new AssertionError(`${this.#lent} request buffers lent`);
    const lent = this.#current;
    this.#lent += 1;
    this.#current = this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#bytes);
    this.#use(this.#current);
    return lent;
  }

  giveBack(buffer: Buffer): void {
    this.#lent -= 1;
    // One spare: enough for one writer after the other, without holding on to a burst's memory.
    if (this.#free.length === 0) this.#free.push(buffer);
  }
}
