/**
 * What the owner's own mount has changed and not synced: if the owner lets go of a failed disk, fsync(2) must say so at the next owner, as
 * it does on other nodes (hazards F10 and R6, lower/unsynced.ts).
 */
import { RENAME } from "../linux.ts";
import type { FileId, Lower, LowerHandle } from "../lower.ts";
import { andThen, type MaybePromise, promised } from "../../../dlmd/base/maybe-promise.ts";
import { type Changed, Unsynced } from "../unsynced.ts";

type Call = (...args: readonly unknown[]) => MaybePromise<unknown>;
type Of<K extends keyof Lower> = Lower[K] extends (...args: infer A) => unknown ? A : never;

export class OwnChanges {
  readonly unsynced: Unsynced = new Unsynced();
  readonly #idOf: (handle: LowerHandle) => FileId | undefined;
  /** The lower is this node's still: else its remote lower notes what it does. */
  readonly #isHere: () => boolean;
  /** The disk was not given up. */
  readonly #isWell: () => boolean;
  /** Many files wait for a sync: never rejects. */
  readonly #sync: () => Promise<void>;
  /** Of the lower. */
  readonly #failedSyncs: () => number;
  #syncing = false;

  constructor(
    idOf: (handle: LowerHandle) => FileId | undefined,
    isHere: () => boolean,
    isWell: () => boolean,
    sync: () => Promise<void>,
    failedSyncs: () => number,
  ) {
    this.#idOf = idOf;
    this.#isHere = isHere;
    this.#isWell = isWell;
    this.#sync = sync;
    this.#failedSyncs = failedSyncs;
  }

  /** The call, noted when it is done: one that is not is made again. */
  noting(name: keyof Lower, call: Call): Call {
    if (name === "syncfs") return this.#syncsAll(call);
    if (name === "fsync" || name === "fsyncdir") return this.#syncs(call);
    return (...args) => {
      // Its caller may be killed, and close it meanwhile.
      const through = this.#changedThrough(name, args);
      return andThen(call(...args), (result) => {
        if (this.#isHere()) this.#note(name, args, through);
        return result;
      });
    };
  }

  /** The file that is named by a handle. */
  #changedThrough(name: keyof Lower, args: readonly unknown[]): FileId | undefined {
    switch (name) {
      case "setFileAttributes":
      case "write":
      case "fallocate":
        return this.#idOf(args[0] as LowerHandle);
      case "copyFileRange":
        return this.#idOf((args as Of<"copyFileRange">)[2]);
      default:
        return undefined;
    }
  }

  #syncs(call: Call): Call {
    return (...args) => {
      const since = this.unsynced.now();
      return andThen(call(...args), (result) => {
        const [handle, dataOnly] = args as Of<"fsync">;
        const id = this.#idOf(handle);
        if (id !== undefined && this.#isTrue) this.unsynced.synced(id, since, dataOnly);
        return result;
      });
    };
  }

  /** What a sync says. One that overlaps the shutdown of its file system may end well although nothing was written: ext4, before Linux 6.13 or so. */
  get #isTrue(): boolean {
    return this.#isHere() && this.#isWell();
  }

  #syncsAll(call: Call): Call {
    // That of another node's caller may have been told what is lost here (hazard H8).
    let known = 0;
    return async (...args) => {
      const since = this.unsynced.now();
      let error: unknown = null;
      const result = await promised(() => call(...args)).catch((reason: unknown) => void (error = reason));
      if (this.#isHere() && this.#failedSyncs() > known) this.unsynced.syncFailed([]);
      else if (error === null && this.#isTrue) this.unsynced.allSynced(since);
      known = this.#failedSyncs();
      if (error !== null) throw error;
      return result;
    };
  }

  #note(name: keyof Lower, args: readonly unknown[], through: FileId | undefined): void {
    switch (name) {
      case "create":
      case "mkdir":
      case "mknod":
      case "symlink":
      case "unlink":
      case "rmdir":
      case "setxattr":
      case "removexattr":
        return this.#changed(args[0] as FileId, "all");
      case "setattr": {
        const [id, change] = args as Of<"setattr">;
        if (change.size !== undefined) this.#changed(id, "data");
        return this.#changed(id, "all");
      }
      case "link": {
        const [linked, directory] = args as Of<"link">;
        this.#named(linked, [directory]);
        return this.#changed(directory, "all");
      }
      case "rename": {
        const [from, , to, , flags, moved, other] = args as Of<"rename">;
        this.#changed(from, "all");
        this.#changed(to, "all");
        this.#named(moved, [from, to]);
        if (other !== null && (flags & RENAME.EXCHANGE) !== 0) this.#named(other, [from, to]);
        return;
      }
      case "setFileAttributes":
        return this.#changed(through, "all");
      case "write":
      case "fallocate":
      case "copyFileRange":
        return this.#changed(through, "data");
      default:
    }
  }

  #changed(id: FileId | undefined, what: Changed): void {
    if (id !== undefined && this.unsynced.note(id, what)) this.#syncInBackground();
  }

  /** Hazard F30: fsync of a file brings its names to the disk, too. */
  #named(id: FileId, directories: readonly FileId[]): void {
    if (this.unsynced.noteName(id, directories)) this.#syncInBackground();
  }

  #syncInBackground(): void {
    if (this.#syncing) return;
    this.#syncing = true;
    void this.#sync().finally(() => {
      this.#syncing = false;
    });
  }
}
