/** What this node knows of the other configured nodes: lives, last words, links. */
import type { NodeConfig } from "../config/votes.ts";
import type { Heartbeat } from "../wire/datagram.ts";

/** Former incarnations of a node that are remembered, to ignore what of them is still under way; the oldest goes first. */
const deadRemembered = 64;

export interface Peer {
  config: NodeConfig;
  incarnation: string | null;
  readonly dead: Set<string>;
  lastHeardMs: number;
  heartbeat: Heartbeat | null;
  /** Incarnation at the other end of the TCP connection. */
  link: string | null;
  /** Incarnation of which no message is believed any more: it counts as one without a connection. */
  distrusted: string | null;
  /** It must not be a member, whatever its incarnation is (hazard M2): no life of it counts as connected. */
  barred: boolean;
  /** Since when there is none to its living incarnation, as far as its heartbeats show; null: there is one (hazard H13). */
  unlinkedMs: number | null;
  /** Other nodes to which it says that it has no connection, and since when. */
  readonly cutOff: Map<number, number>;
  /** Why a connection to or from its address was refused last, in words; null: one was made since. */
  refused: { readonly reason: string; readonly atMs: number } | null;
  /** Incarnation that said LEAVE. */
  left: string | null;
  /** Incarnation that was told EVICT. */
  evicted: string | null;
  /** Proposals in a row that it did not answer, of those that did not collide with another one. */
  unanswered: number;
  /** Not proposed before then, because of that. */
  shunnedUntilMs: number;
  /** Send time of our last heartbeat that it acked in the present view. */
  ackedMs: number;
  /** When its main loop was last seen to move (hazard H13). */
  movedMs: number;
}

export function newPeer(config: NodeConfig, barred: boolean = false): Peer {
  return {
    config,
    incarnation: null,
    dead: new Set(),
    lastHeardMs: Number.NEGATIVE_INFINITY,
    heartbeat: null,
    link: null,
    distrusted: null,
    barred,
    unlinkedMs: null,
    cutOff: new Map(),
    refused: null,
    left: null,
    evicted: null,
    unanswered: 0,
    shunnedUntilMs: Number.NEGATIVE_INFINITY,
    ackedMs: Number.NEGATIVE_INFINITY,
    movedMs: Number.NEGATIVE_INFINITY,
  };
}

/** Takes note of an incarnation of that node; false: it is a former one, or TCP says that another one is alive. */
export function admitIncarnation(peer: Peer, incarnation: string): boolean {
  if (peer.incarnation === incarnation) return true;
  if (peer.dead.has(incarnation)) return false;
  if (peer.link !== null && peer.link !== incarnation) return false;
  if (peer.incarnation !== null) buryIncarnation(peer, peer.incarnation);
  peer.incarnation = incarnation;
  peer.heartbeat = null;
  peer.unlinkedMs = null;
  peer.cutOff.clear();
  peer.unanswered = 0;
  peer.shunnedUntilMs = Number.NEGATIVE_INFINITY;
  peer.ackedMs = Number.NEGATIVE_INFINITY;
  return true;
}

function buryIncarnation(peer: Peer, incarnation: string): void {
  if (peer.dead.size >= deadRemembered) peer.dead.delete(peer.dead.values().next().value as string);
  peer.dead.add(incarnation);
}

/** There is a connection to its living incarnation, and what comes over it is believed. */
export function isLinked({ link, incarnation, distrusted, barred }: Peer): boolean {
  return link === incarnation && distrusted !== incarnation && !barred;
}

/** That peer's last heartbeat says that it hears this incarnation. */
export function hears(peer: Peer, nodeid: number, incarnation: string | null): boolean {
  return peer.heartbeat?.heard.some((heard) => heard.nodeid === nodeid && heard.incarnation === incarnation) ?? false;
}
