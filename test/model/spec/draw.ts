/**
 * Random sequences: few names, few users, few handles, so that calls meet; a tree to begin with, and looks at what a call has changed, through
 * another mount before and after it. fast-check draws them; a seed gives them again.
 */
import * as fc from "fast-check";
import { type Call, type OperationName, type Step, step } from "../file-system.ts";
import type { Target } from "../attributes.ts";
import type { Rename } from "../names.ts";
import type { Open, OpenFlag } from "../open.ts";
import { emptyState, KINDS, type State, USERS } from "../state.ts";
import type { Made } from "./executor.ts";

const SLOTS = 4;
const EMPTY_NAME_WEIGHT = 1;
const name = fc.constantFrom("a", "b", "c", "d");
const odd = fc.constantFrom(".", "..", "n".repeat(255), "n".repeat(256));
const part = fc.oneof({ weight: 40, arbitrary: name }, { weight: 1, arbitrary: odd });
const parts = fc.oneof(
  { weight: 5, arbitrary: fc.tuple(part) },
  { weight: 5, arbitrary: fc.tuple(part, part) },
  { weight: 1, arbitrary: fc.tuple(part, part, part) },
);
const ordinary = fc
  .tuple(parts, fc.nat(29), fc.nat(29))
  .map(([words, slash, root]) => `${root === 0 ? "/" : ""}${words.join("/")}${slash === 0 ? "/" : ""}`);
const path = fc.oneof(
  { weight: 80, arbitrary: ordinary },
  { weight: EMPTY_NAME_WEIGHT, arbitrary: fc.constantFrom("", "/", "/..", `${"a/".repeat(2100)}a`) },
);
const slot = fc.nat(SLOTS - 1);
const mode = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(0o755, 0o777, 0o644, 0o666, 0o600, 0o700) },
  { weight: 4, arbitrary: fc.constantFrom(0o1777, 0o2777, 0o2755, 0o4755, 0o6777, 0o2666, 0o6755, 0o4711, 0o1775) },
  { weight: 2, arbitrary: fc.nat(0o7777) },
);
const position = fc.constantFrom(0, 0, 1, 7, 4095, 4096, 4097, 8192, 10_000, 12_288);
const length = fc.constantFrom(0, 1, 5, 100, 4096, 5000, 9000);
const signed = fc.oneof({ weight: 12, arbitrary: position }, { weight: 1, arbitrary: fc.constant(-1) });
const offset = fc.oneof({ weight: 1, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: signed });
const target: fc.Arbitrary<Target> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ path, follow: fc.constant(true) }) },
  { weight: 1, arbitrary: fc.record({ path, follow: fc.constant(false) }) },
  { weight: 1, arbitrary: fc.record({ slot }) },
);
/** chmod(2) follows. */
const followed: fc.Arbitrary<Target> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ path, follow: fc.constant(true) }) },
  { weight: 1, arbitrary: fc.record({ slot }) },
);
const access = fc.constantFrom<Open["access"]>("RDONLY", "WRONLY", "RDWR", "RDWR");
const flag = fc.constantFrom<OpenFlag>("CREAT", "CREAT", "CREAT", "EXCL", "TRUNC", "APPEND", "DIRECTORY", "NOFOLLOW", "NOATIME");
// O_EXCL without O_CREAT is not specified: open(2).
const flags = fc
  .uniqueArray(flag, { maxLength: 3 })
  .map((drawn) => (drawn.includes("EXCL") && !drawn.includes("CREAT") ? [...drawn, "CREAT" as const] : drawn));
const attribute = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom("user.a", "user.b") },
  { weight: 1, arbitrary: fc.constantFrom("trusted.t", "user.", "nothing.x", "", `user.${"n".repeat(251)}`) },
);
const id = fc.constantFrom(-1, 0, 1001, 1002);
const group = fc.constantFrom(-1, 0, 1001, 1002, 2000);
const ns = fc.constantFrom("1000000000123456789", "0", "1500000000000000000", "2000000000999999999");

/** Two names: often those of one file, which the beginning has made. */
const twoNames = fc.oneof(
  { weight: 4, arbitrary: fc.record({ from: path, to: path }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom({ from: "c", to: "b/c" }, { from: "a/a", to: "a/c" }, { from: "a/c", to: "a/a" }, { from: "d", to: "b/d" }),
  },
);

type Draw<N extends OperationName> = fc.Arbitrary<Extract<Call, { op: N }>["args"]>;
const CALLS: { readonly [N in OperationName]: readonly [weight: number, draw: Draw<N>] } = {
  open: [12, fc.record({ path, access, flags, mode, slot })],
  close: [2, fc.record({ slot })],
  read: [4, fc.record({ slot, offset, length })],
  write: [7, fc.record({ slot, offset, letter: fc.constantFrom("x", "y", "z"), length })],
  lseek: [2, fc.record({ slot, offset: fc.constantFrom(0, 5, 4096, -3), whence: fc.constantFrom("SET", "CUR", "END") })],
  seek_data: [1, fc.record({ slot, offset: signed, what: fc.constantFrom("DATA", "HOLE") })],
  truncate: [3, fc.record({ path, length: fc.oneof({ weight: 20, arbitrary: signed }, { weight: 1, arbitrary: fc.constant(2 ** 62) }) })],
  ftruncate: [2, fc.record({ slot, length: signed })],
  fallocate: [
    3,
    fc.record({
      slot,
      mode: fc.constantFrom([], ["KEEP_SIZE"], ["KEEP_SIZE", "PUNCH_HOLE"], ["ZERO_RANGE"], ["KEEP_SIZE", "ZERO_RANGE"], ["PUNCH_HOLE"]),
      offset: signed,
      length,
    }),
  ],
  copy_file_range: [3, fc.record({ from: slot, fromOffset: position, to: slot, toOffset: position, length })],
  fsync: [1, fc.record({ slot, dataOnly: fc.boolean() })],
  stat: [8, fc.record({ target })],
  chmod: [6, fc.record({ target: followed, mode })],
  chown: [5, fc.record({ target, uid: id, gid: group })],
  utimens: [3, fc.record({ target, times: fc.option(fc.record({ atimeNs: ns, mtimeNs: ns })) })],
  access: [2, fc.record({ path, mask: fc.nat(7) })],
  readlink: [2, fc.record({ path })],
  readdir: [3, fc.record({ path })],
  getdents: [1, fc.record({ slot })],
  mkdir: [8, fc.record({ path, mode })],
  mknod: [2, fc.record({ path, type: fc.constantFrom("file", "fifo", "socket", "char"), mode })],
  symlink: [4, fc.record({ target: path, path })],
  link: [6, twoNames],
  unlink: [4, fc.record({ path })],
  rmdir: [3, fc.record({ path })],
  rename: [
    8,
    fc
      .tuple(twoNames, fc.constantFrom<Rename["flags"]>([], [], [], ["NOREPLACE"], ["EXCHANGE"], ["NOREPLACE", "EXCHANGE"]))
      .map(([two, flags]) => ({ ...two, flags })),
  ],
  setxattr: [
    4,
    fc.record({
      target,
      name: attribute,
      value: fc.constantFrom("", "v", "value".repeat(20)),
      flag: fc.constantFrom(null, null, "CREATE", "REPLACE"),
    }),
  ],
  getxattr: [2, fc.record({ target, name: attribute })],
  listxattr: [1, fc.record({ target })],
  removexattr: [2, fc.record({ target, name: attribute })],
};

const call: fc.Arbitrary<Call> = fc.oneof(
  ...Object.entries(CALLS).map(([op, [weight, args]]) => ({
    weight,
    arbitrary: (args as fc.Arbitrary<unknown>).map((drawn) => ({ op, args: drawn }) as Call),
  })),
);

const ROOT_USER = 0;
const at = (words: string): Target => ({ path: words, follow: true });
/** What a part of it stands for is known to most of the calls that follow. */
const BEGINNING: readonly Call[] = [
  { op: "mkdir", args: { path: "a", mode: 0o777 } },
  { op: "mkdir", args: { path: "b", mode: 0o777 } },
  { op: "mkdir", args: { path: "a/b", mode: 0o777 } },
  { op: "open", args: { path: "c", access: "RDWR", flags: ["CREAT"], mode: 0o666, slot: 0 } },
  { op: "write", args: { slot: 0, offset: 0, letter: "w", length: 5000 } },
  { op: "open", args: { path: "a/a", access: "RDWR", flags: ["CREAT"], mode: 0o666, slot: 1 } },
  { op: "chmod", args: { target: at("a/a"), mode: 0o6777 } },
  { op: "link", args: { from: "c", to: "b/c" } },
  { op: "link", args: { from: "a/a", to: "a/c" } },
  { op: "symlink", args: { target: "c", path: "d" } },
  { op: "link", args: { from: "d", to: "b/d" } },
  { op: "setxattr", args: { target: at("c"), name: "user.a", value: "v", flag: null } },
  { op: "setxattr", args: { target: at("c"), name: "trusted.t", value: "v", flag: null } },
];
/** More long names than one answer to a listing has room for. */
const CROWD: readonly Call[] = [
  { op: "mkdir", args: { path: "a", mode: 0o777 } },
  ...Array.from(
    { length: 32 },
    (_, number): Call => ({ op: "mknod", args: { path: `a/${String(number).padStart(240, "n")}`, type: "file", mode: 0o644 } }),
  ),
  { op: "readdir", args: { path: "a" } },
];

const LOOK_SLOT: number = SLOTS;

/** By `mount:slot`: the path with which it was opened last. */
type Opened = Map<string, string>;

/** Paths that a call names, or that it was opened with, as far as they are short. */
function pathsOf({ mount, call: { args } }: Made, opened: Opened): readonly string[] {
  const found: (string | undefined)[] = [];
  if ("path" in args) found.push(args.path);
  else if ("slot" in args) found.push(opened.get(`${mount}:${args.slot}`));
  if ("from" in args) {
    if (typeof args.from === "string") found.push(args.from, String(args.to));
    else found.push(opened.get(`${mount}:${args.to}`));
  }
  if ("target" in args && typeof args.target === "object") {
    found.push("path" in args.target ? args.target.path : opened.get(`${mount}:${args.target.slot}`));
  }
  return found.filter((words) => words !== undefined && words !== "" && words.length < 40) as string[];
}

/** The directory of a path that has one, else the root. */
const parentOf = (words: string): string => (words.includes("/", 1) ? words.replace(/\/+[^/]*\/*$/, "") || "/" : "/");

const LOOKS = 5;

/** What shows whether a node has kept something: of the file that a path names, or of its directory. */
function lookAt(words: string, how: number): readonly Call[] {
  if (how === 0) return [{ op: "readdir", args: { path: parentOf(words) } }];
  if (how === 1) return [{ op: "stat", args: { target: at(parentOf(words)) } }];
  if (how === 2) return [{ op: "stat", args: { target: { path: words, follow: false } } }];
  if (how === 3) return [{ op: "stat", args: { target: at(words) } }];
  return [
    { op: "open", args: { path: words, access: "RDONLY", flags: [], mode: 0, slot: LOOK_SLOT } },
    { op: "read", args: { slot: LOOK_SLOT, offset: 0, length: 9000 } },
    { op: "close", args: { slot: LOOK_SLOT } },
  ];
}

interface Drawn {
  readonly made: Made;
  /** Another mount looks, in some of these ways, before and after the call; null: none does. */
  readonly looks: { readonly mount: number; readonly how: readonly number[] } | null;
}

function withLooks({ made, looks }: Drawn, opened: Opened): Made[] {
  const { mount, call: one } = made;
  const paths = looks === null ? [] : pathsOf(made, opened);
  if (one.op === "open") opened.set(`${mount}:${one.args.slot}`, one.args.path);
  if (looks === null || paths.length === 0) return [made];
  const looked = paths.flatMap((words) =>
    looks.how.flatMap((how) => lookAt(words, how).map((look): Made => ({ user: ROOT_USER, mount: looks.mount, call: look }))),
  );
  return [...looked, made, ...looked];
}

/** Of so many calls that are drawn for a place, the first one that is not refused is taken, most times: else nearly all are. */
const CHOICE = 4;
const MACHINE = { kernel: { protectedHardlinks: 1, protectedSymlinks: 1, protectedRegular: 1, protectedFifos: 1 }, kind: KINDS.ext4 };

/** The state so far, as far as it matters for a choice. */
class Foresight {
  #state: State = emptyState();

  #step({ user, mount, call: one }: Made): Step | null {
    return step(this.#state, one, { user: USERS[user] ?? USERS[0], mount, umask: 0o022, call: 0 }, MACHINE);
  }

  isMade(made: Made): boolean {
    const next = this.#step(made);
    return next !== null && "value" in next.outcome;
  }

  after(made: Made): void {
    this.#state = this.#step(made)?.state ?? this.#state;
  }
}

/** `mounts`: taken in turn, at random. With several, half of the changes are looked at through another one. */
export function drawSequence(seed: number, calls: number, mounts: number): Made[] {
  const user = fc.constantFrom(0, 1, 1, 2);
  const mount = fc.nat(mounts - 1);
  const made = fc.record({ user, mount, call });
  const looks =
    mounts === 1
      ? fc.constant(null)
      : fc.option(fc.record({ mount, how: fc.uniqueArray(fc.nat(LOOKS - 1), { minLength: 1, maxLength: 2 }) }), { freq: 1 });
  const beginning = fc
    .subarray([...BEGINNING])
    .chain((chosen) => fc.tuple(...chosen.map((one) => fc.record({ user: fc.constantFrom(ROOT_USER, 1), mount, call: fc.constant(one) }))));
  const crowd = fc.oneof({ weight: 5, arbitrary: fc.constant<readonly Call[]>([]) }, { weight: 1, arbitrary: fc.constant(CROWD) });
  const drawn = fc.record({
    first: fc.oneof({ weight: 1, arbitrary: fc.constant<Made[]>([]) }, { weight: 4, arbitrary: beginning }),
    crowd: fc.tuple(mount, crowd),
    rest: fc.array(fc.record({ any: fc.nat(3), choice: fc.tuple(...Array.from({ length: CHOICE }, () => made)), looks }), {
      minLength: calls,
      maxLength: calls,
      size: "max",
    }),
  });
  const [sequence] = fc.sample(drawn, { seed, numRuns: 1 });
  if (sequence === undefined) return [];
  const crowded = sequence.crowd[1].map((one): Made => ({ user: ROOT_USER, mount: sequence.crowd[0], call: one }));
  const opened: Opened = new Map();
  const foresight = new Foresight();
  const drawnCalls: Made[] = [];
  const add = (one: Drawn): void => {
    for (const each of withLooks(one, opened)) {
      foresight.after(each);
      drawnCalls.push(each);
    }
  };
  for (const one of [...sequence.first, ...crowded]) add({ made: one, looks: null });
  for (const { any, choice, looks: looked } of sequence.rest) {
    if (drawnCalls.length >= calls) break;
    const [first] = choice;
    const chosen = any === 0 ? first : (choice.find((one) => foresight.isMade(one)) ?? first);
    if (chosen !== undefined) add({ made: chosen, looks: looked });
  }
  return drawnCalls.slice(0, calls);
}
