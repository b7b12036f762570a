/** The model of a file system (test/model) is the oracle of a lab: on one mount, on two and three in turn, and on all at once. */
import { expect, it } from "vitest";
import { coverlayOver, KINDS } from "../model/state.ts";
import { runAtOnce } from "../model/spec/at-once.ts";
import { runSpec } from "../model/spec/spec.ts";
import { withLab } from "./lab.ts";

it("one, two and three mounts in turn do what the model says", async () => {
  await withLab({ nodes: 3 }, async (lab) => {
    for (const mounts of [[1], [2], [1, 2], [1, 2, 3]]) {
      const found = await runSpec({
        mounts: mounts.map((nodeid) => lab.node(nodeid).mount),
        ops: 150,
        runs: 4,
        seed: 1,
        seconds: null,
        kind: coverlayOver(KINDS.ext4),
      });
      expect(found.difference).toBeNull();
      expect(found.calls).toBeGreaterThan(100);
    }
  });
});

it("programs on one, two and three mounts at once have an order that the model allows", async () => {
  await withLab({ nodes: 3 }, async (lab) => {
    for (const mounts of [[1], [1, 2], [1, 2, 3]]) {
      const found = await runAtOnce({
        mounts: mounts.map((nodeid) => lab.node(nodeid).mount),
        programs: 3,
        ops: 6,
        runs: 20,
        seed: 1,
        seconds: 60,
        kind: coverlayOver(KINDS.ext4),
      });
      expect([found.violation, found.undecided]).toEqual([null, 0]);
      // Else nothing was tried at once.
      expect(found.callsBesideOthers).toBeGreaterThan(20);
    }
  });
});
