/**
 * Requests in lockspaces in which nothing may be granted yet, at the master: a node that is gone is not known to be dead, or not everybody has
 * let go of it (recovery/fence-gate.ts, gone-gate.ts). They wait in order, as requests wait in a recovery: none is refused, none is answered
 * from tables that lack the locks of the dead. An unlock passes, unless its owner has a request here that came before.
 *
 * They are bounded by client: dlmd/plock/README.md, "Limits and figures".
 */
import type { PlockAsk } from "../wire/peer-plock.ts";

/** Requests of a client here, unlocks too, in times of the locks that it may have. Beyond, its locks and tests here end, and its unlocks pass. */
const maxTimesLocks = 2;

export interface Gated {
  readonly from: number;
  readonly message: PlockAsk;
  readonly sinceMs: number;
}

function idOf(from: number, id: number): string {
  return `${from} ${id}`;
}

function ownerOf(from: number, { lockspace, file, clientId, ownerKind, owner }: PlockAsk): string {
  return `${from} ${clientId} ${ownerKind} ${owner}\0${lockspace}\0${file}`;
}

/** How many of each are here; none of those of which there are none. */
class Counts {
  readonly #counts = new Map<string, number>();

  of(key: string): number {
    return this.#counts.get(key) ?? 0;
  }

  add(key: string, by: 1 | -1): void {
    const count = this.of(key) + by;
    if (count > 0) this.#counts.set(key, count);
    else this.#counts.delete(key);
  }

  clear(): void {
    this.#counts.clear();
  }
}

/** Requests that go first do so; but not before an earlier one of their owner on that file. */
export function firstOnesFirst<T extends Pick<Gated, "from" | "message">>(inOrder: readonly T[]): T[] {
  const owners = new Set<string>();
  const [first, others]: [T[], T[]] = [[], []];
  for (const one of inOrder) {
    const owner = ownerOf(one.from, one.message);
    (one.message.first && !owners.has(owner) ? first : others).push(one);
    if (!one.message.first) owners.add(owner);
  }
  return [...first, ...others];
}

export class GatedRequests {
  readonly #perClient: number;
  /** In the order in which they came. */
  readonly #requests: Map<string, Gated> = new Map();
  readonly #ofClient = new Counts();
  readonly #ofOwner = new Counts();

  constructor(perClient: number) {
    this.#perClient = perClient;
  }

  clear(): void {
    this.#requests.clear();
    this.#ofClient.clear();
    this.#ofOwner.clear();
  }

  /**
   * "passes": it need not wait, though the lockspace is blocked. "full": its client has too many here. "crowded": an unlock, never refused,
   * for which there is no room before its client has nothing here (`removeClient`).
   */
  take(from: number, message: PlockAsk, sinceMs: number): "waits" | "passes" | "full" | "crowded" {
    const ofClient = this.#ofClient.of(idOf(from, message.clientId));
    if (message.op === "unlock") {
      if (this.#ofOwner.of(ownerOf(from, message)) === 0) return "passes";
      if (ofClient >= maxTimesLocks * this.#perClient) return "crowded";
    } else if (ofClient >= this.#perClient) return "full";
    this.#requests.set(idOf(from, message.requestId), { from, message, sinceMs });
    this.#count(from, message, 1);
    return "waits";
  }

  /** What an owner asks on that file waits behind what it asked there before, even if the lockspace is free by now. */
  hasOfOwner(from: number, message: PlockAsk): boolean {
    return this.#requests.size > 0 && this.#ofOwner.of(ownerOf(from, message)) > 0;
  }

  has(from: number, requestId: number): boolean {
    return this.#requests.has(idOf(from, requestId));
  }

  /** False: it is not here. */
  cancel(from: number, requestId: number): boolean {
    const gated = this.#requests.get(idOf(from, requestId));
    if (gated !== undefined) this.#remove(gated);
    return gated !== undefined;
  }

  /** What need not wait any more, in order; what goes first before all else (hazard F45 of the overlay). */
  release(blocks: (lockspace: string) => boolean): Gated[] {
    const free = [...this.#requests.values()].filter(({ message }) => !blocks(message.lockspace));
    for (const gated of free) this.#remove(gated);
    return firstOnesFirst(free);
  }

  /** All of one client, in order. */
  removeClient(from: number, clientId: number): Gated[] {
    const its = [...this.#requests.values()].filter((gated) => gated.from === from && gated.message.clientId === clientId);
    for (const gated of its) this.#remove(gated);
    return its;
  }

  #remove({ from, message }: Gated): void {
    this.#requests.delete(idOf(from, message.requestId));
    this.#count(from, message, -1);
  }

  #count(from: number, message: PlockAsk, by: 1 | -1): void {
    this.#ofClient.add(idOf(from, message.clientId), by);
    this.#ofOwner.add(ownerOf(from, message), by);
  }
}
