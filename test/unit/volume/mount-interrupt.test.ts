/** A mount that waits is ended by its time-out and by signals, also while an overlay is being started. */
import { setImmediate as nextTurn } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { startedBySystemd } from "../../../overlay/volume/mount-background.ts";
import { type MountTry, mountInterruptibly } from "../../../overlay/volume/mount-interrupt.ts";

/** As startOverlay: it ends when it is told to, and rejects with words of its own. */
const hangs = (signal: AbortSignal): Promise<void> =>
  new Promise((_, reject) => {
    signal.addEventListener("abort", () => reject(new Error("the overlay was interrupted")));
  });

async function failureOf(work: Promise<void>): Promise<unknown> {
  return work.then(
    () => "mounted",
    (error: unknown) => error,
  );
}

describe("a mount that waits", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  test("is ended when its time is over, and a try has ten seconds in any case", async () => {
    for (const [limitMs, endsMs] of [
      [60_000, 60_000],
      [2_000, 10_000],
    ] as const) {
      let ended = false;
      const failure = failureOf(mountInterruptibly(hangs, limitMs)).finally(() => (ended = true));
      await vi.advanceTimersByTimeAsync(endsMs - 1);
      expect(ended).toBe(false);
      await vi.advanceTimersByTimeAsync(1);
      expect(await failure).toMatchObject({ code: "mount-timeout", exitStatus: 32 });
    }
  });

  test("one try has a limit, too: the first one of bg, which holds up a boot", async () => {
    let tries = 0;
    const failure = failureOf(mountInterruptibly((signal) => (++tries, hangs(signal)), 10_000, "one"));
    await vi.advanceTimersByTimeAsync(10_000);
    expect([await failure, tries]).toMatchObject([{ code: "mount-timeout" }, 1]);
    const why = new OperatingError("the cluster has no quorum", { code: "no-quorum", hint: "Start more nodes." });
    expect(await failureOf(mountInterruptibly(() => (++tries, Promise.reject(why)), 10_000, "one"))).toBe(why);
    expect([tries, vi.getTimerCount()]).toEqual([2, 0]);
  });

  test("without a limit no timer ends it", async () => {
    let ended = false;
    const failure = failureOf(mountInterruptibly(hangs, Number.POSITIVE_INFINITY)).finally(() => (ended = true));
    await vi.advanceTimersByTimeAsync(40 * 24 * 3_600_000);
    expect(ended).toBe(false);
    process.emit("SIGTERM", "SIGTERM");
    expect(await failure).toMatchObject({ code: "interrupted", exitStatus: 8 });
  });

  test("SIGTERM to its group ends the tool that it waits for first: what it says is for what it has waited", async () => {
    vi.useRealTimers();
    const why = new OperatingError("the cluster has no quorum", { code: "no-quorum", hint: "Start more nodes." });
    const killed = new OperatingError("debugfs did not finish: ended by SIGTERM", { code: "tool-failed", hint: "" });
    let tries = 0;
    const mount = (): Promise<void> => {
      if (++tries === 1) return Promise.reject(why);
      // As after a tool that was waited for without a turn.
      process.kill(process.pid, "SIGTERM");
      return Promise.reject(killed);
    };
    vi.spyOn(process.stderr, "write").mockReturnValue(true);
    expect(await failureOf(mountInterruptibly(mount, 60_000))).toMatchObject({
      code: "interrupted",
      message: "the cluster has no quorum; SIGTERM: interrupted before the mount was there",
    });
    vi.restoreAllMocks();
  });

  test.each(["SIGINT", "SIGTERM"] as const)("%s ends it with mount(8)'s status, and no listener stays", async (signal) => {
    const before = process.listenerCount(signal);
    for (const tries of ["one", "many"] as const) {
      const failure = failureOf(mountInterruptibly(hangs, 60_000, tries));
      process.emit(signal, signal);
      expect(await failure).toMatchObject({ code: "interrupted", exitStatus: 8 });
    }
    expect(process.listenerCount(signal)).toBe(before);
  });

  test("what it waited for is told when it is interrupted", async () => {
    const why = new OperatingError("the cluster has no quorum", { code: "no-quorum", hint: "Start more nodes." });
    vi.spyOn(process.stderr, "write").mockReturnValue(true);
    const failure = failureOf(mountInterruptibly(() => Promise.reject(why), 60_000));
    // The signal comes while it waits for its next try.
    for (let turns = 0; turns < 3; turns += 1) await nextTurn();
    process.emit("SIGTERM", "SIGTERM");
    expect(await failure).toMatchObject({
      code: "interrupted",
      message: "the cluster has no quorum; SIGTERM: interrupted before the mount was there",
    });
    vi.restoreAllMocks();
  });

  test("what its overlay has said last is told when the time is over, and when it is interrupted", async () => {
    const says = "no node that mounts the volume reaches its device";
    const mount: MountTry = (signal, waiting) => {
      waiting("the owner is being found");
      waiting(says);
      return hangs(signal);
    };
    const late = failureOf(mountInterruptibly(mount, 12_000));
    await vi.advanceTimersByTimeAsync(12_000);
    expect(await late).toMatchObject({ code: "mount-timeout", message: `not mounted within 12 s: ${says}`, exitStatus: 32 });
    const ended = failureOf(mountInterruptibly(mount, Infinity));
    process.emit("SIGTERM", "SIGTERM");
    expect(await ended).toMatchObject({ code: "interrupted", message: `${says}; SIGTERM: interrupted before the mount was there` });
  });

  test("one that succeeds leaves no timer", async () => {
    await mountInterruptibly(() => Promise.resolve(), 60_000);
    expect(vi.getTimerCount()).toBe(0);
  });
});

test("a mount of systemd is known by the process that systemd has started", () => {
  expect(startedBySystemd({ SYSTEMD_EXEC_PID: "42" }, 42)).toBe(true);
  // A shell of a session that systemd has started, too.
  expect(startedBySystemd({ SYSTEMD_EXEC_PID: "41" }, 42)).toBe(false);
  expect(startedBySystemd({}, 42)).toBe(false);
});
