/**
 * Open files and directories of this mount: what the kernel calls `fh`. Numbers come from a counter and are never used twice,
 * so that a late RELEASE can not close somebody else's file.
 */
import { NumberMap } from "../../dlmd/base/number-map.ts";
import type { LowerHandle } from "../lower/lower.ts";
import type { InodeRecord } from "./table.ts";

export interface OpenFile {
  readonly fh: number;
  readonly inode: InodeRecord;
  readonly lowerHandle: LowerHandle;
  readonly writable: boolean;
  /** It has the kernel's page cache; else every read and write comes here (FOPEN_DIRECT_IO). */
  readonly cached: boolean;
  /** It holds the write token (Coherence.openForWrite). */
  readonly writeToken: boolean;
  /** A shared mapping may be made through it and written (mmap(2) wants O_RDWR for that, and a page cache). */
  readonly mappable: boolean;
  readonly directory: boolean;
  /** Directories: most names of the last listing were new to the kernel. */
  manyNew: boolean;
  /** The listing was told to its end, and this is the position behind its last name; null: not just now. */
  endCookie: bigint | null;
}

/** What is written down for a process that goes on after a crash (overlay/crash/). */
export interface HandleJournal {
  /** That request is about to be answered with it. */
  giving(request: number, file: OpenFile): void;
  /** It was. */
  given(): void;
  closed(fh: number): void;
  /** From a process before this one. */
  restoredHandle(file: OpenFile): void;
}

/** That which is answered with a handle. */
export interface GivingCall {
  readonly unique: number;
  /** Its answer waits: the kernel has nothing of it. */
  readonly kept: boolean;
  /** Called right before an answer leaves that was kept, unless it is an error instead. */
  onLeaving: (() => void) | null;
  whenLeft(then: () => void): void;
}

/** Hazard F39. There may be many such: each is nobody's as long as the kernel has not been told. */
function giveLater(journal: HandleJournal, call: GivingCall, file: OpenFile): void {
  journal.closed(file.fh);
  call.onLeaving = (): void => journal.giving(call.unique, file);
  call.whenLeft(() => journal.given());
}

export class HandleTable {
  readonly #journal: HandleJournal | null;
  readonly #files = new NumberMap<OpenFile>();
  #nextFh = 1;

  constructor(journal: HandleJournal | null = null) {
    this.#journal = journal;
  }

  get size(): number {
    return this.#files.size;
  }

  add(inode: InodeRecord, lowerHandle: LowerHandle, writable: boolean, cached: boolean, writeToken: boolean, mappable: boolean): OpenFile {
    const file: OpenFile = {
      fh: this.#nextFh,
      inode,
      lowerHandle,
      writable,
      cached,
      writeToken,
      mappable,
      directory: inode.kind === "directory",
      manyNew: false,
      endCookie: null,
    };
    this.#nextFh += 1;
    this.#files.set(file.fh, file);
    return file;
  }

  /** `answer`: tells the kernel of it, in answer to that call. Gives what it gives: whether the kernel has taken that. */
  give(call: GivingCall, file: OpenFile, answer: () => boolean): boolean {
    const journal = this.#journal;
    if (journal === null) return answer();
    journal.giving(call.unique, file);
    const given = answer();
    if (call.kept) giveLater(journal, call, file);
    journal.given();
    return given;
  }

  /** Those that are open, and the next number. */
  all(): { readonly files: readonly OpenFile[]; readonly nextFh: number } {
    return { files: this.#files.values(), nextFh: this.#nextFh };
  }

  /** What the process before has had open. Before any request. */
  restore(files: readonly OpenFile[], nextFh: number): void {
    for (const file of files) {
      this.#files.set(file.fh, file);
      this.#journal?.restoredHandle(file);
    }
    this.#nextFh = nextFh;
  }

  get(fh: number): OpenFile | undefined {
    return this.#files.get(fh);
  }

  /** Looks at all: for what is seldom. */
  isOpenForWriting(inode: InodeRecord): boolean {
    for (const file of this.#files.values()) if (file.inode === inode && file.writable) return true;
    return false;
  }

  /** Takes it out; undefined if it was not there. */
  take(fh: number): OpenFile | undefined {
    const file = this.#files.get(fh);
    if (file === undefined) return undefined;
    this.#files.delete(fh);
    this.#journal?.closed(fh);
    return file;
  }

  /** All that is open, for the end of the mount; empty afterwards. */
  takeAll(): OpenFile[] {
    const all = this.#files.values();
    this.#files.clear();
    return all;
  }
}
