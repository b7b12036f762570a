/** Starting an overlay process: it lives on alone, its error comes through, its silent death is told, an interrupt ends it. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { mountInterruptibly } from "../../../overlay/volume/mount-interrupt.ts";
import {
  heapGrowthPercent,
  NODE_FLAGS,
  type OverlayArguments,
  overlayLogFile,
  startOverlay,
} from "../../../overlay/volume/start-overlay.ts";

let dir = "";
const pids: number[] = [];

beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-start-"));
});

afterEach(() => {
  for (const pid of pids.splice(0)) if (existsSync(`/proc/${pid}`)) process.kill(pid, "SIGKILL");
  rmSync(dir, { recursive: true, force: true });
});

/** `body`: what stands in for the program; `say(text)` writes on the pipe. */
function start(body: string, signal?: AbortSignal, listener: Parameters<typeof startOverlay>[3] = {}): Promise<number> {
  const program = path.join(dir, "program.mjs");
  const say = `import { writeSync, closeSync } from "node:fs";\nconst say = (text) => { writeSync(3, text); closeSync(3); };\n`;
  writeFileSync(program, say + body);
  return startOverlay(overlay(), program, signal, listener);
}

function overlay(): OverlayArguments {
  return { device: "/dev/x", mountPoint: "/mnt/a b", options: "ro,runDir=/r", runDir: path.join(dir, "run") };
}

test("it gets its arguments, V8's for a small heap and malloc's for few arenas, and lives on in a session of its own", async () => {
  const pid = await start(`console.log([...process.execArgv, ...process.argv.slice(2), process.env.MALLOC_ARENA_MAX].join("|"));
    setInterval(() => {}, 60_000);
    say(JSON.stringify({ ready: true, pid: process.pid }) + "\\n");`);
  pids.push(pid);
  const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]?.split(" ") ?? [];
  expect(Number(fields[3])).toBe(pid);
  const log = overlayLogFile(overlay());
  expect(log).toBe(path.join(dir, "run/mount-mnt-a b.log"));
  expect(readFileSync(log, "utf8")).toBe(
    `--heap-growing-percent=50|--max-semi-space-size=4|serve|--device|/dev/x|--mountpoint|/mnt/a b|--options|ro,runDir=/r|--run-dir|${path.join(dir, "run")}|2\n`,
  );
});

test("a log is named after its mount point, if the name of a file has room for that", async () => {
  const logOf = (mountPoint: string): string => path.basename(overlayLogFile({ mountPoint, runDir: dir }));
  // mount- and .log
  const longest = "a".repeat(255 - 10);
  expect(logOf(`/${longest}`)).toBe(`mount-${longest}.log`);
  const names = [`/${longest}b`, `/${longest}c`, `/${"a".repeat(122)}é/é`, `/${"é".repeat(123)}`].map(logOf);
  expect(names).toEqual([
    expect.stringMatching(/^mount-[0-9a-f]{32}\.log$/),
    expect.stringMatching(/^mount-[0-9a-f]{32}\.log$/),
    expect.stringMatching(/^mount-a{122}é-é\.log$/),
    expect.stringMatching(/^mount-[0-9a-f]{32}\.log$/),
  ]);
  expect(new Set(names).size).toBe(names.length);
  const refused = startOverlay({ ...overlay(), mountPoint: `/${longest}/${longest}` }, path.join(dir, "gone.mjs"));
  await expect(refused).rejects.toMatchObject({ code: "overlay-died" });
});

test("one that is told to end just before it serves does not count as mounted", async () => {
  const interrupt = new AbortController();
  const begun = start(
    `process.on("SIGTERM", () => { say(JSON.stringify({ ready: true, pid: process.pid }) + "\\n"); setTimeout(() => process.exit(0), 50); });
    setInterval(() => {}, 60_000);
    writeSync(3, JSON.stringify({ waiting: "for an owner" }) + "\\n");
    console.log("waits");`,
    interrupt.signal,
  );
  const log = overlayLogFile(overlay());
  while (!existsSync(log) || !readFileSync(log, "utf8").includes("waits")) await new Promise((resolve) => setTimeout(resolve, 10));
  interrupt.abort();
  await expect(begun).rejects.toMatchObject({ code: "interrupted" });
});

test("its refusal is the command's", async () => {
  const refused = start(
    `say(JSON.stringify({ error: { code: "no-quorum", message: "m", hint: "h", exitStatus: 32 } }) + "\\n"); process.exit(32);`,
  );
  await expect(refused).rejects.toMatchObject({ code: "no-quorum", message: "m", hint: "h", exitStatus: 32 });
});

test("one that dies without a word is told, with its log", async () => {
  const died = start(`throw new Error("in the log");`);
  await expect(died).rejects.toMatchObject({ code: "overlay-died", exitStatus: 32, hint: `Its log is ${overlayLogFile(overlay())}` });
  expect(readFileSync(overlayLogFile(overlay()), "utf8")).toContain("in the log");
});

test("a mount that is out of time says for what its overlay has waited", async () => {
  const why = "no node that mounts the volume reaches its device";
  const body = `process.on("SIGTERM", () => process.exit(0)); setInterval(() => {}, 60_000);
    writeSync(3, JSON.stringify({ waiting: ${JSON.stringify(why)} }) + "\\n");`;
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    const hasSaid = new Promise<void>((resolve) => {
      vi.spyOn(process.stderr, "write").mockImplementation(() => (resolve(), true));
    });
    const waits = mountInterruptibly(async (signal, waiting) => void (await start(body, signal, { waiting })), 12_000);
    void hasSaid.then(() => vi.advanceTimersByTime(12_000));
    await expect(waits).rejects.toMatchObject({ code: "mount-timeout", message: `not mounted within 12 s: ${why}` });
  } finally {
    vi.restoreAllMocks();
    vi.useRealTimers();
  }
});

test("an interrupt of the command ends the overlay that is not ready", async () => {
  const interrupted = start(
    `process.on("SIGTERM", () => process.exit(0)); setInterval(() => {}, 60_000); process.kill(${process.pid}, "SIGTERM");`,
  );
  await expect(interrupted).rejects.toMatchObject({ code: "interrupted", exitStatus: 8 });
  expect(process.listenerCount("SIGTERM")).toBe(0);
});

test("an interrupt of a command that waits is one: the overlay has time to undo what it has begun", async () => {
  const undone = path.join(dir, "undone");
  const body = `import { writeFileSync } from "node:fs";
    process.on("SIGTERM", () => setTimeout(() => { writeFileSync(${JSON.stringify(undone)}, ""); process.exit(0); }, 300));
    setInterval(() => {}, 60_000); process.kill(${process.pid}, "SIGTERM");`;
  const waits = mountInterruptibly(async (signal) => void (await start(body, signal)), 60_000);
  await expect(waits).rejects.toMatchObject({ code: "interrupted", exitStatus: 8 });
  expect(existsSync(undone)).toBe(true);
});

test("a second interrupt ends one that does not listen", async () => {
  const interrupted = start(`
    process.on("SIGTERM", () => process.kill(${process.pid}, "SIGTERM"));
    setInterval(() => {}, 60_000);
    process.kill(${process.pid}, "SIGTERM");`);
  await expect(interrupted).rejects.toMatchObject({ code: "interrupted", exitStatus: 8 });
});

test("an interrupt while one that has failed ends is not lost: the command does not end with a reason to try again", async () => {
  const failed = start(`process.on("SIGTERM", () => process.exit(32));
    setInterval(() => {}, 60_000);
    say(JSON.stringify({ error: { code: "no-quorum", message: "1 of 3 votes", hint: "h", exitStatus: 32 } }) + "\\n");
    process.kill(${process.pid}, "SIGTERM");`);
  await expect(failed).rejects.toMatchObject({ code: "interrupted", message: expect.stringContaining("1 of 3 votes") as unknown });
});

test("one whose start cannot be noted is ended before the command fails", async () => {
  const full = Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
  const noted = (pid: number): void => {
    pids.push(pid);
    throw full;
  };
  await expect(start(`setInterval(() => {}, 60_000);`, undefined, { started: noted })).rejects.toBe(full);
  expect(pids.filter((pid) => existsSync(`/proc/${pid}`))).toEqual([]);
  expect(pids).toHaveLength(1);
});

test("keeps the heap tight until it is large, and then collects less often", () => {
  const mib = 2 ** 20;
  const [first] = NODE_FLAGS;
  expect(first).toBe(`--heap-growing-percent=${heapGrowthPercent(0)}`);
  expect([47, 48, 95, 96, 255, 256, 2000].map((size) => heapGrowthPercent(size * mib))).toEqual([50, 16, 16, 6, 6, 25, 25]);
});
