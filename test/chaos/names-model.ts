/** The names of one directory, on a disk that may lose what was not synced. Errors are those of Linux on ext4. Pure. */
import type { NameAction } from "./history.ts";
import type { Model } from "./linearize.ts";

/** "f17": a file with the tag 17; "d18": a directory. */
type Thing = string;
/** Sorted by name. */
type Names = ReadonlyMap<string, Thing>;

export type NameOperation =
  | {
      readonly kind: "call";
      readonly action: NameAction;
      /** Name of an errno; null: it succeeded; "unknown": nobody knows. */
      readonly error: string | null;
      readonly value: unknown;
    }
  /** link(2) in its two steps, where they do not see one state: `no` joins them. Both succeed, or nobody knows. */
  | { readonly kind: "link-finds"; readonly no: number; readonly name: string }
  | { readonly kind: "link-gives"; readonly no: number; readonly to: string }
  | { readonly kind: "lose" };

export interface NamesState {
  readonly names: Names;
  /** What the first step of a link(2) has found, by its `no`. */
  readonly found: ReadonlyMap<number, Thing>;
  /** What the directory was since the last sync, by key, without the present one. */
  readonly unstable: ReadonlyMap<string, Names>;
  readonly lossesLeft: number;
}

const noNames: Names = new Map();

/** An empty directory. */
export function newDirectory(lossesLeft: number): NamesState {
  return { names: noNames, found: new Map(), unstable: new Map(), lossesLeft };
}

function keyOf(names: Names): string {
  return [...names].map(([name, thing]) => `${name}=${thing}`).join(",");
}

function sorted(names: Iterable<readonly [string, Thing]>): Names {
  return new Map([...names].toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

function withName(names: Names, name: string, thing: Thing): Names {
  return sorted([...names].filter(([other]) => other !== name).concat([[name, thing]]));
}

function withoutName(names: Names, name: string): Names {
  return new Map([...names].filter(([other]) => other !== name));
}

/** What stat(2) tells where nothing changes: "f17*2" is a file with two names. */
function seenAs(names: Names, name: string): string | null {
  const thing = names.get(name);
  if (thing === undefined) return null;
  return thing.startsWith("d") ? thing : `${thing}*${[...names.values()].filter((other) => other === thing).length}`;
}

/** The names after it, or the errno that it must end with. */
function perform(names: Names, action: NameAction): Names | string {
  const thing = "name" in action ? names.get(action.name) : undefined;
  switch (action.kind) {
    case "create":
    case "mkdir":
      return thing === undefined ? withName(names, action.name, `${action.kind === "mkdir" ? "d" : "f"}${action.tag}`) : "EEXIST";
    case "link":
      if (thing === undefined) return "ENOENT";
      if (names.has(action.to)) return "EEXIST";
      return thing.startsWith("d") ? "EPERM" : withName(names, action.to, thing);
    case "rename": {
      const target = names.get(action.to);
      if (thing === undefined) return "ENOENT";
      // Two names of one file: rename(2) does nothing.
      if (target === thing) return names;
      if (target !== undefined && thing.startsWith("d") && !target.startsWith("d")) return "ENOTDIR";
      if (target !== undefined && !thing.startsWith("d") && target.startsWith("d")) return "EISDIR";
      return withName(withoutName(names, action.name), action.to, thing);
    }
    case "unlink":
      return thing === undefined ? "ENOENT" : thing.startsWith("d") ? "EISDIR" : withoutName(names, action.name);
    case "rmdir":
      return thing === undefined ? "ENOENT" : thing.startsWith("d") ? withoutName(names, action.name) : "ENOTDIR";
    case "look":
      return thing === undefined ? "ENOENT" : names;
    case "list":
    case "sync":
      return names;
  }
}

function isSeen(names: Names, action: NameAction, value: unknown): boolean {
  // stat(2) finds the inode first and looks at it then: it may have fewer names by now, or none, on any file system.
  if (action.kind === "look") return String(value).replace(/\*\d+$/, "") === names.get(action.name);
  if (action.kind !== "list") return true;
  const listed = Object.entries(value as Record<string, string>).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify(listed) === JSON.stringify([...names.keys()].map((name) => [name, seenAs(names, name)]));
}

export const namesModel: Model<NamesState, NameOperation> = {
  key: ({ names, found, unstable, lossesLeft }) =>
    `{${keyOf(names)}} (${[...unstable.keys()].toSorted().join(" | ")}) ${lossesLeft}${[...found].map(([no, thing]) => ` ${no}:${thing}`).join("")}`,
  step(state, operation) {
    if (operation.kind === "lose") {
      const lossesLeft = state.lossesLeft - 1;
      return [state.names, ...state.unstable.values()].map((names) => ({ ...state, names, unstable: new Map(), lossesLeft }));
    }
    if (operation.kind === "link-finds") {
      const thing = state.names.get(operation.name);
      return thing === undefined || thing.startsWith("d") ? [] : [{ ...state, found: new Map(state.found).set(operation.no, thing) }];
    }
    if (operation.kind === "link-gives") {
      const thing = state.found.get(operation.no);
      // A file that has lost its last name meanwhile gets no other one (vfs_link).
      if (thing === undefined || state.names.has(operation.to) || ![...state.names.values()].includes(thing)) return [];
      const found = new Map([...state.found].filter(([no]) => no !== operation.no));
      return [changed({ ...state, found }, withName(state.names, operation.to, thing))];
    }
    const { action, error, value } = operation;
    const after = perform(state.names, action);
    if (error === "unknown") return typeof after === "string" ? [] : [changed(state, after)];
    if (typeof after === "string") return after === error ? [state] : [];
    if (error !== null || !isSeen(state.names, action, value)) return [];
    return action.kind === "sync" ? [{ ...state, unstable: new Map() }] : [changed(state, after)];
  },
};

function changed(state: NamesState, names: Names): NamesState {
  const [before, after] = [keyOf(state.names), keyOf(names)];
  if (before === after) return state;
  if (state.lossesLeft === 0) return { ...state, names };
  const unstable = new Map(state.unstable).set(before, state.names);
  unstable.delete(after);
  return { ...state, names, unstable };
}
