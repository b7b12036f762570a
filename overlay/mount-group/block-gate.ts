/**
 * Holds the calls that a mount makes to its lower while it is blocked, and makes them in their order when it may go on. What the mount has cached
 * asks no lower, and goes on. A caller that is killed is answered by its session, as with any call that waits.
 *
 * While nothing is held the methods of `lower` are those of the lower itself: the way of the data pays nothing.
 */
import { E, errnoError } from "../../dlmd/base/errno.ts";
import { type MaybePromise, promised } from "../../dlmd/base/maybe-promise.ts";
import { changeFor, type Lower, type LowerHandle, ownBytes } from "../lower/lower.ts";

/** Calls that wait; ENOMEM beyond, but for a close. The kernel's own limit (max_background 65535) comes first. */
export const MAX_HELD_CALLS = 131_072;

/** Not: `close`, which nobody waits for (`#closeInTurn`); what is known without the owner. */
const HELD = [
  "lookup",
  "lookupMany",
  "byNumber",
  "parentOf",
  "pathOf",
  "getattr",
  "ownership",
  "getattrMany",
  "setattr",
  "readlink",
  "create",
  "tmpfile",
  "mkdir",
  "mknod",
  "symlink",
  "unlink",
  "rmdir",
  "rename",
  "link",
  "open",
  "opendir",
  "read",
  "write",
  "fsync",
  "fsyncdir",
  "fallocate",
  "lseek",
  "copyFileRange",
  "readdir",
  "statfs",
  "getxattr",
  "fileAttributes",
  "setFileAttributes",
  "setxattr",
  "listxattr",
  "removexattr",
  "syncfs",
] as const;
type Method = (typeof HELD)[number];
type Methods = Pick<Lower, Method | "close" | "fetch" | "prefetch" | "mayWriteBehind" | "setattrBehind" | "madeFor">;
type Call = (...args: readonly unknown[]) => MaybePromise<unknown>;

interface HeldCall {
  readonly make: () => MaybePromise<unknown>;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

export class BlockGate {
  /** Null before `wrap`. */
  #gated: { -readonly [K in keyof Methods]: Methods[K] } | null = null;
  #open: Methods | null = null;
  #closed: Methods | null = null;
  #held: HeldCall[] = [];
  /** Lower.madeFor, of the call that is held next. */
  #request = 0;
  #isHolding = false;
  #hasEnded = false;

  /** Calls that wait for the block to end. */
  get held(): number {
    return this.#held.length;
  }

  /** The same lower, whose calls wait while this is closed. Once. */
  wrap(lower: Lower): Lower {
    const open: Partial<Record<keyof Methods, unknown>> = {
      close: lower.close.bind(lower),
      fetch: lower.fetch.bind(lower),
      prefetch: lower.prefetch.bind(lower),
      mayWriteBehind: lower.mayWriteBehind.bind(lower),
      setattrBehind: lower.setattrBehind.bind(lower),
      madeFor: lower.madeFor.bind(lower),
    };
    // Where nothing can be fetched at once, callers ask for attributes and data one after the other, and are held there.
    const closed: Partial<Record<keyof Methods, unknown>> = {
      fetch: () => null,
      prefetch: () => null,
      mayWriteBehind: () => false,
      setattrBehind: () => null,
      madeFor: (request: number) => {
        this.#request = request;
      },
    };
    for (const name of HELD) {
      const call = lower[name].bind(lower) as unknown as Call;
      open[name] = call;
      closed[name] = (...args: readonly unknown[]) => {
        const request = this.#request;
        return this.#hold(() => changeFor(lower, request, () => call(...args)));
      };
    }
    // The answers are looked at after all were made, and the lower has one buffer for those that are there at once.
    closed.read = (...args: Parameters<Lower["read"]>) => this.#hold(() => ownBytes(lower.read(...args)));
    closed.close = (handle: LowerHandle) => this.#closeInTurn(() => lower.close(handle));
    this.#open = open as Methods;
    this.#closed = closed as Methods;
    const gated = {
      ...this.#open,
      get root() {
        return lower.root;
      },
      get hasAcls() {
        return lower.hasAcls;
      },
      get keeps() {
        return lower.keeps;
      },
      isAbsent: lower.isAbsent.bind(lower),
      knows: lower.knows.bind(lower),
      made: lower.made.bind(lower),
      madeFile: lower.madeFile.bind(lower),
      writeBehind: lower.writeBehind.bind(lower),
      writtenBehind: lower.writtenBehind.bind(lower),
    };
    this.#gated = gated;
    this.#switch();
    return gated;
  }

  /** What begins from now on waits. */
  hold(): void {
    if (this.#hasEnded) return;
    this.#isHolding = true;
    this.#switch();
  }

  /** What waited is made, in its order; and what comes is not held. */
  letGo(): void {
    this.#isHolding = false;
    this.#switch();
    const held = this.#held;
    this.#held = [];
    for (const { make, resolve, reject } of held) promised(make).then(resolve, reject);
  }

  /** The mount ends: what waits ends with EIO, and what is to be closed is closed. */
  end(): void {
    this.#hasEnded = true;
    this.#isHolding = false;
    this.#switch();
    const held = this.#held;
    this.#held = [];
    for (const { reject } of held) reject(errnoError(E.EIO));
  }

  #switch(): void {
    if (this.#gated !== null) Object.assign(this.#gated, this.#isHolding ? this.#closed : this.#open);
  }

  #hold(make: () => MaybePromise<unknown>): MaybePromise<unknown> {
    if (this.#held.length >= MAX_HELD_CALLS) throw errnoError(E.ENOMEM);
    return new Promise((resolve, reject) => this.#held.push({ make, resolve, reject }));
  }

  /** A call that is held may name this handle, though its caller was killed, and the next one that opens a file would get it. Its turn is behind them. */
  #closeInTurn(close: () => void): void {
    if (this.#held.length === 0) close();
    // At the end of the mount it is closed as well.
    else this.#held.push({ make: close, resolve: () => undefined, reject: close });
  }
}
