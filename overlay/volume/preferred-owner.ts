/**
 * When a node that prefers to be the owner (`owner: preferred` in cluster.yaml) asks for the volume: a decision without effects. The move itself is a
 * planned one (../serve/hand-over.ts). The rules: overlay/volume/README.md, "A node that prefers to be the owner".
 */

/** So long a node must have been well, in one view and under one owner, before it asks: a node that has just come back may go again. */
export const PREFERRED_AFTER_MS = 10_000;
/** After a question that came to nothing the next one: at first, and at most; the time doubles. */
export const PREFERRED_AGAIN_MIN_MS = 60_000;
export const PREFERRED_AGAIN_MAX_MS = 3_600_000;

export interface PreferredSituation {
  /** Who has the volume; null: nobody, or it is not known. */
  readonly owner: { readonly nodeid: number; readonly epoch: number } | null;
  readonly viewId: string;
  /** This mount answers its callers, reaches the device, and nothing is recovered or blocked. */
  readonly isWell: boolean;
}

export class PreferredOwner {
  readonly #nodeid: number;
  readonly #preferred: readonly number[];
  /** It was the owner in this mount: what took the volume from it was a person or a failure, and it does not ask for it back. */
  hasOwned = false;
  #since: { readonly under: string; readonly ms: number } | null = null;
  #attempts = 0;
  #notBeforeMs = 0;

  /** `preferred`: the nodes that prefer to be the owner. */
  constructor(nodeid: number, preferred: readonly number[]) {
    this.#nodeid = nodeid;
    this.#preferred = preferred;
  }

  /** To be called at once: an owner whose disk fails while it becomes the owner is none any more at the next look. */
  becameOwner(): void {
    this.hasOwned = true;
  }

  /** True: it is time to ask, if `leavesItTo` says null. To be called at each change of the owner, and now and then. `nowMs`: never goes back. */
  look({ owner, viewId, isWell }: PreferredSituation, nowMs: number): boolean {
    if (owner?.nodeid === this.#nodeid) this.hasOwned = true;
    const isWanted = owner !== null && !this.#preferred.includes(owner.nodeid) && this.#preferred.includes(this.#nodeid);
    if (!isWell || !isWanted || this.hasOwned) {
      this.#since = null;
      return false;
    }
    const under = `${owner.epoch} ${viewId}`;
    if (this.#since?.under !== under) this.#since = { under, ms: nowMs };
    return nowMs - this.#since.ms >= PREFERRED_AFTER_MS && nowMs >= this.#notBeforeMs;
  }

  /** The node that goes first, of those that mount the volume and reach its device; null: none does. */
  leavesItTo(mounters: readonly number[]): number | null {
    return this.#preferred.find((nodeid) => nodeid < this.#nodeid && mounters.includes(nodeid)) ?? null;
  }

  /** Another one goes first, or it was asked and this node is not the owner. */
  cameToNothing(nowMs: number): void {
    this.#notBeforeMs = nowMs + Math.min(PREFERRED_AGAIN_MAX_MS, PREFERRED_AGAIN_MIN_MS * 2 ** Math.min(this.#attempts, 30));
    this.#attempts += 1;
  }
}
