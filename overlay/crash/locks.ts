/**
 * File locks in a journal (README.md, hazards F40, F45): what this node's programs hold of each file, in this process's memory or for certain in dlmd's service. Each change is a
 * new row, so that there is a whole one whenever the process dies; of two rows of a file the later one counts.
 */
import * as z from "zod";
import type { FileLockRow } from "../file-lock/api.ts";
import { JOURNAL_LOCKS_BYTES_MAX, LOCKS_BODY_AT, TABLES } from "./layout.ts";
import { Rows } from "./rows.ts";

/** A lock takes as many bytes in a row, and more. */
export const LOCK_BYTES_MIN = 64;

const decimal = z.string().regex(/^\d{1,20}$/);
const owner = { kind: z.enum(["posix", "flock"]), owner: decimal };
const shape = z.object({
  file: z.string(),
  shared: z.boolean(),
  held: z.array(
    z.object({ ...owner, type: z.enum(["read", "write"]), start: decimal, end: decimal, pid: z.number().int(), sinceMs: z.number() }),
  ),
  users: z.array(z.object({ ...owner, handles: z.array(z.number().int()) })),
});

export class JournalLocks {
  readonly #memory: ArrayBuffer;
  readonly #rows: Rows;
  readonly #byFile = new Map<string, number>();
  /** Files of which what is written down is not all. */
  readonly #beyond = new Set<string>();
  #next = 1;

  constructor(memory: ArrayBuffer) {
    this.#memory = memory;
    this.#rows = new Rows(memory, TABLES.locks);
  }

  /** More is held than there is room for. */
  get areBeyond(): boolean {
    return this.#beyond.size > 0;
  }

  /** Of one file: with more it is not made into text to see that there is no room. */
  get locksMax(): number {
    return Math.floor(JOURNAL_LOCKS_BYTES_MAX / LOCK_BYTES_MIN);
  }

  /** What was written down of it before stays: it is known that this is not all. */
  setBeyond(file: string): void {
    this.#beyond.add(file);
  }

  /** Before any program hears of it. `row` null: nothing, or it is kept elsewhere. `nowMs`: Date.now(). */
  set(file: string, row: FileLockRow | null, nowMs: number): void {
    const before = this.#byFile.get(file);
    this.#beyond.delete(file);
    if (row === null) {
      this.#byFile.delete(file);
      if (before !== undefined) this.#free(before);
      return;
    }
    const body = row.held.length > this.locksMax ? null : Buffer.from(JSON.stringify(textOf(row, nowMs)));
    const at = body === null || body.length > JOURNAL_LOCKS_BYTES_MAX ? -1 : this.#rows.take();
    if (body === null || at < 0) {
      this.#beyond.add(file);
      return;
    }
    const { u32, f64 } = this.#rows;
    const head = this.#rows.u32At(at);
    body.copy(Buffer.from(this.#memory, this.#rows.byteAt(at) + LOCKS_BODY_AT, JOURNAL_LOCKS_BYTES_MAX));
    u32[head + 1] = body.length;
    f64[head / 2 + 1] = this.#next;
    u32[head] = 1;
    this.#next += 1;
    this.#byFile.set(file, at);
    if (before !== undefined) this.#free(before);
  }

  #free(row: number): void {
    this.#rows.u32[this.#rows.u32At(row)] = 0;
    this.#rows.free(row);
  }

  /** What the process before had, and goes on in its rows. Throws ZodError, SyntaxError: it is damaged. */
  goOn(nowMs: number): FileLockRow[] {
    const latest = new Map<string, { readonly row: number; readonly seq: number; readonly locks: FileLockRow }>();
    for (let row = 0; row < this.#rows.used; row += 1) {
      const head = this.#rows.u32At(row);
      if (this.#rows.u32[head] === 0) {
        this.#rows.free(row);
        continue;
      }
      // A version before this one has it where that is 1 now.
      const seq = (this.#rows.f64[head / 2 + 1] as number) || (this.#rows.u32[head] as number);
      this.#next = Math.max(this.#next, seq + 1);
      const bytes = Math.min(this.#rows.u32[head + 1] as number, JOURNAL_LOCKS_BYTES_MAX);
      const text = Buffer.from(this.#memory, this.#rows.byteAt(row) + LOCKS_BODY_AT, bytes).toString("utf8");
      const locks = rowOf(shape.parse(JSON.parse(text)), nowMs);
      const other = latest.get(locks.file);
      const isLatest = other === undefined || other.seq < seq;
      if (isLatest) latest.set(locks.file, { row, seq, locks });
      const old = other === undefined ? null : isLatest ? other.row : row;
      if (old !== null) this.#free(old);
    }
    for (const [file, { row }] of latest) this.#byFile.set(file, row);
    return [...latest.values()].map(({ locks }) => locks);
  }
}

function textOf({ file, shared, held, users }: FileLockRow, nowMs: number): z.infer<typeof shape> {
  return {
    file,
    shared,
    held: held.map(({ owner: of, range: { type, start, end }, pid, heldMs }) => ({
      kind: of.kind,
      owner: String(of.owner),
      type,
      start: String(start),
      end: String(end),
      pid,
      sinceMs: nowMs - heldMs,
    })),
    users: users.map(({ owner: of, handles }) => ({ kind: of.kind, owner: String(of.owner), handles: [...handles] })),
  };
}

function rowOf({ file, shared, held, users }: z.infer<typeof shape>, nowMs: number): FileLockRow {
  return {
    file,
    shared,
    held: held.map(({ kind, owner: of, type, start, end, pid, sinceMs }) => ({
      owner: { kind, owner: BigInt(of) },
      range: { type, start: BigInt(start), end: BigInt(end) },
      pid,
      heldMs: Math.max(0, nowMs - sinceMs),
    })),
    users: users.map(({ kind, owner: of, handles }) => ({ owner: { kind, owner: BigInt(of) }, handles })),
  };
}
