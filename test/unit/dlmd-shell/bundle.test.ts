/** Datagrams of several messages: the codec, when they may be longer than a frame, and two channels that talk in them. */
import { afterEach, expect, test } from "vitest";
import { WireError } from "../../../dlmd/base/error.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { createMetrics, type Metrics } from "../../../dlmd/base/metric.ts";
import type { NodeConfig } from "../../../dlmd/config/votes.ts";
import { DatagramBundler, type Destination } from "../../../dlmd/driver/datagram-bundler.ts";
import { type DatagramChannel, openDatagramChannel } from "../../../dlmd/driver/datagram-channel.ts";
import { createKeyring } from "../../../dlmd/tls/keyring.ts";
import { DatagramSealer } from "../../../dlmd/driver/seal.ts";
import { decodeUnsealed, encodeBundle, encodeProbe, encodeProbed, frameBundleBytes, maxBundleBytes } from "../../../dlmd/wire/bundle.ts";
import { type Datagram, encodeDatagram } from "../../../dlmd/wire/datagram.ts";
import { maxPacketBytes } from "../../../dlmd/wire/order-datagram.ts";
import { noView } from "../../../dlmd/wire/view-id.ts";
import { datagrams } from "../../vector/dlmd/samples.ts";

const bytesOf = (...values: number[]): Uint8Array => Uint8Array.from(values);

test("what was bundled comes out as it was; a single message is itself", () => {
  const bodies = datagrams.map(encodeDatagram);
  expect(decodeUnsealed(encodeBundle(bodies))).toEqual({ kind: "messages", bodies });
  const [one] = bodies as [Uint8Array];
  expect(encodeBundle([one])).toBe(one);
  expect(decodeUnsealed(one)).toEqual({ kind: "messages", bodies: [one] });
});

test("a bundle's bytes: magic, version, kind, each message after its length", () => {
  expect(Buffer.from(encodeBundle([bytesOf(1, 2), bytesOf(3)])).toString("hex")).toBe("6342010102000102010003");
  expect(Buffer.from(encodeProbed()).toString("hex")).toBe("63420103");
  expect([encodeProbe().byteLength, decodeUnsealed(encodeProbe()).kind]).toEqual([maxBundleBytes, "probe"]);
});

test.each([
  ["cut short", bytesOf(0x63, 0x42, 1, 1, 5, 0, 1)],
  ["of a later version", bytesOf(0x63, 0x42, 2, 1)],
  ["of an unknown kind", bytesOf(0x63, 0x42, 1, 9)],
  ["a probe that is too short", encodeProbe().subarray(1).with(0, 0x63).with(1, 0x42).with(2, 1).with(3, 2)],
  ["an answer with a tail", bytesOf(0x63, 0x42, 1, 3, 0)],
])("a bundle %s is refused", (_, bytes) => {
  expect(() => decodeUnsealed(bytes)).toThrow(WireError);
});

test("longer than a frame only to nodes that said a moment ago that such arrives; these are asked now and then", () => {
  let nowMs = 1000;
  const sent: string[] = [];
  const host = {
    nowMs: () => nowMs,
    nodeids: (to: Destination) => (to === "all" ? [2, 3] : typeof to === "number" ? [to] : to),
    transmit(to: Destination, body: Uint8Array) {
      const unsealed = decodeUnsealed(body);
      sent.push(`${unsealed.kind === "messages" ? unsealed.bodies.length : unsealed.kind} to ${String(to)}`);
    },
  };
  const bundler = new DatagramBundler(host, 3000);
  const give = (to: Destination, messages: number, bytes = 1000): string[] => {
    for (let message = 0; message < messages; message++) bundler.gather(to, new Uint8Array(bytes));
    bundler.flush();
    return sent.splice(0);
  };
  // Short ones need no question.
  expect(give([2, 3], 3, 400)).toEqual(["3 to 2,3"]);
  expect(give([2, 3], 3)).toEqual(["probe to 2,3", "1 to 2,3", "1 to 2,3", "1 to 2,3"]);
  bundler.probed(2);
  expect(give([2, 3], 3)).toEqual(["1 to 2,3", "1 to 2,3", "1 to 2,3"]);
  expect(give(2, 3)).toEqual(["3 to 2"]);
  bundler.probed(3);
  expect(give([2, 3], 20)).toEqual(["16 to 2,3", "4 to 2,3"]);
  nowMs += 300;
  expect(give("all", 3)).toEqual(["probe to 2,3", "3 to all"]);
  nowMs += 700;
  expect(give("all", 2)).toEqual(["probe to 2,3", "1 to all", "1 to all"]);
  bundler.probe(3);
  expect(sent).toEqual(["probed to 3"]);
});

// ------------------------------------------------------------------------------------------------------------ sockets

const nodes: readonly NodeConfig[] = [1, 2].map((nodeid) => ({ nodeid, name: `node${nodeid}`, address: `127.80.0.${nodeid}`, votes: 1 }));
const port = 21_000 + (process.pid % 11_000);
const keyOf = (nodeid: number): Buffer => Buffer.alloc(32, nodeid);
const open: DatagramChannel[] = [];
afterEach(async () => {
  for (const channel of open.splice(0)) await channel.close();
});

async function channelOf(
  nodeid: number,
  receive: (message: Datagram, viaMulticast: boolean, more: boolean) => void,
): Promise<{ channel: DatagramChannel; metrics: Metrics }> {
  const metrics = createMetrics();
  const channel = await openDatagramChannel({
    keyring: createKeyring([Buffer.alloc(32, 7)]),
    cluster: "lab",
    self: nodes[nodeid - 1] as NodeConfig,
    nodes,
    multicast: { group: "none", port },
    timeoutMs: 3000,
    sealer: new DatagramSealer(nodeid, keyOf(nodeid)),
    nowMs: () => 1000,
    log: silentLog,
    metrics,
    receive,
    sighted: () => undefined,
  });
  for (const other of nodes) if (other.nodeid !== nodeid) channel.confirm(other.nodeid, keyOf(other.nodeid), 0);
  open.push(channel);
  return { channel, metrics };
}

const packet = (n: number): Datagram => ({
  kind: "submit",
  from: 1,
  incarnation: "00000000000000aa",
  view: noView,
  n,
  received: 0,
  body: new Uint8Array(maxPacketBytes).fill(n),
});

test("packets of one turn travel one by one until long datagrams are known to arrive, then as few, each once, in order", async () => {
  expect(encodeDatagram(packet(1)).byteLength).toBeLessThanOrEqual(frameBundleBytes);
  const heard: string[] = [];
  let wanted = 0;
  let all = (): void => undefined;
  await channelOf(2, (message, _, more) => {
    heard.push(`${message.kind === "submit" ? message.n : message.kind}${more ? "+" : ""}`);
    if (heard.length === wanted) all();
  });
  const { channel, metrics } = await channelOf(1, () => undefined);
  const give = async (count: number): Promise<{ heard: string[]; datagrams: number }> => {
    const before = metrics.snapshot()["datagrams_sent"] ?? 0;
    wanted = count;
    const arrived = new Promise<void>((resolve) => (all = resolve));
    for (let n = 1; n <= count; n++) channel.gather(2, packet(n));
    channel.flush();
    await arrived;
    return { heard: heard.splice(0), datagrams: (metrics.snapshot()["datagrams_sent"] ?? 0) - before };
  };
  // With the question.
  expect(await give(3)).toEqual({ heard: ["1", "2", "3"], datagrams: 4 });
  // Until its answer is here.
  let given = await give(3);
  while (given.datagrams > 1) given = await give(3);
  expect(given).toEqual({ heard: ["1+", "2+", "3"], datagrams: 1 });
});
