/** What the process of a mount says of itself while it keeps it for another one (restart/holder.ts), and how it looks for its dlmd. Plain data. */
import { minorOf, mountTable } from "../../dlmd/base/mount-table.ts";
import { bootId } from "../../dlmd/base/machine.ts";
import type { Log } from "../../dlmd/base/log.ts";
import { dlmdThere } from "../query/dlmd-query.ts";
import type { Native } from "../../native/index.ts";
import { startCollecting } from "../restart/collect.ts";
import { startNext, wordsOf } from "../restart/give.ts";
import { Holder, type HolderEnd } from "../restart/holder.ts";
import { abortConnection, detachMount } from "../session/connection.ts";
import type { OwnerBlock } from "../volume/owner-block.ts";
import { epochGivenBackBy } from "./give-back.ts";
import type { Pausing } from "./mount-restart.ts";
import { ownerAfter } from "../restart/state.ts";
import type { StatusAnswers } from "./status-server.ts";

/** A process that keeps its mount for another one does not wait for dlmd for ever: it has given up its locks. */
export const LEAVE_LIMIT_MS = 10_000;

/** What the mount ended with. Null, too, if it is kept, and dlmd does not let it go. */
export async function endOrPause(
  ended: Promise<Error | null>,
  pauses: Promise<{ readonly hasLeftDlmd: boolean }>,
  log: Log,
): Promise<Error | null> {
  const late = pauses.then(({ hasLeftDlmd }) => {
    // There is nothing to wait for: a notification may wait for a page whose request the next process answers.
    if (hasLeftDlmd) return "alone" as const;
    return new Promise<"late">((resolve) => setTimeout(resolve, LEAVE_LIMIT_MS, "late").unref());
  });
  const end = await Promise.race([ended, late]);
  if (end === "alone") return null;
  if (end !== "late") return end;
  log.warn({ waitedMs: LEAVE_LIMIT_MS }, "dlmd has not let this process go: its connection ends when dlmd does");
  return null;
}

export interface Held {
  readonly native: Pick<Native, "mount" | "umount">;
  readonly runDir: string;
  readonly mountpoint: string;
  readonly log: Log;
  readonly readOwnerBlock: () => Promise<OwnerBlock>;
}

export function createHolder(
  { state, sinceMs, incarnation, fd, dlmdDied }: Pausing,
  { native, runDir, mountpoint, log, readOwnerBlock }: Held,
): Holder {
  const givenBackBy = (pid: number, after: number): Promise<number | null> =>
    epochGivenBackBy(readOwnerBlock, { pid, bootId: bootId(), after }, log);
  const isAlone = ownerAfter(state) === "itself";
  return new Holder({
    log,
    state,
    sinceMs,
    // The owner that keeps something does so from the pause on; a disk may have taken its time.
    heldSinceMs: isAlone ? performance.now() : sinceMs,
    ...(isAlone ? { givenBackBy } : {}),
    incarnation,
    why: dlmdDied ? "dlmd of this node has died" : "dlmd of this node is being restarted",
    start: () => startNext(fd, "dlmd-away"),
    dlmd: () => dlmdThere(runDir),
    // Something may be mounted over it.
    isMounted: () => mountTable().some((entry) => entry.type === "fuse.clustered" && minorOf(entry) === state.connection),
    detach: () => void detachMount(native, mountpoint, state.connection),
    abort: () => abortConnection(native, state.connection),
  });
}

/** Until the mount is no matter of this process any more. If it has ended, another process has the owner give up what it keeps. */
export async function holdToEnd(
  holder: Pick<Holder, "run" | "anyDlmd">,
  { kept, sinceMs, incarnation }: Pausing,
  { runDir, log }: Pick<Held, "runDir" | "log">,
  startCollector: typeof startCollecting = startCollecting,
): Promise<HolderEnd> {
  const end = await holder.run();
  if (end.kind === "given" || kept === null) return end;
  try {
    startCollector(runDir, { ...kept, incarnation: holder.anyDlmd ? null : incarnation, waitedMs: performance.now() - sinceMs });
  } catch (error) {
    log.error({ error: wordsOf(error) }, "nobody has the owner give up what it keeps for this mount: others wait for it");
  }
  return end;
}

/** `before`: what the mount said of itself. */
export function holdingAnswers(before: Readonly<Record<string, unknown>>, holder: Holder): StatusAnswers {
  const summary = (): Record<string, unknown> => ({ ...before, role: "paused" });
  const refused = (): object => ({ kind: "refused", why: holder.why });
  const hint = "Wait until dlmd of this node has been restarted.";
  return {
    summary,
    status: () => ({ ...summary(), why: holder.why, isWell: false, lease: null, group: null, ownerWait: null, work: null }),
    requests: () => ({ nodeid: 0, clientId: 0, lockspace: "", mountpoint: before["mountpoint"], requests: [], count: 0, longest: null }),
    inode: () => ({ nodeid: 0, clientId: 0, lockspace: "", mountpoint: before["mountpoint"], keys: [] }),
    fileLocks: () => ({ files: [], truncated: false }),
    gather: () => Promise.resolve({ gathered: false }),
    handOver: () => Promise.resolve(refused()),
    restart: () => Promise.resolve(refused()),
    pause: () => Promise.resolve(refused()),
    goOn: () => {
      holder.goOn();
      return { goesOn: true };
    },
    grow: () => Promise.resolve({ kind: "refused", code: "paused", why: holder.why, hint }),
    growth: () => ({ growth: null }),
  };
}
