/**
 * Is there an order of the calls of several programs in which the model gives each the answer that it got, and in the end the tree that was seen
 * (Herlihy and Wing, 1990)? The search is that of chaos (linearize.ts). Pure.
 */
import { linearize, type Model, type Timed } from "../../chaos/linearize.ts";
import { statOf } from "../attributes.ts";
import { exceptionsOf } from "../exceptions.ts";
import type { Comparison, StatField } from "../spec/compare.ts";
import type { Made as Drawn, RealStat, TimedAnswer, TreeEntry } from "../spec/executor.ts";
import { type Ino, type Inode, type State, USERS } from "../state.ts";
import type { Machine } from "../world.ts";
import { ALL_NOT_ATOMIC, NOT_ATOMIC, type NotAtomic } from "./not-atomic.ts";
import {
  finish,
  type Finished,
  heldBy,
  holdsInode,
  isBetweenParts,
  type Made,
  newProgress,
  pinned,
  type Progress,
  unpinned,
  walkOn,
} from "./steps.ts";

export interface RecordedCall {
  /** Of `mount` and `user`: the program, which is a mount of the model, and its user. */
  readonly drawn: Drawn;
  readonly answer: TimedAnswer;
}

export interface RecordedTree {
  /** Through which mount. */
  readonly mount: number;
  readonly entries: readonly TreeEntry[];
}

export interface History {
  readonly machine: Machine;
  readonly umask: number;
  /** Before the first call. */
  readonly before: State;
  readonly calls: readonly RecordedCall[];
  /** When all calls were over. */
  readonly trees: readonly RecordedTree[];
  /** Knows the times of all calls, and the inode numbers before the first one; the first call here is that call of the model. */
  readonly comparison: Comparison;
  readonly firstCall: number;
}

export type HistoryVerdict =
  /** `needed`: what Linux does not do in one moment, and without which there is no such order. */
  | { readonly kind: "linearizable"; readonly needed: readonly NotAtomic[] }
  | { readonly kind: "violation"; readonly at: number | "tree"; readonly why: readonly string[] }
  | { readonly kind: "undecided"; readonly why: string };

/** The access time is not compared: a look changes it at a moment that nobody sees. */
const FIELDS: readonly StatField[] = ["type", "mode", "uid", "gid", "nlink", "size", "mtime", "ctime"];
/** Read at a moment of their own each, but for the type, which never changes. */
const PARTS = FIELDS.filter((field) => field !== "type");
const MAX_REASONS = 3;

/** What changes nothing that another call may see. */
const LOOKS: ReadonlySet<string> = new Set(["stat", "read", "readdir", "readlink", "access", "getxattr", "listxattr", "fsync", "close"]);

type Pending =
  | { readonly kind: "walks"; readonly progress: Progress }
  /** Looks at what it has found: which parts of its answer were there at some moment. */
  | { readonly kind: "looks"; readonly ino: Ino; readonly seen: bigint };

interface Position {
  readonly state: State;
  readonly numbers: ReadonlyMap<Ino, number>;
  readonly pending: ReadonlyMap<number, Pending>;
}

/** A call with steps begins to walk, and finishes. One that only looks finds its inode in between. */
type Operation =
  | { readonly kind: "enter" | "find" | "finish"; readonly no: number }
  | { readonly kind: "tree"; readonly tree: RecordedTree };

/** With as little of what is not atomic as there is an order for. */
export function checkHistory(history: History, allowed: ReadonlySet<NotAtomic> = ALL_NOT_ATOMIC): HistoryVerdict {
  let verdict: HistoryVerdict | null = null;
  for (const some of subsets(NOT_ATOMIC.map(({ id }) => id).filter((id) => allowed.has(id)))) {
    verdict = new Checker(history, new Set(some)).check();
    if (verdict.kind === "linearizable") return { kind: "linearizable", needed: some };
  }
  if (verdict === null) throw new Error("no set is empty of subsets");
  return verdict;
}

/** The smaller ones first; all in the end. */
function subsets<T>(all: readonly T[]): T[][] {
  const found = Array.from({ length: 2 ** all.length }, (_, bits) => all.filter((__, at) => ((bits >> at) & 1) === 1));
  return found.toSorted((a, b) => a.length - b.length);
}

class Checker {
  readonly #history: History;
  readonly #allowed: ReadonlySet<NotAtomic>;
  readonly #made: readonly Made[];
  readonly #comparison: Comparison;
  /** Why what was tried last does not fit, by call. */
  readonly #why = new Map<number | "tree", Set<string>>();

  constructor(history: History, allowed: ReadonlySet<NotAtomic>) {
    this.#history = history;
    this.#allowed = allowed;
    this.#comparison = history.comparison.with(FIELDS, history.comparison.numbers);
    const { machine, umask, firstCall } = history;
    this.#made = history.calls.map(({ drawn: { user, mount, call } }, no) => {
      const who = USERS[user];
      if (who === undefined) throw new Error(`no user ${user}`);
      return { call, caller: { user: who, mount, umask, call: firstCall + no }, machine };
    });
  }

  check(): HistoryVerdict {
    const { before, calls, trees, comparison } = this.#history;
    const operations: Timed<Operation>[] = calls.flatMap((_, no) => this.#operations(no));
    const last = Math.max(0, ...operations.map(({ end }) => end));
    operations.push(
      ...trees.map((tree, at): Timed<Operation> => ({ operation: { kind: "tree", tree }, begin: last + 1 + at, end: last + 1 + at })),
    );
    const model: Model<Position, Operation> = { key: (position) => keyOf(position), step: (position, one) => this.#step(position, one) };
    const verdict = linearize(model, { state: before, numbers: comparison.numbers, pending: new Map() }, operations);
    if (verdict.kind === "linearizable") return { kind: "linearizable", needed: [] };
    if (verdict.kind === "undecided") return verdict;
    const { operation } = verdict.operation;
    const at = operation.kind === "tree" ? "tree" : operation.no;
    return { kind: "violation", at, why: [...(this.#why.get(at) ?? [])].slice(0, MAX_REASONS) };
  }

  #operations(no: number): Timed<Operation>[] {
    const { begin, end } = this.#answer(no);
    const at = (kind: "enter" | "find" | "finish", last: number): Timed<Operation> => ({ operation: { kind, no }, begin, end: last });
    if (!this.#hasSteps(no)) return [at("finish", end)];
    if (!this.#looksApart(no)) return [at("enter", end), at("finish", end)];
    return [at("enter", end), at("find", end), at("finish", this.#endOfChangesBeside(no))];
  }

  #answer(no: number): TimedAnswer {
    const call = this.#history.calls[no];
    if (call === undefined) throw new Error(`no call ${no}`);
    return call.answer;
  }

  #of(no: number): Made {
    const made = this.#made[no];
    if (made === undefined) throw new Error(`no call ${no}`);
    return made;
  }

  /** What nothing else is beside has no steps that anybody could see. */
  #hasSteps(no: number): boolean {
    if (this.#changesBeside(no).next().done === true) return false;
    if (this.#looksApart(no)) return true;
    return (this.#allowed.has("parts") || this.#allowed.has("finds")) && newProgress(this.#of(no).call).walks.length > 0;
  }

  /** Its answer is looked up in parts. */
  #looksApart(no: number): boolean {
    const { op } = this.#of(no).call;
    return this.#allowed.has("looks") && (op === "stat" || op === "read") && this.#answer(no).errno === undefined;
  }

  *#changesBeside(no: number): Generator<number> {
    const { begin, end } = this.#answer(no);
    for (const [other, { drawn, answer }] of this.#history.calls.entries()) {
      if (other === no || LOOKS.has(drawn.call.op) || answer.errno !== undefined) continue;
      if (answer.begin <= end && answer.end >= begin) yield other;
    }
  }

  #endOfChangesBeside(no: number): number {
    return Math.max(this.#answer(no).end, ...[...this.#changesBeside(no)].map((other) => this.#answer(other).end));
  }

  #step(position: Position, operation: Operation): Position[] {
    switch (operation.kind) {
      case "enter": {
        const walks: Pending = { kind: "walks", progress: newProgress(this.#of(operation.no).call) };
        return [{ ...position, pending: new Map(position.pending).set(operation.no, walks) }];
      }
      case "find":
        return this.#find(position, operation.no);
      case "finish":
        return this.#finish(position, operation.no);
      case "tree":
        return this.#tree(position, operation.tree);
    }
  }

  #tree({ state, numbers }: Position, { mount, entries }: RecordedTree): Position[] {
    const comparison = this.#comparison.with(FIELDS, numbers);
    const why = comparison.tree(state, entries);
    if (why !== null) return this.#refused("tree", `through mount ${mount + 1}: ${why}`);
    return [{ state, numbers: comparison.numbers, pending: new Map() }];
  }

  #refused(at: number | "tree", why: string): [] {
    this.#why.set(at, (this.#why.get(at) ?? new Set()).add(why));
    return [];
  }

  /** The walk of a look ends: from now on each part of its answer may be seen. */
  #find(position: Position, no: number): Position[] {
    const pending = position.pending.get(no);
    if (pending?.kind !== "walks") return [];
    const made = this.#of(no);
    let { progress } = pending;
    for (let next = walkOn(position.state, made, progress); next !== null; next = walkOn(position.state, made, progress)) {
      if ("errno" in next) return this.#refused(no, `${next.errno} expected`);
      progress = next;
    }
    const ino = progress.walks[0]?.at ?? this.#slotOf(position.state, made);
    const inode = ino === undefined ? undefined : position.state.inodes.get(ino);
    if (ino === undefined || inode === undefined) return this.#refused(no, "EBADF expected");
    const answer = this.#answer(no);
    let { numbers } = position;
    if (made.call.op === "stat") {
      const comparison = this.#comparison.with(FIELDS, numbers);
      const [expected, found] = [statOf(inode), answer.value as RealStat];
      const why = comparison.identity(ino, found.ino, visible(position.state)) ?? comparison.field("type", expected, found);
      if (why !== null) return this.#refused(no, why);
      ({ numbers } = comparison);
    } else {
      // Whether it may be read at all is no matter of when.
      const done = finish(position.state, made, progress, no);
      if (done === null || "errno" in done.outcome) return this.#refused(no, "it may not be read");
    }
    const looks: Pending = { kind: "looks", ino, seen: 0n };
    const state = pinned(position.state, no, [ino]);
    return [this.#seen({ state, numbers, pending: new Map(position.pending).set(no, looks) })];
  }

  #slotOf(state: State, { call, caller }: Made): Ino | undefined {
    const slot = call.op === "read" ? call.args.slot : call.op === "stat" && "slot" in call.args.target ? call.args.target.slot : -1;
    return state.handles.get(`${caller.mount}:${slot}`)?.ino;
  }

  /** All that looks sees what is there now. */
  #seen(position: Position): Position {
    const pending = new Map(position.pending);
    for (const [no, one] of pending) {
      const inode = one.kind === "looks" ? position.state.inodes.get(one.ino) : undefined;
      if (one.kind !== "looks" || inode === undefined) continue;
      pending.set(no, { ...one, seen: one.seen | this.#partsOf(no, inode) });
    }
    return { ...position, pending };
  }

  /** A bit for each part of its answer that is so now. */
  #partsOf(no: number, inode: Inode): bigint {
    const { call } = this.#of(no);
    const { value } = this.#answer(no);
    let bits = 0n;
    if (call.op === "read") {
      const offset = call.args.offset ?? 0;
      const bytes = Buffer.from(value as string, "latin1");
      const there = Math.max(0, Math.min(call.args.length, inode.data.length - offset));
      if (there === bytes.length) bits |= 1n;
      for (const [at, byte] of bytes.entries()) if (inode.data[offset + at] === byte) bits |= 1n << BigInt(at + 1);
      return bits;
    }
    const expected = statOf(inode);
    for (const [at, field] of PARTS.entries()) {
      if (this.#comparison.field(field, expected, value as RealStat) === null) bits |= 1n << BigInt(at);
    }
    return bits;
  }

  #wholeOf(no: number): bigint {
    const { value } = this.#answer(no);
    const parts = this.#of(no).call.op === "read" ? (value as string).length + 1 : PARTS.length;
    return (1n << BigInt(parts)) - 1n;
  }

  #finish(position: Position, no: number): Position[] {
    const pending = position.pending.get(no);
    if (pending === undefined && this.#hasSteps(no)) return [];
    const left = new Map(position.pending);
    left.delete(no);
    if (pending?.kind === "looks") {
      if (pending.seen !== this.#wholeOf(no)) return this.#refused(no, this.#unseen(no, pending.seen));
      return [{ ...position, state: unpinned(position.state, no), pending: left }];
    }
    if (pending !== undefined && this.#looksApart(no)) return [];
    const made = this.#of(no);
    const progress = pending?.progress ?? newProgress(made.call);
    const done = finish(position.state, made, progress, no);
    if (done === null) return this.#refused(no, "the model says nothing of it");
    const comparison = this.#comparison.with(FIELDS, position.numbers);
    const why = comparison.answer(made.call.op, done.outcome as never, this.#answer(no), visible(done.state));
    if (why !== null) {
      if (!this.#isException(no, done, position.state)) return this.#refused(no, why);
      return [{ numbers: position.numbers, state: unpinned(position.state, no), pending: left }];
    }
    const { numbers } = comparison;
    const changes = !LOOKS.has(made.call.op) && !("errno" in done.outcome);
    if (!changes) return [{ numbers, state: unpinned(done.state, no), pending: left }];
    // The others may have come to any place of their walks before it.
    const found: Position[] = [];
    for (const others of this.#advances({ ...position, pending: left })) {
      const again = finish(others.state, made, progress, no);
      if (again !== null) found.push(this.#seen({ numbers, state: unpinned(again.state, no), pending: others.pending }));
    }
    return found;
  }

  /** Where coverlay is known to differ, and nothing has changed then. */
  #isException(no: number, { reached }: Finished, state: State): boolean {
    const { errno } = this.#answer(no);
    const drawn = this.#history.calls[no]?.drawn;
    if (errno === undefined || drawn === undefined) return false;
    return exceptionsOf(this.#history.machine.kind).some(
      ({ answers, applies }) => answers?.includes(errno) === true && applies(drawn.call, drawn.user, drawn.mount, state, reached),
    );
  }

  #unseen(no: number, seen: bigint): string {
    if (this.#of(no).call.op === "read") return "no states beside it have these bytes";
    return `${PARTS.filter((_, at) => ((seen >> BigInt(at)) & 1n) === 0n).join(", ")} as at no moment beside it`;
  }

  /** All places to which the walks of pending calls may have come. */
  #advances(position: Position): Position[] {
    let all = [position];
    for (const [no, pending] of position.pending) {
      if (pending.kind !== "walks") continue;
      const places = this.#places(position.state, no, pending.progress);
      all = all.flatMap((one) => places.map((progress) => this.#at(one, no, progress)));
    }
    return all;
  }

  #at(position: Position, no: number, progress: Progress): Position {
    const pending = new Map(position.pending).set(no, { kind: "walks", progress });
    return { ...position, state: pinned(position.state, no, heldBy(progress)), pending };
  }

  #places(state: State, no: number, from: Progress): Progress[] {
    const made = this.#of(no);
    const found = [from];
    for (let now = from, next = walkOn(state, made, now); next !== null && !("errno" in next); next = walkOn(state, made, now)) {
      now = next;
      if (!this.#allowed.has("parts") && isBetweenParts(from, now)) continue;
      if (holdsInode(now) && (!this.#allowed.has("finds") || this.#looksApart(no))) break;
      found.push(now);
    }
    return found;
  }
}

/** Without what only a call that is under way still holds: its number may be that of another inode again. */
function visible(state: State): State {
  const held = new Set([...state.handles.values()].filter(({ mount }) => mount !== -1).map(({ ino }) => ino));
  const inodes = new Map([...state.inodes].filter(([ino, { nlink }]) => nlink > 0 || held.has(ino)));
  return inodes.size === state.inodes.size ? state : { ...state, inodes };
}

const texts = new WeakMap<Inode, string>();

function textOf(inode: Inode): string {
  const known = texts.get(inode);
  if (known !== undefined) return known;
  const { data, entries, xattrs, ...rest } = inode;
  const text = JSON.stringify([rest, runs(data), [...entries].toSorted(byName), [...xattrs].toSorted(byName)]);
  texts.set(inode, text);
  return text;
}

const byName = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number => (a < b ? -1 : 1);

/** Runs of one byte: the files of a history are long, and their contents are not. */
function runs(data: Uint8Array): string {
  let text = "";
  for (let from = 0, to = 0; from < data.length; from = to) {
    while (to < data.length && data[to] === data[from]) to++;
    text += `${data[from]}x${to - from} `;
  }
  return text;
}

function keyOf({ state, numbers, pending }: Position): string {
  const inodes = [...state.inodes.values()].toSorted((a, b) => a.ino - b.ino).map(textOf);
  const handles = [...state.handles].toSorted(byName);
  const known = [...numbers].filter(([ino]) => state.inodes.has(ino)).toSorted(([a], [b]) => a - b);
  const open = [...pending].toSorted(([a], [b]) => a - b);
  return JSON.stringify([inodes, handles, known, open], (_, value: unknown) => (typeof value === "bigint" ? value.toString(36) : value));
}
