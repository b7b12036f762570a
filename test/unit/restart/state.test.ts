/** What one process of a mount gives to the next: as it was, or refused in words. */
import { describe, expect, it } from "vitest";
import { decodeState, encodeState, STATE_VERSION, ownerAfter } from "../../../overlay/restart/state.ts";
import { someState } from "./some-state.ts";

const state = someState();

describe("the state of a mount", () => {
  it("comes back as it was", () => {
    expect(decodeState(encodeState(state))).toEqual(state);
  });

  it("is refused wherever it is cut off, and if anything follows it", () => {
    const bytes = encodeState(state);
    for (let length = 0; length < bytes.length; length += 1) {
      expect(() => decodeState(bytes.subarray(0, length)), `the first ${length} bytes`).toThrow(
        /the state of a mount in version 6 expected, found/,
      );
    }
    expect(() => decodeState(Buffer.concat([bytes, Buffer.alloc(1)]))).toThrow(/found \d+ bytes instead of \d+/);
  });

  it("is refused if any one byte is another", () => {
    const bytes = encodeState(state);
    for (let at = 0; at < bytes.length; at += 1) {
      const damaged = Buffer.from(bytes);
      damaged.writeUInt8(damaged.readUInt8(at) ^ 0x20, at);
      expect(() => decodeState(damaged), `byte ${at}`).toThrow(/the state of a mount in version 6 expected, found/);
    }
  });

  it("is refused in another version, before anything else is looked at", () => {
    const bytes = encodeState(state);
    bytes.writeUInt32LE(STATE_VERSION + 1, 8);
    expect(() => decodeState(bytes)).toThrow(`found version ${STATE_VERSION + 1}`);
  });

  it.each([
    ["an inode twice", { inodes: [...state.inodes, ...state.inodes] }],
    ["handle 7 of inode 49153, which is not in it", { inodes: [] }],
    ["handle 7 of file 9, which is not open at the owner", { openFiles: [] }],
    ["a mapping of inode 5, which is not in it", { mapped: [5] }],
    ["a reply for inode 6, which is not in it", { lates: [{ fuseNodeid: 6, effect: "sets" as const, tid: 0, end: 1 }] }],
    ["locks of inode 6, which is not in it, or twice", { fileLocks: [{ fuseNodeid: 6, shared: false, held: [], users: [] }] }],
    ["locks of inode 49153, which is not in it, or twice", { fileLocks: [...state.fileLocks, ...state.fileLocks] }],
    [
      "a lock through handle 77, which is not in it",
      { fileLocks: [{ fuseNodeid: 49_153, shared: false, held: [], users: [{ kind: "flock" as const, owner: "1", handles: [77] }] }] },
    ],
    ["one that does not fit", { nextFh: -1 }],
    ["one that does not fit", { held: ["%"] }],
  ])("is refused if its parts do not fit each other: %s", (words, part) => {
    expect(() => decodeState(encodeState({ ...state, ...part }))).toThrow(words);
  });
});

it("says at which owner the next process goes on: the same, itself, or another one that keeps what was left to it", () => {
  const after = (gaveBack: boolean, custody: string | null): string => ownerAfter({ gaveBack, custody });
  expect([after(false, null), after(false, "t"), after(true, null), after(true, "t")]).toEqual(["same", "same", "itself", "another"]);
});
