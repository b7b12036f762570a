/** When the next owner says that nothing of the one before was lost. */
import { expect, it } from "vitest";
import { cleanAfter, letGoAfter } from "../../../overlay/volume/clean-after.ts";
import type { OwnerBlock } from "../../../overlay/volume/owner-block.ts";

const life = {
  nodeid: 2,
  incarnation: "aa",
  clientId: 3,
  epoch: 4,
  bootId: "b",
  machineId: "m",
  pid: 7,
  startTime: 8n,
  device: "/dev/sdb",
  hostName: "two",
};
const head = { volumeUuid: "u", sequence: 9, epoch: 4, atMs: 0 };
const owned: OwnerBlock = { ...head, state: "owned", life };
const released: OwnerBlock = { ...head, state: "released", life };

it("an ended process left a clean disk, and so did a release", () => {
  expect(cleanAfter({ block: owned, proof: { kind: "ended" } }, null)).toBe(4);
  expect(cleanAfter({ block: released, proof: null }, null)).toBe(4);
});

it("after a disk that was let go of nothing is known to be there, however clean it looks; unanswered changes are made again", () => {
  const claim = { block: owned, proof: { kind: "let-go" } } as const;
  expect([cleanAfter(claim, null), letGoAfter(claim)]).toEqual([0, 4]);
  for (const kind of ["ended", "rebooted", "fenced"] as const) expect(letGoAfter({ block: owned, proof: { kind } })).toBe(0);
  expect(letGoAfter({ block: released, proof: null })).toBe(0);
});

it("nothing is known after a reboot, a fence, of a disk whose journal is to be replayed, and of a directory", () => {
  for (const kind of ["rebooted", "fenced"] as const) expect(cleanAfter({ block: owned, proof: { kind } }, null)).toBe(0);
  expect(cleanAfter({ block: owned, proof: { kind: "ended" } }, "its journal is to be replayed")).toBe(0);
  expect(cleanAfter({ block: released, proof: null }, "it has errors")).toBe(0);
  expect(cleanAfter({ block: null, proof: null }, null)).toBe(0);
});
