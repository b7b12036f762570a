/**
 * Hazards F15 to F20: supplementary groups, sync, ACLs, orphans and what is no regular file, the price of a stat, and what the overlay
 * asks of its own kernel.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { until } from "../actor.ts";
import { hazardLab } from "./hazard-lab.ts";

/** ACLs as in the extended attribute (linux/posix_acl_xattr.h). */
const acls = `
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
def acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, bits, who) for tag, bits, who in entries)
def entries(name, which=ACCESS):
    data = os.getxattr(name, which)
    return [list(struct.unpack_from("<HHI", data, at)) for at in range(4, len(data), 8)]
NOBODY = 0xffffffff
def mode(name): return oct(stat.S_IMODE(os.stat(name).st_mode))
`;

/** The same answer from each of the three nodes. */
const onEach = (answer: readonly string[]): (readonly string[])[] => [answer, answer, answer];

const PF_MEMALLOC_NOIO = 0x0008_0000;
const CAP_SYS_RESOURCE = 1n << 24n;

function mayUseResources(): boolean {
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "latin1"))?.[1] ?? "0";
  return (BigInt(`0x${mask}`) & CAP_SYS_RESOURCE) !== 0n;
}

describe("permissions, orphans, sync", () => {
  const hazard = hazardLab();

  it.each(["the owner", "a remote node"])("F15: on %s a program works in a directory of a supplementary group", async (role) => {
    const [a, b] = role === "the owner" ? [hazard.owner, hazard.remotes[0]] : [hazard.remotes[0], hazard.owner];
    const dir = `group-${role.replaceAll(" ", "-")}`;
    await hazard
      .actor(a)
      .run(
        `os.mkdir(dir); os.chown(dir, 0, 2000); os.chmod(dir, 0o770); os.mkdir(dir + "/setgid"); os.chown(dir + "/setgid", 0, 2000); os.chmod(dir + "/setgid", 0o2770)`,
        { dir },
      );
    const member = hazard.actor(a, { below: dir, uid: 1000, gid: 1000, groups: [2000, 3000], umask: 0 });
    const work = await member.run<string[]>(`
fd = os.open("file", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640); os.write(fd, b"text"); os.close(fd)
os.mkdir("dir", 0o700); os.symlink("file", "link"); os.mkfifo("fifo", 0o600); os.mknod("node", 0o600)
os.link("file", "second"); os.rename("second", "dir/second"); os.unlink("fifo")
os.chown("file", -1, 3000)
put("setgid/file", "x", mode=0o660); os.mkdir("setgid/dir", 0o700)
result = sorted(os.listdir("."))
`);
    expect(work).toEqual(["dir", "file", "link", "node", "setgid"]);
    const seen = await hazard.actor(b).run(
      `
os.chdir(dir)
def owner(name):
    s = os.lstat(name)
    return [s.st_uid, s.st_gid, oct(stat.S_IMODE(s.st_mode))]
result = [owner(name) for name in ("file", "dir", "node", "setgid/file", "setgid/dir")]
`,
      { dir },
    );
    expect(seen).toEqual([
      [1000, 3000, "0o640"],
      [1000, 1000, "0o700"],
      [1000, 1000, "0o600"],
      [1000, 2000, "0o660"],
      [1000, 2000, "0o2700"],
    ]);
    const stranger = hazard.actor(a, { uid: 1001, gid: 1001, groups: [3000] });
    expect(
      await stranger.run(`result = [code(os.stat, dir + "/file"), code(os.open, dir + "/new", os.O_CREAT | os.O_RDWR)]`, { dir }),
    ).toEqual(["EACCES", "EACCES"]);
  });

  it("F15: a member of a supplementary group keeps the setgid bit of a program that it makes in a setgid directory", async () => {
    const root = hazard.actor(hazard.owner);
    await root.run(`os.mkdir("bin"); os.chown("bin", 0, 2000); os.chmod("bin", 0o2770)`);
    const member = hazard.actor(hazard.remotes[0], { below: "bin", uid: 1000, gid: 1000, groups: [2000], umask: 0 });
    // Nothing is written: a write takes the bit, on a local file system too.
    await member.run(`os.close(os.open("program", os.O_CREAT | os.O_WRONLY, 0o2770))`);
    expect(await root.run(`s = os.stat("bin/program"); result = [s.st_gid, oct(stat.S_IMODE(s.st_mode))]`)).toEqual([2000, "0o2770"]);
  });

  it("F16: after fsync data is on the disk; syncfs returns; what a write returned for is seen everywhere", async () => {
    for (const nodeid of hazard.all) {
      const name = `synced${nodeid}`;
      const marker = `marker of ${name}, ${process.pid} ${"=".repeat(40)}`;
      const program = hazard.actor(nodeid);
      await program.run(`fd = os.open(name, os.O_RDWR | os.O_CREAT); os.write(fd, marker.encode() * 100); os.fsync(fd)`, { name, marker });
      // Data that is in no journal yet: a search of the image finds what the disk has.
      expect(readFileSync(`${hazard.lab.dir}/disk.img`).includes(marker)).toBe(true);
      expect(await program.run(`os.write(fd, b"more"); result = libc.syncfs(fd)`)).toBe(0);
      for (const other of hazard.all) {
        expect(await hazard.actor(other).run(`result = get(name)[-4:]`, { name })).toBe("more");
      }
    }
  });

  it("F17: the mask of an ACL is obeyed on every node, and a changed one at once", async () => {
    const [first, second] = [hazard.actor(hazard.owner), hazard.actor(hazard.remotes[0])];
    const guests = hazard.all.map((nodeid) => hazard.actor(nodeid, { uid: 1001, gid: 1001 }));
    const members = hazard.all.map((nodeid) => hazard.actor(nodeid, { uid: 1002, gid: 3000 }));
    await first.run(`${acls}put("listed", "text"); os.chown("listed", 1000, 3000)`);
    await second.run(acls);
    const tries = `result = [code(os.open, "listed", os.O_RDONLY), code(os.open, "listed", os.O_RDWR)]`;
    const all = (programs: typeof guests): Promise<unknown[]> => Promise.all(programs.map((program) => program.run(tries)));
    await first.run(`os.chmod("listed", 0o640)`);
    expect(await all(guests)).toEqual(onEach(["EACCES", "EACCES"]));
    expect(await all(members)).toEqual(onEach(["ok", "EACCES"]));
    for (let round = 0; round < 5; round += 1) {
      // The user may read and write, the group nothing, and the mask leaves reading.
      await first.run(
        `os.setxattr("listed", ACCESS, acl((USER_OBJ, 6, NOBODY), (USER, 6, 1001), (GROUP_OBJ, 0, NOBODY), (MASK, 4, NOBODY), (OTHER, 0, NOBODY)))`,
      );
      expect(await all(guests)).toEqual(onEach(["ok", "EACCES"]));
      expect(await all(members)).toEqual(onEach(["EACCES", "EACCES"]));
      expect(await second.run(`result = [mode("listed"), [e[1] for e in entries("listed")]]`)).toEqual(["0o640", [6, 6, 0, 4, 0]]);
      // chmod sets the mask.
      await second.run(`os.chmod("listed", 0o660)`);
      expect(await all(guests)).toEqual(onEach(["ok", "ok"]));
      expect(await all(members)).toEqual(onEach(["EACCES", "EACCES"]));
      expect(await first.run(`result = [e[1] for e in entries("listed")]`)).toEqual([6, 6, 0, 6, 0]);
      await second.run(`os.removexattr("listed", ACCESS)`);
      expect(await all(guests)).toEqual(onEach(["EACCES", "EACCES"]));
      await first.run(`os.chmod("listed", 0o640)`);
    }
  });

  it.each(["the root of the mount", "a directory"])(
    "F21: an ACL that comes and goes on another node, of %s in which this node makes files meanwhile: obeyed at once",
    async (where) => {
      const [here, there] = hazard.remotes;
      const dir = where === "a directory" ? "guarded" : ".";
      const [changes, makes] = [hazard.actor(there), hazard.actor(here)];
      const guest = hazard.actor(here, { uid: 1001, gid: 1001 });
      await changes.run(`${acls}os.makedirs(dir, exist_ok=True); os.chmod(dir, 0o755)`, { dir });
      // The maker is root, and the directory root's: nobody but the guest has its ACL asked for.
      const made = makes.run<number>(
        `k = 0
while not os.path.exists(dir + "/enough"): put("%s/made-%d" % (dir, k), "x"); k += 1
result = k`,
        { dir },
        60_000,
      );
      const tries = `result = [code(os.stat, dir + "/made-0"), code(os.listdir, dir)]`;
      await until("the first file is there", async () => (await guest.run<string[]>(tries, { dir }))[0] === "ok");
      const counted = async (): Promise<number> => (await hazard.counters(here))["lowerRoundTrips"] ?? 0;
      for (let round = 0; round < 10; round += 1) {
        await changes.run(
          `os.setxattr(dir, ACCESS, acl((USER_OBJ, 7, NOBODY), (USER, 0, 1001), (GROUP_OBJ, 5, NOBODY), (MASK, 7, NOBODY), (OTHER, 5, NOBODY)))`,
          { dir },
        );
        expect(await guest.run(tries, { dir })).toEqual(["EACCES", "EACCES"]);
        await changes.run(`os.removexattr(dir, ACCESS)`, { dir });
        expect(await guest.run(tries, { dir })).toEqual(["ok", "ok"]);
      }
      await changes.run(`put(dir + "/enough", "")`, { dir });
      expect(await made).toBeGreaterThan(10);
      // Known from now on: the state that all this is about.
      await guest.run(tries, { dir });
      const before = await counted();
      await guest.run(`for _ in range(100): os.stat(dir + "/made-0")`, { dir });
      expect((await counted()) - before).toBeLessThan(10);
      await changes.run(`for name in os.listdir(dir):\n    if name.startswith("made-") or name == "enough": os.unlink(dir + "/" + name)`, {
        dir,
      });
    },
    120_000,
  );

  it.each(["the owner", "a remote node"])("F23: on %s set-user-ID goes with a user's write that need not be waited for", async (role) => {
    const [a, b] = role === "the owner" ? [hazard.owner, hazard.remotes[0]] : [hazard.remotes[0], hazard.owner];
    const dir = `set-id-${role.replaceAll(" ", "-")}`;
    await hazard.actor(a).run(`os.mkdir(dir); os.chown(dir, 1000, 1000)`, { dir });
    const user = hazard.actor(a, { below: dir, uid: 1000, gid: 1000, umask: 0 });
    // Made with it, given it before or after a write that goes behind, by the descriptor or the path; and through a second descriptor.
    await user.run(`
for k in range(20):
    fd = os.open("made%d" % k, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o6755)
    os.write(fd, b"x"); os.close(fd)
    fd = os.open("before%d" % k, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o755)
    os.fchmod(fd, 0o4755); os.write(fd, b"x"); os.close(fd)
    fd = os.open("between%d" % k, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o755)
    os.write(fd, b"x"); os.chmod("between%d" % k, 0o2755); os.write(fd, b"y"); os.close(fd)
    fd = os.open("second%d" % k, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o755)
    os.write(fd, b"x"); os.fchmod(fd, 0o6755)
    other = os.open("second%d" % k, os.O_RDWR); os.write(other, b"y"); os.close(other); os.close(fd)`);
    const modes = `result = sorted({name.rstrip("0123456789") + " " + oct(os.stat(name).st_mode & 0o7777) for name in os.listdir(".")})`;
    const cleared = ["before 0o755", "between 0o755", "made 0o755", "second 0o755"];
    expect(await user.run(modes)).toEqual(cleared);
    expect(await hazard.actor(b, { below: dir }).run(modes)).toEqual(cleared);
    // It was there: a file that nobody writes to keeps it.
    expect(
      await user.run(`os.close(os.open("kept", os.O_WRONLY | os.O_CREAT, 0o6755)); result = oct(os.stat("kept").st_mode & 0o7777)`),
    ).toBe("0o6755");
  });

  it("F21: an extended attribute that comes and goes on another node is there and gone at once, and what a write takes away, too", async () => {
    const [here, there] = hazard.remotes;
    const [looks, changes, owns] = [hazard.actor(here), hazard.actor(there), hazard.actor(hazard.owner)];
    await changes.run(`os.mkdir("attributes"); os.chdir("attributes")`);
    await owns.run(`os.chdir("attributes")`);
    await looks.run(`
os.chdir("attributes")
def found(name):
    try: value = os.getxattr(name, "user.a").decode()
    except OSError as error: value = errno.errorcode[error.errno]
    return [sorted(os.listxattr(name)), value]`);
    await owns.run(`put("file", "x")`);
    const look = `result = found("file")`;
    for (let round = 0; round < 10; round += 1) {
      const program = round % 2 === 0 ? changes : owns;
      expect(await looks.run(look)).toEqual([[], "ENODATA"]);
      // Known by now, and made here again.
      // What was written behind may be answered only now, and nobody waits for that.
      const before = await hazard.trips(here);
      expect(await looks.run(look)).toEqual([[], "ENODATA"]);
      expect(await hazard.trips(here)).toBe(before);
      await program.run(`os.setxattr("file", "user.a", b"1")`);
      expect(await looks.run(look)).toEqual([["user.a"], "1"]);
      await program.run(`os.removexattr("file", "user.a")`);
      expect(await looks.run(look)).toEqual([[], "ENODATA"]);
      await looks.run(`os.setxattr("file", "user.a", b"2")`);
      expect(await looks.run(look)).toEqual([["user.a"], "2"]);
      await looks.run(`os.removexattr("file", "user.a"); os.unlink("file"); put("file", "made here")`);
    }
    // cap_net_raw+ep (linux/capability.h, VFS_CAP_REVISION_2).
    await changes.run(`os.setxattr("file", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0))`);
    expect(await looks.run(`result = found("file")[0]`)).toEqual(["security.capability"]);
    await looks.run(`put("file", "y")`);
    expect(await looks.run(`result = found("file")[0]`)).toEqual([]);
    expect(await owns.run(`result = os.listxattr("file")`)).toEqual([]);
  });

  it.each(["the owner", "a remote node"])(
    "F17: on %s set-group-id goes with an ACL that is set by an owner outside of the group",
    async (role) => {
      const node = role === "the owner" ? hazard.owner : hazard.remotes[0];
      const dir = `setgid-${role.replaceAll(" ", "-")}`;
      const root = hazard.actor(node);
      await root.run(
        `${acls}
os.mkdir(dir); os.chdir(dir)
for name in ("program", "data", "dir", "default", "member", "privileged"):
    os.mkdir(name) if name in ("dir", "default") else put(name, "")
    os.chown(name, 1000, 3000); os.chmod(name, 0o2664 if name == "data" else 0o2775)
RW, RWX = [acl((USER_OBJ, bits, NOBODY), (GROUP_OBJ, bits, NOBODY), (OTHER, 4, NOBODY)) for bits in (6, 7)]
os.setxattr("privileged", ACCESS, RWX)`,
        { dir },
      );
      const set = (name: string, value: "RW" | "RWX", which = "ACCESS"): string => `os.setxattr("${name}", ${which}, ${value})`;
      const given = `${acls}RW, RWX = [acl((USER_OBJ, bits, NOBODY), (GROUP_OBJ, bits, NOBODY), (OTHER, 4, NOBODY)) for bits in (6, 7)]\n`;
      const stranger = hazard.actor(node, { below: dir, uid: 1000, gid: 1000 });
      await stranger.run(
        given + [set("program", "RW"), set("data", "RWX"), set("dir", "RWX"), set("default", "RWX", "DEFAULT")].join("\n"),
      );
      await hazard.actor(node, { below: dir, uid: 1000, gid: 1000, groups: [3000] }).run(given + set("member", "RWX"));
      const names = ["program", "data", "dir", "default", "member", "privileged"];
      const modes = `${acls}result = [mode("%s/%s" % (dir, name)) for name in names]`;
      for (const nodeid of hazard.all) {
        // As fs/posix_acl.c, posix_acl_update_mode, has it on ext4: a default ACL changes no mode.
        expect(await hazard.actor(nodeid).run(modes, { dir, names })).toEqual(["0o664", "0o774", "0o774", "0o2775", "0o2774", "0o2774"]);
      }
    },
  );

  it("F17: the umask counts where there is no default ACL, and only there", async () => {
    const [a, b] = [hazard.remotes[0], hazard.owner];
    const root = hazard.actor(a);
    await root.run(`${acls}
os.mkdir("umask"); os.chmod("umask", 0o777)
os.mkdir("defaults"); os.chmod("defaults", 0o777)
os.setxattr("defaults", DEFAULT, acl((USER_OBJ, 7, NOBODY), (USER, 6, 1001), (GROUP_OBJ, 5, NOBODY), (MASK, 7, NOBODY), (OTHER, 0, NOBODY)))
`);
    const user = hazard.actor(a, { uid: 1000, gid: 1000, umask: 0o077 });
    await user.run(`
for dir in ("umask", "defaults"):
    os.close(os.open(dir + "/file", os.O_CREAT | os.O_RDWR, 0o666))
    os.mkdir(dir + "/dir", 0o777); os.mknod(dir + "/node", 0o666)
`);
    const seen = await hazard.actor(b).run(`${acls}
result = [mode(dir + name) for dir in ("umask", "defaults") for name in ("/file", "/dir", "/node")]
result.append([e[1] for e in entries("defaults/file")])
result.append([e[1] for e in entries("defaults/dir", DEFAULT)])
`);
    expect(seen).toEqual(["0o600", "0o700", "0o600", "0o660", "0o770", "0o660", [6, 6, 5, 6, 0], [7, 6, 5, 7, 0]]);
    const guest = hazard.actor(hazard.remotes[1], { uid: 1001, gid: 1001 });
    expect(await guest.run(`result = [code(os.open, "defaults/file", os.O_RDWR), code(os.open, "umask/file", os.O_RDONLY)]`)).toEqual([
      "ok",
      "EACCES",
    ]);
  });

  it("F18: a file that is open and has lost its names, here or elsewhere", async () => {
    const [a, b] = hazard.remotes;
    const holder = hazard.actor(a);
    const other = hazard.actor(b);
    await holder.run(
      `put("gone", "text"); os.link("gone", "gone.second"); fd = os.open("gone", os.O_RDWR); result = os.fstat(fd).st_nlink`,
    );
    // Both have the attributes when the name goes: what the holder is told next is what the other's removal made of them.
    await other.run(`os.stat("gone")`);
    expect(await holder.run(`result = os.fstat(fd).st_nlink`)).toBe(2);
    await other.run(`os.unlink("gone")`);
    expect(await holder.run(`result = [os.fstat(fd).st_nlink, os.pread(fd, 10, 0), code(os.stat, "gone")]`)).toEqual([1, "text", "ENOENT"]);
    await other.run(`os.stat("gone.second")`);
    expect(await holder.run(`result = os.fstat(fd).st_nlink`)).toBe(1);
    await other.run(`os.unlink("gone.second")`);
    expect(
      await holder.run(`result = [os.fstat(fd).st_nlink, os.pread(fd, 10, 0), os.pwrite(fd, b"TEXT", 0), os.pread(fd, 10, 0)]`),
    ).toEqual([0, "text", 4, "TEXT"]);
    await other.run(`put("gone", "another")`);
    expect(await holder.run(`result = [os.pread(fd, 10, 0), os.fstat(fd).st_nlink, get("gone")]; os.close(fd)`)).toEqual([
      "TEXT",
      0,
      "another",
    ]);
    // Replaced by a rename.
    await holder.run(`fd = os.open("gone", os.O_RDONLY)`);
    await other.run(`put("new", "new"); os.rename("new", "gone")`);
    expect(await holder.run(`result = [os.fstat(fd).st_nlink, os.pread(fd, 10, 0), get("gone")]`)).toEqual([0, "another", "new"]);
  });

  it("F18: a directory that was removed elsewhere under a program that works in it", async () => {
    const [a, b] = [hazard.owner, hazard.remotes[0]];
    const other = hazard.actor(b);
    await other.run(`os.mkdir("removed"); put("removed/file", "x"); put("kept", "x")`);
    const worker = hazard.actor(a, { below: "removed" });
    await worker.run(`dir = os.open(".", os.O_RDONLY); os.listdir("."); get("file")`);
    await other.run(`os.unlink("removed/file"); os.rmdir("removed")`);
    const codes = await worker.run<string[]>(`
result = [code(os.stat, "file"), code(os.open, "new", os.O_CREAT | os.O_RDWR), code(os.mkdir, "new"), code(os.symlink, "x", "new"), code(os.link, "../kept", "new"), code(os.rename, "../kept", "new"), code(os.unlink, "file")]
`);
    expect(codes).toEqual(codes.map(() => "ENOENT"));
    const listing = await worker.run<string>(`
try: result = "empty" if os.listdir(".") == [] else "full"
except FileNotFoundError: result = "ENOENT"
`);
    expect(["empty", "ENOENT"]).toContain(listing);
    const links = await worker.run<number>(`
try: result = os.fstat(dir).st_nlink
except FileNotFoundError: result = 0
`);
    expect(links).toBe(0);
    // statfs gives up what is kept of removed inodes (removed-inodes.ts), as time does: whatever needs the inode itself finds none.
    await worker.run(`os.close(dir); os.statvfs(".")`);
    const late = await worker.run<string[]>(
      `result = [code(os.chmod, ".", 0o700), code(os.listdir, "."), code(os.setxattr, ".", "user.k", b"v"), code(os.listxattr, ".")]`,
    );
    expect(late).toEqual(late.map(() => "ENOENT"));
    expect(await worker.run(`result = [code(os.stat, "."), os.stat(".").st_nlink]`)).toEqual(["ok", 0]);
    await other.run(`os.mkdir("removed"); put("removed/file", "new")`);
    expect(await worker.run(`result = [code(os.stat, "file"), get("../removed/file")]`)).toEqual(["ENOENT", "new"]);
  });

  it("F18: fifos, devices, sockets and symbolic links are changed from every node, and never opened for it", async () => {
    const programs = hazard.all.map((nodeid) => hazard.actor(nodeid));
    const [maker] = programs;
    await maker?.run(`
os.mkdir("special"); os.mkfifo("special/fifo"); os.mknod("special/null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
socket.socket(socket.AF_UNIX).bind("special/socket"); os.symlink("target", "special/link")
`);
    for (const [at, program] of programs.entries()) {
      await program.run(
        `
for name in ("fifo", "null", "socket"):
    os.chmod("special/" + name, 0o600 + at); os.chown("special/" + name, 100 + at, 200 + at); os.utime("special/" + name, (at, at))
os.lchown("special/link", 100 + at, 200 + at); os.utime("special/link", (at, at), follow_symlinks=False)
`,
        { at },
      );
      for (const looker of programs) {
        const seen = await looker.run(`
def what(name):
    s = os.lstat("special/" + name)
    return [stat.S_IFMT(s.st_mode) >> 12, stat.S_IMODE(s.st_mode) & 7, s.st_uid, s.st_gid, int(s.st_mtime)]
result = [what(name) for name in ("fifo", "null", "socket")] + [what("link")[2:], os.readlink("special/link"), os.stat("special/null").st_rdev]
`);
        const [kind, change] = [
          [1, 2, 12],
          [at, 100 + at, 200 + at, at],
        ];
        expect(seen).toEqual([...kind.map((type) => [type, ...change]), change.slice(1), "target", 259]);
      }
    }
    const [one, two] = programs;
    await one?.run(`os.link("special/fifo", "special/second"); os.rename("special/second", "special/third"); os.unlink("special/fifo")`);
    expect(await two?.run(`result = [sorted(os.listdir("special")), os.stat("special/third").st_nlink]`)).toEqual([
      ["link", "null", "socket", "third"],
      1,
    ]);
    // Within a node a fifo is a fifo.
    const [writer, reader] = [hazard.actor(hazard.owner), hazard.actor(hazard.owner)];
    const [, read] = await Promise.all([
      writer.run(`fd = os.open("special/third", os.O_WRONLY); os.write(fd, b"through"); os.close(fd)`),
      reader.run(`fd = os.open("special/third", os.O_RDONLY); result = os.read(fd, 100); os.close(fd)`),
    ]);
    expect(read).toBe("through");
  });

  it("F19: a stat after a cached read costs no lock message, and without a read it costs nothing", async () => {
    const [a] = hazard.remotes;
    const program = hazard.actor(a);
    // In a directory of its own: one that is fought over gives no validity to its names.
    await program.run(
      `os.mkdir("quiet"); os.chdir("quiet"); put("warm", "x"); fd = os.open("warm", os.O_RDONLY); os.pread(fd, 1, 0); os.stat("warm")`,
    );
    // What was created is made known to the lock manager a moment later.
    await until("everything is registered", async () => (await hazard.counters(a))["unregistered"] === 0);
    const before = await hazard.counters(a);
    await program.run(`for k in range(200): os.stat("warm"); os.fstat(fd)`);
    const between = await hazard.counters(a);
    await program.run(`for k in range(200): os.pread(fd, 1, 0); os.stat("warm")`);
    const after = await hazard.counters(a);
    expect((between["fuseRequests"] ?? 0) - (before["fuseRequests"] ?? 0)).toBeLessThan(5);
    expect(after["lockRequests"]).toBe(before["lockRequests"]);
    expect((after["fuseRequests"] ?? 0) - (between["fuseRequests"] ?? 0)).toBeLessThan(250);
  });

  it("F20: an overlay allocates without waiting for its own mount, and is not killed for memory", ({ skip }) => {
    skip(!mayUseResources(), "both take CAP_SYS_RESOURCE, which this machine does not give");
    for (const { nodeid } of hazard.lab.nodes) {
      const overlayPid = hazard.lab.overlayPid(nodeid);
      const line = readFileSync(`/proc/${overlayPid}/stat`, "latin1");
      const flags = Number(line.slice(line.lastIndexOf(")") + 2).split(" ")[6]);
      expect(flags & PF_MEMALLOC_NOIO).toBe(PF_MEMALLOC_NOIO);
      expect(readFileSync(`/proc/${overlayPid}/oom_score_adj`, "latin1").trim()).toBe("-1000");
    }
  });
});
