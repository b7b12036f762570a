/**
 * The parts that many requests have: header fields, names, extensions. Everything of variable length is checked here, and only
 * WireError is thrown.
 */
import { WireError } from "../../dlmd/base/error.ts";
import { FUSE_EXT_GROUPS, IN_HEADER_BYTES } from "./abi.ts";
import type { Request } from "./request.ts";

/**
 * The request in buffer[0..bytes); its body without extensions is buffer[IN_HEADER_BYTES..end), its extensions are
 * buffer[end..bytes). Throws WireError only.
 */
export type Decode = (buffer: Buffer, end: number, bytes: number, unique: number, fuseNodeid: number, opcode: number) => Request;

export const BODY: number = IN_HEADER_BYTES;
export const UID = 24;
export const GID = 28;
export const PID = 32;

const SHORT_BYTES = 64;

/** Position of the NUL that ends the string at `at`. */
export function stringEnd(buffer: Buffer, at: number, end: number, what: string): number {
  for (let i = at; i < end; i++) {
    if (buffer[i] === 0) return i;
  }
  throw new WireError(`${what}: a NUL expected before offset ${end}`);
}

export function copy(buffer: Buffer, at: number, end: number): Buffer {
  const bytes = Buffer.allocUnsafe(end - at);
  // Buffer.copy makes a view of its own, which takes longer than a name does.
  if (end - at > SHORT_BYTES) buffer.copy(bytes, 0, at, end);
  else for (let i = at; i < end; i++) bytes[i - at] = buffer[i] as number;
  return bytes;
}

export function checkName(at: number, nul: number, what: string): void {
  if (nul === at) throw new WireError(`${what}: an empty name at offset ${at}`);
}

/** The name that fills buffer[at..end) up to its NUL. */
export function lastName(buffer: Buffer, at: number, end: number, what: string): Buffer {
  const nul = stringEnd(buffer, at, end, what);
  checkName(at, nul, what);
  if (nul !== end - 1) throw new WireError(`${what}: ${end - 1 - nul} bytes after the name`);
  return copy(buffer, at, nul);
}

/** What a request without extensions has. */
export const NO_GIDS: readonly number[] = [];

/**
 * The groups of a creating request: fuse_ext_header{size, type} followed by fuse_supp_groups{nr_groups, groups[]}, padded to 8.
 * Other extensions (security contexts, types below 32) are passed over: none was asked for.
 */
export function supplementaryGids(buffer: Buffer, end: number, bytes: number, what: string): readonly number[] {
  let gids = NO_GIDS;
  let at = end;
  while (at < bytes) {
    const size = buffer.readUInt32LE(at);
    // `bytes - at` is a multiple of 8, so both words of the header are there.
    if (size < 8 || size > bytes - at) throw new WireError(`${what}: extension of ${size} bytes at offset ${at}, ${bytes - at} there`);
    if (buffer.readUInt32LE(at + 4) === FUSE_EXT_GROUPS) {
      const count = size < 12 ? -1 : buffer.readUInt32LE(at + 8);
      if (count < 0 || 12 + count * 4 > size) throw new WireError(`${what}: ${count} groups in an extension of ${size} bytes`);
      gids = Array.from({ length: count }, (_, i) => buffer.readUInt32LE(at + 12 + i * 4));
    }
    at += (size + 7) & ~7;
  }
  return gids;
}
