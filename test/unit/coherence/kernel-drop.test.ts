/** Hazards H1, F7: at the end of the lease the kernel drops what it caches, whatever some of it waits for. */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { Cover, type Inode, type InodeKind } from "../../../overlay/coherence/cover.ts";
import { CoherenceState } from "../../../overlay/coherence/effect.ts";
import { Invalidation, type KernelCaches } from "../../../overlay/coherence/kernel/revoke-round.ts";
import { dropInodes, type InodeBatch } from "../../../overlay/coherence/kernel/drop-all.ts";
import { fail } from "./shell-lab.ts";

function inodeOf(ino: number, kind: InodeKind = "file", openCount = 0): Inode {
  const id = { ino, generation: 1 };
  const cover = new Cover(id, kind);
  const inode: Inode = { fuseNodeid: ino, id, kind, nlookup: 1, openCount, mappableCount: 0, cover };
  cover.inode = inode;
  return inode;
}

function inodes(count: number): Inode[] {
  return Array.from({ length: count }, (_, at) => inodeOf(at + 1));
}

/** A kernel in which notifications of some inodes wait, until `release`. */
class PlayedKernel {
  /** As they were dropped. */
  readonly dropped: number[] = [];
  readonly batches: number[][] = [];
  writers = 0;
  readonly #stuck: ReadonlySet<number>;
  readonly #results: (fuseNodeid: number, batch: number) => number;
  readonly #waiting: (() => void)[] = [];

  constructor(stuck: readonly number[] = [], results: (fuseNodeid: number, batch: number) => number = () => 0) {
    this.#stuck = new Set(stuck);
    this.#results = results;
  }

  readonly invalidateMany = (fuseNodeids: readonly number[]): InodeBatch => {
    this.batches.push([...fuseNodeids]);
    const batch = this.batches.length;
    let next = 0;
    const refused: number[] = [];
    return {
      begun: () => next,
      refused: () => refused.splice(0),
      write: async () => {
        this.writers += 1;
        while (next < fuseNodeids.length) {
          const at = next;
          next += 1;
          const fuseNodeid = fuseNodeids[at] as number;
          if (this.#stuck.has(fuseNodeid)) await new Promise<void>((resolve) => this.#waiting.push(resolve));
          const result = this.#results(fuseNodeid, batch);
          if (result === 0) this.dropped.push(fuseNodeid);
          else refused.push(at, result);
        }
        return 0;
      },
    };
  };

  release(): void {
    for (const go of this.#waiting.splice(0)) go();
  }
}

describe("dropping all that the kernel caches", () => {
  it("asks a thread that was held up after its last inode what it met, when it is done", async () => {
    const kernel = new PlayedKernel([3], (fuseNodeid, batch) => (fuseNodeid === 3 && batch === 1 ? -E.ENOENT : 0));
    const { waiting, over } = await dropInodes(kernel.invalidateMany, inodes(3));
    expect([waiting, kernel.dropped]).toEqual([1, [1, 2]]);
    kernel.release();
    // Not found late, it is looked for again; and the played kernel has it wait again.
    for (let turns = 0; kernel.batches.length < 2; turns += 1) await new Promise((resolve) => setImmediate(resolve));
    kernel.release();
    await over;
    expect(kernel.dropped).toEqual([1, 2, 3]);
  });

  it("reports what the kernel refused to such a thread", async () => {
    const kernel = new PlayedKernel([3], (fuseNodeid) => (fuseNodeid === 3 ? -E.EINVAL : 0));
    const { over } = await dropInodes(kernel.invalidateMany, inodes(3));
    kernel.release();
    await expect(over).rejects.toThrow("EINVAL");
  });

  it("takes few threads for many inodes", async () => {
    const kernel = new PlayedKernel();
    const { inodes: count, waiting, absent } = await dropInodes(kernel.invalidateMany, inodes(10_000));
    expect({ count, waiting, absent, writers: kernel.writers }).toEqual({ count: 10_000, waiting: 0, absent: 0, writers: 2 });
    expect(new Set(kernel.dropped).size).toBe(10_000);
  });

  it("goes on past those that wait for a page, however many, and says how many there are; the end waits for them", async () => {
    const stuck = Array.from({ length: 100 }, (_, at) => 3 * at + 1);
    const kernel = new PlayedKernel(stuck);
    const { waiting, over } = await dropInodes(kernel.invalidateMany, inodes(1000));
    expect([waiting, kernel.dropped.length]).toEqual([100, 900]);
    let ended = false;
    void over.then(() => (ended = true));
    await new Promise(setImmediate);
    expect(ended).toBe(false);
    kernel.release();
    await over;
    expect(kernel.dropped).toHaveLength(1000);
  });

  it("begins with what is open, then directories: the rest is reached by names only, which are gone", async () => {
    const kernel = new PlayedKernel();
    await dropInodes(kernel.invalidateMany, [inodeOf(1), inodeOf(2, "directory"), inodeOf(3, "file", 2), inodeOf(4, "directory", 1)]);
    expect(kernel.batches).toEqual([[3, 4, 2, 1]]);
  });

  it("looks again for an inode that the kernel was told and has not yet, and not for one that it gave back (hazard F4)", async () => {
    const [late, forgotten, there] = [inodeOf(1), inodeOf(2), inodeOf(3)] as const;
    const kernel = new PlayedKernel([], (fuseNodeid, batch) => {
      if (fuseNodeid === 2) forgotten.nlookup = 0;
      return fuseNodeid === 3 || (fuseNodeid === 1 && batch === 3) ? 0 : -E.ENOENT;
    });
    expect((await dropInodes(kernel.invalidateMany, [late, forgotten, there])).absent).toBe(0);
    expect(kernel.batches).toEqual([[1, 2, 3], [1], [1]]);
    expect(kernel.dropped).toEqual([3, 1]);
  });

  it("gives up looking in the end, and counts it", async () => {
    const kernel = new PlayedKernel([], () => -E.ENOENT);
    expect((await dropInodes(kernel.invalidateMany, inodes(1))).absent).toBe(1);
    expect(kernel.batches).toHaveLength(8);
  });

  it("fails where the kernel refuses, or there is no thread, but not where the mount goes away", async () => {
    const refusing = new PlayedKernel([], () => -E.EINVAL);
    await expect(dropInodes(refusing.invalidateMany, inodes(1))).rejects.toThrow("EINVAL");
    const noThread = (): InodeBatch => ({ write: () => Promise.resolve(-E.EAGAIN), begun: () => 0, refused: () => [] });
    await expect(dropInodes(noThread, inodes(1))).rejects.toThrow("no thread");
    const ending = new PlayedKernel([], () => -E.ENODEV);
    expect((await dropInodes(ending.invalidateMany, inodes(1))).absent).toBe(0);
  });
});

describe("names", () => {
  const invalidation = (kernel: PlayedKernel, epoch: () => Promise<number[]>): Invalidation =>
    new Invalidation(
      { invalidateMany: kernel.invalidateMany, incrementEpoch: epoch } as Partial<KernelCaches> as KernelCaches,
      new CoherenceState(),
      () => false,
      fail,
    );

  it("go first, all at once", async () => {
    const kernel = new PlayedKernel();
    let before = -1;
    await invalidation(kernel, () => {
      before = kernel.batches.length;
      return Promise.resolve([0]);
    }).dropAll(inodes(3));
    expect([before, kernel.dropped.length]).toEqual([0, 3]);
  });

  it("that the kernel keeps are an error", async () => {
    await expect(invalidation(new PlayedKernel(), () => Promise.resolve([-E.EINVAL])).dropAll(inodes(3))).rejects.toThrow("EINVAL");
  });
});
