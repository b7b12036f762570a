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
class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("reclen", ctypes.c_ushort), ("type", ctypes.c_ubyte), ("name", ctypes.c_char * 256)]

libc.fdopendir.restype, libc.fdopendir.argtypes = ctypes.c_void_p, [I]
libc.readdir.restype, libc.readdir.argtypes = ctypes.POINTER(Dirent), [ctypes.c_void_p]
libc.telldir.restype, libc.telldir.argtypes = L, [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, L]
libc.rewinddir.argtypes = [ctypes.c_void_p]
libc.closedir.argtypes = [ctypes.c_void_p]
AT_FDCWD = -100
NO_FD = 9999  # What is not open is asked for all the same: other refusals may come first. os.* takes -1 for no handle at all.
CLOCK_REALTIME_COARSE = 5  # Of times of files: no later than the call, by up to a tick.
"".encode("latin1").decode("latin1")  # Codecs are loaded before there is no way to them.
NAMES = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP"}
USERS = {0: (0, []), 1001: (1001, [2000]), 1002: (1002, [])}
TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket", stat.S_IFCHR: "char"}
BITS = {name: bits for bits, name in TYPES.items()}
LISTED = {4: "directory", 8: "file", 10: "symlink"}  # DT_DIR, DT_REG, DT_LNK

outside = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
slots = {}
now_is = 0
named = set()  # Names in this sequence: a listing may leave some of them out.


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
def op_rewinddir(path, how):
    stream = libc.fdopendir(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK))
    try:
        first, positions = read_on(stream)
        if how == "rewind":
            libc.rewinddir(stream)
            second = read_on(stream)[0]
        else:
            middle = len(first) // 2
            libc.seekdir(stream, positions[middle])
            second = first[:middle] + read_on(stream)[0]
        return [sorted(filter(None, names)) for names in (first, second)]
    finally: libc.closedir(stream)

def read_on(stream):
    """Entries, None for . and .., and where the stream was before each of them, and in the end."""
    found, positions = [], []
    while True:
        positions.append(libc.telldir(stream))
        ctypes.set_errno(0)
        entry = libc.readdir(stream)
        if not entry:
            must(ctypes.get_errno())
            return found, positions
        name = entry.contents.name.decode()
        found.append(None if name in (".", "..") else LISTED.get(entry.contents.type, "other") + " " + name)

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
        if entry.get("target", "") is None:
            try: entry["target"] = os.readlink(entry["path"])
            except OSError as error: entry["error"] = NAMES.get(error.errno, str(error.errno))
    return found


def walk(path, found):
    entry = {"path": path, "xattrs": {}}
    found.append(entry)
    try: names = look(path, entry)
    except OSError as error: entry["error"] = NAMES.get(error.errno, str(error.errno))
    else:
        for name in names: walk(path.rstrip("/") + "/" + name, found)
    return found


def look(path, entry):
    """What is below it."""
    st = os.lstat(path)
    entry["stat"] = described(st)
    for name in os.listxattr(path, follow_symlinks=False):
        if name.startswith(("user.", "trusted.")): entry["xattrs"][name] = os.getxattr(path, name, follow_symlinks=False).decode()
    if stat.S_ISLNK(st.st_mode): entry["target"] = None
    if stat.S_ISREG(st.st_mode):
        fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
        try: entry["data"] = os.pread(fd, st.st_size + 1, 0).decode("latin1")
        finally: os.close(fd)
    if not stat.S_ISDIR(st.st_mode): return []
    names = os.listdir(path)
    entry["unlisted"] = sorted(name for name in named - {"", ".", ".."} - set(names) if is_there(os.path.join(path, name)))
    return sorted(names)


def is_there(path):
    try: os.lstat(path)
    except OSError: return False
    return True


def note_names(args):
    paths = [args.get("path"), args.get("from"), args.get("to")]
    for path in paths:
        if isinstance(path, str) and len(path) < 1000: named.update(path.split("/"))


def make(uid, op, args):
    become(uid)
    note_names(args)
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


def remove(dir):
    """What is wrong; None: it is gone."""
    try:
        shutil.rmtree(dir)
        return None
    except OSError: clear(dir)
    try: os.rmdir(dir)
    except OSError as error: return NAMES.get(error.errno, str(error.errno))


def clear(dir):
    """What a directory lists is removed, and what it does not but has all the same. No error stops it."""
    try: listed = os.listdir(dir)
    except OSError: listed = []
    for name in (named | set(listed)) - {"", ".", ".."}:
        path = os.path.join(dir, name)
        try:
            if not stat.S_ISDIR(os.lstat(path).st_mode): os.unlink(path)
            else:
                clear(path)
                os.rmdir(path)
        except OSError: pass


def handle(order):
    kind = order["kind"]
    if kind == "calls": return [make(*call) for call in order["calls"]]
    if kind == "at-once": return make_at_once(order["at"], order["calls"])
    if kind == "tree":
        become(0)
        return tree()
    leave()
    if kind == "begin":
        named.clear()
        if order["make"]:
            os.mkdir(order["dir"])
            os.chmod(order["dir"], 0o777)
        os.chroot(order["dir"])
        os.chdir("/")
        os.umask(order["umask"])
    elif kind == "remove": return remove(order["dir"])
    return None


os.umask(0o022)
for line in sys.stdin: print(json.dumps(handle(json.loads(line))), flush=True)
