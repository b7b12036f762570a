/** What labs share, loop devices, the place of network namespaces and sync(2): beside another lab it would be that one's as well. */
import { expect, it } from "vitest";
import { must } from "../../../overlay/lab/command.ts";
import { mountsUnder } from "../../../overlay/lab/fuse-mounts.ts";
import { readLab } from "../../../overlay/lab/state.ts";
import { isReadOnlyDevice } from "../../../overlay/volume/device.ts";
import { coverlay, watchedDirectory, withLab } from "../lab.ts";
import { withDisk } from "../volume/disk.ts";
import { upUntil } from "./up-until.ts";

it("lab up takes a loop device that somebody left read-only", async () => {
  const { dir, end } = watchedDirectory();
  try {
    const free = (await must("losetup", ["-f"])).trim();
    await must("blockdev", ["--setro", free]);
    expect(await coverlay(["lab", "up", "--detach", "--dir", dir, "--nodes", "1", "--size", "64M"])).toMatchObject({ status: 0 });
    expect(readLab(dir)?.nodes[0]?.device).toBe(free);
  } finally {
    await end();
  }
});

it("so does a test's own disk", async () => {
  const free = (await must("losetup", ["-f"])).trim();
  await must("blockdev", ["--setro", free]);
  await withDisk("none", ({ device }) => {
    expect([device, isReadOnlyDevice(device)]).toEqual([free, false]);
  });
});

it("F16: sync(2) returns on every node, with data that is not on the disk", () =>
  withLab({ nodes: 2, size: "64M" }, async (lab) => {
    const sync = `import os; os.write(os.open("file", os.O_WRONLY | os.O_CREAT), b"data"); os.sync(); print("back")`;
    for (const { nodeid } of lab.nodes) expect(await lab.mustExec(nodeid, ["python3", "-c", sync])).toBe("back\n");
  }));

it("lab down leaves /run/netns a plain directory if it was one", async () => {
  const { dir, end } = watchedDirectory();
  try {
    const place = (): number => mountsUnder("/run/netns").filter(({ mountPoint }) => mountPoint === "/run/netns").length;
    const before = place();
    const { id } = await upUntil(dir, "device of node1", "SIGKILL");
    const own = (): number => mountsUnder("/run/netns").filter(({ mountPoint }) => mountPoint.includes(id)).length;
    expect(own()).toBeGreaterThan(0);
    expect((await coverlay(["lab", "down", "--dir", dir])).status).toBe(0);
    expect([own(), place()]).toEqual([0, before]);
  } finally {
    await end();
  }
});
