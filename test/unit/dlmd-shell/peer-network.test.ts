/** TCP and datagrams between two shells on the loopback device, without cores. */
import { randomBytes } from "node:crypto";
import { createSocket } from "node:dgram";
import { type Socket, createConnection, createServer } from "node:net";
import { afterEach, expect, test, vi } from "vitest";
import { WireError } from "../../../dlmd/base/error.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import { type Metrics, createMetrics } from "../../../dlmd/base/metric.ts";
import type { NodeConfig } from "../../../dlmd/config/votes.ts";
import { type DatagramChannel, MAX_QUEUED_BYTES, openDatagramChannel } from "../../../dlmd/driver/datagram-channel.ts";
import { createKeyring } from "../../../dlmd/tls/keyring.ts";
import { askPeerToCheck } from "../../../overlay/setup/look-peers.ts";
import { HANDSHAKE_LOOK_MS, HANDSHAKE_TIMEOUT_MS, MAX_UNPROVED_OF_STRANGERS } from "../../../dlmd/tls/unproved.ts";
import { PEER_UNSENT_BYTES } from "../../../dlmd/driver/peer-connection.ts";
import type { Identity } from "../../../dlmd/driver/handshake.ts";
import { PeerDialer } from "../../../dlmd/driver/peer-dialer.ts";
import { type PeerNetwork, type PeerNetworkOptions, openPeerNetwork } from "../../../dlmd/driver/peer-network.ts";
import type { CheckAsker } from "../../../dlmd/driver/self-check.ts";
import { DatagramSealer } from "../../../dlmd/driver/seal.ts";
import type { Datagram } from "../../../dlmd/wire/datagram.ts";
import type { PeerMessage } from "../../../dlmd/wire/peer.ts";
import { noView } from "../../../dlmd/wire/view-id.ts";

const nodes: readonly NodeConfig[] = [1, 2, 3].map((nodeid) => ({
  nodeid,
  name: `node${nodeid}`,
  address: `127.77.0.${nodeid}`,
  votes: 1,
}));
const key = randomBytes(32);
const keyring = createKeyring([key]);
const datagramKeyOf = (nodeid: number): Buffer => Buffer.alloc(32, nodeid);
const port = 41_000 + (process.pid % 20_000);

interface Side {
  readonly network: PeerNetwork;
  readonly events: unknown[];
  readonly said: string[];
  readonly refusals: string[];
  readonly metrics: Metrics;
}
const open: (PeerNetwork | DatagramChannel | Socket)[] = [];
let waiting: (() => void)[] = [];

function happened(): void {
  for (const resolve of waiting.splice(0)) resolve();
}
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise<void>((resolve) => waiting.push(resolve));
}
function logInto(said: string[]): Log {
  const write = (fields: Readonly<Record<string, unknown>>, message: string): void => {
    said.push(`${message} ${JSON.stringify(fields)}`);
    happened();
  };
  return { debug() {}, info: write, warn: write, error: write };
}

async function side(
  nodeid: number,
  change: Partial<PeerNetworkOptions> & { readonly cluster?: string; readonly life?: string } = {},
): Promise<Side> {
  const events: unknown[] = [];
  const said: string[] = [];
  const refusals: string[] = [];
  const note = (event: unknown): void => {
    events.push(event);
    happened();
  };
  const counters = createMetrics();
  const metrics: Metrics = {
    ...counters,
    count(name, by) {
      counters.count(name, by);
      happened();
    },
  };
  const network = await openPeerNetwork({
    keyring,
    identity: () => ({
      protocolVersion: 2,
      cluster: change.cluster ?? "lab",
      configVersion: 1,
      configHash: Buffer.alloc(32),
      nodeid,
      incarnation: change.life ?? `life-${nodeid}`,
      datagramKey: datagramKeyOf(nodeid),
      datagramCounter: 0,
    }),
    configOffer: () => null,
    self: nodes[nodeid - 1] as NodeConfig,
    nodes,
    port,
    timeoutMs: 5000,
    drawNonce: () => randomBytes(32),
    nowMs: () => performance.now(),
    log: logInto(said),
    metrics,
    up: (peer) => note(["up", peer.nodeid, peer.incarnation]),
    refused: (from, reason) => void refusals.push(`${from} ${reason}`),
    down: (from, incarnation, unreadable) => note(["down", from, incarnation, ...(unreadable === null ? [] : [unreadable])]),
    frame: (from, _view, messages) => note(["frame", from, ...messages]),
    config: (from, body) => note(["config", from, Buffer.from(body).toString()]),
    offered: (offer) => note(["offered", offer.version]),
    ...change,
  });
  open.push(network);
  return { network, events, said, refusals, metrics };
}

afterEach(async () => {
  vi.restoreAllMocks();
  waiting = [];
  for (const each of open.splice(0)) {
    if ("destroy" in each) each.destroy();
    else await each.close();
  }
});

const mark = (received: number): PeerMessage => ({ kind: "ack", received });

test("whoever starts first: one connection, both told, messages of a turn in one frame and in order", async () => {
  const b = await side(2);
  const a = await side(1);
  await until(() => a.events.length > 0 && b.events.length > 0);
  expect([a.events, b.events]).toEqual([[["up", 2, "life-2"]], [["up", 1, "life-1"]]]);
  a.network.send(2, noView, [mark(1), mark(2)]);
  a.network.send(2, noView, [mark(3)]);
  a.network.send(3, noView, [mark(4)]);
  a.network.flush();
  b.network.send(1, { ...noView, epoch: 1 }, [mark(5)]);
  b.network.flush();
  await until(() => a.events.length > 1 && b.events.length > 1);
  expect(b.events[1]).toEqual(["frame", 1, mark(1), mark(2), mark(3)]);
  expect(a.events[1]).toEqual(["frame", 2, mark(5)]);
});

test("the lower nodeid tries until the other is there, and again when it went", async () => {
  const a = await side(1);
  const b = await side(2);
  await until(() => a.events.length === 1);
  await b.network.close();
  await until(() => a.events.length === 2);
  const again = await side(2);
  await until(() => a.events.length === 3 && again.events.length === 1);
  expect(a.events).toEqual([
    ["up", 2, "life-2"],
    ["down", 2, "life-2"],
    ["up", 2, "life-2"],
  ]);
});

test("connections to nodes outside the view are made anew when another configuration is in force, those to members stay", async () => {
  const [two, three, a] = [await side(2), await side(3), await side(1)];
  await until(() => a.events.length === 2);
  a.network.renew([1, 2]);
  await until(() => a.events.length === 4 && three.events.length === 3);
  expect(a.events.slice(2)).toEqual([
    ["down", 3, "life-3"],
    ["up", 3, "life-3"],
  ]);
  expect(two.events.filter((event) => String(event).includes("1"))).toEqual([["up", 1, "life-1"]]);
});

test("a connection whose handshake began before another configuration was in force is made anew", async () => {
  let looks = 0;
  const identity = (): Identity => ({
    protocolVersion: 2,
    cluster: "lab",
    // The second look is that at the end of the first handshake.
    configVersion: ++looks === 2 ? 2 : 1,
    configHash: Buffer.alloc(32),
    nodeid: 2,
    incarnation: "life-2",
    datagramKey: datagramKeyOf(2),
    datagramCounter: 0,
  });
  const [b, a] = [await side(2, { identity }), await side(1)];
  await until(() => b.events.length > 0 && a.events.at(-1)?.toString() === "up,2,life-2");
  expect(looks).toBe(4);
  expect(b.events).toEqual([["up", 1, "life-1"]]);
});

test("what a peer sends and cannot be read is told with the end of the connection, and the next one comes after a growing pause", async () => {
  const ended = vi.spyOn(PeerDialer.prototype, "ended");
  const unreadable = (): void => {
    throw new WireError("no such word");
  };
  const [a, b] = [await side(1, { config: unreadable }), await side(2)];
  for (let times = 1; times <= 3; times++) {
    await until(() => a.events.length === 2 * times - 1 && b.events.length === 2 * times - 1);
    b.network.sendConfig(1, Buffer.from("?"));
    await until(() => a.events.length === 2 * times);
    expect(a.events.at(-1)).toEqual(["down", 2, "life-2", "no such word"]);
    await until(() => b.events.length === 2 * times);
    expect(b.events.at(-1)).toEqual(["down", 1, "life-1"]);
  }
  expect(ended.mock.calls).toEqual([[true], [true], [true]]);
  expect(a.metrics.snapshot()).toMatchObject({ peer_unreadable: 3, peer_disconnects: 3 });
  // Said once in a while, however often it happens.
  expect(a.said.filter((line) => line.includes("cannot be read"))).toHaveLength(1);
  await until(() => a.events.length === 7);
  await b.network.close();
  await until(() => a.events.length === 8);
  expect(a.events.at(-1)).toEqual(["down", 2, "life-2"]);
  expect(ended.mock.calls.at(-1)).toEqual([false]);
});

test("after connections that did not last the pause grows, whichever end could not read, and discovery does not undercut it", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const server = createServer().listen(port, "127.0.0.1");
  let nowMs = 0;
  let connections: (() => void)[] = [];
  // Asked before each attempt.
  const isConnected = vi.fn<() => boolean>(() => connections.length > 0);
  const dialer = new PeerDialer({
    node: { ...(nodes[0] as NodeConfig), address: "127.0.0.1" },
    port,
    localAddress: "127.0.0.1",
    timeoutMs: 2000,
    lastingMs: 1000,
    nowMs: () => nowMs,
    isConnected,
    connected: (socket, ended) => {
      const over = (): void => {
        socket.destroy();
        ended();
      };
      connections = [over];
      happened();
    },
    unreached: happened,
  });
  const end = async (afterMs: number, unreadable: boolean): Promise<void> => {
    await until(() => connections.length > 0);
    dialer.established();
    nowMs += afterMs;
    dialer.ended(unreadable);
    connections.splice(0)[0]?.();
  };
  const waits = (pauseMs: number): void => {
    vi.advanceTimersByTime(pauseMs - 1);
    nowMs += pauseMs - 1;
    const before = isConnected.mock.calls.length;
    dialer.hurry();
    expect(isConnected).toHaveBeenCalledTimes(before);
    vi.advanceTimersByTime(1);
    expect(isConnected).toHaveBeenCalledTimes(before + 1);
  };
  try {
    await end(999, false);
    waits(50);
    await end(0, true);
    waits(100);
    await end(999, false);
    waits(200);
    await end(5000, true);
    waits(400);
    // One that lasted: at once when the peer is heard.
    await end(1000, false);
    dialer.hurry();
    await end(0, false);
    waits(50);
  } finally {
    dialer.close();
    server.close();
    vi.useRealTimers();
  }
});

test("a paused peer is not read, then goes on where it was", async () => {
  const [a, b] = [await side(1), await side(2)];
  await until(() => a.events.length === 1 && b.events.length === 1);
  b.network.setPaused(1, true);
  a.network.send(2, noView, [mark(1)]);
  a.network.flush();
  // Trips the other way, during which b would have read.
  for (let trip = 1; trip <= 10; trip++) {
    b.network.send(1, noView, [mark(trip)]);
    b.network.flush();
    await until(() => a.events.length === 1 + trip);
  }
  expect(b.events).toHaveLength(1);
  b.network.setPaused(1, false);
  await until(() => b.events.length === 2);
});

test("a peer that reads nothing: beyond a limit of bytes the connection ends with that reason, and another one begins", async () => {
  const [a, b] = [await side(1), await side(2)];
  await until(() => a.events.length === 1 && b.events.length === 1);
  b.network.setPaused(1, true);
  const json = new Uint8Array(200_000);
  // What the kernel keeps for a connection comes to it.
  for (let bytes = 0; a.events.length === 1; bytes += json.byteLength) {
    if (bytes > 2 * PEER_UNSENT_BYTES) throw new Error(`${bytes} bytes were taken`);
    a.network.send(2, noView, [{ kind: "inspected", askId: 1, json }]);
    a.network.flush();
  }
  expect(a.events[1]).toEqual(["down", 2, "life-2"]);
  expect(a.said.some((line) => line.includes("bytes unsent: the peer does not read"))).toBe(true);
  await until(() => a.events.length === 3);
  expect(a.events[2]).toEqual(["up", 2, "life-2"]);
});

test.each<[name: string, change: Parameters<typeof side>[1], reason: string]>([
  ["wrong key", { keyring: createKeyring([randomBytes(32)]) }, "wrong key"],
  ["other cluster", { cluster: "other" }, "other cluster"],
  // Only one of the two can see this; the other is told.
  ["unknown node", { nodes: nodes.slice(1) }, "unknown node"],
])("%s: the reason is in both logs, and nobody is up", async (_name, change, reason) => {
  const [a, b] = [await side(1), await side(2, change)];
  const told = ({ said }: Side): boolean => said.some((line) => line.startsWith("peer refused") && line.includes(reason));
  await until(() => told(a) && told(b));
  // For `coverlay nodes`, by the node whose address it is.
  expect(a.refusals.find((line) => line.includes(reason))).toMatch(/^2 /);
  expect(b.refusals.some((line) => line.startsWith("1 ") && line.includes(reason))).toBe(reason !== "unknown node");
  expect([...a.events, ...b.events]).toEqual([]);
});

test("bytes that are no handshake are refused", async () => {
  const b = await side(2);
  const socket = createConnection({ host: "127.77.0.2", port });
  open.push(socket);
  socket.write(Buffer.alloc(64, 0x41));
  const ended = new Promise((resolve) => socket.on("end", resolve));
  socket.resume();
  await ended;
  expect(b.events).toEqual([]);
});

test("a nodeid that is in use is refused to another dlmd, with the reason in both logs; nobody who is up notices", async () => {
  const [a, b] = [await side(1), await side(2)];
  await until(() => a.events.length === 1 && b.events.length === 1);
  const twin = await side(1, { self: { nodeid: 1, name: "node1", address: "127.77.0.9", votes: 1 }, life: "twin" });
  const told = ({ said }: Side): boolean => said.some((line) => line.startsWith("peer refused") && line.includes("nodeid 1 is taken"));
  await until(() => told(b) && told(twin));
  expect([a.events, b.events, twin.events]).toEqual([[["up", 2, "life-2"]], [["up", 1, "life-1"]], []]);
});

test("the configuration's channel: a frame each, in order, beside the locks", async () => {
  const [a, b] = [await side(1), await side(2)];
  await until(() => a.events.length === 1 && b.events.length === 1);
  a.network.sendConfig(2, Buffer.from("one"));
  a.network.sendConfig(2, Buffer.from("two"));
  await until(() => b.events.length === 3);
  expect(b.events.slice(1)).toEqual([
    ["config", 1, "one"],
    ["config", 1, "two"],
  ]);
});

test("the keys of a running cluster are replaced, and no connection ends; without the steps it does", async () => {
  const [oldKey, newKey] = [key, randomBytes(32)];
  const sides = [await side(1), await side(2), await side(3)];
  await until(() => sides.every(({ events }) => events.length === 2));
  const all = (...keys: [Buffer, ...Buffer[]]): void => {
    for (const { network } of sides) network.setKeyring(createKeyring(keys));
  };
  /** Everybody has heard everybody after what went before. */
  const trip = async (sent: number): Promise<void> => {
    const before = sides.map(({ events }) => events.length);
    for (const { network } of sides) {
      for (const to of [1, 2, 3]) network.send(to, noView, [mark(sent)]);
      network.flush();
    }
    await until(() => sides.every(({ events }, at) => events.length === (before[at] as number) + 2));
  };
  all(oldKey, newKey);
  await trip(1);
  all(newKey, oldKey);
  await trip(2);
  all(newKey);
  await trip(3);
  // Nobody speaks with the old key any more.
  const late = await side(2, { self: { nodeid: 2, name: "node2", address: "127.77.0.9", votes: 1 }, life: "late" });
  await until(() => late.said.some((line) => line.includes("wrong key")));
  expect(sides.flatMap(({ events }) => events).filter((event) => (event as string[])[0] === "down")).toEqual([]);
  sides[0]?.network.setKeyring(createKeyring([randomBytes(32)]));
  await until(() => sides.every(({ events }) => events.some((event) => (event as string[])[0] === "down")));
  expect(sides[0]?.said.join("\n")).toContain("key removed");
});

test("nodes come and go while it runs", async () => {
  const [a, b] = [await side(1, { nodes: nodes.slice(0, 2) }), await side(2, { nodes: nodes.slice(0, 2) })];
  await until(() => a.events.length === 1 && b.events.length === 1);
  for (const { network } of [a, b]) network.setNodes(nodes);
  const c = await side(3);
  await until(() => a.events.length === 2 && b.events.length === 2 && c.events.length === 2);
  for (const { network } of [a, b]) network.setNodes(nodes.slice(0, 2));
  await until(() => a.events.length === 3 && b.events.length === 3);
  expect(a.events).toEqual([
    ["up", 2, "life-2"],
    ["up", 3, "life-3"],
    ["down", 3, "life-3"],
  ]);
});

test("strangers that say nothing, or half a handshake, have few places and little time, and nodes have their own", async () => {
  const b = await side(2);
  const closed: Promise<unknown>[] = [];
  const half = Buffer.concat([Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]), randomBytes(40)]);
  for (let at = 0; at < MAX_UNPROVED_OF_STRANGERS + 20; at++) {
    const socket = createConnection({ host: "127.77.0.2", port });
    open.push(socket);
    closed.push(new Promise((resolve) => socket.on("close", resolve)));
    socket.on("error", () => undefined);
    if (at % 2 === 0) socket.write(half);
  }
  await until(() => (b.metrics.snapshot()["peers_too_many_unproved"] ?? 0) === 20);
  // A node comes in meanwhile.
  const a = await side(1);
  await until(() => a.events.length === 1 && b.events.length === 1);
  await Promise.all(closed);
  expect(b.said.some((line) => line.includes(`no handshake within ${HANDSHAKE_TIMEOUT_MS} ms`))).toBe(true);
  expect(b.events).toEqual([["up", 1, "life-1"]]);
});

type ChannelOptions = Parameters<typeof openDatagramChannel>[0];

/** The datagram channel of that node. */
function channelOf(
  nodeid: number,
  said: string[],
  heard: Datagram[],
  options: Pick<ChannelOptions, "nowMs" | "metrics" | "sighted"> & Partial<Pick<ChannelOptions, "openSocket">>,
): Promise<DatagramChannel> {
  return openDatagramChannel({
    keyring,
    cluster: "lab",
    self: nodes[nodeid - 1] as NodeConfig,
    nodes,
    multicast: { group: "none", port },
    timeoutMs: 3000,
    sealer: new DatagramSealer(nodeid, datagramKeyOf(nodeid)),
    log: logInto(said),
    receive(message) {
      heard.push(message);
      happened();
    },
    ...options,
  });
}

test("datagrams: heard after their key was given, sighted by discovery only, foreign ones counted and logged once a second", async () => {
  const said: string[] = [];
  const heard: Datagram[] = [];
  const sighted: number[] = [];
  const counters = createMetrics();
  const metrics: Metrics = {
    ...counters,
    count(name, by) {
      counters.count(name, by);
      happened();
    },
  };
  const channel = (nodeid: number): Promise<DatagramChannel> =>
    channelOf(nodeid, said, heard, {
      nowMs: () => performance.now(),
      metrics,
      sighted(from) {
        sighted.push(from);
        happened();
      },
    });
  const [one, two] = [await channel(1), await channel(2)];
  open.push(one, two);
  const leave: Datagram = { kind: "leave", from: 1, incarnation: "00000000000000aa", view: noView, kept: false };
  one.send(2, leave);
  await until(() => metrics.snapshot()["datagrams_dropped_unknown_key"] === 1);
  expect(sighted).toEqual([]);
  one.discover([2, 3]);
  await until(() => sighted.length === 1);
  expect([heard, sighted]).toEqual([[], [1]]);
  two.confirm(1, datagramKeyOf(1), 1);
  one.send("all", leave);
  await until(() => heard.length === 1);
  expect(heard).toEqual([leave]);
  // Says that it is from node 3, under node 1's seal.
  one.send(2, { ...leave, from: 3 });
  const stranger = createSocket("udp4");
  for (let sent = 0; sent < 50; sent++) stranger.send(Buffer.alloc(100, sent), port, "127.77.0.2");
  one.send(2, leave);
  await until(() => heard.length === 2 && metrics.snapshot()["datagrams_dropped_foreign"] === 50);
  stranger.close();
  expect(metrics.snapshot()["datagrams_dropped_other_sender"]).toBe(1);
  expect(said.filter((line) => line.includes('"foreign"'))).toHaveLength(1);
});

test("ENOBUFS, and a send buffer that stays full: lost and counted, said once a second, nothing grows; then it goes on", async () => {
  const said: string[] = [];
  const heard: Datagram[] = [];
  const metrics = createMetrics();
  const kernel = { refuses: 0, queuedBytes: 0, asked: 0 };
  const openSocket: typeof createSocket = (...words: unknown[]) => {
    const socket = (createSocket as (...words: unknown[]) => ReturnType<typeof createSocket>)(...words);
    const send = socket.send.bind(socket) as (...words: unknown[]) => void;
    socket.getSendQueueSize = () => kernel.queuedBytes;
    socket.send = (...sent: unknown[]): void => {
      kernel.asked++;
      if (kernel.refuses === 0) return send(...sent);
      kernel.refuses--;
      const done = sent.at(-1) as (error: Error) => void;
      setImmediate(() => {
        done(Object.assign(new Error("send ENOBUFS"), { code: "ENOBUFS" }));
        happened();
      });
    };
    return socket;
  };
  const channel = (nodeid: number): Promise<DatagramChannel> =>
    channelOf(nodeid, said, heard, { nowMs: () => 0, metrics, sighted() {}, ...(nodeid === 1 ? { openSocket } : {}) });
  const [one, two] = [await channel(1), await channel(2)];
  open.push(one, two);
  two.confirm(1, datagramKeyOf(1), 0);
  const leave: Datagram = { kind: "leave", from: 1, incarnation: "00000000000000aa", view: noView, kept: false };
  const unsent = (): number => metrics.snapshot()["datagrams_unsent"] ?? 0;
  kernel.refuses = 5;
  for (let sent = 0; sent < 5; sent++) one.send(2, leave);
  await until(() => unsent() === 5);
  one.send(2, leave);
  await until(() => heard.length === 1);
  // Full: the kernel is not asked any more, so nothing gathers here.
  kernel.queuedBytes = MAX_QUEUED_BYTES + 1;
  const asked = kernel.asked;
  for (let sent = 0; sent < 1000; sent++) one.send(2, leave);
  expect([kernel.asked - asked, unsent()]).toEqual([0, 1005]);
  kernel.queuedBytes = 0;
  one.send(2, leave);
  await until(() => heard.length === 2);
  expect(said.filter((line) => line.includes("datagram could not be sent"))).toHaveLength(1);
  expect(said[0]).toContain("ENOBUFS");
});

test("a program that asks for a check waits longer than a handshake may take, and becomes no peer", async () => {
  const asked: { limitMs: number; asker: CheckAsker; hasLeft: boolean }[] = [];
  const b = await side(2, {
    check: (limitMs, asker) => {
      const one = { limitMs, asker, hasLeft: false };
      asked.push(one);
      asker({ kind: "going" });
      happened();
      return () => {
        one.hasLeft = true;
        happened();
      };
    },
  });
  const target = { address: "127.77.0.2", port, localAddress: "127.77.0.1", node: "node2" };
  const answer = askPeerToCheck(target, keyring, 2 * HANDSHAKE_TIMEOUT_MS);
  await until(() => asked.length === 1);
  expect(asked[0]).toMatchObject({ limitMs: 4000, hasLeft: false });
  await new Promise((resolve) => setTimeout(resolve, HANDSHAKE_TIMEOUT_MS + HANDSHAKE_LOOK_MS));
  asked[0]?.asker({ kind: "printed", text: '{"node":"node2","findings":[]}' });
  expect(await answer).toEqual({ kind: "checked", findings: [] });
  await until(() => asked[0]?.hasLeft === true);
  expect([b.events, b.refusals, b.said]).toEqual([[], [], []]);
});

test("a program that goes away, or whose connection a dlmd ends, is not waited for", async () => {
  const asked: (() => void)[] = [];
  let left = 0;
  const b = await side(2, {
    check: (_, asker) => {
      asked.push(() => asker({ kind: "printed", text: "" }));
      asker({ kind: "going" });
      happened();
      return () => {
        left += 1;
        happened();
      };
    },
  });
  const target = { address: "127.77.0.2", port, localAddress: "127.77.0.1", node: "node2" };
  // Its whole time is short: it ends the connection.
  expect(await askPeerToCheck(target, keyring, 4000, 200)).toEqual({ kind: "other", words: "no end of its checks within 0.2 s" });
  await until(() => left === 1);
  // To a connection that is over nothing is said.
  asked[0]?.();
  const answer = askPeerToCheck(target, keyring, 4000);
  await until(() => asked.length === 2);
  await b.network.close();
  expect(await answer).toEqual({ kind: "other", words: "it closed the connection before its checks had ended" });
  expect(left).toBe(2);
});
