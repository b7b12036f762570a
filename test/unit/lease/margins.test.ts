/**
 * The margins between a node that is cut off and those that go on without it, on the functions that ship, with each clock at a rate of its own
 * (hazard C4; test/sim/owner-disk/README.md, "The margins"). `drift`: that share slower for the one, faster for the other, which is the worst case.
 */
import { describe, expect, it } from "vitest";
import { leaseMarginMs, leaseWaitShare, PublishedLease } from "../../../dlmd/membership/lease.ts";
import { cachedInodesMax } from "../../../overlay/coherence/lock/cache-limit.ts";
import { LAPSED_LOOK_MS, LeaseCore, LOOK_INTERVAL_MS } from "../../../overlay/lease/lease-core.ts";
import { SelfFence } from "../../../overlay/serve/self-fence.ts";
import { QuietDisk } from "../../../overlay/volume/quiet-disk.ts";
import { MMP_UPDATE_INTERVAL_S } from "../../../overlay/volume/mmp.ts";

const TIMEOUT_MS = 3000;
/** Chrony's maxslewrate, the most that keeps a clock in order takes; NTP alone: 0.0005. */
const SLEWED = 0.083;
/** Of an inode with a page, measured (overlay/lease/README.md). */
const DROP_US = 2.5;

/** True times, from the moment at which the node sent the last heartbeat that a quorum acknowledged. */
interface Moments {
  /** It acts on no lock any more, but its kernel has its caches. */
  readonly lapsedMs: number;
  /** The kernel has none of them. */
  readonly droppedMs: number;
  /** Others are given its locks. */
  readonly othersMs: number;
  /** An owner begins to let go of its disk. */
  readonly letsGoMs: number;
}

/** `rate`: of the node's clock; `othersRate`: of those who go on without it. `inodes`: that its kernel has cached. */
function cutOff(rate: number, othersRate: number, inodes: number): Moments {
  const member = (nodeid: number): { nodeid: number; incarnation: string } => ({ nodeid, incarnation: String(nodeid) });
  const lease = new PublishedLease(member(1), TIMEOUT_MS);
  const nodes = [1, 2, 3].map((nodeid) => ({ nodeid, votes: 1 }));
  lease.tell({ epoch: 1, proposer: 1, incarnation: "1" }, { members: [1, 2, 3].map(member), grounds: [{ nodes, needed: 2 }] });
  lease.acked({ from: 2, incarnation: "2" }, 0);
  const core = new LeaseCore();
  let localMs = 0;
  while (core.look(lease.endMs, localMs) !== "lapse") localMs += core.nextLookMs(lease.endMs, localMs) ?? LAPSED_LOOK_MS;
  const lapsedMs = localMs / rate;
  let letsGoMs = Number.NaN;
  const selfFence = new SelfFence({
    marginMs: leaseMarginMs(TIMEOUT_MS),
    letGo: () => {
      letsGoMs = localMs / rate;
    },
    timers: {
      after: (ms, run) => {
        if (!Number.isNaN(letsGoMs)) return () => undefined;
        localMs += ms;
        run();
        return () => undefined;
      },
    },
  });
  selfFence.lapsed();
  return { lapsedMs, droppedMs: lapsedMs + (inodes * DROP_US) / 1000, othersMs: (leaseWaitShare * TIMEOUT_MS) / othersRate, letsGoMs };
}

const FULL = cachedInodesMax(leaseMarginMs(TIMEOUT_MS));

describe("a node that is cut off, with a clock that is slow, and others whose clocks are fast", () => {
  it("acts on no lock when others are given it, with clocks that are off by 14 %; by 15 % it would", () => {
    for (const drift of [0, 0.0005, 0.01, SLEWED, 0.14]) {
      const { lapsedMs, othersMs } = cutOff(1 - drift, 1 + drift, 0);
      expect([drift, lapsedMs < othersMs]).toEqual([drift, true]);
    }
    const { lapsedMs, othersMs } = cutOff(0.85, 1.15, 0);
    expect(lapsedMs).toBeGreaterThan(othersMs);
  });

  it("has dropped a full cache by then, with clocks that are off by 6 %; by 8.3 %, one that is two thirds full", () => {
    expect(FULL).toBeGreaterThan(100_000);
    for (const drift of [0, 0.0005, 0.01, 0.06]) {
      const { droppedMs, othersMs } = cutOff(1 - drift, 1 + drift, FULL);
      expect([drift, droppedMs < othersMs]).toEqual([drift, true]);
    }
    const slewed = cutOff(1 - SLEWED, 1 + SLEWED, FULL);
    expect(slewed.droppedMs).toBeGreaterThan(slewed.othersMs);
    const fewer = cutOff(1 - SLEWED, 1 + SLEWED, (2 / 3) * FULL);
    expect(fewer.droppedMs).toBeLessThan(fewer.othersMs);
  });

  it("sees the end of its lease at that very moment: it looks each 200 ms at least, and then", () => {
    expect(cutOff(1, 1, 0).lapsedMs).toBe(0.6 * TIMEOUT_MS);
    expect(LOOK_INTERVAL_MS).toBeLessThan(leaseMarginMs(TIMEOUT_MS));
  });
});

describe("an owner that is cut off", () => {
  it("keeps its disk for a time-out, by a clock that is fast too; and lets go at 1.6 of them", () => {
    for (const drift of [0, 0.0005, SLEWED, 0.5]) {
      const { letsGoMs } = cutOff(1 + drift, 1, 0);
      expect([drift, letsGoMs > TIMEOUT_MS]).toEqual([drift, true]);
    }
    expect(cutOff(1, 1, 0).letsGoMs).toBeCloseTo(1.6 * TIMEOUT_MS);
  });
});

describe("a disk whose fence lied", () => {
  /** Whether it would count as quiet. The kernel's clock is slow, and a write takes so long now and then; who looks has a fast clock. */
  const seemsQuiet = (drift: number, writeMs: number): boolean => {
    const everyMs = MMP_UPDATE_INTERVAL_S * 1000;
    const writes = (trueMs: number): number => {
      const count = Math.floor((trueMs * (1 - drift)) / everyMs);
      // Each second one is that late.
      const late = count % 2 === 1 && trueMs - (count * everyMs) / (1 - drift) < writeMs;
      return late ? count - 1 : count;
    };
    const quiet = new QuietDisk();
    for (let trueMs = 0; trueMs < 20_000; ) {
      const found = quiet.look(String(writes(trueMs)), everyMs, true, trueMs * (1 + drift));
      if (found.kind === "quiet") return true;
      if (found.kind === "lied") return false;
      trueMs += Math.max(100, found.forMs) / (1 + drift);
    }
    throw new Error("neither");
  };

  it("is not quiet for an owner that is healthy: the looks are further apart than its writes", () => {
    for (const drift of [0, 0.0005, SLEWED]) expect([drift, seemsQuiet(drift, 200)]).toEqual([drift, false]);
  });
});
