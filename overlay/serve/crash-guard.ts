/**
 * What lets another process go on with a mount if this one crashes (overlay/crash/, hazard F39): the journal, the keeper, and when they are of use. As long as they are not, a crash
 * ends the mount: the keeper lets go at once, and dlmd gives its locks away.
 */
import { randomBytes } from "node:crypto";
import { closeSync, openSync } from "node:fs";
import { OperatingError } from "../../dlmd/base/error.ts";
import { leaseFile } from "../lease/lease.ts";
import { errnoName } from "../../dlmd/base/errno.ts";
import type { Log } from "../../dlmd/base/log.ts";
import type { DlmClient } from "../../dlmd/client/api.ts";
import { connectDlm } from "../../dlmd/client/client.ts";
import type { Native } from "../../native/index.ts";
import { AfterCrash } from "../crash/after-crash.ts";
import type { Constants } from "../crash/before.ts";
import { thisProcess } from "../crash/former-process.ts";
import { Journal } from "../crash/journal.ts";
import { JournalLocks } from "../crash/locks.ts";
import { cannotGoOn, CRASH_KEPT_MS, JOURNAL_FD, Keeper } from "../crash/keeper.ts";
import { JOURNAL_BYTES } from "../crash/layout.ts";
import { negotiatedState } from "../restart/tables.ts";
import { OTHER_OWNER } from "../restart/take.ts";
import type { Negotiated } from "../fuse/init.ts";

/** How often it is looked whether a crash would be a pause now: besides whenever the mount's role changes, and at each file lock. */
export const CRASH_LOOK_MS = 1000;
/** So often where it would not, or for another reason than before: what passes, as a change of the owner, is over without a word ... */
export const CRASH_LOOK_SOON_MS = 20;
/** ... for so long. */
export const CRASH_LOOK_SOON_FOR_MS = 30_000;

/** No other process could go on either. */
const FINAL_CODES: ReadonlySet<string> = new Set(["bad-journal", "crash-lost", "interrupted", OTHER_OWNER]);

/** The keeper holds a connection to dlmd: when it lets go of the mount, dlmd gives all away. */
const HELD = { held: true };

/** Of a process that the keeper has started, and that does not serve. `keeper`: null: its line is as this process got it. */
export function tellKeeper(error: unknown, keeper: Keeper | null = null): void {
  if (!(error instanceof OperatingError) || !FINAL_CODES.has(error.code)) return;
  if (keeper === null) cannotGoOn();
  else keeper.cannotGoOn();
}

export interface CrashGuardHost {
  readonly native: Native;
  readonly log: Log;
  readonly dlmdSocket: string;
}

/** The mount, once it answers. */
export interface Guarded {
  readonly client: DlmClient;
  /** /dev/fuse */
  readonly fuseFd: number;
  readonly connection: number;
  readonly negotiated: Negotiated;
  /** Why a crash ends the mount now, in words; null: it does not. */
  readonly why: () => string | null;
  /** null: there is no owner. */
  readonly ownerEpoch: () => number | null;
  /** This process is the owner. */
  readonly isOwner: () => boolean;
  readonly hasOwned: () => boolean;
}

/** A look that cannot be made (EMFILE) is a reason, and no failure of the mount. */
function whyOf(guarded: Guarded): string | null {
  try {
    return guarded.why();
  } catch (error) {
    return `it cannot be seen whether another process could go on: ${error instanceof Error ? error.message : String(error)}`;
  }
}

export class CrashGuard {
  /** ConnectOptions.owner of all connections of this mount. */
  readonly key: string;
  /** null: there is no memory for one. */
  readonly journal: Journal | null;
  readonly locks: JournalLocks | null;
  /** This process goes on after a crash. */
  readonly afterCrash: AfterCrash | null;
  readonly #host: CrashGuardHost;
  /** Looked at once: later there may be no descriptor for it. */
  readonly #self = thisProcess();
  readonly #memfd: number;
  #guarded: Guarded | null = null;
  #keeper: Keeper | null = null;
  #companion: DlmClient | null = null;
  #writtenEpoch: number | null = null;
  #timer: NodeJS.Timeout | null = null;
  #soon: NodeJS.Timeout | null = null;
  /** performance.now() */
  #soonUntilMs = 0;
  #why = "the mount does not answer yet";
  #isKeeperGone = false;
  #serves = false;
  #over = false;

  /** `resumes`: the keeper has started this process after a crash. Throws OperatingError "bad-journal". */
  constructor(host: CrashGuardHost, resumes: boolean) {
    const { native, log } = host;
    this.#host = host;
    this.#memfd = resumes ? JOURNAL_FD : native.memfdCreate("coverlay-journal", JOURNAL_BYTES);
    const memory = this.#memfd < 0 ? this.#memfd : native.mapJournal(this.#memfd, JOURNAL_BYTES);
    if (typeof memory === "number") {
      if (resumes)
        throw new OperatingError(`the journal cannot be mapped: ${errnoName(-memory)}`, { code: "bad-journal", hint: "Mount again." });
      log.warn({ error: errnoName(-memory) }, "no memory for a journal: a crash of this process ends the mount");
      this.journal = null;
      this.locks = null;
      this.afterCrash = null;
      this.key = randomBytes(32).toString("hex");
      return;
    }
    this.locks = new JournalLocks(memory);
    this.afterCrash = resumes ? new AfterCrash(memory, this.locks) : null;
    this.journal = new Journal(memory, log);
    if (this.afterCrash !== null) {
      this.journal.goOn(this.afterCrash.before.rows);
      this.#keeper = Keeper.inherited(log, () => this.#keeperGone());
      this.#writtenEpoch = this.afterCrash.before.constants.ownerEpoch;
    }
    this.key = this.afterCrash?.before.constants.key ?? randomBytes(32).toString("hex");
  }

  /** It does so, and does not serve yet. */
  get resumes(): boolean {
    return this.afterCrash !== null && !this.#serves && !this.#over;
  }

  /** It can not go on with the mount: another process may, if that is of any use. */
  failed(error: unknown): void {
    if (this.resumes) tellKeeper(error, this.#keeper);
  }

  /** In words; null: a crash of this process is a pause. */
  get why(): string | null {
    return this.#why === "" ? null : this.#why;
  }

  /** At once after the connection: from now on, if this process crashes, nothing of it is given away before the keeper lets go. */
  connected(client: DlmClient): void {
    const { journal } = this;
    if (journal !== null) journal.client = client.info.clientId;
    if (this.afterCrash !== null) this.#keep(client, CRASH_KEPT_MS);
  }

  /** The mount answers, and can never be gone on with. */
  never(why: string): void {
    this.#why = why;
    if (this.journal !== null) this.journal.wanted = false;
  }

  /** The mount answers. */
  async begin(guarded: Guarded): Promise<void> {
    try {
      await this.#begin(guarded);
    } catch (error) {
      this.never(`no keeper could be started: ${error instanceof Error ? error.message : String(error)}`);
      this.#host.log.warn({ why: this.#why }, "a crash of this process ends the mount");
    }
  }

  async #begin(guarded: Guarded): Promise<void> {
    const { journal } = this;
    const { log, dlmdSocket } = this.#host;
    if (journal === null) return;
    if (!guarded.negotiated.incEpoch) {
      this.never("this kernel cannot drop all names of a mount at once (FUSE 7.44, Linux 6.16)");
      return;
    }
    if (this.#keeper === null) {
      this.#companion = await connectDlm(dlmdSocket, { view: () => {}, gone: async () => {}, disconnected: () => {} }, { owner: this.key });
      if (this.#over) return this.#close();
      await guarded.client.keepLocks(CRASH_KEPT_MS, HELD);
      journal.servingClient = guarded.client.info.clientId;
      journal.connection = guarded.connection;
      const lease = openSync(leaseFile(dlmdSocket), "r");
      try {
        const held = [guarded.fuseFd, this.#memfd, this.#companion.descriptor, lease] as const;
        this.#keeper = Keeper.start(log, held, () => this.#keeperGone());
      } finally {
        closeSync(lease);
      }
    }
    if (this.#isKeeperGone) return;
    this.#guarded = guarded;
    this.#timer = setInterval(() => this.review(), CRASH_LOOK_MS).unref();
    this.review();
  }

  /**
   * After a crash: all that was changed at the owner with that epoch is on the disk, and this process may have that mounted in the next moment. The next process has to know it, should
   * this one crash, too.
   */
  foundClean(epoch: number): void {
    const { afterCrash } = this;
    if (!this.resumes || afterCrash?.before.constants.ownerEpoch !== epoch) return;
    this.#goOnWith({ ...afterCrash.before.constants, kept: true, isOwner: true, process: this.#self });
  }

  /** After a crash, before this process serves: all is open at that owner. What the next process finds was asked of that one. */
  openedAt(ownerEpoch: number, isOwner: boolean): void {
    const { afterCrash } = this;
    if (afterCrash === null) return;
    this.#goOnWith({ ...afterCrash.before.constants, ownerEpoch, isOwner, process: this.#self, kept: false });
    this.#writtenEpoch = ownerEpoch;
  }

  /** If it is killed in the turn between, the mount ends. */
  #goOnWith(constants: Constants): void {
    const { journal } = this;
    if (journal === null) return;
    journal.resumable = false;
    journal.setConstants(constants);
    journal.resumable = true;
  }

  /** After a crash: the keeper is told that it is over. */
  serving(): void {
    this.#serves = true;
    if (this.afterCrash !== null) this.#keeper?.serves();
  }

  /** A crash from this turn on ends the mount, until `review` finds that it does not. */
  notNow(): void {
    if (this.journal !== null) this.journal.resumable = false;
  }

  /** Takes effect in this turn. */
  review(): void {
    const guarded = this.#guarded;
    const { journal } = this;
    if (guarded === null || journal === null || this.#over) return;
    const epoch = guarded.ownerEpoch();
    const why = whyOf(guarded) ?? (epoch === null ? "there is no owner" : journal.isFull ? "the journal is full" : "");
    if (why !== this.#why) this.#soonUntilMs = performance.now() + CRASH_LOOK_SOON_FOR_MS;
    this.#why = why;
    if (why !== "") this.#lookSoon();
    if (why !== "" || epoch === null) {
      journal.resumable = false;
      return;
    }
    if (epoch !== this.#writtenEpoch) {
      journal.resumable = false;
      const { connection, negotiated, isOwner, hasOwned } = guarded;
      journal.setConstants({
        connection,
        ownerEpoch: epoch,
        isOwner: isOwner(),
        process: this.#self,
        kept: false,
        key: this.key,
        hasOwned: hasOwned(),
        negotiated: negotiatedState(negotiated),
      });
      this.#writtenEpoch = epoch;
    }
    journal.resumable = true;
  }

  #lookSoon(): void {
    if (this.#soon !== null || performance.now() >= this.#soonUntilMs) return;
    const look = (): void => {
      this.#soon = null;
      this.review();
    };
    this.#soon = setTimeout(look, CRASH_LOOK_SOON_MS).unref();
  }

  #keep(client: DlmClient, limitMs: number): void {
    client
      .keepLocks(limitMs, HELD)
      .catch((error: unknown) => this.#host.log.warn({ error: String(error) }, "dlmd does not keep what this mount has"));
  }

  #keeperGone(): void {
    this.#isKeeperGone = true;
    this.#why = "the keeper has ended";
    this.notNow();
    if (this.#guarded !== null) this.#keep(this.#guarded.client, 0);
    this.#guarded = null;
  }

  /** This process ends in good order, or another one has the mount. */
  end(): void {
    if (this.#over) return;
    this.#over = true;
    this.notNow();
    if (this.#timer !== null) clearInterval(this.#timer);
    if (this.#soon !== null) clearTimeout(this.#soon);
    this.#keeper?.farewell();
    this.#close();
  }

  #close(): void {
    // It may be gone with dlmd.
    this.#companion?.close().catch(() => undefined);
    this.#companion = null;
  }
}
