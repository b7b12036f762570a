/** The file that tells of a mount: one that cannot be written ends nothing. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmdirSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import * as z from "zod";
import { silentLog } from "../../../dlmd/base/log.ts";
import { askOverlay } from "../../../overlay/query/overlay-query.ts";
import { serveStatus, SHOW_AGAIN_MS, Shown, type StatusAnswers } from "../../../overlay/serve/status-server.ts";

it("what cannot be written is logged, and written when there is room again", async () => {
  const runDir = mkdtempSync(path.join(os.tmpdir(), "coverlay-status-"));
  const warnings: string[] = [];
  let role = "waiting";
  const answers = { summary: () => ({ role }) } as unknown as StatusAnswers;
  const log = { ...silentLog, warn: (_: object, words: string) => void warnings.push(words) };
  const server = await serveStatus(runDir, 41, answers, log);
  const shown = (): unknown => (JSON.parse(readFileSync(path.join(runDir, "overlay-41.json"), "utf8")) as { role: string }).role;
  try {
    // As a file system that is full: the next file cannot be made.
    mkdirSync(path.join(runDir, "overlay-41.json.new"));
    role = "owner";
    for (const _ of [1, 2]) server.update();
    expect([shown(), warnings]).toEqual(["waiting", ["the status of this mount could not be written"]]);
    rmdirSync(path.join(runDir, "overlay-41.json.new"));
    server.update();
    expect(shown()).toBe("owner");
  } finally {
    server.close(false);
    rmSync(runDir, { recursive: true, force: true });
  }
});

const NOT_WRITTEN = "the status of this mount could not be written";
const NOT_ASKED = "nobody can ask for the status of this mount yet";

let dir: string;
let warned: string[];
const log = { ...silentLog, warn: (_: object, words: string) => void warned.push(words) };
const status = { pid: 7, role: "owner", mountpoint: "/mnt", volume: "lab", device: "/dev/loop0" };
const answersOf = { summary: () => status, status: () => status } as unknown as StatusAnswers;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-status-"));
  warned = [];
});
afterEach(() => {
  vi.useRealTimers();
  rmSync(dir, { recursive: true, force: true });
});

it("of a mount that programs use, what cannot be shown at the start is shown later", async () => {
  const [file, socket] = ["overlay-42.json", "overlay-42.sock"].map((name) => path.join(dir, name)) as [string, string];
  // No file can be made there, nor the socket.
  mkdirSync(`${file}.new`);
  mkdirSync(socket);
  const server = await serveStatus(dir, 42, answersOf, log, true);
  try {
    expect([existsSync(file), warned]).toEqual([false, [NOT_ASKED, NOT_WRITTEN]]);
    rmdirSync(`${file}.new`);
    rmdirSync(socket);
    await vi.advanceTimersByTimeAsync(SHOW_AGAIN_MS);
    expect(existsSync(file)).toBe(true);
    vi.useRealTimers();
    await expect.poll(() => existsSync(socket)).toBe(true);
    expect(await askOverlay(dir, 42, { query: "status" }, z.looseObject({ volume: z.string() }))).toEqual(status);
  } finally {
    server.close(false);
  }
  expect([existsSync(file), existsSync(socket)]).toEqual([false, false]);
});

it("a new mount is refused where it cannot be shown", async () => {
  mkdirSync(path.join(dir, "overlay-43.json.new"));
  await expect(serveStatus(dir, 43, answersOf, log)).rejects.toThrow("EISDIR");
});

it("what could not be shown is tried again until it is, or is over", async () => {
  let fails = 2;
  let tries = 0;
  const failures: unknown[] = [];
  const shown = new Shown(
    () => {
      tries += 1;
      if (tries <= fails) throw new Error("ENOSPC");
    },
    (error) => failures.push(error),
  );
  await shown.show();
  await vi.advanceTimersByTimeAsync(5 * SHOW_AGAIN_MS);
  expect([tries, failures.length]).toEqual([3, 2]);
  fails = 4;
  await shown.show();
  shown.end();
  await vi.advanceTimersByTimeAsync(5 * SHOW_AGAIN_MS);
  expect([tries, failures.length]).toEqual([4, 3]);
});

it("a question that fails is answered with why, and logged; the next one is answered", async () => {
  let fails = true;
  const statusOf = (): object => {
    if (fails) throw new Error("EMFILE: too many open files, uv_resident_set_memory");
    return status;
  };
  const answers = { ...answersOf, status: statusOf, growth: () => ({ bytes: 1n }) } as unknown as StatusAnswers;
  const server = await serveStatus(dir, 44, answers, log);
  const ask = (query: string): Promise<object> => askOverlay(dir, 44, { query }, z.looseObject({}));
  try {
    await expect(ask("status")).rejects.toMatchObject({ code: "overlay-refused", message: expect.stringContaining("EMFILE") as string });
    // What is no JSON fails, too.
    await expect(ask("growth")).rejects.toMatchObject({ code: "overlay-refused" });
    expect(warned).toEqual(["a question about this mount failed", "a question about this mount failed"]);
    fails = false;
    expect(await ask("status")).toEqual(status);
  } finally {
    server.close(false);
  }
});
