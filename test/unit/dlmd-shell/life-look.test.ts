/** What dlmd says of a process and a device, to other nodes: paths come from the network. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, expect, test } from "vitest";
import { machineId, UNKNOWN_MACHINE } from "../../../dlmd/base/machine.ts";
import { statFields } from "../../../dlmd/base/proc-stat.ts";
import type { DeviceState } from "../../../dlmd/wire/peer-life.ts";
import { createLifeLook, DEVICE_OPEN_LIMIT_MS, MAX_SILENT_OPENS, processState } from "../../../dlmd/driver/life-look.ts";

const made: string[] = [];
afterEach(() => {
  for (const dir of made.splice(0)) rmSync(dir, { recursive: true, force: true });
});

function temporary(): string {
  const dir = mkdtempSync(path.join(tmpdir(), "coverlay-life-"));
  made.push(dir);
  return dir;
}

function startTimeOf(pid: number): number {
  return Number(statFields(readFileSync(`/proc/${pid}/stat`, "latin1"))[19]);
}

test("a process is alive, and gone when it has ended, or when its number is another's", async () => {
  const child = spawn("sleep", ["60"]);
  const pid = child.pid ?? 0;
  const startTime = startTimeOf(pid);
  expect(processState(pid, startTime)).toBe("alive");
  expect(processState(pid, startTime + 1)).toBe("gone");
  child.kill("SIGKILL");
  await once(child, "exit");
  expect(processState(pid, startTime)).toBe("gone");
});

test("a process whose first thread has ended is alive while another one runs", async () => {
  const proc = temporary();
  const stat = (state: string): string => `12 (a) b) ${state} ${Array.from({ length: 18 }, () => "0").join(" ")} 77 0`;
  mkdirSync(path.join(proc, "12/task/12"), { recursive: true });
  mkdirSync(path.join(proc, "12/task/13"));
  writeFileSync(path.join(proc, "12/stat"), stat("Z"));
  expect(processState(12, 77, proc)).toBe("alive");
  rmSync(path.join(proc, "12/task/13"), { recursive: true });
  expect(processState(12, 77, proc)).toBe("gone");
  writeFileSync(path.join(proc, "12/stat"), stat("D"));
  expect(processState(12, 77, proc)).toBe("alive");
});

test("opens nothing but block devices", async () => {
  const { look } = createLifeLook();
  const dir = temporary();
  const file = path.join(dir, "file");
  writeFileSync(file, "");
  const stateOf = async (device: string): Promise<DeviceState> => (await look({ pid: 1, startTime: 0, device })).device;
  expect(await stateOf(file)).toBe("not-a-device");
  expect(await stateOf(dir)).toBe("not-a-device");
  expect(await stateOf("/dev/null")).toBe("not-a-device");
  expect(await stateOf("relative")).toBe("not-a-device");
  expect(await stateOf("")).toBe("not-a-device");
  expect(await stateOf(path.join(dir, "none"))).toBe("missing");
  expect(await stateOf("/dev/\0x")).toBe("failed");
});

test("says which machine this is, and which boot", async () => {
  const seen = await createLifeLook().look({ pid: 1, startTime: 0, device: "" });
  expect(seen.bootId).toBe(readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim());
  expect([seen.process, seen.machineId]).toEqual(["gone", machineId()]);
});

test("a machine is named by a hash of its id, which outlives its boots; without an id it is unknown", () => {
  const file = path.join(temporary(), "machine-id");
  expect(machineId(file)).toBe(UNKNOWN_MACHINE);
  writeFileSync(file, "uninitialized\n");
  expect(machineId(file)).toBe(UNKNOWN_MACHINE);
  writeFileSync(file, "0123456789abcdef0123456789abcdef\n");
  expect(machineId(file)).toBe("a8103568b75c19b130e4c9e9ad1ff7e6");
  expect(machineId(file)).not.toContain("0123456789abcdef");
});

test("a machine id that cannot be read is an error, and no machine without an id", async () => {
  // A directory: EISDIR, for root too.
  const unreadable = (): string => machineId(temporary());
  expect(unreadable).toThrow(/^the machine id cannot be read: EISDIR/);
  expect(unreadable).toThrow(expect.objectContaining({ code: "machine-id-unreadable" }));
  const { look } = createLifeLook(() => Promise.resolve("free"), 60_000, { machineId: unreadable });
  expect(await look({ pid: 1, startTime: 0, device: "/dev/x" })).toMatchObject({ machineId: "", device: "free" });
});

test("an open that does not come back is silent after its limit, and MAX_SILENT_OPENS of them leave the pool alone", async () => {
  expect([DEVICE_OPEN_LIMIT_MS, MAX_SILENT_OPENS]).toEqual([1000, 2]);
  const opened: ((state: DeviceState) => void)[] = [];
  const { look } = createLifeLook(() => new Promise((resolve) => opened.push(resolve)), 1);
  const stateOf = async (): Promise<DeviceState> => (await look({ pid: 1, startTime: 0, device: "/dev/x" })).device;
  for (let i = 0; i < MAX_SILENT_OPENS; i++) expect(await stateOf()).toBe("silent");
  expect(await stateOf()).toBe("silent");
  expect(opened).toHaveLength(MAX_SILENT_OPENS);
  opened[0]?.("free");
  await Promise.resolve();
  const next = stateOf();
  await expect.poll(() => opened.length).toBe(MAX_SILENT_OPENS + 1);
  opened[MAX_SILENT_OPENS]?.("busy");
  expect(["busy", "silent"]).toContain(await next);
});

test("opens that are asked for at one time leave the pool alone too: they count before they are late", async () => {
  const opened: ((state: DeviceState) => void)[] = [];
  const { look } = createLifeLook(() => new Promise((resolve) => opened.push(resolve)), 60_000);
  const seen: DeviceState[] = [];
  const looks = Array.from({ length: 5 }, async () => seen.push((await look({ pid: 1, startTime: 0, device: "/dev/x" })).device));
  await expect.poll(() => seen).toEqual(["silent", "silent", "silent"]);
  expect(opened).toHaveLength(MAX_SILENT_OPENS);
  for (const end of opened) end("free");
  await Promise.all(looks);
  expect(seen.slice(3)).toEqual(["free", "free"]);
});
