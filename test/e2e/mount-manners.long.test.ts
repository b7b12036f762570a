/** A clustered mount among the others of a machine: findmnt, df, remount, umount, umount -l, as for any file system. */
import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdir, open, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { code } from "./errno-code.ts";
import { processRef } from "../../overlay/lab/processes.ts";
import { coverlayProgram, startLab, type TestLab } from "./lab.ts";
import { mountOn } from "./mount-again.ts";
import { ownSbin } from "./own-sbin.ts";

const run = promisify(execFile);
const program = coverlayProgram;

describe("a clustered mount among others", () => {
  let lab: TestLab;
  beforeAll(async () => {
    lab = await startLab({ nodes: 2, size: "256M" });
  });
  afterAll(async () => {
    await lab?.end();
  });

  async function deviceOf(nodeid: number): Promise<string> {
    const device = (await lab.status()).find((node) => node.nodeid === nodeid)?.device;
    if (device === null || device === undefined) throw new Error(`node${nodeid} has no device`);
    return device;
  }

  it("findmnt shows fuse.clustered with the device as its source; df shows the volume's space on every node", async () => {
    for (const nodeid of [1, 2]) {
      const { stdout } = await run("findmnt", ["-n", "-o", "FSTYPE,SOURCE", lab.node(nodeid).mount]);
      expect(stdout.trim().split(/\s+/)).toEqual(["fuse.clustered", await deviceOf(nodeid)]);
    }
    const sizes = await Promise.all(
      [1, 2].map(async (nodeid) => {
        const { stdout } = await run("df", ["--output=size,itotal", lab.node(nodeid).mount]);
        return stdout.split("\n")[1];
      }),
    );
    expect(sizes[0]).toMatch(/\d{5,}/);
    expect(sizes[1]).toBe(sizes[0]);
  });

  it("remounted read-only it refuses changes on this node alone, and takes them again after rw", async () => {
    const { mount, runDir } = lab.node(2);
    const remount = (mode: string): Promise<unknown> =>
      lab.mustExec(2, ["node", program, "mount", mount, "-o", `remount,${mode},runDir=${runDir}`]);
    await writeFile(path.join(mount, "file"), "before");
    await remount("ro");
    expect(await code(writeFile(path.join(mount, "file"), "no"))).toBe("EROFS");
    await writeFile(path.join(lab.node(1).mount, "file"), "elsewhere");
    expect(await readFile(path.join(mount, "file"), "utf8")).toBe("elsewhere");
    await remount("rw");
    await writeFile(path.join(mount, "file"), "again");
    expect(await readFile(path.join(lab.node(1).mount, "file"), "utf8")).toBe("again");
  });

  it("umount is EBUSY while a file is open; umount -l lets the file go on and ends with its last close; then it is mounted again", async () => {
    const { mount, runDir } = lab.node(2);
    const device = await deviceOf(2);
    const held = await open(path.join(mount, "file"), "r+");
    await expect(run("umount", ["-i", mount])).rejects.toThrow(/busy/);
    const overlayPid = (await lab.status()).find((node) => node.nodeid === 2)?.overlayPid;
    await run("umount", ["-i", "-l", mount]);
    await held.write("lazily", 0);
    expect(await readFile(path.join(lab.node(1).mount, "file"), "utf8")).toBe("lazily");
    const ended = processEnd(overlayPid as number);
    await held.close();
    await ended;
    await lab.mustExec(1, [
      "sh",
      "-c",
      `cd / && exec nsenter --net=/run/netns/${lab.node(2).netns} node ${program} mount ${device} ${mount} -o runDir=${runDir}`,
    ]);
    expect(await readFile(path.join(mount, "file"), "utf8")).toBe("lazily");
  });

  it("two mount commands for one place at one moment: one mounts, the other is refused, and one umount leaves nothing", async () => {
    const node = lab.node(2);
    const device = await deviceOf(2);
    await run("umount", [node.mount]);
    const both = await Promise.all([mountOn(node, device), mountOn(node, device)]);
    expect(both.map(({ status }) => String(status)).toSorted()).toEqual(["0", "32"]);
    expect(both.find(({ status }) => status === 32)?.stderr).toMatch(/mounted clustered|another process mounts at/);
    expect(await readFile(path.join(node.mount, "file"), "utf8")).toBe("lazily");
    await run("umount", [node.mount]);
    await expect(run("findmnt", ["-n", node.mount])).rejects.toMatchObject({ code: 1 });
    expect(await mountOn(node, device)).toMatchObject({ status: 0, stderr: "" });
  });

  it("a node whose path to the disk is cut is refused, while another one owns the volume, too; with its path it mounts", async () => {
    const { mount, runDir, netns } = lab.node(2);
    const device = await deviceOf(2);
    const mounts = (): Promise<unknown> =>
      run("nsenter", [`--net=/run/netns/${netns}`, "node", program, "mount", device, mount, "-o", `runDir=${runDir}`]);
    await lab.mustExec(1, ["sh", "-c", "echo whole > cut"]);
    const { overlayPid } = (await lab.status()).find((node) => node.nodeid === 2) ?? {};
    const ended = processEnd(overlayPid as number);
    await run("umount", ["-i", mount]);
    await ended;
    await lab.lab("cut", "node2");
    expect(await lab.owner()).toBe(1);
    await expect(mounts()).rejects.toMatchObject({
      code: 32,
      stderr: expect.stringMatching(/ has \d+ bytes; a file system is expected[^]*is its path to the disk cut\?/),
    });
    await lab.lab("uncut", "node2");
    await mounts();
    expect(await readFile(path.join(mount, "cut"), "utf8")).toBe("whole\n");
  });

  it("mount(8) mounts it without a word, and remounts it; umount of a mount with _netdev returns when its overlay has ended", async () => {
    const { mount, runDir, netns } = lab.node(2);
    const device = await deviceOf(2);
    await run("umount", ["-i", mount]);
    const sbin = ownSbin({ node: process.execPath, program }, []);
    try {
      const script = `
        mount -t clustered ${device} ${mount} -o runDir=${runDir},_netdev && cat ${runDir}/overlay-*.json &&
        mount -o remount,ro ${mount} && ! touch ${mount}/new && mount -o remount,rw ${mount} && touch ${mount}/new &&
        umount ${mount}`;
      const { status, stdout, stderr } = sbin.run(script, netns);
      expect(stderr).toMatch(/^touch: .*new'?: Read-only file system\n$/);
      expect(status).toBe(0);
      const { pid } = JSON.parse(stdout) as { pid: number };
      expect(processRef(pid)).toBeNull();
      expect(await readFile(path.join(lab.node(1).mount, "new"), "utf8")).toBe("");
    } finally {
      sbin.end();
    }
  });

  it("two mount commands for one volume at two places, where nobody is its owner: one mounts, and is it; the other is refused", async () => {
    const [first, node] = [lab.node(1), lab.node(2)];
    const [device, elsewhere] = [await deviceOf(2), path.join(path.dirname(node.mount), "elsewhere")];
    await mkdir(elsewhere);
    await run("umount", [first.mount]);
    const both = await Promise.all([mountOn(node, device), mountOn({ ...node, mount: elsewhere }, device)]);
    const [one, other] = both[0].status === 0 ? [node.mount, both[1]] : [elsewhere, both[0]];
    expect([other.status, other.stderr]).toEqual([32, expect.stringMatching(/already mounted clustered|mounts this volume on this node/)]);
    expect(await readFile(path.join(one, "file"), "utf8")).toBe("lazily");
    await run("umount", [one]);
    expect(await mountOn(first, await deviceOf(1))).toMatchObject({ status: 0, stderr: "" });
    expect(await lab.owner()).toBe(1);
  });
});

/** Resolves when that process, which is not our child, has ended: tail --pid waits for it. */
async function processEnd(pid: number): Promise<void> {
  const watch = execFile("tail", ["--pid", String(pid), "-f", "/dev/null"]);
  await once(watch, "exit");
}
