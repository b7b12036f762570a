/**
 * What the mounters of a volume say to each other in order (mount-group/README.md): ordered messages of the group of that volume. A message: u8
 * version, u8 type and its body. Members with another version do not go together: a joiner that reads another one does not mount.
 */
import { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import { type Field, flag, list, maybe, oneOf, record, type Row, type Rows, row, rowsByType, u16, u32, u64 } from "./field.ts";
import { maxMessageBytes } from "./group.ts";
import { incarnation, nodeid } from "./peer-field.ts";

/** Raised with each change of what a message says or of how the state follows from it. */
export const MOUNT_GROUP_VERSION = 2;
/** Jids 0 to 1023. A mounter beyond gets none, and does not mount. */
export const MAX_JIDS = 1024;

/** A mounter: a program of a node, in one of that node's lives. */
export interface MounterId {
  readonly nodeid: number;
  readonly incarnation: string;
  readonly clientId: number;
}

const phases = ["joining", "mounted", "leaving"] as const;
export type MounterPhase = (typeof phases)[number];
const ownerships = ["none", "claimed", "serving"] as const;
export type Ownership = (typeof ownerships)[number];
const steps = ["idle", "stopping", "claiming", "reopening", "recovering"] as const;
export type RecoveryStep = (typeof steps)[number];

/** A member of the group, as all members know it. */
export interface MounterState extends MounterId {
  /** null: all were taken. */
  readonly jid: number | null;
  /** The event with which it joined. */
  readonly joinedAt: number;
  /** It has said that it delivered the events up to this one. */
  readonly heardUpTo: number;
  readonly synced: boolean;
  readonly phase: MounterPhase;
  readonly ownership: Ownership;
  /** The event with which it claimed the lower last. */
  readonly claimedAt: number;
  /** It still has to say "stopped" of the recovery that runs. */
  readonly mustStop: boolean;
  /** It was there when the owner claimed the lower, and its files are not known to be open at that owner. */
  readonly mustReopen: boolean;
}

/** A mounter that left without a clean end; its jid is not given away. */
export interface DirtyJid extends MounterId {
  readonly jid: number;
  readonly wasOwner: boolean;
}

/** The same at all members that delivered the same events. */
export interface MountGroupState {
  /** Events of the group since its founder joined: that one was 0. */
  readonly position: number;
  /** The highest that an owner said; 0: none did. */
  readonly epoch: number;
  /** Counts the recoveries that began, each start of one anew too. */
  readonly round: number;
  readonly step: RecoveryStep;
  /** An owner died, and either not all have let go of it, or there is no next one. */
  readonly ownerDied: boolean;
  /** The members before are gone with what they knew: any jid may be dirty. */
  readonly allDirty: boolean;
  /** Some owner claimed the lower since the founding. */
  readonly hadOwner: boolean;
  /** In the order in which they joined. */
  readonly members: readonly MounterState[];
  /** By jid, the lowest first. */
  readonly dirty: readonly DirtyJid[];
}

/** Of a member, to those that joined up to `state.position`. */
export interface StateMessage {
  readonly kind: "state";
  readonly state: MountGroupState;
}
/** The sender has delivered the events up to that one. */
export interface HeardMessage {
  readonly kind: "heard";
  readonly upTo: number;
}
/** The mount is there. */
export interface MountedMessage {
  readonly kind: "mounted";
}
/** The sender lets nothing of the dead of that round come to the lower any more. */
export interface StoppedMessage {
  readonly kind: "stopped";
  readonly round: number;
}
/** The sender is to be the owner. It mounts the lower when all others have said that they heard this (hazard M6). */
export interface ClaimedMessage {
  readonly kind: "claimed";
}
/** It has it mounted. */
export interface ServingMessage {
  readonly kind: "serving";
  readonly epoch: number;
}
/** It has given it back, or does not have it. */
export interface ReleasedMessage {
  readonly kind: "released";
}
/** Of the owner: the mounter with that jid has all its files open here, those that it had open at earlier owners too. */
export interface ReopenedMessage {
  readonly kind: "reopened";
  readonly jid: number;
}
/** The owner has put in order what that jid left; null: what all of them left. */
export interface RecoveredMessage {
  readonly kind: "recovered";
  readonly round: number;
  readonly jid: number | null;
}
/** A clean end: nothing of the sender is left to put in order. */
export interface ByeMessage {
  readonly kind: "bye";
}
export type MountGroupMessage =
  | StateMessage
  | HeardMessage
  | MountedMessage
  | StoppedMessage
  | ClaimedMessage
  | ServingMessage
  | ReleasedMessage
  | ReopenedMessage
  | RecoveredMessage
  | ByeMessage;

const jid: Field<number> = {
  write: (w, value) => w.u16(value),
  read: (r) => {
    const value = r.u16();
    if (value >= MAX_JIDS) throw new WireError(`jid ${value} at offset ${r.offset - 2}: 0 to ${MAX_JIDS - 1} expected`);
    return value;
  },
};

const mounter: Field<MounterState> = record<MounterState>(
  {
    nodeid,
    incarnation,
    clientId: u32,
    jid: maybe(jid),
    joinedAt: u64,
    heardUpTo: u64,
    synced: flag,
    phase: oneOf(phases, "phase of a mounter"),
    ownership: oneOf(ownerships, "ownership"),
    claimedAt: u64,
    mustStop: flag,
    mustReopen: flag,
  },
  ({ jid: own, ownership }) => {
    if (own === null && ownership !== "none") throw new WireError("a mounter without a jid that has the lower mounted");
  },
);

const dirtyJid: Field<DirtyJid> = record({ nodeid, incarnation, clientId: u32, jid, wasOwner: flag });

/** As many as a group of the engine has: those beyond the jids are refused, and members until they leave. */
const MAX_MOUNTERS = 8192;

const state: Field<MountGroupState> = record<MountGroupState>(
  {
    position: u64,
    epoch: u64,
    round: u64,
    step: oneOf(steps, "step of a recovery"),
    ownerDied: flag,
    allDirty: flag,
    hadOwner: flag,
    members: list(u16, mounter, MAX_MOUNTERS, "mounters"),
    dirty: list(u16, dirtyJid, MAX_JIDS, "dirty jids"),
  },
  ({ members, dirty }) => {
    const taken = [...members, ...dirty].flatMap((one) => (one.jid === null ? [] : [one.jid]));
    if (new Set(taken).size !== taken.length) throw new WireError("a jid that is given twice");
  },
);

const table: Rows<MountGroupMessage> = {
  state: row("state", 1, { state }),
  heard: row("heard", 2, { upTo: u64 }),
  mounted: row("mounted", 3, {}),
  stopped: row("stopped", 4, { round: u64 }),
  claimed: row("claimed", 5, {}),
  serving: row("serving", 6, { epoch: u64 }),
  released: row("released", 7, {}),
  recovered: row("recovered", 8, { round: u64, jid: maybe(jid) }),
  bye: row("bye", 9, {}),
  reopened: row("reopened", 10, { jid }),
};
const byType = rowsByType(table);

/** Of a volume's mounters. */
export function mountGroupName(uuid: string): string {
  return `mount-${uuid}`;
}

export function encodeMountGroupMessage(message: MountGroupMessage): Uint8Array {
  const { type, write } = table[message.kind] as Row<MountGroupMessage>;
  const w = new ByteWriter(64, maxMessageBytes);
  write(w.u8(MOUNT_GROUP_VERSION).u8(type), message);
  return w.copy();
}

/** Throws WireError. */
export function decodeMountGroupMessage(bytes: Uint8Array): MountGroupMessage {
  const r = new ByteReader(bytes);
  const version = r.u8();
  if (version !== MOUNT_GROUP_VERSION)
    throw new WireError(`message of mount groups of version ${version}: version ${MOUNT_GROUP_VERSION} expected`);
  const type = r.u8();
  const known = byType.get(type);
  if (known === undefined) throw new WireError(`message of mount groups of unknown type ${type}`);
  const message = known.read(r);
  r.end();
  return message;
}
