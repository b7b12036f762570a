/** One message of each kind, with every field different from its default. */
import { Mode } from "../../../dlmd/lock/mode.ts";
import type { Datagram } from "../../../dlmd/wire/datagram.ts";
import type { Hello, PeerMessage } from "../../../dlmd/wire/peer.ts";
import type { ViewId } from "../../../dlmd/wire/view-id.ts";

export const view: ViewId = { epoch: 0x1_0000_0007, proposer: 0x1234, incarnation: "0123456789abcdef" };
const lineage: ViewId = { epoch: 6, proposer: 2, incarnation: "00000000000000ff" };
const sender = { from: 3, incarnation: "fedcba9876543210" };
const members = [
  { nodeid: 3, incarnation: "fedcba9876543210" },
  { nodeid: 65535, incarnation: "0000000000000001" },
];
const lvb = new Uint8Array([1, 2, 3]);

export const datagrams: readonly Datagram[] = [
  {
    kind: "heartbeat",
    ...sender,
    seq: 77,
    view,
    promisedEpoch: 8,
    lineage,
    configVersion: 4,
    running: true,
    stopped: false,
    broken: true,
    progress: 0xfffffffe,
    heard: [{ nodeid: 9, incarnation: "00000000000000aa", seq: 5, tcpUp: true }],
  },
  { kind: "propose", ...sender, view, members },
  {
    kind: "state",
    ...sender,
    view,
    configVersion: 4,
    lineage,
    seen: { id: { ...lineage, epoch: 7 }, members },
    ackedAgo: [{ nodeid: 9, ms: 1500.25 }],
  },
  { kind: "install", ...sender, view, members, waitMs: 0.5 },
  { kind: "leave", ...sender, view },
  { kind: "evict", ...sender, nodeid: 5, targetIncarnation: "00000000000000bb", lineage },
];

export const peerMessages: readonly PeerMessage[] = [
  { kind: "mark", sent: 0x2_0000_0001 },
  { kind: "done", phase: 2 },
  { kind: "client-gone", clientId: 0xfffffffe },
  { kind: "client-gone-ack", clientId: 17 },
  { kind: "request", lkbId: 5, clientId: 6, lockspace: "volume", resource: "i:1:2", mode: Mode.PR, flags: 5 },
  { kind: "convert", lkbId: 5, mode: Mode.EX, flags: 4 },
  { kind: "down", lkbId: 5, grantNo: 9, mode: Mode.CR, lvbWrite: "write", lvbSeq: 3, lvb },
  { kind: "unlock", lkbId: 5, lvbWrite: "invalidate", lvbSeq: 4, lvb: null },
  { kind: "cancel", lkbId: 5 },
  { kind: "grant", lkbId: 5, grantNo: 10, mode: Mode.PW, lvbSeq: 3, lvbRead: true, lvbValid: false, lvb },
  { kind: "refuse", lkbId: 5, status: "deadlock" },
  { kind: "bast", lkbId: 5, grantNo: 10, wanted: Mode.CW },
  {
    kind: "rebuild",
    lkbId: 5,
    clientId: 6,
    lockspace: "volume",
    resource: "é",
    granted: null,
    requested: Mode.EX,
    flags: 1,
    grantNo: 2,
    waitedMs: 1000,
    lvbSeq: 8,
    lvbRead: true,
    lvbValid: true,
    lvb: new Uint8Array(0),
  },
  { kind: "offer", lockspace: "volume", resource: "i:1:2", lvbSeq: 9, lvbValid: true, lvb, writer: members[0] ?? null },
];

export const hello: Hello = {
  clusterName: "lab",
  nodeid: 3,
  incarnation: "fedcba9876543210",
  configVersion: 4,
  nonce: new Uint8Array(16).map((_, i) => i),
};
