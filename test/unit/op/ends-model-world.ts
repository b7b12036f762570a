/** What the nodes of the model of ends (ends-model.ts) share: the file, what it was at each moment, and what was found to be wrong. */
import { ModelSteps } from "../coherence/model-steps.ts";

/** What the file was, until the call returned that made something else of it: until then programs of its node may see this. */
export interface FileState {
  readonly bytes: Buffer;
  /** Which node made it something else; null: none has. */
  by: number | null;
  until: number;
}

/** A write of which a kernel has the data before the lower does. */
export interface Filling {
  readonly offset: number;
  readonly data: Buffer;
  readonly begin: number;
  end: number;
}

export class EndsWorld {
  readonly steps: ModelSteps;
  readonly random: () => number;
  violation: string | null = null;
  /** Counts moments. */
  moment = 1;
  /** What the mtime goes by. */
  changes = 1;
  states: FileState[] = [{ bytes: Buffer.alloc(5000, 0x2e), by: null, until: Number.POSITIVE_INFINITY }];
  readonly fillings: Filling[] = [];
  readonly counts = {
    reads: 0,
    directReads: 0,
    interrupted: 0,
    appends: 0,
    cuts: 0,
    touches: 0,
    writes: 0,
    fallocates: 0,
    copies: 0,
    seeks: 0,
    killed: 0,
  };
  readonly log: string[] = [];
  /** How many, by node. */
  readonly #leftBehind = new Map<number, number>();

  constructor(random: () => number) {
    this.random = random;
    this.steps = new ModelSteps(random);
  }

  note(text: string): void {
    this.violation ??= text;
  }

  say(text: string): void {
    this.log.push(`${this.moment} ${text}`);
    if (this.log.length > 400) this.log.shift();
  }

  turn(): Promise<void> {
    return new Promise((resolve) => this.steps.free.push(resolve));
  }

  async maybeTurn(): Promise<void> {
    if (this.random() < 0.5) await this.turn();
  }

  get bytes(): Buffer {
    return (this.states.at(-1) as FileState).bytes;
  }

  set(node: number, bytes: Buffer): void {
    this.moment += 1;
    this.changes += 1;
    (this.states.at(-1) as FileState).by = node;
    this.states.push({ bytes, by: null, until: Number.POSITIVE_INFINITY });
    if (this.states.length > 300) this.states.shift();
  }

  /** The call of that node that has i_rwsem there is about to return. What a killed caller left behind is under way until it has ended. */
  returned(node: number): void {
    if ((this.#leftBehind.get(node) ?? 0) > 0) return;
    for (const state of this.states) if (state.by === node && state.until > this.moment) state.until = this.moment;
    this.moment += 1;
  }

  /** The caller of a change was killed: it has i_rwsem no more, and the change goes on. To be called when that has ended. */
  leftBehind(node: number): () => void {
    this.#leftBehind.set(node, (this.#leftBehind.get(node) ?? 0) + 1);
    return () => {
      this.#leftBehind.set(node, (this.#leftBehind.get(node) ?? 0) - 1);
      this.returned(node);
    };
  }

  /** That node has read what the file was not before the last of these states: if another node made it, nobody sees those before any more. */
  seen(node: number, states: readonly FileState[], newest: number): void {
    const before = states[newest - 1];
    if (before === undefined || before.by === node) return;
    for (const state of states.slice(0, newest)) state.until = Math.min(state.until, this.moment);
    this.moment += 1;
  }

  /** Those that may be seen at some moment since. */
  since(begin: number): readonly FileState[] {
    return this.states.filter(({ until }) => until >= begin);
  }
}
