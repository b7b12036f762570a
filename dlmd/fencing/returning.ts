/**
 * Nodes that are to be fenced, and are heard in another life than those that are asked for: they have been started again, and a fence would end
 * a life that nobody asked for. So it waits for a while: as a member the node answers for its former lives itself.
 */

import type { Want } from "../wire/fencing-group.ts";

/** A node that is heard so long in other lives and does not join is fenced after all: its datagrams come through, its connections do not. */
export const RETURN_LIMIT_MS = 30_000;

interface Held {
  readonly spentMs: number;
  /** When it was held last, if it is held now; null: it is not. */
  readonly atMs: number | null;
  /** When it was to be fenced last. */
  readonly wantedMs: number;
}

export class Returning {
  readonly #gapMs: number;
  /** By nodeid, for all of its lives together: one that starts again and again would never be fenced else. */
  readonly #held: Map<number, Held> = new Map();

  /** `gapMs`: what one gap between two looks counts at most: nobody knows whether it was heard all that time. */
  constructor(gapMs: number) {
    this.#gapMs = gapMs;
  }

  /** At all that are to be fenced, in each step: whether it may be fenced just now or not, it could have joined. */
  look(wants: readonly Want[], heard: (nodeid: number) => string | null, nowMs: number): void {
    for (const want of wants) {
      const { spentMs, atMs } = this.#held.get(want.nodeid) ?? { spentMs: 0, atMs: null };
      const gapMs = atMs === null ? 0 : Math.min(this.#gapMs, nowMs - atMs);
      const isHeld = isBack(want, heard(want.nodeid));
      this.#held.set(want.nodeid, { spentMs: spentMs + gapMs, atMs: isHeld ? nowMs : null, wantedMs: nowMs });
    }
    // Not at once: a member without connections, which goes again, does not begin its time anew.
    for (const [nodeid, { wantedMs }] of this.#held) if (nowMs - wantedMs >= RETURN_LIMIT_MS) this.#held.delete(nodeid);
  }

  /** How long its fence waits still; 0: it need not. `heard`: the life that is heard now; null: none is. */
  leftMs(want: Want, heard: string | null): number {
    return isBack(want, heard) ? Math.max(0, RETURN_LIMIT_MS - (this.#held.get(want.nodeid)?.spentMs ?? 0)) : 0;
  }

  /** It has joined, and lock service runs with it; or it is fenced. */
  ended(nodeid: number): void {
    this.#held.delete(nodeid);
  }
}

function isBack({ lives }: Want, heard: string | null): boolean {
  return heard !== null && !lives.some(({ incarnation }) => incarnation === heard);
}
