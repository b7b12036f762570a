/** Where PR to EX is not worth a try. */
import { beforeEach, expect, it } from "vitest";
import { LockFlag } from "../../../dlmd/client/api.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { Cover, type InodeKind } from "../../../overlay/coherence/cover.ts";
import { CoherenceState } from "../../../overlay/coherence/effect.ts";
import { addWaiter, handleAst } from "../../../overlay/coherence/lock/lock-cache.ts";
import { REFUSED_MIN, REFUSED_MS } from "../../../overlay/coherence/lock/upgrades.ts";

let state: CoherenceState;
let nextIno = 11;
beforeEach(() => {
  state = new CoherenceState();
});

/** Held PR, and a change waits for it: what is asked for. */
function change(now: number, kind: InodeKind = "file", born = 0): { readonly cover: Cover; readonly asked: readonly unknown[] } {
  nextIno += 1;
  const cover = new Cover({ ino: nextIno, generation: 7 }, kind);
  cover.mode = Mode.PR;
  cover.born = born;
  addWaiter(state, cover, { mode: Mode.EX, passes: false, settle: () => undefined }, now);
  const asked = state.effects.splice(0).flatMap((effect) => (effect.do === "request" ? [[effect.mode, effect.flags]] : []));
  return { cover, asked };
}

const tried = [[Mode.EX, LockFlag.NOQUEUE]];
const givenUp = [[Mode.NL, 0]];

const inPlace = [[Mode.EX, 0]];

function refuse(now: number): void {
  const { cover, asked } = change(now, "file", 1);
  expect(asked).toEqual(tried);
  handleAst(state, cover, "again", Mode.PR, now);
  state.effects.length = 0;
}

it("after REFUSED_MIN in a row it is left out for REFUSED_MS: PR is given up at once", () => {
  for (let times = 1; times <= REFUSED_MIN; times += 1) {
    expect(change(times).asked).toEqual(tried);
    refuse(times);
  }
  expect(change(REFUSED_MIN + REFUSED_MS - 1).asked).toEqual(givenUp);
  expect(change(REFUSED_MIN + REFUSED_MS).asked).toEqual(tried);
});

it("one that is granted is worth the next try", () => {
  for (let times = 0; times < REFUSED_MIN; times += 1) refuse(0);
  const { cover } = change(0, "file", 1);
  handleAst(state, cover, "granted", Mode.EX, 0);
  state.effects.length = 0;
  expect(change(0).asked).toEqual(tried);
});

it("a directory waits in place, and what was born here is always tried; directories say nothing of files", () => {
  for (let times = 0; times < REFUSED_MIN; times += 1) {
    const { cover, asked } = change(0, "directory");
    expect(asked).toEqual(inPlace);
    handleAst(state, cover, "deadlock", Mode.PR, 0);
    state.effects.length = 0;
  }
  expect(change(0).asked).toEqual(tried);
  for (let times = 0; times < REFUSED_MIN; times += 1) refuse(0);
  expect([change(0).asked, change(0, "directory").asked, change(0, "file", 1).asked]).toEqual([givenUp, inPlace, tried]);
});
