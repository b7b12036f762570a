/**
 * The lock state of one inode on this node, and what its kernel was told about it. Pure data: lock-cache.ts, revoke.ts,
 * names.ts and write-token.ts are the rules over it.
 *
 * A cover outlives the inode record: the kernel forgets an inode long before the lock on it is worth giving back. There is one for
 * each inode that is cached, so its size counts: what most of them do not need is null or shared. (A time that most do not have is null,
 * not a number: V8 gives each object a box of 16 bytes for a property that in some object is no small integer.)
 */
import { AssertionError } from "../../dlmd/base/assert.ts";
import type { Errno } from "../../dlmd/base/errno.ts";
import type { Lock } from "../../dlmd/client/api.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import { type DirectoryTurn, type FileFight, type Revoke, SizeState, type WriteToken } from "./cover-parts.ts";
import type { PageRange } from "./page-range.ts";
import { type FileId, fileKey } from "../lower/lower.ts";

/** The root's number (FUSE_ROOT_ID in the kernel). */
export const ROOT_FUSE_NODEID = 1;

export type InodeKind = "file" | "directory" | "other";

/**
 * What the kernel has an inode's number and generation from. `fuseNodeid` is a number of our own (inode/numbers.ts), of one inode at a
 * time, so a reused inode number can not be taken for the old file.
 */
export interface NumberedInode {
  readonly fuseNodeid: number;
  readonly id: FileId;
}

/**
 * What the kernel is told with the number, each time the same: else it takes the inode that it has for another one, and fails all that is asked of
 * that (fs/fuse/inode.c, fuse_stale_inode; hazard F29). That of the root is always 0 there.
 */
export function fuseGeneration({ fuseNodeid, id }: NumberedInode): number {
  return fuseNodeid === ROOT_FUSE_NODEID ? 0 : id.generation;
}

/** An inode that this mount's kernel knows, as this room sees it; inode/table.ts has the record. */
export interface Inode extends NumberedInode {
  readonly kind: InodeKind;
  /** The kernel's lookup count (0: it has forgotten the inode). The root counts 1 for ever. */
  nlookup: number;
  /** Of these: what a process before this one had written down, and the kernel may not have, or have given back (hazard F39). */
  unsure?: number;
  /** Open handles of this mount. */
  openCount: number;
  /** Those of them through which a shared mapping may be written: O_RDWR, with a page cache. */
  mappableCount: number;
  readonly cover: Cover;
}

export type PinMode = typeof Mode.PR | typeof Mode.EX;

/**
 * idle: pins are given as the mode allows.
 * draining: somebody else wants the lock; running operations finish, new ones wait.
 * publishing: a directory waits until the inodes born in it are known to dlmd.
 * invalidating: the kernel's caches are being dropped; data requests pass (hazard F1).
 * converting: the lower mode was sent; nothing passes until dlmd confirms.
 */
export type Phase = "idle" | "draining" | "publishing" | "invalidating" | "converting";

/** One operation that waits for a pin. */
export interface PinWaiter {
  readonly mode: PinMode;
  /** May pass during a revoke: the kernel may hold page locks for it. */
  readonly passes: boolean;
  /** A READ's, all of which the kernel has locked until it is answered, with nothing in them. */
  readonly pages?: PageRange;
  /** No operation, but the expectation of one (revoke.ts, returnExpected). */
  readonly expected?: boolean;
  /** Called once: null when pinned. */
  readonly settle: (error: Errno | null) => void;
}

/** One child lock asked for without waiting for other nodes. */
export type ChildWaiter = (pinned: boolean) => void;

/** What the kernel was last told under a name of a directory. */
export interface ToldName {
  readonly dir: Cover;
  /** The name in latin1 spelling, as it stands in `dir.names.byKey`. */
  readonly key: string;
  /** null: a negative entry. */
  child: Cover | null;
  /** The mount's epoch in which validity was given with it; 0: none is in force. */
  validEpoch: number;
  /** By a listing: it may have been installed later than it was told, and then stands in the epoch of that (hazard F48). */
  listed: boolean;
  /** When it was last told while the kernel already had it; null: told once, under the directory's lock. */
  rearmedAt: number | null;
  /** The next name of the same child (`toldIn`). */
  next: ToldName | null;
}

/** A READDIRPLUS that was answered, with names that its thread may not have installed yet. */
export interface Listing {
  readonly dir: Cover;
  readonly fh: number;
  readonly tid: number;
  /** Called when it is over. */
  readonly waiters: (() => void)[];
}

/** What the kernel was told of a directory's names (names/names.ts). */
export class ToldNames {
  /** By latin1 spelling. */
  readonly byKey: Map<string, ToldName> = new Map();
  /** How many of them are negative. */
  negatives = 0;
  /** Under way (names/listings.ts). */
  listings: readonly Listing[] = NOBODY;
  /** When the last one ended. */
  listedEpoch = 0;
}

/** `attrTaker`, if it is not one thread. */
export const NO_TAKER = 0;
export const MANY_TAKERS = -1;

/** Of every cover that nobody waits for. */
export const NOBODY: readonly never[] = Object.freeze([]);

/** Of a child. `trip`: the lock was not here all the time since its attributes were read. */
export interface ChildPin {
  readonly pinned: boolean;
  readonly trip: boolean;
}

/** A moment of the mount, taken before the lower is asked: what has happened to an inode since tells whether the answer still counts. */
export type Since = number & { readonly __since: unique symbol };

export class Cover {
  readonly id: FileId;
  readonly kind: InodeKind;
  /** The record of the inode while the kernel knows it. */
  inode: Inode | null = null;
  /** Granted mode: NL, PR or EX. */
  mode: Mode = Mode.NL;
  /** The mode of the request that dlmd has of us now. */
  asking: Mode | null = null;
  /** The outstanding request is for a child (NOQUEUE). */
  askingForChild = false;
  /** EX, but dlmd does not know yet: nobody else can know the inode. */
  unregistered = false;
  /** Which birth of the mount it was, from 1; 0: it was not born here. */
  born = 0;
  /** How many births there were when the kernel last forgot it. */
  bornUntilForgotten = 0;
  /** The request that makes it known is under way. */
  registering = false;
  phase: Phase = "idle";
  pins = 0;
  /** Pins since the grant: a lock that was used much is worth a minimum hold time. */
  uses = 0;
  /** Somebody here read under it since it was last taken away. */
  read = false;
  /** Of a file. null: its lock does not go to and fro. */
  fight: FileFight | null = null;
  /** A whole number. */
  grantedAt = 0;
  /** The moment of the last grant (CoherenceState.moment), from 1: the lock was here all the time since. */
  grant = 0;
  /** That of the first one since it was last NL: no other node has changed the inode since. */
  heldSince = 0;
  /** null: never. */
  revokedAt: number | null = null;
  /** Never changed in place, but replaced. */
  waiters: readonly PinWaiter[] = NOBODY;
  childWaiters: readonly ChildWaiter[] = NOBODY;
  /** The strongest mode that another node waits for; NL: none. */
  wanted: Mode = Mode.NL;
  /** null: the phase is "idle". */
  revoke: Revoke | null = null;
  /** How often pages of it were dropped by a revoke. */
  sweeps = 0;
  /** A timer is set for this cover, so that no second one is. */
  timerSet = false;
  /** Of a directory. null: its lock was not taken away since it was changed here. */
  turn: DirectoryTurn | null = null;
  /** Of a directory. null: no name of it was told. */
  names: ToldNames | null = null;
  /** Of a file; null: nothing is known of the size that the kernel has, and nothing makes it wrong. */
  size: SizeState | null = null;
  /** The kernel has its attributes with validity: told so, and nothing that changes them was done since. */
  attrTold = false;
  /** Who was told so and may not have taken it yet (told-attributes.ts). */
  attrTaker: number = NO_TAKER;
  /** The moment of the last change of its attributes; 0: none. */
  changedAt = 0;
  /** It was told as valid since the lock came, and counts against the limit: its place there (cache-limit.ts); -1: it does not. */
  cachedAt = -1;
  /** The first of this inode's names that were told: to be taken out when the kernel forgets it. */
  toldIn: ToldName | null = null;
  token: WriteToken | null = null;
  /** Made here, and EX ever since: the write token is implied (lock/write-token.ts). */
  sinceBirth = false;
  /** What the shell asks dlmd with; null: it never did. */
  lock: Lock | null = null;
  /** Its last name and last handle are gone: the lock goes as soon as the kernel forgets it. */
  doomed = false;

  constructor(id: FileId, kind: InodeKind) {
    this.id = id;
    this.kind = kind;
  }

  /** What it is called elsewhere. Made when it is asked for: most covers go before anybody does. */
  get key(): string {
    return fileKey(this.id);
  }
}

/** The record of its inode that operations have in hand now: the cover outlives it. */
export function attach(inode: Inode): void {
  const { cover } = inode;
  if (cover.inode !== inode) cover.inode = inode;
}

/** Of a cover whose phase is not "idle". */
export function revokeOf(cover: Cover): Revoke {
  const { revoke } = cover;
  if (revoke === null) throw new AssertionError(`no revoke of ${cover.key} is under way`);
  return revoke;
}

export function sizeOf(cover: Cover): SizeState {
  cover.size ??= new SizeState();
  return cover.size;
}

export function tokenHeld({ token }: Cover): boolean {
  return token !== null && token.state === "held";
}

/** The kernel has, or will get from a reply already written, this inode. An open one it has in any case; over libfuse 2 that alone counts. */
export function kernelKnows({ inode }: Cover): boolean {
  return inode !== null && (inode.nlookup > 0 || inode.openCount > 0);
}

/** The kernel may have attributes of it that are valid, or pages: what it had was not dropped since the lock was here. */
export function mayBeCached(cover: Cover): boolean {
  return kernelKnows(cover) && (cover.mode !== Mode.NL || cover.phase !== "idle");
}

/** No lock of it is here or asked for, and nothing goes on with it: the kernel has nothing that one covered. */
export function isReleased({ mode, phase, asking, pins, waiters, registering }: Cover): boolean {
  return mode === Mode.NL && phase === "idle" && asking === null && pins === 0 && waiters.length === 0 && !registering;
}

/** Those that the inode table has. */
export function inodesOf(covers: Iterable<Cover>): Inode[] {
  const inodes: Inode[] = [];
  for (const { inode } of covers) if (inode !== null) inodes.push(inode);
  return inodes;
}
