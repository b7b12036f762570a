/**
 * What the lock value block of a volume's `owner` resource says: who has, or had, the lower mounted, and where it serves it. A
 * checked codec: the block passes through other nodes' memory, and a wrong owner is a second writer.
 *
 *     u16 magic, u8 version, u8 state, u16 nodeid, u16 port, u64 epoch, u32 clientId, u16 heir, string incarnation, string address,
 *     u64 claimEpoch, u32 pid, u64 startTime, strings bootId, machineId, device, u32 crc
 *
 * The high bit of `state` is `cannotWrite`.
 *
 * With the life of its owner in it, the record is a second witness of a claim: a late write of the owner's block hides nobody (README.md).
 */
import { crc32 } from "node:zlib";
import { ByteReader, ByteWriter } from "../../dlmd/base/bytes.ts";
import { OperatingError, WireError } from "../../dlmd/base/error.ts";
import type { Life } from "./life.ts";

/**
 * `mounting`: announced before the device is touched; `ready`: it serves; `withdrawn`: its disk has failed, it serves nobody, and may have the device
 * mounted still; `released`: unmounted, and that was proved, so that any node may be the next; `let-go`: the same after a withdrawal, but not all
 * that was executed is on the disk, and its block may go on naming this owner.
 */
export type OwnerState = "mounting" | "ready" | "withdrawn" | "released" | "let-go";

/** The process that claims: what a proof of its end needs. */
export type ClaimingProcess = Pick<Life, "bootId" | "machineId" | "pid" | "device"> & {
  /** A number: a record is plain data, and stands in the status as JSON. */
  readonly startTime: number;
  /** It mounts a device read-only that its kernel lets nobody write: such a life harms nobody, and needs no proof. */
  readonly cannotWrite?: true;
};

export interface OwnerRecord {
  readonly state: OwnerState;
  readonly nodeid: number;
  /** With nodeid: the client of the lock manager that this owner is (hazard C7). */
  readonly incarnation: string;
  readonly clientId: number;
  /** Where its lower server listens; "" and 0 unless ready. */
  readonly address: string;
  readonly port: number;
  /** Rises with every owner. */
  readonly epoch: number;
  /** Released for that node: it is to be the next; 0: any. */
  readonly heir: number;
  /** `device`: "" for a directory. */
  readonly process: ClaimingProcess;
  /** Of the claim, as the owner's block has it: its mount may raise `epoch`. */
  readonly claimEpoch: number;
}

const MAGIC = 0x4f77;
const VERSION = 4;
const CANNOT_WRITE = 0x80;
const states: readonly OwnerState[] = ["mounting", "ready", "withdrawn", "released", "let-go"];
const MAX_INCARNATION_BYTES = 16;
const MAX_ADDRESS_BYTES = 45;
const MAX_BOOT_ID_BYTES = 36;
const MAX_MACHINE_ID_BYTES = 32;
/** A longer device name is refused before anything is claimed: all of the record must fit a lock value block. */
export const MAX_DEVICE_BYTES = 64;
const RECORD_BYTES = 256;

/** Nothing of that owner can reach the device any more. */
export function isOver({ state }: OwnerRecord): boolean {
  return state === "released" || state === "let-go";
}

/** Only a record names that life: `coverlay volume release`, which writes the block, does not help with it. */
export function isOfRecord({ hostName }: Life): boolean {
  return hostName === "";
}

/** The machine's name is not in the record. */
export function lifeOf({ nodeid, incarnation, clientId, claimEpoch, process }: OwnerRecord): Life {
  return { nodeid, incarnation, clientId, epoch: claimEpoch, hostName: "", ...process, startTime: BigInt(process.startTime) };
}

export function encodeOwnerRecord(record: OwnerRecord): Uint8Array {
  const { bootId, machineId, pid, startTime, device, cannotWrite = false } = record.process;
  const writer = new ByteWriter(RECORD_BYTES, RECORD_BYTES)
    .u16(MAGIC)
    .u8(VERSION)
    .u8(states.indexOf(record.state) | (cannotWrite ? CANNOT_WRITE : 0))
    .u16(record.nodeid)
    .u16(record.port)
    .u64(record.epoch)
    .u32(record.clientId)
    .u16(record.heir)
    .string(record.incarnation)
    .string(record.address)
    .u64(record.claimEpoch)
    .u32(pid)
    .u64(startTime)
    .string(bootId)
    .string(machineId)
    .string(device);
  return writer.u32(crc32(writer.view())).copy();
}

/**
 * null: nothing was ever written (no block, or zeros). Throws WireError for anything that is not a whole record, OperatingError "record-version" for
 * that of another version.
 */
export function decodeOwnerRecord(block: Uint8Array | null): OwnerRecord | null {
  if (block === null || block.every((byte) => byte === 0)) return null;
  const reader = new ByteReader(block);
  if (reader.u16() !== MAGIC) throw new WireError("owner record: wrong magic");
  const version = reader.u8();
  if (version !== VERSION) throw otherVersion(block, version);
  const flags = reader.u8();
  const state = states[flags & ~CANNOT_WRITE];
  const nodeid = reader.u16();
  const port = reader.u16();
  const epoch = reader.u64();
  const clientId = reader.u32();
  const heir = reader.u16();
  const incarnation = reader.string(MAX_INCARNATION_BYTES);
  const address = reader.string(MAX_ADDRESS_BYTES);
  const claimEpoch = reader.u64();
  const pid = reader.u32();
  const startTime = reader.u64();
  const bootId = reader.string(MAX_BOOT_ID_BYTES);
  const machineId = reader.string(MAX_MACHINE_ID_BYTES);
  const device = reader.string(MAX_DEVICE_BYTES);
  const expected = crc32(block.subarray(0, reader.offset));
  if (reader.u32() !== expected) throw new WireError("owner record: wrong checksum");
  reader.end();
  if (state === undefined) throw new WireError("owner record: unknown state");
  if (nodeid === 0) throw new WireError("owner record: nodeid 0");
  const writes = (flags & CANNOT_WRITE) === 0;
  const process: ClaimingProcess = { bootId, machineId, pid, startTime, device, ...(writes ? {} : { cannotWrite: true }) };
  return { state, nodeid, incarnation, clientId, address, port, epoch, heir, process, claimEpoch };
}

/** Of a whole record: each version ends with a checksum. */
function otherVersion(block: Uint8Array, version: number): Error {
  const at = block.byteLength - 4;
  const whole = at > 0 && new ByteReader(block, at).u32() === crc32(block.subarray(0, at));
  if (!whole) return new WireError(`owner record: version ${version}, ${VERSION} expected`);
  return new OperatingError(`the owner of the volume says which node it is in version ${version}; this overlay reads version ${VERSION}`, {
    code: "record-version",
    hint: "All nodes need the same version of coverlay. Unmount the volume on all nodes, install it, and mount again.",
    exitStatus: 32,
  });
}

/** Of two records of one volume, the later one: by epoch, then by the way that an owner goes. */
export function compareOwnerRecords(a: OwnerRecord, b: OwnerRecord): number {
  return a.epoch - b.epoch || states.indexOf(a.state) - states.indexOf(b.state);
}

/** Two claims may have the same epoch, and stand in the same state: if the record of one was lost, the next claimer did not know of it. */
export function isSameClaim(a: OwnerRecord, b: OwnerRecord): boolean {
  return a.nodeid === b.nodeid && a.incarnation === b.incarnation && a.clientId === b.clientId && a.claimEpoch === b.claimEpoch;
}
