/**
 * Names of directories in the order of their listing, as known.ts has them, within limits: who lists a directory again asks nobody. Without attributes, which
 * have locks of their own (hazard F21).
 */
import { fitting } from "../listing-reply.ts";
import type { DirEntry, DirPage, Listing } from "../lower.ts";

/** Of a directory: with more, its listing is not kept. */
export const LISTED_NAMES_MAX = 4096;
/** In all: beyond, the listing that was begun first is forgotten. */
export const LISTED_NAMES_ALL_MAX = 16_384;

/** From the beginning on. */
export interface KnownListing {
  readonly entries: DirEntry[];
  /** Nothing follows. */
  end: boolean;
}

export interface Listed {
  listing: KnownListing | null;
}

/** With a name of its own memory: as it came it is a part of the whole answer. */
function copyOf({ name, type, ino, cookie }: DirEntry): DirEntry {
  return { name: Buffer.from(name), type, ino, cookie };
}

/** Two names of the same hash may have the same position (fs/ext4/dir.c, hash2pos): who goes on there cannot be told which of them comes next. */
function isDistinct(from: bigint, entries: readonly DirEntry[]): boolean {
  return entries.every(({ cookie }, at) => cookie !== (at === 0 ? from : entries[at - 1]?.cookie));
}

export class KnownListings {
  readonly #directories = new Set<Listed>();
  #count = 0;

  /** That page was read there; what is known already is so still. */
  read(directory: Listed, from: bigint, { entries, end }: DirPage): void {
    if (from === 0n && entries.length > (directory.listing?.entries.length ?? -1)) this.#begin(directory);
    const { listing } = directory;
    if (listing === null || listing.end || (listing.entries.at(-1)?.cookie ?? 0n) !== from) return;
    if (listing.entries.length + entries.length > LISTED_NAMES_MAX || !isDistinct(from, entries)) return this.drop(directory);
    listing.entries.push(...entries.map(copyOf));
    listing.end = end;
    this.#count += entries.length;
    for (const oldest of this.#directories) {
      if (this.#count <= LISTED_NAMES_ALL_MAX) return;
      this.drop(oldest);
    }
  }

  #begin(directory: Listed): void {
    this.drop(directory);
    directory.listing = { entries: [], end: false };
    this.#directories.add(directory);
  }

  drop(directory: Listed): void {
    this.#count -= directory.listing?.entries.length ?? 0;
    directory.listing = null;
    this.#directories.delete(directory);
  }
}

/** What follows there and fits the reply; null: that is not known. */
export function pageOf({ entries, end }: KnownListing, from: bigint, bytes: number, listing: Listing): DirPage | null {
  const before = from === 0n ? -1 : entries.findIndex(({ cookie }) => cookie === from);
  if (before === -1 && from !== 0n) return null;
  const rest = entries.slice(before + 1);
  if (rest.length === 0) return end ? { entries: [], end } : null;
  const fit = fitting(rest, bytes, listing);
  // A buffer that is too small is the owner's to refuse.
  return fit.length === 0 ? null : { entries: fit, end: end && fit.length === rest.length };
}
