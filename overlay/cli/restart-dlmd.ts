/**
 * `coverlay restart --dlmd`: the mounts of this node wait while its dlmd is restarted, and new processes go on with them; nothing is unmounted. The same for a mount alone that is the
 * owner, where nobody else could be.
 */
import { userInfo } from "node:os";
import * as z from "zod";
import { OperatingError } from "../../dlmd/base/error.ts";
import { askAdmin } from "../../dlmd/client/admin.ts";
import { askOverlay, listOverlays, type OverlayEntry } from "../query/overlay-query.ts";
import { HOLD_LIMIT_MS } from "../restart/holder.ts";
import type { RestartAnswer } from "../restart/give.ts";
import type { PauseAnswer } from "../restart/pause.ts";
import { unlessAborted } from "./interrupt.ts";
import type { LongWork } from "./long-work.ts";

/** A mount has another process rehearse, rests, and leaves dlmd, within its own limits. */
const PAUSE_TIMEOUT_MS = 100_000;
/** A mount that paused is served again, or has ended, by then. */
const SERVED_TIMEOUT_MS: number = HOLD_LIMIT_MS + 30_000;
/** How often that is looked at. */
const SERVED_LOOK_MS = 100;

const pauseShape: z.ZodType<PauseAnswer> = z.discriminatedUnion("kind", [
  z.looseObject({ kind: z.literal("refused"), why: z.string() }),
  z.looseObject({ kind: z.literal("failed"), why: z.string() }),
  z.looseObject({ kind: z.literal("lost"), why: z.string() }),
  // A mount of an older version does not say how long.
  z.looseObject({ kind: z.literal("paused"), inodes: z.number(), files: z.number(), waitedMs: z.number().default(0) }),
]);
const goesOn: z.ZodType<{ readonly goesOn: boolean }> = z.looseObject({ goesOn: z.boolean() });

/** One mount that another process serves now. */
export interface Served {
  readonly mountpoint: string;
  readonly volume: string;
  readonly pid: number;
  readonly inodes: number;
  readonly files: number;
}

interface Paused {
  readonly entry: OverlayEntry;
  readonly inodes: number;
  readonly files: number;
}

/** Exported for tests. */
export function askPause(runDir: string, { connection }: OverlayEntry, signal?: AbortSignal): Promise<PauseAnswer> {
  return askOverlay(runDir, connection, { query: "pause" }, pauseShape, PAUSE_TIMEOUT_MS, signal);
}

/** Throws which of them do not pause. `paused`: gets those that do. */
async function pauseAll(runDir: string, mounts: readonly OverlayEntry[], paused: Paused[]): Promise<void> {
  const refused: string[] = [];
  let areLost = false;
  await Promise.all(
    mounts.map(async (entry) => {
      const { mountpoint } = entry.file;
      try {
        const answer = await askPause(runDir, entry);
        if (answer.kind === "paused") paused.push({ entry, inodes: answer.inodes, files: answer.files });
        else {
          areLost ||= answer.kind === "lost";
          refused.push(`${mountpoint}${answer.kind === "lost" ? " has ended" : ""}: ${answer.why}`);
        }
      } catch (error) {
        refused.push(`${mountpoint}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }),
  );
  if (refused.length === 0) return;
  throw new OperatingError(`dlmd is not restarted: ${refused.join("; ")}`, {
    code: "not-paused",
    hint: areLost
      ? "umount -l what has ended, and mount it again; the others go on."
      : "Every mount goes on as before, and no call failed.",
  });
}

/** With the dlmd that runs: it is not restarted. Those that pause still go on by themselves. */
async function goOn(runDir: string, mounts: readonly OverlayEntry[]): Promise<void> {
  await Promise.all(
    mounts.map(({ connection }) =>
      // It may have gone on by itself.
      askOverlay(runDir, connection, { query: "go-on" }, goesOn).catch(() => null),
    ),
  );
}

async function waitServed(runDir: string, { entry, inodes, files }: Paused): Promise<Served> {
  const { mountpoint, volume } = entry.file;
  const untilMs = performance.now() + SERVED_TIMEOUT_MS;
  for (;;) {
    const now = listOverlays(runDir).find(({ connection }) => connection === entry.connection);
    if (now?.alive === true && now.file.role !== "paused") return { mountpoint, volume, pid: now.file.pid, inodes, files };
    if (now?.alive !== true || performance.now() > untilMs) {
      throw new OperatingError(`the mount on ${mountpoint} has ended, or does not answer`, {
        code: "restart-lost",
        hint: `Its log says why. Calls there fail: umount -l ${mountpoint}, and mount it again.`,
      });
    }
    await new Promise((resolve) => setTimeout(resolve, SERVED_LOOK_MS));
  }
}

/** What became of each, those that did not come back included. */
async function allServed(runDir: string, paused: readonly Paused[]): Promise<Served[]> {
  const ends = await Promise.allSettled(paused.map((one) => waitServed(runDir, one)));
  const lost = ends.flatMap((end) => (end.status === "rejected" ? [end.reason as unknown] : []));
  const served = ends.flatMap((end) => (end.status === "fulfilled" ? [end.value] : []));
  const [first] = lost;
  if (first === undefined) return served;
  if (lost.length === 1 && served.length === 0) throw first;
  const words = lost.map((error) => (error instanceof Error ? error.message : String(error)));
  const others = served.length === 0 ? "" : `; served are ${served.map(({ mountpoint }) => mountpoint).join(", ")}`;
  throw new OperatingError(`${words.join("; ")}${others}`, {
    code: "restart-lost",
    hint: "umount -l those that ended, and mount them again.",
  });
}

/** A mount that is its volume's owner, and that no other node could follow: it gives its disk back, and its next process takes it (hazard F43). */
export async function restartAlone(runDir: string, entry: OverlayEntry, signal: AbortSignal): Promise<RestartAnswer> {
  let paused: PauseAnswer;
  try {
    paused = await askPause(runDir, entry, signal);
  } catch (error) {
    // It may pause all the same.
    await goOn(runDir, [entry]);
    throw error;
  }
  if (paused.kind !== "paused") return paused;
  const { inodes, files, waitedMs } = paused;
  const sinceMs = performance.now() - waitedMs;
  await goOn(runDir, [entry]);
  const { pid } = await unlessAborted(waitServed(runDir, { entry, inodes, files }), signal);
  return { kind: "done", pid, pauseMs: Math.round(performance.now() - sinceMs), inodes, files, requests: 0 };
}

/** The living mounts of that run directory pause, dlmd starts anew, and new processes serve them. `signal`: until dlmd was asked, all go on as before. */
export async function restartDlmd(
  runDir: string,
  { say, signal }: Pick<LongWork, "say" | "signal">,
  restart: () => Promise<unknown> = () => askAdmin(runDir, { what: "restart", by: userInfo().username }),
): Promise<Served[]> {
  const mounts = listOverlays(runDir).filter(({ alive }) => alive);
  const paused: Paused[] = [];
  try {
    say(`${mounts.length} mounts come to rest, and their calls wait`);
    await pauseAll(runDir, mounts, paused);
    signal.throwIfAborted();
    say("dlmd leaves the cluster, and starts again");
    await restart();
  } catch (error) {
    await goOn(runDir, mounts);
    if (!signal.aborted) await unlessAborted(Promise.allSettled(paused.map((one) => waitServed(runDir, one))), signal);
    throw error;
  }
  say("new processes go on with the mounts");
  return unlessAborted(allServed(runDir, paused), signal);
}
