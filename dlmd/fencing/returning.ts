/**
 * Nodes that are to be fenced, and are heard in another life than those that are asked for: they have been started again, and a fence would end
 * a life that nobody asked for. So it waits for a while: as a member the node answers for its former lives itself.
 */

/** A node that is heard so long in other lives and does not join is fenced after all: its datagrams come through, its connections do not. */
export const RETURN_LIMIT_MS = 30_000;

export class Returning {
  /** By nodeid, for all of its lives together: one that starts again and again would never be fenced else. `atMs` null: it is not held now. */
  readonly #held: Map<number, { readonly spentMs: number; readonly atMs: number | null }> = new Map();

  /** How long the fence of that node waits still; 0: it need not. `heard`: the life that is heard now; null: none is. */
  holdMs(nodeid: number, lives: readonly { readonly incarnation: string }[], heard: string | null, nowMs: number): number {
    const isHeld = heard !== null && !lives.some(({ incarnation }) => incarnation === heard);
    const { spentMs: beforeMs, atMs } = this.#held.get(nodeid) ?? { spentMs: 0, atMs: null };
    const spentMs = beforeMs + (atMs === null ? 0 : nowMs - atMs);
    this.#held.set(nodeid, { spentMs, atMs: isHeld ? nowMs : null });
    return isHeld ? Math.max(0, RETURN_LIMIT_MS - spentMs) : 0;
  }

  /**
   * It has joined, and lock service runs with it; or it is fenced. A member without connections, which goes again, does not begin its time
   * anew.
   */
  ended(nodeid: number): void {
    this.#held.delete(nodeid);
  }
}
