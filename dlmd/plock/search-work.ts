/**
 * The work of searches for deadlocks, in short turns: what they look at may be a hundred thousand rows each, and heartbeats, clients and
 * grants go on meanwhile. Piece by piece, in the order in which they came, so that no two are under way at one time.
 */
import { searchesAtOnce } from "./search.ts";

/**
 * Messages of searches of one other node that wait. One that obeys has fewer: for each of its searches and each of ours one is under way. More
 * are dropped, and the view is rebuilt.
 */
export const maxSearchMessages: number = 4 * searchesAtOnce;

/** A yield for each row. */
export type Piece = () => Iterator<void>;

export class SearchWork {
  #pieces: { readonly from: number; readonly piece: Piece }[] = [];
  #running: Iterator<void> | null = null;
  readonly #waiting: Map<number, number> = new Map();

  get waits(): boolean {
    return this.#running !== null || this.#pieces.length > 0;
  }

  /** Of a message of that node; false: too many of it wait. */
  addMessage(from: number, piece: Piece): boolean {
    const waiting = this.#waiting.get(from) ?? 0;
    if (waiting >= maxSearchMessages) return false;
    this.#waiting.set(from, waiting + 1);
    this.#pieces.push({ from, piece });
    return true;
  }

  /** Of this node. */
  add(piece: Piece): void {
    this.#pieces.push({ from: 0, piece });
  }

  clear(): void {
    this.#pieces = [];
    this.#running = null;
    this.#waiting.clear();
  }

  /** So many rows, and ends of pieces. */
  take(budget: number): void {
    for (let left = budget; left > 0; left--) {
      this.#running ??= this.#next();
      if (this.#running === null) return;
      // What it does may clear all work.
      const running = this.#running;
      if (running.next().done === true && this.#running === running) this.#running = null;
    }
  }

  #next(): Iterator<void> | null {
    const next = this.#pieces.shift();
    if (next === undefined) return null;
    const waiting = this.#waiting.get(next.from);
    if (waiting !== undefined) this.#waiting.set(next.from, waiting - 1);
    return next.piece();
  }
}
