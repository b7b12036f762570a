import { expect, test } from "vitest";
import { type Handshake, type HandshakeStep, type Identity, createHandshake } from "../../../dlmd/driver/handshake.ts";

const key = Buffer.alloc(32, 7);

interface Side {
  readonly clusterKey?: Buffer;
  readonly self?: Partial<Identity>;
  readonly expectedNodeid?: number;
  readonly known?: readonly number[];
}

function side(
  role: "initiator" | "acceptor",
  nodeid: number,
  { clusterKey = key, self = {}, expectedNodeid, known = [1, 2, 3] }: Side,
): Handshake {
  return createHandshake({
    clusterKey,
    self: {
      protocolVersion: 1,
      cluster: "lab",
      configVersion: 4,
      nodeid,
      incarnation: `incarnation-${nodeid}`,
      salt: Buffer.alloc(16, nodeid),
      ...self,
    },
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
    if (step.kind !== "done" && step.send !== null) wires[1 - at]?.push(step.send);
  }
  return ends as [HandshakeStep, HandshakeStep];
}

test("two nodes of one cluster believe each other", () => {
  const [a, b] = run(side("initiator", 2, { expectedNodeid: 1 }), side("acceptor", 1, {}));
  expect(a).toMatchObject({ kind: "done", peer: { nodeid: 1, incarnation: "incarnation-1" } });
  expect(b).toMatchObject({ kind: "done", peer: { nodeid: 2, incarnation: "incarnation-2" } });
  expect(b.kind === "done" && [...b.peer.salt]).toEqual(Array(16).fill(2));
});

const refusals: [name: string, initiator: Side, acceptor: Side, reason: string][] = [
  ["wrong key", { clusterKey: Buffer.alloc(32, 8) }, {}, "wrong key"],
  ["other cluster", { self: { cluster: "other" } }, {}, "other cluster"],
  ["unknown node", { known: [1, 2] }, { self: { nodeid: 3 } }, "unknown node"],
  ["protocol version", { self: { protocolVersion: 2 } }, {}, "protocol version"],
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

test("a proof sent back to its author is no proof", () => {
  const victim = side("acceptor", 1, {});
  const mirror = side("initiator", 2, { clusterKey: Buffer.alloc(32) });
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
    clusterKey: key,
    self: { protocolVersion: 1, cluster: "lab", configVersion: 4, nodeid: 1, incarnation: "incarnation-1", salt: Buffer.alloc(16, 1) },
    nonce: Buffer.alloc(32, 55),
    role: "acceptor",
    expectedNodeid: null,
    isKnownNode: () => true,
  });
  later.receive(recorded.hello);
  expect(later.receive(step.kind === "more" ? (step.send as Uint8Array) : new Uint8Array())).toMatchObject({ kind: "refused" });
});

test("cut or strange frames are refused, never thrown", () => {
  const hello = side("initiator", 2, {}).hello;
  for (let bytes = 0; bytes < hello.length; bytes++) expect(side("acceptor", 1, {}).receive(hello.subarray(0, bytes)).kind).toBe("refused");
  expect(side("acceptor", 1, {}).receive(Buffer.from([9]))).toMatchObject({ reason: "handshake frame of kind 9" });
  expect(side("acceptor", 1, {}).receive(Buffer.alloc(33, 2))).toMatchObject({ reason: "a PROOF before the HELLO" });
});
