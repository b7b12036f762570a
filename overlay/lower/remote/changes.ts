/**
 * Changes that this node makes at the owner: what is known of their inodes beside and after them (known.ts, hazard F21), and what of them may not be on the
 * owner's disk yet (unsynced.ts, hazard F10).
 */
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import type { Attr, FileId } from "../lower.ts";
import { type Changed, type LossesTold, Unsynced } from "../unsynced.ts";
import type { Change, KnownInodes } from "./known.ts";
import type { RemoteSession } from "./session.ts";
import type { WritesBehind } from "./write-behind.ts";

export class Changes {
  readonly unsynced: Unsynced = new Unsynced();
  readonly #session: RemoteSession;
  readonly #known: KnownInodes;
  readonly #behind: WritesBehind;
  readonly #log: Log;
  readonly #open: () => readonly LossesTold[];
  #syncing = false;

  /** `open`: files that are open here. */
  constructor(session: RemoteSession, known: KnownInodes, behind: WritesBehind, log: Log, open: () => readonly LossesTold[]) {
    this.#session = session;
    this.#known = known;
    this.#behind = behind;
    this.#log = log;
    this.#open = open;
  }

  /** A change was made, and may not be on disk. */
  note(id: FileId, what: Changed, at?: number): void {
    if (this.unsynced.note(id, what, at) && !this.#syncing) void this.#syncInBackground();
  }

  /** Hazard F30: fsync of a file brings its names to the disk, too. */
  noteName(id: FileId, directories: readonly FileId[]): void {
    if (this.unsynced.noteName(id, directories) && !this.#syncing) void this.#syncInBackground();
  }

  async #syncInBackground(): Promise<void> {
    this.#syncing = true;
    try {
      await this.#syncAll();
    } catch (error) {
      this.#log.warn({ error: String(error) }, "background sync of the lower failed");
    } finally {
      this.#syncing = false;
    }
  }

  async #syncAll(): Promise<void> {
    const since = this.unsynced.now();
    const behind = this.#behind.over();
    try {
      await this.#session.call("syncfs", undefined);
    } catch (error) {
      // Hazard H8: the next one may say 0 of it.
      this.unsynced.syncFailed(this.#open());
      throw error;
    }
    await behind;
    this.unsynced.allSynced(since);
  }

  /** As syncfs(2), of what a process before this one has changed: no program is told by it what was lost. */
  syncBefore(): Promise<void> {
    return this.#syncAll();
  }

  async syncfs(): Promise<void> {
    let wasLost = false;
    try {
      await this.#syncAll();
    } finally {
      // Its caller is told by the one or by the other.
      wasLost = this.unsynced.takeAnyLost();
    }
    if (wasLost) throw errnoError(E.EIO);
  }

  /** `call` changes something of that inode, and says nothing of it. */
  of<T>(id: FileId, call: () => Promise<T>): Promise<T> {
    return this.ofOne(this.#known.begin(id), call, () => null);
  }

  /** `call` makes an extended attribute of that inode, or takes one away. */
  ofXattrs<T>(id: FileId, call: () => Promise<T>): Promise<T> {
    return this.ofOne(this.#known.beginXattrs(id), call, () => null);
  }

  /** `call` is that change of an inode; `attrOf` what its answer says of it. */
  async ofOne<T>(change: Change, call: () => Promise<T>, attrOf: (answer: T) => Attr | null): Promise<T> {
    let attr: Attr | null = null;
    try {
      const answer = await call();
      attr = attrOf(answer);
      return answer;
    } finally {
      this.#known.end(change, attr);
    }
  }

  /** `call` changes the names of that directory; `named`: whose `name` is then. */
  async ofName<T extends { readonly parent: Attr | null }>(
    parent: FileId,
    name: Buffer,
    named: (answer: T) => FileId | null,
    call: (tellParent: boolean) => Promise<T>,
  ): Promise<T> {
    const change = this.#known.begin(parent, name);
    let told: Attr | null = null;
    let id: FileId | null | undefined;
    try {
      const answer = await call(this.#known.wantsAttr(change));
      this.note(parent, "all");
      told = answer.parent;
      id = named(answer);
      return answer;
    } finally {
      this.#known.end(change, told, ...(id === undefined ? [] : [id]));
    }
  }
}
