import { expect, test } from "vitest";
import { type Handshake, type HandshakeStep, type Identity, createHandshake } from "../../../dlmd/driver/handshake.ts";
import { MAX_AGREED } from "../../../dlmd/config/change-codec.ts";
import { MAX_CONFIG_BYTES, MAX_NODES } from "../../../dlmd/config/cluster-config.ts";
import { type AgreedVersion, MAX_TRAIL } from "../../../dlmd/config/trail.ts";
import type { Counting } from "../../../dlmd/wire/view-id.ts";
import { type Seen, decodeSeen, encodeLook } from "../../../dlmd/wire/look.ts";
import { encodeCheck } from "../../../dlmd/wire/self-check.ts";
import { type ClusterKey, connectionProof, createKeyring } from "../../../dlmd/tls/keyring.ts";

const keyOf = (fill: number): ClusterKey => createKeyring([Buffer.alloc(32, fill)]).first;
const binding = Buffer.alloc(32, 9);

function identity(nodeid: number): Identity {
  return {
    protocolVersion: 2,
    cluster: "lab",
    configVersion: 4,
    configHash: Buffer.alloc(32, 4),
    nodeid,
    incarnation: `incarnation-${nodeid}`,
    datagramKey: Buffer.alloc(32, nodeid),
    datagramCounter: 10 * nodeid,
  };
}

interface Side {
  readonly key?: ClusterKey;
  readonly binding?: Buffer;
  readonly objection?: string;
  readonly self?: Partial<Identity>;
  readonly expectedNodeid?: number;
  readonly known?: readonly number[];
  /** False: its configuration comes from a file. */
  readonly agreed?: boolean;
  readonly agreedBy?: readonly number[];
  readonly trail?: readonly AgreedVersion[];
  readonly counting?: Counting | null;
  readonly text?: string;
  readonly look?: () => Seen | null;
  readonly mayCheck?: boolean;
}

function side(
  role: "initiator" | "acceptor",
  nodeid: number,
  {
    self = {},
    expectedNodeid,
    known = [1, 2, 3],
    agreed = true,
    agreedBy = [1, 2, 3],
    trail = [],
    counting = null,
    text = `configuration of node ${nodeid}`,
    look,
    mayCheck = false,
    ...change
  }: Side,
): Handshake {
  return createHandshake({
    key: change.key ?? keyOf(7),
    binding: change.binding ?? binding,
    self: { ...identity(nodeid), ...self },
    objection: () => change.objection ?? null,
    offer: () => (agreed ? { version: self.configVersion ?? 4, text, agreedBy, trail, counting } : null),
    look,
    mayCheck,
    nonce: Buffer.alloc(32, 100 + nodeid),
    role,
    expectedNodeid: expectedNodeid ?? null,
    isKnownNode: (wanted) => known.includes(wanted),
  });
}

/** Runs both to their ends; what each of the two came to. */
function run(initiator: Handshake, acceptor: Handshake): [HandshakeStep, HandshakeStep] {
  const sides = [initiator, acceptor] as const;
  const ends: (HandshakeStep | null)[] = [null, null];
  const wires: Uint8Array[][] = [[acceptor.hello], [initiator.hello]];
  for (let turn = 0; ends.includes(null) && turn < 20; turn++) {
    const at = turn % 2;
    const body = wires[at]?.shift();
    if (body === undefined || ends[at] !== null) continue;
    const step = (sides[at] as Handshake).receive(body);
    if (step.kind !== "more") ends[at] = step;
    if (step.kind !== "done" && step.kind !== "check" && step.send !== null) wires[1 - at]?.push(step.send);
  }
  return ends as [HandshakeStep, HandshakeStep];
}

test("two nodes of one cluster believe each other", () => {
  const [a, b] = run(side("initiator", 2, { expectedNodeid: 1 }), side("acceptor", 1, {}));
  expect(a).toMatchObject({ kind: "done", peer: { nodeid: 1, incarnation: "incarnation-1" } });
  expect(b).toMatchObject({ kind: "done", peer: { nodeid: 2, incarnation: "incarnation-2" } });
  expect(b.kind === "done" && [...b.peer.datagramKey]).toEqual(Array(32).fill(2));
  expect(b.kind === "done" && b.peer.datagramCounter).toBe(20);
});

const refusals: [name: string, initiator: Side, acceptor: Side, reason: string][] = [
  ["wrong key", { key: keyOf(8) }, {}, "wrong proof"],
  ["another TLS connection", { binding: Buffer.alloc(32, 8) }, {}, "wrong proof"],
  ["not wanted now", { objection: "nodeid 1 is taken" }, {}, "nodeid 1 is taken"],
  ["same version, other configuration", { self: { configHash: Buffer.alloc(32) } }, {}, "both have version 4, but not the same"],
  ["other cluster", { self: { cluster: "other" } }, {}, "other cluster"],
  ["unknown node", { known: [1, 2] }, { self: { nodeid: 3 } }, "unknown node"],
  ["protocol version", { self: { protocolVersion: 3 } }, {}, "; install one version of coverlay on both, and restart dlmd there"],
  ["configuration version", { self: { configVersion: 5 } }, {}, "configuration version"],
  ["same node twice", { self: { nodeid: 1 } }, {}, "is taken"],
  ["other node answers", { expectedNodeid: 3 }, {}, "other node: node 3 was called, node 1 answered"],
];
test.each(refusals)("%s: both sides know why", (_name, initiator, acceptor, reason) => {
  for (const end of run(side("initiator", 2, initiator), side("acceptor", 1, acceptor))) {
    expect(end.kind).toBe("refused");
    expect(end.kind === "refused" && end.reason).toContain(reason);
  }
});

test("of two protocol versions each side names its own first", () => {
  const ends = run(side("initiator", 2, { self: { protocolVersion: 3 } }), side("acceptor", 1, {}));
  const words = ends.map((end) => (end.kind === "refused" ? end.reason.split(";")[0] : end.kind));
  const each = ["protocol version: node 1 has 2, node 2 has 3", "protocol version: node 2 has 3, node 1 has 2"];
  expect(new Set(words)).toEqual(new Set(each));
});

test("a node with an older configuration is offered the newer one, and nothing is offered to others", () => {
  const offers = (initiator: Side): unknown[] =>
    run(side("initiator", 2, initiator), side("acceptor", 1, {})).map((end) => end.kind === "refused" && end.offer);
  expect(offers({ self: { configVersion: 3 } })).toEqual([
    { version: 4, text: "configuration of node 1", agreedBy: [1, 2, 3], trail: [], counting: null },
    null,
  ]);
  expect(offers({ self: { configVersion: 5 } })).toEqual([
    null,
    { version: 5, text: "configuration of node 2", agreedBy: [1, 2, 3], trail: [], counting: null },
  ]);
  expect(offers({ self: { configVersion: 3, cluster: "other" } })).toEqual([null, null]);
});

test("what the cluster never agreed on is never offered, and both sides know what to do", () => {
  const ends = run(side("initiator", 2, { self: { configVersion: 5 }, agreed: false }), side("acceptor", 1, {}));
  for (const end of ends) {
    expect(end).toMatchObject({ kind: "refused", offer: null });
    expect(end.kind === "refused" && end.reason).toMatch(
      /version 5 of node 2 comes from its file, and the cluster never agreed on it: stop dlmd there, put the cluster's file there .*, start it with --new-config,/,
    );
    expect(end.kind === "refused" && end.reason).toContain("`coverlay config show` on node 1");
  }
});

test("an offer that more nodes agreed on than there can be is refused", () => {
  const offers = (count: number): unknown =>
    run(side("initiator", 2, { self: { configVersion: 5 }, agreedBy: Array(count).fill(7) }), side("acceptor", 1, {}))[1];
  expect(offers(MAX_AGREED)).toMatchObject({ offer: { agreedBy: Array(MAX_AGREED).fill(7) as number[] } });
  expect(offers(MAX_AGREED + 1)).toMatchObject({ offer: null, reason: "damaged handshake: a configuration that 63 nodes agreed on" });
});

test("an offer with more versions before it, or more nodes in one, than there can be is refused", () => {
  const step = (voters: number, agreed: number): AgreedVersion => {
    const nodes = Array.from({ length: voters }, (_, at) => ({ nodeid: at + 1, votes: 255 }));
    return { version: 0xffff_ffff, nodes, agreedBy: Array.from({ length: agreed }, (_, at) => at + 1) };
  };
  const offers = (trail: readonly AgreedVersion[]): HandshakeStep =>
    run(side("initiator", 2, { self: { configVersion: 5 }, trail }), side("acceptor", 1, {}))[1];
  const largest = Array<AgreedVersion>(MAX_TRAIL).fill(step(MAX_NODES, MAX_AGREED));
  expect(offers(largest)).toMatchObject({ offer: { trail: largest } });
  const damaged = (reason: string): object => ({ offer: null, reason: `damaged handshake: ${reason}` });
  expect(offers(Array(MAX_TRAIL + 1).fill(step(1, 1)))).toMatchObject(damaged("a configuration with 65 versions before it"));
  expect(offers([step(MAX_NODES + 1, 1)])).toMatchObject(damaged("a version before it of 32 nodes"));
  expect(offers([step(1, MAX_AGREED + 1)])).toMatchObject(damaged("a configuration that 63 nodes agreed on"));
});

test("the largest offer fits into a frame of the handshake", () => {
  const nodes = Array.from({ length: MAX_NODES }, (_, at) => ({ nodeid: at + 1, votes: 1 }));
  const agreedBy = Array<number>(MAX_AGREED).fill(7);
  const trail = Array.from({ length: MAX_TRAIL }, () => ({ version: 1, nodes, agreedBy }));
  const text = "x".repeat(MAX_CONFIG_BYTES);
  const nodeids = nodes.map(({ nodeid }) => nodeid);
  const id = { epoch: 2 ** 48, proposer: 31, incarnation: "00000000000000a1" };
  const counting = { id, electorate: { nodeids, former: nodeids } };
  const options = { self: { configVersion: 5 }, agreedBy, trail, text, counting };
  expect(run(side("initiator", 2, options), side("acceptor", 1, {}))[1]).toMatchObject({ offer: { text, counting } });
});

test("a proof sent back to its author is no proof", () => {
  const victim = side("acceptor", 1, {});
  const mirror = side("initiator", 2, { key: keyOf(0) });
  const step = victim.receive(mirror.hello);
  expect(step.kind).toBe("more");
  expect(victim.receive(step.kind === "more" ? (step.send as Uint8Array) : new Uint8Array())).toMatchObject({ kind: "refused" });
});

test("a recorded proof is no proof for another nonce", () => {
  const first = side("acceptor", 1, {});
  const recorded = side("initiator", 2, {});
  first.receive(recorded.hello);
  const step = recorded.receive(first.hello);
  const later = createHandshake({
    key: keyOf(7),
    binding,
    self: identity(1),
    objection: () => null,
    offer: () => null,
    nonce: Buffer.alloc(32, 55),
    role: "acceptor",
    expectedNodeid: null,
    isKnownNode: () => true,
  });
  later.receive(recorded.hello);
  expect(later.receive(step.kind === "more" ? (step.send as Uint8Array) : new Uint8Array())).toMatchObject({ kind: "refused" });
});

const newer = { configVersion: 5 };
const barred: [name: string, newer: Identity, options: Side, reason: string][] = [
  ["a node that is not configured", { ...identity(9), ...newer }, {}, "unknown node"],
  ["our own nodeid", { ...identity(1), ...newer }, {}, "nodeid 1 is taken"],
  ["another node than was called", { ...identity(2), ...newer }, { expectedNodeid: 3 }, "other node: node 3 was called, node 2 answered"],
  ["one that is not wanted now", { ...identity(2), ...newer }, { objection: "not now" }, "configuration version"],
];
test.each(barred)(
  "a HELLO with a newer configuration of %s is refused with its proof, however right that is",
  (_name, self, options, reason) => {
    for (const role of ["initiator", "acceptor"] as const) {
      const us = side(role, 1, options);
      const theirs = role === "initiator" ? "acceptor" : "initiator";
      const peer = side(theirs, self.nodeid, { self });
      expect(us.receive(peer.hello)).toEqual({ kind: "more", send: null });
      const hellos = role === "initiator" ? [us.hello, peer.hello] : [peer.hello, us.hello];
      const proof = connectionProof(keyOf(7), theirs, binding, Buffer.concat(hellos));
      const end = us.receive(Buffer.concat([Buffer.from([2]), proof]));
      expect(end).toMatchObject({ kind: "refused", offer: null, reason: expect.stringContaining(reason) as unknown });
    }
  },
);

test("cut or strange frames are refused, never thrown", () => {
  const hello = side("initiator", 2, {}).hello;
  for (let bytes = 0; bytes < hello.length; bytes++) expect(side("acceptor", 1, {}).receive(hello.subarray(0, bytes)).kind).toBe("refused");
  expect(side("acceptor", 1, {}).receive(Buffer.from([9]))).toMatchObject({ reason: "handshake frame of kind 9" });
  expect(side("acceptor", 1, {}).receive(Buffer.alloc(33, 2))).toMatchObject({ reason: "a PROOF before the HELLO" });
});

test("a program with the key asks what the acceptor sees, once, and is no peer by that", () => {
  const sees: Seen = {
    nodeid: 2,
    incarnation: "incarnation-2",
    cluster: "lab",
    configVersion: 4,
    configHash: new Uint8Array(32),
    quorate: true,
    wallMs: 1_700_000_000_000,
    nodes: [],
  };
  const acceptor = side("acceptor", 2, { look: () => sees });
  const step = acceptor.receive(encodeLook());
  expect(step.kind === "more" && step.send !== null && decodeSeen(step.send)).toEqual(sees);
  expect(acceptor.receive(encodeLook())).toMatchObject({ kind: "refused", reason: "a look out of its place" });
});

test("a look is refused by an initiator, between two lives, and in another version", () => {
  expect(side("initiator", 1, {}).receive(encodeLook())).toMatchObject({ kind: "refused", reason: "a look out of its place" });
  expect(side("acceptor", 2, { look: () => null }).receive(encodeLook())).toMatchObject({ kind: "refused" });
  const later = encodeLook().map((byte, at) => (at === 1 ? 2 : byte));
  expect(side("acceptor", 2, {}).receive(later)).toMatchObject({
    kind: "refused",
    reason: expect.stringContaining("version 2") as unknown,
  });
});

test("a program with the key asks the acceptor to check its machine, once, and nothing else after it", () => {
  const acceptor = side("acceptor", 2, { mayCheck: true });
  expect(acceptor.receive(encodeCheck(7000))).toEqual({ kind: "check", limitMs: 7000 });
  expect(acceptor.receive(encodeCheck(7000))).toMatchObject({
    kind: "refused",
    reason: "a frame of kind 6 behind the question for a check",
  });
  const other = side("acceptor", 2, { mayCheck: true });
  other.receive(encodeCheck(7000));
  expect(other.receive(side("initiator", 1, {}).hello)).toMatchObject({ kind: "refused" });
});

test("a check is refused by an initiator, behind a HELLO, where there is none, and in another version", () => {
  const out = { kind: "refused", reason: "a check out of its place" };
  expect(side("initiator", 1, { mayCheck: true }).receive(encodeCheck(7000))).toMatchObject(out);
  const acceptor = side("acceptor", 2, { mayCheck: true });
  acceptor.receive(side("initiator", 1, {}).hello);
  expect(acceptor.receive(encodeCheck(7000))).toMatchObject(out);
  expect(side("acceptor", 2, {}).receive(encodeCheck(7000))).toMatchObject({ kind: "refused" });
  const later = encodeCheck(7000).map((byte, at) => (at === 1 ? 2 : byte));
  expect(side("acceptor", 2, { mayCheck: true }).receive(later)).toMatchObject({
    kind: "refused",
    reason: expect.stringContaining("a check of version 2") as unknown,
  });
});
