/**
 * Listings that were answered, and whose thread may still be installing the names (hazard F48). Pure.
 *
 * The kernel takes the names of a READDIRPLUS for as new as the moment at which it installs each (fs/fuse/readdir.c, fuse_direntplus_link), and
 * those of a LOOKUP for as new as the question. So INC_EPOCH says nothing of a listing that is under way: its names may come
 * afterwards, and stand. It is over for certain when the kernel has had the directory locked for anybody else, or its thread asks for something
 * new, or its handle is used again or closed.
 */
import type { Cover, Listing } from "../cover.ts";

/** At most so many are followed; the names of others get no validity. */
export const LISTINGS_MAX = 4096;

/** What getdents(2) itself may ask for with names still to come: where its buffer is a mapping, or a security module reads the label of a new inode (d_instantiate). */
const OF_GETDENTS: ReadonlySet<string> = new Set(["read", "write", "getattr", "setattr", "getxattr"]);
/** The kernel has the directory that they name first locked for them, and for nobody else. */
const LOCKING: ReadonlySet<string> = new Set(["create", "mknod", "mkdir", "symlink", "link", "unlink", "rmdir", "rename"]);

/** Whoever uses the handle of a listing again has waited for it (f_pos is locked), and it is closed when nobody uses it. */
const OF_HANDLE: ReadonlySet<string> = new Set(["readdir", "readdirplus", "releasedir"]);

/** A request, as far as it matters here. */
export interface Heard {
  readonly op: string;
  /** The calling thread; 0: it can not be seen from here. */
  readonly pid: number;
  readonly fh?: number | null;
}

export class Listings {
  readonly #ofHandle = new Map<number, Listing>();
  readonly #ofThread = new Map<number, Listing>();

  get size(): number {
    return this.#ofHandle.size;
  }

  all(): IterableIterator<Listing> {
    return this.#ofHandle.values();
  }

  /** One that is being answered. null: nothing would tell that it is over. */
  of(dir: Cover, fh: number, tid: number): Listing | null {
    return tid === 0 || this.size >= LISTINGS_MAX ? null : { dir, fh, tid, waiters: [] };
  }

  /** It tells a name with validity. */
  begin(listing: Listing): void {
    const { names } = listing.dir;
    if (names === null || names.listings.includes(listing)) return;
    names.listings = [...names.listings, listing];
    this.#ofHandle.set(listing.fh, listing);
    this.#ofThread.set(listing.tid, listing);
  }

  /** A request came, of that directory, file or handle. `epoch`: the mount's. */
  heard({ op, pid, fh }: Heard, cover: Cover | null, epoch: number): void {
    const own = OF_GETDENTS.has(op) ? undefined : this.#ofThread.get(pid);
    if (own !== undefined) this.over([own], epoch);
    const same = typeof fh === "number" && OF_HANDLE.has(op) ? this.#ofHandle.get(fh) : undefined;
    if (same !== undefined) this.over([same], epoch);
    if (LOCKING.has(op) && cover?.names) this.over(cover.names.listings, epoch);
  }

  /** Their names are installed. */
  over(listings: readonly Listing[], epoch: number): void {
    for (const listing of listings) {
      const { dir, fh, tid, waiters } = listing;
      if (this.#ofHandle.get(fh) === listing) this.#ofHandle.delete(fh);
      if (this.#ofThread.get(tid) === listing) this.#ofThread.delete(tid);
      if (dir.names?.listings.includes(listing) === true) {
        dir.names.listings = dir.names.listings.filter((other) => other !== listing);
        dir.names.listedEpoch = epoch;
      }
      for (const waiter of waiters.splice(0)) waiter();
    }
  }
}

/** Resolves when all of them are over. */
export async function allOver(listings: readonly Listing[]): Promise<void> {
  await Promise.all(listings.map(({ waiters }) => new Promise<void>((resolve) => waiters.push(resolve))));
}
