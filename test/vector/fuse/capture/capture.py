#!/usr/bin/env python3
"""Captures the vectors of test/vector/fuse: mounts the file system of memory_fs.py, lets real programs use it, and writes down what the
kernel sent, what it was answered, and that it took the answers (every step checks what its system calls gave).

As root: python3 test/vector/fuse/capture/capture.py > test/vector/fuse/linux-6.18.json
"""
import json
import os
import platform
import subprocess
import struct
import sys
import tempfile
from collections import Counter

from memory_fs import SENTINEL, Server, big, raw

BITS = dict(async_read=0, export=4, big_writes=5, dont_mask=6, readdirplus=13, readdirplus_auto=14, parallel_dirops=18, posix_acl=20,
            max_pages=22, cache_symlinks=23, auto_inval=12, killpriv_v2=28, setxattr_ext=29, init_ext=30, supp_group=34, expire_only=35)
PLAIN = sum(1 << bit for name, bit in BITS.items() if name not in ("dont_mask", "posix_acl", "setxattr_ext"))
WITH_ACLS = sum(1 << bit for bit in BITS.values())
WITH_LOCKS = PLAIN | 1 << 1 | 1 << 10
OLD = PLAIN & ~(1 << BITS["killpriv_v2"]) & ~(1 << BITS["readdirplus"]) & ~(1 << BITS["readdirplus_auto"])

PRELUDE = """
import ctypes, errno, fcntl, mmap, os, signal, socket, stat, sys, time
M = sys.argv[1] + "/"
libc = ctypes.CDLL("libc.so.6", use_errno=True)
def fails(number, call, *args):
    try: call(*args)
    except OSError as e: assert e.errno == number, e; return
    assert False, "no error"
def sys_(name, *args):
    if getattr(libc, name)(*args) < 0: raise OSError(ctypes.get_errno(), name)
"""

# (what it shows, the operations kept as vectors, the program). The first request of each shape is kept.
STEPS = [
    ("stat of a file", ["lookup"], "os.stat(M + 'file'); s = os.stat(M + 'file'); assert (s.st_size, s.st_ino, s.st_mtime_ns) == (5, 0x100000001, 1700000001222222222)"),
    ("fstat", ["getattr"], "fd = os.open(M + 'sentinel', 0); assert os.fstat(fd).st_size == 0x5a00000000000000"),
    ("seek to the end", ["getattr"], "fd = os.open(M + 'sentinel', 0); assert os.lseek(fd, 0, os.SEEK_END) == 0x5a00000000000000"),
    ("no such name", ["lookup"], "fails(errno.ENOENT, os.stat, M + 'nothing')"),
    ("a negative entry", ["lookup"], "fails(errno.ENOENT, os.stat, M + 'remember-none'); fails(errno.ENOENT, os.stat, M + 'remember-none')"),
    ("a file handle of what it has forgotten", ["lookup"], "import struct; h = ctypes.create_string_buffer(struct.pack('<IiIII', 12, 0x81, 0x12345, 0x6789abcd, 7))\n"
     "fails(errno.ESTALE, sys_, 'open_by_handle_at', os.open(M, 0), h, 0)"),
    ("a name that is not UTF-8", ["lookup"], "fails(errno.ENOENT, os.stat, os.fsencode(M) + b'\\xff\\xfe')"),
    ("chmod", ["setattr"], "os.chmod(M + 'file', 0o640); assert os.stat(M + 'file').st_mode == 0o100640"),
    ("chown", ["setattr"], "os.chown(M + 'file', 1001, 1002); s = os.stat(M + 'file'); assert (s.st_uid, s.st_gid) == (1001, 1002)"),
    ("truncate", ["setattr"], "os.truncate(M + 'file', 5000000000); assert os.stat(M + 'file').st_size == 5000000000; os.truncate(M + 'file', 5)"),
    ("ftruncate", ["setattr"], "fd = os.open(M + 'file', os.O_RDWR); os.ftruncate(fd, 5)"),
    ("truncate by an unprivileged caller", ["setattr"], "os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000); os.truncate(M + 'free', 3)"),
    ("utimens, before 1970", ["setattr"], "os.utime(M + 'file', ns=(-1500000000, 1600000000123456789)); s = os.stat(M + 'file'); assert s.st_atime_ns == -1500000000, s.st_atime_ns"),
    ("touch", ["setattr"], "os.utime(M + 'file')"),
    ("readlink", ["readlink"], "assert os.readlink(M + 'symlink') == 'to/where'"),
    ("symlink", ["symlink"], "os.symlink('the target', M + 'new-symlink')"),
    ("mkfifo", ["mknod"], "os.umask(0o027); os.mkfifo(M + 'fifo', 0o666)"),
    ("mknod of a device", ["mknod"], "os.mknod(M + 'device', 0o20600, os.makedev(300, 70000)); assert os.stat(M + 'device').st_rdev == os.makedev(300, 70000)"),
    ("mkdir", ["mkdir"], "os.umask(0o022); os.mkdir(M + 'new-dir', 0o775)"),
    ("create", ["create", "flush", "release"], "os.umask(0o077); os.close(os.open(M + 'created', os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))"),
    ("create in a directory of a supplementary group", ["create"], "os.setgroups([4242]); os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000); open(M + 'group/created', 'w')"),
    ("mkdir in a directory of a supplementary group", ["mkdir"], "os.setgroups([4242]); os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000); os.mkdir(M + 'group/dir')"),
    ("symlink in a directory of a supplementary group", ["symlink"], "os.setgroups([4242]); os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000); os.symlink('target', M + 'group/symlink')"),
    ("mkfifo in a directory of a supplementary group", ["mknod"], "os.setgroups([4242]); os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000); os.mkfifo(M + 'group/fifo')"),
    ("rename", ["rename"], "os.rename(M + 'created', M + 'dir/renamed'); os.stat(M + 'dir/renamed')"),
    ("rename, not over another", ["rename"], "sys_('renameat2', -100, (M + 'dir/renamed').encode(), -100, (M + 'again').encode(), 1)"),
    ("exchange", ["rename"], "sys_('renameat2', -100, (M + 'again').encode(), -100, (M + 'fifo').encode(), 2); assert stat.S_ISFIFO(os.stat(M + 'again').st_mode)"),
    ("link", ["link"], "os.link(M + 'file', M + 'hardlink'); assert os.stat(M + 'file').st_nlink == 2"),
    ("unlink", ["unlink", "forget"], "os.unlink(M + 'again')"),
    ("rmdir", ["rmdir"], "os.rmdir(M + 'new-dir')"),
    ("open and truncate", ["open"], "os.open(M + 'free', os.O_WRONLY | os.O_TRUNC); assert os.stat(M + 'free').st_size == 0"),
    ("open and truncate by an unprivileged caller", ["open"], "os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000); os.open(M + 'free', os.O_WRONLY | os.O_TRUNC)"),
    ("write", ["write"], "fd = os.open(M + 'free', os.O_WRONLY); assert os.pwrite(fd, b'written', 10) == 7; assert os.fstat(fd).st_size == 17"),
    ("write by an unprivileged caller", ["write"], "os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000); open(M + 'free', 'r+b', 0).write(b'x')"),
    ("direct write", ["write"], "fd = os.open(M + 'free', os.O_RDWR | os.O_DIRECT); os.write(fd, b'direct')"),
    ("write through a mapping", ["write"], "fd = os.open(M + 'free', os.O_RDWR); m = mmap.mmap(fd, 17); m[0:6] = b'mapped'; m.flush()"),
    ("append to a file that shows the sentinel size", ["write"], "fd = os.open(M + 'sentinel', os.O_WRONLY | os.O_APPEND); assert os.write(fd, b'tail') == 4"),
    ("read", ["read"], "fd = os.open(M + 'bytes', 0); assert os.pread(fd, 100, 0) == b'some bytes'"),
    ("direct read", ["read"], "fd = os.open(M + 'bytes', os.O_DIRECT); assert os.pread(fd, 3, 5) == b'byt'"),
    ("an interrupted read", ["read", "interrupt"], "signal.signal(signal.SIGALRM, lambda *a: (_ for _ in ()).throw(InterruptedError())); signal.setitimer(signal.ITIMER_REAL, 0.1)\n"
     "fd = os.open(M + 'slow', 0)\ntry: os.read(fd, 10); assert False\nexcept InterruptedError: pass"),
    ("flock and close", ["release"], "fd = os.open(M + 'free', os.O_RDWR); fcntl.flock(fd, fcntl.LOCK_EX); fcntl.lockf(fd, fcntl.LOCK_EX)"),
    ("statfs", ["statfs"], "s = os.statvfs(M); assert (s.f_blocks, s.f_frsize, s.f_ffree) == (5000000000, 512, 5999999999)"),
    ("fsync", ["fsync"], "os.fsync(os.open(M + 'free', os.O_RDWR))"),
    ("fdatasync", ["fsync"], "os.fdatasync(os.open(M + 'free', os.O_RDWR))"),
    ("fsync of a directory", ["fsyncdir"], "os.fsync(os.open(M + 'dir', os.O_DIRECTORY))"),
    ("setxattr", ["setxattr"], "os.setxattr(M + 'file', 'user.key', b'the value', os.XATTR_CREATE)"),
    ("setxattr of nothing", ["setxattr"], "os.setxattr(M + 'file', 'user.empty', b'')"),
    ("getxattr", ["getxattr"], "assert os.getxattr(M + 'file', 'user.key') == b'the value'"),
    ("length of a value", ["getxattr"], "assert libc.getxattr((M + 'file').encode(), b'user.key', None, 0) == 9"),
    ("getxattr of none", ["getxattr"], "fails(errno.ENODATA, os.getxattr, M + 'file', 'user.none')"),
    ("listxattr", ["listxattr"], "assert set(os.listxattr(M + 'file')) == {'user.key', 'user.empty'}"),
    ("length of the list", ["listxattr"], "assert libc.listxattr((M + 'file').encode(), None, 0) == 20"),
    ("removexattr", ["removexattr"], "os.removexattr(M + 'file', 'user.key')"),
    ("listing with attributes", ["opendir", "readdirplus", "releasedir"], "n = sorted(e.name for e in os.scandir(M + 'list')); assert n == ['a', 'a-longer-name', 'unlocked'], n"),
    ("fallocate", ["fallocate"], "os.posix_fallocate(os.open(M + 'free', os.O_RDWR), 0, 8192)"),
    ("punch a hole", ["fallocate"], "sys_('fallocate', os.open(M + 'free', os.O_RDWR), 3, ctypes.c_long(4096), ctypes.c_long(100))"),
    ("seek a hole", ["lseek"], "assert os.lseek(os.open(M + 'bytes', 0), 2, os.SEEK_HOLE) == 10"),
    ("seek data", ["lseek"], "assert os.lseek(os.open(M + 'bytes', 0), 2, os.SEEK_DATA) == 2"),
    ("copy_file_range", ["copyFileRange", "unserved"], "assert os.copy_file_range(os.open(M + 'bytes', 0), os.open(M + 'free', os.O_RDWR), 4, 5, 1) == 4"),
    ("a nameless file that gets a name", ["tmpfile", "read", "link"], "os.umask(0o027); fd = os.open(M, os.O_TMPFILE | os.O_RDWR, 0o666); assert os.fstat(fd).st_nlink == 0; os.write(fd, b'nameless')\n"
     "os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED); assert os.pread(fd, 8, 0) == b'nameless'; sys_('linkat', -100, b'/proc/self/fd/%d' % fd, -100, (M + 'named').encode(), 0x400)\n"
     "assert os.fstat(fd).st_nlink == os.stat(M + 'named').st_nlink == 1; sys_('linkat', fd, b'', -100, (M + 'twice').encode(), 0x1000); assert os.fstat(fd).st_nlink == 2"),
    ("a nameless file that gets none", ["tmpfile"], "fd = os.open(M + 'dir', os.O_TMPFILE | os.O_WRONLY | os.O_EXCL, 0o600); fails(errno.ENOENT, sys_, 'linkat', fd, b'', -100, (M + 'none').encode(), 0x1000)"),
    ("a nameless file in a directory of a supplementary group", ["tmpfile"], "os.setgroups([4242]); os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000); os.open(M + 'group', os.O_TMPFILE | os.O_RDWR, 0o666)"),
    ("lsattr and chattr", ["ioctl"], "import array; fd = os.open(M + 'file', 0); a = array.array('i', [0x10 | 0x80]); fcntl.ioctl(fd, 0x40086602, a); b = array.array('i', [0, 0])\n"
     "fcntl.ioctl(fd, 0x80086601, b); assert b[0] == 0x90, b"),
    ("a project", ["ioctl"], "import struct; fd = os.open(M + 'dir', 0); fcntl.ioctl(fd, 0x401c5820, struct.pack('<IIIII8x', 0x200, 0, 0, 77, 0))\n"
     "assert struct.unpack('<IIIII8x', fcntl.ioctl(fd, 0x801c581f, bytes(28)))[3] == 77"),
    ("isatty", ["unserved"], "assert not os.isatty(os.open(M + 'bytes', 0))"),
    ("poll", ["unserved"], "import select; p = select.poll(); p.register(os.open(M + 'bytes', 0), select.POLLIN); assert p.poll(0)"),
    ("birth time", ["statx"], "b = ctypes.create_string_buffer(256); sys_('statx', -100, (M + 'bytes').encode(), 0, 0xfff, b)\n"
     "import struct; assert struct.unpack_from('<qI', b, 80) == (-5, 444444444); assert struct.unpack_from('<qI', b, 112) == (1700000001, 222222222)\n"
     "assert struct.unpack_from('<I', b, 0)[0] & 0xfff == 0xfff; assert struct.unpack_from('<H', b, 28)[0] == 0o100444; assert os.stat(M + 'bytes').st_size == 10"),
    ("forget of many", ["forget"], "[os.stat(M + 'many/%d' % i) for i in range(5)]; open('/proc/sys/vm/drop_caches', 'w').write('2'); time.sleep(0.2)"),
]
OLD_STEPS = [
    ("listing without attributes", ["readdir"], "n = sorted(os.listdir(M + 'list')); assert n == ['a', 'a-longer-name', 'unlocked'], n"),
    ("the rest of a listing", ["readdir"], "fd = os.open(M + 'list', os.O_DIRECTORY); b = ctypes.create_string_buffer(56)\nwhile libc.syscall(217, fd, b, 56) > 0: pass"),
]
ACL_STEPS = [
    ("setxattr with the longer header", ["setxattr"], "os.setxattr(M + 'file', 'user.key', b'the value', os.XATTR_REPLACE)"),
    ("setxattr of nothing with the longer header", ["setxattr"], "os.setxattr(M + 'file', 'user.k', b'')"),
    ("an ACL by a stranger to the group", ["setxattr"], "import struct; acl = struct.pack('<I', 2) + b''.join(struct.pack('<HHI', t, 7, i) for t, i in ((1, 0xffffffff), (2, 5), (4, 0xffffffff), (16, 0xffffffff), (32, 0xffffffff)))\n"
     "os.setresgid(1000, 1000, 1000); os.setresuid(1000, 1000, 1000); os.setxattr(M + 'setgid', 'system.posix_acl_access', acl)"),
    ("create with the umask left to the server", ["create"], "os.umask(0o027); os.close(os.open(M + 'masked', os.O_CREAT | os.O_WRONLY, 0o666))"),
]

LOCK_STEPS = [
    ("lock of some bytes", ["setlk"], "fd = os.open(M + 'free', os.O_RDWR); fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 100); os._exit(0)"),
    ("a lock in the way", ["getlk"], "import struct; fd = os.open(M + 'free', os.O_RDWR); r = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack('hhqqi4x', fcntl.F_RDLCK, 0, 0, 0, 0))\n"
     "kind, _, start, length, pid = struct.unpack('hhqqi4x', r); assert (kind, start, length) == (fcntl.F_WRLCK, 100, 10), (kind, start, length)"),
    ("a lock that waits and is interrupted", ["setlk", "interrupt"], "signal.signal(signal.SIGALRM, lambda *a: (_ for _ in ()).throw(InterruptedError())); signal.setitimer(signal.ITIMER_REAL, 0.1)\n"
     "fd = os.open(M + 'free', os.O_RDWR)\ntry: fcntl.lockf(fd, fcntl.LOCK_EX); assert False\nexcept InterruptedError: pass"),
    ("an unlock to the end of the file", ["setlk"], "fd = os.open(M + 'free', os.O_RDWR); fcntl.lockf(fd, fcntl.LOCK_UN)"),
    ("no lock in the way", ["getlk"], "import struct; fd = os.open(M + 'free', os.O_RDWR); r = fcntl.fcntl(fd, fcntl.F_GETLK, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 5, 0, 0))\n"
     "assert struct.unpack('hhqqi4x', r)[0] == fcntl.F_UNLCK"),
    ("flock, unlocked by close", ["setlk", "flush", "release"], "fd = os.open(M + 'free', os.O_RDWR); fcntl.flock(fd, fcntl.LOCK_SH)"),
]

# Steps that ask twice and must lead to one request: the validity was taken as it was meant.
ONCE = {"stat of a file": "lookup", "a negative entry": "lookup"}


def populate(server):
    server.add(1, b"file", 0o100644, data=bytearray(b"hello"))
    server.add(1, b"sentinel", 0o100666, data=bytearray(b"x"), shown_size=SENTINEL)
    server.add(1, b"free", 0o106777, data=bytearray(b"free"), uid=1000)
    server.add(1, b"bytes", 0o100444, data=bytearray(b"some bytes"))
    server.add(1, b"slow", 0o100444, open_flags=1)
    server.add(1, b"setgid", 0o102775, uid=1000, gid=4242)
    server.add(1, b"symlink", 0o120777, target=b"to/where")
    server.add(1, b"dir", 0o040755)
    server.add(1, b"group", 0o040775, gid=4242)
    listed = server.add(1, b"list", 0o040755)
    for name in (b"a", b"a-longer-name", b"unlocked"):
        server.add(listed.nodeid, name, 0o100600)
    many = server.add(1, b"many", 0o040755)
    for i in range(5):
        server.add(many.nodeid, b"%d" % i, 0o100600)


def run(mountpoint, want, options, steps, vectors):
    seen, step, counts = set(), ["", []], Counter()

    def on_exchange(packet, expect, spec, reply):
        if expect["op"] == "init":
            step[:] = [f"INIT {options}", ["init"]]
            spec = dict(spec, options=options)
        counts[step[0], expect["op"]] += 1
        shape = (step[0], expect["op"], expect.get("fh") is None, expect.get("cookie") == big(0), expect.get("kind"), expect.get("value") is None)
        if expect["op"] not in step[1] or shape in seen:
            return
        seen.update([shape, (step[0], expect["op"])])
        vector = dict(name=step[0], hex=packet.hex(), expect=expect)
        if spec is not None:
            vector["reply"] = dict(spec, hex=reply.hex())
        vectors.append(vector)

    server = Server(mountpoint, want, on_exchange)
    try:
        populate(server)
        os.stat(mountpoint)
        for name, keep, program in steps:
            step[:] = [name, keep]
            done = subprocess.run([sys.executable, "-c", PRELUDE + program, mountpoint], timeout=20, capture_output=True, text=True)
            if done.returncode != 0:
                raise SystemExit(f"{name}: {done.stderr}")
            for op in keep:
                if (name, op) not in seen:
                    raise SystemExit(f"{name}: no {op} came")
            if name in ONCE and counts[name, ONCE[name]] != 1:
                raise SystemExit(f"{name}: {counts[name, ONCE[name]]} requests {ONCE[name]}, 1 expected")
        return notifications(server) if options == "plain" else []
    finally:
        server.close()


def notifications(server):
    """Each is taken by the kernel with the result that is given."""
    root = server.nodes[1]
    nodeid = lambda name: root.children[name]
    os.stat(server.mountpoint + "/file")
    os.stat(server.mountpoint + "/bytes")
    os.stat(server.mountpoint + "/sentinel")
    os.stat(server.mountpoint + "/symlink", follow_symlinks=False)
    calls = [
        ("invalInode", 2, dict(fuseNodeid=nodeid(b"file"), offset=big(0), length=big(0)), struct.pack("<Qqq", nodeid(b"file"), 0, 0), 0),
        ("invalInode", 2, dict(fuseNodeid=nodeid(b"file"), offset=big(-1), length=big(0)), struct.pack("<Qqq", nodeid(b"file"), -1, 0), 0),
        ("invalInode", 2, dict(fuseNodeid=nodeid(b"file"), offset=big(4096), length=big(8192)), struct.pack("<Qqq", nodeid(b"file"), 4096, 8192), 0),
        ("invalInode", 2, dict(fuseNodeid=77, offset=big(0), length=big(0)), struct.pack("<Qqq", 77, 0, 0), 2),
        ("store", 4, dict(fuseNodeid=nodeid(b"sentinel"), offset=big(SENTINEL - 1), data=raw(b"\0")),
         struct.pack("<QQII", nodeid(b"sentinel"), SENTINEL - 1, 1, 0) + b"\0", 0),
        ("invalEntry", 3, dict(fuseNodeid=1, name=raw(b"file"), expireOnly=True), struct.pack("<QII", 1, 4, 1) + b"file\0", 0),
        ("invalEntry", 3, dict(fuseNodeid=1, name=raw(b"bytes"), expireOnly=False), struct.pack("<QII", 1, 5, 0) + b"bytes\0", 0),
        ("invalEntry", 3, dict(fuseNodeid=1, name=raw(b"never seen"), expireOnly=False), struct.pack("<QII", 1, 10, 0) + b"never seen\0", 2),
        ("delete", 6, dict(fuseNodeid=1, child=nodeid(b"symlink"), name=raw(b"symlink")), struct.pack("<QQII", 1, nodeid(b"symlink"), 7, 0) + b"symlink\0", 0),
        ("incEpoch", 8, dict(), b"", 0),
        ("resend", 7, dict(), b"", 0),
    ]
    out = []
    for kind, code, fields, body, expected in calls:
        message, result = server.notify(code, body)
        if result != expected:
            raise SystemExit(f"{kind} {fields}: errno {result}, {expected} expected")
        out.append(dict(kind=kind, **fields, hex=message.hex(), errno=result))
    return out


def main():
    mountpoint = tempfile.mkdtemp(prefix="fuse-capture-")
    vectors = []
    try:
        notes = run(mountpoint, PLAIN, "plain", STEPS, vectors)
        run(mountpoint, OLD, "old", OLD_STEPS, vectors)
        run(mountpoint, WITH_ACLS, "acls", ACL_STEPS, vectors)
        run(mountpoint, WITH_LOCKS, "locks", LOCK_STEPS, vectors)
    finally:
        os.rmdir(mountpoint)
    head = dict(kernel=platform.release().split("-")[0], machine=platform.machine(), capturedBy="test/vector/fuse/capture/capture.py")
    lines = lambda items: ",\n    ".join(json.dumps(item) for item in items)
    print("{\n  " + f'"about": {json.dumps(head)},\n  "requests": [\n    {lines(vectors)}\n  ],\n  "notifications": [\n    {lines(notes)}\n  ]\n' + "}")


main()
