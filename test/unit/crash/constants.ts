/** What does not change of a mount, for tests of its journal. */
import type { Constants } from "../../../overlay/crash/before.ts";
import { someState } from "../restart/some-state.ts";

export const crashConstants: Constants = {
  connection: 47,
  ownerEpoch: 3,
  isOwner: false,
  kept: false,
  process: { pid: 100, startTime: "200" },
  key: "a secret",
  hasOwned: false,
  negotiated: someState().negotiated,
};
