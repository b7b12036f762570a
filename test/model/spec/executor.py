"""Makes calls of a sequence in a mount, as the users that they name, and says what the kernel answered.

Lines of JSON come in, lines of JSON go out. Paths begin at a directory that is made for the sequence: this process lives in it
(chroot), so that /, .. and absolute symbolic links are those of the model."""
import ctypes, errno, json, os, shutil, stat, sys, time

libc = ctypes.CDLL(None, use_errno=True)
L, I, S = ctypes.c_long, ctypes.c_int, ctypes.c_char_p
libc.linkat.argtypes = [I, S, I, S, I]
libc.renameat2.argtypes = [I, S, I, S, ctypes.c_uint]
libc.fallocate.argtypes = [I, I, L, L]
libc.faccessat.argtypes = [I, S, I, I]
libc.truncate.argtypes = [S, L]
libc.ftruncate.argtypes = [I, L]
AT_FDCWD = -100
NO_FD = 9999  # What is not open is asked for all the same: other refusals may come first. os.* takes -1 for no handle at all.
CLOCK_REALTIME_COARSE = 5  # Of times of files: no later than the call, by up to a tick.
"".encode("latin1").decode("latin1")  # Codecs are loaded before there is no way to them.
NAMES = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP"}
USERS = {0: (0, []), 1001: (1001, [2000]), 1002: (1002, [])}
TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket", stat.S_IFCHR: "char"}
BITS = {name: bits for bits, name in TYPES.items()}

outside = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
slots = {}
now_is = 0


def become(uid):
    global now_is
    if uid == now_is: return
    os.setresuid(-1, 0, -1)
    gid, groups = USERS[uid]
    os.setgroups(groups)
    os.setresgid(gid, gid, 0)
    os.setresuid(uid, uid, 0)
    now_is = uid


def must(result):
    if result != 0: raise OSError(ctypes.get_errno(), "")


def fd_of(slot):
    if slot not in slots: raise OSError(errno.EBADF, "")
    return slots[slot]


def on(target):
    """What os.* takes for a path or something open."""
    if "path" in target: return target["path"], {"follow_symlinks": target["follow"]}
    return slots.get(target["slot"], NO_FD), {}


def described(st):
    kind = TYPES.get(stat.S_IFMT(st.st_mode), "?")
    return {"type": kind, "mode": stat.S_IMODE(st.st_mode), "uid": st.st_uid, "gid": st.st_gid, "nlink": st.st_nlink,
            "size": None if kind == "directory" else st.st_size, "ino": st.st_ino,
            "atime": str(st.st_atime_ns), "mtime": str(st.st_mtime_ns), "ctime": str(st.st_ctime_ns)}


def op_open(path, access, flags, mode, slot):
    bits = getattr(os, "O_" + access) | os.O_NONBLOCK
    for flag in flags: bits |= getattr(os, "O_" + flag)
    fd = os.open(path, bits, mode)
    if slot in slots: os.close(slots.pop(slot))
    slots[slot] = fd

def op_close(slot):
    os.close(fd_of(slot))
    del slots[slot]

def at(slot, offset):
    """A negative position is refused before the handle is looked at."""
    return slots.get(slot, NO_FD) if offset is not None else fd_of(slot)

def op_read(slot, offset, length):
    fd = at(slot, offset)
    return (os.read(fd, length) if offset is None else os.pread(fd, length, offset)).decode("latin1")

def op_write(slot, offset, letter, length):
    fd, data = at(slot, offset), letter.encode("latin1") * length
    return os.write(fd, data) if offset is None else os.pwrite(fd, data, offset)

def op_lseek(slot, offset, whence): return os.lseek(fd_of(slot), offset, getattr(os, "SEEK_" + whence))

def op_seek_data(slot, offset, what):
    fd = fd_of(slot)
    before = os.lseek(fd, 0, os.SEEK_CUR)
    try: return os.lseek(fd, offset, getattr(os, "SEEK_" + what))
    finally: os.lseek(fd, before, os.SEEK_SET)

def op_truncate(path, length): must(libc.truncate(path.encode(), length))
def op_ftruncate(slot, length): must(libc.ftruncate(slots.get(slot, NO_FD), length))

def op_fallocate(slot, mode, offset, length):
    bits = {"KEEP_SIZE": 1, "PUNCH_HOLE": 2, "ZERO_RANGE": 16}
    must(libc.fallocate(slots.get(slot, NO_FD), sum(bits[name] for name in mode), offset, length))

def op_copy_file_range(**given):
    return os.copy_file_range(fd_of(given["from"]), fd_of(given["to"]), given["length"], given["fromOffset"], given["toOffset"])

def op_fsync(slot, dataOnly): (os.fdatasync if dataOnly else os.fsync)(fd_of(slot))
def op_stat(target):
    of, how = on(target)
    return described(os.stat(of, **how))
def op_chmod(target, mode):
    of, how = on(target)
    os.chmod(of, mode)
def op_chown(target, uid, gid):
    of, how = on(target)
    os.chown(of, uid, gid, **how)
def op_utimens(target, times):
    of, how = on(target)
    if times is None: os.utime(of, **how)
    else: os.utime(of, ns=(int(times["atimeNs"]), int(times["mtimeNs"])), **how)
def op_access(path, mask): must(libc.faccessat(AT_FDCWD, path.encode(), mask, 0))
def op_readlink(path): return os.readlink(path)
def op_readdir(path): return listed(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK))
def op_getdents(slot):
    fd = fd_of(slot)
    if not stat.S_ISDIR(os.fstat(fd).st_mode): raise OSError(errno.ENOTDIR, "")
    return listed(os.dup(fd))
def op_mkdir(path, mode): os.mkdir(path, mode)
def op_mknod(path, type, mode): os.mknod(path, BITS[type] | mode, os.makedev(1, 3) if type == "char" else 0)
def op_symlink(target, path): os.symlink(target, path)
def op_link(**given): must(libc.linkat(AT_FDCWD, given["from"].encode(), AT_FDCWD, given["to"].encode(), 0))
def op_unlink(path): os.unlink(path)
def op_rmdir(path): os.rmdir(path)
def op_rename(**given):
    flags = sum({"NOREPLACE": 1, "EXCHANGE": 2}[name] for name in given["flags"])
    must(libc.renameat2(AT_FDCWD, given["from"].encode(), AT_FDCWD, given["to"].encode(), flags))
def op_setxattr(target, name, value, flag):
    of, how = on(target)
    os.setxattr(of, name, value.encode(), {"CREATE": 1, "REPLACE": 2, None: 0}[flag], **how)
def op_getxattr(target, name):
    of, how = on(target)
    return os.getxattr(of, name, **how).decode()
def op_listxattr(target):
    of, how = on(target)
    return sorted(name for name in os.listxattr(of, **how) if name.startswith(("user.", "trusted.")))
def op_removexattr(target, name):
    of, how = on(target)
    os.removexattr(of, name, **how)


def listed(fd):
    """Types come from getdents(2) itself: nothing is looked up that the user may not search."""
    try:
        with os.scandir(fd) as entries: return sorted(entry_type(e) + " " + e.name for e in entries)
    finally: os.close(fd)

def entry_type(entry):
    if entry.is_symlink(): return "symlink"
    if entry.is_dir(follow_symlinks=False): return "directory"
    if entry.is_file(follow_symlinks=False): return "file"
    return "other"


def tree():
    """All that is there, as root sees it. Links are read in the end: that changes the access time, which their other names show, too."""
    found = walk("/", [])
    for entry in found:
        if "target" in entry: entry["target"] = os.readlink(entry["path"])
    return found


def walk(path, found):
    st = os.lstat(path)
    entry = {"path": path, "stat": described(st), "xattrs": {}}
    found.append(entry)
    for name in os.listxattr(path, follow_symlinks=False):
        if name.startswith(("user.", "trusted.")): entry["xattrs"][name] = os.getxattr(path, name, follow_symlinks=False).decode()
    if stat.S_ISLNK(st.st_mode): entry["target"] = None
    if stat.S_ISREG(st.st_mode):
        fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
        try: entry["data"] = os.pread(fd, st.st_size + 1, 0).decode("latin1")
        finally: os.close(fd)
    if stat.S_ISDIR(st.st_mode):
        for name in sorted(os.listdir(path)): walk(path.rstrip("/") + "/" + name, found)
    return found


def make(uid, op, args):
    become(uid)
    began = time.clock_gettime_ns(CLOCK_REALTIME_COARSE)
    try: answer = {"value": globals()["op_" + op](**args)}
    except OSError as error: answer = {"errno": NAMES.get(error.errno, str(error.errno))}
    answer["began"], answer["ended"] = str(began), str(time.clock_gettime_ns(time.CLOCK_REALTIME))
    return answer


def make_at_once(at, calls):
    """Beside other programs: from that moment on, each with its begin and end on the clock that all processes share."""
    answers = []
    time.sleep(max(0, at - time.monotonic_ns()) / 1e9)
    for call in calls:
        become(call[0])
        begin = time.monotonic_ns()
        answer = make(*call)
        answer["end"] = time.monotonic_ns()
        answer["begin"] = begin
        answers.append(answer)
    return answers


def leave():
    become(0)
    for fd in slots.values(): os.close(fd)
    slots.clear()
    os.fchdir(outside)
    os.chroot(".")


def handle(order):
    kind = order["kind"]
    if kind == "calls": return [make(*call) for call in order["calls"]]
    if kind == "at-once": return make_at_once(order["at"], order["calls"])
    if kind == "tree":
        become(0)
        return tree()
    leave()
    if kind == "begin":
        if order["make"]:
            os.mkdir(order["dir"])
            os.chmod(order["dir"], 0o777)
        os.chroot(order["dir"])
        os.chdir("/")
        os.umask(order["umask"])
    elif kind == "remove": shutil.rmtree(order["dir"])
    return None


os.umask(0o022)
for line in sys.stdin: print(json.dumps(handle(json.loads(line))), flush=True)
