/**
 * The locks of one file in one space (byte ranges, or flock) at its master: who holds what, who waits for what, in order. Which
 * request waits behind which: dlmd/plock/README.md, "The order of requests".
 */
import { assert } from "../base/assert.ts";
import { IntervalTree } from "./interval-tree.ts";
import { changeOwned, type Held, type OwnedChange } from "./owned.ts";
import { overlaps, ownerKey, type PlockOwner, type PlockType, type Range, typesConflict } from "../wire/plock-range.ts";

/** An owner that holds or waits for something on this file. */
export interface FileLockHolder {
  readonly owner: PlockOwner;
  readonly key: string;
  readonly ranges: IntervalTree<Held<FileLockHolder>>;
  /** Another number whenever something of it is given up: what it blocked under the same stamp, it blocked all the time. */
  stamp: number;
  /** Requests whose blocker it is. */
  readonly attached: Set<Waiter>;
  readonly waiting: Set<Waiter>;
}

export interface Waiter {
  /** Its home and the number that the home gave it. */
  readonly nodeid: number;
  readonly requestId: number;
  readonly table: PlockTable;
  readonly holder: FileLockHolder;
  readonly type: PlockType;
  readonly start: bigint;
  readonly end: bigint;
  readonly pid: number;
  /** Its place in the queue: the lowest is served first. */
  readonly rank: number;
  readonly sinceMs: number;
  /** Its owner has had it since then, elsewhere, and goes on having it; null: it begins with the grant. */
  readonly heldSinceMs: number | null;
  /** Its owner takes over what another client has for the same owner, and waits for that also where both are readers. */
  readonly first: boolean;
  /** It need not wait behind others any more, only for holders. */
  overtake: boolean;
  blocker: FileLockHolder | Waiter | null;
  readonly attached: Set<Waiter>;
}

/** Bytes and the type wanted on them. */
export type Wanted = Omit<Range, "pid">;

export interface TableSink {
  /** A request that waited has what it wants. */
  granted(waiter: Waiter): void;
  /** A request that waited for somebody waits for somebody else now. */
  blocked(waiter: Waiter): void;
}

export function isWaiter(blocker: FileLockHolder | Waiter): blocker is Waiter {
  return "table" in blocker;
}

export function blockingOwner(blocker: FileLockHolder | Waiter): FileLockHolder {
  return isWaiter(blocker) ? blocker.holder : blocker;
}

export class PlockTable {
  /** Of the file in the master's table of files. */
  readonly fileKey: string;
  readonly holders: Map<string, FileLockHolder> = new Map();
  readonly #sink: TableSink;
  readonly #next: () => number;
  readonly #nowMs: () => number;
  readonly #held: Record<PlockType, IntervalTree<Held<FileLockHolder>>> = { read: new IntervalTree(), write: new IntervalTree() };
  readonly #waiting: Record<PlockType, IntervalTree<Waiter>> = { read: new IntervalTree(), write: new IntervalTree() };

  /** `next` numbers ranges, requests and stamps: the same for all tables of a node, so that no number comes twice. */
  constructor(fileKey: string, sink: TableSink, next: () => number, nowMs: () => number) {
    this.fileKey = fileKey;
    this.#sink = sink;
    this.#next = next;
    this.#nowMs = nowMs;
  }

  /** Held ranges and waiting requests. */
  get size(): number {
    return this.#held.read.size + this.#held.write.size + this.waiting;
  }

  get waiting(): number {
    return this.#waiting.read.size + this.#waiting.write.size;
  }

  holder(owner: PlockOwner): FileLockHolder {
    const key = ownerKey(owner);
    let holder = this.holders.get(key);
    if (holder === undefined) {
      holder = { owner, key, ranges: new IntervalTree(), stamp: this.#next(), attached: new Set(), waiting: new Set() };
      this.holders.set(key, holder);
    }
    return holder;
  }

  /** Forgets an owner that holds nothing and waits for nothing. */
  release(holder: FileLockHolder): void {
    if (holder.ranges.size > 0 || holder.waiting.size > 0) return;
    assert(holder.attached.size === 0, `${holder.key} holds nothing and blocks somebody`);
    this.holders.delete(holder.key);
  }

  // -------------------------------------------------------------------------------------------------------- questions

  /** The first lock of somebody else, by offset, that excludes this one. `first`: as in Waiter. */
  conflict(holder: FileLockHolder, { type, start, end }: Wanted, first = false): Held<FileLockHolder> | null {
    const other = (held: Held<FileLockHolder>): boolean => held.holder !== holder;
    const write = this.#held.write.first(start, end, other);
    if (type === "read" && !first) return write;
    const read = this.#held.read.first(start, end, type === "read" ? isBefore(holder) : other);
    if (write === null || read === null) return write ?? read;
    return read.start < write.start ? read : write;
  }

  /** Owners of all locks that exclude this one, at most that many. */
  conflicting(waiter: Waiter, limit: number): FileLockHolder[] {
    const holders = new Set<FileLockHolder>();
    const visit = (held: Held<FileLockHolder>): boolean => {
      if (held.holder !== waiter.holder) holders.add(held.holder);
      return holders.size >= limit;
    };
    this.#held.write.first(waiter.start, waiter.end, visit);
    if (holders.size >= limit) return [...holders];
    if (waiter.type === "write") this.#held.read.first(waiter.start, waiter.end, visit);
    else if (waiter.first) this.#held.read.first(waiter.start, waiter.end, (held) => isBefore(waiter.holder)(held) && visit(held));
    return [...holders];
  }

  /** Whom a request must wait for; null: nobody. `before`: its place in the order. `first`: as in Waiter. */
  blocker(holder: FileLockHolder, wanted: Wanted, before: number, first = false): FileLockHolder | Waiter | null {
    const { type, start, end } = wanted;
    const accept = (earlier: Waiter): boolean => earlier.holder !== holder && !holds(holder, earlier);
    const write = this.#waiting.write.latest(start, end, before, accept);
    const read = type === "read" ? null : this.#waiting.read.latest(start, end, before, accept);
    const earlier = write === null || (read !== null && read.rank > write.rank) ? read : write;
    return earlier ?? this.conflict(holder, wanted, first)?.holder ?? null;
  }

  // ---------------------------------------------------------------------------------------------------------- changes

  /** Gives those bytes, whoever else has them, and serves who waited for them. `sinceMs`: since when the owner has them; null: not known. */
  give(holder: FileLockHolder, range: Range, sinceMs: number | null = this.#nowMs()): void {
    const recheck = new Set<Waiter>();
    this.#apply(holder, range, sinceMs, recheck);
    this.#serve(recheck);
  }

  /** Takes those bytes from their owner, and serves who waited for them. */
  take(holder: FileLockHolder, start: bigint, end: bigint): void {
    const recheck = new Set<Waiter>();
    this.#apply(holder, { type: null, start, end, pid: 0 }, null, recheck);
    this.#serve(recheck);
  }

  /** As `give`, without serving anybody: while a view is rebuilt. */
  claim(holder: FileLockHolder, range: Range, sinceMs: number | null = this.#nowMs()): void {
    this.#apply(holder, range, sinceMs, new Set());
  }

  wait(
    holder: FileLockHolder,
    wanted: Range,
    blocker: FileLockHolder | Waiter,
    name: Pick<Waiter, "nodeid" | "requestId" | "sinceMs" | "heldSinceMs"> & Partial<Pick<Waiter, "rank" | "first">>,
  ): Waiter {
    const { type, start, end, pid } = wanted;
    const { rank = this.#next(), first = false } = name;
    const shared = { ...name, table: this, holder, type, start, end, pid, rank, first };
    const waiter: Waiter = { ...shared, overtake: false, blocker: null, attached: new Set() };
    holder.waiting.add(waiter);
    this.#waiting[type].insert(waiter);
    this.#attach(waiter, blocker);
    return waiter;
  }

  /** Takes a request off the queue; who waited behind it is looked at again. */
  cancel(waiter: Waiter): void {
    const recheck = new Set<Waiter>();
    this.#dequeue(waiter, recheck);
    this.#serve(recheck);
    this.release(waiter.holder);
  }

  overtake(waiter: Waiter): void {
    waiter.overtake = true;
    this.#serve(new Set([waiter]));
  }

  #apply(holder: FileLockHolder, change: OwnedChange, sinceMs: number | null, recheck: Set<Waiter>): void {
    const { start, end } = change;
    const { removed, added, weakened } = changeOwned(holder.ranges, holder, change, sinceMs, this.#next);
    for (const held of removed) this.#held[held.type].remove(held);
    for (const held of added) this.#held[held.type].insert(held);
    // Who else waits for this owner is what its own requests need not wait behind: that may be another now.
    if (weakened || added.length > 0) for (const waiter of holder.waiting) recheck.add(waiter);
    if (!weakened) return;
    holder.stamp = this.#next();
    for (const waiter of this.#attachedTo(holder, start, end)) recheck.add(waiter);
  }

  #attachedTo(holder: FileLockHolder, start: bigint, end: bigint): Waiter[] {
    if (holder.attached.size <= 16) return [...holder.attached].filter((waiter) => overlaps(waiter, { start, end }));
    const all = [...this.#waiting.read.overlapping(start, end), ...this.#waiting.write.overlapping(start, end)];
    return all.filter((waiter) => waiter.blocker === holder);
  }

  /** Looks again at those requests and at whom that frees, in the order in which they came. */
  #serve(recheck: Set<Waiter>): void {
    while (recheck.size > 0) {
      const round = [...recheck].sort((a, b) => a.rank - b.rank);
      recheck.clear();
      for (const waiter of round) {
        // Granted in this round already.
        if (!waiter.holder.waiting.has(waiter)) continue;
        const blocker = waiter.overtake
          ? (this.conflict(waiter.holder, waiter, waiter.first)?.holder ?? null)
          : this.blocker(waiter.holder, waiter, waiter.rank, waiter.first);
        const before = waiter.blocker === null ? null : blockingOwner(waiter.blocker);
        if (blocker === null) this.#grant(waiter, recheck);
        else {
          this.#attach(waiter, blocker);
          if (before !== blockingOwner(blocker)) this.#sink.blocked(waiter);
        }
      }
    }
  }

  #grant(waiter: Waiter, recheck: Set<Waiter>): void {
    this.#dequeue(waiter, recheck);
    this.#apply(waiter.holder, waiter, waiter.heldSinceMs ?? this.#nowMs(), recheck);
    this.#sink.granted(waiter);
  }

  #dequeue(waiter: Waiter, recheck: Set<Waiter>): void {
    waiter.holder.waiting.delete(waiter);
    this.#waiting[waiter.type].remove(waiter);
    this.#detach(waiter);
    for (const behind of waiter.attached) {
      behind.blocker = waiter.holder;
      waiter.holder.attached.add(behind);
      recheck.add(behind);
    }
    waiter.attached.clear();
  }

  #detach(waiter: Waiter): void {
    waiter.blocker?.attached.delete(waiter);
    waiter.blocker = null;
  }

  #attach(waiter: Waiter, blocker: FileLockHolder | Waiter): void {
    this.#detach(waiter);
    waiter.blocker = blocker;
    blocker.attached.add(waiter);
  }
}

/** By another client for the same owner: the process before, or who has kept it meanwhile. An owner's number is no other's in the cluster. */
function isBefore(holder: FileLockHolder): (held: Held<FileLockHolder>) => boolean {
  const { kind, owner } = holder.owner;
  return ({ holder: other }) => other !== holder && other.owner.owner === owner && other.owner.kind === kind;
}

/** Whether the owner has a lock that this request waits for. */
function holds(holder: FileLockHolder, waiter: Waiter): boolean {
  if (holder.ranges.size === 0) return false;
  return holder.ranges.first(waiter.start, waiter.end, (held) => typesConflict(held.type, waiter.type)) !== null;
}
