/**
 * Hazard F4: a reply that its caller takes in only after the revoke has passed. The callers share a processor with a program of a higher class that
 * takes it away from them again and again.
 */
import { describe, expect, it } from "vitest";
import { createBarrier, startActor } from "../actor.ts";
import { hazardLab, scale } from "./hazard-lab.ts";

const ROUNDS = 150 * scale;

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
      await looker.run(`os.sched_setaffinity(0, {os.cpu_count() - 1})`);
      const hog = startActor({ cwd: "/" });
      await hog.run(`os.sched_setaffinity(0, {os.cpu_count() - 1}); os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))`);
      const hogging = hog.run(
        `
while True:
    end = time.monotonic() + 0.002
    while time.monotonic() < end: pass
    time.sleep(0.001)
`,
      );
      const given = { path: createBarrier(2), dir: operation, rounds: ROUNDS, third: hazard.mount(c) };
      const work = [
        changer.run(`${rounds}\nchange(Barrier(path, 0, 2), dir, rounds, third)`, given, 200_000),
        looker.run(`${rounds}\nresult = look(Barrier(path, 1, 2), dir, rounds, ${operation})`, given, 200_000),
      ];
      try {
        const [, stale] = await Promise.all(work);
        expect(stale).toEqual([]);
      } finally {
        hog.signal("SIGKILL");
        await hogging.catch(() => undefined); // It ends by that signal.
      }
    },
  );
});
