/** The model of a file system (test/model) against the kernel's own: what it says of a sequence of calls is what ext4 and XFS do. */
import { describe, expect, it } from "vitest";
import { KINDS } from "../model/state.ts";
import { runAtOnce } from "../model/spec/at-once.ts";
import { runSpec } from "../model/spec/spec.ts";
import { makeImage } from "./lower-fixture.ts";

const MEBIBYTES = { ext4: 64, xfs: 320 } as const;

describe.runIf(process.getuid?.() === 0).each(["ext4", "xfs"] as const)("%s", (type) => {
  it("does what the model says", async () => {
    const image = makeImage(type, MEBIBYTES[type]);
    const place = image.mount();
    try {
      const mounts = [place.path.replace("/self/", `/${process.pid}/`)];
      const found = await runSpec({ mounts, ops: 150, runs: 12, seed: 1, seconds: 40, kind: KINDS[type] });
      expect(found.difference).toBeNull();
      expect(found.calls).toBeGreaterThan(100);
    } finally {
      await place.release();
      image.remove();
    }
  });

  it("gives programs at once answers in an order that the model allows", async () => {
    const image = makeImage(type, MEBIBYTES[type]);
    const place = image.mount();
    try {
      const mounts = [place.path.replace("/self/", `/${process.pid}/`)];
      const found = await runAtOnce({ mounts, programs: 4, ops: 6, runs: 60, seed: 1, seconds: 20, kind: KINDS[type] });
      expect([found.violation, found.undecided]).toEqual([null, 0]);
      expect(found.callsBesideOthers).toBeGreaterThan(0);
    } finally {
      await place.release();
      image.remove();
    }
  });

  it("and not what a model says that has another rule", async () => {
    const image = makeImage(type, MEBIBYTES[type]);
    const place = image.mount();
    try {
      const mounts = [place.path.replace("/self/", `/${process.pid}/`)];
      const kind = { ...KINDS[type], maxFileBytes: 9000n };
      const found = await runSpec({ mounts, ops: 150, runs: 40, seed: 1, seconds: 40, kind });
      expect(found.difference?.why).toContain("EFBIG expected");
      expect(found.difference?.commands).toContain("truncate");
    } finally {
      await place.release();
      image.remove();
    }
  });
});
