/**
 * The first frames inside the TLS connection (tls/secure-connection.ts) of two dlmds: each says who it is, and proves once more, inside, that it has
 * the cluster key, before anything else is believed (hazard H7).
 *
 *     both:  HELLO  who I am, a nonce, the key of my datagrams and their counter (seal.ts)
 *     both:  PROOF  HMAC-SHA256(key, role, this TLS connection, the initiator's HELLO, the acceptor's HELLO), or REFUSE with a reason
 *
 * A HELLO covers the nonce, the cluster, the nodeid, the incarnation and the protocol and configuration versions, so the proof covers
 * them all; the role keeps a proof from being sent back to its author. A node whose configuration is older gets, with the refusal,
 * the newer one. No I/O here: bytes in, bytes out.
 *
 * In the place of its HELLO an initiator may ask what this dlmd sees (wire/look.ts), or for a check of its machine (wire/self-check.ts): once, and it
 * becomes no peer by that.
 */
import { timingSafeEqual } from "node:crypto";
import { ByteReader, ByteWriter, decodeText } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import { MAX_AGREED } from "../config/change-codec.ts";
import { MAX_CONFIG_BYTES, MAX_NODES } from "../config/cluster-config.ts";
import { type AgreedVersion, MAX_TRAIL } from "../config/trail.ts";
import { maybe } from "../wire/field.ts";
import { counting } from "../wire/quorum-count.ts";
import type { Counting } from "../wire/view-id.ts";
import { LookKind, encodeSeen, readLook, type Seen } from "../wire/look.ts";
import { CheckKind, readCheck } from "../wire/self-check.ts";
import { peerVersion } from "../wire/peer.ts";
import { type ClusterKey, connectionProof } from "../tls/keyring.ts";
import { DATAGRAM_KEY_BYTES } from "./seal.ts";

const MAGIC = 0x50445643;
/** Changes with every incompatible change of what dlmds say to each other: of frames, or of what comes before them. */
export const PEER_PROTOCOL_VERSION: number = peerVersion + 7;
export const NONCE_BYTES = 32;
export const CONFIG_HASH_BYTES = 32;
const PROOF_BYTES = 32;
const MAX_REASON_BYTES = 2048;
/** A version, its votes, and the nodes that agreed on it. */
const agreedVersionBytes: number = 4 + 2 + MAX_NODES * 3 + 2 + MAX_AGREED * 2;
/** The largest frame of a handshake. */
export const HANDSHAKE_FRAME_BYTES: number = MAX_CONFIG_BYTES + MAX_TRAIL * agreedVersionBytes + 4096;

const maybeCounting = maybe(counting);

const Kind = { HELLO: 1, PROOF: 2, REFUSE: 3 } as const;

export interface Identity {
  readonly protocolVersion: number;
  readonly cluster: string;
  readonly configVersion: number;
  /** Of its text: one version must not mean two configurations. CONFIG_HASH_BYTES. */
  readonly configHash: Uint8Array;
  readonly nodeid: number;
  readonly incarnation: string;
  /** DATAGRAM_KEY_BYTES, random, of this incarnation. */
  readonly datagramKey: Uint8Array;
  /** The last counter used under it. */
  readonly datagramCounter: number;
}

export type Role = "initiator" | "acceptor";

export interface HandshakeOptions {
  /** The key that TLS was agreed with. */
  readonly key: ClusterKey;
  /** Keying material exported from the TLS connection. */
  readonly binding: Uint8Array;
  readonly self: Identity;
  /** NONCE_BYTES fresh random bytes. */
  readonly nonce: Uint8Array;
  readonly role: Role;
  /** The node that this connection was made to; null: any configured node. */
  readonly expectedNodeid: number | null;
  /** Why that configured node is not wanted just now; null: it is. */
  readonly objection: (peer: Identity) => string | null;
  readonly isKnownNode: (nodeid: number) => boolean;
  /** Our configuration, for a peer that has an older one; null: it comes from a file, and the cluster never agreed on it. */
  readonly offer: () => ConfigOffer | null;
  /** What this node sees, for a program that asks; null: it cannot say just now. Absent: it is refused. */
  readonly look?: (() => Seen | null) | undefined;
  /** It answers programs that ask for a check of its machine; false or absent: they are refused. */
  readonly mayCheck?: boolean;
}

/** A configuration that a peer offers with its refusal, because ours is older. */
export interface ConfigOffer {
  readonly version: number;
  readonly text: string;
  /** Nodes that had it in force in a quorate view: at least one. */
  readonly agreedBy: readonly number[];
  /** How the cluster came to it: for a peer that missed several versions. */
  readonly trail: readonly AgreedVersion[];
  /** Who counts, as far as is known with these votes (hazard C8). */
  readonly counting: Counting | null;
}

export type HandshakeStep =
  | { readonly kind: "more"; readonly send: Uint8Array | null }
  /** It is no peer: what this dlmd's machine is checked with is sent outside of the handshake. `limitMs`: of each check. */
  | { readonly kind: "check"; readonly limitMs: number }
  /** The peer is who it says; what it sends after this is believed. */
  | { readonly kind: "done"; readonly peer: Identity }
  /** `send`: tells the peer why, before the connection is closed; null if it was the peer that refused. */
  | { readonly kind: "refused"; readonly send: Uint8Array | null; readonly reason: string; readonly offer: ConfigOffer | null };

export interface Handshake {
  /** The first frame to send. */
  readonly hello: Uint8Array;
  /** The body of a received frame. */
  receive(body: Uint8Array): HandshakeStep;
}

function encodeHello(self: Identity, nonce: Uint8Array): Uint8Array {
  const writer = new ByteWriter();
  writer.u8(Kind.HELLO).u32(MAGIC).u16(self.protocolVersion).u32(self.configVersion).u16(self.nodeid).string(self.incarnation);
  writer.string(self.cluster).bytes(self.configHash).bytes(self.datagramKey).u64(self.datagramCounter);
  return writer.bytes(nonce).copy();
}

function decodeHello(reader: ByteReader): Identity {
  const magic = reader.u32();
  if (magic !== MAGIC) throw new WireError(`a coverlay HELLO expected, found magic 0x${magic.toString(16)}`);
  const protocolVersion = reader.u16();
  const configVersion = reader.u32();
  const nodeid = reader.u16();
  const incarnation = reader.string(64);
  if (!/^[0-9a-z-]{1,32}$/.test(incarnation)) throw new WireError("an incarnation expected in the HELLO");
  const cluster = reader.string(64);
  const configHash = reader.bytes(CONFIG_HASH_BYTES).slice();
  const datagramKey = reader.bytes(DATAGRAM_KEY_BYTES).slice();
  const datagramCounter = reader.u64();
  reader.bytes(NONCE_BYTES);
  reader.end();
  return { protocolVersion, configVersion, configHash, nodeid, incarnation, cluster, datagramKey, datagramCounter };
}

function encodeRefuse(reason: string, offer: ConfigOffer | null): Uint8Array {
  const writer = new ByteWriter(256, HANDSHAKE_FRAME_BYTES).u8(Kind.REFUSE).string(reason.slice(0, MAX_REASON_BYTES / 4));
  writer.u32(offer?.version ?? 0);
  writer.block(new TextEncoder().encode(offer?.text ?? ""));
  encodeNodeids(writer, offer?.agreedBy ?? []);
  // A peer of another protocol version reads a refusal, too, but is offered nothing.
  if (offer !== null) {
    encodeTrail(writer, offer.trail);
    maybeCounting.write(writer, offer.counting);
  }
  return writer.copy();
}

function encodeNodeids(writer: ByteWriter, nodeids: readonly number[]): void {
  writer.u16(nodeids.length);
  for (const nodeid of nodeids) writer.u16(nodeid);
}

function decodeNodeids(reader: ByteReader): number[] {
  const count = reader.u16();
  if (count > MAX_AGREED) throw new WireError(`a configuration that ${count} nodes agreed on`);
  return Array.from({ length: count }, () => reader.u16());
}

function encodeTrail(writer: ByteWriter, trail: readonly AgreedVersion[]): void {
  writer.u16(trail.length);
  for (const { version, nodes, agreedBy } of trail) {
    writer.u32(version).u16(nodes.length);
    for (const { nodeid, votes } of nodes) writer.u16(nodeid).u8(votes);
    encodeNodeids(writer, agreedBy);
  }
}

function decodeTrail(reader: ByteReader): AgreedVersion[] {
  const count = reader.u16();
  if (count > MAX_TRAIL) throw new WireError(`a configuration with ${count} versions before it`);
  return Array.from({ length: count }, () => {
    const version = reader.u32();
    const voters = reader.u16();
    if (voters > MAX_NODES) throw new WireError(`a version before it of ${voters} nodes`);
    const nodes = Array.from({ length: voters }, () => ({ nodeid: reader.u16(), votes: reader.u8() }));
    return { version, nodes, agreedBy: decodeNodeids(reader) };
  });
}

function decodeRefuse(reader: ByteReader): HandshakeStep {
  const reason = `refused by the peer: ${reader.string(MAX_REASON_BYTES)}`;
  const version = reader.u32();
  const text = decodeText(reader.block(MAX_CONFIG_BYTES));
  const agreedBy = decodeNodeids(reader);
  const offer = version === 0 ? null : { version, text, agreedBy, trail: decodeTrail(reader), counting: maybeCounting.read(reader) };
  reader.end();
  return { kind: "refused", send: null, reason, offer };
}

/** Why that peer may not talk to us, or null. Written so that it makes sense in the log of either side. */
function objection(peer: Identity, options: HandshakeOptions): string | null {
  const { self } = options;
  const differs = (what: string, ours: string | number, theirs: string | number): string =>
    `${what}: node ${self.nodeid} has ${ours}, node ${peer.nodeid} has ${theirs}`;
  if (peer.protocolVersion !== self.protocolVersion)
    return `${differs("protocol version", self.protocolVersion, peer.protocolVersion)}; install one version of coverlay on both, and restart dlmd there`;
  if (peer.cluster !== self.cluster) return differs("other cluster", self.cluster, peer.cluster);
  if (!options.isKnownNode(peer.nodeid)) return `unknown node: the configuration of node ${self.nodeid} has no node ${peer.nodeid}`;
  if (peer.nodeid === self.nodeid) return `nodeid ${self.nodeid} is taken: two dlmds were started as the same node`;
  if (options.expectedNodeid !== null && peer.nodeid !== options.expectedNodeid) {
    return `other node: node ${options.expectedNodeid} was called, node ${peer.nodeid} answered; check the addresses`;
  }
  if (peer.configVersion !== self.configVersion) return differs("configuration version", self.configVersion, peer.configVersion);
  if (!Buffer.from(peer.configHash).equals(self.configHash)) {
    return `other configuration: nodes ${self.nodeid} and ${peer.nodeid} both have version ${self.configVersion}, but not the same one; copy the right file to the other node`;
  }
  return options.objection(peer);
}

/** What a person is to do at a node that was started with a file of its own. */
function neverAgreed(self: Identity, peer: Identity): string {
  const version = `version ${self.configVersion} of node ${self.nodeid}`;
  return `${version} comes from its file, and the cluster never agreed on it: stop dlmd there, put the cluster's file there (\`coverlay config show\` on node ${peer.nodeid}), start it with --new-config, and make changes with \`coverlay config apply\``;
}

export function createHandshake(options: HandshakeOptions): Handshake {
  const hello = encodeHello(options.self, options.nonce);
  let peer: Identity | null = null;
  let peerHello: Uint8Array = new Uint8Array();
  /** Why no proof makes that HELLO one of a peer; null: it may. */
  let barred: string | null = null;
  let hasLooked = false;
  /** For a check: nothing else may come then. */
  let hasAsked = false;

  const proofOf = (role: Role): Buffer => {
    const hellos = options.role === "initiator" ? [hello, peerHello] : [peerHello, hello];
    return connectionProof(options.key, role, options.binding, Buffer.concat(hellos));
  };
  const refuse = (reason: string, offer: ConfigOffer | null = null): HandshakeStep => ({
    kind: "refused",
    send: encodeRefuse(reason, offer),
    reason,
    offer: null,
  });

  const receiveHello = (body: Uint8Array, reader: ByteReader): HandshakeStep => {
    if (peer !== null) return refuse("a second HELLO");
    const found = decodeHello(reader);
    peer = found;
    peerHello = body.slice();
    const reason = objection(found, options);
    barred = reason;
    if (reason === null) return { kind: "more", send: new ByteWriter().u8(Kind.PROOF).bytes(proofOf(options.role)).copy() };
    if (found.cluster !== options.self.cluster || found.protocolVersion !== options.self.protocolVersion) return refuse(reason);
    // The newer one refuses and offers its configuration: the older one waits for it.
    if (found.configVersion > options.self.configVersion) return { kind: "more", send: null };
    if (found.configVersion === options.self.configVersion) return refuse(reason);
    const offer = options.offer();
    return offer === null ? refuse(`${reason}; ${neverAgreed(options.self, found)}`) : refuse(reason, offer);
  };
  const receiveLook = (reader: ByteReader): HandshakeStep => {
    readLook(reader);
    if (options.role !== "acceptor" || peer !== null || hasLooked) return refuse("a look out of its place");
    hasLooked = true;
    const found = options.look?.() ?? null;
    return found === null ? refuse("this dlmd begins a new life: look again") : { kind: "more", send: encodeSeen(found) };
  };
  const receiveCheck = (reader: ByteReader): HandshakeStep => {
    const limitMs = readCheck(reader);
    if (options.role !== "acceptor" || peer !== null || hasLooked) return refuse("a check out of its place");
    if (options.mayCheck !== true) return refuse("this dlmd does not check its machine for others");
    hasAsked = true;
    return { kind: "check", limitMs };
  };
  const receiveProof = (reader: ByteReader): HandshakeStep => {
    if (peer === null) return refuse("a PROOF before the HELLO");
    // Its refusal was waited for, with a newer configuration: a proof instead answers no objection.
    if (barred !== null) return refuse(barred);
    const proof = reader.bytes(PROOF_BYTES);
    reader.end();
    if (!timingSafeEqual(proof, proofOf(options.role === "initiator" ? "acceptor" : "initiator"))) {
      return refuse(`wrong proof: node ${peer.nodeid} does not have key ${options.key.id}`);
    }
    return { kind: "done", peer };
  };

  return {
    hello,
    receive(body) {
      try {
        const reader = new ByteReader(body);
        const kind = reader.u8();
        if (hasAsked) return refuse(`a frame of kind ${kind} behind the question for a check`);
        if (kind === Kind.HELLO) return receiveHello(body, reader);
        if (kind === Kind.PROOF) return receiveProof(reader);
        if (kind === LookKind.LOOK) return receiveLook(reader);
        if (kind === CheckKind.CHECK) return receiveCheck(reader);
        if (kind === Kind.REFUSE) return decodeRefuse(reader);
        return refuse(`handshake frame of kind ${kind}`);
      } catch (error) {
        if (error instanceof WireError) return refuse(`damaged handshake: ${error.message}`);
        throw error;
      }
    },
  };
}
