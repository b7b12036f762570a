/**
 * What nodes say of their locks, as plain JSON data: for `coverlay why` and `locks`, from dlmd to dlmd (query/inspect.ts) and on to programs. A peer
 * of another make, or one that lies, must not send programs of this node what they do not expect, nor what cannot be written out again. So
 * each answer is checked where it arrives, and only what is known here is taken over. The check ends at the first thing that is wrong: a
 * library that lists them all would make a list of millions out of one answer.
 */
import { WireError } from "../base/error.ts";
import { type OwnerKind, ownerKinds, type PlockType, plockTypes } from "./plock-range.ts";
import type { ViewInfo } from "./program.ts";

export interface LockAnswer {
  readonly nodeid: number;
  readonly clientId: number;
  readonly lockId: number | null;
  readonly granted: string | null;
  readonly requested: string | null;
  readonly waitingMs: number | null;
  /** Its client is gone; somebody of the same owner may adopt it. Known at the holder. */
  readonly orphan: boolean;
  /** What it was asked to make way for, with its present mode (a blocking AST); null: nothing. Known at the master. */
  readonly asked: string | null;
  /** Since when; null: not asked, or not known. */
  readonly askedMs: number | null;
  /** It was requested with MAYKEEP: no answer to a blocking AST is expected. */
  readonly mayKeep: boolean;
}

/** At the master the queues; elsewhere the locks of this node's own programs alone. */
export interface ResourceAnswer {
  readonly lockspace: string;
  readonly resource: string;
  readonly masterNodeid: number;
  readonly lvb: { readonly bytes: number; readonly seq: number; readonly valid: boolean } | null;
  readonly grantQueue: readonly LockAnswer[];
  readonly convertQueue: readonly LockAnswer[];
  readonly waitQueue: readonly LockAnswer[];
}

/** Bytes of a file, and whose. */
export interface FileRangeAnswer {
  readonly nodeid: number;
  readonly clientId: number;
  readonly kind: OwnerKind;
  readonly owner: string;
  /** As the program said. */
  readonly pid: number;
  readonly type: PlockType;
  /** JSON has no numbers of 64 bits, so offsets are text. */
  readonly start: string;
  /** null: to the end of the file. */
  readonly end: string | null;
}

export interface FileHeldAnswer extends FileRangeAnswer {
  /** For how long all of it has been held as that, by the clock of the node that answers; null: not known. */
  readonly heldMs: number | null;
}

export interface FileWaitAnswer extends FileRangeAnswer {
  readonly waitingMs: number;
  /** Whom it waits for now: somebody who holds what excludes it, or (`behind`) whose earlier request it stands behind. */
  readonly blocker: (Pick<FileRangeAnswer, "nodeid" | "clientId" | "kind" | "owner"> & { readonly behind: boolean }) | null;
}

export interface FileAnswer {
  readonly lockspace: string;
  readonly file: string;
  readonly masterNodeid: number;
  readonly held: readonly FileHeldAnswer[];
  readonly waiting: readonly FileWaitAnswer[];
}

/** A process of the node that answers. The pid is what its client said. */
export interface ProcessAnswer {
  readonly pid: number;
  /** "": it has ended, or is not to be seen from its node. */
  readonly program: string;
}

export interface InspectedClient {
  readonly clientId: number;
  /** What the program said; 0: nothing. */
  readonly pid: number;
  readonly program: string;
}

export interface LockspaceAnswer {
  readonly lockspace: string;
  /** Ascending. */
  readonly nodeids: readonly number[];
}

export interface NodeInspected {
  readonly serving: boolean;
  /** What lock service waits for, in words. */
  readonly state: string;
  /** Those that it masters; if one resource was asked for, its own locks on that one too. */
  readonly resources: readonly ResourceAnswer[];
  /** Those whose file locks it masters. */
  readonly files: readonly FileAnswer[];
  readonly clients: readonly InspectedClient[];
  /** Processes of this node that have or want file locks, wherever these have their master. */
  readonly processes: readonly ProcessAnswer[];
  /** Which nodes have the lockspaces of all these open. */
  readonly lockspaces: readonly LockspaceAnswer[];
  readonly truncated: boolean;
}

/** One of the nodes of the configuration: what it said, or why it said nothing. */
export type InspectAnswerRow = { readonly nodeid: number } & ({ readonly answer: NodeInspected } | { readonly missing: string });

export interface InspectAnswer {
  readonly view: ViewInfo;
  readonly nodes: readonly InspectAnswerRow[];
}

type Read<T> = (value: unknown, at: string) => T;

function wrong(expected: string, at: string): WireError {
  return new WireError(`${expected} expected at ${at === "" ? "the top" : at}`);
}

const text: Read<string> = (value, at) => {
  if (typeof value !== "string") throw wrong("text", at);
  return value;
};
const number: Read<number> = (value, at) => {
  // JSON.parse makes Infinity of 1e999, and JSON.stringify null of that.
  if (typeof value !== "number" || !Number.isFinite(value)) throw wrong("a number", at);
  return value;
};
/** Of a byte of a file: whoever reads it makes a BigInt of it. */
const offset: Read<string> = (value, at) => {
  if (typeof value !== "string" || !/^\d{1,20}$/.test(value)) throw wrong("a position in decimal", at);
  return value;
};
const flag: Read<boolean> = (value, at) => {
  if (typeof value !== "boolean") throw wrong("true or false", at);
  return value;
};

function oneOf<T extends string>(words: readonly T[]): Read<T> {
  return (value, at) => {
    const found = words.find((word) => word === value);
    if (found === undefined) throw wrong(words.join(" or "), at);
    return found;
  };
}

function nullable<T>(read: Read<T>): Read<T | null> {
  return (value, at) => (value === null ? null : read(value, at));
}

function list<T>(read: Read<T>): Read<readonly T[]> {
  return (value, at) => {
    if (!Array.isArray(value)) throw wrong("a list", at);
    return value.map((each: unknown, index) => read(each, `${at}[${index}]`));
  };
}

function record<T extends object>(fields: { readonly [K in keyof T]-?: Read<T[K]> }): Read<T> {
  const rows = Object.entries<Read<unknown>>(fields);
  return (value, at) => {
    if (typeof value !== "object" || value === null) throw wrong("keys and values", at);
    const found = new Map(Object.entries(value));
    return Object.fromEntries(rows.map(([key, read]) => [key, read(found.get(key), at === "" ? key : `${at}.${key}`)])) as T;
  };
}

const lock = record<LockAnswer>({
  nodeid: number,
  clientId: number,
  lockId: nullable(number),
  granted: nullable(text),
  requested: nullable(text),
  waitingMs: nullable(number),
  orphan: flag,
  asked: nullable(text),
  askedMs: nullable(number),
  mayKeep: flag,
});
const resource = record<ResourceAnswer>({
  lockspace: text,
  resource: text,
  masterNodeid: number,
  lvb: nullable(record<NonNullable<ResourceAnswer["lvb"]>>({ bytes: number, seq: number, valid: flag })),
  grantQueue: list(lock),
  convertQueue: list(lock),
  waitQueue: list(lock),
});
const owner = { nodeid: number, clientId: number, kind: oneOf(ownerKinds), owner: text };
const range = { ...owner, pid: number, type: oneOf(plockTypes), start: offset, end: nullable(offset) };
const waiting = record<FileWaitAnswer>({
  ...range,
  waitingMs: number,
  blocker: nullable(record<NonNullable<FileWaitAnswer["blocker"]>>({ ...owner, behind: flag })),
});
const file = record<FileAnswer>({
  lockspace: text,
  file: text,
  masterNodeid: number,
  held: list(record<FileHeldAnswer>({ ...range, heldMs: nullable(number) })),
  waiting: list(waiting),
});
const inspected = record<NodeInspected>({
  serving: flag,
  state: text,
  resources: list(resource),
  files: list(file),
  clients: list(record<InspectedClient>({ clientId: number, pid: number, program: text })),
  processes: list(record<ProcessAnswer>({ pid: number, program: text })),
  lockspaces: list(record<LockspaceAnswer>({ lockspace: text, nodeids: list(number) })),
  truncated: flag,
});

const answered = record<{ nodeid: number; answer: NodeInspected }>({ nodeid: number, answer: inspected });
const silent = record<{ nodeid: number; missing: string }>({ nodeid: number, missing: text });
const row: Read<InspectAnswerRow> = (value, at) =>
  typeof value === "object" && value !== null && "missing" in value ? silent(value, at) : answered(value, at);

/** Of one node, from itself. Throws WireError: it is no JSON, or not what a node says of its locks. */
export function decodeInspected(json: Uint8Array): NodeInspected {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(json));
  } catch (error) {
    throw new WireError(`JSON expected: ${(error as Error).message}`);
  }
  return inspected(value, "");
}

/** Of all nodes, from a dlmd. Throws WireError. */
export function decodeInspectAnswer(answer: unknown): readonly InspectAnswerRow[] {
  return record<Pick<InspectAnswer, "nodes">>({ nodes: list(row) })(answer, "").nodes;
}
