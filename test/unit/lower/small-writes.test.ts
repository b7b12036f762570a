/** Which writes the owner makes on its serving thread, and how their files are closed (overlay/lower/local/small-writes.ts). */
import { readFileSync } from "node:fs";
import path from "node:path";
import { afterEach, expect, it } from "vitest";
import { E } from "../../../dlmd/base/errno.ts";
import { silentLog } from "../../../dlmd/base/log.ts";
import { nativeAddon } from "../../../native/index.ts";
import { createLocalLower } from "../../../overlay/lower/local/local.ts";
import { AFTER_HELD_UP_MS, HELD_UP_MS, NEW_FILE_MS, SMALL_FILE_BYTES_MAX } from "../../../overlay/lower/local/small-writes.ts";
import type { LowerHandle } from "../../../overlay/lower/lower.ts";
import { directoryPlace } from "../../compliance/lower-fixture.ts";

const RDWR = 2;
const TRUNC = 0o1000;
const DSYNC = 0o10000;
const SYNC = 0o4010000;
const caller = { uid: 0, gid: 0, umask: 0 };
const cleanUps: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

/** A lower whose writes and closes are written down, with their thread; `results`: what the next writes here give instead. */
function bench(metadataCalls: "inline" | "pool" = "inline") {
  const place = directoryPlace();
  const addon = nativeAddon();
  const seen: string[] = [];
  const results: number[] = [];
  const clock = { nowMs: 5000, writeMs: 0 };
  const native = {
    ...addon,
    sync: {
      ...addon.sync,
      write: (...args: Parameters<typeof addon.sync.write>) => {
        seen.push("write here");
        clock.nowMs += clock.writeMs;
        return results.shift() ?? addon.sync.write(...args);
      },
      close: (fd: number) => {
        seen.push("close here");
        return addon.sync.close(fd);
      },
    },
    pool: {
      ...addon.pool,
      data: {
        ...addon.pool.data,
        write: (...args: Parameters<typeof addon.pool.data.write>) => {
          seen.push("write in the pool");
          return addon.pool.data.write(...args);
        },
        close: (fd: number) => {
          seen.push("close in the pool");
          return addon.pool.data.close(fd);
        },
      },
    },
  };
  const lower = createLocalLower({ native, rootFd: place.rootFd, metadataCalls, log: silentLog, nowMs: () => clock.nowMs });
  cleanUps.push(async () => {
    await lower.shutdown();
    await place.release();
  });
  let made = 0;
  const make = async (flags = 0): Promise<LowerHandle> => {
    made += 1;
    const { handle } = await lower.create(lower.root, Buffer.from(`f${made}`), RDWR | flags, 0o644, caller);
    seen.length = 0;
    return handle;
  };
  const close = (handle: LowerHandle): readonly string[] => {
    seen.length = 0;
    lower.close(handle);
    return seen;
  };
  /** Where a write was made. */
  const write = async (handle: LowerHandle, bytes: number, offset: number, append = false): Promise<string> => {
    seen.length = 0;
    const written = lower.write(handle, Buffer.alloc(bytes, 7), offset, append);
    const atOnce = !(written instanceof Promise);
    expect((await written).bytes).toBe(bytes);
    expect(seen).toEqual([atOnce ? "write here" : "write in the pool"]);
    return atOnce ? "here" : "pool";
  };
  return { lower, clock, results, seen, make, close, write, dir: place.path };
}

it("the first SMALL_FILE_BYTES_MAX of a new file, through the handle that made it: here, and so is its close", async () => {
  const { make, write, close, dir } = bench();
  const handle = await make();
  expect(await write(handle, 10, 0)).toBe("here");
  expect(await write(handle, SMALL_FILE_BYTES_MAX - 10, 10)).toBe("here");
  expect(await write(handle, 10, 0)).toBe("here");
  expect(close(handle)).toEqual(["close here"]);
  expect(readFileSync(path.join(dir, "f1"))).toEqual(Buffer.alloc(SMALL_FILE_BYTES_MAX, 7));
});

it("a file that was made with O_TRUNC is a new one; one that was opened with it is not", async () => {
  const { lower, make, write, close } = bench();
  const handle = await make(TRUNC);
  expect(await write(handle, 10, 0)).toBe("here");
  expect(close(handle)).toEqual(["close here"]);
  const { id } = await lower.lookup(lower.root, Buffer.from("f1"));
  expect(close(await lower.open(id, RDWR | TRUNC))).toEqual(["close in the pool"]);
});

it("what ends behind them goes to the pool, and all that comes after it, and the close", async () => {
  const { make, write, close } = bench();
  const handle = await make();
  expect(await write(handle, 10, 0)).toBe("here");
  expect(await write(handle, 10, SMALL_FILE_BYTES_MAX - 9)).toBe("pool");
  expect(await write(handle, 10, 0)).toBe("pool");
  expect(close(handle)).toEqual(["close in the pool"]);
});

it("an append that ends behind them is the last one here, and the close is for the pool", async () => {
  const { lower, make, write, close } = bench();
  const handle = await make();
  expect(await write(handle, SMALL_FILE_BYTES_MAX, 0, true)).toBe("here");
  expect(lower.write(handle, Buffer.alloc(3), 0, true)).toEqual({ offset: SMALL_FILE_BYTES_MAX, bytes: 3 });
  expect(await write(handle, 1, 0, true)).toBe("pool");
  expect(close(handle)).toEqual(["close in the pool"]);
});

it("a truncation through the handle sends what follows to the pool", async () => {
  const { lower, make, write, close } = bench();
  const handle = await make();
  expect(await write(handle, 10, 0)).toBe("here");
  const { entry } = await lower.create(lower.root, Buffer.from("other"), RDWR, 0o644, caller);
  expect(entry.attr.size).toBe(0);
  const { id } = await lower.lookup(lower.root, Buffer.from("f1"));
  await lower.setattr(id, { size: 0 }, handle);
  expect(await write(handle, 10, 0)).toBe("pool");
  expect(close(handle)).toEqual(["close in the pool"]);
});

it("after NEW_FILE_MS the file is no new one", async () => {
  const { clock, make, write } = bench();
  const handle = await make();
  clock.nowMs += NEW_FILE_MS - 1;
  expect(await write(handle, 10, 0)).toBe("here");
  clock.nowMs += 1;
  expect(await write(handle, 10, 0)).toBe("pool");
});

it("a handle that opened a file writes in the pool, and so does every handle where creations do", async () => {
  const { lower, make, write } = bench();
  await make();
  const { id } = await lower.lookup(lower.root, Buffer.from("f1"));
  expect(await write(await lower.open(id, RDWR), 10, 0)).toBe("pool");
  const pooled = bench("pool");
  expect(await pooled.write(await pooled.make(), 10, 0)).toBe("pool");
});

it.each([
  ["O_DSYNC", DSYNC],
  ["O_SYNC", SYNC],
])("a write to a new file that was made with %s waits for the disk: in the pool, and so is its close", async (_, flags) => {
  const { make, write, close } = bench();
  const handle = await make(flags);
  expect(await write(handle, 10, 0)).toBe("pool");
  expect(await write(handle, 10, 0, true)).toBe("pool");
  expect(close(handle)).toEqual(["close in the pool"]);
});

it("a write that took HELD_UP_MS sends all of them to the pool for AFTER_HELD_UP_MS", async () => {
  const { clock, make, write } = bench();
  clock.writeMs = HELD_UP_MS - 1;
  expect(await write(await make(), 10, 0)).toBe("here");
  expect(await write(await make(), 10, 0)).toBe("here");
  clock.writeMs = HELD_UP_MS;
  expect(await write(await make(), 10, 0)).toBe("here");
  clock.writeMs = 0;
  clock.nowMs += AFTER_HELD_UP_MS - 1;
  expect(await write(await make(), 10, 0)).toBe("pool");
  clock.nowMs += 1;
  expect(await write(await make(), 10, 0)).toBe("here");
});

it("errors: what was written counts, and an error of the first piece is thrown", async () => {
  const { lower, make, results, seen } = bench();
  const handle = await make();
  results.push(3, 4, -E.EIO);
  expect(lower.write(handle, Buffer.alloc(10), 0, false)).toEqual({ offset: 0, bytes: 7 });
  expect(seen).toEqual(["write here", "write here", "write here"]);
  results.push(-E.EIO);
  expect(() => lower.write(handle, Buffer.alloc(10), 0, false)).toThrow("EIO");
  results.push(-E.EFBIG);
  expect(() => lower.write(handle, Buffer.alloc(10), 0, false)).toThrow("EFBIG");
});
