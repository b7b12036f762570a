/**
 * Who is heard, and whose word counts: what a node knows of the others from their heartbeats, and what its own heartbeats say (heartbeater.ts).
 * Suspicion is by silence; also of a main loop that stands still while its heartbeats go on, and of two nodes that hear each other and have no
 * connection: locks go over that (hazard H13).
 */
import type { NodeConfig } from "../config/votes.ts";
import type { EngineBoot } from "../engine/boot.ts";
import type { NodeState } from "../wire/datagram.ts";
import { type Member, noView, sameView, type ViewId } from "../wire/view-id.ts";
import type { BeatContent, HeardBeat } from "./heartbeater.ts";
import type { LeaseBasis } from "./lease.ts";
import { nextMembers } from "./clique.ts";
import { admitIncarnation, hears, isLinked, newPeer, type Peer } from "./peer-table.ts";

/** Time-outs for which a main loop may stand still: it may be a long garbage collection, and its heartbeats go on. */
const standstillShare = 4;
/** Time-outs for which two members may be without a connection: it may break and come back. */
const unlinkedShare = 1;

export interface OwnState extends Omit<NodeState, "view"> {
  readonly view: { readonly id: ViewId; readonly members: readonly Member[] } | null;
  readonly lease: LeaseBasis | null;
}

function saysOf(told: BeatContent, own: OwnState): boolean {
  if (!sameView(own.view?.id ?? noView, told.view) || !sameView(own.lineage, told.lineage)) return false;
  return (Object.keys(own) as (keyof OwnState)[]).every((key) => key === "view" || key === "lineage" || own[key] === told[key]);
}

export class Detector {
  readonly peers: Map<number, Peer> = new Map();
  readonly #self: Member;
  readonly #timeoutMs: number;
  readonly #connections: boolean;
  /** Also those that no configuration names now: one may come back. */
  #barred: readonly number[] = [];
  #told: BeatContent | null = null;
  #stops = 0;
  /** Acks of heartbeats sent before then do not count: this process stood still after it (hazard M1). */
  #ackFloorMs = Number.NEGATIVE_INFINITY;

  constructor(boot: EngineBoot) {
    this.#self = { nodeid: boot.nodeid, incarnation: boot.incarnation };
    this.#timeoutMs = boot.timeoutMs;
    this.#connections = boot.connections ?? true;
    this.setNodes([...(boot.former ?? []), ...boot.nodes], []);
  }

  /** How many views this node has left, by what heartbeats were told. */
  get stops(): number {
    return this.#stops;
  }

  /** Who is heard: the last entry of a nodeid counts. Those who are members stay until a view without them. */
  setNodes(nodes: readonly NodeConfig[], members: readonly Member[]): void {
    const wanted = new Map(nodes.map((config) => [config.nodeid, config]));
    wanted.delete(this.#self.nodeid);
    for (const nodeid of this.peers.keys()) {
      if (!wanted.has(nodeid) && !members.some((member) => member.nodeid === nodeid)) this.peers.delete(nodeid);
    }
    for (const [nodeid, config] of wanted) {
      const peer = this.peers.get(nodeid);
      if (peer === undefined) this.peers.set(nodeid, newPeer(config, this.#barred.includes(nodeid)));
      else peer.config = config;
    }
  }

  alive(peer: Peer, nowMs: number): boolean {
    return nowMs - peer.lastHeardMs < this.#timeoutMs && nowMs - peer.movedMs < standstillShare * this.#timeoutMs;
  }

  /** True: it is news, of an admitted incarnation. */
  receive(peer: Peer, beat: HeardBeat, nowMs: number, own: OwnState): boolean {
    const { message } = beat;
    const former = peer.heartbeat;
    if (former !== null && message.seq <= former.seq) return false;
    if (former === null || former.progress !== message.progress) peer.movedMs = nowMs;
    peer.heartbeat = message;
    this.#noteLinks(peer, nowMs);
    peer.lastHeardMs = Math.max(peer.lastHeardMs, beat.heardMs);
    const here = own.view !== null && !message.stopped && sameView(message.view, own.view.id);
    if (here && beat.ackedMs > this.#ackFloorMs) peer.ackedMs = Math.max(peer.ackedMs, beat.ackedMs);
    return true;
  }

  #noteLinks(peer: Peer, nowMs: number): void {
    const heard = peer.heartbeat?.heard ?? [];
    if (isLinked(peer)) peer.unlinkedMs = null;
    else peer.unlinkedMs ??= nowMs;
    for (const { nodeid, tcpUp } of heard) {
      if (tcpUp) peer.cutOff.delete(nodeid);
      else if (!peer.cutOff.has(nodeid)) peer.cutOff.set(nodeid, nowMs);
    }
    for (const nodeid of peer.cutOff.keys()) if (!heard.some((one) => one.nodeid === nodeid)) peer.cutOff.delete(nodeid);
  }

  /** For how long two nodes have said that there is no connection between them; 0: there is one, by all that is known. */
  unlinkedForMs(a: number, b: number, nowMs: number): number {
    if (!this.#connections) return 0;
    const says = (one: number, other: number): number | null | undefined =>
      one === this.#self.nodeid ? this.peers.get(other)?.unlinkedMs : this.peers.get(one)?.cutOff.get(other);
    const since = Math.min(says(a, b) ?? nowMs, says(b, a) ?? nowMs);
    return nowMs - since;
  }

  /** This process stood still that long: what peers said meanwhile is still in the sockets, so their silence is not theirs. */
  stoodStill(gapMs: number, nowMs: number): void {
    this.#ackFloorMs = nowMs - gapMs;
    for (const peer of this.peers.values()) {
      peer.lastHeardMs = Math.min(nowMs, peer.lastHeardMs + gapMs);
      peer.movedMs = Math.min(nowMs, peer.movedMs + gapMs);
      peer.ackedMs = Number.NEGATIVE_INFINITY;
      if (peer.unlinkedMs !== null) peer.unlinkedMs = Math.min(nowMs, peer.unlinkedMs + gapMs);
      for (const [nodeid, sinceMs] of peer.cutOff) peer.cutOff.set(nodeid, Math.min(nowMs, sinceMs + gapMs));
    }
  }

  /**
   * A connection was just answered by that incarnation, so it is the living one, even if a late datagram of a former one made it
   * look dead. False: not a configured node.
   */
  linkUp(nodeid: number, incarnation: string): boolean {
    const peer = this.peers.get(nodeid);
    if (peer === undefined) return false;
    peer.link = null;
    peer.dead.delete(incarnation);
    admitIncarnation(peer, incarnation);
    peer.link = incarnation;
    if (isLinked(peer)) peer.unlinkedMs = null;
    peer.refused = null;
    return true;
  }

  linkDown(nodeid: number): void {
    const peer = this.peers.get(nodeid);
    if (peer !== undefined) peer.link = null;
  }

  /** From now on as if there were no connection to this life of it, so that the two do not stay together; the others hear of it. */
  distrust(nodeid: number, nowMs: number): void {
    const peer = this.peers.get(nodeid);
    if (peer === undefined) return;
    peer.distrusted = peer.incarnation;
    peer.unlinkedMs ??= nowMs;
  }

  /** Those nodes, and no others, must not be members: as if there were no connection to any life of them (hazard M2). */
  bar(nodeids: readonly number[], nowMs: number): void {
    this.#barred = nodeids;
    for (const [nodeid, peer] of this.peers) {
      peer.barred = nodeids.includes(nodeid);
      if (isLinked(peer)) peer.unlinkedMs = null;
      else peer.unlinkedMs ??= nowMs;
    }
  }

  /** What heartbeats shall say from now on; null: what they say already. */
  content(own: OwnState): BeatContent | null {
    // With each step: so nothing is made where nothing has changed.
    if (this.#told !== null && saysOf(this.#told, own) && !this.#peersChanged()) return null;
    const peers = [];
    for (const peer of this.peers.values()) {
      const { config, incarnation } = peer;
      if (incarnation !== null) peers.push({ nodeid: config.nodeid, incarnation, tcpUp: isLinked(peer) });
    }
    const view = own.view?.id ?? noView;
    // Hazard C4: heartbeater.ts, `beat`.
    if (this.#told?.stopped === false && (own.stopped || !sameView(view, this.#told.view))) this.#stops++;
    this.#told = { ...own, view, stops: this.#stops, peers };
    return this.#told;
  }

  #peersChanged(): boolean {
    const told = this.#told?.peers ?? [];
    let known = 0;
    for (const peer of this.peers.values()) {
      const { config, incarnation } = peer;
      if (incarnation === null) continue;
      const before = told[known++];
      if (before?.nodeid !== config.nodeid || before.incarnation !== incarnation || before.tcpUp !== isLinked(peer)) return true;
    }
    return known !== told.length;
  }

  /** Who of the nodes that `eligible` lets in, and this one, should make the next view. Members of a new view hear each other. */
  desired(view: { members: readonly Member[]; isNew: boolean }, eligible: (peer: Peer) => boolean, nowMs: number): Member[] {
    const self = this.#self;
    const former = new Map(view.members.map(({ nodeid, incarnation }) => [nodeid, incarnation]));
    const incarnations = new Map<number, string>([[self.nodeid, self.incarnation]]);
    for (const [nodeid, peer] of this.peers) {
      const incarnation = peer.incarnation ?? former.get(nodeid);
      if (incarnation !== undefined && eligible(peer)) incarnations.set(nodeid, incarnation);
    }
    const nodeids = [...incarnations.keys()].sort((a, b) => a - b);
    const staying = nodeids.filter((nodeid) => former.get(nodeid) === incarnations.get(nodeid));
    const together = (a: number, b: number): boolean => view.isNew && staying.includes(a) && staying.includes(b);
    const hearsOf = (a: number, b: number): boolean =>
      a === self.nodeid || together(a, b) || hears(this.peers.get(a) as Peer, b, incarnations.get(b) as string);
    const limitMs = unlinkedShare * this.#timeoutMs;
    const linked = (a: number, b: number): boolean => hearsOf(a, b) && hearsOf(b, a) && this.unlinkedForMs(a, b, nowMs) < limitMs;
    return nextMembers(nodeids, staying, linked).map((nodeid) => ({ nodeid, incarnation: incarnations.get(nodeid) as string }));
  }
}
