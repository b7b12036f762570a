/** A file with locks as this node knows it: the state of its locks, and what this node's owners hold and want. */
import { assert } from "../../dlmd/base/assert.ts";
import { maxOffset, type PlockOwner } from "../../dlmd/wire/plock-range.ts";
import { type FileLockHolder, PlockTable, type Waiter } from "../../dlmd/plock/table.ts";
import type { LockFound } from "../fuse/reply.ts";
import type { LockOwner, LockRange } from "./api.ts";
import type { FileLockAsk } from "./core-port.ts";
import { ownerName, sameOwner } from "./lock-users.ts";

/** Where its locks are kept: core.ts draws it. */
export type FileState = "none" | "asking" | "local" | "pushing" | "shared" | "returning";

export interface Request extends FileLockAsk {
  readonly id: number;
  /** Nobody waits for its answer. */
  readonly own: "push" | "inherit" | "release" | null;
  /** Of what is held already: for how long. */
  readonly heldMs: number | null;
  /** The process before has it in the service. */
  readonly first: boolean;
  /** flock: it waited here, so what its owner had before it has given up (flock(2)). */
  begun: boolean;
  /** flock: what its owner has now it was given after this conversion had begun, by a request of another thread. */
  overtaken: boolean;
  /** flock: if it is not granted, what its owner may still have in the service is released (hazard F52). */
  owes: boolean;
}

export interface LockedFile {
  readonly name: string;
  state: FileState;
  ranges: PlockTable;
  flock: PlockTable;
  /** Requests that wait for another state, in their order. */
  queue: Request[];
  /** Of this node: they wait in the tables. */
  readonly waiting: Map<number, { readonly request: Request; readonly waiter: Waiter }>;
  /** In the service, without an answer: in the order in which it was told. */
  readonly asked: Map<number, Request>;
  /** Another node wants it, since then. */
  wantedMs: number | null;
  /** Since when it is shared. */
  sharedMs: number;
  /** When it was to be taken back last, or came to be shared. */
  triedMs: number;
  /** Since `freeze` it could not be taken back: other nodes use it. */
  keptShared: boolean;
  /** Not before that time is the service told again. Infinite: it has refused something of what it is being told. */
  pushAfterMs: number;
}

export function plockOwner({ kind, owner }: LockOwner): PlockOwner {
  return { nodeid: 0, clientId: 0, kind, owner };
}

export function keyOf(owner: LockOwner): string {
  return `0/0/${ownerName(owner)}`;
}

export function tableOf(file: Pick<LockedFile, "ranges" | "flock">, { kind }: LockOwner): PlockTable {
  return kind === "flock" ? file.flock : file.ranges;
}

export function hasLocks({ ranges, flock }: Pick<LockedFile, "ranges" | "flock">): boolean {
  return ranges.size + flock.size > 0;
}

export interface HeldHere {
  readonly owner: LockOwner;
  readonly range: LockRange;
  readonly pid: number;
  readonly sinceMs: number;
}

/** What owners of this node hold on the file. */
export function heldOn({ ranges, flock }: Pick<LockedFile, "ranges" | "flock">): HeldHere[] {
  return [ranges, flock].flatMap((table) =>
    [...table.holders.values()].flatMap(({ owner, ranges: held }) =>
      held.overlapping(0n, maxOffset).map(({ type, start, end, pid, sinceMs }) => {
        assert(sinceMs !== null, `${type} of ${owner.kind} ${owner.owner} was granted by this node at no time`);
        const kind = owner.kind === "flock" ? "flock" : "posix";
        return { owner: { kind, owner: owner.owner } as const, range: { type, start, end }, pid, sinceMs };
      }),
    ),
  );
}

/** Who holds something on it, each once. */
export function ownersOn(file: LockedFile): LockOwner[] {
  return [...new Map(heldOn(file).map(({ owner }) => [ownerName(owner), owner])).values()];
}

/**
 * Hazard F45. What they hold whatever becomes of what is under way. `shared`: whatever the service has done of what it was asked and has not answered; who asked for less may have no
 * more than that, and asks again where nobody answers him. An unlock that waits here is done in any case: whoever closed a file has his answer.
 */
export function certainlyHeldOn(file: LockedFile, shared: boolean): HeldHere[] {
  const underWay = [...(shared ? file.asked.values() : []), ...file.queue.filter(({ op }) => op === "unlock")];
  const weakening = underWay.filter(({ own, op }) => op !== "test" && own !== "push" && own !== "inherit");
  if (weakening.length === 0) return heldOn(file);
  let rank = 0;
  const nobody = { granted: () => undefined, blocked: () => undefined };
  const table = (): PlockTable =>
    new PlockTable(
      file.name,
      nobody,
      () => (rank += 1),
      () => 0,
    );
  const certain = { ranges: table(), flock: table() };
  for (const { owner, range, pid, sinceMs } of heldOn(file)) {
    const of = tableOf(certain, owner);
    of.claim(of.holder(plockOwner(owner)), { ...range, pid }, sinceMs);
  }
  for (const request of weakening) {
    const of = tableOf(certain, request.owner);
    const holder = of.holders.get(keyOf(request.owner));
    if (holder !== undefined) weaken(of, holder, request);
  }
  return heldOn(certain);
}

/** The owner has asked for that: by now it may have no more. */
function weaken(table: PlockTable, holder: FileLockHolder, { op, owner, range, begun, overtaken }: Request): void {
  const { start, end } = range;
  if (op === "unlock") return table.take(holder, start, end);
  for (const held of holder.ranges.overlapping(start, end)) {
    if (held.type === range.type) continue;
    // flock(2): "the existing lock is first removed, and then a new lock is established".
    if (owner.kind === "flock" && !begun && !overtaken) table.take(holder, held.start, held.end);
    else if (owner.kind === "posix" && range.type === "read") {
      const from = held.start > start ? held.start : start;
      const to = held.end < end ? held.end : end;
      table.claim(holder, { ...held, type: "read", start: from, end: to }, held.sinceMs);
    }
  }
}

export function foundBy(table: PlockTable, holder: FileLockHolder, range: LockRange): LockFound | null {
  const held = table.conflict(holder, range);
  return held && { type: held.type, start: held.start, end: held.end, pid: held.pid };
}

/** Whether there may be more locks after it: a lock, or an unlock of what is in the middle of one. */
export function mayAdd(file: LockedFile, { op, owner, range: { start, end } }: FileLockAsk): boolean {
  if (op !== "unlock") return op === "lock";
  const held = tableOf(file, owner).holders.get(keyOf(owner))?.ranges;
  return held !== undefined && held.first(start, end, (one) => one.start < start && one.end > end) !== null;
}

/** It was granted: the service has begun with all that it was told of before, and its owner has that and nothing else. */
export function noteOvertaken(file: LockedFile, granted: Request): void {
  if (granted.owner.kind !== "flock") return;
  let before = true;
  for (const one of file.asked.values()) {
    if (one === granted) before = false;
    else if (sameOwner(one.owner, granted.owner)) {
      one.owes = false;
      if (before) one.overtaken = true;
    }
  }
}

/** The last of its owner's requests for a lock that the service has not answered, but for this one; undefined: there is none. */
export function lastAsked(file: LockedFile, but: Request): Request | undefined {
  return [...file.asked.values()].findLast(
    (one) => one !== but && one.own === null && one.op === "lock" && sameOwner(one.owner, but.owner),
  );
}
