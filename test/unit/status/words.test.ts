/** The report as people read it. */
import { expect, it } from "vitest";
import { reportOf } from "../../../overlay/status/report.ts";
import { describeLevel, describeReport } from "../../../overlay/status/words.ts";
import { aWait, nodeWith, wellNode } from "./node.ts";

it("a node that is well, in three lines", () => {
  const report = reportOf(wellNode);
  expect(describeReport(report)).toEqual([
    "status   well",
    "volume   data: owner node2; here at /shared",
    "         home: owner node3; not mounted here",
  ]);
  expect(describeLevel(report)).toBe("well: 3 of 3 nodes in the view, 1 mount here");
});

it("one that is not, with what to do", () => {
  const last = { fromNodeid: 3, toNodeid: 1, pauseMs: 1200, atMs: 700_000, reason: "owner node3 is gone" };
  const report = reportOf(
    nodeWith(
      { channels: [{ nodeid: 2, downMs: 4000 }], owners: new Map() },
      {
        role: "owner",
        ownerNodeid: 1,
        readOnly: true,
        calls: { count: 2, longest: null },
        groupWait: "x",
        ownerChanges: { count: 1, last, withoutMs: null },
      },
    ),
  );
  expect(describeReport(report)).toEqual([
    "status   down",
    "         down: /shared: x",
    "         do: it goes on by itself when that is done; coverlay status there",
    "         degraded: the connection to node2, a member, has been down for 4.0 s",
    "         do: coverlay doctor: the TCP port between here and node2",
    "volume   data: owner node1; here at /shared, as the owner, read-only, 2 calls under way, last change of owner 5 min ago from node3 to node1 in 1.2 s (owner node3 is gone)",
    "         home: no owner is known; not mounted here",
  ]);
  expect(describeLevel(report)).toBe("down: mount-blocked: /shared: x; 1 more");
});

it("who waits for whom: five, and how many more", () => {
  const waits = Array.from({ length: 7 }, (_, at) => ({ ...aWait, kind: "file" as const, waitingMs: 5000 + at * 100 }));
  const lines = describeReport(reportOf({ ...wellNode, waits }));
  expect(lines.slice(3)).toEqual([
    "waits    main.js (process 4711) on node1 has waited 5.6 s for inode lock of inode 12 of volume data, which main.js (process 99) on node2 has",
    ...Array.from({ length: 4 }, () => expect.stringMatching(/^ {9}main\.js .* has waited 5\.\d s/)),
    "         and 2 more: coverlay locks --waiting",
  ]);
});

it("a name with a line end in it makes no line of its own", () => {
  const report = reportOf(nodeWith({}, { mountpoint: "/mnt\nstatus   well", role: "waiting" }));
  expect(describeReport(report).filter((line) => line.includes("\n"))).toEqual([]);
  expect(describeReport(report).join("\n")).toContain("/mnt\\x0astatus   well");
  expect(describeLevel(report)).not.toContain("\n");
});

it("long work that goes on by itself says how far it is", () => {
  const work = { kind: "growth", words: "growing the file system: 1.2 TiB of 4 TiB", tookMs: 31_000 };
  const report = reportOf(nodeWith({}, { role: "owner", ownerNodeid: 1, work }));
  expect(report.level).toBe("well");
  expect(describeReport(report)[1]).toBe(
    "volume   data: owner node1; here at /shared, as the owner, growing the file system: 1.2 TiB of 4 TiB (for 31 s)",
  );
  expect(report.volumes[0]?.mounts[0]?.work).toEqual(work);
});
