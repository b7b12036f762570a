/**
 * What bad input gets, from outside: a full disk, names and offsets at their limits, and strangers' bytes on every socket. A clear error
 * each; afterwards everything works on all nodes.
 */
import { createHash } from "node:crypto";
import { mkdir, open, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { code } from "./errno-code.ts";
import { startLab, type TestLab } from "./lab.ts";

describe("bad input", () => {
  let lab: TestLab;
  const at = (nodeid: number, ...names: string[]): string => path.join(lab.node(nodeid).mount, ...names);

  beforeAll(async () => {
    lab = await startLab({ nodes: 3, size: "96M" });
  });
  afterAll(async () => {
    await lab?.end();
  });

  /** Each node writes, the others read it. */
  async function everythingWorks(tag: string): Promise<void> {
    for (const writer of [1, 2, 3]) {
      const name = `works-${tag}-${writer}`;
      await writeFile(at(writer, name), name);
      for (const reader of [1, 2, 3]) expect(await readFile(at(reader, name), "utf8")).toBe(name);
      await rm(at((writer % 3) + 1, name));
    }
    for (const { connection } of await overlays()) expect(connection).toBeTypeOf("number");
  }

  async function overlays(): Promise<{ connection: number; owner: { address: string; port: number } }[]> {
    return Promise.all(
      [1, 2, 3].map(async (nodeid) => {
        const answer = JSON.parse(await lab.mustExec(nodeid, ["node", path.resolve("dist/overlay/main.js"), "status", "--json"])) as {
          overlay: { connection: number; owner: { address: string; port: number }; counters: { bugs: number } };
        };
        expect(answer.overlay.counters.bugs).toBe(0);
        return answer.overlay;
      }),
    );
  }

  it("a full disk: ENOSPC reaches the writer on any node, nothing else breaks, and room made elsewhere is used at once", async () => {
    const kept = Buffer.alloc(1 << 20, "kept");
    await writeFile(at(1, "kept"), kept);
    for (const nodeid of [1, 2]) {
      const handle = await open(at(nodeid, `fill-${nodeid}`), "w");
      let failed = "ok";
      for (let k = 0; k < 200 && failed === "ok"; k += 1) failed = await code(handle.write(Buffer.alloc(1 << 20, k)));
      expect(failed).toBe("ENOSPC");
      await code(handle.close());
      expect(await code(stat(at(3, `fill-${nodeid}`)))).toBe("ok");
      expect(
        createHash("sha256")
          .update(await readFile(at(3, "kept")))
          .digest("hex"),
      ).toBe(createHash("sha256").update(kept).digest("hex"));
      await rm(at(3, `fill-${nodeid}`));
      expect(await code(writeFile(at(nodeid, "again"), Buffer.alloc(1 << 20)))).toBe("ok");
      await rm(at(nodeid, "again"));
    }
    await everythingWorks("full");
  });

  it("names: 255 bytes work, 256 are ENAMETOOLONG, bytes that are not UTF-8 are kept as they are", async () => {
    for (const nodeid of [1, 2]) {
      const longest = `${nodeid}`.padEnd(255, "n");
      await writeFile(at(nodeid, longest), "x");
      expect(await readFile(at(3, longest), "utf8")).toBe("x");
      expect(await code(writeFile(at(nodeid, `${longest}n`), "x"))).toBe("ENAMETOOLONG");
      expect(await code(stat(at(nodeid, `${longest}n`)))).toBe("ENAMETOOLONG");
      // In a directory made there, of whose names all are known.
      await mkdir(at(nodeid, `new${nodeid}`));
      expect(await code(stat(at(nodeid, `new${nodeid}/${longest}n`)))).toBe("ENAMETOOLONG");
      const raw = Buffer.from([0xff, 0xfe, 0x80, 0x30 + nodeid]);
      await writeFile(Buffer.concat([Buffer.from(at(nodeid, "")), Buffer.from("/"), raw]), "bytes");
      const seen = await readdir(at(3), { encoding: "buffer" });
      expect(seen.some((name) => name.equals(raw))).toBe(true);
      expect(await readFile(Buffer.concat([Buffer.from(at(3, "")), Buffer.from("/"), raw]), "utf8")).toBe("bytes");
    }
  });

  it("an offset of 1 EiB: EFBIG or EINVAL for a write, an empty read, on every node, whatever the kernel last heard of the size", async () => {
    await writeFile(at(1, "offsets"), "0123456789");
    for (const nodeid of [1, 2, 3]) {
      const script = [
        "import os,errno,sys",
        "fd=os.open('offsets',os.O_RDWR)",
        "def e(f):",
        "  try: f(); return 'ok'",
        "  except OSError as x: return errno.errorcode[x.errno]",
        "print(e(lambda: os.pwrite(fd,b'x',1<<60)), e(lambda: os.truncate('offsets',1<<60)), len(os.pread(fd,10,1<<60)), os.fstat(fd).st_size)",
      ].join("\n");
      // Another node changes the file in between: then this kernel's idea of the size is the sentinel (hazard F5).
      await writeFile(at((nodeid % 3) + 1, "offsets"), "0123456789");
      const [write, truncate, read, size] = (await lab.mustExec(nodeid, ["python3", "-c", script])).trim().split(" ");
      expect(["EFBIG", "EINVAL"]).toContain(write);
      expect(["EFBIG", "EINVAL"]).toContain(truncate);
      expect(read).toBe("0");
      expect(size).toBe("10");
      expect(await readFile(at((nodeid % 3) + 1, "offsets"), "utf8")).toBe("0123456789");
    }
  });

  it("strangers' bytes on every port and socket are dropped; the nodes go on in the same view", async () => {
    const before = (await lab.status()).map(({ overlayPid, dlmdPid }) => ({ overlayPid, dlmdPid }));
    const [first] = await overlays();
    if (first === undefined) throw new Error("no overlay");
    const { address, port } = first.owner;
    const script = `
import os, random, socket, struct, sys
random.seed(7)
host, overlay, runs = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def junk(n): return random.randbytes(n)
def tcp(where, data):
    s = socket.create_connection(where, 5); s.settimeout(5)
    try:
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        while s.recv(65536): pass
    except OSError: pass
    finally: s.close()
for port in (overlay, 7701):
    for data in (b"", b"GET / HTTP/1.1\\r\\n\\r\\n", junk(1), junk(4096), b"\\0"*4096, b"\\xff"*4096, struct.pack("<I", 0x7fffffff)+junk(64), struct.pack("<II", 16, 0)+junk(16), struct.pack("<I", 100)+junk(20)):
        tcp((host, port), data)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in list(range(0, 64)) + [500, 1400, 9000]:
    for to in ((host, 7700), ("239.192.77.1", 7700), (host, 7701)):
        u.sendto(junk(n), to)
overlays = [name for name in os.listdir(runs) if name.startswith("overlay-") and name.endswith(".sock")]
assert len(overlays) == 1
for name in ["dlmd.sock", "dlmd-admin.sock", "metrics.sock"] + overlays:
    for data in (b"", b"junk\\n", b"{}\\n", junk(4096), struct.pack("<I", 0x7fffffff)+junk(64)):
        s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(os.path.join(runs, name))
        try:
            s.sendall(data); s.shutdown(socket.SHUT_WR)
            while s.recv(65536): pass
        except OSError: pass
        s.close()
print("done")
`;
    const { runDir } = lab.node(2);
    expect((await lab.mustExec(2, ["python3", "-c", script, address, String(port), runDir])).trim()).toBe("done");
    await everythingWorks("strangers");
    expect((await lab.status()).map(({ overlayPid, dlmdPid }) => ({ overlayPid, dlmdPid }))).toEqual(before);
  });
});
