import { expect, it } from "vitest";
import { Mode } from "../../../dlmd/lock/mode.ts";
import { bear } from "../../../overlay/coherence/born.ts";
import { createCover } from "../../../overlay/coherence/cover.ts";
import { createCoherenceState } from "../../../overlay/coherence/effect.ts";
import { handleAst, pinChild, unpin } from "../../../overlay/coherence/lock-cache.ts";

it("an inode that a LOOKUP beside its CREATE found first is not born: its lock is asked for already", () => {
  const state = createCoherenceState();
  const cover = createCover({ ino: 12, generation: 7 }, "12.7", "file");
  let pinned: boolean | null = null;
  const found = pinChild(state, cover, (granted) => {
    pinned = granted;
  });
  expect(found).toBeNull();
  bear(state, cover, 0);
  expect([cover.mode, cover.unregistered, state.unregistered.size]).toEqual([Mode.NL, false, 0]);
  state.effects.length = 0;
  handleAst(state, cover, "granted", Mode.PR, 1);
  for (const effect of state.effects) if (effect.do === "settle-child") effect.waiter(effect.pinned);
  expect(pinned).toBe(true);
  unpin(state, cover, 2);
  bear(state, cover, 3);
  expect([cover.mode, cover.unregistered]).toEqual([Mode.PR, false]);
});
