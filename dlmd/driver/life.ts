/**
 * One life of a node: an incarnation with its sockets, its heartbeats and its core (node-api.ts), made together and ended together. What comes from other
 * nodes is told to the host (driver.ts), which steps the core.
 */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Log } from "../base/log.ts";
import { bootId } from "../base/machine.ts";
import type { Metrics } from "../base/metric.ts";
import type { NodeConfig } from "../config/votes.ts";
import type { CorosyncEvent } from "../engine/corosync/corosync-api.ts";
import type { HeardBeat } from "../membership/heartbeater.ts";
import type { Node, NodeBoot, NodeEvent } from "../node-api.ts";
import type { Datagram } from "../wire/datagram.ts";
import type { MulticastAnswer, NodeAnswer } from "../query/answer.ts";
import { shortened } from "../wire/fence-life.ts";
import { type Seen, shownAgoMs } from "../wire/look.ts";
import type { PeerMessage } from "../wire/peer-message.ts";
import type { ViewId } from "../wire/view-id.ts";
import type { ConfigKeeper } from "./config-keeper.ts";
import { CorosyncLink } from "./corosync/link.ts";
import { type DatagramChannel, openDatagramChannel } from "./datagram-channel.ts";
import { NONCE_BYTES, PEER_PROTOCOL_VERSION } from "./handshake.ts";
import { type Heartbeats, type HeartbeatThread, startHeartbeats } from "./heartbeats.ts";
import type { Keyring } from "../tls/keyring.ts";
import { wallMs } from "./wall-clock.ts";
import { openPeerNetwork, type PeerNetwork } from "./peer-network.ts";
import type { CheckAsker } from "./self-check.ts";
import { createCounterCell, DATAGRAM_KEY_BYTES, DatagramSealer } from "./seal.ts";
import type { StoredState } from "./state-file.ts";

export interface LifeOptions {
  readonly self: NodeConfig;
  readonly config: ConfigKeeper;
  readonly keyring: Keyring;
  readonly leaseFile: string;
  readonly heartbeatThread: HeartbeatThread;
  /** As the life before has left it. */
  readonly stored: StoredState;
  readonly createNode: (boot: NodeBoot) => Node;
  /** CLOCK_BOOTTIME, milliseconds. */
  readonly nowMs: () => number;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly fatal: (error: Error) => void;
}

/** What comes from other nodes; also while the life is being made, when there is no core yet to be told. */
export interface LifeHost {
  /** `more`: others came in the same datagram. */
  datagram(message: Datagram, more: boolean): void;
  /** Of heartbeats and connections. */
  step(event: NodeEvent): void;
  frame(nodeid: number, view: ViewId, messages: readonly PeerMessage[]): void;
  /** After the frames of one read. */
  read(): void;
  /** As the query "nodes", and whether the view is quorate; null between two lives. */
  look(): { readonly nodes: readonly NodeAnswer[]; readonly quorate: boolean } | null;
  /** Of this machine: as SelfCheck.ask. */
  check(limitMs: number, asker: CheckAsker): () => void;
}

export interface Life {
  readonly incarnation: string;
  readonly node: Node;
  readonly datagrams: DatagramChannel;
  readonly heartbeats: Heartbeats;
  readonly peers: PeerNetwork;
  /** null: the builtin engine needs none. */
  readonly corosync: CorosyncLink | null;
  /** For the status; null: the cluster uses none. */
  multicast(): MulticastAnswer | null;
  /** Other nodes are in the configuration. */
  setNodes(nodes: readonly NodeConfig[]): void;
  /** Nothing is told to the host afterwards. */
  close(): Promise<void>;
}

/** What makes it another than the life before. */
interface Identity {
  readonly incarnation: string;
  readonly datagramKey: Uint8Array;
  readonly counter: BigInt64Array;
  readonly sealer: DatagramSealer;
}

function newIdentity(nodeid: number): Identity {
  const datagramKey = randomBytes(DATAGRAM_KEY_BYTES);
  const counter = createCounterCell();
  return { incarnation: randomBytes(8).toString("hex"), datagramKey, counter, sealer: new DatagramSealer(nodeid, datagramKey, counter) };
}

/** Who is heard, and who is not reached. */
class Reachability {
  /** Lower nodes, which connect to us and have not: to these we say that we are here. */
  readonly awaited = new Set<number>();
  peers: PeerNetwork | null = null;
  readonly #options: LifeOptions;
  /** When each node's last heartbeat came. */
  readonly #heardMs = new Map<number, number>();

  constructor(options: LifeOptions) {
    this.#options = options;
  }

  heard(beat: HeardBeat): void {
    this.#heardMs.set(beat.message.from, beat.heardMs);
  }

  heardLately(nodeid: number, withinMs: number): boolean {
    return this.#options.nowMs() - (this.#heardMs.get(nodeid) ?? Number.NEGATIVE_INFINITY) < withinMs;
  }

  await(): void {
    const { self, config } = this.#options;
    this.awaited.clear();
    for (const { nodeid } of config.nodes) if (nodeid < self.nodeid && this.peers?.isConnected(nodeid) !== true) this.awaited.add(nodeid);
  }
}

/** Rejects with OperatingError; nothing is open then. */
export async function beginLife(options: LifeOptions, host: LifeHost): Promise<Life> {
  const { self, config: keeper, stored, nowMs } = options;
  const { config, counted } = keeper;
  const birth = newIdentity(self.nodeid);
  const { incarnation } = birth;
  const reach = new Reachability(options);
  const datagrams = await openDatagrams(options, host, birth, reach);
  const heartbeats = await beginHeartbeats(options, host, birth, reach, datagrams);
  const peers = await openPeers(options, host, birth, reach, datagrams, heartbeats);
  reach.peers = peers;
  reach.await();
  const corosync = config.engine === "corosync" ? newCorosyncLink(options, host, () => node.programsAtWork()) : null;
  const discovery = setInterval(() => datagrams.discover([...reach.awaited]), config.timeoutMs / 10);
  datagrams.discover([...reach.awaited]);
  const node = options.createNode({
    nodeid: self.nodeid,
    incarnation,
    configVersion: counted.version,
    timeoutMs: config.timeoutMs,
    ...counted,
    ...stored,
    ...(corosync === null ? {} : { corosync: { pid: process.pid } }),
    fencedLockspaces: config.fencedLockspaces,
    programOf,
    bootId: ownBootId(),
    wallMs: wallMs(),
    seed: randomBytes(4).readUInt32LE(0),
    nowMs: nowMs(),
  });
  return {
    incarnation,
    node,
    datagrams,
    heartbeats,
    peers,
    corosync,
    multicast: () => multicastHeard(options, datagrams),
    setNodes(nodes) {
      datagrams.setNodes(nodes);
      peers.setNodes(nodes);
      heartbeats.setNodes(nodes);
      reach.await();
    },
    async close() {
      clearInterval(discovery);
      await Promise.all([corosync?.close(), peers.close(), datagrams.close(), heartbeats.close()]);
    },
  };
}

/** "": it cannot be read, so a fence is bound to the incarnation alone. */
function ownBootId(): string {
  try {
    return bootId();
  } catch {
    return "";
  }
}

/** It is opened when there is a core to be told. */
function newCorosyncLink(
  { self, config: keeper, log, fatal }: LifeOptions,
  host: LifeHost,
  programs: () => readonly string[],
): CorosyncLink {
  const { cluster } = keeper.config;
  const event = (event: CorosyncEvent): void => host.step({ kind: "corosync", event });
  return new CorosyncLink({ cluster, nodeid: self.nodeid, nodes: keeper.nodes, event, log, fatal, programs });
}

/** comm of /proc/PID: the program's name, cut at 15 bytes. */
function programOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, "utf8").trim();
  } catch {
    return ""; // It has ended.
  }
}

function openDatagrams(options: LifeOptions, host: LifeHost, { sealer }: Identity, reach: Reachability): Promise<DatagramChannel> {
  const { self, keyring, config: keeper, nowMs, log, metrics } = options;
  const { cluster, multicast, timeoutMs } = keeper.config;
  return openDatagramChannel({
    keyring,
    self,
    nodes: keeper.nodes,
    cluster,
    multicast,
    timeoutMs,
    sealer,
    nowMs,
    log,
    metrics,
    receive: (message, _, more) => host.datagram(message, more),
    sighted: (nodeid) => reach.peers?.hurry(nodeid),
  });
}

async function beginHeartbeats(
  options: LifeOptions,
  host: LifeHost,
  { incarnation, datagramKey, counter }: Identity,
  reach: Reachability,
  datagrams: DatagramChannel,
): Promise<Heartbeats> {
  const { self, keyring, config: keeper, leaseFile, heartbeatThread, nowMs, log, metrics, fatal } = options;
  const { cluster, multicast, peerPort, timeoutMs } = keeper.config;
  try {
    return await startHeartbeats({
      thread: heartbeatThread,
      self: { nodeid: self.nodeid, incarnation },
      cluster,
      nodes: keeper.nodes,
      group: multicast.group,
      port: peerPort,
      timeoutMs,
      datagramKey,
      counter,
      clusterKey: keyring.first.bytes,
      leaseFile,
      nowMs,
      log,
      metrics,
      heard: (beat) => {
        reach.heard(beat);
        host.step({ kind: "heartbeat", beat });
      },
      acksStopped: (stops) => host.step({ kind: "acks-stopped", stops }),
      heardMulticast: (nodeid) => datagrams.heardMulticast(nodeid),
      fatal,
    });
  } catch (error) {
    await datagrams.close();
    throw error;
  }
}

async function openPeers(
  options: LifeOptions,
  host: LifeHost,
  { incarnation, datagramKey, sealer }: Identity,
  reach: Reachability,
  datagrams: DatagramChannel,
  heartbeats: Heartbeats,
): Promise<PeerNetwork> {
  const { self, keyring, config: keeper, nowMs, log, metrics } = options;
  const { cluster, peerPort, timeoutMs } = keeper.config;
  try {
    return await openPeerNetwork({
      keyring,
      self,
      nodes: keeper.nodes,
      port: peerPort,
      timeoutMs,
      nowMs,
      log,
      metrics,
      identity: () => ({
        protocolVersion: PEER_PROTOCOL_VERSION,
        cluster,
        configVersion: keeper.config.version,
        configHash: keeper.hash,
        nodeid: self.nodeid,
        incarnation,
        datagramKey,
        datagramCounter: sealer.counter,
      }),
      configOffer: () => keeper.offer,
      look: () => seenBy(options, host, incarnation, datagrams),
      check: (limitMs, asker) => host.check(limitMs, asker),
      heardLately: (nodeid) => reach.heardLately(nodeid, timeoutMs),
      drawNonce: () => randomBytes(NONCE_BYTES),
      up: (peer) => {
        reach.awaited.delete(peer.nodeid);
        datagrams.confirm(peer.nodeid, peer.datagramKey, peer.datagramCounter);
        heartbeats.confirm(peer.nodeid, peer.datagramKey, peer.datagramCounter);
        host.step({ kind: "peer-up", nodeid: peer.nodeid, incarnation: peer.incarnation });
        keeper.connected(peer.nodeid);
      },
      refused: (nodeid, reason) => host.step({ kind: "peer-refused", nodeid, reason }),
      down: (nodeid, incarnation, unreadable) => {
        reach.await();
        host.step({ kind: "peer-down", nodeid, incarnation, unreadable });
      },
      frame: (nodeid, view, messages) => host.frame(nodeid, view, messages),
      read: () => host.read(),
      config: (nodeid, body) => keeper.receive(nodeid, body),
      offered: (offer) => keeper.offered(offer),
    });
  } catch (error) {
    await Promise.all([datagrams.close(), heartbeats.close()]);
    throw error;
  }
}

/** For the status. With engine: corosync nothing that counts comes this way. */
function multicastHeard({ self, config: { config, nodes } }: LifeOptions, datagrams: DatagramChannel): MulticastAnswer | null {
  const { group } = config.multicast;
  if (group === "none" || config.engine === "corosync") return null;
  const others = nodes.filter(({ nodeid }) => nodeid !== self.nodeid);
  return { group, nodes: others.map(({ nodeid }) => ({ nodeid, agoMs: shownAgoMs(datagrams.multicastAgoMs(nodeid)) })) };
}

/** What this node sees, for a program that looks at it (wire/look.ts). */
function seenBy({ self, config: keeper }: LifeOptions, host: LifeHost, incarnation: string, datagrams: DatagramChannel): Seen | null {
  const found = host.look();
  if (found === null) return null;
  return {
    nodeid: self.nodeid,
    incarnation,
    cluster: keeper.config.cluster,
    configVersion: keeper.config.version,
    configHash: keeper.hash,
    quorate: found.quorate,
    wallMs: wallMs(),
    nodes: found.nodes.map(({ nodeid, heardAgoMs, tcpUp, state, refused }) => ({
      nodeid,
      heardAgoMs: shownAgoMs(heardAgoMs),
      multicastAgoMs: shownAgoMs(datagrams.multicastAgoMs(nodeid)),
      tcpUp,
      isMember: state === "member" || state === "this",
      refused: shortened(refused ?? ""),
    })),
  };
}
