/**
 * The process of the owner's mount is killed, while programs on all nodes work there: its programs go on, too, at the next owner (hazard F41). What was under way there
 * may end with EIO; nothing is made twice, lost or stale.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type Actor, startActor, until } from "./actor.ts";
import { CrashLab } from "./crash-lab.ts";
import { keepersOf } from "./lab.ts";
import { Load } from "./restart-load.ts";
import { ALL_WAITS, SharedLocks } from "./shared-locks.ts";

/** How often the process of the owner is killed under load. */
const CRASHES = Number(process.env["COVERLAY_CRASHES"] ?? 10);

describe("a crash of the owner's process", () => {
  const bench = new CrashLab({ nodes: 3 });
  const load = new Load();

  it(
    "programs on all nodes keep their files, mappings, directories and listings, time after time under load, and see what others write",
    async () => {
      const { lab } = bench;
      expect(await bench.owner()).toBe(1);
      const [here, elsewhere] = [1, 2].map((nodeid) => startActor({ cwd: lab.node(nodeid).mount })) as [Actor, Actor];
      await load.begin(lab.nodes, { here, elsewhere, doubts: true });
      const owners = new Set<number>();
      for (let time = 0; time < CRASHES; time += 1) {
        owners.add(await bench.crashOwner());
        await load.goesOn();
      }
      expect(owners.size).toBeGreaterThan(1);
      await load.end();
    },
    120_000 + 30_000 * CRASHES,
  );

  it("programs wait on for file locks, and hold those of files that other nodes lock, too (hazard F45)", async () => {
    const owner = await bench.owner();
    const locks = new SharedLocks(bench.lab, owner, (owner % 3) + 1);
    await locks.begin();
    await bench.crashOwner();
    await locks.meanwhile();
    expect(await locks.goOn()).toEqual(ALL_WAITS);
  });

  it("what its programs were told to be written is there, and fsync(2) says nothing else", async () => {
    const { lab } = bench;
    const owner = await bench.owner();
    await bench.isGuarded(owner);
    const pid = lab.overlayPid(owner) ?? 0;
    const here = startActor({ cwd: lab.node(owner).mount });
    await here.run(
      `
os.makedirs("told",exist_ok=True)
fd=os.open("told/open",os.O_RDWR|os.O_CREAT); os.write(fd,b"x"*100000)
for k in range(100): put(f"told/{k}",str(k)*100)
os.kill(pid,9)
os.fsync(fd); result=len(os.pread(fd,200000,0))`,
      { pid },
    );
    const wrong = `result=[k for k in range(100) if get(f"told/{k}")!=str(k)*100]`;
    for (const { mount } of lab.nodes) expect(await startActor({ cwd: mount }).run(wrong)).toEqual([]);
  });

  it("the owner's process and that of another node are killed together: both go on", async () => {
    const { lab } = bench;
    const owner = await bench.owner();
    const other = (owner % 3) + 1;
    const actors = [owner, other].map((nodeid) => startActor({ cwd: lab.node(nodeid).mount }));
    for (const [at, actor] of actors.entries())
      await actor.run(`fd=os.open(name,os.O_RDWR|os.O_CREAT); os.write(fd,b"text"); os.unlink(name)`, { name: `both${at}` });
    for (const nodeid of [owner, other]) await bench.isGuarded(nodeid);
    const served = [other, owner].map((nodeid) => bench.kill(nodeid));
    for (const goesOn of served) await goesOn();
    for (const actor of actors) expect(await actor.run(`result=os.pread(fd,9,0).decode(); os.close(fd)`)).toBe("text");
  });

  it("what ends with each change of the owner ends, and nothing else: a directory that was replaced, a file that is known by O_PATH alone", async () => {
    const { lab } = bench;
    const owner = await bench.owner();
    const here = startActor({ cwd: lab.node(owner).mount });
    await here.run(`
os.mkdir("from"); os.mkdir("to"); replaced=os.open("to",os.O_RDONLY); os.rename("from","to")
put("path","text"); known=os.open("path",os.O_PATH); os.unlink("path"); fd=os.open(f"/proc/self/fd/{known}",os.O_RDONLY)
kept=os.open("kept",os.O_RDWR|os.O_CREAT); os.write(kept,b"text")`);
    await bench.crashOwner();
    expect(
      await here.run(`result=[os.pread(kept,9,0).decode(),code(os.fsync,kept),code(os.listdir,replaced) in ("ok","ESTALE","ENOENT")]`),
    ).toEqual(["text", "ok", true]);
  });

  it("no file of another node is removed, or appended to, a second time", async () => {
    const { lab } = bench;
    const owner = await bench.owner();
    await bench.isGuarded(owner);
    const pid = lab.overlayPid(owner) ?? 0;
    // It is killed while these are under way. What they did is done, or not, or they say EIO.
    const here = startActor({ cwd: lab.node(owner).mount });
    const done = here.run<[string[], string[]]>(
      `
import threading
os.makedirs("twice",exist_ok=True)
for k in range(300): put(f"twice/{k}","old")
log=os.open("twice-log",os.O_WRONLY|os.O_CREAT|os.O_APPEND)
threading.Timer(0.02,lambda: os.kill(pid,9)).start()
removed=[code(os.unlink,f"twice/{k}") for k in range(300)]
appended=[code(os.write,log,b"%03d\\n"%k) for k in range(300)]
result=[removed,appended]`,
      { pid },
    );
    const [removed, appended] = await done;
    // One call is under way at a time.
    const doubts = [...removed, ...appended].filter((answer) => answer !== "ok");
    expect([[], ["EIO"]]).toContainEqual(doubts);
    const elsewhere = startActor({ cwd: lab.node((owner % 3) + 1).mount });
    const [left, lines] = await elsewhere.run<[string[], string[]]>(`result=[os.listdir("twice"),get("twice-log").split()]`);
    expect(left.filter((name) => removed[Number(name)] === "ok")).toEqual([]);
    const sure = Array.from({ length: 300 }, (_, k) => String(k).padStart(3, "0")).filter((_, k) => appended[k] === "ok");
    expect(lines.filter((line) => appended[Number(line)] === "ok")).toEqual(sure);
    expect(new Set(lines).size).toBe(lines.length);
  });
});

describe("a node that has the volume alone", () => {
  const bench = new CrashLab({ nodes: 1, lower: "xfs" });

  it("is its owner again, and its programs keep what they have open", async () => {
    const { lab } = bench;
    const here = startActor({ cwd: lab.node(1).mount });
    await here.run(`
fd=os.open("nameless",os.O_RDWR|os.O_CREAT); os.write(fd,b"text"); os.unlink("nameless")
os.mkdir("d"); os.chdir("d"); put("below","x")`);
    for (let time = 0; time < 3; time += 1) {
      expect(await bench.crashOwner()).toBe(1);
      expect(await here.run(`result=[os.pread(fd,9,0).decode(),os.listdir("."),os.fstat(fd).st_nlink]; os.fsync(fd)`)).toEqual([
        "text",
        ["below"],
        0,
      ]);
    }
  });
});

describe("new processes that are killed, too", () => {
  const bench = new CrashLab({ nodes: 1 });
  const childOf = (keeper: number): number | null =>
    Number(readFileSync(`/proc/${keeper}/task/${keeper}/children`, "latin1").trim().split(" ").at(-1) ?? 0) || null;

  it("one after the other, before and after they have the volume: the last one goes on", async () => {
    const { lab } = bench;
    const here = startActor({ cwd: lab.node(1).mount });
    await here.run(`fd=os.open("file",os.O_RDWR|os.O_CREAT); os.write(fd,b"text")`);
    await bench.isGuarded(1);
    const [keeper] = keepersOf(lab.node(1).mount);
    if (keeper === undefined) throw new Error("there is no keeper");
    const first = lab.overlayPid(1) ?? 0;
    process.kill(first, "SIGKILL");
    const killed = new Set<number>();
    for (const isThere of [() => true, (pid: number) => hasSuperblockOpen(pid), (pid: number) => hasSuperblockOpen(pid)]) {
      let pid: number | null = null;
      await until("the next process is there", () => {
        pid = childOf(keeper);
        return pid !== null && !killed.has(pid) && isThere(pid);
      });
      process.kill(pid as unknown as number, "SIGKILL");
      killed.add(pid as unknown as number);
    }
    expect(await here.run(`result=os.pread(fd,9,0).decode(); os.write(fd,b"more"); os.fsync(fd)`)).toBe("text");
    const now = (await bench.status(1)).pid;
    expect([now === first, killed.has(now), killed.size]).toEqual([false, false, 3]);
    expect(await here.run(`result=get("file")`)).toBe("textmore");
  });
});

/** It has mounted the volume: a mount in no namespace, of which a descriptor is open. */
function hasSuperblockOpen(pid: number): boolean {
  try {
    return readdirSync(`/proc/${pid}/fd`).some((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`) === "/");
  } catch {
    return false;
  }
}

describe("a volume that is a directory of the owner", () => {
  const bench = new CrashLab({ nodes: 2, lower: "directory" });

  it("ends with the owner's process: nobody else can have it, and status says so before", async () => {
    const { lab } = bench;
    expect(await bench.owner()).toBe(1);
    await until("it is said", async () => (await bench.status(1)).crash === "this node is the owner, and the volume is a directory of it");
    await bench.isGuarded(2);
    process.kill(lab.overlayPid(1) ?? 0, "SIGKILL");
    const end = startActor({ cwd: "/" });
    await until(
      "its mount has ended",
      async () => (await end.run<string>(`result=code(os.stat,mount)`, { mount: lab.node(1).mount })) === "ENOTCONN",
    );
  });
});
