/**
 * What another node says of its locks (query/inspect.ts), checked: a peer of another make, or one that lies, must not send programs of this node
 * what they do not expect, nor what cannot be written out again. Only what is known here is taken over. Pure.
 */
import { WireError } from "../base/error.ts";
import type { InspectedClient, NodeInspected } from "./answer.ts";
import type { LockAnswer, LockspaceAnswer, ResourceAnswer } from "./answer.ts";
import type { FileAnswer, FileRangeAnswer, FileWaitAnswer, ProcessAnswer } from "../plock/describe.ts";

type Read<T> = (value: unknown, at: string) => T;

function wrong(expected: string, at: string): WireError {
  return new WireError(`${expected} expected at ${at === "" ? "the top" : at}`);
}

const text: Read<string> = (value, at) => {
  if (typeof value !== "string") throw wrong("text", at);
  return value;
};
const number: Read<number> = (value, at) => {
  if (typeof value !== "number") throw wrong("a number", at);
  return value;
};
const flag: Read<boolean> = (value, at) => {
  if (typeof value !== "boolean") throw wrong("true or false", at);
  return value;
};

function oneOf<T extends string>(...words: readonly T[]): Read<T> {
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
const owner = { nodeid: number, clientId: number, kind: oneOf<FileRangeAnswer["kind"]>("posix", "ofd", "flock"), owner: text };
const range = { ...owner, pid: number, type: oneOf<FileRangeAnswer["type"]>("read", "write"), start: text, end: nullable(text) };
const waiting = record<FileWaitAnswer>({
  ...range,
  waitingMs: number,
  blocker: nullable(record<NonNullable<FileWaitAnswer["blocker"]>>({ ...owner, behind: flag })),
});
const file = record<FileAnswer>({
  lockspace: text,
  file: text,
  masterNodeid: number,
  held: list(record<FileRangeAnswer>(range)),
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

/** Throws WireError: it is no JSON, or not what a node says of its locks. */
export function decodeInspected(json: Uint8Array): NodeInspected {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(json));
  } catch (error) {
    throw new WireError(`JSON expected: ${(error as Error).message}`);
  }
  return inspected(value, "");
}
