/** Limits of operations: at them all is well, one beyond it what their comments say happens. */
import { expect, it, vi } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { rightSizes } from "./right-sizes.ts";
import { Workbench } from "./workbench.ts";

// Its own functions are not played by fake timers.
vi.mock("node:timers/promises", () => ({
  setTimeout: (ms: number, value: unknown) => new Promise((resolve) => setTimeout(resolve, ms, value)),
}));

it.each([
  [63, 0],
  [64, E.EBUSY],
])("a name that turns into another file RESTARTS_MAX times within one RENAME: %i times, errno %i", async (times, errno) => {
  const bench = new Workbench();
  const rename = { op: "rename" as const, name: Buffer.from("name"), newFuseNodeid: 1, newName: Buffer.from("new"), flags: 0 };
  bench.coherence.told.set("2.0 name", bench.file);
  bench.coherence.told.set("2.0 new", null);
  // The first time the kernel walks again.
  bench.lower.errors.set("rename", [E.ESTALE, ...Array.from({ length: times }, () => E.ESTALE), 0]);
  expect((await bench.serve(rename))?.errno).toBe(E.ESTALE);
  expect((await bench.serve(rename))?.errno).toBe(errno);
  expect([bench.coherence.held, bench.coherence.violations]).toEqual([0, []]);
});

it("a thread that may be in rename(2) is looked at RUNNING_WAITS_MAX times more, 1 ms apart, and then walks again", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    const bench = new Workbench();
    bench.coherence.doubtfulName = true;
    let looks = 0;
    const isRenaming = (): null => {
      looks += 1;
      return null;
    };
    Object.assign(bench.mount, { isRenaming });
    const looked = bench.serve({ op: "lookup", fuseNodeid: 1, name: Buffer.from("new") }, bench.call("lookup", 7));
    await vi.advanceTimersByTimeAsync(19);
    expect([looks, bench.replies.length]).toEqual([20, 0]);
    await vi.advanceTimersByTimeAsync(1);
    expect([looks, (await looked)?.errno]).toEqual([21, E.ESTALE]);
  } finally {
    vi.useRealTimers();
  }
});

it("a GETATTR of a thread of our own is answered EAGAIN, if the lower has said nothing for OWN_GETATTR_MS", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    const bench = new Workbench();
    Object.assign(bench.coherence, { sizes: { ...rightSizes, own: { ...rightSizes.own, getattr: () => "now" } } });
    bench.lower.getattr = () => new Promise(() => undefined);
    const asked = bench.serve({ op: "getattr", fuseNodeid: bench.file.fuseNodeid, fh: null });
    await vi.advanceTimersByTimeAsync(99);
    expect(bench.replies).toHaveLength(0);
    await vi.advanceTimersByTimeAsync(1);
    expect((await asked)?.errno).toBe(E.EAGAIN);
  } finally {
    vi.useRealTimers();
  }
});

it("a directory listing is no longer than LISTING_BYTES_MAX, whatever the kernel has room for", async () => {
  const bench = new Workbench();
  const asked: number[] = [];
  const entries = Array.from({ length: 4096 }, (_, at) => ({
    name: Buffer.from(`name-${at}`.padEnd(40, "x")),
    type: 8,
    ino: 100 + at,
    cookie: BigInt(at + 1),
  }));
  bench.lower.readdir = (_handle, _cookie, bytes) => {
    asked.push(bytes);
    return { entries, end: true };
  };
  const { fh } = bench.openDirectory();
  const reply = await bench.serve({ op: "readdir", fuseNodeid: 1, fh, cookie: 0n, size: 1024 * 1024 });
  expect(asked).toEqual([128 * 1024]);
  // An entry has 24 bytes and its name, in whole words of 8.
  expect(reply?.body.length).toBe(64 * Math.floor((128 * 1024) / 64));
});
