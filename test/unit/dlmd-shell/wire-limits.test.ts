/** Limits of messages: with as many rows or bytes as allowed one is understood; with one more it is refused, and lists are not even written. */
import { describe, expect, test } from "vitest";
import { AssertionError } from "../../../dlmd/base/assert.ts";
import { ByteReader, ByteWriter } from "../../../dlmd/base/bytes.ts";
import { WireError } from "../../../dlmd/base/error.ts";
import type { ConfigMessage } from "../../../dlmd/config/change-event.ts";
import { decodeConfigMessage, encodeConfigMessage } from "../../../dlmd/config/change-codec.ts";
import { MAX_CONFIG_BYTES } from "../../../dlmd/config/cluster-config.ts";
import { maxOwnerWaits } from "../../../dlmd/plock/home.ts";
import { edgesPerRequest } from "../../../dlmd/plock/master.ts";
import { decodeGroupMessage, encodeGroupMessage, type StateMessage } from "../../../dlmd/engine/corosync/message.ts";
import type { Lineage, Member, ViewId } from "../../../dlmd/wire/view-id.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { type Datagram, decodeDatagram, encodeDatagram, largestHeartbeatBytes } from "../../../dlmd/wire/datagram.ts";
import type { Last, StartedView } from "../../../dlmd/wire/order-datagram.ts";
import { type RequestSink, decodeRequests, encodeRequest } from "../../../dlmd/wire/local-batch.ts";
import { type ServerMessage, decodeServerMessage, encodeServerMessage } from "../../../dlmd/wire/local.ts";
import { type Seen, decodeSeen, encodeSeen } from "../../../dlmd/wire/look.ts";
import { type PeerMessage, decodeFrame, encodeFrames } from "../../../dlmd/wire/peer.ts";
import { maxProbeOwners, maxProbeRequests } from "../../../dlmd/wire/peer-plock.ts";
import {
  CheckKind,
  MAX_CHECKED_BYTES,
  MAX_CHECKED_FRAME_BYTES,
  MAX_CHECK_LIMIT_MS,
  MIN_CHECK_LIMIT_MS,
  decodeCheckNews,
  encodeCheck,
  encodeCheckNews,
  readCheck,
} from "../../../dlmd/wire/self-check.ts";
import { datagrams, groupMessages, peerMessages, seen, view } from "../../vector/dlmd/samples.ts";

/** The codecs do not look at the values of a row that a list of them is made of. */
const times = <T>(count: number, row: T): T[] => Array.from({ length: count }, () => row);

interface Encoded {
  readonly bytes: Uint8Array;
  readonly decode: (bytes: Uint8Array) => unknown;
}

function peer<K extends PeerMessage["kind"]>(kind: K, change: Partial<Extract<PeerMessage, { kind: K }>>): Encoded {
  const message = { ...(peerMessages.find((each) => each.kind === kind) as PeerMessage), ...change } as PeerMessage;
  const [body] = encodeFrames(view, [message]);
  return { bytes: body as Uint8Array, decode: decodeFrame };
}

function datagram<K extends Datagram["kind"]>(kind: K, change: Partial<Extract<Datagram, { kind: K }>>): Encoded {
  const message = { ...(datagrams.find((each) => each.kind === kind) as Datagram), ...change } as Datagram;
  return { bytes: encodeDatagram(message), decode: decodeDatagram };
}

function fromServer(message: Exclude<ServerMessage, { kind: "results" }>): Encoded {
  const w = new ByteWriter();
  encodeServerMessage(w, message);
  return { bytes: w.copy(), decode: decodeServerMessage };
}

const rowOf = <K extends PeerMessage["kind"]>(kind: K): Extract<PeerMessage, { kind: K }> =>
  peerMessages.find((each) => each.kind === kind) as Extract<PeerMessage, { kind: K }>;
const victim = rowOf("fenced").victim;
const [range] = rowOf("plock-held").ranges;
const [hop] = rowOf("probe").path;
const [owner] = rowOf("plock-probe").owners;
const [asked] = rowOf("plock-probe").requests;
const [wait] = rowOf("plock-probe-reply").waits;
const [edge] = rowOf("plock-probe-reply").edges;
const member = { nodeid: 3, incarnation: "fedcba9876543210" };
const groupMember = { ...member, clientId: 9 };
const heard = { ...member, seq: 5, tcpUp: true };
const ordered = datagrams.find((each) => each.kind === "state")?.order;
const nodeids = (count: number): number[] => Array.from({ length: count }, (_, at) => at + 1);

function config(message: ConfigMessage): Encoded {
  return { bytes: encodeConfigMessage(message), decode: decodeConfigMessage };
}

const understood =
  ({ bytes, decode }: Encoded) =>
  (): unknown =>
    decode(bytes);

/** A message that says that it has one row more than `most` has: the first byte in which `most` and `fewer` differ is the lowest of that number. */
function oneMore(fewer: Encoded, most: Encoded): Encoded {
  const bytes = most.bytes.slice();
  let at = bytes.findIndex((byte, index) => byte !== fewer.bytes[index]);
  for (; bytes[at] === 0xff; at++) bytes[at] = 0;
  bytes[at] = (bytes[at] as number) + 1;
  return { bytes, decode: most.decode };
}

/** With votes, who counts. */
function commitOf(nodeids: readonly number[], epoch = 7): Encoded {
  const text = JSON.stringify({ cluster: "lab", version: 2, nodes: [{ nodeid: 1, name: "n1", address: "10.0.0.1" }] });
  const record = { version: 2, text, fingerprint: "", nodes: [] };
  const counting = { id: { ...view, epoch }, electorate: { nodeids, former: null } };
  return config({ kind: "commit", epoch: 1, view: "v", record, trail: [], counting });
}

type Limit = [name: string, most: number, make: (count: number) => Encoded];

/** Those whose writers refuse them too. */
const lists: Limit[] = [
  ["hops of a probe", 32, (count) => peer("probe", { path: times(count, hop as NonNullable<typeof hop>) })],
  ["fenced nodes", 1024, (count) => peer("done", { fenced: times(count, victim) })],
  ["rows of file locks", 65_536, (count) => peer("plock-held", { ranges: times(count, range as NonNullable<typeof range>) })],
  ["owners in a probe", 64, (count) => peer("plock-probe", { owners: times(count, owner as NonNullable<typeof owner>) })],
  ["requests in a probe", 64, (count) => peer("plock-probe", { requests: times(count, asked as NonNullable<typeof asked>) })],
  ["nodes heard", 31, (count) => datagram("heartbeat", { heard: times(count, heard) })],
  ["members", 31, (count) => datagram("propose", { members: times(count, member) })],
  ["voters", 31, (count) => datagram("state", { counting: { id: view, electorate: { nodeids: nodeids(count), former: null } } })],
  ["ranges of a NACK", 32, (count) => datagram("nack", { ranges: times(count, { from: 1, to: 2 }) })],
  ["sources of a flush", 32, (count) => datagram("flush", { sources: times(count, { nodeid: 3, from: 1, to: 2 }) })],
  [
    "members of a group",
    8192,
    (count) => fromServer({ kind: "group-members", group: "g", members: times(count, groupMember), joined: [], left: [] }),
  ],
  [
    "locks that are inherited",
    16_384,
    (count) =>
      fromServer({
        kind: "inherited",
        requestId: 1,
        clients: [{ clientId: 1, locks: times(count, { resource: "r", mode: 0 }) }],
        next: null,
      }),
  ],
  ["lockspaces of a client", 64, (count) => peer("client-gone", { lockspaces: times(count, "l") })],
  ["lockspaces that wait", 4096, (count) => peer("gone-waits", { lockspaces: times(count, "l") })],
];

/** Their values are looked at before. */
const others: Limit[] = [
  ["packets held, in bytes of 8", 256 / 8, (count) => datagram("state", { order: { ...ordered, held: new Uint8Array(count) } as never })],
  ["bytes of an answer about locks", 3 * 1024 * 1024, (count) => peer("inspected", { json: new Uint8Array(count) })],
  ["bytes of a resource's name", 64, (count) => peer("offer", { resource: "r".repeat(count) })],
  ["bytes of a value block", 256, (count) => peer("unlock", { lvb: new Uint8Array(count) })],
  ["bytes of a device's path", 1024, (count) => peer("ask-life", { device: "d".repeat(count) })],
  ["nodes that count, with votes", 31, (count) => commitOf(nodeids(count))],
  [
    "characters of a configuration's fingerprint",
    6 * MAX_CONFIG_BYTES,
    (count) => config({ kind: "stored", epoch: 1, view: "v", version: 2, fingerprint: "f".repeat(count) }),
  ],
];

describe("one more than allowed is refused", () => {
  test.each([...lists, ...others])("%s: %i are understood", (_, most, make) => {
    expect(understood(make(most))).not.toThrow();
  });

  test.each(lists)("%s: more than %i are not understood, nor written", (_, most, make) => {
    expect(understood(oneMore(make(most - 1), make(most)))).toThrow(WireError);
    expect(understood(oneMore(make(most - 1), make(most)))).toThrow(`at most ${most} allowed`);
    expect(() => make(most + 1)).toThrow(AssertionError);
    expect(() => make(most + 1)).toThrow(`at most ${most} allowed`);
  });

  test("a range of more than 1024 packets, or of none, is neither understood nor written", () => {
    const ask = (from: number, to: number): Encoded => datagram("ask", { range: { from, to } });
    expect(understood(ask(1, 1024))).not.toThrow();
    expect(understood(oneMore(ask(1, 1023), ask(1, 1024)))).toThrow(WireError);
    for (const to of [1025, 65_538, 0]) expect(() => ask(1, to)).toThrow(AssertionError);
  });

  test.each(others)("%s: more than %i are not understood", (_, most, make) => {
    expect(understood(make(most + 1))).toThrow(WireError);
  });
});

describe("an epoch from which no view could follow is refused, so nobody promises it or keeps it (H4)", () => {
  const state = groupMessages.find((each) => each.kind === "state") as StateMessage;
  const at = (epoch: number): ViewId => ({ ...view, epoch });
  const seenAt = (epoch: number): Lineage => ({ id: at(epoch), members: [], electorate: null });
  const ofGroup = (change: Partial<StateMessage>): Encoded => ({
    bytes: encodeGroupMessage({ ...state, ...change }),
    decode: decodeGroupMessage,
  });

  test.each<[string, (epoch: number) => Encoded]>([
    ["a proposal", (epoch) => datagram("propose", { view: at(epoch) })],
    ["what a heartbeat says is promised", (epoch) => datagram("heartbeat", { promisedEpoch: epoch })],
    ["the view of a heartbeat", (epoch) => datagram("heartbeat", { view: at(epoch) })],
    ["the last view of a state", (epoch) => datagram("state", { seen: seenAt(epoch) })],
    ["the view of who counts in a state", (epoch) => datagram("state", { counting: { id: at(epoch), electorate: null } })],
    ["the view of a frame", (epoch) => ({ bytes: encodeFrames(at(epoch), [rowOf("ack")])[0] as Uint8Array, decode: decodeFrame })],
    ["a state over corosync", (epoch) => ofGroup({ epoch })],
    ["the last view of a state over corosync", (epoch) => ofGroup({ seen: seenAt(epoch) })],
  ])("%s", (_, make) => {
    expect(understood(make(2 ** 48))).not.toThrow();
    for (const epoch of [2 ** 48 + 1, 2 ** 53 - 1]) {
      expect(understood(make(epoch))).toThrow(WireError);
      expect(understood(make(epoch))).toThrow(`epoch ${epoch} at offset`);
    }
  });
});

describe("of 31 nodes that all had a part in everything, a message is no longer than the heartbeats that try the path", () => {
  const all = nodeids(31).map((nodeid) => ({ nodeid: 65_504 + nodeid, incarnation: "fedcba9876543210" }));
  const electorate = { nodeids: all.map(({ nodeid }) => nodeid), former: all.map(({ nodeid }) => nodeid) };
  const quorum = { votes: 31, expected: 31, needed: 16, quorate: true, rule: "votes", configVersion: 4, electorate } as const;
  const lasts = all.map((one) => ({ ...one, n: 2 ** 48 - 1 }));
  const start = { previous: view, cut: 2 ** 53 - 1, together: all.map(({ nodeid }) => ({ nodeid, synced: true })), lasts };
  const started = { id: view, members: all, quorum, start };
  const ackedAgo = all.slice(1).map(({ nodeid }) => ({ nodeid, ms: 2 ** 24 - 1 }));
  // As many as a sequencer has under way.
  const held = new Uint8Array(96 / 8).fill(0xff);
  const body = new Uint8Array(1300);
  const heardAll = all.slice(1).map((one) => ({ ...one, seq: 5, tcpUp: true }));

  test.each<[Datagram["kind"], Encoded]>([
    [
      "state",
      datagram("state", {
        seen: { id: view, members: all },
        counting: { id: view, electorate },
        ackedAgo,
        order: { started, received: 2 ** 53 - 1, held },
      }),
    ],
    [
      "flush",
      datagram("flush", {
        last: started,
        sources: times(32, { nodeid: 3, from: 1, to: 1024 }),
        counted: { configVersion: 4, open: true, electorate },
      }),
    ],
    ["flushed", datagram("flushed", { lasts })],
    ["install", datagram("install", { members: all, quorum, start })],
    ["propose", datagram("propose", { members: all })],
    ["heartbeat", datagram("heartbeat", { heard: heardAll, padding: 0 })],
    ["nack", datagram("nack", { ranges: times(32, { from: 1, to: 1024 }) })],
    ["ordered", datagram("ordered", { body })],
    ["submit", datagram("submit", { body })],
  ])("%s", (kind, message) => {
    expect(message.bytes.byteLength).toBeLessThanOrEqual(largestHeartbeatBytes);
    expect(understood(message)()).toMatchObject({ kind });
  });

  test("what they say is read back", () => {
    const state = { seen: { id: view, members: all }, counting: { id: view, electorate }, ackedAgo, order: { started, received: 7, held } };
    expect(understood(datagram("state", state))()).toMatchObject(state);
    expect(understood(datagram("flush", { last: started }))()).toMatchObject({ last: started });
  });
});

test("who is not among the members of a view has no part in the start of its ordered channel, and half a start is refused", () => {
  const state = datagrams.find((each) => each.kind === "state") as Extract<Datagram, { kind: "state" }>;
  const started = state.order.started as StartedView;
  const [first, second] = started.members as [Member, Member];
  const order = (lasts: readonly Last[], together: StartedView["start"]["together"]): Encoded =>
    datagram("state", { order: { ...state.order, started: { ...started, start: { ...started.start, lasts, together } } } });
  const known = [{ ...second, n: 3 }];
  const found = understood(
    order([...known, { ...first, incarnation: "00000000000000ee", n: 9 }], [{ nodeid: second.nodeid, synced: false }]),
  )();
  expect(found).toMatchObject({ order: { started: { start: { lasts: known, together: [{ nodeid: second.nodeid, synced: false }] } } } });
  const { bytes, decode } = order([], [{ nodeid: first.nodeid, synced: true }]);
  const without = order([], []).bytes;
  // Bits of who comes from the view before, then of who knows the groups.
  const at = bytes.findIndex((byte, index) => byte !== without[index]);
  for (const [together, synced] of [
    [4, 0],
    [1, 2],
    [0, 1],
  ] as const) {
    const wrong = bytes.slice();
    wrong[at] = together;
    wrong[at + 4] = synced;
    expect(() => decode(wrong)).toThrow("not of the view's members");
  }
});

test("nodes that count, with votes, ascend, and are of a view that can be", () => {
  expect(understood(commitOf([1, 3], 2 ** 48))()).toMatchObject({ counting: { electorate: { nodeids: [1, 3], former: null } } });
  for (const wrong of [commitOf([]), commitOf([3, 1]), commitOf([1, 1]), commitOf([0]), commitOf([1], 2 ** 48 + 1)])
    expect(understood(wrong)).toThrow(WireError);
});

test("how long ago a node was acknowledged is rounded down, and cut at 4.6 hours: both let others wait for longer", () => {
  const read = (ms: number): unknown => understood(datagram("state", { ackedAgo: [{ nodeid: 9, ms }] }))();
  expect(read(1500.9)).toMatchObject({ ackedAgo: [{ nodeid: 9, ms: 1500 }] });
  expect(read(1e12)).toMatchObject({ ackedAgo: [{ nodeid: 9, ms: 2 ** 24 - 1 }] });
});

test("a packet's number that not every message can carry is refused", () => {
  expect(understood(datagram("ordered", { n: 2 ** 48 - 1 }))).not.toThrow();
  expect(understood(datagram("ordered", { n: 2 ** 48 }))).toThrow(WireError);
});

test("a configuration of a peer may have a time-out of ANY_TIMEOUT_MS, though a file of ours may not", () => {
  const propose = (timeoutMs: number): (() => unknown) => {
    const nodes = [{ nodeid: 1, name: "n1", address: "10.0.0.1" }];
    const text = JSON.stringify({ cluster: "lab", version: 2, timeoutMs, nodes });
    return understood(config({ kind: "propose", epoch: 1, view: "v", record: { version: 2, text, fingerprint: "", nodes: [] } }));
  };
  expect(propose(1)()).toMatchObject({ kind: "propose", record: { version: 2 } });
  expect(propose(0)).toThrow(/timeoutMs: expected a whole number from 1 to/);
  expect(propose(0)).toThrow(WireError);
});

test("a message that fits into no frame is never sent: the frame would end the connection", () => {
  const frame = 4 * 1024 * 1024;
  const lockspaces = times(64, "l".repeat(64));
  const done = (count: number): Encoded => peer("done", { unfenced: times(count, { ...victim, lockspaces }) });
  const head = done(0).bytes.byteLength;
  const each = done(1).bytes.byteLength - head;
  const most = Math.floor((frame - head) / each);
  expect(done(most).bytes.byteLength).toBeLessThanOrEqual(frame);
  expect(() => done(most + 1)).toThrow(`message of `);
  expect(() => done(most + 1)).toThrow(`at most ${frame} allowed`);
});

test("the longest reply to a probe of file locks is read", () => {
  const waits = times(maxProbeOwners * maxOwnerWaits, wait as NonNullable<typeof wait>);
  const edges = times(maxProbeRequests * (edgesPerRequest + 1), edge as NonNullable<typeof edge>);
  expect(understood(peer("plock-probe-reply", { waits, edges }))).not.toThrow();
});

test("a longer time-out of a request is cut to what its field can carry, 49 days", () => {
  const found: number[] = [];
  const sink = { lock: (...[, , , , , timeoutMs]: Parameters<RequestSink["lock"]>) => found.push(timeoutMs) };
  const w = new ByteWriter();
  for (const timeoutMs of [0xffff_ffff, 0x1_0000_0000, 1e15]) encodeRequest.lock(w, 1, 1, "r", Mode.EX, 0, timeoutMs, 0);
  decodeRequests(new ByteReader(w.view()), sink as unknown as RequestSink);
  expect(found).toEqual([0xffff_ffff, 0xffff_ffff, 0xffff_ffff]);
});

/** Of a node, without words. */
const NODE_BYTES = 14;

test("an answer about 31 nodes, with a hash of 32 bytes and reasons of 512, is understood; with one more it is not", () => {
  const [node] = seen.nodes;
  const answer = (nodes: number, hashBytes: number, words: number): Seen => ({
    ...seen,
    configHash: new Uint8Array(hashBytes),
    nodes: times(nodes, { ...(node as Seen["nodes"][number]), refused: "x".repeat(words) }),
  });
  expect(decodeSeen(encodeSeen(answer(31, 32, 512)))).toEqual(answer(31, 32, 512));
  expect(() => encodeSeen(answer(32, 32, 512))).toThrow(AssertionError);
  expect(() => decodeSeen(encodeSeen(answer(1, 33, 1)))).toThrow(WireError);
  expect(() => decodeSeen(encodeSeen(answer(1, 32, 513)))).toThrow(WireError);
  const many = encodeSeen(answer(31, 32, 0)).slice();
  // The number of nodes: each has 14 bytes without words.
  const at = many.byteLength - 1 - 31 * NODE_BYTES;
  expect(many[at]).toBe(31);
  many[at] = 32;
  expect(() => decodeSeen(many)).toThrow("32 nodes seen");
});

test("a check: its limit is taken for the nearest that is allowed, and what it has printed has a length", () => {
  const limitOf = (limitMs: number): number => readCheck(new ByteReader(encodeCheck(limitMs), 1));
  expect([0, MIN_CHECK_LIMIT_MS, 4000, MAX_CHECK_LIMIT_MS, 2 ** 32 - 1].map(limitOf)).toEqual([100, 100, 4000, 30_000, 30_000]);
  const longest = { kind: "printed", text: "x".repeat(MAX_CHECKED_BYTES) } as const;
  expect(encodeCheckNews(longest)).toHaveLength(MAX_CHECKED_FRAME_BYTES);
  expect(decodeCheckNews(encodeCheckNews(longest))).toEqual(longest);
  const frame = (isPrinted: boolean, bytes: number): Uint8Array =>
    new ByteWriter().u8(CheckKind.CHECKED).u8(1).bool(isPrinted).block(new Uint8Array(bytes).fill(120)).copy();
  expect(() => decodeCheckNews(frame(true, MAX_CHECKED_BYTES + 1))).toThrow(WireError);
  expect(decodeCheckNews(frame(false, 512))).toMatchObject({ kind: "failed" });
  expect(() => decodeCheckNews(frame(false, 513))).toThrow(WireError);
  expect(decodeCheckNews(encodeCheckNews({ kind: "failed", words: "y".repeat(600) }))).toEqual({
    kind: "failed",
    words: `${"y".repeat(506)}...`,
  });
});
