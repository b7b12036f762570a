/** The process of a mount is killed, while programs on all nodes work there: that is a pause. Nothing ends with an error, nothing is made twice, nothing is stale (hazards F38, F39, F40). */
import { writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { run } from "../../overlay/lab/command.ts";
import { findOverlay } from "../../overlay/query/overlay-query.ts";
import { type Actor, endActors, startActor, until, untilWaiting } from "./actor.ts";
import { CrashLab } from "./crash-lab.ts";
import { coverlay, keepersOf, logOf, startLab, type TestLab } from "./lab.ts";
import { Load } from "./restart-load.ts";
import { ALL_WAITS, SharedLocks } from "./shared-locks.ts";

/** How often the process of each of two mounts is killed under load. */
const CRASHES = Number(process.env["COVERLAY_CRASHES"] ?? 10);

/** Each with a lock and a write token. */
const OPEN_FILES = 3000;

describe("a crash of a mount's process", () => {
  const bench = new CrashLab({ nodes: 3 });
  let lab: TestLab;
  beforeAll(() => {
    lab = bench.lab;
  });
  const load = new Load();

  it(
    "programs keep their files, mappings, directories and listings, time after time under load, and see what others write",
    async () => {
      expect(await lab.owner()).toBe(1);
      await load.begin(lab.nodes, { here: startActor({ cwd: lab.node(2).mount }), elsewhere: startActor({ cwd: lab.node(3).mount }) });
      const pids = new Set<number>();
      for (let time = 0; time < CRASHES; time += 1) {
        // What was cached here is stale after this, if a lock was lost on the way.
        for (const nodeid of [2, 3]) {
          for (const pid of await bench.crash(nodeid)) pids.add(pid);
          await load.goesOn();
        }
      }
      expect(pids.size).toBe(2 * (CRASHES + 1));
      await load.end();
    },
    120_000 + 30_000 * CRASHES,
  );

  it("what a program was told to be written is there", async () => {
    const here = startActor({ cwd: lab.node(2).mount });
    const elsewhere = startActor({ cwd: lab.node(3).mount });
    await bench.isGuarded(2);
    const pid = bench.pid(2);
    // Written behind: the process is killed in the turn after the last close.
    await here.run(
      `
os.makedirs("behind",exist_ok=True)
for k in range(200): put(f"behind/{k}",str(k)*100)
os.kill(pid,9)`,
      { pid },
    );
    const wrong = `result=[k for k in range(200) if get(f"behind/{k}")!=str(k)*100]`;
    expect(await here.run(wrong)).toEqual([]);
    expect(await elsewhere.run(wrong)).toEqual([]);
  });

  it("others that wait for a file see what was written behind and had not left, though its lock is taken over (hazard F38)", async () => {
    const here = startActor({ cwd: lab.node(2).mount });
    const others = [1, 3].map((nodeid) => startActor({ cwd: lab.node(nodeid).mount }));
    // So many are open that their locks take a while.
    await here.run(
      `
import resource
resource.setrlimit(resource.RLIMIT_NOFILE,(files+100,files+100))
fds=[os.open(f"waited{k}",os.O_RDWR|os.O_CREAT) for k in range(8)]
for fd in fds: os.write(fd,b"old"); os.fsync(fd)
os.mkdir("many")
more=[os.open(f"many/{k}",os.O_RDWR|os.O_CREAT) for k in range(files)]`,
      { files: OPEN_FILES },
    );
    // All of them at once.
    const read = `
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool: result=sorted(set(pool.map(lambda k:get(f"waited{k}"),range(8))))`;
    for (const other of others) expect(await other.run(read)).toEqual(["old"]);
    const found = (): string[] => logOf(lab, 2).match(/this process goes on after a crash.* calls=[0-9]+/g) ?? [];
    let made = 0;
    // Where the machine is slow, all has left before the kill: then once more.
    for (let time = 0; made === 0 && time < CRASHES; time += 1) {
      await bench.isGuarded(2);
      const pid = bench.pid(2);
      const before = found().length;
      const text = `new${time}`;
      // With the first write of each the owner says that there is room.
      await here.run(
        `
for fd in fds: os.pwrite(fd,b"last",0)
for fd in fds: os.pwrite(fd,text.encode(),0)
os.kill(pid,9)`,
        { pid, text },
      );
      // Nobody has taken the locks over yet.
      expect(await Promise.all(others.map((other) => other.run(read)))).toEqual([[text], [text]]);
      await until("a new process says what it has found", () => found().length > before);
      made = Number(/calls=([0-9]+)/.exec(found().at(-1) ?? "")?.[1]);
    }
    expect(made).toBeGreaterThan(0);
    await here.run(`for fd in fds+more: os.close(fd)`);
  });

  it("two processes that are killed one after the other before anybody has called them are one pause", async () => {
    const here = startActor({ cwd: lab.node(2).mount });
    await here.run(`fd=os.open("twice",os.O_RDWR|os.O_CREAT); os.write(fd,b"text")`);
    const [, next] = await bench.crash(2);
    process.kill(next, "SIGKILL");
    expect(await here.run(`result=os.pread(fd,9,0).decode(); os.write(fd,b"more"); os.fsync(fd)`)).toBe("text");
    expect(await startActor({ cwd: lab.node(3).mount }).run(`result=get("twice")`)).toBe("textmore");
  });

  it("a planned restart goes as ever after a crash, and a crash after that is a pause again", async () => {
    const here = startActor({ cwd: lab.node(2).mount });
    await here.run(`fd=os.open("planned",os.O_RDWR|os.O_CREAT); os.write(fd,b"text")`);
    await bench.crash(2);
    const { mount, runDir } = lab.node(2);
    expect(await coverlay(["restart", mount, "--run-dir", runDir])).toMatchObject({ status: 0 });
    await bench.crash(2);
    expect(await here.run(`result=os.pread(fd,9,0).decode(); os.close(fd)`)).toBe("text");
  });

  it("a mount that is unmounted after a crash leaves nothing", async () => {
    await bench.crash(2);
    endActors();
    const { mount, runDir } = lab.node(2);
    const pid = bench.pid(2);
    await until("it is unmounted", async () => (await run("umount", ["-i", mount])).status === 0);
    await until("its process has ended", () => findOverlay(runDir, mount) === null && !isAlive(pid));
    expect(keepersOf(mount)).toEqual([]);
    await lab.start(2);
    await bench.isGuarded(2);
  });

  it("file locks are held as before, by whom they were, and go with the close", async () => {
    const [one, near, other] = [2, 2, 3].map((nodeid) => startActor({ cwd: lab.node(nodeid).mount })) as [Actor, Actor, Actor];
    await one.run(`
fd=os.open("locked",os.O_RDWR|os.O_CREAT); fcntl.lockf(fd,fcntl.LOCK_EX,10)
flocked=os.open("flocked",os.O_RDWR|os.O_CREAT); fcntl.flock(flocked,fcntl.LOCK_EX)`);
    await bench.crash(2);
    expect(await one.run(`os.pwrite(fd,b"x",0); result=os.fstat(fd).st_size`)).toBe(1);
    const tries = `result=[code(f,os.open(n,os.O_RDWR),fcntl.LOCK_EX|fcntl.LOCK_NB) for n,f in (("locked",fcntl.lockf),("flocked",fcntl.flock))]`;
    for (const actor of [near, other]) expect(await actor.run(tries)).toEqual(["EAGAIN", "EAGAIN"]);
    await one.run(`os.close(fd); os.close(flocked)`);
    expect(await other.run(tries)).toEqual(["ok", "ok"]);
    for (const actor of [one, near, other]) {
      actor.signal("SIGKILL");
      await actor.ended;
    }
  });

  it("programs wait on for file locks, and hold those of files that other nodes lock, too (hazard F45)", async () => {
    const locks = new SharedLocks(lab, 2, 3);
    await locks.begin();
    // One process after the other, and the third with locks that the second has inherited.
    await bench.crash(2);
    await locks.meanwhile();
    await bench.crash(2);
    expect(await locks.goOn()).toEqual(ALL_WAITS);
  });
});

describe("a process of a mount that its dlmd has killed", () => {
  const BAST_LIMIT_MS = 3000;
  let lab: TestLab;
  beforeAll(async () => {
    lab = await startLab({ nodes: 3, env: { COVERLAY_BAST_LIMIT_MS: String(BAST_LIMIT_MS) } });
  });
  afterAll(async () => {
    endActors();
    await lab?.end();
  });

  it("has no heir: others have had its locks, and nothing that it had not written is written over theirs", async () => {
    expect(await lab.owner()).toBe(1);
    const [here, other] = [2, 3].map((nodeid) => startActor({ cwd: lab.node(nodeid).mount })) as [Actor, Actor];
    await here.run(`
fd=os.open("mapped",os.O_RDWR|os.O_CREAT); os.write(fd,bytes(8192)); os.fsync(fd)
m=mmap.mmap(fd,8192); m[0:4]=b"AAAA"`);
    const pid = lab.overlayPid(2) ?? 0;
    const keepers = keepersOf(lab.node(2).mount);
    expect(keepers).toHaveLength(1);
    process.kill(pid, "SIGSTOP");
    // Waits for that node's lock, until dlmd has killed the process that does not answer.
    await other.run(`fd=os.open("mapped",os.O_RDWR); os.pwrite(fd,b"BBBB",100); os.fsync(fd)`);
    await until("the process and its keeper are gone", () => !isAlive(pid) && keepers.every((keeper) => !isAlive(keeper)));
    const end = startActor({ cwd: "/" });
    expect(await end.run(`result=code(os.stat,mount)`, { mount: lab.node(2).mount })).toBe("ENOTCONN");
    const owner = startActor({ cwd: lab.node(1).mount });
    expect(await owner.run(`fd=os.open("mapped",os.O_RDONLY); result=os.pread(fd,4,100).decode()`)).toBe("BBBB");
  });

  it("has no heir while an operator blocks the mount: what was held is not made", async () => {
    const crash = async (): Promise<unknown> =>
      (JSON.parse((await coverlay(["status", "--json", "--run-dir", lab.node(3).runDir])).stdout) as { overlay: { crash: unknown } })
        .overlay.crash;
    await until("a crash is a pause", async () => (await crash()) === null);
    writeFileSync(path.join(lab.node(3).runDir, "volume-lab", "block"), "1\n");
    await until("the order is there", async () => (await crash()) === "an operator blocks it");
    const here = startActor({ cwd: lab.node(3).mount });
    const held = here.run(`result=code(put,"held","x")`);
    await untilWaiting(here);
    process.kill(lab.overlayPid(3) ?? 0, "SIGKILL");
    expect(await held).toMatch(/^(?:ENOTCONN|ECONNABORTED)$/);
    const owner = startActor({ cwd: lab.node(1).mount });
    expect(await owner.run(`result=os.path.exists("held")`)).toBe(false);
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
