/**
 * Files that programs have open, when the owner changes and when mounters die (hazard H10): which mounters have opened theirs at this owner, and what is
 * removed when all have. The group of the mounters says when (dlmd/mount-group/README.md, "Open files").
 */
import type { Log } from "../../dlmd/base/log.ts";
import type { GoneClient } from "../../dlmd/client/api.ts";
import type { MounterId } from "../../dlmd/wire/mount-group.ts";
import type { OwnerWait } from "../lower/owner-wait.ts";
import type { OwnedLower } from "./owned-lower.ts";

/** What this mount has of another node's and of its own lower: null before there is one. */
export interface OwnWay {
  readonly remote: { readonly ownerWait: OwnerWait | null; readonly ownerThere: boolean } | null;
  readonly ownGuard: { readonly isGiven: boolean } | null;
}

export interface Ways extends OwnWay {
  /** Hazard F44. A mount that is away has files open of which this owner knows nothing. */
  readonly isAwaited: boolean;
  readonly owned: {
    readonly local: Pick<OwnedLower["local"], "recoverOrphans" | "orphanCount">;
    readonly server: Pick<OwnedLower["server"], "hasClaimed" | "closeSessions">;
    readonly disk: { readonly guard: { readonly why: string | null } } | null;
  } | null;
}

type Local = NonNullable<Ways["owned"]>["local"];

export class OpenFiles {
  readonly #log: Log;
  readonly #ways: () => Ways;
  /** The last removal of that lower's, which ends after all before. */
  #removal: { readonly local: Local; readonly ended: Promise<void> } | null = null;

  /** Hazard F41. Of a process that goes on with the files of another one: nothing is removed before it has opened them here, if this becomes the owner. */
  ownOpened: Promise<void> | null = null;

  /** A removal that waits for a mount that is away. */
  #isOwed = false;

  constructor(log: Log, ways: () => Ways) {
    this.#log = log;
    this.#ways = ways;
  }

  /**
   * That mounter has all its files open here. This mount's own are open at its server, as those of another, or else in the lower itself. A mount that has
   * given up the lower it began with is a caller from then on: its remote lower is made only when there is an owner again, which may be itself.
   */
  hasReopened(mounter: MounterId, self: MounterId): boolean {
    const { owned, remote, ownGuard } = this.#ways();
    if (owned === null) return false;
    const isSelf = mounter.nodeid === self.nodeid && mounter.incarnation === self.incarnation && mounter.clientId === self.clientId;
    if (isSelf && remote === null && ownGuard?.isGiven !== true) return true;
    return owned.server.hasClaimed(mounter);
  }

  /** `isAwaited` may be another. */
  awaitedChanged(): void {
    if (this.#isOwed && !this.#ways().isAwaited) void this.#settleBehind();
  }

  ownerEnds(): void {
    this.#isOwed = false;
  }

  /** All mounters have their files open here, or are gone. */
  async settle(): Promise<void> {
    if (this.ownOpened !== null) await this.ownOpened;
    const { owned, isAwaited } = this.#ways();
    if (owned === null) return;
    this.#isOwed = isAwaited;
    if (isAwaited) return;
    const { local } = owned;
    const before = this.#removal?.local === local ? this.#removal.ended : null;
    // One at a time: a second one would ask the disk for the same names. What the first one fails with is told to those who asked for it.
    const removed = before === null ? this.#remove(local) : before.then(() => this.#remove(local));
    this.#removal = { local, ended: removed.catch(() => undefined) };
    await removed;
  }

  async #remove(local: Local): Promise<void> {
    const dropped = await local.recoverOrphans();
    if (dropped > 0) this.#log.info({ dropped, kept: local.orphanCount }, "files without a name that nobody has open were removed");
  }

  async #settleBehind(): Promise<void> {
    try {
      await this.settle();
    } catch (error) {
      // They go when the next mounter's death is put in order, or at the next mount.
      this.#log.error({ error: String(error) }, "files without a name could not be removed");
    }
  }

  /**
   * What those that are gone had open is closed, and what only they had open and has no name is removed. `all`: everybody is blocked until this resolves,
   * so the removal goes on behind it. Rejects if this node is the owner no more.
   */
  async recover(dead: readonly GoneClient[], all: boolean): Promise<void> {
    const { owned } = this.#ways();
    if (owned === null || (owned.disk !== null && owned.disk.guard.why !== null)) throw new Error("this node has given up the volume");
    await owned.server.closeSessions(dead);
    if (all) void this.#settleBehind();
    else await this.settle();
  }

  /** No call of this mount is with the owner, and none can get there: a path is missing. */
  get isCutOff(): boolean {
    const { remote } = this.#ways();
    return remote !== null && !(remote.ownerWait?.inOwnersHands ?? remote.ownerThere);
  }

  /** For the status: how many are kept, and which nodes are waited for. null: not the owner. */
  describe(waitsFor: readonly number[]): { readonly kept: number; readonly waitsFor: readonly number[] } | null {
    const { owned } = this.#ways();
    return owned === null ? null : { kept: owned.local.orphanCount, waitsFor };
  }
}
