/** Limits of what an owner writes of itself: at them all is read, one byte beyond it is refused. */
import { describe, expect, it } from "vitest";
import { WireError } from "../../../dlmd/base/error.ts";
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
  it.each([
    ["incarnation", 64],
    ["address", 64],
  ] as const)("has %s of at most %i bytes", (field, bytes) => {
    const record: OwnerRecord = { state: "ready", nodeid: 2, incarnation: "i", clientId: 7, address: "a", port: 5, epoch: 9, heir: 0 };
    const read = (text: string): number | undefined => decodeOwnerRecord(encodeOwnerRecord({ ...record, [field]: text }))?.[field].length;
    expect(read("x".repeat(bytes))).toBe(bytes);
    expect(() => read("x".repeat(bytes + 1))).toThrow(WireError);
  });
});
