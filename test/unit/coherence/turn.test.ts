/** Hazard F28: a directory that several nodes change stays for a turn of each, which is bounded by changes and by time. */
import { beforeEach, describe, expect, it } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { Cover, type Inode, type PinMode, type PinWaiter } from "../../../overlay/coherence/cover.ts";
import { CoverTable } from "../../../overlay/coherence/lock/cover-table.ts";
import { CoherenceState, type Effect } from "../../../overlay/coherence/effect.ts";
import { addWaiter, handleAst, handleBast, handleTimer, tryPin, unpin } from "../../../overlay/coherence/lock/lock-cache.ts";
import { handleInvalidated } from "../../../overlay/coherence/lock/revoke.ts";
import { TURN_CHANGES_MAX, TURN_MS } from "../../../overlay/coherence/lock/turn.ts";
import { inodeOf, lockspaceThatGrants, shellOver } from "./shell-lab.ts";

const PAUSE_MS = 5;
const FOUGHT_MS = 500;

let state: CoherenceState;

beforeEach(() => {
  state = new CoherenceState();
});

function effects(): Effect[] {
  return state.effects.splice(0);
}

/** The modes that dlmd is asked for. */
function asked(): Mode[] {
  return effects().flatMap((effect) => (effect.do === "request" ? [effect.mode] : []));
}

function waiter(mode: PinMode): PinWaiter {
  return { mode, passes: false, settle: () => undefined };
}

function change(dir: Cover, now: number): void {
  expect(tryPin(dir, Mode.EX)).toBe(true);
  unpin(state, dir, now);
}

function pinAndUnpin(dir: Cover, mode: PinMode, now: number): void {
  addWaiter(state, dir, waiter(mode), now);
  const wanted = asked().at(-1) ?? mode;
  handleAst(state, dir, "granted", wanted, now);
  unpin(state, dir, now);
}

/** The lock goes to another node that wants to change it, or to look. */
function revoked(dir: Cover, now: number, wanted: Mode = Mode.EX): void {
  handleBast(state, dir, wanted, now);
  expect(dir.phase).toBe("invalidating");
  handleInvalidated(state, dir, false, now);
  handleAst(state, dir, "granted", Mode.NL, now);
  effects();
}

/** Of a kind that is fought over: changed here, taken away at 0, and here again since `grantedAt`, for a change that is over. */
function fought(grantedAt = 10, kind: "directory" | "file" = "directory"): Cover {
  const dir = new Cover({ ino: 12, generation: 7 }, kind);
  dir.inode = { fuseNodeid: 12, id: dir.id, kind, nlookup: 1, openCount: 0, mappableCount: 0, cover: dir };
  pinAndUnpin(dir, Mode.EX, 0);
  revoked(dir, 0);
  pinAndUnpin(dir, Mode.EX, grantedAt);
  effects();
  return dir;
}

describe("hazard F28: another node waits to change a directory that was just taken back", () => {
  it("a turn is TURN_CHANGES_MAX changes, and what comes then waits", () => {
    const dir = fought();
    handleBast(state, dir, Mode.EX, 10);
    for (let changes = 1; changes < TURN_CHANGES_MAX - 1; changes += 1) change(dir, 11);
    expect(dir.phase).toBe("idle");
    change(dir, 11);
    expect([dir.phase, tryPin(dir, Mode.EX)]).toEqual(["invalidating", false]);
  });

  it("that many changes end it though others are under way", () => {
    const dir = fought();
    handleBast(state, dir, Mode.EX, 10);
    expect(tryPin(dir, Mode.EX)).toBe(true);
    for (let changes = 2; changes < TURN_CHANGES_MAX; changes += 1) change(dir, 11);
    expect([dir.phase, tryPin(dir, Mode.EX)]).toEqual(["draining", false]);
  });

  it("a change that is over before it was wanted counts, too", () => {
    const dir = fought();
    for (let changes = 1; changes < TURN_CHANGES_MAX; changes += 1) change(dir, 10);
    handleBast(state, dir, Mode.EX, 11);
    expect(dir.phase).toBe("invalidating");
  });

  it("no turn is longer than TURN_MS from then on, however slow the changes are", () => {
    const dir = fought();
    handleBast(state, dir, Mode.EX, 10);
    for (let now = 14; now < 10 + TURN_MS; now += 2 * PAUSE_MS) {
      expect(tryPin(dir, Mode.EX), `at ${now}`).toBe(true);
      handleTimer(state, dir, now);
      handleTimer(state, dir, now + PAUSE_MS);
      if (now + PAUSE_MS < 10 + TURN_MS) unpin(state, dir, now + PAUSE_MS);
    }
    const [longest] = effects().flatMap((effect) => (effect.do === "timer" ? [effect.delayMs] : []));
    expect(longest).toBeLessThanOrEqual(PAUSE_MS);
    expect(dir.phase).toBe("idle");
    handleTimer(state, dir, 10 + TURN_MS - 1);
    expect(dir.phase).toBe("idle");
    handleTimer(state, dir, 10 + TURN_MS);
    expect(dir.phase).not.toBe("idle");
  });

  it.each([
    [PAUSE_MS - 1, "idle"],
    [PAUSE_MS, "invalidating"],
  ])("is over when nothing was changed for PAUSE_MS: after %i ms it is %s", (ms, phase) => {
    const dir = fought();
    handleBast(state, dir, Mode.EX, 10);
    expect(effects()).toMatchObject([{ do: "timer", purpose: "hold", delayMs: PAUSE_MS }]);
    // To look is no change.
    expect(tryPin(dir, Mode.PR)).toBe(true);
    unpin(state, dir, 10);
    handleTimer(state, dir, 10 + ms);
    expect(dir.phase).toBe(phase);
  });

  it("goes on while something was changed since, or is being changed", () => {
    const dir = fought();
    handleBast(state, dir, Mode.EX, 10);
    change(dir, 14);
    handleTimer(state, dir, 15);
    expect(tryPin(dir, Mode.EX)).toBe(true);
    handleTimer(state, dir, 20);
    handleTimer(state, dir, 25);
    expect(dir.phase).toBe("idle");
    unpin(state, dir, 26);
    handleTimer(state, dir, 30);
    expect(dir.phase).toBe("invalidating");
  });

  it.each([
    [FOUGHT_MS, "idle"],
    [FOUGHT_MS + 1, "invalidating"],
  ])("is for a directory that came back within FOUGHT_MS: after %i ms it is %s", (ms, phase) => {
    const dir = fought(ms);
    handleBast(state, dir, Mode.EX, ms);
    expect(dir.phase).toBe(phase);
  });

  it.each([
    [TURN_MS, "idle"],
    [TURN_MS + 1, "invalidating"],
  ])("what nobody wanted for %i ms is %s", (ms, phase) => {
    const dir = fought();
    handleBast(state, dir, Mode.EX, 10 + ms);
    expect(dir.phase).toBe(phase);
  });

  it("a node that looks does not wait for it", () => {
    const dir = fought();
    handleBast(state, dir, Mode.PR, 10);
    expect(asked()).toEqual([Mode.PR]);
  });

  it("files have none", () => {
    const file = fought(10, "file");
    handleBast(state, file, Mode.EX, 10);
    expect(file.phase).toBe("invalidating");
  });

  it.each<[string, (dir: Cover) => void]>([
    ["the lease has ended", () => (state.suspended = true)],
    ["this node knows no more what it holds", () => (state.abandoned = true)],
    ["the kernel does not know the directory", (dir) => (dir.inode = null)],
  ])("ends at once when %s", (_what, happens) => {
    const [before, after] = [fought(), fought()];
    handleBast(state, after, Mode.EX, 10);
    expect(after.phase).toBe("idle");
    happens(before);
    happens(after);
    handleBast(state, before, Mode.EX, 10);
    handleTimer(state, after, 10);
    expect([before.phase, after.phase]).not.toContain("idle");
  });

  it("the next one begins anew", () => {
    const dir = fought();
    for (let changes = 1; changes < TURN_CHANGES_MAX; changes += 1) change(dir, 10);
    revoked(dir, 11);
    pinAndUnpin(dir, Mode.EX, 12);
    handleBast(state, dir, Mode.EX, 12);
    expect(dir.phase).toBe("idle");
  });
});

describe("hazard F28: a node that changes nothing while another one waits", () => {
  /** The lock is here again at `now`, for a change that is over, and another node wants it. */
  function wantedAgain(dir: Cover, now: number): void {
    handleInvalidated(state, dir, false, now);
    handleAst(state, dir, "granted", Mode.NL, now);
    pinAndUnpin(dir, Mode.EX, now);
    effects();
    handleBast(state, dir, Mode.EX, now);
  }

  /** Waited for in vain, from 10 to 10 + PAUSE_MS. */
  function waitedForInVain(): Cover {
    const dir = fought();
    handleBast(state, dir, Mode.EX, 10);
    handleTimer(state, dir, 10 + PAUSE_MS);
    expect(dir.phase).toBe("invalidating");
    return dir;
  }

  it("has no more turns that are waited for", () => {
    const dir = waitedForInVain();
    for (const now of [100, 200, 300]) {
      wantedAgain(dir, now);
      expect(dir.phase, `at ${now}`).toBe("invalidating");
    }
  });

  it("has no more than the change that is under way", () => {
    const dir = waitedForInVain();
    handleInvalidated(state, dir, false, 100);
    handleAst(state, dir, "granted", Mode.NL, 100);
    addWaiter(state, dir, waiter(Mode.EX), 100);
    handleAst(state, dir, "granted", Mode.EX, 100);
    effects();
    handleBast(state, dir, Mode.EX, 100);
    expect(dir.phase).toBe("idle");
    unpin(state, dir, 101);
    expect(dir.phase).toBe("invalidating");
  });

  it.each([
    [PAUSE_MS, "idle"],
    [PAUSE_MS + 1, "invalidating"],
  ])("has them again if it wants the directory %i ms after a turn that ended at once: it is %s then", (ms, phase) => {
    const dir = waitedForInVain();
    wantedAgain(dir, 100);
    expect(dir.phase).toBe("invalidating");
    wantedAgain(dir, 100 + ms);
    expect(dir.phase).toBe(phase);
  });

  it("has none again if it wants the directory soon after one that was waited for in vain", () => {
    const dir = waitedForInVain();
    wantedAgain(dir, 10 + PAUSE_MS + 1);
    expect(dir.phase).toBe("invalidating");
  });

  it("has one ever less often, where it comes back soon and each is in vain; one that is of use counts anew", () => {
    const dir = waitedForInVain();
    let now = 20;
    /** Those that end at once until one is waited for. */
    const cutShort = (): number => {
      for (let turns = 0; ; turns += 1) {
        wantedAgain(dir, now);
        now += 1;
        if (dir.phase === "idle") return turns;
      }
    };
    const endInVain = (): void => {
      now += PAUSE_MS;
      handleTimer(state, dir, now);
      expect(dir.phase).toBe("invalidating");
    };
    for (const turns of [1, 2, 4, 8, 16, 32, 64, 64]) {
      expect(cutShort()).toBe(turns);
      endInVain();
    }
    expect(cutShort()).toBe(64);
    change(dir, now);
    now += PAUSE_MS;
    handleTimer(state, dir, now);
    expect(dir.phase).toBe("idle");
    endInVain();
    expect(cutShort()).toBe(0);
    endInVain();
    expect(cutShort()).toBe(1);
  });

  it("has the next one if something was changed in this one", () => {
    const dir = fought();
    handleBast(state, dir, Mode.EX, 10);
    change(dir, 11);
    handleTimer(state, dir, 10 + PAUSE_MS);
    expect(dir.phase).toBe("idle");
    handleTimer(state, dir, 10 + 2 * PAUSE_MS);
    expect(dir.phase).toBe("invalidating");
    wantedAgain(dir, 100);
    expect(dir.phase).toBe("idle");
  });
});

describe("a node that looks at a directory which it changed in its last turn", () => {
  const looksWith = (dir: Cover, now: number): Mode | undefined => {
    effects();
    addWaiter(state, dir, waiter(Mode.PR), now);
    return asked()[0];
  };

  it.each([
    [FOUGHT_MS, Mode.EX],
    [FOUGHT_MS + 1, Mode.PR],
  ])("asks for what it needs next: %i ms after that for %i", (ms, mode) => {
    const dir = fought();
    revoked(dir, 400);
    expect(looksWith(dir, 400 + ms)).toBe(mode);
  });

  it("asks for no more than it needs where it changed nothing", () => {
    const dir = fought();
    // It only looks, with what it was given to change it with.
    change(dir, 11);
    revoked(dir, 150);
    expect(looksWith(dir, 151)).toBe(Mode.EX);
    handleAst(state, dir, "granted", Mode.EX, 152);
    unpin(state, dir, 152);
    revoked(dir, 300);
    expect(looksWith(dir, 301)).toBe(Mode.PR);
  });

  it("asks for no more than it needs where it has only looked since", () => {
    const dir = fought();
    revoked(dir, 150);
    pinAndUnpin(dir, Mode.PR, 151 + FOUGHT_MS);
    expect(dir.mode).toBe(Mode.PR);
    revoked(dir, 5000);
    expect(looksWith(dir, 5001)).toBe(Mode.PR);
  });

  it("forgets it with the directory", () => {
    const table = new CoverTable(state, () => undefined);
    const dir = fought();
    table.forgotten(dir.inode as Inode);
    expect(dir.turn).toBeNull();
  });
});

it("the shell says for how long there is no lease", async () => {
  const requests: string[] = [];
  const { lockspace, handlers } = lockspaceThatGrants(requests);
  const shell = shellOver(lockspace);
  const dir = inodeOf(shell, 12, "directory");
  const changed = async (): Promise<void> => {
    await shell.operations.pin(dir, Mode.EX, { interrupted: false, onInterrupt: null });
    shell.operations.unpin(dir, Mode.EX);
  };
  const phaseWhenWanted = (): string => {
    const [lock, end] = [...handlers].at(-1) ?? [];
    if (lock === undefined) throw new Error("no lock was asked for");
    end?.bast(lock, Mode.EX);
    return dir.cover.phase;
  };
  const gone = async (): Promise<void> => {
    while (dir.cover.phase !== "idle" || dir.cover.mode !== Mode.NL) await new Promise(setImmediate);
  };
  await changed();
  expect(phaseWhenWanted()).toBe("invalidating");
  await gone();
  await changed();
  shell.suspend();
  expect(phaseWhenWanted()).toBe("invalidating");
  shell.resume(false);
  await gone();
  await changed();
  expect(phaseWhenWanted()).toBe("idle");
  await shell.close();
});
