/** The keeper as a process: what ends it, when it starts a program, and what that program has. */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync, readdirSync, readlinkSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { describe, expect, it } from "vitest";
import { keeperProgram } from "../../../native/index.ts";
import { readableLine } from "../../../dlmd/base/pino-log.ts";
import { errno, isRoot, MNT_DETACH, native, useScratch } from "./scratch.ts";
import { type Keeper, setResumable, startKeeper } from "./keeper-lab.ts";
import { abort, OPCODE, serveTinyFuse, type TinyFuse } from "./tiny-fuse.ts";

const STARTED = "a new process of the mount is started";
const SERVES = "a new process serves the mount";
/** Says that it serves, and stays until the other end of its line is closed. */
const serve = "printf s >&3; read -r word <&3";
const STAYS = "echo here >&2; read -r word <&3";
const [major, minor] = native.kernelVersion();
const hasResend = major > 6 || (major === 6 && minor >= 9);

/** CAP_SYS_RESOURCE; a container may have root without it. */
const mayLowerScore = (BigInt(`0x${statusOf(process.pid, "CapEff")}`) & (1n << 24n)) !== 0n;

function levels(keeper: Keeper): unknown[] {
  return keeper.logged.map(({ level }) => level);
}

/** Of the process that was started last. */
function startedPid(keeper: Keeper): number {
  return Number(keeper.logged.findLast(({ msg }) => msg === STARTED)?.["pid"]);
}

function starts(keeper: Keeper): number {
  return keeper.logged.filter(({ msg }) => msg === STARTED).length;
}

function isThere(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** By its number, what each descriptor of a process is. */
function descriptors(pid: number): Record<string, string> {
  const links = readdirSync(`/proc/${pid}/fd`).map((fd) => [fd, readlinkSync(`/proc/${pid}/fd/${fd}`).replace(/\[\d+\]/, "")] as const);
  return Object.fromEntries(links);
}

function statusOf(pid: number, name: string): string {
  return new RegExp(`^${name}:\\s*(.*)$`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? "";
}

describe("a keeper whose process serves", () => {
  const scratch = useScratch();

  it("ends well at its farewell, and says nothing", async () => {
    const keeper = await startKeeper(scratch);
    keeper.line.write("b");
    expect([await keeper.ended, keeper.logged, keeper.said]).toEqual([[0, null], [], []]);
  });

  it("hears a farewell that comes with the end of the line, behind words that it does not know", async () => {
    const keeper = await startKeeper(scratch);
    keeper.line.end("s?b");
    expect([await keeper.ended, keeper.logged]).toEqual([[0, null], []]);
  });

  it("gives up when that process says that nobody can go on", async () => {
    const keeper = await startKeeper(scratch);
    keeper.line.write("f");
    expect([await keeper.ended, keeper.logged]).toEqual([[1, null], []]);
  });

  it("ends well with SIGTERM, and with no signal that a terminal sends", async () => {
    const keeper = await startKeeper(scratch);
    for (const signal of ["SIGHUP", "SIGINT", "SIGPIPE"] as const) keeper.child.kill(signal);
    keeper.child.kill("SIGTERM");
    expect([await keeper.ended, keeper.logged]).toEqual([[0, null], []]);
  });

  it("has no descriptors but its own, no directory but the root, and a session of its own", async () => {
    const keeper = await startKeeper(scratch, { more: [scratch.fd, scratch.fd] });
    const own = { "0": "/dev/null", "1": "/dev/null", "2": "socket:", "3": "socket:", "4": "/memfd:fuse (deleted)" };
    expect(descriptors(keeper.pid)).toEqual({ ...own, "5": "/memfd:journal (deleted)", "6": "socket:", "7": "anon_inode:[pidfd]" });
    expect(readlinkSync(`/proc/${keeper.pid}/cwd`)).toBe("/");
    expect(statusOf(keeper.pid, "Name")).toBe("coverlay-keeper");
    expect(Number(statusOf(keeper.pid, "VmRSS").split(" ")[0])).toBeLessThan(2048);
    const score = mayLowerScore ? "-1000\n" : readFileSync("/proc/self/oom_score_adj", "utf8");
    expect(readFileSync(`/proc/${keeper.pid}/oom_score_adj`, "utf8")).toBe(score);
  });

  it("is not started with words or descriptors that are missing", () => {
    const wrong = [[], ["1", "1"], ["1", "1", "--"], ["1", "1", "/bin/true", "x"], ["0", "1", "--", "x"], ["1", "1x", "--", "x"]];
    const more = [
      ["1", "-1", "--", "x"],
      ["1", "", "--", "x"],
      ["1", "2147483648", "--", "x"],
      [" 1", "1", "--", "x"],
    ];
    for (const words of [...wrong, ...more]) {
      const { status, stderr } = spawnSync(keeperProgram(), words, { encoding: "utf8" });
      expect([words, status, stderr]).toEqual([words, 2, expect.stringContaining("usage: coverlay-keeper LIMIT_MS TRIES -- PROGRAM ARG")]);
    }
    const { status, stderr } = spawnSync(keeperProgram(), ["1", "1", "--", "x"], { encoding: "utf8" });
    expect([status, stderr]).toEqual([2, expect.stringContaining("expected descriptors 3 (line), 4 (/dev/fuse) and 5 (journal)")]);
  });
});

describe("a keeper whose process dies", () => {
  const scratch = useScratch();

  it.each([0, 2, 257, 0x0100_0000])("gives up where the journal says %i", async (resumable) => {
    const keeper = await startKeeper(scratch, { resumable });
    keeper.line.destroy();
    expect(await keeper.ended).toEqual([1, null]);
    expect([levels(keeper), starts(keeper)]).toEqual([["warn", "error"], 0]);
    expect(keeper.logged[1]?.["msg"]).toBe("no other process can go on with the mount: the mount ends");
  });

  it("starts the program with its words and one more, a new line, /dev/fuse and the journal", async () => {
    const program = `
      for word in "$0" "$@"; do echo "word $word" >&2; done
      echo "directory $(pwd)" >&2
      printf s >&3
      exec sleep 1000`;
    const keeper = await startKeeper(scratch, { program: ["/bin/sh", "-c", program, "sh", "two words", ""] });
    const session = (pid: number): string => readFileSync(`/proc/${pid}/stat`, "latin1").split(" ")[5] ?? "";
    keeper.line.destroy();
    await keeper.heard(SERVES);
    scratch.later(() => process.kill(startedPid(keeper), "SIGKILL"));
    await keeper.heard("directory");
    expect(keeper.said.filter((line) => line.startsWith("word"))).toEqual(["word sh", "word two words", "word ", "word --after-crash"]);
    const given = { "3": "socket:", "4": "/memfd:fuse (deleted)", "5": "/memfd:journal (deleted)" };
    // As sleep(1) has it; sh has more, at times.
    const found = (): Record<string, string> => {
      const pid = startedPid(keeper);
      return { ...descriptors(pid), blocked: statusOf(pid, "SigBlk"), ignored: statusOf(pid, "SigIgn") };
    };
    const all = { "0": "/dev/null", "1": "/dev/null", "2": "socket:", ...given, blocked: "0".repeat(16), ignored: "0".repeat(16) };
    await expect.poll(found, { timeout: 30_000, interval: 2 }).toEqual(all);
    expect(keeper.said.at(-1)).toBe("directory /");
    expect(session(startedPid(keeper))).toBe(String(startedPid(keeper)));
    expect(levels(keeper)).toEqual(["warn", "info", "info"]);
    expect(isThere(keeper.pid)).toBe(true);
  });

  it("gives the program the score that it was started with itself", async () => {
    const mine = readFileSync("/proc/self/oom_score_adj", "utf8");
    const keeper = await startKeeper(scratch, { program: `echo "score $(cat /proc/$$/oom_score_adj)" >&2; ${serve}` });
    keeper.line.destroy();
    expect(`${await keeper.heard("score")}\n`).toBe(`score ${mine}`);
  });

  it("a program of Node.js has the line as a socket, and its own children have neither that nor the other two", async () => {
    const script = `
      const { spawnSync } = require("child_process");
      const line = new (require("net").Socket)({ fd: 3 });
      const found = spawnSync("readlink", [3, 4, 5].map((fd) => "/proc/self/fd/" + fd), { encoding: "utf8" });
      console.error("status " + found.status + ": " + found.stdout);
      line.write("s");
      line.resume();
    `;
    const keeper = await startKeeper(scratch, { program: [process.execPath, "-e", script, "--"] });
    keeper.line.destroy();
    await keeper.heard(SERVES);
    expect(keeper.said).toEqual(["status 1: "]);
  });

  it("goes on through further crashes, and keeps no descriptor and no process of any", async () => {
    const keeper = await startKeeper(scratch, { program: serve, tries: 4 });
    const before = descriptors(keeper.pid);
    keeper.line.destroy();
    for (let crash = 1; crash <= 4; crash++) {
      await expect.poll(() => [starts(keeper), keeper.logged.at(-1)?.["msg"]], { timeout: 30_000, interval: 2 }).toEqual([crash, SERVES]);
      expect(descriptors(keeper.pid)).toEqual(before);
      const pid = startedPid(keeper);
      process.kill(pid, "SIGKILL");
      await expect.poll(() => isThere(pid), { timeout: 30_000, interval: 2 }).toBe(false);
    }
    // All tries were used since the last long service.
    expect(await keeper.ended).toEqual([1, null]);
    expect(keeper.logged.at(-1)).toMatchObject({ level: "error", tries: 4 });
  });

  it.each([
    ["a second", 60_000, 1.1],
    ["the limit, if that is less", 800, 0.9],
  ])("begins to count anew when a process has served for %s", async (_, limitMs, servedS) => {
    // Without that the second process would be one too many.
    const keeper = await startKeeper(scratch, { program: `printf s >&3; sleep ${servedS}`, limitMs, tries: 1 });
    keeper.line.destroy();
    await expect.poll(() => starts(keeper), { timeout: 30_000, interval: 10 }).toBe(2);
  });

  it("a farewell of the new process ends it well, before and after it serves", async () => {
    for (const said of ["b", "sb"]) {
      const keeper = await startKeeper(scratch, { program: `printf ${said} >&3; ${STAYS}` });
      keeper.line.destroy();
      expect(await keeper.ended).toEqual([0, null]);
    }
  });

  it("gives up at once when the new process says that it cannot go on", async () => {
    const keeper = await startKeeper(scratch, { program: "printf f >&3" });
    keeper.line.destroy();
    expect(await keeper.ended).toEqual([1, null]);
    expect([starts(keeper), levels(keeper)]).toEqual([1, ["warn", "info", "error"]]);
  });

  it("tries so often, with longer and longer pauses, and gives up", async () => {
    const keeper = await startKeeper(scratch, { program: "exit 7", tries: 3 });
    keeper.line.destroy();
    expect(await keeper.ended).toEqual([1, null]);
    const tries = keeper.logged.filter(({ msg }) => msg === STARTED);
    expect(tries.map((each) => each["try"])).toEqual([1, 2, 3]);
    const failed = keeper.logged.filter(({ level, status }) => level === "warn" && status !== undefined);
    expect(failed.map(({ status }) => status)).toEqual([7, 7, 7]);
    expect(keeper.logged.at(-1)).toMatchObject({ level: "error", tries: 3 });
    const [first = 0, second = 0, third = 0] = tries.map(({ time }) => Date.parse(String(time)));
    expect([second - first >= 199, third - second >= 399]).toEqual([true, true]);
  });

  it("says when the program cannot be started", async () => {
    const keeper = await startKeeper(scratch, { program: [`${scratch.dir}/none`], tries: 1 });
    keeper.line.destroy();
    expect(await keeper.ended).toEqual([1, null]);
    const lines = keeper.logged.map(({ msg, errno: number, status }) => [msg, number, status]);
    // The first line is the child's own: it may come before the keeper's that says that there is one.
    expect(lines).toContainEqual(["the program of the new process cannot be started", errno.ENOENT, undefined]);
    expect(lines).toContainEqual(["the new process has ended before it served", undefined, 127]);
  });

  it("tries no more when the journal says so meanwhile", async () => {
    const keeper = await startKeeper(scratch, { program: STAYS });
    keeper.line.destroy();
    await keeper.heard("here");
    setResumable(keeper.journal, 0);
    process.kill(startedPid(keeper), "SIGKILL");
    expect([await keeper.ended, starts(keeper)]).toEqual([[1, null], 1]);
    expect(keeper.logged.find(({ status }) => status !== undefined)?.["status"]).toBe(128 + 9);
  });

  it("ends a process that does not serve by the limit, and gives up", async () => {
    const keeper = await startKeeper(scratch, { program: STAYS, limitMs: 500 });
    keeper.line.destroy();
    expect(await keeper.ended).toEqual([1, null]);
    expect([starts(keeper), isThere(startedPid(keeper))]).toEqual([1, false]);
    expect(keeper.logged.at(-1)?.["msg"]).toBe("no process serves the mount in time: the mount ends");
  });

  it("tries no longer than the limit", async () => {
    const keeper = await startKeeper(scratch, { program: "exit 0", limitMs: 900, tries: 1000 });
    keeper.line.destroy();
    expect(await keeper.ended).toEqual([1, null]);
    // After 0, 200 and 600 ms.
    expect(starts(keeper)).toBeLessThanOrEqual(3);
    expect(keeper.logged.at(-1)?.["msg"]).toBe("no process serves the mount in time: the mount ends");
  });

  it("never leaves two of them: one that only closes its line is ended before the next one", async () => {
    const keeper = await startKeeper(scratch, { program: "exec 3<&-; exec sleep 1000", tries: 2 });
    keeper.line.destroy();
    expect(await keeper.ended).toEqual([1, null]);
    const pids = keeper.logged.filter(({ msg }) => msg === STARTED).map(({ pid }) => Number(pid));
    expect(pids.map(isThere)).toEqual([false, false]);
    expect(keeper.logged.filter(({ status }) => status === 128 + 9)).toHaveLength(2);
  });

  it("starts no other process beside one that has served, has left its line and lives on", async () => {
    const keeper = await startKeeper(scratch, { program: "printf s >&3; exec 3<&-; exec sleep 1000 2>&-", limitMs: 700 });
    keeper.line.destroy();
    const [status] = await keeper.ended;
    scratch.later(() => process.kill(startedPid(keeper), "SIGKILL"));
    expect([status, starts(keeper), isThere(startedPid(keeper))]).toEqual([1, 1, true]);
    expect(keeper.logged.at(-1)?.["msg"]).toBe("the process has left its line, and still runs: no other one is started");
  });

  it("leaves the new process alone when it is ended by SIGTERM", async () => {
    const keeper = await startKeeper(scratch, { program: `${STAYS}; echo "the line has ended" >&2` });
    keeper.line.destroy();
    await keeper.heard("here");
    keeper.child.kill("SIGTERM");
    const [status] = (await once(keeper.child, "exit")) as [number | null];
    expect([status, await keeper.heard("the line has ended")]).toEqual([0, "the line has ended"]);
  });

  it("logs as the programs do", async () => {
    const keeper = await startKeeper(scratch, { resumable: 0 });
    keeper.line.destroy();
    await keeper.ended;
    const first = await keeper.heard("without a farewell");
    expect(readableLine(first)).toMatch(/^\d\d:\d\d:\d\d\.\d{3} warn  the process of the mount has ended without a farewell keeper=\d+\n$/);
    expect(Math.abs(Date.parse(String(keeper.logged[0]?.["time"])) - Date.now())).toBeLessThan(600_000);
  });
});

describe.runIf(isRoot)("a keeper of a real mount", () => {
  const scratch = useScratch();

  async function kept(options: Parameters<typeof startKeeper>[1]): Promise<{ fuse: TinyFuse; keeper: Keeper }> {
    const fuse = serveTinyFuse(scratch);
    await stat(fuse.mountPoint);
    return { fuse, keeper: await startKeeper(scratch, { ...options, fuse: fuse.fd }) };
  }

  it("ends well when it is unmounted, while a process serves", async () => {
    const { fuse, keeper } = await kept({});
    expect(native.umount(fuse.mountPoint, MNT_DETACH)).toBe(0);
    expect([await keeper.ended, keeper.logged]).toEqual([[0, null], []]);
  });

  it("ends well when the process ends after that", async () => {
    const { fuse, keeper } = await kept({});
    keeper.child.kill("SIGSTOP");
    expect(native.umount(fuse.mountPoint, MNT_DETACH)).toBe(0);
    keeper.line.destroy();
    keeper.child.kill("SIGCONT");
    expect([await keeper.ended, keeper.logged]).toEqual([[0, null], []]);
  });

  it("ends the new process and itself when it is unmounted before that one serves", async () => {
    const { fuse, keeper } = await kept({ program: STAYS });
    keeper.line.destroy();
    await keeper.heard("here");
    expect(native.umount(fuse.mountPoint, MNT_DETACH)).toBe(0);
    expect([await keeper.ended, isThere(startedPid(keeper))]).toEqual([[0, null], false]);
  });

  it("starts no process when it is unmounted in a pause between two", async () => {
    const { fuse, keeper } = await kept({ program: "exit 7" });
    keeper.line.destroy();
    await keeper.heard('"status":7');
    expect(native.umount(fuse.mountPoint, MNT_DETACH)).toBe(0);
    expect([await keeper.ended, starts(keeper)]).toEqual([[0, null], 1]);
  });

  it("sleeps while the process serves, however many requests there are", async () => {
    const { fuse, keeper } = await kept({});
    const wakes = (): number => Number(statusOf(keeper.pid, "voluntary_ctxt_switches"));
    const before = wakes();
    for (let each = 0; each < 2000; each++) await stat(path.join(fuse.mountPoint, `none${each}`)).catch(() => null);
    // It looks once a second.
    expect(wakes() - before).toBeLessThan(1000);
  });

  it("gives up: calls that wait get an error, and the mount is at its end", async () => {
    const { fuse, keeper } = await kept({ resumable: 0 });
    fuse.hold(OPCODE.LOOKUP);
    const waiting = stat(path.join(fuse.mountPoint, "none"));
    await fuse.held;
    fuse.leave();
    keeper.line.destroy();
    await expect(waiting).rejects.toMatchObject({ code: /ECONNABORTED|ENOTCONN/ });
    await expect(stat(path.join(fuse.mountPoint, "other"))).rejects.toMatchObject({ code: "ENOTCONN" });
    expect(await keeper.ended).toEqual([1, null]);
  });

  it.runIf(hasResend)("a call that waits is answered by the new process", async () => {
    const program = [process.execPath, path.join(import.meta.dirname, "resending-server.mjs")];
    const { fuse, keeper } = await kept({ program });
    fuse.hold(OPCODE.LOOKUP);
    const waiting = stat(path.join(fuse.mountPoint, "none"));
    await fuse.held;
    fuse.leave();
    keeper.line.destroy();
    await expect(waiting).rejects.toMatchObject({ code: "ENODATA" });
    await keeper.heard("LOOKUP");
    expect(keeper.said).toEqual(["LOOKUP of none, resent: true"]);
    await keeper.heard(SERVES);
    expect(native.umount(fuse.mountPoint, MNT_DETACH)).toBe(0);
    expect(await keeper.ended).toEqual([0, null]);
  });

  it.runIf(hasResend)("sees that a process was killed, of which a thread waits for a page of a call that it did not answer", async () => {
    const mountPoint = path.join(scratch.dir, "stuck");
    const server = spawn(process.execPath, [path.join(import.meta.dirname, "stuck-server.mjs"), mountPoint, keeperProgram()], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    scratch.later(() => {
      abort(mountPoint);
      native.umount(mountPoint, MNT_DETACH);
    });
    const lines = createInterface({ input: server.stderr });
    await once(lines, "line");
    const pid = server.pid ?? 0;
    const reading = readFile(path.join(mountPoint, "f"), "utf8");
    const stacks = (): string =>
      readdirSync(`/proc/${pid}/task`)
        .map((task) => readFileSync(`/proc/${pid}/task/${task}/stack`, "utf8"))
        .join("\n");
    await expect.poll(stacks, { timeout: 30_000, interval: 2 }).toContain("invalidate_inode_pages2_range");
    server.kill("SIGKILL");
    const logged: string[] = [];
    lines.on("line", (line) => logged.push(line));
    expect(await reading).toBe("again");
    await expect.poll(() => logged.at(-1), { timeout: 30_000, interval: 2 }).toContain(SERVES);
    // Nothing holds it any more.
    await expect.poll(() => [server.exitCode, server.signalCode], { timeout: 30_000, interval: 2 }).toEqual([null, "SIGKILL"]);
    expect(native.umount(mountPoint, MNT_DETACH)).toBe(0);
    await once(server, "close");
    expect(logged).toHaveLength(3);
  });
});
