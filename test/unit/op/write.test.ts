/** Hazard F5: where a write goes, and what the kernel must drop when that is not where it believes. */
import { describe, expect, it } from "vitest";
import { E, errnoError } from "../../../dlmd/base/errno.ts";
import { requestsOf } from "../../../overlay/coherence/pages/paged-inode.ts";
import { SENTINEL_SIZE } from "../../../overlay/coherence/size/sentinel.ts";
import { type Operation, perform } from "../../../overlay/op/perform.ts";
import { O_DIRECT } from "../../../overlay/op/linux.ts";
import { rightSizes } from "./right-sizes.ts";
import { Workbench } from "./workbench.ts";

const O_APPEND = 0o2000;

function request(bench: Workbench, fh: number, change: Record<string, unknown>): Record<string, unknown> & { op: "write" } {
  const data = Buffer.alloc(10);
  return { op: "write", fuseNodeid: bench.file.fuseNodeid, fh, offset: 0, data, flags: 2, fromCache: false, killSuidgid: false, ...change };
}

const drops = (bench: Workbench): string[] => bench.coherence.events.filter((event) => /dropPages|raiseSize|^reply/.test(event));

describe("appends", () => {
  it("where the kernel believes the end to be: nothing is dropped", async () => {
    const bench = new Workbench();
    await bench.serve(request(bench, bench.openFile().fh, { offset: 100, flags: 2 | O_APPEND }));
    expect(bench.lower.calls).toContain("write 10 at end");
    expect(drops(bench)).toEqual(["reply"]);
  });

  it("at a sentinel offset, O_APPEND or not: to the true end, whose pages go before the answer", async () => {
    const bench = new Workbench();
    await bench.serve(request(bench, bench.openFile().fh, { offset: SENTINEL_SIZE + 4096 }));
    expect(bench.lower.calls).toContain("write 10 at end");
    // Behind the end, too.
    expect(drops(bench)).toEqual([`dropPages 20.1 100 ${2 ** 52}`, "reply"]);
    expect(bench.replies[0]?.held).toBe(1);
  });

  it("with an outdated offset: the page that this write may hold is left alone until it is answered", async () => {
    const bench = new Workbench();
    bench.lower.size = 20_000;
    const data = Buffer.alloc(9000);
    await bench.serve(request(bench, bench.openFile().fh, { offset: 100, data, flags: 2 | O_APPEND }));
    // Pages 0, 1 and 2 were believed to be written; 2 is the last.
    expect(drops(bench)).toEqual([
      "dropPages 20.1 20000 9000",
      "dropPages 20.1 100 8092",
      `raiseSize 20.1 ${SENTINEL_SIZE} 0`,
      "reply",
      "dropPages 20.1 100 9000",
      "dropPages 20.1 20000 9000",
    ]);
  });

  it("through a direct handle the kernel has no page of it, and learns of a true end behind the believed one", async () => {
    const bench = new Workbench();
    const data = Buffer.alloc(10, 7);
    await bench.serve(request(bench, bench.openFile(false).fh, { offset: 50, data, flags: 2 | O_APPEND }));
    expect(drops(bench)).toEqual(["dropPages 20.1 100 10", "raiseSize 20.1 110 7", "reply"]);
  });
});

describe("other writes", () => {
  it("through a direct handle drop what a READ may have brought back, though the handle that it came through is closed", async () => {
    const bench = new Workbench();
    const reader = bench.openFile();
    const { fh } = bench.openFile(false);
    await bench.serve(request(bench, fh, { offset: 50 }));
    expect(drops(bench)).toEqual(["reply"]);
    await bench.serve({ op: "read", fuseNodeid: bench.file.fuseNodeid, fh: reader.fh, offset: 0, size: 4096, flags: 0 });
    await bench.serve({ op: "release", fuseNodeid: bench.file.fuseNodeid, fh: reader.fh });
    bench.coherence.events.length = 0;
    await bench.serve(request(bench, fh, { offset: 50 }));
    expect(drops(bench)).toEqual(["dropPages 20.1 50 10", "reply"]);
    // A revoke has dropped all of them.
    bench.file.cover.sweeps += 1;
    bench.coherence.events.length = 0;
    await bench.serve(request(bench, fh, { offset: 50 }));
    expect(drops(bench)).toEqual(["reply"]);
  });

  it("through a direct handle drop the pages of a READ that is still under way", async () => {
    const bench = new Workbench();
    const reader = bench.openFile();
    const { fh } = bench.openFile(false);
    let answer = (): void => {};
    bench.lower.read = (): Promise<Uint8Array> =>
      new Promise((resolve) => {
        answer = (): void => resolve(new Uint8Array(4096));
      });
    const read = bench.serve({ op: "read", fuseNodeid: bench.file.fuseNodeid, fh: reader.fh, offset: 0, size: 4096, flags: 0 });
    await bench.serve(request(bench, fh, { offset: 50 }));
    expect(drops(bench)).toEqual(["dropPages 20.1 50 10", "reply"]);
    answer();
    await read;
  });

  it("beyond 2^53: EFBIG, 1 EiB too", async () => {
    const bench = new Workbench();
    expect((await bench.serve(request(bench, bench.openFile().fh, { offset: 2 ** 60 })))?.errno).toBe(E.EFBIG);
    expect(bench.lower.calls).toEqual([]);
  });

  it("clear set-user-id before the data goes, if there is any", async () => {
    const bench = new Workbench();
    const { fh } = bench.openFile();
    await bench.serve(request(bench, fh, { killSuidgid: true }));
    expect([bench.lower.ownersAsked.length, bench.lower.calls]).toEqual([1, ["write 10 at 0", "write"]]);
    bench.lower.fileMode = 0o104755;
    await bench.serve(request(bench, fh, { killSuidgid: true }));
    const asked = ["reach 1", "lseek", "setattr"];
    expect([bench.lower.ownersAsked.length, bench.lower.calls.slice(2)]).toEqual([2, [...asked, "write 10 at 0", "write"]]);
    bench.lower.fileMode = 0o102755;
    await bench.serve(request(bench, fh, { killSuidgid: true }));
    expect(bench.lower.calls.slice(7)).toEqual([...asked, "write 10 at 0", "write"]);
  });
});

describe("a write that need not be waited for (hazard F23)", () => {
  const behindOf = (bench: Workbench): NonNullable<typeof bench.lower.behind> => (bench.lower.behind = []);

  it("is answered at once, and its lock stays until the lower has made it", async () => {
    const bench = new Workbench();
    const behind = behindOf(bench);
    const { fh } = bench.openFile();
    await bench.serve(request(bench, fh, { data: Buffer.from("new") }));
    expect([bench.replies.length, behind.map(({ data }) => data), bench.lower.calls]).toEqual([1, ["new"], []]);
    expect([bench.coherence.held, bench.file.useCount]).toEqual([1, 1]);
    behind[0]?.made();
    await bench.mount.writesBehind.idle();
    expect([bench.coherence.held, bench.file.useCount, bench.coherence.violations]).toEqual([0, 0, []]);
  });

  it("that is lost: the kernel drops what it has of it before the lock may leave", async () => {
    const bench = new Workbench();
    const behind = behindOf(bench);
    await bench.serve(request(bench, bench.openFile().fh, {}));
    bench.coherence.events.length = 0;
    bench.coherence.sizes = { ...rightSizes, toldSentinel: ({ cover }) => void bench.coherence.events.push(`size unknown ${cover.key}`) };
    behind[0]?.failed(errnoError(E.ENOSPC));
    await bench.mount.writesBehind.idle();
    expect(bench.coherence.events).toEqual(["size unknown 20.1", "distrust 20.1 with pages", "unpin 20.1 EX"]);
    expect(bench.coherence.held).toBe(0);
  });

  it("is waited for with O_DIRECT, which may have been set since the file was opened", async () => {
    const bench = new Workbench();
    const behind = behindOf(bench);
    await bench.serve(request(bench, bench.openFile().fh, { flags: 2 | O_DIRECT }));
    expect([behind, bench.lower.calls.includes("write")]).toEqual([[], true]);
  });

  it.each([
    ["its own", 42, 12, true],
    ["another, a part of it", 43, 12, false],
    ["another, what lies behind it", 43, 13, true],
  ])("is waited for where another thread has read what it changes; here %s", async (_who, tid, from, isBehind) => {
    const bench = new Workbench();
    const behind = behindOf(bench);
    requestsOf(bench.file).rereads = [{ from, to: 20, tid, sweep: bench.file.cover.sweeps }];
    await bench.serve(request(bench, bench.openFile().fh, { offset: 10, data: Buffer.from("new") }));
    expect([behind.length, bench.lower.calls.includes("write")]).toEqual(isBehind ? [1, false] : [0, true]);
  });

  it("is waited for where the lock is about to leave", async () => {
    const bench = new Workbench();
    const behind = behindOf(bench);
    bench.coherence.tryPin = () => false;
    await bench.serve(request(bench, bench.openFile().fh, {}));
    expect([behind, bench.lower.calls.includes("write"), bench.coherence.held]).toEqual([[], true, 0]);
  });

  it("a change of attributes is answered at once as well, with what the file will have and no validity", async () => {
    const bench = new Workbench();
    const behind = behindOf(bench);
    const attr = await bench.lower.getattr(bench.file.id);
    bench.lower.attrBehind = { ...attr, mode: 0o100640, size: 7 };
    bench.lower.calls.length = 0;
    const change = { mode: 0o640 };
    const reply = await bench.serve({ op: "setattr", fuseNodeid: bench.file.fuseNodeid, fh: null, change });
    expect([behind.map(({ data }) => data), bench.lower.calls, bench.coherence.held]).toEqual([["attributes"], [], 1]);
    // struct fuse_attr_out: attr_valid, attr_valid_nsec, then ino and size; mode is 60 bytes behind the attributes' beginning.
    expect([reply?.body.readBigUInt64LE(0), reply?.body.readBigUInt64LE(24), reply?.body.readUInt32LE(76)]).toEqual([0n, 7n, 0o100640]);
    behind[0]?.made();
    await bench.mount.writesBehind.idle();
    expect([bench.coherence.held, bench.file.useCount, bench.coherence.violations]).toEqual([0, 0, []]);
  });

  it("a change of attributes whose caller is dead is not made: what came next may be made already (hazard F50)", async () => {
    const bench = new Workbench();
    const behind = behindOf(bench);
    bench.lower.attrBehind = await bench.lower.getattr(bench.file.id);
    bench.lower.later = true;
    const request = { op: "setattr", fuseNodeid: bench.file.fuseNodeid, fh: null, change: { mode: 0o640 } };
    const call = bench.call("setattr");
    // While it waits until nobody is told the size, which no signal ends.
    bench.coherence.sizes = { ...rightSizes, begin: () => call.interrupt() };
    await bench.serve({ ...request, op: "setattr" }, call);
    expect([behind, bench.lower.calls.includes("setattr"), bench.replies.map(({ errno }) => errno)]).toEqual([[], false, [E.EINTR]]);
  });

  it("a change of attributes is waited for where the lock is about to leave", async () => {
    const bench = new Workbench();
    const behind = behindOf(bench);
    bench.lower.attrBehind = await bench.lower.getattr(bench.file.id);
    bench.coherence.tryPin = () => false;
    await bench.serve({ op: "setattr", fuseNodeid: bench.file.fuseNodeid, fh: null, change: { mode: 0o640 } });
    expect([behind, bench.lower.calls.includes("setattr"), bench.coherence.held]).toEqual([[], true, 0]);
  });

  it("fsync of a file is under PR: what another node has written behind is in the lower then", async () => {
    const bench = new Workbench();
    const { fh } = bench.openFile();
    await bench.serve({ op: "fsync", fuseNodeid: bench.file.fuseNodeid, fh, dataOnly: false });
    expect([bench.coherence.events.includes("pin 20.1 PR"), bench.coherence.passing]).toEqual([true, [true]]);
    expect([bench.lower.calls, bench.coherence.held]).toEqual([["fsync"], 0]);
  });

  it.each<[string, Record<string, unknown>, boolean]>([
    ["at the end", { flags: 2 | O_APPEND }, true],
    ["at a sentinel offset", { offset: SENTINEL_SIZE }, true],
    ["through a direct handle", {}, false],
    ["of a mapping", { fromCache: true }, true],
  ])("%s is waited for", async (_what, change, cached) => {
    const bench = new Workbench();
    const behind = behindOf(bench);
    await bench.serve(request(bench, bench.openFile(cached).fh, change));
    expect([behind, bench.lower.calls.some((call) => call.startsWith("write"))]).toEqual([[], true]);
  });

  it("that clears set-user-id is waited for; one that would, and finds nothing to clear, is not", async () => {
    const bench = new Workbench();
    const behind = behindOf(bench);
    const { fh } = bench.openFile();
    bench.lower.fileMode = 0o104755;
    await bench.serve(request(bench, fh, { killSuidgid: true }));
    expect([behind, bench.lower.calls]).toEqual([[], ["reach 1", "lseek", "setattr", "write 10 at 0", "write"]]);
    bench.lower.fileMode = 0o100755;
    await bench.serve(request(bench, fh, { killSuidgid: true }));
    expect([behind.length, bench.lower.calls.length]).toEqual([1, 5]);
  });
});

describe("write-back of mapped pages", () => {
  const cases = [
    { size: 100, offset: 0, expected: ["getattr", "write 100 at 0", "write"] },
    { size: 4096, offset: 0, expected: ["getattr", "write 4096 at 0", "write"] },
    { size: 100, offset: 4096, expected: ["getattr"] },
  ];
  it.each(cases)("never extends: size $size, page at $offset", async ({ size, offset, expected }) => {
    const bench = new Workbench();
    bench.lower.size = size;
    const reply = await bench.serve(request(bench, bench.openFile().fh, { offset, data: Buffer.alloc(4096), fromCache: true }));
    expect(bench.lower.calls).toEqual(expected);
    expect(reply?.body.readUInt32LE(0)).toBe(4096);
    expect(bench.coherence.events).toContain("noteCachedWrite 20.1");
  });
});

describe("of a lower that answers at once", () => {
  it.each([
    ["with a page cache", true],
    ["without one", false],
  ])("through a handle %s: answered in the turn in which it came", (_handle, cached) => {
    const bench = new Workbench();
    const { fh } = bench.openFile(cached);
    const served = perform(bench.mount, bench.call("write"), request(bench, fh, {}) as unknown as Operation);
    expect(served).toBe(undefined);
    expect(bench.replies.map((reply) => [reply.errno, reply.held])).toEqual([[0, 1]]);
    expect(bench.coherence.held).toBe(0);
    expect(bench.file.requests).toBeNull();
  });

  it("EIO: nobody knows whether it was made, and nothing cached is trusted", async () => {
    const bench = new Workbench();
    bench.lower.errors.set("write", [E.EIO]);
    await bench.serve(request(bench, bench.openFile().fh, {}));
    expect(bench.coherence.events).toContain("distrust 20.1");
    expect(bench.replies.map((reply) => reply.errno)).toEqual([E.EIO]);
  });
});
