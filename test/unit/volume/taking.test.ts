/** What an owner takes its block for, by one look and by two: nothing of what it has in memory comes back once the disk counts as another's. */
import { statSync } from "node:fs";
import { beforeEach, expect, test, vi } from "vitest";
import { OperatingError } from "../../../dlmd/base/error.ts";
import { DiskSteps } from "../../../overlay/volume/disk-steps.ts";
import type { OwnerBlock } from "../../../overlay/volume/owner-block.ts";
import type { VolumeSuperblock } from "../../../overlay/volume/probe.ts";
import { isAnothers, type Taken, takeDevice } from "../../../overlay/volume/taking.ts";

const DEVICE = "/dev/null";
const DEVICE_NUMBER = statSync(DEVICE).rdev;
const free: OwnerBlock = { volumeUuid: "u", sequence: 1, epoch: 0, atMs: 0, state: "released", life: null };

const disk = vi.hoisted(() => ({ block: null as unknown, failures: [] as unknown[], reads: 0 }));
vi.mock("../../../overlay/volume/direct-block.ts", () => ({
  forgetOldErrors: async () => {},
  kernelName: (device: string) => device,
  readOwnerBlock: async () => {
    disk.reads += 1;
    const failure = disk.failures.shift();
    if (failure !== undefined) throw failure;
    return disk.block;
  },
  writeOwnerBlock: async (_device: string, _offset: number, block: unknown) => void (disk.block = block),
}));

const damaged = (): OperatingError => new OperatingError("damaged", { code: "owner-block-damaged", hint: "" });
const later = (): OperatingError => new OperatingError("version 3", { code: "owner-block-version", hint: "" });
const codeOf = async (work: Promise<void>): Promise<string> => work.then(() => "ok").catch((error: OperatingError) => error.code);

let taken: Taken;
beforeEach(async () => {
  Object.assign(disk, { block: free, failures: [] });
  taken = await takeDevice({
    device: DEVICE,
    offset: 4096,
    volumeUuid: "u",
    superblock: { type: "xfs" } as VolumeSuperblock,
    readOnly: false,
    epoch: 1,
    taking: {
      self: { nodeid: 1, incarnation: "i", clientId: 1 },
      claim: { block: free, proof: null, record: null } as never,
      mayMount: () => true,
      disk: new DiskSteps(DEVICE),
    },
  });
  taken.mountedOn(DEVICE_NUMBER);
  disk.reads = 0;
});

const another = (): OwnerBlock => ({ ...(disk.block as OwnerBlock), sequence: 9 });

test("a block that names another life is another's for ever, after one look", async () => {
  const own = disk.block;
  disk.block = another();
  expect([await codeOf(taken.confirm()), disk.reads]).toEqual(["owner-changed", 1]);
  disk.block = own;
  expect([await codeOf(taken.confirm()), disk.reads]).toEqual(["owner-changed", 1]);
});

test("a damaged block is read again, and only one that is damaged twice is another's", async () => {
  disk.failures = [damaged()];
  expect([await codeOf(taken.confirm()), disk.reads]).toEqual(["ok", 2]);
  disk.failures = [damaged(), damaged()];
  expect([await codeOf(taken.confirm()), disk.reads]).toEqual(["owner-block-damaged", 4]);
  expect([await codeOf(taken.confirm()), disk.reads]).toEqual(["owner-block-damaged", 4]);
});

test("a block of a later version is another's after one look: this life wrote none", async () => {
  const own = disk.block;
  disk.failures = [later()];
  expect([await codeOf(taken.confirm()), disk.reads]).toEqual(["owner-block-version", 1]);
  expect([await codeOf(taken.giveBack()), disk.reads]).toEqual(["owner-block-version", 1]);
  expect(isAnothers(await taken.confirm().catch((found: unknown) => found))).toBe(true);
  expect(disk.block).toBe(own);
});

test("a path that leads to another disk than the mounted one says nothing of that, whatever is there, and nothing is given back to it", async () => {
  taken.mountedOn(DEVICE_NUMBER + 1);
  expect(await codeOf(taken.confirm())).toBe("device-moved");
  const own = disk.block;
  disk.block = another();
  const error: unknown = await taken.confirm().catch((found: unknown) => found);
  expect([(error as OperatingError).code, isAnothers(error)]).toEqual(["device-moved", false]);
  disk.block = own;
  expect(await codeOf(taken.giveBack())).toBe("device-moved");
  expect(disk.block).toBe(own);
  taken.mountedOn(DEVICE_NUMBER);
  expect([await codeOf(taken.confirm()), await codeOf(taken.giveBack())]).toEqual(["ok", "ok"]);
  expect(disk.block).toMatchObject({ state: "released" });
});
