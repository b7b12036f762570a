/**
 * Datagrams to all nodes or to one: by multicast where the configuration names a group, and by unicast to those from
 * whom no multicast was heard lately. A network may carry multicast one way only, so a unicast to everybody goes along
 * now and then in any case. Sealed (seal.ts); what is not ours is counted, logged at most once a second, and dropped. Before a peer's
 * key is known there is only discovery (discovery.ts).
 */
import { type Socket, type SocketOptions, createSocket } from "node:dgram";
import { OperatingError, WireError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metric.ts";
import type { NodeConfig } from "../config/votes.ts";
import { decodeUnsealed } from "../wire/bundle.ts";
import { type Datagram, decodeDatagram, encodeDatagram } from "../wire/datagram.ts";
import { DatagramBundler, type Destination } from "./datagram-bundler.ts";
import { openDiscovery, sealDiscovery } from "./discovery.ts";
import type { Keyring } from "../tls/keyring.ts";
import { createLimitedWarn } from "../base/log-limiter.ts";
import { DatagramOpener, type DatagramSealer } from "./seal.ts";

const LOG_INTERVAL_MS = 1000;
/** Of socket buffers; the kernel gives what net.core.rmem_max and wmem_max allow. What does not fit is lost, and asked for again. */
const SOCKET_BYTES = 4 * 1024 * 1024;
/** Addresses are numbers already. Asked in the usual way, each datagram would wait for the next turn of the event loop. */
const lookup: NonNullable<SocketOptions["lookup"]> = (address, _, callback) => callback(null, address, 4);
/** What the kernel does not take at once waits in this process, in so many bytes at most; more is lost, counted, and asked for again. */
export const MAX_QUEUED_BYTES: number = 8 * 1024 * 1024;
/** Discovery that is looked into in a second, because each costs a key derivation; more is dropped and counted. */
export const MAX_DISCOVERY_PER_SECOND = 200;

export interface DatagramChannelOptions {
  readonly keyring: Keyring;
  readonly cluster: string;
  readonly self: NodeConfig;
  readonly nodes: readonly NodeConfig[];
  readonly multicast: { readonly group: string; readonly port: number };
  readonly timeoutMs: number;
  /** Of this incarnation. */
  readonly sealer: DatagramSealer;
  readonly nowMs: () => number;
  readonly log: Log;
  readonly metrics: Metrics;
  /** `more`: of the same datagram, at once. */
  readonly receive: (message: Datagram, viaMulticast: boolean, more: boolean) => void;
  /** That node says that it is there: try to connect, if there is no connection. */
  readonly sighted: (nodeid: number) => void;
  /** For tests: sockets that fail. */
  readonly openSocket?: typeof createSocket;
}

export interface DatagramChannel {
  /** To all configured nodes, to some of them, or to one. Leaves with the next `flush` at the latest. */
  gather(to: Destination, message: Datagram): void;
  flush(): void;
  /** The same, at once. */
  send(to: Destination, message: Datagram): void;
  /** Does now what the next datagram, to send or to receive, would have to wait for. Only for who sends often. */
  prepare(): void;
  /** That node gave us the key of its datagrams, in a handshake; `counter`: the last that it had used. */
  confirm(nodeid: number, key: Uint8Array, counter: number): void;
  /** Multicast of that node arrives on another socket of this one's, so that unicast to it is not needed here either. */
  heardMulticast(nodeid: number): void;
  /** Since the last multicast of that node, on any socket of this one's, in ms; null: none was heard. */
  multicastAgoMs(nodeid: number): number | null;
  /** Says "I am here" to those nodes. */
  discover(nodeids: readonly number[]): void;
  setKeyring(keyring: Keyring): void;
  setNodes(nodes: readonly NodeConfig[]): void;
  close(): Promise<void>;
}

/** `failed` hears each error of the socket after it is bound. */
function bind(socket: Socket, address: string, port: number, failed: (error: Error) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    let state: "binding" | "bound" | "failed" = "binding";
    socket.on("error", (error) => {
      if (state === "bound") return failed(error);
      if (state === "binding") socket.close();
      state = "failed";
      reject(
        new OperatingError(`datagrams cannot be received on ${address} port ${port}: ${error.message}`, {
          code: "cannot-listen",
          hint: "Check that the node's address in cluster.yaml is one of this machine, and that no other dlmd runs there.",
          cause: error,
        }),
      );
    });
    socket.bind({ address, port, exclusive: true }, () => {
      state = "bound";
      resolve();
    });
  });
}

function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.close(() => resolve()));
}

async function openMulticast(options: DatagramChannelOptions, failed: (error: Error) => void): Promise<Socket | null> {
  const { multicast, self, openSocket = createSocket } = options;
  if (multicast.group === "none") return null;
  const socket = openSocket({ type: "udp4", reuseAddr: true, recvBufferSize: SOCKET_BYTES, lookup });
  await bind(socket, multicast.group, multicast.port, failed);
  try {
    socket.addMembership(multicast.group, self.address);
  } catch (error) {
    await closed(socket);
    throw new OperatingError(`the multicast group ${multicast.group} cannot be joined on ${self.address}: ${(error as Error).message}`, {
      code: "no-multicast",
      hint: "Check the interface of that address, or set multicast group: none in cluster.yaml on every node.",
      cause: error,
    });
  }
  return socket;
}

/** Binds the sockets. Rejects with OperatingError ("cannot-listen", "no-multicast"). */
export async function openDatagramChannel(options: DatagramChannelOptions): Promise<DatagramChannel> {
  const { cluster, self, multicast, metrics, nowMs, sealer, openSocket = createSocket } = options;
  let { keyring } = options;
  let peers = options.nodes.filter((node) => node.nodeid !== self.nodeid);
  const warn = createLimitedWarn(options.log, LOG_INTERVAL_MS, nowMs);
  const nodeidsOf = (nodes: readonly NodeConfig[]): number[] => nodes.map((node) => node.nodeid);
  const opener = new DatagramOpener(self.nodeid, nodeidsOf(options.nodes));
  let discoverySince = Number.NEGATIVE_INFINITY;
  let discoveries = 0;
  const freshMs = options.timeoutMs / 3;
  const multicastHeardAt = new Map<number, number>();
  let unicastToAllAt = Number.NEGATIVE_INFINITY;
  let over = false;

  const unicast = openSocket({ type: "udp4", recvBufferSize: SOCKET_BYTES, sendBufferSize: SOCKET_BYTES, lookup });
  const failed = (error: Error): void => warn("socket", { error: error.message }, "datagram socket failed");
  await bind(unicast, self.address, multicast.port, failed);
  let group: Socket | null;
  try {
    group = await openMulticast(options, failed);
    if (group !== null) {
      unicast.setMulticastInterface(self.address);
      // Who is on this machine too hears none of it, so is sent unicast; to hear oneself costs as much as to be heard.
      unicast.setMulticastLoopback(false);
    }
  } catch (error) {
    await closed(unicast);
    throw error;
  }

  const drop = (reason: string, address: string): void => {
    metrics.count(`datagrams_dropped_${reason.replaceAll("-", "_")}`);
    warn(reason, { reason, address }, "datagram dropped");
  };
  const discovered = (datagram: Uint8Array, address: string): void => {
    const now = nowMs();
    if (now - discoverySince >= 1000) {
      discoverySince = now;
      discoveries = 0;
    }
    if (++discoveries > MAX_DISCOVERY_PER_SECOND) return drop("too-many-discoveries", address);
    const found = openDiscovery(keyring, cluster, datagram);
    if (found.kind === "dropped") return drop(found.reason, address);
    metrics.count("datagrams_discovery");
    options.sighted(found.nodeid);
  };
  const receive = (datagram: Uint8Array, address: string, viaMulticast: boolean): void => {
    if (over) return;
    const opened = opener.open(datagram);
    if (opened.kind === "own") return;
    if (opened.kind === "discovery") return discovered(datagram, address);
    // Of a node that is restarting, or before its handshake: usual, and no news.
    if (opened.kind === "dropped" && opened.reason === "unknown-key") return metrics.count("datagrams_dropped_unknown_key");
    if (opened.kind === "dropped") return drop(opened.reason, address);
    let messages: readonly Datagram[];
    try {
      const unsealed = decodeUnsealed(opened.body);
      if (unsealed.kind === "probe") return bundler.probe(opened.nodeid);
      if (unsealed.kind === "probed") return bundler.probed(opened.nodeid);
      messages = unsealed.bodies.map(decodeDatagram);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      return drop("undecodable", `${address}: ${error.message}`);
    }
    if (messages.some(({ from }) => from !== opened.nodeid)) return drop("other-sender", address);
    if (viaMulticast) multicastHeardAt.set(opened.nodeid, nowMs());
    metrics.count("datagrams_received");
    let left = messages.length;
    for (const message of messages) if (!over) options.receive(message, viaMulticast, --left > 0);
  };

  // A datagram may be lost on any network: what the kernel refuses to send, or does not take in time, is counted as lost here.
  const unsent = (address: string, error: string): void => {
    metrics.count("datagrams_unsent");
    warn(`send ${address}`, { address, error }, "datagram could not be sent");
  };
  const send = (bytes: Uint8Array, address: string): void => {
    if (unicast.getSendQueueSize() > MAX_QUEUED_BYTES) return unsent(address, `more than ${MAX_QUEUED_BYTES} bytes wait to be sent`);
    metrics.count("datagrams_sent");
    unicast.send(bytes, multicast.port, address, (error) => {
      if (error !== null && !over) unsent(address, error.message);
    });
  };
  const sendAll = (body: Uint8Array, wanted: readonly NodeConfig[]): void => {
    if (group !== null) send(sealer.seal(body), multicast.group);
    const now = nowMs();
    const everybody = wanted === peers && now - unicastToAllAt >= freshMs;
    if (everybody) unicastToAllAt = now;
    const deaf = wanted.filter(({ nodeid }) => everybody || now - (multicastHeardAt.get(nodeid) ?? Number.NEGATIVE_INFINITY) >= freshMs);
    if (deaf.length === 0) return;
    const sealed = sealer.seal(body);
    for (const { address } of deaf) send(sealed, address);
  };

  const peersOf = (to: Destination): readonly NodeConfig[] => {
    if (to === "all") return peers;
    return peers.filter(({ nodeid }) => (typeof to === "number" ? to === nodeid : to.includes(nodeid)));
  };
  const transmit = (to: Destination, body: Uint8Array): void => {
    const wanted = peersOf(to);
    if (typeof to !== "number") return sendAll(body, wanted);
    for (const { address } of wanted) send(sealer.seal(body), address);
  };
  const bundler = new DatagramBundler({ nowMs, transmit, nodeids: (to) => nodeidsOf(peersOf(to)) }, options.timeoutMs);

  unicast.on("message", (datagram, from) => receive(datagram, from.address, false));
  group?.on("message", (datagram, from) => receive(datagram, from.address, true));

  const gather = (to: Destination, message: Datagram): void => {
    if (!over) bundler.gather(to, encodeDatagram(message));
  };
  const flush = (): void => {
    if (!over) bundler.flush();
  };

  return {
    gather,
    flush,
    send(to, message) {
      gather(to, message);
      flush();
    },
    prepare() {
      sealer.prepare();
      opener.prepare();
    },
    confirm: (nodeid, key, counter) => opener.confirm(nodeid, key, counter),
    heardMulticast: (nodeid) => void multicastHeardAt.set(nodeid, nowMs()),
    multicastAgoMs(nodeid) {
      const heardAt = multicastHeardAt.get(nodeid);
      return heardAt === undefined ? null : nowMs() - heardAt;
    },
    discover(nodeids) {
      if (over) return;
      const wanted = peers.filter(({ nodeid }) => nodeids.includes(nodeid));
      if (wanted.length === 0) return;
      if (group !== null) send(sealDiscovery(keyring, cluster, self.nodeid), multicast.group);
      const sealed = sealDiscovery(keyring, cluster, self.nodeid);
      for (const { address } of wanted) send(sealed, address);
    },
    setKeyring(now) {
      keyring = now;
    },
    setNodes(nodes) {
      peers = nodes.filter((node) => node.nodeid !== self.nodeid);
      opener.setNodes(nodeidsOf(nodes));
    },
    async close() {
      over = true;
      await Promise.all([closed(unicast), group === null ? null : closed(group)]);
    },
  };
}
