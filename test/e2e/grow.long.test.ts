/**
 * A volume grows while programs on all nodes work: the new size is seen by all at once, more fits, and the volume moves on. A node that has not read the size
 * of its device anew is not its owner, and takes part again once it has.
 */
import { statfsSync, truncateSync } from "node:fs";
import { afterEach, expect, it } from "vitest";
import { run, type RunResult } from "../../overlay/lab/command.ts";
import { joinLoop } from "../../overlay/lab/disk.ts";
import { labFiles } from "../../overlay/lab/layout.ts";
import { readLab, updateLab } from "../../overlay/lab/state.ts";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { mayResize } from "../../overlay/volume/growth.ts";
import { endActors, startActor, until } from "./actor.ts";
import { coverlay, coverlayProgram as coverlayMain, type TestLab, withLab } from "./lab.ts";
import { SteadyWorker } from "./steady-worker.ts";

const MIB = 2 ** 20;
const BEFORE = 512 * MIB;
const AFTER = 1024 * MIB;

afterEach(() => endActors());

const grow = (lab: TestLab, nodeid: number, ...words: string[]): Promise<RunResult> =>
  coverlay(["volume", "grow", ...words, "--run-dir", lab.node(nodeid).runDir]);

const roomOf = (lab: TestLab, nodeid: number): number => {
  const { blocks, bsize } = statfsSync(lab.node(nodeid).mount);
  return blocks * bsize;
};

const deviceOf = (lab: TestLab, nodeid: number): string => readLab(lab.dir)?.nodes.find((node) => node.nodeid === nodeid)?.device ?? "";

/** The disk is larger; these nodes have read its size anew. */
async function enlarge(lab: TestLab, nodeids: readonly number[]): Promise<void> {
  truncateSync(labFiles(lab.dir).image, AFTER);
  await updateLab(lab.dir, (state) => ({ ...state, sizeBytes: AFTER }));
  for (const nodeid of nodeids) joinLoop(deviceOf(lab, nodeid), AFTER);
}

async function fitsMore(lab: TestLab, nodeid: number): Promise<string> {
  const actor = startActor({ cwd: lab.node(nodeid).mount });
  const source = `fd = os.open("large", os.O_RDWR | os.O_CREAT)\nresult = code(os.posix_fallocate, fd, 0, ${600 * MIB})\nos.close(fd)\nif result != "ok": os.unlink("large")`;
  return await actor.run<string>(source, {}, 120_000);
}

it("XFS grows under load; it is refused with words elsewhere, and without room; then the volume moves, fails over, and is whole", () =>
  withLab({ nodes: 3, lower: "xfs" }, async (lab) => {
    const workers = lab.nodes.map(({ nodeid, mount }) => new SteadyWorker(mount, [`node${nodeid}`]));
    try {
      for (const worker of workers) await worker.goesOn();
      expect(await lab.owner()).toBe(1);
      const [refused, noRoom, unknown] = [await grow(lab, 2, "lab"), await grow(lab, 1, "lab"), await grow(lab, 1, "data", "--json")];
      expect([refused.status, refused.stderr]).toEqual([
        32,
        "coverlay: node1 has volume lab mounted as its owner, and it alone can grow it\n  On node1: coverlay volume grow lab\n",
      ]);
      expect([noRoom.status, noRoom.stderr]).toEqual([32, expect.stringContaining("has no room to grow")]);
      expect([unknown.status, JSON.parse(unknown.stderr)]).toMatchObject([32, { code: "no-volume" }]);
      expect(await fitsMore(lab, 3)).toBe("ENOSPC");

      await enlarge(lab, [1, 2]);
      const done = await grow(lab, 1, deviceOf(lab, 1), "--json");
      expect([done.status, JSON.parse(done.stdout)]).toMatchObject([0, { volume: "lab", kind: "grown", fromBytes: BEFORE, bytes: AFTER }]);
      // At once, on every node.
      for (const { nodeid } of lab.nodes) expect(roomOf(lab, nodeid)).toBeGreaterThan(BEFORE);
      expect((await queryOverlayStatus(lab.node(1).runDir))["growth"]).toMatchObject({ kind: "grown" });
      for (const worker of workers) await worker.goesOn();
      expect(await fitsMore(lab, 3)).toBe("ok");
      expect((await grow(lab, 1, lab.node(1).mount)).stderr).toContain("has no room to grow");

      // node3 sees the old size.
      const doctor = await lab.exec(3, [
        process.execPath,
        coverlayMain,
        "doctor",
        "--device",
        deviceOf(lab, 3),
        "--run-dir",
        lab.node(3).runDir,
      ]);
      expect(doctor.stdout).toContain(`has ${BEFORE} bytes; its xfs file system has ${AFTER}`);
      const notTaken = await coverlay(["handover", "lab", "node3", "--run-dir", lab.node(1).runDir]);
      expect([notTaken.status, notTaken.stderr]).toEqual([1, expect.stringMatching(/node3 did not mount volume lab: node[12] has it now/)]);
      for (const worker of workers) await worker.goesOn();
      joinLoop(deviceOf(lab, 3), AFTER);
      // It looks at the device again by itself.
      await until("node3 takes part again", async () => {
        const from = await lab.owner();
        const moved = await coverlay(["handover", "lab", "node3", "--run-dir", lab.node(from).runDir]);
        return moved.status === 0;
      });
      expect(await lab.owner()).toBe(3);
      for (const worker of workers) await worker.goesOn();

      // A call that was not answered when its owner died may end with EIO: so they end before.
      const rounds = await Promise.all(workers.map((worker) => worker.end()));
      await lab.mustExec(1, ["sync", "shared"]);
      await lab.kill(3);
      const sum = String(rounds.reduce((total, each) => total + each, 0));
      expect(await lab.mustExec(1, ["cat", "shared"])).toBe(sum);
      expect(await lab.mustExec(2, ["sh", "-c", "echo after > new && sync new && cat new"])).toBe("after\n");
      expect(roomOf(lab, 1)).toBeGreaterThan(BEFORE);
    } finally {
      for (const worker of workers) worker.kill();
    }
    await lab.start(3);
    expect(roomOf(lab, 3)).toBeGreaterThan(BEFORE);
    await lab.stopAll(1, 2, 3);
    expect(await run("xfs_repair", ["-n", "-f", labFiles(lab.dir).image])).toMatchObject({ status: 0 });
  }));

it("ext4 does the same; a mount without CAP_SYS_RESOURCE says that it lacks it, and is not disturbed", () =>
  withLab({ nodes: 2, lower: "ext4" }, async (lab) => {
    const workers = lab.nodes.map(({ nodeid, mount }) => new SteadyWorker(mount, [`node${nodeid}`]));
    try {
      for (const worker of workers) await worker.goesOn();
      const owner = await lab.owner();
      await enlarge(lab, [1, 2]);
      const { status, stdout, stderr } = await grow(lab, owner, "lab");
      const words = mayResize() ? "has 1 GiB now, before 512 MiB" : "The mount has no CAP_SYS_RESOURCE";
      expect([status, `${stdout}${stderr}`]).toEqual([mayResize() ? 0 : 1, expect.stringContaining(words)]);
      for (const { nodeid } of lab.nodes) expect(roomOf(lab, nodeid) > BEFORE).toBe(mayResize());
      for (const worker of workers) await worker.goesOn();
      expect((await coverlay(["handover", "lab", "--run-dir", lab.node(owner).runDir])).status).toBe(0);
      for (const worker of workers) await worker.goesOn();
      for (const worker of workers) await worker.end();
    } finally {
      for (const worker of workers) worker.kill();
    }
    await lab.stopAll(1, 2);
    expect(await run("e2fsck", ["-fn", labFiles(lab.dir).image])).toMatchObject({ status: 0 });
  }));
