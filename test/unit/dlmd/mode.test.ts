/** The mode matrix and the value block table against those of Linux fs/dlm/lock.c, written out here once more by hand. */
import { describe, expect, it } from "vitest";
import { LockFlag } from "../../../dlmd/client/api.ts";
import * as flags from "../../../dlmd/wire/flag.ts";
import { lvbAction, lvbWriteOf, readsLvb } from "../../../dlmd/wire/lvb.ts";
import { Mode, modeCovers, modeNames, modesCompatible } from "../../../dlmd/wire/mode.ts";

const { IVVALBLK, VALBLK } = flags;

const all = Object.values(Mode);
// Incompatible pairs, symmetric.
const excluded: Readonly<Record<string, readonly string[]>> = {
  EX: ["CR", "CW", "PR", "PW", "EX"],
  PW: ["CW", "PR", "PW", "EX"],
  PR: ["CW", "PW", "EX"],
  CW: ["PR", "PW", "EX"],
  CR: ["EX"],
  NL: [],
};

describe("modes", () => {
  for (const a of all) {
    for (const b of all) {
      it(`${modeNames[a]} beside ${modeNames[b]}`, () => {
        expect(modesCompatible(a, b)).toBe(!(excluded[modeNames[a]] as readonly string[]).includes(modeNames[b]));
        expect(modesCompatible(a, b)).toBe(modesCompatible(b, a));
      });
    }
  }

  it("a mode covers exactly those that exclude no more than it does", () => {
    for (const held of all) {
      for (const wanted of all) {
        const allows = all.every((other) => !modesCompatible(held, other) || modesCompatible(wanted, other));
        expect(modeCovers(held, wanted), `${modeNames[held]} covers ${modeNames[wanted]}`).toBe(allows);
      }
    }
  });

  it("flags are those of the client", () => {
    expect(LockFlag).toEqual(Object.fromEntries(Object.entries(flags).filter(([name]) => name in LockFlag)));
    expect(Object.keys(LockFlag)).toHaveLength(19);
  });
});

describe("value block", () => {
  const block = new Uint8Array([1]);

  it("is read by every new lock, up to equal or higher from NL to PR, and PW to EX", () => {
    for (const to of all) expect(lvbAction(null, to)).toBe("read");
    for (const from of [Mode.NL, Mode.CR, Mode.CW, Mode.PR]) {
      for (const to of all) {
        const crossing = from === Mode.PR && to === Mode.CW;
        expect(lvbAction(from, to), `${modeNames[from]} to ${modeNames[to]}`).toBe(to >= from || crossing ? "read" : "none");
      }
    }
    expect(lvbAction(Mode.PW, Mode.EX)).toBe("read");
  });

  it("is written from PW to PW or lower, and from EX to anything", () => {
    for (const to of [Mode.NL, Mode.CR, Mode.CW, Mode.PR, Mode.PW]) expect(lvbAction(Mode.PW, to)).toBe("write");
    for (const to of all) expect(lvbAction(Mode.EX, to)).toBe("write");
  });

  it("is written by an unlock from PW or EX only", () => {
    for (const from of all) expect(lvbWriteOf(from, null, VALBLK, block)).toBe(from >= Mode.PW ? "write" : "none");
  });

  it("needs VALBLK; IVVALBLK invalidates at a write point", () => {
    expect(readsLvb(Mode.NL, Mode.PR, 0)).toBe(false);
    expect(readsLvb(Mode.NL, Mode.PR, VALBLK)).toBe(true);
    expect(lvbWriteOf(Mode.EX, Mode.NL, 0, block)).toBe("none");
    expect(lvbWriteOf(Mode.EX, Mode.NL, VALBLK, null)).toBe("none");
    expect(lvbWriteOf(Mode.EX, Mode.NL, VALBLK | IVVALBLK, block)).toBe("invalidate");
    expect(lvbWriteOf(Mode.PR, Mode.NL, VALBLK | IVVALBLK, block)).toBe("none");
  });
});
