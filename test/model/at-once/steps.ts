/**
 * A call as the steps that Linux makes of it (not-atomic.ts has the reasons): each part of a path is looked up at a moment of its own, and the work
 * is done in one moment after them. Between two steps other calls may change everything. What a call has found stays, as a reference of the
 * kernel does: a handle of the state that no program has. Pure.
 */
import { type Call, type Outcome, step } from "../file-system.ts";
import { type OpenFlag } from "../open.ts";
import { lookupPart, mustSearch, restOfPath } from "../path.ts";
import { Refusal, type Rule } from "../rule.ts";
import { type Handle, type Ino, ROOT, type State } from "../state.ts";
import { type Caller, type Machine, World } from "../world.ts";

/** What a path is wanted for: the inode itself, with or without following a link in the last place, or the place of a name. */
type Arrival = "follow" | "link" | "place";

/** Where one path has come to. */
interface Walk {
  readonly arrival: Arrival;
  /** Where its parts begin; without parts: what it stands for. */
  readonly at: Ino;
  readonly parts: readonly string[];
  /** Symbolic links that were followed. */
  readonly links: number;
}

export interface Progress {
  readonly walks: readonly Walk[];
}

/** Inodes that a call makes have its number, in whatever order the calls are made. */
const FIRST_MADE = 1_000_000;

const walk = (path: string, arrival: Arrival): Walk => ({ arrival, at: ROOT, parts: path === "." ? [] : path.split("/"), links: 0 });

/** Its paths, none of which was walked yet. Calls whose walk is not told here have no path. */
export function newProgress({ op, args }: Call): Progress {
  switch (op) {
    case "mkdir":
    case "mknod":
    case "symlink":
    case "unlink":
    case "rmdir":
      return { walks: [walk(args.path, "place")] };
    case "rename":
      return { walks: [walk(args.from, "place"), walk(args.to, "place")] };
    case "link":
      return { walks: [walk(args.from, "link"), walk(args.to, "place")] };
    case "open":
      return { walks: [walk(args.path, args.flags.includes("CREAT") ? "place" : args.flags.includes("NOFOLLOW") ? "link" : "follow")] };
    case "truncate":
    case "access":
    case "readdir":
      return { walks: [walk(args.path, "follow")] };
    case "readlink":
      return { walks: [walk(args.path, "link")] };
    default:
      if (!("target" in args) || typeof args.target === "string" || "slot" in args.target) return { walks: [] };
      return { walks: [walk(args.target.path, args.target.follow ? "follow" : "link")] };
  }
}

const creates = ({ op, args }: Call): boolean => op === "open" && args.flags.includes("CREAT");
const hasArrived = (one: Walk): boolean => one.parts.length === (one.arrival === "place" ? 1 : 0);

/** Whether some walk has gone on since then, and is not at its end: the next part, or the last name, is looked up later. */
export const isBetweenParts = (before: Progress, now: Progress): boolean =>
  now.walks.some((one, at) => one !== before.walks[at] && one.parts.length > 0);
/** Whether a call holds the very inode that it has found. */
export const holdsInode = ({ walks }: Progress): boolean => walks.some(({ parts }) => parts.length === 0);

export interface Made {
  readonly call: Call;
  readonly caller: Caller;
  readonly machine: Machine;
}

/** One part further; an errno: that part refuses. Null: all was walked, and the work itself is next. */
export function walkOn(state: State, { call, caller, machine }: Made, progress: Progress): Progress | { readonly errno: string } | null {
  const open = progress.walks.findIndex((one) => !hasArrived(one));
  const which = open === -1 && creates(call) ? 0 : open;
  const one = progress.walks[which];
  const [part, ...rest] = one?.parts ?? [];
  if (one === undefined || part === undefined) return null;
  const world = new World(state, caller, machine);
  const isLast = rest.length === 0;
  try {
    let next: Walk;
    if (open === -1) {
      // open(2) with O_CREAT: what is not there is made in the same moment, under the lock of the directory.
      const flags: readonly OpenFlag[] = call.op === "open" ? call.args.flags : [];
      if (flags.includes("EXCL") || !world.inode(one.at).entries.has(part)) return null;
      next = arrived(one, lookupPart(world, one.at, part, true, !flags.includes("NOFOLLOW"), one.links), rest);
      // A link leads to a place again.
      if (next.parts.length === 0) next = { ...next, arrival: "link" };
    } else {
      next = arrived(one, lookupPart(world, one.at, part, isLast, one.arrival === "follow", one.links), rest);
      if (next.arrival === "place" && hasArrived(next)) mustSearch(world, world.inode(next.at));
    }
    return { walks: progress.walks.with(which, next) };
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return { errno: error.errno };
  }
}

const arrived = (one: Walk, found: Ino | readonly string[], rest: readonly string[]): Walk =>
  typeof found === "number" ? { ...one, at: found, parts: rest } : { ...one, parts: [...found, ...rest], links: one.links + 1 };

/** The call with what is left of its paths. */
function rest(call: Call, { walks: [first, second] }: Progress): Call {
  const left = ({ at, parts }: Walk): string => restOfPath(at, parts.join("/"));
  const { op, args } = call;
  if (first === undefined) return call;
  if (second !== undefined) return { op, args: { ...args, from: left(first), to: left(second) } } as Call;
  if ("target" in args && op !== "symlink")
    return { op, args: { ...args, target: { ...(args.target as object), path: left(first) } } } as Call;
  if (op === "open" && first.parts.length === 0) {
    return { op, args: { ...args, path: left(first), flags: args.flags.filter((flag) => flag !== "CREAT") } };
  }
  return { op, args: { ...args, path: left(first) } } as Call;
}

export interface Finished {
  readonly state: State;
  readonly outcome: Outcome | { readonly errno: string };
  readonly reached: readonly Rule[];
}

const refused = (state: State, errno: string): Finished => ({ state, outcome: { errno }, reached: [] });

/** The work itself, all of what was not walked yet with it. Null: the model says nothing of it. */
export function finish(before: State, made: Made, progress: Progress, no: number): Finished | null {
  let now = progress;
  for (let next = walkOn(before, made, now); next !== null; next = walkOn(before, made, now)) {
    if ("errno" in next) return refused(before, next.errno);
    now = next;
  }
  const { call, caller, machine } = made;
  const [first] = now.walks;
  const isGone = ({ at }: Walk): boolean => before.inodes.get(at)?.nlink === 0;
  // Nothing is looked up or made in a directory that is gone (IS_DEADDIR).
  if (now.walks.some((one) => one.arrival === "place" && isGone(one))) return refused(before, "ENOENT");
  const isDirectory = first !== undefined && before.inodes.get(first.at)?.type === "directory";
  if (creates(call) && first?.parts.length === 0 && isDirectory) return refused(before, "EISDIR");
  const done = step({ ...before, nextIno: FIRST_MADE + no }, rest(call, now), caller, machine);
  if (done === null) return null;
  if (call.op === "link" && first !== undefined && isGone(first) && !("errno" in done.outcome)) {
    return refused(before, "ENOENT");
  }
  return { state: { ...done.state, nextIno: before.nextIno }, outcome: done.outcome, reached: done.reached };
}

const pinOf = (no: number): string => `pin ${no} `;

/** Keeps what a call has found, though its names may go. */
export function pinned(state: State, no: number, inos: readonly Ino[]): State {
  const handles = new Map<string, Handle>(unpinned(state, no, false).handles);
  for (const ino of new Set(inos)) {
    handles.set(`${pinOf(no)}${ino}`, { ino, mount: -1, read: false, write: false, append: false, position: 0 });
  }
  return forgotten({ ...state, handles });
}

/** The call is over: it keeps nothing any more. */
export function unpinned(state: State, no: number, forget = true): State {
  const handles = new Map([...state.handles].filter(([key]) => !key.startsWith(pinOf(no))));
  return forget ? forgotten({ ...state, handles }) : { ...state, handles };
}

/** Without the inodes that have no name and that nobody holds. */
function forgotten(state: State): State {
  const held = new Set([...state.handles.values()].map(({ ino }) => ino));
  const gone = [...state.inodes.values()].filter(({ ino, nlink }) => nlink === 0 && !held.has(ino));
  if (gone.length === 0) return state;
  const inodes = new Map(state.inodes);
  for (const { ino } of gone) inodes.delete(ino);
  return { ...state, inodes };
}

/** What a call must keep: all that its walks have come to. */
export const heldBy = ({ walks }: Progress): Ino[] => walks.map(({ at }) => at).filter((ino) => ino !== ROOT);
