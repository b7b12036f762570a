/** Times that mounting and unmounting wait: with a clock of the test's own, and stand-ins for devices and tools. */
import type * as childProcess from "node:child_process";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import type { LocalLower } from "../../../overlay/lower/local/local.ts";
import { OWNER_BLOCK_EVERY_MS, Withdrawals } from "../../../overlay/serve/withdrawal.ts";
import { proveReleased } from "../../../overlay/volume/detached.ts";
import type * as device from "../../../overlay/volume/device.ts";
import { startTimeOf } from "../../../dlmd/base/process.ts";
import { waitForExit } from "../../../overlay/volume/mount-record.ts";
import { startOverlay } from "../../../overlay/volume/start-overlay.ts";
import { runTool, runToolInBackground } from "../../../overlay/volume/tool.ts";

const played = vi.hoisted(() => ({ looks: 0, kernelLooks: 0 }));
// Its own functions are not played by fake timers.
vi.mock("node:timers/promises", () => ({ setTimeout: (ms: number) => new Promise((resolve) => setTimeout(resolve, ms)) }));
// A time-out of a thousandth: it is kept by the system.
vi.mock("node:child_process", async (importOriginal) => {
  const real = await importOriginal<typeof childProcess>();
  const sooner = (options: { readonly timeout: number }): object => ({ ...options, timeout: options.timeout / 1000 });
  const spawnSync = (tool: string, args: string[], options: { timeout: number }): unknown => real.spawnSync(tool, args, sooner(options));
  return { ...real, spawnSync };
});
vi.mock("../../../overlay/volume/device.ts", async (importOriginal) => {
  const busy = (): string => {
    played.looks += 1;
    return "busy";
  };
  return {
    ...(await importOriginal<typeof device>()),
    tryExclusiveInPool: async () => busy(),
    isDevice: () => true,
    describeHolders: () => "in use",
  };
});
vi.mock("../../../overlay/volume/kernel-errors.ts", async (importOriginal) => {
  const look = (): null => {
    played.kernelLooks += 1;
    return null;
  };
  return { ...(await importOriginal<object>()), createKernelErrors: () => ({ look }) };
});

beforeEach(() => {
  stopped.length = 0;
  played.looks = 0;
  played.kernelLooks = 0;
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "performance"] });
});
afterEach(() => void vi.useRealTimers());

const stopped: string[] = [];
const disk = {
  device: "/dev/x",
  type: "ext4",
  readOnly: false,
  rootFd: -1,
  stopWriting: async () => void stopped.push("writing"),
} as const;
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe("a tool", () => {
  it("that others wait for is killed after TOOL_TIMEOUT_MS, here a thousandth of it", () => {
    expect(() => runTool("sleep", ["600"], "coreutils")).toThrow(/sleep 600 did not finish: .*ETIMEDOUT/);
  });

  it("in the background is killed after it, too, and not waited for", async () => {
    const failed = runToolInBackground("sleep", ["600"], "coreutils").catch((error: unknown) => error);
    await vi.advanceTimersByTimeAsync(59_999);
    expect(vi.getTimerCount()).toBe(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(await failed).toMatchObject({ code: "tool-failed" });
  });
});

describe("the release of a device", () => {
  it("R17: is looked at every RELEASE_POLL_MS, and fails after RELEASE_LIMIT_MS if something keeps the superblock alive", async () => {
    const released = proveReleased("/dev/x", "7:1");
    let error: unknown = null;
    released.catch((reason: unknown) => (error = reason));
    expect(played.looks).toBe(1);
    await vi.advanceTimersByTimeAsync(4);
    expect(played.looks).toBe(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(played.looks).toBe(2);
    await vi.advanceTimersByTimeAsync(59_995);
    expect([played.looks, error]).toEqual([12_001, null]);
    await vi.advanceTimersByTimeAsync(5);
    expect(error).toMatchObject({ code: "not-released", message: "/dev/x is not released: after 60 s it is still in use" });
  });
});

describe("the kernel's count of errors", () => {
  it("is looked at every KERNEL_ERRORS_EVERY_MS", () => {
    const watched = new Withdrawals(silentLog).guard({} as LocalLower, { ...disk, confirm: async () => {} }, () => undefined);
    vi.advanceTimersByTime(1999);
    expect(played.kernelLooks).toBe(0);
    vi.advanceTimersByTime(1);
    expect(played.kernelLooks).toBe(1);
    watched.end();
  });
});

describe("the owner's block", () => {
  it("is read again every OWNER_BLOCK_EVERY_MS: a read that fails is trouble that passes, another life ends the service, in any case", async () => {
    const withdrawn: string[] = [];
    let answer: Error | null = null;
    let reads = 0;
    const confirm = async (): Promise<void> => {
      reads += 1;
      if (answer !== null) throw answer;
    };
    const withdrawals = new Withdrawals(silentLog);
    // An owner withdrew just now: errors of the disk would be told.
    withdrawals.seen();
    const watched = withdrawals.guard({} as LocalLower, { ...disk, confirm }, (why) => withdrawn.push(why));
    await vi.advanceTimersByTimeAsync(OWNER_BLOCK_EVERY_MS - 1);
    expect(reads).toBe(0);
    answer = new Error("EIO");
    await vi.advanceTimersByTimeAsync(1);
    expect([reads, watched.trouble, withdrawn]).toEqual([1, "EIO", []]);
    answer = null;
    await vi.advanceTimersByTimeAsync(OWNER_BLOCK_EVERY_MS);
    expect([reads, watched.trouble]).toEqual([2, null]);
    answer = new OperatingError("it names node 9", { code: "owner-changed", hint: "" });
    await vi.advanceTimersByTimeAsync(OWNER_BLOCK_EVERY_MS);
    expect([watched.trouble, withdrawn, stopped]).toEqual(["it names node 9", ["it names node 9"], ["writing"]]);
    watched.end();
    expect(vi.getTimerCount()).toBe(0);
  });

  it("is read when the service ends: of a disk that is another's the file system is shut down before the answer", async () => {
    const withdrawn: string[] = [];
    let answer: Error | null = null;
    const confirm = (): Promise<void> => (answer === null ? Promise.resolve() : Promise.reject(answer));
    let down: () => void = () => {};
    const stopWriting = (): Promise<void> => new Promise((resolve) => (down = resolve));
    const watched = new Withdrawals(silentLog).guard({} as LocalLower, { ...disk, confirm, stopWriting }, (why) => withdrawn.push(why));
    expect(await watched.hasDisk()).toBe(true);
    answer = new Error("EIO");
    expect([await watched.hasDisk(), watched.trouble]).toEqual([true, "EIO"]);
    answer = new OperatingError("it names node 9", { code: "owner-changed", hint: "" });
    let told: boolean | null = null;
    const asked = watched.hasDisk().then((has) => (told = has));
    await vi.advanceTimersByTimeAsync(0);
    expect([told, withdrawn]).toEqual([null, ["it names node 9"]]);
    down();
    expect(await asked).toBe(false);
    watched.end();
  });

  it("that this node gives back itself, while it is being read, is not another's", async () => {
    const withdrawn: string[] = [];
    let fail: (error: Error) => void = () => {};
    const confirm = (): Promise<void> => new Promise((_, reject) => (fail = reject));
    const watched = new Withdrawals(silentLog).guard({} as LocalLower, { ...disk, confirm }, (why) => withdrawn.push(why));
    await vi.advanceTimersByTimeAsync(OWNER_BLOCK_EVERY_MS);
    watched.end();
    fail(new OperatingError("it names nobody", { code: "owner-changed", hint: "" }));
    await vi.advanceTimersByTimeAsync(0);
    expect([withdrawn, stopped]).toEqual([[], []]);
  });
});

describe("the process of an overlay", () => {
  it("is looked at every EXIT_POLL_MS until it has ended", async () => {
    const child = spawn("sleep", ["600"]);
    await once(child, "spawn");
    const pid = child.pid ?? 0;
    const record = { pid, startTime: startTimeOf(pid) ?? "", source: "", mountPoint: "", runDir: "" };
    let ended = false;
    const waiting = waitForExit(record, 60_000).then((gone) => (ended = gone));
    child.kill("SIGKILL");
    await once(child, "exit");
    await vi.advanceTimersByTimeAsync(9);
    await turn();
    expect(ended).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect(await waiting).toBe(true);
  });

  it("that is being started is killed INTERRUPT_LIMIT_MS after an interrupt that it does not hear", async () => {
    const dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-interrupt-"));
    const program = path.join(dir, "program.mjs");
    writeFileSync(program, `process.on("SIGTERM", () => {}); setInterval(() => {}, 60_000); process.kill(${process.pid}, "SIGTERM");`);
    try {
      const started = startOverlay({ device: "/dev/x", mountPoint: "/mnt", options: "", runDir: path.join(dir, "run") }, program);
      let over = false;
      started.catch(() => (over = true));
      while (vi.getTimerCount() === 0) await turn();
      await vi.advanceTimersByTimeAsync(9999);
      for (let turns = 0; turns < 20; turns += 1) await turn();
      expect(over).toBe(false);
      await vi.advanceTimersByTimeAsync(1);
      await expect(started).rejects.toMatchObject({ code: "interrupted" });
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });
});
