/** What the parts of the remote lower share, and what becomes of it at a new owner: what is open is opened again, what was known is forgotten. */
import { assert } from "../../../dlmd/base/assert.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import { inTime, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import type { OpenFile } from "../lower.ts";
import type { Unsynced, UnsyncedState } from "../unsynced.ts";
import type { Welcome } from "../wire/handshake.ts";
import { Changes } from "./changes.ts";
import { DataAhead } from "./data-ahead.ts";
import type { FileJournal } from "../own-journal.ts";
import type { OpenBefore } from "./handles.ts";
import { type Holds, KnownInodes, NO_HOLDS } from "./known.ts";
import { Opens } from "./opens.ts";
import { type CallFirst, RemoteSession, type RemoteSessionOptions } from "./session.ts";
import { WritesBehind } from "./write-behind.ts";

/** Calls to a new owner wait so long until nobody goes on with what was read from the last one: a page of it may be held by a call that waits. */
const FORGET_MS = 1000;

export interface RemoteCoreOptions extends RemoteSessionOptions {
  /** Under which locks something may be known without asking; absent: none. */
  readonly holds?: Holds;
  /** For a process that goes on after a crash of this one. */
  readonly files?: FileJournal;
}

/** What a mount has had at an owner in its own process that withdrew. */
export interface Adopted {
  readonly handles: readonly OpenFile[];
  /** Calls that go on may name those up to this one, though they are closed: their callers were killed. */
  readonly lastHandle: number;
  readonly unsynced: Unsynced;
  readonly epoch: number;
}

/** What a process of this mount has at the present owner, for the next process. */
export interface OpenAtOwner {
  readonly files: readonly OpenBefore[];
  readonly unsynced: UnsyncedState;
}

export class RemoteCore {
  readonly log: Log;
  readonly session: RemoteSession;
  readonly known: KnownInodes;
  readonly behind: WritesBehind = new WritesBehind(() => performance.now());
  readonly changes: Changes;
  readonly opens: Opens;
  readonly ahead: DataAhead;
  readonly #options: RemoteCoreOptions;
  #welcome: Welcome | null = null;
  /** All that the last owner answered is on disk. */
  #synced = false;

  constructor(options: RemoteCoreOptions) {
    this.#options = options;
    this.log = options.log;
    this.known = new KnownInodes(options.holds ?? NO_HOLDS, () => this.#welcome?.exclusive === true);
    this.session = new RemoteSession(options, {
      welcome: (welcome) => this.#receiveWelcome(welcome),
      newOwner: (first, kept, callFirst) => this.#enterNewOwner(first, kept, callFirst),
      // Answers that came with it are noted after this turn.
      farewell: () => {
        this.#synced = true;
        setImmediate(() => this.#allSynced());
      },
    });
    this.changes = new Changes(this.session, this.known, this.behind, this.log, () => this.opens.handles.all());
    this.opens = new Opens(this.session, this.known, this.behind, this.changes, this.log, options.files ?? null);
    this.ahead = new DataAhead(this.session, this.known);
  }

  /** What was open and changed at an owner in this process, before anything else. */
  adopt({ handles, lastHandle, unsynced, epoch }: Adopted): void {
    this.opens.handles.beginAfter(lastHandle);
    this.continueWith({ files: handles.map((file) => ({ ...file, lossesTold: 0 })), unsynced: unsynced.state() });
    this.session.continueFrom(epoch);
  }

  /** null: something is under way, or a file could not be opened at this owner. */
  openAtOwner(): OpenAtOwner | null {
    if (this.behind.over() !== undefined || this.brokenFiles > 0) return null;
    const files = this.opens.handles.all();
    return {
      files: files.map(({ handle, id, flags, directory, lossesTold }) => ({ handle, id, flags, directory, lossesTold })),
      unsynced: this.changes.unsynced.state(),
    };
  }

  /** What the process before has open at the present owner. Before `connect`, which opens them. */
  continueWith({ files, unsynced }: OpenAtOwner): void {
    for (const file of files) this.opens.handles.adopt(file);
    this.changes.unsynced.restore(unsynced);
  }

  /** Files that the owner could not open. */
  get brokenFiles(): number {
    return this.opens.handles.all().filter(({ error }) => error !== null).length;
  }

  get welcome(): Welcome {
    assert(this.#welcome !== null, "the remote lower is asked about the volume before it was connected");
    return this.#welcome;
  }

  #receiveWelcome(welcome: Welcome): void {
    const before = this.#welcome;
    this.#welcome ??= welcome;
    if (before === null) return;
    const same = before.root.ino === welcome.root.ino && before.root.generation === welcome.root.generation;
    assert(same, `the volume's root was inode ${before.root.ino}, the new owner has ${welcome.root.ino}: another file system`);
  }

  /** `kept`: all that the last owner had executed is on the disk. */
  async #enterNewOwner(first: boolean, kept: boolean, callFirst: CallFirst): Promise<void> {
    const forgotten = first ? undefined : this.#leaveLastOwner(kept);
    await Promise.all([forgotten, this.opens.reopen(callFirst)]);
    await callFirst("claimed", undefined);
  }

  /** Resolves when nobody goes on with what was read from it. */
  #leaveLastOwner(kept: boolean): MaybePromise<unknown> {
    this.known.clear();
    this.behind.room.endAll();
    if (kept) this.#allSynced();
    const handles = this.opens.handles.all();
    const unsynced = this.changes.unsynced.ownerDied(handles);
    this.log.info({ handles: handles.length, unsynced, kept }, "new owner: opening handles again");
    // Once more: what it had answered may have been told to somebody only after it was lost.
    const forgotten = this.#synced ? undefined : inTime(this.#forget(), FORGET_MS);
    this.#synced = false;
    return forgotten;
  }

  ownerLost(): void {
    const served = this.#welcome !== null && !this.session.ownerless;
    this.session.ownerLost();
    this.known.clear();
    // Now, and not when there is another one: programs there see at once what is left.
    if (served && !this.#synced) void this.#forget();
  }

  /** What was read from the last owner. */
  async #forget(): Promise<void> {
    await this.#options.onOwnerDied?.();
  }

  #allSynced(): void {
    this.changes.unsynced.allSynced(this.changes.unsynced.now());
  }

  shutdown(): void {
    this.opens.stop();
    this.session.close();
  }
}
