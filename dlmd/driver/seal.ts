/**
 * Datagrams between dlmds, sealed with AES-256-GCM. The key comes from the cluster key and a salt that each
 * incarnation of a dlmd draws anew, so that the counter in the nonce may begin at 0 (hazard H6). A salt means nothing
 * until its node has confirmed it inside a TCP handshake: until then a datagram may cause a connection, nothing else.
 * So a datagram recorded from an earlier incarnation is never heard again.
 *
 *     magic u32 "CVDG" | format u8 | zero u8 | nodeid u16 | salt 16 bytes | counter u64 | sealed body | tag 16 bytes
 *
 * Little-endian; the 32 bytes before the body are authenticated too.
 */
import { createCipheriv, createDecipheriv, hkdfSync } from "node:crypto";
import { assert } from "../base/assert.ts";

const MAGIC = 0x47445643;
const FORMAT = 1;
export const SALT_BYTES = 16;
const HEAD_BYTES = 32;
const TAG_BYTES = 16;
export const SEAL_BYTES: number = HEAD_BYTES + TAG_BYTES;
/** A datagram that arrives later than that many after one with a higher counter is dropped as a replay. */
export const REPLAY_WINDOW = 1024;

function datagramKey(clusterKey: Uint8Array, salt: Uint8Array, cluster: string): Buffer {
  return Buffer.from(hkdfSync("sha256", clusterKey, salt, `coverlay datagram 1 ${cluster}`, 32));
}

/** The secret that the overlays of a cluster share: 32 bytes. */
export function overlaySecretOf(clusterKey: Uint8Array, cluster: string): Buffer {
  return Buffer.from(hkdfSync("sha256", clusterKey, "", `coverlay overlay 1 ${cluster}`, 32));
}

function nonceOf(head: Uint8Array): Buffer {
  const nonce = Buffer.alloc(12);
  nonce.set(head.subarray(24, 32), 4);
  return nonce;
}

export interface Sealer {
  readonly salt: Uint8Array;
  /** A sealed datagram of its own; each call uses the next counter. */
  seal(body: Uint8Array): Buffer;
}

/** `salt`: SALT_BYTES random bytes, never used before with this cluster key. */
export function createSealer(clusterKey: Uint8Array, cluster: string, nodeid: number, salt: Uint8Array): Sealer {
  assert(salt.byteLength === SALT_BYTES, `salt of ${salt.byteLength} bytes`);
  const key = datagramKey(clusterKey, salt, cluster);
  let counter = 0;
  return {
    salt,
    seal(body) {
      counter++;
      const head = Buffer.alloc(HEAD_BYTES);
      head.writeUInt32LE(MAGIC, 0);
      head.writeUInt8(FORMAT, 4);
      head.writeUInt16LE(nodeid, 6);
      head.set(salt, 8);
      head.writeBigUInt64LE(BigInt(counter), 24);
      const cipher = createCipheriv("aes-256-gcm", key, nonceOf(head));
      cipher.setAAD(head);
      const sealed = cipher.update(body);
      cipher.final();
      return Buffer.concat([head, sealed, cipher.getAuthTag()]);
    },
  };
}

export type Opened =
  | { readonly kind: "body"; readonly nodeid: number; readonly body: Uint8Array }
  /** Ours, come back through multicast. */
  | { readonly kind: "own" }
  /** Says that it is from that configured node, but under a salt that no handshake confirmed: a reason to connect. */
  | { readonly kind: "unconfirmed"; readonly nodeid: number }
  | { readonly kind: "dropped"; readonly reason: "foreign" | "unknown-node" | "damaged" | "replayed" };

export interface Opener {
  /** That node's datagrams come under this salt from now on, and under no other. */
  confirm(nodeid: number, salt: Uint8Array): void;
  open(datagram: Uint8Array): Opened;
}

interface Sender {
  readonly salt: Buffer;
  readonly key: Buffer;
  highest: number;
  readonly seen: Uint8Array;
}

/** True the first time for each counter inside the window. */
function acceptCounter(sender: Sender, counter: number): boolean {
  if (counter > sender.highest) {
    const clear = Math.min(counter - sender.highest, REPLAY_WINDOW);
    for (let skipped = 0; skipped < clear; skipped++) sender.seen[(counter - skipped) % REPLAY_WINDOW] = 0;
    sender.highest = counter;
  } else if (sender.highest - counter >= REPLAY_WINDOW || sender.seen[counter % REPLAY_WINDOW] === 1) {
    return false;
  }
  sender.seen[counter % REPLAY_WINDOW] = 1;
  return true;
}

function decipher(sender: Sender, datagram: Uint8Array): Buffer | null {
  const end = datagram.byteLength - TAG_BYTES;
  const head = datagram.subarray(0, HEAD_BYTES);
  const cipher = createDecipheriv("aes-256-gcm", sender.key, nonceOf(head), { authTagLength: TAG_BYTES });
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

/** `nodeids`: the configured nodes, the own one included. */
export function createOpener(clusterKey: Uint8Array, cluster: string, ownNodeid: number, nodeids: readonly number[]): Opener {
  const known = new Set(nodeids);
  const senders = new Map<number, Sender>();
  return {
    confirm(nodeid, salt) {
      if (senders.get(nodeid)?.salt.equals(salt)) return;
      const key = datagramKey(clusterKey, salt, cluster);
      senders.set(nodeid, { salt: Buffer.from(salt), key, highest: 0, seen: new Uint8Array(REPLAY_WINDOW) });
    },
    open(datagram) {
      if (datagram.byteLength < SEAL_BYTES) return { kind: "dropped", reason: "foreign" };
      const head = new DataView(datagram.buffer, datagram.byteOffset, HEAD_BYTES);
      if (head.getUint32(0, true) !== MAGIC || head.getUint8(4) !== FORMAT) return { kind: "dropped", reason: "foreign" };
      const nodeid = head.getUint16(6, true);
      if (nodeid === ownNodeid) return { kind: "own" };
      if (!known.has(nodeid)) return { kind: "dropped", reason: "unknown-node" };
      const sender = senders.get(nodeid);
      if (sender === undefined || !sender.salt.equals(datagram.subarray(8, 8 + SALT_BYTES))) return { kind: "unconfirmed", nodeid };
      const counter = head.getBigUint64(24, true);
      if (counter === 0n || counter > BigInt(Number.MAX_SAFE_INTEGER)) return { kind: "dropped", reason: "damaged" };
      // The tag first: a forged counter must not move the window.
      const body = decipher(sender, datagram);
      if (body === null) return { kind: "dropped", reason: "damaged" };
      return acceptCounter(sender, Number(counter)) ? { kind: "body", nodeid, body } : { kind: "dropped", reason: "replayed" };
    },
  };
}
