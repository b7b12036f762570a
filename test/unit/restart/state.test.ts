/** What one process of a mount gives to the next: as it was, or refused in words. */
import { describe, expect, it } from "vitest";
import { decodeState, encodeState, type RestartState, STATE_VERSION } from "../../../overlay/restart/state.ts";

const state: RestartState = {
  connection: 41,
  ownerEpoch: 3,
  negotiated: {
    minor: 45,
    flags: "1152921504606846977",
    maxWriteBytes: 1_048_576,
    maxReadBytes: 1_048_576,
    maxPages: 256,
    maxReadaheadBytes: 1_048_576,
    entryExpire: true,
    incEpoch: true,
    readdirplus: true,
    posixAcl: true,
    handleKillpriv: true,
    createSuppGroup: true,
    autoInvalData: true,
    parallelDirops: true,
    cacheSymlinks: true,
    fileLocks: true,
    fileAttributes: true,
  },
  inodes: [{ fuseNodeid: 49_153, id: { ino: 12, generation: 1 }, kind: "file", nlookup: 2, nlinkHint: 0 }],
  nextCounted: 2 ** 52 + 1,
  handles: [
    { fh: 7, fuseNodeid: 49_153, lowerHandle: 9, writable: true, cached: true, writeToken: true, mappable: true, manyNew: false },
    { fh: 8, fuseNodeid: 1, lowerHandle: 10, writable: false, cached: false, writeToken: false, mappable: false, manyNew: true },
  ],
  nextFh: 9,
  mapped: [49_153],
  openFiles: [
    { handle: 9, id: { ino: 12, generation: 1 }, flags: 2, directory: false, lossesTold: 0 },
    { handle: 10, id: { ino: 2, generation: 0 }, flags: 0, directory: true, lossesTold: 1 },
  ],
  unsynced: {
    changed: [["12.1", { at: 4, what: "data" }]],
    lost: [["13.1", { death: 1, told: false, behind: true }]],
    deaths: 1,
    syncfsFails: true,
    tick: 5,
  },
  staleOnce: ["unlink 77 name\u00ff"],
  standIns: { shownTo: [[2 ** 52, 77]], threads: [[77, true]] },
  held: [Buffer.from([0, 255, 3]).toString("base64"), ""],
};

describe("the state of a mount", () => {
  it("comes back as it was", () => {
    expect(decodeState(encodeState(state))).toEqual(state);
  });

  it("is refused wherever it is cut off, and if anything follows it", () => {
    const bytes = encodeState(state);
    for (let length = 0; length < bytes.length; length += 1) {
      expect(() => decodeState(bytes.subarray(0, length)), `the first ${length} bytes`).toThrow(
        /the state of a mount in version 1 expected, found/,
      );
    }
    expect(() => decodeState(Buffer.concat([bytes, Buffer.alloc(1)]))).toThrow(/found \d+ bytes instead of \d+/);
  });

  it("is refused if any one byte is another", () => {
    const bytes = encodeState(state);
    for (let at = 0; at < bytes.length; at += 1) {
      const damaged = Buffer.from(bytes);
      damaged.writeUInt8(damaged.readUInt8(at) ^ 0x20, at);
      expect(() => decodeState(damaged), `byte ${at}`).toThrow(/the state of a mount in version 1 expected, found/);
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
    ["one that does not fit", { nextFh: -1 }],
    ["one that does not fit", { held: ["%"] }],
  ])("is refused if its parts do not fit each other: %s", (words, part) => {
    expect(() => decodeState(encodeState({ ...state, ...part }))).toThrow(words);
  });
});
