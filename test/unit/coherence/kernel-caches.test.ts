/** The device is closed when no notification is being written, and none is begun afterwards (notifications.ts). */
import { describe, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { createKernelCaches, invalidateBut } from "../../../overlay/coherence/kernel/notifications.ts";
import { notifyRetrieve } from "../../../overlay/fuse/notify.ts";
import type { Native } from "../../../native/index.ts";
import { RESENT } from "../../../overlay/fuse/unique.ts";

interface Written {
  readonly what: string;
  end(): void;
}

/** The calls that notifications make; each ends when it is told to. */
function playedNative(): { readonly native: Native; readonly written: Written[] } {
  const written: Written[] = [];
  const write = <T>(what: string, result: T): Promise<T> => new Promise((resolve) => written.push({ what, end: () => resolve(result) }));
  const native = {
    notify: (_fd: number, messages: Buffer[]) =>
      write(
        "notify",
        messages.map(() => 0),
      ),
    createNotifyBatch: () => ({}),
    writeNotifyBatch: () => write("batch", 0),
    notifyBatchBegun: () => 1,
    notifyBatchRefused: () => [],
  };
  return { native: native as unknown as Native, written };
}

describe("the end of a mount", () => {
  it("waits for what is being written, and lets nothing begin", async () => {
    const { native, written } = playedNative();
    const caches = createKernelCaches(native, 9, { expireEntry: true, incEpoch: true });
    const epoch = caches.incrementEpoch?.();
    const batch = caches.invalidateMany([5]);
    const first = batch.write();
    let closed = false;
    const end = caches.close().then(() => (closed = true));
    expect(await caches.invalidatePages(5)).toEqual([-E.ENODEV]);
    expect(await batch.write()).toBe(0);
    expect(await caches.invalidateMany([6]).write()).toBe(0);
    expect(written.map(({ what }) => what)).toEqual(["notify", "batch"]);
    written[0]?.end();
    expect(await epoch).toEqual([0]);
    expect(closed).toBe(false);
    written[1]?.end();
    expect([await first, await end]).toEqual([0, true]);
  });
});

describe("what the page cache has", () => {
  const asked: Buffer[] = [];
  let result = 0;
  const native = {
    deviceWrite: (_fd: number, message: Buffer) => {
      asked.push(Buffer.from(message));
      return result;
    },
  };
  const caches = createKernelCaches(native as unknown as Native, 9, { expireEntry: true, incEpoch: true });

  it("is asked for within the turn, and comes by the number that it was asked with", async () => {
    const [first, second] = [caches.retrieve(5, 4096, 10), caches.retrieve(6, 8192, 20)];
    const numbers = asked.map((message) => Number(message.readBigUInt64LE(16)));
    expect(asked.splice(0)).toEqual([notifyRetrieve(numbers[0] ?? 0, 5, 4096n, 10), notifyRetrieve(numbers[1] ?? 0, 6, 8192n, 20)]);
    caches.retrieved(numbers[1] ?? 0, Buffer.from("second"));
    caches.retrieved(numbers[0] ?? 0, Buffer.from("first"));
    caches.retrieved(numbers[0] ?? 0, Buffer.from("once more"));
    expect([await first, await second].map(String)).toEqual(["first", "second"]);
    // No request of the kernel has such a number.
    expect(Math.min(...numbers)).toBeGreaterThan(2 ** 51);
    // The kernel gives them back as numbers of requests.
    expect(Math.max(...numbers)).toBeLessThan(RESENT);
  });

  it("is not known where the kernel refuses, or the mount ends before it has said", async () => {
    result = -E.ENOENT;
    expect(await caches.retrieve(5, 0, 10)).toBeNull();
    result = 0;
    const asking = caches.retrieve(5, 0, 10);
    await caches.close();
    expect(await asking).toBeNull();
    asked.length = 0;
    expect([await caches.retrieve(5, 0, 10), asked]).toEqual([null, []]);
  });
});

it("all pages but some are named by what is between them, and behind the last", () => {
  const pages = (from: number, to: number): { from: number; to: number } => ({ from: from * 4096, to: to * 4096 });
  const ranges = (except: readonly { from: number; to: number }[]): bigint[][] =>
    invalidateBut(5, except).map((message) => [message.readBigInt64LE(24) / 4096n, message.readBigInt64LE(32) / 4096n]);
  expect(ranges([])).toEqual([[0n, 0n]]);
  expect(ranges([pages(0, 2)])).toEqual([[2n, 0n]]);
  expect(ranges([pages(8, 9), pages(2, 4), pages(3, 5), pages(5, 6)])).toEqual([
    [0n, 2n],
    [6n, 2n],
    [9n, 0n],
  ]);
});
