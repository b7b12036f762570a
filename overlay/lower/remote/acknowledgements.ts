/**
 * What this node tells the owner to forget: answers of changes and syncs that have arrived here (session.ts). An acknowledgement is lost with its connection, and
 * then sent again; it has arrived when a call is answered that was sent after it, so there are never more on their way than the answers of that time. Pure.
 */

export const MAX_ACKS_IN_FRAME = 4096;
/** So many travel with the next call: a frame for each would be a third of all that a change costs. Fewer stay, and the owner remembers as many answers more. */
export const ACKS_MIN = 16;
/** Fewer go after so many transmissions: calls are numbered with 32 bits, and the owner would take a later call of that number for the one it has answered. */
export const ACK_WAITS_MAX = 1_048_576;
/** So many do not wait for a call. */
const MANY_ACKS: number = MAX_ACKS_IN_FRAME / 4;

export class Acknowledgements {
  /** Ids of calls. */
  #due: number[] = [];
  /** The last transmission when it was first found that some are due; null: none is. */
  #since: number | null = null;
  /** `after`: the last transmission of a call before they were sent. */
  #sent: { readonly ids: readonly number[]; readonly after: number }[] = [];

  /** True: they are not to wait for the next call. */
  add(id: number): boolean {
    this.#due.push(id);
    return this.#due.length >= MANY_ACKS;
  }

  /** Those of one frame, which is sent now, after that transmission; null: there are too few. */
  take(after: number): readonly number[] | null {
    if (this.#due.length === 0) return null;
    this.#since ??= after;
    if (this.#due.length < ACKS_MIN && after - this.#since < ACK_WAITS_MAX) return null;
    this.#since = null;
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
    this.#since = null;
    this.#sent = [];
  }
}
