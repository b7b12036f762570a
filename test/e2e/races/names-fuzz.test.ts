/**
 * Any call on any name from three nodes at once: no call ends as it could not on a local ext4 (never with ESTALE, for one), names that only
 * ever are replaced are always there, and in the end all nodes and the lower itself have the same tree.
 *
 * COVERLAY_FUZZ_SEED and COVERLAY_FUZZ_STEPS (of each program) make a run longer, or another one.
 */
import { readdirSync, readlinkSync, statSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Actor, createBarrier, endActors, startActor } from "../actor.ts";
import { type TestLab, startLab } from "../lab.ts";

const seed = Number(process.env["COVERLAY_FUZZ_SEED"] ?? 1);
const STEPS = Number(process.env["COVERLAY_FUZZ_STEPS"] ?? 300);
const PROGRAMS_PER_NODE = 2;
const LIMIT_MS = 60_000 + STEPS * 200;

/**
 * `churn`: names that may be anything or nothing. `always`: names that are a file, a directory or a symbolic link at every moment, and
 * another one often. `calm`: names that do not change, whose files do: kernels keep those names, and what is under them. Each step is its call and the errors that it may end with.
 */
const program = `
random.seed(seed * 1000 + me)
os.chdir(top + "/" + base)
libc.renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
def exchange(old, new, flags):
    if libc.renameat2(-100, old.encode(), -100, new.encode(), flags): raise OSError(ctypes.get_errno(), "renameat2")
def use(name, flags, work):
    fd = os.open(name, flags, 0o644)
    try: work(fd)
    finally: os.close(fd)
def nothing(fd): pass
def attributes(name): [entry.stat(follow_symlinks=False) for entry in os.scandir(name)]

folders = ["x", "y", "x/z"]
def churn():
    name = random.choice(folders) + "/" + random.choice("abcd")
    deep = random.random() < 0.15
    return (name + "/" + random.choice("ab") if deep else name), deep
def pair():
    """Two names for a rename; c and d may be directories."""
    if random.random() < 0.3: return random.choice(folders) + "/" + random.choice("cd"), random.choice(folders) + "/" + random.choice("cd"), False
    (a, deep), (b, deeper) = churn(), churn()
    return a[:-1] + random.choice("ab"), b[:-1] + random.choice("ab"), deep or deeper

def step():
    a, deep = churn()
    old, new, deeper = pair()
    made = random.choice(folders) + "/" + random.choice("cd")
    walk = ["ENOENT", "ENOTDIR", "ELOOP"] if deep or deeper else []
    data = b"x" * random.randrange(5000)
    calm = "calm/" + random.choice("abc")
    kinds = [
        # Neither read nor written, so that attributes stay cached until somebody changes them.
        (os.chmod, ("calm/unread", random.choice([0o600, 0o640, 0o755])), []),
        (os.stat, ("calm/unread",), []),
        (os.chmod, (calm, random.choice([0o600, 0o640, 0o755])), []),
        (os.stat, (calm,), []),
        (get, (calm,), []),
        (use, (calm, os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, data)), []),
        (os.truncate, (calm, len(data)), []),
        (use, (a, os.O_CREAT | os.O_EXCL | os.O_RDWR, nothing), ["EEXIST"]),
        (use, (a, os.O_CREAT | os.O_RDWR, nothing), ["EISDIR", "ELOOP"]),
        (use, (a, os.O_CREAT | os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, data)), ["EISDIR", "ELOOP"]),
        (use, (a, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, lambda fd: os.write(fd, data)), ["EISDIR", "ELOOP"]),
        (use, (a, os.O_RDONLY | os.O_NONBLOCK, os.fstat), ["ENOENT", "ELOOP"]),
        (get, (a,), ["ENOENT", "ELOOP", "EISDIR"]),
        (os.unlink, (a,), ["ENOENT", "EISDIR"]),
        (os.rename, (old, new), ["ENOENT", "EISDIR", "ENOTDIR", "ENOTEMPTY"] + (["EINVAL"] if walk else [])),
        (exchange, (old, new, 2), ["ENOENT"] + (["EINVAL"] if walk else [])),
        (exchange, (old, new, 1), ["ENOENT", "EEXIST"] + (["EINVAL"] if walk else [])),
        (os.link, (old, new), ["ENOENT", "EEXIST", "EPERM"]),
        (os.symlink, (random.choice("abcd"), a), ["EEXIST"]),
        (os.readlink, (a,), ["ENOENT", "EINVAL"]),
        (os.mkdir, (made,), ["EEXIST"]),
        (os.rmdir, (a,), ["ENOENT", "ENOTDIR", "ENOTEMPTY"]),
        (os.truncate, (a, len(data)), ["ENOENT", "EISDIR", "ELOOP"]),
        (os.stat, (a,), ["ENOENT", "ELOOP"]),
        (os.lstat, (a,), ["ENOENT"]),
        (os.chmod, (a, random.choice([0o600, 0o755])), ["ENOENT", "ELOOP"]),
        (os.utime, (a, (1, 1)), ["ENOENT", "ELOOP"]),
        (os.setxattr, (a, "user.k", data[:100]), ["ENOENT", "ELOOP"]),
        (os.getxattr, (a, "user.k"), ["ENOENT", "ELOOP", "ENODATA"]),
        (os.listdir, (a,), ["ENOENT", "ENOTDIR", "ELOOP"]),
        (attributes, (random.choice(folders),), ["ENOENT"]),
        (os.listdir, (random.choice(folders),), []),
    ]
    call, args, may = random.choice(kinds)
    return call, args, may + walk

def replace():
    own = "own%d" % me
    put(own, str(me) * random.randrange(1, 3000))
    os.rename(own, "always/file")
def relink():
    own = "own%d" % me
    os.symlink("file", own)
    os.rename(own, "always/link")
def redirect():
    own = "own%d" % me
    os.mkdir(own)
    os.rename(own, "always/dir")
def whole():
    text = get("always/file")
    assert text != "" and len(set(text)) == 1, "not what one program wrote: %r" % text[:100]
def always():
    kinds = [
        (replace, (), []), (replace, (), []), (relink, (), []), (redirect, (), []),
        (whole, (), []), (whole, (), []),
        (use, ("always/file", os.O_RDWR, nothing), []),
        (use, ("always/file", os.O_RDWR | os.O_CREAT, nothing), []),
        (os.stat, ("always/file",), []),
        (os.stat, ("always/link",), []),
        (os.readlink, ("always/link",), []),
        (os.chmod, ("always/file", random.choice([0o600, 0o644])), []),
        (os.utime, ("always/file",), []),
        (os.chmod, ("always/dir", random.choice([0o700, 0o755])), []),
        (os.stat, ("always/dir",), []),
        (os.access, ("always/dir", os.R_OK), []),
        # The directory of the open may be another one by the time of the listing.
        (os.listdir, ("always/dir",), ["ENOENT"]),
        # The file of the walk may have lost its name by the time of the link.
        (os.link, ("always/file", "link%d" % me), ["ENOENT", "EEXIST"]),
        (os.unlink, ("link%d" % me,), ["ENOENT"]),
        (os.listxattr, ("always/file",), []),
    ]
    call, args, may = random.choice(kinds)
    return call, args, may

odd, tally = [], {}
barrier = Barrier(path, me, members)
for k in range(steps):
    if k % 50 == 0: barrier.wait()
    call, args, may = always() if random.random() < 0.4 else step()
    got = code(call, *args)
    word = call.__name__ + " " + got
    tally[word] = tally.get(word, 0) + 1
    if got != "ok" and got not in may: odd.append("%s %r: %s" % (call.__name__, [arg for arg in args if isinstance(arg, (str, int))], got))
result = [odd, tally]
`;

/** Everything below the working directory, as seen there; times are not compared, because reads change them. */
const look = `
os.chdir(where)
def seen(name):
    s = os.lstat(name)
    kind = stat.S_IFMT(s.st_mode)
    one = [name, s.st_ino, s.st_mode, s.st_nlink, s.st_uid]
    if kind == stat.S_IFREG: one += [s.st_size, hashlib.sha256(get(name).encode("latin1")).hexdigest()]
    if kind == stat.S_IFLNK: one.append(os.readlink(name))
    if kind != stat.S_IFDIR: return [one]
    return [one] + [found for child in sorted(os.listdir(name)) for found in seen(name + "/" + child)]
result = seen(".")
os.chdir("/")
`;

/** The volume's root in the owner's process: mounted in no namespace, and reached through the descriptor that its overlay has of it. */
function lowerRoot(pid: number): string {
  const here = statSync("/").dev;
  const folder = `/proc/${pid}/fd`;
  for (const fd of readdirSync(folder)) {
    try {
      const file = `${folder}/${fd}`;
      if (readlinkSync(file) === "/" && statSync(file).dev !== here && statSync(file).isDirectory()) return file;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }
  throw new Error(`a descriptor of a detached root expected, none found in ${folder}`);
}

describe("any call on any name, from three nodes", () => {
  let lab: TestLab;
  const actors: Actor[] = [];

  beforeAll(async () => {
    lab = await startLab({ nodes: 3 });
  });
  afterAll(async () => {
    endActors();
    await lab?.end();
  });

  it(
    `ends as on a local file system, and all have the same tree (seed ${seed})`,
    async () => {
      const base = "fuzz";
      const first = startActor({ cwd: lab.node(1).mount });
      await first.run(
        `os.chdir(top); os.mkdir(base); os.chdir(base)
for name in ["x", "y", "x/z", "calm", "always", "always/dir"]: os.mkdir(name)
for name in ["a", "b", "c", "unread"]: put("calm/" + name, "")
put("always/file", "0"); os.symlink("file", "always/link")`,
        { top: lab.node(1).mount, base },
      );
      const members = lab.nodes.length * PROGRAMS_PER_NODE;
      const path = createBarrier(members);
      for (let me = 0; me < members; me += 1) actors.push(startActor({ cwd: "/" }));
      const results = await Promise.all(
        actors.map((actor, me) => {
          const top = lab.nodes[me % lab.nodes.length]?.mount ?? "";
          return actor.run<[string[], Record<string, number>]>(program, { me, members, path, top, base, seed, steps: STEPS }, LIMIT_MS);
        }),
      );
      if (process.env["COVERLAY_FUZZ_TALLY"] !== undefined) {
        const all: Record<string, number> = {};
        for (const [, tally] of results) for (const [word, n] of Object.entries(tally)) all[word] = (all[word] ?? 0) + n;
        process.stdout.write(`${JSON.stringify(all, null, 1)}\n`);
      }
      const odd = results.flatMap(([one]) => one);
      expect(odd).toEqual([]);

      const trees = await Promise.all(
        lab.nodes.map(({ mount }, at) => (actors[at] ?? first).run<unknown[]>(look, { where: `${mount}/${base}` }, LIMIT_MS)),
      );
      const owner = await lab.owner();
      const pid = (await lab.status()).find((node) => node.nodeid === owner)?.overlayPid ?? 0;
      const lower = await first.run<unknown[]>(look, { where: `${lowerRoot(pid)}/${base}` });
      for (const tree of trees) expect(tree).toEqual(lower);
    },
    LIMIT_MS * 2,
  );
});
