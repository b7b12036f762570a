/** What is seen of a thread of any program (proc(5)), with real processes and with made-up ones: coherence/size/caller-repair.ts rests on it. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { afterEach, describe, expect, it } from "vitest";
import { callerThreads, isPageWait, isRead, isRename, isSeek, sleeps } from "../../../overlay/caller/threads.ts";

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
    await until(() => callerThreads.isAsleep(sleeper.pid));
    const busy = start("sh", "-c", "echo go; while :; do :; done");
    if (busy.child.stdout !== null) await once(busy.child.stdout, "data");
    expect(Array.from({ length: 20 }, () => callerThreads.isAsleep(busy.pid))).not.toContain(true);
  });

  it("counts as asleep when it has ended", async () => {
    const gone = start("true");
    await once(gone.child, "exit");
    children.pop();
    expect([callerThreads.isAsleep(gone.pid), callerThreads.isReading(gone.pid), callerThreads.hasEnded(gone.pid)]).toEqual([
      true,
      false,
      true,
    ]);
    expect(callerThreads.hasEnded(process.pid)).toBe(false);
  });

  it("is runnable while it runs; where it sleeps the kernel tells for what", async () => {
    const sleeper = start("sleep", "1000");
    await until(() => !callerThreads.isRunnable(sleeper.pid));
    expect(callerThreads.waitsForPage(sleeper.pid)).toBe(false);
    const busy = start("sh", "-c", "echo go; while :; do :; done");
    if (busy.child.stdout !== null) await once(busy.child.stdout, "data");
    expect(Array.from({ length: 20 }, () => callerThreads.isRunnable(busy.pid))).not.toContain(false);
    expect([callerThreads.isRunnable(0), callerThreads.waitsForPage(0)]).toEqual([false, false]);
  });

  it("is reading in read(2), and not in another call", async () => {
    const reader = start("cat");
    await until(() => callerThreads.isReading(reader.pid));
    const sleeper = start("sleep", "1000");
    await until(() => callerThreads.isAsleep(sleeper.pid));
    expect(callerThreads.isReading(sleeper.pid)).toBe(false);
    expect([callerThreads.isSeeking(reader.pid), callerThreads.isSeeking(0)]).toEqual([false, false]);
  });
});

describe("as /proc tells it", () => {
  it.each([
    ["folio_wait_bit_common", true],
    ["wait_on_page_bit_common", true],
    ["__lock_page", true],
    ["request_wait_answer", false],
    ["0", false],
    ["", false],
  ])("waits for a page: %s: %s", (wchan, waits) => expect(isPageWait(wchan)).toBe(waits));

  const stat = (state: string): string => `42 (a) S (b) ${state} 1 42 42 0 -1 4194304`;
  const asleep = (state: string, wchan: string): boolean => sleeps(stat(state), () => wchan);

  it("asleep is who waits where a signal would wake him, and is off the queue", () => {
    expect([asleep("S", "do_wait"), asleep("S", "0")]).toEqual([true, false]);
  });

  it("and who is stopped, traced or dead, wherever", () => {
    for (const state of ["T", "t", "Z", "X", "x"]) expect([state, asleep(state, "0")]).toEqual([state, true]);
  });

  it("and nobody else: who waits uninterruptibly may wait for a page in the truncation", () => {
    for (const state of ["R", "D", "I", "P", "W", ""]) expect([state, asleep(state, "folio_wait_bit_common")]).toEqual([state, false]);
  });

  it("reading is who is in read(2) or pread(2) of this machine", () => {
    expect(["0 0x3 0x7f", "17 0x3 0x7f"].map((call) => isRead(call, "x64"))).toEqual([true, true]);
    expect(["63 0x3", "67 0x3"].map((call) => isRead(call, "arm64"))).toEqual([true, true]);
    for (const call of ["8 0x3 0x0", "170 0x1", "-1 0x7f 0x0", "running", ""]) expect([call, isRead(call, "x64")]).toEqual([call, false]);
    expect(isRead("0 0x3", "riscv64")).toBe(false);
  });

  it("seeking is who is in lseek(2) of this machine", () => {
    expect([isSeek("8 0x3 0x0", "x64"), isSeek("62 0x3", "arm64")]).toEqual([true, true]);
    for (const call of ["0 0x3 0x7f", "62 0x1", "-1 0x7f 0x0", "running", ""]) expect([call, isSeek(call, "x64")]).toEqual([call, false]);
    expect(isSeek("8 0x3", "riscv64")).toBe(false);
  });

  it("renaming is who is in rename(2), renameat(2) or renameat2(2), of 32 bits or 64; of some it can not be told", () => {
    for (const call of ["82 0x7f", "264 0xffffff9c", "316 0xf", "353 0xf"]) expect([call, isRename(call, "x64")]).toEqual([call, true]);
    for (const call of ["276 0xf", "38 0xf"]) expect([call, isRename(call, "arm64")]).toEqual([call, true]);
    for (const call of ["0 0x3", "4 0x7f", "257 0xf", "8 0x2"]) expect([call, isRename(call, "x64")]).toEqual([call, false]);
    for (const call of ["running", "-1 0x7f 0x0", ""]) expect([call, isRename(call, "x64")]).toEqual([call, null]);
    expect(isRename("276 0xf", "riscv64")).toBeNull();
  });
});
