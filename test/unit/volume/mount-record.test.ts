/** Whether a process runs still: the proof that an owner of this node has ended rests on it. And what it leaves for who unmounts. */
import { spawn } from "node:child_process";
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
