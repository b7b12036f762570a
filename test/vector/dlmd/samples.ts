/** One message of each kind, with every field different from its default. */
import { Mode } from "../../../dlmd/wire/mode.ts";
import { maxOffset, type PlockOwner } from "../../../dlmd/wire/plock-range.ts";
import type { PlockEdge, PlockMessage } from "../../../dlmd/wire/peer-plock.ts";
import type { Datagram } from "../../../dlmd/wire/datagram.ts";
import type { FencingMessage } from "../../../dlmd/wire/fencing-group.ts";
import type { MountGroupMessage } from "../../../dlmd/wire/mount-group.ts";
import type { LockspaceMessage } from "../../../dlmd/wire/lockspace-group.ts";
import type { Seen } from "../../../dlmd/wire/look.ts";
import type { CheckNews } from "../../../dlmd/wire/self-check.ts";
import type { GroupMessage } from "../../../dlmd/engine/corosync/message.ts";
import type { PeerMessage } from "../../../dlmd/wire/peer.ts";
import type { Member, ViewId } from "../../../dlmd/wire/view-id.ts";

export const view: ViewId = { epoch: 0x1_0000_0007, proposer: 0x1234, incarnation: "0123456789abcdef" };
const lineage: ViewId = { epoch: 6, proposer: 2, incarnation: "00000000000000ff" };
const sender = { from: 3, incarnation: "fedcba9876543210" };
const members: [Member, Member] = [
  { nodeid: 3, incarnation: "fedcba9876543210" },
  { nodeid: 65535, incarnation: "0000000000000001" },
];
const lasts = [{ nodeid: 3, incarnation: "fedcba9876543210", n: 12 }];
const quorum = {
  votes: 2,
  expected: 3,
  needed: 2,
  quorate: true,
  rule: "tie-won",
  configVersion: 4,
  electorate: { nodeids: [1, 3], former: [1, 2, 3] },
} as const;
const start = { previous: lineage, cut: 77, together: [{ nodeid: 3, synced: true }], lasts };
const started = { id: view, members, quorum, start };
const body = new Uint8Array([4, 5, 6]);
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
    stored: true,
    leaving: true,
    progress: 0xfffffffe,
    padding: 3,
    heard: [{ nodeid: 9, incarnation: "00000000000000aa", seq: 5, tcpUp: true }],
  },
  { kind: "propose", ...sender, view, members },
  {
    kind: "state",
    ...sender,
    view,
    configVersion: 4,
    agreed: true,
    lineage,
    seen: { id: { ...lineage, epoch: 7 }, members },
    counting: { id: { ...lineage, epoch: 8 }, electorate: { nodeids: [2], former: [2, 5] } },
    ackedAgo: [{ nodeid: 9, ms: 0x12_3456 }],
    order: { started, received: 70, held: new Uint8Array([5, 1]) },
  },
  { kind: "install", ...sender, view, members, waitMs: 0.5, quorum, start },
  { kind: "leave", ...sender, view, kept: true },
  { kind: "evict", ...sender, nodeid: 5, targetIncarnation: "00000000000000bb", lineage },
  { kind: "submit", ...sender, view, n: 5, received: 6, body },
  { kind: "ordered", ...sender, view, seq: 8, origin: 3, n: 5, stable: 7, body },
  { kind: "nack", ...sender, view, ranges: [{ from: 9, to: 11 }] },
  { kind: "ask", ...sender, view, range: { from: 3, to: 3 } },
  { kind: "order-status", ...sender, view, received: 9, highest: 10, stable: 8 },
  {
    kind: "flush",
    ...sender,
    view,
    last: started,
    cut: 12,
    sources: [{ nodeid: 3, from: 10, to: 12 }],
    counted: { configVersion: 4, open: true, electorate: { nodeids: [2, 5], former: [2] } },
  },
  { kind: "flushed", ...sender, view, together: true, synced: false, lasts, agrees: true },
];

const owner: PlockOwner = { nodeid: 0x1234, clientId: 0xfffffffe, kind: "ofd", owner: 0xfedcba9876543210n };
const range = { type: "write", start: 0x1_0000_0001n, end: maxOffset, pid: 4711 } as const;
const ask = {
  requestId: 0x1_0000_0005,
  lockspace: "volume",
  file: "i:1:2",
  clientId: 6,
  ownerKind: "flock",
  owner: 0xffffffffffffffffn,
  op: "unlock",
  wait: true,
  entangled: false,
  begun: true,
  heldMs: 0x1_0000_0006,
  first: true,
  ...range,
} as const;
const edge: PlockEdge = {
  masterNodeid: 3,
  request: { nodeid: 4, requestId: 5 },
  from: owner,
  to: { ...owner, kind: "posix" },
  soft: true,
  stamp: 9,
};

const plockMessages: readonly PlockMessage[] = [
  { kind: "plock-request", ...ask },
  { kind: "plock-cancel", requestId: 7 },
  { kind: "plock-recheck", requestId: 8 },
  { kind: "plock-answer", requestId: 9, status: "deadlock", conflict: { ...range, owner } },
  {
    kind: "plock-held",
    lockspace: "volume",
    file: "é",
    clientId: 6,
    ownerKind: "posix",
    owner: 1n,
    ranges: [
      { ...range, type: "read", heldMs: 0x1_0000_0009 },
      { ...range, type: "read", heldMs: null },
    ],
  },
  { kind: "plock-again", ...ask, op: "lock", waitedMs: 1000, canceled: true },
  { kind: "plock-probe", searchId: 3, owners: [owner], requests: [{ nodeid: 2, requestId: 3 }] },
  { kind: "plock-probe-reply", searchId: 3, waits: [{ masterNodeid: 9, request: { nodeid: 2, requestId: 3 } }], edges: [edge] },
  { kind: "plock-cycle", searchId: 3, edges: [edge, { ...edge, soft: false }], at: 1, sentence: "overtake" },
  { kind: "plock-judged", searchId: 3 },
  { kind: "plock-verify", caseId: 12, edges: [edge] },
  { kind: "plock-sentence", caseId: 12, request: { nodeid: 2, requestId: 3 }, sentence: "overtake" },
  { kind: "plock-verdict", caseId: 12, yes: true },
];

export const peerMessages: readonly PeerMessage[] = [
  { kind: "mark" },
  { kind: "resume", received: 0x2_0000_0001 },
  { kind: "continue", first: 0x2_0000_0002 },
  { kind: "ack", received: 0x2_0000_0003 },
  ...plockMessages,
  {
    kind: "done",
    phase: 2,
    base: view,
    fresh: true,
    unfenced: [
      { ...members[0], failingView: lineage, lockspaces: ["volume", "ä"] },
      { ...members[1], failingView: lineage, lockspaces: null },
    ],
    fenced: [],
  },
  { kind: "fenced", victim: { ...members[1], failingView: view } },
  { kind: "client-gone", clientId: 0xfffffffe, lockspaces: ["volume", "ä"] },
  { kind: "client-gone-ack", clientId: 17 },
  { kind: "lockspaces-known", no: 0x1_0000_0002 },
  {
    kind: "gone-waits",
    all: false,
    lockspaces: ["volume", "other"],
    clients: [{ clientId: 3, pid: 4711, program: "/usr/bin/coverlay", waitedMs: 2500, ending: true, lockspaces: ["volume"] }],
  },
  { kind: "request", lkbId: 5, clientId: 6, lockspace: "volume", resource: "i:1:2", mode: Mode.PR, flags: 5, transaction: 0x80000001 },
  { kind: "convert", lkbId: 5, mode: Mode.EX, flags: 4, transaction: 9 },
  { kind: "down", lkbId: 5, grantNo: 9, mode: Mode.CR, lvbWrite: "write", lvbSeq: 3, lvb },
  { kind: "unlock", lkbId: 5, lvbWrite: "invalidate", lvbSeq: 4, lvb: null },
  { kind: "cancel", lkbId: 5 },
  { kind: "adopted", lkbId: 5, clientId: 6 },
  { kind: "grant", lkbId: 5, grantNo: 10, mode: Mode.PW, sbFlags: 4, lvbSeq: 3, lvbRead: true, lvbValid: false, lvb },
  { kind: "refuse", lkbId: 5, grantNo: 8, status: "deadlock", sbFlags: 1 },
  { kind: "purge", purgeId: 3, lockspace: "volume", pid: 4711, uid: 1000 },
  { kind: "purged", purgeId: 3, locks: 12 },
  { kind: "inspect", askId: 5, lockspace: "volume", resource: "i:7", nodeid: 2, waitingMs: 1500, limit: 4000 },
  { kind: "inspected", askId: 5, json: new TextEncoder().encode("{}") },
  { kind: "ask-life", askId: 6, pid: 4711, startTime: 0x1_0000_0009, device: "/dev/sdb1" },
  { kind: "life-seen", askId: 6, bootId: "c0ffee", machineId: "decaf", process: "gone", device: "busy" },
  {
    kind: "probe",
    initiator: { nodeid: 3, lkbId: 9 },
    round: 4,
    step: "hold",
    confirming: true,
    index: 1,
    target: { nodeid: 4, lkbId: 10 },
    path: [
      {
        masterNodeid: 2,
        waiter: { nodeid: 3, lkbId: 9, no: 11 },
        blocker: { nodeid: 4, lkbId: 12, no: 13 },
        queued: true,
        via: 14,
        clientId: 5,
        transaction: 77,
      },
    ],
  },
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
    transaction: 77,
    waitedMs: 1000,
    lvbSeq: 8,
    lvbRead: true,
    lvbValid: true,
    lvb: new Uint8Array(0),
  },
  { kind: "offer", lockspace: "volume", resource: "i:1:2", lvbSeq: 9, lvbValid: true, lvb, writer: members[0] },
];

/** Ordered, in the group of the daemons. */
export const lockspaceMessages: readonly LockspaceMessage[] = [
  { kind: "lockspace-opened", no: 0x1_0000_0003, lockspace: "volume" },
  { kind: "lockspace-closed", lockspace: "ä" },
  { kind: "lockspace-list", no: 4, lockspaces: ["volume", "ä"] },
];

const fencedLife = { incarnation: "0123456789abcdef", bootId: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11" };
const atMs = 0x1_0000_0005;
/** Ordered, in the group of the daemons. */
export const fencingMessages: readonly FencingMessage[] = [
  {
    kind: "fence-table",
    bootId: "b",
    atMs,
    wants: [
      {
        nodeid: 3,
        lives: [fencedLife, { ...fencedLife, bootId: "" }],
        why: "owner of volume dätä",
        by: "node1",
        sinceMs: 7,
        evict: true,
        tried: [1, 2],
        rounds: 2,
        failure: "ipmi3: no answer",
      },
    ],
    runs: [{ nodeid: 3, lives: [fencedLife] }],
    proofs: [{ nodeid: 2, ...fencedLife, by: "ipmi2", atMs }],
    history: [{ nodeid: 2, ...fencedLife, outcome: "rebooted", by: "ipmi2", words: "é", atMs }],
  },
  { kind: "fence-wanted", nodeid: 3, ...fencedLife, why: "owner", by: "node1", atMs, evict: false },
  { kind: "fence-begun", nodeid: 3, view },
  { kind: "fence-step", nodeid: 3, words: "runs fence_ipmilan ipmi3, try 2" },
  { kind: "fence-ended", nodeid: 3, outcome: "unable", by: "ipmi3", words: "is not there", atMs },
  { kind: "fence-acked", nodeid: 3, by: "root", atMs },
];

const mounter = { ...members[0], clientId: 7 };

/** Ordered, in the group of a volume's mounters. */
export const mountGroupMessages: readonly MountGroupMessage[] = [
  {
    kind: "state",
    state: {
      position: 0x1_0000_0009,
      epoch: 4,
      round: 3,
      step: "claiming",
      ownerDied: true,
      allDirty: false,
      hadOwner: true,
      members: [
        {
          ...mounter,
          jid: 1,
          joinedAt: 2,
          heardUpTo: 8,
          synced: true,
          phase: "mounted",
          ownership: "claimed",
          claimedAt: 9,
          mustStop: false,
          mustReopen: true,
        },
        {
          ...mounter,
          clientId: 8,
          jid: null,
          joinedAt: 9,
          heardUpTo: 0,
          synced: false,
          phase: "joining",
          ownership: "none",
          claimedAt: 0,
          mustStop: true,
          mustReopen: false,
        },
      ],
      dirty: [{ ...mounter, clientId: 3, jid: 1023, wasOwner: true }],
    },
  },
  { kind: "heard", upTo: 0x1_0000_0008 },
  { kind: "mounted" },
  { kind: "stopped", round: 3 },
  { kind: "claimed" },
  { kind: "serving", epoch: 5 },
  { kind: "released" },
  { kind: "recovered", round: 3, jid: 1 },
  { kind: "recovered", round: 4, jid: null },
  { kind: "bye" },
  { kind: "reopened", jid: 2 },
];

const tag = { ring: { nodeid: 0x1_0002, seq: 0x1_0000_0005 }, seats: [{ nodeid: 3, pid: 70_000 }], count: 6 };
export const groupMessages: readonly GroupMessage[] = [
  {
    kind: "state",
    tag,
    incarnation: "fedcba9876543210",
    epoch: 0x1_0000_0009,
    lived: view,
    seen: { id: lineage, members, electorate: null },
    packets: 0x1_0000_000a,
    digest: 0xfffffff1,
    synced: true,
    quorate: true,
    configVersion: 4,
    votes: 3,
    expected: 515,
    cutOff: [5, 65535],
    ackedAgo: [{ nodeid: 9, ms: 1500.25 }],
  },
  { kind: "ready", view },
  { kind: "again", tag, without: [{ nodeid: 4, pid: 5 }], why: "ä" },
  { kind: "packet", view, n: 0x1_0000_000b, body },
  { kind: "leave", incarnation: "0123456789abcdef" },
];

export const checkNews: readonly CheckNews[] = [
  { kind: "going" },
  { kind: "printed", text: '{"node":"node2","findings":[]}\n' },
  { kind: "failed", words: "busy: ä" },
];

export const seen: Seen = {
  nodeid: 2,
  incarnation: "fedcba9876543210",
  cluster: "lab",
  configVersion: 7,
  configHash: new Uint8Array([9, 8, 7]),
  quorate: true,
  wallMs: 1_700_000_000_123,
  nodes: [
    { nodeid: 1, heardAgoMs: 250, multicastAgoMs: null, tcpUp: true, isMember: true, refused: "" },
    { nodeid: 65535, heardAgoMs: null, multicastAgoMs: 7, tcpUp: false, isMember: false, refused: "wrong key" },
  ],
};
