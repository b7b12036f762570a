/**
 * What is under the seal of a datagram: one message (datagram.ts), several of one turn to the same nodes, or the question whether
 * datagrams longer than an Ethernet frame arrive, with its answer. Each costs a system call, a seal and a wake, whatever its length: many
 * small ordered packets travel much faster as one. IP takes what is longer than a frame apart; not every network lets the parts through.
 */
import { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import { largestHeartbeatBytes } from "./datagram.ts";

/** Bytes under the seal that arrive wherever heartbeats do: those are that long now and then. */
export const frameBundleBytes: number = largestHeartbeatBytes;
/** Bytes under the seal, at most. Eleven frames: where 1% of these are lost, one datagram of ten is. */
export const maxBundleBytes: number = 16 * 1024;

const magic = 0x42_63;
const bundleVersion = 1;
const Kind = { BUNDLE: 1, PROBE: 2, PROBED: 3 } as const;
const headBytes = 4;
/** In front of each message of a bundle. */
const lengthBytes = 2;

export type Unsealed =
  | { readonly kind: "messages"; readonly bodies: readonly Uint8Array[] }
  /** "Say if this came": it has maxBundleBytes. */
  | { readonly kind: "probe" }
  | { readonly kind: "probed" };

function head(bytes: number, kind: number): ByteWriter {
  return new ByteWriter(bytes, maxBundleBytes).u16(magic).u8(bundleVersion).u8(kind);
}

export function encodeProbe(): Uint8Array {
  return head(maxBundleBytes, Kind.PROBE)
    .bytes(new Uint8Array(maxBundleBytes - headBytes))
    .view();
}

export function encodeProbed(): Uint8Array {
  return head(headBytes, Kind.PROBED).view();
}

/** What a bundle of these messages has, if there are several. */
export function bundleBytes(messages: number, bytes: number): number {
  return messages === 1 ? bytes : headBytes + messages * lengthBytes + bytes;
}

/** A single one is itself. */
export function encodeBundle(bodies: readonly Uint8Array[]): Uint8Array {
  const [first] = bodies;
  if (first !== undefined && bodies.length === 1) return first;
  const bytes = bodies.reduce((sum, body) => sum + body.byteLength, 0);
  const w = head(bundleBytes(bodies.length, bytes), Kind.BUNDLE);
  for (const body of bodies) w.u16(body.byteLength).bytes(body);
  return w.view();
}

/** The messages are views, and not looked into. Throws WireError. */
export function decodeUnsealed(bytes: Uint8Array): Unsealed {
  const r = new ByteReader(bytes);
  if (bytes.byteLength < headBytes || r.u16() !== magic) return { kind: "messages", bodies: [bytes] };
  const version = r.u8();
  if (version !== bundleVersion) throw new WireError(`bundle of version ${version}, this dlmd speaks ${bundleVersion}`);
  const kind = r.u8();
  switch (kind) {
    case Kind.BUNDLE: {
      const bodies: Uint8Array[] = [];
      while (r.remaining > 0) bodies.push(r.bytes(r.u16()));
      return { kind: "messages", bodies };
    }
    case Kind.PROBE:
      if (bytes.byteLength !== maxBundleBytes) throw new WireError(`probe of ${bytes.byteLength} bytes, ${maxBundleBytes} expected`);
      return { kind: "probe" };
    case Kind.PROBED:
      r.end();
      return { kind: "probed" };
    default:
      throw new WireError(`bundle of unknown kind ${kind}`);
  }
}
