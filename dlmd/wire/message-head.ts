/** The head of a message between dlmds: two bytes of magic, the version of the protocol, and the type, by which its fields are read. */
import { ByteReader, type ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";
import type { Row } from "./field.ts";

export interface MessageHead {
  /** What it is called in errors. */
  readonly what: string;
  /** The first byte is "c". */
  readonly magic: number;
  readonly version: number;
}

const firstMagic = 0x63;

export function writeHead(w: ByteWriter, { magic, version }: MessageHead, type: number): ByteWriter {
  return w.u8(firstMagic).u8(magic).u8(version).u8(type);
}

/** Throws WireError for anything that is not exactly one message with that head. */
export function readHeaded<T>(bytes: Uint8Array, { what, magic, version }: MessageHead, byType: ReadonlyMap<number, Row<T>>): T {
  const r = new ByteReader(bytes);
  if (r.u8() !== firstMagic || r.u8() !== magic) throw new WireError(`not a ${what} of dlmd: wrong magic`);
  const found = r.u8();
  if (found !== version) throw new WireError(`${what} of version ${found}, this dlmd speaks ${version}`);
  const type = r.u8();
  const row = byType.get(type);
  if (row === undefined) throw new WireError(`${what} of unknown type ${type}`);
  const message = row.read(r);
  r.end();
  return message;
}
