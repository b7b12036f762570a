/** The limits of the keeper (overlay/LIMITS.md) that take seconds, each beyond its value. They run at the same time, each with a keeper of its own. */
import { readFileSync, writeFileSync } from "node:fs";
import { stat } from "node:fs/promises";
import path from "node:path";
import { describe, expect, it, vi } from "vitest";
import { encodeLeasePage } from "../../../dlmd/wire/lease-page.ts";
import { type Keeper, setResumable, startKeeper, wakes } from "./keeper-lab.ts";
import { connectionOf, holdReads, makeJournal, nodeidsBehind, session, UNSEEN } from "./keeper-mount.ts";
import { isRoot, native, opened, type Scratch, withScratch } from "./scratch.ts";
import { serveTinyFuse, type TinyFuse } from "./tiny-fuse.ts";

const CRASHED = "the process of the mount has ended without a farewell";
const STARTED = "a new process of the mount is started";
const FAILED = "the new process has ended before it served";
const LAPSED = "the lease of this node ended: what the kernel caches is dropped";
const NOT_DROPPED = "not all that the kernel caches is dropped";
const STAYS = "echo here >&2; read -r word <&3";
/** Log lines have whole milliseconds of another clock. */
const CLOCK_MS = 1;
/** Without its limit a pause would be of 3200 ms. */
const LONGER_PAUSE_MS = 3000;

/** When the keeper has logged it, in ms. */
function times(keeper: Keeper, words: string): number[] {
  return keeper.logged.filter(({ msg }) => msg === words).map(({ time }) => Date.parse(String(time)));
}

function pidOf(keeper: Keeper): number {
  return Number(keeper.logged.findLast(({ msg }) => msg === STARTED)?.["pid"]);
}

/** A page of the lease, and how to change when it ends. */
function makeLease(scratch: Scratch): { readonly fd: number; set(endMs: number): void } {
  const file = path.join(scratch.dir, "lease");
  const set = (endMs: number): void => {
    writeFileSync(file, encodeLeasePage({ incarnation: "0123456789abcdef", endMs, marginMs: 1000 }), { flag: "r+" });
  };
  writeFileSync(file, "");
  set(native.bootTimeMs() + 600_000);
  return { fd: opened(scratch, native.open(file, 0, 0)), set };
}

describe.concurrent("a keeper", () => {
  it("waits for no more than 2 s between two tries", () =>
    withScratch(async (scratch) => {
      const keeper = await startKeeper(scratch, { program: "exit 7", tries: 7 });
      keeper.line.destroy();
      expect(await keeper.ended).toEqual([1, null]);
      const ends = times(keeper, FAILED);
      const pauses = times(keeper, STARTED)
        .slice(1)
        .map((startMs, at) => startMs - (ends[at] ?? 0));
      const wanted = [200, 400, 800, 1600, 2000, 2000];
      expect(pauses.map((pauseMs, at) => pauseMs >= (wanted[at] ?? 0) - CLOCK_MS)).toEqual(wanted.map(() => true));
      expect(Math.min(...pauses.slice(-2))).toBeLessThan(LONGER_PAUSE_MS);
    }));

  it("takes a lease that ends in more than 2^31 ms for one that holds", () =>
    withScratch(async (scratch) => {
      const lease = makeLease(scratch);
      lease.set(1e300);
      const keeper = await startKeeper(scratch, { program: STAYS, lease: lease.fd });
      keeper.line.destroy();
      await keeper.heard("here");
      const before = wakes(keeper.pid);
      // It has looked at it so often.
      await vi.waitFor(() => expect(wakes(keeper.pid) - before).toBeGreaterThan(5), UNSEEN);
      expect(times(keeper, LAPSED)).toEqual([]);
      lease.set(0);
      await keeper.heard(LAPSED);
      keeper.child.kill("SIGTERM");
      expect(await keeper.ended).toEqual([0, null]);
    }));
});

describe.runIf(isRoot).concurrent("a keeper of a real mount", () => {
  /** A program waits for a page of the file behind "f", which nobody sends. All else is answered. */
  async function startStuck(
    scratch: Scratch,
    options: Parameters<typeof startKeeper>[1],
  ): Promise<{ readonly fuse: TinyFuse; readonly keeper: Keeper }> {
    const fuse = serveTinyFuse(scratch);
    await stat(fuse.mountPoint);
    const journal = makeJournal(scratch, { connection: connectionOf(fuse.mountPoint), nodeids: nodeidsBehind(1) });
    const keeper = await startKeeper(scratch, { ...options, fuse: fuse.fd, journal });
    await holdReads(scratch, fuse, 1);
    return { fuse, keeper };
  }

  it("goes on 2 s after it has killed a process that cannot end", () =>
    withScratch(async (scratch) => {
      // Its open(2) drops the pages of the file, and waits uninterruptibly for that page. Its line ends with sleep(1).
      const file = path.join(scratch.dir, "mnt/f1");
      const program = `sleep 1000 & echo "line $!" >&2; exec 3<&-; read -r word <"${file}"`;
      const { keeper } = await startStuck(scratch, { program, tries: 1 });
      keeper.line.destroy();
      const [, line] = (await keeper.heard("line ")).split(" ");
      await vi.waitFor(
        () => expect(readFileSync(`/proc/${pidOf(keeper)}/stack`, "utf8")).toContain("invalidate_inode_pages2_range"),
        UNSEEN,
      );
      const killedMs = Date.now();
      process.kill(Number(line), "SIGKILL");
      await keeper.heard(FAILED);
      // No status of its end: nobody has had one.
      expect(keeper.logged.find(({ msg }) => msg === FAILED)).toMatchObject({ status: 0 });
      expect((times(keeper, FAILED)[0] ?? 0) - killedMs).toBeGreaterThanOrEqual(2000 - CLOCK_MS);
      // The end of the connection ends the process, too.
      expect(await keeper.ended).toEqual([1, null]);
      await vi.waitFor(() => expect(session(pidOf(keeper))).toEqual([]), UNSEEN);
    }));

  it("lets go after 10 s, and 10 s more, where children do not end, and says so", () =>
    withScratch(async (scratch) => {
      const lease = makeLease(scratch);
      const { keeper } = await startStuck(scratch, { program: STAYS, lease: lease.fd });
      keeper.line.destroy();
      await keeper.heard("here");
      lease.set(0);
      await keeper.heard(LAPSED);
      const children = (): number[] =>
        session(keeper.pid)
          .filter(({ name }) => name === "coverlay-drop")
          .map(({ pid }) => pid);
      await vi.waitFor(() => expect(children()).toHaveLength(1), UNSEEN);
      for (const pid of children()) {
        // It stops as soon as the end of the connection has sent it back from the kernel.
        process.kill(pid, "SIGSTOP");
        scratch.later(() => process.kill(pid, "SIGKILL"));
      }
      setResumable(keeper.journal, 0);
      const killedMs = Date.now();
      process.kill(pidOf(keeper), "SIGKILL");
      expect(await keeper.ended).toEqual([1, null]);
      expect(keeper.logged.find(({ msg }) => msg === NOT_DROPPED)).toMatchObject({ level: "error", waiting: 1 });
      expect((times(keeper, NOT_DROPPED)[0] ?? 0) - killedMs).toBeGreaterThanOrEqual(20_000 - CLOCK_MS);
      expect(times(keeper, CRASHED)).toHaveLength(1);
    }));
});
