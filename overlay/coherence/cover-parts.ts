/**
 * The parts of a cover that belong to one room each, and that most covers do not need: null until that room does. Pure data.
 * (What a directory was told of its names is in cover.ts, because it leads to other covers.)
 */
import { Mode } from "../../dlmd/wire/mode.ts";

/**
 * What the end of a call that was answered does to the kernel's size (size/doubt.ts). "raises": to the end of what was written. "misplaced": the same,
 * but that is not the file's true end. "sets": whatever the reply said. "clears": as "raises", and pages are zeroed or dropped, whatever the
 * size is: where a hole was made, or something was copied to.
 */
export type SizeEffect = "raises" | "clears" | "misplaced" | "sets";

/** A reply that changes the kernel's size, answered, and perhaps not taken yet by its thread. */
export interface LateReply {
  effect: SizeEffect;
  /** Whose it is; 0: of a thread that can not be seen from here. */
  readonly tid: number;
  /** Where it raises the size to, or what it sets it to. */
  end: number;
  /** What it will make of the size may not be what the size should be. */
  harms: boolean;
  /** The kernel's size was seen to be what it should be, whether that reply was taken or not. */
  seen: boolean;
}

/** The room size/: what is known of the kernel's size of a file. */
export class SizeState {
  /** It may be wrong (size/doubt.ts) ... */
  doubt = false;
  /** ... and that reply may make it so; null: none. */
  late: LateReply | null = null;
  /** Raised by whatever may make it wrong, or larger than a READ under way knows. */
  mark = 0;
  /** The size that the kernel was last told; -1: none. */
  told = -1;
  /** While the kernel's size is known, it is at least that; -1: not known to be anything. */
  least = -1;
  /** Calls that wait for the lock, and until they are answered the kernel takes no size (size/kernel-sizes.ts, unstable). */
  unstable = 0;
  /** Changes of the size under way that may make it smaller (size/kernel-sizes.ts, SizeChange). */
  truncating = 0;
  /** Threads whose replies with a size may not have been taken yet (size/asked.ts); null: none. */
  askers: Set<number> | null = null;
  /** The last request that came with the kernel's lock of the inode, if it is not answered. */
  lockHolder: { readonly answered: boolean } | null = null;

  /**
   * V8 gives each object a box of 16 bytes for a property that in one of them was a number and no small integer; but only where it is one if there was
   * null in it before. A size may be large: so the first of all, which stands for nothing, has null there. It is kept, because its shape would go with it.
   */
  static readonly first: unknown = Object.assign(new SizeState(), { told: null, least: null });
}

/** Between the notifications of a revoke, and the data requests that pass during it. */
export interface RevokeGate {
  /** The sentinel will not be stored in this round. False: it is being stored just now. */
  shut(): boolean;
}

/** The room lock/: a revoke under way (lock/revoke.ts). */
export class Revoke {
  /** Where it ends. */
  readonly target: Mode;
  /** Invalidation rounds, and data requests answered during the present one. */
  round = 0;
  answered = 0;
  /** A notification is being written. */
  notifying = false;
  /** Times that the kernel did not find an inode that it must still get (hazard F4). */
  misses = 0;
  /** What cuts the notifications short before the sentinel; null: none are being written. */
  gate: RevokeGate | null = null;
  /** dlmd has died, and the lock stays: no round begins any more (hazard F42). */
  kept = false;
  /** READs are kept back in it (size/doubt.ts, keepsReadsBack), and that will end; `strained`: it has. */
  straining = false;
  strained = false;

  constructor(target: Mode) {
    this.target = target;
  }
}

/** The room lock/: the turns of this node at a directory (lock/turn.ts). Times are whole numbers; 0: none. */
export class DirectoryTurn {
  /** In this one. */
  changes = 0;
  /** In the last one there were some. */
  changedLast = false;
  /** When the last one ended. */
  endedAt = 0;
  /** Another node waits for the end, which is then at the latest. */
  endsAt = 0;
  /** When it is looked whether anything was changed since `changes` was `seen`. */
  lookAt = 0;
  seen = 0;
  /** Something was changed while another node waited for its end. */
  used = false;
  /** Nothing was, in the last one that another node had to wait for: the next ones end at once, until this node came back soon after so many of them. */
  vain = 0;
  /** So many the next time. */
  vainNext = 1;
  /** The last one ended at once. */
  cutShort = false;
}

/** The room lock/: a file whose lock goes to and fro between nodes (lock/migration.ts, lock/revoke.ts, lock/hold.ts). */
export class FileFight {
  /** Times in a row that it was taken away and then read under again. */
  returns = 0;
  /** Times in a row that it was asked for to look, and then to change the file. */
  upgrades = 0;
  /** When that was the last time. A whole number. */
  upgradedAt = 0;
  /** EX was asked for to look, and nothing was changed under it yet. */
  ahead = false;
  /** It stays for a moment: how often it had been used when that began; null: it does not. */
  heldAt: number | null = null;
  /** So many times it does not stay; and the next time that it was in vain. */
  holdsLeftOut = 0;
  leftOutNext = 1;
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
