/** Whether a process runs still: the proof that an owner of this node has ended rests on it. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { statFields } from "../../../dlmd/base/proc-stat.ts";
import { startTimeOf } from "../../../dlmd/base/process.ts";

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
