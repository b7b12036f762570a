/**
 * Hazard H10. Which inodes are orphans: without a name for those who use the volume, and open somewhere, so that a name in the volume's hidden directory
 * keeps them (overlay/lower/README.md, "Open files without a name"). Pure: what is an orphan, what its users are told, and when its name may go.
 */
import { assert } from "../../../dlmd/base/assert.ts";
import type { FileId } from "../lower.ts";

const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
const S_IFDIR = 0o040000;

/**
 * "absent": there is no hidden directory, nothing is kept. "claims": of those that an earlier owner left, nobody knows yet which are open at
 * callers that have not come back; no name goes. "settled": a name goes with the last close. "ending": the next owner goes on with them; no
 * name goes.
 */
export type OrphanPhase = "absent" | "claims" | "settled" | "ending";

export interface Orphan {
  readonly id: FileId;
  readonly name: Buffer;
  readonly directory: boolean;
  /** It was made without a name, and may get one (hazard F30). */
  readonly linkable: boolean;
}

export class OrphanTable {
  readonly #orphans: Map<number, Orphan> = new Map();
  readonly #root: number;
  #phase: OrphanPhase = "absent";

  /** `rootIno`: of the directory in which the hidden one is. */
  constructor(rootIno: number) {
    this.#root = rootIno;
  }

  get phase(): OrphanPhase {
    return this.#phase;
  }

  get count(): number {
    return this.#orphans.size;
  }

  all(): Orphan[] {
    return [...this.#orphans.values()];
  }

  /** The hidden directory is there, with what an earlier owner left in it. */
  begin(found: readonly Orphan[]): void {
    assert(this.#phase === "absent", `orphans are read in phase ${this.#phase}`);
    this.#phase = "claims";
    for (const orphan of found) this.add(orphan);
  }

  /** All callers that had files open at an earlier owner have opened them again, or are gone. Those that nobody has open are to go. */
  settle(isOpen: (id: FileId) => boolean): Orphan[] {
    if (this.#phase === "claims") this.#phase = "settled";
    return this.#phase === "settled" ? this.all().filter(({ id }) => !isOpen(id)) : [];
  }

  /** This owner ends: what is closed from now on is closed by its end, and not by those who have it open. */
  end(): void {
    if (this.#phase !== "absent") this.#phase = "ending";
  }

  add(orphan: Orphan): void {
    this.#orphans.set(orphan.id.ino, orphan);
  }

  delete(id: FileId): void {
    if (this.get(id) !== undefined) this.#orphans.delete(id.ino);
  }

  get(id: FileId): Orphan | undefined {
    const orphan = this.#orphans.get(id.ino);
    return orphan !== undefined && orphan.id.generation === id.generation ? orphan : undefined;
  }

  /** Whether an inode whose last name goes is to get one in the hidden directory. `nlink`: as callers are told. */
  keeps(mode: number, nlink: number, open: boolean): boolean {
    // Callers that have not come yet may have it open.
    if (this.#phase === "absent" || (!open && this.#phase !== "claims")) return false;
    const type = mode & S_IFMT;
    return type === S_IFDIR || (type === S_IFREG && nlink === 1);
  }

  /** The last handle was closed: the name that is to go. */
  lastClosed(id: FileId): Orphan | undefined {
    return this.#phase === "settled" ? this.get(id) : undefined;
  }

  /** Links as callers are told, who do not see the hidden directory. An inode number is enough: one in use is of one generation. */
  toldLinks(ino: number, nlink: number): number {
    // The hidden directory's "..": where there are too many, ext4 counts none.
    if (ino === this.#root) return this.#phase !== "absent" && nlink > 2 ? nlink - 1 : nlink;
    const orphan = this.#orphans.get(ino);
    if (orphan === undefined) return nlink;
    return orphan.directory ? 0 : Math.max(0, nlink - 1);
  }
}

const LINKABLE = ".linkable";

/** One name for each (inode, generation). Hazard F30: the next owner knows by it what may be linked; one of an older version drops it as any other. */
export function orphanName(id: FileId, linkable: boolean): Buffer {
  return Buffer.from(`${id.ino}.${id.generation}${linkable ? LINKABLE : ""}`);
}

export function isLinkableName(name: Buffer): boolean {
  return name.toString("latin1").endsWith(LINKABLE);
}
