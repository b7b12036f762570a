/** Hazards F29 and F51: file handles of what the kernel has forgotten, as NFS servers have them, on each node. name_to_handle_at(2), open_by_handle_at(2). */
import { afterAll, beforeAll, expect, it } from "vitest";
import { queryOverlayStatus } from "../../overlay/query/overlay-query.ts";
import { type Actor, endActors, startActor, until } from "./actor.ts";
import { cannotEvict, type Group, groupOf } from "./evict.ts";
import { coverlay, startLab, type TestLab } from "./lab.ts";
import { untilRole } from "./role.ts";

const SETUP = `
def handle_of(name):
    room = ctypes.create_string_buffer(struct.pack("<Ii", 128, 0), 8 + 128)
    mount = ctypes.c_int()
    if libc.name_to_handle_at(-100, name.encode(), room, ctypes.byref(mount), 0): raise OSError(ctypes.get_errno(), "name_to_handle_at")
    size, = struct.unpack_from("<I", room)
    return room.raw[:8 + size].hex()

top = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
def open_handle(handle, flags=os.O_RDONLY):
    fd = libc.open_by_handle_at(top, ctypes.create_string_buffer(bytes.fromhex(handle)), flags)
    if fd < 0: raise OSError(ctypes.get_errno(), "open_by_handle_at")
    return fd

def read_handle(handle):
    fd = open_handle(handle)
    try: return os.read(fd, 100).decode()
    finally: os.close(fd)

def errors(handles): return [code(lambda: os.close(open_handle(handle, os.O_RDONLY | os.O_NONBLOCK))) for handle in handles]
`;

let lab: TestLab;
let one: Actor;
let two: Actor;
let group: Group;

beforeAll(async () => {
  lab = await startLab({ nodes: 2 });
  one = startActor({ cwd: lab.node(1).mount });
  two = startActor({ cwd: lab.node(2).mount });
  // The overlay too: it looks itself where another node has moved a directory to.
  group = groupOf(one, { pid: await overlayOf(1) });
  for (const actor of [one, two]) await actor.run(SETUP);
});
afterAll(async () => {
  endActors();
  await lab?.end();
  await until("the program has ended", () => {
    try {
      group.remove();
      return true;
    } catch {
      return false;
    }
  });
});

async function overlayOf(nodeid: number): Promise<number> {
  const { pid } = await queryOverlayStatus(lab.node(nodeid).runDir);
  if (pid === undefined) throw new Error(`no overlay of node ${nodeid}`);
  return pid;
}

/** The overlay of node 1 has no inode but the root, and those that something has in use. */
async function evicted(most = 1): Promise<void> {
  let seen = "";
  await until(
    "the kernel has forgotten what it knew",
    async () => {
      group.evict();
      const status = await queryOverlayStatus(lab.node(1).runDir);
      seen = JSON.stringify(status);
      return (status.inodes ?? Number.NaN) <= most;
    },
    () => seen,
  );
}

it.skipIf(cannotEvict !== null)(
  "open what they are of after the kernel has forgotten it, below any directory, renamed, and hard-linked",
  async () => {
    const handles = await one.run<Record<string, string>>(`
os.makedirs("a/b/c")
put("a/b/c/f", "deep"); put("g", "moved"); put("h", "linked"); os.symlink("g", "s"); os.mkfifo("p")
result = {name: handle_of(name) for name in ("a/b/c", "a/b/c/f", "g", "h", "s", "p", ".")}
os.rename("g", "a/g"); os.link("h", "a/h"); os.unlink("h")
`);
    await evicted();
    const read = await one.run(`result = [read_handle(handles[name]) for name in ("a/b/c/f", "g", "h")]`, { handles });
    expect(read).toEqual(["deep", "moved", "linked"]);
    await evicted();
    const listed = await one.run(`
fd = open_handle(handles["a/b/c"], os.O_RDONLY | os.O_DIRECTORY)
result = [os.listdir(fd), os.readlink("/proc/self/fd/%d" % fd).endswith("/a/b/c"), os.stat("..", dir_fd=fd).st_ino == os.stat("a/b").st_ino]
os.close(fd)
`);
    expect(listed).toEqual([["f"], true, true]);
    await evicted();
    expect(await one.run(`result = errors([handles["p"], handles["."]])`)).toEqual(["ok", "ok"]);
  },
);

it.skipIf(cannotEvict !== null)("made on one node, open it on another one, until it is removed on any", async () => {
  const handles = await one.run<Record<string, string>>(`
os.makedirs("shared/deep")
for name in ("kept", "removed", "replaced", "open"): put("shared/deep/" + name, name)
result = {name: handle_of("shared/deep/" + name) for name in ("kept", "removed", "replaced", "open", ".")}
`);
  // The kernel of node 2 has never seen them.
  expect(await two.run(`result = [read_handle(handles[name]) for name in ("removed", "open", "kept")]`, { handles })).toEqual([
    "removed",
    "open",
    "kept",
  ]);
  expect(await two.run(`result = handle_of("shared/deep/kept")`)).toBe(handles["kept"]);
  await two.run(`
held = os.open("shared/deep/open", os.O_RDONLY)
os.unlink("shared/deep/removed"); os.unlink("shared/deep/open")
os.rename("shared/deep", "moved")
put("moved/new", "new"); os.rename("moved/new", "moved/replaced")
`);
  await evicted();
  const gone = await one.run(`result = errors([handles[name] for name in ("removed", "replaced", "open", "kept", ".")])`, { handles });
  expect(gone).toEqual(["ESTALE", "ESTALE", "ESTALE", "ok", "ok"]);
  expect(await two.run(`result = os.pread(held, 100, 0).decode(); os.close(held)`)).toBe("open");
  await two.run(`put("moved/kept", "changed")`);
  expect(await one.run(`result = read_handle(handles["kept"])`)).toBe("changed");
  await two.run(`os.unlink("moved/kept"); os.unlink("moved/replaced"); os.rmdir("moved")`);
  await evicted();
  expect(await one.run(`result = errors([handles["kept"], handles["."]])`)).toEqual(["ESTALE", "ESTALE"]);
});

it.skipIf(cannotEvict !== null)("of no inode, made up, are ESTALE", async () => {
  const made = [0, 2, 4095, 2 ** 12, 2 ** 40, 2 ** 52, 2 ** 53, 2 ** 63];
  const errors = await one.run(
    `result = errors([struct.pack("<IiIII", 12, 0x81, number >> 32, number & 0xffffffff, 0).hex() for number in made])`,
    { made },
  );
  expect(errors).toEqual(made.map(() => "ESTALE"));
});

/**
 * How many files a node has made that only it knows. Asked without a process: they are told to dlmd within a second, and on a busy machine a
 * process takes longer to start.
 */
async function unregistered(nodeid: number): Promise<number> {
  return (await queryOverlayStatus(lab.node(nodeid).runDir)).counters?.["unregistered"] ?? Number.NaN;
}

it.each([
  { maker: 1, other: 2 },
  { maker: 2, other: 1 },
])("F51: made on node $maker a moment ago, and open there, they open the same file on node $other", async ({ maker }) => {
  const [makes, comes] = maker === 1 ? [one, two] : [two, one];
  for (let round = 0; round < 5; round += 1) {
    const name = `round ${round} of node ${maker}`;
    // The look of the round before has taken the lock of births away. It comes back with what is made without it; and on a slow machine dlmd
    // may be told of all before somebody looks.
    let made = 0;
    let handle = "";
    await until("something is born", async () => {
      await makes.run(`put(name, "")`, { name: `${(made += 1)} before ${name}` });
      if ((await unregistered(maker)) === 0) return false;
      handle = await makes.run<string>(
        `
if os.path.exists(name): os.unlink(name); os.close(held)
held = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
os.write(held, b"first")
result = handle_of(name)`,
        { name },
      );
      return (await unregistered(maker)) > 0;
    });
    expect(await comes.run(`found = open_handle(handle); result = os.pread(found, 100, 0).decode()`, { handle })).toBe("first");
    expect(await unregistered(maker)).toBe(0);
    await makes.run(`os.pwrite(held, b"again", 0)`);
    expect(await comes.run(`result = os.pread(found, 100, 0).decode(); os.close(found)`)).toBe("again");
    await comes.run(`writing = open_handle(handle, os.O_RDWR); os.pwrite(writing, b"other", 0)`, { handle });
    expect(await makes.run(`result = os.pread(held, 100, 0).decode()`)).toBe("other");
    // Whose lock of the directory goes does not wait for the write token of that file.
    expect(await comes.run(`result = name in os.listdir("."); os.close(writing)`, { name })).toBe(true);
    await makes.run(`os.close(held)`);
  }
});

it.skipIf(cannotEvict !== null)("go on when the volume has another owner, and a node that has mounted anew", async () => {
  const handle = await one.run<string>(`put("kept", "kept"); result = handle_of("kept")`);
  const owner = await lab.owner();
  const heir = 3 - owner;
  expect((await coverlay(["handover", "lab", `node${heir}`, "--run-dir", lab.node(1).runDir])).status).toBe(0);
  await untilRole(lab, heir, "owner");
  await evicted();
  expect(await one.run(`result = read_handle(handle)`, { handle })).toBe("kept");
  await two.run(`os.close(top); os.chdir("/")`);
  await lab.unmount(2);
  await lab.start(2);
  two = startActor({ cwd: lab.node(2).mount });
  await two.run(SETUP);
  expect(await two.run(`result = read_handle(handle)`, { handle })).toBe("kept");
});
