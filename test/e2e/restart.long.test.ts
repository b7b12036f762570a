/** `coverlay restart`: a new process goes on with a mount, while programs on all nodes work there. Nothing ends with an error, and nothing is stale. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import * as z from "zod";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { OperatingError } from "../../dlmd/base/error.ts";
import { run, type RunResult } from "../../overlay/lab/command.ts";
import { askRestart } from "../../overlay/cli/restart.ts";
import { askOverlay, findOverlay, queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import type { RestartAnswer } from "../../overlay/restart/give.ts";
import { connectionNumber } from "../../overlay/session/connection.ts";
import { type Actor, endActors, startActor, until } from "./actor.ts";
import { coverlay, startLab, type TestLab } from "./lab.ts";
import { Load } from "./restart-load.ts";
import { ALL_WAITS, SharedLocks } from "./shared-locks.ts";

/** How often each of two mounts is restarted under load. */
const RESTARTS = Number(process.env["COVERLAY_RESTARTS"] ?? 10);

/** The process that is to go on with that mount after this one; null: there is none. */
function newProcessOf(mount: string, serving: number): number | null {
  for (const pid of readdirSync("/proc")) {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      if (words.includes("--take-over") && words.includes(mount) && Number(pid) !== serving) return Number(pid);
    } catch {
      // No process, or none any more.
    }
  }
  return null;
}

function isStopped(pid: number | null): boolean {
  return pid !== null && /^State:\s*T/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
}

const fileLocksShape = z.object({
  files: z.array(z.object({ file: z.string(), held: z.array(z.looseObject({ pid: z.number() })), waiting: z.number() })),
});

type Done = Extract<RestartAnswer, { kind: "done" }>;

describe("coverlay restart", () => {
  let lab: TestLab;
  const load = new Load();
  const scratch = mkdtempSync(path.join(os.tmpdir(), "coverlay-restart-"));
  const dieFile = path.join(scratch, "die");
  const restart = (nodeid: number, ...words: string[]): Promise<RunResult> =>
    coverlay(["restart", lab.node(nodeid).mount, "--run-dir", lab.node(nodeid).runDir, ...words]);
  const mustRestart = async (nodeid: number): Promise<Done> => {
    const { status, stdout, stderr } = await restart(nodeid, "--json");
    expect([status, stderr]).toEqual([0, ""]);
    return JSON.parse(stdout) as Done;
  };
  /** File locks of that node's programs, without how long they are held, and how many requests wait. */
  const fileLocks = async (nodeid: number): Promise<{ held: object[]; waiting: number }> => {
    const { runDir, mount } = lab.node(nodeid);
    const { files } = await askOverlay(runDir, findOverlay(runDir, mount)?.connection ?? -1, { query: "file-locks" }, fileLocksShape);
    const held = files.flatMap(({ file, held: rows }) => rows.map((row) => ({ file, ...row, heldMs: 0 })));
    return { held, waiting: files.reduce((sum, file) => sum + file.waiting, 0) };
  };
  const pidOf = async (nodeid: number): Promise<number> => (await queryOverlayStatus(lab.node(nodeid).runDir)).pid;

  beforeAll(async () => {
    lab = await startLab({ nodes: 3, env: { COVERLAY_RESTART_DIE_FILE: dieFile } });
  });
  afterAll(async () => {
    endActors();
    await lab?.end();
    rmSync(scratch, { recursive: true });
  });

  it(
    "programs keep their files, mappings, directories and listings, time after time under load, and see what others write",
    async () => {
      expect(await lab.owner()).toBe(1);
      const elsewhere = startActor({ cwd: lab.node(3).mount });
      await load.begin(lab.nodes, { here: startActor({ cwd: lab.node(2).mount }), elsewhere });
      const pauses: string[] = [];
      for (let time = 0; time < RESTARTS; time += 1) {
        // What was cached here is stale after this, if a lock was lost on the way.
        for (const nodeid of [2, 3]) {
          const before = await pidOf(nodeid);
          const { pid, pauseMs, inodes } = await mustRestart(nodeid);
          expect(pid).not.toBe(before);
          expect(await pidOf(nodeid)).toBe(pid);
          pauses.push(`${pauseMs}/${inodes}`);
          await load.goesOn();
        }
      }
      process.stderr.write(`pauses in ms, and inodes handed over: ${pauses.join(" ")}\n`);
      // Its own file locks are its own still, and the cluster's.
      const tryLocks = `result=[code(call,os.open(f"w2/{name}",os.O_RDWR),fcntl.LOCK_EX|fcntl.LOCK_NB) for name,call in
 (("locked",fcntl.lockf),("flocked",fcntl.flock))]`;
      for (const actor of [elsewhere, startActor({ cwd: lab.node(2).mount })])
        expect(await actor.run<string[]>(tryLocks)).toEqual(["EAGAIN", "EAGAIN"]);
      await load.end();
    },
    120_000 + 30_000 * RESTARTS,
  );

  it("goes on in the old process if the new one dies before it has taken over", async () => {
    const elsewhere = startActor({ cwd: lab.node(3).mount });
    const here = startActor({ cwd: lab.node(2).mount });
    await here.run(`fd=os.open("stays",os.O_RDWR|os.O_CREAT); os.write(fd,b"before")`);
    const before = await pidOf(2);
    for (const step of ["hello", "state"]) {
      writeFileSync(dieFile, step);
      const { status, stderr } = await restart(2);
      rmSync(dieFile);
      expect([status, stderr]).toEqual([1, expect.stringContaining("is not restarted: the other process has ended")]);
      expect(await pidOf(2)).toBe(before);
      await elsewhere.run(`put("stays",step)`, { step });
      expect(await here.run(`os.lseek(fd,0,0); result=os.read(fd,20).decode()`)).toBe(step);
    }
    await mustRestart(2);
    expect(await here.run(`os.lseek(fd,0,0); result=os.read(fd,20).decode(); os.close(fd)`)).toBe("state");
  });

  it("is given up when the mount is unmounted meanwhile, and ends with it", async () => {
    const { runDir, mount } = lab.node(2);
    // The programs of the tests before end, and then it is in use no more.
    endActors();
    writeFileSync(dieFile, "hello SIGSTOP");
    const found = findOverlay(runDir, mount);
    if (found === null) throw new Error(`nothing is mounted on ${mount}`);
    const asked = askRestart(runDir, found.connection).then(
      ({ kind }) => kind,
      (error: unknown) => (error instanceof OperatingError ? error.code : String(error)),
    );
    const next = (): number | null => newProcessOf(mount, found.file.pid);
    await until("the new process stands, and has said nothing", () => isStopped(next()));
    try {
      await until("it is unmounted", async () => {
        const { status, stderr } = await run("umount", ["-i", mount]);
        if (status !== 0 && !stderr.includes("target is busy")) throw new Error(stderr);
        return status === 0;
      });
      expect(connectionNumber(mount)).toBeNull();
    } finally {
      const pid = next();
      if (pid !== null) process.kill(pid, "SIGCONT");
    }
    // The process that was asked may end before it can say so.
    expect(["refused", "failed", "overlay-silent"]).toContain(await asked);
    rmSync(dieFile);
    await until("nobody serves it", () => findOverlay(runDir, mount) === null && next() === null);
    await lab.start(2);
    await mustRestart(2);
  });

  it("file locks are held as before, by whom they were, and go with the close or the end of their program", async () => {
    const [one, near, other] = [2, 2, 3].map((nodeid) => startActor({ cwd: lab.node(nodeid).mount })) as [Actor, Actor, Actor];
    const kinds = ["posix", "ofd", "flock"];
    const lock = `
import struct
def lock(fd,kind,type):
    if kind=="posix": return code(fcntl.lockf,fd,type|fcntl.LOCK_NB,100,7)
    if kind=="flock": return code(fcntl.flock,fd,type|fcntl.LOCK_NB)
    type={fcntl.LOCK_EX:fcntl.F_WRLCK,fcntl.LOCK_UN:fcntl.F_UNLCK}[type]
    return code(fcntl.fcntl,fd,37,struct.pack("hhqqi4x",type,0,7,100,0))
`;
    for (const actor of [one, near, other]) await actor.run(lock);
    const tryAll = `
def attempt(kind):
    fd=os.open(kind,os.O_RDWR)
    try: return lock(fd,kind,fcntl.LOCK_EX)
    finally: os.close(fd)
result=[attempt(kind) for kind in kinds]`;
    const all = (actor: Actor): Promise<string[]> => actor.run(tryAll, { kinds });
    expect(
      await one.run(`fds={k:os.open(k,os.O_RDWR|os.O_CREAT) for k in kinds}; result=[lock(fds[k],k,fcntl.LOCK_EX) for k in kinds]`, {
        kinds,
      }),
    ).toEqual(["ok", "ok", "ok"]);
    expect(
      await near.run(`import struct; fd=os.open("ranges",os.O_RDWR|os.O_CREAT)
for k in range(2000): fcntl.lockf(fd,fcntl.LOCK_EX if k%2 else fcntl.LOCK_SH,5,10*k)`),
    ).toBeNull();
    const before = await fileLocks(2);
    expect(before.held.length).toBe(2003);
    await mustRestart(2);
    expect(await fileLocks(2)).toEqual(before);
    const busy = ["EAGAIN", "EAGAIN", "EAGAIN"];
    expect([await all(near), await all(other)]).toEqual([busy, busy]);
    // All is shared with that node now: it is taken back, as that one has nothing.
    await mustRestart(2);
    // Of these many locks the service knows then (hazard F45).
    await other.run(`many=os.open("ranges",os.O_RDWR); fcntl.lockf(many,fcntl.LOCK_EX,1,10**6)`);
    const { pauseMs } = await mustRestart(2);
    process.stderr.write(`pause with 2000 locks of a file that is shared: ${pauseMs} ms\n`);
    expect(await fileLocks(2)).toEqual(before);
    await other.run(`os.close(many)`);
    expect(await one.run(`lock(fds["ofd"],"ofd",fcntl.LOCK_UN); os.close(fds["posix"]); result=None`)).toBeNull();
    expect(await all(other)).toEqual(["ok", "ok", "EAGAIN"]);
    for (const actor of [one, near]) {
      actor.signal("SIGKILL");
      await actor.ended;
    }
    await until("their locks are gone", async () => (await fileLocks(2)).held.length === 0);
    expect(await all(other)).toEqual(["ok", "ok", "ok"]);
  });

  it("programs wait on for file locks, and hold those of files that other nodes lock, too", async () => {
    const locks = new SharedLocks(lab, 2, 3);
    await locks.begin();
    // One process after the other.
    await mustRestart(2);
    await mustRestart(2);
    expect(await locks.goOn()).toEqual(ALL_WAITS);
  });

  it("an owner hands its volume over first", async () => {
    expect(await lab.owner()).toBe(1);
    const here = startActor({ cwd: lab.node(1).mount });
    await here.run(`fd=os.open("owners",os.O_RDWR|os.O_CREAT); os.write(fd,b"text")`);
    await mustRestart(1);
    expect(await lab.owner()).not.toBe(1);
    expect(await here.run(`result=os.pread(fd,9,0).decode(); os.write(fd,b"more"); os.fsync(fd); os.close(fd)`)).toBe("text");
  });

  it("ends the mount with words if the new process dies when the old one has let go", async () => {
    const owner = await lab.owner();
    const nodeid = owner === 3 ? 2 : 3;
    writeFileSync(dieFile, "go");
    const { status, stderr } = await restart(nodeid);
    rmSync(dieFile);
    expect([status, stderr]).toEqual([1, expect.stringContaining("the new process did not answer, and this one had let go")]);
    const here = startActor({ cwd: "/" });
    expect(await here.run(`result=code(os.stat,mount)`, { mount: `${lab.node(nodeid).mount}/owners` })).toBe("ENOTCONN");
    // The others go on.
    const other = startActor({ cwd: lab.node(owner).mount });
    expect(await other.run(`result=get("owners")`)).toBe("textmore");
  });
});
