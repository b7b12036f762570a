/**
 * With what terms a reply tells the kernel of an inode: whether its name and its attributes are valid (hazards F4, F6), and which size it has (hazard F5). Asked
 * once for each inode of a reply, in the turn in which that is written; what is told is noted.
 */
import type { ChildPin, Inode, Listing, Since } from "./cover.ts";
import type { KernelNames } from "./names/kernel-names.ts";
import type { KernelSizes } from "./size/kernel-sizes.ts";
import { SENTINEL_SIZE } from "./size/sentinel.ts";

export interface ReplyTerms {
  readonly entryValid: boolean;
  readonly attrValid: boolean;
  /** What the kernel is to take for the file's size. */
  readonly size: number;
}

/** By which name. Its directory is pinned. */
export interface Named {
  readonly dir: Inode;
  readonly name: Buffer;
  /** As in KernelNames.tellEntry. */
  readonly revalidated?: boolean;
  /** A listing's: as in KernelNames.tellEntry. */
  readonly listing?: Listing | null;
  /** False: it may be another inode's by now, and is told as if that came a moment later (hazard F38). */
  readonly stands?: boolean;
}

/** The locks that are here, and what the kernel was told under them: pins.ts. */
export interface TermsPort {
  readonly names: Pick<KernelNames, "tellEntry">;
  readonly sizes: Pick<KernelSizes, "known" | "told" | "toldSentinel">;
  since(): Since;
  /** With a pin held: may that thread be told attributes as valid that were read since? No while the inode is revoked, or if they were changed. */
  attrValid(inode: Inode, caller: number, since: Since): boolean;
  /** The lock is being given up: is it still here, and was since, so that attributes read since are true in this turn? `since`: null: is it still here? */
  stillHeld(inode: Inode, since: Since | null): boolean;
}

/** `size`: as the lower gave it. `name`: null: the reply tells none. */
export class Terms {
  readonly #port: TermsPort;

  constructor(port: TermsPort) {
    this.#port = port;
  }

  /** With a pin held, under which the attributes were read. `since`: null: they go without validity. */
  of(inode: Inode, size: number, caller: number, since: Since | null, name: Named | null): ReplyTerms {
    const entryValid = this.#tellName(inode, name);
    const attrValid = since !== null && this.#port.attrValid(inode, caller, since);
    this.#port.sizes.told(inode, size);
    return { entryValid, attrValid, size };
  }

  /** Of an inode that was just made here (Coherence.enterNew): there is no size yet that could be wrong. */
  ofNew(inode: Inode, size: number, caller: number, pinned: boolean, name: Named | null): ReplyTerms {
    const entryValid = this.#tellName(inode, name);
    if (!pinned) return { entryValid, attrValid: false, size: this.#uncovered(inode, size) };
    return { entryValid, attrValid: this.#port.attrValid(inode, caller, this.#port.since()), size };
  }

  /**
   * Of a child whose lock was not to be had (Coherence.pinChild). `seen`: where `mustLook` said so, the kernel's own size a moment ago: if that has changed since,
   * the kernel drops a reply that is older. Null: it can not be seen, or need not be.
   */
  ofUnpinned(child: Inode, size: number, since: Since, name: Named, seen: number | null): ReplyTerms {
    const entryValid = this.#tellName(child, name);
    if (seen !== null) return { entryValid, attrValid: false, size: seen };
    const told = this.#mayHavePages(child) && this.#isTheKernels(child, since) ? size : this.#uncovered(child, size);
    this.#port.sizes.told(child, told);
    return { entryValid, attrValid: false, size: told };
  }

  /** May a child be told of in this turn, by what was read since? Else it is read again, its size made known (KernelSizes.tell), or looked at (`mustLook`). */
  mayTell(child: Inode, { pinned, trip }: ChildPin, since: Since): boolean {
    return pinned ? !trip && this.#port.sizes.known(child) : !this.mustLook(child, since);
  }

  /** Not pinned: is the kernel to be told the size that it has (KernelSizes.seen)? */
  mustLook(child: Inode, since: Since): boolean {
    return this.#mayHavePages(child) && !this.#isTheKernels(child, since);
  }

  #tellName(inode: Inode, named: Named | null): boolean {
    if (named === null) return false;
    const { dir, name, revalidated, listing, stands } = named;
    return this.#port.names.tellEntry(dir, name, inode, revalidated, listing) && stands !== false;
  }

  /** The lock is elsewhere: what it says of the size goes for nothing. */
  #uncovered(inode: Inode, size: number): number {
    if (inode.kind !== "file") return size;
    this.#port.sizes.toldSentinel(inode);
    return SENTINEL_SIZE;
  }

  /** The kernel may still have pages of it, and would show what is behind the end of the last one if it was given the sentinel. */
  #mayHavePages(child: Inode): boolean {
    return child.kind === "file" && child.nlookup > 0 && this.#port.stillHeld(child, null);
  }

  /** Is the size that was found the file's, and the kernel's? */
  #isTheKernels(child: Inode, since: Since): boolean {
    return this.#port.stillHeld(child, since) && this.#port.sizes.known(child);
  }
}
