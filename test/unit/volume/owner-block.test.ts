/** The owner's block: its bytes, what is not one, and what a mounter makes of it. */
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { WireError } from "../../../dlmd/base/error.ts";
import { parseOwnerBlock } from "../../../overlay/volume/direct-block.ts";
import type { Life } from "../../../overlay/volume/life.ts";
import {
  type OwnerBlock,
  MAX_READ_DEVICE_BYTES,
  OWNER_BLOCK_BYTES,
  OWNER_BLOCK_VERSION,
  decodeOwnerBlock,
  encodeOwnerBlock,
} from "../../../overlay/volume/owner-block.ts";
import { judgeBlock } from "../../../overlay/volume/owner-claim.ts";
import type { OwnerRecord } from "../../../overlay/volume/owner-record.ts";
import { withVersion } from "../../owner-block-version.ts";
import { refusal } from "../../refusal.ts";

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
    expect(parseOwnerBlock(bytes, "/dev/d", 4096, uuid).life?.machineId).toBe("");
    expect(() => decodeOwnerBlock(withVersion(bytes, 3))).toThrow("version 3, at most 2 expected");
  });

  test("a whole block of a later version is none that is damaged: the words ask for that coverlay, not for `enable`", async () => {
    const parse = async (bytes: Uint8Array): Promise<OwnerBlock> => parseOwnerBlock(bytes, "/dev/d", 4096, uuid);
    // Of its layout nothing is known but magic, version and checksum.
    const later = Buffer.from(encodeOwnerBlock(owned));
    later.fill(0xff, 10, 508);
    for (const version of [OWNER_BLOCK_VERSION + 1, 0xffff]) {
      const refused = await refusal(parse(withVersion(later, version)));
      expect([refused.code, refused.exitStatus]).toEqual(["owner-block-version", 32]);
      expect(refused.message).toContain(`version ${version} found, at most ${OWNER_BLOCK_VERSION} expected`);
      expect(refused.hint).not.toContain("enable");
    }
    // The checksum is that of the version before: a byte that the disk changed.
    const changed = Buffer.from(encodeOwnerBlock(owned));
    changed[8] = 3;
    expect((await refusal(parse(changed))).code).toBe("owner-block-damaged");
    // No coverlay has written a version 0.
    expect((await refusal(parse(withVersion(encodeOwnerBlock(owned), 0)))).code).toBe("owner-block-damaged");
  });

  test("the longest strings fit; a longer device name is not written", () => {
    const long: Life = {
      ...life,
      incarnation: "i".repeat(64),
      machineId: "m".repeat(32),
      device: "d".repeat(MAX_READ_DEVICE_BYTES),
      hostName: "h".repeat(64),
    };
    expect(decodeOwnerBlock(encodeOwnerBlock({ ...owned, life: long })).life).toEqual(long);
    const longer = encodeOwnerBlock({ ...owned, life: { ...life, device: "d".repeat(MAX_READ_DEVICE_BYTES + 1) } });
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
  const process = { bootId: "boot-3", machineId: "m", pid: 12, startTime: 8, device: "/dev/sdc" };
  const base = { state: "ready", nodeid: 3, incarnation: "x", clientId: 1, address: "", port: 0, epoch: 10, heir: 0 } as const;
  const record: OwnerRecord = { ...base, process, claimEpoch: 10 };
  const inRecord = { nodeid: 3, incarnation: "x", clientId: 1, epoch: 10, hostName: "", ...process, startTime: 8n };
  const ofLife = { nodeid: life.nodeid, incarnation: life.incarnation, clientId: life.clientId, claimEpoch: life.epoch };
  const released: OwnerBlock = { ...owned, state: "released" };
  const lives = (...args: Parameters<typeof judgeBlock>): readonly Life[] => judgeBlock(...args).lives;

  test("nobody has the device: no block, and a block that names nobody with a record that is over, or none", () => {
    expect(lives(null, record)).toEqual([]);
    for (const block of [fresh, released])
      for (const last of [null, { ...record, state: "released" as const }, { ...record, state: "let-go" as const }])
        expect(lives(block, last)).toEqual([]);
  });

  test("R5: the life in the block, and the one in a record that is not over: a late write of the block may cover the later claim", () => {
    for (const state of ["mounting", "ready", "withdrawn"] as const) {
      expect(lives(owned, { ...record, state })).toEqual([life, inRecord]);
      expect(lives(fresh, { ...record, state })).toEqual([inRecord]);
      expect(lives(released, { ...record, state })).toEqual([inRecord]);
    }
    for (const last of [null, { ...record, state: "released" as const }, { ...record, state: "let-go" as const }])
      expect(lives(owned, last)).toEqual([life]);
  });

  test("the life of a record that cannot write needs no proof: its block would never name it", () => {
    const reader = { ...record, process: { ...process, cannotWrite: true as const } };
    for (const block of [fresh, released]) expect(lives(block, reader)).toEqual([]);
    expect(lives(owned, reader)).toEqual([life]);
  });

  test("one life, if both name the same claim; its mount may have raised the epoch of the record", () => {
    expect(lives(owned, { ...record, ...ofLife, epoch: 15 })).toEqual([life]);
    expect(lives(released, { ...record, ...ofLife, epoch: 15 })).toEqual([]);
  });

  test("a later claim of the same mount is not over because it has released an earlier one", () => {
    const again = { ...record, ...ofLife, claimEpoch: life.epoch + 1, state: "mounting" as const };
    expect(lives(released, again)).toEqual([{ ...inRecord, ...ofLife, epoch: life.epoch + 1, claimEpoch: undefined }]);
  });

  test("a life that has let go of its disk is over by its own word, and no later life of the same mount is", () => {
    const letGo = { ...record, ...ofLife, state: "let-go" as const };
    for (const epoch of [life.epoch, life.epoch + 1]) expect(judgeBlock(owned, { ...letGo, epoch })).toEqual({ lives: [], letGo: true });
    expect(judgeBlock(owned, { ...letGo, epoch: life.epoch - 1 })).toEqual({ lives: [life], letGo: false });
    expect(judgeBlock(owned, { ...letGo, epoch: life.epoch, clientId: life.clientId + 1 })).toEqual({ lives: [life], letGo: false });
  });
});
