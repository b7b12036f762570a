/** How long taking a lab down waits for what is to leave: with a clock of the test's own, and processes that are played. */
import { linkSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { killProgram, stopNode } from "../../../overlay/lab/boot.ts";
import { setCableDelay } from "../../../overlay/lab/cable.ts";
import { detachLoops, givenImage } from "../../../overlay/lab/disk.ts";
import { takeDown } from "../../../overlay/lab/down.ts";
import type * as processes from "../../../overlay/lab/processes.ts";
import {
  type LabNode,
  type LabState,
  labNode,
  type ProcessRef,
  readLab,
  updateNode,
  withLabLock,
  writeLab,
} from "../../../overlay/lab/state.ts";
import { UNFOLLOWED } from "../../../overlay/lab/work.ts";
import { labState } from "./lab-state.ts";

const played = vi.hoisted(() => ({
  alive: new Set<number>(),
  found: [] as ProcessRef[],
  sent: [] as string[],
  looks: 0,
  waits: 0,
  loops: [] as string[],
  /** What a write of lab.json fails with; "": it does not. */
  noRoom: "",
  /** What is behind all of them. */
  image: "/image",
  mountinfo: "",
}));
// Its own functions are not played by fake timers.
vi.mock("node:timers/promises", () => ({ setTimeout: (ms: number) => new Promise((resolve) => setTimeout(resolve, ms)) }));
vi.mock("../../../overlay/lab/processes.ts", async (importOriginal) => {
  const isAlive = ({ pid }: ProcessRef): boolean => played.alive.has(pid);
  return {
    ...(await importOriginal<typeof processes>()),
    isAlive,
    findProcesses: () => played.found,
    signalProcess: (ref: ProcessRef, signal: string) => {
      played.sent.push(`${signal} ${ref.pid}`);
      return isAlive(ref);
    },
    waitGone: async (refs: readonly ProcessRef[], timeoutMs: number) => {
      if (refs.some(isAlive)) played.waits += 1;
      if (refs.some(isAlive)) await new Promise((resolve) => setTimeout(resolve, timeoutMs));
      return refs.filter(isAlive);
    },
  };
});
vi.mock("../../../overlay/lab/network.ts", () => ({ removeNetworks: () => Promise.resolve(), setCable: () => Promise.resolve() }));
vi.mock("node:fs", async (importOriginal) => {
  const fs = await importOriginal<typeof import("node:fs")>();
  const readdirSync = (dir: string): string[] => {
    if (dir !== "/sys/block") return fs.readdirSync(dir);
    played.looks += 1;
    return played.loops;
  };
  const readFileSync = (file: string | number, options: BufferEncoding): string =>
    String(file).startsWith("/sys/block/")
      ? `${played.image}\n`
      : file === "/proc/self/mountinfo"
        ? played.mountinfo
        : fs.readFileSync(file, options);
  const isAbort = (file: string): boolean => file === "/sys/fs/fuse/connections/65535/abort";
  const existsSync = (file: string): boolean => isAbort(file) || fs.existsSync(file);
  const writeFileSync: typeof fs.writeFileSync = (file, data, options) => {
    if (played.noRoom !== "" && String(file).startsWith(`${dir}/lab.json`)) {
      // As a file system does: the file is there, and nothing in it.
      fs.writeFileSync(file, "", options);
      throw Object.assign(new Error(played.noRoom), { code: played.noRoom });
    }
    if (!isAbort(String(file))) return fs.writeFileSync(file, data, options);
    played.sent.push("abort");
    played.mountinfo = "";
  };
  return { ...fs, existsSync, readdirSync, readFileSync, writeFileSync };
});

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "lab-teardown-"));
  mkdirSync(`${dir}/node1/run`, { recursive: true });
  Object.assign(played, {
    alive: new Set(),
    found: [],
    sent: [],
    looks: 0,
    waits: 0,
    noRoom: "",
    loops: [],
    image: "/image",
    mountinfo: "",
  });
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] });
});
afterEach(() => {
  vi.useRealTimers();
  rmSync(dir, { recursive: true, force: true });
});

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function processOf(pid: number): ProcessRef {
  played.alive.add(pid);
  return { pid, startTicks: "1" };
}

function lab(change: Partial<LabState> = {}, dlmd: ProcessRef | null = null): LabState {
  return writeLab(labState(dir, { lower: "directory", ...change }, { dlmd }));
}

/** The first of the timers that are waited for: whether it is there before its last millisecond, and gone after it. */
async function waitsFor(timeMs: number): Promise<void> {
  while (vi.getTimerCount() === 0) await turn();
  const sent = played.sent.length;
  await vi.advanceTimersByTimeAsync(timeMs - 1);
  for (let turns = 0; turns < 20; turns += 1) await turn();
  expect(vi.getTimerCount()).toBe(1);
  expect(played.sent).toHaveLength(sent);
}

it("a foreground `up` is killed after UP_LEAVES_TIMEOUT_MS", async () => {
  const up = processOf(1001);
  lab({ up });
  const down = takeDown(dir);
  await waitsFor(60_000);
  expect(played.sent).toEqual(["SIGTERM 1001"]);
  await vi.advanceTimersByTimeAsync(1);
  expect(played.sent).toEqual(["SIGTERM 1001", "SIGKILL 1001"]);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(await down).toBe(true);
});

describe("a full disk", () => {
  it.each(["ENOSPC", "EDQUOT"])("is said in words by commands that change the lab, and nothing is left of their try: %s", async (code) => {
    const made = lab();
    played.noRoom = code;
    await expect(updateNode(dir, 1, { cut: true })).rejects.toMatchObject({
      code: "lab-full",
      message: expect.stringContaining(`${dir} is full`) as string,
    });
    expect(readLab(dir)).toEqual(made);
    expect(readdirSync(dir).sort()).toEqual(["lab.json", "node1"]);
  });

  it("does not keep the lab, and is not worth a word", async () => {
    lab({ phase: "making" });
    played.noRoom = "ENOSPC";
    const note = vi.fn<(words: string) => void>();
    expect(await takeDown(dir, { ...UNFOLLOWED, note })).toBe(true);
    expect(note.mock.calls).toEqual([]);
    expect(readdirSync(dir)).toEqual([]);
  });

  it("is told if something is left", async () => {
    const worker = processOf(1006);
    lab({ phase: "making", workers: [worker] });
    played.noRoom = "ENOSPC";
    const end = new AbortController();
    const note = vi.fn<(words: string) => void>();
    const down = takeDown(dir, { ...UNFOLLOWED, note, signal: end.signal });
    while (vi.getTimerCount() === 0) await turn();
    end.abort(new Error("ended"));
    await expect(down).rejects.toThrow("ended");
    await vi.advanceTimersByTimeAsync(10_000);
    while (note.mock.calls.length === 0) await turn();
    expect(note.mock.calls).toEqual([[expect.stringContaining(`${dir} is full`)]]);
  });
});

it("a key that `up` was killed at is removed, and nothing that is not the lab's", async () => {
  lab({ phase: "making" });
  for (const name of ["cluster.key.1234.new", "cluster.key.1234.new.mine", "my.cluster.key.1234.new", "cluster.key.old.new"]) {
    writeFileSync(`${dir}/${name}`, "");
  }
  expect(await takeDown(dir)).toBe(true);
  expect(readdirSync(dir).sort()).toEqual(["cluster.key.1234.new.mine", "cluster.key.old.new", "my.cluster.key.1234.new"]);
});

it.each([
  ["directory", null, ["disk.img"]],
  ["ext4", null, ["lower"]],
  ["ext4", "/image", ["disk.img", "lower"]],
] as const)("a disk of another that came later is not removed: %s, --image %s", async (lower, givenImage, kept) => {
  lab({ phase: "making", lower, givenImage });
  for (const name of ["disk.img", "lower"]) writeFileSync(`${dir}/${name}`, "");
  expect(await takeDown(dir)).toBe(true);
  expect(readdirSync(dir).sort()).toEqual([...kept]);
});

it("commands at work that were killed are waited for WORKERS_LEAVE_TIMEOUT_MS", async () => {
  const worker = processOf(1002);
  lab({ workers: [worker], phase: "making" });
  const down = takeDown(dir);
  let over = false;
  void down.then(() => (over = true));
  await waitsFor(10_000);
  expect([over, played.sent]).toEqual([false, ["SIGKILL 1002"]]);
  await vi.advanceTimersByTimeAsync(1);
  expect(await down).toBe(true);
});

it("dlmd has DLMD_LEAVES_TIMEOUT_MS, and KILL_TIMEOUT_MS when it is killed alone", async () => {
  const dlmd = processOf(1003);
  const made = lab({}, dlmd);
  const killed = killProgram(made, labNode(made, "node1"), "dlmd");
  await waitsFor(15_000);
  await vi.advanceTimersByTimeAsync(1);
  await killed;
  const down = takeDown(dir);
  let over = false;
  void down.then(() => (over = true));
  await waitsFor(1000);
  expect([over, played.sent]).toEqual([false, ["SIGKILL 1003", "SIGTERM 1003"]]);
  await vi.advanceTimersByTimeAsync(1);
  expect(await down).toBe(true);
});

it("the process of a long cable has END_TIMEOUT_MS to end", async () => {
  played.found = [processOf(1004)];
  // Of another length.
  const made = lab();
  const node = labNode(made, "node1");
  let looks = 0;
  Object.defineProperty(played, "found", { configurable: true, get: () => (looks++ === 0 ? [{ pid: 1004, startTicks: "1" }] : []) });
  const set = setCableDelay(made, node);
  let error: unknown = null;
  set.catch((reason: unknown) => (error = reason));
  await waitsFor(10_000);
  expect(error).toBeNull();
  await vi.advanceTimersByTimeAsync(1);
  await turn();
  expect(error).toMatchObject({ code: "unkillable" });
  Object.defineProperty(played, "found", { configurable: true, writable: true, value: [] });
});

describe("a clean shutdown", () => {
  afterEach(() => vi.unstubAllEnvs());

  it("gives back what the node has at its end, not what it had at its begin", async () => {
    mkdirSync(`${dir}/bin`);
    writeFileSync(`${dir}/bin/losetup`, `#!/bin/sh\necho "$@" >>${dir}/bin/calls\n`, { mode: 0o755 });
    writeFileSync(`${dir}/bin/calls`, "");
    vi.stubEnv("PATH", `${dir}/bin:${process.env["PATH"]}`);
    played.loops = ["loop65535"];
    const nodes = [1, 2].flatMap((nodeid) => labState(dir, {}, { nodeid, device: nodeid === 1 ? "/dev/loop65535" : null }).nodes);
    const made = lab({ lower: "ext4", givenImage: "/image", nodes });
    let release: () => void = () => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    // A fence of it is at work.
    const fence = withLabLock(dir, () => held, "power-1");
    const said: string[] = [];
    const stop = stopNode(made, labNode(made, "node1"), { ...UNFOLLOWED, say: (words) => void said.push(words) });
    while (!said.some((words) => words.includes("gives its disk back"))) await turn();
    await updateNode(dir, 1, { power: "off", device: null });
    await updateNode(dir, 2, { device: "/dev/loop65535" });
    release();
    await fence;
    // It looks again.
    await vi.advanceTimersByTimeAsync(20);
    await stop;
    expect(readFileSync(`${dir}/bin/calls`, "utf8")).toBe("");
    expect(readLab(dir)?.nodes.map(({ power, device }) => [power, device])).toEqual([
      ["stopped", null],
      ["on", "/dev/loop65535"],
    ]);
  });
});

describe("a file that was given with --image", () => {
  afterEach(() => {
    vi.unstubAllEnvs();
    Object.defineProperty(played, "loops", { configurable: true, writable: true, value: [] });
  });

  it("is refused while a loop device is over it, by whatever name", () => {
    played.image = `${dir}/image`;
    writeFileSync(played.image, "12345");
    linkSync(played.image, `${dir}/other-name`);
    expect(givenImage(played.image)).toEqual({ image: played.image, bytes: 5 });
    played.loops = ["loop65535"];
    for (const name of [played.image, `${dir}/other-name`]) {
      expect(() => givenImage(name)).toThrow(
        expect.objectContaining({ code: "image-busy", message: expect.stringContaining("/dev/loop65535") as string }),
      );
    }
    played.image = `${dir}/gone`;
    expect(givenImage(`${dir}/image`).bytes).toBe(5);
  });

  it("has the name that the kernel gives it, if a symbolic link was given", () => {
    writeFileSync(`${dir}/image`, "12345");
    symlinkSync(`${dir}/image`, `${dir}/link`);
    expect(givenImage(`${dir}/link`)).toEqual({ image: realpathSync(`${dir}/image`), bytes: 5 });
    expect(() => givenImage(`${dir}/none`)).toThrow(`--image should be a file for the disk, found nothing at ${dir}/none`);
  });

  it("keeps the loop devices of others: those go that the lab has recorded, or had begun to attach", async () => {
    const loops = ["loop65533", "loop65534", "loop65535"];
    mkdirSync(`${dir}/bin`);
    // It notes what is detached, and the kernel that is played does so.
    writeFileSync(`${dir}/bin/losetup`, `#!/bin/sh\n[ "$1" = -d ] && echo "$2" >>${dir}/bin/detached\n`, { mode: 0o755 });
    writeFileSync(`${dir}/bin/detached`, "");
    vi.stubEnv("PATH", `${dir}/bin:${process.env["PATH"]}`);
    const detached = (): string[] => readFileSync(`${dir}/bin/detached`, "utf8").split("\n").slice(0, -1);
    Object.defineProperty(played, "loops", {
      configurable: true,
      get: () => loops.filter((name) => !detached().includes(`/dev/${name}`)),
    });
    const { nodes } = labState(dir, {}, { device: "/dev/loop65533", attaching: null });
    const second = labState(dir, {}, { nodeid: 2, attaching: "/dev/loop65535" }).nodes;
    lab({ lower: "ext4", givenImage: "/image", phase: "making", nodes: [...nodes, ...second] });
    expect(await takeDown(dir)).toBe(true);
    expect(detached()).toEqual(["/dev/loop65533", "/dev/loop65535"]);
  });
});

it("loop devices are looked at every POLL_MS, and those in use are named after DETACH_TIMEOUT_MS", async () => {
  played.loops = ["loop65535"];
  const bin = `${dir}/bin`;
  mkdirSync(bin);
  writeFileSync(`${bin}/losetup`, "#!/bin/sh\nexit 0\n", { mode: 0o755 });
  const searchPath = process.env["PATH"];
  process.env["PATH"] = `${bin}:${searchPath}`;
  try {
    let error: unknown = null;
    const detached = detachLoops("/image");
    detached.catch((reason: unknown) => (error = reason));
    // Before that: all of them, those to be detached.
    while (played.looks < 3 || vi.getTimerCount() === 0) await turn();
    const looks = played.looks;
    await vi.advanceTimersByTimeAsync(19);
    expect(played.looks).toBe(looks);
    await vi.advanceTimersByTimeAsync(1);
    expect(played.looks).toBe(looks + 1);
    await vi.advanceTimersByTimeAsync(20_000 - 21);
    expect(error).toBeNull();
    await vi.advanceTimersByTimeAsync(1);
    expect(error).toMatchObject({ code: "loop-busy" });
  } finally {
    process.env["PATH"] = searchPath;
  }
});

describe("a mount", () => {
  /** A lab with one; umount(8) is that script. */
  function mounted(umount: string): LabNode {
    const node = labNode(lab(), "node1");
    mkdirSync(`${dir}/bin`);
    writeFileSync(`${dir}/bin/umount`, `#!/bin/sh\n${umount}\n`, { mode: 0o755 });
    vi.stubEnv("PATH", `${dir}/bin:${process.env["PATH"]}`);
    played.mountinfo = `91 27 0:65535 / ${node.mount} rw - fuse.clustered /dev/x rw\n`;
    return node;
  }
  afterEach(() => vi.unstubAllEnvs());

  it("that is not unmounted within CLEAN_UNMOUNT_TIMEOUT_MS is aborted", async () => {
    mounted("exec sleep 600");
    const down = takeDown(dir);
    await waitsFor(5000);
    await vi.advanceTimersByTimeAsync(1);
    while (played.sent.length === 0) await turn();
    expect(played.sent).toEqual(["abort"]);
    while (vi.getTimerCount() === 0) await turn();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(await down).toBe(true);
  });

  it("that was unmounted, but whose overlay has not ended within CLEAN_UNMOUNT_TIMEOUT_MS: that is killed", async () => {
    const { mount } = mounted("exit 0");
    played.found = [processOf(1005)];
    const file = { pid: 1005, role: "owner", mountpoint: mount, volume: "lab", device: "/dev/x" };
    writeFileSync(`${dir}/node1/run/overlay-65535.json`, JSON.stringify(file));
    const down = takeDown(dir);
    while (played.waits === 0) await turn();
    played.mountinfo = "";
    await waitsFor(5000);
    expect(played.sent).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    while (played.sent.length === 0) await turn();
    expect(played.sent).toEqual(["SIGKILL 1005"]);
    Object.assign(played, { alive: new Set(), found: [] });
    await vi.advanceTimersByTimeAsync(15_000);
    expect(await down).toBe(true);
  });
});
