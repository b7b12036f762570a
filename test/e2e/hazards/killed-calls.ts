/** Calls that wait in a mount, one for each operation of the kernel that may: what is prepared, what is called, and as which operation it waits. */

/**
 * What another node has of the file, or of the directory, that the call needs: "EX" all of it, "PR" what a reader has. So the call waits for the other
 * node alone.
 */
export type HeldLock = "file EX" | "file PR" | "directory EX" | "directory PR";

export interface WaitingCall {
  readonly name: string;
  /** Of the kernel, as the overlay calls it: the one that waits for the lock. */
  readonly op: string;
  /** By the program, in a directory of its own, before the lock goes to the other node. */
  readonly before?: string;
  readonly call: string;
  /** Null: it takes none that another node could keep. */
  readonly lock: HeldLock | null;
  /** As which operation it waits where the owner is stopped; null: it asks the owner for nothing. Not given: as `op`. */
  readonly atOwner?: string | null;
}

const read = `fd = os.open("file", os.O_RDONLY)`;
const write = `fd = os.open("file", os.O_RDWR)`;
/** The kernel knows then that there is no "new". */
const absent = `os.path.exists("new")`;
const known = `os.stat("file"); os.stat("sub"); ${absent}`;
/** As `direct`: the buffer of O_DIRECT is a page. */
const direct = `fd = os.open("file", os.O_RDWR | os.O_DIRECT); page = mmap.mmap(-1, 4096)`;
/** io_setup(2), io_submit(2) of one IOCB_CMD_PREAD. */
const asynchronous = `
${direct}
context = ctypes.c_ulong(0)
assert libc.syscall(206, 8, ctypes.byref(context)) == 0
block = (ctypes.c_char * 64)()
struct.pack_into("<QIIHHIQQqQII", block, 0, 0, 0, 0, 0, 0, fd, ctypes.addressof(ctypes.c_char.from_buffer(page)), 4096, 0, 0, 0, 0)
blocks = (ctypes.c_void_p * 1)(ctypes.addressof(block))`;
/** FS_IOC_GETFLAGS, FS_IOC_SETFLAGS. */
const getFlags = `fcntl.ioctl(fd, 0x80086601, bytearray(8))`;
const setFlags = `fcntl.ioctl(fd, 0x40086602, struct.pack("<q", 0x80))`;

export const waitingCalls: readonly WaitingCall[] = [
  // Attributes and data of a file that another node writes to.
  { name: "access", op: "getattr", before: `os.stat("file")`, call: `os.access("file", os.R_OK)`, lock: "file EX", atOwner: null },
  { name: "getxattr", op: "getattr", before: read, call: `os.getxattr(fd, "user.a")`, lock: "file EX", atOwner: "getxattr" },
  { name: "listxattr", op: "listxattr", before: read, call: `os.listxattr(fd)`, lock: "file EX" },
  { name: "read with O_DIRECT", op: "getattr", before: direct, call: `os.preadv(fd, [page], 0)`, lock: "file EX" },
  { name: "io_submit of a read", op: "getattr", before: asynchronous, call: `libc.syscall(209, context, 1, blocks)`, lock: "file EX" },
  { name: "SEEK_DATA", op: "lseek", before: read, call: `os.lseek(fd, 0, os.SEEK_DATA)`, lock: "file EX" },
  {
    name: "sendfile",
    op: "read",
    before: `${read}; pipe = os.pipe()`,
    call: `os.sendfile(pipe[1], fd, 0, 10)`,
    lock: "file EX",
    atOwner: null,
  },
  {
    name: "splice",
    op: "read",
    before: `${read}; pipe = os.pipe()`,
    call: `os.splice(fd, pipe[1], 10, offset_src=0)`,
    lock: "file EX",
    atOwner: null,
  },
  {
    name: "store to a mapping",
    op: "read",
    before: `${write}; at = map_shared(fd, 4096)`,
    call: `ctypes.memset(at, 65, 1)`,
    lock: "file EX",
    atOwner: null,
  },
  // Changes of a file that another node reads.
  { name: "write", op: "write", before: write, call: `os.pwrite(fd, b"mine", 0)`, lock: "file PR" },
  { name: "ftruncate", op: "setattr", before: write, call: `os.ftruncate(fd, 2)`, lock: "file PR" },
  {
    name: "open with O_TRUNC",
    op: "setattr",
    // After a change of flags the owner is asked for an open for writing (hazard F27).
    before: `${read}; ${setFlags}; os.stat("file")`,
    call: `os.open("file", os.O_WRONLY | os.O_TRUNC)`,
    lock: "file PR",
    atOwner: "open",
  },
  { name: "utimes", op: "setattr", before: read, call: `os.utime(fd)`, lock: "file PR" },
  { name: "setxattr", op: "setxattr", before: read, call: `os.setxattr(fd, "user.a", b"2")`, lock: "file PR" },
  { name: "removexattr", op: "removexattr", before: read, call: `os.removexattr(fd, "user.a")`, lock: "file PR" },
  { name: "fallocate", op: "fallocate", before: write, call: `os.posix_fallocate(fd, 0, 1 << 20)`, lock: "file PR" },
  {
    name: "copy_file_range",
    op: "copyFileRange",
    before: `${write}; source = os.open("other", os.O_RDONLY)`,
    call: `os.copy_file_range(source, fd, 1, 0, 0)`,
    lock: "file PR",
  },
  { name: "chattr", op: "ioctl", before: read, call: setFlags, lock: "file PR", atOwner: "open" },
  // Names in a directory that another node changes. The kernel asks for its attributes first.
  { name: "stat of a name", op: "getattr", call: `os.stat("file")`, lock: "directory EX", atOwner: null },
  { name: "open", op: "getattr", call: `os.open("file", os.O_RDONLY)`, lock: "directory EX", atOwner: "open" },
  {
    name: "readdir",
    op: "getattr",
    before: `fd = os.open(".", os.O_RDONLY)`,
    call: `os.listdir(fd)`,
    lock: "directory EX",
    atOwner: "readdirplus",
  },
  // Changes of a directory that another node reads.
  { name: "create", op: "create", before: known, call: `os.open("new", os.O_CREAT | os.O_WRONLY)`, lock: "directory PR" },
  { name: "O_TMPFILE", op: "tmpfile", before: known, call: `os.open(".", os.O_TMPFILE | os.O_RDWR)`, lock: null },
  { name: "mkdir", op: "mkdir", before: known, call: `os.mkdir("new")`, lock: "directory PR" },
  { name: "mknod", op: "mknod", before: known, call: `os.mknod("new", 0o644)`, lock: "directory PR" },
  { name: "symlink", op: "symlink", before: known, call: `os.symlink("file", "new")`, lock: "directory PR" },
  { name: "link", op: "link", before: known, call: `os.link("file", "new")`, lock: "directory PR" },
  { name: "unlink", op: "unlink", before: known, call: `os.unlink("file")`, lock: "directory PR" },
  { name: "rmdir", op: "rmdir", before: known, call: `os.rmdir("sub")`, lock: "directory PR" },
  { name: "rename", op: "rename", before: known, call: `os.rename("file", "new")`, lock: "directory PR" },
  // What only the owner can say.
  {
    name: "lookup",
    op: "lookup",
    before: `os.listdir("../many"); name = os.path.basename(os.getcwd())`,
    call: `os.stat("../many/not " + name)`,
    lock: null,
  },
  { name: "statfs", op: "statfs", call: `os.statvfs(".")`, lock: null },
  { name: "exec", op: "read", before: `os.stat("program")`, call: `os.execv("program", ["program"])`, lock: null },
  { name: "lsattr", op: "open", before: read, call: getFlags, lock: null },
  { name: "readlink", op: "readlink", call: `os.readlink("link")`, lock: null },
  { name: "fsync", op: "fsync", before: `${write}; os.pwrite(fd, b"mine", 0)`, call: `os.fsync(fd)`, lock: null },
  { name: "fsync of a directory", op: "fsyncdir", before: `fd = os.open(".", os.O_RDONLY)`, call: `os.fsync(fd)`, lock: null },
];

/** By another node, in the directory of the program: that it has that lock. */
export const takeLock: Readonly<Record<HeldLock, string>> = {
  "file EX": `fd = os.open("file", os.O_RDWR); os.pwrite(fd, b"new", 0)`,
  "file PR": `get("file")`,
  "directory EX": `put("theirs", "x")`,
  "directory PR": `os.listdir(".")`,
};

/** By the owner, once: a directory with too many names to be told, so only the owner can say that one is not there (hazard F32). */
export const makeMany = `
os.mkdir("many")
for n in range(count): os.mknod("many/%d" % n)`;

/** `make`: what is in each directory before. */
export const makeDirectories = `
import shutil
def make(dir):
    os.mkdir(dir)
    for name in ("file", "other"): put(dir + "/" + name, "old" * 3000)
    os.setxattr(dir + "/file", "user.a", b"1")
    os.symlink("file", dir + "/link")
    os.mkdir(dir + "/sub")
    shutil.copy("/bin/true", dir + "/program")
os.chdir(mount)
for dir in dirs: make(dir)`;

/** By another node: it changes all that the programs had, or asked for. */
export const takeAll = `
os.chdir(mount)
for dir in dirs:
    put(dir + "/another", "x")
    for name in os.listdir(dir):
        if os.path.isfile(dir + "/" + name): os.utime(dir + "/" + name)`;

/**
 * Programs, one for each row, as children of one actor: a python3 process for each would take most of the time. `prepare`: each in its directory, up to
 * its call. `begin`: all call at once. `kill`: SIGKILL to all; gives how each has ended, or where in the kernel it is still.
 */
export const children = `
import select
kids = {}
def prepare(mount, rows):
    for row in rows:
        ready, said = os.pipe(); told, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(ready); os.close(go)
            scope = dict(globals())
            try:
                os.chdir(mount + "/" + row["dir"])
                exec(row["before"], scope)
                os.write(said, b"ready")
                os.read(told, 1)
                exec(row["call"], scope)
                os.write(said, b"it did not wait")
            except BaseException: os.write(said, traceback.format_exc().encode())
            os._exit(0)
        os.close(told); os.close(said)
        kids[row["name"]] = (pid, ready, go)
    for name, (pid, ready, go) in kids.items():
        word = os.read(ready, 4000).decode()
        if word != "ready": raise RuntimeError(name + ": " + word)
    return {name: pid for name, (pid, ready, go) in kids.items()}

def begin():
    for pid, ready, go in kids.values(): os.write(go, b"x")

def said(name):
    """What it has said since it began; "": nothing, so it is in its call."""
    ready = kids[name][1]
    return os.read(ready, 4000).decode() if select.select([ready], [], [], 0)[0] else ""

def kill(names, limit=10):
    ends = {}
    for name in names: os.kill(kids[name][0], signal.SIGKILL)
    for name in names:
        pid = kids[name][0]
        fd = os.pidfd_open(pid)
        if select.select([fd], [], [], limit)[0]:
            status = os.waitpid(pid, 0)[1]
            ends[name] = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else said(name)
        else: ends[name] = open("/proc/%d/stack" % pid).read()
        os.close(fd)
    return ends
`;
