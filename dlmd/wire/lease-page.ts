/**
 * The node's lease as dlmd keeps it for the programs of its node: a small file beside its local socket, made anew by each life of a dlmd, so that
 * whoever looks at an old one sees a lease that ends (hazard C4). Looked at through shared memory, without asking dlmd.
 *
 *     0  u32  magic
 *     4  u32  version
 *     8  16 bytes: the incarnation, as hex digits
 *    24  f64  until when programs may act on their locks, CLOCK_BOOTTIME in ms
 *    32  f64  the same once more, written after it: a reader takes the lower of the two, so that it never sees half of a number
 *    40  f64  how long after that others may take these locks at the earliest, in ms: the same for the life of a dlmd
 */
import { ByteReader, ByteWriter } from "../base/bytes.ts";
import { WireError } from "../base/error.ts";

export const LEASE_FILE = "lease";
export const LEASE_PAGE_BYTES = 48;
/** Where the two ends are. */
export const LEASE_ENDS_AT = 24;
const MAGIC = 0x31534c43;
const VERSION = 2;
const INCARNATION_BYTES = 16;

export interface LeasePage {
  readonly incarnation: string;
  readonly endMs: number;
  readonly marginMs: number;
}

export function encodeLeasePage({ incarnation, endMs, marginMs }: LeasePage): Uint8Array {
  const writer = new ByteWriter().u32(MAGIC).u32(VERSION);
  for (let i = 0; i < INCARNATION_BYTES; i++) writer.u8(incarnation.charCodeAt(i));
  return writer.f64(endMs).f64(endMs).f64(marginMs).copy();
}

/** Throws WireError: no page, or of another version. */
export function decodeLeasePage(bytes: Uint8Array): LeasePage {
  const reader = new ByteReader(bytes);
  const magic = reader.u32();
  if (magic !== MAGIC) throw new WireError(`a lease page expected, found magic 0x${magic.toString(16)}`);
  const version = reader.u32();
  if (version !== VERSION) throw new WireError(`version ${VERSION} of the lease page expected, found ${version}`);
  let incarnation = "";
  for (let i = 0; i < INCARNATION_BYTES; i++) incarnation += String.fromCharCode(reader.u8());
  const first = reader.f64();
  return { incarnation, endMs: Math.min(first, reader.f64()), marginMs: reader.f64() };
}
