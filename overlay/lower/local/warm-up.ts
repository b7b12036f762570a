/**
 * Reads ahead in a directory whose files are looked up one by one and are not in the kernel's caches (after memory was short, or on
 * a volume just mounted): a cold lookup goes to the metadata pool, which costs far more than the lookup, and the serving thread
 * may not do it itself, because it might wait for the disk. So after a few of them the pool looks at the names that follow in the
 * directory, and the lookups to come find them cached.
 */
import { keepNewest } from "../../../dlmd/base/keep-newest.ts";
import type { Log } from "../../../dlmd/base/log.ts";
import type { Native } from "../../../native/index.ts";
import { listed } from "./dirents.ts";
import type { DirectoryDescriptors } from "./directory-descriptors.ts";
import type { FileId } from "../lower.ts";
import { checked } from "../../../dlmd/base/maybe-promise.ts";

/** Cold lookups in a directory that start the first run in it. */
export const COLD_LOOKUPS_MIN = 8;
/** A run is paid for by cold lookups: one for each so many names that the last one looked at. */
const NAMES_FOR_A_LOOKUP = 32;
/** Names that one run looks at. */
export const WARM_NAMES_MAX = 4096;
/** Names for one call: others get their turn in the pool in between. */
const NAMES_IN_CALL = 128;
/** Directories that are kept account of; the longest known goes. */
const DIRECTORIES_MAX = 256;

interface Account {
  coldLookups: number;
  /** The next run begins at so many. */
  due: number;
  running: boolean;
}

/** Names as `Calls.warm` wants them. */
export function joinNames(names: readonly Buffer[]): Buffer {
  const end = Buffer.alloc(1);
  return Buffer.concat(names.flatMap((name) => [name, end]));
}

/** Has all of them looked at; several calls at a time. */
export async function warmNames(native: Native, dirfd: number, names: readonly Buffer[]): Promise<void> {
  const calls: Promise<number>[] = [];
  for (let at = 0; at < names.length; at += NAMES_IN_CALL) {
    calls.push(native.pool.metadata.warm(dirfd, joinNames(names.slice(at, at + NAMES_IN_CALL))));
  }
  for (const result of await Promise.all(calls)) checked(result);
}

export class WarmUp {
  readonly #native: Native;
  readonly #directories: Pick<DirectoryDescriptors, "use">;
  readonly #log: Log;
  readonly #accounts: Map<number, Account> = new Map();
  readonly #runs: Set<Promise<void>> = new Set();
  #stopped = false;

  constructor(native: Native, directories: Pick<DirectoryDescriptors, "use">, log: Log) {
    this.#native = native;
    this.#directories = directories;
    this.#log = log;
  }

  /** A name in it was found by a lookup in the pool. */
  noteCold(directory: FileId): void {
    let account = this.#accounts.get(directory.ino);
    if (account === undefined) {
      keepNewest(this.#accounts, DIRECTORIES_MAX - 1);
      account = { coldLookups: 0, due: COLD_LOOKUPS_MIN, running: false };
      this.#accounts.set(directory.ino, account);
    }
    account.coldLookups += 1;
    if (this.#stopped || account.running || account.coldLookups < account.due) return;
    const run = this.#start(directory, account);
    this.#runs.add(run);
    void run.finally(() => this.#runs.delete(run));
  }

  /** No run begins any more; resolves when those under way have ended, after the call that they are in. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#runs);
  }

  async #start(directory: FileId, account: Account): Promise<void> {
    account.running = true;
    try {
      const names = await this.#directories.use(directory, (dirfd) => this.#run(dirfd));
      account.due = Math.max(COLD_LOOKUPS_MIN, Math.ceil(names / NAMES_FOR_A_LOOKUP));
    } catch (error) {
      // The lookups themselves will meet it, and tell their callers.
      this.#log.debug({ ino: directory.ino, error: String(error) }, "reading ahead in a directory failed");
    } finally {
      account.running = false;
      account.coldLookups = 0;
    }
  }

  /** How many names it looked at. */
  async #run(dirfd: number): Promise<number> {
    let seen = 0;
    for await (const entries of listed(this.#native, dirfd)) {
      seen += entries.length;
      for (let at = 0; at < entries.length && !this.#stopped; at += NAMES_IN_CALL) {
        const names = entries.slice(at, at + NAMES_IN_CALL).map(({ name }) => name);
        // One after the other: a slow disk takes one thread of the pool for it and no more.
        checked(await this.#native.pool.metadata.warm(dirfd, joinNames(names)));
      }
      if (seen >= WARM_NAMES_MAX || this.#stopped) break;
    }
    return seen;
  }
}
