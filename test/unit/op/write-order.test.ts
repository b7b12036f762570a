/** WRITEs and the write-back of mappings, of the same pages: write-order.ts. */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { isWrittenBack, Overwrite, WriteBack } from "../../../overlay/coherence/pages/write-order.ts";
import { Workbench } from "./workbench.ts";

const waits = { interrupted: false };

const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
};

/** A write-back of four bytes at 10, which ends when `end` is called. */
function writingBack(bench: Workbench) {
  const back = new WriteBack(bench.file);
  const data = Buffer.from("....");
  const seen: string[] = [];
  let end = (): void => {};
  const read = (offset: number, bytes: number): Buffer => Buffer.from("0123456789ABCDEF").subarray(offset, offset + bytes);
  const made = back.make(10, data, read, async () => {
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
    const overwrite = new Overwrite(file, waits);
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
    expect(file.requests).toBeNull();
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
      const overwrite = new Overwrite(bench.file, waits);
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

  it("of a hole, and of what was copied, what the lower has is on top of what is written back", async () => {
    const bench = new Workbench();
    const hole = new Overwrite(bench.file, waits);
    expect(hole.begin()).toBeUndefined();
    hole.madeThere(12, 100);
    const meanwhile = writingBack(bench);
    await turns();
    expect(meanwhile.seen).toEqual(["..CD"]);
    await meanwhile.end();
    hole.over();
    const later = writingBack(bench);
    await turns();
    expect(later.seen).toEqual(["...."]);
    await later.end();
    expect(bench.file.requests).toBeNull();
  });

  it("wait for those that came before them only: neither is kept waiting by many of the others", async () => {
    const { file } = new Workbench();
    const order: string[] = [];
    const ends = new Map<string, () => Promise<void> | void>();
    const overwrite = (called: string): void => {
      const one = new Overwrite(file, waits);
      ends.set(called, () => one.over());
      void Promise.resolve(one.begin()).then(() => order.push(called));
    };
    const writeBack = (called: string): void => {
      const back = new WriteBack(file);
      let end = (): void => {};
      const ended = new Promise<void>((resolve) => (end = resolve));
      const read = (): Buffer => Buffer.alloc(0);
      const made = back.make(0, Buffer.alloc(1), read, async () => {
        order.push(called);
        await ended;
      });
      ends.set(called, async () => {
        end();
        await made;
        back.over();
      });
    };
    overwrite("write 1");
    writeBack("back 1");
    overwrite("write 2");
    writeBack("back 2");
    writeBack("back 3");
    overwrite("write 3");
    const begun = ["write 1", "back 1", "write 2", "back 2", "write 3"];
    for (const called of begun) {
      await turns();
      expect(order.at(-1)).toBe(called === "back 2" ? "back 3" : called);
      await ends.get(called)?.();
      if (called === "back 2") await ends.get("back 3")?.();
    }
    expect(order).toEqual(["write 1", "back 1", "write 2", "back 2", "back 3", "write 3"]);
    expect(file.requests).toBeNull();
  });

  it("what a WRITE made whose caller was killed is put on top of nothing: who has the file since may have written more", async () => {
    const bench = new Workbench();
    const killed = { interrupted: false };
    const overwrite = new Overwrite(bench.file, killed);
    expect(overwrite.begin()).toBeUndefined();
    overwrite.made(10, Buffer.from("old"));
    killed.interrupted = true;
    const back = writingBack(bench);
    await turns();
    expect(back.seen).toEqual(["...."]);
    await back.end();
    overwrite.over();
    expect(bench.file.requests).toBeNull();
  });

  it("one that failed is waited for no more", async () => {
    const bench = new Workbench();
    const overwrite = new Overwrite(bench.file, waits);
    expect(overwrite.begin()).toBeUndefined();
    const back = writingBack(bench);
    await turns();
    expect(back.seen).toEqual([]);
    overwrite.over();
    overwrite.over();
    await turns();
    expect(back.seen).toEqual(["...."]);
    await back.end();
    expect(bench.file.requests).toBeNull();
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
    expect(bench.coherence.pageUsers.isWrittenBack()).toBe(false);
    const back = bench.serve({ op: "write", ...common, offset: 0, data: page, fromCache: true });
    expect(bench.coherence.pageUsers.isWrittenBack()).toBe(true);
    await back;
    expect(page.toString()).toBe("olNEWld old");
    gone(true);
    await writing;
    const later = Buffer.from("old old old");
    await bench.serve({ op: "write", ...common, offset: 0, data: later, fromCache: true });
    expect(later.toString()).toBe("old old old");
    expect([bench.file.requests, bench.coherence.held, bench.coherence.violations]).toEqual([null, 0, []]);
  });

  for (const op of ["fallocate", "copyFileRange"] as const) {
    it(`a page that was stored to and is written back before ${op} is answered has what that has made`, async () => {
      const bench = new Workbench();
      const { fh } = bench.openFile();
      bench.file.mappableCount = 1;
      bench.lower.read = () => Buffer.from("MADE");
      let drop = (): void => {};
      bench.coherence.dropPages = () => new Promise((resolve) => (drop = resolve));
      const common = { fh, fuseNodeid: bench.file.fuseNodeid, flags: 2, lockOwner: 0n, killSuidgid: false };
      const rest = { offset: 4, length: 4, outFh: fh, outOffset: 4, mode: 0x03 };
      const making = bench.serve({ ...common, ...rest, op, flags: 0 });
      await turns();
      const page = Buffer.from("old old old");
      await bench.serve({ op: "write", ...common, offset: 0, data: page, fromCache: true });
      expect(page.toString()).toBe("old MADEold");
      drop();
      await making;
      const later = Buffer.from("old old old");
      await bench.serve({ op: "write", ...common, offset: 0, data: later, fromCache: true });
      expect(later.toString()).toBe("old old old");
      expect([bench.file.requests, bench.coherence.held, bench.coherence.violations]).toEqual([null, 0, []]);
    });
  }

  for (const [op, made] of [
    ["fallocate", undefined],
    ["copyFileRange", 4],
  ] as const) {
    const serveAt4 = (bench: Workbench, fh: number): Promise<unknown> => {
      const common = { fh, fuseNodeid: bench.file.fuseNodeid };
      return bench.serve({ ...common, op, offset: 4, length: 4, outFh: fh, outOffset: 4, mode: 0x03, flags: 0 });
    };

    it(`a page of a mapping that came while ${op} was made has what that has made, too`, async () => {
      const bench = new Workbench();
      const { fh } = bench.openFile();
      bench.file.mappableCount = 0;
      let answer = (): void => {};
      bench.lower[op] = () => new Promise<never>((resolve) => (answer = () => resolve(made as never)));
      bench.lower.read = () => Buffer.from("MADE");
      let drop = (): void => {};
      bench.coherence.dropPages = () => new Promise((resolve) => (drop = resolve));
      const making = serveAt4(bench, fh);
      await turns();
      bench.file.mappableCount = 1;
      const page = Buffer.from("old old old");
      const common = { fh, fuseNodeid: bench.file.fuseNodeid, flags: 2, lockOwner: 0n, killSuidgid: false };
      const back = bench.serve({ op: "write", ...common, offset: 0, data: page, fromCache: true });
      await turns();
      answer();
      await back;
      expect(page.toString()).toBe("old MADEold");
      drop();
      await making;
      expect([bench.file.requests, bench.coherence.held, bench.coherence.violations]).toEqual([null, 0, []]);
    });

    it(`a READ of its pages that is under way when ${op} is made reads again`, async () => {
      const bench = new Workbench();
      const { fh } = bench.openFile();
      const reads: ((data: string) => void)[] = [];
      bench.lower.read = () => new Promise((resolve) => reads.push((data) => resolve(Buffer.alloc(4096, data))));
      const read = { op: "read" as const, fh, fuseNodeid: bench.file.fuseNodeid, offset: 0, size: 4096, flags: 2, lockOwner: 0n };
      const reading = bench.serve(read, bench.call("read", 43));
      await serveAt4(bench, fh);
      reads.shift()?.("old");
      await turns();
      reads.shift()?.("new");
      expect((await reading)?.body.subarray(0, 3).toString()).toBe("new");
      expect([bench.file.requests, bench.coherence.held, bench.coherence.violations]).toEqual([null, 0, []]);
    });
  }

  it("what a mapping stored to a hole that could not be made is not lost", async () => {
    const bench = new Workbench();
    const { fh } = bench.openFile();
    bench.lower.errors.set("fallocate", [E.EOPNOTSUPP]);
    bench.lower.read = () => Buffer.from("old ");
    const common = { fh, fuseNodeid: bench.file.fuseNodeid, flags: 2, lockOwner: 0n, killSuidgid: false };
    const page = Buffer.from("old NEW old");
    // As the kernel does with a page that is dropped.
    bench.coherence.dropPages = () => bench.serve({ op: "write", ...common, offset: 0, data: page, fromCache: true }).then(() => undefined);
    const reply = await bench.serve({ op: "fallocate", ...common, offset: 4, length: 4, mode: 0x03 });
    expect([reply?.errno, page.toString()]).toEqual([E.EOPNOTSUPP, "old NEW old"]);
    expect([bench.file.requests, bench.coherence.held, bench.coherence.violations]).toEqual([null, 0, []]);
  });

  it("a WRITE that waited for a write-back is not made any more if its caller was killed meanwhile", async () => {
    const bench = new Workbench();
    const { fh } = bench.openFile();
    const first = writingBack(bench);
    await turns();
    const call = bench.call("write");
    const common = { fh, fuseNodeid: bench.file.fuseNodeid, flags: 2, lockOwner: 0n, killSuidgid: false };
    const writing = bench.serve({ op: "write", ...common, offset: 2, data: Buffer.from("NEW"), fromCache: false }, call);
    await turns();
    call.interrupt();
    await first.end();
    await writing;
    expect(bench.lower.calls.filter((one) => one.startsWith("write"))).toEqual([]);
    expect([bench.file.requests, bench.coherence.held, bench.coherence.violations]).toEqual([null, 0, []]);
  });
});
