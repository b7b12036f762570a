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
import { SteadyWorker } from "./steady-worker.ts";

/** How often each of two mounts is restarted under load. */
const RESTARTS = Number(process.env["COVERLAY_RESTARTS"] ?? 10);

/** Works until its input ends, and has file locks all the time. What it reads of others never goes back. */
const program = `
import fcntl,json,os,sys,threading
me,others=sys.argv[1],sys.argv[2:]
stop=threading.Event()
threading.Thread(target=lambda:(sys.stdin.read(),stop.set()),daemon=True).start()
os.makedirs(me,exist_ok=True)
log=os.open(f"{me}/log",os.O_RDWR|os.O_CREAT|os.O_APPEND)
common=os.open("common",os.O_WRONLY|os.O_CREAT|os.O_APPEND)
count=os.open(f"{me}/count",os.O_RDWR|os.O_CREAT)
locked=os.open(f"{me}/locked",os.O_RDWR|os.O_CREAT); fcntl.lockf(locked,fcntl.LOCK_EX,1)
flocked=os.open(f"{me}/flocked",os.O_RDWR|os.O_CREAT); fcntl.flock(flocked,fcntl.LOCK_EX)
seen={other:0 for other in others}
n=0
while not stop.is_set():
    n+=1
    line=f"{n:08d}\\n".encode()
    assert os.write(log,line)==9
    assert os.write(common,f"{me} {n:08d}\\n".encode())==len(me)+10
    os.pwrite(count,line,0)
    fd=os.open(f"{me}/new",os.O_WRONLY|os.O_CREAT|os.O_EXCL); os.write(fd,line*50); os.close(fd)
    os.rename(f"{me}/new",f"{me}/kept{n%20}")
    if n%3==0: os.unlink(f"{me}/kept{n%20}")
    os.mkdir(f"{me}/dir"); os.rmdir(f"{me}/dir")
    if n%5==0: os.fsync(log)
    fcntl.lockf(locked,fcntl.LOCK_EX,1,n); fcntl.lockf(locked,fcntl.LOCK_UN,1,max(1,n-5))
    short=os.open(f"{me}/short",os.O_RDWR|os.O_CREAT); fcntl.lockf(short,fcntl.LOCK_EX); os.close(short)
    assert os.stat(f"{me}/log").st_size==9*n, ("size",n)
    assert "log" in os.listdir(me)
    for other in others:
        try: now=int(open(f"{other}/count").read() or "0")
        except FileNotFoundError: continue
        assert now>=seen[other],("stale",other,now,seen[other])
        seen[other]=now
    print(n,flush=True)
os.fsync(log)
lines=os.pread(log,9*n+9,0).split()
assert lines==[f"{k:08d}".encode() for k in range(1,n+1)],("log",len(lines),n)
print(json.dumps({"rounds":n}),flush=True)
`;

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
  const workers: SteadyWorker[] = [];
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
    for (const one of workers) one.kill();
    endActors();
    await lab?.end();
    rmSync(scratch, { recursive: true });
  });

  /** A program that has all kinds of things open: `begin` once, and `look` with what another node wrote since. */
  const begin = `
held=os.open("held",os.O_RDWR); gone=os.open("gone",os.O_RDWR); os.unlink("gone")
gonedir=os.open("gonedir",os.O_RDONLY)
writer=os.open("own",os.O_RDWR|os.O_CREAT); os.write(writer,b"a"*8192); os.fsync(writer)
mapped=mmap.mmap(writer,8192)
seen=mmap.mmap(held,8,prot=mmap.PROT_READ)
os.mkdir("work"); os.chdir("work")
os.mkdir("stream")
for k in range(400): put(f"stream/entry{k:04d}","")
stream=os.scandir("stream")
names=[next(stream).name for _ in range(150)]
os.pwrite(gone,b"kept",0)
result=os.stat("../held").st_ino
`;
  const look = `
now=f"{number:08d}".encode()
result=[
 os.pread(held,8,0)==now, bytes(seen[:8])==now, get("../held")[:8].encode()==now,
 os.pread(gone,4,0)==b"kept", os.fstat(gone).st_nlink==0,
 os.path.exists(f"../there{number}"), not os.path.exists(f"../there{number-1}"),
 f"there{number}" in os.listdir(".."), os.stat("../held").st_size==8*number,
 os.getcwd().endswith("/work"), bytes(mapped[:4]).decode()]
mapped[0:4]=f"{number:04d}".encode(); mapped.flush()
os.pwrite(writer,now,4096)
`;
  const write = `
fd=os.open("held",os.O_WRONLY); os.pwrite(fd,(f"{number:08d}"*number).encode(),0); os.close(fd)
put(f"there{number}","x")
if os.path.exists(f"there{number-1}"): os.unlink(f"there{number-1}")
`;

  const meet = async (elsewhere: Actor, here: Actor, number: number, before: number): Promise<void> => {
    await elsewhere.run(write, { number });
    const stored = before === 0 ? "aaaa" : String(before).padStart(4, "0");
    expect(await here.run(look, { number })).toEqual([...Array.from({ length: 10 }, () => true), stored]);
    // And the other way round.
    const own = await elsewhere.run<string>(`result=get("own")`);
    expect([own.slice(0, 4), own.slice(4096, 4104)]).toEqual([String(number).padStart(4, "0"), String(number).padStart(8, "0")]);
  };

  it(
    "programs keep their files, mappings, directories and listings, time after time under load, and see what others write",
    async () => {
      expect(await lab.owner()).toBe(1);
      const elsewhere = startActor({ cwd: lab.node(3).mount });
      const here = startActor({ cwd: lab.node(2).mount });
      await elsewhere.run(`put("held","0"*8); put("gone","x"); os.mkdir("gonedir")`);
      await here.run(begin);
      await meet(elsewhere, here, 1, 0);
      const names = lab.nodes.map(({ nodeid }) => `w${nodeid}`);
      for (const { nodeid, mount } of lab.nodes)
        workers.push(new SteadyWorker(mount, [`w${nodeid}`, ...names.filter((name) => name !== `w${nodeid}`)], program));
      for (const one of workers) await one.goesOn();
      const pauses: string[] = [];
      let number = 1;
      for (let time = 0; time < RESTARTS; time += 1) {
        // What was cached here is stale after this, if a lock was lost on the way.
        for (const nodeid of [2, 3]) {
          const before = await pidOf(nodeid);
          const { pid, pauseMs, inodes } = await mustRestart(nodeid);
          expect(pid).not.toBe(before);
          expect(await pidOf(nodeid)).toBe(pid);
          pauses.push(`${pauseMs}/${inodes}`);
          await meet(elsewhere, here, number + 1, number);
          number += 1;
          for (const one of workers) await one.goesOn(2);
        }
      }
      process.stderr.write(`pauses in ms, and inodes handed over: ${pauses.join(" ")}\n`);
      // Its own file locks are its own still, and the cluster's.
      const tryLocks = `result=[code(call,os.open(f"w2/{name}",os.O_RDWR),fcntl.LOCK_EX|fcntl.LOCK_NB) for name,call in
 (("locked",fcntl.lockf),("flocked",fcntl.flock))]`;
      for (const actor of [elsewhere, startActor({ cwd: lab.node(2).mount })])
        expect(await actor.run<string[]>(tryLocks)).toEqual(["EAGAIN", "EAGAIN"]);
      // The listing goes on where it was.
      const listed = await here.run<string[]>(`names+=[entry.name for entry in stream]; result=sorted(names)`);
      expect(listed).toEqual(Array.from({ length: 400 }, (_, k) => `entry${String(k).padStart(4, "0")}`));
      const rounds = await Promise.all(workers.map((one) => one.end()));
      const common = readFileSync(`${lab.node(1).mount}/common`, "latin1")
        .trimEnd()
        .split("\n");
      expect(common.toSorted()).toEqual(
        rounds.flatMap((each, at) => Array.from({ length: each }, (_, k) => `w${at + 1} ${String(k + 1).padStart(8, "0")}`)).toSorted(),
      );
      workers.length = 0;
      // Its file without a name goes with the last close.
      await here.run(`for fd in (gone,held,writer): os.close(fd)`);
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
for k in range(300): fcntl.lockf(fd,fcntl.LOCK_EX if k%2 else fcntl.LOCK_SH,5,10*k)`),
    ).toBeNull();
    const before = await fileLocks(2);
    expect(before.held.length).toBe(303);
    await mustRestart(2);
    expect(await fileLocks(2)).toEqual(before);
    const busy = ["EAGAIN", "EAGAIN", "EAGAIN"];
    expect([await all(near), await all(other)]).toEqual([busy, busy]);
    // All is shared with that node now: it is taken back, as that one has nothing.
    await mustRestart(2);
    expect(await one.run(`lock(fds["ofd"],"ofd",fcntl.LOCK_UN); os.close(fds["posix"]); result=None`)).toBeNull();
    expect(await all(other)).toEqual(["ok", "ok", "EAGAIN"]);
    for (const actor of [one, near]) {
      actor.signal("SIGKILL");
      await actor.ended;
    }
    await until("their locks are gone", async () => (await fileLocks(2)).held.length === 0);
    expect(await all(other)).toEqual(["ok", "ok", "ok"]);
  });

  it("is refused while a program waits for a file lock, or a locked file is locked elsewhere, too; and then it is done", async () => {
    const [one, waits, other] = [2, 2, 3].map((nodeid) => startActor({ cwd: lab.node(nodeid).mount })) as [Actor, Actor, Actor];
    await one.run(`fd=os.open("locked",os.O_RDWR|os.O_CREAT); fcntl.lockf(fd,fcntl.LOCK_EX)`);
    await waits.run(`fd=os.open("locked",os.O_RDWR)`);
    const waited = waits.run(`fcntl.lockf(fd,fcntl.LOCK_EX); fcntl.lockf(fd,fcntl.LOCK_SH)`);
    await until("it waits", async () => (await fileLocks(2)).waiting === 1);
    const refused = await restart(2);
    expect([refused.status, refused.stderr]).toEqual([1, expect.stringContaining("programs wait for file locks through this mount")]);
    await one.run(`fcntl.lockf(fd,fcntl.LOCK_UN)`);
    await waited;
    await other.run(`fd=os.open("locked",os.O_RDWR); fcntl.lockf(fd,fcntl.LOCK_SH)`);
    const shared = await restart(2);
    expect([shared.status, shared.stderr]).toEqual([1, expect.stringContaining("on files that other nodes lock, too")]);
    // Nothing is lost by that.
    expect(await other.run(`result=code(fcntl.lockf,fd,fcntl.LOCK_EX|fcntl.LOCK_NB)`)).toBe("EAGAIN");
    await other.run(`os.close(fd)`);
    // That node keeps the file for a moment.
    await until("it is done", async () => (await restart(2)).status === 0);
    expect(await one.run(`result=code(fcntl.lockf,fd,fcntl.LOCK_EX|fcntl.LOCK_NB)`)).toBe("EAGAIN");
    await waits.run(`os.close(fd)`);
    expect(await one.run(`result=code(fcntl.lockf,fd,fcntl.LOCK_EX|fcntl.LOCK_NB)`)).toBe("ok");
    await one.run(`os.close(fd)`);
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
