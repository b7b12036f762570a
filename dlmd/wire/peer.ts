/**
 * How messages between nodes (peer-message.ts) travel on the reliable FIFO channel of a pair (TCP): one codec row each.
 * Little-endian. The stream is cut into frames by frame.ts; the body of a frame: version, view (18 bytes), u32 count, messages;
 * a message: u8 type and its body. All messages of a frame belong to its view (hazard H3).
 */
import { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import {
  copy,
  type Field,
  flag,
  list,
  maybe,
  oneOf,
  orNull,
  record,
  type Row,
  type Rows,
  row,
  rowsByType,
  u16,
  u32,
  u64,
  u8,
} from "./field.ts";
import { anyName, incarnation, lvb, mode, modeOrNull, name, viewId } from "./peer-field.ts";
import { goneRows } from "./peer-gone.ts";
import { lockspaceRows } from "./lockspace-group.ts";
import { lifeRows } from "./peer-life.ts";
import {
  type Hop,
  type LockName,
  lvbWrites,
  MAX_VICTIM_LOCKSPACES,
  maxHops,
  type OfferMessage,
  type OpenVictim,
  type PeerMessage,
  probeSteps,
  refusals,
  type Victim,
} from "./peer-message.ts";
import { plockRows } from "./peer-plock.ts";
import { noIncarnation, readViewId, type ViewId, writeViewId } from "./view-id.ts";

export { maxLvbBytes, maxNameBytes } from "./peer-field.ts";
export type * from "./peer-message.ts";

export const peerVersion = 10;
/** A frame longer than this is refused: it bounds what a peer can make this node hold. */
export const maxFrameBytes: number = 4 * 1024 * 1024;
/** `encodeFrames` starts another frame at this length, far below maxFrameBytes. */
const softFrameBytes = 256 * 1024;
/** Text of one answer about locks. */
export const maxInspectedBytes: number = 3 * 1024 * 1024;
/** In one list. */
const maxVictims = 1024;

const lockName: Field<LockName> = record({ nodeid: u16, lkbId: u64 });
const numbered = record<Hop["waiter"]>({ nodeid: u16, lkbId: u64, no: u64 });
const hop: Field<Hop> = record({
  masterNodeid: u16,
  waiter: numbered,
  blocker: numbered,
  queued: flag,
  via: u64,
  clientId: u32,
  transaction: u32,
});
const victims = list(u16, record<Victim>({ nodeid: u16, incarnation, failingView: viewId }), maxVictims, "fenced nodes");
const victimLockspaces = maybe(list(u16, name, MAX_VICTIM_LOCKSPACES, "lockspaces of a node"));
const openVictims = list(
  u16,
  record<OpenVictim>({ nodeid: u16, incarnation, failingView: viewId, lockspaces: victimLockspaces }),
  maxVictims,
  "unfenced nodes",
);
/** A list of one. */
const oneVictim: Field<Victim> = {
  write: (w, victim) => victims.write(w, [victim]),
  read: (r) => {
    const [victim] = victims.read(r);
    if (victim === undefined) throw new WireError("a fenced node expected, found none");
    return victim;
  },
};
const phase: Field<1 | 2> = {
  write: u8.write,
  read: (r) => {
    const value = r.u8();
    if (value !== 1 && value !== 2) throw new WireError(`recovery phase ${value}: 1 or 2 expected`);
    return value;
  },
};
const writer: Field<OfferMessage["writer"]> = {
  write: (w, member) => incarnation.write(w.u16(member?.nodeid ?? 0), member?.incarnation ?? noIncarnation),
  read: (r) => {
    const member = { nodeid: r.u16(), incarnation: incarnation.read(r) };
    return member.nodeid === 0 ? null : member;
  },
};
const lvbWrite = oneOf(lvbWrites, "value block action");
const json = copy(maxInspectedBytes);

const table: Rows<PeerMessage> = {
  ...plockRows,
  ...goneRows,
  ...lifeRows,
  ...lockspaceRows,
  mark: row("mark", 1, {}),
  resume: row("resume", 18, { received: u64 }),
  continue: row("continue", 19, { first: u64 }),
  ack: row("ack", 20, { received: u64 }),
  done: row("done", 2, { phase, base: viewId, fresh: flag, unfenced: openVictims, fenced: victims }),
  fenced: row("fenced", 21, { victim: oneVictim }),
  request: row("request", 5, { lkbId: u64, clientId: u32, lockspace: name, resource: name, mode, flags: u32, transaction: u32 }),
  convert: row("convert", 6, { lkbId: u64, mode, flags: u32, transaction: u32 }),
  down: row("down", 7, { lkbId: u64, grantNo: u32, mode, lvbWrite, lvbSeq: u64, lvb }),
  unlock: row("unlock", 8, { lkbId: u64, lvbWrite, lvbSeq: u64, lvb }),
  cancel: row("cancel", 9, { lkbId: u64 }),
  adopted: row("adopted", 24, { lkbId: u64, clientId: u32 }),
  grant: row("grant", 10, { lkbId: u64, grantNo: u32, mode, sbFlags: u8, lvbSeq: u64, lvbRead: flag, lvbValid: flag, lvb }),
  refuse: row("refuse", 11, { lkbId: u64, grantNo: u32, status: oneOf(refusals, "refusal"), sbFlags: u8 }),
  bast: row("bast", 12, { lkbId: u64, grantNo: u32, wanted: mode }),
  rebuild: row("rebuild", 13, {
    lkbId: u64,
    clientId: u32,
    lockspace: name,
    resource: name,
    granted: modeOrNull,
    requested: modeOrNull,
    flags: u32,
    grantNo: u32,
    transaction: u32,
    waitedMs: u32,
    lvbSeq: u64,
    lvbRead: flag,
    lvbValid: flag,
    lvb,
  }),
  purge: row("purge", 15, { purgeId: u32, lockspace: name, pid: u32, uid: u32 }),
  purged: row("purged", 16, { purgeId: u32, locks: u32 }),
  inspect: row("inspect", 22, {
    askId: u32,
    lockspace: anyName,
    resource: anyName,
    nodeid: u16,
    waitingMs: orNull(u32, 0xffffffff),
    limit: u32,
  }),
  inspected: row("inspected", 23, { askId: u32, json }),
  probe: row("probe", 17, {
    initiator: lockName,
    round: u32,
    step: oneOf(probeSteps, "step of a probe"),
    confirming: flag,
    index: u16,
    target: lockName,
    path: list(u16, hop, maxHops, "hops of a probe"),
  }),
  offer: row("offer", 14, { lockspace: name, resource: name, lvbSeq: u64, lvbValid: flag, lvb, writer }),
};

const byType = rowsByType(table);

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
      const { type, write } = table[message.kind] as Row<PeerMessage>;
      write(w.u8(type), message);
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
    const known = byType.get(type);
    if (known === undefined) throw new WireError(`peer message of unknown type ${type}`);
    messages.push(known.read(r));
  }
  r.end();
  return { view, messages };
}
