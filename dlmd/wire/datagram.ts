/**
 * Membership's datagrams: one type and one codec row each. Little-endian; header: magic "cD", version, type, sender's
 * nodeid and incarnation. Authenticity (cluster key, replay protection) is the driver's business, around these bytes.
 * The protocol: corosync totemsrp.c for the shape, hazards H4 (names of views), H13, H14 and C4 for what is carried.
 */
import { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import {
  maxNodes,
  type OrderDatagram,
  type OrderStart,
  type OrderState,
  orderRows,
  readList,
  readMember,
  readNodeid,
  readOrderStart,
  readOrderState,
  writeMembers,
  writeOrderStart,
  writeOrderState,
} from "./order-datagram.ts";
import { type QuorumCount, readElectorate, readQuorum, writeElectorate, writeQuorum } from "./quorum-count.ts";
import { type Lineage, type Member, readIncarnation, readViewId, type ViewId, writeIncarnation, writeViewId } from "./view-id.ts";

export const datagramVersion = 3;
/** What a heartbeat is padded to now and then: the largest datagram that must get through (hazard H13). */
export const largestHeartbeatBytes = 1380;

interface Sender {
  readonly from: number;
  readonly incarnation: string;
}

/** A node that the sender heard within the time-out (hazard H14), and the last heartbeat of it: the ack of hazard C4. */
export interface Heard {
  readonly nodeid: number;
  readonly incarnation: string;
  /** 0: heard, but the sender acks nothing. */
  readonly seq: number;
  /** The TCP connection to it is up (hazard H13). */
  readonly tcpUp: boolean;
}

/** Sent to all every tenth of the time-out, and at once after an installation. */
export interface Heartbeat extends Sender {
  readonly kind: "heartbeat";
  /** Counts up from 1 in an incarnation; never wraps in its life. */
  readonly seq: number;
  /** Installed view; noView before the first. */
  readonly view: ViewId;
  readonly promisedEpoch: number;
  /** The latest quorate view whose lock service this node may have seen running; noView: it holds no state. */
  readonly lineage: ViewId;
  readonly configVersion: number;
  /** Lock service running. */
  readonly running: boolean;
  /** Promised a later view than `view`: acks nothing, serves nothing. */
  readonly stopped: boolean;
  /** Frames between members of `view` were lost: a new view is needed to rebuild. */
  readonly broken: boolean;
  /** What a restart must know of `view` is on disk. */
  readonly stored: boolean;
  /** Steps of the main loop (hazard H13); modulo 2^32. */
  readonly progress: number;
  /** Zero bytes after the rest, so that a path which carries small datagrams only is found out (hazard H13). */
  readonly padding: number;
  readonly heard: readonly Heard[];
}

/** "Promise this view": repeated until answered or given up. */
export interface Propose extends Sender {
  readonly kind: "propose";
  readonly view: ViewId;
  readonly members: readonly Member[];
}

/** The promise, once stored, and what the proposer must know. */
export interface StateAnswer extends Sender {
  readonly kind: "state";
  readonly view: ViewId;
  readonly configVersion: number;
  /** As in heartbeats. */
  readonly lineage: ViewId;
  /** The latest quorate view that this node was in, in any of its lives. */
  readonly seen: Lineage;
  /**
   * For each configured node that is not proposed and did not leave cleanly: ms since this node last acked it, or could have in a
   * former incarnation.
   */
  readonly ackedAgo: readonly { readonly nodeid: number; readonly ms: number }[];
  /** What it has of the ordered channel. */
  readonly order: OrderState;
}

/** Repeated until every member's heartbeat shows the view. */
export interface Install extends Sender {
  readonly kind: "install";
  readonly view: ViewId;
  readonly members: readonly Member[];
  /** Before lock service may start: until then a node outside the view may still serve under its lease (hazard C4). */
  readonly waitMs: number;
  /** Counted by the proposer, whose configuration is the latest of all members (hazard C8). */
  readonly quorum: QuorumCount;
  /** null: not quorate, and the ordered channel stands still. */
  readonly start: OrderStart | null;
}

/** The sender stopped for good and holds nothing. Repeated until a view without it is seen. */
export interface Leave extends Sender {
  readonly kind: "leave";
  readonly view: ViewId;
}

/** "The cluster went on without you": that incarnation must drop its state. */
export interface Evict extends Sender {
  readonly kind: "evict";
  readonly nodeid: number;
  readonly targetIncarnation: string;
  /** A quorate view that ran, later than the target's lineage and without it. */
  readonly lineage: ViewId;
}

export type Datagram = Heartbeat | Propose | StateAnswer | Install | Leave | Evict | OrderDatagram;

interface Row<M> {
  readonly type: number;
  readonly encode: (w: ByteWriter, m: M) => void;
  readonly decode: (r: ByteReader, sender: Sender) => M;
}
type Table = { readonly [K in Datagram["kind"]]: Row<Extract<Datagram, { kind: K }>> };

const flagRunning = 1;
const flagStopped = 2;
const flagBroken = 4;
const flagStored = 8;

const table: Table = {
  heartbeat: {
    type: 1,
    encode: (w, m) => {
      writeViewId(w.u32(m.seq), m.view);
      writeViewId(w.u64(m.promisedEpoch), m.lineage);
      const state = (m.running ? flagRunning : 0) | (m.stopped ? flagStopped : 0);
      w.u32(m.configVersion).u8(state | (m.broken ? flagBroken : 0) | (m.stored ? flagStored : 0));
      w.u32(m.progress).u8(m.heard.length);
      for (const h of m.heard) writeIncarnation(w.u16(h.nodeid), h.incarnation).u32(h.seq).bool(h.tcpUp);
      w.u16(m.padding).bytes(new Uint8Array(m.padding));
    },
    decode: (r, sender) => {
      const seq = r.u32();
      const view = readViewId(r);
      const promisedEpoch = r.u64();
      const lineage = readViewId(r);
      const configVersion = r.u32();
      const flags = r.u8();
      if (flags > 15) throw new WireError(`heartbeat with unknown flags ${flags}`);
      const progress = r.u32();
      const heard = readList(r, "nodes heard", maxNodes, (r) => ({
        nodeid: readNodeid(r),
        incarnation: readIncarnation(r),
        seq: r.u32(),
        tcpUp: r.bool(),
      }));
      const padding = r.u16();
      r.skip(padding);
      const running = (flags & flagRunning) !== 0;
      const stopped = (flags & flagStopped) !== 0;
      const broken = (flags & flagBroken) !== 0;
      const stored = (flags & flagStored) !== 0;
      return {
        kind: "heartbeat",
        ...sender,
        seq,
        view,
        promisedEpoch,
        lineage,
        configVersion,
        running,
        stopped,
        broken,
        stored,
        progress,
        padding,
        heard,
      };
    },
  },
  propose: {
    type: 2,
    encode: (w, m) => writeMembers(writeViewId(w, m.view), m.members),
    decode: (r, sender) => ({ kind: "propose", ...sender, view: readViewId(r), members: readList(r, "members", maxNodes, readMember) }),
  },
  state: {
    type: 3,
    encode: (w, m) => {
      writeViewId(writeViewId(w, m.view).u32(m.configVersion), m.lineage);
      writeMembers(writeViewId(w, m.seen.id), m.seen.members);
      writeElectorate(w, m.seen.electorate);
      w.u8(m.ackedAgo.length);
      for (const ago of m.ackedAgo) w.u16(ago.nodeid).f64(ago.ms);
      writeOrderState(w, m.order);
    },
    decode: (r, sender) => ({
      kind: "state",
      ...sender,
      view: readViewId(r),
      configVersion: r.u32(),
      lineage: readViewId(r),
      seen: { id: readViewId(r), members: readList(r, "members seen", maxNodes, readMember), electorate: readElectorate(r) },
      ackedAgo: readList(r, "nodes acked", maxNodes, (r) => ({ nodeid: readNodeid(r), ms: readMs(r) })),
      order: readOrderState(r),
    }),
  },
  install: {
    type: 4,
    encode: (w, m) => {
      writeMembers(writeViewId(w, m.view), m.members);
      writeQuorum(w.f64(m.waitMs), m.quorum);
      if (m.start !== null) writeOrderStart(w, m.start);
    },
    decode: (r, sender) => {
      const view = readViewId(r);
      const members = readList(r, "members", maxNodes, readMember);
      const waitMs = readMs(r);
      const quorum = readQuorum(r);
      return { kind: "install", ...sender, view, members, waitMs, quorum, start: quorum.quorate ? readOrderStart(r) : null };
    },
  },
  leave: {
    type: 5,
    encode: (w, m) => writeViewId(w, m.view),
    decode: (r, sender) => ({ kind: "leave", ...sender, view: readViewId(r) }),
  },
  ...orderRows,
  evict: {
    type: 6,
    encode: (w, m) => writeViewId(writeIncarnation(w.u16(m.nodeid), m.targetIncarnation), m.lineage),
    decode: (r, sender) => ({
      kind: "evict",
      ...sender,
      nodeid: readNodeid(r),
      targetIncarnation: readIncarnation(r),
      lineage: readViewId(r),
    }),
  },
};

/** A duration: finite, not negative; a lying one could start service too early or never. */
function readMs(r: ByteReader): number {
  const ms = r.f64();
  if (!(ms >= 0 && ms <= 1e12)) throw new WireError(`duration ${ms} ms at offset ${r.offset - 8}: 0 to 1e12 expected`);
  return ms;
}

const byType = new Map<number, Row<Datagram>>(Object.values(table).map((row) => [row.type, row as Row<Datagram>]));

/** Room for all but the body of a packet: so the bytes of one need not be moved. */
const packetHeadBytes = 96;

/** The bytes of one message, of their own. */
export function encodeDatagram(message: Datagram): Uint8Array {
  const row = table[message.kind] as Row<Datagram>;
  const bytes = "body" in message ? packetHeadBytes + message.body.byteLength : 256;
  const w = new ByteWriter(bytes, 65_507).u8(0x63).u8(0x44).u8(datagramVersion).u8(row.type);
  writeIncarnation(w.u16(message.from), message.incarnation);
  row.encode(w, message);
  return w.view();
}

/** Throws WireError for anything that is not exactly one datagram of this version. */
export function decodeDatagram(bytes: Uint8Array): Datagram {
  const r = new ByteReader(bytes);
  if (r.u8() !== 0x63 || r.u8() !== 0x44) throw new WireError("not a datagram of dlmd: wrong magic");
  const version = r.u8();
  if (version !== datagramVersion) throw new WireError(`datagram of version ${version}, this dlmd speaks ${datagramVersion}`);
  const type = r.u8();
  const row = byType.get(type);
  if (row === undefined) throw new WireError(`datagram of unknown type ${type}`);
  const message = row.decode(r, { from: readNodeid(r), incarnation: readIncarnation(r) });
  r.end();
  return message;
}
