/** What the pure rules of this room want done; shell.ts does it, in this order. */
import { AssertionError } from "../../dlmd/base/assert.ts";
import type { Errno } from "../../dlmd/base/errno.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { ChildWaiter, Cover, PinWaiter } from "./cover.ts";
import type { TokenWaiter, WriteToken } from "./cover-parts.ts";
import type { PageRange } from "./page-range.ts";
import { FoughtDirectories } from "./names/fought.ts";
import { Listings } from "./names/listings.ts";
import type { ExpiryPlan } from "./names/names.ts";

/** What the kernel has to drop of an inode. */
export type InvalidationPlan =
  /** Nothing, but what was answered must have been taken: on the way to PR. */
  | { readonly what: "late" }
  /** Attributes, and pages but these. */
  | { readonly what: "pages"; readonly except: readonly PageRange[] }
  /** The same, and the size becomes the sentinel (hazard F5). */
  | { readonly what: "pages-and-size"; readonly except: readonly PageRange[] }
  /** Names told with validity, then the directory's attributes. */
  | { readonly what: "names"; readonly expiry: ExpiryPlan };

export type TimerPurpose =
  /** The minimum hold time is over. */
  | "hold"
  /** Invalidate again: the kernel did not find an inode that it must still get (hazard F4). */
  | "retry"
  /** Data requests held back between two rounds of a revoke pass now (hazard F1). */
  | "pass"
  /** So do those that are kept back for the kernel's size (hazard F5). */
  | "strained";

/**
 * "first": before all who wait for it; another process of this mount has it (hazard F33). "kept": dlmd keeps it of a process of this mount that crashed (hazard F38).
 * "born": of a file that nobody else knows.
 */
export type TokenRequest = "first" | "kept" | "born";

export type Effect =
  | { readonly do: "request"; readonly cover: Cover; readonly mode: Mode; readonly flags: number }
  | { readonly do: "invalidate"; readonly cover: Cover; readonly plan: InvalidationPlan }
  | { readonly do: "timer"; readonly cover: Cover; readonly purpose: TimerPurpose; readonly delayMs: number }
  | { readonly do: "settle"; readonly waiter: PinWaiter; readonly error: Errno | null }
  /** Being given up by a reader who came back each time before: ask for PR before he does, and fetch what he will want. */
  | { readonly do: "expect"; readonly cover: Cover }
  /** Being given up, and a change waits here for the lock: EX is asked for in the same message, from the end of the queue. */
  | { readonly do: "ask-anew"; readonly cover: Cover }
  /** So many more files that were made here are to be lowered, a few at a time (hazard F34). */
  | { readonly do: "lower-rest"; readonly files: number }
  | { readonly do: "settle-child"; readonly waiter: ChildWaiter; readonly pinned: boolean }
  | { readonly do: "request-token"; readonly cover: Cover; readonly how?: TokenRequest }
  | { readonly do: "unlock-token"; readonly cover: Cover }
  /** Of births-lock.ts. */
  | { readonly do: "ask-births"; readonly ask: () => void }
  | { readonly do: "unlock-births" }
  | { readonly do: "settle-token"; readonly waiter: TokenWaiter; readonly result: "cached" | "direct" };

/** State shared by all covers of a mount. */
export class CoherenceState {
  readonly effects: Effect[] = [];
  /** PR to EX, tried and refused (lock/upgrades.ts): how often in a row, and when last. */
  readonly refused: { inRow: number; at: number } = { inRow: 0, at: 0 };
  /** Covers whose lock or token dlmd does not know yet (born here). */
  readonly unregistered: Set<Cover> = new Set();
  /** Born here, and made known to dlmd as EX, which nobody has asked for since (lock/new-inodes.ts). */
  readonly kept: Set<Cover> = new Set();
  /** Locks and tokens whose first request is under way. */
  readonly registering: Set<Cover | WriteToken> = new Set();
  /** Directories in "publishing", with what they still wait for; and so the lock of births (births-lock.ts). */
  readonly publishing: Map<Cover | "births", Set<Cover | WriteToken>> = new Map();
  /** By calling thread: the inode of which it has a late reply (size/doubt.ts). */
  readonly lateOf: Map<number, Cover> = new Map();
  /** By calling thread: the inode of which it was told a size (size/asked.ts). */
  readonly toldOf: Map<number, Cover> = new Map();
  /** This node does not know any more what it holds, or the kernel has ended the connection: nothing is pinned, nothing counts as covered. */
  abandoned = false;
  /** Without the lease: no lock is asked for or given up. */
  suspended = false;
  /** Raised by each lock that is granted, each change of attributes that is made here, each death of an owner, and where names are dropped for a killed change: Since. */
  moment = 0;
  /** Inodes born here so far. */
  births = 0;
  /** The moment from which inodes may be born here without a message (hazard F51); 0: they may not. */
  birthsFrom = 0;
  /** When all that was read before was last not true any more (distrustCovers); 0: never. */
  ownerDiedAt = 0;
  /** When names were last dropped that a change had outdated whose caller was killed, or whose outcome nobody knows; 0: never. */
  namesDroppedAt = 0;
  /** Directories whose names get no validity for a time. */
  readonly fought: FoughtDirectories = new FoughtDirectories();
  /** Answered, and perhaps not installed yet. */
  readonly listings: Listings = new Listings();
  /** The mount's entry epoch, from 1; raised when INC_EPOCH is sent, in the same turn: until then names of before are to be expired. */
  epoch = 1;
  /** A contended lock that is in use is kept at least so long; contended: revoked within that time before. */
  readonly limits: { readonly minHoldMs: number; readonly contendedMs: number } = { minHoldMs: 3, contendedMs: 100 };
}

/** Has dlmd asked for that mode: one request at a time. */
export function ask(state: CoherenceState, cover: Cover, mode: Mode, flags: number): void {
  if (cover.asking !== null || cover.registering) throw new AssertionError(`second request for ${cover.key}`);
  cover.asking = mode;
  state.effects.push({ do: "request", cover, mode, flags });
}

/** All names of the mount lose their validity, because those of `dir` cannot be expired alone: INC_EPOCH is sent. */
export function raiseEpoch(state: CoherenceState, dir: Cover): void {
  state.epoch += 1;
  state.fought.noteEpoch(dir);
}

/** Its lock came, or it was born here. `before`: the mode that was held until then, all the time. */
export function noteGranted(state: CoherenceState, cover: Cover, before: Mode, now: number): void {
  cover.grantedAt = Math.ceil(now);
  state.moment += 1;
  cover.grant = state.moment;
  if (before === Mode.NL) cover.heldSince = state.moment;
}
