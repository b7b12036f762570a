/** The matrix must hold where there is only one kernel: what it demands is what a local file system does. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { rows, runRound } from "./coherence-matrix.ts";

describe("the coherence matrix on a local file system", () => {
  let dir = "";
  beforeAll(async () => {
    dir = await mkdtemp(path.join(tmpdir(), "coverlay-matrix-"));
  });
  afterAll(async () => {
    await rm(dir, { recursive: true, force: true });
  });
  it.each(rows)("$name", async (row) => {
    const own = await mkdtemp(path.join(dir, "row-"));
    for (let n = 0; n < 3; n += 1) await expect(runRound(row, { a: own, b: own, n })).resolves.toBeUndefined();
  });
});
