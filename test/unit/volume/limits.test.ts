/** Limits of what an owner writes of itself: at them all is read, one byte beyond it is refused. */
import { describe, expect, it } from "vitest";
import { WireError } from "../../../dlmd/base/error.ts";
import { LVB_BYTES } from "../../../dlmd/wire/local-batch.ts";
import type { Life } from "../../../overlay/volume/life.ts";
import { decodeOwnerBlock, encodeOwnerBlock } from "../../../overlay/volume/owner-block.ts";
import { decodeOwnerRecord, encodeOwnerRecord, type OwnerRecord } from "../../../overlay/volume/owner-record.ts";

const life: Life = {
  nodeid: 2,
  incarnation: "i",
  clientId: 7,
  epoch: 9,
  bootId: "b",
  machineId: "m",
  pid: 4711,
  startTime: 5n,
  device: "d",
  hostName: "h",
};

describe("the owner's block", () => {
  const read = (change: Partial<Life>, volumeUuid = "u"): Life | null =>
    decodeOwnerBlock(encodeOwnerBlock({ state: "owned", volumeUuid, sequence: 3, epoch: 9, atMs: 1, life: { ...life, ...change } })).life;

  it.each([
    ["incarnation", 64],
    ["bootId", 36],
    ["machineId", 32],
    ["hostName", 64],
  ] as const)("has %s of at most %i bytes", (field, bytes) => {
    expect(read({ [field]: "x".repeat(bytes) })?.[field].length).toBe(bytes);
    expect(() => read({ [field]: "x".repeat(bytes + 1) })).toThrow(WireError);
  });

  it("has a volume's UUID of at most 36 bytes", () => {
    expect(read({}, "u".repeat(36))).toEqual(life);
    expect(() => read({}, "u".repeat(37))).toThrow(WireError);
  });
});

describe("the owner's record", () => {
  const process = { bootId: "b", machineId: "m", pid: 7, startTime: 5, device: "d" };
  const base = { state: "ready", nodeid: 2, incarnation: "i", clientId: 7, address: "a", port: 5, epoch: 9, heir: 0 } as const;
  const record: OwnerRecord = { ...base, process, claimEpoch: 9 };
  const read = (change: Partial<OwnerRecord>): OwnerRecord | null => decodeOwnerRecord(encodeOwnerRecord({ ...record, ...change }));

  it.each([
    ["incarnation", 16],
    ["address", 45],
  ] as const)("has %s of at most %i bytes", (field, bytes) => {
    expect(read({ [field]: "x".repeat(bytes) })?.[field].length).toBe(bytes);
    expect(() => read({ [field]: "x".repeat(bytes + 1) })).toThrow(WireError);
  });

  it.each([
    ["bootId", 36],
    ["machineId", 32],
    ["device", 64],
  ] as const)("has %s of at most %i bytes", (field, bytes) => {
    expect(read({ process: { ...process, [field]: "x".repeat(bytes) } })?.process[field].length).toBe(bytes);
    expect(() => read({ process: { ...process, [field]: "x".repeat(bytes + 1) } })).toThrow(WireError);
  });

  it("fits a lock value block with the longest of all", () => {
    const [bootId, machineId, device] = ["b".repeat(36), "m".repeat(32), "d".repeat(64)];
    const longest = { ...record, incarnation: "i".repeat(16), address: "a".repeat(45), process: { ...process, bootId, machineId, device } };
    expect(encodeOwnerRecord(longest).byteLength).toBeLessThanOrEqual(LVB_BYTES);
    expect(read(longest)).toEqual(longest);
  });
});
