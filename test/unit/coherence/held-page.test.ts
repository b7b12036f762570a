/** A page that the WRITE which is to be answered may itself have locked: held-page.ts. */
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it, vi } from "vitest";
import type { CallerThreads } from "../../../overlay/caller/threads.ts";
import { droppedOrHeld } from "../../../overlay/coherence/pages/held-page.ts";

const NOTIFIER = 7;
const READER = 43;

/** A notification whose thread waits for the page as soon as `waits` says so, beside a reader that is runnable for so many looks. */
function scene({
  waits = (): boolean => true,
  runnable = 0,
  writtenBack = (): boolean => false,
  mayLast = (): boolean => false,
  other = null as Promise<boolean> | boolean | null,
} = {}) {
  let drop = (): void => {};
  const dropped = new Promise<void>((resolve) => (drop = resolve));
  const seen = { waits: 0, runnable: 0 };
  const threads: CallerThreads = {
    isAsleep: () => false,
    hasEnded: () => false,
    isReading: () => false,
    isSeeking: () => false,
    isRunnable: (tid) => {
      expect(tid).toBe(READER);
      seen.runnable += 1;
      return seen.runnable <= runnable;
    },
    waitsForPage: (tid) => {
      expect(tid).toBe(NOTIFIER);
      seen.waits += 1;
      return waits();
    },
  };
  return {
    seen,
    drop,
    judge: () =>
      droppedOrHeld(
        { thread: () => NOTIFIER, dropped },
        Promise.resolve(other),
        [READER],
        { isWrittenBack: writtenBack, mayLast },
        threads,
      ),
  };
}

describe("a page that the WRITE may hold", () => {
  it("is gone when it is dropped", async () => {
    const { judge, drop, seen } = scene();
    drop();
    expect(await judge()).toBe(true);
    expect(seen.waits).toBe(0);
  });

  it("is the WRITE's own if the notification waits for it, and whoever has read it before is done", async () => {
    const { judge, seen } = scene();
    expect(await judge()).toBe(false);
    expect(seen).toEqual({ waits: 1, runnable: 1 });
  });

  it("may be anything as long as the notifying thread does not wait for it: that one has no processor", async () => {
    let looks = 0;
    const { judge, drop } = scene({
      waits: () => {
        looks += 1;
        if (looks === 10) drop();
        return false;
      },
    });
    expect(await judge()).toBe(true);
    expect(looks).toBe(10);
  });

  it("may be a reader's who was given it before and had no processor since; but not for ever", async () => {
    const soon = scene({ runnable: 3 });
    expect(await soon.judge()).toBe(false);
    expect(soon.seen.runnable).toBe(4);
    const never = scene({ runnable: Number.POSITIVE_INFINITY });
    expect(await never.judge()).toBe(false);
    expect(never.seen.runnable).toBe(20);
  });

  it("may be written back, and the notification waits for that, as long as anything of the file is", async () => {
    let looks = 0;
    const { judge, seen } = scene({
      writtenBack: () => {
        looks += 1;
        return looks < 5;
      },
    });
    expect(await judge()).toBe(false);
    expect(seen).toEqual({ waits: 5, runnable: 1 });
  });

  it("is not the WRITE's own if it has something else: whoever has it, even unseen, it is waited for until it is dropped", async () => {
    // The write-back of a revoke has locked it, and its request was not read yet.
    const { judge, drop, seen } = scene({ other: true });
    let judged: boolean | null = null;
    const judging = judge().then((gone) => (judged = gone));
    await sleep(10);
    expect(judged).toBeNull();
    drop();
    expect(await judging).toBe(true);
    expect(seen).toEqual({ waits: 0, runnable: 0 });
  });

  it("with something else in it is waited for as long as it takes, but not for a READ that has it locked after a quarter of a second", async () => {
    vi.useFakeTimers();
    try {
      let read = false;
      const { judge } = scene({ other: true, mayLast: () => read });
      let judged: boolean | null = null;
      void judge().then((gone) => (judged = gone));
      await vi.advanceTimersByTimeAsync(900);
      expect(judged).toBeNull();
      read = true;
      await vi.advanceTimersByTimeAsync(100);
      expect(judged).toBe(false);
    } finally {
      vi.useRealTimers();
    }
  });

  it("that has what was written is not waited for", async () => {
    const { judge, seen } = scene({ other: false });
    expect(await judge()).toBe(false);
    expect(seen).toEqual({ waits: 0, runnable: 0 });
  });

  it("is dropped though the kernel says nothing more of it", async () => {
    const { judge, drop } = scene({ other: new Promise(() => undefined) });
    drop();
    expect(await judge()).toBe(true);
  });

  it("that nothing is seen of is waited for a quarter of a second", async () => {
    const { judge, seen } = scene({ waits: () => false });
    expect(await judge()).toBe(false);
    expect(seen.waits).toBe(250);
  });
});
