/**
 * The coherence matrix over real mounts: each change on one node, with the other nodes' caches warm, looked at on them at once, in every
 * direction. Never stale.
 */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { rows, runRound } from "./coherence-matrix.ts";
import { startLab, type TestLab } from "./lab.ts";

/** Rounds of each row in each direction, 2052 in all; more from the environment. */
const ROUNDS = Number(process.env["COVERLAY_MATRIX_ROUNDS"] ?? 27);
const directions = [
  [1, 2],
  [2, 1],
  [2, 3],
  [3, 1],
] as const;

describe("every kind of change is seen at once", () => {
  let lab: TestLab;
  let round = 0;
  beforeAll(async () => {
    lab = await startLab({ nodes: 3 });
  });
  afterAll(async () => {
    await lab?.end();
  });

  it.each(rows)("$name", async (row) => {
    for (const [from, to] of directions) {
      const name = `${rows.indexOf(row)}-${from}-${to}`;
      const a = path.join(lab.node(from).mount, name);
      const b = path.join(lab.node(to).mount, name);
      await mkdir(a);
      for (let k = 0; k < ROUNDS; k += 1) {
        round += 1;
        await expect(runRound(row, { a, b, n: round })).resolves.toBeUndefined();
      }
    }
  });

  it("was looked at thousands of times", () => {
    expect(round).toBe(rows.length * directions.length * ROUNDS);
  });
});
