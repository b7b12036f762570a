/**
 * The first frames of a TCP connection between two dlmds: each says who it is, and proves that it has the cluster key,
 * before anything else is believed.
 *
 *     both:  HELLO  who I am, a nonce, the salt of my datagrams (seal.ts)
 *     both:  PROOF  HMAC-SHA256(key, role, the initiator's HELLO, the acceptor's HELLO), or REFUSE with a reason
 *
 * A HELLO covers the nonce, the cluster, the nodeid, the incarnation and the protocol and configuration versions, so the
 * proof covers them all; the role keeps a proof from being sent back to its author. No I/O here: bytes in, bytes out.
 */
import { createHmac, hkdfSync, timingSafeEqual } from "node:crypto";
import { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import { SALT_BYTES } from "./seal.ts";

const MAGIC = 0x50445643;
/** Changes with every incompatible change of what dlmds say to each other. */
export const PEER_PROTOCOL_VERSION = 1;
export const NONCE_BYTES = 32;
const PROOF_BYTES = 32;
const MAX_REASON_BYTES = 1024;
/** The largest frame of a handshake. */
export const HANDSHAKE_FRAME_BYTES = 2048;

const Kind = { HELLO: 1, PROOF: 2, REFUSE: 3 } as const;

export interface Identity {
  readonly protocolVersion: number;
  readonly cluster: string;
  readonly configVersion: number;
  readonly nodeid: number;
  readonly incarnation: string;
  readonly salt: Uint8Array;
}

export interface HandshakeOptions {
  readonly clusterKey: Uint8Array;
  readonly self: Identity;
  /** NONCE_BYTES fresh random bytes. */
  readonly nonce: Uint8Array;
  readonly role: "initiator" | "acceptor";
  /** The node that this connection was made to; null: any configured node. */
  readonly expectedNodeid: number | null;
  readonly isKnownNode: (nodeid: number) => boolean;
}

export type HandshakeStep =
  | { readonly kind: "more"; readonly send: Uint8Array | null }
  /** The peer is who it says; what it sends after this is believed. */
  | { readonly kind: "done"; readonly peer: Identity }
  /** `send`: tells the peer why, before the connection is closed; null if it was the peer that refused. */
  | { readonly kind: "refused"; readonly send: Uint8Array | null; readonly reason: string };

export interface Handshake {
  /** The first frame to send. */
  readonly hello: Uint8Array;
  /** The body of a received frame. */
  receive(body: Uint8Array): HandshakeStep;
}

function encodeHello(self: Identity, nonce: Uint8Array): Uint8Array {
  const writer = new ByteWriter();
  writer.u8(Kind.HELLO).u32(MAGIC).u16(self.protocolVersion).u32(self.configVersion).u16(self.nodeid);
  return writer.string(self.incarnation).string(self.cluster).bytes(self.salt).bytes(nonce).copy();
}

function decodeHello(reader: ByteReader): Identity {
  const magic = reader.u32();
  if (magic !== MAGIC) throw new WireError(`a coverlay HELLO expected, found magic 0x${magic.toString(16)}`);
  const protocolVersion = reader.u16();
  const configVersion = reader.u32();
  const nodeid = reader.u16();
  const incarnation = reader.string(64);
  const cluster = reader.string(64);
  const salt = reader.bytes(SALT_BYTES).slice();
  reader.bytes(NONCE_BYTES);
  reader.end();
  return { protocolVersion, configVersion, nodeid, incarnation, cluster, salt };
}

function encodeRefuse(reason: string): Uint8Array {
  return new ByteWriter().u8(Kind.REFUSE).string(reason).copy();
}

/** Why that peer may not talk to us, or null. Written so that it makes sense in the log of either side. */
function objection(peer: Identity, options: HandshakeOptions): string | null {
  const { self } = options;
  const differs = (what: string, ours: string | number, theirs: string | number): string =>
    `${what}: node ${self.nodeid} has ${ours}, node ${peer.nodeid} has ${theirs}`;
  if (peer.protocolVersion !== self.protocolVersion) return differs("protocol version", self.protocolVersion, peer.protocolVersion);
  if (peer.cluster !== self.cluster) return differs("other cluster", self.cluster, peer.cluster);
  if (!options.isKnownNode(peer.nodeid)) return `unknown node: the configuration of node ${self.nodeid} has no node ${peer.nodeid}`;
  if (peer.nodeid === self.nodeid) return `nodeid ${self.nodeid} is taken: two dlmds were started as the same node`;
  if (options.expectedNodeid !== null && peer.nodeid !== options.expectedNodeid) {
    return `other node: node ${options.expectedNodeid} was called, node ${peer.nodeid} answered; check the addresses`;
  }
  if (peer.configVersion !== self.configVersion) return differs("configuration version", self.configVersion, peer.configVersion);
  return null;
}

export function createHandshake(options: HandshakeOptions): Handshake {
  const key = Buffer.from(hkdfSync("sha256", options.clusterKey, "", "coverlay peer 1", 32));
  const hello = encodeHello(options.self, options.nonce);
  let peer: Identity | null = null;
  let peerHello: Uint8Array = new Uint8Array();

  const proofOf = (role: "initiator" | "acceptor"): Buffer => {
    const [first, second] = options.role === "initiator" ? [hello, peerHello] : [peerHello, hello];
    return createHmac("sha256", key).update(role).update(first).update(second).digest();
  };
  const refuse = (reason: string): HandshakeStep => ({ kind: "refused", send: encodeRefuse(reason), reason });

  const receiveHello = (body: Uint8Array, reader: ByteReader): HandshakeStep => {
    if (peer !== null) return refuse("a second HELLO");
    peer = decodeHello(reader);
    peerHello = body.slice();
    const reason = objection(peer, options);
    if (reason !== null) return refuse(reason);
    return { kind: "more", send: new ByteWriter().u8(Kind.PROOF).bytes(proofOf(options.role)).copy() };
  };
  const receiveProof = (reader: ByteReader): HandshakeStep => {
    if (peer === null) return refuse("a PROOF before the HELLO");
    const proof = reader.bytes(PROOF_BYTES);
    reader.end();
    if (!timingSafeEqual(proof, proofOf(options.role === "initiator" ? "acceptor" : "initiator"))) {
      return refuse(`wrong key: the cluster keys of node ${options.self.nodeid} and node ${peer.nodeid} differ`);
    }
    return { kind: "done", peer };
  };

  return {
    hello,
    receive(body) {
      try {
        const reader = new ByteReader(body);
        const kind = reader.u8();
        if (kind === Kind.HELLO) return receiveHello(body, reader);
        if (kind === Kind.PROOF) return receiveProof(reader);
        if (kind === Kind.REFUSE) return { kind: "refused", send: null, reason: `refused by the peer: ${reader.string(MAX_REASON_BYTES)}` };
        return refuse(`handshake frame of kind ${kind}`);
      } catch (error) {
        if (error instanceof WireError) return refuse(`damaged handshake: ${error.message}`);
        throw error;
      }
    },
  };
}
