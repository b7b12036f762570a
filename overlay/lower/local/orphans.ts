/**
 * The hidden directory of a volume in which files without a name, and open somewhere, have one (hazard H10; orphan-table.ts has the rules, ../README.md
 * the contract). No call of a user fails because of it: where a name cannot be had there, the file lives as long as this owner.
 */
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import { createLimitedWarn, type LimitedWarn } from "../../../dlmd/base/log-limiter.ts";
import { andThen, checked, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { type Calls, HANDLE_BUFFER_BYTES, type Native, STAT } from "../../../native/index.ts";
import { AT_REMOVEDIR, O, S } from "../linux.ts";
import type { FileId } from "../lower.ts";
import { ORPHAN_DIRECTORY } from "../reserved-names.ts";
import { parseEntries } from "./dirents.ts";
import type { FileHandleFormat } from "./file-handle.ts";
import { isLinkableName, type Orphan, orphanName, OrphanTable } from "./orphan-table.ts";

/** What the directory is made with: nobody but root comes into it, on a plain mount neither. */
const MODE = 0o700;
const RENAME_NOREPLACE = 1;
const GETDENTS_BYTES = 32_768;
/** Each reason for which a file is not kept, or a name stays, is logged once in that time, and less often while it lasts. */
const LOG_INTERVAL_MS = 10_000;
const NO_DIRECTORY = -1;

export interface OrphansOptions {
  readonly native: Native;
  readonly log: Log;
  readonly rootFd: number;
  readonly rootIno: number;
  readonly format: FileHandleFormat;
  /** Where changes of names run. */
  readonly metadata: Calls<MaybePromise<number>>;
  /** Whether a handle is open on it, or about to be. */
  readonly isOpen: (id: FileId) => boolean;
  /** Gives back the space of what was removed a moment ago; undefined: there is none. */
  readonly makeRoom: () => MaybePromise<void>;
}

export class Orphans {
  readonly table: OrphanTable;
  readonly #options: OrphansOptions;
  readonly #warn: LimitedWarn;
  #fd = NO_DIRECTORY;

  constructor(options: OrphansOptions) {
    this.#options = options;
    this.table = new OrphanTable(options.rootIno);
    this.#warn = createLimitedWarn(options.log, LOG_INTERVAL_MS, () => performance.now());
  }

  has(id: FileId): boolean {
    return this.table.count > 0 && this.table.get(id) !== undefined;
  }

  /** Reads what an earlier owner left, before anything is served. Nothing is kept from now on if that fails: the log says why. */
  async open(readOnly: boolean): Promise<void> {
    try {
      const found = await this.#read(readOnly);
      if (found === null) return;
      this.table.begin(found);
      // Nothing can be dropped there.
      if (readOnly) this.table.end();
      if (found.length > 0)
        this.#options.log.info({ count: found.length }, "open files without a name: waiting for those that have them open");
    } catch (error) {
      this.close();
      const text = `the hidden directory ${ORPHAN_DIRECTORY} cannot be used: a file that is unlinked while open will end with this owner`;
      this.#options.log.error({ error: String(error) }, text);
    }
  }

  /** null: there is none, and none can be made. */
  async #read(readOnly: boolean): Promise<Orphan[] | null> {
    const { native, rootFd } = this.#options;
    const calls = native.pool.metadata;
    const name = Buffer.from(ORPHAN_DIRECTORY);
    const open = (): Promise<number> => calls.openat2(rootFd, name, O.RDONLY | O.DIRECTORY | O.NOFOLLOW | O.NOATIME, 0, 0);
    let fd = await open();
    if (fd === -E.ENOENT) {
      if (readOnly) return null;
      checked(await calls.mkdir(rootFd, name, MODE, 0, 0, 0));
      fd = await open();
    }
    this.#fd = checked(fd);
    const found: Orphan[] = [];
    for (const one of await this.#names()) {
      const orphan = await this.#identify(one, readOnly);
      if (orphan !== null) found.push(orphan);
    }
    return found;
  }

  async #names(): Promise<Buffer[]> {
    const names: Buffer[] = [];
    const buffer = Buffer.allocUnsafeSlow(GETDENTS_BYTES);
    for (;;) {
      const bytes = checked(await this.#options.native.pool.metadata.getdents(this.#fd, buffer));
      if (bytes === 0) return names;
      const entries = parseEntries(buffer.subarray(0, bytes)).map(({ name }) => Buffer.from(name));
      names.push(...entries.filter((name) => name.toString() !== "." && name.toString() !== ".."));
    }
  }

  /** null: it is none. A file that has a name elsewhere was to be replaced by a rename that did not come to the disk: it is dropped here. */
  async #identify(name: Buffer, readOnly: boolean): Promise<Orphan | null> {
    const calls = this.#options.native.pool.metadata;
    const stat = new Float64Array(STAT.FIELDS);
    const handle = Buffer.alloc(HANDLE_BUFFER_BYTES);
    checked(await calls.lookup(this.#fd, name, false, stat, handle));
    const type = (stat[STAT.MODE] as number) & S.IFMT;
    const orphan = (directory: boolean, linkable: boolean): Orphan => ({
      id: this.#options.format.decode(handle),
      name,
      directory,
      linkable,
    });
    if (type === S.IFDIR) return orphan(true, false);
    if (type === S.IFREG && stat[STAT.NLINK] === 1) return orphan(false, isLinkableName(name));
    if (type === S.IFREG && !readOnly) checked(await calls.unlink(this.#fd, name, 0));
    else if (type !== S.IFREG)
      this.#warn("foreign", { name: name.toString("latin1") }, `what is neither file nor directory stays in ${ORPHAN_DIRECTORY}`);
    return null;
  }

  /**
   * All callers that had files open at an earlier owner have opened them again, or are gone: what nobody has open is dropped. Gives how many.
   */
  async settle(): Promise<number> {
    const unclaimed = this.table.settle(this.#options.isOpen);
    let dropped = 0;
    for (const orphan of unclaimed) {
      // This owner ended meanwhile: the next one goes on with them.
      if (this.table.phase !== "settled") break;
      // Opened meanwhile, by its number: then its last close drops it, or has done so.
      if (this.#options.isOpen(orphan.id) || !this.has(orphan.id)) continue;
      if (await this.#dropIn(this.#options.native.pool.metadata, orphan)) dropped += 1;
    }
    return dropped;
  }

  /** In place of `remove`, which takes away the last name of `id`: it is moved. The result of a system call. */
  moveIn(dirfd: number, name: Buffer, id: FileId, directory: boolean, remove: () => MaybePromise<number>): MaybePromise<number> {
    const orphan: Orphan = { id, name: orphanName(id, false), directory, linkable: false };
    const move = (): MaybePromise<number> => this.#options.metadata.rename(dirfd, name, this.#fd, orphan.name, RENAME_NOREPLACE);
    return andThen(this.#withRoom(move), (result) => {
      // What keeps it from being moved may keep it from being removed as well: then that is told.
      if (result < 0) return andThen(remove(), (removed) => this.#notKept(id, result, removed));
      this.table.add(orphan);
      return andThen(this.lastClosed(id), () => 0);
    });
  }

  /** Around `rename`, which takes away the last name of `id`, open as `fd`: it gets one here before. The result of a system call. */
  linkIn(fd: number, id: FileId, rename: () => MaybePromise<number>): MaybePromise<number> {
    const orphan: Orphan = { id, name: orphanName(id, false), directory: false, linkable: false };
    const linked = fd < 0 ? fd : this.#withRoom(() => this.#options.metadata.link(fd, this.#fd, orphan.name));
    return andThen(linked, (result) => {
      if (result < 0) return andThen(rename(), (renamed) => this.#notKept(id, result, renamed));
      this.table.add(orphan);
      return andThen(rename(), (renamed) =>
        andThen(renamed < 0 ? this.#dropIn(this.#options.metadata, orphan) : this.lastClosed(id), () => renamed),
      );
    });
  }

  /** EOPNOTSUPP: there is no hidden directory, so nothing may be made without a name. */
  checkThere(): void {
    if (this.table.phase === "absent") throw errnoError(E.EOPNOTSUPP);
  }

  /**
   * Hazard F30. A file that was made without a name, and is open as `fd`, gets one here, so that the next owner has it. EOPNOTSUPP: the hidden directory is
   * of another project (EXDEV).
   */
  keepNameless(fd: number, id: FileId, linkable: boolean): MaybePromise<void> {
    const orphan: Orphan = { id, name: orphanName(id, linkable), directory: false, linkable };
    return andThen(this.#options.metadata.link(fd, this.#fd, orphan.name), (result) => {
      if (result === -E.EXDEV) throw errnoError(E.EOPNOTSUPP);
      checked(result);
      this.table.add(orphan);
    });
  }

  /**
   * Hazard F30. An orphan gets a name there, and has none here from then on: one step of the journal. The result of a system call; -ENOENT: it was not made
   * for this, as with every file that has lost its name (fs/namei.c, vfs_link).
   */
  moveOut(id: FileId, dirfd: number, name: Buffer): MaybePromise<number> {
    const orphan = this.table.get(id);
    if (orphan?.linkable !== true) return -E.ENOENT;
    return andThen(this.#options.metadata.rename(this.#fd, orphan.name, dirfd, name, RENAME_NOREPLACE), (result) => {
      if (result >= 0) this.table.delete(id);
      return result;
    });
  }

  #withRoom(call: () => MaybePromise<number>): MaybePromise<number> {
    return andThen(call(), (result) => {
      const room = result === -E.ENOSPC || result === -E.EDQUOT ? this.#options.makeRoom() : undefined;
      return room === undefined ? result : andThen(room, call);
    });
  }

  /** `result`: of the call that was made without it. */
  #notKept(id: FileId, why: number, result: number): number {
    if (result >= 0) {
      const { code } = errnoError(-why);
      this.#warn(
        code,
        { ino: id.ino, errno: code },
        "a file that is open was removed and cannot be kept for the next owner: it ends with this one",
      );
    }
    return result;
  }

  /** Nobody has it open any more: its name goes, if it is an orphan. The last descriptor is still open, so no block is freed here. */
  lastClosed(id: FileId): MaybePromise<void> {
    if (this.table.count === 0 || this.#options.isOpen(id)) return undefined;
    const orphan = this.table.lastClosed(id);
    return orphan === undefined ? undefined : andThen(this.#dropIn(this.#options.metadata, orphan), () => undefined);
  }

  #dropIn(calls: Calls<MaybePromise<number>>, orphan: Orphan): MaybePromise<boolean> {
    return andThen(calls.unlink(this.#fd, orphan.name, orphan.directory ? AT_REMOVEDIR : 0), (result) => {
      // Two of the pool may be at it.
      const gone = result >= 0 || result === -E.ENOENT;
      if (gone) {
        this.table.delete(orphan.id);
        return true;
      }
      const { code } = errnoError(-result);
      this.#warn(
        `drop ${code}`,
        { ino: orphan.id.ino, errno: code },
        "a file that nobody has open keeps its space until the volume is mounted anew",
      );
      return false;
    });
  }

  /** This owner ends: what is closed from now on stays, for the next one. */
  end(): void {
    this.table.end();
  }

  close(): void {
    if (this.#fd !== NO_DIRECTORY) this.#options.native.sync.close(this.#fd);
    this.#fd = NO_DIRECTORY;
  }
}
