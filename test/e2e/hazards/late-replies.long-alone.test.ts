/**
 * Hazard F4: a reply that its caller takes in only after the revoke has passed. The callers share a processor with a program of a higher class that
 * takes it away from them again and again.
 */
import { describe, expect, it } from "vitest";
import { createBarrier, startActor } from "../actor.ts";
import { hazardLab, scale } from "./hazard-lab.ts";

const ROUNDS = 150 * scale;
const CHANGES = 100 * scale;

/** Both go through the same rounds; the one makes the file and changes it while the other, which never knew it, does `operation` on it. */
const rounds = `
def change(barrier, dir, rounds, third):
    for k in range(rounds):
        name = "%s/%d" % (dir, k)
        put(name, b"x" * 10)
        fd = os.open(name, os.O_RDWR)
        # Whoever comes now gets the lock for reading without waiting, and with it attributes that are valid.
        get(third + "/" + name)
        barrier.wait()
        time.sleep(random.random() * 0.003)
        os.fchmod(fd, 0o600)
        os.pwrite(fd, b"y" * 89, 10)
        truth = os.fstat(fd)
        barrier.wait()
        barrier.wait()
        os.close(fd)
def look(barrier, dir, rounds, operation):
    stale = []
    for k in range(rounds):
        name = "%s/%d" % (dir, k)
        barrier.wait()
        fd = operation(name)
        barrier.wait()
        for what, seen in (("fstat", os.fstat(fd)), ("stat", os.stat(name))):
            if seen.st_size != 99 or stat.S_IMODE(seen.st_mode) != 0o600: stale.append((k, what, seen.st_size, oct(seen.st_mode)))
        data = os.pread(fd, 200, 0)
        if data != b"x" * 10 + b"y" * 89: stale.append((k, "data", len(data)))
        os.close(fd)
        barrier.wait()
    return stale
def opened(name): return os.open(name, os.O_RDONLY)
def linked(name):
    os.link(name, name + ".link")
    return os.open(name + ".link", os.O_RDONLY)
def retimed(name):
    os.utime(name, (1, 1))
    return os.open(name, os.O_RDONLY)
def listed(name):
    list(os.scandir(os.path.dirname(name)))
    os.stat(name)
    return os.open(name, os.O_RDONLY)
def created(name):
    fd = os.open(name, os.O_RDONLY | os.O_CREAT, 0o644)
    return fd
`;

const lastProcessor = `os.sched_setaffinity(0, {os.cpu_count() - 1})`;

/** Takes the last processor away from whoever else is there, for 2 ms of every 3. */
async function startHog(): Promise<{ readonly end: () => Promise<void> }> {
  const hog = startActor({ cwd: "/" });
  await hog.run(`${lastProcessor}; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))`);
  const hogging = hog.run(
    `
while True:
    end = time.monotonic() + 0.002
    while time.monotonic() < end: pass
    time.sleep(0.001)
`,
  );
  return {
    end: async () => {
      hog.signal("SIGKILL");
      await hogging.catch(() => undefined); // It ends by that signal.
    },
  };
}

describe("F4: a reply taken in after the revoke", () => {
  const hazard = hazardLab();

  it.each(["opened", "linked", "retimed", "listed", "created"])(
    "an inode %s for the first time while another node changes it",
    async (operation) => {
      const [r0, r1] = hazard.remotes;
      const [a, b, c] = operation === "linked" ? [hazard.owner, r0, r1] : [r0, r1, hazard.owner];
      const changer = hazard.actor(b);
      await changer.run(`os.mkdir(dir)`, { dir: operation });
      const looker = hazard.actor(a);
      await looker.run(lastProcessor);
      const hog = await startHog();
      const given = { path: createBarrier(2), dir: operation, rounds: ROUNDS, third: hazard.mount(c) };
      const work = [
        changer.run(`${rounds}\nchange(Barrier(path, 0, 2), dir, rounds, third)`, given, 200_000),
        looker.run(`${rounds}\nresult = look(Barrier(path, 1, 2), dir, rounds, ${operation})`, given, 200_000),
      ];
      try {
        const [, stale] = await Promise.all(work);
        expect(stale).toEqual([]);
      } finally {
        await hog.end();
      }
    },
  );

  /**
   * Who stats beside the changes of one program of its node. `at`: the time, by the clock that the lower uses, when the last change that is over had not begun. A tick
   * of that clock between two changes. `asks`: each time anew (AT_STATX_FORCE_SYNC).
   */
  const changing = `
made = os.open(at, os.O_WRONLY)
for k in range(rounds):
    time.sleep(0.006)
    begun = time.clock_gettime_ns(5)
    CHANGE
    os.pwrite(made, struct.pack("<q", begun), 0)
`;
  const stating = `
made = os.open(at, os.O_RDONLY)
old, turns, room = [], 0, ctypes.create_string_buffer(256)
while os.pread(made, 16, 0)[8:] == bytes(8):
    turns += 1
    least, = struct.unpack("<q", os.pread(made, 8, 0))
    if asks:
        if libc.statx(-100, target.encode(), 0x2000, 0x7ff, room): raise OSError(ctypes.get_errno(), "statx")
        continue
    seen = os.stat(target).st_ctime_ns
    if seen < least: old.append("%d ns before a change that was over" % (least - seen))
result = {"old": old[:10], "turns": turns}
`;
  const changes = {
    "extended attributes": `os.setxattr(target, "user.k", b"%d" % k)`,
    "blocks of a file": `libc.fallocate(fd, 3 if k % 2 else 1, ctypes.c_long(0), ctypes.c_long(8192))`,
    "directories made and removed": `(os.rmdir if k % 2 else os.mkdir)(target + "/d")`,
    "names made and removed": `os.unlink(target + "/f") if k % 2 else put(target + "/f", b"")`,
    "names that move": `os.rename("%s/%d" % (target, k % 2), "%s/%d" % (target, 1 - k % 2))`,
    "stores that are written back": `mapping[0] = k % 256; mapping.flush()`,
    links: `os.unlink(target + "/l") if k % 2 else os.link(target + "/0", target + "/l")`,
  };

  const ofFile: ReadonlySet<string> = new Set(["blocks of a file", "stores that are written back"]);

  describe.each(["the owner", "a remote node"])("taken in after a change on the same node: %s", (role) => {
    it.each(Object.keys(changes))("%s", async (what) => {
      const node = role === "the owner" ? hazard.owner : hazard.remotes[0];
      const given = {
        at: createBarrier(2),
        dir: `${what} ${role}`,
        target: `${what} ${role}${ofFile.has(what) ? "/0" : ""}`,
        rounds: CHANGES,
      };
      const changer = hazard.actor(node);
      await changer.run(
        `os.mkdir(dir); put(dir + "/0", bytes(10)); fd = os.open(dir + "/0", os.O_RDWR); mapping = mmap.mmap(fd, 10)`,
        given,
      );
      const lookers = [0, 1, 2].map(() => hazard.actor(node));
      await Promise.all(lookers.map((looker) => looker.run(`${lastProcessor}; os.stat(target)`, given)));
      const hog = await startHog();
      const found = lookers.map((looker) =>
        looker.run<{ old: string[]; turns: number }>(stating, { ...given, asks: looker === lookers[0] }, 200_000),
      );
      try {
        await changer.run(changing.replace("CHANGE", changes[what as keyof typeof changes]), given, 200_000);
        await changer.run(`os.pwrite(made, b"finished", 8)`);
        await Promise.all(found);
      } finally {
        await hog.end();
      }
      for (const { old, turns } of await Promise.all(found)) {
        expect(old).toEqual([]);
        expect(turns).toBeGreaterThan(1);
      }
    });
  });
});
