/** What is wrong with the cluster as this node sees it: quorum, locks, nodes, fences, the network. Pure. */
import { nodeWord } from "../../dlmd/base/node-word.ts";
import type { ClusterFacts, NodeFact } from "./facts.ts";
import { type Problem, problem, shortTime } from "./problem.ts";

/** Each member sends many a second: from then on they do not arrive. */
const MULTICAST_GONE_MS = 10_000;
/** A connection that breaks is made again within that time. */
const CHANNEL_DOWN_MS = 2_000;

export function judgeCluster(facts: ClusterFacts): Problem[] {
  return [...judgeQuorum(facts), ...judgeLocks(facts), ...judgeFences(facts), ...judgeNodes(facts), ...judgeNetwork(facts)];
}

export function nameIn(nodes: readonly { readonly nodeid: number; readonly name: string }[]): (nodeid: number) => string {
  return (nodeid) => nodes.find((node) => node.nodeid === nodeid)?.name ?? String(nodeid);
}

/** What to do about a quorum that is not there; null: all that count are there. `counting`: as ClusterFacts. */
export function quorumAction(
  counting: readonly number[] | null,
  members: readonly number[],
  nodes: readonly { readonly nodeid: number; readonly name: string }[],
): string | null {
  const away = (counting ?? nodes.map(({ nodeid }) => nodeid)).filter((nodeid) => !members.includes(nodeid)).map(nameIn(nodes));
  if (away.length === 0) return null;
  if (counting !== null) return `start ${away.join(", ")}; gone for good: coverlay quorum reset --help`;
  return `start ${away.join(", ")}, or mend the network to them; gone for good: coverlay config --help`;
}

function judgeQuorum({ view, counting, nodes }: ClusterFacts): Problem[] {
  if (view.quorate) return [];
  const action = quorumAction(counting, view.members, nodes) ?? "wait some seconds; if it stays: coverlay nodes, and the log of dlmd";
  return [problem("no-quorum", {}, view.quorumReason, action)];
}

/** The name of the volume whose lockspace that is; else the lockspace's own. */
function lockspaceName(lockspace: string, { volumes }: ClusterFacts): string {
  const volume = volumes.find(({ uuid }) => lockspace === `vol-${uuid}`);
  return volume === undefined ? lockspace : `volume ${volume.name}`;
}

function judgeLocks({ view, state }: ClusterFacts): Problem[] {
  if (!view.quorate || (view.running && state === "running")) return [];
  const why = state === "running" ? "a recovery is under way" : state;
  const found = view.running ? `locks of some lockspaces are not granted: ${why}` : `locks are not granted: ${why}`;
  return [problem("locks-wait", {}, found, "it goes on by itself when that is done; if it lasts: coverlay fence show, coverlay nodes")];
}

function judgeFences(facts: ClusterFacts): Problem[] {
  const { nodeid: self, unfenced, fencing, unfencing, devices, nodes } = facts;
  const name = nameIn(nodes);
  const waited = unfenced.map(({ nodeid, lockspaces }) => {
    const node = name(nodeid);
    const where = lockspaces.map((one) => lockspaceName(one, facts)).join(", ");
    const found = `${node} went without a word and is not known to be dead: no lock is granted in ${where}`;
    const step = fencing.find((one) => one.nodeid === nodeid)?.step;
    const device = devices.includes(nodeid) ? "its fence device is used" : "it has no fence device";
    return problem("unfenced", { node }, found, `${step ?? device}; when it is off for sure: coverlay fence ack ${nodeWord(node)} --yes`);
  });
  const failed = fencing.filter(({ rounds }) => rounds > 0);
  return [
    ...waited,
    ...failed.map(({ nodeid, rounds, failure }) => {
      const node = name(nodeid);
      const found = `fencing ${node} has failed ${times(rounds)}, the last: ${failure}`;
      return problem(
        "fence-failed",
        { node },
        found,
        `coverlay fence history; when it is off for sure: coverlay fence ack ${nodeWord(node)} --yes`,
      );
    }),
    ...unfencing.map(({ device, rounds, failure }) => {
      const found = `unfencing ${name(self)} at ${device} has failed ${times(rounds)}: it cannot write to that storage; the last: ${failure}`;
      return problem("fence-failed", { node: name(self) }, found, "it is tried again; what it says is to be mended: coverlay config check");
    }),
  ];
}

function times(rounds: number): string {
  return rounds === 1 ? "once" : `${rounds} times`;
}

function judgeNodes({ nodes }: ClusterFacts): Problem[] {
  return nodes.flatMap((fact) => {
    const { name, state, refused } = fact;
    const about = { node: name };
    const isAway = !["this", "member", "left"].includes(state);
    if (refused !== null) {
      const action = `the words say what differs; coverlay doctor on this node and on ${name} says more`;
      return [problem("node-refused", about, `${name} is not connected: ${refused}`, action)];
    }
    return isAway ? [problem("node-away", about, `${name} is away: ${awayWords(fact)}`, awayAction(fact))] : [];
  });
}

function awayWords({ state, heardAgoMs }: NodeFact): string {
  const heard = heardAgoMs === null ? "never heard since dlmd was started here" : `last heard ${shortTime(heardAgoMs)} ago`;
  if (state === "silent") return heard;
  if (state === "evicted") return `put out of the view, ${heard}`;
  if (state === "other-config") return "it has another configuration than this node";
  return "it is there, and not in the view";
}

function awayAction({ name, state }: NodeFact): string {
  if (state === "other-config") return `coverlay config show here and on ${name}; then coverlay config --help`;
  if (state === "silent") return `start dlmd on ${name}, or mend the network to it; gone for good: coverlay config --help`;
  return `it joins by itself; if it lasts: the log of dlmd here and on ${name}`;
}

function judgeNetwork({ multicast, channels, nodes, view }: ClusterFacts): Problem[] {
  const name = nameIn(nodes);
  const deaf = (multicast?.nodes ?? []).filter(
    ({ nodeid, agoMs }) => view.members.includes(nodeid) && (agoMs === null || agoMs >= MULTICAST_GONE_MS),
  );
  const gone = deaf.map(({ nodeid, agoMs }) => {
    const since = agoMs === null ? "none has arrived" : `none has arrived for ${shortTime(agoMs)}`;
    const found = `of ${name(nodeid)} nothing arrives by multicast: ${since}; each datagram is sent to each node instead`;
    const group = multicast?.group ?? "";
    const action = `let the switch forward ${group} (IGMP snooping needs a querier), or set multicast group: none in cluster.yaml`;
    return problem("multicast-gone", { node: name(nodeid) }, found, action);
  });
  const down = channels.filter(({ downMs }) => downMs !== null && downMs >= CHANNEL_DOWN_MS);
  return [
    ...gone,
    ...down.map(({ nodeid, downMs }) =>
      problem(
        "channel-down",
        { node: name(nodeid) },
        `the connection to ${name(nodeid)}, a member, has been down for ${shortTime(downMs ?? 0)}`,
        `coverlay doctor: the TCP port between here and ${name(nodeid)}`,
      ),
    ),
  ];
}
