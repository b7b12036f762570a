/**
 * All names of a directory that was there before this owner: without them each name that another node looks for in vain is a trip, as those of SQLite's journals
 * (hazard F32). Listed in the pool, once, while no name of it is changed by this process: which takes some milliseconds where it has at most MAX_NAMES_TOLD.
 */
import { keepNewest } from "../../../dlmd/base/keep-newest.ts";
import { checked } from "../../../dlmd/base/maybe-promise.ts";
import { STAT } from "../../../native/index.ts";
import { MAX_NAMES_TOLD } from "../limits.ts";
import type { FileId } from "../lower.ts";
import { isReservedName } from "../reserved-names.ts";
import { type LocalContext, sameId } from "./context.ts";
import { isDots } from "../listing-reply.ts";
import { listed } from "./dirents.ts";

/** A larger directory is not listed: it may have few names, and take long to be read all the same. Changes of its names wait meanwhile. */
export const DIRECTORY_BYTES_MAX = 262_144;
/** One that was listed is not listed again for so long, whatever came of it. */
export const LIST_AGAIN_MS = 10_000;
/** Directories of which that is remembered; the longest known goes. */
export const LISTED_MAX = 256;

export class NamesListed {
  readonly #context: LocalContext;
  readonly #nowMs: () => number;
  /** By inode number: when. */
  readonly #listed = new Map<number, number>();
  /** One at a time. */
  #running: Promise<void> | null = null;
  #stopped = false;

  constructor(context: LocalContext, nowMs: () => number) {
    this.#context = context;
    this.#nowMs = nowMs;
  }

  /** Its names are to be known the next time, if they can be. */
  wanted(directory: FileId): void {
    const { names, log } = this.#context;
    const before = this.#listed.get(directory.ino);
    if (this.#stopped || this.#running !== null || (before !== undefined && this.#nowMs() - before < LIST_AGAIN_MS)) return;
    this.#listed.delete(directory.ino);
    keepNewest(this.#listed, LISTED_MAX - 1);
    this.#listed.set(directory.ino, this.#nowMs());
    this.#running = this.#list(directory)
      .catch((error: unknown) => {
        names.listed(directory, null);
        // Who looks for its names meets it, and is told.
        log.debug({ ino: directory.ino, error: String(error) }, "the names of a directory could not be listed");
      })
      .finally(() => (this.#running = null));
  }

  /** No listing begins any more; resolves when one that is under way has ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async #list(directory: FileId): Promise<void> {
    const { names, turns, directories } = this.#context;
    await turns.run([directory.ino], async () => {
      if (names.listing(directory)) names.listed(directory, await directories.use(directory, (dirfd) => this.#namesIn(directory, dirfd)));
    });
  }

  /** null: there are too many. */
  async #namesIn(directory: FileId, dirfd: number): Promise<Buffer[] | null> {
    const found = await this.#namesOf(dirfd);
    const isRoot = sameId(directory, this.#context.root);
    return found?.filter((name) => !isDots(name) && !(isRoot && isReservedName(name))) ?? null;
  }

  async #namesOf(dirfd: number): Promise<Buffer[] | null> {
    const { native } = this.#context;
    const stat = new Float64Array(STAT.FIELDS);
    checked(native.sync.stat(dirfd, stat));
    if ((stat[STAT.SIZE] as number) > DIRECTORY_BYTES_MAX) return null;
    const found: Buffer[] = [];
    for await (const entries of listed(native, dirfd)) {
      for (const { name } of entries) found.push(name);
      // "." and ".." are among them.
      if (found.length > MAX_NAMES_TOLD + 2) return null;
    }
    return found;
  }
}
