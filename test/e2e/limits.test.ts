/**
 * What the READMEs say is not as on one machine ("What does not hold yet", the contract's exceptions): that it is so, and no worse. Whoever
 * lifts a limit finds its sentence by the test that fails. Those of appends, sizes and mappings are in hazards/.
 */
import { execFileSync } from "node:child_process";
import { copyFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { mountsUnder } from "../../overlay/lab/fuse-mounts.ts";
import { hazardLab } from "./hazards/hazard-lab.ts";

describe("limits", () => {
  const cluster = hazardLab();
  const here = (): ReturnType<typeof cluster.actor> => cluster.actor(cluster.remotes[0]);
  const there = (): ReturnType<typeof cluster.actor> => cluster.actor(cluster.owner);

  it("inotify sees the changes of its own node only", async () => {
    const [watcher, beside, elsewhere] = [here(), here(), there()];
    await watcher.run(`
os.mkdir("watched")
IN_CREATE_OR_MODIFY = 0x102
fd = libc.inotify_init1(os.O_NONBLOCK)
libc.inotify_add_watch(fd, b"watched", IN_CREATE_OR_MODIFY)
def news():
    try: return os.read(fd, 4096)[16:].rstrip(b"\\0")
    except BlockingIOError: return None`);
    await elsewhere.run(`put("watched/elsewhere", "x")`);
    expect(await watcher.run(`result = [os.listdir("watched"), news()]`)).toEqual([["elsewhere"], null]);
    await beside.run(`os.mkdir("watched/beside")`);
    expect(await watcher.run(`result = news()`)).toBe("beside");
  });

  it("a FIFO joins programs of one node", async () => {
    const [reader, beside, elsewhere] = [here(), here(), there()];
    await reader.run(`os.mkfifo("pipe"); fd = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)`);
    const writes = `result = code(os.open, "pipe", os.O_WRONLY | os.O_NONBLOCK)`;
    expect(await elsewhere.run(writes)).toBe("ENXIO");
    expect(await beside.run(writes)).toBe("ok");
  });

  it("a program that runs is kept from being written to on its node only", async () => {
    const [runner, beside, elsewhere] = [here(), here(), there()];
    copyFileSync("/bin/sleep", `${cluster.mount(cluster.remotes[0])}/program`);
    await runner.run(`import subprocess; os.chmod("program", 0o755); child = subprocess.Popen(["./program", "60"])`);
    const opens = `result = code(os.open, "program", os.O_WRONLY)`;
    expect(await beside.run(opens)).toBe("ETXTBSY");
    expect(await elsewhere.run(opens)).toBe("ok");
    await runner.run(`child.kill(); child.wait()`);
  });

  it("no RWF_NOWAIT, nor nameless files in a removed directory, nor a name for one after its last close: each says so", async () => {
    for (const program of [here(), there()]) {
      await program.run(`
put("plain", "x")
fd = os.open("plain", os.O_RDONLY)
os.mkdir("removed"); removed = os.open("removed", os.O_RDONLY); os.rmdir("removed")
nameless = os.open(".", os.O_TMPFILE | os.O_RDWR)
by_path = os.open("/proc/self/fd/%d" % nameless, os.O_PATH)
os.close(nameless)
end = time.monotonic() + 10
while libc.linkat(by_path, b"", -100, b"too late", 0x1000) == 0:
    os.unlink("too late")
    if time.monotonic() > end: break
`);
      const [nowait, gone, late] = await program.run<string[]>(`result = [
  code(os.preadv, fd, [bytearray(1)], 0, os.RWF_NOWAIT),
  code(os.open, "/proc/self/fd/%d" % removed, os.O_TMPFILE | os.O_RDWR),
  errno.errorcode[ctypes.get_errno()]]`);
      expect([nowait?.replace("ENOTSUP", "EOPNOTSUPP"), gone, late]).toEqual(["EOPNOTSUPP", "ENOENT", "ENOENT"]);
    }
  });

  it("the set-group-id bit of a file that its group may not execute stays when a stranger writes", async () => {
    for (const nodeid of [cluster.owner, cluster.remotes[0]]) {
      await cluster.actor(nodeid).run(`put("marked", "x"); os.chown("marked", 1001, 1001); os.chmod("marked", 0o2666)`);
      await cluster.actor(nodeid, { uid: 1002, gid: 1002 }).run(`fd = os.open("marked", os.O_WRONLY); os.write(fd, b"y"); os.close(fd)`);
      expect(await cluster.actor(nodeid).run(`result = os.stat("marked").st_mode & 0o7777`)).toBe(0o2666);
    }
  });

  it("a directory can not be renamed into one below it that another node has removed: EINVAL", async () => {
    await here().run(`os.makedirs("outer/inner")`);
    const program = here();
    await program.run(`fd = os.open("outer/inner", os.O_RDONLY)`);
    await there().run(`os.rmdir("outer/inner"); put("beside", "x")`);
    const codes = `result = [code(os.rename, name, "x", dst_dir_fd=fd) for name in ("beside", "outer")]`;
    expect(await program.run(codes)).toEqual(["ENOENT", "EINVAL"]);
  });

  it("reads that the cache answers leave the access time as it is", async () => {
    const program = here();
    await program.run(`put("read", "x" * 5000); get("read"); os.utime("read", (1, 1)); before = os.stat("read").st_atime`);
    expect(await program.run(`get("read"); get("read"); result = os.stat("read").st_atime`)).toBe(1);
  });

  it("what is mounted inside stays while another node changes a small directory, and is taken away with a change of a large one", async () => {
    const mount = cluster.mount(cluster.remotes[0]);
    const epochs = async (): Promise<number | undefined> => (await cluster.counters(cluster.remotes[0]))["epochs"];
    const unmount = (): void => {
      for (const { mountPoint } of mountsUnder(mount).filter(({ type }) => type === "tmpfs")) execFileSync("umount", ["-l", mountPoint]);
    };
    await there().run(`os.mkdir("large"); [os.mknod("large/%d" % k) for k in range(10_100)]`);
    try {
      // A machine that takes more than EXPIRE_WAIT_MS for the names has all of them expired by epoch: then once more, in another directory.
      for (let round = 1; ; round++) {
        const holder = `holder${round}`;
        await here().run(`os.makedirs(holder + "/point")`, { holder });
        execFileSync("mount", ["-t", "tmpfs", "tmpfs", `${mount}/${holder}/point`]);
        const before = await epochs();
        await there().run(`put(holder + "/beside", "x")`, { holder });
        const seen = await here().run(`result = sorted(os.listdir(holder)) + os.listdir(holder + "/point")`, { holder });
        expect(seen).toEqual(["beside", "point"]);
        if ((await epochs()) !== before && round < 10) {
          unmount();
          continue;
        }
        expect(mountsUnder(`${mount}/${holder}`)).toMatchObject([{ type: "tmpfs" }]);
        await here().run(`[os.stat("large/%d" % k) for k in range(10_100)]`);
        await there().run(`os.mkdir("large/more")`);
        const after = `result = [os.stat("large/more").st_nlink, os.listdir(holder + "/point")]`;
        expect(await here().run(after, { holder })).toEqual([2, []]);
        expect(mountsUnder(`${mount}/${holder}`)).toEqual([]);
        break;
      }
    } finally {
      unmount();
    }
  });
});
