/**
 * The first frames inside TLS (dlmd/tls) of a caller and an owner. TLS has proved both ways that the other end has a key of the cluster;
 * this says which client calls, and which owner answers.
 *
 *     caller -> HELLO      version, cluster, volume, session
 *     owner  -> WELCOME    itself, resumed or new, the volume's root      or REFUSED reason, text, itself
 *
 * A port may be another program's by the time that a caller connects to it: an answer of another owner than the one that the caller
 * was told of counts for nothing.
 */
import { ByteReader, ByteWriter } from "../../../dlmd/base/bytes.ts";
import { WireError } from "../../../dlmd/base/error.ts";
import type { FileId } from "../lower.ts";
import { LOWER_WIRE_VERSION } from "./frame.ts";
import { readFileId, writeFileId } from "./values.ts";

const MAGIC = 0x4c56_4f43;
const MAX_TEXT_BYTES = 512;

/** The caller (hazard C7): one client of one incarnation of a node's dlmd, under one owner. */
export interface LowerSessionId {
  readonly nodeid: number;
  readonly incarnation: string;
  readonly clientId: number;
  readonly ownerEpoch: number;
}

/** The owner that answers: a client of an incarnation of a node's dlmd, and the epoch of its ownership. */
export interface OwnerId {
  readonly nodeid: number;
  readonly incarnation: string;
  readonly clientId: number;
  readonly epoch: number;
}

export interface Hello {
  readonly version: number;
  readonly clusterName: string;
  readonly volumeUuid: string;
  readonly session: LowerSessionId;
}

export interface Welcome {
  readonly owner: OwnerId;
  /** The owner knows the session: its handles are open, its calls go on. */
  readonly resumed: boolean;
  readonly root: FileId;
  readonly hasAcls: boolean;
  /** Nobody changes the volume past its owner. */
  readonly exclusive: boolean;
  /** Epoch of the owner before this one, if all that it had executed is on the disk; 0: not known. */
  readonly cleanAfter: number;
  /** Epoch of the owner before this one, if it let go of a failed disk: what it did not answer is made again; 0: it did not. */
  readonly letGoAfter: number;
}

export const REFUSALS = ["version", "other-cluster", "other-volume", "other-epoch", "not-a-member", "gone", "too-many"] as const;
export type Refusal = (typeof REFUSALS)[number];

export interface Refused {
  readonly reason: Refusal;
  /** What was expected and found. */
  readonly text: string;
  readonly owner: OwnerId;
}

export function sessionKey(session: LowerSessionId): string {
  return `${session.nodeid}/${session.incarnation}/${session.clientId}/${session.ownerEpoch}`;
}

export function isSameOwner(a: OwnerId, b: OwnerId): boolean {
  return a.nodeid === b.nodeid && a.incarnation === b.incarnation && a.clientId === b.clientId && a.epoch === b.epoch;
}

export function encodeHello(hello: Hello): Uint8Array {
  const { session } = hello;
  const writer = new ByteWriter().u32(MAGIC).u16(hello.version).string(hello.clusterName).string(hello.volumeUuid);
  return writer.u32(session.nodeid).string(session.incarnation).u64(session.clientId).u64(session.ownerEpoch).copy();
}

/** A hello of another version gives that version and nothing else of it. */
export function decodeHello(body: Uint8Array): Hello {
  const reader = new ByteReader(body);
  const magic = reader.u32();
  if (magic !== MAGIC) throw new WireError(`no coverlay caller: magic 0x${magic.toString(16)}`);
  const version = reader.u16();
  if (version !== LOWER_WIRE_VERSION) {
    const session = { nodeid: 0, incarnation: "", clientId: 0, ownerEpoch: 0 };
    return { version, clusterName: "", volumeUuid: "", session };
  }
  const clusterName = reader.string(MAX_TEXT_BYTES);
  const volumeUuid = reader.string(MAX_TEXT_BYTES);
  const nodeid = reader.u32();
  const incarnation = reader.string(MAX_TEXT_BYTES);
  const session = { nodeid, incarnation, clientId: reader.u64(), ownerEpoch: reader.u64() };
  reader.end();
  return { version, clusterName, volumeUuid, session };
}

function writeOwner(writer: ByteWriter, owner: OwnerId): void {
  writer.u32(owner.nodeid).string(owner.incarnation).u64(owner.clientId).u64(owner.epoch);
}

function readOwner(reader: ByteReader): OwnerId {
  const nodeid = reader.u32();
  const incarnation = reader.string(MAX_TEXT_BYTES);
  return { nodeid, incarnation, clientId: reader.u64(), epoch: reader.u64() };
}

export function encodeWelcome(welcome: Welcome): Uint8Array {
  const writer = new ByteWriter();
  writeOwner(writer, welcome.owner);
  writer.bool(welcome.resumed).bool(welcome.hasAcls).bool(welcome.exclusive).u64(welcome.cleanAfter).u64(welcome.letGoAfter);
  writeFileId(writer, welcome.root);
  return writer.copy();
}

export function decodeWelcome(body: Uint8Array): Welcome {
  const reader = new ByteReader(body);
  const owner = readOwner(reader);
  const resumed = reader.bool();
  const hasAcls = reader.bool();
  const exclusive = reader.bool();
  const cleanAfter = reader.u64();
  const letGoAfter = reader.u64();
  const root = readFileId(reader);
  reader.end();
  return { owner, resumed, hasAcls, exclusive, cleanAfter, letGoAfter, root };
}

export function encodeRefused(refused: Refused): Uint8Array {
  const writer = new ByteWriter().u8(REFUSALS.indexOf(refused.reason)).string(refused.text.slice(0, MAX_TEXT_BYTES / 4));
  writeOwner(writer, refused.owner);
  return writer.copy();
}

export function decodeRefused(body: Uint8Array): Refused {
  const reader = new ByteReader(body);
  const at = reader.u8();
  const reason = REFUSALS[at];
  if (reason === undefined) throw new WireError(`unknown refusal ${at}`);
  const text = reader.string(MAX_TEXT_BYTES);
  const owner = readOwner(reader);
  reader.end();
  return { reason, text, owner };
}
