/**
 * Finds a `trusted.` attribute in the bytes of an XFS inode whose attribute fork is in short form (the usual one for a root
 * directory with one attribute). Reading it so, with O_DIRECT, needs no mount and no page cache (hazard M4), which
 * xfs_db would use. Sources: fs/xfs/libxfs/xfs_format.h (xfs_dinode), xfs_da_format.h (xfs_attr_sf_hdr, xfs_attr_sf_entry).
 */

const INODE_MAGIC = 0x494e;
const CORE_BYTES_V2 = 100;
const CORE_BYTES_V3 = 176;
const FORMAT_LOCAL = 1;
/** XFS_ATTR_ROOT: the trusted namespace. */
const FLAG_ROOT = 0x02;
const NAMESPACE_FLAGS = 0x02 | 0x04 | 0x08;

export type XfsAttribute =
  | { readonly kind: "value"; readonly value: Buffer }
  | { readonly kind: "absent" }
  /** The attributes lie in blocks of their own: somebody else must read them. */
  | { readonly kind: "elsewhere" }
  | { readonly kind: "damaged"; readonly why: string };

/** `name` is without "trusted.". */
export function findXfsTrusted(inode: Uint8Array, name: string): XfsAttribute {
  const bytes = Buffer.from(inode.buffer, inode.byteOffset, inode.byteLength);
  if (bytes.length < 256 || bytes.readUInt16BE(0) !== INODE_MAGIC) return { kind: "damaged", why: "the root inode has no inode magic" };
  const core = bytes.readUInt8(4) >= 3 ? CORE_BYTES_V3 : CORE_BYTES_V2;
  const forkOffset = bytes.readUInt8(82) * 8;
  if (forkOffset === 0) return { kind: "absent" };
  if (bytes.readInt8(83) !== FORMAT_LOCAL) return { kind: "elsewhere" };
  return findInShortForm(bytes.subarray(core + forkOffset), name);
}

function findInShortForm(fork: Buffer, name: string): XfsAttribute {
  if (fork.length < 4) return { kind: "damaged", why: "the attribute fork lies outside of the root inode" };
  const totalBytes = fork.readUInt16BE(0);
  const count = fork.readUInt8(2);
  if (totalBytes > fork.length) return { kind: "damaged", why: `${totalBytes} bytes of attributes in ${fork.length}` };
  let at = 4;
  for (let entry = 0; entry < count; entry++) {
    if (at + 3 > totalBytes) return { kind: "damaged", why: "the attribute list is cut off" };
    const nameBytes = fork.readUInt8(at);
    const valueBytes = fork.readUInt8(at + 1);
    const flags = fork.readUInt8(at + 2);
    const valueAt = at + 3 + nameBytes;
    if (valueAt + valueBytes > totalBytes) return { kind: "damaged", why: "an attribute is cut off" };
    const isTrusted = (flags & NAMESPACE_FLAGS) === FLAG_ROOT;
    if (isTrusted && fork.toString("latin1", at + 3, valueAt) === name) {
      return { kind: "value", value: Buffer.from(fork.subarray(valueAt, valueAt + valueBytes)) };
    }
    at = valueAt + valueBytes;
  }
  return { kind: "absent" };
}
