/**
 * Looks for deadlocks among owners of file locks, across files, masters and nodes. Who waits for whom is a graph: an edge goes from an owner
 * with a waiting request to every owner that holds what excludes it, and to the one whose earlier request it stands behind ("soft").
 *
 * The edge that completes a cycle begins a search at its master, which asks homes what owners wait for, and masters for whom these requests
 * wait, until it knows everything that can be reached (Chandy, Misra and Haas, "Distributed deadlock detection", 1983, with the walk at one
 * place, so that nothing is visited twice). All other edges of the cycle are there by then, so none is missed. What was seen
 * at different times need not have been true at one time: the judge (judge.ts) looks at all edges once more before anything is done.
 *
 * A cycle of POSIX owners and hard edges ends the request with EDEADLK. One with a soft edge exists only because of the order of coming: that
 * request may overtake. Other cycles with OFD and flock owners are left alone, as Linux does (fs/locks.c posix_locks_deadlock):
 * an open file is not a process, another may unlock it.
 */
import type { PlockEdge, PlockMessage, PlockProbeReplyMessage, PlockRequestName } from "../wire/peer-plock.ts";
import { ownerKey, type PlockOwner } from "./range.ts";
import type { Waiter } from "./table.ts";

/** Searches at one time; more wait for their turn, one for each waiting request at most. */
export const searchesAtOnce = 256;
/** Owners that one search looks at: a cycle beyond them is not found. (Linux looks at ten.) */
export const ownersPerSearch = 4096;

export interface SearchPort {
  readonly nodeid: number;
  send(nodeid: number, message: PlockMessage): void;
  judge(): number;
  edges(waiter: Waiter): PlockEdge[];
  waits(waiter: Waiter): boolean;
}

interface Search {
  readonly id: number;
  readonly waiter: Waiter;
  readonly owners: Set<string>;
  readonly requests: Set<string>;
  /** By the owner from which they go. */
  readonly edges: Map<string, PlockEdge[]>;
  /** Replies that are still to come. */
  missing: number;
  again: boolean;
}

export class DeadlockSearch {
  readonly #port: SearchPort;
  readonly #searches: Map<number, Search> = new Map();
  readonly #byWaiter: Map<Waiter, Search> = new Map();
  readonly #queue: Set<Waiter> = new Set();
  #nextId = 1;

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
        edges: new Map(),
        missing: 0,
        again: false,
      };
      this.#searches.set(search.id, search);
      this.#byWaiter.set(waiter, search);
      this.#follow(search, this.#port.edges(waiter));
    }
  }

  /** Asks about the owners to whom these edges lead. */
  #follow(search: Search, edges: readonly PlockEdge[]): void {
    const homes = new Map<number, PlockOwner[]>();
    for (const edge of edges) {
      listAt(search.edges, ownerKey(edge.from)).push(edge);
      const key = ownerKey(edge.to);
      if (search.owners.has(key) || search.owners.size >= ownersPerSearch) continue;
      search.owners.add(key);
      listAt(homes, edge.to.nodeid).push(edge.to);
    }
    for (const [nodeid, owners] of homes) this.#ask(search, nodeid, owners, []);
    if (search.missing === 0) this.#conclude(search);
  }

  #ask(search: Search, nodeid: number, owners: readonly PlockOwner[], requests: readonly PlockRequestName[]): void {
    search.missing++;
    this.#port.send(nodeid, { kind: "plock-probe", searchId: search.id, owners, requests });
  }

  reply(message: PlockProbeReplyMessage): void {
    const search = this.#searches.get(message.searchId);
    if (search === undefined) return;
    search.missing--;
    const masters = new Map<number, PlockRequestName[]>();
    for (const { masterNodeid, request } of message.waits) {
      const key = `${request.nodeid}/${request.requestId}`;
      if (search.requests.has(key)) continue;
      search.requests.add(key);
      listAt(masters, masterNodeid).push(request);
    }
    for (const [nodeid, requests] of masters) this.#ask(search, nodeid, [], requests);
    this.#follow(search, message.edges);
  }

  /** Everything that can be reached from the request is known. */
  #conclude(search: Search): void {
    const root = search.waiter.holder.key;
    const all = [...search.edges.values()].flat();
    const hard = path(all.filter(isHard), root, root);
    if (hard !== null) return this.#accuse(search, hard, 0, "deadlock");
    for (const edge of all) {
      if (!edge.soft) continue;
      const there = ownerKey(edge.from) === root ? [] : path(all, root, ownerKey(edge.from));
      const back = ownerKey(edge.to) === root ? [] : path(all, ownerKey(edge.to), root);
      if (there !== null && back !== null) return this.#accuse(search, [...there, edge, ...back], there.length, "overtake");
    }
    this.#finish(search);
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
    this.#byWaiter.delete(search.waiter);
    if (search.again) this.#queue.add(search.waiter);
    this.#startNext();
  }
}

function isHard({ soft, from, to }: PlockEdge): boolean {
  return !soft && from.kind === "posix" && to.kind === "posix";
}

/** The shortest way along at least one edge; null: there is none. */
function path(edges: readonly PlockEdge[], from: string, to: string): PlockEdge[] | null {
  const out = new Map<string, PlockEdge[]>();
  for (const edge of edges) listAt(out, ownerKey(edge.from)).push(edge);
  const cameBy = new Map<string, PlockEdge>();
  const queue = [from];
  for (const at of queue) {
    for (const edge of out.get(at) ?? []) {
      const next = ownerKey(edge.to);
      if (cameBy.has(next)) continue;
      cameBy.set(next, edge);
      if (next === to) return walk(cameBy, from, to);
      queue.push(next);
    }
  }
  return null;
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

function listAt<K, V>(map: Map<K, V[]>, key: K): V[] {
  let list = map.get(key);
  if (list === undefined) {
    list = [];
    map.set(key, list);
  }
  return list;
}
