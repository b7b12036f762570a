/**
 * Through which open files an owner has locked a file: what RELEASE gives up. Pure.
 *
 * The kernel says of a process (FLUSH) that it has closed the file, and of flock(2) at RELEASE. It says nothing at the end of an open file with
 * OFD locks (fs/fuse/file.c, fuse_setlk: FL_CLOSE_POSIX; fuse_release_common). But an OFD owner is one open file, and so has one handle; and each
 * process that used a handle has closed it (FLUSH) before its RELEASE, unless its request was answered after that. So at a RELEASE all goes that was locked
 * through this handle alone by an owner that was not heard of since. What a process locked anew through another handle, after a FLUSH, stays.
 *
 * An open file's number is its address in the kernel, and RELEASE waits for reads of its handle. So the next open file may have the same number before that, and
 * another handle (hazard F49): through it the owner lives on.
 */
import type { LockOwner } from "./api.ts";

interface User {
  readonly owner: LockOwner;
  readonly handles: Set<number>;
}

export function ownerName({ kind, owner }: LockOwner): string {
  return `${kind}/${owner}`;
}

export function sameOwner(a: LockOwner, b: LockOwner): boolean {
  return a.kind === b.kind && a.owner === b.owner;
}

export class LockUsers {
  /** By file and owner. */
  readonly #files = new Map<string, Map<string, User>>();

  get files(): number {
    return this.#files.size;
  }

  used(file: string, fh: number, owner: LockOwner): void {
    let users = this.#files.get(file);
    if (users === undefined) {
      users = new Map();
      this.#files.set(file, users);
    }
    const name = ownerName(owner);
    const user = users.get(name);
    if (user === undefined) users.set(name, { owner, handles: new Set([fh]) });
    else {
      // An open file has one handle: the one before is closed.
      if (owner.kind === "flock") user.handles.clear();
      user.handles.add(fh);
    }
  }

  of(file: string): readonly { readonly owner: LockOwner; readonly handles: readonly number[] }[] {
    return [...(this.#files.get(file)?.values() ?? [])].map(({ owner, handles }) => ({ owner, handles: [...handles] }));
  }

  /** FLUSH: all POSIX locks of the process on the file go, and RELEASE has none left to give up. False: it was no user. */
  closed(file: string, owner: bigint): boolean {
    const users = this.#files.get(file);
    const was = users?.delete(ownerName({ kind: "posix", owner })) === true;
    if (users?.size === 0) this.#files.delete(file);
    return was;
  }

  /** Somebody has used that handle, and was not heard of since. */
  uses(file: string, fh: number): boolean {
    return [...(this.#files.get(file)?.values() ?? [])].some(({ handles }) => handles.has(fh));
  }

  /** Owners that used that handle alone, and were not heard of since. */
  released(file: string, fh: number): readonly LockOwner[] {
    const users = this.#files.get(file);
    if (users === undefined) return [];
    const gone: LockOwner[] = [];
    for (const [name, { owner, handles }] of users) {
      if (!handles.delete(fh) || handles.size > 0) continue;
      users.delete(name);
      gone.push(owner);
    }
    if (users.size === 0) this.#files.delete(file);
    return gone;
  }
}
