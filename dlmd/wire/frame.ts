/**
 * Frames in a byte stream: u32 length of the body, then, where the stream has a checksum, u32 CRC-32 of the body, then
 * the body. Little-endian. A frame that lies whole in one chunk is handed on as a view of it, so nothing is copied;
 * one that spans chunks is gathered in a buffer of its own.
 */
import { ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";

export interface FrameReader {
  /** Calls `onFrame` for each frame that is complete now. Throws WireError for a damaged one: the stream is then lost. */
  push(chunk: Uint8Array, onFrame: (body: Uint8Array) => void): void;
}

export interface FrameLimits {
  /** The largest body accepted. */
  readonly maxBytes: number;
  /** CRC-32 (IEEE) of a body; null: the stream has no checksums. */
  readonly crc32: ((body: Uint8Array) => number) | null;
}

/** Bytes before a body. */
export function frameHeadBytes(checksummed: boolean): number {
  return checksummed ? 8 : 4;
}

export function createFrameReader({ maxBytes, crc32 }: FrameLimits): FrameReader {
  const headBytes = frameHeadBytes(crc32 !== null);
  const head = new Uint8Array(headBytes);
  let headHave = 0;
  let body: Uint8Array | null = null;
  let bodyHave = 0;

  const u32 = (bytes: Uint8Array, at: number): number =>
    ((bytes[at] as number) | ((bytes[at + 1] as number) << 8) | ((bytes[at + 2] as number) << 16) | ((bytes[at + 3] as number) << 24)) >>>
    0;
  const bodyBytesOf = (from: Uint8Array, at: number): number => {
    const bytes = u32(from, at);
    if (bytes > maxBytes) throw new WireError(`frame of ${bytes} bytes, at most ${maxBytes} allowed`);
    return bytes;
  };
  const check = (complete: Uint8Array, wanted: number): Uint8Array => {
    if (crc32 !== null && crc32(complete) !== wanted)
      throw new WireError(`damaged frame of ${complete.byteLength} bytes: its CRC-32 is wrong`);
    return complete;
  };
  const checksum = (from: Uint8Array, at: number): number => (crc32 === null ? 0 : u32(from, at + 4));

  /** Continues a frame that began in an earlier chunk; returns how far it read. */
  const resume = (chunk: Uint8Array, onFrame: (body: Uint8Array) => void): number => {
    let at = 0;
    if (body === null) {
      at = Math.min(headBytes - headHave, chunk.byteLength);
      head.set(chunk.subarray(0, at), headHave);
      headHave += at;
      if (headHave < headBytes) return at;
      body = new Uint8Array(bodyBytesOf(head, 0));
      bodyHave = 0;
    }
    const bytes = Math.min(body.byteLength - bodyHave, chunk.byteLength - at);
    body.set(chunk.subarray(at, at + bytes), bodyHave);
    bodyHave += bytes;
    if (bodyHave === body.byteLength) {
      const complete = body;
      body = null;
      headHave = 0;
      onFrame(check(complete, checksum(head, 0)));
    }
    return at + bytes;
  };

  return {
    push(pushed, onFrame) {
      // Not a Buffer, whose slice() is no copy: readers rely on that to keep what they need.
      const chunk = new Uint8Array(pushed.buffer, pushed.byteOffset, pushed.byteLength);
      let at = headHave > 0 ? resume(chunk, onFrame) : 0;
      while (chunk.byteLength - at >= headBytes) {
        const start = at + headBytes;
        const end = start + bodyBytesOf(chunk, at);
        if (end > chunk.byteLength) break;
        onFrame(check(chunk.subarray(start, end), checksum(chunk, at)));
        at = end;
      }
      if (at < chunk.byteLength) resume(chunk.subarray(at), onFrame);
    },
  };
}

/** Entries of a batch that are alike but for what each element says: they are one list, with one head. */
export interface ListKind {
  /** Writes the head. */
  readonly begin: (writer: ByteWriter, a: number, b: number, c: number) => void;
}

/**
 * Gathers messages for one stream without checksums: single ones, and batches that stay open for further entries until
 * another message, the batch limit or `take` closes them.
 */
export class FrameGatherer {
  readonly #writer: ByteWriter;
  readonly #batchBytes: number;
  readonly #beginBatch: (writer: ByteWriter) => void;
  #batchAt = -1;
  /** The batch's last entry is a list of that kind, with that head; null: it is none. */
  #list: ListKind | null = null;
  #head: readonly [a: number, b: number, c: number] = [0, 0, 0];
  #countAt = 0;
  #count = 0;

  /** `beginBatch` writes what stands before the first entry of a batch. */
  constructor(limitBytes: number, batchBytes: number, beginBatch: (writer: ByteWriter) => void) {
    this.#writer = new ByteWriter(4096, limitBytes);
    this.#batchBytes = batchBytes;
    this.#beginBatch = beginBatch;
  }

  /** Bytes gathered and not taken. */
  get length(): number {
    return this.#writer.length;
  }

  /** The writer, ready for one more entry of the batch. */
  entry(): ByteWriter {
    const writer = this.#openBatch();
    this.#list = null;
    return writer;
  }

  /** The writer, ready for one more element of a list: the batch's last entry, or a new one. Its count, a u32, follows its head. */
  element(kind: ListKind, a: number, b: number, c: number): ByteWriter {
    const writer = this.#openBatch();
    const [headA, headB, headC] = this.#head;
    if (this.#list !== kind || headA !== a || headB !== b || headC !== c) {
      this.#list = null;
      kind.begin(writer, a, b, c);
      this.#countAt = writer.length;
      writer.u32(0);
      this.#count = 0;
      this.#head = [a, b, c];
      this.#list = kind;
    }
    this.#count++;
    return writer.patchU32(this.#countAt, this.#count);
  }

  /** The element that was asked for last is the first one of its list. */
  get beganList(): boolean {
    return this.#count === 1;
  }

  #openBatch(): ByteWriter {
    if (this.#batchAt >= 0 && this.#writer.length - this.#batchAt > this.#batchBytes) this.#closeBatch();
    if (this.#batchAt < 0) {
      this.#batchAt = this.#writer.length;
      this.#beginBatch(this.#writer.u32(0));
    }
    return this.#writer;
  }

  #closeBatch(): void {
    if (this.#batchAt < 0) return;
    this.#writer.patchU32(this.#batchAt, this.#writer.length - this.#batchAt - 4);
    this.#batchAt = -1;
    this.#list = null;
  }

  message(encode: (writer: ByteWriter) => void): void {
    this.#closeBatch();
    const at = this.#writer.length;
    try {
      encode(this.#writer.u32(0));
    } catch (error) {
      // Half a message would end the connection, and take what others asked for with it.
      this.#writer.cut(at);
      throw error;
    }
    this.#writer.patchU32(at, this.#writer.length - at - 4);
  }

  /** Everything gathered, as a copy of its own; the gatherer is empty after it. */
  take(): Uint8Array {
    this.#closeBatch();
    const bytes = this.#writer.copy();
    this.#writer.reset();
    return bytes;
  }
}
