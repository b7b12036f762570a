/**
 * Messages between a program and the dlmd of its node, on the local socket: frames (frame.ts, without a checksum) whose
 * body is one message, its kind first. Little-endian. The entries of the two batch messages are in local-batch.ts.
 */
import { ByteReader, type ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import {
  block,
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
  text,
  u16,
  u32,
  u64,
  u8,
} from "./field.ts";
import { bootIdField, fenceWords } from "./fence-life.ts";
import { heirEventRows, heirRequestRows } from "./local-heir.ts";
import { groupEventRows, groupRequestRows } from "./local-group.ts";
import { LOCAL_FRAME_BYTES, NAME_BYTES, REASON_BYTES, REQUESTS_KIND, RESULTS_KIND } from "./local-batch.ts";
import { plockRequestRows, plockResultRow } from "./local-plock.ts";
import { anyName, incarnation, name, nodeid } from "./peer-field.ts";
import { MAX_DEVICE_BYTES } from "./peer-life.ts";
import {
  type ClientEvent,
  type ClientRequest,
  type ClusterInfo,
  type GoneClient,
  type OverlayKey,
  queries,
  type ViewInfo,
} from "./program.ts";

/** "CVLD" */
const MAGIC = 0x444c5643;
export const LOCAL_VERSION = 16;
const TEXT_BYTES = 256;
/** Of a program's name. */
export const PROGRAM_BYTES: number = TEXT_BYTES;
const LIST_ROWS = 65536;
const OVERLAY_KEYS = 16;
const OVERLAY_KEY_BYTES = 64;
const HELLO_KIND = 1;

export type ClientMessage =
  | {
      readonly kind: "hello";
      readonly version: number;
      readonly pid: number;
      readonly program: string;
      readonly owner: string;
      /** ConnectOptions.bastLimitMs; 0: none. */
      readonly bastLimitMs: number;
    }
  /** To be read with decodeRequests. */
  | { readonly kind: "requests"; readonly entries: ByteReader }
  | Exclude<ClientRequest, { kind: "lock" | "convert" | "unlock" | "cancel" }>;

export type ServerMessage =
  | { readonly kind: "welcome"; readonly info: ClusterInfo; readonly view: ViewInfo }
  /** To be read with decodeResults. */
  | { readonly kind: "results"; readonly entries: ByteReader }
  | Exclude<ClientEvent, { kind: "ast" | "bast" | "answer" }>
  /** `json`: UTF-8. */
  | { readonly kind: "answer"; readonly queryId: number; readonly json: Uint8Array }
  /** ClusterInfo.overlayKeys are these from now on. */
  | { readonly kind: "overlay-keys"; readonly keys: readonly OverlayKey[] }
  /** The connection ends after it. */
  | { readonly kind: "error"; readonly reason: string };

const word = text(TEXT_BYTES);
const reason = text(REASON_BYTES);

/* Client to server ---------------------------------------------------------------------------------------------- */

type Hello = Extract<ClientMessage, { kind: "hello" }>;
type Rowed<M extends { readonly kind: string }, K extends M["kind"]> = Exclude<M, { kind: K }>;

const helloRow: Row<Hello> = {
  type: HELLO_KIND,
  write: (w, { version, pid, program, owner, bastLimitMs }) => {
    w.u32(MAGIC).u16(version).u32(pid).string(program).string(owner).u32(bastLimitMs);
  },
  read: (r) => {
    const magic = r.u32();
    if (magic !== MAGIC) throw new WireError(`a coverlay client expected, found magic 0x${magic.toString(16)}`);
    const [version, pid, program] = [r.u16(), r.u32(), r.string(TEXT_BYTES)];
    if (version === LOCAL_VERSION) return { kind: "hello", version, pid, program, owner: r.string(NAME_BYTES), bastLimitMs: r.u32() };
    // A program of another version is told so, whatever else it says.
    r.skip(r.remaining);
    return { kind: "hello", version, pid, program, owner: "", bastLimitMs: 0 };
  },
};

const clientRows: Rows<Rowed<ClientMessage, "requests">> = {
  hello: helloRow,
  open: row("open", 2, { lockspaceId: u32, name }),
  "gone-ack": row("gone-ack", 4, { goneId: u32 }),
  query: row("query", 5, { queryId: u32, what: oneOf(queries, "query") }),
  purge: row("purge", 6, { purgeId: u32, lockspaceId: u32, nodeid: u16, pid: u32 }),
  inspect: row("inspect", 7, { queryId: u32, lockspace: anyName, resource: anyName, nodeid: u16, waitingMs: orNull(u32, 0xffffffff) }),
  "bast-limit": row("bast-limit", 8, { limitMs: u32 }),
  "ask-life": row("ask-life", 9, { queryId: u32, nodeid: u16, pid: u32, startTime: u64, device: text(MAX_DEVICE_BYTES) }),
  "fence-life": row("fence-life", 10, { queryId: u32, nodeid, incarnation, bootId: bootIdField, why: fenceWords }),
  ...heirRequestRows,
  ...plockRequestRows,
  ...groupRequestRows,
};
const clientRowOf = rowsByType(clientRows);

export function encodeClientMessage(writer: ByteWriter, message: Rowed<ClientMessage, "requests">): void {
  const { type, write } = clientRows[message.kind] as Row<ClientMessage>;
  write(writer.u8(type), message);
}

/** Throws WireError. */
export function decodeClientMessage(body: Uint8Array): ClientMessage {
  const reader = new ByteReader(body);
  const kind = reader.u8();
  return kind === REQUESTS_KIND ? { kind: "requests", entries: reader } : readWhole(reader, clientRowOf.get(kind), `${kind} from a client`);
}

function readWhole<M>(reader: ByteReader, known: Row<M> | undefined, what: string): M {
  if (known === undefined) throw new WireError(`message of kind ${what}: there is none`);
  const message = known.read(reader);
  reader.end();
  return message;
}

/* Server to client ---------------------------------------------------------------------------------------------- */

function rows<T>(each: Field<T>): Field<readonly T[]> {
  return list(u32, each, LIST_ROWS, "rows of a list");
}

const view: Field<ViewInfo> = record<ViewInfo>(
  { viewId: word, quorate: flag, running: flag, quorumReason: reason, members: rows(u16), incarnations: rows(word) },
  ({ members, incarnations }) => {
    if (members.length !== incarnations.length) throw new WireError(`${incarnations.length} incarnations of ${members.length} members`);
  },
);
const keys = list(u8, record<OverlayKey>({ id: word, bytes: copy(OVERLAY_KEY_BYTES) }), OVERLAY_KEYS, "keys of overlays");
const info: Field<ClusterInfo> = record({
  clusterName: word,
  nodeid: u16,
  incarnation: word,
  clientId: u32,
  nodes: rows(record<ClusterInfo["nodes"][number]>({ nodeid: u16, name: word, address: word })),
  volumes: rows(record<ClusterInfo["volumes"][number]>({ name: word, uuid: word, lower: oneOf(["device", "directory"], "lower") })),
  preferredOwners: rows(u16),
  overlayKeys: keys,
});

const serverRows: Rows<Rowed<ServerMessage, "results">> = {
  welcome: row("welcome", 129, { info, view }),
  opened: row("opened", 130, { lockspaceId: u32, error: reason }),
  view: row("view", 132, { view }),
  gone: row("gone", 133, { goneId: u32, clients: rows(record<GoneClient>({ nodeid: u16, incarnation: word, clientId: maybe(u32) })) }),
  answer: row("answer", 134, { queryId: u32, json: block(LOCAL_FRAME_BYTES) }),
  error: row("error", 135, { reason }),
  purged: row("purged", 136, { purgeId: u32, locks: u32, error: reason }),
  "overlay-keys": row("overlay-keys", 137, { keys }),
  ...heirEventRows,
  "plock-result": plockResultRow,
  ...groupEventRows,
};
const serverRowOf = rowsByType(serverRows);

export function encodeServerMessage(writer: ByteWriter, message: Rowed<ServerMessage, "results">): void {
  const { type, write } = serverRows[message.kind] as Row<ServerMessage>;
  write(writer.u8(type), message);
}

/** Throws WireError. */
export function decodeServerMessage(body: Uint8Array): ServerMessage {
  const reader = new ByteReader(body);
  const kind = reader.u8();
  return kind === RESULTS_KIND ? { kind: "results", entries: reader } : readWhole(reader, serverRowOf.get(kind), `${kind} from dlmd`);
}
