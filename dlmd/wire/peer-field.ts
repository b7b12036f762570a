/** Fields that several messages between nodes have: names, modes, value blocks. */
import type { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import { isMode, type Mode } from "../lock/mode.ts";

export const maxNameBytes = 64;
export const maxLvbBytes = 256;

export function readMode(r: ByteReader): Mode {
  const mode = r.u8();
  if (!isMode(mode)) throw new WireError(`lock mode ${mode} at offset ${r.offset - 1}: 0 to 5 expected`);
  return mode;
}

export const noMode = 0xff;

export function readModeOrNull(r: ByteReader): Mode | null {
  const mode = r.u8();
  if (mode === noMode) return null;
  if (!isMode(mode)) throw new WireError(`lock mode ${mode} at offset ${r.offset - 1}: 0 to 5 or 255 expected`);
  return mode;
}

export function readName(r: ByteReader): string {
  const name = r.string(maxNameBytes);
  if (name === "") throw new WireError(`empty name at offset ${r.offset}: 1 to ${maxNameBytes} bytes expected`);
  return name;
}

export function writeLvb(w: ByteWriter, lvb: Uint8Array | null): ByteWriter {
  return lvb === null ? w.u16(0xffff) : w.u16(lvb.byteLength).bytes(lvb);
}

/** A copy: the frame's buffer is not kept alive by a lock. */
export function readLvb(r: ByteReader): Uint8Array | null {
  const bytes = r.u16();
  if (bytes === 0xffff) return null;
  if (bytes > maxLvbBytes) throw new WireError(`value block of ${bytes} bytes, at most ${maxLvbBytes} allowed`);
  return r.bytes(bytes).slice();
}

/** Milliseconds since then, whole and as wide as the field is. */
export function waitedSince(sinceMs: number, nowMs: number): number {
  return Math.min(0xffffffff, Math.max(0, Math.round(nowMs - sinceMs)));
}
