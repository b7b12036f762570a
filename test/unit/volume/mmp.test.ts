/** What MMP's block says, and whose mount it names. */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { kernelName } from "../../../overlay/volume/direct-block.ts";
import { type Mmp, decodeMmp, isHeldBy, machineName } from "../../../overlay/volume/mmp.ts";
import { MAX_DEVICE_BYTES } from "../../../overlay/volume/owner-record.ts";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import path from "node:path";

function block(sequence: number, hostName = "host-2", deviceName = "sdb1"): Buffer {
  const bytes = Buffer.alloc(1024);
  bytes.writeUInt32LE(0x004d4d50, 0);
  bytes.writeUInt32LE(sequence, 4);
  bytes.writeBigUInt64LE(1_795_287_504n, 8);
  bytes.write(hostName, 16, 64, "utf8");
  bytes.write(deviceName, 80, 32, "utf8");
  return bytes;
}

test("clean, in use, being checked; names of full length have no zero at their end", () => {
  expect(decodeMmp(block(0xff4d4d50))).toEqual({ state: "clean", hostName: "host-2", deviceName: "sdb1", atS: 1_795_287_504 });
  expect(decodeMmp(block(0xe24d4d50))?.state).toBe("fsck");
  expect(decodeMmp(block(1, "h".repeat(64), "d".repeat(32)))).toMatchObject({
    state: "in-use",
    hostName: "h".repeat(64),
    deviceName: "d".repeat(32),
  });
});

test("what is not such a block", () => {
  expect(decodeMmp(new Uint8Array(1024))).toBeNull();
  for (let bytes = 0; bytes < 116; bytes++) expect(decodeMmp(block(1).subarray(0, bytes))).toBeNull();
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 1024 }), (noise) => {
      expect(decodeMmp(noise)).toBeNull();
    }),
  );
});

test("C11, R12: it names a life only by both, the machine and the device, and only while it is in use", () => {
  const life = { nodeid: 2, incarnation: "i", clientId: 1, epoch: 1, bootId: "b", machineId: "m", pid: 1, startTime: 1n };
  const named = { ...life, device: "/dev/sdb1", hostName: "host-2" };
  const held = decodeMmp(block(77)) as Mmp;
  expect(isHeldBy(held, named)).toBe(true);
  expect(isHeldBy(held, { ...named, hostName: "host-3" })).toBe(false);
  expect(isHeldBy(held, { ...named, device: "/dev/sdc1" })).toBe(false);
  for (const sequence of [0xff4d4d50, 0xe24d4d50]) expect(isHeldBy(decodeMmp(block(sequence)) as Mmp, named)).toBe(false);
  expect(machineName()).toBe(hostname().slice(0, 64));
});

test("a device goes into the owner's record by the kernel's name, if that is short enough", () => {
  const dir = mkdtempSync(path.join(tmpdir(), "coverlay-name-"));
  try {
    const fitting = path.join(dir, "d".repeat(MAX_DEVICE_BYTES - dir.length - 1));
    for (const name of [fitting, `${fitting}d`]) writeFileSync(name, "");
    expect(kernelName(fitting)).toBe(fitting);
    expect(() => kernelName(`${fitting}d`)).toThrow(/more than 64 bytes/);
  } finally {
    rmSync(dir, { recursive: true });
  }
});
