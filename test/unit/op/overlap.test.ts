/** READs and WRITEs of the same pages that are under way together: overlap.ts. */
import { describe, expect, it, vi } from "vitest";
import type { OpenFile } from "../../../overlay/inode/handles.ts";
import { REREADS_MAX } from "../../../overlay/op/overlap.ts";
import { Workbench } from "./workbench.ts";

function requests(bench: Workbench, { fh }: OpenFile, bytes = 10) {
  const common = { fuseNodeid: bench.file.fuseNodeid, fh };
  const data = Buffer.alloc(bytes);
  const writing = { op: "write" as const, ...common, data, flags: 2, fromCache: false, killSuidgid: false };
  return {
    read: (offset: number, tid: number) => bench.serve({ op: "read", ...common, offset, size: 4096 }, bench.call("read", tid)),
    write: (offset: number, tid: number) => bench.serve({ ...writing, offset }, bench.call("write", tid)),
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

describe("a WRITE through a page cache", () => {
  it("drops what others have read of its pages since the last revoke, once", async () => {
    const bench = shared();
    const { read, write } = requests(bench, bench.openFile());
    await read(0, READER);
    await read(8192, READER);
    await write(4090, WRITER);
    await write(4090, WRITER);
    expect(drops(bench)).toEqual(["reply", "reply", "dropPages 20.1 0 4096", "reply", "reply"]);
    expect(bench.file.pendingReads).toBeNull();
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
    const reading = read(0, READER);
    expect(bench.file.pendingReads).toBeNull();
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
    vi.useFakeTimers();
    try {
      const writing = write(0, WRITER);
      await dropping;
      await vi.advanceTimersByTimeAsync(200);
      expect(bench.replies).toHaveLength(1);
      drop();
      await writing;
      expect(bench.replies).toHaveLength(2);
    } finally {
      vi.useRealTimers();
    }
  });

  it("takes it for the whole file when too much was read", async () => {
    const bench = shared();
    const { read, write } = requests(bench, bench.openFile());
    for (let at = 0; at <= REREADS_MAX; at += 1) await read(at * 4096, READER);
    expect(bench.file.rereads).toHaveLength(1);
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
    cover.notifying = true;
    await read(4096, READER);
    await write(0, WRITER);
    expect(drops(bench).slice(2)).toEqual(["dropHeldPage 20.1 0 of 43", "reply"]);
    cover.notifying = false;
    cover.sweeps += 1;
    await read(8192, READER);
    await write(4096, WRITER);
    expect(drops(bench).slice(4)).toEqual(["reply", "reply"]);
    expect(bench.file.rereads).toHaveLength(1);
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
  const others = [{ fh: direct.fh }, { flags: 0o040002 }, { flags: 0o200002 }, { lockOwner: 7n }, { offset: 8193 }, { size: 100 }];
  for (const change of others) expect([change, await locked(change)]).toEqual([change, null]);
});
