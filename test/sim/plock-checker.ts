/**
 * What must hold of file locks whatever happens: no two owners that surely hold what excludes each other, each request answered once and with
 * what it may be answered, EDEADLK only for a request that was on a cycle, one for each cycle, and at rest nothing waits in vain.
 */
import { E } from "../../dlmd/base/errno.ts";
import { ownerKey, type PlockOwner, type PlockType, spaceOf, typesConflict } from "../../dlmd/wire/plock-range.ts";
import type { PlockService } from "../../dlmd/plock/service.ts";
import type { FileLockHolder, PlockTable, Waiter } from "../../dlmd/plock/table.ts";
import type { PlockClientRequest, PlockResult } from "../../dlmd/wire/local-plock.ts";
import { SimFailure } from "./checker.ts";

/** Bytes of a simulated file; the last one stands for all the rest. */
export const cells = 10;

type Cells = (PlockType | null)[];
type PlockAsked = Extract<PlockClientRequest, { kind: "plock" }>;

/** A request without an answer. */
export interface Asked {
  readonly request: PlockAsked;
  readonly owner: PlockOwner;
  canceled: boolean;
  /** Sent before the owner let go of everything without an answer: what it gets is not sure. */
  released: boolean;
}

export interface Watched {
  readonly nodeid: number;
  readonly service: PlockService;
}

function cellOf(offset: bigint): number {
  return offset >= BigInt(cells - 1) ? cells - 1 : Number(offset);
}

export class PlockChecker {
  /** What an owner surely holds: file and space -> owner -> cells. */
  readonly #sure: Map<string, Map<string, Cells>> = new Map();
  /** Whether a node that grants must know of what a client of the other one has: not if that one is cut off. */
  readonly #counts: (granting: number, other: number) => boolean;
  /** Requests that were on a cycle; true: another request of it has ended with EDEADLK since. */
  readonly #cycles: Map<string, boolean> = new Map();
  grants = 0;
  deadlocks = 0;
  overtakes = 0;
  /** A cancel or unlock broke the cycle between the judge's question and its sentence. */
  lateSentences = 0;

  /** Some requests end with ENOLCK. */
  readonly #limited: boolean;

  constructor(counts: (granting: number, other: number) => boolean = () => true, limited = false) {
    this.#counts = counts;
    this.#limited = limited;
  }

  fail(message: string): never {
    throw new SimFailure(message);
  }

  #owners(request: PlockAsked): Map<string, Cells> {
    const key = `${request.file} ${spaceOf(request.ownerKind)}`;
    let owners = this.#sure.get(key);
    if (owners === undefined) {
      owners = new Map();
      this.#sure.set(key, owners);
    }
    return owners;
  }

  #cells(asked: Asked): Cells {
    const owners = this.#owners(asked.request);
    const key = ownerKey(asked.owner);
    let of = owners.get(key);
    if (of === undefined) {
      of = Array.from({ length: cells }, () => null);
      owners.set(key, of);
    }
    return of;
  }

  /** What is asked for may weaken what is held from now on. */
  sent(asked: Asked): void {
    const { op, ownerKind, type, start, end } = asked.request;
    const of = this.#cells(asked);
    for (let at = cellOf(start); at <= cellOf(end); at++) {
      if (op === "unlock" || (op === "lock" && ownerKind === "flock")) of[at] = null;
      else if (op === "lock" && type === "read" && of[at] === "write") of[at] = "read";
    }
  }

  /** Everything of that owner, on one file or all, was given up without an answer. */
  released(owner: PlockOwner, file: string | null): void {
    for (const [key, owners] of this.#sure) {
      if (file === null || key === `${file} ${spaceOf(owner.kind)}`) owners.delete(ownerKey(owner));
    }
  }

  answered(asked: Asked, result: PlockResult, others: readonly Asked[]): void {
    const { request } = asked;
    const allowed =
      request.op !== "lock"
        ? [0]
        : request.wait
          ? [0, ...(asked.canceled ? [E.EINTR] : []), ...(request.ownerKind === "posix" ? [E.EDEADLK] : [])]
          : [0, E.EAGAIN];
    if (!allowed.includes(result.errno) && !(this.#limited && result.errno === E.ENOLCK))
      this.fail(`${show(asked)} was answered with errno ${result.errno}`);
    if (request.op === "unlock") this.sent(asked);
    if (request.op !== "lock" || result.errno !== 0 || asked.released) return;
    this.grants++;
    const of = this.#cells(asked);
    const mine = ownerKey(asked.owner);
    for (let at = cellOf(request.start); at <= cellOf(request.end); at++) {
      let sure: PlockType | null = request.type;
      for (const other of others) {
        const { request: o } = other;
        if (other === asked || ownerKey(other.owner) !== mine || o.file !== request.file || cellOf(o.start) > at || cellOf(o.end) < at)
          continue;
        if (o.op === "unlock" || (o.op === "lock" && o.ownerKind === "flock")) sure = null;
        else if (o.op === "lock" && o.type === "read" && sure === "write") sure = "read";
      }
      of[at] = sure;
    }
    for (const [key, held] of this.#owners(request)) {
      if (key === mine || !this.#counts(asked.owner.nodeid, Number(key.split("/")[0]))) continue;
      for (let at = 0; at < cells; at++) {
        const [a, b] = [of[at] ?? null, held[at] ?? null];
        if (a !== null && b !== null && typesConflict(a, b)) {
          this.fail(`${show(asked)} was granted: byte ${at} is ${a} of ${mine} and ${b} of ${key}`);
        }
      }
    }
  }

  // -------------------------------------------------------------------------------------------------------- deadlocks

  /** Which waiting requests are on a cycle of POSIX owners and held locks. */
  #onCycle(nodes: readonly Watched[]): Set<string> {
    const edges = new Map<string, { readonly request: string; readonly to: string }[]>();
    const owners = new Map<string, string>();
    for (const { service } of nodes) {
      for (const waiter of service.master.waiters()) {
        if (waiter.holder.owner.kind !== "posix") continue;
        const from = waiter.holder.key;
        owners.set(nameOf(waiter), from);
        for (const holder of excluding(waiter)) {
          if (holder.owner.kind !== "posix") continue;
          const list = edges.get(from) ?? [];
          list.push({ request: nameOf(waiter), to: holder.key });
          edges.set(from, list);
        }
      }
    }
    const found = new Set<string>();
    for (const [request, from] of owners) {
      const seen = new Set<string>();
      const queue = (edges.get(from) ?? []).filter((edge) => edge.request === request).map(({ to }) => to);
      for (const at of queue) {
        if (at === from) found.add(request);
        if (seen.has(at)) continue;
        seen.add(at);
        queue.push(...(edges.get(at) ?? []).map(({ to }) => to));
      }
    }
    return found;
  }

  /** That node's requests are no more: another life of it numbers its own from 1 again. */
  died(nodeid: number): void {
    for (const request of this.#cycles.keys()) if (request.startsWith(`${nodeid}/`)) this.#cycles.delete(request);
  }

  /** After every step. */
  look(nodes: readonly Watched[]): void {
    for (const request of this.#onCycle(nodes)) this.#cycles.set(request, false);
  }

  /** Before a master ends a request with EDEADLK. */
  sentenced(nodes: readonly Watched[], request: string, sentence: "deadlock" | "overtake", apply: () => boolean): boolean {
    if (sentence === "overtake") {
      this.overtakes++;
      return apply();
    }
    const before = this.#onCycle(nodes);
    const broken = this.#cycles.get(request);
    const done = apply();
    if (!done) return false;
    this.deadlocks++;
    if (!before.has(request)) {
      if (broken === undefined) this.fail(`request ${request} ends with EDEADLK and never was on a cycle`);
      if (broken) this.fail(`request ${request} ends with EDEADLK after another one of its cycle`);
      this.lateSentences++;
    }
    const after = this.#onCycle(nodes);
    for (const other of before) if (!after.has(other)) this.#cycles.set(other, true);
    return true;
  }

  // ---------------------------------------------------------------------------------------------------------- at rest

  /** Nothing moves any more. */
  atRest(nodes: readonly Watched[]): void {
    for (const request of this.#onCycle(nodes)) this.fail(`request ${request} is on a cycle at rest`);
    const claimed = new Map<string, string>();
    const held = new Map<string, string>();
    for (const { service } of nodes) {
      for (const owned of service.home.held()) {
        if (owned.ranges.size > 0) claimed.set(`${owned.file} ${ownerKey(owned.owner)}`, rangesOf(owned.ranges));
      }
      for (const file of service.master.files.values()) {
        for (const table of [file.ranges, file.flock]) this.#tableAtRest(table, file.name, held);
      }
    }
    for (const [key, ranges] of claimed) {
      if (held.get(key) !== ranges) this.fail(`${key} holds ${ranges} at its home, ${held.get(key) ?? "nothing"} at the master`);
    }
    for (const [key, ranges] of held) if (!claimed.has(key)) this.fail(`${key} holds ${ranges} at the master, nothing at its home`);
  }

  #tableAtRest(table: PlockTable, file: string, held: Map<string, string>): void {
    const waiters = [...table.holders.values()].flatMap(({ waiting }) => [...waiting]).sort((a, b) => a.rank - b.rank);
    for (const holder of table.holders.values()) {
      if (holder.ranges.size > 0) held.set(`${file} ${holder.key}`, rangesOf(holder.ranges));
    }
    for (const waiter of waiters) {
      if (excluding(waiter).length > 0) continue;
      const behind = waiters.filter((other) => other.rank < waiter.rank && waitsBehind(waiter, other));
      if (behind.length === 0 || waiter.overtake) this.fail(`request ${nameOf(waiter)} on ${file} waits for nobody`);
      // It waits in order alone: then the one that it is seen behind must not wait for it, however far around. Once that one goes, it is seen behind
      // the next one, and looked for again.
      const earlier = behind.find((other) => other === waiter.blocker);
      if (earlier === undefined) this.fail(`request ${nameOf(waiter)} on ${file} is seen behind none of ${behind.map(nameOf).join()}`);
      else if (this.#reaches(earlier.holder, waiter.holder, new Set())) this.fail(`request ${nameOf(waiter)} on ${file} waits in a circle`);
    }
  }

  /** Within one file: good enough to see that the order makes nobody wait for himself. */
  #reaches(from: FileLockHolder, to: FileLockHolder, seen: Set<FileLockHolder>): boolean {
    if (from === to) return true;
    if (seen.has(from)) return false;
    seen.add(from);
    return [...from.waiting].some((waiter) => excluding(waiter).some((holder) => this.#reaches(holder, to, seen)));
  }
}

function nameOf({ nodeid, requestId }: Pick<Waiter, "nodeid" | "requestId">): string {
  return `${nodeid}/${requestId}`;
}

/** By looking at every range of everybody. */
function excluding(waiter: Waiter): FileLockHolder[] {
  return [...waiter.table.holders.values()].filter(
    (holder) =>
      holder !== waiter.holder && holder.ranges.overlapping(waiter.start, waiter.end).some((held) => typesConflict(held.type, waiter.type)),
  );
}

function waitsBehind(waiter: Waiter, earlier: Waiter): boolean {
  if (earlier.holder === waiter.holder || earlier.start > waiter.end || waiter.start > earlier.end) return false;
  return typesConflict(earlier.type, waiter.type) && !excluding(earlier).includes(waiter.holder);
}

function rangesOf(
  ranges: FileLockHolder["ranges"] | { overlapping(start: bigint, end: bigint): readonly { type: string; start: bigint; end: bigint }[] },
): string {
  return ranges
    .overlapping(0n, 1n << 63n)
    .map(({ type, start, end }) => `${type} ${start}-${end}`)
    .join(", ");
}

export function show({ request, owner }: Asked): string {
  const { op, file, type, start, end, wait } = request;
  return `${ownerKey(owner)}: ${op} ${request.requestId} of ${file}, ${type} ${start}-${end}${wait ? ", waiting" : ""}`;
}
