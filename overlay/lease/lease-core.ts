/**
 * Whether this node may act on the locks that it holds (hazards C4, H1): until the lease of its dlmd ends. Pure: where the end is kept and which clock it
 * is read by is for lease.ts.
 *
 *     holds --the end came--> lapsed --a later end was published--> holds
 *                               \-------------the mount is taken out-------------> over
 *
 * The end that is published only moves on while a quorum acknowledges this node in its view. So a lapse that ends by itself means that this
 * node was in the view all the time and lost no lock: what waited goes on. A node that the others went on without never sees it end.
 */

/** What to do now; null: nothing. */
export type LeaseChange = "lapse" | "renew" | null;

/** How often to look when nobody asks: after the machine slept, the kernel answers from its caches for so long. */
export const LOOK_INTERVAL_MS = 200;
/** The same while it is over: what waits goes on so soon after it holds again. */
export const LAPSED_LOOK_MS = 10;

export class LeaseCore {
  state: "holds" | "lapsed" | "over" = "holds";
  /** How often it lapsed. */
  lapses = 0;

  /** `endMs` as published, and now, by one clock. */
  look(endMs: number, nowMs: number): LeaseChange {
    const ended = !(nowMs < endMs);
    if (this.state === "holds" && ended) {
      this.state = "lapsed";
      this.lapses += 1;
      return "lapse";
    }
    if (this.state === "lapsed" && !ended) {
      this.state = "holds";
      return "renew";
    }
    return null;
  }

  /** The mount is taken out: it never holds again. */
  end(): void {
    this.state = "over";
  }

  /** How long until the next look; null: none. */
  nextLookMs(endMs: number, nowMs: number): number | null {
    if (this.state === "over") return null;
    if (this.state === "lapsed") return LAPSED_LOOK_MS;
    return Math.min(LOOK_INTERVAL_MS, Math.max(0, endMs - nowMs));
  }
}
