/**
 * The lock state of one inode on this node, and what its kernel was told about it. Pure data: lock-cache.ts, revoke.ts,
 * names.ts and write-token.ts are the rules over it.
 *
 * A cover outlives the inode record: the kernel forgets an inode long before the lock on it is worth giving back. There is one for
 * each inode that is cached, so its size counts: what most of them do not need is null or shared. (A time that most do not have is null,
 * not a number: V8 gives each object a box of 16 bytes for a property that in some object is no small integer.)
 */
import type { Errno } from "../../dlmd/base/errno.ts";
import type { Lock } from "../../dlmd/client/api.ts";
import { Mode } from "../../dlmd/wire/mode.ts";
import type { PageRange } from "./page-range.ts";
import type { FileId } from "../lower/lower.ts";

/** The root's number (FUSE_ROOT_ID in the kernel). */
export const ROOT_FUSE_NODEID = 1;

export type InodeKind = "file" | "directory" | "other";

/**
 * An inode that this mount's kernel knows, as this room sees it; inode/table.ts has the record. `fuseNodeid` is a number of our own that is
 * never used twice, so a reused inode number can not be taken for the old file.
 */
export interface Inode {
  readonly fuseNodeid: number;
  readonly id: FileId;
  /** fileKey(id). */
  readonly key: string;
  readonly kind: InodeKind;
  /** The kernel's lookup count (0: it has forgotten the inode). The root counts 1 for ever. */
  nlookup: number;
  /** Open handles of this mount. */
  openCount: number;
  /** Those of them through which a shared mapping may be written: O_RDWR, with a page cache. */
  mappableCount: number;
  readonly cover: Cover;
}

export type PinMode = typeof Mode.PR | typeof Mode.EX;

/**
 * What the end of a call that was answered does to the kernel's size (size/doubt.ts). "raises": to the end of what was written. "misplaced": the same,
 * but that is not the file's true end. "sets": whatever the reply said.
 */
export type SizeEffect = "raises" | "misplaced" | "sets";

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
  /** The name in latin1 spelling, as it stands in `dir.names`. */
  readonly key: string;
  /** null: a negative entry. */
  child: Cover | null;
  /** The mount's epoch in which validity was given with it; 0: none is in force. */
  validEpoch: number;
  /** When it was last told while the kernel already had it; null: told once, under the directory's lock. */
  rearmedAt: number | null;
  /** The next name of the same child (`toldIn`). */
  next: ToldName | null;
}

/** An open that waits for the write token. */
export type TokenWaiter = (result: "cached" | "direct") => void;

export type TokenState = "none" | "asking" | "held";

/** The right to have a page cache with write access: at most one node per file (write-token.ts). */
export class WriteToken {
  state: TokenState;
  /** Held, but dlmd does not know yet: the file was created here (new-inodes.ts). */
  unregistered: boolean;
  users = 0;
  wanted = false;
  /** A WRITE from a shared mapping was seen since the last close (hazard F9). */
  mapped = false;
  waiters: TokenWaiter[] = [];

  constructor(born = false) {
    this.state = born ? "held" : "none";
    this.unregistered = born;
  }
}

/** Between the notifications of a revoke, and the data requests that pass during it. */
export interface RevokeGate {
  /** The sentinel will not be stored in this round. False: it is being stored just now. */
  shut(): boolean;
}

/** `attrTaker`, if it is not one thread. */
export const NO_TAKER = 0;
export const MANY_TAKERS = -1;

/** Of every cover that nobody waits for. */
export const NOBODY: readonly never[] = Object.freeze([]);

export class Cover {
  readonly id: FileId;
  readonly key: string;
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
  /** The request that makes it known is under way. */
  registering = false;
  phase: Phase = "idle";
  pins = 0;
  /** Pins since the grant: a lock that was used much is worth a minimum hold time. */
  uses = 0;
  /** Somebody here read under it since it was last taken away. */
  read = false;
  /** Times in a row that it was taken away and then read under again. */
  returns = 0;
  /** A whole number. */
  grantedAt = 0;
  /** Which grant of the mount it was, from 1: the lock was here all the time since. */
  grant = 0;
  /** null: never. */
  revokedAt: number | null = null;
  /** Never changed in place, but replaced. */
  waiters: readonly PinWaiter[] = NOBODY;
  childWaiters: readonly ChildWaiter[] = NOBODY;
  /** The strongest mode that another node waits for; NL: none. */
  wanted: Mode = Mode.NL;
  /** Where the revoke under way ends. */
  target: Mode = Mode.NL;
  /** Invalidation rounds of this revoke, and data requests answered during the present one. */
  round = 0;
  answered = 0;
  /** How often pages of it were dropped by a revoke. */
  sweeps = 0;
  /** A notification of this revoke is being written. */
  notifying = false;
  /** Times that the kernel did not find an inode that it must still get (hazard F4). */
  misses = 0;
  /** A timer is set for this cover, so that no second one is. */
  timerSet = false;
  /** Directories: names told to the kernel, by latin1 spelling. */
  names: Map<string, ToldName> | null = null;
  /** How many of them are negative. */
  negatives = 0;
  /** Directories fought over give no entry validity until then (hazard F6). */
  hotUntil: number | null = null;
  /** The kernel's size of this file may be wrong (size/doubt.ts) ... */
  sizeDoubt = false;
  /** Raised by whatever may make it wrong, or larger than a READ under way knows. */
  sizeMark = 0;
  /** The size that the kernel was last told; -1: none. */
  sizeTold = -1;
  /** While the kernel's size is known, it is at least that; -1: not known to be anything. */
  sizeLeast = -1;
  /** ... and a reply of that effect on it may not have been taken yet; null: none. */
  late: SizeEffect | null = null;
  /** Whose it is; 0: of a thread that can not be seen from here. */
  lateTid = 0;
  /** What it will make of the size may not be what the size should be. */
  lateHarms = false;
  /** Where it raises the size to, or what it sets it to. */
  lateEnd = 0;
  /** The kernel's size was seen to be what it should be, whether that reply was taken or not. */
  lateSeen = false;
  /** Calls that wait for the lock, and until they are answered the kernel takes no size (size/kernel-sizes.ts, unstable). */
  unstable = 0;
  /** Changes of the size under way that may make it smaller (size/kernel-sizes.ts, SizeChange). */
  truncating = 0;
  /** Threads whose replies with a size may not have been taken yet (size/asked.ts); null: none. */
  askers: Set<number> | null = null;
  /** The last request that came with the kernel's lock of the inode, if it is not answered. */
  lockHolder: { readonly answered: boolean } | null = null;
  /** What cuts the notifications of a revoke short before the sentinel; null: none are being written. */
  gate: RevokeGate | null = null;
  /** The kernel has its attributes with validity: told so, and nothing that changes them was done since. */
  attrTold = false;
  /** Who was told so and may not have taken it yet (told-attributes.ts). */
  attrTaker: number = NO_TAKER;
  /** Which change of the mount was the last one of its attributes; 0: none. */
  changedAt = 0;
  /** It was told as valid since the lock came, and counts against the limit: its place there (cache-limit.ts); -1: it does not. */
  cachedAt = -1;
  /** The first of this inode's names that were told: to be taken out when the kernel forgets it. */
  toldIn: ToldName | null = null;
  token: WriteToken | null = null;
  /** What the shell asks dlmd with; null: it never did. */
  lock: Lock | null = null;
  /** Its last name and last handle are gone: the lock goes as soon as the kernel forgets it. */
  doomed = false;

  /**
   * V8 gives each object a box of 16 bytes for a property that in one of them was a number and no small integer; but only where it is one if there was
   * null in it before. A size may be large: so the first of all covers, which stands for nothing, has null there (64 bytes less for each other one).
   * It is kept, because its shape would go with it.
   */
  static readonly first: unknown = Object.assign(new Cover({ ino: 0, generation: 0 }, "", "file"), {
    lateEnd: null,
    sizeTold: null,
    sizeLeast: null,
    grantedAt: null,
  });

  constructor(id: FileId, key: string, kind: InodeKind) {
    this.id = id;
    this.key = key;
    this.kind = kind;
  }
}

/** The record of its inode that operations have in hand now: the cover outlives it. */
export function attach(inode: Inode): void {
  const { cover } = inode;
  if (cover.inode !== inode) cover.inode = inode;
}

export function tokenHeld({ token }: Cover): boolean {
  return token !== null && token.state === "held";
}

/** The kernel has, or will get from a reply already written, this inode. */
export function kernelKnows(cover: Cover): boolean {
  return cover.inode !== null && cover.inode.nlookup > 0;
}

/** The kernel may have attributes of it that are valid, or pages: what it had was not dropped since the lock was here. */
export function mayBeCached(cover: Cover): boolean {
  return kernelKnows(cover) && (cover.mode !== Mode.NL || cover.phase !== "idle");
}

/** Those that the inode table has. */
export function inodesOf(covers: Iterable<Cover>): Inode[] {
  const inodes: Inode[] = [];
  for (const { inode } of covers) if (inode !== null) inodes.push(inode);
  return inodes;
}
