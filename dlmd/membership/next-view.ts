/**
 * Whether the present view will do, who should be in the next one, and in which order its members propose it: what a node judges by what it hears.
 * That it then proposes, and backs off, is up to membership.ts. Hazards C8, H13, H14.
 */
import { type Electorate, hasMember, type Member, noView, sameView, type ViewId } from "../wire/view-id.ts";
import type { InstalledView } from "./agreement.ts";
import type { Detector } from "./detector.ts";
import type { Peer } from "./peer-table.ts";
import type { QuorumBasis } from "./quorum.ts";

/** Shares of the time-out. */
const firstViewShare = 0.3;
const joinShare = 0.1;
/** Nodes that have a quorum again wait so long for those of the last view. */
const returnShare = 0.5;
const strayShare = 0.5;
const brokenShare = 0.25;

export interface Situation {
  readonly self: Member;
  readonly timeoutMs: number;
  readonly detector: Detector;
  readonly basis: QuorumBasis;
  /** What this node agreed to the present view by, or did not; null: nobody was asked. */
  readonly answeredBy: QuorumBasis | null;
  readonly view: InstalledView | null;
  /** Of the latest quorate view of this life. */
  readonly lastMembers: readonly Member[];
  /** A later view was promised. */
  readonly stopped: boolean;
  /** Frames between members of this view were lost. */
  readonly broken: boolean;
  /** Who is to count from the next view on; null: those who count now. */
  readonly nextElectorate: () => Electorate | null;
}

/**
 * All members of a view have answered its proposer, who had heard that they hear each other. What this node has heard may be older than that: a
 * heartbeat is late, or the first one is still under way. So it says nothing against a member before a time-out. Without that a node would
 * tear apart the view that it has just installed, and whoever is left out drops its programs.
 */
function isNew({ view, timeoutMs }: Situation, nowMs: number): boolean {
  return view !== null && nowMs - view.installedMs < timeoutMs;
}

function isRefused({ incarnation, left, evicted, barred, shunnedUntilMs }: Peer, nowMs: number): boolean {
  return nowMs < shunnedUntilMs || barred || (incarnation !== null && (left === incarnation || evicted === incarnation));
}

function isEligible(situation: Situation, peer: Peer, nowMs: number): boolean {
  const { view, basis, detector } = situation;
  const { heartbeat, incarnation } = peer;
  if (isRefused(peer, nowMs)) return false;
  const known = view?.members.find(({ nodeid }) => nodeid === peer.config.nodeid)?.incarnation;
  const member = known !== undefined && known === (incarnation ?? known);
  if (member && isNew(situation, nowMs)) return true;
  if (heartbeat === null || incarnation === null || !detector.alive(peer, nowMs)) return false;
  // A change of configuration reaches the members one after the other; who is not a member needs the same to become one.
  if (member) return true;
  const steps = Math.abs(heartbeat.configVersion - basis.version);
  if (steps === 0 && basis.former === undefined) return true;
  // In the midst of a change: it counts by the one before or after, or another one was decided with the number of that which is open here. Its dlmd and
  // ours have let each other in (hazard C8).
  return steps <= 1 && peer.link === incarnation;
}

export function membersWanted(situation: Situation, nowMs: number): Member[] {
  const { detector, view } = situation;
  const staying = { members: view?.members ?? [], isNew: isNew(situation, nowMs) };
  return detector.desired(staying, (peer) => isEligible(situation, peer, nowMs), nowMs);
}

/** Why the present view will not do, and for how long to hear more before proposing another; null: it will. */
export function needOf(situation: Situation, desired: readonly Member[], nowMs: number): { why: string; delayMs: number } | null {
  const { view, timeoutMs, basis, detector } = situation;
  const all = desired.length === basis.nodes.length;
  if (view === null) return { why: "first view", delayMs: all ? 0 : firstViewShare * timeoutMs };
  const lost = view.members.filter((member) => !hasMember(desired, member.nodeid, member.incarnation));
  if (lost.length > 0) return { why: `lost ${lost.map((member) => lostWords(situation, member, nowMs)).join(", ")}`, delayMs: 0 };
  if (desired.length > view.members.length) return { why: "nodes join", delayMs: all ? 0 : joinDelayMs(situation, desired, nowMs) };
  if (situation.stopped) return { why: "a promised view did not come", delayMs: 0 };
  const age = nowMs - view.installedMs;
  for (const member of view.members) {
    const heartbeat = detector.peers.get(member.nodeid)?.heartbeat ?? null;
    if (heartbeat === null) continue;
    const here = sameView(heartbeat.view, view.id);
    if (here && heartbeat.broken && age > brokenShare * timeoutMs) return { why: `node ${member.nodeid} lost frames`, delayMs: 0 };
    if ((!here || heartbeat.stopped) && age > strayShare * timeoutMs) return { why: `node ${member.nodeid} is astray`, delayMs: 0 };
  }
  if (situation.broken && age > brokenShare * timeoutMs) return { why: "frames were lost", delayMs: 0 };
  // It reaches all of them within moments, and each who has it before the others is the first in order (rankOf).
  const delayMs = joinShare * timeoutMs;
  // Of one version another proposal may be open or decided here now.
  const asked = view.quorum.rule === "other-proposal" && situation.answeredBy !== basis;
  if ((asked || view.quorum.configVersion < basis.version) && age > brokenShare * timeoutMs) return { why: "votes changed", delayMs };
  if (!view.quorum.quorate || age <= brokenShare * timeoutMs) return null;
  const next = situation.nextElectorate();
  return next === null ? null : { why: `votes of nodes ${next.nodeids.join(" ")} count`, delayMs: 0 };
}

/** When a network comes back as a whole, some hear each other first. A view of theirs would end what the others have open. */
function joinDelayMs(situation: Situation, desired: readonly Member[], nowMs: number): number {
  const { view, lastMembers, timeoutMs, detector } = situation;
  const othersMayCome = lastMembers.some(({ nodeid }) => {
    const peer = detector.peers.get(nodeid);
    return peer !== undefined && !isRefused(peer, nowMs) && !desired.some((member) => member.nodeid === nodeid);
  });
  return (view?.quorum.quorate === false && othersMayCome ? returnShare : joinShare) * timeoutMs;
}

function lostWords({ view, detector, timeoutMs }: Situation, { nodeid }: Member, nowMs: number): string {
  const peer = detector.peers.get(nodeid);
  if (peer === undefined || !detector.alive(peer, nowMs)) return `node ${nodeid}`;
  const others = (view?.members ?? []).filter((member) => member.nodeid !== nodeid);
  const cut = others.filter((member) => detector.unlinkedForMs(member.nodeid, nodeid, nowMs) >= timeoutMs);
  return cut.length === 0 ? `node ${nodeid}` : `node ${nodeid}, which has no connection to ${cut.map((member) => member.nodeid).join(" ")}`;
}

/**
 * Somebody who should be in the next view is in a quorate one without this node, and hears a node that this one would leave out, maybe a
 * member of it: then those members say who joins them. Who does not hear one of them would tear it apart again and again (hazard H14).
 */
export function isExcluded({ view, detector }: Situation, desired: readonly Member[]): boolean {
  return desired.some(({ nodeid }) => {
    const heartbeat = detector.peers.get(nodeid)?.heartbeat ?? null;
    if (heartbeat === null || heartbeat.view.epoch === 0) return false;
    if (!sameView(heartbeat.view, heartbeat.lineage) || sameView(heartbeat.view, view?.id ?? noView)) return false;
    return heartbeat.heard.some((heard) => !hasMember(desired, heard.nodeid, heard.incarnation));
  });
}

/**
 * Who proposed that view is no member of this one. It has heard that all hear each other, and its heartbeat that says so may still be under way: a view without
 * it would evict it in the moment in which it joins (hazard H14).
 */
export function isJoining({ view, detector }: Situation, { proposer, incarnation }: ViewId, nowMs: number): boolean {
  const peer = detector.peers.get(proposer);
  if (peer === undefined || peer.incarnation !== incarnation || isRefused(peer, nowMs)) return false;
  return !hasMember(view?.members ?? [], proposer, incarnation);
}

/** In which order the members propose: the lowest first, but whose configuration is the latest (hazard C8). -1: this node is not wanted. */
export function rankOf({ self, basis, detector }: Situation, desired: readonly Member[]): number {
  const versionOf = (nodeid: number): number => detector.peers.get(nodeid)?.heartbeat?.configVersion ?? basis.version;
  const byVersion = [...desired].sort((a, b) => versionOf(b.nodeid) - versionOf(a.nodeid) || a.nodeid - b.nodeid);
  return byVersion.findIndex((member) => member.nodeid === self.nodeid);
}
