/**
 * A part of a sequence in a directory of its own, which nobody has fought over: so a node keeps what it has been told of the names in it. One program
 * makes it, another one looks and holds open, one of them changes something, and the second one looks again, by name and through what it holds.
 */
import * as fc from "fast-check";
import type { Target } from "../attributes.ts";
import type { Call, OperationName } from "../file-system.ts";
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
/** Names of the file, another file, a symbolic link, a directory, and what is not there. */
const NAMES = [FILE, "g", `${BELOW}/g`, OTHER, LINK, BELOW, "x", `${BELOW}/x`];

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
  const drawn = fc.constantFrom(...NAMES).chain((focus) => drawnAround(dir, focus, mounts));
  return drawn.map(({ maker, looker, changer, built, before, own, changes, after }) => {
    const by = (one: number, calls: readonly Call[]): Choice[] => calls.map((call) => [{ user: ROOT_USER, mount: one, call }]);
    const chosen = (one: number, from: Choices): Choice[] => from.map((each) => each.map((some) => ({ ...some, mount: one })));
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
