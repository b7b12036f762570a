/**
 * Little-endian readers and writers with bounds checked before every access. A read past the end is
 * a WireError (the bytes came from outside), a write past the limit an assertion (they are ours).
 */
import { assert, AssertionError } from "./assert.ts";
import { WireError } from "./error.ts";

/** Longer texts are not looked through for what is not ASCII. */
const SHORT_TEXT = 256;

/** What is decoded and encoded again is the same: nothing is left out or replaced, as a TextDecoder does by itself. */
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw new WireError(`text of ${bytes.byteLength} bytes that are no UTF-8`);
  }
}

/** Most texts are ASCII and short: a TextDecoder costs more than the rest of a message. Throws WireError: it is no UTF-8. */
export function decodeText(bytes: Uint8Array): string {
  if (bytes.byteLength > SHORT_TEXT) return decodeUtf8(bytes);
  for (const byte of bytes) if (byte > 0x7f) return decodeUtf8(bytes);
  return String.fromCharCode.apply(null, bytes as unknown as number[]);
}

export class ByteReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #end: number;
  #at: number;

  constructor(bytes: Uint8Array, start = 0, end: number = bytes.byteLength) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#at = start;
    this.#end = end;
  }

  get offset(): number {
    return this.#at;
  }

  get remaining(): number {
    return this.#end - this.#at;
  }

  #take(bytes: number): number {
    const at = this.#at;
    if (bytes < 0 || at + bytes > this.#end) {
      throw new WireError(`truncated: ${bytes} bytes wanted at offset ${at}, ${this.#end - at} there`);
    }
    this.#at = at + bytes;
    return at;
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1));
  }
  u16(): number {
    return this.#view.getUint16(this.#take(2), true);
  }
  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }
  bigU64(): bigint {
    return this.#view.getBigUint64(this.#take(8), true);
  }
  f64(): number {
    return this.#view.getFloat64(this.#take(8), true);
  }
  /** An unsigned 64-bit value that must fit a safe integer. */
  u64(): number {
    const at = this.#take(8);
    const value = this.#view.getUint32(at + 4, true) * 0x1_0000_0000 + this.#view.getUint32(at, true);
    if (value > Number.MAX_SAFE_INTEGER) throw new WireError(`number too large at offset ${at}`);
    return value;
  }
  bool(): boolean {
    const value = this.u8();
    if (value > 1) throw new WireError(`boolean expected at offset ${this.#at - 1}, found ${value}`);
    return value === 1;
  }
  /** A view of the next `bytes` bytes, not a copy. */
  bytes(bytes: number): Uint8Array {
    const at = this.#take(bytes);
    return this.#bytes.subarray(at, at + bytes);
  }
  /** Length (u32) and bytes, at most `limit`; a view, not a copy. */
  block(limit: number): Uint8Array {
    const bytes = this.u32();
    if (bytes > limit) throw new WireError(`block of ${bytes} bytes, at most ${limit} allowed`);
    return this.bytes(bytes);
  }
  /** Length (u16) and UTF-8 bytes, at most `limit` bytes. */
  string(limit: number): string {
    const bytes = this.u16();
    if (bytes > limit) throw new WireError(`string of ${bytes} bytes, at most ${limit} allowed`);
    return decodeText(this.bytes(bytes));
  }
  skip(bytes: number): void {
    this.#take(bytes);
  }
  /** Everything was read: a message with a tail is not the message it claims to be. */
  end(): void {
    if (this.#at !== this.#end) throw new WireError(`${this.#end - this.#at} bytes after the end of the message`);
  }
}

export class ByteWriter {
  #bytes: Uint8Array;
  #view: DataView;
  #at = 0;
  readonly #limit: number;

  constructor(initialBytes = 256, limitBytes: number = 64 * 1024 * 1024) {
    this.#bytes = new Uint8Array(initialBytes);
    this.#view = new DataView(this.#bytes.buffer);
    this.#limit = limitBytes;
  }

  get length(): number {
    return this.#at;
  }

  #room(bytes: number): number {
    const at = this.#at;
    const end = at + bytes;
    if (end > this.#bytes.byteLength) {
      if (end > this.#limit) throw new AssertionError(`message of ${end} bytes, at most ${this.#limit} allowed`);
      const grown = new Uint8Array(Math.min(this.#limit, Math.max(end, this.#bytes.byteLength * 2)));
      grown.set(this.#bytes);
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    this.#at = end;
    return at;
  }

  u8(value: number): this {
    const at = this.#room(1);
    this.#view.setUint8(at, value);
    return this;
  }
  u16(value: number): this {
    const at = this.#room(2);
    this.#view.setUint16(at, value, true);
    return this;
  }
  u32(value: number): this {
    const at = this.#room(4);
    this.#view.setUint32(at, value, true);
    return this;
  }
  bigU64(value: bigint): this {
    const at = this.#room(8);
    this.#view.setBigUint64(at, value, true);
    return this;
  }
  f64(value: number): this {
    const at = this.#room(8);
    this.#view.setFloat64(at, value, true);
    return this;
  }
  u64(value: number): this {
    if (!Number.isSafeInteger(value) || value < 0) throw new AssertionError(`unsigned safe integer expected, found ${value}`);
    const at = this.#room(8);
    this.#view.setUint32(at, value % 0x1_0000_0000, true);
    this.#view.setUint32(at + 4, Math.floor(value / 0x1_0000_0000), true);
    return this;
  }
  bool(value: boolean): this {
    return this.u8(value ? 1 : 0);
  }
  bytes(value: Uint8Array): this {
    const at = this.#room(value.byteLength);
    this.#bytes.set(value, at);
    return this;
  }
  block(value: Uint8Array): this {
    return this.u32(value.byteLength).bytes(value);
  }
  string(value: string): this {
    if (value.length <= SHORT_TEXT && this.#ascii(value)) return this;
    const bytes = new TextEncoder().encode(value);
    assert(bytes.byteLength <= 0xffff, "string of more than 65535 bytes");
    return this.u16(bytes.byteLength).bytes(bytes);
  }
  /** False, with nothing written: not ASCII. */
  #ascii(value: string): boolean {
    for (let i = 0; i < value.length; i++) if (value.charCodeAt(i) > 0x7f) return false;
    let at = this.u16(value.length).#room(value.length);
    for (let i = 0; i < value.length; i++) this.#bytes[at++] = value.charCodeAt(i);
    return true;
  }
  /** Overwrites four bytes already written: for lengths known only at the end. */
  patchU32(at: number, value: number): this {
    assert(at + 4 <= this.#at, "patch past the end");
    this.#view.setUint32(at, value, true);
    return this;
  }
  /** What was written, as a view that stays valid until the next write. */
  view(): Uint8Array {
    return this.#bytes.subarray(0, this.#at);
  }
  /** What was written, as a copy of its own. */
  copy(): Uint8Array {
    return this.#bytes.slice(0, this.#at);
  }
  reset(): this {
    this.#at = 0;
    return this;
  }
  /** What was written from there on is not written. */
  cut(at: number): this {
    assert(at <= this.#at, "cut past the end");
    this.#at = at;
    return this;
  }
}
