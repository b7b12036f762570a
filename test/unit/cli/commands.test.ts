import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { readKeyring } from "../../../dlmd/driver/cluster-files.ts";
import type { DlmdAnswer } from "../../../overlay/query/dlmd-query.ts";
import { decodeClusterLocks } from "../../../overlay/query/cluster-locks.ts";
import { byWaiting, describeLocks, waitingMsOf } from "../../../overlay/cli/locks.ts";
import { decodeNodes, describeNodes } from "../../../overlay/cli/nodes.ts";
import { coverlayCli, runCli } from "../../../overlay/cli/root.ts";
import { packageVersion } from "../../../overlay/cli/version.ts";
import { describeStatus } from "../../../overlay/cli/status.ts";
import { describeWhy } from "../../../overlay/cli/why-words.ts";

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

/** The commands that a help text lists, in full: "lab up". */
function listedCommands(help: string): string[] {
  const list = /^Commands:\n((?: .*\n)+)/m.exec(help)?.[1] ?? "";
  return [...list.matchAll(/^ {2}coverlay((?: [a-z-]+)+)/gm)].map(([, words]) => (words ?? "").trim());
}

describe("the command line", () => {
  it("has help with examples for every command, at every level", async () => {
    const seen: string[] = [];
    for (const open = [""]; open.length > 0; ) {
      const command = open.pop() ?? "";
      stdout = "";
      expect(await coverlay(...command.split(" ").filter((word) => word !== ""), "--help")).toBe(0);
      expect(stdout, `coverlay ${command} --help`).toMatch(/^Examples?:\n {2}\S/m);
      // yargs puts the program's name in its place in a usage and an example, but not in what describes one.
      expect(stdout, `coverlay ${command} --help`).not.toContain("$0");
      // yargs puts the program's name in its place in a usage and an example, but not in what describes one.
      expect(stdout, `coverlay ${command} --help`).not.toContain("$0");
      expect(stderr).toBe("");
      seen.push(command);
      open.push(...listedCommands(stdout).filter((found) => found !== command && found.startsWith(command)));
    }
    const topLevel = ["status", "nodes", "locks", "why", "keygen", "mount", "umount", "install-mount-helper"];
    const below = ["volume enable", "volume disable", "volume show", "config apply", "fence ack", "fence show", "fence history"];
    const lab = ["up", "exec", "status", "owner", "kill", "start", "stop", "cut", "uncut", "partition", "heal", "net", "down"];
    expect(seen).toEqual(expect.arrayContaining([...topLevel, ...below, ...lab.map((word) => `lab ${word}`)]));
  });

  it.each([
    "README.md",
    "overlay/README.md",
    "overlay/volume/README.md",
    "dlmd/OPERATING.md",
    "dlmd/recovery/README.md",
    "examples/cluster.yaml",
  ])("has every command that %s names", async (file) => {
    await coverlay("--help");
    const known = listedCommands(stdout);
    const text = readFileSync(path.resolve(import.meta.dirname, "../../..", file), "utf8");
    // In quotes, or indented to be pasted; the name of the program itself alone is no command.
    const named = [...text.matchAll(/(?:`|^ +)coverlay ([a-z-]+)/gm)].map(([, word]) => word ?? "");
    expect(named.length).toBeGreaterThan(0);
    expect(named.filter((word) => !known.includes(word) && word !== "serve")).toEqual([]);
  });

  it("says its version", async () => {
    expect(await coverlay("--version")).toBe(0);
    expect(stdout.trim()).toBe(packageVersion());
    expect(packageVersion()).toMatch(/^\d+\.\d+\.\d+$/);
  });

  it("loads no command for its version, and all for the help of all", async () => {
    const listed = async (...words: string[]): Promise<string[]> => listedCommands(await (await coverlayCli(words)).getHelp());
    expect(await listed("--version")).toEqual([]);
    expect(await listed("--help")).toContain("status");
  });

  it.each([
    [[], /a command is needed/],
    [["statu"], /Did you mean status/],
    [["lab"], /lab needs a command/],
    [["lab", "explode"], /Unknown|unknown|Did you mean/],
    [["status", "--frobnicate"], /Unknown argument: frobnicate/],
    [["lab", "up", "--lower", "ntfs"], /Invalid values[\s\S]*lower/],
    [["lab", "up", "--dir"], /^coverlay: Not enough arguments following: dir/],
    [["lab", "up", "--size", "huge"], /--size huge is no size/],
    [["lab", "exec", "node1"], /needs a command|needs root/],
    [["lab", "up", "--lower", "ext4", "--lower", "xfs"], /--lower is given more than once/],
    [["lab", "up", "--size", "1", "--size", "1"], /--size is given more than once/],
    [["lab", "kill", "node1", "--what", "node", "--what", "dlmd"], /--what is given more than once/],
    [["lab", "status", "--dir", "/none/a", "--dir", "/none/b"], /--dir is given more than once/],
    [["lab", "status", "--dir", ""], /--dir is empty/],
    [["lab", "status", "--dir="], /--dir is empty/],
    [["lab", "start", "node2,", "--dir", "/none"], /found an empty one in "node2,"/],
    [["lab", "cut", "", "--dir", "/none"], /found an empty one in ""/],
    [["status", "--run-dir="], /--run-dir is empty/],
    [["status", "--run-dir", "/none/a", "--run-dir", "/none/b"], /--run-dir is given more than once/],
    [["why", "one", "two", "--run-dir", "/none"], /dlmd/],
    [["config", "check", "/dev/zero"], /a configuration expected in \/dev\/zero, found: at most 1048576 bytes expected, found more/],
    [["status", "--run-dir", "/dev/null"], /the run directory of dlmd expected at \/dev\/null, found: no directory/],
  ])("%j ends with status 1 and one error", async (words, expected) => {
    expect(await coverlay(...words)).toBe(1);
    expect(stderr).toMatch(/^coverlay: /);
    expect(stderr).toMatch(expected);
    expect(stderr).not.toContain("    at ");
    expect(stdout).toBe("");
  });

  it.each([
    [["volume", "enable", "DIR", "--cluster", "demo"], "change the clustered bit"],
    [["volume", "disable", "DIR"], "change the clustered bit"],
    [["volume", "show", "DIR"], "read the clustered bit: others would not see one that is there"],
    [["mount", "/dev/sdb1", "DIR"], "mount"],
    [["umount", "DIR"], "unmount"],
    [["mount", "--no-mtab", "/dev/sdb1", "DIR"], "mount"],
    [["umount", "--no-mtab", "DIR"], "unmount"],
    [["umount", "-n", "DIR"], "unmount"],
  ])("%j is for root", async (words, what) => {
    vi.spyOn(process, "geteuid").mockReturnValue(1000);
    expect(await coverlay(...words.map((word) => (word === "DIR" ? dir : word)))).toBe(1);
    expect(stderr).toBe(`coverlay: only root may ${what}\n  Use sudo.\n`);
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

  it("promotes and prunes once: done twice, or one step too early, no old key comes back", async () => {
    const file = path.join(dir, "cluster.key");
    const ids = (): string[] => readKeyring(file).all.map(({ id }) => id);
    const refused = async (step: string, words: string): Promise<void> => {
      const before = readFileSync(file, "utf8");
      stderr = "";
      expect(await coverlay("keygen", step, file)).toBe(1);
      expect(stderr).toContain(words);
      expect(readFileSync(file, "utf8")).toBe(before);
    };
    expect(await coverlay("keygen", file)).toBe(0);
    await refused("--promote", "has one key only");
    for (let round = 0; round < 2; round += 1) {
      const [old] = ids();
      expect(await coverlay("keygen", "--add", file)).toBe(0);
      const [, added] = ids();
      await refused("--prune", `would remove the newest key of ${file}, ${added}`);
      expect(await coverlay("keygen", "--promote", file)).toBe(0);
      expect(ids()).toEqual([added, old]);
      await refused("--promote", `${added}, is spoken with already`);
      expect(await coverlay("keygen", "--prune", file)).toBe(0);
      expect(ids()).toEqual([added]);
    }
  });

  it("does not guess which of the keys that version 0.1.0 wrote is the newest", async () => {
    const file = path.join(dir, "cluster.key");
    writeFileSync(file, [1, 2].map((fill) => `${Buffer.alloc(32, fill).toString("base64")}\n`).join(""), { mode: 0o600 });
    expect(await coverlay("keygen", "--promote", file)).toBe(1);
    expect(stderr).toContain("does not say which of its keys");
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
    preferredOwners: [],
    overlayKeys: [{ id: "00000000", bytes: new Uint8Array(32) }],
  },
  view: {
    viewId: "4.2.x",
    quorate: true,
    members: [1, 2],
    incarnations: ["aa", "bb"],
    quorumReason: "2 of 3 votes, quorate because 2 >= 2",
    running: true,
  },
  answer: null,
};

describe("status and nodes", () => {
  it("say who is there, who is away, why there is quorum, and what is mounted", () => {
    const mount = { pid: 9, role: "remote", mountpoint: "/shared", volume: "v", device: "/dev/sdb1", ops: 5, locks: 2 };
    const silent = { ...mount, pid: 10, mountpoint: "/other", volume: "w", ops: undefined, problem: "it does not answer" };
    const text = describeStatus(answer, [mount, silent]);
    expect(text).toContain("node     node2 (nodeid 2)");
    expect(text).toContain("view     node1, node2; away: node3");
    expect(text).toContain("quorum   2 of 3 votes, quorate because 2 >= 2");
    expect(text.split("\n").slice(-4)).toEqual([
      "mount    /shared: volume v on /dev/sdb1, remote, process 9",
      "         5 operations, 2 locks",
      "mount    /other: volume w on /dev/sdb1, remote, process 10",
      "         it does not answer",
    ]);
    expect(describeStatus({ ...answer, view: { ...answer.view, running: false } }, [])).toMatch(/requests wait[\s\S]*mount {4}none/);
  });

  it("say which nodes are to be started where the quorum is not there, and what to do if they are gone for good", () => {
    const engine = { stopped: true, sequencerNodeid: 0, underWay: 0, window: 64, waiting: 0, full: false, kept: 0, groups: 0 };
    const alone = (counting: readonly number[] | null, quorate = false): string | undefined => {
      const quorumReason = "why";
      const status = { state: "no quorum", engine, channels: [], counting };
      const lines = describeStatus({ ...answer, view: { ...answer.view, members: [2], quorate, quorumReason }, answer: status }, []).split(
        "\n",
      );
      return lines[lines.indexOf("quorum   why") + 1];
    };
    expect(alone(null)).toBe("         start node1, node3, or mend the network to them; gone for good: coverlay config --help");
    expect(alone([2, 3])).toBe("         start node3; gone for good: coverlay quorum reset --help");
    expect(alone([2])).toMatch(/^locks /);
    expect(alone(null, true)).toMatch(/^locks /);
  });

  it("say that an owner keeps open files without a name, and for whom it waits before it drops others", () => {
    const mount = { pid: 9, role: "owner", mountpoint: "/shared", volume: "v", device: "/dev/sdb1" };
    const lineOf = (kept: number, ...waitsFor: number[]): string | undefined =>
      describeStatus(answer, [{ ...mount, orphans: { kept, waitsFor } }])
        .split("\n")
        .at(-1);
    expect(lineOf(2)).toBe("         2 open files without a name");
    expect(lineOf(1, 1, 3)).toBe(
      "         1 open file without a name; those that nobody has open go once node1, node3 said which they have",
    );
    expect(lineOf(0, 1)).toMatch(/^mount /);
    expect(describeStatus(answer, [{ ...mount, orphans: null }])).not.toContain("without a name");
  });

  it("say what recovery waits for, what the engine has under way, and how the channels to the others are", () => {
    const status = {
      state: "recovering: waiting for MARK of nodes 1",
      engine: { stopped: false, sequencerNodeid: 1, underWay: 3, window: 64, waiting: 9, full: true, kept: 2, groups: 1 },
      channels: [
        { nodeid: 1, downMs: 1250, unacked: 12, held: 4, paused: false },
        { nodeid: 3, downMs: null, unacked: 0, held: 0, paused: false },
      ],
    };
    const lines = describeStatus({ ...answer, view: { ...answer.view, running: false }, answer: status }, []).split("\n");
    expect(lines.slice(4, 8)).toEqual([
      "locks    requests wait (recovery, or no quorum): recovering: waiting for MARK of nodes 1",
      "engine   sequencer node1; 3 of 64 packets under way, 9 messages wait (full: senders wait); 2 packets not yet known to be everywhere; 1 groups",
      "channels node1 down for 1.3 s, 12 unacknowledged, 4 received wait for lock service",
      "         node3 up, 0 unacknowledged",
    ]);
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
    const refused = { ...node(3, "silent", null), refused: "wrong key: the peer speaks with cluster key 1b08123b, this node has 30116dc4" };
    expect(
      describeNodes(decodeNodes([refused]))
        .split("\n")
        .at(-1),
    ).toBe(`node3 is not connected: ${refused.refused}`);
    expect(() => decodeNodes({})).toThrow(/should be a list of nodes/);
  });
});

const said = (resources: readonly object[], change: object = {}): object => ({
  serving: true,
  state: "running",
  resources,
  files: [],
  clients: [],
  processes: [],
  lockspaces: [],
  truncated: false,
  ...change,
});
const lock = (nodeid: number, granted: string | null, requested: string | null, waitingMs: number | null, change = {}): object => ({
  nodeid,
  clientId: 5,
  lockId: null,
  granted,
  requested,
  waitingMs,
  orphan: false,
  asked: null,
  askedMs: null,
  mayKeep: false,
  ...change,
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
const nodeName = (nodeid: number): string => `node${nodeid}`;

describe("locks", () => {
  const one = resource("i:2", {
    grantQueue: [lock(1, "PR", null, null), lock(2, "PR", null, null)],
    convertQueue: [lock(2, "PR", "EX", 12)],
    waitQueue: [lock(3, null, "EX", 7)],
  });
  const two = resource("i:3", { masterNodeid: 2, waitQueue: [lock(3, null, "EX", 70)] });
  const locks = decodeClusterLocks({
    nodes: [
      { nodeid: 1, answer: said([one]) },
      { nodeid: 2, answer: said([two], { truncated: true }) },
    ],
  });

  it("are shown by resource: its master, who has it, who waits and for how long", () => {
    expect(describeLocks(locks, nodeName).split("\n")).toEqual([
      "v i:2  master node1",
      "  granted    node1/5 PR, node2/5 PR",
      "  converting node2/5 PR to EX for 12 ms",
      "  waiting    node3/5 EX for 7 ms",
      "v i:3  master node2",
      "  waiting    node3/5 EX for 70 ms",
      "(and more: only 2 resources and 0 files are shown)",
    ]);
    expect(describeLocks(decodeClusterLocks({ nodes: [{ nodeid: 1, answer: said([]) }] }), nodeName)).toBe("no locks");
  });

  it("are sorted by who waits longest", () => {
    expect(byWaiting(locks).resources.map(({ resource: name }) => name)).toEqual(["i:3", "i:2"]);
    expect([waitingMsOf(undefined), waitingMsOf(""), waitingMsOf("250")]).toEqual([null, 0, 250]);
    expect(() => waitingMsOf("soon")).toThrow(/--waiting soon: milliseconds expected/);
  });

  it("come from the master, or from the holders where it says nothing", () => {
    const own = resource("i:4", { masterNodeid: 3, grantQueue: [lock(1, "PR", null, null)] });
    const other = resource("i:4", { masterNodeid: 3, grantQueue: [lock(2, "PR", null, null)] });
    const nodes = [
      { nodeid: 1, answer: said([own]) },
      { nodeid: 2, answer: said([other]) },
    ];
    const alone = decodeClusterLocks({ nodes: [...nodes, { nodeid: 3, missing: "it left the view before it answered" }] });
    expect(alone.resources).toMatchObject([{ fromMaster: false, grantQueue: [{ nodeid: 1 }, { nodeid: 2 }] }]);
    expect(describeWhy(alone, nodeName)).toMatch(/which says nothing of it[\s\S]*node3 was not heard: it left the view/);
    const whole = decodeClusterLocks({ nodes: [...nodes, { nodeid: 3, answer: said([own]) }] });
    expect(whole.resources).toMatchObject([{ fromMaster: true, grantQueue: [{ nodeid: 1 }] }]);
  });

  it("of files are shown with them: ranges, processes, whom somebody waits for", () => {
    const owner = (nodeid: number, pid: number, change: object = {}): object => {
      const posix = { nodeid, clientId: 5, kind: "posix", owner: String(pid), pid, type: "write", start: "0", end: "9" };
      return { ...posix, ...change };
    };
    const held = [owner(1, 41, { heldMs: 8100 }), owner(1, 42, { type: "read", start: "20", end: null, heldMs: null })];
    const first = owner(2, 43, { waitingMs: 700, blocker: { nodeid: 1, clientId: 5, kind: "posix", owner: "41", behind: false } });
    const second = owner(3, 44, { waitingMs: 600, blocker: { nodeid: 2, clientId: 5, kind: "posix", owner: "43", behind: true } });
    const file = { lockspace: "v", file: "12:7", masterNodeid: 2, held, waiting: [first, second] };
    const flock = {
      lockspace: "v",
      file: "13:7",
      masterNodeid: 2,
      held: [owner(1, 41, { kind: "flock", heldMs: 90_000_000 })],
      waiting: [],
    };
    const shown = decodeClusterLocks({ nodes: [{ nodeid: 2, answer: said([], { files: [file, flock] }) }] });
    expect(describeLocks(shown, nodeName).split("\n")).toEqual([
      "v 12:7  file locks, master node2",
      "  held       node1/5 (pid 41) write on bytes 0 to 9 since 8.1 s, node1/5 (pid 42) read on bytes 20 to the end, since when is not known",
      "  waiting    node2/5 (pid 43) write on bytes 0 to 9 for 700 ms, node3/5 (pid 44) write on bytes 0 to 9 for 600 ms",
      "v 13:7  file locks, master node2",
      "  held       node1/5 (pid 41) LOCK_EX (flock) since 25 h",
    ]);
    expect(describeWhy(shown, nodeName).split("\n").slice(0, 5)).toEqual([
      "v 12:7  file locks, master node2",
      "  node1/client 5 (pid 41) has write on bytes 0 to 9 since 8.1 s",
      "  node1/client 5 (pid 42) has read on bytes 20 to the end, since when is not known",
      "  node2/client 5 (pid 43) waits for write on bytes 0 to 9 since 0.7 s, because node1/client 5 (pid 41) has what excludes it",
      "  node3/client 5 (pid 44) waits for write on bytes 0 to 9 since 0.6 s, because the request of node2/client 5 (pid 43) for write on bytes 0 to 9 is ahead of it in line, and node1/client 5 (pid 41) has what excludes it",
    ]);
    expect(byWaiting(shown).files.map(({ file: name }) => name)).toEqual(["12:7", "13:7"]);
  });

  it("of another shape are refused", () => {
    expect(() => decodeClusterLocks({ nodes: [{ nodeid: 1, answer: {} }] })).toThrow(/should be what each node says/);
  });
});

describe("why", () => {
  const why = (change: object, more: object = {}): string[] => {
    const clients = [{ clientId: 5, pid: 99, program: "/usr/bin/job" }];
    const nodes = [{ nodeid: 1, answer: said([resource("job", change)], { clients, ...more }) }];
    return describeWhy(decodeClusterLocks({ nodes }), nodeName).split("\n");
  };

  it("says who has it, who waits since when, and for whom", () => {
    const holder = lock(1, "PR", null, null, { asked: "EX", askedMs: 4190 });
    expect(why({ grantQueue: [holder], waitQueue: [lock(2, null, "EX", 4200), lock(3, null, "PR", 100)] })).toEqual([
      "v job  master node1",
      "  node1/client 5 (pid 99, job) has PR; a blocking AST (EX is wanted) was sent 4.2 s ago and is not answered",
      "  node2/client 5 waits for EX since 4.2 s, because node1/client 5 (pid 99, job) has PR; a blocking AST (EX is wanted) was sent 4.2 s ago and is not answered",
      "  node3/client 5 waits for PR since 0.1 s, because the request of node2/client 5 for EX is ahead of it in line",
    ]);
  });

  it("says who hangs, what is converted, what is an orphan, and why there is no lock service", () => {
    const lines = why(
      { grantQueue: [lock(1, "CR", null, null, { asked: "EX", askedMs: 61_000, orphan: true })], convertQueue: [lock(2, "PR", "EX", 9)] },
      { serving: false, state: "waiting for quorum" },
    );
    expect(lines[1]).toMatch(/orphan: its program is gone\) has CR.*longer than 60 s, so the program hangs/);
    expect(lines[2]).toMatch(/waits for EX \(it has PR\) since 0.0 s, because node1/);
    expect(lines[3]).toBe("lock service does not run on node1: waiting for quorum");
  });

  it("says that nobody has it", () => {
    expect(describeWhy(decodeClusterLocks({ nodes: [] }), nodeName)).toBe("nobody has it or waits for it");
  });
});
