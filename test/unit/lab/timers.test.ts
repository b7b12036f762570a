/** Times that commands of a lab wait: with a clock of the test's own, and stand-ins for the tools and for what runs. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { bootNodes, mountNode, startDlmd, stopNode } from "../../../overlay/lab/boot.ts";
import { run } from "../../../overlay/lab/command.ts";
import { attachLoop } from "../../../overlay/lab/disk.ts";
import type { MountEntry } from "../../../dlmd/base/mount-table.ts";
import { forceUnmountUnder } from "../../../overlay/lab/fuse-mounts.ts";
import { showLive } from "../../../overlay/lab/live.ts";
import { processRef, waitGone } from "../../../overlay/lab/processes.ts";
import { type LabState, labNode, withLabLock, writeLab } from "../../../overlay/lab/state.ts";
import { labState } from "./lab-state.ts";

// Its own functions are not played by fake timers.
vi.mock("node:timers/promises", () => ({ setTimeout: (ms: number) => new Promise((resolve) => setTimeout(resolve, ms)) }));
const played = vi.hoisted(() => ({ mountinfo: "", connected: false }));
vi.mock("node:fs", async (importOriginal) => {
  const fs = await importOriginal<typeof import("node:fs")>();
  const read = (file: string, options: BufferEncoding): string | Buffer =>
    file === "/proc/self/mountinfo" ? played.mountinfo : fs.readFileSync(file, options);
  return { ...fs, readFileSync: read };
});

vi.mock("../../../dlmd/client/client.ts", () => ({
  connectDlm: () => {
    played.connected = true;
    const view = { members: [1], quorate: false, quorumReason: "1 of 3 votes", running: false };
    return Promise.resolve({ view, close: () => Promise.resolve() });
  },
}));

let dir: string;
let searchPath: string | undefined;
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "lab-timers-"));
  searchPath = process.env["PATH"];
  process.env["PATH"] = `${dir}/bin:${searchPath}`;
  mkdirSync(`${dir}/bin`);
  mkdirSync(`${dir}/node1`);
  played.mountinfo = "";
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] });
});
afterEach(() => {
  vi.useRealTimers();
  process.env["PATH"] = searchPath;
  rmSync(dir, { recursive: true, force: true });
});

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function standIn(tool: string, script: string): void {
  writeFileSync(`${dir}/bin/${tool}`, `#!/bin/sh\n${script}\n`);
  chmodSync(`${dir}/bin/${tool}`, 0o755);
}

/** Lets that work come to its timers, then says whether it is over a millisecond before that time; and gives it the millisecond. */
async function isOverBefore(work: Promise<unknown>, timeMs: number): Promise<boolean> {
  const seen = { over: false };
  const end = (): void => void (seen.over = true);
  work.then(end, end);
  while (vi.getTimerCount() === 0 && !seen.over) await turn();
  await vi.advanceTimersByTimeAsync(timeMs - 1);
  await turn();
  const before = seen.over;
  await vi.advanceTimersByTimeAsync(1);
  return before;
}

const lab = (): LabState => writeLab(labState(dir, {}, { device: "/dev/x" }));

function mounted(mountpoint: string): void {
  const { source, type }: Pick<MountEntry, "source" | "type"> = { source: "/dev/x", type: "fuse.clustered" };
  played.mountinfo = `91 27 0:65535 / ${mountpoint} rw - ${type} ${source} rw\n`;
}

describe("a tool", () => {
  it("is killed after TOOL_TIMEOUT_MS", async () => {
    const work = run("sleep", ["600"]);
    expect(await isOverBefore(work, 60_000)).toBe(false);
    expect(await work).toMatchObject({ status: null, endedBy: "SIGKILL", timedOut: true });
  });

  it("says no more than MAX_OUTPUT_BYTES that are kept", async () => {
    const bytes = 1024 * 1024;
    const said = async (count: number): Promise<number> => (await run("dd", ["if=/dev/zero", `bs=${count}`, "count=1"])).stdout.length;
    expect([await said(bytes), await said(bytes + 1)]).toEqual([bytes, bytes]);
  });
});

describe("umount(8)", () => {
  it("is killed after UNMOUNT_TIMEOUT_MS, where a mount is to go by force", async () => {
    standIn("umount", "exec sleep 600");
    mounted(`${dir}/node1/mnt`);
    played.mountinfo = played.mountinfo.replace("fuse.clustered", "ext4");
    const work = forceUnmountUnder(`${dir}/node1`);
    expect(await isOverBefore(work, 10_000)).toBe(false);
    await expect(work).rejects.toThrow("took too long");
  });

  it("is called MAX_UNMOUNTS times, if there is always another mount", async () => {
    standIn("umount", `echo >>${dir}/calls`);
    mounted(`${dir}/node1/mnt`);
    played.mountinfo = played.mountinfo.replace("fuse.clustered", "ext4");
    await expect(forceUnmountUnder(`${dir}/node1`)).rejects.toThrow("64 mounts were taken away and there are more");
    expect(readFileSync(`${dir}/calls`, "utf8")).toHaveLength(64);
  });
});

describe("a loop device", () => {
  it("is tried for MAX_ATTACH_TRIES times", async () => {
    standIn("losetup", `[ "$1" = -f ] && echo /dev/null && exit 0\necho >>${dir}/calls; exit 1`);
    await expect(
      attachLoop(lab(), null, { deviceNode: () => Promise.resolve(), attaching: () => Promise.resolve() }),
    ).rejects.toMatchObject({ code: "no-loop" });
    expect(readFileSync(`${dir}/calls`, "utf8")).toHaveLength(50);
  });
});

describe("a program of a node", () => {
  it("that is dlmd has DLMD_READY_TIMEOUT_MS to say that it is ready", async () => {
    standIn("nsenter", `echo $$ >${dir}/pid; exec sleep 600`);
    const made = lab();
    const work = startDlmd(made, labNode(made, "node1"));
    // Its time runs here at once: it is not ended before it has said who it is.
    while (!existsSync(`${dir}/pid`) || readFileSync(`${dir}/pid`, "utf8") === "") await turn();
    expect(await isOverBefore(work, 30_000)).toBe(false);
    await expect(work).rejects.toThrow('it did not say "ready" within 30 s');
    process.kill(Number(readFileSync(`${dir}/pid`, "utf8")), "SIGKILL");
  });

  it("that is dlmd has VIEW_TIMEOUT_MS to be in a view with a quorum", async () => {
    standIn("ip", "exit 0");
    const found = lab();
    const made = writeLab({ ...found, nodes: found.nodes.map((node) => ({ ...node, dlmd: processRef(process.pid) })) });
    const work = bootNodes(made, ["node1"]);
    // The first timer is that of the tool that plugs the cable.
    while (!played.connected || vi.getTimerCount() === 0) await turn();
    expect(await isOverBefore(work, 60_000)).toBe(false);
    await expect(work).rejects.toMatchObject({ code: "no-view" });
  });

  it("that mounts is killed after MOUNT_TIMEOUT_MS", async () => {
    standIn("nsenter", "exec sleep 600");
    const made = lab();
    const work = mountNode(made, labNode(made, "node1"));
    expect(await isOverBefore(work, 60_000)).toBe(false);
    await expect(work).rejects.toThrow("it took longer than 60 s");
  });

  it("that has mounted has ANSWER_TIMEOUT_MS to answer there", async () => {
    standIn("nsenter", "exit 0");
    standIn("stat", `echo >${dir}/asked; exec sleep 600`);
    const made = lab();
    const node = labNode(made, "node1");
    mounted(node.mount);
    const work = mountNode(made, node);
    let over = false;
    work.catch(() => (over = true));
    // The first timer is that of the command which mounts.
    while (!isThere(`${dir}/asked`)) await turn();
    await vi.advanceTimersByTimeAsync(19_999);
    await turn();
    expect(over).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    await expect(work).rejects.toMatchObject({ code: "mount-silent", hint: "Found: it does not answer." });
  });

  it("is not shut down if its mount is still there after UNMOUNT_TIMEOUT_MS", async () => {
    standIn("umount", "exec sleep 600");
    const made = lab();
    const node = labNode(made, "node1");
    mounted(node.mount);
    const work = stopNode(made, node);
    expect(await isOverBefore(work, 60_000)).toBe(false);
    await expect(work).rejects.toMatchObject({ code: "unmount-failed" });
  });

  it("has LEAVE_TIMEOUT_MS to leave when it is shut down", async () => {
    const child = spawn("sh", ["-c", "trap '' TERM; echo; while :; do sleep 600; done"], { detached: true });
    await once(child.stdout, "data");
    try {
      const made = writeLab(labState(dir, {}, { device: "/dev/x", dlmd: processRef(child.pid ?? 0) }));
      const work = stopNode(made, labNode(made, "node1"));
      // 750 looks, 20 ms apart.
      expect(await isOverBefore(work, 15_000)).toBe(false);
      await expect(work).rejects.toMatchObject({ code: "does-not-leave" });
    } finally {
      process.kill(-(child.pid ?? 0), "SIGKILL");
    }
  });

  it("is looked at every POLL_MS until it is gone", async () => {
    const child = spawn("sleep", ["600"]);
    await once(child, "spawn");
    const ref = processRef(child.pid ?? 0);
    const work = waitGone(ref === null ? [] : [ref], 60_000);
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(await isOverBefore(work, 20)).toBe(false);
    expect(await work).toEqual([]);
  });
});

function isThere(file: string): boolean {
  try {
    return readFileSync(file, "utf8") !== "";
  } catch {
    return false;
  }
}

describe("the live view", () => {
  it.each([
    [true, 1000],
    [false, 30_000],
  ])("is drawn anew after REDRAW_MS on a terminal, after PLAIN_MS elsewhere: %s, %i ms", async (isTTY, everyMs) => {
    lab();
    const drawn: string[] = [];
    const ending = new AbortController();
    const shown = showLive(dir, { isTTY, columns: 80, write: (text) => drawn.push(text) }, ending.signal);
    while (vi.getTimerCount() === 0) await turn();
    expect(drawn).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(everyMs - 1);
    await turn();
    expect(drawn).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(1);
    while (drawn.length < 2) await turn();
    ending.abort();
    await shown;
  });
});

describe("the lock of a lab", () => {
  it("is waited for LOCK_TIMEOUT_MS", async () => {
    let leave = (): void => {};
    let enter = (): void => {};
    const entered = new Promise<void>((resolve) => (enter = resolve));
    const first = withLabLock(dir, () => {
      enter();
      return new Promise<void>((resolve) => (leave = resolve));
    });
    await entered;
    const second = withLabLock(dir, () => Promise.resolve());
    expect(await isOverBefore(second, 120_000)).toBe(false);
    await expect(second).rejects.toMatchObject({ code: "lab-busy" });
    leave();
    await first;
  });

  it("is looked at every LOCK_POLL_MS", async () => {
    const waits = vi.fn<() => void>();
    let leave = (): void => {};
    const first = withLabLock(dir, () => new Promise<void>((resolve) => (leave = resolve)));
    const second = withLabLock(dir, () => Promise.resolve(7), "state", waits);
    expect(waits).toHaveBeenCalledTimes(1);
    await vi.advanceTimersByTimeAsync(19);
    expect(waits).toHaveBeenCalledTimes(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(waits).toHaveBeenCalledTimes(2);
    leave();
    await first;
    await vi.advanceTimersByTimeAsync(20);
    expect(await second).toBe(7);
  });
});
