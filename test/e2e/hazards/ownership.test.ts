/** Hazard F36: a node's kernel checks who owns a file with what it was told last. What it lets pass is checked again by its overlay. */
import { describe, expect, it } from "vitest";
import { hazardLab } from "./hazard-lab.ts";

const FORMER = { uid: 1000, gid: 1000, groups: [3000] } as const;
const NEXT = { uid: 2000, gid: 2000 } as const;

const prelude = `
ACCESS = "system.posix_acl_access"
def acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, bits, who) for tag, bits, who in entries)
NOBODY = 0xffffffff
MINE = acl((1, 6, NOBODY), (2, 7, 1000), (4, 4, NOBODY), (16, 7, NOBODY), (32, 4, NOBODY))
FS_IOC_SETFLAGS, FS_NODUMP_FL = 0x40086602, struct.pack("<l", 0x40)
def changes(name, fd):
    return [code(os.chmod, name, 0o666), code(os.fchmod, fd, 0o666), code(os.utime, name, (1, 1)), code(os.utime, fd, (1, 1)),
        code(os.utime, name), code(os.chown, name, -1, 3000), code(os.chown, name, 1000, -1), code(os.setxattr, name, ACCESS, MINE),
        code(fcntl.ioctl, fd, FS_IOC_SETFLAGS, FS_NODUMP_FL)]
def state(name):
    s = os.stat(name)
    return [s.st_uid, s.st_gid, oct(stat.S_IMODE(s.st_mode)), os.listxattr(name)]
`;

const refused = ["EPERM", "EPERM", "EPERM", "EPERM", "EACCES", "EPERM", "EPERM", "EPERM", "EPERM"];

describe("who owns a file", () => {
  const hazard = hazardLab();
  const roles = (role: string): readonly [number, number] =>
    role === "the owner" ? [hazard.owner, hazard.remotes[0]] : [hazard.remotes[0], hazard.remotes[1]];

  it.each(["the owner", "a remote node"])("on %s: a former owner changes nothing, by its path or through a descriptor", async (role) => {
    const [a, b] = roles(role);
    const dir = `former-${role.replaceAll(" ", "-")}`;
    const root = hazard.actor(b);
    await root.run(`os.mkdir(dir); os.chmod(dir, 0o777)`, { dir });
    const former = hazard.actor(a, { ...FORMER, below: dir });
    await former.run(`${prelude}
put("file", "text"); put("other", "text")
fd, other = os.open("file", os.O_RDWR), os.open("other", os.O_RDWR)
os.stat("file"); os.stat("other")`);
    // While it is its own.
    expect(await former.run(`result = changes("other", other)`)).toEqual(refused.map(() => "ok"));
    await root.run(`${prelude}os.chown(dir + "/file", 2000, 2000)`, { dir });
    expect(await former.run(`result = changes("file", fd)`)).toEqual(refused);
    // What it has open it writes to and cuts off as before, as on any file system.
    expect(await former.run(`result = [os.pwrite(fd, b"more", 0), code(os.ftruncate, fd, 2)]`)).toEqual([4, "ok"]);
    const state = `result = state(dir + "/file") + [get(dir + "/file")]`;
    for (const nodeid of hazard.all)
      expect(await hazard.actor(nodeid).run(prelude + state, { dir })).toEqual([2000, 2000, "0o644", [], "mo"]);
  });

  it("capabilities of a user namespace of its own make no former owner the owner", async ({ skip }) => {
    const [a, b] = hazard.remotes;
    const root = hazard.actor(b);
    await root.run(`os.mkdir("namespace"); os.chmod("namespace", 0o777)`);
    const former = hazard.actor(a, { ...FORMER, below: "namespace" });
    await former.run(`put("file", "text"); os.stat("file")`);
    // Now the kernel takes it for root in there.
    skip((await former.run(`result = libc.unshare(0x10000000)`)) !== 0, "this machine lets nobody make a user namespace");
    await root.run(`os.chown("namespace/file", 2000, 2000)`);
    expect(await former.run(`result = code(os.chmod, "file", 0o666)`)).toBe("EPERM");
  });

  it.each(["the owner", "a remote node"])("on %s: a former owner takes nothing from a sticky directory", async (role) => {
    const [a, b] = roles(role);
    const dir = `sticky-${role.replaceAll(" ", "-")}`;
    const root = hazard.actor(b);
    await root.run(`os.mkdir(dir); os.chmod(dir, 0o1777)`, { dir });
    const former = hazard.actor(a, { ...FORMER, below: dir });
    await former.run(`
names = ("unlinked", "moved", "replaced", "exchanged", "mine", "last")
for name in names: put(name, name)
os.mkdir("dir"); os.listdir(".")
for name in names + ("dir",): os.stat(name)
`);
    await root.run(`for name in ("unlinked", "moved", "replaced", "exchanged", "dir"): os.chown(dir + "/" + name, 2000, 2000)`, { dir });
    expect(
      await former.run(`
def exchange(one, two):
    if libc.renameat2(-100, one.encode(), -100, two.encode(), 2): raise OSError(ctypes.get_errno(), "renameat2")
result = [code(os.unlink, "unlinked"), code(os.rename, "moved", "away"), code(os.rename, "mine", "replaced"),
    code(exchange, "mine", "exchanged"), code(os.rmdir, "dir"), code(os.unlink, "mine"), code(os.rename, "last", "first")]
`),
    ).toEqual(["EPERM", "EPERM", "EPERM", "EPERM", "EPERM", "ok", "ok"]);
    expect(await root.run(`result = sorted(os.listdir(dir))`, { dir })).toEqual([
      "dir",
      "exchanged",
      "first",
      "moved",
      "replaced",
      "unlinked",
    ]);
  });

  it("an owner makes no file set-group-id whose group another node has changed to one that it is not in", async () => {
    const [a, b] = hazard.remotes;
    const root = hazard.actor(b);
    await root.run(`os.mkdir("setgid"); os.chmod("setgid", 0o777)`);
    // In a directory of its own: of a name that is looked up anew the kernel is told the group.
    const owner = hazard.actor(a, { ...FORMER, below: "setgid" });
    await owner.run(`put("program", ""); os.chown("program", -1, 3000); os.stat("program")`);
    await root.run(`os.chown("setgid/program", -1, 4000)`);
    expect(await owner.run(`os.chmod("program", 0o2755); result = oct(os.stat("program").st_mode)`)).toBe("0o100755");
  });

  it.each(["the owner", "a remote node"])("F37, on %s: set-user-ID goes with a stranger's change, not with an error", async (role) => {
    const [a, b] = roles(role);
    const dir = `set-id-${role.replaceAll(" ", "-")}`;
    const other = hazard.actor(b);
    await other.run(
      `os.mkdir(dir); os.chmod(dir, 0o777)
put(dir + "/text", "text"); put(dir + "/program", "old"); os.chmod(dir + "/program", 0o666)`,
      { dir },
    );
    const stranger = hazard.actor(a, { ...FORMER, below: dir });
    await stranger.run(`fd, text, far = os.open("program", os.O_RDWR), os.open("text", os.O_RDONLY), 1 << 50
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
def fallocate(mode, offset, bytes):
    if libc.fallocate(fd, mode, offset, bytes): raise OSError(ctypes.get_errno(), "fallocate")
def copy(length, source, target): assert os.copy_file_range(text, fd, length, source, target) == length
def mode(): return oct(stat.S_IMODE(os.fstat(fd).st_mode))
tries = [(os.pwrite, fd, b"new", far), (fallocate, 0, far, 1), (fallocate, 3, far, 1), (copy, 4, 0, far)]
made = [(os.pwrite, fd, b"new", 0), (fallocate, 0, 10, 1), (fallocate, 3, 0, 1), (copy, 4, 0, 0), (os.ftruncate, fd, 2)]`);
    const program = `os.chown(dir + "/program", 2000, 2000); os.chmod(dir + "/program", 0o6777)`;
    for (const look of ["", "mode()"]) {
      await other.run(program, { dir });
      // A kernel that knows of the bits sends something more.
      await stranger.run(look);
      expect(await stranger.run(`result = [code(*call) for call in tries]`)).toEqual(["EFBIG", "EFBIG", "EFBIG", "EFBIG"]);
      expect(await stranger.run(`result = mode()`)).toBe("0o6777");
      for (let at = 0; at < 5; at += 1) {
        await other.run(program, { dir });
        await stranger.run(look);
        const linked = `code(os.link, "program", "second"), code(os.unlink, "second")`;
        expect(await stranger.run(`result = [code(*made[at]), ${linked}, mode()]`, { at })).toEqual(["ok", "ok", "ok", "0o777"]);
        expect(await other.run(`result = oct(stat.S_IMODE(os.stat(dir + "/program").st_mode))`, { dir })).toBe("0o777");
      }
    }
    // chown(2) of nothing: the kernel sends the same as before a write.
    await other.run(program, { dir });
    expect(await stranger.run(`os.close(fd); fd = os.open("program", os.O_RDONLY); result = mode()`)).toBe("0o6777");
    await stranger.run(`code(os.chown, "program", -1, -1)`);
    expect(await stranger.run(`result = mode()`)).toBe("0o6777");
    expect(
      await other.run(`os.chown(dir + "/program", -1, -1); result = oct(stat.S_IMODE(os.stat(dir + "/program").st_mode))`, { dir }),
    ).toBe("0o777");
  });

  it("a node's kernel refuses a link to what another node made set-user-ID, maybe because of the directory", async () => {
    const [a, b] = hazard.remotes;
    const root = hazard.actor(b);
    await root.run(`os.mkdir("linked"); put("linked/file", "x"); os.chown("linked/file", 2000, 2000); os.chmod("linked/file", 0o666)`);
    // Through a descriptor: a walk there would make this node's kernel look at the name anew.
    await root.run(`fd = os.open("linked/file", os.O_RDWR)`);
    const stranger = hazard.actor(a, { ...FORMER, below: "linked" });
    const link = `result = [code(os.link, "file", "second"), os.listdir(".")]`;
    expect(await stranger.run(`os.stat("file"); ${link}`)).toEqual(["EACCES", ["file"]]);
    await root.run(`os.fchmod(fd, 0o4666)`);
    const [errno, names] = await stranger.run<[string, string[]]>(link);
    expect(["EACCES", "EPERM"]).toContain(errno);
    expect(names).toEqual(["file"]);
    // Now it was told.
    expect(await stranger.run(link)).toEqual(["EPERM", ["file"]]);
  });

  it("a node's kernel may refuse a new owner until it was asked for the attributes", async () => {
    const [a, b] = hazard.remotes;
    const root = hazard.actor(b);
    await hazard.actor(a).run(`os.mkdir("next"); os.chmod("next", 0o1777); put("next/file", "x"); os.stat("next/file")`);
    const next = hazard.actor(a, { ...NEXT, below: "next" });
    await next.run(`os.stat("file")`);
    await root.run(`os.chown("next/file", 2000, 2000)`);
    // Its overlay hears nothing of these.
    expect(await next.run(`result = [code(os.chmod, "file", 0o600), code(os.unlink, "file")]`)).toEqual(["EPERM", "EPERM"]);
    expect(await next.run(`os.stat("file"); result = [code(os.chmod, "file", 0o600), code(os.unlink, "file")]`)).toEqual(["ok", "ok"]);
  });
});
