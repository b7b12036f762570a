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
  readonly owned: {
    readonly local: Pick<OwnedLower["local"], "recoverOrphans" | "orphanCount">;
    readonly server: Pick<OwnedLower["server"], "hasClaimed" | "closeSessions">;
    readonly disk: { readonly guard: { readonly why: string | null } } | null;
  } | null;
}

export class OpenFiles {
  readonly #log: Log;
  readonly #ways: () => Ways;

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

  /** All mounters have their files open here, or are gone. */
  async settle(): Promise<void> {
    const { owned } = this.#ways();
    if (owned === null) return;
    const dropped = await owned.local.recoverOrphans();
    if (dropped > 0) this.#log.info({ dropped, kept: owned.local.orphanCount }, "files without a name that nobody has open were removed");
  }

  /** What those that are gone had open is closed, and what only they had open and has no name is removed. Rejects if this node is the owner no more. */
  async recover(dead: readonly GoneClient[]): Promise<void> {
    const { owned } = this.#ways();
    if (owned === null || (owned.disk !== null && owned.disk.guard.why !== null)) throw new Error("this node has given up the volume");
    await owned.server.closeSessions(dead);
    await this.settle();
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
