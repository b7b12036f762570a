/** What looks at other nodes mean: each kind of firewall, refusal and difference is told from the others, by name and port. */
import { describe, expect, it } from "vitest";
import type { Seen, SeenNode } from "../../../dlmd/wire/look.ts";
import type { Finding } from "../../../overlay/setup/finding.ts";
import { type ClusterFacts, type NodeFact, MAX_CLOCK_DIFFERENCE_MS, judgeNodes } from "../../../overlay/setup/judge-nodes.ts";

const hash = new Uint8Array(32).fill(7);

const row = (nodeid: number, change: Partial<SeenNode> = {}): SeenNode => ({
  nodeid,
  heardAgoMs: 100,
  multicastAgoMs: 100,
  tcpUp: true,
  isMember: true,
  refused: "",
  ...change,
});

const seen = (nodeid: number, change: Partial<Seen> = {}): Seen => ({
  nodeid,
  incarnation: `life-${nodeid}`,
  cluster: "lab",
  configVersion: 1,
  configHash: hash,
  quorate: true,
  wallMs: 0,
  nodes: [row(1), row(2), row(3)],
  ...change,
});

const looked = (nodeid: number, change: Partial<Seen> = {}, offsetMs = 0): NodeFact["look"] => ({
  kind: "seen",
  seen: seen(nodeid, change),
  offsetMs,
  doubtMs: 5,
});

function node(nodeid: number, change: Partial<NodeFact> = {}): NodeFact {
  const basic = { nodeid, name: `node${nodeid}`, address: `10.0.0.${nodeid}`, isSelf: nodeid === 1 };
  return { ...basic, tcp: { kind: "answers" }, look: looked(nodeid), udp: new Map(), ...change };
}

function facts(nodes: readonly NodeFact[], change: Partial<ClusterFacts> = {}): ClusterFacts {
  return {
    cluster: "lab",
    peerPort: 7701,
    multicast: { group: "239.192.77.1", port: 7700 },
    timeoutMs: 3000,
    isBefore: false,
    hasHeartbeats: true,
    nodes,
    fileHash: hash,
    ...change,
  };
}

/** What is not well. */
function wrong(nodes: readonly NodeFact[], change: Partial<ClusterFacts> = {}): Pick<Finding, "check" | "status" | "about" | "found">[] {
  const found = judgeNodes(facts(nodes, change)).filter(({ status }) => status !== "ok");
  expect(found.every(({ action }) => action !== "")).toBe(true);
  return found;
}

const none = { kind: "none" } as const;
const text = (words: string): unknown => expect.stringContaining(words);

it("three nodes that see each other are well", () => {
  expect(wrong([node(1), node(2), node(3)])).toEqual([]);
});

describe("TCP", () => {
  it("a refusal says that the machine is there, and nothing listens", () => {
    const found = wrong([node(1), node(2, { tcp: { kind: "refused" }, look: none })]);
    expect(found).toMatchObject([{ check: "port-tcp", status: "fail", about: "tcp 7701 of node2 (10.0.0.2)", found: text("refused") }]);
  });

  it("silence of a machine that others hear is a firewall", () => {
    const found = wrong([node(1), node(2, { tcp: { kind: "silent" }, look: none }), node(3)]);
    expect(found).toMatchObject([{ check: "port-tcp", status: "fail", about: text("node2"), found: text("a firewall drops TCP") }]);
  });

  it("silence of a machine of which nobody knows is a machine that is off, or a firewall", () => {
    const deaf = [row(1), row(2, { heardAgoMs: null, multicastAgoMs: null, tcpUp: false, isMember: false })];
    const found = wrong([node(1, { look: looked(1, { nodes: deaf }) }), node(2, { tcp: { kind: "silent" }, look: none })]);
    expect(found).toMatchObject([
      { check: "port-tcp", status: "fail", found: text("the machine is off") },
      { check: "multicast", status: "unknown" },
    ]);
  });

  it.each([
    ["while heartbeats go on", { heardAgoMs: 100 }, "hears its heartbeats, and no refusal is known: TCP is dropped"],
    ["before a datagram could be understood", { heardAgoMs: null, multicastAgoMs: null, isMember: false }, "TCP is dropped"],
    ["with the reason of a refusal", { heardAgoMs: null, multicastAgoMs: null, refused: "version: node 2 has 3" }, "version: node 2 has 3"],
  ])("a connection between two that is not there is a failure, and UDP is not blamed: %s", (_, change, words) => {
    const cut = looked(3, { nodes: [row(1), row(2, { ...change, tcpUp: false }), row(3)] });
    expect(wrong([node(1), node(2), node(3, { look: cut })])).toMatchObject([
      { check: "port-tcp", status: "fail", about: "tcp 7701 between node2 and node3 (10.0.0.3)", found: text(words) },
    ]);
  });

  it("what the network says is told", () => {
    const found = wrong([node(1), node(2, { tcp: { kind: "unreachable", words: "EHOSTUNREACH" }, look: none })]);
    expect(found).toMatchObject([{ check: "port-tcp", status: "fail", found: text("EHOSTUNREACH") }]);
  });

  it("before anything runs a refusal is well", () => {
    const udp = new Map([
      [7701, { kind: "refused" } as const],
      [7700, { kind: "refused" } as const],
    ]);
    const nodes = [node(1, { tcp: { kind: "refused" }, look: none }), node(2, { tcp: { kind: "refused" }, look: none, udp })];
    expect(wrong(nodes, { isBefore: true })).toEqual([]);
    expect(wrong(nodes, { isBefore: true, multicast: { group: "none", port: 7700 } })).toEqual([]);
  });
});

it("before anything runs another program on this node's own port is a failure", () => {
  const of = (look: NodeFact["look"]): unknown =>
    wrong([node(1, { look }), node(2, { tcp: { kind: "refused" }, look: none })], { isBefore: true });
  expect(of({ kind: "other", words: "no TLS" })).toMatchObject([{ check: "dlmd", status: "fail", found: text("no TLS") }]);
  expect(of({ kind: "wrong-key", words: "wrong key" })).toMatchObject([{ check: "dlmd", status: "fail" }]);
  expect(of(none)).toMatchObject([{ check: "dlmd", status: "unknown" }]);
});

describe("UDP", () => {
  it("a port that is dropped is told where nothing listens, by its number", () => {
    const udp = new Map([
      [7701, { kind: "refused" } as const],
      [7700, { kind: "silent" } as const],
    ]);
    const found = wrong([node(1, { look: none }), node(2, { tcp: { kind: "refused" }, look: none, udp: new Map([...udp].slice(1)) })]);
    expect(found.filter(({ check }) => check === "port-udp")).toMatchObject([{ status: "warn", about: "udp 7700 of node2 (10.0.0.2)" }]);
  });

  it.each([
    ["never heard", null],
    ["heard long ago", 3001],
  ])("a node that is connected by TCP and %s: UDP is dropped, in that direction", (_, heardAgoMs) => {
    const deaf = looked(3, { nodes: [row(1), row(2, { heardAgoMs, multicastAgoMs: null }), row(3)] });
    const found = wrong([node(1), node(2), node(3, { look: deaf })]);
    expect(found).toMatchObject([
      { check: "port-udp", status: "fail", about: "udp 7701 from node2 to node3 (10.0.0.3)", found: text("UDP is dropped") },
    ]);
  });

  it("two that hear each other and have no view together: the other port", () => {
    const alone = (nodeid: number, other: number): NodeFact =>
      node(nodeid, { look: looked(nodeid, { nodes: [row(nodeid), row(other, { isMember: false })] }) });
    expect(wrong([alone(1, 2), alone(2, 1)])).toMatchObject([
      { check: "port-udp", status: "warn", about: text("udp 7700 between node1 and node2") },
    ]);
  });

  it("multicast that does not come is a warning, and names the direction", () => {
    const deaf = looked(3, { nodes: [row(1), row(2, { multicastAgoMs: 3001 }), row(3)] });
    const nodes = [node(1), node(2), node(3, { look: deaf })];
    expect(wrong(nodes)).toMatchObject([{ check: "multicast", status: "warn", found: text("from node2 to node3") }]);
    expect(wrong(nodes, { multicast: { group: "none", port: 7700 } })).toEqual([]);
  });

  it("over corosync nobody waits for heartbeats", () => {
    const deaf = looked(3, { nodes: [row(1), row(2, { heardAgoMs: null, multicastAgoMs: null }), row(3)] });
    expect(wrong([node(1), node(2), node(3, { look: deaf })], { hasHeartbeats: false })).toEqual([]);
  });
});

describe("what the other dlmd says of itself", () => {
  it("another key, another program, another configuration, cluster or node", () => {
    const of = (change: Partial<NodeFact>): unknown => wrong([node(1), node(2, change)]).map(({ check, status }) => `${check} ${status}`);
    expect(of({ look: { kind: "wrong-key", words: "wrong key" } })).toEqual(["key-same fail", "clock unknown"]);
    expect(of({ look: { kind: "other", words: "no TLS" } })).toEqual(["key-same unknown", "clock unknown"]);
    expect(of({ look: looked(2, { configHash: new Uint8Array(32).fill(8) }) })).toEqual(["config-same fail"]);
    expect(of({ look: looked(2, { cluster: "other" }) })).toEqual(["config-same fail"]);
    expect(of({ look: looked(9) })).toEqual(["config-same fail"]);
  });

  it("a clock is told from beyond the limit and the doubt, either way", () => {
    const of = (offsetMs: number): unknown => wrong([node(1), node(2, { look: looked(2, {}, offsetMs) })]);
    expect([of(MAX_CLOCK_DIFFERENCE_MS + 5), of(-MAX_CLOCK_DIFFERENCE_MS - 5)]).toEqual([[], []]);
    expect(of(MAX_CLOCK_DIFFERENCE_MS + 6)).toMatchObject([{ check: "clock", status: "warn", found: text("ahead") }]);
    expect(of(-MAX_CLOCK_DIFFERENCE_MS - 6)).toMatchObject([{ check: "clock", status: "warn", found: text("behind") }]);
  });

  it("this node without a dlmd, and without a quorum", () => {
    expect(wrong([node(1, { tcp: { kind: "refused" }, look: none }), node(2)])).toMatchObject([{ check: "dlmd", status: "fail" }]);
    expect(wrong([node(1, { look: looked(1, { quorate: false }) }), node(2)])).toMatchObject([{ check: "quorum", status: "fail" }]);
  });
});
