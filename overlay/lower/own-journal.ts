/** What outlives a crash of this process, of files that its own mount has open and of changes that it makes (overlay/crash/): whatever the lower is. */
import type { OpenFile } from "./lower.ts";

export interface FileJournal {
  openedAtOwner(file: OpenFile): void;
  closedAtOwner(handle: number): void;
}

/** Of an owner (hazard F41). */
export interface OwnJournal extends FileJournal {
  /** False: no crash of this process is ever a pause. */
  readonly wanted: boolean;
  /**
   * Before a change is made. `type`, `body`: as on the wire, to be copied now; `request`: the kernel's number of the request that it is made for. `sure`: the name that it is to
   * take away is there now, and of that inode.
   */
  making(type: number, request: number, body: Uint8Array, sure: boolean): void;
  /** It failed: nothing is made of it, and its request goes on. */
  notMade(request: number): void;
}
