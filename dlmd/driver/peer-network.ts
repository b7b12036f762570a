/**
 * One TCP connection for each pair of nodes. The node with the lower nodeid connects, the other accepts, so that two
 * connections never cross; it tries again and again, at once when a datagram of the peer is heard. The driver of each end
 * says so now and then when nothing else is said, and a peer that is silent for the time-out is connected to anew: after
 * a partition that is faster than waiting for TCP to repeat itself.
 */
import { type Server, type Socket, createConnection, createServer } from "node:net";
import { OperatingError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metric.ts";
import type { NodeConfig } from "../config/cluster-config.ts";
import type { PeerMessage } from "../wire/peer.ts";
import type { ViewId } from "../wire/view-id.ts";
import { type Identity, createHandshake } from "./handshake.ts";
import { createLimitedWarn } from "./log-limiter.ts";
import { PeerConnection } from "./peer-connection.ts";

const FIRST_BACKOFF_MS = 50;
const MAX_BACKOFF_MS = 1000;
/** From the first SYN to the end of the handshake. */
const HANDSHAKE_TIMEOUT_MS = 2000;
/** Connections that have not proved who they are; more are closed at once. */
const MAX_UNPROVED = 64;
const LOG_INTERVAL_MS = 10_000;

export interface PeerNetworkOptions {
  readonly clusterKey: Uint8Array;
  readonly identity: Identity;
  readonly self: NodeConfig;
  readonly nodes: readonly NodeConfig[];
  readonly port: number;
  readonly timeoutMs: number;
  /** Fresh random bytes for a handshake. */
  readonly drawNonce: () => Uint8Array;
  readonly nowMs: () => number;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly up: (peer: Identity) => void;
  readonly down: (nodeid: number, incarnation: string) => void;
  readonly frame: (nodeid: number, view: ViewId, messages: readonly PeerMessage[]) => void;
}

export interface PeerNetwork {
  /** Gathers messages to that peer; none if it is not connected. */
  send(nodeid: number, view: ViewId, messages: readonly PeerMessage[]): void;
  flush(): void;
  setPaused(nodeid: number, paused: boolean): void;
  /** That node was heard: connect now, if it is for us to connect. */
  hurry(nodeid: number): void;
  /** Closes everything; `down` is not called. */
  close(): Promise<void>;
}

function listen(server: Server, address: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error) =>
      reject(
        new OperatingError(`dlmd cannot listen on ${address} port ${port}: ${error.message}`, {
          code: "cannot-listen",
          hint: "Check that the node's address in cluster.yaml is one of this machine, and that no other dlmd runs there.",
          cause: error,
        }),
      ),
    );
    server.listen(port, address, resolve);
  });
}

/** Dials one peer whenever there is no connection to it. */
interface Dialer {
  readonly node: NodeConfig;
  backoffMs: number;
  timer: NodeJS.Timeout | null;
  dialing: boolean;
  dialedAt: number;
}

/** Listens and begins to connect. Rejects with OperatingError "cannot-listen". */
export async function openPeerNetwork(options: PeerNetworkOptions): Promise<PeerNetwork> {
  const { self, identity, log, metrics, nowMs } = options;
  const known = new Set(options.nodes.map((node) => node.nodeid));
  const warn = createLimitedWarn(log, LOG_INTERVAL_MS, nowMs);
  const connections = new Map<number, PeerConnection>();
  const unproved = new Set<PeerConnection>();
  const dirty = new Set<PeerConnection>();
  const dialers = new Map<number, Dialer>();
  let over = false;

  const established = (connection: PeerConnection, peer: Identity, role: "initiator" | "acceptor"): void => {
    unproved.delete(connection);
    if (role === "acceptor" && peer.nodeid > self.nodeid) {
      warn(`role ${peer.nodeid}`, { nodeid: peer.nodeid }, "peer refused: it connected, though the lower nodeid does that");
      return connection.close("the lower nodeid connects");
    }
    connections.get(peer.nodeid)?.close("replaced by a new connection");
    connections.set(peer.nodeid, connection);
    const dialer = dialers.get(peer.nodeid);
    if (dialer !== undefined) dialer.backoffMs = FIRST_BACKOFF_MS;
    log.info({ nodeid: peer.nodeid, incarnation: peer.incarnation }, "peer connected");
    options.up(peer);
  };
  const closed = (connection: PeerConnection, reason: string): void => {
    unproved.delete(connection);
    dirty.delete(connection);
    const { nodeid } = connection;
    if (over || nodeid === null || connections.get(nodeid) !== connection) return;
    connections.delete(nodeid);
    metrics.count("peer_disconnects");
    log.warn({ nodeid, reason }, "peer disconnected");
    options.down(nodeid, connection.incarnation);
  };

  const begin = (socket: Socket, role: "initiator" | "acceptor", expectedNodeid: number | null, ended: () => void): void => {
    const address = socket.remoteAddress ?? "?";
    const handshake = createHandshake({
      clusterKey: options.clusterKey,
      self: identity,
      nonce: options.drawNonce(),
      role,
      expectedNodeid,
      isKnownNode: (nodeid) => known.has(nodeid),
    });
    const connection = new PeerConnection(socket, handshake, nowMs, {
      established: (_, peer) => {
        clearTimeout(timer);
        established(connection, peer, role);
      },
      refused(reason) {
        metrics.count("peers_refused");
        warn(`${address} ${reason}`, { address, reason }, "peer refused");
      },
      frame(_, view, messages) {
        metrics.count("peer_frames_received");
        options.frame(connection.nodeid as number, view, messages);
      },
      closed(_, reason) {
        clearTimeout(timer);
        closed(connection, reason);
        ended();
      },
    });
    unproved.add(connection);
    const timer = setTimeout(() => connection.close(`no handshake within ${HANDSHAKE_TIMEOUT_MS} ms`), HANDSHAKE_TIMEOUT_MS);
    if (unproved.size > MAX_UNPROVED) {
      warn("unproved", { address }, `more than ${MAX_UNPROVED} connections without a handshake: closed`);
      connection.close("too many connections without a handshake");
    }
  };

  const dial = (dialer: Dialer): void => {
    dialer.timer = null;
    if (over || dialer.dialing || connections.has(dialer.node.nodeid)) return;
    dialer.dialing = true;
    dialer.dialedAt = nowMs();
    const socket = createConnection({ host: dialer.node.address, port: options.port, localAddress: self.address });
    const again = (): void => {
      dialer.dialing = false;
      if (over || connections.has(dialer.node.nodeid)) return;
      dialer.timer = setTimeout(dial, dialer.backoffMs, dialer);
      dialer.backoffMs = Math.min(dialer.backoffMs * 2, MAX_BACKOFF_MS);
    };
    const timer = setTimeout(() => socket.destroy(new Error("no answer")), HANDSHAKE_TIMEOUT_MS);
    const failed = (error: Error): void => {
      clearTimeout(timer);
      log.debug({ nodeid: dialer.node.nodeid, error: error.message }, "peer not reached");
      again();
    };
    socket.once("error", failed);
    socket.once("connect", () => {
      clearTimeout(timer);
      socket.off("error", failed);
      if (over) socket.destroy();
      else begin(socket, "initiator", dialer.node.nodeid, again);
    });
  };

  const server = createServer((socket) => begin(socket, "acceptor", null, () => {}));
  await listen(server, self.address, options.port);
  server.on("error", (error) => log.error({ error: error.message }, "peer socket failed"));
  for (const node of options.nodes) {
    if (node.nodeid <= self.nodeid) continue;
    const dialer: Dialer = { node, backoffMs: FIRST_BACKOFF_MS, timer: null, dialing: false, dialedAt: 0 };
    dialers.set(node.nodeid, dialer);
    dial(dialer);
  }
  const pings = setInterval(() => {
    for (const connection of connections.values()) {
      if (connection.silentMs() > options.timeoutMs) connection.close(`silent for ${options.timeoutMs} ms`);
      else connection.ping();
    }
  }, options.timeoutMs / 4);

  return {
    send(nodeid, view, messages) {
      const connection = connections.get(nodeid);
      if (connection === undefined) return;
      connection.send(view, messages);
      dirty.add(connection);
    },
    flush() {
      for (const connection of dirty) connection.flush();
      dirty.clear();
    },
    setPaused: (nodeid, paused) => connections.get(nodeid)?.setPaused(paused),
    hurry(nodeid) {
      const dialer = dialers.get(nodeid);
      if (dialer?.timer == null || nowMs() - dialer.dialedAt < FIRST_BACKOFF_MS) return;
      clearTimeout(dialer.timer);
      dial(dialer);
    },
    async close() {
      over = true;
      clearInterval(pings);
      for (const dialer of dialers.values()) if (dialer.timer !== null) clearTimeout(dialer.timer);
      const stopped = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const connection of [...connections.values(), ...unproved]) connection.close("dlmd stops");
      await stopped;
    },
  };
}
