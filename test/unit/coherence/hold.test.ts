/** The moment for which a lock that is fought over stays, and where it is left out. */
import { beforeEach, describe, expect, it } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { Cover, type InodeKind } from "../../../overlay/coherence/cover.ts";
import { CoherenceState } from "../../../overlay/coherence/effect.ts";
import { handleBast, handleTimer, tryPin, unpin } from "../../../overlay/coherence/lock/lock-cache.ts";
import { HOLDS_LEFT_OUT_MAX } from "../../../overlay/coherence/lock/hold.ts";

let state: CoherenceState;
let file: Cover;

beforeEach(() => {
  state = new CoherenceState();
  file = coverOf("file");
});

function coverOf(kind: InodeKind): Cover {
  return new Cover({ ino: 12, generation: 7 }, kind);
}

function use(cover: Cover, times: number): void {
  for (let at = 0; at < times; at += 1) {
    expect(tryPin(cover, Mode.PR)).toBe(true);
    unpin(state, cover, 0);
  }
}

/** It is here again since 1, a moment after it was taken away, and used; then another node wants it. Does it stay? */
function wanted(cover: Cover, uses = 4): boolean {
  Object.assign(cover, { phase: "idle", asking: null, revoke: null, mode: Mode.PR, wanted: Mode.NL, revokedAt: 0, grantedAt: 1, uses: 0 });
  use(cover, uses);
  handleBast(state, cover, Mode.EX, 2);
  const effects = state.effects.splice(0);
  return effects.some((effect) => effect.do === "timer" && effect.purpose === "hold" && effect.delayMs === state.limits.minHoldMs - 1);
}

/** The moment is over. */
function end(cover: Cover): void {
  handleTimer(state, cover, 1 + state.limits.minHoldMs);
  expect(cover.phase).not.toBe("idle");
  state.effects.length = 0;
}

it("stays if it was used four times since it came, and goes when the moment is over", () => {
  expect([wanted(file, 3), file.phase === "idle"]).toEqual([false, false]);
  expect([wanted(file, 4), file.phase]).toEqual([true, "idle"]);
  end(file);
});

describe("a file whose lock stayed in vain", () => {
  /** How often it goes at once before it stays again; `used` then. */
  function leftOut(used: boolean): number {
    for (let times = 0; times <= 2 * HOLDS_LEFT_OUT_MAX; times += 1) {
      if (!wanted(file)) continue;
      if (used) use(file, 1);
      end(file);
      return times;
    }
    throw new Error("it does not stay any more");
  }

  it("goes at once the next time, then two times, and up to HOLDS_LEFT_OUT_MAX times", () => {
    const found = Array.from({ length: 9 }, () => leftOut(false));
    expect(found).toEqual([0, 1, 2, 4, 8, 16, 32, HOLDS_LEFT_OUT_MAX, HOLDS_LEFT_OUT_MAX]);
  });

  it("stays each time again once that was of use", () => {
    expect([leftOut(false), leftOut(false), leftOut(true), leftOut(true), leftOut(false), leftOut(false)]).toEqual([0, 1, 2, 0, 0, 1]);
  });

  it("says nothing of others", () => {
    leftOut(false);
    expect(wanted(coverOf("file"))).toBe(true);
  });
});

it("a directory always stays: its turns are told from what is changed in it", () => {
  const dir = coverOf("directory");
  for (let times = 0; times < 3; times += 1) {
    expect(wanted(dir)).toBe(true);
    end(dir);
  }
});
