/**
 * The keys of a cluster, and what is made of them. The first key of the key file is the one to speak with; every key of the file is
 * accepted, so that a new one can be brought to all nodes before anybody speaks with it, and the old one removed after.
 * A key is named by its id, which says nothing about the key.
 */
import { createHmac, hkdfSync } from "node:crypto";
import { assert } from "../base/assert.ts";

const ID_BYTES = 4;

export interface ClusterKey {
  /** 8 hex digits. */
  readonly id: string;
  /** 32 bytes. */
  readonly bytes: Uint8Array;
}

export interface Keyring {
  /** The key to speak with. */
  readonly first: ClusterKey;
  readonly all: readonly ClusterKey[];
  find(id: string): ClusterKey | null;
}

export function deriveKey(key: Uint8Array, salt: Uint8Array | string, purpose: string): Buffer {
  return Buffer.from(hkdfSync("sha256", key, salt, purpose, 32));
}

export function clusterKeyId(key: Uint8Array): string {
  return deriveKey(key, "", "coverlay key id 1").toString("hex", 0, ID_BYTES);
}

/** `keys`: at least one, of 32 bytes each. */
export function createKeyring(keys: readonly [Uint8Array, ...Uint8Array[]]): Keyring {
  return keyringOf(keys.map((bytes): ClusterKey => ({ id: clusterKeyId(bytes), bytes })));
}

/** `keys`: at least one; the first is to speak with. */
export function keyringOf(keys: readonly ClusterKey[]): Keyring {
  const [first] = keys;
  assert(first !== undefined, "a keyring has a key");
  return { first, all: keys, find: (id) => keys.find((key) => key.id === id) ?? null };
}

/** The pre-shared key of TLS between dlmds. */
export function tlsKeyOf(key: ClusterKey): Buffer {
  return deriveKey(key.bytes, "", "coverlay tls 1");
}

/** What the overlays of a cluster have in its place: under the same id, so that people find it in the key file. */
export function overlayKeyOf(key: ClusterKey, cluster: string): ClusterKey {
  return { id: key.id, bytes: deriveKey(key.bytes, "", `coverlay overlay 1 ${cluster}`) };
}

/**
 * Proves to the other end of one TLS connection that this end has that key. `binding`: keying material exported from the connection,
 * so that a proof is worth nothing on another one; `role` and `purpose` keep it from being sent back, or used for something else.
 */
export function connectionProof(
  key: ClusterKey,
  role: "initiator" | "acceptor",
  binding: Uint8Array,
  purpose: Uint8Array | string,
): Buffer {
  const mac = createHmac("sha256", deriveKey(key.bytes, "", "coverlay peer 2"));
  return mac.update(role).update(binding).update(purpose).digest();
}
