/**
 * What another program has changed in a lower directory, past the mount. Told of a path, this looks there, and leaves out what the owner itself has done.
 * Of the rest every node gives up what it has cached. README.md has the rules; hazard R21.
 */
import { dirname, join } from "node:path";
import { setImmediate } from "node:timers/promises";
import type { Log } from "../../dlmd/base/log.ts";
import { type FileId, fileKey } from "../lower/lower.ts";
import { type OwnTimes, TICK_MS } from "./own-times.ts";

/** Paths that wait to be looked at. With more, all that is watched is looked at. */
export const QUEUE_MAX = 65_536;
/** A new directory is looked at again so long after it was seen: by then it is watched itself. */
export const SETTLE_MS = 1_000;
/** So many locks are asked for at a time. */
export const LOCKS_AT_ONCE_MAX = 64;
/** Inodes of which it is remembered which change was told: one change comes several times. */
export const TOLD_MAX = 16_384;

export interface Look {
  readonly id: FileId;
  /** ctime, in milliseconds of the real-time clock. */
  readonly changedMs: number;
}

/** Paths are relative to the lower directory; that itself is ".". */
export interface LocalChangesPorts {
  /** null: nothing is there, or it is in another file system. */
  readonly look: (path: string) => Promise<Look | null>;
  /** The names in that directory. */
  readonly list: (path: string) => Promise<readonly string[]>;
  /** All directories that are watched. */
  readonly directories: () => readonly string[];
  /** What the owner knows of that name; null: nothing. */
  readonly knownAs: (directory: FileId, name: string) => FileId | null;
  /** That name may stand for anything from now on; null: each name of that directory. */
  readonly forget: (directory: FileId, name: string | null) => void;
  /** Resolves when that inode's lock was had for a moment. */
  readonly had: (id: FileId, mode: "PR" | "EX") => Promise<void>;
  readonly nowMs: () => number;
  readonly log: Log;
  readonly times: OwnTimes;
}

interface Batch {
  readonly changed: Map<string, Look>;
  /** Directories above what has changed, from the root on. */
  readonly above: Map<string, FileId>;
}

const ROOT = ".";

export class LocalChanges {
  readonly #ports: LocalChangesPorts;
  #beganMs: number;
  readonly #queueMax: number;
  /** By directory; null: the directory itself. */
  #queue: Map<string, Set<string | null>> = new Map();
  #queued = 0;
  #lookAtAll = false;
  #working: Promise<void> | null = null;
  #hasEnded = false;
  /** Resolves at the end. */
  readonly #ended: Promise<void>;
  #resolveEnded: () => void = () => undefined;
  readonly #timers: Set<NodeJS.Timeout> = new Set();
  /** ctime of the change that was told last. */
  readonly #told: Map<string, number> = new Map();
  readonly counts: { noticed: number; looks: number; overflows: number } = { noticed: 0, looks: 0, overflows: 0 };

  /** What was changed before now was cached by nobody. The time of a change is that of a tick before it. */
  constructor(ports: LocalChangesPorts, queueMax: number = QUEUE_MAX) {
    this.#ports = ports;
    this.#beganMs = ports.nowMs() - TICK_MS;
    this.#queueMax = queueMax;
    this.#ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
  }

  /** Something was seen in that directory; null: of the directory itself. */
  seen(directory: string, name: string | null): void {
    if (this.#hasEnded || this.#lookAtAll) return;
    const names = this.#queue.get(directory) ?? new Set();
    this.#queue.set(directory, names);
    if (!names.has(name)) {
      names.add(name);
      this.#queued += 1;
    }
    if (this.#queued > this.#queueMax) this.#overflow();
    this.#begin();
  }

  /** It is there, and was not before: it may have been changed before it was watched. */
  appeared(directory: string): void {
    this.seen(directory, null);
    if (this.#hasEnded) return;
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      void this.#seenAll([directory]).then(() => this.#begin());
    }, SETTLE_MS);
    this.#timers.add(timer);
  }

  /** Nothing waits to be looked at, but for directories that have just appeared. */
  get isIdle(): boolean {
    return this.#working === null && this.#queue.size === 0;
  }

  /** Resolves when nothing is looked at any more. A lock that is asked for then is given back when it comes. */
  async end(): Promise<void> {
    this.#hasEnded = true;
    this.#resolveEnded();
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    this.#queue.clear();
    await this.#working;
  }

  #overflow(): void {
    this.counts.overflows += 1;
    this.#ports.log.warn(
      { limit: this.#queueMax },
      "more has changed in the lower directory than can be looked at one by one: all of it is looked at",
    );
    this.#queue.clear();
    this.#queued = 0;
    this.#lookAtAll = true;
  }

  #begin(): void {
    if (this.#working !== null || this.#hasEnded) return;
    // What the kernel tells in one turn is looked at together.
    this.#working = setImmediate()
      .then(() => this.#work())
      .finally(() => {
        this.#working = null;
        if (this.#queue.size > 0) this.#begin();
      });
  }

  async #work(): Promise<void> {
    while ((this.#queue.size > 0 || this.#lookAtAll) && !this.#hasEnded) {
      if (this.#lookAtAll) {
        this.#lookAtAll = false;
        await this.#seenAll(this.#ports.directories());
      }
      const queue = this.#queue;
      this.#queue = new Map();
      this.#queued = 0;
      await this.#tell(await this.#lookAt(queue));
    }
  }

  /** null: it failed, and the log says so. What comes after it is done all the same. */
  async #orLogged<T>(what: string, work: Promise<T>): Promise<T | null> {
    try {
      return await work;
    } catch (error) {
      if (!this.#hasEnded)
        this.#ports.log.error({ what, error: String(error) }, "a change in the lower directory may not be told to other nodes");
      return null;
    }
  }

  /** Without the limit: it is what comes when that was met. */
  async #seenAll(directories: readonly string[]): Promise<void> {
    for (const directory of directories) {
      if (this.#hasEnded) return;
      const names: Set<string | null> = new Set([null]);
      for (const name of (await this.#orLogged(directory, this.#ports.list(directory))) ?? []) names.add(name);
      for (const name of this.#queue.get(directory) ?? []) names.add(name);
      this.#queue.set(directory, names);
    }
  }

  async #lookAt(queue: ReadonlyMap<string, ReadonlySet<string | null>>): Promise<Batch> {
    const batch: Batch = { changed: new Map(), above: new Map() };
    for (const [path, names] of queue) {
      if (this.#hasEnded) break;
      const directory = await this.#look(path);
      // Its own name is gone from the one above, of which something was seen, too.
      if (directory === null) continue;
      const before = batch.changed.size;
      const isOther = this.#isOthers(directory);
      if (isOther) this.#add(batch, directory);
      for (const name of names) {
        const isOthersName = name !== null && (await this.#lookAtName(batch, directory, path, name));
        if (isOthersName) batch.changed.set(fileKey(directory.id), directory);
        if (isOther || isOthersName) this.#ports.forget(directory.id, name);
      }
      if (batch.changed.size > before) await this.#addAbove(batch, path);
    }
    return batch;
  }

  /** True: another program may have given the name, or taken it away, at a time at which this owner has changed the directory, too. */
  async #lookAtName(batch: Batch, directory: Look, path: string, name: string): Promise<boolean> {
    const known = this.#ports.knownAs(directory.id, name);
    const found = await this.#look(join(path, name));
    const isOthersFile = found !== null && this.#isOthers(found) && this.#add(batch, found);
    if (known === null) return isOthersFile && directory.changedMs >= this.#beganMs;
    if (found !== null && fileKey(found.id) === fileKey(known)) return false;
    // It is another file now, or none, and what this owner does to a name it knows: the one before has lost a name.
    batch.changed.set(fileKey(known), { id: known, changedMs: 0 });
    return true;
  }

  #look(path: string): Promise<Look | null> {
    this.counts.looks += 1;
    return this.#orLogged(path, this.#ports.look(path));
  }

  #isOthers({ id, changedMs }: Look): boolean {
    // The clock of inodes may be set back.
    this.#beganMs = Math.min(this.#beganMs, this.#ports.nowMs() - TICK_MS);
    return changedMs >= this.#beganMs && !this.#ports.times.isOwn(id, changedMs);
  }

  /** False: that change was told. */
  #add(batch: Batch, found: Look): boolean {
    const key = fileKey(found.id);
    if (this.#told.get(key) === found.changedMs) return false;
    batch.changed.set(key, found);
    return true;
  }

  #noteTold({ id, changedMs }: Look): void {
    // The next change may have the same time.
    if (this.#ports.nowMs() < changedMs + TICK_MS) return;
    const key = fileKey(id);
    this.#told.delete(key);
    this.#told.set(key, changedMs);
    if (this.#told.size > TOLD_MAX) this.#told.delete(this.#told.keys().next().value as string);
  }

  async #addAbove(batch: Batch, path: string): Promise<void> {
    const paths = [path];
    for (let above = path; above !== ROOT; above = dirname(above)) paths.unshift(dirname(above));
    for (const one of paths) {
      const found = await this.#look(one);
      if (found !== null) batch.above.set(fileKey(found.id), found.id);
    }
  }

  /** First the directories, from above: who has made a file there that dlmd does not know yet tells it before the lock of the directory goes down. */
  async #tell({ changed, above }: Batch): Promise<void> {
    if (changed.size === 0) return;
    for (const id of above.values()) await this.#had(id, "PR");
    const looks = [...changed.values()];
    for (let at = 0; at < looks.length; at += LOCKS_AT_ONCE_MAX) {
      await Promise.all(
        looks.slice(at, at + LOCKS_AT_ONCE_MAX).map(async (found) => {
          if (await this.#had(found.id, "EX")) this.#noteTold(found);
        }),
      );
    }
    this.counts.noticed += looks.length;
  }

  /** False: not yet. */
  async #had(id: FileId, mode: "PR" | "EX"): Promise<boolean> {
    const had = this.#ports.had(id, mode).then(() => true);
    return (await this.#orLogged(`${mode} ${fileKey(id)}`, Promise.race([had, this.#ended.then(() => false)]))) === true;
  }
}
