/** The transport over libfuse: the coherence matrix beside our own transport, both ways; what works over it, and what is refused or lost (hazard F26). */
import { mkdir, readFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { rows, runRound } from "./coherence-matrix.ts";
import { mountNative, NATIVE_NODE, noFuseNative, useFuseNative } from "./fuse-native-lab.ts";
import { startLab, type TestLab } from "./lab.ts";

const missing = noFuseNative();
const ROUNDS = 2;

/** Lost: fstat(2) of a file goes by the name that it was opened by, and that is another file's, or nobody's, when another node has taken it. */
const LOST_AT_NATIVE: ReadonlyMap<string, string> = new Map([["unlink", "ENOENT"]]);

const MANNERS = `
import errno, fcntl, json, mmap, os, sys
dir = sys.argv[1]
said = {}
def code(work):
    try:
        work()
        return "ok"
    except OSError as error:
        return errno.errorcode[error.errno]
def at(name): return os.path.join(dir, name)
with open(at("a"), "ab", buffering=0) as one, open(at("a"), "ab", buffering=0) as two:
    one.write(b"a")
    two.write(b"b")
said["appended"] = open(at("a")).read()
fd = os.open(at("gone"), os.O_CREAT | os.O_RDWR)
os.write(fd, b"kept")
os.unlink(at("gone"))
said["read when removed"] = os.pread(fd, 10, 0).decode()
said["set-aside names"] = len([name for name in os.listdir(dir) if name.startswith(".fuse_hidden")])
os.close(fd)
for _ in range(1000):
    left = [name for name in os.listdir(dir) if name.startswith(".fuse_hidden")]
    if not left: break
said["names after the close"] = len(left)
fd = os.open(at("a"), os.O_RDWR)
said["nameless file"] = code(lambda: os.open(dir, os.O_TMPFILE | os.O_RDWR)).replace("ENOTSUP", "EOPNOTSUPP")
said["shared mapping"] = code(lambda: mmap.mmap(fd, 2))
said["name that is no UTF-8"] = code(lambda: os.mkdir(os.fsencode(dir) + b"/\\xff"))
said["O_EXCL over a file"] = code(lambda: os.open(at("a"), os.O_CREAT | os.O_EXCL | os.O_RDWR))
said["fcntl lock"] = code(lambda: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB))
before = os.stat(at("a")).st_mtime
os.system("touch -m -d 2001-01-01 '%s'" % at("a"))
said["mtime alone"] = "unchanged" if os.stat(at("a")).st_mtime == before else "set"
if os.fork() == 0:
    os.setgid(65534)
    os.setuid(65534)
    said["another user"] = code(lambda: os.listdir(dir))
    print(json.dumps(said), flush=True)
    os._exit(0)
os.wait()
`;

describe("a mount over fuse-native", () => {
  let lab: TestLab;
  let device = "";
  let round = 0;
  beforeAll(async () => {
    if (missing !== null) return;
    lab = await startLab({ nodes: 2 });
    device = await useFuseNative(lab);
  });
  afterAll(async () => {
    await lab?.end();
  });

  for (const [from, to] of [
    [1, NATIVE_NODE],
    [NATIVE_NODE, 1],
  ] as const) {
    it.for(rows)(`$name, from node ${from} to node ${to}`, async (row, { skip }) => {
      skip(missing !== null, missing ?? "");
      const name = `${rows.indexOf(row)}-${from}-${to}`;
      const a = path.join(lab.node(from).mount, name);
      const b = path.join(lab.node(to).mount, name);
      await mkdir(a);
      const lost = to === NATIVE_NODE ? LOST_AT_NATIVE.get(row.name) : undefined;
      for (let k = 0; k < ROUNDS; k += 1) {
        round += 1;
        const seen = runRound(row, { a, b, n: round }).then(
          () => "nothing is lost",
          (error: unknown) => String((error as NodeJS.ErrnoException).code ?? error),
        );
        expect(await seen).toBe(lost ?? "nothing is lost");
      }
    });
  }

  it("is refused without localflocks, with words", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const refused = await mountNative(lab, device, "transport=fuse-native");
    expect([refused.status, refused.stderr]).toEqual([1, expect.stringContaining("has no file locks of the cluster")]);
  });

  it("is for root's programs, and refuses or loses what README.md says", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const dir = path.join(lab.node(NATIVE_NODE).mount, "manners");
    await mkdir(dir);
    const said = await lab.mustExec(NATIVE_NODE, ["python3", "-c", MANNERS, dir]);
    expect(JSON.parse(said)).toEqual({
      appended: "ab",
      "read when removed": "kept",
      "set-aside names": 1,
      "names after the close": 0,
      "nameless file": "EOPNOTSUPP",
      "shared mapping": "ENODEV",
      "name that is no UTF-8": "EILSEQ",
      "O_EXCL over a file": "EEXIST",
      "fcntl lock": "ok",
      "mtime alone": "unchanged",
      "another user": "EACCES",
    });
  });

  it("appends of both transports are each there once", async ({ skip }) => {
    skip(missing !== null, missing ?? "");
    const script = 'for k in $(seq 40); do echo "$1 $k" >> "$2"; done';
    const append = (nodeid: number): Promise<string> =>
      lab.mustExec(nodeid, ["bash", "-c", script, "append", String(nodeid), path.join(lab.node(nodeid).mount, "log")]);
    await Promise.all([append(1), append(NATIVE_NODE)]);
    const wanted = [1, NATIVE_NODE].flatMap((nodeid) => Array.from({ length: 40 }, (_, at) => `${nodeid} ${at + 1}`));
    for (const { mount } of [lab.node(1), lab.node(NATIVE_NODE)]) {
      const lines = (await readFile(path.join(mount, "log"), "utf8")).trim().split("\n");
      expect(lines.toSorted()).toEqual(wanted.toSorted());
    }
  });
});
