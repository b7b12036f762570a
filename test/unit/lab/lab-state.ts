/** A lab of one node as lab.json describes it, for tests that start no lab. */
import { type LabState, WHOLE_NETWORK } from "../../../overlay/lab/state.ts";

type NodeState = LabState["nodes"][number];

export function labState(dir: string, change: Partial<LabState> = {}, node: Partial<NodeState> = {}): LabState {
  return {
    format: 1,
    id: "0a1b2c",
    dir,
    madeDir: false,
    lower: "ext4",
    engine: "builtin",
    sizeBytes: 1,
    givenImage: null,
    volumeUuid: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11",
    phase: "up",
    step: "up",
    up: null,
    workers: [],
    madeDevices: [],
    nodes: [{ nodeid: 1, power: "on", device: null, attaching: null, cut: false, network: WHOLE_NETWORK, dlmd: null, ...node }],
    ...change,
  };
}
