/** Timers and limits between two dlmds on the wire: the clock is the test's, and so is the other side. */
import { randomBytes } from "node:crypto";
import { createSocket, type Socket as UdpSocket, type SocketOptions } from "node:dgram";
import { createConnection } from "node:net";
import { Duplex } from "node:stream";
import type { TLSSocket } from "node:tls";
import { afterEach, describe, expect, test, vi } from "vitest";
import type { Log } from "../../../dlmd/base/log.ts";
import { type Metrics, createMetrics } from "../../../dlmd/base/metric.ts";
import type { NodeConfig } from "../../../dlmd/config/votes.ts";
import { type DatagramChannel, openDatagramChannel } from "../../../dlmd/driver/datagram-channel.ts";
import { sealDiscovery } from "../../../dlmd/driver/discovery.ts";
import type { HandshakeStep, Identity } from "../../../dlmd/driver/handshake.ts";
import { PeerConnection } from "../../../dlmd/driver/peer-connection.ts";
import { PeerDialer } from "../../../dlmd/driver/peer-dialer.ts";
import { openPeerNetwork } from "../../../dlmd/driver/peer-network.ts";
import { DatagramSealer } from "../../../dlmd/driver/seal.ts";
import { createKeyring } from "../../../dlmd/tls/keyring.ts";

const nodes: readonly NodeConfig[] = [1, 2].map((nodeid) => ({ nodeid, name: `node${nodeid}`, address: `127.76.0.${nodeid}`, votes: 1 }));
const [one, two] = nodes as [NodeConfig, NodeConfig];
const port = 41_000 + (process.pid % 20_000);
const keyring = createKeyring([Buffer.alloc(32, 7)]);
const identity: Identity = {
  protocolVersion: 2,
  cluster: "lab",
  configVersion: 1,
  configHash: Buffer.alloc(32),
  nodeid: 2,
  incarnation: "life-2",
  datagramKey: Buffer.alloc(32, 2),
  datagramCounter: 0,
};

const closers: (() => unknown)[] = [];
let waiting: (() => void)[] = [];
afterEach(async () => {
  vi.useRealTimers();
  waiting = [];
  for (const close of closers.splice(0)) await close();
});
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise<void>((resolve) => waiting.push(resolve));
}
function happened(): void {
  for (const resolve of waiting.splice(0)) resolve();
}
/** Counters that wake `until`. */
function countingMetrics(): { metrics: Metrics; of: (name: string) => number } {
  const counters = createMetrics();
  const count: Metrics["count"] = (name, by) => {
    counters.count(name, by);
    happened();
  };
  return { metrics: { ...counters, count }, of: (name) => counters.snapshot()[name] ?? 0 };
}
const logInto = (said: string[]): Log => ({ debug() {}, info() {}, warn: (_, message) => said.push(message), error() {} });

test("a peer that is not there is dialled again after 50 ms, then after pauses that double up to one second", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] });
  let failures = 0;
  const dialer = new PeerDialer({
    node: two,
    port: 1,
    localAddress: one.address,
    timeoutMs: 1e9,
    lastingMs: 1000,
    nowMs: () => 0,
    isConnected: () => false,
    connected: () => undefined,
    unreached() {
      failures++;
      // The same turn sets the timer of the next attempt.
      setImmediate(happened);
    },
  });
  closers.push(() => dialer.close());
  const pauses: number[] = [];
  for (let attempt = 1; attempt <= 8; attempt++) {
    await until(() => failures === attempt && vi.getTimerCount() === 1);
    const before = Date.now();
    vi.advanceTimersToNextTimer();
    pauses.push(Date.now() - before);
  }
  expect(pauses).toEqual([50, 100, 200, 400, 800, 1000, 1000, 1000]);
});

describe("a connection whose other end is the test", () => {
  /** A socket on which nothing is sent for real; its other end never closes. */
  function connectionOf(step: HandshakeStep): {
    connection: PeerConnection;
    socket: Duplex;
    closed: string[];
    frames: () => number;
    say: (...parts: Uint8Array[]) => void;
  } {
    const socket = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done(), final() {} });
    const closed: string[] = [];
    let frames = 0;
    const connection = new PeerConnection({
      secure: { socket: Object.assign(socket, { setNoDelay() {} }) as unknown as TLSSocket, key: keyring.first, binding: Buffer.alloc(32) },
      role: "acceptor",
      keyring,
      handshake: { hello: Buffer.alloc(1), receive: () => step },
      nowMs: () => 0,
      handlers: {
        established: () => {},
        refused: () => {},
        asked: () => {},
        frame: () => {},
        read: () => {},
        config: () => void frames++,
        closed: (_, reason) => void closed.push(reason),
      },
    });
    const say = (...parts: Uint8Array[]): void => {
      const body = Buffer.concat(parts);
      const head = Buffer.alloc(4);
      head.writeUInt32LE(body.length);
      socket.emit("data", Buffer.concat([head, body]));
    };
    say(Buffer.of(1));
    return { connection, socket, closed, frames: () => frames, say };
  }
  const done: HandshakeStep = { kind: "done", peer: identity };
  const [keysChannel, configChannel] = [Buffer.of(1), Buffer.of(2)];

  test("16 proofs of keys in one frame are looked at; 17 end the connection", () => {
    const { closed, say } = connectionOf(done);
    say(keysChannel, randomBytes(16 * 36));
    expect(closed).toEqual([]);
    say(keysChannel, randomBytes(17 * 36));
    expect(closed).toEqual(["612 bytes of key proofs"]);
  });

  test("a frame of 4 MiB is taken; a longer one ends the connection before it is read", () => {
    const bytes = 4 * 1024 * 1024;
    const { closed, socket, frames, say } = connectionOf(done);
    say(configChannel, new Uint8Array(bytes));
    expect([frames(), closed]).toEqual([1, []]);
    const head = Buffer.alloc(4);
    head.writeUInt32LE(bytes + 2);
    socket.emit("data", head);
    expect([frames(), closed]).toEqual([1, [`frame of ${bytes + 2} bytes, at most ${bytes + 1} allowed`]]);
  });

  test("one that was refused has a second to read why, then it is destroyed", () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const { closed, socket } = connectionOf({ kind: "refused", send: Buffer.from("no"), reason: "unknown node", offer: null });
    expect([closed, socket.writableEnded]).toEqual([["unknown node"], true]);
    vi.advanceTimersByTime(999);
    expect(socket.destroyed).toBe(false);
    vi.advanceTimersByTime(1);
    expect(socket.destroyed).toBe(true);
  });
});

test("the same refusal is logged again after ten seconds, not before", async () => {
  const said: string[] = [];
  const { metrics, of } = countingMetrics();
  let nowMs = 0;
  const network = await openPeerNetwork({
    keyring,
    identity: () => identity,
    configOffer: () => null,
    self: two,
    nodes: [two],
    port,
    timeoutMs: 60_000,
    drawNonce: () => randomBytes(32),
    nowMs: () => nowMs,
    log: logInto(said),
    metrics,
    up() {},
    refused() {},
    down() {},
    frame() {},
    config() {},
    offered() {},
  });
  closers.push(() => network.close());
  const logged = async (atMs: number, refusals: number): Promise<number> => {
    nowMs = atMs;
    const socket = createConnection({ host: two.address, port });
    socket.on("error", () => undefined);
    socket.write(Buffer.alloc(64, 0x41));
    await until(() => of("peers_refused") === refusals);
    socket.destroy();
    return said.length;
  };
  expect([await logged(0, 1), await logged(9999, 2), await logged(10_000, 3)]).toEqual([1, 1, 2]);
});

describe("the datagram channel", () => {
  async function channel(queuedBytes: () => number = () => 0): Promise<{
    opened: DatagramChannel;
    clock: { nowMs: number };
    sighted: number[];
    said: string[];
    of: (name: string) => number;
    send: (datagram: Uint8Array, count: number) => void;
  }> {
    const clock = { nowMs: 0 };
    const sighted: number[] = [];
    const said: string[] = [];
    const { metrics, of } = countingMetrics();
    const opened = await openDatagramChannel({
      keyring,
      cluster: "lab",
      self: two,
      nodes,
      multicast: { group: "none", port },
      timeoutMs: 3000,
      sealer: new DatagramSealer(2, randomBytes(32)),
      nowMs: () => clock.nowMs,
      log: logInto(said),
      metrics,
      receive() {},
      sighted: (nodeid) => void sighted.push(nodeid),
      openSocket: ((options: SocketOptions): UdpSocket =>
        Object.assign(createSocket(options), { getSendQueueSize: queuedBytes })) as typeof createSocket,
    });
    const stranger = createSocket("udp4");
    closers.push(() => opened.close());
    closers.push(() => stranger.close());
    const send = (datagram: Uint8Array, count: number): void => {
      for (let sent = 0; sent < count; sent++) stranger.send(datagram, port, two.address);
    };
    return { opened, clock, sighted, said, of, send };
  }

  test("looks into 200 discoveries a second, drops and counts the rest", async () => {
    const { clock, sighted, of, send } = await channel();
    const discovery = sealDiscovery(keyring, "lab", 1);
    // In parts, so that the kernel loses none.
    for (let part = 1; part <= 4; part++) {
      send(discovery, 50);
      await until(() => of("datagrams_discovery") === 50 * part);
    }
    expect([sighted.length, of("datagrams_dropped_too_many_discoveries")]).toEqual([200, 0]);
    clock.nowMs = 999;
    send(discovery, 5);
    await until(() => of("datagrams_dropped_too_many_discoveries") === 5);
    expect(sighted).toHaveLength(200);
    clock.nowMs = 1000;
    send(discovery, 1);
    await until(() => of("datagrams_discovery") === 201);
    expect(sighted).toHaveLength(201);
  });

  test("lets 8 MiB wait for the kernel; more is lost and counted", async () => {
    let waits = 8 * 1024 * 1024;
    const { opened, of } = await channel(() => waits);
    opened.discover([1]);
    expect([of("datagrams_sent"), of("datagrams_unsent")]).toEqual([1, 0]);
    waits++;
    opened.discover([1]);
    expect([of("datagrams_sent"), of("datagrams_unsent")]).toEqual([1, 1]);
  });

  test("logs what it drops for the same reason once a second", async () => {
    const { clock, said, of, send } = await channel();
    const logged = async (atMs: number, dropped: number): Promise<number> => {
      clock.nowMs = atMs;
      send(Buffer.alloc(100, 1), 1);
      await until(() => of("datagrams_dropped_foreign") === dropped);
      return said.length;
    };
    expect([await logged(0, 1), await logged(999, 2), await logged(1000, 3)]).toEqual([1, 1, 2]);
  });
});
