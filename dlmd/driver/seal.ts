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
import { type CipherGCM, type DecipherGCM, createCipheriv, createDecipheriv } from "node:crypto";
import { assert } from "../base/assert.ts";
import { deriveKey } from "../tls/keyring.ts";

export const SEAL_MAGIC = 0x47445643;
export const SEAL_FORMAT = 2;
export const SealKind = { SEALED: 1, DISCOVERY: 2 } as const;
export const DATAGRAM_KEY_BYTES = 32;
const MARK_BYTES = 8;
const HEAD_BYTES = 24;
const COUNTER_AT = 16;
const TAG_BYTES = 16;
const NONCE_BYTES = 12;
export const SEAL_BYTES: number = HEAD_BYTES + TAG_BYTES;
/** A datagram that arrives later than that many after one with a higher counter is dropped as a replay. */
export const REPLAY_WINDOW = 1024;
/** A counter that was taken that long ago is not used any more. */
const STALE_COUNTERS: number = REPLAY_WINDOW / 2;

/** Tells keys apart without saying anything about them. */
function markOf(key: Uint8Array): Buffer {
  return deriveKey(key, "", "coverlay datagram mark 2").subarray(0, MARK_BYTES);
}

/** A counter that threads may share: give each the cell's buffer. */
export function createCounterCell(): BigInt64Array {
  return new BigInt64Array(new SharedArrayBuffer(8));
}

/** What one datagram begins with; to make it takes longer than to seal, so it can be made before there is something to seal. */
interface Begun<C> {
  readonly counter: number;
  readonly head: Buffer;
  readonly cipher: C;
}

/** But for the counter. */
function headOf(nodeid: number, mark: Uint8Array): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt32LE(SEAL_MAGIC, 0);
  head.writeUInt8(SEAL_FORMAT, 4);
  head.writeUInt8(SealKind.SEALED, 5);
  head.writeUInt16LE(nodeid, 6);
  head.set(mark, 8);
  return head;
}

export class DatagramSealer {
  readonly #head: Buffer;
  readonly #key: Uint8Array;
  readonly #cell: BigInt64Array;
  #next: Begun<CipherGCM> | null = null;

  /** `key`: DATAGRAM_KEY_BYTES random bytes of this incarnation; `cell`: its counter, shared by all that seal with it. */
  constructor(nodeid: number, key: Uint8Array, cell: BigInt64Array = createCounterCell()) {
    assert(key.byteLength === DATAGRAM_KEY_BYTES, `datagram key of ${key.byteLength} bytes`);
    this.#key = key;
    this.#cell = cell;
    this.#head = headOf(nodeid, markOf(key));
  }

  /** The counter of the last datagram: peers that get the key now are told to accept only what comes after it. */
  get counter(): number {
    // One that is taken and not used would not be accepted.
    this.#next = null;
    return Number(Atomics.load(this.#cell, 0));
  }

  #begin(): Begun<CipherGCM> {
    const counter = Atomics.add(this.#cell, 0, 1n) + 1n;
    const head = Buffer.from(this.#head);
    head.writeBigInt64LE(counter, COUNTER_AT);
    const cipher = createCipheriv("aes-256-gcm", this.#key, nonceOf(head));
    cipher.setAAD(head);
    return { counter: Number(counter), head, cipher };
  }

  /** Begins the next datagram, when there is time; whoever does not seal soon must not. */
  prepare(): void {
    this.#next ??= this.#begin();
  }

  #take(): Begun<CipherGCM> {
    const next = this.#next;
    this.#next = null;
    return next !== null && Number(Atomics.load(this.#cell, 0)) - next.counter < STALE_COUNTERS ? next : this.#begin();
  }

  /** A sealed datagram of its own; each call uses a counter of its own. */
  seal(body: Uint8Array): Buffer {
    const { head, cipher } = this.#take();
    const sealed = Buffer.allocUnsafe(HEAD_BYTES + body.byteLength + TAG_BYTES);
    sealed.set(head, 0);
    sealed.set(cipher.update(body), HEAD_BYTES);
    cipher.final();
    sealed.set(cipher.getAuthTag(), HEAD_BYTES + body.byteLength);
    return sealed;
  }
}

function nonceOf(head: Uint8Array): Buffer {
  const nonce = Buffer.alloc(NONCE_BYTES);
  nonce.set(head.subarray(COUNTER_AT, HEAD_BYTES), 4);
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
  /** Of its datagrams, but for the counter. */
  readonly head: Buffer;
  /** The datagram that probably comes next. */
  next: Begun<DecipherGCM> | null;
}

export class DatagramOpener {
  readonly #ownNodeid: number;
  readonly #senders = new Map<number, Sender>();
  #known: ReadonlySet<number>;
  #lastSender: Sender | null = null;

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
    const seen = new Uint8Array(REPLAY_WINDOW);
    this.#senders.set(nodeid, {
      key: Uint8Array.from(key),
      mark,
      highest: counter,
      floor: counter,
      seen,
      head: headOf(nodeid, mark),
      next: null,
    });
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
    const counter = head.getBigUint64(COUNTER_AT, true);
    if (counter === 0n || counter > BigInt(Number.MAX_SAFE_INTEGER)) return { kind: "dropped", reason: "damaged" };
    // Before the tag, because it is cheap and only reads.
    if (!isFresh(sender, Number(counter))) return { kind: "dropped", reason: "replayed" };
    const begun = sender.next?.counter === Number(counter) ? sender.next : beginOpening(sender.key, datagram.subarray(0, HEAD_BYTES));
    sender.next = null;
    const body = decipher(begun.cipher, datagram);
    if (body === null) return { kind: "dropped", reason: "damaged" };
    // After the tag: a forged counter must not move the window.
    noteCounter(sender, Number(counter));
    this.#lastSender = sender;
    return { kind: "body", nodeid, body };
  }

  /** Begins the next datagram of the node that was heard last, when there is time. */
  prepare(): void {
    const sender = this.#lastSender;
    this.#lastSender = null;
    if (sender === null) return;
    sender.head.writeBigUInt64LE(BigInt(sender.highest + 1), COUNTER_AT);
    sender.next = beginOpening(sender.key, sender.head);
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

function beginOpening(key: Uint8Array, from: Uint8Array): Begun<DecipherGCM> {
  const head = Buffer.from(from);
  const cipher = createDecipheriv("aes-256-gcm", key, nonceOf(head), { authTagLength: TAG_BYTES });
  cipher.setAAD(head);
  return { counter: Number(head.readBigUInt64LE(COUNTER_AT)), head, cipher };
}

function decipher(cipher: DecipherGCM, datagram: Uint8Array): Buffer | null {
  const end = datagram.byteLength - TAG_BYTES;
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
