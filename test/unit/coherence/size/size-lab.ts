/** Test lab: a file, the kernel's size of it, and the check over both. */
import { Cover, type Inode } from "../../../../overlay/coherence/cover.ts";
import { CoherenceState } from "../../../../overlay/coherence/effect.ts";
import type { Asking } from "../../../../overlay/coherence/size/kernel-sizes.ts";
import { SizeCheck } from "../../../../overlay/coherence/size/check.ts";

export const OWN_THREAD = 77;
export const WRITER = 5;
export const ASLEEP = 6;
export const READER = 8;
export const SEEKER = 10;
export const ENDED = 9;
export const caller: Asking = { interrupted: false, answered: false };

interface Kernel {
  size: number;
  truncating: (() => void) | null;
  drops: number;
  locked: boolean;
  /** The lease does not hold. */
  lapsed: boolean;
  /** A look ends at its time-out; else when it sees what it is for. */
  timed: boolean;
  /** What the next looks give instead of the size. */
  readonly noLook: number[];
}

/** A file, the kernel's size of it, and what was done to that; `file.size` is the true one. */
export function bench(kernelSize: number): {
  readonly check: SizeCheck;
  readonly inode: Inode;
  readonly file: { size: number };
  readonly done: string[];
  readonly kernel: Kernel;
} {
  const file = { size: 100 };
  const done: string[] = [];
  const kernel: Kernel = { size: kernelSize, truncating: null, drops: 0, locked: false, lapsed: false, timed: false, noLook: [] };
  const id = { ino: 4, generation: 1 };
  const inode: Inode = {
    fuseNodeid: 9,
    id,
    kind: "file",
    nlookup: 1,
    openCount: 2,
    mappableCount: 0,
    cover: new Cover(id, "file"),
  };
  const check: SizeCheck = new SizeCheck(
    {
      look: async (_fuseNodeid, atLeast, atMost, timeoutMs) => {
        const refused = kernel.noLook.shift();
        if (refused !== undefined) return refused;
        const limit = { over: timeoutMs === 0 };
        if (kernel.timed) setTimeout(() => (limit.over = true), timeoutMs);
        while (!limit.over && (kernel.size < atLeast || kernel.size > atMost)) await soon();
        done.push(`look ${kernel.size}`);
        return kernel.size;
      },
      refresh: async () => {
        await Promise.resolve();
        if (check.own.getattr(inode, OWN_THREAD) !== "now") return -11;
        await check.own.tell(inode, () => {
          done.push(`repair to ${file.size}`);
          if (kernel.drops > 0) kernel.drops -= 1;
          else kernel.size = file.size;
          return Promise.resolve();
        });
        if (kernel.truncating !== null) await new Promise<void>((resolve) => (kernel.truncating = resolve));
        done.push("repaired");
        return kernel.size;
      },
      lock: async () => {
        await Promise.resolve();
        if (kernel.locked) return new Promise<number>(() => {});
        const over = check.own.lock(inode, OWN_THREAD);
        done.push("lock");
        await over;
        done.push("unlock");
        return -61;
      },
      walk: () => Promise.resolve(0),
      isOwnThread: (tid) => tid === OWN_THREAD,
    },
    {
      isAsleep: (tid) => tid === ASLEEP,
      hasEnded: (tid) => tid === ENDED,
      isReading: () => true,
      isSeeking: (tid) => tid === SEEKER,
      isRunnable: () => false,
      waitsForPage: () => false,
    },
    new CoherenceState(),
    () => kernel.lapsed,
  );
  return { check, inode, file, done, kernel };
}

export const soon = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export function tell(check: SizeCheck, inode: Inode, file: { readonly size: number }, done: string[]): Promise<void> {
  return check.tell(
    inode,
    caller,
    () => ({ ...file }),
    ({ size }) => done.push(`told ${size}`),
  );
}
