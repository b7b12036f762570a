/** Hazards F1, F5 and F6: what one round of a revoke has the kernel drop. */
import { describe, expect, it } from "vitest";
import type { CallerThreads } from "../../../overlay/caller/threads.ts";
import { Cover } from "../../../overlay/coherence/cover.ts";
import { CoherenceState } from "../../../overlay/coherence/effect.ts";
import { droppedOrHeld } from "../../../overlay/coherence/pages/held-page.ts";
import { Invalidation, type KernelCaches } from "../../../overlay/coherence/kernel/revoke-round.ts";
import { tellName, validName } from "../../../overlay/coherence/names/names.ts";
import { Revoke } from "../../../overlay/coherence/cover-parts.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { fail } from "./shell-lab.ts";

describe("a round for a file", () => {
  const id = { ino: 4, generation: 1 };
  const asked: string[] = [];
  let inPageCache: Buffer | null = null;
  const answer = (what: string): Promise<number[]> => {
    asked.push(what);
    return Promise.resolve([0]);
  };
  const gate = { shut: (): boolean => false };
  const caches: KernelCaches = {
    invalidatePages: (_fuseNodeid, except = []) => answer(except.length === 0 ? "pages" : `pages but ${except.length}`),
    invalidateMany: () => ({ write: () => Promise.resolve(0), begun: () => 0, refused: () => [] }),
    invalidateRange: () => ({ thread: () => 0, results: answer("range") }),
    retrieve: (_fuseNodeid, offset, bytes) => {
      asked.push(`${bytes} bytes from ${offset}`);
      return Promise.resolve(inPageCache);
    },
    retrieved: () => undefined,
    raiseSize: () => answer("raise"),
    invalidatePagesAndSize: () => ({ gate, results: answer("pages and size") }),
    invalidateAttributes: () => answer("attributes"),
    invalidateAttributesNow: () => {
      asked.push("attributes now");
      return 0;
    },
    expireNames: () => answer("names"),
    incrementEpoch: null,
    close: () => Promise.resolve(),
  };
  const invalidation = new Invalidation(caches, new CoherenceState(), () => false, fail);
  const cover = new Cover(id, "file");
  cover.inode = { fuseNodeid: 9, id, kind: "file", nlookup: 1, openCount: 1, mappableCount: 0, cover };

  it("stores the sentinel behind the pages where nobody has passed", async () => {
    cover.revoke = new Revoke(Mode.NL);
    expect(await invalidation.round(cover, { what: "pages-and-size", except: [] })).toEqual({ missed: false, cut: false });
    expect(asked.splice(0)).toEqual(["pages and size"]);
    expect(cover.revoke?.gate).toBe(gate);
  });

  it("never begins to store it while somebody who has passed is not answered: the round is cut", async () => {
    cover.revoke = new Revoke(Mode.NL);
    cover.pins = 1;
    const except = [{ from: 4096, to: 8192 }];
    expect(await invalidation.round(cover, { what: "pages-and-size", except })).toEqual({ missed: false, cut: true });
    expect(asked.splice(0)).toEqual(["pages but 1"]);
    expect(cover.revoke?.gate).toBeNull();
    cover.pins = 0;
  });

  it("nor where somebody was answered since the round was planned: it may leave the page alone that he got, with zeros behind the end", async () => {
    cover.revoke = new Revoke(Mode.NL);
    cover.revoke.answered = 1;
    const except = [{ from: 4096, to: 8192 }];
    expect(await invalidation.round(cover, { what: "pages-and-size", except })).toEqual({ missed: false, cut: true });
    expect(asked.splice(0)).toEqual(["pages but 1"]);
  });

  it("sees whether a page has what was written: not if it is not there, or the kernel's size cuts it", async () => {
    const inode = cover.inode;
    if (inode === null) throw new Error("no inode");
    const hasOther = async (page: Buffer | null): Promise<boolean | null> => {
      inPageCache = page;
      return invalidation.hasOther(inode, { offset: 8192 + 3, data: Buffer.from("new") });
    };
    expect(await hasOther(Buffer.from("...new"))).toBe(false);
    expect(await hasOther(Buffer.from("...old"))).toBe(true);
    expect(await hasOther(Buffer.from("new..."))).toBe(true);
    expect(await hasOther(Buffer.from("...ne"))).toBeNull();
    expect(await hasOther(Buffer.from("...n."))).toBe(true);
    expect(await hasOther(Buffer.from("..."))).toBeNull();
    expect(await hasOther(Buffer.alloc(0))).toBeNull();
    expect(await hasOther(null)).toBeNull();
    expect(new Set(asked.splice(0))).toEqual(new Set(["6 bytes from 8192"]));
  });

  it("own page: nothing shown, as it is not up to date: then what threads do tells that the WRITE has it", async () => {
    const inode = cover.inode;
    if (inode === null) throw new Error("no inode");
    inPageCache = Buffer.alloc(0);
    const other = invalidation.hasOther(inode, { offset: 8192 + 3, data: Buffer.from("new") });
    const never = new Promise<void>(() => undefined);
    const users = { isWrittenBack: () => false, mayLast: () => false };
    const looked: number[] = [];
    const threads: CallerThreads = {
      isAsleep: () => false,
      hasEnded: () => false,
      isReading: () => false,
      isSeeking: () => false,
      isRunnable: () => false,
      waitsForPage: (tid) => looked.push(tid) > 0,
    };
    expect(await droppedOrHeld({ thread: () => 7, dropped: never }, other, [], users, threads)).toBe(false);
    expect([looked, asked.splice(0)]).toEqual([[7], ["6 bytes from 8192"]]);
  });

  it("drops nothing where only what was answered has to be taken", async () => {
    expect(await invalidation.round(cover, { what: "late" })).toEqual({ missed: false, cut: false });
    expect(asked).toEqual([]);
  });

  it("outdates the attributes of an inode alone: at once if it is in use for sure, else by a thread that may wait; a directory's names stay", async () => {
    const state = new CoherenceState();
    const directory = new Cover(id, "directory");
    const dir = { fuseNodeid: 9, id, key: "4.1", kind: "directory" as const, nlookup: 1, openCount: 0, mappableCount: 0, cover: directory };
    const outdating = new Invalidation({ ...caches, incrementEpoch: () => answer("epoch") }, state, () => false, fail);
    expect(outdating.outdate(dir, true)).toBeUndefined();
    expect(asked.splice(0)).toEqual(["attributes now"]);
    await outdating.outdate(dir, false);
    expect(asked.splice(0)).toEqual(["attributes"]);
    expect(state.epoch).toBe(1);
  });
});

describe("hazard F6: a round for a directory", () => {
  const id = { ino: 4, generation: 1 };
  const names = [{ name: Buffer.from("a"), drop: false }];

  function scene(expired: Promise<number[]>) {
    const asked: string[] = [];
    const answer = (what: string): Promise<number[]> => {
      asked.push(what);
      return Promise.resolve([0]);
    };
    const state = new CoherenceState();
    const cover = new Cover(id, "directory");
    cover.inode = { fuseNodeid: 9, id, kind: "directory", nlookup: 1, openCount: 0, mappableCount: 0, cover };
    const caches = {
      expireNames: () => {
        asked.push("names");
        return expired;
      },
      incrementEpoch: () => answer("epoch"),
      invalidateAttributes: () => answer("attributes"),
    } as unknown as KernelCaches;
    const invalidation = new Invalidation(caches, state, () => false, fail);
    return { asked, state, cover, round: () => invalidation.round(cover, { what: "names", expiry: { epoch: false, names } }) };
  }

  it("expires its names one by one, and leaves all others as they are", async () => {
    const { asked, state, round } = scene(Promise.resolve([0]));
    expect(await round()).toEqual({ missed: false, cut: false });
    expect([asked, state.epoch]).toEqual([["names", "attributes"], 1]);
  });

  it("that waits for an operation on it is overtaken by the epoch: what was told before counts no more", async () => {
    const { asked, state, cover, round } = scene(new Promise(() => undefined));
    const child = new Cover({ ino: 5, generation: 1 }, "file");
    expect(tellName(cover, Buffer.from("a"), child, true, state.epoch, 0)).toBe(true);
    expect(validName(cover, Buffer.from("a"), state.epoch)).toBe(child);
    expect(await round()).toEqual({ missed: false, cut: false });
    expect(asked).toEqual(["names", "epoch", "attributes"]);
    expect(validName(cover, Buffer.from("a"), state.epoch)).toBeNull();
  });

  it("is not over while an epoch that another directory has cost is being written", async () => {
    let written: (results: number[]) => void = () => undefined;
    const { caches, state, directory } = several(new Promise((resolve) => (written = resolve)));
    const invalidation = new Invalidation(caches, state, () => false, fail);
    const first = invalidation.round(directory(4), { what: "names", expiry: { epoch: true, names: [] } });
    // In the turn in which it is sent, and not before.
    expect(state.epoch).toBe(2);
    let over = 0;
    // Nothing of it is to be expired: its names are of the epoch before.
    const others = [
      invalidation.round(directory(5), { what: "names", expiry: { epoch: false, names: [] } }),
      invalidation.round(directory(6), { what: "names", expiry: { epoch: false, names } }),
    ].map(async (round) => {
      await round;
      over += 1;
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(over).toBe(0);
    written([0]);
    await Promise.all([first, ...others]);
    expect(over).toBe(2);
  });

  it("that the kernel has forgotten raises no epoch that is not sent", async () => {
    const { caches, state, directory, asked } = several(Promise.resolve([0]));
    const forgotten = directory(4);
    forgotten.inode = null;
    await new Invalidation(caches, state, () => false, fail).round(forgotten, { what: "names", expiry: { epoch: true, names: [] } });
    expect([state.epoch, asked]).toEqual([1, []]);
  });

  it("of many names shows with a few that nobody has it", async () => {
    const { caches, state, directory, asked } = several(Promise.resolve([0]));
    const many = Array.from({ length: 100 }, (_, at) => ({ name: Buffer.from(`n${at}`), drop: false }));
    await new Invalidation(caches, state, () => false, fail).round(directory(4), { what: "names", expiry: { epoch: false, names: many } });
    expect(asked).toEqual(["64 names", "36 names", "attributes"]);
  });

  /** Directories of one mount, and when INC_EPOCH is written. */
  function several(epoch: Promise<number[]>) {
    const asked: string[] = [];
    const answer = (what: string, results: Promise<number[]> = Promise.resolve([0])): Promise<number[]> => {
      asked.push(what);
      return results;
    };
    const caches = {
      expireNames: (_fuseNodeid: number, some: readonly unknown[]) => answer(`${some.length} names`),
      incrementEpoch: () => answer("epoch", epoch),
      invalidateAttributes: () => answer("attributes"),
    } as unknown as KernelCaches;
    const directory = (ino: number): Cover => {
      const cover = new Cover({ ino, generation: 1 }, "directory");
      cover.inode = { fuseNodeid: ino, id: cover.id, kind: "directory", nlookup: 1, openCount: 0, mappableCount: 0, cover };
      return cover;
    };
    return { caches, state: new CoherenceState(), directory, asked };
  }

  it("that goes by an epoch which the kernel refuses is no clean one", async () => {
    const { caches, state, directory } = several(Promise.resolve([-22]));
    const invalidation = new Invalidation(caches, state, () => false, fail);
    const byEpoch = { what: "names", expiry: { epoch: true, names: [] } } as const;
    await expect(invalidation.round(directory(4), byEpoch)).rejects.toThrow("EINVAL");
  });

  it("that an epoch was not written for fails, and the next one does not", async () => {
    const failed = Promise.reject<number[]>(new Error("no thread"));
    const { caches, state, directory, asked } = several(failed);
    const invalidation = new Invalidation(caches, state, () => false, fail);
    await expect(invalidation.round(directory(4), { what: "names", expiry: { epoch: true, names: [] } })).rejects.toThrow("no thread");
    await invalidation.round(directory(5), { what: "names", expiry: { epoch: false, names } });
    expect(asked).toEqual(["epoch", "1 names", "attributes"]);
  });

  it("whose expiry the kernel refuses is no clean one", async () => {
    const { round } = scene(Promise.resolve([-22]));
    await expect(round()).rejects.toThrow("EINVAL");
  });
});
