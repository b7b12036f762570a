/** Whether an answer of a kernel is the one that the model gives. Inode numbers are mapped, times are windows. */
import type { SeekBounds } from "../data.ts";
import type { Outcome } from "../file-system.ts";
import type { Stat } from "../attributes.ts";
import { type Ino, type Kind, ROOT, type State, type Time } from "../state.ts";
import { statOf } from "../attributes.ts";
import type { Answer, RealStat, TreeEntry } from "./executor.ts";

/** A type that getdents(2) tells apart for us; what it does not is looked at by stat. */
const listedTypes = new Set(["file", "directory", "symlink"]);
const asListed = (entry: string): string => {
  const [type = "", ...name] = entry.split(" ");
  return `${listedTypes.has(type) ? type : "other"} ${name.join(" ")}`;
};

const asShown = (entries: readonly string[]): string[] => entries.map(asListed).toSorted();

export type StatField = "type" | "mode" | "uid" | "gid" | "nlink" | "size" | "atime" | "mtime" | "ctime";
const FIELDS: readonly StatField[] = ["type", "mode", "uid", "gid", "nlink", "size", "atime", "mtime", "ctime"];

export class Comparison {
  readonly #kind: Kind;
  readonly #fields: readonly StatField[];
  readonly #real: Map<Ino, number>;
  readonly #model: Map<number, Ino>;
  #began: bigint[] = [];
  #ended: bigint[] = [];

  /** `real`: the inode numbers that are known. */
  constructor(kind: Kind, fields: readonly StatField[] = FIELDS, real: ReadonlyMap<Ino, number> = new Map()) {
    this.#kind = kind;
    this.#fields = fields;
    this.#real = new Map(real);
    this.#model = new Map([...real].map(([ino, number]) => [number, ino]));
  }

  /** With the times of this one, but other inode numbers, and only those fields of stat(2). */
  with(fields: readonly StatField[], real: ReadonlyMap<Ino, number>): Comparison {
    const made = new Comparison(this.#kind, fields, real);
    made.#began = this.#began;
    made.#ended = this.#ended;
    return made;
  }

  /** The inode numbers that are known by now. */
  get numbers(): ReadonlyMap<Ino, number> {
    return this.#real;
  }

  /** When a call was made: what its "now" is. */
  timed(call: number, { began, ended }: Answer): void {
    this.#began[call] = BigInt(began);
    this.#ended[call] = BigInt(ended);
  }

  /** What is wrong; null: nothing. `after`: the state after it, whose inodes are all that have numbers. */
  answer(op: string, expected: Outcome, answer: Answer, after: State): string | null {
    if ("errno" in expected) return answer.errno === expected.errno ? null : `${expected.errno} expected, found ${shown(answer)}`;
    if (answer.errno !== undefined) {
      const allowed = op === "seek_data" && answer.errno === "ENXIO" && (expected.value as SeekBounds).most === null;
      return allowed ? null : `${short(expected.value)} expected, found ${answer.errno}`;
    }
    if (op === "stat") return this.stat(expected.value as Stat, answer.value as RealStat, after);
    if (op === "seek_data") {
      const { least, most } = expected.value as SeekBounds;
      const found = answer.value as number;
      return found >= least && (most === null || found <= most) ? null : `${least} to ${most ?? "ENXIO"} expected, found ${found}`;
    }
    const wanted =
      op === "readdir" || op === "getdents"
        ? asShown(expected.value as string[])
        : op === "rewinddir"
          ? (expected.value as string[][]).map(asShown)
          : expected.value;
    const found = answer.value;
    return JSON.stringify(wanted) === JSON.stringify(found) ? null : `${short(wanted)} expected, found ${short(found)}`;
  }

  stat(expected: Stat, found: RealStat, state: State): string | null {
    const wrong = this.#fields.flatMap((field) => this.field(field, expected, found) ?? []);
    const identity = this.identity(expected.ino, found.ino, state);
    if (identity !== null) wrong.push(identity);
    return wrong.length === 0 ? null : wrong.join("; ");
  }

  /** What is wrong with one field of stat(2). */
  field(field: StatField, expected: Stat, found: RealStat): string | null {
    if (field === "atime" || field === "mtime" || field === "ctime") {
      const why = this.#time(expected[field], BigInt(found[field]));
      return why === null ? null : `${field} ${why}`;
    }
    const show = (value: unknown): string => (field === "mode" ? `0${Number(value).toString(8)}` : String(value));
    return expected[field] === found[field] ? null : `${field} ${show(expected[field])} expected, found ${show(found[field])}`;
  }

  identity(expected: Ino, found: number, state: State): string | null {
    const owner = this.#model.get(found);
    // A number is free again when its inode is gone.
    if (owner !== undefined && owner !== expected && state.inodes.has(owner)) return `the inode number ${found} is that of another inode`;
    const known = this.#real.get(expected);
    if (known !== undefined && known !== found) return `the inode number was ${known}, and is ${found}`;
    this.#real.set(expected, found);
    this.#model.set(found, expected);
    return null;
  }

  #time(expected: Time, found: bigint): string | null {
    if (expected === null) return null;
    if ("exactNs" in expected) return found === BigInt(expected.exactNs) ? null : `${expected.exactNs} expected, found ${found}`;
    const began = this.#began[expected.call];
    const ended = this.#ended[expected.call];
    if (began === undefined || ended === undefined) return null;
    if (found < began) return `${found} is ${began - found} ns before call ${expected.call + 1}`;
    if (found > ended && !this.#kind.timesMayBeLater) return `${found} is ${found - ended} ns after call ${expected.call + 1}`;
    return null;
  }

  /** The whole tree, as a mount shows it. `wasRead`: through another one its links and directories were read a moment ago. */
  tree(state: State, found: readonly TreeEntry[], wasRead = false): string | null {
    const left = new Map(found.map((entry) => [entry.path, entry]));
    for (const { path, unlisted = [] } of found) {
      if (unlisted.length > 0) return `${path}: its listing leaves out ${short(unlisted)}, and stat(2) finds that`;
    }
    for (const [path, ino] of pathsOf(state)) {
      const inode = state.inodes.get(ino);
      const entry = left.get(path);
      if (inode === undefined || entry === undefined) return `${path} is not there`;
      left.delete(path);
      if (entry.error !== undefined) return `${path}: it cannot be looked at: ${entry.error}`;
      const wantedStat = statOf(inode);
      const why = this.stat(wasRead && inode.type !== "file" ? { ...wantedStat, atime: null } : wantedStat, entry.stat, state);
      if (why !== null) return `${path}: ${why}`;
      if (inode.type === "symlink" && entry.target !== inode.target) return `${path}: leads to ${entry.target}, expected ${inode.target}`;
      const data = Buffer.from(inode.data).toString("latin1");
      if (inode.type === "file" && entry.data !== data) return `${path}: ${short(data)} expected, found ${short(entry.data)}`;
      const wanted = inOrder(inode.xattrs);
      const xattrs = inOrder(Object.entries(entry.xattrs));
      if (wanted !== xattrs) return `${path}: attributes ${wanted} expected, found ${xattrs}`;
    }
    const more = [...left.keys()];
    return more.length === 0 ? null : `${more.join(", ")} should not be there`;
  }
}

function pathsOf(state: State, ino: Ino = ROOT, path = "/"): [string, Ino][] {
  const entries = [...(state.inodes.get(ino)?.entries ?? [])];
  return [[path, ino], ...entries.flatMap(([name, below]) => pathsOf(state, below, `${path === "/" ? "" : path}/${name}`))];
}

/** An entry of the tree as it should be. */
export interface TreeExpected {
  readonly path: string;
  readonly stat: Stat;
  readonly xattrs: Readonly<Record<string, string>>;
  readonly target?: string;
  readonly data?: string;
}

/** What `tree` compares, as data. */
export function treeOf(state: State): TreeExpected[] {
  return pathsOf(state).flatMap(([path, ino]) => {
    const inode = state.inodes.get(ino);
    if (inode === undefined) return [];
    const { type, target, data, xattrs } = inode;
    const rest = type === "symlink" ? { target } : type === "file" ? { data: Buffer.from(data).toString("latin1") } : {};
    return [{ path, stat: statOf(inode), xattrs: Object.fromEntries(xattrs), ...rest }];
  });
}

const inOrder = (xattrs: Iterable<readonly [string, string]>): string =>
  JSON.stringify([...xattrs].toSorted(([a], [b]) => (a < b ? -1 : 1)));

const shown = ({ errno, value }: Answer): string => errno ?? short(value);

/** Runs of one byte as their number. */
function short(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text
    .replaceAll(
      /((?:\\u0000){8,}|(\w)\2{8,})/g,
      (run) => `<${run.startsWith("\\u") ? run.length / 6 : run.length} x ${run.slice(0, run.startsWith("\\u") ? 6 : 1)}>`,
    )
    .slice(0, 600);
}
