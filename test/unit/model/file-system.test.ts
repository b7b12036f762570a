/** The model of a file system, on what no random sequence says in words: order of refusals, states that stay as they were. */
import { expect, it } from "vitest";
import { allRules, type Call, OPERATIONS, type Outcome, step } from "../../model/file-system.ts";
import { foresee, newTally } from "../../model/spec/sequence.ts";
import { coverlayOver, emptyState, type Kind, KINDS, type State, USERS } from "../../model/state.ts";

const kernel = { protectedHardlinks: 1, protectedSymlinks: 1, protectedRegular: 2, protectedFifos: 1 };
const [root, alice, bob] = USERS;

class Session {
  state: State = emptyState();
  #calls = 0;
  make<Op extends Call["op"]>(user: (typeof USERS)[number], op: Op, args: Extract<Call, { op: Op }>["args"], kind = KINDS.ext4): Outcome {
    const next = step(this.state, { op, args } as Call, { user, mount: 0, umask: 0o022, call: this.#calls++ }, { kernel, kind });
    if (next === null) throw new Error("the model says nothing of it");
    this.state = next.state;
    return next.outcome;
  }
}

it("each rule has its source, and a name that no other one has", () => {
  const own = Object.values(OPERATIONS).flatMap(({ rules }) => rules);
  const ids = [...new Set(allRules)].map(({ id }) => id);
  expect(ids.filter((id, at) => ids.indexOf(id) !== at)).toEqual([]);
  expect(allRules.filter(({ source }) => source === "")).toEqual([]);
  expect(own.length).toBeGreaterThan(150);
});

it("a name that is there is told before a directory that may not be written", () => {
  const session = new Session();
  session.make(root, "mkdir", { path: "d", mode: 0o755 });
  session.make(root, "mkdir", { path: "d/e", mode: 0o755 });
  expect(session.make(alice, "mkdir", { path: "d/e", mode: 0o755 })).toEqual({ errno: "EEXIST" });
  expect(session.make(alice, "mkdir", { path: "d/f", mode: 0o755 })).toEqual({ errno: "EACCES" });
  expect(session.make(alice, "rmdir", { path: "d/e" })).toEqual({ errno: "EACCES" });
});

it("a sticky directory keeps strangers' names", () => {
  const session = new Session();
  session.make(root, "mkdir", { path: "d", mode: 0o777 });
  session.make(root, "chmod", { target: { path: "d", follow: true }, mode: 0o1777 });
  session.make(alice, "mknod", { path: "d/a", type: "file", mode: 0o666 });
  expect(session.make(bob, "unlink", { path: "d/a" })).toEqual({ errno: "EPERM" });
  expect(session.make(alice, "unlink", { path: "d/a" })).toEqual({ value: null });
});

it("a write takes set-user-ID away, a write of nothing does not", () => {
  const session = new Session();
  session.make(alice, "open", { path: "a", access: "RDWR", flags: ["CREAT"], mode: 0o4755, slot: 0 });
  session.make(alice, "write", { slot: 0, offset: null, letter: "x", length: 0 });
  expect(session.make(alice, "stat", { target: { slot: 0 } })).toMatchObject({ value: { mode: 0o4755 } });
  session.make(alice, "write", { slot: 0, offset: null, letter: "x", length: 1 });
  expect(session.make(alice, "stat", { target: { slot: 0 } })).toMatchObject({ value: { mode: 0o755, size: 1 } });
});

it("an inode without a name stays as long as it is open", () => {
  const session = new Session();
  session.make(alice, "open", { path: "a", access: "RDWR", flags: ["CREAT"], mode: 0o644, slot: 0 });
  session.make(alice, "unlink", { path: "a" });
  expect(session.make(alice, "stat", { target: { slot: 0 } })).toMatchObject({ value: { nlink: 0 } });
  expect(session.state.inodes.size).toBe(2);
  session.make(alice, "close", { slot: 0 });
  expect(session.state.inodes.size).toBe(1);
});

it("a directory does not go into itself, and counts its subdirectories", () => {
  const session = new Session();
  session.make(root, "mkdir", { path: "a", mode: 0o755 });
  session.make(root, "mkdir", { path: "a/b", mode: 0o755 });
  expect(session.make(root, "rename", { from: "a", to: "a/b/c", flags: [] })).toEqual({ errno: "EINVAL" });
  expect(session.make(root, "rename", { from: "a/b", to: "b", flags: [] })).toEqual({ value: null });
  expect(session.make(root, "stat", { target: { path: "a", follow: true } })).toMatchObject({ value: { nlink: 2 } });
});

it("a step changes no state before it", () => {
  const session = new Session();
  session.make(alice, "mknod", { path: "a", type: "file", mode: 0o666 });
  const before = session.state;
  const seen = JSON.stringify([...before.inodes], (_, value: unknown) => (value instanceof Map ? [...value] : value));
  session.make(alice, "truncate", { path: "a", length: 10 });
  session.make(alice, "rename", { from: "a", to: "b", flags: [] });
  expect(JSON.stringify([...before.inodes], (_, value: unknown) => (value instanceof Map ? [...value] : value))).toBe(seen);
});

it("XFS leaves set-user-ID at a truncation of an empty file to nothing, ext4 does not", () => {
  for (const [kind, mode] of [
    [KINDS.ext4, 0o755],
    [KINDS.xfs, 0o4755],
  ] as const) {
    const session = new Session();
    session.make(alice, "mknod", { path: "a", type: "file", mode: 0o4755 });
    session.make(alice, "truncate", { path: "a", length: 0 }, kind);
    expect(session.make(alice, "stat", { target: { path: "a", follow: true } })).toMatchObject({ value: { mode } });
  }
});

it("on XFS a copy of blocks ends with one, but where both files end", () => {
  const copied = (kind: Kind, args: { fromOffset: number; toOffset: number; length: number }, targetBytes = 0): Outcome => {
    const session = new Session();
    session.make(root, "open", { path: "a", access: "RDWR", flags: ["CREAT"], mode: 0o644, slot: 0 });
    session.make(root, "write", { slot: 0, offset: 0, letter: "x", length: 10_000 });
    session.make(root, "open", { path: "b", access: "RDWR", flags: ["CREAT"], mode: 0o644, slot: 1 });
    session.make(root, "write", { slot: 1, offset: 0, letter: "y", length: targetBytes });
    return session.make(root, "copy_file_range", { from: 0, to: 1, ...args }, kind);
  };
  const inBlocks = { fromOffset: 0, toOffset: 4096, length: 9000 };
  expect(copied(KINDS.ext4, inBlocks)).toEqual({ value: 9000 });
  expect(copied(KINDS.xfs, inBlocks)).toEqual({ value: 8192 });
  expect(copied(KINDS.xfs, { ...inBlocks, toOffset: 1 })).toEqual({ value: 9000 });
  expect(copied(KINDS.xfs, { ...inBlocks, length: 100 })).toEqual({ value: 100 });
  expect(copied(KINDS.xfs, { ...inBlocks, length: 20_000 })).toEqual({ value: 10_000 });
  expect(copied(KINDS.xfs, { ...inBlocks, length: 20_000 }, 14_097)).toEqual({ value: 8192 });
});

it("of coverlay a call is left out where its kernel takes set-user-ID away and nothing is done", () => {
  const calls: Call[] = [
    { op: "open", args: { path: "f", access: "RDWR", flags: ["CREAT"], mode: 0o666, slot: 0 } },
    { op: "open", args: { path: "g", access: "RDWR", flags: ["CREAT"], mode: 0o666, slot: 1 } },
    { op: "fallocate", args: { slot: 0, mode: [], offset: 2 ** 62, length: 1 } },
    { op: "copy_file_range", args: { from: 1, fromOffset: 1, to: 0, toOffset: 0, length: 1 } },
    { op: "fallocate", args: { slot: 1, mode: [], offset: 0, length: 100 } },
    { op: "copy_file_range", args: { from: 1, fromOffset: 1, to: 0, toOffset: 0, length: 1 } },
  ];
  const made = (kind: Kind, user: number): number =>
    foresee(
      calls.map((call) => ({ user, mount: 0, call })),
      { kernel, kind },
      newTally(),
    ).length;
  const coverlay = coverlayOver(KINDS.ext4);
  expect([made(KINDS.ext4, 1), made(coverlay, 0), made(coverlay, 1)]).toEqual([6, 6, 4]);
});
