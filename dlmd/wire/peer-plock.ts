/**
 * File-lock messages on the channel of a pair (peer.ts): a type and a codec row each. Requests and answers are numbered by the
 * home, the node whose client asks; the master of a file is that of a resource of its name. Searches for deadlocks: dlmd/plock/search.ts.
 */
import { WireError } from "../base/error.ts";
import { bigU64, type Field, type Fields, flag, list, maybe, oneOf, record, type Rows, row, u16, u32, u64 } from "./field.ts";
import { name } from "./peer-field.ts";
import {
  type HeldRange,
  maxOffset,
  type OwnerKind,
  ownerKinds,
  type PlockOwner,
  type PlockType,
  plockTypes,
  type Range,
} from "./plock-range.ts";

/** Rows of one list. */
const maxRows = 65_536;
/** Owners and requests in one probe: the reply has so many rows for each (plock/home.ts, master.ts) that all fit into a message. */
export const maxProbeOwners = 64;
export const maxProbeRequests = 64;

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
  /** flock: the conversion has begun before. What its owner has now it was given after that, and keeps while this waits. */
  readonly begun: boolean;
  /** lock: for so long its owner has had it already, where this service does not see it (overlay/file-lock); null: it is a new one. */
  readonly heldMs: number | null;
  /** lock: it goes before all that wait: its owner takes over what another client has, and is about to give up (LockFlag.HEADQUE, of file locks). */
  readonly first: boolean;
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
  readonly ranges: readonly HeldRange[];
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

/* Parts, some of the local socket too ---------------------------------------------------------------------------- */

export const op: Field<PlockOp> = oneOf(ops, "file-lock operation");
export const ownerKind: Field<OwnerKind> = oneOf(ownerKinds, "kind of owner");
export const rangeFields: Fields<Range> = { type: oneOf<PlockType>(plockTypes, "lock type"), start: bigU64, end: bigU64, pid: u32 };
/** Milliseconds; null: not known. 32 bits would end after seven weeks, and locks are held for longer. */
export const age: Field<number | null> = maybe(u64);
/** Throws WireError unless 0 <= start <= end <= 2^63-1. */
export function checkRange({ start, end }: Range): void {
  if (start > end || end > maxOffset) throw new WireError(`bytes ${start} to ${end}: ascending offsets up to ${maxOffset} expected`);
}
const owner: Field<PlockOwner> = record({ nodeid: u16, clientId: u32, kind: ownerKind, owner: bigU64 });
export const conflict: Field<PlockConflict | null> = maybe(record<PlockConflict>({ ...rangeFields, owner }, checkRange));

const rows = <T>(each: Field<T>, most: number = maxRows): Field<readonly T[]> => list(u32, each, most, "rows of a list");
const requestName: Field<PlockRequestName> = record({ nodeid: u16, requestId: u64 });
const edges = rows<PlockEdge>(record({ masterNodeid: u16, request: requestName, from: owner, to: owner, soft: flag, stamp: u64 }));
const sentence = oneOf(sentences, "sentence");
const ask: Fields<PlockAsk> = {
  requestId: u64,
  lockspace: name,
  file: name,
  clientId: u32,
  ownerKind,
  owner: bigU64,
  op,
  wait: flag,
  entangled: flag,
  begun: flag,
  heldMs: age,
  first: flag,
  ...rangeFields,
};

/* Rows ---------------------------------------------------------------------------------------------------------- */

/** Of peer.ts' table: types 40 to 59. */
export const plockRows: Rows<PlockMessage> = {
  "plock-request": row<PlockRequestMessage>("plock-request", 40, ask, checkRange),
  "plock-cancel": row("plock-cancel", 41, { requestId: u64 }),
  "plock-recheck": row("plock-recheck", 42, { requestId: u64 }),
  "plock-answer": row("plock-answer", 43, { requestId: u64, status: oneOf(statuses, "file-lock status"), conflict }),
  "plock-held": row("plock-held", 44, {
    lockspace: name,
    file: name,
    clientId: u32,
    ownerKind,
    owner: bigU64,
    ranges: rows<HeldRange>(record<HeldRange>({ ...rangeFields, heldMs: age }, checkRange)),
  }),
  "plock-again": row<PlockAgainMessage>("plock-again", 45, { ...ask, waitedMs: u32, canceled: flag }, checkRange),
  "plock-probe": row("plock-probe", 46, {
    searchId: u64,
    owners: rows(owner, maxProbeOwners),
    requests: rows(requestName, maxProbeRequests),
  }),
  "plock-probe-reply": row("plock-probe-reply", 47, {
    searchId: u64,
    waits: rows(record<PlockProbeReplyMessage["waits"][number]>({ masterNodeid: u16, request: requestName })),
    edges,
  }),
  "plock-cycle": row("plock-cycle", 48, { searchId: u64, at: u32, sentence, edges }, (m) => {
    if (m.at >= m.edges.length) throw new WireError(`edge ${m.at} of a cycle of ${m.edges.length}`);
  }),
  "plock-judged": row("plock-judged", 49, { searchId: u64 }),
  "plock-verify": row("plock-verify", 50, { caseId: u64, edges }),
  "plock-sentence": row("plock-sentence", 51, { caseId: u64, request: requestName, sentence }),
  "plock-verdict": row("plock-verdict", 52, { caseId: u64, yes: flag }),
};

export function isPlockMessage(message: { readonly kind: string }): message is PlockMessage {
  return message.kind in plockRows;
}
