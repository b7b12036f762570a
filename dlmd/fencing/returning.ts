/**
 * Nodes that are to be fenced, and are heard in another life than those that are asked for: they have been started again, and a fence would end
 * a life that nobody asked for. So it waits for a while: as a member the node answers for its former lives itself.
 */

/** A node that is heard so long in another life and does not join is fenced after all: its datagrams come through, its connections do not. */
export const RETURN_LIMIT_MS = 30_000;

export class Returning {
  /** By nodeid. */
  readonly #since: Map<number, { readonly incarnation: string; readonly sinceMs: number }> = new Map();

  /** How long the fence of that node waits still; 0: it need not. `heard`: the life that is heard now; null: none is. */
  holdMs(nodeid: number, lives: readonly { readonly incarnation: string }[], heard: string | null, nowMs: number): number {
    if (heard === null || lives.some(({ incarnation }) => incarnation === heard)) {
      this.#since.delete(nodeid);
      return 0;
    }
    let since = this.#since.get(nodeid);
    if (since?.incarnation !== heard) {
      since = { incarnation: heard, sinceMs: nowMs };
      this.#since.set(nodeid, since);
    }
    return Math.max(0, since.sinceMs + RETURN_LIMIT_MS - nowMs);
  }

  /** It has joined, and lock service runs with it. A member without connections, which goes again, does not begin its time anew. */
  joined(nodeid: number): void {
    this.#since.delete(nodeid);
  }
}
