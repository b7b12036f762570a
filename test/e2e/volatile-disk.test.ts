/** The disk that forgets (test/chaos/volatile-disk.ts), below loop devices and below a lab. */
import { existsSync, mkdtempSync, readFileSync, realpathSync, rmSync, statSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { must, run } from "../../overlay/lab/command.ts";
import { startVolatileDisk, type VolatileDisk } from "../chaos/disk-client.ts";
import { checkLive } from "../chaos/file-system.ts";
import { until } from "./actor.ts";
import { coverlay, watchedDirectory } from "./lab.ts";

const DISK_BYTES = 64 * 2 ** 20;
let dir = "";
let disk: VolatileDisk;
let loops: string[] = [];

beforeEach(async () => {
  dir = realpathSync(mkdtempSync(path.join(os.tmpdir(), "coverlay-test-volatile-")));
  disk = await startVolatileDisk(dir, DISK_BYTES);
});

afterEach(async () => {
  for (const loop of loops.splice(0)) await must("losetup", ["-d", loop]);
  await disk.end();
  rmSync(dir, { recursive: true });
});

async function attach(): Promise<string> {
  for (;;) {
    const loop = (await must("losetup", ["-f"])).trim();
    if ((await run("losetup", ["--direct-io=on", loop, disk.image])).status !== 0) continue; // Another test was faster.
    loops.push(loop);
    return loop;
  }
}

/** One block of that letter at that place, past every cache of this machine. */
function put(loop: string, block: number, letter: string, flush: boolean): Promise<string> {
  const words = ["iflag=fullblock", "oflag=direct", "bs=4096", "count=1", `seek=${block}`, ...(flush ? ["conv=fsync"] : []), "status=none"];
  return must("sh", ["-c", `tr '\\0' ${letter} </dev/zero | dd of=${loop} ${words.join(" ")}`]);
}

/** The first letter of each block, as that loop device gives it. */
async function letters(loop: string, blocks: number): Promise<string> {
  const script = `import os,mmap,sys
fd = os.open("${loop}", os.O_RDONLY | os.O_DIRECT)
page = mmap.mmap(-1, 4096)
for block in range(${blocks}):
    os.preadv(fd, [page], 4096 * block)
    sys.stdout.write(chr(page[0]) if page[0] else "-")`;
  return must("python3", ["-c", script]);
}

describe("the volatile disk", () => {
  it("loses writes that were not flushed, by seed and block, and never one that was; the other path reads what is left", async () => {
    const [first, second] = [await attach(), await attach()];
    expect((await disk.command({ do: "figures" })).devices).toEqual([first, second]);
    expect(readFileSync(`/sys/block/${path.basename(first)}/loop/dio`, "latin1").trim()).toBe("1");
    for (let block = 0; block < 8; block++) await put(first, block, "a", block === 7);
    for (let block = 0; block < 8; block++) await put(first, block, "b", false);
    expect(await letters(second, 8)).toBe("bbbbbbbb");
    expect((await disk.command({ do: "figures" })).writesBy).toEqual({ [first]: { writes: 16, first: 1, last: 16 } });
    const loss = await disk.command({ do: "power-off", device: first, seed: 3, keepPercent: 50 });
    expect([loss.keptWrites > 0, loss.lostWrites > 0]).toEqual([true, true]);
    expect(await letters(second, 8)).toMatch(/^(?=.*a)(?=.*b)[ab]{8}$/);
    // That path is gone.
    await expect(put(first, 0, "c", false)).rejects.toThrow(/Input\/output error/);
    expect(await letters(second, 8)).not.toContain("c");
  });

  it("a path that hangs answers when it is let go; one may be made to hang between a write and its flush", async () => {
    const [first, second] = [await attach(), await attach()];
    await disk.command({ do: "hang", device: first });
    let over = false;
    const hanging = put(first, 0, "a", false).finally(() => (over = true));
    const inFlight = (): boolean => /[1-9]/.test(readFileSync(`/sys/block/${path.basename(first)}/inflight`, "latin1"));
    await until("a write of the path that hangs is under way", inFlight);
    await put(second, 1, "b", true);
    expect([over, await letters(second, 2)]).toEqual([false, "-b"]);
    await disk.command({ do: "unhang", device: first });
    await hanging;
    expect(await letters(second, 2)).toBe("ab");
    // Between a write and its flush: it is lost, and so is what was not flushed before.
    await disk.command({ do: "hang-after", device: first, writes: 1 });
    const flushing = put(first, 0, "c", true).catch((error: unknown) => String(error));
    await until("the path hangs", async () => (await disk.command({ do: "figures" })).hanging.includes(first));
    const loss = await disk.command({ do: "power-off", device: first, seed: 1, keepPercent: 0 });
    expect([loss.lostWrites, await letters(second, 2)]).toEqual([2, "-b"]);
    expect(await flushing).toMatch(/Input\/output error/);
  });

  it("a write beyond its end is an error of the disk, and no lack of room: a cut sends writes there", async () => {
    const words = ["if=/dev/zero", `of=${disk.image}`, "bs=4096", "count=1", `seek=${DISK_BYTES / 4096}`, "conv=notrunc", "oflag=direct"];
    expect(await run("dd", words)).toMatchObject({ status: 1, stderr: expect.stringContaining("Input/output error") });
  });

  it("refuses a command for a path that it does not have", async () => {
    await expect(disk.command({ do: "hang", device: "/dev/loop999" })).rejects.toThrow("no path of /dev/loop999");
  });

  it("takes a lab: `lab up --image`; its file system is looked at while it is mounted; `lab down` leaves the image", async () => {
    const watched = watchedDirectory();
    try {
      const words = ["lab", "up", "--detach", "--json", "--nodes", "2", "--image", disk.image, "--dir", watched.dir];
      const up = await coverlay(words);
      expect([up.stderr, up.status]).toEqual(["", 0]);
      expect((await disk.command({ do: "figures" })).devices).toHaveLength(2);
      await must("sh", ["-c", `echo hello >${watched.dir}/node2/mnt/file`]);
      expect(await must("cat", [`${watched.dir}/node1/mnt/file`])).toBe("hello\n");
      await must("sync", [`${watched.dir}/node1/mnt/file`]);
      expect(await must("dumpe2fs", ["-h", disk.image])).toContain("needs_recovery");
      expect(await checkLive("ext4", disk, dir)).toEqual([]);
      expect(existsSync(path.join(dir, "snapshot.img"))).toBe(false);
    } finally {
      await watched.end();
    }
    expect((await disk.command({ do: "figures" })).devices).toEqual([]);
    expect(statSync(disk.image).size).toBe(DISK_BYTES);
    expect((await run("e2fsck", ["-fn", disk.image])).status).toBe(0);
    const block = await must("debugfs", ["-R", "bmap lost+found 0", disk.image]);
    const blockBytes = /^Block size: +(\d+)$/m.exec(await must("dumpe2fs", ["-h", disk.image]))?.[1];
    await put(await attach(), Math.floor((Number(block) * Number(blockBytes)) / 4096), "x", true);
    expect(await checkLive("ext4", disk, dir)).toEqual([expect.stringContaining("the disk as it is now: e2fsck finds damage")]);
  });

  it("`lab up` refuses an --image that is no file, and one beside a directory", async () => {
    const missing = await coverlay(["lab", "up", "--json", "--image", path.join(dir, "none"), "--dir", path.join(dir, "lab")]);
    expect([missing.status, missing.stderr]).toEqual([1, expect.stringContaining("--image should be a file")]);
    const beside = await coverlay(["lab", "up", "--json", "--image", disk.image, "--lower", "directory", "--dir", path.join(dir, "lab")]);
    expect([beside.status, beside.stderr]).toEqual([1, expect.stringContaining("--image is for a lab with a disk")]);
  });
});

it("the process of a volatile disk ends with its user", async () => {
  const other = realpathSync(mkdtempSync(path.join(os.tmpdir(), "coverlay-test-volatile-")));
  const script = `import { startVolatileDisk } from ${JSON.stringify(path.resolve("dist/test/chaos/disk-client.js"))};
await startVolatileDisk(${JSON.stringify(other)}, 1 << 20); process.kill(process.pid, "SIGKILL");`;
  expect((await run(process.execPath, ["--input-type=module", "-e", script])).endedBy).toBe("SIGKILL");
  const mounted = (): boolean => readFileSync("/proc/self/mountinfo", "latin1").includes(other);
  await until("its mount is gone", () => !mounted());
  rmSync(other, { recursive: true });
});
