/**
 * File-lock messages on the channel of a pair (peer.ts): a type and a codec row each. Requests and answers are numbered by the
 * home, the node whose client asks; the master of a file is that of a resource of its name. Searches for deadlocks: dlmd/plock/search.ts.
 */
import type { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import { maxOffset, type OwnerKind, ownerKinds, type PlockOwner, type PlockType, plockTypes, type Range } from "../plock/range.ts";

const nameBytes = 64;
/** Rows of one list. */
const maxRows = 65_536;

export type PlockOp = "lock" | "unlock" | "test";
const ops: readonly PlockOp[] = ["lock", "unlock", "test"];
/**
 * ok: has taken effect (a test: no conflict, if none is named); again: somebody has it; limit: ENOLCK. removed: not an answer yet; the
 * conversion of a flock begins to wait, and what the owner had is gone.
 */
export type PlockStatus = "ok" | "again" | "deadlock" | "canceled" | "limit" | "removed";
const statuses: readonly PlockStatus[] = ["ok", "again", "deadlock", "canceled", "limit", "removed"];
export type PlockSentence = "deadlock" | "overtake";
const sentences: readonly PlockSentence[] = ["deadlock", "overtake"];

export interface PlockAsk extends Range {
  readonly requestId: number;
  readonly lockspace: string;
  readonly file: string;
  readonly clientId: number;
  readonly ownerKind: OwnerKind;
  readonly owner: bigint;
  readonly op: PlockOp;
  readonly wait: boolean;
  /** The owner has other locks or requests, on whatever file, so somebody may wait for it: this request may complete a deadlock. */
  readonly entangled: boolean;
}
/** Home to master. Exactly one answer. */
export interface PlockRequestMessage extends PlockAsk {
  readonly kind: "plock-request";
}
/** Home to master: end a waiting request; no answer of its own. */
export interface PlockCancelMessage {
  readonly kind: "plock-cancel";
  readonly requestId: number;
}
/** Home to master: the owner of that waiting request was granted something: look for deadlocks again. */
export interface PlockRecheckMessage {
  readonly kind: "plock-recheck";
  readonly requestId: number;
}
/** A lock that excludes what was asked for, and whose it is. */
export interface PlockConflict extends Range {
  readonly owner: PlockOwner;
}
export interface PlockAnswerMessage {
  readonly kind: "plock-answer";
  readonly requestId: number;
  readonly status: PlockStatus;
  readonly conflict: PlockConflict | null;
}
/** Recovery, home to new master: what an owner holds (some of it: there may be more such messages). */
export interface PlockHeldMessage {
  readonly kind: "plock-held";
  readonly lockspace: string;
  readonly file: string;
  readonly clientId: number;
  readonly ownerKind: OwnerKind;
  readonly owner: bigint;
  readonly ranges: readonly Range[];
}
/** Recovery, home to new master: a request that has no answer yet. */
export interface PlockAgainMessage extends PlockAsk {
  readonly kind: "plock-again";
  readonly waitedMs: number;
  readonly canceled: boolean;
}

/** A request, anywhere in the cluster. */
export interface PlockRequestName {
  readonly nodeid: number;
  readonly requestId: number;
}
/** A waiting request and an owner for whom it waits. */
export interface PlockEdge {
  readonly masterNodeid: number;
  readonly request: PlockRequestName;
  readonly from: PlockOwner;
  readonly to: PlockOwner;
  /** It could have what it wants, but for an earlier request of that owner. */
  readonly soft: boolean;
  /** The same edge with the same stamp has been there all the time. */
  readonly stamp: number;
}
/** Search, to homes: for what do these owners wait; to masters: for whom do these requests wait. */
export interface PlockProbeMessage {
  readonly kind: "plock-probe";
  readonly searchId: number;
  readonly owners: readonly PlockOwner[];
  readonly requests: readonly PlockRequestName[];
}
export interface PlockProbeReplyMessage {
  readonly kind: "plock-probe-reply";
  readonly searchId: number;
  readonly waits: readonly { readonly masterNodeid: number; readonly request: PlockRequestName }[];
  readonly edges: readonly PlockEdge[];
}
/** To the judge: these edges were seen to make a cycle. `at`: the edge whose request gets the sentence. */
export interface PlockCycleMessage {
  readonly kind: "plock-cycle";
  readonly searchId: number;
  readonly edges: readonly PlockEdge[];
  readonly at: number;
  readonly sentence: PlockSentence;
}
/** The judge is done with that search's cycle. */
export interface PlockJudgedMessage {
  readonly kind: "plock-judged";
  readonly searchId: number;
}
/** Judge to master: are these edges still there? */
export interface PlockVerifyMessage {
  readonly kind: "plock-verify";
  readonly caseId: number;
  readonly edges: readonly PlockEdge[];
}
/** Judge to master: do that to the request, if it still waits. */
export interface PlockSentenceMessage {
  readonly kind: "plock-sentence";
  readonly caseId: number;
  readonly request: PlockRequestName;
  readonly sentence: PlockSentence;
}
/** Master to judge: answers both. */
export interface PlockVerdictMessage {
  readonly kind: "plock-verdict";
  readonly caseId: number;
  readonly yes: boolean;
}

export type PlockMessage =
  | PlockRequestMessage
  | PlockCancelMessage
  | PlockRecheckMessage
  | PlockAnswerMessage
  | PlockHeldMessage
  | PlockAgainMessage
  | PlockProbeMessage
  | PlockProbeReplyMessage
  | PlockCycleMessage
  | PlockJudgedMessage
  | PlockVerifyMessage
  | PlockSentenceMessage
  | PlockVerdictMessage;

/* Parts --------------------------------------------------------------------------------------------------------- */

function readIndexed<T>(r: ByteReader, values: readonly T[], what: string): T {
  const index = r.u8();
  const value = values[index];
  if (value === undefined) throw new WireError(`unknown ${what} ${index} at offset ${r.offset - 1}`);
  return value;
}

function readName(r: ByteReader): string {
  const name = r.string(nameBytes);
  if (name === "") throw new WireError(`empty name at offset ${r.offset}: 1 to ${nameBytes} bytes expected`);
  return name;
}

function writeList<T>(w: ByteWriter, rows: readonly T[], row: (row: T) => void): void {
  w.u32(rows.length);
  for (const each of rows) row(each);
}

function readList<T>(r: ByteReader, row: () => T): T[] {
  const count = r.u32();
  if (count > maxRows) throw new WireError(`list of ${count} rows, at most ${maxRows} allowed`);
  const rows: T[] = [];
  while (rows.length < count) rows.push(row());
  return rows;
}

/** Also of the local socket. */
export function writeRange(w: ByteWriter, range: Range): void {
  w.u8(plockTypes.indexOf(range.type)).bigU64(range.start).bigU64(range.end).u32(range.pid);
}

/** Throws WireError unless 0 <= start <= end <= 2^63-1. */
export function readRange(r: ByteReader): Range {
  const type = readIndexed<PlockType>(r, plockTypes, "lock type");
  const start = r.bigU64();
  const end = r.bigU64();
  if (start > end || end > maxOffset) throw new WireError(`bytes ${start} to ${end}: ascending offsets up to ${maxOffset} expected`);
  return { type, start, end, pid: r.u32() };
}

export function writeOwnerKind(w: ByteWriter, kind: OwnerKind): ByteWriter {
  return w.u8(ownerKinds.indexOf(kind));
}

export function readOwnerKind(r: ByteReader): OwnerKind {
  return readIndexed(r, ownerKinds, "kind of owner");
}

export function writeOp(w: ByteWriter, op: PlockOp): ByteWriter {
  return w.u8(ops.indexOf(op));
}

export function readOp(r: ByteReader): PlockOp {
  return readIndexed(r, ops, "file-lock operation");
}

export function writeOwner(w: ByteWriter, owner: PlockOwner): void {
  writeOwnerKind(w.u16(owner.nodeid).u32(owner.clientId), owner.kind).bigU64(owner.owner);
}

export function readOwner(r: ByteReader): PlockOwner {
  return { nodeid: r.u16(), clientId: r.u32(), kind: readOwnerKind(r), owner: r.bigU64() };
}

function writeRequestName(w: ByteWriter, name: PlockRequestName): ByteWriter {
  return w.u16(name.nodeid).u64(name.requestId);
}

function readRequestName(r: ByteReader): PlockRequestName {
  return { nodeid: r.u16(), requestId: r.u64() };
}

function writeAsk(w: ByteWriter, m: PlockAsk): void {
  writeOwnerKind(w.u64(m.requestId).string(m.lockspace).string(m.file).u32(m.clientId), m.ownerKind).bigU64(m.owner);
  writeRange(writeOp(w, m.op).bool(m.wait).bool(m.entangled), m);
}

function readAsk(r: ByteReader): PlockAsk {
  return {
    requestId: r.u64(),
    lockspace: readName(r),
    file: readName(r),
    clientId: r.u32(),
    ownerKind: readOwnerKind(r),
    owner: r.bigU64(),
    op: readOp(r),
    wait: r.bool(),
    entangled: r.bool(),
    ...readRange(r),
  };
}

function writeEdge(w: ByteWriter, edge: PlockEdge): void {
  writeRequestName(w.u16(edge.masterNodeid), edge.request);
  writeOwner(w, edge.from);
  writeOwner(w, edge.to);
  w.bool(edge.soft).u64(edge.stamp);
}

function readEdge(r: ByteReader): PlockEdge {
  const masterNodeid = r.u16();
  const request = readRequestName(r);
  return { masterNodeid, request, from: readOwner(r), to: readOwner(r), soft: r.bool(), stamp: r.u64() };
}

/* Rows ---------------------------------------------------------------------------------------------------------- */

interface Row<M> {
  readonly type: number;
  readonly encode: (w: ByteWriter, m: M) => void;
  readonly decode: (r: ByteReader) => M;
}
type Table = { readonly [K in PlockMessage["kind"]]: Row<Extract<PlockMessage, { kind: K }>> };

/** Rows of peer.ts' table: types 40 to 59. */
export const plockRows: Table = {
  "plock-request": { type: 40, encode: writeAsk, decode: (r) => ({ kind: "plock-request", ...readAsk(r) }) },
  "plock-cancel": {
    type: 41,
    encode: (w, m) => w.u64(m.requestId),
    decode: (r) => ({ kind: "plock-cancel", requestId: r.u64() }),
  },
  "plock-recheck": {
    type: 42,
    encode: (w, m) => w.u64(m.requestId),
    decode: (r) => ({ kind: "plock-recheck", requestId: r.u64() }),
  },
  "plock-answer": {
    type: 43,
    encode: (w, m) => {
      w.u64(m.requestId)
        .u8(statuses.indexOf(m.status))
        .bool(m.conflict !== null);
      if (m.conflict === null) return;
      writeRange(w, m.conflict);
      writeOwner(w, m.conflict.owner);
    },
    decode: (r) => {
      const requestId = r.u64();
      const status = readIndexed(r, statuses, "file-lock status");
      const conflict = r.bool() ? { ...readRange(r), owner: readOwner(r) } : null;
      return { kind: "plock-answer", requestId, status, conflict };
    },
  },
  "plock-held": {
    type: 44,
    encode: (w, m) => {
      writeOwnerKind(w.string(m.lockspace).string(m.file).u32(m.clientId), m.ownerKind).bigU64(m.owner);
      writeList(w, m.ranges, (range) => writeRange(w, range));
    },
    decode: (r) => ({
      kind: "plock-held",
      lockspace: readName(r),
      file: readName(r),
      clientId: r.u32(),
      ownerKind: readOwnerKind(r),
      owner: r.bigU64(),
      ranges: readList(r, () => readRange(r)),
    }),
  },
  "plock-again": {
    type: 45,
    encode: (w, m) => {
      writeAsk(w, m);
      w.u32(m.waitedMs).bool(m.canceled);
    },
    decode: (r) => ({ kind: "plock-again", ...readAsk(r), waitedMs: r.u32(), canceled: r.bool() }),
  },
  "plock-probe": {
    type: 46,
    encode: (w, m) => {
      writeList(w.u64(m.searchId), m.owners, (owner) => writeOwner(w, owner));
      writeList(w, m.requests, (name) => writeRequestName(w, name));
    },
    decode: (r) => ({
      kind: "plock-probe",
      searchId: r.u64(),
      owners: readList(r, () => readOwner(r)),
      requests: readList(r, () => readRequestName(r)),
    }),
  },
  "plock-probe-reply": {
    type: 47,
    encode: (w, m) => {
      writeList(w.u64(m.searchId), m.waits, (wait) => writeRequestName(w.u16(wait.masterNodeid), wait.request));
      writeList(w, m.edges, (edge) => writeEdge(w, edge));
    },
    decode: (r) => ({
      kind: "plock-probe-reply",
      searchId: r.u64(),
      waits: readList(r, () => ({ masterNodeid: r.u16(), request: readRequestName(r) })),
      edges: readList(r, () => readEdge(r)),
    }),
  },
  "plock-cycle": {
    type: 48,
    encode: (w, m) => {
      writeList(w.u64(m.searchId).u32(m.at).u8(sentences.indexOf(m.sentence)), m.edges, (edge) => writeEdge(w, edge));
    },
    decode: (r) => {
      const searchId = r.u64();
      const at = r.u32();
      const sentence = readIndexed(r, sentences, "sentence");
      const edges = readList(r, () => readEdge(r));
      if (at >= edges.length) throw new WireError(`edge ${at} of a cycle of ${edges.length}`);
      return { kind: "plock-cycle", searchId, edges, at, sentence };
    },
  },
  "plock-judged": {
    type: 49,
    encode: (w, m) => w.u64(m.searchId),
    decode: (r) => ({ kind: "plock-judged", searchId: r.u64() }),
  },
  "plock-verify": {
    type: 50,
    encode: (w, m) => writeList(w.u64(m.caseId), m.edges, (edge) => writeEdge(w, edge)),
    decode: (r) => ({ kind: "plock-verify", caseId: r.u64(), edges: readList(r, () => readEdge(r)) }),
  },
  "plock-sentence": {
    type: 51,
    encode: (w, m) => writeRequestName(w.u64(m.caseId), m.request).u8(sentences.indexOf(m.sentence)),
    decode: (r) => ({
      kind: "plock-sentence",
      caseId: r.u64(),
      request: readRequestName(r),
      sentence: readIndexed(r, sentences, "sentence"),
    }),
  },
  "plock-verdict": {
    type: 52,
    encode: (w, m) => w.u64(m.caseId).bool(m.yes),
    decode: (r) => ({ kind: "plock-verdict", caseId: r.u64(), yes: r.bool() }),
  },
};

export function isPlockMessage(message: { readonly kind: string }): message is PlockMessage {
  return message.kind in plockRows;
}
