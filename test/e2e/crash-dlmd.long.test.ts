/** dlmd of a node dies beneath its mount, and is started again: that is a pause (hazard F42). Nothing ends with an error, nothing is made twice, nothing is stale. */
import { beforeAll, describe, expect, it } from "vitest";
import { mountTable } from "../../dlmd/base/mount-table.ts";
import { findOverlay } from "../../overlay/query/overlay-query.ts";
import { type Actor, actorsEnded, startActor, until, untilWaiting } from "./actor.ts";
import { CrashLab } from "./crash-lab.ts";
import { coverlay, logOf, type TestLab } from "./lab.ts";
import { Load } from "./restart-load.ts";
import { ALL_WAITS, SharedLocks } from "./shared-locks.ts";
import { SteadyWorker } from "./steady-worker.ts";

/** How often dlmd of each of two nodes is killed under load. */
const CRASHES = Number(process.env["COVERLAY_DLMD_CRASHES"] ?? 4);

/** Each round asks dlmd: the file is a new one. The second process that asks has to wait. */
const asksForLocks = `
import fcntl,json,os,sys,threading
me=sys.argv[1]
stop=threading.Event()
threading.Thread(target=lambda:(sys.stdin.read(),stop.set()),daemon=True).start()
os.makedirs(me,exist_ok=True)
n=0
while not stop.is_set():
    n+=1
    fd=os.open(f"{me}/{n}",os.O_RDWR|os.O_CREAT|os.O_EXCL)
    fcntl.flock(fd,fcntl.LOCK_EX)
    other=os.open(f"{me}/{n}",os.O_RDWR)
    try: fcntl.flock(other,fcntl.LOCK_EX|fcntl.LOCK_NB); raise AssertionError("had twice")
    except BlockingIOError: pass
    os.close(fd); fcntl.flock(other,fcntl.LOCK_EX); os.close(other); os.unlink(f"{me}/{n}")
    print(n,flush=True)
print(json.dumps({"rounds":n}),flush=True)
`;

describe("a crash of dlmd", () => {
  const bench = new CrashLab({ nodes: 3 });
  let lab: TestLab;
  beforeAll(() => {
    lab = bench.lab;
  });
  const load = new Load();
  /** What its pauses have written down: calls without an answer, files that stayed. */
  const countsOf = (nodeid: number, what: "left" | "shared"): number[] =>
    [...logOf(lab, nodeid).matchAll(new RegExp(`all is given up.* ${what}=(\\d+)`, "g"))].map(([, count]) => Number(count));

  it(
    "programs keep their files, mappings, locks and listings, time after time under load, and see what others write",
    async () => {
      expect(await lab.owner()).toBe(1);
      await load.begin(lab.nodes, { here: startActor({ cwd: lab.node(2).mount }), elsewhere: startActor({ cwd: lab.node(3).mount }) });
      for (let time = 0; time < CRASHES; time += 1) {
        for (const nodeid of [2, 3]) {
          await bench.pauses(nodeid);
          await bench.goesOn(nodeid);
          await load.goesOn();
        }
      }
      await load.end();
      const counts = (what: "left" | "shared"): string => [2, 3].flatMap((nodeid) => countsOf(nodeid, what)).join(" ");
      process.stderr.write(`calls that had no answer: ${counts("left")}; files that stayed: ${counts("shared")}\n`);
    },
    120_000 + 60_000 * CRASHES,
  );

  it("meanwhile no other node gets what this one has, others change what it had cached, and it sees that", async () => {
    const [here, other, owners] = [2, 3, 1].map((nodeid) => startActor({ cwd: lab.node(nodeid).mount })) as [Actor, Actor, Actor];
    await here.run(`
fd=os.open("token",os.O_RDWR|os.O_CREAT); os.write(fd,b"a"*4096); mapped=mmap.mmap(fd,4096); mapped[0:1]=b"b"
locked=os.open("mine",os.O_RDWR|os.O_CREAT); fcntl.flock(locked,fcntl.LOCK_EX)
gone=os.open("away",os.O_RDWR|os.O_CREAT); os.write(gone,b"still there"); os.unlink("away")
put("cached","before"); os.mkdir("names"); put("names/old","x")
read=os.open("cached",os.O_RDONLY); seen=mmap.mmap(read,6,prot=mmap.PROT_READ)
result=[seen[:6].decode(),os.listdir("names")]`);
    const share = `fd=os.open("token",os.O_RDWR); result=code(map_shared,fd,4096); os.close(fd)`;
    const lock = `fd=os.open("mine",os.O_RDWR); result=code(fcntl.flock,fd,fcntl.LOCK_EX|fcntl.LOCK_NB); os.close(fd)`;
    expect(await other.run(share)).toBe("ENODEV");
    // Written behind, and stored in a mapping that nobody has flushed: both are at the owner before the lease ends.
    await here.run(`put("behind","x"*3000); mapped[1:2]=b"c"`);
    await bench.pauses(2);
    const waits = here.run(`result=os.pread(gone,20,0).decode()`);
    const shown = await coverlay(["status", "--run-dir", lab.node(2).runDir]);
    expect(shown.stdout).toContain("dlmd of this node has died; calls have waited for");
    await bench.isLeftOut(2, 1);
    for (const actor of [other, owners]) {
      expect(await actor.run(share)).toBe("ENODEV");
      expect(await actor.run(`result=[get("token")[:2],len(get("behind"))]`)).toEqual(["bc", 3000]);
    }
    await other.run(`put("cached","after!"); os.rename("names/old","names/new"); put("more","x")`);
    const asked = other.run(lock);
    await bench.goesOn(2);
    expect([await waits, await asked]).toEqual(["still there", "EAGAIN"]);
    expect(await here.run(`result=[seen[:6].decode(),get("cached"),os.listdir("names"),os.path.exists("more")]`)).toEqual([
      "after!",
      "after!",
      ["new"],
      true,
    ]);
    expect(await other.run(share)).toBe("ENODEV");
    expect(await other.run(lock)).toBe("EAGAIN");
    expect(await here.run(`mapped[2:3]=b"d"; mapped.flush(); result=os.fstat(gone).st_nlink`)).toBe(0);
    expect(await other.run(`result=get("token")[:3]`)).toBe("bcd");
    await here.run(`mapped.close(); seen.close(); [os.close(one) for one in (fd,locked,gone,read)]`);
    // What was kept is given up.
    await until("the write token is free", async () => (await other.run(share)) === "ok");
    expect(await other.run(lock)).toBe("ok");
  });

  it("a call that waits for a lock just then is made once, and what its page stands in is changed by nobody meanwhile", async () => {
    const [reader, writer, other] = [2, 2, 3].map((nodeid) => startActor({ cwd: lab.node(nodeid).mount })) as [Actor, Actor, Actor];
    await writer.run(`fd=os.open("both",os.O_RDWR|os.O_CREAT); os.write(fd,b"a"*8192)`);
    await other.run(`put("theirs","x"); result=get("both")[0]`);
    await writer.run(`result=os.pread(fd,1,0).decode()`);
    // That node has PR of the one, and EX of the other, and does not answer.
    const stalled = bench.pid(3);
    process.kill(stalled, "SIGSTOP");
    const read = reader.run(`put("theirs","y",os.O_WRONLY|os.O_APPEND); result=get("theirs")`);
    const written = writer.run(`os.pwrite(fd,b"new",0); result=os.pread(fd,5,0).decode()`);
    await untilWaiting(reader);
    await untilWaiting(writer);
    await bench.pauses(2);
    expect([countsOf(2, "left").at(-1), countsOf(2, "shared").at(-1)]).toEqual([2, 1]);
    process.kill(stalled, "SIGCONT");
    await bench.isLeftOut(2, 1);
    let isChanged = false;
    const changed = other.run(`fd=os.open("both",os.O_WRONLY); os.pwrite(fd,b"B"*5,2); os.close(fd)`).then(() => (isChanged = true));
    await untilWaiting(other);
    expect(isChanged).toBe(false);
    await bench.goesOn(2);
    const seen = [await read, await written];
    await changed;
    const [text, elsewhere] = await Promise.all([reader, other].map((actor) => actor.run<string>(`result=get("both")[:8]`)));
    // Both wrote at once: either may be the first one.
    expect(["neBBBBBa", "newBBBBa"]).toContain(text);
    expect([elsewhere, seen[0]]).toEqual([text, "xy"]);
    expect([text?.slice(0, 5), "newaa"]).toContain(seen[1]);
  });

  it("a request for a file lock that is with dlmd just then is made again: nobody ends, or has two", async () => {
    const askers = Array.from({ length: 4 }, (_, k) => new SteadyWorker(lab.node(2).mount, [`asks${k}`], asksForLocks));
    try {
      for (let time = 0; time < CRASHES; time += 1) {
        for (const one of askers) await one.goesOn();
        await bench.pauses(2);
        await bench.goesOn(2);
      }
      for (const one of askers) await one.goesOn();
      for (const one of askers) expect(await one.end()).toBeGreaterThan(3 * CRASHES);
    } finally {
      for (const one of askers) one.kill();
    }
  });

  it("is unmounted meanwhile like any other mount", async () => {
    await actorsEnded();
    await bench.pauses(2);
    const { mount, runDir } = lab.node(2);
    expect((await coverlay(["umount", mount])).status).toBe(0);
    await until("nobody has it", () => findOverlay(runDir, mount) === null);
    expect(mountTable().some(({ mountPoint }) => mountPoint === mount)).toBe(false);
    await lab.start(2);
    await bench.isGuarded(2);
  });

  it("programs wait on for file locks, and hold those of files that other nodes lock, too (hazard F45)", async () => {
    const locks = new SharedLocks(lab, 2, 3);
    await locks.begin();
    await bench.pauses(2);
    await bench.isLeftOut(2, 3);
    await locks.meanwhile();
    await bench.goesOn(2);
    expect(await locks.goOn()).toEqual(ALL_WAITS);
  });
});
