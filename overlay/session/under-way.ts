/** Requests that wait for something, as plain data: what `coverlay why PID` starts from. */
import type { Operation } from "../op/perform.ts";

export interface UnderWay {
  readonly op: string;
  /** The calling thread; 0: none, or in a pid namespace that is not seen from here. */
  readonly pid: number;
  /** Inode number and generation (fileKey) of what it was asked of; null: unknown to this mount. */
  readonly key: string | null;
  /** The same of the inode for whose lock it waits; null: for none, now. */
  readonly lockKey: string | null;
  readonly sinceMs: number;
  /** A file lock that is asked for. */
  readonly fileLock: { readonly type: string; readonly start: string; readonly end: string } | null;
}

/** Those that have run longest; the others are only counted. */
export const MAX_UNDER_WAY_SHOWN = 1000;

/** Its key is made only where it is shown. */
interface Keyed {
  readonly key: string;
}

interface Entry {
  readonly call: {
    readonly answered: boolean;
    readonly lockKey: string | null;
    onInterrupt?: (() => void) | null;
    onYield?: (() => void) | null;
  };
  readonly request: Operation;
  readonly of: Keyed | null;
  readonly sinceMs: number;
}

export class RequestsUnderWay {
  readonly #nowMs: () => number;
  readonly #entries: Set<Entry> = new Set();

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** Gives the function that ends it. */
  begin(call: Entry["call"], request: Operation, of: Keyed | null): () => void {
    const entry = { call, request, of, sinceMs: this.#nowMs() };
    this.#entries.add(entry);
    return () => this.#entries.delete(entry);
  }

  /**
   * The oldest first. `count`: of all. `longest`: of those that do not wait for a file lock, which programs may have others wait for as long as
   * they like, in any number.
   */
  list(): { readonly requests: readonly UnderWay[]; readonly count: number; readonly longest: UnderWay | null } {
    const now = this.#nowMs();
    // One that is answered only tidies up.
    const waiting = [...this.#entries].filter(({ call }) => !call.answered);
    const shown = ({ call, request, of, sinceMs }: Entry): UnderWay => {
      const { op, pid } = request;
      return {
        op,
        pid,
        key: of?.key ?? null,
        lockKey: call.lockKey,
        sinceMs: Math.max(0, Math.round(now - sinceMs)),
        fileLock: fileLockOf(request),
      };
    };
    const longest = waiting.find(({ request }) => fileLockOf(request) === null);
    const requests = waiting.slice(0, MAX_UNDER_WAY_SHOWN).map(shown);
    return { requests, count: waiting.length, longest: longest === undefined ? null : shown(longest) };
  }

  /** Hazard F42. Requests for file locks end as if their callers were killed. */
  endFileLocks(): void {
    for (const { call, request } of this.#entries) {
      if (call.answered || fileLockOf(request) === null) continue;
      const end = call.onInterrupt;
      call.onInterrupt = null;
      end?.();
    }
  }

  /** Hazard F45. Those that wait for one end, and begin again. */
  yieldFileLocks(): void {
    for (const { call } of this.#entries) {
      const end = call.onYield;
      call.onYield = null;
      end?.();
    }
  }

  /** How many of each operation. */
  byOperation(): Readonly<Record<string, number>> {
    const counts: Record<string, number> = {};
    for (const { call, request } of this.#entries) if (!call.answered) counts[request.op] = (counts[request.op] ?? 0) + 1;
    return counts;
  }
}

function fileLockOf(request: Operation): UnderWay["fileLock"] {
  if (!("type" in request) || !("start" in request) || !("end" in request)) return null;
  const { type, start, end } = request as { type: unknown; start: unknown; end: unknown };
  return { type: String(type), start: String(start), end: String(end) };
}
