/**
 * Numbers at fixed offsets of a Buffer, little-endian. 64-bit fields are split in two halves, because a bigint per field would cost more
 * than all the rest of a request. Nothing here checks the end of the buffer: the callers have.
 */
import { WireError } from "../../dlmd/base/error.ts";

const TWO_32 = 0x1_0000_0000;

/**
 * A small one stays a small integer for V8. Out of a product with a large one comes a double; a property that had one once is a box of 16 bytes in each
 * object from then on.
 */
function joined(high: number, low: number): number {
  return high === 0 ? low : high * TWO_32 + low;
}

/** An id or a count: must be a safe integer. */
export function readU64(buffer: Buffer, at: number): number {
  const value = joined(buffer.readUInt32LE(at + 4), buffer.readUInt32LE(at));
  if (value > Number.MAX_SAFE_INTEGER) throw new WireError(`number too large at offset ${at}: ${value}`);
  return value;
}

/** An offset or a size: beyond 2^53 the nearest double. */
export function readSize(buffer: Buffer, at: number): number {
  return joined(buffer.readUInt32LE(at + 4), buffer.readUInt32LE(at));
}

/** A signed offset or seconds: beyond 2^53 the nearest double. */
export function readI64(buffer: Buffer, at: number): number {
  return buffer.readInt32LE(at + 4) * TWO_32 + buffer.readUInt32LE(at);
}

/** Any integer between -2^31 and 2^32. Byte by byte, because the checks of Buffer's own methods take more than twice the time. */
export function write32(buffer: Buffer, at: number, value: number): void {
  buffer[at] = value;
  buffer[at + 1] = value >>> 8;
  buffer[at + 2] = value >>> 16;
  buffer[at + 3] = value >>> 24;
}

/** Any integer between -2^63 and 2^64 that a double holds. */
export function write64(buffer: Buffer, at: number, value: number): void {
  const high = Math.floor(value / TWO_32);
  write32(buffer, at, (value - high * TWO_32) | 0);
  write32(buffer, at + 4, high | 0);
}
