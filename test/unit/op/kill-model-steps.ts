/** What may happen next in the kill model: the seed picks one, and all that follows from it without waiting happens before the next. */
import { seeded } from "../coherence/seeded.ts";

const TIMER_STEPS = 100;

export class KillModelSteps {
  readonly random: () => number;
  /** One that happened: times of the history. */
  now = 0;
  #free: (() => void)[] = [];
  readonly #channels: (() => void)[][] = [];
  #pausedFor = 0;
  #delayed: { steps: number; readonly act: () => void }[] = [];

  constructor(seed: number) {
    this.random = seeded(seed);
  }

  below(limit: number): number {
    return Math.floor(this.random() * limit);
  }

  chance(share: number): boolean {
    return this.random() < share;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)] as T;
  }

  turn(): Promise<void> {
    return new Promise((resolve) => this.#free.push(resolve));
  }

  /** What goes in there comes out in its order. */
  channel(): (act: () => void) => void {
    const queue: (() => void)[] = [];
    this.#channels.push(queue);
    return (act) => void queue.push(act);
  }

  /** When so many steps were made. */
  after(steps: number, act: () => void): void {
    this.#delayed.push({ steps, act });
  }

  /** Nothing comes out of a channel for so many steps: the owner stands still. */
  pause(steps: number): void {
    this.#pausedFor = steps;
  }

  /** Until nothing can happen any more, or `limit` steps were made. `idle`: nothing can but what a timer brings; false: no timer runs. */
  async run(limit: number, idle: () => boolean): Promise<void> {
    await microtasks();
    for (let made = 0; made < limit; made += 1) {
      this.now += 1;
      // Somebody may look again and again until a timer lets others go on.
      if (made % TIMER_STEPS === TIMER_STEPS - 1) idle();
      if (!this.#one() && !idle()) return;
      await microtasks();
    }
  }

  #one(): boolean {
    for (const one of this.#delayed) one.steps -= 1;
    const due = this.#delayed.filter(({ steps }) => steps <= 0);
    this.#delayed = this.#delayed.filter(({ steps }) => steps > 0);
    for (const { act } of due) act();
    this.#pausedFor = Math.max(0, this.#pausedFor - 1);
    const queues = this.#pausedFor > 0 ? [] : this.#channels.filter((queue) => queue.length > 0);
    const count = this.#free.length + queues.length;
    if (count === 0) return due.length > 0 || this.#delayed.length > 0 || this.#pausedFor > 0;
    const at = this.below(count);
    if (at < this.#free.length) this.#free.splice(at, 1)[0]?.();
    else queues[at - this.#free.length]?.shift()?.();
    return true;
  }
}

/** All that waits for nothing of the model has happened. */
function microtasks(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
