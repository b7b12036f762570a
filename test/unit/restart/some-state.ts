/** A state of a mount with one of everything. */
import type { RestartState } from "../../../overlay/restart/state.ts";

export const someState = (): RestartState => ({
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
  lates: [
    { fuseNodeid: 49_153, effect: "raises", tid: 77, end: 4096 },
    { fuseNodeid: 1, effect: "misplaced", tid: 0, end: null },
  ],
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
  fileLocks: [
    {
      fuseNodeid: 49_153,
      shared: true,
      held: [
        { kind: "posix", owner: "18446744073709551615", type: "write", start: "0", end: "9223372036854775807", pid: 78, heldMs: 12.5 },
      ],
      users: [{ kind: "posix", owner: "18446744073709551615", handles: [7] }],
    },
  ],
  hasOwned: true,
  staleOnce: ["unlink 77 name\u00ff"],
  standIns: { shownTo: [[2 ** 52, 77]], threads: [[77, true]] },
  custody: null,
  gaveBack: false,
  again: false,
  shared: [],
  held: [Buffer.from([0, 255, 3]).toString("base64"), ""],
});
