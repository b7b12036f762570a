/** How much each mount does now: from the difference of what it counts between two looks. Pure. */

/** Points of the line of each mount: one for each look. */
export const RATE_POINTS_MAX = 60;
/** Mounts with a line; one more has figures without rates. */
export const RATED_MOUNTS_MAX = 64;
/** Looks that are so far apart say nothing of now: nobody looked meanwhile, or the mount did not answer. */
const GAP_MS = 10_000;
/** A shorter time between two looks would make a rate of a few operations. */
const SPAN_MIN_MS = 100;
/** Trips and messages are divided by the operations of so many points, for a quiet number. */
const RATIO_POINTS = 5;

/** Of MountFacts. */
type Figures = Readonly<Record<string, number>>;

interface Point {
  readonly ops: number;
  readonly trips: number;
  readonly messages: number;
  readonly ms: number;
}

interface Line {
  readonly atMs: number;
  readonly figures: Figures;
  readonly points: readonly Point[];
}

export interface MountRate {
  readonly opsPerS: number;
  /** Round trips to the owner for each operation; null: there was no operation. */
  readonly tripsPerOp: number | null;
  /** Messages to dlmd for each operation. */
  readonly messagesPerOp: number | null;
  /** Operations per second, the latest at the end. */
  readonly line: readonly number[];
}

export class Rates {
  #lines = new Map<string, Line>();

  /** `key`: one life of one mount. `atMs`: of a clock that never goes back. Another figure may be missing, `ops` not. */
  take(key: string, atMs: number, figures: Figures): void {
    const before = this.#lines.get(key);
    if (figures["ops"] === undefined || (before === undefined && this.#lines.size >= RATED_MOUNTS_MAX)) return;
    const ms = before === undefined ? Number.POSITIVE_INFINITY : atMs - before.atMs;
    if (ms < SPAN_MIN_MS) return;
    const point = before === undefined || ms > GAP_MS ? null : pointOf(before.figures, figures, ms);
    const points = before === undefined || point === null ? [] : [...before.points, point].slice(-RATE_POINTS_MAX);
    this.#lines.set(key, { atMs, figures, points });
  }

  /** Null: not known yet. */
  of(key: string): MountRate | null {
    const points = this.#lines.get(key)?.points ?? [];
    const last = points.at(-1);
    if (last === undefined) return null;
    const recent = points.slice(-RATIO_POINTS);
    const sum = (of: (point: Point) => number): number => recent.reduce((total, point) => total + of(point), 0);
    const ops = sum((point) => point.ops);
    return {
      opsPerS: perSecond(last),
      tripsPerOp: ops === 0 ? null : sum(({ trips }) => trips) / ops,
      messagesPerOp: ops === 0 ? null : sum(({ messages }) => messages) / ops,
      line: points.map(perSecond),
    };
  }

  /** Forgets all other mounts. */
  keepOnly(keys: ReadonlySet<string>): void {
    this.#lines = new Map([...this.#lines].filter(([key]) => keys.has(key)));
  }
}

function perSecond({ ops, ms }: Point): number {
  return (ops * 1000) / ms;
}

/** Null: it counts anew. */
function pointOf(before: Figures, now: Figures, ms: number): Point | null {
  const grown = (name: string): number => (now[name] ?? 0) - (before[name] ?? 0);
  const point = { ops: grown("ops"), trips: grown("lowerRoundTrips"), messages: grown("lockMessagesSent"), ms };
  return point.ops < 0 || point.trips < 0 || point.messages < 0 ? null : point;
}
