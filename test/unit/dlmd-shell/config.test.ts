import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { changeObjection } from "../../../dlmd/config/allowed-change.ts";
import { MAX_NODES, MAX_VOLUMES, canonicalConfig, decodeClusterConfig, twoNodeObjection } from "../../../dlmd/config/cluster-config.ts";
import { nearestWord } from "../../../dlmd/base/nearest.ts";

const good = readFileSync(new URL("../../../examples/cluster.yaml", import.meta.url), "utf8");

function refusal(yaml: string, minTimeoutMs?: number): string {
  try {
    decodeClusterConfig(yaml, "cluster.yaml", minTimeoutMs);
  } catch (error) {
    if (error instanceof OperatingError && error.code === "bad-config") return error.message;
    throw error;
  }
  throw new Error("accepted");
}

describe("cluster.yaml", () => {
  test("the examples are accepted", () => {
    const config = decodeClusterConfig(good, "examples/cluster.yaml");
    expect(config.cluster).toBe("lab");
    expect(config.nodes.map((node) => node.nodeid)).toEqual([1, 2, 3]);
    expect(config.volumes[0]?.lower).toBe("device");
    const unicast = readFileSync(new URL("../../../examples/cluster-unicast.yaml", import.meta.url), "utf8");
    expect(decodeClusterConfig(unicast, "x")).toMatchObject({
      keyFile: "cluster.key",
      multicast: { group: "none", port: 7700 },
      peerPort: 7701,
      timeoutMs: 3000,
      volumes: [],
    });
  });

  test("the example of fence devices is accepted", () => {
    const config = decodeClusterConfig(readFileSync(new URL("../../../examples/fencing.yaml", import.meta.url), "utf8"), "x");
    expect(config.nodes.map(({ fence }) => fence?.length)).toEqual([3, 3, 1]);
  });

  test("nodes come back in ascending nodeid", () => {
    const turned = good.replace("nodeid: 1,", "nodeid: 9,");
    expect(decodeClusterConfig(turned, "x").nodes.map((node) => node.nodeid)).toEqual([2, 3, 9]);
  });

  const cases: [name: string, from: string | RegExp, to: string, expected: string][] = [
    ["cluster missing", "cluster: lab", "", "cluster: expected a name of 1 to 32 characters a-z, 0-9 or '-', found nothing"],
    ["cluster too long", "cluster: lab", `cluster: ${"a".repeat(33)}`, "cluster: expected a name of 1 to 32"],
    ["cluster in capitals", "cluster: lab", "cluster: Lab", `cluster: expected a name of 1 to 32 characters a-z, 0-9 or '-', found "Lab"`],
    ["version is no number", "version: 1", "version: one", `version: expected a whole number from 1 to 4294967295, found "one"`],
    [
      "unknown key",
      "peerPort: 7701",
      "peerport: 7701",
      `peerport: expected a known key (did you mean peerPort?), found the unknown key "peerport"`,
    ],
    [
      "one port for multicast and for heartbeats",
      "peerPort: 7701",
      "peerPort: 7700",
      "multicast.port: expected another port than peerPort, whose number heartbeats have on UDP, found 7700, which is peerPort",
    ],
    [
      "no name of a lockspace",
      "fencedLockspaces: []",
      'fencedLockspaces: [""]',
      "fencedLockspaces[0]: expected the name of a lockspace, found",
    ],
    ["unknown key far away", "peerPort: 7701", "colour: red", "colour: expected one of cluster, version, keyFile"],
    ["unknown key of a node", "name: node2", "nmae: node2", "nodes[1].nmae: expected a known key (did you mean name?)"],
    ["unknown key of quorum", "two_node: false", "two_nodes: false", "quorum.two_nodes: expected a known key (did you mean two_node?)"],
    ["two_node with three nodes", "two_node: false", "two_node: true", "quorum.two_node: expected it only with exactly two nodes, found 3"],
    [
      "tie breaker of a stranger",
      "auto_tie_breaker: none",
      "auto_tie_breaker: [2, 7]",
      "quorum.auto_tie_breaker: expected nodeids of this file, found 7",
    ],
    [
      "tie breaker misspelt",
      "auto_tie_breaker: none",
      "auto_tie_breaker: low",
      `quorum.auto_tie_breaker: expected none, lowest, highest, or a list`,
    ],
    ["too many votes", "name: node2", "votes: 256, name: node2", "nodes[1].votes: expected a whole number from 0 to 255 votes, found 256"],
    [
      "an owner that is not preferred",
      "name: node2",
      "owner: always, name: node2",
      `nodes[1].owner: expected preferred, or no such key, found "always"`,
    ],
    ["unknown key of multicast", "port: 7700", "prot: 7700", "multicast.prot: expected a known key (did you mean port?)"],
    [
      "unknown key of a volume",
      "lower: device, path",
      "lowre: device, path",
      "volumes[0].lowre: expected a known key (did you mean lower?)",
    ],
    [
      "group is no group",
      "239.192.77.1",
      "10.1.1.1",
      `multicast.group: expected a multicast address (224.0.0.0 to 239.255.255.255), or none`,
    ],
    ["port too large", "port: 7700", "port: 70000", "multicast.port: expected a whole number from 1 to 65535, found 70000"],
    [
      "time-out too small",
      "timeoutMs: 3000",
      "timeoutMs: 1499",
      "timeoutMs: expected a whole number from 1500 to 600000 milliseconds, found 1499",
    ],
    ["no nodes", /nodes:\n( .*\n)+/, "nodes: []\n", "nodes: expected a list of 1 to 31 nodes, found []"],
    ["nodes are a word", /nodes:\n( .*\n)+/, "nodes: three\n", `nodes: expected a list of 1 to 31 nodes, found "three"`],
    ["a node is a word", /nodes:\n( .*\n)+/, "nodes: [node1]\n", `nodes[0]: expected keys and values, found "node1"`],
    ["nodeid 0", "nodeid: 2", "nodeid: 0", "nodes[1].nodeid: expected a whole number from 1 to 65535, found 0"],
    ["nodeid twice", "nodeid: 2", "nodeid: 1", "nodes[1].nodeid: expected one that no other entry has, found 1, which nodes[0] has"],
    ["name twice", "name: node3", "name: node1", "nodes[2].name: expected one that no other entry has, found node1, which nodes[0] has"],
    [
      "a name is a number",
      "name: node3",
      'name: "1"',
      "nodes[2].name: expected a name that is not all digits, or 3 as the nodeid, found 1",
    ],
    ["address twice", "10.0.0.3", "10.0.0.2", "nodes[2].address: expected one that no other entry has, found 10.0.0.2, which nodes[1] has"],
    [
      "address is a name",
      "10.0.0.3",
      "node3.example",
      `nodes[2].address: expected an IPv4 address such as 10.0.0.1, found "node3.example"`,
    ],
    ...["10.0.0.03", "010.0.0.3", "0.0.0.0", "224.0.0.1", "239.192.0.1", "255.255.255.255", "10.0.0.256", "10.0.0"].map(
      (address): [string, string, string, string] => [
        `address ${address}`,
        "10.0.0.3",
        address,
        `nodes[2].address: expected an IPv4 address such as 10.0.0.1, found "${address}"`,
      ],
    ),
    ["uuid", "6b1c0b5e-3f0e", "6b1c0b5e-3f0", "volumes[0].uuid: expected a uuid"],
    ["lower", "lower: device, path", "lower: disk, path", `volumes[0].lower: expected device or directory, found "disk"`],
    [
      "lower shared",
      "lower: device, path",
      "lower: shared, path",
      "expected device or directory (a path that each node reaches by itself has no place",
    ],
    ["path relative", "path: /dev", "path: dev", "volumes[0].path: expected an absolute path"],
    ["not YAML", "multicast: {", "multicast: [", "line 14, column 46: expected YAML"],
    ["an alias without an anchor", "cluster: lab", "cluster: *lab", "expected every value written out, found an alias"],
    ["an alias within its anchor", "nodes:", "x: &a [*a]\nnodes:", "expected every value written out, found an alias"],
    ["a merge key of YAML 1.1 for a number", /^/, "%YAML 1.1\n---\n<<: 3\n", "(file): expected YAML, found Merge sources must be maps"],
    ["a merge key by its tag", "nodes:", "!!merge <<: 3\nnodes:", "(file): expected YAML, found Merge sources must be maps"],
    ["the tag of a merge key for a value", "cluster: lab", "cluster: !!merge lab", "0-9 or '-', found Symbol(<<)"],
    ["lists in lists without an end", "nodes:", `x: ${"[".repeat(100_000)}\nnodes:`, "expected lists and maps at most 32 deep, found more"],
    ["lists in lists, closed", "nodes:", `x: ${"[".repeat(33)}${"]".repeat(33)}\nnodes:`, "expected lists and maps at most 32 deep"],
    ["empty", /[^]*/, "", "(file): expected keys and values, found null"],
  ];
  test.each(cases)("%s", (_name, from, to, expected) => {
    const text = good.replace(from, to);
    expect(text).not.toBe(good);
    expect(refusal(text)).toContain(expected);
  });

  test("two_node is refused as long as a node has no fence device: each half of a partition would write to the disk", () => {
    const two = good.replace(/ {2}- \{ nodeid: 3.*\n/, "").replace("two_node: false\n  wait_for_all: false", "two_node: true");
    const words =
      "quorum.two_node: expected false, because no fence device is configured for node1 and node2: cut off from each other, both would write to the disk (name a fence device for each node, add a third node, which needs no disk, or set auto_tie_breaker: lowest), found true";
    expect(refusal(two).split("\n  ")).toEqual(["cluster.yaml cannot be used:", words]);
    const { nodes } = decodeClusterConfig(two.replace("two_node: true", "two_node: false"), "x");
    const fence = [[{ device: "ipmi", options: {} }]];
    const [one, other] = nodes.map((node) => ({ ...node, fence }));
    expect(twoNodeObjection([one as (typeof nodes)[0], nodes[1] as (typeof nodes)[0]])).toContain("for node2: cut off");
    expect(twoNodeObjection([one as (typeof nodes)[0], other as (typeof nodes)[0]])).toBeNull();
  });

  test("a text of 256 KiB is taken, and one byte more is refused, before it could be kept or sent", () => {
    const padded = (bytes: number): string => `${good}#${"é".repeat((bytes - good.length - 2) / 2)}`.padEnd(bytes, "x");
    const text = (bytes: number): string => {
      const long = padded(bytes);
      return long.slice(0, long.length - (Buffer.byteLength(long) - bytes));
    };
    expect(decodeClusterConfig(text(262_144), "x").cluster).toBe("lab");
    expect(refusal(text(262_145))).toContain("(file): expected at most 262144 bytes, found 262145");
  });

  test("31 nodes and 256 volumes are taken, and one more of each is refused", () => {
    const nodes = (count: number): string =>
      Array.from({ length: count }, (_, at) => `  - { nodeid: ${at + 1}, name: n${at + 1}, address: 10.0.0.${at + 1} }\n`).join("");
    const volume = (at: number): string =>
      `  - { name: v${at}, uuid: 6b1c0b5e-3f0e-4f0a-9d5c-${String(at).padStart(12, "0")}, lower: device }\n`;
    const volumes = (count: number): string => Array.from({ length: count }, (_, at) => volume(at)).join("");
    const of = (nodeCount: number, volumeCount: number): string =>
      `cluster: lab\nversion: 1\nnodes:\n${nodes(nodeCount)}volumes:\n${volumes(volumeCount)}`;
    expect(decodeClusterConfig(of(MAX_NODES, MAX_VOLUMES), "x").nodes).toHaveLength(31);
    expect(refusal(of(MAX_NODES + 1, 1))).toContain("nodes: expected a list of 1 to 31 nodes");
    expect(refusal(of(1, MAX_VOLUMES + 1))).toContain("volumes: expected a list of 0 to 256 volumes");
  });

  test("with engine: corosync the options of quorum are in corosync.conf, and nothing changes while the cluster runs", () => {
    expect(decodeClusterConfig(good, "x").engine).toBe("builtin");
    const both = good.replace("engine: builtin", "engine: corosync");
    expect(refusal(both)).toContain(
      "quorum: expected no such key with engine: corosync, whose quorum section is in corosync.conf, found {",
    );
    const config = decodeClusterConfig(both.replace(/^quorum:\n( {2}.*\n)*/m, ""), "x");
    expect([config.engine, canonicalConfig(config)]).not.toEqual(["corosync", canonicalConfig({ ...config, engine: "builtin" })]);
    const more = { ...config, version: 2, volumes: [] };
    expect(changeObjection(config, more, [1, 2, 3])).toContain("start each with --new-config");
    expect(changeObjection({ ...config, engine: "builtin" }, config, [1, 2, 3])).toContain("engine cannot be changed");
    expect(changeObjection({ ...config, engine: "builtin" }, { ...more, engine: "builtin" }, [1, 2, 3])).toBeNull();
    expect(refusal(good.replace("engine: builtin", "engine: heartbeat"))).toContain("engine: expected builtin or corosync");
  });

  test("every problem is told at once", () => {
    const message = refusal(good.replace("cluster: lab", "cluster: L").replace("nodeid: 2", "nodeid: 0"));
    expect(message.split("\n")).toHaveLength(3);
  });

  test("tests may lower the least time-out", () => {
    expect(decodeClusterConfig(good.replace("3000", "300"), "x", 300).timeoutMs).toBe(300);
    expect(refusal(good.replace("3000", "299"), 300)).toContain("from 300 to");
  });

  test("nearest word", () => {
    expect(nearestWord("Nodes", ["nodes", "volumes"])).toBe("nodes");
    expect(nearestWord("timeout", ["timeoutMs", "peerPort"])).toBe("timeoutMs");
    expect(nearestWord("zzz", ["nodes"])).toBeNull();
  });
});
