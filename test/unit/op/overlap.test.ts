/** READs and WRITEs of the same pages that are under way together: overlap.ts. */
import { describe, expect, it, vi } from "vitest";
import { E, Errno } from "../../../dlmd/base/errno.ts";
import type { OpenFile } from "../../../overlay/inode/handles.ts";
import { O_DIRECT } from "../../../overlay/op/linux.ts";
import { beginRead, dropReread, endRead, REREADS_MAX } from "../../../overlay/coherence/pages/overlap.ts";
import { WriteBack } from "../../../overlay/coherence/pages/write-order.ts";
import { Workbench } from "./workbench.ts";
import { Revoke } from "../../../overlay/coherence/cover-parts.ts";
import { Mode } from "../../../dlmd/wire/mode.ts";

function requests(bench: Workbench, { fh }: OpenFile, bytes = 10) {
  const common = { fuseNodeid: bench.file.fuseNodeid, fh, lockOwner: 0n };
  const data = Buffer.alloc(bytes);
  const writing = { op: "write" as const, ...common, data, flags: 2, fromCache: false, killSuidgid: false };
  return {
    read: (offset: number, tid: number, change: object = {}, call = bench.call("read", tid)) =>
      bench.serve({ op: "read", ...common, offset, size: 4096, flags: 2, ...change }, call),
    write: (offset: number, tid: number, call = bench.call("write", tid)) => bench.serve({ ...writing, offset }, call),
  };
}

const drops = (bench: Workbench): string[] => bench.coherence.events.filter((event) => /dropPages|dropHeldPage|^reply/.test(event));

function shared(): Workbench {
  const bench = new Workbench();
  bench.file.cover.sweeps = 3;
  bench.file.cover.token = { state: "held", unregistered: false, users: 1, wanted: false, mapped: false, waiters: [] };
  return bench;
}

const WRITER = 42;
const READER = 43;
const live = { interrupted: false };
/** A READ that does not go by the page cache. */
const OWNED = { lockOwner: 7n };

/** A WRITE of one whole page whose old page is dropped when `drop` is called; vi.useRealTimers has to be called. */
async function droppingWhole() {
  const bench = shared();
  const { read, write } = requests(bench, bench.openFile(), 4096);
  let drop = (): void => {};
  const dropping = new Promise<void>((begun) => {
    bench.coherence.dropPages = () =>
      new Promise((resolve) => {
        drop = resolve;
        begun();
      });
  });
  await read(0, READER);
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const call = bench.call("write", WRITER);
  const writing = write(0, WRITER, call);
  await dropping;
  return { bench, inode: bench.file, call, writing, drop };
}

describe("a WRITE through a page cache", () => {
  it("drops what others have read of its pages since the last revoke, once", async () => {
    const bench = shared();
    const { read, write } = requests(bench, bench.openFile());
    await read(0, READER);
    await read(8192, READER);
    await write(4090, WRITER);
    await write(4090, WRITER);
    expect(drops(bench)).toEqual(["reply", "reply", "dropPages 20.1 0 4096", "reply", "reply"]);
    expect(bench.file.requests?.pendingReads).toBeNull();
  });

  it("leaves alone what its own thread has read, what a revoke has dropped since, and other pages", async () => {
    const own = shared();
    const ofOwn = requests(own, own.openFile());
    await ofOwn.read(0, WRITER);
    await ofOwn.write(0, WRITER);
    const swept = shared();
    const ofSwept = requests(swept, swept.openFile());
    await ofSwept.read(0, READER);
    swept.file.cover.sweeps += 1;
    await ofSwept.write(0, WRITER);
    const elsewhere = shared();
    const ofElsewhere = requests(elsewhere, elsewhere.openFile());
    await ofElsewhere.read(0, READER);
    await ofElsewhere.write(8192, WRITER);
    for (const bench of [own, swept, elsewhere]) expect(drops(bench)).toEqual(["reply", "reply"]);
  });

  it("drops it in a file that no revoke has touched, too: a stat is enough for the kernel to drop the page between", async () => {
    const bench = shared();
    bench.file.cover.sweeps = 0;
    const { read, write } = requests(bench, bench.openFile());
    await read(0, READER);
    await write(0, WRITER);
    expect(drops(bench)).toEqual(["reply", "dropHeldPage 20.1 0 of 43", "reply"]);
  });

  it("leaves alone what was read while nobody had the file open for writing here", async () => {
    const bench = shared();
    const { read, write } = requests(bench, bench.openFile());
    const { token } = bench.file.cover;
    if (token === null) throw new Error("no token");
    token.users = 0;
    await read(0, READER);
    token.users = 1;
    await write(0, WRITER);
    expect(drops(bench)).toEqual(["reply", "reply"]);
    bench.file.cover.token = null;
    bench.lower.later = true;
    const reading = read(0, READER, OWNED);
    expect(bench.file.requests).toBeNull();
    await reading;
  });

  it("is answered when they are dropped, or when it is seen to have locked them itself; what goes wrong later is still its own", async () => {
    const bench = shared();
    const { read, write } = requests(bench, bench.openFile());
    const { events } = bench.coherence;
    let [sees, drops] = [(_gone: boolean): void => {}, (): void => {}];
    bench.coherence.heldPage = {
      gone: new Promise((resolve) => (sees = resolve)),
      dropped: new Promise((resolve) => (drops = resolve)),
    };
    await read(0, READER);
    await read(0, WRITER);
    const replied = bench.replies.length;
    let ended = false;
    const writing = write(0, WRITER).then(() => (ended = true));
    for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    expect(bench.replies).toHaveLength(replied);
    expect(events.at(-1)).toBe("dropHeldPage 20.1 0 of 43");
    sees(false);
    while (bench.replies.length === replied) await new Promise((resolve) => setImmediate(resolve));
    await new Promise((resolve) => setImmediate(resolve));
    expect([ended, bench.coherence.held]).toEqual([false, 0]);
    drops();
    await writing;
  });

  it("may have locked the last page of them, and none of the others", async () => {
    const bench = shared();
    const { read, write } = requests(bench, bench.openFile(), 5000);
    for (const offset of [0, 4096, 8192]) await read(offset, READER);
    await write(4096, WRITER);
    expect(drops(bench).slice(3)).toEqual(["dropPages 20.1 4096 4096", "dropHeldPage 20.1 8192 of 43", "reply"]);
    expect(bench.coherence.madeInPage).toBe("904 at 8192");
    const whole = shared();
    const ofWhole = requests(whole, whole.openFile(), 10);
    for (let at = 0; at <= REREADS_MAX; at += 1) await ofWhole.read(at * 4096, READER);
    await ofWhole.write(5000, WRITER);
    expect(drops(whole).slice(-4)).toEqual([
      "dropPages 20.1 0 4096",
      `dropPages 20.1 8192 ${Number.MAX_SAFE_INTEGER - 8192}`,
      "dropHeldPage 20.1 4096 of 0",
      "reply",
    ]);
  });

  it("of whole pages has locked none: it is answered when they are dropped, and not before", async () => {
    const { bench, writing, drop } = await droppingWhole();
    try {
      await vi.advanceTimersByTimeAsync(200);
      expect(bench.replies).toHaveLength(1);
      drop();
      await writing;
      expect(bench.replies).toHaveLength(2);
    } finally {
      vi.useRealTimers();
    }
  });

  it("of whole pages waits for more than DROP_WAIT_MS: what has locked one may be a write-back that was not read from the device", async () => {
    const { bench, writing, drop } = await droppingWhole();
    try {
      await vi.advanceTimersByTimeAsync(1000);
      expect(bench.replies).toHaveLength(1);
      drop();
      await writing;
      expect(bench.replies).toHaveLength(2);
    } finally {
      vi.useRealTimers();
    }
  });

  it("goes on after DROP_WAIT_MS, if a READ has such a page locked: it may wait for the WRITE's caller", async () => {
    const { bench, inode, writing, drop } = await droppingWhole();
    try {
      const elsewhere = beginRead(inode, 4096, 4096, live);
      await vi.advanceTimersByTimeAsync(250);
      expect(bench.replies).toHaveLength(1);
      const pending = beginRead(inode, 0, 4096, live);
      await vi.advanceTimersByTimeAsync(249);
      expect(bench.replies).toHaveLength(1);
      await vi.advanceTimersByTimeAsync(1);
      expect(bench.replies).toHaveLength(2);
      drop();
      await writing;
      for (const read of [elsewhere, pending]) if (read !== null) endRead(inode, read);
    } finally {
      vi.useRealTimers();
    }
  });

  it("waits for longer while anything of the file is written back: that page is let go of when it is made", async () => {
    const { bench, inode, writing, drop } = await droppingWhole();
    try {
      const back = new WriteBack(inode);
      const pending = beginRead(inode, 0, 4096, live);
      await vi.advanceTimersByTimeAsync(1000);
      expect(bench.replies).toHaveLength(1);
      drop();
      back.over();
      await writing;
      if (pending !== null) endRead(inode, pending);
      expect(bench.replies).toHaveLength(2);
    } finally {
      vi.useRealTimers();
    }
  });

  it("whose caller is killed meanwhile goes on after DROP_WAIT_MS: a truncation may wait for it and hold the write-back up", async () => {
    const { bench, inode, call, writing, drop } = await droppingWhole();
    try {
      let ended = false;
      vi.spyOn(bench.coherence.sizes, "end").mockImplementation(() => (ended = true));
      const back = new WriteBack(inode);
      await vi.advanceTimersByTimeAsync(900);
      call.interrupt();
      await vi.advanceTimersByTimeAsync(99);
      expect(ended).toBe(false);
      await vi.advanceTimersByTimeAsync(1);
      expect(ended).toBe(true);
      drop();
      await writing;
      back.over();
    } finally {
      vi.restoreAllMocks();
      vi.useRealTimers();
    }
  });

  it("says of its last page that it may be kept once its caller was killed, and asks for none if that was before", async () => {
    const bench = shared();
    const { read, write } = requests(bench, bench.openFile());
    await read(0, READER);
    const call = bench.call("write", WRITER);
    let gone = (_dropped: boolean): void => {};
    bench.coherence.heldPage = { gone: new Promise((resolve) => (gone = resolve)), dropped: Promise.resolve() };
    const writing = write(0, WRITER, call);
    while (drops(bench).length < 2) await new Promise((resolve) => setImmediate(resolve));
    const { mayLast } = bench.coherence.pageUsers;
    expect(mayLast()).toBe(false);
    call.interrupt();
    expect(mayLast()).toBe(true);
    gone(false);
    await writing;
    await read(0, READER);
    const before = drops(bench).length;
    const killed = bench.call("write", WRITER);
    killed.interrupt();
    await dropReread(bench.mount.coherence, bench.file, { offset: 0, data: Buffer.alloc(10) }, killed);
    expect(drops(bench).slice(before)).toEqual(["dropPages 20.1 0 4096"]);
  });

  it("sees a READ that waits for its lock, or came before there was a writer: it has its pages locked", async () => {
    const bench = shared();
    const { read, write } = requests(bench, bench.openFile());
    await read(0, READER);
    await write(0, WRITER);
    const { mayLast } = bench.coherence.pageUsers;
    const pinData = bench.coherence.pinData.bind(bench.coherence);
    let pin = (): void => {};
    const granted = new Promise<void>((resolve) => (pin = resolve));
    bench.coherence.pinData = async (...asked) => {
      await granted;
      await pinData(...asked);
    };
    bench.file.cover.token = null;
    const reading = read(0, READER);
    expect(mayLast()).toBe(true);
    pin();
    await reading;
    expect(mayLast()).toBe(false);
    bench.coherence.pinData = () => Promise.reject(new Errno(E.EINTR));
    await read(0, READER);
    expect(bench.file.requests).toBeNull();
  });

  it("says of its last page whether a READ has it locked: one that goes by the page cache, or fills a private mapping, as long as it is not answered, nor its caller killed", async () => {
    const bench = shared();
    const { read, write } = requests(bench, bench.openFile());
    await read(0, READER);
    await write(0, WRITER);
    const { mayLast } = bench.coherence.pageUsers;
    expect(mayLast()).toBe(false);
    bench.lower.later = true;
    const others = [read(4096, READER), read(0, READER, OWNED)];
    expect(mayLast()).toBe(false);
    for (const change of [{}, { fh: bench.openFile(false).fh }, { flags: O_DIRECT }]) {
      const reading = read(0, READER, change);
      expect(mayLast()).toBe(true);
      await reading;
      expect(mayLast()).toBe(false);
    }
    await Promise.all(others);
    const call = bench.call("read", READER);
    const killed = read(0, READER, {}, call);
    expect(mayLast()).toBe(true);
    call.interrupt();
    expect(mayLast()).toBe(false);
    await killed;
  });

  it("takes it for the whole file when too much was read", async () => {
    const bench = shared();
    const { read, write } = requests(bench, bench.openFile());
    for (let at = 0; at <= REREADS_MAX; at += 1) await read(at * 4096, READER);
    expect(bench.file.requests?.rereads).toHaveLength(1);
    await write(0, WRITER);
    expect(drops(bench)).toContain(`dropPages 20.1 4096 ${Number.MAX_SAFE_INTEGER - 4096}`);
  });

  it("drops what was read before a revoke that has not come to it yet, and nothing of before one that is over", async () => {
    const bench = shared();
    const { cover } = bench.file;
    const { read, write } = requests(bench, bench.openFile());
    await read(0, READER);
    // A round begins.
    cover.sweeps += 1;
    cover.revoke = Object.assign(new Revoke(Mode.NL), { notifying: true });
    await read(4096, READER);
    await write(0, WRITER);
    expect(drops(bench).slice(2)).toEqual(["dropHeldPage 20.1 0 of 43", "reply"]);
    cover.revoke = null;
    cover.sweeps += 1;
    await read(8192, READER);
    await write(4096, WRITER);
    expect(drops(bench).slice(4)).toEqual(["reply", "reply"]);
    expect(bench.file.requests?.rereads).toHaveLength(1);
  });

  it("has a READ of its pages that is under way read again", async () => {
    const bench = shared();
    bench.lower.data = Buffer.alloc(4096);
    bench.lower.size = 4096;
    const { read, write } = requests(bench, bench.openFile());
    bench.lower.later = true;
    const reading = read(0, READER);
    bench.lower.later = false;
    await write(4090, WRITER);
    await reading;
    expect(bench.lower.calls).toEqual(["read", "write 10 at 4090", "write", "read"]);
  });

  it("leaves a READ of other pages that is under way alone", async () => {
    const bench = shared();
    const { read, write } = requests(bench, bench.openFile());
    bench.lower.later = true;
    const reading = read(0, READER);
    bench.lower.later = false;
    await write(8192, WRITER);
    await reading;
    expect(bench.lower.calls).toEqual(["read", "write 10 at 8192", "write"]);
  });
});

it("a READ is said to have its pages locked where the kernel has locked all of them: through a page cache, and none of O_DIRECT", async () => {
  const bench = new Workbench();
  const [cached, direct] = [bench.openFile(), bench.openFile(false)];
  const common = {
    op: "read" as const,
    fuseNodeid: bench.file.fuseNodeid,
    fh: cached.fh,
    offset: 8192,
    size: 4096,
    flags: 2,
    lockOwner: 0n,
  };
  const locked = async (change: object): Promise<unknown> => {
    await bench.serve({ ...common, ...change }, bench.call("read"));
    return bench.coherence.locked;
  };
  expect(await locked({})).toEqual({ from: 8192, to: 12_288 });
  // The other of the two bits is O_DIRECTORY there: in the flags of each file that was opened with O_TMPFILE.
  const [O_DIRECT, O_DIRECTORY] = process.arch === "arm64" ? [0o200000, 0o040000] : [0o040000, 0o200000];
  expect(await locked({ flags: 0o20000002 | O_DIRECTORY })).toEqual({ from: 8192, to: 12_288 });
  const others = [{ fh: direct.fh }, { flags: 0o2 | O_DIRECT }, { lockOwner: 7n }, { offset: 8193 }, { size: 100 }];
  for (const change of others) expect([change, await locked(change)]).toEqual([change, null]);
});
