/** The longest copy of one call: at it, and one byte beyond. */
import { expect, it } from "vitest";
import type { LocalContext } from "../../../overlay/lower/local/context.ts";
import { copyFileRange } from "../../../overlay/lower/local/data.ts";
import type { LowerHandle } from "../../../overlay/lower/lower.ts";

it.each([
  [64 * 1024 * 1024, 64 * 1024 * 1024],
  [64 * 1024 * 1024 + 1, 64 * 1024 * 1024],
])("one call copies MAX_COPY_BYTES at most: of %i, %i", async (bytes, copied) => {
  const context = {
    handles: { getFile: () => ({ readable: true, writable: true }), use: (_file: unknown, work: (fd: number) => unknown) => work(5) },
    native: { pool: { data: { copyFileRange: (...[, , , , length]: number[]) => Promise.resolve(length) } } },
  } as unknown as LocalContext;
  expect(await copyFileRange(context, 1 as LowerHandle, 0, 2 as LowerHandle, 0, bytes)).toBe(copied);
});
