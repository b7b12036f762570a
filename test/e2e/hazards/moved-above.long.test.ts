/**
 * Hazard F46: `..` and getcwd(2) go by the kernel's own cache of names, which no message changes. docs/kernel/README.md says what the kernel does. A thread of the
 * overlay looks at the new place: before it answers for `..`, and some time later for getcwd(2).
 */
import { readFileSync, readlinkSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type Actor, until } from "../actor.ts";
import { hazardLab } from "./hazard-lab.ts";

/** Where the directory is: by its `..` from a descriptor, and by its `..` by path. */
const UP = `
up = os.open("..", os.O_RDONLY, dir_fd=fd)
places = {number: name for name, number in tops.items()}
result = [places[os.fstat(up).st_ino], places[os.stat(rise).st_ino]]
os.close(up)`;

/** More for a soak. */
const MOVES = Number(process.env["COVERLAY_MOVES"] ?? 100);

/** A move and its way back, from the parent "old" to "new", by other names too. */
const moves = [
  ["old/d", "new/d", "new"],
  ["new/d", "old/e", "old"],
  ["old/e", "new/e", "new"],
  ["new/e", "old/d", "old"],
] as const;

describe("a directory in use that another node moves to another parent", () => {
  const hazard = hazardLab();
  let made = 0;

  const nodes = (): Record<"owner" | "one" | "other", number> => {
    const [one, other] = hazard.remotes;
    return { owner: hazard.owner, one, other };
  };

  /** A program in it, or below it, on a node that did not make it; `mover` is on another one. */
  async function scene(moverAt: number, userAt: number, below: string, rise: string): Promise<{ user: Actor; mover: Actor; at: string }> {
    const at = `move-${(made += 1)}`;
    const mover = hazard.actor(moverAt);
    await mover.run(`for name in ("old/d/x/y", "new"): os.makedirs(at + "/" + name)`, { at });
    const user = hazard.actor(userAt, { below: `${at}/old/d${below}` });
    const mount = hazard.mount(userAt);
    const given = { mount, at, rise, d: `${mount}/${at}/old/d` };
    await user.run(`fd = os.open(d, os.O_RDONLY); tops = {n: os.stat(mount + "/" + at + "/" + n).st_ino for n in ("old", "new")}`, given);
    return { user, mover, at };
  }

  const cwd = (user: Actor): string => readlinkSync(`/proc/${user.pid}/cwd`);

  it.each([
    { by: "owner", on: "one", below: "", rise: ".." },
    { by: "owner", on: "one", below: "/x/y", rise: "../../.." },
    { by: "one", on: "owner", below: "", rise: ".." },
    { by: "one", on: "owner", below: "/x/y", rise: "../../.." },
    { by: "one", on: "other", below: "", rise: ".." },
    { by: "one", on: "other", below: "/x/y", rise: "../../.." },
  ] as const)("$rise of it on $on is the new parent as soon as the rename by $by has returned, and getcwd(2) follows", async (row) => {
    const { by, on, below, rise } = row;
    const { user, mover, at } = await scene(nodes()[by], nodes()[on], below, rise);
    expect(await user.run(UP)).toEqual(["old", "old"]);
    for (let round = 0; round < 5; round += 1) {
      for (const [from, to, parent] of moves) {
        await mover.run(`os.rename(at + "/" + a, at + "/" + b)`, { at, a: from, b: to });
        expect([round, to, ...(await user.run<string[]>(UP))]).toEqual([round, to, parent, parent]);
        // From below, too, once nothing asks any more. What is made in it is made in the right one.
        expect(cwd(user)).toBe(`${hazard.mount(nodes()[on])}/${at}/${to}${below}`);
        await user.run(`put("made", "x"); os.unlink("made")`);
      }
    }
  });

  /** `turns`: memory that both have, of two numbers: moves begun and ended, and looks. */
  const SHARED = `
import mmap, struct
turns = mmap.mmap(os.open(shared, os.O_RDWR | os.O_CREAT), 16)
def read(at): return struct.unpack_from("<Q", turns, at)[0]
def write(at, value): struct.pack_into("<Q", turns, at, value)`;
  const MOVE = `
for move in range(rounds):
    write(0, 2 * move + 1)
    os.rename(at + "/" + places[move % 2], at + "/" + places[(move + 1) % 2])
    write(0, 2 * move + 2)
    seen = read(8)
    while read(8) < seen + 3: time.sleep(0.0005)
write(0, 2 ** 32)`;
  const LOOK = `
parents = {number: name for name, number in tops.items()}
wrong, sure, stale = [], [0, 0], 0
while (before := read(0)) != 2 ** 32:
    try: parent = parents[os.stat(rise).st_ino]
    except OSError as error:
        if error.errno != errno.ESTALE: raise
        stale += 1
        parent = None
    if parent is not None and before % 2 == 0 and read(0) == before:
        wanted = before // 2 % 2
        sure[wanted] += 1
        if parent != ("old", "new")[wanted]: wrong.append([before // 2, parent])
    write(8, read(8) + 1)
result = [wrong, sure, stale]`;

  it.each([
    { by: "owner", on: "one", below: "", rise: ".." },
    { by: "one", on: "owner", below: "/x/y", rise: "../../.." },
    { by: "one", on: "other", below: "/x/y", rise: "../../.." },
  ] as const)("of a hundred moves by $by not one is missed by a program on $on that goes up all the time", async (row) => {
    const { user, mover, at } = await scene(nodes()[row.by], nodes()[row.on], row.below, row.rise);
    const given = { at, shared: `${hazard.lab.node(1).runDir}/${at}`, rounds: MOVES, places: ["old/d", "new/d"], rise: row.rise };
    await mover.run(`os.ftruncate(os.open(shared, os.O_RDWR | os.O_CREAT), 16)`, given);
    for (const one of [mover, user]) await one.run(SHARED, given);
    const [[wrong, sure, stale]] = await Promise.all([user.run<[unknown[], number[], number]>(LOOK, given), mover.run(MOVE, given)]);
    expect(wrong).toEqual([]);
    for (const looks of sure) expect(looks).toBeGreaterThanOrEqual(MOVES / 2);
    // Exception 4: beside a rename on this node; here there is none.
    expect(stale).toBe(0);
  });

  it("not one is missed where other programs rename and make files on that node all the time", async () => {
    const { user, mover, at } = await scene(nodes().one, nodes().other, "/x/y", "../../..");
    const given = { at, shared: `${hazard.lab.node(1).runDir}/${at}`, rounds: MOVES, places: ["old/d", "new/d"], rise: "../../.." };
    await mover.run(`os.ftruncate(os.open(shared, os.O_RDWR | os.O_CREAT), 16)`, given);
    const [renames, makes] = [hazard.actor(nodes().other), hazard.actor(nodes().other)];
    await renames.run(`for name in ("tmp", "cur"): os.makedirs(at + "/mail/" + name)`, { at });
    const loops = [
      `
put(at + "/mail/tmp/x", "x")
while read(0) != 2 ** 32:
    os.rename(at + "/mail/tmp/x", at + "/mail/cur/x")
    os.rename(at + "/mail/cur/x", at + "/mail/tmp/x")
    time.sleep(0.002)`,
      `
while read(0) != 2 ** 32:
    for parent in ("old", "new"):
        put(at + "/" + parent + "/made", "x")
        os.unlink(at + "/" + parent + "/made")
    time.sleep(0.002)`,
    ];
    for (const one of [mover, user, renames, makes]) await one.run(SHARED, given);
    const [[wrong, sure]] = await Promise.all([
      user.run<[unknown[], number[], number]>(LOOK, given),
      mover.run(MOVE, given),
      renames.run(loops[0] ?? "", given),
      makes.run(loops[1] ?? "", given),
    ]);
    expect(wrong).toEqual([]);
    for (const looks of sure) expect(looks).toBeGreaterThanOrEqual(MOVES / 2);
  });

  it("getcwd(2) shows the new place soon after, though nothing asks", async () => {
    const { user, mover, at } = await scene(nodes().one, nodes().other, "/x", "../..");
    const place = (to: string): string => `${hazard.mount(nodes().other)}/${at}/${to}/x`;
    const places = ["old/d", "old/e", "new/e", "old/d"];
    for (const [round, to] of places.slice(1).entries()) {
      await mover.run(`os.rename(at + "/" + a, at + "/" + b)`, { at, a: places[round], b: to });
      await until(
        `it is ${to}`,
        () => cwd(user) === place(to),
        () => cwd(user),
      );
    }
    expect(await user.run<string>(`result = os.getcwd()`)).toBe(place("old/d"));
  });

  it("two directories that change places are both where they are", async () => {
    const { user, mover, at } = await scene(nodes().owner, nodes().one, "", "..");
    await mover.run(`os.mkdir(at + "/new/f")`, { at });
    const second = hazard.actor(nodes().one, { below: `${at}/new/f` });
    // It has started there.
    expect(await second.run(`result = os.path.basename(os.getcwd())`)).toBe("f");
    await mover.run(
      `
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.renameat2(-100, (at + "/old/d").encode(), -100, (at + "/new/f").encode(), 2): raise OSError(ctypes.get_errno(), "renameat2")`,
      { at },
    );
    expect(await user.run(UP)).toEqual(["new", "new"]);
    const up = `result = os.path.samefile("..", mount + "/" + at + "/old")`;
    expect(await second.run(up, { mount: hazard.mount(nodes().one), at })).toBe(true);
  });

  it("the kernel asks for the attributes of the directory before it goes up, and for nothing before getcwd(2)", async () => {
    const { user, mover, at } = await scene(nodes().owner, nodes().one, "", "..");
    await mover.run(`os.chmod(at + "/old/d", 0o711)`, { at });
    const b = nodes().one;
    await hazard.hold(b);
    // getcwd(2) is answered by the kernel alone.
    expect(await user.run<string>(`result = os.getcwd()`)).toMatch(/\/old\/d$/);
    const up = user.run(`result = os.stat("..").st_ino`);
    const stack = (): string => readFileSync(`/proc/${user.pid}/stack`, "latin1");
    await until("it asks", () => /fuse_do_getattr[^]*fuse_permission[^]*link_path_walk/.test(stack()), stack);
    hazard.letGo(b);
    await up;
  });
});
