/**
 * The programs of the load, in Python: one process for each client, which does its steps one after the other and records each before and after
 * it, outside of the mount. Records are lines: {"i": index, "b": begin}, then {"i": index, "e": end, "x": errno or null, "v": value}.
 */

/** Bytes of a record of a register or of an append. Divides the block of the disk, which keeps or loses a block as a whole. */
export const RECORD_BYTES = 64;

const common = `
import errno, fcntl, json, os, stat, sys, time
RECORD = ${RECORD_BYTES}

def record_of(value):
    """The value twice, so that half a record is no record."""
    text = str(value).encode()
    return text.ljust(RECORD // 2, b".") * 2

def value_of(data):
    half = RECORD // 2
    if data[:half] != data[half:] or len(data) != RECORD: return None
    return data[:half].rstrip(b".").decode("latin1")
`;

/** argv: base directory, objects as JSON. Makes them and syncs all, up to the root of the mount. */
export const SETUP_PROGRAM: string = `${common}
base, objects = sys.argv[1], json.loads(sys.argv[2])
os.umask(0)
os.mkdir(base)
def sync(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
for name in objects:
    path = os.path.join(base, name)
    if name[0] == "n": os.mkdir(path)
    else:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        if name[0] == "r": os.pwrite(fd, record_of(0), 0)
        os.close(fd)
    sync(path)
sync(base)
sync(os.path.dirname(base))
`;

/** argv: a file with {"base", "stop", "clients": [{"history", "steps"}]} as JSON. Ends when the file "stop" is there, or when its mount is dead. */
export const LOAD_PROGRAM: string = `${common}
def look(path):
    found = os.lstat(path)
    tag = stat.S_IMODE(found.st_mode) & 0o777
    return "d%d" % tag if stat.S_ISDIR(found.st_mode) else "f%d*%d" % (tag, found.st_nlink)

def read_all(fd):
    data = os.pread(fd, 1 << 20, 0)
    result = []
    for at in range(0, len(data), RECORD):
        part = data[at:at + RECORD]
        value = value_of(part)
        result.append("" if part == bytes(RECORD) else "torn" if value is None else value)
    return result

class Client:
    def __init__(self, base, stop, history, steps):
        self.base, self.stop, self.steps = base, stop, steps
        self.out = open(history, "w", buffering=1)
        self.fds = {}

    def fd(self, name):
        if name not in self.fds:
            flags = {"n": os.O_RDONLY, "a": os.O_RDWR | os.O_APPEND}.get(name[0], os.O_RDWR)
            self.fds[name] = os.open(os.path.join(self.base, name), flags)
        return self.fds[name]

    def do(self, name, action):
        kind = action["kind"]
        path = lambda key: os.path.join(self.base, name, action[key])
        if kind == "write": return self.whole(os.pwrite(self.fd(name), record_of(action["value"]), 0))
        if kind == "append": return self.whole(os.write(self.fd(name), record_of(action["record"])))
        if kind == "read":
            value = value_of(os.pread(self.fd(name), RECORD, 0))
            return "torn" if value is None or not value.isdigit() else int(value)
        if kind == "readAll": return read_all(self.fd(name))
        if kind == "sync": return os.fsync(self.fd(name))
        if kind == "create": return os.close(os.open(path("name"), os.O_CREAT | os.O_EXCL | os.O_WRONLY, action["tag"]))
        if kind == "mkdir": return os.mkdir(path("name"), action["tag"])
        if kind == "rename": return os.rename(path("name"), path("to"))
        if kind == "link": return os.link(path("name"), path("to"))
        if kind == "unlink": return os.unlink(path("name"))
        if kind == "rmdir": return os.rmdir(path("name"))
        if kind == "look": return look(path("name"))
        if kind == "list":
            directory = os.path.join(self.base, name)
            return {entry: look(os.path.join(directory, entry)) for entry in os.listdir(directory)}
        if kind == "lock": return fcntl.lockf(self.fd(name), fcntl.LOCK_SH if action["shared"] else fcntl.LOCK_EX, 1)
        if kind == "unlock": return fcntl.lockf(self.fd(name), fcntl.LOCK_UN, 1)
        raise RuntimeError("no such action: " + kind)

    def whole(self, count):
        if count != RECORD: raise OSError(errno.EMSGSIZE, "a part of a record was written")

    def run(self):
        for name in sorted({step["object"] for step in self.steps}): self.fd(name)
        for index, step in enumerate(self.steps):
            if self.stop is not None and os.path.exists(self.stop): return
            time.sleep(step["pauseUs"] / 1e6)
            self.out.write(json.dumps({"i": index, "b": time.monotonic_ns()}) + "\\n")
            value, error = None, None
            try: value = self.do(step["object"], step["action"])
            except OSError as problem: error = errno.errorcode.get(problem.errno, str(problem.errno))
            self.out.write(json.dumps({"i": index, "e": time.monotonic_ns(), "x": error, "v": value}) + "\\n")
            # Its mount is dead.
            if error in ("ENOTCONN", "ECONNABORTED", "ENODEV"): return
        while self.stop is not None and not os.path.exists(self.stop): time.sleep(0.05)

with open(sys.argv[1]) as file: plan = json.load(file)
os.umask(0)
children = []
for client in plan["clients"]:
    pid = os.fork()
    if pid == 0:
        Client(plan["base"], plan["stop"], client["history"], client["steps"]).run()
        sys.stdout.flush()
        os._exit(0)
    children.append(pid)
bad = [pid for pid in children if os.waitpid(pid, 0)[1] != 0]
sys.exit(1 if bad else 0)
`;
