/**
 * The volatile cache of a disk: writes since the last flush, with what was there before. At a loss of power a block keeps or loses each of
 * its writes by itself, as a disk may that reorders. Pure but for its store and its random numbers, which are arguments.
 */
import type { Random } from "../sim/random.ts";

export const BLOCK_BYTES = 4096;
/** A real cache is finite too: with more than this in it everything in it becomes stable. */
export const MAX_UNSTABLE_BYTES: number = 256 * 2 ** 20;

/** Where the disk's present contents are. */
export interface BlockStore {
  read(offset: number, bytes: number): Buffer;
  write(offset: number, data: Buffer): void;
}

/** A path to the disk; its writes are lost together. */
export type Writer = number;

interface Write {
  /** null: it has survived a loss of power, and cannot be lost any more. */
  readonly writer: Writer | null;
  /** In its block. */
  readonly at: number;
  readonly data: Buffer;
}

interface Block {
  /** What is stable; without bytes behind the end of the disk. */
  readonly stable: Buffer;
  readonly writes: Write[];
}

export interface PowerLoss {
  readonly keptWrites: number;
  readonly lostWrites: number;
}

export class UnstableWrites {
  readonly #store: BlockStore;
  readonly #maxBytes: number;
  readonly #blocks: Map<number, Block> = new Map();
  #unstableBytes = 0;
  /** Flushes that no writer asked for. */
  forcedFlushes = 0;

  constructor(store: BlockStore, maxBytes: number = MAX_UNSTABLE_BYTES) {
    this.#store = store;
    this.#maxBytes = maxBytes;
  }

  get unstableBytes(): number {
    return this.#unstableBytes;
  }

  write(writer: Writer, offset: number, data: Buffer): void {
    for (let done = 0; done < data.length; ) {
      const number = Math.floor((offset + done) / BLOCK_BYTES);
      const at = offset + done - number * BLOCK_BYTES;
      const part = data.subarray(done, done + BLOCK_BYTES - at);
      this.#blockOf(number).writes.push({ writer, at, data: Buffer.from(part) });
      done += part.length;
    }
    this.#store.write(offset, data);
    this.#unstableBytes += data.length;
    if (this.#unstableBytes <= this.#maxBytes) return;
    this.forcedFlushes += 1;
    this.flush();
  }

  #blockOf(number: number): Block {
    const known = this.#blocks.get(number);
    if (known !== undefined) return known;
    const made: Block = { stable: Buffer.from(this.#store.read(number * BLOCK_BYTES, BLOCK_BYTES)), writes: [] };
    this.#blocks.set(number, made);
    return made;
  }

  /** All that was written before, by any writer, is stable. */
  flush(): void {
    this.#blocks.clear();
    this.#unstableBytes = 0;
  }

  /** The writer's unstable writes are kept with `keepPercent` of a hundred, each block by itself, and lost else. */
  losePower(writer: Writer, random: Random, keepPercent: number): PowerLoss {
    let keptWrites = 0;
    let lostWrites = 0;
    for (const [number, block] of this.#blocks) {
      if (!block.writes.some((write) => write.writer === writer)) continue;
      const left = block.writes.flatMap((write): Write[] => {
        if (write.writer !== writer) return [write];
        const kept = random.int(100) < keepPercent;
        if (kept) keptWrites += 1;
        else lostWrites += 1;
        return kept ? [{ ...write, writer: null }] : [];
      });
      const now = Buffer.from(block.stable);
      for (const { at, data } of left) data.copy(now, at);
      this.#store.write(number * BLOCK_BYTES, now);
      this.#blocks.set(number, { ...block, writes: left });
    }
    return { keptWrites, lostWrites };
  }
}
