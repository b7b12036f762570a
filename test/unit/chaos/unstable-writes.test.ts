import { describe, expect, it } from "vitest";
import { type BlockStore, BLOCK_BYTES, MAX_UNSTABLE_BYTES, UnstableWrites } from "../../chaos/unstable-writes.ts";
import { Random } from "../../sim/random.ts";

function memory(bytes: number): BlockStore & { readonly all: Buffer } {
  const all = Buffer.alloc(bytes);
  return { all, read: (offset, length) => all.subarray(offset, offset + length), write: (offset, data) => void data.copy(all, offset) };
}

const one = Buffer.from("one");
const two = Buffer.from("two");

describe("a disk's volatile cache", () => {
  it("loses what was not flushed for some seed, keeps it for another", () => {
    const contents = [1, 2, 3, 4, 5, 6, 7, 8].map((seed) => {
      const store = memory(BLOCK_BYTES);
      const writes = new UnstableWrites(store);
      writes.write(1, 0, one);
      writes.losePower(1, new Random(seed), 50);
      return store.all.toString("latin1", 0, 3);
    });
    expect(new Set(contents)).toEqual(new Set(["one", "\0\0\0"]));
  });

  it("never loses what was flushed", () => {
    for (let seed = 1; seed <= 50; seed++) {
      const store = memory(BLOCK_BYTES);
      const writes = new UnstableWrites(store);
      writes.write(1, 0, one);
      writes.flush();
      writes.write(1, 100, two);
      expect(writes.losePower(1, new Random(seed), 0)).toEqual({ keptWrites: 0, lostWrites: 1 });
      expect([store.all.toString("latin1", 0, 3), store.all[100]]).toEqual(["one", 0]);
    }
  });

  it("loses an earlier block and keeps a later one for some seed: writes are reordered", () => {
    const kept = Array.from({ length: 40 }, (_, seed) => {
      const store = memory(2 * BLOCK_BYTES);
      const writes = new UnstableWrites(store);
      // One write over the border of two blocks.
      writes.write(1, BLOCK_BYTES - 3, Buffer.from("onetwo"));
      writes.losePower(1, new Random(seed + 1), 50);
      return store.all.toString("latin1", BLOCK_BYTES - 3, BLOCK_BYTES + 3).replaceAll("\0", "-");
    });
    expect([...new Set(kept)].toSorted()).toEqual(["------", "---two", "one---", "onetwo"]);
  });

  it("loses the writes of that writer only, and goes back to the write before", () => {
    const store = memory(BLOCK_BYTES);
    const writes = new UnstableWrites(store);
    writes.write(1, 0, one);
    writes.write(2, 10, two);
    writes.write(1, 0, two);
    writes.losePower(1, new Random(1), 0);
    expect(store.all.toString("latin1", 0, 13)).toBe(`${"\0".repeat(10)}two`);
    writes.losePower(2, new Random(1), 0);
    expect(store.all.every((byte) => byte === 0)).toBe(true);
  });

  it("does not lose later what has survived a loss of power", () => {
    const store = memory(BLOCK_BYTES);
    const writes = new UnstableWrites(store);
    writes.write(1, 0, one);
    expect(writes.losePower(1, new Random(1), 100)).toEqual({ keptWrites: 1, lostWrites: 0 });
    expect(writes.losePower(1, new Random(1), 0)).toEqual({ keptWrites: 0, lostWrites: 0 });
    expect(store.all.toString("latin1", 0, 3)).toBe("one");
  });

  it(`flushes by itself beyond its size, by default ${MAX_UNSTABLE_BYTES / 2 ** 20} MiB`, () => {
    const store = memory(2 * BLOCK_BYTES);
    const writes = new UnstableWrites(store, BLOCK_BYTES);
    writes.write(1, 0, Buffer.alloc(BLOCK_BYTES, "a"));
    expect([writes.unstableBytes, writes.forcedFlushes]).toEqual([BLOCK_BYTES, 0]);
    writes.write(1, BLOCK_BYTES, one);
    expect([writes.unstableBytes, writes.forcedFlushes]).toEqual([0, 1]);
    writes.losePower(1, new Random(1), 0);
    expect([store.all[0], store.all.toString("latin1", BLOCK_BYTES, BLOCK_BYTES + 3)]).toEqual([97, "one"]);
  });
});
