import { expect, it } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { enterUnregistered, registerAll } from "../../../overlay/coherence/lock/new-inodes.ts";
import { Cover } from "../../../overlay/coherence/cover.ts";
import { CoherenceState } from "../../../overlay/coherence/effect.ts";
import { openToken } from "../../../overlay/coherence/lock/write-token.ts";
import { handleAst, handleBast, pinChild, tryPin, unpin } from "../../../overlay/coherence/lock/lock-cache.ts";

it("an inode that a LOOKUP beside its CREATE found first is not born: its lock is asked for already", () => {
  const state = new CoherenceState();
  const cover = new Cover({ ino: 12, generation: 7 }, "12.7", "file");
  let pinned: boolean | null = null;
  const found = pinChild(state, cover, (granted) => {
    pinned = granted;
  });
  expect(found).toBeNull();
  enterUnregistered(state, cover, 0);
  expect([cover.mode, cover.unregistered, state.unregistered.size]).toEqual([Mode.NL, false, 0]);
  state.effects.length = 0;
  handleAst(state, cover, "granted", Mode.PR, 1);
  for (const effect of state.effects) if (effect.do === "settle-child") effect.waiter(effect.pinned);
  expect(pinned).toBe(true);
  unpin(state, cover, 2);
  enterUnregistered(state, cover, 3);
  expect([cover.mode, cover.unregistered]).toEqual([Mode.PR, false]);
});

it("what was born in a directory that is about to be read elsewhere is shared with it, but for what is in use here", () => {
  const state = new CoherenceState();
  const [directory, idle, pinned, open] = (
    [
      ["directory", 12],
      ["file", 13],
      ["file", 14],
      ["file", 15],
    ] as const
  ).map(([kind, ino]) => new Cover({ ino, generation: 7 }, `${ino}.7`, kind)) as [Cover, Cover, Cover, Cover];
  directory.mode = Mode.EX;
  const modes = (): [string, Mode][] =>
    state.effects.splice(0).flatMap((effect) => (effect.do === "request" ? [[effect.cover.key, effect.mode] as [string, Mode]] : []));
  for (const cover of [idle, pinned, open]) enterUnregistered(state, cover, 0);
  expect(tryPin(pinned, Mode.EX)).toBe(true);
  expect(openToken(state, open, () => undefined)).toBe(true);
  handleBast(state, directory, Mode.PR, 1);
  expect(modes()).toEqual([
    ["13.7", Mode.PR],
    ["14.7", Mode.EX],
    ["15.7", Mode.EX],
  ]);
  expect([idle, pinned].map((cover) => tryPin(cover, Mode.EX))).toEqual([false, true]);
  handleAst(state, idle, "granted", Mode.PR, 2);
  expect([idle.mode, idle.registering]).toEqual([Mode.PR, false]);
  // For somebody who writes there, or by the clock, it stays what it was.
  const [other, later] = [16, 17].map((ino) => new Cover({ ino, generation: 7 }, `${ino}.7`, "file")) as [Cover, Cover];
  const written = new Cover({ ino: 18, generation: 7 }, "18.7", "directory");
  written.mode = Mode.EX;
  enterUnregistered(state, other, 3);
  handleBast(state, written, Mode.EX, 3);
  enterUnregistered(state, later, 3);
  registerAll(state);
  expect(modes()).toEqual([
    ["16.7", Mode.EX],
    ["17.7", Mode.EX],
  ]);
});
