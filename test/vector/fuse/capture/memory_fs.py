"""A FUSE server over a tree in memory, written from include/uapi/linux/fuse.h and independent of the codec under
test: it decodes each request and packs each reply with `struct`, and keeps both for the vectors (capture.py).
"""
import ctypes
import errno
import os
import struct
import threading

libc = ctypes.CDLL("libc.so.6", use_errno=True)

VALID = 1_000_000_000
SENTINEL = 0x5A00_0000_0000_0000
# Above 2^32, so that both halves of a field are seen.
NODEID_BASE = 1 << 40
FH_BASE = 1 << 33

OPS = {
    1: "lookup", 2: "forget", 3: "getattr", 4: "setattr", 5: "readlink", 6: "symlink", 8: "mknod", 9: "mkdir", 10: "unlink", 11: "rmdir",
    12: "rename", 13: "link", 14: "open", 15: "read", 16: "write", 17: "statfs", 18: "release", 20: "fsync", 21: "setxattr", 22: "getxattr",
    23: "listxattr", 24: "removexattr", 25: "flush", 26: "init", 27: "opendir", 28: "readdir", 29: "releasedir", 30: "fsyncdir", 31: "getlk", 32: "setlk", 33: "setlkw", 35: "create",
    36: "interrupt", 38: "destroy", 42: "batch_forget", 43: "fallocate", 44: "readdirplus", 45: "rename2", 46: "lseek",
    47: "copy_file_range", 50: "syncfs", 51: "tmpfile", 52: "statx",
}
REFUSED = {39: errno.ENOTTY}
REFUSED_NAMES = {34: "ACCESS", 37: "BMAP", 39: "IOCTL", 40: "POLL", 48: "SETUPMAPPING",
                 53: "COPY_FILE_RANGE_64"}


def big(value):
    return {"$big": str(value)}


def raw(value):
    return {"$hex": bytes(value).hex()}


def dev_parts(rdev):
    return (rdev & 0xFFF00) >> 8, (rdev & 0xFF) | ((rdev >> 12) & 0xFFF00)


def new_encode_dev(major, minor):
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def extension_gids(ext):
    gids, at = [], 0
    while at < len(ext):
        size, kind = struct.unpack_from("<II", ext, at)
        if kind == 32:
            count = struct.unpack_from("<I", ext, at + 8)[0]
            gids = list(struct.unpack_from(f"<{count}I", ext, at + 12))
        at += (size + 7) & ~7
    return gids


def decode_ioctl(body):
    """None: not one of those that read and set the attributes of a file."""
    fh, _, cmd, _, in_size, out_size = struct.unpack_from("<QIIQII", body)
    kinds = {0x80086601: ("flags", 4, False), 0x40086602: ("flags", 4, True), 0x801C581F: ("fsxattr", 28, False), 0x401C5820: ("fsxattr", 28, True)}
    if cmd not in kinds:
        return None
    kind, size, sets = kinds[cmd]
    assert (in_size, out_size) == ((size, 0) if sets else (0, size)), (in_size, out_size)
    return dict(fh=fh, kind=kind, value=raw(body[32:32 + size]) if sets else None)


def decode(packet, setxattr_ext):
    """What the codec under test has to find, with its field names."""
    length, opcode, unique, nodeid, uid, gid, pid, extlen, _ = struct.unpack_from("<IIQQIIIHH", packet)
    assert length == len(packet)
    end = length - extlen * 8
    body, ext = packet[40:end], packet[end:]
    head = dict(unique=unique, fuseNodeid=nodeid, uid=uid, gid=gid, pid=pid)
    op = OPS.get(opcode)
    if op is None:
        ioctl = decode_ioctl(body) if opcode == 39 else None
        if ioctl is not None:
            return dict(op="ioctl", **head, **ioctl)
        return dict(op="unserved", opcode=opcode, name="FUSE_" + REFUSED_NAMES[opcode], errno=REFUSED.get(opcode, errno.ENOSYS), **head)
    names = lambda at: body[at:].split(b"\0")[:-1]
    f = {}
    if op == "init":
        major, minor, readahead, flags = struct.unpack_from("<IIII", body)
        if flags & (1 << 30):
            flags |= struct.unpack_from("<I", body, 16)[0] << 32
        f = dict(major=major, minor=minor, maxReadahead=readahead, flags=big(flags))
    elif op in ("lookup", "unlink", "rmdir", "removexattr"):
        f = dict(name=raw(names(0)[0]))
    elif op == "forget":
        f = dict(fuseNodeids=[nodeid], nlookups=list(struct.unpack_from("<Q", body)))
    elif op == "batch_forget":
        op = "forget"
        count = struct.unpack_from("<I", body)[0]
        both = struct.unpack_from(f"<{count * 2}Q", body, 8)
        f = dict(fuseNodeids=list(both[0::2]), nlookups=list(both[1::2]))
    elif op in ("getattr", "statx"):
        flags, _, fh = struct.unpack_from("<IIQ", body)
        f = dict(fh=fh if flags & 1 else None)
    elif op == "setattr":
        valid, _, fh, size, _, at, mt, ct, atn, mtn, ctn, mode, _, uid_, gid_, _ = struct.unpack_from("<IIQQQqqqIIIIIIII", body)
        change = {}
        if valid & 1: change["mode"] = mode
        if valid & 2: change["uid"] = uid_
        if valid & 4: change["gid"] = gid_
        if valid & 8: change["size"] = size
        if valid & 16: change["atime"] = "now" if valid & 128 else dict(sec=at, nsec=atn)
        if valid & 32: change["mtime"] = "now" if valid & 256 else dict(sec=mt, nsec=mtn)
        if valid & 2048: change["killSuidgid"] = True
        f = dict(fh=fh if valid & 64 else None, change=change)
    elif op == "symlink":
        name, target = names(0)
        f = dict(name=raw(name), target=raw(target), supplementaryGids=extension_gids(ext))
    elif op == "mknod":
        mode, rdev, umask, _ = struct.unpack_from("<IIII", body)
        major, minor = dev_parts(rdev)
        f = dict(name=raw(names(16)[0]), mode=mode, umask=umask, rdevMajor=major, rdevMinor=minor, supplementaryGids=extension_gids(ext))
    elif op == "mkdir":
        mode, umask = struct.unpack_from("<II", body)
        f = dict(name=raw(names(8)[0]), mode=mode, umask=umask, supplementaryGids=extension_gids(ext))
    elif op in ("rename", "rename2"):
        newdir = struct.unpack_from("<Q", body)[0]
        flags = struct.unpack_from("<I", body, 8)[0] if op == "rename2" else 0
        name, new_name = names(16 if op == "rename2" else 8)
        op = "rename"
        f = dict(name=raw(name), newFuseNodeid=newdir, newName=raw(new_name), flags=flags)
    elif op == "link":
        f = dict(targetFuseNodeid=struct.unpack_from("<Q", body)[0], name=raw(names(8)[0]))
    elif op in ("open", "opendir"):
        flags, open_flags = struct.unpack_from("<II", body)
        f = dict(flags=flags)
        if op == "open":
            f["killSuidgid"] = bool(open_flags & 1)
    elif op == "create":
        flags, mode, umask, open_flags = struct.unpack_from("<IIII", body)
        f = dict(name=raw(names(16)[0]), flags=flags, mode=mode, umask=umask, killSuidgid=bool(open_flags & 1), supplementaryGids=extension_gids(ext))
    elif op == "tmpfile":
        flags, mode, umask, _ = struct.unpack_from("<IIII", body)
        assert names(16) == [b"/"], names(16)
        f = dict(flags=flags, mode=mode, umask=umask, supplementaryGids=extension_gids(ext))
    elif op in ("read", "readdir", "readdirplus", "write"):
        fh, offset, size, bits, owner, flags = struct.unpack_from("<QQIIQI", body)
        if op == "read":
            f = dict(fh=fh, offset=offset, size=size, lockOwner=big(owner if bits & 2 else 0), flags=flags)
        elif op == "write":
            f = dict(fh=fh, offset=offset, data=raw(body[40:]), fromCache=bool(bits & 1), killSuidgid=bool(bits & 4),
                     lockOwner=big(owner if bits & 2 else 0), flags=flags)
            assert len(body) == 40 + size
        else:
            f = dict(fh=fh, cookie=big(offset), size=size)
    elif op in ("release", "releasedir"):
        fh, flags, bits, owner = struct.unpack_from("<QIIQ", body)
        f = dict(fh=fh, flags=flags, lockOwner=big(owner), flockUnlock=bool(bits & 2)) if op == "release" else dict(fh=fh)
    elif op == "flush":
        fh, _, _, owner = struct.unpack_from("<QIIQ", body)
        f = dict(fh=fh, lockOwner=big(owner))
    elif op in ("getlk", "setlk", "setlkw"):
        fh, owner, start, end, kind, pid, bits = struct.unpack_from("<QQQQIII", body)
        f = dict(fh=fh, owner=big(owner), start=big(start), end=big(end), type=("read", "write", "unlock")[kind])
        if op != "getlk":
            f.update(lockPid=pid, flock=bool(bits & 1), wait=op == "setlkw")
            op = "setlk"
    elif op in ("fsync", "fsyncdir"):
        fh, bits = struct.unpack_from("<QI", body)
        f = dict(fh=fh, dataOnly=bool(bits & 1))
    elif op == "setxattr":
        size, flags = struct.unpack_from("<II", body)
        kill = setxattr_ext and bool(struct.unpack_from("<I", body, 8)[0] & 1)
        f = dict(name=raw(names(16 if setxattr_ext else 8)[0]), value=raw(body[len(body) - size:]), flags=flags, aclKillSgid=kill)
    elif op == "getxattr":
        f = dict(size=struct.unpack_from("<I", body)[0], name=raw(names(8)[0]))
    elif op == "listxattr":
        f = dict(size=struct.unpack_from("<I", body)[0])
    elif op == "interrupt":
        f = dict(targetUnique=struct.unpack_from("<Q", body)[0])
    elif op == "fallocate":
        fh, offset, size, mode = struct.unpack_from("<QQQI", body)
        f = dict(fh=fh, offset=offset, length=size, mode=mode)
    elif op == "lseek":
        fh, offset, whence = struct.unpack_from("<QqI", body)
        f = dict(fh=fh, offset=offset, whence=whence)
    elif op == "copy_file_range":
        op = "copyFileRange"
        fh, offset, node, out_fh, out_offset, size, flags = struct.unpack_from("<7Q", body)
        f = dict(fh=fh, offset=offset, outFuseNodeid=node, outFh=out_fh, outOffset=out_offset, length=size, flags=flags)
    return dict(op=op, **head, **f)


class Node:
    def __init__(self, nodeid, mode, **more):
        self.nodeid, self.ino, self.mode, self.nlink = nodeid, 0x1_0000_0000 + nodeid % 4096, mode, 2 if mode & 0o170000 == 0o040000 else 1
        self.uid = self.gid = self.rdev_major = self.rdev_minor = 0
        self.data, self.children, self.target, self.xattrs = bytearray(), {}, b"", {}
        self.times = [(1_700_000_000, 111_111_111), (1_700_000_001, 222_222_222), (1_700_000_002, 333_333_333)]
        self.shown_size = None
        self.attributes = {}
        self.open_flags = 2
        for key, value in more.items():
            setattr(self, key, value)

    def attr(self):
        size = self.shown_size if self.shown_size is not None else len(self.data)
        (at, atn), (mt, mtn), (ct, ctn) = self.times
        return dict(ino=self.ino, mode=self.mode, nlink=self.nlink, uid=self.uid, gid=self.gid, size=size, blocks=(len(self.data) + 511) // 512,
                    blksize=4096, rdevMajor=self.rdev_major, rdevMinor=self.rdev_minor, atimeSec=at, atimeNsec=atn, mtimeSec=mt, mtimeNsec=mtn,
                    ctimeSec=ct, ctimeNsec=ctn, btimeSec=-5, btimeNsec=444_444_444)


def pack_attr(a):
    return struct.pack("<QQQqqqIIIIIIIIII", a["ino"], a["size"], a["blocks"], a["atimeSec"], a["mtimeSec"], a["ctimeSec"], a["atimeNsec"],
                       a["mtimeNsec"], a["ctimeNsec"], a["mode"], a["nlink"], a["uid"], a["gid"], new_encode_dev(a["rdevMajor"], a["rdevMinor"]),
                       a["blksize"], 0)


def pack_entry(nodeid, generation, a, entry_valid, attr_valid):
    return struct.pack("<QQQQII", nodeid, generation, VALID if entry_valid else 0, VALID if attr_valid else 0, 0, 0) + pack_attr(a)


def pack_dirent(ino, cookie, kind, name):
    record = struct.pack("<QQII", ino, cookie, len(name), kind) + name
    return record + b"\0" * (-len(record) % 8)


class Server:
    def __init__(self, mountpoint, want, on_exchange):
        self.mountpoint, self.want, self.on_exchange = mountpoint, want, on_exchange
        self.nodes = {1: Node(1, 0o040777)}
        self.next = 1
        self.held_read = None
        self.lock = None
        self.entry_valid = True
        self.fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self.fd},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other"
        if libc.mount(b"capture", mountpoint.encode(), b"fuse.capture", 0, options.encode()):
            raise OSError(ctypes.get_errno(), "mount")
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def close(self):
        libc.umount2(self.mountpoint.encode(), 2)
        os.close(self.fd)
        self.thread.join(5)

    def add(self, parent, name, mode, **more):
        node = Node(NODEID_BASE + self.next, mode, **more)
        self.next += 1
        self.nodes[node.nodeid] = node
        self.nodes[parent].children[name] = node.nodeid
        return node

    def loop(self):
        while True:
            try:
                packet = os.read(self.fd, (1 << 20) + 4096)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                    continue
                return
            expect = decode(packet, bool(self.want & (1 << 29)))
            spec, body, err = self.serve(expect, packet)
            if spec is None:
                self.on_exchange(packet, expect, None, None)
                continue
            self.answer(expect["unique"], body, err, lambda reply: self.on_exchange(packet, expect, spec, reply))

    def answer(self, unique, body, err, record):
        reply = struct.pack("<IiQ", 16 + len(body), -err, unique) + body
        # Recorded first: the client may be gone, and its step over, as soon as the kernel has the reply.
        record(reply)
        os.write(self.fd, reply)

    def notify(self, code, body):
        message = struct.pack("<IiQ", 16 + len(body), code, 0) + body
        try:
            os.write(self.fd, message)
            return message, 0
        except OSError as error:
            return message, error.errno

    def entry(self, node, entry_valid=None):
        valid = self.entry_valid if entry_valid is None else entry_valid
        attr_valid = node.shown_size is None
        spec = dict(kind="entry", fuseNodeid=node.nodeid, generation=7, attr=node.attr(), entryValid=valid, attrValid=attr_valid)
        return spec, pack_entry(node.nodeid, 7, node.attr(), valid, attr_valid), 0

    def attr(self, node):
        valid = node.shown_size is None
        return dict(kind="attr", attr=node.attr(), attrValid=valid), struct.pack("<QII", VALID if valid else 0, 0, 0) + pack_attr(node.attr()), 0

    def statx(self, node):
        a = node.attr()
        valid = node.shown_size is None
        time = lambda kind: struct.pack("<qII", a[kind + "timeSec"], a[kind + "timeNsec"], 0)
        body = struct.pack("<QIIQQ", VALID if valid else 0, 0, 0, 0, 0)
        body += struct.pack("<IIQIIIHHQQQQ", 0xFFF, a["blksize"], 0, a["nlink"], a["uid"], a["gid"], a["mode"], 0, a["ino"], a["size"], a["blocks"], 0)
        body += time("a") + time("b") + time("c") + time("m") + struct.pack("<IIII", a["rdevMajor"], a["rdevMinor"], 0, 0) + b"\0" * 112
        return dict(kind="statx", attr=a, attrValid=valid), body, 0

    def error(self, number):
        return dict(kind="error", errno=number), b"", number

    def data(self, body):
        return dict(kind="data", body=raw(body)), bytes(body), 0

    def serve(self, r, packet):
        """(spec, body, errno); spec None: no reply now."""
        op, empty = r["op"], (dict(kind="empty"), b"", 0)
        node = self.nodes.get(r["fuseNodeid"])
        name = bytes.fromhex(r["name"]["$hex"]) if isinstance(r.get("name"), dict) else None
        if op == "unserved":
            return self.error(r["errno"])
        if op == "init":
            flags = self.want & int(r["flags"]["$big"])
            readahead = min(r["maxReadahead"], 1 << 20)
            body = struct.pack("<IIIIHHIIHHII", 7, min(r["minor"], 45), readahead, flags & 0xFFFFFFFF, 65535, 49151, 1 << 20, 1, 256, 0, flags >> 32, 0)
            return dict(kind="init", want=big(self.want)), body + b"\0" * 24, 0
        if op == "interrupt":
            if self.held_read and self.held_read["unique"] == r["targetUnique"]:
                self.answer(r["targetUnique"], b"", errno.EINTR, lambda reply: None)
            return None, None, None
        if op == "forget":
            return None, None, None
        if op == "lookup" and node is None:
            return self.error(errno.ESTALE)
        if op == "lookup":
            child = node.children.get(name)
            if child is not None:
                return self.entry(self.nodes[child])
            if name.startswith(b"remember"):
                return dict(kind="negative"), struct.pack("<QQQQII", 0, 0, VALID, 0, 0, 0) + b"\0" * 88, 0
            return self.error(errno.ENOENT)
        if op == "ioctl":
            if r["value"] is not None:
                node.attributes[r["kind"]] = bytes.fromhex(r["value"]["$hex"])
                return dict(kind="ioctl", body=None), b"\0" * 16, 0
            value = node.attributes.get(r["kind"], b"\0" * (4 if r["kind"] == "flags" else 28))
            return dict(kind="ioctl", body=raw(value)), b"\0" * 16 + value, 0
        if op == "statx":
            return self.statx(node)
        if op == "getattr":
            return self.attr(node)
        if op == "setattr":
            return self.setattr(node, r)
        if op == "readlink":
            return self.data(node.target)
        if op == "symlink":
            return self.entry(self.add(node.nodeid, name, 0o120777, target=bytes.fromhex(r["target"]["$hex"])))
        if op == "mknod":
            return self.entry(self.add(node.nodeid, name, r["mode"], rdev_major=r["rdevMajor"], rdev_minor=r["rdevMinor"], uid=r["uid"], gid=r["gid"]))
        if op == "mkdir":
            return self.entry(self.add(node.nodeid, name, r["mode"] | 0o040000, uid=r["uid"], gid=r["gid"]))
        if op in ("unlink", "rmdir"):
            self.nodes[node.children.pop(name)].nlink -= 1
            return empty
        if op == "rename":
            new = self.nodes[r["newFuseNodeid"]]
            new_name = bytes.fromhex(r["newName"]["$hex"])
            moved, other = node.children.pop(name), new.children.get(new_name)
            new.children[new_name] = moved
            if r["flags"] & 2:
                node.children[name] = other
            return empty
        if op == "link":
            target = self.nodes[r["targetFuseNodeid"]]
            target.nlink += 1
            node.children[name] = target.nodeid
            return self.entry(target)
        return self.serve_open(op, r, node, name, empty)

    def setattr(self, node, r):
        change = r["change"]
        if "mode" in change: node.mode = change["mode"]
        if "uid" in change: node.uid = change["uid"]
        if "gid" in change: node.gid = change["gid"]
        if "size" in change: node.data = node.data[:change["size"]] + bytes(max(0, change["size"] - len(node.data)))
        for i, key in ((0, "atime"), (1, "mtime")):
            if isinstance(change.get(key), dict):
                node.times[i] = (change[key]["sec"], change[key]["nsec"])
        return self.attr(node)

    def serve_open(self, op, r, node, name, empty):
        if op in ("open", "opendir"):
            if op == "open" and r["flags"] & os.O_TRUNC:
                node.data = bytearray()
            flags = node.open_flags if op == "open" else 0
            fh = FH_BASE + node.nodeid % 4096
            return dict(kind="open", fh=fh, openFlags=flags), struct.pack("<QII", fh, flags, 0), 0
        if op in ("create", "tmpfile"):
            child = self.add(node.nodeid, name, r["mode"], uid=r["uid"], gid=r["gid"])
            if op == "tmpfile":
                del self.nodes[node.nodeid].children[name]
                child.nlink = 0
            fh = FH_BASE + child.nodeid % 4096
            spec, body, _ = self.entry(child, entry_valid=None if op == "create" else False)
            return dict(spec, kind="create", fh=fh, openFlags=2), body + struct.pack("<QII", fh, 2, 0), 0
        if op == "read":
            if node.open_flags & 1:
                self.held_read = r
                return None, None, None
            return self.data(node.data[r["offset"]:r["offset"] + r["size"]])
        if op == "write":
            data = bytes.fromhex(r["data"]["$hex"])
            at = len(node.data) if r["offset"] >= SENTINEL else r["offset"]
            node.data.extend(bytes(max(0, at + len(data) - len(node.data))))
            node.data[at:at + len(data)] = data
            return dict(kind="write", bytes=len(data)), struct.pack("<II", len(data), 0), 0
        if op == "copyFileRange":
            data = node.data[r["offset"]:r["offset"] + r["length"]]
            out = self.nodes[r["outFuseNodeid"]]
            out.data[r["outOffset"]:r["outOffset"] + len(data)] = data
            return dict(kind="write", bytes=len(data)), struct.pack("<II", len(data), 0), 0
        if op == "lseek":
            if r["offset"] < 0:
                return self.error(errno.ENXIO)
            at = r["offset"] if r["whence"] == os.SEEK_DATA else len(node.data)
            return dict(kind="lseek", offset=at), struct.pack("<Q", at), 0
        if op == "statfs":
            st = dict(blocks=5_000_000_000, bfree=4_900_000_000, bavail=4_800_000_000, files=6_000_000_000, ffree=5_999_999_999, bsize=4096, frsize=512,
                      namelen=255)
            body = struct.pack("<QQQQQIIII", st["blocks"], st["bfree"], st["bavail"], st["files"], st["ffree"], st["bsize"], st["namelen"], st["frsize"], 0)
            return dict(kind="statfs", statfs=st), body + b"\0" * 24, 0
        if op == "setxattr":
            node.xattrs[name] = bytes.fromhex(r["value"]["$hex"])
            return empty
        if op in ("getxattr", "listxattr"):
            value = node.xattrs.get(name) if op == "getxattr" else b"".join(key + b"\0" for key in node.xattrs)
            if value is None:
                return self.error(errno.ENODATA)
            if r["size"] == 0:
                return dict(kind="xattrSize", bytes=len(value)), struct.pack("<II", len(value), 0), 0
            return self.data(value) if len(value) <= r["size"] else self.error(errno.ERANGE)
        if op == "removexattr":
            return empty if node.xattrs.pop(name, None) is not None else self.error(errno.ENODATA)
        if op in ("readdir", "readdirplus"):
            return self.readdir(op == "readdirplus", r, node)
        if op == "fallocate":
            if r["mode"] == 0:
                node.data.extend(bytes(max(0, r["offset"] + r["length"] - len(node.data))))
            return empty
        if op == "setlk":
            # One that waits is held until it is interrupted, where others lock what it wants.
            if r["wait"] and r["type"] != "unlock" and self.lock is not None:
                self.held_read = r
                return None, None, None
            self.lock = None if r["type"] == "unlock" else (r["type"], int(r["start"]["$big"]), int(r["end"]["$big"]), r["lockPid"])
            return empty
        if op == "getlk":
            if self.lock is None:
                return dict(kind="lk", found=None), struct.pack("<QQII", 0, 0, 2, 0), 0
            kind, start, end, pid = self.lock
            found = dict(type=kind, start=big(start), end=big(end), pid=pid)
            return dict(kind="lk", found=found), struct.pack("<QQII", start, end, ("read", "write").index(kind), pid), 0
        assert op in ("flush", "release", "releasedir", "fsync", "fsyncdir", "destroy", "syncfs"), op
        return empty

    def readdir(self, plus, r, node):
        # A cookie of 63 bits, as ext4 gives.
        cookies = [0x7000_0000_0000_0001 + i for i in range(len(node.children) + 2)]
        listing = [(b".", 4, node.ino, None), (b"..", 4, node.ino, None)]
        for name, nodeid in node.children.items():
            child = self.nodes[nodeid]
            listing.append((name, (child.mode >> 12) & 15, child.ino, child))
        start = int(r["cookie"]["$big"])
        body, entries = b"", []
        for cookie, (name, kind, ino, child) in zip(cookies, listing):
            if start != 0 and cookie <= start:
                continue
            entry = dict(name=raw(name), type=kind, ino=ino, cookie=big(cookie))
            record = pack_dirent(ino, cookie, kind, name)
            if plus and child is not None and not name.startswith(b"unlocked"):
                record = pack_entry(child.nodeid, 7, child.attr(), True, True) + record
                entry.update(fuseNodeid=child.nodeid, generation=7, attr=child.attr())
            elif plus:
                record = b"\0" * 128 + record
            if len(body) + len(record) > r["size"]:
                break
            body += record
            entries.append(entry)
        return dict(kind="readdir", plus=plus, size=r["size"], entries=entries), body, 0
