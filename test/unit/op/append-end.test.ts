/** An append and the READs of its file: append-end.ts. */
import { afterEach, describe, expect, it, vi } from "vitest";
import type { Inode } from "../../../overlay/coherence/cover.ts";
import { AppendHold } from "../../../overlay/coherence/pages/append-end.ts";
import { requestsOf } from "../../../overlay/coherence/pages/paged-inode.ts";
import { Workbench } from "./workbench.ts";

const soon = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A kernel with pages that may be locked: dropping one waits until it is not. */
class Bench extends Workbench {
  readonly done: string[] = [];
  locked = false;
  #unlock: () => void = () => {};

  constructor() {
    super();
    this.coherence.dropPages = async (_inode: Inode, offset: number, bytes: number): Promise<void> => {
      this.done.push(`drop ${offset} to ${offset + bytes}`);
      if (this.locked) await new Promise<void>((resolve) => (this.#unlock = resolve));
    };
  }

  unlock(): void {
    this.locked = false;
    this.#unlock();
  }

  async read(hold: AppendHold, from: number, to: number): Promise<void> {
    await hold.heldBack({ from, to });
    this.done.push(`read ${from}`);
    this.unlock();
  }
}

describe("an append holds READs back", () => {
  it("until it is answered, and leaves out the pages that they have locked", async () => {
    const bench = new Bench();
    const hold = new AppendHold(bench.file);
    const reads = [bench.read(hold, 4096, 8192), bench.read(hold, 16384, 20480)];
    await hold.clear(bench.mount.coherence, { from: 100, to: 40_000 });
    await soon();
    expect(bench.done).toEqual(["drop 100 to 4096", "drop 8192 to 16384", "drop 20480 to 40000"]);
    hold.release();
    await Promise.all(reads);
    expect(bench.done.slice(3)).toEqual(["read 4096", "read 16384"]);
    expect(bench.file.requests).toBeNull();
  });

  it("once those under way are answered", async () => {
    const bench = new Bench();
    const hold = new AppendHold(bench.file);
    bench.file.readsUnderWay = 1;
    const cleared = hold.clear(bench.mount.coherence, { from: 0, to: 4096 });
    await soon();
    expect(bench.done).toEqual([]);
    bench.file.readsUnderWay = 0;
    bench.file.requests?.onReadsOver?.();
    await cleared;
    expect(bench.done).toEqual(["drop 0 to 4096"]);
    hold.release();
  });

  it("but not one that came while its page was being dropped: it is let go, and the pages are dropped once more", async () => {
    const bench = new Bench();
    const hold = new AppendHold(bench.file);
    bench.locked = true;
    const cleared = hold.clear(bench.mount.coherence, { from: 0, to: 8192 });
    await soon();
    const read = bench.read(hold, 4096, 8192);
    await Promise.all([cleared, read]);
    expect(bench.done).toEqual(["drop 0 to 8192", "read 4096", "drop 0 to 8192"]);
    const later = bench.read(hold, 0, 4096);
    await soon();
    expect(bench.done).toHaveLength(3);
    hold.release();
    await later;
  });
});

describe("READ", () => {
  const request = (bench: Workbench, fh: number): Record<string, unknown> & { op: "read" } => ({
    op: "read",
    fuseNodeid: bench.file.fuseNodeid,
    fh,
    offset: 0,
    size: 1 << 20,
  });

  it("waits for an append under way, and asks again before each attempt", async () => {
    const bench = new Workbench();
    bench.lower.data = Buffer.alloc(4096);
    const { fh } = bench.openFile();
    const hold = new AppendHold(bench.file);
    const served = bench.serve(request(bench, fh));
    await soon();
    expect([bench.replies.length, bench.file.readsUnderWay]).toEqual([0, 0]);
    // In doubt about the size once, and by then the next append is under way.
    let next: AppendHold | null = null;
    bench.coherence.sizes = {
      ...bench.coherence.sizes,
      confirmEnd: () => {
        if (next !== null) return true;
        next = new AppendHold(bench.file);
        return false;
      },
    };
    hold.release();
    await soon();
    expect([bench.replies.length, bench.file.readsUnderWay]).toEqual([0, 0]);
    (next as AppendHold | null)?.release();
    expect((await served)?.errno).toBe(0);
    expect(bench.file.readsUnderWay).toBe(0);
  });

  it("tells an append that waits for it when the last one is answered", async () => {
    const bench = new Workbench();
    const { fh } = bench.openFile();
    let told = 0;
    requestsOf(bench.file).onReadsOver = () => (told += 1);
    bench.lower.later = true;
    const served = [bench.serve(request(bench, fh)), bench.serve(request(bench, fh))];
    expect(bench.file.readsUnderWay).toBe(2);
    await Promise.all(served);
    expect(told).toBe(1);
  });
});

describe("the times of an append", () => {
  afterEach(() => void vi.useRealTimers());

  it("READs under way are let out for ROUNDS_MAX rounds of DRAIN_MS: then the answer goes out", async () => {
    vi.useFakeTimers();
    const bench = new Bench();
    const hold = new AppendHold(bench.file);
    bench.file.readsUnderWay = 1;
    let cleared = false;
    const clear = async (): Promise<void> => {
      await hold.clear(bench.mount.coherence, { from: 0, to: 4096 });
      cleared = true;
    };
    void clear();
    await vi.advanceTimersByTimeAsync(50 * 20 - 1);
    expect(cleared).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect([cleared, bench.done]).toEqual([true, []]);
    hold.release();
  });

  it("a READ whose page is being dropped is let go after STUCK_MS", async () => {
    vi.useFakeTimers();
    const bench = new Bench();
    const hold = new AppendHold(bench.file);
    bench.locked = true;
    const cleared = hold.clear(bench.mount.coherence, { from: 0, to: 4096 });
    await vi.advanceTimersByTimeAsync(0);
    // It came while the pages were being dropped.
    const read = bench.read(hold, 0, 4096);
    await vi.advanceTimersByTimeAsync(1);
    expect(bench.done).toEqual(["drop 0 to 4096"]);
    await vi.advanceTimersByTimeAsync(1);
    expect(bench.done.slice(0, 2)).toEqual(["drop 0 to 4096", "read 0"]);
    await Promise.all([read, cleared]);
    hold.release();
  });
});
