/** Rows of one table of a journal: which are free, and views of what they have. */
import type { Table } from "./layout.ts";

export class Rows {
  readonly f64: Float64Array;
  readonly u32: Uint32Array;
  readonly #table: Table;
  readonly #head: Uint32Array;
  readonly #free: number[] = [];
  #used: number;

  constructor(memory: ArrayBuffer, table: Table) {
    const { at, rowBytes, rows, usedAt } = table;
    this.#table = table;
    this.f64 = new Float64Array(memory, at, (rowBytes * rows) / 8);
    this.u32 = new Uint32Array(memory, at, (rowBytes * rows) / 4);
    this.#head = new Uint32Array(memory, usedAt, 1);
    this.#used = this.#head[0] as number;
  }

  /** Rows that were ever used: whether one is, its state says. */
  get used(): number {
    return this.#used;
  }

  /** -1: there is none left. */
  take(): number {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    if (this.#used === this.#table.rows) return -1;
    const row = this.#used;
    this.#used += 1;
    this.#head[0] = this.#used;
    return row;
  }

  /** Its state is 0. */
  free(row: number): void {
    this.#free.push(row);
  }

  /** Where in `f64` it begins. */
  f64At(row: number): number {
    return (row * this.#table.rowBytes) / 8;
  }

  u32At(row: number): number {
    return (row * this.#table.rowBytes) / 4;
  }

  /** Where in the whole memory. */
  byteAt(row: number): number {
    return this.#table.at + row * this.#table.rowBytes;
  }
}
