/**
 * Races between programs on two and three nodes, several on each, over the same names, the same bytes and the same counters: exactly one
 * winner, nothing twice, nothing lost. fcntl and flock locks are each node's own in this version, so nothing here relies on them.
 */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type Actor, createBarrier, endActors, startActor } from "../actor.ts";
import { type TestLab, startLab } from "../lab.ts";

/** The sizes below are multiplied by this. */
const scale = Number(process.env["COVERLAY_RACE_SCALE"] ?? 1);
const PROGRAMS_PER_NODE = Number(process.env["COVERLAY_RACE_PROGRAMS"] ?? 2);
const LIMIT_MS = 60_000 * Math.max(1, scale);

/** Each program has `me` (from 0), `members`, `top`, `dir`, `rounds`, and a barrier for all. */
const preamble = `
barrier = Barrier(path, me, members)
os.chdir(top + "/" + dir)
random.seed(me)
def won(call, *args, loses):
    got = code(call, *args)
    assert got == "ok" or got in loses, got
    return got == "ok"
`;

/** The races between each of these groups of nodes. Node 1 is the owner. */
export function racesSuite(groups: readonly (readonly number[])[]): void {
  let lab: TestLab;
  let count = 0;

  beforeAll(async () => {
    lab = await startLab({ nodes: 3 });
  });
  // Programs are used again; after a failure nobody knows what they are doing.
  const programs = new Map<string, Actor>();
  afterEach(({ task }) => {
    if (task.result?.state !== "fail") return;
    endActors();
    programs.clear();
  });
  afterAll(async () => {
    endActors();
    await lab?.end();
  });

  describe.each(groups.map((nodes) => ({ name: nodes.join(" and "), nodes })))("between nodes $name", ({ nodes }) => {
    const on = (nodeid: number, index = 0): Actor => {
      const key = `${nodeid}/${index}`;
      const program = programs.get(key) ?? startActor({ cwd: lab.node(nodeid).mount });
      programs.set(key, program);
      return program;
    };
    const top = (nodeid: number): string => lab.node(nodeid).mount;

    /** Runs the same Python everywhere; gives what each program assigns to `result`. */
    async function race(rounds: number, source: string, prepare = ""): Promise<{ readonly results: number[]; readonly dir: string }> {
      count += 1;
      const dir = `race${count}-${nodes.join("-")}`;
      await on(nodes[0] ?? 1).run(`os.chdir(top); os.mkdir(dir); os.chdir(dir)\n${prepare}`, { top: top(nodes[0] ?? 1), dir, rounds });
      const members = nodes.length * PROGRAMS_PER_NODE;
      const path = createBarrier(members);
      const racers = Array.from({ length: members }, (_, me) => ({
        me,
        node: nodes[me % nodes.length] ?? 1,
        index: Math.floor(me / nodes.length),
      }));
      const results = await Promise.all(
        racers.map(({ me, node, index }) =>
          on(node, index).run<number>(
            `${preamble}${source}`,
            { path, me, members, nodes: nodes.length, top: top(node), dir, rounds },
            LIMIT_MS,
          ),
        ),
      );
      return { results, dir };
    }

    /** The same question on every node of the lab; all must say the same. */
    async function everywhere<T>(dir: string, source: string): Promise<T> {
      const answers = await Promise.all(
        lab.nodes.map(({ nodeid }) =>
          on(nodeid).run<T>(
            `os.chdir(top + "/" + dir)
${source}`,
            { top: top(nodeid), dir },
          ),
        ),
      );
      for (const answer of answers) expect(answer).toEqual(answers[0]);
      return answers[0] as T;
    }

    const sum = (numbers: readonly number[]): number => numbers.reduce((total, number) => total + number, 0);

    it("O_EXCL: each name is created once", async () => {
      const rounds = 100 * scale;
      const { results, dir } = await race(
        rounds,
        `
result = 0
for k in range(rounds):
    if k % 10 == 0: barrier.wait()
    try: fd = os.open("name%d" % k, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError: continue
    os.write(fd, b"%d" % me); os.close(fd)
    result += 1
`,
      );
      expect(sum(results)).toBe(rounds);
      const owners = await everywhere<string[]>(dir, `result = [get("name%d" % k) for k in range(len(os.listdir(".")))]`);
      expect(owners.length).toBe(rounds);
      for (const [me, wins] of results.entries()) expect(owners.filter((owner) => owner === String(me)).length).toBe(wins);
    });

    it("mkdir, mknod, symlink and link: each name is made once", async () => {
      const rounds = 40 * scale;
      const { results } = await race(
        rounds,
        `
result = 0
for k in range(rounds):
    if k % 5 == 0: barrier.wait()
    call, args = [(os.mkdir, ()), (os.mknod, (0o600,)), (lambda name: os.symlink("x", name), ()), (lambda name: os.link("origin", name), ())][k % 4]
    result += won(call, "name%d" % k, *args, loses=["EEXIST"])
`,
        `put("origin", "x")`,
      );
      expect(sum(results)).toBe(rounds);
    });

    it("O_APPEND: every record is there once, whole, and those of one program in its order", async () => {
      const rounds = 100 * scale;
      const { results, dir } = await race(
        rounds,
        `
fd = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
barrier.wait()
for k in range(rounds):
    record = b"<%d %d %s>\\n" % (me, k, b"x" * random.randrange(0, 5000 if k % 10 == 0 else 200))
    assert os.write(fd, record) == len(record)
os.close(fd)
result = me
`,
      );
      const log = await everywhere<string>(dir, `result = get("log")`);
      const records = log.split("\n").slice(0, -1);
      expect(records.length).toBe(rounds * results.length);
      expect(records.filter((record) => !/^<\d+ \d+ x*>$/.test(record))).toEqual([]);
      for (const me of results) {
        const own = records.filter((record) => record.startsWith(`<${me} `)).map((record) => Number(record.split(" ")[1]));
        expect(own).toEqual(Array.from({ length: rounds }, (_, k) => k));
      }
    });

    it("unlink: each name is removed once", async () => {
      const rounds = 100 * scale;
      const { results, dir } = await race(
        rounds,
        `
result = 0
for k in range(rounds): os.stat("name%d" % k)
for k in range(rounds):
    if k % 10 == 0:
        barrier.wait()
        for gone in range(max(0, k - 10), k): assert code(os.stat, "name%d" % gone) == "ENOENT", gone
    # On one of the nodes nobody tries: its kernel, which has the name, is told by nobody but the lock.
    if k % nodes != me % nodes: result += won(os.unlink, "name%d" % k, loses=["ENOENT"])
`,
        `for k in range(rounds): put("name%d" % k, "x")`,
      );
      expect(sum(results)).toBe(rounds);
      expect(await everywhere(dir, `result = os.listdir(".")`)).toEqual([]);
    });

    it("rename: each name is moved once, and is at one place", async () => {
      const rounds = 60 * scale;
      const { results, dir } = await race(
        rounds,
        `
result = 0
for k in range(rounds):
    if k % 10 == 0: barrier.wait()
    result += won(os.rename, "name%d" % k, "moved/%d-%d" % (k, me), loses=["ENOENT"])
`,
        `os.mkdir("moved")\nfor k in range(rounds): put("name%d" % k, str(k))`,
      );
      expect(sum(results)).toBe(rounds);
      const [left, contents] = await everywhere<[string[], string[][]]>(
        dir,
        `result = [os.listdir("."), [[n, get("moved/" + n)] for n in sorted(os.listdir("moved"))]]`,
      );
      expect(left).toEqual(["moved"]);
      expect(contents.length).toBe(rounds);
      for (const [name, content] of contents) expect(name?.split("-")[0]).toBe(content);
    });

    it("rename over one name: one survives, and every other is gone", async () => {
      const rounds = 40 * scale;
      const { dir } = await race(
        rounds,
        `
result = 0
for k in range(rounds):
    put("own%d" % me, "%d %d" % (me, k))
    os.rename("own%d" % me, "target")
    # The name is always there: replaced between the kernel's walk and its open, it is the file of the walk that is read.
    for _ in range(3):
        seen = get("target").split()
        assert len(seen) == 2, seen
`,
      );
      const [names, links, content] = await everywhere<[string[], number, string]>(
        dir,
        `result = [os.listdir("."), os.stat("target").st_nlink, get("target")]`,
      );
      expect(names).toEqual(["target"]);
      expect(links).toBe(1);
      expect(content).toMatch(new RegExp(`^\\d+ ${rounds - 1}$`));
    });

    it("rename to one name: it is moved once, and the others find nothing", async () => {
      const rounds = 60 * scale;
      const { results } = await race(
        rounds,
        `
result = 0
for k in range(rounds):
    # Half of them go by a name that their kernel has.
    if me % 2: code(os.stat, "name%d" % k)
    barrier.wait()
    result += won(os.rename, "name%d" % k, ["", "moved/"][k % 2] + "taken%d" % k, loses=["ENOENT"])
`,
        `os.mkdir("moved")\nfor k in range(rounds): put("name%d" % k, str(k))`,
      );
      expect(sum(results)).toBe(rounds);
    });

    it("RENAME_EXCHANGE: each is made, and made once", async () => {
      const rounds = 40 * scale;
      const { results, dir } = await race(
        rounds,
        `
for k in range(rounds):
    if me % 2: code(os.stat, "left%d" % k)
    barrier.wait()
    if libc.renameat2(-100, b"left%d" % k, -100, b"right%d" % k, 2): raise OSError(ctypes.get_errno(), "renameat2")
result = 1
`,
        `for k in range(rounds): put("left%d" % k, "even"); put("right%d" % k, "odd")`,
      );
      const found = await everywhere<string[]>(dir, `result = [get("left%d" % k) for k in range(${rounds})]`);
      expect(found).toEqual(Array.from({ length: rounds }, () => (sum(results) % 2 === 0 ? "even" : "odd")));
    });

    it("mkdir and rmdir of one name in turn: as many made as removed", async () => {
      const rounds = 60 * scale;
      const { results, dir } = await race(
        rounds,
        `
made = removed = 0
for k in range(rounds):
    made += won(os.mkdir, "dir", loses=["EEXIST"])
    removed += won(os.rmdir, "dir", loses=["ENOENT"])
result = made - removed
`,
      );
      expect(sum(results)).toBe(0);
      expect(await everywhere(dir, `result = [os.listdir("."), os.stat(".").st_nlink]`)).toEqual([[], 2]);
    });

    it("link: the count is that of the names", async () => {
      const rounds = 40 * scale;
      const { results, dir } = await race(
        rounds,
        `
result = 0
for k in range(rounds):
    os.link("file", "link%d-%d" % (me, k))
    if k % 3 == 0: os.unlink("link%d-%d" % (me, k))
    else: result += 1
`,
        `put("file", "x")`,
      );
      const [names, links] = await everywhere<[number, number]>(dir, `result = [len(os.listdir(".")), os.stat("file").st_nlink]`);
      expect([names, links]).toEqual([sum(results) + 1, sum(results) + 1]);
    });

    it("a counter in a file under a lock file: no turn is lost", async () => {
      const rounds = 25 * scale;
      const { results, dir } = await race(
        rounds,
        `
for k in range(rounds):
    while True:
        try:
            os.close(os.open("lock", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError: time.sleep(0.0005 * random.random())
    put("counter", str(int(get("counter")) + 1))
    os.unlink("lock")
result = rounds
`,
        `put("counter", "0")`,
      );
      expect(await everywhere(dir, `result = get("counter")`)).toBe(String(sum(results)));
    });

    it("a counter that stays open, read and written in place, under a lock file", async () => {
      const rounds = 25 * scale;
      const { results, dir } = await race(
        rounds,
        `
fd = os.open("counter", os.O_RDWR)
for k in range(rounds):
    while True:
        try:
            os.mkdir("lock")
            break
        except FileExistsError: time.sleep(0.0005 * random.random())
    os.pwrite(fd, struct.pack("<q", struct.unpack("<q", os.pread(fd, 8, 4090))[0] + 1), 4090)
    os.rmdir("lock")
result = rounds
`,
        `put("counter", bytes(8192))`,
      );
      expect(await everywhere(dir, `result = struct.unpack_from("<q", get("counter").encode("latin1"), 4090)[0]`)).toBe(sum(results));
    });

    it("one directory filled by all: the same listing everywhere, with the attributes", async () => {
      const rounds = 100 * scale;
      const { results, dir } = await race(
        rounds,
        `
for k in range(rounds):
    put("%d-%d" % (me, k), "x" * (k % 50))
    if k % 20 == 0: assert len([n for n in os.listdir(".") if n.startswith("%d-" % me)]) == k + 1
result = me
`,
      );
      const names = await everywhere<[string, number][]>(dir, `result = sorted((e.name, e.stat().st_size) for e in os.scandir("."))`);
      expect(names.map(([name]) => name)).toEqual(results.flatMap((me) => Array.from({ length: rounds }, (_, k) => `${me}-${k}`)).sort());
      for (const [name, size] of names) expect(size).toBe(Number(name.split("-")[1]) % 50);
    });
  });
}
