/** Hazard F47: a file that nodes read and then change, one after the other. */
import { beforeEach, describe, expect, it } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { Cover, type InodeKind, type PinMode } from "../../../overlay/coherence/cover.ts";
import { CoherenceState } from "../../../overlay/coherence/effect.ts";
import { addWaiter, handleAst, handleBast, holdOf, unpin } from "../../../overlay/coherence/lock/lock-cache.ts";
import { handleInvalidated } from "../../../overlay/coherence/lock/revoke.ts";

const FOUGHT_MS = 500;

let state: CoherenceState;

beforeEach(() => {
  state = new CoherenceState();
});

/** The modes that dlmd is asked for, and "expect" where the lock is to be asked for again. */
function asked(): (Mode | "expect")[] {
  return state.effects.splice(0).flatMap((effect): (Mode | "expect")[] => {
    if (effect.do === "request") return [effect.mode];
    return effect.do === "expect" ? ["expect"] : [];
  });
}

function coverOf(kind: InodeKind): Cover {
  const cover = new Cover({ ino: 12, generation: 7 }, kind);
  cover.inode = { fuseNodeid: 12, id: cover.id, kind, nlookup: 1, openCount: 1, mappableCount: 0, cover };
  return cover;
}

/** A pin that is over; gives what was asked for. */
function use(cover: Cover, mode: PinMode, now: number, expected = false): Mode | undefined {
  asked();
  addWaiter(state, cover, { mode, passes: false, expected, settle: () => undefined }, now);
  const [first] = asked();
  if (first === Mode.NL) {
    // An upgrade that is left out because the last ones were refused: the lock is given up, and asked for anew.
    handleAst(state, cover, "granted", Mode.NL, now);
    handleAst(state, cover, "granted", Mode.EX, now);
  } else if (first !== undefined && first !== "expect") handleAst(state, cover, "granted", first, now);
  asked();
  unpin(state, cover, now);
  return first === "expect" ? undefined : first;
}

/** Another node takes it. Gives whether it is to be asked for again. */
function taken(cover: Cover, now: number): boolean {
  handleBast(state, cover, Mode.EX, now);
  expect(cover.phase).toBe("invalidating");
  asked();
  handleInvalidated(state, cover, false, now);
  const expected = asked().includes("expect");
  handleAst(state, cover, "granted", Mode.NL, now);
  asked();
  return expected;
}

/** Read, changed, and taken by another node, `times` times in a row, each 10 ms, the first one long after nobody had it. */
function migrated(times: number, kind: InodeKind = "file"): { readonly cover: Cover; readonly now: number } {
  const cover = coverOf(kind);
  use(cover, Mode.PR, 0);
  taken(cover, 1);
  let now = 10;
  for (let time = 0; time < times; time += 1) {
    expect(use(cover, Mode.PR, now), `time ${time}`).toBe(Mode.PR);
    use(cover, Mode.EX, now + 1);
    expect(cover.mode).toBe(Mode.EX);
    taken(cover, now + 2);
    now += 10;
  }
  return { cover, now };
}

describe("hazard F47: a file that was read and then changed twice in a row, each time taken by another node", () => {
  it("is asked for with EX to look, each time, as long as it is changed then", () => {
    const { cover, now } = migrated(2);
    for (let at = now; at < now + 2000; at += 100) {
      expect(use(cover, Mode.PR, at), `at ${at}`).toBe(Mode.EX);
      use(cover, Mode.EX, at + 1);
      taken(cover, at + 2);
    }
  });

  it("once is not enough", () => {
    const { cover, now } = migrated(1);
    expect(use(cover, Mode.PR, now)).toBe(Mode.PR);
  });

  it("nothing was changed then: that was the last one, until it is twice again", () => {
    const { cover, now } = migrated(2);
    expect(use(cover, Mode.PR, now)).toBe(Mode.EX);
    taken(cover, now + 1);
    for (const at of [now + 10, now + 20]) {
      expect(use(cover, Mode.PR, at)).toBe(Mode.PR);
      use(cover, Mode.EX, at + 1);
      taken(cover, at + 2);
    }
    expect(use(cover, Mode.PR, now + 30)).toBe(Mode.EX);
  });

  it.each([
    [FOUGHT_MS, Mode.EX],
    [FOUGHT_MS + 1, Mode.PR],
  ])("%i ms after the last change it is asked for in mode %i", (ms, mode) => {
    const { cover, now } = migrated(2);
    expect(use(cover, Mode.PR, now - 9 + ms)).toBe(mode);
  });

  it("changes that are further apart than that are not in a row", () => {
    const cover = coverOf("file");
    use(cover, Mode.PR, 0);
    taken(cover, 1);
    let now = 10;
    for (let time = 0; time < 5; time += 1) {
      expect(use(cover, Mode.PR, now), `at ${now}`).toBe(Mode.PR);
      use(cover, Mode.EX, now + 1);
      taken(cover, now + FOUGHT_MS + 1);
      now += FOUGHT_MS + 2;
    }
    use(cover, Mode.PR, now);
    use(cover, Mode.EX, now + 1);
    taken(cover, now + 2);
    expect(use(cover, Mode.PR, now + 3)).toBe(Mode.PR);
  });

  it("what no other node wants meanwhile does not count", () => {
    const cover = coverOf("file");
    for (let now = 10; now < 100; now += 10) {
      expect(use(cover, Mode.PR, now), `at ${now}`).not.toBe(Mode.EX);
      use(cover, Mode.EX, now + 1);
      // Given up by itself.
      cover.mode = Mode.NL;
    }
  });

  it("who has given it up does not ask for it again by himself", () => {
    const { cover, now } = migrated(2);
    for (let at = now; at < now + 50; at += 10) {
      use(cover, Mode.PR, at);
      use(cover, Mode.EX, at + 1);
      expect(taken(cover, at + 2)).toBe(false);
    }
  });

  it("who only reads since is expected again", () => {
    const { cover, now } = migrated(2);
    const expected: boolean[] = [];
    for (let at = now + 2 * FOUGHT_MS; at < now + 2 * FOUGHT_MS + 50; at += 10) {
      expect(use(cover, Mode.PR, at)).toBe(Mode.PR);
      expected.push(taken(cover, at + 1));
      // What was asked for in that message came, or not: it is asked for by hand here.
    }
    expect(expected.at(-1)).toBe(true);
  });

  it("the expectation of a reader is none of a change", () => {
    const { cover, now } = migrated(2);
    expect(use(cover, Mode.PR, now, true)).toBe(Mode.PR);
  });

  it("what was read under that EX counts until something is changed under it, and not under the PR that it is given down to", () => {
    const { cover, now } = migrated(2);
    use(cover, Mode.PR, now);
    const looked = holdOf(cover);
    expect([cover.mode, looked === 0]).toEqual([Mode.EX, false]);
    use(cover, Mode.PR, now + 1);
    expect(holdOf(cover)).toBe(looked);
    use(cover, Mode.EX, now + 2);
    expect(holdOf(cover)).toBe(0);
    handleBast(state, cover, Mode.PR, now + 3);
    expect(holdOf(cover)).toBe(0);
    handleAst(state, cover, "granted", Mode.PR, now + 3);
    expect([cover.mode, holdOf(cover) === 0, holdOf(cover) === looked]).toEqual([Mode.PR, false, false]);
  });

  it("is a file: directories have turns", () => {
    const { cover } = migrated(1, "directory");
    expect(cover.fight).toBeNull();
  });
});
