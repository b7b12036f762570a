/**
 * How a caller and an owner make sure of each other before the first call: a mutual challenge with a secret that the
 * overlays share (HMAC-SHA256 over a label, the caller's hello and the owner's nonce). There are several while the cluster's key is replaced:
 * the owner proves its first, the caller, if it has that one, the same.
 *
 *     caller -> HELLO      version, cluster, volume, session, nonce
 *     owner  -> CHALLENGE  nonce, proof of the owner
 *     caller -> PROOF      proof of the caller
 *     owner  -> WELCOME    resumed or new, the volume's root      or at any step: REFUSED reason, text
 *
 * Nothing but the version and a wrong secret is refused before the caller has proved who it is.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { ByteReader, ByteWriter } from "../../dlmd/base/bytes.ts";
import { WireError } from "../../dlmd/base/error.ts";
import type { FileId } from "./lower.ts";
import { LOWER_WIRE_VERSION } from "./wire.ts";
import { readFileId, writeFileId } from "./wire-values.ts";

export const NONCE_BYTES = 32;
const PROOF_BYTES = 32;
const MAGIC = 0x4c56_4f43;
const MAX_TEXT_BYTES = 512;

/** Who calls (hazard C7): one client of one incarnation of a node's dlmd, under one owner. */
export interface LowerSessionId {
  readonly nodeid: number;
  readonly incarnation: string;
  readonly clientId: number;
  readonly ownerEpoch: number;
}

export interface Hello {
  readonly version: number;
  readonly clusterName: string;
  readonly volumeUuid: string;
  readonly session: LowerSessionId;
  readonly nonce: Uint8Array;
}

export interface Challenge {
  readonly nonce: Uint8Array;
  readonly proof: Uint8Array;
}

export interface Welcome {
  /** The owner knows the session: its handles are open, its calls go on. */
  readonly resumed: boolean;
  readonly root: FileId;
  readonly hasAcls: boolean;
}

export const REFUSALS = ["version", "wrong-secret", "other-cluster", "other-volume", "other-epoch", "gone", "too-many"] as const;
export type Refusal = (typeof REFUSALS)[number];

export interface Refused {
  readonly reason: Refusal;
  /** What was expected and found. */
  readonly text: string;
}

export function sessionKey(session: LowerSessionId): string {
  return `${session.nodeid}/${session.incarnation}/${session.clientId}/${session.ownerEpoch}`;
}

export function encodeHello(hello: Hello): Uint8Array {
  const { session } = hello;
  const writer = new ByteWriter().u32(MAGIC).u16(hello.version).string(hello.clusterName).string(hello.volumeUuid);
  writer.u32(session.nodeid).string(session.incarnation).u64(session.clientId).u64(session.ownerEpoch);
  return writer.bytes(hello.nonce).copy();
}

/** A hello of another version gives that version and nothing else of it. */
export function decodeHello(body: Uint8Array): Hello {
  const reader = new ByteReader(body);
  const magic = reader.u32();
  if (magic !== MAGIC) throw new WireError(`no coverlay caller: magic 0x${magic.toString(16)}`);
  const version = reader.u16();
  if (version !== LOWER_WIRE_VERSION) {
    const session = { nodeid: 0, incarnation: "", clientId: 0, ownerEpoch: 0 };
    return { version, clusterName: "", volumeUuid: "", session, nonce: new Uint8Array(NONCE_BYTES) };
  }
  const clusterName = reader.string(MAX_TEXT_BYTES);
  const volumeUuid = reader.string(MAX_TEXT_BYTES);
  const nodeid = reader.u32();
  const incarnation = reader.string(MAX_TEXT_BYTES);
  const session = { nodeid, incarnation, clientId: reader.u64(), ownerEpoch: reader.u64() };
  const nonce = reader.bytes(NONCE_BYTES);
  reader.end();
  return { version, clusterName, volumeUuid, session, nonce };
}

export function encodeChallenge(challenge: Challenge): Uint8Array {
  return new ByteWriter().bytes(challenge.nonce).bytes(challenge.proof).copy();
}

export function decodeChallenge(body: Uint8Array): Challenge {
  const reader = new ByteReader(body);
  const challenge = { nonce: reader.bytes(NONCE_BYTES), proof: reader.bytes(PROOF_BYTES) };
  reader.end();
  return challenge;
}

export function decodeProof(body: Uint8Array): Uint8Array {
  const reader = new ByteReader(body);
  const proof = reader.bytes(PROOF_BYTES);
  reader.end();
  return proof;
}

export function encodeWelcome(welcome: Welcome): Uint8Array {
  const writer = new ByteWriter().bool(welcome.resumed).bool(welcome.hasAcls);
  writeFileId(writer, welcome.root);
  return writer.copy();
}

export function decodeWelcome(body: Uint8Array): Welcome {
  const reader = new ByteReader(body);
  const resumed = reader.bool();
  const hasAcls = reader.bool();
  const root = readFileId(reader);
  reader.end();
  return { resumed, hasAcls, root };
}

export function encodeRefused(refused: Refused): Uint8Array {
  return new ByteWriter()
    .u8(REFUSALS.indexOf(refused.reason))
    .string(refused.text.slice(0, MAX_TEXT_BYTES / 4))
    .copy();
}

export function decodeRefused(body: Uint8Array): Refused {
  const reader = new ByteReader(body);
  const at = reader.u8();
  const reason = REFUSALS[at];
  if (reason === undefined) throw new WireError(`unknown refusal ${at}`);
  const text = reader.string(MAX_TEXT_BYTES);
  reader.end();
  return { reason, text };
}

/** The proof of one side: `hello` is the body of the HELLO frame, which names everything that must agree. */
export function proofOf(side: "caller" | "owner", secret: Uint8Array, hello: Uint8Array, ownerNonce: Uint8Array): Buffer {
  return createHmac("sha256", secret).update(`coverlay lower ${side}\0`).update(hello).update(ownerNonce).digest();
}

/** The first of those secrets with which that proof was made; null: none. */
export function secretOfProof(
  side: "caller" | "owner",
  secrets: readonly Uint8Array[],
  hello: Uint8Array,
  ownerNonce: Uint8Array,
  proof: Uint8Array,
): Uint8Array | null {
  return secrets.find((secret) => proofMatches(proofOf(side, secret, hello, ownerNonce), proof)) ?? null;
}

/** Whether what was proved with that secret is still worth something. */
export function isAmong(secret: Uint8Array, secrets: readonly Uint8Array[]): boolean {
  return secrets.some((each) => proofMatches(each, secret));
}

export function proofMatches(expected: Uint8Array, found: Uint8Array): boolean {
  return expected.byteLength === found.byteLength && timingSafeEqual(expected, found);
}
