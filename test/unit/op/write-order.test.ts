/** WRITEs and the write-back of mappings, of the same pages: op/write-order.ts. */
import { describe, expect, it } from "vitest";
import { isWrittenBack, Overwrite, WriteBack } from "../../../overlay/op/write-order.ts";
import { Workbench } from "./workbench.ts";

const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
};

/** A write-back of four bytes at 10, which ends when `end` is called. */
function writingBack(bench: Workbench) {
  const back = new WriteBack(bench.file);
  const data = Buffer.from("....");
  const seen: string[] = [];
  let end = (): void => {};
  const made = back.make(10, data, async () => {
    seen.push(data.toString());
    await new Promise<void>((resolve) => (end = resolve));
  });
  return {
    seen,
    end: async (): Promise<void> => {
      end();
      await made;
      back.over();
    },
  };
}

describe("a WRITE and a write-back of the same file", () => {
  it("are not in the lower at a time: who comes second waits", async () => {
    const bench = new Workbench();
    const { file } = bench;
    const first = writingBack(bench);
    await turns();
    const overwrite = new Overwrite(file);
    let begun = false;
    const beginning = Promise.resolve(overwrite.begin()).then(() => (begun = true));
    const second = writingBack(bench);
    await turns();
    expect([first.seen, begun, second.seen]).toEqual([["...."], false, []]);
    await first.end();
    await beginning;
    await turns();
    expect(second.seen).toEqual([]);
    overwrite.made(0, Buffer.alloc(1));
    await turns();
    expect(second.seen).toEqual(["...."]);
    overwrite.over();
    await second.end();
    expect(file.writeOrder).toBeNull();
  });

  it("what the WRITE made is on top of what is written back, until its pages are gone", async () => {
    const bench = new Workbench();
    const overwrites = (
      [
        [5, "before"],
        [12, "a"],
        [13, "behind"],
        [14, "x"],
      ] as const
    ).map(([offset, text]) => {
      const overwrite = new Overwrite(bench.file);
      expect(overwrite.begin()).toBeUndefined();
      overwrite.made(offset, Buffer.from(text));
      return overwrite;
    });
    const meanwhile = writingBack(bench);
    await turns();
    expect(meanwhile.seen).toEqual(["e.ab"]);
    await meanwhile.end();
    for (const overwrite of overwrites) overwrite.over();
    const later = writingBack(bench);
    await turns();
    expect(later.seen).toEqual(["...."]);
    await later.end();
  });

  it("one that failed is waited for no more", async () => {
    const bench = new Workbench();
    const overwrite = new Overwrite(bench.file);
    expect(overwrite.begin()).toBeUndefined();
    const back = writingBack(bench);
    await turns();
    expect(back.seen).toEqual([]);
    overwrite.over();
    overwrite.over();
    await turns();
    expect(back.seen).toEqual(["...."]);
    await back.end();
    expect(bench.file.writeOrder).toBeNull();
  });

  it("a page may be waited for that is written back, from when that came until it is answered", async () => {
    const bench = new Workbench();
    expect(isWrittenBack(bench.file)).toBe(false);
    const back = new WriteBack(bench.file);
    expect(isWrittenBack(bench.file)).toBe(true);
    back.over();
    expect(isWrittenBack(bench.file)).toBe(false);
  });
});

describe("served", () => {
  it("a page that was brought back as it was, stored to and written back after a WRITE of it leaves that as it is", async () => {
    const bench = new Workbench();
    bench.file.cover.token = { state: "held", unregistered: false, users: 1, wanted: false, mapped: false, waiters: [] };
    const { fh } = bench.openFile();
    const common = { fh, fuseNodeid: bench.file.fuseNodeid, flags: 2, lockOwner: 0n, killSuidgid: false };
    const read = { op: "read" as const, ...common, offset: 0, size: 4096 };
    await bench.serve(read, bench.call("read", 43));
    let gone = (_dropped: boolean): void => {};
    bench.coherence.heldPage = { gone: new Promise((resolve) => (gone = resolve)), dropped: Promise.resolve() };
    const writing = bench.serve({ op: "write", ...common, offset: 2, data: Buffer.from("NEW"), fromCache: false });
    while (!bench.coherence.events.some((event) => event.startsWith("dropHeldPage"))) await turns();
    const page = Buffer.from("old old old");
    expect(bench.coherence.isWrittenBack()).toBe(false);
    const back = bench.serve({ op: "write", ...common, offset: 0, data: page, fromCache: true });
    expect(bench.coherence.isWrittenBack()).toBe(true);
    await back;
    expect(page.toString()).toBe("olNEWld old");
    gone(true);
    await writing;
    const later = Buffer.from("old old old");
    await bench.serve({ op: "write", ...common, offset: 0, data: later, fromCache: true });
    expect(later.toString()).toBe("old old old");
    expect([bench.file.writeOrder, bench.coherence.held, bench.coherence.violations]).toEqual([null, 0, []]);
  });
});
