/** How a thread of the model of ends (ends-model.ts) looks at the file, and whether what it is shown can be. */
import { E } from "../../../dlmd/base/errno.ts";
import { PAGE_BYTES } from "../../../overlay/coherence/page-range.ts";
import { O_RDWR } from "../../../overlay/op/linux.ts";
import { type EndsKernel, Page } from "./ends-model-kernel.ts";
import { attrIn, ENTRY_ATTR_AT, type EndsNode } from "./ends-model-node.ts";
import { type EndsThread, SIZE_MAX } from "./ends-model-thread.ts";
import type { EndsWorld } from "./ends-model-world.ts";
import type { Reply } from "./model-call.ts";

export class EndsReads {
  readonly #thread: EndsThread;
  readonly #node: EndsNode;
  readonly #world: EndsWorld;
  readonly #kernel: EndsKernel;

  constructor(thread: EndsThread) {
    this.#thread = thread;
    this.#node = thread.node;
    this.#world = thread.node.world;
    this.#kernel = thread.node.kernel;
  }

  async stat(): Promise<void> {
    const begin = this.#world.moment;
    if (this.#kernel.attrValid) return this.#thread.checkSize(begin, this.#kernel.size, "stat by what is valid");
    const { errno, size } = await this.#node.getattr(this.#thread.pid, null);
    if (errno === 0) this.#thread.checkSize(begin, size, "stat");
  }

  async lookup(): Promise<void> {
    const asked = this.#kernel.asks();
    const { errno, body } = await this.#node.ask(this.#thread.pid, { op: "lookup", fuseNodeid: 1, name: Buffer.from("f") });
    if (errno === 0) await this.#kernel.takeAttr(attrIn(body, ENTRY_ATTR_AT, 24), asked);
  }

  async seek(): Promise<void> {
    const { rwsem } = this.#kernel;
    await rwsem.lock();
    const begin = this.#world.moment;
    try {
      this.#world.counts.seeks += 1;
      this.#thread.say("seek");
      this.#node.seeking.add(this.#thread.pid);
      if (!this.#kernel.attrValid) {
        const { errno, size } = await this.#node.getattr(this.#thread.pid, this.#node.readFh);
        this.#thread.say(`seek was told ${errno} ${size}`);
        if (errno !== 0) return;
      }
      this.#thread.checkSize(begin, this.#kernel.size, "lseek");
    } finally {
      this.#node.seeking.delete(this.#thread.pid);
      rwsem.unlock();
    }
  }

  /** `asks`: read(2), which has the attributes looked at; else splice(2), or a mapping. */
  async read(asks: boolean): Promise<void> {
    const kernel = this.#kernel;
    const offset = this.#thread.anywhere();
    const bytes = 1 + this.#thread.below(2 * PAGE_BYTES);
    const begin = this.#world.moment;
    this.#world.counts.reads += 1;
    if (asks && !kernel.attrValid && (await this.#node.getattr(this.#thread.pid, this.#node.readFh)).errno !== 0) return;
    const parts: Buffer[] = [];
    let at = offset;
    while (at < offset + bytes) {
      const index = Math.floor(at / PAGE_BYTES);
      const start = at;
      const part = await this.withPage(index, (page) => {
        const to = Math.max(start, Math.min(kernel.size, offset + bytes, (index + 1) * PAGE_BYTES));
        this.#thread.say(`looks at page ${index} from ${start} to ${to}`);
        return Buffer.from(page.data.subarray(start - index * PAGE_BYTES, to - index * PAGE_BYTES));
      });
      // EINTR: what was read before is what it gets.
      if (part === null && parts.length === 0) return;
      if (part === null) break;
      if (part.length === 0) return this.#check(begin, offset, Buffer.concat(parts), asks || this.#world.counts.killed === 0);
      parts.push(part);
      at += part.length;
      await this.#world.maybeTurn();
    }
    this.#check(begin, offset, Buffer.concat(parts), false);
  }

  /** In the very step in which it is up to date; null: EINTR. */
  async withPage<T>(index: number, use: (page: Page) => T, fh: number = this.#node.readFh): Promise<T | null> {
    const { pages } = this.#kernel;
    for (;;) {
      const page = pages.get(index);
      if (page !== undefined) {
        if (page.isUptodate) return use(page);
        await page.lock.lock();
        const stands = pages.get(index) === page;
        if (stands && !page.isUptodate) {
          // fuse_read_folio
          if (!(await this.#fill(index, [page], fh))) return null;
          continue;
        }
        page.lock.unlock();
        continue;
      }
      const made = [new Page()];
      // Readahead.
      if (this.#world.random() < 0.4 && !pages.has(index + 1)) made.push(new Page());
      made.forEach((one, more) => pages.set(index + more, one));
      for (const one of made) await one.lock.lock();
      if (!(await this.#fill(index, made, fh))) return null;
    }
  }

  /** Their locks go with it. False: EINTR. */
  async #fill(index: number, made: readonly Page[], fh: number): Promise<boolean> {
    const asked = this.#kernel.asks();
    const isLate = this.#world.random() < 0.3;
    const take = ({ errno, body }: Reply): void => {
      if (errno === 0) {
        if (body.length < made.length * PAGE_BYTES) this.#kernel.shortRead(index * PAGE_BYTES + body.length, asked);
        made.forEach((page, more) => {
          page.data.fill(0);
          body.subarray(more * PAGE_BYTES, (more + 1) * PAGE_BYTES).copy(page.data);
          page.isUptodate = true;
        });
      }
      for (const page of made) page.lock.unlock();
    };
    const answer = await this.#node.ask(
      this.#thread.pid,
      {
        op: "read",
        fh,
        offset: index * PAGE_BYTES,
        size: made.length * PAGE_BYTES,
        lockOwner: 0n,
        flags: 0,
      },
      isLate ? undefined : take,
    );
    if (isLate) take(answer);
    if (answer.errno === 0) return true;
    if (answer.errno !== E.EINTR) this.#world.note(`READ ended with ${answer.errno}`);
    if (!this.#thread.isDead) this.#world.counts.interrupted += 1;
    return false;
  }

  /** What a killed append has made the kernel learns with the next attributes: who asks for none may meet the old end. */
  #check(begin: number, offset: number, seen: Buffer, isEnd: boolean): void {
    const states = this.#world.since(begin);
    const fillings = this.#world.fillings.filter(({ end }) => end >= begin);
    let newest = 0;
    const wrong = seen.findIndex((byte, at) => {
      const place = offset + at;
      if (fillings.some((one) => place >= one.offset && place < one.offset + one.data.length && one.data[place - one.offset] === byte))
        return false;
      const first = states.findIndex(({ bytes }) => place < bytes.length && bytes[place] === byte);
      newest = Math.max(newest, first);
      return first < 0;
    });
    if (wrong < 0) this.#world.seen(this.#node.id, states, newest);
    if (wrong >= 0) {
      const place = offset + wrong;
      const were = states.map(({ bytes }) => (place < bytes.length ? bytes[place] : "end"));
      this.#world.note(
        `node ${this.#node.id} read ${seen[wrong]} at ${place} (from ${offset}, ${seen.length} bytes), and there was ${were.join(", ")}`,
      );
    }
    if (!isEnd) return;
    const end = offset + seen.length;
    // What it has read before may be cut off by now.
    if (!states.some(({ bytes }) => bytes.length <= end))
      this.#world.note(`node ${this.#node.id} met the end at ${end}, and it was at ${states.map(({ bytes }) => bytes.length).join(", ")}`);
  }

  async readDirect(fh: number): Promise<void> {
    const offset = this.#thread.below(SIZE_MAX);
    const size = 1 + this.#thread.below(2 * PAGE_BYTES);
    const begin = this.#world.moment;
    this.#world.counts.directReads += 1;
    const { errno, body } = await this.#node.ask(this.#thread.pid, { op: "read", fh, offset, size, lockOwner: 1n, flags: O_RDWR });
    if (errno !== 0) {
      if (errno !== E.EINTR) this.#world.note(`direct READ ended with ${errno}`);
      return;
    }
    this.#check(begin, offset, body, body.length < size);
  }
}
