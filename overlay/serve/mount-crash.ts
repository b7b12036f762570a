/** How a new process goes on with a mount after a crash: the steps between the tables and the first request (overlay/crash/README.md, hazards F38, F39). */
import { setTimeout as sleep } from "node:timers/promises";
import { E, Errno } from "../../dlmd/base/errno.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Log } from "../../dlmd/base/log.ts";
import type { DlmClient } from "../../dlmd/client/api.ts";
import { encodeMountGroupMessage, mountGroupName } from "../../dlmd/wire/mount-group.ts";
import type { CoherenceShell } from "../coherence/shell.ts";
import type { FileId } from "../lower/lower.ts";
import { decodeWith } from "../lower/wire/call-codecs.ts";
import type { Outcome } from "../lower/wire/call-types.ts";
import { CALLS, callOfType } from "../lower/wire/calls.ts";
import { FrameType } from "../lower/wire/frame.ts";
import { type AfterCrash, foundWords } from "../crash/after-crash.ts";
import type { CallBefore, JournalBefore } from "../crash/before.ts";
import type { Journal } from "../crash/journal.ts";
import type { RemoteLower } from "../lower/remote/remote.ts";
import { OTHER_OWNER } from "../restart/take.ts";
import type { SessionHandOff } from "../session/mount-session.ts";

/** How often it looks whether it has the locks that dlmd has kept, and a lease. */
export const CRASH_LOCKS_LOOK_MS = 2;

/** When a sync of what was changed before is tried again. */
export const SYNC_AGAIN_MS = 1000;

/** The process before is a mounter no more, and nobody waits for what it would say. Then this one may join. */
export async function succeed(
  { afterCrash, journal }: { readonly afterCrash: AfterCrash; readonly journal: Journal },
  client: DlmClient,
  lockspace: string,
  uuid: string,
): Promise<void> {
  const kept = await client.inherited(lockspace);
  afterCrash.inherits(kept);
  journal.addHeir(client.info.clientId);
  const group = mountGroupName(uuid);
  for (const { clientId } of kept) {
    try {
      await client.farewell(clientId, group, encodeMountGroupMessage({ kind: "bye" }));
    } catch (error) {
      // An earlier try has said it, or that process never was a mounter.
      if (!(error instanceof OperatingError) || error.code !== "not-joined") throw error;
    }
  }
}

const NOTHING = new Uint8Array();
/** Nobody can tell whether it was made. */
const UNKNOWN: Uint8Array = Uint8Array.of(E.EIO, 0, 0, 0);

export interface GoOnAfterCrash {
  readonly client: DlmClient;
  readonly handOff: SessionHandOff | null;
  readonly coherence: CoherenceShell;
  readonly remote: RemoteLower;
  readonly journal: Journal;
  readonly leaseHolds: () => boolean;
  /** The state of each file with file locks, which dlmd has kept. */
  readonly hasFileLocks: () => boolean;
  /** That at which all is open. */
  readonly hasSameOwner: () => boolean;
  /** Throws why this process ends, if it does. */
  readonly check: () => void;
  readonly log: Log;
}

/** Resolves when this process answers the kernel. */
export async function goOnAfterCrash(afterCrash: AfterCrash, host: GoOnAfterCrash): Promise<void> {
  const { client, handOff, coherence, remote, leaseHolds, hasFileLocks, hasSameOwner, journal, check, log } = host;
  if (handOff === null) throw new Error("a mount that goes on after a crash has a session of the kernel's protocol");
  if (remote.brokenFiles > 0)
    throw new OperatingError(`${remote.brokenFiles} open files could not be opened again at the owner`, {
      code: "crash-lost",
      hint: "umount -l, and mount again.",
    });
  const until = async (there: () => boolean): Promise<void> => {
    for (; !there(); check()) await new Promise((resolve) => setTimeout(resolve, CRASH_LOCKS_LOOK_MS));
  };
  await until(() => coherence.rest.hasTokens && hasFileLocks());
  await askOutcomes(afterCrash, host);
  // With the locks of the process before: nobody else can have changed anything until the kernel has nothing of it any more.
  await coherence.dropBefore(handOff.mount.inodes.all());
  await until(leaseHolds);
  if (!hasSameOwner())
    throw new OperatingError("the volume has another owner now", { code: OTHER_OWNER, hint: "umount -l, and mount again." });
  check();
  // What it has it has under its own locks, and under those that it has taken over.
  journal.servingClient = client.info.clientId;
  for (const { clientId } of afterCrash.kept) await client.endKept(clientId);
  check();
  log.info(foundWords(afterCrash), "this process goes on after a crash of the one before");
  handOff.begin([]);
}

/** What the process before had asked of the owner. What was made behind is made now, if it was not. */
async function askOutcomes(afterCrash: AfterCrash, { remote, journal, log }: GoOnAfterCrash): Promise<void> {
  const { calls, files } = afterCrash.before;
  const lost = (call: CallBefore, why: string): void => {
    const id = inodeOf(call, files);
    log.error({ ino: id?.ino, why }, "what a program was told to be made before the crash is lost");
    if (id !== null) remote.noteLost(id);
  };
  for (const call of calls) if (call.request === 0 && call.outcome === "failed") lost(call, "the owner has refused it");
  const byClient = new Map<number, CallBefore[]>();
  for (const call of afterCrash.unknown) byClient.set(call.client, [...(byClient.get(call.client) ?? []), call]);
  for (const [clientId, asked] of byClient) {
    const outcomes = await remote.outcomes(
      clientId,
      asked.map((call) => ({ id: call.id, type: call.type, body: call.request === 0 ? wholeBody(call) : null })),
    );
    asked.forEach((call, at) => {
      const outcome = outcomes[at] as Outcome;
      const failed = outcome.state === "answered" && outcome.type === FrameType.FAILED;
      // Its file may be removed by now: then nobody can miss it.
      const isGone = failed && new DataView(outcome.body.slice().buffer).getUint32(0, true) === E.ESTALE;
      if (call.request === 0) {
        const isMade = outcome.state === "answered" && (!failed || isGone);
        if (!isMade) lost(call, outcome.state);
        afterCrash.settle(journal, call, isMade ? { failed: false, body: NOTHING } : null);
      } else if (outcome.state === "answered") afterCrash.settle(journal, call, { failed, body: outcome.body });
      else afterCrash.settle(journal, call, outcome.state === "not-made" ? null : { failed: true, body: UNKNOWN });
    });
  }
}

function wholeBody({ body, data }: CallBefore): Uint8Array {
  return Buffer.concat([body ?? new Uint8Array(), data ?? new Uint8Array()]);
}

/** Of a change that was made behind: a write, or one of attributes. null: its file is not open any more. */
function inodeOf(call: CallBefore, files: JournalBefore["files"]): FileId | null {
  const name = callOfType(call.type);
  if (name === "setattr") return decodeWith(CALLS.setattr.request, wholeBody(call)).id;
  if (name !== "write") return null;
  const { handle } = decodeWith(CALLS.write.request, wholeBody(call));
  return files.find((file) => file.handle === handle)?.id ?? null;
}

/** Until all is on the disk that the process before had changed. False: the mount ends before. */
export async function syncBefore(remote: Pick<RemoteLower, "syncBefore">, isEnding: () => boolean, log: Log): Promise<boolean> {
  while (!isEnding()) {
    try {
      await remote.syncBefore();
      return true;
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      log.warn({ error: String(error) }, "what was changed before the crash could not be synced yet");
    }
    await sleep(SYNC_AGAIN_MS, undefined, { ref: false });
  }
  return false;
}
