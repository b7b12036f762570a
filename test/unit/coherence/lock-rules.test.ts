/** Rules of the lock cache and the revoke, one by one, each as `npm run mutations` breaks it. */
import { beforeEach, describe, expect, it } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { Cover, type Inode, type PinWaiter, revokeOf, sizeOf } from "../../../overlay/coherence/cover.ts";
import { CoherenceState, type Effect } from "../../../overlay/coherence/effect.ts";
import {
  addWaiter,
  handleAst,
  handleBast,
  handleTimer,
  holdOf,
  tryPin,
  unpin,
  unpinData,
} from "../../../overlay/coherence/lock/lock-cache.ts";
import { orderWants } from "../../../overlay/coherence/lock/lock-order.ts";
import { handleInvalidated } from "../../../overlay/coherence/lock/revoke.ts";

let state: CoherenceState;

beforeEach(() => {
  state = new CoherenceState();
});

function effects(): Effect[] {
  return state.effects.splice(0);
}

/** A file that the kernel knows, whose lock is here. */
function holding(mode: typeof Mode.PR | typeof Mode.EX): Cover {
  const made = new Cover({ ino: 12, generation: 7 }, "file");
  made.inode = { fuseNodeid: 12, id: made.id, kind: "file", nlookup: 1, openCount: 0, mappableCount: 0, cover: made };
  made.mode = mode;
  made.grant = 1;
  return made;
}

const waiter = (mode: typeof Mode.PR | typeof Mode.EX, passes = false): PinWaiter => ({ mode, passes, settle: () => undefined });

describe("a pin without waiting", () => {
  it("is given in the mode that is held, or a weaker one", () => {
    const [shared, exclusive] = [holding(Mode.PR), holding(Mode.EX)];
    expect([Mode.PR, Mode.EX].map((mode) => tryPin(shared, mode as typeof Mode.PR))).toEqual([true, false]);
    expect([Mode.PR, Mode.EX].map((mode) => tryPin(exclusive, mode as typeof Mode.PR))).toEqual([true, true]);
  });

  it("does not overtake who waits for the lock", () => {
    const file = holding(Mode.PR);
    addWaiter(state, file, waiter(Mode.EX), 0);
    expect(tryPin(file, Mode.PR)).toBe(false);
  });

  it("is not given while the lock is being given up", () => {
    const file = holding(Mode.PR);
    expect(tryPin(file, Mode.PR)).toBe(true);
    handleBast(state, file, Mode.EX, 0);
    expect(file.phase).toBe("draining");
    expect(tryPin(file, Mode.PR)).toBe(false);
    unpin(state, file, 0);
    expect(file.phase).toBe("invalidating");
    expect(tryPin(file, Mode.PR)).toBe(false);
  });
});

it("a hold in which nothing was changed is one of PR: under EX things are changed here", () => {
  const file = holding(Mode.PR);
  expect(holdOf(file)).toBe(1);
  file.mode = Mode.EX;
  expect(holdOf(file)).toBe(0);
  file.mode = Mode.PR;
  handleBast(state, file, Mode.EX, 0);
  expect(holdOf(file)).toBe(0);
});

it("what is known of an inode stays known while its lock is raised in place, and no longer than until it is NL", () => {
  const file = holding(Mode.PR);
  file.mode = Mode.NL;
  const granted = (mode: Mode): number => {
    file.asking = mode;
    handleAst(state, file, "granted", mode, 0);
    return file.heldSince;
  };
  const first = granted(Mode.PR);
  const hold = file.grant;
  expect(granted(Mode.EX)).toBe(first);
  expect(file.grant).toBeGreaterThan(hold);
  file.mode = Mode.NL;
  expect(granted(Mode.PR)).toBe(file.grant);
  expect(file.heldSince).toBeGreaterThan(first);
});

describe("hazard F1: an invalidation that is repeated", () => {
  it("holds READs back for 8 ms a round at most, however many rounds there are", () => {
    const file = holding(Mode.PR);
    handleBast(state, file, Mode.EX, 0);
    const delays: number[] = [];
    for (const round of [2, 3, 4, 5, 6, 40]) {
      revokeOf(file).round = round;
      effects();
      addWaiter(state, file, waiter(Mode.PR, true), 0);
      for (const effect of effects()) if (effect.do === "timer") delays.push(effect.delayMs);
      handleTimer(state, file, 0);
      unpinData(state, file, 0);
    }
    expect(delays).toEqual([1, 2, 4, 8, 8, 8]);
  });

  it("is not over while an operation that passed works under the lock", () => {
    const file = holding(Mode.PR);
    handleBast(state, file, Mode.EX, 0);
    addWaiter(state, file, waiter(Mode.PR, true), 0);
    expect(file.pins).toBe(1);
    effects();
    handleInvalidated(state, file, false, 0);
    expect([file.phase, effects()]).toEqual(["invalidating", []]);
    unpinData(state, file, 0);
    expect(effects()).toMatchObject([{ do: "invalidate" }]);
    handleInvalidated(state, file, false, 0);
    expect(effects()).toMatchObject([{ do: "request", mode: Mode.NL }]);
    handleAst(state, file, "granted", Mode.NL, 0);
    expect(file.phase).toBe("idle");
  });
});

it("hazard F5: after the sentinel was stored the kernel's size is in doubt; where pages stay it is not", () => {
  const [taken, lowered] = [holding(Mode.EX), holding(Mode.EX)];
  handleBast(state, taken, Mode.EX, 0);
  handleBast(state, lowered, Mode.PR, 0);
  expect([sizeOf(taken).doubt, sizeOf(lowered).doubt]).toEqual([true, false]);
});

it("hazard F13: two locks are taken in the one order, whichever the caller names first", () => {
  const [first, second] = [holding(Mode.PR), new Cover({ ino: 13, generation: 7 }, "file")];
  const inode = { ...(first.inode as Inode), fuseNodeid: 13, id: second.id, key: second.key, cover: second };
  const wants = [
    { inode: first.inode as Inode, mode: Mode.PR },
    { inode, mode: Mode.EX },
  ];
  for (const named of [wants, wants.toReversed()]) expect(orderWants(named)).toEqual(wants);
});
