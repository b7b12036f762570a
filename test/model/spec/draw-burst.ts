/** Bursts: a small tree, and a few calls of each program at once. Names are few, so that calls meet. A seed gives them again. */
import * as fc from "fast-check";
import type { Target } from "../attributes.ts";
import type { Call, OperationName } from "../file-system.ts";
import type { Rename } from "../names.ts";
import type { OpenFlag } from "../open.ts";
import type { Made } from "./executor.ts";

export interface Burst {
  /** One after the other, before all others. `mount` is a program here and below. */
  readonly first: readonly Made[];
  readonly calls: readonly Made[];
}

const SLOTS = 2;
const name = fc.constantFrom("a", "b", "c");
/** Of one or two parts: what not-atomic.ts says of paths needs no more. */
const path = fc.oneof(
  { weight: 3, arbitrary: name },
  { weight: 3, arbitrary: fc.tuple(fc.constantFrom("d", "e"), name).map((parts) => parts.join("/")) },
  { weight: 1, arbitrary: fc.constantFrom("d", "e", "d/e", "s", "s/a") },
);
const slot = fc.nat(SLOTS - 1);
const mode = fc.constantFrom(0o755, 0o777, 0o644, 0o666, 0o600, 0o700, 0o4755);
/** Within one page: of a write of several pages a read may see some (not-atomic.ts "looks"), and a size in between. */
const position = fc.constantFrom(0, 0, 1, 7, 100);
const length = fc.constantFrom(1, 5, 100);
const target: fc.Arbitrary<Target> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ path, follow: fc.constant(true) }) },
  { weight: 1, arbitrary: fc.record({ path, follow: fc.constant(false) }) },
  { weight: 1, arbitrary: fc.record({ slot }) },
);
const followed: fc.Arbitrary<Target> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ path, follow: fc.constant(true) }) },
  { weight: 1, arbitrary: fc.record({ slot }) },
);
const attribute = fc.constantFrom("user.a", "user.b");
const id = fc.constantFrom(0, 1001, 1002);

type Draw<N extends OperationName> = fc.Arbitrary<Extract<Call, { op: N }>["args"]>;
/**
 * Not drawn: what has a position of its own in a handle (lseek, read and write without an offset), which no other program sees; getdents,
 * seek_data, fallocate, copy_file_range, which the sequences of one program try; what is refused before any path is looked up.
 */
const CALLS: Table = {
  open: [
    8,
    fc.record({
      path,
      access: fc.constantFrom("RDONLY", "RDWR", "RDWR"),
      flags: fc.constantFrom(
        [],
        ["CREAT"],
        ["CREAT"],
        ["CREAT", "EXCL"],
        ["CREAT", "EXCL"],
        ["TRUNC"],
        ["CREAT", "TRUNC"],
        ["CREAT", "APPEND"],
      ),
      mode,
      slot,
    }),
  ],
  close: [1, fc.record({ slot })],
  read: [4, fc.record({ slot, offset: position, length })],
  write: [7, fc.record({ slot, offset: position, letter: fc.constantFrom("x", "y", "z"), length })],
  truncate: [2, fc.record({ path, length: position })],
  ftruncate: [2, fc.record({ slot, length: position })],
  fsync: [1, fc.record({ slot, dataOnly: fc.boolean() })],
  stat: [10, fc.record({ target })],
  chmod: [4, fc.record({ target: followed, mode })],
  chown: [2, fc.record({ target, uid: id, gid: id })],
  utimens: [
    1,
    fc.record({ target, times: fc.option(fc.record({ atimeNs: fc.constant("0"), mtimeNs: fc.constant("1500000000000000000") })) }),
  ],
  access: [1, fc.record({ path, mask: fc.nat(7) })],
  readlink: [1, fc.record({ path: fc.oneof(fc.constant("s"), path) })],
  readdir: [4, fc.record({ path: fc.constantFrom(".", "d", "e") })],
  mkdir: [6, fc.record({ path, mode })],
  mknod: [1, fc.record({ path, type: fc.constant("file" as const), mode })],
  symlink: [2, fc.record({ target: name, path })],
  link: [5, fc.record({ from: path, to: path })],
  unlink: [6, fc.record({ path })],
  rmdir: [4, fc.record({ path })],
  rename: [10, fc.record({ from: path, to: path, flags: fc.constantFrom([], [], ["NOREPLACE"], ["EXCHANGE"]) })],
  setxattr: [
    3,
    fc.record({ target: followed, name: attribute, value: fc.constantFrom("v", "w"), flag: fc.constantFrom(null, "CREATE", "REPLACE") }),
  ],
  getxattr: [2, fc.record({ target: followed, name: attribute })],
  listxattr: [1, fc.record({ target: followed })],
  removexattr: [1, fc.record({ target: followed, name: attribute })],
};

type Table = { readonly [N in OperationName]?: readonly [weight: number, draw: Draw<N>] };

function anyOf(table: Table): fc.Arbitrary<Call> {
  return fc.oneof(
    ...Object.entries(table).map(([op, [weight, args]]) => ({
      weight,
      arbitrary: (args as fc.Arbitrary<unknown>).map((drawn) => ({ op, args: drawn }) as Call),
    })),
  );
}

const root = (mount: number, one: Call): Made => ({ user: 0, mount, call: one });

/** What is there before: two directories, a file in each place that is drawn, a link; and each program has one of the files open. */
const beginning = (programs: number): fc.Arbitrary<Made[]> => {
  const directories = ["d", "e"].map((at) => root(0, { op: "mkdir", args: { path: at, mode: 0o777 } }));
  const opened = fc.constantFrom("a", "b", "d/a", "d/b", "e/a");
  const opens = fc.tuple(
    ...Array.from({ length: programs }, (_, mount) =>
      opened.map((at) => root(mount, { op: "open", args: { path: at, access: "RDWR", flags: ["CREAT"], mode: 0o666, slot: 0 } })),
    ),
  );
  const contents = fc.constantFrom<Call>(
    { op: "write", args: { slot: 0, offset: 0, letter: "w", length: 5 } },
    { op: "write", args: { slot: 0, offset: 100, letter: "w", length: 100 } },
    { op: "mkdir", args: { path: "d/e", mode: 0o777 } },
    { op: "symlink", args: { target: "d", path: "s" } },
    { op: "symlink", args: { target: "a", path: "s" } },
    { op: "link", args: { from: "a", to: "d/c" } },
    { op: "setxattr", args: { target: { slot: 0 }, name: "user.a", value: "v", flag: null } },
  );
  return fc
    .tuple(opens, fc.array(contents, { maxLength: 5 }))
    .map(([open, more]) => [...directories, ...open, ...more.map((one) => root(0, one))]);
};

/** Names that nothing else has, in any burst: a node may remember of a program which name it has lost before. */
const LOCKS = ["d/lock", "d/lock2"];

/** What programs do at once. */
interface Fray {
  readonly weight: number;
  readonly first: (programs: number) => fc.Arbitrary<Made[]>;
  readonly call: fc.Arbitrary<Pick<Made, "user" | "call">>;
}

const byAnyone = (call: fc.Arbitrary<Call>): Fray["call"] => fc.record({ user: fc.constantFrom(0, 0, 1), call });

const anything: Fray = { weight: 4, first: beginning, call: byAnyone(anyOf(CALLS)) };

/** All append to one file, and some look at what there is by then. */
const appends: Fray = {
  weight: 1,
  first: (programs) =>
    fc.constant(
      Array.from({ length: programs }, (_, mount) =>
        root(mount, { op: "open", args: { path: "a", access: "RDWR", flags: ["CREAT", "APPEND"], mode: 0o666, slot: 0 } }),
      ),
    ),
  call: byAnyone(
    anyOf({
      write: [6, fc.record({ slot: fc.constant(0), offset: position, letter: fc.constantFrom("x", "y", "z"), length })],
      read: [1, fc.record({ slot: fc.constant(0), offset: position, length })],
      stat: [1, fc.record({ target: fc.constantFrom<Target>({ slot: 0 }, { path: "a", follow: true }) })],
      ftruncate: [1, fc.record({ slot: fc.constant(0), length: position })],
    }),
  ),
};

/** Locks that are files: each makes a name and removes it again and again, when all have seen that it is not there. */
const locks: Fray = {
  weight: 2,
  first: (programs) =>
    fc.constant([
      root(0, { op: "mkdir", args: { path: "d", mode: 0o777 } }),
      root(0, { op: "mknod", args: { path: "a", type: "file", mode: 0o666 } }),
      ...Array.from({ length: programs }, (_, mount) =>
        LOCKS.map((path) => root(mount, { op: "stat", args: { target: { path, follow: false } } })),
      ).flat(),
    ]),
  call: ((): Fray["call"] => {
    const path = fc.constantFrom(...LOCKS);
    const flags = fc.constantFrom<OpenFlag[]>(["CREAT", "EXCL"], ["CREAT", "EXCL"], ["CREAT", "EXCL"], ["CREAT"]);
    const any = anyOf({
      open: [7, fc.record({ path, access: fc.constant("RDWR"), flags, mode: fc.constant(0o666), slot })],
      link: [1, fc.record({ from: fc.constant("a"), to: path })],
      unlink: [5, fc.record({ path })],
      stat: [1, fc.record({ target: path.map((at): Target => ({ path: at, follow: false })) })],
    });
    return any.map((call) => ({ user: 0, call }));
  })(),
};

/**
 * A sticky directory: only its owner removes a file, and another program has put another one under that name by then. All have looked, so nobody asks again
 * before it removes a name.
 */
const sticky: Fray = {
  weight: 2,
  first: (programs) => {
    const byOwner = (call: Call): Made => ({ user: 1, mount: 0, call });
    const file = (path: string): Call => ({ op: "mknod", args: { path, type: "file", mode: 0o666 } });
    const looks = Array.from({ length: programs }, (_, mount) =>
      ["t/a", "t/b", "t/d"].map((path) => root(mount, { op: "stat", args: { target: { path, follow: false } } })),
    );
    return fc.constant([
      root(0, { op: "mkdir", args: { path: "t", mode: 0o777 } }),
      root(0, { op: "chmod", args: { target: { path: "t", follow: true }, mode: 0o1777 } }),
      byOwner(file("t/a")),
      byOwner(file("t/b")),
      byOwner({ op: "mkdir", args: { path: "t/d", mode: 0o777 } }),
      ...["t/x", "t/y"].map((path) => root(0, file(path))),
      root(0, { op: "mkdir", args: { path: "t/e", mode: 0o777 } }),
      ...looks.flat(),
    ]);
  },
  call: ((): Fray["call"] => {
    const file = fc.constantFrom("t/a", "t/b");
    const other = fc.constantFrom("t/x", "t/y");
    const directory = fc.constant("t/d");
    const flags = fc.constantFrom<Rename["flags"]>([], [], ["EXCHANGE"]);
    const removes = anyOf({ unlink: [4, fc.record({ path: file })], rmdir: [1, fc.record({ path: directory })] });
    const replaces = anyOf({
      rename: [
        6,
        fc.oneof(
          { weight: 3, arbitrary: fc.record({ from: other, to: file, flags }) },
          { weight: 1, arbitrary: fc.record({ from: fc.constant("t/e"), to: directory, flags }) },
        ),
      ],
      mknod: [2, fc.record({ path: file, type: fc.constant("file" as const), mode: fc.constant(0o666) })],
      mkdir: [1, fc.record({ path: directory, mode: fc.constant(0o777) })],
      link: [1, fc.record({ from: other, to: file })],
    });
    const looks = anyOf({ stat: [1, fc.record({ target: file.map((path): Target => ({ path, follow: false })) })] });
    return fc.oneof(
      { weight: 3, arbitrary: fc.record({ user: fc.constant(1), call: removes }) },
      { weight: 3, arbitrary: fc.record({ user: fc.constant(0), call: replaces }) },
      { weight: 1, arbitrary: byAnyone(fc.oneof(removes, replaces, looks)) },
    );
  })(),
};

export function drawBurst(seed: number, programs: number, ops: number): Burst {
  const drawn = fc.oneof(
    ...[anything, appends, locks, sticky].map((fray) => {
      const { weight, first, call } = fray;
      const made = (mount: number): fc.Arbitrary<Made> => call.map((one) => ({ ...one, mount }));
      // All of them meet: with more, there are too many orders.
      const each = fray === anything ? ops : Math.ceil(ops / 2);
      const ofEach = Array.from({ length: programs }, (_, at) => fc.array(made(at), { minLength: each, maxLength: each, size: "max" }));
      const arbitrary = fc.tuple(first(programs), fc.tuple(...ofEach)).map(([before, all]) => ({ first: before, calls: all.flat() }));
      return { weight, arbitrary };
    }),
  );
  const [burst] = fc.sample(drawn, { seed, numRuns: 1 });
  if (burst === undefined) throw new Error("no burst was drawn");
  return burst;
}
