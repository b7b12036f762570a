/** The views that a node has been in, and when: for people who ask later what happened. Pure. */
import type { ViewInfo } from "../wire/program.ts";

/** Views that are kept; the oldest goes first. */
export const MAX_VIEWS = 64;

export interface ViewRecord extends Omit<ViewInfo, "running"> {
  /** CLOCK_REALTIME of this node when it entered the view, milliseconds. */
  readonly atMs: number;
}

/** Of one life of a node: an evicted node begins anew. */
export class ViewHistory {
  #records: readonly ViewRecord[] = [];

  /** The latest at the end. */
  get records(): readonly ViewRecord[] {
    return this.#records;
  }

  enterView({ viewId, quorate, members, incarnations, quorumReason }: ViewInfo, atMs: number): void {
    this.#records = [...this.#records, { viewId, quorate, members, incarnations, quorumReason, atMs }].slice(-MAX_VIEWS);
  }
}
