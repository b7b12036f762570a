/**
 * How messages between nodes (peer-message.ts) travel on the reliable FIFO channel of a pair (TCP): one codec row each.
 * Little-endian. The stream is cut into frames by frame.ts; the body of a frame: version, view (18 bytes), u32 count, messages;
 * a message: u8 type and its body. All messages of a frame belong to its view (hazard H3). A HELLO (`encodeHello`) is
 * the body of the first frame on a connection.
 */
import { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import { maxNameBytes, noMode, readLvb, readMode, readModeOrNull, readName, writeLvb } from "./peer-field.ts";
import { type Hop, type LockName, lvbWrites, maxHops, type PeerMessage, probeSteps, refusals, type Victim } from "./peer-message.ts";
import { moveRows } from "./peer-move.ts";
import { plockRows } from "./peer-plock.ts";
import { type Member, noIncarnation, readIncarnation, readViewId, type ViewId, writeIncarnation, writeViewId } from "./view-id.ts";

export { maxLvbBytes, maxNameBytes } from "./peer-field.ts";
export type * from "./peer-message.ts";

export const peerVersion = 3;
/** A frame longer than this is refused: it bounds what a peer can make this node hold. */
export const maxFrameBytes: number = 4 * 1024 * 1024;
/** `encodeFrames` starts another frame at this length, far below maxFrameBytes. */
const softFrameBytes = 256 * 1024;
/** Text of one answer about locks. */
export const maxInspectedBytes: number = 3 * 1024 * 1024;
/** In one list. */
const maxVictims = 1024;

interface Row<M> {
  readonly type: number;
  readonly encode: (w: ByteWriter, m: M) => void;
  readonly decode: (r: ByteReader) => M;
}
type Table = { readonly [K in PeerMessage["kind"]]: Row<Extract<PeerMessage, { kind: K }>> };

function readClientId(r: ByteReader): number {
  return r.u32();
}

function readWriter(r: ByteReader): Member | null {
  const nodeid = r.u16();
  const incarnation = readIncarnation(r);
  return nodeid === 0 ? null : { nodeid, incarnation };
}

function readIndexed<T>(r: ByteReader, values: readonly T[], what: string): T {
  const index = r.u8();
  const value = values[index];
  if (value === undefined) throw new WireError(`unknown ${what} ${index} at offset ${r.offset - 1}`);
  return value;
}

function writeLockName(w: ByteWriter, name: LockName): ByteWriter {
  return w.u16(name.nodeid).u64(name.lkbId);
}

function readLockName(r: ByteReader): LockName {
  return { nodeid: r.u16(), lkbId: r.u64() };
}

function writeHop(w: ByteWriter, hop: Hop): void {
  writeLockName(w.u16(hop.masterNodeid), hop.waiter).u64(hop.waiter.no);
  writeLockName(w, hop.blocker).u64(hop.blocker.no).bool(hop.queued).u64(hop.via).u32(hop.clientId).u32(hop.transaction);
}

function readPath(r: ByteReader): Hop[] {
  const hops = r.u16();
  if (hops > maxHops) throw new WireError(`probe of ${hops} hops, at most ${maxHops} allowed`);
  return Array.from({ length: hops }, () => ({
    masterNodeid: r.u16(),
    waiter: { ...readLockName(r), no: r.u64() },
    blocker: { ...readLockName(r), no: r.u64() },
    queued: r.bool(),
    via: r.u64(),
    clientId: r.u32(),
    transaction: r.u32(),
  }));
}

function writeVictims(w: ByteWriter, victims: readonly Victim[]): void {
  w.u16(victims.length);
  for (const { nodeid, incarnation, failingView } of victims) writeViewId(writeIncarnation(w.u16(nodeid), incarnation), failingView);
}

const notWaiting = 0xffffffff;

function readWaitingMs(r: ByteReader): number | null {
  const waitingMs = r.u32();
  return waitingMs === notWaiting ? null : waitingMs;
}

function readVictims(r: ByteReader): Victim[] {
  const victims = r.u16();
  if (victims > maxVictims) throw new WireError(`${victims} fenced nodes, at most ${maxVictims} allowed`);
  return Array.from({ length: victims }, () => ({ nodeid: r.u16(), incarnation: readIncarnation(r), failingView: readViewId(r) }));
}

function readOneVictim(r: ByteReader): Victim {
  const [victim] = readVictims(r);
  if (victim === undefined) throw new WireError("a fenced node expected, found none");
  return victim;
}

const table: Table = {
  ...plockRows,
  ...moveRows,
  mark: { type: 1, encode: () => {}, decode: () => ({ kind: "mark" }) },
  resume: { type: 18, encode: (w, m) => w.u64(m.received), decode: (r) => ({ kind: "resume", received: r.u64() }) },
  continue: { type: 19, encode: (w, m) => w.u64(m.first), decode: (r) => ({ kind: "continue", first: r.u64() }) },
  ack: { type: 20, encode: (w, m) => w.u64(m.received), decode: (r) => ({ kind: "ack", received: r.u64() }) },
  done: {
    type: 2,
    encode: (w, m) => {
      writeViewId(w.u8(m.phase), m.base).bool(m.fresh);
      writeVictims(w, m.unfenced);
      writeVictims(w, m.fenced);
    },
    decode: (r) => {
      const phase = r.u8();
      if (phase !== 1 && phase !== 2) throw new WireError(`recovery phase ${phase}: 1 or 2 expected`);
      return { kind: "done", phase, base: readViewId(r), fresh: r.bool(), unfenced: readVictims(r), fenced: readVictims(r) };
    },
  },
  fenced: { type: 21, encode: (w, m) => writeVictims(w, [m.victim]), decode: (r) => ({ kind: "fenced", victim: readOneVictim(r) }) },
  "client-gone": {
    type: 3,
    encode: (w, m) => w.u32(m.clientId),
    decode: (r) => ({ kind: "client-gone", clientId: readClientId(r) }),
  },
  "client-gone-ack": {
    type: 4,
    encode: (w, m) => w.u32(m.clientId),
    decode: (r) => ({ kind: "client-gone-ack", clientId: readClientId(r) }),
  },
  request: {
    type: 5,
    encode: (w, m) => w.u64(m.lkbId).u32(m.clientId).string(m.lockspace).string(m.resource).u8(m.mode).u32(m.flags).u32(m.transaction),
    decode: (r) => ({
      kind: "request",
      lkbId: r.u64(),
      clientId: readClientId(r),
      lockspace: readName(r),
      resource: readName(r),
      mode: readMode(r),
      flags: r.u32(),
      transaction: r.u32(),
    }),
  },
  convert: {
    type: 6,
    encode: (w, m) => w.u64(m.lkbId).u8(m.mode).u32(m.flags).u32(m.transaction),
    decode: (r) => ({ kind: "convert", lkbId: r.u64(), mode: readMode(r), flags: r.u32(), transaction: r.u32() }),
  },
  down: {
    type: 7,
    encode: (w, m) => writeLvb(w.u64(m.lkbId).u32(m.grantNo).u8(m.mode).u8(lvbWrites.indexOf(m.lvbWrite)).u64(m.lvbSeq), m.lvb),
    decode: (r) => ({
      kind: "down",
      lkbId: r.u64(),
      grantNo: r.u32(),
      mode: readMode(r),
      lvbWrite: readIndexed(r, lvbWrites, "value block action"),
      lvbSeq: r.u64(),
      lvb: readLvb(r),
    }),
  },
  unlock: {
    type: 8,
    encode: (w, m) => writeLvb(w.u64(m.lkbId).u8(lvbWrites.indexOf(m.lvbWrite)).u64(m.lvbSeq), m.lvb),
    decode: (r) => ({
      kind: "unlock",
      lkbId: r.u64(),
      lvbWrite: readIndexed(r, lvbWrites, "value block action"),
      lvbSeq: r.u64(),
      lvb: readLvb(r),
    }),
  },
  cancel: { type: 9, encode: (w, m) => w.u64(m.lkbId), decode: (r) => ({ kind: "cancel", lkbId: r.u64() }) },
  adopted: {
    type: 24,
    encode: (w, m) => w.u64(m.lkbId).u32(m.clientId),
    decode: (r) => ({ kind: "adopted", lkbId: r.u64(), clientId: readClientId(r) }),
  },
  grant: {
    type: 10,
    encode: (w, m) =>
      writeLvb(w.u64(m.lkbId).u32(m.grantNo).u8(m.mode).u8(m.sbFlags).u64(m.lvbSeq).bool(m.lvbRead).bool(m.lvbValid), m.lvb),
    decode: (r) => ({
      kind: "grant",
      lkbId: r.u64(),
      grantNo: r.u32(),
      mode: readMode(r),
      sbFlags: r.u8(),
      lvbSeq: r.u64(),
      lvbRead: r.bool(),
      lvbValid: r.bool(),
      lvb: readLvb(r),
    }),
  },
  refuse: {
    type: 11,
    encode: (w, m) => w.u64(m.lkbId).u32(m.grantNo).u8(refusals.indexOf(m.status)).u8(m.sbFlags),
    decode: (r) => ({ kind: "refuse", lkbId: r.u64(), grantNo: r.u32(), status: readIndexed(r, refusals, "refusal"), sbFlags: r.u8() }),
  },
  bast: {
    type: 12,
    encode: (w, m) => w.u64(m.lkbId).u32(m.grantNo).u8(m.wanted),
    decode: (r) => ({ kind: "bast", lkbId: r.u64(), grantNo: r.u32(), wanted: readMode(r) }),
  },
  rebuild: {
    type: 13,
    encode: (w, m) => {
      w.u64(m.lkbId).u32(m.clientId).string(m.lockspace).string(m.resource);
      w.u8(m.granted ?? noMode)
        .u8(m.requested ?? noMode)
        .u32(m.flags)
        .u32(m.grantNo)
        .u32(m.transaction)
        .u32(m.waitedMs);
      writeLvb(w.u64(m.lvbSeq).bool(m.lvbRead).bool(m.lvbValid), m.lvb);
    },
    decode: (r) => ({
      kind: "rebuild",
      lkbId: r.u64(),
      clientId: readClientId(r),
      lockspace: readName(r),
      resource: readName(r),
      granted: readModeOrNull(r),
      requested: readModeOrNull(r),
      flags: r.u32(),
      grantNo: r.u32(),
      transaction: r.u32(),
      waitedMs: r.u32(),
      lvbSeq: r.u64(),
      lvbRead: r.bool(),
      lvbValid: r.bool(),
      lvb: readLvb(r),
    }),
  },
  purge: {
    type: 15,
    encode: (w, m) => w.u32(m.purgeId).string(m.lockspace).u32(m.pid).u32(m.uid),
    decode: (r) => ({ kind: "purge", purgeId: r.u32(), lockspace: readName(r), pid: r.u32(), uid: r.u32() }),
  },
  purged: {
    type: 16,
    encode: (w, m) => w.u32(m.purgeId).u32(m.locks),
    decode: (r) => ({ kind: "purged", purgeId: r.u32(), locks: r.u32() }),
  },
  inspect: {
    type: 22,
    encode: (w, m) =>
      w
        .u32(m.askId)
        .string(m.lockspace)
        .string(m.resource)
        .u16(m.nodeid)
        .u32(m.waitingMs ?? notWaiting)
        .u32(m.limit),
    decode: (r) => ({
      kind: "inspect",
      askId: r.u32(),
      lockspace: r.string(maxNameBytes),
      resource: r.string(maxNameBytes),
      nodeid: r.u16(),
      waitingMs: readWaitingMs(r),
      limit: r.u32(),
    }),
  },
  inspected: {
    type: 23,
    encode: (w, m) => w.u32(m.askId).block(m.json),
    decode: (r) => ({ kind: "inspected", askId: r.u32(), json: r.block(maxInspectedBytes).slice() }),
  },
  probe: {
    type: 17,
    encode: (w, m) => {
      writeLockName(w, m.initiator).u32(m.round).u8(probeSteps.indexOf(m.step)).bool(m.confirming).u16(m.index);
      writeLockName(w, m.target).u16(m.path.length);
      for (const hop of m.path) writeHop(w, hop);
    },
    decode: (r) => ({
      kind: "probe",
      initiator: readLockName(r),
      round: r.u32(),
      step: readIndexed(r, probeSteps, "step of a probe"),
      confirming: r.bool(),
      index: r.u16(),
      target: readLockName(r),
      path: readPath(r),
    }),
  },
  offer: {
    type: 14,
    encode: (w, m) => {
      writeLvb(w.string(m.lockspace).string(m.resource).u64(m.lvbSeq).bool(m.lvbValid), m.lvb);
      writeIncarnation(w.u16(m.writer?.nodeid ?? 0), m.writer?.incarnation ?? noIncarnation);
    },
    decode: (r) => ({
      kind: "offer",
      lockspace: readName(r),
      resource: readName(r),
      lvbSeq: r.u64(),
      lvbValid: r.bool(),
      lvb: readLvb(r),
      writer: readWriter(r),
    }),
  },
};

const byType: readonly (Row<PeerMessage> | undefined)[] = (() => {
  const rows: (Row<PeerMessage> | undefined)[] = [];
  for (const row of Object.values(table)) rows[row.type] = row as Row<PeerMessage>;
  return rows;
})();

/** The bodies of the frames that carry these messages. Usually one. */
export function encodeFrames(view: ViewId, messages: readonly PeerMessage[]): Uint8Array[] {
  const frames: Uint8Array[] = [];
  let at = 0;
  while (at < messages.length) {
    const w = new ByteWriter(256, maxFrameBytes);
    writeViewId(w.u8(peerVersion), view);
    const countAt = w.length;
    w.u32(0);
    const first = at;
    while (at < messages.length && w.length < softFrameBytes) {
      const message = messages[at++] as PeerMessage;
      const row = table[message.kind] as Row<PeerMessage>;
      w.u8(row.type);
      row.encode(w, message);
    }
    w.patchU32(countAt, at - first);
    frames.push(w.view());
  }
  return frames;
}

/** The body of one frame. Throws WireError: the connection is then to be closed. */
export function decodeFrame(bytes: Uint8Array): { view: ViewId; messages: PeerMessage[] } {
  const r = new ByteReader(bytes);
  const version = r.u8();
  if (version !== peerVersion) throw new WireError(`frame of version ${version}, this dlmd speaks ${peerVersion}`);
  const view = readViewId(r);
  const messages: PeerMessage[] = [];
  for (let left = r.u32(); left > 0; left--) {
    const type = r.u8();
    const row = byType[type];
    if (row === undefined) throw new WireError(`peer message of unknown type ${type}`);
    messages.push(row.decode(r));
  }
  r.end();
  return { view, messages };
}

/** Who speaks: first on every connection, both ways. The driver authenticates it (hazard H7). */
export interface Hello {
  readonly clusterName: string;
  readonly nodeid: number;
  readonly incarnation: string;
  readonly configVersion: number;
  /** 16 random bytes, to be confirmed by the other side. */
  readonly nonce: Uint8Array;
}

export function encodeHello(hello: Hello): Uint8Array {
  const w = new ByteWriter(128, 1024).u8(0x63).u8(0x50).u8(peerVersion).string(hello.clusterName).u16(hello.nodeid);
  writeIncarnation(w, hello.incarnation).u32(hello.configVersion).bytes(hello.nonce.subarray(0, 16));
  return w.copy();
}

/** Throws WireError. */
export function decodeHello(bytes: Uint8Array): Hello {
  const r = new ByteReader(bytes);
  if (r.u8() !== 0x63 || r.u8() !== 0x50) throw new WireError("not a connection of dlmd: wrong magic");
  const version = r.u8();
  if (version !== peerVersion) throw new WireError(`peer speaks version ${version}, this dlmd ${peerVersion}`);
  const clusterName = r.string(255);
  const nodeid = r.u16();
  if (nodeid === 0) throw new WireError("peer says nodeid 0: 1 to 65535 expected");
  const hello: Hello = { clusterName, nodeid, incarnation: readIncarnation(r), configVersion: r.u32(), nonce: r.bytes(16).slice() };
  r.end();
  return hello;
}
