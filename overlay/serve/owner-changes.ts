/** The last change of the volume's owner as this mount saw it, and for how long there was none: for the status. Times come in as arguments. */
import type { OwnerChange, OwnerChangesSeen } from "../status/facts.ts";
import type { OwnerRecord } from "../volume/owner-record.ts";

export class OwnerChanges {
  #count = 0;
  #last: OwnerChange | null = null;
  #ownerNodeid: number | null = null;
  #lost: { readonly sinceMs: number; readonly reason: string } | null = null;

  /** There is none any more. Said again while there is none: the first time counts. */
  lost(reason: string, nowMs: number): void {
    if (this.#ownerNodeid !== null) this.#lost ??= { sinceMs: nowMs, reason };
  }

  /** There is one: also that of before, if it goes on. */
  found({ nodeid }: Pick<OwnerRecord, "nodeid">, nowMs: number, wallMs: number): void {
    if (this.#ownerNodeid !== null && this.#lost !== null) {
      const { sinceMs, reason } = this.#lost;
      this.#count++;
      this.#last = { fromNodeid: this.#ownerNodeid, toNodeid: nodeid, pauseMs: Math.round(nowMs - sinceMs), atMs: wallMs, reason };
    }
    this.#ownerNodeid = nodeid;
    this.#lost = null;
  }

  describe(nowMs: number): OwnerChangesSeen {
    const withoutMs = this.#lost === null ? null : Math.round(nowMs - this.#lost.sinceMs);
    return { count: this.#count, last: this.#last, withoutMs };
  }
}
