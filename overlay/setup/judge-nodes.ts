/**
 * What the looks at the other nodes mean: ports, firewalls, configuration, keys, multicast, clocks. Pure: facts in, findings out.
 *
 * A firewall that drops is told from a port that nobody has: a closed port is refused by its machine at once (TCP by RST, UDP by ICMP), and a
 * drop is silence. overlay/setup/README.md, "Ports", has the table.
 */
import type { Seen, SeenNode } from "../../dlmd/wire/look.ts";
import { type Finding, judge } from "./finding.ts";

/** Clocks that differ by more: times of files and of logs are in no order between the nodes. */
export const MAX_CLOCK_DIFFERENCE_MS = 1000;

/** `silent`: no answer of any kind. `unreachable`: the network says that it is not there, in `words`. */
export type TcpFact = { readonly kind: "answers" | "refused" | "silent" } | { readonly kind: "unreachable"; readonly words: string };
/** `refused`: its machine said that nobody has the port, so the datagram came there. `not-sent`: a dlmd has it, and says itself what it hears. */
export type UdpFact = { readonly kind: "refused" | "silent" | "not-sent" } | { readonly kind: "unreachable"; readonly words: string };

export type LookFact =
  | { readonly kind: "seen"; readonly seen: Seen; readonly offsetMs: number; readonly doubtMs: number }
  | { readonly kind: "wrong-key"; readonly words: string }
  /** It answers, and cannot be looked at: another program, or a dlmd of before. */
  | { readonly kind: "other"; readonly words: string }
  | { readonly kind: "none" };

/** One node of the configuration, as it was looked at from here. */
export interface NodeFact {
  readonly nodeid: number;
  readonly name: string;
  readonly address: string;
  readonly isSelf: boolean;
  readonly tcp: TcpFact;
  readonly look: LookFact;
  /** By port. */
  readonly udp: ReadonlyMap<number, UdpFact>;
}

export interface ClusterFacts {
  readonly cluster: string;
  readonly peerPort: number;
  readonly multicast: { readonly group: string; readonly port: number };
  readonly timeoutMs: number;
  /** Nothing is to run yet. */
  readonly isBefore: boolean;
  /** dlmd has heartbeats of its own; false: corosync says who is there. */
  readonly hasHeartbeats: boolean;
  readonly nodes: readonly NodeFact[];
  /** Of this node's cluster.yaml; null: it cannot be computed. */
  readonly fileHash: Uint8Array | null;
}

const nameOf = ({ name, address }: NodeFact): string => `${name} (${address})`;
const seenOf = ({ look }: NodeFact): Seen | null => (look.kind === "seen" ? look.seen : null);
const hexOf = (bytes: Uint8Array): string => Array.from(bytes.subarray(0, 4), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Its machine is there: it answered something, or another node hears it. */
function isThere(node: NodeFact, { nodes, timeoutMs }: ClusterFacts): boolean {
  if (node.tcp.kind === "answers" || node.tcp.kind === "refused") return true;
  if ([...node.udp.values()].some(({ kind }) => kind === "refused")) return true;
  return nodes.some((other) => other !== node && hears(other, node.nodeid, timeoutMs));
}

function rowOf(node: NodeFact, nodeid: number): SeenNode | null {
  return seenOf(node)?.nodes.find((row) => row.nodeid === nodeid) ?? null;
}

function hears(node: NodeFact, nodeid: number, timeoutMs: number): boolean {
  const row = rowOf(node, nodeid);
  return row !== null && (row.tcpUp || (row.heardAgoMs !== null && row.heardAgoMs <= timeoutMs));
}

export function judgeNodes(facts: ClusterFacts): Finding[] {
  const others = facts.nodes.filter(({ isSelf }) => !isSelf);
  return [
    ...facts.nodes.filter(({ isSelf }) => isSelf).flatMap((self) => judgeSelf(self, facts)),
    ...others.map((node) => judgeTcp(node, facts)),
    ...judgeConnected(facts),
    ...others.flatMap((node) => judgeUdpProbes(node, facts)),
    ...(facts.hasHeartbeats ? [...judgeHeard(facts), ...judgeViews(facts), judgeMulticast(facts)] : []),
    ...others.flatMap((node) => judgeKey(node)),
    ...facts.nodes.flatMap((node) => judgeConfig(node, facts)),
    ...others.flatMap((node) => judgeClock(node, facts)),
  ];
}

function judgeSelf(self: NodeFact, { isBefore, peerPort }: ClusterFacts): Finding[] {
  const dlmd = judge("dlmd", `this node, ${nameOf(self)}`, isBefore ? "no dlmd yet" : `dlmd runs, and answers on port ${peerPort}`);
  const { look } = self;
  if (look.kind !== "seen") {
    if (isBefore && self.tcp.kind !== "answers") return [dlmd.ok("none")];
    if (isBefore && look.kind === "none")
      return [dlmd.unknown(`something has port ${peerPort} of this machine`, `Without a key it cannot be asked. ss -tlnp names it.`)];
    if (isBefore && look.kind !== "none") {
      return [
        dlmd.fail(
          `another program has port ${peerPort} of this machine: ${look.words}`,
          `ss -tlnp names it. End it, or give the cluster another peerPort.`,
        ),
      ];
    }
    const found = look.kind === "none" ? `port ${peerPort} of this machine: ${self.tcp.kind}` : look.words;
    return [dlmd.fail(found, "Start it: systemctl start dlmd, or dlmd --config FILE. Its log says why, if it does not start.")];
  }
  const { seen } = look;
  const quorum = judge("quorum", `as ${self.name} sees it`, "this node is in a view with a quorum");
  const members = seen.nodes.filter(({ isMember }) => isMember).length;
  const found = `a view of ${members} of ${seen.nodes.length} nodes, ${seen.quorate ? "with" : "without"} a quorum`;
  return [
    dlmd.ok(`incarnation ${seen.incarnation}`),
    seen.quorate ? quorum.ok(found) : quorum.fail(found, "`coverlay status` says which nodes are waited for."),
  ];
}

function judgeTcp(node: NodeFact, facts: ClusterFacts): Finding {
  const { peerPort, isBefore } = facts;
  const port = judge(
    "port-tcp",
    `tcp ${peerPort} of ${nameOf(node)}`,
    isBefore ? "the machine answers on this port, or refuses it" : "dlmd of that node answers",
  );
  switch (node.tcp.kind) {
    case "answers":
      return port.ok("it answers");
    case "refused":
      if (isBefore) return port.ok("the machine is there, nothing drops this port, and nothing listens yet");
      return port.fail(
        "connection refused: the machine is there, and nothing listens on this port",
        `Start dlmd on ${node.name}. If it runs there, a firewall rejects TCP port ${peerPort}, or it listens on another address.`,
      );
    case "unreachable":
      return port.fail(
        `it cannot be reached: ${node.tcp.words}`,
        `Is ${node.name} switched on, is ${node.address} its address, and is there a route to it?`,
      );
    case "silent":
      return isThere(node, facts)
        ? port.fail(
            "no answer, and the machine is there: a firewall drops TCP packets to this port, or their answers",
            `Open TCP port ${peerPort} between all nodes, in the firewall of ${node.name}, of this node, and on the way.`,
          )
        : port.fail(
            "no answer of any kind: the machine is off, or a firewall drops all",
            `Switch ${node.name} on. If it is: open TCP port ${peerPort} between all nodes in each firewall on the way.`,
          );
  }
}

/**
 * Connections that last: each dlmd that could be looked at says to whom it has none. A new connection from here may be answered while that one
 * is cut or refused.
 */
function judgeConnected(facts: ClusterFacts): Finding[] {
  const { peerPort, nodes } = facts;
  return nodes.flatMap((to) =>
    nodes.flatMap((from) => {
      const row = rowOf(to, from.nodeid);
      if (row === null || from === to || row.tcpUp) return [];
      const isHeard = hears(to, from.nodeid, facts.timeoutMs);
      // A node that is off is told of by its port.
      if (!isHeard && row.refused === "" && (from.isSelf ? seenOf(from) === null : from.tcp.kind !== "answers")) return [];
      const port = judge(
        "port-tcp",
        `tcp ${peerPort} between ${from.name} and ${nameOf(to)}`,
        `dlmd of ${to.name} is connected to ${from.name}`,
      );
      const also = isHeard ? ", and hears its heartbeats" : "";
      if (row.refused !== "") {
        return [
          port.fail(`it is not connected${also}: ${row.refused}`, `Mend what is said there. The logs of dlmd on both nodes have more.`),
        ];
      }
      return [
        port.fail(
          `it is not connected${also}, and no refusal is known: TCP is dropped, or one of the two has just started`,
          `Run this again in some seconds. If it stays: open TCP port ${peerPort} between ${from.address} and ${to.address}, in both directions.`,
        ),
      ];
    }),
  );
}

/** Where no dlmd runs: a closed port is refused by its machine. */
function judgeUdpProbes(node: NodeFact, facts: ClusterFacts): Finding[] {
  return [...node.udp].flatMap(([number, fact]) => {
    const port = judge("port-udp", `udp ${number} of ${nameOf(node)}`, "a datagram arrives at the machine");
    switch (fact.kind) {
      case "not-sent":
        return [];
      case "refused":
        return [port.ok("it arrives, and nothing listens yet")];
      case "unreachable":
        return [
          port.fail(`it cannot be reached: ${fact.words}`, `Is ${node.address} the address of ${node.name}, and is there a route to it?`),
        ];
      case "silent":
        return isThere(node, facts)
          ? [
              port.warn(
                "the machine is there, and does not say that this port is closed: a firewall drops datagrams to it, or ICMP on the way back",
                `Open UDP port ${number} between all nodes. Then start dlmd on both, and run coverlay doctor: it sees what arrives.`,
              ),
            ]
          : [];
    }
  });
}

/** Heartbeats: each dlmd that could be looked at says whom it hears. */
function judgeHeard(facts: ClusterFacts): Finding[] {
  const { peerPort, timeoutMs, nodes } = facts;
  return nodes.flatMap((to) =>
    nodes.flatMap((from) => {
      const row = rowOf(to, from.nodeid);
      if (row === null || from === to) return [];
      const port = judge("port-udp", `udp ${peerPort} from ${from.name} to ${nameOf(to)}`, `a heartbeat within ${timeoutMs} ms`);
      if (row.heardAgoMs !== null && row.heardAgoMs <= timeoutMs) return [port.ok(`${row.heardAgoMs} ms ago`)];
      // The keys of datagrams come by TCP: without it no datagram is understood, whether it arrives or not.
      if (!row.tcpUp) return [];
      const ago = row.heardAgoMs === null ? "none was ever heard" : `the last one was ${row.heardAgoMs} ms ago`;
      return [
        port.fail(
          `${ago}, and dlmd of ${from.name} is connected by TCP: UDP is dropped`,
          `Open UDP port ${peerPort} from ${from.address} to ${to.address} in the firewall of ${to.name}, of ${from.name}, and on the way.`,
        ),
      ];
    }),
  );
}

/** Two that hear each other belong into one view: what agrees on it are datagrams to the other port. */
function judgeViews({ nodes, timeoutMs, multicast }: ClusterFacts): Finding[] {
  return nodes.flatMap((a, at) =>
    nodes.slice(at + 1).flatMap((b) => {
      const [ab, ba] = [rowOf(a, b.nodeid), rowOf(b, a.nodeid)];
      if (ab === null || ba === null || ab.isMember || ba.isMember) return [];
      const near = (row: SeenNode): boolean => row.tcpUp && row.heardAgoMs !== null && row.heardAgoMs <= timeoutMs;
      if (!near(ab) || !near(ba)) return [];
      return [
        judge("port-udp", `udp ${multicast.port} between ${a.name} and ${b.name}`, "nodes that hear each other are in one view").warn(
          "they hear each other, and are in no view together: they have just started, or this port is dropped",
          `Run this again in some seconds. If it stays: open UDP port ${multicast.port} between ${a.address} and ${b.address}.`,
        ),
      ];
    }),
  );
}

function judgeMulticast(facts: ClusterFacts): Finding {
  const { multicast, peerPort, nodes, timeoutMs } = facts;
  const about = multicast.group === "none" ? "unicast" : `group ${multicast.group}, udp ${multicast.port} and ${peerPort}`;
  const expected = "each node hears the multicast of each other one, or cluster.yaml says group: none";
  const check = judge("multicast", about, expected);
  if (multicast.group === "none") return check.ok("cluster.yaml says group: none: each node sends to each address");
  const pairs = nodes.flatMap((to) =>
    nodes.flatMap((from) => {
      const row = from === to ? null : rowOf(to, from.nodeid);
      return row === null || row.heardAgoMs === null || row.heardAgoMs > timeoutMs ? [] : [{ to, from, row }];
    }),
  );
  if (facts.isBefore && pairs.length === 0) return check.ok("not tried: nobody sends before dlmd runs");
  if (pairs.length === 0) {
    return check.unknown(
      "no two nodes that could be looked at hear each other: nobody sends",
      "Run coverlay doctor again when dlmd runs on two nodes. Without multicast in the network: multicast: { group: none }.",
    );
  }
  const deaf = pairs.filter(({ row }) => row.multicastAgoMs === null || row.multicastAgoMs > timeoutMs);
  if (deaf.length === 0) return check.ok(`heard in ${pairs.length} of ${pairs.length} directions`);
  return check.warn(
    `unicast arrives and multicast does not: ${deaf.map(({ from, to }) => `from ${from.name} to ${to.name}`).join(", ")}`,
    `It works all the same, with more datagrams. Let the switch forward ${multicast.group} (IGMP snooping needs a querier), open UDP ports ${multicast.port} and ${peerPort} for it, or set group: none.`,
  );
}

function judgeKey(node: NodeFact): Finding[] {
  const key = judge("key-same", nameOf(node), "the same cluster key as this node");
  switch (node.look.kind) {
    case "seen":
      return [key.ok("it is proved, in TLS")];
    case "wrong-key":
      return [key.fail(node.look.words, `Copy the key file of a node that is right to the other one (scp -p), mode 0600.`)];
    case "other":
      return [key.unknown(node.look.words, `Look at the log of dlmd on ${node.name}; is it of another version?`)];
    case "none":
      return [];
  }
}

function judgeConfig(node: NodeFact, { cluster, fileHash, nodes }: ClusterFacts): Finding[] {
  const seen = seenOf(node);
  if (seen === null) return [];
  const same = judge("config-same", nameOf(node), "the configuration of this node's cluster.yaml is in force");
  if (seen.cluster !== cluster) {
    return [
      same.fail(`it is in cluster ${seen.cluster}, not ${cluster}`, `Is ${node.address} the right address, and the file the right one?`),
    ];
  }
  if (seen.nodeid !== node.nodeid) {
    return [
      same.fail(`node ${seen.nodeid} answers there`, "Two nodes have changed places: correct the addresses, or start dlmd with --node."),
    ];
  }
  if (fileHash === null) return [same.unknown("this node's file cannot be read", "Correct it first.")];
  const found = `version ${seen.configVersion}, ${hexOf(seen.configHash)}`;
  if (hexOf(seen.configHash) === hexOf(fileHash) && seen.configHash.byteLength === fileHash.byteLength) return [same.ok(found)];
  const own = nodes.find(({ isSelf }) => isSelf) ?? node;
  return [
    same.fail(
      `${found} there, ${hexOf(fileHash)} in the file of ${own.name}`,
      node.isSelf
        ? "dlmd goes by what was agreed on. To change it: coverlay config apply FILE. To see it: coverlay config show."
        : `Compare them: coverlay config show on both. Give the right one to the cluster with coverlay config apply, or copy the file before dlmd is started.`,
    ),
  ];
}

function judgeClock(node: NodeFact, { isBefore }: ClusterFacts): Finding[] {
  const clock = judge("clock", nameOf(node), `at most ${MAX_CLOCK_DIFFERENCE_MS} ms from the clock of this node`);
  if (node.look.kind !== "seen") {
    if (isBefore || node.look.kind === "none") return [];
    return [clock.unknown("its dlmd could not be asked", "See what is said of its port and its key.")];
  }
  const { offsetMs, doubtMs } = node.look;
  const words = `${Math.abs(Math.round(offsetMs))} ms ${offsetMs < 0 ? "behind" : "ahead"}, give or take ${Math.ceil(doubtMs)} ms`;
  if (Math.abs(offsetMs) - doubtMs <= MAX_CLOCK_DIFFERENCE_MS) return [clock.ok(words)];
  return [
    clock.warn(
      words,
      `Let both follow one source of time (chrony, systemd-timesyncd): times of files and logs are in no order. Locks do not go by it.`,
    ),
  ];
}
