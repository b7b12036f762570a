/**
 * Hazard F5: readers of every kind on a node, while programs on other nodes and on this one append to the same file. Nobody
 * is shown a zero byte where nobody wrote one, and what a completed write made is seen by whoever looks afterwards.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type Actor, createBarrier, until } from "../actor.ts";
import { hazardLab, scale } from "./hazard-lab.ts";

const RECORDS = 40 * scale;
/** Where each takes several times as long: two readers by sendfile look for the end, in turn, without a pause. */
const RECORDS_SLOW = 20 * scale;
/** Where no lock goes from node to node. */
const RECORDS_ALONE = 600 * scale;
const READERS_TIMEOUT_MS = 180_000;

/** What each way of reading gives from the start of the file on. */
const ways = {
  pread: `os.pread(fd, 1 << 20, 0)`,
  sendfile: `sendfile(fd)`,
  copy_file_range: `copied(fd)`,
  "small steps": `steps(fd, 333)`,
  "a descriptor opened for it": `opened()`,
};

const reading = `
import re
def sendfile(fd):
    target = os.memfd_create("target")
    while os.sendfile(target, fd, os.fstat(target).st_size, 1 << 20) > 0: pass
    data = os.pread(target, os.fstat(target).st_size, 0)
    os.close(target)
    return data

def copied(fd):
    target = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    bytes = 0
    while (count := os.copy_file_range(fd, target, 1 << 20, bytes, bytes)) > 0: bytes += count
    data = os.pread(target, bytes + 1, 0)
    os.close(target)
    return data

def steps(fd, size):
    os.lseek(fd, 0, os.SEEK_SET)
    parts = []
    while (part := os.read(fd, size)) != b"": parts.append(part)
    return b"".join(parts)

def opened():
    fd = os.open(log, os.O_RDONLY)
    try: return steps(fd, 1 << 20)
    finally: os.close(fd)

def opened_once():
    fd = os.open(log, os.O_RDONLY)
    try: return os.pread(fd, 1 << 20, 0)
    finally: os.close(fd)

def completed():
    return max(struct.unpack("<4q", open(ends, "rb").read()))

# Of one page, and one call: what lies behind it may have been read later.
records = re.compile(rb"(?:<[0-3]\\.[0-9]+-*>)*(?:<[^<>]*)?")

fd = os.open(log, os.O_RDONLY)
bad, turns = [], 0
say_begun()
while open(done, "rb").read() == bytes(8):
    turns += 1
    least = completed() if grows else 0
    data = READ
    if whole and records.fullmatch(data[:4096]) is None: bad.append("no records: %r" % data[:4096])
    if b"\\0" in data: bad.append("%d bytes, zeros from %d on" % (len(data), data.find(b"\\0")))
    if len(data) < least: bad.append("%d bytes after writes up to %d" % (len(data), least))
result = {"bad": bad[:10], "turns": turns}
`;

const seeking = `
def completed():
    return max(struct.unpack("<4q", open(ends, "rb").read()))

fd = os.open(log, os.O_RDONLY)
bad, turns = [], 0
say_begun()
while open(done, "rb").read() == bytes(8):
    turns += 1
    least = completed()
    end = os.lseek(fd, 0, os.SEEK_END)
    if not least <= end <= 1 << 30: bad.append("the end at %#x after writes up to %d" % (end, least))
result = {"bad": bad[:10], "turns": turns}
`;

const mapping = `
def completed():
    return max(struct.unpack("<4q", open(ends, "rb").read()))

fd = os.open(log, os.O_RDONLY)
length = 16 << 20
mapped = map_shared(fd, length, mmap.PROT_READ)
bad, turns = [], 0
say_begun()
while open(done, "rb").read() == bytes(8):
    turns += 1
    least = completed()
    if least == 0: continue
    tail = ctypes.string_at(mapped + max(0, least - 5000), min(least, 5000))
    if b"\\0" in tail: bad.append("up to %d: zeros at %d" % (least, tail.find(b"\\0")))
result = {"bad": bad[:10], "turns": turns}
`;

/** Replies that tell a size, one after the other: each may cut what another program has just read. */
const stating = `
fd = os.open(log, os.O_RDONLY)
turns = 0
say_begun()
while open(done, "rb").read() == bytes(8):
    turns += 1
    os.fstat(fd)
result = {"bad": [], "turns": turns}
`;

/** `at`: its place in the file `begun`. */
const saying = `
def say_begun(): os.pwrite(os.open(begun, os.O_WRONLY), b"\\1" * 8, 8 * at)
`;

/** `at`: its place in the file of ends; whose value is where a write of it, completed, ended at least. */
const writing = `
import random
fd = os.open(log, os.O_WRONLY | os.O_APPEND)
said = os.open(ends, os.O_WRONLY)
draw = random.Random(at)
for k in range(records):
    os.write(fd, b"<%d.%d%s>" % (at, k, b"-" * draw.choice(lengths)))
    if truncates and draw.random() < 0.02: os.ftruncate(fd, 0)
    elif not truncates: os.pwrite(said, struct.pack("<q", os.fstat(fd).st_size), 8 * at)
`;

/** Through page caches, where there is one, and at the end that it was told, which others may have moved. */
const writingInPlace = `
import random
if "fd" not in globals(): fd = os.open(log, os.O_RDWR)
draw = random.Random(at)
for k in range(records):
    os.pwrite(fd, b"<%d.%d%s>" % (at, k, b"-" * draw.choice(lengths)), os.fstat(fd).st_size)
`;

interface Found {
  readonly bad: readonly string[];
  readonly turns: number;
}

describe("F5: readers among writers", () => {
  const hazard = hazardLab();
  let count = 0;
  interface Mix {
    readonly before: number;
    readonly lengths: readonly number[];
    readonly truncates: boolean;
    /** The writers are on the readers' node, all of them. */
    readonly alone?: boolean;
    /** The writer beside the readers has a page cache. */
    readonly cached?: boolean;
    readonly records?: number;
  }

  /** Reads in each of the ways, by a process each, until the writers are done: two on other nodes, one beside the readers. */
  async function run(
    node: number,
    readers: readonly string[],
    { before, lengths, truncates, alone, cached, records = RECORDS }: Mix,
  ): Promise<Found[]> {
    count += 1;
    const log = `log-${count}`;
    const [done, ends] = [createBarrier(1), createBarrier(4)];
    const others = hazard.all.filter((nodeid) => nodeid !== node);
    const given = { log, done, ends, scratch: "", grows: !truncates && cached !== true, whole: truncates };
    await hazard.actor(node).run(`put(log, b"=" * before)`, { log, before });
    const begun = createBarrier(readers.length);
    const found = readers.map((source, at) => {
      const reader = `${saying}${source}`;
      return hazard.actor(node).run<Found>(reader, { ...given, begun, at, scratch: `scratch-${count}-${at}` }, READERS_TIMEOUT_MS);
    });
    await until("all readers have begun", () => !readFileSync(begun).includes(0));
    const writers: Actor[] = (alone === true ? [node, node] : [...others, others[0] ?? node, node]).map((nodeid) => hazard.actor(nodeid));
    // The first to open it gets the page cache.
    if (cached === true) await writers.at(-1)?.run("fd = os.open(log, os.O_RDWR)", { log });
    const source = cached === true ? writingInPlace : writing;
    await Promise.all(writers.map((writer, at) => writer.run(source, { ...given, at, records, lengths, truncates }, READERS_TIMEOUT_MS)));
    await hazard.actor(node).run(`open(done, "wb").write(b"finished")`, { done });
    const contents = hazard.all.map((nodeid) => hazard.actor(nodeid).run<number>("result = get(log).find(chr(0))", { log }));
    expect(await Promise.all(contents)).toEqual(hazard.all.map(() => -1));
    return Promise.all(found);
  }

  /**
   * The exception of overlay/coherence/size/README.md, "What remains": a reader that has found its pages and looks at the size after a whole revoke. Two
   * were seen in one run on a machine that did nothing else, and none in 600,000 reads on a busy one. Each rule is held by unit tests
   * (test/unit/coherence/size/doubt.test.ts): with any of them broken it was several in each of these tests.
   */
  const shown: string[] = [];
  const shownMax = 3 * scale;
  let reads = 0;
  const notShown = ({ bad, turns }: Found): string[] => {
    const isShown = (what: string): boolean => /zeros from|the end at/.test(what);
    reads += turns;
    shown.push(...bad.filter(isShown).map((what) => `${expect.getState().currentTestName}: ${what}`));
    return bad.filter((what) => !isShown(what));
  };

  const nodeOf = (role: string): number => (role === "the owner" ? hazard.owner : hazard.remotes[0]);

  describe.each(["the owner", "a remote node"])("on %s", (role) => {
    it("sendfile beside programs that stat, and no other node", async () => {
      const send = reading.replace("READ", ways.sendfile);
      const found = await run(nodeOf(role), [send, send, stating], {
        before: 0,
        lengths: [0, 20, 300],
        truncates: false,
        alone: true,
        records: RECORDS_ALONE,
      });
      for (const { bad, turns } of found) {
        expect(bad).toEqual([]);
        expect(turns).toBeGreaterThan(1);
      }
    });
  });

  it.each(["the owner", "a remote node"])(
    "on %s, beside programs that append and truncate there: what is cut off is never zeros",
    async (role) => {
      const reads = ["os.pread(fd, 1 << 20, 0)", "os.pread(fd, 1 << 16, 0)", "opened_once()"].map((read) => reading.replace("READ", read));
      const mix = { before: 0, lengths: [0, 20, 300], truncates: true, alone: true, records: RECORDS_ALONE };
      for (const { bad, turns } of await run(nodeOf(role), reads, mix)) {
        expect(bad).toEqual([]);
        expect(turns).toBeGreaterThan(1);
      }
    },
  );

  describe.each(["the owner", "a remote node"])("on %s, writers on all nodes", (role) => {
    it.each(Object.keys(ways))("%s", async (way) => {
      const read = reading.replace("READ", ways[way as keyof typeof ways]);
      const records = way === "sendfile" ? RECORDS_SLOW : RECORDS;
      const found = await run(nodeOf(role), [read, read], { before: 0, lengths: [0, 20, 300], truncates: false, records });
      for (const one of found) {
        expect(notShown(one)).toEqual([]);
        expect(one.turns).toBeGreaterThan(1);
      }
    });

    it("a file that is read ahead", async () => {
      const read = reading.replace("READ", "steps(fd, 1 << 17)");
      for (const one of await run(nodeOf(role), [read, read], { before: 3 << 20, lengths: [0, 20, 70_000], truncates: false })) {
        expect(notShown(one)).toEqual([]);
      }
    });

    it("writers that truncate", async () => {
      const read = reading.replace("READ", ways.pread);
      for (const one of await run(nodeOf(role), [read, read], { before: 0, lengths: [0, 20, 300], truncates: true })) {
        expect(notShown(one)).toEqual([]);
      }
    });

    it.each([1, 2])("SEEK_END by %i", async (seekers) => {
      const programs = Array.from({ length: seekers }, () => seeking);
      for (const one of await run(nodeOf(role), programs, { before: 0, lengths: [0, 20, 300], truncates: false })) {
        expect(notShown(one)).toEqual([]);
        expect(one.turns).toBeGreaterThan(1);
      }
    });

    it("writers with a page cache: all that they wrote is there", async () => {
      const read = reading.replace("READ", ways.sendfile);
      const mix = { before: 0, lengths: [0, 20, 300], truncates: false, cached: true, records: RECORDS_SLOW };
      for (const one of await run(nodeOf(role), [read, read], mix)) {
        expect(notShown(one)).toEqual([]);
        expect(one.turns).toBeGreaterThan(1);
      }
    });

    it("a mapping", async () => {
      for (const one of await run(nodeOf(role), [mapping, mapping], { before: 0, lengths: [0, 20, 300], truncates: false })) {
        expect(notShown(one)).toEqual([]);
      }
    });
  });

  it("a few of all these reads at most were shown a wrong end", () => {
    process.stdout.write(`${shown.length} of ${reads} reads were shown a wrong end\n`);
    expect(shown.slice(shownMax)).toEqual([]);
    expect(reads).toBeGreaterThan(1000 * shownMax);
  });
});
