/** The owner's block: its bytes, what is not one, and what a mounter makes of it. */
import { crc32 } from "node:zlib";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { WireError } from "../../../dlmd/base/error.ts";
import type { Life } from "../../../overlay/volume/life.ts";
import {
  type OwnerBlock,
  MAX_DEVICE_BYTES,
  OWNER_BLOCK_BYTES,
  decodeOwnerBlock,
  encodeOwnerBlock,
} from "../../../overlay/volume/owner-block.ts";
import { judgeBlock } from "../../../overlay/volume/owner-claim.ts";
import type { OwnerRecord } from "../../../overlay/volume/owner-record.ts";

const uuid = "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11";
const life: Life = {
  nodeid: 2,
  incarnation: "a1b2",
  clientId: 7,
  epoch: 9,
  bootId: "0d0c7b1e-5c6f-4b52-9d2e-0a4f6a1b2c3d",
  pid: 4711,
  startTime: 2n ** 40n + 5n,
  device: "/dev/sdb1",
  machineId: "9f86d081884c7d659a2feaa0c55ad015",
  hostName: "host-2",
};
const owned: OwnerBlock = { state: "owned", volumeUuid: uuid, sequence: 3, epoch: 9, atMs: 1_700_000_000_123, life };
const fresh: OwnerBlock = { state: "released", volumeUuid: uuid, sequence: 0, epoch: 4, atMs: 0, life: null };

describe("the owner's block", () => {
  test("golden vector: all of it in the first sector", () => {
    const bytes = Buffer.from(encodeOwnerBlock(owned));
    expect(bytes.length).toBe(OWNER_BLOCK_BYTES);
    const text = bytes.subarray(0, 512).toString("hex");
    expect(text.slice(0, -8).replace(/(00)+$/, "")).toBe(
      "436f764f776e65720200010103000000000000000900000000000000" +
        "7b68e5cf8b01000024003662316330623565" +
        "2d336630652d346630612d396435632d3266386336613063346431310200070000006712000005000000000100000400613162322400" +
        "30643063376231652d356336662d346235322d396432652d30613466366131623263336409002f6465762f736462310600686f73742d32" +
        "20003966383664303831383834633764363539613266656161306335356164303135",
    );
    expect(text.slice(-8)).toBe("e04fdc90");
    expect(bytes.subarray(512).every((byte) => byte === 0)).toBe(true);
    for (const block of [owned, fresh, { ...owned, state: "released" as const }])
      expect(decodeOwnerBlock(encodeOwnerBlock(block))).toEqual(block);
  });

  test("a block of version 1, which says nothing of the machine, is read", () => {
    const first =
      "436f764f776e65720100010103000000000000000900000000000000" +
      "7b68e5cf8b01000024003662316330623565" +
      "2d336630652d346630612d396435632d3266386336613063346431310200070000006712000005000000000100000400613162322400" +
      "30643063376231652d356336662d346235322d396432652d30613466366131623263336409002f6465762f736462310600686f73742d32";
    const bytes = new Uint8Array(OWNER_BLOCK_BYTES);
    bytes.set(Buffer.from(first, "hex"));
    bytes.set(Buffer.from("75887df8", "hex"), 508);
    expect(decodeOwnerBlock(bytes)).toEqual({ ...owned, life: { ...life, machineId: "" } });
    bytes[8] = 3;
    bytes.set(new Uint8Array(new Uint32Array([crc32(bytes.subarray(0, 508))]).buffer), 508);
    expect(() => decodeOwnerBlock(bytes)).toThrow("version 3, at most 2 expected");
  });

  test("the longest strings fit; a longer device name is not written", () => {
    const long: Life = {
      ...life,
      incarnation: "i".repeat(64),
      machineId: "m".repeat(32),
      device: "d".repeat(MAX_DEVICE_BYTES),
      hostName: "h".repeat(64),
    };
    expect(decodeOwnerBlock(encodeOwnerBlock({ ...owned, life: long })).life).toEqual(long);
    const longer = encodeOwnerBlock({ ...owned, life: { ...life, device: "d".repeat(MAX_DEVICE_BYTES + 1) } });
    expect(() => decodeOwnerBlock(longer)).toThrow(/string of 129 bytes/);
  });

  test("every truncation, every changed byte, every other version, and noise are found", () => {
    const bytes = encodeOwnerBlock(owned);
    for (let length = 0; length < bytes.length; length += 1 + (length > 512 ? 97 : 0))
      expect(() => decodeOwnerBlock(bytes.subarray(0, length))).toThrow(WireError);
    for (let at = 0; at < bytes.length; at++) {
      const changed = bytes.slice();
      changed[at] = (changed[at] as number) ^ 0x10;
      expect(() => decodeOwnerBlock(changed)).toThrow(WireError);
    }
    expect(() => decodeOwnerBlock(new Uint8Array(OWNER_BLOCK_BYTES))).toThrow(/CovOwner/);
    fc.assert(
      fc.property(fc.uint8Array({ minLength: OWNER_BLOCK_BYTES, maxLength: OWNER_BLOCK_BYTES }), (noise) => {
        expect(() => decodeOwnerBlock(noise)).toThrow(WireError);
      }),
    );
  });
});

describe("a claim", () => {
  const record: OwnerRecord = { state: "ready", nodeid: 3, incarnation: "x", clientId: 1, address: "", port: 0, epoch: 10, heir: 0 };

  test("free: no block, a block that names nobody, one that was released", () => {
    for (const block of [null, fresh, { ...owned, state: "released" as const }])
      expect(judgeBlock(block, record)).toEqual({ kind: "free" });
  });

  test("another life is to be proved over, whatever the record says of an earlier or a later owner that was not ready", () => {
    for (const last of [
      null,
      { ...record, epoch: 9 },
      { ...record, state: "mounting" as const },
      { ...record, state: "released" as const },
    ])
      expect(judgeBlock(owned, last)).toEqual({ kind: "prove", life });
    const same = { ...record, nodeid: life.nodeid, incarnation: life.incarnation, clientId: life.clientId };
    expect(judgeBlock(owned, same)).toEqual({ kind: "prove", life });
  });

  test("a later owner was ready, and the block does not name it: nothing that is proved of the life in it helps", () => {
    for (const state of ["ready", "withdrawn", "let-go"] as const)
      expect(judgeBlock(owned, { ...record, state })).toMatchObject({ kind: "refuse", life });
  });

  test("a life that has let go of its disk is over by its own word, and no later life of the same mount is", () => {
    const letGo = { ...record, nodeid: life.nodeid, incarnation: life.incarnation, clientId: life.clientId, state: "let-go" as const };
    for (const epoch of [life.epoch, life.epoch + 1])
      expect(judgeBlock(owned, { ...letGo, epoch })).toEqual({ kind: "proved", proof: { kind: "let-go" } });
    expect(judgeBlock(owned, { ...letGo, epoch: life.epoch - 1 })).toEqual({ kind: "prove", life });
    expect(judgeBlock(owned, { ...letGo, epoch: life.epoch, clientId: life.clientId + 1 })).toEqual({ kind: "prove", life });
  });
});
