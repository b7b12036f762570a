/**
 * Programs that work in the mounts of a lab, told step by step what to do: one python3 process each, because Node lacks most
 * of the system calls in question (mmap, sendfile, RWF_APPEND, setgroups ...), and because a test must never wait in a mount itself:
 * what hangs there is one of these, with a time limit and a report of where in the kernel it waits.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";

/** A step that takes longer hangs, also on a machine with five programs to a processor: steps of half a minute were seen to end. */
const STEP_TIMEOUT_MS = 120_000;
/** How often the state of a process or a connection is looked at. */
const POLL_MS = 2;
/** A state that was not reached by then is not reached. */
const STATE_TIMEOUT_MS = 60_000;
/** Of a log the end: what failed first is to be seen beside it. */
const EXPLAIN_CHARACTERS = 2000;

const interpreter = `
import ctypes,errno,fcntl,hashlib,json,mmap,os,random,signal,socket,sqlite3,stat,struct,sys,threading,time,traceback
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
# MCL_CURRENT: a page of python3 itself that has to be read from the disk would look like a wait in the mount.
if libc.mlockall(1): raise OSError(ctypes.get_errno(), "mlockall")
libc.msync.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]

def code(call, *args, **named):
    """"ok", or the name of the error of a system call."""
    try:
        call(*args, **named)
        return "ok"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))

def put(name, data, flags=os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode=0o644):
    fd = os.open(name, flags, mode)
    try:
        view = memoryview(data if isinstance(data, bytes) else data.encode("latin1"))
        while len(view) > 0: view = view[os.write(fd, view):]
    finally: os.close(fd)

def get(name):
    fd = os.open(name, os.O_RDONLY)
    try:
        parts = []
        while part := os.read(fd, 1 << 20): parts.append(part)
        return b"".join(parts).decode("latin1")
    finally: os.close(fd)

def map_shared(fd, length, protection=mmap.PROT_READ | mmap.PROT_WRITE, offset=0):
    """An address; the mapping may be longer than the file."""
    address = libc.mmap(None, length, protection, mmap.MAP_SHARED, fd, offset)
    if address in (None, ctypes.c_void_p(-1).value): raise OSError(ctypes.get_errno(), "mmap")
    return address

def msync(address, length):
    if libc.msync(address, length, 4): raise OSError(ctypes.get_errno(), "msync")

def resident(fd, length):
    """Pages of the file in the page cache."""
    address = map_shared(fd, length, mmap.PROT_READ)
    pages = (length + 4095) // 4096
    vector = ctypes.create_string_buffer(pages)
    if libc.mincore(address, length, vector): raise OSError(ctypes.get_errno(), "mincore")
    libc.munmap(address, length)
    return sum(byte & 1 for byte in vector.raw)

class Barrier:
    """For processes of this machine: \`path\` is a file outside of the mounts, of 8 bytes for each member."""
    def __init__(self, path, me, members):
        self.me, self.members, self.turn = me, members, 0
        fd = os.open(path, os.O_RDWR)
        self.slots = mmap.mmap(fd, 8 * members)
        os.close(fd)
    def wait(self):
        self.turn += 1
        struct.pack_into("<q", self.slots, 8 * self.me, self.turn)
        end = time.monotonic() + 60
        while min(struct.unpack_from("<%dq" % self.members, self.slots)) < self.turn:
            if time.monotonic() > end: raise RuntimeError("member %d waited for the others for a minute" % self.me)
            time.sleep(0.0002)

def main():
    scope = dict(globals())
    for line in sys.stdin:
        step = json.loads(line)
        scope.update(step["given"])
        scope["result"] = None
        try:
            exec(compile(step["source"], "step", "exec"), scope)
            answer = {"value": scope["result"]}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer, default=lambda value: value.decode("latin1")), flush=True)
`;

export interface ActorOptions {
  /** Where it works; changed into as root. */
  readonly cwd: string;
  /** Whom it becomes then; root by default. */
  readonly uid?: number;
  readonly gid?: number;
  readonly groups?: readonly number[];
  /** The umask; 022 by default. */
  readonly umask?: number;
}

export interface ActorEnd {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface Actor {
  readonly pid: number;
  /** Runs Python with `given` as variables, which stay; gives what it assigns to `result`. Rejects with its traceback, when it ends, or hangs. */
  run<T = unknown>(source: string, given?: Readonly<Record<string, unknown>>, timeoutMs?: number): Promise<T>;
  signal(signal: NodeJS.Signals): void;
  readonly ended: Promise<ActorEnd>;
}

interface Step {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** Where the threads of a process wait in the kernel. */
function whereabouts(pid: number): string {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    const lines = status.split("\n").filter((line) => /^(State|SigPnd|ShdPnd)/.test(line));
    return `${lines.join(", ")}\n${readFileSync(`/proc/${pid}/stack`, "utf8")}`;
  } catch (error) {
    return String(error);
  }
}

/** With the ends of their steps. */
const running = new Map<ChildProcess, readonly Promise<unknown>[]>();
const barriers: string[] = [];

/** A file for the Barrier of so many members, outside of the mounts; removed with the actors. */
export function createBarrier(members: number): string {
  const dir = mkdtempSync(path.join(os.tmpdir(), "coverlay-barrier-"));
  const file = path.join(dir, "barrier");
  writeFileSync(file, Buffer.alloc(8 * members));
  // For members of any user.
  chmodSync(dir, 0o755);
  chmodSync(file, 0o666);
  barriers.push(dir);
  return file;
}

/** Starts one; ended with the others by `endActors`. */
export function startActor(options: ActorOptions): Actor {
  const { cwd, uid = 0, gid = 0, groups = [], umask = 0o022 } = options;
  const become = uid === 0 && gid === 0 ? "" : `os.setgroups(${JSON.stringify(groups)}); os.setgid(${gid}); os.setuid(${uid})`;
  const start = `${interpreter}\nos.chdir(sys.argv[1]); os.umask(${umask})\n${become}\nmain()\n`;
  // -I: or it would look for its modules in the mount.
  const child = spawn("python3", ["-I", "-u", "-c", start, cwd], { cwd: "/", stdio: ["pipe", "pipe", "pipe"] });
  const pid = child.pid;
  if (pid === undefined) throw new Error("python3 can not be started");
  const steps: Step[] = [];
  const ends: Promise<unknown>[] = [];
  running.set(child, ends);
  let stderr = "";
  child.stderr.on("data", (chunk: Buffer) => (stderr = (stderr + chunk.toString("utf8")).slice(-4000)));
  child.stdin.on("error", () => undefined); // It ended; `ended` says how.
  const lines = createInterface({ input: child.stdout });
  lines.on("line", (line) => {
    const step = steps.shift();
    const answer = JSON.parse(line) as { value?: unknown; error?: string };
    if (answer.error === undefined) step?.resolve(answer.value);
    else step?.reject(new Error(`in ${cwd}: ${answer.error}`));
  });
  const ended = new Promise<ActorEnd>((resolve) => {
    child.on("exit", (status, signal) => {
      running.delete(child);
      for (const step of steps.splice(0)) step.reject(new Error(`python3 ended with ${status ?? signal} in a step\n${stderr}`));
      resolve({ status, signal });
    });
  });
  return {
    pid,
    ended,
    signal: (signal) => void child.kill(signal),
    run: <T>(source: string, given: Readonly<Record<string, unknown>> = {}, timeoutMs = STEP_TIMEOUT_MS) => {
      const end = new Promise<T>((resolve, reject) => {
        const timer = setTimeout(() => {
          reject(new Error(`a step has not ended after ${timeoutMs} ms:\n${source}\n${whereabouts(pid)}`));
        }, timeoutMs);
        steps.push({
          resolve: (value) => {
            clearTimeout(timer);
            resolve(value as T);
          },
          reject: (error) => {
            clearTimeout(timer);
            reject(error);
          },
        });
        child.stdin.write(`${JSON.stringify({ source, given })}\n`);
      });
      ends.push(end);
      return end;
    },
  };
}

/**
 * Kills every actor of this test process, without waiting: one that waits in a mount ends when the mount does. A step of which nobody has waited for the
 * end is one of a test that has failed before, and its error says nothing more.
 */
export function endActors(): void {
  for (const [child, ends] of running) {
    for (const end of ends) end.catch(() => undefined);
    child.kill("SIGKILL");
    child.unref();
  }
  running.clear();
  for (const dir of barriers.splice(0)) rmSync(dir, { recursive: true });
}

/** The same, and waits until all have ended: a mount that they were in can be unmounted. Of such as wait in nothing but what a SIGKILL ends. */
export async function actorsEnded(): Promise<void> {
  const ends = [...running.keys()].map((child) => new Promise((resolve) => child.once("exit", resolve)));
  endActors();
  await Promise.all(ends);
}

/** Waits for a state that no event tells of. */
export async function until(what: string, reached: () => boolean | Promise<boolean>, explain: () => string = () => ""): Promise<void> {
  const end = Date.now() + STATE_TIMEOUT_MS;
  while (!(await reached())) {
    if (Date.now() > end) throw new Error(`not reached within ${STATE_TIMEOUT_MS} ms: ${what}\n${explain().slice(-EXPLAIN_CHARACTERS)}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** Waits until the process waits for an answer to a request of its own to a FUSE server, or for a page that such a request holds locked. */
export function untilWaiting(actor: Actor): Promise<void> {
  return until(
    `process ${actor.pid} waits in its mount`,
    () => /request_wait_answer|folio_wait|fuse_/.test(stackOf(actor.pid)),
    () => whereabouts(actor.pid),
  );
}

/** The same, or that what it does has ended before: gives what it ended with, else null. */
export async function untilWaitingOrEnded<T>(actor: Actor, step: Promise<T>): Promise<T | null> {
  return Promise.race([untilWaiting(actor).then(() => null), step]);
}

function stackOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/stack`, "latin1");
  } catch {
    return ""; // It ended: whoever waits for it to wait is told by the time limit.
  }
}
