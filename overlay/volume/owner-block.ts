/**
 * The owner's block (hazard R5): 4096 bytes on the volume itself that name the life which has, or had last, the device mounted. It is read and
 * written with O_DIRECT while no file system is mounted over it, so it needs no journal and no lock manager, and outlives both.
 *
 * A pure codec. Everything stands in the first sector, which disks write whole or not at all; the rest is zeros:
 *
 *     8 bytes "CovOwner", u16 version, u8 state, u8 hasLife, u64 sequence, u64 epoch, u64 atMs, string volumeUuid,
 *     if hasLife: u16 nodeid, u32 clientId, u32 pid, u64 startTime, strings incarnation, bootId, device, hostName, machineId; zeros;
 *     u32 crc at 508
 *
 * Version 1 has no machineId. It is read, and never written. Each later version keeps magic, version and checksum in their places: so an earlier
 * coverlay knows such a block from a damaged one.
 */
import { crc32 } from "node:zlib";
import { assert } from "../../dlmd/base/assert.ts";
import { ByteReader, ByteWriter } from "../../dlmd/base/bytes.ts";
import { WireError } from "../../dlmd/base/error.ts";
import type { Life } from "./life.ts";

export const OWNER_BLOCK_BYTES = 4096;

/**
 * `owned`: that life is about to mount the device, or has it mounted. There is no third state for a mount that is complete: it would have
 * to be written below a mounted file system, which kernels can forbid (CONFIG_BLK_DEV_WRITE_MOUNTED), and would change no decision.
 */
export type OwnerBlock = {
  readonly volumeUuid: string;
  /** Rises with every write. */
  readonly sequence: number;
  /** Of the last owner; 0 before the first. */
  readonly epoch: number;
  /** When it was written, in ms since 1970 by that machine's clock: for people only. */
  readonly atMs: number;
} & ({ readonly state: "owned"; readonly life: Life } | { readonly state: "released"; readonly life: Life | null });

const MAGIC = Buffer.from("CovOwner", "latin1");
/** The latest that is known. */
export const OWNER_BLOCK_VERSION = 2;
const VERSION_WITHOUT_MACHINE = 1;
const SECTOR_BYTES = 512;
const CRC_AT: number = SECTOR_BYTES - 4;
const MAX_UUID_BYTES = 36;
const MAX_INCARNATION_BYTES = 64;
const MAX_BOOT_ID_BYTES = 36;
const MAX_HOST_NAME_BYTES = 64;
const MAX_MACHINE_ID_BYTES = 32;
/** More than is written now (owner-record.ts): blocks of earlier versions are read. */
export const MAX_READ_DEVICE_BYTES = 128;

export function encodeOwnerBlock(block: OwnerBlock): Uint8Array {
  const { life } = block;
  const writer = new ByteWriter(SECTOR_BYTES, CRC_AT)
    .bytes(MAGIC)
    .u16(OWNER_BLOCK_VERSION)
    .u8(block.state === "owned" ? 1 : 0)
    .u8(life === null ? 0 : 1)
    .u64(block.sequence)
    .u64(block.epoch)
    .u64(block.atMs)
    .string(block.volumeUuid);
  if (life !== null) {
    assert(life.epoch === block.epoch, "the block's epoch is that of its life");
    writer.u16(life.nodeid).u32(life.clientId).u32(life.pid).bigU64(life.startTime);
    writer.string(life.incarnation).string(life.bootId).string(life.device).string(life.hostName).string(life.machineId);
  }
  const bytes = Buffer.alloc(OWNER_BLOCK_BYTES);
  bytes.set(writer.view());
  bytes.writeUInt32LE(crc32(bytes.subarray(0, CRC_AT)), CRC_AT);
  return bytes;
}

/** Throws WireError for anything that is not a whole block, of whatever version. */
export function versionOfBlock(bytes: Uint8Array): number {
  if (bytes.byteLength !== OWNER_BLOCK_BYTES) throw new WireError(`${bytes.byteLength} bytes, ${OWNER_BLOCK_BYTES} expected`);
  if (Buffer.compare(bytes.subarray(0, MAGIC.length), MAGIC) !== 0) throw new WireError('it does not begin with "CovOwner"');
  const expected = crc32(bytes.subarray(0, CRC_AT));
  if (new ByteReader(bytes, CRC_AT).u32() !== expected) throw new WireError("wrong checksum");
  return new ByteReader(bytes, MAGIC.length, CRC_AT).u16();
}

/** Throws WireError for anything that is not a whole block of a version that is known. */
export function decodeOwnerBlock(bytes: Uint8Array): OwnerBlock {
  const version = versionOfBlock(bytes);
  if (version !== OWNER_BLOCK_VERSION && version !== VERSION_WITHOUT_MACHINE)
    throw new WireError(`version ${version}, at most ${OWNER_BLOCK_VERSION} expected`);
  const reader = new ByteReader(bytes, MAGIC.length + 2, CRC_AT);
  const owned = reader.bool();
  const hasLife = reader.bool();
  const sequence = reader.u64();
  const epoch = reader.u64();
  const atMs = reader.u64();
  const volumeUuid = reader.string(MAX_UUID_BYTES);
  const life = hasLife ? readLife(reader, epoch, version) : null;
  requireZeros(bytes.subarray(reader.offset, CRC_AT));
  requireZeros(bytes.subarray(SECTOR_BYTES));
  const head = { volumeUuid, sequence, epoch, atMs };
  if (!owned) return { ...head, state: "released", life };
  if (life === null) throw new WireError("owned by nobody");
  return { ...head, state: "owned", life };
}

/** No other write came between: the same one was read. */
export function isSameBlock(a: OwnerBlock | null, b: OwnerBlock | null): boolean {
  if (a === null || b === null) return false;
  return a.sequence === b.sequence && a.state === b.state && isSameProcess(a.life, b.life);
}

function isSameProcess(a: Life | null, b: Life | null): boolean {
  if (a === null || b === null) return a === b;
  const sameClient = a.nodeid === b.nodeid && a.incarnation === b.incarnation && a.clientId === b.clientId;
  return sameClient && a.bootId === b.bootId && a.machineId === b.machineId && a.pid === b.pid && a.startTime === b.startTime;
}

function readLife(reader: ByteReader, epoch: number, version: number): Life {
  const nodeid = reader.u16();
  const clientId = reader.u32();
  const pid = reader.u32();
  const startTime = reader.bigU64();
  const incarnation = reader.string(MAX_INCARNATION_BYTES);
  const bootId = reader.string(MAX_BOOT_ID_BYTES);
  const device = reader.string(MAX_READ_DEVICE_BYTES);
  const hostName = reader.string(MAX_HOST_NAME_BYTES);
  const machineId = version === VERSION_WITHOUT_MACHINE ? "" : reader.string(MAX_MACHINE_ID_BYTES);
  if (nodeid === 0) throw new WireError("nodeid 0");
  return { nodeid, incarnation, clientId, epoch, bootId, machineId, pid, startTime, device, hostName };
}

function requireZeros(bytes: Uint8Array): void {
  if (bytes.some((byte) => byte !== 0)) throw new WireError("zeros expected after the end");
}
