/** Ctrl-C at `lab start`, `stop`, `down` and `up`: each says where it was, ends with status 8, and can be run again. */
import { writeFileSync } from "node:fs";
import { expect, it } from "vitest";
import { existingLab, readLab } from "../../../overlay/lab/state.ts";
import { coverlay, leftovers, startLab, watchedDirectory } from "../lab.ts";
import { follow } from "../followed.ts";

it("start, stop and down end amid their waits with words, and go on where they were", async () => {
  const lab = await startLab({ nodes: 3, size: "128M" });
  try {
    const { id } = existingLab(lab.dir);
    const at = ["--dir", lab.dir];
    writeFileSync(`${lab.node(1).mount}/file`, "before", { flush: true });

    // Its dlmd stands still, so its unmount waits.
    await lab.lab("stall", "node3", "--what", "dlmd");
    const stop = follow(["lab", "stop", "node3", ...at]);
    await stop.until("node3: dlmd leaves");
    stop.interrupt();
    const stopped = await stop.ended;
    expect([stopped.status, stopped.stdout]).toEqual([8, ""]);
    expect(stopped.stderr).toContain("interrupted: not all of node3 is stopped; it was at: node3: dlmd leaves");
    expect(stopped.stderr).toContain(`coverlay lab stop node3 --dir ${lab.dir}`);
    await lab.lab("kill", "node3");

    // Nobody else is there, so it waits for a view that has a quorum.
    await lab.kill(2);
    await lab.kill(1);
    const start = follow(["lab", "start", "node2", ...at]);
    await start.until("node2: waits for a view of the cluster that has a quorum");
    start.interrupt();
    const started = await start.ended;
    expect([started.status, started.stdout]).toEqual([8, ""]);
    expect(started.stderr).toContain("interrupted: not all of node2 is up; it was at: node2: waits for a view");
    await lab.start(1, 2, 3);
    expect((await lab.mustExec(2, ["cat", "file"])).trim()).toBe("before");

    const down = follow(["lab", "down", ...at]);
    await down.until("unmounts where the volume is not owned");
    down.interrupt();
    const taken = await down.ended;
    expect([taken.status, taken.stdout]).toEqual([8, ""]);
    expect(taken.stderr).toContain(`interrupted: the lab in ${lab.dir} is not down, and a part of it may be gone`);
    expect(readLab(lab.dir)).toMatchObject({ phase: "down" });
    expect(await coverlay(["lab", "down", ...at])).toMatchObject({ status: 0, stdout: `the lab in ${lab.dir} is down\n` });
    expect(leftovers(lab.dir, id)).toEqual([]);
  } finally {
    await lab.end();
  }
});

it("up takes back what it made, also amid a mount", async () => {
  const { dir, end } = watchedDirectory();
  try {
    for (const step of ["dlmd", "mount node1"]) {
      const up = follow(["lab", "up", "--detach", "--dir", dir, "--nodes", "2", "--size", "64M"]);
      await up.until(`making the lab: ${step}`);
      const { id } = existingLab(dir);
      up.interrupt();
      const { status, stdout, stderr } = await up.ended;
      expect([status, stdout]).toEqual([8, ""]);
      expect(stderr).toContain("coverlay: interrupted: there is no lab");
      expect(leftovers(dir, id)).toEqual([]);
    }
  } finally {
    await end();
  }
});
