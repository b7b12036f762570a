/** The checked codecs of the volume: the bit, the owner's record, superblocks, XFS inodes, the mount table. */
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { OperatingError, WireError } from "../../../dlmd/base/error.ts";
import { type Bit, decodeBit, encodeBit, isBitXattr, requireOwnerBlock } from "../../../overlay/volume/bit.ts";
import { parseMountinfo } from "../../../dlmd/base/mount-table.ts";
import { compareOwnerRecords, decodeOwnerRecord, encodeOwnerRecord } from "../../../overlay/volume/owner-record.ts";
import { SUPERBLOCK_BYTES, decodeSuperblock } from "../../../overlay/volume/superblock.ts";
import { findXfsTrusted } from "../../../overlay/volume/xfs-inode.ts";

const bit: Bit = { cluster: "demo", volume: "shared", uuid: "6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11" };

function code(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof OperatingError) return error.code;
    throw error;
  }
  return "none";
}

/** "value", or the name of what was thrown. */
function outcome(run: () => unknown): string {
  try {
    run();
    return "value";
  } catch (error) {
    return (error as Error).name;
  }
}

describe("the bit", () => {
  const vector = "coverlay-1;cluster=demo;volume=shared;uuid=6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11;crc=";

  test("golden vector", () => {
    const value = encodeBit(bit).toString("latin1");
    expect(value.slice(0, -8)).toBe(vector);
    expect(value.slice(-8)).toBe("a99858e7");
    expect(decodeBit(encodeBit(bit), "here")).toEqual({ ...bit, ownerBlock: null, mmp: false });
    const place = { ownerBlock: 1_052_672, mmp: true };
    const second = encodeBit(bit, place).toString("latin1");
    expect(second).toBe(`${vector.replace("coverlay-1", "coverlay-2").replace(";crc=", ";block=1052672;mmp=1;crc=")}d70b1da5`);
    expect(decodeBit(encodeBit(bit, place), "here")).toEqual({ ...bit, ...place });
    expect(decodeBit(encodeBit(bit, { ...place, mmp: false }), "here")).toEqual({ ...bit, ...place, mmp: false });
    expect(requireOwnerBlock(decodeBit(encodeBit(bit, place), "here"), "here")).toBe(1_052_672);
    expect(code(() => requireOwnerBlock(decodeBit(encodeBit(bit), "here"), "here"))).toBe("bit-version");
  });

  test("every truncation and every changed byte is found", () => {
    for (const value of [encodeBit(bit), encodeBit(bit, { ownerBlock: 4096, mmp: true })]) {
      for (let bytes = 0; bytes < value.length; bytes++) expect(code(() => decodeBit(value.subarray(0, bytes), "here"))).toBe("bad-bit");
      for (let at = 0; at < value.length; at++) {
        const changed = Buffer.from(value);
        changed[at] = (changed[at] as number) ^ 1;
        expect(["bad-bit", "bit-version"]).toContain(code(() => decodeBit(changed, "here")));
      }
    }
  });

  test("a later format, foreign words, long values", () => {
    expect(code(() => decodeBit(Buffer.from("coverlay-3;anything"), "here"))).toBe("bit-version");
    expect(code(() => decodeBit(Buffer.alloc(257, "c"), "here"))).toBe("bad-bit");
    expect(code(() => encodeBit({ ...bit, cluster: "De;mo" }))).toBe("usage");
    expect(code(() => encodeBit({ ...bit, volume: "" }))).toBe("usage");
    expect(code(() => encodeBit({ ...bit, uuid: bit.uuid.toUpperCase() }))).toBe("usage");
    expect(isBitXattr(Buffer.from("trusted.clustered"))).toBe(true);
    expect(isBitXattr(Buffer.from("trusted.clustered.epoch"))).toBe(true);
    expect(isBitXattr(Buffer.from("trusted.clusteredx"))).toBe(false);
  });
});

describe("the owner's record", () => {
  const record = {
    state: "ready",
    nodeid: 2,
    incarnation: "a1b2",
    clientId: 7,
    address: "10.0.0.2",
    port: 7000,
    epoch: 9,
    heir: 5,
    process: { bootId: "0d0c7b1e", machineId: "9f86", pid: 4711, startTime: 2 ** 40 + 5, device: "/dev/sdb" },
    claimEpoch: 8,
  } as const;

  test("golden vector", () => {
    expect(Buffer.from(encodeOwnerRecord(record)).toString("hex")).toBe(
      "774f04010200581b0900000000000000070000000500040061316232080031302e302e302e3208000000000000006712000005000000000100000800306430633762316504003966383608002f6465762f736462bd00d4de",
    );
    expect(decodeOwnerRecord(encodeOwnerRecord(record))).toEqual(record);
    // The status shows it.
    expect(JSON.parse(JSON.stringify(record))).toEqual(record);
  });

  test("nothing written is no record; anything else that is not whole is an error", () => {
    expect(decodeOwnerRecord(null)).toBeNull();
    expect(decodeOwnerRecord(new Uint8Array(64))).toBeNull();
    const block = encodeOwnerRecord(record);
    for (let bytes = 1; bytes < block.length; bytes++) expect(() => decodeOwnerRecord(block.subarray(0, bytes))).toThrow(WireError);
    fc.assert(
      fc.property(fc.nat(block.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
        const damaged = block.slice();
        damaged[at] = (damaged[at] as number) ^ change;
        expect(() => decodeOwnerRecord(damaged)).toThrow(WireError);
      }),
    );
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 256 }), (noise) => {
        expect(outcome(() => decodeOwnerRecord(noise))).toMatch(/^(value|WireError)$/);
      }),
    );
    expect(() => decodeOwnerRecord(Uint8Array.from([...block, 0]))).toThrow(WireError);
  });

  test("a whole record of another version is refused with words, a damaged one is damage", () => {
    const third = Buffer.from("774f03010200581b0900000000000000070000000500040061316232080031302e302e302e328064248f", "hex");
    expect(code(() => decodeOwnerRecord(third))).toBe("record-version");
    third[12] = 1;
    expect(() => decodeOwnerRecord(third)).toThrow(WireError);
  });

  test("a bit beside the state says that its owner cannot write", () => {
    const reader = { ...record, process: { ...record.process, cannotWrite: true } } as const;
    expect(decodeOwnerRecord(encodeOwnerRecord(reader))).toEqual(reader);
    expect(encodeOwnerRecord(reader)[3]).toBe(0x81);
    expect(decodeOwnerRecord(encodeOwnerRecord(record))?.process).toEqual(record.process);
  });

  test("order: epoch, then mounting, ready, released", () => {
    expect(compareOwnerRecords(record, { ...record, state: "released" })).toBeLessThan(0);
    expect(compareOwnerRecords(record, { ...record, state: "mounting" })).toBeGreaterThan(0);
    expect(compareOwnerRecords({ ...record, state: "released" }, { ...record, state: "mounting", epoch: 10 })).toBeLessThan(0);
  });
});

describe("superblocks", () => {
  const head = (fill: (bytes: Buffer) => void, bytes = SUPERBLOCK_BYTES): Buffer => {
    const buffer = Buffer.alloc(bytes);
    fill(buffer);
    return buffer;
  };

  test("names what it knows", () => {
    expect(decodeSuperblock(Buffer.alloc(0))).toMatchObject({ type: "none" });
    expect(decodeSuperblock(head(() => {}))).toMatchObject({ type: "none" });
    expect(decodeSuperblock(head((bytes) => bytes.write("_BHRfS_M", 0x10040, "latin1")))).toEqual({ type: "other", what: "btrfs" });
    expect(decodeSuperblock(head((bytes) => bytes.writeUInt32BE(0x011954, 8192 + 1372)))).toEqual({ type: "ufs", what: "UFS1" });
    expect(decodeSuperblock(head((bytes) => bytes.writeUInt16LE(0xaa55, 510)))).toMatchObject({ type: "other" });
  });

  test("a LUKS container is one, whatever file system stood there before", () => {
    const luks = head((bytes) => {
      bytes.write("LUKS\xba\xbe", 0, "latin1");
      bytes.writeUInt16LE(0xef53, 1024 + 0x38);
    });
    expect(decodeSuperblock(luks)).toMatchObject({ type: "other", what: expect.stringMatching(/^a LUKS container/) });
  });

  test("how large the file system is", () => {
    const ext4 = (incompat: number): Buffer =>
      head((bytes) => {
        bytes.writeUInt16LE(0xef53, 1024 + 0x38);
        bytes.writeUInt32LE(incompat, 1024 + 0x60);
        bytes.writeUInt32LE(2, 1024 + 0x18);
        bytes.writeUInt32LE(7, 1024 + 0x4);
        bytes.writeUInt32LE(1, 1024 + 0x150);
      });
    expect(decodeSuperblock(ext4(0))).toMatchObject({ bytes: 7 * 4096 });
    expect(decodeSuperblock(ext4(0x80))).toMatchObject({ bytes: (2 ** 32 + 7) * 4096 });
  });

  test("ext4 states", () => {
    const ext4 = (state: number, incompat: number): Buffer =>
      head((bytes) => {
        bytes.writeUInt16LE(0xef53, 1024 + 0x38);
        bytes.writeUInt16LE(state, 1024 + 0x3a);
        bytes.writeUInt32LE(incompat, 1024 + 0x60);
      });
    expect(decodeSuperblock(ext4(1, 0))).toMatchObject({ type: "ext4", valid: true, hasErrors: false, needsRecovery: false });
    expect(decodeSuperblock(ext4(3, 0x104))).toMatchObject({ valid: true, hasErrors: true, needsRecovery: true, hasMmp: true });
    const journals = [0, 0x4, 0x404].map((compat) => {
      const bytes = ext4(1, 0);
      bytes.writeUInt32LE(compat, 1024 + 0x5c);
      return decodeSuperblock(bytes);
    });
    expect(journals).toMatchObject([
      { hasJournal: false, hasFastCommit: false },
      { hasJournal: true, hasFastCommit: false },
      { hasJournal: true, hasFastCommit: true },
    ]);
    const elsewhere = ext4(1, 0);
    elsewhere.writeUInt32LE(0x4, 1024 + 0x5c);
    elsewhere.writeUInt32LE(0x701, 1024 + 0xe4);
    expect(decodeSuperblock(elsewhere)).toMatchObject({ hasJournal: false });
    const withMmp = ext4(1, 0x100);
    withMmp.writeUInt16LE(7, 1024 + 0x166);
    withMmp.writeBigUInt64LE(4385n, 1024 + 0x168);
    withMmp.writeUInt32LE(65_536, 1024 + 0x4);
    expect(decodeSuperblock(withMmp)).toMatchObject({ mmpOffset: 4385 * 1024, mmpIntervalS: 7 });
    expect(decodeSuperblock(ext4(1, 8))).toMatchObject({ type: "other" });
    expect(decodeSuperblock(ext4(1, 0x2_0002))).toMatchObject({ type: "other", what: expect.stringContaining("casefold") as string });
  });

  test("numbers that cannot be are damage: nothing is computed with them", () => {
    const ext4 = (change: (sb: Buffer) => void): Buffer =>
      head((bytes) => {
        bytes.writeUInt16LE(0xef53, 1024 + 0x38);
        bytes.writeUInt32LE(65_536, 1024 + 0x4);
        bytes.writeUInt32LE(0x180, 1024 + 0x60);
        change(bytes.subarray(1024));
      });
    const xfs = (blocks: bigint, agBlockLog: number): Buffer =>
      head((bytes) => {
        bytes.write("XFSB");
        bytes.writeBigUInt64BE(blocks, 8);
        [12, 9, 3, agBlockLog].forEach((log, at) => bytes.writeUInt8(log, [120, 122, 123, 124][at] ?? 0));
      });
    expect([ext4(() => undefined), xfs(80n, 16)].map((bytes) => decodeSuperblock(bytes).type)).toEqual(["ext4", "xfs"]);
    const damaged = [
      ext4((sb) => sb.writeUInt32LE(7, 0x18)),
      ext4((sb) => sb.writeUInt32LE(0xffff_ffff, 0x18)),
      ext4((sb) => sb.writeUInt32LE(0xffff_ffff, 0x150)),
      ext4((sb) => sb.writeBigUInt64LE(2n ** 64n - 1n, 0x168)),
      ext4((sb) => sb.writeBigUInt64LE(65_537n, 0x168)),
      xfs(2n ** 63n, 16),
      xfs(80n, 32),
    ].map((bytes) => decodeSuperblock(bytes));
    expect(damaged.map(({ type }) => type)).toEqual(damaged.map(() => "damaged"));
  });

  test("names that differ in case alone and are one: not for us", () => {
    const xfs = (version: number): Buffer =>
      head((bytes) => {
        bytes.write("XFSB");
        bytes.writeUInt16BE(version, 100);
        [12, 9, 3, 16].forEach((log, at) => bytes.writeUInt8(log, [120, 122, 123, 124][at] ?? 0));
      });
    expect(decodeSuperblock(xfs(0xb4a5))).toMatchObject({ type: "xfs" });
    expect(decodeSuperblock(xfs(0xf4a5))).toMatchObject({ type: "other", what: expect.stringContaining("case") as string });
  });

  test("noise gives an answer, never an exception", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 4096 }), fc.boolean(), (noise, asXfs) => {
        const bytes = Buffer.from(noise);
        if (asXfs) bytes.write("XFSB");
        expect(["ext4", "xfs", "ufs", "other", "damaged", "none"]).toContain(decodeSuperblock(bytes).type);
      }),
    );
  });
});

describe("an XFS inode's short-form attributes", () => {
  const inode = (entries: readonly { name: string; value: string; flags: number }[]): Buffer => {
    const bytes = Buffer.alloc(512);
    bytes.writeUInt16BE(0x494e, 0);
    bytes.writeUInt8(3, 4);
    bytes.writeUInt8(8, 82);
    bytes.writeInt8(1, 83);
    let at = 176 + 64 + 4;
    for (const entry of entries) {
      bytes.writeUInt8(entry.name.length, at);
      bytes.writeUInt8(entry.value.length, at + 1);
      bytes.writeUInt8(entry.flags, at + 2);
      at += 3 + bytes.write(entry.name + entry.value, at + 3, "latin1");
    }
    bytes.writeUInt16BE(at - 176 - 64, 176 + 64);
    bytes.writeUInt8(entries.length, 176 + 64 + 2);
    return bytes;
  };

  test("only the trusted one of that name", () => {
    const others = [
      { name: "clustered", value: "user's", flags: 0 },
      { name: "clustered", value: "security's", flags: 4 },
    ];
    expect(findXfsTrusted(inode(others), "clustered")).toEqual({ kind: "absent" });
    const found = findXfsTrusted(inode([...others, { name: "clustered", value: "ours", flags: 2 }]), "clustered");
    expect(found).toEqual({ kind: "value", value: Buffer.from("ours") });
  });

  test("noise gives an answer, never an exception", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 512, minLength: 256 }), (noise) => {
        const bytes = Buffer.from(noise);
        bytes.writeUInt16BE(0x494e, 0);
        expect(["value", "absent", "elsewhere", "damaged"]).toContain(findXfsTrusted(bytes, "clustered").kind);
      }),
    );
  });
});

test("the mount table: optional fields, escapes, sources with spaces", () => {
  const text = [
    "36 35 98:0 / /mnt\\040two rw,noatime shared:1 master:2 - fuse.clustered /dev/my\\040disk rw,user_id=0",
    "37 35 0:45 /a\\040dir /plain rw - tmpfs tmpfs rw",
    "half a line",
    "",
  ].join("\n");
  expect(parseMountinfo(text)).toEqual([
    {
      mountId: 36,
      device: "98:0",
      root: "/",
      mountPoint: "/mnt two",
      options: ["rw", "noatime"],
      type: "fuse.clustered",
      source: "/dev/my disk",
      superOptions: ["rw", "user_id=0"],
    },
    {
      mountId: 37,
      device: "0:45",
      root: "/a dir",
      mountPoint: "/plain",
      options: ["rw"],
      type: "tmpfs",
      source: "tmpfs",
      superOptions: ["rw"],
    },
  ]);
});
