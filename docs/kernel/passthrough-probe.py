#!/usr/bin/env python3
"""What is left of a file with FUSE_PASSTHROUGH when its server has gone (hazard F24). As root: passthrough-probe.py FILE

FILE is the backing file: its owner's disk. Prints lines "name value", 1 for "it still works", and ends with 77 where this kernel cannot
do it. Numbers are those of include/uapi/linux/fuse.h.
"""
import ctypes, errno, fcntl, mmap, os, signal, struct, sys, tempfile, traceback

LOOKUP, FORGET, GETATTR, OPEN, RELEASE, FLUSH, INIT, BATCH_FORGET = 1, 2, 3, 14, 18, 25, 26, 42
INIT_EXT, PASSTHROUGH_HIGH = 1 << 30, 1 << 5
FOPEN_PASSTHROUGH = 1 << 7
BACKING_OPEN = 0x4010E501  # _IOW(229, 1, struct fuse_backing_map)
MNT_DETACH = 2
CANNOT = 77
libc = ctypes.CDLL(None, use_errno=True)


def attributes(node, backing):
    stat = os.stat(backing)
    mode = 0o40755 if node == 1 else 0o100644
    return struct.pack("<QQQQQQIIIIIIIIII", node, 0 if node == 1 else stat.st_size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def serve(device, backing):
    lower = os.open(backing, os.O_RDWR)
    backing_id = None
    while True:
        try:
            request = os.read(device, 1 << 20)
        except OSError as error:
            if error.errno in (errno.ENODEV, errno.EINTR): return
            raise
        _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
        body = request[40:]
        failed, answer = 0, b""
        if opcode == INIT:
            major, minor, readahead, flags, flags2 = struct.unpack_from("<IIIII", body + bytes(20))
            if not flags2 & PASSTHROUGH_HIGH: os._exit(CANNOT)
            # ..., max_background, congestion_threshold, max_write, time_gran, max_pages, map_alignment, flags2, max_stack_depth
            answer = struct.pack("<IIIIHHIIHHII", 7, minor, readahead, INIT_EXT, 16, 12, 65536, 1, 16, 0, PASSTHROUGH_HIGH, 1) + bytes(24)
        elif opcode == LOOKUP:
            answer = struct.pack("<QQQQII", 2, 1, 3600, 3600, 0, 0) + attributes(2, backing)
        elif opcode == GETATTR:
            answer = struct.pack("<QII", 3600, 0, 0) + attributes(node, backing)
        elif opcode == OPEN:
            if backing_id is None: backing_id = fcntl.ioctl(device, BACKING_OPEN, bytearray(struct.pack("<iIQ", lower, 0, 0)))
            os.close(lower)  # From here on it is open in the kernel alone.
            answer = struct.pack("<QIi", 1, FOPEN_PASSTHROUGH, backing_id)
        elif opcode in (FORGET, BATCH_FORGET): continue
        elif opcode in (RELEASE, FLUSH): pass
        else: failed = -errno.ENOSYS
        os.write(device, struct.pack("<IiQ", 16 + len(answer), failed, unique) + answer)


def works(call):
    try:
        call()
        return 1
    except OSError as error:
        print("%s %s" % (getattr(call, "__name__", "call"), error), file=sys.stderr)
        return 0


def mounted(where, device):
    data = b"fd=%d,rootmode=40000,user_id=0,group_id=0" % device
    if libc.mount(b"probe", os.fsencode(where), b"fuse", 0, data) != 0: raise OSError(ctypes.get_errno(), "mount(2)")


def main(backing):
    where = tempfile.mkdtemp(prefix="passthrough-probe-")
    device = os.open("/dev/fuse", os.O_RDWR)
    mounted(where, device)
    server = os.fork()
    if server == 0:
        try: serve(device, backing)
        except BaseException: traceback.print_exc()
        os._exit(1)
    os.close(device)
    try:
        connection = os.minor(os.stat(where).st_dev)
        handle = os.open(where + "/file", os.O_RDWR)
        view = mmap.mmap(handle, 4096)

        def both(step):
            def read(): assert len(os.pread(handle, 4, 0)) == 4
            def write(): assert os.pwrite(handle, step.encode().ljust(16), 0) == 16
            def mapping(): view[32:48] = step.encode().ljust(16)
            print("%s-read %d" % (step, works(read)))
            print("%s-write %d" % (step, works(write)))
            print("%s-mapped %d" % (step, works(mapping)))
            print("%s-arrived %d" % (step, open(backing, "rb").read(16) == step.encode().ljust(16)), flush=True)

        both("served")
        with open("/sys/fs/fuse/connections/%d/abort" % connection, "w") as abort: abort.write("1")
        both("aborted")
        if libc.umount2(os.fsencode(where), MNT_DETACH) != 0: raise OSError(ctypes.get_errno(), "umount2(2)")
        both("unmounted")
        os.kill(server, signal.SIGKILL)
        _, status = os.waitpid(server, 0)
        if os.waitstatus_to_exitcode(status) == CANNOT: return CANNOT
        server = 0
        both("dead")
        # For whoever looks at what holds the device now: a line on stdin ends it.
        print("held 1", flush=True)
        sys.stdin.readline()
        return 0
    except OSError:
        ended = os.waitpid(server, os.WNOHANG) if server else (0, 0)
        if ended[0] == server and os.waitstatus_to_exitcode(ended[1]) == CANNOT: return CANNOT
        raise
    finally:
        if server: works(lambda: os.kill(server, signal.SIGKILL))
        libc.umount2(os.fsencode(where), MNT_DETACH)
        os.rmdir(where)


sys.exit(main(os.path.abspath(sys.argv[1])))
