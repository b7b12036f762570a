/** What a person sees of a file lock that somebody waits for, from both nodes; and of a lookup that does not come back. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { until } from "../actor.ts";
import { coverlay, startLab, type TestLab } from "../lab.ts";

const LOCKER = `
import fcntl, sys
file = open(sys.argv[1], "r+b")
print("open", flush=True)
sys.stdin.readline()
fcntl.lockf(file, fcntl.LOCK_EX, 10, 5, 0)
print("locked", flush=True)
sys.stdin.readline()
`;

const CHAIN_LOCKER = `
import fcntl, sys
held, wanted = [open(name, "r+b") for name in sys.argv[1:]]
fcntl.lockf(held, fcntl.LOCK_EX, 10)
print("locked", flush=True)
sys.stdin.readline()
fcntl.lockf(wanted, fcntl.LOCK_EX, 10)
print("got", flush=True)
sys.stdin.readline()
`;

const FLOCK_LOCKER = `
import fcntl, sys
held, wanted = [open(name, "r+b") for name in sys.argv[1:]]
fcntl.flock(held, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.readline()
fcntl.flock(wanted, fcntl.LOCK_EX)
`;

describe("a file lock that another node waits for", () => {
  let lab: TestLab;
  const lockers: ChildProcess[] = [];
  beforeAll(async () => {
    lab = await startLab({ nodes: 3 });
  });
  afterAll(async () => {
    for (const locker of lockers) locker.kill("SIGKILL");
    await lab?.end();
  });

  const at = (nodeid: number, name: string): string => path.join(lab.node(nodeid).mount, name);

  async function startLocker(nodeid: number): Promise<ChildProcess> {
    const locker = spawn("python3", ["-c", LOCKER, at(nodeid, "file")], { stdio: ["pipe", "pipe", "inherit"] });
    lockers.push(locker);
    await once(locker.stdout as NodeJS.ReadableStream, "data");
    return locker;
  }

  async function said(nodeid: number, ...words: string[]): Promise<string> {
    const { status, stdout, stderr } = await coverlay([...words, "--run-dir", lab.node(nodeid).runDir]);
    expect(`${status} ${stderr}`).toBe("0 ");
    return stdout;
  }

  /** Until the waiter stands in the queue. */
  async function waits(pid: number): Promise<void> {
    for (;;) {
      const { files } = JSON.parse(await said(1, "locks", "--files", "--json")) as { files: { waiting: { pid: number }[] }[] };
      if (files.some(({ waiting }) => waiting.some((row) => row.pid === pid))) return;
    }
  }

  it("is explained by path, by process and in the list, on the holder's node and on the waiter's", async () => {
    writeFileSync(at(1, "file"), "x".repeat(100));
    const [holder, waiter] = [await startLocker(1), await startLocker(2)];
    const locked = once(holder.stdout as NodeJS.ReadableStream, "data");
    const asked = performance.now();
    holder.stdin?.write("\n");
    await locked;
    const granted = performance.now();
    // Any command: it takes longer than the locks take to come to the service.
    await said(1, "status");
    // Nobody else uses the file yet. Its node tells the service how old the lock is.
    let from = 0;
    let row: { pid: number; heldMs: number } | undefined;
    await until("the lock is shown", async () => {
      from = performance.now();
      const { files } = JSON.parse(await said(2, "locks", "--files", "--json")) as { files: { held: { pid: number; heldMs: number }[] }[] };
      [row] = files.flatMap(({ held }) => held);
      return row !== undefined;
    });
    expect(row).toMatchObject({ pid: holder.pid, program: "python3", type: "write", start: "5", end: "14" });
    expect(row?.heldMs).toBeGreaterThanOrEqual(Math.floor(from - granted));
    expect(row?.heldMs).toBeLessThanOrEqual(Math.ceil(performance.now() - asked));
    waiter.stdin?.write("\n");
    await waits(waiter.pid ?? 0);

    const has = `node1/client \\d+ \\(pid ${holder.pid}, python3\\) has write on bytes 5 to 14 since [0-9.]+ (?:s|min)`;
    const wants = `node2/client \\d+ \\(pid ${waiter.pid}, python3\\) waits for write on bytes 5 to 14 since [0-9.]+ s, because node1/client \\d+ \\(pid ${holder.pid}, python3\\) has what excludes it`;
    for (const nodeid of [1, 2]) {
      const file = at(nodeid, "file");
      const title = `f\\d+\\.\\d+  file locks of inode \\d+ \\(${file}\\), master node[123]`;
      const both = new RegExp(`${title}\n  ${has}\n  ${wants}\n`);
      expect(await said(nodeid, "locks", "--files")).toMatch(both);
      const byPath = await said(nodeid, "why", file);
      expect(byPath).toMatch(new RegExp(`^${file}: inode \\d+ of volume lab\n`));
      expect(byPath).toMatch(both);
      const locker = nodeid === 1 ? holder : waiter;
      const byPid = await said(nodeid, "why", String(locker.pid));
      expect(byPid).toMatch(both);
      expect(byPid).toMatch(
        nodeid === 1
          ? /^process \d+ \(python3\) on node1\n {2}waits for nothing in a clustered mount of this node\n/
          : new RegExp(
              `^process \\d+ \\(python3\\) on node2\n  waits since [0-9.]+ s: file lock \\(write on bytes 5 to 14\\) of ${file}\n`,
            ),
      );
    }

    const json = JSON.parse(await said(2, "why", String(waiter.pid), "--json")) as object;
    expect(json).toMatchObject({
      nodeid: 2,
      pid: waiter.pid,
      program: "python3",
      requests: [{ op: "setlk", pid: waiter.pid, fileLock: { type: "write", start: "5", end: "14" } }],
      files: [
        {
          volume: "lab",
          path: at(2, "file"),
          held: [{ nodeid: 1, pid: holder.pid, program: "python3", type: "write", start: "5", end: "14" }],
          waiting: [{ nodeid: 2, pid: waiter.pid, program: "python3" }],
        },
      ],
    });

    const got = once(waiter.stdout as NodeJS.ReadableStream, "data");
    holder.stdin?.end("\n");
    await got;
    expect(await said(1, "why", at(1, "file"))).toMatch(new RegExp(`node2/client \\d+ \\(pid ${waiter.pid}, python3\\) has write`));
    waiter.stdin?.end("\n");
    await once(waiter, "exit");
    expect((await coverlay(["why", String(waiter.pid), "--run-dir", lab.node(2).runDir])).status).toBe(1);
  });

  it("the whole chain over three nodes, by process and by path; and each lock by its file in the list", async () => {
    for (const name of ["a", "b", "c"]) writeFileSync(at(1, name), "x".repeat(100));
    const start = async (nodeid: number, held: string, wanted: string): Promise<ChildProcess> => {
      const locker = spawn("python3", ["-c", CHAIN_LOCKER, at(nodeid, held), at(nodeid, wanted)], { stdio: ["pipe", "pipe", "inherit"] });
      lockers.push(locker);
      await once(locker.stdout as NodeJS.ReadableStream, "data");
      return locker;
    };
    const [first, second, third] = [await start(1, "a", "b"), await start(2, "b", "c"), await start(3, "c", "a")];
    for (const locker of [second, first]) {
      locker.stdin?.write("\n");
      await waits(locker.pid ?? 0);
    }
    const link = (one: ChildProcess, node: number, other: ChildProcess, where: string): string =>
      `  python3 \\(process ${one.pid}\\) on node${node} has waited [0-9.]+ s for write on bytes 0 to 9 \\(file locks of inode \\d+\\) of volume lab${where}, which python3 \\(process ${other.pid}\\) on node${node + 1} has\n`;
    const chain = (here: number): RegExp =>
      new RegExp(
        `the chain:\n${link(first, 1, second, here <= 2 ? ` \\(${at(here, "b")}\\)` : "")}${link(second, 2, third, here >= 2 ? ` \\(${at(here, "c")}\\)` : "")}  python3 \\(process ${third.pid}\\) on node3 waits for no lock: it keeps all of these\n`,
      );
    expect(await said(1, "why", String(first.pid))).toMatch(chain(1));
    expect(await said(3, "why", at(3, "b"))).toMatch(chain(3));
    const json = JSON.parse(await said(1, "why", String(first.pid), "--json")) as object;
    expect(json).toMatchObject({
      chain: {
        end: "runs",
        last: { node: "node3", pid: third.pid },
        links: [{ waiter: { node: "node1", pid: first.pid }, path: at(1, "b") }, { waiter: { node: "node2", pid: second.pid } }],
      },
    });
    // The list of all locks, and the status.
    expect(await said(2, "locks")).toMatch(
      new RegExp(`f\\d+\\.\\d+  file locks of inode \\d+ of volume lab \\(${at(2, "c")}\\), master node`),
    );
    const waitShown = new RegExp(
      `python3 \\(process ${second.pid}\\) on node2 has waited .* of volume lab \\(${at(2, "c")}\\), which python3`,
    );
    for (;;) if (waitShown.test(await said(2, "status"))) break;
    // Each gets its turn.
    for (const locker of [third, second, first]) locker.kill("SIGKILL");
  });

  it("two processes of one node that wait for each other are a circle, seen from each node; a third one is behind in line", async () => {
    for (const name of ["left", "right"]) writeFileSync(at(1, name), "x");
    const start = async (held: string, wanted: string): Promise<ChildProcess> => {
      const files = [at(1, held), at(1, wanted)];
      const locker = spawn("python3", ["-c", FLOCK_LOCKER, ...files], { stdio: ["pipe", "pipe", "inherit"] });
      lockers.push(locker);
      await once(locker.stdout as NodeJS.ReadableStream, "data");
      return locker;
    };
    writeFileSync(at(1, "third"), "x");
    // flock: the kernel and the cluster look for no deadlock of open files.
    const [left, right, third] = [await start("left", "right"), await start("right", "left"), await start("third", "right")];
    for (const locker of [left, right, third]) {
      locker.stdin?.write("\n");
      await waits(locker.pid ?? 0);
    }
    const waiting = (one: ChildProcess, name: string, here: number, other: ChildProcess): string =>
      `  python3 \\(process ${one.pid}\\) on node1 has waited [0-9.]+ s for LOCK_EX \\(flock\\) \\(file locks of inode \\d+\\) of volume lab${here === 1 ? ` \\(${at(1, name)}\\)` : ""}, which python3 \\(process ${other.pid}\\) on node1 has`;
    const circle = (here: number): RegExp =>
      new RegExp(
        `the chain:\n${waiting(left, "right", here, right)}\n${waiting(right, "left", here, left)}\n  they wait for each other: a deadlock\n`,
      );
    expect(await said(1, "why", String(left.pid))).toMatch(circle(1));
    expect(await said(2, "why", at(2, "right"))).toMatch(circle(2));
    expect(await said(1, "locks", "--files")).toMatch(
      new RegExp(`\\(pid ${left.pid}, python3\\) has LOCK_EX \\(flock\\) since [0-9.]+ (?:s|min)\n`),
    );
    const inLine = `the request of node1/client \\d+ \\(pid ${left.pid}, python3\\) for LOCK_EX \\(flock\\) is ahead of it in line, and node1/client \\d+ \\(pid ${right.pid}, python3\\) has what excludes it`;
    expect(await said(1, "why", String(third.pid))).toMatch(
      new RegExp(`\\(pid ${third.pid}, python3\\) waits for LOCK_EX \\(flock\\) since [0-9.]+ s, because ${inLine}\n`),
    );
    for (const locker of [third, right, left]) locker.kill("SIGKILL");
  });

  it("a path outside of every mount, and one that does not exist, are errors in words", async () => {
    const outside = await coverlay(["why", lab.dir, "--run-dir", lab.node(1).runDir]);
    expect([outside.status, outside.stderr.split("\n")[0]]).toEqual([1, `coverlay: ${lab.dir} is not in a clustered mount of this node`]);
    const absent = await coverlay(["why", at(1, "absent"), "--run-dir", lab.node(1).runDir]);
    expect(absent.status).toBe(1);
    expect(absent.stderr).toContain("No such file or directory");
  });

  it("a lookup that does not come back is explained by itself: whose lock it waits for", async () => {
    await lab.mustExec(2, ["sh", "-c", "mkdir held && touch held/file"]);
    expect(await lab.owner()).toBe(1);
    const overlayPid = (await lab.status()).find(({ nodeid }) => nodeid === 2)?.overlayPid ?? 0;
    process.kill(overlayPid, "SIGSTOP");
    try {
      const words = await said(1, "why", at(1, "held/file"));
      expect(words).toMatch(new RegExp(`^${at(1, "held/file")}: a lookup of it does not come back. It waits itself, as process \\d+:\n`));
      expect(words).toMatch(/process \d+ \(stat\) on node1\n {2}waits since [0-9.]+ s: \w+ of inode \d+ of volume lab at /);
      expect(words).toMatch(
        /node2\/client \d+ \(pid \d+, [^)]*\) has EX; a blocking AST \(\w+ is wanted\) was sent [0-9.]+ s ago and is not/,
      );
    } finally {
      process.kill(overlayPid, "SIGCONT");
    }
  });

  it("a lookup that sleeps in the kernel behind another call is told so, with that call, and the command ends", async () => {
    await lab.mustExec(1, ["sh", "-c", "mkdir behind && touch behind/file && ls -l behind"]);
    await lab.mustExec(2, ["ls", "-l", "behind"]);
    const overlayPid = (await lab.status()).find(({ nodeid }) => nodeid === 2)?.overlayPid ?? 0;
    process.kill(overlayPid, "SIGSTOP");
    const maker = spawn("python3", ["-c", "import os, sys; os.mkdir(sys.argv[1])", at(1, "behind/new")], { stdio: "ignore" });
    const made = once(maker, "exit");
    try {
      await until("mkdir has asked its mount", () => readFileSync(`/proc/${maker.pid}/stack`, "latin1").includes("request_wait_answer"));
      const words = await said(1, "why", at(1, "behind/absent"));
      expect(words).toMatch(
        /process \d+ \(stat\) on node1\n {2}waits in this node's kernel, behind another call: the mount has not been asked\n/,
      );
      expect(words).toMatch(new RegExp(`process ${maker.pid} \\(python3\\) waits since [0-9.]+ s: mkdir of inode \\d+ of volume lab`));
    } finally {
      process.kill(overlayPid, "SIGCONT");
    }
    expect(await made).toEqual([0, null]);
  });
});
