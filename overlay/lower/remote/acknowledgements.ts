/**
 * What this node tells the owner to forget: answers of changes and syncs that have arrived here (session.ts). An acknowledgement is lost with its connection, and
 * then sent again; it has arrived when a call is answered that was sent after it, so there are never more on their way than the answers of that time. Pure.
 */

export const MAX_ACKS_IN_FRAME = 4096;
/** They travel with the next calls; so many do not wait for that. */
const MANY_ACKS: number = MAX_ACKS_IN_FRAME / 4;

export class Acknowledgements {
  /** Ids of calls. */
  #due: number[] = [];
  /** `after`: the last transmission of a call before they were sent. */
  #sent: { readonly ids: readonly number[]; readonly after: number }[] = [];

  /** True: they are not to wait for the next call. */
  add(id: number): boolean {
    this.#due.push(id);
    return this.#due.length >= MANY_ACKS;
  }

  /** Those of one frame, which is sent now, after that transmission; null: there are none. */
  take(after: number): readonly number[] | null {
    if (this.#due.length === 0) return null;
    const ids = this.#due.splice(0, MAX_ACKS_IN_FRAME);
    this.#sent.push({ ids, after });
    return ids;
  }

  /** The call of that transmission was answered. */
  answered(transmission: number): void {
    while (this.#sent.length > 0 && (this.#sent[0]?.after ?? 0) < transmission) this.#sent.shift();
  }

  /** Another connection to the same owner. */
  sendAgain(): void {
    this.#due = [...this.#sent.flatMap(({ ids }) => ids), ...this.#due];
    this.#sent = [];
  }

  /** Another owner, who remembers nothing of it. */
  clear(): void {
    this.#due = [];
    this.#sent = [];
  }
}
