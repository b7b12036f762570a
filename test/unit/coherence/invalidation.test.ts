/** Hazards F1 and F5: what one round of a revoke has the kernel drop. */
import { describe, expect, it } from "vitest";
import { createCover } from "../../../overlay/coherence/cover.ts";
import { createCoherenceState } from "../../../overlay/coherence/effect.ts";
import { Invalidation, type KernelCaches } from "../../../overlay/coherence/invalidation.ts";

describe("a round for a file", () => {
  const id = { ino: 4, generation: 1 };
  const asked: string[] = [];
  const answer = (what: string): Promise<number[]> => {
    asked.push(what);
    return Promise.resolve([0]);
  };
  const caches: KernelCaches = {
    invalidatePages: () => answer("pages"),
    invalidateMany: () => ({ write: () => Promise.resolve(0), begun: () => 0, refused: () => [] }),
    invalidateRange: () => ({ thread: () => 0, results: answer("range") }),
    raiseSize: () => answer("raise"),
    invalidatePagesAndSize: () => ({ gate: { shut: () => false }, results: answer("pages and size") }),
    invalidateAttributes: () => answer("attributes"),
    invalidateAttributesNow: () => {
      asked.push("attributes now");
      return 0;
    },
    expireNames: () => answer("names"),
    incrementEpoch: null,
    close: () => Promise.resolve(),
  };
  const invalidation = new Invalidation(caches, createCoherenceState(), () => false);
  const cover = createCover(id, "4.1", "file");
  cover.inode = { fuseNodeid: 9, id, key: "4.1", kind: "file", nlookup: 1, openCount: 1, mappableCount: 0, cover };

  it("stores the sentinel behind the pages where nobody has passed", async () => {
    expect(await invalidation.round(cover, { what: "pages-and-size", except: [] })).toEqual({ missed: false, cut: false });
    expect(asked.splice(0)).toEqual(["pages and size"]);
    expect(cover.gate).not.toBeNull();
  });

  it("never begins to store it while somebody who has passed is not answered: the round is cut", async () => {
    cover.gate = null;
    cover.pins = 1;
    expect(await invalidation.round(cover, { what: "pages-and-size", except: [] })).toEqual({ missed: false, cut: true });
    expect(asked.splice(0)).toEqual(["pages"]);
    expect(cover.gate).toBeNull();
    cover.pins = 0;
  });

  it("drops nothing where only what was answered has to be taken", async () => {
    expect(await invalidation.round(cover, { what: "late" })).toEqual({ missed: false, cut: false });
    expect(asked).toEqual([]);
  });

  it("outdates the attributes of an inode alone: at once if it is in use for sure, else by a thread that may wait; a directory's names stay", async () => {
    const state = createCoherenceState();
    const directory = createCover(id, "4.1", "directory");
    const dir = { fuseNodeid: 9, id, key: "4.1", kind: "directory" as const, nlookup: 1, openCount: 0, mappableCount: 0, cover: directory };
    const outdating = new Invalidation({ ...caches, incrementEpoch: () => answer("epoch") }, state, () => false);
    expect(outdating.outdate(dir, true)).toBeUndefined();
    expect(asked.splice(0)).toEqual(["attributes now"]);
    await outdating.outdate(dir, false);
    expect(asked.splice(0)).toEqual(["attributes"]);
    expect(state.epoch).toBe(1);
  });
});
