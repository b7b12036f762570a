/** What is seen of a thread of any program (proc(5)), with real processes: coherence/caller-repair.ts rests on it. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { afterEach, describe, expect, it } from "vitest";
import { createOwnInodes } from "../../../overlay/coherence/own-inodes.ts";
import { nativeAddon } from "../../../overlay/native/index.ts";

const own = createOwnInodes(nativeAddon(), "/", 0);
const children: ChildProcess[] = [];

afterEach(async () => {
  for (const child of children.splice(0)) {
    child.kill("SIGKILL");
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  }
});

function start(command: string, ...args: string[]): { readonly child: ChildProcess; readonly pid: number } {
  const child = spawn(command, args, { stdio: ["pipe", "pipe", "ignore"] });
  children.push(child);
  return { child, pid: child.pid ?? 0 };
}

/** Ends with the test's time limit. */
async function until(what: () => boolean): Promise<void> {
  while (!what()) await new Promise((resolve) => setImmediate(resolve));
}

describe("a thread of a program", () => {
  it("is asleep where it waits for a signal or a clock, and is not while it runs", async () => {
    const sleeper = start("sleep", "1000");
    await until(() => own.isAsleep(sleeper.pid));
    const busy = start("sh", "-c", "echo go; while :; do :; done");
    if (busy.child.stdout !== null) await once(busy.child.stdout, "data");
    expect(Array.from({ length: 20 }, () => own.isAsleep(busy.pid))).not.toContain(true);
  });

  it("counts as asleep when it has ended", async () => {
    const gone = start("true");
    await once(gone.child, "exit");
    children.pop();
    expect([own.isAsleep(gone.pid), own.isReading(gone.pid)]).toEqual([true, false]);
  });

  it("is reading in read(2), and not in another call", async () => {
    const reader = start("cat");
    await until(() => own.isReading(reader.pid));
    const sleeper = start("sleep", "1000");
    await until(() => own.isAsleep(sleeper.pid));
    expect(own.isReading(sleeper.pid)).toBe(false);
  });
});
