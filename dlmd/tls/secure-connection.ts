/**
 * TLS 1.3 with the cluster's pre-shared key, and nothing else. Measured with Node 20 (OpenSSL 3.0): external keys work in TLS 1.3, with
 * (EC)DHE, so what was recorded stays secret when the key becomes known; only the suites with SHA-256 can be used with
 * `pskCallback`. Without a common key TLS falls back to certificates (hazard H7): `ca: []` and rejectUnauthorized refuse any, and a
 * connection that was not agreed with a key is dropped. The key id travels as the identity; no session is resumed.
 */
import { constants } from "node:crypto";
import { type OnReadOpts, Socket } from "node:net";
import { type TLSSocket, type TlsOptions, connect, createServer } from "node:tls";
import { type ClusterKey, type Keyring, tlsKeyOf } from "./keyring.ts";

const IDENTITY_PREFIX = "coverlay ";
const BINDING_LABEL = "EXPORTER-coverlay-peer";
const BINDING_BYTES = 32;

const common: TlsOptions = {
  minVersion: "TLSv1.3",
  maxVersion: "TLSv1.3",
  ciphers: "TLS_AES_128_GCM_SHA256",
  rejectUnauthorized: true,
  // A ticket would outlive its key.
  secureOptions: constants.SSL_OP_NO_TICKET,
};

/** A connection whose other end has `key`. */
export interface SecureConnection {
  readonly socket: TLSSocket;
  readonly key: ClusterKey;
  /** Keying material of this connection alone. */
  readonly binding: Uint8Array;
}

export interface SecureHandlers {
  readonly secured: (connection: SecureConnection) => void;
  /**
   * `noCommonKey`: so it seems. The other end has proved nothing, so this is no more than a hint for people. `hungUp`: the other end closed
   * or reset the connection, and said nothing that is no TLS.
   */
  readonly failed: (reason: string, noCommonKey: boolean, hungUp: boolean) => void;
}

/** Where to connect to. `onread`: one buffer for all that comes (net.connect). */
export interface SecureTarget {
  readonly host: string;
  readonly port: number;
  readonly onread?: OnReadOpts;
}

type Failure = readonly [reason: string, noCommonKey: boolean, hungUp: boolean];

const CLOSED = "closed during the handshake";

/** Why a handshake of TLS failed, in words. */
function failureOf(error: NodeJS.ErrnoException, asked: string | null, keyring: Keyring): Failure {
  const ours = keyring.all.map(({ id }) => id).join(", ");
  switch (error.code) {
    case "ERR_SSL_BINDER_DOES_NOT_VERIFY":
    case "ERR_SSL_NO_SUITABLE_SIGNATURE_ALGORITHM":
    case "ERR_SSL_NO_SHARED_CIPHER":
      return asked === null
        ? [`no key: the peer speaks TLS without a cluster key; this node has ${ours}`, true, false]
        : [`wrong key: the peer speaks with cluster key ${asked}, this node has ${ours}`, true, false];
    case "ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE":
    case "ERR_SSL_SSLV3_ALERT_ILLEGAL_PARAMETER":
    case "ERR_SSL_TLSV1_ALERT_DECRYPT_ERROR":
      return [`wrong key: the peer does not have cluster key ${keyring.first.id}, which this node speaks with`, true, false];
    case "DEPTH_ZERO_SELF_SIGNED_CERT":
    case "SELF_SIGNED_CERT_IN_CHAIN":
    case "UNABLE_TO_VERIFY_LEAF_SIGNATURE":
    case "UNABLE_TO_GET_ISSUER_CERT_LOCALLY":
      return [`no key: the peer answered with a certificate instead of cluster key ${keyring.first.id}`, true, false];
    case "ECONNRESET":
    case "EPIPE":
      return ["no TLS 1.3 with a cluster key: the peer closed the connection (it may have another key: see its log)", false, true];
    default:
      return error.syscall === "connect"
        ? [error.message, false, false]
        : [`no TLS 1.3 with a cluster key: ${error.code ?? error.message}`, false, error.message === CLOSED];
  }
}

/** What holds besides "the handshake succeeded"; null: it was not agreed with a key. */
function secured(socket: TLSSocket, key: ClusterKey | null): SecureConnection | null {
  // A handshake with an external key counts as one that resumed a session; one with a certificate does not.
  const certificate = Object.keys(socket.getPeerCertificate() ?? {}).length > 0;
  // An error of TLS after the handshake, such as a record that was damaged on the way, ends nothing by itself in Node.
  socket.on("error", () => socket.destroy());
  // A small call is not to wait for the acknowledgement of the one before (Nagle's algorithm).
  socket.setNoDelay(true);
  if (key === null || certificate || !socket.isSessionReused() || socket.getProtocol() !== "TLSv1.3") return null;
  return { socket, key, binding: socket.exportKeyingMaterial(BINDING_BYTES, BINDING_LABEL, Buffer.alloc(0)) };
}

/**
 * TLS as the side that connects, over a socket that is connected, or over one of its own. Exactly one of the handlers is called, at the
 * latest when the socket that is given back closes; it is destroyed when it fails.
 */
export function secureInitiator(to: Socket | SecureTarget, keyring: Keyring, handlers: SecureHandlers): TLSSocket {
  const key = keyring.first;
  const socket = connect({
    ...common,
    ...(to instanceof Socket ? { socket: to } : to),
    ca: [],
    checkServerIdentity: (_, certificate) =>
      Object.keys(certificate ?? {}).length > 0 ? new Error("a peer with a certificate is not a member") : undefined,
    pskCallback: () => ({ psk: tlsKeyOf(key), identity: `${IDENTITY_PREFIX}${key.id}` }),
  });
  const failed = (error: Error): void => {
    socket.destroy();
    if (over) return;
    over = true;
    handlers.failed(...failureOf(error, null, keyring));
  };
  const closed = (): void => failed(new Error(CLOSED));
  let over = false;
  socket.on("error", failed);
  socket.once("close", closed);
  socket.once("secureConnect", () => {
    if (over) return;
    over = true;
    const connection = secured(socket, key);
    if (connection !== null) return handlers.secured(connection);
    socket.destroy();
    handlers.failed(`no key: the peer agreed to TLS without cluster key ${key.id}`, true, false);
  });
  return socket;
}

/** TLS as the side that was connected to. */
export interface SecureAcceptor {
  /** Exactly one of the handlers is called, at the latest when the socket closes. */
  accept(raw: Socket, handlers: SecureHandlers): void;
}

interface Accepting {
  readonly handlers: SecureHandlers;
  /** The key id that the peer spoke with; null: none. */
  asked: string | null;
}

/** `keyring`: asked when a peer says its key, because it may have changed. */
export function createSecureAcceptor(keyring: () => Keyring): SecureAcceptor {
  // The events of TLS name the TLS socket, not the one below it: both know the address of the peer.
  const accepting = new Map<string, Accepting>();
  const nameOf = (socket: Socket): string => `${socket.remoteAddress ?? ""} ${socket.remotePort ?? ""}`;
  const take = (name: string): Accepting | null => {
    const found = accepting.get(name) ?? null;
    accepting.delete(name);
    return found;
  };
  const failed = (name: string, error: Error): void => {
    const found = take(name);
    found?.handlers.failed(...failureOf(error, found.asked, keyring()));
  };
  const server = createServer({
    ...common,
    pskCallback(socket, identity) {
      const id = identity.startsWith(IDENTITY_PREFIX) ? identity.slice(IDENTITY_PREFIX.length) : "";
      const found = accepting.get(nameOf(socket));
      // What a stranger says is not repeated in the log.
      if (found !== undefined) found.asked = /^[0-9a-f]{8}$/.test(id) ? id : "of an unknown kind";
      const key = keyring().find(id);
      return key === null ? null : tlsKeyOf(key);
    },
  });
  server.on("tlsClientError", (error, socket) => failed(nameOf(socket), error));
  server.on("secureConnection", (socket) => {
    const found = take(nameOf(socket));
    const connection = secured(socket, found === null ? null : keyring().find(found.asked ?? ""));
    if (found !== null && connection !== null) return found.handlers.secured(connection);
    socket.destroy();
    found?.handlers.failed("no key: the peer agreed to TLS without a cluster key", true, false);
  });
  return {
    accept(raw, handlers) {
      const name = nameOf(raw);
      const mine: Accepting = { handlers, asked: null };
      accepting.set(name, mine);
      // Its port may be another connection's by the time that this one's end is told.
      raw.once("close", () => {
        if (accepting.get(name) === mine) failed(name, new Error(CLOSED));
      });
      server.emit("connection", raw);
    },
  };
}
