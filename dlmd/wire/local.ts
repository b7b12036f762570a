/**
 * Messages between a program and the dlmd of its node, on the local socket: frames (frame.ts, without a checksum) whose
 * body is one message, its kind first. Little-endian. The entries of the two batch messages are in local-batch.ts.
 */
import { assertNever } from "../base/assert.ts";
import { ByteReader, type ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import type { ClusterInfo, GoneClient, InspectRequest, ViewInfo } from "../client/api.ts";
import {
  encodeGroupEvent,
  encodeGroupRequest,
  type GroupClientRequest,
  type GroupEvent,
  readGroupEvent,
  readGroupRequest,
} from "./local-group.ts";
import { LOCAL_FRAME_BYTES, NAME_BYTES, REASON_BYTES, REQUESTS_KIND, RESULTS_KIND, readName } from "./local-batch.ts";
import {
  encodePlockRequest,
  encodePlockResult,
  type PlockClientRequest,
  type PlockResult,
  PLOCK_RESULT_KIND,
  readPlockRequest,
  readPlockResult,
} from "./local-plock.ts";

/** "CVLD" */
const MAGIC = 0x444c5643;
export const LOCAL_VERSION = 4;
const TEXT_BYTES = 256;
const LIST_ROWS = 65536;
const SECRETS = 16;
const SECRET_BYTES = 64;
const NOT_WAITING = 0xffffffff;

const Kind = {
  HELLO: 1,
  OPEN: 2,
  REQUESTS: REQUESTS_KIND,
  GONE_ACK: 4,
  QUERY: 5,
  PURGE: 6,
  INSPECT: 7,
  BAST_LIMIT: 8,
  WELCOME: 129,
  OPENED: 130,
  RESULTS: RESULTS_KIND,
  VIEW: 132,
  GONE: 133,
  ANSWER: 134,
  ERROR: 135,
  PURGED: 136,
  SECRETS: 137,
} as const;

const queries = ["status", "nodes", "locks"] as const;
export type QueryWhat = (typeof queries)[number];

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
  /** `lockspaceId` is the client's number for it from now on. */
  | { readonly kind: "open"; readonly lockspaceId: number; readonly name: string }
  /** To be read with decodeRequests. */
  | { readonly kind: "requests"; readonly entries: ByteReader }
  | { readonly kind: "gone-ack"; readonly goneId: number }
  /** DlmClient.setBastLimitMs. */
  | { readonly kind: "bast-limit"; readonly limitMs: number }
  | { readonly kind: "query"; readonly queryId: number; readonly what: QueryWhat }
  /** Answered by "answer". */
  | ({ readonly kind: "inspect"; readonly queryId: number } & InspectRequest)
  | { readonly kind: "purge"; readonly purgeId: number; readonly lockspaceId: number; readonly nodeid: number; readonly pid: number }
  | GroupClientRequest
  | PlockClientRequest;

export type ServerMessage =
  | { readonly kind: "welcome"; readonly info: ClusterInfo; readonly view: ViewInfo }
  /** `error` "": the lockspace has that id now. */
  | { readonly kind: "opened"; readonly lockspaceId: number; readonly error: string }
  /** To be read with decodeResults. */
  | { readonly kind: "results"; readonly entries: ByteReader }
  | { readonly kind: "view"; readonly view: ViewInfo }
  | { readonly kind: "gone"; readonly goneId: number; readonly clients: readonly GoneClient[] }
  /** `json`: UTF-8. */
  | { readonly kind: "answer"; readonly queryId: number; readonly json: Uint8Array }
  /** `error` "": `locks` are being released. */
  | { readonly kind: "purged"; readonly purgeId: number; readonly locks: number; readonly error: string }
  /** ClusterInfo.overlaySecrets are these from now on. */
  | { readonly kind: "secrets"; readonly secrets: readonly Uint8Array[] }
  | PlockResult
  | GroupEvent
  /** The connection ends after it. */
  | { readonly kind: "error"; readonly reason: string };

/* Client to server ---------------------------------------------------------------------------------------------- */

export function encodeClientMessage(writer: ByteWriter, message: Exclude<ClientMessage, { kind: "requests" }>): void {
  switch (message.kind) {
    case "hello":
      writer.u8(Kind.HELLO).u32(MAGIC).u16(message.version).u32(message.pid).string(message.program).string(message.owner);
      writer.u32(message.bastLimitMs);
      return;
    case "open":
      writer.u8(Kind.OPEN).u32(message.lockspaceId).string(message.name);
      return;
    case "gone-ack":
      writer.u8(Kind.GONE_ACK).u32(message.goneId);
      return;
    case "bast-limit":
      writer.u8(Kind.BAST_LIMIT).u32(message.limitMs);
      return;
    case "purge":
      writer.u8(Kind.PURGE).u32(message.purgeId).u32(message.lockspaceId).u16(message.nodeid).u32(message.pid);
      return;
    case "inspect":
      writer.u8(Kind.INSPECT).u32(message.queryId).string(message.lockspace).string(message.resource);
      writer.u16(message.nodeid).u32(message.waitingMs ?? NOT_WAITING);
      return;
    case "query":
      writer.u8(Kind.QUERY).u32(message.queryId).u8(queries.indexOf(message.what));
      return;
    case "plock":
    case "plock-cancel":
    case "plock-release":
      return encodePlockRequest(writer, message);
    case "group-join":
    case "group-leave":
    case "group-send":
      return encodeGroupRequest(writer, message);
    default:
      assertNever(message, "client message");
  }
}

function readHello(reader: ByteReader): ClientMessage {
  const magic = reader.u32();
  if (magic !== MAGIC) throw new WireError(`a coverlay client expected, found magic 0x${magic.toString(16)}`);
  const version = reader.u16();
  const pid = reader.u32();
  const program = reader.string(TEXT_BYTES);
  // Who speaks another version is told so, whatever else he says.
  if (version === LOCAL_VERSION)
    return { kind: "hello", version, pid, program, owner: reader.string(NAME_BYTES), bastLimitMs: reader.u32() };
  reader.skip(reader.remaining);
  return { kind: "hello", version, pid, program, owner: "", bastLimitMs: 0 };
}

function readQuery(reader: ByteReader): ClientMessage {
  const queryId = reader.u32();
  const what = queries[reader.u8()];
  if (what === undefined) throw new WireError(`unknown query, one of ${queries.join(", ")} expected`);
  return { kind: "query", queryId, what };
}

function readInspect(reader: ByteReader): ClientMessage {
  const queryId = reader.u32();
  const names = { lockspace: reader.string(NAME_BYTES), resource: reader.string(NAME_BYTES), nodeid: reader.u16() };
  const waitingMs = reader.u32();
  return { kind: "inspect", queryId, ...names, waitingMs: waitingMs === NOT_WAITING ? null : waitingMs };
}

function readClientMessage(reader: ByteReader): ClientMessage {
  const kind = reader.u8();
  switch (kind) {
    case Kind.HELLO:
      return readHello(reader);
    case Kind.OPEN:
      return { kind: "open", lockspaceId: reader.u32(), name: readName(reader) };
    case Kind.REQUESTS:
      return { kind: "requests", entries: reader };
    case Kind.GONE_ACK:
      return { kind: "gone-ack", goneId: reader.u32() };
    case Kind.QUERY:
      return readQuery(reader);
    case Kind.INSPECT:
      return readInspect(reader);
    case Kind.BAST_LIMIT:
      return { kind: "bast-limit", limitMs: reader.u32() };
    case Kind.PURGE:
      return { kind: "purge", purgeId: reader.u32(), lockspaceId: reader.u32(), nodeid: reader.u16(), pid: reader.u32() };
    default: {
      const request = readPlockRequest(kind, reader) ?? readGroupRequest(kind, reader);
      if (request === null) throw new WireError(`message of kind ${kind} from a client, 1 to 8, 20 to 22 or 24 to 26 expected`);
      return request;
    }
  }
}

/** Throws WireError. */
export function decodeClientMessage(body: Uint8Array): ClientMessage {
  const reader = new ByteReader(body);
  const message = readClientMessage(reader);
  if (message.kind !== "requests") reader.end();
  return message;
}

/* Server to client ---------------------------------------------------------------------------------------------- */

function writeView(writer: ByteWriter, view: ViewInfo): void {
  writer.string(view.viewId).bool(view.quorate).bool(view.running).string(view.quorumReason).u16(view.members.length);
  for (const nodeid of view.members) writer.u16(nodeid);
}

function readList<T>(reader: ByteReader, row: () => T): T[] {
  const rows = reader.u32();
  if (rows > LIST_ROWS) throw new WireError(`list of ${rows} rows, at most ${LIST_ROWS} allowed`);
  const list: T[] = [];
  for (let at = 0; at < rows; at++) list.push(row());
  return list;
}

function readView(reader: ByteReader): ViewInfo {
  const viewId = reader.string(TEXT_BYTES);
  const quorate = reader.bool();
  const running = reader.bool();
  const quorumReason = reader.string(REASON_BYTES);
  const members: number[] = [];
  for (let left = reader.u16(); left > 0; left--) members.push(reader.u16());
  return { viewId, quorate, members, quorumReason, running };
}

function writeInfo(writer: ByteWriter, info: ClusterInfo): void {
  writer.string(info.clusterName).u16(info.nodeid).string(info.incarnation).u32(info.clientId).u32(info.nodes.length);
  for (const node of info.nodes) writer.u16(node.nodeid).string(node.name).string(node.address);
  writer.u32(info.volumes.length);
  for (const volume of info.volumes)
    writer
      .string(volume.name)
      .string(volume.uuid)
      .bool(volume.lower === "device");
  writeSecrets(writer, info.overlaySecrets);
}

function writeSecrets(writer: ByteWriter, secrets: readonly Uint8Array[]): void {
  writer.u8(secrets.length);
  for (const secret of secrets) writer.block(secret);
}

function readSecrets(reader: ByteReader): Uint8Array[] {
  const count = reader.u8();
  if (count > SECRETS) throw new WireError(`${count} secrets, at most ${SECRETS} allowed`);
  return Array.from({ length: count }, () => reader.block(SECRET_BYTES).slice());
}

function readInfo(reader: ByteReader): ClusterInfo {
  const clusterName = reader.string(TEXT_BYTES);
  const nodeid = reader.u16();
  const incarnation = reader.string(TEXT_BYTES);
  const clientId = reader.u32();
  const nodes = readList(reader, () => ({ nodeid: reader.u16(), name: reader.string(TEXT_BYTES), address: reader.string(TEXT_BYTES) }));
  const volumes = readList(reader, () => {
    const name = reader.string(TEXT_BYTES);
    const uuid = reader.string(TEXT_BYTES);
    return { name, uuid, lower: reader.bool() ? ("device" as const) : ("directory" as const) };
  });
  return { clusterName, nodeid, incarnation, clientId, nodes, volumes, overlaySecrets: readSecrets(reader) };
}

function writeGone(writer: ByteWriter, goneId: number, clients: readonly GoneClient[]): void {
  writer.u8(Kind.GONE).u32(goneId).u32(clients.length);
  for (const { nodeid, incarnation, clientId } of clients) {
    writer
      .u16(nodeid)
      .string(incarnation)
      .bool(clientId !== null)
      .u32(clientId ?? 0);
  }
}

function readGone(reader: ByteReader): ServerMessage {
  const goneId = reader.u32();
  const clients = readList(reader, () => {
    const nodeid = reader.u16();
    const incarnation = reader.string(TEXT_BYTES);
    const one = reader.bool();
    const clientId = reader.u32();
    return { nodeid, incarnation, clientId: one ? clientId : null };
  });
  return { kind: "gone", goneId, clients };
}

export function encodeServerMessage(writer: ByteWriter, message: Exclude<ServerMessage, { kind: "results" }>): void {
  switch (message.kind) {
    case "welcome":
      writeInfo(writer.u8(Kind.WELCOME), message.info);
      writeView(writer, message.view);
      return;
    case "opened":
      writer.u8(Kind.OPENED).u32(message.lockspaceId).string(message.error);
      return;
    case "view":
      writeView(writer.u8(Kind.VIEW), message.view);
      return;
    case "gone":
      writeGone(writer, message.goneId, message.clients);
      return;
    case "answer":
      writer.u8(Kind.ANSWER).u32(message.queryId).block(message.json);
      return;
    case "purged":
      writer.u8(Kind.PURGED).u32(message.purgeId).u32(message.locks).string(message.error);
      return;
    case "secrets":
      return writeSecrets(writer.u8(Kind.SECRETS), message.secrets);
    case "error":
      writer.u8(Kind.ERROR).string(message.reason);
      return;
    case "plock-result":
      return encodePlockResult(writer, message);
    case "group-result":
    case "group-members":
    case "group-message":
    case "group-ended":
      return encodeGroupEvent(writer, message);
    default:
      assertNever(message, "server message");
  }
}

function readServerMessage(reader: ByteReader): ServerMessage {
  const kind = reader.u8();
  switch (kind) {
    case Kind.WELCOME:
      return { kind: "welcome", info: readInfo(reader), view: readView(reader) };
    case Kind.OPENED:
      return { kind: "opened", lockspaceId: reader.u32(), error: reader.string(REASON_BYTES) };
    case Kind.RESULTS:
      return { kind: "results", entries: reader };
    case Kind.VIEW:
      return { kind: "view", view: readView(reader) };
    case Kind.GONE:
      return readGone(reader);
    case Kind.ANSWER:
      return { kind: "answer", queryId: reader.u32(), json: reader.block(LOCAL_FRAME_BYTES) };
    case PLOCK_RESULT_KIND:
      return readPlockResult(reader);
    case Kind.ERROR:
      return { kind: "error", reason: reader.string(REASON_BYTES) };
    case Kind.PURGED:
      return { kind: "purged", purgeId: reader.u32(), locks: reader.u32(), error: reader.string(REASON_BYTES) };
    case Kind.SECRETS:
      return { kind: "secrets", secrets: readSecrets(reader) };
    default: {
      const event = readGroupEvent(kind, reader);
      if (event === null) throw new WireError(`message of kind ${kind} from dlmd, 129 to 137, 148 or 152 to 155 expected`);
      return event;
    }
  }
}

/** Throws WireError. */
export function decodeServerMessage(body: Uint8Array): ServerMessage {
  const reader = new ByteReader(body);
  const message = readServerMessage(reader);
  if (message.kind !== "results") reader.end();
  return message;
}
