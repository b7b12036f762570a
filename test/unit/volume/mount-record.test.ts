/** Whether a process runs still: the proof that an owner of this node has ended rests on it. And what it leaves for who unmounts. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import { statFields } from "../../../dlmd/base/proc-stat.ts";
import { startTimeOf } from "../../../dlmd/base/process.ts";
import type { MountRecord } from "../../../overlay/volume/mount-record.ts";
import { waitForRelease } from "../../../overlay/volume/remount.ts";

/** Its first thread ends, another one goes on. */
const headless = `
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
print("up", flush=True)
ctypes.CDLL(None).pthread_exit(None)`;

test("a process whose first thread has ended runs for as long as another one does", async () => {
  const child = spawn("python3", ["-c", headless], { stdio: ["pipe", "pipe", "inherit"] });
  const ended = once(child, "exit");
  try {
    await once(child.stdout, "data");
    const pid = child.pid ?? 0;
    const state = (): string | undefined => statFields(readFileSync(`/proc/${pid}/stat`, "latin1"))[0];
    await expect.poll(state).toBe("Z");
    expect(readdirSync(`/proc/${pid}/task`)).toHaveLength(2);
    expect(startTimeOf(pid)).toMatch(/^\d+$/);
    child.kill("SIGKILL");
    await ended;
    expect(startTimeOf(pid)).toBeNull();
  } finally {
    child.kill("SIGKILL");
  }
});

test("what a process has left of the release of its disk is said once, to who waited for that one, and umount fails", async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-records-"));
  try {
    const record = { pid: 2 ** 30, startTime: "7", source: "/dev/x", mountPoint: "/m", runDir: "/r" };
    const file = path.join(dir, "0:41.json");
    const unmounted = (of: MountRecord): Promise<void> =>
      waitForRelease({ mountPoint: "/m", device: "0:41" }, of, { tell: () => undefined, recordDir: dir });
    await unmounted(record);
    writeFileSync(file, JSON.stringify(record));
    await unmounted(record);
    writeFileSync(file, JSON.stringify({ ...record, unreleased: "/dev/x is let go of, but not all is on it" }));
    await unmounted({ ...record, startTime: "8" });
    await expect(unmounted(record)).rejects.toMatchObject({
      code: "not-released",
      exitStatus: 32,
      message: "/m is unmounted, and its disk is not as it should be: /dev/x is let go of, but not all is on it",
    });
    expect(readdirSync(dir)).toEqual([]);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

/** A process, and a directory with its record. */
async function withServing(
  work: (served: { child: ChildProcess; record: MountRecord; dir: string; file: string }) => Promise<void>,
): Promise<void> {
  const dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-records-"));
  const child = spawn("cat", { stdio: ["pipe", "ignore", "inherit"] });
  try {
    const pid = child.pid ?? 0;
    const record = { pid, startTime: startTimeOf(pid) ?? "", source: "/dev/x", mountPoint: "/m", runDir: "/r" };
    const file = path.join(dir, `${DEVICE}.json`);
    writeFileSync(file, JSON.stringify(record));
    await work({ child, record, dir, file });
  } finally {
    child.kill("SIGKILL");
    rmSync(dir, { recursive: true, force: true });
  }
}

/** No mount has it. */
const DEVICE = "0:99999999";

test("a process that is killed amid the release of its disk has not released it: umount fails", async () => {
  await withServing(async ({ child, record, dir }) => {
    const told: string[] = [];
    const released = waitForRelease({ mountPoint: "/m", device: DEVICE }, record, {
      tell: (line) => {
        told.push(line);
        child.kill("SIGKILL");
      },
      holdersAfterMs: 0,
      recordDir: dir,
    });
    await expect(released).rejects.toMatchObject({
      code: "not-released",
      exitStatus: 32,
      message: `/m is unmounted, and its disk is not as it should be: its process ${record.pid} ended before it had released /dev/x`,
    });
    expect([told.length, readdirSync(dir)]).toEqual([1, []]);
  });
});

test.each<[string, (file: string, record: MountRecord) => void]>([
  ["takes its record away", (file) => rmSync(file)],
  [
    "ends with an error while the mount is there, and has released its disk",
    (file, record) => writeFileSync(file, JSON.stringify({ ...record, ended: true })),
  ],
  ["has given its disk back, and waits for dlmd", (file, record) => writeFileSync(file, JSON.stringify({ ...record, paused: true }))],
])("a process that %s has not left its disk", async (_, leave) => {
  await withServing(async ({ child, record, dir, file }) => {
    const tell = (): void => {
      leave(file, record);
      child.kill("SIGKILL");
    };
    await waitForRelease({ mountPoint: "/m", device: DEVICE }, record, { tell, holdersAfterMs: 0, recordDir: dir });
    expect(child.killed).toBe(true);
  });
});

test("a process that has given the mount to another one by then is not the last one that is waited for", async () => {
  await withServing(async ({ child, record, dir, file }) => {
    await withServing(async ({ child: next, record: { pid, startTime } }) => {
      const told: string[] = [];
      const tell = (line: string): void => {
        told.push(line);
        if (told.length === 1) {
          writeFileSync(file, JSON.stringify({ ...record, pid, startTime }));
          child.kill("SIGKILL");
        } else next.kill("SIGKILL");
      };
      const released = waitForRelease({ mountPoint: "/m", device: DEVICE }, record, { tell, holdersAfterMs: 0, recordDir: dir });
      await expect(released).rejects.toMatchObject({
        code: "not-released",
        message: expect.stringContaining(`its process ${pid} ended`) as string,
      });
      expect(told).toEqual(
        [record.pid, pid].map((one) => `/m is unmounted; waiting until its overlay (process ${one}) has released /dev/x`),
      );
    });
  });
});

test("a process of another mount, which has got the device since, is not waited for", async () => {
  await withServing(async ({ child, record, dir, file }) => {
    const tell = (): void => {
      writeFileSync(file, JSON.stringify({ ...record, pid: process.pid, startTime: startTimeOf(process.pid), mountPoint: "/other" }));
      child.kill("SIGKILL");
    };
    await waitForRelease({ mountPoint: "/m", device: DEVICE }, record, { tell, holdersAfterMs: 0, recordDir: dir });
    expect(readdirSync(dir)).toHaveLength(1);
  });
});
