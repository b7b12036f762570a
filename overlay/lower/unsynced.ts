/**
 * What an owner has answered and not yet said to be on disk (hazard F10): data and attributes of files, names and attributes of directories. If that owner dies, it may
 * be lost, and an fsync at the next owner would find nothing to write and succeed: so it reports EIO, as Linux does after a failed write-back (lib/errseq.c):
 * once for each file or directory that was open then, whoever else was told; and if nobody was, to the first who opens it later. Changes of this node
 * only: what another one has made is asked for there. To be replaced by replay (DESIGN 7).
 */
import { FileIdMap } from "./file-id-map.ts";
import { type FileId, fileKey, ofFileKey } from "./lower.ts";

/** With that many files and directories the lower is synced in the background. */
export const MAX_UNSYNCED = 65_536;
/** Losses that nobody waits for who had the file open; beyond, the oldest are told nobody. */
export const MAX_LOST = 65_536;

/** "data": and the size, which fdatasync(2) brings to the disk. */
export type Changed = "data" | "all";

interface Change {
  readonly id: FileId;
  /** The last one. */
  at: number;
  what: Changed;
  /** Its data, too. */
  data: boolean;
}

/** Of one file, the last time that something was lost with an owner. */
interface Loss {
  readonly death: number;
  /** To somebody. */
  told: boolean;
  /** Its data, too: not its attributes or names alone. */
  readonly data: boolean;
}

/** What an open file has been told. */
export interface LossesTold {
  readonly id: FileId;
  /** It has been told of losses up to that owner's death. */
  lossesTold: number;
}

/** `data`: without it, of a process that does not tell: true. */
type Kept<T> = Readonly<Omit<T, "data">> & { readonly data?: boolean | undefined };

interface Named {
  readonly id: FileId;
  /** The last time. */
  readonly at: number;
  /** Then. What was before is on the disk as soon as that is: it is one journal. */
  readonly directories: readonly FileId[];
}

interface Directory {
  readonly id: FileId;
  readonly named: Set<Named>;
}

/**
 * Hazard F30. Names that files and directories got by link(2) and rename(2). An fsync of the file brings its names to the disk, and so does one of a
 * directory in which the change was.
 */
class UnsyncedNames {
  readonly #named = new FileIdMap<Named>();
  readonly #directories = new FileIdMap<Directory>();

  get size(): number {
    return this.#named.size;
  }

  values(): IterableIterator<Named> {
    return this.#named.values();
  }

  note(named: Named): void {
    const before = this.#named.get(named.id);
    if (before !== undefined) this.#drop(before);
    this.#named.add(named);
    for (const id of named.directories) {
      let directory = this.#directories.get(id);
      if (directory === undefined) this.#directories.add((directory = { id, named: new Set() }));
      directory.named.add(named);
    }
  }

  /** That file or directory was synced, by a sync that began then. */
  synced(id: FileId, since: number): void {
    if (this.#named.size === 0) return;
    const its = this.#named.get(id);
    if (its !== undefined) this.#dropUntil(its, since);
    for (const named of this.#directories.get(id)?.named ?? []) this.#dropUntil(named, since);
  }

  allSynced(since: number): void {
    for (const named of this.#named.values()) this.#dropUntil(named, since);
  }

  clear(): void {
    this.#named.clear();
    this.#directories.clear();
  }

  #dropUntil(named: Named, since: number): void {
    if (named.at <= since) this.#drop(named);
  }

  #drop(named: Named): void {
    this.#named.delete(named);
    for (const id of named.directories) {
      const directory = this.#directories.get(id);
      if (directory?.named.delete(named) === true && directory.named.size === 0) this.#directories.delete(directory);
    }
  }
}

/** All of an `Unsynced`, as plain data. */
export interface UnsyncedState {
  /** `named`: a name alone, changed in these directories. */
  readonly changed: readonly (readonly [string, Kept<Omit<Change, "id">> & { readonly named?: readonly string[] | undefined }])[];
  /** `behind`: not told. */
  readonly lost: readonly (readonly [string, Kept<Loss> & { readonly behind: boolean }])[];
  readonly deaths: number;
  readonly syncfsFails: boolean;
  readonly tick: number;
}

export class Unsynced {
  readonly #changed = new FileIdMap<Change>();
  readonly #names = new UnsyncedNames();
  /** The oldest first. */
  readonly #lost: Map<string, Loss> = new Map();
  #deaths = 0;
  #syncfsFails = false;
  #tick = 0;

  /** For another process of this mount. */
  state(): UnsyncedState {
    const lost = [...this.#lost].map(([key, loss]) => [key, { ...loss, behind: !loss.told }] as const);
    const changed = [...this.#changed.values()].map(({ id, ...change }) => [fileKey(id), change] as const);
    const names = [...this.#names.values()].map(
      ({ id, at, directories }) => [fileKey(id), { at, what: "all", data: false, named: directories.map(fileKey) }] as const,
    );
    return { changed: [...changed, ...names], lost, deaths: this.#deaths, syncfsFails: this.#syncfsFails, tick: this.#tick };
  }

  /** Before anything else. */
  restore({ changed, lost, deaths, syncfsFails, tick }: UnsyncedState): void {
    for (const [key, { at, what, data = true, named }] of changed) {
      if (named === undefined) this.#changed.add({ id: ofFileKey(key), at, what, data });
      else this.#names.note({ id: ofFileKey(key), at, directories: named.map(ofFileKey) });
    }
    for (const [key, { death, told, data = true }] of lost) this.#lost.set(key, { death, told, data });
    this.#deaths = deaths;
    this.#syncfsFails = syncfsFails;
    this.#tick = tick;
  }

  /** Now; what is noted later is not covered by a sync that starts now. */
  now(): number {
    return this.#tick;
  }

  /** Something was lost, and who has it open, opens it first, or syncs all has not been told. */
  hasLosses(open: readonly LossesTold[]): boolean {
    if (this.#syncfsFails || this.#lost.size === 0) return this.#syncfsFails;
    for (const { told } of this.#lost.values()) if (!told) return true;
    return open.some((file) => this.#isUntold(file));
  }

  /** Files and directories that are not known to be on disk, and names that are not. */
  get size(): number {
    return this.#changed.size + this.#names.size;
  }

  /** A change begins, and syncs that begin from now on come after it: for `note`. */
  begin(): number {
    this.#tick += 1;
    return this.#tick;
  }

  /** True: it is time to sync everything. */
  note(id: FileId, what: Changed, at: number = this.begin()): boolean {
    const change = this.#changed.get(id);
    const data = what === "data";
    if (change === undefined) this.#changed.add({ id, at, what, data });
    else {
      change.at = Math.max(at, change.at);
      if (what === "all") change.what = "all";
      if (data) change.data = true;
    }
    return this.size >= MAX_UNSYNCED;
  }

  /** That file or directory got a name, or lost one, by a change of these directories. True: it is time to sync everything. */
  noteName(id: FileId, directories: readonly FileId[]): boolean {
    this.#names.note({ id, at: this.begin(), directories });
    return this.size >= MAX_UNSYNCED;
  }

  /** Of a directory: the names that were changed in it, too. */
  synced(id: FileId, since: number, dataOnly: boolean): void {
    if (!dataOnly) this.#names.synced(id, since);
    const change = this.#changed.get(id);
    if (change === undefined || change.at > since) return;
    change.data = false;
    if (!dataOnly || change.what === "data") this.#changed.delete(change);
  }

  allSynced(since: number): void {
    for (const change of this.#changed.values()) if (change.at <= since) this.#changed.delete(change);
    this.#names.allSynced(since);
  }

  /**
   * A sync of all has failed: what was changed may be lost, and no later sync says so (hazard H8). So may be what was changed since that began: what goes wrong
   * until it ends is told to it. `open`: all that are open.
   */
  syncFailed(open: readonly LossesTold[]): void {
    this.#loseAll(open);
    this.#syncfsFails = true;
  }

  #loseAll(open: readonly LossesTold[]): void {
    this.#deaths += 1;
    for (const { id, data } of this.#changed.values()) this.#lose(id, data);
    for (const { id } of this.#names.values()) this.#lose(id, false);
    this.#changed.clear();
    this.#names.clear();
    this.#forgetOldest(new Set(open.map(({ id }) => fileKey(id))));
  }

  /** The owner that had them is gone. Gives how many. `open`: all that are open. */
  ownerDied(open: readonly LossesTold[]): number {
    const count = this.size;
    const waiting = new Set(open.filter((file) => this.#isUntold(file)).map(({ id }) => fileKey(id)));
    for (const [key, loss] of this.#lost) if (loss.told && !waiting.has(key)) this.#lost.delete(key);
    this.#loseAll(open);
    if (count > 0) this.#syncfsFails = true;
    return count;
  }

  /** Of that one something that was made behind is lost: its data, or not. `open`: as above. */
  lost(id: FileId, data: boolean, open: readonly LossesTold[]): void {
    this.#deaths += 1;
    this.#lose(id, data);
    this.#forgetOldest(new Set(open.map((file) => fileKey(file.id))));
    this.#syncfsFails = true;
  }

  #lose(id: FileId, data: boolean): void {
    const key = fileKey(id);
    const before = this.#lost.get(key);
    this.#lost.delete(key);
    this.#lost.set(key, { death: this.#deaths, told: false, data: data || (before?.told === false && before.data) });
  }

  #forgetOldest(open: ReadonlySet<string>): void {
    if (this.#lost.size <= MAX_LOST) return;
    const closed = [...this.#lost.keys()].filter((key) => !open.has(key));
    for (const key of closed.slice(0, Math.max(0, closed.length - MAX_LOST))) this.#lost.delete(key);
  }

  /** `lossesTold` of one that is opened now. */
  opened(id: FileId): number {
    return this.#lossOf(id)?.told === false ? 0 : this.#deaths;
  }

  #lossOf(id: FileId): Loss | undefined {
    return this.#lost.size > 0 ? this.#lost.get(fileKey(id)) : undefined;
  }

  #isUntold({ id, lossesTold }: LossesTold): boolean {
    return (this.#lossOf(id)?.death ?? 0) > lossesTold;
  }

  /** True once for an open file of which something may be lost. */
  takeLost(file: LossesTold): boolean {
    const loss = this.#lossOf(file.id);
    if (loss === undefined || loss.death <= file.lossesTold) return false;
    file.lossesTold = loss.death;
    loss.told = true;
    return true;
  }

  /** True once after data of it may have been lost, if nobody was told. Files that are open are told all the same. */
  takeUntoldData(id: FileId): boolean {
    const loss = this.#lossOf(id);
    if (loss?.told !== false || !loss.data) return false;
    loss.told = true;
    return true;
  }

  /** True once after something may have been lost; that is told of each file all the same. */
  takeAnyLost(): boolean {
    const any = this.#syncfsFails;
    this.#syncfsFails = false;
    return any;
  }
}
