/**
 * What a mount does when the disk under its lower fails (hazard R6): watches it, and gives the volume up once. One for each mount, through
 * all the times that it is the owner.
 */
import type { Log } from "../../dlmd/base/log.ts";
import type { OwnJournal } from "../lower/own-journal.ts";
import { DiskGuard } from "../lower/server/disk-guard.ts";
import { mayWithdraw } from "../lower/server/disk-fault.ts";
import type { LocalLower } from "../lower/local/local.ts";
import { pathIsWell } from "../volume/disk-probe.ts";
import { createKernelErrors, KERNEL_ERRORS_EVERY_MS } from "../volume/kernel-errors.ts";
import { isAnothers } from "../volume/taking.ts";

/** How often an owner reads its block again: another life there is another owner, by a late write or of another cluster. */
export const OWNER_BLOCK_EVERY_MS = 10_000;

/** What is watched. */
export interface WatchedDisk {
  readonly device: string;
  /** Of the file system. */
  readonly type: string;
  readonly readOnly: boolean;
  readonly rootFd: number;
  /** LowerMount.confirm */
  readonly confirm: () => Promise<void>;
  /** LowerMount.stopWriting */
  readonly stopWriting: () => Promise<void>;
  /** DiskGuardOptions.journal */
  readonly journal?: OwnJournal | null;
}

/**
 * For programs: the disk was given up; its kernel lets nobody write to it; its owner's block could not be read again. That of a disk which is
 * not mounted here any more stays until this node mounts one again.
 */
export type DiskFault = "withdrawn" | "read-only" | "unread";

export interface GuardedDisk {
  readonly guard: DiskGuard;
  /** In words; null: it is well, as far as is known. */
  readonly trouble: string | null;
  /** The same, for programs. */
  readonly fault: DiskFault | null;
  /** Looks at the owner's block now. False: the disk was given up; if it is another's, its file system is shut down by then. Never rejects. */
  hasDisk(): Promise<boolean>;
  /** It is not looked at any more. */
  end(): void;
}

export class Withdrawals {
  readonly #log: Log;
  #lastMs: number | null = null;
  #disk: GuardedDisk | null = null;

  constructor(log: Log) {
    this.#log = log;
  }

  /** What is wrong with the disk that this node had mounted last; null: nothing that is known. */
  get trouble(): string | null {
    return this.#disk?.trouble ?? null;
  }

  get fault(): DiskFault | null {
    return this.#disk?.fault ?? null;
  }

  /** An owner of the volume has withdrawn, now. */
  seen(): void {
    this.#lastMs = performance.now();
  }

  /** `withdraw`: at most once, perhaps from inside of a call of the lower. */
  guard(local: LocalLower, disk: WatchedDisk, withdraw: (why: string) => void): GuardedDisk {
    const { device, type, readOnly, rootFd, journal = null } = disk;
    const kernel = createKernelErrors(type, device, rootFd);
    const isDown = (): boolean => kernel.look()?.isDamage === false;
    const guard = new DiskGuard({
      local,
      readOnly,
      isDamaged: () => kernel.look()?.isDamage === true,
      // A disk that came back does not bring a file system back that was shut down.
      probe: async () => !isDown() && (await pathIsWell(device)),
      mayWithdraw: () => mayWithdraw(this.#lastMs, performance.now()),
      journal,
      withdraw,
      log: this.#log,
    });
    let trouble: string | null = null;
    const timer = setInterval(() => {
      const found = kernel.look();
      if (found === null) return;
      clearInterval(timer);
      trouble = found.words;
      if (found.isDamage) this.#log.error({ trouble }, "the file system is damaged: changes fail on all nodes, and it can be read");
      else if (!readOnly) guard.withdraw(trouble);
    }, KERNEL_ERRORS_EVERY_MS);
    timer.unref();
    const block = this.#watchBlock(guard, disk);
    this.#disk = {
      guard,
      get trouble(): string | null {
        return guard.why ?? trouble ?? block.trouble();
      },
      get fault(): DiskFault | null {
        if (guard.why !== null) return "withdrawn";
        if (trouble !== null) return "read-only";
        return block.trouble() === null ? null : "unread";
      },
      hasDisk: () => block.hasDisk(),
      end: () => {
        clearInterval(timer);
        block.end();
      },
    };
    return this.#disk;
  }

  /** A block that cannot be read is trouble that may pass: what it means for the disk, the next call finds out. */
  #watchBlock(
    guard: DiskGuard,
    { confirm, stopWriting }: WatchedDisk,
  ): { readonly trouble: () => string | null; readonly hasDisk: () => Promise<boolean>; readonly end: () => void } {
    let trouble: string | null = null;
    let stopped: Promise<void> | null = null;
    let looking = false;
    let ended = false;
    const stop = async (): Promise<void> => {
      try {
        await stopWriting();
      } catch (error) {
        this.#log.error({ error: String(error) }, "the disk of another owner may be written to");
      }
    };
    const judge = (error: unknown): void => {
      // This node gives the block back itself at the end.
      if (ended) return;
      const words = error instanceof Error ? error.message : String(error);
      if (isAnothers(error)) {
        // Hazard C3. First, so that no call is told what the end of the file system does to it.
        guard.yieldTo(words);
        stopped ??= stop();
        return;
      }
      if (trouble === null) this.#log.warn({ error: words }, "the owner's block could not be read again");
      trouble = words;
    };
    const look = (): Promise<unknown> => confirm().then(() => (trouble = null), judge);
    const timer = setInterval(() => {
      if (looking) return;
      looking = true;
      void look().finally(() => (looking = false));
    }, OWNER_BLOCK_EVERY_MS);
    timer.unref();
    return {
      trouble: () => trouble,
      hasDisk: async () => {
        await look();
        await stopped;
        return guard.why === null;
      },
      end: () => {
        ended = true;
        clearInterval(timer);
      },
    };
  }
}
