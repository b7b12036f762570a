/** `lab down` from every half-made state: `lab up` killed at each step it records, a mount that hangs, two labs at once. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, watch, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { mountsUnder } from "../../../overlay/lab/fuse-mounts.ts";
import { readLab } from "../../../overlay/lab/state.ts";
import { nativeAddon } from "../../../native/index.ts";
import { until } from "../actor.ts";
import { coverlay, coverlayProgram, leftovers, watchedDirectory } from "../lab.ts";
import { killedAt, upUntil } from "./up-until.ts";

/** One before anything that the kernel has, one amid starting programs, one at the end. The others are in teardown.long.test.ts. */
const steps = ["files", "dlmd", "up"] as const;

describe("lab down", () => {
  it.each(steps)("leaves nothing after lab up was killed at: %s", async (step) => {
    expect(await killedAt(step)).toEqual([]);
  });

  it("goes on where another one was interrupted, and nothing else can be done meanwhile", async () => {
    const { dir, end } = watchedDirectory();
    let held = -1;
    try {
      const { id } = await upUntil(dir, "mount node1", "SIGKILL");
      // The kernel keeps a loop device that somebody has open: the first one is held up there.
      held = openSync(readLab(dir)?.nodes[0]?.device ?? "", "r");
      const first = spawn(process.execPath, [coverlayProgram, "lab", "down", "--dir", dir], { stdio: "ignore" });
      const watcher = watch(dir, () => void (readLab(dir)?.phase === "down" && first.kill("SIGINT")));
      expect(await once(first, "exit")).toEqual([8, null]);
      watcher.close();
      const start = await coverlay(["lab", "start", "node1", "--dir", dir]);
      expect(start.status).toBe(1);
      expect(start.stderr).toContain("being taken down");
      closeSync(held);
      held = -1;
      expect(await coverlay(["lab", "down", "--dir", dir, "--json"])).toMatchObject({ status: 0, stderr: "" });
      expect(leftovers(dir, id)).toEqual([]);
    } finally {
      if (held >= 0) closeSync(held);
      await end();
    }
  });

  it("frees a mount that hangs, and whoever hangs in it, without its server's help", async () => {
    const { dir, end } = watchedDirectory();
    let fuse = -1;
    try {
      const { id } = await upUntil(dir, "device of node2", "SIGKILL");
      const native = nativeAddon();
      fuse = native.fuseOpen();
      expect(fuse).toBeGreaterThan(0);
      const mountpoint = `${dir}/node1/mnt`;
      const options = `fd=${fuse},rootmode=40000,user_id=0,group_id=0`;
      expect(native.mount("hung", mountpoint, "fuse.clustered", 0, options)).toBe(0);
      const victim = spawn("ls", [mountpoint], { stdio: "ignore" });
      const ended = once(victim, "exit");
      await until("it hangs", () => readFileSync(`/proc/${victim.pid}/stack`, "latin1").includes("fuse_"));
      const down = await coverlay(["lab", "down", "--dir", dir, "--json"]);
      expect(down).toMatchObject({ status: 0, stderr: "" });
      const [status] = (await ended) as [number | null];
      expect(status).not.toBe(0);
      expect(leftovers(dir, id)).toEqual([]);
    } finally {
      if (fuse > 0) closeSync(fuse);
      await end();
    }
  });

  it("keeps what lab up did not make, and removes the directory only if lab up made it", async () => {
    const { dir, end } = watchedDirectory();
    try {
      writeFileSync(`${dir}/notes`, "mine");
      await upUntil(dir, "network", "SIGKILL");
      expect((await coverlay(["lab", "down", "--dir", dir])).status).toBe(0);
      expect(readFileSync(`${dir}/notes`, "utf8")).toBe("mine");
      expect(leftovers(dir, null)).toEqual([`file ${dir}/notes`]);
    } finally {
      await end(["notes"]);
    }
  });

  it("does not remove a tree through a mount that stands in it", async () => {
    const { dir, end } = watchedDirectory();
    try {
      mkdirSync(`${dir}/precious`);
      writeFileSync(`${dir}/precious/file`, "keep");
      await upUntil(dir, "device of node1", "SIGKILL");
      expect(nativeAddon().mount(`${dir}/precious`, `${dir}/node1/mnt`, "none", 0x1000 /* MS_BIND */, "")).toBe(0);
      expect(mountsUnder(dir)).toHaveLength(1);
      expect((await coverlay(["lab", "down", "--dir", dir])).status).toBe(0);
      expect(mountsUnder(dir)).toEqual([]);
      expect(readFileSync(`${dir}/precious/file`, "utf8")).toBe("keep");
    } finally {
      await end(["precious"]);
    }
  });

  it("ends what runs on a node, however it got there", async () => {
    const { dir, end } = watchedDirectory();
    try {
      const { id } = await upUntil(dir, "device of node1", "SIGKILL");
      const netns = `/run/netns/coverlay-${id}-node1`;
      const stranger = spawn("nsenter", [`--net=${netns}`, "--", "sleep", "600"], { stdio: "ignore" });
      const ended = once(stranger, "exit");
      await until("it runs on the node", () => readFileSync(`/proc/${stranger.pid}/comm`, "utf8") === "sleep\n");
      expect((await coverlay(["lab", "down", "--dir", dir])).status).toBe(0);
      expect(await ended).toEqual([null, "SIGKILL"]);
    } finally {
      await end();
    }
  });
});

describe("lab up", () => {
  it("that is interrupted takes back what it made, and says so", async () => {
    const { dir, end } = watchedDirectory();
    try {
      const { id } = await upUntil(dir, "device of node1", "SIGINT");
      expect(id).toBe("");
      expect(leftovers(dir, null)).toEqual([]);
    } finally {
      await end();
    }
  });

  it("that fails takes back what it made, and leaves a file of another alone", async () => {
    const { dir, end } = watchedDirectory();
    try {
      const { status, stderr } = await coverlay(["lab", "up", "--detach", "--dir", dir, "--lower", "xfs", "--size", "64M"]);
      expect(status).toBe(1);
      expect(stderr).toContain("an image for xfs has at least");
      const words = ["lab", "up", "--detach", "--json", "--dir", dir, "--size", "1000000G"];
      const full = await coverlay(words);
      expect(full.status).toBe(1);
      for (const wrong of [coverlayProgram, `${coverlayProgram}/lab`, "/proc/lab"]) {
        const refused = await coverlay(["lab", "up", "--detach", "--json", "--dir", wrong], { timeoutMs: 20_000 });
        expect(JSON.parse(refused.stderr)).toMatchObject({ code: "lab-dir", hint: expect.stringContaining("--dir") as string });
      }
      // One object and nothing else, though it had begun.
      expect(JSON.parse(full.stderr)).toMatchObject({ code: "no-room", hint: expect.stringContaining("--size") as string });
      mkdirSync(`${dir}/node2`);
      const taken = await coverlay(["lab", "up", "--detach", "--dir", dir]);
      expect(taken.status).toBe(1);
      expect(taken.stderr).toContain("node2");
      expect(existsSync(`${dir}/node2`)).toBe(true);
      expect(leftovers(dir, null)).toEqual([`file ${dir}/node2`]);
    } finally {
      await end(["node2"]);
    }
  });

  it("refuses a directory that has a lab already", async () => {
    const { dir, end } = watchedDirectory();
    try {
      await upUntil(dir, "network", "SIGKILL");
      const second = await coverlay(["lab", "up", "--detach", "--dir", dir]);
      expect(second.status).toBe(1);
      expect(second.stderr).toContain("there is a lab in");
      expect(readLab(dir)).not.toBeNull();
    } finally {
      await end();
    }
  });

  it("runs beside another one: each goes without the other", async () => {
    const one = watchedDirectory();
    const other = watchedDirectory();
    try {
      const [first, second] = await Promise.all([
        upUntil(one.dir, "device of node2", "SIGKILL"),
        upUntil(other.dir, "device of node2", "SIGKILL"),
      ]);
      const before = leftovers(other.dir, second.id);
      expect(before.join("\n")).toMatch(/loop device[\s\S]*network namespace/);
      expect((await coverlay(["lab", "down", "--dir", one.dir])).status).toBe(0);
      expect(leftovers(one.dir, first.id)).toEqual([]);
      expect(leftovers(other.dir, second.id)).toEqual(before);
    } finally {
      await one.end();
      await other.end();
    }
  });
});
