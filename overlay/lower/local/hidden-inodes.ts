/**
 * What is below the names that belong to coverlay (reserved-names.ts): nobody finds it by a name, so nobody may find it by a file handle (hazard F29).
 * The names of a file cannot be told from its number, so they are all looked at, when that is first asked. Afterwards nothing comes there but what
 * orphan-table.ts has: a caller can make no such name.
 */
import { E } from "../../../dlmd/base/errno.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import { checked } from "../../../dlmd/base/maybe-promise.ts";
import { HANDLE_BUFFER_BYTES, type Native, STAT } from "../../../native/index.ts";
import { O, S } from "../linux.ts";
import { type FileId, fileKey } from "../lower.ts";
import { isReservedName, ORPHAN_DIRECTORY } from "../reserved-names.ts";
import { parseEntries } from "./dirents.ts";
import { FILE_HANDLE_BYTES, type FileHandleFormat } from "./file-handle.ts";

/** Coverlay has two names there, and a file for each that is open without a name. With more, nothing is found by its number. */
const HIDDEN_INODES_MAX = 65_536;
const GETDENTS_BYTES = 32_768;
const DOT = Buffer.from(".");
const DOT_DOT = Buffer.from("..");
const ORPHANS = Buffer.from(ORPHAN_DIRECTORY);
/** Gone since its name was read, or another file system: no handle of this one leads there. */
const NOT_THERE: ReadonlySet<number> = new Set([E.ENOENT, E.ESTALE, E.EXDEV]);

export interface HiddenInodesOptions {
  readonly native: Native;
  readonly root: FileId;
  readonly rootFd: number;
  readonly format: FileHandleFormat;
  readonly log: Log;
  readonly limit?: number;
}

interface Found {
  readonly name: Buffer;
  readonly id: FileId;
  readonly mode: number;
  readonly nlink: number;
}

interface Directory {
  readonly id: FileId;
  readonly kind: "root" | "orphans" | "other";
}

/** What is hidden of it. A file of the orphan directory that has another name is about to lose one of them: orphan-table.ts knows it then. */
function isHidden({ kind }: Directory, { name, mode, nlink }: Found): boolean {
  if (kind === "root") return isReservedName(name);
  return kind !== "orphans" || (mode & S.IFMT) !== S.IFREG || nlink < 2;
}

export class HiddenInodes {
  readonly #options: HiddenInodesOptions;
  #walk: Promise<Set<string> | "too many"> | null = null;

  constructor(options: HiddenInodesOptions) {
    this.#options = options;
  }

  /** Errno: it cannot be said now. */
  async has(id: FileId): Promise<boolean> {
    this.#walk ??= this.#walkReserved();
    try {
      const hidden = await this.#walk;
      return hidden === "too many" || hidden.has(fileKey(id));
    } catch (error) {
      this.#walk = null;
      throw error;
    }
  }

  /** A file that was made without a name has one now (hazard F30). */
  async named(id: FileId): Promise<void> {
    // A walk that fails is made again.
    const hidden = await this.#walk?.catch(() => null);
    if (hidden instanceof Set) hidden.delete(fileKey(id));
  }

  async #walkReserved(): Promise<Set<string> | "too many"> {
    const { root, log, limit = HIDDEN_INODES_MAX } = this.#options;
    const hidden = new Set<string>();
    const queue: Directory[] = [{ id: root, kind: "root" }];
    for (const directory of queue) {
      await this.#walkDirectory(directory, (found) => {
        if (!isHidden(directory, found) || hidden.has(fileKey(found.id))) return;
        hidden.add(fileKey(found.id));
        if ((found.mode & S.IFMT) !== S.IFDIR) return;
        const orphans = directory.kind === "root" && found.name.equals(ORPHANS);
        queue.push({ id: found.id, kind: orphans ? "orphans" : "other" });
      });
      if (hidden.size <= limit) continue;
      log.warn({ limit }, "below names that begin with .coverlay are more files than coverlay has: no file is found by a handle alone");
      return "too many";
    }
    return hidden;
  }

  async #walkDirectory({ id, kind }: Directory, found: (found: Found) => void): Promise<void> {
    const { native, rootFd, format } = this.#options;
    const calls = native.pool.metadata;
    const handle = Buffer.alloc(FILE_HANDLE_BYTES);
    format.encode(id, handle);
    const opened = await calls.openByHandle(rootFd, handle, O.RDONLY | O.DIRECTORY | O.NOATIME);
    if (NOT_THERE.has(-opened)) return;
    const fd = checked(opened);
    try {
      const buffer = Buffer.allocUnsafeSlow(GETDENTS_BYTES);
      for (;;) {
        const bytes = checked(await calls.getdents(fd, buffer));
        if (bytes === 0) return;
        const names = parseEntries(buffer.subarray(0, bytes)).map(({ name }) => Buffer.from(name));
        for (const name of names) {
          if (name.equals(DOT) || name.equals(DOT_DOT) || (kind === "root" && !isReservedName(name))) continue;
          await this.#look(fd, name, found);
        }
      }
    } finally {
      native.sync.close(fd);
    }
  }

  async #look(dirfd: number, name: Buffer, found: (found: Found) => void): Promise<void> {
    const { native, format } = this.#options;
    const [stat, handle] = [new Float64Array(STAT.FIELDS), Buffer.alloc(HANDLE_BUFFER_BYTES)];
    const result = await native.pool.metadata.lookup(dirfd, name, false, stat, handle);
    if (NOT_THERE.has(-result)) return;
    checked(result);
    found({ name, id: format.decode(handle), mode: stat[STAT.MODE] as number, nlink: stat[STAT.NLINK] as number });
  }
}
