import { array, assert, integer, property } from "fast-check";
import { expect, test } from "vitest";
import { openDiscovery, sealDiscovery } from "../../../dlmd/driver/discovery.ts";
import { createKeyring, overlayKeyOf } from "../../../dlmd/tls/keyring.ts";
import { DatagramOpener, DatagramSealer, REPLAY_WINDOW, SEAL_BYTES, createCounterCell } from "../../../dlmd/driver/seal.ts";

const key = Buffer.alloc(32, 7);
const body = Buffer.from("heartbeat");
const keyring = createKeyring([key]);

function pair(counter = 0): { sealer: DatagramSealer; opener: DatagramOpener } {
  const opener = new DatagramOpener(2, [1, 2, 3]);
  opener.confirm(1, key, counter);
  return { sealer: new DatagramSealer(1, key), opener };
}

test("golden vectors: fixed key, salt and counter", () => {
  const { sealer } = pair();
  sealer.seal(body);
  expect(sealer.seal(body).toString("hex")).toBe(
    "43564447020101001b27c14baf37edba02000000000000001bb98ad2c0be7becaf9197c61f356500080eb7374c7332d87e",
  );
  expect(sealDiscovery(keyring, "lab", 1, Buffer.alloc(16, 3)).toString("hex")).toBe(
    "4356444702020100df82bf1803030303030303030303030303030303395261913574b41f2bf41a40046c3b4f3d07cc",
  );
  expect(overlayKeyOf(keyring.first, "lab").id).toBe(keyring.first.id);
  expect(Buffer.from(overlayKeyOf(keyring.first, "lab").bytes).toString("hex")).toBe(
    "cb24e76c1df5b59aef4c7387ba31e1f7c4b80e588a1fed8facea2e008a095abd",
  );
});

test("what was sealed opens, once", () => {
  const { sealer, opener } = pair();
  const datagram = sealer.seal(body);
  expect(datagram).toHaveLength(body.length + SEAL_BYTES);
  const opened = opener.open(datagram);
  expect(opened.kind === "body" && Buffer.from(opened.body).toString()).toBe("heartbeat");
  expect(opener.open(datagram)).toEqual({ kind: "dropped", reason: "replayed" });
});

test("out of order inside the window, each once; older ones are replays", () => {
  const { sealer, opener } = pair();
  const datagrams = Array.from({ length: REPLAY_WINDOW + 2 }, () => sealer.seal(body));
  const open = (at: number): string => {
    const opened = opener.open(datagrams[at] as Buffer);
    return opened.kind === "dropped" ? opened.reason : opened.kind;
  };
  expect([open(5), open(3), open(5), open(3), open(4)]).toEqual(["body", "body", "replayed", "replayed", "body"]);
  expect([open(REPLAY_WINDOW + 1), open(1), open(2), open(2), open(5)]).toEqual(["body", "replayed", "body", "replayed", "replayed"]);
});

test("the window against a set, whatever order", () => {
  assert(
    property(array(integer({ min: 0, max: 3 * REPLAY_WINDOW }), { maxLength: 60 }), (order) => {
      const { sealer, opener } = pair();
      const datagrams = Array.from({ length: 3 * REPLAY_WINDOW + 1 }, () => sealer.seal(Buffer.alloc(1)));
      const heard = new Set<number>();
      let highest = 0;
      for (const at of order) {
        const fresh = !heard.has(at) && highest - (at + 1) < REPLAY_WINDOW;
        expect(opener.open(datagrams[at] as Buffer).kind === "body").toBe(fresh);
        if (fresh) heard.add(at);
        highest = Math.max(highest, at + 1);
      }
    }),
    { numRuns: 10 },
  );
});

test("hazard H6: what was sent before the key was given is not heard, though the window would have room", () => {
  const { sealer, opener } = pair(3);
  const datagrams = [1, 2, 3, 4, 5].map(() => sealer.seal(body));
  expect(datagrams.map((datagram) => opener.open(datagram).kind)).toEqual(["dropped", "dropped", "dropped", "body", "body"]);
});

test("a datagram with any bit changed is not heard", () => {
  const datagram = pair().sealer.seal(body);
  for (let bit = 0; bit < datagram.length * 8; bit++) {
    const damaged = Buffer.from(datagram);
    damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7));
    expect(pair().opener.open(damaged).kind).not.toBe("body");
  }
  for (let bytes = 0; bytes < datagram.length; bytes++) expect(pair().opener.open(datagram.subarray(0, bytes)).kind).toBe("dropped");
});

test("a forged counter does not move the window", () => {
  const { sealer, opener } = pair();
  const real = sealer.seal(body);
  const forged = Buffer.from(real);
  forged.writeBigUInt64LE(1_000_000n, 16);
  expect(opener.open(forged)).toEqual({ kind: "dropped", reason: "damaged" });
  expect(opener.open(real).kind).toBe("body");
});

test("foreign, own, unknown nodes, another key", () => {
  const { opener } = pair();
  expect(opener.open(Buffer.alloc(100, 1))).toEqual({ kind: "dropped", reason: "foreign" });
  expect(opener.open(new DatagramSealer(2, key).seal(body))).toEqual({ kind: "own" });
  expect(opener.open(new DatagramSealer(4, key).seal(body))).toEqual({ kind: "dropped", reason: "unknown-node" });
  expect(opener.open(new DatagramSealer(1, Buffer.alloc(32, 8)).seal(body))).toEqual({ kind: "dropped", reason: "unknown-key" });
  // Node 3 with node 1's key: the nodeid is under the seal, and node 3 gave no key.
  expect(opener.open(new DatagramSealer(3, key).seal(body))).toEqual({ kind: "dropped", reason: "unknown-key" });
});

test("the key of a new incarnation replaces the former one, so nothing of that one is heard", () => {
  const { sealer, opener } = pair();
  const early = sealer.seal(body);
  const later = Buffer.alloc(32, 9);
  opener.confirm(1, later, 0);
  expect(opener.open(new DatagramSealer(1, later).seal(body)).kind).toBe("body");
  expect(opener.open(early)).toEqual({ kind: "dropped", reason: "unknown-key" });
});

test("the same key again keeps the window; a node that left the configuration is forgotten", () => {
  const { sealer, opener } = pair();
  const datagram = sealer.seal(body);
  opener.open(datagram);
  opener.confirm(1, Buffer.from(key), 0);
  expect(opener.open(datagram)).toEqual({ kind: "dropped", reason: "replayed" });
  opener.setNodes([2, 3]);
  expect(opener.open(sealer.seal(body))).toEqual({ kind: "dropped", reason: "unknown-node" });
  opener.setNodes([1, 2, 3]);
  expect(opener.open(sealer.seal(body))).toEqual({ kind: "dropped", reason: "unknown-key" });
});

test("two sealers with one cell never use a counter twice", () => {
  const cell = createCounterCell();
  const { opener } = pair();
  const [heartbeats, messages] = [new DatagramSealer(1, key, cell), new DatagramSealer(1, key, new BigInt64Array(cell.buffer))];
  const datagrams = [heartbeats, messages, messages, heartbeats].map((sealer) => sealer.seal(body));
  expect(datagrams.map((datagram) => opener.open(datagram).kind)).toEqual(["body", "body", "body", "body"]);
  expect(messages.counter).toBe(4);
});

test("discovery: any of the keys, one cluster, no bit changed", () => {
  const older = createKeyring([Buffer.alloc(32, 8)]);
  const both = createKeyring([key, Buffer.alloc(32, 8)]);
  const datagram = sealDiscovery(older, "lab", 1);
  expect(new DatagramOpener(2, [1, 2]).open(datagram)).toEqual({ kind: "discovery", nodeid: 1 });
  expect(openDiscovery(both, "lab", datagram)).toEqual({ kind: "node", nodeid: 1 });
  expect(openDiscovery(keyring, "lab", datagram)).toEqual({ kind: "dropped", reason: "unknown-key" });
  expect(openDiscovery(both, "other", datagram)).toEqual({ kind: "dropped", reason: "other-cluster" });
  expect(sealDiscovery(older, "lab", 1)).not.toEqual(datagram);
  for (let bit = 8 * 6; bit < datagram.length * 8; bit++) {
    const damaged = Buffer.from(datagram);
    damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7));
    expect(openDiscovery(both, "lab", damaged).kind).toBe("dropped");
  }
  for (let bytes = 0; bytes < datagram.length; bytes++)
    expect(openDiscovery(both, "lab", datagram.subarray(0, bytes)).kind).toBe("dropped");
});

test("what was begun before there was something to seal or to open: every counter once, nothing lost, nothing heard twice", () => {
  const cell = createCounterCell();
  const sealer = new DatagramSealer(1, key, cell);
  const opener = new DatagramOpener(2, [1, 2]);
  opener.confirm(1, key, 0);
  const counterOf = (datagram: Buffer): number => Number(datagram.readBigUInt64LE(16));
  const datagrams: Buffer[] = [];
  for (let n = 1; n <= 6; n++) {
    if (n % 2 === 0) sealer.prepare();
    // Of the heartbeats' thread, in between.
    if (n === 4) Atomics.add(cell, 0, 1n);
    const datagram = sealer.seal(Buffer.from([n]));
    datagrams.push(datagram);
    expect(opener.open(datagram)).toEqual({ kind: "body", nodeid: 1, body: Buffer.from([n]) });
    opener.prepare();
    expect(opener.open(datagram)).toEqual({ kind: "dropped", reason: "replayed" });
  }
  expect(datagrams.map(counterOf)).toEqual([1, 2, 3, 4, 6, 7]);
  // Not of the counter that is expected, then of it, but damaged.
  sealer.seal(Buffer.alloc(1));
  const next = sealer.seal(Buffer.from([8]));
  expect(opener.open(next)).toMatchObject({ kind: "body" });
  opener.prepare();
  const last = sealer.seal(Buffer.from([9]));
  const damaged = Buffer.from(last);
  damaged[damaged.length - 1] = (damaged.at(-1) as number) ^ 1;
  expect(opener.open(damaged)).toEqual({ kind: "dropped", reason: "damaged" });
  expect(opener.open(last)).toMatchObject({ kind: "body" });
});

test("a counter that was taken before a peer got the key, or long ago, is not used", () => {
  const cell = createCounterCell();
  const sealer = new DatagramSealer(1, key, cell);
  sealer.prepare();
  const opener = new DatagramOpener(2, [1, 2]);
  opener.confirm(1, key, sealer.counter);
  expect(opener.open(sealer.seal(Buffer.alloc(1)))).toMatchObject({ kind: "body" });
  sealer.prepare();
  Atomics.add(cell, 0, BigInt(REPLAY_WINDOW / 2));
  expect(sealer.seal(Buffer.alloc(1)).readBigUInt64LE(16)).toBe(BigInt(REPLAY_WINDOW / 2 + 4));
});
