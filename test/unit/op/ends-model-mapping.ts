/**
 * Shared mappings of the model of ends (ends-model.ts): stores, and the pages of a kernel that are dirty until it writes them back, of its own accord or because
 * somebody waits for that. Sources: fs/fuse/file.c (fuse_page_mkwrite, fuse_writepages, fuse_launder_folio, fuse_set_nowrite, fuse_vma_close), mm/truncate.c.
 */
import { PAGE_BYTES } from "../../../overlay/coherence/page-range.ts";
import type { Page } from "./ends-model-kernel.ts";
import type { EndsReads } from "./ends-model-reads.ts";
import type { EndsThread } from "./ends-model-thread.ts";
import type { Filling } from "./ends-model-world.ts";

/** One byte that a program has stored. */
export interface Store {
  readonly place: number;
  readonly byte: number;
  /** Of a page that is not written back yet; or another change of that place has come after it in the page; or the lower has it. */
  state: "dirty" | "gone" | "written";
}

/** What a page has that the lower has not: by where in it. */
export type Stored = Map<number, Store>;

export function storeGone(stored: Stored, at: number): void {
  const store = stored.get(at);
  if (store !== undefined) store.state = "gone";
  stored.delete(at);
}

/** How the kernel sends a page: its first bytes, through a handle that has a mapping. */
export type SendPage = (fh: number, offset: number, data: Buffer, stored: Stored) => Promise<void>;

/** Write-backs of one file. */
export class WriteBacks {
  /** Open files with mappings, and how many write-backs go through each. */
  readonly #mapped = new Map<number, number>();
  readonly #send: SendPage;
  /** FUSE_NOWRITE: truncations that hold them up. */
  #held = 0;
  #underWay = 0;
  #waiting: (() => void)[] = [];

  constructor(send: SendPage) {
    this.#send = send;
  }

  map(fh: number): void {
    if (!this.#mapped.has(fh)) this.#mapped.set(fh, 0);
  }

  /** When no write-back goes through it any more. */
  async unmap(fh: number): Promise<void> {
    while ((this.#mapped.get(fh) ?? 0) > 0) await this.#change();
    this.#mapped.delete(fh);
  }

  #change(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  #changed(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** fuse_set_nowrite: when those under way are over, and none begins before `release`. */
  async hold(): Promise<void> {
    this.#held += 1;
    while (this.#underWay > 0) await this.#change();
  }

  /** fuse_release_nowrite */
  release(): void {
    this.#held -= 1;
    this.#changed();
  }

  /** Of a page that is locked: begins, if it is dirty. What is stored from now on makes it dirty again. `size`: the kernel's, when it is sent. */
  async begin(index: number, page: Page, size: () => number): Promise<void> {
    await page.writingBack;
    if (page.stored.size === 0) return;
    const { stored } = page;
    page.stored = new Map();
    for (const at of page.zeroed) if (!stored.has(at)) stored.set(at, { place: index * PAGE_BYTES + at, byte: 0, state: "gone" });
    page.zeroed.clear();
    const made = this.#make(index, Buffer.from(page.data), stored, size);
    const over = made.finally(() => {
      if (page.writingBack === over) page.writingBack = null;
    });
    page.writingBack = over;
  }

  async #make(index: number, data: Buffer, stored: Stored, size: () => number): Promise<void> {
    while (this.#held > 0) await this.#change();
    const offset = index * PAGE_BYTES;
    const bytes = Math.min(PAGE_BYTES, size() - offset);
    const [fh] = this.#mapped.keys();
    for (const [at] of stored) if (at >= bytes) storeGone(stored, at);
    if (bytes <= 0) return;
    if (fh === undefined) throw new Error(`page ${index} is dirty, and nothing is mapped`);
    this.#underWay += 1;
    this.#mapped.set(fh, (this.#mapped.get(fh) ?? 0) + 1);
    try {
      await this.#send(fh, offset, data.subarray(0, bytes), stored);
    } finally {
      this.#underWay -= 1;
      this.#mapped.set(fh, (this.#mapped.get(fh) ?? 0) - 1);
      this.#changed();
    }
  }
}

/** A mapping of an open file that a program has. */
export class EndsMapping {
  readonly #thread: EndsThread;
  readonly #reads: EndsReads;
  readonly #fh: number;
  readonly #stores: { readonly store: Store; readonly filling: Filling }[] = [];

  constructor(thread: EndsThread, reads: EndsReads, fh: number) {
    this.#thread = thread;
    this.#reads = reads;
    this.#fh = fh;
    thread.node.kernel.writeBacks.map(fh);
  }

  /** Within the file. */
  async store(): Promise<void> {
    const { world, kernel } = this.#thread.node;
    const place = this.#thread.below(world.bytes.length);
    const index = Math.floor(place / PAGE_BYTES);
    const begin = world.moment;
    const byte = 1 + this.#thread.below(250);
    for (;;) {
      // filemap_fault: SIGBUS.
      if (index * PAGE_BYTES >= kernel.size) {
        const wasThere = world.since(begin).every(({ bytes }) => bytes.length > index * PAGE_BYTES);
        if (wasThere && world.counts.killed === 0) world.note(`node ${this.#thread.node.id}: SIGBUS at ${place}, which was in the file`);
        return;
      }
      const page = await this.#reads.withPage(index, (one) => one, this.#fh);
      if (page === null) return;
      await world.maybeTurn();
      // fuse_page_mkwrite
      await page.lock.lock();
      try {
        if (kernel.pages.get(index) !== page || !page.isUptodate || index * PAGE_BYTES >= kernel.size) continue;
        await page.writingBack;
        this.#put(page, place, byte);
        return;
      } finally {
        page.lock.unlock();
      }
    }
  }

  #put(page: Page, place: number, byte: number): void {
    const { world } = this.#thread.node;
    const at = place % PAGE_BYTES;
    const store: Store = { place, byte, state: "dirty" };
    const filling: Filling = { offset: place, data: Buffer.of(byte), begin: world.moment, end: Number.POSITIVE_INFINITY };
    storeGone(page.stored, at);
    page.zeroed.delete(at);
    page.stored.set(at, store);
    page.data[at] = byte;
    world.fillings.push(filling);
    this.#stores.push({ store, filling });
    world.counts.stores += 1;
    this.#thread.say(`stores ${byte} at ${place}`);
  }

  /** msync(2): each store is in the file, or was until another change of that place. */
  async sync(): Promise<void> {
    const { node } = this.#thread;
    const stores = this.#stores.splice(0);
    await node.kernel.writeBack();
    for (const { store, filling } of stores) {
      if (store.state === "dirty") node.world.note(`node ${node.id}: the store of ${store.byte} at ${store.place} is not written back`);
      filling.end = node.world.moment;
    }
  }

  /** munmap(2) */
  async unmap(): Promise<void> {
    await this.sync();
    await this.#thread.node.kernel.writeBacks.unmap(this.#fh);
  }
}
