import { spawn } from "node:child_process";
import { once } from "node:events";
import { describe, expect, it } from "vitest";
import {
  MARK_VARIABLE,
  decodeProcessStat,
  findProcesses,
  isAlive,
  processRef,
  signalProcess,
  waitGone,
} from "../../../overlay/lab/processes.ts";

describe("proc(5) stat", () => {
  it("is read past a name with parentheses and spaces", () => {
    const text = `77 (a) b (c) S 12 ${Array.from({ length: 17 }, () => "0").join(" ")} 4711 0 0`;
    expect(decodeProcessStat(text)).toEqual({ state: "S", parent: 12, startTicks: "4711" });
  });
});

describe("a process", () => {
  it("is known by its start time: a later one with its id is another", () => {
    const self = processRef(process.pid);
    expect(self).not.toBeNull();
    expect(isAlive(self ?? { pid: 1, startTicks: "" })).toBe(true);
    const former = { pid: process.pid, startTicks: "1" };
    expect(isAlive(former)).toBe(false);
    expect(signalProcess(former, "SIGKILL")).toBe(false);
  });

  it("is found by its mark, and only by its own", async () => {
    const mark = `test-${process.pid}:node1`;
    const child = spawn("sleep", ["60"], { env: { ...process.env, [MARK_VARIABLE]: mark } });
    try {
      await once(child, "spawn");
      const find = (text: string): number[] => findProcesses({ netns: new Set(), marks: [text] }).map(({ pid }) => pid);
      expect(find(`${mark}\0`)).toEqual([child.pid]);
      expect(find(`test-${process.pid}:`)).toEqual([child.pid]);
      expect(find(`test-${process.pid}:node\0`)).toEqual([]);
      expect(find(`test-${process.pid}:node11`)).toEqual([]);
    } finally {
      child.kill("SIGKILL");
      await once(child, "exit");
    }
  });

  it("is waited for until it is gone, and named if it stays", async () => {
    const child = spawn("sleep", ["60"]);
    await once(child, "spawn");
    const ref = processRef(child.pid ?? 0);
    if (ref === null) throw new Error("the child is not there");
    expect(await waitGone([ref], 30)).toEqual([ref]);
    expect(signalProcess(ref, "SIGKILL")).toBe(true);
    expect(await waitGone([ref], 10_000)).toEqual([]);
  });

  it("never finds itself or its ancestors, so that a command inside a lab can take the lab down", () => {
    const all = findProcesses({ netns: new Set(), marks: [""] }).map(({ pid }) => pid);
    expect(all).not.toContain(process.pid);
    expect(all).not.toContain(process.ppid);
  });
});
