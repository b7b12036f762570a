/**
 * What a program that has the cluster's key asks a dlmd in the place of a handshake (driver/handshake.ts), inside TLS: "what do you see?".
 * `coverlay doctor` looks at each node this way. The answer changes nothing, and no view hears of it. A dlmd of before refuses the question
 * as one of an unknown kind.
 */
import { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import { type Field, copy, flag, list, orNull, record, text, u16, u32, u64, u8 } from "./field.ts";

/** Beside the kinds of a handshake's frames. */
export const LookKind = { LOOK: 4, SEEN: 5 } as const;
const lookVersion = 1;
const MAX_SEEN_NODES = 31;
const MAX_HASH_BYTES = 32;
const MAX_LOOK_WORDS_BYTES = 512;
/** On the wire, for "never". Longer times are said as a little less. */
const never = 0xffff_ffff;

/** What a dlmd knows of one node of its configuration, itself included. */
export interface SeenNode {
  readonly nodeid: number;
  /** Since its last heartbeat, in ms; null: it was never heard. */
  readonly heardAgoMs: number | null;
  /** Since its last datagram by multicast, in ms. */
  readonly multicastAgoMs: number | null;
  readonly tcpUp: boolean;
  /** Of the view. */
  readonly isMember: boolean;
  /** Why it is not connected; "": it is, or nothing is known. */
  readonly refused: string;
}

export interface Seen {
  readonly nodeid: number;
  readonly incarnation: string;
  readonly cluster: string;
  readonly configVersion: number;
  readonly configHash: Uint8Array;
  readonly quorate: boolean;
  /** CLOCK_REALTIME when it answered, in ms. */
  readonly wallMs: number;
  readonly nodes: readonly SeenNode[];
}

const agoMs: Field<number | null> = orNull(u32, never);
const words: Field<string> = text(MAX_LOOK_WORDS_BYTES);
const seenNode: Field<SeenNode> = record({
  nodeid: u16,
  heardAgoMs: agoMs,
  multicastAgoMs: agoMs,
  tcpUp: flag,
  isMember: flag,
  refused: words,
});
const seen: Field<Seen> = record({
  nodeid: u16,
  incarnation: text(64),
  cluster: text(64),
  configVersion: u32,
  configHash: copy(MAX_HASH_BYTES),
  quorate: flag,
  wallMs: u64,
  nodes: list(u8, seenNode, MAX_SEEN_NODES, "nodes seen"),
});

/** A time of any length, as it may travel. */
export function shownAgoMs(ms: number | null): number | null {
  return ms === null ? null : Math.min(Math.max(0, Math.round(ms)), never - 1);
}

export function encodeLook(): Uint8Array {
  return new ByteWriter().u8(LookKind.LOOK).u8(lookVersion).copy();
}

/** Behind the kind. Throws WireError. */
export function readLook(reader: ByteReader): void {
  requireVersion(reader.u8());
  reader.end();
}

export function encodeSeen(value: Seen): Uint8Array {
  const writer = new ByteWriter(1024, 64 * 1024).u8(LookKind.SEEN).u8(lookVersion);
  seen.write(writer, value);
  return writer.copy();
}

/** A whole frame. Throws WireError for anything else. */
export function decodeSeen(bytes: Uint8Array): Seen {
  const reader = new ByteReader(bytes);
  const kind = reader.u8();
  if (kind !== LookKind.SEEN) throw new WireError(`a frame of kind ${kind}, ${LookKind.SEEN} expected`);
  requireVersion(reader.u8());
  const value = seen.read(reader);
  reader.end();
  return value;
}

function requireVersion(version: number): void {
  if (version !== lookVersion) throw new WireError(`a look of version ${version}, ${lookVersion} expected`);
}
