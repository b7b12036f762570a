/**
 * One connection for each pair of nodes, in TLS (tls/secure-connection.ts). The node with the lower nodeid connects, the other accepts, so that two
 * connections never cross; it tries again and again, at once when the peer was discovered. The driver of each end
 * says so now and then when nothing else is said, and a peer that is silent for the time-out is connected to anew, or for four while its heartbeats go on: after
 * a partition that is faster than waiting for TCP to repeat itself.
 *
 * What strangers can do here: each may have a few connections for two seconds, and is counted. A nodeid that is in use, by a dlmd that
 * was heard lately, is not given to another one.
 */
import { type Server, type Socket, createServer } from "node:net";
import { OperatingError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import { startListening } from "../base/listening.ts";
import type { Metrics } from "../base/metric.ts";
import type { NodeConfig } from "../config/votes.ts";
import type { Seen } from "../wire/look.ts";
import type { PeerMessage } from "../wire/peer.ts";
import { encodeCheckNews } from "../wire/self-check.ts";
import type { ViewId } from "../wire/view-id.ts";
import { type ConfigOffer, type Identity, type Role, createHandshake } from "./handshake.ts";
import type { Keyring } from "../tls/keyring.ts";
import { createLimitedWarn } from "../base/log-limiter.ts";
import { PeerConnection } from "./peer-connection.ts";
import { PeerDialer } from "./peer-dialer.ts";
import type { CheckAsker } from "./self-check.ts";
import { type SecureConnection, createSecureAcceptor, secureInitiator } from "../tls/secure-connection.ts";
import { HANDSHAKE_TIMEOUT_MS, UnprovedConnections } from "../tls/unproved.ts";

const LOG_INTERVAL_MS = 10_000;
/** Time-outs after which the connection to a peer is taken for broken although its heartbeats are heard: its main thread may be busy. */
const SILENT_SHARE = 4;
/** A peer that said nothing for that part of the time-out may have been restarted without its connection ending. */
const TAKEN_SHARE = 0.5;

export interface PeerNetworkOptions {
  readonly keyring: Keyring;
  /** Of now: configuration and counter go on. */
  readonly identity: () => Identity;
  /** The text of the configuration, for peers that have an older one. */
  readonly configOffer: () => ConfigOffer | null;
  /** What this node sees, for a program with the key that asks. */
  readonly look?: () => Seen | null;
  /** Of this machine, for a program with the key that asks; the function that is given back is called when its connection ends. Absent: it is refused. */
  readonly check?: (limitMs: number, asker: CheckAsker) => () => void;
  readonly self: NodeConfig;
  readonly nodes: readonly NodeConfig[];
  readonly port: number;
  readonly timeoutMs: number;
  /** That node's heartbeats are heard, which do not come on the connection. */
  readonly heardLately?: (nodeid: number) => boolean;
  /** Fresh random bytes for a handshake. */
  readonly drawNonce: () => Uint8Array;
  readonly nowMs: () => number;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly up: (peer: Identity) => void;
  /** A connection to or from the address of that node came to nothing. */
  readonly refused: (nodeid: number, reason: string) => void;
  /** `unreadable`: it sent what cannot be read, and why not; null: the connection ended otherwise. */
  readonly down: (nodeid: number, incarnation: string, unreadable: string | null) => void;
  readonly frame: (nodeid: number, view: ViewId, messages: readonly PeerMessage[]) => void;
  /** After the frames of one read: a moment to flush. */
  readonly read?: () => void;
  /** A frame of the configuration's channel; valid during the call. */
  readonly config: (nodeid: number, body: Uint8Array) => void;
  /** A peer refused us because our configuration is older, and gave us its own. */
  readonly offered: (offer: ConfigOffer) => void;
}

export interface PeerNetwork {
  /** Gathers messages to that peer; none if it is not connected. */
  send(nodeid: number, view: ViewId, messages: readonly PeerMessage[]): void;
  /** At once; nothing if it is not connected. */
  sendConfig(nodeid: number, body: Uint8Array): void;
  flush(): void;
  setPaused(nodeid: number, paused: boolean): void;
  isConnected(nodeid: number): boolean;
  /** That node was heard: connect now, if it is for us to connect. */
  hurry(nodeid: number): void;
  /** Other keys: connections whose peers have proved none of them end. */
  setKeyring(keyring: Keyring): void;
  /** Other nodes: connections to those that are not among them end. */
  setNodes(nodes: readonly NodeConfig[]): void;
  /**
   * Another configuration is in force: connections to other nodes than those are made anew. One that has an older one is told of ours when it connects, and
   * at no other time, and could come into no view (hazard C8).
   */
  renew(members: readonly number[]): void;
  /** Closes everything; `down` is not called. */
  close(): Promise<void>;
}

async function listen(server: Server, address: string, port: number, failed: (error: Error) => void): Promise<void> {
  try {
    await startListening(server, (listening) => server.listen(port, address, listening), failed);
  } catch (error) {
    throw new OperatingError(`dlmd cannot listen on ${address} port ${port}: ${(error as Error).message}`, {
      code: "cannot-listen",
      hint: "Check that the node's address in cluster.yaml is one of this machine, and that no other dlmd runs there.",
      cause: error,
    });
  }
}

const renewed = "another configuration came into force";

class TlsPeerNetwork implements PeerNetwork {
  readonly #options: PeerNetworkOptions;
  readonly #warn: ReturnType<typeof createLimitedWarn>;
  readonly #connections = new Map<number, PeerConnection>();
  readonly #unproved: UnprovedConnections;
  readonly #shaking = new Set<PeerConnection>();
  readonly #dirty = new Set<PeerConnection>();
  readonly #dialers = new Map<number, PeerDialer>();
  readonly #acceptor = createSecureAcceptor(() => this.#keyring);
  readonly #server: Server;
  #nodes: readonly NodeConfig[] = [];
  #keyring: Keyring;
  #pings: NodeJS.Timeout | null = null;
  #pingedMs = 0;
  #over = false;

  constructor(options: PeerNetworkOptions) {
    this.#options = options;
    this.#keyring = options.keyring;
    this.#warn = createLimitedWarn(options.log, LOG_INTERVAL_MS, options.nowMs);
    this.#unproved = new UnprovedConnections({
      isNode: (address) => this.#nodes.some((node) => node.address === address),
    });
    this.#server = createServer((socket) => this.#begin(socket, "acceptor", null, () => {}));
  }

  async start(): Promise<void> {
    const { self, port, nodes, timeoutMs, nowMs } = this.#options;
    this.#pingedMs = nowMs();
    await listen(this.#server, self.address, port, (error) =>
      this.#warn("accept", { error: error.message }, "a peer's connection could not be taken"),
    );
    this.setNodes(nodes);
    this.#pings = setInterval(() => this.#pingAll(), timeoutMs / 4);
  }

  #pingAll(): void {
    const { timeoutMs, heardLately, nowMs } = this.#options;
    // This thread was busy for long: what peers said meanwhile is not read yet.
    const late = nowMs() - this.#pingedMs > timeoutMs / 2;
    this.#pingedMs = nowMs();
    for (const [nodeid, connection] of this.#connections) {
      const silentMs = (heardLately?.(nodeid) === true ? SILENT_SHARE : 1) * timeoutMs;
      if (!late && connection.silentMs() > silentMs) connection.close(`silent for ${silentMs} ms`);
      else connection.ping();
    }
  }

  // ------------------------------------------------------------------------------------------ becoming a connection

  /** From a TCP connection to one that is secure; `ended` is called once, when all is over. */
  #begin(raw: Socket, role: Role, expectedNodeid: number | null, ended: () => void): void {
    const address = raw.remoteAddress ?? "?";
    // What went wrong is told by TLS or by the end of the socket.
    raw.on("error", () => undefined);
    raw.once("close", ended);
    if (role === "acceptor" && (this.#over || !this.#unproved.makeRoom(address))) {
      this.#options.metrics.count("peers_too_many_unproved");
      this.#warn("unproved", { address }, "too many connections without a handshake: closed");
      raw.resetAndDestroy();
      return;
    }
    let late = false;
    const ends = (reason: string): void => {
      late = true;
      this.#refused(address, reason);
    };
    const proved = role === "acceptor" ? this.#unproved.add(raw, address, ends) : this.#unproved.addOwn(raw, ends);
    const handlers = {
      secured: (secure: SecureConnection) => this.#shake(secure, role, expectedNodeid, address, proved),
      failed: (reason: string) => {
        raw.destroy();
        if (!this.#over && !late) this.#refused(address, reason);
      },
    };
    if (role === "initiator") secureInitiator(raw, this.#keyring, handlers);
    else this.#acceptor.accept(raw, handlers);
  }

  #refused(address: string, reason: string): void {
    this.#options.metrics.count("peers_refused");
    this.#warn(this.#unproved.refusalKey(address, reason), { address, reason }, "peer refused");
    const node = this.#nodes.find((each) => each.address === address);
    if (node !== undefined) this.#options.refused(node.nodeid, reason);
  }

  #shake(secure: SecureConnection, role: Role, expectedNodeid: number | null, address: string, proved: () => void): void {
    const { identity, configOffer, look, check, drawNonce, nowMs, metrics } = this.#options;
    if (this.#over) return void secure.socket.destroy();
    const handshake = createHandshake({
      key: secure.key,
      binding: secure.binding,
      self: identity(),
      nonce: drawNonce(),
      role,
      expectedNodeid,
      isKnownNode: (nodeid) => this.#nodes.some((node) => node.nodeid === nodeid),
      objection: (peer) => this.#objection(peer, role),
      offer: configOffer,
      look,
      mayCheck: check !== undefined,
    });
    let leave = (): void => undefined;
    const connection = new PeerConnection({
      secure,
      role,
      keyring: this.#keyring,
      handshake,
      nowMs,
      handlers: {
        established: (_, peer) => {
          proved();
          this.#established(connection, peer);
        },
        refused: (reason, offer) => {
          this.#refused(address, reason);
          if (offer !== null) this.#options.offered(offer);
        },
        asked: (_, limitMs) => {
          // TLS has proved the key, and those that wait for a check have a limit of their own (self-check.ts).
          proved();
          leave = check?.(limitMs, (news) => connection.say(encodeCheckNews(news), news.kind !== "going")) ?? leave;
        },
        frame: (_, view, messages) => {
          metrics.count("peer_frames_received");
          this.#options.frame(connection.nodeid as number, view, messages);
        },
        read: () => this.#options.read?.(),
        config: (_, body) => this.#options.config(connection.nodeid as number, body),
        closed: (_, reason, unreadable) => {
          leave();
          this.#closed(connection, reason, unreadable);
        },
      },
    });
    this.#shaking.add(connection);
  }

  #objection(peer: Identity, role: Role): string | null {
    const { self, timeoutMs } = this.#options;
    if (role === "acceptor" && peer.nodeid > self.nodeid) return `the lower nodeid connects: ${self.nodeid}, not ${peer.nodeid}`;
    const known = this.#connections.get(peer.nodeid);
    if (known === undefined || known.incarnation === peer.incarnation) return null;
    const silentMs = known.silentMs();
    if (silentMs >= timeoutMs * TAKEN_SHARE) return null;
    return `nodeid ${peer.nodeid} is taken: its dlmd (incarnation ${known.incarnation}) was heard ${Math.round(silentMs)} ms ago by node ${self.nodeid}, and another one (incarnation ${peer.incarnation}) came`;
  }

  #established(connection: PeerConnection, peer: Identity): void {
    this.#shaking.delete(connection);
    if (peer.configVersion !== this.#options.identity().configVersion) return connection.close(renewed);
    this.#connections.get(peer.nodeid)?.close("replaced by a new connection");
    this.#connections.set(peer.nodeid, connection);
    this.#dialers.get(peer.nodeid)?.established();
    // They may have changed during the handshake.
    connection.setKeyring(this.#keyring);
    if (this.#connections.get(peer.nodeid) !== connection) return;
    this.#options.log.info({ nodeid: peer.nodeid, incarnation: peer.incarnation }, "peer connected");
    this.#options.up(peer);
  }

  #closed(connection: PeerConnection, reason: string, unreadable: boolean): void {
    this.#shaking.delete(connection);
    this.#dirty.delete(connection);
    const { nodeid } = connection;
    if (this.#over || nodeid === null || this.#connections.get(nodeid) !== connection) return;
    this.#connections.delete(nodeid);
    this.#options.metrics.count("peer_disconnects");
    // It will send that again on the next connection, which is not to come at once (hazard H13).
    this.#dialers.get(nodeid)?.ended(unreadable);
    if (unreadable) {
      this.#options.metrics.count("peer_unreadable");
      this.#warn(`unreadable ${nodeid}`, { nodeid, reason }, "peer disconnected: it sent what cannot be read");
    } else {
      this.#options.log.warn({ nodeid, reason }, "peer disconnected");
    }
    this.#options.down(nodeid, connection.incarnation, unreadable ? reason : null);
  }

  // ------------------------------------------------------------------------------------------------------- the seam

  setNodes(nodes: readonly NodeConfig[]): void {
    const { self, port, timeoutMs, nowMs, log } = this.#options;
    const before = new Map(this.#nodes.map((node) => [node.nodeid, node.address]));
    this.#nodes = nodes;
    for (const [nodeid, address] of before) {
      if (nodes.some((node) => node.nodeid === nodeid && node.address === address)) continue;
      this.#dialers.get(nodeid)?.close();
      this.#dialers.delete(nodeid);
      this.#connections.get(nodeid)?.close(`node ${nodeid} is not in the configuration any more`);
    }
    for (const node of nodes) {
      const { nodeid } = node;
      if (nodeid <= self.nodeid || this.#dialers.has(nodeid)) continue;
      const dialer = new PeerDialer({
        node,
        port,
        localAddress: self.address,
        timeoutMs: HANDSHAKE_TIMEOUT_MS,
        lastingMs: timeoutMs,
        nowMs,
        isConnected: () => this.#connections.has(nodeid),
        connected: (socket, ended) => this.#begin(socket, "initiator", nodeid, ended),
        unreached: (error) => log.debug({ nodeid, error: error.message }, "peer not reached"),
      });
      this.#dialers.set(nodeid, dialer);
    }
  }

  renew(members: readonly number[]): void {
    for (const [nodeid, connection] of this.#connections) if (!members.includes(nodeid)) connection.close(renewed);
  }

  setKeyring(keyring: Keyring): void {
    this.#keyring = keyring;
    for (const connection of this.#connections.values()) connection.setKeyring(keyring);
  }

  send(nodeid: number, view: ViewId, messages: readonly PeerMessage[]): void {
    const connection = this.#connections.get(nodeid);
    if (connection === undefined) return;
    connection.send(view, messages);
    this.#dirty.add(connection);
  }

  sendConfig(nodeid: number, body: Uint8Array): void {
    this.#connections.get(nodeid)?.sendConfig(body);
  }

  flush(): void {
    for (const connection of this.#dirty) connection.flush();
    this.#dirty.clear();
  }

  setPaused(nodeid: number, paused: boolean): void {
    this.#connections.get(nodeid)?.setPaused(paused);
  }

  isConnected(nodeid: number): boolean {
    return this.#connections.has(nodeid);
  }

  hurry(nodeid: number): void {
    this.#dialers.get(nodeid)?.hurry();
  }

  async close(): Promise<void> {
    this.#over = true;
    if (this.#pings !== null) clearInterval(this.#pings);
    for (const dialer of this.#dialers.values()) dialer.close();
    const stopped = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const connection of [...this.#connections.values(), ...this.#shaking]) connection.close("dlmd stops");
    this.#unproved.destroyAll();
    await stopped;
  }
}

/** Listens and begins to connect. Rejects with OperatingError "cannot-listen". */
export async function openPeerNetwork(options: PeerNetworkOptions): Promise<PeerNetwork> {
  const network = new TlsPeerNetwork(options);
  await network.start();
  return network;
}
