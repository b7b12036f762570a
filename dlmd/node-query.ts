/** A node's state as plain JSON data, for `coverlay status`, `nodes` and `locks`. */
import type { ViewInfo } from "./client/api.ts";
import { sendWindow } from "./engine/builtin/sender.ts";
import type { Lkb, Resource } from "./lock/lkb.ts";
import { Mode, modeNames } from "./lock/mode.ts";
import type { NodeCore } from "./node.ts";
import type { Victim } from "./wire/peer-message.ts";
import { viewName } from "./wire/view-id.ts";

/** Resources shown; `truncated` says that there are more. */
export const shownResources = 10_000;

export interface StatusAnswer extends ViewInfo {
  readonly nodeid: number;
  readonly incarnation: string;
  readonly configVersion: number;
  readonly promisedEpoch: number;
  readonly phase: string;
  /** What lock service waits for, in words; "running" if for nothing. */
  readonly state: string;
  readonly clients: number;
  readonly locks: number;
  /** Resources of which this node knows that their masters are not those that the hash names (lock/move.ts). */
  readonly displaced: number;
  readonly engine: EngineAnswer;
  /** To each other member of the view. */
  readonly channels: readonly ChannelAnswer[];
  /** Nodes that went without a word and are not yet known to be dead; empty if no lockspace needs fencing. */
  readonly unfenced: readonly { readonly nodeid: number; readonly incarnation: string; readonly failingView: string }[];
  /** Nothing is granted in these while somebody is unfenced. */
  readonly fencedLockspaces: readonly string[];
  /** The last results, the latest at the end. */
  readonly fenced: readonly { readonly nodeid: number; readonly incarnation: string; readonly failingView: string }[];
}

export interface EngineAnswer {
  /** Nothing is ordered: a view change is under way, or there is no quorum. */
  readonly stopped: boolean;
  /** Of the last quorate view; 0: none yet. */
  readonly sequencerNodeid: number;
  /** Packets of this node that have not come back ordered, of so many that may be under way. */
  readonly underWay: number;
  readonly window: number;
  /** Messages of this node that are not delivered yet. */
  readonly waiting: number;
  /** More than may wait: who sends to a group has to wait. */
  readonly full: boolean;
  /** Ordered packets received in this view, and delivered; kept: not yet known to be everywhere. */
  readonly received: number;
  readonly delivered: number;
  readonly kept: number;
  readonly groups: number;
}

export interface ChannelAnswer {
  readonly nodeid: number;
  /** Since when the connection is down; null: it is up. */
  readonly downMs: number | null;
  /** Sent and not acknowledged. */
  readonly unacked: number;
  /** Received for a newer view, or for when lock service runs. */
  readonly held: number;
  /** Too much of it is held: its connection is not read. */
  readonly paused: boolean;
}

export interface NodeAnswer {
  readonly nodeid: number;
  readonly name: string;
  readonly address: string;
  readonly votes: number;
  readonly incarnation: string | null;
  readonly state: "this" | "member" | "heard" | "silent" | "left" | "evicted" | "other-config";
  /** ms since its last heartbeat; null: never heard. */
  readonly heardAgoMs: number | null;
  readonly tcpUp: boolean;
}

export interface LockAnswer {
  readonly nodeid: number;
  readonly clientId: number;
  readonly lockId: number | null;
  readonly granted: string | null;
  readonly requested: string | null;
  readonly waitingMs: number | null;
  /** Its client is gone; somebody of the same owner may adopt it. Known at the holder. */
  readonly orphan: boolean;
  /** What it was asked to make way for, with its present mode (a blocking AST); null: nothing. Known at the master. */
  readonly asked: string | null;
  /** Since when; null: not asked, or not known. */
  readonly askedMs: number | null;
}

export interface ResourceAnswer {
  readonly lockspace: string;
  readonly resource: string;
  readonly masterNodeid: number;
  readonly lvb: { readonly bytes: number; readonly seq: number; readonly valid: boolean } | null;
  readonly grantQueue: readonly LockAnswer[];
  readonly convertQueue: readonly LockAnswer[];
  readonly waitQueue: readonly LockAnswer[];
}

function describeEngine({ engine: { ordering, groups } }: NodeCore): EngineAnswer {
  const { stopped, sequencerNodeid, sender, received, delivered, kept } = ordering;
  const { underWay, waiting, full } = sender;
  return {
    stopped,
    sequencerNodeid,
    underWay,
    window: sendWindow,
    waiting,
    full,
    received,
    delivered,
    kept,
    groups: groups.table().length,
  };
}

function describeChannels(node: NodeCore, nowMs: number): ChannelAnswer[] {
  const others = (node.recovery.view?.members ?? []).filter(({ nodeid }) => nodeid !== node.boot.nodeid);
  return others.map(({ nodeid }) => {
    const { channel, held, paused } = node.recovery.pairs.get(nodeid);
    const downMs = channel.downSinceMs === null ? null : Math.max(0, Math.round(nowMs - channel.downSinceMs));
    return { nodeid, downMs, unacked: channel.unacked, held: held.length, paused };
  });
}

function describeVictim({ failingView, ...member }: Victim): StatusAnswer["unfenced"][number] {
  return { ...member, failingView: viewName(failingView) };
}

export function describeStatus(node: NodeCore, view: ViewInfo, nowMs: number): StatusAnswer {
  let locks = 0;
  for (const client of node.clients.all.values()) locks += client.locks.size;
  return {
    ...view,
    nodeid: node.boot.nodeid,
    incarnation: node.boot.incarnation,
    configVersion: node.configuration.version,
    promisedEpoch: node.membership.promisedEpoch,
    phase: node.recovery.phase,
    state: node.membership.leaving ? "leaving" : node.recovery.explain(),
    clients: [...node.clients.all.values()].filter((client) => !client.gone).length,
    locks,
    displaced: node.locks.tables.displaced.size,
    engine: describeEngine(node),
    channels: describeChannels(node, nowMs),
    unfenced: node.recovery.gate.open.map(describeVictim),
    fencedLockspaces: [...node.recovery.gate.lockspaces],
    fenced: node.recovery.gate.fenced.map(describeVictim),
  };
}

export function describeNodes(node: NodeCore, nowMs: number): NodeAnswer[] {
  return node.configuration.nodes.map(({ nodeid, name, address, votes }) => {
    const base = { nodeid, name, address, votes };
    if (nodeid === node.boot.nodeid) return { ...base, incarnation: node.boot.incarnation, state: "this", heardAgoMs: 0, tcpUp: true };
    const peer = node.membership.peers.get(nodeid);
    const heard = peer !== undefined && peer.heartbeat !== null;
    const heardAgoMs = heard ? Math.max(0, nowMs - peer.lastHeardMs) : null;
    return {
      ...base,
      incarnation: peer?.incarnation ?? null,
      state: stateOf(node, nodeid, heardAgoMs),
      heardAgoMs,
      tcpUp: peer?.link != null,
    };
  });
}

function stateOf(node: NodeCore, nodeid: number, heardAgoMs: number | null): NodeAnswer["state"] {
  const peer = node.membership.peers.get(nodeid);
  if (peer === undefined || peer.incarnation === null) return "silent";
  if (peer.left === peer.incarnation) return "left";
  if (peer.evicted === peer.incarnation) return "evicted";
  if (heardAgoMs === null || heardAgoMs >= node.boot.timeoutMs) return "silent";
  if (peer.heartbeat?.configVersion !== node.configuration.version) return "other-config";
  const member = node.recovery.view?.members.some((member) => member.nodeid === nodeid && member.incarnation === peer.incarnation);
  return member === true ? "member" : "heard";
}

/** Queues are at the master: resources mastered elsewhere show this node's own locks only. */
export function describeLocks(node: NodeCore, nowMs: number): { resources: ResourceAnswer[]; truncated: boolean } {
  const resources: ResourceAnswer[] = [];
  let truncated = false;
  for (const lockspace of node.locks.tables.lockspaces.values()) {
    for (const resource of lockspace.resources.values()) {
      if (resources.length < shownResources) resources.push(describeResource(node, resource, nowMs));
      else truncated = true;
      if (truncated) break;
    }
  }
  // One pass over what is held elsewhere, so that showing stays linear.
  const shown = new Map(resources.map((answer) => [`${answer.lockspace}\0${answer.resource}`, answer]));
  for (const lkb of node.locks.tables.heldElsewhere.values()) {
    const answer = shown.get(`${lkb.resource.lockspace.name}\0${lkb.resource.name}`);
    if (answer === undefined) continue;
    const queue = lkb.granted === null ? answer.waitQueue : lkb.requested === null ? answer.grantQueue : answer.convertQueue;
    (queue as LockAnswer[]).push(describeLock(lkb, nowMs));
  }
  return { resources, truncated };
}

function describeResource(node: NodeCore, resource: Resource, nowMs: number): ResourceAnswer {
  const mine = resource.masterNodeid === node.boot.nodeid;
  const list = (queue: readonly Lkb[]): LockAnswer[] => queue.map((lkb) => describeLock(lkb, nowMs));
  return {
    lockspace: resource.lockspace.name,
    resource: resource.name,
    masterNodeid: resource.masterNodeid,
    lvb: mine && resource.lvbSeq > 0 ? { bytes: resource.lvb?.byteLength ?? 0, seq: resource.lvbSeq, valid: resource.lvbValid } : null,
    grantQueue: list(resource.grantQueue),
    convertQueue: list(resource.convertQueue),
    waitQueue: list(resource.waitQueue),
  };
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
  };
}
