/**
 * Peers that send what they cannot have meant: a message about a lock that is not there, or that contradicts what is known of it. It is dropped,
 * but its sender may wait for an answer for ever, and the tables of the two do not agree. So the view is rebuilt and everything is named
 * anew. A peer that goes on like this is left out instead, or it could make views without end.
 */

/**
 * So many views of one life of a peer are rebuilt for that reason within the window; with the next such message it is left out. What cannot be
 * read at all counts for the whole life: no time heals it, and where views and rebuilds are slow the window would never see enough of them.
 */
export const MAX_MISTRUST_VIEWS = 3;
export const MISTRUST_WINDOW_MS = 60_000;

interface Seen {
  readonly incarnation: string | null;
  readonly untilMs: readonly number[];
}

export class Mistrust {
  readonly #seen: Map<number, Seen> = new Map();

  /** That peer sent such a message, the first one in this view: what to do. */
  seen(nodeid: number, incarnation: string | null, unreadable: boolean, nowMs: number): "rebuild" | "leave-out" {
    const before = this.#seen.get(nodeid);
    const known = before?.incarnation === incarnation ? before.untilMs : [];
    const endMs = unreadable ? Number.POSITIVE_INFINITY : nowMs + MISTRUST_WINDOW_MS;
    const untilMs = [...known.filter((each) => nowMs < each), endMs].slice(-(MAX_MISTRUST_VIEWS + 1));
    this.#seen.set(nodeid, { incarnation, untilMs });
    return untilMs.length > MAX_MISTRUST_VIEWS ? "leave-out" : "rebuild";
  }
}
