/** What programs of the model of file locks were told, and whether that is so (shell-programs.ts). */
import { typesConflict } from "../../../dlmd/wire/plock-range.ts";
import type { LockOwner } from "../../../overlay/file-lock/api.ts";
import type { SetlkRequest } from "../../../overlay/fuse/request.ts";
import type { Call } from "../../../overlay/op/call.ts";
import type { ShellProcess } from "./shell-world.ts";

export const BYTES = 8;
export type Type = "read" | "write";
export type Kind = "process" | "open file" | "flock";

/** What an owner has on a file, by byte. */
export interface Owned {
  readonly node: number;
  readonly file: string;
  readonly kind: LockOwner["kind"];
  readonly owner: bigint;
  /** Its programs were told so, and have not asked for less. */
  readonly has: (Type | null)[];
  /** It may have something: nobody can know. */
  readonly may: boolean[];
  readonly underWay: Set<Pending>;
  /** Of its close(2) calls. */
  closing: number;
  /** Something of it was asked for beside one. */
  askedBeside: boolean;
}

export interface OpenFile {
  readonly fh: number;
  readonly file: string;
  readonly number: bigint;
  readonly users: Set<Program>;
  /** Requests that go by it. */
  asked: number;
  released: boolean;
}

export interface Thread {
  readonly program: Program;
  pending: Pending | null;
}

export interface Program {
  readonly owner: bigint;
  readonly open: Set<OpenFile>;
  readonly threads: Thread[];
  killed: boolean;
  /** close(2) under way. */
  closing: number;
}

export interface Pending {
  readonly thread: Thread;
  readonly owned: Owned;
  readonly open: OpenFile;
  readonly op: "lock" | "unlock";
  readonly request: SetlkRequest;
  readonly first: number;
  readonly last: number;
  /** Of the same owner, at any time while this was under way. */
  readonly beside: Set<Pending>;
  /** Its program closed the file at that time. */
  closedBeside: boolean;
  call: Call | null;
  /** The shell has ended it. */
  isOver: boolean;
  signalled: boolean;
}

/** What programs were told. */
export class ShellModel {
  readonly broken: string[] = [];
  /** What the kernel does next. */
  readonly later: (() => void)[] = [];
  /** What happened: of a seed that fails. */
  readonly history: string[] = [];
  readonly #owned = new Map<string, Owned>();

  ownedBy(node: number, file: string, kind: LockOwner["kind"], owner: bigint): Owned {
    const key = `${node} ${file} ${kind} ${owner}`;
    let owned = this.#owned.get(key);
    if (owned === undefined) {
      const has = Array.from({ length: BYTES }, (): Type | null => null);
      owned = { node, file, kind, owner, has, may: has.map(() => false), underWay: new Set(), closing: 0, askedBeside: false };
      this.#owned.set(key, owned);
    }
    return owned;
  }

  get all(): Iterable<Owned> {
    return this.#owned.values();
  }

  /** From when it asks for less it may have less. */
  asks({ owned, op, request, first, last }: Pending): void {
    if (owned.closing > 0) owned.askedBeside = true;
    for (let at = first; at <= last; at += 1) {
      if (owned.has[at] === null) continue;
      if (op === "unlock" || owned.kind === "flock") {
        owned.has[at] = null;
        owned.may[at] = true;
      } else if (request.type === "read") owned.has[at] = "read";
    }
  }

  ends(pending: Pending, errno: number, killed: boolean): void {
    const { owned, op, request, first, last, beside } = pending;
    this.history.push(`${nameOf(owned)}: ${op} ${request.type} ${owned.file} ${first}-${last}: ${killed ? "killed " : ""}${errno}`);
    const locks = [...beside].filter((one) => one.op === "lock");
    const overlap = (one: Pending, at: number): boolean => one.first <= at && at <= one.last;
    for (let at = first; at <= last; at += 1) {
      const others = [...beside].filter((one) => overlap(one, at));
      if (op === "unlock") {
        if (errno === 0 && !locks.some((one) => overlap(one, at))) owned.may[at] = false;
        continue;
      }
      if (others.length > 0 || pending.closedBeside || (killed && errno === 0)) owned.may[at] = true;
      if (errno !== 0 || killed) continue;
      if (owned.kind === "flock" ? others.length > 0 : pending.closedBeside || others.some((one) => one.op === "unlock")) {
        owned.has[at] = null;
        owned.may[at] = true;
      } else owned.has[at] = others.some((one) => one.request.type === "read") ? "read" : (request.type as Type);
    }
    if (op === "lock" && errno === 0 && !killed) this.#judge(owned);
  }

  givesUp(owned: Owned): void {
    const { underWay } = owned;
    owned.closing += 1;
    for (const pending of underWay) pending.closedBeside = true;
    if (underWay.size > 0) owned.askedBeside = true;
    this.mayHave(owned);
  }

  /** No program knows of it by now, and it need not have gone. */
  mayHave({ has, may }: Owned): void {
    for (let at = 0; at < BYTES; at += 1) {
      if (has[at] !== null) may[at] = true;
      has[at] = null;
    }
  }

  gaveUp(owned: Owned): void {
    const { may, underWay } = owned;
    owned.closing -= 1;
    if (owned.closing > 0) return;
    if (underWay.size === 0 && !owned.askedBeside) may.fill(false);
    owned.askedBeside = false;
  }

  #byNumber(node: number, { file, number }: OpenFile): Owned[] {
    return [this.ownedBy(node, file, "posix", number), this.ownedBy(node, file, "flock", number)];
  }

  lastClose(node: number, open: OpenFile): void {
    for (const owned of this.#byNumber(node, open)) {
      this.givesUp(owned);
      owned.closing -= 1;
    }
  }

  released(node: number, open: OpenFile): void {
    for (const owned of this.#byNumber(node, open)) if (owned.underWay.size === 0) owned.may.fill(false);
  }

  #judge(owned: Owned): void {
    for (const other of this.all) {
      if (other === owned || other.file !== owned.file || other.kind !== owned.kind) continue;
      for (let at = 0; at < BYTES; at += 1) {
        const [a, b] = [owned.has[at], other.has[at]];
        if (a != null && b != null && typesConflict(a, b))
          this.broken.push(`${owned.file} byte ${at}: ${nameOf(owned)} was granted ${a}, ${nameOf(other)} has ${b}`);
      }
    }
  }

  /** No message is on its way: what programs were told is locked, and nothing else is. */
  judgeRest(nodes: readonly { readonly node: number; readonly process: ShellProcess }[]): void {
    const locked = new Map<Owned, (Type | null)[]>();
    for (const { node, process } of nodes)
      for (const { file, held } of process.locks.describe().files)
        for (const { kind, owner, type, start, end } of held) {
          const owned = this.ownedBy(node, file.slice(1), kind, BigInt(owner));
          const cells = locked.get(owned) ?? Array.from({ length: BYTES }, () => null);
          locked.set(owned, cells);
          for (let at = Number(start); at <= (end === null ? BYTES - 1 : Number(end)); at += 1) cells[at] = type;
        }
    for (const owned of this.all) {
      const cells = locked.get(owned);
      for (let at = 0; at < BYTES; at += 1) {
        const [has, is] = [owned.has[at], cells?.[at] ?? null];
        if (has !== null && is !== "write" && is !== has)
          this.broken.push(`${owned.file} byte ${at}: ${nameOf(owned)} was told ${has}, and it is ${is}`);
        if (is !== null && has === null && owned.may[at] === false && owned.underWay.size === 0)
          this.broken.push(`${owned.file} byte ${at}: ${is} of ${nameOf(owned)}, and no program knows`);
      }
    }
    for (const [a, cells] of locked)
      for (const [b, others] of locked) {
        if (a === b || a.file !== b.file || a.kind !== b.kind || a.underWay.size + b.underWay.size > 0) continue;
        for (let at = 0; at < BYTES; at += 1) {
          const [one, two] = [cells[at] ?? null, others[at] ?? null];
          if (one !== null && two !== null && typesConflict(one, two))
            this.broken.push(`${a.file} byte ${at}: ${nameOf(a)} ${one}, ${nameOf(b)} ${two}`);
        }
      }
    for (const { process } of nodes) for (const error of process.errors) this.broken.push(error.stack ?? error.message);
  }
}

export function nameOf({ node, kind, owner }: Owned): string {
  return `${kind} ${owner} of node ${node}`;
}
