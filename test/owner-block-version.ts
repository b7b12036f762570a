/** An owner's block as another version of coverlay has it, as far as all versions agree (overlay/volume/owner-block.ts): whole, with its checksum. */
import { crc32 } from "node:zlib";

const VERSION_AT = 8;
const CRC_AT = 508;

export function withVersion(block: Uint8Array, version: number): Buffer {
  const bytes = Buffer.from(block);
  bytes.writeUInt16LE(version, VERSION_AT);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, CRC_AT)), CRC_AT);
  return bytes;
}
