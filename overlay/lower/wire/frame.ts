/**
 * Frames between the overlays of one volume, over TLS, which guards their bytes, little-endian:
 *
 *     u32 length   bytes after this field
 *     u8  type     a call (1..0x6f), its answer (call | 0x80), or one of FrameType
 *     u32 id       of the call within its session
 *     body
 *
 * The data of a read or write is the tail of its frame, sent from where it lies and handed on as a view.
 */
import { WireError } from "../../../dlmd/base/error.ts";
import { LARGE_BUFFER_BYTES, LARGE_BYTES, largeBuffers } from "../large-buffers.ts";

/** Raised when anything below changes, or who may ask for which lock when: peers of another version are refused, saying so. */
export const LOWER_WIRE_VERSION = 32;

export const FrameType = {
  HELLO: 0x70,
  WELCOME: 0x73,
  REFUSED: 0x74,
  /** The caller has these answers: they need not be remembered any longer. */
  ACK: 0x75,
  /**
   * The owner's last: it ends in good order. All that it answered is on disk. A call that came first on this connection and is not answered was not made,
   * and will not be.
   */
  FAREWELL: 0x77,
  /** The owner, of which the dlmd has died: this caller is to keep what the body names, since it may be the next owner (hazard F44). Its answer is the call "kept". */
  KEEP: 0x79,
  /** It need not be kept any more: a ticket. No answer. */
  KEEP_NOT: 0x7a,
  /** The owner: that directory has another name now (hazard F46). Before all answers to what was asked after that. No answer. */
  MOVED: 0x7b,
  /** Nothing, and so that its sender lives (heartbeat.ts). */
  ALIVE: 0x78,
  /** Added to the type of a call. */
  ANSWER: 0x80,
  /** A call failed: u32 errno. */
  FAILED: 0xff,
} as const;

const PREFIX_BYTES = 4;
const HEAD_BYTES = 9;
/** A frame: 1 MiB of data, or a listing's page, and room for what stands before it. */
export const MAX_FRAME_BYTES: number = LARGE_BUFFER_BYTES;
/** Before the caller has said which client it is. */
export const MAX_HELLO_FRAME_BYTES = 4096;
const SLAB_BYTES = 64 * 1024;
/** Data up to that size is copied behind its head: cheaper than a part of its own. */
const COPIED_DATA_BYTES = 8192;

export type OnFrame = (type: number, id: number, body: Uint8Array) => void;

/**
 * Cuts a stream into frames. A frame that lies whole in a chunk is given as a view of it, or as a copy if the chunk is overwritten by the next one; another
 * is put together once. Large ones of both lie in `largeBuffers`.
 */
export class FrameReader {
  #limit: number;
  #head = Buffer.alloc(PREFIX_BYTES);
  #headBytes = 0;
  #frame: Buffer | null = null;
  #have = 0;

  constructor(limitBytes: number = MAX_HELLO_FRAME_BYTES) {
    this.#limit = limitBytes;
  }

  setLimit(limitBytes: number): void {
    this.#limit = limitBytes;
  }

  /** Throws WireError: the stream is then of no use any more. */
  push(chunk: Buffer, onFrame: OnFrame, overwritten = false): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#frame !== null) {
        at += this.#fill(chunk, at);
        if (this.#have === this.#frame.length) this.#deliverAssembled(onFrame);
      } else if (this.#headBytes === 0 && chunk.length - at >= PREFIX_BYTES) {
        const bytes = this.#checkLength(chunk.readUInt32LE(at));
        if (chunk.length - at - PREFIX_BYTES >= bytes) {
          const frame = chunk.subarray(at + PREFIX_BYTES, at + PREFIX_BYTES + bytes);
          deliver(overwritten ? copyOf(frame) : frame, onFrame);
          at += PREFIX_BYTES + bytes;
        } else {
          at += this.#startHead(chunk, at);
        }
      } else {
        at += this.#startHead(chunk, at);
      }
    }
  }

  #checkLength(bytes: number): number {
    if (bytes < HEAD_BYTES - PREFIX_BYTES || bytes > this.#limit) {
      throw new WireError(`frame of ${bytes} bytes, ${HEAD_BYTES - PREFIX_BYTES} to ${this.#limit} allowed`);
    }
    return bytes;
  }

  #startHead(chunk: Buffer, at: number): number {
    const taken = Math.min(PREFIX_BYTES - this.#headBytes, chunk.length - at);
    chunk.copy(this.#head, this.#headBytes, at, at + taken);
    this.#headBytes += taken;
    if (this.#headBytes === PREFIX_BYTES) {
      this.#frame = largeBuffers.take(this.#checkLength(this.#head.readUInt32LE(0)));
      this.#have = 0;
    }
    return taken;
  }

  #fill(chunk: Buffer, at: number): number {
    const frame = this.#frame as Buffer;
    const taken = Math.min(frame.length - this.#have, chunk.length - at);
    chunk.copy(frame, this.#have, at, at + taken);
    this.#have += taken;
    return taken;
  }

  #deliverAssembled(onFrame: OnFrame): void {
    const frame = this.#frame as Buffer;
    this.#frame = null;
    this.#headBytes = 0;
    deliver(frame, onFrame);
  }
}

function copyOf(data: Uint8Array): Buffer {
  if (data.byteLength < LARGE_BYTES) return Buffer.from(data);
  const copy = largeBuffers.take(data.byteLength);
  copy.set(data);
  return copy;
}

function deliver(frame: Buffer, onFrame: OnFrame): void {
  onFrame(frame.readUInt8(0), frame.readUInt32LE(1), frame.subarray(HEAD_BYTES - PREFIX_BYTES));
}

/** Writes the head and body of a frame whose data, if any, follows it; gives the bytes written. */
export function writeFrame(target: Buffer, at: number, type: number, id: number, body: Uint8Array, data: Uint8Array | null): number {
  target.writeUInt32LE(HEAD_BYTES - PREFIX_BYTES + body.byteLength + (data?.byteLength ?? 0), at);
  target.writeUInt8(type, at + PREFIX_BYTES);
  target.writeUInt32LE(id, at + PREFIX_BYTES + 1);
  target.set(body, at + HEAD_BYTES);
  return HEAD_BYTES + body.byteLength;
}

/** One whole frame of its own. */
export function encodeFrame(type: number, id: number, body: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(HEAD_BYTES + body.byteLength);
  writeFrame(frame, 0, type, id, body, null);
  return frame;
}

/** Collects frames until they are taken: small ones one behind the other in a slab, large data by reference, or in `largeBuffers`. */
export class FrameBatch {
  #slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
  #used = 0;
  #from = 0;
  #parts: Uint8Array[] = [];
  #bytes = 0;

  get empty(): boolean {
    return this.#parts.length === 0 && this.#used === this.#from;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** `data` must stay as it is until it was sent, unless `passing`: then it is copied now. */
  add(type: number, id: number, body: Uint8Array, data: Uint8Array | null, passing = false): void {
    const dataBytes = data?.byteLength ?? 0;
    const copied = data !== null && (dataBytes <= COPIED_DATA_BYTES || (passing && dataBytes < LARGE_BYTES));
    this.#makeRoom(HEAD_BYTES + body.byteLength + (copied ? dataBytes : 0));
    this.#used += writeFrame(this.#slab, this.#used, type, id, body, data);
    this.#bytes += HEAD_BYTES + body.byteLength + dataBytes;
    if (data === null) return;
    if (copied) {
      this.#slab.set(data, this.#used);
      this.#used += dataBytes;
    } else {
      this.#endRun();
      this.#parts.push(passing ? copyOf(data) : data);
    }
  }

  #makeRoom(bytes: number): void {
    if (this.#used + bytes <= this.#slab.length) return;
    this.#endRun();
    this.#slab = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, bytes));
    this.#used = 0;
    this.#from = 0;
  }

  #endRun(): void {
    if (this.#used > this.#from) this.#parts.push(this.#slab.subarray(this.#from, this.#used));
    this.#from = this.#used;
  }

  /** What was collected, to be written in this order; the batch is empty afterwards. Who has written a part gives it back to `largeBuffers`. */
  take(): Uint8Array[] {
    this.#endRun();
    const parts = this.#parts;
    this.#parts = [];
    this.#bytes = 0;
    return parts;
  }
}
