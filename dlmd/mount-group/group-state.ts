/**
 * What the mounters of a volume agree upon, and how an event of their group changes it: a function of the events alone, the same at all members
 * (README.md of this room). The order of mounting and of failure is that of gfs_controld and gfs_clusterd.
 */
import { assert, assertNever } from "../base/assert.ts";
import {
  type DirtyJid,
  MAX_JIDS,
  type MounterId,
  type MounterState,
  type MountGroupMessage,
  type MountGroupState,
} from "../wire/mount-group.ts";

/** Who is in the group after the event, in the order in which they joined, and who came with it. */
export interface Membership {
  readonly members: readonly MounterId[];
  readonly joined: readonly MounterId[];
}

export function isSameMounter(a: MounterId, b: MounterId): boolean {
  return a.nodeid === b.nodeid && a.clientId === b.clientId && a.incarnation === b.incarnation;
}

/** `joinedAt`: of each member, in their order. Nothing is known of the mounters before, so everything is to be put in order first. */
export function foundedState(members: readonly MounterId[], joinedAt: readonly number[], position: number): MountGroupState {
  const none: MountGroupState = {
    position,
    epoch: 0,
    round: 0,
    step: "idle",
    ownerDied: false,
    allDirty: true,
    hadOwner: false,
    members: [],
    dirty: [],
  };
  let state = none;
  members.forEach((member, at) => {
    state = admitted(state, member, joinedAt[at] as number);
  });
  const founder = state.members[0];
  assert(founder !== undefined, "a mount group without a founder");
  state = changed(state, founder, { synced: true, heardUpTo: position });
  return advanced(begun(state, []));
}

// -------------------------------------------------------------------------------------------------------------- events

/** Members came or went. */
export function withMembership(before: MountGroupState, { members, joined }: Membership): MountGroupState {
  let state: MountGroupState = { ...before, position: before.position + 1 };
  const left = state.members.filter((one) => !members.some((member) => isSameMounter(member, one)));
  if (left.length > 0) state = withoutMembers(state, left);
  for (const member of members) {
    if (!joined.some((one) => isSameMounter(one, member))) continue;
    state = admitted(state, member, state.position);
  }
  const same = state.members.length === members.length && state.members.every((one, at) => isSameMounter(one, members[at] as MounterId));
  assert(same, "the mounters that the group counts are not those that its events tell of");
  return advanced(state);
}

/** `message` null: it can not be read. */
export function withMessage(before: MountGroupState, from: MounterId, message: MountGroupMessage | null): MountGroupState {
  const state: MountGroupState = { ...before, position: before.position + 1 };
  const sender = state.members.find((one) => isSameMounter(one, from));
  // One that has no state yet can not mean what it says.
  if (message === null || sender === undefined || !sender.synced) return state;
  return advanced(said(state, sender, message));
}

function said(state: MountGroupState, sender: MounterState, message: MountGroupMessage): MountGroupState {
  switch (message.kind) {
    case "state": {
      const { position } = message.state;
      return { ...state, members: state.members.map((one) => (one.joinedAt <= position ? { ...one, synced: true } : one)) };
    }
    case "heard":
      return changed(state, sender, { heardUpTo: Math.max(sender.heardUpTo, Math.min(message.upTo, state.position)) });
    case "mounted":
      return sender.phase === "joining" ? changed(state, sender, { phase: "mounted" }) : state;
    case "stopped":
      return message.round === state.round ? changed(state, sender, { mustStop: false }) : state;
    case "claimed":
      return sender.jid === null ? state : withClaim(state, sender);
    case "serving":
      if (sender.ownership === "none") return state;
      return changed({ ...state, epoch: Math.max(state.epoch, message.epoch) }, sender, { ownership: "serving" });
    case "released":
      return changed(state, sender, { ownership: "none" });
    case "reopened": {
      if (sender !== servingOwner(state)) return state;
      const mounter = state.members.find(({ jid }) => jid === message.jid);
      return mounter === undefined ? state : changed(state, mounter, { mustReopen: false });
    }
    case "recovered":
      return withRecovered(state, sender, message.round, message.jid);
    case "bye":
      return sender.ownership === "none" ? changed(state, sender, { phase: "leaving" }) : state;
    default:
      return assertNever(message, "message of a mount group");
  }
}

/**
 * Each mounter that is there may have files open at an earlier owner, whether that one ended well or not; one that joins later has none (H10). Nor has
 * anybody while all is dirty: a mount begins blocked, and the group lets nobody go before an owner has put all in order.
 */
function withClaim(state: MountGroupState, sender: MounterState): MountGroupState {
  const claimed = changed(state, sender, { ownership: "claimed", claimedAt: state.position });
  if (state.allDirty) return { ...claimed, hadOwner: true };
  return { ...claimed, members: claimed.members.map((one) => ({ ...one, mustReopen: true })) };
}

function withRecovered(state: MountGroupState, sender: MounterState, round: number, jid: number | null): MountGroupState {
  if (state.step !== "recovering" || round !== state.round || sender !== servingOwner(state)) return state;
  if (jid === null) return { ...state, allDirty: false, dirty: [] };
  return { ...state, dirty: state.dirty.filter((one) => one.jid !== jid) };
}

// ------------------------------------------------------------------------------------------------------------- members

function changed(state: MountGroupState, member: MounterState, change: Partial<MounterState>): MountGroupState {
  return { ...state, members: state.members.map((one) => (one === member ? { ...one, ...change } : one)) };
}

function admitted(state: MountGroupState, member: MounterId, joinedAt: number): MountGroupState {
  const { nodeid, incarnation, clientId } = member;
  const mounter: MounterState = {
    nodeid,
    incarnation,
    clientId,
    jid: freeJid(state),
    joinedAt,
    heardUpTo: 0,
    synced: false,
    phase: "joining",
    ownership: "none",
    claimedAt: 0,
    // It has to do with none of those that were gone when it came.
    mustStop: false,
    mustReopen: false,
  };
  return { ...state, members: [...state.members, mounter] };
}

/** The lowest that is neither given nor dirty. */
function freeJid(state: MountGroupState): number | null {
  const taken = new Set([...state.members, ...state.dirty].map(({ jid }) => jid));
  for (let jid = 0; jid < MAX_JIDS; jid++) if (!taken.has(jid)) return jid;
  return null;
}

function withoutMembers(state: MountGroupState, left: readonly MounterState[]): MountGroupState {
  const dead: DirtyJid[] = [];
  for (const { nodeid, incarnation, clientId, jid, phase, ownership } of left) {
    if (jid !== null && phase !== "leaving") dead.push({ nodeid, incarnation, clientId, jid, wasOwner: ownership !== "none" });
  }
  const members = state.members.filter((one) => !left.includes(one));
  if (dead.length === 0) return { ...state, members };
  return begun({ ...state, members }, dead);
}

// ------------------------------------------------------------------------------------------------------------ recovery

/** From the first step on, with those that are dirty already. An owner that all have let go of, and that has a successor, blocks nobody any more. */
function begun(state: MountGroupState, dead: readonly DirtyJid[]): MountGroupState {
  const members = state.members.map((one) => ({ ...one, mustStop: true }));
  const ownerDied = state.ownerDied || dead.some(({ wasOwner }) => wasOwner);
  const dirty = [...state.dirty, ...dead].sort((a, b) => a.jid - b.jid);
  return { ...state, round: state.round + 1, step: "stopping", ownerDied, members, dirty };
}

/** As many steps as there is nothing to wait for. */
function advanced(state: MountGroupState): MountGroupState {
  switch (state.step) {
    case "idle":
      return state;
    case "stopping":
      return state.members.some(({ mustStop }) => mustStop) ? state : advanced({ ...state, step: "claiming" });
    case "claiming":
      return servingOwner(state) === null ? state : advanced({ ...state, step: "reopening", ownerDied: false });
    case "reopening":
      // An owner that left cleanly in the middle: the next one goes on.
      if (servingOwner(state) === null) return { ...state, step: "claiming" };
      return state.members.some(({ mustReopen }) => mustReopen) ? state : advanced({ ...state, step: "recovering" });
    case "recovering":
      if (servingOwner(state) === null) return { ...state, step: "claiming" };
      return state.allDirty || state.dirty.length > 0 ? state : { ...state, step: "idle" };
    default:
      return assertNever(state.step, "step of a recovery");
  }
}

// ------------------------------------------------------------------------------------------------------------- answers

/** The one mounter that has the lower mounted. null: none says so, or two do until one has released it or is gone. */
export function servingOwner(state: MountGroupState): MounterState | null {
  const owners = state.members.filter(({ ownership }) => ownership !== "none");
  const [owner] = owners;
  return owners.length === 1 && owner?.ownership === "serving" ? owner : null;
}

/** Nothing that needs the lower begins at any mounter. The death of another mounter blocks nobody while the owner serves. */
export function isBlocked(state: MountGroupState): boolean {
  // Two that may have it: one is dead or about to say that it has released it.
  if (state.step === "idle") return state.members.filter(({ ownership }) => ownership !== "none").length > 1;
  return state.ownerDied || state.allDirty || servingOwner(state) === null;
}

/** Mounters whose files are not known to be open at the owner that serves. Empty without one: then nobody can open them. */
export function notReopened(state: MountGroupState): readonly MounterState[] {
  return servingOwner(state) === null ? [] : state.members.filter(({ mustReopen }) => mustReopen);
}

/** What the owner puts in order now; null as jid: whatever is there. */
export function underRecovery(state: MountGroupState): { readonly round: number; readonly jid: number | null } | null {
  if (state.step !== "recovering") return null;
  return { round: state.round, jid: state.allDirty ? null : (state.dirty[0]?.jid ?? null) };
}

/**
 * All others know what that mounter did with event `at`: only then is there always one that remembers it (hazard M6). Those that joined later know by the
 * state that they get.
 */
export function isHeard(state: MountGroupState, mounter: MounterId, at: number): boolean {
  return notHeard(state, mounter, at).length === 0;
}

export function notHeard(state: MountGroupState, mounter: MounterId, at: number): readonly MounterState[] {
  const own = state.members.findIndex((one) => isSameMounter(one, mounter));
  const isBefore = ({ joinedAt }: MounterState, place: number): boolean => joinedAt < at || (joinedAt === at && place < own);
  return state.members.filter((one, place) => place !== own && isBefore(one, place) && one.heardUpTo < at);
}
