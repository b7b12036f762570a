/** Histories of several programs: those that a file system may have are accepted, in whatever way the calls meet; others are refused. */
import { describe, expect, it } from "vitest";
import { checkHistory, type History, type RecordedCall } from "../../model/at-once/check.ts";
import { ALL_NOT_ATOMIC, NOT_ATOMIC, type NotAtomic } from "../../model/at-once/not-atomic.ts";
import { finish, heldBy, type Made, newProgress, pinned, type Progress, unpinned, walkOn } from "../../model/at-once/steps.ts";
import type { Stat } from "../../model/attributes.ts";
import { type Call, type Outcome, step } from "../../model/file-system.ts";
import { Comparison } from "../../model/spec/compare.ts";
import { drawBurst } from "../../model/spec/draw-burst.ts";
import type { Made as Drawn, RealStat, TreeEntry } from "../../model/spec/executor.ts";
import { emptyState, type Ino, KINDS, ROOT, type State, type Time, USERS } from "../../model/state.ts";
import { statOf } from "../../model/attributes.ts";
import { Random } from "../../sim/random.ts";

const machine = { kernel: { protectedHardlinks: 1, protectedSymlinks: 1, protectedRegular: 2, protectedFifos: 1 }, kind: KINDS.ext4 };
const UMASK = 0o022;
const NS_OF_CALL = 1000;

/** A file system that is the model, with times and inode numbers of its own. */
class Pretended {
  state: State = emptyState();
  readonly calls: RecordedCall[] = [];
  #clock = 0;

  tick(): number {
    return ++this.#clock;
  }

  made({ user, mount, call }: Drawn, no: number): Made {
    return { call, caller: { user: USERS[user] ?? USERS[0], mount, umask: UMASK, call: no }, machine };
  }

  /** One call alone, from its begin to its end. */
  make(call: Call, mount = 0, user = 0): RecordedCall {
    const begin = this.tick();
    const no = this.calls.length;
    const done = step(this.state, call, this.made({ user, mount, call }, no).caller, machine);
    if (done === null) throw new Error("the model says nothing of it");
    this.state = done.state;
    return this.record(no, { user, mount, call }, done.outcome, begin, this.tick());
  }

  record(no: number, drawn: Drawn, outcome: Outcome | { errno: string }, begin: number, end: number): RecordedCall {
    const recorded = { drawn, answer: { ...answerOf(drawn.call, outcome), began: timeOf(no), ended: timeOf(no), begin, end } };
    this.calls[no] = recorded;
    return recorded;
  }

  history(state: State = this.state, calls: readonly RecordedCall[] = this.calls): History {
    const comparison = new Comparison(machine.kind);
    for (const no of calls.keys()) comparison.timed(no, { began: timeOf(no), ended: timeOf(no) });
    const trees = [0, 1].map((mount) => ({ mount, entries: treeOf(state) }));
    return { machine, umask: UMASK, before: emptyState(), calls, trees, comparison, firstCall: 0 };
  }
}

const timeOf = (call: number): string => String((call + 1) * NS_OF_CALL);
const ns = (time: Time): string => (time === null ? "0" : "exactNs" in time ? time.exactNs : timeOf(time.call));
const realStat = (stat: Stat): RealStat => ({
  ...stat,
  ino: stat.ino + 100,
  atime: ns(stat.atime),
  mtime: ns(stat.mtime),
  ctime: ns(stat.ctime),
});

function answerOf({ op }: Call, outcome: Outcome | { errno: string }): { value?: unknown; errno?: string } {
  if ("errno" in outcome) return outcome;
  return { value: op === "stat" ? realStat(outcome.value as Stat) : outcome.value };
}

function treeOf(state: State, ino: Ino = ROOT, path = "/"): TreeEntry[] {
  const inode = state.inodes.get(ino);
  if (inode === undefined) throw new Error(`no inode ${ino}`);
  const { type, data, target, xattrs, entries } = inode;
  const own: TreeEntry = {
    path,
    stat: realStat(statOf(inode)),
    xattrs: Object.fromEntries(xattrs),
    ...(type === "file" ? { data: Buffer.from(data).toString("latin1") } : {}),
    ...(type === "symlink" ? { target } : {}),
  };
  return [own, ...[...entries].flatMap(([name, below]) => treeOf(state, below, `${path === "/" ? "" : path}/${name}`))];
}

/** What the programs of a burst do, with each step of each call at any moment. */
function play(seed: number): Pretended {
  const random = new Random(seed);
  const { first, calls } = drawBurst(seed, 3, 5);
  const pretended = new Pretended();
  for (const { call, mount, user } of first) pretended.make(call, mount, user);
  const left = [0, 1, 2].map((program) => calls.filter(({ mount }) => mount === program));
  const under = new Map<
    number,
    { no: number; drawn: Drawn; begin: number; progress: Progress; outcome: Outcome | { errno: string } | null }
  >();
  for (let no = first.length; under.size > 0 || left.some(({ length }) => length > 0); ) {
    const program = random.int(3);
    const now = under.get(program);
    // Others make several calls between two steps of this one.
    if (now !== undefined && now.outcome === null && random.chance(0.8)) continue;
    const drawn = left[program]?.[0];
    if (now === undefined) {
      if (drawn === undefined) continue;
      left[program]?.shift();
      under.set(program, { no: no++, drawn, begin: pretended.tick(), progress: newProgress(drawn.call), outcome: null });
    } else if (now.outcome !== null) {
      pretended.record(now.no, now.drawn, now.outcome, now.begin, pretended.tick());
      under.delete(program);
    } else under.set(program, { ...now, ...oneStep(pretended, now, random.chance(0.3)) });
  }
  return pretended;
}

function oneStep(
  pretended: Pretended,
  { no, drawn, progress }: { no: number; drawn: Drawn; progress: Progress },
  atOnce: boolean,
): { progress: Progress; outcome: Outcome | { errno: string } | null } {
  const made = pretended.made(drawn, no);
  const next = atOnce ? null : walkOn(pretended.state, made, progress);
  if (next !== null && "errno" in next) {
    pretended.state = unpinned(pretended.state, no);
    return { progress, outcome: next };
  }
  if (next !== null) {
    pretended.state = pinned(pretended.state, no, heldBy(next));
    return { progress: next, outcome: null };
  }
  const done = finish(pretended.state, made, progress, no);
  if (done === null) throw new Error("the model says nothing of it");
  pretended.state = unpinned(done.state, no);
  return { progress, outcome: done.outcome };
}

describe("the steps of a call", () => {
  it("together do what the model does in one", () => {
    for (let seed = 1; seed <= 50; seed++) {
      const { first, calls } = drawBurst(seed, 3, 10);
      let state = emptyState();
      for (const [no, drawn] of [...first, ...calls].entries()) {
        const made = new Pretended().made(drawn, no);
        const whole = step(state, drawn.call, made.caller, machine);
        const parts = finish(state, made, newProgress(drawn.call), no);
        expect([drawn, parts?.outcome]).toEqual([drawn, whole?.outcome]);
        const byPath = (of: State | undefined): unknown =>
          treeOf(of ?? emptyState()).map((entry) => ({ ...entry, stat: { ...entry.stat, ino: 0 } }));
        expect([drawn, byPath(parts?.state)]).toEqual([drawn, byPath(whole?.state)]);
        state = whole?.state ?? state;
      }
    }
  });
});

describe("histories that may be", () => {
  it("are accepted, in whatever way the steps of their calls meet", () => {
    const needed: NotAtomic[] = [];
    for (let seed = 1; seed <= 300; seed++) {
      const verdict = checkHistory(play(seed).history());
      expect([seed, verdict.kind, verdict]).toEqual([seed, "linearizable", verdict]);
      if (verdict.kind === "linearizable") needed.push(...verdict.needed);
    }
    // The steps of calls did meet.
    expect(needed.length).toBeGreaterThan(0);
  });
});

describe("histories of calls one after the other", () => {
  /** Each shows, or leaves, what was before the last change that matters. */
  it("are refused if one answer is what it was before a change", () => {
    let refused = 0;
    for (let seed = 1; seed <= 60; seed++) {
      const { first, calls } = drawBurst(seed, 3, 6);
      const pretended = new Pretended();
      const states = [pretended.state];
      for (const { call, mount, user } of [...first, ...calls]) {
        pretended.make(call, mount, user);
        states.push(pretended.state);
      }
      expect(checkHistory(pretended.history()).kind).toBe("linearizable");
      for (let at = first.length; at < pretended.calls.length; at++) {
        const stale = staleAnswer(pretended, states, at);
        if (stale === null) continue;
        expect([seed, at, checkHistory(pretended.history(undefined, pretended.calls.with(at, stale))).kind]).toEqual([
          seed,
          at,
          "violation",
        ]);
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(20);
  });

  function staleAnswer({ calls }: Pretended, states: readonly State[], at: number): RecordedCall | null {
    const recorded = calls[at];
    const [before, stale] = [states[at], states[at - 1]];
    if (recorded === undefined || stale === undefined || before === undefined) return null;
    const made = new Pretended().made(recorded.drawn, at);
    const outcome = step(stale, made.call, made.caller, machine)?.outcome;
    if (outcome === undefined) return null;
    const answer = { ...recorded.answer, value: undefined, errno: undefined, ...answerOf(made.call, outcome) };
    const same = JSON.stringify([answer.value, answer.errno]) === JSON.stringify([recorded.answer.value, recorded.answer.errno]);
    // The access time is not compared.
    const blind = (value: unknown): string => JSON.stringify(value, (key, part: unknown) => (key === "atime" ? 0 : part)) ?? "";
    const { began, ended, begin, end, value, errno } = answer;
    const made2 = { began, ended, begin, end, ...(errno === undefined ? { value } : { errno }) };
    return same || blind(value) + errno === blind(recorded.answer.value) + recorded.answer.errno ? null : { ...recorded, answer: made2 };
  }

  it("are refused if a change is not there in the end", () => {
    const pretended = new Pretended();
    pretended.make({ op: "mkdir", args: { path: "d", mode: 0o777 } });
    const before = pretended.state;
    pretended.make({ op: "mknod", args: { path: "d/a", type: "file", mode: 0o644 } }, 1);
    expect(checkHistory(pretended.history()).kind).toBe("linearizable");
    expect(checkHistory(pretended.history(before))).toMatchObject({ kind: "violation", at: "tree" });
  });
});

/** Calls with the times of their begin and end. */
type Written = readonly [program: number, call: Call, begin: number, end: number, answer: Outcome | { errno: string }];

function judge(
  first: readonly Call[],
  written: readonly Written[],
  last: (pretended: Pretended) => void,
  allowed = ALL_NOT_ATOMIC,
): string {
  const pretended = new Pretended();
  for (const call of first) pretended.make(call);
  const before = pretended.state;
  const start = first.length;
  for (const [at, [mount, call, begin, end, outcome]] of written.entries()) {
    pretended.calls[start + at] = {
      drawn: { user: 0, mount, call },
      answer: {
        ...answerOf(call, outcome),
        began: timeOf(start + at),
        ended: timeOf(start + at),
        begin: 100 + begin,
        end: 100 + end,
      },
    };
  }
  const calls = [...pretended.calls];
  pretended.state = before;
  last(pretended);
  const verdict = checkHistory(pretended.history(pretended.state, calls), allowed);
  return verdict.kind === "linearizable" ? ["linearizable", ...verdict.needed].join(" ") : verdict.kind;
}

/** In the end it is as if these had been made in this order; a call has its place among all. */
const inOrder =
  (...calls: readonly (readonly [no: number, Call, program?: number])[]) =>
  (pretended: Pretended): void => {
    for (const [no, call, mount = 0] of calls) {
      const done = finish(pretended.state, pretended.made({ user: 0, mount, call }, no), newProgress(call), no);
      if (done !== null) pretended.state = done.state;
    }
  };

const done = { value: null };
const open = (path: string): Call => ({ op: "open", args: { path, access: "RDWR", flags: ["CREAT", "EXCL"], mode: 0o644, slot: 0 } });
const mkdir = (path: string): Call => ({ op: "mkdir", args: { path, mode: 0o755 } });
const rename = (from: string, to: string): Call => ({ op: "rename", args: { from, to, flags: [] } });
const readdir = (path: string): Call => ({ op: "readdir", args: { path } });
const chmod = (path: string, mode: number): Call => ({ op: "chmod", args: { target: { path, follow: true }, mode } });
const write = (letter: string): Call => ({ op: "write", args: { slot: 0, offset: 0, letter, length: 3 } });
const read: Call = { op: "read", args: { slot: 0, offset: 0, length: 3 } };

describe("two programs at once", () => {
  it("one of them makes a file with O_EXCL, not both", () => {
    const both = (second: { value: unknown } | { errno: string }): string =>
      judge(
        [],
        [
          [0, open("a"), 0, 9, done],
          [1, open("a"), 1, 8, second],
        ],
        inOrder([0, open("a")]),
      );
    expect([both({ errno: "EEXIST" }), both(done)]).toEqual(["linearizable", "violation"]);
  });

  it("a name may be seen before its call has returned, and must be seen after it", () => {
    const seen = (begin: number, end: number, names: string[]): string =>
      judge(
        [],
        [
          [0, mkdir("d"), 0, 5, done],
          [1, readdir("."), begin, end, { value: names }],
        ],
        inOrder([0, mkdir("d")]),
      );
    expect([seen(1, 2, []), seen(1, 2, ["directory d"]), seen(6, 7, ["directory d"])]).toEqual(Array(3).fill("linearizable"));
    expect(seen(6, 7, [])).toBe("violation");
  });

  it("nobody sees the old name once another has seen the new one", () => {
    const names = (first: string, second: string): string =>
      judge(
        [mkdir("a")],
        [
          [0, rename("a", "b"), 0, 9, done],
          [1, readdir("."), 1, 2, { value: [`directory ${first}`] }],
          [2, readdir("."), 3, 4, { value: [`directory ${second}`] }],
        ],
        inOrder([1, rename("a", "b")]),
      );
    expect([names("a", "a"), names("a", "b"), names("b", "b"), names("b", "a")]).toEqual([
      "linearizable",
      "linearizable",
      "linearizable",
      "violation",
    ]);
  });

  it("a lost rename is seen in the end", () => {
    expect(
      judge(
        [mkdir("a")],
        [
          [0, rename("a", "b"), 0, 9, done],
          [1, rename("b", "c"), 1, 8, done],
        ],
        inOrder([1, rename("a", "b")]),
      ),
    ).toBe("violation");
  });
});

describe("what Linux does not do in one moment", () => {
  const histories: Readonly<Record<NotAtomic, (allowed: ReadonlySet<NotAtomic>) => string>> = {
    // d is found, and is e when x is made in it.
    parts: (allowed) =>
      judge(
        [mkdir("d")],
        [
          [0, mkdir("d/x"), 0, 9, done],
          [1, rename("d", "e"), 1, 2, done],
          [1, readdir("e"), 3, 4, { value: [] }],
        ],
        inOrder([2, rename("d", "e"), 1], [1, mkdir("e/x")]),
        allowed,
      ),
    // a is found, and is b when its mode changes; the new a keeps its own.
    finds: (allowed) =>
      judge(
        [mkdir("a")],
        [
          [0, chmod("a", 0o700), 0, 9, done],
          [1, rename("a", "b"), 1, 2, done],
          [1, mkdir("a"), 3, 4, done],
          [
            1,
            { op: "stat", args: { target: { path: "b", follow: true } } },
            5,
            6,
            { value: { ...statOf(newA()), mode: 0o755, ctime: { call: 2 } } },
          ],
        ],
        inOrder([2, rename("a", "b"), 1], [3, mkdir("a"), 1], [1, chmod("b", 0o700)]),
        allowed,
      ),
    // One byte of the new ones, two of the old ones.
    looks: (allowed) =>
      judge(
        [open("a"), write("o")],
        [
          [0, write("n"), 0, 9, { value: 3 }],
          [0, read, 1, 8, { value: "noo" }],
        ],
        inOrder([2, write("n")]),
        allowed,
      ),
  };

  function newA(): Parameters<typeof statOf>[0] {
    const pretended = new Pretended();
    pretended.make(mkdir("a"));
    const found = [...pretended.state.inodes.values()].at(-1);
    if (found === undefined) throw new Error("no inode");
    return found;
  }

  it.each(NOT_ATOMIC.map(({ id }) => id))("%s: needed for a history, which is refused without it", (id) => {
    expect(histories[id](ALL_NOT_ATOMIC)).toBe(`linearizable ${id}`);
    expect(histories[id](new Set([...ALL_NOT_ATOMIC].filter((other) => other !== id)))).toBe("violation");
  });

  it("has its reason and its source", () => expect(NOT_ATOMIC.filter(({ reason, source }) => reason === "" || source === "")).toEqual([]));

  it("a read that nothing is beside is whole", () => {
    const mixed = judge(
      [open("a"), write("o")],
      [
        [0, write("n"), 0, 1, { value: 3 }],
        [0, read, 2, 3, { value: "noo" }],
      ],
      inOrder([2, write("n")]),
    );
    expect(mixed).toBe("violation");
  });
});
