/**
 * What is granted to requests whose programs were killed while they waited (hazard F52), and what of that is given up. Pure.
 *
 * The master may have granted it before it heard of the cancel. A process has closed its file by then, but an open file may have other programs (OFD locks, flock), which
 * know of no lock. Bytes that these are granted stay with them, since it may be the same lock. So do bytes that they ask for at the same time, until that has ended: the
 * service goes by the order.
 */
import type { FileLockStatus } from "../../dlmd/client/file-lock-api.ts";
import type { LockOwner } from "./api.ts";
import { sameOwner } from "./lock-users.ts";

/** Both included. */
export type OffsetRange = readonly [start: bigint, end: bigint];

/** A request without an answer. */
export interface Waiter {
  readonly file: string;
  readonly owner: LockOwner;
  readonly range: OffsetRange;
  /** Its program was killed: what of it is to be given up. null: it was not. */
  rest: readonly OffsetRange[] | null;
}

/** What of these ranges is in none of the others. */
function without(ranges: readonly OffsetRange[], others: readonly OffsetRange[]): readonly OffsetRange[] {
  return others.reduce(
    (left, [from, to]) =>
      left.flatMap(([start, end]): OffsetRange[] => {
        if (end < from || start > to) return [[start, end]];
        const before: OffsetRange[] = start < from ? [[start, from - 1n]] : [];
        return end > to ? [...before, [to + 1n, end]] : before;
      }),
    ranges,
  );
}

export interface GivenUp extends Pick<Waiter, "file" | "owner" | "range"> {}

export class LateGrants {
  readonly #waiting = new Set<Waiter>();
  /** Granted, with something that is to be given up. */
  readonly #late = new Set<Waiter>();

  begin(file: string, owner: LockOwner, range: OffsetRange): Waiter {
    const waiter: Waiter = { file, owner, range, rest: null };
    this.#waiting.add(waiter);
    return waiter;
  }

  /** Its program is being killed. `had`: what its owner certainly has there now. */
  killed(waiter: Waiter, had: readonly OffsetRange[]): void {
    waiter.rest = without([waiter.range], had);
  }

  /** A program that lives has been given these bytes: what was given there to one that was killed stays. */
  #given(file: string, owner: LockOwner, range: OffsetRange): void {
    for (const one of [...this.#of(this.#late, file, owner), ...this.#of(this.#waiting, file, owner)])
      if (one.rest !== null) this.#leave(one, [range]);
  }

  /** In the turn of its answer. What is to be given up now. */
  ended(waiter: Waiter, status: FileLockStatus): readonly GivenUp[] {
    const { file, owner, range, rest } = waiter;
    this.#waiting.delete(waiter);
    if (status === "granted" && rest === null) this.#given(file, owner, range);
    else if (status === "granted") this.#late.add(waiter);
    if (this.#late.size === 0) return [];
    const asked = this.#of(this.#waiting, file, owner).map((one) => one.range);
    const given: OffsetRange[] = [];
    for (const late of this.#of(this.#late, file, owner)) {
      this.#leave(late, given);
      const now = without(late.rest ?? [], asked);
      this.#leave(late, now);
      given.push(...now);
    }
    return given.map((one) => ({ file, owner, range: one }));
  }

  /** What of these bytes of an owner is not to be given up later. */
  lasting(file: string, owner: LockOwner, range: OffsetRange): readonly OffsetRange[] {
    if (this.#late.size === 0) return [range];
    return without(
      [range],
      this.#of(this.#late, file, owner).flatMap(({ rest }) => rest ?? []),
    );
  }

  #of(waiters: ReadonlySet<Waiter>, file: string, owner: LockOwner): Waiter[] {
    return [...waiters].filter((one) => one.file === file && sameOwner(one.owner, owner));
  }

  #leave(one: Waiter, ranges: readonly OffsetRange[]): void {
    one.rest = without(one.rest ?? [], ranges);
    if (one.rest.length === 0) this.#late.delete(one);
  }
}
