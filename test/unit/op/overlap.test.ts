/** READs and WRITEs of the same pages that are under way together: overlap.ts. */
import { describe, expect, it } from "vitest";
import type { OpenFile } from "../../../overlay/inode/handles.ts";
import { REREADS_MAX } from "../../../overlay/op/overlap.ts";
import { Workbench } from "./workbench.ts";

function requests(bench: Workbench, { fh }: OpenFile) {
  const common = { fuseNodeid: bench.file.fuseNodeid, fh };
  const data = Buffer.alloc(10);
  const writing = { op: "write" as const, ...common, data, flags: 2, fromCache: false, killSuidgid: false };
  return {
    read: (offset: number, tid: number) => bench.serve({ op: "read", ...common, offset, size: 4096 }, bench.call("read", tid)),
    write: (offset: number, tid: number) => bench.serve({ ...writing, offset }, bench.call("write", tid)),
  };
}

const drops = (bench: Workbench): string[] => bench.coherence.events.filter((event) => /dropPages|^reply/.test(event));

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

  it("leaves alone what its own thread has read, what a revoke has dropped since, and a file that no revoke has touched", async () => {
    const own = shared();
    const ofOwn = requests(own, own.openFile());
    await ofOwn.read(0, WRITER);
    await ofOwn.write(0, WRITER);
    const swept = shared();
    const ofSwept = requests(swept, swept.openFile());
    await ofSwept.read(0, READER);
    swept.file.cover.sweeps += 1;
    await ofSwept.write(0, WRITER);
    const alone = shared();
    alone.file.cover.sweeps = 0;
    const ofAlone = requests(alone, alone.openFile());
    await ofAlone.read(0, READER);
    await ofAlone.write(0, WRITER);
    for (const bench of [own, swept, alone]) expect(drops(bench)).toEqual(["reply", "reply"]);
  });

  it("takes it for the whole file when too much was read", async () => {
    const bench = shared();
    const { read, write } = requests(bench, bench.openFile());
    for (let at = 0; at <= REREADS_MAX; at += 1) await read(at * 4096, READER);
    expect(bench.file.rereads).toHaveLength(1);
    await write(0, WRITER);
    expect(drops(bench)).toContain(`dropPages 20.1 0 ${Number.MAX_SAFE_INTEGER}`);
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
});
