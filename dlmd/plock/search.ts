/**
 * Looks for deadlocks among owners of file locks, across files, masters and nodes (Chandy, Misra and Haas, "Distributed deadlock detection",
 * 1983, with the walk at one place). What an edge is, and which cycles end a request: dlmd/plock/README.md, "Deadlocks". Cycles
 * through open files are left alone, as in Linux (fs/locks.c, posix_locks_deadlock).
 */
import {
  maxProbeOwners,
  maxProbeRequests,
  type PlockEdge,
  type PlockMessage,
  type PlockProbeReplyMessage,
  type PlockRequestName,
} from "../wire/peer-plock.ts";
import { ownerKey, type PlockOwner } from "../wire/plock-range.ts";
import { maxOwnerWaits } from "./home.ts";
import { edgesPerRequest } from "./master.ts";
import type { Waiter } from "./table.ts";

/** Searches at one time; more wait for their turn, one for each waiting request at most. */
export const searchesAtOnce = 256;
/** Owners that one search looks at: a cycle beyond them is not found. (Linux looks at ten.) */
export const ownersPerSearch = 4096;
/** Requests that one search asks about, and edges that it keeps: a cycle beyond them is not found. */
export const maxSearchRequests = 4096;
export const maxSearchEdges = 131_072;
/** Edges that all searches keep, with the rows of replies to come: beyond, only the oldest search asks on, and the others wait. */
export const maxSearchRows = 262_144;

export interface SearchPort {
  readonly nodeid: number;
  send(nodeid: number, message: PlockMessage): void;
  /** Work for another turn (search-work.ts). */
  later(piece: () => Iterator<void>): void;
  judge(): number;
  edges(waiter: Waiter): PlockEdge[];
  waits(waiter: Waiter): boolean;
}

/** What is to be asked of a node, as home and as master. */
interface Questions {
  owners: PlockOwner[];
  requests: PlockRequestName[];
}

interface Search {
  readonly id: number;
  readonly waiter: Waiter;
  readonly owners: Set<string>;
  readonly requests: Set<string>;
  readonly edges: PlockEdge[];
  /** One of them leads back to the owner with which it began: without that there is no cycle. */
  returns: boolean;
  /** By node. */
  readonly unasked: Map<number, Questions>;
  /** Nodes with a probe under way, one for each, and the rows that its reply has at most. */
  readonly asked: Map<number, number>;
  again: boolean;
}

export class DeadlockSearch {
  readonly #port: SearchPort;
  readonly #searches: Map<number, Search> = new Map();
  readonly #byWaiter: Map<Waiter, Search> = new Map();
  readonly #queue: Set<Waiter> = new Set();
  #nextId = 1;
  /** Kept edges, and the most that replies to come will have. */
  #rows = 0;

  constructor(port: SearchPort) {
    this.#port = port;
  }

  /** That request got a new edge, or one that leads to it may have come up. */
  start(waiter: Waiter): void {
    const running = this.#byWaiter.get(waiter);
    if (running !== undefined) running.again = true;
    else {
      this.#queue.add(waiter);
      this.#startNext();
    }
  }

  reset(): void {
    this.#searches.clear();
    this.#byWaiter.clear();
    this.#queue.clear();
    this.#rows = 0;
  }

  #startNext(): void {
    for (const waiter of this.#queue) {
      if (this.#searches.size >= searchesAtOnce) return;
      this.#queue.delete(waiter);
      if (!this.#port.waits(waiter)) continue;
      const search: Search = {
        id: this.#nextId++,
        waiter,
        owners: new Set([waiter.holder.key]),
        requests: new Set(),
        edges: [],
        returns: false,
        unasked: new Map(),
        asked: new Map(),
        again: false,
      };
      this.#searches.set(search.id, search);
      this.#byWaiter.set(waiter, search);
      const edges = this.#port.edges(waiter);
      this.#rows += edges.length;
      for (const edge of edges) this.#follow(search, edge);
      this.#askOn(search);
    }
  }

  /** Keeps this edge; the owner to whom it leads is to be asked about. */
  #follow(search: Search, edge: PlockEdge): void {
    search.edges.push(edge);
    const key = ownerKey(edge.to);
    if (key === search.waiter.holder.key) search.returns = true;
    if (search.owners.has(key) || search.owners.size >= ownersPerSearch) return;
    search.owners.add(key);
    questionsTo(search, edge.to.nodeid).owners.push(edge.to);
  }

  /** Asks each node the next of its questions, as far as there is room for the replies. Nothing left to ask, nothing missing: concludes. */
  #askOn(search: Search): void {
    const [oldest] = this.#searches.values();
    for (const [nodeid, unasked] of search.unasked) {
      if (search.asked.has(nodeid)) continue;
      const owners = unasked.owners.slice(0, maxProbeOwners);
      const requests = unasked.requests.slice(0, maxProbeRequests);
      const rows = owners.length * maxOwnerWaits + requests.length * (edgesPerRequest + 1);
      if (this.#rows + rows > maxSearchRows && search !== oldest) return;
      unasked.owners = unasked.owners.slice(owners.length);
      unasked.requests = unasked.requests.slice(requests.length);
      if (unasked.owners.length + unasked.requests.length === 0) search.unasked.delete(nodeid);
      search.asked.set(nodeid, rows);
      this.#rows += rows;
      this.#port.send(nodeid, { kind: "plock-probe", searchId: search.id, owners, requests });
    }
    if (search.asked.size === 0) this.#port.later(() => this.#conclude(search));
  }

  /** A row at each step. Only one reply is looked at at one time. */
  *reply(from: number, { searchId, waits, edges }: PlockProbeReplyMessage): Generator<void> {
    const search = this.#searches.get(searchId);
    if (search === undefined) return;
    const kept = edges.slice(0, maxSearchEdges - search.edges.length);
    this.#rows += kept.length - (search.asked.get(from) ?? 0);
    search.asked.delete(from);
    for (const { masterNodeid, request } of waits) {
      yield;
      const key = `${request.nodeid}/${request.requestId}`;
      if (search.requests.has(key) || search.requests.size >= maxSearchRequests) continue;
      search.requests.add(key);
      questionsTo(search, masterNodeid).requests.push(request);
    }
    for (const edge of kept) {
      yield;
      this.#follow(search, edge);
    }
    if (search.edges.length >= maxSearchEdges) search.unasked.clear();
    this.#askOn(search);
    this.#resume();
  }

  /** There may be room for the questions of those that wait for it. None of them concludes here. */
  #resume(): void {
    for (const search of this.#searches.values()) if (search.unasked.size > 0) this.#askOn(search);
  }

  /** Everything that can be reached from the request is known. */
  *#conclude(search: Search): Generator<void> {
    // A peer may have said that it is judged, or replied twice.
    if (this.#searches.get(search.id) !== search) return;
    if (!search.returns) return this.#finish(search);
    const root = search.waiter.holder.key;
    const all = search.edges;
    const hard = yield* path(all, isHard, root, root);
    if (hard !== null) return this.#accuse(search, hard, 0, "deadlock");
    const ahead = yield* reachable(all, root, "from", "to");
    const behind = yield* reachable(all, root, "to", "from");
    const soft = yield* firstEdge(all, (edge) => edge.soft && ahead.has(ownerKey(edge.from)) && behind.has(ownerKey(edge.to)));
    if (soft === null) return this.#finish(search);
    const there = ownerKey(soft.from) === root ? [] : ((yield* path(all, isAny, root, ownerKey(soft.from))) as PlockEdge[]);
    const back = ownerKey(soft.to) === root ? [] : ((yield* path(all, isAny, ownerKey(soft.to), root)) as PlockEdge[]);
    this.#accuse(search, [...there, soft, ...back], there.length, "overtake");
  }

  #accuse(search: Search, edges: readonly PlockEdge[], at: number, sentence: "deadlock" | "overtake"): void {
    this.#port.send(this.#port.judge(), { kind: "plock-cycle", searchId: search.id, edges, at, sentence });
  }

  /** The cycle is no more, or never was: if the request waits still, there may be another. */
  judged(searchId: number): void {
    const search = this.#searches.get(searchId);
    if (search === undefined) return;
    search.again = true;
    this.#finish(search);
  }

  #finish(search: Search): void {
    this.#searches.delete(search.id);
    this.#rows -= search.edges.length;
    this.#byWaiter.delete(search.waiter);
    if (search.again) this.#queue.add(search.waiter);
    this.#resume();
    this.#startNext();
  }
}

function isHard({ soft, from, to }: PlockEdge): boolean {
  return !soft && from.kind === "posix" && to.kind === "posix";
}

function isAny(): boolean {
  return true;
}

/** An edge at each step, as in those below; null: there is none. */
function* firstEdge(edges: readonly PlockEdge[], isWanted: (edge: PlockEdge) => boolean): Generator<void, PlockEdge | null> {
  for (const edge of edges) {
    yield;
    if (isWanted(edge)) return edge;
  }
  return null;
}

/** The shortest way along at least one edge; null: there is none. */
function* path(
  edges: readonly PlockEdge[],
  isWanted: (edge: PlockEdge) => boolean,
  from: string,
  to: string,
): Generator<void, PlockEdge[] | null> {
  const out = new Map<string, PlockEdge[]>();
  for (const edge of edges) {
    yield;
    if (isWanted(edge)) listAt(out, ownerKey(edge.from)).push(edge);
  }
  const cameBy = new Map<string, PlockEdge>();
  const queue = [from];
  for (const at of queue) {
    for (const edge of out.get(at) ?? []) {
      yield;
      const next = ownerKey(edge.to);
      if (cameBy.has(next)) continue;
      cameBy.set(next, edge);
      if (next === to) return walk(cameBy, from, to);
      queue.push(next);
    }
  }
  return null;
}

/** Owners to which one comes from there, over any number of edges. */
function* reachable(edges: readonly PlockEdge[], start: string, tail: "from" | "to", head: "from" | "to"): Generator<void, Set<string>> {
  const next = new Map<string, string[]>();
  for (const edge of edges) {
    yield;
    listAt(next, ownerKey(edge[tail])).push(ownerKey(edge[head]));
  }
  const found = new Set([start]);
  for (const at of found) {
    for (const key of next.get(at) ?? []) {
      yield;
      found.add(key);
    }
  }
  return found;
}

function walk(cameBy: ReadonlyMap<string, PlockEdge>, from: string, to: string): PlockEdge[] {
  const way: PlockEdge[] = [];
  let at = to;
  do {
    const edge = cameBy.get(at) as PlockEdge;
    way.unshift(edge);
    at = ownerKey(edge.from);
  } while (at !== from);
  return way;
}

function questionsTo(search: Search, nodeid: number): Questions {
  let unasked = search.unasked.get(nodeid);
  if (unasked === undefined) {
    unasked = { owners: [], requests: [] };
    search.unasked.set(nodeid, unasked);
  }
  return unasked;
}

function listAt<K, V>(map: Map<K, V[]>, key: K): V[] {
  let list = map.get(key);
  if (list === undefined) {
    list = [];
    map.set(key, list);
  }
  return list;
}
