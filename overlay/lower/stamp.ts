/**
 * Stamps (hazard F8): how a node knows that what it fetched from the owner before it had a lock is what the lock covers.
 *
 * The owner counts the fetches that it begins. Each of its answers tells how far that count was, so whoever changed
 * something knows a stamp that is not smaller than the count was when the change was done, and leaves it in the lock's value block when he
 * gives EX up. A fetch whose own number is greater began after that change was done; and if it is the block that came with PR, nothing was
 * changed since. A count belongs to one owner's service: another one's has another `server`.
 */
import { WireError } from "../../dlmd/base/error.ts";

export interface Stamp {
  /** Random, 32 bits: one owner's service of the volume. */
  readonly server: number;
  readonly count: number;
}

/** What a lower can say about what it has done for this node. */
export interface Stamps {
  /** A number to be given to `since`: calls made from now on come after it. */
  mark(): number;
  /**
   * Whatever anybody was told to be done, before a call was made that came after `mark` and was answered, was done before this. null: no such
   * call was answered yet.
   */
  since(mark: number): Stamp | null;
}

export const STAMP_BYTES = 12;

export function encodeStamp(stamp: Stamp): Uint8Array {
  const bytes = new Uint8Array(STAMP_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, stamp.server, true);
  view.setBigUint64(4, BigInt(stamp.count), true);
  return bytes;
}

/** WireError: not a stamp. */
export function decodeStamp(bytes: Uint8Array): Stamp {
  if (bytes.byteLength !== STAMP_BYTES) throw new WireError(`a stamp has ${STAMP_BYTES} bytes, found ${bytes.byteLength}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = Number(view.getBigUint64(4, true));
  if (!Number.isSafeInteger(count)) throw new WireError(`a stamp's count is below 2^53, found ${count}`);
  return { server: view.getUint32(0, true), count };
}

/** Whether what was fetched under `fetched` holds whatever was changed before `block` was left. */
export function isAfter(fetched: Stamp, block: Stamp): boolean {
  return fetched.server === block.server && fetched.count > block.count;
}

/** The owner's own count. */
export class StampSource implements Stamps {
  #stamp: Stamp;

  constructor(server: number) {
    this.#stamp = { server, count: 0 };
  }

  /** A fetch begins. */
  raise(): Stamp {
    this.#stamp = { server: this.#stamp.server, count: this.#stamp.count + 1 };
    return this.#stamp;
  }

  mark(): number {
    return 0;
  }

  since(): Stamp {
    return this.#stamp;
  }
}
