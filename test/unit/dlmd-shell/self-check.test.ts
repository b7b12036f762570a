/** Checks of this machine that other nodes ask for: one at a time for all, and a real process that leaves nothing behind. */
import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { getPriority, tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type CheckOptions, SELF_CHECK_LIMIT_MS, checkProcess } from "../../../dlmd/driver/check-process.ts";
import { GOING_EVERY_MS, MAX_ASKERS, type RunCheck, SelfCheck } from "../../../dlmd/driver/self-check.ts";
import { KILL_AFTER_MS, MAX_OUTPUT_BYTES } from "../../../dlmd/fence-agent/run-agent.ts";
import { type CheckAnswer, type CheckNews, MAX_CHECKED_BYTES } from "../../../dlmd/wire/self-check.ts";
import type { Log } from "../../../dlmd/base/log.ts";

afterEach(() => void vi.useRealTimers());

describe("those that ask", () => {
  interface Play {
    readonly check: SelfCheck;
    readonly runs: { readonly limitMs: number; readonly signal: AbortSignal; readonly end: (answer: CheckAnswer) => void }[];
  }
  function play(): Play {
    const runs: Play["runs"] = [];
    const run: RunCheck = (limitMs, signal) => new Promise((end) => runs.push({ limitMs, signal, end }));
    return { check: new SelfCheck(run), runs };
  }
  const answer: CheckAnswer = { kind: "printed", text: "{}" };
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

  test("while one runs get its answer, and the next one begins another", async () => {
    const { check, runs } = play();
    const heard: CheckNews[][] = [[], [], []];
    check.ask(4000, (news) => heard[0]?.push(news));
    check.ask(7000, (news) => heard[1]?.push(news));
    expect(runs.map(({ limitMs }) => limitMs)).toEqual([4000]);
    runs[0]?.end(answer);
    await turn();
    expect(heard.slice(0, 2)).toEqual([
      [{ kind: "going" }, answer],
      [{ kind: "going" }, answer],
    ]);
    check.ask(7000, (news) => heard[2]?.push(news));
    expect(runs.map(({ limitMs }) => limitMs)).toEqual([4000, 7000]);
    expect(heard[2]).toEqual([{ kind: "going" }]);
  });

  test("are so many at most; one more is told that it is busy, and one that has gone makes room", () => {
    const { check, runs } = play();
    const leave = Array.from({ length: MAX_ASKERS }, () => check.ask(4000, () => undefined));
    const heard: CheckNews[] = [];
    check.ask(4000, (news) => heard.push(news));
    expect(heard).toEqual([{ kind: "failed", words: expect.stringContaining("busy: 16 programs") as unknown }]);
    leave[0]?.();
    leave[0]?.();
    check.ask(4000, (news) => heard.push(news));
    expect(heard.slice(1)).toEqual([{ kind: "going" }]);
    expect(runs).toHaveLength(1);
  });

  test("hear each second that it goes on, until it is over", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    const { check, runs } = play();
    const heard: CheckNews[] = [];
    check.ask(4000, (news) => heard.push(news));
    vi.advanceTimersByTime(3 * GOING_EVERY_MS);
    expect(heard).toHaveLength(4);
    runs[0]?.end(answer);
    await turn();
    vi.advanceTimersByTime(3 * GOING_EVERY_MS);
    expect(heard).toHaveLength(5);
  });

  test("and have all gone end it; before it has ended no other one begins", async () => {
    const { check, runs } = play();
    const leave = [check.ask(4000, () => undefined), check.ask(4000, () => undefined)];
    leave[0]?.();
    expect(runs[0]?.signal.aborted).toBe(false);
    leave[1]?.();
    expect(runs[0]?.signal.aborted).toBe(true);
    const heard: CheckNews[] = [];
    check.ask(4000, (news) => heard.push(news));
    expect(heard).toEqual([{ kind: "failed", words: expect.stringContaining("busy") as unknown }]);
    expect(runs).toHaveLength(1);
    runs[0]?.end(answer);
    await turn();
    expect(heard).toHaveLength(1);
    check.ask(4000, (news) => heard.push(news));
    expect(runs).toHaveLength(2);
  });
});

describe("the process of a check", () => {
  let folder: string;
  let said: string[];
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), "coverlay-check-"));
    said = [];
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const write = (fields: object, message: string): void => void said.push(`${message} ${JSON.stringify(fields)}`);
  const log: Log = { debug() {}, info: write, warn: write, error: write };
  const never = new AbortController().signal;
  /** A program of Node.js in the place of coverlay. */
  function checkBy(script: string, more: Partial<CheckOptions> = {}): RunCheck {
    const program = path.join(folder, "coverlay.cjs");
    writeFileSync(program, script);
    chmodSync(program, 0o600);
    return checkProcess({ config: "/etc/a $(b)/cluster.yaml", node: "node1", runDir: "/run/c", log, program, ...more });
  }
  const pidsOf = (names: readonly string[]): number[] =>
    names
      .flatMap((name) => (existsSync(path.join(folder, name)) ? Number(readFileSync(path.join(folder, name), "utf8")) : []))
      .filter((pid) => pid > 0);
  async function until(isSo: () => boolean): Promise<void> {
    while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const isGone = (pid: number): boolean =>
    !existsSync(`/proc/${pid}`) || /^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "latin1"));

  test("is given what dlmd was started with as words, no shell reads them, and it is nicer than dlmd", async () => {
    const found = await checkBy(
      `console.log(JSON.stringify({ words: process.argv.slice(2), nice: require("node:os").getPriority() })); process.exitCode = 2;`,
      { priority: () => -15 },
    )(2500, never);
    expect(found.kind).toBe("printed");
    const { words, nice } = JSON.parse(found.kind === "printed" ? found.text : "") as { words: string[]; nice: number };
    const named = ["--config", "/etc/a $(b)/cluster.yaml", "--node", "node1", "--run-dir", "/run/c"];
    expect(words).toEqual(["doctor", "--asked", ...named, "--limit", "2.5"]);
    expect(nice).toBe(Math.min(19, getPriority() + 20));
    expect(said).toEqual([]);
  });

  test("that is not there, ends without a word or is killed says why, and so does the log", async () => {
    expect(await checkBy("", { program: path.join(folder, "none.js") })(4000, never)).toMatchObject({
      kind: "failed",
      words: expect.stringContaining("none.js is not there") as unknown,
    });
    expect(await checkBy(`console.error("why"); process.exitCode = 1;`)(4000, never)).toEqual({
      kind: "failed",
      words: "its checks ended with status 1: why",
    });
    expect(await checkBy(`process.kill(process.pid, "SIGKILL")`)(4000, never)).toEqual({
      kind: "failed",
      words: "its checks were ended by SIGKILL",
    });
    expect(said).toHaveLength(3);
  });

  test("that says too much is not passed on: neither more than is kept, nor more than may be sent", async () => {
    const words = `its checks say more than ${MAX_CHECKED_BYTES} bytes`;
    const much = `process.stdout.write("x".repeat(${MAX_OUTPUT_BYTES + 1}))`;
    expect(await checkBy(much)(4000, never)).toEqual({ kind: "failed", words });
    const wide = `process.stdout.write("\\u20ac".repeat(${Math.floor(MAX_CHECKED_BYTES / 3) + 1}))`;
    expect(await checkBy(wide)(4000, never)).toEqual({ kind: "failed", words });
  });

  const NAMES = ["own", "child"];
  const hangs = `const { spawn } = require("node:child_process"); const fs = require("node:fs");
    process.on("SIGTERM", () => undefined);
    const child = spawn("sleep", ["infinity"]);
    fs.writeFileSync("FOLDER/child", String(child.pid)); fs.writeFileSync("FOLDER/own", String(process.pid));
    setInterval(() => undefined, 1000);`;

  test("that does not end is ended at its limit, with what it has started", async () => {
    expect(SELF_CHECK_LIMIT_MS).toBe(60_000);
    const script = hangs.replaceAll("FOLDER", folder);
    // How long Node.js takes to start is the machine's: one that was ended before that shows nothing.
    for (let limitMs = 2000; pidsOf(NAMES).length < 2; limitMs *= 2) {
      const found = await checkBy(script, { limitMs })(4000, never);
      expect(found).toEqual({ kind: "failed", words: `its checks did not end within ${limitMs / 1000} s, and were ended` });
    }
    await until(() => pidsOf(NAMES).every(isGone));
    expect(KILL_AFTER_MS).toBeLessThan(SELF_CHECK_LIMIT_MS);
  });

  test("that nobody waits for is ended with what it has started, and the log has no line", async () => {
    const abort = new AbortController();
    const found = checkBy(hangs.replaceAll("FOLDER", folder))(4000, abort.signal);
    await until(() => pidsOf(NAMES).length === 2);
    abort.abort();
    expect((await found).kind).toBe("failed");
    await until(() => pidsOf(NAMES).every(isGone));
    expect(said).toEqual([]);
  });

  test("needs nice(1), which is essential on every Debian", () => {
    expect(execFileSync("/usr/bin/nice", { encoding: "utf8" }).trim()).toMatch(/^-?\d+$/);
  });
});
