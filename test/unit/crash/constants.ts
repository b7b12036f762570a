/** What does not change of a mount, for tests of its journal. */
import type { Constants } from "../../../overlay/crash/before.ts";
import { negotiatedState } from "../../../overlay/restart/tables.ts";

export const crashConstants: Constants = {
  connection: 47,
  ownerEpoch: 3,
  key: "a secret",
  hasOwned: false,
  negotiated: negotiatedState({
    minor: 45,
    flags: 1n,
    maxWriteBytes: 1,
    maxReadBytes: 1,
    maxPages: 1,
    maxReadaheadBytes: 1,
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
  }),
};
