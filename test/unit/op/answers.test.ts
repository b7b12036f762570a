/** What single replies carry. */
import { describe, expect, it } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import type { Confirmed } from "../../../overlay/coherence/size/kernel-sizes.ts";
import { SENTINEL_SIZE } from "../../../overlay/coherence/size/sentinel.ts";
import { LARGE_BYTES, largeBuffers } from "../../../overlay/lower/large-buffers.ts";
import { checkAccess, checkSticky } from "../../../overlay/op/permission.ts";
import { credentialsOf } from "../../../overlay/caller/status.ts";
import { attrOf, FILE } from "./scripted-lower.ts";
import { type Reply, Workbench } from "./workbench.ts";

const name = Buffer.from("name");
const lookup = { op: "lookup" as const, name };

const entryValid = (reply: Reply | undefined): boolean => (reply?.body.readBigUInt64LE(16) ?? 0n) > 0n;
const attrValid = (reply: Reply | undefined): boolean => (reply?.body.readBigUInt64LE(24) ?? 0n) > 0n;
const size = (reply: Reply | undefined): number => Number(reply?.body.readBigUInt64LE(48));

describe("TMPFILE", () => {
  const O_EXCL = 0o200;
  const O_TMPFILE = 0o20000000 | (process.arch === "arm64" ? 0o040000 : 0o200000);
  const tmpfile = { op: "tmpfile" as const, mode: 0o644, umask: 0o022, flags: 2 | O_TMPFILE, supplementaryGids: [] };

  it("a file of the caller's that no name was told of, with its attributes, a page cache, and a lock that was born here", async () => {
    const bench = new Workbench();
    const reply = await bench.serve(tmpfile);
    expect([reply?.errno, entryValid(reply), attrValid(reply)]).toEqual([0, false, true]);
    // fuse_attr.nlink
    expect(reply?.body.readUInt32LE(40 + 64)).toBe(0);
    const made = bench.inodes.get(Number(reply?.body.readBigUInt64LE(0)));
    expect([made?.nlookup, made?.openCount, made?.nlinkHint, bench.coherence.tokens]).toEqual([1, 1, 0, 1]);
    expect(bench.coherence.told.size).toBe(0);
    expect(bench.coherence.events).toContain("born 21.1");
    expect(bench.lower.nameless).toEqual({ flags: 2, mode: 0o644, caller: { uid: 1000, gid: 1000, umask: 0o022 }, linkable: true });
  });

  it("with O_EXCL it can never be linked (hazard F30)", async () => {
    const bench = new Workbench();
    await bench.serve({ ...tmpfile, flags: tmpfile.flags | O_EXCL });
    expect(bench.lower.nameless).toMatchObject({ flags: 2, linkable: false });
  });

  it("in a removed directory: ENOENT; EOPNOTSUPP is passed on", async () => {
    const bench = new Workbench();
    bench.lower.errors.set("tmpfile", [E.ESTALE, E.EOPNOTSUPP]);
    expect([(await bench.serve(tmpfile))?.errno, (await bench.serve(tmpfile))?.errno]).toEqual([E.ENOENT, E.EOPNOTSUPP]);
  });

  it("appends without a page cache; it is closed if its caller was killed meanwhile", async () => {
    const bench = new Workbench();
    await bench.serve({ ...tmpfile, flags: tmpfile.flags | 0o2000 });
    expect(bench.coherence.tokens).toBe(0);
    bench.lower.later = true;
    const call = bench.call("tmpfile");
    const served = bench.serve(tmpfile, call);
    while (bench.lower.calls.length < 2) await new Promise((resolve) => setImmediate(resolve));
    call.interrupt();
    await served;
    expect([bench.lower.closed, bench.coherence.tokens, bench.coherence.held]).toEqual([[2], 0, 0]);
  });
});

describe("LOOKUP", () => {
  it("a child whose lock is elsewhere: no attribute validity, the sentinel size (hazard F5)", async () => {
    const bench = new Workbench();
    bench.coherence.child = { pinned: false, trip: true };
    const reply = await bench.serve(lookup);
    expect([entryValid(reply), attrValid(reply), size(reply)]).toEqual([true, false, SENTINEL_SIZE]);
    expect(bench.file.nlookup).toBe(2);
  });

  it("a child whose lock took a trip: the attributes are read again", async () => {
    const bench = new Workbench();
    bench.coherence.child = { pinned: true, trip: true };
    bench.coherence.childLater = true;
    const reply = await bench.serve(lookup);
    expect(bench.lower.calls).toEqual(["lookup", "getattr"]);
    expect([entryValid(reply), attrValid(reply), size(reply)]).toEqual([true, true, 100]);
  });

  it("a directory that the kernel has elsewhere is told of when it is gone there", async () => {
    const bench = new Workbench();
    let gone = (): void => {};
    bench.coherence.elsewhere.set(
      bench.file,
      new Promise((resolve) => {
        gone = resolve;
      }),
    );
    const served = bench.serve(lookup);
    await new Promise((resolve) => setImmediate(resolve));
    expect(bench.replies).toEqual([]);
    gone();
    expect((await served)?.errno).toBe(0);
    expect(bench.coherence.held).toBe(0);
  });

  it("a child whose lock was granted while the attributes were on their way: they are read again", async () => {
    const bench = new Workbench();
    bench.lower.later = true;
    const served = bench.serve(lookup);
    bench.coherence.happens("granted");
    const reply = await served;
    expect(bench.lower.calls).toEqual(["lookup", "getattr"]);
    expect([attrValid(reply), size(reply)]).toEqual([true, 100]);
  });

  it("attributes that were changed while they were on their way: no validity (hazard F4)", async () => {
    const bench = new Workbench();
    bench.lower.later = true;
    const found = bench.serve(lookup);
    bench.coherence.happens("changed");
    expect([entryValid(await found), attrValid(await found)]).toEqual([true, false]);
    const told = bench.serve({ op: "getattr", fuseNodeid: bench.file.fuseNodeid, fh: null });
    bench.coherence.happens("changed");
    expect((await told)?.body.readBigUInt64LE(0)).toBe(0n);
    const later = await bench.serve({ op: "getattr", fuseNodeid: bench.file.fuseNodeid, fh: null });
    expect(later?.body.readBigUInt64LE(0)).toBeGreaterThan(0n);
  });

  it("negative: with validity, or ENOENT", async () => {
    const bench = new Workbench();
    bench.lower.errors.set("lookup", [E.ENOENT, E.ENOENT]);
    const reply = await bench.serve(lookup);
    expect([reply?.errno, Number(reply?.body.readBigUInt64LE(0)), entryValid(reply)]).toEqual([0, 0, true]);
    bench.coherence.entryValid = false;
    expect((await bench.serve(lookup))?.errno).toBe(E.ENOENT);
  });

  it("in a removed directory: ENOENT (hazard F18), and an inode that the kernel forgot: ESTALE", async () => {
    const bench = new Workbench();
    bench.lower.errors.set("lookup", [E.ESTALE]);
    expect((await bench.serve(lookup))?.errno).toBe(E.ENOENT);
    expect((await bench.serve({ ...lookup, fuseNodeid: 999 }))?.errno).toBe(E.ESTALE);
  });
});

describe("READ", () => {
  it("through a direct handle may hold pages too, those of a private mapping: it passes during a revoke (hazard F1)", async () => {
    const bench = new Workbench();
    const { fh } = bench.openFile(false);
    await bench.serve({ op: "read", fh, offset: 0, size: 10, flags: 2, lockOwner: null, fuseNodeid: bench.file.fuseNodeid });
    expect(bench.coherence.passing).toEqual([true]);
  });

  it("gives memory of large data back once the kernel has it", async () => {
    const bench = new Workbench();
    const data = largeBuffers.take(LARGE_BYTES);
    bench.lower.read = (): Promise<Buffer> => Promise.resolve(data.fill("x"));
    const { fh } = bench.openFile();
    const reply = bench.serve({
      op: "read",
      fh,
      offset: 0,
      size: LARGE_BYTES,
      flags: 2,
      lockOwner: null,
      fuseNodeid: bench.file.fuseNodeid,
    });
    expect((await reply)?.body.byteLength).toBe(LARGE_BYTES);
    expect(largeBuffers.take(LARGE_BYTES).buffer === data.buffer).toBe(true);
  });

  it("that waits until the kernel's size was looked at keeps its data, whatever is read meanwhile", async () => {
    const bench = new Workbench();
    bench.lower.data = Buffer.alloc(1000);
    const ends: ((right: boolean) => void)[] = [];
    const confirmEnd = (): Promise<boolean> => new Promise((resolve) => ends.push(resolve));
    Object.assign(bench.coherence, { sizes: { ...bench.coherence.sizes, confirmEnd } });
    const { fh } = bench.openFile();
    const read = (): Promise<unknown> =>
      bench.serve({ op: "read", fh, offset: 0, size: 200, flags: 2, lockOwner: null, fuseNodeid: bench.file.fuseNodeid });
    const reads = [read(), read()];
    while (ends.length < 2) await Promise.resolve();
    for (const end of ends) end(true);
    await Promise.all(reads);
    const [first, second] = bench.replies.map(({ body }) => [...new Set(body)]);
    expect(bench.replies.map(({ body }) => body.byteLength)).toEqual([100, 100]);
    expect(first).toHaveLength(1);
    expect(second).toHaveLength(1);
    expect(second).not.toEqual(first);
  });
});

it("F5: a READ gives its pin back, and reads again when it has another; killed meanwhile it has none to give back", async () => {
  const bench = new Workbench();
  bench.lower.data = Buffer.alloc(1000);
  const found: Confirmed[] = ["repin", true, "repin"];
  Object.assign(bench.coherence, { sizes: { ...bench.coherence.sizes, confirmEnd: () => Promise.resolve(found.shift()) } });
  const { fh } = bench.openFile();
  const read = { op: "read", fh, offset: 0, size: 4096, flags: 0, lockOwner: 0n, fuseNodeid: bench.file.fuseNodeid } as const;
  const reply = await bench.serve(read);
  expect([reply?.body.byteLength, bench.coherence.repinned, bench.coherence.held, bench.file.readsUnderWay]).toEqual([
    100,
    [{ from: 0, to: 4096 }],
    0,
    0,
  ]);
  let kill: (error: Error) => void = () => undefined;
  bench.coherence.repins = new Promise((_, reject) => (kill = reject));
  const reading = bench.serve(read);
  await new Promise((resolve) => setImmediate(resolve));
  // No append waits for it.
  expect([bench.coherence.repinned.length, bench.file.readsUnderWay]).toEqual([2, 0]);
  kill(errnoError(E.EINTR));
  const killed = await reading;
  expect([killed?.errno, bench.coherence.held, bench.coherence.violations, bench.file.readsUnderWay]).toEqual([E.EINTR, 0, [], 0]);
});

it("F5: of a READ of many pages that is refused only the first is left in the kernel: it asks for that again", async () => {
  const bench = new Workbench();
  bench.lower.data = Buffer.alloc(1000);
  Object.assign(bench.coherence, { sizes: { ...bench.coherence.sizes, confirmEnd: () => Promise.reject(errnoError(E.EINTR)) } });
  const { fh } = bench.openFile();
  const read = { op: "read", fh, offset: 8192, size: 16384, flags: 0, lockOwner: 0n, fuseNodeid: bench.file.fuseNodeid } as const;
  const { key } = bench.file.cover;
  expect((await bench.serve(read))?.errno).toBe(E.EINTR);
  expect(bench.coherence.events.slice(-3)).toEqual([`error ${E.EINTR}`, `unpin ${key} PR`, `dropPages ${key} 12288 12288`]);
  const dropped = (): number => bench.coherence.events.filter((event) => event.startsWith("dropPages")).length;
  await bench.serve({ ...read, size: 4096 });
  // Its pages are not known.
  await bench.serve({ ...read, size: 5000 });
  expect([dropped(), bench.coherence.held, bench.coherence.violations]).toEqual([1, 0, []]);
});

it("F5: while FALLOCATE waits for its lock the kernel takes no size from others, unless it keeps the size", async () => {
  for (const [mode, times] of [
    [0, 1],
    [3, 0],
  ] as const) {
    const bench = new Workbench();
    let unstable = 0;
    const noted = (): (() => void) => {
      unstable += 1;
      return () => undefined;
    };
    Object.assign(bench.coherence, { sizes: { ...bench.coherence.sizes, unstable: noted } });
    const { fh } = bench.openFile();
    const reply = await bench.serve({ op: "fallocate", fh, fuseNodeid: bench.file.fuseNodeid, offset: 0, length: 10, mode });
    expect([mode, reply?.errno, unstable]).toEqual([mode, 0, times]);
  }
});

it.each([
  ["raises", 0, 30],
  ["raises", 1, 0],
  ["clears", 3, 0],
  ["clears", 0x10, 30],
  ["clears", 0x11, 0],
])("FALLOCATE says what its caller still does to pages and size: %s, by mode %i", async (effect, mode, end) => {
  const bench = new Workbench();
  const replied: unknown[] = [];
  bench.coherence.sizes = { ...bench.coherence.sizes, replied: (_inode, _tid, what, to) => void replied.push(what, to) };
  const { fh } = bench.openFile();
  await bench.serve({ op: "fallocate", fh, fuseNodeid: bench.file.fuseNodeid, offset: 20, length: 10, mode });
  expect(replied).toEqual([effect, end]);
});

it("COPY_FILE_RANGE says that its caller still drops pages of the target", async () => {
  const bench = new Workbench();
  const replied: unknown[] = [];
  bench.coherence.sizes = { ...bench.coherence.sizes, replied: (_inode, _tid, what, to) => void replied.push(what, to) };
  const { fh } = bench.openFile();
  await bench.serve({
    op: "copyFileRange",
    fh,
    fuseNodeid: bench.file.fuseNodeid,
    offset: 0,
    outFh: fh,
    outOffset: 50,
    length: 10,
    flags: 0,
  });
  const copied = bench.lower.calls.length > 0;
  expect([copied, ...replied.slice(0, 1)]).toEqual([true, "clears"]);
});

it("FALLOCATE that failed may have been made in part: what the kernel has is outdated before it is told", async () => {
  const bench = new Workbench();
  bench.lower.errors.set("fallocate", [E.ENOSPC]);
  const { fh } = bench.openFile();
  const reply = await bench.serve({ op: "fallocate", fh, fuseNodeid: bench.file.fuseNodeid, offset: 0, length: 10, mode: 0 });
  expect([reply?.errno, bench.coherence.violations]).toEqual([E.ENOSPC, []]);
  expect(bench.coherence.events.slice(-3)).toEqual(["distrust 20.1", "unpin 20.1 EX", `error ${E.ENOSPC}`]);
});

it("FALLOCATE of a hole that failed may have made a part of it: its pages are dropped before the kernel is told", async () => {
  const bench = new Workbench();
  bench.lower.errors.set("fallocate", [E.ENOSPC]);
  bench.coherence.dropPages = (_inode, offset, bytes) => {
    bench.coherence.events.push(`drop ${offset}+${bytes}`);
    return Promise.resolve();
  };
  const { fh } = bench.openFile();
  const reply = await bench.serve({ op: "fallocate", fh, fuseNodeid: bench.file.fuseNodeid, offset: 20, length: 10, mode: 0x11 });
  expect(reply?.errno).toBe(E.ENOSPC);
  expect(bench.coherence.events.slice(-4)).toEqual(["distrust 20.1", "drop 20+10", "unpin 20.1 EX", `error ${E.ENOSPC}`]);
});

it("FALLOCATE that failed may have made the file longer: the kernel goes by its own size, and has it before it is told", async () => {
  const bench = new Workbench();
  const raised: number[][] = [];
  bench.coherence.raiseSize = (_inode, size, last) => Promise.resolve(void raised.push([size, last]));
  const { fh } = bench.openFile();
  const fails = async (mode: number, size: number): Promise<void> => {
    bench.lower.size = 100;
    bench.lower.fallocate = () => {
      bench.lower.size = size;
      throw errnoError(E.ENOSPC);
    };
    const reply = await bench.serve({ op: "fallocate", fh, fuseNodeid: bench.file.fuseNodeid, offset: 20, length: 1000, mode });
    expect(reply?.errno).toBe(E.ENOSPC);
  };
  await fails(0, 500);
  await fails(1, 500);
  // As it was: its last byte may have been stored by a mapping, and is not the lower's.
  await fails(0, 100);
  expect(raised).toEqual([[500, 0]]);
});

describe("listings", () => {
  const list = (bench: Workbench, op: "readdir" | "readdirplus"): Record<string, unknown> & { op: typeof op } => ({
    op,
    fh: bench.openDirectory().fh,
    cookie: 0n,
    size: 4096,
  });

  it("READDIRPLUS: a child whose lock is elsewhere is a plain entry and counts no lookup (hazard F13)", async () => {
    const bench = new Workbench();
    bench.coherence.child = { pinned: false, trip: true };
    const reply = await bench.serve(list(bench, "readdirplus"));
    expect(Number(reply?.body.readBigUInt64LE(0))).toBe(0);
    expect(bench.file.nlookup).toBe(1);
    expect(bench.coherence.events.filter((event) => event.startsWith("tell"))).toEqual([]);
  });

  it("READDIRPLUS: locks that are elsewhere are brought once, with nothing pinned, and the listing is read again", async () => {
    const bench = new Workbench();
    bench.coherence.child = { pinned: false, trip: true };
    bench.coherence.comes = true;
    const reply = await bench.serve(list(bench, "readdirplus"));
    expect(bench.coherence.events.filter((event) => event.startsWith("bring"))).toEqual([`bring ${bench.file.cover.key} PR in 20 ms`]);
    expect(bench.coherence.violations).toEqual([]);
    expect(Number(reply?.body.readBigUInt64LE(0))).toBe(bench.file.fuseNodeid);
    expect([bench.file.nlookup, bench.file.useCount]).toEqual([2, 0]);
  });

  it("READDIRPLUS: one whose lock took a trip is read again, all in one call", async () => {
    const bench = new Workbench();
    bench.coherence.child = { pinned: true, trip: true };
    const reply = await bench.serve(list(bench, "readdirplus"));
    expect(bench.lower.calls).toEqual(["readdir", "lookupMany", "getattrMany"]);
    expect(Number(reply?.body.readBigUInt64LE(0))).toBe(bench.file.fuseNodeid);
    expect(bench.file.nlookup).toBe(2);
  });

  it("READDIRPLUS: a name that the kernel has with its attributes is a plain entry, and nothing is asked for it", async () => {
    const bench = new Workbench();
    bench.coherence.valid.add("2.0 name");
    const reply = await bench.serve(list(bench, "readdirplus"));
    expect(bench.lower.calls).toEqual(["readdir"]);
    expect(Number(reply?.body.readBigUInt64LE(0))).toBe(0);
    expect(bench.file.nlookup).toBe(1);
    expect(bench.coherence.events.filter((event) => event.startsWith("tell"))).toEqual([]);
  });

  it("READDIRPLUS: attributes that were changed while they were on their way: no validity (hazard F4)", async () => {
    const bench = new Workbench();
    bench.lower.later = true;
    const listed = bench.serve(list(bench, "readdirplus"));
    bench.coherence.happens("changed");
    const [entry, attr] = [(await listed)?.body.readBigUInt64LE(16), (await listed)?.body.readBigUInt64LE(24)];
    expect([(entry ?? 0n) > 0n, attr]).toEqual([true, 0n]);
  });

  it("READDIRPLUS: no name is told that an owner gave which has died since: they go as plain entries", async () => {
    const bench = new Workbench();
    bench.lower.later = true;
    const listed = bench.serve(list(bench, "readdirplus"));
    bench.coherence.happens("owner died");
    expect(Number((await listed)?.body.readBigUInt64LE(0))).toBe(0);
    expect(bench.file.nlookup).toBe(1);
    expect(bench.coherence.events.filter((event) => event.startsWith("tell"))).toEqual([]);
  });

  it("READDIRPLUS: where the kernel has hardly any name, the first part comes with its attributes in one trip", async () => {
    const bench = new Workbench();
    bench.coherence.few = true;
    const request = list(bench, "readdirplus");
    const reply = await bench.serve(request);
    expect(bench.lower.calls).toEqual(["readdir"]);
    expect(Number(reply?.body.readBigUInt64LE(0))).toBe(bench.file.fuseNodeid);
    // Of a later part the one before it tells.
    await bench.serve({ ...request, fh: bench.openDirectory().fh, cookie: 5n });
    expect(bench.lower.calls).toEqual(["readdir", "readdir", "lookupMany"]);
  });

  it.each(["readdir", "readdirplus"] as const)("%s behind the last name asks nobody, once", async (op) => {
    const bench = new Workbench();
    bench.coherence.few = true;
    const request = list(bench, op);
    await bench.serve(request);
    const end = { ...request, cookie: 1n };
    bench.coherence.events.length = 0;
    const reply = await bench.serve(end);
    expect([reply?.errno, reply?.body.length, bench.lower.calls, bench.coherence.events]).toEqual([0, 0, ["readdir"], ["reply"]]);
    // Who comes there again may find what was made since.
    expect((await bench.serve(end))?.body.length).toBeGreaterThan(0);
    expect(bench.lower.calls).toEqual(["readdir", "readdir"]);
  });

  it("from anywhere else than behind the last name it asks, and then also there", async () => {
    const bench = new Workbench();
    const request = list(bench, "readdir");
    await bench.serve(request);
    bench.lower.ends = false;
    for (const cookie of [0n, 1n, 1n]) expect((await bench.serve({ ...request, cookie }))?.body.length).toBeGreaterThan(0);
  });

  it("READDIRPLUS: where most names were new, the next part comes with its attributes in one trip", async () => {
    const bench = new Workbench();
    const request = list(bench, "readdirplus");
    await bench.serve(request);
    await bench.serve(request);
    expect(bench.lower.calls).toEqual(["readdir", "lookupMany", "readdir"]);
    bench.coherence.valid.add("2.0 name");
    bench.lower.calls.length = 0;
    await bench.serve(request);
    const told = await bench.serve(request);
    expect(bench.lower.calls).toEqual(["readdir", "readdir"]);
    expect(Number(told?.body.readBigUInt64LE(0))).toBe(0);
  });

  it("READDIRPLUS: names are told as those of a listing, by its handle and its thread (hazard F48)", async () => {
    const bench = new Workbench();
    const request = list(bench, "readdirplus");
    const call = bench.call("readdirplus");
    await bench.serve(request, call);
    expect(bench.coherence.listings).toMatchObject([{ fh: request["fh"], tid: call.pid }]);
  });

  it("READDIRPLUS: whose caller was killed meanwhile is told of nothing", async () => {
    const bench = new Workbench();
    bench.lower.later = true;
    const call = bench.call("readdirplus");
    const listed = bench.serve(list(bench, "readdirplus"), call);
    call.interrupt();
    await listed;
    expect(bench.lower.calls).toContain("lookupMany");
    expect([bench.coherence.events.filter((event) => event.startsWith("tell")), bench.file.nlookup]).toEqual([[], 1]);
  });

  it("of a removed directory: empty (hazard F18)", async () => {
    const bench = new Workbench();
    bench.lower.errors.set("readdir", [E.ESTALE, E.ENOENT]);
    for (const op of ["readdir", "readdirplus"] as const) {
      const reply = await bench.serve(list(bench, op));
      expect([reply?.errno, reply?.body.length]).toEqual([0, 0]);
    }
  });
});

describe("others", () => {
  it("LINK and SETATTR carry no attribute validity (hazard F4)", async () => {
    const bench = new Workbench();
    const link = await bench.serve({ op: "link", name, targetFuseNodeid: bench.file.fuseNodeid });
    expect([entryValid(link), attrValid(link)]).toEqual([true, false]);
    const setattr = await bench.serve({ op: "setattr", fuseNodeid: bench.file.fuseNodeid, fh: null, change: {} });
    expect(Number(setattr?.body.readBigUInt64LE(0))).toBe(0);
  });

  it("GETXATTR: the size, the value, or ERANGE", async () => {
    const bench = new Workbench();
    const get = (room: number): Promise<Reply | undefined> =>
      bench.serve({ op: "getxattr", fuseNodeid: bench.file.fuseNodeid, name, size: room });
    expect((await get(0))?.body.readUInt32LE(0)).toBe(5);
    expect((await get(5))?.body.toString()).toBe("value");
    expect((await get(4))?.errno).toBe(E.ERANGE);
  });

  it("READ behind every end is empty and asks nobody", async () => {
    const bench = new Workbench();
    const { fh } = bench.openFile();
    for (const offset of [SENTINEL_SIZE, 2 ** 60]) {
      const reply = await bench.serve({ op: "read", fuseNodeid: bench.file.fuseNodeid, fh, offset, size: 4096, flags: 2 });
      expect([reply?.errno, reply?.body.length]).toEqual([0, 0]);
    }
    expect(bench.lower.calls).toEqual([]);
  });

  it("OPEN where another node writes is direct", async () => {
    const bench = new Workbench();
    bench.coherence.token = "direct";
    const reply = await bench.serve({ op: "open", fuseNodeid: bench.file.fuseNodeid, flags: 1 });
    expect((reply?.body.readUInt32LE(8) ?? 0) & 1).toBe(1);
    const plain = await bench.serve({ op: "open", fuseNodeid: bench.file.fuseNodeid, flags: 0 });
    expect((plain?.body.readUInt32LE(8) ?? 0) & 3).toBe(2);
  });

  it("OPEN for appending is direct, token or not (hazard F5)", async () => {
    const bench = new Workbench();
    bench.coherence.token = "cached";
    const reply = await bench.serve({ op: "open", fuseNodeid: bench.file.fuseNodeid, flags: 1 | 0o2000 });
    expect((reply?.body.readUInt32LE(8) ?? 0) & 1).toBe(1);
  });

  it("RELEASE closes once, and asks for no lock", async () => {
    const bench = new Workbench();
    const { fh } = bench.openFile();
    bench.coherence.locks = "never";
    await bench.serve({ op: "flush", fh });
    await bench.serve({ op: "release", fh });
    await bench.serve({ op: "release", fh });
    expect(bench.lower.closed).toEqual([77]);
    expect(bench.coherence.tokens).toBe(0);
    expect(bench.replies.map(({ errno }) => errno)).toEqual([0, 0, 0]);
  });

  it("the umask is the caller's only with DONT_MASK", async () => {
    const bench = new Workbench();
    const masks: number[] = [];
    const mkdir = bench.lower.mkdir.bind(bench.lower);
    bench.lower.mkdir = (...args: unknown[]): ReturnType<typeof mkdir> => {
      masks.push((args[3] as { umask: number }).umask);
      return mkdir();
    };
    await bench.serve({ op: "mkdir", name, mode: 0o777, umask: 0o22 });
    bench.inodes.forget(3, 1);
    bench.mount.dontMask = false;
    await bench.serve({ op: "mkdir", name, mode: 0o777, umask: 0o22 });
    expect(masks).toEqual([0o22, 0]);
  });
});

describe("what is known of what was made here", () => {
  const capability = { op: "getxattr" as const, name: Buffer.from("security.capability"), size: 100 };

  it("a new directory is made known to the lower, unless somebody had business with it before", async () => {
    const bench = new Workbench();
    const made = { op: "mkdir" as const, name, mode: 0o777, umask: 0 };
    await bench.serve(made);
    expect(bench.lower.madeHere).toHaveLength(1);
    bench.coherence.bornFirst = false;
    await bench.serve(made);
    expect(bench.lower.madeHere).toHaveLength(1);
  });

  it("a file has no capabilities as long as its hold lasts and none were set here; of anything else nothing is known", async () => {
    const bench = new Workbench();
    const ask = async (attribute = capability.name): Promise<number | undefined> =>
      (await bench.serve({ ...capability, name: attribute, fuseNodeid: bench.file.fuseNodeid }))?.errno;
    expect([await ask(), bench.lower.calls.splice(0)]).toEqual([0, ["getxattr"]]);
    bench.file.uncappedHold = bench.coherence.heldNo;
    expect([await ask(), bench.lower.calls.splice(0)]).toEqual([E.ENODATA, []]);
    expect([await ask(Buffer.from("user.a")), bench.lower.calls.splice(0)]).toEqual([0, ["getxattr"]]);
    bench.coherence.heldNo += 1;
    expect([await ask(), bench.lower.calls.splice(0)]).toEqual([0, ["getxattr"]]);
    bench.file.uncappedHold = bench.coherence.heldNo;
    await bench.serve({
      op: "setxattr",
      fuseNodeid: bench.file.fuseNodeid,
      name: capability.name,
      value: name,
      flags: 0,
      aclKillSgid: false,
    });
    expect([await ask(), bench.lower.calls.splice(0)]).toEqual([0, ["setxattr", "getxattr"]]);
  });
});

it.each(["mkdir", "mknod", "symlink"] as const)("F18: %s in a directory that was removed elsewhere ends with ENOENT", async (op) => {
  const bench = new Workbench();
  bench.lower.errors.set(op, [E.ESTALE]);
  const given = { name, mode: 0o755, umask: 0, rdevMajor: 0, rdevMinor: 0, target: name };
  expect((await bench.serve({ op, ...given }))?.errno).toBe(E.ENOENT);
  expect(bench.coherence.held).toBe(0);
});

describe("permission", () => {
  const attr = attrOf(FILE, { mode: 0o100640, uid: 5, gid: 6 });
  const who = { uid: 1, gid: 1, groups: [6], capabilities: 0n };

  it("owner, group by a supplementary one, others; an ACL refuses all but the owner", () => {
    checkAccess({ ...who, uid: 5 }, attr, 6, true);
    checkAccess(who, attr, 4, false);
    expect(() => checkAccess(who, attr, 2, false)).toThrow("EACCES");
    expect(() => checkAccess(who, attr, 4, true)).toThrow("EACCES");
    expect(() => checkAccess({ ...who, groups: [] }, attr, 4, false)).toThrow("EACCES");
    checkAccess({ ...who, capabilities: 2n }, attr, 6, true);
  });

  it("sticky directories: the file's owner, the directory's, CAP_FOWNER", () => {
    const dir = attrOf(FILE, { mode: 0o041777, uid: 9 });
    expect(() => checkSticky(who, dir, attr)).toThrow("EPERM");
    checkSticky({ ...who, uid: 5 }, dir, attr);
    checkSticky({ ...who, uid: 9 }, dir, attr);
    checkSticky({ ...who, capabilities: 8n }, dir, attr);
    checkSticky(who, { ...dir, mode: 0o040777 }, attr);
  });

  it("credentials from /proc/PID/status", () => {
    const status = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nCapEff:\t000000000000000a\n";
    expect(credentialsOf(status)).toEqual({ uid: 4, gid: 8, groups: [9, 10], capabilities: 10n });
    expect(credentialsOf("Name:\tx\n")).toBeNull();
  });
});
