/** What the lower of the kill model has, and what a step does to it: the same steps for the lower itself and for the search that explains what it answered. */
import { E } from "../../../dlmd/base/errno.ts";

export interface ModelInode {
  readonly directory: boolean;
  /** One character a byte. */
  readonly bytes: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly nlink: number;
  readonly flags: number;
  readonly xattrs: Readonly<Record<string, string>>;
  /** Of a directory. */
  readonly names: Readonly<Record<string, number>>;
}

/** By inode number. */
export type State = Readonly<Record<number, ModelInode>>;

export interface Place {
  readonly dir: number;
  readonly name: string;
}

export type Step =
  | { readonly do: "write"; readonly ino: number; readonly offset: number; readonly data: string }
  | { readonly do: "append"; readonly ino: number; readonly data: string }
  | { readonly do: "truncate"; readonly ino: number; readonly size: number }
  | { readonly do: "allocate" | "punch"; readonly ino: number; readonly offset: number; readonly bytes: number }
  | {
      readonly do: "copy";
      readonly from: number;
      readonly offset: number;
      readonly ino: number;
      readonly to: number;
      readonly bytes: number;
    }
  | { readonly do: "kill" | "setgid" | "unsetgid"; readonly ino: number }
  | { readonly do: "chmod"; readonly ino: number; readonly mode: number }
  | { readonly do: "chown"; readonly ino: number; readonly uid: number; readonly gid: number }
  | { readonly do: "setxattr"; readonly ino: number; readonly name: string; readonly value: string }
  | { readonly do: "removexattr"; readonly ino: number; readonly name: string }
  | { readonly do: "flags"; readonly ino: number; readonly flags: number }
  | { readonly do: "make"; readonly at: Place; readonly ino: number; readonly inode: ModelInode }
  | { readonly do: "link"; readonly at: Place; readonly ino: number }
  | { readonly do: "remove"; readonly at: Place; readonly directory: boolean }
  | { readonly do: "rename"; readonly from: Place; readonly to: Place; readonly exchange: boolean };

export const ROOT_INO = 2;
const SET_ID = 0o6000;

export function modelInode(directory: boolean, mode: number, uid: number, gid: number, bytes = ""): ModelInode {
  return { directory, bytes, mode, uid, gid, nlink: directory ? 2 : 1, flags: 0, xattrs: {}, names: {} };
}

/** As killedMode of the local lower, with group execute set everywhere. */
function withoutSetId(inode: ModelInode): ModelInode {
  return { ...inode, mode: inode.mode & ~SET_ID };
}

export function hasSetId({ mode }: ModelInode): boolean {
  return (mode & SET_ID) !== 0;
}

function written(inode: ModelInode, offset: number, data: string): ModelInode {
  const bytes = inode.bytes.padEnd(offset, ".");
  return { ...inode, bytes: bytes.slice(0, offset) + data + bytes.slice(offset + data.length) };
}

function without<T>(record: Readonly<Record<string, T>>, key: string): Record<string, T> {
  return Object.fromEntries(Object.entries(record).filter(([name]) => name !== key));
}

function named(state: State, { dir, name }: Place, ino: number | undefined): State {
  const inode = state[dir] as ModelInode;
  const names = ino === undefined ? without(inode.names, name) : { ...inode.names, [name]: ino };
  return { ...state, [dir]: { ...inode, names } };
}

function linked(state: State, ino: number, links: number): State {
  const inode = state[ino] as ModelInode;
  return { ...state, [ino]: { ...inode, nlink: inode.directory && links < 0 ? 0 : inode.nlink + links } };
}

/** A directory that was removed takes no names. */
export function isGone(state: State, dir: number): boolean {
  return (state[dir]?.nlink ?? 0) === 0;
}

function ofInode(step: Step & { readonly ino: number }, inode: ModelInode, state: State): ModelInode | number {
  switch (step.do) {
    case "write":
      return written(inode, step.offset, step.data);
    case "append":
      return written(inode, inode.bytes.length, step.data);
    case "truncate":
      return { ...inode, bytes: inode.bytes.slice(0, step.size).padEnd(step.size, ".") };
    case "allocate":
      return { ...inode, bytes: inode.bytes.padEnd(step.offset + step.bytes, ".") };
    case "punch": {
      const hole = inode.bytes.slice(step.offset, step.offset + step.bytes).length;
      return hole === 0 ? inode : written(inode, step.offset, ".".repeat(hole));
    }
    case "copy": {
      const data = (state[step.from] as ModelInode).bytes.slice(step.offset, step.offset + step.bytes);
      return data === "" ? inode : written(inode, step.to, data);
    }
    case "kill":
      return withoutSetId(inode);
    case "setgid":
      return { ...inode, mode: inode.mode | 0o2000 };
    case "unsetgid":
      return { ...inode, mode: inode.mode & ~0o2000 };
    case "chmod":
      return { ...inode, mode: step.mode };
    case "chown":
      return { ...withoutSetId(inode), uid: step.uid, gid: step.gid };
    case "setxattr":
      return { ...inode, xattrs: { ...inode.xattrs, [step.name]: step.value } };
    case "removexattr":
      return step.name in inode.xattrs ? { ...inode, xattrs: without(inode.xattrs, step.name) } : E.ENODATA;
    case "flags":
      return { ...inode, flags: step.flags };
    default:
      throw new Error(`no step of an inode: ${step.do}`);
  }
}

function ofNames(step: Step, state: State): State | number {
  switch (step.do) {
    case "make":
    case "link": {
      const { dir, name } = step.at;
      if (isGone(state, dir)) return E.ESTALE;
      if (state[dir]?.names[name] !== undefined) return E.EEXIST;
      if (step.do === "make") return named({ ...state, [step.ino]: step.inode }, step.at, step.ino);
      if (isGone(state, step.ino)) return E.ENOENT;
      return named(linked(state, step.ino, 1), step.at, step.ino);
    }
    case "remove": {
      const ino = state[step.at.dir]?.names[step.at.name];
      if (ino === undefined || isGone(state, step.at.dir)) return E.ENOENT;
      if (step.directory && Object.keys(state[ino]?.names ?? {}).length > 0) return E.ENOTEMPTY;
      return linked(named(state, step.at, undefined), ino, -1);
    }
    case "rename": {
      const { from, to } = step;
      if (isGone(state, from.dir) || isGone(state, to.dir)) return E.ESTALE;
      const moved = state[from.dir]?.names[from.name];
      const replaced = state[to.dir]?.names[to.name];
      if (moved === undefined || (step.exchange && replaced === undefined)) return E.ENOENT;
      if (moved === replaced) return state;
      if (step.exchange) return named(named(state, from, replaced), to, moved);
      const freed = replaced === undefined ? state : linked(state, replaced, -1);
      return named(named(freed, from, undefined), to, moved);
    }
    default:
      throw new Error(`no step of names: ${step.do}`);
  }
}

/** The state afterwards, or an errno. */
export function applied(state: State, step: Step): State | number {
  if (step.do === "make" || step.do === "link" || step.do === "remove" || step.do === "rename") return ofNames(step, state);
  const inode = state[step.ino];
  if (inode === undefined) return E.ESTALE;
  const changed = ofInode(step, inode, state);
  return typeof changed === "number" ? changed : { ...state, [step.ino]: changed };
}

/** Two states that are the same have the same one. */
export function keyOf(state: State): string {
  const sorted = (record: object): string => JSON.stringify(Object.entries(record).toSorted(([a], [b]) => (a < b ? -1 : 1)));
  return Object.entries(state)
    .map(([ino, { bytes, mode, uid, gid, nlink, flags, xattrs, names }]) =>
      [ino, bytes, mode.toString(8), uid, gid, nlink, flags, sorted(xattrs), sorted(names)].join(" "),
    )
    .toSorted()
    .join("\n");
}
