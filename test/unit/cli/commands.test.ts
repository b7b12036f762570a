import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { DlmdAnswer } from "../../../overlay/cli/dlmd-query.ts";
import { decodeLocks, describeLocks, onlyResource } from "../../../overlay/cli/locks.ts";
import { decodeNodes, describeNodes } from "../../../overlay/cli/nodes.ts";
import { packageVersion, runCli } from "../../../overlay/cli/root.ts";
import { describeStatus } from "../../../overlay/cli/status.ts";

let dir: string;
let stdout = "";
let stderr = "";

beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-cli-"));
  stdout = "";
  stderr = "";
  vi.spyOn(process.stdout, "write").mockImplementation((text) => ((stdout += String(text)), true));
  vi.spyOn(process.stderr, "write").mockImplementation((text) => ((stderr += String(text)), true));
  vi.spyOn(console, "log").mockImplementation((text) => void (stdout += `${String(text)}\n`));
  vi.spyOn(console, "error").mockImplementation((text) => void (stderr += `${String(text)}\n`));
});
afterEach(() => {
  vi.restoreAllMocks();
  process.exitCode = undefined;
  rmSync(dir, { recursive: true, force: true });
});

async function coverlay(...words: string[]): Promise<number> {
  await runCli(words);
  const status = Number(process.exitCode ?? 0);
  process.exitCode = undefined;
  return status;
}

const labCommands = ["up", "exec", "status", "owner", "kill", "start", "stop", "cut", "uncut", "partition", "heal", "net", "down"];
const commands = ["", "status", "nodes", "locks", "keygen", "lab", ...labCommands.map((word) => `lab ${word}`)];

describe("the command line", () => {
  it.each(commands)("coverlay %s has help with examples", async (command) => {
    expect(await coverlay(...command.split(" ").filter((word) => word !== ""), "--help")).toBe(0);
    expect(stdout).toMatch(/Examples?:/);
    expect(stderr).toBe("");
  });

  it("says its version", async () => {
    expect(await coverlay("--version")).toBe(0);
    expect(stdout.trim()).toBe(packageVersion());
    expect(packageVersion()).toMatch(/^\d+\.\d+\.\d+$/);
  });

  it.each([
    [[], /a command is needed/],
    [["statu"], /Did you mean status/],
    [["lab"], /lab needs a command/],
    [["lab", "explode"], /Unknown|unknown|Did you mean/],
    [["status", "--frobnicate"], /Unknown argument: frobnicate/],
    [["lab", "up", "--lower", "ntfs"], /Invalid values[\s\S]*lower/],
    [["lab", "up", "--size", "huge"], /--size huge is no size/],
    [["lab", "exec", "node1"], /needs a command|needs root/],
  ])("%j ends with status 1 and one error", async (words, expected) => {
    expect(await coverlay(...words)).toBe(1);
    expect(stderr).toMatch(/^coverlay: /);
    expect(stderr).toMatch(expected);
    expect(stderr).not.toContain("    at ");
    expect(stdout).toBe("");
  });

  it("tells errors as JSON when asked", async () => {
    expect(await coverlay("status", "--run-dir", dir, "--json")).toBe(1);
    expect(JSON.parse(stderr)).toMatchObject({ code: "dlmd-not-running", error: expect.stringContaining(dir) });
    stderr = "";
    expect(await coverlay("status", "--frobnicate", "--json")).toBe(1);
    expect(JSON.parse(stderr)).toMatchObject({ code: "usage" });
  });

  it("does not take a --json behind -- for its own", async () => {
    expect(await coverlay("frobnicate", "--", "--json")).toBe(1);
    expect(stderr).toMatch(/^coverlay: /);
  });
});

describe("keygen", () => {
  it("writes a key that only its owner may read, and never over another", async () => {
    const file = path.join(dir, "cluster.key");
    expect(await coverlay("keygen", file)).toBe(0);
    expect(Buffer.from(readFileSync(file, "utf8").trim(), "base64")).toHaveLength(32);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    const before = readFileSync(file, "utf8");
    expect(await coverlay("keygen", file)).toBe(1);
    expect(stderr).toContain("there already");
    expect(readFileSync(file, "utf8")).toBe(before);
  });
});

const answer: DlmdAnswer = {
  info: {
    clusterName: "demo",
    nodeid: 2,
    incarnation: "0123456789abcdef",
    clientId: 1,
    nodes: [1, 2, 3].map((nodeid) => ({ nodeid, name: `node${nodeid}`, address: `10.0.0.${nodeid}` })),
    volumes: [],
    overlaySecret: new Uint8Array(32),
  },
  view: { viewId: "4.2.x", quorate: true, members: [1, 2], quorumReason: "2 of 3 votes, quorate because 2 >= 2", running: true },
  answer: null,
};

describe("status and nodes", () => {
  it("say who is there, who is away, why there is quorum, and what is mounted", () => {
    const text = describeStatus(answer, {
      pid: 9,
      role: "remote",
      mountpoint: "/shared",
      volume: "v",
      device: "/dev/sdb1",
      ops: 5,
      locks: 2,
    });
    expect(text).toContain("node     node2 (nodeid 2)");
    expect(text).toContain("view     node1, node2; away: node3");
    expect(text).toContain("quorum   2 of 3 votes, quorate because 2 >= 2");
    expect(text).toContain("/shared: volume v on /dev/sdb1, remote, process 9");
    expect(describeStatus({ ...answer, view: { ...answer.view, running: false } }, null)).toMatch(/requests wait[\s\S]*mount {4}none/);
  });

  it("list every configured node, with what is known of it", () => {
    const node = (nodeid: number, state: string, heardAgoMs: number | null): object => ({
      nodeid,
      name: `node${nodeid}`,
      address: `10.0.0.${nodeid}`,
      votes: 1,
      state,
      heardAgoMs,
      tcpUp: true,
    });
    const nodes = decodeNodes([node(1, "member", 120.4), node(2, "this", 0), node(3, "silent", null)]);
    expect(describeNodes(nodes).split("\n")).toEqual([
      "NODEID  NAME   ADDRESS   VOTES  STATE   HEARD",
      "1       node1  10.0.0.1  1      member  120 ms ago",
      "2       node2  10.0.0.2  1      this    -",
      "3       node3  10.0.0.3  1      silent  never",
    ]);
    expect(() => decodeNodes({})).toThrow(/should be a list of nodes/);
  });
});

describe("locks", () => {
  const lock = (nodeid: number, granted: string | null, requested: string | null, waitingMs: number | null): object => ({
    nodeid,
    clientId: 5,
    lockId: null,
    granted,
    requested,
    waitingMs,
  });
  const resource = (name: string, change: object): object => ({
    lockspace: "v",
    resource: name,
    masterNodeid: 1,
    lvb: null,
    grantQueue: [],
    convertQueue: [],
    waitQueue: [],
    ...change,
  });
  const locks = decodeLocks({
    resources: [
      resource("i:2", {
        grantQueue: [lock(1, "PR", null, null), lock(2, "PR", null, null)],
        convertQueue: [lock(2, "PR", "EX", 12)],
        waitQueue: [lock(3, null, "EX", 7)],
      }),
      resource("i:3", { masterNodeid: 2 }),
    ],
    truncated: true,
  });

  it("are shown by resource: its master, who has it, who waits and for how long", () => {
    expect(describeLocks(locks, (nodeid) => `node${nodeid}`).split("\n")).toEqual([
      "v i:2  master node1",
      "  granted    node1/5 PR, node2/5 PR",
      "  converting node2/5 PR to EX for 12 ms",
      "  waiting    node3/5 EX for 7 ms",
      "v i:3  master node2",
      "(and more: only 2 resources are shown)",
    ]);
    expect(describeLocks({ resources: [], truncated: false }, String)).toBe("no locks");
  });

  it("are narrowed to one resource", () => {
    expect(onlyResource(locks, "i:3").resources.map(({ resource: name }) => name)).toEqual(["i:3"]);
  });

  it("of another shape are refused", () => {
    expect(() => decodeLocks({ resources: [{}] })).toThrow(/resources with their queues/);
  });
});
