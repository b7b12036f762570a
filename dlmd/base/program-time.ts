/**
 * The time that a program of this node has to answer in (hazard H13). An answer may lie unread in its socket because this process stood
 * still. So of a standstill no more than `hearingMs` counts, and every limit is `2 * hearingMs` longer: what was said in time is heard by then.
 */
export class ProgramTime {
  /** A node that runs may hear nothing for that long, not even a tick. Set by the node. */
  hearingMs = 0;
  /** All the time that did not count. */
  #lostMs = 0;

  /** Before anything else in a step: since the last one so much time has passed. */
  passed(ms: number, counts: boolean): void {
    this.#lostMs += counts ? Math.max(0, ms - this.hearingMs) : ms;
  }

  /** The end of a limit, in time that counts. */
  until(ms: number): number {
    return ms - this.#lostMs + 2 * this.hearingMs;
  }

  /** That end by the clock, if nothing is lost from now on. */
  clockMs(untilMs: number): number {
    return untilMs + this.#lostMs;
  }

  /** As `clockMs` says it, to the last bit. */
  isOver(untilMs: number, nowMs: number): boolean {
    return nowMs >= this.clockMs(untilMs);
  }
}
