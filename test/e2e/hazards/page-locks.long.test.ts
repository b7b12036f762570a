/**
 * Hazards F1, F2, F3, F9 and F14: pages that a request holds locked while a revoke wants them, mapped pages, and two writers of one page.
 */
import { describe, expect, it } from "vitest";
import { until } from "../actor.ts";
import { hazardLab, scale } from "./hazard-lab.ts";

const ROUNDS = 40 * scale;

/** 4 bytes for each writer, aligned so that no copy tears them, all in the first pages, several writers to each page. */
const storm = `
def slot(writer): return 1024 * writer + 64
def write_slots(writer, rounds, own, others):
    fd = os.open(own, os.O_RDWR)
    looks = [os.open(name, os.O_RDONLY) for name in others]
    for k in range(1, rounds + 1):
        record = struct.pack(">I", k)
        assert os.pwrite(fd, record, slot(writer)) == 4
        for at, look in enumerate(looks):
            seen = os.pread(look, 4, slot(writer))
            if seen != record: raise AssertionError("round %d of writer %d: %r through %s, %r was written" % (k, writer, seen, others[at], record))
    for opened in [fd] + looks: os.close(opened)
def read_all(rounds, own, writers, elsewhere, finished):
    """What writers of this node write may be seen before they return, and be gone again until they do (hazard F14)."""
    fd = os.open(own, os.O_RDONLY)
    last = [0] * writers
    k = 0
    while k < rounds or not os.path.exists(finished):
        k += 1
        if k % 2 == 0: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        data = os.pread(fd, 65536, 0)
        assert len(data) == 65536, len(data)
        for writer in elsewhere:
            seen = struct.unpack_from(">I", data, slot(writer))[0]
            if seen < last[writer]: raise AssertionError("writer %d: %d seen after %d" % (writer, seen, last[writer]))
            last[writer] = seen
    os.close(fd)
def map_and_truncate(rounds, own, others):
    fd = os.open(own, os.O_RDWR)
    looks = [os.open(name, os.O_RDONLY) for name in others]
    address = map_shared(fd, 65536)
    for k in range(1, rounds + 1):
        at = 4096 * (8 + k % 8) + 100
        record = struct.pack(">I", k)
        ctypes.memmove(address + at, record, 4)
        os.ftruncate(fd, 65536 + 4096 * (k % 2))
        if k % 3 == 0: msync(address, 65536)
        for look in looks:
            seen = os.pread(look, 4, at)
            if seen != record: raise AssertionError("round %d: %r of the mapped page, %r was stored" % (k, seen, record))
    os.close(fd)
`;

describe("pages that are locked, dirty or mapped in a revoke", () => {
  const hazard = hazardLab();
  const roles = [
    ["the owner", () => [hazard.owner, ...hazard.remotes] as const],
    ["a remote node", () => [hazard.remotes[0], hazard.owner, hazard.remotes[1]] as const],
  ] as const;

  it.each(roles)(
    "F1: readers, partial-page writers and ftruncate with dirty mapped pages on %s, writers on the others",
    async (role, of) => {
      const nodes = of();
      const [a] = nodes;
      const name = `storm-${role.replaceAll(" ", "-")}`;
      const setup = hazard.actor(a);
      // The first writing open has the page cache; it stays open, so that the mapping below is possible.
      await setup.run(`put(name, bytes(65536)); kept = os.open(name, os.O_RDWR)`, { name });
      const file = (nodeid: number): string => `${hazard.mount(nodeid)}/${name}`;
      const finished = `${hazard.lab.dir}/${name}.finished`;
      const writers = 6;
      const work: Promise<unknown>[] = [];
      const start = (nodeid: number, call: string, given: object): Promise<unknown> => {
        const own = file(nodeid);
        const others = nodes.filter((other) => other !== nodeid).map(file);
        const elsewhere = Array.from({ length: writers }, (_, writer) => writer).filter((writer) => nodes[writer % 3] !== nodeid);
        return hazard.actor(nodeid).run(`${storm}\n${call}`, { own, others, rounds: ROUNDS, writers, elsewhere, finished, ...given });
      };
      const readers = nodes.flatMap((nodeid) => [0, 1].map(() => start(nodeid, "read_all(rounds, own, writers, elsewhere, finished)", {})));
      for (let writer = 0; writer < writers; writer += 1) {
        work.push(start(nodes[writer % 3] ?? a, "write_slots(writer, rounds, own, others)", { writer }));
      }
      work.push(start(a, "map_and_truncate(rounds, own, others)", {}));
      await Promise.race([Promise.all(work), Promise.all(readers)]);
      await Promise.all(work);
      await setup.run(`open(finished, "w").close()`, { finished });
      await Promise.all(readers);
      for (const nodeid of nodes) {
        const seen = await hazard
          .actor(nodeid)
          .run<number[]>(
            `${storm}\ndata = open(own, "rb").read(); result = [struct.unpack_from(">I", data, slot(w))[0] for w in range(writers)]`,
            { own: file(nodeid), writers },
          );
        expect(seen).toEqual(Array.from({ length: writers }, () => ROUNDS));
      }
      await setup.run(`os.close(kept); os.unlink(finished)`);
    },
  );

  it("F1: requests that are under way when the revoke begins, and others that come in it", async () => {
    const [a, b] = hazard.remotes;
    const name = "under-way";
    const program = hazard.actor(a);
    await program.run(
      `
put(name, bytes(4 << 20))
fd = os.open(name, os.O_RDWR)
address = map_shared(fd, 4 << 20)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
threads, failures = [], []
def begin(call):
    def work():
        try: call()
        except BaseException as error: failures.append(repr(error))
    threads.append(threading.Thread(target=work, daemon=True)); threads[-1].start()
def read_at(offset):
    # Asks for the page before it asks for attributes.
    os.posix_fadvise(fd, offset, 4096, os.POSIX_FADV_WILLNEED)
    got = os.pread(fd, 10, offset)
    assert got == bytes(10), got
`,
      { name },
    );
    const writer = hazard.actor(b);
    await writer.run(`out = os.open(name, os.O_RDWR)`, { name });
    await program.run(`os.ftruncate(fd, 4 << 20)\nfor page in range(1000, 1010): ctypes.memmove(address + 4096 * page, b"mapped", 6)`);
    const before = (await hazard.counters(a))["bastsReceived"] ?? 0;
    // A write after another one does not ask for capabilities first, unless attributes came in between: so it goes before the reads.
    await program.run(`os.pwrite(fd, bytes(10), 65536 * 50)`);
    await hazard.hold(hazard.owner);
    await program.run(`begin(lambda: os.pwrite(fd, b"partial", 65536 * 20 + 4100))`);
    await hazard.untilUnderWay(a, { write: 1 });
    await program.run(`for k in range(16): begin(lambda k=k: read_at(65536 * k + 8192))`);
    await hazard.untilUnderWay(a, { read: 16, write: 1 });
    const written = writer.run(`os.pwrite(out, b"elsewhere", 65536 * 30)`);
    await until("the lock is asked back", async () => ((await hazard.counters(a))["bastsReceived"] ?? 0) > before);
    await program.run(`
for k in range(16): begin(lambda k=k: read_at(65536 * k + 3 * 8192))
begin(lambda: os.ftruncate(fd, (4 << 20) + 10))
for k in range(4): begin(lambda k=k: os.pwrite(fd, b"more", 65536 * (40 + k) + 4200))
`);
    await hazard.untilUnderWay(a, { read: 32, write: 1 });
    hazard.letGo(hazard.owner);
    await written;
    await program.run(`
for thread in threads: thread.join()
assert failures == [], failures
assert os.pread(fd, 9, 65536 * 30) == b"elsewhere"
os.close(fd)
`);
    const seen = await writer.run<unknown[]>(
      `
fd = os.open(name, os.O_RDONLY)
result = [os.fstat(fd).st_size, os.pread(fd, 7, 65536 * 20 + 4100), os.pread(fd, 4, 65536 * 43 + 4200), [os.pread(fd, 6, 4096 * page) for page in range(1000, 1010)]]
`,
      { name },
    );
    expect(seen).toEqual([(4 << 20) + 10, "partial", "more", Array.from({ length: 10 }, () => "mapped")]);
  });

  it.each(roles)("F2: many readahead READs wait on %s, and its dirty mapped page still comes out", async (role, of) => {
    const [a, b, c] = of();
    const dir = `readahead-${role.replaceAll(" ", "-")}`;
    // Who changes the times of all files of a directory takes their locks ahead.
    const beside = `${dir}-mapped`;
    const files = 60;
    const reader = hazard.actor(a);
    const holder = hazard.actor(c);
    const other = hazard.actor(b);
    await holder.run(`os.mkdir(dir)\nfor k in range(files): put("%s/%d" % (dir, k), b"x" * 400000)`, { dir, files });
    await reader.run(
      `
fds = [os.open("%s/%d" % (dir, k), os.O_RDONLY) for k in range(files)]
os.mkdir(beside)
put(beside + "/mapped", bytes(8192))
fd = os.open(beside + "/mapped", os.O_RDWR)
address = map_shared(fd, 8192)
`,
      { dir, files, beside },
    );
    await holder.run(`for k in range(files): os.utime("%s/%d" % (dir, k))`);
    // So that its way does not lead by a directory that is locked where nothing is given up.
    await other.run(`at = os.open(beside, os.O_RDONLY)`, { beside });
    await hazard.hold(c);
    await reader.run(`
ctypes.memmove(address, b"dirty", 5)
for fd in fds: os.posix_fadvise(fd, 0, 100000, os.POSIX_FADV_WILLNEED)
`);
    // Read ahead in the background, of which the kernel lets no more than max_background come here.
    await hazard.untilUnderWay(a, { read: files });
    expect(await other.run(`fd = os.open("mapped", os.O_RDONLY, dir_fd=at); result = os.pread(fd, 5, 0)`)).toBe("dirty");
    // They were under way all the time.
    expect((await hazard.underWay(a))["read"]).toBeGreaterThanOrEqual(files);
    hazard.letGo(c);
    expect(await reader.run(`result = [len(os.pread(fd, 100000, 0)) for fd in fds]`)).toEqual(Array.from({ length: files }, () => 100000));
  });

  it.each(roles)("F3: the dirty mapped pages of 64 files are wanted from %s at once", async (role, of) => {
    const [a, b, c] = of();
    const dir = `revokes-${role.replaceAll(" ", "-")}`;
    const files = 64;
    const mapper = hazard.actor(a);
    await mapper.run(
      `
os.mkdir(dir)
fds, addresses = [], []
for k in range(files):
    put("%s/%d" % (dir, k), bytes(4096))
    fds.append(os.open("%s/%d" % (dir, k), os.O_RDWR))
    addresses.append(map_shared(fds[k], 4096))
`,
      { dir, files },
    );
    const readers = [b, c].map((nodeid) => hazard.actor(nodeid));
    for (let round = 1; round <= 5; round += 1) {
      await mapper.run(`for address in addresses: ctypes.memmove(address, b"round %d" % round, 7)`, { round });
      const seen = await Promise.all(
        readers.map((reader) =>
          reader.run<string[]>(
            `
got = [None] * files
def read(first):
    for k in range(first, files, 16):
        fd = os.open("%s/%d" % (dir, k), os.O_RDONLY); got[k] = os.pread(fd, 7, 0); os.close(fd)
threads = [threading.Thread(target=read, args=(first,)) for first in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
result = got
`,
            { dir, files },
          ),
        ),
      );
      for (const contents of seen) expect(contents).toEqual(Array.from({ length: files }, () => `round ${round}`));
    }
  });

  it.each(roles)(
    "F9: a second writer's shared mapping is refused while %s has one, and what is stored there is seen at msync",
    async (role, of) => {
      const [a, b, c] = of();
      const name = `mapped-${role.replaceAll(" ", "-")}`;
      const first = hazard.actor(a);
      const second = hazard.actor(b);
      const third = hazard.actor(c);
      await first.run(`put(name, b"-" * 8192); fd = os.open(name, os.O_RDWR); address = map_shared(fd, 8192)`, { name });
      expect(await second.run(`fd = os.open(name, os.O_RDWR); result = code(map_shared, fd, 8192)`, { name })).toBe("ENODEV");
      expect(await third.run(`fd = os.open(name, os.O_RDONLY); address = map_shared(fd, 8192, mmap.PROT_READ)`, { name })).toBe(null);
      for (let round = 0; round < 30 * scale; round += 1) {
        await first.run(`ctypes.memmove(address + 10, b"first%03d" % round, 8); msync(address, 8192)`, { round });
        expect(await third.run(`result = ctypes.string_at(address + 10, 8)`)).toBe(`first${String(round).padStart(3, "0")}`);
        await second.run(`os.pwrite(fd, b"second%03d" % round, 30)`, { round });
        const both = `first${String(round).padStart(3, "0")}${"-".repeat(12)}second${String(round).padStart(3, "0")}`;
        expect(await first.run(`result = ctypes.string_at(address + 10, 29)`)).toBe(both);
        expect(await third.run(`result = ctypes.string_at(address + 10, 29)`)).toBe(both);
        expect(await second.run(`result = os.pread(fd, 29, 10)`)).toBe(both);
      }
      // Without the first one's handles the right passes on. close(2) does not wait for FUSE's RELEASE (fs/fuse/file.c, fuse_file_put).
      await first.run(`libc.munmap(address, 8192); os.close(fd)`);
      let mapped = "";
      await until(
        "the right has passed on",
        async () => {
          mapped = await second.run<string>(`os.close(fd); fd = os.open(name, os.O_RDWR); result = code(map_shared, fd, 8192)`);
          return mapped === "ok";
        },
        () => mapped,
      );
    },
  );

  it.each(["the owner", "a remote node"])(
    "F9: a write beside stores to the same page on %s is not lost while another node reads",
    async (role) => {
      const [a, b] = role === "the owner" ? [hazard.owner, hazard.remotes[0]] : [hazard.remotes[0], hazard.remotes[1]];
      const [writer, storer, reader] = [hazard.actor(a), hazard.actor(a), hazard.actor(b)];
      const given = { name: `beside stores on ${role}`, seconds: 5 * scale };
      const timeoutMs = 2000 * given.seconds + 120_000;
      await writer.run(`put(name, bytes(4096))`, given);
      // A reader that could write might take the page cache from the others' node.
      const lasting = (step: string, access = "RDWR"): string => `
fd = os.open(name, os.O_${access})
end = time.monotonic() + seconds
lost, k = [], 0
while time.monotonic() < end:
    k += 1
    ${step}
result = lost
`;
      const others = [
        storer.run(lasting(`mapping = mapping if k > 1 else mmap.mmap(fd, 4096); mapping[2048] = k % 256`), given, timeoutMs),
        reader.run(lasting(`os.pread(fd, 8, 0); time.sleep(0.003)`, "RDONLY"), given, timeoutMs),
      ];
      // Without the page cache the owner is asked: it has what was written, or has lost it.
      const lost = await writer.run(
        lasting(`os.pwrite(fd, struct.pack("<q", k), 0)
    seen, = struct.unpack("<q", os.pread(fd, 8, 0))
    if seen != k:
        now = time.monotonic()
        later = [struct.unpack("<q", os.pread(fd, 8, 0))[0] for _ in range(20)]
        direct, buffer = os.open(name, os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, 4096)
        os.preadv(direct, [buffer], 0)
        os.close(direct)
        lost.append({"at": now, "written": k, "read": seen, "read later": later, "the owner has": struct.unpack_from("<q", buffer)[0]})`),
        given,
        timeoutMs,
      );
      await Promise.all(others);
      expect(lost).toEqual([]);
    },
  );

  it("F9: SQLite in WAL mode on two nodes gets an error on the second, and no row is lost", async () => {
    const [a, b] = hazard.remotes;
    const first = hazard.actor(a);
    const second = hazard.actor(b);
    await first.run(`
db = sqlite3.connect("wal.db", isolation_level=None)
assert db.execute("PRAGMA journal_mode=WAL").fetchone()[0] == "wal"
db.execute("CREATE TABLE t (n INTEGER)")
for n in range(10): db.execute("INSERT INTO t VALUES (?)", (n,))
`);
    const refused = await second.run<string>(`
try:
    other = sqlite3.connect("wal.db", isolation_level=None)
    other.execute("INSERT INTO t VALUES (1000)")
    result = "no error"
except sqlite3.OperationalError as error: result = str(error)
`);
    expect(refused).not.toBe("no error");
    const rows = await first.run(`
for n in range(10, 20): db.execute("INSERT INTO t VALUES (?)", (n,))
result = [db.execute("SELECT count(*), sum(n) FROM t").fetchall(), db.execute("PRAGMA integrity_check").fetchone()[0]]
db.close()
`);
    expect(rows).toEqual([[[20, 190]], "ok"]);
    // With the first one gone the second may.
    const later = await second.run(`
other.close()
other = sqlite3.connect("wal.db", isolation_level=None)
other.execute("INSERT INTO t VALUES (1000)")
result = other.execute("SELECT count(*), sum(n) FROM t").fetchall()
other.close()
`);
    expect(later).toEqual([[21, 1190]]);
  });

  it("F14: an O_DIRECT reader does not see a write of its own node that has not returned; a reader of the page cache may", async () => {
    const [a, c] = hazard.remotes;
    const writer = hazard.actor(a);
    const holder = hazard.actor(c);
    await writer.run(`put("unanswered", b"old" * 1000); fd = os.open("unanswered", os.O_RDWR); os.pread(fd, 3000, 0)`);
    await holder.run(`fd = os.open("unanswered", os.O_RDONLY); result = os.pread(fd, 3, 0)`);
    // The kernel here has the page, and attributes that are valid: a read of the page cache asks for nothing.
    await writer.run(`os.pread(fd, 3000, 0); result = os.fstat(fd).st_size`);
    const [direct, cached] = [hazard.actor(a), hazard.actor(a)];
    await direct.run(`fd = os.open("unanswered", os.O_RDONLY | os.O_DIRECT); buffer = mmap.mmap(-1, 4096)`);
    await cached.run(
      `fd = os.open("unanswered", os.O_RDONLY); address = map_shared(fd, 4096, mmap.PROT_READ); result = ctypes.string_at(address, 3)`,
    );
    await hazard.hold(c);
    const written = writer.run(`os.pwrite(fd, b"new", 0)`);
    await hazard.untilUnderWay(a, { write: 1 });
    // In the page already, though the write has not returned ...
    expect(await cached.run(`result = ctypes.string_at(address, 3)`)).toBe("new");
    // ... but who goes around the page cache asks the owner, and waits for the lock behind the write.
    let seen: string | null = null;
    const read = direct.run<string>(`os.preadv(fd, [buffer], 0); result = buffer[0:3]`).then((data) => (seen = data));
    await hazard.untilUnderWay(a, { write: 1, read: 1 });
    expect(seen).toBe(null);
    hazard.letGo(c);
    await written;
    expect(["old", "new"]).toContain(await read);
    for (const program of [writer, holder]) expect(await program.run(`result = os.pread(fd, 3, 0)`)).toBe("new");
    expect(await direct.run(`os.preadv(fd, [buffer], 0); result = buffer[0:3]`)).toBe("new");
  });
});
