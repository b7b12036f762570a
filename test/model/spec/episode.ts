/**
 * A part of a sequence in a directory of its own, which nobody has fought over: so a node keeps what it has been told of the names in it. There are two kinds.
 * One change among many kinds of files: one program makes them, another one looks and holds open, one of them changes something, and the second one looks
 * again, by name and through what it holds. Or names that take turns: see `turnsIn`.
 */
import * as fc from "fast-check";
import type { Target } from "../attributes.ts";
import type { Call, OperationName } from "../file-system.ts";
import type { Rename } from "../names.ts";
import { callsIn, SLOTS, type Where } from "./draw-calls.ts";
import type { Made } from "./executor.ts";

/** A place in a sequence: one of these calls. */
export type Choice = readonly Made[];

const CHOICE = 4;
const ROOT_USER = 0;
/** Of who looks: a file, and the directory, which stay open. */
const HELD_SLOT: number = SLOTS + 1;
const HELD_DIRECTORY_SLOT: number = SLOTS + 2;
/** Of who changes: the file, and another one. */
const FILE_SLOT = 0;
const OTHER_SLOT = 1;

const FILE = "f";
const OTHER = "h";
const BELOW = "s";
const LINK = "l";
const PIPE = "p";
/** Names of the file, another file, a symbolic link, a FIFO, a directory, and what is not there. */
const NAMES = [FILE, "g", `${BELOW}/g`, OTHER, LINK, PIPE, BELOW, "x", `${BELOW}/x`];

const CHANGES: Partial<Readonly<Record<OperationName, number>>> = {
  open: 1,
  write: 3,
  truncate: 2,
  ftruncate: 1,
  fallocate: 3,
  copy_file_range: 3,
  chmod: 3,
  chown: 3,
  utimens: 2,
  setxattr: 4,
  removexattr: 2,
  mkdir: 1,
  mknod: 1,
  symlink: 1,
  link: 4,
  unlink: 4,
  rmdir: 1,
  rename: 8,
};
const NAME_CHANGES: Partial<Readonly<Record<OperationName, number>>> = { rename: 6, link: 2, unlink: 2, mknod: 1 };

const open = (path: string, slot: number, flags: "made" | "there" | "directory"): Call => ({
  op: "open",
  args: {
    path,
    access: flags === "directory" ? "RDONLY" : "RDWR",
    flags: flags === "made" ? ["CREAT"] : flags === "directory" ? ["DIRECTORY"] : [],
    mode: 0o666,
    slot,
  },
});

function building(dir: string): fc.Arbitrary<readonly Call[]> {
  const at = (name: string): string => `${dir}/${name}`;
  const always: readonly Call[] = [
    { op: "mkdir", args: { path: dir, mode: 0o777 } },
    open(at(FILE), FILE_SLOT, "made"),
    { op: "mkdir", args: { path: at(BELOW), mode: 0o777 } },
  ];
  const often: Call[] = [
    { op: "write", args: { slot: FILE_SLOT, offset: 0, letter: "w", length: 5000 } },
    { op: "chmod", args: { target: { path: dir, follow: true }, mode: 0o777 } },
    { op: "chmod", args: { target: { path: at(BELOW), follow: true }, mode: 0o777 } },
    { op: "chmod", args: { target: { path: at(FILE), follow: true }, mode: 0o6777 } },
    { op: "link", args: { from: at(FILE), to: at("g") } },
    { op: "link", args: { from: at(FILE), to: at(`${BELOW}/g`) } },
    open(at(OTHER), OTHER_SLOT, "made"),
    { op: "write", args: { slot: OTHER_SLOT, offset: 0, letter: "v", length: 100 } },
    { op: "symlink", args: { target: FILE, path: at(LINK) } },
    { op: "mknod", args: { path: at(PIPE), type: "fifo", mode: 0o666 } },
    { op: "setxattr", args: { target: { path: at(FILE), follow: true }, name: "user.a", value: "v", flag: null } },
  ];
  return fc.subarray(often, { minLength: 5 }).map((chosen) => [...always, ...chosen]);
}

/** What shows whether a node has kept something. In any order: one look may bring what another one would have shown to be old. */
function looks(dir: string, focus: string): fc.Arbitrary<readonly Call[]> {
  const statOf = (name: string): Call => ({ op: "stat", args: { target: { path: `${dir}/${name}`, follow: false } } });
  const held: readonly Target[] = [{ slot: HELD_SLOT }, { slot: HELD_DIRECTORY_SLOT }];
  const through: Call[] = [
    ...held.map((target): Call => ({ op: "stat", args: { target } })),
    { op: "read", args: { slot: HELD_SLOT, offset: 0, length: 9000 } },
    { op: "getdents", args: { slot: HELD_DIRECTORY_SLOT } },
    { op: "readdir", args: { path: dir } },
    { op: "stat", args: { target: { path: dir, follow: true } } },
    { op: "readlink", args: { path: `${dir}/${LINK}` } },
  ];
  // Twice of the focus: it is hardly ever left out.
  return fc.shuffledSubarray([...NAMES.map(statOf), statOf(focus), ...through], { minLength: 5 });
}

/** Calls of users, one of which is made. */
type Choices = readonly (readonly { readonly user: number; readonly call: Call }[])[];

interface Drawn {
  readonly maker: number;
  readonly looker: number;
  /** Null: any other one than who looks. */
  readonly changer: number | null;
  readonly built: readonly Call[];
  readonly before: readonly Call[];
  /** Of who looks, before the others'. */
  readonly own: Choices;
  readonly changes: Choices;
  readonly after: readonly Call[];
}

/** Most calls have to do with the name `focus`. */
function drawnAround(dir: string, focus: string, mounts: number): fc.Arbitrary<Drawn> {
  const mount = fc.nat(mounts - 1);
  const path = fc.constantFrom(...NAMES, ...NAMES.map(() => focus)).map((name) => `${dir}/${name}`);
  const where: Where = { path, slot: fc.constantFrom(FILE_SLOT, OTHER_SLOT), twoNames: fc.record({ from: path, to: path }) };
  const user = fc.constantFrom(ROOT_USER, ROOT_USER, 1, 2);
  const choices = (weights: typeof CHANGES, minLength: number, maxLength: number): fc.Arbitrary<Choices> => {
    const one = fc.record({ user, call: callsIn(where, weights) });
    return fc.array(fc.array(one, { minLength: CHOICE, maxLength: CHOICE }), { minLength, maxLength, size: "max" });
  };
  return fc.record({
    maker: mount,
    looker: mount,
    changer: fc.oneof({ weight: 1, arbitrary: mount }, { weight: 3, arbitrary: fc.constant(null) }),
    built: building(dir),
    before: looks(dir, focus),
    own: fc.oneof({ weight: 1, arbitrary: fc.constant([]) }, { weight: 2, arbitrary: choices(NAME_CHANGES, 1, 1) }),
    changes: choices(CHANGES, 1, 2),
    after: looks(dir, focus),
  });
}

/** In `dir`, which must not be there before. */
export function episodeIn(dir: string, mounts: number): fc.Arbitrary<readonly Choice[]> {
  return fc.oneof({ weight: 2, arbitrary: changeIn(dir, mounts) }, { weight: 1, arbitrary: turnsIn(dir, mounts) });
}

const by = (mount: number, calls: readonly Call[]): Choice[] => calls.map((call) => [{ user: ROOT_USER, mount, call }]);
const chosen = (mount: number, from: Choices): Choice[] => from.map((each) => each.map((some) => ({ ...some, mount })));

/** One change, or two. */
function changeIn(dir: string, mounts: number): fc.Arbitrary<readonly Choice[]> {
  const drawn = fc.constantFrom(...NAMES).chain((focus) => drawnAround(dir, focus, mounts));
  return drawn.map(({ maker, looker, changer, built, before, own, changes, after }) => {
    const other = changer ?? (looker + 1) % mounts;
    return [
      ...by(maker, built),
      ...by(other, [open(`${dir}/${FILE}`, FILE_SLOT, "there"), open(`${dir}/${OTHER}`, OTHER_SLOT, "there")]),
      ...by(looker, [open(`${dir}/${FILE}`, HELD_SLOT, "there"), open(dir, HELD_DIRECTORY_SLOT, "directory")]),
      // A first look may find the lock elsewhere: what it is told is not valid then, as what the next one is.
      ...by(looker, before),
      ...by(looker, before),
      ...chosen(looker, own),
      ...chosen(other, changes),
      ...by(looker, after),
    ];
  });
}

/** Files and directories, of which an episode has two; and what is not there. */
const TURN_FILES = [FILE, OTHER];
const TURN_DIRECTORIES = [BELOW, "t"];
const ABSENT = "x";
const TURN_CHANGES: Partial<Readonly<Record<OperationName, number>>> = { rename: 1, link: 5, unlink: 3, rmdir: 1, mknod: 1, mkdir: 1 };
const TURNS = { minLength: 2, maxLength: 3 };

interface Turn {
  /** Null: the maker in the first turn, then another one than in the turn before. */
  readonly changer: number | null;
  readonly changes: Choices;
  readonly lookers: "none" | "changer" | "others" | "all";
  readonly looks: readonly Call[];
}

/**
 * Two names that stand for something else after each change, as of programs that save a file by a rename over the old one, or that exchange a directory for
 * its next version. Now and then only the node that changes has looked: then it has the lock for itself, and is told nothing anew.
 */
function turnsIn(dir: string, mounts: number): fc.Arbitrary<readonly Choice[]> {
  return fc.subarray([...TURN_FILES, ...TURN_DIRECTORIES], { minLength: 2, maxLength: 2 }).chain((two) => turnsOf(dir, two, mounts));
}

function turnsOf(dir: string, two: readonly string[], mounts: number): fc.Arbitrary<readonly Choice[]> {
  const at = (name: string): string => `${dir}/${name}`;
  const mount = fc.nat(mounts - 1);
  // A name in the other directory leaves those of this one valid.
  const path = fc.constantFrom(...two, ...two, ABSENT, ...(two.includes(BELOW) ? [`${BELOW}/${ABSENT}`] : [])).map(at);
  const where: Where = { path, slot: fc.constantFrom(FILE_SLOT, OTHER_SLOT), twoNames: fc.record({ from: path, to: path }) };
  const replaces = fc
    .tuple(fc.shuffledSubarray(two.map(at), { minLength: 2 }), fc.constantFrom<Rename["flags"]>([], ["EXCHANGE"]))
    .map(([[from = "", to = ""], flags]) => ({ from, to, flags }));
  const change = fc.oneof(
    { weight: 1, arbitrary: callsIn(where, TURN_CHANGES) },
    { weight: 1, arbitrary: replaces.map((args): Call => ({ op: "rename", args })) },
  );
  const names = [...two, ABSENT].map((name): Call => ({ op: "stat", args: { target: { path: at(name), follow: false } } }));
  const looking: readonly Call[] = [
    ...names,
    { op: "stat", args: { target: { slot: HELD_SLOT } } },
    { op: "readdir", args: { path: dir } },
  ];
  const looks = fc.shuffledSubarray([...looking], { minLength: 3 });
  const turn: fc.Arbitrary<Turn> = fc.record({
    changer: fc.oneof({ weight: 1, arbitrary: mount }, { weight: 3, arbitrary: fc.constant(null) }),
    changes: fc
      .array(fc.record({ user: fc.constant(ROOT_USER), call: change }), { minLength: CHOICE, maxLength: CHOICE })
      .map((one) => [one]),
    lookers: fc.constantFrom("none", "changer", "changer", "others", "others", "all"),
    looks,
  });
  const isFile = (name: string): boolean => TURN_FILES.includes(name);
  const building: readonly Call[] = [
    { op: "mkdir", args: { path: dir, mode: 0o777 } },
    ...two.map(
      (name): Call =>
        isFile(name)
          ? open(at(name), name === FILE ? FILE_SLOT : OTHER_SLOT, "made")
          : { op: "mkdir", args: { path: at(name), mode: 0o777 } },
    ),
  ];
  const drawn = fc.record({
    maker: mount,
    holder: fc.option(mount, { freq: 3 }),
    held: fc.constantFrom(...two),
    first: looks,
    turns: fc.array(turn, { ...TURNS, size: "max" }),
    last: fc.tuple(...Array.from({ length: mounts }, () => looks)),
  });
  return drawn.map(({ maker, holder, held, first, turns, last }) => {
    let next = maker;
    const turned = turns.flatMap(({ changer, changes, lookers, looks: look }) => {
      const one = changer ?? next;
      next = (one + 1) % mounts;
      return [...chosen(one, changes), ...lookersOf(lookers, one, mounts).flatMap((looker) => by(looker, look))];
    });
    return [
      ...by(maker, building),
      ...(holder === null ? [] : by(holder, [open(at(held), HELD_SLOT, isFile(held) ? "there" : "directory")])),
      ...by(holder ?? maker, first),
      ...turned,
      ...last.flatMap((look, one) => by(one, look)),
    ];
  });
}

function lookersOf(lookers: Turn["lookers"], changer: number, mounts: number): number[] {
  const all = Array.from({ length: mounts }, (_, one) => one);
  switch (lookers) {
    case "none":
      return [];
    case "changer":
      return [changer];
    case "others":
      return all.filter((one) => one !== changer);
    case "all":
      return all;
  }
}
