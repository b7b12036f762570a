/** How a thread of the model of ends (ends-model.ts) changes the file. */
import { PAGE_BYTES } from "../../../overlay/coherence/page-range.ts";
import { FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE, O_APPEND, O_RDWR } from "../../../overlay/op/linux.ts";
import { type EndsKernel, Page } from "./ends-model-kernel.ts";
import { ATTR_AT, attrIn, type EndsNode } from "./ends-model-node.ts";
import { type EndsThread, SIZE_MAX } from "./ends-model-thread.ts";
import type { EndsWorld, Filling } from "./ends-model-world.ts";

/** What a kernel lets through (fs/fuse/file.c, fuse_file_fallocate). */
const FALLOCATE_MODES = [
  0,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
];

export class EndsWrites {
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

  async append(): Promise<void> {
    const kernel = this.#kernel;
    if (this.#world.bytes.length > SIZE_MAX) return await this.truncate(null);
    const data = this.#thread.data();
    await kernel.rwsem.lock();
    try {
      const offset = kernel.size;
      await kernel.dropPages(offset, offset + data.length);
      this.#thread.say(`append ${data.length}`);
      const { errno, body } = await this.#node.ask(this.#thread.pid, {
        op: "write",
        fh: this.#node.appendFh,
        offset,
        data,
        fromCache: false,
        killSuidgid: false,
        lockOwner: 0n,
        flags: O_APPEND | O_RDWR,
      });
      this.#world.counts.appends += 1;
      if (errno === 0) kernel.written(offset + body.readUInt32LE(0));
      else this.#thread.failed("append", errno);
      this.#thread.say(`appended`);
      return;
    } finally {
      this.#world.returned(this.#node.id);
      kernel.rwsem.unlock();
    }
  }

  /** `fh`: ftruncate(2); `to`: of an open with O_TRUNC. */
  async truncate(fh: number | null, to: number | null = null): Promise<void> {
    const kernel = this.#kernel;
    await kernel.rwsem.lock();
    try {
      const size = to ?? this.#thread.below(this.#world.random() < 0.9 ? this.#world.bytes.length + 1 : SIZE_MAX);
      await kernel.writeBacks.hold();
      kernel.isUnstable = true;
      this.#thread.say(`truncate ${size}`);
      const { errno, body } = await this.#node.ask(this.#thread.pid, { op: "setattr", fh, change: { size } });
      this.#world.counts.cuts += 1;
      if (errno !== 0) kernel.writeBacks.release();
      if (errno === 0) await kernel.truncated(attrIn(body, ATTR_AT, 0), () => kernel.writeBacks.release());
      else this.#thread.failed("truncate", errno);
      kernel.isUnstable = false;
      this.#thread.say(`truncated`);
    } finally {
      this.#world.returned(this.#node.id);
      kernel.rwsem.unlock();
    }
  }

  /** chmod(2): its reply sets the size, too. */
  async touch(): Promise<void> {
    const kernel = this.#kernel;
    await kernel.rwsem.lock();
    try {
      this.#world.counts.touches += 1;
      const { errno, body } = await this.#node.ask(this.#thread.pid, { op: "setattr", fh: null, change: { mode: 0o100644 } });
      if (errno === 0) await kernel.truncated(attrIn(body, ATTR_AT, 0));
      else this.#thread.failed("chmod", errno);
    } finally {
      this.#world.returned(this.#node.id);
      kernel.rwsem.unlock();
    }
  }

  /** fuse_file_fallocate */
  async fallocate(fh: number): Promise<void> {
    const kernel = this.#kernel;
    const mode = FALLOCATE_MODES[this.#thread.below(FALLOCATE_MODES.length)] as number;
    const keeps = (mode & FALLOC_FL_KEEP_SIZE) !== 0;
    const zeroes = (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) !== 0;
    const offset = this.#thread.place();
    const length = 1 + this.#thread.below(this.#world.random() < 0.5 ? 200 : 2 * PAGE_BYTES);
    await kernel.rwsem.lock();
    try {
      this.#world.counts.fallocates += 1;
      if (!keeps) kernel.isUnstable = true;
      if (zeroes) await kernel.writeBack(offset);
      this.#thread.say(`fallocate ${mode} ${offset}+${length}`);
      const { errno } = await this.#node.ask(this.#thread.pid, { op: "fallocate", fh, offset, length, mode });
      if (errno !== 0) return this.#thread.unmade("fallocate", errno);
      await this.#node.heldUp(0.3);
      if (!keeps) kernel.written(offset + length);
      if (zeroes) await kernel.punched(offset, offset + length);
      kernel.attrValid = false;
      this.#thread.say(`fallocated`);
    } finally {
      if (!keeps) kernel.isUnstable = false;
      this.#world.returned(this.#node.id);
      kernel.rwsem.unlock();
    }
  }

  /** Within the file: generic_copy_file_checks, __fuse_copy_file_range. */
  async copy(fh: number): Promise<void> {
    const kernel = this.#kernel;
    const offset = this.#thread.below(this.#world.bytes.length + 1);
    const outOffset = this.#world.random() < 0.7 ? this.#thread.place() : this.#thread.below(SIZE_MAX);
    const asked = 1 + this.#thread.below(this.#world.random() < 0.5 ? 200 : 2 * PAGE_BYTES);
    const begin = this.#world.moment;
    const check = (bytes: number): void => {
      const were = this.#world.since(begin).map((state) => Math.max(0, Math.min(asked, state.bytes.length - offset)));
      // Fewer than there were: the end was nearer when the kernel looked. Who calls again meets the end, or goes on.
      if (bytes === 0 ? !were.includes(0) && this.#world.counts.killed === 0 : bytes > Math.max(...were))
        this.#world.note(`node ${this.#node.id} copied ${bytes} of ${asked}, and there were ${were.join(", ")}`);
    };
    if (offset >= kernel.size) return check(0);
    const length = Math.min(asked, kernel.size - offset);
    // EINVAL
    if (outOffset + length > offset && outOffset < offset + length) return;
    this.#world.counts.copies += 1;
    const isUnstable = outOffset + length > kernel.size;
    await kernel.rwsem.lock();
    await kernel.writeBack(offset);
    kernel.rwsem.unlock();
    await kernel.rwsem.lock();
    try {
      await kernel.writeBack(outOffset);
      if (isUnstable) kernel.isUnstable = true;
      this.#thread.say(`copy ${length} from ${offset} to ${outOffset}`);
      const { errno, body } = await this.#node.ask(this.#thread.pid, {
        op: "copyFileRange",
        fh: this.#node.readFh,
        offset,
        outFh: fh,
        outOffset,
        length,
        flags: 0,
      });
      if (errno !== 0) return this.#thread.unmade("copy", errno);
      const bytes = body.readUInt32LE(0);
      check(bytes);
      await kernel.forgetPages(outOffset, outOffset + bytes);
      kernel.written(bytes > 0 ? outOffset + bytes : 0);
      this.#thread.say(`copied ${bytes}`);
    } finally {
      if (isUnstable) kernel.isUnstable = false;
      this.#world.returned(this.#node.id);
      kernel.rwsem.unlock();
    }
  }

  /** 0: it was killed. */
  async #write(fh: number, offset: number, data: Buffer): Promise<number> {
    const { errno, body } = await this.#node.ask(this.#thread.pid, {
      op: "write",
      fh,
      offset,
      data: Buffer.from(data),
      fromCache: false,
      killSuidgid: false,
      lockOwner: 0n,
      flags: O_RDWR,
    });
    if (errno === 0) return body.readUInt32LE(0);
    this.#thread.failed("write", errno);
    return 0;
  }

  /** Null: RWF_APPEND, of which the request says nothing. */
  async writeDirect(fh: number, at: number | null): Promise<void> {
    const kernel = this.#kernel;
    const data = this.#thread.data();
    await kernel.rwsem.lock();
    try {
      const offset = at ?? kernel.size;
      this.#world.counts.writes += 1;
      await kernel.dropPages(offset, offset + data.length);
      const written = await this.#write(fh, offset, data);
      if (written > 0) kernel.written(offset + written);
    } finally {
      this.#world.returned(this.#node.id);
      kernel.rwsem.unlock();
    }
  }

  /** fuse_perform_write */
  async writeCached(fh: number, from: number): Promise<void> {
    const kernel = this.#kernel;
    const data = this.#thread.data();
    await kernel.rwsem.lock();
    const filling: Filling = { offset: from, data, begin: this.#world.moment, end: Number.POSITIVE_INFINITY };
    this.#world.fillings.push(filling);
    try {
      this.#world.counts.writes += 1;
      this.#thread.say(`write ${data.length} at ${from}`);
      const extends_ = kernel.size < from + data.length;
      if (extends_) kernel.isUnstable = true;
      let offset = from;
      while (offset < from + data.length) {
        const pages: { readonly page: Page; readonly whole: boolean }[] = [];
        let to = offset;
        let held: Page | null = null;
        while (to < from + data.length && held === null) {
          const index = Math.floor(to / PAGE_BYTES);
          const page = await this.#lockedPage(index);
          const end = Math.min((index + 1) * PAGE_BYTES, from + data.length);
          page.fill(to - index * PAGE_BYTES, data.subarray(to - from, end - from));
          const whole = end - to === PAGE_BYTES;
          if (whole) page.isUptodate = true;
          if (page.isUptodate) page.lock.unlock();
          else held = page;
          pages.push({ page, whole });
          to = end;
        }
        // fuse_send_write_pages
        for (const { page } of pages) await page.writingBack;
        const written = await this.#write(fh, offset, data.subarray(offset - from, to - from));
        if (written === 0) for (const { page } of pages) page.isUptodate = false;
        held?.lock.unlock();
        if (written === 0) break;
        if (written !== to - offset) this.#world.note(`${written} bytes written of ${to - offset}`);
        offset = to;
      }
      kernel.written(offset > from ? offset : 0);
      kernel.isUnstable = false;
    } finally {
      filling.end = this.#world.moment;
      this.#world.returned(this.#node.id);
      kernel.rwsem.unlock();
    }
  }

  async #lockedPage(index: number): Promise<Page> {
    const { pages } = this.#kernel;
    for (;;) {
      const page = pages.get(index) ?? new Page();
      if (!pages.has(index)) pages.set(index, page);
      await page.lock.lock();
      if (pages.get(index) === page) return page;
      page.lock.unlock();
    }
  }
}
