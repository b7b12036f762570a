/** What the nodes of the model of ends (ends-model.ts) share: the file, what it was at each moment, and what was found to be wrong. */
import { PAGE_BYTES } from "../../../overlay/coherence/page-range.ts";
import { ModelSteps } from "../coherence/model-steps.ts";
import type { Stored } from "./ends-model-mapping.ts";

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
    stores: 0,
    writeBacks: 0,
    killed: 0,
  };
  readonly log: string[] = [];
  /** Pages on their way to the lower, by what they are sent in. */
  readonly writeBacks: Map<ArrayBufferLike, Stored> = new Map();
  /** What calls have changed that have not returned. */
  #making: { readonly node: number; readonly from: number; readonly to: number }[] = [];
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

  makes(node: number, from: number, bytes: number): void {
    this.#making.push({ node, from, to: from + bytes });
  }

  /** The call of that node that has i_rwsem there is about to return. What a killed caller left behind is under way until it has ended. */
  returned(node: number): void {
    this.#making = this.#making.filter((one) => one.node !== node);
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

  /** A page is about to be written over these bytes of the file: what mappings have stored in it may become other bytes, and what is about to be written; nothing else (hazard F9). */
  checkWriteBack(node: number, stored: Stored, at: number, data: Buffer): void {
    const isFilled = (place: number, byte: number): boolean =>
      this.fillings.some(({ offset, data: filling, end }) => end === Number.POSITIVE_INFINITY && filling[place - offset] === byte);
    const wrong = data.findIndex((byte, more) => {
      const old = this.bytes[at + more];
      return old !== undefined && old !== byte && stored.get((at + more) % PAGE_BYTES)?.byte !== byte && !isFilled(at + more, byte);
    });
    if (this.counts.killed > 0) return;
    if (wrong >= 0)
      this.note(
        `node ${node}: a write-back puts ${data[wrong]} over ${this.bytes[at + wrong]} at ${at + wrong}, and nothing has stored that`,
      );
    for (const store of stored.values()) {
      const byte = data[store.place - at];
      if (byte === undefined || byte === store.byte) continue;
      // What is made beside it may be put on top.
      const isBeside = this.#making.some((one) => one.node === node && store.place >= one.from && store.place < one.to);
      if (!isBeside) this.note(`node ${node}: the store of ${store.byte} at ${store.place} is written back as ${byte}`);
    }
  }

  /** Those that may be seen at some moment since. */
  since(begin: number): readonly FileState[] {
    return this.states.filter(({ until }) => until >= begin);
  }
}
