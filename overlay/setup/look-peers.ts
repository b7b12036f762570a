/**
 * Looks at another node's ports from here: connects by TCP, asks its dlmd what it sees (dlmd/wire/look.ts), and sends empty datagrams where no
 * dlmd has the port. Nothing at the other node changes, and no view hears of it. What comes from there is not trusted: it is decoded, in TLS.
 */
import { createSocket } from "node:dgram";
import { type Socket, connect } from "node:net";
import { ByteReader } from "../../dlmd/base/bytes.ts";
import { WireError } from "../../dlmd/base/error.ts";
import { type SecureConnection, secureInitiator } from "../../dlmd/tls/secure-connection.ts";
import type { Keyring } from "../../dlmd/tls/keyring.ts";
import { createFrameReader, frameHeadBytes } from "../../dlmd/wire/frame.ts";
import { LookKind, decodeSeen, encodeLook } from "../../dlmd/wire/look.ts";
import type { LookFact, TcpFact, UdpFact } from "./judge-nodes.ts";

/** What a dlmd says to a program that only looks is short. */
const MAX_LOOK_FRAME_BYTES: number = 64 * 1024;
/** Datagrams may be lost, and the kernel tells of a closed port not more often than it likes. */
const PROBES = 4;

export interface PeerTarget {
  readonly address: string;
  readonly port: number;
  /** Connections come from there, as those of dlmd do; null: from where the kernel likes. */
  readonly localAddress: string | null;
}

export interface PeerLook {
  readonly tcp: TcpFact;
  readonly look: LookFact;
}

const unreachable = (code: string | undefined): TcpFact & UdpFact =>
  code === "ECONNREFUSED" ? { kind: "refused" } : { kind: "unreachable", words: code ?? "an unknown error" };

/** Resolves within `limitMs`, or `answerMs` after it is connected. `keyring` null: there is no key to ask with. */
export function lookAtPeer(target: PeerTarget, keyring: Keyring | null, limitMs: number, answerMs: number = limitMs): Promise<PeerLook> {
  return new Promise((resolve) => {
    const { address: host, port, localAddress } = target;
    let tcp: TcpFact = { kind: "silent" };
    const socket = connect({ host, port, ...(localAddress === null ? {} : { localAddress }) });
    const end = (look: LookFact): void => {
      clearTimeout(timer);
      resolve({ tcp, look });
      socket.destroy();
    };
    let timer = setTimeout(() => end({ kind: "none" }), limitMs);
    // After it has connected, TLS tells what goes wrong.
    socket.on("error", (error: NodeJS.ErrnoException) => {
      if (tcp.kind === "answers") return;
      tcp = error.code === "ETIMEDOUT" ? { kind: "silent" } : unreachable(error.code);
      end({ kind: "none" });
    });
    socket.once("connect", () => {
      tcp = { kind: "answers" };
      if (keyring === null) return end({ kind: "none" });
      clearTimeout(timer);
      timer = setTimeout(() => end({ kind: "other", words: `no answer within ${answerMs} ms` }), answerMs);
      ask(socket, keyring, end);
    });
  });
}

function ask(socket: Socket, keyring: Keyring, end: (look: LookFact) => void): void {
  secureInitiator(socket, keyring, {
    secured: (connection) => askSecured(connection, end),
    failed: (reason, noCommonKey) => end(noCommonKey ? { kind: "wrong-key", words: reason } : { kind: "other", words: reason }),
  });
}

function askSecured({ socket }: SecureConnection, end: (look: LookFact) => void): void {
  const look = encodeLook();
  const head = Buffer.alloc(frameHeadBytes(false));
  head.writeUInt32LE(look.byteLength);
  const frames = createFrameReader({ maxBytes: MAX_LOOK_FRAME_BYTES, crc32: null });
  const askedMs = performance.now();
  const askedWallMs = Date.now();
  const receive = (body: Uint8Array): void => {
    // Its HELLO comes first, as to every peer.
    if (body[0] === LookKind.SEEN) {
      const doubtMs = (performance.now() - askedMs) / 2;
      const seen = decodeSeen(body);
      end({ kind: "seen", seen, offsetMs: seen.wallMs - (askedWallMs + doubtMs), doubtMs });
    } else if (body[0] === REFUSED) {
      end({ kind: "other", words: refusalOf(new ByteReader(body, 1).string(MAX_LOOK_FRAME_BYTES)) });
    }
  };
  socket.on("data", (chunk: Buffer) => {
    try {
      frames.push(chunk, receive);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      end({ kind: "other", words: `its answer cannot be read: ${error.message}` });
    }
  });
  socket.on("close", () => end({ kind: "other", words: "it closed the connection" }));
  socket.write(Buffer.concat([head, look]));
}

/** A REFUSE of the handshake (dlmd/driver/handshake.ts). */
const REFUSED = 3;

/** A dlmd from before the look says that it does not know this kind of frame. */
function refusalOf(reason: string): string {
  const isEarlier = reason.includes(`frame of kind ${LookKind.LOOK}`);
  return isEarlier
    ? `its dlmd does not know this question, and is of an earlier version: ${reason}`
    : `its dlmd refuses to answer: ${reason}`;
}

/** Resolves within `limitMs`. Only for a port that no dlmd has: an empty datagram would be one more line in its log. */
export function probeUdp({ address, port, localAddress }: PeerTarget, limitMs: number): Promise<UdpFact> {
  return new Promise((resolve) => {
    const socket = createSocket("udp4");
    const timers: NodeJS.Timeout[] = [];
    const end = (fact: UdpFact): void => {
      for (const timer of timers) clearTimeout(timer);
      resolve(fact);
      if (isOpen) socket.close();
      isOpen = false;
    };
    let isOpen = true;
    socket.on("error", (error: NodeJS.ErrnoException) => end(unreachable(error.code)));
    const probe = (): void => {
      if (isOpen)
        socket.send(new Uint8Array(), (error) => (error === null ? undefined : end(unreachable((error as NodeJS.ErrnoException).code))));
    };
    const begin = (): void => {
      socket.connect(port, address, () => {
        for (let at = 0; at < PROBES; at++) timers.push(setTimeout(probe, (at * limitMs) / PROBES));
        timers.push(setTimeout(() => end({ kind: "silent" }), limitMs));
      });
    };
    if (localAddress === null) begin();
    else socket.bind(0, localAddress, begin);
  });
}
