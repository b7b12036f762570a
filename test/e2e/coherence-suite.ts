/**
 * The coherence matrix over real mounts: each change on one node, with the other nodes' caches warm, looked at on them at once, in every
 * direction. Never stale.
 */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { LabEngine } from "../../overlay/lab/layout.ts";
import { noCorosync } from "../compliance/corosync-cluster.ts";
import { rows, runRound } from "./coherence-matrix.ts";
import { startLab, testEngine, type TestLab } from "./lab.ts";

const directions = [
  [1, 2],
  [2, 1],
  [2, 3],
  [3, 1],
] as const;

/** `rounds` of each row in each direction. */
export function coherenceSuite(rounds: number, engine: LabEngine = testEngine): void {
  const missing = engine === "corosync" ? noCorosync() : null;
  let lab: TestLab;
  let round = 0;
  beforeAll(async () => {
    if (missing === null) lab = await startLab({ nodes: 3, engine });
  });
  afterAll(async () => {
    await lab?.end();
  });

  it.for(rows)("$name", async (row, { skip }) => {
    skip(missing !== null, missing ?? "");
    for (const [from, to] of directions) {
      const name = `${rows.indexOf(row)}-${from}-${to}`;
      const a = path.join(lab.node(from).mount, name);
      const b = path.join(lab.node(to).mount, name);
      await mkdir(a);
      for (let k = 0; k < rounds; k += 1) {
        round += 1;
        await expect(runRound(row, { a, b, n: round })).resolves.toBeUndefined();
      }
    }
  });

  it("was looked at as often as that", ({ skip }) => {
    skip(missing !== null, missing ?? "");
    expect(round).toBe(rows.length * directions.length * rounds);
  });
}
