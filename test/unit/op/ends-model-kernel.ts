/**
 * A kernel of the model of ends (ends-model.ts), as far as one file goes: its size (K) and attr_version, i_rwsem, and pages with their locks. What a reader finds of a page
 * and the size that it looks at then are one step here: what lies between is exception S1.
 * Sources: fs/fuse/inode.c (fuse_change_attributes, fuse_reverse_inval_inode), fs/fuse/file.c (fuse_short_read, fuse_write_update_attr, fuse_perform_write,
 * fuse_direct_write_iter, fuse_file_fallocate, __fuse_copy_file_range), fs/fuse/dir.c (fuse_do_setattr), fs/fuse/dev.c (fuse_notify_store), mm/filemap.c (filemap_read), mm/truncate.c.
 */
import { E } from "../../../dlmd/base/errno.ts";
import { PAGE_BYTES, type PageRange } from "../../../overlay/coherence/page-range.ts";
import { SENTINEL_SIZE } from "../../../overlay/coherence/size/sentinel.ts";
import type { KernelCaches } from "../../../overlay/coherence/kernel/revoke-round.ts";
import { type SendPage, type Stored, storeGone, WriteBacks } from "./ends-model-mapping.ts";
import { Mutex } from "../coherence/mutex.ts";
import { sweepGate } from "../coherence/sweep-gate.ts";

export class Page {
  readonly lock: Mutex = new Mutex();
  readonly data: Buffer = Buffer.alloc(PAGE_BYTES);
  isUptodate = false;
  /** What mappings have stored since it was written back the last time, and the write-back that is under way. */
  stored: Stored = new Map();
  writingBack: Promise<void> | null = null;
  /** Zeroed by a hole, though something was stored there since that was made: the lower may have it. */
  readonly zeroed: Set<number> = new Set();

  /** With its lock held. */
  fill(from: number, data: Buffer): void {
    data.copy(this.data, from);
    for (const at of this.zeroed) if (at >= from && at < from + data.length) this.zeroed.delete(at);
    for (const [at] of this.stored) if (at >= from && at < from + data.length) storeGone(this.stored, at);
  }

  /** Of a hole: the same. */
  zero(from: number, to: number): void {
    const had = Array.from({ length: to - from }, (_, at) => from + at).filter((at) => this.data[at] !== 0);
    this.fill(from, Buffer.alloc(to - from));
    for (const at of had) this.zeroed.add(at);
  }
}

export interface AttrReply {
  readonly size: number;
  readonly mtime: number;
  readonly valid: boolean;
}

export class EndsKernel {
  /** K */
  size: number;
  attrValid = false;
  mtime = 0;
  isUnstable = false;
  readonly rwsem: Mutex = new Mutex();
  readonly pages: Map<number, Page> = new Map();
  readonly writeBacks: WriteBacks;
  readonly #turn: () => Promise<void>;
  readonly #say: (text: string) => void;
  #attrVersion = 1;
  #versions = 1;
  readonly counts = { cuts: 0, sentinels: 0, droppedReplies: 0, laundered: 0, dirtyDropped: 0 };

  constructor(size: number, turn: () => Promise<void>, say: (text: string) => void, send: SendPage) {
    this.writeBacks = new WriteBacks(send);
    this.size = size;
    this.#turn = turn;
    this.#say = say;
  }

  /** fuse_get_attr_version */
  asks(): number {
    return this.#versions;
  }

  #bump(): void {
    this.#versions += 1;
    this.#attrVersion = this.#versions;
  }

  /** fuse_change_attributes */
  async takeAttr({ size, mtime, valid }: AttrReply, asked: number): Promise<void> {
    if (this.#attrVersion > asked || this.isUnstable) {
      this.counts.droppedReplies += 1;
      this.#say(`drops ${size}: version ${this.#attrVersion} after ${asked}, unstable ${this.isUnstable}`);
      return;
    }
    const old = { size: this.size, mtime: this.mtime };
    this.#bump();
    this.#say(`K ${this.size} becomes ${size} by a reply, valid ${valid}`);
    this.attrValid = valid;
    this.size = size;
    this.mtime = mtime;
    if (old.size !== size) {
      await this.#turn();
      await this.#cut(size);
      await this.dropPages(0, Number.POSITIVE_INFINITY);
    } else if (old.mtime !== mtime) await this.dropPages(0, Number.POSITIVE_INFINITY);
  }

  /** truncate_pagecache */
  async #cut(size: number): Promise<void> {
    this.counts.cuts += 1;
    for (const [index, page] of this.#from(Math.floor(size / PAGE_BYTES))) {
      await page.lock.lock();
      await page.writingBack;
      const start = index * PAGE_BYTES;
      if (start >= size) this.#forgetPage(index, page);
      else page.fill(size - start, Buffer.alloc(PAGE_BYTES - size + start));
      page.lock.unlock();
      await this.#turn();
    }
  }

  #forgetPage(index: number, page: Page): void {
    if (page.stored.size > 0) this.counts.dirtyDropped += 1;
    for (const [at] of page.stored) storeGone(page.stored, at);
    if (this.pages.get(index) === page) this.pages.delete(index);
  }

  #from(first: number, end = Number.POSITIVE_INFINITY): [number, Page][] {
    return [...this.pages].filter(([index]) => index >= first && index < end).toSorted(([a], [b]) => a - b);
  }

  /** invalidate_inode_pages2_range: bytes from, and up to. */
  async dropPages(from: number, to: number): Promise<void> {
    for (const [index, page] of this.#from(Math.floor(from / PAGE_BYTES), Math.ceil(to / PAGE_BYTES))) {
      await page.lock.lock();
      // folio_launder
      if (page.stored.size > 0) this.counts.laundered += 1;
      await this.writeBacks.begin(index, page, () => this.size);
      await page.writingBack;
      this.#forgetPage(index, page);
      page.lock.unlock();
    }
  }

  /** filemap_write_and_wait_range: bytes from, and up to. */
  async writeBack(from = 0, to: number = Number.POSITIVE_INFINITY): Promise<void> {
    const parts = this.#from(Math.floor(from / PAGE_BYTES), Math.ceil(to / PAGE_BYTES));
    for (const [index, page] of parts) {
      await page.lock.lock();
      if (this.pages.get(index) === page) await this.writeBacks.begin(index, page, () => this.size);
      page.lock.unlock();
    }
    for (const [, page] of parts) await page.writingBack;
  }

  /** truncate_inode_pages_range of whole pages: what is stored in them is lost. */
  async forgetPages(from: number, to: number): Promise<void> {
    for (const [index, page] of this.#from(Math.floor(from / PAGE_BYTES), Math.ceil(to / PAGE_BYTES))) {
      await page.lock.lock();
      await page.writingBack;
      this.#forgetPage(index, page);
      page.lock.unlock();
    }
  }

  /** fuse_read_update_size */
  shortRead(size: number, asked: number): void {
    if (asked < this.#attrVersion || size >= this.size || this.isUnstable) return;
    this.#bump();
    this.size = size;
  }

  /** fuse_write_update_attr */
  written(end: number): void {
    this.#bump();
    this.attrValid = false;
    this.size = Math.max(this.size, end);
  }

  /** fuse_file_fallocate: bytes from, and up to. Whole pages go first (mm/truncate.c, truncate_inode_pages_range). */
  async punched(from: number, to: number): Promise<void> {
    const parts = this.#from(Math.floor(from / PAGE_BYTES), Math.ceil(to / PAGE_BYTES));
    const isWhole = (index: number): boolean => index * PAGE_BYTES >= from && (index + 1) * PAGE_BYTES <= to;
    for (const [index, page] of parts.toSorted(([a], [b]) => Number(isWhole(b)) - Number(isWhole(a)))) {
      await page.lock.lock();
      await page.writingBack;
      if (isWhole(index)) this.#forgetPage(index, page);
      else {
        const start = Math.max(0, from - index * PAGE_BYTES);
        page.zero(start, Math.min(PAGE_BYTES, to - index * PAGE_BYTES));
      }
      page.lock.unlock();
      await this.#turn();
    }
  }

  /** fuse_do_setattr: with the lock held. */
  async truncated({ size, mtime }: AttrReply, set: () => void = () => undefined): Promise<void> {
    this.#bump();
    const old = this.size;
    this.attrValid = false;
    this.size = size;
    this.mtime = mtime;
    set();
    if (old === size) return;
    await this.#turn();
    await this.#cut(size);
    await this.dropPages(0, Number.POSITIVE_INFINITY);
  }

  #store(end: number): void {
    if (end <= this.size) return;
    this.#bump();
    this.#say(`K ${this.size} becomes ${end} by a notification`);
    this.size = end;
    this.attrValid = false;
  }

  async #invalidate(ranges: readonly PageRange[] | null): Promise<number> {
    await this.#turn();
    this.#say(`invalidates ${JSON.stringify(ranges)}`);
    this.#bump();
    this.attrValid = false;
    for (const { from, to } of ranges ?? []) await this.dropPages(from, to);
    return 0;
  }

  caches(): KernelCaches {
    const but = (except: readonly PageRange[] = []): PageRange[] => {
      const ranges: PageRange[] = [];
      let done = 0;
      for (const { from, to } of [...except].toSorted((a, b) => a.from - b.from)) {
        if (from > done) ranges.push({ from: done, to: from });
        done = Math.max(done, to);
      }
      return [...ranges, { from: done, to: Number.POSITIVE_INFINITY }];
    };
    return {
      invalidatePages: async (_nodeid, except) => [await this.#invalidate(but(except))],
      invalidateMany: (nodeids) => {
        let next = 0;
        const write = async (): Promise<number> => {
          next = nodeids.length;
          return await this.#invalidate(but());
        };
        return { write, begun: () => next, refused: () => [] };
      },
      invalidateRange: (_nodeid, offset, bytes) => ({
        thread: () => 0,
        results: this.#invalidate([{ from: offset, to: offset + bytes }]).then((result) => [result]),
      }),
      retrieve: async (_nodeid, offset, bytes) => {
        const page = this.pages.get(Math.floor(offset / PAGE_BYTES));
        const there =
          page === undefined ? Buffer.alloc(0) : Buffer.from(page.data.subarray(offset % PAGE_BYTES, (offset % PAGE_BYTES) + bytes));
        const found = there.subarray(0, Math.max(0, Math.min(there.length, this.size - offset)));
        await this.#turn();
        return found;
      },
      retrieved: () => undefined,
      raiseSize: async (_nodeid, size) => {
        await this.#turn();
        this.#store(size);
        return [0];
      },
      invalidatePagesAndSize: (_nodeid, except) => {
        const gate = sweepGate();
        const write = async (): Promise<number[]> => {
          const result = await this.#invalidate(but(except));
          if (!gate.pass()) return [result, -E.ECANCELED, -E.ECANCELED];
          this.counts.sentinels += 1;
          await this.#turn();
          this.#store(SENTINEL_SIZE);
          await this.#turn();
          this.#bump();
          this.attrValid = false;
          return [result, 0, 0];
        };
        return { gate, results: write() };
      },
      invalidateAttributes: async () => [await this.#invalidate(null)],
      invalidateAttributesNow: () => {
        this.#bump();
        this.attrValid = false;
        return 0;
      },
      expireNames: (_nodeid, names) => Promise.resolve(names.map(() => 0)),
      incrementEpoch: async () => {
        await this.#turn();
        return [0];
      },
      close: () => Promise.resolve(),
    };
  }
}
