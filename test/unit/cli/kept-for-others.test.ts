/** An owner's mount that is to be unmounted while it keeps something for others (hazard F35): how long they are waited for, and what is said. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { startTimeOf } from "../../../dlmd/base/process.ts";
import { KEPT_LOOK_MS, KEPT_WAIT_MS, keptBehind, waitWhileKept } from "../../../overlay/cli/kept-for-others.ts";

describe("an umount of an owner that keeps something", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] }));
  afterEach(() => void vi.useRealTimers());
  const begin = (keeps: number, waits = true): { rig: { keeps: number }; said: string[]; over: () => boolean } => {
    const rig = { keeps };
    const said: string[] = [];
    let over = false;
    void waitWhileKept("/mnt", () => rig.keeps, { waits, tell: (line) => void said.push(line) }).then(() => (over = true));
    return { rig, said, over: () => over };
  };
  const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

  it("waits until nothing is kept, says for what, and ends nobody", async () => {
    const { rig, said, over } = begin(2);
    await pass(KEPT_WAIT_MS - KEPT_LOOK_MS);
    expect([over(), said]).toEqual([false, [expect.stringContaining("keeps what is open and locked on 2 mount(s) of other nodes")]]);
    rig.keeps = 0;
    await pass(KEPT_LOOK_MS);
    expect([over(), said.length]).toEqual([true, 1]);
  });

  it("goes on after its limit, and says who ends", async () => {
    const { said, over } = begin(1);
    await pass(KEPT_WAIT_MS - 1);
    expect(over()).toBe(false);
    await pass(1);
    expect([over(), said[1]]).toEqual([true, expect.stringContaining("so these end: 1 mount(s)")]);
  });

  it("does not wait where that is not wanted, or nothing is kept, but says who ends", async () => {
    const forced = begin(1, false);
    const none = begin(0);
    await pass(0);
    expect([forced.over(), forced.said]).toEqual([true, [expect.stringContaining("so these end: 1 mount(s)")]]);
    expect([none.over(), none.said]).toEqual([true, []]);
  });
});

describe("what a mount says that it keeps", () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-kept-"));
  });
  afterEach(() => rmSync(dir, { recursive: true }));
  const write = (record: object): void => {
    const whole = { pid: process.pid, startTime: startTimeOf(process.pid), source: "/dev/x", mountPoint: "/mnt", runDir: "/run/x" };
    writeFileSync(path.join(dir, "0:41.json"), JSON.stringify({ ...whole, ...record }));
  };

  it("counts while its process runs", () => {
    expect(keptBehind({ device: "0:41" }, dir)).toBe(0);
    write({});
    expect(keptBehind({ device: "0:41" }, dir)).toBe(0);
    write({ keeps: 2 });
    expect(keptBehind({ device: "0:41" }, dir)).toBe(2);
    write({ keeps: 2, startTime: "1" });
    expect(keptBehind({ device: "0:41" }, dir)).toBe(0);
  });
});
