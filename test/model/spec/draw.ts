/**
 * Random sequences: few names, few users, few handles, so that calls meet; a tree to begin with, and looks at what a call has changed, through
 * another mount before and after it. fast-check draws them; a seed gives them again.
 */
import * as fc from "fast-check";
import { type Call, type Step, step } from "../file-system.ts";
import type { Target } from "../attributes.ts";
import { emptyState, KINDS, type State, USERS } from "../state.ts";
import { anyPath, callsIn, SLOTS } from "./draw-calls.ts";
import { type Choice, episodeIn } from "./episode.ts";
import type { Made } from "./executor.ts";

/** Two names: often those of one file, which the beginning has made. */
const twoNames = fc.oneof(
  { weight: 4, arbitrary: fc.record({ from: anyPath, to: anyPath }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom({ from: "c", to: "b/c" }, { from: "a/a", to: "a/c" }, { from: "a/c", to: "a/a" }, { from: "d", to: "b/d" }),
  },
);
const call: fc.Arbitrary<Call> = callsIn({ path: anyPath, slot: fc.nat(SLOTS - 1), twoNames });

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

/** Episodes of a sequence, at most. */
const EPISODES = 6;
/** Without any, a sequence has the whole file system for its calls. */
const EPISODES_OF = { oneMount: 1, severalMounts: 6, of: 8 };

function episodes(mounts: number): fc.Arbitrary<readonly Choice[]> {
  const weight = mounts === 1 ? EPISODES_OF.oneMount : EPISODES_OF.severalMounts;
  const each = fc.tuple(...Array.from({ length: EPISODES }, (_, at) => episodeIn(`e${at}`, mounts)));
  const some = fc.tuple(fc.integer({ min: 1, max: EPISODES }), each).map(([count, drawn]) => drawn.slice(0, count).flat());
  return fc.oneof({ weight: EPISODES_OF.of - weight, arbitrary: fc.constant<readonly Choice[]>([]) }, { weight, arbitrary: some });
}

/** `mounts`: taken in turn, at random. With several, half of the changes are looked at through another one. */
export function drawSequence(seed: number, calls: number, mounts: number): Made[] {
  const user = fc.constantFrom(0, 1, 1, 2);
  const mount = fc.nat(mounts - 1);
  const made = fc.record({ user, mount, call });
  const looks =
    mounts === 1
      ? fc.constant(null)
      : fc.option(fc.record({ mount, how: fc.uniqueArray(fc.nat(LOOKS - 1), { minLength: 1, maxLength: 2 }) }), { freq: 2 });
  const beginning = fc
    .subarray([...BEGINNING])
    .chain((chosen) => fc.tuple(...chosen.map((one) => fc.record({ user: fc.constantFrom(ROOT_USER, 1), mount, call: fc.constant(one) }))));
  const crowd = fc.oneof({ weight: 5, arbitrary: fc.constant<readonly Call[]>([]) }, { weight: 1, arbitrary: fc.constant(CROWD) });
  const drawn = fc.record({
    episodes: episodes(mounts),
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
  const choose = (choice: Choice): Made | undefined => choice.find((one) => foresight.isMade(one)) ?? choice[0];
  for (const choice of sequence.episodes) {
    const chosen = choose(choice);
    if (chosen !== undefined) add({ made: chosen, looks: null });
  }
  // The episodes have names of their own.
  for (const one of [...sequence.first, ...crowded]) add({ made: one, looks: null });
  for (const { any, choice, looks: looked } of sequence.rest) {
    if (drawnCalls.length >= calls) break;
    const chosen = any === 0 ? choice[0] : choose(choice);
    if (chosen !== undefined) add({ made: chosen, looks: looked });
  }
  return drawnCalls.slice(0, calls);
}
