/**
 * Hazard F11: a program that is killed while it waits in a mount is gone at once, whatever the call and whatever it waits for. The cause of the wait
 * lasts meanwhile, status says of each for whom it waits and since when, and nothing of it is left. Then what SIGKILL does not end (overlay/EXCEPTIONS.md, exception 14).
 */
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { noHang } from "../../../overlay/lab/hang.ts";
import { MAX_NAMES_TOLD } from "../../../overlay/lower/limits.ts";
import { type OverlayRequest, queryOverlayRequests } from "../../../overlay/query/overlay-requests.ts";
import { queryOverlayStatus } from "../../../overlay/query/overlay-query.ts";
import type { Report } from "../../../overlay/status/report.ts";
import { type Actor, startActor, until, untilWaiting } from "../actor.ts";
import { coverlay } from "../lab.ts";
import { hazardLab } from "./hazard-lab.ts";
import { children, makeDirectories, makeMany, takeAll, takeLock, waitingCalls } from "./killed-calls.ts";

/** All of a table are killed, one after the other, and each has this long. */
const STEP_MS = 600_000;
const hazard = hazardLab();

beforeAll(() => hazard.actor(hazard.owner).run(makeMany, { count: MAX_NAMES_TOLD + 1 }));

const knob = (nodeid: number): string => path.join(hazard.lab.node(nodeid).runDir, "volume-lab/block");
afterEach(async () => {
  for (const nodeid of hazard.all) writeFileSync(knob(nodeid), "0\n");
});

async function requestsOf(nodeid: number): Promise<readonly OverlayRequest[]> {
  const { runDir } = hazard.lab.node(nodeid);
  const { connection } = await queryOverlayStatus(runDir);
  return (await queryOverlayRequests(runDir, Number(connection))).requests;
}

/** The same, of those processes. */
async function waitingOf(nodeid: number, pids: readonly number[]): Promise<readonly OverlayRequest[]> {
  return (await requestsOf(nodeid)).filter(({ pid }) => pids.includes(pid));
}

const callsOf = async (nodeid: number): Promise<Report["calls"]> => {
  const { stdout } = await coverlay(["status", "--json", "--check", "--run-dir", hazard.lab.node(nodeid).runDir]);
  return (JSON.parse(stdout) as Report).calls;
};

const standsStill = (nodeid: number): boolean => /\) T /.test(readFileSync(`/proc/${hazard.lab.overlayPid(nodeid)}/stat`, "latin1"));

/** By an operator. */
async function isBlocked(nodeid: number): Promise<boolean> {
  const { group } = await queryOverlayStatus(hazard.lab.node(nodeid).runDir);
  return group?.block === true && group.operatorBlocks === true;
}

interface Row {
  readonly name: string;
  readonly op: string;
  readonly dir: string;
  readonly before: string;
  readonly call: string;
}

interface Cause {
  readonly begin: () => Promise<void>;
  readonly lasts: () => boolean | Promise<boolean>;
  /** For what status says that the calls wait. */
  readonly words: RegExp;
}

interface Killed {
  /** By row: as which operation it waited. */
  readonly ops: Readonly<Record<string, string>>;
  /** By row: the signal that ended it. */
  readonly ends: Readonly<Record<string, string>>;
  /** Requests of the dead, but for READs. */
  readonly left: readonly string[];
}

/** All rows wait on that node at once, are listed, are killed, and are gone while the cause lasts. */
async function killAll(nodeid: number, rows: readonly Row[], { begin, lasts, words }: Cause): Promise<Killed> {
  const programs = startActor({ cwd: "/" });
  const given = { mount: hazard.mount(nodeid), rows };
  const pids = await programs.run<Record<string, number>>(`${children}\nresult = prepare(mount, rows)`, given, STEP_MS);
  const all = Object.values(pids);
  await begin();
  await programs.run(`begin()`);
  const ops: Record<string, string> = {};
  const missing = (): string[] => Object.keys(pids).filter((name) => ops[name] === undefined);
  const look = async (): Promise<void> => {
    for (const { op, pid } of await waitingOf(nodeid, all)) ops[Object.keys(pids).find((name) => pids[name] === pid) ?? ""] = op;
  };
  await until(
    "all of them wait",
    async () => {
      await look();
      return missing().length === 0;
    },
    () => missing().join(", "),
  );
  let calls: Report["calls"] = [];
  await until(
    `status says for what they wait: ${words}`,
    async () => {
      calls = await callsOf(nodeid);
      const shown = calls.filter(({ pid, waitsFor }) => all.includes(pid) && words.test(waitsFor ?? ""));
      return shown.length === Math.min(20, all.length);
    },
    () => JSON.stringify(calls, null, 1),
  );
  // Those that were answered since wait as another operation now.
  await look();
  for (const { program, mountpoint, waitingMs } of calls) {
    expect([program, mountpoint]).toEqual(["python3", hazard.mount(nodeid)]);
    expect(waitingMs).toBeGreaterThanOrEqual(1000);
  }
  const ends = await programs.run<Record<string, string>>(`result = kill(names)`, { names: Object.keys(pids) }, STEP_MS);
  expect(await lasts()).toBe(true);
  // The kernel read ahead for them, and no signal ends that: it waits for the pages, and nobody waits for it.
  const left = (await waitingOf(nodeid, all)).map(({ op }) => op).filter((op) => op !== "read");
  return { ops, ends, left };
}

/** Another node gets all that they had, or asked for. */
async function takeAllOf(nodeid: number, rows: readonly Row[]): Promise<void> {
  const other = hazard.actor(nodeid);
  await other.run(takeAll, { mount: hazard.mount(nodeid), dirs: rows.map(({ dir }) => dir) }, STEP_MS);
}

async function prepare(nodeid: number, rows: readonly Row[]): Promise<void> {
  const setup = hazard.actor(nodeid);
  await setup.run(makeDirectories, { mount: hazard.mount(nodeid), dirs: rows.map(({ dir }) => dir) }, STEP_MS);
}

const dirOf = (kind: string, name: string): string => `${kind}-${name.replaceAll(" ", "-")}`;
const waited = (rows: readonly Row[]): object => Object.fromEntries(rows.map(({ name, op }) => [name, op]));
const killed = (rows: readonly Row[]): object => Object.fromEntries(rows.map(({ name }) => [name, "SIGKILL"]));

describe("F11: killed while it waits", () => {
  it("for locks of a node that is stopped", async () => {
    const [a, b, c] = [hazard.owner, ...hazard.remotes];
    const rows = waitingCalls.flatMap(({ lock, before = "pass", ...row }) =>
      lock === null ? [] : [{ ...row, before, lock, dir: dirOf("lock", row.name) }],
    );
    await prepare(a, rows);
    const holder = hazard.actor(c);
    const { ops, ends, left } = await killAll(a, rows, {
      begin: async () => {
        for (const { dir, lock } of rows)
          await holder.run(`os.chdir(mount + "/" + dir)\n${takeLock[lock]}`, { dir, mount: hazard.mount(c) });
        await hazard.hold(c);
      },
      lasts: () => standsStill(c),
      words: new RegExp(`^inode lock of inode \\d+, which .* on node${c} has$`),
    });
    hazard.letGo(c);
    await takeAllOf(b, rows);
    expect(ops).toEqual(waited(rows));
    expect(ends).toEqual(killed(rows));
    expect(left).toEqual([]);
  });

  const atOwner = (kind: string): Row[] =>
    waitingCalls.flatMap(({ atOwner: as, op, name, before = "pass", call }) =>
      as === null ? [] : [{ name, before, call, op: as ?? op, dir: dirOf(kind, name) }],
    );

  it("for an owner that is stopped", async () => {
    const [a, b, c] = [hazard.owner, ...hazard.remotes];
    const rows = atOwner("owner");
    await prepare(b, rows);
    const result = await killAll(b, rows, {
      begin: () => hazard.hold(a),
      lasts: () => standsStill(a),
      words: /^the owner has not answered: /,
    });
    hazard.letGo(a);
    await takeAllOf(c, rows);
    expect(result).toEqual({ ops: waited(rows), ends: killed(rows), left: [] });
  });

  it("for the end of an operator's block", async () => {
    const [, b, c] = [hazard.owner, ...hazard.remotes];
    // What exec(2) asks for first depends on what was read ahead.
    const rows = atOwner("block").filter(({ name }) => name !== "exec");
    await prepare(b, rows);
    const result = await killAll(b, rows, {
      begin: async () => {
        writeFileSync(knob(b), "1\n");
        await until("the node is blocked", () => isBlocked(b));
      },
      lasts: () => isBlocked(b),
      words: /operator/,
    });
    writeFileSync(knob(b), "0\n");
    await takeAllOf(c, rows);
    expect(result).toEqual({ ops: waited(rows), ends: killed(rows), left: [] });
  });

  it.each(["the owner", "another node"])("for a disk that hangs, on %s", async (where) => {
    if (noHang() !== null) return;
    const [a, b, c] = [hazard.owner, ...hazard.remotes];
    const nodeid = where === "the owner" ? a : b;
    const rows = atOwner(`disk-${nodeid}`).filter(({ name }) => name === "fsync");
    await prepare(nodeid, rows);
    const another = hazard.actor(nodeid);
    await another.run(`fd = os.open(dir + "/other", os.O_RDWR)`, { dir: rows[0]?.dir });
    await hazard.lab.lab("hang", `node${a}`);
    try {
      let synced: unknown = null;
      const result = await killAll(nodeid, rows, {
        begin: async () => {
          // It goes on waiting, so the disk hangs for as long as it does.
          void another.run(`os.pwrite(fd, b"x", 0); result = code(os.fsync, fd)`, {}, STEP_MS).then((code) => (synced = code));
          await untilWaiting(another);
        },
        lasts: () => synced === null,
        words: /has not answered/,
      });
      expect(result).toEqual({ ops: waited(rows), ends: killed(rows), left: [] });
      await hazard.lab.lab("unhang", `node${a}`);
      await until("the other one goes on", () => synced === "ok");
    } finally {
      await hazard.lab.lab("unhang", `node${a}`);
    }
    await takeAllOf(c, rows);
  });
});

const stackOf = ({ pid }: Actor): string => readFileSync(`/proc/${pid}/stack`, "latin1");

/** SIGKILL waits for the process or for its one thread. */
function killPending({ pid }: Actor): boolean {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  return [...status.matchAll(/^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$/gm)].some((mask) => (BigInt(`0x${mask[1]}`) & (1n << 8n)) !== 0n);
}

/** It is being killed, and has not ended when the overlay has answered what it was asked after the signal. */
async function killInVain(nodeid: number, program: Actor, where: RegExp): Promise<void> {
  program.signal("SIGKILL");
  await until("the signal is pending", () => killPending(program));
  if (!standsStill(nodeid)) await hazard.counters(nodeid);
  expect(stackOf(program)).toMatch(where);
}

describe("F11: what SIGKILL does not end at once", () => {
  it("its own overlay stands still after it has read the request: until that goes on, though the cause lasts", async () => {
    const [a, , c] = [hazard.owner, ...hazard.remotes];
    await hazard.actor(a).run(`put("own", "old")`);
    const program = hazard.actor(a);
    await program.run(`fd = os.open("own", os.O_RDWR)`);
    await hazard.actor(c).run(`put("own", "new")`);
    await hazard.hold(c);
    const call = program.run(`os.fstat(fd)`).catch(String);
    await hazard.untilUnderWay(a, { getattr: 1 });
    await hazard.hold(a);
    await killInVain(a, program, /request_wait_answer/);
    // One that it has not read yet dies.
    const later = startActor({ cwd: "/" });
    void later.run(`os.statvfs(mount)`, { mount: hazard.mount(a) }).catch(() => undefined);
    await untilWaiting(later);
    later.signal("SIGKILL");
    expect((await later.ended).signal).toBe("SIGKILL");
    hazard.letGo(a);
    expect((await program.ended).signal).toBe("SIGKILL");
    expect(standsStill(c)).toBe(true);
    expect(await call).toContain("SIGKILL");
    hazard.letGo(c);
  });

  it("behind another program of its node in one directory: it ends with that one", async () => {
    const [a, b, c] = [hazard.owner, ...hazard.remotes];
    await hazard.actor(b).run(`os.mkdir("crowd")`);
    const [first, second] = [hazard.actor(b, { below: "crowd" }), hazard.actor(b, { below: "crowd" })];
    for (const program of [first, second]) await program.run(`os.path.exists("first"); os.path.exists("second")`);
    await hazard.hold(a);
    const calls = [first.run(`os.mkdir("first")`).catch(String)];
    await hazard.untilUnderWay(b, { mkdir: 1 });
    calls.push(second.run(`os.mkdir("second")`).catch(String));
    await until(
      "it waits for the lock of the directory",
      () => /^\[<0>\] (rwsem_down_write\w+|filename_create)/.test(stackOf(second)),
      () => stackOf(second),
    );
    await killInVain(b, second, /^\[<0>\] (rwsem_down_write\w+|filename_create)/);
    // The one that is to be killed is listed.
    expect((await requestsOf(b)).map(({ pid }) => pid)).toEqual([first.pid]);
    first.signal("SIGKILL");
    for (const program of [first, second]) expect((await program.ended).signal).toBe("SIGKILL");
    expect(standsStill(a)).toBe(true);
    hazard.letGo(a);
    await Promise.all(calls);
    await hazard.actor(c, { below: "crowd" }).run(`put("third", "x")`);
  });

  it.each([
    ["msync", `msync(at, 4096)`],
    ["munmap", `libc.munmap(at, 4096)`],
    ["close", `os.close(fd)`],
    ["exit", `os.kill(os.getpid(), signal.SIGKILL)`],
  ])("%s of a mapping that was stored to: until the owner goes on", async (name, call) => {
    const [a, b] = [hazard.owner, ...hazard.remotes];
    const file = `mapped-${name}`;
    const program = hazard.actor(b);
    await program.run(`put(file, "a" * 4096); fd = os.open(file, os.O_RDWR); at = map_shared(fd, 4096); ctypes.memset(at, 98, 1)`, {
      file,
    });
    await hazard.hold(a);
    const result = program.run(call).catch(String);
    await hazard.untilUnderWay(b, { write: 1 });
    await until(
      "it waits for the page",
      () => /writeback/.test(stackOf(program)),
      () => stackOf(program),
    );
    await killInVain(b, program, /writeback/);
    // It is listed, as the kernel's.
    expect((await requestsOf(b)).map(({ op, pid }) => [op, pid])).toEqual([["write", 0]]);
    hazard.letGo(a);
    expect((await program.ended).signal).toBe("SIGKILL");
    await result;
    expect(await hazard.actor(a).run(`result = get(file)[0]`, { file })).toBe("b");
  });
});

/** As a user: whether the file has bits that its change clears is asked first. In a child, so that the file stays open. */
const killedBeforeSent = `os.setegid(1000); os.seteuid(1000)
pid = os.fork()
if pid == 0:
    try:
        %s
    finally:
        os._exit(0)
result = pid`;

describe("F50: what a killed program had asked for", () => {
  it.each([
    ["fallocate", "fallocate", `libc.fallocate(fd, 3, 0, 4096)`, `os.pwrite(fd, b"NEW DATA", 0)`, "write", `get(file)[:8]`, "NEW DATA"],
    ["chmod", "setattr", `os.fchmod(fd, 0o666)`, `os.fchmod(fd, 0o600)`, "setattr", `os.stat(file).st_mode & 0o777`, 0o600],
  ])("%s that was not sent is not made after what came next", async (name, op, call, next, nextOp, look, wanted) => {
    const [a, b, c] = [hazard.owner, ...hazard.remotes];
    const [writer, program] = [hazard.actor(b), hazard.actor(b)];
    for (let round = 0; round < 3; round += 1) {
      const file = `unsent-${name}-${round}`;
      await writer.run(
        `put(file, "old" * 100); os.chmod(file, 0o666); os.chown(file, 1000, 1000); fd = os.open(file, os.O_RDWR); os.fsync(fd)`,
        { file },
      );
      await program.run(`fd = os.open(file, os.O_RDWR); os.pwrite(fd, b"x", 0)`, { file });
      await hazard.actor(c).run(`os.utime(file, (1, 1)); os.stat(file)`, { file });
      await hazard.hold(a);
      const pid = await program.run<number>(killedBeforeSent.replace("%s", () => call));
      await hazard.untilUnderWay(b, { [op]: 1 });
      await until("its lock is here, and it waits for the owner", async () =>
        (await callsOf(b)).some((waits) => waits.pid === pid && waits.waitsFor?.startsWith("the owner has not answered") === true),
      );
      await program.run(`os.kill(pid, 9); os.waitpid(pid, 0); os.seteuid(0); os.setegid(0)`);
      const changed = writer.run(next);
      await Promise.race([changed, hazard.untilUnderWay(b, { [nextOp]: 1 })]);
      expect(standsStill(a)).toBe(true);
      hazard.letGo(a);
      await changed;
      await writer.run(`os.fsync(fd); os.close(fd)`);
      await program.run(`os.close(fd)`);
      expect(await hazard.actor(c).run(`result = ${look}`, { file })).toBe(wanted);
    }
  });

  it.each([
    ["truncate", "setattr", `os.truncate(file, 0)`],
    ["fallocate", "fallocate", `libc.fallocate(fd, 3, 0, 4096)`],
  ])("%s: of what is written after its death it takes nothing", async (name, op, call) => {
    const [a, b, c] = [hazard.owner, ...hazard.remotes];
    const writer = hazard.actor(b);
    for (let round = 0; round < 5; round += 1) {
      const file = `orphan-${name}-${round}`;
      await writer.run(`put(file, "old" * 100); fd = os.open(file, os.O_RDWR); os.fsync(fd)`, { file });
      const program = hazard.actor(b);
      await program.run(`fd = os.open(file, os.O_RDWR)`, { file });
      await hazard.hold(a);
      const cut = program.run(call, { file }).catch(String);
      await hazard.untilUnderWay(b, { [op]: 1 });
      program.signal("SIGKILL");
      expect((await program.ended).signal).toBe("SIGKILL");
      await cut;
      const written = writer.run(`os.pwrite(fd, b"NEW DATA", 0)`);
      await Promise.race([written, hazard.untilUnderWay(b, { write: 1 })]);
      expect(standsStill(a)).toBe(true);
      hazard.letGo(a);
      await written;
      await writer.run(`os.fsync(fd); os.close(fd)`);
      expect(await hazard.actor(c).run(`result = get(file)[:8]`, { file })).toBe("NEW DATA");
    }
  });
});
