/** The word of a new overlay to the command that started it. */
import { closeSync, openSync, readFileSync } from "node:fs";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { Readable } from "node:stream";
import { expect, test, vi } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { ReadyPipe, readReady, WAITING_EVERY_MS } from "../../../overlay/volume/ready-pipe.ts";

async function roundTrip(say: (pipe: ReadyPipe) => void): Promise<number> {
  const dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-ready-"));
  try {
    const file = path.join(dir, "pipe");
    say(new ReadyPipe(openSync(file, "w")));
    return await readReady(Readable.from([readFileSync(file)]), "/log");
  } finally {
    rmSync(dir, { recursive: true });
  }
}

test("ready, once", async () => {
  const pid = await roundTrip((pipe) => {
    pipe.ready();
    pipe.fail(new Error("too late"));
  });
  expect(pid).toBe(process.pid);
});

test("what is waited for is said after WAITING_EVERY_MS, the latest, once, and no more often", async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-ready-"));
  vi.useFakeTimers();
  try {
    const file = path.join(dir, "pipe");
    const pipe = new ReadyPipe(openSync(file, "w"));
    const said = (): string => readFileSync(file, "utf8");
    for (const why of ["a", "b"]) pipe.waiting(why);
    vi.advanceTimersByTime(WAITING_EVERY_MS - 1);
    expect(said()).toBe("");
    vi.advanceTimersByTime(1);
    expect(said()).toBe('{"waiting":"b"}\n');
    for (const why of ["c", "b"]) pipe.waiting(why);
    vi.advanceTimersByTime(WAITING_EVERY_MS);
    expect(said()).toBe('{"waiting":"b"}\n');
    pipe.waiting("d");
    vi.advanceTimersByTime(WAITING_EVERY_MS);
    pipe.waiting("e");
    pipe.ready();
    vi.advanceTimersByTime(WAITING_EVERY_MS);
    const words: string[] = [];
    await readReady(Readable.from([readFileSync(file)]), "/log", (why) => words.push(why));
    expect(words).toEqual(["b", "d"]);
  } finally {
    vi.useRealTimers();
    rmSync(dir, { recursive: true });
  }
});

test("an operating error comes through with its code, hint and the exit status of a refused mount", async () => {
  const error = new OperatingError("no quorum here", { code: "no-quorum", hint: "start more", exitStatus: 1 });
  await expect(roundTrip((pipe) => pipe.fail(error))).rejects.toMatchObject({
    message: "no quorum here",
    code: "no-quorum",
    hint: "start more",
    exitStatus: 32,
  });
  await expect(roundTrip((pipe) => pipe.fail(new TypeError("oops")))).rejects.toMatchObject({ code: "internal", hint: "Its log is /log" });
});

test("an end without a word, half a word, and nonsense", async () => {
  for (const text of ["", '{"ready":tr', "nonsense\n", '{"ready":true}\n', "null\n", '"x"\n']) {
    await expect(readReady(Readable.from([text]), "/log")).rejects.toMatchObject({ code: "overlay-died", hint: "Its log is /log" });
  }
  expect(await readReady(Readable.from(['{"ready":true,', '"pid":7}\nmore']), "/log")).toBe(7);
});

test("what it waits for is told on the way", async () => {
  const waits: string[] = [];
  const lines = ['{"waiting":"one"}\n{"waiti', 'ng":"two"}\n', '{"ready":true,"pid":7}\n'];
  expect(await readReady(Readable.from(lines), "/log", (why) => waits.push(why))).toBe(7);
  expect(waits).toEqual(["one", "two"]);
  expect(await roundTrip((pipe) => [pipe.waiting("x"), pipe.ready(), pipe.waiting("too late")])).toBe(process.pid);
});

test("nobody listens: nothing happens", () => {
  new ReadyPipe(null).ready();
  const fd = openSync("/dev/null", "w");
  const pipe = new ReadyPipe(fd);
  pipe.ready();
  expect(() => closeSync(fd)).toThrow("EBADF");
});
