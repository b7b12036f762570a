/** mount -o bg: one process waits for a mount point, is known, and is ended by an umount, with the overlay that it was starting. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { startTimeOf } from "../../../dlmd/base/process.ts";
import { waitForExit } from "../../../overlay/volume/mount-record.ts";
import {
  type Waiter,
  claimWaiting,
  endWaiter,
  startWaiter,
  waiterFiles,
  waiterOf,
  waitersOf,
} from "../../../overlay/volume/mount-waiter.ts";

const ANY_MS = 60_000;
const WAITS = "echo claimed >&3; exec sleep 600";

let dir = "";
let records = "";
const pids = new Set<number>();
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-waiter-"));
  records = path.join(dir, "records");
  mkdirSync(path.join(dir, "mnt"));
  mkdirSync(records);
});
afterEach(() => {
  for (const pid of pids) if (startTimeOf(pid) !== null) process.kill(pid, "SIGKILL");
  pids.clear();
  rmSync(dir, { recursive: true, force: true });
});

const about = (mountPoint: string): Parameters<typeof startWaiter>[0] => ({
  source: "/dev/x",
  mountPoint: path.join(dir, mountPoint),
  runDir: "/run/coverlay",
  logFile: "/run/coverlay/mount-x.log",
});
const named = (pid: number): { pid: number; startTime: string } => ({ pid, startTime: startTimeOf(pid) ?? "" });
const files = (extension: string): string[] => readdirSync(records).filter((name) => name.endsWith(extension));
/** Tests run as root, which may read all. */
function asNobody(look: () => void): void {
  process.seteuid?.(65_534);
  try {
    look();
  } finally {
    process.seteuid?.(0);
  }
}

async function start(mountPoint: string, script = WAITS): Promise<number> {
  const pid = await startWaiter(about(mountPoint), ["sh", "-c", script], 2, records);
  pids.add(pid);
  return pid;
}

/** Writes what a process in the background writes of itself. Gives the file. */
function record(mountPoint: string, pid: number, more: Partial<Waiter> = {}): string {
  const written = new Set(files(".waiter"));
  claimWaiting(about(mountPoint), records, () => undefined);
  const name = files(".waiter").find((other) => !written.has(other)) ?? "";
  const file = path.join(records, name);
  writeFileSync(file, JSON.stringify({ ...named(pid), ...about(mountPoint), overlay: null, ...more }));
  return file;
}

async function child(words: readonly string[] = ["sleep", "600"]): Promise<ChildProcess> {
  const [tool = "", ...args] = words;
  const begun = spawn(tool, args, { stdio: ["ignore", "pipe", "ignore"] });
  await once(begun, "spawn");
  pids.add(begun.pid ?? 0);
  return begun;
}

/** A process that was killed. */
async function dead(): Promise<{ pid: number; startTime: string }> {
  const killed = await child();
  const name = named(killed.pid ?? 0);
  killed.kill("SIGKILL");
  await once(killed, "exit");
  return name;
}

test("a second one for the same mount point is refused, by whatever path, and names the first", async () => {
  const pid = await start("mnt/shared");
  record("mnt/shared", pid);
  symlinkSync(path.join(dir, "mnt"), path.join(dir, "link"));
  mkdirSync(path.join(dir, "mnt/shared"));
  symlinkSync(path.join(dir, "mnt/shared"), path.join(dir, "mnt/last"));
  for (const mountPoint of ["mnt/shared", "link/shared", "mnt/../mnt/shared/", "mnt/last"]) {
    await expect(start(mountPoint)).rejects.toMatchObject({
      code: "already-waiting",
      exitStatus: 32,
      message: expect.stringContaining(`process ${pid} waits in the background already to mount /dev/x`) as unknown,
    });
    expect(waiterOf(path.join(dir, mountPoint), records)?.pid).toBe(pid);
  }
  expect(files(".lock").map((name) => statSync(path.join(records, name)).mode & 0o777)).toEqual([0o600]);
  const other = await start("mnt/other");
  record("mnt/other", other);
  const all = (runDir: string): number[] => waitersOf(runDir, records).map((waiter) => waiter.pid);
  expect(new Set(all("/run/coverlay"))).toEqual(new Set([pid, other]));
  expect(all("/run/elsewhere")).toEqual([]);
});

test.each(["null", "{", "[]", '{"pid":0}', '{"pid":1,"startTime":"1"}'])("a damaged file, %s, is as none", (text) => {
  writeFileSync(record("mnt/shared", process.pid), text);
  expect(waitersOf("/run/coverlay", records)).toEqual([]);
  expect(waiterOf(path.join(dir, "mnt/shared"), records)).toBeNull();
});

test.runIf(process.getuid?.() === 0)("another user is told that the files are not theirs to read", () => {
  const file = record("mnt/shared", process.pid);
  chmodSync(file, 0o600);
  chmodSync(dir, 0o755);
  const words = (place: string): unknown =>
    expect.objectContaining({ code: "permission", message: expect.stringContaining(place) as unknown });
  asNobody(() => expect(() => waitersOf("/run/coverlay", records)).toThrow(words(file)));
  chmodSync(records, 0o700);
  asNobody(() => expect(() => waitersOf("/run/coverlay", records)).toThrow(words(`${records} may not be read by user id 65534`)));
});

test("the run directory is known by each path to it", async () => {
  const pid = await start("mnt/shared");
  mkdirSync(path.join(dir, "run"));
  symlinkSync(path.join(dir, "run"), path.join(dir, "var-run"));
  record("mnt/shared", pid, { runDir: path.join(dir, "run/coverlay") });
  for (const runDir of ["run/coverlay/", "var-run/coverlay"])
    expect(waitersOf(`${dir}/${runDir}`, records).map((waiter) => waiter.pid)).toEqual([pid]);
});

test("of two commands at one moment one is refused, also where one that was killed has left its file", async () => {
  record("mnt/shared", (await dead()).pid);
  const [one, other] = await Promise.allSettled([start("mnt/shared"), start("mnt/shared")]);
  expect([one.status, other.status].toSorted()).toEqual(["fulfilled", "rejected"]);
  expect(one.status === "rejected" ? one.reason : (other as PromiseRejectedResult).reason).toMatchObject({
    code: "already-waiting",
    message: expect.stringContaining("another process waits in the background already") as unknown,
  });
});

test("one that was killed, or could not be begun, is in nobody's way", async () => {
  const killed = await start("mnt/shared");
  const name = named(killed);
  record("mnt/shared", killed);
  process.kill(killed, "SIGKILL");
  expect(await waitForExit(name, ANY_MS)).toBe(true);
  expect([waiterOf(path.join(dir, "mnt/shared"), records), waiterFiles(records)]).toEqual([null, []]);
  await expect(start("mnt/shared", "exit 3")).rejects.toMatchObject({
    code: "no-background",
    message: expect.stringMatching(/: 3$/) as unknown,
  });
  await start("mnt/shared");
});

test("the claim is not that of a child of it", async () => {
  const childFile = path.join(dir, "child");
  const script = `const { pid } = require("child_process").spawn("sleep", ["600"], { stdio: "inherit" });
    require("fs").writeFileSync(${JSON.stringify(childFile)}, String(pid));
    require("fs").writeSync(3, "claimed\\n");
    setInterval(() => {}, 1e6);`;
  const pid = await startWaiter(about("mnt/shared"), [process.execPath, "-e", script], 2, records);
  const left = Number(readFileSync(childFile, "utf8"));
  pids.add(pid).add(left);
  const name = named(pid);
  await expect(start("mnt/shared")).rejects.toMatchObject({ code: "already-waiting" });
  process.kill(pid, "SIGKILL");
  expect(await waitForExit(name, ANY_MS)).toBe(true);
  await start("mnt/shared");
  expect(startTimeOf(left)).not.toBeNull();
});

test("a process in the background names itself and its overlay in a new file, and takes that away", () => {
  const said: string[] = [];
  const claim = claimWaiting(about("mnt/shared"), records, (word) => void said.push(word));
  const [name = ""] = files(".waiter");
  const [file, before] = [path.join(records, name), path.join(dir, "before")];
  expect([said, JSON.parse(readFileSync(file, "utf8"))]).toEqual([
    ["claimed\n"],
    { ...named(process.pid), ...about("mnt/shared"), overlay: null },
  ]);
  linkSync(file, before);
  claim.overlayStarted(process.ppid);
  expect(JSON.parse(readFileSync(file, "utf8"))).toMatchObject({ pid: process.pid, overlay: named(process.ppid) });
  expect(JSON.parse(readFileSync(before, "utf8"))).toMatchObject({ overlay: null });
  claim.end();
  expect(readdirSync(records)).toEqual([]);
});

test("without the command that has started it, it does not wait", () => {
  const say = (): void => {
    throw new Error("EPIPE");
  };
  expect(() => claimWaiting(about("mnt/shared"), records, say)).toThrow(expect.objectContaining({ code: "interrupted" }) as Error);
  expect(readdirSync(records)).toEqual([]);
});

test("an umount ends it", async () => {
  const mountPoint = path.join(dir, "mnt/shared");
  expect(await endWaiter(mountPoint, records)).toBeNull();
  const pid = await start("mnt/shared");
  record("mnt/shared", pid);
  expect(await endWaiter(mountPoint, records)).toMatchObject({ pid });
  expect([startTimeOf(pid), waiterOf(mountPoint, records)]).toEqual([null, null]);
});

test("an umount, and the next one that waits, end the overlay that one was starting when it was killed", async () => {
  const mountPoint = path.join(dir, "mnt/shared");
  const waiter = await dead();
  const [first, second] = [named((await child()).pid ?? 0), named((await child()).pid ?? 0)];
  const file = record("mnt/shared", waiter.pid, { ...waiter, overlay: first });
  expect(waitersOf("/run/coverlay", records)).toMatchObject([{ overlay: first }]);
  expect(await endWaiter(mountPoint, records)).toMatchObject({ pid: first.pid });
  expect(startTimeOf(first.pid)).toBeNull();
  writeFileSync(file, JSON.stringify({ ...waiter, ...about("mnt/shared"), overlay: second }));
  await claimWaiting(about("mnt/shared"), records, () => undefined).endLeftOverlay();
  expect(startTimeOf(second.pid)).toBeNull();
});

test("an overlay that has mounted is not ended with it", async () => {
  const waiter = await dead();
  const overlay = named((await child()).pid ?? 0);
  record("mnt/shared", waiter.pid, { ...waiter, overlay });
  writeFileSync(path.join(records, "0:99.json"), JSON.stringify({ ...overlay, ...about("mnt/shared") }));
  expect([await endWaiter(path.join(dir, "mnt/shared"), records), waiterFiles(records)]).toEqual([null, []]);
  expect(startTimeOf(overlay.pid)).not.toBeNull();
});

test("one that does not end is an error that names it", async () => {
  const begun = await child([
    "python3",
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(600)",
  ]);
  await once(begun.stdout as NodeJS.ReadableStream, "data");
  record("mnt/shared", begun.pid ?? 0);
  await expect(endWaiter(path.join(dir, "mnt/shared"), records, 0)).rejects.toMatchObject({
    code: "still-waiting",
    hint: expect.stringContaining(`kill -KILL ${begun.pid}`) as unknown,
  });
});

test("a damaged file is told as such, and keeps nothing", async () => {
  const pid = await start("mnt/shared");
  record("mnt/shared", pid);
  for (const [name, text] of Object.entries({ "cut.waiter": '{"pid":1', "null.waiter": "null", "other.waiter": "[]" }))
    writeFileSync(path.join(records, name), text);
  expect(waitersOf("/run/coverlay", records)).toMatchObject([{ pid }]);
  expect(waiterFiles(records).filter((file) => file.record === null)).toHaveLength(3);
});
