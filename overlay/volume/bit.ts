/**
 * The clustered bit: the value of the extended attribute `trusted.clustered` on a volume's root directory. It says that
 * the disk belongs to a cluster, and to which. A plain mount and fsck do not care about it.
 *
 * The value is printable ASCII, so that debugfs, xfs_db and getfattr show it as it is:
 *
 *     coverlay-2;cluster=demo;volume=shared;uuid=6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11;block=1052672;mmp=1;crc=89abcdef
 *
 * `2` is the format version, `crc` the CRC-32 (IEEE) of all that stands before ";crc=". `block` is the byte offset of the owner's block
 * on the device (owner-block.ts); `mmp=1` stands there if coverlay has set ext4's MMP. A directory has neither, and format 1; so
 * have devices that an earlier coverlay has set up, which are not mounted before `volume enable` was run again.
 */
import { crc32 } from "node:zlib";
import { OperatingError } from "../../dlmd/base/error.ts";

/** On the root directory: the bit. */
export const BIT_XATTR = "trusted.clustered";
/** On the root directory: how often an owner has mounted the volume, in decimal. The bit's companion; goes with it. */
export const EPOCH_XATTR = "trusted.clustered.epoch";

/** The latest; 1 is read too. */
export const BIT_FORMAT_VERSION = 2;

/** Longer values are not ours. */
export const BIT_MAX_BYTES = 256;

export interface Bit {
  readonly cluster: string;
  readonly volume: string;
  readonly uuid: string;
}

/** A bit as it stands on a volume. */
export interface StoredBit extends Bit {
  /** Where the owner's block lies on the device, in bytes; null: there is none. */
  readonly ownerBlock: number | null;
  /** MMP was set by coverlay, and is taken back with the bit. */
  readonly mmp: boolean;
}

const clusterPattern = /^[a-z0-9-]{1,32}$/;
const volumePattern = /^[A-Za-z0-9._-]{1,63}$/;
const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** What is wrong with the words of a bit, or null: the rules are those of cluster.yaml. */
export function bitProblem(bit: Bit): string | null {
  if (!clusterPattern.test(bit.cluster)) return `cluster name "${bit.cluster}": 1 to 32 characters a-z, 0-9 or '-' expected`;
  if (!volumePattern.test(bit.volume)) return `volume name "${bit.volume}": 1 to 63 letters, digits, '.', '_' or '-' expected`;
  if (!uuidPattern.test(bit.uuid))
    return `volume uuid "${bit.uuid}": a lower-case uuid such as 6b1c0b5e-3f0e-4f0a-9d5c-2f8c6a0c4d11 expected`;
  return null;
}

/** The bytes of the attribute. Throws OperatingError "usage" for words that may not stand in it. */
export function encodeBit(bit: Bit, place: (Pick<StoredBit, "mmp"> & { readonly ownerBlock: number }) | null = null): Buffer {
  const problem = bitProblem(bit);
  if (problem !== null) throw new OperatingError(problem, { code: "usage", hint: "Choose another, the same as in cluster.yaml." });
  const end = place === null ? "" : `;block=${place.ownerBlock}${place.mmp ? ";mmp=1" : ""}`;
  const body = `coverlay-${place === null ? 1 : 2};cluster=${bit.cluster};volume=${bit.volume};uuid=${bit.uuid}${end}`;
  return Buffer.from(`${body};crc=${hex32(crc32(Buffer.from(body, "latin1")))}`, "latin1");
}

/** Throws OperatingError "bad-bit" (damaged or not ours) or "bit-version" (a later coverlay's). `where` names the volume. */
export function decodeBit(value: Uint8Array, where: string): StoredBit {
  if (value.byteLength > BIT_MAX_BYTES) throw badBit(where, `${value.byteLength} bytes, at most ${BIT_MAX_BYTES} expected`);
  const text = Buffer.from(value).toString("latin1");
  const version = /^coverlay-(\d{1,9});/.exec(text);
  if (version === null) throw badBit(where, `it does not begin with "coverlay-": ${printable(text)}`);
  if (Number(version[1]) < 1 || Number(version[1]) > BIT_FORMAT_VERSION) {
    throw new OperatingError(`${where}: the clustered bit has format version ${version[1]}, this coverlay knows ${BIT_FORMAT_VERSION}`, {
      code: "bit-version",
      hint: "Use the coverlay that the other nodes use.",
      exitStatus: 32,
    });
  }
  const parts = patterns[Number(version[1]) - 1]?.exec(text) ?? null;
  if (parts === null) throw badBit(where, `cluster, volume, uuid and crc expected: ${printable(text)}`);
  const [, body, cluster, volume, uuid, ...rest] = parts as unknown as [string, string, string, string, string, ...string[]];
  const crc = rest.at(-1);
  const expected = hex32(crc32(Buffer.from(body, "latin1")));
  if (crc !== expected) throw badBit(where, `checksum ${crc} found, ${expected} expected: ${printable(text)}`);
  const [block, mmp] = rest.length === 1 ? [undefined, undefined] : rest;
  const bit: StoredBit = { cluster, volume, uuid, ownerBlock: block === undefined ? null : Number(block), mmp: mmp === "1" };
  const problem = bitProblem(bit);
  if (problem !== null) throw badBit(where, problem);
  return bit;
}

const patterns: readonly RegExp[] = [
  /^(coverlay-1;cluster=([^;]*);volume=([^;]*);uuid=([^;]*));crc=([0-9a-f]{8})$/,
  // Offsets up to 2^50 are exact as a number, and beyond every ext4 and XFS.
  /^(coverlay-2;cluster=([^;]*);volume=([^;]*);uuid=([^;]*);block=([1-9]\d{0,14})(?:;mmp=(1))?);crc=([0-9a-f]{8})$/,
];

/** A device needs an owner's block. Throws OperatingError "bit-version". */
export function requireOwnerBlock(bit: StoredBit, device: string): number {
  if (bit.ownerBlock !== null) return bit.ownerBlock;
  throw new OperatingError(
    `${device}: the clustered bit has format version 1, of an earlier coverlay: the volume does not name its owner`,
    {
      code: "bit-version",
      hint: `Unmount it on all nodes, then run once: coverlay volume enable ${device} --cluster ${bit.cluster} --name ${bit.volume} --uuid ${bit.uuid}`,
      exitStatus: 32,
    },
  );
}

/** Names that belong to coverlay on a volume's root: not to be shown to, nor changed by, users of the mount. */
export function isBitXattr(name: Uint8Array): boolean {
  const text = Buffer.from(name).toString("latin1");
  return text === BIT_XATTR || text === EPOCH_XATTR;
}

function badBit(where: string, found: string): OperatingError {
  return new OperatingError(`${where}: the clustered bit is damaged: ${found}`, {
    code: "bad-bit",
    hint: "Clear it with `coverlay volume disable`, then set it again with `coverlay volume enable`, with the cluster's name and the volume's uuid.",
    exitStatus: 32,
  });
}

function hex32(value: number): string {
  return value.toString(16).padStart(8, "0");
}

/** At most 80 characters, what is not printable as \xNN: for messages. */
function printable(text: string): string {
  const shown = text.slice(0, 80).replace(/[^ -~]/g, (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, "0")}`);
  return `"${shown}"${text.length > 80 ? "..." : ""}`;
}
