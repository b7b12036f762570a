/** From the bytes of a request to its object: the header, then what the opcode's row says of the rest. */
import { WireError } from "../../dlmd/base/error.ts";
import { IN_HEADER_BYTES } from "./abi.ts";
import { readSize } from "./bytes.ts";
import { opcodeRow } from "./opcode.ts";
import type { Request } from "./request.ts";
import { readUnique } from "./unique.ts";

/**
 * Decodes the request in buffer[0..bytes). WireError: damaged, and nothing else is ever thrown. A request whose header could
 * be read must still be answered or its caller hangs: damagedUnique() gives the number to answer with EIO.
 */
export function decodeRequest(buffer: Buffer, bytes: number): Request {
  if (bytes < IN_HEADER_BYTES || bytes > buffer.length) {
    throw new WireError(`FUSE request of ${bytes} bytes: at least ${IN_HEADER_BYTES} and at most ${buffer.length} expected`);
  }
  const length = buffer.readUInt32LE(0);
  if (length !== bytes) throw new WireError(`FUSE request says that it has ${length} bytes, ${bytes} were read`);
  const end = bytes - buffer.readUInt16LE(36) * 8;
  const opcode = buffer.readUInt32LE(4);
  const unique = readUnique(buffer, 8);
  const row = opcodeRow(opcode);
  if (end < IN_HEADER_BYTES + row.bodyBytes) {
    throw new WireError(`${row.name}: body of ${end - IN_HEADER_BYTES} bytes, at least ${row.bodyBytes} expected`);
  }
  // A file handle may name any number: one beyond 2^53 is of no inode.
  return row.decode(buffer, end, bytes, unique, readSize(buffer, 16), opcode);
}

/** The `unique` of a request that decodeRequest refused, or null if not even that can be read. */
export function damagedUnique(buffer: Buffer, bytes: number): number | null {
  if (bytes < IN_HEADER_BYTES || bytes > buffer.length) return null;
  try {
    return readUnique(buffer, 8);
  } catch {
    return null;
  }
}
