/**
 * A mount has ended while it was paused, and its owner still keeps what it had (README.md, hazard F35). The holder leaves a process behind that has the owner give it up, as
 * soon as dlmd runs again.
 */
import { spawn } from "node:child_process";
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Log } from "../../dlmd/base/log.ts";
import type { OwnerAddress } from "../lower/remote/connection.ts";
import { coverlayProgram, NODE_FLAGS } from "../volume/start-overlay.ts";
import { CUSTODY_LIMIT_MS } from "./custody.ts";
import { wordsOf } from "./give.ts";
import { HOLD_LOOK_MS, HOLD_RETRY_MS, SAME_DLMD_MS } from "./holder.ts";
import { OTHER_OWNER } from "./take.ts";

/** An owner that has not answered by then is asked anew: who asks is a program at work, and dlmd does not restart beneath one. */
export const COLLECT_ASK_MS = 15_000;

/** What is kept, and where. */
export interface Kept {
  /** `after`: by the owner that comes after the one with this epoch (hazard F44). */
  readonly owner: (OwnerAddress & { readonly epoch: number }) | { readonly after: number };
  readonly volumeUuid: string;
  readonly ticket: string;
}

/** For the process that collects. */
export interface CollectOrder extends Kept {
  /** Of the dlmd that is to be restarted; null: any will do. */
  readonly incarnation: string | null;
  /** For how long calls have waited. */
  readonly waitedMs: number;
}

export interface CollectHost {
  readonly log: Log;
  /** HolderHost.dlmd */
  readonly dlmd: () => Promise<string | null>;
  /** Whether the owner kept something. Rejects if it cannot be asked now; with OTHER_OWNER if its node is gone. */
  readonly ask: (signal: AbortSignal) => Promise<boolean>;
}

/** `late`: nobody keeps anything any more. */
export type CollectEnd = "collected" | "nothing" | "other-owner" | "late";

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Resolves when nothing is kept under that ticket. */
export async function collectKept({ incarnation, waitedMs }: CollectOrder, { log, dlmd, ask }: CollectHost): Promise<CollectEnd> {
  const sinceMs = performance.now() - waitedMs;
  const waited = (): number => performance.now() - sinceMs;
  while (waited() < CUSTODY_LIMIT_MS) {
    const found = await dlmd();
    if (found === null || (found === incarnation && waited() <= SAME_DLMD_MS)) {
      await sleep(HOLD_LOOK_MS);
      continue;
    }
    try {
      return (await inTime(ask)) ? "collected" : "nothing";
    } catch (error) {
      if (error instanceof OperatingError && error.code === OTHER_OWNER) return "other-owner";
      log.warn({ error: wordsOf(error) }, "the owner could not be asked to give up what it keeps; it is asked again");
      await sleep(HOLD_RETRY_MS);
    }
  }
  return "late";
}

function inTime(ask: (signal: AbortSignal) => Promise<boolean>): Promise<boolean> {
  const ending = new AbortController();
  return new Promise((resolve, reject) => {
    const late = (): void => {
      const why = new OperatingError(`no answer in ${COLLECT_ASK_MS / 1000} s`, { code: "owner-silent", hint: "It is asked again." });
      ending.abort(why);
      reject(why);
    };
    const timer = setTimeout(late, COLLECT_ASK_MS);
    ask(ending.signal)
      .then(resolve, reject)
      .finally(() => clearTimeout(timer));
  });
}

/** It goes on without this process, and has nothing of the mount. Throws where there is no program. */
export function startCollecting(runDir: string, order: CollectOrder): void {
  const words = ["collect", "--run-dir", runDir, "--order", JSON.stringify(order)];
  const child = spawn(process.execPath, [...NODE_FLAGS, coverlayProgram(), ...words], {
    detached: true,
    cwd: "/",
    stdio: ["ignore", "inherit", "inherit"],
  });
  // One that cannot be started has no number, and says why in a later turn.
  child.on("error", () => undefined);
  if (child.pid === undefined) throw new Error(`${process.execPath} cannot be started`);
  child.unref();
}
