import { describe, expect, it } from "vitest";
import { liveLines, pause, redraw, selfCommand, whatToTry } from "../../../overlay/lab/live.ts";
import type { NodeReport } from "../../../overlay/lab/observe.ts";
import { type LabState, WHOLE_NETWORK } from "../../../overlay/lab/state.ts";

function report(node: string, change: Partial<NodeReport>): NodeReport {
  return {
    node,
    nodeid: 1,
    mount: `/lab/${node}/mnt`,
    netns: "x",
    dlmdPid: 1,
    overlayPid: 2,
    runDir: "/lab/run",
    state: "up",
    role: "owner",
    address: "10.0.0.1",
    device: "/dev/loop0",
    cut: false,
    hung: false,
    stalled: [],
    network: WHOLE_NETWORK,
    ops: 100,
    locks: 7,
    view: null,
    ...change,
  };
}

describe("the live lines", () => {
  it("show state, role, operations with their rate, locks and what is done to the node", () => {
    const before = new Map([["node1", report("node1", { ops: 60 })]]);
    const now = [report("node1", {}), report("node2", { state: "off", role: null, ops: null, locks: null, cut: true })];
    expect(liveLines(now, before, 2).split("\n")).toEqual([
      "node1  up   owner  ops 100 (20/s)  locks 7  /lab/node1/mnt",
      "node2  off  -      ops -           locks -  /lab/node2/mnt  disk cut",
    ]);
  });

  it("show no rate when the overlay was started anew", () => {
    expect(liveLines([report("node1", { ops: 3 })], new Map([["node1", report("node1", {})]]), 1)).toContain("ops 3 ");
  });
});

describe("the pause between two looks", () => {
  it("ends at once when the interrupt came while the lab was looked at", async () => {
    expect(await pause(3_600_000, AbortSignal.abort())).toBeUndefined();
  });
});

describe("the redraw", () => {
  it("goes over the lines of the last time, none of which may wrap", () => {
    expect(redraw("abcdef\nab", 0, 5)).toBe("abcd\x1b[K\nab\x1b[K\n");
    expect(redraw("ab\ncd", 2, 80)).toBe("\x1b[2Aab\x1b[K\ncd\x1b[K\n");
  });
});

describe("what to try", () => {
  const lab = { dir: "/lab", id: "abcdef", nodes: [{ nodeid: 1 }, { nodeid: 2 }, { nodeid: 3 }] } as unknown as LabState;

  it("is three commands, which name the directory only if it is not the default", () => {
    const lines = whatToTry(lab, "coverlay", false).split("\n").slice(1, 4);
    expect(lines).toEqual([
      "  echo hello >/lab/node1/mnt/hello && cat /lab/node2/mnt/hello",
      "  coverlay lab exec node2 --dir /lab -- ls -l",
      "  coverlay lab kill node3 --dir /lab",
    ]);
    expect(whatToTry(lab, "coverlay", true)).not.toContain("--dir");
  });

  it("can be pasted where another directory is the current one, and whatever the names are", () => {
    expect(selfCommand(["node", "/usr/bin/coverlay"], "/bin:/usr/bin")).toBe("coverlay");
    expect(selfCommand(["node", "/src/node_modules/.bin/coverlay"], "/bin:/usr/bin")).toBe("node /src/node_modules/.bin/coverlay");
    expect(selfCommand(["node", "dist/overlay/main.js"], "/bin")).toBe(`node ${process.cwd()}/dist/overlay/main.js`);
    expect(selfCommand(["node", "/my src/main.js"], "/bin")).toBe("node '/my src/main.js'");
    const lines = whatToTry({ ...lab, dir: "/it's a lab" }, "coverlay", false).split("\n");
    expect(lines[1]).toBe("  echo hello >'/it'\\''s a lab/node1/mnt/hello' && cat '/it'\\''s a lab/node2/mnt/hello'");
    expect(lines[2]).toBe("  coverlay lab exec node2 --dir '/it'\\''s a lab' -- ls -l");
  });
});
