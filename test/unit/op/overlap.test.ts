/** READs and WRITEs of the same pages that are under way together: overlap.ts. */
import { describe, expect, it } from "vitest";
import type { OpenFile } from "../../../overlay/inode/handles.ts";
import { Workbench } from "./workbench.ts";

function requests(bench: Workbench, { fh }: OpenFile) {
  const common = { fuseNodeid: bench.file.fuseNodeid, fh };
  return {
    read: (offset: number) => bench.serve({ op: "read", ...common, offset, size: 4096 }),
    write: (offset: number) =>
      bench.serve({ op: "write", ...common, offset, data: Buffer.alloc(10), flags: 2, fromCache: false, killSuidgid: false }),
  };
}

const drops = (bench: Workbench): string[] => bench.coherence.events.filter((event) => /dropPages|^reply/.test(event));

describe("a WRITE that has to wait for its lock", () => {
  it("drops what was read meanwhile of the pages that it has filled", async () => {
    const bench = new Workbench();
    const { read, write } = requests(bench, bench.openFile());
    bench.coherence.locks = "away";
    const written = write(4090);
    bench.coherence.locks = "here";
    await read(0);
    await read(8192);
    await written;
    expect(drops(bench)).toEqual(["reply", "reply", "dropPages 20.1 0 4096", "reply"]);
    expect([bench.file.pendingReads.size, bench.file.pendingWrites.size]).toEqual([0, 0]);
  });

  it("has a READ of them that is under way read again", async () => {
    const bench = new Workbench();
    bench.lower.data = Buffer.alloc(4096);
    bench.lower.size = 4096;
    const { read, write } = requests(bench, bench.openFile());
    bench.coherence.locks = "away";
    const written = write(4090);
    bench.coherence.locks = "here";
    bench.lower.later = true;
    const reading = read(0);
    bench.lower.later = false;
    await Promise.all([written, reading]);
    expect(bench.lower.calls).toEqual(["read", "write 10 at 4090", "write", "read"]);
  });
});
