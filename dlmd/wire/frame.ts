/**
 * Frames in a byte stream: u32 length of the body, then, where the stream has a checksum, u32 CRC-32 of the body, then
 * the body. Little-endian. A frame that lies whole in one chunk is handed on as a view of it, so nothing is copied;
 * one that spans chunks is gathered in a buffer of its own.
 */
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
  const headView = new DataView(head.buffer);
  let headHave = 0;
  let body: Uint8Array | null = null;
  let bodyHave = 0;

  const bodyBytesOf = (view: DataView, at: number): number => {
    const bytes = view.getUint32(at, true);
    if (bytes > maxBytes) throw new WireError(`frame of ${bytes} bytes, at most ${maxBytes} allowed`);
    return bytes;
  };
  const check = (complete: Uint8Array, wanted: number): Uint8Array => {
    if (crc32 !== null && crc32(complete) !== wanted)
      throw new WireError(`damaged frame of ${complete.byteLength} bytes: its CRC-32 is wrong`);
    return complete;
  };
  const checksum = (view: DataView, at: number): number => (crc32 === null ? 0 : view.getUint32(at + 4, true));

  /** Continues a frame that began in an earlier chunk; returns how far it read. */
  const resume = (chunk: Uint8Array, onFrame: (body: Uint8Array) => void): number => {
    let at = 0;
    if (body === null) {
      at = Math.min(headBytes - headHave, chunk.byteLength);
      head.set(chunk.subarray(0, at), headHave);
      headHave += at;
      if (headHave < headBytes) return at;
      body = new Uint8Array(bodyBytesOf(headView, 0));
      bodyHave = 0;
    }
    const bytes = Math.min(body.byteLength - bodyHave, chunk.byteLength - at);
    body.set(chunk.subarray(at, at + bytes), bodyHave);
    bodyHave += bytes;
    if (bodyHave === body.byteLength) {
      const complete = body;
      body = null;
      headHave = 0;
      onFrame(check(complete, checksum(headView, 0)));
    }
    return at + bytes;
  };

  return {
    push(chunk, onFrame) {
      let at = headHave > 0 ? resume(chunk, onFrame) : 0;
      const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength);
      while (chunk.byteLength - at >= headBytes) {
        const start = at + headBytes;
        const end = start + bodyBytesOf(view, at);
        if (end > chunk.byteLength) break;
        onFrame(check(chunk.subarray(start, end), checksum(view, at)));
        at = end;
      }
      if (at < chunk.byteLength) resume(chunk.subarray(at), onFrame);
    },
  };
}
