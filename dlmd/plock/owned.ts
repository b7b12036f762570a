/**
 * What one owner holds on one file: disjoint ranges, neighbours of one type merged, as fcntl(2) says (Linux fs/locks.c
 * posix_lock_inode). Master and holder both keep it, by the same rule, so that either can say what is held.
 */
import { IntervalTree } from "./interval-tree.ts";
import { maxOffset, type PlockType, type Range } from "../wire/plock-range.ts";

export interface Held<H> extends Range {
  readonly rank: number;
  /** Since when the owner has all of it, as that; null: it is not known. */
  readonly sinceMs: number | null;
  readonly holder: H;
}

/** Those bytes as that type; null: unlocked. */
export type OwnedChange = Omit<Range, "type"> & { readonly type: PlockType | null };

export interface Changed<H> {
  readonly removed: readonly Held<H>[];
  readonly added: readonly Held<H>[];
  /** Some byte is free for somebody who could not have it before. */
  readonly weakened: boolean;
}

const unchanged: Changed<never> = { removed: [], added: [], weakened: false };

/** Ranges that one change can add at most, net: a lock put into the middle of one of the other type. */
export const mostAdded = 2;

/**
 * Gives those bytes that type (null: unlocks them), whatever they were. `nextRank` numbers new ranges. `sinceMs`: since when it is so. Of
 * neighbours that become one it is the latest, and what is left of a range that was split keeps its own.
 */
export function changeOwned<H>(
  tree: IntervalTree<Held<H>>,
  holder: H,
  { start, end, type, pid }: OwnedChange,
  sinceMs: number | null,
  nextRank: () => number,
): Changed<H> {
  const touching = tree.overlapping(start > 0n ? start - 1n : start, end < maxOffset ? end + 1n : end);
  const removed: Held<H>[] = [];
  const added: Held<H>[] = [];
  let from = start;
  let to = end;
  let allSinceMs = sinceMs;
  let weakened = false;
  const piece = (like: Omit<Held<H>, "rank" | "holder">, start: bigint, end: bigint): number =>
    added.push({ type: like.type, start, end, pid: like.pid, sinceMs: like.sinceMs, rank: nextRank(), holder });
  for (const held of touching) {
    if (held.type === type) {
      if (held.start <= start && held.end >= end) return unchanged;
      removed.push(held);
      if (held.start < from) from = held.start;
      if (held.end > to) to = held.end;
      allSinceMs = later(allSinceMs, held.sinceMs);
    } else if (held.start <= end && held.end >= start) {
      removed.push(held);
      if (held.start < start) piece(held, held.start, start - 1n);
      if (held.end > end) piece(held, end + 1n, held.end);
      // To another type that is not stronger: unlocked, or write to read.
      if (type !== "write") weakened = true;
    }
  }
  if (type !== null) piece({ type, start, end, pid, sinceMs: allSinceMs }, from, to);
  for (const held of removed) tree.remove(held);
  for (const held of added) tree.insert(held);
  return { removed, added, weakened };
}

function later(a: number | null, b: number | null): number | null {
  return a === null || b === null ? null : Math.max(a, b);
}
