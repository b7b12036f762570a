/**
 * "I am here": the only datagram under the cluster key itself. Each is sealed under a key of its own, from the cluster key and a salt
 * drawn for it, so no nonce can repeat (hazard H6). It may make the receiver try a TCP connection to that node, nothing else: played
 * again, it does no more than that.
 *
 *     magic u32 "CVDG" | format u8 | kind u8 = 2 | nodeid u16 | key id 4 bytes | salt 16 bytes | sealed: cluster name | tag 16 bytes
 */
import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import { type ClusterKey, type Keyring, deriveKey } from "../tls/keyring.ts";
import { SEAL_FORMAT, SEAL_MAGIC, SealKind } from "./seal.ts";

const SALT_BYTES = 16;
const HEAD_BYTES = 28;
const TAG_BYTES = 16;
const MAX_BODY_BYTES = 64;
/** Used once with each key. */
const NONCE = Buffer.alloc(12);

function keyOf(key: ClusterKey, salt: Uint8Array): Buffer {
  return deriveKey(key.bytes, salt, "coverlay discovery 2");
}

/** A new one, sealed under the key to speak with. `salt`: drawn anew, but for golden vectors. */
export function sealDiscovery(keyring: Keyring, cluster: string, nodeid: number, salt: Uint8Array = randomBytes(SALT_BYTES)): Buffer {
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt32LE(SEAL_MAGIC, 0);
  head.writeUInt8(SEAL_FORMAT, 4);
  head.writeUInt8(SealKind.DISCOVERY, 5);
  head.writeUInt16LE(nodeid, 6);
  head.write(keyring.first.id, 8, "hex");
  head.set(salt, 12);
  const cipher = createCipheriv("aes-256-gcm", keyOf(keyring.first, salt), NONCE);
  cipher.setAAD(head);
  const sealed = cipher.update(cluster, "utf8");
  cipher.final();
  return Buffer.concat([head, sealed, cipher.getAuthTag()]);
}

export type Discovered =
  | { readonly kind: "node"; readonly nodeid: number }
  | { readonly kind: "dropped"; readonly reason: "unknown-key" | "damaged" | "other-cluster" };

/** `datagram`: of kind "discovery", as DatagramOpener found. */
export function openDiscovery(keyring: Keyring, cluster: string, datagram: Uint8Array): Discovered {
  const bytes = Buffer.from(datagram.buffer, datagram.byteOffset, datagram.byteLength);
  if (bytes.length < HEAD_BYTES + TAG_BYTES || bytes.length > HEAD_BYTES + TAG_BYTES + MAX_BODY_BYTES) {
    return { kind: "dropped", reason: "damaged" };
  }
  const key = keyring.find(bytes.toString("hex", 8, 12));
  if (key === null) return { kind: "dropped", reason: "unknown-key" };
  const end = bytes.length - TAG_BYTES;
  const cipher = createDecipheriv("aes-256-gcm", keyOf(key, bytes.subarray(12, HEAD_BYTES)), NONCE, { authTagLength: TAG_BYTES });
  cipher.setAAD(bytes.subarray(0, HEAD_BYTES));
  cipher.setAuthTag(bytes.subarray(end));
  const body = cipher.update(bytes.subarray(HEAD_BYTES, end));
  try {
    cipher.final();
  } catch {
    return { kind: "dropped", reason: "damaged" };
  }
  if (body.toString("utf8") !== cluster) return { kind: "dropped", reason: "other-cluster" };
  return { kind: "node", nodeid: bytes.readUInt16LE(6) };
}
