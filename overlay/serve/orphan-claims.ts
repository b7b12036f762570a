/**
 * Hazard H10. When a new owner may drop the open files without a name that an earlier owner left, and nobody has opened again: once every mounter that was
 * there before it has said "claimed", or is gone. The mounters of a volume are a group of programs (dlmd/client/group-api.ts); each joins it
 * before it opens a file. An owner that has mounted the lower sends a message to the group. A mounter that joins behind that message in the order
 * of the group had nothing open at an earlier owner; those before it are known when the message is back.
 */
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Log } from "../../dlmd/base/log.ts";
import type { DlmClient } from "../../dlmd/client/api.ts";
import type { Group, GroupMember } from "../../dlmd/client/group-api.ts";
import type { LocalLower } from "../lower/local/local.ts";
import type { LowerServer } from "../lower/server/server.ts";

/** The group of the mounters of a volume: 64 bytes at most. */
export function mountersGroup(uuid: string): string {
  return `mounters-${uuid}`;
}

/** What this mount has of other nodes' and of its own lower: null before there is one. */
export interface OwnWay {
  readonly remote: object | null;
  readonly ownGuard: { readonly isGiven: boolean } | null;
}

/**
 * This mount's own files are open at its server, as those of another; else in the lower itself. A mount that has given up the lower it began with
 * is a caller from then on: its remote lower is made only when there is an owner again, which may be itself.
 */
export function isCaller({ remote, ownGuard }: OwnWay): boolean {
  return remote !== null || ownGuard?.isGiven === true;
}

export type ClaimingLower = Pick<LocalLower, "recoverOrphans" | "orphanCount">;
export type ClaimingServer = Pick<LowerServer, "hasClaimed">;

interface Owned {
  readonly lower: ClaimingLower;
  readonly server: ClaimingServer;
  /** The number of the message that says so. */
  readonly turn: number;
  /** The members as that message came back, less those that have gone since; null: it is not back. */
  before: readonly GroupMember[] | null;
  done: boolean;
}

const sameMember = (a: GroupMember, b: GroupMember): boolean =>
  a.nodeid === b.nodeid && a.incarnation === b.incarnation && a.clientId === b.clientId;

export class OrphanClaims {
  readonly #log: Log;
  readonly #ownWay: () => OwnWay;
  readonly #fail: (error: Error) => void;
  #group: Group | null = null;
  #members: readonly GroupMember[] = [];
  #owned: Owned | null = null;
  #turns = 0;

  /** `fail`: this mount is known to the others no more, so it must not go on. */
  constructor(log: Log, ownWay: () => OwnWay, fail: (error: Error) => void) {
    this.#log = log;
    this.#ownWay = ownWay;
    this.#fail = fail;
  }

  /** Before anything is opened. */
  async join(client: Pick<DlmClient, "join">, uuid: string): Promise<void> {
    this.#group = await client.join(mountersGroup(uuid), {
      message: ({ own, data }) => {
        const owned = this.#owned;
        if (!own || owned === null || Buffer.from(data).readUInt32LE(0) !== owned.turn) return;
        owned.before = this.#members;
        this.check();
      },
      members: ({ members }) => {
        this.#members = members;
        const owned = this.#owned;
        if (owned !== null && owned.before !== null) {
          owned.before = owned.before.filter((one) => members.some((member) => sameMember(member, one)));
        }
        this.check();
      },
      // A new owner would not wait for what is open here.
      ended: (reason) => {
        this.#group = null;
        // If dlmd is gone, that is heard right after this, and is what is said.
        queueMicrotask(() => this.#fail(this.#lost(reason)));
      },
    });
  }

  /** This node has mounted the lower as its owner. */
  begin(lower: ClaimingLower, server: ClaimingServer): void {
    this.#turns += 1;
    const turn = this.#turns;
    this.#owned = { lower, server, turn, before: null, done: false };
    const data = Buffer.alloc(4);
    data.writeUInt32LE(turn);
    this.#group?.multicast(data).catch((error: unknown) => this.#fail(this.#lost(error)));
  }

  #lost(cause: unknown): OperatingError {
    const text = `this mount is not in the group of the volume's mounters any more: ${cause instanceof Error ? cause.message : String(cause)}`;
    return new OperatingError(text, { code: "group-lost", hint: "Unmount it, and mount again." });
  }

  /** It is the owner no more. */
  end(): void {
    this.#owned = null;
  }

  /** Mounters that have not said yet that all their files are open here; null: not known, or not asked for. */
  get missing(): readonly GroupMember[] | null {
    const owned = this.#owned;
    const group = this.#group;
    if (owned === null || group === null || owned.before === null) return null;
    return owned.before.filter((member) => {
      if (sameMember(member, group.self) && !isCaller(this.#ownWay())) return false;
      return !owned.server.hasClaimed(member);
    });
  }

  /** Something came that may have been waited for: a member, a message, a claim. */
  check(): void {
    const owned = this.#owned;
    if (owned === null || owned.done || this.missing?.length !== 0) return;
    owned.done = true;
    void this.#recover(owned.lower);
  }

  async #recover(lower: ClaimingLower): Promise<void> {
    try {
      const dropped = await lower.recoverOrphans();
      if (dropped > 0) this.#log.info({ dropped, kept: lower.orphanCount }, "files without a name that nobody has open were removed");
    } catch (error) {
      this.#log.error({ error: String(error) }, "files without a name could not be removed");
    }
  }

  /** For the status: how many are kept, and which nodes are waited for. */
  describe(): { readonly kept: number; readonly waitsFor: readonly number[] } | null {
    if (this.#owned === null) return null;
    const waitsFor = (this.#owned.done ? [] : (this.missing ?? [])).map(({ nodeid }) => nodeid);
    return { kept: this.#owned.lower.orphanCount, waitsFor };
  }
}
