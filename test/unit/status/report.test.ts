/** From the answers of dlmd and of mounts to a level, problems with what to do, volumes and waits. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import type { ClusterFacts, MountFacts, NodeFacts } from "../../../overlay/status/facts.ts";
import { type ProblemCode, problemCodes, problemLevels, shortTime } from "../../../overlay/status/problem.ts";
import { reportOf } from "../../../overlay/status/report.ts";
import { aWait, nodeWith, UUID, wellCluster, wellMount, wellNode } from "./node.ts";

const view = wellCluster.view;
const away = (state: string, heardAgoMs: number | null = 12_300): ClusterFacts["nodes"] =>
  wellCluster.nodes.map((node) => (node.nodeid === 3 ? { ...node, state, heardAgoMs } : node));
const two = { ...view, members: [1, 2], incarnations: ["aa", "bb"] };

it("all is well", () => {
  const report = reportOf(wellNode);
  expect(report).toMatchObject({ level: "well", problems: [], waits: [], waitsTruncated: false, atMs: 1_000_000, tookMs: 7, error: null });
  expect(report.nodes).toEqual([
    { node: "node1", nodeid: 1, state: "this", member: true, silentMs: null, multicastSilentMs: null },
    { node: "node2", nodeid: 2, state: "member", member: true, silentMs: 50, multicastSilentMs: 40 },
    { node: "node3", nodeid: 3, state: "member", member: true, silentMs: 60, multicastSilentMs: 45 },
  ]);
  expect(report.volumes).toMatchObject([
    { volume: "data", uuid: UUID, owner: "node2", mounts: [{ mountpoint: "/shared", role: "remote", well: true, answers: true }] },
    { volume: "home", owner: "node3", mounts: [] },
  ]);
});

it("the keys are those that the README promises, and each code has a row there", () => {
  const readme = readFileSync(path.resolve(import.meta.dirname, "../../../overlay/status/README.md"), "utf8");
  const keys = Object.keys(reportOf(wellNode)).toSorted();
  expect(keys).toEqual("atMs calls error level nodes problems tookMs unasked volumes waits waitsTruncated".split(" "));
  expect(keys.filter((key) => !readme.includes(`\`${key}\``))).toEqual([]);
  const rows = [...readme.matchAll(/^\| `([a-z-]+)` \| (\w+) \| /gm)].map(([, code, level]) => [code, level]);
  expect(Object.fromEntries(rows)).toEqual(problemLevels);
});

/** What is made worse; the code that is found, and words of what was found and of what to do. */
const rows: readonly [ProblemCode, Partial<ClusterFacts>, Partial<MountFacts>, RegExp, RegExp][] = [
  [
    "no-quorum",
    { view: { ...two, quorate: false, quorumReason: "1 of 3 votes" } },
    {},
    /1 of 3 votes/,
    /start node3, or mend the network to them/,
  ],
  ["locks-wait", { view: { ...view, running: false }, state: "node2 lets go" }, {}, /not granted: node2 lets go/, /by itself/],
  ["locks-wait", { view: { ...view, running: false } }, {}, /not granted: a recovery is under way/, /by itself/],
  ["locks-wait", { state: "lockspaces b wait" }, {}, /some lockspaces are not granted: lockspaces b wait/, /fence show/],
  [
    "unfenced",
    { unfenced: [{ nodeid: 3, lockspaces: [`vol-${UUID}`, "x"] }] },
    {},
    /node3 .* in volume data, x/,
    /no fence device; .*fence ack node3 --yes/,
  ],
  [
    "unfenced",
    { unfenced: [{ nodeid: 3, lockspaces: ["x"] }], devices: [3], fencing: [{ nodeid: 3, step: "agent runs", rounds: 0, failure: "" }] },
    {},
    /node3/,
    /^agent runs; /,
  ],
  [
    "fence-failed",
    { fencing: [{ nodeid: 3, step: "pause", rounds: 2, failure: "no route" }] },
    {},
    /failed 2 times, the last: no route/,
    /fence history/,
  ],
  [
    "fence-failed",
    { unfencing: [{ device: "array", rounds: 1, failure: "no such disk" }] },
    {},
    /unfencing node1 at array has failed once: .* the last: no such disk/,
    /it is tried again/,
  ],
  ["node-away", { view: two, nodes: away("silent") }, {}, /node3 is away: last heard 12 s ago/, /start dlmd on node3/],
  ["node-away", { view: two, nodes: away("silent", null) }, {}, /never heard/, /start dlmd on node3/],
  ["node-away", { view: two, nodes: away("evicted") }, {}, /put out of the view/, /joins by itself/],
  ["node-away", { view: two, nodes: away("other-config") }, {}, /another configuration/, /config show here and on node3/],
  [
    "node-refused",
    { nodes: away("silent").map((one) => ({ ...one, refused: one.nodeid === 3 ? "another key" : null })) },
    {},
    /another key/,
    /doctor/,
  ],
  [
    "multicast-gone",
    { multicast: { group: "239.1.1.1", nodes: [{ nodeid: 2, agoMs: 10_000 }] } },
    {},
    /none has arrived for 10 s/,
    /239\.1\.1\.1/,
  ],
  ["multicast-gone", { multicast: { group: "239.1.1.1", nodes: [{ nodeid: 2, agoMs: null }] } }, {}, /none has arrived;/, /group: none/],
  ["channel-down", { channels: [{ nodeid: 2, downMs: 2000 }] }, {}, /to node2, a member, has been down for 2\.0 s/, /doctor/],
  ["mount-gone", {}, { role: "gone", problem: "gone" }, /process 4711 of \/shared is gone/, /umount \/shared, and mount it again/],
  ["mount-silent", {}, { problem: "no answer within 4000 ms" }, /no answer within 4000 ms/, /umount -l/],
  ["lease-lapsed", {}, { lease: "lapsed", role: "waiting" }, /lease/, /start it, or mend the network/],
  ["no-owner", {}, { role: "waiting", why: "node2 is gone" }, /calls wait: node2 is gone/, /fence show/],
  ["no-owner", {}, { ownerChanges: { count: 1, last: null, withoutMs: 3000 } }, /no owner for 3\.0 s/, /fence show/],
  ["owner-silent", {}, { ownerWait: "no connection to the owner" }, /no connection/, /coverlay status on node2.*fence node2 --yes/],
  [
    "disk-silent",
    {},
    { role: "owner", ownerWait: "the disk has not answered: 1 call waits", diskFault: "silent" },
    /1 call waits/,
    /handover/,
  ],
  ["disk-silent", {}, { role: "owner", diskFault: "silent", disk: "/dev/sdb1 has not answered for 7 s" }, /for 7 s/, /handover/],
  ["mount-paused", {}, { role: "paused", why: "dlmd is being restarted" }, /dlmd is being restarted/, /by itself/],
  ["mount-blocked", {}, { groupWait: "blocked until there is an owner" }, /blocked until/, /by itself/],
  ["mount-blocked", {}, { groupWait: "blocked by an operator", operatorBlocks: true }, /operator/, /echo 0/],
  ["disk-withdrawn", {}, { diskFault: "withdrawn", disk: "EIO" }, /\/shared: EIO/, /dmesg/],
  ["disk-read-only", {}, { diskFault: "read-only", disk: "turned read-only" }, /turned read-only/, /fsck/],
  ["disk-unread", {}, { diskFault: "unread", disk: "block 7" }, /block 7/, /dmesg/],
  ["changes-unseen", {}, { unwatched: "a part of /x is not watched" }, /\/shared: a part of \/x/, /through the mount alone/],
  ["mounted-plainly", {}, { role: "owner", plainlyAt: ["/mnt", "/srv"] }, /sdb1 is mounted plainly at \/mnt, \/srv/, /^umount \/mnt,/],
  [
    "call-wait",
    {},
    { calls: { count: 3, longest: { op: "WRITE", pid: 12, program: "cp", waitingMs: 10_000 } } },
    /a WRITE of cp \(process 12\) has waited for 10 s; 3 calls/,
    /^coverlay why 12$/,
  ],
  ["calls-unknown", {}, { calls: null, callsProblem: "no answer within 4000 ms" }, /may hang: no answer within 4000 ms/, /^its log says/],
];

describe("a problem", () => {
  it.each(rows)("%s %#", (code, cluster, mount, found, action) => {
    const report = reportOf(nodeWith(cluster, mount));
    const one = report.problems.find((problem) => problem.code === code);
    expect(one?.found).toMatch(found);
    expect(one?.action).toMatch(action);
    expect([one?.level, report.problems.filter((problem) => problem.code === code).length]).toEqual([problemLevels[code], 1]);
    const isOfMount = Object.keys(mount).length > 0;
    expect(one).toMatchObject(isOfMount ? { volume: "data", mountpoint: "/shared" } : { volume: null, mountpoint: null });
    expect(report.volumes[0]?.mounts[0]?.well).toBe(!isOfMount);
  });

  it("of dlmd, and of locks that are waited for", () => {
    const error = { error: "dlmd expected", code: "dlmd-not-running", hint: "Start dlmd" };
    const silent = reportOf({ ...wellNode, cluster: null, error, mounts: [{ ...wellMount, lease: "lapsed" }] });
    expect(silent.level).toBe("unknown");
    expect(silent.problems).toMatchObject([
      { code: "dlmd-silent", found: "dlmd expected", action: "Start dlmd" },
      { code: "lease-lapsed", volume: "data" },
    ]);
    const waiting = reportOf({ ...wellNode, waits: [{ ...aWait, waitingMs: 20_000 }, aWait] });
    expect(waiting).toMatchObject({
      level: "degraded",
      problems: [{ code: "lock-wait", volume: "data", action: `coverlay why vol-${UUID} i12.0` }],
    });
    expect(waiting.problems[0]?.found).toBe(
      "main.js (process 4711) on node1 has waited 20 s for inode lock of inode 12 of volume data, which main.js (process 99) on node2 has; 2 such waits",
    );
  });

  it("of a mount that is waited for in the background", () => {
    const waiters = [{ mountPoint: "/home", source: "/dev/sdc1", pid: 77, logFile: "/run/coverlay/mount-home.log" }];
    expect(reportOf({ ...wellNode, waiters })).toMatchObject({
      level: "degraded",
      problems: [
        {
          code: "mount-waits",
          mountpoint: "/home",
          found: "/home is not mounted: process 77 waits in the background to mount /dev/sdc1",
          action: "/run/coverlay/mount-home.log says for what it waits; to end it: coverlay umount /home",
        },
      ],
    });
  });

  it("of waits that are not known: one of a mount may be among them", () => {
    const unasked = [{ node: "node3", reason: "it did not answer within 2 s" }];
    expect(reportOf({ ...wellNode, unasked })).toMatchObject({
      level: "degraded",
      problems: [{ code: "waits-unknown", node: "node3", found: expect.stringContaining("did not answer within 2 s") as string }],
    });
    expect(reportOf({ ...wellNode, waitsTruncated: true })).toMatchObject({
      level: "degraded",
      problems: [{ code: "waits-unknown", node: null, action: expect.stringContaining("coverlay locks --waiting") as string }],
    });
  });

  it("is tried here for each code", () => {
    const elsewhere = ["dlmd-silent", "lock-wait", "mount-waits", "waits-unknown"];
    const tried = new Set<string>([...rows.map(([code]) => code), ...elsewhere]);
    expect(problemCodes.filter((code) => !tried.has(code))).toEqual([]);
  });
});

it.each<[string, NodeFacts]>([
  ["a node that has left in good order", nodeWith({ view: two, nodes: away("left") })],
  ["no multicast in the whole cluster", nodeWith({ multicast: null })],
  ["multicast that came 9.9 s ago", nodeWith({ multicast: { group: "g", nodes: [{ nodeid: 2, agoMs: 9_999 }] } })],
  [
    "multicast of a node that is not there",
    nodeWith({ view: two, nodes: away("left"), multicast: { group: "g", nodes: [{ nodeid: 3, agoMs: null }] } }),
  ],
  ["a connection that is made again", nodeWith({ channels: [{ nodeid: 2, downMs: 1_999 }] })],
  ["a mount that is read-only", nodeWith({}, { readOnly: true })],
  ["a call that has waited 9.9 s", nodeWith({}, { calls: { count: 1, longest: { op: "READ", pid: 1, program: "", waitingMs: 9_999 } } })],
  ["a lock that was waited for for 9.9 s", { ...wellNode, waits: [{ ...aWait, waitingMs: 9_999 }] }],
  ["a file lock that is waited for for an hour", { ...wellNode, waits: [{ ...aWait, kind: "file", waitingMs: 3_600_000 }] }],
  ["a program's own lock", { ...wellNode, waits: [{ ...aWait, kind: "other", waitingMs: 3_600_000 }] }],
])("%s is no problem", (_, facts) => expect(reportOf(facts)).toMatchObject({ level: "well", problems: [] }));

it("a call that waits for an owner, or a disk, is told by that alone", () => {
  const calls = { count: 1, longest: { op: "READ", pid: 1, program: "", waitingMs: 60_000 } };
  const codes = (mount: Partial<MountFacts>): string[] => reportOf(nodeWith({}, { ...mount, calls })).problems.map(({ code }) => code);
  expect(codes({ role: "waiting" })).toEqual(["no-owner"]);
  expect(codes({ role: "owner", diskFault: "silent" })).toEqual(["disk-silent"]);
  expect(codes({ diskFault: "withdrawn" })).toEqual(["disk-withdrawn", "call-wait"]);
});

it("the worst comes first, and gives the level", () => {
  const report = reportOf(nodeWith({ view: two, nodes: away("silent") }, { role: "waiting" }));
  expect([report.level, ...report.problems.map(({ code }) => code)]).toEqual(["down", "no-owner", "node-away"]);
});

it("several volumes, one mounted twice, one that is in no configuration, and who owns them", () => {
  const mounts = [
    { ...wellMount, role: "owner", ownerNodeid: 1 },
    { ...wellMount, mountpoint: "/second" },
    { ...wellMount, mountpoint: "/old", volume: "old", uuid: "c", role: "gone", problem: "gone", ownerNodeid: null },
  ];
  const { volumes } = reportOf({ ...wellNode, mounts });
  expect(volumes.map(({ volume, owner, mounts: here }) => [volume, owner, ...here.map(({ mountpoint }) => mountpoint)])).toEqual([
    ["data", "node1", "/shared", "/second"],
    ["home", "node3"],
    ["old", null, "/old"],
  ]);
  // A mount that did not answer has said no uuid.
  const silent = reportOf({ ...wellNode, mounts: [{ ...wellMount, uuid: null, problem: "silent" }] });
  expect(silent.volumes.map(({ volume, mounts: here }) => [volume, here.length])).toEqual([
    ["data", 1],
    ["home", 0],
  ]);
});

it("the last change of the owner, with the names of nodes", () => {
  const last = { fromNodeid: 3, toNodeid: 9, pauseMs: 1200, atMs: 999_000, reason: "owner node3 is gone" };
  const report = reportOf(nodeWith({}, { ownerChanges: { count: 2, last, withoutMs: null } }));
  expect(report.volumes[0]?.mounts[0]).toMatchObject({
    ownerChanges: 2,
    lastOwnerChange: { from: "node3", to: "9", pauseMs: 1200, atMs: 999_000, reason: "owner node3 is gone" },
  });
});

it("20 waits are shown, the longest first", () => {
  const waits = Array.from({ length: 21 }, (_, at) => ({ ...aWait, kind: "file" as const, waitingMs: at }));
  const report = reportOf({ ...wellNode, waits });
  expect([report.waits.length, report.waits[0]?.waitingMs, report.waitsTruncated]).toEqual([20, 20, true]);
  expect(reportOf({ ...wellNode, waits: waits.slice(1) })).toMatchObject({ waitsTruncated: false });
  // All are judged.
  expect(report.problems).toEqual([]);
  const many = [...waits.map((wait) => ({ ...wait, waitingMs: 3_600_000 })), aWait];
  expect(reportOf({ ...wellNode, waits: many }).problems).toMatchObject([{ code: "lock-wait" }]);
});

it.each([
  [-5, "0.0 s"],
  [9_940, "9.9 s"],
  [12_300, "12 s"],
  [119_000, "119 s"],
  [120_000, "2 min"],
  [7_200_000, "2 h"],
])("%i ms are %s", (ms, words) => expect(shortTime(ms)).toBe(words));
