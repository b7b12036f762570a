/**
 * Hazard F5: the kernel's idea of a file's size, which sendfile, copy_file_range, mapped pages and appends trust without asking, when another
 * node has grown or cut the file under an open descriptor. The quick tests take two of the four places, the long ones the others.
 */
import { describe, expect, it } from "vitest";
import { type Actor, createBarrier } from "../actor.ts";
import { hazardLab, scale } from "./hazard-lab.ts";

/** `held`: what the program on a has open, with everything cached; a step then runs there after b has changed the file. */
const holds = `
ro = os.open(name, os.O_RDONLY)
rw = os.open(name, os.O_RDWR)
ap = os.open(name, os.O_WRONLY | os.O_APPEND)
os.pread(ro, 1 << 20, 0); os.pread(rw, 1 << 20, 0); os.fstat(ro); os.stat(name)
`;

const sendfile = `
def sendfile(fd, offset, most=1 << 20):
    target = os.memfd_create("target")
    while os.sendfile(target, fd, offset + os.fstat(target).st_size, most) > 0: pass
    size = os.fstat(target).st_size
    data = os.pread(target, size, 0)
    os.close(target)
    return data
`;

const thrice = (content: string): string[] => [content, content, content];

interface Scene {
  readonly a: Actor;
  readonly b: Actor;
  readonly name: string;
  /** What each node sees in the end; throws if a size is not that of the content. */
  readonly everywhere: () => Promise<string[]>;
}

export type Role = "the owner" | "a remote node";

/** Where the file is open while another node changes it. */
export interface Place {
  readonly role: Role;
  /** That node has a page cache for writing. */
  readonly cached: boolean;
}

/** The tests at these places, and with a reader in these roles. */
export function sizesSuite(places: readonly Place[], readers: readonly Role[]): void {
  const hazard = hazardLab();
  it("F4: fallocate that found no room has made what there was room for (ext4), and its node sees that, too", async () => {
    const [a, b] = [hazard.owner, hazard.remotes[0]];
    const [program, other] = [hazard.actor(a), hazard.actor(b)];
    const seen = `{"size": os.stat("full").st_size, "blocks": os.stat("full").st_blocks}`;
    try {
      const found = await program.run<{ size: number; end: number }>(`
fd = os.open("full", os.O_CREAT | os.O_RDWR, 0o644); os.pwrite(fd, b"x" * 10, 0); os.stat("full")
if not libc.fallocate(fd, 0, ctypes.c_long(0), ctypes.c_long(1 << 40)): raise OSError("there is a terabyte")
result = dict(${seen}, end=os.lseek(fd, 0, os.SEEK_END))
`);
      expect(found).toEqual({ ...(await other.run<object>(`result = ${seen}`)), end: found.size });
      expect(found.size).toBeGreaterThan(10);
    } finally {
      await program.run(`os.unlink("full"); os.close(fd); code(os.statvfs, ".")`);
    }
  });

  it.each(readers)("a reader on %s sees nothing but records while programs append everywhere", async (role) => {
    const [a, b] = role === "the owner" ? [hazard.owner, hazard.remotes[0]] : [hazard.remotes[0], hazard.remotes[1]];
    const reader = hazard.actor(a);
    const log = `log-${a}`;
    const done = createBarrier(1);
    await reader.run(`put(log, "")`, { log });
    const reading = reader.run(
      `
held = os.open(log, os.O_RDONLY)
bad, turn = [], 0
while open(done, "rb").read() == bytes(8):
    turn += 1
    data = get(log) if turn % 2 == 0 else os.pread(held, 1 << 20, 0).decode("latin1")
    if chr(0) in data: bad.append("%d bytes, zeros from %d on" % (len(data), data.find(chr(0))))
result = bad
`,
      { log, done },
      120_000,
    );
    const write = `
fd = os.open(log, os.O_WRONLY | os.O_APPEND)
for k in range(rounds): os.write(fd, b"record %d;" % k)
`;
    await Promise.all([a, b, b].map((nodeid) => hazard.actor(nodeid).run(write, { log, rounds: 150 * scale }, 120_000)));
    await hazard.actor(b).run(`open(done, "wb").write(b"finished")`, { done });
    expect(await reading).toEqual([]);
  });

  describe.each(places)("under a descriptor of $role, page cache for writing: $cached", ({ role, cached }) => {
    let count = 0;

    /** A file of `length` times "A", open and cached on a; grown by \`length\` times "B" through b. */
    async function grown(length: number, before = ""): Promise<Scene> {
      const [r0, r1] = hazard.remotes;
      const [a, b, c] = role === "the owner" ? [hazard.owner, r0, r1] : [r0, r1, hazard.owner];
      count += 1;
      const name = `f${count}`;
      const scene = { a: hazard.actor(a), b: hazard.actor(b), name };
      const third = hazard.actor(c);
      await scene.b.run(`put(name, b"A" * length)`, { name, length });
      // Whoever opens for writing first, and has it open, is the one with a page cache.
      if (!cached) await third.run(`fd = os.open(name, os.O_RDWR)`, { name });
      await scene.a.run(`${holds}${sendfile}${before}`, { name, length });
      await scene.b.run(`put(name, b"B" * length, os.O_WRONLY | os.O_APPEND)`);
      return {
        ...scene,
        everywhere: () =>
          Promise.all(
            [scene.b, third, scene.a].map((program) =>
              program.run<string>(`result = get(name); assert os.stat(name).st_size == len(result), (os.stat(name).st_size, len(result))`, {
                name,
              }),
            ),
          ),
      };
    }

    it("plain reads, fstat and SEEK_END", async () => {
      const { a, everywhere } = await grown(100);
      expect(
        await a.run(`result = [os.pread(ro, 1000, 100), os.pread(rw, 1000, 150), os.fstat(ro).st_size, os.lseek(rw, 0, os.SEEK_END)]`),
      ).toEqual(["B".repeat(100), "B".repeat(50), 200, 200]);
      expect(await everywhere()).toEqual(thrice("A".repeat(100) + "B".repeat(100)));
    });

    it.each([100, 4096, 200_000])("sendfile from a file that had %i bytes", async (length) => {
      const { a } = await grown(length);
      const whole = "A".repeat(length) + "B".repeat(length);
      const [tail, all] = await a.run<string[]>(`result = [sendfile(ro, length), sendfile(rw, 0)]`);
      expect(tail === "B".repeat(length)).toBe(true);
      expect(all === whole).toBe(true);
    });

    it.each([100, 4096, 200_000])("copy_file_range from a file that had %i bytes", async (length) => {
      const { a, b, name } = await grown(length);
      await a.run(`
out = os.open(name + ".copy", os.O_RDWR | os.O_CREAT)
at = length
while (bytes_ := os.copy_file_range(ro, out, 1 << 20, at, at)) > 0: at += bytes_
assert at == 2 * length, at
at = 0
while (bytes_ := os.copy_file_range(rw, out, length, at, at)) > 0: at += bytes_
assert at == 2 * length, at
`);
      const copy = await b.run<string>(`result = get(name + ".copy")`, { name });
      expect(copy === "A".repeat(length) + "B".repeat(length)).toBe(true);
    });

    it.each([100, 4096])("a mapping made when the file had %i bytes", async (length) => {
      const { a } = await grown(length, `\nmapped = map_shared(ro, 8192, mmap.PROT_READ); ctypes.string_at(mapped, 10)`);
      expect(await a.run(`result = ctypes.string_at(mapped + length - 2, 4)`)).toBe("AABB");
      expect(await a.run(`result = ctypes.string_at(mapped + 2 * length - 1, 1)`)).toBe("B");
    });

    it.each(cached ? [100, 4096] : [])("a store behind the old end of a file that had %i bytes", async (length) => {
      const { a, everywhere } = await grown(length, `\nmapped = map_shared(rw, 8192); ctypes.string_at(mapped, 10)`);
      await a.run(`ctypes.memmove(mapped + length + 10, b"stored", 6); msync(mapped, 8192)`);
      expect(await everywhere()).toEqual(thrice(`${"A".repeat(length)}${"B".repeat(10)}stored${"B".repeat(length - 16)}`));
    });

    it.each(cached ? [] : [100])("a shared writable mapping of a file of %i bytes is refused without a page cache", async (length) => {
      const { a } = await grown(length);
      expect(await a.run(`result = code(map_shared, rw, 4096)`)).toBe("ENODEV");
    });

    it("writes with O_APPEND, one after the other", async () => {
      const { a, b, everywhere } = await grown(100);
      expect(await a.run(`result = [os.write(ap, b"CCC"), os.write(ap, b"DDDD")]`)).toEqual([3, 4]);
      // What a itself sees then, through pages and around them.
      expect(await a.run(`result = [os.pread(ro, 20, 98), os.pread(ro, 10, 198), os.fstat(ap).st_size]`)).toEqual([
        `AA${"B".repeat(18)}`,
        "BBCCCDDDD",
        207,
      ]);
      await b.run(`put(name, b"E", os.O_WRONLY | os.O_APPEND)`);
      await a.run(`os.write(ap, b"F" * 5000)`);
      expect(await everywhere()).toEqual(thrice(`${"A".repeat(100)}${"B".repeat(100)}CCCDDDDE${"F".repeat(5000)}`));
    });

    it("pwritev2 with RWF_APPEND", async () => {
      const { a, everywhere } = await grown(4096);
      expect(await a.run(`result = [os.pwritev(rw, [b"CCC"], 0, os.RWF_APPEND), os.pwritev(rw, [b"DD"], 0, os.RWF_APPEND)]`)).toEqual([
        3, 2,
      ]);
      expect(await everywhere()).toEqual(thrice(`${"A".repeat(4096)}${"B".repeat(4096)}CCCDD`));
    });

    it("a write at an offset far behind every end is refused, and is no append", async () => {
      const { a, everywhere } = await grown(100);
      const codes = await a.run<string[]>(`
result = [code(os.pwrite, rw, b"X", at) for at in (1 << 60, (1 << 60) + 4096, 1 << 62)]
os.lseek(rw, 1 << 60, os.SEEK_SET)
result.append(code(os.write, rw, b"X"))
result.append(code(os.ftruncate, rw, 1 << 60))
result.append(code(os.posix_fallocate, rw, 1 << 60, 10))
`);
      for (const code of codes) expect(["EFBIG", "EINVAL"]).toContain(code);
      expect(await everywhere()).toEqual(thrice("A".repeat(100) + "B".repeat(100)));
      expect(await a.run(`result = [os.pread(ro, 10, 1 << 60), os.fstat(ro).st_size]`)).toEqual(["", 200]);
    });

    it("a write without O_APPEND goes where it says", async () => {
      const { a, everywhere } = await grown(100);
      await a.run(`os.pwrite(rw, b"CC", 99); os.lseek(rw, 150, os.SEEK_SET); os.write(rw, b"DD")`);
      expect(await everywhere()).toEqual(thrice(`${"A".repeat(99)}CC${"B".repeat(49)}DD${"B".repeat(48)}`));
    });

    it("appends in turn, with nothing between them that asks for the size", async () => {
      const { a, b, everywhere } = await grown(10);
      let content = "A".repeat(10) + "B".repeat(10);
      await b.run(`ap = os.open(name, os.O_WRONLY | os.O_APPEND)`);
      for (let round = 0; round < 60 * scale; round += 1) {
        const record = `<${round}${"-".repeat((round * 37) % 300)}>`;
        await (round % 3 === 0 ? b : a).run(`assert os.write(ap, record.encode()) == len(record)`, { record });
        content += record;
      }
      expect(await everywhere()).toEqual(thrice(content));
    });

    it("cut elsewhere: an append goes to the new end, and nothing is read behind it", async () => {
      const { a, b, everywhere } = await grown(5000);
      await a.run(`os.pread(ro, 20000, 0)`);
      await b.run(`os.truncate(name, 50)`);
      expect(await a.run(`result = [os.pread(ro, 100, 50), os.write(ap, b"CCC"), os.pread(ro, 100, 48)]`)).toEqual(["", 3, "AACCC"]);
      expect(await everywhere()).toEqual(thrice(`${"A".repeat(50)}CCC`));
    });
  });
}
