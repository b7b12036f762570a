/**
 * A mount as a member of the group of its volume's mounters: performs what the core (dlmd/mount-group/mounter.ts) decides, has its limits, and shows
 * it as knobs. README.md of this room; the order of things: dlmd/mount-group/README.md.
 */
import { assertNever } from "../../dlmd/base/assert.ts";
import { OperatingError } from "../../dlmd/base/error.ts";
import type { Log } from "../../dlmd/base/log.ts";
import type { DlmClient, GoneClient } from "../../dlmd/client/api.ts";
import type { Group, GroupChange } from "../../dlmd/client/group-api.ts";
import { underRecovery } from "../../dlmd/mount-group/group-state.ts";
import { Mounter, type MounterEffect, type MounterEvent } from "../../dlmd/mount-group/mounter.ts";
import { type MounterId, mountGroupName } from "../../dlmd/wire/mount-group.ts";
import type { Knobs, KnobValues } from "./knobs.ts";
import { ReopenLimit } from "./reopen-limit.ts";
import { MOUNT_AGAIN, recoveryWords, REFUSED_HINTS } from "./words.ts";

/** A mount that has not let go of the dead in that time is out (failover: it withdraws from the volume, or ends). */
export const STOP_LIMIT_MS = 5000;
/** A new mount that the others do not answer in that time, with a quorum, does not come to be. */
export const JOIN_LIMIT_MS = 30_000;
/** When an owner tries again what it could not put in order. */
export const RECOVER_AGAIN_MS = 1000;

export interface MountGroupOptions {
  readonly client: Pick<DlmClient, "info" | "join" | "view">;
  readonly uuid: string;
  readonly log: Log;
  /** Closes and drains what those have open here: the same work as the answer to "gone". */
  readonly letGo: (dead: readonly GoneClient[]) => Promise<void>;
  /** That was not done within STOP_LIMIT_MS. */
  readonly late: (why: string) => void;
  /** As the owner: that mounter has all its files open here. */
  readonly hasReopened: (mounter: MounterId) => boolean;
  /** As the owner: all have. What has no name and is open nowhere is removed, now and at each last close from now on. */
  readonly settle: () => Promise<void>;
  /**
   * As the owner: what those dead left is put in order; `all`: of a group that was founded anew, where everybody is blocked until it resolves. A failure
   * is tried again.
   */
  readonly recover: (dead: readonly GoneClient[], all: boolean) => Promise<void>;
  /** This mount has no path to the owner, though there are a quorum and a lease. */
  readonly isCutOff: () => boolean;
  /** Nothing that needs the lower begins; or it may. Also for an operator. */
  readonly setBlocked: (blocked: boolean) => void;
  /** This mount is in the group no more, or can not be. */
  readonly fail: (error: Error) => void;
  /** Another thing is waited for, before the mount is there. */
  readonly changed: () => void;
}

type Recovery = Extract<MounterEffect, { kind: "recover" }>;

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export class VolumeMountGroup {
  readonly #options: MountGroupOptions;
  readonly #core: Mounter;
  #group: Group | null = null;
  #knobs: Knobs | null = null;
  #jidKnown: Waiter | null = null;
  #claimKnown: Waiter | null = null;
  #joinTimer: NodeJS.Timeout | undefined;
  #stopTimer: NodeJS.Timeout | undefined;
  #recoverTimer: NodeJS.Timeout | undefined;
  #operatorBlocks = false;
  #isBlocked = false;
  #isMounted = false;
  #usesJid = false;
  /** What the owner puts in order now: with another one, or none, what was begun counts no more. */
  #recovering: Recovery | null = null;
  #hasEnded = false;
  readonly #reopenLimit: ReopenLimit;

  constructor(options: MountGroupOptions) {
    const { nodeid, incarnation, clientId } = options.client.info;
    this.#options = options;
    this.#core = new Mounter({ nodeid, incarnation, clientId });
    this.#reopenLimit = new ReopenLimit({
      log: options.log,
      mustReopen: () => this.#core.mustReopen,
      awaited: () => this.#core.toReopen.map((one) => this.#nameOf(one)),
      isCutOff: () => options.client.view.quorate && options.isCutOff(),
      late: (why) => options.fail(new OperatingError(why, { code: "not-reopened", hint: CHECK_PATH })),
    });
  }

  // ---------------------------------------------------------------------------------------------------------- mounting

  /** Resolves when this mount has its jid, and the others know. Rejects with OperatingError: it can not be, or `end` was called. */
  async join(): Promise<void> {
    this.#setBlocked();
    const known = new Promise<void>((resolve, reject) => {
      this.#jidKnown = { resolve, reject };
    });
    // It may be rejected before anybody waits for it.
    known.catch(() => undefined);
    this.#group = await this.#options.client.join(mountGroupName(this.#options.uuid), {
      message: ({ from, data }, group) => this.#deliver(group, { kind: "message", from, data }),
      members: (change, group) => this.#receiveMembers(change, group),
      ended: (reason) =>
        this.#options.fail(
          new OperatingError(`the mount group: ${reason.message}`, { code: "group-ended", hint: MOUNT_AGAIN, cause: reason }),
        ),
    });
    this.viewChanged();
    await known;
  }

  /** From DlmClientHandlers.view: nothing is ordered without a quorum, and no time runs. */
  viewChanged(): void {
    clearTimeout(this.#joinTimer);
    if (this.#jidKnown === null || this.#group === null || !this.#options.client.view.quorate) return;
    this.#joinTimer = setTimeout(() => this.#receiveJoinLate(), JOIN_LIMIT_MS);
  }

  #receiveJoinLate(): void {
    const names = this.#core.awaited.map((one) => this.#nameOf(one));
    this.#jidKnown?.reject(
      new OperatingError(`${JOIN_LIMIT_MS / 1000} s, and ${names.join(", ")} did not answer this new mount`, {
        code: "mounter-silent",
        hint: `See coverlay status on ${names.join(", ")}: an overlay stands still there. End it (SIGKILL), and mount again.`,
        exitStatus: 32,
      }),
    );
    this.#jidKnown = null;
  }

  /** The session answers. */
  mounted(): void {
    this.#isMounted = true;
    this.#step({ kind: "mounted" });
  }

  /** From DlmClientHandlers.disconnected or a failure: nothing more is said or awaited. */
  end(error: Error): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    for (const timer of [this.#joinTimer, this.#stopTimer, this.#recoverTimer]) clearTimeout(timer);
    this.#reopenLimit.end();
    for (const waiter of [this.#jidKnown, this.#claimKnown]) waiter?.reject(error);
    this.#knobs?.end();
  }

  /** A clean end: the others are told, and the jid is free. The end of the connection does the rest. */
  leave(): void {
    if (!this.#hasEnded && this.#group !== null) this.#step({ kind: "leave" });
    this.end(new OperatingError("the mount has ended", { code: "closed", hint: MOUNT_AGAIN }));
  }

  // ------------------------------------------------------------------------------------------------------------- owner

  /** Mounts the lower as the owner: not before the others know that this node does. */
  async claimed<T>(mount: () => Promise<T>): Promise<T> {
    const known = new Promise<void>((resolve, reject) => {
      this.#claimKnown = { resolve, reject };
    });
    this.#step({ kind: "claimed" });
    try {
      await known;
      return await mount();
    } catch (error) {
      this.#released();
      throw error;
    }
  }

  serving(epoch: number): void {
    this.#step({ kind: "serving", epoch });
  }

  /** Gives the lower back. What could not be given back stays this mounter's, and is dirty when it ends. */
  async released(release: () => Promise<void>): Promise<void> {
    try {
      await release();
    } catch (error) {
      if (error instanceof OperatingError && error.code === "let-go") this.#released();
      throw error;
    }
    this.#released();
  }

  #released(): void {
    this.#recovering = null;
    this.#step({ kind: "released" });
  }

  /** This mount ends, and is not to be the owner any more. */
  dropClaim(): void {
    this.#claimKnown?.reject(new OperatingError("the mount ends", { code: "closed", hint: MOUNT_AGAIN }));
    this.#claimKnown = null;
  }

  // ------------------------------------------------------------------------------------------------------------- knobs

  /** `order` is called with what an operator wrote to `block`; `lost` when nobody can write there any more. */
  showAs(create: (order: (blocked: boolean) => void, lost: () => void) => Knobs): void {
    const knobs = create(
      (blocked) => this.#receiveOrder(blocked),
      () => this.dropOrder(),
    );
    knobs.start(this.#values());
    this.#knobs = knobs;
  }

  #receiveOrder(blocked: boolean): void {
    this.#operatorBlocks = blocked;
    const still = !blocked && this.#core.isBlocked ? `; the group blocks it until ${recoveryWords(this.#core.state, this.#nameOf)}` : "";
    this.#options.log.warn({ block: blocked }, `an operator ${blocked ? "blocks this mount" : "lets this mount go on"}${still}`);
    this.#setBlocked();
    this.#options.changed();
  }

  /** The order is this process's own: another one that went on after a crash would let everything go. */
  get isBlockedByOperator(): boolean {
    return this.#operatorBlocks;
  }

  /** On its way out a mount waits for no operator, nor for one who can not take the order back. */
  dropOrder(): void {
    this.#operatorBlocks = false;
    this.#setBlocked();
  }

  #values(): KnobValues {
    const { state } = this.#core;
    const recovery =
      state === null || state.step === "idle"
        ? null
        : (underRecovery(state) ?? { jid: state.allDirty ? null : (state.dirty[0]?.jid ?? null) });
    const recover = recovery === null ? null : (recovery.jid ?? "all");
    return { block: this.#isBlocked, mounted: this.#isMounted, jid: this.#usesJid ? this.#core.jid : null, recover };
  }

  // ---------------------------------------------------------------------------------------------------------- the core

  #receiveMembers({ members, joined, left }: GroupChange, group: Group): void {
    if (left.length > 0)
      this.#options.log.info({ left: left.map(({ member, reason }) => `${this.#nameOf(member)}: ${reason}`) }, "mounters are gone");
    this.#deliver(group, { kind: "members", members, joined });
  }

  /** Delivered before `join` resolves, too. */
  #deliver(group: Group, event: MounterEvent): void {
    this.#group = group;
    this.#step(event);
  }

  #step(event: MounterEvent): void {
    if (this.#hasEnded) return;
    for (const effect of this.#core.step(event)) this.#perform(effect);
    this.checkReopened();
    this.#reopenLimit.changed();
    this.#knobs?.show(this.#values());
    if (!this.#isMounted) this.#options.changed();
  }

  /** As the owner: files of another mounter may have been opened here. The group is told. */
  checkReopened(): void {
    for (const mounter of this.#hasEnded ? [] : this.#core.toReopen) {
      if (!this.#options.hasReopened(mounter)) continue;
      for (const effect of this.#core.step({ kind: "reopened", mounter })) this.#perform(effect);
    }
  }

  #perform(effect: MounterEffect): void {
    const { log } = this.#options;
    switch (effect.kind) {
      case "say":
        this.#group?.multicast(effect.data).catch((error: unknown) => this.#receiveNotSaid(error));
        return;
      case "jid":
        this.#usesJid = true;
        clearTimeout(this.#joinTimer);
        log.info({ jid: effect.jid }, "jid");
        this.#jidKnown?.resolve();
        this.#jidKnown = null;
        return;
      case "claim-known":
        this.#claimKnown?.resolve();
        this.#claimKnown = null;
        return;
      case "let-go":
        return this.#letGo(effect);
      case "block":
        log.info({ blocked: effect.blocked, until: effect.blocked ? recoveryWords(this.#core.state, this.#nameOf) : undefined }, "block");
        return this.#setBlocked();
      case "settle":
        return void this.#settle();
      case "recover":
        this.#recovering = effect;
        return void this.#recover(effect);
      case "refused": {
        const error = new OperatingError(`this mount can not be one of the volume's mounters: ${effect.reason}`, {
          code: effect.code,
          hint: REFUSED_HINTS[effect.code],
          exitStatus: 32,
        });
        this.#jidKnown?.reject(error);
        return this.#options.fail(error);
      }
      case "ignored":
        return log.error({ from: this.#nameOf(effect.from), reason: effect.reason }, "a message of the mount group is ignored");
      default:
        assertNever(effect, "effect of a mounter");
    }
  }

  /** The others would wait for it for ever. */
  #receiveNotSaid(error: unknown): void {
    this.#options.log.warn({ error: String(error) }, "not said to the mount group");
    if (this.#hasEnded) return;
    const text = `this mount could not say to the mount group what the others wait for: ${String(error)}`;
    this.#options.fail(new OperatingError(text, { code: "not-said", hint: MOUNT_AGAIN, cause: error }));
  }

  #letGo({ round, dead }: Extract<MounterEffect, { kind: "let-go" }>): void {
    const names = dead.map((one) => `jid ${one.jid} of ${this.#nameOf(one)}`);
    this.#options.log.info({ round, dead: names }, "letting go of mounters that are gone");
    clearTimeout(this.#stopTimer);
    const timer = setTimeout(() => {
      this.#options.late(`calls of mounters that are gone (${names.join(", ")}) did not end in ${STOP_LIMIT_MS} ms`);
    }, STOP_LIMIT_MS);
    this.#stopTimer = timer;
    void this.#stop(round, dead.map(clientOf), timer);
  }

  async #stop(round: number, clients: readonly GoneClient[], timer: NodeJS.Timeout): Promise<void> {
    try {
      await this.#options.letGo(clients);
    } catch (error) {
      return this.#options.fail(error instanceof Error ? error : new Error(String(error)));
    }
    clearTimeout(timer);
    this.#step({ kind: "stopped", round });
  }

  async #settle(): Promise<void> {
    try {
      await this.#options.settle();
    } catch (error) {
      // They go when the next mounter's death is put in order, or at the next mount.
      this.#options.log.error({ error: String(error) }, "files without a name could not be removed");
    }
  }

  async #recover(wanted: Recovery): Promise<void> {
    const { round, jid } = wanted;
    const dead = this.#core.state?.dirty.filter((one) => jid === null || one.jid === jid) ?? [];
    try {
      await this.#options.recover(dead.map(clientOf), jid === null);
    } catch (error) {
      this.#options.log.error({ round, jid, error: String(error) }, "what a dead mounter left is not in order: trying again");
      this.#recoverLater(wanted);
      return;
    }
    if (this.#recovering !== wanted) return;
    this.#recovering = null;
    this.#step({ kind: "recovered", round, jid });
  }

  #recoverLater(wanted: Recovery): void {
    clearTimeout(this.#recoverTimer);
    if (this.#hasEnded) return;
    this.#recoverTimer = setTimeout(() => {
      if (this.#recovering === wanted) void this.#recover(wanted);
    }, RECOVER_AGAIN_MS);
  }

  #setBlocked(): void {
    const blocked = this.#core.isBlocked || this.#operatorBlocks;
    if (blocked !== this.#isBlocked) this.#options.setBlocked(blocked);
    this.#isBlocked = blocked;
    this.#knobs?.show(this.#values());
  }

  // ------------------------------------------------------------------------------------------------------------- words

  readonly #nameOf = ({ nodeid }: MounterId): string =>
    this.#options.client.info.nodes.find((one) => one.nodeid === nodeid)?.name ?? `node ${nodeid}`;

  /** What a mount waits for, in words; null: for nothing. */
  get wait(): string | null {
    if (this.#group === null || this.#hasEnded) return null;
    const awaited = this.#core.awaited.map((one) => this.#nameOf(one)).join(", ");
    if (!this.#usesJid) return `waiting until ${awaited} knows of this mount`;
    if (this.#claimKnown !== null) return `waiting until ${awaited} knows that this node is to be the owner`;
    if (this.#operatorBlocks) return "blocked by an operator: 0 in its knob block lets it go on";
    return this.#core.isBlocked ? `blocked until ${recoveryWords(this.#core.state, this.#nameOf)}` : null;
  }

  /** No other node has the volume mounted, or is about to, as far as the group knows; and nothing is to be put in order. */
  get isAlone(): boolean {
    const { state } = this.#core;
    return state !== null && state.step === "idle" && state.members.length === 1 && state.dirty.length === 0;
  }

  /** As the owner, for the status: nodes whose files are to be opened here before others without a name go. */
  get waitsToReopen(): readonly number[] {
    return this.#core.toReopen.map(({ nodeid }) => nodeid);
  }

  /** For the status: plain data. */
  describe(): Record<string, unknown> {
    const { state } = this.#core;
    const shown = { ...this.#values(), operatorBlocks: this.#operatorBlocks, wait: this.wait };
    if (state === null) return shown;
    const { round, step, ownerDied, allDirty, members, dirty } = state;
    const recovery = step === "idle" ? null : `recovery waits until ${recoveryWords(state, this.#nameOf)}`;
    return {
      ...shown,
      round,
      step,
      recovery,
      ownerDied,
      allDirty,
      members: members.map(({ nodeid, clientId, jid, phase, ownership, mustStop, mustReopen }) => ({
        nodeid,
        clientId,
        jid,
        phase,
        ownership,
        mustStop,
        mustReopen,
      })),
      dirty: dirty.map(({ nodeid, clientId, jid, wasOwner }) => ({ nodeid, clientId, jid, wasOwner })),
    };
  }
}

const CHECK_PATH =
  "See coverlay status and why on this node for what keeps it from the owner: a firewall, the MTU, a route. Then mount again.";

function clientOf({ nodeid, incarnation, clientId }: MounterId): GoneClient {
  return { nodeid, incarnation, clientId };
}
