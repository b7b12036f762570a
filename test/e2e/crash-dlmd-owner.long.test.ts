/**
 * dlmd of the owner dies, and other nodes have the volume mounted: a pause, too. They keep what its programs have, one of them is the next owner, and it goes on there
 * (hazard F44).
 */
import { describe, expect, it } from "vitest";
import { findOverlay } from "../../overlay/query/overlay-query.ts";
import { type Actor, actorsEnded, startActor, until, untilWaiting } from "./actor.ts";
import { CrashLab } from "./crash-lab.ts";
import { coverlay } from "./lab.ts";
import { Load } from "./restart-load.ts";
import { ALL_WAITS, SharedLocks } from "./shared-locks.ts";

/** How often dlmd of the owner is killed under load. */
const CRASHES = Number(process.env["COVERLAY_DLMD_CRASHES"] ?? 4);

describe("a crash of the owner's dlmd", () => {
  const bench = new CrashLab({ nodes: 3 });
  const load = new Load();

  it(
    "programs on all nodes keep their files, mappings, locks and listings, time after time under load, and see what others write",
    async () => {
      const { lab } = bench;
      expect(await bench.owner()).toBe(1);
      const [here, elsewhere] = [1, 2].map((nodeid) => startActor({ cwd: lab.node(nodeid).mount })) as [Actor, Actor];
      await load.begin(lab.nodes, { here, elsewhere, doubts: true });
      for (let time = 0; time < CRASHES; time += 1) {
        const owner = await bench.owner();
        await bench.pauses(owner);
        await bench.goesOn(owner);
        expect(await bench.owner()).not.toBe(owner);
        await load.goesOn();
      }
      await load.end();
    },
    120_000 + 60_000 * CRASHES,
  );

  it("programs wait on for file locks, and hold those of files that other nodes lock, too (hazard F45)", async () => {
    const owner = await bench.owner();
    const other = (owner % 3) + 1;
    const locks = new SharedLocks(bench.lab, owner, other);
    await locks.begin();
    await bench.pauses(owner);
    await bench.isLeftOut(owner, other);
    await locks.meanwhile();
    await bench.goesOn(owner);
    expect(await locks.goOn()).toEqual(ALL_WAITS);
  });

  it("meanwhile there is another owner, and nobody gets what this node has; what others remove stays for it", async () => {
    const { lab } = bench;
    const owner = await bench.owner();
    const [next, third] = [(owner % 3) + 1, ((owner + 1) % 3) + 1];
    const [here, other, another] = [owner, next, third].map((nodeid) => startActor({ cwd: lab.node(nodeid).mount })) as [
      Actor,
      Actor,
      Actor,
    ];
    await here.run(`
fd=os.open("token",os.O_RDWR|os.O_CREAT); os.write(fd,b"a"*4096); mapped=mmap.mmap(fd,4096); mapped[0:1]=b"b"
locked=os.open("mine",os.O_RDWR|os.O_CREAT); fcntl.flock(locked,fcntl.LOCK_EX)
gone=os.open("away",os.O_RDWR|os.O_CREAT); os.write(gone,b"still there"); os.unlink("away")
put("removed","removed elsewhere"); later=os.open("removed",os.O_RDONLY); os.mkdir("below"); below=os.open("below",os.O_RDONLY)
put("cached","before"); read=os.open("cached",os.O_RDONLY); seen=mmap.mmap(read,6,prot=mmap.PROT_READ); result=seen[:6].decode()`);
    const share = `fd=os.open("token",os.O_RDWR); result=code(map_shared,fd,4096); os.close(fd)`;
    const lock = `fd=os.open("mine",os.O_RDWR); result=code(fcntl.flock,fd,fcntl.LOCK_EX|fcntl.LOCK_NB); os.close(fd)`;
    expect(await other.run(share)).toBe("ENODEV");
    await here.run(`mapped[1:2]=b"c"`);
    await bench.pauses(owner);
    const waits = here.run(`result=os.pread(gone,20,0).decode()`);
    await bench.isLeftOut(owner, next);
    await until("there is another owner", async () => [next, third].includes(await lab.owner()));
    for (const actor of [other, another]) {
      expect(await actor.run(share)).toBe("ENODEV");
      expect(await actor.run(`result=get("token")[:2]`)).toBe("bc");
    }
    await other.run(`put("cached","after!"); os.unlink("removed"); os.rmdir("below")`);
    const asked = another.run(lock);
    await untilWaiting(another);
    await bench.goesOn(owner);
    expect([await waits, await asked]).toEqual(["still there", "EAGAIN"]);
    expect(
      await here.run(`result=[seen[:6].decode(),get("cached"),os.pread(later,99,0).decode(),os.fstat(later).st_nlink,os.listdir(below)]`),
    ).toEqual(["after!", "after!", "removed elsewhere", 0, []]);
    expect(await other.run(share)).toBe("ENODEV");
    expect(await other.run(lock)).toBe("EAGAIN");
    expect(await here.run(`mapped[2:3]=b"d"; mapped.flush(); result=[os.fstat(gone).st_nlink,code(os.fsync,gone)]`)).toEqual([0, "ok"]);
    expect(await other.run(`result=get("token")[:3]`)).toBe("bcd");
    await here.run(`mapped.close(); seen.close(); [os.close(one) for one in (fd,locked,gone,later,below,read)]`);
    await until("the write token is free", async () => (await other.run(share)) === "ok");
    expect(await other.run(lock)).toBe("ok");
    await until("what has no name is gone", async () => {
      const { orphans } = await bench.status(await bench.owner());
      return orphans?.kept === 0;
    });
  });

  it("is unmounted meanwhile like any other mount: what others keep is collected", async () => {
    const { lab } = bench;
    const owner = await bench.owner();
    const next = (owner % 3) + 1;
    const { mount, runDir } = lab.node(owner);
    const here = startActor({ cwd: mount });
    await here.run(`fd=os.open("unmounted",os.O_RDWR|os.O_CREAT); fcntl.flock(fd,fcntl.LOCK_EX)`);
    await bench.pauses(owner);
    await bench.isLeftOut(owner, next);
    await actorsEnded();
    // The end of that program waits in its close(2).
    expect((await coverlay(["umount", "--lazy", mount])).status).toBe(0);
    await until("nobody has it", () => findOverlay(runDir, mount) === null);
    const there = startActor({ cwd: lab.node(next).mount });
    const take = `fd=os.open("unmounted",os.O_RDWR); result=code(fcntl.flock,fd,fcntl.LOCK_EX|fcntl.LOCK_NB); os.close(fd)`;
    const waits = there.run(take);
    await untilWaiting(there);
    await lab.start(owner);
    expect(["ok", "EAGAIN"]).toContain(await waits);
    await until("it was collected", async () => (await there.run(take)) === "ok");
  });

  it("ends the mount where nobody keeps what it has; the others go on", async () => {
    const { lab } = bench;
    const owner = await bench.owner();
    const others = [1, 2, 3].filter((nodeid) => nodeid !== owner);
    await startActor({ cwd: lab.node(owner).mount }).run(`fd=os.open("locked",os.O_RDWR|os.O_CREAT); fcntl.flock(fd,fcntl.LOCK_EX)`);
    // Those do not answer: nobody keeps anything.
    const stalled = others.map((nodeid) => bench.pid(nodeid));
    for (const pid of stalled) process.kill(pid, "SIGSTOP");
    bench.killDlmd(owner);
    await until("the owner's mount has ended", async () => (await bench.errorAt(owner)) === "ENOTCONN");
    for (const pid of stalled) process.kill(pid, "SIGCONT");
    // What was asked of them was taken back.
    const take = `fd=os.open("locked",os.O_RDWR); result=code(fcntl.flock,fd,fcntl.LOCK_EX); os.close(fd)`;
    for (const nodeid of others) expect(await startActor({ cwd: lab.node(nodeid).mount }).run(take)).toBe("ok");
    await lab.start(owner);
  });
});
