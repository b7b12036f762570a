/** Hazard F11. */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { EARLY_INTERRUPTS_MAX, type Interruptible, Interrupts, WATCH_INTERVAL_MS } from "../../../overlay/session/interrupt.ts";
import { readStatus, sigkillPending } from "../../../overlay/caller/status.ts";

const QUIET = "Name:\tx\nSigPnd:\t0000000000002000\nShdPnd:\t0000000000004000\n";
const KILLED = "Name:\tx\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n";

class FakeSystem {
  readonly statuses = new Map<number, string | null>();
  ticks: (() => void)[] = [];
  reads = 0;
  readonly intervals: number[] = [];
  readonly readStatus = (pid: number): string | null => {
    this.reads += 1;
    return this.statuses.get(pid) ?? null;
  };
  readonly every = (intervalMs: number, tick: () => void): (() => void) => {
    this.intervals.push(intervalMs);
    this.ticks.push(tick);
    return () => {
      this.ticks = this.ticks.filter((one) => one !== tick);
    };
  };
  tick(): void {
    for (const tick of this.ticks) tick();
  }
}

function call(unique: number, pid: number): Interruptible & { ended: number } {
  return {
    unique,
    pid,
    ended: 0,
    interrupt() {
      this.ended += 1;
    },
  };
}

describe("sigkillPending", () => {
  it("looks at the thread's own mask and at the shared one, and for SIGKILL only", () => {
    expect(sigkillPending(KILLED)).toBe(true);
    expect(sigkillPending(QUIET)).toBe(false);
    expect(sigkillPending(QUIET.replace("4000", "4100"))).toBe(true);
    expect(sigkillPending("SigBlk:\t0000000000000100\n")).toBe(false);
  });
});

describe("readStatus", () => {
  let proc: string;
  beforeAll(() => {
    proc = mkdtempSync(path.join(tmpdir(), "coverlay-status-"));
    // What can be opened and not read.
    mkdirSync(path.join(proc, "7/status"), { recursive: true });
  });
  afterAll(() => rmSync(proc, { recursive: true }));

  it("says what keeps a thread from being seen as an errno, which is an answer; one that has ended is null", () => {
    expect(() => readStatus(7, proc)).toThrow(errnoError(E.EISDIR));
    expect(readStatus(8, proc)).toBeNull();
    expect(readStatus(process.pid)).toContain("SigPnd");
  });
});

describe("interrupts", () => {
  it("SIGALRM waits on, the SIGKILL after it ends the wait", () => {
    const system = new FakeSystem();
    system.statuses.set(7, QUIET);
    const interrupts = new Interrupts(system);
    const one = call(10, 7);
    interrupts.add(one);
    expect(system.reads).toBe(0);
    interrupts.receive(10);
    system.tick();
    system.tick();
    expect(one.ended).toBe(0);
    system.statuses.set(7, KILLED);
    system.tick();
    expect(one.ended).toBe(1);
    expect(system.ticks).toEqual([]);
    expect(system.intervals).toEqual([WATCH_INTERVAL_MS]);
    system.tick();
    expect(one.ended).toBe(1);
  });

  it("a SIGKILL that is there with the INTERRUPT needs no tick", () => {
    const system = new FakeSystem();
    system.statuses.set(7, KILLED);
    const interrupts = new Interrupts(system);
    const one = call(10, 7);
    interrupts.add(one);
    interrupts.receive(10);
    expect(one.ended).toBe(1);
    expect(system.ticks).toEqual([]);
  });

  it("a wait that any signal ends is told of the first, whoever sent it; what it answers ends the watch", () => {
    const system = new FakeSystem();
    system.statuses.set(7, QUIET);
    const interrupts = new Interrupts(system);
    let signals = 0;
    const waits = { ...call(16, 7), onSignal: () => void (signals += 1) };
    interrupts.add(waits);
    interrupts.receive(16);
    expect([signals, interrupts.watching]).toEqual([1, 1]);
    interrupts.receive(18);
    const early = { ...call(18, 0), onSignal: () => interrupts.remove(early) };
    interrupts.add(early);
    expect(interrupts.watching).toBe(1);
  });

  it("a caller that cannot be seen, where no descriptor is left, is watched until it can", () => {
    const system = new FakeSystem();
    let isSeen = false;
    const readStatus = (pid: number): string | null => {
      if (!isSeen) throw errnoError(E.EMFILE);
      return system.readStatus(pid);
    };
    const interrupts = new Interrupts({ readStatus, every: system.every });
    const [early, one] = [call(12, 7), call(10, 7)];
    interrupts.receive(12);
    for (const waiting of [early, one]) interrupts.add(waiting);
    interrupts.receive(10);
    system.tick();
    expect([interrupts.watching, early.ended, one.ended]).toEqual([2, 0, 0]);
    system.statuses.set(7, KILLED);
    isSeen = true;
    system.tick();
    expect([interrupts.watching, early.ended, one.ended]).toEqual([0, 1, 1]);
  });

  it("INTERRUPT may come before its request", () => {
    const system = new FakeSystem();
    system.statuses.set(7, QUIET);
    const interrupts = new Interrupts(system);
    interrupts.receive(12);
    const one = call(12, 7);
    interrupts.add(one);
    expect(interrupts.watching).toBe(1);
    system.statuses.set(7, null);
    system.tick();
    expect(one.ended).toBe(1);
  });

  it("and after its answer, which harms nobody, however often", () => {
    const system = new FakeSystem();
    const interrupts = new Interrupts(system);
    const one = call(14, 7);
    interrupts.add(one);
    interrupts.remove(one);
    for (let unique = 14; unique < 14 + EARLY_INTERRUPTS_MAX * 2 + 2; unique += 2) interrupts.receive(unique);
    expect(system.reads).toBe(0);
    expect(one.ended).toBe(0);
    // The oldest was forgotten, the newest not.
    const old = call(14, 7);
    interrupts.add(old);
    expect(old.ended).toBe(0);
    const late = call(14 + EARLY_INTERRUPTS_MAX * 2, 7);
    interrupts.add(late);
    expect(late.ended).toBe(1);
  });

  it("an answer ends the watch; a caller without a pid is never given up", () => {
    const system = new FakeSystem();
    system.statuses.set(7, QUIET);
    const interrupts = new Interrupts(system);
    const one = call(20, 7);
    const kernel = call(22, 0);
    interrupts.add(one);
    interrupts.add(kernel);
    interrupts.receive(20);
    interrupts.receive(22);
    expect(interrupts.watching).toBe(1);
    interrupts.remove(one);
    expect(system.ticks).toEqual([]);
    expect(one.ended + kernel.ended).toBe(0);
  });

  it("the end of the mount gives all up", () => {
    const interrupts = new Interrupts(new FakeSystem());
    const calls = [call(1, 0), call(2, 5)];
    for (const one of calls) interrupts.add(one);
    interrupts.stop();
    expect(calls.map((one) => one.ended)).toEqual([1, 1]);
  });
});
