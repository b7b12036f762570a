/**
 * Damaged input on every port of dlmd: it is refused with a WireError or understood, never anything else, and nothing grows. Some thousands
 * here; a million with COVERLAY_FUZZ_FRAMES=1000000, and over sockets with COVERLAY_FUZZ_LIVE=1000000.
 */
import { createSocket } from "node:dgram";
import { createConnection } from "node:net";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterEach, expect, test } from "vitest";
import { WireError } from "../../../dlmd/base/error.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import { createMetrics, type Metrics } from "../../../dlmd/base/metric.ts";
import { seededRandom } from "../../seeded-random.ts";
import { ByteWriter } from "../../../dlmd/base/bytes.ts";
import { decodeConfigMessage, encodeConfigMessage } from "../../../dlmd/config/change-codec.ts";
import type { NodeConfig } from "../../../dlmd/config/votes.ts";
import { openDatagramChannel } from "../../../dlmd/driver/datagram-channel.ts";
import { openDiscovery, sealDiscovery } from "../../../dlmd/driver/discovery.ts";
import { createHandshake, type HandshakeOptions } from "../../../dlmd/driver/handshake.ts";
import { createKeyring } from "../../../dlmd/tls/keyring.ts";
import { openPeerNetwork } from "../../../dlmd/driver/peer-network.ts";
import { secureInitiator, type SecureConnection } from "../../../dlmd/tls/secure-connection.ts";
import { DatagramOpener, DatagramSealer } from "../../../dlmd/driver/seal.ts";
import { decodeUnsealed, encodeBundle, encodeProbe, encodeProbed } from "../../../dlmd/wire/bundle.ts";
import { decodeDatagram, encodeDatagram } from "../../../dlmd/wire/datagram.ts";
import { FrameGatherer, createFrameReader } from "../../../dlmd/wire/frame.ts";
import {
  LOCAL_BATCH_BYTES,
  LOCAL_FRAME_BYTES,
  beginRequests,
  decodeRequests,
  encodeRequest,
  gatherRequest,
} from "../../../dlmd/wire/local-batch.ts";
import { LOCAL_VERSION, decodeClientMessage, encodeClientMessage } from "../../../dlmd/wire/local.ts";
import { decodeFrame, encodeFrames } from "../../../dlmd/wire/peer.ts";
import { datagrams, peerMessages, view } from "../../vector/dlmd/samples.ts";
import { mutate } from "./mutate.ts";

const FRAMES = Number(process.env["COVERLAY_FUZZ_FRAMES"] ?? 3000);
/** Frames and datagrams that go over sockets. */
const LIVE = Number(process.env["COVERLAY_FUZZ_LIVE"] ?? 300);
const TIMEOUT_MS = 60_000 + FRAMES;
const LIVE_TIMEOUT_MS = 60_000 + LIVE;
/** What a run may keep, however long it is: compiled code and caches that have an end. */
const MAX_GROWTH_BYTES = 16 * 1024 * 1024;
setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;
const keyring = createKeyring([Buffer.alloc(32, 7)]);
const datagramKey = Buffer.alloc(32, 5);
const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

/** What is in use, not what waits to be collected. */
function usedBytes(): number {
  // Buffers are given back by a thread of V8's after a collection; the next one waits until it has done so.
  collect();
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** Counts what was understood and what was refused; anything else that is thrown fails. */
function fuzz(
  seed: number,
  corpus: readonly Uint8Array[],
  decode: (bytes: Uint8Array) => unknown,
): { understood: number; refused: number } {
  const random = seededRandom(seed);
  const found = { understood: 0, refused: 0 };
  const before = usedBytes();
  for (let frame = 0; frame < FRAMES; frame++) {
    const bytes = mutate(random, corpus);
    try {
      decode(bytes);
      found.understood++;
    } catch (error) {
      if (!(error instanceof WireError)) throw new Error(`frame ${frame} ${Buffer.from(bytes).toString("hex")}`, { cause: error });
      found.refused++;
    }
  }
  expect(usedBytes() - before).toBeLessThan(MAX_GROWTH_BYTES);
  return found;
}

const record = {
  version: 2,
  fingerprint: "",
  text: "cluster: a\nversion: 2\nnodes: [{ nodeid: 1, name: a, address: 10.0.0.1 }]\n",
  nodes: [],
};
const configCorpus = [
  encodeConfigMessage({
    epoch: 1,
    view: "1.1.a",
    kind: "report",
    committed: record,
    trail: [{ version: 0, nodes: [{ nodeid: 1, votes: 1 }], agreedBy: [1] }],
    pending: { record, epoch: 1, view: "1.1.a" },
    counting: { id: { epoch: 1, proposer: 1, incarnation: "00000000000000aa" }, electorate: { nodeids: [1, 2], former: [1, 2, 3] } },
  }),
  encodeConfigMessage({ epoch: 1, view: "1.1.a", kind: "propose", record }),
  encodeConfigMessage({ epoch: 1, view: "1.1.a", kind: "stored", version: 2, fingerprint: "[]" }),
  encodeConfigMessage({ epoch: 1, view: "1.1.a", kind: "request", requestId: 3, record }),
];
const clientCorpus = (() => {
  const messages = [
    { kind: "hello", version: LOCAL_VERSION, pid: 4711, program: "test", owner: "", bastLimitMs: 60_000 },
    { kind: "bast-limit", limitMs: 60_000 },
    { kind: "open", lockspaceId: 1, name: "space" },
    { kind: "gone-ack", goneId: 7 },
    { kind: "query", queryId: 1, what: "status" },
  ] as const;
  const gatherer = new FrameGatherer(LOCAL_FRAME_BYTES, LOCAL_BATCH_BYTES, beginRequests);
  gatherRequest.lock(gatherer, 1, 1, "resource", 5, 0);
  gatherRequest.lock(gatherer, 2, 1, "another", 5, 0);
  const batch = gatherer.entry();
  encodeRequest.lock(batch, 1, 1, "resource", 5, 0, 1000, 7);
  encodeRequest.convert(batch, 1, 3, 0, new Uint8Array(8));
  encodeRequest.unlock(batch, 1, 0, null);
  encodeRequest.down(batch, 1, 3, 0, new Uint8Array(8));
  encodeRequest.cancel(batch, 1);
  gatherRequest.giveUp(gatherer, 1, 0, null);
  gatherRequest.giveUp(gatherer, 2, 0, null);
  const encoded = messages.map((message) => {
    const writer = new ByteWriter();
    encodeClientMessage(writer, message);
    return writer.copy();
  });
  return [...encoded, gatherer.take().slice(4)];
})();
const frameCorpus = peerMessages.map((message) => (encodeFrames(view, [message])[0] as Uint8Array).slice());
const sink = { lock() {}, convert() {}, unlock() {}, down() {}, giveUp() {}, cancel() {} };

test(
  "datagrams under a seal that is right",
  () => expect(fuzz(1, datagrams.map(encodeDatagram), decodeDatagram).refused).toBeGreaterThan(FRAMES / 20),
  TIMEOUT_MS,
);
test(
  "datagrams of several messages",
  () => {
    const bodies = datagrams.map(encodeDatagram);
    const corpus = [encodeBundle(bodies), encodeBundle(bodies.slice(0, 2)), encodeProbe(), encodeProbed()];
    const { refused } = fuzz(8, corpus, (bytes) => {
      const unsealed = decodeUnsealed(bytes);
      if (unsealed.kind === "messages") unsealed.bodies.map(decodeDatagram);
    });
    expect(refused).toBeGreaterThan(FRAMES / 20);
  },
  TIMEOUT_MS,
);
test("frames between peers", () => expect(fuzz(2, frameCorpus, decodeFrame).refused).toBeGreaterThan(FRAMES / 20), TIMEOUT_MS);
test(
  "messages of a configuration change",
  () => expect(fuzz(3, configCorpus, decodeConfigMessage).refused).toBeGreaterThan(FRAMES / 20),
  TIMEOUT_MS,
);
test(
  "messages of programs on the local socket",
  () => {
    const { refused } = fuzz(4, clientCorpus, (bytes) => {
      const message = decodeClientMessage(bytes);
      if (message.kind === "requests") decodeRequests(message.entries, sink);
    });
    expect(refused).toBeGreaterThan(FRAMES / 20);
  },
  TIMEOUT_MS,
);

test(
  "streams of frames",
  () => {
    const stream = Buffer.concat(frameCorpus.map((body) => Buffer.concat([Buffer.from(new Uint32Array([body.byteLength]).buffer), body])));
    const { refused } = fuzz(5, [stream, stream.subarray(0, 40)], (bytes) =>
      createFrameReader({ maxBytes: 1024, crc32: null }).push(bytes, () => undefined),
    );
    expect(refused).toBeGreaterThan(FRAMES / 20);
  },
  TIMEOUT_MS,
);

test(
  "sealed and discovery datagrams: nothing damaged is heard",
  () => {
    const random = seededRandom(6);
    const sealer = new DatagramSealer(1, datagramKey);
    const opener = new DatagramOpener(2, [1, 2, 3]);
    opener.confirm(1, datagramKey, 0);
    const corpus = [sealer.seal(Buffer.alloc(40, 1)), sealer.seal(Buffer.alloc(0)), sealDiscovery(keyring, "lab", 1)];
    const wrong: string[] = [];
    const same = (bytes: Uint8Array): boolean => corpus.some((each) => each.equals(bytes));
    for (let datagram = 0; datagram < FRAMES; datagram++) {
      const bytes = mutate(random, corpus);
      if (same(bytes)) continue;
      const opened = opener.open(bytes);
      const heard = opened.kind === "body" || (opened.kind === "discovery" && openDiscovery(keyring, "lab", bytes).kind === "node");
      if (heard) wrong.push(Buffer.from(bytes).toString("hex"));
    }
    expect(wrong).toEqual([]);
    expect(opener.open(corpus[0] as Buffer).kind).toBe("body");
  },
  TIMEOUT_MS,
);

const handshakeOf = (nodeid: number, role: "initiator" | "acceptor"): HandshakeOptions => ({
  key: keyring.first,
  binding: Buffer.alloc(32, 1),
  self: {
    protocolVersion: 2,
    cluster: "lab",
    configVersion: 1,
    configHash: Buffer.alloc(32),
    nodeid,
    incarnation: `life-${nodeid}`,
    datagramKey,
    datagramCounter: 0,
  },
  nonce: Buffer.alloc(32, nodeid),
  role,
  expectedNodeid: null,
  objection: () => null,
  isKnownNode: () => true,
  offer: () => null,
});

test(
  "handshakes inside TLS: no damaged one ends with a member",
  () => {
    const random = seededRandom(7);
    const before = usedBytes();
    const initiator = createHandshake(handshakeOf(1, "initiator"));
    const acceptor = createHandshake(handshakeOf(2, "acceptor"));
    const proof = initiator.receive(acceptor.hello);
    const wrong: string[] = [];
    const corpus = [initiator.hello, proof.kind === "more" ? (proof.send as Uint8Array) : new Uint8Array()];
    for (let frame = 0; frame < FRAMES; frame++) {
      const victim = createHandshake(handshakeOf(2, "acceptor"));
      const hello = mutate(random, corpus);
      const first = victim.receive(hello);
      if (first.kind !== "more") continue;
      const second = victim.receive(random.below(2) === 0 ? (corpus[1] as Uint8Array) : mutate(random, corpus));
      if (second.kind === "done" && !Buffer.from(hello).equals(initiator.hello)) wrong.push(Buffer.from(hello).toString("hex"));
    }
    expect(wrong).toEqual([]);
    expect(usedBytes() - before).toBeLessThan(MAX_GROWTH_BYTES);
  },
  TIMEOUT_MS,
);

// ------------------------------------------------------------------------------------------------------ live sockets

const nodes: readonly NodeConfig[] = [1, 2].map((nodeid) => ({ nodeid, name: `node${nodeid}`, address: `127.78.0.${nodeid}`, votes: 1 }));
const port = 21_000 + (process.pid % 20_000);
const quiet: Log = { debug() {}, info() {}, warn() {}, error() {} };

function countingMetrics(): { metrics: Metrics; until: (done: () => boolean) => Promise<void> } {
  const counters = createMetrics();
  let waiting: (() => void)[] = [];
  const count: Metrics["count"] = (name, by) => {
    counters.count(name, by);
    for (const resolve of waiting.splice(0)) resolve();
  };
  const until = async (done: () => boolean): Promise<void> => {
    while (!done()) await new Promise<void>((resolve) => waiting.push(resolve));
    waiting = [];
  };
  return { metrics: { ...counters, count }, until };
}

/**
 * A secure connection to node 2. Where too many of ours are still being closed there the next one is reset, and counted: it is tried again
 * when the network has had time for them.
 */
async function enterSecurely(metrics: Metrics): Promise<SecureConnection> {
  for (;;) {
    const turnedAway = metrics.snapshot()["peers_too_many_unproved"] ?? 0;
    const raw = createConnection({ host: "127.78.0.2", port, localAddress: "127.78.0.1" });
    await new Promise((resolve) => raw.once("connect", resolve));
    const entered = await new Promise<SecureConnection | string>((resolve) =>
      secureInitiator(raw, keyring, { secured: resolve, failed: resolve }),
    );
    if (typeof entered !== "string") return entered;
    if ((metrics.snapshot()["peers_too_many_unproved"] ?? 0) === turnedAway)
      throw new Error(`${entered} ${JSON.stringify(metrics.snapshot())}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

test(
  "a member that went mad, inside TLS: every connection of it ends, and the next one is taken",
  async () => {
    const { metrics } = countingMetrics();
    const network = await openPeerNetwork({
      keyring,
      identity: () => handshakeOf(2, "acceptor").self,
      refused: () => {},
      configOffer: () => null,
      self: nodes[1] as NodeConfig,
      nodes,
      port,
      timeoutMs: 5000,
      drawNonce: () => Buffer.alloc(32),
      nowMs: () => performance.now(),
      log: quiet,
      metrics,
      up: () => undefined,
      down: () => undefined,
      frame: () => undefined,
      config: (_, body) => void decodeConfigMessage(body),
      offered: () => undefined,
    });
    closers.push(() => network.close());
    const before = usedBytes();
    const random = seededRandom(8);
    const framed = (body: Uint8Array): Buffer => Buffer.concat([Buffer.from(new Uint32Array([body.byteLength]).buffer), body]);
    const channels = [0, 1, 2, 3].flatMap((channel) =>
      [...frameCorpus, ...configCorpus].map((body) => Buffer.concat([Buffer.of(channel), body])),
    );
    for (let round = 0; round < LIVE / 10; round++) {
      const { socket, binding } = await enterSecurely(metrics);
      socket.on("error", () => undefined);
      const ended = new Promise((resolve) => socket.once("close", resolve));
      const handshake = createHandshake({
        ...handshakeOf(1, "initiator"),
        binding,
        self: { ...handshakeOf(1, "initiator").self, incarnation: `life-${round}` },
      });
      socket.write(framed(handshake.hello));
      const honest = round % 2 === 0;
      const frames = createFrameReader({ maxBytes: 1 << 20, crc32: null });
      await new Promise<void>((resolve) => {
        socket.once("close", () => resolve());
        socket.on("data", (chunk: Buffer) =>
          frames.push(chunk, (body) => {
            if (!honest) return resolve();
            const step = handshake.receive(body);
            if (step.kind === "more" && step.send !== null) socket.write(framed(step.send));
            if (step.kind !== "more") resolve();
          }),
        );
      });
      for (let frame = 0; frame < 10; frame++) socket.write(framed(mutate(random, channels)));
      // Whatever it understood of that, this it cannot have.
      socket.write(Buffer.alloc(64, 0xff));
      await ended;
    }
    expect(metrics.snapshot()["peers_refused"] ?? 0).toBeGreaterThan(0);
    expect(usedBytes() - before).toBeLessThan(MAX_GROWTH_BYTES);
  },
  LIVE_TIMEOUT_MS,
);

test(
  "datagrams of strangers: every one is counted, and a member is heard after them",
  async () => {
    const { metrics, until } = countingMetrics();
    let heard = 0;
    const channel = await openDatagramChannel({
      keyring,
      cluster: "lab",
      self: nodes[1] as NodeConfig,
      nodes,
      multicast: { group: "none", port },
      timeoutMs: 3000,
      sealer: new DatagramSealer(2, datagramKey),
      nowMs: () => performance.now(),
      log: quiet,
      metrics,
      receive: () => heard++,
      sighted: () => undefined,
    });
    closers.push(() => channel.close());
    channel.confirm(1, datagramKey, 0);
    const sealer = new DatagramSealer(1, datagramKey);
    const corpus = [...datagrams.map((message) => sealer.seal(encodeDatagram(message))), sealDiscovery(keyring, "lab", 1)];
    const random = seededRandom(9);
    const socket = createSocket("udp4");
    closers.push(() => socket.close());
    const send = (bytes: Uint8Array): Promise<void> => new Promise((resolve) => socket.send(bytes, port, "127.78.0.2", () => resolve()));
    const counted = (): number =>
      Object.entries(metrics.snapshot()).reduce(
        (sum, [name, value]) => (/^datagrams_(dropped|received|discovery)/.test(name) ? sum + value : sum),
        0,
      );
    for (let datagram = 1; datagram <= LIVE; datagram++) {
      let bytes = mutate(random, corpus);
      // Those that say that they are ours come back from multicast, and are not counted.
      while (bytes.byteLength >= 8 && new DataView(bytes.buffer, bytes.byteOffset).getUint16(6, true) === 2) bytes = mutate(random, corpus);
      await send(bytes);
      await until(() => counted() >= datagram);
    }
    const before = heard;
    await send(sealer.seal(encodeDatagram({ kind: "leave", from: 1, incarnation: "00000000000000aa", view, kept: false })));
    await until(() => heard > before);
    expect(counted()).toBe(LIVE + 1);
  },
  LIVE_TIMEOUT_MS,
);
