/**
 * How messages lie in packets: one after the other, a long one in several. A packet is bytes of one sender, so that what is not the first
 * part of a message belongs to the message begun before. Codec of what is inside; the packets themselves: wire/order-datagram.ts.
 */
import { ByteReader, type ByteWriter } from "../../base/bytes.ts";
import { WireError } from "../../base/error.ts";
import { maxGroupNameBytes, maxMessageBytes } from "../../wire/group.ts";

export type ChunkKind = "data" | "join" | "leave" | "died" | "groups";
const kinds: readonly ChunkKind[] = ["data", "join", "leave", "died", "groups"];

/** A message as its sender gave it. */
export interface Message {
  readonly kind: ChunkKind;
  /** UTF-8, at most 64 bytes. */
  readonly group: Uint8Array;
  readonly clientId: number;
  readonly data: Uint8Array;
}

const firstFlag = 8;
const lastFlag = 16;
const restHeadBytes = 3;

/**
 * Writes as much of the message, from `offset` of its data on, as fits in `room` bytes. Returns the offset after it; -1: not even its head
 * and one byte of it fit.
 */
export function writeChunk(w: ByteWriter, message: Message, offset: number, room: number): number {
  const left = message.data.byteLength - offset;
  const headBytes = offset > 0 ? restHeadBytes : restHeadBytes + 5 + message.group.byteLength;
  const bytes = Math.min(left, room - headBytes);
  if (bytes < 0 || (bytes === 0 && left > 0)) return -1;
  const last = bytes === left;
  w.u8(kinds.indexOf(message.kind) | (offset === 0 ? firstFlag : 0) | (last ? lastFlag : 0));
  if (offset === 0) w.u8(message.group.byteLength).bytes(message.group).u32(message.clientId);
  w.u16(bytes).bytes(bytes === message.data.byteLength ? message.data : message.data.subarray(offset, offset + bytes));
  return offset + bytes;
}

interface Partial {
  readonly kind: ChunkKind;
  readonly group: Uint8Array;
  readonly clientId: number;
  readonly parts: Uint8Array[];
  bytes: number;
}

/** Puts the messages of one sender together again. */
export class Assembler {
  #partial: Partial | null = null;

  /** The view ended: what was not whole is sent again from its beginning. */
  reset(): void {
    this.#partial = null;
  }

  /** Throws WireError for what no sender writes. */
  packet(body: Uint8Array, whole: (message: Message) => void): void {
    const r = new ByteReader(body);
    while (r.remaining > 0) this.#chunk(r, whole);
  }

  #chunk(r: ByteReader, whole: (message: Message) => void): void {
    const head = r.u8();
    const kind = kinds[head & 7];
    if (kind === undefined || head > 31) throw new WireError(`message of unknown kind ${head}`);
    if ((head & firstFlag) !== 0) {
      const groupBytes = r.u8();
      if (groupBytes > maxGroupNameBytes) throw new WireError(`group name of ${groupBytes} bytes`);
      if (this.#partial !== null) throw new WireError("a message began before the former one was whole");
      this.#partial = { kind, group: r.bytes(groupBytes), clientId: r.u32(), parts: [], bytes: 0 };
    }
    const data = r.bytes(r.u16());
    const partial = this.#partial;
    if (partial === null) throw new WireError("the middle of a message without its beginning");
    if ((head & lastFlag) !== 0 && partial.parts.length === 0) {
      this.#partial = null;
      return whole({ kind, group: partial.group, clientId: partial.clientId, data });
    }
    partial.parts.push(data);
    partial.bytes += data.byteLength;
    if (partial.bytes > maxMessageBytes) throw new WireError(`message of more than ${maxMessageBytes} bytes`);
    if ((head & lastFlag) === 0) return;
    this.#partial = null;
    whole({ kind, group: partial.group, clientId: partial.clientId, data: join(partial.parts, partial.bytes) });
  }
}

function join(parts: readonly Uint8Array[], bytes: number): Uint8Array {
  const whole = new Uint8Array(bytes);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.byteLength;
  }
  return whole;
}
