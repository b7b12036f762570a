/** `coverlay restart --dlmd`: dlmd of a node is restarted beneath its mounts, while programs on all nodes work there. Nothing ends with an error, and nothing is stale. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { mountTable } from "../../dlmd/base/mount-table.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import { askAdmin } from "../../dlmd/client/admin.ts";
import { connectDlm } from "../../dlmd/client/client.ts";
import { restartDlmd } from "../../overlay/cli/restart-dlmd.ts";
import { run, type RunResult } from "../../overlay/lab/command.ts";
import { askDlmd } from "../../overlay/query/dlmd-query.ts";
import { findOverlay, queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { type Actor, endActors, startActor, until } from "./actor.ts";
import { coverlay, coverlayProgram, logOf, startLab, type TestLab } from "./lab.ts";
import { Load } from "./restart-load.ts";
import { ALL_WAITS, SharedLocks } from "./shared-locks.ts";

/** How often dlmd of each of two nodes is restarted under load. */
const RESTARTS = Number(process.env["COVERLAY_DLMD_RESTARTS"] ?? 4);

describe("coverlay restart --dlmd", () => {
  let lab: TestLab;
  const load = new Load();
  const devices = new Map<number, string>();
  const scratch = mkdtempSync(path.join(os.tmpdir(), "coverlay-restart-dlmd-"));
  const dieFile = path.join(scratch, "die");

  const restart = (nodeid: number): Promise<RunResult> => {
    const { runDir, netns } = lab.node(nodeid);
    const words = [coverlayProgram, "restart", "--dlmd", "--json", "--run-dir", runDir];
    return run("nsenter", [`--net=/run/netns/${netns}`, process.execPath, ...words], { timeoutMs: 180_000 });
  };
  const mustRestart = async (nodeid: number): Promise<void> => {
    const { status, stdout, stderr } = await restart(nodeid);
    expect([status, stderr]).toEqual([0, ""]);
    const { mounts } = JSON.parse(stdout) as { mounts: { mountpoint: string; pid: number }[] };
    expect(mounts).toMatchObject([{ mountpoint: lab.node(nodeid).mount, pid: await overlayPid(nodeid) }]);
  };
  const dlmdPid = (nodeid: number): number => Number(readFileSync(path.join(lab.node(nodeid).runDir, "dlmd.pid"), "utf8"));
  const overlayPid = async (nodeid: number): Promise<number> => (await queryOverlayStatus(lab.node(nodeid).runDir)).pid;
  const livesOf = (nodeid: number): number =>
    readFileSync(path.join(lab.dir, `node${nodeid}`, "dlmd.log"), "utf8").split("dlmd started").length - 1;
  const pausesOf = (nodeid: number): number[] => [...logOf(lab, nodeid).matchAll(/pauseMs=(\d+)/g)].map(([, ms]) => Number(ms));
  /** `work` while calls of that node wait, and its dlmd is about to be restarted. "served", or what the command says. */
  const whilePaused = (nodeid: number, work: () => Promise<void>): Promise<string> => {
    const { runDir } = lab.node(nodeid);
    const meanwhile = async (): Promise<void> => {
      expect((await queryOverlayStatus(runDir)).role).toBe("paused");
      await work();
      await askAdmin(runDir, { what: "restart", by: "a test" });
    };
    return restartDlmd(runDir, { say: () => undefined, signal: new AbortController().signal }, meanwhile).then(
      (served) => (served.length === 1 ? "served" : `${served.length} are served`),
      (error: unknown) => (error instanceof OperatingError ? error.message : String(error)),
    );
  };
  const mountAgain = async (nodeid: number): Promise<void> => {
    const { netns, runDir, mount } = lab.node(nodeid);
    await until("its dlmd serves", () =>
      askDlmd(runDir, null).then(
        ({ view }) => view.running,
        () => false,
      ),
    );
    const words = [coverlayProgram, "mount", devices.get(nodeid) ?? "", mount, "-o", `runDir=${runDir}`];
    const { status, stderr } = await run("nsenter", [`--net=/run/netns/${netns}`, process.execPath, ...words]);
    expect([status, stderr]).toEqual([0, ""]);
  };

  beforeAll(async () => {
    lab = await startLab({ nodes: 3, env: { COVERLAY_RESTART_DIE_FILE: dieFile } });
    for (const { nodeid, runDir } of lab.nodes) devices.set(nodeid, (await queryOverlayStatus(runDir)).device);
  });
  afterAll(async () => {
    endActors();
    await lab?.end();
    rmSync(scratch, { recursive: true });
  });

  it(
    "programs keep their files, mappings, locks and listings, time after time under load, and see what others write",
    async () => {
      expect(await lab.owner()).toBe(1);
      const elsewhere = startActor({ cwd: lab.node(3).mount });
      await load.begin(lab.nodes, { here: startActor({ cwd: lab.node(2).mount }), elsewhere });
      for (let time = 0; time < RESTARTS; time += 1) {
        for (const nodeid of [2, 3]) {
          const before = [dlmdPid(nodeid), await overlayPid(nodeid)];
          const lives = livesOf(nodeid);
          await mustRestart(nodeid);
          // dlmd is another one in its process.
          const [dlmd, overlay] = [dlmdPid(nodeid), await overlayPid(nodeid)];
          expect([dlmd, livesOf(nodeid)]).toEqual([before[0], lives + 1]);
          expect(overlay).not.toBe(before[1]);
          await load.goesOn();
        }
      }
      process.stderr.write(`pauses in ms: node2 ${pausesOf(2).join(" ")}, node3 ${pausesOf(3).join(" ")}\n`);
      const tryLocks = `result=[code(call,os.open(f"w2/{name}",os.O_RDWR),fcntl.LOCK_EX|fcntl.LOCK_NB) for name,call in
 (("locked",fcntl.lockf),("flocked",fcntl.flock))]`;
      for (const actor of [elsewhere, startActor({ cwd: lab.node(2).mount })])
        expect(await actor.run<string[]>(tryLocks)).toEqual(["EAGAIN", "EAGAIN"]);
      await load.end();
    },
    120_000 + 60_000 * RESTARTS,
  );

  it("meanwhile no other node gets what this one has, and its calls wait; others go on", async () => {
    const [here, other, owners] = [2, 3, 1].map((nodeid) => startActor({ cwd: lab.node(nodeid).mount })) as [Actor, Actor, Actor];
    await here.run(`
fd=os.open("token",os.O_RDWR|os.O_CREAT); os.write(fd,b"a"*4096); mapped=mmap.mmap(fd,4096); mapped[0:1]=b"b"
locked=os.open("mine",os.O_RDWR|os.O_CREAT); fcntl.flock(locked,fcntl.LOCK_EX)
gone=os.open("away",os.O_RDWR|os.O_CREAT); os.write(gone,b"still there"); os.unlink("away")`);
    const share = `fd=os.open("token",os.O_RDWR); result=code(map_shared,fd,4096); os.close(fd)`;
    expect(await other.run(share)).toBe("ENODEV");
    let waits: Promise<unknown> = Promise.resolve();
    let locks: Promise<unknown> = Promise.resolve();
    const end = await whilePaused(2, async () => {
      waits = here.run(`result=os.pread(gone,20,0).decode()`);
      locks = other.run(`fd=os.open("mine",os.O_RDWR); result=code(fcntl.flock,fd,fcntl.LOCK_EX|fcntl.LOCK_NB); os.close(fd)`);
      for (const actor of [other, owners].slice(1)) {
        expect(await actor.run(share)).toBe("ENODEV");
        expect(await actor.run(`result=get("token")[0]; put("new","x"); os.rename("new","renamed")`)).toBe("b");
      }
      // The owner does not give away what it keeps.
      const refused = await coverlay(["handover", "lab", "--run-dir", lab.node(1).runDir]);
      expect([refused.status, refused.stderr]).toEqual([1, expect.stringContaining("the owner keeps what 1 mount(s) have")]);
      // Nor does whoever stops dlmd unmount it.
      const { mount, runDir } = lab.node(2);
      const stays = await coverlay(["umount", "--all", "--run-dir", runDir]);
      expect([stays.status, stays.stderr]).toEqual([0, expect.stringContaining(`${mount} stays`)]);
      expect(mountTable().some(({ mountPoint }) => mountPoint === mount)).toBe(true);
      const shown = await coverlay(["status", "--run-dir", runDir]);
      expect(shown.stdout).toContain("dlmd of this node is being restarted; calls have waited for");
    });
    expect([end, await waits, await locks]).toEqual(["served", "still there", "EAGAIN"]);
    expect(await other.run(share)).toBe("ENODEV");
    expect(await here.run(`mapped[1:2]=b"c"; mapped.flush(); result=os.fstat(gone).st_nlink`)).toBe(0);
    expect(await other.run(`result=get("token")[:2]`)).toBe("bc");
    await here.run(`mapped.close(); [os.close(one) for one in (fd,locked,gone)]`);
    // What was kept is given up: another node may have it all.
    await until("the write token is free", async () => (await other.run(share)) === "ok");
    expect(await other.run(`fd=os.open("mine",os.O_RDWR); result=code(fcntl.flock,fd,fcntl.LOCK_EX|fcntl.LOCK_NB); os.close(fd)`)).toBe(
      "ok",
    );
  });

  it("dlmd is not restarted while a program would lose its locks", async () => {
    const here = startActor({ cwd: lab.node(2).mount });
    const before = [dlmdPid(2), await overlayPid(2)];
    const { runDir } = lab.node(2);
    const client = await connectDlm(path.join(runDir, "dlmd.sock"), { view() {}, gone: () => Promise.resolve(), disconnected() {} });
    await client.lockspace("a-program");
    const inUse = await restart(2);
    expect([inUse.status, inUse.stderr]).toEqual([1, expect.stringContaining("programs would lose their locks")]);
    expect(dlmdPid(2)).toBe(before[0]);
    expect(client.view.running).toBe(true);
    await client.close();
    // The mount had paused, and goes on with the same dlmd.
    expect(await overlayPid(2)).not.toBe(before[1]);
    expect(await here.run(`put("after","x"); result=get("after")`)).toBe("x");
  });

  it("programs wait on for file locks, and hold those of files that other nodes lock, too (hazard F45)", async () => {
    const locks = new SharedLocks(lab, 2, 3);
    await locks.begin();
    expect(await whilePaused(2, () => locks.meanwhile())).toBe("served");
    expect(await locks.goOn()).toEqual(ALL_WAITS);
  });

  it("an owner hands its volume over first", async () => {
    expect(await lab.owner()).toBe(1);
    const here = startActor({ cwd: lab.node(1).mount });
    await here.run(`fd=os.open("owners",os.O_RDWR|os.O_CREAT); os.write(fd,b"text")`);
    await mustRestart(1);
    expect(await lab.owner()).toBe(2);
    expect(await here.run(`result=os.pread(fd,9,0).decode(); os.write(fd,b"more"); os.fsync(fd); os.close(fd)`)).toBe("text");
    expect((await coverlay(["handover", "lab", "node1", "--run-dir", lab.node(1).runDir])).status).toBe(0);
  });

  it("another new process is started where one dies; after it was told to go on, the mount ends with words", async () => {
    const here = startActor({ cwd: lab.node(2).mount });
    await here.run(`fd=os.open("dies",os.O_RDWR|os.O_CREAT); os.write(fd,b"text")`);
    for (const step of ["hello", "state"]) {
      const failures = (): number => logOf(lab, 2).split("a new process could not go on with the mount").length;
      const before = failures();
      const served = whilePaused(2, async () => writeFileSync(dieFile, step));
      await until("a new process has died", () => failures() > before);
      rmSync(dieFile);
      expect(await served).toBe("served");
      expect(await here.run(`result=os.pread(fd,9,0).decode()`)).toBe("text");
    }
    const { mount, runDir } = lab.node(2);
    const end = await whilePaused(2, async () => writeFileSync(dieFile, "go"));
    rmSync(dieFile);
    expect(end).toContain(`the mount on ${mount} has ended`);
    expect(await here.run(`result=code(os.fstat,fd)`)).toBe("ENOTCONN");
    endActors();
    expect((await coverlay(["umount", mount])).status).toBe(0);
    await until("nobody serves it", () => findOverlay(runDir, mount) === null);
    await mountAgain(2);
  });

  it("is unmounted meanwhile like any other mount", async () => {
    const { mount, runDir } = lab.node(2);
    const end = await whilePaused(2, async () => {
      expect((await coverlay(["umount", mount])).status).toBe(0);
      await until("its process has ended", () => findOverlay(runDir, mount) === null);
    });
    expect(end).toContain("has ended");
    await mountAgain(2);
  });

  it.each<[string, (mount: string) => Promise<unknown>]>([
    ["unmounted lazily", async (mount) => expect((await coverlay(["umount", "-l", mount])).status).toBe(0)],
    ["told to end", async () => process.kill(await overlayPid(2), "SIGTERM")],
  ])("what the owner keeps for a mount that is %s meanwhile other nodes get as soon as dlmd is there", async (_, end) => {
    const { mount, runDir } = lab.node(2);
    const [here, other, waits] = [2, 3, 3].map((nodeid) => startActor({ cwd: lab.node(nodeid).mount })) as [Actor, Actor, Actor];
    await here.run(`
fd=os.open("token",os.O_RDWR|os.O_CREAT); os.write(fd,b"a"*4096); mapped=mmap.mmap(fd,4096); mapped[0:1]=b"b"
locked=os.open("mine",os.O_RDWR|os.O_CREAT); fcntl.flock(locked,fcntl.LOCK_EX)`);
    const share = `fd=os.open("token",os.O_RDWR); result=code(map_shared,fd,4096); os.close(fd)`;
    const collections = (): number => logOf(lab, 2).split("end=collected").length - 1;
    const before = collections();
    let lock: Promise<unknown> = Promise.resolve();
    const words = await whilePaused(2, async () => {
      const refused = await coverlay(["handover", "lab", "--run-dir", lab.node(1).runDir]);
      expect([refused.status, refused.stderr]).toEqual([1, expect.stringContaining("the owner keeps what 1 mount(s) have")]);
      expect(await other.run(share)).toBe("ENODEV");
      lock = waits.run(`fd=os.open("mine",os.O_RDWR); result=code(fcntl.flock,fd,fcntl.LOCK_EX); os.close(fd)`);
      await end(mount);
      await until("its process has ended", () => findOverlay(runDir, mount) === null);
    });
    expect(words).toContain("has ended");
    await until("its calls are ENOTCONN", async () => (await here.run(`result=code(os.fstat,fd)`)) === "ENOTCONN");
    expect(await lock).toBe("ok");
    await until("the write token is free", async () => (await other.run(share)) === "ok");
    // It was not the limit that had it given up.
    expect(logOf(lab, 1)).not.toContain("a mount of another node did not come back");
    await until("the process that collects has said so", () => collections() > before);
    endActors();
    await mountAgain(2);
  });

  it("an owner that is unmounted meanwhile waits for the mount of which it keeps something", async () => {
    expect(await lab.owner()).toBe(1);
    const here = startActor({ cwd: lab.node(2).mount });
    await here.run(`fd=os.open("waits",os.O_RDWR|os.O_CREAT); os.write(fd,b"text")`);
    const { mount } = lab.node(1);
    const said = path.join(scratch, "umount");
    let unmounted: Promise<RunResult | null> = Promise.resolve(null);
    const end = await whilePaused(2, async () => {
      writeFileSync(said, "");
      unmounted = run("sh", ["-c", `exec "$@" 2>${said}`, "sh", process.execPath, coverlayProgram, "umount", mount], {
        timeoutMs: 120_000,
      });
      await until("it says for what it waits", async () => readFileSync(said, "utf8").includes("waiting for them"));
      expect(mountTable().some(({ mountPoint }) => mountPoint === mount)).toBe(true);
    });
    expect(end).toBe("served");
    expect(await unmounted).toMatchObject({ status: 0 });
    expect(readFileSync(said, "utf8")).not.toContain("so these end");
    expect(mountTable().some(({ mountPoint }) => mountPoint === mount)).toBe(false);
    expect(await here.run(`result=os.pread(fd,9,0).decode(); os.close(fd)`)).toBe("text");
    expect(await lab.owner()).not.toBe(1);
    await mountAgain(1);
    expect((await coverlay(["handover", "lab", "node1", "--run-dir", lab.node(1).runDir])).status).toBe(0);
    expect(await lab.owner()).toBe(1);
  });

  it("a mount ends when the owner that keeps its files dies; and dlmd stays where the others have no quorum without it", async () => {
    const here = startActor({ cwd: lab.node(3).mount });
    await here.run(`fd=os.open("kept",os.O_RDWR|os.O_CREAT)`);
    const end = await whilePaused(3, async () => {
      await lab.kill(1);
      await until("there is another owner", async () => (await queryOverlayStatus(lab.node(2).runDir)).role === "owner");
    });
    // Two nodes are left of three: dlmd of neither may go.
    expect(end).toContain("the other nodes have no quorum without this one");
    expect(logOf(lab, 3)).toContain("the volume has another owner now");
    // What has begun when the mount ends is ECONNABORTED.
    await until("all is ENOTCONN", async () => (await here.run(`result=code(os.fstat,fd)`)) === "ENOTCONN");
    const before = [dlmdPid(2), await overlayPid(2)];
    const { status, stderr } = await restart(2);
    expect([status, stderr]).toEqual([1, expect.stringContaining("the other nodes have no quorum without this one")]);
    expect([dlmdPid(2), await overlayPid(2)]).toEqual(before);
  });
});
