/** What may happen next in a model of several nodes, and which of it does: the seed picks. */
import type { CoherenceState, Effect } from "../../../overlay/coherence/effect.ts";

export class ModelSteps {
  /** In any order. */
  readonly free: (() => void)[] = [];
  /** Milliseconds. */
  now = 0;
  readonly #random: () => number;
  readonly #channels: (() => void)[][] = [];

  constructor(random: () => number) {
    this.#random = random;
  }

  /** What is given to it happens in that order. */
  channel(): (step: () => void) => void {
    const queue: (() => void)[] = [];
    this.#channels.push(queue);
    return (step) => queue.push(step);
  }

  get hasAny(): boolean {
    return this.free.length > 0 || this.#channels.some((queue) => queue.length > 0);
  }

  /** One of them. False: there is none. */
  take(): boolean {
    const { free } = this;
    const ready = this.#channels.filter((queue) => queue.length > 0);
    const choices = ready.length + free.length;
    if (choices === 0) return false;
    this.now += this.#random() * 0.05;
    const pick = Math.floor(this.#random() * choices);
    if (pick < ready.length) {
      ready[pick]?.shift()?.();
      return true;
    }
    const step = free[pick - ready.length];
    const last = free.pop() as () => void;
    if (pick < choices - 1) free[pick - ready.length] = last;
    step?.();
    return true;
  }
}

/** As the shell does: an effect may leave more of them, and the outermost call does them all. */
export function performAll(node: { readonly state: CoherenceState; performing: boolean }, perform: (effect: Effect) => void): void {
  if (node.performing) return;
  node.performing = true;
  const { effects } = node.state;
  for (let at = 0; at < effects.length; at += 1) perform(effects[at] as Effect);
  effects.length = 0;
  node.performing = false;
}
