/** What the page shows, made of the reports of one node or of several. */
import { expect, it } from "vitest";
import type { NodeFacts } from "../../../overlay/status/facts.ts";
import { Rates } from "../../../overlay/ui/rates.ts";
import { PROBLEMS_MAX, rateKey, type Snapshot, snapshotOf, type SourceSeen } from "../../../overlay/ui/snapshot.ts";
import { aWait, nodeWith, wellCluster, wellMount, wellNode } from "../status/node.ts";

const source = (name: string, facts: NodeFacts | null, more: Partial<SourceSeen> = {}): SourceSeen => ({
  name,
  facts,
  failure: null,
  ageMs: 3,
  ...more,
});
const silent = { error: "dlmd expected at /run/x, found: nobody answers", code: "dlmd-not-running", hint: "Start dlmd." };
const without: NodeFacts = { ...wellNode, cluster: null, error: silent };
const snapshot = (...sources: SourceSeen[]): Snapshot => snapshotOf(sources, new Rates(), "", 5);
/** The same cluster as another of its nodes sees it. */
const seenBy = (nodeid: number, mount: Partial<NodeFacts["mounts"][number]> = {}): NodeFacts => nodeWith({ nodeid }, mount);

it("one node that is well: its cluster, its nodes, its mounts", () => {
  const seen = snapshot(source("this node", wellNode));
  expect(seen).toMatchObject({ title: "demo", level: "well", seenBy: "node1", quorate: true, problems: [], atMs: 5 });
  expect(seen.quorum).toBe("3 of 3 votes, quorate because 3 >= 2");
  expect(seen.sources).toEqual([{ name: "this node", silence: null, ageMs: 3 }]);
  expect(seen.nodes).toMatchObject([
    { node: "node1", state: "member", mood: "good", owns: [], silence: null },
    { node: "node2", state: "member", owns: ["data"] },
    { node: "node3", state: "member", owns: ["home"] },
  ]);
  expect(seen.volumes).toMatchObject([
    { volume: "data", owner: "node2", lastChange: null },
    { volume: "home", owner: "node3" },
  ]);
  expect(seen.mounts).toMatchObject([{ node: "node1", volume: "data", role: "remote", locks: 3, openFiles: 5, calls: 0, rate: null }]);
  expect(seen.picture.links.map(({ id, isUp }) => [id, isUp])).toEqual([
    ["node1 node2", true],
    ["node1 node3", true],
  ]);
});

it("a node whose dlmd is down says so, and shows its mounts", () => {
  const seen = snapshot(source("this node", without));
  expect(seen).toMatchObject({ title: "", level: "unknown", seenBy: null, quorum: null, quorate: false, nodes: [], history: [] });
  expect(seen.problems).toMatchObject([{ code: "dlmd-silent", found: silent.error, action: "Start dlmd.", saidBy: ["this node"] }]);
  expect(seen.mounts).toMatchObject([{ node: "this node", mountpoint: "/shared" }]);
  expect(seen.sources[0]?.silence).toBe(silent.error);
});

it("a node that was not asked yet, and one whose files cannot be read", () => {
  expect(snapshot(source("this node", null))).toMatchObject({ level: "well", sources: [{ silence: "it has not answered yet" }] });
  const failure = { error: "may not be read", code: "permission", hint: "Use sudo." };
  expect(snapshot(source("this node", null, { failure }))).toMatchObject({
    level: "unknown",
    problems: [{ found: "may not be read", action: "Use sudo." }],
    sources: [{ silence: "may not be read" }],
  });
});

it("of several nodes one with a quorum leads; what all say is said once; a silent one is seen by the others", () => {
  const alone = nodeWith({ nodeid: 1, view: { ...wellCluster.view, quorate: false, members: [1], quorumReason: "1 of 3 votes" } });
  const away = wellCluster.nodes.map((node) => (node.nodeid === 1 ? { ...node, state: "silent", heardAgoMs: 9000 } : node));
  const view = { ...wellCluster.view, members: [2, 3] };
  const others = [2, 3].map((nodeid) => source(`node${nodeid}`, nodeWith({ nodeid, nodes: away, view }, { pid: nodeid })));
  const seen = snapshot(source("node1", alone), ...others, source("node4", without));
  expect(seen.seenBy).toBe("node2");
  expect(seen.problems.map(({ code, saidBy }) => [code, saidBy])).toEqual([
    ["no-quorum", ["node1"]],
    ["node-away", ["node2", "node3"]],
  ]);
  expect(seen.nodes[0]).toMatchObject({ node: "node1", state: "silent", mood: "bad" });
  expect(seen.mounts.map(({ node }) => node)).toEqual(["node1", "node2", "node3", "node4"]);
  const stopped = snapshot(source("node1", seenBy(1)), source("node2", without));
  expect(stopped).toMatchObject({ level: "well", problems: [] });
  expect(stopped.nodes[1]?.silence).toBe(silent.error);
});

it("problems of two nodes are two, though their names differ in digits alone, and each keeps its key while it lasts", () => {
  const members = { ...wellCluster.view, members: [1], incarnations: ["aa"] };
  const awayFor = (heardAgoMs: number): readonly string[] => {
    const nodes = wellCluster.nodes.map((node) => (node.nodeid === 1 ? node : { ...node, state: "silent", heardAgoMs }));
    return snapshot(source("node1", nodeWith({ nodeid: 1, nodes, view: members }))).problems.map(({ key }) => key);
  };
  const keys = ["node2", "node3"].map((node) => JSON.stringify(["node-away", node, null, null]));
  expect(awayFor(9000)).toEqual(expect.arrayContaining(keys));
  expect(awayFor(19_000)).toEqual(awayFor(9000));
});

it("one whose dlmd was started anew knows less of the past, so another one leads", () => {
  const first = (atMs: number) => ({ viewId: "1.1.aa", members: [1], incarnations: ["aa"], quorate: true, quorumReason: "", atMs });
  const facts = (nodeid: number, atMs: number): NodeFacts => nodeWith({ nodeid, views: [first(atMs)] });
  expect(snapshot(source("node1", facts(1, 900)), source("node2", facts(2, 10)), source("node3", facts(3, 10))).seenBy).toBe("node2");
});

it("a link that one side calls down is down", () => {
  const channels = [{ nodeid: 1, downMs: 5000 }];
  const seen = snapshot(source("node1", seenBy(1)), source("node2", nodeWith({ nodeid: 2, channels })));
  expect(seen.picture.links.find(({ id }) => id === "node1 node2")?.isUp).toBe(false);
});

it("rates are those of the source and of that life of the mount", () => {
  const rates = new Rates();
  const key = rateKey("this node", wellMount);
  rates.take(key, 0, { ops: 0, lowerRoundTrips: 0, lockMessagesSent: 0 });
  rates.take(key, 1000, { ops: 50, lowerRoundTrips: 100, lockMessagesSent: 0 });
  const rateOf = (facts: NodeFacts): unknown => snapshotOf([source("this node", facts)], rates, "", 0).mounts[0]?.rate;
  expect(rateOf(wellNode)).toMatchObject({ opsPerS: 50, tripsPerOp: 2 });
  expect(rateOf(nodeWith({}, { pid: 1 }))).toBeNull();
  expect(rateOf(nodeWith({}, { problem: "no answer" }))).toBeNull();
});

it("waits have words and arrows; programs are known by the last part of their path", () => {
  const wait = { ...aWait, kind: "file" as const, waiter: { node: "node2", pid: 7, program: "/usr/bin/python3" } };
  const seen = snapshot(source("this node", { ...wellNode, waits: [wait] }));
  expect(seen.waits).toMatchObject([{ kind: "file", waitingMs: 10_000, words: expect.stringContaining("has waited 10 s for") }]);
  expect(seen.picture.arrows).toHaveLength(1);
  expect(seen.picture.cards[1]?.rows.map(({ label }) => label)).toContain("python3 7");
});

it("the history is that of the leading node", () => {
  const record = { viewId: "1.1.aa", members: [1], incarnations: ["aa"], quorate: false, quorumReason: "1 of 3 votes", atMs: 10 };
  const fences = [{ nodeid: 3, outcome: "fenced", by: "lab", words: "", atMs: 20 }];
  expect(snapshot(source("this node", nodeWith({ views: [record], fences }))).history).toMatchObject([
    { kind: "fence", title: "node3 was fenced" },
    { kind: "view", title: "first view, with node1" },
  ]);
});

it("names that command a terminal or turn a line are shown, in every text", () => {
  const evil = "a\u001b[2J\u202eb\n";
  const waits = [{ ...aWait, what: evil, waiter: { node: "node1", pid: 1, program: evil } }];
  const nodes = wellCluster.nodes.map((node) => ({ ...node, name: node.nodeid === 3 ? evil : node.name }));
  const text = JSON.stringify(snapshot(source("this node", { ...nodeWith({ nodes, clusterName: evil }, { mountpoint: evil }), waits })));
  expect(text).not.toMatch(/\\u001b|\u202e|\\n/);
  expect(text).toContain("a\\\\x1b[2J\\\\u202eb\\\\x0a");
});

it("problems beyond the limit are left out, the worst first", () => {
  const waiters = Array.from({ length: PROBLEMS_MAX + 5 }, (_, pid) => ({ mountPoint: `/m${pid}`, source: "x", pid, logFile: "l" }));
  const seen = snapshot(source("this node", { ...without, waiters }));
  expect(seen.problems).toHaveLength(PROBLEMS_MAX);
  expect(seen.problems[0]?.code).toBe("dlmd-silent");
});
