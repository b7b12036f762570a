/**
 * Which extended attributes inodes have, told with what they are otherwise: most have none. `ls -l` and `cp -a` ask each file, and of whoever does not own a
 * file the kernel asks for its access ACL: a trip for each (hazard F21). A mount for which nobody asks is told nothing, and its answers cost nothing more.
 */
import { andThen, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import type { LocalLower } from "../local/local.ts";
import { type Attr, type Entry, type FileId, withXattrNames } from "../lower.ts";

/** A caller that has asked for an extended attribute is told of those of others for so long. */
export const XATTRS_ASKED_MS: number = 10 * 60_000;

/** Of one caller. */
export class XattrWords {
  readonly #lower: Pick<LocalLower, "xattrNames">;
  readonly #now: () => number;
  #askedMs = Number.NEGATIVE_INFINITY;

  /** `now`: milliseconds of a monotonic clock. */
  constructor(lower: Pick<LocalLower, "xattrNames">, now: () => number) {
    this.#lower = lower;
    this.#now = now;
  }

  noteAsked(): void {
    this.#askedMs = this.#now();
  }

  get #wanted(): boolean {
    return this.#now() - this.#askedMs < XATTRS_ASKED_MS;
  }

  attr(id: FileId, attr: MaybePromise<Attr>): MaybePromise<Attr> {
    return this.#wanted ? andThen(attr, (found) => this.#with(id, found, isCold(attr))) : attr;
  }

  entry<E extends Entry | null>(entry: MaybePromise<E>): MaybePromise<E> {
    return this.#wanted ? andThen(entry, (found) => (found === null ? found : this.#entryWith(found, isCold(entry)))) : entry;
  }

  attrs(ids: readonly FileId[], attrs: MaybePromise<readonly (Attr | null)[]>): MaybePromise<readonly (Attr | null)[]> {
    if (!this.#wanted) return attrs;
    const cold = isCold(attrs);
    return andThen(attrs, (found) => allOf(found.map((attr, at) => (attr === null ? null : this.#with(ids[at] as FileId, attr, cold)))));
  }

  entries(entries: MaybePromise<readonly (Entry | null)[]>): MaybePromise<readonly (Entry | null)[]> {
    if (!this.#wanted) return entries;
    const cold = isCold(entries);
    return andThen(entries, (found) => allOf(found.map((entry) => (entry === null ? null : this.#entryWith(entry, cold)))));
  }

  #entryWith<E extends Entry>(entry: E, cold: boolean): MaybePromise<E> {
    return andThen(this.#with(entry.id, entry.attr, cold), (attr) => ({ ...entry, attr }));
  }

  #with(id: FileId, attr: Attr, cold: boolean): MaybePromise<Attr> {
    return andThen(this.#lower.xattrNames(id, cold), (xattrNames) => (xattrNames === null ? attr : withXattrNames(attr, xattrNames)));
  }
}

/** What came later was read from the disk, or is among such. */
const isCold = (found: unknown): boolean => found instanceof Promise;

function allOf<T>(values: readonly MaybePromise<T>[]): MaybePromise<readonly T[]> {
  return values.some((value) => value instanceof Promise) ? Promise.all(values) : (values as readonly T[]);
}
