/**
 * Ranges found by what they overlap: a treap (Seidel and Aragon, "Randomized search trees", 1996) ordered by start and rank, in
 * which each subtree knows its highest end, its lowest and its highest rank (Cormen et al., "Interval trees"). Weights come from
 * a counter put through a mixing function: no randomness, and no order of insertions that a client could choose makes it degenerate.
 */

export interface Ranged {
  readonly start: bigint;
  readonly end: bigint;
  /** Unique within a tree. */
  readonly rank: number;
}

interface Node<T> {
  readonly item: T;
  readonly weight: number;
  left: Node<T> | null;
  right: Node<T> | null;
  maxEnd: bigint;
  minRank: number;
  maxRank: number;
}

export class IntervalTree<T extends Ranged> {
  #root: Node<T> | null = null;
  #inserted = 0;
  size = 0;

  insert(item: T): void {
    this.size++;
    const weight = mix(++this.#inserted);
    this.#root = insert(this.#root, { item, weight, left: null, right: null, maxEnd: item.end, minRank: item.rank, maxRank: item.rank });
  }

  /** The item must be in the tree. */
  remove(item: T): void {
    this.size--;
    this.#root = remove(this.#root, item);
  }

  /** The first, by start, that overlaps and that `accept` takes. */
  first(start: bigint, end: bigint, accept: (item: T) => boolean): T | null {
    return first(this.#root, start, end, accept);
  }

  /** Of those that overlap and that `accept` takes the one with the highest rank below the given one. */
  latest(start: bigint, end: bigint, below: number, accept: (item: T) => boolean): T | null {
    const best = { item: null as T | null };
    latest(this.#root, start, end, below, accept, best);
    return best.item;
  }

  /** All that overlap, in order of start. The tree may be changed afterwards. */
  overlapping(start: bigint, end: bigint): T[] {
    const found: T[] = [];
    collect(this.#root, start, end, found);
    return found;
  }
}

/** The 32-bit finalizer of MurmurHash3. */
function mix(value: number): number {
  let h = Math.imul(value, 0x9e3779b1);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

function before(a: Ranged, b: Ranged): boolean {
  return a.start < b.start || (a.start === b.start && a.rank < b.rank);
}

function update<T extends Ranged>(node: Node<T>): Node<T> {
  let { end, rank: minRank, rank: maxRank } = node.item;
  for (const child of [node.left, node.right]) {
    if (child === null) continue;
    if (child.maxEnd > end) end = child.maxEnd;
    if (child.minRank < minRank) minRank = child.minRank;
    if (child.maxRank > maxRank) maxRank = child.maxRank;
  }
  node.maxEnd = end;
  node.minRank = minRank;
  node.maxRank = maxRank;
  return node;
}

function insert<T extends Ranged>(node: Node<T> | null, fresh: Node<T>): Node<T> {
  if (node === null) return fresh;
  if (before(fresh.item, node.item)) {
    const child = insert(node.left, fresh);
    node.left = child;
    if (child.weight <= node.weight) return update(node);
    node.left = child.right;
    child.right = update(node);
    return update(child);
  }
  const child = insert(node.right, fresh);
  node.right = child;
  if (child.weight <= node.weight) return update(node);
  node.right = child.left;
  child.left = update(node);
  return update(child);
}

function remove<T extends Ranged>(node: Node<T> | null, item: T): Node<T> | null {
  if (node === null) throw new Error(`range ${item.start}-${item.end} is not in the tree`);
  if (node.item === item) return merge(node.left, node.right);
  if (before(item, node.item)) node.left = remove(node.left, item);
  else node.right = remove(node.right, item);
  return update(node);
}

function merge<T extends Ranged>(left: Node<T> | null, right: Node<T> | null): Node<T> | null {
  if (left === null) return right;
  if (right === null) return left;
  if (left.weight > right.weight) {
    left.right = merge(left.right, right);
    return update(left);
  }
  right.left = merge(left, right.left);
  return update(right);
}

function first<T extends Ranged>(node: Node<T> | null, start: bigint, end: bigint, accept: (item: T) => boolean): T | null {
  if (node === null || node.maxEnd < start) return null;
  const found = first(node.left, start, end, accept);
  if (found !== null) return found;
  const { item } = node;
  if (item.start > end) return null;
  if (item.end >= start && accept(item)) return item;
  return first(node.right, start, end, accept);
}

function latest<T extends Ranged>(
  node: Node<T> | null,
  start: bigint,
  end: bigint,
  below: number,
  accept: (item: T) => boolean,
  best: { item: T | null },
): void {
  if (node === null || node.maxEnd < start || node.minRank >= below || node.maxRank <= (best.item?.rank ?? -1)) return;
  const { item, left, right } = node;
  const reachesRight = item.start <= end;
  const rightFirst = reachesRight && right !== null && (left === null || right.maxRank > left.maxRank);
  if (rightFirst) latest(right, start, end, below, accept, best);
  else latest(left, start, end, below, accept, best);
  if (reachesRight && item.end >= start && item.rank < below && item.rank > (best.item?.rank ?? -1) && accept(item)) best.item = item;
  if (rightFirst) latest(left, start, end, below, accept, best);
  else if (reachesRight) latest(right, start, end, below, accept, best);
}

function collect<T extends Ranged>(node: Node<T> | null, start: bigint, end: bigint, found: T[]): void {
  if (node === null || node.maxEnd < start) return;
  collect(node.left, start, end, found);
  const { item } = node;
  if (item.start > end) return;
  if (item.end >= start) found.push(item);
  collect(node.right, start, end, found);
}
