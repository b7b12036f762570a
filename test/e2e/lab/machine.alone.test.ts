/** What labs share, loop devices, the place of network namespaces and sync(2): beside another lab it would be that one's as well. */
import { expect, it } from "vitest";
import { must } from "../../../overlay/lab/command.ts";
import { mountsUnder } from "../../../overlay/lab/fuse-mounts.ts";
import { readLab } from "../../../overlay/lab/state.ts";
import { isReadOnlyDevice } from "../../../overlay/volume/device.ts";
import { coverlay, watchedDirectory, withLab } from "../lab.ts";
import { withDisk } from "../volume/disk.ts";
import { upUntil } from "./up-until.ts";

/** `take` gives the loop device that it took: the one that was free and read-only, in a round in which no other one became free meanwhile. */
async function takesReadOnly(take: () => Promise<string>): Promise<void> {
  for (let round = 1; ; round++) {
    const free = (await must("losetup", ["-f"])).trim();
    await must("blockdev", ["--setro", free]);
    const taken = await take();
    if (taken !== free && round < 10) continue;
    expect(taken).toBe(free);
    break;
  }
}

it("lab up takes a loop device that somebody left read-only", () =>
  takesReadOnly(async () => {
    const { dir, end } = watchedDirectory();
    try {
      expect(await coverlay(["lab", "up", "--detach", "--dir", dir, "--nodes", "1", "--size", "64M"])).toMatchObject({ status: 0 });
      return readLab(dir)?.nodes[0]?.device ?? "";
    } finally {
      await end();
    }
  }));

it("so does a test's own disk", () =>
  takesReadOnly(() =>
    withDisk("none", ({ device }) => {
      expect(isReadOnlyDevice(device)).toBe(false);
      return device;
    }),
  ));

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
