/**
 * Hazard F11: a program that waits for another node, or for a quorum, goes on waiting when it gets a signal that it handles, and dies at once when
 * it is killed. What ends a file's use never waits.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { waitForView } from "../../../overlay/query/dlmd-query.ts";
import { type Actor, untilWaiting, until } from "../actor.ts";
import { type HazardLab, hazardLab } from "./hazard-lab.ts";

const SIGALRM_BIT = 1n << 13n;
const QUORUM_TIMEOUT_MS = 60_000;

/** Pending for the process or its one thread. */
function alarmPending(pid: number): boolean {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  const masks = [...status.matchAll(/^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$/gm)].map((match) => BigInt(`0x${match[1]}`));
  return masks.some((mask) => (mask & SIGALRM_BIT) !== 0n);
}

const prepare = `
alarms = []
signal.signal(signal.SIGALRM, lambda *of: alarms.append(1))
`;

/** What waits, as which operation (the first that the call sends), after what was opened before. Each in a directory of its own, in which the holder has the lock of "file". */
const calls = [
  { name: "read", waits: "getattr", open: `fd = os.open("file", os.O_RDONLY)`, call: `result = os.pread(fd, 10, 0)`, gives: "new" },
  { name: "stat", waits: "getattr", open: `fd = os.open("file", os.O_RDONLY)`, call: `result = os.fstat(fd).st_size`, gives: 3 },
  { name: "write", waits: "write", open: `fd = os.open("file", os.O_RDWR)`, call: `result = os.pwrite(fd, b"mine", 0)`, gives: 4 },
  {
    name: "append",
    waits: "write",
    open: `fd = os.open("file", os.O_WRONLY | os.O_APPEND)`,
    call: `result = os.write(fd, b"mine")`,
    gives: 4,
  },
  { name: "truncate", waits: "getxattr", open: `fd = os.open("file", os.O_RDWR)`, call: `result = code(os.ftruncate, fd, 2)`, gives: "ok" },
  { name: "chmod", waits: "setattr", open: `fd = os.open("file", os.O_RDONLY)`, call: `result = code(os.fchmod, fd, 0o600)`, gives: "ok" },
  { name: "unlink", waits: "unlink", open: `os.stat("file")`, call: `result = code(os.unlink, "file")`, gives: "ok" },
  { name: "rename", waits: "rename", open: `os.stat("file")`, call: `result = code(os.rename, "file", "moved")`, gives: "ok" },
  {
    name: "page fault",
    waits: "read",
    open: `fd = os.open("file", os.O_RDONLY); at = map_shared(fd, 4096, 1)`,
    call: `result = ctypes.string_at(at, 3)`,
    gives: "new",
  },
  {
    name: "read through a direct handle",
    waits: "read",
    open: `fd = os.open("file", os.O_RDWR)`,
    call: `result = os.pread(fd, 10, 0)`,
    gives: "new",
  },
] as const;

describe("F11: waiting programs and signals", () => {
  const hazard = hazardLab();

  /** A program in a directory of its own whose call will wait as soon as the returned node is held. */
  async function scene(name: string, open: string, times: number): Promise<{ readonly programs: Actor[]; readonly c: number }> {
    const [a, c] = [hazard.owner, hazard.remotes[1]];
    const dir = `wait-${name.replaceAll(" ", "-")}-${times}`;
    const setup = hazard.actor(a);
    await setup.run(`os.mkdir(dir); put(dir + "/file", "old")`, { dir });
    const holder = hazard.actor(c, { below: dir });
    await holder.run(`fd = os.open("file", os.O_RDWR)`);
    // The directory's lock is not to be what is waited for.
    await setup.run(`put(dir + "/other", "x")`, { dir });
    const programs = Array.from({ length: times }, () => hazard.actor(a, { below: dir }));
    for (const program of programs) await program.run(`${prepare}${open}`);
    await holder.run(`os.pwrite(fd, b"new", 0)`);
    return { programs, c };
  }

  it.each(calls)("$name: SIGALRM does not end the wait, and the call ends as it should", async ({ name, waits, open, call, gives }) => {
    const { programs, c } = await scene(name, open, 1);
    const [program] = programs as [Actor];
    await hazard.hold(c);
    const result = program.run(call);
    await hazard.untilUnderWay(hazard.owner, { [waits]: 1 });
    program.signal("SIGALRM");
    await until("the signal is pending", () => alarmPending(program.pid));
    // It has been told to the overlay when a question asked later was answered.
    await hazard.counters(hazard.owner);
    await untilWaiting(program);
    expect(alarmPending(program.pid)).toBe(true);
    hazard.letGo(c);
    expect(await result).toBe(gives);
    expect(await program.run(`result = len(alarms)`)).toBe(1);
  });

  it.each(calls)("$name: SIGKILL ends the wait, with and without a SIGALRM before", async ({ name, waits, open, call }) => {
    const { programs, c } = await scene(name, open, 2);
    await hazard.hold(c);
    for (const [at, program] of programs.entries()) {
      const result = program.run(call).catch((error: unknown) => String(error));
      await untilWaiting(program);
      await hazard.untilUnderWay(hazard.owner, { [waits]: 1 });
      if (at === 1) {
        program.signal("SIGALRM");
        await until("the signal is pending", () => alarmPending(program.pid));
      }
      program.signal("SIGKILL");
      expect((await program.ended).signal).toBe("SIGKILL");
      expect(await result).toContain("SIGKILL");
    }
    // Nothing of the dead is left: the next one gets what it asks for.
    hazard.letGo(c);
    expect(["new", "old"]).toContain(await readBack(hazard, name));
  });

  it("close never waits", async () => {
    const { programs, c } = await scene("close", `fd = os.open("file", os.O_RDWR)`, 1);
    const [program] = programs as [Actor];
    await hazard.hold(c);
    await program.run(`os.close(fd)`);
    expect(await program.run<number>(`result = os.getpid()`)).toBe(program.pid);
    hazard.letGo(c);
  });
});

async function readBack(hazard: HazardLab, name: string): Promise<string> {
  const program = hazard.actor(hazard.remotes[0]);
  return program.run<string>(`result = get([n for n in (dir + "/file", dir + "/moved") if os.path.exists(n)][0])`, {
    dir: `wait-${name.replaceAll(" ", "-")}-2`,
  });
}

describe("F11: without a quorum", () => {
  const hazard = hazardLab();

  it("a program waits, can be killed, and goes on when there is a quorum again", async () => {
    const [a, b, c] = [hazard.owner, ...hazard.remotes];
    const program = hazard.actor(a);
    const doomed = hazard.actor(a);
    await hazard.actor(b).run(`put("file", "elsewhere"); put("doomed", ""); os.mkdir("dir")`);
    await program.run(prepare);
    await doomed.run(`result = None`);
    const dlmds = [b, c].map((nodeid) => hazard.lab.dlmdPid(nodeid) ?? 0);
    for (const pid of dlmds) process.kill(pid, "SIGSTOP");
    try {
      // Not by the state of the whole lab, which asks those that stand still, too.
      await waitForView(hazard.lab.node(a).runDir, ({ quorate, running }) => !quorate || !running, QUORUM_TIMEOUT_MS);
      const waits = program.run<string>(`result = get("file")`);
      // A name of its own: whoever looks up one that somebody else waits for sleeps in d_alloc_parallel(), which no signal ends.
      const dies = doomed.run(`get("doomed")`).catch((error: unknown) => String(error));
      await untilWaiting(program);
      await untilWaiting(doomed);
      doomed.signal("SIGKILL");
      expect((await doomed.ended).signal).toBe("SIGKILL");
      expect(await dies).toContain("SIGKILL");
      program.signal("SIGALRM");
      await until("the signal is pending", () => alarmPending(program.pid));
      for (const pid of dlmds) process.kill(pid, "SIGCONT");
      expect(await waits).toBe("elsewhere");
      expect(await program.run(`result = len(alarms)`)).toBe(1);
    } finally {
      for (const pid of dlmds) process.kill(pid, "SIGCONT");
    }
  });
});
