/**
 * One mounter in the group of its volume: events of the group and what happened at this mount go in, in order; what is to be said and done comes
 * out. It gets the state from a member when it joins, or founds the group (README.md of this room, "The state").
 */
import { assert, assertNever } from "../base/assert.ts";
import { WireError } from "../base/error.ts";
import {
  decodeMountGroupMessage,
  type DirtyJid,
  encodeMountGroupMessage,
  MAX_JIDS,
  type MounterId,
  type MounterState,
  type MountGroupMessage,
  type MountGroupState,
  type Ownership,
} from "../wire/mount-group.ts";
import {
  foundedState,
  isBlocked,
  isHeard,
  isSameMounter,
  type Membership,
  notHeard,
  notReopened,
  servingOwner,
  underRecovery,
  withMembership,
  withMessage,
} from "./group-state.ts";

/** Events that a joiner keeps until the state comes; with more it does not mount. */
export const MAX_EVENTS_BEFORE_STATE = 65_536;

export type MounterEvent =
  /** Of the group (client/group-api.ts), in its order. */
  | ({ readonly kind: "members" } & Membership)
  | { readonly kind: "message"; readonly from: MounterId; readonly data: Uint8Array }
  /** Of this mount: the session answers. */
  | { readonly kind: "mounted" }
  /** The dead of that "let-go" are let go of. */
  | { readonly kind: "stopped"; readonly round: number }
  /** The owner's role: it is to be the owner, and waits for "claim-known". */
  | { readonly kind: "claimed" }
  | { readonly kind: "serving"; readonly epoch: number }
  | { readonly kind: "released" }
  /** Of this owner: that mounter has all its files open here. Said once, as long as it is one of `toReopen`. */
  | { readonly kind: "reopened"; readonly mounter: MounterId }
  | { readonly kind: "recovered"; readonly round: number; readonly jid: number | null }
  /** The mount has ended cleanly. */
  | { readonly kind: "leave" };

export type MounterEffect =
  | { readonly kind: "say"; readonly data: Uint8Array }
  /** This mount may use it from now on. */
  | { readonly kind: "jid"; readonly jid: number }
  /** All others know that this one is to be the owner: it may mount the lower, and says "serving" or "released". */
  | { readonly kind: "claim-known" }
  /** Close and drain what those have open here, then "stopped" with that round. A later round takes the place of an earlier one. */
  | { readonly kind: "let-go"; readonly round: number; readonly dead: readonly DirtyJid[] }
  | { readonly kind: "block"; readonly blocked: boolean }
  /** As the owner: all mounters have their files open here. What has no name and is open nowhere may go, now and at each last close. */
  | { readonly kind: "settle" }
  /** Put in order what that jid left, as the owner, then "recovered". null: whatever is there. */
  | { readonly kind: "recover"; readonly round: number; readonly jid: number | null }
  /** It can not be in this group: the mount ends, or does not come to be. */
  | { readonly kind: "refused"; readonly code: "no-jid" | "version" | "no-state"; readonly reason: string }
  /** A message that is not understood; the same at all members. */
  | { readonly kind: "ignored"; readonly from: MounterId; readonly reason: string };

type Kept = Extract<MounterEvent, { kind: "members" | "message" }>;

/** What this mounter has been told to do. */
interface Told {
  jid: boolean;
  claimedAt: number;
  blocked: boolean;
  letGoRound: number;
  /** As text. */
  recover: string;
  /** The claim since which all have their files open. */
  settledAt: number;
  /** Of `reopenedAt`'s claim: the mounters that the others have been told of. */
  reopenedAt: number;
  readonly reopened: Set<number>;
}

export class Mounter {
  readonly #self: MounterId;
  #state: MountGroupState | null = null;
  /** Since its own join, the first; until it has the state. */
  #kept: Kept[] = [];
  /** In the order in which they joined, as the last event said. */
  #present: readonly MounterId[] = [];
  #refused = false;
  /** It said "bye": the others wait for its end, and for nothing that it would say. */
  #leaving = false;
  /** What this mount is now: the group hears of it later. */
  #ownership: Ownership = "none";
  /** Claims that were made here, and of these those that the group has heard. */
  #claims = 0;
  #heardClaims = 0;
  #effects: MounterEffect[] = [];
  /** A mount begins blocked: it does not know who died. */
  readonly #told: Told = {
    jid: false,
    claimedAt: 0,
    blocked: true,
    letGoRound: 0,
    recover: "",
    settledAt: 0,
    reopenedAt: 0,
    reopened: new Set(),
  };

  constructor(self: MounterId) {
    this.#self = self;
  }

  /** null: not known yet. */
  get state(): MountGroupState | null {
    return this.#state;
  }

  get jid(): number | null {
    return this.#own?.jid ?? null;
  }

  get isBlocked(): boolean {
    return this.#told.blocked;
  }

  /** Those that have not said yet that they know of this one, or of its claim; before the state, the one that has to send it. */
  get awaited(): readonly MounterId[] {
    const own = this.#own;
    if (this.#state === null || own === null) return this.#present.slice(0, 1).filter((one) => !isSameMounter(one, this.#self));
    return notHeard(this.#state, own, this.#told.jid ? own.claimedAt : own.joinedAt);
  }

  /** As the owner: the mounters whose files are to be opened here, as far as the group knows. */
  get toReopen(): readonly MounterState[] {
    return this.#serves ? notReopened(this.#state as MountGroupState) : [];
  }

  /** There is an owner, and this mount's files are not known to be open there. */
  get mustReopen(): boolean {
    return this.#state !== null && notReopened(this.#state).some((one) => isSameMounter(one, this.#self));
  }

  /** Here, and for the group. */
  get #serves(): boolean {
    const state = this.#state;
    return state !== null && this.#ownership === "serving" && !this.#leaving && servingOwner(state) === this.#own;
  }

  get #own(): MounterState | null {
    return this.#state?.members.find((one) => isSameMounter(one, this.#self)) ?? null;
  }

  /** The effects are to be performed in order; their answers come as events, never from inside. */
  step(event: MounterEvent): readonly MounterEffect[] {
    this.#effects = [];
    if (!this.#refused) this.#handle(event);
    return this.#effects;
  }

  #handle(event: MounterEvent): void {
    switch (event.kind) {
      case "members":
      case "message":
        this.#deliver(event);
        return this.#review();
      case "mounted":
        return this.#say({ kind: "mounted" });
      case "claimed":
        this.#ownership = "claimed";
        this.#claims++;
        return this.#say({ kind: "claimed" });
      case "serving":
        this.#ownership = "serving";
        return this.#say({ kind: "serving", epoch: event.epoch });
      case "released":
        this.#ownership = "none";
        return this.#say({ kind: "released" });
      case "stopped":
        return this.#say({ kind: "stopped", round: event.round });
      case "reopened":
        return this.#sayReopened(event.mounter);
      case "recovered":
        return this.#say({ kind: "recovered", round: event.round, jid: event.jid });
      case "leave":
        // One that never had the state has nothing that others must know of.
        if (this.#state !== null) this.#say({ kind: "bye" });
        this.#leaving = true;
        return;
      default:
        assertNever(event, "event of a mounter");
    }
  }

  #say(message: MountGroupMessage): void {
    if (this.#leaving) return;
    assert(this.#state !== null, `a mounter says ${message.kind} before it knows the state`);
    this.#effects.push({ kind: "say", data: encodeMountGroupMessage(message) });
  }

  #sayReopened(mounter: MounterId): void {
    const { jid = null } = this.toReopen.find((one) => isSameMounter(one, mounter)) ?? {};
    const claimedAt = this.#own?.claimedAt ?? 0;
    if (claimedAt !== this.#told.reopenedAt) this.#told.reopened.clear();
    this.#told.reopenedAt = claimedAt;
    if (jid === null || this.#told.reopened.has(jid)) return;
    this.#told.reopened.add(jid);
    this.#say({ kind: "reopened", jid });
  }

  // ------------------------------------------------------------------------------------------------- the group's order

  #deliver(event: Kept): void {
    if (event.kind === "members") this.#present = event.members;
    if (this.#state === null) return this.#keep(event);
    this.#state = this.#apply(this.#state, event);
    // Its own leaving: what comes after is not heard.
    if (this.#own === null) return;
    if (event.kind === "members") return this.#welcome(this.#state, event);
    const { members, position } = this.#state;
    const claimant = members.find(({ claimedAt }) => claimedAt === position);
    if (claimant === undefined) return;
    if (isSameMounter(claimant, this.#self)) this.#heardClaims++;
    else this.#say({ kind: "heard", upTo: position });
  }

  #apply(state: MountGroupState, event: Kept): MountGroupState {
    if (event.kind === "members") return withMembership(state, event);
    return withMessage(state, event.from, this.#decode(event));
  }

  #decode({ from, data }: Extract<Kept, { kind: "message" }>): MountGroupMessage | null {
    try {
      return decodeMountGroupMessage(data);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      this.#effects.push({ kind: "ignored", from, reason: error.message });
      return null;
    }
  }

  /** The first in the group has it from the founding on, or by a state; the others get it from it. */
  #welcome(state: MountGroupState, { joined }: Membership): void {
    const isFirst = isSameMounter(state.members[0] as MounterId, this.#self);
    const isWanted = state.members.some(({ synced }) => !synced);
    if (isFirst && isWanted) this.#say({ kind: "state", state });
    if (joined.length > 0) this.#say({ kind: "heard", upTo: state.position });
  }

  // ------------------------------------------------------------------------------------------------- before the state

  #keep(event: Kept): void {
    this.#kept.push(event);
    const first = this.#present[0];
    // Those that joined before may have had the state, and none of them is there any more.
    if (first !== undefined && isSameMounter(first, this.#self)) return this.#found();
    if (event.kind === "message" && isSameMounter(event.from, first as MounterId)) this.#readState(event);
    if (this.#kept.length > MAX_EVENTS_BEFORE_STATE)
      this.#refuse("no-state", `${MAX_EVENTS_BEFORE_STATE} events of the mount group came, and no state of its first member`);
  }

  #found(): void {
    const position = this.#kept.length - 1;
    const joinedAt = this.#present.map((member) => {
      const at = this.#kept.findIndex((event) => event.kind === "members" && event.joined.some((one) => isSameMounter(one, member)));
      return Math.max(at, 0);
    });
    this.#kept = [];
    const state = foundedState(this.#present, joinedAt, position);
    this.#state = state;
    this.#welcome(state, { members: this.#present, joined: this.#present.slice(1) });
  }

  #readState(event: Extract<Kept, { kind: "message" }>): void {
    let message: MountGroupMessage;
    try {
      message = decodeMountGroupMessage(event.data);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      return this.#refuse(
        "version",
        `the first mounter, node ${event.from.nodeid}, says what this program does not understand: ${error.message}`,
      );
    }
    if (message.kind === "state") this.#enter(message.state);
  }

  /** The state as it was some events ago; those that came since are applied to it. */
  #enter(state: MountGroupState): void {
    const own = state.members.find((one) => isSameMounter(one, this.#self));
    // It was said before this one joined; another one follows.
    if (own === undefined) return;
    const kept = this.#kept.slice(state.position - own.joinedAt + 1);
    this.#kept = [];
    this.#state = kept.reduce((now, event) => this.#apply(now, event), state);
    this.#say({ kind: "heard", upTo: this.#state.position });
  }

  #refuse(code: Extract<MounterEffect, { kind: "refused" }>["code"], reason: string): void {
    this.#refused = true;
    this.#kept = [];
    this.#effects.push({ kind: "refused", code, reason });
  }

  // -------------------------------------------------------------------------------------------------- what follows

  /** What this mounter has to do by the state, told once each. */
  #review(): void {
    const state = this.#state;
    const own = this.#own;
    if (state === null || own === null || this.#refused || this.#leaving) return;
    if (own.jid === null)
      return this.#refuse("no-jid", `all ${MAX_JIDS} jids of the volume are taken, ${state.dirty.length} of them dirty`);
    this.#reviewJid(state, own, own.jid);
    this.#reviewClaim(state, own);
    this.#reviewBlock(isBlocked(state));
    if (own.mustStop && this.#told.letGoRound < state.round) {
      this.#told.letGoRound = state.round;
      this.#effects.push({ kind: "let-go", round: state.round, dead: state.dirty });
    }
    this.#reviewOpenFiles(own);
    this.#reviewRecovery(state);
  }

  #reviewOpenFiles({ claimedAt }: MounterState): void {
    if (!this.#serves || this.toReopen.length > 0 || this.#told.settledAt === claimedAt) return;
    this.#told.settledAt = claimedAt;
    this.#effects.push({ kind: "settle" });
  }

  /** Hazard M6. */
  #reviewJid(state: MountGroupState, { joinedAt }: MounterState, jid: number): void {
    if (this.#told.jid || !isHeard(state, this.#self, joinedAt)) return;
    this.#told.jid = true;
    this.#effects.push({ kind: "jid", jid });
  }

  /** Hazard M6. */
  #reviewClaim(state: MountGroupState, { claimedAt }: MounterState): void {
    // An earlier claim, which was given up, says nothing of this one.
    if (this.#ownership !== "claimed" || this.#claims !== this.#heardClaims) return;
    if (this.#told.claimedAt === claimedAt || !isHeard(state, this.#self, claimedAt)) return;
    this.#told.claimedAt = claimedAt;
    this.#effects.push({ kind: "claim-known" });
  }

  #reviewBlock(blocked: boolean): void {
    if (blocked === this.#told.blocked) return;
    this.#told.blocked = blocked;
    this.#effects.push({ kind: "block", blocked });
  }

  #reviewRecovery(state: MountGroupState): void {
    const wanted = this.#serves ? underRecovery(state) : null;
    if (wanted === null) {
      // An owner that gave the lower back gave this up too, and begins anew when it is the owner again.
      this.#told.recover = "";
      return;
    }
    const text = `${wanted.round}/${wanted.jid ?? "all"}`;
    if (text === this.#told.recover) return;
    this.#told.recover = text;
    this.#effects.push({ kind: "recover", ...wanted });
  }
}
