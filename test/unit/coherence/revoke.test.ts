import { beforeEach, describe, expect, it } from "vitest";
import { LockFlag } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { enterUnregistered, registerBorn } from "../../../overlay/coherence/lock/new-inodes.ts";
import { Cover, type InodeKind, type PinWaiter, revokeOf, sizeOf } from "../../../overlay/coherence/cover.ts";
import { CoherenceState, type Effect } from "../../../overlay/coherence/effect.ts";
import {
  addWaiter,
  handleAst,
  handleBast,
  pinChild,
  removeWaiter,
  tryPin,
  unpin,
  unpinData,
  handleTimer,
} from "../../../overlay/coherence/lock/lock-cache.ts";
import {
  dropName,
  exchangeNames,
  forgetNames,
  hasDoubtfulName,
  moveName,
  planExpiry,
  tellName,
  toldName,
} from "../../../overlay/coherence/names/names.ts";
import { handleInvalidated, handleRetryTimer, handleStrained, isStillHeld } from "../../../overlay/coherence/lock/revoke.ts";
import { closeToken, handleTokenAst, handleTokenBast, openToken } from "../../../overlay/coherence/lock/write-token.ts";

let state: CoherenceState;
let nextIno = 11;

function cover(kind: InodeKind, known = true): Cover {
  nextIno += 1;
  const made = new Cover({ ino: nextIno, generation: 7 }, kind);
  if (known) {
    made.inode = { fuseNodeid: nextIno, id: made.id, kind, nlookup: 1, openCount: 0, mappableCount: 0, cover: made };
  }
  return made;
}

function effects(): Effect[] {
  return state.effects.splice(0);
}

function done(): string[] {
  return effects().map((effect) => effect.do);
}

function waiter(mode: typeof Mode.PR | typeof Mode.EX, passes = false): PinWaiter {
  return { mode, passes, settle: () => undefined };
}

/** A cover whose lock is here. */
function holding(kind: InodeKind, mode: typeof Mode.PR | typeof Mode.EX): Cover {
  const made = cover(kind);
  made.mode = mode;
  return made;
}

beforeEach(() => {
  state = new CoherenceState();
});

describe("pins and requests", () => {
  it("pins without a word while the lock is here, and asks once when it is not", () => {
    const file = cover("file");
    expect(tryPin(file, Mode.PR)).toBe(false);
    addWaiter(state, file, waiter(Mode.PR), 0);
    addWaiter(state, file, waiter(Mode.PR), 0);
    expect(effects()).toMatchObject([{ do: "request", mode: Mode.PR, flags: 0 }]);
    handleAst(state, file, "granted", Mode.PR, 1);
    expect(done()).toEqual(["settle", "settle"]);
    expect(file.pins).toBe(2);
    expect(tryPin(file, Mode.PR)).toBe(true);
    expect(done()).toEqual([]);
  });

  it("asks for the strongest mode that is waited for", () => {
    const file = cover("file");
    file.phase = "converting";
    file.asking = Mode.NL;
    addWaiter(state, file, waiter(Mode.PR), 0);
    addWaiter(state, file, waiter(Mode.EX), 0);
    handleAst(state, file, "granted", Mode.NL, 0);
    expect(effects()).toMatchObject([{ do: "request", mode: Mode.EX }]);
  });

  it("keeps a blocking AST that comes before the confirmation of the conversion down it is about", () => {
    const file = holding("file", Mode.EX);
    handleBast(state, file, Mode.PR, 0);
    expect(effects()).toMatchObject([{ do: "request", mode: Mode.PR }]);
    // The master settles the queue first: the next one there wants EX, and is told of once.
    handleBast(state, file, Mode.EX, 0);
    handleAst(state, file, "granted", Mode.PR, 0);
    expect(effects()).toMatchObject([{ do: "invalidate", plan: { what: "pages-and-size" } }]);
    handleInvalidated(state, file, false, 0);
    expect(effects()).toMatchObject([{ do: "request", mode: Mode.NL }]);
    handleAst(state, file, "granted", Mode.NL, 0);
    expect(file.wanted).toBe(Mode.NL);
  });

  it("F11: a waiter that is killed leaves the queue, and the others go on", () => {
    const file = holding("file", Mode.PR);
    const killed = waiter(Mode.EX);
    addWaiter(state, file, killed, 0);
    const other = waiter(Mode.PR);
    addWaiter(state, file, other, 0);
    effects();
    expect(removeWaiter(state, file, killed, 0)).toBe(true);
    const after = effects();
    expect(after).toMatchObject([
      { do: "settle", waiter: killed, error: { code: "EINTR" } },
      { do: "settle", waiter: other, error: null },
    ]);
    expect(removeWaiter(state, file, other, 0)).toBe(false);
  });

  it("F13: PR to EX is tried without waiting; refused, everything cached goes, and EX is asked for from NL", () => {
    const file = holding("file", Mode.PR);
    addWaiter(state, file, waiter(Mode.EX), 0);
    expect(effects()).toMatchObject([{ do: "request", mode: Mode.EX, flags: LockFlag.NOQUEUE }]);
    handleAst(state, file, "again", Mode.PR, 0);
    expect(effects()).toMatchObject([{ do: "invalidate", plan: { what: "pages-and-size" } }]);
    handleInvalidated(state, file, false, 0);
    // The change that waits: in the same message, behind it.
    expect(effects()).toMatchObject([{ do: "request", mode: Mode.NL }, { do: "ask-anew" }]);
    handleAst(state, file, "granted", Mode.NL, 0);
    expect(effects()).toMatchObject([{ do: "request", mode: Mode.EX, flags: 0 }]);
  });

  it("F13: a directory waits for EX in place, and keeps its names; another node's wish is heard when that is here", () => {
    const dir = holding("directory", Mode.PR);
    const name = Buffer.from("name");
    expect(tellName(dir, name, cover("file"), true, state.epoch, 0)).toBe(true);
    const change = waiter(Mode.EX);
    addWaiter(state, dir, change, 0);
    expect(effects()).toEqual([{ do: "request", cover: dir, mode: Mode.EX, flags: 0 }]);
    handleBast(state, dir, Mode.EX, 0);
    expect([dir.phase, effects()]).toEqual(["idle", []]);
    handleAst(state, dir, "granted", Mode.EX, 0);
    expect(effects()).toMatchObject([{ do: "settle", waiter: change, error: null }]);
    unpin(state, dir, 0);
    expect(effects()).toMatchObject([{ do: "invalidate", plan: { expiry: { epoch: false, names: [{ name }] } } }]);
  });

  it("F13: two nodes raise PR of a directory at one time: the one that dlmd refuses gives it up, and all names of the mount with it", () => {
    const dir = holding("directory", Mode.PR);
    tellName(dir, Buffer.from("name"), cover("file"), true, state.epoch, 0);
    addWaiter(state, dir, waiter(Mode.EX), 0);
    effects();
    handleAst(state, dir, "deadlock", Mode.PR, 0);
    // The kernel has locked the directory for the change.
    expect(effects()).toMatchObject([{ do: "invalidate", plan: { what: "names", expiry: { epoch: true } } }]);
    handleInvalidated(state, dir, false, 0);
    expect(effects()).toMatchObject([{ do: "request", mode: Mode.NL }, { do: "ask-anew" }]);
    handleAst(state, dir, "granted", Mode.NL, 0);
    expect(effects()).toMatchObject([{ do: "request", mode: Mode.EX, flags: 0 }]);
  });

  it("F13: a child is asked for without waiting, and not at all while its lock is on the move", () => {
    const child = cover("file");
    const told: boolean[] = [];
    expect(pinChild(state, child, (pinned) => told.push(pinned))).toBeNull();
    expect(effects()).toMatchObject([{ do: "request", mode: Mode.PR, flags: LockFlag.NOQUEUE | LockFlag.NOQUEUEBAST }]);
    handleAst(state, child, "again", Mode.NL, 0);
    expect(effects()).toMatchObject([{ do: "settle-child", pinned: false }]);
    addWaiter(state, child, waiter(Mode.PR), 0);
    expect(pinChild(state, child, () => undefined)).toBe(false);
  });
});

describe("the revoke", () => {
  it("runs through its phases and gives the lock up in the turn in which the invalidation was clean", () => {
    const file = holding("file", Mode.EX);
    expect(tryPin(file, Mode.EX)).toBe(true);
    handleBast(state, file, Mode.EX, 0);
    expect(file.phase).toBe("draining");
    expect(tryPin(file, Mode.PR)).toBe(false);
    unpin(state, file, 0);
    expect(file.phase).toBe("invalidating");
    expect(effects()).toMatchObject([{ do: "invalidate", plan: { what: "pages-and-size" } }]);
    handleInvalidated(state, file, false, 0);
    expect(effects()).toMatchObject([{ do: "request", mode: Mode.NL, flags: 0 }]);
    expect(file.phase).toBe("converting");
  });

  it("gives EX down to PR without touching the cache, unless a mapping here may write", () => {
    const file = holding("file", Mode.EX);
    handleBast(state, file, Mode.PR, 0);
    expect(effects()).toMatchObject([{ do: "request", mode: Mode.PR }]);
    const writing = (mappableCount: number): Cover => {
      const written = holding("file", Mode.EX);
      written.token = { state: "held", unregistered: false, users: 1, wanted: false, mapped: false, waiters: [] };
      if (written.inode !== null) written.inode.mappableCount = mappableCount;
      return written;
    };
    handleBast(state, writing(0), Mode.PR, 0);
    expect(effects()).toMatchObject([{ do: "request", mode: Mode.PR }]);
    handleBast(state, writing(1), Mode.PR, 0);
    expect(effects()).toMatchObject([{ do: "invalidate", plan: { what: "pages" } }]);
  });

  it("F5: gives EX down to PR when the kernel has taken what was answered: pages stay, and whoever reads them looks at its size", () => {
    const file = holding("file", Mode.EX);
    sizeOf(file).late = { effect: "raises", tid: 0, end: 0, harms: false, seen: false };
    handleBast(state, file, Mode.PR, 0);
    expect(effects()).toMatchObject([{ do: "invalidate", plan: { what: "late" } }]);
    handleInvalidated(state, file, false, 0);
    expect(effects()).toMatchObject([{ do: "request", mode: Mode.PR }]);
  });

  it("F1: a READ passes during the invalidation, which is then repeated until none was answered", () => {
    const file = holding("file", Mode.PR);
    handleBast(state, file, Mode.EX, 0);
    effects();
    const read = waiter(Mode.PR, true);
    addWaiter(state, file, read, 0);
    expect(effects()).toMatchObject([{ do: "settle", waiter: read, error: null }]);
    handleInvalidated(state, file, false, 0);
    expect(done()).toEqual([]); // the READ is still under way
    unpinData(state, file, 0);
    expect(effects()).toMatchObject([{ do: "invalidate" }]);
    handleInvalidated(state, file, false, 0);
    expect(effects()).toMatchObject([{ do: "request", mode: Mode.NL }]);
  });

  it("F1: a READ that waits behind a writer passes while an operation still runs, which may wait for its page", () => {
    const file = holding("file", Mode.PR);
    tryPin(file, Mode.PR);
    addWaiter(state, file, waiter(Mode.EX), 0);
    const read = waiter(Mode.PR, true);
    addWaiter(state, file, read, 0);
    effects();
    handleAst(state, file, "again", Mode.PR, 0);
    expect(file.phase).toBe("draining");
    expect(effects()).toMatchObject([{ do: "timer", purpose: "pass" }]);
    handleTimer(state, file, 1);
    expect(effects()).toMatchObject([{ do: "settle", waiter: read, error: null }]);
  });

  it("F1: from the second round on reads are held back for a moment, never longer", () => {
    const file = holding("file", Mode.PR);
    handleBast(state, file, Mode.EX, 0);
    addWaiter(state, file, waiter(Mode.PR, true), 0);
    unpinData(state, file, 0);
    effects();
    handleInvalidated(state, file, false, 0);
    effects();
    expect(file.revoke?.round).toBe(2);
    const late = waiter(Mode.PR, true);
    addWaiter(state, file, late, 0);
    expect(effects()).toMatchObject([{ do: "timer", purpose: "pass", delayMs: 1 }]);
    handleTimer(state, file, 1);
    expect(effects()).toMatchObject([{ do: "settle", waiter: late }]);
  });

  it("F1: from the third round on the pages of reads that are held back are left alone, and the next of them is waited for: reads do not keep a revoke from ending", () => {
    const file = holding("file", Mode.PR);
    const read = (from: number): PinWaiter => ({ ...waiter(Mode.PR, true), pages: { from, to: from + 4096 } });
    handleBast(state, file, Mode.EX, 0);
    for (const round of [1, 2]) {
      expect(effects()).toMatchObject([{ do: "invalidate", plan: { what: "pages-and-size", except: [] } }]);
      expect(file.revoke?.round).toBe(round);
      addWaiter(state, file, read(0), 0);
      if (round === 2) handleTimer(state, file, 0);
      unpinData(state, file, 0);
      effects();
      handleInvalidated(state, file, false, 0);
    }
    expect(effects()).toMatchObject([{ do: "timer", purpose: "retry", delayMs: 1 }]);
    const held = [read(4096), { ...waiter(Mode.PR, true) }, read(0)];
    for (const one of held) addWaiter(state, file, one, 0);
    expect(effects()).toMatchObject([{ do: "timer", purpose: "pass", delayMs: 1 }]);
    handleRetryTimer(state, file, 1);
    expect(effects()).toMatchObject([{ plan: { except: [{ from: 4096 }, { from: 0 }] } }]);
    handleInvalidated(state, file, false, 1);
    expect(effects()).toMatchObject([{ do: "request", mode: Mode.NL }]);
    handleTimer(state, file, 2);
    expect([done(), file.waiters]).toEqual([[], held]);
  });

  describe("F5: while a change of the size waits for the lock, and the kernel's size is wrong", () => {
    const read = (from: number): PinWaiter => ({ ...waiter(Mode.PR, true), pages: { from, to: from + 4096 } });

    /** Held in PR, which another node wants. */
    function stuck(): Cover {
      const file = holding("file", Mode.PR);
      Object.assign(sizeOf(file), { doubt: true, unstable: 1 });
      return file;
    }

    it("READs are kept back in a revoke, and each round leaves their pages alone; one whose pages are not known passes", () => {
      const file = stuck();
      expect(tryPin(file, Mode.PR)).toBe(true);
      handleBast(state, file, Mode.EX, 0);
      expect(done()).toEqual([]);
      const kept = [read(0), read(8192)];
      for (const one of kept) addWaiter(state, file, one, 0);
      // Once, for all of them.
      expect(effects()).toMatchObject([
        { do: "timer", purpose: "strained", delayMs: 40 },
        { do: "timer", purpose: "pass" },
      ]);
      handleTimer(state, file, 1);
      expect([done(), file.waiters]).toEqual([[], kept]);
      const direct = waiter(Mode.PR, true);
      addWaiter(state, file, direct, 1);
      handleTimer(state, file, 2);
      expect(effects()).toMatchObject([{ purpose: "pass" }, { do: "settle", waiter: direct }]);
      unpinData(state, file, 2);
      unpin(state, file, 2);
      // Who was told the size just now begins to read.
      expect(effects()).toMatchObject([{ do: "timer", purpose: "retry", delayMs: 5 }]);
      const late = read(4096);
      addWaiter(state, file, late, 3);
      expect(done()).toEqual([]);
      handleRetryTimer(state, file, 7);
      expect(effects()).toMatchObject([{ plan: { what: "pages-and-size", except: [{ from: 0 }, { from: 8192 }, { from: 4096 }] } }]);
      handleInvalidated(state, file, false, 8);
      expect(effects()).toMatchObject([{ do: "request", mode: Mode.NL }]);
      expect(file.waiters).toEqual([...kept, late]);
      handleAst(state, file, "granted", Mode.NL, 9);
      expect(effects()).toMatchObject([{ do: "request", mode: Mode.PR }]);
      handleAst(state, file, "granted", Mode.PR, 10);
      expect(done()).toEqual(["settle", "settle", "settle"]);
    });

    it("they pass after STRAINED_MS: an operation that runs, or a notification, may wait for their pages", () => {
      const file = stuck();
      expect(tryPin(file, Mode.PR)).toBe(true);
      handleBast(state, file, Mode.EX, 0);
      const kept = read(0);
      addWaiter(state, file, kept, 0);
      effects();
      handleStrained(state, file);
      expect(effects()).toMatchObject([{ do: "settle", waiter: kept }]);
      // In this revoke they all do from now on.
      const next = read(4096);
      addWaiter(state, file, next, 41);
      expect(done()).toEqual([]);
      handleTimer(state, file, 42);
      expect(effects()).toMatchObject([{ do: "settle", waiter: next }]);
      // Of a revoke that is over.
      file.revoke = null;
      handleStrained(state, file);
      expect(done()).toEqual([]);
    });

    it("they pass at once where nothing keeps the size wrong, where the lock is exclusive, or where it stays here because dlmd has died", () => {
      for (const change of ["known", "stable", "exclusive", "kept"] as const) {
        const file = stuck();
        if (change === "exclusive") file.mode = Mode.EX;
        expect(tryPin(file, Mode.PR)).toBe(true);
        handleBast(state, file, Mode.EX, 0);
        if (change === "known") sizeOf(file).doubt = false;
        if (change === "stable") sizeOf(file).unstable = 0;
        if (change === "kept") revokeOf(file).kept = true;
        effects();
        const passing = read(0);
        addWaiter(state, file, passing, 0);
        handleTimer(state, file, 1);
        expect(effects()).toMatchObject([{ purpose: "pass" }, { do: "settle", waiter: passing }]);
      }
    });

    it("the next of them is waited for before the second round, too", () => {
      const file = stuck();
      handleBast(state, file, Mode.EX, 0);
      handleRetryTimer(state, file, 5);
      effects();
      handleInvalidated(state, file, false, 6, true);
      expect(effects()).toMatchObject([{ do: "timer", purpose: "retry", delayMs: 1 }]);
    });

    it("no more are kept back than a round leaves pages alone", () => {
      const file = stuck();
      expect(tryPin(file, Mode.PR)).toBe(true);
      handleBast(state, file, Mode.EX, 0);
      for (let at = 0; at < 64; at += 1) addWaiter(state, file, read(4096 * at), 0);
      effects();
      handleTimer(state, file, 1);
      expect(file.waiters).toHaveLength(64);
      addWaiter(state, file, read(4096 * 64), 1);
      handleTimer(state, file, 2);
      expect(file.waiters).toEqual([]);
    });

    it("one that was to pass when the size became unstable is kept back, and not for ever", () => {
      const file = holding("file", Mode.PR);
      expect(tryPin(file, Mode.PR)).toBe(true);
      handleBast(state, file, Mode.EX, 0);
      addWaiter(state, file, read(0), 0);
      expect(effects()).toMatchObject([{ purpose: "pass" }]);
      Object.assign(sizeOf(file), { doubt: true, unstable: 1 });
      handleTimer(state, file, 1);
      expect(effects()).toMatchObject([{ purpose: "strained" }]);
    });
  });

  it("F1: a round that was put off waits for who passes meanwhile, or for the stronger mode that he needs", () => {
    const file = holding("file", Mode.PR);
    file.token = { state: "held", unregistered: false, users: 1, wanted: false, mapped: false, waiters: [] };
    handleBast(state, file, Mode.EX, 0);
    for (const round of [1, 2]) {
      addWaiter(state, file, waiter(Mode.PR, true), 0);
      if (round === 2) handleTimer(state, file, 0);
      unpinData(state, file, 0);
      handleInvalidated(state, file, false, 0);
    }
    addWaiter(state, file, waiter(Mode.EX, true), 0);
    handleTimer(state, file, 0);
    expect(file.asking).toBe(Mode.EX);
    effects();
    handleRetryTimer(state, file, 1);
    expect(done()).toEqual([]);
    handleAst(state, file, "granted", Mode.EX, 1);
    expect(done()).toEqual(["settle"]);
    unpinData(state, file, 1);
    expect(effects()).toMatchObject([{ do: "timer", purpose: "retry" }]);
    handleRetryTimer(state, file, 2);
    expect(done()).toEqual(["invalidate"]);
  });

  it("F1: a cached WRITE that meets a shared lock in a revoke is made exclusive in place, and never runs under PR", () => {
    const file = holding("file", Mode.PR);
    file.token = { state: "held", unregistered: false, users: 1, wanted: false, mapped: false, waiters: [] };
    handleBast(state, file, Mode.EX, 0);
    effects();
    const write = waiter(Mode.EX, true);
    addWaiter(state, file, write, 0);
    expect(effects()).toMatchObject([{ do: "request", mode: Mode.EX, flags: 0 }]);
    handleInvalidated(state, file, false, 0);
    expect(done()).toEqual([]);
    handleAst(state, file, "granted", Mode.EX, 0);
    expect(done()).toEqual(["settle"]);
    unpinData(state, file, 0);
    expect(done()).toEqual(["invalidate"]);
  });

  it("F4: an inode that the kernel must still get is looked for again until it is found", () => {
    const file = holding("file", Mode.PR);
    handleBast(state, file, Mode.EX, 0);
    effects();
    handleInvalidated(state, file, true, 0);
    expect(effects()).toMatchObject([{ do: "timer", purpose: "retry", delayMs: 0.2 }]);
    handleRetryTimer(state, file, 0);
    expect(done()).toEqual(["invalidate"]);
    handleInvalidated(state, file, true, 0);
    expect(effects()).toMatchObject([{ do: "timer", purpose: "retry", delayMs: 0.4 }]);
    // FORGET: now not finding it is success.
    if (file.inode !== null) file.inode.nlookup = 0;
    handleRetryTimer(state, file, 0);
    expect(effects()).toMatchObject([{ do: "request", mode: Mode.NL }]);
  });

  it("F4: waits for such an inode twice as long each time, up to MISS_DELAY_MAX_MS", () => {
    const file = holding("file", Mode.PR);
    handleBast(state, file, Mode.EX, 0);
    effects();
    const delays = Array.from({ length: 10 }, () => {
      handleInvalidated(state, file, true, 0);
      const [timer] = effects();
      handleRetryTimer(state, file, 0);
      effects();
      return timer?.do === "timer" ? timer.delayMs : null;
    });
    expect(delays).toEqual([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 50, 50]);
  });

  it("F1: holds data requests back twice as long in each round, up to PASS_DELAY_MAX_MS", () => {
    const delays = [2, 3, 4, 5, 6, 7].map((round) => {
      const file = holding("file", Mode.PR);
      handleBast(state, file, Mode.EX, 0);
      revokeOf(file).round = round;
      effects();
      addWaiter(state, file, waiter(Mode.PR, true), 0);
      const [timer] = effects();
      return timer?.do === "timer" ? timer.delayMs : null;
    });
    expect(delays).toEqual([1, 2, 4, 8, 8, 8]);
  });

  it.each([
    [64, 64],
    [65, 0],
  ])("F1: goes around the pages of HELD_BACK_MAX READs at most: of %i, around %i", (reads, pages) => {
    const file = holding("file", Mode.PR);
    handleBast(state, file, Mode.EX, 0);
    revokeOf(file).round = 2;
    for (let at = 0; at < reads; at += 1) {
      addWaiter(state, file, { ...waiter(Mode.PR, true), pages: { from: at * 4096, to: (at + 1) * 4096 } }, 0);
    }
    effects();
    handleRetryTimer(state, file, 0);
    const [round] = effects();
    const plan = round?.do === "invalidate" ? round.plan : null;
    expect(plan?.what === "pages-and-size" ? plan.except.length : null).toBe(pages);
  });

  it("F5: a lock that is being given up is still held until the lower mode was sent, and to PR until that is confirmed", () => {
    const file = holding("file", Mode.EX);
    expect(isStillHeld(file)).toBe(false);
    tryPin(file, Mode.PR);
    handleBast(state, file, Mode.EX, 0);
    expect([file.phase, isStillHeld(file)]).toEqual(["draining", true]);
    unpin(state, file, 0);
    expect([file.phase, isStillHeld(file)]).toEqual(["invalidating", true]);
    handleInvalidated(state, file, false, 0);
    expect([file.phase, isStillHeld(file)]).toEqual(["converting", false]);
    const shared = holding("file", Mode.EX);
    handleBast(state, shared, Mode.PR, 0);
    expect([shared.phase, isStillHeld(shared)]).toEqual(["converting", true]);
  });

  it("F5: the size goes with the pages of a regular file, and only there", () => {
    const link = holding("other", Mode.PR);
    handleBast(state, link, Mode.EX, 0);
    expect(effects()).toMatchObject([{ do: "invalidate", plan: { what: "pages" } }]);
  });

  it("keeps a lock that is fought over and in use for a moment, and no longer", () => {
    const file = holding("file", Mode.EX);
    file.revokedAt = 0;
    file.grantedAt = 1;
    file.uses = 10;
    handleBast(state, file, Mode.EX, 2);
    expect(effects()).toMatchObject([{ do: "timer", purpose: "hold" }]);
    expect(tryPin(file, Mode.EX)).toBe(true);
    unpin(state, file, 2);
    handleTimer(state, file, 1 + state.limits.minHoldMs);
    expect(done()).toEqual(["invalidate"]);
  });

  it("an inode that the kernel does not know goes without a notification", () => {
    const file = cover("file", false);
    file.mode = Mode.EX;
    handleBast(state, file, Mode.EX, 0);
    expect(effects()).toMatchObject([{ do: "request", mode: Mode.NL }]);
  });
});

describe("what was born here", () => {
  it("costs no message until the directory's lock goes, and then all of it is known first", () => {
    const dir = holding("directory", Mode.EX);
    const files = [cover("file"), cover("file")];
    for (const file of files) enterUnregistered(state, file, 0);
    expect(tryPin(files[0] as Cover, Mode.EX)).toBe(true);
    expect(done()).toEqual([]);
    handleBast(state, dir, Mode.PR, 0);
    expect(dir.phase).toBe("publishing");
    expect(effects()).toMatchObject([
      { do: "request", mode: Mode.EX },
      { do: "request", mode: Mode.PR },
    ]);
    handleAst(state, files[0] as Cover, "granted", Mode.EX, 0);
    expect(dir.phase).toBe("publishing");
    handleAst(state, files[1] as Cover, "granted", Mode.PR, 0);
    expect(effects()).toMatchObject([{ do: "request", cover: dir, mode: Mode.PR }]);
  });

  /** It was made here, and is known to dlmd as EX. */
  const made = (): Cover => {
    const file = cover("file", false);
    enterUnregistered(state, file, 0);
    expect(tryPin(file, Mode.EX)).toBe(true);
    registerBorn(state, { shared: false });
    handleAst(state, file, "granted", Mode.EX, 0);
    unpin(state, file, 0);
    effects();
    return file;
  };
  const asked = (): string[] => effects().flatMap((effect) => (effect.do === "request" ? [`lock ${effect.mode}`] : [effect.do]));

  it("F9: has the write token without a message, and asks for it before its lock leaves, where it is in use", () => {
    const [open, closed, unopened] = [made(), made(), made()];
    for (const file of [open, closed]) expect(openToken(state, file, () => undefined)).toBe(true);
    closeToken(state, closed);
    expect(asked()).toEqual([]);
    for (const file of [closed, unopened]) {
      handleBast(state, file, Mode.PR, 1);
      expect([asked(), file.token]).toEqual([[`lock ${Mode.PR}`], null]);
    }
    handleBast(state, open, Mode.EX, 1);
    expect([asked(), open.phase]).toEqual([["request-token"], "draining"]);
    const { token } = open;
    if (token === null) throw new Error("no token");
    // A program goes on meanwhile: its page may be locked.
    addWaiter(state, open, waiter(Mode.EX, true), 2);
    handleTimer(state, open, 3);
    expect(asked()).toContain("settle");
    handleTokenAst(state, open, token, "granted", 4);
    expect([asked(), open.pins]).toEqual([[], 1]);
    unpinData(state, open, 5);
    expect(asked()).toEqual([`lock ${Mode.NL}`]);
    expect([token.state, token.users, open.token]).toEqual(["held", 1, token]);
    handleAst(state, open, "granted", Mode.NL, 6);
    // From now on dlmd says who has it.
    closeToken(state, open);
    handleTokenBast(state, open, token);
    expect(asked()).toEqual(["unlock-token"]);
    expect(openToken(state, open, () => undefined)).toBe(false);
    expect(asked()).toEqual(["request-token"]);
    // Nor is it implied by what is EX once more.
    handleAst(state, closed, "granted", Mode.PR, 7);
    addWaiter(state, closed, waiter(Mode.EX), 7);
    handleAst(state, closed, "granted", Mode.EX, 8);
    expect(openToken(state, closed, () => undefined)).toBe(false);
  });

  it("F9: a token that is closed while it is asked for goes to whoever wants it, and the lock with it", () => {
    const file = made();
    expect(openToken(state, file, () => undefined)).toBe(true);
    handleBast(state, file, Mode.EX, 1);
    expect(asked()).toEqual(["request-token"]);
    const { token } = file;
    if (token === null) throw new Error("no token");
    closeToken(state, file);
    handleTokenBast(state, file, token);
    expect(asked()).toEqual([]);
    handleTokenAst(state, file, token, "granted", 2);
    expect([asked(), file.token]).toEqual([["unlock-token", `lock ${Mode.NL}`], null]);
  });
});

describe("the write token", () => {
  it("F9: a second node's writing open is direct when the token does not come", () => {
    const file = cover("file");
    const results: string[] = [];
    expect(openToken(state, file, (result) => results.push(result))).toBe(false);
    expect(done()).toEqual(["request-token"]);
    const token = file.token;
    if (token === null) throw new Error("no token");
    handleTokenAst(state, file, token, "canceled", 0);
    for (const effect of effects()) if (effect.do === "settle-token") effect.waiter(effect.result);
    expect(results).toEqual(["direct"]);
  });

  it("is given up at once when idle, and at the last close when in use", () => {
    const file = cover("file");
    openToken(state, file, () => undefined);
    const token = file.token;
    if (token === null) throw new Error("no token");
    handleTokenAst(state, file, token, "granted", 0);
    effects();
    handleTokenBast(state, file, token);
    expect(done()).toEqual([]);
    closeToken(state, file);
    expect(done()).toEqual(["unlock-token"]);
    expect(file.token).toBeNull();
  });
});

describe("F6 F12: the names a kernel was told", () => {
  const a = Buffer.from("a");
  const b = Buffer.from([0xff, 0xfe]);

  it("plans nothing where no validity was given, and each name once where it was", () => {
    const dir = holding("directory", Mode.PR);
    const child = cover("file");
    expect(tellName(dir, a, child, false, 1, 0)).toBe(false);
    expect(planExpiry(dir, 1, 0)).toEqual({ epoch: false, names: [] });
    expect(tellName(dir, b, child, true, 1, 0)).toBe(true);
    expect(planExpiry(dir, 1, 0).names).toMatchObject([{ name: b }]);
    expect(planExpiry(dir, 1, 0).names).toEqual([]);
    expect(toldName(dir, b)).toBe(child);
  });

  it("expires what was told once, drops what was told again a moment ago, and takes the epoch for directories", () => {
    const dir = holding("directory", Mode.PR);
    const [once, again, folder] = [cover("file"), cover("file"), cover("directory")];
    tellName(dir, a, once, true, 1, 0);
    tellName(dir, b, again, true, 1, 0);
    tellName(dir, b, again, true, 1, 100);
    expect(planExpiry(dir, 1, 200).names).toMatchObject([{ drop: false }, { drop: true }]);
    tellName(dir, b, again, true, 1, 300);
    expect(planExpiry(dir, 1, 10_000).names).toMatchObject([{ name: b, drop: false }]);
    const c = Buffer.from("c");
    tellName(dir, c, folder, true, 1, 0);
    tellName(dir, c, folder, true, 1, 11_000);
    expect(planExpiry(dir, 1, 11_001).epoch).toBe(true);
  });

  it("takes the epoch where the directory is locked, if there is something to expire", () => {
    const dir = holding("directory", Mode.PR);
    tellName(dir, a, cover("file"), false, 1, 0);
    expect(planExpiry(dir, 1, 0, true)).toEqual({ epoch: false, names: [] });
    tellName(dir, b, cover("file"), true, 1, 0);
    expect(planExpiry(dir, 1, 0, true)).toMatchObject({ epoch: true, names: [{ name: b }] });
  });

  it("takes the epoch for more than ten thousand names", () => {
    const dir = holding("directory", Mode.PR);
    for (let k = 0; k < 10_001; k += 1) tellName(dir, Buffer.from(`n${k}`), cover("file"), true, 1, 0);
    expect(planExpiry(dir, 1, 0).epoch).toBe(true);
  });

  it("remembers at most a thousand negative names", () => {
    const dir = holding("directory", Mode.PR);
    for (let k = 0; k < 1000; k += 1) expect(tellName(dir, Buffer.from(`n${k}`), null, true, 1, 0)).toBe(true);
    expect(tellName(dir, Buffer.from("one more"), null, true, 1, 0)).toBe(false);
    dropName(dir, Buffer.from("n0"));
    expect(tellName(dir, Buffer.from("one more"), null, true, 1, 0)).toBe(true);
  });

  it("knows of an inode's other names while they are told, and doubts them when their validity is gone", () => {
    const dir = holding("directory", Mode.PR);
    const other = holding("directory", Mode.PR);
    const child = cover("file");
    tellName(dir, a, child, true, 1, 0);
    expect(hasDoubtfulName(child, dir, a, 1)).toBe(false);
    // In force: two names of one file.
    expect(hasDoubtfulName(child, dir, b, 1)).toBe(false);
    planExpiry(dir, 1, 0);
    expect([hasDoubtfulName(child, dir, a, 1), hasDoubtfulName(child, dir, b, 1), hasDoubtfulName(child, other, a, 1)]).toEqual([
      false,
      true,
      true,
    ]);
    tellName(dir, a, child, true, 1, 0);
    expect([hasDoubtfulName(child, dir, b, 1), hasDoubtfulName(child, dir, b, 2)]).toEqual([false, true]);
    tellName(dir, a, null, true, 2, 0);
    expect(hasDoubtfulName(child, dir, b, 2)).toBe(false);
  });

  it("follows renames, exchanges and forgets", () => {
    const dir = holding("directory", Mode.EX);
    const other = holding("directory", Mode.EX);
    const [x, y] = [cover("file"), cover("file")];
    tellName(dir, a, x, true, 1, 0);
    moveName(dir, a, other, b, 1, 0);
    expect(toldName(dir, a)).toBeUndefined();
    expect(toldName(other, b)).toBe(x);
    expect(planExpiry(other, 1, 5000).names).toMatchObject([{ name: b }]);
    tellName(dir, a, y, true, 1, 0);
    exchangeNames(dir, a, other, b, 1, 0);
    expect(toldName(dir, a)).toBe(x);
    expect(toldName(other, b)).toBe(y);
    forgetNames(x);
    expect(toldName(dir, a)).toBeUndefined();
    expect(x.toldIn).toBeNull();
  });
});
