/** What a command says while it works, on a terminal and elsewhere. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { hearSignals, interruptedError, unlessAborted } from "../../../overlay/cli/interrupt.ts";
import { longWork, openProgress, type ProgressStream } from "../../../overlay/cli/long-work.ts";
import { refusal } from "../../refusal.ts";

class Stream implements ProgressStream {
  readonly columns = 40;
  readonly written: string[] = [];
  readonly isTTY: boolean;
  constructor(isTTY: boolean) {
    this.isTTY = isTTY;
  }
  write(text: string): void {
    this.written.push(text);
  }
}
const interrupted = (): ReturnType<typeof interruptedError> => interruptedError("half of it is done", "look");
const CLEAR = "\u001b[K";

beforeEach(() => void vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "performance"] }));
afterEach(() => void vi.useRealTimers());

it("elsewhere than on a terminal each change is a line, and the same words are one change", () => {
  const stream = new Stream(false);
  const { say, note, end } = openProgress(false, stream);
  say("mounts");
  say("mounts");
  note("a warning");
  say("");
  say("leaves\u001b[2J");
  vi.advanceTimersByTime(60_000);
  end();
  expect(stream.written).toEqual(["coverlay: mounts\n", "coverlay: a warning\n", "coverlay: leaves\\x1b[2J\n"]);
});

it("on a terminal one line is written over, says each TICK_MS how long it takes, and is gone at the end", () => {
  const stream = new Stream(true);
  const { say, note, end } = openProgress(false, stream);
  const since = (): string[] => stream.written.splice(0);
  say("mounts");
  expect(since()).toEqual([`\rcoverlay: mounts${CLEAR}`]);
  vi.advanceTimersByTime(999);
  expect(since()).toEqual([]);
  vi.advanceTimersByTime(1);
  vi.advanceTimersByTime(1000);
  expect(since()).toEqual([`\rcoverlay: mounts (1 s)${CLEAR}`, `\rcoverlay: mounts (2 s)${CLEAR}`]);
  note("a warning");
  expect(since()).toEqual([`\r${CLEAR}coverlay: a warning\n`, `\rcoverlay: mounts (2 s)${CLEAR}`]);
  say("waits for what has more words than the line has room");
  expect(since()).toEqual([`\rcoverlay: waits for what has more words${CLEAR}`]);
  end();
  expect(since()).toEqual([`\r${CLEAR}`]);
  vi.advanceTimersByTime(5000);
  expect(since()).toEqual([]);
});

it("with --json nothing is said", () => {
  const stream = new Stream(true);
  const { say, note, end } = openProgress(true, stream);
  say("mounts");
  note("a warning");
  end();
  expect(stream.written).toEqual([]);
});

it("the line is gone before the error of an interrupted command is shown, and no listener stays", async () => {
  const stream = new Stream(true);
  const before = process.listenerCount("SIGTERM");
  const work = longWork(
    false,
    interrupted,
    async ({ say, signal }) => {
      say("mounts");
      process.emit("SIGTERM", "SIGTERM");
      // The first one counts.
      process.emit("SIGINT", "SIGINT");
      await unlessAborted(new Promise(() => undefined), signal);
    },
    stream,
  );
  expect(await refusal(work)).toMatchObject({ code: "interrupted", message: "interrupted: half of it is done", exitStatus: 8 });
  expect(stream.written.at(-1)).toBe(`\r${CLEAR}`);
  expect(process.listenerCount("SIGTERM")).toBe(before);
});

it("what ends before a signal ends as it does by itself", async () => {
  const end = new AbortController();
  expect(await unlessAborted(Promise.resolve(7), end.signal)).toBe(7);
  await expect(unlessAborted(Promise.reject(new Error("its own")), end.signal)).rejects.toThrow("its own");
  end.abort(interrupted());
  await expect(unlessAborted(new Promise(() => undefined), end.signal)).rejects.toThrow("interrupted: half of it is done");
});

it("a signal that came while the process was busy is heard", async () => {
  let heard = 0;
  const hear = (): void => void (heard += 1);
  process.on("SIGUSR2", hear);
  try {
    process.kill(process.pid, "SIGUSR2");
    const endMs = Date.now() + 50;
    while (Date.now() < endMs);
    expect(heard).toBe(0);
    await hearSignals();
    expect(heard).toBe(1);
  } finally {
    process.off("SIGUSR2", hear);
  }
});
