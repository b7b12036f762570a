/** Messages by which the master of a resource becomes another node (lock/move.ts), on the channel of a pair (peer.ts): a type and a codec row each. */
import type { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import type { Mode } from "../lock/mode.ts";
import { noMode, readLvb, readMode, readModeOrNull, readName, writeLvb } from "./peer-field.ts";

/** Locks in one message. A resource with more of them stays where it is. */
export const movableLocks = 1024;
/** Nodes that one message says were told to wait; each once by its home and once by its master at most, in a cluster of 31. */
const maxTold = 256;
/** Names in one message; more of them are several. */
export const maxDisplaced = 512;

interface Naming<K> {
  readonly kind: K;
  readonly lockspace: string;
  readonly resource: string;
  /** Of a move-begin, among those of its sender. */
  readonly no: number;
}

/** Recovery, before DONE 1: resources that the sender knows not to be at their homes, or on the way (lock/move.ts). */
export interface DisplacedMessage {
  readonly kind: "displaced";
  readonly lockspace: string;
  readonly resources: readonly DisplacedResource[];
}
export interface DisplacedResource {
  readonly name: string;
  /** Of a value block that a client of the sender has written and of which no master has heard; 0: none. */
  readonly unsentSeq: number;
}
/** Master to who has locks on that resource: keep what you have to say about it (lock/move.ts). Answered by "move-ready". */
export type MoveBeginMessage = Naming<"move-begin">;
/** Nothing about that resource comes from here any more before "moved". */
export type MoveReadyMessage = Naming<"move-ready">;
/** Who waits since which move-begin, `by` whose. */
export interface Told {
  readonly nodeid: number;
  readonly by: number;
  readonly no: number;
}
/** A lock as its master has it. */
export interface MovedLock {
  readonly nodeid: number;
  readonly lkbId: number;
  readonly clientId: number;
  readonly granted: Mode | null;
  readonly requested: Mode | null;
  readonly flags: number;
  readonly sbFlags: number;
  readonly grantNo: number;
  readonly transaction: number;
  readonly bastMode: Mode;
  readonly unordered: boolean;
  /** Since it was asked for; nothing outstanding: since the last blocking AST. */
  readonly waitedMs: number;
}
/** Old master to new master: all of it, in the order of its queues. */
export interface MoveStateMessage {
  readonly kind: "move-state";
  readonly lockspace: string;
  readonly resource: string;
  readonly lvbSeq: number;
  readonly lvbValid: boolean;
  readonly lvb: Uint8Array | null;
  readonly told: readonly Told[];
  readonly locks: readonly MovedLock[];
}
/** Home to master: requests of one that did not know where the resource is. */
export interface MoveJoinMessage {
  readonly kind: "move-join";
  readonly lockspace: string;
  readonly resource: string;
  readonly told: readonly Told[];
  readonly locks: readonly MovedLock[];
}
/** Master to who waits since that move-begin: I am. */
export interface MovedMessage {
  readonly kind: "moved";
  readonly lockspace: string;
  readonly resource: string;
  readonly by: number;
  readonly no: number;
}

export type MoveMessage = DisplacedMessage | MoveBeginMessage | MoveReadyMessage | MoveStateMessage | MoveJoinMessage | MovedMessage;

interface Row<M> {
  readonly type: number;
  readonly encode: (w: ByteWriter, m: M) => void;
  readonly decode: (r: ByteReader) => M;
}
type Table = { readonly [K in MoveMessage["kind"]]: Row<Extract<MoveMessage, { kind: K }>> };

function readList<T>(r: ByteReader, limit: number, what: string, read: () => T): T[] {
  const count = r.u16();
  if (count > limit) throw new WireError(`${count} ${what}, at most ${limit} allowed`);
  return Array.from({ length: count }, read);
}

function writeTold(w: ByteWriter, told: readonly Told[]): void {
  w.u16(told.length);
  for (const { nodeid, by, no } of told) w.u16(nodeid).u16(by).u32(no);
}

function readTold(r: ByteReader): Told[] {
  return readList(r, maxTold, "nodes that wait", () => ({ nodeid: r.u16(), by: r.u16(), no: r.u32() }));
}

function writeLocks(w: ByteWriter, locks: readonly MovedLock[]): void {
  w.u16(locks.length);
  for (const lock of locks) {
    w.u16(lock.nodeid)
      .u64(lock.lkbId)
      .u32(lock.clientId)
      .u8(lock.granted ?? noMode)
      .u8(lock.requested ?? noMode);
    w.u32(lock.flags).u8(lock.sbFlags).u32(lock.grantNo).u32(lock.transaction);
    w.u8(lock.bastMode).bool(lock.unordered).u32(lock.waitedMs);
  }
}

function readLocks(r: ByteReader): MovedLock[] {
  return readList(r, movableLocks, "locks of a resource that moves", () => {
    const lock: MovedLock = {
      nodeid: r.u16(),
      lkbId: r.u64(),
      clientId: r.u32(),
      granted: readModeOrNull(r),
      requested: readModeOrNull(r),
      flags: r.u32(),
      sbFlags: r.u8(),
      grantNo: r.u32(),
      transaction: r.u32(),
      bastMode: readMode(r),
      unordered: r.bool(),
      waitedMs: r.u32(),
    };
    if (lock.granted === null && lock.requested === null) throw new WireError(`lock ${lock.lkbId} neither has nor wants anything`);
    return lock;
  });
}

/** Of a message that has nothing else to say. */
function namingRow<K extends string>(kind: K, type: number): Row<Naming<K>> {
  return {
    type,
    encode: (w, m) => w.string(m.lockspace).string(m.resource).u32(m.no),
    decode: (r) => ({ kind, lockspace: readName(r), resource: readName(r), no: r.u32() }),
  };
}

export const moveRows: Table = {
  displaced: {
    type: 25,
    encode: (w, m) => {
      w.string(m.lockspace).u16(m.resources.length);
      for (const { name, unsentSeq } of m.resources) w.string(name).u64(unsentSeq);
    },
    decode: (r) => ({
      kind: "displaced",
      lockspace: readName(r),
      resources: readList(r, maxDisplaced, "resources that are not at their homes", () => ({ name: readName(r), unsentSeq: r.u64() })),
    }),
  },
  "move-begin": namingRow("move-begin", 26),
  "move-ready": namingRow("move-ready", 27),
  "move-state": {
    type: 28,
    encode: (w, m) => {
      writeLvb(w.string(m.lockspace).string(m.resource).u64(m.lvbSeq).bool(m.lvbValid), m.lvb);
      writeTold(w, m.told);
      writeLocks(w, m.locks);
    },
    decode: (r) => ({
      kind: "move-state",
      lockspace: readName(r),
      resource: readName(r),
      lvbSeq: r.u64(),
      lvbValid: r.bool(),
      lvb: readLvb(r),
      told: readTold(r),
      locks: readLocks(r),
    }),
  },
  "move-join": {
    type: 29,
    encode: (w, m) => {
      writeTold(w.string(m.lockspace).string(m.resource), m.told);
      writeLocks(w, m.locks);
    },
    decode: (r) => ({ kind: "move-join", lockspace: readName(r), resource: readName(r), told: readTold(r), locks: readLocks(r) }),
  },
  moved: {
    type: 30,
    encode: (w, m) => w.string(m.lockspace).string(m.resource).u16(m.by).u32(m.no),
    decode: (r) => ({ kind: "moved", lockspace: readName(r), resource: readName(r), by: r.u16(), no: r.u32() }),
  },
};
