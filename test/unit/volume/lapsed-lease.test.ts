/** A lease that ends at any step between the look at the owner's block and the mount: nothing is written from then on, `released` neither. */
import { beforeEach, describe, expect, test, vi } from "vitest";
import { hostname } from "node:os";
import type { OperatingError } from "../../../dlmd/base/error.ts";
import { DiskSteps } from "../../../overlay/volume/disk-steps.ts";
import { mountLower } from "../../../overlay/volume/lower-mount.ts";
import type { OwnerBlock } from "../../../overlay/volume/owner-block.ts";

const DEVICE = "/dev/null";
const EIO = 5;
const life = { nodeid: 2, incarnation: "i", clientId: 7, epoch: 3, bootId: "b", machineId: "m", pid: 1, startTime: 1n };
const found = {
  volumeUuid: "u",
  sequence: 5,
  epoch: 3,
  atMs: 0,
  state: "owned",
  life: { ...life, device: "/dev/sdb", hostName: hostname() },
} as OwnerBlock;

/** What was done to the disk, in turn. `tuneStatus`: of tune2fs; `held`: descriptors that have it exclusively. */
const disk = vi.hoisted(() => ({ block: null as unknown, steps: [] as string[], tuneStatus: 0, held: new Set<number>() }));

vi.mock("../../../overlay/volume/direct-block.ts", () => ({
  forgetOldErrors: async () => void disk.steps.push("forget"),
  kernelName: (device: string) => device,
  readOwnerBlock: async () => disk.block,
  writeOwnerBlock: async (_device: string, _offset: number, block: OwnerBlock) => {
    disk.steps.push(`write ${block.state}`);
    disk.block = block;
  },
  readDeviceBlock: async () => {
    disk.steps.push("read MMP");
    const bytes = Buffer.alloc(4096);
    bytes.writeUInt32LE(0x004d4d50, 0);
    bytes.writeUInt32LE(77, 4);
    bytes.write(hostname(), 16, 64, "utf8");
    bytes.write("sdb", 80, 32, "utf8");
    return bytes;
  },
}));
vi.mock("../../../overlay/volume/tool.ts", () => ({
  runWriterInBackground: async (tool: string, _args: unknown, _package: unknown, { heldFd }: { heldFd: number }) => {
    disk.steps.push(disk.held.has(heldFd) ? tool : `${tool}, and does not hold the device`);
    return { status: tool === "tune2fs" ? disk.tuneStatus : 0, stdout: Buffer.alloc(0), stderr: "" };
  },
}));
vi.mock("../../../overlay/volume/probe.ts", () => ({
  probeSuperblockInPool: async () => ({ type: "ext4", hasMmp: true, mmpOffset: 0 }),
  requireJournal: () => {},
  dirtyReasonInBackground: async () => null,
}));
vi.mock("../../../overlay/volume/device.ts", () => ({
  AT_FDCWD: -100,
  deviceBytes: () => 0,
  isReadOnlyDevice: () => false,
  describeHolders: () => "in use",
  fileSystemDevice: () => "7:1",
  isDevice: () => true,
  tryExclusiveInPool: async () => {
    disk.steps.push("free?");
    return "free";
  },
}));
vi.mock("../../../native/index.ts", () => ({
  nativeAddon: () => ({
    pool: { sync: { openat2: async () => (disk.held.add(7), 7), close: async (fd: number) => void disk.held.delete(fd) } },
    mountDetachedInPool: async () => {
      // It takes the device exclusively.
      disk.steps.push(disk.held.size === 0 ? "mount" : "mount, while it is held");
      return -EIO;
    },
  }),
}));

beforeEach(() => {
  Object.assign(disk, { block: found, steps: [], tuneStatus: 0 });
});

/** The lease ends right after the steps `until`; null: never. Returns how the mount was refused. */
async function mount(until: readonly string[] | null): Promise<OperatingError> {
  const bit = { uuid: "u", cluster: "c", volume: "v", ownerBlock: 4096, mmp: true };
  return mountLower({ kind: "device", path: DEVICE }, bit, false, 3, {
    self: { nodeid: 1, incarnation: "i", clientId: 1 },
    claim: { block: found, proof: { kind: "fenced" } },
    mayMount: () => until === null || disk.steps.length < until.length,
    disk: new DiskSteps(DEVICE),
  }).then(
    () => expect.unreachable("it was mounted"),
    (error: unknown) => error as OperatingError,
  );
}

const ALL = ["free?", "forget", "write owned", "read MMP", "blockdev", "tune2fs", "free?", "mount"] as const;

describe("a lease that ends", () => {
  test.each<[string, number]>([
    ["before the owner's block is written", 2],
    ["while the owner's block is written", 3],
    ["while MMP's block is read", 4],
    ["while what the page cache has of the device is dropped", 5],
    ["while MMP is cleared", 6],
    ["while it is looked whether the device is free", 7],
  ])("%s ends the mount with these words, and no step comes after it", async (_, steps) => {
    const until = ALL.slice(0, steps);
    const { code } = await mount(until);
    // MMP was cleared: whether the device is free is a question, and is asked still.
    expect([code, disk.steps]).toEqual(["lease-lapsed", steps === 6 ? ALL.slice(0, 7) : until]);
  });

  test.each<[string, number, number]>([
    ["the clearing of MMP", 6, 1],
    ["the mount", 8, 0],
  ])("during %s, which fails, leaves the block as it is: the end of this process is the proof", async (_, steps, tuneStatus) => {
    disk.tuneStatus = tuneStatus;
    const until = ALL.slice(0, steps);
    const error = await mount(until);
    expect([error.code, disk.steps]).toEqual(["not-given-back", until]);
    expect(error.message).toMatch(/may name this mount now \(.*the lease of this node ended/);
  });
});

test("with a lease a mount that fails gives the block back", async () => {
  expect([(await mount(null)).code, disk.steps]).toEqual(["mount-failed", [...ALL, "write released"]]);
});
