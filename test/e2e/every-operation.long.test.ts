/** What a program can do on a local file system, done on the owner and on another node of a lab, and seen from the others. */
import { describe, expect, it } from "vitest";
import { hazardLab } from "./hazards/hazard-lab.ts";

describe("every operation", () => {
  const cluster = hazardLab();
  const nodes = (): readonly number[] => [cluster.owner, cluster.remotes[0]];

  it("a file has one birth time on all nodes, and its other attributes stay those of now", async () => {
    const birth = `
import subprocess
def born(name): return subprocess.run(["stat", "-c", "%W %.W %s", name], capture_output=True, text=True, check=True).stdout.split()
`;
    for (const nodeid of nodes()) {
      const maker = cluster.actor(nodeid);
      await maker.run(`${birth}put("born", "x"); begun = time.time()`);
      const [sec, exact, size] = await maker.run<string[]>(`result = born("born")`);
      expect(size).toBe("1");
      expect(Math.abs(Number(sec) - (await maker.run<number>(`result = begun`)))).toBeLessThan(60);
      for (const other of cluster.all) {
        const looker = cluster.actor(other);
        await looker.run(birth);
        expect(await looker.run(`result = born("born")`)).toEqual([sec, exact, "1"]);
        // The answer to that was cached with the rest: a change elsewhere takes it away.
        await maker.run(`put("born", "x" * ${other + 10}); os.utime("born", (1, ${other}))`);
        expect(await looker.run(`result = born("born") + [os.stat("born").st_mtime]`)).toEqual([sec, exact, `${other + 10}`, other]);
        await maker.run(`put("born", "x")`);
      }
      await maker.run(`os.unlink("born")`);
    }
  });

  const flags = `
def chattr(name, value):
    fd = os.open(name, os.O_RDONLY)
    try: fcntl.ioctl(fd, 0x40086602, struct.pack("q", value))
    finally: os.close(fd)
def lsattr(name):
    fd = os.open(name, os.O_RDONLY)
    try: return struct.unpack("i", fcntl.ioctl(fd, 0x80086601, bytes(8))[:4])[0]
    finally: os.close(fd)
def project(name, number=None, inherit=0):
    fd = os.open(name, os.O_RDONLY)
    try:
        if number is not None: fcntl.ioctl(fd, 0x401c5820, struct.pack("<IIIII8x", inherit, 0, 0, number, 0))
        return struct.unpack("<IIIII8x", fcntl.ioctl(fd, 0x801c581f, bytes(28)))[3]
    finally: os.close(fd)
IMMUTABLE, APPEND, NODUMP = 0x10, 0x20, 0x40
`;

  it("an immutable file is so on each node when chattr has returned, for those that have it open, too", async () => {
    for (const nodeid of nodes()) {
      const setter = cluster.actor(nodeid);
      await setter.run(`${flags}put("fixed", "x" * 5000)`);
      for (const other of cluster.all) {
        const user = cluster.actor(other);
        await user.run(`${flags}get("fixed"); fd = os.open("fixed", os.O_RDWR); os.pwrite(fd, b"y", 0)`);
        await setter.run(`chattr("fixed", lsattr("fixed") | IMMUTABLE); ctime = os.stat("fixed").st_ctime_ns`);
        expect(
          await user.run(`result = [lsattr("fixed") & IMMUTABLE, code(os.pwrite, fd, b"z", 0), code(put, "fixed", "z"), code(os.unlink, "fixed"),
  code(os.chmod, "fixed", 0o600), code(os.rename, "fixed", "other"), code(os.link, "fixed", "other"), code(os.truncate, "fixed", 1),
  code(os.setxattr, "fixed", "user.a", b"1"), get("fixed")[:2]]`),
        ).toEqual([0x10, ...Array.from({ length: 8 }, () => "EPERM"), "yx"]);
        expect(await user.run(`result = os.stat("fixed").st_ctime_ns`)).toBe(await setter.run(`result = ctime`));
        await setter.run(`chattr("fixed", lsattr("fixed") & ~IMMUTABLE)`);
        expect(await user.run(`result = [code(os.pwrite, fd, b"z", 0), get("fixed")[:2]]`)).toEqual(["ok", "zx"]);
        await user.run(`os.pwrite(fd, b"x", 0); os.close(fd)`);
      }
      await setter.run(`os.unlink("fixed")`);
    }
  });

  it("what was written or stored a moment ago is in the file that becomes immutable", async () => {
    for (const nodeid of nodes()) {
      const program = cluster.actor(nodeid);
      await program.run(`${flags}
for k in range(20):
    name = "sealed%d" % k
    fd = os.open(name, os.O_CREAT | os.O_RDWR, 0o644)
    os.write(fd, b"written" + b"." * 4089)
    address = map_shared(fd, 4096)
    ctypes.memmove(address + 100, b"stored", 6)
    chattr(name, IMMUTABLE)
    os.close(fd)
    libc.munmap(address, 4096)`);
      for (const other of cluster.all) {
        expect(
          await cluster
            .actor(other)
            .run(`result = all(get("sealed%d" % k)[:7] == "written" and get("sealed%d" % k)[100:106] == "stored" for k in range(20))`),
        ).toBe(true);
      }
      await program.run(`
for k in range(20):
    chattr("sealed%d" % k, 0)
    os.unlink("sealed%d" % k)`);
    }
  });

  it("a file that may only be appended to is appended to on each node, and not written otherwise", async () => {
    for (const nodeid of nodes()) {
      const setter = cluster.actor(nodeid);
      await setter.run(`${flags}put("log", "begin"); chattr("log", lsattr("log") | APPEND)`);
      for (const other of cluster.all) {
        const user = cluster.actor(other);
        expect(
          await user.run(`result = [code(os.open, "log", os.O_WRONLY), code(os.truncate, "log", 0), code(os.unlink, "log")]
fd = os.open("log", os.O_WRONLY | os.O_APPEND); os.write(fd, b"+"); os.close(fd)`),
        ).toEqual(["EPERM", "EPERM", "EPERM"]);
      }
      expect(await setter.run(`result = get("log")`)).toBe("begin+++");
      await setter.run(`chattr("log", lsattr("log") & ~APPEND); os.unlink("log")`);
    }
  });

  it("only an owner changes flags, only root makes immutable, and other ioctls are refused", async () => {
    await cluster.actor(cluster.owner).run(`put("theirs", "x"); os.chown("theirs", 1001, 1001)`);
    for (const nodeid of nodes()) {
      const [theirs, stranger] = [cluster.actor(nodeid, { uid: 1001, gid: 1001 }), cluster.actor(nodeid, { uid: 1002, gid: 1002 })];
      for (const program of [theirs, stranger]) await program.run(flags);
      expect(await stranger.run(`result = code(chattr, "theirs", NODUMP)`)).toBe("EPERM");
      expect(await theirs.run(`chattr("theirs", lsattr("theirs") | NODUMP); result = code(chattr, "theirs", IMMUTABLE)`)).toBe("EPERM");
      expect(await stranger.run(`result = lsattr("theirs") & NODUMP`)).toBe(0x40);
      await theirs.run(`chattr("theirs", lsattr("theirs") & ~NODUMP)`);
      expect(await theirs.run(`fd = os.open("theirs", os.O_RDONLY); result = code(fcntl.ioctl, fd, 0x80086603, bytes(8))`)).toBe("ENOTTY");
      await theirs.run(`os.close(fd)`);
    }
  });

  const rare = `
import ctypes, select
libc = ctypes.CDLL(None, use_errno=True)
def answer(result): return result if result >= 0 else errno.errorcode[ctypes.get_errno()]
def rename2(old, new, flags): return answer(libc.renameat2(-100, old.encode(), -100, new.encode(), flags))
def fallocate(fd, mode, start, length): return answer(libc.fallocate(fd, mode, ctypes.c_long(start), ctypes.c_long(length)))
class Entry(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_ulong), ("off", ctypes.c_long), ("len", ctypes.c_ushort), ("type", ctypes.c_ubyte), ("name", ctypes.c_char * 256)]
libc.opendir.restype, libc.opendir.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
libc.closedir.argtypes = libc.telldir.argtypes = [ctypes.c_void_p]
libc.telldir.restype = ctypes.c_long
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
libc.readdir.restype, libc.readdir.argtypes = ctypes.POINTER(Entry), [ctypes.c_void_p]
def entries(dir):
    found = []
    while True:
        at = libc.telldir(dir)
        entry = libc.readdir(dir)
        if not entry: return found
        found.append((at, entry.contents.name.decode()))
`;

  it("renameat2(2) leaves a whiteout, exchanges, and replaces nothing, as it is told", async () => {
    for (const nodeid of nodes()) {
      const [mover, looker] = [cluster.actor(nodeid), cluster.actor(cluster.all.find((other) => other !== nodeid) ?? 0)];
      for (const program of [mover, looker]) await program.run(rare);
      await mover.run(`put("from", "x"); os.mkdir("tree")`);
      expect(await looker.run(`result = [get("from"), os.path.exists("to")]`)).toEqual(["x", false]);
      expect(await mover.run(`result = [rename2("from", "tree", 1), rename2("from", "to", 4), rename2("to", "tree", 2)]`)).toEqual([
        "EEXIST",
        0,
        0,
      ]);
      expect(
        await looker.run(
          `found = os.lstat("from"); result = [stat.S_ISCHR(found.st_mode), found.st_rdev, get("tree"), os.path.isdir("to")]`,
        ),
      ).toEqual([true, 0, "x", true]);
      await mover.run(`os.unlink("from"); os.unlink("tree"); os.rmdir("to")`);
    }
  });

  it("a position in a directory holds while another node removes names and makes new ones", async () => {
    for (const nodeid of nodes()) {
      const [reader, changer] = [cluster.actor(nodeid), cluster.actor(cluster.all.find((other) => other !== nodeid) ?? 0)];
      await reader.run(rare);
      await changer.run(`os.mkdir("listed")\nfor k in range(1500): os.close(os.open("listed/%d" % k, os.O_CREAT))`);
      const first = await reader.run<string[]>(`dir = libc.opendir(b"listed"); first = entries(dir); result = [name for _, name in first]`);
      expect(first).toHaveLength(1502);
      const gone = first.slice(400, 500).filter((name) => !name.startsWith("."));
      await changer.run(
        `for name in names: os.unlink("listed/" + name)\nfor k in range(300): os.close(os.open("listed/new%d" % k, os.O_CREAT))`,
        {
          names: gone,
        },
      );
      for (const at of [0, 1, 399, 450, 1000, 1501]) {
        // A position has more than 53 bits.
        const names = await reader.run<string[]>(`libc.seekdir(dir, first[at][0]); result = [name for _, name in entries(dir)]`, { at });
        expect(new Set(names).size).toBe(names.length);
        expect(names.filter((name) => !name.startsWith("new"))).toEqual(first.slice(at).filter((name) => !gone.includes(name)));
      }
      await reader.run(`libc.closedir(dir)`);
      await changer.run(`import shutil; shutil.rmtree("listed")`);
    }
  });

  it("holes, ranges, copies and readiness are those of the volume; COLLAPSE_RANGE, INSERT_RANGE and FIEMAP are refused", async () => {
    for (const nodeid of nodes()) {
      const [writer, looker] = [cluster.actor(nodeid), cluster.actor(cluster.all.find((other) => other !== nodeid) ?? 0)];
      await writer.run(
        `${rare}put("sparse", ""); fd = os.open("sparse", os.O_RDWR); os.pwrite(fd, b"y" * 65536, 0); os.pwrite(fd, b"z", 1 << 30)`,
      );
      await looker.run(`held = os.open("sparse", os.O_RDONLY)`);
      const ends = `result = [os.lseek(held, 0, os.SEEK_HOLE), os.lseek(held, 1 << 20, os.SEEK_DATA), os.fstat(held).st_size]`;
      expect(await looker.run(ends)).toEqual([65_536, 2 ** 30, 2 ** 30 + 1]);
      // FALLOC_FL_PUNCH_HOLE, ZERO_RANGE and KEEP_SIZE; then COLLAPSE_RANGE, INSERT_RANGE, UNSHARE_RANGE.
      expect(await writer.run(`result = [fallocate(fd, mode, 8192, 4096) for mode in (3, 0x10, 1, 8, 0x20, 0x40)]`)).toEqual([
        0,
        0,
        0,
        "ENOTSUP",
        "ENOTSUP",
        "ENOTSUP",
      ]);
      expect(await looker.run(`result = [os.pread(held, 3, 8190).hex(), os.pread(held, 1, 12288).hex()]`)).toEqual(["797900", "79"]);
      expect(await writer.run(`result = code(fcntl.ioctl, fd, 0xC020660B, bytearray(32))`)).toBe("ENOTSUP");
      // A length of more than 32 bits is not cut to nothing.
      expect(
        await writer.run(
          `copy = os.open("copy", os.O_RDWR | os.O_CREAT); result = [os.copy_file_range(fd, copy, 1 << 40, (1 << 30) - 4096, 0), os.fstat(copy).st_size]`,
        ),
      ).toEqual([4097, 4097]);
      expect(await looker.run(`result = os.stat("copy").st_size`)).toBe(4097);
      expect(await writer.run(`poll = select.poll(); poll.register(fd, select.POLLIN | select.POLLOUT); result = poll.poll(0)[0][1]`)).toBe(
        5,
      );
      expect(await writer.run(`result = code(os.link, "copy", "/dev/shm/other")`)).toBe("EXDEV");
      await looker.run(`os.close(held)`);
      await writer.run(`os.close(fd); os.close(copy); os.unlink("copy"); os.unlink("sparse")`);
    }
  });
});
