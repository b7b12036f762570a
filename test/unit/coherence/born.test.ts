import { expect, it } from "vitest";
import { Mode } from "../../../dlmd/wire/mode.ts";
import {
  enterUnregistered,
  KEPT_MAX,
  LOWERED_FIRST,
  LOWERED_THEN,
  registerBorn,
  takeOldest,
} from "../../../overlay/coherence/lock/new-inodes.ts";
import { Cover } from "../../../overlay/coherence/cover.ts";
import { noteLateReply, noteThread } from "../../../overlay/coherence/size/doubt.ts";
import { CoverTable } from "../../../overlay/coherence/lock/cover-table.ts";
import { CoherenceState } from "../../../overlay/coherence/effect.ts";
import { openToken } from "../../../overlay/coherence/lock/write-token.ts";
import { handleAst, handleBast, pinChild, tryPin, unpin } from "../../../overlay/coherence/lock/lock-cache.ts";

it("an inode that a LOOKUP beside its CREATE found first is not born: its lock is asked for already", () => {
  const state = new CoherenceState();
  const cover = new Cover({ ino: 12, generation: 7 }, "file");
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
  ).map(([kind, ino]) => new Cover({ ino, generation: 7 }, kind)) as [Cover, Cover, Cover, Cover];
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
  const born = (ino: number, kind: "file" | "directory"): Cover => new Cover({ ino, generation: 7 }, kind);
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
    const cover = new Cover({ ino, generation: 7 }, "file");
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
  const covers = [13, 14, 15].map((ino) => new Cover({ ino, generation: 7 }, "file"));
  for (const cover of covers) enterUnregistered(state, cover, 0);
  registerBorn(state, { shared: false, count: 2 });
  expect(covers.map(({ unregistered }) => unregistered)).toEqual([false, false, true]);
  expect([...state.unregistered]).toEqual([covers[2]]);
});

it("a file in use may wait until it is at rest, if it was born late enough; a directory need not", () => {
  const state = new CoherenceState();
  const [file, directory] = [new Cover({ ino: 13, generation: 7 }, "file"), new Cover({ ino: 14, generation: 7 }, "directory")];
  for (const cover of [file, directory]) {
    enterUnregistered(state, cover, 0);
    expect(tryPin(cover, Mode.EX)).toBe(true);
  }
  registerBorn(state, { shared: false, inUseAfter: 0 });
  expect([file.unregistered, directory.unregistered]).toEqual([true, false]);
  const later = new Cover({ ino: 15, generation: 7 }, "file");
  enterUnregistered(state, later, 1);
  expect(tryPin(later, Mode.EX)).toBe(true);
  registerBorn(state, { shared: false, inUseAfter: file.born });
  expect([file.unregistered, file.mode, later.unregistered]).toEqual([false, Mode.EX, true]);
  unpin(state, later, 1);
  registerBorn(state, { shared: false, inUseAfter: later.born - 1 });
  expect([later.unregistered, later.mode]).toEqual([false, Mode.PR]);
});

/** Files that were made known by the clock, and dlmd has said so. */
function keptFiles(state: CoherenceState, count: number): Cover[] {
  const covers = Array.from({ length: count }, (_, at) => new Cover({ ino: 20 + at, generation: 7 }, "file"));
  for (const cover of covers) enterUnregistered(state, cover, 0);
  registerBorn(state, { shared: false, keeps: true });
  for (const cover of covers) handleAst(state, cover, "granted", Mode.EX, 0);
  state.effects.length = 0;
  return covers;
}

const requests = (state: CoherenceState): [string, Mode][] =>
  state.effects.splice(0).flatMap((effect) => (effect.do === "request" ? [[effect.cover.key, effect.mode] as [string, Mode]] : []));

function directoryHere(): Cover {
  const directory = new Cover({ ino: 12, generation: 7 }, "directory");
  directory.mode = Mode.EX;
  return directory;
}

it("F34: what the clock made known stays EX here, and is lowered to PR before a directory's lock goes", () => {
  const state = new CoherenceState();
  const [file, other] = keptFiles(state, 2) as [Cover, Cover];
  expect([file, other].map((cover) => tryPin(cover, Mode.EX))).toEqual([true, true]);
  unpin(state, file, 1);
  unpin(state, other, 1);
  expect(state.effects).toEqual([]);
  handleBast(state, directoryHere(), Mode.PR, 2);
  expect(requests(state)).toEqual([
    ["20.7", Mode.PR],
    ["21.7", Mode.PR],
    ["12.7", Mode.PR],
  ]);
  expect(tryPin(file, Mode.PR)).toBe(false);
  handleAst(state, file, "granted", Mode.PR, 3);
  expect([tryPin(file, Mode.PR), tryPin(file, Mode.EX), file.phase, state.kept.size]).toEqual([true, false, "idle", 0]);
});

it("F34: what the clock makes known stays EX until KEPT_MAX do, and what comes then is PR", () => {
  const state = new CoherenceState();
  keptFiles(state, KEPT_MAX);
  const late = new Cover({ ino: 9, generation: 7 }, "file");
  enterUnregistered(state, late, 1);
  registerBorn(state, { shared: false, keeps: true });
  expect([late.mode, state.kept.size, state.kept.has(late)]).toEqual([Mode.PR, KEPT_MAX, false]);
});

it("F34: a directory's lock waits for LOWERED_FIRST of them, the youngest; the others come behind it", () => {
  const state = new CoherenceState();
  const [oldest] = keptFiles(state, LOWERED_FIRST + 1) as [Cover];
  handleBast(state, directoryHere(), Mode.PR, 2);
  expect(state.effects.filter((effect) => effect.do === "lower-rest")).toEqual([{ do: "lower-rest", files: 1 }]);
  const asked = requests(state);
  expect([asked.length, asked[0], asked.at(-1)]).toEqual([LOWERED_FIRST + 1, ["21.7", Mode.PR], ["12.7", Mode.PR]]);
  expect([...state.kept]).toEqual([oldest]);
  handleBast(state, directoryHere(), Mode.PR, 3);
  expect(state.effects.some((effect) => effect.do === "lower-rest")).toBe(false);
  expect(state.kept.size).toBe(0);
});

it("F34: the others are the LOWERED_THEN oldest at a time; one in use counts among the youngest then", () => {
  const state = new CoherenceState();
  const files = keptFiles(state, LOWERED_THEN + 2);
  const [pinned] = files as [Cover];
  expect(tryPin(pinned, Mode.EX)).toBe(true);
  expect(takeOldest(state)).toEqual(files.slice(1, LOWERED_THEN));
  expect([...state.kept]).toEqual([...files.slice(LOWERED_THEN), pinned]);
  expect(takeOldest(state)).toEqual(files.slice(LOWERED_THEN));
  expect([...state.kept]).toEqual([pinned]);
});

it("F34: of it nothing is lowered that is in use, wanted, or asked for: a later directory does that", () => {
  const state = new CoherenceState();
  const [pinned, open, late, wanted, rest] = keptFiles(state, 5) as [Cover, Cover, Cover, Cover, Cover];
  expect(tryPin(pinned, Mode.EX)).toBe(true);
  expect(openToken(state, open, () => undefined)).toBe(true);
  noteLateReply(state, late, 100, "raises", 4096);
  wanted.wanted = Mode.EX;
  state.effects.length = 0;
  handleBast(state, directoryHere(), Mode.EX, 2);
  expect(requests(state)).toEqual([
    ["24.7", Mode.PR],
    ["12.7", Mode.NL],
  ]);
  expect([pinned, open, late, wanted, rest].map(({ phase }) => phase)).toEqual(["idle", "idle", "idle", "idle", "converting"]);
  unpin(state, pinned, 3);
  handleBast(state, directoryHere(), Mode.PR, 4);
  expect(requests(state)).toEqual([
    ["20.7", Mode.PR],
    ["12.7", Mode.PR],
  ]);
});

it("F34: what is being made known when a directory's lock is asked for is lowered, too", () => {
  const state = new CoherenceState();
  const file = new Cover({ ino: 20, generation: 7 }, "file");
  enterUnregistered(state, file, 0);
  registerBorn(state, { shared: false, keeps: true });
  handleBast(state, directoryHere(), Mode.PR, 1);
  expect(requests(state)).toEqual([["20.7", Mode.EX]]);
  handleAst(state, file, "granted", Mode.EX, 2);
  expect(requests(state)).toEqual([
    ["20.7", Mode.PR],
    ["12.7", Mode.PR],
  ]);
});

it("F34: what was taken away, or is forgotten, is not kept", () => {
  const state = new CoherenceState();
  const table = new CoverTable(state, () => undefined);
  const gone = table.take({ ino: 19, generation: 7 }, "file");
  enterUnregistered(state, gone, 0);
  const [taken] = keptFiles(state, 1) as [Cover];
  handleAst(state, gone, "granted", Mode.EX, 0);
  handleBast(state, taken, Mode.EX, 1);
  expect(requests(state)).toEqual([["20.7", Mode.NL]]);
  handleAst(state, taken, "granted", Mode.NL, 2);
  gone.doomed = true;
  table.forgotten({ fuseNodeid: 19, id: gone.id, kind: "file", nlookup: 0, openCount: 0, mappableCount: 0, cover: gone });
  expect([...state.kept]).toEqual([taken]);
  handleBast(state, directoryHere(), Mode.PR, 3);
  expect([requests(state), state.kept.size]).toEqual([[["12.7", Mode.PR]], 0]);
});
