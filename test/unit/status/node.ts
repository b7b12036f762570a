/** A node of three that is well, to be made worse by a test. */
import type { ClusterFacts, MountFacts, NodeFacts, Wait } from "../../../overlay/status/facts.ts";

export const UUID = "a57207ea-b2b9-41a4-b78b-ecce06826ea8";

export const wellCluster: ClusterFacts = {
  clusterName: "demo",
  nodeid: 1,
  view: {
    viewId: "1.1.aa",
    quorate: true,
    members: [1, 2, 3],
    incarnations: ["aa", "bb", "cc"],
    quorumReason: "3 of 3 votes, quorate because 3 >= 2",
    running: true,
  },
  state: "running",
  counting: null,
  nodes: [
    { nodeid: 1, name: "node1", state: "this", heardAgoMs: 0, refused: null },
    { nodeid: 2, name: "node2", state: "member", heardAgoMs: 50, refused: null },
    { nodeid: 3, name: "node3", state: "member", heardAgoMs: 60, refused: null },
  ],
  volumes: [
    { name: "data", uuid: UUID },
    { name: "home", uuid: "b0000000-0000-4000-8000-000000000000" },
  ],
  owners: new Map([
    [UUID, 2],
    ["b0000000-0000-4000-8000-000000000000", 3],
  ]),
  unfenced: [],
  fencing: [],
  unfencing: [],
  devices: [],
  multicast: {
    group: "239.192.77.1",
    nodes: [
      { nodeid: 2, agoMs: 40 },
      { nodeid: 3, agoMs: 45 },
    ],
  },
  channels: [
    { nodeid: 2, downMs: null },
    { nodeid: 3, downMs: null },
  ],
  views: [],
  fences: [],
};

export const wellMount: MountFacts = {
  mountpoint: "/shared",
  volume: "data",
  uuid: UUID,
  device: "/dev/sdb1",
  role: "remote",
  pid: 4711,
  problem: null,
  why: "through node2",
  ownerNodeid: 2,
  lease: "holds",
  readOnly: false,
  disk: null,
  diskFault: null,
  unwatched: null,
  plainlyAt: [],
  ownerWait: null,
  groupWait: null,
  operatorBlocks: false,
  ownerChanges: { count: 0, last: null, withoutMs: null },
  calls: { count: 0, longest: null },
  callsProblem: null,
  work: null,
  figures: {
    ops: 12,
    locks: 3,
    inodes: 4,
    handles: 5,
    memoryBytes: 6000,
    leaseLapses: 0,
    readsRefused: 0,
    interrupted: 1,
    bugs: 0,
    lockMessagesSent: 7,
    lockMessagesReceived: 8,
    revokes: 9,
    lowerRoundTrips: 10,
  },
};

export const wellNode: NodeFacts = {
  cluster: wellCluster,
  error: null,
  mounts: [wellMount],
  waiters: [],
  calls: [],
  waits: [],
  waitsTruncated: false,
  unasked: [],
  atMs: 1_000_000,
  tookMs: 7,
};

export const aWait: Wait = {
  kind: "inode",
  volume: "data",
  lockspace: `vol-${UUID}`,
  resource: "i12.0",
  what: "inode lock of inode 12",
  waiter: { node: "node1", pid: 4711, program: "main.js" },
  holders: [{ node: "node2", pid: 99, program: "main.js" }],
  ahead: null,
  waitingMs: 10_000,
};

export function nodeWith(cluster: Partial<ClusterFacts>, mount: Partial<MountFacts> = {}): NodeFacts {
  return { ...wellNode, cluster: { ...wellCluster, ...cluster }, mounts: [{ ...wellMount, ...mount }] };
}
