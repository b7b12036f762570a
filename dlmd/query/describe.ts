/** A node's state as plain JSON data (answer.ts), and a lock's (wire/inspect-answer.ts). */
import type { ViewInfo } from "../wire/program.ts";
import { MAYKEEP } from "../wire/flag.ts";
import type { Lkb } from "../lock/lkb.ts";
import type { LockAnswer, LockspaceAnswer } from "../wire/inspect-answer.ts";
import { Mode, modeNames } from "../wire/mode.ts";
import type { ChannelAnswer, EngineAnswer, FencingAnswer, GoneWaitAnswer, NodeAnswer, StatusAnswer } from "./answer.ts";
import type { QueriedNode } from "./queried-node.ts";
import { type EnginePeer, livingIncarnation } from "../engine/engine.ts";
import { rowOf } from "../recovery/gone-gate.ts";
import type { Victim } from "../wire/peer-message.ts";
import { DAEMON_GROUP_PREFIX } from "../wire/lockspace-group.ts";
import { viewName } from "../wire/view-id.ts";

/** Lockspaces shown. */
const shownLockspaces = 256;

/** A node that is refused is called again within seconds; what was said longer ago may not be so any more. */
export const REFUSAL_SHOWN_MS = 30_000;

function describeEngine({ engine: { figures } }: QueriedNode): EngineAnswer {
  return { ...figures, groups: figures.groups.filter((group) => !group.startsWith(DAEMON_GROUP_PREFIX)).length };
}

function describeChannels(node: QueriedNode, nowMs: number): ChannelAnswer[] {
  const others = (node.recovery.view?.members ?? []).filter(({ nodeid }) => nodeid !== node.boot.nodeid);
  return others.map(({ nodeid }) => {
    const { channel, held, paused } = node.recovery.channels.get(nodeid);
    const downMs = channel.downSinceMs === null ? null : Math.max(0, Math.round(nowMs - channel.downSinceMs));
    return { nodeid, downMs, unacked: channel.unacked, held: held.length, paused };
  });
}

function describeVictim({ nodeid, incarnation, failingView }: Victim): StatusAnswer["fenced"][number] {
  return { nodeid, incarnation, failingView: viewName(failingView) };
}

/** Which nodes have them open; of all, or of those that are wanted. */
export function describeLockspaces({ lockspaces }: QueriedNode, wanted?: ReadonlySet<string>): LockspaceAnswer[] {
  const found = [...lockspaces.table()].filter(([lockspace]) => wanted?.has(lockspace) !== false);
  return found.slice(0, shownLockspaces).map(([lockspace, nodeids]) => ({ lockspace, nodeids }));
}

function describeKept({ clients: { kept } }: QueriedNode, nowMs: number): StatusAnswer["kept"] {
  return [...kept.all].map((client) => ({
    clientId: client.id,
    pid: client.pid,
    program: client.program,
    lockspaces: [...new Set([...client.lockspaces.values()].map(({ name }) => name))],
    locks: client.locks.size,
    leftMs: kept.leftMs(client, nowMs) ?? 0,
  }));
}

function describeGoneWaits({ deaths, recovery, boot: { nodeid } }: QueriedNode, nowMs: number): GoneWaitAnswer[] {
  const since = (sinceMs: number): number => Math.max(0, Math.round(nowMs - sinceMs));
  return [
    ...recovery.goneGate.waiters().map(({ sinceMs, ...row }) => ({ ...row, of: "node" as const, waitingMs: since(sinceMs) })),
    ...deaths.ofClients().map((wait) => {
      const { sinceMs, ...row } = rowOf(wait);
      return { ...row, nodeid, of: "client" as const, waitingMs: since(sinceMs) };
    }),
  ];
}

function describeFencing({ fencing, configuration }: QueriedNode): FencingAnswer {
  return {
    devices: configuration.nodes.map(({ nodeid }) => nodeid).filter((nodeid) => fencing.hasDevice(nodeid)),
    wanted: fencing.table.wants.map((want) => ({
      nodeid: want.nodeid,
      incarnations: want.lives.map(({ incarnation }) => incarnation),
      why: want.why,
      by: want.by,
      sinceMs: want.sinceMs,
      executor: fencing.table.runs.get(want.nodeid)?.executor.nodeid ?? null,
      step: fencing.requests.step(want),
      rounds: want.rounds,
      failure: want.failure,
      againAfterMs: fencing.pauseMs(want.nodeid),
    })),
    unfencing: fencing.failedOns,
    history: fencing.table.kept.history,
    quorumForMs: fencing.quorumForMs,
  };
}

export function describeStatus(node: QueriedNode, view: ViewInfo, nowMs: number): StatusAnswer {
  let locks = 0;
  for (const client of node.clients.all.values()) locks += client.locks.size;
  return {
    ...view,
    nodeid: node.boot.nodeid,
    incarnation: node.boot.incarnation,
    configVersion: node.configuration.version,
    promisedEpoch: node.engine.promisedEpoch,
    phase: node.recovery.phase,
    state: node.engine.leaving ? "leaving" : node.recovery.explain(nowMs),
    clients: [...node.clients.all.values()].filter((client) => !client.gone).length,
    locks,
    kept: describeKept(node, nowMs),
    engine: describeEngine(node),
    channels: describeChannels(node, nowMs),
    refused: describeNodes(node, nowMs).flatMap(({ nodeid, refused }) => (refused === null ? [] : [{ nodeid, reason: refused }])),
    counting: node.engine.counting,
    unfenced: node.recovery.gate.open.map((victim) => ({
      ...describeVictim(victim),
      lockspaces: node.recovery.gate.lockspacesOf(victim),
    })),
    fencedLockspaces: [...node.recovery.gate.lockspaces],
    fenced: node.recovery.gate.fenced.map(describeVictim),
    fencing: describeFencing(node),
    goneWaits: describeGoneWaits(node, nowMs),
    lockspaces: describeLockspaces(node),
    lockspacesUnknown: node.lockspaces.unknown(),
    views: node.views.records,
  };
}

export function describeNodes(node: QueriedNode, nowMs: number): NodeAnswer[] {
  return node.configuration.nodes.map(({ nodeid, name, address, votes }) => {
    const base = { nodeid, name, address, votes };
    if (nodeid === node.boot.nodeid)
      return { ...base, incarnation: node.boot.incarnation, state: "this", heardAgoMs: 0, tcpUp: true, refused: null };
    const peer = node.engine.peers.get(nodeid);
    const heard = peer !== undefined && peer.heartbeat !== null;
    const heardAgoMs = heard ? Math.max(0, nowMs - peer.lastHeardMs) : null;
    return {
      ...base,
      incarnation: peer?.incarnation ?? null,
      state: stateOf(node, nodeid, nowMs),
      heardAgoMs,
      tcpUp: peer?.link != null,
      refused: refusalOf(peer, nowMs),
    };
  });
}

function refusalOf(peer: EnginePeer | undefined, nowMs: number): string | null {
  const refused = peer?.refused ?? null;
  return refused === null || nowMs - refused.atMs >= REFUSAL_SHOWN_MS ? null : refused.reason;
}

function stateOf(node: QueriedNode, nodeid: number, nowMs: number): NodeAnswer["state"] {
  const peer = node.engine.peers.get(nodeid);
  if (peer === undefined || peer.incarnation === null) return "silent";
  if (peer.left === peer.incarnation) return "left";
  if (peer.evicted === peer.incarnation) return "evicted";
  if (livingIncarnation(peer, nowMs, node.boot.timeoutMs) === null) return "silent";
  if (peer.heartbeat === null) return "connected";
  if (peer.heartbeat.configVersion !== node.configuration.version) return "other-config";
  const member = node.recovery.view?.members.some((member) => member.nodeid === nodeid && member.incarnation === peer.incarnation);
  return member === true ? "member" : "heard";
}

export function describeLock(lkb: Lkb, nowMs: number): LockAnswer {
  const asked = lkb.granted !== null && lkb.bastMode !== Mode.NL;
  return {
    nodeid: lkb.nodeid,
    clientId: lkb.clientId,
    lockId: lkb.client === null ? null : lkb.lockId,
    granted: lkb.granted === null ? null : modeNames[lkb.granted],
    requested: lkb.requested === null ? null : modeNames[lkb.requested],
    waitingMs: lkb.requested === null ? null : Math.max(0, Math.round(nowMs - lkb.sinceMs)),
    orphan: lkb.client?.gone === true,
    asked: asked ? modeNames[lkb.bastMode] : null,
    askedMs: asked && lkb.requested === null ? Math.max(0, Math.round(nowMs - lkb.sinceMs)) : null,
    mayKeep: (lkb.flags & MAYKEEP) !== 0,
  };
}
