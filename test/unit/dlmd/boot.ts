import type { EngineBoot } from "../../../dlmd/engine/boot.ts";

/** How node 1 of three begins, for tests of a node that hears nobody. */
export const boot: EngineBoot = {
  nodeid: 1,
  incarnation: "00000000000000aa",
  configVersion: 1,
  nodes: [1, 2, 3].map((nodeid) => ({ nodeid, name: `node${nodeid}`, address: "", votes: 1 })),
  timeoutMs: 1000,
  promisedEpoch: 9,
  seed: 1,
  nowMs: 0,
};
