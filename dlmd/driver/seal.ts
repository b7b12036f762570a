/**
 * Datagrams between dlmds, sealed with AES-256-GCM. Each incarnation of a dlmd draws a datagram key at random and gives it to each peer
 * inside TLS (handshake.ts), together with its counter; the counter is the nonce, and never goes back (hazard H6). So a
 * datagram recorded from an earlier incarnation is never heard again, and the cluster key seals nothing but discovery.
 *
 *     magic u32 "CVDG" | format u8 | kind u8 = 1 | nodeid u16 | mark of the key 8 bytes | counter u64 | sealed body | tag 16 bytes
 *
 * Little-endian; the 24 bytes before the body are authenticated too. No sockets and no timers here: usable in any thread. Threads that
 * seal with one key share its counter cell.
 */
import { createCipheriv, createDecipheriv } from "node:crypto";
import { assert } from "../base/assert.ts";
import { deriveKey } from "./keyring.ts";

export const SEAL_MAGIC = 0x47445643;
export const SEAL_FORMAT = 2;
export const SealKind = { SEALED: 1, DISCOVERY: 2 } as const;
export const DATAGRAM_KEY_BYTES = 32;
const MARK_BYTES = 8;
const HEAD_BYTES = 24;
const TAG_BYTES = 16;
const NONCE_BYTES = 12;
export const SEAL_BYTES: number = HEAD_BYTES + TAG_BYTES;
/** A datagram that arrives later than that many after one with a higher counter is dropped as a replay. */
export const REPLAY_WINDOW = 1024;

/** Tells keys apart without saying anything about them. */
function markOf(key: Uint8Array): Buffer {
  return deriveKey(key, "", "coverlay datagram mark 2").subarray(0, MARK_BYTES);
}

/** A counter that threads may share: give each the cell's buffer. */
export function createCounterCell(): BigInt64Array {
  return new BigInt64Array(new SharedArrayBuffer(8));
}

export class DatagramSealer {
  readonly #head: Buffer;
  readonly #key: Uint8Array;
  readonly #cell: BigInt64Array;

  /** `key`: DATAGRAM_KEY_BYTES random bytes of this incarnation; `cell`: its counter, shared by all that seal with it. */
  constructor(nodeid: number, key: Uint8Array, cell: BigInt64Array = createCounterCell()) {
    assert(key.byteLength === DATAGRAM_KEY_BYTES, `datagram key of ${key.byteLength} bytes`);
    this.#key = key;
    this.#cell = cell;
    this.#head = Buffer.alloc(HEAD_BYTES);
    this.#head.writeUInt32LE(SEAL_MAGIC, 0);
    this.#head.writeUInt8(SEAL_FORMAT, 4);
    this.#head.writeUInt8(SealKind.SEALED, 5);
    this.#head.writeUInt16LE(nodeid, 6);
    this.#head.set(markOf(key), 8);
  }

  /** The counter of the last datagram: peers that get the key now are told to accept only what comes after it. */
  get counter(): number {
    return Number(Atomics.load(this.#cell, 0));
  }

  /** A sealed datagram of its own; each call uses the next counter. */
  seal(body: Uint8Array): Buffer {
    const sealed = Buffer.allocUnsafe(HEAD_BYTES + body.byteLength + TAG_BYTES);
    sealed.set(this.#head, 0);
    sealed.writeBigInt64LE(Atomics.add(this.#cell, 0, 1n) + 1n, 16);
    const head = sealed.subarray(0, HEAD_BYTES);
    const cipher = createCipheriv("aes-256-gcm", this.#key, nonceOf(head));
    cipher.setAAD(head);
    sealed.set(cipher.update(body), HEAD_BYTES);
    cipher.final();
    sealed.set(cipher.getAuthTag(), HEAD_BYTES + body.byteLength);
    return sealed;
  }
}

function nonceOf(head: Uint8Array): Buffer {
  const nonce = Buffer.alloc(NONCE_BYTES);
  nonce.set(head.subarray(16, 24), 4);
  return nonce;
}

export type DropReason = "foreign" | "unknown-node" | "unknown-key" | "damaged" | "replayed";

export type Opened =
  | { readonly kind: "body"; readonly nodeid: number; readonly body: Uint8Array }
  /** Ours, come back through multicast. */
  | { readonly kind: "own" }
  /** For discovery.ts. */
  | { readonly kind: "discovery"; readonly nodeid: number }
  | { readonly kind: "dropped"; readonly reason: DropReason };

interface Sender {
  readonly key: Uint8Array;
  readonly mark: Buffer;
  highest: number;
  /** Counters at or below it were sent before the key was given to us. */
  readonly floor: number;
  readonly seen: Uint8Array;
}

export class DatagramOpener {
  readonly #ownNodeid: number;
  readonly #senders = new Map<number, Sender>();
  #known: ReadonlySet<number>;

  /** `nodeids`: the configured nodes, the own one included. */
  constructor(ownNodeid: number, nodeids: readonly number[]) {
    this.#ownNodeid = ownNodeid;
    this.#known = new Set(nodeids);
  }

  /** The configured nodes changed: those that are not among them any more are not heard. */
  setNodes(nodeids: readonly number[]): void {
    this.#known = new Set(nodeids);
    for (const nodeid of this.#senders.keys()) if (!this.#known.has(nodeid)) this.#senders.delete(nodeid);
  }

  /** That node's datagrams come under this key from now on, after this counter, and under no other key. */
  confirm(nodeid: number, key: Uint8Array, counter: number): void {
    assert(key.byteLength === DATAGRAM_KEY_BYTES, `datagram key of ${key.byteLength} bytes`);
    const mark = markOf(key);
    // A new connection of the same incarnation: the window goes on, or what it has seen could be played again.
    if (this.#senders.get(nodeid)?.mark.equals(mark) === true) return;
    this.#senders.set(nodeid, { key: Uint8Array.from(key), mark, highest: counter, floor: counter, seen: new Uint8Array(REPLAY_WINDOW) });
  }

  open(datagram: Uint8Array): Opened {
    if (datagram.byteLength < SEAL_BYTES) return { kind: "dropped", reason: "foreign" };
    const head = new DataView(datagram.buffer, datagram.byteOffset, HEAD_BYTES);
    if (head.getUint32(0, true) !== SEAL_MAGIC || head.getUint8(4) !== SEAL_FORMAT) return { kind: "dropped", reason: "foreign" };
    const kind = head.getUint8(5);
    const nodeid = head.getUint16(6, true);
    if (kind !== SealKind.SEALED && kind !== SealKind.DISCOVERY) return { kind: "dropped", reason: "foreign" };
    if (nodeid === this.#ownNodeid) return { kind: "own" };
    if (!this.#known.has(nodeid)) return { kind: "dropped", reason: "unknown-node" };
    if (kind === SealKind.DISCOVERY) return { kind: "discovery", nodeid };
    const sender = this.#senders.get(nodeid);
    if (sender === undefined || !sender.mark.equals(datagram.subarray(8, 8 + MARK_BYTES)))
      return { kind: "dropped", reason: "unknown-key" };
    const counter = head.getBigUint64(16, true);
    if (counter === 0n || counter > BigInt(Number.MAX_SAFE_INTEGER)) return { kind: "dropped", reason: "damaged" };
    // Before the tag, because it is cheap and only reads.
    if (!isFresh(sender, Number(counter))) return { kind: "dropped", reason: "replayed" };
    const body = decipher(sender.key, datagram);
    if (body === null) return { kind: "dropped", reason: "damaged" };
    // After the tag: a forged counter must not move the window.
    noteCounter(sender, Number(counter));
    return { kind: "body", nodeid, body };
  }
}

function isFresh(sender: Sender, counter: number): boolean {
  if (counter > sender.highest) return true;
  if (counter <= sender.floor || sender.highest - counter >= REPLAY_WINDOW) return false;
  return sender.seen[counter % REPLAY_WINDOW] === 0;
}

function noteCounter(sender: Sender, counter: number): void {
  if (counter > sender.highest) {
    const clear = Math.min(counter - sender.highest, REPLAY_WINDOW);
    for (let skipped = 0; skipped < clear; skipped++) sender.seen[(counter - skipped) % REPLAY_WINDOW] = 0;
    sender.highest = counter;
  }
  sender.seen[counter % REPLAY_WINDOW] = 1;
}

function decipher(key: Uint8Array, datagram: Uint8Array): Buffer | null {
  const end = datagram.byteLength - TAG_BYTES;
  const head = datagram.subarray(0, HEAD_BYTES);
  const cipher = createDecipheriv("aes-256-gcm", key, nonceOf(head), { authTagLength: TAG_BYTES });
  cipher.setAAD(head);
  cipher.setAuthTag(datagram.subarray(end));
  const body = cipher.update(datagram.subarray(HEAD_BYTES, end));
  try {
    cipher.final();
  } catch {
    // The tag is wrong; final() has no other way to fail.
    return null;
  }
  return body;
}
