/** What a node answers by itself of what it has made: nothing that another node has changed since. And what that saves. */
import { describe, expect, it } from "vitest";
import { createBarrier } from "../actor.ts";
import { hazardLab, scale } from "./hazard-lab.ts";

const ROUNDS = 60 * scale;

const rounds = `
def appear(how, dir, name):
    target = dir + "/" + name
    if how == 0: put(target, b"")
    elif how == 1: os.mkdir(target)
    elif how == 2: os.symlink("there", target)
    elif how == 3: os.mknod(target, 0o600 | stat.S_IFIFO)
    elif how == 4: os.link("of all", target)
    elif how == 5:
        put(dir + ".new", b"")
        os.rename(dir + ".new", target)
    else:
        put(dir + "/other", b"")
        os.rename(dir + "/other", target)
def vanish(how, target):
    if how == 1: os.rmdir(target)
    else: os.unlink(target)
def attributes(dir):
    s = os.stat(dir)
    return [s.st_mtime_ns, s.st_ctime_ns, s.st_nlink, s.st_size, s.st_mode]
def make(barrier, name, rounds, here):
    wrong = []
    def missing(step, expected):
        found = os.path.lexists(dir + "/x"), os.path.lexists(dir + "/y")
        if found != expected: wrong.append((k, step, found))
    for k in range(rounds):
        dir = "%s%d" % (name, k)
        os.mkdir(dir)
        missing("made", (False, False))
        put(dir + "/a", b"a")
        missing("named", (False, False))
        barrier.wait()
        barrier.wait()
        missing("changed there", (True, False))
        seen = attributes(dir)
        if seen != attributes(here + "/" + dir): wrong.append((k, "attributes", seen))
        appear(k // 7 % 7, dir, "y")
        missing("changed here", (True, True))
        barrier.wait()
        barrier.wait()
        missing("removed there", (False, False))
        barrier.wait()
        put(dir + "/x", b"once more", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        if get(here + "/" + dir + "/x") != "once more": wrong.append((k, "made again"))
    return wrong
def change(barrier, name, rounds):
    for k in range(rounds):
        dir = "%s%d" % (name, k)
        barrier.wait()
        appear(k % 7, dir, "x")
        barrier.wait()
        barrier.wait()
        vanish(k % 7, dir + "/x")
        vanish(k // 7 % 7, dir + "/y")
        barrier.wait()
        barrier.wait()
`;

describe("made here", () => {
  const hazard = hazardLab();

  it.each(["the owner", "another node"])("a directory in which %s makes and removes names", async (role) => {
    const [maker, second] = hazard.remotes;
    const changer = role === "the owner" ? hazard.owner : second;
    const [here, there] = [hazard.actor(maker), hazard.actor(changer)];
    await here.run(`os.path.lexists("of all") or put("of all", b"")`);
    const given = { path: createBarrier(2), name: `${role} `, rounds: ROUNDS, here: hazard.mount(changer) };
    const [wrong] = await Promise.all([
      here.run(`${rounds}\nresult = make(Barrier(path, 0, 2), name, rounds, here)`, given, 200_000),
      there.run(`${rounds}\nchange(Barrier(path, 1, 2), name, rounds)`, given, 200_000),
    ]);
    expect(wrong).toEqual([]);
  });

  it("a file that is given capabilities, there or here: they are seen, and the next write here takes them away", async () => {
    const [maker, second] = hazard.remotes;
    const [here, there] = [hazard.actor(maker), hazard.actor(second)];
    // VFS_CAP_REVISION_2, cap_net_raw (capabilities(7)).
    const capability = `struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)`;
    const give = `os.setxattr("capable", "security.capability", ${capability})`;
    const look = `result = code(os.getxattr, "capable", "security.capability")`;
    for (const giver of [there, here]) {
      await here.run(`fd = os.open("capable", os.O_RDWR | os.O_CREAT)\nos.write(fd, b"made")`);
      expect(await here.run(look)).toBe("ENODATA");
      await giver.run(give);
      expect(await here.run(look)).toBe("ok");
      await here.run(`os.write(fd, b"changed")`);
      for (const node of [here, there]) expect(await node.run(look)).toBe("ENODATA");
      await here.run(`os.close(fd)\nos.unlink("capable")`);
    }
  });

  it("a file is made without asking for the directory's attributes before, and without looking for it: in a directory made there from the fifth on", async () => {
    const [maker, second] = hazard.remotes;
    const here = hazard.actor(maker);
    await here.run(`os.mkdir("made here")`);
    await hazard.actor(second).run(`os.mkdir("made there")`);
    const files = 50;
    const trips = async (dir: string): Promise<number> => {
      const before = await hazard.trips(maker);
      const work = `for k in range(files): os.close(os.open("%d" % k, os.O_WRONLY | os.O_CREAT | os.O_EXCL))`;
      await here.run(`os.chdir(dir)\n${work}\nos.chdir("..")`, { files, dir });
      return ((await hazard.trips(maker)) - before) / files;
    };
    const [there, own] = [await trips("made there"), await trips("made here")];
    // The creation; a few more of the directory itself.
    expect([own >= 1, own < 1.2]).toEqual([true, true]);
    // All names are asked for after three that are not there.
    expect([there > own, there < 1.3]).toEqual([true, true]);
  });
});
