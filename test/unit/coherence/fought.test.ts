/** Directories whose names get no validity for a time (hazard F6). */
import { beforeEach, describe, expect, it } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { Cover, type Inode } from "../../../overlay/coherence/cover.ts";
import { CoherenceState, type InvalidationPlan, raiseEpoch } from "../../../overlay/coherence/effect.ts";
import { Invalidation, type KernelCaches } from "../../../overlay/coherence/kernel/revoke-round.ts";
import { addWaiter, handleAst, handleBast, unpin } from "../../../overlay/coherence/lock/lock-cache.ts";
import { handleInvalidated } from "../../../overlay/coherence/lock/revoke.ts";
import { FOUGHT_MAX, FoughtDirectories, HOT_INTERVAL_MS, HOT_QUIET_MAX_MS, HOT_QUIET_MS } from "../../../overlay/coherence/names/fought.ts";
import { tellName } from "../../../overlay/coherence/names/names.ts";
import { ToldNames } from "../../../overlay/coherence/told-names.ts";
import { fail } from "./shell-lab.ts";

let fought: FoughtDirectories;

beforeEach(() => {
  fought = new FoughtDirectories();
});

const directory = (ino = 2): Cover => new Cover({ ino, generation: 7 }, "directory");

/** At these times the names of a directory of that number have no validity. */
function hot(times: readonly number[], ino = 2): readonly boolean[] {
  // The kernel may have forgotten it meanwhile.
  return times.map((now) => fought.isHot(directory(ino), now));
}

describe("a directory that is revoked", () => {
  it("twice within HOT_INTERVAL_MS is hot for HOT_QUIET_MS, and no other one is", () => {
    fought.noteRevoke(directory(), 0);
    fought.noteRevoke(directory(), HOT_INTERVAL_MS);
    expect(hot([HOT_INTERVAL_MS])).toEqual([false]);
    const now = 2 * HOT_INTERVAL_MS - 1;
    fought.noteRevoke(directory(), now);
    expect(hot([now, now + HOT_QUIET_MS - 1, now + HOT_QUIET_MS])).toEqual([true, true, false]);
    expect(hot([now], 3)).toEqual([false]);
  });

  it("once without a name to expire, and soon after with some, is hot", () => {
    const dir = directory();
    dir.revokedAt = 0;
    fought.noteRevoke(dir, 1);
    expect(hot([1])).toEqual([true]);
  });
});

describe("a directory that costs an epoch", () => {
  const cost = (now: number): void => {
    fought.noteRevoke(directory(), now);
    fought.noteEpoch(directory());
  };

  it("is hot at once, and twice as long each time, up to HOT_QUIET_MAX_MS", () => {
    let now = 0;
    for (let quiet = HOT_QUIET_MS; quiet < 4 * HOT_QUIET_MAX_MS; quiet *= 2) {
      cost(now);
      const until = now + Math.min(quiet, HOT_QUIET_MAX_MS);
      expect(hot([until - 1, until])).toEqual([true, false]);
      now = until + HOT_INTERVAL_MS;
    }
  });

  it("long after the last time is hot for HOT_QUIET_MS again", () => {
    cost(0);
    cost(HOT_QUIET_MS);
    // Three times the 20 s of the last.
    const now = HOT_QUIET_MS + 3 * 2 * HOT_QUIET_MS + 1;
    cost(now);
    expect(hot([now + HOT_QUIET_MS - 1, now + HOT_QUIET_MS])).toEqual([true, false]);
  });
});

it("of more than FOUGHT_MAX the longest unchanged is forgotten, and one that is hot last of all", () => {
  const heat = (ino: number): void => [0, 1].forEach((now) => fought.noteRevoke(directory(ino), now));
  heat(1);
  for (let ino = 2; ino <= FOUGHT_MAX; ino++) fought.noteRevoke(directory(ino), 1);
  fought.noteRevoke(directory(2), 2);
  fought.noteRevoke(directory(FOUGHT_MAX + 1), 2);
  expect([fought.size, hot([3], 1), hot([3], 2)]).toEqual([FOUGHT_MAX, [true], [true]]);
  // 3 was forgotten: what comes for it is the first. 4 was not.
  for (const ino of [4, 3]) fought.noteRevoke(directory(ino), 3);
  expect([hot([3], 4), hot([3], 3), fought.size]).toEqual([[true], [false], FOUGHT_MAX]);
  for (let ino = 2000; ino < 2000 + FOUGHT_MAX; ino++) heat(ino);
  expect([hot([3], 1), hot([3], 2000), fought.size]).toEqual([[false], [true], FOUGHT_MAX]);
});

describe("the names of the directory", () => {
  const name = Buffer.from("sub");
  let state: CoherenceState;

  beforeEach(() => {
    state = new CoherenceState();
  });

  function known(ino: number, kind: "file" | "directory"): Cover {
    const cover = new Cover({ ino, generation: 7 }, kind);
    cover.inode = { fuseNodeid: ino, id: cover.id, kind, nlookup: 1, openCount: 0, mappableCount: 0, cover };
    cover.mode = Mode.PR;
    return cover;
  }

  /** Taken away, and here again. */
  function revoke(dir: Cover, now: number): readonly InvalidationPlan[] {
    handleBast(state, dir, Mode.EX, now);
    const plans = state.effects.flatMap((effect) => (effect.do === "invalidate" ? [effect.plan] : []));
    handleInvalidated(state, dir, false, now);
    handleAst(state, dir, "granted", Mode.NL, now);
    addWaiter(state, dir, { mode: Mode.PR, passes: false, settle: () => undefined }, now);
    handleAst(state, dir, "granted", Mode.PR, now);
    unpin(state, dir, now);
    state.effects.length = 0;
    return plans;
  }

  function tells(dir: Cover, now: number): boolean {
    const told = new ToldNames(state, new Invalidation({} as KernelCaches, state, () => false, fail), {
      mayBeValid: true,
      now: () => now,
    });
    return told.tellEntry(dir.inode as Inode, name, known(3, "file").inode);
  }

  it("get no validity once it was revoked twice", () => {
    const dir = known(2, "directory");
    for (const now of [0, HOT_INTERVAL_MS - 1]) {
      expect(tells(dir, now)).toBe(true);
      revoke(dir, now);
    }
    const now = HOT_INTERVAL_MS - 1;
    expect([tells(dir, now), tells(dir, now + HOT_QUIET_MS)]).toEqual([false, true]);
  });

  it("get no validity after an epoch, though the kernel has forgotten the directory", () => {
    const [dir, child] = [known(2, "directory"), known(3, "directory")];
    // Told again a moment ago.
    for (const now of [0, 1]) tellName(dir, name, child, true, state.epoch, now);
    const plans = revoke(dir, 2);
    expect(plans).toMatchObject([{ what: "names", expiry: { epoch: true } }]);
    // As when it is sent (kernel/revoke-round.ts).
    raiseEpoch(state, dir);
    expect([tells(known(2, "directory"), 3), tells(known(2, "directory"), 2 + HOT_QUIET_MS)]).toEqual([false, true]);
  });
});
