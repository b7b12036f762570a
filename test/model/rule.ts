/** How an operation is written down: refusals in the order in which Linux makes them, then what holds after the call. */
import type { World } from "./world.ts";

export type Errno =
  | "E2BIG"
  | "EACCES"
  | "EBADF"
  | "EBUSY"
  | "EEXIST"
  | "EFBIG"
  | "EINVAL"
  | "EISDIR"
  | "ELOOP"
  | "ENAMETOOLONG"
  | "ENODATA"
  | "ENODEV"
  | "ENOENT"
  | "ENOTDIR"
  | "ENOTEMPTY"
  | "ENXIO"
  | "EOPNOTSUPP"
  | "EPERM"
  | "ERANGE"
  | "ESPIPE";

/** A reason to refuse a call, or something that holds after one. */
export interface Rule {
  /** `operation: words`, unique. */
  readonly id: string;
  /** "holds": a postcondition. */
  readonly errno: Errno | "holds";
  /** The page or the function that has it. */
  readonly source: string;
}

/** A call that a rule refuses: no effect, this errno. */
export class Refusal extends Error {
  readonly rule: Rule;
  readonly errno: Errno;
  constructor(rule: Rule) {
    super(rule.id);
    this.rule = rule;
    this.errno = rule.errno as Errno;
  }
}

/** A call of which the model says nothing, so it is not made. Each has its reason. */
export class Unspecified extends Error {}

export interface Refuse<C, A> extends Rule {
  readonly when: (given: C, args: A, world: World) => boolean;
}

export interface Definition<A, C> {
  readonly name: string;
  /** The manual page, and the function of the kernel that makes the refusals. */
  readonly source: string;
  /** Looked at before any path is walked. */
  readonly first?: readonly Refuse<null, A>[];
  /** What the call works on. Its walk of a path refuses by the rules of path.ts. */
  readonly given: (world: World, args: A) => C;
  readonly refusals: readonly Refuse<C, A>[];
  /** What holds after it, and what it gives. */
  readonly effect: (given: C, args: A, world: World) => unknown;
  /** What `effect` may say beyond its plain case. */
  readonly clauses?: readonly Rule[];
}

export interface Operation<A> {
  readonly name: string;
  readonly source: string;
  readonly rules: readonly Rule[];
  readonly run: (world: World, args: A) => unknown;
}

/** `words` begin with the name of the operation. */
export function refuse<C, A>(errno: Errno, words: string, source: string, when: Refuse<C, A>["when"]): Refuse<C, A> {
  return { id: words, errno, source, when };
}

export function holds(words: string, source: string): Rule {
  return { id: words, errno: "holds", source };
}

export function operation<A, C>(definition: Definition<A, C>): Operation<A> {
  const { name, source, first = [], given, refusals, effect, clauses = [] } = definition;
  const done = holds(`${name}: it is done`, source);
  return {
    name,
    source,
    rules: [...first, ...refusals, ...clauses, done],
    run(world, args) {
      for (const rule of first) if (rule.when(null, args, world)) throw new Refusal(rule);
      const subject = given(world, args);
      for (const rule of refusals) if (rule.when(subject, args, world)) throw new Refusal(rule);
      const value = effect(subject, args, world);
      world.reach(done);
      return value;
    },
  };
}
