/** What fcntl(2) and flock(2) promise, between the nodes of a cluster (overlay/file-lock/README.md, "File locks"). */
import { describe, expect, it } from "vitest";
import { type Actor, endActors, untilWaiting } from "../actor.ts";
import { coverlay } from "../lab.ts";
import { mountAgain } from "../mount-again.ts";
import { hazardLab } from "../hazards/hazard-lab.ts";
import { PYTHON_LOCKS } from "./python-locks.ts";

const cluster = hazardLab();

async function opened(nodeid: number, name: string): Promise<Actor> {
  const actor = cluster.actor(nodeid);
  await actor.run(`${PYTHON_LOCKS}\nfd = os.open(name, os.O_RDWR | os.O_CREAT)`, { name });
  return actor;
}

const kinds = ["posix", "ofd", "flock"] as const;

it("a POSIX lock that comes when another thread has closed the file is not kept", async () => {
  const [a, b] = [await opened(1, "closed-meanwhile"), await opened(2, "closed-meanwhile")];
  expect(await b.run('result = lock(fd, "posix", "write")')).toBe("ok");
  await a.run(`
import threading, time
came = []
def wait():
    try: came.append(lock(fd, "posix", "write", wait=True))
    except OSError as error: came.append(errno.errorcode[error.errno])
thread = threading.Thread(target=wait)
thread.start()
task = f"/proc/self/task/{thread.native_id}"
while "fuse" not in open(f"{task}/stack").read(): time.sleep(0.01)
os.close(fd)`);
  expect(await b.run('result = lock(fd, "posix", "unlock")')).toBe("ok");
  expect(await a.run("thread.join()\nresult = came[0]")).toBe("EBADF");
  expect(await b.run('result = lock(fd, "posix", "write", wait=True)')).toBe("ok");
});

describe.each(kinds)("%s locks", (kind) => {
  const lock = (actor: Actor, type: string, more = ""): Promise<string> =>
    actor.run(`result = lock(fd, kind, type${more})`, { kind, type });

  it("exclude each other between nodes, and are free again when they are unlocked", async () => {
    const [a, b] = [await opened(1, `exclude-${kind}`), await opened(2, `exclude-${kind}`)];
    expect(await lock(a, "write")).toBe("ok");
    expect(await lock(b, "write")).toBe("EAGAIN");
    expect(await lock(b, "read")).toBe("EAGAIN");
    expect(await lock(a, "unlock")).toBe("ok");
    expect(await lock(b, "read")).toBe("ok");
    expect(await lock(a, "read")).toBe("ok");
    expect(await lock(a, "write")).toBe("EAGAIN");
  });

  it("are waited for: a waiter on another node is served by the unlock", async () => {
    const [a, b] = [await opened(1, `wait-${kind}`), await opened(3, `wait-${kind}`)];
    expect(await lock(a, "write")).toBe("ok");
    const waits = lock(b, "write", ", wait=True");
    await untilWaiting(b);
    expect(await lock(a, "unlock")).toBe("ok");
    expect(await waits).toBe("ok");
    expect(await lock(a, "read")).toBe("EAGAIN");
  });

  it("go with close(2), with exit(2), and with SIGKILL", async () => {
    const b = await opened(2, `end-${kind}`);
    for (const end of ["os.close(fd)", "os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"]) {
      const a = await opened(1, `end-${kind}`);
      expect(await lock(a, "write")).toBe("ok");
      expect(await lock(b, "read")).toBe("EAGAIN");
      const waits = lock(b, "write", ", wait=True");
      await untilWaiting(b);
      await a.run(end).catch(() => undefined);
      expect([end, await waits]).toEqual([end, "ok"]);
      expect(await lock(b, "unlock")).toBe("ok");
    }
  });

  it("a wait ends with any signal, and its process can be killed", async () => {
    const [a, b] = [await opened(1, `signal-${kind}`), await opened(2, `signal-${kind}`)];
    expect(await lock(a, "write")).toBe("ok");
    const interrupted = b.run(
      `
class Alarm(Exception): pass
def ring(*_): raise Alarm()
signal.signal(signal.SIGALRM, ring)
try:
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    result = lock(fd, kind, "write", wait=True)
except Alarm: result = "alarm"`,
      { kind },
    );
    expect(await interrupted).toBe("alarm");
    const waits = lock(b, "write", ", wait=True").catch(() => "killed");
    await untilWaiting(b);
    b.signal("SIGKILL");
    expect((await b.ended).signal).toBe("SIGKILL");
    expect(await waits).toBe("killed");
    // Neither of the two requests was left behind.
    expect(await lock(a, "unlock")).toBe("ok");
    const c = await opened(3, `signal-${kind}`);
    expect(await lock(c, "write")).toBe("ok");
  });
});

describe("byte ranges", () => {
  it("are split and joined, and POSIX and OFD locks exclude each other", async () => {
    const [a, b] = [await opened(1, "ranges"), await opened(2, "ranges")];
    expect(await a.run(`result = lock(fd, "posix", "write", 0, 100)`)).toBe("ok");
    expect(await a.run(`result = lock(fd, "posix", "unlock", 40, 20)`)).toBe("ok");
    expect(await b.run(`result = [lock(fd, "ofd", "write", *r) for r in ((0, 40), (40, 20), (60, 40))]`)).toEqual([
      "EAGAIN",
      "ok",
      "EAGAIN",
    ]);
    expect(await a.run(`result = lock(fd, "posix", "write", 50, 1)`)).toBe("EAGAIN");
    expect(await b.run(`result = lock(fd, "flock", "write")`)).toBe("ok");
    expect(await a.run(`result = lock(fd, "flock", "read")`)).toBe("EAGAIN");
  });

  it("GETLK shows the lock in the way: the process if it is of this node, else 0", async () => {
    const [a, b, near] = [await opened(1, "getlk"), await opened(2, "getlk"), await opened(1, "getlk")];
    expect(await b.run(`result = conflict(fd, "posix", "write")`)).toBe(null);
    await a.run(`lock(fd, "posix", "write", 10, 5)`);
    expect(await b.run(`result = conflict(fd, "posix", "read")`)).toEqual(["write", 10, 5, 0]);
    expect(await near.run(`result = conflict(fd, "posix", "read")`)).toEqual(["write", 10, 5, a.pid]);
    expect(await a.run(`result = conflict(fd, "posix", "write")`)).toBe(null);
  });

  it("a circle of waits across two nodes ends with EDEADLK for one", async () => {
    const [a, b] = [await opened(1, "circle"), await opened(2, "circle")];
    await a.run(`lock(fd, "posix", "write", 0, 1)`);
    await b.run(`lock(fd, "posix", "write", 1, 1)`);
    const first = a.run<string>(`result = lock(fd, "posix", "write", 1, 1, True); lock(fd, "posix", "unlock")`);
    await untilWaiting(a);
    const second = b.run<string>(`result = lock(fd, "posix", "write", 0, 1, True); lock(fd, "posix", "unlock")`);
    // Python has two names for it.
    expect((await Promise.all([first, second])).sort()).toEqual(["EDEADLOCK", "ok"]);
  });

  it("a circle across two files, each of which one node alone has used so far, too", async () => {
    const [a, b] = [await opened(1, "circle-a"), await opened(2, "circle-b")];
    await a.run(`own = fd; lock(own, "posix", "write"); fd = os.open("circle-b", os.O_RDWR | os.O_CREAT)`);
    await b.run(`own = fd; lock(own, "posix", "write"); fd = os.open("circle-a", os.O_RDWR | os.O_CREAT)`);
    const step = `result = lock(fd, "posix", "write", wait=True); lock(own, "posix", "unlock"); lock(fd, "posix", "unlock")`;
    const results = await Promise.all([a.run<string>(step), b.run<string>(step)]);
    expect(results.sort()).toEqual(["EDEADLOCK", "ok"]);
  });
});

describe("whose a lock is", () => {
  it("a child of fork(2) has none of its parent's POSIX locks, and its close does not end them", async () => {
    const [a, b] = [await opened(1, "fork"), await opened(2, "fork")];
    await a.run(`
lock(fd, "posix", "write", 0, 1)
child = os.fork()
if child == 0: os._exit(0 if lock(fd, "posix", "write", 0, 1) == "EAGAIN" else 1)
result = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])`);
    expect(await a.run("result = result")).toBe(null);
    expect(await b.run(`result = lock(fd, "posix", "write", 0, 1)`)).toBe("EAGAIN");
  });

  it("a parent that exits loses its POSIX locks though a child has the file open still; flock stays with the open file", async () => {
    const [a, b] = [await opened(1, "orphan"), await opened(2, "orphan")];
    await a.run(`
lock(fd, "posix", "write"); lock(fd, "flock", "write")
r, w = os.pipe()
if os.fork() == 0:
    os.close(w); os.setsid(); os.read(r, 1); time.sleep(0.3); os._exit(0)`);
    expect(await b.run(`result = [lock(fd, "posix", "write"), lock(fd, "flock", "write")]`)).toEqual(["EAGAIN", "EAGAIN"]);
    const waits = b.run(`result = lock(fd, "posix", "write", wait=True); second = lock(fd, "flock", "write")`);
    await untilWaiting(b);
    await a.run("os._exit(0)").catch(() => undefined);
    await waits;
    expect(await b.run(`result = second`)).toBe("EAGAIN");
    expect(await b.run(`result = lock(fd, "flock", "write", wait=True)`)).toBe("ok");
  });

  it("POSIX: any close of the file ends all that the process has on it; OFD and flock: the last close of that open file", async () => {
    const [a, b] = [await opened(1, "dup"), await opened(2, "dup")];
    await a.run(
      `lock(fd, "posix", "write", 0, 1); other = os.open("dup", os.O_RDWR); lock(other, "ofd", "write", 5, 1); again = os.dup(other)`,
    );
    expect(await b.run(`result = [lock(fd, "posix", "read", 0, 1), lock(fd, "posix", "read", 5, 1)]`)).toEqual(["EAGAIN", "EAGAIN"]);
    await a.run(`os.close(other)`);
    expect(await b.run(`result = [lock(fd, "posix", "read", 0, 1), lock(fd, "posix", "read", 5, 1)]`)).toEqual(["ok", "EAGAIN"]);
    // Locked anew through the first descriptor: the end of the other open file must not take it.
    expect(await a.run(`result = lock(fd, "posix", "write", 8, 1)`)).toBe("ok");
    const waits = b.run(`result = lock(fd, "posix", "read", 5, 1, True)`);
    await untilWaiting(b);
    await a.run(`os.close(again); result = lock(fd, "posix", "write", 8, 1)`);
    expect(await waits).toBe("ok");
  });

  it("what is locked through a descriptor that was sent to another process lives until both have closed it", async () => {
    const [a, b] = [await opened(1, "sent"), await opened(2, "sent")];
    await a.run(`
lock(fd, "ofd", "write")
left, right = socket.socketpair()
socket.send_fds(left, [b"x"], [fd])
os.close(fd)`);
    expect(await b.run(`result = lock(fd, "ofd", "write")`)).toBe("EAGAIN");
    const waits = b.run(`result = lock(fd, "ofd", "write", wait=True)`);
    await untilWaiting(b);
    await a.run(`got = socket.recv_fds(right, 1, 1)[1][0]; os.close(got)`);
    expect(await waits).toBe("ok");
  });
});

it("flock by two processes on one open file: a lock of the one stays while the other waits to convert it", async () => {
  const [a, b] = [await opened(1, "two-threads"), await opened(2, "two-threads")];
  expect(
    await a.run(`
near = os.open(name, os.O_RDWR)
result = [lock(fd, "flock", "read"), lock(near, "flock", "read")]
child = os.fork()
if child == 0:
    fcntl.flock(fd, fcntl.LOCK_EX)
    os._exit(0)
while "request_wait" not in open("/proc/%d/wchan" % child).read(): time.sleep(0.002)
result.append(lock(fd, "flock", "read"))`),
  ).toEqual(["ok", "ok", "ok"]);
  // Both nodes have it: what is locked is in the service of dlmd now.
  expect(await b.run(`result = lock(fd, "flock", "read")`)).toBe("ok");
  await a.run(`os.kill(child, signal.SIGKILL); os.waitpid(child, 0); result = lock(near, "flock", "unlock")`);
  expect(await b.run(`result = lock(fd, "flock", "write")`)).toBe("EAGAIN");
  expect(await a.run(`result = lock(fd, "flock", "unlock")`)).toBe("ok");
  expect(await b.run(`result = lock(fd, "flock", "write")`)).toBe("ok");
});

it("flock by two processes on one open file: what the one is granted right after the death of the other stays (F52)", async () => {
  const [a, b] = [await opened(1, "after-a-death"), await opened(2, "after-a-death")];
  // Both nodes have it: what is locked is in the service of dlmd.
  expect(await a.run(`result = lock(fd, "flock", "read")`)).toBe("ok");
  expect(await b.run(`result = lock(fd, "flock", "read")`)).toBe("ok");
  for (let round = 0; round < 30; round++) {
    const granted = await a.run(`
child = os.fork()
if child == 0:
    fcntl.flock(fd, fcntl.LOCK_EX)
    os._exit(0)
while "request_wait" not in open("/proc/%d/wchan" % child).read(): time.sleep(0.002)
time.sleep(0.02)
os.kill(child, signal.SIGKILL); os.waitpid(child, 0)
result = lock(fd, "flock", "read")`);
    expect([round, granted]).toEqual([round, "ok"]);
    // This question is behind whatever node 1 has told the service.
    expect(await a.run(`result = conflict(fd, "posix", "write")`)).toBe(null);
    expect([round, await b.run(`result = lock(fd, "flock", "write")`)]).toEqual([round, "EAGAIN"]);
    expect(await b.run(`result = lock(fd, "flock", "read")`)).toBe("ok");
  }
});

describe("-o localflocks", () => {
  it("leaves file locks to each kernel, and mount, status and remount say so", async () => {
    const node = cluster.lab.node(3);
    const { mount, runDir } = node;
    const overlay = async (): Promise<Record<string, unknown>> =>
      (JSON.parse((await coverlay(["status", "--json", "--run-dir", runDir])).stdout) as { overlay: Record<string, unknown> }).overlay;
    const before = await overlay();
    expect(before["fileLocks"]).toBe("cluster");
    const refused = await coverlay(["mount", mount, "-o", "remount,localflocks"]);
    expect([refused.status, refused.stderr]).toEqual([32, expect.stringContaining("mounted without localflocks")]);
    const device = String(before["device"]);
    try {
      expect(await mountAgain(node, device, "localflocks")).toContain("file locks are local to this node");
      expect((await overlay())["fileLocks"]).toBe("local");
      expect((await coverlay(["status", "--run-dir", runDir])).stdout).toContain("file locks are local to this node");
      const [a, c, near] = [await opened(1, "local"), await opened(3, "local"), await opened(3, "local")];
      expect(await a.run(`result = [lock(fd, "posix", "write"), lock(fd, "flock", "write")]`)).toEqual(["ok", "ok"]);
      expect(await c.run(`result = [lock(fd, "posix", "write"), lock(fd, "flock", "write")]`)).toEqual(["ok", "ok"]);
      expect(await near.run(`result = [lock(fd, "posix", "write"), lock(fd, "flock", "write")]`)).toEqual(["EAGAIN", "EAGAIN"]);
      expect((await coverlay(["mount", mount, "-o", "remount,localflocks,noatime"])).status).toBe(0);
    } finally {
      endActors();
      await mountAgain(node, device);
    }
    expect((await overlay())["fileLocks"]).toBe("cluster");
  });
});

it("an open file keeps its flock when the RELEASE of the one before it, whose number it has, comes later (F49)", async () => {
  const owner = await cluster.lab.owner();
  const nodeid = [1, 2, 3].find((one) => one !== owner) as number;
  const [a, b] = [await opened(nodeid, "number"), await opened(owner, "number")];
  await b.run(`os.write(fd, os.urandom(64 << 20)); os.fsync(fd)`);
  await a.run(`os.close(fd)`);
  // The kernel gives an address that was freed to the next who asks on that processor: nearly always this program.
  for (let round = 0; round < 12; round++) {
    await a.run(`
fd = os.open(name, os.O_RDONLY)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
fcntl.flock(fd, fcntl.LOCK_EX)
os.posix_fadvise(fd, 0, 64 << 20, os.POSIX_FADV_WILLNEED)
os.close(fd)
fd = os.open(name, os.O_RDONLY)
fcntl.flock(fd, fcntl.LOCK_EX)
while os.read(fd, 1 << 20): pass`);
    // What was read ahead is read, and so the RELEASE is here before this request.
    await a.run(`os.path.exists("nobody%d" % round)`, { round });
    expect([round, await b.run(`result = lock(fd, "flock", "write")`)]).toEqual([round, "EAGAIN"]);
    await a.run(`os.close(fd)`);
  }
});
