import { expect, it } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import { enterUnregistered, registerBorn } from "../../../overlay/coherence/lock/new-inodes.ts";
import { Cover } from "../../../overlay/coherence/cover.ts";
import { noteLateReply, noteThread } from "../../../overlay/coherence/size/doubt.ts";
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
  // For somebody who writes there, or by the clock: a file is, a directory stays what it was.
  const born = (ino: number, kind: "file" | "directory"): Cover => new Cover({ ino, generation: 7 }, `${ino}.7`, kind);
  const written = born(18, "directory");
  written.mode = Mode.EX;
  for (const cover of [born(16, "file"), born(19, "directory")]) enterUnregistered(state, cover, 3);
  handleBast(state, written, Mode.EX, 3);
  for (const cover of [born(17, "file"), born(20, "directory")]) enterUnregistered(state, cover, 3);
  registerBorn(state, { shared: false });
  expect(modes()).toEqual([
    ["16.7", Mode.PR],
    ["19.7", Mode.EX],
    ["17.7", Mode.PR],
    ["20.7", Mode.EX],
  ]);
  expect(state.unregistered.size).toBe(0);
});

it("F5: a file born here is not shared before its size, as it was answered, was taken", () => {
  const state = new CoherenceState();
  const born = (ino: number): Cover => {
    const cover = new Cover({ ino, generation: 7 }, `${ino}.7`, "file");
    enterUnregistered(state, cover, 0);
    return cover;
  };
  const [late, taken] = [born(13), born(14)];
  noteLateReply(state, late, 100, "raises", 4096);
  noteLateReply(state, taken, 101, "raises", 4096);
  noteThread(state, 101);
  registerBorn(state, { shared: false });
  expect([late.mode, taken.mode]).toEqual([Mode.EX, Mode.PR]);
});

it("the oldest of what was born are made known first", () => {
  const state = new CoherenceState();
  const covers = [13, 14, 15].map((ino) => new Cover({ ino, generation: 7 }, `${ino}.7`, "file"));
  for (const cover of covers) enterUnregistered(state, cover, 0);
  registerBorn(state, { shared: false, count: 2 });
  expect(covers.map(({ unregistered }) => unregistered)).toEqual([false, false, true]);
  expect([...state.unregistered]).toEqual([covers[2]]);
});

it("a file in use may wait until it is at rest, if it was born late enough; a directory need not", () => {
  const state = new CoherenceState();
  const [file, directory] = [
    new Cover({ ino: 13, generation: 7 }, "13.7", "file"),
    new Cover({ ino: 14, generation: 7 }, "14.7", "directory"),
  ];
  for (const cover of [file, directory]) {
    enterUnregistered(state, cover, 0);
    expect(tryPin(cover, Mode.EX)).toBe(true);
  }
  registerBorn(state, { shared: false, inUseAfter: 0 });
  expect([file.unregistered, directory.unregistered]).toEqual([true, false]);
  const later = new Cover({ ino: 15, generation: 7 }, "15.7", "file");
  enterUnregistered(state, later, 1);
  expect(tryPin(later, Mode.EX)).toBe(true);
  registerBorn(state, { shared: false, inUseAfter: file.born });
  expect([file.unregistered, file.mode, later.unregistered]).toEqual([false, Mode.EX, true]);
  unpin(state, later, 1);
  registerBorn(state, { shared: false, inUseAfter: later.born - 1 });
  expect([later.unregistered, later.mode]).toEqual([false, Mode.PR]);
});
