/** The new process after a crash: what it goes on with, and what became of the requests that the old one has not answered (README.md, hazards F38, F39). */
import { OperatingError } from "../../dlmd/base/error.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { Inode } from "../coherence/cover.ts";
import { COUNTED_FROM } from "../inode/numbers.ts";
import { decodeWith } from "../lower/wire/call-codecs.ts";
import { callOfType, CALLS } from "../lower/wire/calls.ts";
import type { MadeOutcome } from "../op/made-before.ts";
import type { RestartState } from "../restart/state.ts";
import type { RequestsBefore } from "../session/dispatch.ts";
import { type FileLockRow, lockFile } from "../file-lock/api.ts";
import { type CallBefore, type JournalBefore, readJournal, refused } from "./before.ts";
import type { Journal } from "./journal.ts";
import { JournalLocks } from "./locks.ts";

/** What dlmd keeps of the processes before. */
export interface KeptClient {
  readonly clientId: number;
  readonly locks: readonly { readonly resource: string; readonly mode: Mode }[];
}

export class AfterCrash implements RequestsBefore {
  readonly before: JournalBefore;
  readonly #made = new Map<number, MadeOutcome>();
  readonly #locks = new Map<string, Mode>();
  kept: readonly KeptClient[] = [];
  /** Through handles that are open, by files that the kernel knows. */
  readonly fileLocks: readonly FileLockRow[];
  readonly #lockedFiles: ReadonlySet<string>;

  /** `locks`: of this process. Throws OperatingError "bad-journal". */
  constructor(memory: ArrayBuffer, locks: JournalLocks = new JournalLocks(memory)) {
    this.before = readJournal(memory);
    try {
      this.fileLocks = locks.goOn(Date.now());
    } catch (error) {
      throw refused(`file locks that are damaged: ${String(error)}`);
    }
    this.#lockedFiles = new Set(this.fileLocks.map(({ file }) => file));
    for (const call of this.before.calls) if (call.request !== 0 && call.outcome !== "unknown") this.#note(call);
  }

  /** The processes before had these locks. Throws if those are not among them that cover what the kernel has. */
  inherits(kept: readonly KeptClient[]): void {
    const { servingClient, heirs } = this.before;
    const missing = [servingClient, ...heirs].find((needed) => !kept.some(({ clientId }) => clientId === needed));
    if (missing !== undefined)
      throw new OperatingError(`dlmd has given the locks of the crashed process away (client ${missing})`, {
        code: "crash-lost",
        hint: "umount -l, and mount again.",
      });
    this.kept = kept;
    for (const { locks } of kept) for (const { resource, mode } of locks) this.#locks.set(resource, mode);
  }

  isLocked(inode: Inode): boolean {
    return this.#lockedFiles.has(lockFile(inode));
  }

  /** InheritedToken.kept */
  keptOf({ cover: { key } }: Inode): { readonly token: boolean; readonly mode: Mode } {
    return { token: this.#locks.has(`w${key}`), mode: this.#locks.get(`i${key}`) ?? Mode.NL };
  }

  /** Hazard F41. Files to which something was written behind that may not have been made; programs may have closed them. */
  get writtenThrough(): ReadonlySet<number> {
    const behind = this.unknown.filter(({ request, type }) => request === 0 && callOfType(type) === "write");
    return new Set(behind.map((call) => decodeWith(CALLS.write.request, wholeBody(call)).handle));
  }

  /** Calls of which only the owner knows what became of them: those made behind first, in the order in which they were made. Of an owner nobody knows it. */
  get unknown(): readonly CallBefore[] {
    return this.before.calls.filter(({ outcome }) => outcome === "unknown").sort((a, b) => a.id - b.id);
  }

  /** The owner has said so. null: it was not made, and will not be. */
  settle(journal: Journal, call: CallBefore, outcome: { readonly failed: boolean; readonly body: Uint8Array } | null): void {
    if (outcome === null) return call.request === 0 ? journal.noteLost(call.row) : journal.replied(call.request);
    if (call.request === 0) return outcome.failed ? journal.noteLost(call.row) : journal.freeCall(call.row);
    journal.setOutcome(call.row, outcome.failed, outcome.body);
    this.#note({ ...call, outcome: outcome.failed ? "failed" : "answered", body: outcome.body });
  }

  #note({ request, type, outcome, body }: CallBefore): void {
    const bytes = body ?? new Uint8Array();
    this.#made.set(request, outcome === "failed" ? { errno: Buffer.from(bytes).readUInt32LE(0) } : { type, body: bytes });
  }

  made(request: number): MadeOutcome | null {
    return this.#made.get(request) ?? null;
  }

  givenHandle(request: number): number | null {
    const { giving } = this.before;
    return giving?.request === request ? giving.fh : null;
  }

  /** As if the process before had come to rest: but what the kernel has is not dropped yet, and what was lost or not synced is not known. */
  get state(): RestartState {
    const { constants, inodes, nextCounted, handles, nextFh, files } = this.before;
    const { connection, ownerEpoch, negotiated, hasOwned } = constants;
    const numbers = new Set(inodes.map(({ fuseNodeid }) => fuseNodeid)).add(1);
    const open = new Set(files.map(({ handle }) => handle));
    // One that was being closed, or whose inode was being told, is nobody's yet, or any more.
    const whole = handles.filter(({ fuseNodeid, lowerHandle }) => numbers.has(fuseNodeid) && open.has(lowerHandle));
    const used = new Set([...whole.map(({ lowerHandle }) => lowerHandle), ...this.writtenThrough]);
    return {
      connection,
      ownerEpoch,
      negotiated,
      hasOwned,
      inodes: [...inodes],
      nextCounted: Math.max(nextCounted, COUNTED_FROM),
      handles: whole.map((handle) => ({ ...handle, manyNew: false })),
      nextFh,
      // Whether anything was written through them is not known.
      mapped: [...new Set(whole.filter(({ mappable }) => mappable).map(({ fuseNodeid }) => fuseNodeid))],
      lates: [],
      openFiles: files.filter(({ handle }) => used.has(handle)).map((file) => ({ ...file, lossesTold: 0 })),
      unsynced: { changed: [], lost: [], deaths: 0, syncfsFails: false, tick: 0 },
      staleOnce: [],
      fileLocks: [],
      standIns: { shownTo: [], threads: [] },
      custody: null,
      gaveBack: false,
      held: [],
      again: false,
      shared: [],
    };
  }
}

/** Of a call that was made behind: what it asked for, as on the wire. */
export function wholeBody({ body, data }: CallBefore): Uint8Array {
  return Buffer.concat([body ?? new Uint8Array(), data ?? new Uint8Array()]);
}

/** For the log. */
export function foundWords({ before, kept }: AfterCrash): Readonly<Record<string, number>> {
  const { inodes, handles, calls } = before;
  const locks = kept.reduce((sum, one) => sum + one.locks.length, 0);
  return { inodes: inodes.length, files: handles.length, calls: calls.length, locks };
}
