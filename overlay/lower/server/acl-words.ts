/**
 * Which inodes have no access ACL, told with their attributes. Of whoever does not own a file the kernel asks for its ACL: a trip for each file of a walk
 * (hazard F21). A mount whose programs are the owners', or root's, never asks, and its answers cost nothing more.
 */
import { andThen, type MaybePromise } from "../../../dlmd/base/maybe-promise.ts";
import { S } from "../linux.ts";
import type { LocalLower } from "../local/local.ts";
import type { Attr, Entry, FileId } from "../lower.ts";

/** A caller that has asked for an ACL is told of others' for so long. */
export const ACLS_ASKED_MS = 10_000;

/** S_IRWXG: without any of them the kernel asks for no ACL (fs/namei.c, acl_permission_check). */
const GROUP_BITS = 0o070;

/** Of one caller. */
export class AclWords {
  readonly #lower: Pick<LocalLower, "hasNoAcl" | "hasAcls">;
  readonly #now: () => number;
  #askedMs = Number.NEGATIVE_INFINITY;

  /** `now`: milliseconds of a monotonic clock. */
  constructor(lower: Pick<LocalLower, "hasNoAcl" | "hasAcls">, now: () => number) {
    this.#lower = lower;
    this.#now = now;
  }

  /** The caller asks for an access ACL. */
  noteAsked(): void {
    this.#askedMs = this.#now();
  }

  get #wanted(): boolean {
    return this.#lower.hasAcls && this.#now() - this.#askedMs < ACLS_ASKED_MS;
  }

  attr(id: FileId, attr: MaybePromise<Attr>): MaybePromise<Attr> {
    return this.#wanted ? andThen(attr, (found) => this.#with(id, found)) : attr;
  }

  entry<E extends Entry | null>(entry: MaybePromise<E>): MaybePromise<E> {
    return this.#wanted ? andThen(entry, (found) => (found === null ? found : this.#entryWith(found))) : entry;
  }

  attrs(ids: readonly FileId[], attrs: MaybePromise<readonly (Attr | null)[]>): MaybePromise<readonly (Attr | null)[]> {
    if (!this.#wanted) return attrs;
    return andThen(attrs, (found) => allOf(found.map((attr, at) => (attr === null ? null : this.#with(ids[at] as FileId, attr)))));
  }

  entries(entries: MaybePromise<readonly (Entry | null)[]>): MaybePromise<readonly (Entry | null)[]> {
    if (!this.#wanted) return entries;
    return andThen(entries, (found) => allOf(found.map((entry) => (entry === null ? null : this.#entryWith(entry)))));
  }

  #entryWith<E extends Entry>(entry: E): MaybePromise<E> {
    return andThen(this.#with(entry.id, entry.attr), (attr) => ({ ...entry, attr }));
  }

  #with(id: FileId, attr: Attr): MaybePromise<Attr> {
    if ((attr.mode & GROUP_BITS) === 0 || (attr.mode & S.IFMT) === S.IFLNK) return attr;
    return andThen(this.#lower.hasNoAcl(id), (hasNoAcl) => (hasNoAcl ? { ...attr, hasNoAcl } : attr));
  }
}

function allOf<T>(values: readonly MaybePromise<T>[]): MaybePromise<readonly T[]> {
  return values.some((value) => value instanceof Promise) ? Promise.all(values) : (values as readonly T[]);
}
