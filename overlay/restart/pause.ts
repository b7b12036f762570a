/**
 * A mount comes to rest, and its owner keeps what it has, while the dlmd of its node is restarted (README.md, hazard F35). Until the owner has said that it keeps all, the
 * mount can go on by itself, and does whenever anything is not as it should be. An owner that nobody shares its volume with has nobody to keep anything, and needs nobody: it
 * gives its disk back, and without an owner nobody can change anything (hazard F43). Where others share it, and its dlmd has died, it leaves to them what it has (hazard F44).
 */
import { randomBytes } from "node:crypto";
import { OperatingError } from "../../dlmd/base/error.ts";
import { inTime } from "../../dlmd/base/maybe-promise.ts";
import type { FileId } from "../lower/lower.ts";
import type { RequestOf } from "../lower/wire/call-types.ts";
import { bringToRest, END_LIMIT_MS, HELLO_LIMIT_MS, type NextProcess, notNow, requireVersion, type RestingHost, wordsOf } from "./give.ts";
import { Channel, LINE_BYTES_MAX } from "./channel.ts";
import { encodeState, type RestartState } from "./state.ts";
import { heldIn } from "./tables.ts";

/** The owner has to queue for all write tokens, and for all files with locks, within this time; else the mount goes on. */
export const DEPOSIT_LIMIT_MS = 15_000;
/** An owner has synced before it rests, or has begun to, so its disk is unmounted soon; later the mount ends, and the disk is given back when it answers. */
export const GIVE_BACK_LIMIT_MS = 60_000;
/** How often it is looked meanwhile whether the lease holds, of a dlmd that has died. */
export const DEPOSIT_LOOK_MS = 20;

/** Of an owner. */
export interface GiveBack {
  /** While it still serves. Throws: the mount goes on. */
  readonly sync: () => Promise<void>;
  /** Resolves when the disk is unmounted, and the owner's block says so. Rejects: it is not, and there is no way back. */
  readonly disk: () => Promise<void>;
  /** Then: this process is no client of dlmd any more. */
  readonly dlmd: () => Promise<void>;
  /**
   * After the death of dlmd, where others have the volume mounted, too: those that may be the next owner are to keep what this mount has (hazard F44). Resolves with why nobody
   * does, in words; "": somebody does. `signal`: there is no more time. null: nobody shares the volume.
   */
  readonly leave: ((request: RequestOf<"deposit">, signal: AbortSignal) => Promise<string>) | null;
  /** They need not after all. */
  readonly takeBack: (ticket: string) => void;
}

export interface PauseHost extends RestingHost {
  /** GiveHost.fail: some of its locks are given up. */
  readonly fail: (error: Error) => void;
  /** null: another mount is the owner. */
  readonly giveBack: GiveBack | null;
  /** RemoteLower.deposit. `signal`: nothing more is to be named. */
  readonly deposit: (request: RequestOf<"deposit">, signal: AbortSignal) => Promise<string>;
  /** A new process starts, joins, reaches the owner, says which states it knows, and ends. Rejects if it cannot, as the next one could not. */
  readonly rehearse: () => Promise<readonly number[]>;
  /** The owner is to keep nothing after all. Nobody waits for its answer. */
  readonly collect: (ticket: string) => void;
}

/** For the command. */
export type PauseAnswer =
  | { readonly kind: "refused" | "failed"; readonly why: string }
  /** The mount has ended. */
  | { readonly kind: "lost"; readonly why: string }
  /** `waitedMs`: so long calls have waited by now. */
  | { readonly kind: "paused"; readonly inodes: number; readonly files: number; readonly waitedMs: number };

type NotPaused = Exclude<PauseAnswer, { kind: "paused" }>;

export interface Paused {
  readonly state: RestartState;
  /** performance.now(), since when calls wait. */
  readonly sinceMs: number;
}

/** All of the inodes that this mount must not lose to another node. */
export function depositOf({ ownerEpoch, inodes, handles, fileLocks, shared }: RestartState, ticket: string): RequestOf<"deposit"> {
  const ids = new Map(inodes.map(({ fuseNodeid, id }) => [fuseNodeid, id]));
  const idsOf = (nodeids: readonly number[]): FileId[] => [...new Set(nodeids)].flatMap((nodeid) => ids.get(nodeid) ?? []);
  return {
    epoch: ownerEpoch,
    ticket,
    isLast: true,
    dlmdDied: false,
    tokens: idsOf(handles.filter(({ writeToken }) => writeToken).map(({ fuseNodeid }) => fuseNodeid)),
    locked: idsOf(fileLocks.filter((row) => !row.shared).map(({ fuseNodeid }) => fuseNodeid)),
    sharedLocks: fileLocks.filter((row) => row.shared).flatMap((row) => idsOf([row.fuseNodeid]).flatMap((id) => locksOf(row, id))),
    shared: idsOf(shared),
  };
}

function locksOf(row: RestartState["fileLocks"][number], id: FileId): RequestOf<"deposit">["sharedLocks"] {
  return heldIn(row).map(({ owner, range, heldMs }) => ({ id, owner, range, heldMs: Math.round(heldMs) }));
}

/** Resolves with what another process goes on with, when this mount has given up its locks; or with why it goes on by itself. */
export async function pauseMount(host: PauseHost, lineBytesMax: number = LINE_BYTES_MAX): Promise<Paused | NotPaused> {
  const refusal = host.refusal();
  if (refusal !== null) return { kind: "refused", why: refusal };
  const ticket = randomBytes(16).toString("hex");
  const pause = { beganMs: 0 };
  const given = new AbortController();
  let asked = false;
  try {
    requireVersion(await host.rehearse());
    await host.giveBack?.sync();
    const state = await bringToRest(host, pause);
    checkSize(state, lineBytesMax);
    if (host.giveBack !== null) return await giveDiskBack(host, host.giveBack, { state, sinceMs: pause.beganMs });
    asked = true;
    const refused = await depositInTime(host.deposit(depositOf(state, ticket), given.signal));
    if (refused !== "") throw notNow(`the owner does not keep what this mount has: ${refused}`);
    const changed = host.refusal() ?? (host.ownerEpoch() === state.ownerEpoch ? null : "the volume has another owner now");
    if (changed !== null) throw notNow(changed);
    return letGo(host, { state: { ...state, custody: ticket }, sinceMs: pause.beganMs });
  } catch (error) {
    given.abort();
    if (asked) host.collect(ticket);
    host.restEnds();
    host.handOff.goOn();
    const why = wordsOf(error);
    host.log.warn({ why }, "the mount does not pause, and goes on");
    return { kind: "failed", why };
  }
}

export interface AloneHost extends PauseHost {
  /** Nobody gets a lock any more that is not here, and what ends by that has no answer: the kernel is to send it again. */
  readonly beAlone: () => void;
  /** Requests that have no answer by that; null: one of them has changed something, and must not be made again. */
  readonly left: () => number | null;
  /** Changes are written down before they are made: else nobody knows whether one of those has changed something. */
  readonly notesChanges: boolean;
  /** The kernel can send requests again (FUSE_NOTIFY_RESEND). */
  readonly resends: boolean;
  /** Resolves with true when dlmd is dead, with false if it lives: then its word of this mount's locks counts, and not the lease. */
  readonly isDlmdDead: () => Promise<boolean>;
}

/**
 * The same after the death of dlmd, in the time that its lease leaves (hazard F42): so long no other node has any of these locks. Rejects with why the mount ends: there is no way
 * back, since this process has no locks any more.
 */
export async function pauseWithoutDlmd(host: AloneHost, lineBytesMax: number = LINE_BYTES_MAX): Promise<Paused> {
  const ticket = randomBytes(16).toString("hex");
  const pause = { beganMs: 0 };
  const given = new AbortController();
  let asked = false;
  // From now on dlmd answers nothing that a request asks.
  host.handOff.hold(host.rules);
  try {
    // One that lives has given its locks away by now, whatever the lease.
    if (!(await host.isDlmdDead())) throw lost("dlmd has ended the connection, and lives");
    // What is left to be synced when its disk is given back is little then.
    host.giveBack
      ?.sync()
      .catch((error: unknown) => host.log.warn({ error: wordsOf(error) }, "the disk could not be synced before it is given back"));
    host.beAlone();
    const state = await bringToRest(host, pause);
    const left = host.left();
    if (left === null || (left > 0 && !host.notesChanges)) throw lost("a change was under way that must not be made twice");
    if (left > 0 && !host.resends) throw lost("calls waited for locks, and this kernel cannot send them again (before Linux 6.9)");
    const rest = { ...state, again: left > 0, held: left > 0 ? [] : state.held };
    const deposit = { ...depositOf(state, ticket), dlmdDied: true };
    if (host.giveBack !== null) {
      const isShared = host.giveBack.leave !== null;
      const given = afterGivingBack({ ...rest, custody: isShared ? ticket : null });
      checkSize(given, lineBytesMax);
      await giveBackWithoutDlmd(host, host.giveBack, deposit);
      host.leaveStatus();
      const restMs = Math.round(performance.now() - pause.beganMs);
      host.log.info({ restMs, left, isShared }, "all is given up, and the disk is given back");
      return { state: given, sinceMs: pause.beganMs };
    }
    const paused = { ...rest, custody: ticket };
    checkSize(paused, lineBytesMax);
    asked = true;
    const answer = depositInTime(host.deposit(deposit, given.signal));
    const refused = await Promise.race([answer, untilRefused(host, given.signal)]);
    if (refused !== "") throw lost(`the owner does not keep what this mount has: ${refused}`);
    const changed = host.refusal() ?? (host.ownerEpoch() === state.ownerEpoch ? null : "the volume has another owner now");
    if (changed !== null) throw lost(changed);
    given.abort();
    host.leaveStatus();
    const restMs = Math.round(performance.now() - pause.beganMs);
    const { tokens, locked, sharedLocks, shared } = deposit;
    const kept = { tokens: tokens.length, locked: locked.length, sharedLocks: sharedLocks.length, shared: shared.length };
    host.log.info({ restMs, left, ...kept }, "all is given up, and the owner keeps what nobody may have meanwhile");
    return { state: paused, sinceMs: pause.beganMs };
  } catch (error) {
    given.abort();
    if (asked) host.collect(ticket);
    throw error;
  }
}

/**
 * An owner. Somebody who shares the volume has to keep in time what this mount has. Then its disk is given back, for which there is time: the owner's block names this process until
 * it is.
 */
async function giveBackWithoutDlmd(host: AloneHost, giveBack: GiveBack, deposit: RequestOf<"deposit">): Promise<void> {
  if (giveBack.leave !== null) {
    const over = new AbortController();
    void untilRefused(host, over.signal).then(() => over.abort());
    const why = await giveBack.leave(deposit, over.signal);
    over.abort();
    if (why !== "") {
      giveBack.takeBack(deposit.ticket);
      throw lost(`nobody keeps what this mount has: ${why}`);
    }
  }
  await diskInTime(giveBack);
}

/** Where the next owner follows on a disk that this one has left clean, nothing that was changed here is lost. */
function afterGivingBack(state: RestartState): RestartState {
  return { ...state, gaveBack: true, unsynced: { ...state.unsynced, changed: [] } };
}

/** From here on this process does not go on by itself. */
async function giveDiskBack(host: PauseHost, giveBack: GiveBack, { state, sinceMs }: Paused): Promise<Paused | NotPaused> {
  try {
    await diskInTime(giveBack);
    host.leaveStatus();
    await giveBack.dlmd();
    return { state: afterGivingBack(state), sinceMs };
  } catch (error) {
    return endsWith(host, wordsOf(error));
  }
}

/** Programs whose calls wait cannot be killed meanwhile: their mount ends at the limit. */
async function diskInTime({ disk }: GiveBack): Promise<void> {
  const given = disk().catch((error: unknown) => {
    throw lost(`the disk could not be given back: ${wordsOf(error)}`);
  });
  if (!(await inTime(given, GIVE_BACK_LIMIT_MS))) throw lost(`the disk could not be unmounted in ${GIVE_BACK_LIMIT_MS / 1000} s`);
}

/** The lease ends: nobody need wait for the answer any more. Never resolves with anything else. */
async function untilRefused({ refusal }: Pick<PauseHost, "refusal">, over: AbortSignal): Promise<string> {
  for (;;) {
    if (over.aborted) return "";
    const why = refusal();
    if (why !== null) return why;
    await new Promise((resolve) => setTimeout(resolve, DEPOSIT_LOOK_MS));
  }
}

function lost(why: string): OperatingError {
  return new OperatingError(why, { code: "pause-failed", hint: "umount -l, and mount again." });
}

/** What a line has beside the state. */
const HEAD_OF_LINE = 64;

/** The next process takes it in one line, in base64. */
function checkSize(state: RestartState, bytesMax: number): void {
  const bytes = Math.ceil((encodeState(state).length * 4) / 3);
  if (bytes + HEAD_OF_LINE > bytesMax) throw notNow(`the kernel knows too many files of this mount: its state has ${bytes} characters`);
}

/** From here on this process does not go on by itself. */
function letGo(host: PauseHost, paused: Paused): Paused | NotPaused {
  host.leaveStatus();
  try {
    host.giveLocks();
    return paused;
  } catch (error) {
    return endsWith(host, `the locks of this mount could not be given up: ${wordsOf(error)}`);
  }
}

function endsWith(host: PauseHost, why: string): NotPaused {
  host.fail(new OperatingError(why, { code: "restart-lost", hint: "umount (-l), and mount again." }));
  return { kind: "lost", why };
}

/** Resolves with the versions of states that it knows, when it has reached all that it will need. */
export async function rehearse(next: NextProcess): Promise<readonly number[]> {
  const channel = new Channel(next.stream);
  next.failed(() => channel.close());
  try {
    const { versions } = await channel.expect("hello", HELLO_LIMIT_MS);
    // It leaves dlmd and its groups by itself. One that hangs there is ended below.
    await Promise.race([channel.closed, new Promise((resolve) => setTimeout(resolve, END_LIMIT_MS).unref())]);
    return versions;
  } finally {
    channel.close();
    next.end();
  }
}

function depositInTime(asked: Promise<string>): Promise<string> {
  return new Promise((resolve, reject) => {
    const late = (): void => reject(notNow(`the owner has not taken what this mount has in ${DEPOSIT_LIMIT_MS / 1000} s`));
    const timer = setTimeout(late, DEPOSIT_LIMIT_MS);
    asked.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
